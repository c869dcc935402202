"""Intervals and tests of one sample, in closed form. Quantiles and tails come from scipy, loaded on first use; each
formula names its source. Two samples are in `contrast`, several opinions in `agreement`, resampling in `resample`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from evalops.result import Metric

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

TAIL = 0.025  # on either side of a 95 % interval
Z = 1.959963984540054  # how many standard errors of a normal distribution reach to either side, without scipy


class Interval(NamedTuple):
    low: float
    high: float


# --- one rate, one mean ---


def wilson(successes: float, n: float) -> Interval:
    """The Wilson score interval of a proportion, 0 to 1; n > 0.

    E. B. Wilson, JASA 22 (1927); equal to scipy's `binomtest(…).proportion_ci(method="wilson")`, whose import
    alone takes a second.
    """
    return _score_interval(successes, n, Z)


def _score_interval(successes: float, n: float, z: float) -> Interval:
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(max(0.0, successes * (n - successes)) / n + z * z / 4)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def student(mean: float, deviation: float, n: int) -> Interval:
    """The t interval of a mean from the sample's standard deviation (n - 1 in the denominator); n > 1."""
    half = t_quantile(n - 1) * deviation / math.sqrt(n)
    return Interval(mean - half, mean + half)


def t_quantile(freedom: float) -> float:
    """How many standard errors of a t distribution reach to either side."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 1 - TAIL))


def median(counts: Mapping[float, int]) -> Metric:
    """The median of values given as counts by value, with its distribution-free interval of order statistics.

    The l-th smallest to the l-th largest value, l the last rank with P(Binomial(n, 1/2) < l) <= TAIL
    (W. R. Thompson, Annals of Mathematical Statistics 7, 1936); it covers at least what it says, ties or not.
    """
    from scipy.special import bdtr, bdtrik

    n = sum(counts.values())
    if n == 0:
        return Metric.absent("no values")
    # bdtrik solves for a real number of successes: the last steps settle what rounding left open.
    rank = max(0, math.floor(bdtrik(TAIL, n, 0.5)) - 1) if n > 1 else 0
    while bdtr(rank, n, 0.5) <= TAIL:
        rank += 1
    wanted = [(n + 1) // 2, n // 2 + 1, *([rank, n + 1 - rank] if rank else [])]
    lower, upper, *bounds = _order_statistics(counts, wanted)
    value = lower + (upper - lower) / 2
    if not bounds:
        return Metric(value=value, n=n, reason="too few values for an interval of the median")
    return Metric(value=value, low=bounds[0], high=bounds[1], n=n)


def _order_statistics(counts: Mapping[float, int], ranks: Sequence[int]) -> list[float]:
    """The values of these ranks, counted from 1."""
    found: dict[int, float] = {}
    waiting = sorted(ranks)
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        while waiting and waiting[0] <= seen:
            found[waiting.pop(0)] = float(value)
    return [found[rank] for rank in ranks]


# --- rows in clusters ---


class Cluster(NamedTuple):
    """How many rows a cluster has, and the sum of their values (of passes: how many passed)."""

    n: int
    total: float


def clustered(clusters: Iterable[Cluster]) -> Interval | None:
    """The cluster-robust t interval of the mean of all rows, clusters less one degrees of freedom; None for fewer
    than two clusters.

    E. Miller, "Adding error bars to evals", arXiv 2411.00640, equation 4, with the small-sample factor G / (G - 1)
    of CR1 (A. C. Cameron, D. L. Miller, Journal of Human Resources 50, 2015).
    """
    known = [each for each in clusters if each.n]
    if len(known) < 2:
        return None
    mean, variance = _clustered_variance(known)
    half = t_quantile(len(known) - 1) * math.sqrt(variance)
    return Interval(mean - half, mean + half)


def clustered_rate(clusters: Iterable[Cluster]) -> Interval | None:
    """The cluster-robust interval of a rate, totals being passes, or of points from 0 to 1; None for fewer than two
    clusters.

    Wilson's interval with the t quantile and the rows divided by the design effect (E. L. Korn, B. I. Graubard,
    Survey Methodology 24, 1998; C. Franco and others, Journal of Survey Statistics and Methodology 7, 2019). Where all
    rows pass or none does, the clusters count as the rows.
    """
    known = [each for each in clusters if each.n]
    if len(known) < 2:
        return None
    rate, variance = _clustered_variance(known)
    rows = sum(each.n for each in known)
    if rate in (0.0, 1.0):
        effective = float(len(known))
    elif variance * rows < 1e-9 * rate * (1 - rate):  # clusters that are all alike prove no more than their rows
        effective = float(rows)
    else:
        effective = rate * (1 - rate) / variance
    return _score_interval(rate * effective, effective, t_quantile(len(known) - 1))


def _clustered_variance(clusters: Sequence[Cluster]) -> tuple[float, float]:
    """The mean of all rows and its cluster-robust variance."""
    rows = sum(each.n for each in clusters)
    mean = math.fsum(each.total for each in clusters) / rows
    squares = math.fsum((each.total - mean * each.n) ** 2 for each in clusters)
    return mean, squares / rows**2 * len(clusters) / (len(clusters) - 1)


# --- tests ---


def binomial_p(successes: int, n: int) -> float:
    """The exact two-sided p-value of `successes` in n throws of a fair coin."""
    from scipy.special import bdtr

    fewer = min(successes, n - successes)
    return min(1.0, 2 * float(bdtr(fewer, n, 0.5))) if n else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number, in the order given (S. Holm, Scandinavian Journal of Statistics 6, 1979)."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


# --- agreement and correlation ---


class Kappa(NamedTuple):
    value: float
    interval: Interval


def kappa(matrix: Sequence[Sequence[float]]) -> Kappa | None:
    """Cohen's kappa of a square confusion matrix of counts, or None where chance alone agrees always.

    The interval is taken on the scale of Fisher's z, with one row more spread evenly over the cells: the plain one
    (value and standard errors) holds the truth in 60 to 90 % of samples of 100 rows where a label is rare or agreement
    high, this one in 91 to 96 %.
    """
    found = kappa_error(matrix)
    if found is None:
        return None
    cells = len(matrix) ** 2
    smoothed = kappa_error([[count + 1 / cells for count in line] for line in matrix])
    assert smoothed is not None  # no cell is empty, so chance alone cannot agree always
    centre, error = math.atanh(smoothed[0]), smoothed[1] / (1 - smoothed[0] ** 2)
    half = Z * error
    return Kappa(found[0], Interval(min(found[0], math.tanh(centre - half)), max(found[0], math.tanh(centre + half))))


def kappa_error(matrix: Sequence[Sequence[float]]) -> tuple[float, float] | None:
    """Cohen's kappa and its large-sample standard error, None where chance alone agrees always.

    J. L. Fleiss, J. Cohen, B. S. Everitt, Psychological Bulletin 72 (1969), equation 13.
    """
    n = sum(map(sum, matrix))
    size = range(len(matrix))
    row = [sum(matrix[i]) / n for i in size]
    column = [sum(matrix[i][j] for i in size) / n for j in size]
    agreed = sum(matrix[i][i] for i in size) / n
    chance = sum(row[i] * column[i] for i in size)
    if chance >= 1:
        return None
    value = (agreed - chance) / (1 - chance)
    diagonal = sum(matrix[i][i] / n * (1 - (row[i] + column[i]) * (1 - value)) ** 2 for i in size)
    rest = (1 - value) ** 2 * sum(matrix[i][j] / n * (column[i] + row[j]) ** 2 for i in size for j in size if i != j)
    correction = (value - chance * (1 - value)) ** 2
    return value, math.sqrt(max(0.0, diagonal + rest - correction) / n) / (1 - chance)


def fisher(correlation: float, n: int) -> Interval | None:
    """The interval of Pearson's correlation by R. A. Fisher's z (Metron 1, 1921); None for n < 4 or a perfect one."""
    if n < 4 or abs(correlation) >= 1:
        return None
    return _around(correlation, Z / math.sqrt(n - 3))


def _around(correlation: float, half: float) -> Interval:
    """So far to either side on the scale of Fisher's z."""
    centre = math.atanh(correlation)
    return Interval(math.tanh(centre - half), math.tanh(centre + half))


def spearman(x: Sequence[float], y: Sequence[float]) -> Metric:
    """Spearman's rank correlation of values side by side, ties at their average rank.

    The interval is Fisher's z with the variance of D. G. Bonett, T. A. Wright, Psychometrika 65 (2000).
    """
    import numpy as np

    n = len(x)
    if n < 3:
        return Metric.absent("fewer than three rows")
    first, second = _centred_ranks(x), _centred_ranks(y)
    spread = math.sqrt(float(first @ first) * float(second @ second))
    if spread == 0:
        return Metric.absent("all values on one side are the same")
    value = float(np.clip(first @ second / spread, -1.0, 1.0))
    if n < 4 or abs(value) >= 1 - 1e-12:
        return Metric(value=value, n=n, reason="no interval for a perfect correlation or fewer than four rows")
    low, high = _around(value, Z * math.sqrt((1 + value**2 / 2) / (n - 3)))
    return Metric(value=value, low=low, high=high, n=n)


def _centred_ranks(values: Sequence[float]) -> FloatArray:
    """Average ranks, less their mean."""
    import numpy as np

    _, places, counts = np.unique(np.asarray(values, dtype=float), return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    centred: FloatArray = ranks[places] - (len(places) + 1) / 2
    return centred


# --- a judge of known error ---


class Calibration(NamedTuple):
    """Gold rows by their true answer and the judge's: true pass judged pass or fail, true fail judged fail or pass."""

    true_pass: int
    false_fail: int
    true_fail: int
    false_pass: int


def corrected_rate(passed: int, n: int, gold: Calibration) -> Metric:
    """The pass rate less the judge's error, 0 to 1, with an interval that carries the error of the calibration too;
    None with the reason where the judge is no better than chance.

    W. J. Rogan, B. Gladen, American Journal of Epidemiology 107 (1978); the interval by Z. Lang, J. Reiczigel,
    Preventive Veterinary Medicine 113 (2014), as in arXiv 2511.21140. The gold rows count as a sample of their own.
    """
    passes, fails = gold.true_pass + gold.false_fail, gold.true_fail + gold.false_pass
    if n == 0 or passes == 0 or fails == 0:
        return Metric.absent(
            "no row has a verdict" if n == 0 else "it needs gold rows that pass and gold rows that fail"
        )
    sensitivity, specificity = gold.true_pass / passes, gold.true_fail / fails
    # As if two more gold rows of each kind had been judged, one rightly, and z² more rows, half of which passed.
    rate = (passed + Z * Z / 2) / (n + Z * Z)
    found, spared = (gold.true_pass + 1) / (passes + 2), (gold.true_fail + 1) / (fails + 2)
    if sensitivity + specificity <= 1 or found + spared <= 1:
        return Metric.absent("on the gold rows the judge is no better than chance: sensitivity + specificity <= 1")
    value = min(1.0, max(0.0, (passed / n + specificity - 1) / (sensitivity + specificity - 1)))
    centre = (rate + spared - 1) / (found + spared - 1)
    error_found, error_spared = found * (1 - found) / (passes + 2), spared * (1 - spared) / (fails + 2)
    shift = 2 * Z * Z * (centre * error_found - (1 - centre) * error_spared)
    variance = rate * (1 - rate) / (n + Z * Z) + centre**2 * error_found + (1 - centre) ** 2 * error_spared
    half = Z * math.sqrt(variance) / (found + spared - 1)
    low, high = (min(1.0, max(0.0, centre + shift + side)) for side in (-half, half))
    return Metric(value=value, low=min(low, value), high=max(high, value), n=n)
