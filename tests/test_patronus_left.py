"""Jobs at Patronus that go on: what is left to pay, how many calls at a time, when to stop, and what is never lost."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import Folder
from patronus_project import at_patronus
from patronus_service import Behaviour, PatronusService

from evalops import api, catalog
from evalops.errors import EvalopsError, Exit
from evalops.lock import Status
from evalops.providers import open_provider
from evalops.providers.base import Job, Progress, Request

NEVER_AGAIN = {"capture": "none", "lost_reply": "error"}
KEPT = {"capture": "all"}


@pytest.fixture
def service() -> Iterator[PatronusService]:
    with PatronusService() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, service: PatronusService, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_patronus(tmp_path / "project", service, monkeypatch).rows(
        {"question": f"q{number}", "answer": f"a{number} truth=pass"} for number in range(30)
    )


def spec(folder: Folder, name: str = "tone", **patronus: Any) -> Folder:
    value = {
        "version": 1,
        "name": name,
        "type": "classify",
        "provider": "patronus",
        "dataset": "rows.jsonl",
        "evaluators": ["judge"],
        "patronus": {"columns": {"task_input": "question", "task_output": "answer"}, **patronus},
    }
    (folder.root / f"{name}.yaml").write_text(yaml.safe_dump(value, sort_keys=False))
    return folder


def interrupted(folder: Folder, service: PatronusService, after: int = 12) -> None:
    """A first apply that ends after so many calls; later ones may make any number."""
    service.behave(Behaviour(quota=after))
    assert folder.apply().code == Exit.PROBLEM
    service.behave(Behaviour())


def planned(folder: Folder, *arguments: str) -> dict[str, Any]:
    """The one change of a plan."""
    done = folder.run("plan", "--format", "json", *arguments)
    assert done.code == 0, done
    (change,) = json.loads(done.out)["changes"]
    found: dict[str, Any] = change
    return found


def money(change: dict[str, Any]) -> tuple[Any, ...]:
    return change["action"], change["money"], change.get("calls_at_least"), change["calls"]


def reopen(folder: Folder) -> None:
    """A lockfile as a kill leaves it, after the last row and before the result."""
    project = folder.project
    with project.apply_lock():
        lock = project.locks()[0]["tone.lock"]
        entry = replace(lock.entries["tone"], status=Status.PENDING, summary=None, gates=(), finished_at=None)
        project.write_lock(lock.put(entry))


# What is left to pay


@pytest.mark.parametrize("patronus", [NEVER_AGAIN, KEPT, {"capture": "fails-only"}, {"capture": "all", "app": "chat"}])
def test_where_the_rows_are_the_rest_is_shown_and_agreed_to(
    folder: Folder, service: PatronusService, patronus: Any
) -> None:
    interrupted(spec(folder, **patronus), service)
    change = planned(folder, "--refresh")
    assert money(change) == ("resume", "paid", None, 18) and change["rows"] == 18
    assert change["reason"].startswith("18 of 30 rows are to be asked; the job ")
    refused = folder.run("apply")
    assert refused.code == 1 and "no terminal to ask for confirmation" in refused.err
    assert service.ledger.requests - service.ledger.answers["quota"] == 12
    folder.applied()
    assert set(service.ledger.billed.values()) == {1} and folder.summary()["scored"] == 30


def test_on_another_machine_what_nobody_kept_is_to_be_paid_again(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **NEVER_AGAIN), service)
    shutil.rmtree(folder.root / ".evalops")
    for change in (planned(folder), planned(folder, "--refresh")):
        assert money(change) == ("resume", "paid", None, 30)
        assert "no result is here" in change["reason"] and "all 30 rows are asked once more" in change["reason"]
    asked = service.ledger.requests
    assert folder.run("apply").code == 1 and service.ledger.requests == asked
    folder.applied()
    assert sum(service.ledger.billed.values()) == 12 + 30


def test_on_another_machine_what_the_service_keeps_is_not_counted(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **KEPT), service)
    shutil.rmtree(folder.root / ".evalops")
    offline = planned(folder)
    assert money(offline) == ("resume", "paid", 0, 30) and "those that Patronus keeps" in offline["reason"]
    assert "0 to 30 calls" in folder.run("plan").out
    assert money(planned(folder, "--refresh")) == ("resume", "paid", None, 18)
    folder.applied()
    assert set(service.ledger.billed.values()) == {1}


def test_a_job_whose_rows_are_all_known_goes_on_for_nothing(folder: Folder, service: PatronusService) -> None:
    spec(folder, **KEPT).applied()
    reopen(folder)
    asked = service.ledger.requests
    assert money(planned(folder)) == ("resume", "free", None, None)
    shutil.rmtree(folder.root / ".evalops")
    assert money(planned(folder, "--refresh")) == ("resume", "free", None, None)
    assert folder.run("apply").code == 0 and service.ledger.requests == asked


def test_a_failed_job_is_tried_again_at_the_price_that_is_shown(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["drop+"] * 12))
    done = spec(folder, **NEVER_AGAIN, num_workers=1).apply()
    lost = service.ledger.requests
    assert done.code == 1 and 10 <= lost <= 12
    said = f"the answers of {lost} rows were lost, and may be billed twice: `--retry-failed` asks once more"
    assert said in done.err and said in folder.entry()["message"]
    assert planned(folder)["action"] == "failed" and said in planned(folder)["reason"]
    change = planned(folder, "--retry-failed")
    assert money(change) == ("resume", "paid", None, 30)
    assert f"{lost} answers were lost, and their calls may be billed twice" in change["reason"]
    refused = folder.run("apply", "--retry-failed")
    assert refused.code == 1 and "no terminal" in refused.err and service.ledger.requests == lost
    service.behave(Behaviour())
    folder.applied("--retry-failed")
    assert service.ledger.requests == lost + 30 and folder.summary()["scored"] == 30


def test_what_was_lost_and_is_kept_is_not_billed_twice(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["403"] * 99))
    done = spec(folder, **KEPT).apply()
    assert done.code == 1 and "billed twice" not in done.err


def test_calls_of_rows_that_are_tried_again_stay_counted(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(evaluate=["422"] * 30))
    assert spec(folder, **KEPT).apply().code == 1
    asked = service.ledger.requests
    settings = {"providers": {"patronus": {"base_url": service.url}}}
    service.behave(Behaviour())
    folder.settings(**settings, budget={"calls": 35}).apply("--retry-failed")
    assert folder.entry()["status"] == "cancelled" and service.ledger.requests == 35
    folder.settings(**settings).applied()
    assert folder.summary()["usage"]["calls"] == service.ledger.requests == asked + 30


def test_a_renamed_job_that_goes_on_is_paid_too(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **KEPT), service)
    (folder.root / "tone.yaml").unlink()
    spec(folder, "tune", **KEPT)
    found = json.loads(folder.run("plan", "--refresh", "--format", "json", "tune").out)["changes"]
    assert [money(each) for each in found] == [("adopt", "paid", None, 18)]
    folder.applied()
    assert set(service.ledger.billed.values()) == {1} and folder.entry("tune")["job"] == "101"


def test_twins_pay_once(folder: Folder, service: PatronusService) -> None:
    spec(folder, "one", **KEPT)
    interrupted(spec(folder, "two", **KEPT), service)
    service.behave(Behaviour(quota=4))
    folder.apply()
    service.behave(Behaviour())
    summary = json.loads(folder.run("plan", "--refresh", "--format", "json").out)["summary"]
    assert summary["paid"]["calls"] == 14
    folder.applied()
    assert set(service.ledger.billed.values()) == {1} and len(service.ledger.billed) == 30


def test_twins_are_denied_together(folder: Folder, service: PatronusService) -> None:
    spec(folder, "one", **NEVER_AGAIN)
    interrupted(spec(folder, "two", **NEVER_AGAIN), service)
    asked = service.ledger.requests
    folder.settings(providers={"patronus": {"base_url": service.url}}, budget={"rows": 17})
    found = json.loads(folder.run("plan", "--refresh", "--format", "json").out)["changes"]
    assert [each["action"] for each in found] == ["denied", "denied"]
    assert folder.apply().code == 1 and service.ledger.requests == asked


def test_a_budget_holds_for_what_is_left(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **NEVER_AGAIN), service)
    settings = {"providers": {"patronus": {"base_url": service.url}}}
    folder.settings(**settings, budget={"calls": 17})
    assert planned(folder)["action"] == "denied" and "18 of 17" in planned(folder)["reason"]
    folder.settings(**settings, budget={"calls": 18})
    assert money(planned(folder)) == ("resume", "paid", None, 18)


def test_a_saved_plan_costs_no_more_elsewhere(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **NEVER_AGAIN), service)
    saved = folder.root / "plan.json"
    assert folder.run("plan", "--out", str(saved)).code == 0
    shutil.rmtree(folder.root / ".evalops")
    asked = service.ledger.requests
    assert folder.run("apply", str(saved)).code == Exit.LOCKED_OR_STALE and service.ledger.requests == asked
    assert folder.run("plan", "--out", str(saved)).code == 0
    assert folder.run("apply", str(saved)).code == 0 and service.ledger.requests == asked + 30


def test_a_plan_with_a_job_that_goes_on_is_made_anew(folder: Folder, service: PatronusService) -> None:
    interrupted(spec(folder, **NEVER_AGAIN), service)
    assert planned(folder)["calls"] == 18
    shutil.rmtree(folder.root / ".evalops")
    assert planned(folder)["calls"] == 30


# How many at a time, and when to stop


def test_so_many_calls_are_under_way(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(latency=0.02))
    spec(folder, **KEPT, num_workers=20).applied("--jobs", "2")
    assert service.ledger.requests == 30 and service.ledger.max_in_flight <= 2 + 1  # one may be answered, and counted


def test_nobody_else_goes_on_with_a_job(folder: Folder, service: PatronusService) -> None:
    done = spec(folder, **KEPT).apply("--no-wait")
    assert done.code == Exit.PROBLEM, done
    assert "apply/no-wait" in done.err and "`tone` cannot be left to Patronus" in done.err
    assert "--timeout 20m" in done.err and "-x tone" in done.err
    assert (service.ledger.requests, service.ledger.others, service.experiments) == (0, 0, {})
    with pytest.raises(EvalopsError, match="cannot be left"):
        api.Project(folder.root).apply(yes=True, timeout=0.0)
    folder.applied()
    assert folder.run("apply", "--no-wait").code == Exit.OK


@pytest.mark.slow
@pytest.mark.parametrize("patronus", [NEVER_AGAIN, KEPT])
def test_after_its_time_an_apply_ends_in_order(folder: Folder, service: PatronusService, patronus: Any) -> None:
    service.behave(Behaviour(latency=0.1))
    done = spec(folder, **patronus, num_workers=2).apply("--timeout", "0.5s")
    assert done.code == Exit.STILL_RUNNING, done
    assert "The time is over for tone" in done.err and "the same command goes on" in done.err
    assert "still running" not in done.err
    so_far = service.ledger.requests
    assert so_far < 30 and service.ledger.in_flight == 0
    assert money(planned(folder)) in [("resume", "paid", None, 30 - so_far), ("resume", "paid", 0, 30 - so_far)]
    service.behave(Behaviour())
    folder.applied("--timeout", "10m")
    assert service.ledger.requests == 30 and set(service.ledger.billed.values()) == {1}
    assert folder.summary()["scored"] == 30


# What is never lost


def test_what_was_answered_is_kept_by_a_stop_at_once(folder: Folder, service: PatronusService) -> None:
    spec(folder, **KEPT, num_workers=4)
    project = folder.project
    (wanted,) = catalog.read(project).wanted
    provider: Any = open_provider("patronus", project)
    try:
        request: Request = provider.prepare(provider.request(*wanted, 1))
        job = provider.submit(request)
        assert isinstance(job, Job)
        with provider.follow([(job, request)]) as following:
            for event in following:
                if isinstance(event, Progress):
                    # Nobody reads what the threads say meanwhile: they answer all that they were handed, and wait.
                    until = time.monotonic() + 30
                    while service.ledger.taken < 8 and time.monotonic() < until:
                        time.sleep(0.005)
                    following.stop(now=True)
        assert 8 <= service.ledger.taken < 30
        assert sum(1 for _ in provider.rows(job.id, request)) == service.ledger.taken
    finally:
        provider.close()
