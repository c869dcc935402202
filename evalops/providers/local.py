"""The provider `local`: the engine of this package, in this process.

`submit` only records the job in the store; `follow` carries it out, or goes on with it. The engine is
asynchronous and runs in a thread of its own, so that apply stays a plain loop over events.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from evalops import endpoint, sources
from evalops.endpoint import Endpoint
from evalops.errors import Diagnostic, EvalopsError
from evalops.evaluators import kinds
from evalops.fingerprint import Identity, canonical, sha256
from evalops.lock import Status
from evalops.meter import Meter
from evalops.project import Project
from evalops.providers.base import Event, Finished, Job, Listing, Notice, Progress, Refused, Request, Unclear
from evalops.result import Usage, Value, Verdict
from evalops.settings import Settings
from evalops.spec import Evaluation, Model

if TYPE_CHECKING:
    from evalops.engine.run import Target, Work
    from evalops.engine.runtime import Runtime
    from evalops.engine.store import JobRecord, Store, Used

STORE = "store.sqlite"
AT_ONCE = 8  # jobs under way at the same time; their calls share one limiter an endpoint
WORKERS = 32  # calls in flight to one endpoint, unless a spec says otherwise
REPORT_EVERY = 0.1  # seconds between two reports of a job


def open_provider(project: Project) -> Local:
    """The local provider of a project. Nothing is opened yet."""
    return Local(project)


class Local:
    """See `providers.base.Provider`."""

    name = "local"
    origin: str | None = None
    is_repeatable = True
    visibility_lag = 0.0

    def __init__(self, project: Project) -> None:
        self._project = project
        self._settings: Settings = project.settings
        self._opened: Store | None = None
        self._functions: dict[tuple[str, str | None], Callable[..., Any]] = {}

    def check(self, evaluation: Evaluation) -> list[Diagnostic]:
        return endpoint.check(evaluation, self._settings)

    def pins(self, evaluation: Evaluation) -> Mapping[str, str]:
        found: dict[str, str] = {}
        for model in evaluation.models:
            served = self._endpoint(evaluation, model)
            if served.is_embedded:
                from evalops.engine import weights

                found[served.model] = weights.identity(served.model, self._project.root)
        function = _function_of(evaluation)
        code = self._code(function) if function else None
        return {**found, function: code} if function and code else found

    def pinned(self, evaluation: Evaluation) -> Mapping[str, str]:
        return {}

    def endpoints(self, evaluation: Evaluation) -> tuple[Endpoint, ...]:
        return tuple(self._endpoint(evaluation, model) for model in evaluation.models)

    def request(self, evaluation: Evaluation, identity: Identity, generation: int) -> Request:
        return Request(
            evaluation=evaluation,
            identity=identity,
            generation=generation,
            rows=lambda: sources.rows(self._project, evaluation),
        )

    def prepare(self, request: Request) -> Request:
        return request

    def submit(self, request: Request) -> Job | Refused | Unclear:
        from evalops.engine.store import JobRecord

        name = _id(request)
        known = self._store.job(name)
        if known is not None and known.status == Status.COMPLETED:
            return _job(known)  # a result that is there needs neither key nor model
        problems = self._missing(request.evaluation)
        if problems:
            return Refused(problems)
        record = JobRecord(
            id=name,
            fingerprint=request.identity.fingerprint,
            generation=request.generation,
            status=Status.PENDING.value,
            message=None,
            rows=_total(request),
            created_at=_now(),
            finished_at=None,
        )
        return _job(self._store.add_job(record))

    def follow(
        self, work: Sequence[tuple[Job, Request | None]], meter: Meter | None = None, at_once: int | None = None
    ) -> Following:
        return Following(self, self._project, work, meter or Meter(self._settings.budget))

    def list(self, since: str | None = None) -> Listing:
        if not (self._project.state / STORE).exists():
            return Listing([], is_complete=True)
        return Listing([_job(record) for record in self._store.jobs()], is_complete=True)

    def job(self, id_: str) -> Job | None:
        record = self._store.job(id_)
        return record and _job(record)

    def has(self, request: Request) -> bool:
        """Whether the job of a request was begun on this machine."""
        return (self._project.state / STORE).exists() and self._store.job(_id(request)) is not None

    def is_work(self, job: Job, sent: Mapping[str, Any]) -> bool:
        return False  # nothing is ever in doubt here

    def known(
        self, wanted: Iterable[tuple[Evaluation, Identity]], held: Mapping[str, tuple[str, int]]
    ) -> Sequence[Job]:
        return self.list().jobs

    def rows(self, job: str, request: Request | None) -> Iterator[tuple[Verdict, dict[str, Any]]]:
        return self._stored(job)

    def _stored(self, job: str) -> Iterator[tuple[Verdict, dict[str, Any]]]:
        if (self._project.state / STORE).exists():
            for stored in self._store.rows(job):
                yield stored.verdict, stored.detail

    def counts(self, job: str) -> Mapping[tuple[str, Value], int]:
        """The rows of a job by status and value, as far as it is; whichever process runs it."""
        from evalops.engine import store

        return store.counts(self._project.state / STORE, job)

    def usage(self, job: str, evaluation: Evaluation) -> Usage:
        if not (self._project.state / STORE).exists():
            return Usage()
        found = self._store.usage(job)
        saved = sum(stored.detail.get("saved", 0) for stored in self._store.rows(job))
        used = Usage(
            calls=sum(each.calls for each in found.values()),
            kept=sum(each.kept for each in found.values()),
            saved=saved,
            averages={stage: _averages(each) for stage, each in found.items() if each.replies},
        )
        if any(each.uncounted for each in found.values()):
            return replace(used, reason="an endpoint does not count tokens")
        cost, reason = self._cost(evaluation, found)
        return replace(
            used,
            prompt_tokens=sum(each.prompt for each in found.values()),
            completion_tokens=sum(each.completion for each in found.values()),
            cost=cost,
            reason=reason,
        )

    def retry(self, job: str) -> None:
        self._store.forget_errors(job)
        self._store.set_status(job, Status.PENDING.value, None, None)

    def time(self) -> datetime:
        return datetime.now(UTC)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _store(self) -> Store:
        if self._opened is None:
            from evalops.engine.store import Store

            self._opened = Store(self._project.state / STORE)
        return self._opened

    def _endpoint(self, evaluation: Evaluation, model: Model) -> Endpoint:
        return endpoint.resolve(model, self._settings, evaluation.places.mark(*model.route, "model"))

    def _code(self, function: str) -> str | None:
        """The digest of a function's code, None where it is not the project's own. Nothing is imported."""
        files = kinds.code(function, self._project.files())
        return sha256(canonical([[path, sha256(self._project.read(path))] for path in files])) if files else None

    def _function(self, evaluation: Evaluation, code: Any = None) -> Callable[..., Any] | None:
        """The Python function of an evaluation, imported once; `code` is the digest it must have.

        Raises EvalopsError where it cannot be imported, or is another than was planned.
        """
        from evalops.engine import evaluator

        function = _function_of(evaluation)
        if function is None:
            return None
        found = self._code(function)
        if (function, found) not in self._functions:
            loaded = evaluator.load(function, self._project.root, is_ours=found is not None)
            self._functions[function, found] = loaded
        if code is not None and self._code(function) != code:
            message = f"the code of `{function}` changed since the plan was made: apply again"
            raise EvalopsError(Diagnostic(code="evaluator/changed", message=message))
        return self._functions[function, found]

    def _missing(self, evaluation: Evaluation) -> tuple[Diagnostic, ...]:
        """What has to be set or installed before any row can be judged: found out before the job exists."""
        from evalops.engine import embedded, evaluator, runtime

        problems: list[Diagnostic] = []
        try:
            evaluator.require(evaluation)
            self._function(evaluation)
        except EvalopsError as error:
            mark = evaluation.places.mark("evaluator")
            problems += (replace(each, mark=each.mark or mark) for each in error.diagnostics)
        for model in evaluation.models:
            try:
                found = self._endpoint(evaluation, model)
                if found.is_embedded:
                    embedded.require()
                else:
                    runtime.key_of(found)
            except EvalopsError as error:
                problems += error.diagnostics
        return tuple(dict.fromkeys(problems))

    def _cost(self, evaluation: Evaluation, found: Mapping[str, Used]) -> tuple[float | None, str | None]:
        """The money of one job, or why it is not known. What runs on this machine costs none."""
        cost = 0.0
        for model in evaluation.models:
            used, price = found.get(model.stage), self._settings.prices.get(model.model)
            if used is None or not used.calls:
                continue
            if price is not None:
                cost += price.of(used.prompt, used.completion)
            elif not self._endpoint(evaluation, model).is_embedded:
                return None, f"no price for {model.model} in evalops.yaml"
        return cost, None


class Following:
    """The events of local jobs, from a thread that runs the engine. A context: leaving it ends the thread."""

    def __init__(
        self, local: Local, project: Project, work: Sequence[tuple[Job, Request | None]], meter: Meter
    ) -> None:
        self._local = local
        self._project = project
        self._meter = meter
        self._requests = [(job, request) for job, request in work if request]
        self._events: queue.SimpleQueue[Event | BaseException | None] = queue.SimpleQueue()
        self._reported: dict[str, float] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None
        self._stop: asyncio.Event | None = None
        self._stopped_early = False
        self._thread = threading.Thread(target=self._run, name="evalops-engine", daemon=True)

    def __enter__(self) -> Following:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop(now=exception[0] is not None)
        self._thread.join()

    def __iter__(self) -> Iterator[Event]:
        while True:
            try:
                # A bound wait lets the main thread see signals.
                event = self._events.get(timeout=0.2)
            except queue.Empty:
                continue
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            yield event

    def stop(self, *, now: bool = False) -> None:
        """Start no further row; with `now`, drop the calls in flight as well."""
        self._stopped_early = True  # before it is looked whether the engine runs, which looks here once it does
        loop, stop, main = self._loop, self._stop, self._main
        if loop is None or stop is None or main is None:
            return
        try:
            loop.call_soon_threadsafe(main.cancel if now else stop.set)
        except RuntimeError:
            return  # it has just ended

    def _run(self) -> None:
        try:
            asyncio.run(self._carry_out())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._events.put(error)
        finally:
            self._events.put(None)

    async def _carry_out(self) -> None:
        from evalops.engine.model import Client, Policy
        from evalops.engine.run import run_all
        from evalops.engine.runtime import Runtime
        from evalops.engine.store import Store

        self._loop, self._stop, self._main = (
            asyncio.get_running_loop(),
            asyncio.Event(),
            asyncio.current_task(),
        )
        if self._stopped_early:
            self._stop.set()
        settings = self._project.settings
        limits = settings.limits
        policy = Policy(
            attempt_timeout=limits.attempt_timeout,
            row_timeout=limits.row_timeout,
            down_after=limits.down_after,
        )
        store = Store(self._project.state / STORE)  # SQLite's connections stay in their thread
        try:
            async with (
                Client(policy=policy) as client,
                Runtime(self._project.root, lambda text: self._events.put(Notice(text))) as runtime,
            ):
                await run_all(
                    self._works(store, runtime, settings),
                    store,
                    client,
                    self._report,
                    lambda job, outcome: self._finish(store, job, outcome.status, outcome.message),
                    self._stop,
                    at_once=AT_ONCE,
                )
        finally:
            store.close()

    async def _works(self, store: Store, runtime: Runtime, settings: Settings) -> AsyncGenerator[Work]:
        for job, request in self._requests:
            try:
                work = await self._work(job, request, runtime, settings)
            except EvalopsError as error:
                self._finish(store, job.id, Status.FAILED, str(error), error.diagnostics[0].hint)
            else:
                self._begin(store, work)
                yield work

    def _begin(self, store: Store, work: Work) -> None:
        """What a job has taken before counts for the budget, as it did then: uncounted tokens by the rule of thumb."""
        from evalops.engine.store import GUESSED

        used = store.usage(work.job)
        cost = 0.0
        for model in work.evaluation.models:
            price = work.prices.get(model.model)
            for found in (used.get(model.stage), used.get(model.stage + GUESSED)):
                cost += price.of(found.prompt, found.completion) if price and found else 0.0
        self._meter.begin(work.job, calls=sum(each.calls for each in used.values()), cost=cost)

    async def _work(self, job: Job, request: Request, runtime: Runtime, settings: Settings) -> Work:
        from evalops.engine import evaluator
        from evalops.engine.run import Work

        evaluation = request.evaluation
        evaluate = None
        if evaluation.evaluator is not None:
            function = self._local._function(evaluation, request.identity.inputs.get("evaluator.code"))
            evaluate = evaluator.open_(evaluation, function, settings.limits.row_timeout)
        targets: list[Target] = []
        for model in evaluation.models:
            found = endpoint.resolve(model, settings, evaluation.places.mark(*model.route, "model"))
            targets.append(await runtime.target(found, model.num_workers or WORKERS))
        return Work(
            job=job.id,
            evaluation=evaluation,
            generation=request.generation,
            total=_total(request),
            submitted=request.identity.digests.submitted,
            use=sources.uses(evaluation),
            rows=request.rows,
            targets=tuple(targets),
            max_error_rate=settings.limits.max_error_rate,
            evaluate=evaluate,
            meter=self._meter,
            prices=settings.prices,
        )

    def _report(self, job: str, done: int, counts: Mapping[str, int]) -> None:
        now = time.monotonic()
        if now - self._reported.get(job, 0.0) >= REPORT_EVERY:
            self._reported[job] = now
            total = next(_total(request) for each, request in self._requests if each.id == job)
            self._events.put(Progress(job=job, done=done, total=total, counts=dict(counts)))

    def _finish(self, store: Store, job: str, status: Status, message: str | None, hint: str | None = None) -> None:
        if hint:
            message = f"{message} ({hint})"
        finished_at = _now() if not status.is_open else None
        store.set_status(job, status.value, message, finished_at)
        record = store.job(job)
        if record is not None:
            self._events.put(Finished(_job(record)))


def _id(request: Request) -> str:
    return f"local-{request.identity.fingerprint[:16]}-{request.generation}"


def _function_of(evaluation: Evaluation) -> str | None:
    """The `module:function` of an evaluator of kind python."""
    evaluator = evaluation.evaluator
    return evaluator.function if evaluator and evaluator.kind == "python" else None


def _averages(used: Used) -> dict[str, float]:
    """The tokens of one reply, rounded: a lockfile is read by people."""
    found = {"prompt_tokens": used.all_prompt, "completion_tokens": used.all_completion}
    return {name: round(total / used.replies, 1) for name, total in found.items()}


def _total(request: Request) -> int:
    total = request.identity.digests.rows
    assert total is not None, "a file at a service was refused by `semantics.check`"
    return total


def _job(record: JobRecord) -> Job:
    status = Status(record.status)
    return Job(
        id=record.id,
        fingerprint=record.fingerprint,
        generation=record.generation,
        status=status,
        provider_status=record.status,
        created_at=record.created_at,
        finished_at=record.finished_at,
        message=record.message,
    )


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
