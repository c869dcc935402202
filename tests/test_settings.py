"""evalops.yaml as one value."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from evalops import document, settings
from evalops.errors import Diagnostic, Mark, Severity
from evalops.settings import TRUSTED, Budget, Credential, Limits, Price, Rule, Settings, differences


def load(text: str) -> tuple[Settings, list[Diagnostic]]:
    (found,), problems = document.parse(text.encode(), "evalops.yaml")
    assert not problems
    return settings.load(found)


def test_a_version_is_enough() -> None:
    found, problems = load("version: 1\n")
    assert problems == []
    assert found == Settings(document=found.document)
    assert found.specs == ("**/*.yaml",)
    assert found.policy == ()


def test_every_field_arrives() -> None:
    found, problems = load("""\
version: 1
specs: [evaluations/**/*.yaml]
provider: local
providers:
  local: {attempt_timeout: 30, row_timeout: 90, down_after: 2.5, max_error_rate: 0.1}
  together: {base_url: "https://api.example.com", credential: prod, visibility_lag: 5}
judges: {house: {column: label}}
models: {writer: {model: openai/gpt-4o-mini}}
credentials: {prod: {env: OPENAI_API_KEY, origins: ["https://api.openai.com", "https://llm.example.com:8443"]}}
datasets: {}
defaults: {tags: [nightly]}
prices: {openai/gpt-4o-mini: {input: 0.15, output: 0.6, as_of: 2026-11-01}}
budget: {rows: 10, calls: 20, cost: 1.5, per_evaluation: {calls: 7}}
policy: {small: {schema: {properties: {rows: {maximum: 100}}}, severity: warning, message: ask first}, none: {schema: false}}
verdicts: {max_bytes: 5}
serve: {}
""")
    assert problems == []
    assert found.specs == ("evaluations/**/*.yaml",)
    assert found.limits == Limits(attempt_timeout=30, row_timeout=90, down_after=2.5, max_error_rate=0.1)
    assert found.judges == {"house": {"column": "label"}}
    assert found.models == {"writer": {"model": "openai/gpt-4o-mini"}}
    assert found.credentials == {
        "prod": Credential(
            name="prod", env="OPENAI_API_KEY", origins=("https://api.openai.com", "https://llm.example.com:8443")
        )
    }
    assert found.defaults == {"tags": ["nightly"]}
    assert found.prices == {"openai/gpt-4o-mini": Price(input=0.15, output=0.6, as_of=date(2026, 11, 1))}
    assert found.budget == Budget(rows=10, calls=20, cost=1.5, per_evaluation=Budget(calls=7))
    assert found.policy == (
        Rule(
            name="small",
            schema={"properties": {"rows": {"maximum": 100}}},
            severity=Severity.WARNING,
            message="ask first",
        ),
        Rule(name="none", schema=False),
    )
    assert found.verdicts_max_bytes == 5
    assert found.mark("budget", "calls") == Mark("evalops.yaml", 13, 20)


def test_with_an_error_the_defaults_hold() -> None:
    found, problems = load("version: 1\nbudget: {rows: 10}\nspecs: none\n")
    assert [each.message for each in problems] == ["`specs` must be a list, not `none`"]
    assert found.budget == Budget()


@pytest.mark.parametrize(
    "credential",
    [
        {"env": "sk-live-123", "origins": ["https://a.example"]},
        {"env": "KEY", "origins": []},
        {"env": "KEY", "origins": ["a.example"]},
        {"env": "KEY", "origins": ["https://a.example/v1"]},
        {"env": "KEY", "origins": ["https://me@a.example"]},
        {"env": "KEY", "origins": ["https://a.example?x"]},
        {"env": "KEY", "origins": ["https://"]},
        {"env": "KEY", "origins": ["ftp://a.example"]},
        {"env": "KEY", "origins": ["https://a.example\n"]},
        {"env": "KEY", "key": "sk-live-123", "origins": ["https://a.example"]},
        {"origins": ["https://a.example"]},
    ],
)
def test_a_credential_is_a_variable_and_origins(credential: dict[str, Any]) -> None:
    _, problems = load(f"version: 1\ncredentials: {{prod: {json.dumps(credential)}}}\n")
    assert problems
    assert "sk-live" not in "".join(f"{each.message}{each.hint}" for each in problems)


def test_without_a_file_a_place_is_the_file() -> None:
    assert Settings().mark("budget") == Mark("evalops.yaml")


@pytest.mark.parametrize("day", ["2026-02-30", "2026-13-01", "0000-01-01"])
def test_a_price_has_a_day_that_the_calendar_knows(day: str) -> None:
    _, problems = load(f"version: 1\nprices:\n  m: {{input: 1, output: 2, as_of: {day}}}\n")
    (problem,) = problems
    assert problem.message == f"`prices.m.as_of` must be a day, not `{day}`" and problem.mark == Mark(
        "evalops.yaml", 3, 28
    )


# --- another revision's ---

MINE = """\
version: 1
specs: [mine.yaml]
providers: {local: {row_timeout: 1}, together: {base_url: "https://mine.example"}}
judges: {house: {column: mine}}
models: {m: {base_url: "https://mine.example/v1"}}
credentials: {mine: {env: KEY, origins: ["https://mine.example"]}}
datasets: {mine: {path: mine.jsonl}}
functions: {mine: "mine:mine"}
defaults: {tags: [mine]}
prices: {m: {input: 1, output: 1, as_of: 2026-01-01}}
budget: {cost: 1}
policy: {mine: {schema: true}}
verdicts: {max_bytes: 1}
serve: {default_model: mine}
"""


def test_settings_that_are_trusted_are_those_of_the_other_revision() -> None:
    mine, theirs = (
        load(MINE)[0],
        load(MINE.replace("mine", "their").replace(": 1", ": 2").replace("version: 2", "version: 1"))[0],
    )
    found = mine.trusting(theirs)
    for name in ("limits", "remotes", "models", "credentials", "functions", "prices", "budget", "policy", "serve"):
        assert getattr(found, name) == getattr(theirs, name) != getattr(mine, name)
    for name in ("specs", "judges", "datasets", "defaults", "verdicts_max_bytes", "document"):
        assert getattr(found, name) == getattr(mine, name) != getattr(theirs, name)
    # Every section is one or the other.
    assert set(TRUSTED) | {"specs", "judges", "datasets", "defaults", "verdicts", "version"} == set(mine.document.value)  # type: ignore[union-attr]
    assert found.document_of("budget") is theirs.document and found.document_of("judges") is mine.document
    assert found.mark("budget", "cost") == theirs.mark("budget", "cost")


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {}, []),
        ({"a": {"b": 1, "c": [1]}}, {"a": {"b": 2, "c": [1]}}, ["a.b"]),
        ({"a": {"b": 1}}, {}, ["a"]),
        ({}, {"a": {"b": {"c": 1}}}, ["a"]),
        ({"a": {"b": 1}}, {"a": 1}, ["a"]),
        ({"a": [1, 2]}, {"a": [2, 1]}, ["a"]),
        ({"b": 1, "a": {"x.y": 1}}, {"b": 2, "a": {"x.y": 2}}, ["a.x.y", "b"]),
    ],
)
def test_differences(before: Any, after: Any, expected: list[str]) -> None:
    assert [".".join(route) for route in differences(before, after)] == expected
