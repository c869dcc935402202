"""From verdicts to a summary, in one pass and constant memory; and the gates held against it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evalops import stats
from evalops.result import (
    Bounds,
    ClassifySummary,
    CompareSummary,
    Counts,
    Graded,
    Metric,
    ScoreSummary,
    Summary,
    Verdict,
    VerdictStatus,
)
from evalops.spec import Evaluation, Threshold, Type

_COMMON = ("invalid_rate", "error_rate")
NAMES = {
    Type.CLASSIFY: ("pass_percentage", "accuracy", "accuracy_scored", "kappa", *_COMMON),
    Type.SCORE: ("mean_score", "std_score", "pass_percentage", "mae", "length_correlation", *_COMMON),
    Type.COMPARE: (
        "win_rate", "win_rate_no_ties", "tie_rate", "consistency", "first_slot_preference", "longer_wins",
        "accuracy", "accuracy_scored", "kappa", *_COMMON,
    ),
}  # fmt: skip
# What a table shows first, where it is known.
HEADLINES = {
    Type.CLASSIFY: ("pass_percentage", "accuracy"),
    Type.SCORE: ("mean_score",),
    Type.COMPARE: ("win_rate",),
}
NEED_GOLD = frozenset({"accuracy", "accuracy_scored", "kappa", "mae"})
CHANCE = "no better than chance on your gold rows"
TOO_LARGE = "the values are too large to be averaged"

CHOICES = ("A", "B", "Tie")
LENGTH_LIMIT = 0.7  # a correlation of score and length beyond this is warned of
INVALID = "(invalid)"  # the extra predicted class in a confusion matrix


def summarise(evaluation: Evaluation, graded: Iterable[Graded]) -> Summary:
    """The summary of all rows of a job, read once."""
    match evaluation.type:
        case Type.CLASSIFY:
            return _classify(evaluation, graded)
        case Type.SCORE:
            return _score(evaluation, graded)
        case Type.COMPARE:
            return _compare(evaluation, graded)


def gate(threshold: Threshold, summary: Mapping[str, Any]) -> dict[str, Any]:
    """One threshold held against a summary's JSON: value compared, verdict `passed` or `failed`, and why."""
    metric = summary["metrics"].get(threshold.metric) or {"value": None, "reason": "this metric is not known"}
    key = {"estimate": "value", "lower": "low", "upper": "high"}[threshold.on]
    value = metric.get(key)
    result: dict[str, Any] = {"metric": threshold.metric}
    for bound in ("min", "max"):
        if getattr(threshold, bound) is not None:
            result[bound] = getattr(threshold, bound)
    result |= {"on": threshold.on, "value": value}
    if value is None:
        # What cannot be known does not pass: a gate that turns green for want of data is worse than none.
        return {**result, "verdict": "failed", "reason": metric.get("reason") or "it has no interval"}
    passed = (threshold.min is None or value >= threshold.min) and (threshold.max is None or value <= threshold.max)
    return {**result, "verdict": "passed" if passed else "failed"}


@dataclass(slots=True)
class _Tally:
    """Counts by status and reason."""

    rows: int = 0
    statuses: Counter[VerdictStatus] = field(default_factory=Counter)
    reasons: Counter[tuple[VerdictStatus, str]] = field(default_factory=Counter)

    def add(self, verdict: Verdict) -> bool:
        """Counts one verdict; whether it is scored."""
        self.rows += 1
        self.statuses[verdict.status] += 1
        if verdict.status is VerdictStatus.SCORED:
            return True
        self.reasons[verdict.status, verdict.reason or "unknown"] += 1
        return False

    @property
    def scored(self) -> int:
        return self.statuses[VerdictStatus.SCORED]

    def counts(self) -> Counts:
        def of(status: VerdictStatus) -> dict[str, int]:
            return {reason: n for (each, reason), n in self.reasons.items() if each is status}

        return Counts(
            rows=self.rows,
            scored=self.scored,
            invalid=self.statuses[VerdictStatus.INVALID],
            errors=self.statuses[VerdictStatus.ERROR],
            invalid_reasons=of(VerdictStatus.INVALID),
            error_reasons=of(VerdictStatus.ERROR),
        )

    def rates(self) -> dict[str, Metric]:
        return {
            "invalid_rate": proportion(self.statuses[VerdictStatus.INVALID], self.rows, "no rows"),
            "error_rate": proportion(self.statuses[VerdictStatus.ERROR], self.rows, "no rows"),
        }


@dataclass(slots=True)
class _Agreement:
    """Predicted against gold labels; a row without a verdict is the class `INVALID`."""

    column: str | None
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, graded: Graded) -> None:
        if self.column is None or graded.gold is None or graded.gold == "":
            return
        scored = graded.verdict.status is VerdictStatus.SCORED
        self.pairs[str(graded.gold), str(graded.verdict.value) if scored else INVALID] += 1

    def metrics(self) -> dict[str, Metric]:
        """accuracy over all gold rows (a missing verdict is wrong), accuracy and kappa over the scored ones."""
        reason = "no gold column" if self.column is None else f"no row has a value in `{self.column}`"
        n = self.pairs.total()
        if n == 0:
            return {name: Metric.absent(reason) for name in ("accuracy", "accuracy_scored", "kappa")}
        right = sum(count for (gold, value), count in self.pairs.items() if gold == value)
        scored = sum(count for (_, value), count in self.pairs.items() if value != INVALID)
        return {
            "accuracy": proportion(right, n, reason),
            "accuracy_scored": proportion(right, scored, "no gold row has a verdict"),
            "kappa": self._kappa(scored),
        }

    def _kappa(self, n: int) -> Metric:
        if n == 0:
            return Metric.absent("no gold row has a verdict")
        pairs = {pair: count for pair, count in self.pairs.items() if pair[1] != INVALID}
        labels = sorted({label for pair in pairs for label in pair})
        found = stats.kappa([[pairs.get((gold, value), 0) for value in labels] for gold in labels])
        if found is None:
            return Metric.absent("gold and verdicts hold one label only, so chance agrees always")
        return Metric(value=found.value, low=found.interval.low, high=found.interval.high, n=n)

    def warnings(self, metrics: Mapping[str, Metric]) -> tuple[str, ...]:
        kappa = metrics["kappa"]
        return (CHANCE,) if kappa.low is not None and kappa.low <= 0 else ()


def proportion(successes: int, n: int, reason: str, scale: float = 1.0) -> Metric:
    """A rate with its Wilson interval, or None with the reason where n is 0."""
    if n == 0:
        return Metric.absent(reason)
    interval = stats.wilson(successes, n)
    return Metric(value=scale * successes / n, low=scale * interval.low, high=scale * interval.high, n=n)


def _passes(passed: int, tally: _Tally, *, wanted: bool, needs: str) -> tuple[dict[str, Metric], dict[str, Bounds]]:
    """pass_percentage over scored rows, and its bounds over all rows."""
    if not wanted:
        return {"pass_percentage": Metric.absent(f"no {needs}")}, {}
    metric = proportion(passed, tally.scored, "no row has a verdict", scale=100.0)
    missing = tally.rows - tally.scored
    if tally.rows == 0:
        return {"pass_percentage": metric}, {}
    bounds = Bounds(100.0 * passed / tally.rows, 100.0 * (passed + missing) / tally.rows)
    return {"pass_percentage": metric}, {"pass_percentage": bounds}


def _classify(evaluation: Evaluation, graded: Iterable[Graded]) -> ClassifySummary:
    tally, agreement = _Tally(), _Agreement(evaluation.gold)
    labels: Counter[str] = Counter(dict.fromkeys(evaluation.labels, 0))
    for each in graded:
        if tally.add(each.verdict):
            labels[str(each.verdict.value)] += 1
        agreement.add(each)
    passed = sum(labels[label] for label in evaluation.pass_labels)
    passes, bounds = _passes(passed, tally, wanted=bool(evaluation.pass_labels), needs="pass_labels")
    metrics = {**passes, **agreement.metrics(), **tally.rates()}
    return ClassifySummary(
        counts=tally.counts(),
        label_counts=labels,
        metrics=metrics,
        bounds=bounds,
        warnings=agreement.warnings(metrics),
    )


@dataclass(slots=True)
class _Moments:
    """Mean and deviation in one pass (B. P. Welford, Technometrics 4, 1962)."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def add(self, value: float) -> None:
        self.n += 1
        delta = value - self.mean
        self.mean += delta / self.n
        self.squares += delta * (value - self.mean)

    @property
    def deviation(self) -> float:
        return math.sqrt(max(0.0, self.squares) / (self.n - 1))

    def metric(self, reason: str, low: float = -math.inf, high: float = math.inf) -> Metric:
        """The mean with its t interval, cut to what it can be at all; of one value, without an interval."""
        if self.n == 0:
            return Metric.absent(reason)
        if not math.isfinite(self.squares):
            return Metric.absent(TOO_LARGE)
        if self.n == 1:
            return Metric(value=self.mean, n=1, reason="one value has no interval")
        interval = stats.student(self.mean, self.deviation, self.n)
        return Metric(value=self.mean, low=max(low, interval.low), high=min(high, interval.high), n=self.n)

    def spread(self, reason: str) -> Metric:
        """The standard deviation."""
        if self.n < 2:
            return Metric.absent(reason)
        if not math.isfinite(self.squares):
            return Metric.absent(TOO_LARGE)
        return Metric(value=self.deviation, n=self.n)


@dataclass(slots=True)
class _Correlation:
    """Pearson's correlation in one pass, by updated co-moments."""

    x: _Moments = field(default_factory=_Moments)
    y: _Moments = field(default_factory=_Moments)
    products: float = 0.0

    def add(self, x: float, y: float) -> None:
        before = x - self.x.mean
        self.x.add(x)
        self.y.add(y)
        self.products += before * (y - self.y.mean)

    def metric(self, reason: str) -> Metric:
        if self.x.n < 3:
            return Metric.absent(reason)
        spread = self.x.squares * self.y.squares
        if not math.isfinite(spread):
            return Metric.absent(TOO_LARGE)
        if spread <= 0:
            return Metric.absent("all scores or all lengths are the same")
        value = max(-1.0, min(1.0, self.products / math.sqrt(spread)))
        interval = stats.fisher(value, self.x.n)
        return Metric(value=value, low=interval and interval.low, high=interval and interval.high, n=self.x.n)


def _score(evaluation: Evaluation, graded: Iterable[Graded]) -> ScoreSummary:
    tally, scores, errors, lengths = _Tally(), _Moments(), _Moments(), _Correlation()
    counts: Counter[float] = Counter()
    passed = 0
    threshold = evaluation.pass_threshold
    for each in graded:
        if not tally.add(each.verdict):
            continue
        value = float(each.verdict.value or 0.0)
        scores.add(value)
        if len(each.verdict.lengths) == 1:
            lengths.add(float(each.verdict.lengths[0]), value)
        counts[value if len(counts) < 100 or value in counts else math.floor(value)] += 1
        passed += threshold is not None and value >= threshold
        gold = number(each.gold)
        if gold is not None:
            errors.add(abs(value - gold))
    passes, bounds = _passes(passed, tally, wanted=threshold is not None, needs="pass_threshold")
    deviation = scores.spread("fewer than two rows have a score")
    mae = errors.metric("no scored row has a gold score" if evaluation.gold else "no gold column")
    correlation = lengths.metric("fewer than three responses of known length have a score")
    mean = _within(scores.metric("no row has a score"), evaluation)
    return ScoreSummary(
        counts=tally.counts(),
        score_counts=_printed(counts),
        metrics={
            "mean_score": mean,
            "std_score": deviation,
            **passes,
            "mae": mae,
            "length_correlation": correlation,
            **tally.rates(),
        },
        bounds=bounds,
        warnings=_length_warning(correlation),
    )


def _printed(counts: Mapping[float, int]) -> dict[str, int]:
    """The counts by score as it is shown; scores that differ in the seventh digit only are shown alike."""
    printed: Counter[str] = Counter()
    for value in sorted(counts):
        printed[f"{value:g}"] += counts[value]
    return printed


def _within(mean: Metric, evaluation: Evaluation) -> Metric:
    """The mean with its interval cut to the scale: no mean lies outside."""
    if mean.low is None or mean.high is None or evaluation.min_score is None or evaluation.max_score is None:
        return mean
    return replace(mean, low=max(mean.low, evaluation.min_score), high=min(mean.high, evaluation.max_score))


def _length_warning(correlation: Metric) -> tuple[str, ...]:
    if correlation.low is None or correlation.high is None or abs(correlation.value or 0.0) < LENGTH_LIMIT:
        return ()
    if correlation.low <= 0 <= correlation.high:
        return ()
    kind = "longer" if (correlation.value or 0.0) > 0 else "shorter"
    return (f"the judge gives {kind} responses higher scores: correlation with length {correlation.value:.2f}",)


def number(value: Any) -> float | None:
    """A gold score from a cell, None where it holds no finite number."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _compare(evaluation: Evaluation, graded: Iterable[Graded]) -> CompareSummary:
    tally, agreement, points = _Tally(), _Agreement(evaluation.gold), _Moments()
    choices: Counter[str] = Counter(dict.fromkeys(CHOICES, 0))
    both = same = first = picks = longer = unequal = 0
    for each in graded:
        agreement.add(each)
        if not tally.add(each.verdict):
            continue
        choice = str(each.verdict.value)
        choices[choice] += 1
        points.add({"A": 1.0, "B": 0.0}.get(choice, 0.5))
        if choice != "Tie" and len(each.verdict.lengths) == 2 and each.verdict.lengths[0] != each.verdict.lengths[1]:
            unequal += 1
            longer += (choice == "A") == (each.verdict.lengths[0] > each.verdict.lengths[1])
        given, flipped = each.verdict.orders or (None, None)
        if given and flipped:
            both += 1
            same += given == flipped
        # In the given order A stands first, in the flipped one B does.
        first += (given == "A") + (flipped == "B")
        picks += (given in ("A", "B")) + (flipped in ("A", "B"))
    decided = choices["A"] + choices["B"]
    metrics = {
        "win_rate": points.metric("no row has a verdict", 0.0, 1.0),
        "win_rate_no_ties": proportion(choices["A"], decided, "every verdict is a tie"),
        "tie_rate": proportion(choices["Tie"], tally.scored, "no row has a verdict"),
        "consistency": proportion(same, both, "no row was judged in both orders"),
        "first_slot_preference": proportion(first, picks, "no order was decided"),
        "longer_wins": proportion(longer, unequal, "no win between responses of known, unequal length"),
        **agreement.metrics(),
        **tally.rates(),
    }
    return CompareSummary(
        counts=tally.counts(),
        choice_counts=choices,
        ties_by_inconsistency=both - same,
        metrics=metrics,
        bounds={},
        warnings=(*agreement.warnings(metrics), *_slot_warning(first, picks)),
    )


def _slot_warning(first: int, picks: int) -> tuple[str, ...]:
    if picks and stats.binomial_p(first, picks) < 0.01:
        slot = "first" if 2 * first > picks else "second"
        return (f"the judge prefers the {slot} response, whatever it says: {max(first, picks - first)} of {picks}",)
    return ()
