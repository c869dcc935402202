"""Intervals and tests. Quantiles and tails come from scipy, loaded on first use; each formula names its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Interval(NamedTuple):
    low: float
    high: float


def wilson(successes: int, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The Wilson score interval of a proportion, 0 to 1; n > 0.

    E. B. Wilson, JASA 22 (1927); equal to scipy's `binomtest(…).proportion_ci(method="wilson")`, whose import
    alone takes a second.
    """
    from scipy.special import ndtri

    z = float(ndtri(0.5 + confidence / 2))
    centre = (successes + z * z / 2) / (n + z * z)
    half = z / (n + z * z) * math.sqrt(successes * (n - successes) / n + z * z / 4)
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high)


def student(mean: float, deviation: float, n: int, confidence: float = CONFIDENCE) -> Interval:
    """The t interval of a mean from the sample's standard deviation (n - 1 in the denominator); n > 1."""
    from scipy.special import stdtrit

    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * deviation / math.sqrt(n)
    return Interval(mean - half, mean + half)


def binomial_p(successes: int, n: int) -> float:
    """The exact two-sided p-value of `successes` in n throws of a fair coin."""
    from scipy.special import bdtr

    fewer = min(successes, n - successes)
    return min(1.0, 2 * float(bdtr(fewer, n, 0.5))) if n else 1.0


class Kappa(NamedTuple):
    value: float
    interval: Interval


def kappa(matrix: Sequence[Sequence[int]], confidence: float = CONFIDENCE) -> Kappa | None:
    """Cohen's kappa of a square confusion matrix of counts, or None where chance alone agrees always.

    The interval uses the large-sample variance of J. L. Fleiss, J. Cohen, B. S. Everitt, Psychological
    Bulletin 72 (1969), equation 13.
    """
    from scipy.special import ndtri

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
    variance = max(0.0, diagonal + rest - correction) / (n * (1 - chance) ** 2)
    half = float(ndtri(0.5 + confidence / 2)) * math.sqrt(variance)
    return Kappa(value, Interval(max(-1.0, value - half), min(1.0, value + half)))


def fisher(correlation: float, n: int, confidence: float = CONFIDENCE) -> Interval | None:
    """The interval of Pearson's correlation by R. A. Fisher's z (Metron 1, 1921); None for n < 4 or a perfect one."""
    from scipy.special import ndtri

    if n < 4 or abs(correlation) >= 1:
        return None
    half = float(ndtri(0.5 + confidence / 2)) / math.sqrt(n - 3)
    return Interval(math.tanh(math.atanh(correlation) - half), math.tanh(math.atanh(correlation) + half))
