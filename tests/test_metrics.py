"""From verdicts to summaries: counts that add up, rates held equal to scikit-learn, and no number without a reason."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jsonschema
import pytest
import scipy.stats
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

from evalops import schema
from evalops.metrics import labels as labels_of
from evalops.metrics import summaries
from evalops.metrics.labels import CHOICES
from evalops.result import Graded, Usage, Verdict, VerdictStatus, to_json
from evalops.spec import Evaluation
from evalops.stats import intervals

CLASSIFY = evaluation(labels=["good", "mixed", "bad"], pass_labels=["good"], gold="gold")
PLAIN = evaluation()
SCORE = evaluation(type="score", pass_threshold=4, gold="gold")
COMPARE = evaluation(type="compare", gold="gold")

INVALID, ERROR = VerdictStatus.INVALID, VerdictStatus.ERROR
CHOICES3 = ("good", "mixed", "bad")


def scored(value: Any, gold: Any = None, **fields: Any) -> Graded:
    return Graded(Verdict("k", VerdictStatus.SCORED, value, **fields), gold)


def unscored(status: VerdictStatus, reason: str = "unparsable", gold: Any = None) -> Graded:
    return Graded(Verdict("k", status, None, reason), gold)


def summary(what: Evaluation, rows: Iterable[Graded]) -> dict[str, Any]:
    """The summary as the lockfile has it; what JSON cannot say fails."""
    value = to_json(summaries.summarise(what, rows), Usage(), {})
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
        assert of["kappa_scored"]["value"] == pytest.approx(cohen_kappa_score(*pairs), abs=1e-12)
        assert of["kappa_scored"]["low"] <= of["kappa_scored"]["value"] <= of["kappa_scored"]["high"]
    else:
        assert of["kappa_scored"]["value"] is None and "one label" in of["kappa_scored"]["reason"]
    if len(set(gold) | set(said)) > 1:
        assert of["kappa"]["value"] == pytest.approx(cohen_kappa_score(gold, said), abs=1e-12)


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
    assert (labels_of.CHANCE in found.get("warnings", [])) == warned


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
    assert sum(counts.values()) == 5000 and list(counts)[:2] == ["0 to 50", "50 to 100"] and len(counts) == 15
    assert summary(what, [scored(number / 7) for number in range(40)])["score_counts"]["0"] == 1


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


choices = st.sampled_from(CHOICES)


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


# groups


GROUPED = evaluation(labels=["good", "mixed", "bad"], pass_labels=["good"], gold="gold", group_by=["topic", "tier"])
GROUPED_SCORE = evaluation(type="score", pass_threshold=4, gold="gold", group_by=["topic", "tier"], metric="mae")
GROUPED_COMPARE = evaluation(type="compare", gold="gold", group_by=["topic", "tier"])

groups = st.tuples(st.sampled_from(["a", "b", "(none)"]), st.sampled_from(["1", "10", "2"]))


def in_groups(rows: Any) -> Any:
    return st.lists(st.builds(lambda row, names: row._replace(groups=names), rows, groups), max_size=40)


a_label = st.one_of(
    st.builds(scored, labels, labels | st.none()), st.builds(unscored, st.just(INVALID), st.just("length"), labels)
)
a_score = st.builds(scored, st.floats(1, 5), st.floats(1, 5) | st.none())
a_duel = st.builds(duel, choices, choices, choices | st.none())


@given(st.one_of(
    st.tuples(st.just(GROUPED), in_groups(a_label)),
    st.tuples(st.just(GROUPED_SCORE), in_groups(a_score)),
    st.tuples(st.just(GROUPED_COMPARE), in_groups(a_duel)),
))  # fmt: skip
def test_the_weighted_groups_add_up_to_the_whole(case: tuple[Evaluation, list[Graded]]) -> None:
    what, graded = case
    found = summary(what, graded)
    if not graded:
        assert found["groups"] == {"topic": {}, "tier": {}}
        return
    for column in ("topic", "tier"):
        parts = found["groups"][column].values()
        for count in ("rows", "scored"):
            assert sum(part[count] for part in parts) == found[count]
        for name in {name for part in parts for name in part["metrics"]}:
            whole = found["metrics"][name]
            known = [part["metrics"][name] for part in parts if part["metrics"][name]["value"] is not None]
            assert sum(each["n"] for each in known) == whole.get("n", 0)
            if known:
                total = sum(each["value"] * each["n"] for each in known)
                assert total / whole["n"] == pytest.approx(whole["value"], abs=1e-9)
        for name, part in found["groups"][column].items():
            alone = [row for row in graded if row.groups[column == "tier"] == name]
            assert part["metrics"].items() <= summary(what, alone)["metrics"].items()


def test_groups_stand_in_the_order_of_numbers_and_then_of_words() -> None:
    names = ["10", "(none)", "2", "easy", "-1", "Alpha"]
    found = summary(GROUPED, [scored("good")._replace(groups=(name, "x")) for name in names])
    assert list(found["groups"]["topic"]) == ["-1", "2", "10", "Alpha", "easy", "(none)"]


def test_a_small_group_is_flagged() -> None:
    sizes = {"few": 29, "many": 30}
    found = summary(
        GROUPED, [scored("good")._replace(groups=(name, "x")) for name, n in sizes.items() for _ in range(n)]
    )
    assert found["groups"]["topic"]["few"]["small"] is True and "small" not in found["groups"]["topic"]["many"]


def test_a_column_with_too_many_values_has_no_groups_and_says_so() -> None:
    found = summary(GROUPED, [scored("good")._replace(groups=(f"id-{n}", "x")) for n in range(1000)])
    assert found["ungrouped"] == {"topic": "more than 200 different values"}
    assert list(found["groups"]) == ["tier"]
    assert any("`topic`" in warning for warning in found["warnings"])


def test_groups_have_what_the_spec_asks_for() -> None:
    rows = [scored("good", "good")._replace(groups=("a", "1")), scored("bad", "good")._replace(groups=("b", "1"))]
    assert set(summary(GROUPED, rows)["groups"]["topic"]["a"]["metrics"]) == {"pass_percentage", "accuracy"}
    bound = {"macro_f1": {"by": {"topic": {"min": 0.5}}}, "invalid_rate": {"max": 0.5}}
    asked = evaluation(
        labels=["good", "bad"], gold="gold", group_by=["topic", "tier"], thresholds=bound, metric="kappa"
    )
    assert set(summary(asked, rows)["groups"]["topic"]["a"]["metrics"]) == {"accuracy", "kappa", "macro_f1"}


def test_groups_without_a_metric_have_their_labels() -> None:
    found = summary(evaluation(group_by=["topic"]), [scored("rude")._replace(groups=("a",))])
    assert found["groups"]["topic"]["a"]["label_counts"] == {"polite": 0, "rude": 1}


# clusters


@given(st.lists(st.tuples(labels, labels, st.sampled_from("xyz")), min_size=1, max_size=40))
def test_rates_in_clusters_say_so(found: list[tuple[str, str, str]]) -> None:
    rows = [scored(said, gold)._replace(cluster=cluster) for said, gold, cluster in found]
    metrics_ = summary(CLASSIFY, rows)["metrics"]
    clusters = len({cluster for _, _, cluster in found})
    for name in ("pass_percentage", "accuracy", "invalid_rate"):
        metric = metrics_[name]
        assert metric["clusters"] == clusters and metric["n"] == len(rows)
        if clusters == 1:
            assert metric["reason"] == "rows of one cluster have no interval" and "low" not in metric
        else:
            assert metric["low"] <= metric["value"] <= metric["high"]


def test_a_mean_in_clusters_is_the_libraries() -> None:
    values = [(number % 5 + 1, str(number % 7)) for number in range(50)]
    rows = [scored(float(value), value)._replace(cluster=cluster) for value, cluster in values]
    found = summary(SCORE, rows)["metrics"]
    by: dict[str, list[int]] = {}
    for value, cluster in values:
        by.setdefault(cluster, []).append(value)
    expected = intervals.clustered(intervals.Cluster(len(each), sum(each)) for each in by.values())
    assert expected is not None
    assert bounds(found["mean_score"]) == pytest.approx(expected)
    assert found["mean_score"]["clusters"] == 7
    for name in ("median_score", "spearman"):
        assert found[name].get("reason") and "clusters" not in found[name]


# scores against gold


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=3, max_size=30))
def test_correlations_are_scipys(pairs: list[tuple[int, int]]) -> None:
    of = summary(SCORE, [scored(float(score), gold) for score, gold in pairs])["metrics"]
    scores, golds = zip(*pairs, strict=True)
    if len(set(scores)) == 1 or len(set(golds)) == 1:
        for name in ("pearson", "spearman"):
            assert of[name]["value"] is None and "the same" in of[name]["reason"]
        return
    assert of["pearson"]["value"] == pytest.approx(scipy.stats.pearsonr(scores, golds).statistic, abs=1e-12)
    assert of["spearman"]["value"] == pytest.approx(scipy.stats.spearmanr(scores, golds).statistic, abs=1e-12)
    assert of["median_score"]["value"] == statistics.median(scores)
    assert of["normalized_mean"]["value"] == pytest.approx((statistics.fmean(scores) - 1) / 4)


def test_gold_scores_off_the_scale_move_the_error_and_nothing_else() -> None:
    found = summary(SCORE, [scored(1.0, 50), scored(5.0, 5), scored(3.0, True)])["metrics"]
    assert (found["mae"]["value"], found["mae"]["n"]) == (24.5, 2)


def test_equal_scores_prove_little() -> None:
    mean = summary(SCORE, [scored(5.0)] * 4)["metrics"]["mean_score"]
    assert mean["value"] == mean["high"] == 5 and mean["low"] < 4 and "the same" in mean["reason"]
    assert summary(SCORE, [scored(5.0)] * 4000)["metrics"]["mean_score"]["low"] > 4.99
    ties = summary(COMPARE, [duel("A", "B")] * 12)["metrics"]["win_rate"]
    assert ties["low"] < 0.3 < ties["value"] == 0.5 < 0.7 < ties["high"]


# what the judge's error does to the pass rate


def test_the_corrected_rate_takes_out_the_judges_error() -> None:
    gold = [scored("good", "good")] * 90 + [scored("bad", "good")] * 10
    gold += [scored("bad", "bad")] * 80 + [scored("good", "mixed")] * 20
    found = summary(CLASSIFY, gold + [scored("good")] * 300 + [scored("bad")] * 500)["metrics"]
    rate, sensitivity, specificity = (90 + 20 + 300) / 1000, 0.9, 0.8
    expected = (rate + specificity - 1) / (sensitivity + specificity - 1)
    corrected = found["corrected_pass_percentage"]
    assert corrected["value"] == pytest.approx(100 * expected)
    assert corrected["low"] < corrected["value"] < corrected["high"]
    width = found["pass_percentage"]["high"] - found["pass_percentage"]["low"]
    assert corrected["high"] - corrected["low"] > width


def test_it_is_refused_where_the_judge_knows_nothing() -> None:
    useless = [scored(said, gold) for said in ("good", "bad") for gold in ("good", "bad")] * 10
    metric = summary(CLASSIFY, useless)["metrics"]["corrected_pass_percentage"]
    assert metric["value"] is None and "chance" in metric["reason"]
    few = summary(CLASSIFY, [scored("good", "good")])["metrics"]["corrected_pass_percentage"]
    assert few["value"] is None and "gold rows" in few["reason"]
    scores = [scored(float(said), gold) for said in (1, 5) for gold in (1, 5)] * 10
    assert summary(SCORE, scores)["metrics"]["corrected_pass_percentage"]["value"] is None
    assert "corrected_pass_percentage" not in summary(evaluation(pass_labels=["polite"]), [scored("polite")])["metrics"]


def test_gold_values_that_no_verdict_can_be_are_named() -> None:
    found = summary(CLASSIFY, [scored("good", gold) for gold in ("good", "Good", "fine", True, 3, "x")])
    assert found["metrics"]["accuracy"]["value"] == pytest.approx(1 / 6)
    assert found["warnings"][1:] == [
        "values of `gold` that no verdict can be, and that count as wrong: `Good`, `fine`, `true` …"
    ]
    assert found["confusion"]["rows"][3] == [5, 0, 0, 0] and found["confusion"]["labels"][3] == "(other)"


# criteria and type custom


def test_the_mean_of_each_criterion() -> None:
    what = evaluation(type="score", judge={"model": "judge", "criteria": ["clarity", "depth", "unused"]})
    rows = [scored(3.0, criteria={"clarity": 2.0, "depth": 4.0}), scored(4.0, criteria={"clarity": 4.0, "depth": 4.0})]
    found = summary(what, rows)["criteria"]
    assert found["clarity"]["value"] == 3 and found["depth"]["value"] == 4
    assert found["unused"] == {"value": None, "reason": "no row has this criterion"}


def test_custom_results_are_shares() -> None:
    what = evaluation(type="custom", evaluator="exact", model_to_evaluate="response", gold="gold")
    found = summary(what, [scored(1.0, "18"), scored(0.0, "20"), scored(0.5, "3"), unscored(ERROR, gold="5")])[
        "metrics"
    ]
    assert found["accuracy"]["value"] == 0.25 and found["pass_percentage"]["value"] == pytest.approx(100 / 3)
    assert found["mean_score"]["value"] == 0.5
    assert "mae" not in found and "pearson" not in found
    clustered = summary(what, [scored(1.0)._replace(cluster="a"), unscored(ERROR)._replace(cluster="b")])["metrics"]
    assert (clustered["accuracy"]["value"], clustered["accuracy"]["clusters"]) == (0.5, 2)


# edges: every type, every number of rows


CUSTOM = evaluation(type="custom", evaluator="exact", model_to_evaluate="response", gold="gold", group_by=["topic"])
EDGES: dict[str, list[Graded]] = {
    "no rows": [],
    "one row": [scored("VALUE", "GOLD")],
    "all invalid": [unscored(INVALID, "no_majority", "GOLD")] * 4,
    "all errors": [unscored(ERROR, "timeout")] * 4,
    "constant": [scored("VALUE", "GOLD")] * 50,
    "one cluster": [scored("VALUE", "GOLD")._replace(cluster="a")] * 5,
    "two clusters": [scored("VALUE", "GOLD")._replace(cluster=each) for each in "aabb"],
    "no gold in any row": [scored("VALUE")] * 3,
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("what", [CLASSIFY, SCORE, COMPARE, CUSTOM, GROUPED, GROUPED_SCORE, GROUPED_COMPARE])
def test_every_edge_has_numbers_or_reasons(what: Evaluation, edge: str) -> None:
    value, gold = {"classify": ("good", "bad"), "compare": ("A", "B")}.get(what.type.value, (1.0, 1))
    rows = [
        row._replace(
            verdict=row.verdict._replace(value=row.verdict.value and value),
            gold=row.gold and gold,
            groups=("a", "1")[: len(what.group_by)],
        )
        for row in EDGES[edge]
    ]
    found = summary(what, rows)
    everything = [
        found["metrics"],
        *(part["metrics"] for each in found.get("groups", {}).values() for part in each.values()),
    ]
    for metric in (each for group in everything for each in group.values()):
        assert metric["value"] is not None or metric["reason"]
        if "low" not in metric and metric["value"] is not None:
            assert metric.get("reason") or "n" in metric
        assert "low" not in metric or metric["low"] <= metric["value"] <= metric["high"]
    entry = schema.whole("lock")["properties"]["evaluations"]["additionalProperties"]
    jsonschema.validate(found, entry["properties"]["summary"])
    assert set(found) <= set(entry["properties"]["summary"]["properties"])


@pytest.mark.slow
def test_a_million_rows() -> None:
    def many() -> Iterator[Graded]:
        for number in range(1_000_000):
            verdict = Verdict("k", VerdictStatus.SCORED, CHOICES3[number % 3], lengths=(number % 97,))
            yield Graded(verdict, CHOICES3[number // 3 % 3], (str(number % 10), "x"))

    found = summary(GROUPED, many())
    assert found["rows"] == 1_000_000 and found["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3, abs=1e-6)
    scores = (scored(1 + number % 4001 / 1000, number % 5) for number in range(1_000_000))
    assert summary(SCORE, scores)["metrics"]["median_score"]["value"] == pytest.approx(3, abs=0.01)
