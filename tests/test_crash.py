"""kill -9 in the middle of an apply: the next one goes on, asks nothing again that was committed, and ends alike."""

from __future__ import annotations

import random
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, duels, truths
from model_server import Config, Process, spawn

WORKERS = 16
LATENCY = 0.05  # seconds; at most one round of calls fits into a commit window


@pytest.fixture
def server() -> Iterator[Process]:
    """A counting endpoint in a process of its own."""
    with spawn(Config(latency_ms=1000 * LATENCY, keep=1)) as running:
        yield running


def project(root: Path, server: Process, rows: int) -> Folder:
    root.mkdir()
    folder = Folder(root, server.url).settings().rows(truths(rows))
    return folder.spec(judge={"num_workers": WORKERS}, gold="gold", thresholds={"accuracy": {"min": 1}})


def kill_after(folder: Folder, server: Process, requests: int) -> bool:
    """Kills an apply once the endpoint has been asked so often; whether it came to that."""
    process = folder.start()
    while server.stats()["requests"] < requests and process.poll() is None:
        time.sleep(0.002)
    process.kill()
    process.communicate(timeout=30)
    return process.returncode != 0


def committed(folder: Folder) -> int:
    """How many rows survived, by a look at the store from outside."""
    store = folder.root / ".evalops" / "store.sqlite"
    if not store.exists():
        return 0
    # A copy with its log: to look must change nothing.
    copy = folder.root.parent / "look"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(store.parent, copy)
    database = sqlite3.connect(copy / store.name)
    try:
        return int(database.execute("SELECT count(*) FROM rows").fetchone()[0])
    except sqlite3.OperationalError:  # killed before there were tables
        return 0
    finally:
        database.close()


def result(folder: Folder, name: str = "tone") -> Any:
    """Summary, gates and verdicts, without what tells of the calls of each run."""
    entry = folder.entry(name)
    summary = {key: value for key, value in entry["summary"].items() if key != "usage"}
    return entry["fingerprint"], entry["dataset"], summary, entry["gates"], folder.verdicts(name), folder.rows_of(name)


def crash_once(tmp_path: Path, server: Process, rows: int) -> None:
    folder = project(tmp_path / "killed", server, rows)
    assert kill_after(folder, server, rows // 3)
    asked, kept = server.stats()["requests"], committed(folder)
    # What was lost: calls in flight, and what came back within one commit window of 50 ms.
    assert kept > 0 and asked - kept <= 4 * WORKERS
    assert folder.entry()["status"] == "pending" and folder.entry()["summary"] is None
    assert folder.actions() == {"tone": "resume"}
    folder.applied()
    after = server.stats()
    assert after["requests"] - asked <= rows - kept  # no committed row was asked again
    assert after["repeats"] <= asked - kept
    undisturbed = project(tmp_path / "undisturbed", server, rows)
    undisturbed.applied()
    assert result(folder) == result(undisturbed)
    assert folder.actions() == {"tone": "noop"}


@pytest.mark.slow
def test_a_killed_apply_goes_on(tmp_path: Path, server: Process) -> None:
    crash_once(tmp_path, server, 300)


@pytest.mark.slow
def test_a_killed_apply_of_2000_rows_goes_on(tmp_path: Path, server: Process) -> None:
    crash_once(tmp_path, server, 2000)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_kills_at_any_time(tmp_path: Path, seed: int) -> None:
    """Several evaluations, killed again and again at random moments, also while files are written."""
    chance = random.Random(seed)
    with spawn(Config(latency_ms=5, keep=1)) as server:
        folder = several(tmp_path / "killed", server)
        for _ in range(chance.randint(1, 5)):
            process = folder.start()
            time.sleep(chance.uniform(0.0, 1.5))  # the moment is the test: start-up, calls, grading, writing
            process.kill()
            process.communicate(timeout=30)
            assert folder.run("plan").code == 0
        before = server.stats()["requests"]
        kept = committed(folder)
        assert folder.apply().code == 0
        assert server.stats()["requests"] - before <= 2 * (4 * 60 - kept)
        undisturbed = several(tmp_path / "undisturbed", server)
        assert undisturbed.apply().code == 0
        for name in ("duel", "one", "two", "grade"):
            assert result(folder, name) == result(undisturbed, name)
        assert set(folder.actions().values()) == {"noop"}


def several(root: Path, server: Process) -> Folder:
    root.mkdir()
    rows = truths(60)
    rows[7]["response"] = rows[50]["response"] = "..."  # nothing to judge: invalid without a call
    folder = Folder(root, server.url).settings().rows(rows).rows(duels(60), "duels.jsonl")
    folder.spec("one", gold="gold").spec("two", gold="gold", pass_labels=["rude"]).duel(dataset="duels.jsonl")
    return folder.spec("grade", type="score", min_score=1, max_score=5, model_to_evaluate="response")
