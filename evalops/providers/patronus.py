"""The provider `patronus`, which evaluates one row a call and knows no jobs: evalops drives the loop.

A job is an experiment at the service, or an id of ours where results go to an app. Making one is free and is never
done twice: it carries our mark. What is paid is each row, and each is written down as it lands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from evalops import sources, voting
from evalops.datasets.dataset import Row
from evalops.endpoint import Endpoint
from evalops.errors import Diagnostic, EvalopsError, Mark, has_errors
from evalops.fingerprint import Identity, sha256
from evalops.lock import Status
from evalops.meter import Meter
from evalops.patronus import Grader, Patronus
from evalops.project import Project
from evalops.providers import patronus_kept, patronus_left, patronus_rows
from evalops.providers import patronus_request as wire
from evalops.providers import patronus_rules as rules
from evalops.providers.access import Access, Vendor
from evalops.providers.base import Job, Kept, Left, Listing, Refused, Request, Unclear
from evalops.providers.client import Client
from evalops.providers.patronus_call import Caller, Work
from evalops.providers.patronus_inventory import Experiment, Service
from evalops.providers.patronus_loop import UNDONE, Following, Run, now
from evalops.providers.patronus_pace import Pace
from evalops.result import Usage, Verdict
from evalops.settings import Limits
from evalops.spec import Evaluation

if TYPE_CHECKING:
    from evalops.engine.store import JobRecord, Store

VENDOR = Vendor(
    name="patronus",
    title="Patronus",
    hosts=("https://api.patronus.ai",),
    key="PATRONUS_API_KEY",
    base_url="PATRONUS_API_BASE_URL",
    key_header="X-API-KEY",
)
Results = Sequence[Mapping[str, Any]]

WORKERS = 32  # calls under way, unless a spec says otherwise


def open_provider(project: Project) -> Provider:
    """The provider of a project. Nothing is asked, and no key is read."""
    return Provider(project)


class Provider:
    """See `providers.base.Provider`."""

    name = VENDOR.name
    is_repeatable = True

    def __init__(self, project: Project, client: Callable[..., Client] = Client) -> None:
        """`client` makes the HTTP client: one with other timeouts, for one."""
        self._project = project
        self._access = Access(VENDOR, project.settings, client)
        self.visibility_lag = self._access.remote.visibility_lag or 0.0
        self._opened_store: Store | None = None
        self._service = Service(self._access.client)

    @property
    def origin(self) -> str | None:
        return self._access.origin

    # --- offline ---

    def check(self, evaluation: Evaluation) -> list[Diagnostic]:
        problems = list(rules.check(evaluation))
        if evaluation.patronus is None or evaluation.dataset.file_id is not None or has_errors(problems):
            return problems
        try:
            source = sources.of(self._project, evaluation)
            place = source.place or (lambda row, column: Mark(source.path, row.line, 1))
            problems += rules.check_rows(evaluation, source.read(sources.uses(evaluation)), place)
        except EvalopsError:
            pass  # who reads the dataset says so
        return problems

    def pins(self, evaluation: Evaluation) -> Mapping[str, str]:
        return {}

    def pinned(self, evaluation: Evaluation) -> Mapping[str, str]:
        """What the evaluators stand for at the service today, by name. Asks it."""
        return _names(self._pairs(evaluation))

    def endpoints(self, evaluation: Evaluation) -> tuple[Endpoint, ...]:
        return ()

    def request(self, evaluation: Evaluation, identity: Identity, generation: int) -> Request:
        return Request(
            evaluation=evaluation,
            identity=identity,
            generation=generation,
            rows=lambda: self._rows(evaluation),
        )

    def _rows(self, evaluation: Evaluation) -> Iterator[tuple[str, Row]]:
        return sources.rows(self._project, evaluation)

    def is_work(self, job: Job, sent: Mapping[str, Any]) -> bool:
        return False  # nothing is ever in doubt here: rows are, one by one

    # --- the job ---

    def prepare(self, request: Request) -> Request:
        """Pins the evaluators, unless the job is there and has its own."""
        record = self._record(request)
        pairs = _told(record) if record else self._pairs(request.evaluation)
        return replace(request, sent={"evaluators": _as_json(pairs)})

    def submit(self, request: Request) -> Job | Refused | Unclear:
        from evalops.engine.store import JobRecord

        record = self._record(request)
        if record is not None and record.status == Status.COMPLETED:
            return _job(record)  # a result that is there needs no key
        try:
            self._access.client()  # raises for a missing key, before there is a job
            if record is not None:
                return _job(record)
            pairs = _from_json((request.sent or {}).get("evaluators")) or self._pairs(request.evaluation)
            id_, made, is_new, pairs = self._place(request, pairs)
        except EvalopsError as error:
            return Refused(tuple(error.diagnostics))
        told = {"evaluators": _as_json(pairs), "experiment": id_ if _asked(request).app is None else None}
        record = JobRecord(
            id=id_,
            fingerprint=request.identity.fingerprint,
            generation=request.generation,
            status=Status.PENDING.value,
            message=None,
            rows=request.identity.digests.rows or 0,
            created_at=made,
            # What another machine began may have rows already.
            started_at=None if is_new else made,
            request=json.dumps(told),
        )
        return _job(self._store.add_job(record))

    def _place(self, request: Request, pairs: _Pairs) -> tuple[str, str, bool, _Pairs]:
        """Where the results of a job go: its id, since when, whether it is new, and its evaluators as pinned then."""
        asked, generation = _asked(request), request.generation
        mark = wire.mark(request.identity.fingerprint, generation)
        if asked.app is not None:
            # Nobody can say whether another machine began it: its results, if any are kept, are looked for.
            return f"app-{mark}", now(), False, pairs
        named = asked.project_id if asked.project is None else None
        project_id = named or self._service.project(asked.project or wire.PROJECT)
        found = self._service.marked(project_id, mark)
        if found is not None:
            return found.id, now(), False, _pins_of(found) or pairs
        name = asked.experiment or request.evaluation.address
        metadata = {"evalops": {"fingerprint": request.identity.fingerprint, "evaluators": _as_json(pairs)}}
        made = self._service.create(project_id, name[:100], mark, metadata)
        return made.id, now(), True, pairs

    def follow(
        self, work: Sequence[tuple[Job, Request | None]], meter: Meter | None = None, at_once: int | None = None
    ) -> Following:
        own = [(job, request) for job, request in work if request is not None]
        workers = max((_asked(request).num_workers or WORKERS for _, request in own), default=1)
        workers = min(workers, at_once or workers)
        meter = meter or Meter(self._project.settings.budget)
        return Following(own, self._start, self._store, self._service, self._caller, workers, meter)

    def _caller(self, pace: Pace, notice: Callable[[str], None]) -> Caller:
        return Caller(self._access.client(), self._service, pace, notice)

    def _start(self, job: Job, request: Request) -> Run:
        record = self._store.job(job.id)
        if record is None:
            raise EvalopsError(Diagnostic(code="job/gone", message=f"the job {job.id} is not in the store"))
        is_resumed = record.started_at is not None
        self._store.start(job.id, Status.RUNNING.value, now())
        kept, errors = self._store.finished(job.id, request.identity.digests.rows or 0)
        return Run(
            job=job,
            request=request,
            work=_work(request, _told(record), json.loads(record.request or "{}").get("experiment")),
            max_error_rate=Limits().max_error_rate,
            is_resumed=is_resumed,
            kept=kept,
            errors_kept=errors,
        )

    def list(self, since: str | None = None) -> Listing:
        return Listing([_job(each) for each in self._store.jobs()] if self._has_store else [], is_complete=True)

    def job(self, id_: str) -> Job | None:
        record = self._store.job(id_) if self._has_store else None
        return record and _job(record)

    def known(
        self, wanted: Iterable[tuple[Evaluation, Identity]], held: Mapping[str, tuple[str, int]]
    ) -> Sequence[Job]:
        """The jobs of this machine, and those that a lockfile names and another machine began."""
        found = list(self.list().jobs)
        here = {job.id for job in found}
        for id_, (fingerprint, generation) in held.items():
            if id_ not in here and (id_.startswith("app-") or self._service.experiment(id_) is not None):
                found.append(
                    Job(
                        id=id_,
                        fingerprint=fingerprint,
                        generation=generation,
                        status=Status.PENDING,
                        provider_status=Status.PENDING.value,
                        created_at=now(),
                    )
                )
        return found

    def rows(self, job: str, request: Request | None) -> Iterator[tuple[Verdict, dict[str, Any]]]:
        """Those of this machine; else, where the service keeps all results, what it has of the job."""
        if self._has_store and self._store.job(job) is not None:
            for stored in self._store.rows(job):
                if stored.verdict.reason == UNDONE:
                    continue
                yield voting.combined(request.evaluation, stored.verdict) if request else stored.verdict, stored.detail
        elif request is not None and _asked(request).can_look_up:
            found = self.kept(job, request)
            yield from found.rows if found else ()

    def kept(self, job: str, request: Request) -> Kept | None:
        """The rows of a job as the service keeps them, None where it has no such job; this machine does not count."""
        mark = wire.mark(request.identity.fingerprint, request.generation)
        experiment = self._service.experiment(job)
        if experiment is None and job != f"app-{mark}":
            return None
        work = self._begun(experiment, request)
        is_ours = experiment is None or experiment.tags.get(wire.MARK) == mark
        if experiment is None or is_ours:
            found = patronus_kept.rows(self._service, work, request.rows())
        else:
            found = patronus_kept.of_others(self._service, work, experiment, request)
        return Kept((self._read(each, request) for each in found), is_ours)

    def _read(self, kept: patronus_kept.One, request: Request) -> tuple[Verdict, dict[str, Any]]:
        results = {name: each.masked(self._access.client().masked) for name, each in kept.results.items()}
        verdict = patronus_rows.verdict(request.evaluation, kept.key, results)
        return verdict, patronus_rows.detail(results, log_id=kept.log_id, calls=0)

    def _begun(self, experiment: Experiment | None, request: Request) -> Work:
        """What all rows of a job share that another machine began."""
        pairs = (_pins_of(experiment) if experiment else []) or self._pairs(request.evaluation)
        return _work(request, pairs, experiment.id if experiment else None)

    def left(self, job: str, request: Request, *, retry: bool, ask: bool) -> Left:
        """The calls that going on with a job takes: for the rows that are neither here nor kept by the service.

        With `retry` a job that failed goes on as well. Without `ask` the service is not asked what it keeps.
        """
        record = self._store.job(job) if self._has_store else None

        def whole(rows: patronus_left.Rows) -> int:
            begun = _work(request, _told(record), None) if record else None
            work = begun or self._begun(self._service.experiment(job), request)
            return sum(each.is_whole(work) for each in patronus_kept.rows(self._service, work, rows))

        stored = self._store.rows(job) if record else ()
        return patronus_left.left(request, record, stored, whole if ask else None, retry=retry)

    def usage(self, job: str, evaluation: Evaluation) -> Usage:
        tokens = 0
        calls = sum(each.calls for each in self._store.usage(job).values()) if self._has_store else 0
        intervals: dict[str, Mapping[str, Any]] = {}
        for _, detail in self.rows(job, None):
            calls += detail.get("calls", 0)
            for each in detail.get("evaluators", ()):
                tokens += each.get("tokens", 0)
                if each.get("confidence_interval"):
                    intervals[each["name"]] = each["confidence_interval"]
        return Usage(
            calls=calls,
            prompt_tokens=tokens or None,
            intervals=intervals,
            reason="Patronus names no prices",
        )

    def retry(self, job: str) -> None:
        self._store.forget_errors(job)
        self._store.set_status(job, Status.PENDING.value, None, None)

    def time(self) -> datetime:
        return self._access.time()

    def close(self) -> None:
        if self._opened_store is not None:
            self._opened_store.close()
            self._opened_store = None
        self._access.close()

    # --- what was made elsewhere ---

    def experiment(self, id_: str) -> tuple[Experiment, Results] | None:
        """An experiment with all its results, None where there is none."""
        found = self._service.experiment(id_)
        return None if found is None else (found, self._service.results(found.id))

    def adopt(
        self,
        experiment: Experiment,
        request: Request,
        graders: Sequence[Grader],
        results: Callable[[Row], Results],
    ) -> int:
        """Writes down the results of an experiment as those of a finished job; how many rows have some."""
        told = {"evaluators": _as_json([(each, each) for each in graders]), "experiment": experiment.id}
        return patronus_kept.adopt(self._store, experiment, request, json.dumps(told), graders, results)

    def place(self, project: str, name: str, mark: str) -> str:
        """The experiment that carries this mark, made where there is none."""
        project_id = self._service.project(project)
        found = self._service.marked(project_id, mark) or self._service.create(project_id, name, mark, {})
        return found.id

    def bring(self, evaluations: Sequence[Mapping[str, Any]]) -> int:
        """Sends results of others that are not there yet; how many they were."""
        return self._service.bring(evaluations)

    # --- the store: one for each service, whose ids are its own ---

    @property
    def _path(self) -> Any:
        return self._project.state / f"patronus-{sha256((self.origin or '').encode())[:8]}.sqlite"

    @property
    def _has_store(self) -> bool:
        return self._opened_store is not None or bool(self._path.exists())

    @property
    def _store(self) -> Store:
        if self._opened_store is None:
            from evalops.engine.store import Store

            self._opened_store = Store(self._path)
        return self._opened_store

    def _record(self, request: Request) -> JobRecord | None:
        """The job of a request, where it was submitted here before."""
        work = (request.identity.fingerprint, request.generation)
        jobs = self._store.jobs() if self._has_store else []
        return next((each for each in jobs if (each.fingerprint, each.generation) == work), None)

    def _pairs(self, evaluation: Evaluation) -> _Pairs:
        """The evaluators of a spec, each with what it stands for at the service today."""
        asked = evaluation.patronus
        assert asked is not None
        mark = evaluation.places.mark
        return [(each, self._service.pin(each, mark("evaluators", n))) for n, each in enumerate(asked.graders)]


_Pairs = Sequence[tuple[Grader, Grader]]


def _work(request: Request, pairs: _Pairs, experiment: str | None) -> Work:
    mark = wire.mark(request.identity.fingerprint, request.generation)
    return Work(asked=_asked(request), graders=pairs, mark=mark, experiment=experiment)


def _asked(request: Request) -> Patronus:
    assert request.evaluation.patronus is not None, "`check` comes before"
    return request.evaluation.patronus


def _names(pairs: _Pairs) -> dict[str, str]:
    return {own.name: pinned.name for own, pinned in pairs}


def _as_json(pairs: _Pairs) -> list[list[list[str | None]]]:
    return [[list(own), list(pinned)] for own, pinned in pairs]


def _from_json(value: Any) -> _Pairs:
    """The pairs in JSON that we wrote once; nothing for anything else."""
    try:
        return [(Grader(*own), Grader(*pinned)) for own, pinned in value]
    except (TypeError, ValueError):
        return []


def _told(record: JobRecord) -> _Pairs:
    return _from_json(json.loads(record.request or "{}").get("evaluators"))


def _pins_of(experiment: Experiment) -> _Pairs:
    """The evaluators that an experiment was begun with."""
    own = experiment.metadata.get("evalops")
    return _from_json(own.get("evaluators")) if isinstance(own, dict) else []


def _job(record: JobRecord) -> Job:
    return Job(
        id=record.id,
        fingerprint=record.fingerprint,
        generation=record.generation,
        status=Status(record.status),
        provider_status=record.status,
        created_at=record.created_at,
        finished_at=record.finished_at,
        message=record.message,
        pins=_names(_told(record)),
    )
