"""From several votes on a row to one verdict: repeats of one judge, juries, and when a cascade asks no further.

Several small judges of different families do as well as a large one, for less (arXiv 2404.18796). Where they do not
agree, that is said (`no_majority`, `quorum`) and no verdict is made up.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from evalops import patronus
from evalops.result import Value, Verdict, VerdictStatus, Vote
from evalops.spec import Evaluation, Judge, Type

MAJORITY, MEAN, MEDIAN = "majority", "mean", "median"


class Opinion(NamedTuple):
    """What one judge, by its place in the spec, said at one repeat, from 1.

    `gap` is by how much its likeliest label leads (0 to 1), where it judges by likelihood.
    """

    judge: int
    repeat: int
    verdict: Verdict
    gap: float | None = None


def rule(evaluation: Evaluation) -> str:
    """How the votes of an evaluation become one verdict."""
    return evaluation.voting.rule or (MEAN if evaluation.type is Type.SCORE else MAJORITY)


def repeats(evaluation: Evaluation, judge: Judge) -> int:
    """How often a judge is asked about a row. A recorded verdict is what it is: it has no repeats."""
    return 1 if judge.column is not None else evaluation.repeats


def calls(evaluation: Evaluation, judge: Judge) -> int:
    """The calls that a judge takes for a row; a comparison in both orders takes two for each vote."""
    if judge.column is not None:
        return 0
    return repeats(evaluation, judge) * (2 if evaluation.type is Type.COMPARE and evaluation.both_orders else 1)


def planned(evaluation: Evaluation) -> int:
    """The votes on a row for which every judge is asked."""
    return sum(repeats(evaluation, judge) for judge in evaluation.judges)


def quorum(evaluation: Evaluation) -> int:
    """The least number of usable votes for a verdict, where every judge is asked: more than half of them."""
    return evaluation.voting.quorum or planned(evaluation) // 2 + 1


def is_sure(opinions: Collection[Opinion], margin: float | None) -> bool:
    """Whether these votes, a cascade's first judge's, need no others.

    All have a verdict, both orders of each comparison and all labels agree, all scores are within `margin` of each
    other, and every likeliest label leads by more than `margin`.
    """
    margin = margin or 0.0
    values = [each.verdict.value for each in opinions]
    if any(each.verdict.status is not VerdictStatus.SCORED or _contradicts_itself(each.verdict) for each in opinions):
        return False
    if any(each.gap is not None and each.gap <= margin for each in opinions):
        return False
    numbers = _numbers(values)
    return max(numbers) - min(numbers) <= margin if numbers else len(set(values)) == 1


def combine(key: str, opinions: Sequence[Opinion], *, rule: str, quorum: int) -> Verdict:
    """The verdict that votes make; a single one is the verdict itself.

    Without any reply it is an error, with fewer usable votes than `quorum` or no winner it is invalid. The feedback
    is that of the first vote that agrees, or comes nearest.
    """
    if len(opinions) == 1:
        return opinions[0].verdict
    votes = tuple(Vote(each.judge, each.repeat, *each.verdict[1:4]) for each in opinions)
    usable = [each.verdict for each in opinions if each.verdict.status is VerdictStatus.SCORED]
    if all(each.verdict.status is VerdictStatus.ERROR for each in opinions):
        return opinions[0].verdict._replace(votes=votes)
    rung = _rungs(each.verdict for each in opinions)
    if len(usable) < quorum:
        reason = f"{len(usable)} of {len(votes)} votes can be used, and it takes {quorum}"
        return Verdict(key, VerdictStatus.INVALID, None, "quorum", reason, None, rung, votes=votes)
    value = _agreed([each.value for each in usable], rule)
    if value is None:
        counts = Counter(str(each.value) for each in usable).most_common()
        reason = f"as many votes for one as for another: {', '.join(f'{name} {count}' for name, count in counts)}"
        return Verdict(key, VerdictStatus.INVALID, None, "no_majority", reason[:300], None, rung, votes=votes)
    first = min(usable, key=lambda each: _distance(each.value, value))
    criteria = _criteria([each for each in usable if rule != MAJORITY or each.value == value], rule)
    return Verdict(key, VerdictStatus.SCORED, value, None, first.feedback, None, rung, votes=votes, criteria=criteria)


def mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """The mean, (un)weighted; rounding never takes it out of the range of the values."""
    return min(max(statistics.fmean(values, weights), min(values)), max(values))


def _agreed(values: Sequence[Value], rule: str) -> Value:
    numbers = _numbers(values)
    if rule != MAJORITY and numbers:
        return mean(numbers) if rule == MEAN else statistics.median(numbers)
    (value, most), *others = Counter(values).most_common(2)
    return None if others and others[0][1] == most else value


def _criteria(usable: Sequence[Verdict], rule: str) -> dict[str, float] | None:
    """Each criterion over the votes that have it: judges may have different ones."""
    names = dict.fromkeys(name for each in usable for name in each.criteria or ())
    found = {name: [each.criteria[name] for each in usable if name in (each.criteria or {})] for name in names}  # type: ignore[index]
    return {name: statistics.median(each) if rule == MEDIAN else mean(each) for name, each in found.items()} or None


def _contradicts_itself(verdict: Verdict) -> bool:
    return verdict.orders is not None and None not in verdict.orders and verdict.orders[0] != verdict.orders[1]


def _rungs(verdicts: Iterable[Verdict]) -> str | None:
    """The ways in which the votes were asked for, joined where there are several."""
    return "+".join(sorted({each.rung for each in verdicts if each.rung})) or None


def _numbers(values: Sequence[Value]) -> list[float]:
    """The values where all of them are numbers, else nothing."""
    found = [value for value in values if isinstance(value, float | int)]
    return found if len(found) == len(values) else []


def _distance(value: Value, agreed: Value) -> float:
    if isinstance(value, float | int) and isinstance(agreed, float | int):
        return abs(value - agreed)
    return float(value != agreed)


def combined(evaluation: Evaluation, verdict: Verdict) -> Verdict:
    """A verdict of several evaluators of Patronus, put together as the spec says today; any other one as it is."""
    asked = evaluation.patronus
    if asked is None or verdict.status is not VerdictStatus.SCORED:
        return verdict
    value = patronus.combined(asked, verdict.criteria or {}, is_score=evaluation.type is Type.SCORE)
    return verdict if value is None else verdict._replace(value=value)
