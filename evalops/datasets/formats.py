"""The formats of datasets, each as a stream of rows: JSONL, CSV and Parquet.

No row is longer than `LONGEST_ROW`: a file of a single line is refused before it fills the memory.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NoReturn

from evalops.datasets import parquet
from evalops.errors import Diagnostic, EvalopsError, Mark

LONGEST_ROW = 16 * 1024 * 1024  # bytes of one row
LONGEST_NUMBER = 100  # characters of an integer

Reader = Callable[[BinaryIO, str], Iterator[tuple[int, dict[str, Any]]]]
"""A file and its path as shown -> its rows, each with the line that it begins at. Raises EvalopsError."""


def reader(path: str) -> Reader:
    """What reads a file, by its suffix. Raises EvalopsError for one that is no dataset."""
    found = _READERS.get(PurePosixPath(path).suffix.lower())
    if found is None:
        fail("format", f"`{path}` is no dataset", None, f"evalops reads {', '.join(SUFFIXES)} files")
    return found


def fail(what: str, message: str, mark: Mark | None, hint: str | None = None) -> NoReturn:
    """Raises EvalopsError with one problem of a dataset."""
    raise EvalopsError(Diagnostic(code=f"dataset/{what}", message=message, mark=mark, hint=hint))


def jsonl(stream: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a file with a JSON object a line."""
    number = 0
    row = 0
    while line := stream.readline(LONGEST_ROW + 1):
        number += 1
        if len(line) > LONGEST_ROW:
            fail("row-size", f"row {row + 1} is longer than {LONGEST_ROW >> 20} MiB", Mark(path, number, 1))
        line = line.removeprefix(b"\xef\xbb\xbf")  # files that were put together have one in the middle
        if not line.strip():
            continue
        row += 1
        try:
            value = _decode(line.decode("utf-8", "surrogatepass"))
        except UnicodeDecodeError:
            fail("encoding", "this line is not UTF-8", Mark(path, number, 1), "save the file as UTF-8")
        except json.JSONDecodeError as error:
            what = error.msg[:1].lower() + error.msg[1:]
            fail("row", f"row {row} is not JSON: {what}", Mark(path, number, error.colno), "a line is one JSON object")
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            fail("row", f"row {row} cannot be read: {reason}", Mark(path, number, 1))
        if not isinstance(value, dict):
            kind = {list: "a list", str: "text", type(None): "null"}.get(type(value), "a single value")
            fail(
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


class _Lines:
    """The lines of a text, as long as no row takes too many of them: `taken` are the characters of the row so far."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.taken = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(LONGEST_ROW + 1)
        if not line:
            raise StopIteration
        self.taken += len(line)
        if self.taken > LONGEST_ROW:
            raise csv.Error(f"it is longer than {LONGEST_ROW >> 20} MiB")
        return line


def _cells(text: io.TextIOWrapper, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(LONGEST_ROW)
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
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
            fail("encoding", "this line is not UTF-8", Mark(path, line, 1), "save the file as UTF-8")
        except csv.Error as error:
            hint = 'a cell that begins with a quote ends with one; a quote inside it is written twice: ""'
            fail("row", f"row {row + 1} is not CSV: {error}", Mark(path, line, 1), hint)
        if header is None:
            header = _header(cells, path)
        elif cells:  # a blank line is no row
            row += 1
            if len(cells) != len(header):
                count = f"{len(cells)} cell{'s' * (len(cells) > 1)}"
                fail(
                    "row",
                    f"row {row} has {count}, the header has {len(header)}",
                    Mark(path, line, 1),
                    "quote a cell that holds a comma or a line break" if len(cells) > len(header) else None,
                )
            yield line, dict(zip(header, cells, strict=True))
        line = reader.line_num + 1
        lines.taken = 0


def _header(cells: list[str], path: str) -> list[str]:
    seen: set[str] = set()
    for column in cells:
        if not column.strip():
            fail("header", "a column of the header has no name", Mark(path, 1, 1))
        if column in seen:
            fail("header", f"the header names `{column}` twice", Mark(path, 1, 1))
        seen.add(column)
    return cells


def _parquet(stream: BinaryIO, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    if not parquet.is_installed():
        message = "Parquet files need the extra `parquet`, which is not installed"
        fail("not-installed", message, Mark(path), "install it:\n  pip install 'evalops-cli[parquet]'")
    number = 0
    try:
        for number, row in enumerate(parquet.rows(stream), 1):
            yield number, row
    except parquet.Unreadable as error:
        fail("row", f"the file cannot be read from row {number + 1} on: {error}", Mark(path), "save it anew")


_READERS: dict[str, Reader] = {
    ".jsonl": jsonl,
    ".ndjson": jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}
SUFFIXES = tuple(sorted(_READERS))
