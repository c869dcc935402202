"""One row through Patronus: its calls, what is tried again, and what is looked up before that.

An answer that was lost may be of a call that was billed and kept. It is looked for by its log id first; where the
service keeps nothing, the spec says whether the call is made again.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.patronus import Grader, Patronus
from evalops.providers import patronus_request as wire
from evalops.providers.client import Answer, Client, Lost
from evalops.providers.patronus_inventory import Service
from evalops.providers.patronus_pace import Pace
from evalops.providers.patronus_rows import Result, answered, captured
from evalops.web import http_time, retry_after

ATTEMPTS = 5  # of a call that was taken, or may have been
MOST_REFUSED = 100  # times that a row is told to come back later
TOLD_FROM = 5.0  # seconds of a pause that a person should know of
FATAL = frozenset({401, 402, 403, 404, 405})  # every other row would be told the same
_UNCLEAR = frozenset({408, 409, 425})
LOST, REFUSED = "lost", "refused"  # beside the service's own words for how a result stands
_MISSING = Result(status="missing", problem="Patronus gave no result of this evaluator")
LONGEST = 3600.0  # seconds of a pause that is heeded at once
RPM, MONTHLY = "x-ratelimit-rpm-remaining-requests", "x-ratelimit-monthly-remaining-requests"


class Stopped(Exception):
    """The row was left before it had all its results."""


class Spent(Exception):
    """The quota of the month is used up."""


class Fatal(Exception):
    """The job cannot go on; the message is for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all rows of a job share. `graders` are the evaluators as the spec names them, and as they are pinned."""

    asked: Patronus
    graders: Sequence[tuple[Grader, Grader]]
    mark: str
    experiment: str | None


@dataclass(slots=True, kw_only=True)
class Landed:
    """What came of a row. `is_repeated`: a call whose outcome was open was made again."""

    results: dict[str, Result] = field(default_factory=dict)
    log_id: str = ""
    calls: int = 0
    is_repeated: bool = False


class Caller:
    """Makes the calls of rows, from several threads. `notice` tells a person who waits."""

    def __init__(self, client: Client, service: Service, pace: Pace, notice: Callable[[str], None]) -> None:
        self._client = client
        self._service = service
        self._pace = pace
        self._notice = notice
        self.has_worked = False
        self._unreached = 0

    def row(
        self,
        work: Work,
        key: str,
        row: Row,
        known: Sequence[Mapping[str, Any]],
        before: Callable[[], bool],
        undone: Callable[[], None],
    ) -> Landed:
        """All results of one row; `known` is what the service already keeps of it.

        `before` is called ahead of each call; nothing is sent where it gives False. `undone` is called after it where
        it is certain that no call of the row was carried out.

        Raises Stopped, Spent or Fatal, and then nothing counts: what was kept is found the next time.
        """
        landed = Landed(log_id=log_id(work, row))
        landed.results |= self._masked(captured(known, work.graders, work.mark))
        is_open, was_taken, pause = False, False, 0.0
        for _ in range(ATTEMPTS):
            if not _left(work, landed):
                break
            if pause and not self._pace.wait(pause):
                raise Stopped
            if is_open:
                self._look(work, landed)
            left = _left(work, landed)
            if not left:
                break
            landed.is_repeated |= is_open
            body = wire.encode(self._body(work, key, row, left, landed.log_id))
            got = self._call(body, before, (lambda: None) if was_taken else undone)
            landed.calls += 1
            was_taken |= not _is_undone(got)
            problem = self._take(got, left, landed)
            is_open = problem is not None and problem.status == LOST
            if problem is not None and problem.status == REFUSED:
                break
            if is_open and not work.asked.can_look_up and work.asked.lost_reply == "error":
                break
            pause = _pause(got, landed.calls)
        if is_open:
            self._look(work, landed)
        found = landed.results
        landed.results = {own.name: found[own.name] for own, _ in work.graders if own.name in found}
        return landed

    def _body(self, work: Work, key: str, row: Row, left: _Pairs, log_id_: str) -> dict[str, Any]:
        graders = [pinned for _, pinned in left]
        return wire.evaluate(
            work.asked, row, graders, key=key, mark=work.mark, experiment=work.experiment, log_id=log_id_
        )

    def _look(self, work: Work, landed: Landed) -> None:
        """Finds what the service kept of a call whose answer was lost. Raises Fatal where it cannot be asked."""
        if work.asked.capture == "none":
            return
        try:
            found = self._service.find([landed.log_id])[landed.log_id]
        except EvalopsError as error:
            message = f"a call is in doubt, and cannot be looked for: {error}"
            raise Fatal(message) from None
        for name, result in self._masked(captured(found, work.graders, work.mark)).items():
            before = landed.results.get(name)
            if before is None or not before.is_final:
                landed.results[name] = result

    def _masked(self, results: Mapping[str, Result]) -> dict[str, Result]:
        """Results without the secrets that their texts may echo."""
        return {name: each.masked(self._client.masked) for name, each in results.items()}

    def _take(self, got: Answer | Lost, left: _Pairs, landed: Landed) -> Result | None:
        """Puts down what an answer says of each evaluator; what is wrong with the call as a whole is returned."""
        problem = None
        if isinstance(got, Answer) and 200 <= got.status < 300:
            try:
                found = self._masked(answered(got.json(), left))
            except ValueError:
                problem = Result(status=LOST, problem="Patronus gave an answer that cannot be read")
            else:
                self.has_worked = True
                for grader, _ in left:
                    landed.results[grader.name] = found.get(grader.name) or _MISSING
                return None
        problem = problem or self._problem(got)
        for grader, _ in left:
            landed.results[grader.name] = problem
        return problem

    def _problem(self, got: Answer | Lost) -> Result:
        """What is wrong with a call. Raises Fatal where every other one would be told the same."""
        if isinstance(got, Lost):
            if not got.is_sent and not self.has_worked:
                self._unreached += 1
                if self._unreached > ATTEMPTS:
                    raise Fatal(got.problem.message)
            return Result(status=LOST if got.is_sent else "unreachable", problem=got.problem.message)
        told = self._client.refusal(got)
        if got.status in FATAL:
            raise Fatal(told.message + (f" ({told.hint})" if told.hint else ""))
        is_last = got.headers.get("x-should-retry") == "false"
        if got.status == 429:
            return Result(status="rate_limited", problem=told.message)
        if not is_last and (got.status in _UNCLEAR or got.status >= 500 or got.status < 400):
            return Result(status=LOST, problem=told.message)
        return Result(status=REFUSED, problem=told.message)

    def _call(self, body: bytes, before: Callable[[], bool], undone: Callable[[], None]) -> Answer | Lost:
        """One call that was taken, or may have been; one that is told to come back later is not."""
        for times in range(1, MOST_REFUSED + 1):
            slot = self._pace.acquire()
            if slot is None:
                raise Stopped
            got: Answer | Lost | None = None
            try:
                if not before():
                    undone()
                    raise Stopped
                got = self._client.call(wire.EVALUATE, body)
            finally:
                is_overloaded = isinstance(got, Answer) and got.status in (429, 503)
                self._pace.release(slot, is_overloaded=is_overloaded)
            if _is_undone(got):
                undone()
            if not isinstance(got, Answer) or got.status != 429 or times == MOST_REFUSED:
                if isinstance(got, Answer) and _remaining(got, RPM) == 0:
                    self._rest(_to_next_minute(got))
                return got
            remaining = _remaining(got, MONTHLY)
            if remaining is not None and remaining <= 0:
                raise Spent
            self._rest(_asked_pause(got))
        raise AssertionError("the last time returns")

    def _rest(self, seconds: float) -> None:
        """A pause for all rows."""
        self._pace.pause(seconds)
        if seconds >= TOLD_FROM:
            self._notice(f"Patronus asks for a pause of {seconds:,.0f} s")


_Pairs = Sequence[tuple[Grader, Grader]]


def log_id(work: Work, row: Row) -> str:
    """The log id of a row: the one that its dataset gives it, or ours."""
    column = work.asked.columns.get("log_id")
    own = row.source.get(column) if column else None
    return str(own) if own not in (None, "") else wire.log_id(work.mark, row.position)


def _left(work: Work, landed: Landed) -> _Pairs:
    """The evaluators that a row is still without."""
    found = landed.results
    return [pair for pair in work.graders if pair[0].name not in found or not found[pair[0].name].is_final]


def _is_undone(got: Answer | Lost) -> bool:
    """Whether it is certain that a call was not carried out."""
    if isinstance(got, Lost):
        return not got.is_sent
    return 400 <= got.status < 500 and got.status not in _UNCLEAR


def _pause(got: Answer | Lost, tries: int) -> float:
    """Seconds before the next attempt at a row: as asked, or longer each time, with a part left to chance."""
    asked = retry_after(got.headers) if isinstance(got, Answer) else None
    if asked is not None:
        return min(asked, LONGEST)
    return min(0.5 * 2.0 ** (tries - 1), 8.0) * (1 - 0.25 * random.random())  # noqa: S311 - not a secret


def _asked_pause(got: Answer) -> float:
    """Seconds for which nobody may ask."""
    asked = retry_after(got.headers)
    if asked is not None:
        return min(asked, LONGEST)
    remaining = _remaining(got, RPM)
    return _to_next_minute(got) if remaining is not None and remaining <= 0 else 1.0


def _to_next_minute(got: Answer) -> float:
    """Seconds until the minute ends by the service's clock, which counts calls by the minute."""
    said = http_time(got.headers.get("date", ""))
    return 60.0 - said.second if said else 60.0


def _remaining(got: Answer, header: str) -> int | None:
    try:
        return int(got.headers.get(header, ""))
    except ValueError:
        return None
