"""The files that pages load beside themselves: style, scripts, the icon. Each is named here; no folder is served."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from evalops import views

_OURS = Path(__file__).parent / "static"
_SHARED = Path(views.__file__).parent / "page"  # with the report

FILES = {
    "/static/style.css": (_SHARED / "style.css", "text/css"),
    "/static/icon.svg": (_OURS / "icon.svg", "image/svg+xml"),
    "/static/overview.js": (_OURS / "overview.js", "text/javascript"),
    "/static/create_upload.js": (_OURS / "create_upload.js", "text/javascript"),
    "/static/create_form.js": (_OURS / "create_form.js", "text/javascript"),
    "/static/create_fields.js": (_OURS / "create_fields.js", "text/javascript"),
    "/static/create_lists.js": (_OURS / "create_lists.js", "text/javascript"),
    "/static/create_ask.js": (_OURS / "create_ask.js", "text/javascript"),
    "/static/apply.js": (_OURS / "apply.js", "text/javascript"),
    "/static/review.js": (_OURS / "review.js", "text/javascript"),
    "/static/report.js": (_SHARED / "report.js", "text/javascript"),
}
PUBLIC = frozenset({"/static/style.css", "/static/icon.svg"})  # what a refusal needs to be readable


def routes() -> list[Route]:
    """A route for each file."""
    return [Route(path, partial(_serve, file, kind), methods=["GET"]) for path, (file, kind) in FILES.items()]


def _serve(file: Path, kind: str, request: Request) -> Response:
    return FileResponse(file, media_type=kind)
