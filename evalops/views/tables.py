"""Tables for a terminal, through rich; plain text where the output is not one."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from evalops.views import standings
from evalops.views import text as words
from evalops.views.safe import line, safe

_SHORT = {"pass_percentage": "pass %", "mean_score": "mean", "win_rate": "A wins"}
COLUMNS = 4  # of the source that fit beside a verdict

_STATUS = {"completed": "green", "failed": "red", "running": "cyan", "pending": "cyan", "cancelled": "yellow"}


def status(states: Iterable[Mapping[str, Any]]) -> str:
    """Every evaluation with its last result, a line each, and below what the results warn of."""
    states = list(states)
    agreement = any(_kappa(each) is not None for each in states)
    table = _table(
        "evaluation", "result [95 % interval]", *(["kappa"] if agreement else []), "rows", "no verdict", "gates"
    )
    for each in states:
        kappa = _kappa(each)
        table.add_row(
            Text(safe(each["address"])),
            _result(each),
            *([Text(words.metric("kappa", kappa) if kappa else "")] if agreement else []),
            *_amounts(each["summary"]),
            _gates(each["gates"]),
        )
    notes = [
        f"warning: {line(each['address'])}: {line(warning)}"
        for each in states
        for warning in (each["summary"] or {}).get("warnings", ())
    ]
    return "\n".join([_render(table), *notes])


def _result(state: Mapping[str, Any]) -> Text:
    """The headline, or how the job stands where it has no result."""
    summary = state["summary"] or {}
    if state["status"] != "completed":
        return Text(state["status"], style=_STATUS.get(state["status"], ""))
    if not state["headline"]:
        return Text(_split(summary))
    name, metric = state["headline"]
    return Text(f"{_SHORT.get(name, name)} {words.metric(name, metric)}")


def _kappa(state: Mapping[str, Any]) -> Mapping[str, Any] | None:
    metric = ((state["summary"] or {}).get("metrics") or {}).get("kappa")
    return metric if metric and metric.get("value") is not None else None


def _amounts(summary: Mapping[str, Any] | None) -> tuple[Text, Text]:
    if not summary:
        return Text(""), Text("")
    missing = summary["invalid"] + summary["errors"]
    return Text(f"{summary['rows']:,}"), Text(f"{missing:,}" if missing else "")


def rows(found: Sequence[Mapping[str, Any]]) -> str:
    """Rows with their verdicts, the first columns of their source and what was written; long cells are cut."""
    if not found:
        return "No rows."
    columns = list(found[0]["source"] or {})[:COLUMNS]
    outputs = max(len(each.get("outputs", ())) for each in found)
    explained = any(each["verdict"]["reason"] for each in found)
    # A row that has an id of its own needs no key beside it.
    names = [] if "id" in columns else ["key"]
    written = ["written"] if outputs == 1 else [f"written {'AB'[index]}" for index in range(outputs)]
    table = _table(*names, "verdict", *columns, *written, *(["reason"] if explained else []))
    for each in found:
        source = each["source"] or {}
        cells = [each["key"]] if names else []
        cells += [_verdict(each["verdict"]), *(line(source.get(column, ""), 60) for column in columns)]
        cells += [line(text or "", 60) for text in (*each.get("outputs", ()), *[""] * outputs)[:outputs]]
        cells += [line(each["verdict"]["reason"] or "", 80)] if explained else []
        table.add_row(*(Text(cell) for cell in cells))
    return _render(table)


def jobs(found: Sequence[Mapping[str, Any]]) -> str:
    """The jobs at a service, a line each."""
    if not found:
        return "The service has no such job."
    table = _table("job", "type", "status", "made", "evaluation")
    for each in found:
        status = Text(line(each["provider_status"] or each["status"]), style=_STATUS.get(each["status"], ""))
        made, held = line(each["created_at"]), ", ".join(map(line, each["addresses"]))
        table.add_row(Text(line(each["job"])), Text(line(each["type"] or "")), status, Text(made), Text(held))
    return _render(table)


def files(found: Sequence[Mapping[str, Any]]) -> str:
    """The files at a service, a line each."""
    if not found:
        return "The service has no file."
    table = _table("file", "name", "bytes", "purpose", "made")
    for each in found:
        size = "" if each["bytes"] is None else f"{each['bytes']:,}"
        cells = (each["id"], each["name"], size, each["purpose"], each["created_at"] or "")
        table.add_row(*(Text(line(cell, 80)) for cell in cells))
    return _render(table)


def datasets(found: Sequence[Mapping[str, Any]]) -> str:
    """Datasets, a line each; `rows` is None where nobody has counted them."""
    table = _table("dataset", "rows", "what it is", "evaluations")
    for each in found:
        what = {"rows": "rows in the spec", "upload": "at the service"}.get(each["kind"], each["description"])
        table.add_row(
            Text(safe(each["path"])),
            Text("" if each["rows"] is None else f"{each['rows']:,}"),
            Text(line(what, 60)),
            Text(", ".join(map(line, each["addresses"]))),
        )
    return _render(table)


def dataset(value: Mapping[str, Any]) -> str:
    """What is in one dataset, and a spec to start from."""
    rows, repeated = words.count(value["rows"], "row"), value["repeated_rows"]
    parts = [f"{line(value['path'])}: {rows}" + (f", {repeated:,} of them a repetition" if repeated else "")]
    about = f" Licence: {line(value['licence'])}." if value["licence"] else ""
    parts += [(line(value["description"], 400) + about).strip()] if value["description"] or about else []
    parts += [f"sha256 {value['sha256']}", "", _columns(value["columns"])]
    parts += ["and more columns"] if value["more_columns"] else []
    parts += [
        f"{line(each['name'])}: " + ", ".join(f"{line(word, 60)} {count:,}" for word, count in each["values"].items())
        for each in value["columns"]
        if each["values"]
    ]
    for number, row in enumerate(value["first_rows"], 1):
        parts += ["", f"Row {number}", *(f"  {line(name)}: {line(_cell(each))}" for name, each in row.items())]
    return "\n".join([*parts, "", "A spec to start from:", "", safe(value["spec"])])


def _columns(columns: Sequence[Mapping[str, Any]]) -> str:
    """The columns of a dataset; what none of them has is left out."""
    heads = ("column", "type", "different", "empty", "absent", "length: least, median, most", "numbers")
    rows = [
        (
            line(each["name"], 60),
            ", ".join(each["types"]),
            f"{'' if each['is_exact'] else 'about '}{each['distinct']:,}",
            *(f"{each[name]:,}" if each[name] else "" for name in ("empties", "absent")),
            ", ".join(f"{length:,}" for length in (each["lengths"] or {}).values()),
            " to ".join(f"{number:g}" for number in (each["numbers"] or {}).values()),
        )
        for each in columns
    ]
    shown = [place for place in range(len(heads)) if any(row[place] for row in rows)]
    table = _table(*(heads[place] for place in shown))
    for row in rows:
        table.add_row(*(Text(row[place]) for place in shown))
    return _render(table)


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def models(value: Mapping[str, Any]) -> str:
    """The models that a service is known to evaluate with, and how old the lists are."""
    newer = value["refreshed"]
    table = _table("model", "source", *(["at the service"] if newer else []))
    for each in value["models"]:
        there = [Text("yes" if each["refreshed"] else "no")] if newer else []
        table.add_row(Text(line(each["id"])), Text(each["model_source"] or ""), *there)
    ours = value["shipped"]
    notes = [f"The list of this package is of {line(ours['date'])}: {line(ours['source'], 300)}"]
    if newer:
        notes.append(f"{line(newer['origin'])} was asked at {line(newer['at'])}.")
    return "\n".join([_render(table), "", *notes])


def ranking(value: Mapping[str, Any]) -> str:
    """Candidates in order, a line each, with what they were ranked by above and what to know below."""
    table = _table(*standings.columns(value))
    for cells in standings.rows(value):
        table.add_row(*map(Text, cells))
    notes = [f"warning: {line(each, 400)}" for each in value["warnings"]]
    return "\n".join([line(standings.title(value), 400), "", _render(table), *([""] if notes else []), *notes])


def _verdict(verdict: Mapping[str, Any]) -> str:
    if verdict["status"] != "scored":
        return f"{verdict['status']}: {line(verdict.get('problem') or '')}"
    value = verdict["value"]
    return f"{value:g}" if isinstance(value, float) else line(value)


def grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Safe cells under column names; all but the first column that hold plain numbers stand on the right."""
    found = [list(row) for row in rows]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = index > 0 and all(row[index].replace(",", "").isdecimal() for row in found)
        table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
    for row in found:
        table.add_row(*map(Text, row))
    return _render(table)


def counts(values: Mapping[str, int], title: str) -> str:
    """A small table of counts with their share."""
    table = _table(title, "rows", "share")
    total = sum(values.values())
    for name, count in values.items():
        table.add_row(Text(safe(name)), Text(str(count)), Text(f"{count / total:.1%}" if total else ""))
    return _render(table)


def _split(summary: Mapping[str, Any]) -> str:
    """The most frequent labels of a result that has no rate."""
    labels = sorted((summary.get("label_counts") or {}).items(), key=lambda each: -each[1])
    return ", ".join(f"{count} {line(label, 30)}" for label, count in labels[:3])


def _gates(gates: Sequence[Mapping[str, Any]]) -> Text:
    if not gates:
        return Text("")
    failed = [words.gate_name(gate) for gate in gates if gate["verdict"] == "failed"]
    if failed:
        return Text(f"failed: {', '.join(failed)}", style="red")
    return Text(f"{len(gates)} passed", style="green")


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column in ("rows", "no verdict", "share", "bytes")
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
