"""The contract of a provider (`evalops/providers/base.py`), held by every one of them.

A new provider joins with one entry in `BENCHES`: how to set up a project whose evaluations it runs.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import ROWS as ROWS_FILE
from apply_project import Folder, truths
from model_server import Config, Server, serve
from patronus_service import PatronusService
from serve_process import SERVERLESS, Served, served

from evalops import catalog, endpoint
from evalops.errors import EvalopsError, has_errors
from evalops.lock import Status
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import PROVIDERS, open_provider
from evalops.providers.base import Event, Finished, Job, Notice, Progress, Provider, Refused, Request, Unclear
from evalops.result import Verdict, VerdictStatus

ROWS = 24
KEY = "sk-canary-7461"


@dataclass
class Bench:
    """A provider with a project that it can run: `folder` has the evaluation `tone` of `ROWS` rows.

    `fields` belong into each of its specs, `settings` into evalops.yaml; `keyed` are settings with which BENCH_KEY is
    needed. What the service had and was asked before does not count.
    """

    provider: Provider
    folder: Folder
    server: Server | PatronusService
    model: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    keyed: Mapping[str, Any] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)  # what its verdicts are called, where that is fixed

    def __post_init__(self) -> None:
        self.before = {job.id for job in self.provider.list().jobs}
        self.asked_before = self.server.ledger.requests

    @property
    def project(self) -> Project:
        return self.folder.project

    @property
    def asked(self) -> int:
        """How often a model was called."""
        return self.server.ledger.requests - self.asked_before

    def rows(self, count: int = ROWS) -> list[dict[str, Any]]:
        """Rows that no other bench has."""
        return [
            {
                **row,
                "response": f"{self.folder.root.parent} {row['response']}",
                "gold": self.words.get(row["gold"], row["gold"]),
            }
            for row in truths(count)
        ]

    def spec(self, name: str = "tone", *, judge: Mapping[str, Any] | None = None, **fields: Any) -> None:
        if self.provider.name == "patronus":
            self._graded(name, (judge or {}).get("system_template", "Is the reply polite?"), **fields)
            return
        judge = {"model": self.model, "system_template": "Is the reply polite?", **(judge or {})}
        self.folder.spec(name, provider=self.provider.name, judge=judge, gold="gold", **fields)

    def _graded(self, name: str, template: str, *, dataset: str = ROWS_FILE, labels: object = None) -> None:
        """A spec with evaluators in place of a judge: criteria in place of its template, one more for other labels."""
        evaluators = [{"evaluator": "judge", "criteria": re.sub(r"\W+", "-", template)}]
        value = {
            "version": 1,
            "name": name,
            "type": "classify",
            "provider": "patronus",
            "dataset": dataset,
            "evaluators": evaluators + ([{"evaluator": "pii"}] if labels else []),
            "patronus": {"capture": "all"},
            "model_to_evaluate": "response",
            "gold": "gold",
        }
        (self.folder.root / f"{name}.yaml").write_text(yaml.safe_dump(value))

    def reopen(self, **settings: Any) -> None:
        """The provider as another process has it, under these settings too."""
        self.provider.close()
        self.folder.settings(**{**self.settings, **settings})
        self.provider = open_provider(self.provider.name, self.project)

    def wanted(self, address: str = "tone") -> Wanted:
        found = catalog.read(self.project)
        assert not has_errors(found.diagnostics), found.diagnostics
        return next(each for each in found.wanted if each.evaluation.address == address)

    def asking(self, address: str = "tone", generation: int = 1) -> Request:
        return self.provider.request(*self.wanted(address), generation)

    def request(self, address: str = "tone", generation: int = 1) -> Request:
        return self.provider.prepare(self.asking(address, generation))

    def submit(self, address: str = "tone", generation: int = 1) -> tuple[Job, Request]:
        request = self.request(address, generation)
        job = self.provider.submit(request)
        assert isinstance(job, Job), job
        return job, request

    def listed(self) -> list[Job]:
        """The jobs of this test, as the provider lists them."""
        return [job for job in self.provider.list().jobs if job.id not in self.before]

    def verdicts(self, job: str) -> list[tuple[Verdict, dict[str, Any]]]:
        return list(self.provider.rows(job, self.asking()))

    def follow(self, *work: tuple[Job, Request]) -> list[Event]:
        with self.provider.follow(work) as following:
            return list(following)

    def run(self, address: str = "tone", generation: int = 1) -> Job:
        job, request = self.submit(address, generation)
        return finished(self.follow((job, request)))[job.id]


def finished(events: list[Event]) -> dict[str, Job]:
    """The jobs that ended, each of them once."""
    jobs = [event.job for event in events if isinstance(event, Finished)]
    assert len({job.id for job in jobs}) == len(jobs)
    return {job.id: job for job in jobs}


@contextmanager
def opened(bench: Bench) -> Iterator[Bench]:
    """A bench with its rows and its spec."""
    bench.folder.rows(bench.rows())
    bench.spec()
    yield bench
    bench.provider.close()


Backend = tuple[Server, Served]


@contextmanager
def local_bench(root: Path, backend: Callable[[], Backend]) -> Iterator[Bench]:
    with serve() as server:
        folder = Folder(root / "project", server.url).settings()
        provider = open_provider("local", folder.project)
        bound = {"env": "BENCH_KEY", "origins": [endpoint.origin(server.url)]}
        keyed = {
            "models": {"judge": {"base_url": server.url, "credential": "bench"}},
            "credentials": {"bench": bound},
            "providers": {"local": {"down_after": 1.0, "row_timeout": 0.3}},
        }
        with opened(Bench(provider, folder, server, "judge", keyed=keyed)) as bench:
            yield bench


@contextmanager
def together_bench(root: Path, backend: Callable[[], Backend]) -> Iterator[Bench]:
    models, server = backend()
    settings = {"providers": {"together": {"base_url": server.url}}}
    folder = Folder(root / "project", models.url).settings(**settings)
    provider = open_provider("together", folder.project)
    keyed = {
        "providers": {"together": {"base_url": server.url, "credential": "bench"}},
        "credentials": {"bench": {"env": "BENCH_KEY", "origins": [server.url]}},
    }
    with opened(Bench(provider, folder, models, SERVERLESS, settings, keyed)) as bench:
        yield bench


@contextmanager
def patronus_bench(root: Path, backend: Callable[[], Backend]) -> Iterator[Bench]:
    with PatronusService() as service:
        remote = {"base_url": service.url}
        folder = Folder(root / "project", service.url).settings(providers={"patronus": remote})
        keyed = {
            "providers": {"patronus": {**remote, "credential": "bench"}},
            "credentials": {"bench": {"env": "BENCH_KEY", "origins": [service.url]}},
        }
        provider = open_provider("patronus", folder.project)
        words = {"polite": "pass", "rude": "fail"}
        settings = {"providers": {"patronus": remote}}
        with opened(Bench(provider, folder, service, "judge", settings, keyed, words)) as bench:
            yield bench


BENCHES: dict[str, Callable[[Path, Callable[[], Backend]], AbstractContextManager[Bench]]] = {
    "local": local_bench,
    "together": together_bench,
    "patronus": patronus_bench,
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Backend]]:
    """One `evalops serve` for all tests here, started for the first that needs it."""
    folder = tmp_path_factory.mktemp("serve")
    started: list[Backend] = []
    with ExitStack() as stack:

        def start() -> Backend:
            if not started:
                models = stack.enter_context(serve())
                limits = {"local": {"down_after": 0.5}}
                started.append((models, stack.enter_context(served(folder, model_url=models.url, providers=limits))))
            started[0][0].config = Config()
            return started[0]

        yield start


@pytest.fixture(params=sorted(BENCHES))
def bench(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    backend: Callable[[], Backend],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Bench]:
    monkeypatch.setenv("TOGETHER_API_KEY", "any")
    monkeypatch.setenv("PATRONUS_API_KEY", "any")
    with BENCHES[request.param](tmp_path, backend) as found:
        yield found


def test_every_provider_is_under_contract() -> None:
    assert set(BENCHES) == set(PROVIDERS)


def test_it_has_the_name_it_is_known_by(bench: Bench) -> None:
    assert PROVIDERS[bench.provider.name]
    assert bench.provider.origin is None or bench.provider.origin.startswith(("https://", "http://127.0.0.1"))


# What is free and offline


def test_check_and_pins_send_nothing_and_leave_nothing(bench: Bench) -> None:
    before = set(bench.project.root.rglob("*"))
    evaluation = bench.wanted().evaluation
    assert not has_errors(bench.provider.check(evaluation))
    assert dict(bench.provider.pins(evaluation)) == {}
    assert len(bench.provider.endpoints(evaluation)) == len(evaluation.models)
    bench.asking()
    assert set(bench.project.root.rglob("*")) == before
    bench.request()
    assert bench.listed() == [] and bench.asked == 0
    assert {path for path in set(bench.project.root.rglob("*")) - before if ".evalops" not in path.parts} == set()


def test_what_is_offline_reads_no_credential(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_KEY", raising=False)
    bench.reopen(**bench.keyed)
    assert not has_errors(bench.provider.check(bench.wanted().evaluation))
    assert bench.asking().identity == bench.wanted().identity
    assert bench.provider.known([], {}) == []


def test_prepare_is_idempotent_and_rows_open_anew(bench: Bench) -> None:
    one, two = bench.request(), bench.request()
    assert (one.identity, one.generation, one.evaluation.address) == (two.identity, two.generation, "tone")
    assert (one.file, one.sha256, one.sent) == (two.file, two.sha256, two.sent)
    again = bench.provider.prepare(one)
    assert (again.file, again.sent) == (one.file, one.sent)
    first = [(key, row.position) for key, row in one.rows()]
    assert first == [(key, row.position) for key, row in one.rows()] == [(key, r.position) for key, r in two.rows()]
    assert [position for _, position in first] == list(range(ROWS)) and len({key for key, _ in first}) == ROWS
    assert one.identity.digests.rows == ROWS


# submit, list and known


def test_submit_answers_with_the_job_of_the_request(bench: Bench) -> None:
    job, request = bench.submit()
    assert (job.fingerprint, job.generation) == (request.identity.fingerprint, 1)
    assert job.id and job.provider_status and job.created_at.endswith("Z") and job.status.is_open


def test_what_was_submitted_is_listed_newest_first(bench: Bench) -> None:
    bench.spec("other", labels=["polite", "rude", "odd"])
    jobs = [bench.submit()[0], bench.submit(generation=2)[0], bench.submit("other")[0]]
    listing, listed = bench.provider.list(), bench.listed()
    assert listing.is_complete
    assert {job.id for job in listed} == {job.id for job in jobs} and len(listed) == 3
    for job in jobs:
        (found,) = [each for each in listed if each.id == job.id]
        assert found.fingerprint in ("", job.fingerprint)
        assert found.generation == job.generation or not found.fingerprint
    assert [job.created_at for job in listed] == sorted((job.created_at for job in listed), reverse=True)
    assert not bench.listed() or bench.provider.list(since=listed[-1].created_at).is_complete


def test_a_job_is_found_by_its_id(bench: Bench) -> None:
    made, _ = bench.submit()
    found = bench.provider.job(made.id)
    assert found is not None and found.id == made.id
    assert bench.provider.job("no-such-job") is None


def test_the_jobs_of_the_work_are_known_again(bench: Bench) -> None:
    bench.spec("edited", judge={"system_template": "Is it really polite?"})
    made, again = bench.submit()[0], bench.submit(generation=2)[0]
    found = bench.provider.known([bench.wanted()], {})
    mine = {(job.id, job.fingerprint, job.generation) for job in found if job.id not in bench.before}
    assert mine == {(job.id, job.fingerprint, job.generation) for job in (made, again)}
    held = bench.provider.known([], {made.id: ("f" * 64, 3)})
    assert bench.provider.is_repeatable or [(job.id, job.fingerprint, job.generation) for job in held] == [
        (made.id, "f" * 64, 3)
    ]
    fresh = bench.provider.known([bench.wanted("edited")], {})
    assert bench.wanted("edited").identity.fingerprint not in {job.fingerprint for job in fresh}


def test_another_process_finds_the_jobs_and_their_rows(bench: Bench) -> None:
    job = bench.run()
    bench.reopen()
    assert [(each.id, each.status) for each in bench.listed()] == [(job.id, Status.COMPLETED)]
    assert len(bench.verdicts(job.id)) == ROWS


def test_a_missing_key_refuses_before_there_is_a_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_KEY", raising=False)
    bench.reopen(**bench.keyed)
    try:
        outcome = bench.provider.submit(bench.request())
    except EvalopsError as error:
        outcome = Refused(tuple(error.diagnostics))
    assert isinstance(outcome, Refused) and "BENCH_KEY" in outcome.diagnostics[0].message
    bench.reopen()
    assert bench.listed() == [] and bench.asked == 0


def test_the_same_work_is_the_same_under_another_name(bench: Bench) -> None:
    bench.spec("renamed")
    bench.spec("edited", judge={"system_template": "Is it really polite?"})
    (tone, request), (edited, other) = bench.submit("tone"), bench.submit("edited")
    renamed = bench.request("renamed")
    assert tone.fingerprint == renamed.identity.fingerprint != edited.fingerprint
    assert edited.id != tone.id
    if bench.provider.is_repeatable:
        assert bench.submit("renamed")[0].id == tone.id
        return
    found = {job.id: job for job in bench.listed()}
    assert request.sent and other.sent and renamed.sent
    assert bench.provider.is_work(found[tone.id], renamed.sent) and bench.provider.is_work(found[edited.id], other.sent)
    assert not bench.provider.is_work(found[tone.id], other.sent)
    assert not bench.provider.is_work(found[tone.id], bench.request(generation=2).sent or {})
    assert bench.submit("renamed")[0].id != tone.id  # which is why apply must never ask twice


def test_what_is_prepared_holds_no_key(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_KEY", KEY)
    bench.reopen(**bench.keyed)
    request = bench.request()
    assert KEY not in repr(request) and KEY not in json.dumps(request.sent and dict(request.sent))
    assert bench.provider.is_repeatable or (request.file and request.sha256 and request.sent)


# follow


def test_a_job_is_followed_to_its_end(bench: Bench) -> None:
    job, request = bench.submit()
    events = bench.follow((job, request))
    end = finished(events)[job.id]
    assert end.status is Status.COMPLETED and end.message is None and end.finished_at
    assert (end.fingerprint, end.generation) == (request.identity.fingerprint, 1)
    assert isinstance(events[-1], Finished)
    progress = [event for event in events if isinstance(event, Progress)]
    done = [event.done for event in progress]
    assert done == sorted(done) and all(event.job == job.id for event in progress)
    assert all(event.total in (None, ROWS) and event.done <= ROWS for event in progress)
    assert all(sum(v for k, v in event.counts.items() if k != "calls") <= ROWS for event in progress)
    assert all(isinstance(event, Progress | Finished | Notice) for event in events)


def test_several_jobs_are_followed_together(bench: Bench) -> None:
    bench.spec("other", labels=["polite", "rude", "odd"])
    bench.folder.rows([{**row, "gold": "polite"} for row in bench.rows(5)], "few.jsonl")
    bench.spec("few", dataset="few.jsonl")
    work = [bench.submit("tone"), bench.submit("other"), bench.submit("few")]
    ends = finished(bench.follow(*work))
    assert {job.id for job, _ in work} == set(ends)
    assert all(job.status is Status.COMPLETED for job in ends.values())


def running() -> set[threading.Thread]:
    """The threads of this process, but for those in which a service of the tests answers."""
    return {each for each in threading.enumerate() if "process_request" not in each.name}


def test_leaving_ends_what_was_started(bench: Bench) -> None:
    threads = running()
    bench.run()
    assert running() == threads
    bench.server.config = Config(latency_ms=50)
    work = bench.submit(generation=2)
    with pytest.raises(RuntimeError), bench.provider.follow([work]) as following:
        next(iter(following))
        raise RuntimeError
    assert running() == threads


@pytest.mark.parametrize("early", [True, False])
def test_stop_leaves_a_job_that_goes_on(bench: Bench, early: bool) -> None:
    """What runs here stops with us, what runs elsewhere does not; either way the rest is not done twice."""
    bench.server.config = Config(latency_ms=100)
    bench.folder.rows(bench.rows(200))
    job, request = bench.submit()
    with bench.provider.follow([(job, request)]) as following:
        if early:
            following.stop()
        events = []
        for event in following:
            events.append(event)
            if isinstance(event, Progress) and (event.done or event.total is None):
                following.stop()
    left = finished(events).get(job.id, job)
    assert left.status.is_open
    asked = bench.asked
    assert asked < 200
    bench.server.config = Config()
    if bench.provider.is_repeatable:
        assert bench.submit()[0].id == job.id
    assert finished(bench.follow((left, request)))[job.id].status is Status.COMPLETED
    assert bench.asked == 200  # nothing was asked twice


def test_stop_may_come_at_any_time_and_more_than_once(bench: Bench) -> None:
    work = bench.submit()
    with bench.provider.follow([work]) as entered:
        entered.stop()
        entered.stop(now=True)
        assert all(event.job.status.is_open for event in entered if isinstance(event, Finished))
        entered.stop()


def test_a_failed_job_says_why(bench: Bench) -> None:
    bench.server.config = Config(key="another")
    end = bench.run()
    assert end.status is Status.FAILED and end.message and "401" in end.message
    (listed,) = bench.listed()
    assert (listed.id, listed.status, listed.message) == (end.id, Status.FAILED, end.message)
    bench.server.config = Config()
    if bench.provider.is_repeatable:
        bench.provider.retry(end.id)
        again = bench.run()
        assert (again.id, again.status, again.message) == (end.id, Status.COMPLETED, None)
    else:
        again = bench.run(generation=2)
        assert again.id != end.id and again.status is Status.COMPLETED
        assert end.id not in {job.id for job in bench.provider.known([bench.wanted()], {})}


def test_retry_asks_for_failed_rows_only(bench: Bench) -> None:
    rows = bench.rows()
    rows[3]["response"] += " " + "long " * 2000
    bench.folder.rows(rows)
    bench.server.config = Config(context=6000)
    job = bench.run()
    statuses = [verdict.status for verdict, _ in bench.verdicts(job.id)]
    assert job.status is Status.COMPLETED and statuses.count(VerdictStatus.ERROR) == 1
    assert statuses.index(VerdictStatus.ERROR) == 3
    if not bench.provider.is_repeatable:
        return
    bench.server.config = Config()
    before = bench.asked
    bench.provider.retry(job.id)
    assert bench.run().status is Status.COMPLETED
    assert bench.asked == before + 1
    assert all(verdict.status is VerdictStatus.SCORED for verdict, _ in bench.verdicts(job.id))


# rows and usage


def test_rows_are_the_verdicts_in_the_order_of_the_dataset(bench: Bench) -> None:
    job = bench.run()
    found = bench.verdicts(job.id)
    assert [verdict.key for verdict, _ in found] == [key for key, _ in bench.asking().rows()]
    assert [verdict.value for verdict, _ in found] == [row["gold"] for row in bench.rows()]
    assert all(verdict.status is VerdictStatus.SCORED and verdict.feedback for verdict, _ in found)
    assert all(json.dumps(detail) for _, detail in found)


def test_rows_are_had_again_without_asking(bench: Bench) -> None:
    job = bench.run()
    first, asked = bench.verdicts(job.id), bench.asked
    bench.reopen()
    assert bench.verdicts(job.id) == first and bench.asked == asked


def test_without_its_dataset_a_job_gives_its_rows_or_none(bench: Bench) -> None:
    job = bench.run()
    found = list(bench.provider.rows(job.id, None))
    assert len(found) in (0, ROWS)


def test_a_job_that_is_not_known_has_no_rows(bench: Bench) -> None:
    for name in ("no-such-job", "../../evalops", ""):
        assert bench.verdicts(name) == []
    bench.submit()
    assert bench.verdicts("no-such-job") == []


def test_usage_counts_or_says_why_it_cannot(bench: Bench) -> None:
    job, request = bench.submit()
    bench.follow((job, request))
    usage = bench.provider.usage(job.id, request.evaluation)
    assert usage.calls in (None, ROWS)
    assert usage.prompt_tokens is None or usage.prompt_tokens > ROWS
    assert (usage.cost is None) == (usage.reason is not None)


def test_cost_is_the_price_of_the_tokens_where_they_are_counted(bench: Bench) -> None:
    bench.reopen(prices={bench.model: {"input": 2.0, "output": 10.0, "as_of": "2026-11-01"}})
    job, request = bench.submit()
    bench.follow((job, request))
    usage = bench.provider.usage(job.id, request.evaluation)
    if usage.calls is None or bench.words:  # it names no prices, and its tokens are of its own kind
        assert usage.cost is None and usage.reason
        return
    assert usage.prompt_tokens and usage.completion_tokens and usage.reason is None
    assert usage.cost == pytest.approx((2 * usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6)


# What it leaves alone


def test_it_writes_nothing_beside_the_local_state(bench: Bench) -> None:
    before = {path for path in bench.project.root.rglob("*") if ".evalops" not in path.parts}
    job = bench.run()
    bench.verdicts(job.id)
    assert {path for path in bench.project.root.rglob("*") if ".evalops" not in path.parts} == before


def test_it_does_not_speak(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    job = bench.run()
    bench.verdicts(job.id)
    assert tuple(capfd.readouterr()) == ("", "")


def test_no_key_is_in_what_it_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_KEY", KEY)
    calls_models = bench.provider.origin is None  # then the key is for them, and they may echo it
    if calls_models:
        bench.server.config = Config(script=("echo",) * 20, key=KEY)
    bench.reopen(**bench.keyed)
    end = bench.run()
    assert end.status is (Status.FAILED if calls_models else Status.COMPLETED) and "canary" not in repr(end)
    assert "canary" not in repr(list(bench.provider.list().jobs))
    if calls_models:
        assert bench.server.seen[0].header("Authorization") == f"Bearer {KEY}"
    for path in bench.project.root.rglob("*"):
        assert not path.is_file() or b"canary" not in path.read_bytes(), path


def test_close_may_come_at_any_time(bench: Bench) -> None:
    bench.provider.close()
    bench.run()
    bench.provider.close()
    bench.provider.close()


def test_an_outcome_is_one_of_three(bench: Bench) -> None:
    assert isinstance(bench.provider.submit(bench.request()), Job | Refused | Unclear)


def test_the_time_is_known_without_asking(bench: Bench) -> None:
    asked = bench.asked
    first = bench.provider.time()
    assert first.tzinfo is not None and bench.provider.time() >= first and bench.asked == asked
