"""The contract of a provider (`evalops/providers/base.py`), held by every one of them.

A new provider joins with one entry in `BENCHES`: how to set up a project whose evaluations it runs.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from apply_project import Folder, duels, truths
from model_server import Config, Server, serve

from evalops import catalog
from evalops.errors import has_errors
from evalops.lock import Status
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import PROVIDERS, open_provider
from evalops.providers.base import Event, Finished, Job, Notice, Progress, Provider, Refused, Request, Unclear
from evalops.result import VerdictStatus

ROWS = 24


@dataclass
class Bench:
    """A provider with a project that it can run: `folder` has the evaluation `tone` of `ROWS` rows."""

    provider: Provider
    project: Project
    folder: Folder
    server: Server

    def wanted(self, address: str = "tone") -> Wanted:
        found = catalog.read(self.project)
        assert not has_errors(found.diagnostics), found.diagnostics
        return next(each for each in found.wanted if each.evaluation.address == address)

    def request(self, address: str = "tone", generation: int = 1) -> Request:
        return self.provider.prepare(self.provider.request(*self.wanted(address), generation))

    def submit(self, address: str = "tone", generation: int = 1) -> tuple[Job, Request]:
        request = self.request(address, generation)
        job = self.provider.submit(request)
        assert isinstance(job, Job), job
        return job, request

    def follow(self, *work: tuple[Job, Request], stop_after: int | None = None) -> list[Event]:
        events = []
        with self.provider.follow(work) as following:
            for event in following:
                events.append(event)
                if stop_after is not None and isinstance(event, Progress) and event.done >= stop_after:
                    following.stop()
        return events

    def run(self, address: str = "tone", generation: int = 1) -> Job:
        job, request = self.submit(address, generation)
        return finished(self.follow((job, request)))[job.id]


def finished(events: list[Event]) -> dict[str, Job]:
    """The jobs that ended, each of them once."""
    jobs = [event.job for event in events if isinstance(event, Finished)]
    assert len({job.id for job in jobs}) == len(jobs)
    return {job.id: job for job in jobs}


@contextmanager
def local_bench(root: Path) -> Iterator[Bench]:
    with serve() as server:
        folder = Folder(root, server.url).settings().rows(truths(ROWS)).spec(gold="gold")
        provider = open_provider("local", folder.project)
        yield Bench(provider, folder.project, folder, server)
        provider.close()


BENCHES: dict[str, Callable[[Path], AbstractContextManager[Bench]]] = {"local": local_bench}


@pytest.fixture(params=sorted(BENCHES))
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    with BENCHES[request.param](tmp_path) as found:
        yield found


def test_every_provider_is_under_contract() -> None:
    assert set(BENCHES) == set(PROVIDERS)


def test_it_has_the_name_it_is_known_by(bench: Bench) -> None:
    assert PROVIDERS[bench.provider.name]
    assert bench.provider.origin is None or bench.provider.origin.startswith(("https://", "http://127.0.0.1"))


# What is free and offline


def test_check_pins_and_prepare_send_nothing_and_leave_nothing(bench: Bench) -> None:
    before = set(bench.project.root.rglob("*"))
    evaluation = bench.wanted().evaluation
    assert bench.provider.check(evaluation) == []
    assert dict(bench.provider.pins(evaluation)) == {}
    bench.request()
    assert bench.provider.list()[0] == []
    assert bench.server.ledger.requests == 0
    assert set(bench.project.root.rglob("*")) == before


def test_check_reads_no_credential(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_KEY", raising=False)
    origin = bench.server.url.removesuffix("/v1")
    bench.folder.settings(
        models={"judge": {"base_url": bench.server.url, "credential": "bench"}},
        credentials={"bench": {"env": "BENCH_KEY", "origins": [origin]}},
    )
    provider = open_provider(bench.provider.name, bench.folder.project)
    assert provider.check(bench.wanted().evaluation) == []
    provider.close()


def test_prepare_is_idempotent_and_rows_open_anew(bench: Bench) -> None:
    one, two = bench.request(), bench.request()
    assert (one.identity, one.generation, one.evaluation.address) == (two.identity, two.generation, "tone")
    first = [(key, row.position) for key, row in one.rows()]
    assert first == [(key, row.position) for key, row in one.rows()] == [(key, r.position) for key, r in two.rows()]
    assert [position for _, position in first] == list(range(ROWS)) and len({key for key, _ in first}) == ROWS
    assert one.identity.digests.rows == ROWS


# submit and list


def test_submit_answers_with_the_job_of_the_request(bench: Bench) -> None:
    job, request = bench.submit()
    assert (job.fingerprint, job.generation) == (request.identity.fingerprint, 1)
    assert job.id and job.provider_status and job.created_at.endswith("Z") and job.status.is_open
    assert bench.server.ledger.requests == 0 or job.status is not Status.PENDING


def test_what_was_submitted_is_listed_newest_first(bench: Bench) -> None:
    bench.folder.spec("other", labels=["polite", "rude", "odd"])
    jobs = [bench.submit()[0], bench.submit(generation=2)[0], bench.submit("other")[0]]
    listed, complete, _ = bench.provider.list()
    assert complete
    assert {(job.id, job.fingerprint, job.generation) for job in listed} == {
        (job.id, job.fingerprint, job.generation) for job in jobs
    }
    assert len({job.id for job in jobs}) == 3
    assert [job.created_at for job in listed] == sorted((job.created_at for job in listed), reverse=True)


def test_another_process_finds_the_jobs_and_their_rows(bench: Bench) -> None:
    job = bench.run()
    provider = open_provider(bench.provider.name, bench.folder.project)
    listed, *_ = provider.list()
    assert [each.id for each in listed] == [job.id] and listed[0].status is Status.COMPLETED
    assert len(list(provider.rows(job.id))) == ROWS
    provider.close()


def test_a_missing_key_refuses_before_there_is_a_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCH_KEY", raising=False)
    origin = bench.server.url.removesuffix("/v1")
    bench.folder.settings(
        models={"judge": {"base_url": bench.server.url, "credential": "bench"}},
        credentials={"bench": {"env": "BENCH_KEY", "origins": [origin]}},
    )
    bench.project = bench.folder.project
    bench.provider = open_provider(bench.provider.name, bench.project)
    outcome = bench.provider.submit(bench.request())
    assert isinstance(outcome, Refused) and "BENCH_KEY" in outcome.diagnostics[0].message
    assert bench.provider.list()[:2] == ([], True) and bench.server.ledger.requests == 0
    bench.provider.close()


# follow


def test_a_job_is_followed_to_its_end(bench: Bench) -> None:
    job, request = bench.submit()
    events = bench.follow((job, request))
    end = finished(events)[job.id]
    assert end.status is Status.COMPLETED and end.message is None and end.finished_at
    assert isinstance(events[-1], Finished)
    progress = [event for event in events if isinstance(event, Progress)]
    done = [event.done for event in progress]
    assert done == sorted(done) and all(event.job == job.id for event in progress)
    assert all(event.total in (None, ROWS) and event.done <= ROWS for event in progress)
    assert all(sum(v for k, v in event.counts.items() if k != "calls") <= ROWS for event in progress)
    assert all(isinstance(event, Progress | Finished | Notice) for event in events)


def test_several_jobs_are_followed_together(bench: Bench) -> None:
    bench.folder.spec("other", labels=["polite", "rude", "odd"])
    bench.folder.rows(duels(5), "duels.jsonl").duel(dataset="duels.jsonl")
    work = [bench.submit("tone"), bench.submit("other"), bench.submit("duel")]
    ends = finished(bench.follow(*work))
    assert {job.id for job, _ in work} == set(ends)
    assert all(job.status is Status.COMPLETED for job in ends.values())


def test_leaving_ends_what_was_started(bench: Bench) -> None:
    threads = set(threading.enumerate())
    bench.run()
    assert set(threading.enumerate()) == threads
    bench.server.config = Config(latency_ms=50)
    work = bench.submit(generation=2)
    with pytest.raises(RuntimeError), bench.provider.follow([work]) as following:
        next(iter(following))
        raise RuntimeError
    assert set(threading.enumerate()) == threads


@pytest.mark.parametrize("early", [True, False])
def test_stop_leaves_a_job_that_goes_on(bench: Bench, early: bool) -> None:
    bench.server.config = Config(latency_ms=40)
    bench.folder.rows(truths(200))
    job, request = bench.submit()
    with bench.provider.follow([(job, request)]) as following:
        if early:
            following.stop()
        events = []
        for event in following:
            events.append(event)
            if isinstance(event, Progress) and event.done:
                following.stop()
    left = finished(events).get(job.id, job)
    assert left.status.is_open
    asked = bench.server.ledger.requests
    assert asked < 200
    bench.server.config = Config()
    assert bench.run().status is Status.COMPLETED
    assert bench.server.ledger.requests == 200  # nothing was asked twice


def test_stop_may_come_at_any_time_and_more_than_once(bench: Bench) -> None:
    work = bench.submit()
    with bench.provider.follow([work]) as entered:
        entered.stop()
        entered.stop(now=True)
        assert all(event.job.status.is_open for event in entered if isinstance(event, Finished))
        entered.stop()


def test_a_failed_job_says_why_and_goes_on_after_retry(bench: Bench) -> None:
    bench.server.config = Config(key="another")
    end = bench.run()
    assert end.status is Status.FAILED and end.message and "401" in end.message
    listed, *_ = bench.provider.list()
    assert (listed[0].status, listed[0].message) == (Status.FAILED, end.message)
    bench.server.config = Config()
    bench.provider.retry(end.id)
    again = bench.run()
    assert (again.id, again.status, again.message) == (end.id, Status.COMPLETED, None)


def test_retry_asks_for_failed_rows_only(bench: Bench) -> None:
    rows = truths(ROWS)
    rows[3]["response"] += " " + "long " * 2000
    bench.folder.rows(rows)
    bench.server.config = Config(context=6000)
    job = bench.run()
    statuses = [verdict.status for verdict, _ in bench.provider.rows(job.id)]
    assert job.status is Status.COMPLETED and statuses.count(VerdictStatus.ERROR) == 1
    bench.server.config = Config()
    before = bench.server.ledger.requests
    bench.provider.retry(job.id)
    assert bench.run().status is Status.COMPLETED
    assert bench.server.ledger.requests == before + 1
    assert all(verdict.status is VerdictStatus.SCORED for verdict, _ in bench.provider.rows(job.id))


# rows and usage


def test_rows_are_the_verdicts_in_the_order_of_the_dataset(bench: Bench) -> None:
    job = bench.run()
    found = list(bench.provider.rows(job.id))
    assert [verdict.key for verdict, _ in found] == [key for key, _ in bench.request().rows()]
    assert [verdict.value for verdict, _ in found] == [row["gold"] for row in truths(ROWS)]
    assert all(verdict.status is VerdictStatus.SCORED and verdict.feedback for verdict, _ in found)
    assert all(json.dumps(detail) for _, detail in found)


def test_a_job_that_is_not_known_has_no_rows(bench: Bench) -> None:
    assert list(bench.provider.rows("no-such-job")) == []
    bench.submit()
    assert list(bench.provider.rows("no-such-job")) == []


def test_usage_counts_or_says_why_it_cannot(bench: Bench) -> None:
    job, request = bench.submit()
    bench.follow((job, request))
    usage = bench.provider.usage(job.id, request.evaluation)
    assert usage.calls == ROWS
    assert usage.prompt_tokens is None or usage.prompt_tokens > ROWS
    assert (usage.cost is None) == (usage.reason is not None)


def test_cost_is_the_price_of_the_tokens(bench: Bench) -> None:
    bench.folder.settings(prices={"judge": {"input": 2.0, "output": 10.0}})
    bench.provider = open_provider(bench.provider.name, bench.folder.project)
    job, request = bench.submit()
    bench.follow((job, request))
    usage = bench.provider.usage(job.id, request.evaluation)
    assert usage.prompt_tokens and usage.completion_tokens and usage.reason is None
    assert usage.cost == pytest.approx((2 * usage.prompt_tokens + 10 * usage.completion_tokens) / 1e6)
    bench.provider.close()


# What it leaves alone


def test_it_writes_nothing_beside_the_local_state(bench: Bench) -> None:
    before = {path for path in bench.project.root.rglob("*") if ".evalops" not in path.parts}
    bench.run()
    assert {path for path in bench.project.root.rglob("*") if ".evalops" not in path.parts} == before


def test_it_does_not_speak(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    bench.run()
    assert tuple(capfd.readouterr()) == ("", "")


def test_no_key_is_in_what_it_leaves(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_KEY", "sk-canary-7461")
    origin = bench.server.url.removesuffix("/v1")
    bench.folder.settings(
        local={"row_timeout": 0.3},
        models={"judge": {"base_url": bench.server.url, "credential": "bench"}},
        credentials={"bench": {"env": "BENCH_KEY", "origins": [origin]}},
    )
    bench.server.config = Config(script=("echo",) * 20, key="sk-canary-7461")
    bench.project = bench.folder.project
    bench.provider = open_provider(bench.provider.name, bench.project)
    end = bench.run()
    bench.provider.close()
    assert end.status is Status.FAILED and "canary" not in repr(end)
    assert bench.server.seen[0].header("Authorization") == "Bearer sk-canary-7461"
    for path in bench.project.root.rglob("*"):
        assert not path.is_file() or b"sk-canary" not in path.read_bytes(), path


def test_close_may_come_at_any_time(bench: Bench) -> None:
    bench.provider.close()
    bench.run()
    bench.provider.close()
    bench.provider.close()


def test_an_outcome_is_one_of_three(bench: Bench) -> None:
    assert isinstance(bench.provider.submit(bench.request()), Job | Refused | Unclear)


def test_the_key_of_the_work_is_its_fingerprint(bench: Bench) -> None:
    """The same work under another name is the same job; other work is another."""
    bench.folder.spec("renamed", gold="gold")
    bench.folder.spec("edited", judge={"system_template": "Is it really polite?"})
    tone, renamed, edited = (bench.submit(address)[0] for address in ("tone", "renamed", "edited"))
    assert (tone.fingerprint, tone.id) == (renamed.fingerprint, renamed.id)
    assert edited.fingerprint != tone.fingerprint and edited.id != tone.id
