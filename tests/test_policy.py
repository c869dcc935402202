"""Rules over evaluations: what they see, what a breach says, and that a stranger's rule hurts nobody."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from conftest import Folder as Made
from evaluations import settings

from evalops import catalog, planning, policy
from evalops.errors import Mark
from evalops.plan import Estimate
from evalops.project import Project

ENDPOINT = "https://llm.example.com/v1"
CREDENTIALS = {"house": {"env": "HOUSE_KEY", "origins": ["https://llm.example.com"]}}
SPEC = """\
version: 1
name: tone
type: classify
tags: [nightly]
dataset: rows.jsonl
judge:
  model: openai/gpt-4o-mini
  temperature: 0.5
  system_template: |
    Is {{ response }} polite?
labels: [polite, rude]
model_to_evaluate:
  model: writer
  external_base_url: https://llm.example.com/v1
  credential: house
  input_template: "{{ question }}"
"""


@pytest.fixture
def folder(folder: Made) -> Made:
    folder.write(
        {"rows.jsonl": [{"question": "q", "response": f"r{number}"} for number in range(4)], "tone.yaml": SPEC}
    )
    return folder


def project(folder: Made, rules: Any, **more: Any) -> Project:
    value = {"version": 1, "credentials": CREDENTIALS, "policy": rules, **more}
    return folder.write({"evalops.yaml": json.dumps(value, indent=2)})


def breaches(folder: Made, schema: Any, **more: Any) -> list[policy.Breach]:
    found = project(folder, {"rule": {"schema": schema}}, **more)
    read = catalog.read(found)
    assert not [each for each in read.diagnostics if each.is_error], read.diagnostics
    return list(planning.breaches(found, read.wanted, {}))


def only(name: str, rule: Any) -> Any:
    return {"properties": {name: rule}}


def items(name: str, *allowed: str) -> Any:
    return only(name, {"items": {"enum": list(allowed)}})


# --- what a rule sees, and where it is told ---


@pytest.mark.parametrize(
    ("schema", "what", "line"),
    [
        (only("judge.model", {"enum": ["gpt-4o"]}), "`judge.model` must be `gpt-4o`, not `gpt-4o-mini`", 7),
        (only("judge.temperature", {"maximum": 0}), "`judge.temperature` must be at most 0, not 0.5", 8),
        (only("rows", {"maximum": 3}), "`rows` must be at most 3, not 4", 5),
        (only("calls", {"exclusiveMaximum": 8}), "`calls` must be less than 8, not 8", 5),
        (only("cost", {"maximum": 1}), "`cost` must be at most 1, and it is not known", 2),
        (items("models", "writer"), "`models.1` must be `writer`, not `openai/gpt-4o-mini`", 7),
        (items("hosts", "https://llm.example.com"), "`hosts.1` must be `https://llm.example.com`, not `https://api.openai.com`", 7),
        (items("hosts", "https://api.openai.com"), "`hosts.0` must be `https://api.openai.com`, not `https://llm.example.com`", 14),
        (items("credentials", "openai"), "`credentials.0` must be `openai`, not `house`", 15),
        (items("tags", "weekly"), "`tags.0` must be `weekly`, not `nightly`", 4),
        (only("name", {"pattern": "^support-"}), "name: 'tone' does not match '^support-'", 2),
        (only("type", {"const": "score"}), "`type` must be `score`, not `classify`", 3),
        (only("provider", {"const": "together"}), "`provider` must be `together`, not `local`", 1),
        ({"required": ["repeats"]}, "evaluation: 'repeats' is a required property", 2),
        (False, "no evaluation is allowed", 2),
        (only("judge.model", False), "`gpt-4o-mini` is not allowed", 2),
    ],
)  # fmt: skip
def test_a_breach_names_the_field_and_its_place(folder: Made, schema: Any, what: str, line: int) -> None:
    (found,) = breaches(folder, schema)
    assert found.what.startswith(what) and found.mark.path == "tone.yaml"
    assert found.mark.line == line, found.mark


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {},
        only("judge.model", {"enum": ["gpt-4o-mini"]}),
        only("rows", {"maximum": 4, "minimum": 4}),
        only("calls", {"const": 8}),
        items("hosts", "https://api.openai.com", "https://llm.example.com"),
        items("models", "writer", "openai/gpt-4o-mini"),
        items("credentials", "openai", "house"),
        only("no.such.field", {"const": 1}),
        {"if": only("tags", {"contains": {"const": "weekly"}}), "then": False},
    ],
)
def test_what_holds(folder: Made, schema: Any) -> None:
    assert breaches(folder, schema) == []


def test_the_cost_is_the_plans(folder: Made) -> None:
    price = {"input": 1000.0, "output": 1000.0, "as_of": "2026-11-01"}
    prices = {"prices": {"openai/gpt-4o-mini": price, "writer": price}}
    assert breaches(folder, only("cost", {"maximum": 100}), **prices) == []
    (found,) = breaches(folder, only("cost", {"maximum": 0.5}), **prices)
    assert found.what.startswith("`cost` must be at most 0.5, not 2.")


def test_a_matrix_is_told_where_it_varies(folder: Made) -> None:
    folder.write({"tone.yaml": SPEC + "matrix:\n  judge.model: [openai/gpt-4o-mini, openai/o1]\n"})
    (found,) = breaches(folder, only("judge.model", {"enum": ["gpt-4o-mini"]}))
    assert found.address == "tone[model=openai/o1]" and found.mark == Mark("tone.yaml", 18, 37)


# --- who says so ---

RULES = {
    "known-judges": {"schema": only("judge.model", {"enum": ["m"]}), "message": "ask #platform"},
    "small": {"schema": only("rows", {"maximum": 3}), "severity": "warning"},
}


@pytest.fixture
def ready(tmp_path: Path) -> Folder:
    """A project without an endpoint, whose judge breaks both rules."""
    return Folder(tmp_path, "http://127.0.0.1:9/v1").settings(policy=RULES).rows(truths(4)).spec()


def test_an_error_denies_and_a_warning_warns(ready: Folder) -> None:
    done = ready.run("plan")
    assert (
        "! tone  denied   the rule `known-judges` forbids it: `judge.model` must be `m`, not `judge` (tone.yaml:12:3): ask #platform"
        in done.out
    )
    assert (
        "tone.yaml:10:1: warning[policy/broken]: `tone` breaks the rule `small`: `rows` must be at most 3, not 4"
        in done.err
    )
    value = ready.run("plan", "--format", "json").json
    assert value["changes"][0]["mark"] == "tone.yaml:12:3"
    assert [each["code"] for each in value["diagnostics"]] == ["policy/broken"]
    done = ready.apply()
    assert done.code == 1 and not (ready.root / "tone.lock").exists()


def test_validate_has_both(ready: Folder) -> None:
    done = ready.run("validate")
    assert done.code == 1 and "valid" not in done.out
    assert "tone.yaml:12:3: error[policy/broken]: `tone` breaks the rule `known-judges`: " in done.err
    assert "  hint: ask #platform" in done.err and "warning[policy/broken]" in done.err
    ready.settings(policy={"small": RULES["small"]})
    done = ready.run("validate")
    assert (done.code, done.out) == (0, "1 evaluation in 1 file: valid.\n") and "warning[policy/broken]" in done.err


def test_check_has_both_for_what_has_run_as_well(ready: Folder) -> None:
    (found,) = ready.run("check", "--format", "json").json["evaluations"]
    assert [each["code"] for each in found["diagnostics"] if each["severity"] == "error"] == ["check/denied"]
    assert "known-judges" in found["diagnostics"][0]["message"] and found["diagnostics"][0]["line"] == 12
    ready.settings().spec(judge={"column": "gold"}).applied()
    rule = {"schema": only("judge.column", {"const": "human"})}
    ready.settings(policy={"human": rule, "small": RULES["small"]})
    assert ready.actions() == {"tone": "noop"}
    done = ready.run("check", "--format", "json")
    (found,) = done.json["evaluations"]
    assert done.code == 1 and {each["code"] for each in found["diagnostics"]} == {"policy/broken"}
    assert [each["severity"] for each in found["diagnostics"]] == ["error", "warning"]
    ready.settings(policy={"human": {**rule, "severity": "warning"}})
    assert ready.run("check").code == 0


# --- a rule that is none, and one that would hurt ---


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "strict"}, "'strict' is not valid"),
        ({"properties": []}, "[] is not of type 'object'"),
        ({"$ref": "https://evil.example/schema.json"}, "is outside this schema, and evalops fetches none"),
        ({"$ref": "file:///etc/passwd"}, "is outside this schema, and evalops fetches none"),
        ({"properties": {"rows": {"$ref": "urn:evalops:spec-v1"}}}, "is outside this schema"),
        ({"$id": "https://evil.example/", "$ref": "#"}, "`$id` would move its references elsewhere"),
        (only("name", {"pattern": "("}), "missing )"),
        ({"unevaluatedProperties": False}, "`unevaluatedProperties` is not taken"),
        ({"$schema": "http://json-schema.org/draft-04/schema#"}, "evalops checks by "),
    ],
)
def test_a_schema_that_cannot_be_used_is_an_error_at_its_line(folder: Made, schema: Any, why: str) -> None:
    project(folder, {"rule": {"schema": schema}})
    problems = [each for each in catalog.read(Project(folder.root)).diagnostics if each.code == "policy/schema"]
    assert problems and problems[0].message.startswith("the schema of the rule `rule` cannot be used: ")
    assert any(why in each.message for each in problems)
    assert all(each.mark and each.mark.path == "evalops.yaml" and each.mark.line > 10 for each in problems)


@pytest.mark.parametrize(
    "schema",
    [
        only("name", {"pattern": "^(a|aa)+$"}),
        {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}] * 9}, "b": {"allOf": [{"$ref": "#/$defs/c"}] * 9},
                   "c": {"allOf": [{"$ref": "#/$defs/d"}] * 9}, "d": {"allOf": [{"$ref": "#/$defs/e"}] * 9}, "e": {}}, "$ref": "#/$defs/a"},
        {"$ref": "#"},
    ],
)  # fmt: skip
def test_a_rule_that_takes_too_long_forbids(folder: Made, schema: Any) -> None:
    folder.write({"tone.yaml": SPEC.replace("name: tone", f"name: {'a' * 99}b")})
    began = time.process_time()
    (found,) = breaches(folder, schema)
    assert found.what == "it takes too long to tell" and time.process_time() - began < 5


def test_a_thousand_evaluations_are_judged_at_once(folder: Made) -> None:
    read = catalog.read(project(folder, {}))
    (wanted,) = read.wanted
    rules = policy.Policy(settings(policy={f"r{n}": {"schema": only("rows", {"maximum": 9})} for n in range(3)}).policy)
    began = time.process_time()
    for _ in range(1000):
        assert not list(rules.breaches(wanted, Estimate(rows=4)))
    assert time.process_time() - began < 2


def test_the_python_front_has_it_too(ready: Folder) -> None:
    import evalops

    assert [each.code for each in evalops.open(ready.root).validate()] == ["policy/broken"] * 2
    assert json.loads(json.dumps(evalops.open(ready.root).plan().changes))[0]["action"] == "denied"
