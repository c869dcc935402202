"""From verdicts to summaries: counts that add up, rates held equal to scikit-learn, and no number without a reason."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
import scipy.stats
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from evalops import metrics
from evalops.result import Graded, Usage, Verdict, VerdictStatus, to_json
from evalops.spec import Evaluation, Threshold

CLASSIFY = evaluation(labels=["good", "mixed", "bad"], pass_labels=["good"], gold="gold")
PLAIN = evaluation()
SCORE = evaluation(type="score", pass_threshold=4, gold="gold")
COMPARE = evaluation(type="compare", gold="gold")

INVALID, ERROR = VerdictStatus.INVALID, VerdictStatus.ERROR


def scored(value: Any, gold: Any = None, **fields: Any) -> Graded:
    return Graded(Verdict("k", VerdictStatus.SCORED, value, **fields), gold)


def unscored(status: VerdictStatus, reason: str = "unparsable", gold: Any = None) -> Graded:
    return Graded(Verdict("k", status, None, reason), gold)


def summary(what: Evaluation, rows: Iterable[Graded]) -> dict[str, Any]:
    """The summary as the lockfile has it; what JSON cannot say fails."""
    value = to_json(metrics.summarise(what, rows), Usage(), {})
    found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    return found


def bounds(metric: dict[str, Any]) -> tuple[float, float]:
    return metric["low"], metric["high"]


labels = st.sampled_from(CLASSIFY.labels)
rows = st.lists(
    st.one_of(
        st.builds(scored, labels, labels),
        st.builds(unscored, st.sampled_from([INVALID, ERROR]), st.sampled_from(["length", "timeout"]), labels),
    ),
    max_size=40,
)


# classify


@given(rows)
def test_counts_add_up_and_rates_are_scikit_learns(graded: list[Graded]) -> None:
    found = summary(CLASSIFY, graded)
    verdicts = [each.verdict for each in graded]
    good = [each for each in graded if each.verdict.status is VerdictStatus.SCORED]
    assert found["rows"] == len(graded) == found["scored"] + found["invalid"] + found["errors"]
    assert sum(found["label_counts"].values()) == found["scored"] == len(good)
    assert sum(found.get("invalid_reasons", {}).values()) == found["invalid"]
    assert sum(found.get("error_reasons", {}).values()) == found["errors"]
    of = found["metrics"]
    if not graded:
        assert all(metric["value"] is None and metric["reason"] for metric in of.values())
        return
    gold = [each.gold for each in graded]
    said = [each.value or "(none)" for each in verdicts]
    assert of["accuracy"]["value"] == pytest.approx(accuracy_score(gold, said), abs=1e-12)
    assert of["invalid_rate"]["value"] == pytest.approx(found["invalid"] / len(graded), abs=1e-12)
    if not good:
        assert of["accuracy_scored"]["reason"] and of["pass_percentage"]["value"] is None
        return
    pairs = [each.gold for each in good], [each.verdict.value for each in good]
    assert of["accuracy_scored"]["value"] == pytest.approx(accuracy_score(*pairs), abs=1e-12)
    passed = sum(each.verdict.value == "good" for each in good)
    assert of["pass_percentage"]["value"] == pytest.approx(100 * passed / len(good), abs=1e-12)
    low, high = bounds(of["pass_percentage"])
    expected = scipy.stats.binomtest(passed, len(good)).proportion_ci(method="wilson")
    assert (low / 100, high / 100) == pytest.approx((expected.low, expected.high), abs=1e-12)
    if len(set(pairs[0]) | set(pairs[1])) > 1:
        assert of["kappa"]["value"] == pytest.approx(cohen_kappa_score(*pairs), abs=1e-12)
        assert of["kappa"]["low"] <= of["kappa"]["value"] <= of["kappa"]["high"]
    else:
        assert of["kappa"]["value"] is None and "one label" in of["kappa"]["reason"]


@given(rows)
def test_the_truth_lies_within_the_bounds_whatever_the_missing_verdicts_were(graded: list[Graded]) -> None:
    found = summary(CLASSIFY, graded)
    if not graded:
        assert found["bounds"] == {}
        return
    low, high = found["bounds"]["pass_percentage"].values()
    for truth in ("good", "bad"):
        full = [each if each.verdict.value else scored(truth) for each in graded]
        whole = summary(CLASSIFY, full)["metrics"]["pass_percentage"]["value"]
        assert whole == pytest.approx(high if truth == "good" else low, abs=1e-9)


def test_an_invalid_verdict_is_wrong_for_accuracy_and_no_fail_for_the_pass_rate() -> None:
    found = summary(CLASSIFY, [scored("good", "good"), unscored(INVALID, gold="good"), unscored(ERROR, gold="good")])
    assert found["metrics"]["pass_percentage"]["value"] == 100
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert found["metrics"]["accuracy_scored"]["value"] == 1
    assert found["bounds"]["pass_percentage"] == {"low": pytest.approx(100 / 3), "high": 100}


def test_every_label_is_counted_also_where_none_was_given() -> None:
    assert summary(CLASSIFY, [scored("bad")])["label_counts"] == {"good": 0, "mixed": 0, "bad": 1}


def test_what_cannot_be_known_has_a_reason() -> None:
    found = summary(PLAIN, [scored("polite")])["metrics"]
    assert found["pass_percentage"] == {"value": None, "reason": "no pass_labels"}
    for name in ("accuracy", "accuracy_scored", "kappa"):
        assert found[name] == {"value": None, "reason": "no gold column"}
    empty = summary(CLASSIFY, [scored("good", ""), scored("good", None)])["metrics"]
    assert empty["accuracy"] == {"value": None, "reason": "no row has a value in `gold`"}


def test_rows_without_gold_do_not_count_for_agreement() -> None:
    found = summary(CLASSIFY, [scored("good", "good"), scored("bad", None), scored("bad", "")])["metrics"]
    assert (found["accuracy"]["value"], found["accuracy"]["n"]) == (1.0, 1)


@pytest.mark.parametrize(
    ("pairs", "warned"),
    [
        ([("good", "good"), ("good", "bad"), ("bad", "good"), ("bad", "bad")] * 10, True),
        ([("good", "good"), ("bad", "bad")] * 20, False),
        ([("good", "good")] * 20, False),
        ([("bad", "good"), ("good", "bad")] * 20, True),
    ],
)
def test_a_judge_no_better_than_chance_is_named(pairs: list[tuple[str, str]], warned: bool) -> None:
    found = summary(CLASSIFY, [scored(said, gold) for said, gold in pairs])
    assert (metrics.CHANCE in found.get("warnings", [])) == warned


# score


@given(st.lists(st.tuples(st.floats(1, 5), st.none() | st.floats(1, 5)), max_size=30))
def test_means_and_deviations(pairs: list[tuple[float, float | None]]) -> None:
    found = summary(SCORE, [scored(score, gold) for score, gold in pairs])
    of = found["metrics"]
    assert sum(found["score_counts"].values()) == len(pairs)
    if not pairs:
        assert all(metric["value"] is None and metric["reason"] for metric in of.values())
        return
    values = [score for score, _ in pairs]
    assert of["mean_score"]["value"] == pytest.approx(statistics.fmean(values), abs=1e-9)
    errors = [abs(score - gold) for score, gold in pairs if gold is not None]
    assert of["mae"]["value"] == (pytest.approx(statistics.fmean(errors), abs=1e-9) if errors else None)
    if len(values) == 1:
        assert "low" not in of["mean_score"] and "interval" in of["mean_score"]["reason"]
        assert of["std_score"]["value"] is None
        return
    assert of["std_score"]["value"] == pytest.approx(statistics.stdev(values), abs=1e-9)
    if statistics.stdev(values) > 1e-6:
        expected = scipy.stats.t.interval(0.95, len(values) - 1, statistics.fmean(values), scipy.stats.sem(values))
        low, high = SCORE.min_score or 0.0, SCORE.max_score or 0.0  # no mean lies outside the scale
        assert bounds(of["mean_score"]) == pytest.approx((max(low, expected[0]), min(high, expected[1])), abs=1e-9)


def test_a_score_passes_at_its_threshold() -> None:
    found = summary(SCORE, [scored(4.0), scored(3.9), scored(5.0), unscored(INVALID, "out_of_range")])
    assert found["metrics"]["pass_percentage"]["value"] == pytest.approx(200 / 3)
    assert found["bounds"]["pass_percentage"] == {"low": 50, "high": 75}


def test_scores_that_print_alike_are_counted_together() -> None:
    found = summary(SCORE, [scored(1.0000001), scored(1.0), scored(2.5)])
    assert found["score_counts"] == {"1": 2, "2.5": 1}


def test_many_different_scores_are_counted_in_steps() -> None:
    what = evaluation(type="score", min_score=0, max_score=1000)
    counts = summary(what, [scored(number / 7) for number in range(5000)])["score_counts"]
    assert sum(counts.values()) == 5000 and len(counts) < 1200


@pytest.mark.parametrize("gold", [10**400, "1e999", "nan", "", "great", [4], {"score": 4}, None])
def test_a_gold_value_that_is_no_number_is_left_out(gold: Any) -> None:
    mae = summary(SCORE, [scored(1.0, gold), scored(2.0, "3.5"), scored(2.0, 3)])["metrics"]["mae"]
    assert (mae["value"], mae["n"]) == (1.25, 2)


def test_numbers_that_no_float_can_average_are_no_result() -> None:
    what = evaluation(type="score", min_score=-1e308, max_score=1e308, gold="gold")
    found = summary(what, [scored(1e308, -1e308, lengths=(n,)) for n in range(3)] + [scored(-1e308, lengths=(9,))])
    for name in ("mean_score", "std_score", "mae", "length_correlation"):
        assert found["metrics"][name]["value"] is None and "large" in found["metrics"][name]["reason"]


def test_a_judge_that_pays_by_length_is_named() -> None:
    longer = [scored(1 + number % 5, lengths=(100 * (number % 5) + 7 * (number % 3),)) for number in range(30)]
    found = summary(SCORE, longer)
    lengths = [each.verdict.lengths[0] for each in longer]
    expected = scipy.stats.pearsonr(lengths, [each.verdict.value for each in longer])
    metric = found["metrics"]["length_correlation"]
    assert metric["value"] == pytest.approx(expected.statistic, abs=1e-9)
    assert bounds(metric) == pytest.approx(tuple(expected.confidence_interval()), abs=1e-9)
    assert "longer responses" in found["warnings"][0]
    unknown = summary(SCORE, [scored(3.0), scored(4.0), scored(5.0)])
    assert unknown["metrics"]["length_correlation"]["value"] is None and "warnings" not in unknown


# compare


def duel(first: str, second: str, gold: Any = None, lengths: Sequence[int] = ()) -> Graded:
    value = first if first == second else "Tie"
    return scored(value, gold, orders=(first, second), lengths=tuple(lengths))


choices = st.sampled_from(metrics.CHOICES)


@given(st.lists(st.builds(duel, choices, choices, choices), max_size=30))
def test_wins_ties_and_consistency(graded: list[Graded]) -> None:
    found = summary(COMPARE, graded)
    of = found["metrics"]
    assert sum(found["choice_counts"].values()) == len(graded)
    if not graded:
        assert all(metric["value"] is None and metric["reason"] for metric in of.values())
        return
    counts = Counter(each.verdict.value for each in graded)
    assert of["win_rate"]["value"] == pytest.approx((counts["A"] + counts["Tie"] / 2) / len(graded), abs=1e-12)
    assert of["tie_rate"]["value"] == pytest.approx(counts["Tie"] / len(graded), abs=1e-12)
    if len(graded) > 1:
        assert 0 <= of["win_rate"]["low"] <= of["win_rate"]["value"] <= of["win_rate"]["high"] <= 1
    same = sum(each.verdict.orders[0] == each.verdict.orders[1] for each in graded if each.verdict.orders)
    assert of["consistency"]["value"] == pytest.approx(same / len(graded), abs=1e-12)
    assert found["ties_by_inconsistency"] == len(graded) - same


def test_a_preference_for_a_slot_is_named() -> None:
    found = summary(COMPARE, [duel("A", "B")] * 10)
    assert found["metrics"]["first_slot_preference"]["value"] == 1
    assert any("first response" in warning for warning in found["warnings"])
    found = summary(COMPARE, [duel("B", "A")] * 10)
    assert any("second response" in warning for warning in found["warnings"])
    assert "warnings" not in summary(COMPARE, [duel("A", "A"), duel("B", "B")] * 10)


def test_one_order_says_nothing_of_consistency() -> None:
    found = summary(COMPARE, [scored("A", orders=("A", None)), scored("B", orders=(None, "B"))])["metrics"]
    assert found["consistency"] == {"value": None, "reason": "no row was judged in both orders"}
    assert found["first_slot_preference"]["value"] == 1


def test_how_often_the_longer_response_wins() -> None:
    graded = [duel("A", "A", lengths=(9, 5)), duel("B", "B", lengths=(9, 5)), duel("A", "A", lengths=(5, 5))]
    graded += [duel("A", "B", lengths=(9, 5)), duel("B", "B")]
    metric = summary(COMPARE, graded)["metrics"]["longer_wins"]
    assert (metric["value"], metric["n"]) == (0.5, 2)


# gates


METRICS: dict[str, Any] = {
    "metrics": {
        "pass_percentage": {"value": 80.0, "low": 70.0, "high": 90.0},
        "kappa": {"value": None, "reason": "no gold column"},
        "mean_score": {"value": 3.0},
    }
}


@pytest.mark.parametrize(
    ("bound", "verdict"),
    [
        ({"min": 80.0}, "passed"),
        ({"min": 80.1}, "failed"),
        ({"max": 80.0}, "passed"),
        ({"max": 79.9}, "failed"),
        ({"min": 70.0, "max": 90.0}, "passed"),
        ({"min": 75.0, "on": "lower"}, "failed"),
        ({"min": 70.0, "on": "lower"}, "passed"),
        ({"max": 85.0, "on": "upper"}, "failed"),
    ],
)
def test_a_gate(bound: dict[str, Any], verdict: str) -> None:
    found = metrics.gate(Threshold(metric="pass_percentage", **bound), METRICS)
    assert found["verdict"] == verdict and "reason" not in found


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        (Threshold(metric="kappa", min=0.0), "no gold column"),
        (Threshold(metric="mean_score", min=1.0, on="lower"), "it has no interval"),
        (Threshold(metric="unheard", max=1.0), "this metric is not known"),
    ],
)
def test_what_is_not_known_does_not_pass(threshold: Threshold, reason: str) -> None:
    found = metrics.gate(threshold, METRICS)
    assert (found["verdict"], found["value"], found["reason"]) == ("failed", None, reason)


@given(rows)
def test_every_known_metric_can_be_gated(graded: list[Graded]) -> None:
    value = to_json(metrics.summarise(CLASSIFY, graded), Usage(), {})
    for name in metrics.NAMES[CLASSIFY.type]:
        found = metrics.gate(Threshold(metric=name, min=-1e9, max=1e9), value)
        assert found["verdict"] == ("failed" if value["metrics"][name]["value"] is None else "passed")
