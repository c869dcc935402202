"""What one apply wants of a service that is paid: so many requests at once, and another look at what is in doubt."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple

from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.journal import Key
from evalops.lock import Status
from evalops.once import Once, Outcome, Unsent, key_of
from evalops.plan import Action, Change
from evalops.providers.base import Job, Provider, Refused, Request, Unclear
from evalops.sending import Act, Sending, Steps

AT_ONCE = 16  # requests under way, unless told otherwise
# Codes of problems that every other question to the service would meet as well, each after long and patient attempts.
_OF_ALL = frozenset(f"provider/{each}" for each in ("unreachable", "no-answer", "unavailable", "rate-limited", "auth"))


class Order(NamedTuple):
    """A change whose job is to be had from the service."""

    change: Change
    request: Request

    @property
    def job(self) -> str | None:
        """The job that is known to be the one, None where it has yet to be made."""
        if self.change.job or self.change.action is not Action.RESUME:
            return self.change.job
        return self.change.entry.job if self.change.entry else None


class _Doubt(NamedTuple):
    order: Order
    why: str  # "" where an earlier apply sent the request


@dataclass(slots=True, eq=False)
class Orders:
    """The orders of one apply at one provider. `plan` is the digest of its plan, `at_once` how many are under way."""

    provider: Provider
    once: Once
    plan: str
    at_once: int = AT_ONCE
    problems: list[Diagnostic] = field(default_factory=list)
    _waiting: deque[Order] = field(default_factory=deque)
    _doubts: dict[Key, _Doubt] = field(default_factory=dict)
    _trouble: str = ""  # why the last look was none
    _sent_again: set[Key] = field(default_factory=set)
    _sending: Sending[Order, Outcome] = field(init=False)

    def __post_init__(self) -> None:
        self._sending = Sending(self.at_once)

    def add(self, change: Change) -> None:
        """Wants the job of a change; of one whose action is `unknown`, only if an earlier request has made it."""
        assert change.wanted is not None
        order = Order(change, self.provider.request(*change.wanted, change.generation))
        if change.action is Action.UNKNOWN:
            self._doubts[key_of(self.provider, order.request)] = _Doubt(order, "")
        elif order.job:
            self._waiting.appendleft(order)  # what costs nothing waits for nothing
        else:
            self._waiting.append(order)

    @property
    def is_unsettled(self) -> bool:
        """Whether another look at the service may bring an order further."""
        return bool(self._doubts or self._waiting) and not (self._is_down or self.once.is_stopped)

    @property
    def unclear(self) -> dict[str, str]:
        """The addresses of which this apply has sent a request whose outcome is open, and why."""
        trouble = f"; and {self._trouble}" if self._trouble else ""
        return {order.change.address: why + trouble for order, why in self._doubts.values() if why}

    def jobs(self, *, has_looked: bool = False) -> Iterator[tuple[Order, Job]]:
        """The jobs, each as it is there; what is in doubt is looked for once, when all else has an answer.

        Ends where the rest has to wait, or once nothing new may begin and the paid requests under way have ended.
        The caller writes each job down before it asks for the next. Raises EvalopsError where nothing can be recorded.
        """
        while True:
            if self._may_begin:
                self._begin(self._waiting.popleft())
            elif self._sending.must_end or (self._sending and not self.once.is_stopped):
                order, outcome = self._sending.next()
                has_looked = has_looked and not isinstance(outcome, Unclear)
                if isinstance(outcome, Job):
                    yield order, outcome
                else:
                    self._put_off(order, outcome)
            elif self.is_unsettled and not has_looked:
                has_looked = True
                yield from self._look()
            else:
                return

    def more(self) -> Iterator[tuple[Order, Job]]:
        """Looks for what is in doubt, and goes on with what waited for that."""
        yield from self._look()
        yield from self.jobs(has_looked=True)

    def let_end(self) -> None:
        """Waits for the paid requests under way and records what came of them. Raises what cannot be recorded."""
        while self._sending.must_end:
            self._sending.next()

    def left(self) -> Iterator[Diagnostic]:
        """What has to wait for another apply, in words."""
        if not self._waiting or self.once.is_stopped:
            return
        count = len(self._waiting)
        are = f"{count} evaluations are" if count > 1 else f"`{self._waiting[0].change.address}` is"
        if self._is_down:
            message = f"{are} as before, since {self.provider.name} could not be asked"
            yield Diagnostic(
                code="apply/not-asked", message=message, hint="once it answers, run the same command again"
            )
            return
        yield Diagnostic(
            code="apply/paused",
            message=f"{are} not sent yet: behind a request without a known outcome, only so many jobs may be made "
            "that the service's list still shows its own",
            hint="run the same command again",
            severity=Severity.WARNING,
        )

    @property
    def _is_down(self) -> bool:
        return self.provider.name in self.once.down

    @property
    def _may_begin(self) -> bool:
        if not self._waiting or self._sending.is_full or self._is_down or self.once.is_stopped:
            return False
        return bool(self._waiting[0].job) or not self.once.must_wait

    def _begin(self, order: Order) -> None:
        if order.job:
            self._sending.start(order, self._found(order, order.job))
        else:
            self._sending.start(order, self.once.send(self.provider, order.request, order.change, self.plan))

    def _found(self, order: Order, job: str) -> Steps[Outcome]:
        """The job that is known to be the one, as it is now."""
        try:
            found: Job | None = yield Act(partial(self.provider.job, job))
        except EvalopsError as error:
            return Unsent(tuple(error.diagnostics))
        return found or self._gone(order.change, job)

    def _gone(self, change: Change, job: str) -> Job | Refused:
        """A job that the provider does not have: it has failed, unless it is so young that it may yet appear."""
        message = f"{self.provider.name} no longer has the job {job}"
        entry = change.entry
        made = entry.created_at if entry and entry.job == job else self.once.made_at(job)
        if not made:
            hint = "it may be too new to be seen: apply again"
            return Refused((Diagnostic(code="job/gone", message=message, hint=hint),))
        young_until = datetime.fromisoformat(made) + timedelta(seconds=self.provider.visibility_lag)
        is_young = self.provider.time() < young_until
        return Job(
            id=job,
            fingerprint=change.fingerprint,
            generation=change.generation,
            status=Status.PENDING if is_young else Status.FAILED,
            provider_status="",
            created_at=made,
            message=None if is_young else message,
        )

    def _put_off(self, order: Order, outcome: Refused | Unclear | Unsent) -> None:
        """An order that has no job."""
        match outcome:
            case Unclear(why):
                self._doubts[key_of(self.provider, order.request)] = _Doubt(order, why)
            case Unsent(()):
                self._waiting.append(order)
            case Refused(diagnostics) | Unsent(diagnostics):
                address = order.change.address
                self.problems += (
                    replace(each, address=address, message=f"`{address}`: {each.message}") for each in diagnostics
                )
                if isinstance(outcome, Unsent) and any(each.code in _OF_ALL for each in diagnostics):
                    self.once.down.add(self.provider.name)

    def _look(self) -> Iterator[tuple[Order, Job]]:
        try:
            found = self.once.look(self.provider)
        except EvalopsError as error:
            self._trouble = str(error)
            return
        self._trouble = ""
        for key, doubt in list(self._doubts.items()):
            if key in found:
                del self._doubts[key]
                yield doubt.order, found[key]
            elif not self.once.is_open(key):
                del self._doubts[key]
                self._send_again(key, doubt.order)

    def _send_again(self, key: Key, order: Order) -> None:
        """It is proven that no job was made: another request may follow, one a run, if this is what was agreed to."""
        if order.change.action is not Action.UNKNOWN and key not in self._sent_again:
            self._sent_again.add(key)
            self._waiting.append(order)
            return
        address = order.change.address
        self.problems.append(
            Diagnostic(
                code="apply/absent",
                message=f"no job was made for `{address}` by the request whose outcome was open",
                address=address,
                hint="run the same command again: nothing stands in the way of another request",
            )
        )
