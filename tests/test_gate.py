"""Thresholds held against summaries as lockfiles have them, those of earlier versions included."""

from __future__ import annotations

from typing import Any

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops import schema
from evalops.metrics import gate
from evalops.spec import Threshold
from evalops.views import text

PLAIN: dict[str, Any] = {
    "metrics": {
        "pass_percentage": {"value": 80.0, "low": 70.0, "high": 90.0, "n": 60},
        "kappa": {"value": None, "reason": "no gold column"},
        "mean_score": {"value": 3.0},
    }
}


def metric(value: float | None, low: float = 0.0, high: float = 100.0) -> dict[str, Any]:
    return (
        {"value": None, "reason": "no row has a verdict"}
        if value is None
        else {"value": value, "low": low, "high": high}
    )


def grouped(**values: float | None) -> dict[str, Any]:
    groups = {
        name: {"rows": 9, "scored": 9, "metrics": {"pass_percentage": metric(value)}} for name, value in values.items()
    }
    return {**PLAIN, "groups": {"category": groups}, "ungrouped": {"id": "more than 200 different values"}}


def by(**bound: Any) -> Threshold:
    return Threshold(metric="pass_percentage", **{"by": "category", **bound})


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
    found = gate.check(Threshold(metric="pass_percentage", **bound), PLAIN)
    assert found["verdict"] == verdict and "reason" not in found
    assert (found["low"], found["high"]) == (70.0, 90.0)
    assert found.get("estimate") == (80.0 if "on" in bound else None)


@pytest.mark.parametrize(
    ("threshold", "reason"),
    [
        (Threshold(metric="kappa", min=0.0), "no gold column"),
        (Threshold(metric="mean_score", min=1.0, on="lower"), "it has no interval"),
        (Threshold(metric="unheard", max=1.0), "this metric is not known"),
        (Threshold(metric="recall[rude]", min=0.5), "`rude` has no such number here"),
        (Threshold(metric="mean_score[clarity]", min=0.5), "`clarity` has no such number here"),
        (by(by="tier", min=1.0), "there is no breakdown by `tier`"),
        (by(by="id", min=1.0), "more than 200 different values"),
        (by(min=1.0), "no row has a verdict"),
    ],
)
def test_what_is_not_known_does_not_pass(threshold: Threshold, reason: str) -> None:
    found = gate.check(threshold, grouped(one=None, two=90.0))
    assert (found["verdict"], found["value"], found["reason"]) == ("failed", None, reason)


def test_one_label_or_criterion() -> None:
    part = {"support": 3, "precision": metric(0.5), "recall": metric(0.25, 0.1, 0.4), "f1": metric(0.3)}
    summary = {**PLAIN, "per_label": {"rude [a]": part}, "criteria": {"clarity": metric(4.0)}}
    assert gate.check(Threshold(metric="recall[rude [a]]", min=0.3, on="upper"), summary)["value"] == 0.4
    assert gate.check(Threshold(metric="mean_score[clarity]", min=3.5), summary)["verdict"] == "passed"


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.none() | st.integers(0, 1000).map(lambda n: n / 8), min_size=1),
    st.integers(0, 1000).map(lambda n: n / 8),  # whose differences are exact
    st.booleans(),
)
def test_every_group_must_keep_the_bound(values: dict[str, float | None], bound: float, is_min: bool) -> None:
    found = gate.check(by(**{"min" if is_min else "max": bound}), grouped(**values))
    broken = {name for name, value in values.items() if value is None or (value < bound if is_min else value > bound)}
    assert found["verdict"] == ("failed" if broken else "passed")
    assert set(found.get("failed_groups", ())) == broken and found.get("failed", 0) == len(broken)
    assert found["value"] == values[found["group"]] and found["groups"] == len(values)
    known = [value for value in values.values() if value is not None]
    if None in values.values():
        assert found["value"] is None
    else:
        assert found["value"] == (min(known) if is_min else max(known))


def test_many_failing_groups_are_counted_and_some_named() -> None:
    found = gate.check(by(min=50.0), grouped(**{f"g{n}": 10.0 for n in range(90)}))
    assert found["failed"] == 90 and len(found["failed_groups"]) == gate.MOST_NAMED
    assert "(90 of 90 groups: g0, g1, g2, g3, g4 …)" in text.gate(found)


def test_a_gate_as_it_is_printed() -> None:
    assert text.gate(gate.check(Threshold(metric="pass_percentage", min=75.0), PLAIN)) == (
        "passed: pass_percentage 80 [70, 90], min 75"
    )
    assert text.gate(gate.check(Threshold(metric="pass_percentage", min=75.0, on="lower"), PLAIN)) == (
        "failed: pass_percentage (lower bound) 70 of 80 [70, 90], min 75"
    )
    assert text.gate(gate.check(by(min=75.0), grouped(billing=60.0, other=90.0))) == (
        "failed: pass_percentage by category 60 [0, 100] in billing, min 75 (1 of 2 groups: billing)"
    )
    assert text.gate(gate.check(Threshold(metric="kappa", min=0.5), PLAIN)) == (
        "failed: kappa none, min 0.5: no gold column"
    )
    earlier = {"metric": "kappa", "min": 0.5, "on": "estimate", "value": 0.25, "verdict": "failed"}
    assert text.gate(earlier) == "failed: kappa 0.25, min 0.5"


@pytest.mark.parametrize(
    ("fields", "summary", "enough"),
    [
        ({}, PLAIN, True),
        ({"thresholds": {"pass_percentage": {"min": 1}}}, PLAIN, True),
        ({"thresholds": {"kappa": {"min": 0}}}, PLAIN, True),
        ({"thresholds": {"macro_f1": {"min": 0}}}, PLAIN, False),
        ({"thresholds": {"f1[rude]": {"min": 0}}}, PLAIN, False),
        ({"thresholds": {"pass_percentage": {"by": {"category": {"min": 1}}}}}, PLAIN, False),
        ({"thresholds": {"pass_percentage": {"by": {"category": {"min": 1}}}}}, grouped(a=1.0), True),
        ({"thresholds": {"kappa": {"by": {"category": {"min": 0}}}}}, grouped(a=1.0), False),
        ({"thresholds": {"kappa": {"by": {"id": {"min": 0}}}}}, grouped(a=1.0), True),
        ({"metric": "macro_f1"}, PLAIN, False),
        ({"metric": "pass_percentage"}, PLAIN, True),
        ({}, {}, True),
        ({"metric": "pass_percentage"}, {}, False),
    ],
)
def test_whether_a_stored_summary_answers(fields: dict[str, Any], summary: dict[str, Any], enough: bool) -> None:
    assert gate.suffices(evaluation(gold="gold", group_by=["category", "id"], **fields), summary) == enough


def test_every_gate_is_one_that_the_schema_of_locks_knows() -> None:
    thresholds = [
        by(min=1.0),
        by(min=95.0),
        by(by="id", max=1.0),
        Threshold(metric="pass_percentage", max=2, on="upper"),
    ]
    entry = schema.whole("lock")["properties"]["evaluations"]["additionalProperties"]
    known = set(entry["properties"]["gates"]["items"]["properties"])
    for threshold in thresholds:
        assert set(gate.check(threshold, grouped(one=90.0))) <= known
