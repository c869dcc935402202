"""What an apply takes: counted, written down, used by the next plan, and never more than the budget allows."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, duels, truths
from crash_schedules import KEY, write_project
from model_server import Config, Server, serve
from patronus_service import KEY as PATRONUS_KEY
from patronus_service import Behaviour, PatronusService
from together_service import TogetherService

import evalops
from evalops import catalog, cli
from evalops.engine.store import Store
from evalops.errors import EvalopsError
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Job

TODAY = date.today().isoformat()
COUNT = 12
PRICE = {"input": 100.0, "output": 1.0, "as_of": TODAY}  # the rule of thumb knows nothing of our instructions


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> Folder:
    """A project whose judge has a price; one call at a time, so that figures are exact."""
    return Folder(tmp_path, server.url).settings(prices={"judge": PRICE}).rows(truths(COUNT)).spec(judge=ONE)


ONE = {"num_workers": 1}
UNUSABLE = Config(script=("unusable",))  # each prompt's first reply: a row takes two calls, and has no verdict


def usage(folder: Folder, address: str = "tone") -> dict[str, Any]:
    found: dict[str, Any] = folder.summary(address)["usage"]
    return found


def paid(folder: Folder, *arguments: str) -> dict[str, Any]:
    """What the plan expects."""
    found: dict[str, Any] = folder.run("plan", "--format", "json", *arguments).json["summary"]["paid"]
    return found


def cost(found: dict[str, Any], price: dict[str, Any] = PRICE) -> float:
    return float((found["prompt_tokens"] * price["input"] + found["completion_tokens"] * price["output"]) / 1e6)


# --- what was used ---


def test_what_a_job_took_is_in_the_lock_and_told(folder: Folder, server: Server) -> None:
    done = folder.applied()
    found = usage(folder)
    assert (found["calls"], found["kept"]) == (COUNT, 0) and "reason" not in found
    assert found["cost"] == pytest.approx(cost(found)) and found["cost"] > 0
    (average,) = found["averages"].values()
    assert list(found["averages"]) == ["judge"]
    assert average == {key: round(found[key] / COUNT, 1) for key in ("prompt_tokens", "completion_tokens")}
    tokens = found["prompt_tokens"] + found["completion_tokens"]
    took = f"12 calls, {tokens:,} tokens, cost {found['cost']:.4g}"
    assert f"The jobs took {took}.\n" in done.out
    assert took in folder.run("show", "tone").out
    assert "The jobs took" not in folder.apply().out  # nothing ran


def test_replies_known_from_before_cost_nothing_and_are_counted_apart(folder: Folder) -> None:
    folder.applied()
    before = usage(folder)
    rows = truths(COUNT)
    rows[3]["response"] += " once more"
    done = folder.rows(rows).applied()
    found = usage(folder)
    assert (found["calls"], found["kept"]) == (1, COUNT - 1)
    assert 0 < found["cost"] < before["cost"] / 6 and found["cost"] == pytest.approx(cost(found))
    assert "1 call, 11 replies known from before, " in done.out
    # The average is of all replies: whether they were kept says nothing of what they take.
    assert found["averages"]["judge"]["prompt_tokens"] == pytest.approx(
        before["averages"]["judge"]["prompt_tokens"], rel=0.02
    )


def test_calls_of_rows_that_came_to_nothing_are_counted_too(folder: Folder, server: Server) -> None:
    server.config = Config(faults={"401": 1.0})
    assert folder.apply().code == 1
    server.config = UNUSABLE
    folder.applied("--retry-failed")
    # What was refused cost nothing; repairs did.
    assert usage(folder)["calls"] == server.ledger.requests - server.stats()["answers"]["401"] > COUNT


def test_a_job_that_failed_says_what_it_took(folder: Folder, server: Server) -> None:
    folder.settings(prices={"judge": PRICE}, local={"max_error_rate": 0.5})
    for row in (rows := truths(COUNT))[6:]:
        row["response"] = "x" * 5000
    folder.rows(rows)
    server.config = Config(context=3000)
    done = folder.apply("--jobs", "1")
    assert "The jobs took 6 calls, " in done.out and done.code in (0, 1)


@pytest.mark.parametrize(("usage_", "priced"), [(False, True), (True, False), (False, False)])
def test_what_is_not_known_is_null_with_the_reason(folder: Folder, server: Server, usage_: bool, priced: bool) -> None:
    server.config = Config(usage=usage_)
    folder.settings(prices={"judge": PRICE} if priced else {})
    done = folder.applied()
    found = usage(folder)
    assert found["cost"] is None and found["calls"] == COUNT
    assert found["reason"] == ("no price for judge in evalops.yaml" if usage_ else "an endpoint does not count tokens")
    assert (found["prompt_tokens"] is None) == (not usage_)
    if priced:  # then what was expected stands beside it, as what it is
        assert found["estimate"]["calls"] == COUNT and found["estimate"]["cost"] > 0
        assert (
            f"cost about {found['estimate']['cost']:.4g}, an estimate (an endpoint does not count tokens)" in done.out
        )
    else:
        assert "estimate" not in found and f"cost unknown ({found['reason']})" in done.out


@pytest.mark.parametrize("number", ["-5", "1e3", "null", '"7"', "1" + "0" * 40, "true", "[]"])
def test_a_number_of_tokens_that_is_none_is_not_counted(folder: Folder, server: Server, number: str) -> None:
    from model_answers import FAULTS, Answer, answer, verdict

    def lie(asked: Any) -> Answer:
        value = json.loads(answer(asked, verdict(asked)).body)
        value["usage"] = {"prompt_tokens": "@", "completion_tokens": 5}
        return Answer(200, json.dumps(value).replace('"@"', number).encode())

    FAULTS["lie"] = lie
    try:
        server.config = Config(faults={"lie": 1.0})
        folder.applied()
    finally:
        del FAULTS["lie"]
    assert usage(folder)["reason"] == "an endpoint does not count tokens"


def test_models_that_write_and_judge_are_counted_apart(folder: Folder) -> None:
    writer = {"model": "writer", "input_template": "Write about {{ response }}", "max_tokens": 40}
    folder.settings(prices={"judge": PRICE, "writer": {"input": 1.0, "output": 2.0, "as_of": "2026-01-01"}})
    folder.spec(model_to_evaluate=writer, judge=ONE)
    before = paid(folder)
    assert before["basis"] == "rule of thumb" and before["prices_as_of"] == "2026-01-01"
    folder.applied()
    found = usage(folder)["averages"]
    assert set(found) == {"judge", "model_to_evaluate"} and found["judge"] != found["model_to_evaluate"]
    assert usage(folder)["calls"] == 2 * COUNT


def test_the_python_front_has_it_too(folder: Folder) -> None:
    done = evalops.open(folder.root).apply(yes=True)
    assert done.usage["calls"] == COUNT and done.usage["cost"] == pytest.approx(usage(folder)["cost"])
    assert evalops.open(folder.root).apply(yes=True).usage.get("calls") == 0


# --- the next plan ---


def test_the_next_plan_counts_with_the_last_result(folder: Folder) -> None:
    first = paid(folder)
    assert first["basis"] == "rule of thumb" and first["prices_as_of"] == TODAY
    assert "tokens by rule of thumb, cost about " in folder.run("plan").out
    assert f"(prices of {TODAY})" in folder.run("plan").out
    folder.applied()
    found = usage(folder)
    folder.spec(judge={**ONE, "system_template": "Is the reply polite? Well?"})
    second = paid(folder)
    assert second["basis"] == "last result"
    assert second["tokens"] == pytest.approx(found["prompt_tokens"] + found["completion_tokens"], rel=0.01)
    assert second["cost"] == pytest.approx(found["cost"], rel=0.01)
    assert "tokens as in the last results, cost about " in folder.run("plan").out
    # Twice the rows take twice as much.
    folder.rows(truths(2 * COUNT))
    assert paid(folder)["cost"] == pytest.approx(2 * found["cost"], rel=0.01)
    # What is new is estimated, what has run is measured.
    folder.spec("other")
    assert paid(folder)["basis"] == "both" and ", in part as in the last results, " in folder.run("plan").out


def test_both_orders_of_a_comparison_cost_twice(folder: Folder) -> None:
    folder.rows(duels(COUNT)).duel()
    (folder.root / "tone.yaml").unlink()
    folder.applied()
    found = usage(folder, "duel")
    assert found["calls"] + found["kept"] == 2 * COUNT
    folder.rows(duels(COUNT + 1))
    assert paid(folder)["calls"] == 2 * (COUNT + 1)
    average = {key: 2 * (COUNT + 1) * each for key, each in found["averages"]["judge"].items()}
    assert paid(folder)["cost"] == pytest.approx(cost(average), rel=0.01)


def test_an_old_price_is_a_warning_where_it_matters(folder: Folder) -> None:
    old = (date.today() - timedelta(days=366)).isoformat()
    folder.settings(prices={"judge": {**PRICE, "as_of": old}, "other": {**PRICE, "as_of": "2001-01-01"}})
    done = folder.run("plan")
    assert f"warning[prices/old]: the price of `judge` is of {old}, more than a year ago" in done.err
    assert "other" not in done.err and done.code == 0
    folder.applied()
    assert folder.run("plan").err == ""  # nothing is paid for


# --- the budget ---


def stopped(folder: Folder, bound: str) -> str:
    """An apply that the budget stops: what it says."""
    done = folder.apply()
    assert done.code == 1, done
    assert f"error[budget/reached]: `tone` stopped: `{bound}` is reached: " in done.err
    assert f"hint: nothing is lost: raise `{bound}` in evalops.yaml; it goes on with:\n  evalops apply" in done.err
    assert folder.entry()["status"] == "cancelled" and folder.entry()["summary"] is None
    return done.err


def test_an_apply_stops_at_its_calls_and_goes_on_at_the_first_missing_row(folder: Folder, server: Server) -> None:
    server.config = UNUSABLE
    budget = {"calls": 15}
    folder.settings(prices={"judge": PRICE}, budget=budget)
    assert folder.actions() == {"tone": "create"}  # by the estimate it fits
    said = stopped(folder, "budget.calls")
    assert server.ledger.requests == 15
    assert "15 of 15; 7 of 12 rows are done and kept" in said and "evalops.yaml:" in said
    assert "The jobs took 15 calls, " in folder.apply().out  # once more: nothing is asked
    assert server.ledger.requests == 15 and folder.actions() == {"tone": "resume"}
    assert "the job stopped: `budget.calls` is reached: 15 of 15" in folder.run("plan").out
    folder.settings(prices={"judge": PRICE}, budget={"calls": 24})
    folder.applied()
    assert server.ledger.requests == 2 * COUNT and server.stats()["repeats"] == 0
    found = usage(folder)
    assert found["calls"] == 2 * COUNT and found["cost"] == pytest.approx(cost(found))
    assert folder.summary()["invalid"] == COUNT


def test_an_apply_stops_at_its_cost(folder: Folder, server: Server) -> None:
    expected = paid(folder)["cost"]
    folder.applied()
    took = usage(folder)["cost"]
    assert took > 1.5 * expected
    folder.settings(prices={"judge": PRICE}, budget={"cost": expected * 1.01})
    (folder.root / "tone.lock").unlink()
    for path in (folder.root / ".evalops").glob("store*"):
        path.unlink()
    before = server.ledger.requests
    stopped(folder, "budget.cost")
    made = server.ledger.requests - before
    assert 0 < made < COUNT
    # One call at a time: what goes over is the last one at the most.
    assert expected * 1.01 <= made * took / COUNT * 1.05 and (made - 1) * took / COUNT * 0.95 <= expected * 1.01
    folder.settings(prices={"judge": PRICE}, budget={"cost": 2 * took})
    folder.applied()
    assert server.ledger.requests - before == COUNT and usage(folder)["cost"] == pytest.approx(took)


def test_without_counts_of_an_endpoint_the_rule_of_thumb_stops_it(folder: Folder, server: Server) -> None:
    server.config = Config(usage=False)
    folder.settings(prices={"judge": PRICE}, budget={"cost": paid(folder)["cost"] * 1.01})
    stopped(folder, "budget.cost")
    assert 0 < server.ledger.requests < COUNT


def test_no_apply_buys_a_budget_anew_where_an_endpoint_does_not_count(folder: Folder, server: Server) -> None:
    server.config = Config(usage=False)
    folder.settings(prices={"judge": PRICE}, budget={"cost": paid(folder)["cost"] * 1.01})
    stopped(folder, "budget.cost")
    asked = server.ledger.requests
    stopped(folder, "budget.cost")
    assert server.ledger.requests == asked
    folder.settings(prices={"judge": PRICE})
    folder.applied()
    assert server.ledger.requests == COUNT and usage(folder)["prompt_tokens"] is None


@pytest.mark.slow
def test_a_slow_call_that_is_under_way_at_the_bound_is_kept(folder: Folder, server: Server) -> None:
    writer = {"model": "writer", "system_template": "Answer {{ question }}"}
    two: Any = {f"model_{each}": {**writer, "input_template": each} for each in "ab"}
    (folder.root / "tone.yaml").unlink()
    folder.rows(duels(1)).spec("duel", type="compare", judge={"system_template": "{{ question }}?"}, **two)
    server.config = Config(latency_ms=5500)
    project = Project(folder.settings(budget={"calls": 1}).root)
    ((evaluation, identity),) = catalog.read(project).wanted
    with contextlib.closing(open_provider("local", project)) as local:
        request = local.request(evaluation, identity, 1)
        job = local.submit(request)
        assert isinstance(job, Job)
        with local.follow([(job, request)]) as following:
            assert "`budget.calls` is reached" in str(list(following)[-1])
        assert local.usage(job.id, evaluation).calls == server.ledger.requests == 1


@pytest.mark.parametrize("workers", [4, 12])
def test_what_goes_over_are_the_calls_under_way(folder: Folder, server: Server, workers: int) -> None:
    folder.rows(truths(60)).spec(judge={"num_workers": workers})
    server.config = Config(latency_ms=5)
    bound = paid(folder)["cost"] * 1.01
    folder.settings(prices={"judge": PRICE}, budget={"cost": bound})
    stopped(folder, "budget.cost")
    store = Store(folder.root / ".evalops" / "store.sqlite")
    with contextlib.closing(store):
        (found,) = store.usage(folder.entry()["job"]).values()
    assert found.calls == server.ledger.requests < 60
    spent = cost({"prompt_tokens": found.prompt, "completion_tokens": found.completion})
    assert bound <= spent <= bound + workers * (spent / found.calls) * 1.1


def test_calls_are_never_one_too_many_with_many_at_a_time(folder: Folder, server: Server) -> None:
    folder.rows(truths(60)).spec(judge={"num_workers": 16})
    server.config = UNUSABLE
    folder.settings(budget={"calls": 70})
    stopped(folder, "budget.calls")
    assert server.ledger.requests == 70
    folder.settings(budget={"calls": 200})
    folder.applied()
    assert server.ledger.requests == 120 and server.stats()["repeats"] == 0  # replies of rows in flight were kept


def test_both_orders_of_a_comparison_are_kept_where_the_budget_ends_between_them(
    folder: Folder, server: Server
) -> None:
    folder.rows(duels(8)).duel("tone")
    server.config = UNUSABLE
    folder.settings(budget={"calls": 21})
    stopped(folder, "budget.calls")
    assert server.ledger.requests == 21
    folder.settings(budget={"calls": 100})
    folder.applied()
    assert server.stats()["repeats"] == 0


def test_one_evaluation_may_not_take_all(folder: Folder, server: Server) -> None:
    folder.rows(truths(4), "few.jsonl").spec("few", dataset="few.jsonl")
    server.config = UNUSABLE
    folder.settings(budget={"per_evaluation": {"calls": 13}})
    stopped(folder, "budget.per_evaluation.calls")
    assert folder.entry("few")["status"] == "completed" and usage(folder, "few")["calls"] == 8
    folder.settings(budget={"per_evaluation": {"calls": 11, "rows": 4}})
    folder.spec("large")
    assert folder.actions() == {"few": "noop", "tone": "resume", "large": "denied"}
    assert "over `budget.per_evaluation.rows`: 12 of 4" in folder.run("plan").out


def test_what_an_apply_has_no_budget_for_waits(folder: Folder, server: Server) -> None:
    folder.spec("zebra", judge={"system_template": "Is it kind?"})
    server.config = UNUSABLE
    folder.settings(budget={"calls": 30})
    done = folder.apply()
    assert done.code == 1 and server.ledger.requests == 30
    states = {name: folder.entry(name)["status"] for name in ("tone", "zebra")}
    assert "cancelled" in states.values()
    folder.settings(budget={"calls": 48})
    folder.applied()
    assert server.ledger.requests == 48 and server.stats()["repeats"] == 0


def test_what_costs_nothing_needs_no_budget_of_money(folder: Folder) -> None:
    folder.settings(budget={"cost": 0, "calls": COUNT}, prices={"judge": {"input": 0, "output": 0, "as_of": TODAY}})
    folder.spec("recorded", judge={"column": "gold"})
    folder.applied()
    assert (usage(folder)["cost"], usage(folder)["calls"], usage(folder, "recorded")["cost"]) == (0, COUNT, 0)


# --- a service that does not say what a job took ---


@pytest.fixture
def service(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TogetherService]:
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    with TogetherService() as running:
        yield running


@pytest.fixture
def remote(tmp_path: Path, service: TogetherService) -> Path:
    root = tmp_path / "remote"
    root.mkdir()
    settings(root, service)
    return root


def settings(root: Path, service: TogetherService, **more: Any) -> None:
    write_project(
        root, 2,
        settings={
            "providers": {"together": {"base_url": service.url, "credential": "us", "visibility_lag": 0}},
            "credentials": {"us": {"env": "TOGETHER_API_KEY", "origins": [service.url]}},
            "prices": {"Qwen/Qwen3.5-9B": PRICE},
            **more,
        },
    )  # fmt: skip


def entries(root: Path) -> dict[str, Any]:
    return {path.stem: json.loads(path.read_text())["evaluations"][path.stem] for path in root.glob("*.lock")}


def test_where_nobody_counts_the_cost_is_an_estimate_and_called_one(
    remote: Path, service: TogetherService, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["--project", str(remote), "plan", "--format", "json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert cli.run(["--project", str(remote), "apply", "--yes"]) == 0
    said = capsys.readouterr().out
    found = {name: entry["summary"]["usage"] for name, entry in entries(remote).items()}
    for change in expected["changes"]:
        used = found[change["address"]]
        assert (used["calls"], used["cost"]) == (None, None)
        assert used["estimate"] == {key: change[key] for key in ("calls", "tokens", "cost")}
    why = "an estimate (Together does not say what a job took)"
    assert f"The jobs took cost about {expected['summary']['paid']['cost']:.4g}, {why}." in said
    assert cli.run(["--project", str(remote), "show", "s0"]) == 0
    assert why in capsys.readouterr().out


@pytest.mark.parametrize("bound", [{"rows": 6}, {"calls": 6}, {"cost": None}, {"per_evaluation": {"rows": 3}}])
def test_the_budget_acts_before_a_job_is_sent_also_where_the_dataset_grew_since_the_plan(
    remote: Path, service: TogetherService, capsys: pytest.CaptureFixture[str], bound: dict[str, Any]
) -> None:
    assert cli.run(["--project", str(remote), "plan", "--format", "json", "--out", str(remote / "plan.json")]) == 0
    plan = json.loads(capsys.readouterr().out)
    if "cost" in bound:
        bound = {"cost": plan["summary"]["paid"]["cost"]}
    settings(remote, service, budget=bound)
    assert cli.run(["--project", str(remote), "plan", "--detailed-exitcode"]) == 2
    assert "denied" not in capsys.readouterr().out  # it fits
    rows = (remote / "rows.jsonl").read_text()
    (remote / "rows.jsonl").write_text(rows + '{"q": "one more", "a": "a", "id": 9}\n')
    (first,) = bound
    denied = 2 if first == "per_evaluation" else 1
    assert cli.run(["--project", str(remote), "apply", "--yes"]) == 1
    assert capsys.readouterr().err.count(f"over `budget.{first}") == denied
    assert len(service.ledger) == 2 - denied
    # What was agreed to is another plan: nothing of it is sent.
    for agreed in (["--approved", plan["digest"]], [str(remote / "plan.json")]):
        assert cli.run(["--project", str(remote), "apply", "--yes", *agreed]) == 5
    assert len(service.ledger) == 2 - denied


def test_a_dataset_that_changes_between_plan_and_upload_is_not_sent(remote: Path, service: TogetherService) -> None:
    project = Project(remote)
    (wanted, _) = catalog.read(project).wanted
    with contextlib.closing(open_provider("together", project)) as provider:
        request = provider.request(*wanted, 1)
        (remote / "rows.jsonl").write_text('{"q": "/etc/passwd", "a": "a", "id": 9}\n' * 1000)
        with pytest.raises(EvalopsError, match="the dataset changed since the plan was made: nothing of it was sent"):
            provider.prepare(request)
        assert service.asked == {"create": 0, "list": 0, "upload": 0, "read": 0}


# --- a service that is asked row by row ---


@pytest.fixture
def patronus(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Folder, PatronusService]]:
    monkeypatch.setenv("PATRONUS_API_KEY", PATRONUS_KEY)
    with PatronusService() as running:
        folder = Folder(tmp_path / "project", running.url)
        folder.rows({"question": f"q{number}", "answer": f"a{number} truth=pass"} for number in range(30))
        columns = {"task_input": "question", "task_output": "answer"}
        value = {
            "version": 1, "name": "tone", "type": "classify", "provider": "patronus", "dataset": "rows.jsonl",
            "evaluators": ["toxicity"], "patronus": {"capture": "all", "columns": columns},
        }  # fmt: skip
        (folder.root / "tone.yaml").write_text(json.dumps(value))
        yield folder, running


@pytest.mark.parametrize("at_once", ["1", "8"])
def test_calls_to_patronus_are_counted_before_they_are_made(
    patronus: tuple[Folder, PatronusService], at_once: str
) -> None:
    folder, service = patronus
    remote = {"patronus": {"base_url": service.url}}
    folder.settings(providers=remote, budget={"calls": 29})
    assert folder.actions() == {"tone": "denied"}
    # Its answers are lost now and then: then a row takes more than one call.
    service.behave(Behaviour(evaluate=["500"] * 4))
    folder.settings(providers=remote, budget={"calls": 32})
    said = stopped_by(folder, "budget.calls", "--jobs", at_once)
    assert service.ledger.requests == 32 and " of 30 rows are done and kept" in said
    service.behave(Behaviour())
    folder.settings(providers=remote, budget={"calls": 60})
    folder.applied()
    assert folder.summary()["rows"] == folder.summary()["scored"] == 30
    assert set(service.ledger.billed.values()) == {1} and len(service.ledger.billed) == 30


def stopped_by(folder: Folder, bound: str, *arguments: str) -> str:
    done = folder.apply(*arguments)
    assert done.code == 1 and f"error[budget/reached]: `tone` stopped: `{bound}` is reached: " in done.err, done
    assert folder.entry()["status"] == "cancelled"
    return done.err


def test_a_bound_on_money_keeps_patronus_out_since_it_names_no_prices(
    patronus: tuple[Folder, PatronusService],
) -> None:
    folder, service = patronus
    folder.settings(providers={"patronus": {"base_url": service.url}}, budget={"cost": 100})
    assert folder.actions() == {"tone": "denied"}
