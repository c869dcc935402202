"""The report as a value: results, gates, how they moved, their history, and rows as columns; and its formats."""

from __future__ import annotations

import csv
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from apply_project import Folder, truths
from command import Done
from conftest import SPEC, Cli
from markdown_it import MarkdownIt
from model_server import Server, serve
from repository import Repository, rows
from serve_client import Client
from serve_process import Served
from service_project import at_service, make
from test_comment import HOSTILE, inline

from evalops import lock
from evalops.project import Project
from evalops.providers import open_provider
from evalops.sheets import NOT_KEPT, keyless

BOUND = {"pass_percentage": {"min": 80}}


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    """Three results on main, one of which moved on the branch `topic`."""
    made = Repository.make(tmp_path / "project")
    made.spec("tone", thresholds=BOUND, gold="good")
    made.spec("grade", "grade", type="score", min_score=1, max_score=5, pass_threshold=3, labels=None, pass_labels=None)
    made.spec("duel", "choice", type="compare", model_a="response", model_b="question", labels=None, pass_labels=None,
              model_to_evaluate=None)  # fmt: skip
    made.applied(message="base")
    made.branch("topic").spec("tone", "poor", thresholds=BOUND, gold="good").applied()
    return made


def report(repository: Repository, *arguments: str) -> dict[str, Any]:
    done = repository.run("report", "--format", "json", *arguments)
    assert done.code == 0, done
    value: dict[str, Any] = done.json
    return value


def one(value: dict[str, Any], address: str = "tone") -> dict[str, Any]:
    (found,) = [each for each in value["evaluations"] if each["address"] == address]
    return found


def test_it_has_results_gates_moves_and_all_rows_as_columns(here: Repository) -> None:
    value = report(here, "main")
    assert [each["address"] for each in value["evaluations"]] == ["duel", "grade", "tone"]
    assert (value["totals"]["rows"], value["totals"]["gates"], value["totals"]["failed_gates"]) == (180, 1, 1)
    assert value["base"]["name"] == "main" and value["head"] == here.git("rev-parse", "HEAD")
    assert value["pending"] == [] and value["absent"] == {} and value["problems"] == []
    tone = one(value)
    assert tone["headline"]["value"] == 60.0 and tone["gates"][0]["verdict"] == "failed"
    assert tone["move"]["trend"] == "down" and tone["asked"]["gold"] == "good"
    sheet = tone["rows"]
    assert sheet["count"] == 60 and sheet["absent"] == {}
    assert {len(values) for part in ("columns", "source") for values in sheet[part].values()} == {60}
    for place, row in enumerate(rows()):
        column = {name: values[place] for name, values in sheet["columns"].items()}
        source = {name: values[place] for name, values in sheet["source"].items()}
        assert source == row
        assert (column["verdict"], column["gold"], column["before"]) == (row["poor"], row["good"], row["good"])
        assert column["passed"] == (row["poor"] == "polite") and column["agrees"] == (row["poor"] == row["good"])
        moved = {("polite", "rude"): "down", ("rude", "polite"): "up"}
        assert column["moved"] == moved.get((row["good"], row["poor"]))
    grade = one(value, "grade")["rows"]["columns"]
    assert grade["passed"][:5] == [False, False, True, True, True] and "moved" not in grade
    assert one(value, "duel")["rows"]["columns"]["verdict"][:3] == ["A", "B", "Tie"]


def test_the_trend_has_each_committed_result_and_the_one_that_is_not(here: Repository) -> None:
    assert [(each["value"], each["failed"]) for each in one(report(here))["trend"]] == [(90.0, False), (60.0, True)]
    assert len(one(report(here), "grade")["trend"]) == 1
    here.spec("tone", "fair", thresholds=BOUND, gold="good").folder.apply()
    trend = one(report(here))["trend"]
    assert [each["value"] for each in trend] == [90.0, 60.0, 85.0]
    assert trend[-1]["commit"] == "" and trend[1]["commit"] == here.git("rev-parse", "HEAD")
    assert trend[0]["low"] < 90 < trend[0]["high"]


def test_in_a_fresh_clone_the_verdicts_file_and_the_dataset_make_the_rows(here: Repository, tmp_path: Path) -> None:
    with serve() as models:
        folder = Folder(here.root, models.url).settings()
        folder.rows(truths(8), "judged.jsonl")
        folder.spec("judged", dataset={"path": "judged.jsonl", "id": "id"}, gold="gold").apply()
        here.commit()
    whole = one(report(here), "judged")["rows"]
    assert whole["absent"] == {} and all(whole["columns"]["reason"])
    assert whole["prompts"] == {"judge.system_template": ["Is the reply polite?"] * 8}
    shutil.rmtree(here.root / ".evalops")
    bare = one(report(here), "judged")["rows"]
    assert bare["absent"] == {"reason": NOT_KEPT} and bare["source"] == whole["source"]
    kept = ("key", "status", "verdict", "passed", "gold", "agrees")
    assert bare["columns"] == {name: whole["columns"][name] for name in kept}

    folder.rows(truths(9), "judged.jsonl")
    other = report(here)
    sheet = one(other, "judged")["rows"]
    assert sheet["source"] == {} and sheet["columns"]["verdict"] == whole["columns"]["verdict"]
    assert sheet["absent"]["source"] == "the dataset is not here as it was judged"
    assert [(each["address"], each["action"]) for each in other["pending"]] == [("judged", "rerun")]
    (here.root / "judged.verdicts.jsonl").unlink()
    assert "no verdicts file has its verdicts" in one(report(here), "judged")["rows"]["absent"]["rows"]


def test_what_is_not_there_is_absent_with_its_reason(cli: Cli, folder: Any) -> None:
    folder.write({"tone.yaml": SPEC})
    done = cli("report", "--format", "json")
    assert done.code == 0 and done.json["evaluations"] == [] and done.json["base"] is None
    assert "history cannot be read" in done.json["absent"]["base"] and "trend" in done.json["absent"]
    assert [(each["address"], each["action"]) for each in done.json["pending"]] == [("tone", "create")]
    assert cli("report", "main").code == 1  # a base that was named has to be there
    folder.write({"tone.yaml": "version: 1\nname: [\n"})
    broken = cli("report", "--format", "json")
    assert broken.code == 0 and broken.json["problems"][0]["severity"] == "error" and "error[" in broken.err


def test_results_stay_where_the_spec_is_gone_or_cannot_be_read(here: Repository) -> None:
    here.write({"tone.yaml": "version: 1\nname: tone\nlabels: [\n"})
    (here.root / "grade.yaml").unlink()
    value = report(here)
    tone, grade = one(value), one(value, "grade")
    assert tone["asked"] is None and tone["headline"]["value"] == 60.0 and tone["rows"]["count"] == 60
    assert tone["rows"]["columns"]["verdict"] == [row["poor"] for row in rows()]
    assert grade["spec"] is None and grade["rows"]["count"] == 60


def test_selectors_choose_evaluations(here: Repository) -> None:
    value = report(here, "main", "-s", "t*", "-s", "duel", "-x", "duel")
    assert [each["address"] for each in value["evaluations"]] == ["tone"]
    assert [each["address"] for each in value["review"]["moves"]] == ["tone"]
    assert value["totals"]["rows"] == 60
    done = here.run("report", "-s", "tome")
    assert done.code == 1 and "nothing matches `tome`" in done.err and "did you mean `tone`?" in done.err
    assert here.run("report", "--format", "comment", "-s", "tone").code == 64


def test_a_result_of_an_earlier_job_is_not_joined_to_other_rows(here: Repository) -> None:
    found = lock.parse(here.read("tone.lock"), "tone.lock")
    entry = found.entries["tone"]
    older = {**(entry.summary or {}), "job": "local-0000000000000000-1"}
    here.write({"tone.lock": lock.dump(found.put(replace(entry, summary=older)))})
    sheet = one(report(here))["rows"]
    assert sheet["count"] == 0 and "no verdicts file" in sheet["absent"]["rows"]


# --- nobody is asked ---


def test_rows_that_only_the_service_has_are_not_fetched(
    server: Served, client: Client, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = at_service(server.url, tmp_path, monkeypatch)
    folder.good("import", make(client))
    (path,) = folder.root.glob("*.lock")
    sheet = folder.good("report", "--format", "json").json["evaluations"][0]["rows"]
    assert sheet["count"] == 6 and all(sheet["columns"]["reason"]) and sheet["absent"] == {}
    shutil.rmtree(folder.root / ".evalops" / "results")  # the key is still there
    found = folder.good("report", "--format", "json").json["evaluations"][0]["rows"]
    assert found["columns"]["verdict"] == sheet["columns"]["verdict"] and "reason" not in found["columns"]
    assert found["absent"]["reason"] == NOT_KEPT
    path.with_suffix(".verdicts.jsonl").unlink()
    gone = folder.good("report", "--format", "json").json["evaluations"][0]["rows"]["absent"]["rows"]
    assert gone == "they are at together and not on this machine, and no verdicts file has its verdicts"
    assert not (folder.root / ".evalops" / "results").exists()


def test_a_project_without_keys_has_the_settings_but_for_them(here: Repository) -> None:
    project = Project(here.root)
    bare = keyless(project)
    assert bare.root == project.root and bare.settings.verdicts_max_bytes == project.settings.verdicts_max_bytes
    for name in ("together", "patronus"):
        assert open_provider(name, bare).origin == open_provider(name, project).origin


# --- formats ---


def written(here: Repository, form: str) -> bytes:
    done = here.run("report", "main", "--format", form, "--out", str(here.root.parent / "out"))
    assert done.code == 0 and done.out == "" and f"Wrote {here.root.parent / 'out'}" in done.err, done
    return (here.root.parent / "out").read_bytes()


def test_csv_has_the_rows_of_all_evaluations(here: Repository) -> None:
    formulas = ["=1+1", "+1", "-1", "@a", "\t=1", "＝1+1"]
    hurt = [{**row, "other": formulas[place % 6]} for place, row in enumerate(rows())]
    here.folder.rows(hurt)
    found = list(csv.DictReader(io.StringIO(written(here, "csv").decode())))
    assert len(found) == 180 and [each["address"] for each in found[::60]] == ["duel", "grade", "tone"]
    assert [each["row"] for each in found[:3]] == ["1", "2", "3"]
    assert {each["source.other"] for each in found} == {f"'{formula}" for formula in formulas}
    tone = [each for each in found if each["address"] == "tone"]
    assert [each["verdict"] for each in tone] == [row["poor"] for row in rows()]
    assert {each["before"] for each in found[:60]} == {""} and tone[1]["before"] == "polite"


def test_parquet_has_the_same_with_types(here: Repository) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(written(here, "parquet")))
    assert table.num_rows == 180
    kinds = {name: str(table.schema.field(name).type) for name in ("row", "passed", "verdict", "source.grade")}
    assert kinds == {"row": "int64", "passed": "bool", "verdict": "string", "source.grade": "int64"}
    alone = here.run("report", "-s", "grade", "--format", "parquet", "--out", str(here.root / "g.parquet"))
    assert alone.code == 0
    only = pyarrow.parquet.read_table(here.root / "g.parquet")
    assert str(only.schema.field("verdict").type) == "double" and "moved" not in only.column_names


def test_half_a_character_and_odd_values_do_not_stop_any_format(here: Repository) -> None:
    odd = [{**row, "question": {"a": [1, None, "x"]}, "same": "\ud800 half", "grade": 10**30} for row in rows()]
    here.folder.rows(odd)
    for form in ("html", "markdown", "json", "csv", "parquet"):
        assert written(here, form)


def test_markdown_is_a_document_in_which_nothing_of_a_stranger_is_markup(here: Repository) -> None:
    for number, text in enumerate(HOSTILE):
        labels = ["polite", "rude", text or "empty"]
        here.spec(f"h{number}", labels=labels, description=text or "none", group_by=["same"])
    here.folder.rows([{**row, "same": HOSTILE[place % len(HOSTILE)]} for place, row in enumerate(rows())])
    here.folder.apply()
    text = written(here, "markdown").decode()
    found = list(inline(MarkdownIt("gfm-like", {"html": True, "linkify": True}).parse(text)))
    kinds = {token.type for token in found}
    assert not kinds & {"link_open", "image", "html_inline", "html_block", "s_open"}, kinds
    titles = [found[place + 1].content for place, token in enumerate(found) if token.type == "heading_open"]
    assert titles[:3] == ["Evaluations of `project`", "Results", "Since the base"] and "`tone`" in titles
    assert "| `✗` | `tone` | pass_percentage 60.0 [47.4, 71.4] | 1 gate failed | 60 | 0 |" in text
    assert "failed: pass_percentage 60 [47.37, 71.43], min 80" in text


def test_the_page_goes_to_stdout_and_json_is_stable(here: Repository) -> None:
    done: Done = here.run("report")
    assert done.out.startswith("<!doctype html>\n") and done.out.rstrip().endswith("</html>")
    first, second = (report(here) for _ in range(2))
    assert {**first, "at": ""} == {**second, "at": ""}
    assert json.dumps(first)


def test_no_folder_no_file(here: Repository) -> None:
    done = here.run("report", "--out", str(here.root / "nowhere" / "report.html"))
    assert done.code == 1 and "nowhere/report.html` could not be written" in done.err


def test_generated_answers_and_votes_stand_beside_their_rows(tmp_path: Path, models: Server) -> None:
    folder = Folder(tmp_path, models.url).settings()
    folder.rows(truths(4)).spec("written", model_to_evaluate={"model": "writer", "input_template": "{{ response }}"})
    folder.spec("jury", judge={"column": "gold"})
    (tmp_path / "jury.yaml").write_text(
        (tmp_path / "jury.yaml")
        .read_text()
        .replace("judge:\n  column: gold", "judges: [{column: gold}, {column: second}]")
    )
    folder.rows([{**row, "second": "polite"} for row in truths(4)]).applied()
    value = folder.run("report", "--format", "json").json
    written_ = one(value, "written")["rows"]
    assert list(written_["outputs"]) == ["model_to_evaluate"] and all(written_["outputs"]["model_to_evaluate"])
    votes = one(value, "jury")["rows"]["columns"]["votes"]
    assert [[(vote["judge"], vote["value"]) for vote in each] for each in votes[:2]] == [
        [(0, "rude"), (1, "polite")],
        [(0, "polite"), (1, "polite")],
    ]
    assert one(value, "jury")["rows"]["columns"]["problem"][0] == "no_majority"
