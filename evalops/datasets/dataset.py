"""Datasets as streams: JSONL, CSV and Parquet rows one at a time, their digests, and the keys that name them.

Nothing here holds a whole dataset: a file of a million rows needs the memory of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

from evalops import schema
from evalops.datasets import formats
from evalops.datasets.formats import fail
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity
from evalops.fingerprint import Digests, canonical, sha256
from evalops.spec import DatasetRef, Evaluation, Sample

SHOWN = 5  # problems of one kind that are shown; the rest is counted

Open = Callable[[], BinaryIO]
Place = Callable[["Row", str | None], Mark]


class Row(NamedTuple):
    """One dataset row: `position` from 0, the `line` of the file or spec it begins at, and its columns.

    `source` has the file's columns under the spec's names.
    """

    position: int
    line: int
    source: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Uses:
    """The columns an evaluation reads, by what for, and of which rows. `is_whole`: a function may read any of them."""

    path: str
    columns: tuple[tuple[str, str], ...]
    submitted: tuple[str, ...]
    responses: tuple[str, ...]
    grading: tuple[str, ...]
    id: str | None
    sample: Sample | None = None
    is_whole: bool = False
    carried: tuple[str, ...] = ()  # columns that must be there, and change nothing

    def shown(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of a row that may make its verdict; what is not among them reaches no model and no function."""
        return {column: source[column] for column in (source if self.is_whole else self.submitted) if column in source}

    def used(self, source: Mapping[str, Any]) -> dict[str, Any]:
        """Those of them that hold something: what the digest of the rows is of."""
        return {column: value for column, value in self.shown(source).items() if value not in (None, "")}


def uses(evaluation: Evaluation, variables: Iterable[str]) -> Uses:
    """What `evaluation` reads of its dataset; `variables` are the names its templates use."""
    recorded = {judge.column for judge in evaluation.judges if judge.column}
    if evaluation.evaluator is not None and evaluation.gold:
        recorded.add(evaluation.gold)  # there the true answer makes the verdict
    if evaluation.patronus is not None:
        recorded |= set(evaluation.patronus.read)
    grading = [*((evaluation.gold,) if evaluation.gold else ()), *evaluation.group_by]
    return Uses(
        path=evaluation.dataset.path,
        columns=tuple(evaluation.dataset.columns.items()),
        submitted=tuple(sorted({*variables, *evaluation.response_columns, *recorded})),
        responses=evaluation.response_columns,
        grading=tuple(dict.fromkeys([*grading, *((evaluation.cluster,) if evaluation.cluster else ())])),
        id=evaluation.dataset.id,
        sample=evaluation.dataset.sample,
        is_whole=evaluation.evaluator is not None and evaluation.evaluator.kind == "python",
        carried=evaluation.patronus.carried if evaluation.patronus is not None else (),
    )


def shown(ref: DatasetRef) -> str:
    """What messages call the dataset of a spec."""
    return ref.path or ref.file_id or "dataset.rows"


def read(
    open_file: Open, path: str, columns: tuple[tuple[str, str], ...] = (), marks: Sequence[Mark] = ()
) -> Iterator[Row]:
    """The rows of a JSONL, CSV or Parquet file, by its suffix; JSONL where `marks` are the places of the rows.

    Raises EvalopsError with the line of the first row that cannot be read; an empty file is an error.
    """
    records = formats.jsonl if marks else formats.reader(path)
    position = -1
    with open_file() as stream:
        for position, (line, source) in enumerate(records(stream, path)):
            if columns:
                source = _renamed(source, columns, marks[position] if marks else Mark(path, line, 1))
            yield Row(position, marks[position].line if marks else line, source)
    if position < 0:
        fail("empty", f"`{path}` has no rows", Mark(path))


def scan(open_file: Open, use: Uses, mark: Callable[[str], Mark]) -> tuple[Digests, list[Diagnostic]]:
    """One pass over a file: its digests, and what is wrong with it for this evaluation.

    `mark` gives the place in the spec where a column is named. Raises EvalopsError where the file cannot be read.
    """
    return check(read(open_file, use.path, use.columns), use, mark)


def check(
    rows: Iterable[Row], use: Uses, mark: Callable[[str], Mark], at: Place | None = None
) -> tuple[Digests, list[Diagnostic]]:
    """The digests of rows under the spec's names, and what is wrong with them for an evaluation.

    `mark` gives the place in the spec where a column is named, `at` that of a row or, where a column is given, of its
    cell; by default a row is at its line of `use.path`. Raises EvalopsError where a column is missing.
    """
    whole, submitted, grading = hashlib.sha256(), hashlib.sha256(), hashlib.sha256()
    problems = _Problems(use.path, at)
    identifiers = Occurrences() if use.id else None
    count = characters = 0
    unseen = set(use.grading)
    header: dict[str, Any] = {}
    for row in rows:
        if count == 0:
            header = row.source
            _require(use.submitted + use.carried + ((use.id,) if use.id else ()), header, use, mark)
        count += 1
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
        characters += len(text)
        submitted.update((canonical(use.used(row.source)) if use.is_whole else text) + b"\n")
        if use.grading:
            unseen.difference_update(row.source)
            grading.update(canonical([row.source.get(column) for column in use.grading]) + b"\n")
        if identifiers is not None and use.id is not None:
            problems.identifier(use.id, row, identifiers)
    _require(tuple(unseen), header, use, mark)  # a column of grading may be absent in some rows, not in all
    return Digests(
        rows=count,
        dataset=whole.hexdigest(),
        submitted=submitted.hexdigest(),
        grading=grading.hexdigest() if use.grading else "",
        characters=characters,
    ), problems.diagnostics()


def unread(digest: str, use: Uses) -> Digests:
    """The digests of a file of which only the sha256 is known: they are the same whether it is here or not."""
    return Digests(
        rows=None,
        dataset=sha256(canonical(["upload", digest])),
        submitted=sha256(canonical(["upload", digest, use.submitted])),
        grading=sha256(canonical(["upload", digest, use.grading])) if use.grading else "",
        characters=None,
    )


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
    at: Place | None
    empties: dict[str, list[int]] = field(default_factory=dict)
    firsts: dict[str, Mark] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    kept: list[Diagnostic] = field(default_factory=list)
    errors: int = 0
    rest: Mark | None = None

    def empty(self, column: str, row: Row) -> None:
        if column not in self.counts and self.at:
            self.firsts[column] = self.at(row, column)
        self.counts[column] = self.counts.get(column, 0) + 1
        shown = self.empties.setdefault(column, [])
        if len(shown) < SHOWN:
            shown.append(row.position + 1)

    def absent(self, column: str, row: Row) -> None:
        self._keep(
            "missing-field",
            f"row {row.position + 1} has no field `{column}`",
            self._mark(row, None),
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
        self._keep("id", where, self._mark(row, column), hint)

    def _mark(self, row: Row, column: str | None) -> Mark:
        return self.at(row, column) if self.at else Mark(self.path, row.line, 1)

    def _keep(self, what: str, message: str, mark: Mark, hint: str) -> None:
        self.errors += 1
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
                    mark=self.firsts.get(column) or Mark(self.path),
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


def _renamed(source: dict[str, Any], columns: tuple[tuple[str, str], ...], mark: Mark) -> dict[str, Any]:
    back = {theirs: ours for ours, theirs in columns}
    renamed = {back.get(column, column): value for column, value in source.items()}
    if len(renamed) != len(source):
        theirs, ours = next((theirs, ours) for theirs, ours in back.items() if theirs in source and ours in source)
        message = f"`dataset.columns` calls `{theirs}` `{ours}`, and this row has another column of that name"
        fail("columns", message, mark, "choose a new name, or give the other column one")
    return renamed
