"""What Patronus would refuse, or bill twice, is said by validate with file, line and column."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import patronus_service
import pytest
import yaml
from conftest import Cli, Folder
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops.datasets.dataset import Row
from evalops.errors import Mark, has_errors
from evalops.patronus import Grader, Patronus, needs
from evalops.providers import patronus_request as wire
from evalops.providers import patronus_rules as rules

SPEC = """\
version: 1
name: tone
type: classify
provider: patronus
dataset: rows.jsonl
evaluators:
  - evaluator: judge
    criteria: polite
patronus:
  capture: all
  columns:
    task_input: question
    task_output: answer
    task_context: passages
"""
ROW = {"question": "q", "answer": "a", "passages": ["p"], "gold": "g", "files": None}


def told(folder: Folder, cli: Cli, text: str = SPEC, rows: list[dict[str, Any]] | None = None) -> list[str]:
    """What validate says: code, place and message of each problem."""
    folder.write({"tone.yaml": text, "rows.jsonl": rows or [ROW], "data/rows.jsonl": [ROW]})
    return [
        f"{each['path']}:{each['line']}:{each['column']} {each['code']}: {each['message']}"
        for each in cli("validate", "--format", "json").json
    ]


def but(**changes: Any) -> str:
    """The spec with other fields; None takes one away."""
    value = yaml.safe_load(SPEC)
    for key, each in changes.items():
        name = key.removeprefix("p_")
        where = value["patronus"] if key != name else value
        where[name] = each
    return yaml.safe_dump({key: each for key, each in value.items() if each is not None}, sort_keys=False)


def test_a_good_spec_has_no_problem(folder: Folder, cli: Cli) -> None:
    assert told(folder, cli) == []


ALONE = [
    (SPEC + "judge: {model: openai/gpt-4o-mini, system_template: 'Is {{ answer }} ok?'}\n", "15:1 patronus/judge", "provider: local"),
    (SPEC.replace("type: classify", "type: compare") + "model_a: answer\nmodel_b: question\n", "3:1 patronus/type", "evalops rank"),
    (SPEC.replace("type: classify", "type: custom") + "evaluator: exact\nmodel_to_evaluate: answer\ngold: gold\n", "3:1 patronus/type", "provider: local"),
    (SPEC + "repeats: 3\n", "15:1 patronus/judge", "evaluators"),
    (SPEC + "labels: [good, bad]\npass_labels: [good]\n", "15:1 patronus/labels", "remove `labels`"),
    (SPEC + "pass_labels: [fail]\n", "15:1 patronus/labels", "remove `pass_labels`"),
    (SPEC.replace("type: classify", "type: score") + "min_score: 1\nmax_score: 5\n", "15:1 patronus/score", "remove `min_score`"),
    (SPEC.replace("type: classify", "type: score") + "  combine: any_pass\n", "15:3 patronus/score", "remove it"),
    (SPEC + "  app: chat\n  experiment: first\n", "15:3 patronus/place", "remove `app`"),
    (SPEC + "  tags: {evalops: mine}\n", "15:10 patronus/tags", "another name"),
    (SPEC.replace("    criteria: polite\n", "    criteria: polite\n  - {evaluator: judge, criteria: polite}\n"), "9:5 patronus/evaluators", "remove one"),
    (SPEC.replace("    task_input: question\n    task_output: answer\n", ""), "11:3 patronus/columns", "task_input"),
    (SPEC.replace("evaluator: judge\n    criteria: polite", "evaluator: context-sufficiency"), "7:5 patronus/columns", "gold_answer"),
    (SPEC.replace("criteria: polite", "criteria: patronus:fuzzy-match:2"), "7:5 patronus/columns", "gold_answer"),
    (SPEC + "model_to_evaluate: gold\n", "13:5 patronus/columns", "remove one"),
    (SPEC + "model_to_evaluate: {model: openai/gpt-4o-mini, input_template: '{{ question }}'}\n", "15:1 patronus/model", "provider: local"),
    (SPEC.replace("evaluators:\n  - evaluator: judge\n    criteria: polite\n", ""), "4:1 patronus/evaluators", "provider: local"),
    (SPEC.replace("provider: patronus", "provider: local"), "6:1 spec/patronus", "provider: patronus"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "where", "hint"), ALONE, ids=[where for _, where, _ in ALONE])
def test_what_a_spec_asks_that_patronus_does_not_do(folder: Folder, cli: Cli, text: str, where: str, hint: str) -> None:
    place, code = where.split()
    folder.write({"tone.yaml": text, "rows.jsonl": [ROW]})
    done = cli("validate", "--format", "json")
    found = [each for each in done.json if each["code"] == code]
    assert done.code == 1 and found, done
    assert f"{found[0]['line']}:{found[0]['column']}" == place, done
    assert hint in found[0]["hint"]


ENUMS = [
    ({"p_capture": "some"}, "patronus.capture"),
    ({"p_confidence_interval_strategy": "generated"}, "patronus.confidence_interval_strategy"),
    ({"p_app": "x"}, "patronus.app"),
    ({"p_app": "naïve"}, "patronus.app"),
    ({"p_project_id": "not-a-uuid"}, "patronus.project_id"),
    ({"p_lost_reply": "maybe"}, "patronus.lost_reply"),
    ({"p_tags": {"a": 1}}, "patronus.tags.a"),
    ({"p_experiment": "x" * 101}, "patronus.experiment"),
    ({"p_columns": {"task_inputs": "question"}}, "task_inputs"),
    ({"evaluators": [{"evaluator": "judge", "explain_strategy": "sometimes"}]}, "explain_strategy"),
    ({"evaluators": [{"evaluator": ""}]}, "evaluator"),
    ({"evaluators": [{"criteria": "x"}]}, "evaluator"),
    ({"evaluators": []}, "evaluators"),
]


@pytest.mark.parametrize(
    ("changes", "named"), ENUMS, ids=[f"{named}-{number}" for number, (_, named) in enumerate(ENUMS)]
)
def test_every_field_is_checked(folder: Folder, cli: Cli, changes: dict[str, Any], named: str) -> None:
    found = told(folder, cli, but(**changes))
    assert len(found) == 1 and " schema/" in found[0] and named in found[0], found
    assert found[0].startswith("tone.yaml:") and ":None" not in found[0]


APP = "use 2 to 50 letters without accents, digits, spaces, `_`, `.`, `/` and `-`"
ID = "an id looks like 123e4567-e89b-12d3-a456-426614174000; a project's name goes in `project`"


@pytest.mark.parametrize(
    ("changes", "message", "hint"),
    [
        ({"p_app": "x"}, "`patronus.app` must have 2 characters at the least, and `x` has 1", APP),
        ({"p_app": ""}, '`patronus.app` must have 2 characters at the least, and `""` has none', APP),
        ({"p_app": "naïve"}, "`patronus.app` is `naïve`, which is no name of an app at Patronus", APP),
        ({"p_app": "x" * 51}, "`patronus.app` is longer than 50 characters", None),
        (
            {"p_project_id": "support"},
            "`patronus.project_id` is `support`, which is no id of a project at Patronus",
            ID,
        ),
    ],
)
def test_what_a_name_may_be_is_said_in_words(
    folder: Folder, cli: Cli, changes: dict[str, Any], message: str, hint: str | None
) -> None:
    folder.write({"tone.yaml": but(**changes), "rows.jsonl": [ROW]})
    (found,) = cli("validate", "--format", "json").json
    assert (found["message"], found["hint"]) == (message, hint)


def test_evaluators_from_the_settings_of_a_project_need_no_judge(folder: Folder, cli: Cli) -> None:
    folder.write(
        {"evalops.yaml": "version: 1\nprovider: patronus\ndefaults: {judge: {model: x, system_template: y}}\n"}
    )
    assert told(folder, cli, SPEC.replace("provider: patronus\n", "")) == []


def test_without_captures_a_lost_answer_may_be_billed_twice(folder: Folder, cli: Cli) -> None:
    for capture in ("none", "fails-only"):
        (found,) = told(folder, cli, but(p_capture=capture))
        assert "patronus/capture" in found and "billed twice" in found and capture in found
    assert told(folder, cli, but(p_capture="none", p_lost_reply="repeat")) == []
    assert told(folder, cli, but(p_capture="fails-only", p_lost_reply="error")) == []
    (found,) = told(folder, cli, SPEC.replace("  capture: all\n", ""))
    assert found.startswith("tone.yaml:9:1 patronus/capture")


def test_project_comes_before_its_id(folder: Folder, cli: Cli) -> None:
    both = but(p_project="a", p_project_id="00000000-0000-0000-0000-000000000000")
    assert [each.split()[1] for each in told(folder, cli, both)] == ["patronus/place:"]


# Rows


def test_a_row_has_an_input_or_an_output(folder: Folder, cli: Cli) -> None:
    found = told(folder, cli, rows=[ROW, {**ROW, "question": "", "answer": None}, {**ROW, "answer": ""}])
    errors = [each for each in found if "patronus/" in each]
    assert errors == ["rows.jsonl:2:1 patronus/empty-row: row 2: it has neither an input nor an output"]


def test_more_than_fifty_texts_of_context_are_too_many(folder: Folder, cli: Cli) -> None:
    rows = [
        {**ROW, "passages": ["x"] * 50},
        {**ROW, "passages": ["x"] * 51},
        {**ROW, "passages": json.dumps(["x"] * 52)},
    ]
    assert told(folder, cli, rows=rows) == [
        "rows.jsonl:2:1 patronus/context: row 2: `passages` has 51 texts, and 50 are allowed",
        "rows.jsonl:3:1 patronus/context: row 3: `passages` has 52 texts, and 50 are allowed",
    ]


def test_tokens_are_counted_where_bytes_leave_a_doubt(folder: Folder, cli: Cli) -> None:
    pytest.importorskip("bpe_openai")
    word = " token"  # one token, six bytes
    rows = [{**ROW, "passages": [word * 119_999]}, {**ROW, "passages": [word * 60_000, word * 60_001]}]
    found = told(folder, cli, rows=rows)
    assert found == ["rows.jsonl:2:1 patronus/tokens: row 2: `passages` has 120,001 tokens, and 120,000 are allowed"]
    assert rules.tokens([word * 10, word]) == 11
    assert rules.tokens(["<|endoftext|>"]) == 7  # as text, not as the token that ends one


def test_attachments_have_an_address_and_a_known_kind(folder: Folder, cli: Cli) -> None:
    good = {"url": "https://x.test/a.png", "media_type": "image/png", "usage_type": "evaluated_model_input"}
    columns = {"task_output": "answer", "attachments": "files"}
    rows = [
        {**ROW, "files": [good, {**good, "usage_type": "evaluated_model_output"}]},
        {**ROW, "files": json.dumps(good)},
        {**ROW, "files": [{**good, "media_type": "image/gif"}]},
        {**ROW, "files": [{"media_type": "image/png"}]},
        {**ROW, "files": [{**good, "usage_type": "other"}]},
        {**ROW, "files": "not json"},
        {**ROW, "files": [{**good, "size": 1}]},
    ]
    found = [each for each in told(folder, cli, but(p_columns=columns), rows) if "dataset/" not in each]
    assert [each.split(" ")[0] for each in found] == [f"rows.jsonl:{line}:1" for line in (3, 4, 5, 6, 7)]
    assert [
        "media_type" in found[0],
        "no `url`" in found[1],
        "usage_type" in found[2],
        "no `url`" in found[3],
        "`size`" in found[4],
    ] == [True] * 5


def test_a_row_without_what_a_family_needs_is_warned_of(folder: Folder, cli: Cli) -> None:
    lynx = SPEC.replace("evaluator: judge\n    criteria: polite", "evaluator: lynx")
    found = [each for each in told(folder, cli, lynx, [ROW, {**ROW, "passages": []}]) if "dataset/" not in each]
    assert found == [
        "rows.jsonl:2:1 patronus/empty-field: row 2: `passages` is empty, and `lynx` cannot judge without it"
    ]
    assert cli("validate").code == 0


def test_many_problems_of_rows_are_counted(folder: Folder, cli: Cli) -> None:
    found = told(folder, cli, rows=[{**ROW, "passages": ["x"] * 51}] * 9)
    assert len(found) == 6 and found[-1] == "rows.jsonl:6:1 patronus/more: 4 more such problems from here on"


def test_rows_in_a_spec_have_their_own_places(folder: Folder, cli: Cli) -> None:
    text = SPEC.replace("dataset: rows.jsonl", 'dataset:\n  rows:\n    - {question: "", answer: "", passages: []}')
    found = [each for each in told(folder, cli, text) if "patronus/" in each]
    assert found == ["tone.yaml:7:8 patronus/empty-row: row 1: it has neither an input nor an output"]


def test_a_column_that_is_not_there_is_named_where_it_is_mapped(folder: Folder, cli: Cli) -> None:
    assert [each.split(": ")[0] for each in told(folder, cli, SPEC.replace("question", "questions"))] == [
        "tone.yaml:12:5 dataset/missing-column"
    ]
    assert [each.split(": ")[0] for each in told(folder, cli, SPEC.replace("answer", "answers"))] == [
        "tone.yaml:13:5 dataset/missing-column"
    ]
    assert [each.split(": ")[0] for each in told(folder, cli, SPEC + "    trace_id: trace\n")] == [
        "tone.yaml:15:5 dataset/missing-column"
    ]


@pytest.mark.parametrize(
    ("grader", "needed"),
    [
        (Grader("judge"), ()),
        (Grader("glider-2024-12-11", "any"), ()),
        (Grader("lynx-small-2024-07-23"), ("task_input", "task_output", "task_context")),
        (Grader("hallucination-small"), ("task_input", "task_output", "task_context")),
        (Grader("retrieval-context-relevance"), ("task_input", "task_context")),
        (Grader("answer-relevance-large"), ("task_input", "task_output")),
        (Grader("toxicity"), ("task_output",)),
        (Grader("phi"), ("task_output",)),
        (Grader("philosophy"), ()),
        (Grader("metrics", "bleu"), ("task_output", "gold_answer")),
        (Grader("judge", "patronus:fuzzy-match"), ("task_output", "gold_answer")),
        (Grader("judge", "patronus:fuzzy-match:3"), ("task_output", "gold_answer")),
        (Grader("judge", "patronus:is-polite:3"), ()),
    ],
)
def test_what_a_family_needs_is_known_by_its_name(grader: Grader, needed: tuple[str, ...]) -> None:
    assert needs(grader) == needed


TEXTS = st.sampled_from(["", "a text", None])
KINDS = st.sampled_from(["image/png", "image/gif", "audio/mp3", None, 5])
ATTACHED = st.fixed_dictionaries(
    {}, optional={"url": st.sampled_from(["https://x.test/a", "", None]), "media_type": KINDS}
)
CELLS = st.fixed_dictionaries(
    {"task_input": TEXTS, "task_output": TEXTS},
    optional={
        "task_context": st.none() | st.integers(48, 53).map(lambda count: ["x"] * count) | st.just("one text"),
        "attachments": st.none() | st.lists(ATTACHED, max_size=2),
    },
)


@given(cells=CELLS)
def test_a_row_is_refused_here_if_and_only_if_the_service_refuses_it(cells: dict[str, Any]) -> None:
    asked = Patronus(graders=(Grader("judge"),), columns={name: name for name in cells})
    row = Row(0, 1, cells)
    problems = list(
        rules.check_rows(replace(evaluation(), patronus=asked), [row], lambda row, column: Mark("rows.jsonl", 1, 1))
    )
    body = wire.evaluate(asked, row, asked.graders, key="k", mark="m", experiment="1", log_id="l")
    assert has_errors(problems) == (patronus_service.check(json.loads(wire.encode(body))) is not None)


def test_a_log_id_of_two_rows_is_refused_where_results_are_looked_for(folder: Folder, cli: Cli) -> None:
    columns = {**yaml.safe_load(SPEC)["patronus"]["columns"], "log_id": "log"}
    logs = [1, "ü", "", None, "1", "b", "", "ü", "b"]
    twice = [{**ROW, "log": each} for each in logs]
    assert told(folder, cli, but(p_columns=columns), twice) == [
        f"rows.jsonl:{row}:1 patronus/log-id: row {row}: the log id in `log` is that of an earlier row too, "
        "and each would get the other's results"
        for row in (5, 8, 9)
    ]
    assert told(folder, cli, but(p_columns=columns, p_capture="none", p_lost_reply="error"), twice) == []
