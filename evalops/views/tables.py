"""Tables for a terminal, through rich; plain text where the output is not one."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evalops.views import text as words
from evalops.views.safe import line, safe

COLUMNS = 4  # of the source that fit beside a verdict

_STATUS = {"completed": "green", "failed": "red", "running": "cyan", "pending": "cyan", "cancelled": "yellow"}


def status(states: Iterable[Mapping[str, Any]]) -> str:
    """Every evaluation with its last result, a line each."""
    table = _table("evaluation", "status", "result [95 % interval]", "rows", "invalid", "errors", "gates")
    for each in states:
        summary = each["summary"] or {}
        name, metric = each["headline"] or ("", None)
        result = f"{name} {words.metric(name, metric)}" if metric is not None else ""
        table.add_row(
            Text(safe(each["address"])),
            Text(each["status"], style=_STATUS.get(each["status"], "")),
            Text(result),
            *(Text(str(summary[key]) if key in summary else "") for key in ("rows", "invalid", "errors")),
            _gates(each["gates"]),
        )
    return _render(table)


def rows(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows with their verdicts and the first columns of their source; long cells are cut."""
    if not found:
        return "No rows."
    columns = list(found[0]["source"] or {})[:COLUMNS]
    table = _table("key", "verdict", *columns, "reason")
    for each in found:
        verdict = each["verdict"]
        value = verdict["value"] if verdict["status"] == "scored" else f"{verdict['status']}: {verdict.get('problem')}"
        source = each["source"] or {}
        cells = [line(source.get(column, ""), 60) for column in columns]
        table.add_row(*(Text(cell) for cell in (each["key"], line(value), *cells, line(verdict["reason"] or "", 80))))
    return _render(table)


def counts(values: Mapping[str, int], title: str) -> str:
    """A small table of counts with their share."""
    table = _table(title, "rows", "share")
    total = sum(values.values())
    for name, count in values.items():
        table.add_row(Text(safe(name)), Text(str(count)), Text(f"{count / total:.1%}" if total else ""))
    return _render(table)


def _gates(gates: Sequence[Mapping[str, Any]]) -> Text:
    if not gates:
        return Text("")
    failed = sum(gate["verdict"] == "failed" for gate in gates)
    return (
        Text(f"{failed} of {len(gates)} failed", style="red") if failed else Text(f"{len(gates)} passed", style="green")
    )


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column in ("rows", "invalid", "errors", "share")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    return table


def _render(table: Table) -> str:
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 160
    stream = io.StringIO()
    colour = terminal and "NO_COLOR" not in os.environ
    console = Console(
        file=stream, width=width, force_terminal=colour, no_color=not colour, highlight=False, markup=False
    )
    console.print(table)
    return "\n".join(each.rstrip() for each in stream.getvalue().splitlines()).strip("\n")
