"""What every provider does, so that apply needs to know none of them.

A provider never sees a lock, a plan or a terminal. `check`, `prepare` and `list` are free; `submit` is the
one call that may cost money, and it is made once a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from evalops.dataset import Row
from evalops.errors import Diagnostic
from evalops.fingerprint import Identity
from evalops.lock import Status
from evalops.result import Usage, Verdict
from evalops.spec import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One evaluation, ready to be submitted. `rows` opens the keyed dataset anew at each call."""

    evaluation: Evaluation
    identity: Identity
    generation: int
    rows: Callable[[], Iterator[tuple[str, Row]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run at a provider. `provider_status` is the provider's own word."""

    id: str
    fingerprint: str
    generation: int
    status: Status
    provider_status: str
    created_at: str
    finished_at: str | None = None
    message: str | None = None


class Refused(NamedTuple):
    """The provider surely did not take the job."""

    diagnostics: tuple[Diagnostic, ...]


class Unclear(NamedTuple):
    """It cannot be told whether the provider took the job."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is: `total` is None where the provider does not say; `counts` by verdict or status."""

    job: str
    done: int
    total: int | None
    counts: Mapping[str, int] = field(default_factory=dict)
    note: str = ""


class Finished(NamedTuple):
    """A job has ended, or was left: its status then is running or cancelled."""

    job: Job


class Notice(NamedTuple):
    """Something a person who waits should know: a model is being fetched, an endpoint asks for a pause."""

    text: str


Event = Progress | Finished | Notice


class Provider(Protocol):
    """The seam between apply and the services. Open as a context: leaving it frees what it holds."""

    name: str
    origin: str | None

    def check(self, evaluation: Evaluation) -> list[Diagnostic]:
        """What this provider cannot do of an evaluation. Offline; no credential is read."""

    def pins(self, evaluation: Evaluation) -> Mapping[str, str]:
        """Digests, by model id, of what lies outside the spec and can change a verdict. Offline."""

    def prepare(self, evaluation: Evaluation, identity: Identity, generation: int) -> Request:
        """Everything before the money: uploads, for one. Idempotent."""

    def submit(self, request: Request) -> Job | Refused | Unclear:
        """Ask for the job, once."""

    def follow(self, work: Sequence[tuple[Job, Request]]) -> AbstractContextManager[Following]:
        """Wait for jobs, or carry them out and on."""

    def list(self, since: str | None = None) -> tuple[list[Job], bool]:
        """The jobs the provider has, newest first, and whether the list is complete back to `since`."""

    def rows(self, job: str) -> Iterable[tuple[Verdict, dict[str, Any]]]:
        """The verdicts of a job with what else the provider says of each row."""

    def usage(self, job: str, evaluation: Evaluation) -> Usage:
        """Tokens and cost of a job."""

    def retry(self, job: str) -> None:
        """Let a failed job go on: what failed is tried again, what is done stays."""

    def close(self) -> None:
        """Free what is held."""


class Following(Protocol):
    """The events of jobs under way; `stop` lets what is in flight finish and starts nothing new."""

    def __iter__(self) -> Iterator[Event]: ...

    def stop(self, *, now: bool = False) -> None: ...
