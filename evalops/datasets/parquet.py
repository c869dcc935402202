"""Parquet files as rows of plain JSON values, a batch at a time, and the way back. Needs the extra `parquet`."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, BinaryIO
from uuid import UUID

from evalops.errors import Diagnostic, EvalopsError

BATCH = 1_000  # rows that are held at once
BUFFER = 1 << 20  # bytes of a column


class Unreadable(Exception):
    """The file, or a value in it, cannot be read; the message says why."""


def is_installed() -> bool:
    """Whether the library is there."""
    return find_spec("pyarrow") is not None


def rows(stream: BinaryIO) -> Iterator[dict[str, Any]]:
    """The rows of a file, their values as JSON has them. Raises Unreadable.

    A number that is not one (as pandas writes what is missing) is null; dates, times, decimals and UUIDs are text.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        # Read page by page: a group of rows, which may be the whole file, would be held at once otherwise.
        file = pyarrow.parquet.ParquetFile(stream, buffer_size=BUFFER, pre_buffer=False)
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Unreadable(f"it has more than one column `{twice}`")
        for batch in file.iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                yield {str(column): _plain(value) for column, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Unreadable(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from None


def table(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """Columns of plain values as a file. A column of unlike values is text, as JSON where they are none.

    Raises EvalopsError where the library is not there.
    """
    if not is_installed():
        raise EvalopsError(
            Diagnostic(
                code="parquet/not-installed",
                message="a Parquet file needs the extra `parquet`",
                hint="pip install 'evalops-cli[parquet]'",
            )
        )
    import pyarrow
    import pyarrow.parquet

    stream = io.BytesIO()
    arrays = {_storable(name): pyarrow.array(_alike(values)) for name, values in columns.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), stream, compression="zstd")
    return stream.getvalue()


def _alike(values: Sequence[Any]) -> list[Any]:
    """Values of one type: all true or false, all numbers, else all text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds in ({bool}, {int}) and all(-(1 << 63) <= value < 1 << 63 for value in values if value is not None):
        return list(values)
    if kinds and kinds <= {int, float}:
        return [None if value is None else float(value) for value in values]
    return [value if value is None else _storable(value) for value in values]


def _storable(value: Any) -> str:
    """A text that UTF-8 can hold: half a character is the escape that JSON has for it."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() | UUID() | timedelta():
            return str(value)
        case list() | tuple():
            return [_plain(each) for each in value]
        case dict():
            return {str(key): _plain(each) for key, each in value.items()}
    raise Unreadable(f"it holds a value of type {type(value).__name__}, which JSON does not have")
