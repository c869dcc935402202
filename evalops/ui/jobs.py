"""The jobs at a provider, those that no spec knows marked, and specs made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from evalops import importing, remote
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.providers import open_provider
from evalops.server.problem import Problem
from evalops.ui.frame import Site, fields, review_of
from evalops.views import json_

PATH = "/jobs"
LOCAL = "local"
PLACES = {LOCAL: "Local store", remote.SERVICE: "Together"}
MOST = 500  # jobs of the local store that are listed

Json = dict[str, Any]


def routes(site: Site) -> list[BaseRoute]:
    """`/jobs`, `/jobs/import`"""

    def show(request: Request) -> Response:
        place = request.query_params.get("at", LOCAL)
        if place not in PLACES:
            raise Problem(404, "there is no such provider", code="not_found")
        return _page(site, request, place)

    async def take(request: Request) -> Response:
        return await run_in_threadpool(_import, site, request, await fields(request))

    return [Route(PATH, show, methods=["GET"]), Route(f"{PATH}/import", take, methods=["POST"])]


def _page(
    site: Site, request: Request, place: str, *, taken: importing.Imported | None = None, problems: Sequence[Json] = ()
) -> Response:
    origin = None
    jobs: list[Json] = []
    problems = list(problems)
    is_asked = True
    try:
        if place == LOCAL:
            jobs = _local(site)
        else:
            with closing(open_provider(remote.SERVICE, site.project)) as service:
                origin = service.origin
            jobs = remote.jobs(site.project, type_=None, status=None, limit=remote.MOST_JOBS)
    except EvalopsError as error:
        is_asked = False
        problems += map(json_.diagnostic, error.diagnostics)
    return site.render(
        request,
        "jobs.html",
        status=409 if any(each["severity"] == "error" for each in problems) and request.method == "POST" else 200,
        place=place,
        places=PLACES,
        origin=origin,
        jobs=[(each, [(address, review_of(address)) for address in each["addresses"]]) for each in jobs],
        unknown=sum(not each["addresses"] for each in jobs),
        is_asked=is_asked,
        is_cut=len(jobs) >= (MOST if place == LOCAL else remote.MOST_JOBS),
        taken=taken,
        link=review_of(taken.address) if taken else "",
        problems=site.with_lines(problems),
        can_import=place == remote.SERVICE,
    )


def _local(site: Site) -> list[Json]:
    """The jobs of the store on this machine, newest first, with the addresses whose lock entries name them."""
    project = site.project
    held = remote.holders(project, LOCAL)
    with closing(open_provider(LOCAL, project)) as provider:
        return [remote.brief(each, held) for each in provider.list().jobs[:MOST]]


def _import(site: Site, request: Request, form: Mapping[str, Sequence[str]]) -> Response:
    """Makes a spec of one job. Nothing is run, and no file is overwritten."""
    id_, to = (form.get("job") or [""])[0], (form.get("to") or [""])[0].strip()
    if not id_:
        raise Problem(400, "no job was named")
    try:
        with importing.begun(site.project, to) as (importer, has):
            if id_ in has:
                raise EvalopsError(_held(id_, has[id_]))
            job = importer.inventory.job(id_)
            if job is None:
                raise EvalopsError(remote.gone(id_))
            taken = importer.take(job)
    except EvalopsError as error:
        problems = [json_.diagnostic(each) for each in error.diagnostics]
        return _page(site, request, remote.SERVICE, problems=problems)
    notes = [json_.diagnostic(each) for each in taken.notes]
    return _page(site, request, remote.SERVICE, taken=taken, problems=notes)


def _held(job: str, who: str) -> Diagnostic:
    return Diagnostic(
        code="import/held", message=f"this project has the job `{job}` already, at {who}", severity=Severity.ERROR
    )
