"""Charts as plain geometry: where bars, intervals, gates and points lie, in percent. `page/charts.html` draws them.

Nothing is drawn to scale by a style: policy forbids style attributes, and percents fit every width.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from evalops.views import text as words
from evalops.views.safe import line

HEATS = 6  # shades of a matrix
MOST_LABELS = 30  # of a matrix that is drawn
MOST_COLUMNS = 40  # of a histogram
_CORRELATIONS = ("kappa", "kappa_scored", "pearson", "spearman", "length_correlation", "alpha")
_SCORES = ("mean_score", "median_score")


class Scale(NamedTuple):
    """What the ends of an axis stand for."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """Where a value lies, in percent; what lies outside is at the end."""
        width = self.high - self.low
        return round(min(100.0, max(0.0, 100 * (value - self.low) / width)), 3) if width > 0 else 50.0


class Gate(NamedTuple):
    """A bound on an axis: which (`min` or `max`), what it is, and how it ended."""

    at: float
    kind: str
    text: str
    passed: bool


class Interval(NamedTuple):
    """A value between the bounds of its interval, in percent; `text` says all of it in words."""

    at: float
    low: float | None
    high: float | None
    gates: Sequence[Gate]
    scale: Scale
    text: str


class Column(NamedTuple):
    """A column of a histogram, or a bar of a distribution; `size` in percent of the longest.

    `short` is where a step of scores begins.
    """

    label: str
    short: str
    rows: int
    share: str
    size: float
    is_fail: bool = False
    is_named: bool = True


class Cell(NamedTuple):
    """The rows of one place of a matrix; `heat` from 0."""

    rows: int
    heat: int
    is_hit: bool
    gold: str
    verdict: str


class Line(NamedTuple):
    """A stroke from one point to another, in percent; y from the top."""

    x1: float
    y1: float
    x2: float
    y2: float


class Dot(NamedTuple):
    """A result of a trend; `low` and `high` are the ends of its interval, from the top."""

    x: float
    y: float
    low: float | None
    high: float | None
    value: str
    interval: str
    when: str
    failed: bool
    is_now: bool


class Trend(NamedTuple):
    """Results from the oldest to the newest."""

    dots: Sequence[Dot]
    lines: Sequence[Line]
    gates: Sequence[Gate]
    top: str
    bottom: str


def interval(
    name: str, metric: Mapping[str, Any], gates: Iterable[Mapping[str, Any]] = (), ends: Scale | None = None
) -> Interval | None:
    """A metric on its axis, with the gates on it; None where it has no value. `ends` are those of a score."""
    value = metric.get("value")
    if value is None:
        return None
    held = [gate for gate in gates if gate["metric"] == name and "by" not in gate]
    scale = scale_of(name, metric, held, ends)
    low, high = (None if metric.get(key) is None else scale.at(metric[key]) for key in ("low", "high"))
    marks = [each for gate in held for each in _gates(gate, scale)]
    said = [f"{line(name, 80)} {words.metric(name, metric)}", *(each.text for each in marks)]
    return Interval(scale.at(value), low, high, marks, scale, ", ".join(said))


def scale_of(
    name: str, metric: Mapping[str, Any], gates: Sequence[Mapping[str, Any]] = (), ends: Scale | None = None
) -> Scale:
    """The axis that a metric has by its nature, else one that holds it with its interval and gates."""
    base = name.split("[", 1)[0]
    seen = [metric[key] for key in ("value", "low", "high") if metric.get(key) is not None]
    seen += [gate[key] for gate in gates for key in ("min", "max") if key in gate]
    if base.endswith("percentage"):
        natural = Scale(0.0, 100.0)
    elif base in _CORRELATIONS:
        natural = Scale(-1.0 if any(each < 0 for each in seen) else 0.0, 1.0)
    elif base in _SCORES:
        natural = ends or Scale(0.0, max([1.0, *seen]))
    else:
        natural = Scale(0.0, 1.0 if all(each <= 1 for each in seen) else max(seen))
    return Scale(min([natural.low, *seen]), max([natural.high, *seen]))


def _gates(gate: Mapping[str, Any], scale: Scale) -> list[Gate]:
    on = "" if gate["on"] == "estimate" else f" ({gate['on']} bound)"
    return [
        Gate(scale.at(gate[kind]), kind, f"gate: {word} {gate[kind]:g}{on}, {gate['verdict']}", _passes(gate))
        for kind, word in (("min", "at least"), ("max", "at most"))
        if kind in gate
    ]


def _passes(gate: Mapping[str, Any]) -> bool:
    return bool(gate["verdict"] == "passed")


def columns(counts: Mapping[str, int], fails: Iterable[str] = ()) -> list[Column]:
    """A column for each count. `fails` are the names of those that do not pass."""
    total, most = sum(counts.values()), max(counts.values(), default=0)
    failing = set(fails)
    every = max(1, -(-len(counts) // 10))  # of many, some have their label
    return [
        Column(
            label=line(name, 60),
            short=line(name.split(" to ")[0], 12),
            rows=count,
            share=f"{count / total:.1%}" if total else "",
            size=round(100 * count / most, 2) if most else 0.0,
            is_fail=name in failing,
            is_named=place % every == 0 or len(counts) <= 12,
        )
        for place, (name, count) in enumerate(counts.items())
    ]


def matrix(confusion: Mapping[str, Any]) -> list[list[Cell]]:
    """The cells of a confusion matrix: a line a gold label. Each is as dark as its share of its line."""
    labels = list(confusion.get("labels") or ())
    if not 1 < len(labels) <= MOST_LABELS:
        return []
    found = []
    for gold, counts in zip(labels, confusion["rows"], strict=False):
        total = sum(counts) or 1
        pairs = zip(labels, counts, strict=False)
        found.append([Cell(count, _heat(count / total), gold == name, gold, name) for name, count in pairs])
    return found


def _heat(share: float) -> int:
    return 0 if share <= 0 else min(HEATS - 1, 1 + int(share * (HEATS - 1)))


def trend(points: Sequence[Mapping[str, Any]], gates: Iterable[Mapping[str, Any]] = ()) -> Trend | None:
    """The results of an evaluation over its history; None where there are fewer than two."""
    if len(points) < 2:
        return None
    name = str(points[-1]["metric"])
    held = [gate for gate in gates if gate["metric"] == name and "by" not in gate]
    ends = [each[key] for each in points for key in ("value", "low", "high") if each.get(key) is not None]
    ends += [gate[key] for gate in held for key in ("min", "max") if key in gate]
    room = (max(ends) - min(ends)) * 0.08 or 1.0
    scale = Scale(min(ends) - room, max(ends) + room)
    step = 100 / len(points)
    dots = [_dot(name, each, scale, round(step * (place + 0.5), 3)) for place, each in enumerate(points)]
    return Trend(
        dots=dots,
        lines=[Line(one.x, one.y, other.x, other.y) for one, other in pairwise(dots)],
        gates=[each._replace(at=100 - each.at) for gate in held for each in _gates(gate, scale)],
        top=words.metric(name, {"value": max(ends)}),
        bottom=words.metric(name, {"value": min(ends)}),
    )


def _dot(name: str, point: Mapping[str, Any], scale: Scale, x: float) -> Dot:
    low, high = (None if point.get(key) is None else round(100 - scale.at(point[key]), 3) for key in ("low", "high"))
    value, _, interval = words.metric(name, point).partition(" ")
    return Dot(
        x=x,
        y=round(100 - scale.at(point["value"]), 3),
        low=low,
        high=high,
        value=value,
        interval=interval,
        when=f"{point['day']} {point['commit'][:8]}" if point["commit"] else "not committed",
        failed=bool(point["failed"]),
        is_now=not point["commit"],
    )
