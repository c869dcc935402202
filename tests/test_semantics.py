"""What a schema cannot say about an evaluation. The messages are in cases/validate; these are the edges."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SPEC
from evaluations import evaluation

from evalops import document, semantics, spec
from evalops.errors import Mark
from evalops.settings import Settings
from evalops.spec import Evaluation


def found(**fields: Any) -> list[str]:
    return [f"{each.severity}: {each.message}" for each in semantics.check(evaluation(**fields))]


def codes(**fields: Any) -> list[str]:
    return [each.code for each in semantics.check(evaluation(**fields))]


def read(text: str) -> Evaluation:
    documents, problems = document.parse(text.encode(), "tone.yaml")
    (one,), more = spec.load(documents[0], Settings(), lambda path: "Polite?\n{{ a }}\n{{ b }}")
    assert not problems + more
    return one


def test_a_good_evaluation_of_each_type() -> None:
    assert found() == found(type="score") == found(type="compare") == []


# --- labels, ranges ---


@pytest.mark.parametrize(
    ("labels", "wrong"),
    [
        (["a", "b"], 0),
        (["a", "A"], 1),
        (["A", "B"], 0),
        (["Yes", "yes", "YES"], 2),
        ([" a", "a "], 1),
        (["straße", "STRASSE"], 1),
        (["a", "b\nc"], 1),
        (["a", " "], 1),
        (["a", "b c"], 0),
    ],
)
def test_labels_that_cannot_be_kept_apart(labels: list[str], wrong: int) -> None:
    assert codes(labels=labels) == ["spec/labels"] * wrong


def test_pass_labels() -> None:
    assert found(pass_labels=["polite"]) == []
    assert found(pass_labels=["Polite"]) == ["error: `pass_labels` names `Polite`, which is not one of the labels"]
    assert found(pass_labels=["rude", "polite"]) == ["warning: every label is in `pass_labels`, so no row can fail"]


@pytest.mark.parametrize(
    ("low", "high", "threshold", "wrong"),
    [
        (1, 5, None, 0),
        (1, 5, 1, 0),
        (1, 5, 5, 0),
        (1, 5, 0.99, 1),
        (1, 5, 5.01, 1),
        (5, 5, None, 1),
        (5, 1, 3, 1),
        (-1, 0, -0.5, 0),
    ],
)
def test_ranges(low: float, high: float, threshold: float | None, wrong: int) -> None:
    assert codes(type="score", min_score=low, max_score=high, pass_threshold=threshold) == ["spec/range"] * wrong


# --- judges and templates ---

WRITER = {"model": "writer-9", "input_template": "{{ q }}"}


def test_a_recorded_judge_calls_no_model() -> None:
    recorded = {"column": "label"}
    assert found(judge=recorded) == []
    said = ["error: the verdicts are recorded in a column, so `model_to_evaluate` cannot write new responses"]
    assert found(judge=recorded, model_to_evaluate=WRITER) == said
    assert len(found(type="compare", judge=recorded, model_a=dict(WRITER), model_b=dict(WRITER))) == 2


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [({}, 0), ({"type": "score"}, 1), ({"type": "compare"}, 1), ({"model_to_evaluate": WRITER}, 1)],
)
def test_likelihood_is_for_classify_over_columns(fields: dict[str, Any], wrong: int) -> None:
    assert codes(judge={"verdict": "likelihood"}, **fields) == ["spec/judge"] * wrong


def test_a_template_without_columns_asks_every_row_the_same() -> None:
    assert codes(model_to_evaluate=None) == ["template/no-columns"]
    assert codes(model_to_evaluate=None, judge={"system_template": "{{ x }}"}) == []
    # One that cannot be read has a problem of its own.
    assert codes(model_to_evaluate=None, judge={"system_template": "{{ x"}) == ["template/syntax"]


@pytest.mark.parametrize(
    ("judge", "writer", "warned"),
    [
        ("openai/gpt-4o", "openai/gpt-4o-mini", True),
        ("openai/gpt-4o", "anthropic/claude-sonnet-4", False),
        ("openai/gpt-4o", "together/gpt-oss", True),
        ("embedded/smollm2-135m", "embedded/smollm2-135m", True),
    ],
)
def test_a_judge_of_its_own_family_is_warned_of(judge: str, writer: str, warned: bool) -> None:
    said = found(judge={"model": judge}, model_to_evaluate={**WRITER, "model": writer})
    assert [each.startswith("warning") for each in said] == [True] * warned


# --- where a column is named ---


@pytest.mark.parametrize(
    ("text", "column", "mark"),
    [
        (SPEC, "response", Mark("tone.yaml", 9, 8)),
        (SPEC + "model_to_evaluate: reply\n", "reply", Mark("tone.yaml", 12, 1)),
        (SPEC + "gold: label\n", "label", Mark("tone.yaml", 12, 1)),
        (SPEC + "gold: label\n", "other", Mark("tone.yaml", 4, 1)),
        (SPEC.replace("data/rows.jsonl", "{path: x.csv, columns: {response: r}}"), "response", Mark("tone.yaml", 4, 34)),
        (SPEC.replace("Is this reply", "{# response #} response {% if x.response and y %}"), "response", Mark("tone.yaml", 9, 8)),
        (SPEC.replace("Is this reply", "responses {{ responses }}{% if response %}{% endif %}"), "response", Mark("tone.yaml", 8, 36)),
        (SPEC.replace("{{ response }}", "{{\n      q.response ~\n      response }}"), "response", Mark("tone.yaml", 11, 7)),
    ],
)  # fmt: skip
def test_place(text: str, column: str, mark: Mark) -> None:
    assert semantics.place(read(text.replace(" {% if x.response and y %}", "")), column) == mark


def test_a_column_in_a_template_file() -> None:
    one = read(SPEC.split("  system_template")[0] + "  system_template: {file: tone.md}\nlabels: [a, b]\n")
    assert semantics.place(one, "b") == Mark("tone.md", 3, 4)
    assert semantics.variables(one) == {"a", "b"}


def test_a_recorded_verdict_and_two_candidates() -> None:
    duel = read(
        SPEC.split("judge:")[0].replace("classify", "compare") + "judge: {column: label}\nmodel_a: one\nmodel_b: two\n"
    )
    assert semantics.place(duel, "label") == Mark("tone.yaml", 5, 9)
    assert semantics.place(duel, "two") == Mark("tone.yaml", 7, 1)


# --- addresses ---


def test_an_address_belongs_to_one_evaluation() -> None:
    one, two = read(SPEC), read("# moved\n" + SPEC)
    (problem,) = semantics.unique([one, two])
    assert (problem.code, problem.mark) == ("spec/duplicate-name", Mark("tone.yaml", 3, 1))
    assert problem.message == "`tone` is already the address of the evaluation at tone.yaml:2:1"
    assert len(semantics.unique([one, two, two])) == 2
    assert semantics.unique([one, read(SPEC.replace("name: tone", "name: other"))]) == []
