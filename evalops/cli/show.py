"""`evalops show`"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import EvalopsError

if TYPE_CHECKING:
    from evalops.lock import Entry
    from evalops.project import Project

MOST = 10  # rows that are shown


@click.command("show")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@project_option
def command(address: str, form: str, folder: Path | None) -> None:
    """Show the result at ADDRESS: metrics with their intervals, label counts, gates, failing rows.

    In place of an address, the id of a job asks the service: what the job was asked to do and what came of it,
    whoever made it.

    \b
    evalops show support-tone
    evalops show 'support-tone[model=a]' --format json
    evalops show eval-de4c-1751308922
    """
    from evalops.views import json_, result

    project = open_project(folder)
    if _is_job(project, address):
        from evalops import remote
        from evalops.views import job

        value = remote.job(project, address)
        answer(json_.dump(value) if form == "json" else job.show(value))
        return
    entry = project.entry(address)
    if form == "json":
        answer(json_.dump(json_.entry(entry)))
        return
    answer(result.show(json_.entry(entry), _failing(project, entry)))


def _is_job(project: Project, name: str) -> bool:
    """Whether a name that is no address is the id of a job at the service."""
    from evalops.remote import PREFIX, SERVICE

    entries = [entry for lock in project.locks()[0].values() for entry in lock.entries.values()]
    if any(entry.address == name for entry in entries):
        return False
    return name.startswith(PREFIX) or any(entry.job == name and entry.provider == SERVICE for entry in entries)


def _failing(project: Project, entry: Entry) -> list[dict[str, Any]]:
    """The first rows to look at, if the rows are on this machine."""
    from evalops import rows
    from evalops.views import json_

    try:
        failed = (each for each in rows.of(project, entry) if each.failed)
        first = list(itertools.islice(failed, MOST))
    except EvalopsError:
        return []
    return [json_.row(each.key, each.source, each.verdict, each.detail, entry.job or "") for each in first]
