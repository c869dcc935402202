"""Where rows come from: the same rows are the same work wherever they lie, and nothing outside is ever read."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import Done
from conftest import ROWS, Cli, Folder

from evalops import benchmarks, catalog, sources
from evalops.errors import EvalopsError
from evalops.fingerprint import Digests
from evalops.project import Project

DATA = "".join(json.dumps(row) + "\n" for row in ROWS)
SHA = hashlib.sha256(DATA.encode()).hexdigest()
MANY = [{**ROWS[number % 3], "question": f"q{number}"} for number in range(12)]


def spec(dataset: Any, name: str = "tone", **fields: Any) -> str:
    """A spec that calls no model."""
    value = {
        "version": 1,
        "name": name,
        "type": "classify",
        "dataset": dataset,
        "judge": {"column": "label"},
        "labels": ["polite", "rude"],
        "model_to_evaluate": "response",
        **fields,
    }
    return yaml.safe_dump(json.loads(json.dumps(value)), sort_keys=False)  # no aliases


def settings(**datasets: Any) -> str:
    return json.dumps({"version": 1, "datasets": datasets})


def digests(folder: Folder, dataset: Any, **fields: Any) -> Digests:
    found = catalog.read(folder.write({"tone.yaml": spec(dataset, **fields)}))
    assert [each.message for each in found.diagnostics] == []
    return found.wanted[0].identity.digests


def table(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def good(done: Done) -> Done:
    assert done.code == 0, done
    return done


def actions(cli: Cli) -> dict[str, str]:
    return {each["address"]: each["action"] for each in good(cli("plan", "--format", "json")).json["changes"]}


# --- the same rows are the same work ---


def test_rows_are_the_same_wherever_they_lie(folder: Folder) -> None:
    folder.write({"evalops.yaml": settings(rows={"path": "data/rows.jsonl"}, sealed={"path": "data/rows.jsonl", "sha256": SHA})})  # fmt: skip
    here = digests(folder, "data/rows.jsonl")
    forms = ["rows", {"path": "rows"}, "sealed", {"rows": ROWS}, {"path": "data/rows.jsonl", "sample": {"size": 3}}]
    assert [digests(folder, form) for form in forms] == [here] * len(forms)
    assert here.rows == 3


def test_a_move_into_the_spec_or_under_a_name_is_free(folder: Folder, cli: Cli) -> None:
    folder.write({"tone.yaml": spec("data/rows.jsonl")})
    good(cli("apply", "--yes"))
    folder.write({"tone.yaml": spec({"rows": ROWS})})
    assert actions(cli) == {"tone": "noop"}
    folder.write({"tone.yaml": spec("replies"), "evalops.yaml": settings(replies={"path": "data/rows.jsonl"})})
    assert actions(cli) == {"tone": "noop"}
    rows = [json.loads(line) for line in good(cli("rows", "tone")).out.splitlines()]
    assert [row["source"] for row in rows] == ROWS


@pytest.mark.parametrize(
    "dataset",
    [{"rows": MANY, "sample": {"size": 5}}, "many", {"path": "many.csv", "sample": {"size": 5, "by": "label"}}],
)
def test_every_form_is_applied_shown_and_then_in_step(folder: Folder, cli: Cli, dataset: Any) -> None:
    folder.write(
        {
            "many.jsonl": MANY,
            "many.csv": table(MANY),
            "evalops.yaml": settings(many={"path": "many.jsonl"}),
            "tone.yaml": spec(dataset, gold="label"),
        }
    )
    good(cli("apply", "--yes"))
    size = 12 if dataset == "many" else 5
    found = [json.loads(line) for line in good(cli("rows", "tone")).out.splitlines()]
    assert len(found) == size
    assert {row["source"]["question"] for row in found} <= {row["question"] for row in MANY}
    assert json.loads(folder.read("tone.lock"))["evaluations"]["tone"]["dataset"]["rows"] == size
    assert actions(cli) == {"tone": "noop"}
    assert good(cli("apply", "--yes")).out == ""


def test_a_sample_keeps_its_rows_when_others_come(folder: Folder) -> None:
    def keys(rows: list[dict[str, Any]]) -> set[str]:
        folder.write({"many.jsonl": rows, "tone.yaml": spec({"path": "many.jsonl", "sample": {"size": 6}})})
        (wanted,) = catalog.read(Project(folder.root)).wanted
        found = list(sources.rows(Project(folder.root), wanted.evaluation))
        assert [row.position for _, row in found] == list(range(6))
        return {key for key, _ in found}

    assert len(keys(MANY) & keys([*MANY, {**ROWS[0], "question": "new"}])) >= 5


def test_a_problem_in_a_sample_is_at_its_line_of_the_file(folder: Folder) -> None:
    rows = [{"response": f"r{number}"} for number in range(9)]
    folder.write({"many.jsonl": [*rows, {"response": "x", "label": "rude"}], "tone.yaml": spec({"path": "many.jsonl", "sample": {"size": 10}})})  # fmt: skip
    folder.write({"many.jsonl": [{"response": "x", "label": "rude"}, *rows]})
    marks = [each.mark for each in catalog.read(Project(folder.root)).diagnostics]
    assert [mark.line for mark in marks if mark] == [2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_new_names_for_columns_are_the_same_in_every_form(folder: Folder, suffix: str) -> None:
    columns = {"answer": "response", "verdict": "label"}
    rows = [{"response": row["response"], "label": row["label"]} for row in ROWS]
    fields = {"model_to_evaluate": "answer", "judge": {"column": "verdict"}}
    content: Any = {"jsonl": rows, "csv": table(rows)}.get(suffix)
    if suffix == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        stream = io.BytesIO()
        parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
        content = stream.getvalue()
    folder.write({f"rows.{suffix}": content})
    inline = digests(folder, {"rows": rows, "columns": columns}, **fields)
    assert digests(folder, {"path": f"rows.{suffix}", "columns": columns}, **fields) == inline


def test_rows_in_a_spec_may_hold_what_json_does(folder: Folder) -> None:
    rows = [{"response": {"a": [1, 2.5, None, True]}, "label": "polite"}]
    text = (
        "version: 1\nname: tone\ntype: classify\ndataset: {rows: [{response: {a: [1, 2.5, ~, true]}, label: polite}]}\n"
    )
    text += "judge: {column: label}\nlabels: [polite, rude]\nmodel_to_evaluate: response\n"
    (wanted,) = catalog.read(folder.write({"tone.yaml": text})).wanted
    assert wanted.identity.digests == digests(folder, {"rows": rows})


def test_a_matrix_over_rows(folder: Folder) -> None:
    sets = [{"rows": ROWS[:1]}, {"rows": ROWS}]
    found = catalog.read(folder.write({"tone.yaml": spec("x", matrix={"dataset": sets})}))
    assert not found.diagnostics
    assert sorted(each.identity.digests.rows or 0 for each in found.wanted) == [1, 3]


# --- names ---


@pytest.mark.parametrize("name", benchmarks.names())
def test_the_sets_that_ship(folder: Folder, name: str) -> None:
    found = digests(folder, name, judge={"column": "gold"}, model_to_evaluate="prompt", labels=["a", "b"])
    assert found.rows == benchmarks.entry(name).rows


def test_a_set_of_the_project_has_the_content_that_it_is_sealed_with(folder: Folder, cli: Cli) -> None:
    folder.write(
        {"evalops.yaml": settings(sealed={"path": "data/rows.jsonl", "sha256": SHA}), "tone.yaml": spec("sealed")}
    )
    good(cli("validate"))
    folder.write({"data/rows.jsonl": DATA + "\n"})
    done = cli("plan")
    other = hashlib.sha256((DATA + "\n").encode()).hexdigest()
    assert done.code == 1
    assert f"has the sha256 {other}, and {SHA} is asked for" in done.err and "evalops.yaml:1:" in done.err


@pytest.mark.parametrize(
    "path", ["/etc/hosts", "../rows.jsonl", "link.jsonl", "linked/rows.jsonl", "data", "a\0.jsonl"]
)
def test_a_name_leads_nowhere_else(folder: Folder, path: str) -> None:
    (folder.root.parent / "rows.jsonl").write_text(DATA)
    (folder.root / "link.jsonl").symlink_to(folder.root / "data/rows.jsonl")
    (folder.root / "linked").symlink_to(folder.root / "data")
    project = folder.write({"evalops.yaml": settings(evil={"path": path}), "tone.yaml": spec("evil")})
    with pytest.raises(EvalopsError) as caught:
        list(sources.find(project, "evil").open())
    (problem,) = caught.value.diagnostics
    assert problem.code.startswith("file/")
    assert problem.mark is not None and problem.mark.path == "evalops.yaml"


@pytest.mark.parametrize("name", ["..", ".", "registry", "../registry.json", "math-benchmark-v1.jsonl", "nul\0"])
def test_a_name_of_a_set_that_ships_is_no_path(folder: Folder, name: str) -> None:
    with pytest.raises(EvalopsError):
        sources.find(Project(folder.root), name).open()


# --- files ---


def test_a_set_whose_file_changed_is_planned_anew(folder: Folder, cli: Cli) -> None:
    folder.write({"evalops.yaml": settings(replies={"path": "data/rows.jsonl"}), "tone.yaml": spec("replies")})
    good(cli("apply", "--yes"))
    assert [actions(cli) for _ in range(2)] == [{"tone": "noop"}] * 2
    folder.write({"data/rows.jsonl": ROWS[:2]})
    assert actions(cli) == {"tone": "rerun"}


def test_what_changed_since_a_revision(folder: Folder, cli: Cli) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *arguments],
            cwd=folder.root, check=True, capture_output=True,
        )  # fmt: skip

    def touched() -> set[str]:
        return {each["address"] for each in cli("plan", "--changed-since", "HEAD", "--format", "json").json["changes"]}

    folder.write(
        {
            "evalops.yaml": settings(replies={"path": "data/rows.jsonl"}),
            "other.jsonl": ROWS,
            "named.yaml": spec("replies", "named"),
            "inline.yaml": spec({"rows": ROWS}, "inline"),
            "shipped.yaml": spec("qa-benchmark-v1", "shipped", judge={"column": "gold"}, model_to_evaluate="prompt"),
            "other.yaml": spec("other.jsonl", "other"),
        }
    )
    git("init")
    git("add", ".")
    git("commit", "-m", "x")
    assert touched() == set()
    folder.write({"data/rows.jsonl": ROWS[:2]})
    assert touched() == {"named"}
    folder.write({"inline.yaml": spec({"rows": ROWS[:1]}, "inline")})
    assert touched() == {"named", "inline"}
    folder.write({"evalops.yaml": settings(replies={"path": "other.jsonl"})})
    assert touched() == {"named", "inline", "other", "shipped"}


def test_what_a_file_is_by_its_first_bytes(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    for data, expected in [
        (b'{"a": 1}\n', ".jsonl"),
        (b"\xef\xbb\xbf\n {", ".jsonl"),
        (b"a,b\n", ".csv"),
        (b"PAR1\0", ".parquet"),
        (b"", ".csv"),
    ]:
        path.write_bytes(data)
        assert sources.format_of(path) == expected
