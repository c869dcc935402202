"""Carrying out a plan: one job a decision, each fact durable before the next, and nothing lost to a kill.

The order that makes this safe: a lock entry names a job as soon as it is submitted, a result is written as
soon as it is known, and what was interrupted is found again by the next plan as `resume`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from types import FrameType
from typing import Any, NamedTuple

from evalops import destination, jobs, lock, verdicts
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.estimate import estimate
from evalops.lock import Entry, Lock, Status
from evalops.meter import Meter
from evalops.once import Once
from evalops.orders import AT_ONCE, Order, Orders
from evalops.plan import Action, Change, Plan
from evalops.project import Project
from evalops.providers.base import Event, Finished, Following, Job, Progress, Provider, Refused, Request
from evalops.result import Usage, Verdict
from evalops.settings import FILE
from evalops.spec import Evaluation

MOST_VERDICTS = 64 << 20  # bytes
GRACE, GRACE_IN_CI = 30.0, 4.0  # seconds that requests under way have after Ctrl-C; CI kills after about ten
FIRST_LOOK, LONGEST_LOOK, LONGER = 1.0, 30.0, 1.5  # seconds between two looks for what is in doubt, times

Observer = Callable[[str, Event], None]  # the address an event is about ("" for none), and the event


@dataclass(slots=True)
class Applied:
    """What an apply did, in the order in which it happened. `usage` is what its jobs took, earlier parts included."""

    entries: dict[str, Entry] = field(default_factory=dict)
    locks: set[str] = field(default_factory=set)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    interrupted: bool = False
    unclear: dict[str, str] = field(default_factory=dict)  # address -> why
    usage: dict[str, Usage] = field(default_factory=dict)  # by job

    @property
    def is_waiting(self) -> bool:
        """Whether a job goes on after this."""
        return any(entry.status.is_open for entry in self.entries.values())

    @property
    def failed(self) -> list[Entry]:
        """The entries whose job failed."""
        return [entry for entry in self.entries.values() if entry.status is Status.FAILED]


class Stop:
    """Stops an apply from another thread, as the first Ctrl-C does: what is in flight ends, nothing new starts."""

    def __init__(self) -> None:
        self.is_asked = False
        self._end: Callable[[], None] | None = None

    def ask(self) -> None:
        """Asks for the stop, now or for when the apply has begun."""
        self.is_asked = True
        if self._end is not None:
            self._end()

    def bind(self, end: Callable[[], None]) -> None:
        """What is to happen then."""
        self._end = end
        if self.is_asked:
            end()


class Work(NamedTuple):
    """A change and the job that carries it out."""

    change: Change
    job: Job
    request: Request


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
    at_once: int | None
    meter: Meter
    applied: Applied = field(default_factory=Applied)
    orders: dict[str, Orders] = field(default_factory=dict)  # by provider, of those that are paid
    following: Following | None = None
    ends_itself: bool = False  # whether what is followed runs here and ends in order, also at once
    wait: float = FIRST_LOOK
    looks_at: float = 0.0
    read: tuple[str, dict[str, verdicts.Section]] | None = None  # the verdicts file that was last read or written

    def put(self, path: str, entry: Entry) -> None:
        """Writes one entry to its lockfile, durably."""
        self.locks[path] = self.locks.get(path, Lock(path=path)).put(entry)
        self.project.write_lock(self.locks[path])
        self.applied.entries[entry.address] = entry
        self.applied.locks.add(path)

    def orders_at(self, provider: Provider) -> Orders:
        """What is wanted of a provider that is paid."""
        if provider.name not in self.orders:
            self.orders[provider.name] = Orders(provider, self.once, self.digest, self.at_once or AT_ONCE)
        return self.orders[provider.name]

    @property
    def most_verdicts(self) -> int:
        """How many lines a verdicts file of the allowed size can have at the most."""
        return self.project.settings.verdicts_max_bytes // verdicts.SHORTEST

    def sections(self, path: str) -> dict[str, verdicts.Section]:
        """The sections of a verdicts file, none where there is no file that can be used."""
        if self.read is None or self.read[0] != path:
            try:
                self.read = path, verdicts.parse(self.project.read(path, MOST_VERDICTS), path)
            except EvalopsError as error:
                if error.diagnostics[0].code != "file/missing":
                    self.applied.diagnostics.append(replace(error.diagnostics[0], severity=Severity.WARNING))
                return {}
        return self.read[1]

    def write_sections(self, path: str, sections: dict[str, verdicts.Section]) -> None:
        """Writes a verdicts file; one that is empty or larger than the project wants is not there."""
        data = verdicts.dump(sections)
        if sections and len(data) <= self.project.settings.verdicts_max_bytes:
            self.project.write(path, data)
            self.read = path, sections
        else:
            (self.project.root / path).unlink(missing_ok=True)
            self.read = None


def carry_out(
    project: Project,
    plan: Plan,
    locks: Mapping[str, Lock],
    providers: Mapping[str, Provider],
    observe: Observer,
    once: Once,
    *,
    patience: float | None = None,
    at_once: int | None = None,
    stop: Stop | None = None,
) -> Applied:
    """Everything the plan says. Raises EvalopsError where a file or the store cannot be written.

    SIGINT and SIGTERM stop it: what is in flight ends, nothing new starts, and `interrupted` is set; and so does
    `stop`. `patience` is how long it waits for jobs, in seconds from now; those still open then go on later. `at_once`
    is how many paid requests are under way at a time, None for what is usual.
    """
    until = None if patience is None else time.monotonic() + patience
    meter = Meter(project.settings.budget)
    run = _Run(project, dict(locks), providers, observe, once, plan.digest, until, at_once, meter)
    if stop is not None:
        stop.bind(lambda: _end(run))
    with _signals(run):
        try:
            _carry_out(run, plan)
        except KeyboardInterrupt:
            if not run.applied.interrupted:
                raise
        except Exception:
            _let_end(run)
            raise
    for orders in run.orders.values():
        run.applied.diagnostics += (*orders.problems, *orders.left())
        run.applied.unclear |= orders.unclear
    return run.applied


def _let_end(run: _Run) -> None:
    """Records what comes of the paid requests under way, as far as anything can be recorded still."""
    run.once.is_stopped = True
    for orders in run.orders.values():
        while True:
            with suppress(EvalopsError, OSError):
                orders.let_end()
                break


def _carry_out(run: _Run, plan: Plan) -> None:
    work: list[Work] = []
    for change in plan.changes:
        if run.applied.interrupted:
            break
        if change.action is Action.ADOPT and change.found:
            _copy(run, change, change.found)
        elif change.action is Action.REGRADE and change.entry:
            _regrade(run, change, change.entry)
        elif change.action in _RUNS or (change.action is Action.ADOPT and change.job):
            work += _submit(run, change)
        elif change.action is Action.UNKNOWN and change.wanted:
            provider = run.providers[change.wanted.evaluation.provider]
            if not provider.is_repeatable:
                run.orders_at(provider).add(change)
    for orders in run.orders.values():
        work += _entered(run, orders.jobs())
    _forget(run, plan)
    _follow(run, work)
    for change in plan.of(Action.ADOPT):
        entry = run.applied.entries.get(change.source or "")
        if not change.found and not change.job and entry and entry.status is Status.COMPLETED:
            _copy(run, change, entry)


_RUNS = (Action.CREATE, Action.RERUN, Action.RESUME)


def _submit(run: _Run, change: Change) -> list[Work]:
    """Submits one change where that is free; what is paid is ordered."""
    assert change.wanted is not None
    evaluation, identity = change.wanted
    provider = run.providers[evaluation.provider]
    if not provider.is_repeatable:
        run.orders_at(provider).add(change)
        return []
    request = provider.request(evaluation, identity, change.generation)
    outcome = provider.submit(provider.prepare(request))
    if not isinstance(outcome, Job):
        assert isinstance(outcome, Refused), "what is repeatable is never in doubt"
        run.applied.diagnostics += (replace(each, address=change.address) for each in outcome.diagnostics)
        return []
    if change.action is Action.RESUME and outcome.status is Status.FAILED:
        provider.retry(outcome.id)
        outcome = replace(outcome, status=Status.PENDING, message=None, finished_at=None)
    return _enter(run, change, request, outcome)


def _entered(run: _Run, found: Iterable[tuple[Order, Job]]) -> list[Work]:
    """Writes each job down before the next one is asked for."""
    return [work for order, job in found for work in _enter(run, order.change, order.request, job)]


def _enter(run: _Run, change: Change, request: Request, job: Job) -> list[Work]:
    """Writes down a job before anything waits for it; none is waited for that is found to have failed."""
    assert change.wanted is not None
    evaluation, identity = change.wanted
    provider = run.providers[evaluation.provider]
    is_failed = job.status is Status.FAILED  # found as such: it goes on when it is asked for, not by itself
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
            job=job.id,
            status=Status.PENDING if job.status is Status.COMPLETED else job.status,
            message=job.message if is_failed else None,
            created_at=job.created_at,
            finished_at=job.finished_at if is_failed else None,
            dataset=jobs.dataset_of(identity),
            inputs=identity.inputs,
            pins=job.pins or None,
            credentials=destination.credentials(change.wanted) or None,
            grade=identity.grade,
            # The last result stays until the new one is there; its `job` says what it is of.
            summary=old.summary if old else None,
            gates=old.gates if old else (),
            unknown=old.unknown if old else {},
        ),
    )
    run.once.locked(provider, request, change.lock, lock.digest_of(run.applied.entries[change.address]))
    return [] if is_failed else [Work(change, job, request)]


def _follow(run: _Run, work: Iterable[Work]) -> None:
    """Waits for all submitted jobs, provider by provider, and collects each as it ends."""
    by_provider: dict[str, list[Work]] = {}
    for each in work:
        assert each.change.wanted is not None
        by_provider.setdefault(each.change.wanted.evaluation.provider, []).append(each)
    for name in sorted(by_provider):
        _follow_at(run, run.providers[name], by_provider[name])


def _follow_at(run: _Run, provider: Provider, work: Iterable[Work]) -> None:
    by_job: dict[str, list[Work]] = {}  # addresses with the same work share a job
    waiting: dict[str, Work] = {}
    while work:
        for each in work:
            by_job.setdefault(each.job.id, []).append(each)
            if each.job.status is Status.COMPLETED:
                _collect(run, each, each.job, provider)
            else:
                waiting[each.job.id] = each
        if not waiting or run.applied.interrupted:
            return
        asked = [(each.job, each.request) for each in waiting.values()]
        with provider.follow(asked, run.meter, run.at_once) as run.following:
            run.ends_itself = provider.is_repeatable
            if run.applied.interrupted:
                run.following.stop()
            with _patience(run):
                work = _wait(run, provider, run.following, waiting, by_job)


def _wait(
    run: _Run, provider: Provider, following: Following, waiting: dict[str, Work], by_job: Mapping[str, list[Work]]
) -> list[Work]:
    """Collects what ends, until nothing is waited for; or until there is more to wait for, which it returns."""
    for event in _events(run, provider, following):
        if isinstance(event, Finished):
            waiting.pop(event.job.id, None)
            for each in by_job[event.job.id]:
                run.observe(each.change.address, event)
                _collect(run, each, event.job, provider)
        else:
            about = by_job.get(event.job) if isinstance(event, Progress) else None
            run.observe(about[0].change.address if about else "", event)
        if more := _more(run, provider):
            return more
    return []


def _events(run: _Run, provider: Provider, following: Following) -> Iterator[Event]:
    """What happens to jobs; a service that cannot be asked any more is a problem of its own, and its jobs go on."""
    try:
        yield from following
    except EvalopsError as error:
        if provider.is_repeatable:
            raise
        run.applied.diagnostics += error.diagnostics


def _more(run: _Run, provider: Provider) -> list[Work]:
    """While jobs are waited for, now and then: what was in doubt and is found, and what waited for that."""
    orders, now = run.orders.get(provider.name), time.monotonic()
    if orders is None or not orders.is_unsettled or (run.until is not None and now >= run.until):
        return []
    run.looks_at = run.looks_at or now + run.wait
    if now < run.looks_at:
        return []
    found = _entered(run, orders.more())
    run.wait = min(LONGEST_LOOK, run.wait * LONGER)
    run.looks_at = time.monotonic() + run.wait
    return found


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


def _collect(run: _Run, work: Work, job: Job, provider: Provider) -> None:
    """Writes down how a job ended: its result, its failure, or that it goes on later."""
    change, _, request = work
    entry = run.locks[change.lock].entries[change.address]
    assert change.wanted is not None
    usage = run.applied.usage[job.id] = _usage(run, change, entry, job, provider)
    if job.status is not Status.COMPLETED:
        run.put(change.lock, replace(entry, status=job.status, message=job.message, finished_at=job.finished_at))
        if job.status is Status.CANCELLED and job.message:  # it stopped for a reason, and can go on another day
            run.applied.diagnostics.append(_stopped(run, change.address, job))
        return
    found = (verdict for verdict, _ in provider.rows(job.id, request))
    entry = replace(entry, status=Status.COMPLETED, message=None, finished_at=job.finished_at)
    _grade(run, change, entry, request, found, usage, None)


def _usage(run: _Run, change: Change, entry: Entry, job: Job, provider: Provider) -> Usage:
    """What a job took; where its cost is not known, what was expected beside it."""
    assert change.wanted is not None
    usage = provider.usage(job.id, change.wanted.evaluation)
    if usage.cost is not None or job.status is not Status.COMPLETED:
        return usage
    expected = estimate(change.wanted, run.project.settings.prices, entry)
    if expected.cost is None:
        return usage
    return replace(usage, estimate={"calls": expected.calls, "tokens": expected.tokens, "cost": expected.cost})


def _stopped(run: _Run, address: str, job: Job) -> Diagnostic:
    """A job that stopped before its end: by the budget, or by its service."""
    bound = run.meter.stopped(job.id)
    if bound is None:
        code, mark, hint = "job/stopped", None, "nothing is lost; it goes on with:\n  evalops apply"
    else:
        code, mark = "budget/reached", run.project.settings.mark(*bound.split("."))
        hint = f"nothing is lost: raise `{bound}` in {FILE}; it goes on with:\n  evalops apply"
    return Diagnostic(code=code, message=f"`{address}` stopped: {job.message}", mark=mark, address=address, hint=hint)


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
    if source.summary is not None and jobs.suffices(source, change.wanted):
        _copy_verdicts(run, change, source)
        run.put(change.lock, jobs.finished(entry, change.wanted, dict(source.summary)))
    else:
        _regrade(run, change, entry, source.address)


def _regrade(run: _Run, change: Change, entry: Entry, kept_at: str | None = None) -> None:
    """Grades a finished job again: from its summary where that answers all thresholds, else from its verdicts."""
    assert change.wanted is not None
    if entry.summary is not None and jobs.suffices(entry, change.wanted):
        run.put(change.lock, jobs.finished(entry, change.wanted, dict(entry.summary)))
        return
    evaluation = change.wanted.evaluation
    provider = run.providers[evaluation.provider]
    request = provider.request(evaluation, change.wanted.identity, entry.generation)

    def rows() -> Iterable[Verdict]:
        found = (verdict for verdict, _ in provider.rows(entry.job or "", request))
        first = next(found, None)
        return chain([first], found) if first else []

    def kept() -> Iterable[Verdict]:
        return _kept_verdicts(run, evaluation, kept_at or change.address, entry.job)

    try:
        # Least asked first: a service's rows are fetched only where nothing else has the verdicts.
        found = (rows() or kept()) if provider.is_repeatable else (kept() or rows())
    except EvalopsError as error:
        run.applied.diagnostics += (replace(each, address=change.address) for each in error.diagnostics)
        return
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
    gone: dict[str, set[str]] = {}
    for change in plan.of(Action.FORGET):
        if change.address not in waiting:
            gone.setdefault(change.lock, set()).add(change.address)
    for lockfile, addresses in gone.items():
        path = verdicts.beside(lockfile)
        sections = run.sections(path)
        left = {address: each for address, each in sections.items() if address not in addresses}
        if len(left) < len(sections):
            run.write_sections(path, left)
        run.locks[lockfile] = run.locks[lockfile].drop(addresses)
        run.project.write_lock(run.locks[lockfile])
        run.applied.locks.add(lockfile)


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


def _end(run: _Run, *, now: bool = False) -> None:
    """Starts nothing new; what is in flight ends, unless it is to be dropped `now`."""
    run.applied.interrupted = run.once.is_stopped = True
    if run.following is not None:
        run.following.stop(now=now)


@contextmanager
def _signals(run: _Run) -> Iterator[None]:
    """The first SIGINT or SIGTERM only sets a flag: what is in flight ends, and its outcome is written down.

    The second one stops at once, like a kill, which every record is made for; and so does the end of the grace time.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        is_second = run.applied.interrupted
        _end(run, now=is_second and number != signal.SIGALRM)
        if not is_second:
            alarms.append(signal.signal(signal.SIGALRM, handle))  # no sooner: a program may have a timer
            signal.setitimer(signal.ITIMER_REAL, _grace())
        elif not run.ends_itself:
            raise KeyboardInterrupt

    names: tuple[signal.Signals, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        names = ()  # a program that embeds apply in a thread handles its signals itself
    before = {name: signal.getsignal(name) for name in names}
    # What is ignored, as SIGHUP is below `nohup`, stays ignored.
    before = {name: handler for name, handler in before.items() if handler is not signal.SIG_IGN}
    alarms: list[Any] = []  # who had the timer's signal before, once it is ours
    for name in before:
        signal.signal(name, handle)
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)
        for handler in alarms:  # last: a signal may have come until now
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, handler)


def _grace() -> float:
    """Seconds until a first Ctrl-C is as good as a second one: who runs CI kills what does not end soon."""
    return GRACE_IN_CI if os.environ.get("CI", "").lower() not in ("", "0", "false") else GRACE
