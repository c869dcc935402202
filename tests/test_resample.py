"""Resampling: against brute force, the same for any order, no more work for a million rows than for their values."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from statistics import fmean

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.stats import resample

differences = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0]), min_size=1, max_size=40)


def bootstrapped(values: list[float]) -> tuple[float, float]:
    """scipy's percentile interval of the mean."""
    found = scipy.stats.bootstrap(
        (np.array(values),), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1), batch=500
    ).confidence_interval
    return float(found.low), float(found.high)


@pytest.mark.parametrize("kind", ["few values", "many values"])
def test_the_interval_is_the_percentile_bootstraps_for_many_rows(kind: str) -> None:
    chance = np.random.default_rng(4)
    values = (
        (chance.integers(-2, 4, 500) if kind == "few values" else chance.exponential(size=500)).astype(float).tolist()
    )
    found = resample.paired_mean(Counter(values))
    assert found.value == pytest.approx(float(np.mean(values)))
    assert found.interval is not None
    error = float(np.std(values)) / math.sqrt(500)
    assert tuple(found.interval) == pytest.approx(bootstrapped(values), abs=0.2 * error)


def test_the_interval_of_few_rows_is_as_wide_as_students() -> None:
    values = [0.4, -0.3, 1.1, 0.9, -0.8, 0.2, 0.7, 1.4]
    found = resample.paired_mean(Counter(values))
    expected = scipy.stats.t.interval(0.95, 7, loc=np.mean(values), scale=scipy.stats.sem(values))
    assert found.interval is not None
    assert found.interval.high - found.interval.low == pytest.approx(expected[1] - expected[0], rel=0.12)


@pytest.mark.parametrize("n", [5, 20, 200])
def test_of_a_normal_mean_the_expanded_percentiles_are_students(n: int) -> None:
    # Resampled means of n values with deviation 1 spread by the square root of (n - 1) / n², too little by (n - 1) / n.
    resampled = scipy.stats.norm.ppf((np.arange(200_000) + 0.5) / 200_000) * math.sqrt(n - 1) / n
    expected = scipy.stats.t.interval(0.95, n - 1, scale=1 / math.sqrt(n))
    assert tuple(resample.expanded_percentiles(resampled, n)) == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(
    "values", [[1.0, 2, 3, 0, 0], [0.1, 0.2, -0.3, 0.4, 0.15, 0.6], [1.0] * 8, [1, 1, 1, -1, 2, 0, 0.5, 1]]
)
def test_p_is_the_share_of_all_signs_that_go_as_far(values: list[float]) -> None:
    found = resample.paired_mean(Counter(values), resamples=20_000).p
    signs = itertools.product((1, -1), repeat=len(values))
    far = [abs(sum(s * v for s, v in zip(each, values, strict=True))) >= abs(sum(values)) - 1e-9 for each in signs]
    assert found == pytest.approx(sum(far) / len(far), abs=0.012)


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 50))
@settings(max_examples=20)
def test_p_of_rows_that_change_by_one_is_mcnemars(lost: int, gained: int, same: int) -> None:
    if lost + gained + same:
        found = resample.paired_mean({-1.0: lost, 1.0: gained, 0.0: same}, resamples=20_000).p
        exact = scipy.stats.binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
        assert found == pytest.approx(exact, abs=0.015)


@given(differences, st.randoms())
@settings(max_examples=25)
def test_the_order_of_the_rows_does_not_matter(values: list[float], chance: object) -> None:
    shuffled = list(values)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    found = resample.paired_mean(Counter(values))
    assert found == resample.paired_mean(Counter(shuffled))
    assert 0 < found.p <= 1
    if len(set(values)) == 1:
        assert found.interval is None
    else:
        assert found.interval is not None and found.interval.low <= found.interval.high


def test_the_mirror_image_has_the_same_p_and_the_seed_is_what_is_said() -> None:
    values = Counter([1.0, 1.0, -0.5, 2.0, 0.0, 0.5, -1.0, 1.5])
    mirrored = Counter({-value: count for value, count in values.items()})
    assert resample.paired_mean(values).p == pytest.approx(resample.paired_mean(mirrored).p, abs=0.05)
    assert resample.paired_mean(values) == resample.paired_mean(values, seed=resample.SEED)
    assert resample.paired_mean(values) != resample.paired_mean(values, seed=1)


def test_one_row_and_rows_that_are_all_the_same() -> None:
    assert resample.paired_mean({2.0: 1}) == (2.0, None, 1.0)
    assert resample.paired_mean({0.0: 500}) == (0.0, None, 1.0)
    moved = resample.paired_mean({0.5: 500})
    assert moved.interval is None and moved.p < 0.001


def test_a_million_rows_of_a_few_values_and_very_many_values() -> None:
    few = resample.paired_mean({-1.0: 300_000, 0.0: 398_000, 1.0: 302_000})
    error = math.sqrt(0.602 / 1e6)
    assert few.interval is not None
    assert tuple(few.interval) == pytest.approx((0.002 - 1.96 * error, 0.002 + 1.96 * error), abs=0.1 * error)
    assert few.p == pytest.approx(2 * scipy.stats.norm.sf(0.002 / error), abs=0.01)
    values = np.random.default_rng(2).exponential(size=100_000) - 1
    many = resample.paired_mean(Counter(values.tolist()))
    error = float(values.std()) / math.sqrt(100_000)
    assert many.interval is not None
    mean = float(values.mean())
    assert tuple(many.interval) == pytest.approx((mean - 1.96 * error, mean + 1.96 * error), abs=0.1 * error)


@pytest.mark.parametrize(("kinds", "each"), [(6, 100), (300, 1), (200_000, 1)])
def test_sums_of_features_stay_together_however_they_are_drawn(kinds: int, each: int) -> None:
    chance = np.random.default_rng(8)
    first = chance.normal(3, 1, kinds)
    features = np.column_stack([np.ones(kinds), first, first**2])
    counts = np.full(kinds, each)
    found = resample.resampled_sums(features, counts, np.random.default_rng(1))
    n = kinds * each
    assert found.shape == (resample.RESAMPLES, 3)
    assert found[:, 0] == pytest.approx(n)
    assert found[:, 1].mean() / n == pytest.approx(first.mean(), rel=0.01)
    assert found[:, 1].std() / math.sqrt(n) == pytest.approx(first.std(), rel=0.1)
    assert np.corrcoef(found[:, 1], found[:, 2])[0, 1] == pytest.approx(np.corrcoef(first, first**2)[0, 1], abs=0.05)


@settings(max_examples=20)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
    st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_a_permutation_test_is_that_of_all_divisions(first: list[int], second: list[int]) -> None:
    everything = first + second
    found = abs(fmean(first) - fmean(second))
    far = total = 0
    for chosen in itertools.combinations(range(len(everything)), len(first)):
        part = [everything[place] for place in chosen]
        rest = [value for place, value in enumerate(everything) if place not in chosen]
        total += 1
        far += abs(fmean(part) - fmean(rest)) >= found - 1e-9
    p = resample.permutation_p([(float(each), 1) for each in first], [(float(each), 1) for each in second])
    assert p == pytest.approx(far / total, abs=0.06)
