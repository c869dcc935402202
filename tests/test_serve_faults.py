"""`evalops serve` when things go wrong around it: kills, signals, endpoints that are down, disks that are full."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from model_server import Config, Server, serve, spawn
from serve_client import OPEN, WORKERS, Client, asked, problem, replies, wait
from serve_process import DEDICATED, EXTERNAL, SERVERLESS, Served, served

LATENCY = 0.03  # seconds; at most two rounds of calls fit into a commit window of 50 ms
LOST = 3 * WORKERS  # rows that a kill may cost: those in flight, and one commit window of them
SLOW = Config(latency_ms=300)
TOKEN = "sk-of-their-model-2718281828"


@pytest.fixture
def models() -> Iterator[Server]:
    """An endpoint that takes a while, and counts."""
    with serve(Config(latency_ms=1000 * LATENCY)) as running:
        yield running


def reached(models: Server, requests: int, job: str, client: Client) -> None:
    """Waits until the endpoint has been asked so often, and slows it down, so that the job does not end before then."""
    wait(lambda: models.ledger.requests >= requests)
    models.config = SLOW
    assert client.job(job)["status"] in OPEN


def committed(server: Served) -> int:
    """How many rows are in the store, by a look from outside at a copy of it."""
    copy = server.store.parent / "look"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for file in server.store.glob("store.sqlite*"):
        shutil.copyfile(file, copy / file.name)
    database = sqlite3.connect(copy / "store.sqlite")
    found = database.execute("SELECT count(*) FROM rows").fetchone()[0]
    database.close()
    return int(found)


def undisturbed(folder: Path, models: Server, *datasets: list[dict[str, Any]]) -> list[Any]:
    """What comes out where nothing happens, from a server with a store of its own."""
    folder.mkdir()
    with served(folder, model_url=models.url) as server, Client(server) as client:
        return [client.outcome(job) for job in [client.create(client.upload(rows)) for rows in datasets]]


# --- many at once ---


@pytest.mark.slow
def test_fifty_jobs_from_eight_clients(tmp_path: Path) -> None:
    with serve() as models, served(tmp_path, model_url=models.url) as server:
        datasets = [replies(6, of=f"job {number}") for number in range(50)]

        def run(rows: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]]]:
            with Client(server) as client:
                job = client.create(client.upload(rows))
                return job, client.completed(job)

        with ThreadPoolExecutor(8) as pool:
            done = list(pool.map(run, datasets))
        assert len({job for job, _ in done}) == 50
        for rows, (_, found) in zip(datasets, done, strict=True):
            assert [row["response"] for row in found] == [row["response"] for row in rows]
            assert [row["label"] for row in found] == [row["response"].rpartition("=")[2] for row in rows]
        assert models.stats()["repeats"] == 0


@pytest.mark.slow
def test_a_hanging_endpoint_holds_up_none_but_its_own_jobs(tmp_path: Path) -> None:
    with serve(Config(faults={"hang": 1.0})) as hanging, serve() as models:
        settings = {"models": {SERVERLESS: {"base_url": models.url}, DEDICATED: {"base_url": hanging.url}}}
        with served(tmp_path, model_url=models.url, **settings) as server, Client(server) as client:
            file = client.upload(replies(2))
            judge = {"model": DEDICATED, "model_source": "dedicated", "system_template": "Is this polite?"}
            stuck = [client.create(file, judge=judge) for _ in range(40)]
            wait(lambda: hanging.ledger.requests >= 2)
            assert len(client.completed(client.create(file))) == 2
            assert {client.job(job)["status"] for job in stuck} <= {*OPEN}


# --- kills ---


def killed_once(tmp_path: Path, models: Server, *datasets: list[dict[str, Any]]) -> None:
    total = sum(map(len, datasets))
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        jobs = [client.create(client.upload(rows)) for rows in datasets]
        reached(models, total // 3, jobs[-1], client)
        server.kill()
        before = models.ledger.requests
    models.config = Config()
    kept = committed(server)
    assert kept > 0
    assert before - kept <= LOST * len(datasets)
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        outcomes = [client.outcome(job) for job in jobs]
    after = models.stats()
    assert after["requests"] - before <= total - kept  # no committed row was asked again
    assert after["repeats"] <= before - kept
    assert outcomes == undisturbed(tmp_path / "undisturbed", models, *datasets)
    assert not list((server.store / "jobs").iterdir())


@pytest.mark.slow
def test_a_killed_server_goes_on(tmp_path: Path, models: Server) -> None:
    killed_once(tmp_path, models, replies(200))


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_500_rows_goes_on(tmp_path: Path, models: Server) -> None:
    killed_once(tmp_path, models, replies(500))


@pytest.mark.slow
def test_a_server_killed_with_several_jobs_goes_on(tmp_path: Path, models: Server) -> None:
    killed_once(tmp_path, models, *(replies(150, of=f"job {number}") for number in range(4)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_kills_at_any_time(tmp_path: Path, seed: int) -> None:
    """Killed again and again at random moments, also while it starts and while results are written."""
    chance = random.Random(seed)
    datasets = [replies(80, of=f"job {number}") for number in range(3)]
    with serve(Config(latency_ms=5)) as models:
        with served(tmp_path, model_url=models.url) as server, Client(server) as client:
            jobs = [client.create(client.upload(rows)) for rows in datasets]
            time.sleep(chance.uniform(0.0, 0.3))  # the moment is the test
            server.kill()
        for _ in range(chance.randint(1, 4)):
            before, kept = models.ledger.requests, committed(server)
            with served(tmp_path, model_url=models.url) as server:
                time.sleep(chance.uniform(0.0, 0.3))
                server.kill()
            assert models.ledger.requests - before <= 240 - kept
        with served(tmp_path, model_url=models.url) as server, Client(server) as client:
            outcomes = [client.outcome(job) for job in jobs]
        assert outcomes == undisturbed(tmp_path / "undisturbed", models, *datasets)


@pytest.mark.slow
def test_a_kill_while_results_are_written(tmp_path: Path, models: Server) -> None:
    rows = [{"response": "..." + "." * (number % 90)} for number in range(3000)]  # nothing to judge: no call
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(client.upload(rows))
        place = server.store / "jobs" / job
        wait(lambda: len(list(place.iterdir())) == 2)
        server.kill()
    assert len(list(place.iterdir())) == 2, "it was too late"
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        found = client.completed(job)
        listed = client.http.get("/v1/files").json()["data"]
    assert [row["response"] for row in found] == [row["response"] for row in rows]
    assert not any(row["evaluation_successful"] for row in found)
    assert Counter(file["purpose"] for file in listed) == {"eval": 1, "eval-output": 1}
    assert not list((server.store / "jobs").iterdir())
    assert models.ledger.requests == 0


@pytest.mark.slow
def test_kills_between_the_steps_of_a_client(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        file = client.upload(replies(20))
        server.kill()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(file)
        server.kill()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        assert len(client.completed(job)) == 20
        assert [each["workflow_id"] for each in client.http.get("/v1/evaluation").json()] == [job]


@pytest.mark.slow
def test_a_kill_in_the_middle_of_an_upload_leaves_nothing(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        form = {"purpose": "eval", "file_name": "rows.jsonl", "file_type": "jsonl"}
        announced = client.http.post("/v1/files", files={name: (None, value) for name, value in form.items()})
        address = announced.headers["location"].removeprefix(server.url)
        with socket.create_connection(("127.0.0.1", client.http.base_url.port or 0)) as connection:
            head = f"PUT {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100000\r\n\r\n"
            connection.sendall(head.encode() + b'{"response": "a"}\n' * 100)
            wait(lambda: list((server.store / "files" / ".incoming").glob("*/content")))
            server.kill()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        assert client.http.get("/v1/files").json()["data"] == []
        assert client.http.get(f"/v1/files/{announced.headers['x-together-file-id']}").status_code == 404
        assert not list((server.store / "files" / ".incoming").iterdir())


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_stop_keeps_every_answered_row(tmp_path: Path, models: Server, number: signal.Signals) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(client.upload(replies(200)))
        reached(models, 60, job, client)
        server.process.send_signal(number)
        server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert "goes on at the next start" in server.said()
    assert committed(server) == models.ledger.answers["ok"] == models.ledger.requests < 200
    models.config = Config()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        assert len(client.completed(job)) == 200
    assert models.ledger.requests == 200


@pytest.mark.slow
def test_signals_again_and_again(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(client.upload(replies(100)))
        reached(models, 20, job, client)
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            server.process.send_signal(number)
        server.process.communicate(timeout=30)
    assert server.process.returncode == 0
    assert "Traceback" not in server.said()
    models.config = Config()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        assert len(client.completed(job)) == 100


@pytest.mark.slow
def test_a_stop_waits_for_no_answer_that_does_not_come(tmp_path: Path) -> None:
    """Neither for an endpoint that hangs nor for a client that does not read on."""
    with serve(Config(faults={"hang": 1.0})) as models:
        with served(tmp_path, model_url=models.url) as server, Client(server) as client:
            large = client.upload(replies(200_000))
            job = client.create(client.upload(replies(50)))
            wait(lambda: models.ledger.requests >= WORKERS)
            with client.http.stream("GET", f"/v1/files/{large}/content"):
                began = time.monotonic()
                assert server.stop() == 0
                assert time.monotonic() - began < 20
        assert "Traceback" not in server.said()
        models.config = Config()
        with served(tmp_path, model_url=models.url) as server, Client(server) as client:
            assert len(client.completed(job)) == 50


# --- endpoints and their tokens ---


@pytest.mark.slow
def test_a_token_is_gone_with_the_server_that_knew_it(tmp_path: Path, models: Server) -> None:
    judge = {
        "model": EXTERNAL,
        "model_source": "external",
        "system_template": "Is this polite?",
        "external_base_url": models.url,
        "external_api_token": TOKEN,
        "num_workers": WORKERS,
    }
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        file = client.upload(replies(100))
        job = client.create(file, judge=judge)
        reached(models, 40, job, client)
        assert server.stop() == 0
    models.config = Config()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        found = client.finished(job)
        assert found["status"] == "user_error"
        assert "tokens of external models in memory only: create the job again" in found["results"]["error"]
        assert len(client.completed(client.create(file, judge=judge))) == 100
    assert models.stats()["requests"] == 100  # what was answered is not asked again
    assert not [path for path in server.store.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.slow
def test_an_endpoint_that_comes_back(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"
    with served(tmp_path, model_url=url, providers={"local": {"down_after": 0.5}}) as server, Client(server) as client:
        file = client.upload(replies(50))
        found = client.finished(client.create(file))
        assert found["status"] == "error"
        assert found["results"] == {
            "error": f"`http://127.0.0.1:{port}` could not be reached: connection refused (tried for 0.5 s)"
        }
        with spawn(port=port):
            assert len(client.completed(client.create(file))) == 50


def test_a_job_may_lose_some_rows_but_not_too_many(tmp_path: Path) -> None:
    def rows(failing: int) -> list[dict[str, Any]]:
        return [{"response": row["response"] + "x" * 5000 * (n < failing)} for n, row in enumerate(replies(10))]

    with (
        serve(Config(context=4000)) as models,
        served(tmp_path, model_url=models.url) as server,
        Client(server) as client,
    ):
        results, found = client.outcome(client.create(client.upload(rows(3))))
        lost = client.finished(client.create(client.upload(rows(4))))
    assert [row["evaluation_successful"] for row in found] == [False] * 3 + [True] * 7
    assert results["judge_fail_count"] == 3
    assert sum(results["label_counts"].values()) == 7
    assert lost["status"] == "error"
    assert set(lost["results"]) == {"error"}
    assert "4 of 10 rows ended in an error, more than the allowed share of 30%" in lost["results"]["error"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.jsonl", b'{"response": "a", "id": 1, "category": "b"}\n', "Unsupported dataset column(s): ['category', 'id']"),
        ("rows.jsonl", b'{"question": "a"}\n', "Missing dataset column(s): ['response']"),
        ("rows.jsonl", b"response\na\n", "line 1"),
        ("rows.jsonl", b'["a", "b"]\n', "line 1"),
        ("rows.jsonl", b'{"response": "a"}\n{"response": "b"\n', "line 2"),
        ("rows.jsonl", b'{"response": "a\xff"}\n', "UTF-8"),
        ("rows.jsonl", b"", "no rows"),
        ("rows.jsonl", b"\n\n", "no rows"),
        ("rows.csv", b"response\n", "no rows"),
        ("rows.csv", b'response,other\na,b\nc,d,e\n', "line 3"),
        ("rows.csv", b'response\n"a\n', "line 2"),
    ],
)  # fmt: skip
def test_a_dataset_that_cannot_be_judged(dataset_client: Client, name: str, content: bytes, message: str) -> None:
    found = dataset_client.finished(dataset_client.create(dataset_client.upload(content, name)))
    assert found["status"] == "user_error"
    assert set(found["results"]) == {"error"}
    assert message in found["results"]["error"]


@pytest.fixture(scope="module")
def dataset_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("datasets")
    with serve() as models, served(folder, model_url=models.url) as server, Client(server) as client:
        yield client
        assert models.ledger.requests == 0  # no row of a broken dataset is bought
        assert "Traceback" not in server.said()


@pytest.mark.slow
def test_a_dataset_that_is_deleted_while_its_job_runs(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        file = client.upload(replies(60))
        job = client.create(file)
        assert client.http.delete(f"/v1/files/{file}").status_code == 200
        reached(models, 20, job, client)
        server.kill()
    models.config = Config()
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        assert len(client.completed(job)) == 60


# --- a disk that is full ---


def fill(server: Served, *, is_full: bool) -> None:
    """No file of the server can grow, as on a full disk, or all can again."""
    hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0 if is_full else hard, hard))


def test_a_full_disk_refuses_jobs_and_files(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        file = client.upload(replies(5))
        fill(server, is_full=True)
        refused = client.http.post("/v1/evaluation", json=asked(file))
        assert refused.status_code == 503
        assert problem(refused.json())["message"].startswith("the server cannot store anything now")
        form = {"purpose": "eval", "file_name": "rows.jsonl"}
        other = client.http.post("/v1/files/upload", data=form, files={"file": ("rows.jsonl", b'{"response": "a"}\n')})
        assert other.status_code == 507
        problem(other.json())
        assert client.http.get("/v1/evaluation").json() == []
        fill(server, is_full=False)
        assert not list((server.store / "jobs").iterdir())
        assert len(client.completed(client.create(file))) == 5
        assert len(client.completed(client.create(client.upload(replies(3))))) == 3
        assert server.stop() == 0
    assert "Traceback" not in server.said()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The folder of a server on a disk of its own, with room for 8 MB and 300 files."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=300", "tmpfs", folder], check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a disk")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a disk")
@pytest.mark.parametrize("what", ["bytes", "files"])
def test_a_disk_without_room(small_disk: Path, models: Server, what: str) -> None:
    with served(small_disk, model_url=models.url) as server, Client(server) as client:
        file = client.upload(replies(5))
        ballast = small_disk / "ballast"
        ballast.mkdir()
        with contextlib.suppress(OSError):
            for number in range(1000):
                (ballast / str(number)).write_bytes(b"0" * 65536 if what == "bytes" else b"")
        refused = client.http.post("/v1/evaluation", json=asked(file))
        assert refused.status_code == 503
        assert problem(refused.json())["message"].startswith("the server cannot store anything now")
        assert client.http.get("/v1/evaluation").json() == []
        shutil.rmtree(ballast)
        assert not list((server.store / "jobs").glob("*"))
        assert len(client.completed(client.create(file))) == 5
        assert server.stop() == 0
    assert "Traceback" not in server.said()


@pytest.mark.slow
def test_jobs_go_on_when_there_is_room_again(tmp_path: Path, models: Server) -> None:
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(client.upload(replies(150)))
        reached(models, 40, job, client)
        fill(server, is_full=True)
        asked_before = models.ledger.requests
        deadline = time.monotonic() + 7  # the engine tries again meanwhile
        while time.monotonic() < deadline:
            assert client.job(job)["status"] == "running"
            time.sleep(0.1)
        assert models.ledger.requests - asked_before <= 4 * WORKERS
        fill(server, is_full=False)
        models.config = Config()
        assert len(client.completed(job)) == 150
        assert server.stop() == 0
    assert "Traceback" not in server.said()


@pytest.mark.slow
def test_results_wait_for_room(tmp_path: Path, models: Server) -> None:
    rows = [{"response": "." * (number % 90)} for number in range(3000)]
    rows[0]["response"] = "truth=polite"
    with served(tmp_path, model_url=models.url) as server, Client(server) as client:
        job = client.create(client.upload(rows))
        place = server.store / "jobs" / job
        wait(lambda: len(list(place.iterdir())) == 2)
        fill(server, is_full=True)
        time.sleep(1)  # it notices by itself
        assert client.job(job)["status"] == "running"
        fill(server, is_full=False)
        assert len(client.completed(job)) == 3000
        assert not list(place.parent.iterdir())
