"""Apply from end to end: a real project folder, the real command line, a real endpoint that counts what it is asked."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import ROWS, Folder, duels, truths
from model_server import Config, Server, serve

from evalops import apply, planning
from evalops.journal import Journal
from evalops.lock import Lock
from evalops.providers import Providers
from evalops.providers.base import Provider

CANARY = "sk-Canary-0815-4711"


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, server: Server) -> Folder:
    """A project without specs; its dataset has 12 rows."""
    return Folder(tmp_path, server.url).settings().rows(truths(12))


class Calls:
    """How many requests the endpoint has had since the last look."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._seen = 0

    def new(self) -> int:
        before, self._seen = self._seen, self._server.ledger.requests
        return self._seen - before


@pytest.fixture
def calls(server: Server) -> Calls:
    return Calls(server)


def until(reached: Callable[[], bool], seconds: float = 20.0) -> None:
    """Waits for another process."""
    end = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.01)


def without_times(lock: dict[str, Any]) -> Any:
    """Entries without what may differ between two equal runs."""
    volatile = ("created_at", "finished_at", "digest")
    return {
        address: {key: value for key, value in entry.items() if key not in volatile} for address, entry in lock.items()
    }


# From a spec to a lockfile


def test_a_first_apply_writes_result_and_verdicts_and_a_second_does_nothing(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold", thresholds={"accuracy": {"min": 1}})
    done = folder.applied()
    assert "Locks written: tone.lock" in done.out and "tone" in done.out
    entry = folder.entry()
    assert entry["status"] == "completed" and entry["summary"]["job"] == entry["job"]
    assert entry["summary"]["metrics"]["accuracy"]["value"] == 1
    assert entry["summary"]["label_counts"] == {"polite": 9, "rude": 3}
    (gate,) = entry["gates"]
    held = {"metric": "accuracy", "min": 1.0, "on": "estimate", "value": 1.0, "high": 1.0, "verdict": "passed"}
    assert gate == held | {"low": entry["summary"]["metrics"]["accuracy"]["low"]}
    head, *lines = folder.verdicts()
    assert head == {"address": "tone", "job": entry["job"], "rows": 12}
    assert [line[2] for line in lines] == [row["gold"] for row in truths(12)]
    assert calls.new() == 12
    before = (folder.root / "tone.lock").read_bytes()
    assert folder.actions() == {"tone": "noop"}
    assert folder.run("plan", "--detailed-exitcode").code == 0
    folder.applied()
    assert (folder.root / "tone.lock").read_bytes() == before and calls.new() == 0


def test_all_types_together(folder: Folder, calls: Calls) -> None:
    folder.spec().spec("grade", type="score", min_score=1, max_score=5, model_to_evaluate="response")
    folder.rows(duels(6), "duels.jsonl").duel(dataset="duels.jsonl")
    folder.applied()
    assert calls.new() == 12 + 12 + 12
    assert folder.summary("duel")["choice_counts"] == {"A": 3, "B": 1, "Tie": 2}
    assert folder.verdicts("duel")[1][2:] == ["Tie", ["Tie", "Tie"]]
    assert sum(folder.summary("grade")["score_counts"].values()) == 12
    assert folder.actions() == {"tone": "noop", "grade": "noop", "duel": "noop"}


def test_nothing_is_asked_without_a_yes(folder: Folder, calls: Calls) -> None:
    folder.spec()
    done = folder.run("apply")
    assert done.code == 1 and "--yes" in done.err and calls.new() == 0
    assert not (folder.root / "tone.lock").exists()


def test_recorded_verdicts_need_no_endpoint(folder: Folder, calls: Calls) -> None:
    folder.spec(judge={"column": "gold"}, model_to_evaluate=None)
    folder.applied()
    assert calls.new() == 0
    assert folder.summary()["label_counts"] == {"polite": 9, "rude": 3}
    assert folder.summary()["usage"]["cost"] == 0


def test_a_generated_candidate_is_written_then_judged(folder: Folder, calls: Calls) -> None:
    folder.rows([{"question": f"q{n}"} for n in range(5)])
    folder.spec(model_to_evaluate={"model": "writer", "input_template": "{{ question }}"})
    folder.applied()
    assert calls.new() == 10
    assert all(row["outputs"][0].startswith("A written answer") for row in folder.rows_of())
    folder.spec(
        model_to_evaluate={"model": "writer", "input_template": "{{ question }}"}, labels=["polite", "rude", "odd"]
    )
    folder.applied()
    assert calls.new() == 5  # the answers are known, the judge is asked another question


def test_a_matrix_is_one_evaluation_a_combination(folder: Folder, calls: Calls) -> None:
    folder.rows([{"question": f"q{n}"} for n in range(3)])
    folder.spec(
        model_to_evaluate={"model": "writer", "input_template": "{{ question }}"},
        matrix={"model_to_evaluate.temperature": [0, 0.5, 1]},
    )
    folder.applied()
    addresses = set(folder.lock())
    assert len(addresses) == 3 and all(address.startswith("tone[") for address in addresses)
    assert len({entry["job"] for entry in folder.lock().values()}) == 3
    heads = [line for line in folder.verdicts() if isinstance(line, dict)]
    assert {head["address"] for head in heads} == addresses
    calls.new()
    folder.spec(
        model_to_evaluate={"model": "writer", "input_template": "{{ question }}"},
        matrix={"model_to_evaluate.temperature": [1, 0.5]},
    )
    assert sorted(folder.actions().values()) == ["forget", "noop", "noop"]
    folder.applied()
    assert calls.new() == 0 and len(folder.lock()) == 2
    assert {line["address"] for line in folder.verdicts() if isinstance(line, dict)} == set(folder.lock())


def test_more_evaluations_than_run_at_a_time(folder: Folder, calls: Calls) -> None:
    folder.spec(matrix={"judge.max_tokens": list(range(50, 70))})
    folder.applied()
    assert calls.new() == 20 * 12
    assert all(entry["status"] == "completed" for entry in folder.lock().values())


# What costs money and what does not


def test_a_changed_threshold_is_graded_again_for_free(folder: Folder, calls: Calls) -> None:
    folder.spec(thresholds={"pass_percentage": {"min": 70}}).applied()
    calls.new()
    folder.spec(thresholds={"pass_percentage": {"min": 80}, "invalid_rate": {"max": 0}})
    assert folder.actions() == {"tone": "regrade"}
    done = folder.apply()
    assert done.code == 3 and "pass_percentage" in done.err
    assert [gate["verdict"] for gate in folder.entry()["gates"]] == ["failed", "passed"]
    assert calls.new() == 0
    assert folder.apply().code == 3  # in step, and the gate still fails
    folder.spec(thresholds={"pass_percentage": {"max": 80}}).applied()
    assert [gate["verdict"] for gate in folder.entry()["gates"]] == ["passed"]
    folder.spec().applied()
    assert folder.entry()["gates"] == [] and calls.new() == 0


def test_changed_pass_labels_are_graded_again_for_free(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    assert folder.summary()["metrics"]["pass_percentage"]["value"] == 75
    calls.new()
    folder.spec(pass_labels=["rude"]).applied()
    assert folder.summary()["metrics"]["pass_percentage"]["value"] == 25
    assert calls.new() == 0


def test_a_corrected_gold_value_is_graded_again_for_free(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    rows = truths(12)
    rows[1]["gold"] = "rude"
    folder.rows(rows)
    calls.new()
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    assert folder.summary()["metrics"]["accuracy"]["value"] == pytest.approx(11 / 12)
    assert folder.entry()["dataset"]["rows"] == 12
    assert calls.new() == 0 and folder.actions() == {"tone": "noop"}


def test_grading_again_keeps_usage_and_works_from_the_verdicts_file(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    before = folder.summary()
    shutil.rmtree(folder.root / ".evalops")
    calls.new()
    rows = truths(12)
    rows[1]["gold"] = "rude"
    folder.rows(rows).spec(gold="gold", pass_labels=["rude"]).applied()
    after = folder.summary()
    assert after["metrics"]["accuracy"]["value"] == pytest.approx(11 / 12)
    assert after["metrics"]["pass_percentage"]["value"] == 25
    assert (after["usage"], after["job"], after["label_counts"]) == (
        before["usage"],
        before["job"],
        before["label_counts"],
    )
    assert calls.new() == 0 and folder.actions() == {"tone": "noop"}


def test_compares_and_missing_verdicts_are_graded_again_from_the_file_too(folder: Folder, server: Server) -> None:
    server.config = Config(faults={"unusable": 0.4})
    folder.rows([{**row, "gold": "A"} for row in duels(20)], "duels.jsonl").duel(dataset="duels.jsonl").applied()
    before = folder.summary("duel")
    assert before["invalid"] > 0 and before["scored"] > 0
    shutil.rmtree(folder.root / ".evalops")
    folder.duel(dataset="duels.jsonl", gold="gold").applied()
    after = folder.summary("duel")
    same = ("rows", "scored", "invalid", "invalid_reasons", "choice_counts", "ties_by_inconsistency")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["metrics"]["consistency"] == before["metrics"]["consistency"]
    assert after["metrics"]["accuracy_scored"]["value"] == pytest.approx(
        before["choice_counts"]["A"] / before["scored"]
    )


def test_without_rows_and_verdicts_it_says_that_it_cannot_grade(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    shutil.rmtree(folder.root / ".evalops")
    (folder.root / "tone.verdicts.jsonl").unlink()
    calls.new()
    before = folder.entry()
    folder.spec(gold="gold", pass_labels=["rude"])
    done = folder.apply()
    assert done.code == 1 and "cannot be graded again" in done.err and "--rerun" in done.err
    assert folder.entry() == before and calls.new() == 0


@pytest.mark.parametrize(
    "line",
    ["{", '["k", 1]', '["k", 1, null, "odd", "x"]', "7", '{"address": "tone"}', '["k", 1, {"a": 1}]', '["k",1,"kind"]'],
)
def test_a_broken_verdicts_file_is_named_and_not_believed(folder: Folder, line: str) -> None:
    folder.spec(gold="gold").applied()
    shutil.rmtree(folder.root / ".evalops")
    file = folder.root / "tone.verdicts.jsonl"
    lines = file.read_text().splitlines()
    lines[3] = line
    file.write_text("\n".join(lines) + "\n")
    folder.spec(gold="gold", pass_labels=["rude"])
    done = folder.apply()
    assert done.code == 1 and "tone.verdicts.jsonl" in done.err and "cannot be graded again" in done.err


def test_a_score_that_is_no_number_in_a_verdicts_file_is_not_believed(folder: Folder) -> None:
    fields: dict[str, Any] = {"type": "score", "min_score": 1, "max_score": 5, "model_to_evaluate": "response"}
    folder.spec("grade", **fields).applied()
    shutil.rmtree(folder.root / ".evalops")
    file = folder.root / "grade.verdicts.jsonl"
    lines = file.read_text().splitlines()
    lines[1] = re.sub(r",[\d.]+\]$", ',"good"]', lines[1])
    file.write_text("\n".join(lines) + "\n")
    folder.spec("grade", **fields, pass_threshold=3)
    assert folder.apply().code == 1


def test_a_renamed_evaluation_is_adopted_for_free(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    before = folder.entry()
    calls.new()
    (folder.root / "tone.yaml").unlink()
    folder.spec("manners", description="moved", tags=["new"])
    assert folder.actions() == {"manners": "adopt", "tone": "forget"}
    folder.applied()
    assert calls.new() == 0
    assert not (folder.root / "tone.lock").exists() and not (folder.root / "tone.verdicts.jsonl").exists()
    assert folder.verdicts("manners")[0]["address"] == "manners" and len(folder.verdicts("manners")) == 13
    assert folder.summary("manners") == before["summary"]
    assert folder.actions() == {"manners": "noop"}


def test_a_rename_with_another_grade_is_graded_again(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    shutil.rmtree(folder.root / ".evalops")
    calls.new()
    (folder.root / "tone.yaml").unlink()
    folder.spec("manners", pass_labels=["rude"], thresholds={"pass_percentage": {"min": 20}}).applied()
    assert folder.summary("manners")["metrics"]["pass_percentage"]["value"] == 25
    assert calls.new() == 0


def test_an_edited_template_runs_again(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    calls.new()
    folder.spec(judge={"system_template": "Is it nice?"})
    done = folder.run("plan", "--format", "json")
    (change,) = json.loads(done.out)["changes"]
    assert (change["action"], change["calls"]) == ("rerun", 12)
    assert [field["name"] for field in change["fields"]] == ["judge.system_template"]
    assert re.fullmatch(r"tone\.yaml:\d+:\d+", change["fields"][0]["mark"])
    first = folder.entry()
    folder.applied()
    assert calls.new() == 12 and folder.entry()["fingerprint"] != first["fingerprint"]
    folder.spec().applied()  # and back: the job is still known
    assert calls.new() == 0 and folder.entry()["job"] == first["job"] and folder.summary() == first["summary"]


@pytest.mark.parametrize("refuse", [(), ("json_schema",), ("json_schema", "json_object")])
def test_one_edited_row_costs_its_own_calls(
    folder: Folder, server: Server, calls: Calls, refuse: tuple[str, ...]
) -> None:
    server.config = Config(refuse=refuse)
    folder.rows(duels(10), "duels.jsonl").spec().duel(dataset="duels.jsonl").applied()
    calls.new()
    rows = truths(12)
    rows[5]["response"] = "an edited reply truth=rude"
    folder.rows(rows).applied()
    assert calls.new() == 1  # what the endpoint can do is known by then
    assert folder.summary()["label_counts"] == {"polite": 8, "rude": 4}
    again = duels(10)
    again[2]["first"] = "one quality=9"
    folder.rows(again, "duels.jsonl").applied()
    assert calls.new() == 2


def test_added_and_removed_rows_cost_their_own_calls(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    calls.new()
    folder.rows(truths(15)).applied()
    assert calls.new() == 3
    folder.rows(truths(15)[3:]).applied()
    assert calls.new() == 0 and folder.summary()["rows"] == 12


def test_a_column_that_is_not_used_costs_nothing(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    calls.new()
    folder.rows([{**row, "note": "new"} for row in truths(12)])
    assert folder.actions()["tone"] in ("noop", "regrade")
    folder.applied()
    assert calls.new() == 0


def test_the_same_work_is_paid_for_once(folder: Folder, calls: Calls) -> None:
    folder.spec("one").spec("two", tags=["copy"], pass_labels=["rude"])
    assert sorted(folder.actions().values()) == ["adopt", "create"]
    folder.applied()
    assert calls.new() == 12
    one, two = folder.entry("one"), folder.entry("two")
    assert one["job"] == two["job"] and folder.actions() == {"one": "noop", "two": "noop"}
    assert one["summary"]["metrics"]["pass_percentage"]["value"] == 75
    assert two["summary"]["metrics"]["pass_percentage"]["value"] == 25
    assert len(folder.verdicts("two")) == 13


def test_a_rerun_asks_anew_and_records_why(folder: Folder, calls: Calls) -> None:
    folder.spec().applied()
    first = folder.entry()
    assert folder.apply("--rerun", "tone").code == 64
    calls.new()
    folder.applied("--rerun", "tone", "--reason", "the endpoint was upgraded")
    second = folder.entry()
    assert calls.new() == 12
    assert (second["generation"], second["reason"]) == (2, "the endpoint was upgraded")
    assert second["fingerprint"] == first["fingerprint"] and second["job"] != first["job"]
    assert folder.actions() == {"tone": "noop"}
    folder.applied()
    assert calls.new() == 0


def test_a_spec_that_is_gone_is_forgotten(folder: Folder) -> None:
    folder.spec("one").spec("two", labels=["polite", "rude", "odd"]).applied()
    (folder.root / "two.yaml").unlink()
    assert folder.actions() == {"one": "noop", "two": "forget"}
    folder.applied()
    assert not (folder.root / "two.lock").exists() and not (folder.root / "two.verdicts.jsonl").exists()
    assert folder.actions() == {"one": "noop"}


def test_only_what_is_selected_is_touched(folder: Folder, calls: Calls) -> None:
    folder.spec("one", tags=["nightly"]).spec("two", labels=["polite", "rude", "odd"])
    folder.applied("tag:nightly")
    assert calls.new() == 12 and not (folder.root / "two.lock").exists()
    folder.applied("-x", "one")
    assert calls.new() == 12 and folder.entry("two")["status"] == "completed"


# What is lost can be found again


def test_without_the_locks_the_store_answers(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    before = folder.lock()
    calls.new()
    (folder.root / "tone.lock").unlink()
    (folder.root / "tone.verdicts.jsonl").unlink()
    done = folder.applied()
    assert "adopt" in done.err and calls.new() == 0
    assert without_times(folder.lock()) == without_times(before)
    assert len(folder.verdicts()) == 13 and folder.actions() == {"tone": "noop"}


def test_a_finished_job_is_adopted_without_its_key(
    folder: Folder, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TONE_KEY", "secret")
    origin = folder.url.removesuffix("/v1")
    folder.settings(
        models={"judge": {"base_url": folder.url, "credential": "tone"}},
        credentials={"tone": {"env": "TONE_KEY", "origins": [origin]}},
    )
    folder.spec().applied()
    calls.new()
    (folder.root / "tone.lock").unlink()
    monkeypatch.delenv("TONE_KEY")
    folder.applied()
    assert calls.new() == 0 and folder.actions() == {"tone": "noop"}


def test_without_locks_and_state_all_is_made_again_with_the_same_identity(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    before = folder.lock()
    calls.new()
    (folder.root / "tone.lock").unlink()
    shutil.rmtree(folder.root / ".evalops")
    folder.applied()
    assert calls.new() == 12
    assert without_times(folder.lock()) == without_times(before)


def test_an_open_job_whose_store_is_gone_is_not_run_again_by_itself(
    folder: Folder, server: Server, calls: Calls
) -> None:
    server.config = Config(key="another")
    folder.spec()
    assert folder.apply().code == 1
    shutil.rmtree(folder.root / ".evalops")
    server.config = Config()
    calls.new()
    done = folder.apply()
    assert done.code == 1 and calls.new() == 0
    folder.applied("--retry-failed")
    assert calls.new() == 12


# Failures


def test_a_failed_job_waits_for_a_word(folder: Folder, server: Server, calls: Calls) -> None:
    server.config = Config(key="another")
    folder.spec()
    done = folder.apply()
    assert done.code == 1 and done.err.count("refuses the key") + done.err.count("wants a key") >= 1
    assert folder.entry()["status"] == "failed" and "401" in folder.entry()["message"]
    server.config = Config()
    calls.new()
    assert folder.actions() == {"tone": "failed"}
    assert folder.apply().code == 1 and calls.new() == 0
    folder.applied("--retry-failed")
    assert calls.new() == 12 and folder.entry()["status"] == "completed" and "message" not in folder.entry()


def test_a_failed_job_without_its_lock_is_not_run_again_by_itself(folder: Folder, server: Server, calls: Calls) -> None:
    server.config = Config(key="another")
    folder.spec()
    assert folder.apply().code == 1
    (folder.root / "tone.lock").unlink()
    server.config = Config()
    calls.new()
    done = folder.apply()
    assert done.code == 1 and calls.new() == 0
    assert folder.entry()["status"] == "failed" and "401" in folder.entry()["message"]


def test_the_twin_of_a_failed_job_is_not_run_by_itself(folder: Folder, server: Server, calls: Calls) -> None:
    server.config = Config(key="another")
    folder.spec("one").spec("two")
    assert folder.apply().code == 1
    server.config = Config()
    calls.new()
    assert folder.apply().code == 1 and calls.new() == 0
    folder.applied("--retry-failed")
    assert calls.new() == 12
    assert folder.entry("one")["job"] == folder.entry("two")["job"]


def test_twins_whose_locks_are_gone_both_get_their_result(folder: Folder, calls: Calls) -> None:
    folder.spec("one").spec("two").applied()
    for name in ("one", "two"):
        (folder.root / f"{name}.lock").unlink()
    calls.new()
    folder.applied()
    assert calls.new() == 0
    assert folder.entry("one")["status"] == folder.entry("two")["status"] == "completed"
    assert folder.actions() == {"one": "noop", "two": "noop"}


def test_twins_are_resumed_together(folder: Folder, server: Server) -> None:
    server.config = Config(latency_ms=40)
    folder.rows(truths(60)).spec("one", judge={"num_workers": 4}).spec("two", judge={"num_workers": 4})
    process = folder.start()
    until(lambda: server.ledger.requests >= 8)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    (folder.root / "one.lock").unlink()
    server.config = Config()
    folder.applied()
    assert server.ledger.requests == 60
    assert folder.entry("one")["status"] == folder.entry("two")["status"] == "completed"


def test_a_result_that_could_not_be_adopted_is_not_forgotten(folder: Folder) -> None:
    folder.spec(gold="gold").applied()
    shutil.rmtree(folder.root / ".evalops")
    (folder.root / "tone.verdicts.jsonl").unlink()
    before = folder.entry()
    (folder.root / "tone.yaml").unlink()
    folder.spec("manners", gold="gold", pass_labels=["rude"])
    assert folder.apply().code == 1
    assert folder.entry() == before and not (folder.root / "manners.lock").exists()


def test_a_verdicts_file_that_lacks_rows_is_a_problem_of_its_evaluation_alone(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold").applied()
    shutil.rmtree(folder.root / ".evalops")
    file = folder.root / "tone.verdicts.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))
    before = folder.entry()
    calls.new()
    folder.spec(gold="gold", pass_labels=["rude"]).spec("zebra", labels=["polite", "rude", "odd"])
    done = folder.apply()
    assert done.code == 1 and "from row 11 on" in done.err
    assert folder.entry() == before
    assert folder.entry("zebra")["status"] == "completed" and calls.new() == 12


class Watched:
    """The local provider, with something that happens just before it does `what`."""

    def __init__(self, provider: Provider, what: str, then: Callable[[], object]) -> None:
        self._provider, self._what, self._then = provider, what, then

    def __getattr__(self, name: str) -> Any:
        if name == self._what:
            self._then()
        return getattr(self._provider, name)


def carry_out(folder: Folder, what: str, then: Callable[[], object]) -> apply.Applied:
    """An apply in which something happens just before the provider does `what`."""
    providers = Providers(folder.project)
    journal = Journal.open(folder.project.state / planning.JOURNAL)
    once = planning.recover(folder.project, providers, journal)
    planned = planning.make(folder.project, providers=providers, once=once)
    watched: Any = {name: Watched(each, what, then) for name, each in providers.items()}
    try:
        return apply.carry_out(folder.project, planned.plan, planned.locks, watched, lambda address, event: None, once)
    finally:
        journal.close()
        providers.close()


def test_a_dataset_that_changes_before_it_is_graded_leaves_the_job_open(folder: Folder, calls: Calls) -> None:
    folder.spec(gold="gold")
    applied = carry_out(folder, "usage", lambda: folder.rows(truths(5)))
    assert [each.code for each in applied.diagnostics] == ["result/rows"]
    assert folder.entry()["status"] == "pending"
    folder.rows(truths(12)).applied()
    assert folder.summary()["metrics"]["accuracy"]["value"] == 1 and calls.new() == 12


def test_an_interrupt_before_an_adoption_forgets_nothing(folder: Folder, calls: Calls) -> None:
    folder.spec("tone").applied()
    calls.new()
    (folder.root / "tone.yaml").unlink()
    folder.spec("manners").spec("first", labels=["polite", "rude", "odd"])
    assert carry_out(folder, "submit", lambda: signal.raise_signal(signal.SIGINT)).interrupted
    shutil.rmtree(folder.root / ".evalops")
    assert folder.actions()["manners"] == "adopt"
    assert folder.apply("manners").code == 0 and calls.new() == 0


def test_a_failure_keeps_the_last_result(folder: Folder, server: Server) -> None:
    folder.spec(thresholds={"pass_percentage": {"min": 50}}).applied()
    before = folder.summary()
    server.config = Config(key="another")
    folder.spec(judge={"system_template": "Is it nice?"}, thresholds={"pass_percentage": {"min": 50}})
    assert folder.apply().code == 1
    entry = folder.entry()
    assert entry["status"] == "failed" and entry["summary"] == before
    assert entry["summary"]["job"] != entry["job"]


def test_one_failure_does_not_keep_the_others_from_their_result(folder: Folder, server: Server) -> None:
    with serve(Config(key="another")) as other:
        models = {"judge": {"base_url": server.url}, "broken": {"base_url": other.url}}
        folder.settings(models=models).spec("one").spec("two", judge={"model": "broken"})
        assert folder.apply().code == 1
    assert folder.entry("one")["status"] == "completed" and folder.entry("two")["status"] == "failed"


def test_a_dataset_that_changes_while_the_job_runs_fails_it(folder: Folder, server: Server, calls: Calls) -> None:
    rows = [{**row, "response": "long " * 1000 + row["response"]} for row in truths(60)]
    server.config = Config(latency_ms=40)
    folder.rows(rows).spec(judge={"num_workers": 4})
    process = folder.start()
    until(lambda: server.ledger.requests >= 8)
    changed = [dict(row) for row in rows]
    changed[-1]["response"] = "edited truth=rude"
    folder.rows(changed)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 1, (out, err)
    # In the moment in which it is written anew, its last row is half a line.
    assert re.search("the dataset changed while the job ran|is not JSON", folder.entry()["message"])
    server.config = Config()
    calls.new()
    folder.applied()  # other rows, another job, and nearly all of it is known
    assert calls.new() <= 60 and folder.entry()["status"] == "completed"
    folder.rows(rows)
    assert folder.apply().code == 1 and folder.entry()["status"] == "failed"
    folder.applied("--retry-failed")
    assert [row["verdict"]["value"] for row in folder.rows_of()] == [row["gold"] for row in rows]


# Signals and locks


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_is_done_and_the_same_command_goes_on(
    folder: Folder, server: Server, calls: Calls, number: signal.Signals
) -> None:
    server.config = Config(latency_ms=40)
    rows = truths(150)
    folder.rows(rows).spec(judge={"num_workers": 4})
    process = folder.start()
    until(lambda: server.ledger.requests >= 12)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, (out, err)
    assert err.rstrip().endswith(" apply") and "Traceback" not in err
    assert folder.entry()["status"] in ("cancelled", "pending")
    done = server.ledger.requests
    assert 12 <= done < 150
    server.config = Config()
    assert folder.actions() == {"tone": "resume"}
    folder.applied()
    assert server.ledger.requests == 150 and server.stats()["repeats"] == 0
    assert folder.summary()["scored"] == 150


@pytest.mark.slow
def test_a_second_signal_stops_at_once(folder: Folder, server: Server) -> None:
    server.config = Config(faults={"hang": 1.0})
    folder.spec()
    process = folder.start()
    until(lambda: server.ledger.requests >= 12)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)  # what hangs is given time to answer
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130 and time.monotonic() - started < 4, (out, err)
    server.config = Config()
    folder.applied()
    assert folder.summary()["scored"] == 12


@pytest.mark.slow
def test_a_hangup_that_is_ignored_stays_ignored(folder: Folder, server: Server) -> None:
    server.config = Config(latency_ms=40)
    folder.rows(truths(40)).spec(judge={"num_workers": 4})
    process = folder.start(prefix=("nohup",))
    until(lambda: server.ledger.requests >= 8)
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, (out, err)


def test_one_apply_at_a_time_and_the_other_names_it(folder: Folder, server: Server) -> None:
    server.config = Config(faults={"hang": 1.0})
    folder.spec()
    process = folder.start()
    until(lambda: server.ledger.requests >= 1)
    done = folder.apply()  # the other one has no end
    assert done.code == 5 and str(process.pid) in done.err
    assert folder.run("plan").code == 0  # only apply waits for apply
    process.kill()
    process.communicate(timeout=30)
    server.config = Config()
    folder.applied()


# Secrets


def leaks(root: Path) -> list[Path]:
    """Files with the canary in any form that a careless endpoint could echo."""
    forms = [CANARY.encode(), CANARY.encode().hex().encode()]
    files = [path for path in root.rglob("*") if path.is_file()]
    return [path for path in files if any(form in path.read_bytes() for form in forms)]


@pytest.mark.parametrize("script", [(), ("echo",) * 12, ("ok", "echo")])
def test_a_key_reaches_the_header_and_nothing_else(
    folder: Folder, server: Server, monkeypatch: pytest.MonkeyPatch, script: tuple[str, ...]
) -> None:
    monkeypatch.setenv("TONE_KEY", CANARY)
    server.config = Config(script=script, key=CANARY)
    origin = server.url.removesuffix("/v1")
    folder.settings(
        local={"row_timeout": 0.3},
        models={"judge": {"base_url": server.url, "credential": "tone"}},
        credentials={"tone": {"env": "TONE_KEY", "origins": [origin]}},
    ).spec()
    outputs = [
        folder.apply(),
        folder.apply(),
        folder.run("status"),
        folder.run("plan", "-v"),
        folder.run("show", "tone"),
    ]
    outputs += [folder.run("rows", "tone"), folder.run("show", "tone", "--format", "json")]
    assert all(seen.header("Authorization") == f"Bearer {CANARY}" for seen in server.seen)
    assert server.seen and all(CANARY.encode() not in seen.body for seen in server.seen)
    assert not any(CANARY in text for done in outputs for text in (done.out, done.err))
    assert leaks(folder.root) == []
    if script[:1] == ("echo",):
        assert outputs[0].code == 1 and "***" in outputs[0].err


def test_a_missing_key_is_named_before_anything_is_sent(
    folder: Folder, server: Server, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TONE_KEY", raising=False)
    origin = server.url.removesuffix("/v1")
    folder.settings(
        models={"judge": {"base_url": server.url, "credential": "tone"}},
        credentials={"tone": {"env": "TONE_KEY", "origins": [origin]}},
    ).spec()
    done = folder.apply()
    assert done.code == 1 and "TONE_KEY" in done.err and calls.new() == 0
    assert not (folder.root / "tone.lock").exists()


# What the model says is only text


@pytest.mark.parametrize(
    "reply",
    [
        '{"reason": "\\ud800", "label": "polite"}',
        '{"reason": "\\u0000\\u001b[2J", "label": "polite"}',
        "\ud800 label: polite",
    ],
)
def test_no_reply_breaks_an_apply(folder: Folder, server: Server, reply: str) -> None:
    # The server answers with a word of the grammar it is given, here: of the labels it is configured with.
    server.config = Config(refuse=("json_schema", "json_object"), labels=(reply, reply))
    folder.spec(judge={"reason": "none"})
    done = folder.apply()
    assert done.code == 0 and "\x1b" not in done.out + done.err
    assert folder.run("show", "tone").code == 0
    assert "\x1b" not in folder.run("rows", "tone", "--format", "table").out


# The lockfile and the disk


def test_a_lock_that_cannot_be_written_loses_nothing(folder: Folder, calls: Calls) -> None:
    folder.spec()
    (folder.root / "tone.lock").mkdir()  # nothing can be put in its place
    (folder.root / "tone.lock" / "x").write_text("")
    done = folder.apply()
    assert done.code == 1 and "tone.lock" in done.err and "Traceback" not in done.err
    shutil.rmtree(folder.root / "tone.lock")
    folder.applied()
    assert folder.summary()["scored"] == 12


def test_a_full_disk_ends_with_a_clear_error_and_the_rest_is_done_later(tmp_path: Path, server: Server) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(small)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("this user may not mount a small disk")
    try:
        server.config = Config(latency_ms=5)
        folder = Folder(small, server.url).settings().rows(truths(600)).spec(judge={"num_workers": 8})
        done = folder.apply()
        assert done.code == 1 and "Traceback" not in done.err
        assert "full" in done.err, done.err
        entry = folder.lock().get("tone") if (small / "tone.lock").exists() else None
        assert entry is None or entry["status"] == "pending"
        subprocess.run(["mount", "-o", "remount,size=50m", str(small)], check=True)
        asked = server.ledger.requests
        folder.applied()
        assert folder.summary()["scored"] == 600
        assert server.ledger.requests < asked + 600  # what was committed was not asked again
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_state_of_another_is_refused(folder: Folder) -> None:
    folder.spec().applied()
    for arguments in (["init", "-q"], ["add", "-f", ".evalops"]):
        subprocess.run(["git", *arguments], cwd=folder.root, check=True)
    done = folder.apply()
    assert done.code == 1 and "git tracks files below `.evalops/`" in done.err


def test_a_verdicts_file_that_grows_too_large_is_not_written(folder: Folder) -> None:
    folder.settings(verdicts={"max_bytes": 200}).spec().applied()
    assert not (folder.root / "tone.verdicts.jsonl").exists()
    assert folder.summary()["scored"] == 12


def test_an_unknown_key_of_a_newer_writer_stays_in_the_lock(folder: Folder) -> None:
    folder.spec().applied()
    project = folder.project
    locks, _ = project.locks()
    lock = locks["tone.lock"]
    project.write_lock(Lock(path=lock.path, entries=lock.entries, unknown={"written_by": "newer"}))
    folder.spec(thresholds={"pass_percentage": {"min": 1}}).applied()
    assert json.loads((folder.root / "tone.lock").read_text())["written_by"] == "newer"
    assert (folder.root / ROWS).exists()
