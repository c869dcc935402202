"""JSON Schema 2020-12 checks of a document, told in the user's words with file, line and column."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, reduce
from operator import getitem
from pathlib import Path
from typing import Any, Protocol

from evalops.errors import Diagnostic, EvalopsError, Mark

Route = tuple[str | int, ...]

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
    "threshold": "a bound on the result goes in `thresholds: {METRIC: {min: …}}`; the passing score is "
    "`pass_threshold`",
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
    "scorer": "use `type: custom` with `evaluator`, or a judge",
    "comparison_metric": "it is called `metric` here",
    "baseline": "use `type: compare` with `model_a` and `model_b`, and the baseline as one of them",
    "score_range": "use `min_score` and `max_score`",
    "difficulty": "a column of the dataset; break the result down by it with `group_by: [difficulty]`",
    "category": "a column of the dataset; break the result down by it with `group_by: [category]`",
    "breakdown": "use `group_by: [COLUMN]`",
    "jury": "use `judges: [..]`",
    "runs": "use `repeats`",
    "num_repeats": "use `repeats`",
    "epochs": "use `repeats`",
    "limit": "use `dataset: {path: …, sample: {size: …}}`",
    "evaluated_model_input": "it is called `task_input` here",
    "evaluated_model_output": "it is called `task_output` here",
    "evaluated_model_gold_answer": "it is called `gold_answer` here",
    "evaluated_model_system_prompt": "the column goes in `patronus: {columns: {system_prompt: …}}`",
    "evaluated_model_retrieved_context": "it is called `task_context` here",
    "profile_name": "it is called `criteria` here",
    "explain": "it is called `explain_strategy` here",
    "project_name": "the project at Patronus goes in `patronus: {project: …}`",
    "experiment_id": "the experiment at Patronus goes by its name: `patronus: {experiment: …}`",
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


@dataclass(frozen=True, slots=True)
class File:
    """Places in a file that is known by its name only: every value is somewhere in it."""

    path: str

    def mark(self, *route: str | int) -> Mark:
        return Mark(self.path)


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


def bundled(name: str) -> str:
    """The JSON Schema `name` with those it refers to inside it, so that an editor needs no other file."""
    if name != "project":
        return text(name)
    value = json.loads(text(name))
    value["$defs"]["spec"] = json.loads(text("spec"))
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


@cache
def _validator(name: str) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    return extend(Draft202012Validator, {"pattern": _matches})(whole(name))  # type: ignore[no-untyped-call]


@cache
def whole(name: str) -> Any:
    """The schema `name` with every reference replaced by what it refers to."""
    return _inlined(_schema(name), name)


@cache
def _schema(name: str) -> Any:
    return json.loads(text(name))


def _inlined(value: Any, name: str) -> Any:
    """A part of the schema `name` without references; what stands beside one narrows what it refers to."""
    if isinstance(value, list):
        return [_inlined(each, name) for each in value]
    if not isinstance(value, dict):
        return value
    beside = {key: _inlined(each, name) for key, each in value.items() if key not in ("$ref", "$defs")}
    if "$ref" not in value:
        return beside
    urn, _, pointer = value["$ref"].partition("#/")
    name = urn.removeprefix("urn:evalops:").removesuffix("-v1") or name
    return {**_inlined(reduce(getitem, pointer.split("/"), _schema(name)), name), **beside}


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    """The keyword `pattern`, where `$` is the end of the text as in JSON Schema, not also the line before it."""
    return re.compile(re.sub(r"\$$", r"\\Z", pattern))


def _matches(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    """The keyword `pattern`."""
    from jsonschema.exceptions import ValidationError

    if isinstance(instance, str) and not _compiled(pattern).search(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@cache
def _quick(name: str) -> Any:
    from jsonschema_rs import validator_for

    return validator_for(whole(name))


def _is_sound(value: Any, name: str) -> bool:
    """Whether `value` surely keeps the schema `name`: most do, and are told in a hundredth of jsonschema's time."""
    try:
        return bool(_quick(name).is_valid(value))
    except ValueError:  # for one, a key that is no text
        return False


def check(value: Any, places: Places, name: str) -> list[Diagnostic]:
    """All violations of the schema `name` by `value`, each where it was written."""
    if _is_sound(value, name):
        return []
    found = [each for error in _validator(name).iter_errors(value) for each in _diagnostics(error, places, name)]
    return sorted(set(found), key=lambda each: (each.mark or Mark(""), each.message))


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """A hint with the choice that looks most like `word`, if one does."""
    choices = sorted(choices)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6) or [
        choice for choice in choices if choice.casefold() == word.casefold()
    ]
    return f"did you mean `{close[0]}`?" if close else None


def breach(error: Any) -> str:
    """A jsonschema.ValidationError of a rule in words; a number that nobody knows is infinite."""
    name = ".".join(str(part) for part in error.absolute_path)
    if error.validator is None:  # the schema `false`, of which jsonschema does not say where it stands
        return (
            "no evaluation is allowed"
            if isinstance(error.instance, dict)
            else f"{_shown(error.instance)} is not allowed"
        )
    if not name or error.validator not in _BOUNDS:
        return f"{name or 'evaluation'}: {error.message[:200]}"
    words, _ = _VALUES[error.validator](error)
    if error.instance == math.inf:
        return f"`{name}` {words.partition(', not ')[0]}, and it is not known"
    return f"`{name}` {words}"


_BOUNDS = ("type", "enum", "const", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


# `error` is a jsonschema.ValidationError; its attributes are typed too loosely to be of help.
def _diagnostics(error: Any, places: Places, name: str) -> Iterator[Diagnostic]:
    route = tuple(error.absolute_path)
    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(error, route, places, name)
        case "required" | "dependentRequired":
            yield from _missing_keys(error, route, places)
        case "not":  # a field of another type
            yield Diagnostic(
                code="schema/wrong-type-field",
                message=f"{_name(route)} does not belong to type `{_type_of_document(error)}`",
                mark=places.mark(*route),
                hint="remove it, or change `type`",
            )
        case "uniqueItems":
            second = next(i for i, each in enumerate(error.instance) if each in error.instance[:i])
            message = f"{_name(route)} has {_shown(error.instance[second])} more than once"
            yield Diagnostic(code="schema/value", message=message, mark=places.mark(*route, second))
        case _:
            what = _name(route)
            if "propertyNames" in error.absolute_schema_path:
                what, route = f"a key of {what}", (*route, error.instance)
            message, hint = _VALUES.get(error.validator, _other)(error)
            yield Diagnostic(code="schema/value", message=f"{what} {message}", mark=places.mark(*route), hint=hint)


def _unknown_keys(error: Any, route: Route, places: Places, name: str) -> Iterator[Diagnostic]:
    known = error.schema.get("properties", {})
    for key in error.instance:
        if key in known:
            continue
        owner = next((each for each, value in known.items() if key in value.get("properties", ())), None)
        hint = FOREIGN.get(key) or (f"it belongs in `{owner}`" if owner else None) or nearest(key, known)
        hint = hint or (f"known here: {', '.join(known)}" if len(known) <= 12 else None)
        yield Diagnostic(
            code="schema/unknown-key",
            message=f"unknown key `{key}`" + (f" in {_name(route)}" if route else ""),
            mark=places.mark(*route, key),
            hint=hint or f"evalops schema {name} describes every field",
        )


def _missing_keys(error: Any, route: Route, places: Places) -> Iterator[Diagnostic]:
    if error.validator == "required":
        needed, why = error.validator_value, ""
    else:
        why, needed = next((key, keys) for key, keys in error.validator_value.items() if key in error.instance)
    for key in needed:
        if key not in error.instance:
            yield Diagnostic(
                code="schema/missing-key",
                message=(f"{_name(route)} has no `{key}`" if route else f"`{key}` is missing")
                + (f", which `{why}` needs" if why else ""),
                mark=places.mark(*route),
                hint=_meaning(error, key),
            )


# --- what a value does that it may not: a message that follows the value's name, and a hint ---

Said = tuple[str, str | None]


def _type(error: Any) -> Said:
    kinds = [error.validator_value] if isinstance(error.validator_value, str) else error.validator_value
    words = " or ".join(_TYPE_WORDS[kind] for kind in kinds)
    if error.instance is None:
        return f"has no value, it must be {words}", None
    hint = _quotes(error.instance, is_text="string" in kinds)
    return f"must be {words}, not {_shown(error.instance)}", hint if error.absolute_path else "begin with `version: 1`"


def _choice(error: Any) -> Said:
    choices = error.validator_value if error.validator == "enum" else [error.validator_value]
    listed = ("one of " if len(choices) > 1 else "") + ", ".join(_shown(choice) for choice in choices)
    if error.instance is None:
        return f"has no value, it must be {listed}", None
    hint = _quotes(error.instance, is_text=isinstance(choices[0], str))
    return f"must be {listed}, not {_shown(error.instance)}", hint or nearest(str(error.instance), map(str, choices))


def _quotes(value: Any, *, is_text: bool) -> str | None:
    """The hint for a number in quotes, or for text that without quotes is something else."""
    if is_text:
        return "quote it" if isinstance(value, int | float) else None
    return "remove the quotes" if isinstance(value, str) and not _is_plainly_text(value) else None


def _few(error: Any) -> Said:
    least, have = error.validator_value, len(error.instance)
    return f"needs at least {least} {'entry' if least == 1 else 'entries'}, it has {have or 'none'}", None


def _pattern(error: Any) -> Said:
    message, hint = _PATTERNS.get(error.validator_value, ("is not written as it must be", None))
    return message.format(_shown(error.instance)), hint


def _short(error: Any) -> Said:
    least, have = error.validator_value, len(error.instance)
    if least == 1:
        return "is empty", None
    _, hint = _PATTERNS.get(error.schema.get("pattern"), ("", None))
    return f"must have {least} characters at the least, and {_shown(error.instance)} has {have or 'none'}", hint


def _other(error: Any) -> Said:
    return f"is not allowed: {error.message}", None


_VALUES: dict[str, Callable[[Any], Said]] = {
    "type": _type,
    "enum": _choice,
    "const": _choice,
    "pattern": _pattern,
    "minItems": _few,
    "maxItems": lambda error: (f"may have at most {error.validator_value} entries, it has {len(error.instance)}", None),
    "minLength": _short,
    "maxLength": lambda error: (f"is longer than {error.validator_value} characters", None),
    "minimum": lambda error: (f"must be at least {error.validator_value}, not {error.instance}", None),
    "exclusiveMinimum": lambda error: (f"must be more than {error.validator_value}, not {error.instance}", None),
    "exclusiveMaximum": lambda error: (f"must be less than {error.validator_value}, not {error.instance}", None),
    "maximum": lambda error: (f"must be at most {error.validator_value}, not {error.instance}", None),
    "minProperties": lambda error: ("is empty", None),
    "anyOf": lambda error: ("needs `min` or `max`", None),
}

_PATTERNS = {
    "^[A-Za-z0-9][A-Za-z0-9._-]*$": (
        "is {}, which is no name",
        "use letters, digits, `.`, `_` and `-`, and begin with a letter or a digit",
    ),
    # What stands there may be a key, so it is not repeated.
    "^[A-Za-z_][A-Za-z0-9_]*$": (
        "is not the name of an environment variable",
        "name the variable that holds the key, like OPENAI_API_KEY; never write the key itself",
    ),
    "^[A-Za-z0-9_./ -]*$": (
        "is {}, which is no name of an app at Patronus",
        "use 2 to 50 letters without accents, digits, spaces, `_`, `.`, `/` and `-`",
    ),
    "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$": (
        "is {}, which is no id of a project at Patronus",
        "an id looks like 123e4567-e89b-12d3-a456-426614174000; a project's name goes in `project`",
    ),
    "^https?://[^/?#@\\s\x1c-\x1f\x85]+$": (
        "is {}, which is no origin",
        "write scheme, host and port only, like https://llm.example.com",
    ),
}


def _name(route: Route) -> str:
    """`judge.model`, or entry 2 of `labels`: how a route is written in a message."""
    text = ""
    for part in route[:-1] if route and isinstance(route[-1], int) else route:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    if route and isinstance(route[-1], int):
        return f"entry {route[-1] + 1} of `{text}`"
    return f"`{text}`" if text else "the document"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = value if len(value) <= 60 else f"{value[:57]}…"
        if not text.isprintable():
            return f"`{json.dumps(text, ensure_ascii=False)}`"
        return f"`{text}`" if _is_plainly_text(text) else f'`"{text}"`'
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return f"`{json.dumps(value)}`"


def _is_plainly_text(text: str) -> bool:
    """Whether it needs no quotes to be told from a number, true, false or null."""
    try:
        return isinstance(json.loads(text), str | list | dict)
    except (ValueError, RecursionError):
        return bool(text)


def _meaning(error: Any, key: str) -> str | None:
    """The schema's own description of a missing key, as its hint."""
    spec = _schema("spec")
    places = (
        error.schema.get("properties", {}),
        spec["properties"],
        spec["$defs"],
        {"model": spec["$defs"]["model_id"]},
    )
    described: dict[str, Any] = next((each[key] for each in places if "description" in each.get(key, {})), {})
    if "const" in described:
        return f"add `{key}: {described['const']}`"
    found = described.get("description")
    return found.removesuffix(".") if found and ". " not in found else found


def _type_of_document(error: Any) -> str:
    """The `type` in whose branch of `allOf` the error arose."""
    path = list(error.absolute_schema_path)
    branch = whole("spec")["allOf"][path[path.index("allOf") + 1]]
    return str(branch["if"]["properties"]["type"]["const"])
