"""From a document to evaluations: defaults, names from evalops.yaml, the matrix, templates from files."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SPEC

from evalops import document, settings, spec
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.settings import Settings
from evalops.spec import Column, Evaluation, Model, Text, Type

FILES = {"prompts/tone.md": "Polite?\n{{ response }}\n"}


def read_text(path: str) -> str:
    if path not in FILES:
        raise EvalopsError(Diagnostic(code="file/missing", message=f"`{path}` does not exist"))
    return FILES[path]


def project(text: str) -> Settings:
    (found,), problems = document.parse(("version: 1\n" + text).encode(), "evalops.yaml")
    loaded, more = settings.load(found)
    assert not problems + more
    return loaded


def load(text: str, settings_: Settings | None = None) -> tuple[list[Evaluation], list[Diagnostic]]:
    documents, problems = document.parse(text.encode(), "tone.yaml")
    assert not problems
    return spec.load(documents[0], settings_ or Settings(), read_text)


def one(text: str, settings_: Settings | None = None) -> Evaluation:
    found, problems = load(text, settings_)
    assert not problems, problems
    assert len(found) == 1
    return found[0]


def test_every_field_arrives() -> None:
    found = one("""\
version: 1
name: tone
description: Replies stay polite
tags: [support, nightly]
type: classify
provider: local
dataset: {path: data/rows.csv, id: ticket, columns: {response: reply}}
judge:
  model: m
  model_source: external
  external_base_url: https://llm.example.com/v1
  credential: prod
  system_template: {file: prompts/tone.md}
  max_tokens: 200
  temperature: 0
  num_workers: 7
  reason: none
labels: [polite, rude]
pass_labels: [polite]
gold: label
model_to_evaluate:
  model: openai/gpt-4o-mini
  system_template: Be kind.
  input_template: "{{ question }}"
  max_tokens: 64
  temperature: 1
thresholds:
  kappa: {min: 0.6, on: lower}
  invalid_rate: {max: 0.02}
""")
    assert (found.address, found.name, found.spec, found.type) == ("tone", "tone", "tone.yaml", Type.CLASSIFY)
    assert (found.description, found.tags, found.provider) == ("Replies stay polite", ("support", "nightly"), "local")
    assert (found.dataset.path, found.dataset.id, found.dataset.columns) == (
        "data/rows.csv",
        "ticket",
        {"response": "reply"},
    )
    assert found.judge.template == Text(FILES["prompts/tone.md"], ("judge", "system_template"), "prompts/tone.md")
    assert (found.judge.reason, found.judge.likelihood, found.judge.column) == (False, False, None)
    assert found.judge.model == Model(
        model="m", route=("judge",), model_source="external", external_base_url="https://llm.example.com/v1",
        credential="prod", system_template=found.judge.template, max_tokens=200, temperature=0.0, num_workers=7,
    )  # fmt: skip
    (candidate,) = found.candidates
    assert isinstance(candidate, Model)
    assert candidate.input_template == Text("{{ question }}", ("model_to_evaluate", "input_template"))
    assert found.models == (candidate, found.judge.model)
    assert [each.source for each in found.texts] == ["Be kind.", "{{ question }}", FILES["prompts/tone.md"]]
    assert (found.labels, found.pass_labels, found.gold) == (("polite", "rude"), ("polite",), "label")
    assert [(each.metric, each.min, each.max, each.on) for each in found.thresholds] == [
        ("kappa", 0.6, None, "lower"),
        ("invalid_rate", None, 0.02, "estimate"),
    ]


@pytest.mark.parametrize("labels", ["[Yes, No, on]", "[off, ~x, 1e]", "['1.10', 'true', '~']"])
def test_labels_stay_text(labels: str) -> None:
    found = one(SPEC.replace("[polite, rude]", labels).replace("pass_labels: [polite]\n", ""))
    assert list(found.labels) == [word.strip(" '") for word in labels.strip("[]").split(",")]


def test_compare_and_score() -> None:
    duel = one(SPEC.replace("type: classify", "type: compare").split("labels:")[0] + "model_a: one\nmodel_b: two\n")
    assert duel.candidates == (Column("one"), Column("two"))
    assert duel.both_orders
    assert duel.response_columns == ("one", "two")
    grade = one(SPEC.replace("type: classify", "type: score").split("labels:")[0] + "min_score: 1\nmax_score: 5\n")
    assert (grade.min_score, grade.max_score, grade.pass_threshold, grade.candidates) == (1.0, 5.0, None, ())


def test_a_judge_that_was_recorded() -> None:
    found = one(
        SPEC.replace("judge:\n  model: ollama/llama3.2\n", "judge: {column: label}\nx:\n").split("x:")[0]
        + "labels: [a, b]\n"
    )
    assert (found.judge.column, found.judge.model, found.models, found.texts) == ("label", None, (), ())


def test_likelihood_gives_no_reason() -> None:
    found = one(SPEC.replace("judge:\n", "judge:\n  verdict: likelihood\n"))
    assert (found.judge.likelihood, found.judge.reason) == (True, False)


# --- what evalops.yaml adds ---

HOUSE = project("""\
judges:
  house:
    model: ollama/qwen3
    system_template: |
      Is it polite?
      {{ response }}
models:
  writer: {model: openai/gpt-4o-mini, input_template: "{{ question }}", max_tokens: 9}
  served: {base_url: "http://127.0.0.1:8000/v1", model: inner, max_tokens: 5}
""")
NAMED = SPEC.split("judge:")[0] + "judge: house\nlabels: [a, b]\n"


def test_a_judge_by_name() -> None:
    found = one(NAMED, HOUSE)
    assert found.judge.model is not None
    assert found.judge.model.model == "ollama/qwen3"
    assert found.places.mark("judge", "model") == Mark("evalops.yaml", 4, 5)
    assert found.places.line(("judge", "system_template"), 2, "{{ response }}", 4) == Mark("evalops.yaml", 7, 10)
    assert found.places.mark("labels", 1) == Mark("tone.yaml", 6, 13)


def test_an_unknown_judge_is_named_where_it_is_used() -> None:
    found, problems = load(NAMED.replace("house", "hous"), HOUSE)
    assert found == []
    assert [(each.code, each.mark, each.hint) for each in problems] == [
        ("spec/unknown-judge", Mark("tone.yaml", 5, 1), "did you mean `house`?")
    ]


def test_a_candidate_by_name() -> None:
    (writer,) = one(SPEC + "model_to_evaluate: writer\n", HOUSE).candidates
    assert isinstance(writer, Model)
    assert (writer.model, writer.max_tokens) == ("openai/gpt-4o-mini", 9)
    (served,) = one(SPEC + "model_to_evaluate: served\n", HOUSE).candidates
    assert isinstance(served, Model)
    assert (served.model, served.max_tokens) == ("served", 5)  # its id: endpoint.resolve finds the address under it


def test_a_candidate_that_is_no_name_is_a_column() -> None:
    assert one(SPEC + "model_to_evaluate: response\n", HOUSE).candidates == (Column("response"),)


def test_defaults_fill_what_a_spec_leaves_out() -> None:
    defaults = project(
        "defaults:\n  tags: [nightly]\n  judge: {column: label}\n  thresholds: {invalid_rate: {max: 0.1}}\n"
    )
    bare = SPEC.split("judge:")[0] + "labels: [a, b]\n"
    found = one(bare, defaults)
    assert (found.tags, found.judge.column, found.thresholds[0].metric) == (("nightly",), "label", "invalid_rate")
    assert found.places.mark("thresholds", "invalid_rate") == Mark("evalops.yaml", 5, 16)
    assert one(bare + "tags: [mine]\nthresholds: {}\n", defaults).tags == ("mine",)
    assert one(SPEC, defaults).judge.column is None


def test_the_provider_of_the_project_is_the_default() -> None:
    assert one(SPEC, project("provider: local\n")).provider == "local"


# --- the matrix ---


def test_each_combination_is_an_evaluation_with_its_own_places() -> None:
    found, problems = load(SPEC + "matrix:\n  judge.model: [ollama/a, ollama/b]\n  judge.temperature: [0]\n")
    assert problems == []
    assert [each.address for each in found] == [
        "tone[model=ollama/a,temperature=0]",
        "tone[model=ollama/b,temperature=0]",
    ]
    assert [each.judge.model.model for each in found if each.judge.model] == ["ollama/a", "ollama/b"]
    assert [each.places.mark("judge", "model") for each in found] == [
        Mark("tone.yaml", 13, 17),
        Mark("tone.yaml", 13, 27),
    ]
    assert {each.places.mark("judge", "system_template") for each in found} == {Mark("tone.yaml", 7, 3)}
    assert {each.places.mark("name") for each in found} == {Mark("tone.yaml", 2, 1)}


@pytest.mark.parametrize(
    ("base", "matrix"),
    [
        (SPEC.replace("dataset: data/rows.jsonl\n", ""), "dataset: [a.jsonl, b.jsonl]"),
        (SPEC.replace("  model: ollama/llama3.2\n", ""), "judge.model: [ollama/a]"),
        (SPEC.split("judge:")[0] + "labels: [a, b]\n", "judge: [{column: x}]"),
        (SPEC + "model_to_evaluate: {input_template: '{{ question }}'}\n", "model_to_evaluate.model: [ollama/a]"),
    ],
)
def test_a_required_field_may_come_from_the_matrix(base: str, matrix: str) -> None:
    found, problems = load(f"{base}matrix:\n  {matrix}\n")
    assert problems == []
    assert found


def test_what_no_combination_gives_is_still_missing() -> None:
    found, problems = load(
        SPEC.replace("labels: [polite, rude]\n", "") + "matrix:\n  judge.model: [ollama/a, ollama/b]\n"
    )
    assert found == []
    assert [each.message for each in problems] == ["`labels` is missing"]


def test_one_wrong_value_stands_where_it_was_written() -> None:
    found, problems = load(SPEC + "matrix:\n  judge.temperature: [0, 7, 1]\n")
    assert found == []
    assert [(each.message, each.mark) for each in problems] == [
        ("`judge.temperature` must be at most 2, not 7", Mark("tone.yaml", 13, 26))
    ]


def test_a_matrix_over_named_judges() -> None:
    found, problems = load(NAMED + "matrix:\n  judge: [house, {column: label}]\n", HOUSE)
    assert problems == []
    assert [each.judge.column for each in found] == [None, "label"]
    assert found[0].places.mark("judge", "model").path == "evalops.yaml"
    assert found[1].places.mark("judge", "column") == Mark("tone.yaml", 8, 19)


# --- templates ---


def test_a_template_file_that_is_missing_is_a_problem_of_its_line() -> None:
    text = SPEC.split("  system_template")[0] + "  system_template: {file: prompts/x.md}\nlabels: [a, b]\n"
    found, problems = load(text)
    assert found == []
    assert [(each.code, each.mark) for each in problems] == [("file/missing", Mark("tone.yaml", 7, 21))]


LINES: list[tuple[str, int, str, int, Mark]] = [
    ("|\n    one\n    {{ two }}\n", 2, "{{ two }}", 4, Mark("tone.yaml", 9, 8)),
    ("one {{ two }}\n", 1, "one {{ two }}", 8, Mark("tone.yaml", 7, 27)),
    ('"one {{ two }}"\n', 1, "one {{ two }}", 8, Mark("tone.yaml", 7, 28)),
    ('"one\\n{{ two }}"\n', 2, "{{ two }}", 4, Mark("tone.yaml", 7, 29)),  # escaped: found in the line all the same
    (">\n    one\n    {{ two }}\n", 1, "one {{ two }}", 8, Mark("tone.yaml", 7, 1)),  # folded: the line it starts on
]


@pytest.mark.parametrize(("written", "number", "line", "column", "mark"), LINES)
def test_a_place_inside_a_template(written: str, number: int, line: str, column: int, mark: Mark) -> None:
    text = SPEC.split("  system_template")[0] + f"  system_template: {written}labels: [a, b]\n"
    assert one(text).places.line(("judge", "system_template"), number, line, column) == mark


@pytest.mark.parametrize("value", ["- a\n", "text\n", "7\n", "null\n", "{}\n"])
def test_a_document_that_is_no_spec_is_a_problem_and_no_crash(value: Any) -> None:
    found, problems = load(value)
    assert found == []
    assert problems
