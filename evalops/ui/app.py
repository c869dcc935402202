"""The application: the pages of the table behind the door, and what is said where one cannot be shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from evalops.errors import EvalopsError
from evalops.server.problem import Problem
from evalops.ui import assets
from evalops.ui.door import Door
from evalops.ui.frame import Closing, Site
from evalops.ui.guard import Guard
from evalops.ui.pages import PAGES


def create(root: Path, door: Door, port: int, say: Callable[[str], None], closing: Closing) -> Any:
    """The ASGI application for the project at `root`, listening at `port`; `say` takes lines for the terminal."""
    site = Site(root, tuple(page.section for page in PAGES if page.section), closing)

    async def problem(request: Request, error: Exception) -> Response:
        return site.refuse(request.scope, _problem(request, error))

    async def stopped(request: Request, error: Exception) -> Response:
        assert isinstance(error, EvalopsError)
        return site.stopped(request, error)

    app = Starlette(
        routes=[*assets.routes(), *(route for page in PAGES for route in page.routes(site))],
        exception_handlers={
            Problem: problem,
            HTTPException: problem,
            OSError: problem,
            EvalopsError: stopped,
        },
    )
    app.router.redirect_slashes = False
    return Guard(app, door, port, public=assets.PUBLIC, refuse=site.refuse, say=say)


def _problem(request: Request, error: Exception) -> Problem:
    match error:
        case Problem():
            return error
        case HTTPException(status_code=404):
            return Problem(404, "nothing is at this address", code="not_found")
        case HTTPException(status_code=405):
            return Problem(405, f"this address does not take {request.method[:20]}", headers=error.headers)
        case OSError():
            return Problem(503, f"a file of the project cannot be used: {error.strerror or type(error).__name__}")
    return Problem(400, "this cannot be answered")
