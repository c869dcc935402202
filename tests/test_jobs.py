"""From a finished job to a lock entry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from evaluations import evaluation

from evalops import jobs
from evalops.dataset import Row
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
