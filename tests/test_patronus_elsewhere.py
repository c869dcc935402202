"""Results that were made elsewhere: experiments become specs, and results of other providers go to Patronus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import Folder, truths
from model_server import Server, serve
from patronus_api import PatronusAPI
from patronus_project import settled
from patronus_service import KEY, Behaviour, PatronusService


@pytest.fixture(scope="module")
def models() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.fixture
def service() -> Iterator[PatronusService]:
    with PatronusService() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, service: PatronusService, models: Server, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setenv("PATRONUS_API_KEY", KEY)
    made = Folder(tmp_path / "project", models.url).settings(
        providers={"patronus": {"base_url": service.url}, "local": {"down_after": 1.0}}
    )
    return made.rows(truths(12))


def theirs(service: PatronusService, rows: list[dict[str, Any]], *, sample: str | None = None) -> str:
    """An experiment that another client made, as the SDK does: one call an evaluator, sample ids from 1."""
    with PatronusAPI(base_url=service.url, api_key=KEY, max_retries=0) as client:
        project = client.projects.create(name="support").id
        experiment = client.experiments.create(name="Tone: été 1", project_id=project).experiment.id
        for number, row in reversed(list(enumerate(rows, 1))):
            for evaluator in (
                {"evaluator": "judge-large-2024-08-08", "criteria": "polite:3"},
                {"evaluator": "toxicity-2024-10-27"},
            ):
                client.evaluations.evaluate(
                    evaluators=[evaluator], task_output=row["response"], experiment_id=experiment, capture="all",  # type: ignore[list-item]
                    log_id=f"{number}-{evaluator['evaluator']}", dataset_sample_id=row[sample] if sample else str(number),
                )  # fmt: skip
        return experiment


IMPORT = ("import", "--provider", "patronus", "--dataset", "rows.jsonl", "--column", "task_output=response")


@pytest.mark.parametrize("sample", [None, "id"])
def test_an_experiment_becomes_a_spec_and_a_lock(folder: Folder, service: PatronusService, sample: str | None) -> None:
    experiment = theirs(service, truths(12), sample=sample)
    asked = service.ledger.requests
    done = folder.run(*IMPORT, *(("--column", f"dataset_sample_id={sample}") if sample else ()), experiment)
    assert done.code == 0 and "12 of 12 rows have results" in done.out, done
    name = "Tone-t-1"
    entry = folder.entry(name)
    assert entry["job"] == experiment and entry["summary"]["label_counts"] == {"pass": 9, "fail": 3}
    assert entry["pins"] == {
        "judge-large-2024-08-08/polite:3": "judge-large-2024-08-08/polite:3",
        "toxicity-2024-10-27": "toxicity-2024-10-27",
    }
    assert folder.run("validate").code == 0 and folder.actions() == {name: "noop"}
    assert "in step" in folder.applied().err and service.ledger.requests == asked
    rows = folder.rows_of(name)
    assert [each["verdict"]["value"] for each in rows] == [
        {"polite": "pass", "rude": "fail"}[row["gold"]] for row in truths(12)
    ]
    again = folder.run(*IMPORT, experiment)
    assert again.code == 1 and "has the experiment" in again.err
    assert sorted(path.name for path in folder.root.glob("*.yaml")) == [f"{name}.yaml", "evalops.yaml"]


def test_our_own_experiment_is_known_by_the_keys_of_its_rows(
    folder: Folder, service: PatronusService, tmp_path: Path
) -> None:
    spec = {
        "version": 1,
        "name": "tone",
        "type": "classify",
        "provider": "patronus",
        "dataset": "rows.jsonl",
        "evaluators": ["judge"],
        "model_to_evaluate": "response",
        "patronus": {"capture": "all"},
    }
    (folder.root / "tone.yaml").write_text(json.dumps(spec))
    folder.applied()
    other = settled(tmp_path / "other", service).rows(truths(12))
    done = other.run(*IMPORT, folder.entry()["job"])
    assert done.code == 0, done
    assert other.summary("tone")["label_counts"] == folder.summary()["label_counts"]


def test_what_a_service_says_of_an_experiment_is_no_field_of_its_spec(folder: Folder, service: PatronusService) -> None:
    experiment = theirs(service, truths(12))
    service.experiments[experiment]["created_at"] = "2026-01-01\ntags: [theirs]"
    assert folder.run(*IMPORT, experiment).code == 0
    text = (folder.root / "Tone-t-1.yaml").read_text()
    assert text.startswith(f"# Experiment {experiment} at Patronus, made 2026-01-01 tags: [theirs]\nversion: 1\n")
    assert "tags" not in yaml.safe_load(text)


@pytest.mark.parametrize(
    ("rows", "id_", "said"),
    [(truths(12), "999", "no experiment `999`"), (truths(12), "../1", "no experiment"), ([{"response": f"other {n}"} for n in range(60)], None, "most rows of the dataset have no result")],
)  # fmt: skip
def test_what_cannot_be_imported_leaves_nothing(
    folder: Folder, service: PatronusService, rows: Any, id_: str | None, said: str
) -> None:
    experiment = theirs(service, truths(12))
    folder.rows(rows)
    before = sorted(path.name for path in folder.root.iterdir() if path.name != ".evalops")
    done = folder.run(*IMPORT, id_ or experiment)
    assert done.code == 1 and said in done.err, done
    assert sorted(path.name for path in folder.root.iterdir() if path.name != ".evalops") == before


def test_what_all_calls_have_in_common_is_kept(folder: Folder, service: PatronusService) -> None:
    spec = {
        "version": 1, "name": "tone", "type": "classify", "provider": "patronus", "dataset": "rows.jsonl",
        "evaluators": [{"evaluator": "judge", "criteria": "polite", "explain_strategy": "on-fail"}, "toxicity"],
        "model_to_evaluate": "response",
        "patronus": {"capture": "all", "tags": {"team": "support", "run": "1"}, "dataset_id": "d-7"},
    }  # fmt: skip
    (folder.root / "tone.yaml").write_text(json.dumps(spec))
    folder.applied()
    for number, each in enumerate(service.captured):
        each["tags"] = {**each["tags"], "run": str(number % 2)}
        each["additional_info"] = {"confidence_interval": {"strategy": "full-history", "lower": 0.1}}
    toxicity = [each for each in service.captured if each["evaluator_id"].startswith("toxicity")]
    toxicity[0]["explain_strategy"] = "never"
    job = folder.entry()["job"]
    (folder.root / "tone.lock").unlink()
    (folder.root / "tone.yaml").unlink()
    (folder.root / "tone.verdicts.jsonl").unlink()
    shutil.rmtree(folder.root / ".evalops")
    done = folder.run(*IMPORT, job)
    assert done.code == 0, done
    found = yaml.safe_load((folder.root / "tone.yaml").read_text())
    assert found["evaluators"] == [
        {"evaluator": "judge-large-2024-08-08", "criteria": "polite:1", "explain_strategy": "on-fail"},
        {"evaluator": "toxicity-2024-10-27"},
    ]
    assert found["patronus"] == {
        "project_id": found["patronus"]["project_id"], "experiment": "tone", "capture": "all", "tags": {"team": "support"},
        "confidence_interval_strategy": "full-history", "dataset_id": "d-7", "columns": {"task_output": "response"},
    }  # fmt: skip
    assert "warning[import/left-out]" in done.err
    assert "differ in `explain_strategy of toxicity-2024-10-27`, `the tag run`, which a spec says once" in done.err
    assert folder.run("validate").code == 0 and folder.actions() == {"tone": "noop"}


def test_a_fresh_clone_has_the_rows_of_an_experiment_of_others(folder: Folder, service: PatronusService) -> None:
    assert folder.run(*IMPORT, theirs(service, truths(12))).code == 0
    there = [each["verdict"]["value"] for each in folder.rows_of("Tone-t-1")]
    shutil.rmtree(folder.root / ".evalops")
    assert [each["verdict"]["value"] for each in folder.rows_of("Tone-t-1")] == there


@pytest.mark.parametrize(
    ("changes", "code", "said"),
    [
        (("--column", "task_outptu=response"), 1, "no field `task_outptu`"),
        (("--column", "task_input=respones"), 1, "respones"),
        (("--column", "task_output=other"), 64, "names a field twice"),
        (("--column", "task_input="), 64, "FIELD=COLUMN"),
        (("--dataset", "nowhere.jsonl"), 1, "nowhere.jsonl"),
        (("--to", "../outside"), 1, "no folder inside the project"),
        (("--all",), 64, "--all is for Together"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_asked(
    folder: Folder, service: PatronusService, changes: tuple[str, ...], code: int, said: str
) -> None:
    done = folder.run(*IMPORT, *changes, "101")
    assert (done.code, service.ledger.others) == (code, 0) and said in done.err, done
    assert "import.yaml" not in done.err and not (folder.root.parent / "outside").exists()


def test_import_says_what_it_needs(folder: Folder) -> None:
    assert folder.run("import", "--provider", "patronus", "1").code == 64
    assert folder.run("import", "--provider", "patronus", "1", "--dataset", "rows.jsonl", "--column", "x").code == 64
    assert folder.run("import", "--dataset", "rows.jsonl", "eval-1").code == 64
    done = folder.run(
        "import", "--provider", "patronus", "1", "--dataset", "nowhere.jsonl", "--column", "task_output=response"
    )
    assert done.code == 1


# Export


def test_results_of_the_local_engine_go_to_an_experiment_once(folder: Folder, service: PatronusService) -> None:
    folder.spec("tone").applied()
    done = folder.run("export", "tone", "--to-project", "support")
    assert done.code == 0 and "tone: 12 sent" in done.out
    (experiment,) = service.experiments.values()
    assert (experiment["name"], [each["name"] for each in service.projects.values()]) == ("tone", ["support"])
    assert len(service.captured) == 12
    first = next(each for each in service.captured if each["pass"] is False)
    assert (first["evaluator_id"], first["criteria"], first["text_output"], first["experiment_id"]) == (
        "evalops",
        "tone",
        "rude",
        experiment["id"],
    )
    assert first["dataset_sample_id"] and first["explanation"] and first["created_at"] == folder.entry()["finished_at"]
    assert len({each["log_id"] for each in service.captured}) == 12
    assert sum(each["pass"] for each in service.captured) == folder.summary()["label_counts"]["polite"]
    again = folder.run("export", "tone", "--to-project", "support")
    assert "0 sent, 12 were there" in again.out and len(service.captured) == 12 and len(service.experiments) == 1


def test_scores_and_rows_without_a_verdict(folder: Folder, service: PatronusService, models: Server) -> None:
    folder.spec(
        "grade",
        type="score",
        min_score=1,
        max_score=5,
        pass_threshold=4,
        judge={"system_template": "Score {{ response }}"},
    ).applied()
    done = folder.run("export", "grade", "--app", "chat")
    summary = folder.summary("grade")
    assert done.code == 0 and f"{summary['scored']} sent" in done.out
    assert {each["app"] for each in service.captured} == {"chat"} and service.experiments == {}
    assert all(
        1 <= each["score"] <= 5 and each["pass"] == (each["score"] >= 4) and "text_output" not in each
        for each in service.captured
    )


def test_an_export_goes_on_after_a_lost_answer(folder: Folder, service: PatronusService) -> None:
    folder.rows(truths(250)).spec("tone").applied()
    service.behave(Behaviour(batch=["drop+", "502", "ok"]))
    done = folder.run("export", "tone")
    assert done.code == 0 and len(service.captured) == 250 == len({each["log_id"] for each in service.captured}), done


def test_what_cannot_be_exported_is_said(folder: Folder, service: PatronusService) -> None:
    folder.rows([{"question": "q", "first": "one quality=1", "second": "two quality=2"}]).duel("duel").applied()
    assert "compares two responses" in folder.run("export", "duel").err
    assert "no lockfile has the address" in folder.run("export", "nothing").err
    assert folder.run("export", "duel", "--app", "x", "--experiment", "y").code == 64
    assert service.captured == []
