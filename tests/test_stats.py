"""Intervals and tests of one sample, held equal to scipy.stats and scikit-learn, or to what defines them."""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from evalops.stats import intervals

proportions = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
samples = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)
matrices = st.integers(2, 4).flatmap(
    lambda size: st.lists(st.lists(st.integers(0, 40), min_size=size, max_size=size), min_size=size, max_size=size)
)


@given(proportions)
def test_wilson_is_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    found = intervals.wilson(successes, n)
    expected = scipy.stats.binomtest(successes, n).proportion_ci(0.95, method="wilson")
    assert found.low == pytest.approx(expected.low, abs=1e-12)
    assert found.high == pytest.approx(expected.high, abs=1e-12)
    assert 0 <= found.low <= successes / n <= found.high <= 1


def test_nothing_seen_is_not_nothing_there() -> None:
    assert intervals.wilson(0, 10).low == 0 and intervals.wilson(0, 10).high > 0.2
    assert intervals.wilson(10, 10).high == 1 and intervals.wilson(10, 10).low < 0.8


@given(samples)
def test_the_interval_of_a_mean_is_scipys(values: list[float]) -> None:
    n, mean = len(values), math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    assume(deviation > 1e-9)
    found = intervals.student(mean, deviation, n)
    expected = scipy.stats.t.interval(0.95, n - 1, loc=mean, scale=deviation / math.sqrt(n))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12, abs=1e-12 * deviation)


@given(proportions)
def test_a_fair_coin_is_scipys(counts: tuple[int, int]) -> None:
    successes, n = counts
    assert intervals.binomial_p(successes, n) == pytest.approx(scipy.stats.binomtest(successes, n).pvalue, rel=1e-9)


def test_no_throws_say_nothing() -> None:
    assert intervals.binomial_p(0, 0) == 1.0


@given(matrices)
def test_kappa_is_scikit_learns(matrix: list[list[int]]) -> None:
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    assume(pairs)
    found = intervals.kappa(matrix)
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
def test_the_standard_error_of_kappa_is_as_published(
    matrix: list[list[int]], value: float, low: float, high: float
) -> None:
    found = intervals.kappa_error(matrix)
    assert found is not None
    kappa, error = found
    assert (kappa, kappa - 1.959964 * error, kappa + 1.959964 * error) == pytest.approx((value, low, high), abs=5e-5)


def test_the_interval_of_kappa_is_that_of_a_bootstrap() -> None:
    matrix = [[180, 40, 10], [30, 150, 25], [5, 20, 140]]
    pairs = [(i, j) for i, row in enumerate(matrix) for j, count in enumerate(row) for _ in range(count)]
    chance, found = random.Random(1), []
    for _ in range(1500):
        counts = [[0] * 3 for _ in range(3)]
        for i, j in chance.choices(pairs, k=len(pairs)):
            counts[i][j] += 1
        resampled = intervals.kappa(counts)
        assert resampled is not None
        found.append(resampled.value)
    found.sort()
    kappa = intervals.kappa(matrix)
    assert kappa is not None
    assert tuple(kappa.interval) == pytest.approx((found[37], found[1462]), abs=0.01)


def test_perfect_agreement_and_none() -> None:
    perfect, opposite = intervals.kappa([[5, 0], [0, 5]]), intervals.kappa([[0, 5], [5, 0]])
    assert perfect is not None and (perfect.value, perfect.interval.high) == (1.0, 1.0)
    assert opposite is not None and (opposite.value, opposite.interval.low) == (-1.0, -1.0)
    assert intervals.kappa([[7]]) is None
    assert perfect.interval.low < 0.9 and opposite.interval.high > -0.9  # ten rows prove little
    assert perfect.interval.low < 0.9 and opposite.interval.high > -0.9  # ten rows prove little


@given(st.integers(4, 500), st.floats(-0.999, 0.999))
def test_the_interval_of_a_correlation_holds_it(n: int, correlation: float) -> None:
    found = intervals.fisher(correlation, n)
    assert found is not None and -1 <= found.low <= correlation <= found.high <= 1


def test_the_interval_of_a_correlation_is_scipys() -> None:
    chance = random.Random(3)
    x = [chance.random() for _ in range(40)]
    y = [each + chance.random() for each in x]
    expected = scipy.stats.pearsonr(x, y)
    found = intervals.fisher(expected.statistic, 40)
    assert found is not None
    assert tuple(found) == pytest.approx(tuple(expected.confidence_interval()), rel=1e-12)
    assert intervals.fisher(0.5, 3) is None and intervals.fisher(1.0, 40) is None


# --- the median ---

numbers = st.integers(-20, 20).map(float)


@given(st.lists(numbers, min_size=1, max_size=60))
def test_the_median_is_numpys(values: list[float]) -> None:
    found = intervals.median(Counter(values))
    assert found.value == np.median(values)
    assert found.n == len(values)
    if len(values) < 6:
        assert found.low is None and found.reason
    else:
        assert found.low is not None and found.high is not None and found.low <= found.value <= found.high


@pytest.mark.parametrize("n", [6, 7, 20, 100, 1001])
def test_the_interval_of_the_median_is_the_narrowest_pair_of_ranks_that_covers(n: int) -> None:
    found = intervals.median({float(rank): 1 for rank in range(1, n + 1)})
    assert found.low is not None and found.high is not None
    rank = int(found.low)
    assert found.high == n + 1 - rank
    coin = scipy.stats.binom(n, 0.5)
    assert coin.cdf(rank - 1) <= 0.025 < coin.cdf(rank)


def test_the_median_of_nothing_of_one_value_and_of_a_million() -> None:
    assert intervals.median({}).reason == "no values"
    assert (intervals.median({3.0: 1}).value, intervals.median({3.0: 1}).low) == (3.0, None)
    same = intervals.median({4.0: 1_000_000})
    assert (same.value, same.low, same.high, same.n) == (4.0, 4.0, 4.0, 1_000_000)
    assert intervals.median({1.0: 1, 1e308: 1, 1.7e308: 2}).value == pytest.approx(1.35e308)


# --- clusters ---

tables = st.lists(st.lists(numbers, min_size=1, max_size=5), min_size=2, max_size=12)


def clusters(table: list[list[float]]) -> list[intervals.Cluster]:
    return [intervals.Cluster(len(values), sum(values)) for values in table]


@given(tables)
def test_rows_in_clusters_of_one_have_students_interval(table: list[list[float]]) -> None:
    values = [value for cluster in table for value in cluster]
    found = intervals.clustered(clusters([[value] for value in values]))
    expected = intervals.student(float(np.mean(values)), float(np.std(values, ddof=1)), len(values))
    assert found is not None and tuple(found) == pytest.approx(tuple(expected), abs=1e-9)


@given(tables)
def test_the_variance_in_clusters_is_the_sum_over_all_pairs_of_rows_within_them(table: list[list[float]]) -> None:
    values = [value for cluster in table for value in cluster]
    mean, n, count = float(np.mean(values)), len(values), len(table)
    pairs = sum((a - mean) * (b - mean) for cluster in table for a in cluster for b in cluster)
    half = scipy.stats.t.ppf(0.975, count - 1) * math.sqrt(max(0.0, pairs) / n**2 * count / (count - 1))
    found = intervals.clustered(clusters(table))
    assert found is not None and tuple(found) == pytest.approx((mean - half, mean + half), abs=1e-6)


def test_rows_that_repeat_each_other_are_no_more_rows() -> None:
    rates = [0, 1, 1, 0, 1, 1, 1, 0, 1, 1] * 3
    once = intervals.clustered_rate([intervals.Cluster(1, rate) for rate in rates])
    often = intervals.clustered_rate([intervals.Cluster(8, 8 * rate) for rate in rates])
    assert once is not None and often is not None
    assert tuple(once) == pytest.approx(tuple(often), abs=0.01)
    plain = intervals.wilson(8 * sum(rates), 8 * len(rates))
    assert often.high - often.low > 2 * (plain.high - plain.low)


@given(st.lists(st.integers(1, 6).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), min_size=2, max_size=40))
def test_a_rate_in_clusters_stays_a_rate_and_is_never_sure(counts: list[tuple[int, int]]) -> None:
    found = intervals.clustered_rate([intervals.Cluster(*each) for each in counts])
    rate = sum(passed for _, passed in counts) / sum(n for n, _ in counts)
    assert found is not None and 0 <= found.low <= rate + 1e-12 and rate - 1e-12 <= found.high <= 1
    assert found.high > found.low


def test_fewer_than_two_clusters_have_no_interval() -> None:
    for few in ([], [intervals.Cluster(9, 4)], [intervals.Cluster(9, 4), intervals.Cluster(0, 0)]):
        assert intervals.clustered(few) is None and intervals.clustered_rate(few) is None
    assert intervals.clustered([intervals.Cluster(3, 6), intervals.Cluster(5, 10)]) == (2.0, 2.0)


# --- Holm ---


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_rejects_what_stepping_down_rejects(p_values: list[float]) -> None:
    adjusted = intervals.holm(p_values)
    for alpha in (0.01, 0.05, 0.2):
        expected, order = set(), sorted(range(len(p_values)), key=lambda place: p_values[place])
        for rank, place in enumerate(order):
            if (len(p_values) - rank) * p_values[place] > alpha:
                break
            expected.add(place)
        assert {place for place, p in enumerate(adjusted) if p <= alpha} == expected


def test_holm_by_hand() -> None:
    assert intervals.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert intervals.holm([]) == [] and intervals.holm([0.4]) == [0.4]


# --- Spearman ---


@given(st.lists(st.tuples(numbers, numbers), min_size=3, max_size=50))
def test_spearman_is_scipys(pairs: list[tuple[float, float]]) -> None:
    x, y = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = intervals.spearman(x, y)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found.value is None and found.reason == "all values on one side are the same"
        return
    assert found.value == pytest.approx(scipy.stats.spearmanr(x, y).statistic, abs=1e-12)
    if found.low is not None and found.high is not None:
        assert -1 <= found.low <= found.value <= found.high <= 1
    else:
        assert found.reason


def test_a_rank_correlation_of_too_few_rows_or_a_perfect_one() -> None:
    assert intervals.spearman([], []).value is None and intervals.spearman([1, 2], [1, 2]).value is None
    perfect = intervals.spearman(list(range(9)), [10**n for n in range(9)])
    assert (perfect.value, perfect.low) == (1.0, None) and perfect.reason
    big = np.arange(1_000_000.0)
    assert intervals.spearman(big, -big).value == -1.0


# --- the corrected rate ---


def test_the_corrected_rate_is_rogan_and_gladens() -> None:
    found = intervals.corrected_rate(60, 100, intervals.Calibration(45, 5, 40, 10))
    assert found.value == pytest.approx((0.6 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert found.low is not None and found.high is not None and found.low < found.value < found.high


@pytest.mark.parametrize(("passed", "n", "table"), [(23, 150, (96, 4, 89, 11)), (300, 500, (17, 3, 40, 10))])
def test_the_interval_of_the_corrected_rate_is_lang_and_reiczigels(
    passed: int, n: int, table: tuple[int, int, int, int]
) -> None:
    # Their steps in their order: adjusted rates, the adjusted prevalence, its standard error, the shift.
    z, (hits, misses, spared, alarms) = 1.959963985, table
    n1, m1, m0 = n + z**2, hits + misses + 2, spared + alarms + 2
    p, se, sp = (passed + z**2 / 2) / n1, (hits + 1) / m1, (spared + 1) / m0
    youden = se + sp - 1
    prevalence = (p + sp - 1) / youden
    spread = p * (1 - p) / n1 + prevalence**2 * se * (1 - se) / m1 + (1 - prevalence) ** 2 * sp * (1 - sp) / m0
    shift = 2 * z**2 * (prevalence * se * (1 - se) / m1 - (1 - prevalence) * sp * (1 - sp) / m0)
    expected = [prevalence + shift + side * z * math.sqrt(spread) / youden for side in (-1, 1)]
    found = intervals.corrected_rate(passed, n, intervals.Calibration(*table))
    assert (found.low, found.high) == pytest.approx([min(1, max(0, each)) for each in expected], abs=1e-9)


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))),
    st.tuples(*[st.integers(0, 60)] * 4),
)
def test_the_corrected_rate_is_a_rate_or_has_a_reason(
    counts: tuple[int, int], table: tuple[int, int, int, int]
) -> None:
    gold = intervals.Calibration(*table)
    found = intervals.corrected_rate(*counts, gold)
    if found.value is None:
        passes, fails = gold.true_pass + gold.false_fail, gold.true_fail + gold.false_pass
        assert found.reason and (
            not passes
            or not fails
            or gold.true_pass / passes + gold.true_fail / fails <= 1
            or (gold.true_pass + 1) / (passes + 2) + (gold.true_fail + 1) / (fails + 2) <= 1
        )
    else:
        assert found.low is not None and found.high is not None
        assert 0 <= found.low <= found.value <= found.high <= 1


def test_a_judge_of_great_and_proven_skill_needs_no_correction() -> None:
    found = intervals.corrected_rate(300, 400, intervals.Calibration(10**7, 0, 10**7, 0))
    plain = intervals.wilson(300, 400)
    assert (found.value, found.low, found.high) == pytest.approx((0.75, *plain), abs=2e-3)


def test_a_smaller_calibration_gives_a_wider_interval() -> None:
    widths = []
    for size in (10, 100, 1000):
        found = intervals.corrected_rate(300, 500, intervals.Calibration(9 * size, size, 8 * size, 2 * size))
        assert found.low is not None and found.high is not None
        widths.append(found.high - found.low)
    assert widths == sorted(widths, reverse=True) and widths[0] > 1.2 * widths[2]


@pytest.mark.parametrize(
    ("passed", "n", "table", "reason"),
    [
        (5, 10, (30, 30, 30, 30), "sensitivity + specificity <= 1"),
        (5, 10, (10, 50, 10, 50), "sensitivity + specificity <= 1"),
        (5, 10, (0, 0, 10, 2), "gold rows that pass and gold rows that fail"),
        (5, 10, (10, 2, 0, 0), "gold rows that pass and gold rows that fail"),
        (0, 0, (10, 2, 10, 2), "no row has a verdict"),
    ],
)
def test_a_rate_is_not_corrected_by_a_judge_that_guesses(
    passed: int, n: int, table: tuple[int, int, int, int], reason: str
) -> None:
    found = intervals.corrected_rate(passed, n, intervals.Calibration(*table))
    assert found.value is None and reason in str(found.reason)


def test_importing_statistics_waits_for_nothing() -> None:
    code = "import sys, evalops.paired\n"
    code += "from evalops.stats import agreement, contrast, intervals, resample, strength\n"
    code += "assert contrast.detectable_rate(100) and intervals.wilson(1, 2)\n"
    code += "print({'numpy', 'scipy', 'choix'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
