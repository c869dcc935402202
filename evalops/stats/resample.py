"""Seeded resampling over rows: the bootstrap, the test that flips signs, and that of dividing rows anew.

Rows that are alike are drawn together, by how often they come up, so that a million rows of a few different values
cost no more than those values. The same rows in any order give the same figures (with the same numpy).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from evalops.stats.intervals import Interval, t_quantile

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]
    IntArray = NDArray[np.int64]

RESAMPLES = 2_000  # an end of an interval then moves by some 3 % of a standard error from seed to seed
SEED = 20_231_117
_CELLS = 4_000_000  # numbers held at once
_DRAWS = (
    20_000_000  # of a binomial number, about two seconds; beyond, the normal limit, which so many rows have reached
)
_PICKS = 8  # single rows are picked in the time of one binomial number


class PairedMean(NamedTuple):
    """The mean of differences, its interval (None where all are the same), and the p-value of there being none."""

    value: float
    interval: Interval | None
    p: float


def paired_mean(differences: Mapping[float, int], *, seed: int = SEED, resamples: int = RESAMPLES) -> PairedMean:
    """The mean of the differences of rows measured twice, given as counts by difference; at least one row.

    The interval is the bootstrap's expanded percentile one (T. Hesterberg, The American Statistician 69, 2015), which
    for few rows is as wide as Student's. The p-value is that of flipping signs at random, exact for any number of rows
    where either measurement could have come first (R. A. Fisher, The Design of Experiments, 1935, section 21).
    """
    import numpy as np

    values = np.array(sorted(differences), dtype=float)
    counts = np.array([differences[value] for value in values.tolist()], dtype=np.int64)
    n = int(counts.sum())
    value = float(values @ counts) / n
    chance = np.random.default_rng(seed)
    interval = None
    if len(values) > 1:
        means = resampled_sums(values[:, None], counts, chance, resamples)[:, 0] / n
        interval = expanded_percentiles(means, n)
    return PairedMean(value, interval, _sign_flips(values, counts, chance, resamples))


def resampled_sums(
    features: FloatArray, counts: IntArray, chance: np.random.Generator, resamples: int = RESAMPLES
) -> FloatArray:
    """Sums of the features over as many rows as there are, drawn with replacement: one line a resample.

    `features` has one line a kind of row, `counts` how many rows are of it.
    """
    import numpy as np

    n, kinds = int(counts.sum()), len(counts)
    if min(kinds, n / _PICKS) * resamples > _DRAWS:
        mean = counts @ features / n
        centred = features - mean
        covariance = (centred * counts[:, None]).T @ centred
        return chance.multivariate_normal(n * mean, covariance, resamples, method="eigh")
    if n < _PICKS * kinds:
        rows = np.repeat(features, counts, axis=0)
        return np.concatenate(
            [rows[chance.integers(0, n, (size, n))].sum(axis=1) for size in _steps(resamples, rows.size)]
        )
    shares = counts / n
    return np.concatenate([chance.multinomial(n, shares, size) @ features for size in _steps(resamples, kinds)])


def kinds_of(rows: Iterable[tuple[float, ...]]) -> tuple[FloatArray, IntArray]:
    """Rows of features as one line a kind, in a fixed order, and how many rows are of it."""
    import numpy as np

    kinds = sorted(Counter(rows).items())
    features = np.array([kind for kind, _ in kinds], dtype=float)
    return features, np.array([count for _, count in kinds], dtype=np.int64)


def _steps(resamples: int, cells: int) -> list[int]:
    """How many resamples to draw at a time, where each takes so many cells."""
    step = max(1, _CELLS // cells)
    return [min(step, resamples - start) for start in range(0, resamples, step)]


def expanded_percentiles(values: FloatArray, n: int) -> Interval:
    """The percentiles of resampled values, moved outwards by what n - 1 degrees of freedom ask for."""
    import numpy as np
    from scipy.special import ndtr

    tail = float(ndtr(-t_quantile(max(1, n - 1)) * math.sqrt(n / max(1, n - 1))))
    low, high = np.quantile(values, (tail, 1 - tail))
    return Interval(float(low), float(high))


def interval_of(value: float, resampled: FloatArray, n: int) -> Interval | None:
    """The interval of a value, with it inside, from its resamples; None where too many of them (NaN) have none."""
    import numpy as np

    defined = resampled[~np.isnan(resampled)]
    if len(defined) < 0.99 * len(resampled):
        return None
    low, high = expanded_percentiles(defined, n)
    return Interval(min(low, value), max(high, value))


def _sign_flips(values: FloatArray, counts: IntArray, chance: np.random.Generator, resamples: int) -> float:
    """The share of random signs that bring the sum as far from 0 as it is, with itself among them."""
    import numpy as np

    sizes, places = np.unique(np.abs(values), return_inverse=True)
    rows = np.bincount(places, weights=counts).astype(np.int64)
    found = abs(float(values @ counts))
    if len(sizes) * resamples > _DRAWS:
        sums = chance.normal(0.0, math.sqrt(float(sizes**2 @ rows)), resamples)
    else:
        flipped = [
            (2 * chance.binomial(rows, 0.5, (size, len(rows))) - rows) @ sizes for size in _steps(resamples, len(rows))
        ]
        sums = np.concatenate(flipped)
    # Sums of the same size may differ in their last digits.
    as_far = np.abs(sums) >= found - 1e-9 * float(sizes @ rows)
    return (1 + int(np.count_nonzero(as_far))) / (1 + resamples)


def permutation_p(
    first: Sequence[tuple[float, int]], second: Sequence[tuple[float, int]], *, seed: int = SEED
) -> float:
    """The p-value of two means over different rows being the same: the share of random divisions of all rows into
    two parts of these sizes whose means lie as far apart (R. A. Fisher, The Design of Experiments, 1935).

    Each item of a part is a total and the number of rows in it.
    """
    import numpy as np

    features, counts = kinds_of([*first, *second])
    everything = counts @ features
    own = np.array([sum(total for total, _ in first), sum(n for _, n in first)], dtype=float)
    found = _distance(own[None], everything)[0]
    if len(counts) * RESAMPLES > _DRAWS:
        return _normal_p(first, second)
    chance = np.random.default_rng(seed)
    as_far = 0
    for step in _steps(RESAMPLES, len(counts)):
        drawn = chance.multivariate_hypergeometric(counts, len(first), step, method="marginals")
        as_far += int(np.count_nonzero(_distance(drawn @ features, everything) >= found - 1e-9 * (1 + abs(found))))
    return (1 + as_far) / (1 + RESAMPLES)


def _distance(sums: FloatArray, everything: FloatArray) -> FloatArray:
    """How far the mean of a part, given as totals and numbers, lies from the mean of the rest."""
    import numpy as np

    rest = everything - sums
    distance: FloatArray = np.abs(sums[:, 0] / sums[:, 1] - rest[:, 0] / rest[:, 1])
    return distance


def _normal_p(first: Sequence[tuple[float, int]], second: Sequence[tuple[float, int]]) -> float:
    means, variance = [], 0.0
    for part in (first, second):
        values = [total / n for total, n in part]
        means.append(math.fsum(values) / len(values))
        variance += math.fsum((value - means[-1]) ** 2 for value in values) / len(values) ** 2
    return math.erfc(abs(means[0] - means[1]) / math.sqrt(2 * variance)) if variance else 1.0
