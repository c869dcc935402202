"""The plan, its confirmation and the apply in `evalops ui`, over real HTTP, a real store and a scripted model server."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from apply_project import Folder, truths
from model_server import Config, Server, serve
from patronus_project import at_patronus
from patronus_service import PatronusService
from process import PATIENCE
from ui_process import opened

from evalops.errors import Exit
from evalops.ui.pace import Line, Rates

EVIL = "<img src=x onerror=alert(1)>"
SLOW = 60.0  # milliseconds of an answer


@pytest.fixture
def models() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def slow() -> Iterator[Server]:
    """Long enough under way to be looked at: one row at a time takes 60 ms."""
    with serve(Config(latency_ms=SLOW)) as server:
        yield server


def project(folder: Path, server: Server, *, rows: int = 8, **fields: Any) -> Folder:
    (folder / "project").mkdir()
    made = Folder(folder / "project", server.url).settings().rows(truths(rows))
    return made.spec("tone", **fields)


def one_by_one(folder: Path, server: Server, rows: int) -> Folder:
    """A project whose rows are judged one after the other, so that a run lasts."""
    return project(folder, server, rows=rows, judge={"num_workers": 1})


def until(what: Callable[[], Any], *, why: str = "") -> Any:
    """Its first value that is true."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError(f"it did not come to pass: {why or what}")


def digest(page: httpx.Client, path: str = "/apply") -> str:
    """That of the plan which a page shows."""
    found = re.search(r'name="digest" value="([0-9a-f]{64})"', page.get(path).text)
    assert found
    return found[1]


def start(page: httpx.Client, path: str = "/apply", **fields: Any) -> httpx.Response:
    return page.post("/apply", data={"digest": digest(page, path), "agreed": "1", **fields})


def looks(page: httpx.Client) -> Iterator[dict[str, Any]]:
    """What a page is sent."""
    with page.stream("GET", "/apply/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line.removeprefix("data: "))


def phase(page: httpx.Client) -> str:
    found = re.search(r'data-key="[0-9a-f]+\.(\w+)\.', page.get("/apply").text)
    assert found
    return found[1]


def ended(page: httpx.Client) -> str:
    """The page once nothing runs."""
    until(lambda: phase(page) in ("ended", "idle"), why="an end")
    return page.get("/apply").text


# --- the plan ---


@pytest.mark.slow
def test_the_plan_says_what_would_happen_and_what_it_takes(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models, tags=["x"]).spec("other", labels=["polite", "rude", EVIL])
    with opened(made.root) as ui, ui.client() as page:
        text = page.get("/apply").text
        assert "2 to run: 16 rows, 16 calls" in text and "cost unknown" in text and "create" in text
        assert 'name="agreed"' in text and "Apply this plan" in text
        chosen = page.get("/apply?only=tone").text
        assert "1 to run: 8 rows" in chosen and "of 1 chosen evaluation" in chosen
        assert digest(page, "/apply?only=tone") != digest(page)
        assert 'href="/apply"' in page.get("/").text
        missing = page.get("/apply", params={"only": EVIL})
        assert missing.status_code == 200 and "select/nothing" in missing.text and "<img" not in missing.text
        assert models.stats()["requests"] == 0


@pytest.mark.slow
def test_what_is_denied_says_why_and_cannot_be_started(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models)
    made.settings(budget={"calls": 3})
    with opened(made.root) as ui, ui.client() as page:
        text = page.get("/apply").text
        assert "denied" in text and "over <code>budget.calls</code>: 8 of 3" in text and "1 blocked" in text
        assert 'name="digest"' not in text


@pytest.mark.slow
def test_what_is_wrong_in_a_spec_is_said_in_place_of_a_plan(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models, labels=["polite", "polite"])
    with opened(made.root) as ui, ui.client() as page:
        text = page.get("/apply").text
        assert "There is no plan" in text and "tone.yaml:" in text
        refused = page.post("/apply", data={"digest": "0" * 64})
        assert refused.status_code == 409 and "tone.yaml:" in refused.text


# --- the confirmation ---


def test_an_apply_from_the_plan_to_the_result(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models, thresholds={"pass_percentage": {"min": 99}})
    with opened(made.root) as ui, ui.client() as page:
        answer = start(page)
        assert answer.status_code == 303 and answer.headers["location"] == "/apply"
        text = ended(page)
        assert "gates failed" in text and "1 of 1 failed" in text and 'href="/evaluations/tone"' in text
        assert "Everything is in step" in text
    assert made.actions() == {"tone": "noop"}
    assert models.stats()["repeats"] == 0


@pytest.mark.slow
def test_a_plan_that_has_moved_on_is_shown_anew_and_not_started(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models)
    with opened(made.root) as ui, ui.client() as page:
        old = digest(page)
        made.rows(truths(9))
        answer = page.post("/apply", data={"digest": old, "agreed": "1"})
        assert answer.status_code == 409 and "has moved on since you looked" in answer.text
        assert "9 rows, 9 calls" in answer.text and phase(page) == "idle"
        as_json = page.post("/apply", data={"digest": old}, headers={"accept": "application/json"})
        assert as_json.status_code == 409 and "moved on" in as_json.json()["error"]["message"]
        for wrong in ({}, {"digest": ""}, {"digest": "x"}, {"digest": [digest(page), digest(page)]}):
            assert page.post("/apply", data={"agreed": "1", **wrong}).status_code == 409
    assert models.stats()["requests"] == 0 and not (made.root / "tone.lock").exists()


@pytest.mark.slow
def test_what_costs_something_needs_a_yes_and_only_what_was_chosen_runs(tmp_path: Path, models: Server) -> None:
    made = project(tmp_path, models).spec("other", labels=["polite", "rude", "other"])
    with opened(made.root) as ui, ui.client() as page:
        answer = page.post("/apply", data={"digest": digest(page)})
        assert answer.status_code == 409 and "nobody agreed" in answer.text
        assert page.get("/apply/stop").status_code == 405
        assert page.post("/apply", content=b"a" * (2 << 20)).status_code == 413
        assert page.post("/apply", content=b"a=1&" * 20_000).status_code == 400
        assert page.post("/apply", content=b"\xff\xfe").status_code == 400
        assert models.stats()["requests"] == 0
        assert start(page, "/apply?only=tone", only="tone").status_code == 303
        ended(page)
    assert made.actions() == {"other": "create", "tone": "noop"}


# --- as it goes ---


@pytest.mark.slow
def test_every_browser_sees_it_go_stop_and_go_on(tmp_path: Path, slow: Server) -> None:
    made = one_by_one(tmp_path, slow, 40)
    with opened(made.root) as ui, ui.client() as page, ui.client() as other:
        key = next(looks(other))["key"]
        assert start(page).status_code == 303
        seen = until(lambda: next((look for look in looks(other) if "of 40" in look["html"]), None))
        assert seen["key"] != key and "polite: " in seen["html"] and "time left" in seen["html"]
        again = other.post("/apply", data={"digest": "0" * 64, "agreed": "1"})
        assert again.status_code == 409
        assert page.post("/apply/stop").status_code == 303
        text = ended(other)
        assert "was stopped. What is done is kept" in text and "resume" in text and "Go on" in text
        there = re.search(r"(\d+) of 40 rows are there", text)
        assert there and 0 < int(there[1]) < 40
        assert start(other).status_code == 303
        assert "The apply is done" in ended(page)
    assert made.summary()["scored"] == 40
    assert slow.stats()["repeats"] == 0


@pytest.mark.slow
def test_several_at_once_start_it_once(tmp_path: Path, slow: Server) -> None:
    made = project(tmp_path, slow, rows=20)
    with opened(made.root) as ui, ui.client() as page:
        fields = {"digest": digest(page), "agreed": "1"}
        with ThreadPoolExecutor(4) as pool:
            codes = list(pool.map(lambda _: page.post("/apply", data=fields).status_code, range(4)))
        assert sorted(codes) == [303, 409, 409, 409]
        ended(page)
    assert made.summary()["scored"] == 20 and slow.stats()["repeats"] == 0


@pytest.mark.slow
def test_the_rate_and_the_time_left_are_told_once_they_are_known(tmp_path: Path, slow: Server) -> None:
    made = one_by_one(tmp_path, slow, 80)
    with opened(made.root) as ui, ui.client() as page:
        start(page)
        found = []
        for look in looks(page):
            found.append(look["html"])
            if "time left: about" in look["html"]:
                break
        assert "rows a second" in found[-1]
        assert any("unknown" in each or "begins" in each for each in found[:3])


@pytest.mark.slow
def test_after_a_kill_it_goes_on_where_it_was(tmp_path: Path, slow: Server) -> None:
    made = one_by_one(tmp_path, slow, 60)
    with opened(made.root) as ui, ui.client() as page:
        start(page)
        until(lambda: re.search(r"\b[1-9]\d* of 60", page.get("/apply").text))
        ui.kill()
        with opened(made.root, port=ui.port) as second, second.client() as again:
            text = again.get("/apply").text
            assert "resume" in text and "Go on" in text and re.search(r"[1-9]\d* of 60 rows are there", text)
            assert phase(again) == "idle"
            start(again)
            assert "The apply is done" in ended(again)
    assert made.summary()["scored"] == 60
    assert slow.stats()["repeats"] <= 2  # the row in flight, and what was not committed yet


@pytest.mark.slow
def test_the_end_of_the_server_keeps_the_rows_in_flight(tmp_path: Path, slow: Server) -> None:
    made = one_by_one(tmp_path, slow, 60)
    with opened(made.root) as ui, ui.client() as page:
        start(page)
        until(lambda: re.search(r"\b[1-9]\d* of 60", page.get("/apply").text))
        began = time.monotonic()
        listening = looks(page)
        next(listening)
        assert ui.stop() == 0
        assert time.monotonic() - began < 4.5, "a page that listens must not hold up the end"
    assert made.actions() == {"tone": "resume"}
    assert made.apply().code == Exit.OK and slow.stats()["repeats"] == 0


# --- another process ---


@pytest.mark.slow
def test_an_apply_from_the_command_line_is_seen_and_not_started_twice(tmp_path: Path, slow: Server) -> None:
    made = one_by_one(tmp_path, slow, 60)
    with opened(made.root) as ui, ui.client() as page:
        token = digest(page)
        running = made.start()
        try:
            text = until(lambda: (text := page.get("/apply").text) and re.search(r"[1-9]\d* of 60", text) and text)
            assert "Applying elsewhere" in text and f"process {running.pid}" in text
            assert 'action="/apply/stop"' not in text
            answer = page.post("/apply", data={"digest": digest_of(made, token), "agreed": "1"})
            assert answer.status_code == 409
        finally:
            assert running.wait(PATIENCE) == 0
            running.communicate()
        assert "Everything is in step" in ended(page)
    assert slow.stats()["repeats"] == 0


def digest_of(made: Folder, otherwise: str) -> str:
    """The digest of the plan of now, while something runs."""
    done = made.run("plan", "--format", "json")
    return str(json.loads(done.out)["digest"]) if done.code == 0 else otherwise


@pytest.mark.slow
def test_what_ends_badly_says_so(tmp_path: Path) -> None:
    with serve(Config(faults={"500": 1.0})) as server:
        made = project(tmp_path, server)
        made.settings(local={"row_timeout": 1.0, "down_after": 0.3})
        with opened(made.root) as ui, ui.client() as page:
            start(page)
            text = ended(page)
            assert "failed" in text and "job/failed" in text
            retry = page.get("/apply?retry=1").text
            assert "the failed job is tried again" in retry and "Go on" in retry


def test_how_long_nothing_came_is_told() -> None:
    """A model that hangs cannot be told from a slow one; for how long there was no row can."""
    times = iter([0.0, 9.0, 11.0, 40.0, 41.0, 60.0])
    rates, line = Rates(lambda: next(times)), Line(address="tone", status="running", done=3, total=9)
    assert [rates.paced(line).still for _ in range(4)] == [None, None, 11.0, 40.0]
    assert rates.paced(replace(line, done=4)).still is None
    assert rates.paced(replace(line, done=4, status="completed")).still is None


# --- another provider ---


@pytest.mark.slow
def test_at_patronus_it_is_planned_followed_and_reviewed_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with PatronusService() as service:
        (tmp_path / "project").mkdir()
        made = at_patronus(tmp_path / "project", service, monkeypatch)
        made.rows([{"question": f"q{n}", "answer": f"a{n} truth={'fail' if n % 4 == 0 else 'pass'}"} for n in range(8)])
        value = {
            "version": 1,
            "name": "tone",
            "type": "classify",
            "provider": "patronus",
            "dataset": "rows.jsonl",
            "evaluators": [{"evaluator": "judge", "criteria": "polite"}],
            "patronus": {"capture": "all", "columns": {"task_input": "question", "task_output": "answer"}},
        }
        (made.root / "tone.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
        with opened(made.root) as ui, ui.client() as page:
            assert "patronus" in page.get("/").text
            assert "8 rows, 8 calls" in page.get("/apply").text
            assert start(page).status_code == 303
            assert "Everything is in step" in ended(page)
            review = page.get("/evaluations/tone")
            assert review.status_code == 200 and "patronus" in review.text and "q7" in review.text
            assert page.get("/jobs").status_code == 200
        assert made.actions() == {"tone": "noop"}
        assert set(service.ledger.billed.values()) == {1} and len(service.ledger.billed) == 8
