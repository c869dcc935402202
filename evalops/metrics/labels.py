"""Verdicts that are words, gathered as counts: the labels of a classify, the choices of a compare.

Every metric is a share of these counts, so that a million rows cost no more than the few ways they can end, times the
clusters.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

from evalops.metrics import classification
from evalops.metrics.classification import NONE, OTHER, Cell, Classification
from evalops.metrics.measure import Moments, Rate, plain_rows, scaled
from evalops.metrics.tally import NO_VERDICT, Tally
from evalops.result import Confusion, Graded, LabelMetrics, Metric
from evalops.spec import Evaluation
from evalops.stats import intervals

CHANCE = "no better than chance on your gold rows"
POINTS = {"A": 1.0, "B": 0.0, "Tie": 0.5}  # of A
CHOICES = tuple(POINTS)


def text_of(gold: Any) -> str | None:
    """A true label or choice as text, None where a cell holds none."""
    if gold is None or gold == "":
        return None
    return gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False)


class _Answers:
    """True answers as places among the labels; the first few that are none of them are kept to be named."""

    def __init__(self, evaluation: Evaluation, labels: Iterable[str]) -> None:
        self.column = evaluation.gold
        self.places = {label: place for place, label in enumerate(labels)}
        self.others: Counter[str] = Counter()

    def place(self, gold: Any) -> int | None:
        if self.column is None:
            return None
        text = text_of(gold)
        if text is None:
            return None
        found = self.places.get(text, OTHER)
        if found == OTHER and (text in self.others or len(self.others) < 4):
            self.others[text] += 1
        return found

    def missing(self) -> str:
        """Why there is nothing to compare with."""
        return "no gold column" if self.column is None else f"no row has a value in `{self.column}`"

    def warnings(self) -> Iterable[str]:
        if self.others:
            names = ", ".join(f"`{each[:60]}`" for each in [*self.others][:3]) + (" …" if len(self.others) > 3 else "")
            yield f"values of `{self.column}` that no verdict can be, and that count as wrong: {names}"


class _Gold:
    """What classify and compare say alike about their rows with a true answer."""

    def __init__(self, labels: tuple[str, ...], cells: Mapping[Cell, int], answers: _Answers) -> None:
        self._answers = answers
        self._of = Classification(labels, cells) if cells else None
        self.metrics = self._of.metrics() if self._of else self._absent()

    def _absent(self) -> dict[str, Metric]:
        # Without a gold column the averages are left out: they would say the same nine times.
        names = classification.NAMES if self._answers.column else classification.NAMES[:4]
        return {name: Metric.absent(self._answers.missing()) for name in names}

    def by_label(self) -> dict[str, LabelMetrics]:
        return self._of.by_label() if self._of else {}

    def confusion(self) -> Confusion | None:
        return self._of.confusion() if self._of else None

    def warnings(self) -> tuple[str, ...]:
        low = self.metrics["kappa_scored"].low
        chance = (CHANCE,) if low is not None and low <= 0 else ()
        return (*chance, *self._answers.warnings())


class _Row(NamedTuple):
    """Rows of a classify that ended alike; `gold` is None where there is no true answer."""

    cluster: str | None
    gold: int | None
    said: int


class Labels:
    """The rows of a classify."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.tally = Tally()
        self._labels = evaluation.labels
        self._passing = frozenset(evaluation.labels.index(each) for each in evaluation.pass_labels)
        self._answers = _Answers(evaluation, evaluation.labels)
        self._places = self._answers.places
        self._rows: Counter[_Row] = Counter()

    def add(self, graded: Graded) -> None:
        """Counts one row."""
        said = self._places[str(graded.verdict.value)] if self.tally.add(graded) else NONE
        self._rows[_Row(graded.cluster, self._answers.place(graded.gold), said)] += 1

    @cached_property
    def gold(self) -> _Gold:
        """The rows with a true answer, once all are counted."""
        cells = {Cell(row.cluster, row.gold, row.said): n for row, n in self._rows.items() if row.gold is not None}
        return _Gold(self._labels, cells, self._answers)

    @property
    def passed(self) -> int | None:
        """How many rows pass, None where nothing says what a pass is."""
        return sum(n for row, n in self._rows.items() if row.said in self._passing) if self._passing else None

    def label_counts(self) -> dict[str, int]:
        """Scored rows by label, the unused ones too."""
        counts = dict.fromkeys(self._labels, 0)
        for row, n in self._rows.items():
            if row.said != NONE:
                counts[self._labels[row.said]] += n
        return counts

    def value(self, said: Any) -> float | None:
        """A verdict as a number, where it can be one: 1 for a pass."""
        return float(self._places[str(said)] in self._passing) if self._passing else None

    def metrics(self) -> dict[str, Metric]:
        """All metrics of the type."""
        return {**self._passes(), **self.gold.metrics, **self.tally.rates()}

    def _passes(self) -> dict[str, Metric]:
        if not self._passing:
            return {"pass_percentage": Metric.absent("no pass_labels")}
        rate = _rate(self._rows.items(), lambda row: None if row.said == NONE else row.said in self._passing)
        metrics = {"pass_percentage": rate.metric(NO_VERDICT, 100.0)}
        if self._answers.column is not None:
            metrics["corrected_pass_percentage"] = self._corrected(rate)
        return metrics

    def _corrected(self, rate: Rate) -> Metric:
        cells: Counter[tuple[bool, bool]] = Counter()
        for row, n in self._rows.items():
            if row.gold is not None and row.gold != OTHER and row.said != NONE:
                cells[row.gold in self._passing, row.said in self._passing] += n
        return corrected(rate, cells)


def corrected(rate: Rate, cells: Mapping[tuple[bool, bool], int]) -> Metric:
    """The pass percentage less the judge's error, from the gold rows that truly pass and that the judge passes."""
    count = {pair: cells.get(pair, 0) for pair in ((True, True), (True, False), (False, False), (False, True))}
    metric = scaled(intervals.corrected_rate(rate.hits, rate.n, intervals.Calibration(*count.values())), 100.0)
    return plain_rows([("", metric)])[""] if rate.clusters else metric


def _rate(rows: Iterable[tuple[Any, int]], hit: Callable[[Any], bool | None]) -> Rate:
    """The share of rows that `hit`; None leaves a row out."""
    rate = Rate()
    for row, n in rows:
        is_hit = hit(row)
        if is_hit is not None:
            rate.add(n * is_hit, row.cluster, n)
    return rate


class _Duel(NamedTuple):
    """Rows of a compare that ended alike: the choice in the given and in the flipped order, and whether the longer
    response won, where that can be said."""

    cluster: str | None
    gold: int | None
    said: int
    given: str | None
    flipped: str | None
    longer: bool | None


class Choices:
    """The rows of a compare."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.tally = Tally()
        self._answers = _Answers(evaluation, CHOICES)
        self._places = self._answers.places
        self._rows: Counter[_Duel] = Counter()

    def add(self, graded: Graded) -> None:
        """Counts one row."""
        gold = self._answers.place(graded.gold)
        if not self.tally.add(graded):
            self._rows[_Duel(graded.cluster, gold, NONE, None, None, None)] += 1
            return
        verdict = graded.verdict
        said = self._places[str(verdict.value)]
        given, flipped = verdict.orders or (None, None)
        longer = None
        if said < 2 and len(verdict.lengths) == 2 and verdict.lengths[0] != verdict.lengths[1]:
            longer = (said == 0) == (verdict.lengths[0] > verdict.lengths[1])
        self._rows[_Duel(graded.cluster, gold, said, given, flipped, longer)] += 1

    @cached_property
    def gold(self) -> _Gold:
        """The rows with a true answer, once all are counted."""
        cells: Counter[Cell] = Counter()
        for row, n in self._rows.items():
            if row.gold is not None:
                cells[Cell(row.cluster, row.gold, row.said)] += n
        return _Gold(CHOICES, cells, self._answers)

    def label_counts(self) -> dict[str, int]:
        """Scored rows by choice."""
        counts = dict.fromkeys(CHOICES, 0)
        for row, n in self._rows.items():
            if row.said != NONE:
                counts[CHOICES[row.said]] += n
        return counts

    def value(self, said: Any) -> float | None:
        """A verdict as A's points."""
        return POINTS[str(said)]

    def metrics(self) -> dict[str, Metric]:
        """All metrics of the type."""
        rows = self._rows.items()
        points = Moments()
        for row, n in rows:
            if row.said != NONE:
                points.add(POINTS[CHOICES[row.said]], row.cluster, n)
        decided = _rate(rows, lambda row: row.said == 0 if row.said in (0, 1) else None)
        ties = _rate(rows, lambda row: row.said == 2 if row.said != NONE else None)
        both = _rate(rows, lambda row: row.given == row.flipped if row.given and row.flipped else None)
        longer = _rate(rows, lambda row: row.longer)
        return {
            "win_rate": points.metric(NO_VERDICT, 0.0, 1.0),
            "win_rate_no_ties": decided.metric("every verdict is a tie" if self.tally.scored else NO_VERDICT),
            "tie_rate": ties.metric(NO_VERDICT),
            "consistency": both.metric("no row was judged in both orders"),
            "first_slot_preference": self._slots().metric("no order was decided"),
            "longer_wins": longer.metric("no win between responses of known, unequal length"),
            **self.gold.metrics,
            **self.tally.rates(),
        }

    def _slots(self) -> Rate:
        """Of all decided orders, those won by the first slot: A's in the given order, B's in the flipped one."""
        slots = Rate()
        for row, n in self._rows.items():
            picks = (row.given in ("A", "B")) + (row.flipped in ("A", "B"))
            if picks:
                slots.add(n * ((row.given == "A") + (row.flipped == "B")), row.cluster, n * picks)
        return slots

    @property
    def ties_by_inconsistency(self) -> int:
        """Ties because the two orders did not agree."""
        return sum(n for row, n in self._rows.items() if row.given and row.flipped and row.given != row.flipped)

    def warnings(self) -> tuple[str, ...]:
        """What the answers themselves warn of."""
        slots = self._slots()
        first, picks = slots.hits, slots.n
        if picks and intervals.binomial_p(first, picks) < 0.01:
            slot = "first" if 2 * first > picks else "second"
            most = max(first, picks - first)
            return (
                *self.gold.warnings(),
                f"the judge prefers the {slot} response, whatever it says: {most} of {picks}",
            )
        return self.gold.warnings()
