"""Datasets as streams: JSONL, CSV and Parquet rows one at a time, their digests, and the keys that name them.

Nothing here holds a whole dataset: a file of a million rows needs the memory of one.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple, NoReturn

from evalops import parquet, schema
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity
from evalops.fingerprint import Digests, canonical, sha256
from evalops.spec import Evaluation

LONGEST_ROW = 16 * 1024 * 1024  # bytes of one row
LONGEST_NUMBER = 100  # characters of an integer
SHOWN = 5  # problems of one kind that are shown; the rest is counted

Open = Callable[[], BinaryIO]


class Row(NamedTuple):
    """One dataset row: `position` from 0, the `line` of the file it begins at, and its columns.

    `source` has the file's columns under the spec's names.
    """

    position: int
    line: int
    source: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """The columns an evaluation reads, by what for."""

    path: str
    columns: tuple[tuple[str, str], ...]
    submitted: tuple[str, ...]
    responses: tuple[str, ...]
    grading: tuple[str, ...]
    id: str | None


def uses(evaluation: Evaluation, variables: Iterable[str]) -> Uses:
    """What `evaluation` reads of its dataset; `variables` are the names its templates use."""
    recorded = [evaluation.judge.column] if evaluation.judge.column else []
    return Uses(
        path=evaluation.dataset.path,
        columns=tuple(evaluation.dataset.columns.items()),
        submitted=tuple(sorted({*variables, *evaluation.response_columns, *recorded})),
        responses=evaluation.response_columns,
        grading=(evaluation.gold,) if evaluation.gold else (),
        id=evaluation.dataset.id,
    )


def read(open_file: Open, path: str, columns: tuple[tuple[str, str], ...] = ()) -> Iterator[Row]:
    """The rows of a JSONL, CSV or Parquet file, by its suffix.

    Raises EvalopsError with the line of the first row that cannot be read; an empty file is an error.
    """
    reader = _READERS.get(PurePosixPath(path).suffix.lower())
    if reader is None:
        known = ", ".join(sorted(_READERS))
        _fail("format", f"`{path}` is no dataset", None, f"evalops reads {known} files")
    position = -1
    with open_file() as stream:
        for position, (line, source) in enumerate(reader(stream, path)):
            yield Row(position, line, _renamed(source, columns, path, line) if columns else source)
    if position < 0:
        _fail("empty", f"`{path}` has no rows", Mark(path))


def scan(open_file: Open, use: Uses, mark: Callable[[str], Mark]) -> tuple[Digests, list[Diagnostic]]:
    """One pass over a dataset: its digests, and what is wrong with it for this evaluation.

    `mark` gives the place in the spec where a column is named. Raises EvalopsError where the file cannot be read.
    """
    whole, submitted, grading = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    problems = _Problems(use.path)
    identifiers = Occurrences() if use.id else None
    rows = characters = 0
    unseen = set(use.grading)
    header: dict[str, Any] = {}
    for row in read(open_file, use.path, use.columns):
        if row.position == 0:
            header = row.source
            _require(use.submitted + ((use.id,) if use.id else ()), header, use, mark)
        rows += 1
        whole.update(canonical(row.source) + b"\n")
        used = {}
        for column in use.submitted:
            value = row.source.get(column, problems)
            if value is problems:
                problems.absent(column, row)
            elif value is None or value == "":
                problems.empty(column, row)
            else:
                used[column] = value
        text = canonical(used)
        submitted.update(text + b"\n")
        characters += len(text)
        if use.grading:
            unseen.difference_update(row.source)
            grading.update(canonical([row.source.get(column) for column in use.grading]) + b"\n")
        if identifiers is not None and use.id is not None:
            problems.identifier(use.id, row, identifiers)
    _require(tuple(unseen), header, use, mark)  # a column of grading may be absent in some rows, not in all
    return Digests(
        rows=rows,
        dataset=whole.hexdigest(),
        submitted=submitted.hexdigest(),
        grading=grading.hexdigest() if use.grading else "",
        characters=characters,
    ), problems.diagnostics()


def keys(rows: Iterable[Row], use: Uses) -> Iterator[tuple[str, Row]]:
    """Each row with its key: 16 hex digits, with `#2` and so on for the second row of the same content."""
    seen = Occurrences()
    hidden = set(use.responses)
    for row in rows:
        if use.id is not None:
            name: Any = row.source.get(use.id)
        else:
            name = {column: value for column, value in row.source.items() if column not in hidden}
        digest = sha256(canonical(name))[:16]
        count = seen.count(digest)
        yield (digest if count == 1 else f"{digest}#{count}"), row


class Occurrences:
    """How often each text has been seen, kept in a temporary file rather than in memory."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", isolation_level=None)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("CREATE TABLE seen (text TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def count(self, text: str) -> int:
        """The number of times `text` has come, this one included."""
        # Most texts are new, and an insert that returns nothing is half the work of one that does.
        if self._database.execute("INSERT OR IGNORE INTO seen VALUES (?, 1)", (text,)).rowcount:
            return 1
        cursor = self._database.execute("UPDATE seen SET count = count + 1 WHERE text = ? RETURNING count", (text,))
        return int(cursor.fetchall()[0][0])

    def __del__(self) -> None:
        with contextlib.suppress(AttributeError, sqlite3.Error):
            self._database.close()


@dataclass(slots=True)
class _Problems:
    """Problems of rows, counted, the first few kept with their row numbers."""

    path: str
    empties: dict[str, list[int]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Diagnostic] = field(default_factory=list)
    errors: int = 0
    rest: Mark | None = None

    def empty(self, column: str, row: Row) -> None:
        self.counts[column] = self.counts.get(column, 0) + 1
        shown = self.empties.setdefault(column, [])
        if len(shown) < SHOWN:
            shown.append(row.position + 1)

    def absent(self, column: str, row: Row) -> None:
        self._keep(
            "missing-field",
            f"row {row.position + 1} has no field `{column}`",
            row,
            "every row needs the columns that the spec uses",
        )

    def identifier(self, column: str, row: Row, seen: Occurrences) -> None:
        value = row.source.get(column)
        if value is None or value == "":
            problem, hint = "has no value", "give every row one, or remove `id`"
        elif seen.count(str(value)) > 1:
            problem, hint = "repeats a value of an earlier row", "make it unique, or remove `id`"
        else:
            return
        where = f"row {row.position + 1}: the column `{column}`, which names the rows, {problem}"
        self._keep("id", where, row, hint)

    def _keep(self, what: str, message: str, row: Row, hint: str) -> None:
        self.errors += 1
        mark = Mark(self.path, row.line, 1)
        if self.errors <= SHOWN:
            self.kept.append(Diagnostic(code=f"dataset/{what}", message=message, mark=mark, hint=hint))
        elif self.rest is None:
            self.rest = mark

    def diagnostics(self) -> list[Diagnostic]:
        found = list(self.kept)
        if self.rest is not None:
            more = self.errors - SHOWN
            message = f"{more} more such problem{'s' * (more > 1)} from here on"
            found.append(Diagnostic(code="dataset/more", message=message, mark=self.rest))
        for column, numbers in self.empties.items():
            rows = f"row{'s' * (len(numbers) > 1)} {', '.join(str(number) for number in numbers)}"
            more = self.counts[column] - len(numbers)
            found.append(
                Diagnostic(
                    code="dataset/empty-field",
                    message=f"the column `{column}` is empty in {rows}" + (f" and {more} more" if more else ""),
                    mark=Mark(self.path),
                    severity=Severity.WARNING,
                )
            )
        return found


def _require(wanted: tuple[str, ...], source: Mapping[str, Any], use: Uses, mark: Callable[[str], Mark]) -> None:
    theirs = dict(use.columns)
    missing = [
        Diagnostic(
            code="dataset/missing-column",
            message=f"`{use.path}` has no column `{theirs.get(column, column)}`"
            + (f", which `dataset.columns` calls `{column}`" if column in theirs else ""),
            mark=mark(column),
            hint=schema.nearest(theirs.get(column, column), source) or f"the first row has: {', '.join(source)}",
        )
        for column in wanted
        if column not in source
    ]
    if missing:
        raise EvalopsError(*missing)


def _renamed(source: dict[str, Any], columns: tuple[tuple[str, str], ...], path: str, line: int) -> dict[str, Any]:
    back = {theirs: ours for ours, theirs in columns}
    renamed = {back.get(column, column): value for column, value in source.items()}
    if len(renamed) != len(source):
        theirs, ours = next((theirs, ours) for theirs, ours in back.items() if theirs in source and ours in source)
        message = f"`dataset.columns` calls `{theirs}` `{ours}`, and this row has another column of that name"
        _fail("columns", message, Mark(path, line, 1), "choose a new name, or give the other column one")
    return renamed


def _jsonl(stream: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    row = 0
    while line := stream.readline(LONGEST_ROW + 1):
        number += 1
        if len(line) > LONGEST_ROW:
            _fail("row-size", f"row {row + 1} is longer than {LONGEST_ROW >> 20} MiB", Mark(path, number, 1))
        line = line.removeprefix(b"\xef\xbb\xbf")  # files that were put together have one in the middle
        if not line.strip():
            continue
        row += 1
        try:
            value = _decode(line.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            _fail("encoding", "this line is not UTF-8", Mark(path, number, 1), "save the file as UTF-8")
        except json.JSONDecodeError as error:
            what = error.msg[:1].lower() + error.msg[1:]
            _fail("row", f"row {row} is not JSON: {what}", Mark(path, number, error.colno), "a line is one JSON object")
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            _fail("row", f"row {row} cannot be read: {reason}", Mark(path, number, 1))
        if not isinstance(value, dict):
            kind = {list: "a list", str: "text", type(None): "null"}.get(type(value), "a single value")
            _fail(
                "row",
                f"row {row} is {kind}, not an object",
                Mark(path, number, 1),
                'a row looks like {"prompt": "…"}',
            )
        yield number, value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"{text} is too large for a number")
    return value


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:  # int() takes quadratic time
        raise ValueError(f"a number has {len(text):,} digits, at most {LONGEST_NUMBER} are allowed")
    return int(text)


# Made once: json.loads would make a decoder for every line.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_float, parse_int=_integer).decode


def _csv(stream: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    # Closed by us: a wrapper that is left to the garbage collector warns of a file that nobody closed.
    with io.TextIOWrapper(stream, encoding="utf-8-sig", newline="") as text:
        yield from _cells(text, path)


def _cells(text: io.TextIOWrapper, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_ROW)
    reader = csv.reader(text, strict=True)
    header: list[str] | None = None
    row = 0
    line = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except UnicodeDecodeError as error:
            # It comes when a block of bytes is decoded, after the reader has taken all lines before that block.
            line = reader.line_num + 1 + error.object[: error.start].count(b"\n")
            _fail("encoding", "this line is not UTF-8", Mark(path, line, 1), "save the file as UTF-8")
        except csv.Error as error:
            hint = 'a cell that begins with a quote ends with one; a quote inside it is written twice: ""'
            _fail("row", f"row {row + 1} is not CSV: {error}", Mark(path, line, 1), hint)
        if header is None:
            header = _header(cells, path)
        elif cells:  # a blank line is no row
            row += 1
            if len(cells) != len(header):
                count = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
                _fail(
                    "row",
                    f"row {row} has {count}, the header has {len(header)}",
                    Mark(path, line, 1),
                    "quote a cell that holds a comma or a line break" if len(cells) > len(header) else None,
                )
            yield line, dict(zip(header, cells, strict=True))
        line = reader.line_num + 1


def _header(cells: list[str], path: str) -> list[str]:
    seen: set[str] = set()
    for column in cells:
        if not column.strip():
            _fail("header", "a column of the header has no name", Mark(path, 1, 1))
        if column in seen:
            _fail("header", f"the header names `{column}` twice", Mark(path, 1, 1))
        seen.add(column)
    return cells


def _parquet(stream: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not parquet.is_installed():
        message = "Parquet files need the extra `parquet`, which is not installed"
        _fail("not-installed", message, Mark(path), "install it:\n  pip install 'evalops-cli[parquet]'")
    number = 0
    try:
        for number, row in enumerate(parquet.rows(stream), 1):
            yield number, row
    except parquet.Unreadable as error:
        _fail("row", f"the file cannot be read from row {number + 1} on: {error}", Mark(path), "save it anew")


_READERS: dict[str, Callable[[BinaryIO, str], Iterator[tuple[int, dict[str, Any]]]]] = {
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _fail(what: str, message: str, mark: Mark | None, hint: str | None = None) -> NoReturn:
    raise EvalopsError(Diagnostic(code=f"dataset/{what}", message=message, mark=mark, hint=hint))
