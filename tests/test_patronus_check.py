"""`evalops check --remote` over lockfiles of Patronus: what the service keeps bears them out, or does not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder
from command import Done
from patronus_project import at_patronus
from patronus_service import Behaviour, PatronusService
from test_patronus_elsewhere import IMPORT, theirs

from evalops.errors import Exit


@pytest.fixture
def service() -> Iterator[PatronusService]:
    with PatronusService() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, service: PatronusService, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_patronus(tmp_path / "project", service, monkeypatch).rows(
        {"response": f"a{number} truth={'fail' if number % 4 == 0 else 'pass'}"} for number in range(20)
    )


def spec(folder: Folder, **patronus: Any) -> Folder:
    value = {
        "version": 1, "name": "tone", "type": "classify", "provider": "patronus", "dataset": "rows.jsonl",
        "evaluators": ["judge", "toxicity"], "model_to_evaluate": "response", "patronus": patronus,
    }  # fmt: skip
    (folder.root / "tone.yaml").write_text(json.dumps(value))
    return folder


def checked(folder: Folder, service: PatronusService) -> Done:
    """What the check says on a machine that has the repository only; it evaluates nothing."""
    shutil.rmtree(folder.root / ".evalops", ignore_errors=True)
    asked = service.ledger.requests
    done = folder.run("check", "--remote")
    assert service.ledger.requests == asked and not list((folder.root / ".evalops").glob("patronus*"))
    return done


def forge(folder: Folder, **changes: Any) -> None:
    """Another lock entry, with the digest that is right for it."""
    project = folder.project
    with project.apply_lock():
        lock = project.locks()[0]["tone.lock"]
        project.write_lock(lock.put(replace(lock.entries["tone"], **changes)))


def without_verdicts(folder: Folder) -> None:
    (folder.root / "tone.verdicts.jsonl").unlink()


@pytest.mark.parametrize("more", [{}, {"app": "chat"}])
def test_what_is_kept_bears_the_lockfile_out(folder: Folder, service: PatronusService, more: Any) -> None:
    spec(folder, capture="all", **more).applied()
    without_verdicts(folder)
    before = service.ledger.others
    assert folder.run("check").code == Exit.OK and service.ledger.others == before
    done = checked(folder, service)
    assert done.code == Exit.OK and "1 evaluation: 1 hold." in done.out and done.err == "", done
    assert service.ledger.others > before


def test_a_result_that_is_made_up_is_found(folder: Folder, service: PatronusService) -> None:
    spec(folder, capture="all").applied()
    without_verdicts(folder)
    summary = json.loads(json.dumps(folder.summary()))
    summary["label_counts"] = {"pass": 20, "fail": 0}
    summary["metrics"]["pass_percentage"]["value"] = 100.0
    forge(folder, summary=summary)
    assert folder.run("check").code == Exit.OK
    done = checked(folder, service)
    assert done.code == Exit.PROBLEM and "check/untrue" in done.out
    assert "the rows of its job make another result: `label_counts` is 20 pass, 0 fail there" in done.err


@pytest.mark.parametrize("job", ["999", "app-0123456789abcdef-1"])
def test_a_job_that_is_made_up_is_found(folder: Folder, service: PatronusService, job: str) -> None:
    spec(folder, capture="all").applied()
    forge(folder, job=job, summary={**folder.summary(), "job": job})
    without_verdicts(folder)
    done = checked(folder, service)
    assert done.code == Exit.PROBLEM and f"patronus has no job `{job}`" in done.err, done


def test_what_nobody_keeps_cannot_be_proven(folder: Folder, service: PatronusService) -> None:
    spec(folder, capture="none", lost_reply="error").applied()
    done = checked(folder, service)
    assert done.code == Exit.OK and "1 evaluation: 1 hold, 1 not proven by its service." in done.out
    said = "`tone`: patronus keeps the results of 0 of 20 rows: the rest cannot be proven"
    assert f"warning[check/unproven]: {said}" in done.err and "capture: all" in done.err
    assert "not proven" not in folder.run("check").out


@pytest.mark.parametrize("has_verdicts", [True, False])
def test_what_is_kept_of_some_rows_must_fit(folder: Folder, service: PatronusService, has_verdicts: bool) -> None:
    spec(folder, capture="fails-only", lost_reply="error").applied()
    if not has_verdicts:
        without_verdicts(folder)
    done = checked(folder, service)
    assert done.code == Exit.OK and "keeps the results of 5 of 20 rows" in done.err, done
    summary = json.loads(json.dumps(folder.summary()))
    summary["label_counts"] = {"pass": 16, "fail": 4}
    forge(folder, summary=summary)
    done = checked(folder, service)
    said = "4 rows are `fail` there and 5 of what is kept" if not has_verdicts else "`label_counts` is 16 pass, 4 fail"
    assert done.code == Exit.PROBLEM and said in done.err, done


def test_a_row_that_could_not_be_judged_is_not_kept(folder: Folder, service: PatronusService) -> None:
    service.behave(Behaviour(invalid_rows=("a3 ",)))
    spec(folder, capture="all").applied()
    done = checked(folder, service)
    assert done.code == Exit.OK and "keeps the results of 19 of 20 rows" in done.err


def test_an_experiment_of_others_is_known_by_its_samples(folder: Folder, service: PatronusService) -> None:
    rows = [json.loads(line) for line in (folder.root / "rows.jsonl").read_text().splitlines()]
    assert folder.run(*IMPORT, theirs(service, rows)).code == 0
    done = checked(folder, service)
    assert done.code == Exit.OK and "was not made for this spec" in done.err, done
    service.captured = [each for each in service.captured if not str(each["dataset_sample_id"]).startswith("1")]
    assert "most rows of the dataset have no result" in checked(folder, service).err


def test_an_upgrade_at_the_service_is_told(folder: Folder, service: PatronusService) -> None:
    spec(folder, capture="all").applied()
    service.behave(Behaviour(upgrades={"toxicity": "toxicity-2030-01-01"}))
    assert folder.run("check").err == ""
    done = checked(folder, service)
    assert done.code == Exit.OK and "warning[check/moved]" in done.err
    assert "the service changed `toxicity` from toxicity-2024-10-27 to toxicity-2030-01-01" in done.err
    assert "evalops apply --refresh" in done.err


def test_without_a_key_nobody_is_asked(
    folder: Folder, service: PatronusService, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec(folder, capture="all").applied()
    monkeypatch.delenv("PATRONUS_API_KEY")
    done = checked(folder, service)
    assert done.code == Exit.PROBLEM and "PATRONUS_API_KEY is not set" in done.err
