"""Step 1 of a new evaluation: a dataset. One that is there, a named set, an upload, or a file that Together has."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from evalops import holdings, sources
from evalops.datasets import dataset
from evalops.datasets.survey import Column, Range, survey
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity
from evalops.project import Project
from evalops.server.problem import Problem
from evalops.sources import Source
from evalops.ui import create_remote, create_upload
from evalops.ui.frame import Site, harmless
from evalops.views import json_
from evalops.views.safe import line

MOST_ROWS = 20_000  # that a page looks at unless it is asked for all
MOST_VALUES = 12
MOST_CELL = 160
_KINDS = {"file": "Files of this project", "project": "Sets of evalops.yaml", "shipped": "Sets that come with evalops"}


def routes(site: Site) -> list[BaseRoute]:
    """`/create`, `/create/dataset` and what they load."""

    def choose(request: Request) -> Response:
        project = site.project
        listed = holdings.listed(project, ())
        groups = [(title, [_item(project, each) for each in listed if each["kind"] == kind])
                  for kind, title in _KINDS.items()]  # fmt: skip
        return site.render(
            request,
            "create.html",
            groups=[(title, found) for title, found in groups if found],
            has_service=create_remote.is_set_up(project),
            most=create_upload.MOST_BYTES >> 30,
        )

    def preview(request: Request) -> Response:
        asked = request.query_params
        return _preview(site, request, site.project, asked.get("path", ""), is_whole="all" in asked)

    def name(request: Request) -> Response:
        project, asked = site.project, request.query_params
        path = asked.get("path") or create_upload.suggested(project, asked.get("name", ""))
        refused = create_upload.refusal(project, path)
        if refused:
            raise refused
        return JSONResponse({"path": path})

    async def upload(request: Request) -> Response:
        asked = request.query_params
        path = asked.get("path", "")
        found = await create_upload.receive(request, site.project, path, replaces=asked.get("replace") == "1")
        if found:
            raise create_upload.problem_of(found, [harmless(each) for each in found])
        return JSONResponse({"path": path, "location": f"/create/dataset?{urlencode({'path': path})}"}, status_code=201)

    return [
        Route("/create", choose, methods=["GET"]),
        Route("/create/dataset", preview, methods=["GET"]),
        Route("/create/dataset", upload, methods=["PUT"]),
        Route("/create/name", name, methods=["GET"]),
        *create_remote.routes(site),
    ]


def _item(project: Project, item: dict[str, Any]) -> dict[str, Any]:
    size = None
    if item["kind"] == "file":
        with contextlib.suppress(OSError):
            size = _size((project.root / item["path"]).lstat().st_size)
    return {**item, "size": size, "query": urlencode({"path": item["path"]})}


def _size(count: int) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" or count >= 10 else f"{count:,.1f} {unit}"
        count = count // 1000 if count >= 10_000 else count / 1000  # type: ignore[assignment]
    raise AssertionError


# --- what is in a dataset ---


def _preview(site: Site, request: Request, project: Project, path: str, *, is_whole: bool) -> Response:
    if not path:
        raise Problem(404, "no dataset is named in this address")
    source, kept = _source(project, request.query_params)
    most = None if is_whole else MOST_ROWS
    try:
        rows = dataset.read(source.open, source.path)
        found = survey(islice(rows, most))
        is_part = most is not None and next(rows, None) is not None
        rows.close()  # type: ignore[attr-defined]
        problems = list(create_upload.separated(source.open, source.path))
        problems += _problems(source, most, list(found.first[0]))
    except EvalopsError as error:
        bad = create_upload.unreadable(source.open, source.path) or list(error.diagnostics)
        return site.render(
            request, "create_dataset.html", status=409, path=path, survey=None, query={}, **_with(site, bad)
        )
    choice = kept or {"dataset": path}
    return site.render(
        request,
        "create_dataset.html",
        path=path,
        survey=found,
        is_part=is_part,
        query={each: urlencode({**choice, "type": each}) for each in ("classify", "score", "compare")},
        all_query=urlencode({**request.query_params, "all": "1"}),
        columns=[(each, _facts(each, found.rows)) for each in found.columns],
        first=[[_cell(row.get(each.name)) for each in found.columns] for row in found.first],
        **_with(site, problems),
    )


def _source(project: Project, asked: Any) -> tuple[Source, dict[str, str]]:
    """What a page is about, and what the next one is told of a file of a service."""
    digest = asked.get("sha256")
    if not digest:
        return sources.find(project, asked["path"]), {}
    path = sources.kept(project, digest)
    if path is None:
        raise Problem(404, "no copy of this file is here: look at it anew in the list of Together's files")
    return Source(path=path, open=lambda: project.open(path)), {"file": asked["path"], "sha256": digest}


def _with(site: Site, problems: list[Diagnostic]) -> dict[str, Any]:
    return {"problems": site.with_lines(json_.diagnostic(each) for each in problems)}


def _problems(source: Source, most: int | None, columns: list[str]) -> Iterator[Diagnostic]:
    """Empty and missing fields with the numbers of their rows: they matter where a spec uses the column."""
    use = dataset.Uses(path=source.path, columns=(), submitted=tuple(columns), responses=(), grading=(), id=None)
    rows = islice(dataset.read(source.open, source.path), most)
    _, found = dataset.check(rows, use, lambda column: Mark(source.path))
    for each in found:
        hint = each.hint if each.code == "dataset/empty-field" else "it matters only where a spec uses the column"
        yield replace(each, severity=Severity.WARNING, hint=hint)


def _facts(column: Column, rows: int) -> dict[str, Any]:
    """The words of a column."""
    kinds = [f"{name} ({count:,})" if len(column.types) > 1 else name for name, count in column.types.items()]
    found = rows - column.absent - column.empties
    about = "" if column.is_exact else "about "
    values = list((column.values or {}).items())
    lengths, numbers = column.lengths, column.numbers
    return {
        "types": ", ".join(kinds) or "nothing",
        "lengths": _range(lengths) if lengths else "",
        "numbers": f"{numbers[0]:g} to {numbers[1]:g}" if numbers else "",
        "empties": column.empties,
        "absent": column.absent,
        "distinct": "all different" if column.is_exact and column.distinct == found else f"{about}{column.distinct:,}",
        "values": [(value, count, 100 * count / max(rows, 1)) for value, count in values[:MOST_VALUES]],
        "more": max(len(values) - MOST_VALUES, 0),
    }


def _range(lengths: Range) -> str:
    if lengths.least == lengths.most:
        return f"{lengths.most:,}"
    return f"{lengths.least:,} to {lengths.most:,}, median {lengths.median:,}"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return line(value if isinstance(value, str) else json_.dump(value), MOST_CELL)
