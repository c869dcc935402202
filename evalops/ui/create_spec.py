"""Step 2 of a new evaluation: the form and the YAML beside it, in step, and the file that comes of them.

Until it is saved, a draft is in the page alone: the server keeps nothing of it, and has nothing to lose.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from evalops import importing
from evalops.document import MAX_BYTES
from evalops.fingerprint import sha256
from evalops.project import Project
from evalops.server.body import read_json
from evalops.server.problem import Problem
from evalops.spec import Type
from evalops.ui import create_check, create_start, create_text
from evalops.ui.create_fields import CANDIDATES
from evalops.ui.frame import Site, plan_of

Json = dict[str, Any]
TYPES = (Type.CLASSIFY, Type.SCORE, Type.COMPARE)
LAST_ROW = 100_000_000
_PATH = "untitled.yaml"


def routes(site: Site) -> list[BaseRoute]:
    """`/create/evaluation`, and what it asks: `/create/draft` and `/create/spec`."""

    def form(request: Request) -> Response:
        asked = request.query_params
        if not {"dataset", "file", "spec"} & set(asked):
            return RedirectResponse("/create", status_code=303)
        project = site.project
        text, path, base = _begun(project, dict(asked))
        draft = create_check.draft(project, text, path, None, 1)
        settings = project.settings
        return site.render(
            request,
            "create_evaluation.html",
            draft={**draft, "base": base},
            is_new=base is None,
            candidates=CANDIDATES,
            judges=list(settings.judges),
            models=list(settings.models),
            credentials=list(settings.credentials),
            provider=settings.provider,
            asked={key: value for key, value in asked.items() if key in ("dataset", "file", "sha256")},
        )

    async def draft(request: Request) -> Response:
        body = await _body(request)
        return JSONResponse(await run_in_threadpool(_draft, site.project, body))

    async def save(request: Request) -> Response:
        body = await _body(request)
        found = await run_in_threadpool(_save, site.project, body)
        return JSONResponse({**found, "location": plan_of(found["path"])}, status_code=201)

    return [
        Route("/create/evaluation", form, methods=["GET"]),
        Route("/create/draft", draft, methods=["POST"]),
        Route("/create/spec", save, methods=["POST"]),
    ]


def _begun(project: Project, asked: dict[str, str]) -> tuple[str, str, str | None]:
    """The text that the page begins with, its path, and for a spec that is there the digest of its file."""
    if "spec" in asked:
        data = project.read(asked["spec"])
        if create_check.placed(project, asked["spec"]):
            raise Problem(404, "no spec of this project is at this path")
        return data.decode("utf-8", "replace"), asked["spec"], sha256(data)
    type_ = asked.get("type", "classify")
    if type_ not in TYPES:
        raise Problem(404, "the types are classify, score and compare")
    if "file" in asked:
        spec = create_start.of_upload(project, asked["file"], asked.get("sha256", ""), Type(type_))
    else:
        spec = create_start.of_dataset(project, asked["dataset"], Type(type_))
    path = create_start.place(project, str(spec["name"]))
    return create_text.new(project, spec, path), path, None


async def _body(request: Request) -> Json:
    body = await read_json(request, 4 * MAX_BYTES)
    wanted = {"text": str, "path": str}
    if not isinstance(body, dict) or not all(isinstance(body.get(key), kind) for key, kind in wanted.items()):
        raise Problem(400, "a draft has a text and a path")
    if any("\ud800" <= each <= "\udfff" for each in body["text"] + body["path"]):
        raise Problem(400, "half a character is no text")
    return body


def _draft(project: Project, body: Json) -> Json:
    row, changes = body.get("row"), body.get("changes")
    number = row if isinstance(row, int) and 0 < row <= LAST_ROW else 1
    if changes is not None and not (isinstance(changes, dict) and isinstance(changes.get("dataset.columns", {}), dict)):
        raise Problem(400, "changes are fields with their values")
    text = body["text"]
    if body.get("is_anew") is True:
        text, changes = create_check.anew(project, changes or {}, body["path"]), None
    return create_check.draft(project, text, body["path"] or _PATH, changes, number)


def _save(project: Project, body: Json) -> Json:
    """Writes a spec as `fmt` lays it out, if `validate` finds no error in it and it replaces nothing unasked."""
    path = body["path"]
    text = create_text.headed(project, body["text"], path)
    found = create_check.problems(project, text, path, most=None)
    if any(each["severity"] == "error" for each in found):
        extra = {"problems": found}
        raise Problem(422, "this is not saved yet: mend what is marked first", code="invalid", extra=extra)
    data = create_check.laid_out(text, path)
    target = project.root / path
    if target.exists() or target.is_symlink():
        there = sha256(project.read(path))
        if there != body.get("replaces"):
            what = "has changed meanwhile" if body.get("replaces") else "is there already"
            raise Problem(409, f"`{path}` {what}", code="exists", extra={"digest": there})
        project.write(path, data)
    else:
        with _written(project, data) as source:
            importing.put(project, source, path)
    return {"path": path, "text": data.decode(), "digest": sha256(data), "problems": found}


@contextlib.contextmanager
def _written(project: Project, data: bytes) -> Iterator[Path]:
    """The bytes in a file of the folder of local state, for a moment."""
    project.state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.state, prefix="spec-") as folder:
        path = Path(folder) / "spec"
        path.write_bytes(data)
        yield path
