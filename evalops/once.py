"""One paid request a decision: written ahead, sent once, and looked for where its outcome is unclear.

The order is intent, upload, `submitting`, the one request, its outcome, the lock entry; each is durable before the
next. What a kill or a lost answer leaves open is found again at the service, or proven not to be there, before
anything is sent for the same work.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from evalops.errors import Diagnostic, EvalopsError, Exit, Severity
from evalops.journal import Intent, Journal, Key, State
from evalops.lock import Status
from evalops.plan import Change
from evalops.providers.base import Job, Listing, Provider, Refused, Request, Unclear

SKEW = timedelta(minutes=5)  # clocks differ: a job may seem older than what asked for it
MOST_BEHIND = 50  # creates after one whose outcome is open; a service's list holds 100 jobs


@dataclass(slots=True, kw_only=True)
class Once:
    """The paid requests of one apply. `claimed` are jobs that lockfiles already name."""

    journal: Journal
    providers: Mapping[str, Provider]
    claimed: set[str]
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _listings: dict[str, Listing] = field(default_factory=dict)
    _newest: dict[str, str] = field(default_factory=dict)  # by provider, the last job that is surely there

    def recover(self) -> None:
        """Looks for what earlier requests left open. Raises EvalopsError (exit 4) where a service cannot be asked."""
        for name, provider in self.providers.items():
            found = [each for each in self._open() if each.key.provider == name]
            if found:
                try:
                    listing = provider.list(since=min(each.submitted_at or each.at for each in found))
                except EvalopsError as error:
                    raise EvalopsError(*error.diagnostics, exit_code=Exit.UNKNOWN_OUTCOME) from None
                for intent in found:
                    self._look(provider, intent, listing)

    def send(self, provider: Provider, request: Request, change: Change, plan: str) -> Job | Refused | Unclear:
        """Asks for a job, once; what was decided and what came of it is durable before this returns."""
        key = key_of(provider, request)
        known = self.journal.intents.get(key)
        if known is not None and known.job and known.state is not State.ABANDONED:
            # An earlier apply paid for it, and its lock entry is not here.
            message = f"{provider.name} no longer has the job {known.job} of this work"
            return provider.job(known.job) or Refused((Diagnostic(code="job/gone", message=message),))
        if known is not None and known.is_open:
            return Unclear(_still(known, provider))
        if self._behind() >= MOST_BEHIND:
            return Unclear("it waits until the outcome of an earlier request is known")
        self.journal.intent(key, address=change.address, lock=change.lock, plan=plan, estimate=change.estimate.cost)
        request = provider.prepare(request)
        sent = dict(request.sent or {})
        self.journal.uploaded(key, file=request.file or "", sha256=request.sha256 or "", parameters=sent)
        listing = self._listing(provider)
        existing = self._existing(provider, request, sent, listing)
        if existing is not None:
            self.claimed.add(existing.id)
            self.journal.adopted(key, job=existing.id, evidence={"created_at": existing.created_at})
            return existing
        newest = listing.jobs[0].id if listing.jobs else None
        self.journal.submitting(key, after=self._newest.get(provider.name, newest))
        outcome = provider.submit(request)
        match outcome:
            case Job():
                self.journal.created(key, job=outcome.id, created_at=outcome.created_at)
                self.claimed.add(outcome.id)
                self._newest[provider.name] = outcome.id
            case Refused(diagnostics):
                self.journal.refused(key, code=diagnostics[0].code, why=diagnostics[0].message)
            case Unclear(why):
                return self._doubt(provider, self.journal.ambiguous(key, why=why), why)
        return outcome

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

    def _doubt(self, provider: Provider, intent: Intent, why: str) -> Job | Unclear:
        """The answer is lost, the job may be there: most often a look at the service tells."""
        try:
            intent = self._look(provider, intent, provider.list(since=intent.submitted_at))
        except EvalopsError as error:
            return Unclear(f"{why}; and {error}")
        job = provider.job(intent.job) if intent.job else None
        if job is not None:
            return job
        return Unclear(f"{why}; {_still(intent, provider)}")

    def _look(self, provider: Provider, intent: Intent, listing: Listing) -> Intent:
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
            return self.journal.adopted(
                intent.key,
                job=first.id,
                evidence={"created_at": first.created_at, "others": [job.id for job in others]},
            )
        lag = timedelta(seconds=provider.visibility_lag)
        if _covers(listing, intent) and _time(listing.at) >= _time(intent.at) + lag:
            return self.journal.absent(intent.key, proof={"listed": len(listing.jobs), "at": listing.at})
        return intent

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

    def let_go(self, wanted: Collection[tuple[str, int]]) -> None:
        """Reports paid jobs that no lock names and that no spec asks for any more; `wanted` is what specs ask for."""
        for intent in self._mine():
            if not intent.is_unlocked or (intent.key.fingerprint, intent.key.generation) in wanted:
                continue
            is_rerun = (intent.key.fingerprint, intent.key.generation - 1) in wanted
            self.diagnostics.append(
                Diagnostic(
                    code="apply/left-over",
                    message=f"the job {intent.job} was paid for `{intent.address}`, "
                    + ("to run it again, and no lockfile has it" if is_rerun else "which has changed since"),
                    address=intent.address,
                    hint=f"at no cost: evalops apply --rerun '{intent.address}' --reason 'it is paid for'"
                    if is_rerun
                    else "its result stays at the service; with the spec of that time, apply adopts it",
                    severity=Severity.WARNING,
                )
            )

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

    def _mine(self) -> Iterator[Intent]:
        for each in self.journal.intents.values():
            provider = self.providers.get(each.key.provider)
            if provider is not None and each.key.origin == provider.origin:
                yield each

    def _open(self) -> list[Intent]:
        return [each for each in self._mine() if each.is_open]

    def _behind(self) -> int:
        """How many jobs were made since the oldest request that is open: the service's list must still reach it."""
        first = min((each.submitted_at or each.at for each in self._open()), default=None)
        return 0 if first is None else sum((each.submitted_at or "") > first for each in self._mine() if each.job)


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


def _still(intent: Intent, provider: Provider) -> str:
    until = _time(intent.at) + timedelta(seconds=provider.visibility_lag)
    return (
        f"the request of {intent.submitted_at} for `{intent.address}` has no known outcome; "
        f"apply looks for its job again, and can tell at {until:%Y-%m-%d %H:%M:%S} UTC at the latest"
    )


def _time(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
