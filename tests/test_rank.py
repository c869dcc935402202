"""Ranks that ties share, their intervals, and tests against the leader."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from statistics import fmean

import pytest
from evaluations import evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops import rank, standing
from evalops.metrics import summaries
from evalops.result import Graded, Metric, Verdict, VerdictStatus
from evalops.spec import Evaluation
from evalops.standing import Candidate, Points


def candidate(name: str, values: Sequence[float | None], *, rate: bool = False, scale: float = 1.0) -> Candidate:
    """One with these values by row; None is a row without a verdict."""
    points = {str(place): Points(value, 1) for place, value in enumerate(values) if value is not None}
    known = [value for value in values if value is not None]
    metric = Metric(value=scale * fmean(known), n=len(known)) if known else Metric.absent("no row has a verdict")
    return Candidate(name=name, metric=metric, points=points or None)


def coins(seed: int, rate: float, n: int = 60) -> list[float]:
    chance = random.Random(seed)
    return [float(chance.random() < rate) for _ in range(n)]


# --- ranks ---


@given(st.lists(st.sampled_from([0.0, 0.5, 1 / 3, 1.0, 2.5]), min_size=1, max_size=8), st.booleans())
def test_ranks_are_those_of_a_competition(values: list[float], lower: bool) -> None:
    ranks = rank.competition(values, lower_is_better=lower)
    in_order = sorted(values, reverse=not lower)
    assert ranks == [in_order.index(value) + 1 for value in values]


def test_ties_leave_out_the_ranks_after_them() -> None:
    assert rank.competition([80.0, 90.0, 80.0, 70.0]) == [2, 1, 2, 4]


def test_a_difference_of_rounding_is_a_tie() -> None:
    assert rank.competition([0.1 + 0.2, 0.3]) == [1, 1]
    assert rank.competition([0.3, 0.30000001]) == [2, 1]


@settings(max_examples=8)
@given(st.permutations(range(5)), st.booleans())
def test_the_order_of_the_candidates_changes_nothing(order: list[int], paired: bool) -> None:
    found = [candidate(f"c{number}", coins(number, 0.3 + 0.1 * (number // 2), 30)) for number in range(5)]
    expected = rank.order(found, metric="mean_score", is_paired=paired)
    assert rank.order([found[place] for place in order], metric="mean_score", is_paired=paired) == expected


def test_what_has_no_value_stands_last_with_its_reason() -> None:
    gone = Candidate(name="a", metric=Metric.absent("its job is failed: no such model"))
    found = rank.order([gone, candidate("b", [1.0, 0.0]), candidate("c", [1.0, 1.0])], metric="mean_score")
    assert [(each.name, each.rank) for each in found] == [("c", 1), ("b", 2), ("a", None)]
    assert found[-1].reason == "its job is failed: no such model"
    assert found[-1].p is None


def test_all_without_a_value_and_no_candidate_at_all() -> None:
    gone = Candidate(name="a", metric=Metric.absent("it has not been applied"))
    assert [each.rank for each in rank.order([gone], metric="mean_score")] == [None]
    assert rank.order([], metric="mean_score") == ()


def test_less_is_better_for_errors() -> None:
    found = rank.order([candidate("far", [2.0, 3.0]), candidate("near", [0.5, 0.0])], metric="mae")
    assert [each.name for each in found] == ["near", "far"]


# --- intervals of ranks ---


def test_a_clear_order_is_certain_and_a_close_one_is_not() -> None:
    worse, close, best = coins(1, 0.1), coins(2, 0.85), coins(3, 0.9)
    found = rank.order([candidate("a", worse), candidate("b", close), candidate("c", best)], metric="mean_score")
    spans = {each.name: (each.rank_low, each.rank_high) for each in found}
    assert spans["a"] == (3, 3)
    assert spans["b"] == spans["c"] == (1, 2)


def test_candidates_that_are_the_same_tie_in_every_resample() -> None:
    values = coins(4, 0.5)
    found = rank.order([candidate("a", values), candidate("b", values), candidate("c", values)], metric="mean_score")
    assert {(each.rank, each.rank_low, each.rank_high) for each in found} == {(1, 1, 1)}
    assert [each.p for each in found] == [None, 1.0, 1.0]


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=3, max_size=3), min_size=2, max_size=30))
def test_a_rank_lies_in_its_interval(rows: list[list[float]]) -> None:
    found = rank.order([candidate(f"c{i}", [row[i] for row in rows]) for i in range(3)], metric="mean_score")
    for each in found:
        assert each.rank is not None and each.rank_low is not None and each.rank_high is not None
        assert 1 <= each.rank_low <= each.rank <= each.rank_high <= 3


@settings(max_examples=30)
@given(st.lists(st.lists(st.integers(0, 3).map(float), min_size=3, max_size=3), min_size=1, max_size=60))
def test_intervals_of_ranks_by_counting(lines: list[list[float]]) -> None:
    import numpy as np

    found = rank.spans(np.array(lines), [2, 2, 2])
    for place, (low, high) in enumerate(found):
        ranks = sorted(1 + sum(other > line[place] for other in line) for line in lines)
        assert low == min(2, ranks[math.ceil(0.025 * len(ranks)) - 1])
        assert high == max(2, ranks[math.ceil(0.975 * len(ranks)) - 1])


def test_rows_of_one_cluster_are_drawn_together() -> None:
    """Every row ten times over, in clusters of ten, says no more than it does once."""
    first, second = coins(5, 0.6, 40), coins(6, 0.7, 40)
    once = rank.order([candidate("a", first), candidate("b", second)], metric="mean_score")
    often = [
        candidate(name, [value for value in values for _ in range(10)])
        for name, values in (("a", first), ("b", second))
    ]
    blocks = {str(place): str(place // 10) for place in range(400)}
    clustered, plain = (rank.order(often, metric="mean_score", blocks=each) for each in (blocks, {}))
    assert [(each.rank_low, each.rank_high) for each in clustered] == [(each.rank_low, each.rank_high) for each in once]
    assert clustered[1].p == pytest.approx(once[1].p, abs=0.05)
    assert plain[1].p is not None and clustered[1].p is not None and plain[1].p < clustered[1].p
    assert clustered[1].difference is not None and once[1].difference is not None
    assert clustered[1].difference.value == pytest.approx(once[1].difference.value)


def test_one_row_or_one_cluster_says_nothing_of_another() -> None:
    one = rank.order([candidate("a", [1.0]), candidate("b", [0.0])], metric="mean_score")
    rows = [candidate("a", coins(1, 0.9)), candidate("b", coins(2, 0.2))]
    clustered = rank.order(rows, metric="mean_score", blocks={str(place): "all" for place in range(60)})
    for found in (one, clustered):
        assert [(each.rank, each.rank_low) for each in found] == [(1, None), (2, None)]
        assert found[1].p == 1.0
    assert clustered[1].difference is not None and clustered[1].difference.low is None


# --- tests against the leader ---


def test_rates_are_tested_by_mcnemar() -> None:
    best, other = [1.0] * 9 + [0.0] * 3, [0.0] * 7 + [1.0] * 3 + [0.0] * 2
    found = rank.order([candidate("a", other, scale=100), candidate("b", best, scale=100)], metric="pass_percentage")
    assert found[1].test == "McNemar"
    assert found[1].p == pytest.approx(2 * (1 + 8) / 2**8)  # 7 lost, 1 gained
    assert found[1].difference is not None
    assert found[1].difference.value == pytest.approx(-100 * 6 / 12)
    assert found[1].difference.low is not None and found[1].difference.low < -50 < (found[1].difference.high or 0)


def test_scores_are_tested_on_the_rows_that_both_have() -> None:
    best, other = [5.0, 4.0, 5.0, None, 4.0], [4.0, 4.0, None, 1.0, 3.0]
    found = rank.order([candidate("a", best), candidate("b", other)], metric="mean_score")
    assert found[1].test == "paired resampling"
    assert found[1].difference is not None
    assert (found[1].difference.value, found[1].difference.n) == (pytest.approx(-2 / 3), 3)


def test_p_values_are_adjusted_for_their_number() -> None:
    found = rank.order([candidate(f"c{i}", coins(i, 0.2 + 0.1 * i)) for i in range(5)], metric="mean_score")
    tested = sorted((each.p, each.p_adjusted) for each in found if each.p is not None and each.p_adjusted is not None)
    assert len(tested) == 4
    assert tested[0][1] == pytest.approx(min(1.0, 4 * tested[0][0]))
    assert all(adjusted >= p for p, adjusted in tested)


def test_without_rows_there_is_a_rank_and_no_more() -> None:
    other = Candidate(name="b", metric=Metric(value=0.1, n=50))
    found = rank.order([candidate("a", coins(1, 0.5)), other], metric="mean_score")
    assert [each.rank for each in found] == [1, 2]
    assert (found[1].rank_low, found[1].p, found[1].reason) == (None, None, "its rows are not here")


def test_a_metric_that_rows_say_nothing_of_has_no_intervals_of_ranks() -> None:
    found = rank.order([Candidate(name=name, metric=Metric(value=2.0, n=50)) for name in "ab"], metric="median_score")
    assert [each.reason for each in found] == [None, "rank intervals are not known for this metric"]


def test_different_rows_are_tested_by_permutation() -> None:
    found = rank.order(
        [
            Candidate(
                name="a",
                metric=Metric(value=0.9, low=0.8, high=0.95, n=60),
                points=candidate("a", coins(1, 0.9)).points,
            ),
            Candidate(
                name="b", metric=Metric(value=0.4, low=0.3, high=0.5, n=60), points=candidate("b", coins(2, 0.4)).points
            ),
        ],
        metric="accuracy",
        is_paired=False,
    )
    assert found[1].test == "permutation"
    assert found[1].p is not None and found[1].p < 0.01
    difference = found[1].difference
    assert difference is not None and difference.low is not None and difference.high is not None
    assert difference.low < -0.5 < difference.high < 0


# --- what a row gives ---


VERDICTS = st.one_of(st.none(), st.sampled_from(["polite", "rude"]))
GOLDS = st.sampled_from([None, "", "polite", "rude"])


@settings(max_examples=30)
@given(st.lists(st.tuples(VERDICTS, GOLDS), min_size=1, max_size=20))
def test_points_of_labels_add_up_to_the_metrics(rows: list[tuple[str | None, str | None]]) -> None:
    classify = evaluation(pass_labels=["polite"], gold="truth")
    graded = [Graded(verdict(value), gold) for value, gold in rows]
    check(classify, graded, ("pass_percentage", "accuracy", "accuracy_scored", "invalid_rate", "error_rate"))


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.sampled_from([None, "true", "false", "1"]), st.sampled_from([None, "", True, False, 1, "true"])),
        min_size=1,
        max_size=20,
    )
)
def test_points_of_labels_that_are_no_text_in_the_dataset_add_up_too(rows: list[tuple[str | None, object]]) -> None:
    classify = evaluation(labels=["true", "false", "1"], pass_labels=["true"], gold="truth")
    graded = [Graded(verdict(value), gold) for value, gold in rows]  # type: ignore[arg-type]
    check(classify, graded, ("accuracy", "accuracy_scored"))


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.floats(1, 5)), st.sampled_from([None, "", "3", 4.5, "none"])),
        min_size=1,
        max_size=20,
    )
)
def test_points_of_scores_add_up_to_the_metrics(rows: list[tuple[float | None, object]]) -> None:
    score = evaluation(type="score", pass_threshold=3, gold="truth")
    graded = [Graded(verdict(value), gold) for value, gold in rows]  # type: ignore[arg-type]
    check(score, graded, ("mean_score", "pass_percentage", "mae", "invalid_rate"))


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])), st.sampled_from([None, "", "1", 1, "x"])),
        min_size=1,
        max_size=20,
    ),
    st.sampled_from([None, 0.5]),
)
def test_points_of_custom_add_up_to_the_metrics(
    rows: list[tuple[float | None, object]], threshold: float | None
) -> None:
    custom = evaluation(
        type="custom", evaluator="numeric", model_to_evaluate="said", gold="truth", pass_threshold=threshold
    )
    graded = [Graded(verdict(value), gold) for value, gold in rows]  # type: ignore[arg-type]
    check(custom, graded, ("mean_score", "pass_percentage", "accuracy", "invalid_rate", "error_rate"))


def verdict(value: str | float | None) -> Verdict:
    if value is None:
        return Verdict("k", VerdictStatus.INVALID, None, "unparsable")
    return Verdict("k", VerdictStatus.SCORED, value)


def check(what: Evaluation, graded: Sequence[Graded], names: Sequence[str]) -> None:
    summary: Mapping[str, Metric] = summaries.summarise(what, graded).metrics
    for name in names:
        points = [each for each in (standing.points_of(what, name, row) for row in graded) if each is not None]
        if not points:
            assert summary[name].value is None, name
            continue
        mean = standing.scale_of(name) * sum(each.total for each in points) / sum(each.n for each in points)
        assert summary[name].value == pytest.approx(mean), name


def test_a_metric_that_is_no_mean_has_no_points() -> None:
    with pytest.raises(KeyError):
        standing.points_of(evaluation(gold="truth"), "kappa", Graded(verdict("polite"), "polite"))


# --- warnings ---


def test_few_rows_and_different_rows_are_warned_of() -> None:
    few = [candidate("a", [1.0, None, 1.0]), candidate("b", [1.0, 0.0, None])]
    found = rank.warnings(rank.order(few, metric="mean_score"), few)
    assert [each.split(":")[0].split(" (")[0] for each in found] == [
        "2 rows are few for a ranking",
        "the candidates do not have a verdict on the same rows",
    ]
    many = [candidate("a", coins(1, 0.5)), candidate("b", coins(2, 0.5))]
    assert rank.warnings(rank.order(many, metric="mean_score"), many) == []
    blocks = {str(place): str(place % 3) for place in range(60)}
    assert rank.warnings(rank.order(many, metric="mean_score", blocks=blocks), many, blocks) == [rank.few(3, "cluster")]


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("mean_score", ["`a` has no verdict on 30 of 40 rows: its value is over the others only"]),
        ("accuracy", ["`a` has no verdict on 30 of 40 rows: they count as wrong"]),
        ("macro_f1", ["`a` has no verdict on 30 of 40 rows: they count as wrong"]),
        ("precision[f1]", ["`a` has no verdict on 30 of 40 rows: its value is over the others only"]),
        ("invalid_rate", []),
    ],
)
def test_rows_without_a_verdict_are_warned_of(metric: str, said: list[str]) -> None:
    value = Metric(value=0.5, n=40)
    candidates = [
        Candidate(name=name, metric=value, rows=40, no_verdict=count) for name, count in (("a", 30), ("b", 1), ("c", 4))
    ]
    found = rank.order(candidates, metric=metric)
    assert {each.name: each.no_verdict for each in found} == {"a": 30, "b": 1, "c": 4}
    assert rank.unjudged(candidates, metric) == said
    assert rank.unjudged([Candidate(name="a", metric=value), *candidates[1:]], metric) == []
