"""The parts of a result beside its metrics, as grids: groups, labels against gold, criteria, judges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evalops.views import text as words
from evalops.views.safe import line

_SHOWN = 12  # labels of a matrix that fit beside each other


class Grid(NamedTuple):
    """Lines of cells under column names."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def grids(summary: Mapping[str, Any]) -> Iterator[Grid]:
    """What a summary has of these, in the order of a reader's questions."""
    for column, groups in (summary.get("groups") or {}).items():
        yield _metrics(column, ("rows", "scored"), list(groups.items()))
    if summary.get("criteria"):
        yield _criteria(summary["criteria"], summary.get("usage", {}).get("intervals") or {})
    if summary.get("per_label"):
        yield _labels(summary["per_label"])
    confusion = summary.get("confusion") or {}
    if 1 < len(confusion.get("labels", ())) <= _SHOWN:
        labels = [line(each, 24) for each in confusion["labels"]]
        lines = [(label, *map(str, counts)) for label, counts in zip(labels, confusion["rows"], strict=True)]
        yield Grid(("gold \\ verdict", *labels), lines)
    if summary.get("judges"):
        counts = ("votes", "scored", "invalid", "errors")
        yield _metrics("judge", counts, [(each["judge"], each) for each in summary["judges"]])


def split(counts: Mapping[str, int]) -> str:
    """How many verdicts each label has: `40 polite, 20 rude`."""
    return ", ".join(f"{count:,} {line(label, 30)}" for label, count in counts.items() if count)


def _criteria(criteria: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Mapping[str, Any]]) -> Grid:
    """The mean of each, with the service's own interval beside ours where it gives one."""
    rows = [(line(name), words.metric("mean_score", each)) for name, each in criteria.items()]
    if not intervals:
        return Grid(("criterion", "mean"), rows)
    theirs = [_interval(intervals.get(name)) for name in criteria]
    return Grid(("criterion", "mean", "the service's"), [(*row, each) for row, each in zip(rows, theirs, strict=True)])


def _interval(value: Mapping[str, Any] | None) -> str:
    if not value or not all(isinstance(value.get(key), int | float) for key in ("lower", "median", "upper")):
        return ""
    return f"{value['median']:.3g} [{value['lower']:.3g}, {value['upper']:.3g}]"


def _metrics(title: str, counts: Sequence[str], lines: Sequence[tuple[str, Mapping[str, Any]]]) -> Grid:
    """Counts and metrics of each, a line each."""
    names = list(dict.fromkeys(name for _, each in lines for name in each["metrics"]))
    rows = []
    for name, each in lines:
        cells = [line(name, 60), *(f"{each[count]:,}" for count in counts)]
        cells += [_metric(metric, each["metrics"].get(metric)) for metric in names]
        cells += [_note(each)]
        rows.append(cells)
    has_notes = any(cells[-1] for cells in rows)
    columns = (line(title, 60), *counts, *names, *(("",) if has_notes else ()))
    return Grid(columns, rows if has_notes else [cells[:-1] for cells in rows])


def _metric(name: str, metric: Mapping[str, Any] | None) -> str:
    return words.metric(name, metric) if metric and metric.get("value") is not None else ""


def _note(each: Mapping[str, Any]) -> str:
    if each.get("label_counts"):
        return split(each["label_counts"])
    return "few rows" if each.get("small") else ""


def _labels(per_label: Mapping[str, Mapping[str, Any]]) -> Grid:
    parts = ("precision", "recall", "f1")
    rows = [
        (line(label, 40), f"{each['support']:,}", *(words.metric(part, each[part]) for part in parts))
        for label, each in per_label.items()
    ]
    return Grid(("label", "gold rows", *parts), rows)
