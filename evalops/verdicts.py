"""The verdicts file: one short line a row beside the lockfile, so that results can be graded again, compared
and gated where neither the rows nor a key are at hand. It holds no text of the dataset.

A section begins with an object (`address`, `job`, `rows`); each line below it is `[row key, repeat, verdict]`,
for a compare followed by the choice in either order, and `[row key, repeat, null, status, reason]` where there
is no verdict.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation, Type

SUFFIX = ".verdicts.jsonl"
SHORTEST = 24  # bytes of a line


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The verdicts of one address, in the order of the dataset, and the job they are of."""

    address: str
    job: str
    verdicts: Sequence[Verdict]


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
        if verdict.status is VerdictStatus.SCORED and not _is_possible(verdict.value, evaluation):
            raise EvalopsError(
                Diagnostic(
                    code="verdicts/value",
                    message=f"verdict {number} of `{section.address}` is none that this evaluation can have",
                    mark=Mark(path),
                    hint=f"restore the file with `git checkout -- {path}`",
                )
            )
    return list(section.verdicts)


def _is_possible(value: Any, evaluation: Evaluation) -> bool:
    match evaluation.type:
        case Type.CLASSIFY:
            return value in evaluation.labels
        case Type.SCORE:
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
        yield _line(value)


def _line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def _verdict(key: Any, repeat: int, value: Any, *rest: Any) -> Verdict:
    """One line's verdict. Raises ValueError or TypeError for anything that `dump` does not write."""
    (key,) = _texts(key)
    match rest:
        case ("invalid" | "error" as status, str() | None as reason) if value is None:
            return Verdict(key, VerdictStatus(status), None, reason)
        case () if isinstance(value, str | int | float) and not isinstance(value, bool):
            return Verdict(key, VerdictStatus.SCORED, value)
        case ([str() | None as first, str() | None as second],) if isinstance(value, str):
            return Verdict(key, VerdictStatus.SCORED, value, orders=(first, second))
    raise ValueError("it is no verdict")


def _texts(*values: Any) -> tuple[str, ...]:
    if not all(isinstance(value, str) for value in values):
        raise ValueError("it is no text")
    return values


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
