"""A promptfoo config becomes specs: examples after its documentation, and configs that mean harm."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command import Done
from conftest import Cli, Folder
from hypothesis import given, settings
from hypothesis import strategies as st
from import_cases import CASES, SETTINGS, Memory, compare, errors_of, holds, lay, results, serve_all, written
from model_server import Server

from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.evaluators import kinds, pattern
from evalops.importers import literal, nunjucks, promptfoo, promptfoo_cases, promptfoo_checks, promptfoo_models
from evalops.importers.draft import Found, gathered, no_equal, slug
from evalops.spec import Evaluator
from evalops.template import Template

NAMES = sorted(path.name for path in CASES.iterdir() if path.name.startswith("promptfoo-"))
HERE = Mark("c.yaml", 1, 1)
ONE = {"prompts": ["{{ q }}"], "providers": ["openai:gpt-4o-mini"]}


def run(cli: Cli, config: str = "old/promptfooconfig.yaml", *more: str) -> Done:
    return cli("import", "--from", "promptfoo", config, "--to", "evals", *more)


def found(config: Mapping[str, Any], **files: str) -> Found:
    return promptfoo.found("c.yaml", Memory({"c.yaml": json.dumps(config), **files}))


def asserted(*asserts: Any, **test: Any) -> Found:
    """What becomes of assertions in one test."""
    return found({**ONE, "tests": [{"vars": {"q": "Why?", "a": "Because"}, "assert": list(asserts), **test}]})


def messages(of: Found) -> str:
    return "\n".join(f"{each.code} {each.mark}: {each.message}" for each in of.findings)


# --- the examples ---


@pytest.mark.parametrize("name", NAMES)
def test_an_example(name: str, folder: Folder, cli: Cli) -> None:
    (config,) = (path for path in lay(folder, name) if "promptfooconfig" in path)
    done = run(cli, config)
    compare(folder, name, done)
    assert "stay-behind" not in "".join([done.out, done.err, *written(folder).values()])
    serve_all(folder, base_url="http://127.0.0.1:9/v1")
    holds(cli, "import", "--from", "promptfoo", config, "--to", "evals")


def test_recorded_answers_are_judged_as_promptfoo_does(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    assert run(cli).code == 0
    assert cli("apply", "--yes").code == 3  # a test fails there too
    name = "answers-that-were-recorded-"
    rates = {
        address.removeprefix(name): entry["summary"]["metrics"]["pass_percentage"]["value"]
        for address, entry in results(folder).items()
    }
    assert rates == {
        "equals": 50, "not-contains": 100, "contains": 100, "equals-2": 100, "is-json": 100, "contains-all": 100,
        "contains-json": 100, "not-contains-2": 100,
    }  # fmt: skip


def test_an_imported_config_can_be_applied(folder: Folder, cli: Cli, models: Server) -> None:
    lay(folder, "promptfoo-support")
    run(cli)
    serve_all(folder, base_url=models.url)
    before = len(models.seen)
    assert cli("apply", "--yes").code in (0, 3)
    found_ = results(folder)
    assert len(found_) == 21
    assert {entry["status"] for entry in found_.values()} == {"completed"}
    asked = "\n".join(each.body.decode() for each in models.seen[before:])
    assert "Asks Ana for the order number" in asked
    assert "You answer for the shop. Be kind to Bo." in asked


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.parametrize("name", ["promptfoo-support", "promptfoo-tweets"])
def test_an_imported_config_runs_on_the_embedded_model(name: str, folder: Folder) -> None:
    cli = Cli(folder.root)  # without a home of its own: that would fetch the weights again
    (config,) = (path for path in lay(folder, name) if "promptfooconfig" in path)
    run(cli, config)
    serve_all(folder, model="embedded/smollm2-135m")
    assert cli("plan").code == 0
    done = cli("apply", "--yes")
    assert done.code in (0, 3), done.err
    assert {entry["status"] for entry in results(folder).values()} == {"completed"}


# --- files ---


def test_a_file_that_was_changed_since_is_not_overwritten_unasked(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    run(cli)
    before = written(folder)
    spec = "evals/answers-that-were-recorded-equals.yaml"
    folder.write({spec: before[spec] + "tags: [mine]\n", "evals/data/answers-that-were-recorded-contains.jsonl": None})
    mine = written(folder)
    done = run(cli)
    assert (done.code, done.out) == (1, "")
    assert f"error[import/exists]: `{spec}` would be overwritten: nothing is imported" in done.err
    assert written(folder) == mine
    assert run(cli, "old/promptfooconfig.yaml", "--overwrite").code == 0
    assert written(folder) == before


def test_a_name_that_another_spec_has_is_not_taken(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    taken = "version: 1\nname: answers-that-were-recorded-equals\ntype: classify\ndataset: data/rows.jsonl\njudge: {column: label}\nlabels: [polite, rude]\n"
    folder.write({"evals/own.yaml": taken})
    run(cli)
    assert "evals/answers-that-were-recorded-equals-2.yaml" in written(folder)
    assert cli("validate").code == 0
    before = written(folder)
    assert run(cli).code == 0
    assert written(folder) == before


def test_a_source_that_would_be_read_as_a_spec_is_named(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    folder.write({"evalops.yaml": "version: 1\n"})
    done = run(cli)
    assert "warning[import/taken-for-a-spec]: evalops takes `old/promptfooconfig.yaml` for a spec" in done.err
    assert 'specs: ["evals/**/*.yaml"]' in done.err


def test_a_config_may_lie_outside_the_project(folder: Folder, cli: Cli, tmp_path: Path) -> None:
    folder.write({"evalops.yaml": json.dumps(SETTINGS)})
    other = Folder(tmp_path / "other")
    other.write({"mine.json": json.dumps({**ONE, "prompts": ["file://p.txt", "file://../secret.txt"], "tests": [{"vars": {"q": "x"}, "assert": [{"type": "equals", "value": 1}]}]}), "p.txt": "{{ q }}", "../secret.txt": "hidden"})  # fmt: skip
    done = run(cli, str(tmp_path / "other" / "mine.json"))
    assert done.code == 0
    assert (
        "mine.json:1:30: warning[import/no-equal]: `../secret.txt` is outside the folder that is imported from"
        in done.err
    )
    assert "hidden" not in "".join(written(folder).values())


def test_what_cannot_be_read_is_said_with_its_place_and_without_its_line(folder: Folder, cli: Cli) -> None:
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/promptfooconfig.yaml": "providers:\n  - {id: x, config: {apiKey: sk-secret\n"})  # fmt: skip
    done = run(cli)
    assert done.code == 1
    assert re.match(r"old/promptfooconfig\.yaml:2:\d+: error\[yaml/syntax\]: ", done.err)
    assert "sk-secret" not in done.err
    assert not (folder.root / "evals").exists()
    assert "error[file/missing]" in run(cli, "old/absent.yaml").err
    folder.write({"old/promptfooconfig.yaml": "[1, 2]"})
    assert "this is no promptfoo config" in run(cli).err
    folder.write({"old/promptfooconfig.yaml": "prompts: [a]\n"})
    assert (run(cli).code, run(cli).out) == (1, "Nothing was imported.\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--from", "promptfoo"],
        ["--from", "promptfoo", "c.yaml", "--all"],
        ["--from", "promptfoo", "c.yaml", "--dataset", "x"],
        ["--from", "promptfoo", "c.yaml", "--provider", "patronus"],
        ["--from", "other", "c.yaml"],
        ["--overwrite", "job-1"],
    ],
)
def test_wrong_usage(arguments: list[str], cli: Cli) -> None:
    assert cli("import", *arguments).code == 64


def test_a_folder_that_no_spec_is_looked_for_in(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    done = cli("import", "--from", "promptfoo", "old/promptfooconfig.yaml")
    assert "error[import/folder]" in done.err
    assert "../x" in cli("import", "--from", "promptfoo", "old/promptfooconfig.yaml", "--to", "../x").err


# --- assertions ---


def evaluators(of: Found) -> list[Any]:
    return [part.fields.get("evaluator") for draft in of.drafts for part in draft.parts]


@pytest.mark.parametrize(
    ("given_", "evaluator"),
    [
        ({"type": "equals", "value": "Yes"}, {"kind": "exact", "strip": False}),
        ({"type": "equals", "value": {"a": [1]}}, {"kind": "json_schema", "schema": {"const": {"a": [1]}}}),
        ({"type": "contains", "value": 4.0}, {"kind": "contains", "strip": False}),
        ({"type": "icontains", "value": "x"}, {"kind": "contains", "strip": False, "ignore_case": True}),
        ({"type": "contains-any", "value": ["a.b", "c"]}, {"kind": "regex", "pattern": r"a\.b|c"}),
        ({"type": "icontains-all", "value": "a, b"}, {"kind": "regex", "pattern": r"\A(?=[\s\S]*?a)(?=[\s\S]*?b)", "ignore_case": True}),
        ({"type": "starts-with", "value": "{{ a }}"}, {"kind": "regex", "pattern": r"\ABecause"}),
        ({"type": "regex", "value": r"\d{4}"}, {"kind": "regex", "pattern": r"\d{4}"}),
        ({"type": "not-regex", "value": "a|b"}, {"kind": "regex", "pattern": r"\A(?![\s\S]*?(?:a|b))"}),
        ({"type": "not-equals", "value": "no"}, {"kind": "regex", "pattern": r"\A(?!no\Z)"}),
        ({"type": "not-starts-with", "value": "no"}, {"kind": "regex", "pattern": r"\A(?!no)"}),
        ({"type": "not-icontains", "value": "AI (a)"}, {"kind": "regex", "pattern": r"\A(?![\s\S]*?(?:AI \(a\)))", "ignore_case": True}),
        ({"type": "is-json"}, {"kind": "json_schema", "schema": True}),
        ({"type": "is-json", "value": '{"type": "object"}'}, {"kind": "json_schema", "schema": {"type": "object"}}),
        ({"type": "bleu", "value": "a"}, {"kind": "bleu"}),
    ],
)  # fmt: skip
def test_an_assertion_without_a_judge(given_: dict[str, Any], evaluator: dict[str, Any]) -> None:
    assert evaluators(asserted(given_)) == [evaluator]


@pytest.mark.parametrize(
    ("given_", "fields"),
    [
        ({"type": "llm-rubric", "value": "Is kind"}, {"type": "classify", "labels": ["pass", "fail"], "pass_labels": ["pass"]}),
        ({"type": "not-llm-rubric", "value": "Is rude"}, {"type": "classify", "labels": ["pass", "fail"], "pass_labels": ["fail"]}),
        ({"type": "model-graded-closedqa", "value": "Is kind"}, {"type": "classify", "labels": ["pass", "fail"], "pass_labels": ["pass"]}),
        ({"type": "llm-rubric", "value": "Is kind", "threshold": 0.5}, {"type": "score", "min_score": 0, "max_score": 1, "pass_threshold": 0.5}),
    ],
)  # fmt: skip
def test_an_assertion_with_a_judge(given_: dict[str, Any], fields: dict[str, Any]) -> None:
    of = asserted({**given_, "provider": {"id": "openai:o3-mini", "config": {"temperature": 0, "apiKey": "sk-1"}}})
    made = dict(of.drafts[0].parts[0].fields)
    judge = made.pop("judge")
    assert (judge["model"], judge["temperature"]) == ("openai/o3-mini", 0)
    assert given_["value"] in judge["system_template"]
    assert made == {**fields, "thresholds": {"pass_percentage": {"min": 100}}, "model_to_evaluate": {"model": "openai/gpt-4o-mini", "input_template": "{{ q }}"}}  # fmt: skip


@pytest.mark.parametrize(
    "given_",
    [
        {"type": "javascript", "value": "true"}, {"type": "cost", "threshold": 1}, {"type": "no-such-thing"}, {"type": "not-is-json"},
        {"type": "equals", "value": "x", "transform": "output.trim()"}, {"type": "regex", "value": "(?<=a+)b"}, {"type": "regex", "value": "("},
        {"type": "contains", "value": ""}, {"type": "contains"}, {"type": "contains-any", "value": []}, {"type": "is-json", "value": "{"},
        {"type": "is-json", "value": {"type": 4}}, {"type": "not-bleu", "value": "a"}, {"type": "not-llm-rubric", "value": "a", "threshold": 1},
        {"type": "llm-rubric", "value": "a", "provider": "python:grade.py"}, {"type": "llm-rubric", "value": "{{ a | shout }}"}, {"type": "not-select-best", "value": "a"},
        {"type": "select-best", "value": "a"}, {"value": "a"}, {"type": 4}, "equals", None, {"$ref": "#/nowhere"}, {"type": "equals", "value": "{{ env.HOME }}"},
        {"type": "starts-with", "value": "x" * 2000}, {"type": "contains", "value": "file://a.py"}, {"type": "contains", "value": "file://../x.txt"},
        {"type": "not-equals", "value": {"a": 1}},
    ],
)  # fmt: skip
def test_what_has_no_equal_is_named_at_its_place(given_: Any) -> None:
    of = asserted(given_)
    assert of.drafts == ()
    assert of.findings
    assert all(each.mark is not None and each.mark.line for each in of.findings)
    assert "no-equal" in messages(of)


def test_no_variable_of_the_environment_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "of-the-environment")
    config = {
        **ONE,
        "prompts": ["{{ env.CANARY }}"],
        "tests": [{"vars": {"q": "{{ env.CANARY }}"}, "assert": [{"type": "equals", "value": "{{env.CANARY}}"}]}],
    }
    of = found({**config, "env": {"OPENAI_API_KEY": "sk-1"}})
    assert "of-the-environment" not in repr(of)
    assert "sk-1" not in repr(of)
    assert messages(of).count("asks for variables of the environment") == 1  # once, with every place
    assert "credentials" in repr(of.findings)


def test_what_tests_want_alike_needs_no_column() -> None:
    tests = [
        {"vars": {"q": q, "a": a}, "assert": [{"type": "equals", "value": "{{a}}"}]}
        for q, a in (("1", "x"), ("2", "y"))
    ]
    (draft,) = found({**ONE, "tests": tests}).drafts
    assert draft.parts[0].fields["gold"] == "a"
    assert [set(row) for row in draft.rows] == [{"id", "q", "a"}] * 2
    tests = [{"vars": {"q": q, "expected": "mine"}, "assert": [{"type": "equals", "value": q}]} for q in "12"]
    (draft,) = found({**ONE, "tests": tests}).drafts
    assert draft.parts[0].fields["gold"] == "expected_2"
    assert [row["expected_2"] for row in draft.rows] == ["1", "2"]


def test_several_assertions_of_a_kind_are_several_evaluations() -> None:
    many = [{"type": "contains", "value": each} for each in "ab"]
    of = found({**ONE, "tests": [{"vars": {"q": "1"}, "assert": many}, {"vars": {"q": "2"}, "assert": many[:1]}]})
    assert {draft.name: [row["id"] for row in draft.rows] for draft in of.drafts} == {
        "c-contains": ["1", "2"],
        "c-contains-2": ["1"],
    }


def test_a_pattern_for_every_test_is_no_spec_for_every_test() -> None:
    tests = [
        {
            "vars": {"q": "x"},
            "assert": [{"type": "regex", "value": f"a{n}"}, {"type": "regex", "value": "same", "metric": "Other"}],
        }
        for n in range(30)
    ]
    of = found({**ONE, "tests": tests})
    assert [draft.name for draft in of.drafts] == ["c-other"]
    assert len(of.findings) == 1
    assert "30 patterns" in messages(of)


def test_a_choice_of_three_is_no_comparison() -> None:
    best = {"type": "select-best", "value": "the best", "provider": "openai:o3"}
    of = found(
        {**ONE, "providers": ["openai:a", "openai:b", "openai:c"], "tests": [{"vars": {"q": "1"}, "assert": [best]}]}
    )
    assert of.drafts == ()
    assert "`select-best` has 3 candidates to choose from" in messages(of)
    said = messages(
        asserted(
            {"type": "llm-rubric", "value": {"a": [1]}, "provider": {"config": {}}},
            {"type": "llm-rubric", "value": "x", "rubricPrompt": "y"},
        )
    )
    assert "has a grader without an `id`" in said
    assert "a `rubricPrompt` is the judge's template now" in said
    assert "no grader is named: the judge is `openai/gpt-4.1`" in said
    (draft,) = asserted({"type": "llm-rubric", "value": {"a": [1]}, "provider": {"text": "openai:o3"}}).drafts
    assert draft.parts[0].fields["judge"]["system_template"].endswith('{"a": [1]}\n')


@pytest.mark.parametrize(
    ("prompt", "asked"),
    [
        ("Is it {{ rubric }}?\n{{output}}", "Is it kind to Because?\n(the response below)\n"),
        ([{"role": "system", "content": "Judge {{ q }}."}, {"role": "user", "content": "{{ output }}: {{rubric}}"}], "Judge 1.\n\n(the response below): kind to Because\n"),
        ("file://r.txt", "Of a file: kind to Because\n"),
        ("{{ output.text }}", "Does the response meet this requirement?\n\nkind to Because\n"),
        ("{% include 'x' %}", "Does the response meet this requirement?\n\nkind to Because\n"),
        ("file://../r.txt", "Does the response meet this requirement?\n\nkind to Because\n"),
        (4, "Does the response meet this requirement?\n\nkind to Because\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("is_text", [True, False])
def test_a_judge_in_the_words_of_the_config(prompt: Any, asked: str, is_text: bool) -> None:
    prompt = json.dumps(prompt) if is_text and isinstance(prompt, list) else prompt
    rubric = {"type": "llm-rubric", "value": "kind to {{ a }}", "provider": "openai:o3", "rubricPrompt": prompt}
    of = found(
        {**ONE, "tests": [{"vars": {"q": "1", "a": a}, "assert": [rubric]} for a in ("Because", "You")]},
        **{"r.txt": "Of a file: {{rubric}}"},
    )
    (draft,) = of.drafts
    made = nunjucks.translated(draft.parts[0].fields["judge"]["system_template"], HERE)
    assert isinstance(made, Template)
    assert made.render(draft.rows[0]) == asked


def test_a_template_that_a_row_cannot_fill() -> None:
    assert "a template cannot be filled in" in messages(asserted({"type": "contains", "value": "{{ q + 1 }}"}))


def test_variables_of_several_values_are_tests_of_their_own() -> None:
    config = {
        **ONE,
        "defaultTest": {"vars": {"b": "{{ a }}!"}},
        "tests": [{"vars": {"q": ["x", "y"], "a": [1, 2]}, "assert": [{"type": "is-json"}]}],
    }
    (draft,) = found(config).drafts
    assert [(row["id"], row["q"], row["a"], row["b"]) for row in draft.rows] == [
        ("1", "x", 1, "1!"), ("2", "x", 2, "2!"), ("3", "y", 1, "1!"), ("4", "y", 2, "2!"),
    ]  # fmt: skip


def test_own_assertions_only() -> None:
    tests = [
        {"vars": {"q": 1}, "options": {"disableDefaultAsserts": True}, "assert": [{"type": "contains-json"}]},
        {"vars": {"q": 2}},
    ]
    of = found({**ONE, "defaultTest": {"assert": [{"type": "is-json"}]}, "tests": tests})
    assert {draft.name: [row["q"] for row in draft.rows] for draft in of.drafts} == {
        "c-contains-json": [1],
        "c-is-json": [2],
    }


def test_a_test_that_code_changes_is_left_out() -> None:
    for options in ({"transform": "output.trim()"}, {"transformVars": "x"}):
        assert asserted({"type": "is-json"}, options=options).drafts == ()
    assert asserted({"type": "is-json"}, provider="openai:gpt-4o").drafts == ()
    assert asserted({"type": "is-json"}, assertScoringFunction="file://x.js").drafts == ()


def test_no_weight_is_no_bound() -> None:
    (draft,) = asserted({"type": "is-json", "weight": 0}).drafts
    assert "thresholds" not in draft.parts[0].fields


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("Paris", {"type": "equals", "value": "Paris"}),
        ("contains: Paris", {"type": "contains", "value": "Paris"}),
        ("not-icontains:Paris", {"type": "not-icontains", "value": "Paris"}),
        ("contains-any: <b>,</span>", {"type": "contains-any", "value": ["<b>", "</span>"]}),
        ("similar(0.8):Hello", {"type": "similar", "value": "Hello", "threshold": 0.8}),
        ("grade: is short", {"type": "llm-rubric", "value": "is short"}),
        ("is-json", {"type": "is-json"}),
        ("fn:output.length", {"type": "javascript"}),
        ("python: len(output)", {"type": "python"}),
        ("note: this is an answer", {"type": "equals", "value": "note: this is an answer"}),
    ],
)
def test_a_cell_of_expected(cell: str, expected: dict[str, Any]) -> None:
    assert promptfoo_cases.expected(cell, promptfoo_checks.known) == expected


# --- prompts and providers ---


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("openai:gpt-4o-mini", "openai/gpt-4o-mini"), ("openai:chat:gpt-4o", "openai/gpt-4o"), ("openai:responses:gpt-5", "openai/gpt-5"),
        ("openai:chat:ft:gpt-4o-mini:org::id", "openai/ft:gpt-4o-mini:org::id"), ("openai:embedding:x", None), ("openai:chat", None), ("openai", None),
        ("anthropic:messages:claude-3-5-sonnet", "anthropic/claude-3-5-sonnet"), ("anthropic:claude-sonnet-4", "anthropic/claude-sonnet-4"),
        ("google:gemini-2.0-flash", "google/gemini-2.0-flash"), ("ollama:chat:llama3:70b", "ollama/llama3:70b"), ("ollama:llama3.2", "ollama/llama3.2"),
        ("togetherai:meta-llama/Llama-3-8b", "together/meta-llama/Llama-3-8b"), ("azure:chat:mine", "azure:chat:mine"),
        ("openrouter:meta/llama", "openrouter:meta/llama"), ("python:x.py", None), ("exec:./run.sh", None), ("https://x", None), ("file://x.js", None),
        ("./provider.js", None), ("webhook:https://x", None), ("", None),
    ],
)  # fmt: skip
def test_a_model_by_our_name(name: str, ours: str | None) -> None:
    assert promptfoo_models.by_our_name(name) == ours


def candidate(provider: Any) -> Any:
    of = found({**ONE, "providers": [provider], "tests": [{"vars": {"q": "1"}, "assert": [{"type": "is-json"}]}]})
    return of.drafts[0].parts[0].fields["model_to_evaluate"] if of.drafts else None


def test_a_provider_keeps_what_a_spec_can_say_and_no_key() -> None:
    config = {"temperature": 0.5, "max_tokens": 9, "top_p": 1, "apiKey": "sk-1", "headers": {"x-api-key": "sk-1"}}
    for provider in ({"id": "openai:gpt-4o", "config": config}, {"openai:gpt-4o": {"config": config}}):
        of = found({**ONE, "providers": [provider], "tests": [{"vars": {"q": "1"}, "assert": [{"type": "is-json"}]}]})
        made = of.drafts[0].parts[0].fields["model_to_evaluate"]
        assert made == {"model": "openai/gpt-4o", "temperature": 0.5, "max_tokens": 9, "input_template": "{{ q }}"}
        assert "sk-1" not in repr(of)
        assert "`apiKey`, `headers`, which is not copied" in messages(of)
        assert "`top_p`" in messages(of)


@pytest.mark.parametrize(
    ("url", "model"),
    [
        ("http://localhost:8000/v1", {"model": "mine", "external_base_url": "http://localhost:8000/v1"}),
        ("https://llm.example.com/v1", {"model": "mine", "external_base_url": "https://llm.example.com/v1", "credential": "llm-example-com"}),
        ("https://user:pass@llm.example.com/v1", {"model": "mine"}),
        ("{{ env.URL }}", {"model": "mine"}),
    ],
)  # fmt: skip
def test_a_provider_at_an_address_of_its_own(url: str, model: dict[str, str]) -> None:
    made = candidate({"id": "openai:chat:mine", "config": {"apiBaseUrl": url, "apiKeyEnvar": "MY_KEY"}})
    assert {key: value for key, value in made.items() if key != "input_template"} == model


def test_providers_that_differ_by_the_model_only_are_a_matrix() -> None:
    providers = ["openai:a", {"id": "openai:b", "config": {"temperature": 1}}, "openai:c", "openai:a"]
    (draft,) = found(
        {**ONE, "providers": providers, "tests": [{"vars": {"q": "1"}, "assert": [{"type": "is-json"}]}]}
    ).drafts
    assert [(part.name, part.fields.get("matrix")) for part in draft.parts] == [
        ("", {"model_to_evaluate.model": ["openai/a", "openai/c"]}),
        ("b", None),
    ]


def test_providers_in_files_and_prompts_by_label() -> None:
    config = {
        "prompts": [{"id": "file://p/*.txt", "label": "short"}, {"raw": "Long: {{ q }}", "label": "long"}],
        "providers": ["file://p/one.yaml", {"id": "openai:b", "prompts": ["long"]}],
        "tests": "file://t.jsonl",
    }
    files = {"p/1.txt": "One {{ q }}\n---\nTwo {{ q }}", "p/one.yaml": "id: openai:a\nprompts: [short]\n"}
    of = found(config, **files, **{"t.jsonl": '{"vars": {"q": 1}, "assert": [{"type": "is-json"}]}\n\n[1]\n'})
    (draft,) = of.drafts
    assert {part.name: part.fields["model_to_evaluate"]["input_template"] for part in draft.parts} == {
        "short-1": "One {{ q }}", "short-2": "Two {{ q }}", "long": "Long: {{ q }}",
    }  # fmt: skip
    assert "t.jsonl:3:2: this test is no mapping" in messages(of)


def test_prompts_of_every_kind_of_file() -> None:
    config = {
        **ONE,
        "prompts": ["p.csv", "file://p.jsonl", {"id": "file://p.yaml", "label": "yaml"}, {"raw": [{"role": "user", "content": "Raw {{ q }}"}]}],
        "tests": [{"vars": {"q": 1}, "assert": [{"type": "is-json"}]}],
    }  # fmt: skip
    files = {
        "p.csv": "prompt,label\nCsv {{ q }},first\n",
        "p.jsonl": '{"messages": [{"role": "user", "content": "Jsonl {{ q }}"}]}\n"Line {{ q }}"\n',
        "p.yaml": "- {role: developer, content: Be kind}\n- {role: user, content: 'Yaml {{ q }}'}\n",
    }
    (draft,) = found(config, **files).drafts
    asked = {part.name: part.fields["model_to_evaluate"] for part in draft.parts}
    assert {name: each["input_template"] for name, each in asked.items()} == {
        "first": "Csv {{ q }}", "p-1": "Jsonl {{ q }}", "p-2": "Line {{ q }}", "yaml": "Yaml {{ q }}", "prompt-5": "Raw {{ q }}",
    }  # fmt: skip
    assert asked["yaml"]["system_template"] == "Be kind"
    of_old = found({**config, "prompts": {"p.yaml": "mine", "p.csv": 4}}, **files)
    assert [part.name for part in of_old.drafts[0].parts] == ["mine", "first"]
    broken = found({**config, "prompts": ["p.csv"]}, **{"p.csv": 'prompt\n"open\n'})
    assert "p.csv:2:1: row 1 is not CSV" in messages(broken)


def test_tests_of_every_kind_of_file() -> None:
    config = {
        **ONE,
        "defaultTest": "file://d.yaml",
        "tests": ["t.csv", {"path": "file://t.json"}, "huggingface://x", "t.xlsx", "file://*.none", 4],
    }
    files = {
        "d.yaml": "vars: file://v.yaml\nmetadata: {team: a}\n",
        "v.yaml": "more: yes\napi_key: sk-1\n",
        "t.csv": "q,__expected,__description,__metric,__prefix,__providerOutput,__threshold,__metadata:tags[]\n1,is-json,one,JSON,Dear,{},1,a\n",
        "t.json": '[{"vars": {"q": "file://t.bin"}}, {"vars": {"q": "file://v.yaml"}, "assert": [{"type": "is-json"}]}, {"vars": [1]}, {"assert": 4}]',
    }
    of = found(config, **files)
    assert {draft.name: list(draft.rows) for draft in of.drafts} == {
        "c-json": [
            {"id": "1", "team": "a", "tags": "a", "description": "one", "more": "yes", "q": "1", "response": "{}"}
        ],
        "c-is-json": [{"id": "2", "team": "a", "more": "yes", "q": {"more": "yes"}}],
    }
    said = messages(of)
    for each in (
        "the variable `api_key` is called like a key, and no key is copied", "`options.prefix` of a test is left out", "the column `__threshold` is not known", "tests come from `huggingface:`",
        "`t.xlsx` is no file of tests", "no file is like `*.none`", "this test is no mapping", "`t.bin` is a file that is no text", "`vars` is no mapping", "`assert` is no list",
    ):  # fmt: skip
        assert each in said
    assert "`defaultTest` is no mapping" in messages(found({**ONE, "defaultTest": 4}))


def test_specs_of_a_project_that_runs_elsewhere_say_so(folder: Folder, cli: Cli) -> None:
    lay(folder, "promptfoo-recorded")
    folder.write({"evalops.yaml": json.dumps({**SETTINGS, "provider": "together"}), "schemas/spec-v1.json": "{}"})
    assert run(cli).code == 0
    text = written(folder)["evals/answers-that-were-recorded-equals.yaml"]
    assert text.startswith(
        "# yaml-language-server: $schema=../schemas/spec-v1.json\n# From old/promptfooconfig.yaml, line 6\n"
    )
    assert "\nprovider: local\n" in text
    assert cli("fmt", "--check", "evals").code == 0


@pytest.mark.parametrize(
    "prompt",
    [
        "file://p.js", "file://p.py:make", "exec:./p.sh", "langfuse://p", "file://absent.txt", "file:///etc/passwd", "file://{{ env.X }}/p.txt",
        '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]',
        '[{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]', "{% include 'x' %}", "{{ q.toUpperCase() }}", "{{ _conversation }}", 4, {"label": "x"}, "p.png",
    ],
)  # fmt: skip
def test_a_prompt_that_has_no_equal(prompt: Any) -> None:
    of = found({**ONE, "prompts": [prompt], "tests": [{"vars": {"q": "1"}, "assert": [{"type": "is-json"}]}]})
    if prompt == "p.png":  # a text like any other
        assert of.findings == ()
    else:
        assert of.drafts == ()
        assert of.findings


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("{{ a | dump | safe }}", "{{ a | tojson  }}"),
        ('{% if a === "b === c" and d !== e %}x{% elseif f || g && h %}y{% else if i %}{% endif %}', '{% if a == "b === c" and d != e %}x{% elif f  or  g  and  h %}y{% elif i %}{% endif %}'),
        ("{{ a.length }} a.length === b", "{{ a | length }} a.length === b"),
        ("{{ 'it\\'s === it' }}", "{{ 'it\\'s === it' }}"),
    ],
)  # fmt: skip
def test_a_template_in_our_words(theirs: str, ours: str) -> None:
    made = nunjucks.translated(theirs, HERE)
    assert isinstance(made, Template)
    assert made.source == ours


# --- patterns mean what they are for ---

TEXTS = st.text(alphabet="ab.*\\(|^$ \n[", max_size=6)


def finds(made: str, text: str) -> bool:
    assert pattern.problem(made) is None
    return kinds.build(Evaluator(kind="regex", pattern=made))(text, None).value == 1.0


@settings(max_examples=60)
@given(TEXTS.filter(str.strip), st.lists(TEXTS.filter(bool), min_size=1, max_size=3))
def test_patterns_of_texts(text: str, wanted: list[str]) -> None:
    one = wanted[0]
    for made, is_found, is_whole in (
        (literal.has_any(wanted), any(each in text for each in wanted), False),
        (literal.has_all(wanted), all(each in text for each in wanted), True),
        (literal.starts(one), text.startswith(one), True),
        (literal.equals(one), text == one, True),
    ):
        assert finds(made, text) is is_found
        assert finds(literal.lacks(made, is_whole=is_whole), text) is not is_found


@pytest.mark.parametrize(
    ("text", "is_json"),
    [
        ('{"a": 1}', True), ('Here: {"a": [1]}. Done', True), ("x [1, 2] y", True), ("none", False), ("a ] b [ c", False), ("{oops}", False), ("```json\n{}\n```", True), ("4", True),
    ],
)  # fmt: skip
def test_json_inside_of_a_text(text: str, is_json: bool) -> None:
    evaluate = kinds.build(Evaluator(kind="json_schema", schema=True, extract=literal.JSON_INSIDE))
    assert evaluate(text, None).value == float(is_json)


# --- configs that mean harm ---


def test_nothing_of_a_source_is_run_and_nothing_outside_is_read(folder: Folder, tmp_path: Path) -> None:
    """Every file that is opened and every program that is started, as Python's audit tells of them."""
    lay(folder, "promptfoo-support")
    code = """if True:
        import json, sys
        from evalops import cli
        seen = []
        def hook(event, arguments):
            if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"):
                seen.append([event, str(arguments[0])])
            elif event == "open" and isinstance(arguments[0], str):
                seen.append([event, arguments[0]])
        sys.addaudithook(hook)
        code = cli.run(sys.argv[1:])
        print(json.dumps([code, seen]))
    """
    command = [
        sys.executable,
        "-c",
        code,
        "--project",
        str(folder.root),
        "import",
        "--from",
        "promptfoo",
        "old/promptfooconfig.yaml",
        "--to",
        "evals",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    exit_code, seen = json.loads(done.stdout.splitlines()[-1])
    assert exit_code == 0
    programs = {Path(each).name for event, each in seen if event != "open"}
    assert programs <= {"git"}
    opened = {Path(each).name for event, each in seen if event == "open"}
    assert {"promptfooconfig.yaml", "reply.txt", "more.csv", "question.txt"} <= opened
    assert not opened & {"made.js", "polite.py"}


@pytest.mark.parametrize(
    "path",
    [
        "../../secret.txt",
        "/etc/passwd",
        "..\\secret.txt",
        "a/../../secret.txt",
        "link.txt",
        "inside/secret.txt",
        "*/secret.txt",
        "\0",
    ],
)
def test_no_path_leads_out_of_the_folder(path: str, folder: Folder, cli: Cli) -> None:
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/x.txt": "fine"})
    (folder.root.parent / "secret.txt").write_text("root: a secret", encoding="utf-8")
    (folder.root / "old/link.txt").symlink_to(folder.root.parent / "secret.txt")
    (folder.root / "old/inside").symlink_to(folder.root.parent)
    reference = f"file://{path}"
    config = {
        "prompts": [reference, "{{ q }}"],
        "providers": ["echo", reference],
        "defaultTest": reference,
        "tests": [reference, {"vars": reference}, {"vars": {"q": reference}, "assert": [{"type": "contains", "value": "x"}]}, {"vars": {"q": "fine"}, "assert": [{"type": "contains", "value": reference}, {"type": "contains", "value": "f"}]}],
    }  # fmt: skip
    folder.write({"old/promptfooconfig.yaml": json.dumps(config)})
    done = run(cli)
    assert done.code == 0
    assert "a secret" not in "".join(written(folder).values()) + done.out + done.err


def test_an_alias_is_written_out_and_a_bomb_is_not() -> None:
    config = "x: &x {type: is-json}\nprompts: ['{{ q }}']\nproviders: [&m openai:a, *m]\ntests:\n  - vars: {q: 1}\n    assert: [*x]\n"
    (draft,) = promptfoo.found("c.yaml", Memory({"c.yaml": config})).drafts
    assert (draft.name, draft.mark.line) == ("c-is-json", 1)
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
    )
    with pytest.raises(EvalopsError, match="keys and values"):  # 9 to the 20th of them would never end
        promptfoo.found("c.yaml", Memory({"c.yaml": bomb}))
    for loop in ("a: &a [*a]\n", "a: *b\n", "a: &a {b: {c: *a}}\n"):
        with pytest.raises(EvalopsError, match="aliases"):
            promptfoo.found("c.yaml", Memory({"c.yaml": loop}))


def test_a_short_config_that_repeats_a_long_text_does_not_fill_the_memory() -> None:
    test = "- {vars: {q: *x}, assert: [{type: is-json}]}\n"
    config = f"x: &x {'long ' * 20_000}\nprompts: ['{{{{ q }}}}']\nproviders: [openai:a]\ntests:\n"
    assert promptfoo.found("c.yaml", Memory({"c.yaml": config + test * 10})).drafts
    with pytest.raises(EvalopsError, match="MiB of text"):
        promptfoo.found("c.yaml", Memory({"c.yaml": config + test * 700}))
    checked = {"defaultTest": {"assert": [{"type": "equals", "value": "{{ q }}" * 900}]}}
    with pytest.raises(EvalopsError, match="MiB of text"):
        found({**ONE, **checked, "tests": [{"vars": {"q": "long " * 200}}] * 80})
    nested = "- {vars: {q: {a: [*x]}}, assert: [{type: is-json}]}\n"
    with pytest.raises(EvalopsError, match="MiB of text"):
        promptfoo.found("c.yaml", Memory({"c.yaml": config + nested * 700}))


@pytest.mark.parametrize(
    ("start", "again", "end"), [("", "{{", ""), ("", "{%", ""), ('{{ "', '\\"', ""), ('{{ "', '\\"', "\\\n")]
)
def test_a_template_without_an_end_is_read_once(start: str, again: str, end: str) -> None:
    """To look for the end again behind every bracket or quote would take hours here."""
    assert isinstance(nunjucks.translated(start + again * 4_000_000 + end, HERE), Diagnostic)


@pytest.mark.parametrize("name", [".env", "./.env", "sub/.git/config", ".ssh/id_rsa"])
def test_a_hidden_file_often_holds_a_key_and_is_not_read(name: str) -> None:
    of = found(
        {**ONE, "tests": [{"vars": {"q": f"file://{name}"}, "assert": [{"type": "is-json"}]}]}, **{name: "canary"}
    )
    assert of.drafts == () and any("is hidden" in each.message for each in of.findings)


def test_files_that_name_themselves_come_to_an_end() -> None:
    files = {"t.yaml": "- file://t.yaml\n- file://c.yaml\n", "p.yaml": "- file://p.yaml\n- file://c.yaml\n"}
    of = found(
        {**ONE, "tests": ["file://t.yaml", "file://c.yaml"], "providers": ["file://p.yaml", "file://c.yaml"]}, **files
    )
    assert of.drafts == ()


def test_combinations_without_end_are_refused() -> None:
    values = {f"v{n}": list(range(100)) for n in range(12)}
    with pytest.raises(EvalopsError, match="more than the 20,000"):
        found({**ONE, "tests": [{"vars": values, "assert": [{"type": "is-json"}]}]})
    with pytest.raises(EvalopsError, match="more than 200 specs"):
        providers = [{"id": "openai:a", "config": {"max_tokens": n}} for n in range(1, 300)]
        found({**ONE, "providers": providers, "tests": [{"vars": {"q": 1}, "assert": [{"type": "is-json"}]}]})


def test_files_that_are_too_large(folder: Folder, cli: Cli) -> None:
    config = {**ONE, "tests": ["file://t.csv", {"vars": {"q": "file://big.txt"}, "assert": [{"type": "is-json"}]}]}
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/promptfooconfig.yaml": json.dumps(config)})
    for name, size in (("t.csv", 17 << 20), ("big.txt", 2 << 20)):
        with (folder.root / "old" / name).open("wb") as stream:
            stream.truncate(size)
    done = run(cli)
    assert done.code == 1
    assert "`old/t.csv` is larger than 16 MiB" in done.err
    assert "`old/big.txt` is larger than 1 MiB" in done.err


@pytest.mark.parametrize(
    "name", ["../../evil", "con/aux\0", "ünï — 日本語", ".hidden", "-rf *", "a" * 400, "\u202e", "x\ny"]
)
def test_names_that_are_no_names_of_files(name: str, folder: Folder, cli: Cli) -> None:
    config = {**ONE, "description": name, "prompts": [{"raw": "{{ q }}", "label": name}, {"raw": "2 {{ q }}", "label": name}], "providers": [{"id": "openai:a", "label": name}, {"id": "openai:b", "label": name, "config": {"temperature": 1}}],
              "tests": [{"vars": {"q": "1"}, "description": name, "metadata": {name: name}, "assert": [{"type": "is-json", "metric": name}]}]}  # fmt: skip
    folder.write({"evalops.yaml": json.dumps(SETTINGS), "old/promptfooconfig.yaml": json.dumps(config)})
    before = {path for path in folder.root.parent.rglob("*") if path.is_file()}
    assert run(cli).code == 0
    new = {
        path.relative_to(folder.root).as_posix()
        for path in folder.root.parent.rglob("*")
        if path.is_file() and path not in before
    }
    assert {path for path in new if not path.startswith(".evalops/")} == set(written(folder))
    assert all(re.fullmatch(r"evals/(data/)?[a-z0-9][a-z0-9._-]{0,99}\.(yaml|jsonl)", path) for path in written(folder))
    assert cli("validate").code == 0


WORDS = st.sampled_from(
    ["prompts", "providers", "tests", "vars", "assert", "type", "value", "id", "config", "label", "raw", "options", "provider", "threshold",
     "weight", "metric", "defaultTest", "metadata", "description", "$ref", "q", "equals", "llm-rubric", "select-best", "assert-set", "is-json",
     "contains-any", "regex", "openai:gpt-4o", "echo", "file://c.yaml", "{{ q }}", "{{", "temperature", "apiBaseUrl", "text", "path", "role", "content", "user",
     "#/prompts/0", "[{", "transform", "rubricPrompt", "providerOutput", "\ud800"]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False) | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=3), inner, max_size=5),
    max_leaves=25,
)  # fmt: skip
ASSERTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["equals", "not-contains", "llm-rubric", "select-best", "is-json", "regex", "contains-all", "bleu", "assert-set"])}, optional={"value": VALUES, "threshold": VALUES, "metric": VALUES, "provider": VALUES, "assert": VALUES, "weight": VALUES}), max_size=3)  # fmt: skip
TESTS = st.lists(st.fixed_dictionaries({}, optional={"vars": VALUES, "assert": ASSERTS | VALUES, "options": VALUES, "description": VALUES, "metadata": VALUES, "providerOutput": VALUES}), max_size=3)  # fmt: skip
CONFIGS = st.fixed_dictionaries({}, optional={"prompts": VALUES, "providers": VALUES | st.just(["openai:a"]), "tests": TESTS | VALUES, "defaultTest": VALUES, "description": VALUES, "evaluateOptions": VALUES, "x": VALUES})  # fmt: skip


@settings(max_examples=60)
@given(CONFIGS | VALUES)
def test_values_of_any_kind_anywhere(config: Any) -> None:
    """What is no config is refused or remarked on; nothing is a bug, and no mark is outside the file."""
    text = json.dumps(config)
    try:
        of = promptfoo.found("c.json", Memory({"c.json": text, "c.yaml": text}))
    except EvalopsError:
        return
    assert all(each.code.startswith("import/") for each in of.findings)
    assert all(draft.rows and draft.parts and draft.mark.line >= 1 for draft in of.drafts)


@settings(max_examples=15)
@given(CONFIGS)
def test_what_is_written_is_valid_whatever_the_config(config: Any) -> None:
    assert errors_of("promptfoo", config) <= {"spec/model", "spec/credential"}  # which evalops.yaml has to say


# --- what is said ---


def test_a_remark_that_comes_again_is_made_once_with_its_places() -> None:
    marks = [Mark("a.yaml", line, 3) for line in (9, 4, 4)] + [Mark("b.csv", 2, 1)]
    several = gathered([no_equal("`x` has no equal here", mark) for mark in marks])
    assert [(each.message, each.mark) for each in several] == [
        ("`x` has no equal here (also at line 4, b.csv:2)", marks[0])
    ]
    many = gathered([no_equal("`x`", Mark("a.yaml", line, 1)) for line in range(1, 10)])
    assert many[0].message == "`x` (also at line 2, line 3, line 4, line 5, line 6 and 3 more)"


@pytest.mark.parametrize(
    ("text", "name"),
    [("Café  Reviews!", "cafe-reviews"), ("日本", "x"), ("a" * 99, "a" * 60), ("v1.2_b", "v1.2_b"), ("", "x")],
)
def test_a_name_of_words(text: str, name: str) -> None:
    assert slug(text, "x") == name


def test_every_finding_is_a_warning() -> None:
    of = asserted({"type": "javascript"}, {"type": "llm-rubric", "value": "x"})
    assert [each.severity.value for each in of.findings] == ["warning", "warning"]
    assert isinstance(of.findings[0], Diagnostic)


def test_help_teaches_by_example(cli: Cli) -> None:
    assert "evalops import --from promptfoo promptfooconfig.yaml --to evals" in cli("import", "--help").out
