"""A JSON Schema that stands in a spec, held against a response: bounded, and never a reason to open a connection.

Schema and response may both be a stranger's. References stay inside the schema and are counted, since a few of them
can ask for more steps than there is time; patterns run under a deadline; the rest is bounded by what both may hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache
from typing import Any
from urllib.parse import unquote

from evalops.evaluators.pattern import Pattern, problem
from evalops.fingerprint import canonical

DRAFT = "https://json-schema.org/draft/2020-12/schema"
LARGEST = 50_000  # characters of a response
NODES = 5_000  # of a schema
STEPS = 5_000  # references followed for one response

Route = tuple[str | int, ...]
_REFERENCES = ("$ref", "$dynamicRef")
_DATA = frozenset({"enum", "const", "examples", "default", "required"})
_NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependentRequired"})
_UNBOUNDED = ("unevaluatedProperties", "unevaluatedItems")  # they look at everything again at every level


class TooMuch(Exception):
    """The schema asks for more than a response gets: steps, references out of it, numbers beyond all bounds."""


def problems(schema: Any) -> list[tuple[Route, str]]:
    """What is wrong with a schema, each with the route to it."""
    nodes = list(_walk(schema, ()))
    if len(nodes) > NODES:
        return [((), f"it has {len(nodes):,} values, more than {NODES:,}")]
    found = [(route, why) for route, value in nodes if (why := _refused(schema, route, value))]
    validator = _bounded(lambda: None)
    broken = validator(validator.META_SCHEMA).iter_errors(schema)  # follows no reference of `schema`
    return found + [(tuple(each.absolute_path), each.message[:200]) for each in broken]


def parse(response: Any) -> tuple[Any, str | None]:
    """The JSON value of a response, out of its code fence where it is in one, and why there is none."""
    if not isinstance(response, str):
        return response, None
    text = response.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[:-3].partition("\n")[2]
    try:
        return json.loads(text, parse_constant=_refuse_constant), None
    except RecursionError:
        return None, "it is nested too deeply"
    except ValueError as error:
        return None, f"it is not JSON: {error}"


class Shape:
    """A schema that has no `problems`, ready for responses."""

    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._steps = 0

    def violation(self, value: Any) -> str | None:
        """How `value` breaks the schema first, None where it does not. Raises TooMuch and `pattern.TooSlow`."""
        error = self.error(value)
        if error is None:
            return None
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
        return f"{where.lstrip('.')}: {error.message}" if where else str(error.message)

    def error(self, value: Any) -> Any:
        """What `violation` tells, as a jsonschema.ValidationError."""
        from referencing.exceptions import Unresolvable

        self._steps = 0
        try:
            return next(self._validator.iter_errors(value), None)
        except (RecursionError, OverflowError, Unresolvable):
            raise TooMuch from None

    @cached_property
    def _validator(self) -> Any:
        from referencing import Registry

        # jsonschema's own registry fetches what it does not know, and a reference may lead into data, unchecked.
        return _bounded(self._step)(self._schema, registry=Registry())

    def _step(self) -> None:
        self._steps += 1
        if self._steps > STEPS:
            raise TooMuch


def _walk(value: Any, route: Route) -> Iterator[tuple[Route, Any]]:
    """Every value inside another; a document is nested 64 deep at most."""
    yield route, value
    if isinstance(value, dict | list):
        for key, each in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _walk(each, (*route, key))


def _refused(schema: Any, route: Route, value: Any) -> str | None:
    """Why a keyword of a schema is not taken."""
    key = route[-1] if route else None
    if key in _UNBOUNDED:
        return f"`{key}` is not taken: use `{'items' if key.endswith('Items') else 'additionalProperties'}`"
    if key == "patternProperties" and isinstance(value, dict):
        return next((f"`{each}`: {why}" for each in value if (why := problem(each))), None)
    if not isinstance(value, str) or _is_name(route):
        return None
    if key == "pattern":
        return problem(value)
    if key == "$id":
        return "`$id` would move its references elsewhere"
    if key == "$schema" and value.rstrip("#") != DRAFT:
        return f"evalops checks by {DRAFT}"
    if key in _REFERENCES:
        if not value.startswith("#"):
            return f"`{value[:80]}` is outside this schema, and evalops fetches none"
        if not _has(schema, value[1:]):
            return f"the schema has no `{value[:80]}`"
    return None


def _is_name(route: Route) -> bool:
    """Whether a value stands where text is data: in an enumeration, a constant, an example."""
    is_given = False  # a name of the schema's own, which may be that of a keyword
    for part in route[:-1]:
        if not is_given and part in _DATA:
            return True
        is_given = not is_given and part in _NAMED
    return False


def _has(schema: Any, fragment: str) -> bool:
    fragment = unquote(fragment)
    if fragment and not fragment.startswith("/"):
        nodes = _walk(schema, ())
        return any(route[-1:] in (("$anchor",), ("$dynamicAnchor",)) and value == fragment for route, value in nodes)
    value = schema
    for part in fragment.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and part in value:
            value = value[part]
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return False
    return isinstance(value, dict | bool)


def _bounded(step: Callable[[], None]) -> Any:
    """The validator of draft 2020-12 with its keywords that take unbounded time replaced; `step` may raise TooMuch."""
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    def counted(keyword: Any) -> Any:
        def check(validator: Any, *arguments: Any) -> Iterator[Any]:
            step()
            yield from keyword(validator, *arguments) or ()

        return check

    keywords = {name: counted(Draft202012Validator.VALIDATORS[name]) for name in _REFERENCES}
    own = {"pattern": _pattern, "patternProperties": _pattern_properties, "uniqueItems": _unique_items}
    own["additionalProperties"] = _additional_properties
    return extend(Draft202012Validator, {**keywords, **own})  # type: ignore[no-untyped-call]


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> Pattern:
    if problem(pattern):  # where a reference leads into data, nobody has looked yet
        raise TooMuch
    return Pattern(pattern)


def _matches(pattern: str, text: str) -> bool:
    return _compiled(pattern).search(text) is not None


def _pattern(validator: Any, pattern: str, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, str) and not _matches(pattern, instance):
        yield _error(f"{instance[:80]!r} does not match {pattern!r}")


def _pattern_properties(validator: Any, patterns: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if isinstance(instance, dict):
        for pattern, inner in patterns.items():
            for key, value in instance.items():
                if _matches(pattern, key):
                    yield from validator.descend(value, inner, path=key, schema_path=pattern)


def _additional_properties(validator: Any, inner: Any, instance: Any, schema: Any) -> Iterator[Any]:
    if not isinstance(instance, dict):
        return
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    for key, value in instance.items():
        if key in known or any(_matches(pattern, key) for pattern in patterns):
            continue
        if inner is False:
            yield _error(f"{key[:80]!r} is not allowed")
        else:
            yield from validator.descend(value, inner, path=key)


def _unique_items(validator: Any, is_wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
    """By one text for equal values, where jsonschema compares each with each."""
    if is_wanted and isinstance(instance, list) and len({canonical(_plain(each)) for each in instance}) < len(instance):
        yield _error("it holds a value more than once")


def _plain(value: Any) -> Any:
    """A value with 1.0 as 1, which JSON Schema holds for equal."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _error(message: str) -> Any:
    from jsonschema.exceptions import ValidationError

    return ValidationError(message)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
