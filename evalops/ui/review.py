"""Step 4: one result with its statistics, charts and rows, beside a base, and all of it to take away.

What is shown is the report's own page of the evaluation: its template, its script, its value.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from evalops import catalog, remote, report
from evalops.errors import EvalopsError
from evalops.server.problem import Problem
from evalops.ui.frame import Site, edit_of, plan_of, quoted, review_of
from evalops.views import csv_, html_, json_, sections

BLOCK = 1 << 16  # bytes
AT_ONCE = 5_000  # rows that a page has from the beginning
NAMED = 80  # characters of a file's name
KINDS = {
    "rows.jsonl": "application/jsonl",
    "rows.csv": "text/csv; charset=utf-8",
    "provider.jsonl": "application/jsonl",
    "summary.json": "application/json",
    "report.html": "text/html; charset=utf-8",
}


def routes(site: Site) -> list[BaseRoute]:
    """`/evaluations/ADDRESS` and `/download/FILE/ADDRESS`"""

    def review(request: Request) -> Response:
        return _page(site, request, request.path_params["address"])

    def download(request: Request) -> Response:
        name, address = request.path_params["name"], request.path_params["address"]
        if name not in KINDS:
            raise Problem(404, "there is no such file", code="not_found")
        _known(site, address)
        stream = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it has been sent
        try:
            for part in _parts(site, name, address):
                stream.write(part)
        except BaseException:
            stream.close()
            raise
        return _attached(stream, f"{_plain(address)}.{name}", KINDS[name])

    return [
        Route("/evaluations/{address:path}", review, methods=["GET"]),
        Route("/download/{name}/{address:path}", download, methods=["GET"]),
    ]


def _page(site: Site, request: Request, address: str) -> Response:
    """The page; of many rows without them at first, which its script then asks for (`rows=1`) and puts in."""
    base = request.query_params.get("base", "").strip()
    count = _known(site, address)
    is_late = count > AT_ONCE and "rows" not in request.query_params
    try:
        value, problems = _report(site, address, base or None, with_rows=not is_late)
    except EvalopsError as error:
        if not base:
            raise
        value, rest = _report(site, address, with_rows=not is_late)  # a base with a slip in it hides no result
        problems = [*error.diagnostics, *rest]
    found = next((each for each in sections.of(value, linked=False) if each["address"] == address), None)
    result = next((each for each in value["evaluations"] if each["address"] == address), None)
    return site.render(
        request,
        "review.html",
        address=address,
        tail=f"/{quoted(address)}",
        plan=plan_of(address),
        edit=edit_of(result["spec"]) if result and result["spec"] else None,
        section=found,
        base=base,
        count=count,
        is_late=is_late,
        whole=f"{review_of(address)}?{urlencode({'base': base, 'rows': 1})}",
        beside=value["base"],
        no_base=value["absent"].get("base"),
        has_file=result is not None and result["provider"] == remote.SERVICE,
        has_rows=is_late or (result is not None and result["rows"] is not None and result["rows"]["count"] > 0),
        problems=site.with_lines([json_.diagnostic(each) for each in problems if each.address in (None, address)]),
    )


def _known(site: Site, address: str) -> int:
    """How many rows its result has. Raises Problem where neither a lockfile nor a spec has the address."""
    project = site.project
    for lock in project.locks()[0].values():
        if address in lock.entries:
            return int((lock.entries[address].summary or {}).get("rows", 0))
    evaluations, _ = catalog.evaluations_of(project, project.specs())
    if address not in {each.address for each in evaluations}:
        raise Problem(404, "no evaluation has this address", code="not_found")
    return 0


def _report(
    site: Site, address: str, base: str | None = None, *, with_rows: bool = True
) -> tuple[dict[str, Any], Iterable[Any]]:
    asked = report.Asked(base=base, include=(address,), with_rows=with_rows)
    return report.of(site.project, asked, datetime.now(UTC))


def _parts(site: Site, name: str, address: str) -> Iterator[bytes]:
    """The bytes of a file, all of them made in one thread: a store's rows are read in the one that opened it."""
    match name:
        case "rows.jsonl":
            yield from (_bytes(json.dumps(row, ensure_ascii=False) + "\n") for row in site.api.rows(address))
        case "rows.csv":
            yield from map(_bytes, csv_.rows(site.api.rows(address)))
        case "summary.json":
            yield json_.dump(site.api.results(address)).encode()
        case "report.html":
            value, _ = _report(site, address)
            yield html_.page(value).encode("utf-8", "replace")
        case "provider.jsonl":
            yield from _of_provider(site, address)


def _of_provider(site: Site, address: str) -> Iterator[bytes]:
    """The result file of the service, byte for byte."""
    entry = site.project.entry(address)
    if entry.provider != remote.SERVICE or not entry.job:
        raise Problem(404, f"it ran at the provider {entry.provider}, which makes no result file", code="not_found")
    with remote.opened(site.project) as (_, inventory):
        path = inventory.result(entry.job)
    if path is None:
        raise EvalopsError(remote.gone(entry.job))
    yield from _blocks(path.open("rb"))


def _bytes(text: str) -> bytes:
    # Half a character, from a dataset for instance, stays the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace")


def _attached(stream: IO[bytes], name: str, kind: str) -> Response:
    size = stream.tell()
    stream.seek(0)
    headers = {"content-disposition": f'attachment; filename="{name}"', "content-length": str(size)}
    return StreamingResponse(_blocks(stream), media_type=kind, headers=headers)


def _blocks(stream: IO[bytes]) -> Iterator[bytes]:
    with closing(stream):
        while block := stream.read(BLOCK):
            yield block


def _plain(address: str) -> str:
    """An address as part of a file's name on any system."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", address).strip("-.")[:NAMED] or "evaluation"
