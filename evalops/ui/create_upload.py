"""A dataset on its way into the project: from the connection to the disk piece by piece, and in its place in one step.

Until it is whole and can be read, it lies in the folder of local state, which git ignores and a crash may leave it in.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from starlette.requests import Request

from evalops import importing, verdicts
from evalops.datasets import dataset, formats
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity
from evalops.project import Project
from evalops.server.body import PATIENCE, Body
from evalops.server.problem import Problem
from evalops.settings import FILE

SUFFIXES = (".jsonl", ".csv")
MOST_BYTES = 2 << 30  # of a file
MOST_SHOWN = 20  # rows that cannot be read
FOLDER = "data/"  # where uploads go unless told otherwise
_HEADER = 65_536  # bytes of a header that are looked at
_LEFT_OVER = 24 * 3600.0  # seconds after which an upload that never ended is swept away


def suggested(project: Project, name: str) -> str:
    """A free path for a file that somebody calls `name`."""
    base = PurePosixPath(name.replace("\\", "/")).name
    suffix = PurePosixPath(base).suffix.lower()
    stem = re.sub(r"[^\w.-]+", "-", base.removesuffix(PurePosixPath(base).suffix)).strip("-._")[:80] or "dataset"
    return free(project, f"{FOLDER}{stem}{suffix if suffix in SUFFIXES else '.jsonl'}")


def free(project: Project, path: str) -> str:
    """The path, or the first like it that no file has."""
    found = PurePosixPath(path)
    names = (path if number == 1 else str(found.with_stem(f"{found.stem}-{number}")) for number in range(1, 10_000))
    return next((each for each in names if not _is_there(project, each)), path)


def refusal(project: Project, path: str, *, replaces: bool = False) -> Problem | None:
    """Why no dataset can be put at a path of the project; `free` in the answer is one like it that is not taken."""
    parts = path.split("/")
    if any(each.startswith(".") or not each or not each.isprintable() or "\\" in each for each in parts):
        return Problem(400, "a dataset goes to a path inside the project, like data/support.jsonl", code="outside")
    if not path.lower().endswith(SUFFIXES) or path.endswith(verdicts.SUFFIX) or max(map(len, parts)) > 120:
        return Problem(400, "the name ends in .jsonl or .csv: the two formats that are taken here", code="format")
    if is_inner(project, path):
        return Problem(400, "this folder is a project of its own", code="outside")
    if any((project.root / "/".join(parts[:end])).is_symlink() for end in range(1, len(parts) + 1)):
        return Problem(400, "this path goes through a symbolic link", code="outside")
    if _is_there(project, path) and not replaces:
        return Problem(409, f"`{path}` is there already", code="exists", extra={"free": free(project, path)})
    return None


def is_inner(project: Project, path: str) -> bool:
    """Whether a path is in a project of its own inside this one."""
    return any((project.root / folder / FILE).exists() for folder in PurePosixPath(path).parents[:-1])


def _is_there(project: Project, path: str) -> bool:
    target = project.root / path
    return target.exists() or target.is_symlink()


async def receive(request: Request, project: Project, path: str, *, replaces: bool) -> list[Diagnostic]:
    """Takes the body of a request as the dataset at `path`, unless rows of it cannot be read: those are the answer.

    Raises Problem where it is too large, does not come, or may not be put there.
    """
    refused = await asyncio.to_thread(refusal, project, path, replaces=replaces)
    body = Body(request, MOST_BYTES, PATIENCE)
    if refused:
        raise refused
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > shutil.disk_usage(project.root).free:
        raise Problem(413, "there is not enough room on the disk for this file")
    project.state.mkdir(exist_ok=True)
    await asyncio.to_thread(_sweep, project.state)
    with tempfile.TemporaryDirectory(dir=project.state, prefix="upload-") as folder:
        target = Path(folder) / "rows"
        with target.open("wb") as stream:
            while (piece := await body.next()) is not None:
                await asyncio.to_thread(stream.write, piece)
        return await asyncio.to_thread(_put, project, target, path, replaces=replaces)


def _put(project: Project, source: Path, path: str, *, replaces: bool) -> list[Diagnostic]:
    found = unreadable(lambda: source.open("rb"), path)
    if found:
        return found
    if refused := refusal(project, path, replaces=replaces):  # what came meanwhile is not replaced either
        raise refused
    if replaces and _is_there(project, path):
        with project.open(path):  # a regular file, and no link on the way
            source.replace(project.root / path)
    else:
        importing.put(project, source, path)
    return []


def _sweep(state: Path) -> None:
    """Removes what a killed server left of uploads."""
    for each in state.glob("upload-*"):
        with contextlib.suppress(OSError):
            if time.time() - each.stat().st_mtime > _LEFT_OVER:
                shutil.rmtree(each)


# --- rows that cannot be read ---


def unreadable(open_file: Callable[[], BinaryIO], path: str) -> list[Diagnostic]:
    """The first rows of a file that cannot be read, with their numbers; one without rows is a problem as well."""
    with contextlib.ExitStack() as stack:
        if path.lower().endswith(".jsonl"):
            stream = stack.enter_context(open_file())
            found = list(_lines(stream, path))
            if found:
                return found
    try:
        for _ in dataset.read(open_file, path):
            pass
    except EvalopsError as error:
        return [*separated(open_file, path), *error.diagnostics]
    return []


def separated(open_file: Callable[[], BinaryIO], path: str) -> Iterator[Diagnostic]:
    """That the header of a CSV has something else between its columns: many a spreadsheet writes semicolons."""
    if not path.lower().endswith(".csv"):
        return
    with open_file() as stream:
        header = stream.readline(_HEADER).decode("utf-8-sig", "replace").strip()
    for sign, name in ((";", "semicolons"), ("\t", "tabs")):
        if sign in header and "," not in header:
            message = f"the header has {name} between its columns, where a CSV has commas: all of it is one column"
            yield Diagnostic(
                code="dataset/separator",
                message=message,
                mark=Mark(path, 1, 1),
                severity=Severity.WARNING,
                hint="save the file again with commas; a spreadsheet asks for the separator when it exports",
            )
            return


def _lines(stream: BinaryIO, path: str) -> Iterator[Diagnostic]:
    """The lines of a JSONL file that are no rows: reading goes on behind each."""
    rows = lines = 0
    for _ in range(MOST_SHOWN):
        try:
            for line, _ in formats.jsonl(stream, path):
                rows, last = rows + 1, line
            return
        except EvalopsError as error:
            problem = error.diagnostics[0]
            rows += 1
            last = problem.mark.line if problem.mark else 1
            column = problem.mark.column if problem.mark else 1
            words = re.sub(r"^row \d+ ", f"row {rows} ", problem.message)
            words = words if words.startswith("row ") else f"row {rows}: {words}"
            yield replace(problem, message=words, mark=Mark(path, lines + last, column))
            if problem.code == "dataset/row-size":
                return
            lines += last


def problem_of(found: list[Diagnostic], shown: list[dict[str, Any]]) -> Problem:
    """The refusal of a file with such rows: it was not kept."""
    several = f"{len(found)} rows of the file" if len(found) > 1 else "the file"
    return Problem(
        422, f"{several} cannot be read, so it was not kept", code="unreadable", extra={"diagnostics": shown}
    )
