"""Confusion-count metrics, held equal to scikit-learn; their intervals, and what stands where nothing can be divided."""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import (
    accuracy_score,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)

from evalops.metrics.classification import NAMES, NONE, OTHER, UNASKED, UNSAID, Cell, Classification
from evalops.stats import intervals

LABELS = ("a", "b", "c", "d")
SKLEARN: dict[str, Any] = {"precision": precision_score, "recall": recall_score, "f1": f1_score}

golds = st.sampled_from([0, 1, 2, 3, OTHER])
saids = st.sampled_from([0, 1, 2, 3, NONE])
pairs = st.lists(st.tuples(golds, saids), min_size=1, max_size=60)


def of(pairs: Sequence[tuple[int, int]], clusters: Sequence[str] | None = None) -> Classification:
    names = clusters or [None] * len(pairs)
    return Classification(LABELS, Counter(Cell(name, *pair) for name, pair in zip(names, pairs, strict=True)))


def named(place: int) -> str:
    return {NONE: "(invalid)", OTHER: "(other)"}.get(place) or LABELS[place]


@pytest.mark.slow
@given(pairs)
def test_everything_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    found = of(pairs)
    metrics, by_label = found.metrics(), found.by_label()
    gold, said = ([named(pair[side]) for pair in pairs] for side in (0, 1))
    present = [label for label in LABELS if label in gold or label in said]
    value = {name: metric.value for name, metric in metrics.items()}
    assert set(metrics) == set(NAMES)
    assert value["accuracy"] == pytest.approx(accuracy_score(gold, said), abs=1e-12)
    assert list(by_label) == present
    parts = precision_recall_fscore_support(gold, said, labels=present, zero_division=0) if present else ()
    for name, expected in zip(("precision", "recall", "f1", "support"), parts, strict=False):
        for label, each in zip(present, expected, strict=True):
            ours = getattr(by_label[label], name)
            assert (ours if name == "support" else ours.value) == pytest.approx(each, abs=1e-12)
    for name, scorer in SKLEARN.items():
        for kind in ("macro", "weighted", "micro"):
            if not present or (kind == "weighted" and not set(gold) & set(LABELS)):
                continue
            if kind == "micro" and name != "f1":
                continue
            expected = scorer(gold, said, labels=present, average=kind, zero_division=0)
            if kind == "micro" and set(gold) - set(LABELS):
                continue  # scikit-learn leaves out the rows of a gold label that it is not told of
            assert value[f"{kind}_{name}"] == pytest.approx(expected, abs=1e-12), (kind, name)
    if len(set(gold) | set(said)) > 1:
        assert value["kappa"] == pytest.approx(cohen_kappa_score(gold, said), abs=1e-12)
    matrix = found.confusion()
    assert matrix.rows == tuple(map(tuple, confusion_matrix(gold, said, labels=list(matrix.labels)).tolist()))


@given(pairs, st.lists(st.sampled_from("xyz"), min_size=60, max_size=60))
def test_every_value_lies_in_its_interval(pairs: list[tuple[int, int]], clusters: list[str]) -> None:
    for names in (None, clusters[: len(pairs)]):
        found = of(pairs, names)
        parts = [getattr(each, name) for each in found.by_label().values() for name in ("precision", "recall", "f1")]
        for metric in [*found.metrics().values(), *parts]:
            if metric.value is None or metric.low is None:
                assert metric.reason
                continue
            assert metric.low - 1e-9 <= metric.value <= metric.high + 1e-9
            assert -1 <= metric.low <= metric.high <= 1


def test_a_label_that_no_verdict_names_counts_as_0_and_says_so() -> None:
    found = of([(0, 0), (1, 0), (0, 0), (1, 0)])
    unsaid = found.by_label()["b"]
    assert (unsaid.precision.value, unsaid.precision.reason) == (0.0, UNSAID)
    assert (unsaid.recall.value, unsaid.f1.value) == (0.0, 0.0) and unsaid.f1.high > 0.5
    assert found.metrics()["macro_precision"].reason == "no verdict names `b`, so 0"
    assert found.metrics()["macro_recall"].reason is None
    assert of([(0, 1), (0, 0)]).by_label()["b"].recall.reason == UNASKED
    assert "c" not in found.by_label()


def test_missing_verdicts_are_wrong_and_no_label() -> None:
    metrics = of([(0, 0), (0, NONE), (1, 1), (1, NONE)]).metrics()
    assert metrics["accuracy"].value == 0.5 and metrics["accuracy_scored"].value == 1
    assert metrics["kappa_scored"].value == 1 and metrics["kappa"].value == pytest.approx(1 / 3)
    assert metrics["micro_precision"].value == 1 and metrics["micro_f1"].value == pytest.approx(2 / 3)
    assert metrics["macro_recall"].value == 0.5


def test_a_gold_value_that_is_no_label_agrees_with_no_missing_verdict() -> None:
    metrics = of([(OTHER, NONE), (OTHER, NONE), (0, 0)]).metrics()
    assert metrics["accuracy"].value == pytest.approx(1 / 3)
    assert metrics["kappa"].value < 1
    assert of([(OTHER, NONE)] * 2).metrics()["macro_f1"].value is None


def test_a_perfect_judge_of_few_rows_is_not_proven_perfect() -> None:
    few, many = (of([(0, 0), (1, 1)] * n).metrics() for n in (3, 300))
    for name in NAMES:
        assert few[name].value == many[name].value == 1
        assert few[name].low < 0.7 < 0.98 < many[name].low, name


def test_one_label_only_has_no_kappa() -> None:
    metrics = of([(0, 0)] * 5).metrics()
    assert metrics["kappa"].value is None and "one label" in str(metrics["kappa"].reason)
    assert metrics["macro_f1"].value == 1


def test_nothing_right_at_all() -> None:
    metrics = of([(0, 1), (1, 0)] * 5).metrics()
    assert metrics["macro_f1"].value == 0 and metrics["macro_f1"].low == 0 < metrics["macro_f1"].high < 0.5
    assert metrics["kappa"].value == -1


def test_many_labels_have_no_matrix() -> None:
    labels = [str(number) for number in range(40)]
    found = Classification(labels, {Cell(None, 0, 1): 2})
    assert found.confusion().reason == "more than 30 labels" and found.confusion().rows == ()
    assert set(found.by_label()) == {"0", "1"}


def test_kappa_keeps_the_large_sample_interval() -> None:
    counts = {(0, 0): 20, (0, 1): 5, (1, 0): 10, (1, 1): 15}
    metric = Classification(LABELS, {Cell(None, *pair): n for pair, n in counts.items()}).metrics()["kappa"]
    expected = intervals.kappa([[20, 5], [10, 15]])
    assert expected is not None and (metric.low, metric.high) == expected.interval


def test_rows_of_one_cluster_count_as_what_they_are() -> None:
    """Each row ten times over is no more evidence than each row once."""
    single = [(0, 0), (1, 1), (0, 1), (1, 1), (1, 0), (0, 0), (0, 0), (1, 1)] * 5
    copies = [pair for pair in single for _ in range(10)]
    names = [str(number // 10) for number in range(len(copies))]
    once, plain, clustered = (each.metrics() for each in (of(single), of(copies), of(copies, names)))
    for name in NAMES:
        width, naive, robust = (each[name].high - each[name].low for each in (once, plain, clustered))
        assert robust == pytest.approx(width, rel=0.1), name
        assert naive < 0.5 * robust
        assert clustered[name].clusters == 40 and plain[name].clusters is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["macro_f1", "weighted_f1", "micro_f1", "macro_precision", "macro_recall"])
def test_the_intervals_of_averages_cover_the_truth(name: str) -> None:
    chance = random.Random(7)
    table = {
        (0, 0): 0.45,
        (0, 1): 0.05,
        (0, NONE): 0.02,
        (1, 0): 0.08,
        (1, 1): 0.22,
        (1, 2): 0.04,
        (2, 2): 0.1,
        (2, 0): 0.04,
    }
    truth = Classification(LABELS, {Cell(None, *pair): round(share * 10_000) for pair, share in table.items()})
    value = truth.metrics()[name].value
    drawn = (of(chance.choices(list(table), list(table.values()), k=300)).metrics()[name] for _ in range(1000))
    assert 0.93 <= sum(each.low <= value <= each.high for each in drawn) / 1000 <= 0.97


def test_no_warning_of_a_library_comes_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for rows in ([(0, 0)], [(0, NONE)], [(OTHER, 0)], [(0, 0)] * 1000, [(1, 0)]):
            of(rows).metrics()
