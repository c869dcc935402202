"""YAML as it is written: what a person reads, and that `document` reads the same value back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from evalops import document, emit


def read(text: str) -> Any:
    found, problems = document.parse(text.encode(), "spec.yaml")
    assert problems == []
    return found[0].value


def test_a_spec_reads_as_one_that_a_person_wrote() -> None:
    value = {
        "version": 1,
        "name": "eval-1a2b-17",
        "judge": {
            "model": "openai/gpt-4o",
            "temperature": 0.05,
            "system_template": "Is it polite?\n\n{{ response }}\n",
        },
        "labels": ["polite", "rude", "No", "it's"],
        "pass_threshold": 4.0,
        "disable_position_bias_correction": True,
    }
    assert emit.dump(value) == (
        "version: 1\n"
        "name: eval-1a2b-17\n"
        "judge:\n"
        "  model: openai/gpt-4o\n"
        "  temperature: 0.05\n"
        "  system_template: |\n"
        "    Is it polite?\n"
        "\n"
        "    {{ response }}\n"
        "labels: [polite, rude, 'No', \"it's\"]\n"
        "pass_threshold: 4\n"
        "disable_position_bias_correction: true\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "a: b", "- a", "#a", "a #b", "null", "~", "Yes", "1", "1e5", ".inf", "0x1", "2024-01-01", "---", "...",
        "a\n", "\na", "\n\na\n\n", " a\nb", "\ta\nb", "a\n b", "a \n b ", "a\n\n", "\n", "\n\n", " \n", "a\r\nb", "a\rb",
        "--- a\nb", "# a\nb", "{{ a }}", "%a", "é", "日本\n語", "\x00", "\x1b[31m", "\u2028", "\x85", "\ufeff", "😀", "a\tb", "'", '"\\', "a\n\t\nb",
        "a\n   \nb\n   ", "=", "<<", "!a", "&a", "*a", "@a", "`a`", "key: |", "\\n",
    ],
)  # fmt: skip
def test_every_text_comes_back(text: str) -> None:
    value = {"a": text, "b": {"c": [text, text], "d": text}, "e": text}
    assert read(emit.dump(value)) == value


plain = st.characters(exclude_categories=("Cs",))
texts = st.text(plain, max_size=30) | st.text(st.sampled_from(" \n\t#:-'\"a{}|>"), max_size=30)
scalars = texts | st.booleans() | st.none() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
keys = st.text(st.sampled_from("abc_"), min_size=1, max_size=5) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(keys, values, min_size=1, max_size=5))
@example({"a": [["b\nc"], {"d": []}], "e": {}})
@example({"a": ["x" * 60, "y" * 60, "a\nb"]})
def test_every_value_comes_back(value: dict[str, Any]) -> None:
    assert read(emit.dump(value)) == value
