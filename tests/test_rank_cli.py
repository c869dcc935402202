"""`evalops rank` in real project folders, on verdicts that the datasets hold: no model is called."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder
from command import Done

from evalops.errors import Exit
from evalops.lock import Status

# Passes of 40 rows: two candidates are level in the middle.
PASSES = {"first": 36, "left": 24, "right": 24, "last": 12}


def wide(passes: Mapping[str, int] = PASSES, rows: int = 40) -> list[dict[str, Any]]:
    """Rows with a response and a recorded label of each candidate; which rows pass is spread differently for each."""
    found: list[dict[str, Any]] = [{"question": f"q{number}"} for number in range(rows)]
    for step, (name, count) in zip((1, 3, 7, 11), passes.items(), strict=False):
        for number in range(rows):
            found[number * step % rows] |= {
                f"by_{name}": f"{name} says {number}",
                f"label_{name}": "polite" if number < count else "rude",
            }
    return found


def long() -> list[dict[str, Any]]:
    """A row an answer: three models over the same ten prompts, each scored."""
    scores = {"small": [1, 2, 1, 2, 3, 1, 2, 2, 1, 3], "middle": [3, 3, 2, 4, 3, 3, 2, 4, 3, 3]}
    scores["large"] = [each + 1 for each in scores["middle"]]
    return [
        {
            "id": f"{model}-{number}",
            "prompt": f"p{number}",
            "model": model,
            "answer": f"{model} {number}",
            "score": score,
        }
        for model, values in scores.items()
        for number, score in enumerate(values)
    ]


def pairs() -> list[dict[str, Any]]:
    """A row a pair of models with a recorded choice."""
    order = ("ant", "bee", "cat")
    results = ["A", "A", "B", "Tie", "A", "A", "B", "A", "A", "Tie"]
    return [
        {"id": f"{one}{other}{number}", "one": "x", "two": "y", "model_a": one, "model_b": other, "choice": choice}
        for one, other in itertools.combinations(order, 2)
        for number, choice in enumerate(results)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path, "http://127.0.0.1:9").settings()


@pytest.fixture
def four(folder: Folder) -> Folder:
    """Four candidates on one file, applied."""
    folder.rows(wide())
    for name in PASSES:
        candidate(folder, name)
    folder.applied()
    return folder


def candidate(folder: Folder, name: str, **fields: Any) -> None:
    what: dict[str, Any] = {"judge": {"column": f"label_{name}"}, "model_to_evaluate": f"by_{name}", **fields}
    folder.spec(name, **what)


def scores(folder: Folder, **fields: Any) -> Folder:
    """One evaluation of type score over the answers of three models."""
    what = {"min_score": 1, "max_score": 5, "model_to_evaluate": "answer", **fields}
    folder.rows(long(), "long.jsonl").spec(
        "quality", type="score", dataset="long.jsonl", judge={"column": "score"}, **what
    )
    folder.applied()
    return folder


def ranked(folder: Folder, *arguments: str) -> dict[str, Any]:
    done = folder.run("rank", *arguments, "--format", "json")
    assert done.code == 0, done
    value: dict[str, Any] = json.loads(done.out)
    return value


def ranks(value: Mapping[str, Any]) -> list[tuple[str, int | None]]:
    return [(each["address"] or each["name"], each["rank"]) for each in value["candidates"]]


def refusal(done: Done) -> str:
    assert (done.code, done.out) == (Exit.PROBLEM, ""), done
    return done.err


# --- several evaluations ---


def test_ties_share_a_rank_and_the_next_is_left_out(four: Folder) -> None:
    value = ranked(four)
    assert ranks(value) == [("first", 1), ("left", 2), ("right", 2), ("last", 4)]
    assert [each["value"] for each in value["candidates"]] == [90.0, 60.0, 60.0, 30.0]
    assert (value["metric"], value["dataset"]["path"], value["dataset"]["rows"]) == (
        "pass_percentage",
        "rows.jsonl",
        40,
    )
    leader, left, right, last = value["candidates"]
    assert (leader["rank_low"], leader["rank_high"], leader["p_vs_leader"]) == (1, 1, None)
    assert (left["rank_low"], left["rank_high"]) == (right["rank_low"], right["rank_high"]) == (2, 3)
    assert last["test"] == "McNemar" and last["p_adjusted"] < 0.001 and last["difference"]["value"] == -60.0
    assert left["low"] == pytest.approx(four.summary("left")["metrics"]["pass_percentage"]["low"])


def test_the_order_of_specs_and_selectors_changes_nothing(four: Folder, tmp_path: Path) -> None:
    expected = four.run("rank", "--format", "json").out
    for order in itertools.permutations(PASSES):
        assert four.run("rank", *order, "--format", "json").out == expected
    other = Folder(tmp_path / "other", four.url)
    other.root.mkdir()
    other.settings().rows(wide())
    for number, name in enumerate(reversed(PASSES)):
        candidate(other, name, file=f"z{number}.yaml")
    other.applied()
    assert other.run("rank", "--format", "json").out == expected


def test_it_needs_neither_the_dataset_nor_the_local_state(four: Folder) -> None:
    expected = four.run("rank", "--format", "json").out
    (four.root / "rows.jsonl").unlink()
    for path in (four.root / ".evalops").rglob("*"):
        if path.is_file():
            path.unlink()
    assert four.run("rank", "--format", "json").out == expected


def test_a_matrix_is_ranked_by_its_cells(folder: Folder) -> None:
    folder.rows([{**row, "label": "polite" if number % 3 else "rude"} for number, row in enumerate(wide())])
    cells = [{"by": f"by_{name}", "label": f"label_{name}"} for name in PASSES]
    matrix = {"model_to_evaluate": [each["by"] for each in cells]}
    folder.spec("tone", judge={"column": "label"}, matrix=matrix, model_to_evaluate=None)
    folder.applied()
    value = ranked(folder, "tone")
    assert {rank for _, rank in ranks(value)} == {1}
    assert [each["name"] for each in value["candidates"]] == sorted(each["by"] for each in cells)


def test_different_datasets_are_refused_with_the_reason(four: Folder) -> None:
    four.rows(wide(rows=30), "other.jsonl")
    candidate(four, "last", dataset="other.jsonl")
    four.applied()
    err = refusal(four.run("rank"))
    assert "rank/dataset" in err and "`first` and `last`" in err and "`rows.jsonl` and `other.jsonl`" in err
    assert ranks(ranked(four, "-x", "last")) == [("first", 1), ("left", 2), ("right", 2)]


def test_different_judges_are_refused_with_the_reason(four: Folder) -> None:
    candidate(four, "strict", judge={"column": "label_last"}, model_to_evaluate="by_first")
    four.applied()
    err = refusal(four.run("rank", "first", "strict"))
    assert "rank/judge" in err and "`first` and `strict`" in err
    assert "`judge.column` is `label_first` and `label_last`" in err


def test_different_labels_and_types_are_refused_with_the_reason(four: Folder) -> None:
    candidate(four, "left", labels=["polite", "rude", "odd"])
    candidate(four, "right", pass_labels=["rude"])
    four.applied()
    assert "`labels` is `polite, rude` and `polite, rude, odd`" in refusal(four.run("rank", "first", "left"))
    assert "`pass_labels` is `polite` and `rude`" in refusal(four.run("rank", "first", "right"))
    scores(four)
    assert "`type` is `classify` and `score`;" not in (err := refusal(four.run("rank", "first", "quality")))
    assert "`type` is `classify` and `score`" in err


def test_a_refusal_is_in_the_json_too(four: Folder) -> None:
    candidate(four, "right", pass_labels=["rude"])
    four.applied()
    done = four.run("rank", "--format", "json")
    assert done.code == Exit.PROBLEM
    value = json.loads(done.out)
    assert (value["candidates"], value["refused"][0]["code"]) == ([], "rank/judge")


def test_a_column_that_came_later_changes_nothing(folder: Folder) -> None:
    """The responses of one more candidate are a new column of the file: what was judged stays as it is."""
    rows = wide()
    folder.rows([{key: row[key] for key in ("question", "by_first", "label_first")} for row in rows])
    candidate(folder, "first")
    folder.applied()
    folder.rows(rows)
    candidate(folder, "left")
    folder.applied()
    assert folder.entry("first")["dataset"]["digest"] != folder.entry("left")["dataset"]["digest"]
    assert ranks(ranked(folder)) == [("first", 1), ("left", 2)]
    folder.rows([{**row, "by_first": "another text"} for row in rows])
    assert "rank/dataset" in refusal(folder.run("rank"))


def test_what_has_no_result_stands_last_with_the_reason(four: Folder) -> None:
    project = four.project
    for name, changes in {"first": {"status": Status.FAILED, "message": "no such model"}}.items():
        lock = project.locks()[0][f"{name}.lock"]
        project.write_lock(lock.put(replace(lock.entries[name], **changes)))  # type: ignore[arg-type]
    candidate(four, "new", judge={"column": "label_last"}, model_to_evaluate="by_last")
    value = ranked(four)
    assert ranks(value) == [("left", 1), ("right", 1), ("last", 3), ("first", None), ("new", None)]
    assert [each["reason"] for each in value["candidates"][-2:]] == [
        "its job is failed: no such model",
        "it has not been applied",
    ]
    assert "its job is failed: no such model" in four.run("rank").out


def test_without_its_verdicts_a_candidate_is_ranked_by_its_value(four: Folder) -> None:
    (four.root / "left.verdicts.jsonl").unlink()
    value = ranked(four)
    assert ranks(value) == [("first", 1), ("left", 2), ("right", 2), ("last", 4)]
    assert value["candidates"][1]["p_vs_leader"] is None
    assert {each["rank_low"] for each in value["candidates"]} == {None}
    assert "`left` is ranked by its value alone" in value["warnings"][0]


def test_a_result_that_is_not_graded_as_today_is_ranked_by_its_value(four: Folder) -> None:
    for name in PASSES:
        candidate(four, name, pass_labels=["rude"])
    value = ranked(four)
    assert ranks(value)[0] == ("first", 1)
    assert "not graded as its spec says today" in value["warnings"][0]
    four.applied()
    assert ranks(ranked(four))[0] == ("last", 1)


def test_clusters_are_drawn_as_one_and_few_are_warned_of(folder: Folder) -> None:
    folder.rows([{**row, "topic": f"t{number // 8}"} for number, row in enumerate(wide())])
    for name in PASSES:
        candidate(folder, name, cluster="topic")
    folder.applied()
    value = ranked(folder)
    assert value["candidates"][3]["test"] == "paired resampling"
    assert any(each.startswith("5 clusters are few") for each in value["warnings"])
    assert value["candidates"][0]["low"] == folder.summary("first")["metrics"]["pass_percentage"]["low"]


def test_a_metric_that_is_no_mean_is_ranked_by_its_value(folder: Folder) -> None:
    rows = wide()
    folder.rows([{**row, "high": number % 5 + 1, "low": number % 3 + 1} for number, row in enumerate(rows)])
    for name, column in (("first", "high"), ("left", "low")):
        folder.spec(
            name, type="score", min_score=1, max_score=5, metric="median_score",
            judge={"column": column}, model_to_evaluate=f"by_{name}",
        )  # fmt: skip
    folder.applied()
    value = ranked(folder)
    assert (value["metric"], ranks(value)) == ("median_score", [("first", 1), ("left", 2)])
    assert "no mean over rows" in value["warnings"][0]
    assert value["candidates"][1]["reason"] == "rank intervals are not known for this metric"


def test_accuracy_reads_the_true_answers(folder: Folder) -> None:
    folder.rows([{**row, "truth": "polite"} for row in wide()])
    for name in PASSES:
        candidate(folder, name, pass_labels=None, gold="truth")
    folder.applied()
    value = ranked(folder)
    assert (value["metric"], ranks(value)[0], value["candidates"][3]["test"]) == ("accuracy", ("first", 1), "McNemar")


def test_accuracy_of_custom_is_what_passes(folder: Folder) -> None:
    """A result is 1.0 and the gold an answer, which the evaluator has compared already."""
    folder.rows([{"g": number, "good": number, "shy": number if number % 4 else "?"} for number in range(1, 41)])
    (folder.root / "sums.yaml").write_text(
        "{version: 1, name: sums, type: custom, dataset: rows.jsonl, gold: g, evaluator: numeric, metric: accuracy,"
        " matrix: {model_to_evaluate: [shy, good]}}"
    )
    folder.applied()
    value = ranked(folder)
    assert [(each["name"], each["value"], each["test"]) for each in value["candidates"]] == [
        ("good", 1.0, None),
        ("shy", 0.75, "McNemar"),
    ]
    assert value["candidates"][0]["rank_low"] == 1
    assert not any("by its value alone" in each for each in value["warnings"])


def test_rows_without_a_verdict_on_one_side_are_warned_of(folder: Folder) -> None:
    rows = wide()
    for row in rows[:5]:
        row["label_left"] = "neither"
    folder.rows(rows)
    for name in PASSES:
        candidate(folder, name)
    folder.applied()
    value = ranked(folder)
    assert any("35 of `left`" in each for each in value["warnings"])
    assert "`left` has no verdict on 5 of 40 rows: its value is over the others only" in value["warnings"]
    assert [each["no_verdict"] for each in value["candidates"]] == [0, 5, 0, 0]
    for look in ((), ("--format", "markdown")):
        assert "no verdict" in folder.run("rank", *look).out.split("warning")[0]
        assert "no verdict" not in folder.run("rank", "first", "right", *look).out
    left = next(each for each in value["candidates"] if each["address"] == "left")
    assert (left["n"], left["difference"]["n"]) == (35, 35)


def test_one_evaluation_alone_is_refused(four: Folder) -> None:
    assert "--by COLUMN" in refusal(four.run("rank", "first"))
    assert "select/nothing" in refusal(four.run("rank", "nobody"))


# --- one evaluation, candidates by a column ---


def test_the_values_of_a_column_are_candidates(folder: Folder) -> None:
    value = ranked(scores(folder), "quality", "--by", "model")
    assert ranks(value) == [("large", 1), ("middle", 2), ("small", 3)]
    assert [each["value"] for each in value["candidates"]] == pytest.approx([4.0, 3.0, 1.8])
    assert (value["item"], value["paired"]) == ("prompt", True)
    assert value["candidates"][1]["difference"]["value"] == -1.0  # on every prompt
    assert any("10 rows are few" in each for each in value["warnings"])


def test_rows_that_cannot_be_paired_are_separate_samples(folder: Folder) -> None:
    rows = [{key: row[key] for key in row if key != "prompt"} for row in long()]
    folder.rows(rows).spec(
        "quality", type="score", judge={"column": "score"}, min_score=1, max_score=5, model_to_evaluate="answer"
    )
    folder.applied()
    value = ranked(folder, "quality", "--by", "model")
    assert (value["item"], value["paired"]) == (None, False)
    assert value["candidates"][2]["test"] == "permutation"
    assert any("separate samples" in each for each in value["warnings"])
    paired = ranked(scores(folder), "quality", "--by", "model", "--item", "prompt")
    assert value["candidates"][1]["p_vs_leader"] > paired["candidates"][1]["p_vs_leader"]


def test_by_says_what_it_cannot_do(folder: Folder) -> None:
    scores(folder)
    assert "did you mean `model`" in refusal(folder.run("rank", "quality", "--by", "modle"))
    assert "one column" in refusal(folder.run("rank", "quality", "--by", "model,id"))
    assert "--item goes with --by" in folder.run("rank", "quality", "--item", "prompt").err
    candidate(folder, "first", dataset="wide.jsonl")
    folder.rows(wide(), "wide.jsonl").applied()
    assert "2 are selected" in refusal(folder.run("rank", "--by", "model"))
    assert "40 values" not in (err := refusal(folder.run("rank", "first", "--by", "label_first", "-x", "first")))
    assert "rank/nothing" in err
    rows = [{**row, "model": f"m{number}"} for number, row in enumerate(wide({"first": 3}, 60))]
    folder.rows(rows, "wide.jsonl").applied()
    assert "60 values" in refusal(folder.run("rank", "first", "--by", "model"))


def test_rows_that_changed_since_are_refused(folder: Folder) -> None:
    scores(folder)
    folder.rows([{**row, "score": 5} for row in long()], "long.jsonl")
    assert "not here any more" in refusal(folder.run("rank", "quality", "--by", "model"))


def test_rows_without_a_verdict_count_for_each_value_of_the_column(folder: Folder) -> None:
    rows = [
        {**row, "score": "none" if row["id"] in {f"small-{n}" for n in range(6)} else row["score"]} for row in long()
    ]
    folder.rows(rows).spec(
        "quality", type="score", judge={"column": "score"}, min_score=1, max_score=5, model_to_evaluate="answer"
    )
    folder.applied()
    value = ranked(folder, "quality", "--by", "model")
    assert {each["name"]: each["no_verdict"] for each in value["candidates"]} == {"large": 0, "middle": 0, "small": 6}
    assert "`small` has no verdict on 6 of 10 rows: its value is over the others only" in value["warnings"]


# --- pairs ---


def test_two_columns_name_the_players(folder: Folder) -> None:
    folder.rows(pairs()).spec("duel", type="compare", judge={"column": "choice"}, model_a="one", model_b="two")
    folder.applied()
    value = ranked(folder, "duel", "--by", "model_a,model_b")
    assert (value["metric"], ranks(value)) == ("bradley_terry", [("ant", 1), ("bee", 2), ("cat", 3)])
    assert [each["win_rate"]["value"] for each in value["candidates"]] == pytest.approx([0.7, 0.5, 0.3])
    assert [each["wins"] for each in value["candidates"]] == [14.0, 10.0, 6.0]
    assert value["candidates"][0]["value"] + value["candidates"][2]["value"] == pytest.approx(0.0, abs=1e-6)
    assert "two columns" in refusal(folder.run("rank", "duel", "--by", "model_a"))


def test_evaluations_that_compare_give_one_ranking(folder: Folder) -> None:
    rows = [
        {"x": f"x{n}", "y": f"y{n}", "z": f"z{n}", "xy": "AAB"[n % 3], "yz": "ABA"[n % 3], "tie": "Tie"}
        for n in range(30)
    ]
    folder.rows(rows)
    for name, one, other in (("xy", "x", "y"), ("yz", "y", "z")):
        folder.spec(name, type="compare", judge={"column": name}, model_a=one, model_b=other)
    folder.applied()
    value = ranked(folder)
    assert ranks(value) == [("x", 1), ("y", 2), ("z", 3)]
    assert ranks(ranked(folder, "xy")) == [("x", 1), ("y", 2)]
    folder.spec("vw", type="compare", judge={"column": "tie"}, model_a="xy", model_b="yz")
    folder.applied()
    assert "rank/disconnected" in refusal(folder.run("rank"))


# --- how it looks ---


def test_the_table_says_what_was_ranked_and_how_sure_it_is(four: Folder) -> None:
    out = four.run("rank").out
    assert out.startswith(
        "Ranked by pass_percentage, on rows.jsonl (40 rows), judged by recorded verdicts in label_first"
    )
    lines = [line.split() for line in out.splitlines()]
    assert ["2", "2–3", "by_left", "left", "60.0", "[44.6,", "73.7]", "40"] in [line[:8] for line in lines]
    assert "taken on trust" in out


def test_markdown_holds_the_same_and_nothing_that_a_name_could_do(folder: Folder) -> None:
    evil = "<b>@team</b> | [x](http://evil.example) `code` ![i](//e)"
    rows = [{**row, "model": evil if row["model"] == "large" else row["model"]} for row in long()]
    folder.rows(rows).spec(
        "quality", type="score", judge={"column": "score"}, min_score=1, max_score=5, model_to_evaluate="answer"
    )
    folder.applied()
    out = folder.run("rank", "quality", "--by", "model", "--format", "markdown").out
    header, rule, first, *_ = [line for line in out.splitlines() if line.startswith("|")]
    bars = [len(re.findall(r"(?<!\\)\|", line)) for line in (header, rule, first)]
    assert bars[0] == bars[1] == bars[2]
    name = re.split(r"(?<!\\)\|", first)[3].strip()
    assert name == "``" + evil.replace("|", "\\|") + "``"
    assert "| 2 | 2 | `middle` |" in out


def test_help_teaches_by_example(folder: Folder) -> None:
    done = folder.run("rank", "--help")
    assert done.code == 0
    assert "evalops rank recipe-quality --by model --item prompt" in done.out
