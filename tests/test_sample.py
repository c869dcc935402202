"""The sample project: what is committed is whole, in step, and honest about its judge."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evalops import cli, lock, verdicts
from evalops.errors import Exit
from evalops.metrics import labels
from evalops.project import Project

SPECS = Path(__file__).parent.parent / "specs"
FEWEST = {"classify": 30, "score": 12, "compare": 12}


def entries(project: Path) -> dict[str, lock.Entry]:
    locks, problems = Project(project).locks()
    assert problems == []
    return {entry.address: entry for each in locks.values() for entry in each.entries.values()}


ENTRIES = entries(SPECS)


def metric(address: str, name: str) -> Any:
    summary = ENTRIES[address].summary
    assert summary is not None
    return summary["metrics"][name]


def test_every_spec_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--project", str(SPECS), "validate", "--format", "json"]) == Exit.OK
    warnings = {each["code"] for each in json.loads(capsys.readouterr().out)}
    # One model judges what it wrote itself, and evalops says so; nothing else is to be remarked.
    assert warnings <= {"spec/same-family"}


def test_the_plan_is_in_step_with_the_committed_locks(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--project", str(SPECS), "plan", "--detailed-exitcode"]) == Exit.OK, capsys.readouterr().out


def test_every_spec_has_its_lock_and_its_verdicts() -> None:
    for spec in Project(SPECS).specs():
        path = (SPECS / spec).with_suffix(".lock")
        assert path.is_file()
        beside = Path(verdicts.beside(str(path)))
        sections = verdicts.parse(beside.read_bytes(), beside.name)
        for section in sections.values():
            entry = ENTRIES[section.address]
            assert entry.summary is not None
            assert section.job == entry.job
            assert len(section.verdicts) == entry.summary["rows"]


@pytest.mark.parametrize("address", ENTRIES)
def test_each_result_is_complete_large_enough_and_passes_its_gates(address: str) -> None:
    entry = ENTRIES[address]
    assert entry.status == "completed"
    assert entry.summary is not None
    assert entry.summary["rows"] >= FEWEST[str(entry.inputs["type"])]
    assert entry.summary["errors"] == 0
    assert entry.failed_gates == []


def test_the_sample_shows_every_type_and_every_kind_of_judge() -> None:
    inputs = [entry.inputs for entry in ENTRIES.values()]
    assert {each["type"] for each in inputs} == set(FEWEST)
    assert any("judge.column" in each for each in inputs)
    assert any(each.get("judge.verdict") == "likelihood" for each in inputs)
    assert any("model_to_evaluate.model" in each for each in inputs)
    assert sum(address.startswith("review-wording[") for address in ENTRIES) == 3


def test_the_judge_can_tell_sentiment_and_not_tone() -> None:
    assert metric("review-sentiment", "kappa")["low"] > 0.3
    tone = ENTRIES["support-tone"].summary
    assert tone is not None
    assert labels.CHANCE in tone["warnings"]
    assert metric("support-tone-people", "kappa")["low"] > 0.6


def test_specs_for_reading_name_their_schema() -> None:
    for spec in Project(SPECS).specs():
        first = (SPECS / spec).read_text(encoding="utf-8").splitlines()[0]
        assert (SPECS / first.removeprefix("# yaml-language-server: $schema=")).is_file(), spec


@pytest.mark.slow
@pytest.mark.embedded
def test_the_sentiment_spec_comes_back_with_the_same_fingerprint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "specs"
    shutil.copytree(SPECS, project, ignore=shutil.ignore_patterns("*.lock", "*.verdicts.jsonl", ".evalops"))
    assert cli.run(["--project", str(project), "apply", "--yes", "review-sentiment"]) == Exit.OK
    assert "review-sentiment" in capsys.readouterr().out
    again, committed = entries(project)["review-sentiment"], ENTRIES["review-sentiment"]
    assert again.fingerprint == committed.fingerprint
    assert again.inputs == committed.inputs
    assert again.dataset == committed.dataset
    assert again.summary is not None
    # Another processor may round a probability the other way, so the verdicts are only held to be good.
    assert again.summary["metrics"]["kappa"]["low"] > 0.3
