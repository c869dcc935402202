"""From votes to one verdict: agreement is counted, never made up, and stays within what was said."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops import voting
from evalops.result import Value, Verdict, VerdictStatus, Vote
from evalops.voting import MAJORITY, MEAN, MEDIAN, Opinion, combine, is_sure, planned, quorum, rule

SCORED, INVALID, ERROR = VerdictStatus.SCORED, VerdictStatus.INVALID, VerdictStatus.ERROR
KEY = "0123456789abcdef"
RULES = [MAJORITY, MEAN, MEDIAN]


def said(value: Value = None, reason: str | None = None, **fields: Any) -> Verdict:
    """A verdict on a row: scored with a value, an error where the reason is one of a call, else invalid."""
    status = SCORED if value is not None else ERROR if reason in ("timeout", "connect") else INVALID
    return Verdict(KEY, status, value, reason, **fields)


def opinions(*verdicts: Verdict | Value) -> list[Opinion]:
    """One judge a verdict, in their order."""
    found = [each if isinstance(each, Verdict) else said(each) for each in verdicts]
    return [Opinion(place, 1, verdict) for place, verdict in enumerate(found)]


def made(*verdicts: Verdict | Value, rule: str = MAJORITY, quorum: int | None = None) -> Verdict:
    """What they make, by more than half where no quorum is given."""
    return combine(KEY, opinions(*verdicts), rule=rule, quorum=quorum or len(verdicts) // 2 + 1)


def outcome(verdict: Verdict) -> Any:
    return verdict.value if verdict.status is SCORED else f"({verdict.reason})"


# --- the rules ---


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (("a", "a", "b"), "a"),
        (("b", "a", "b"), "b"),
        (("a", "b"), "(no_majority)"),
        (("a", "b", "c"), "(no_majority)"),
        (("a", "b", "c", "a"), "a"),  # more than any other, though not more than half
        (("a", "a", "b", "b", "c"), "(no_majority)"),
        (("A", "B", "Tie"), "(no_majority)"),
        ((1.0, 1.0, 5.0), 1.0),
        ((1.0, 5.0), "(no_majority)"),
    ],
)
def test_a_majority_is_what_more_votes_say_than_anything_else(values: tuple[Value, ...], expected: object) -> None:
    assert outcome(made(*values)) == expected


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        (MEAN, (1.0, 2.0, 6.0), 3.0),
        (MEDIAN, (1.0, 2.0, 6.0), 2.0),
        (MEDIAN, (1.0, 2.0, 4.0, 6.0), 3.0),
        (MEAN, (4.0, 4.0), 4.0),
    ],
)
def test_scores_have_a_middle(rule: str, values: tuple[float, ...], expected: float) -> None:
    assert made(*values, rule=rule).value == expected


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=9), st.sampled_from([MEAN, MEDIAN]))
def test_a_middle_stays_within_what_was_said(values: list[float], rule: str) -> None:
    found = made(*values, rule=rule).value
    assert isinstance(found, float) and min(values) <= found <= max(values)
    assert found == pytest.approx({MEAN: statistics.fmean, MEDIAN: statistics.median}[rule](values))


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.randoms())
def test_the_order_of_the_votes_changes_nothing_but_the_feedback(values: list[str], chance: Any) -> None:
    shuffled = list(values)
    chance.shuffle(shuffled)
    assert outcome(made(*values)) == outcome(made(*shuffled))
    counts = Counter(values).most_common()
    winners = [name for name, count in counts if count == counts[0][1]]
    assert outcome(made(*values)) == (winners[0] if len(winners) == 1 else "(no_majority)")


# --- the quorum ---


@pytest.mark.parametrize(
    ("verdicts", "quorum", "expected"),
    [
        (("a", "a", said(reason="length")), 2, "a"),
        (("a", said(reason="length"), said(reason="timeout")), 2, "(quorum)"),
        (("a", said(reason="length"), said(reason="timeout")), 1, "a"),
        ((said(reason="length"), said(reason="refusal"), said(reason="length")), 2, "(quorum)"),
        (("a", "b", said(reason="length")), 2, "(no_majority)"),
        ((said(reason="length"), said(reason="timeout")), 1, "(quorum)"),
        ((said(reason="timeout"), said(reason="connect")), 1, "(timeout)"),
    ],
)
def test_too_few_votes_make_no_verdict(verdicts: tuple[Any, ...], quorum: int, expected: str) -> None:
    assert outcome(made(*verdicts, quorum=quorum)) == expected


def test_a_row_is_an_error_only_where_every_call_failed() -> None:
    failed = made(said(reason="timeout", feedback="no answer"), said(reason="connect"))
    assert (failed.status, failed.reason, failed.feedback, len(failed.votes)) == (ERROR, "timeout", "no answer", 2)
    assert made(said(reason="timeout"), said(reason="length")).status is INVALID


def test_why_there_is_no_verdict_is_said() -> None:
    assert made("a", said(reason="length")).feedback == "1 of 2 votes can be used, and it takes 2"
    assert made("a", "b").feedback == "as many votes for one as for another: a 1, b 1"


def test_more_than_half_of_the_planned_votes_are_a_quorum() -> None:
    two = [{"model": "x"}, {"model": "y"}]
    assert [quorum(evaluation(repeats=k, judge={"temperature": 1})) for k in (1, 2, 3, 4, 5)] == [1, 2, 2, 3, 3]
    assert quorum(evaluation(judges=two)) == 2
    assert quorum(evaluation(judges=[*two, {"model": "z"}])) == 2
    assert quorum(evaluation(judges=two, repeats=3, vote={"quorum": 5})) == 5
    # Verdicts of the dataset have no repeats.
    mixed = evaluation(judges=[{"column": "human"}, {"model": "x"}], repeats=4)
    assert (planned(mixed), quorum(mixed)) == (5, 3)


def test_the_rule_is_the_specs_or_that_of_the_type() -> None:
    assert [rule(evaluation(type=each)) for each in ("classify", "score", "compare")] == [MAJORITY, MEAN, MAJORITY]
    assert rule(evaluation(type="score", vote={"rule": "median"})) == MEDIAN


# --- what else a verdict has ---


def test_a_single_vote_is_the_verdict_as_it_is() -> None:
    for verdict in (said("A", orders=("A", "A"), feedback="so"), said(reason="length"), said(reason="timeout")):
        assert made(verdict) is verdict


def test_the_votes_are_kept_and_both_orders_are_not() -> None:
    verdict = made(said("A", orders=("A", "A")), said("Tie", orders=("A", "B")), said("A", orders=("A", "A")))
    assert (verdict.value, verdict.orders) == ("A", None)
    assert verdict.votes == tuple(Vote(place, 1, SCORED, value) for place, value in enumerate(("A", "Tie", "A")))
    assert made("a", said(reason="length"), "a").votes[1] == Vote(1, 1, INVALID, None, "length")


@pytest.mark.parametrize(("rule", "expected"), [(MAJORITY, "of 4"), (MEAN, "of 3"), (MEDIAN, "of 4")])
def test_the_feedback_is_of_the_first_vote_that_agrees_or_comes_nearest(rule: str, expected: str) -> None:
    verdicts = [said(value, feedback=f"of {value:g}") for value in (1.0, 3.0, 4.0, 4.0)]
    assert made(*verdicts, rule=rule).feedback == (expected if rule != MEDIAN else "of 3")


def test_the_ways_of_asking_are_named_together() -> None:
    assert (
        made(said("a", rung="text"), said("a", rung="json_schema"), said("b", rung="text")).rung == "json_schema+text"
    )
    assert made("a", "a").rung is None


def test_each_criterion_has_its_middle() -> None:
    one = said(3.0, criteria={"tone": 2.0, "facts": 4.0})
    two = said(4.0, criteria={"tone": 4.0, "facts": 4.0})
    other = said(2.0, criteria={"tone": 5.0})  # another judge, with one criterion less
    assert made(one, two, rule=MEAN).criteria == {"tone": 3.0, "facts": 4.0}
    assert made(one, two, other, rule=MEDIAN).criteria == {"tone": 4.0, "facts": 4.0}
    assert made(one, two, one, rule=MAJORITY).criteria == {"tone": 2.0, "facts": 4.0}  # of those who agree
    assert made(3.0, 4.0, rule=MEAN).criteria is None


# --- when a cascade asks no further ---


@pytest.mark.parametrize(
    ("verdicts", "margin", "sure"),
    [
        (("a",), None, True),
        (("a", "a", "a"), None, True),
        (("a", "b", "a"), None, False),
        ((said(reason="length"),), None, False),
        (("a", said(reason="timeout")), None, False),
        ((4.0, 4.0), None, True),
        ((4.0, 4.1), None, False),
        ((4.0, 4.5, 5.0), 1.0, True),
        ((4.0, 5.1), 1.0, False),
        ((said("A", orders=("A", "A")),), None, True),
        ((said("Tie", orders=("A", "B")),), None, False),  # it says another thing in the other order
        ((said("A", orders=("A", None)),), None, True),  # one order was asked
    ],
)
def test_a_judge_is_sure_who_does_not_contradict_itself(
    verdicts: tuple[Any, ...], margin: float | None, sure: bool
) -> None:
    assert is_sure(opinions(*verdicts), margin) is sure


@pytest.mark.parametrize(
    ("gap", "margin", "sure"),
    [(0.5, 0.2, True), (0.2, 0.2, False), (0.1, 0.2, False), (0.1, None, True), (0.0, None, False)],
)
def test_a_likeliest_label_must_lead_by_more_than_the_margin(gap: float, margin: float | None, sure: bool) -> None:
    assert is_sure([Opinion(0, 1, said("a"), gap)], margin) is sure


# --- the mean ---


@given(
    st.lists(st.tuples(st.floats(-1e9, 1e9), st.floats(1e-3, 1e3)), min_size=1, max_size=20),
)
def test_a_weighted_mean_stays_within_its_values(pairs: list[tuple[float, float]]) -> None:
    values, weights = [value for value, _ in pairs], [weight for _, weight in pairs]
    found = voting.mean(values, weights)
    assert min(values) <= found <= max(values)
    assert voting.mean([values[0]] * 3, [0.1, 0.2, 0.3]) == values[0]


def test_a_mean_of_equal_numbers_is_that_number() -> None:
    assert voting.mean([5.0] * 3, [0.1, 0.7, 0.2]) == 5.0 and voting.mean([1.0, 5.0], [3.0, 1.0]) == 2.0


@pytest.mark.parametrize("rule_", RULES)
def test_votes_that_all_say_the_same_make_that_verdict(rule_: str) -> None:
    assert made(3.0, 3.0, 3.0, rule=rule_).value == 3.0
