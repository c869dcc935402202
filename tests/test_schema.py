"""The schemas themselves, the quick yes, and what a violation is called."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from evalops import document, schema
from evalops.errors import EvalopsError
from evalops.schema import File

SCHEMAS = {name: json.loads(schema.text(name)) for name in schema.NAMES}
REGISTRY: Any = Registry().with_resources(
    [(each["$id"], DRAFT202012.create_resource(each)) for each in SCHEMAS.values()]
)
SPECS = Path(__file__).parent.parent / "specs"


def oracle(name: str, pointer: str = "") -> Any:
    """jsonschema itself, with references and all."""
    return Draft202012Validator({"$ref": f"urn:evalops:{name}-v1#{pointer}"}, registry=REGISTRY)


def parts(value: Any, pointer: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every sub-schema of a schema with its pointer."""
    if not isinstance(value, dict):
        return
    yield pointer, value
    for keyword in ("properties", "$defs"):
        for key, each in value.get(keyword, {}).items():
            yield from parts(each, f"{pointer}/{keyword}/{key}")
    for keyword in ("additionalProperties", "items", "propertyNames"):
        yield from parts(value.get(keyword), f"{pointer}/{keyword}")
    for keyword in ("allOf", "anyOf", "oneOf"):
        for index, each in enumerate(value.get(keyword, ())):
            yield from parts(each, f"{pointer}/{keyword}/{index}")


def referred(value: dict[str, Any], name: str) -> dict[str, Any]:
    """A sub-schema with what its reference adds."""
    if "$ref" not in value:
        return value
    urn, _, pointer = value["$ref"].partition("#/")
    found = SCHEMAS[urn.removeprefix("urn:evalops:").removesuffix("-v1") or name]
    for part in pointer.split("/"):
        found = found[part]
    return {**found, **value}


# --- the schemas ---


@pytest.mark.parametrize("name", schema.NAMES)
def test_a_schema_is_valid_and_says_what_it_is(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])
    assert SCHEMAS[name]["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert SCHEMAS[name]["$id"] == f"urn:evalops:{name}-v1"
    assert SCHEMAS[name]["description"]


@pytest.mark.parametrize("name", schema.NAMES)
def test_every_property_is_described(name: str) -> None:
    missing = [
        f"{pointer}/{key}"
        for pointer, part in parts(SCHEMAS[name])
        for key, each in part.get("properties", {}).items()
        if "not" not in each and "description" not in referred(each, name) and "allOf" not in pointer
    ]
    assert missing == []


@pytest.mark.parametrize("name", schema.NAMES)
def test_every_example_and_default_is_valid(name: str) -> None:
    checked = 0
    for pointer, part in parts(SCHEMAS[name]):
        for example in [*part.get("examples", ()), *([part["default"]] if "default" in part else [])]:
            oracle(name, pointer).validate(example)
            checked += 1
    assert checked >= 5


def test_an_unknown_schema_is_an_error() -> None:
    with pytest.raises(EvalopsError, match="the schema `none` is not installed"):
        schema.text("none")


# --- the quick yes, against jsonschema ---

EXAMPLES = SCHEMAS["project"]["properties"].items()
VALID = [
    *(("project" if path.name == "evalops.yaml" else "spec", document.parse(path.read_bytes(), path.name)[0][0].value)
      for path in sorted(SPECS.glob("*.yaml"))),
    *(("lock", json.loads(path.read_text(encoding="utf-8"))) for path in sorted(SPECS.glob("*.lock"))),
    *(("project", {"version": 1, key: value}) for key, each in EXAMPLES for value in each.get("examples", ())),
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers(-3, 2000) | st.sampled_from([0.5, 1.0, -1.5, 3e9, 10**30, -0.0])
TEXTS: Any = st.sampled_from(
    ["", "a", "response", "classify", "score", "local", "x y", "1", "ä" * 101, "0" * 64, "lower", "\ud800", "\u0661"]
)
VALUES = st.recursive(
    SCALARS | TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=4
)


def routes(value: Any, route: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield route
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from routes(value[key], (*route, key))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[str, Any]:
    """A valid file with one or two things changed."""
    name, value = copy.deepcopy(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 2))):
        *outer, last = draw(st.sampled_from([route for route in routes(value) if route]))
        place = value
        for key in outer:
            place = place[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                place[last] = draw(VALUES)
            case "remove":
                del place[last]
            case _ if isinstance(place, dict):
                place[draw(st.sampled_from([*SCHEMAS["spec"]["properties"], "other"]))] = draw(VALUES)
            case _:
                place.append(draw(VALUES))
        if not any(route for route in routes(value)):
            break
    return name, value


@given(mutated())
@settings(max_examples=250, deadline=None)
def test_a_check_finds_something_exactly_where_jsonschema_does(case: tuple[str, Any]) -> None:
    name, value = case
    assert (schema.check(value, File("a"), name) == []) == oracle(name).is_valid(value)


@pytest.mark.parametrize("character", [*map(chr, range(0x21)), "\x7f", "\x85", "\xa0", "\u1680", "\u2028", "\ufeff"])
def test_no_odd_blank_is_in_an_origin(character: str) -> None:
    value = {"version": 1, "credentials": {"key": {"env": "KEY", "origins": [f"https://a{character}b.example"]}}}
    is_valid = schema.check(value, File("a"), "project") == []
    assert is_valid == oracle("project").is_valid(value)
    assert not (is_valid and character.isspace())


# --- what a violation is called ---

SPEC = {
    "version": 1, "name": "tone", "type": "classify", "dataset": "rows.jsonl", "labels": ["a", "b"],
    "judge": {"model": "m", "system_template": "{{ response }}"},
}  # fmt: skip


def said(which: str = "spec", **changes: Any) -> list[tuple[str, str | None]]:
    base = SPEC if which == "spec" else {"version": 1}
    value = {key: each for key, each in {**base, **changes}.items() if each != "-"}
    return [(each.message, each.hint) for each in schema.check(value, File("a.yaml"), which)]


MESSAGES = [
    ({"version": "1"}, '`version` must be `1`, not `"1"`', "remove the quotes"),
    ({"version": None}, "`version` has no value, it must be `1`", None),
    ({"version": True}, "`version` must be `1`, not `true`", None),
    ({"version": "-"}, "`version` is missing", "add `version: 1`"),
    ({"type": "Classify"}, "`type` must be one of `classify`, `score`, `compare`, `custom`, not `Classify`",
     "did you mean `classify`?"),
    ({"labels": ["a", 1.5]}, "entry 2 of `labels` must be text, not `1.5`", "quote it"),
    ({"labels": ["a", False]}, "entry 2 of `labels` must be text, not `false`", "quote it"),
    ({"labels": ["a", None]}, "entry 2 of `labels` has no value, it must be text", None),
    ({"labels": ["a"]}, "`labels` needs at least 2 entries, it has 1", None),
    ({"labels": []}, "`labels` needs at least 2 entries, it has none", None),
    ({"labels": ["a", "b", "a"]}, "`labels` has `a` more than once", None),
    ({"labels": [f"l{n}" for n in range(201)]}, "`labels` may have at most 200 entries, it has 201", None),
    ({"labels": "a, b"}, "`labels` must be a list, not `a, b`", None),
    ({"name": ""}, '`name` is `""`, which is no name',
     "use letters, digits, `.`, `_` and `-`, and begin with a letter or a digit"),
    ({"name": "a\n"}, '`name` is `"a\\n"`, which is no name',
     "use letters, digits, `.`, `_` and `-`, and begin with a letter or a digit"),
    ({"gold": ""}, "`gold` is empty", None),
    ({"description": 7}, "`description` must be text, not `7`", "quote it"),
    ({"matrix": {"include": [{}]}}, "entry 1 of `matrix.include` is empty", None),
    ({"thresholds": {"kappa": {"min": "high"}}}, "`thresholds.kappa.min` must be a number, not `high`", None),
    ({"thresholds": {"kappa": {"on": "lower"}}}, "`thresholds.kappa` needs `min` or `max`", None),
    ({"dataset": {"path": "x", "columns": {"a": ["b"]}}}, "`dataset.columns.a` must be text, not a list", None),
    ({"threshold": 1}, "unknown key `threshold`", schema.FOREIGN["threshold"]),
    ({"model": "m"}, "unknown key `model`", "it belongs in `judge`"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message", "hint"), MESSAGES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_messages(changes: dict[str, Any], message: str, hint: str | None) -> None:
    assert said(**changes) == [(message, hint)]


def test_a_key_that_stands_where_a_variable_name_belongs_is_not_repeated() -> None:
    found = said("project", credentials={"prod": {"env": "sk-live-0123", "origins": ["https://api.example.com"]}})
    assert [message for message, _ in found] == ["`credentials.prod.env` is not the name of an environment variable"]
    assert "sk-live" not in str(found)


@pytest.mark.parametrize("key", schema.FOREIGN)
def test_names_from_elsewhere_have_a_hint(key: str) -> None:
    assert (f"unknown key `{key}`", schema.FOREIGN[key]) in said(**{key: "x"})


def test_the_hints_for_foreign_names_name_fields_that_exist() -> None:
    known = {
        key for name in ("spec", "project") for _, part in parts(SCHEMAS[name]) for key in part.get("properties", {})
    }
    assert not set(schema.FOREIGN) & set(SCHEMAS["spec"]["properties"])
    for hint in schema.FOREIGN.values():
        named = {
            word
            for word in json.dumps(hint).replace("`", " ").replace("{", " ").replace(":", " ").split()
            if "_" in word
        }
        assert {word.strip('",;.') for word in named} <= known


@pytest.mark.parametrize(
    ("word", "hint"),
    [("kapa", "did you mean `kappa`?"), ("KAPPA", "did you mean `kappa`?"), ("zzz", None), ("", None)],
)
def test_nearest(word: str, hint: str | None) -> None:
    assert schema.nearest(word, ["accuracy", "kappa"]) == hint
