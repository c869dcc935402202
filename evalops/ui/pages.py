"""The table of pages. A page is a module with `routes(site)`; one line here, and it is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from starlette.routing import BaseRoute

from evalops.ui import create_dataset, create_spec, follow, jobs, overview, review
from evalops.ui.frame import Section, Site


class Page(NamedTuple):
    """A module's routes; `section` where the navigation has it."""

    routes: Callable[[Site], list[BaseRoute]]
    section: Section | None = None


PAGES = (
    Page(overview.routes, Section("Overview", "/")),
    Page(create_dataset.routes, Section("New evaluation", "/create")),
    Page(create_spec.routes),
    Page(follow.routes, Section("Apply", "/apply")),
    Page(review.routes),
    Page(jobs.routes, Section("Jobs", "/jobs")),
)
