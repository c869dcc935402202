"""The verdicts file: one short line a row beside the lockfile, so that results can be graded again, compared
and gated where neither the rows nor a key are at hand. It holds no text of the dataset.

A section begins with an object (`address`, `job`, `rows`); each line below it is `[row key, repeat, verdict]`,
for a compare followed by the choice in either order, and `[row key, repeat, null, status, reason]` where there
is no verdict. The repeat is always 1. Where a verdict was made of several votes, or a score of criteria, an object
comes last:

    ["0123456789abcdef",1,"polite",{"votes":[["polite","polite"],["rude",["invalid","length"]]]}]
    ["0123456789abcdef",1,3.5,{"criteria":{"clarity":3.0,"accuracy":4.0}}]

`votes` has a list for each judge in the order of the spec, with its verdicts from the first repeat on, or status and
reason where it gave none; the list of a judge that was not asked is not there, or empty.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.result import Verdict, VerdictStatus, Vote
from evalops.spec import Evaluation, Type

SUFFIX = ".verdicts.jsonl"
SHORTEST = 24  # bytes of a line
MOST_VOTES = 2000  # of a row: 16 judges, 100 repeats
MOST_CRITERIA = 320  # of a row: 16 judges, 20 criteria


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The verdicts of one address, in the order of the dataset, and the job they are of."""

    address: str
    job: str
    verdicts: Sequence[Verdict]


def room(verdict: Verdict) -> int:
    """How many of the shortest lines a verdict takes the room of, at the least: a vote is three bytes or more."""
    return 1 + 3 * len(verdict.votes) // SHORTEST


def beside(lockfile: str) -> str:
    """The verdicts file of a lockfile."""
    return lockfile.removesuffix(".lock") + SUFFIX


def dump(sections: Mapping[str, Section]) -> bytes:
    """The text of a verdicts file, sections by address."""
    return "".join(line for address in sorted(sections) for line in _lines(sections[address])).encode()


def parse(data: bytes, path: str) -> dict[str, Section]:
    """The sections of a verdicts file. Raises EvalopsError for a line that is none."""
    sections: dict[str, Section] = {}
    verdicts: list[Verdict] = []
    for number, line in enumerate(data.splitlines(), 1):
        try:
            value = json.loads(line, parse_constant=_refuse)
            if isinstance(value, dict):
                verdicts = []
                address, job = _texts(value["address"], value["job"])
                sections[address] = Section(address=address, job=job, verdicts=verdicts)
            elif isinstance(value, list) and sections:
                verdicts.append(_verdict(*value))
            else:
                raise ValueError("it is no list, or belongs to no address")
        except (ValueError, KeyError, TypeError, RecursionError):
            raise EvalopsError(
                Diagnostic(
                    code="verdicts/line",
                    message=f"line {number} is no verdict",
                    mark=Mark(path, number, 1),
                    hint=f"restore it with `git checkout -- {path}`",
                )
            ) from None
    return sections


def checked(section: Section, evaluation: Evaluation, path: str) -> list[Verdict]:
    """The verdicts of a section. Raises EvalopsError where one is none that this evaluation can have."""
    for number, verdict in enumerate(section.verdicts, 1):
        if not _fits(verdict, evaluation):
            raise EvalopsError(
                Diagnostic(
                    code="verdicts/value",
                    message=f"verdict {number} of `{section.address}` is none that this evaluation can have",
                    mark=Mark(path),
                    hint=f"restore the file with `git checkout -- {path}`",
                )
            )
    return list(section.verdicts)


def _fits(verdict: Verdict, evaluation: Evaluation) -> bool:
    if verdict.status is VerdictStatus.SCORED and not _is_possible(verdict.value, evaluation):
        return False
    for vote in verdict.votes:
        if vote.judge >= len(evaluation.judges) or vote.repeat > evaluation.repeats:
            return False
        if vote.status is VerdictStatus.SCORED and not _is_possible(vote.value, evaluation):
            return False
    known = {criterion.name for judge in evaluation.judges for criterion in judge.criteria}
    numbers = (verdict.criteria or {}).items()
    if evaluation.patronus is not None:  # whose evaluators have numbers whatever the type
        return all(name in known and 0 <= each <= 1 for name, each in numbers)
    return all(name in known and _is_possible(each, evaluation) for name, each in numbers)


def _is_possible(value: Any, evaluation: Evaluation) -> bool:
    match evaluation.type:
        case Type.CLASSIFY:
            return value in evaluation.labels
        case Type.SCORE | Type.CUSTOM:
            low, high = evaluation.min_score or 0.0, evaluation.max_score or 0.0
            return isinstance(value, int | float) and low <= value <= high
        case Type.COMPARE:
            return value in ("A", "B", "Tie")


def _lines(section: Section) -> Iterator[str]:
    yield _line({"address": section.address, "job": section.job, "rows": len(section.verdicts)})
    for verdict in section.verdicts:
        value: list[Any] = [verdict.key, 1, verdict.value]
        if verdict.status is not VerdictStatus.SCORED:
            value += [verdict.status.value, verdict.reason]
        elif verdict.orders:
            value.append(list(verdict.orders))
        if verdict.votes or verdict.criteria:
            value.append(_more(verdict))
        yield _line(value)


def _more(verdict: Verdict) -> dict[str, Any]:
    """What a verdict was made of."""
    found: dict[str, Any] = {}
    if verdict.votes:
        found["votes"] = [[] for _ in range(1 + max(vote.judge for vote in verdict.votes))]
        for vote in verdict.votes:
            is_scored = vote.status is VerdictStatus.SCORED
            found["votes"][vote.judge].append(vote.value if is_scored else [vote.status.value, vote.reason])
    if verdict.criteria:
        found["criteria"] = dict(verdict.criteria)
    return found


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _verdict(key: Any, repeat: int, value: Any, *rest: Any) -> Verdict:
    """One line's verdict. Raises ValueError, KeyError or TypeError for anything that `dump` does not write."""
    (key,) = _texts(key)
    votes: tuple[Vote, ...] = ()
    criteria = None
    if rest and isinstance(rest[-1], dict):
        votes, criteria = _made_of(**rest[-1])
        rest = rest[:-1]
    match rest:
        case ("invalid" | "error" as status, str() | None as reason) if value is None:
            return Verdict(key, VerdictStatus(status), None, reason, votes=votes, criteria=criteria)
        case () if _is_value(value):
            return Verdict(key, VerdictStatus.SCORED, value, votes=votes, criteria=criteria)
        case ([str() | None as first, str() | None as second],) if isinstance(value, str):
            return Verdict(key, VerdictStatus.SCORED, value, orders=(first, second), votes=votes, criteria=criteria)
    raise ValueError("it is no verdict")


def _made_of(*, votes: Any = None, criteria: Any = None) -> tuple[tuple[Vote, ...], dict[str, float] | None]:
    """The votes and criteria of one line."""
    if not (votes or criteria) or not isinstance(votes or [], list) or not isinstance(criteria or {}, dict):
        raise ValueError("it has neither votes nor criteria")
    given = [
        (judge, repeat, each) for judge, one in enumerate(votes or ()) for repeat, each in enumerate(_list(one), 1)
    ]
    numbers = list((criteria or {}).values())
    if len(given) > MOST_VOTES or len(numbers) > MOST_CRITERIA:
        raise ValueError("there are more than any spec allows")
    if any(isinstance(each, str) or not _is_value(each) for each in numbers):
        raise ValueError("a criterion has a number")
    return tuple(_vote(*each) for each in given), criteria or None


def _vote(judge: int, repeat: int, value: Any) -> Vote:
    match value:
        case ["invalid" | "error" as status, str() | None as reason]:
            return Vote(judge, repeat, VerdictStatus(status), None, reason)
        case _ if _is_value(value):
            return Vote(judge, repeat, VerdictStatus.SCORED, value)
    raise ValueError("it is no vote")


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("it is no list")
    return value


def _texts(*values: Any) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("it is no text")
    return values


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
