"""Two samples: the interval of their difference, tests on shared rows, and the smallest effect that n rows can show.
Every difference is new less old; each formula names its source.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from evalops.stats.intervals import Interval, Z, binomial_p

_Z_POWER = 0.8416212335729143  # the normal quantile of 80 % power: a plan asks for it, and must not wait for scipy


class Estimate(NamedTuple):
    """A value with its own interval."""

    value: float
    low: float
    high: float


def difference(new: Estimate, old: Estimate) -> Interval:
    """The interval of new - old of two independent samples from their own intervals, whatever these are.

    G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008); of two Wilson intervals this is the hybrid score interval,
    method 10 of R. G. Newcombe, Statistics in Medicine 17 (1998), pages 873-890.
    """
    value = new.value - old.value
    low = math.hypot(new.value - new.low, old.high - old.value)
    high = math.hypot(new.high - new.value, old.value - old.low)
    return Interval(value - low, value + high)


def paired_rates(lost: int, gained: int, n: int) -> Interval:
    """The interval of the difference of two rates over the same n > 0 rows, of which `lost` passed before only and
    `gained` pass now only.

    The score interval of T. Tango, Statistics in Medicine 17 (1998), pages 891-908: the differences that McNemar's
    statistic, with the likeliest rates at that difference, would not refuse. It says something even where no row
    changed.
    """
    value = (gained - lost) / n

    def excess(difference: float) -> float:
        """How many standard errors the rows are above this difference."""
        half = (2 * n + lost - gained) * difference - lost - gained
        # The likeliest rate of lost rows, equation 10 with the roles of old and new as here.
        root = math.sqrt(max(0.0, half * half + 8 * n * lost * difference * (1 - difference)))
        rate = max(0.0, (root - half) / (4 * n))
        variance = 2 * rate + difference * (1 - difference)
        distance = n * (value - difference)
        return distance / math.sqrt(n * variance) if variance > 0 else math.copysign(math.inf, distance)

    return Interval(
        _crossing(lambda each: excess(each) > Z, -1.0, value), _crossing(lambda each: excess(each) > -Z, value, 1.0)
    )


def _crossing(is_below: Callable[[float], bool], low: float, high: float) -> float:
    """Where `is_below` turns from true to false, by bisection."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


# --- tests ---


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p-value for rows that changed either way, given that either is as likely.

    Q. McNemar, Psychometrika 12 (1947), with the binomial distribution in place of the normal one.
    """
    return binomial_p(lost, lost + gained)


# --- the smallest detectable effect: two-sided at ALPHA, 80 % power ---


def detectable_rate(n: int, rate: float = 0.5) -> float | None:
    """The smallest difference from `rate`, towards 1/2 and beyond, that two runs of n unrelated rows each would show;
    None where none would.

    J. L. Fleiss, B. Levin, M. C. Paik, Statistical Methods for Rates and Proportions (2003), equation 4.14 without
    continuity correction.
    """
    base = max(rate, 1 - rate)

    def shown(effect: float) -> bool:
        other = base - effect
        middle = base - effect / 2
        noise = Z * math.sqrt(2 * middle * (1 - middle))
        noise += _Z_POWER * math.sqrt(base * (1 - base) + other * (1 - other))
        return n * effect**2 >= noise**2

    return _smallest(shown, base)


def detectable_paired_rate(n: int, changed: float) -> float | None:
    """The smallest difference of two rates that McNemar's test would show over the same n rows, of which the share
    `changed` differ; None where even all of them changing alike would not do.

    R. J. Connor, Biometrics 43 (1987).
    """

    def shown(effect: float) -> bool:
        noise = Z * math.sqrt(changed) + _Z_POWER * math.sqrt(max(0.0, changed - effect**2))
        return effect > 0 and n * effect**2 >= noise**2

    return _smallest(shown, changed)


def _smallest(shown: Callable[[float], bool], most: float) -> float | None:
    """The least effect up to `most` that is shown."""
    return _crossing(lambda effect: not shown(effect), 0.0, most) if shown(most) else None


def detectable_mean(n: int, deviation: float, *, paired: bool = False) -> float | None:
    """The smallest difference of means that n rows would show, by the normal approximation; None without rows.

    `deviation` is that of the values; where `paired`, that of the differences on the same rows.
    """
    return (Z + _Z_POWER) * deviation * math.sqrt((1 if paired else 2) / n) if n > 0 else None
