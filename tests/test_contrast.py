"""Two samples: held equal to scipy.stats, to published examples, or to what defines them."""

from __future__ import annotations

import math
import statistics
from statistics import fmean

import pytest
import scipy.optimize
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st

from evalops.stats import contrast, intervals

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
changes = st.integers(1, 300).flatmap(
    lambda n: st.integers(0, n).flatmap(lambda lost: st.tuples(st.just(lost), st.integers(0, n - lost), st.just(n)))
)


def rate_difference(passed: int, n: int, passed_before: int, n_before: int) -> intervals.Interval:
    """Of two Wilson intervals: Newcombe's hybrid score interval."""
    new, old = intervals.wilson(passed, n), intervals.wilson(passed_before, n_before)
    return contrast.difference(contrast.Estimate(passed / n, *new), contrast.Estimate(passed_before / n_before, *old))


@pytest.mark.parametrize(
    ("new", "old", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), pages 873-890, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 10), 0.6075, 1.0000),
    ],
)
def test_the_difference_of_two_rates_is_as_published(
    new: tuple[int, int], old: tuple[int, int], low: float, high: float
) -> None:
    assert tuple(rate_difference(*new, *old)) == pytest.approx((low, high), abs=1e-4)


@given(counts, counts)
def test_the_difference_of_two_rates_is_one_and_turns_round(new: tuple[int, int], old: tuple[int, int]) -> None:
    found, turned = rate_difference(*new, *old), rate_difference(*old, *new)
    value = new[0] / new[1] - old[0] / old[1]
    assert -1 <= found.low <= value <= found.high <= 1
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-12)


def test_joining_two_t_intervals_is_close_to_welch() -> None:
    new, old = spread(3.4, 1.1, 200), spread(3.1, 0.8, 150)
    joined = contrast.difference(
        *(
            contrast.Estimate(fmean(each), *intervals.student(fmean(each), statistics.stdev(each), len(each)))
            for each in (new, old)
        )
    )
    expected = scipy.stats.ttest_ind(new, old, equal_var=False).confidence_interval()
    assert tuple(joined) == pytest.approx((expected.low, expected.high), abs=0.002)


def spread(mean: float, deviation: float, n: int) -> list[float]:
    """Half of the values as far below the mean as the others are above it."""
    half = deviation * math.sqrt((n - 1) / n)
    return [mean - half, mean + half] * (n // 2)


# --- the same rows twice ---


def score_statistic(lost: int, gained: int, n: int, difference: float) -> float:
    """McNemar's statistic at a difference, the other rates being the likeliest ones, found by search."""

    def unlikely(rate: float) -> float:
        cells = (lost, rate), (gained, rate + difference), (n - lost - gained, 1 - 2 * rate - difference)
        return -sum(count * math.log(max(chance, 1e-300)) for count, chance in cells)

    low, high = max(0.0, -difference), (1 - difference) / 2
    found = scipy.optimize.minimize_scalar(unlikely, bounds=(low, high), method="bounded", options={"xatol": 1e-12})
    rate = min((low, float(found.x), high), key=unlikely)
    variance = (2 * rate + difference - difference**2) / n
    return ((gained - lost) / n - difference) / math.sqrt(variance)


@pytest.mark.parametrize(
    ("lost", "gained", "n"), [(12, 2, 50), (40, 20, 160), (3, 9, 100), (1, 0, 44), (86, 150, 1600)]
)
def test_the_ends_of_a_paired_difference_are_those_that_the_score_test_would_just_accept(
    lost: int, gained: int, n: int
) -> None:
    found = contrast.paired_rates(lost, gained, n)
    assert score_statistic(lost, gained, n, found.low) == pytest.approx(1.959964, abs=1e-3)
    assert score_statistic(lost, gained, n, found.high) == pytest.approx(-1.959964, abs=1e-3)


@given(changes)
def test_a_paired_difference_lies_in_its_interval_and_turns_round(change: tuple[int, int, int]) -> None:
    lost, gained, n = change
    found, turned = contrast.paired_rates(lost, gained, n), contrast.paired_rates(gained, lost, n)
    assert -1 <= found.low <= (gained - lost) / n <= found.high <= 1
    assert found.low < found.high
    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low), abs=1e-9)


def test_rows_of_which_none_changed_do_not_prove_that_none_would() -> None:
    found = contrast.paired_rates(0, 0, 100)
    # The score interval of a rate of which nothing was seen, either way.
    assert (found.low, found.high) == pytest.approx((-0.0370, 0.0370), abs=1e-4)
    assert contrast.paired_rates(0, 0, 1_000_000).high < 1e-5
    assert contrast.paired_rates(0, 7, 7).high == pytest.approx(1.0)


@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_exact_test_of_the_rows_that_changed(lost: int, gained: int) -> None:
    expected = scipy.stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert contrast.mcnemar(lost, gained) == pytest.approx(expected, rel=1e-9)


# --- the smallest detectable effect ---


def power_of_two_rates(n: int, old: float, new: float) -> float:
    middle = (old + new) / 2
    noise = 1.959964 * math.sqrt(2 * middle * (1 - middle))
    return float(
        scipy.stats.norm.cdf((math.sqrt(n) * abs(old - new) - noise) / math.sqrt(old * (1 - old) + new * (1 - new)))
    )


@given(st.integers(20, 100_000), st.floats(0.05, 0.95))
def test_the_smallest_detectable_difference_has_a_power_of_80_percent(n: int, rate: float) -> None:
    found = contrast.detectable_rate(n, rate)
    assume(found is not None)
    assert found is not None
    new = rate - found if rate >= 0.5 else rate + found
    assert power_of_two_rates(n, rate, new) == pytest.approx(0.8, abs=1e-3)


@given(st.integers(1, 100_000), st.floats(0.01, 1))
def test_the_smallest_paired_difference_is_as_connor_has_it(n: int, changed: float) -> None:
    found = contrast.detectable_paired_rate(n, changed)
    if found is None:
        assert n * changed < 10
        return
    needed = (1.959964 * math.sqrt(changed) + 0.841621 * math.sqrt(max(0, changed - found**2))) ** 2 / found**2
    assert needed == pytest.approx(n, rel=1e-4)


def test_too_few_rows_detect_nothing() -> None:
    assert contrast.detectable_rate(0) is None and contrast.detectable_rate(1) is None
    assert contrast.detectable_paired_rate(0, 0.2) is None and contrast.detectable_paired_rate(100, 0.0) is None
    assert contrast.detectable_mean(0, 1.0) is None
    assert contrast.detectable_mean(100, 0.0) == 0.0


def test_known_sizes() -> None:
    # As in tables of sample sizes: 388 rows a side for 0.5 against 0.6, 63 for half a standard deviation, 32 if paired.
    assert contrast.detectable_rate(388, 0.5) == pytest.approx(0.1, abs=1e-3)
    assert contrast.detectable_mean(63, 2.0) == pytest.approx(1.0, abs=2e-3)
    assert contrast.detectable_mean(32, 2.0, paired=True) == pytest.approx(1.0, abs=1e-2)
