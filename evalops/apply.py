"""Carrying out a plan: one job a decision, each fact durable before the next, and nothing lost to a kill.

The order that makes this safe: a lock entry names a job as soon as it is submitted, a result is written as
soon as it is known, and what was interrupted is found again by the next plan as `resume`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain
from types import FrameType
from typing import Any

from evalops import jobs, lock, verdicts
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.lock import Entry, Lock, Status
from evalops.once import Once
from evalops.plan import Action, Change, Plan
from evalops.project import Project
from evalops.providers.base import Event, Finished, Following, Job, Progress, Provider, Refused, Request, Unclear
from evalops.result import Usage, Verdict
from evalops.spec import Evaluation

MOST_VERDICTS = 64 << 20  # bytes

Observer = Callable[[str, Event], None]  # the address an event is about ("" for none), and the event


@dataclass(slots=True)
class Applied:
    """What an apply did, in the order in which it happened."""

    entries: dict[str, Entry] = field(default_factory=dict)
    locks: set[str] = field(default_factory=set)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    interrupted: bool = False
    unclear: dict[str, str] = field(default_factory=dict)  # address -> why

    @property
    def is_waiting(self) -> bool:
        """Whether a job goes on after this."""
        return any(entry.status.is_open for entry in self.entries.values())

    @property
    def failed(self) -> list[Entry]:
        """The entries whose job failed."""
        return [entry for entry in self.entries.values() if entry.status is Status.FAILED]


@dataclass(slots=True)
class _Run:
    """One apply under way."""

    project: Project
    locks: dict[str, Lock]
    providers: Mapping[str, Provider]
    observe: Observer
    once: Once
    digest: str
    until: float | None
    applied: Applied = field(default_factory=Applied)
    following: Following | None = None
    ends_itself: bool = False  # whether what is followed runs here and ends in order, also at once

    def put(self, path: str, entry: Entry) -> None:
        """Writes one entry to its lockfile, durably."""
        self.locks[path] = self.locks.get(path, Lock(path=path)).put(entry)
        self.project.write_lock(self.locks[path])
        self.applied.entries[entry.address] = entry
        self.applied.locks.add(path)

    @property
    def most_verdicts(self) -> int:
        """How many lines a verdicts file of the allowed size can have at the most."""
        return self.project.settings.verdicts_max_bytes // verdicts.SHORTEST

    def sections(self, path: str) -> dict[str, verdicts.Section]:
        """The sections of a verdicts file, none where there is no file that can be used."""
        try:
            return verdicts.parse(self.project.read(path, MOST_VERDICTS), path)
        except EvalopsError as error:
            if error.diagnostics[0].code != "file/missing":
                self.applied.diagnostics.append(replace(error.diagnostics[0], severity=Severity.WARNING))
            return {}

    def write_sections(self, path: str, sections: Mapping[str, verdicts.Section]) -> None:
        """Writes a verdicts file; one that is empty or larger than the project wants is not there."""
        data = verdicts.dump(sections)
        if sections and len(data) <= self.project.settings.verdicts_max_bytes:
            self.project.write(path, data)
        else:
            (self.project.root / path).unlink(missing_ok=True)


def carry_out(
    project: Project,
    plan: Plan,
    locks: Mapping[str, Lock],
    providers: Mapping[str, Provider],
    observe: Observer,
    once: Once,
    *,
    patience: float | None = None,
) -> Applied:
    """Everything the plan says. Raises EvalopsError where a file or the store cannot be written.

    SIGINT and SIGTERM stop it: what is in flight ends, nothing new starts, and `interrupted` is set. `patience` is
    how long it waits for jobs, in seconds from now; those still open then go on later.
    """
    until = None if patience is None else time.monotonic() + patience
    run = _Run(project, dict(locks), providers, observe, once, plan.digest, until)
    with _signals(run):
        try:
            _carry_out(run, plan)
        except KeyboardInterrupt:
            if not run.applied.interrupted:
                raise
    return run.applied


def _carry_out(run: _Run, plan: Plan) -> None:
    work: list[tuple[Change, Job, Request]] = []
    for change in plan.changes:
        if run.applied.interrupted:
            break
        if change.action is Action.ADOPT and change.found:
            _copy(run, change, change.found)
        elif change.action is Action.REGRADE and change.entry:
            _regrade(run, change, change.entry)
        elif change.action in _RUNS or (change.action is Action.ADOPT and change.job):
            work += _submit(run, change)
    _forget(run, plan)
    _follow(run, work)
    for change in plan.of(Action.ADOPT):
        entry = run.applied.entries.get(change.source or "")
        if not change.found and not change.job and entry and entry.status is Status.COMPLETED:
            _copy(run, change, entry)


_RUNS = (Action.CREATE, Action.RERUN, Action.RESUME)


def _submit(run: _Run, change: Change) -> list[tuple[Change, Job, Request]]:
    """Submits one change and writes down the job before anything waits for it."""
    assert change.wanted is not None
    evaluation, identity = change.wanted
    provider = run.providers[evaluation.provider]
    request = provider.request(evaluation, identity, change.generation)
    outcome = _job_of(run, change, provider, request)
    if isinstance(outcome, Refused):
        run.applied.diagnostics += (replace(each, address=change.address) for each in outcome.diagnostics)
        return []
    if isinstance(outcome, Unclear):
        run.applied.unclear[change.address] = outcome.why
        return []
    if change.action is Action.RESUME and outcome.status is Status.FAILED and provider.is_repeatable:
        provider.retry(outcome.id)
        outcome = replace(outcome, status=Status.PENDING, message=None, finished_at=None)
    is_failed = outcome.status is Status.FAILED  # found as such: it goes on when it is asked for, not by itself
    old = change.entry
    run.put(
        change.lock,
        Entry(
            address=change.address,
            fingerprint=identity.fingerprint,
            generation=change.generation,
            reason=change.why or (old.reason if old and old.generation == change.generation else None),
            provider=evaluation.provider,
            origin=provider.origin,
            job=outcome.id,
            status=Status.PENDING if outcome.status is Status.COMPLETED else outcome.status,
            message=outcome.message if is_failed else None,
            created_at=outcome.created_at,
            finished_at=outcome.finished_at if is_failed else None,
            dataset=jobs.dataset_of(identity),
            inputs=identity.inputs,
            grade=identity.grade,
            # The last result stays until the new one is there; its `job` says what it is of.
            summary=old.summary if old else None,
            gates=old.gates if old else (),
            unknown=old.unknown if old else {},
        ),
    )
    run.once.locked(provider, request, change.lock, lock.digest_of(run.applied.entries[change.address]))
    return [] if is_failed else [(change, outcome, request)]


def _job_of(run: _Run, change: Change, provider: Provider, request: Request) -> Job | Refused | Unclear:
    """The job of a change: the one that is there, else a new one."""
    if provider.is_repeatable:
        return provider.submit(provider.prepare(request))
    known = change.job or (change.entry.job if change.action is Action.RESUME and change.entry else None)
    if known is None:
        return run.once.send(provider, request, change, run.digest)
    job = provider.job(known)
    return _gone(provider, change, known) if job is None else job


def _gone(provider: Provider, change: Change, job: str) -> Job | Refused:
    """A job that the provider does not have: it has failed for good, unless it is so young that it may yet appear."""
    message = f"{provider.name} no longer has the job {job}"
    entry = change.entry
    if entry and entry.job == job and entry.created_at:
        made = datetime.fromisoformat(entry.created_at)
        if provider.time() >= made + timedelta(seconds=provider.visibility_lag):
            return Job(
                id=job,
                fingerprint=change.fingerprint,
                generation=change.generation,
                status=Status.FAILED,
                provider_status="",
                created_at=entry.created_at,
                message=message,
            )
    return Refused((Diagnostic(code="job/gone", message=message, hint="it may be too new to be seen: apply again"),))


def _follow(run: _Run, work: list[tuple[Change, Job, Request]]) -> None:
    """Waits for all submitted jobs, provider by provider, and collects each as it ends."""
    for name in sorted({change.wanted.evaluation.provider for change, _, _ in work if change.wanted}):
        provider = run.providers[name]
        own = [each for each in work if each[0].wanted and each[0].wanted.evaluation.provider == name]
        by_job: dict[str, list[tuple[Change, Request]]] = {}  # addresses with the same work share a job
        waiting: dict[str, tuple[Job, Request]] = {}
        for change, job, request in own:
            by_job.setdefault(job.id, []).append((change, request))
            if job.status is Status.COMPLETED:
                _collect(run, change, request, job, provider)
            else:
                waiting[job.id] = (job, request)
        if not waiting or run.applied.interrupted:
            continue
        with provider.follow(list(waiting.values())) as run.following:
            run.ends_itself = provider.is_repeatable
            if run.applied.interrupted:
                run.following.stop()
            with _patience(run):
                for event in run.following:
                    if isinstance(event, Finished):
                        for change, request in by_job[event.job.id]:
                            run.observe(change.address, event)
                            _collect(run, change, request, event.job, provider)
                    else:
                        about = by_job.get(event.job) if isinstance(event, Progress) else None
                        run.observe(about[0][0].address if about else "", event)


@contextmanager
def _patience(run: _Run) -> Iterator[None]:
    """Stops waiting for jobs when the time is over that the user gave."""
    if run.until is None or run.following is None:
        yield
        return
    timer = threading.Timer(max(0.0, run.until - time.monotonic()), run.following.stop)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _collect(run: _Run, change: Change, request: Request, job: Job, provider: Provider) -> None:
    """Writes down how a job ended: its result, its failure, or that it goes on later."""
    entry = run.locks[change.lock].entries[change.address]
    assert change.wanted is not None
    if job.status is not Status.COMPLETED:
        run.put(change.lock, replace(entry, status=job.status, message=job.message, finished_at=job.finished_at))
        return
    found = (verdict for verdict, _ in provider.rows(job.id, request))
    usage = provider.usage(job.id, change.wanted.evaluation)
    entry = replace(entry, status=Status.COMPLETED, message=None, finished_at=job.finished_at)
    _grade(run, change, entry, request, found, usage, None)


def _grade(
    run: _Run,
    change: Change,
    entry: Entry,
    request: Request,
    found: Iterable[Verdict],
    usage: Usage | Mapping[str, Any],
    rungs: Mapping[str, int] | None,
) -> None:
    """Writes the result of `found`; rows and verdicts that do not pair up are a problem of this address alone."""
    assert change.wanted is not None
    try:
        summary, kept = jobs.grade(
            change.wanted, request.rows(), found, usage=usage, rungs=rungs, most=run.most_verdicts
        )
    except EvalopsError as error:
        run.applied.diagnostics += (replace(each, address=change.address) for each in error.diagnostics)
        return
    _keep_verdicts(run, change.lock, change.address, entry.job or "", kept)
    run.put(change.lock, jobs.finished(entry, change.wanted, summary))


def _copy(run: _Run, change: Change, source: Entry) -> None:
    """Gives an address the work that another one has, graded by its own rules."""
    assert change.wanted is not None
    entry = replace(
        source,
        address=change.address,
        dataset=jobs.dataset_of(change.wanted.identity),
        unknown=change.entry.unknown if change.entry else {},
    )
    same = source.grade == change.wanted.identity.grade
    if same and source.summary is not None:
        _copy_verdicts(run, change, source)
        run.put(change.lock, jobs.finished(entry, change.wanted, dict(source.summary)))
    else:
        _regrade(run, change, entry, source.address)


def _regrade(run: _Run, change: Change, entry: Entry, kept_at: str | None = None) -> None:
    """Grades a finished job again: from its summary where only thresholds changed, else from its verdicts."""
    assert change.wanted is not None
    if entry.grade == change.wanted.identity.grade and entry.summary is not None:
        run.put(change.lock, jobs.finished(entry, change.wanted, dict(entry.summary)))
        return
    evaluation = change.wanted.evaluation
    provider = run.providers[evaluation.provider]
    request = provider.request(evaluation, change.wanted.identity, entry.generation)
    # Least asked first: a service's rows are fetched only where nothing else has the verdicts.
    found: Iterable[Verdict] = []
    if not provider.is_repeatable:
        found = _kept_verdicts(run, evaluation, kept_at or change.address, entry.job)
    if not found:
        found = (verdict for verdict, _ in provider.rows(entry.job or "", request))
        first = next(iter(found), None)
        found = chain([first], found) if first else []
    if not found:
        found = _kept_verdicts(run, evaluation, kept_at or change.address, entry.job)
    if not found:
        run.applied.diagnostics.append(
            Diagnostic(
                code="result/no-verdicts",
                message=f"`{change.address}` cannot be graded again: neither its rows nor its verdicts file are here",
                address=change.address,
                hint=f"evalops apply --rerun '{change.address}' --reason 'grade again' runs it anew",
            )
        )
        return
    old = entry.summary or {}
    _grade(run, change, entry, request, found, old.get("usage", {}), old.get("rungs", {}))


def _forget(run: _Run, plan: Plan) -> None:
    """Takes entries without a spec out of their locks, and their verdicts with them; not what was to be adopted."""
    waiting = {each.source for each in plan.of(Action.ADOPT) if each.address not in run.applied.entries}
    for change in plan.of(Action.FORGET):
        if change.address in waiting:
            continue
        lock_ = run.locks[change.lock].drop([change.address])
        run.locks[change.lock] = lock_
        path = verdicts.beside(change.lock)
        sections = run.sections(path)
        if sections.pop(change.address, None):
            run.write_sections(path, sections)
        run.project.write_lock(lock_)
        run.applied.locks.add(change.lock)


def _keep_verdicts(run: _Run, path: str, address: str, job: str, kept: list[Verdict]) -> None:
    path = verdicts.beside(path)
    sections = run.sections(path)
    sections.pop(address, None)
    if kept:
        sections[address] = verdicts.Section(address=address, job=job, verdicts=kept)
    run.write_sections(path, sections)


def _copy_verdicts(run: _Run, change: Change, source: Entry) -> None:
    assert change.wanted is not None
    kept = _kept_verdicts(run, change.wanted.evaluation, source.address, source.job)
    if kept:
        _keep_verdicts(run, change.lock, change.address, source.job or "", kept)


def _kept_verdicts(run: _Run, evaluation: Evaluation, address: str, job: str | None) -> list[Verdict]:
    """The verdicts of an address and job from whichever verdicts file has them."""
    for path in map(verdicts.beside, run.locks):
        section = run.sections(path).get(address)
        if section and section.job == job:
            try:
                return verdicts.checked(section, evaluation, path)
            except EvalopsError as error:
                run.applied.diagnostics += error.diagnostics
    return []


@contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM only sets a flag: what is in flight ends, and its outcome is written down.

    The second one stops at once, like a kill, which every record is made for.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        is_second, run.applied.interrupted = run.applied.interrupted, True
        if run.following is not None:
            run.following.stop(now=is_second)
        if is_second and not run.ends_itself:
            raise KeyboardInterrupt

    names: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        names = ()  # a program that embeds apply in a thread handles its signals itself
    before = {name: signal.getsignal(name) for name in names}
    # What is ignored, as SIGHUP is below `nohup`, stays ignored.
    before = {name: handler for name, handler in before.items() if handler is not signal.SIG_IGN}
    for name in before:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
