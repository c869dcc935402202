"""`evalops diff` in real git repositories: what a reviewer sees after an apply, and what it is made of."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from model_server import serve
from repository import ID, Repository, rows

BOUND = {"pass_percentage": {"min": 80}}


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    """Three evaluations, applied on main; the branch `topic` is checked out."""
    made = Repository.make(tmp_path / "project")
    made.spec("tone", thresholds=BOUND).spec("other", thresholds=BOUND, labels=["polite", "rude", "odd"])
    made.spec("old-name", labels=["polite", "rude", "none"]).spec("still", labels=["polite", "rude", "still"])
    made.applied(message="base")
    return made.branch("topic")


def moves(repository: Repository, *arguments: str) -> dict[str, dict[str, Any]]:
    done = repository.run("diff", *arguments, "--format", "json")
    assert done.code == 0, done
    return {each["address"]: each for each in json.loads(done.out)["moves"]}


def test_a_branch_shows_its_moved_score_with_interval_significance_and_reason(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND)
    here.spec("other", thresholds={"pass_percentage": {"min": 95}}, labels=["polite", "rude", "odd"])
    (here.root / "old-name.yaml").rename(here.root / "new-name.yaml")
    here.write({"new-name.yaml": here.read("new-name.yaml").replace("old-name", "new-name")})
    here.applied()
    found = moves(here, "main")
    assert {address: each["kind"] for address, each in found.items()} == {
        "tone": "moved", "other": "regraded", "new-name": "renamed",
    }  # fmt: skip
    tone = found["tone"]
    assert (tone["before"]["value"], tone["after"]["value"], tone["trend"]) == (90.0, 60.0, "down")
    assert tone["after"]["low"] < 60 < tone["after"]["high"]
    difference = tone["paired"]["difference"]
    assert difference["value"] == -30.0 and difference["low"] < -30 < difference["high"] < 0
    assert tone["paired"]["p_adjusted"] < 0.01 and tone["paired"]["shared"] == 60
    assert {field["name"]: (field["before"], field["after"]) for field in tone["fields"]}["judge.column"] == (
        "good",
        "poor",
    )
    assert all(field["mark"].startswith("tone.yaml:") for field in tone["fields"])
    assert [gate["turned"] for gate in tone["gates"]] == [True]
    assert found["new-name"]["was"] == "old-name" and found["new-name"]["paired"] is None
    assert found["other"]["gates"][0]["changed"] and found["other"]["paired"] is None

    text = here.run("diff", "main").out
    assert "1 moved (1 down), 1 renamed (free), 1 regraded (free), 1 the same, 2 gates failing" in text
    assert "-30.0 [" in text and "McNemar's exact test on 60 shared rows" in text
    assert "renamed from `old-name`: the same work" in text
    assert "bound changed (free): min 80 -> min 95" in text
    assert "response: answer" in text and "polite   rude" in text
    lines = text.splitlines()
    assert next(line for line in lines if " tone " in line).startswith(" ▼"), "the worst comes first"


def test_flipped_rows_have_their_text_only_where_it_is_the_dataset_that_was_judged(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND)
    here.applied()
    flips = moves(here)["tone"]["flips"]
    assert len(flips) == 10 and {(each["before"], each["after"]) for each in flips} == {("polite", "rude")}
    sources = {row["id"]: row for row in rows()}
    for each in flips:
        source = each["source"]
        assert next(iter(source)) == "response" and "poor" not in source
        assert sources[source["id"]]["poor"] == "rude"
    here.folder.rows([{**row, "unused": "new"} for row in rows()])
    assert {each["source"] is None for each in moves(here)["tone"]["flips"]} == {False}, "no column in use has changed"
    here.folder.rows([{**row, "poor": "polite"} for row in rows()])
    assert {each["source"] for each in moves(here)["tone"]["flips"]} == {None}
    (here.root / "rows.jsonl").unlink()
    assert {each["source"] for each in moves(here)["tone"]["flips"]} == {None}


def test_before_the_apply_nothing_has_moved_and_what_waits_is_said(here: Repository) -> None:
    here.spec("tone", "poor")
    done = here.run("diff")
    assert done.code == 0 and "4 the same" in done.out
    assert "1 change not applied yet:\n  evalops plan" in done.err
    here.write({"tone.yaml": "version: 1\nname: tone\ntype: nothing\n"})
    assert "evalops validate" in here.run("diff").err


def test_new_gone_and_a_verdicts_file_that_is_not_there(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND).spec("added", "fair")
    (here.root / "still.yaml").unlink()
    here.applied()
    (here.root / "tone.verdicts.jsonl").unlink()
    found = moves(here)
    assert {address: each["kind"] for address, each in found.items()} == {
        "tone": "moved",
        "added": "new",
        "still": "gone",
    }
    assert found["tone"]["paired"]["test"] == "two separate samples" and found["tone"]["paired"]["p"] is None
    assert found["tone"]["notes"][-1] == "not paired: no verdicts file has the verdicts of today"
    assert "not paired" in here.run("diff").out


def test_scores_comparisons_and_repeated_edits(here: Repository) -> None:
    here.spec("grade", "grade", type="score", min_score=1, max_score=5, model_to_evaluate="response")
    here.spec("duel", "choice", type="compare", model_a="response", model_b="question")
    here.applied()
    here.branch("next", "topic")
    here.spec("grade", "lower", type="score", min_score=1, max_score=5, model_to_evaluate="response")
    here.spec("duel", "other", type="compare", model_a="response", model_b="question")
    here.applied()
    found = moves(here, "topic")
    assert found["grade"]["paired"]["metric"] == "mean_score" and found["grade"]["trend"] == "down"
    assert found["duel"]["paired"]["metric"] == "win_rate" and found["duel"]["trend"] == "down"
    assert "4 -> " not in here.run("diff", "topic", "--format", "markdown").out


def test_a_project_in_a_folder_of_the_repository(tmp_path: Path) -> None:
    made = Repository.make(tmp_path, "some/evals").spec()
    made.applied()
    made.branch("topic").spec("tone", "poor")
    made.applied()
    assert moves(made)["tone"]["trend"] == "down"


def test_a_base_from_before_the_project_makes_everything_new(tmp_path: Path) -> None:
    made = Repository.make(tmp_path, "evals")
    made.git("rm", "-r", "--cached", "--quiet", "--ignore-unmatch", ".")
    made.git("commit", "--quiet", "--allow-empty", "--message", "nothing")
    made.spec().applied()
    assert moves(made, "HEAD~1")["tone"]["kind"] == "new"


def test_lockfiles_that_cannot_be_used_are_warned_of_and_left_out(here: Repository) -> None:
    here.write({"tone.lock": "{"})
    here.spec("other", "poor", labels=["polite", "rude", "odd"])
    done = here.run("diff")
    assert done.code == 0 and "tone.lock" in done.err and "warning[lock/syntax]" in done.err
    assert "gone" not in done.out
    here.commit("broken")
    here.git("checkout", "--quiet", "topic")
    here.write({"tone.lock": Repository(here.root).git("show", "main:tone.lock") + "\n"})
    done = here.run("diff", "HEAD")
    assert "history/unusable" in done.err and "new" not in done.out


def test_a_base_that_is_not_there_is_a_problem(here: Repository) -> None:
    done = here.run("diff", "nowhere")
    assert (done.code, done.out) == (1, "") and "history/revision" in done.err
    assert here.run("diff", "--", "--output=x").code == 1


def test_a_spec_that_moved_to_another_file_is_the_same(here: Repository) -> None:
    (here.root / "sub").mkdir()
    (here.root / "still.yaml").rename(here.root / "sub/still.yaml")
    here.applied()
    assert moves(here) == {}


def test_datasets_differ_by_their_rows(here: Repository) -> None:
    here.folder.rows(rows(50) + [{**row, "id": f"new{row['id']}"} for row in rows(5)])
    here.spec("tone", dataset=ID, thresholds=BOUND)
    here.applied("tone")
    tone = moves(here)["tone"]
    (note,) = tone["notes"]
    key = "[0-9a-f]{16}"
    assert re.fullmatch(
        f"rows left out of the difference: 5 new \\(({key}, ){{3}}…\\), 10 gone \\(({key}, ){{3}}…\\)", note
    )
    assert (tone["paired"]["shared"], tone["paired"]["added"], tone["paired"]["removed"]) == (50, 5, 10)
    assert tone["trend"] == "level"


def test_a_number_that_no_float_holds_is_a_broken_lockfile(here: Repository) -> None:
    here.write({"tone.lock": here.read("tone.lock").replace('"value": 90.0', f'"value": {"9" * 400}')})
    for arguments in (("diff",), ("diff", "--format", "markdown"), ("report",)):
        done = here.run(*arguments)
        assert done.code == 0 and "is no number that it can hold" in done.err + done.out
    assert here.run("check").code == 1


def test_what_the_judge_said_of_a_flipped_row_is_shown_where_its_rows_are_here(here: Repository) -> None:
    with serve() as models:
        folder = Folder(here.root, models.url).settings()
        folder.rows(truths(12), "judged.jsonl")
        folder.spec("judged", dataset={"path": "judged.jsonl", "id": "id"}).applied()
        here.commit("base")
        folder.rows(truths(12, rude_every=2), "judged.jsonl").applied()
    judged = moves(here, "HEAD")["judged"]
    said = {row["key"]: row["verdict"]["reason"] for row in folder.rows_of("judged")}
    assert len(judged["flips"]) == 3 and all(each["feedback"] == said[each["key"]] for each in judged["flips"])
    assert all(said.values())
    (here.root / ".evalops").rename(here.root.parent / "elsewhere")
    assert {each["feedback"] for each in moves(here, "HEAD")["judged"]["flips"]} == {None}
