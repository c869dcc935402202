"""What the service counted against what its result file has."""

from __future__ import annotations

import json
from typing import Any

import pytest
from evaluations import evaluation

from evalops.providers.together_counts import Tally
from evalops.result import Value, Verdict, VerdictStatus

LABELS: list[Value] = ["polite", "polite", "rude"]
GOOD = {"label_counts": {"polite": 2, "rude": 1}, "invalid_label_count": 0, "judge_fail_count": 0,
        "generation_fail_count": 0}  # fmt: skip
SCORE = {"type": "score", "labels": None, "pass_labels": None, "min_score": 1, "max_score": 5, "pass_threshold": 3}
COMPARE = {"type": "compare", "labels": None, "pass_labels": None, "model_to_evaluate": None, "model_a": "response",
           "model_b": "question"}  # fmt: skip


def differences(counts: dict[str, Any], values: list[Value], **fields: Any) -> list[str]:
    """What is said of verdicts with these values; None is a row without one."""
    tally = Tally()
    for value in values:
        status = VerdictStatus.ERROR if value is None else VerdictStatus.SCORED
        tally.add(Verdict("k", status, value))
    return list(tally.differences(evaluation(**fields), counts))


@pytest.mark.parametrize(
    ("counts", "values"),
    [
        (GOOD, LABELS),
        ({**GOOD, "label_counts": json.dumps(GOOD["label_counts"])}, LABELS),  # as the SDK's types have it
        ({**GOOD, "label_counts": {"polite": 3.0}}, ["polite"] * 3),
        ({}, LABELS),
        ({"label_counts": None, "invalid_label_count": "many"}, LABELS),
        ({"label_counts": "{"}, LABELS),
        ({**GOOD, "judge_fail_count": 1}, [*LABELS, None]),
        ({**GOOD, "invalid_label_count": 1}, [*LABELS, None]),
        ({**GOOD, "invalid_label_count": 1, "label_counts": {"polite": 3, "rude": 1}}, [*LABELS, None]),
        ({**GOOD, "judge_fail_count": 5}, [*LABELS, None]),  # it may count attempts
    ],
)
def test_labels_that_agree(counts: dict[str, Any], values: list[Value]) -> None:
    assert differences(counts, values) == []


@pytest.mark.parametrize(
    ("counts", "values", "said"),
    [
        ({"label_counts": {"polite": 1, "rude": 1}}, LABELS, ["Together counts 1 of `polite`, its result file has 2"]),
        ({"label_counts": {}}, LABELS, ["Together counts 0 of `polite`, its result file has 2",
                                        "Together counts 0 of `rude`, its result file has 1"]),
        ({"label_counts": {"polite": 3, "rude": 2}}, [*LABELS, None],
         ["Together counts 5 verdicts, its result file has 4 rows"]),
        ({**GOOD, "invalid_label_count": 1}, LABELS,
         ["Together counts 1 as unusable, its result file has 0 without a verdict"]),
        (GOOD, [*LABELS, None],
         ["the result file has 1 without a verdict, Together counts 0 as failed or unusable"]),
    ],
)  # fmt: skip
def test_labels_that_do_not(counts: dict[str, Any], values: list[Value], said: list[str]) -> None:
    assert differences(counts, values) == said


@pytest.mark.parametrize(
    ("scores", "values", "is_right"),
    [
        ({"mean_score": 2.0}, [1.0, 2.0, 3.0], True),
        ({"mean_score": 2.33}, [1.0, 2.0, 4.0], True),  # two digits
        ({"mean_score": 2.3}, [1.0, 2.0, 4.0], False),
        ({"mean_score": 3}, [1.0, 2.0, 3.0], False),
        ({"mean_score": float("nan")}, [1.0], False),
        ({"mean_score": 3}, [1.0, None], True),  # what a row without a verdict counts is not known
        ({"mean_score": None}, [1.0], True),
        ({"mean_score": True}, [2.0], True),
        ({}, [1.0], True),
        (None, [1.0], True),
        ({"mean_score": 1.0}, [], True),
    ],
)
def test_the_mean_of_scores(scores: Any, values: list[Value], is_right: bool) -> None:
    said = differences({"aggregated_scores": scores}, values, **SCORE)
    assert (said == []) is is_right and all("mean score" in each for each in said)


def test_scores_that_are_none() -> None:
    counts = {"invalid_score_count": 2, "judge_fail_count": 0, "generation_fail_count": 0, "failed_samples": 2}
    assert differences(counts, [1.0, None, None], **SCORE) == []
    assert len(differences(counts, [1.0, 2.0, None], **SCORE)) == 1
    assert len(differences(counts, [None, None, None], **SCORE)) == 1


@pytest.mark.parametrize(
    ("wins", "values", "wrong"),
    [
        ((1, 1, 1), ["A", "B", "Tie"], 0),
        ((1, 1, 2), ["A", "B", "Tie", None], 0),  # what nobody could read may be a tie
        ((2, 1, 1), ["A", "B", "Tie", None], 0),
        ((2, 0, 1), ["A", "B", "Tie"], 2),
        ((2, 2, 1), ["A", "B", "Tie", None], 1),
        ((1, 1, 0), ["A", "B", "Tie"], 1),
    ],
)
def test_choices(wins: tuple[int, int, int], values: list[Value], wrong: int) -> None:
    counts = dict(zip(("A_wins", "B_wins", "Ties"), wins, strict=True))
    assert len(differences(counts, values, **COMPARE)) == wrong
    assert differences({"judge_fail_count": 9}, values, **COMPARE) == []
