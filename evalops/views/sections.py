"""What a page says of each evaluation: words, chips and charts, from the report's value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evalops.metrics.summaries import HEADLINES
from evalops.spec import Type
from evalops.views import charts, chips, facts, grid, parts
from evalops.views import review as moved
from evalops.views import text as words
from evalops.views.charts import Interval, Scale
from evalops.views.chips import Chip

Json = dict[str, Any]

TITLES = {
    "pass_percentage": "Pass rate", "accuracy": "Accuracy", "mean_score": "Mean score", "median_score": "Median score",
    "win_rate": "A wins", "win_rate_no_ties": "A wins, ties left out", "bradley_terry": "Strength",
}  # fmt: skip
_OWN = ("groups", "confusion")  # which are charts


class Metric(NamedTuple):
    """A line of the table of metrics."""

    name: str
    value: str
    interval: str
    n: int | None
    plot: Interval
    gate: Chip | None
    note: str


class Group(NamedTuple):
    """A line of a breakdown. `plot` is None where the group has no metric: then `note` has its labels."""

    name: str
    rows: int
    value: str
    interval: str
    plot: Interval | None
    note: str


class Breakdown(NamedTuple):
    """A column with its groups, by one metric."""

    column: str
    metric: str
    groups: Sequence[Group]


def of(report: Mapping[str, Any], *, linked: bool = True) -> list[Json]:
    """Every evaluation for `evaluation.html`. `linked` is off on a page that shows one alone."""
    evaluations = report["evaluations"]
    pending = {each["address"]: each for each in report["pending"]}
    room = grid.MOST_TEXT // max(1, sum(bool(each["rows"] and each["rows"]["count"]) for each in evaluations))
    ids = _ids([each["address"] for each in evaluations])
    found = [_section(each, id_, room) for each, id_ in zip(evaluations, ids, strict=True)]
    for place, section in enumerate(found):
        change = pending.get(section["address"])
        if change:
            why = f"Apply would {change['action']} it: {change['reason']}."
            section["notices"].append(("warn", f"This result is not what the spec of today asks for. {why}"))
        section["before"] = found[place - 1] if linked and place else None
        section["after"] = found[place + 1] if linked and place + 1 < len(found) else None
    return found


def _ids(addresses: Iterable[str]) -> list[str]:
    """An anchor for each address, that stays the same as long as no other address is alike."""
    found: list[str] = []
    for address in addresses:
        base = "e-" + (re.sub("[^a-z0-9]+", "-", address.lower()).strip("-")[:80] or "evaluation")
        name = base
        while name in found:
            name = f"{base}-{len(found)}"
        found.append(name)
    return found


def _section(value: Mapping[str, Any], id_: str, room: int) -> Json:
    summary, asked, rows = value["summary"] or {}, value["asked"] or {}, value["rows"]
    return {
        "id": id_,
        "address": value["address"],
        "type": value["type"],
        "description": asked.get("description") or "",
        "tags": asked.get("tags") or (),
        "facts": list(facts.of(value)),
        "notices": list(_notices(value, summary)),
        "templates": asked.get("templates") or {},
        "total": summary.get("rows"),
        "without": summary.get("invalid", 0) + summary.get("errors", 0),
        "rows": grid.data(value, room) if rows and rows["count"] else None,
        "no_rows": rows["absent"].get("rows") if rows else "they were left out",
        **_result(value, summary, asked),
        **_charts(value, summary, asked),
    }


def _result(value: Mapping[str, Any], summary: Mapping[str, Any], asked: Mapping[str, Any]) -> Json:
    """The headline with its gates, and where it moved."""
    name, metric = _headline(value)
    return {
        "state": chips.state(value),
        "delta": chips.delta(value["move"]),
        "move": _move(value["move"]),
        "title": TITLES.get(name, name),
        "figure": _figure(name, metric),
        "interval": words.metric(name, metric).partition(" ")[2] if metric else "",
        "n": (metric or {}).get("n"),
        "split": parts.split(summary.get("label_counts") or {}),
        "plot": charts.interval(name, metric, value["gates"], _ends(asked)) if metric else None,
        "counts": chips.counts(summary),
        "gates": [chips.gate(gate) for gate in value["gates"]],
    }


def _charts(value: Mapping[str, Any], summary: Mapping[str, Any], asked: Mapping[str, Any]) -> Json:
    """Everything that a table or a chart shows."""
    name, _ = _headline(value)
    gates, ends, confusion = value["gates"], _ends(asked), summary.get("confusion") or {}
    return {
        "metrics": list(_metrics(summary, gates, ends, name)),
        "has_gates": any("by" not in gate for gate in gates),
        "missing": _missing(summary),
        "distribution": _distribution(summary, asked),
        "matrix": charts.matrix(confusion),
        "no_matrix": confusion.get("reason"),
        "breakdowns": list(_breakdowns(summary, name, gates, ends)),
        "ungrouped": summary.get("ungrouped") or {},
        "grids": list(parts.grids({key: each for key, each in summary.items() if key not in _OWN})),
        "trend": charts.trend(value["trend"], gates),
    }


def _ends(asked: Mapping[str, Any]) -> Scale | None:
    low, high = asked.get("min_score"), asked.get("max_score")
    return Scale(low, high) if low is not None and high is not None and low < high else None


def _headline(value: Mapping[str, Any]) -> tuple[str, Mapping[str, Any] | None]:
    found = value["headline"]
    if found is None:
        return HEADLINES[Type(value["type"])][0], None
    return found["metric"], {key: each for key, each in found.items() if key != "metric"}


def _figure(name: str, metric: Mapping[str, Any] | None) -> str:
    if metric is None:
        return "–"
    number = words.metric(name, {"value": metric["value"]})
    return f"{number} %" if name.endswith("percentage") else number


def _metrics(
    summary: Mapping[str, Any], gates: Sequence[Mapping[str, Any]], ends: Scale | None, first: str
) -> Iterator[Metric]:
    found = summary.get("metrics") or {}
    for name in sorted(found, key=lambda each: each != first):
        metric = found[name]
        plot = charts.interval(name, metric, gates, ends)
        if plot is None:
            continue
        held = [gate for gate in gates if gate["metric"] == name and "by" not in gate]
        bounds = (summary.get("bounds") or {}).get(name)
        note = metric.get("reason") or ""
        if bounds and bounds["low"] != bounds["high"]:
            note = f"{bounds['low']:.1f} to {bounds['high']:.1f} whatever the rows without a verdict would say"
        value, _, interval = words.metric(name, metric).partition(" ")
        failed = any(gate["verdict"] == "failed" for gate in held)
        gate = (Chip("✗", "failed", "bad") if failed else Chip("✓", "passed", "good")) if held else None
        yield Metric(name, value, interval, metric.get("n"), plot, gate, note)


def _missing(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Metrics without a value, and why."""
    found = summary.get("metrics") or {}
    return [(name, each.get("reason") or "not known") for name, each in found.items() if each.get("value") is None]


def _distribution(summary: Mapping[str, Any], asked: Mapping[str, Any]) -> Json | None:
    """How the verdicts are spread: bars for labels, columns for scores."""
    scores, threshold = summary.get("score_counts"), asked.get("pass_threshold")
    if scores:
        fails = [name for name in scores if threshold is not None and _first_number(name) < threshold]
        passes = f"A pass is {threshold:g} or more. " if threshold is not None else ""
        passes += "Each column begins at its number." if any(" to " in name for name in scores) else ""
        return {"kind": "scores", "columns": charts.columns(scores, fails), "note": passes, "has_fails": bool(fails)}
    counts = summary.get("label_counts") or summary.get("choice_counts")
    if not counts:
        return None
    passing = set(asked.get("pass_labels") or ())
    fails = [name for name in counts if passing and name not in passing]
    ties = summary.get("ties_by_inconsistency")
    note = f"Of the ties, {ties:,} because the two orders disagree." if ties else ""
    kind = "labels" if summary.get("label_counts") else "choices"
    return {"kind": kind, "columns": charts.columns(counts, fails), "note": note, "has_fails": bool(fails)}


def _first_number(name: str) -> float:
    """The score, or the lower end of a step of scores."""
    try:
        return float(name.split(" to ")[0])
    except ValueError:
        return 0.0


def _breakdowns(
    summary: Mapping[str, Any], first: str, gates: Sequence[Mapping[str, Any]], ends: Scale | None
) -> Iterator[Breakdown]:
    for column, groups in (summary.get("groups") or {}).items():
        names = [name for each in groups.values() for name in each["metrics"]]
        metric = first if first in names else next(iter(names), first)
        held = [{key: each for key, each in gate.items() if key != "by"} for gate in gates if gate.get("by") == column]
        found = [_group(name, each, metric, held, ends) for name, each in groups.items()]
        yield Breakdown(column, metric, found)


def _group(
    name: str, group: Mapping[str, Any], metric: str, gates: Sequence[Mapping[str, Any]], ends: Scale | None
) -> Group:
    value = group["metrics"].get(metric) or {"value": None, "reason": "no metric"}
    labels = parts.split(group.get("label_counts") or {})
    note = labels or (f"few rows: {group['scored']}" if group.get("small") else "")
    said, _, interval = words.metric(metric, value).partition(" ") if value.get("value") is not None else ("", "", "")
    return Group(name, group["rows"], said, interval, charts.interval(metric, value, gates, ends), note)


def _move(move: Mapping[str, Any] | None) -> Json | None:
    """What changed since the base, and why."""
    if move is None:
        return None
    _, _, before, after, difference, p, _ = moved.row(move)
    return {
        "chip": chips.delta(move),
        "before": before,
        "after": after,
        "difference": difference,
        "p": p,
        "lines": [each.strip() for each in moved.details(move)],
    }


def _notices(value: Mapping[str, Any], summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if value["message"]:
        yield ("bad" if value["status"] == "failed" else "info"), value["message"]
    if summary and summary.get("job") not in (None, value["job"]):
        yield "warn", f"The result below is of an earlier job, {summary['job']}: the one of today has none yet."
    for each in summary.get("warnings") or ():
        yield "warn", each
