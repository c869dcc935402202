"""`evalops dataset`: what is listed, what is shown, and that the spec to start from can be started from."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

import pytest
from conftest import ROWS, SPEC, Cli, Folder

from evalops import benchmarks, catalog
from evalops.lock import SUFFIX
from evalops.project import Project

EVIL = "evil\x1b[31m\u202e"


def listed(cli: Cli) -> dict[str, Any]:
    done = cli("dataset", "list", "--format", "json")
    assert done.code == 0, done
    return {each["path"]: each for each in done.json}


def shown(cli: Cli, name: str) -> Any:
    done = cli("dataset", "show", name, "--format", "json")
    assert done.code == 0, done
    return done.json


def problems(folder: Folder, spec: str) -> list[str]:
    """What is wrong with a spec beside that a judge is of the same family."""
    found = catalog.read(folder.write({"sketch.yaml": spec}))
    assert len(found.wanted) == 1 or found.diagnostics
    return [each.message for each in found.diagnostics if each.code != "spec/same-family"]


# --- list ---


def test_everything_that_a_spec_could_use_is_listed(folder: Folder, cli: Cli) -> None:
    inline = SPEC.replace("tone", "inline").replace("data/rows.jsonl", "{rows: [{response: x}]}")
    folder.write(
        {
            "evalops.yaml": "version: 1\ndatasets: {support-v1: {path: data/rows.jsonl, description: Our replies}}\n",
            "tone.yaml": SPEC,
            "named.yaml": SPEC.replace("tone", "named").replace("data/rows.jsonl", "support-v1"),
            "inline.yaml": inline,
            "other.csv": "a,b\n1,2\n",
            "tone.verdicts.jsonl": "",
            f"tone{SUFFIX}.txt": "",
        }
    )
    found = listed(cli)
    assert list(found)[:4] == ["data/rows.jsonl", "other.csv", "inline.yaml", "support-v1"]
    assert set(list(found)[4:]) == set(benchmarks.names())
    row = {"path": "data/rows.jsonl", "kind": "file", "rows": 3, "addresses": ["tone"], "description": ""}
    assert found["data/rows.jsonl"] == row
    assert (found["other.csv"]["rows"], found["other.csv"]["addresses"]) == (None, [])
    assert (found["inline.yaml"]["rows"], found["inline.yaml"]["kind"]) == (1, "rows")
    assert (found["support-v1"]["rows"], found["support-v1"]["addresses"]) == (3, ["named"])
    assert found["qa-benchmark-v1"]["rows"] == benchmarks.entry("qa-benchmark-v1").rows
    text = cli("dataset", "list").out
    assert "Our replies" in text and "rows in the spec" in text


def test_a_dataset_that_cannot_be_read_is_a_problem(folder: Folder, cli: Cli) -> None:
    folder.write({"tone.yaml": SPEC.replace("data/rows.jsonl", "data/gone.jsonl")})
    done = cli("dataset", "list")
    assert done.code == 1 and "file/missing" in done.err
    assert "qa-benchmark-v1" in done.out


def test_a_sample_does_not_say_how_many_rows_a_file_has(folder: Folder, cli: Cli) -> None:
    folder.write({"tone.yaml": SPEC.replace("data/rows.jsonl", "{path: data/rows.jsonl, sample: {size: 2}}")})
    assert listed(cli)["data/rows.jsonl"]["rows"] is None


# --- show ---


def test_a_file_is_shown(folder: Folder, cli: Cli) -> None:
    found = shown(cli, "data/rows.jsonl")
    data = (folder.root / "data/rows.jsonl").read_bytes()
    assert (found["rows"], found["repeated_rows"], found["sha256"]) == (3, 0, hashlib.sha256(data).hexdigest())
    columns = {each["name"]: each for each in found["columns"]}
    assert list(columns) == ["question", "response", "label", "grade"]
    assert columns["label"]["values"] == {"polite": 2, "rude": 1}
    assert columns["grade"]["numbers"] == {"least": 2, "most": 5}
    assert columns["question"]["lengths"] == {"least": 15, "median": 16, "most": 19}
    assert found["first_rows"] == ROWS
    text = cli("dataset", "show", "data/rows.jsonl").out
    assert "label: polite 2, rude 1" in text and "2 to 5" in text and f"sha256 {found['sha256']}" in text
    assert found["spec"] in text


@pytest.mark.parametrize("name", benchmarks.names())
def test_the_sets_that_ship_are_shown_with_a_spec_that_is_fine(folder: Folder, cli: Cli, name: str) -> None:
    found = shown(cli, name)
    assert (found["kind"], found["rows"], found["repeated_rows"]) == ("shipped", benchmarks.entry(name).rows, 0)
    assert found["sha256"] == benchmarks.entry(name).sha256
    assert problems(folder, found["spec"]) == []


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (ROWS, ["gold: label", "model_to_evaluate: response", "question: {{ question }}"]),
        ([{"id": "a", "text": "x"}, {"id": "b", "text": "x"}], ["id: id", "text: {{ text }}"]),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], ["text: {{ text }}"]),
        ([{"The question": "x", "true": "y", "3": "z"}], ["the_question: The question", "{{ the_question }}"]),
        ([{"label": "No", "answer": ""}, {"label": "Yes", "answer": "x"}, {"label": "No", "answer": "y"}], []),
        ([{"label": 1, "q": "x"}, {"label": 1, "q": "y"}], ["good", "bad"]),
        ([{"label": "a", "q": "x"}, {"label": "A", "q": "y"}, {"label": "A", "q": "y"}], ["good", "bad"]),
        ([{"gold": "a", "category": "x", "only": "1"}, {"gold": "b", "category": "x"}], ["group_by"]),
        ([{"é": "x", EVIL: "y", "loop": "z"}], []),
    ],
    ids=str,
)
def test_the_spec_to_start_from_is_fine(folder: Folder, cli: Cli, rows: list[dict[str, Any]], words: list[str]) -> None:
    folder.write({"some rows.jsonl": rows})
    spec = shown(cli, "some rows.jsonl")["spec"]
    found = problems(folder, spec)
    assert [each for each in found if "is empty in" not in each] == []
    assert all(word in spec for word in words), spec


def test_a_set_of_the_project_is_shown_by_its_name(folder: Folder, cli: Cli) -> None:
    about = "{path: data/rows.jsonl, description: Our replies, licence: internal}"
    folder.write({"evalops.yaml": f"version: 1\ndatasets: {{support-v1: {about}}}\n"})
    found = shown(cli, "support-v1")
    assert (found["kind"], found["description"], found["licence"]) == ("project", "Our replies", "internal")
    assert "dataset: support-v1" in found["spec"] and "name: support-v1" in found["spec"]
    assert problems(folder, found["spec"]) == []
    assert "Our replies Licence: internal." in cli("dataset", "show", "support-v1").out


def test_csv_and_parquet_are_shown(folder: Folder, cli: Cli) -> None:
    folder.write({"rows.csv": "a,b\nx,1\nx,1\ny,\n"})
    found = shown(cli, "rows.csv")
    assert (found["rows"], found["repeated_rows"]) == (3, 1)
    assert found["columns"][1]["empties"] == 1
    assert "1 of them a repetition" in cli("dataset", "show", "rows.csv").out


def test_nothing_in_a_dataset_does_something_in_a_terminal(folder: Folder, cli: Cli) -> None:
    row = {EVIL: EVIL, "label": EVIL, "nested": {EVIL: "::error::x"}, "half": "\ud800"}
    folder.write({"rows.jsonl": "".join(json.dumps(each) + "\n" for each in [row, row])})
    text = cli("dataset", "show", "rows.jsonl").out
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[31m" in text
    assert not any(line.startswith("::") for line in text.splitlines())
    assert shown(cli, "rows.jsonl")["first_rows"][0]["label"] == EVIL


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("maths-benchmark-v1", "did you mean `math-benchmark-v1`?"),
        ("data/gone.jsonl", "`data/gone.jsonl` does not exist"),
        ("../rows.jsonl", "is not a path inside the project"),
        ("tone.yaml", "is neither the name of a set nor a file"),
    ],
)
def test_what_is_not_there(folder: Folder, cli: Cli, name: str, words: str) -> None:
    folder.write({"tone.yaml": SPEC})
    done = cli("dataset", "show", name)
    assert done.code == 1 and words in done.err


def test_a_file_with_a_broken_row(folder: Folder, cli: Cli) -> None:
    folder.write({"rows.jsonl": '{"a": 1}\n[]\n'})
    done = cli("dataset", "show", "rows.jsonl")
    assert done.code == 1 and "rows.jsonl:2:1" in done.err and done.out == ""


def test_a_project_without_specs_lists_what_ships(folder: Folder, cli: Cli) -> None:
    assert Project(folder.root).specs() == []
    assert set(benchmarks.names()) <= set(listed(cli))


def test_the_spec_to_start_from_shows_the_judge_texts_and_nothing_that_somebody_found(folder: Folder, cli: Cli) -> None:
    rows = [
        {"prompt": f"Question {n}?", "response": f"Answer {n}.", "annotator": "ab"[n % 2], "grade": n % 5, "safe": True}
        for n in range(40)
    ]
    folder.write({"data/found.jsonl": rows})
    out = cli("dataset", "show", "data/found.jsonl").out
    assert re.findall(r"{{ (\w+) }}", out) == ["prompt", "response"]
