"""Rows as CSV, safe to open in a spreadsheet; and the rows of a whole report as columns."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def columns(report: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The rows of every evaluation below each other, a list for each column; what a row does not have is None.

    `source.` and `output.` stand before the columns of datasets and the fields of models; what is no plain value is
    JSON.
    """
    found: dict[str, list[Any]] = {name: [] for name in ("address", "row", *_FIRST)}
    for each in report["evaluations"]:
        sheet, before = each["rows"], len(found["address"])
        found["address"] += [each["address"]] * sheet["count"]
        found["row"] += range(1, sheet["count"] + 1)
        parts = {name: values for name, values in sheet["columns"].items() if name != "before_status"}
        parts |= {f"source.{name}": values for name, values in sheet["source"].items()}
        parts |= {f"output.{name}": values for name, values in sheet["outputs"].items()}
        for name, values in parts.items():
            found.setdefault(name, [None] * before)
            found[name] += (json.dumps(v, ensure_ascii=False) if isinstance(v, dict | list) else v for v in values)
        for column in found.values():
            column += [None] * (len(found["address"]) - len(column))
    return {name: values for name, values in found.items() if any(value is not None for value in values)}


_FORMULA = frozenset("=+-@\t\r\n＝＋－＠")  # how a formula begins, full-width forms included
_FIRST = ("key", "status", "verdict", "passed", "problem", "reason", "gold", "agrees", "before", "moved")


def table(found: Mapping[str, Sequence[Any]]) -> str:
    """Columns as CSV with a header."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([_cell(name) for name in found])
    writer.writerows([_cell(value) for value in row] for row in zip(*found.values(), strict=True))
    return stream.getvalue()


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
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value


def _line(cells: list[Any]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerow(cells)
    return stream.getvalue()
