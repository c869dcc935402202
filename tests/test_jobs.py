"""From a finished job to a lock entry."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from evaluations import evaluation

from evalops import jobs
from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.fingerprint import Digests, Identity
from evalops.lock import Entry, Status
from evalops.plan import Wanted
from evalops.result import Usage, Verdict, VerdictStatus
from evalops.spec import Type

DIGESTS = Digests(rows=3, dataset="d" * 64, submitted="s" * 64, grading="g" * 64, characters=9)
IDENTITY = Identity(fingerprint="f" * 64, inputs={"type": "classify"}, grade="new-grade", digests=DIGESTS)
VERDICTS = [
    Verdict("old-0", VerdictStatus.SCORED, "polite", None, "a long reason", None, "json_schema", (12,)),
    Verdict("old-1", VerdictStatus.SCORED, "rude", None, "another", None, "text", (7,)),
    Verdict("old-2", VerdictStatus.INVALID, None, "unparsable", "the text", None, "text"),
]


def wanted(**fields: Any) -> Wanted:
    return Wanted(evaluation(pass_labels=["polite"], **fields), IDENTITY)


def rows(count: int = 3) -> Iterator[tuple[str, Row]]:
    golds = ["polite", "polite", "rude"]
    return ((f"key-{n}", Row(n, n + 1, {"response": "x", "gold": golds[n % 3]})) for n in range(count))


def graded(what: Wanted, most: int = 100, **fields: Any) -> tuple[dict[str, Any], list[Verdict]]:
    return jobs.grade(what, rows(), VERDICTS, usage=Usage(calls=3), most=most, **fields)


def entry(**fields: Any) -> Entry:
    value: dict[str, Any] = {
        "address": "tone", "fingerprint": "f" * 64, "provider": "local", "job": "job-1", "status": Status.COMPLETED,
        "created_at": "2026-01-01T00:00:00Z", "dataset": {}, "inputs": {}, "grade": "old-grade",
    }  # fmt: skip
    return Entry(**(value | fields))


def test_verdicts_are_joined_to_their_rows_by_position() -> None:
    summary, kept = graded(wanted(gold="gold"))
    assert (summary["rows"], summary["scored"], summary["invalid"]) == (3, 2, 1)
    assert summary["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    # A corrected gold value changes the key of a row and not its verdict.
    assert [verdict.key for verdict in kept] == ["key-0", "key-1", "key-2"]
    assert [verdict.value for verdict in kept] == ["polite", "rude", None]


def test_what_is_kept_holds_no_text_of_dataset_or_judge() -> None:
    _, kept = graded(wanted())
    assert all(verdict.feedback is None and verdict.rung is None and not verdict.lengths for verdict in kept)


def test_a_column_that_is_not_gold_is_not_graded() -> None:
    assert graded(wanted())[0]["metrics"]["accuracy"]["reason"] == "no gold column"


def test_the_rungs_are_counted_or_taken_over() -> None:
    assert graded(wanted())[0]["rungs"] == {"json_schema": 1, "text": 2}
    assert graded(wanted(), rungs={"json_object": 3})[0]["rungs"] == {"json_object": 3}


@pytest.mark.parametrize(("most", "kept"), [(3, 3), (2, 0), (0, 0)])
def test_too_many_verdicts_are_not_kept_at_all(most: int, kept: int) -> None:
    summary, found = graded(wanted(), most)
    assert len(found) == kept and summary["rows"] == 3


@pytest.mark.parametrize(("count", "number"), [(2, 3), (4, 4), (0, 1)])
def test_rows_and_verdicts_that_do_not_pair_up_are_an_error(count: int, number: int) -> None:
    with pytest.raises(EvalopsError) as caught:
        jobs.grade(wanted(), rows(count), VERDICTS, usage={}, most=100)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "result/rows" and f"from row {number} on" in diagnostic.message
    assert diagnostic.address == "tone"


def test_an_entry_gets_its_result_with_the_job_it_is_of_and_its_gates() -> None:
    what = wanted(thresholds={"pass_percentage": {"min": 60}, "invalid_rate": {"max": 0.5}})
    summary, _ = graded(what)
    found = jobs.finished(entry(), what, {**summary, "job": "an-older-job"})
    assert found.summary is not None and next(iter(found.summary)) == "job" and found.summary["job"] == "job-1"
    assert [(gate["metric"], gate["verdict"]) for gate in found.gates] == [
        ("pass_percentage", "failed"),
        ("invalid_rate", "passed"),
    ]
    assert found.grade == "new-grade" and len(found.failed_gates) == 1


def test_an_entry_says_what_rows_it_is_of() -> None:
    assert jobs.dataset_of(IDENTITY) == {"rows": 3, "digest": "d" * 64, "submitted": "s" * 64}


def test_the_headline_is_a_number_that_there_is() -> None:
    summary, _ = graded(wanted(gold="gold"))
    found = jobs.headline(Type.CLASSIFY, summary)
    assert found is not None and found[1]["value"] is not None
    assert jobs.headline(Type.CLASSIFY, None) is None
    assert jobs.headline(Type.CLASSIFY, {}) is None


def test_what_the_spec_puts_first_stands_first() -> None:
    what = wanted(gold="gold", metric="macro_f1")
    found = jobs.finished(entry(), what, graded(what)[0])
    assert found.summary is not None and found.summary["headline"] == "macro_f1"
    first = jobs.headline(Type.CLASSIFY, found.summary)
    assert first is not None and first[0] == "macro_f1"
    absent = {**found.summary, "headline": "kappa_scored"}
    absent["metrics"] = {**absent["metrics"], "kappa_scored": {"value": None, "reason": "no"}}
    assert jobs.headline(Type.CLASSIFY, absent) is None
    again = jobs.finished(found, wanted(gold="gold"), dict(found.summary))
    assert again.summary is not None and "headline" not in again.summary


def test_groups_clusters_and_lengths_come_from_the_row() -> None:
    what = evaluation(group_by=["topic", "safe", "level"], cluster="thread", gold="gold")
    cells: dict[str, Any] = {"response": "four", "topic": "a", "safe": True, "level": 2, "thread": "", "gold": "polite"}
    found = jobs.graded_row(what, VERDICTS[0]._replace(lengths=()), Row(7, 8, cells))
    assert found.groups == ("a", "true", "2") and found.gold == "polite" and found.verdict.lengths == (4,)
    empty = jobs.graded_row(what, VERDICTS[0], Row(8, 9, {"response": "x", "topic": "", "safe": None}))
    assert empty.groups == ("(none)",) * 3 and empty.verdict.lengths == (12,)
    # A row without a cluster is one by itself, which no cell can name.
    assert found.cluster != empty.cluster
    named = jobs.graded_row(what, VERDICTS[0], Row(9, 10, {**cells, "thread": found.cluster}))
    assert named.cluster not in (found.cluster, empty.cluster)
    assert jobs.graded_row(evaluation(), VERDICTS[0], Row(7, 8, cells)).cluster is None


def test_a_response_that_a_model_wrote_has_no_length_here() -> None:
    what = evaluation(model_to_evaluate={"model": "writer", "input_template": "{{ q }}"})
    assert jobs.graded_row(what, VERDICTS[0]._replace(lengths=()), Row(0, 1, {"q": "long"})).verdict.lengths == ()
    pair = evaluation(type="compare", model_a="first", model_b={"model": "writer", "input_template": "{{ q }}"})
    verdict = Verdict("k", VerdictStatus.SCORED, "A")
    assert jobs.graded_row(pair, verdict, Row(0, 1, {"q": "long", "first": "x"})).verdict.lengths == ()


def test_a_summary_of_other_grading_does_not_answer() -> None:
    what = wanted(gold="gold")
    found = jobs.finished(entry(), what, graded(what)[0])
    assert jobs.suffices(found, what)
    assert not jobs.suffices(entry(), what)
    assert not jobs.suffices(replace(found, grade="other"), what)
    assert jobs.suffices(found, wanted(gold="gold", thresholds={"f1[rude]": {"min": 0}}))
    assert not jobs.suffices(found, wanted(gold="gold", metric="agreement"))
