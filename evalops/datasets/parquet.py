"""Parquet files as rows of plain JSON values, a batch at a time. Needs the extra `parquet`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from importlib.util import find_spec
from typing import Any, BinaryIO
from uuid import UUID

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
        for batch in file.iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                yield {str(column): _plain(value) for column, value in row.items()}
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise Unreadable(str(error).splitlines()[0][:200] if str(error) else type(error).__name__) from None


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
