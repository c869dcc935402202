"""Two results on shared rows: which rows count, what is tested, what is refused, and when a fall fails a gate."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops import paired
from evalops.errors import EvalopsError
from evalops.paired import Flip, compare, holm, regressed, unpaired
from evalops.result import Metric, Value, Verdict, VerdictStatus
from evalops.spec import Type
from evalops.stats import contrast, intervals

SCORED = VerdictStatus.SCORED


def verdicts(values: Sequence[Value], first: int = 0) -> list[Verdict]:
    """Verdicts of rows by number; None is one that could not be read."""
    return [
        Verdict(key=f"row{number:06}", status=SCORED if value is not None else VerdictStatus.INVALID, value=value)
        for number, value in enumerate(values, first)
    ]


def classified(before: str, after: str) -> paired.Paired:
    """Labels as letters: p and q pass, f fails, a dot is no verdict."""

    def values(text: str) -> list[Value]:
        return [None if letter == "." else letter for letter in text]

    return compare(verdicts(values(before)), verdicts(values(after)), Type.CLASSIFY, pass_labels=("p", "q"))


def test_a_fall_of_passes_is_tested_on_the_rows_that_changed() -> None:
    found = classified("pppppppfff" * 10, "pppffffffp" * 10)
    assert (found.metric, found.test, found.shared) == ("pass_percentage", paired.MCNEMAR, 100)
    assert (found.lost, found.gained) == (40, 10)
    assert found.p == contrast.mcnemar(40, 10)
    low, high = contrast.paired_rates(40, 10, 100)
    assert found.difference == Metric(value=-30.0, low=100 * low, high=100 * high, n=100)
    assert len(found.flips) == 50 and found.flips[0] == Flip("row000003", "p", "f")


def test_another_label_that_passes_too_is_no_flip() -> None:
    found = classified("pqf", "qpf")
    assert (found.flips, found.difference.value, found.p) == ((), 0.0, 1.0)


def test_rows_that_are_not_in_both_results_are_listed_and_not_mixed_in() -> None:
    before = verdicts(["p", "p", None, "f", None])
    after = verdicts(["f", None, "p", None], first=1)
    found = compare(before, after, Type.CLASSIFY, pass_labels=("p",))
    # 1 and 3 have a verdict in both; 2 and 4 have none in either
    assert found.shared == 2 and found.flips == (Flip("row000001", "p", "f"), Flip("row000003", "f", "p"))
    assert (found.added, found.removed) == ((), ("row000000",))
    assert (found.gained_verdict, found.lost_verdict) == ((), ())
    turned = compare(after, before, Type.CLASSIFY, pass_labels=("p",))
    assert turned.added == ("row000000",) and turned.removed == ()


def test_rows_that_gained_or_lost_a_verdict_are_named() -> None:
    found = classified("pp.f", "p.pf")
    assert (found.shared, found.gained_verdict, found.lost_verdict) == (2, ("row000002",), ("row000001",))


def test_labels_that_do_not_pass_or_fail_are_counted_and_not_tested() -> None:
    found = compare(verdicts(list("abca")), verdicts(list("abcc")), Type.CLASSIFY)
    assert (found.metric, found.test, found.p) == ("changed_labels", None, None)
    assert found.reason == "no pass_labels, so no label is better than another"
    assert found.difference == Metric(value=0.25, **intervals.wilson(1, 4)._asdict(), n=4)
    assert found.flips == (Flip("row000003", "a", "c"),)


def test_scores_are_compared_by_their_mean() -> None:
    chance = random.Random(5)
    before = [float(chance.randint(1, 5)) for _ in range(200)]
    after = [min(5.0, value + chance.choice([0, 0, 0, 1])) for value in before]
    found = compare(verdicts(before), verdicts(after), Type.SCORE)
    assert (found.metric, found.test) == ("mean_score", paired.BOOTSTRAP)
    assert found.difference.value == pytest.approx(sum(after) / 200 - sum(before) / 200)
    assert found.difference.low is not None and 0 < found.difference.low < found.difference.value
    assert found.p is not None and found.p < 0.001
    assert (found.lost, found.gained) == (0, len(found.flips))


def test_scores_flip_at_the_threshold_where_there_is_one() -> None:
    before, after = verdicts([1.0, 3.0, 4.0, 5.0]), verdicts([2.0, 4.0, 3.5, 5.0])
    found = compare(before, after, Type.SCORE, pass_threshold=4)
    assert found.flips == (Flip("row000001", 3.0, 4.0), Flip("row000002", 4.0, 3.5))
    assert len(compare(before, after, Type.SCORE).flips) == 3
    assert len(compare(before, after, Type.CUSTOM).flips) == 3


def test_games_are_compared_by_their_points() -> None:
    found = compare(verdicts(["A", "A", "Tie", "B"] * 20), verdicts(["A", "Tie", "B", "B"] * 20), Type.COMPARE)
    assert (found.metric, found.difference.value, found.lost, found.gained) == ("win_rate", -0.25, 40, 0)
    assert found.p is not None and found.p < 0.001
    assert len(found.flips) == 40


values = {
    Type.CLASSIFY: st.sampled_from(["p", "q", "f", None]),
    Type.SCORE: st.sampled_from([1.0, 2.5, 4.0, None]),
    Type.COMPARE: st.sampled_from(["A", "B", "Tie", None]),
}


@pytest.mark.parametrize("kind", list(values))
@settings(max_examples=25)
@given(st.data())
def test_the_order_of_the_rows_does_not_matter_and_every_row_is_somewhere(kind: Type, data: st.DataObject) -> None:
    size = data.draw(st.integers(0, 12))
    first = verdicts(data.draw(st.lists(values[kind], min_size=size, max_size=size)))
    second = verdicts(
        data.draw(st.lists(values[kind], min_size=size, max_size=size)), first=data.draw(st.integers(0, 3))
    )
    found = compare(first, second, kind, pass_labels=("p", "q"), pass_threshold=2)
    mixed = [data.draw(st.permutations(each)) for each in (first, second)]
    assert compare(*mixed, kind, pass_labels=("p", "q"), pass_threshold=2) == found
    neither = size - len(found.removed) - found.shared - len(found.gained_verdict) - len(found.lost_verdict)
    assert neither >= 0 and len(found.added) == len(found.removed)
    assert found.lost + found.gained <= found.shared
    assert "NaN" not in json.dumps(found.to_json()) and "Infinity" not in json.dumps(found.to_json())


@pytest.mark.parametrize("kind", list(values))
def test_results_without_a_shared_row_have_a_reason(kind: Type) -> None:
    value: Value = 1.0 if kind is Type.SCORE else "A"
    for before, after in (([], []), ([value], []), ([None], [value])):
        found = compare(verdicts(before), verdicts(after), kind, pass_labels=("A",))
        assert (found.shared, found.difference.value, found.p, found.test) == (0, None, None, None)
        assert found.difference.reason == found.reason == "no row has a verdict in both results"
        assert regressed(found).failed


def test_results_that_are_the_same_differ_by_nothing() -> None:
    scores = compare(verdicts([3.0] * 50), verdicts([3.0] * 50), Type.SCORE)
    assert (scores.difference.value, scores.difference.low, scores.p) == (0.0, None, 1.0)
    assert scores.difference.reason == "all rows differ by the same"
    assert not regressed(scores, strict=True).failed
    labels = classified("p" * 50, "p" * 50)
    assert labels.p == 1.0 and labels.difference.low is not None and labels.difference.low < 0
    one = compare(verdicts([3.0]), verdicts([1.0]), Type.SCORE)
    assert (one.difference.value, one.difference.low, one.p) == (-2.0, None, 1.0)


def test_a_row_that_is_twice_in_a_result_is_refused() -> None:
    with pytest.raises(EvalopsError) as caught:
        compare(verdicts(["p", "p"]), verdicts(["p"]) * 2, Type.CLASSIFY)
    assert caught.value.diagnostics[0].code == "verdicts/duplicate"
    assert "`row000000`" in caught.value.diagnostics[0].message


@pytest.mark.slow
def test_a_hundred_thousand_rows_are_soon_compared() -> None:
    chance = random.Random(1)
    before = [float(chance.randint(1, 5)) for _ in range(100_000)]
    after = [value if chance.random() < 0.9 else float(chance.randint(1, 5)) for value in before]
    found = compare(verdicts(before), verdicts(after), Type.SCORE, pass_threshold=4)
    assert found.shared == 100_000 and found.difference.low is not None


# --- without the rows ---


def summary(metric: str, value: float | None, low: float | None = None, high: float | None = None) -> dict[str, object]:
    return {"metrics": {metric: Metric(value=value, low=low, high=high, reason="no row has a verdict").to_json()}}


def test_two_rates_without_rows_have_newcombes_interval_and_no_test() -> None:
    old, new = intervals.wilson(80, 100), intervals.wilson(60, 120)
    found = unpaired(
        summary("pass_percentage", 80.0, 100 * old.low, 100 * old.high),
        summary("pass_percentage", 50.0, 100 * new.low, 100 * new.high),
        Type.CLASSIFY,
    )
    expected = contrast.difference(contrast.Estimate(0.5, *new), contrast.Estimate(0.8, *old))
    assert (found.test, found.p, found.shared) == (paired.UNPAIRED, None, 0)
    assert "could not be paired" in str(found.reason)
    assert found.difference.value == -30.0
    assert (found.difference.low, found.difference.high) == pytest.approx((100 * expected.low, 100 * expected.high))
    verdict = regressed(found, margin=5)
    assert verdict.failed and "could not be paired" in verdict.reason
    assert not regressed(found, margin=60).failed


def test_what_one_summary_lacks_is_said() -> None:
    whole, none = summary("mean_score", 3.0, 2.5, 3.5), summary("mean_score", None)
    assert (
        unpaired(whole, none, Type.SCORE).difference.reason == "the new result has no mean_score: no row has a verdict"
    )
    assert (
        unpaired(none, whole, Type.SCORE).difference.reason
        == "the earlier result has no mean_score: no row has a verdict"
    )
    assert unpaired({}, whole, Type.SCORE).difference.value is None
    bare = unpaired(whole, summary("mean_score", 2.0), Type.SCORE)
    assert (bare.difference.value, bare.difference.low) == (-1.0, None)
    assert regressed(bare, margin=0.5).failed  # what cannot be known fails
    assert not regressed(unpaired(whole, summary("mean_score", 3.0), Type.SCORE), margin=0.5).failed


# --- Holm and the gate ---


def test_p_values_of_several_evaluations_are_adjusted_together() -> None:
    results = [classified("p" * 40, "p" * (40 - lost) + "f" * lost) for lost in (12, 6, 0)]
    results.insert(1, compare(verdicts(["a"]), verdicts(["b"]), Type.CLASSIFY))
    adjusted = holm(results)
    assert [each.p_adjusted for each in adjusted if each.p is not None] == intervals.holm(
        [each.p for each in results if each.p is not None]
    )
    assert adjusted[1].p_adjusted is None
    # Six rows that fell are significant alone, and not one of three that were looked at.
    assert regressed(results[2]).failed and adjusted[2].p_adjusted == pytest.approx(2 * 0.03125)
    assert not regressed(adjusted[2]).failed and regressed(adjusted[0]).failed


@pytest.mark.parametrize(
    ("before", "after", "margin", "failed", "strict"),
    [
        ("p" * 50, "p" * 50, 10, False, False),  # nothing changed, and 50 rows say that it fell by 7 points at most
        ("p" * 50, "p" * 50, 2, False, True),  # they do not say that it fell by less than 2
        ("p" * 50, "p" * 44 + "f" * 6, 2, True, True),
        ("p" * 50, "p" * 44 + "f" * 6, 40, False, False),
        ("p" * 50, "p" * 47 + "f" * 3, 2, False, True),  # three rows may be chance
        ("f" * 10 + "p" * 40, "p" * 50, 0, False, False),  # a gain
    ],
)
def test_a_regression_is_a_fall_beyond_the_margin_that_is_no_chance(
    before: str, after: str, margin: float, failed: bool, strict: bool
) -> None:
    found = classified(before, after)
    assert regressed(found, margin).failed is failed
    assert regressed(found, margin, strict=True).failed is strict
    assert f"{margin:g} is allowed" in regressed(found, margin).reason


def test_labels_that_only_changed_cannot_pass_a_gate_on_regression() -> None:
    found = compare(verdicts(["a"] * 20), verdicts(["b"] * 20), Type.CLASSIFY)
    verdict = regressed(found, margin=1)
    assert verdict.failed and "no pass_labels" in verdict.reason


def test_all_rows_falling_alike_is_a_regression() -> None:
    found = compare(verdicts([4.0] * 30), verdicts([3.0] * 30), Type.SCORE)
    assert found.difference.low is None and regressed(found, 0.5).failed and not regressed(found, 1.5).failed


def test_a_rise_is_no_regression_however_wide() -> None:
    found = replace(classified("pf" * 5, "pf" * 5), difference=Metric(value=1.0, low=-9.0, high=11.0, n=10), p=0.01)
    assert not regressed(found, 2).failed
    assert math.isclose(float(found.difference.value or 0), 1.0)
