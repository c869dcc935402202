"""What is left to pay of a job at Patronus that goes on: the rows that are neither on this machine nor kept there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from evalops.datasets.dataset import Row
from evalops.lock import Status
from evalops.patronus import Patronus
from evalops.providers.base import Left, Request
from evalops.providers.patronus_loop import DOUBTFUL, UNDONE
from evalops.result import VerdictStatus

if TYPE_CHECKING:
    from evalops.engine.store import JobRecord, Stored

Rows = Iterator[tuple[str, Row]]


def left(
    request: Request,
    record: JobRecord | None,
    stored: Iterable[Stored],
    whole: Callable[[Rows], int] | None,
    *,
    retry: bool,
) -> Left:
    """The calls that going on takes. `record` and `stored` are what this machine has of the job.

    `whole` counts the rows of which the service keeps all results; None where it is not asked. With `retry` a job that
    failed goes on as well, and what ended in an error is asked again.
    """
    asked, total = request.evaluation.patronus, request.identity.digests.rows or 0
    status = Status(record.status) if record else None
    if asked is None or status is Status.COMPLETED or (status is Status.FAILED and not retry):
        return Left(0, 0)
    held, doubts = _held(stored, is_failed=status is Status.FAILED)
    calls = total - len(held)
    if not calls or asked.capture == "none":
        return Left(calls, calls, _lost(total) if record is None else _why(calls, total, doubts))
    if whole is None:
        why = f"{calls:,} of {total:,} rows are not here, and those that Patronus keeps are not asked again"
        return Left(calls, 0, why)
    calls -= whole((key, row) for key, row in request.rows() if row.position not in held)
    return Left(calls, calls, _why(calls, total, _twice(asked, doubts)))


def _held(stored: Iterable[Stored], *, is_failed: bool) -> tuple[set[int], int]:
    """The places of the rows that are not asked again, and of how many others the answer was lost."""
    held, doubts = set(), 0
    for each in stored:
        if is_failed and each.verdict.status is VerdictStatus.ERROR:
            doubts += each.verdict.reason in DOUBTFUL
        elif each.verdict.reason != UNDONE:
            held.add(each.position)
    return held, doubts


def _twice(asked: Patronus, doubts: int) -> int:
    """How many of the calls whose answers were lost may be billed twice: where all is kept, none is made again."""
    return 0 if asked.can_look_up else doubts


def _lost(total: int) -> str:
    return f"no result is here, and with `capture: none` Patronus keeps none: all {total:,} rows are asked once more"


def _why(calls: int, total: int, doubts: int) -> str:
    if not calls:
        return ""
    twice = f"; {doubts:,} answers were lost, and their calls may be billed twice" if doubts else ""
    return f"{calls:,} of {total:,} rows are to be asked{twice}"
