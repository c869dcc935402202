"""The files that Together has, as datasets: listed and fetched when somebody asks for it, and not before."""

from __future__ import annotations

import tempfile
from pathlib import Path
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from evalops import remote, sources
from evalops.project import Project
from evalops.server.problem import Problem
from evalops.ui.frame import Site
from evalops.views.safe import line

MOST_FILES = 200


def is_set_up(project: Project) -> bool:
    """Whether this project works with Together."""
    settings = project.settings
    return settings.provider == remote.SERVICE or remote.SERVICE in settings.remotes


def routes(site: Site) -> list[BaseRoute]:
    """`/create/remote`"""

    def choose(request: Request) -> Response:
        files = remote.files(site.project)
        shown = [{**each, "name": line(each["name"], 100)} for each in files[:MOST_FILES]]
        return site.render(request, "create_remote.html", files=shown, count=len(files))

    def fetch(request: Request) -> Response:
        file = request.query_params.get("file", "")
        digest = _fetched(site.project, file)
        query = urlencode({"path": file, "sha256": digest})
        return RedirectResponse(f"/create/dataset?{query}", status_code=303)

    return [
        Route("/create/remote", choose, methods=["GET"]),
        Route("/create/remote", fetch, methods=["POST"]),
    ]


def _fetched(project: Project, file: str) -> str:
    """The sha256 of a file, of which a copy is here then, where an apply looks for it too."""
    folder = project.root / sources.KEPT
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place, remote.opened(project) as (_, there):
        if there.file(file) is None:
            raise Problem(404, "Together has no such file")
        path = Path(place) / "rows"
        there.fetch(file, path)
        with path.open("rb") as stream:
            digest = sources.sha256_of(stream)
        path.replace(folder / f"{digest}{sources.format_of(path)}")
    return digest
