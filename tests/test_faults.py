"""Endpoints that misbehave: the run ends, every row is accounted for, and the reason is named once."""

from __future__ import annotations

import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from command import Done
from model_server import Config, serve

from evalops.errors import Exit

FAULTS = {"unusable": 0.2, "429": 0.1, "500": 0.05, "hang": 0.01}


def project(root: Path, url: str, *, rows: int = 60, **local: Any) -> Folder:
    folder = Folder(root, url).settings(local={"down_after": 0.5, **local}).rows(truths(rows))
    return folder.spec(gold="gold", pass_labels=["polite"])


def check_counts(folder: Folder, answers: dict[str, int], rows: int) -> None:
    """Every row is scored, invalid or an error, and these numbers are what the endpoint says it answered."""
    summary = folder.summary()
    scored, invalid, errors = summary["scored"], summary["invalid"], summary["errors"]
    assert scored + invalid + errors == rows == summary["rows"]
    assert sum(summary["label_counts"].values()) == scored
    found = [row["verdict"] for row in folder.rows_of()]
    assert [sum(each["status"] == name for each in found) for name in ("scored", "invalid", "error")] == [
        scored, invalid, errors,
    ]  # fmt: skip
    assert summary["usage"]["calls"] == answers["ok"] + answers["unusable"]
    # A row is scored by the one good answer it got; an invalid one had two that could not be used.
    assert scored == answers["ok"]
    assert invalid > 0 and 2 * invalid <= answers["unusable"] <= 2 * invalid + scored
    # The server knows the truth, so no verdict is wrong; what is missing is within the bounds.
    assert summary["metrics"]["accuracy_scored"]["value"] == 1
    assert summary["metrics"]["accuracy"]["value"] == pytest.approx(scored / rows)
    truth = 100 * sum(row["gold"] == "polite" for row in truths(rows)) / rows
    bounds = summary["bounds"]["pass_percentage"]
    assert bounds["low"] <= truth <= bounds["high"]
    assert bounds["high"] - bounds["low"] == pytest.approx(100 * (invalid + errors) / rows)


def faults(root: Path, rows: int) -> None:
    with serve(Config(latency_ms=2, faults=FAULTS, retry_after="0.05")) as server:
        folder = project(root, server.url, rows=rows, attempt_timeout=0.4)
        folder.applied()
        answers = server.stats()["answers"]
        assert set(answers) >= {"ok", "unusable", "429", "500"}
        check_counts(folder, answers, rows)
        before = server.ledger.requests
        folder.applied()
        assert server.ledger.requests == before  # an invalid row is a result, not something to try again


@pytest.mark.slow
def test_a_bad_endpoint_is_survived_and_counted(tmp_path: Path) -> None:
    faults(tmp_path, 200)


@pytest.mark.slow
def test_a_bad_endpoint_is_survived_and_counted_at_length(tmp_path: Path) -> None:
    faults(tmp_path, 2000)


def test_rows_that_fail_are_errors_and_tried_again_when_asked(tmp_path: Path) -> None:
    with serve(Config(context=3000)) as server:
        folder = project(tmp_path, server.url)
        rows = truths(60)
        for row in rows[:5]:
            row["response"] += " long" * 1000
        folder.rows(rows).applied()
        summary = folder.summary()
        assert (summary["errors"], summary["error_reasons"]) == (5, {"status_400": 5})
        assert summary["metrics"]["error_rate"]["value"] == pytest.approx(5 / 60)
        bounds = summary["bounds"]["pass_percentage"]
        assert bounds["high"] - bounds["low"] == pytest.approx(100 * 5 / 60)
        assert [row["verdict"]["status"] for row in folder.rows_of()][:6] == ["error"] * 5 + ["scored"]


def test_too_many_errors_fail_the_job_and_keep_the_rest(tmp_path: Path) -> None:
    with serve(Config(context=3000)) as server:
        folder = project(tmp_path, server.url, max_error_rate=0.05)
        rows = truths(60)
        for row in rows[40:]:
            row["response"] += " long" * 1000
        folder.rows(rows)
        message = failure(folder)
        assert re.match(r"\d+ of 60 rows ended in an error, more than the allowed share of 5%", message)
        server.config = Config()
        asked = server.ledger.requests
        folder.applied("--retry-failed")
        assert server.ledger.requests - asked <= 20 + 3
        assert folder.summary()["scored"] == 60


# Endpoints that do not work at all


def failure(folder: Folder) -> str:
    """The message of an apply that must fail: one clear error, and no trace of the machinery."""
    done: Done = folder.apply()
    assert done.code == 1, done
    errors = re.findall(r"^error\[(.*?)\]: `tone` failed: (.*)$", done.err, re.M)
    assert [code for code, _ in errors] == ["job/failed"] and done.err.count("error[") == 1, done.err
    assert "Traceback" not in done.err and "Exception" not in done.err
    assert folder.entry()["status"] == "failed" and folder.entry()["message"] == errors[0][1]
    message: str = errors[0][1]
    return message


def test_an_endpoint_that_is_down_fails_within_its_deadline(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    folder = project(tmp_path, url, rows=2000, down_after=0.5)
    started = time.monotonic()
    message = failure(folder)
    assert time.monotonic() - started < 4
    assert message == f"`{url.removesuffix('/v1')}` could not be reached: connection refused (tried for 0.5 s)"


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (Config(key="right"), ["401", "key"]),
        (Config(models=("another",)), ["404", "The model `judge` does not exist"]),
        (Config(faults={"html": 1.0}), ["web page"]),
        (Config(faults={"quota": 1.0}), ["used up your quota"]),
        (Config(faults={"redirect": 1.0}), ["redirects"]),
        (Config(faults={"403": 1.0}), ["403"]),
    ],
    ids=["key", "model", "html", "quota", "redirect", "forbidden"],
)
def test_what_no_row_can_mend_is_said_at_once(tmp_path: Path, config: Config, words: list[str]) -> None:
    with serve(config) as server:
        folder = project(tmp_path, server.url, rows=1000)
        started = time.monotonic()
        message = failure(folder)
        assert time.monotonic() - started < 4
        assert server.ledger.requests <= 32  # what was in flight by then
    assert all(word in message for word in words), message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "words"),
    [("hang", "gave no answer within 0"), ("drop", "closed the connection"), ("garbage", "not JSON")],
)
def test_an_endpoint_that_never_answers_well_fails_the_job(tmp_path: Path, fault: str, words: str) -> None:
    with serve(Config(faults={fault: 1.0})) as server:
        folder = project(tmp_path, server.url, attempt_timeout=0.3, row_timeout=0.8)
        started = time.monotonic()
        assert words in failure(folder)
        assert time.monotonic() - started < 8


def test_where_a_fifth_cannot_be_read_the_truth_is_within_what_is_said(tmp_path: Path) -> None:
    """The judge is right wherever it can be read, and for one row in five neither its first nor its second reply can."""
    rows = [{"id": f"r{n}", "response": f"{n} truth={'rude' if n % 10 < 3 else 'polite'}"} for n in range(300)]
    with serve(Config(faults={"unusable": 0.2**0.5})) as server:
        folder = Folder(tmp_path, server.url).settings().rows(rows)
        folder.spec(thresholds={"pass_percentage": {"min": 50}, "invalid_rate": {"max": 0.02}})
        done = folder.apply()
    summary = folder.summary()
    passes, bounds = summary["metrics"]["pass_percentage"], summary["bounds"]["pass_percentage"]
    assert 0.15 < summary["metrics"]["invalid_rate"]["value"] < 0.25
    assert summary["invalid_reasons"] == {"unparsable": summary["invalid"]}
    assert passes["n"] == summary["scored"] == 300 - summary["invalid"]
    assert passes["low"] < 70 < passes["high"]
    assert bounds["low"] < 70 < bounds["high"]
    assert bounds["high"] - bounds["low"] == pytest.approx(100 * summary["invalid"] / 300)
    assert done.code == Exit.GATE_FAILED and "failed: invalid_rate" in done.err
    assert [gate["verdict"] for gate in folder.entry()["gates"]] == ["passed", "failed"]
