"""What a changed threshold, group or headline takes: no judge, and the rows only where the stored result is too small."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apply_project import ROWS, Folder

from evalops import emit
from evalops.errors import Exit
from evalops.lock import dump, parse

TOPICS = ("billing", "parcels", "parcels", "")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Forty rows with recorded verdicts of a judge that errs on a fifth of them, all about billing or nothing."""
    rows = []
    for number in range(40):
        gold = "rude" if number % 3 == 0 else "polite"
        said = gold if number % 4 in (1, 2) or number % 8 == 0 else {"rude": "polite", "polite": "rude"}[gold]
        topic = TOPICS[number % 4]
        rows.append({"id": f"r{number}", "response": "x" * number or "-", "gold": gold, "said": said, "topic": topic})
    return Folder(tmp_path, "http://127.0.0.1:1/v1").settings().rows(rows)


def spec(folder: Folder, **fields: Any) -> None:
    folder.spec(judge={"column": "said"}, gold="gold", group_by=["topic"], **fields)


def make_rows_unreadable(folder: Folder) -> None:
    """So that only the lockfile can answer."""
    for path in (".evalops", "tone.verdicts.jsonl"):
        (folder.root / path).rename(folder.root / f"{path}.away")


def test_a_gate_on_groups_is_answered_by_the_lockfile(folder: Folder) -> None:
    spec(folder)
    folder.applied()
    groups = folder.summary()["groups"]["topic"]
    assert {name: group["rows"] for name, group in groups.items()} == {"billing": 10, "parcels": 20, "(none)": 10}
    make_rows_unreadable(folder)
    spec(folder, thresholds={"accuracy": {"min": 0.5, "by": {"topic": {"min": 0.9}}}})
    assert folder.actions() == {"tone": "regrade"}
    done = folder.apply()
    assert done.code == Exit.GATE_FAILED and "accuracy by topic 0 [" in done.err and "2 of 3 groups" in done.err
    whole, by = folder.entry()["gates"]
    assert (whole["verdict"], by["verdict"], by["group"]) == ("passed", "failed", "(none)")
    assert by["failed_groups"] == ["billing", "(none)"]
    assert folder.actions() == {"tone": "noop"}
    spec(folder, thresholds={"accuracy": {"min": 0.5, "by": {"topic": {"min": 0, "on": "upper"}}}})
    assert folder.apply().code == Exit.OK
    assert "accuracy by topic" in folder.run("show", "tone").out


def test_a_metric_that_the_groups_do_not_have_is_made_from_the_rows(folder: Folder) -> None:
    spec(folder)
    folder.applied()
    spec(folder, thresholds={"macro_f1": {"by": {"topic": {"min": 0.1}}}})
    assert folder.actions() == {"tone": "regrade"}
    assert folder.apply().code == Exit.GATE_FAILED
    assert "macro_f1" in folder.summary()["groups"]["topic"]["parcels"]["metrics"]
    assert folder.entry()["gates"][0]["groups"] == 3


def test_a_result_of_an_earlier_version_is_read_and_grows_where_it_must(folder: Folder) -> None:
    folder.spec(judge={"column": "said"}, gold="gold", thresholds={"accuracy": {"min": 0.5}})
    folder.applied()
    known = ("rows", "scored", "invalid", "errors", "label_counts", "bounds", "usage", "job")
    path = folder.root / "tone.lock"
    lock = parse(path.read_text(), "tone.lock")
    entry = lock.entries["tone"]
    assert entry.summary is not None
    old: dict[str, Any] = {key: entry.summary[key] for key in known}
    old["metrics"] = {name: entry.summary["metrics"][name] for name in ("pass_percentage", "accuracy", "kappa")}
    gates = tuple({key: each for key, each in gate.items() if key not in ("low", "high")} for gate in entry.gates)
    path.write_text(dump(lock.put(replace(entry, summary=old, gates=gates))))
    assert folder.actions() == {"tone": "noop"}
    shown = folder.run("show", "tone")
    assert shown.code == Exit.OK and "gate passed: accuracy" in shown.out
    assert folder.run("status").code == Exit.OK
    folder.spec(
        judge={"column": "said"}, gold="gold", thresholds={"macro_f1": {"min": 0.1}, "recall[rude]": {"min": 0.1}}
    )
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    assert [gate["verdict"] for gate in folder.entry()["gates"]] == ["passed", "passed"]


def test_the_headline_is_changed_for_nothing(folder: Folder) -> None:
    spec(folder)
    folder.applied()
    assert "pass %" in folder.run("status").out
    make_rows_unreadable(folder)
    spec(folder, metric="macro_f1")
    changed = json.loads(folder.run("plan", "--format", "json").out)["changes"][0]
    assert (changed["action"], changed["reason"]) == ("regrade", "`metric` changed")
    spec(folder, metric="accuracy")
    folder.applied()
    assert folder.actions() == {"tone": "noop"} and "accuracy 0.6" in folder.run("status").out
    spec(folder)
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    assert "headline" not in folder.summary()


def test_other_groups_and_clusters_are_graded_anew(folder: Folder) -> None:
    spec(folder)
    folder.applied()
    spec(folder, cluster="topic")
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    # Rows without a topic are a cluster each.
    assert folder.summary()["metrics"]["accuracy"]["clusters"] == 12
    assert "over 12 clusters" in folder.run("show", "tone").out
    (folder.root / ROWS).write_text((folder.root / ROWS).read_text().replace('"billing"', '"bills"'))
    assert folder.actions() == {"tone": "regrade"}
    folder.applied()
    assert list(folder.summary()["groups"]["topic"]) == ["bills", "parcels", "(none)"]


def test_a_panel_of_recorded_judges_is_shown_judge_by_judge(folder: Folder) -> None:
    folder.rows([{**json.loads(line), "third": "polite"} for line in (folder.root / ROWS).read_text().splitlines()])
    value = {"version": 1, "name": "tone", "type": "classify", "dataset": ROWS, "labels": ["polite", "rude"]}
    value |= {"pass_labels": ["polite"], "gold": "gold", "group_by": ["topic"], "model_to_evaluate": "response"}
    value |= {"judges": [{"column": "said"}, {"column": "gold"}, {"column": "third"}]}
    (folder.root / "tone.yaml").write_text(emit.dump(value))
    folder.applied()
    summary = folder.summary()
    assert [each["judge"] for each in summary["judges"]] == ["column said", "column gold", "column third"]
    said, gold, third = (each["metrics"]["accuracy"]["value"] for each in summary["judges"])
    assert (said, gold, third) == (0.625, 1.0, 0.65)
    assert 0 < summary["metrics"]["accuracy"]["value"] < 1 and len(summary["disagreements"]) == 20
    out = folder.run("show", "tone").out
    assert "column said" in out and "differ most" in out
