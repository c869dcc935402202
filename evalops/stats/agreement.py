"""How far several opinions on the same rows agree: Krippendorff's alpha, flips, the variance between and within rows.

Opinions come as counts: how many rows have these values, `{("polite", "polite", "rude"): 12}`. The order within a row
does not matter, and rows without a verdict are left out of it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from evalops.result import Metric
from evalops.stats import intervals
from evalops.stats.resample import SEED, interval_of, resampled_sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

V = TypeVar("V", str, float)
Labels = Mapping[tuple[str, ...], int]
Scores = Mapping[tuple[float, ...], int]


def alpha_of_labels(opinions: Labels, *, seed: int = SEED) -> Metric:
    """Krippendorff's alpha, nominal level, over the rows with two opinions or more, with a bootstrap interval over
    rows. 1 is perfect agreement, 0 that of chance.

    K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), sections C and E; rows may have any number
    of opinions.
    """
    kinds = sorted(_repeated(opinions).items())
    if not kinds:
        return Metric.absent("no row has two opinions")
    return _alpha(_nominal([kind for kind, _ in kinds]), [count for _, count in kinds], _expected_of_labels, seed)


def alpha_of_scores(opinions: Scores, *, seed: int = SEED) -> Metric:
    """The same at the interval level: opinions differ by the square of how far apart they are."""
    kinds = sorted(_repeated(opinions).items())
    if not kinds:
        return Metric.absent("no row has two opinions")
    return _alpha(_interval([kind for kind, _ in kinds]), [count for _, count in kinds], _expected_of_scores, seed)


def _repeated(opinions: Mapping[tuple[V, ...], int]) -> Counter[tuple[V, ...]]:
    """The rows with two opinions or more, whatever the order of these."""
    kinds: Counter[tuple[V, ...]] = Counter()
    for values, count in opinions.items():
        if len(values) > 1 and count:
            kinds[tuple(sorted(values))] += count
    return kinds


def _alpha(features: FloatArray, counts: list[int], expected: Callable[[FloatArray], FloatArray], seed: int) -> Metric:
    """Alpha from a line a kind of row (its opinions, their disagreement, sums over them), and how many are of it."""
    import numpy as np

    def of(sums: FloatArray) -> FloatArray:
        n, chance = sums[:, 0], expected(sums)
        ratio = np.full(n.shape, np.nan)
        np.divide(sums[:, 1] * (n - 1), chance, out=ratio, where=chance > 1e-12 * n**2)
        return 1 - ratio

    rows = np.array(counts, dtype=np.int64)
    value = float(of((rows @ features)[None])[0])
    if math.isnan(value):
        return Metric.absent("all opinions are the same, so chance agrees always")
    n = sum(counts)
    interval = None
    if n >= 10:
        interval = interval_of(value, of(resampled_sums(features, rows, np.random.default_rng(seed))), n)
    if interval is None:
        return Metric(value=value, n=n, reason="too few rows, or too little that differs, for an interval")
    return Metric(value=value, low=interval.low, high=interval.high, n=n)


def _nominal(kinds: list[tuple[str, ...]]) -> FloatArray:
    """A line a kind of row: its opinions, their disagreement, and how many of each label."""
    import numpy as np

    labels = {label: place for place, label in enumerate(sorted({label for kind in kinds for label in kind}))}
    features = np.zeros((len(kinds), 2 + len(labels)))
    for line, kind in zip(features, kinds, strict=True):
        for label in kind:
            line[2 + labels[label]] += 1
        line[:2] = len(kind), (len(kind) ** 2 - line[2:] @ line[2:]) / (len(kind) - 1)
    return features


def _interval(kinds: list[tuple[float, ...]]) -> FloatArray:
    """A line a kind of row: its opinions, their squared differences, and the sums of values and squares."""
    import numpy as np

    sizes = np.array([len(kind) for kind in kinds])
    values = np.concatenate([np.array(kind, dtype=float) for kind in kinds])
    # Alpha is the same wherever the scale begins and ends, and the squares stay small.
    values = (values - values.mean()) / np.ptp(values) if np.ptp(values) else np.zeros_like(values)
    starts = np.cumsum(sizes) - sizes
    sums, squares = np.add.reduceat(values, starts), np.add.reduceat(values**2, starts)
    apart = 2 * np.add.reduceat((values - np.repeat(sums / sizes, sizes)) ** 2, starts) * sizes / (sizes - 1)
    return np.column_stack([sizes, apart, sums, squares])


def _expected_of_labels(sums: FloatArray) -> FloatArray:
    squares: FloatArray = (sums[:, 2:] ** 2).sum(axis=1)
    return sums[:, 0] ** 2 - squares


def _expected_of_scores(sums: FloatArray) -> FloatArray:
    return 2 * (sums[:, 0] * sums[:, 3] - sums[:, 2] ** 2)


def flip_rate(opinions: Labels | Scores) -> Metric:
    """The share of rows whose opinions are not all the same, of those that have two or more; Wilson interval."""
    repeated = {values: count for values, count in opinions.items() if len(values) > 1}
    n = sum(repeated.values())
    if n == 0:
        return Metric.absent("no row has two opinions")
    flipped = sum(count for values, count in repeated.items() if len(set(values)) > 1)
    return Metric(value=flipped / n, **intervals.wilson(flipped, n)._asdict(), n=n)


class Components(NamedTuple):
    """The variance of scores between rows and, of repeated opinions, within them."""

    between: float
    within: float


def components(opinions: Scores) -> Components | None:
    """The two variances, None without two rows or without a row that has two opinions.

    One-way random effects by analysis of variance, rows of any number of opinions: S. R. Searle, G. Casella,
    C. E. McCulloch, Variance Components (1992), section 3.6; a negative estimate is 0.
    """
    rows = total = squares_of_sizes = 0
    mean = between = within = 0.0
    for values, count in opinions.items():
        if not values or not count:
            continue
        own = math.fsum(values) / len(values)
        within += count * math.fsum((value - own) ** 2 for value in values)
        weight = count * len(values)
        total += weight
        delta = own - mean
        mean += delta * weight / total
        between += weight * delta * (own - mean)
        rows += count
        squares_of_sizes += count * len(values) ** 2
    if rows < 2 or total == rows:
        return None
    error = within / (total - rows)
    size = (total - squares_of_sizes / total) / (rows - 1)
    return Components(max(0.0, (between / (rows - 1) - error) / size), error)
