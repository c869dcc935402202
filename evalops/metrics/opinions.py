"""Several votes on the same rows, of repeats or of several judges: how far they agree, and where they do not."""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from evalops.metrics.tally import Gathered
from evalops.result import Graded, JudgeResult, Metric, Value, Verdict, VerdictStatus, Vote
from evalops.spec import Evaluation, Judge, Type
from evalops.stats import agreement

NAMES = ("agreement", "flip_rate", "between_row_variance", "within_row_variance")
MOST_ROWS = 20  # with the greatest disagreement that are named
LOST = "the single votes of this result are not kept"


class _Apart(NamedTuple):
    """How far the votes on a row are apart; of equal ones, the earlier row comes first."""

    distance: float
    order: int
    key: str


class Opinions:
    """The votes of a jury. `make` gives an empty count of the evaluation's type."""

    def __init__(self, evaluation: Evaluation, make: Callable[[], Gathered]) -> None:
        self._names = [name_of(judge) for judge in evaluation.judges]
        self._is_number = evaluation.type in (Type.SCORE, Type.CUSTOM)
        self._is_panel = bool(evaluation.panel)
        self._is_cascade = evaluation.voting.cascade
        self._repeats = evaluation.repeats
        self._judges = [make() for _ in self._names]
        self._opinions: Counter[tuple[Any, ...]] = Counter()  # one of each judge; without a panel, one of each repeat
        self._repeated: Counter[tuple[Any, ...]] = Counter()  # those of one judge on one row
        self._numbers: Counter[tuple[float, ...]] = Counter()
        self._apart: list[_Apart] = []
        self._rows = 0

    def add(self, graded: Graded) -> None:
        """Counts the votes of one row."""
        votes = graded.verdict.votes
        if not votes and self._is_cascade:  # the first judge was sure: its vote is the verdict
            votes = (Vote(0, 1, *graded.verdict[1:4]),)
        if not votes:
            return
        self._rows += 1
        own: dict[int, list[Value]] = defaultdict(list)
        for vote in votes:
            self._judges[vote.judge].add(_alone(graded, vote, clustered=self._repeats > 1))
            if vote.status is VerdictStatus.SCORED:
                own[vote.judge].append(vote.value)
        if self._repeats > 1:
            self._repeated.update(tuple(values) for values in own.values())
        opinions = [_combined(values) for values in own.values()] if self._is_panel else [*own[0]]
        self._opinions[tuple(opinions)] += 1
        every = [value for values in own.values() for value in values]
        numbers = [self._judges[0].value(value) for value in every]
        self._numbers[tuple(sorted(number for number in numbers if number is not None))] += 1
        self._keep(graded.verdict.key, self._distance(every))

    def _distance(self, values: Sequence[Value]) -> float:
        """Scores: from the lowest to the highest. Labels: the share that is not with the most frequent one."""
        if len(values) < 2:
            return 0.0
        if self._is_number:
            scores = [float(value or 0.0) for value in values]
            return max(scores) - min(scores)
        return 1.0 - Counter(values).most_common(1)[0][1] / len(values)

    def _keep(self, key: str, distance: float) -> None:
        if distance > 0:
            found = _Apart(distance, -self._rows, key)
            (heapq.heappush if len(self._apart) < MOST_ROWS else heapq.heappushpop)(self._apart, found)

    def disagreements(self) -> tuple[str, ...]:
        """The keys of the rows with the greatest disagreement, the greatest first."""
        return tuple(each.key for each in sorted(self._apart, reverse=True))

    def judges(self, metrics: Sequence[str]) -> tuple[JudgeResult, ...]:
        """Each judge of a panel by itself, with those of `metrics` that it has."""
        if not self._is_panel or self._rows == 0:
            return ()
        return tuple(_judge(*each, metrics) for each in zip(self._names, self._judges, strict=True))

    def metrics(self) -> dict[str, Metric]:
        """Everything of `NAMES`."""
        if self._rows == 0:
            return {name: Metric.absent(LOST) for name in NAMES}
        alpha = agreement.alpha_of_scores if self._is_number else agreement.alpha_of_labels
        flips = agreement.flip_rate(self._repeated) if self._repeats > 1 else Metric.absent("no repeats")
        return {"agreement": alpha(self._opinions), "flip_rate": flips, **self._variances()}

    def _variances(self) -> dict[str, Metric]:
        names = ("between_row_variance", "within_row_variance")
        if not any(self._numbers):
            reason = "no row has a vote" if self._is_number or not any(self._opinions) else "no pass_labels"
            return {name: Metric.absent(reason) for name in names}
        found = agreement.components(self._numbers)
        if found is None:
            return {name: Metric.absent("fewer than two rows, or none with two votes") for name in names}
        n = sum(count for values, count in self._numbers.items() if values)
        return {name: Metric(value=value, n=n) for name, value in zip(names, found, strict=True)}


def name_of(judge: Judge) -> str:
    """What a judge is called in a result: its model, or the column of its verdicts."""
    return judge.model.model if judge.model else f"column {judge.column}"


def _alone(graded: Graded, vote: Vote, *, clustered: bool) -> Graded:
    """A vote as a row of its own. Repeats on a row belong together."""
    verdict = Verdict(graded.verdict.key, vote.status, vote.value, vote.reason)
    cluster = graded.cluster or (graded.verdict.key if clustered else None)
    return Graded(verdict, graded.gold, cluster=cluster)


def _combined(values: Sequence[Value]) -> Value:
    """What a judge says by all its votes on a row: the mean score, the most frequent label (of equals, the first)."""
    if all(isinstance(value, int | float) for value in values):
        return fmean(float(value) for value in values if isinstance(value, int | float))
    return Counter(values).most_common(1)[0][0]


def _judge(name: str, gathered: Gathered, metrics: Sequence[str]) -> JudgeResult:
    counts = gathered.tally.counts()
    found = gathered.metrics()
    return JudgeResult(
        judge=name,
        votes=counts.rows,
        scored=counts.scored,
        invalid=counts.invalid,
        errors=counts.errors,
        metrics={key: found[key] for key in metrics if key in found and found[key].value is not None},
    )
