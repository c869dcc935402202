"""A JSON Schema of a spec, held against responses: the same as jsonschema says, and nothing hostile gets through."""

from __future__ import annotations

import json
import math
import socket
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from evalops.evaluators import shape
from evalops.evaluators.pattern import TooSlow
from evalops.evaluators.shape import Shape, TooMuch

PERSON = {
    "type": "object",
    "required": ["name"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[A-Z]"},
        "friends": {"type": "array", "items": {"$ref": "#"}, "uniqueItems": True},
    },
    "patternProperties": {"^x_": {"type": "integer"}},
}


@pytest.mark.parametrize(
    ("value", "violation"),
    [
        ({"name": "Ann"}, None),
        ({"name": "Ann", "friends": [{"name": "Bo"}], "x_1": 3}, None),
        ({}, "'name' is a required property"),
        ({"name": "ann"}, "name: 'ann' does not match '^[A-Z]'"),
        ({"name": "Ann", "age": 3}, "'age' is not allowed"),
        ({"name": "Ann", "x_1": "3"}, "x_1: '3' is not of type 'integer'"),
        ({"name": "Ann", "friends": [{"name": "Bo"}, {"name": "Bo"}]}, "friends: it holds a value more than once"),
        (
            {"name": "Ann", "friends": [{"name": "Bo", "friends": [1]}]},
            "friends[0].friends[0]: 1 is not of type 'object'",
        ),
    ],
)
def test_the_first_violation_is_named_with_its_place(value: Any, violation: str | None) -> None:
    assert shape.problems(PERSON) == []
    assert Shape(PERSON).violation(value) == violation


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ('{"a": 1}', {"a": 1}),
        ("\n [1, 2]\n", [1, 2]),
        ('```json\n{"a": 1}\n```', {"a": 1}),
        ("```\n3\n```\n", 3),
        ({"a": 1}, {"a": 1}),
    ],
)
def test_json_is_taken_out_of_its_fence(response: Any, value: Any) -> None:
    assert shape.parse(response) == (value, None)


@pytest.mark.parametrize(
    "response",
    ["", "yes", "Here it is: {}", "{'a': 1}", "[" * 100_000, "NaN", "1" * 10_000, "```json\n{\n```", "``````"],
)
def test_what_is_no_json(response: str) -> None:
    value, problem = shape.parse(response)
    assert value is None and problem


@pytest.mark.parametrize(
    ("schema", "route", "why"),
    [
        ({"type": "strin"}, ("type",), "is not valid"),
        ({"properties": {"a": {"minimum": "1"}}}, ("properties", "a", "minimum"), "is not of type 'number'"),
        ({"pattern": "("}, ("pattern",), "missing )"),
        ({"patternProperties": {"(": {}}}, ("patternProperties",), "missing )"),
        ({"$ref": "https://example.com/a.json"}, ("$ref",), "outside this schema"),
        ({"items": {"$ref": "other.json"}}, ("items", "$ref"), "outside this schema"),
        ({"$ref": "file:///etc/passwd"}, ("$ref",), "outside this schema"),
        ({"properties": {"default": {"$ref": "https://example.com/a"}}}, ("properties", "default", "$ref"), "outside"),
        ({"$defs": {"const": {"pattern": "("}}}, ("$defs", "const", "pattern"), "missing )"),
        ({"$ref": "#/$defs/no"}, ("$ref",), "the schema has no `#/$defs/no`"),
        ({"$ref": "#no"}, ("$ref",), "the schema has no"),
        ({"$id": "https://example.com/", "type": "string"}, ("$id",), "`$id`"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, ("$schema",), "2020-12"),
        ({"unevaluatedProperties": False}, ("unevaluatedProperties",), "additionalProperties"),
        ({"enum": list(range(6_000))}, (), "6,002 values"),
    ],
)
def test_a_schema_that_cannot_be_used_says_why(schema: Any, route: tuple[str, ...], why: str) -> None:
    [(where, problem)] = shape.problems(schema)
    assert where == route and why in problem


@pytest.mark.parametrize(
    "schema",
    [
        True,
        {"$schema": shape.DRAFT},
        {"const": {"$ref": "anything"}, "enum": ["$id"], "examples": [{"pattern": "("}]},
        {
            "$defs": {"a/b": {"type": "string"}, "c": {"$anchor": "here"}},
            "anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#here"}],
        },
        {"prefixItems": [{"type": "string"}], "items": {"$ref": "#/prefixItems/0"}},
    ],
)
def test_a_schema_that_is_fine(schema: Any) -> None:
    assert shape.problems(schema) == []
    Shape(schema).violation(["a"])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/const", "const": {"$ref": "URL"}},
        {"$ref": "#/properties", "properties": {"properties": {"const": {"$ref": "URL"}}}},
        {"$ref": "#/const", "const": {"$id": "URL", "$ref": "other"}},
        {"$ref": "#/const", "const": {"$dynamicRef": "URL"}},
    ],
)
def test_data_that_is_taken_for_a_schema_fetches_nothing(schema: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/a.json"
        filled = json.loads(json.dumps(schema).replace("URL", url))
        server.settimeout(0)
        with pytest.raises(TooMuch):
            Shape(filled).violation({"const": 1})
        with pytest.raises(BlockingIOError):
            server.accept()


def test_data_that_is_taken_for_a_schema_has_no_pattern_that_fills_the_memory() -> None:
    schema = {"$ref": "#/const", "const": {"pattern": "(((a{1,999}){1,999}){1,999})"}}
    assert shape.problems(schema) == []
    with pytest.raises(TooMuch):
        Shape(schema).violation("a")


@pytest.mark.parametrize("step", [0.1, 1e-308])
def test_a_number_beyond_all_bounds_is_a_multiple_of_nothing(step: float) -> None:
    with pytest.raises(TooMuch):
        Shape({"multipleOf": step}).violation(math.inf)


def test_references_that_multiply_are_stopped() -> None:
    doubled = {f"a{i}": {"allOf": [{"$ref": f"#/$defs/a{i + 1}"}] * 2} for i in range(40)} | {"a40": {"type": "string"}}
    began = time.process_time()
    assert shape.problems({"$defs": doubled, "$ref": "#/$defs/a0"}) == []
    with pytest.raises(TooMuch):
        Shape({"$defs": doubled, "$ref": "#/$defs/a0"}).violation("x")
    assert time.process_time() - began < 3


def test_a_schema_that_only_refers_to_itself_is_stopped() -> None:
    assert shape.problems({"$ref": "#"}) == []
    with pytest.raises(TooMuch):
        Shape({"$ref": "#"}).violation(1)


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "(a+)+$"},
        {"patternProperties": {"(a+)+$": False}},
        {"patternProperties": {"(a+)+$": True}, "additionalProperties": False},
    ],
)
def test_a_hostile_pattern_is_stopped(schema: Any) -> None:
    assert shape.problems(schema) == []
    text = "a" * 5_000 + "!"
    with pytest.raises(TooSlow):
        Shape(schema).violation({text: 1} if "pattern" not in schema else text)


def test_unique_items_are_told_apart_as_json_does() -> None:
    known = Shape({"uniqueItems": True})
    assert known.violation([1, True, "1", [1], {"a": 1}, None, 0, False]) is None
    for twice in ([1, 1.0], [{"a": 1, "b": 2}, {"b": 2, "a": 1.0}], [[1], [1]]):
        assert known.violation(twice)
    began = time.process_time()
    assert known.violation([{"a": each} for each in range(10_000)]) is None
    assert time.process_time() - began < 2


SCHEMAS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["object", "array", "string", "integer"]),
        "required": st.just(["a"]),
        "properties": st.just({"a": {"type": "integer"}, "b": {"pattern": "^x"}}),
        "patternProperties": st.just({"^c": {"type": "string"}}),
        "additionalProperties": st.sampled_from([True, False, {"type": "null"}]),
        "uniqueItems": st.booleans(),
        "items": st.just({"pattern": "b$"}),
        "pattern": st.just("^a"),
    },
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("abcx", max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "c", "cc", "d"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
def test_it_accepts_what_jsonschema_accepts(schema: Any, value: Any) -> None:
    assert shape.problems(schema) == []
    assert (Shape(schema).violation(value) is None) == Draft202012Validator(schema).is_valid(
        json.loads(json.dumps(value))
    )
