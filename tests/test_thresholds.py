"""Which thresholds and headlines mean something. The messages are in cases/validate; these are the edges."""

from __future__ import annotations

from typing import Any

import pytest
from evaluations import evaluation

from evalops import semantics
from evalops.metrics import summaries, thresholds
from evalops.spec import Type

WARM = {"model": "judge", "temperature": 1}


def found(**fields: Any) -> list[str]:
    return [f"{each.severity}: {each.message}" for each in thresholds.check(evaluation(**fields))]


def codes(**fields: Any) -> list[str]:
    return [each.code for each in thresholds.check(evaluation(**fields))]


def hints(**fields: Any) -> list[str | None]:
    return [each.hint for each in thresholds.check(evaluation(**fields))]


def whole(type_: str) -> dict[str, Any]:
    """Fields with which every metric of a type has what it needs."""
    more: dict[str, Any] = {"type": type_, "gold": "gold"}
    if type_ == "custom":
        return more | {"evaluator": "exact", "model_to_evaluate": "response"}
    more |= {"classify": {"pass_labels": ["polite"]}, "score": {"pass_threshold": 3}}.get(type_, {})
    return more | {"judge": WARM, "repeats": 2}


def bounds(type_: str, metric: str, **bound: float) -> list[str]:
    return found(thresholds={metric: bound}, **whole(type_))


@pytest.mark.parametrize("type_", list(Type))
def test_every_metric_of_a_type_can_have_a_threshold_and_stand_first(type_: Type) -> None:
    for name in summaries.NAMES[type_]:
        assert bounds(type_.value, name, max=1) == []
        assert found(metric=name, **whole(type_.value)) == []
    for name in {each for names in summaries.NAMES.values() for each in names} - set(summaries.NAMES[type_]):
        assert bounds(type_.value, name, min=0) == [f"error: `{name}` is no metric of type `{type_.value}`"]
        assert found(metric=name, **whole(type_.value)) == [f"error: `{name}` is no metric of type `{type_.value}`"]


@pytest.mark.parametrize(
    ("type_", "metric", "bound", "wrong"),
    [
        ("classify", "pass_percentage", {"min": 0, "max": 100}, 0),
        ("classify", "pass_percentage", {"min": 100.1}, 1),
        ("classify", "corrected_pass_percentage", {"min": 95}, 0),
        ("classify", "invalid_rate", {"max": 5}, 1),
        ("classify", "invalid_rate", {"max": 1}, 0),
        ("classify", "kappa", {"min": -1}, 0),
        ("classify", "kappa", {"min": -1.5, "max": 60}, 2),
        ("classify", "recall[rude]", {"min": 95}, 1),
        ("classify", "within_row_variance", {"max": 1}, 0),
        ("score", "mean_score", {"min": 1, "max": 5}, 0),
        ("score", "mean_score", {"min": 0.5, "max": 5.5}, 2),
        ("score", "median_score", {"min": 0.5}, 1),
        ("score", "normalized_mean", {"min": 4}, 1),
        ("score", "std_score", {"max": 4}, 0),
        ("score", "within_row_variance", {"max": 16}, 0),
        ("score", "within_row_variance", {"max": 17}, 1),
        ("score", "pearson", {"min": -0.5}, 0),
        ("score", "mae", {"max": 4.5}, 1),
        ("compare", "win_rate", {"min": 50}, 1),
        ("custom", "mean_score", {"min": 0.5}, 0),
        ("custom", "accuracy", {"min": 50}, 1),
        ("classify", "error_rate", {"min": 0.2, "max": 0.1}, 1),
    ],
)
def test_a_bound_that_nothing_can_break_or_keep(type_: str, metric: str, bound: dict[str, float], wrong: int) -> None:
    said = bounds(type_, metric, **bound)
    assert len(said) == wrong
    assert all(metric in each for each in said)


def test_a_range_that_is_upside_down_is_said_once() -> None:
    what = evaluation(type="score", min_score=5, max_score=1, thresholds={"mean_score": {"min": 3}})
    assert [each.code for each in semantics.check(what)] == ["spec/range"]


def test_what_a_metric_needs() -> None:
    assert codes(thresholds={"kappa": {"min": 0}}) == ["spec/needs-gold"]
    assert codes(thresholds={"recall[rude]": {"min": 0}}) == ["spec/needs-gold"]
    assert codes(thresholds={"pass_percentage": {"min": 0}}) == ["spec/needs-pass"]
    assert codes(type="score", thresholds={"pass_percentage": {"min": 0}}) == ["spec/needs-pass"]
    assert codes(thresholds={"agreement": {"min": 0}}) == ["spec/needs-votes"]
    assert codes(judge=WARM, repeats=2, thresholds={"within_row_variance": {"max": 1}}) == ["spec/needs-pass"]
    panel = [{"column": "one"}, {"column": "two"}]
    assert codes(judges=panel, thresholds={"agreement": {"min": 0}}) == []
    assert codes(judges=panel, thresholds={"flip_rate": {"max": 1}}) == ["spec/needs-votes"]


def test_the_headline_needs_the_same() -> None:
    assert codes(metric="kappa") == ["spec/needs-gold"]
    assert codes(metric="pass_percentage") == ["spec/needs-pass"]
    assert codes(type="score", metric="median") == ["spec/unknown-metric"]
    assert hints(type="score", metric="median") == ["it is called `median_score` here"]
    assert hints(type="score", thresholds={"pass_rate": {"min": 0}}) == ["it is called `pass_percentage` here"]
    assert hints(type="compare", metric="bradley_terry") == ["it is of several candidates: `evalops rank` has it"]
    assert hints(type="score", metric="median_scores") == ["did you mean `median_score`?"]
    assert codes(gold="gold", metric="recall[rude]") == ["spec/unknown-metric"]


def test_custom_needs_no_gold_for_its_accuracy() -> None:
    what = {"type": "custom", "evaluator": {"kind": "regex", "pattern": "a"}, "model_to_evaluate": "response"}
    assert codes(thresholds={"accuracy": {"min": 0.5}}, **what) == []


def test_a_label_or_criterion_that_there_is_not() -> None:
    assert found(gold="gold", thresholds={"recall[rud]": {"min": 0}}) == ["error: `rud` is no label"]
    assert hints(gold="gold", thresholds={"recall[rud]": {"min": 0}}) == ["did you mean `rude`?"]
    assert hints(gold="gold", thresholds={"f1": {"min": 0}}) == ["it is of one label: `f1[polite]`"]
    assert codes(type="compare", gold="gold", thresholds={"f1[Tie]": {"min": 0}}) == []
    assert codes(type="compare", gold="gold", thresholds={"f1[C]": {"min": 0}}) == ["spec/unknown-metric"]
    judge = {"model": "judge", "criteria": ["clarity"]}
    assert codes(type="score", judge=judge, thresholds={"mean_score[clarity]": {"min": 2}}) == []
    assert found(type="score", thresholds={"mean_score[x]": {"min": 2}}) == ["error: `x` is no criterion of the judge"]
    assert codes(gold="gold", thresholds={"kappa[rude]": {"min": 0}}) == ["spec/unknown-metric"]


def test_groups_must_be_asked_for() -> None:
    bound = {"pass_percentage": {"min": 90, "by": {"category": {"min": 80}}}}
    assert codes(pass_labels=["polite"], group_by=["category"], thresholds=bound) == []
    assert codes(pass_labels=["polite"], thresholds=bound) == ["spec/needs-groups"]
    assert hints(pass_labels=["polite"], group_by=["categories"], thresholds=bound) == ["did you mean `categories`?"]
    only = {"pass_percentage": {"by": {"category": {"min": 800}}}}
    assert codes(pass_labels=["polite"], group_by=["category"], thresholds=only) == ["spec/threshold"]
    for name in ("recall[rude]", "agreement"):
        one = {name: {"by": {"category": {"min": 0}}}}
        fields: dict[str, Any] = {"gold": "gold", "judge": WARM, "repeats": 2}
        assert codes(group_by=["category"], thresholds=one, **fields) == ["spec/needs-groups"]


def test_a_bound_of_an_interval_that_there_is_not() -> None:
    judged = whole("score")
    assert found(thresholds={"mean_score": {"min": 3, "on": "lower"}}, **judged) == []
    for name in summaries.NO_INTERVAL:
        assert found(thresholds={name: {"max": 1, "on": "estimate"}}, **judged) == []
        assert found(thresholds={name: {"max": 1, "on": "upper"}}, **judged) == [
            f"error: `{name}` has no interval, so it has no `upper` bound to hold against a threshold"
        ]
