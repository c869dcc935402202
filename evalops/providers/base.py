"""What every provider does, so that apply needs to know none of them.

A provider never sees a lock, a plan or a terminal. `check`, `prepare` and `list` are free; `submit` is the
one call that may cost money, and it is made once a decision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from evalops.datasets.dataset import Row
from evalops.endpoint import Endpoint
from evalops.errors import Diagnostic
from evalops.fingerprint import Identity
from evalops.lock import Status
from evalops.meter import Meter
from evalops.result import Usage, Verdict
from evalops.spec import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One evaluation, ready to be submitted. `rows` opens the keyed dataset anew at each call.

    `file` and `sha256` are of the upload, `sent` is all that the provider will be told, less the secrets.
    """

    evaluation: Evaluation
    identity: Identity
    generation: int
    rows: Callable[[], Iterator[tuple[str, Row]]]
    file: str | None = None
    sha256: str | None = None
    sent: Mapping[str, Any] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run at a provider. `provider_status` is the provider's own word, `told` what it says that was asked for.

    The fingerprint is empty where the provider cannot know it. `results` is what the provider itself counted, `pins`
    what names in the spec stand for in this job, where a service may change that.
    """

    id: str
    fingerprint: str
    generation: int
    status: Status
    provider_status: str
    created_at: str
    finished_at: str | None = None
    message: str | None = None
    told: Mapping[str, Any] | None = field(default=None, repr=False)
    results: Mapping[str, Any] | None = field(default=None, repr=False)
    pins: Mapping[str, str] = field(default_factory=dict)


class Listing(NamedTuple):
    """Jobs, newest first; whether none is missing back to the time that was asked for; the provider's time.

    `is_gapless` where none is missing that is newer than the oldest of them.
    """

    jobs: list[Job]
    is_complete: bool
    at: str = ""
    is_gapless: bool = False


class Left(NamedTuple):
    """What going on with a job takes: calls at the most and at the least, and in words which rows they are for."""

    calls: int
    fewest: int
    why: str = ""


class Kept(NamedTuple):
    """The rows of a job as a service without jobs keeps them, an error where a result is not there.

    `is_ours`: it is sure that they are of this very work; else rows were told by their sample ids.
    """

    rows: Iterator[tuple[Verdict, dict[str, Any]]]
    is_ours: bool


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
    is_repeatable: bool  # whether to submit twice makes one job: then nothing has to be written ahead
    visibility_lag: float  # seconds for which a new job may be missing from `list`

    def check(self, evaluation: Evaluation) -> list[Diagnostic]:
        """What this provider cannot do of an evaluation. Offline; no credential is read."""

    def pins(self, evaluation: Evaluation) -> Mapping[str, str]:
        """Digests, by model id, of what lies outside the spec and can change a verdict. Offline."""

    def pinned(self, evaluation: Evaluation) -> Mapping[str, str]:
        """What names in the spec stand for at the service today, where it may change that. Asks it; free."""

    def endpoints(self, evaluation: Evaluation) -> tuple[Endpoint, ...]:
        """Where its models are called, one to one, as far as it can change a verdict. Offline; raises EvalopsError."""

    def request(self, evaluation: Evaluation, identity: Identity, generation: int) -> Request:
        """The evaluation with its rows. Offline."""

    def prepare(self, request: Request) -> Request:
        """Everything before the money: uploads, for one. Idempotent; raises EvalopsError."""

    def submit(self, request: Request) -> Job | Refused | Unclear:
        """Ask for the job, once."""

    def follow(
        self, work: Sequence[tuple[Job, Request | None]], meter: Meter | None = None, at_once: int | None = None
    ) -> AbstractContextManager[Following]:
        """Wait for jobs, or carry them out and on; without a request, one that runs here is left alone.

        Where calls are made here, `meter` is asked before each, and a job that it stops is cancelled with the reason.
        `at_once` bounds how many calls of a service are under way.
        """

    def list(self, since: str | None = None) -> Listing:
        """The jobs the provider has, newest first. `since` is RFC 3339."""

    def job(self, id_: str) -> Job | None:
        """One job, None where the provider does not have it."""

    def is_work(self, job: Job, sent: Mapping[str, Any]) -> bool:
        """Whether a job is what `sent` asks for, by value."""

    def known(
        self, wanted: Iterable[tuple[Evaluation, Identity]], held: Mapping[str, tuple[str, int]]
    ) -> Sequence[Job]:
        """The jobs that are the work of these evaluations, and those of `held`: ids with fingerprint and generation."""

    def rows(self, job: str, request: Request | None) -> Iterable[tuple[Verdict, dict[str, Any]]]:
        """The verdicts of a job with what else is known of each row, in the order of the dataset.

        None where they cannot be had, as where `request` is None and the provider needs the rows of the dataset.
        """

    def usage(self, job: str, evaluation: Evaluation) -> Usage:
        """Tokens and cost of a job."""

    def retry(self, job: str) -> None:
        """Let a failed job go on: what failed is tried again, what is done stays."""

    def time(self) -> datetime:
        """The time by the provider's clock, as far as it is known; asks nobody."""

    def close(self) -> None:
        """Free what is held."""


class Following(Protocol):
    """The events of jobs under way; `stop` lets what is in flight finish and starts nothing new."""

    def __iter__(self) -> Iterator[Event]: ...

    def stop(self, *, now: bool = False) -> None: ...


class RemoteFile(NamedTuple):
    """A file at a service. `kind` is its format: jsonl, csv …; `sha256` is there where the content was here once."""

    id: str
    name: str
    kind: str
    size: int | None
    purpose: str
    created_at: str | None
    sha256: str | None = None


class Inventory(Protocol):
    """What a service has, whoever put it there. Everything is free, and every call may raise EvalopsError."""

    def jobs(self, *, status: str | None = None, limit: int) -> Sequence[Job]:
        """The jobs, newest first. `status` is the service's own word."""

    def job(self, id_: str) -> Job | None:
        """One job, None where the service does not have it."""

    def files(self) -> Sequence[RemoteFile]:
        """The files, newest first."""

    def file(self, id_: str) -> RemoteFile | None:
        """One file, None where the service does not have it."""

    def fetch(self, id_: str, to: Path) -> None:
        """Writes the content of a file."""

    def result(self, job: str) -> Path | None:
        """A finished job's result file, byte for byte, None where the service has no such job."""

    def models(self) -> Sequence[str]:
        """The ids of the models that the service evaluates with."""
