"""One evaluation's result, for a person who decides on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import click

from evalops.metrics.labels import POINTS
from evalops.metrics.summaries import HEADLINES
from evalops.spec import Type
from evalops.stats import contrast
from evalops.views import tables
from evalops.views import text as words
from evalops.views.parts import grids
from evalops.views.safe import line, safe


def show(value: Mapping[str, Any], failing: Sequence[Mapping[str, Any]]) -> str:
    """Status, counts, metrics with intervals, label counts, gates and the first failing rows."""
    parts = [_head(value)]
    summary = value["summary"]
    if summary:
        if summary.get("job") not in (None, value["job"]):
            parts.append(f"The result below is of an earlier job, {safe(summary['job'])}.")
        detectable = _detectable(summary, Type(value["inputs"]["type"]))
        parts += [_counts(summary), "\n".join([_metrics(summary), *detectable])]
        for key, title in (("label_counts", "label"), ("score_counts", "score"), ("choice_counts", "choice")):
            if summary.get(key):
                parts.append(tables.counts(summary[key], title))
        parts += [tables.grid(*each) for each in grids(summary)]
        if summary.get("disagreements"):
            parts.append(_disagreements(summary["disagreements"], value["address"]))
        parts += [click.style("warning: ", fg="yellow") + safe(each) for each in summary.get("warnings", ())]
    if value["gates"]:
        parts.append("\n".join(f"gate {words.gate(gate)}" for gate in value["gates"]))
    if failing:
        parts.append(f"Rows to look at (evalops rows '{safe(value['address'])}' --failed has them all):")
        parts.append(tables.rows(failing))
    return "\n\n".join(parts)


def _head(value: Mapping[str, Any]) -> str:
    lines = [
        f"{click.style(safe(value['address']), bold=True)}  {value['status']}",
        f"  provider {safe(value['provider'])}, job {safe(value['job'])}, submitted {safe(value['created_at'])}"
        + (f", finished {safe(value['finished_at'])}" if value["finished_at"] else ""),
    ]
    if value["generation"] > 1:
        lines.append(f"  generation {value['generation']}")
    if value["message"]:
        lines.append(f"  {line(value['message'], 400)}")
    return "\n".join(lines)


def _disagreements(keys: Sequence[str], address: str) -> str:
    named = ", ".join(line(key, 60) for key in keys)
    return f"The votes differ most on these rows (evalops rows '{safe(address)}' has them):\n  {named}"


def _counts(summary: Mapping[str, Any]) -> str:
    rows = words.count(summary["rows"], "row")
    text = f"{rows}: {summary['scored']} scored, {summary['invalid']} invalid, {summary['errors']} errors"
    for key in ("invalid_reasons", "error_reasons"):
        for reason, count in (summary.get(key) or {}).items():
            text += f"\n  {count} {safe(reason)}"
    rungs = summary.get("rungs") or {}
    if len(rungs) > 1:
        mixed = ", ".join(f"{count} {safe(rung)}" for rung, count in rungs.items())
        text += f"\n  the verdicts were asked for in different ways: {mixed}"
    took = words.usage(summary.get("usage") or {})
    return text + (f"\n  {took}" if took else "")


def _metrics(summary: Mapping[str, Any]) -> str:
    width = max(map(len, summary["metrics"]))
    lines = []
    for name, metric in summary["metrics"].items():
        lines.append(f"{safe(name):<{width}}  {words.metric(name, metric)}")
        if metric.get("value") is not None and metric.get("reason"):
            lines.append(f"{'':<{width}}  {safe(metric['reason'])}")
        bounds = summary.get("bounds", {}).get(name)
        if bounds and bounds["low"] != bounds["high"]:
            held = f"{bounds['low']:.1f} to {bounds['high']:.1f}"
            lines.append(f"{'':<{width}}  between {held} whatever the rows without a verdict would say")
    return "\n".join(lines)


def _detectable(summary: Mapping[str, Any], kind: Type) -> list[str]:
    """The smallest change of the headline that a second run of as many rows would show; none where rows are in
    clusters: it would have to be larger than their number says."""
    metrics = summary["metrics"]
    names = [summary["headline"]] if summary.get("headline") else HEADLINES[kind]
    name = next((each for each in names if (metrics.get(each) or {}).get("value") is not None), "")
    metric = metrics.get(name) or {}
    n, found = metric.get("n") or 0, None
    if metric.get("clusters"):
        return []
    if name in ("pass_percentage", "accuracy"):
        rate = metric["value"] / (100 if name == "pass_percentage" else 1)
        found = contrast.detectable_rate(n, min(1.0, max(0.0, rate)))
    elif name in ("mean_score", "win_rate"):
        found = contrast.detectable_mean(n, _deviation(name, summary) or 0.0)
    if not found:
        return []
    least = words.effect(name, 100 * found if name == "pass_percentage" else found)
    text = f"With {words.count(n, 'row')} a change of {name} by less than {least} may pass for chance"
    return [f"{text} (80 % power, two separate runs)."]


def _deviation(name: str, summary: Mapping[str, Any]) -> float | None:
    if name == "mean_score":
        return (summary["metrics"].get("std_score") or {}).get("value")
    counts = {POINTS[key]: count for key, count in (summary.get("choice_counts") or {}).items() if key in POINTS}
    n = sum(counts.values())
    if n < 2:
        return None
    mean = sum(points * count for points, count in counts.items()) / n
    return math.sqrt(sum(count * (points - mean) ** 2 for points, count in counts.items()) / (n - 1))
