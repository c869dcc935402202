"""Applying specs at Patronus: the loop, what is tried again and what is looked up, pins, quotas, results."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import Folder
from command import Done
from patronus_project import at_patronus
from patronus_service import KEY, Behaviour, PatronusService

from evalops.patronus import Grader, Outcome, Patronus, combined, names, numbers
from evalops.providers import patronus_call as call
from evalops.providers import patronus_rows
from evalops.providers.client import Answer
from evalops.providers.patronus_pace import FIRST_WINDOW, Pace

GRADERS = [{"evaluator": "toxicity"}, {"evaluator": "judge", "criteria": "polite"}, "judge-small"]


@pytest.fixture
def service() -> Iterator[PatronusService]:
    with PatronusService() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, service: PatronusService, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_patronus(tmp_path / "project", service, monkeypatch).rows(rows(30))


def rows(count: int) -> list[dict[str, Any]]:
    """Every fourth row fails."""
    return [
        {"question": f"q{number}", "answer": f"a{number} truth={'fail' if number % 4 == 0 else 'pass'}", "kind": "even" if number % 2 == 0 else "odd"}
        for number in range(count)
    ]  # fmt: skip


def spec(folder: Folder, name: str = "tone", *, patronus: Any = None, evaluators: Any = None, **fields: Any) -> Folder:
    value = {
        "version": 1,
        "name": name,
        "type": "classify",
        "provider": "patronus",
        "dataset": "rows.jsonl",
        "evaluators": evaluators or GRADERS,
        "patronus": {
            "capture": "all",
            "columns": {"task_input": "question", "task_output": "answer"},
            **(patronus or {}),
        },
        **fields,
    }
    (folder.root / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def once(service: PatronusService, *, rows: int, graders: int = 3) -> None:
    """Every evaluation was billed and kept exactly once."""
    assert set(service.ledger.billed.values()) == {1}
    assert len(service.ledger.billed) == rows * graders
    kept = Counter((each["log_id"], each["evaluator_id"], each["criteria"]) for each in service.captured)
    assert set(kept.values()) == {1} and len(kept) == rows * graders


# Results


def test_an_experiment_is_the_job_and_a_second_apply_asks_for_nothing(folder: Folder, service: PatronusService) -> None:
    spec(folder, group_by=["kind"], thresholds={"pass_percentage": {"min": 60}})
    folder.applied()
    entry = folder.entry()
    (experiment,) = service.experiments.values()
    assert entry["job"] == experiment["id"] and experiment["name"] == "tone"
    assert experiment["tags"] == {"evalops": f"{entry['fingerprint'][:16]}-1"}
    assert [each["name"] for each in service.projects.values()] == ["evalops"]
    assert entry["pins"] == {
        "toxicity": "toxicity-2024-10-27",
        "judge/polite": "judge-large-2024-08-08/polite:1",
        "judge-small": "judge-small-2024-08-08",
    }
    summary = entry["summary"]
    assert summary["label_counts"] == {"pass": 22, "fail": 8} and summary["rows"] == 30
    assert summary["metrics"]["pass_percentage"]["value"] == pytest.approx(100 * 22 / 30)
    assert summary["criteria"]["judge/polite"]["value"] == pytest.approx(22 / 30)
    assert set(summary["criteria"]) >= {"toxicity", "toxicity score", "all_pass", "any_pass"}
    assert set(summary["groups"]["kind"]) == {"even", "odd"}
    assert entry["gates"][0]["verdict"] == "passed"
    once(service, rows=30)
    asked = (service.ledger.requests, service.ledger.others)
    assert "in step" in folder.applied().err
    assert (service.ledger.requests, service.ledger.others) == asked


def test_what_was_sent_is_what_the_spec_says(folder: Folder, service: PatronusService) -> None:
    folder.rows(
        [
            {
                "q": "ask",
                "a": "truth=pass",
                "c": ["one", "two"],
                "s": "be nice",
                "g": "gold",
                "t": "ab" * 16,
                "n": 17,
                "l": "log-1",
            }
        ]
    )
    columns = {
        "task_input": "q",
        "task_output": "a",
        "task_context": "c",
        "system_prompt": "s",
        "gold_answer": "g",
        "trace_id": "t",
        "dataset_sample_id": "n",
        "log_id": "l",
    }
    spec(
        folder,
        patronus={
            "columns": columns,
            "tags": {"team": "us"},
            "dataset_id": "d1",
            "confidence_interval_strategy": "full-history",
        },
        evaluators=["judge"],
    )
    folder.applied()
    (seen,) = service.ledger.seen
    mark = f"{folder.entry()['fingerprint'][:16]}-1"
    assert seen == {
        "evaluators": [{"evaluator": "judge-large-2024-08-08"}], "task_input": "ask", "task_output": "truth=pass", "task_context": ["one", "two"],
        "system_prompt": "be nice", "gold_answer": "gold", "trace_id": "ab" * 16, "dataset_sample_id": "17", "log_id": "log-1", "capture": "all",
        "tags": {"team": "us", "evalops": mark}, "dataset_id": "d1", "confidence_interval_strategy": "full-history", "experiment_id": folder.entry()["job"],
    }  # fmt: skip
    assert folder.summary()["usage"]["intervals"]["judge"]["upper"] == 0.9


def test_rows_have_the_explanations(folder: Folder, service: PatronusService) -> None:
    spec(folder, evaluators=[{"evaluator": "toxicity", "explain_strategy": "on-fail"}, "judge"]).applied()
    first, second = folder.rows_of()[:2]
    assert first["verdict"]["value"] == "fail" and first["verdict"]["reason"].startswith(
        "toxicity: because it is False\njudge: "
    )
    assert second["verdict"]["reason"] == "judge: because it is True"
    assert first["verdict"]["criteria"] == {
        "toxicity": 0.0,
        "toxicity score": 0.0,
        "judge": 0.0,
        "judge score": 0.0,
        "all_pass": 0.0,
        "any_pass": 0.0,
    }
    assert [each["evaluator"] for each in first["evaluators"]] == ["toxicity-2024-10-27", "judge-large-2024-08-08"]


def test_show_has_the_services_intervals_beside_ours(folder: Folder, service: PatronusService) -> None:
    spec(folder, patronus={"confidence_interval_strategy": "full-history"}).applied()
    shown = folder.run("show", "tone")
    assert shown.code == 0 and "the service's" in shown.out and "0.6 [0.1, 0.9]" in shown.out, shown
    assert "1,260 tokens" not in shown.out and "3,780 tokens" in shown.out
    value = json.loads(folder.run("show", "tone", "--format", "json").out)
    assert value["pins"]["toxicity"] == "toxicity-2024-10-27"


def test_scores_are_the_mean_of_the_evaluators(folder: Folder, service: PatronusService) -> None:
    folder.rows([{"question": "q", "answer": f"a score={number / 10}"} for number in range(11)])
    spec(folder, type="score", pass_threshold=0.75, thresholds={"mean_score[toxicity]": {"min": 0.4}}).applied()
    summary = folder.summary()
    assert summary["metrics"]["mean_score"]["value"] == pytest.approx(0.5)
    assert summary["metrics"]["pass_percentage"]["value"] == pytest.approx(100 * 3 / 11)
    assert summary["criteria"]["toxicity"]["value"] == pytest.approx(0.5)
    assert summary["criteria"]["toxicity pass"]["value"] == pytest.approx(6 / 11)
    assert folder.entry()["gates"][0]["verdict"] == "passed"


def test_how_evaluators_are_combined_is_graded_again_for_nothing(folder: Folder, service: PatronusService) -> None:
    folder.rows(
        [
            {"question": "q1", "answer": "truth=fail toxicity=pass"},
            {"question": "q2", "answer": "truth=pass toxicity=fail"},
        ]
    )
    spec(folder).applied()
    asked = service.ledger.requests
    assert folder.summary()["label_counts"] == {"pass": 0, "fail": 2}
    assert [each["verdict"]["value"] for each in folder.rows_of()] == ["fail", "fail"]
    spec(folder, patronus={"combine": "any_pass"})
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    assert service.ledger.requests == asked and folder.summary()["label_counts"] == {"pass": 2, "fail": 0}
    assert [each["verdict"]["value"] for each in folder.rows_of()] == ["pass", "pass"]
    shutil.rmtree(folder.root / ".evalops")  # then from the verdicts file
    spec(folder)
    folder.applied()
    assert service.ledger.requests == asked and folder.summary()["label_counts"] == {"pass": 0, "fail": 2}


def test_half_an_answer_is_no_verdict() -> None:
    asked = Patronus(graders=(Grader("a"), Grader("b", "c")))
    assert names(asked, is_score=False) == ("a", "b/c", "a score", "b/c score", "all_pass", "any_pass")
    mixed = numbers(asked, {"a": Outcome(True, 0.9), "b/c": Outcome(False, None)}, is_score=False)
    assert mixed == {"a": 1.0, "a score": 0.9, "b/c": 0.0, "all_pass": 0.0, "any_pass": 1.0}
    assert combined(asked, mixed, is_score=False) == "fail"
    assert combined(Patronus(graders=asked.graders, combine="any_pass"), mixed, is_score=False) == "pass"
    half = numbers(asked, {"a": Outcome(False, 0.1), "b/c": Outcome(None, 0.4)}, is_score=False)
    assert combined(asked, half, is_score=False) is None and "all_pass" not in half
    assert combined(
        asked, numbers(asked, {"a": Outcome(None, 0.2), "b/c": Outcome(None, 0.4)}, is_score=True), is_score=True
    ) == pytest.approx(0.3)


# What fails


def test_a_validation_error_is_final_and_no_verdict(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(invalid_rows=("a3 ", "a7 ")))
    spec(folder).applied()
    summary = folder.summary()
    assert (summary["scored"], summary["invalid"], summary["errors"]) == (28, 2, 0)
    assert summary["invalid_reasons"] == {"validation_error": 2}
    assert service.ledger.requests == 30
    row = folder.rows_of()[3]
    assert row["verdict"]["problem"] == "validation_error" and "too long" in row["verdict"]["reason"]
    assert row["verdict"]["criteria"]["judge-small"] == 1.0  # the others' numbers count for themselves
    assert summary["criteria"]["judge-small"]["n"] == 30 and summary["criteria"]["toxicity"]["n"] == 28


def test_of_a_mixed_answer_only_what_failed_is_asked_again(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["failed", "failed+", "missing"]))
    spec(folder).applied()
    assert folder.summary()["scored"] == 30
    again = [each for each in service.ledger.seen if len(each["evaluators"]) == 1]
    assert service.ledger.requests == 33 and len(again) == 3
    assert {each["evaluators"][0]["evaluator"] for each in again} == {"toxicity-2024-10-27", "judge-small-2024-08-08"}
    assert set(service.ledger.billed.values()) <= {1, 2}  # what was missing in an answer was billed all the same


OPEN = ("500+", "502+", "504+", "408+", "409+", "drop+", "html+", "empty+", "list+")


def test_a_call_whose_answer_was_lost_is_looked_up(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=list(OPEN)))
    spec(folder).applied()
    assert folder.summary()["scored"] == 30 == service.ledger.requests
    assert {word for word in service.ledger.answers if word != "ok"} == set(OPEN)
    once(service, rows=30)


def test_a_call_that_was_not_carried_out_is_made_again(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["500", "502", "drop", "429", "425"]))
    spec(folder).applied()
    assert folder.summary()["scored"] == 30 and service.ledger.requests == 35
    once(service, rows=30)


def test_results_that_come_twice_all_the_same_are_told_of(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["drop+"], lag=1))
    folder.rows(rows(4))
    done = spec(folder).applied()
    assert folder.summary()["scored"] == 4
    assert "keeps 3 results of 101 twice" in done.err


def test_without_captures_the_spec_says_whether_a_lost_call_is_made_again(
    folder: Folder, service: PatronusService
) -> None:
    folder.rows(rows(6))
    service.behave(Behaviour(evaluate=["drop+"]))
    spec(folder, patronus={"capture": "none", "lost_reply": "error"}).applied()
    assert folder.summary()["error_reasons"] == {"lost": 1} and service.ledger.requests == 6
    service.behave(Behaviour(evaluate=["502+"]))
    spec(folder, "other", patronus={"capture": "none", "lost_reply": "repeat"}, evaluators=["judge"]).applied()
    assert folder.summary("other")["scored"] == 6 and service.ledger.requests == 13
    assert service.captured == [] and max(service.ledger.billed.values()) == 2


NEVER_AGAIN = {"capture": "none", "lost_reply": "error"}


def test_a_row_that_was_not_carried_out_is_not_one_whose_answer_was_lost(
    folder: Folder, service: PatronusService
) -> None:
    service.behave(Behaviour(quota=8))
    assert spec(folder, patronus=NEVER_AGAIN).apply().code == 1
    assert len(folder.rows_of()) == 8
    service.behave(Behaviour(evaluate=["403"] * 99))
    assert "answered 403" in folder.apply().err
    assert len(folder.rows_of()) == 8
    service.behave(Behaviour())
    folder.applied("--retry-failed")
    assert folder.summary()["scored"] == 30 and set(service.ledger.billed.values()) == {1}


@pytest.mark.slow
def test_a_row_that_waits_is_not_one_whose_answer_was_lost(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["429"] * 40, retry_ms=20_000))
    process = spec(folder, patronus=NEVER_AGAIN).start(environment={"PATRONUS_API_KEY": KEY})
    until = time.monotonic() + 60
    while not service.ledger.requests and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    service.behave(Behaviour())
    folder.applied()
    assert folder.summary()["scored"] == 30 and set(service.ledger.billed.values()) == {1}


def test_errors_that_were_kept_count_at_the_end(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(quota=25))
    spec(folder, patronus=NEVER_AGAIN).apply()
    (store,) = (folder.root / ".evalops").glob("patronus-*.sqlite")
    with contextlib.closing(sqlite3.connect(store)) as database, database:
        database.execute("UPDATE rows SET status = 'error', reason = 'lost_reply' WHERE position < 10")
    service.behave(Behaviour())
    done = folder.apply()
    assert done.code == 1 and "10 of 30 rows ended in an error, more than the allowed share of 30%" in done.err


def test_a_row_that_the_service_refuses_is_an_error_and_tried_again_when_asked(
    folder: Folder, service: PatronusService
) -> None:
    folder.rows([*rows(5), {"question": "q", "answer": "truth=pass " + "long " * 300}])
    service.behave(Behaviour(longest=1000))
    spec(folder).applied()
    assert folder.summary()["error_reasons"] == {"refused": 1} and service.ledger.requests == 6
    assert "body.task_output: the text is too long" in folder.rows_of()[5]["verdict"]["reason"]


@pytest.mark.parametrize(
    ("behaviour", "said"),
    [
        (Behaviour(evaluate_key="other"), "answered 401: Invalid API key"),
        (Behaviour(evaluate=["403"] * 99), "answered 403"),
        (Behaviour(evaluate=["500"] * 999), "ended in an error"),
    ],
)
def test_what_would_fail_every_row_fails_the_job(
    folder: Folder, service: PatronusService, behaviour: Behaviour, said: str
) -> None:
    service.behave(behaviour)
    done = spec(folder).apply()
    assert done.code == 1 and said in done.err and folder.entry()["status"] == "failed"
    assert service.ledger.requests < 200
    service.behave(Behaviour())
    assert folder.actions() == {"tone": "failed"}
    folder.applied("--retry-failed")
    assert folder.summary()["scored"] == 30 and folder.entry()["job"] == "101"
    once(service, rows=30)


def test_a_key_that_is_missing_is_found_before_there_is_an_experiment(
    folder: Folder, service: PatronusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PATRONUS_API_KEY")
    done = spec(folder).apply()
    assert done.code == 1 and "PATRONUS_API_KEY is not set" in done.err and service.experiments == {}
    assert folder.run("validate").code == folder.run("plan").code == 0


@pytest.mark.parametrize(
    ("remote", "said"),
    [
        ({"base_url": "https://other.example.com"}, "may be sent to Patronus only"),
        ({"base_url": "https://other.example.com", "credential": "none"}, "`none` is not in evalops.yaml"),
        (
            {"base_url": "https://other.example.com", "credential": "us"},
            "`us` is not bound to https://other.example.com",
        ),
        ({"base_url": "http://other.example.com", "credential": "us"}, "`us` is not bound to http://other.example.com"),
    ],
)
def test_a_key_goes_to_its_own_service_only(folder: Folder, remote: dict[str, str], said: str) -> None:
    credentials = {"us": {"env": "PATRONUS_API_KEY", "origins": ["https://api.patronus.ai"]}}
    folder.settings(providers={"patronus": remote}, credentials=credentials)
    done = spec(folder).apply()
    assert done.code == 1 and said in done.err, done


@pytest.mark.parametrize("words", [["502+"], ["drop+"], ["drop"], ["500", "drop+"]])
def test_an_experiment_is_made_once(folder: Folder, service: PatronusService, words: list[str]) -> None:
    service.behave(Behaviour(other=words))
    spec(folder).applied()
    assert len(service.experiments) == 1 and folder.summary()["scored"] == 30


# Quotas and limits


def test_a_spent_quota_stops_with_what_there_is_and_goes_on_later(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(quota=12))
    spec(folder)
    spec(folder, "other", evaluators=["judge"])
    done = folder.apply()
    assert done.code == 1
    assert "the monthly quota of Patronus is spent: 12 of 30 rows are done and kept, 18 are to do" in done.err
    assert "evalops apply" in done.err
    assert folder.actions() == {"tone": "resume", "other": "resume"}
    again = folder.apply()
    assert again.code == 1 and "12 of 30" in again.err
    service.behave(Behaviour())
    folder.applied()
    assert folder.summary()["scored"] == folder.summary("other")["scored"] == 30
    assert set(service.ledger.billed.values()) == {1} and len(service.ledger.billed) == 120


def answer(status: int, **headers: str) -> Answer:
    return Answer(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()}, body=b"{}")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry_after": "7"}, 7),
        ({"retry_after_ms": "250"}, 0.25),
        ({"x_ratelimit_rpm_remaining_requests": "0", "date": "Tue, 05 Nov 2024 08:00:48 GMT"}, 12),
        ({"x_ratelimit_rpm_remaining_requests": "0"}, 60),
        ({"x_ratelimit_rpm_remaining_requests": "5"}, 1),
        ({"retry_after": "7", "x_ratelimit_rpm_remaining_requests": "0"}, 7),
        ({"retry_after": "999999"}, call.LONGEST),
        ({}, 1),
    ],
)
def test_a_pause_is_as_long_as_the_service_asks(headers: dict[str, str], seconds: float) -> None:
    assert call._asked_pause(answer(429, **headers)) == seconds


def test_between_attempts_the_waits_get_longer() -> None:
    waits = [call._pause(answer(500), tries) for tries in range(1, 7)]
    assert all(0.75 * most <= wait <= most for wait, most in zip(waits, (0.5, 1, 2, 4, 8, 8), strict=True))
    assert call._pause(answer(503, retry_after="3"), 1) == 3


def busy(pace: Pace, rounds: int, *, is_overloaded: bool = False) -> int:
    """The window after some rounds of calls, each of which is followed by another one at once."""
    under_way = [slot for slot in (pace.acquire() for _ in range(pace.window)) if slot]
    for _ in range(rounds * len(under_way)):
        pace.release(under_way.pop(0), is_overloaded=is_overloaded)
        while len(under_way) < pace.window:
            slot = pace.acquire()
            assert slot
            under_way.append(slot)
    for slot in under_way:
        pace.release(slot, is_overloaded=False)
    return pace.window


def test_the_pace_grows_until_there_is_too_much() -> None:
    pace = Pace(64)
    assert 2 * FIRST_WINDOW <= busy(pace, 1) <= 2 * FIRST_WINDOW + 1
    assert busy(pace, 3) == 64
    slots = [pace.acquire() for _ in range(64)]
    for slot in slots:
        assert slot
        pace.release(slot, is_overloaded=True)
    assert pace.window == 32  # halved once for all that were under way
    assert 33 <= busy(pace, 2) <= 36  # and one call a round from here on
    assert Pace(3).window == 3 and Pace(99).window == FIRST_WINDOW


@pytest.mark.slow
def test_calls_under_way_follow_the_pace(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(latency=0.15))
    folder.rows(rows(120))
    spec(folder, patronus={"num_workers": 20}).applied()
    # One that is answered may still be counted when the next one comes.
    assert FIRST_WINDOW < service.ledger.max_in_flight < 2 * 20
    assert service.ledger.requests == 120


def test_a_pause_holds_for_all_calls() -> None:
    pace = Pace(4)
    began = time.monotonic()
    pace.pause(0.05)
    assert pace.acquire() == 1 and time.monotonic() - began >= 0.05
    assert pace.wait(0.01) and pace.acquire() == 2


def test_a_stop_ends_all_waits() -> None:
    pace = Pace(1)
    assert pace.acquire() == 1
    pace.stop()
    assert pace.acquire() is None and pace.wait(60) is False


# Going on


def kill(folder: Folder, service: PatronusService, after: int) -> None:
    """An apply that is killed once so many more calls were made."""
    goal = service.ledger.requests + after
    process = folder.start(environment={"PATRONUS_API_KEY": KEY})
    until = time.monotonic() + 60
    while service.ledger.requests < goal and process.poll() is None and time.monotonic() < until:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    while service.ledger.in_flight and time.monotonic() < until:
        time.sleep(0.005)


def test_a_killed_apply_goes_on_at_the_first_missing_row(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(latency=0.01, rates={"429": 0.1, "502+": 0.05}, invalid=0.02))
    folder.rows(rows(120))
    spec(folder)
    kill(folder, service, 40)
    assert folder.entry()["status"] == "pending"
    (store,) = (folder.root / ".evalops").glob("patronus-*.sqlite")
    with contextlib.closing(sqlite3.connect(store)) as database:
        (landed,) = database.execute("SELECT count(*) FROM rows").fetchone()
    assert landed >= service.ledger.taken - service.ledger.max_in_flight > 0
    folder.applied()
    assert folder.summary()["rows"] == 120 == folder.summary()["scored"] + folder.summary()["invalid"]
    kept = Counter((each["log_id"], each["evaluator_id"]) for each in service.captured)
    assert set(kept.values()) == {1} and set(service.ledger.billed.values()) == {1}
    assert len(service.experiments) == 1


def test_a_kill_does_not_send_twice_what_cannot_be_looked_up(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(latency=0.01))
    folder.rows(rows(120))
    spec(folder, patronus={"capture": "none", "lost_reply": "error"})
    kill(folder, service, 40)
    folder.applied()
    summary = folder.summary()
    assert set(service.ledger.billed.values()) == {1} and summary["rows"] == 120
    assert summary["error_reasons"] == {"lost_reply": 120 - summary["scored"]} and summary["scored"] >= 120 - 33


@pytest.mark.slow
def test_ctrl_c_lets_calls_end_and_the_next_apply_goes_on(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(latency=0.02))
    folder.rows(rows(120))
    spec(folder, patronus={"capture": "none", "lost_reply": "error"})
    process = folder.start(environment={"PATRONUS_API_KEY": KEY})
    while service.ledger.requests < 30 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "to go on" in err and folder.entry()["status"] == "cancelled"
    asked = service.ledger.requests
    assert asked < 120
    folder.applied()
    assert service.ledger.requests == 120 and folder.summary()["scored"] == 120


def test_candidates_in_columns_are_ranked(folder: Folder, service: PatronusService) -> None:
    folder.rows(
        [
            {"one": f"{number} truth={'pass' if number % 2 else 'fail'}", "two": f"{number} truth=pass"}
            for number in range(20)
        ]
    )
    spec(folder, patronus={"columns": {"task_input": "one"}}, matrix={"model_to_evaluate": ["one", "two"]})
    folder.applied()
    done = folder.run("rank", "tone")
    assert done.code == 0 and done.out.index("two") < done.out.index("one"), done
    assert service.ledger.requests == 40


def test_on_another_machine_what_the_service_keeps_is_not_paid_again(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(quota=12))
    spec(folder)
    assert folder.apply().code == 1
    shutil.rmtree(folder.root / ".evalops")
    service.behave(Behaviour(upgrades={"judge": "judge-large-2030-01-01"}))
    folder.applied()
    once(service, rows=30)
    assert folder.summary()["scored"] == 30 and len(service.experiments) == 1
    assert folder.entry()["pins"]["judge/polite"] == "judge-large-2024-08-08/polite:1"  # as the job began


@pytest.mark.parametrize("more", [{}, {"app": "chat"}])
def test_a_fresh_clone_has_the_rows_that_the_service_keeps(folder: Folder, service: PatronusService, more: Any) -> None:
    service.behave(Behaviour(evaluate=["drop+"], invalid_rows=("a3 ",)))
    spec(folder, patronus={"num_workers": 1, **more}).applied()  # whose first row loses its answer
    there = folder.rows_of()
    shutil.rmtree(folder.root / ".evalops")
    found = folder.rows_of()
    assert [each["verdict"]["value"] for each in found] == [each["verdict"]["value"] for each in there]
    assert [each["evaluators"][-1]["explanation"] for each in found] == [
        each["evaluators"][-1]["explanation"] for each in there
    ]
    assert found[3]["verdict"]["status"] == "error"  # what was no result is not kept
    assert service.ledger.requests == 30


def test_with_an_app_the_job_travels_in_the_tags(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(quota=12))
    spec(folder, patronus={"app": "chat", "project": "support"})
    assert folder.apply().code == 1
    entry = folder.entry()
    mark = f"{entry['fingerprint'][:16]}-1"
    assert entry["job"] == f"app-{mark}" and service.experiments == {}
    assert {
        (each["app"], each["project_name"], each["tags"]["evalops"], "experiment_id" in each)
        for each in service.ledger.seen
    } == {("chat", "support", mark, False)}
    shutil.rmtree(folder.root / ".evalops")
    service.behave(Behaviour())
    folder.applied()
    once(service, rows=30)


def test_a_rerun_is_another_experiment(folder: Folder, service: PatronusService) -> None:
    spec(folder).applied()
    folder.applied("--rerun", "tone", "--reason", "once more")
    assert (folder.entry()["generation"], folder.entry()["job"]) == (2, "102")
    once(service, rows=60)


def test_log_ids_of_the_dataset_are_told_from_those_of_an_earlier_run(folder: Folder, service: PatronusService) -> None:
    folder.rows([{**row, "log": f"log-{number}"} for number, row in enumerate(rows(6))])
    columns = {"task_input": "question", "task_output": "answer", "log_id": "log"}
    spec(folder, patronus={"columns": columns}).applied()
    service.behave(Behaviour(evaluate=["drop"]))
    folder.applied("--rerun", "tone", "--reason", "once more")
    assert service.ledger.requests == 13 and set(service.ledger.billed.values()) == {2}
    assert folder.summary()["scored"] == 6


def test_an_edited_row_is_another_job_and_a_trace_is_none(folder: Folder, service: PatronusService) -> None:
    folder.rows([{**row, "trace": "1"} for row in rows(6)])
    spec(folder, patronus={"columns": {"task_output": "answer", "trace_id": "trace"}}).applied()
    folder.rows([{**row, "trace": "2"} for row in rows(6)])
    assert folder.actions() == {"tone": "noop"}
    spec(
        folder,
        patronus={
            "columns": {"task_output": "answer", "trace_id": "trace"},
            "tags": {"a": "b"},
            "capture": "fails-only",
            "lost_reply": "error",
            "project": "p",
        },
    )
    assert folder.actions() == {"tone": "noop"}
    spec(folder, patronus={"columns": {"task_output": "answer"}}, evaluators=[GRADERS[2], *GRADERS[:2]])
    assert folder.actions() == {"tone": "noop"}
    spec(folder, patronus={"columns": {"task_output": "answer"}}, evaluators=["judge"])
    assert folder.actions() == {"tone": "rerun"}


# Pins


def test_an_upgrade_at_the_service_shows_in_a_refreshed_plan(folder: Folder, service: PatronusService) -> None:
    spec(folder).applied()
    service.behave(Behaviour(upgrades={"toxicity": "toxicity-2030-01-01"}, revisions={"polite": 4}))
    assert folder.actions() == {"tone": "noop"} and folder.applied().err
    (change,) = json.loads(folder.run("plan", "--refresh", "--format", "json").out)["changes"]
    assert (change["action"], change["generation"]) == ("rerun", 2)
    assert (
        "`toxicity` from toxicity-2024-10-27 to toxicity-2030-01-01" in change["reason"]
        and "polite:4" in change["reason"]
    )
    folder.applied("--refresh")
    entry = folder.entry()
    assert entry["generation"] == 2 and entry["pins"]["judge/polite"] == "judge-large-2024-08-08/polite:4"
    assert "toxicity-2030-01-01" in entry["reason"]
    assert folder.actions("--refresh") == {"tone": "noop"}
    assert {each["evaluators"][1]["criteria"] for each in service.ledger.seen[30:]} == {"polite:4"}


def test_what_is_pinned_in_the_spec_stays(folder: Folder, service: PatronusService) -> None:
    spec(folder, evaluators=[{"evaluator": "judge-large-2024-08-08", "criteria": "polite:2"}]).applied()
    service.behave(Behaviour(revisions={"polite": 4}))
    assert folder.actions("--refresh") == {"tone": "noop"}
    assert service.ledger.seen[0]["evaluators"] == [{"evaluator": "judge-large-2024-08-08", "criteria": "polite:2"}]


def test_an_evaluator_that_nobody_knows_is_told_at_its_place(folder: Folder, service: PatronusService) -> None:
    done = spec(folder, evaluators=["judge", "nobody"]).apply()
    assert (
        done.code == 1
        and "tone.yaml:8:3" in done.err
        and "no evaluator `nobody`" in done.err
        and service.experiments == {}
    )


# What a service may say


ASKED = [(Grader("lynx"), Grader("lynx-2024", "patronus:hallucination:2")), (Grader("judge", "a"), Grader("judge-2024", "a:1")), (Grader("judge", "b"), Grader("judge-2024", "b:1"))]  # fmt: skip


def found(*results: Any) -> dict[str, tuple[str, bool | None, float | None]]:
    read = patronus_rows.answered({"results": list(results)}, ASKED)
    return {name: (each.status, each.passed, each.score) for name, each in read.items()}


def result(evaluator: str, criteria: str | None, *, status: str = "success", **inner: Any) -> dict[str, Any]:
    return {
        "evaluator_id": evaluator,
        "criteria": criteria,
        "status": status,
        "evaluation_result": {"evaluator_id": evaluator, **inner},
    }


def test_results_are_matched_by_evaluator_and_criteria_whatever_their_order() -> None:
    one = result("judge-2024", "b", **{"pass": True, "score_raw": 1.0})
    two = result("judge-2024", "a:1", **{"pass": False, "score_raw": 0})
    three = result("lynx-2024", None, **{"pass": None, "score_raw": 0.5})
    assert found(one, two, three) == {
        "judge/b": ("success", True, 1.0),
        "judge/a": ("success", False, 0.0),
        "lynx": ("success", None, 0.5),
    }
    assert found(three, two, one) == found(one, two, three)
    assert found(result("someone-else", "a")) == {} == found(result("judge-2024", "z"))
    assert found(result("lynx", "anything", status="validation_error")) == {"lynx": ("validation_error", None, None)}


@pytest.mark.parametrize("odd", ["yes", 1, [], {}])
def test_a_pass_is_true_or_false_or_nothing(odd: Any) -> None:
    assert found(result("lynx-2024", None, **{"pass": odd, "score_raw": "high"})) == {"lynx": ("success", None, None)}


@pytest.mark.parametrize("body", [None, [], {}, {"results": None}, {"results": "x"}])
def test_what_is_no_answer_is_not_read(body: Any) -> None:
    with pytest.raises(ValueError, match="no results"):
        patronus_rows.answered(body, ASKED)


def test_odd_entries_are_passed_over() -> None:
    odd = [
        None,
        1,
        "x",
        {"status": 5},
        {"evaluator_id": "lynx", "status": "success"},
        {"evaluator_id": "lynx", "status": "success", "evaluation_result": [1]},
    ]
    assert patronus_rows.answered({"results": odd}, ASKED)["lynx"].passed is None
    nan = result(
        "judge-2024", "a", score_raw=float("nan"), additional_info={"confidence_interval": {"lower": float("inf")}}
    )
    read = patronus_rows.answered({"results": [nan]}, ASKED)["judge/a"]
    assert read.score is None and read.interval is None


def test_no_key_is_in_what_is_written(folder: Folder, service: PatronusService) -> None:
    folder.rows([*rows(5), {"question": "q", "answer": "echo truth=pass"}])
    service.behave(Behaviour(echo=True, evaluate=["failed", "422", "500"]))
    done = spec(folder).applied()
    assert KEY not in done.out + done.err
    for path in folder.root.rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes(), path


def long(folder: Folder, service: PatronusService, count: int) -> Done:
    """Three kills, and an apply to the end."""
    service.behave(
        Behaviour(latency=0.002, rates={"429": 0.1, "500": 0.025, "502+": 0.015, "drop+": 0.01}, invalid=0.02)
    )
    folder.rows(rows(count))
    spec(folder)
    for _ in range(3):
        kill(folder, service, count // 5)
    return folder.applied()


@pytest.mark.slow
def test_two_thousand_rows_with_faults_and_three_kills(folder: Folder, service: PatronusService) -> None:
    long(folder, service, 2000)
    summary, kept = folder.summary(), Counter((each["log_id"], each["evaluator_id"]) for each in service.captured)
    assert set(kept.values()) == {1} and set(service.ledger.billed.values()) == {1}
    invalid = sum(count == 2 for count in Counter(log for log, _ in kept).values())  # one evaluator could not judge
    assert (summary["rows"], summary["errors"], summary["invalid"]) == (2000, 0, invalid)
    assert summary["scored"] == 2000 - invalid and 20 < invalid < 65
    assert len(kept) == 3 * 2000 - invalid and len(service.experiments) == 1
    assert summary["label_counts"]["pass"] + summary["label_counts"]["fail"] == summary["scored"]
    asked = (service.ledger.requests, service.ledger.others)
    folder.applied()
    assert (service.ledger.requests, service.ledger.others) == asked
