"""Rates, means and correlations gathered row by row, beside what the libraries say of all rows at once."""

from __future__ import annotations

import math
import statistics

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from evalops.metrics.measure import (
    ALIKE,
    ONE_CLUSTER,
    TOO_LARGE,
    Correlation,
    Moments,
    Rate,
    number,
    plain_rows,
    scaled,
)
from evalops.result import Metric

values = st.floats(-1e6, 1e6)


@given(st.lists(st.tuples(values, st.integers(1, 5)), min_size=1, max_size=30))
def test_equal_rows_can_be_counted_together(found: list[tuple[float, int]]) -> None:
    together, apart = Moments(), Moments()
    for value, n in found:
        together.add(value, None, n)
        for _ in range(n):
            apart.add(value)
    rows = [value for value, n in found for _ in range(n)]
    scale = 1 + max(map(abs, rows))
    assert together.n == apart.n == len(rows)
    assert together.mean == pytest.approx(statistics.fmean(rows), abs=1e-9 * scale)
    if len(rows) > 1:
        assert together.deviation == pytest.approx(statistics.stdev(rows), abs=1e-6 * scale)
        assert apart.deviation == pytest.approx(together.deviation, abs=1e-6 * scale)


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(-100, 100)), min_size=4, max_size=30))
def test_a_correlation_is_scipys(pairs: list[tuple[float, float]]) -> None:
    found = Correlation()
    for pair in pairs:
        found.add(*pair)
    first, second = zip(*pairs, strict=True)
    metric = found.metric("few", "same")
    if min(statistics.pstdev(first), statistics.pstdev(second)) > 1e-3:
        assert metric.value == pytest.approx(scipy.stats.pearsonr(first, second).statistic, abs=1e-6)
    if len(set(first)) == 1:
        assert metric.reason == "same"


def test_few_rows_have_no_correlation() -> None:
    found = Correlation()
    found.add(1, 2)
    assert found.metric("few", "same") == Metric.absent("few")
    found.add(2, 4)
    found.add(3, 6)
    assert found.metric("few", "same").value == pytest.approx(1) and found.metric("few", "same").reason


def test_a_cut_mean_never_leaves_its_scale() -> None:
    moments = Moments()
    for value in (4.9, 5.0, 5.0):
        moments.add(value)
    metric = moments.metric("none", 1, 5)
    assert metric.high == 5 and metric.low is not None and metric.low < 4.9


def test_values_without_spread_leave_room_that_shrinks_with_their_number() -> None:
    for n in (2, 20, 2000):
        moments = Moments()
        moments.add(3.0, None, n)
        metric = moments.metric("none", 1, 5)
        assert metric.reason == ALIKE and metric.low is not None and metric.high is not None
        expected = scipy.stats.binomtest(n // 2, n).proportion_ci(method="wilson")
        assert (metric.low, metric.high) == pytest.approx((1 + 4 * expected.low, 1 + 4 * expected.high))
    # Without a scale there is nothing to say how far apart they could be.
    assert moments.metric("none").low == moments.metric("none").high == 3


def test_clusters_without_spread_count_as_so_many_rows() -> None:
    moments = Moments()
    for cluster in "abcd":
        moments.add(5.0, cluster, 100)
    metric = moments.metric("none", 1, 5)
    assert metric.clusters == 4 and metric.low == pytest.approx(
        1 + 4 * scipy.stats.binomtest(4, 4).proportion_ci(method="wilson").low
    )


def test_one_cluster_has_no_interval() -> None:
    rate, moments = Rate(), Moments()
    for value in (0, 1, 1):
        rate.add(value, "a")
        moments.add(value, "a")
    for metric in (rate.metric("none"), moments.metric("none")):
        assert metric.value == pytest.approx(2 / 3) and metric.low is None and metric.reason == ONE_CLUSTER


def test_what_no_float_can_hold() -> None:
    moments, correlation = Moments(), Correlation()
    for value in (1e308, -1e308, 1e308):
        moments.add(value, "ab"[value > 0])
        correlation.add(value, value)
    assert moments.metric("none").reason == moments.spread("few").reason == TOO_LARGE
    assert correlation.metric("few", "same").reason == TOO_LARGE


def test_another_unit_and_what_clusters_do_not_change() -> None:
    metric = Metric(value=2.0, low=1.0, high=3.0, n=9)
    assert scaled(metric, 0.25, -0.25) == Metric(value=0.25, low=0.0, high=0.5, n=9)
    assert scaled(Metric.absent("no"), 2) == Metric.absent("no")
    found = plain_rows({"a": metric, "b": Metric.absent("no")}.items())
    assert found["a"].reason and found["b"].reason == "no"


@pytest.mark.parametrize("cell", [True, False, None, "", "great", "nan", "1e999", 10**400, [4], math.inf])
def test_what_is_no_gold_score(cell: object) -> None:
    assert number(cell) is None
    assert number("3.5") == 3.5
