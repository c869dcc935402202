"""How results moved, from lock entries and verdicts made by hand: what counts as the same work, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from evaluations import evaluation

from evalops import review
from evalops.lock import Entry, Status
from evalops.result import Value, Verdict, VerdictStatus
from evalops.review import Kind, Review, Side, Trend
from evalops.views import review as views_review
from evalops.views.text import plain

GATE = {"metric": "pass_percentage", "min": 80.0, "on": "estimate", "value": 90.0, "verdict": "passed"}


def entry(address: str = "tone", *, passed: float = 90.0, job: str = "job-1", **changes: Any) -> Entry:
    """A finished classify with a pass percentage."""
    made = Entry(
        address=address,
        fingerprint=job.ljust(64, "0"),
        provider="local",
        job=job,
        status=Status.COMPLETED,
        created_at="2026-01-31T08:00:00Z",
        dataset={"rows": 40, "digest": "d" * 64, "submitted": "s" * 64},
        inputs={"type": "classify", "judge.model": "m", "labels": "polite, rude"},
        grade="g" * 64,
        summary={
            "job": job,
            "rows": 40,
            "scored": 40,
            "invalid": 0,
            "errors": 0,
            "metrics": {"pass_percentage": {"value": passed, "low": passed - 9, "high": passed + 5, "n": 40}},
        },
        gates=(GATE,),
    )
    return replace(made, **changes)


def verdicts(values: Sequence[Value], prefix: str = "r") -> list[Verdict]:
    return [
        Verdict(f"{prefix}{number:03}", VerdictStatus.SCORED if value is not None else VerdictStatus.INVALID, value)
        for number, value in enumerate(values)
    ]


def side(*entries: Entry, kept: Mapping[str, Sequence[Verdict]] | None = None) -> Side:
    return Side(
        entries={each.address: each for each in entries}, verdicts=lambda each: (kept or {}).get(each.job or "")
    )


SPEC = {"tone": evaluation(pass_labels=["polite"], dataset="rows.jsonl")}
OLD, NEW = ["polite"] * 36 + ["rude"] * 4, ["polite"] * 20 + ["rude"] * 20
KEPT = {"job-1": verdicts(OLD), "job-2": verdicts(NEW)}


def one(before: Side, after: Side, evaluations: Any = SPEC) -> review.Move:
    (move,) = review.build(before, after, evaluations).moves
    return move


# --- what happened ---


def test_the_same_entry_on_both_sides_is_the_same() -> None:
    assert one(side(entry()), side(entry())).kind is Kind.SAME
    other_dataset = entry(dataset={"rows": 40, "digest": "e" * 64, "submitted": "s" * 64})
    assert one(side(entry()), side(other_dataset)).kind is Kind.SAME


def test_new_and_gone() -> None:
    found = review.build(side(entry("a")), side(entry("b", job="job-2")), {})
    assert [(move.address, move.kind) for move in found.moves] == [("a", Kind.GONE), ("b", Kind.NEW)]
    assert found.moves[0].before == ("pass_percentage", entry().summary["metrics"]["pass_percentage"])  # type: ignore[index]
    assert found.moves[1].before is None


def test_a_rename_is_the_same_work_under_another_name() -> None:
    move = one(side(entry("a")), side(entry("b")))
    assert (move.kind, move.was, move.address, move.paired) == (Kind.RENAMED, "a", "b", None)


def test_a_copy_is_new_and_takes_no_name_away() -> None:
    found = review.build(side(entry("a")), side(entry("a"), entry("b")), {})
    assert [move.kind for move in found.moves] == [Kind.SAME, Kind.NEW]


def test_of_two_new_names_one_is_the_rename() -> None:
    found = review.build(side(entry("a")), side(entry("b"), entry("c")), {})
    assert [move.kind for move in found.moves] == [Kind.RENAMED, Kind.NEW]


@pytest.mark.parametrize("gates", [({**GATE, "min": 95.0, "verdict": "failed"},), (), ({**GATE, "on": "lower"},)])
def test_another_threshold_is_free(gates: tuple[Mapping[str, Any], ...]) -> None:
    move = one(side(entry()), side(entry(gates=gates)))
    assert move.kind is Kind.REGRADED and move.paired is None
    (gate,) = move.gates
    assert gate.is_changed and gate.is_turned == bool(gates and gates[0]["verdict"] == "failed")


def test_other_pass_labels_are_free_and_said() -> None:
    move = one(side(entry()), side(entry(passed=50.0, grade="h" * 64)))
    assert move.kind is Kind.REGRADED and "read anew" in move.notes[0]


def test_a_job_under_way_has_not_moved_anything() -> None:
    for status in (Status.RUNNING, Status.FAILED):
        move = one(side(entry()), side(entry(job="job-2", status=status, summary=entry().summary, message="it broke")))
        assert (move.kind, move.after, move.notes) == (Kind.OPEN, None, ("no result yet: it broke",))
        assert move.before is not None


def test_a_base_without_a_result_gives_nothing_to_compare() -> None:
    move = one(side(entry(summary=None, status=Status.PENDING)), side(entry()))
    assert move.kind is Kind.MOVED and move.paired is None and "no result of it" in move.notes[-1]


# --- what moved, and why ---


def test_a_moved_score_comes_with_a_paired_test_and_the_reason() -> None:
    after = entry(
        job="job-2", passed=50.0, inputs={**entry().inputs, "judge.model": "n"}, gates=({**GATE, "verdict": "failed"},)
    )
    move = one(side(entry(), kept=KEPT), side(after, kept=KEPT))
    assert move.kind is Kind.MOVED and move.trend is Trend.DOWN
    assert move.paired is not None and move.paired.test == "McNemar's exact test"
    assert (move.paired.lost, move.paired.gained, move.paired.difference.value) == (16, 0, -40.0)
    assert [(each.name, each.before, each.after) for each in move.fields] == [("judge.model", "m", "n")]
    assert [gate.is_turned for gate in move.gates] == [True]
    assert any("judge changed" in note for note in move.notes)
    assert len(move.flips) == review.SHOWN


def test_the_reason_of_a_rerun_is_said() -> None:
    after = entry(generation=2, reason="the endpoint was upgraded", job="job-2")
    move = one(side(entry(), kept=KEPT), side(after, kept=KEPT))
    assert move.notes[0] == "run again: the endpoint was upgraded" and move.fields == ()


@pytest.mark.parametrize(
    ("changes", "submitted", "is_said"),
    [({}, "s", True), ({"gold": "truth"}, "s", True), ({"gold": "truth"}, "t", False), ({}, "t", True)],
)
@pytest.mark.parametrize("grading", [{}, {"group_by": ["channel"]}, {"cluster": "thread"}])
def test_other_rules_are_said_only_where_no_added_row_can_be_why(
    changes: dict[str, Any], grading: dict[str, Any], submitted: str, is_said: bool
) -> None:
    dataset = {"rows": 41, "digest": "e" * 64, "submitted": submitted * 64}
    spec = {"tone": evaluation(pass_labels=["polite"], dataset="rows.jsonl", **changes, **grading)}
    move = one(side(entry()), side(entry(job="job-2", grade="h" * 64, dataset=dataset)), spec)
    is_said = is_said and (submitted == "s" or not grading)
    assert any("what counts as a pass" in note for note in move.notes) is is_said


def test_without_its_spec_other_rules_are_said_only_of_the_same_rows() -> None:
    dataset = {"rows": 41, "digest": "e" * 64, "submitted": "t" * 64}
    for found, is_said in ((entry().dataset, True), (dataset, False)):
        move = one(side(entry()), side(entry(job="job-2", grade="h" * 64, dataset=found)), {})
        assert any("what counts as a pass" in note for note in move.notes) is is_said


@pytest.mark.parametrize(("prefix", "is_said"), [("r", True), ("s", False)])
def test_other_columns_of_the_same_rows_hide_no_other_rules(prefix: str, is_said: bool) -> None:
    spec = {"tone": evaluation(pass_labels=["polite"], dataset="rows.jsonl", gold="truth")}
    kept = {"job-1": verdicts(OLD), "job-2": verdicts(OLD, prefix)}
    after = entry(job="job-2", grade="h" * 64, dataset={**entry().dataset, "submitted": "t" * 64})
    move = one(side(entry(), kept=kept), side(after, kept=kept), spec)
    assert any("what counts as a pass" in note for note in move.notes) is is_said


def test_what_got_worse_is_shown_first() -> None:
    kept = {"job-1": verdicts(["rude"] * 15 + ["polite"] * 2), "job-2": verdicts(["polite"] * 15 + ["rude"] * 2)}
    move = one(side(entry(), kept=kept), side(entry(job="job-2"), kept=kept))
    assert [each.flip.key for each in move.flips][:3] == ["r015", "r016", "r000"]


def test_a_little_is_within_chance() -> None:
    kept = {"job-1": verdicts(OLD), "job-2": verdicts(["rude", *OLD[1:]])}
    assert one(side(entry(), kept=kept), side(entry(job="job-2", passed=87.5), kept=kept)).trend is Trend.LEVEL


@pytest.mark.parametrize("missing", ["job-1", "job-2"])
def test_without_verdicts_of_a_side_the_difference_is_not_paired_and_says_so(missing: str) -> None:
    kept = {job: found for job, found in KEPT.items() if job != missing}
    move = one(side(entry(), kept=kept), side(entry(job="job-2", passed=50.0), kept=kept))
    assert move.paired is not None and move.paired.p is None and move.paired.difference.value == -40.0
    assert move.trend is Trend.DOWN
    assert "not paired: no verdicts file" in move.notes[-1]
    assert ("base" in move.notes[-1]) == (missing == "job-1")


def test_rows_that_only_one_side_has_are_left_out_counted_and_named() -> None:
    kept = {"job-1": verdicts(OLD)[2:], "job-2": verdicts(NEW)[:-1]}
    move = one(side(entry(), kept=kept), side(entry(job="job-2"), kept=kept))
    assert move.paired is not None and move.paired.shared == 37
    assert move.notes[-1] == "rows left out of the difference: 2 new (r000, r001), 1 gone (r039)"


def test_with_no_shared_row_the_summaries_are_compared() -> None:
    kept = {"job-1": verdicts(OLD), "job-2": verdicts(NEW, "s")}
    move = one(side(entry(), kept=kept), side(entry(job="job-2", passed=50.0), kept=kept))
    assert move.paired is not None and move.paired.test == "two separate samples"
    assert "no row has a verdict in both" in move.notes[-1]


@pytest.mark.parametrize("values", [[3.0] * 40, [*OLD[:-1], 4.0]])
def test_verdicts_of_another_type_are_not_compared(values: list[Value]) -> None:
    kept = {"job-1": verdicts(values), "job-2": verdicts(NEW)}
    move = one(side(entry(), kept=kept), side(entry(job="job-2", passed=50.0), kept=kept))
    assert "does not fit the type" in move.notes[-1]


def test_a_score_that_no_float_holds_is_not_compared() -> None:
    scores = {"tone": evaluation(type="score", min_score=1, max_score=5, dataset="rows.jsonl")}
    kept = {"job-1": verdicts([10**400, 3.0]), "job-2": verdicts([4.0, 3.0])}
    inputs = {"type": "score"}
    move = one(side(entry(inputs=inputs), kept=kept), side(entry(job="job-2", inputs=inputs), kept=kept), scores)
    assert "does not fit the type" in move.notes[-1]


def test_two_verdicts_on_one_row_are_not_paired() -> None:
    kept = {**KEPT, "job-1": [*KEPT["job-1"], KEPT["job-1"][0]]}
    move = one(side(entry(), kept=kept), side(entry(job="job-2"), kept=kept))
    assert "has two verdicts" in move.notes[-1]


def test_another_type_is_another_thing() -> None:
    after = entry(job="job-2", inputs={"type": "score"}, summary={**entry().summary, "metrics": {}})  # type: ignore[dict-item]
    move = one(side(entry(), kept=KEPT), side(after, kept=KEPT), {})
    assert move.paired is None and "the type changed" in move.notes[-1]


def test_without_its_spec_a_result_is_compared_by_its_summary() -> None:
    move = one(side(entry(), kept=KEPT), side(entry(job="job-2", passed=50.0), kept=KEPT), {})
    assert move.paired is not None and move.paired.p is None and "cannot be read" in move.notes[-1]


def test_p_values_count_all_evaluations_in() -> None:
    names = [f"tone{number}" for number in range(10)]
    kept = {"job-1": verdicts(OLD), "job-2": verdicts(["rude"] * 7 + OLD[7:])}
    specs = {name: replace(SPEC["tone"], address=name) for name in names}
    before = side(*(entry(name) for name in names), kept=kept)
    found = review.build(before, side(*(entry(name, job="job-2") for name in names), kept=kept), specs)
    (p,) = {move.paired.p_adjusted for move in found.moves if move.paired}
    assert p == pytest.approx(10 * 2 / 2**7)
    assert {move.trend for move in found.moves} == {Trend.LEVEL}
    alone = one(side(entry(), kept=kept), side(entry(job="job-2"), kept=kept))
    assert alone.trend is Trend.DOWN


def test_the_machine_form_counts_everything_and_leaves_out_what_is_the_same() -> None:
    failing = entry("bad", gates=({**GATE, "verdict": "failed"},))
    value = review.build(side(entry("a"), failing), side(entry("a"), failing, entry("b", job="job-3")), {}).to_json()
    assert value["totals"] == {
        "moved": 0, "new": 1, "gone": 0, "renamed": 0, "regraded": 0, "open": 0, "same": 2,
        "trends": {"up": 0, "down": 0, "level": 0}, "failed_gates": 1,
    }  # fmt: skip
    assert [each["address"] for each in value["moves"]] == ["b"]
    assert value["failed_gates"][0]["address"] == "bad"
    assert Review(moves=()).to_json()["moves"] == []


# --- the smallest detectable change ---


def shown(old: Sequence[Value], new: Sequence[Value], **spec: Any) -> str:
    kept = {"job-1": verdicts(old), "job-2": verdicts(new)}
    inputs = {"type": spec.get("type", "classify")}
    before, after = entry(inputs=inputs), entry(job="job-2", inputs=inputs)
    specs = {"tone": evaluation(dataset="rows.jsonl", **spec)} if spec else SPEC
    found = review.build(side(before, kept=kept), side(after, kept=kept), specs)
    value = {**found.to_json(), "base": {"name": "main", "commit": "c" * 40}}
    return plain(views_review.show(value))


def test_where_rows_show_no_difference_it_is_said_how_large_it_had_to_be() -> None:
    old, new = ["polite"] * 200, ["rude"] * 20 + ["polite"] * 180
    mixed = shown([*new[:10], *old[10:]], [*old[:10], *new[10:]])
    assert "smallest detectable change with these rows: 6.2 points (80 % power, tested alone)" in mixed
    assert "smallest detectable" not in shown(old, new), "it was shown"
    assert "smallest detectable" not in shown(old, old) and "smallest detectable" not in shown(OLD, ["rude", *OLD[1:]])


def test_of_means_too() -> None:
    compare = {"type": "compare"}
    text = shown(["A", "B"] * 50, ["A", "B"] * 40 + ["B", "A"] * 10, **compare)
    assert "smallest detectable change with these rows: 0.1" in text
    assert "smallest detectable" not in shown(["A", "B"] * 50, ["A", "B"] * 50, **compare)
