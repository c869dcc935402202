"""Verdicts against true labels, from the counts of a confusion matrix: accuracy, precision, recall, F1, kappa.

Labels are places in a list. A row without a verdict says `NONE`, a gold value that is no label is `OTHER`: such rows
are wrong, and both are classes of the matrix, but no average counts them as labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from evalops.metrics.measure import Moments, Rate
from evalops.result import Confusion, LabelMetrics, Metric
from evalops.stats import intervals

NONE, OTHER = -1, -2
_SPECIAL = {NONE: "(invalid)", OTHER: "(other)"}  # as the matrix names them
MOST_LABELS = 30  # of a matrix that is kept
PARTS = ("precision", "recall", "f1")
AVERAGES = tuple(f"{kind}_{part}" for kind in ("macro", "weighted", "micro") for part in PARTS)
NAMES = ("accuracy", "accuracy_scored", "kappa", "kappa_scored", *AVERAGES)
UNSAID = "no verdict names it, so this counts as 0"
UNASKED = "gold never names it, so this counts as 0"

Gradient = Callable[[int, int], float]


class Cell(NamedTuple):
    """Rows with the same true answer and the same verdict, cluster by cluster."""

    cluster: str | None
    gold: int
    said: int


@dataclass(frozen=True)
class Classification:
    """The metrics of `cells`, how many rows each; `labels` in the spec's order."""

    labels: Sequence[str]
    cells: Mapping[Cell, int]

    def metrics(self) -> dict[str, Metric]:
        """Everything of `NAMES`. Without a row: `accuracy` and the others with the reason, given by the caller."""
        scored = {cell: n for cell, n in self.cells.items() if cell.said != NONE}
        found = {
            "accuracy": self._accuracy,
            "accuracy_scored": self._rate(lambda cell: cell.said != NONE, lambda cell: cell.gold == cell.said),
            "kappa": self._kappa(),
            "kappa_scored": Classification(self.labels, scored)._kappa(),
        }
        for kind, weights in (("macro", self._equal), ("weighted", self._by_support)):
            for part in PARTS:
                found[f"{kind}_{part}"] = self._average(part, weights, is_weighted=kind == "weighted")
        # Averaged over all decisions, precision looks at those that were made, recall at all that were asked for.
        micro = {"precision": found["accuracy_scored"], "recall": found["accuracy"], "f1": self._micro_f1()}
        return found | {f"micro_{part}": micro[part] for part in PARTS}

    def by_label(self) -> dict[str, LabelMetrics]:
        """Precision, recall and F1 of every label that gold or a verdict names."""
        return {self.labels[label]: self._parts[label] for label in self._present}

    def confusion(self) -> Confusion:
        """The matrix, rows by gold and columns by verdict; none of more than `MOST_LABELS`."""
        if len(self.labels) > MOST_LABELS:
            return Confusion(reason=f"more than {MOST_LABELS} labels")
        places = [*range(len(self.labels)), *(each for each in _SPECIAL if self._support[each] or self._said[each])]
        names = [_SPECIAL[place] if place in _SPECIAL else self.labels[place] for place in places]
        rows = tuple(tuple(self._counts.get((gold, said), 0) for said in places) for gold in places)
        return Confusion(labels=tuple(names), rows=rows)

    # --- counts ---

    @cached_property
    def _counts(self) -> dict[tuple[int, int], int]:
        found: dict[tuple[int, int], int] = {}
        for (_, gold, said), n in self.cells.items():
            found[gold, said] = found.get((gold, said), 0) + n
        return found

    @cached_property
    def _support(self) -> dict[int, int]:
        return self._margin(0)

    @cached_property
    def _said(self) -> dict[int, int]:
        return self._margin(1)

    def _margin(self, side: int) -> dict[int, int]:
        found = dict.fromkeys((*range(len(self.labels)), *_SPECIAL), 0)
        for pair, n in self._counts.items():
            found[pair[side]] += n
        return found

    @cached_property
    def _n(self) -> int:
        return sum(self.cells.values())

    @cached_property
    def _present(self) -> list[int]:
        return [label for label in range(len(self.labels)) if self._support[label] or self._said[label]]

    def _rate(self, among: Callable[[Cell], bool], hit: Callable[[Cell], bool]) -> Metric:
        rate = Rate()
        for cell, n in self.cells.items():
            if among(cell):
                rate.add(n * hit(cell), cell.cluster, n)
        return rate.metric("no gold row has a verdict")

    @cached_property
    def _accuracy(self) -> Metric:
        return self._rate(lambda cell: True, lambda cell: cell.gold == cell.said)

    # --- labels ---

    @cached_property
    def _parts(self) -> dict[int, LabelMetrics]:
        return {label: self._of(label) for label in self._present}

    def _of(self, label: int) -> LabelMetrics:
        def hit(cell: Cell) -> bool:
            return cell.gold == cell.said == label

        precision = self._rate(lambda cell: cell.said == label, hit)
        recall = self._rate(lambda cell: cell.gold == label, hit)
        # F1 = 2J / (1 + J), where J is the share of hits among the rows that either names: a rate, with its interval.
        shared = self._rate(lambda cell: label in (cell.gold, cell.said), hit)
        value, low, high = (
            None if each is None else 2 * each / (1 + each) for each in (shared.value, shared.low, shared.high)
        )
        return LabelMetrics(
            support=self._support[label],
            precision=_or_zero(precision, UNSAID),
            recall=_or_zero(recall, UNASKED),
            f1=replace(shared, value=value, low=low, high=high),
        )

    # --- averages: their intervals come from how much each row moves them (the delta method) ---

    @cached_property
    def _equal(self) -> dict[int, float]:
        return {label: 1 / len(self._present) for label in self._present}

    @cached_property
    def _by_support(self) -> dict[int, float]:
        total = sum(self._support[label] for label in self._present)
        return {label: self._support[label] / total if total else 0.0 for label in self._present}

    def _average(self, part: str, weights: Mapping[int, float], *, is_weighted: bool) -> Metric:
        if not any(weights.values()):
            return Metric.absent("neither gold nor a verdict names a label")
        values = {label: getattr(self._parts[label], part) for label in self._present}
        value = sum(weight * (values[label].value or 0.0) for label, weight in weights.items())
        slopes = {label: self._slope(part, label, values[label].value or 0.0) for label in self._present}
        total = sum(self._support[label] for label in self._present)

        def gradient(gold: int, said: int) -> float:
            # Only its own two labels' values change with a row.
            moved = sum(weights[each] * slopes[each](gold, said) for each in {gold, said} - set(_SPECIAL))
            if is_weighted and gold != OTHER:
                moved += self._n * ((values[gold].value or 0.0) - value) / total
            return moved

        # Where nothing varies, the labels' own bounds are all that is known.
        low, high = (
            sum(weight * _end(values[label], end) for label, weight in weights.items()) for end in ("low", "high")
        )
        zeros = [label for label in self._present if weights[label] and values[label].reason in (UNSAID, UNASKED)]
        found = self._linear(value, gradient, intervals.Interval(low, high))
        return replace(found, reason=_zeros(zeros, self.labels, values)) if zeros else found

    def _slope(self, part: str, label: int, value: float) -> Gradient:
        """How much a row in a cell moves the precision, recall or F1 of a label, times the number of rows."""
        support, said, n = self._support[label], self._said[label], self._n
        match part:
            case "precision":
                return lambda g, s: n * ((g == label) - value) / said if s == label and said else 0.0
            case "recall":
                return lambda g, s: n * ((s == label) - value) / support if g == label and support else 0.0
            case _:
                return lambda g, s: n * (2 * (g == s) - value * ((g == label) + (s == label))) / (support + said)

    def _micro_f1(self) -> Metric:
        right, made = sum(self._counts.get((label, label), 0) for label in self._present), self._n - self._said[NONE]
        value = 2 * right / (self._n + made)

        def gradient(gold: int, said: int) -> float:
            return self._n * (2 * (gold == said) - value * (1 + (said != NONE))) / (self._n + made)

        fallback = intervals.Interval(_end(self._accuracy, "low"), _end(self._accuracy, "high"))
        return self._linear(value, gradient, fallback)

    def _linear(self, value: float, gradient: Gradient, fallback: intervals.Interval, least: float = 0.0) -> Metric:
        """A metric whose interval is that of the mean of its gradient over the rows."""
        moments = Moments()
        known: dict[tuple[int, int], float] = {}
        for (cluster, gold, said), n in self.cells.items():
            if (gold, said) not in known:
                known[gold, said] = gradient(gold, said)
            moments.add(known[gold, said], cluster, n)
        found = moments.metric("no rows")
        if found.low is None or found.high is None:
            return replace(found, value=value)
        half = (found.high - found.low) / 2
        low, high = (value - half, value + half) if half > 1e-12 else fallback
        return replace(found, value=value, low=max(least, min(low, value)), high=min(1.0, max(high, value)))

    # --- agreement beyond chance ---

    def _kappa(self) -> Metric:
        """Cohen's kappa; `NONE` and `OTHER` are classes of their own."""
        n, rate = self._n, self._accuracy
        if n == 0:
            return Metric.absent("no gold row has a verdict")
        places = [place for place in (*range(len(self.labels)), *_SPECIAL) if self._support[place] or self._said[place]]
        found = intervals.kappa([[self._counts.get((gold, said), 0) for said in places] for gold in places])
        if found is None:
            return Metric.absent("gold and verdicts hold one label only, so chance agrees always")
        chance = sum(self._support[place] * self._said[place] for place in places) / n**2
        if found.value > 1 - 1e-12:  # without a disagreement, what is known is how rare they are
            low = (_end(rate, "low") - chance) / (1 - chance)
            return replace(rate, value=found.value, low=None if rate.low is None else low)
        if rate.clusters is None:
            return Metric(value=found.value, low=found.interval.low, high=found.interval.high, n=n)

        def gradient(gold: int, said: int) -> float:
            moved = (1 - found.value) * (self._said[gold] + self._support[said]) / n
            return ((gold == said) - moved) / (1 - chance)

        return self._linear(found.value, gradient, found.interval, least=-1.0)


def _or_zero(metric: Metric, reason: str) -> Metric:
    return Metric(value=0.0, n=0, reason=reason) if metric.value is None else metric


def _end(metric: Metric, end: str) -> float:
    found = getattr(metric, end)
    return float(metric.value or 0.0) if found is None else float(found)


def _zeros(labels: Iterable[int], names: Sequence[str], values: Mapping[int, Metric]) -> str:
    """Which labels count as 0 because there is nothing to divide by."""
    found: dict[str, list[str]] = {}
    for label in labels:
        found.setdefault(str(values[label].reason), []).append(f"`{names[label]}`")
    said = {UNSAID: "no verdict names", UNASKED: "gold never names"}
    return "; ".join(f"{said[reason]} {', '.join(each[:3])}, so 0" for reason, each in found.items())
