"""One paid request a decision: written ahead, sent once, and looked for where its outcome is unclear.

The order is intent, upload, `submitting`, the one request, its outcome, the lock entry; each is durable before the
next. What a kill or a lost answer leaves open is found again at the service, or proven not to be there, before
anything is sent for the same work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.journal import Intent, Journal, Key, State
from evalops.lock import Status
from evalops.plan import Change
from evalops.providers.base import Job, Listing, Provider, Refused, Request, Unclear
from evalops.sending import Act, Steps

SKEW = timedelta(minutes=5)  # clocks differ: a job may seem older than what asked for it
MOST_BEHIND = 50  # creates after one whose outcome is open; a service's list holds 100 jobs


class Unsent(NamedTuple):
    """Nothing was sent and nothing is in doubt: the provider could not be asked for what has to be known first.

    Without diagnostics it only has to wait: apply begins nothing new, or too much was made behind an open request.
    """

    diagnostics: tuple[Diagnostic, ...] = ()


Outcome = Job | Refused | Unclear | Unsent


@dataclass(slots=True, kw_only=True)
class Once:
    """The paid requests of one apply, for one thread. `claimed` are jobs that lockfiles already name.

    `wanted` is the work that specs ask for, by fingerprint and generation, None before that is known. `down` are the
    providers that could not be asked; why is among the diagnostics. One who sets `is_stopped` lets nothing new begin.
    """

    journal: Journal
    providers: Mapping[str, Provider]
    claimed: set[str]
    wanted: Collection[tuple[str, int]] | None = None
    diagnostics: list[Diagnostic] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    is_stopped: bool = False
    _listings: dict[str, Listing] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)  # by provider, the last job that is surely there

    def recover(self) -> None:
        """Looks for what earlier requests left open."""
        for provider in self._known().values():
            try:
                self.look(provider)
            except EvalopsError as error:
                self.cannot_ask(provider, error)

    def cannot_ask(self, provider: Provider, error: EvalopsError) -> None:
        """A provider that others have to do without for now."""
        self.down.add(provider.name)
        self.diagnostics += error.diagnostics

    def look(self, provider: Provider) -> dict[Key, Job]:
        """Looks for what is open at a provider, with no request under way; the jobs that it found.

        What is open no longer and was not found is proven not to be there. Raises EvalopsError.
        """
        open_ = [each for each in self._open() if each.key.provider == provider.name]
        if not open_:
            return {}
        listing = provider.list(since=min(each.submitted_at or each.at for each in open_))
        found = {each.key: self._look(provider, each, listing) for each in open_}
        return {key: job for key, job in found.items() if job}

    def send(self, provider: Provider, request: Request, change: Change, plan: str) -> Steps[Outcome]:
        """Asks for a job, once; what was decided and what came of it is durable before this returns."""
        key = key_of(provider, request)
        known = self.journal.intents.get(key)
        if known is not None and known.job and known.state is not State.ABANDONED:
            return (yield from self._paid(provider, known.job))
        if known is not None and known.is_open:
            return Unclear(_still(known, provider))
        if self.must_wait:
            return Unsent()
        self.journal.intent(key, address=change.address, lock=change.lock, plan=plan, estimate=change.estimate.cost)
        try:
            listing = self._listing(provider)
            request = yield Act(partial(provider.prepare, request))
        except EvalopsError as error:
            return Unsent(tuple(error.diagnostics))
        if self.must_wait or self.is_open(key):  # other requests went on meanwhile
            return Unsent()
        sent = dict(request.sent or {})
        self.journal.uploaded(key, file=request.file or "", sha256=request.sha256 or "", parameters=sent)
        existing = self._existing(provider, request, sent, listing)
        if existing is not None:
            self.claimed.add(existing.id)
            self.journal.adopted(key, job=existing.id, evidence={"created_at": existing.created_at})
            return existing
        newest = listing.jobs[0].id if listing.jobs else None
        self.journal.submitting(key, after=self._newest.get(provider.name, newest))
        outcome: Job | Refused | Unclear = yield Act(partial(provider.submit, request), is_paid=True)
        match outcome:
            case Job():
                self.journal.created(key, job=outcome.id, created_at=outcome.created_at)
                self.claimed.add(outcome.id)
                self._newest[provider.name] = outcome.id
            case Refused(diagnostics):
                self.journal.refused(key, code=diagnostics[0].code, why=diagnostics[0].message)
            case Unclear(why):
                self.journal.ambiguous(key, why=why)
        return outcome

    @property
    def must_wait(self) -> bool:
        """Whether nothing new may be sent, for now or for good."""
        return self.is_stopped or self._behind() >= MOST_BEHIND

    def _paid(self, provider: Provider, job: str) -> Steps[Outcome]:
        """The job that an earlier apply paid for, and whose lock entry is not here."""
        try:
            found: Job | None = yield Act(partial(provider.job, job))
        except EvalopsError as error:
            return Unsent(tuple(error.diagnostics))
        message = f"{provider.name} no longer has the job {job} of this work"
        return found or Refused((Diagnostic(code="job/gone", message=message),))

    def _listing(self, provider: Provider) -> Listing:
        """The jobs that the provider had when this apply first asked."""
        if provider.name not in self._listings:
            self._listings[provider.name] = provider.list()
        return self._listings[provider.name]

    def _existing(self, provider: Provider, request: Request, sent: Mapping[str, Any], listing: Listing) -> Job | None:
        """A job that another client, or an apply elsewhere, made for the same work; a rerun wants none of them."""
        if request.generation > 1:
            return None
        for job in reversed(listing.jobs):
            if job.id not in self.claimed and job.status is not Status.FAILED and provider.is_work(job, sent):
                return job
        return None

    def _look(self, provider: Provider, intent: Intent, listing: Listing) -> Job | None:
        """Adopts the job that an open intent made, or proves that there is none, or leaves it open."""
        earliest = _time(intent.submitted_at or intent.at) - SKEW
        found = [
            job
            for job in reversed(listing.jobs)  # the oldest first
            if job.id not in self.claimed
            and _time(job.created_at) >= earliest
            and provider.is_work(job, intent.parameters or {})
        ]
        if found:
            first, *others = found
            self._report(intent, first, others)
            self.claimed.update(job.id for job in found)
            evidence = {"created_at": first.created_at, "others": [job.id for job in others]}
            self.journal.adopted(intent.key, job=first.id, evidence=evidence)
            return first
        lag = timedelta(seconds=provider.visibility_lag)
        if _covers(listing, intent) and _time(listing.at) >= _time(intent.at) + lag:
            self.journal.absent(intent.key, proof={"listed": len(listing.jobs), "at": listing.at})
        return None

    def _report(self, intent: Intent, job: Job, others: list[Job]) -> None:
        for other in others:
            self.diagnostics.append(
                Diagnostic(
                    code="apply/twice",
                    message=f"the service has the work of `{intent.address}` more than once: {job.id} is taken, "
                    f"{other.id} was paid for too",
                    address=intent.address,
                    hint="it was not evalops that asked twice: see whether another client retries",
                    severity=Severity.WARNING,
                )
            )

    def locked(self, provider: Provider, request: Request, lock: str, digest: str) -> None:
        """The lock entry of a job is durable."""
        key = key_of(provider, request)
        known = self.journal.intents.get(key)
        if known is not None and (known.is_unlocked or known.state is State.LOCKED):
            self.journal.locked(key, lock=lock, digest=digest)

    def left_over(self) -> list[Diagnostic]:
        """Paid jobs that no lock names and that no spec asks for any more."""
        wanted = self.wanted
        if wanted is None:
            return []
        found = (each for each in self._mine() if each.is_unlocked)
        return [_left_over(each, wanted) for each in found if (each.key.fingerprint, each.key.generation) not in wanted]

    def is_open(self, key: Key) -> bool:
        """Whether the outcome of a request is not known."""
        known = self.journal.intents.get(key)
        return known is not None and known.is_open

    def made_at(self, job: str) -> str | None:
        """When a job was made, by the provider's clock, where this or an earlier apply has made it."""
        for each in self._mine():
            if each.job == job:
                evidence = each.evidence if isinstance(each.evidence, dict) else {}
                made = each.created_at or evidence.get("created_at")
                return made if isinstance(made, str) else None
        return None

    def unknown(self) -> dict[tuple[str, int], str]:
        """The work whose outcome is open, by fingerprint and generation, and why."""
        return {
            (each.key.fingerprint, each.key.generation): _still(each, self.providers[each.key.provider])
            for each in self._open()
            if each.key.provider in self.providers
        }

    def paid(self) -> dict[tuple[str, int], str]:
        """The jobs that are paid and may have no lock entry, by fingerprint and generation."""
        return {
            (each.key.fingerprint, each.key.generation): each.job
            for each in self._mine()
            if each.job and each.state in (State.CREATED, State.ADOPTED, State.LOCKED)
        }

    def _known(self) -> dict[str, Provider]:
        """The providers that the journal knows of."""
        names = {each.key.provider for each in self.journal.intents.values()}
        return {name: self.providers[name] for name in self.providers if name in names}

    def _mine(self) -> Iterator[Intent]:
        origins = {name: provider.origin for name, provider in self._known().items()}
        for each in self.journal.intents.values():
            if each.key.provider in origins and each.key.origin == origins[each.key.provider]:
                yield each

    def _open(self) -> list[Intent]:
        return [each for each in self._mine() if each.is_open]

    def _behind(self) -> int:
        """How many jobs there may be that are newer than the oldest request that is open or under way.

        The service's list must still reach back to that one.
        """
        known = list(self._mine())
        first = min((each.submitted_at or each.at for each in known if each.is_open), default=None)
        if first is None:
            return 0
        return sum((each.submitted_at or "") >= first for each in known if each.job or each.is_open) - 1


def key_of(provider: Provider, request: Request) -> Key:
    """What at most one paid job is for."""
    return Key(provider.name, provider.origin, request.identity.fingerprint, request.generation)


def _covers(listing: Listing, intent: Intent) -> bool:
    """Whether a job that this intent made could not be missing from the list for the list's own bounds.

    A list that was cut, by a limit that is not the one we know, may look complete. So it must also show what was
    there before the job, if there was anything.
    """
    if intent.after is None:
        return listing.is_complete
    return any(job.id == intent.after for job in listing.jobs) and (listing.is_gapless or listing.is_complete)


def _left_over(intent: Intent, wanted: Collection[tuple[str, int]]) -> Diagnostic:
    is_rerun = (intent.key.fingerprint, intent.key.generation - 1) in wanted
    why = "to run it again, and no lockfile has it" if is_rerun else "which has changed since"
    return Diagnostic(
        code="apply/left-over",
        message=f"the job {intent.job} was paid for `{intent.address}`, {why}",
        address=intent.address,
        hint=f"at no cost: evalops apply --rerun '{intent.address}' --reason 'it is paid for'"
        if is_rerun
        else "its result stays at the service; with the spec of that time, apply adopts it",
        severity=Severity.WARNING,
    )


def _still(intent: Intent, provider: Provider) -> str:
    until = _time(intent.at) + timedelta(seconds=provider.visibility_lag)
    return (
        f"the request of {intent.submitted_at} for `{intent.address}` has no known outcome; "
        f"apply looks for its job again, and can tell at {until:%Y-%m-%d %H:%M:%S} UTC at the latest"
    )


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
