"""JSON Schema 2020-12 checks of a document, told in the user's words with file, line and column."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from evalops.errors import Diagnostic, EvalopsError, Mark


NAMES = ("spec", "project", "lock", "plan")

# What people know from other tools, and what it is called here.
FOREIGN = {
    "model_name": "the model goes in `model`",
    "judge_model": "the judge's model goes in `judge: {model: …}`",
    "judge_model_name": "the judge's model goes in `judge: {model: …}`",
    "judge_system_template": "the judge's template goes in `judge: {system_template: …}`",
    "judge_template": "the judge's template goes in `judge: {system_template: …}`",
    "input_data_file_path": "the rows go in `dataset`",
    "dataset_path": "the rows go in `dataset`",
    "data": "the rows go in `dataset`",
    "file": "the file goes in `path`",
    "evaluation_type": "it is called `type` here",
    "categories": "the judge's choices are called `labels` here; a dataset column may be called `category`",
    "classes": "the judge's choices are called `labels` here",
    "scale": "use `min_score` and `max_score`",
    "range": "use `min_score` and `max_score`",
    "threshold": "a bound on the result goes in `thresholds: {METRIC: {min: …}}`; the passing score is `pass_threshold`",
    "gates": "a bound on the result goes in `thresholds: {METRIC: {min: …}}`",
    "system_prompt": "it is called `system_template` here",
    "prompt": "a model's prompt goes in `input_template`, the judge's in `system_template`",
    "prompt_template": "a model's prompt goes in `input_template`, the judge's in `system_template`",
    "external_api_token": "a spec never holds a key: name one with `credential: NAME` and bind it under "
    "`credentials:` in evalops.yaml",
    "api_key": "a spec never holds a key: name one with `credential: NAME` and bind it under "
    "`credentials:` in evalops.yaml",
    "base_url": "it is called `external_base_url` in a spec",
    "model_to_evaluate_name": "use `model_to_evaluate: {model: …}`",
    "baseline_model": "use `type: compare` with `model_a` and `model_b`",
    "expected": "the column with the true answer goes in `gold`",
    "target": "the column with the true answer goes in `gold`",
    "reference": "the column with the true answer goes in `gold`",
}

_TYPE_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "empty",
}


class Places(Protocol):
    """Whatever can say where the value at a route was written."""

    def mark(self, *route: str | int) -> Mark: ...


@cache
def text(name: str) -> str:
    """The JSON Schema `name` (one of `NAMES`) as it is shipped."""
    here = Path(__file__).resolve().parent
    # In the wheel the schemas lie in the package, in a checkout beside it.
    for folder in (here / "schemas", here.parent / "schemas"):
        path = folder / f"{name}-v1.json"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise EvalopsError(Diagnostic(code="schema/missing", message=f"the schema `{name}` is not installed"))


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    schemas = [json.loads(text(each)) for each in {name, "spec"}]
    registry: Any = Registry().with_resources(
        [(schema["$id"], DRAFT202012.create_resource(schema)) for schema in schemas]
    )
    schema = next(schema for schema in schemas if schema["$id"] == f"urn:evalops:{name}-v1")
    return Draft202012Validator(schema, registry=registry)


def check(value: Any, places: Places, name: str) -> list[Diagnostic]:
    """All violations of the schema `name` by `value`, each where it was written."""
    found = [diagnostic for error in _validator(name).iter_errors(value) for diagnostic in _diagnostics(error, places)]
    return sorted(set(found), key=lambda each: (each.mark or Mark(""), each.message))


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """A hint with the choice that looks most like `word`, if one does."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6) or [
        choice for choice in choices if choice.casefold() == word.casefold()
    ]
    return f"did you mean `{close[0]}`?" if close else None


def is_valid(value: Any, schema: Any) -> bool:
    """Whether `value` satisfies a schema that is itself data, a policy's."""
    from jsonschema import Draft202012Validator

    return bool(Draft202012Validator(schema).is_valid(value))


def violations(value: Any, schema: Any) -> list[str]:
    """What of `value` does not satisfy `schema`, a line each; a broken schema is one line too."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        return [f"the policy is not a JSON Schema: {error.message}"]
    return [
        f"{'.'.join(str(part) for part in error.absolute_path) or 'evaluation'}: {error.message}"
        for error in Draft202012Validator(schema).iter_errors(value)
    ]


# `error` is a jsonschema.ValidationError; its attributes are typed too loosely to be of help.
def _diagnostics(error: Any, places: Places) -> Iterator[Diagnostic]:
    route = tuple(error.absolute_path)
    what = _name(route)
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(error, route, places)
        case "required":
            present = error.instance
            for key in error.validator_value:
                if key not in present:
                    yield Diagnostic(
                        code="schema/missing-key",
                        message=f"{what} has no `{key}`" if route else f"`{key}` is missing",
                        mark=places.mark(*route),
                        hint=_meaning(error, key),
                    )
        case "not":  # a field of another type
            kind = _kind(error)
            yield Diagnostic(
                code="schema/wrong-type-field",
                message=f"{what} does not belong to type `{kind}`" if kind else f"{what} is not allowed here",
                mark=places.mark(*route),
                hint="remove it, or change `type`",
            )
        case _:
            message, hint = _value_message(error, what)
            yield Diagnostic(code="schema/value", message=message, mark=places.mark(*route), hint=hint)


def _unknown_keys(error: Any, route: tuple[str | int, ...], places: Places) -> Iterator[Diagnostic]:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key not in known:
            hint = FOREIGN.get(key) or nearest(key, known)
            yield Diagnostic(
                code="schema/unknown-key",
                message=f"unknown key `{key}`" + (f" in {_name(route)}" if route else ""),
                mark=places.mark(*route, key),
                hint=hint or (f"known here: {', '.join(known)}" if len(known) <= 12 else None),
            )


def _value_message(error: Any, what: str) -> tuple[str, str | None]:
    """The message and the hint for a value that breaks one keyword."""
    bound = error.validator_value
    match error.validator:
        case "type":
            kinds = [bound] if isinstance(bound, str) else bound
            words = " or ".join(_TYPE_WORDS.get(kind, kind) for kind in kinds)
            hint = "quote it" if "string" in kinds and isinstance(error.instance, int | float) else None
            return f"{what} must be {words}, not {_shown(error.instance)}", hint
        case "enum" | "const":
            choices = [str(choice) for choice in (bound if isinstance(bound, list) else [bound])]
            listed = ", ".join(f"`{choice}`" for choice in choices)
            hint = nearest(str(error.instance), choices)
            return (
                f"{what} must be {'one of ' if len(choices) > 1 else ''}{listed}, not {_shown(error.instance)}",
                hint,
            )
        case "minItems":
            return (
                f"{what} needs at least {bound} {'entry' if bound == 1 else 'entries'}, it has {len(error.instance)}",
                None,
            )
        case "maxItems":
            return f"{what} may have at most {bound} entries, it has {len(error.instance)}", None
        case "uniqueItems":
            return f"{what} names the same thing twice", None
        case "minLength":
            return f"{what} is empty", None
        case "maxLength":
            return f"{what} is longer than {bound} characters", None
        case "minimum":
            return f"{what} must be at least {bound}, not {error.instance}", None
        case "exclusiveMinimum":
            return f"{what} must be more than {bound}, not {error.instance}", None
        case "maximum":
            return f"{what} must be at most {bound}, not {error.instance}", None
        case "pattern":
            return (
                f"{what} is {_shown(error.instance)}, which has characters that do not belong in a name",
                "use letters, digits, `.`, `_` and `-`, and begin with a letter or a digit",
            )
        case "anyOf":
            return f"{what} needs `min` or `max`", None
        case "minProperties":
            return f"{what} is empty", None
        case "dependentRequired":
            return f"{what} needs `model` as well", None
    return f"{what}: {error.message}", None


def _name(route: tuple[str | int, ...]) -> str:
    """`judge.model`, `labels[2]`: how a route is written in a message."""
    text = ""
    for part in route:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return f"`{text}`" if text else "the document"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value}`" if len(value) <= 60 else f"`{value[:57]}…`"
    if isinstance(value, bool) or value is None:
        return f"`{json.dumps(value)}`"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"`{value}`"


def _meaning(error: Any, key: str) -> str | None:
    """The schema's own description of a missing key, as its hint."""
    described = error.schema.get("properties", {}).get(key)
    if not isinstance(described, dict):
        described = json.loads(text("spec"))["properties"].get(key)
    return described.get("description") if isinstance(described, dict) else None


def _kind(error: Any) -> str | None:
    """The `type` of the document in whose branch the error arose."""
    root: Any = error
    while root.parent is not None:
        root = root.parent
    path = list(error.absolute_schema_path)
    if "then" in path and isinstance(root.instance, dict):
        return root.instance.get("type")
    branch = {0: "classify", 1: "score", 2: "compare"}
    return branch.get(path[1]) if len(path) > 1 and path[0] == "allOf" and isinstance(path[1], int) else None
