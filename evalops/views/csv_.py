"""Rows as CSV, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def rows(found: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """A line a row, the header first; the columns are those of the first row."""
    header: list[str] | None = None
    for row in found:
        flat = _flat(row)
        if header is None:
            header = list(flat)
            yield _line(header)
        yield _line([_cell(flat.get(name)) for name in header])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    verdict = row["verdict"]
    source = {f"source.{name}": value for name, value in (row["source"] or {}).items()}
    return {
        "key": row["key"],
        **source,
        "status": verdict["status"],
        "verdict": verdict["value"],
        "reason": verdict["reason"],
    }


def _cell(value: Any) -> Any:
    """A value as a cell that no spreadsheet takes for a formula."""
    if isinstance(value, dict | list | bool):
        value = json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _line(cells: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
