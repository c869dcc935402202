"""The provider `together`: Together AI's evaluation service, or whatever speaks as it does.

The service has jobs without names, and a create that cannot be repeated: apply writes ahead what it sends, and a job
is known again by all its parameters.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from evalops import endpoint, sources, web
from evalops.datasets.dataset import Row
from evalops.endpoint import Endpoint
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.fingerprint import Identity, canonical
from evalops.lock import Status
from evalops.meter import Meter
from evalops.project import Project
from evalops.providers import together_models, together_rows, together_uploads
from evalops.providers import together_request as wire
from evalops.providers.access import Access, Vendor
from evalops.providers.base import Job, Listing, Refused, Request, Unclear
from evalops.providers.client import Answer, Client
from evalops.providers.together_files import ID, Files, unreadable
from evalops.providers.together_follow import Following
from evalops.providers.together_inventory import TogetherInventory
from evalops.result import Usage, Verdict
from evalops.secret import Secret
from evalops.settings import Credential
from evalops.spec import Evaluation, Model
from evalops.web import iso_time

VENDOR = Vendor(
    name="together",
    title="Together",
    hosts=("https://api.together.ai", "https://api.together.xyz"),
    key="TOGETHER_API_KEY",
    base_url="TOGETHER_BASE_URL",
)
MOST_LISTED = 100
VISIBILITY_LAG = 900.0
MOST_SINGLE = 20  # jobs asked for one by one, of those that a list does not reach
SKEW = timedelta(minutes=5)
_STATUS = {
    "pending": Status.PENDING,
    "queued": Status.PENDING,
    "completed": Status.COMPLETED,
    "error": Status.FAILED,
    "user_error": Status.FAILED,
}


def open_provider(project: Project) -> Together:
    """The provider of a project. Nothing is asked, and no key is read."""
    return Together(project)


class Together:
    """See `providers.base.Provider`."""

    name = VENDOR.name
    is_repeatable = False

    def __init__(
        self,
        project: Project,
        client: Callable[..., Client] = Client,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`client` makes the HTTP client: one with other timeouts, for one. `sleep` waits between two polls."""
        self._project = project
        self._sleep = sleep
        self._settings = project.settings
        self._access = Access(VENDOR, self._settings, client)
        lag = self._access.remote.visibility_lag
        self.visibility_lag = VISIBILITY_LAG if lag is None else lag
        self._files = Files(project, self.origin, self._access.client)

    @property
    def origin(self) -> str | None:
        return self._access.origin

    # --- offline ---

    def check(self, evaluation: Evaluation) -> list[Diagnostic]:
        problems = wire.check(evaluation)
        for model in evaluation.models:
            problems += self._alias(evaluation, model)
            try:
                self._credential(evaluation, model)
            except EvalopsError as error:
                problems += error.diagnostics
        if self._access.is_here:
            return problems  # what is served here has names of its own
        return problems + together_models.check(evaluation, self.origin, self._settings.models)

    def _alias(self, evaluation: Evaluation, model: Model) -> Iterator[Diagnostic]:
        """A name that only this project knows. A server on this machine may share its evalops.yaml."""
        served = self._settings.models.get(model.model, {})
        is_ours = "base_url" in served and model.external_base_url is None and "/" not in model.model
        if not is_ours or self._access.is_here:
            return
        yield Diagnostic(
            code="together/model",
            message=f"Together will not know `{model.model}`: `models` in evalops.yaml is for `provider: local` and "
            "`evalops serve`",
            mark=evaluation.places.mark(*model.route, "model"),
            hint=f"name the model as Together does, or say where it is: `external_base_url: {served['base_url']}`",
            severity=Severity.WARNING,
        )

    def pins(self, evaluation: Evaluation) -> Mapping[str, str]:
        return {}

    def pinned(self, evaluation: Evaluation) -> Mapping[str, str]:
        return {}

    def endpoints(self, evaluation: Evaluation) -> tuple[Endpoint, ...]:
        return tuple(
            Endpoint(base_url=(model.external_base_url or "").rstrip("/"), model=model.model, source=wire.source(model))
            for model in evaluation.models
        )

    def request(self, evaluation: Evaluation, identity: Identity, generation: int) -> Request:
        return Request(
            evaluation=evaluation,
            identity=identity,
            generation=generation,
            rows=lambda: self._rows(evaluation),
        )

    def _rows(self, evaluation: Evaluation) -> Iterator[tuple[str, Row]]:
        """The rows of an evaluation; those of a file at the service are fetched where they are not here."""
        ref = evaluation.dataset
        if ref.file_id is not None and ref.sha256 is not None:
            self._files.copy(ref.file_id, ref.sha256)
        return sources.rows(self._project, evaluation)

    def is_work(self, job: Job, sent: Mapping[str, Any]) -> bool:
        return job.told is not None and wire.same_work(sent, job.told) and self._is_marked(job.told, sent)

    def answers(self, job: Job, request: Request) -> bool:
        """Whether a job was asked to do what a request says; its rows are known by its results. Offline."""
        sent = wire.body(request.evaluation, wire.parameters(request.evaluation, "", {}, mark=self._marker(request)))
        return job.told is not None and wire.same_work(sent, job.told, with_file=False)

    def doubt(self, job: str) -> None:
        """What is kept of a job's result is not believed: its rows are fetched anew."""
        self._files.doubt(job)

    # --- before the money ---

    def prepare(self, request: Request) -> Request:
        """Uploads exactly the columns in use, once for the same content; a file that is there is looked through."""
        self._tokens(request.evaluation)  # a key that is missing is found before anything is sent
        if request.evaluation.dataset.file_id is not None:
            file, checksum = together_uploads.confirm(self._project, self._files, request.evaluation)
        else:
            rows = self._as_planned(request)
            file, checksum = self._files.put(together_rows.upload(rows, self._columns(request.evaluation)))
        sent = wire.body(request.evaluation, wire.parameters(request.evaluation, file, {}, mark=self._marker(request)))
        return replace(request, file=file, sha256=checksum, sent=json.loads(wire.encode(sent)))

    def _as_planned(self, request: Request) -> Iterator[tuple[str, Row]]:
        """The rows; at their end EvalopsError where they are not those of the plan, before any of them is sent."""
        use, digest = sources.uses(request.evaluation), hashlib.sha256()
        for key, row in request.rows():
            digest.update(canonical(use.used(row.source)) + b"\n")
            yield key, row
        if digest.hexdigest() != request.identity.digests.submitted:
            message = "the dataset changed since the plan was made: nothing of it was sent"
            mark = request.evaluation.places.mark("dataset")
            raise EvalopsError(Diagnostic(code="dataset/changed", message=message, mark=mark, hint="evalops apply"))

    # --- the one request that costs money ---

    def submit(self, request: Request) -> Job | Refused | Unclear:
        assert request.file is not None, "`prepare` comes before"
        tokens = self._tokens(request.evaluation)
        parameters = wire.parameters(request.evaluation, request.file, tokens, mark=self._marker(request))
        answer = self._client.post_once(wire.EVALUATIONS, wire.encode(wire.body(request.evaluation, parameters)))
        if not isinstance(answer, Answer):
            return answer
        body = answer.json()
        job = body.get("workflow_id") if isinstance(body, dict) else None
        if not isinstance(job, str) or not ID.fullmatch(job):
            return Unclear("Together took the request and gave no job id that can be used")
        return Job(
            id=job,
            fingerprint=request.identity.fingerprint,
            generation=request.generation,
            status=Status.PENDING,
            provider_status=str(body.get("status", "pending"))[:80],
            created_at=_stamp(self._client.time()),
        )

    # --- what the service has ---

    def list(self, since: str | None = None) -> Listing:
        asked = time.monotonic()
        found = self._client.get(wire.EVALUATIONS, wire.list_query(MOST_LISTED))
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise EvalopsError(unreadable("its list of jobs is none"))
        jobs = [job for job in map(_job, found) if job]
        times = [datetime.fromisoformat(job.created_at) for job in jobs]
        is_readable = len(jobs) == len(found)  # else what is missing may be there
        is_ordered = is_readable and times == sorted(times, reverse=True)
        until = datetime.fromisoformat(since) - SKEW if since else None
        is_whole = is_readable and len(found) < MOST_LISTED
        is_complete = is_whole or (until is not None and is_ordered and times[-1] < until)
        return Listing(
            sorted(jobs, key=lambda job: job.created_at, reverse=True),
            is_complete,
            _stamp(self._client.time() - timedelta(seconds=time.monotonic() - asked)),  # it may be as old as that
            is_gapless=is_ordered,
        )

    def time(self) -> datetime:
        """The service's time, as far as its answers have told; asks nobody."""
        return self._access.time()

    def job(self, id_: str) -> Job | None:
        try:
            found = self._client.get(wire.job_path(id_))
        except EvalopsError as error:
            if error.diagnostics[0].code == "provider/not-found":
                return None
            raise
        job = _job(found) if isinstance(found, dict) else None
        if job is None or job.id != id_:
            raise EvalopsError(unreadable(f"what it says of the job `{id_}` is no job"))
        return job

    def known(
        self, wanted: Iterable[tuple[Evaluation, Identity]], held: Mapping[str, tuple[str, int]]
    ) -> Sequence[Job]:
        wanted = [each for each in wanted if each[0].provider == self.name]
        if not wanted and not held:
            return []
        listed = {job.id: job for job in self.list().jobs}
        found = []
        for id_, (fingerprint, generation) in held.items():
            job = listed.get(id_) or self.job(id_)
            if job is not None:
                found.append(replace(job, fingerprint=fingerprint, generation=generation))
        for evaluation, identity in wanted:
            found += self._adoptable(evaluation, identity, listed.values())
        return found

    def _adoptable(self, evaluation: Evaluation, identity: Identity, jobs: Iterable[Job]) -> Iterator[Job]:
        """Jobs that carry our mark for this work and agree with it in everything but the file, which apply compares."""
        for job in jobs:
            told = job.told or {}
            fingerprint, _, generation = (wire.marker_of(told.get("parameters") or {}) or "").partition("-")
            if fingerprint != identity.fingerprint[:16] or job.status is Status.FAILED:
                continue
            mark = wire.marker(identity.fingerprint, int(generation))
            sent = wire.body(evaluation, wire.parameters(evaluation, "", {}, mark=mark))
            if wire.same_work(sent, told, with_file=False):
                yield replace(job, fingerprint=identity.fingerprint, generation=int(generation))

    def follow(
        self, work: Sequence[tuple[Job, Request | None]], meter: Meter | None = None, at_once: int | None = None
    ) -> Following:
        jobs = [job for job, _ in work]
        return Following(jobs, self._look, lag=self.visibility_lag, now=lambda: self._client.time(), sleep=self._sleep)

    def _look(self, ids: Iterable[str]) -> dict[str, Job | None]:
        """Jobs by their ids: all that the list has, and some of those that it does not reach."""
        listed = {job.id: job for job in self.list().jobs}
        found: dict[str, Job | None] = {id_: listed[id_] for id_ in ids if id_ in listed}
        single = [id_ for id_ in ids if id_ not in listed][:MOST_SINGLE]
        return found | {id_: self.job(id_) for id_ in single}

    def rows(self, job: str, request: Request | None) -> Iterator[tuple[Verdict, dict[str, Any]]]:
        result = self._files.result(job) if request else None
        if request is None or result is None:
            return
        columns = self._columns(request.evaluation)
        try:
            with result.path.open("rb") as stream:
                yield from together_rows.verdicts(
                    request.evaluation, columns, request.rows(), together_rows.read(stream), result.counts
                )
        except EvalopsError:
            self._files.doubt(job)
            raise

    def usage(self, job: str, evaluation: Evaluation) -> Usage:
        return Usage(calls=None, kept=None, reason="Together does not say what a job took")

    def retry(self, job: str) -> None:
        raise AssertionError("a failed job at Together stays failed: plan makes another one")

    def inventory(self) -> TogetherInventory:
        """What the service has, whoever put it there."""
        return TogetherInventory(self, self._files, self._access.client, _job)

    def close(self) -> None:
        self._access.close()

    # --- keys ---

    @property
    def _client(self) -> Client:
        return self._access.client()

    def _tokens(self, evaluation: Evaluation) -> dict[str, Secret]:
        """The keys that the service needs to call external models."""
        found = {}
        for model in evaluation.models:
            credential = self._credential(evaluation, model)
            if credential is not None:
                found[str(model.route[0])] = web.key_of(credential)
        if found:
            self._client.hide(found.values())
        return found

    def _credential(self, evaluation: Evaluation, model: Model) -> Credential | None:
        """The key of an external model. It goes to the service, so it is bound to that as well as to the vendor."""
        if wire.source(model) != "external":
            return None
        mark = evaluation.places.mark(*model.route, "credential" if model.credential else "model")
        vendor = next((each for each in wire.SHORTCUTS if model.model.startswith(each)), None)
        url = model.external_base_url or (endpoint.VENDORS[vendor].base_url if vendor else None)
        if url is None or endpoint.refusal(url):
            return None  # which `check` says
        found = self._settings.credentials.get(model.credential or "")
        needed = (endpoint.origin(url), self.origin or "")
        missing = [each for each in needed if found is None or each not in found.origins]
        if not missing:
            return found
        names = ", ".join(needed)
        raise EvalopsError(
            Diagnostic(
                code="provider/credential",
                message=f"Together calls this model with your key, and no credential here is bound to "
                f"{' and '.join(missing)}",
                mark=mark,
                hint="in evalops.yaml: `credentials: {NAME: {env: …, origins: ["
                + names
                + "]}}`, and here `credential: NAME`",
            )
        )

    def _columns(self, evaluation: Evaluation) -> tuple[str, ...]:
        return sources.uses(evaluation).submitted

    def _marker(self, request: Request) -> str | None:
        mark = wire.marker(request.identity.fingerprint, request.generation)
        return mark if self._access.remote.marker else None

    def _is_marked(self, told: Mapping[str, Any], sent: Mapping[str, Any]) -> bool:
        """Whether a job carries our mark, or none at all: then another client made it, and its result is as good."""
        return wire.marker_of(told.get("parameters") or {}) in (None, wire.marker_of(sent.get("parameters") or {}))


def _job(value: Mapping[str, Any]) -> Job | None:
    """A job as the service describes it, None for what is no such description."""
    id_, said = value.get("workflow_id"), value.get("created_at")
    created = iso_time(said) if isinstance(said, str) else None
    if not isinstance(id_, str) or not ID.fullmatch(id_) or created is None:
        return None
    word = str(value.get("status", ""))[:80]
    status = _STATUS.get(word, Status.RUNNING)
    results = value.get("results")
    message = results.get("error") if isinstance(results, dict) else None
    updated = value.get("updated_at")
    ended = iso_time(updated) if isinstance(updated, str) and not status.is_open else None
    return Job(
        id=id_,
        fingerprint="",
        generation=1,
        status=status,
        provider_status=word,
        created_at=_stamp(created),
        finished_at=_stamp(ended) if ended else None,
        message=(str(message)[:500] if message else f"Together says `{word}`") if status is Status.FAILED else None,
        told={"type": value.get("type"), "parameters": value.get("parameters")},
        results=results if isinstance(results, dict) else None,
    )


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")
