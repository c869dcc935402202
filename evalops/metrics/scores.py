"""Verdicts that are numbers: the scores of a judge, and the results of type custom."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import Any

from evalops.metrics.labels import corrected
from evalops.metrics.measure import TOO_LARGE, Correlation, Moments, Rate, number, plain_rows, scaled
from evalops.metrics.tally import NO_VERDICT, Tally
from evalops.result import Graded, Metric
from evalops.spec import Evaluation, Type
from evalops.stats import intervals

LENGTH_LIMIT = 0.7  # a correlation of score and length beyond this is warned of
MOST_COUNTS = 40  # different scores that are counted each by itself
STEPS = 20  # of the scale, where there are more

_NO_SCORE = "no row has a score"


class Scores:
    """The rows of a score or custom. Medians and ranks need every score: 8 bytes each, and 16 with gold."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.tally = Tally()
        self._low, self._high = evaluation.min_score or 0.0, evaluation.max_score or 0.0
        self._threshold = evaluation.pass_threshold
        self._is_custom = evaluation.type is Type.CUSTOM
        # The gold of type custom is an answer, which has made the score already.
        self._column = None if self._is_custom else evaluation.gold
        self._values = array("d")
        self._pairs = array("d"), array("d")  # score and gold score of the rows that have both
        self._mean, self._errors = Moments(), Moments()
        self._passes = Rate()
        self._calibration: Counter[tuple[bool, bool]] = Counter()
        self._with_gold, self._with_length = Correlation(), Correlation()

    def add(self, graded: Graded) -> None:
        """Counts one row."""
        if not self.tally.add(graded):
            return
        value = float(graded.verdict.value or 0.0)
        cluster = graded.cluster
        self._values.append(value)
        self._mean.add(value, cluster)
        passes = self._threshold is not None and value >= self._threshold
        if self._threshold is not None:
            self._passes.add(int(passes), cluster)
        if len(graded.verdict.lengths) == 1:
            self._with_length.add(float(graded.verdict.lengths[0]), value)
        gold = None if self._column is None else number(graded.gold)
        if gold is not None:
            self._add_gold(value, gold, cluster)
            if self._threshold is not None:
                self._calibration[gold >= self._threshold, passes] += 1

    def _add_gold(self, value: float, gold: float, cluster: str | None) -> None:
        self._pairs[0].append(value)
        self._pairs[1].append(gold)
        self._errors.add(abs(value - gold), cluster)
        self._with_gold.add(gold, value)

    @property
    def passed(self) -> int | None:
        """How many rows pass, None where nothing says what a pass is."""
        return None if self._threshold is None else self._passes.hits

    def label_counts(self) -> dict[str, int]:
        """Numbers have none."""
        return {}

    def value(self, said: Any) -> float | None:
        """A verdict as a number."""
        return float(said)

    def score_counts(self) -> dict[str, int]:
        """Scored rows by score as it is shown, or by steps of the scale where scores are many."""
        counts = Counter(self._values)
        width = (self._high - self._low) / STEPS
        printed: Counter[str] = Counter()
        for value in sorted(counts):
            if len(counts) <= MOST_COUNTS or not 0 < width < math.inf:
                printed[f"{value:g}"] += counts[value]
            else:
                step = min(STEPS - 1, max(0, math.floor((value - self._low) / width)))
                low, high = self._low + width * step, self._low + width * (step + 1)
                printed[f"{low:g} to {high:g}"] += counts[value]
        return printed

    def metrics(self) -> dict[str, Metric]:
        """All metrics of the type."""
        mean = self._mean.metric(_NO_SCORE, self._low, self._high)
        metrics = {"mean_score": mean, "median_score": self._median()}
        if not self._is_custom:
            metrics["normalized_mean"] = self._normalized(mean)
        metrics["std_score"] = self._mean.spread("fewer than two rows have a score")
        metrics |= self._pass_metrics()
        if not self._is_custom:
            metrics |= self._gold_metrics()
        metrics |= self._plain(
            {
                "length_correlation": self._with_length.metric(
                    "fewer than three responses of known length have a score", "all scores or all lengths are the same"
                )
            }
        )
        return metrics | self.tally.rates()

    def _median(self) -> Metric:
        if not self._values:
            return Metric.absent(_NO_SCORE)
        return self._plain({"": intervals.median(Counter(self._values))})[""]

    def _normalized(self, mean: Metric) -> Metric:
        width = self._high - self._low
        if mean.value is None or not 0 < width < math.inf:
            return Metric.absent(mean.reason or TOO_LARGE)
        return scaled(mean, 1 / width, -self._low / width)

    def _pass_metrics(self) -> dict[str, Metric]:
        if self._threshold is None:
            return {"pass_percentage": Metric.absent("no pass_threshold")}
        metrics = {"pass_percentage": self._passes.metric(NO_VERDICT, 100.0)}
        if self._is_custom:
            metrics["accuracy"] = self._accuracy()
        elif self._column is not None:
            metrics["corrected_pass_percentage"] = corrected(self._passes, self._calibration)
        return metrics

    def _accuracy(self) -> Metric:
        """Passes among all rows: what has no result is wrong."""
        clusters: dict[str, list[int]] = {}
        for (cluster, _), n in self.tally.clusters.items():
            clusters.setdefault(cluster, [0, self._passes.clusters.get(cluster, [0, 0])[1]])[0] += n
        return Rate(self.tally.rows, self._passes.hits, clusters).metric("no rows")

    def _gold_metrics(self) -> dict[str, Metric]:
        if self._column is None:
            return {name: Metric.absent("no gold column") for name in ("mae", "pearson", "spearman")}
        few, same = "fewer than three rows have a score and a gold score", "all scores or all gold scores are the same"
        rank = intervals.spearman(*self._pairs) if len(self._pairs[0]) > 2 else Metric.absent(few)
        if rank.value is None:
            rank = Metric.absent(few if len(self._pairs[0]) < 3 else same)
        plain = {"pearson": self._with_gold.metric(few, same), "spearman": rank}
        most = max(self._high - self._low, self._errors.mean)  # gold scores may lie outside the scale
        return {"mae": self._errors.metric("no scored row has a gold score", 0.0, most), **self._plain(plain)}

    def _plain(self, metrics: Mapping[str, Metric]) -> dict[str, Metric]:
        return plain_rows(metrics.items()) if self._mean.clusters else dict(metrics)

    def warnings(self, correlation: Metric) -> tuple[str, ...]:
        """Whether scores go with length, in which case length may be what is scored."""
        value, low, high = correlation.value, correlation.low, correlation.high
        if value is None or low is None or high is None or abs(value) < LENGTH_LIMIT or low <= 0 <= high:
            return ()
        kind = "longer" if value > 0 else "shorter"
        who = "the evaluator" if self._is_custom else "the judge"
        return (f"{who} gives {kind} responses higher scores: correlation with length {value:.2f}",)
