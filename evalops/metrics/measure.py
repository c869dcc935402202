"""Rates, means and correlations, gathered row by row in one pass, with their 95 % intervals.

Rows may belong to clusters; the intervals of rates and means then count clusters, not rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from evalops.result import Metric
from evalops.stats import intervals

TOO_LARGE = "the values are too large to be averaged"
ONE_CLUSTER = "rows of one cluster have no interval"
ALIKE = "all are the same, so the interval is the widest that their number allows"
PLAIN_ROWS = "the interval counts rows, not clusters"


@dataclass(slots=True)
class Rate:
    """How many of n rows are hits, in all and by cluster."""

    n: int = 0
    hits: int = 0
    clusters: dict[str, list[int]] = field(default_factory=dict)

    def add(self, hits: int, cluster: str | None = None, n: int = 1) -> None:
        """Counts n rows of one cluster, `hits` of them."""
        self.n += n
        self.hits += hits
        if cluster is not None:
            found = self.clusters.setdefault(cluster, [0, 0])
            found[0] += n
            found[1] += hits

    def metric(self, reason: str, scale: float = 1.0) -> Metric:
        """The rate with its Wilson interval, or its cluster-robust one; None with the reason where n is 0."""
        if self.n == 0:
            return Metric.absent(reason)
        value = scale * self.hits / self.n
        if not self.clusters:
            interval: intervals.Interval | None = intervals.wilson(self.hits, self.n)
        else:
            interval = intervals.clustered_rate(intervals.Cluster(n, hits) for n, hits in self.clusters.values())
        if interval is None:
            return Metric(value=value, n=self.n, clusters=1, reason=ONE_CLUSTER)
        low, high = scale * interval.low, scale * interval.high
        return Metric(value=value, low=low, high=high, n=self.n, clusters=len(self.clusters) or None)


def proportion(hits: int, n: int, reason: str, scale: float = 1.0) -> Metric:
    """The rate of hits among n unrelated rows."""
    return Rate(n, hits).metric(reason, scale)


@dataclass(slots=True)
class Moments:
    """Mean and deviation in one pass (B. P. Welford, Technometrics 4, 1962), with the sums of each cluster."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    clusters: dict[str, list[float]] = field(default_factory=dict)

    def add(self, value: float, cluster: str | None = None, n: int = 1) -> None:
        """Counts n rows of this value and cluster."""
        self.n += n
        delta = value - self.mean
        self.mean += delta * n / self.n
        self.squares += n * delta * (value - self.mean)
        if cluster is not None:
            found = self.clusters.setdefault(cluster, [0, 0.0])
            found[0] += n
            found[1] += n * value

    @property
    def deviation(self) -> float:
        """The standard deviation, n - 1 in the denominator; n > 1."""
        return math.sqrt(max(0.0, self.squares) / (self.n - 1))

    def metric(self, reason: str, low: float = -math.inf, high: float = math.inf) -> Metric:
        """The mean with its t or cluster-robust interval, cut to what it can be at all; of one value, without one."""
        if self.n == 0:
            return Metric.absent(reason)
        if not math.isfinite(self.squares) or not all(math.isfinite(total) for _, total in self.clusters.values()):
            return Metric.absent(TOO_LARGE)
        value = min(max(self.mean, low), high)  # rounding may leave the scale by its last digit
        if self.n == 1:
            return Metric(value=value, n=1, reason="one value has no interval")
        interval = self._interval()
        if interval is None:
            return Metric(value=value, n=self.n, clusters=1, reason=ONE_CLUSTER)
        width, note = high - low, None
        if interval.low == interval.high and 0 < width < math.inf:
            # No spread was seen, which is no proof that there is none: no values between the bounds are further
            # apart than if all stood at either of them.
            units = len(self.clusters) or self.n
            share = intervals.wilson((value - low) / width * units, units)
            interval = intervals.Interval(low + width * share.low, low + width * share.high)
            note = ALIKE
        return Metric(
            value=value,
            low=max(low, min(interval.low, value)),
            high=min(high, max(interval.high, value)),
            n=self.n,
            clusters=len(self.clusters) or None,
            reason=note,
        )

    def _interval(self) -> intervals.Interval | None:
        if not self.clusters:
            return intervals.student(self.mean, self.deviation, self.n)
        return intervals.clustered(intervals.Cluster(int(n), total) for n, total in self.clusters.values())

    def spread(self, reason: str) -> Metric:
        """The standard deviation."""
        if self.n < 2:
            return Metric.absent(reason)
        if not math.isfinite(self.squares):
            return Metric.absent(TOO_LARGE)
        return Metric(value=self.deviation, n=self.n)


@dataclass(slots=True)
class Correlation:
    """Pearson's correlation in one pass, by updated co-moments."""

    x: Moments = field(default_factory=Moments)
    y: Moments = field(default_factory=Moments)
    products: float = 0.0

    def add(self, x: float, y: float) -> None:
        """Counts one row."""
        before = x - self.x.mean
        self.x.add(x)
        self.y.add(y)
        self.products += before * (y - self.y.mean)

    def metric(self, reason: str, same: str) -> Metric:
        """The correlation; None for fewer than three rows, or (`same`) where one side never changes."""
        if self.x.n < 3:
            return Metric.absent(reason)
        spread = math.sqrt(max(0.0, self.x.squares)) * math.sqrt(max(0.0, self.y.squares))
        if not (math.isfinite(spread) and math.isfinite(self.products)):
            return Metric.absent(TOO_LARGE)
        if spread <= 0:
            return Metric.absent(same)
        value = max(-1.0, min(1.0, self.products / spread))
        interval = intervals.fisher(value, self.x.n)
        if interval is None:
            few = "no interval for a perfect correlation or fewer than four rows"
            return Metric(value=value, n=self.x.n, reason=few)
        return Metric(value=value, low=interval.low, high=interval.high, n=self.x.n)


def scaled(metric: Metric, scale: float, shift: float = 0.0) -> Metric:
    """A metric in another unit: `scale` (above 0) times as large, then moved by `shift`."""
    value, low, high = (
        None if each is None else each * scale + shift for each in (metric.value, metric.low, metric.high)
    )
    return replace(metric, value=value, low=low, high=high)


def plain_rows(metrics: Iterable[tuple[str, Metric]]) -> dict[str, Metric]:
    """Metrics whose intervals know of no clusters, saying so."""
    return {
        name: metric if metric.low is None else replace(metric, reason=metric.reason or PLAIN_ROWS)
        for name, metric in metrics
    }


def number(value: Any) -> float | None:
    """A gold score from a cell, None where it holds no finite number."""
    if isinstance(value, bool):
        return None
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
