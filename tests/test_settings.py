"""evalops.yaml as one value."""

from __future__ import annotations

import json
from typing import Any

import pytest

from evalops import document, settings
from evalops.errors import Diagnostic, Mark
from evalops.settings import Budget, Credential, Limits, Price, Settings


def load(text: str) -> tuple[Settings, list[Diagnostic]]:
    (found,), problems = document.parse(text.encode(), "evalops.yaml")
    assert not problems
    return settings.load(found)


def test_a_version_is_enough() -> None:
    found, problems = load("version: 1\n")
    assert problems == []
    assert found == Settings(document=found.document)
    assert found.specs == ("**/*.yaml",)
    assert found.policy is True


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
prices: {openai/gpt-4o-mini: {input: 0.15, output: 0.6}}
budget: {rows: 10, calls: 20, cost: 1.5}
policy: {properties: {rows: {maximum: 100}}}
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
    assert found.prices == {"openai/gpt-4o-mini": Price(input=0.15, output=0.6)}
    assert found.budget == Budget(rows=10, calls=20, cost=1.5)
    assert found.policy == {"properties": {"rows": {"maximum": 100}}}
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
