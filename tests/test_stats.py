"""Intervals and tests, held equal to scipy.stats and scikit-learn."""

from __future__ import annotations

import math
import random

import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from evalops import stats

proportions = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)
matrices = st.integers(2, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 40), min_size=size, max_size=size), min_size=size, max_size=size)
)


@given(proportions, st.sampled_from([0.9, 0.95, 0.99]))
def test_wilson_is_scipys(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    found = stats.wilson(successes, n, confidence)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= found.low <= successes / n <= found.high <= 1


def test_nothing_seen_is_not_nothing_there() -> None:
    assert stats.wilson(0, 10).low == 0 and stats.wilson(0, 10).high > 0.2
    assert stats.wilson(10, 10).high == 1 and stats.wilson(10, 10).low < 0.8


@given(samples)
def test_the_interval_of_a_mean_is_scipys(values: list[float]) -> None:
    n, mean = len(values), math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    assume(deviation > 1e-9)
    found = stats.student(mean, deviation, n)
    expected = scipy.stats.t.interval(0.95, n - 1, loc=mean, scale=deviation / math.sqrt(n))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12, abs=1e-12 * deviation)


@given(proportions)
def test_a_fair_coin_is_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    assert stats.binomial_p(successes, n) == pytest.approx(scipy.stats.binomtest(successes, n).pvalue, rel=1e-9)


def test_no_throws_say_nothing() -> None:
    assert stats.binomial_p(0, 0) == 1.0


@given(matrices)
def test_kappa_is_scikit_learns(matrix: list[list[int]]) -> None:
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    assume(pairs)
    found = stats.kappa(matrix)
    if len({label for pair in pairs for label in pair}) == 1:
        assert found is None  # scikit-learn gives NaN
        return
    expected = cohen_kappa_score([i for i, _ in pairs], [j for _, j in pairs])
    assert found is not None and found.value == pytest.approx(expected, abs=1e-12)
    assert -1 <= found.interval.low <= found.value <= found.interval.high <= 1


@pytest.mark.parametrize(
    ("matrix", "value", "low", "high"),
    [
        # SAS/STAT user's guide, PROC FREQ: two dermatologists rate the skin of 88 patients
        ([[10, 4, 1, 0], [5, 10, 12, 2], [2, 4, 12, 5], [0, 2, 6, 13]], 0.3449, 0.2030, 0.4868),
        # a printout of PROC FREQ with a category that one rater never used
        ([[0, 4, 1], [0, 8, 0], [0, 1, 5]], 0.4842, 0.2137, 0.7547),
    ],
)
def test_the_interval_of_kappa_is_as_published(matrix: list[list[int]], value: float, low: float, high: float) -> None:
    found = stats.kappa(matrix)
    assert found is not None
    assert (found.value, *found.interval) == pytest.approx((value, low, high), abs=5e-5)


def test_the_interval_of_kappa_is_that_of_a_bootstrap() -> None:
    matrix = [[180, 40, 10], [30, 150, 25], [5, 20, 140]]
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    chance, found = random.Random(1), []
    for _ in range(1500):
        counts = [[0] * 3 for _ in range(3)]
        for i, j in chance.choices(pairs, k=len(pairs)):
            counts[i][j] += 1
        resampled = stats.kappa(counts)
        assert resampled is not None
        found.append(resampled.value)
    found.sort()
    kappa = stats.kappa(matrix)
    assert kappa is not None
    assert tuple(kappa.interval) == pytest.approx((found[37], found[1462]), abs=0.01)


def test_perfect_agreement_and_none() -> None:
    perfect, opposite = stats.kappa([[5, 0], [0, 5]]), stats.kappa([[0, 5], [5, 0]])
    assert perfect is not None and (perfect.value, perfect.interval.high) == (1.0, 1.0)
    assert opposite is not None and (opposite.value, opposite.interval.low) == (-1.0, -1.0)
    assert stats.kappa([[7]]) is None


@given(st.integers(4, 500), st.floats(-0.999, 0.999))
def test_the_interval_of_a_correlation_holds_it(n: int, correlation: float) -> None:
    found = stats.fisher(correlation, n)
    assert found is not None and -1 <= found.low <= correlation <= found.high <= 1


def test_the_interval_of_a_correlation_is_scipys() -> None:
    chance = random.Random(3)
    x = [chance.random() for _ in range(40)]
    y = [each + chance.random() for each in x]
    expected = scipy.stats.pearsonr(x, y)
    found = stats.fisher(expected.statistic, 40)
    assert found is not None
    assert tuple(found) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-12)
    assert stats.fisher(0.5, 3) is None and stats.fisher(1.0, 40) is None
