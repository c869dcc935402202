"""Jobs carried out by the engine: real rows, a real store, a real endpoint on loopback."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from apply_project import PACKAGE, duels, truths
from evaluations import evaluation
from model_server import Config, Server, serve

from evalops import semantics
from evalops.datasets import dataset
from evalops.datasets.dataset import Row
from evalops.engine.model import Client, Endpoint, Policy
from evalops.engine.run import Outcome, Target, Work, run_all
from evalops.engine.store import JobRecord, Store, Stored
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical
from evalops.lock import Status
from evalops.result import VerdictStatus
from evalops.spec import Evaluation

Rows = Sequence[Mapping[str, Any]]
Read = Callable[[], Iterator[Row]]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "store.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def read(rows: Rows) -> Read:
    return lambda: (Row(position, position + 1, dict(row)) for position, row in enumerate(rows))


def work_of(
    what: Evaluation,
    rows: Rows,
    url: str,
    *,
    job: str = "job-1",
    generation: int = 1,
    workers: int = 8,
    max_error_rate: float = 0.3,
    then: Read | None = None,
) -> Work:
    """A job over `rows`; `then` is what the file holds by the time it runs."""
    use = dataset.uses(what, semantics.variables(what))
    submitted = sha256()
    for row in rows:
        submitted.update(canonical({c: row[c] for c in use.submitted if row.get(c) not in (None, "")}) + b"\n")
    opened = then or read(rows)
    endpoint = Endpoint(base_url=url, model="m", max_in_flight=workers)
    return Work(
        job=job,
        evaluation=what,
        generation=generation,
        total=len(rows),
        submitted=submitted.hexdigest(),
        use=use,
        rows=lambda: dataset.keys(opened(), use),
        targets=tuple(Target(identity=f"{url}\nm", endpoints=(endpoint,)) for _ in what.models),
        max_error_rate=max_error_rate,
    )


class Watch:
    """What a run reported; it stops once `stop_after` rows are done."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.reports: list[tuple[str, int, dict[str, int]]] = []
        self.outcomes: dict[str, Outcome] = {}
        self.stop_after = stop_after
        self.stop: asyncio.Event | None = None

    def report(self, job: str, done: int, counts: Mapping[str, int]) -> None:
        self.reports.append((job, done, dict(counts)))
        if self.stop and self.stop_after is not None and done >= self.stop_after:
            self.stop.set()

    def finish(self, job: str, outcome: Outcome) -> None:
        assert job not in self.outcomes
        self.outcomes[job] = outcome


async def one_by_one(works: Iterable[Work]) -> AsyncGenerator[Work]:
    for work in works:
        yield work


def carry_out(store: Store, *works: Work, watch: Watch | None = None, at_once: int = 8, **policy: Any) -> Watch:
    watch = watch or Watch()
    for work in works:
        store.add_job(JobRecord(work.job, "f", work.generation, "pending", None, work.total, "2026-01-01", None))

    async def run() -> None:
        watch.stop = asyncio.Event()
        async with Client(policy=Policy(backoff=0.01, down_after=0.1, **policy), proxies={}) as client:
            await run_all(one_by_one(works), store, client, watch.report, watch.finish, watch.stop, at_once=at_once)

    asyncio.run(run())
    return watch


def values(store: Store, job: str = "job-1") -> list[Any]:
    return [each.verdict.value or each.verdict.reason for each in store.rows(job)]


def rows_of(store: Store, job: str = "job-1") -> list[Stored]:
    return list(store.rows(job))


def test_every_row_is_judged_once_and_stored_in_order(store: Store, server: Server) -> None:
    rows = truths(100)
    watch = carry_out(store, work_of(evaluation(), rows, server.url))
    assert watch.outcomes == {"job-1": Outcome(status=Status.COMPLETED)}
    assert values(store) == [row["gold"] for row in rows]
    assert [each.position for each in rows_of(store)] == list(range(100))
    assert server.stats()["requests"] == 100
    assert watch.reports[-1] == ("job-1", 100, {"scored": 100, "calls": 100})
    done = [count for _, count, _ in watch.reports]
    assert done == sorted(done)


def test_calls_never_exceed_the_workers(store: Store) -> None:
    with serve(Config(latency_ms=2)) as server:
        carry_out(store, work_of(evaluation(), truths(60), server.url, workers=5))
        assert server.stats()["max_in_flight"] <= 5


def test_a_second_run_of_a_job_asks_only_for_what_is_missing(store: Store, server: Server) -> None:
    rows = truths(80)
    server.config = Config(latency_ms=20)
    watch = carry_out(store, work_of(evaluation(), rows, server.url), watch=Watch(stop_after=20))
    assert watch.outcomes["job-1"].status is Status.CANCELLED
    done = len(rows_of(store))
    assert 20 <= done < 80
    again = carry_out(store, work_of(evaluation(), rows, server.url))
    assert again.outcomes["job-1"].status is Status.COMPLETED
    assert again.reports[-1][2].get("kept", 0) == done
    assert values(store) == [row["gold"] for row in rows]
    assert server.stats()["requests"] == 80 and server.stats()["repeats"] == 0


def test_stop_lets_calls_in_flight_finish(store: Store) -> None:
    with serve(Config(latency_ms=30)) as server:
        watch = carry_out(store, work_of(evaluation(), truths(200), server.url), watch=Watch(stop_after=1))
        assert watch.outcomes["job-1"].status is Status.CANCELLED
        assert len(rows_of(store)) == server.stats()["answers"]["ok"] < 200


def test_more_jobs_than_run_at_a_time(store: Store, server: Server) -> None:
    works = [work_of(evaluation(name=f"e{n}"), truths(5 + n), server.url, job=f"job-{n}") for n in range(12)]
    watch = carry_out(store, *works, at_once=3)
    assert [watch.outcomes[f"job-{n}"].status for n in range(12)] == [Status.COMPLETED] * 12
    assert all(len(rows_of(store, f"job-{n}")) == 5 + n for n in range(12))


def test_jobs_that_were_not_started_stay_untouched_by_a_stop(store: Store, server: Server) -> None:
    server.config = Config(latency_ms=20)
    works = [work_of(evaluation(name=f"e{n}"), truths(30), server.url, job=f"job-{n}") for n in range(6)]
    watch = carry_out(store, *works, at_once=2, watch=Watch(stop_after=5))
    assert set(watch.outcomes.values()) == {Outcome(status=Status.CANCELLED)} and len(watch.outcomes) == 2
    assert not any(rows_of(store, f"job-{n}") for n in range(2, 6))


def test_the_same_question_is_asked_once_for_all_jobs(store: Store, server: Server) -> None:
    one = work_of(evaluation(), truths(20), server.url, job="job-1")
    two = work_of(evaluation(name="other", gold="gold"), truths(20), server.url, job="job-2")
    carry_out(store, one)
    carry_out(store, two)
    assert server.stats()["requests"] == 20
    assert values(store, "job-1") == values(store, "job-2")


def test_a_new_generation_asks_anew(store: Store, server: Server) -> None:
    carry_out(store, work_of(evaluation(), truths(10), server.url))
    carry_out(store, work_of(evaluation(), truths(10), server.url, job="job-2", generation=2))
    carry_out(store, work_of(evaluation(), truths(10), server.url, job="job-3", generation=2))
    assert server.stats()["requests"] == 20


def test_equal_rows_are_rows_of_their_own(store: Store, server: Server) -> None:
    rows = [{"response": "same truth=rude"}] * 5
    carry_out(store, work_of(evaluation(), rows, server.url, workers=1))
    assert values(store) == ["rude"] * 5
    assert len({each.verdict.key for each in rows_of(store)}) == 5
    assert server.stats()["requests"] == 1


def test_compare_asks_twice_a_row(store: Store, server: Server) -> None:
    rows = duels(12)
    what = evaluation(type="compare", judge={"system_template": "Which answers {{ question }} better?"})
    carry_out(store, work_of(what, rows, server.url))
    found = [each.verdict for each in rows_of(store)]
    wins = [(int(row["first"][-1]), int(row["second"][-1])) for row in rows]
    assert [each.value for each in found] == ["A" if a > b else "B" if b > a else "Tie" for a, b in wins]
    assert all(each.orders == (each.value, each.value) for each in found)
    assert server.stats()["requests"] == 24


def test_an_empty_cell_is_no_difference(store: Store, server: Server) -> None:
    rows = [{"response": "x truth=rude", "more": value} for value in ("", None)]
    what = evaluation(judge={"system_template": "{{ more }} polite?"})
    watch = carry_out(store, work_of(what, rows, server.url))
    assert watch.outcomes["job-1"].status is Status.COMPLETED


# Errors and invalid rows


def test_invalid_replies_are_counted_and_no_errors(store: Store) -> None:
    with serve(Config(faults={"unusable": 1.0})) as server:
        watch = carry_out(store, work_of(evaluation(), truths(10), server.url))
        assert watch.outcomes["job-1"].status is Status.COMPLETED
        assert watch.reports[-1][2]["invalid"] == 10
        assert server.stats()["requests"] == 20


def test_a_few_errors_are_borne_and_more_fail_the_job(store: Store) -> None:
    rows = truths(20)
    for row in rows[:4]:
        row["response"] += "x" * 10_000
    with serve(Config(context=5_000)) as server:
        watch = carry_out(store, work_of(evaluation(), rows, server.url, max_error_rate=0.2))
        assert watch.outcomes["job-1"].status is Status.COMPLETED
        assert Counter(each.verdict.status for each in rows_of(store)) == {
            VerdictStatus.ERROR: 4,
            VerdictStatus.SCORED: 16,
        }
        assert values(store)[:4] == ["status_400"] * 4
        watch = carry_out(store, work_of(evaluation(), rows, server.url, job="job-2", max_error_rate=0.15, workers=1))
        outcome = watch.outcomes["job-2"]
        assert outcome.status is Status.FAILED
        assert (
            outcome.message
            and outcome.message.startswith("4 of 20 rows ended in an error")
            and "15%" in outcome.message
        )


def test_errors_of_an_earlier_run_count(store: Store) -> None:
    rows = truths(20)
    for row in rows[:2] + rows[10:12]:
        row["response"] += "x" * 10_000
    with serve(Config(context=5_000, latency_ms=20)) as server:
        work = work_of(evaluation(), rows, server.url, max_error_rate=0.15, workers=1)
        carry_out(store, work, watch=Watch(stop_after=3))
        assert 3 <= len(rows_of(store)) < 10
        assert carry_out(store, work).outcomes["job-1"].status is Status.FAILED


def test_an_endpoint_that_refuses_fails_the_job_with_one_message(store: Store) -> None:
    with serve(Config(key="right")) as server:
        watch = carry_out(store, work_of(evaluation(), truths(50), server.url))
        assert server.stats()["requests"] <= 8
    outcome = watch.outcomes["job-1"]
    assert outcome.status is Status.FAILED and outcome.message and "401" in outcome.message
    assert rows_of(store) == []


def test_rows_done_before_a_fatal_failure_are_kept(store: Store) -> None:
    with serve(Config(latency_ms=20)) as server:
        watch = Watch(stop_after=10)
        rows = truths(60)
        carry_out(store, work_of(evaluation(), rows, server.url, workers=2), watch=watch)
        kept = len(rows_of(store))
        server.config = Config(key="right")
        watch = carry_out(store, work_of(evaluation(), rows, server.url, workers=2))
        assert watch.outcomes["job-1"].status is Status.FAILED
        assert len(rows_of(store)) == kept >= 10


# A dataset that changes, a store that cannot be written


@pytest.mark.parametrize("change", ["edited", "shorter", "longer"])
def test_a_dataset_that_changed_while_the_job_ran_fails_it(store: Store, server: Server, change: str) -> None:
    rows = truths(30)
    now = [dict(row) for row in rows]
    match change:
        case "edited":
            now[29]["response"] = "another truth=rude"
        case "shorter":
            del now[20:]
        case "longer":
            now += truths(5)
    watch = carry_out(store, work_of(evaluation(), rows, server.url, then=read(now)))
    outcome = watch.outcomes["job-1"]
    assert outcome.status is Status.FAILED and outcome.message and "while the job ran" in outcome.message


def test_verdicts_on_changed_rows_are_not_taken_for_those_of_the_right_ones(store: Store, server: Server) -> None:
    rows = truths(10)
    now = [dict(row) for row in rows]
    now[5]["response"] = "another truth=rude"
    carry_out(store, work_of(evaluation(), rows, server.url, then=read(now)))
    watch = carry_out(store, work_of(evaluation(), rows, server.url))
    assert watch.outcomes["job-1"].status is Status.COMPLETED
    assert values(store) == [row["gold"] for row in rows]
    assert server.stats()["requests"] == 11  # what was asked before is known


def test_a_dataset_that_cannot_be_read_to_the_end_fails_the_job(store: Store, server: Server) -> None:
    rows = truths(30)

    def broken() -> Iterator[Row]:
        yield from list(read(rows)())[:20]
        raise EvalopsError(Diagnostic(code="dataset/row", message="row 21 is not JSON"))

    watch = carry_out(store, work_of(evaluation(), rows, server.url, then=broken))
    assert watch.outcomes["job-1"] == Outcome(status=Status.FAILED, message="row 21 is not JSON")
    assert len(rows_of(store)) == 20  # what was asked for before is kept


class FullDisk(Store):
    """A store whose disk is full after some commits."""

    commits = 1

    def flush(self) -> None:
        if self._rows and self.commits <= 0:
            raise EvalopsError(Diagnostic(code="store/unusable", message="the disk is full"))
        self.commits -= bool(self._rows)
        super().flush()


def test_a_store_that_cannot_be_written_ends_the_run(tmp_path: Path) -> None:
    full = FullDisk(tmp_path / "store.sqlite")
    with serve(Config(latency_ms=20)) as server, pytest.raises(EvalopsError, match="the disk is full"):
        carry_out(full, *(work_of(evaluation(name=f"e{n}"), truths(200), server.url, job=f"j{n}") for n in range(2)))
    after = Store(tmp_path / "store.sqlite")
    assert 0 < len(rows_of(after, "j0")) < 200  # the first commit is there
    after.close()


# Several servers for one model


def test_calls_go_to_the_endpoint_with_the_fewest() -> None:
    target = Target(
        identity="m",
        endpoints=tuple(Endpoint(base_url=f"http://127.0.0.1:{n}/v1", model="m", max_in_flight=2) for n in (1, 2)),
    )
    assert target.width == 4
    with target.pick() as one, target.pick() as two:
        assert {one.base_url, two.base_url} == {each.base_url for each in target.endpoints}
        with target.pick(), target.pick():
            assert target.busy == [2, 2]
    assert target.busy == [0, 0]


def test_a_bug_fails_its_job_alone_and_is_raised_in_the_end(store: Store, server: Server) -> None:
    def broken() -> Any:
        yield from ()
        raise LookupError("a bug")

    good = work_of(evaluation(), truths(20), server.url, job="job-1")
    bad = replace(work_of(evaluation(name="other"), truths(5), server.url, job="job-2"), rows=broken)
    watch = Watch()
    with pytest.raises(LookupError):
        carry_out(store, bad, good, watch=watch)
    assert watch.outcomes["job-1"].status is Status.COMPLETED and len(rows_of(store)) == 20
    assert watch.outcomes["job-2"] == Outcome(
        status=Status.FAILED, message="a bug of evalops stopped the job: LookupError"
    )


# Repeats and juries


HOT = {"temperature": 1}
TWO = [{"model": "x", "system_template": "One?"}, {"model": "y", "system_template": "Two?"}]


def asked(server: Server) -> Counter[str]:
    """How often each judge was asked, by the first word of its template."""
    return Counter(seen.json["messages"][0]["content"] for seen in server.seen)


def test_a_repeat_is_a_call_of_its_own_and_sends_nothing_else(store: Store, server: Server) -> None:
    rows = truths(10)
    watch = carry_out(store, work_of(evaluation(repeats=3, judge=HOT), rows, server.url))
    stats = server.stats()
    assert (stats["requests"], stats["distinct"]) == (30, 10)
    assert len({seen.body for seen in server.seen}) == 10
    assert values(store) == [row["gold"] for row in rows]
    assert all([vote.repeat for vote in each.verdict.votes] == [1, 2, 3] for each in rows_of(store))
    assert watch.reports[-1] == ("job-1", 10, {"scored": 10, "calls": 30})


def test_more_repeats_ask_only_for_those_that_are_new(store: Store, server: Server) -> None:
    rows = truths(10)
    for number, (repeats, requests) in enumerate(((1, 10), (3, 30), (2, 30), (5, 50))):
        what = evaluation(repeats=repeats, judge=HOT)
        carry_out(store, work_of(what, rows, server.url, job=f"job-{number}"))
        assert server.stats()["requests"] == requests
    assert [used.detail["usage"]["judge"][:2] for used in rows_of(store, "job-3")] == [[2, 3]] * 10


def test_the_first_repeat_has_the_key_that_a_single_call_had(store: Store, server: Server) -> None:
    carry_out(store, work_of(evaluation(), [{"response": "x truth=rude"}], server.url))
    (seen,) = server.seen
    key = sha256(f"{server.url}\nm\0/chat/completions\0".encode() + seen.body).digest()
    assert store.reply(key) is not None
    assert store.reply(sha256(f"{server.url}\nm\0/chat/completions\0".encode() + seen.body + b"\x002").digest()) is None


def test_each_judge_of_a_jury_is_asked_at_its_own_endpoint(store: Store) -> None:
    rows = truths(12)
    what = evaluation(judges=TWO)
    with serve() as one, serve(Config(refuse=("json_schema",))) as other:
        work = work_of(what, rows, one.url)
        second = replace(
            work.targets[1], identity=f"{other.url}\nm", endpoints=(Endpoint(base_url=other.url, model="n"),)
        )
        work = replace(work, targets=(work.targets[0], second))
        carry_out(store, work)
        assert asked(one) == {"One?": 12}
        assert set(asked(other)) == {"Two?"} and other.stats()["answers"]["ok"] == 12
        assert {each.verdict.rung for each in rows_of(store)} == {"json_object+json_schema"}
        before = other.stats()["requests"]
        again = replace(work, job="job-2", evaluation=evaluation(judges=TWO, name="again"))
        carry_out(store, again)
        assert (one.stats()["requests"], other.stats()["requests"]) == (12, before)  # the rung is known, too


def test_votes_that_are_in_are_not_asked_for_again(store: Store) -> None:
    rows = truths(12)
    what = evaluation(judges=[each | HOT for each in TWO], repeats=2)
    with serve() as one, serve(Config(key="right")) as other:

        def work(url: str) -> Work:
            made = work_of(what, rows, one.url, workers=3)
            target = replace(made.targets[1], identity="other", endpoints=(Endpoint(base_url=url, model="n"),))
            return replace(made, targets=(made.targets[0], target))

        watch = carry_out(store, work(other.url))
        assert watch.outcomes["job-1"].status is Status.FAILED and rows_of(store) == []
        paid = one.stats()["requests"]
        assert paid > 0  # a row is kept once all its votes are in, a reply at once
        other.config = Config()
        watch = carry_out(store, work(other.url))
        assert watch.outcomes["job-1"].status is Status.COMPLETED and values(store) == [row["gold"] for row in rows]
        assert one.stats()["requests"] == other.stats()["answers"]["ok"] == 24
        kept = sum(each.detail["usage"]["x"][1] for each in rows_of(store))
        assert kept == paid


KILLED = """
import asyncio, sys
from pathlib import Path
sys.path[:0] = sys.argv[3:]
import test_run
from evalops.engine.store import Store
store = Store(Path(sys.argv[1]))
test_run.carry_out(store, test_run.voted(sys.argv[2]))
"""


def voted(url: str) -> Work:
    """A job of 20 rows with six votes each."""
    return work_of(evaluation(judges=[each | HOT for each in TWO], repeats=3), truths(20), url, workers=4)


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    with serve(Config(latency_ms=20)) as server:
        command = [sys.executable, "-c", KILLED, str(path), server.url, str(Path(__file__).parent), str(PACKAGE)]
        process = subprocess.Popen(command)
        while server.stats()["answers"].get("ok", 0) < 50:
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
        process.wait()
        server.config = Config()
        before = server.stats()["requests"]
        store = Store(path)
        done = len(rows_of(store))
        watch = carry_out(store, voted(server.url))
        assert watch.outcomes["job-1"].status is Status.COMPLETED and done < 20
        assert [len(each.verdict.votes) for each in rows_of(store)] == [6] * 20
        store.close()
        # Lost are the calls that were in flight, and what one window holds: at most that is asked again.
        assert before >= 50 and server.stats()["requests"] <= 120 + 8 * 6
        assert server.stats()["requests"] - before <= 120 - 50 + 8 * 6


# What no model is shown


HIDDEN = ("id", "gold", "category", "difficulty", "note", "cluster")


def secretive(count: int, word: str) -> list[dict[str, Any]]:
    """Rows with columns that no template names, each cell with `word` in it."""
    kept = {column: f"{word}-{column}" for column in HIDDEN}
    return [
        {"q": f"question {n}", "response": f"reply {n}", "first": f"one {n}", "second": f"two {n}",
         **{column: f"{text}-{n}" for column, text in kept.items()}}
        for n in range(count)
    ]  # fmt: skip


GRADING = {
    "gold": "gold", "group_by": ["category", "difficulty"], "cluster": "cluster",
    "dataset": {"path": "rows.jsonl", "id": "id"},
}  # fmt: skip
WRITER = {"model": "w", "input_template": "{{ q }}"}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"judge": {"system_template": "{{ q }}\n{{ response }}"}},
        {"type": "score", "judge": {"criteria": ["tone", {"name": "facts", "description": "No false statement"}]}},
        {"type": "compare"},
        {"type": "compare", "model_b": WRITER},
        {"model_to_evaluate": WRITER, "judges": [each | HOT for each in TWO], "repeats": 2},
        {"judge": {"system_template": "{{ q }}", "verdict": "likelihood"}, "model_to_evaluate": None},
    ],
)
@pytest.mark.parametrize("fault", [{}, {"faults": {"unusable": 1.0}}, {"refuse": ("json_schema", "json_object")}])
def test_a_column_that_no_template_names_reaches_no_model(
    store: Store, fields: dict[str, Any], fault: dict[str, Any]
) -> None:
    requests = []
    for number, word in enumerate(("canary", "parrot")):
        with serve(Config(keep=10_000, labels=("polite", "rude"), **fault)) as server:
            work = work_of(evaluation(**GRADING, **fields), secretive(5, word), server.url, job=f"job-{number}")
            work = replace(work, targets=tuple(replace(each, identity=word) for each in work.targets))
            carry_out(store, work)
            sent = [seen.head.encode() + seen.body for seen in server.seen]
        assert sent and not any(word.encode() in each for each in sent)
        # How many rows knock at a rung before it is known to be refused is a matter of time.
        asked = [seen.body for seen in server.seen if not fault.get("refuse") or b"response_format" not in seen.body]
        requests.append(Counter(asked))
    assert requests[0] == requests[1]  # nor does it change what a model is asked
