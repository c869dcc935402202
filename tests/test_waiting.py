"""How long apply waits for jobs: what is not finished goes on later, and the exit code says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from model_server import Config, Server, serve
from serve_process import SERVERLESS, served

from evalops.errors import Exit

ROWS = 60


def lock_of(folder: Folder) -> Any:
    return json.loads((folder.root / "tone.lock").read_text())["evaluations"]["tone"]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    with serve(Config(latency_ms=30)) as server:
        yield Folder(tmp_path, server.url).settings().rows(truths(ROWS)).spec(judge={"num_workers": 2}), server


@pytest.mark.slow
@pytest.mark.parametrize("option", [("--timeout", "0.2s"), ("--no-wait",)])
def test_an_apply_that_is_out_of_time_leaves_the_rest_to_the_next(
    folder: tuple[Folder, Server], option: tuple[str, ...]
) -> None:
    here, server = folder
    done = here.apply(*option)
    assert done.code == Exit.STILL_RUNNING
    assert "still running; `evalops apply` collects" in done.err
    assert lock_of(here)["status"] in ("cancelled", "pending", "running")
    assert here.apply("--timeout", "5m").code == Exit.OK
    assert lock_of(here)["status"] == "completed"
    assert server.stats()["requests"] == ROWS and server.stats()["repeats"] == 0


@pytest.mark.slow
def test_a_job_at_a_service_runs_on_without_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve() as models, served(tmp_path, model_url=models.url) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", "any")
        judge = {"model": SERVERLESS, "system_template": "Polite? {{ response }}"}
        here = Folder(tmp_path / "mine", models.url).settings().rows(truths(5))
        here.spec(provider="together", judge=judge, gold="gold")
        assert here.apply("--no-wait").code == Exit.STILL_RUNNING
        job = lock_of(here)["job"]
        watched = here.run("status", "--watch")
        assert watched.code == Exit.OK and "tone: completed" in watched.err
        assert "To collect the results" in watched.err
        assert lock_of(here)["status"] in ("pending", "running")
        assert here.apply("--timeout", "1h").code == Exit.OK  # nothing is paid, so nothing is asked
        assert lock_of(here)["job"] == job and lock_of(here)["summary"]["scored"] == 5
        assert here.run("status", "--watch").err == ""  # nothing is open


@pytest.mark.parametrize("text", ["x", "-1", "1d", "", "1e9", "9" * 5000])
def test_a_time_that_is_none_is_wrong_usage(folder: tuple[Folder, Server], text: str) -> None:
    done = folder[0].apply("--timeout", text)
    assert done.code == Exit.USAGE and "write 90s, 20m or 2h" in done.err
