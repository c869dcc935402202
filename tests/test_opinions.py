"""Repeats and juries: flips, variances, agreement, each judge by itself, and the rows to read."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from evaluations import evaluation

from evalops.metrics import summaries
from evalops.metrics.opinions import LOST, MOST_ROWS, NAMES
from evalops.result import Graded, Usage, Verdict, VerdictStatus, Vote, to_json
from evalops.spec import Evaluation
from evalops.stats import agreement

SCORED, INVALID, ERROR = VerdictStatus
WARM = {"model": "judge", "temperature": 1}
LABELS = ["good", "bad"]
REPEATS = evaluation(labels=LABELS, pass_labels=["good"], judge=WARM, repeats=3, gold="gold")
PANEL = evaluation(
    labels=LABELS, pass_labels=["good"], judges=[{"column": "one"}, {"column": "two"}, {"column": "three"}], gold="gold"
)
SCORES = evaluation(type="score", judges=[{"model": "small"}, {"model": "large"}], repeats=2)


def voted(key: str, votes: Sequence[Sequence[Any]], gold: Any = None, value: Any = "good") -> Graded:
    """A row with each judge's values at each repeat; None is a vote that cannot be read."""
    found = [
        Vote(judge, repeat, INVALID if each is None else SCORED, each, "unparsable" if each is None else None)
        for judge, values in enumerate(votes)
        for repeat, each in enumerate(values, 1)
    ]
    return Graded(Verdict(key, SCORED, value, votes=tuple(found)), gold)


def summary(what: Evaluation, rows: Iterable[Graded]) -> dict[str, Any]:
    value = to_json(summaries.summarise(what, rows), Usage(), {})
    found: dict[str, Any] = json.loads(json.dumps(value, allow_nan=False))
    return found


def test_repeats_that_flip() -> None:
    rows = [voted("a", [["good"] * 3])] * 3 + [voted("b", [["good", "bad", "good"]])]
    found = summary(REPEATS, rows)
    flips = found["metrics"]["flip_rate"]
    assert (flips["value"], flips["n"]) == (0.25, 4)
    counts = {("good",) * 3: 3, ("bad", "good", "good"): 1}
    assert found["metrics"]["agreement"] == agreement.alpha_of_labels(counts).to_json()
    parts = agreement.components({(1.0, 1.0, 1.0): 3, (0.0, 1.0, 1.0): 1})
    assert parts is not None
    assert found["metrics"]["between_row_variance"]["value"] == parts.between
    assert found["metrics"]["within_row_variance"]["value"] == parts.within > 0
    assert found["disagreements"] == ["b"]
    assert "judges" not in found


def test_each_judge_of_a_panel_by_itself() -> None:
    rows = [voted("a", [["good"], ["good"], ["bad"]], "good"), voted("b", [["bad"], [None], ["bad"]], "bad")] * 20
    found = summary(PANEL, rows)
    one, two, three = found["judges"]
    assert [each["judge"] for each in found["judges"]] == ["column one", "column two", "column three"]
    assert (one["votes"], one["scored"], two["scored"], two["invalid"]) == (40, 40, 20, 20)
    assert one["metrics"]["accuracy"]["value"] == 1 and one["metrics"]["pass_percentage"]["value"] == 50
    assert two["metrics"]["accuracy"]["value"] == 0.5 and two["metrics"]["pass_percentage"]["value"] == 100
    assert three["metrics"]["pass_percentage"]["value"] == 0 and "kappa" in one["metrics"]
    expected = agreement.alpha_of_labels({("good", "good", "bad"): 20, ("bad", "bad"): 20})
    assert found["metrics"]["agreement"] == expected.to_json()
    assert found["metrics"]["flip_rate"] == {"value": None, "reason": "no repeats"}


def test_a_judges_repeats_are_one_opinion_and_not_so_many_rows() -> None:
    chance = random.Random(3)
    rows = []
    for number in range(60):
        level = chance.choice([2.0, 3.0, 4.0])
        votes = [[level + chance.choice([-1.0, 0.0, 1.0]) for _ in range(2)] for _ in range(2)]
        rows.append(voted(str(number), votes, value=level))
    found = summary(SCORES, rows)
    means = {}
    for row in rows:
        values = [vote.value for vote in row.verdict.votes]
        opinion = tuple(sorted(((values[0] + values[1]) / 2, (values[2] + values[3]) / 2)))
        means[opinion] = means.get(opinion, 0) + 1
    assert found["metrics"]["agreement"] == agreement.alpha_of_scores(means).to_json()
    assert found["judges"][0]["metrics"]["mean_score"]["clusters"] == 60
    assert found["judges"][0]["votes"] == 120


def test_the_rows_with_the_greatest_disagreement_come_first() -> None:
    rows = [voted(f"r{n:02}", [[1.0, 1.0], [1.0, 1.0 + n / 10]], value=1.0) for n in range(40)]
    found = summary(SCORES, rows)["disagreements"]
    assert found == [f"r{n:02}" for n in range(39, 39 - MOST_ROWS, -1)]
    same = [voted(f"r{n:02}", [["good"], ["bad"], ["good"]]) for n in range(40)]
    assert summary(PANEL, same)["disagreements"] == [f"r{n:02}" for n in range(MOST_ROWS)]
    assert "disagreements" not in summary(PANEL, [voted("a", [["good"]] * 3)])


def test_a_cascade_that_was_sure_has_one_vote() -> None:
    what = evaluation(labels=LABELS, judges=[{"model": "small"}, {"model": "large"}], vote={"cascade": True})
    rows = [Graded(Verdict("a", SCORED, "good"), None), voted("b", [[None], ["bad"]], value="bad")]
    small, large = summary(what, rows)["judges"]
    assert (small["votes"], small["scored"], large["votes"]) == (2, 1, 1)


def test_votes_that_are_not_kept_are_missed() -> None:
    found = summary(REPEATS, [Graded(Verdict("a", SCORED, "good"), "good")] * 5)
    for name in NAMES:
        assert found["metrics"][name] == {"value": None, "reason": LOST}
    assert found["metrics"]["pass_percentage"]["value"] == 100


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [voted("a", [["good"] * 3])],
        [voted("a", [[None] * 3])],
        [voted("a", [["good"] * 3])] * 50,
        [Graded(Verdict("a", ERROR, None, "timeout"), None)] * 3,
    ],
)
def test_what_votes_cannot_tell_has_a_reason(rows: list[Graded]) -> None:
    for what in (REPEATS, PANEL):
        value = summary(what, rows)
        for name in NAMES:
            metric = value["metrics"][name]
            assert metric["value"] is not None or metric["reason"]


def test_labels_without_a_pass_have_no_variance() -> None:
    what = evaluation(labels=LABELS, judge=WARM, repeats=2)
    found = summary(what, [voted("a", [["good", "bad"]]), voted("b", [["good", "good"]])])["metrics"]
    assert found["within_row_variance"] == {"value": None, "reason": "no pass_labels"}
    assert found["flip_rate"]["value"] == 0.5


def test_a_compare_counts_points() -> None:
    what = evaluation(type="compare", judge=WARM, repeats=2)
    rows = [voted("a", [["A", "Tie"]], value="A"), voted("b", [["B", "B"]], value="B")]
    parts = agreement.components({(1.0, 0.5): 1, (0.0, 0.0): 1})
    assert parts is not None
    assert summary(what, rows)["metrics"]["within_row_variance"]["value"] == parts.within
