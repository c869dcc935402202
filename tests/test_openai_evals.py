"""An export of OpenAI Evals becomes specs: examples after its API, and exports that mean harm."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from command import Done
from conftest import Cli, Folder
from hypothesis import given, settings
from hypothesis import strategies as st
from import_cases import CASES, SETTINGS, compare, errors_of, holds, lay, results, serve_all, written
from model_server import Server

from evalops import template
from evalops.errors import EvalopsError
from evalops.importers import openai_evals, references, source
from evalops.importers.draft import Found
from evalops.importers.references import Reference
from evalops.template import Template

NAMES = sorted(path.name for path in CASES.iterdir() if path.name.startswith("openai-"))
CHECK = {
    "type": "string_check",
    "name": "Match",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}
ROWS = [
    {"item": {"q": "2 + 2?", "answer": "4"}, "sample": {"output_text": "4"}},
    {"item": {"q": "1 + 1?", "answer": "2"}},
]


def run(cli: Cli, paths: Sequence[str], *more: str) -> Done:
    return cli("import", "--from", "openai-evals", *paths, "--to", "evals", *more)


def eval_(*graders: Any, **fields: Any) -> dict[str, Any]:
    return {"object": "eval", "id": "eval_1", "name": "Sums", "testing_criteria": list(graders), **fields}


def run_of(rows: Any = ROWS, id_: str = "run_1", **fields: Any) -> dict[str, Any]:
    data = {"type": "jsonl", "source": {"type": "file_content", "content": rows}, **fields}
    return {"object": "eval.run", "id": id_, "eval_id": "eval_1", "name": f"Run {id_}", "data_source": data}


def found(*values: Any) -> Found:
    return openai_evals.found([(f"{number}.json", json.dumps(each).encode()) for number, each in enumerate(values)])


def fields(of: Found) -> Mapping[str, Any]:
    ((part,),) = (draft.parts for draft in of.drafts)
    return part.fields


def messages(of: Found) -> str:
    return "\n".join(f"{each.code} {each.mark}: {each.message}" for each in of.findings)


# --- the examples ---


@pytest.mark.parametrize("name", NAMES)
def test_an_example(name: str, folder: Folder, cli: Cli) -> None:
    paths = lay(folder, name)
    compare(folder, name, run(cli, paths))
    serve_all(folder, base_url="http://127.0.0.1:9/v1")
    holds(cli, "import", "--from", "openai-evals", *paths, "--to", "evals")


def test_an_imported_export_can_be_applied(folder: Folder, cli: Cli, models: Server) -> None:
    run(cli, lay(folder, "openai-notifications"))
    serve_all(folder, base_url=models.url)
    before = len(models.seen)
    assert cli("apply", "--yes", "-x", "*-overlap*").code == 0  # whose library is slow to import
    assert {entry["status"] for entry in results(folder).values()} == {"completed"}
    assert len(results(folder)) == 10
    asked = "\n".join(each.body.decode() for each in models.seen[before:])
    assert "Summarise for a phone." in asked
    assert "a good one is short; {% none %} has a list." in asked.lower()
    assert "Summary: (the response below)" in asked


def test_recorded_responses_are_graded_as_before(folder: Folder, cli: Cli) -> None:
    run(cli, lay(folder, "openai-recorded"))
    assert cli("apply", "--yes", "cafe-reviews-sentiment", "cafe-reviews-known-answer").code == 0
    summaries = {address: entry["summary"] for address, entry in results(folder).items()}
    assert {address: (each["score_counts"], each["invalid"]) for address, each in summaries.items()} == {
        "cafe-reviews-sentiment": ({"0": 1, "1": 2}, 0),
        "cafe-reviews-known-answer": ({"1": 2}, 1),
    }


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("name", NAMES)
def test_an_imported_export_runs_on_the_embedded_model(name: str, folder: Folder) -> None:
    cli = Cli(folder.root)  # without a home of its own: that would fetch the weights again
    run(cli, lay(folder, name))
    serve_all(folder, model="embedded/smollm2-135m")
    assert cli("plan").code == 0
    done = cli("apply", "--yes")
    assert done.code == 0, done.err
    assert {entry["status"] for entry in results(folder).values()} == {"completed"}


# --- what an export looks like ---


@pytest.mark.parametrize(
    "values",
    [
        [eval_(CHECK), run_of()],
        [[run_of(), eval_(CHECK)]],
        [{"object": "list", "data": [eval_(CHECK)]}, {"object": "list", "data": [run_of()]}],
        [{**eval_(CHECK), "runs": [run_of()]}],
        [{"evals": {"eval_1": {"eval": eval_(CHECK), "runs": {"data": [{**run_of(), "output_items": []}]}}}}],
        [eval_(CHECK), eval_(CHECK), run_of(), run_of()],
    ],
)
def test_an_export_in_any_wrapping(values: list[Any]) -> None:
    of = found(*values)
    assert [draft.name for draft in of.drafts] == ["sums-match"]
    assert fields(of)["gold"] == "answer"
    assert [row["response"] for row in of.drafts[0].rows] == ["4", ""]


def test_lines_of_json_and_a_file_without_a_suffix() -> None:
    lines = "\n".join(map(json.dumps, [eval_(CHECK), run_of()])).encode()
    assert len(openai_evals.found([("all.jsonl", b"\xef\xbb\xbf" + lines)]).drafts) == 1
    assert len(openai_evals.found([("export", json.dumps([eval_(CHECK), run_of()]).encode())]).drafts) == 1


def test_rows_of_a_file_go_to_the_run_that_names_it() -> None:
    runs = [run_of(None, f"run_{name}", source={"type": "file_id", "id": f"file-{name}"}) for name in "ab"]
    files = [
        (
            f"x/file-{name}.jsonl",
            json.dumps({"item": {"q": name, "answer": name}, "sample": {"output_text": name}}).encode(),
        )
        for name in "ab"
    ]
    of = openai_evals.found([("e.json", json.dumps([eval_(CHECK), *runs]).encode()), *files])
    assert {draft.name: [row["q"] for row in draft.rows] for draft in of.drafts} == {
        "sums-run-run_a-match": ["a"],
        "sums-run-run_b-match": ["b"],
    }
    alone = openai_evals.found([("e.json", json.dumps([eval_(CHECK), runs[0]]).encode()), ("other.jsonl", files[0][1])])
    assert [row["q"] for row in alone.drafts[0].rows] == ["a"]
    lost = found(eval_(CHECK), *runs)
    assert lost.drafts == ()
    assert messages(lost).count("are not in the export") == 2
    assert "client.files.content(ID)" in repr(lost.findings)


def test_output_items_alone_have_rows_and_responses() -> None:
    items = [{"run_id": "run_9", "eval_id": "eval_1", "datasource_item_id": n, "datasource_item": {"answer": str(n)}, "sample": {"output": [{"content": f"It is {n}"}]}} for n in (2, 1)]  # fmt: skip
    of = found(eval_(CHECK), items)
    assert [(row["answer"], row["response"]) for row in of.drafts[0].rows] == [("1", "It is 1"), ("2", "It is 2")]


def test_a_response_of_an_output_item_belongs_to_its_row() -> None:
    rows = [{"item": {"answer": name}} for name in "abca"]
    items = [{"run_id": "run_1", "datasource_item_id": n, "datasource_item": {"answer": name}, "sample": {"output": [{"content": f"{name}{n}"}]}} for n, name in enumerate("caab")]  # fmt: skip
    of = found(eval_(CHECK), run_of(rows), items)
    assert [row["response"] for row in of.drafts[0].rows] == ["a1", "b3", "c0", "a2"]


def test_what_an_export_lacks_is_said() -> None:
    assert "nothing says how the rows are judged" in messages(found(run_of()))
    assert "no rows for this eval" in messages(found(eval_(CHECK)))
    without = found(eval_(CHECK), run_of([{"item": {"answer": "4"}}]))
    assert "neither has any nor says how they are made" in messages(without)
    for data, what in (
        (b"{", "not JSON"),
        (b"{}", "no eval, run"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "number"),
    ):
        with pytest.raises(EvalopsError, match=what) as raised:
            openai_evals.found([("x.json", data)])
        assert raised.value.diagnostics[0].mark is not None


# --- runs ---

WRITES = {
    "type": "completions",
    "model": "gpt-4o",
    "input_messages": {"type": "template", "template": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "{{item.q}}"}]},
    "sampling_params": {"temperature": 0.5, "max_completion_tokens": 9, "top_p": 1.0, "seed": 1},
}  # fmt: skip


def test_a_run_that_writes_responses_is_a_candidate() -> None:
    of = found(eval_(CHECK), run_of(**WRITES))
    assert fields(of)["model_to_evaluate"] == {
        "model": "openai/gpt-4o", "temperature": 0.5, "max_tokens": 9, "system_template": "Be brief.", "input_template": "{{ q }}",
    }  # fmt: skip
    assert "cannot say `seed`" in messages(of)


def test_runs_that_differ_by_the_model_only_are_a_matrix() -> None:
    other = {**WRITES, "sampling_params": {}}
    of = found(
        eval_(CHECK), run_of(**WRITES), run_of(id_="run_2", **{**WRITES, "model": "o3"}), run_of(id_="run_3", **other)
    )
    assert {draft.name: draft.parts[0].fields.get("matrix") for draft in of.drafts} == {
        "sums-run-run_1-match": {"model_to_evaluate.model": ["openai/gpt-4o", "openai/o3"]},
        "sums-run-run_3-match": None,
    }


@pytest.mark.parametrize(
    "asked",
    [
        {"type": "item_reference", "item_reference": "item.chat"},
        {"type": "template", "template": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]},
        {"type": "template", "template": [{"role": "user", "content": {"type": "input_image", "image_url": "x"}}]},
        {"type": "template", "template": [{"role": "user", "content": "{{sample.output_text}}"}]},
    ],
)  # fmt: skip
def test_a_prompt_that_has_no_equal_leaves_the_recorded_responses(asked: dict[str, Any]) -> None:
    of = found(eval_(CHECK), run_of(**{**WRITES, "input_messages": asked}))
    assert fields(of)["model_to_evaluate"] == "response"
    assert "responses" in messages(of)


# --- graders ---


@pytest.mark.parametrize(
    ("grader", "evaluator", "more"),
    [
        ({}, {"kind": "exact", "strip": False}, {"model_to_evaluate": "response", "gold": "answer"}),
        ({"operation": "like"}, {"kind": "contains", "strip": False}, {"gold": "answer"}),
        ({"operation": "ilike", "reference": "FOUR"}, {"kind": "contains", "strip": False, "ignore_case": True}, {"gold": "expected"}),
        ({"operation": "ne", "reference": "I can't."}, {"kind": "regex", "pattern": r"\A(?!I can't\.\Z)"}, {"model_to_evaluate": "response"}),
        ({"input": "{{item.answer}}", "reference": "{{sample.output_text}}"}, {"kind": "exact", "strip": False}, {"model_to_evaluate": "response", "gold": "answer"}),
        ({"input": "{{ item.q }}", "reference": "{{ item.answer }}"}, {"kind": "exact", "strip": False}, {"model_to_evaluate": "q", "gold": "answer"}),
        ({"type": "text_similarity", "evaluation_metric": "bleu", "pass_threshold": 0.5}, {"kind": "bleu"}, {"pass_threshold": 0.5}),
        ({"type": "text_similarity", "evaluation_metric": "rouge_2"}, {"kind": "rouge", "variant": "rouge2"}, {}),
    ],
)  # fmt: skip
def test_a_grader_of_texts(grader: dict[str, Any], evaluator: dict[str, Any], more: dict[str, Any]) -> None:
    made = fields(found(eval_({**CHECK, **grader}), run_of()))
    assert made["evaluator"] == evaluator
    assert {key: made[key] for key in more} == more


JUDGE = {
    "type": "label_model",
    "name": "Tone",
    "model": "o3-mini",
    "labels": ["warm", "cold"],
    "passing_labels": ["warm"],
}


def test_a_grader_that_shows_the_response() -> None:
    asked = [
        {"role": "developer", "content": "\nLabel it.\n"},
        {"role": "user", "content": [{"type": "input_text", "text": "Q: {{item.q}}"}, "A: {{ sample.output_text }}"]},
    ]
    made = fields(found(eval_({**JUDGE, "input": asked}), run_of()))
    assert made["judge"] == {
        "model": "openai/o3-mini",
        "system_template": "Label it.\n\nQ: {{ q }}\nA: (the response below)\n",
    }
    assert (made["labels"], made["pass_labels"], made["model_to_evaluate"]) == (["warm", "cold"], ["warm"], "response")


def test_a_grader_that_shows_columns_only_judges_no_response() -> None:
    score = {
        "type": "score_model",
        "name": "Score",
        "model": "o3",
        "input": [{"role": "user", "content": "{{item.q}}"}],
        "pass_threshold": 0.5,
    }
    made = fields(found(eval_(score), run_of()))
    assert "model_to_evaluate" not in made
    assert (made["min_score"], made["max_score"], made["pass_threshold"]) == (0, 1, 0.5)
    ranged = fields(found(eval_({**score, "range": [-1, 7.5]}), run_of()))
    assert (ranged["min_score"], ranged["max_score"]) == (-1, 7.5)


@pytest.mark.parametrize(
    "grader",
    [
        {"type": "python", "source": "SECRET", "name": "Code"}, {"type": "multi", "name": "m"}, {"type": "endpoint"}, {}, None, "x", {"type": 4}, {"type": ["string_check"]},
        {**CHECK, "operation": "ne"}, {**CHECK, "operation": "gt"}, {**CHECK, "input": "{{sample.output_json.a}}"}, {**CHECK, "input": "a {{sample.output_text}}"},
        {**CHECK, "input": "constant", "reference": "constant"}, {**CHECK, "reference": ""}, {**CHECK, "input": None}, {**CHECK, "reference": "{{sample.output_text}}"},
        {**CHECK, "type": "text_similarity", "evaluation_metric": "cosine"}, {**CHECK, "type": "text_similarity"}, {**CHECK, "operation": "like", "input": "{{item.q}}", "reference": "{{sample.output_text}}"},
        {**JUDGE, "input": [{"role": "user", "content": {"type": "input_image"}}]}, {**JUDGE, "input": []}, {**JUDGE}, {**JUDGE, "model": None, "input": [{"role": "user", "content": "x"}]},
        {**JUDGE, "input": [{"role": "user", "content": "{{sample.choices}}"}]},
    ],
)  # fmt: skip
def test_a_grader_that_has_no_equal(grader: Any) -> None:
    of = found(eval_(grader), run_of())
    assert of.drafts == ()
    assert "import/no-equal 0.json:1:" in messages(of)
    assert "SECRET" not in repr(of)


def test_a_grader_that_would_be_no_valid_spec_is_left_out(folder: Folder, cli: Cli) -> None:
    one = {**JUDGE, "labels": ["warm"], "input": [{"role": "user", "content": "{{item.q}}"}]}
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/e.json": json.dumps([eval_(one, CHECK), run_of()])})
    done = run(cli, ["old/e.json"])
    assert (done.code, list(written(folder))) == (0, ["evals/data/sums.jsonl", "evals/sums-match.yaml"])
    assert (
        "old/e.json:1:74: warning[import/no-equal]: `sums-tone` would be no valid spec and is left out: `labels` "
        in done.err
    )


def test_names_that_a_template_cannot_use_are_changed_everywhere() -> None:
    rows = [{"item": {"Customer Name": "Ana", "_x": 1, "loop": 2, "日本": 3, "Customer-Name": 4, "id": "a"}}]
    text = "{{item.Customer Name}} {{item._x}} {{item.loop}} {{item.日本}} {{item['Customer-Name']}}"
    of = found(eval_({**JUDGE, "input": [{"role": "user", "content": text}]}), run_of(rows))
    (draft,) = of.drafts
    asked = draft.parts[0].fields["judge"]["system_template"]
    parsed = template.parse(asked)
    assert isinstance(parsed, Template)
    assert parsed.variables <= set(draft.rows[0])
    assert draft.id == "id"
    assert parsed.render(draft.rows[0]) == "Ana 1 2 {{item.日本}} 4\n"


def test_what_a_row_lacks_is_empty(folder: Folder, cli: Cli) -> None:
    rows = [
        {"item": {"q": "1", "answer": "2"}, "sample": {"output_text": "2"}},
        {"item": {}, "sample": {"output_text": "3"}},
    ]
    graders = [CHECK, {**JUDGE, "input": [{"role": "user", "content": "{{item.q}} {{item.more.inner}}"}]}]
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/e.json": json.dumps([eval_(*graders), run_of(rows)])})
    assert run(cli, ["old/e.json"]).code == 0
    assert "import/no-equal" not in run(cli, ["old/e.json"]).err
    assert cli("apply", "--yes", "sums-match").code == 0


# --- references ---


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{{item.a}}", ("item", "a")), ("{{ item.a.b[0].c }}", ("item", "a", "b", 0, "c")), ("{{item['a b']}}", ("item", "a b")), ('{{item["a"]}}', ("item", "a")),
        ("{{ item.Customer Name }}", ("item", "Customer Name")), ("{{sample.output_text}}", ("sample", "output_text")), ("{{item}}", None), ("{{item.}}", None),
        ("{{other.a}}", None), ("{{item.a", None), ("{item.a}}", None), ("{{itema.b}}", None), ("{{item.a[x]}}", None),
    ],
)  # fmt: skip
def test_a_reference(text: str, path: tuple[Any, ...] | None) -> None:
    assert references.only(text) == (None if path is None else Reference(path))


TEXTS = st.lists(st.sampled_from(["{{", "}}", "{%", "%}", "{#", "#}", "item.a", "{{item.a}}", "{{ item.b[0] }}", "{{sample.output_text}}", "'", '"', "\\", "\n", "x", "{", "\u2028"]), max_size=8).map("".join)  # fmt: skip


@settings(max_examples=100)
@given(TEXTS)
def test_a_text_is_a_template_that_says_the_same(text: str) -> None:
    item = {"a": "{{ not read }}", "b": ["second"]}
    made = template.parse(references.template(text, {"a": "a", "b": "b"}, "RESPONSE"))
    assert isinstance(made, Template)
    wanted = "".join(
        each
        if isinstance(each, str)
        else "RESPONSE"
        if each.is_response
        else references.shown(references.looked_up(each, item))
        for each in references.parts(text)
    )
    assert made.render(item) == wanted


@settings(max_examples=60)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=4), lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4), max_leaves=20), st.sampled_from([None, 0, 3]))  # fmt: skip
def test_a_mark_is_where_the_value_stands(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    (read,) = source.read(text.encode(), "x.json")
    lines = text.split("\n")

    def walk(inner: Any, *route: str | int) -> None:
        mark = read.mark(*route)
        rest = "\n".join([lines[mark.line - 1][mark.column - 1 :], *lines[mark.line :]])
        assert json.JSONDecoder().raw_decode(rest)[0] == inner
        for key, each in (
            inner.items() if isinstance(inner, dict) else enumerate(inner) if isinstance(inner, list) else ()
        ):
            walk(each, *route, key)

    walk(value)
    assert read.mark("no such key", 4).line >= 1


# --- exports that mean harm ---

WORDS = st.sampled_from(
    ["testing_criteria", "data_source", "datasource_item", "item", "sample", "source", "content", "input_messages", "template", "role", "user", "text", "type",
     "string_check", "label_model", "score_model", "text_similarity", "input", "reference", "operation", "eq", "ne", "ilike", "model", "labels", "passing_labels", "range",
     "name", "id", "eval_id", "run_id", "output_text", "output", "runs", "output_items", "datasource_item_id", "evaluation_metric", "rouge_l", "sampling_params",
     "{{item.a}}", "{{sample.output_text}}", "a", "\ud800", "../x", "file_id"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=5),
    max_leaves=20,
)
GRADERS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["string_check", "label_model", "score_model", "text_similarity", "python"])}, optional=dict.fromkeys(("name", "input", "reference", "operation", "model", "labels", "passing_labels", "range", "evaluation_metric", "pass_threshold", "sampling_params"), VALUES)) | VALUES, max_size=3)  # fmt: skip
ITEMS = st.lists(st.fixed_dictionaries({"item": st.dictionaries(WORDS, VALUES, max_size=3)}, optional={"sample": VALUES}) | VALUES, max_size=3)  # fmt: skip
RUNS = st.fixed_dictionaries({"data_source": st.fixed_dictionaries({"source": st.fixed_dictionaries({"content": ITEMS}) | VALUES}, optional={"model": VALUES, "input_messages": VALUES, "sampling_params": VALUES})}, optional={"id": VALUES, "eval_id": VALUES, "name": VALUES})  # fmt: skip
EXPORTS = st.lists(st.fixed_dictionaries({"testing_criteria": GRADERS}, optional={"id": VALUES, "name": VALUES}) | RUNS | VALUES, max_size=4)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=60)
@given(EXPORTS)
def test_values_of_any_kind_anywhere(export: list[Any]) -> None:
    try:
        of = found(export)
    except EvalopsError:
        return
    assert all(each.code.startswith("import/") for each in of.findings)
    assert all(draft.rows and draft.parts and draft.mark.line >= 1 for draft in of.drafts)


@settings(max_examples=15)
@given(EXPORTS)
def test_what_is_written_is_valid_whatever_the_export(export: list[Any]) -> None:
    assert errors_of("openai-evals", export) <= {"spec/model"}  # which evalops.yaml has to say


def test_a_file_that_is_too_large(folder: Folder, cli: Cli) -> None:
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/e.json": "[]"})
    with (folder.root / "old/e.json").open("r+b") as stream:
        stream.truncate((64 << 20) + 1)
    done = run(cli, ["old/e.json"])
    assert (done.code, written(folder)) == (1, {})
    assert "`old/e.json` is larger than 64 MiB" in done.err


def test_one_that_cannot_be_written_leaves_nothing(folder: Folder, cli: Cli) -> None:
    paths = lay(folder, "openai-recorded")
    (folder.root / "evals").mkdir()
    (folder.root / "evals/data").symlink_to(folder.root)
    before = {path for path in folder.root.rglob("*") if ".evalops" not in path.parts}
    done = run(cli, paths)
    assert done.code == 1
    assert "it is a symbolic link" in done.err
    assert {path for path in folder.root.rglob("*") if ".evalops" not in path.parts} == before


@pytest.mark.parametrize("name", ["../../evil", "a/b", "\0", "日本", ""])
def test_names_that_are_no_names_of_files(name: str, folder: Folder, cli: Cli) -> None:
    value = [eval_({**CHECK, "name": name}, name=name, id=name), run_of()]
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/e.json": json.dumps(value)})
    assert run(cli, ["old/e.json"]).code == 0
    assert all(re.fullmatch(r"evals/(data/)?[a-z0-9][a-z0-9._-]*\.(yaml|jsonl)", path) for path in written(folder))
    assert cli("validate").code == 0


def test_a_reference_without_an_end_is_read_once() -> None:
    """To look for the end again behind every blank would take hours here."""
    assert references.references("{{ item" + " " * 4_000_000) == []
