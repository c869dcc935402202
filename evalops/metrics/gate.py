"""Thresholds held against a summary as it stands in a lockfile: for the whole, and for every group of a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalops.metrics.summaries import parse
from evalops.spec import Evaluation, Threshold

_ENDS = {"estimate": "value", "lower": "low", "upper": "high"}
MOST_NAMED = 20  # groups that fail which a gate names


def check(threshold: Threshold, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A threshold with the value it was held against, its interval and the verdict, `passed` or `failed`.

    What cannot be known does not pass: a gate that turns green for want of data is worse than none.
    """
    if threshold.by is None:
        return {**_asked(threshold), **_held(threshold, find(summary, threshold.metric))}
    groups = (summary.get("groups") or {}).get(threshold.by)
    if not groups:
        reason = (summary.get("ungrouped") or {}).get(threshold.by) or f"there is no breakdown by `{threshold.by}`"
        return {**_asked(threshold), **_held(threshold, {"value": None, "reason": reason})}
    found = {name: _held(threshold, find(group, threshold.metric)) for name, group in groups.items()}
    worst = min(found, key=lambda name: _margin(threshold, found[name]["value"]))
    failed = [name for name, held in found.items() if held["verdict"] == "failed"]
    value = {**_asked(threshold), "group": worst, **found[worst], "groups": len(groups)}
    return {**value, "failed": len(failed), "failed_groups": failed[:MOST_NAMED]} if failed else value


def suffices(evaluation: Evaluation, summary: Mapping[str, Any]) -> bool:
    """Whether a summary has what the thresholds and the headline of an evaluation ask for, be it without a value."""
    names = [evaluation.metric] if evaluation.metric else []
    names += [threshold.metric for threshold in evaluation.thresholds if threshold.by is None]
    by = [threshold for threshold in evaluation.thresholds if threshold.by is not None]
    return all(_is_there(summary, name) for name in names) and all(_is_grouped(each, summary) for each in by)


def find(summary: Mapping[str, Any], metric: str) -> Mapping[str, Any]:
    """A metric of a summary, or of a group in it, by the name that thresholds have for it."""
    name, of = parse(metric)
    if of is None:
        found = (summary.get("metrics") or {}).get(name)
    else:
        found = _part(summary, name).get(of, {})
        found = found.get(name) if name != "mean_score" else found
    return found or {"value": None, "reason": f"`{of}` has no such number here" if of else "this metric is not known"}


def _part(summary: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part: Mapping[str, Any] = summary.get("criteria" if name == "mean_score" else "per_label") or {}
    return part


def _is_there(summary: Mapping[str, Any], metric: str) -> bool:
    name, of = parse(metric)
    # A label that nothing names is in no summary: it is enough that the others are.
    return name in (summary.get("metrics") or {}) if of is None else bool(_part(summary, name))


def _is_grouped(threshold: Threshold, summary: Mapping[str, Any]) -> bool:
    if threshold.by in (summary.get("ungrouped") or {}):
        return True
    groups = (summary.get("groups") or {}).get(threshold.by, {})
    return bool(groups) and all(_is_there(group, threshold.metric) for group in groups.values())


def _asked(threshold: Threshold) -> dict[str, Any]:
    value: dict[str, Any] = {"metric": threshold.metric}
    for key in ("by", "min", "max"):
        if getattr(threshold, key) is not None:
            value[key] = getattr(threshold, key)
    return {**value, "on": threshold.on}


def _held(threshold: Threshold, metric: Mapping[str, Any]) -> dict[str, Any]:
    value = metric.get(_ENDS[threshold.on])
    found = {"value": value}
    # Beside a bound of the interval stands the estimate, beside the estimate its interval.
    found |= {key: metric[key] for key in ("low", "high") if metric.get(key) is not None}
    if threshold.on != "estimate" and metric.get("value") is not None:
        found["estimate"] = metric["value"]
    if value is None:
        return {**found, "verdict": "failed", "reason": metric.get("reason") or "it has no interval"}
    return {**found, "verdict": "passed" if _margin(threshold, value) >= 0 else "failed"}


def _margin(threshold: Threshold, value: float | None) -> float:
    """By how much a value keeps a threshold; below 0 it does not, and what is not known comes last of all."""
    if value is None:
        return float("-inf")
    least = float("inf") if threshold.min is None else value - threshold.min
    most = float("inf") if threshold.max is None else threshold.max - value
    return min(least, most)
