"""One spec with a `matrix` becomes one value per combination, each with its own address."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from evalops import schema
from evalops.schema import Route

MOST = 1000  # combinations of one spec; a spend attack is refused before it is expanded

_PLAIN = re.compile(r"[A-Za-z0-9 ._:/@+-]{1,80}")
_FIXED = ("version", "name", "matrix", "type")


class Problem(NamedTuple):
    """Why a matrix cannot be expanded; `route` is the place in the spec."""

    code: str
    message: str
    route: Route
    hint: str | None = None


class Cell(NamedTuple):
    """One combination: what its address adds, the spec's value with it, and where each value was written."""

    suffix: str
    value: dict[str, Any]
    sources: Mapping[Route, Route]  # route set -> route in the document


def expand(value: dict[str, Any]) -> list[Cell] | Problem:
    """All cells in the order of the spec; without a matrix one, with an empty suffix."""
    matrix = value.get("matrix")
    if matrix is None:
        return [Cell("", value, {})]
    axes = {key: values for key, values in matrix.items() if key not in ("include", "exclude")}
    include, exclude = matrix.get("include", []), matrix.get("exclude", [])
    problem = _problem(axes, include, exclude)
    if problem:
        return problem
    base = {key: each for key, each in value.items() if key != "matrix"}
    names = _short_names([*axes, *(key for extra in include for key in extra)])
    # Each combination with where each of its values stands.
    picks: list[tuple[dict[str, Any], dict[str, Route]]] = []
    for indices in itertools.product(*(range(len(values)) for values in axes.values())) if axes else ():
        combination = {key: axes[key][index] for key, index in zip(axes, indices, strict=True)}
        if not any(_matches(combination, rule) for rule in exclude):
            picks.append((combination, {key: ("matrix", key, i) for key, i in zip(axes, indices, strict=True)}))
    for number, extra in enumerate(include):
        picks.append((extra, {key: ("matrix", "include", number, key) for key in extra}))
    cells = [_cell(base, combination, places, names) for combination, places in picks]
    return _empty_or_twice(cells) or cells


def _problem(axes: dict[str, list[Any]], include: list[Any], exclude: list[Any]) -> Problem | None:
    """What is wrong with a matrix before it is expanded: cheap, whatever its size."""
    count = (math.prod(len(values) for values in axes.values()) if axes else 0) + len(include)
    if count > MOST:
        return Problem(
            "matrix/too-large",
            f"`matrix` makes {count:,} evaluations, at most {MOST:,} are allowed",
            ("matrix",),
            "leave out values, or split the spec",
        )
    if len(exclude) > MOST:
        message = f"`exclude` has {len(exclude):,} entries, at most {MOST:,} are allowed"
        return Problem(
            "matrix/too-large", message, ("matrix", "exclude"), "leave out values instead, or split the spec"
        )
    keys: dict[str, Route] = {key: ("matrix", key) for key in axes}
    for number, extra in enumerate(include):
        keys |= {key: ("matrix", "include", number, key) for key in extra if key not in keys}
    return _bad_key(keys) or _repeated(axes) or _bad_include(axes, include) or _bad_exclude(axes, exclude)


def _bad_key(keys: Mapping[str, Route]) -> Problem | None:
    for key, route in keys.items():
        if key.split(".")[0] in _FIXED:
            why = "an address is made of the name and the varied values" if key == "name" else "write two specs"
            return Problem("matrix/key", f"`matrix` cannot vary `{key}`", route, why)
        outer = next((other for other in keys if key.startswith(f"{other}.")), None)
        if outer:
            message = f"`matrix` cannot vary both `{outer}` and `{key}`: one would overwrite the other"
            return Problem("matrix/key", message, route, f"vary parts of `{outer}` only, or the whole of it")
    return None


def _repeated(axes: Mapping[str, list[Any]]) -> Problem | None:
    for key, values in axes.items():
        labels = [_label(value) for value in values]
        for index, label in enumerate(labels):
            if label in labels[:index]:
                message = f"`{key}` has {_shown(values[index])} more than once"
                return Problem("matrix/duplicate", message, ("matrix", key, index), "remove one of them")
    return None


def _bad_include(axes: Mapping[str, list[Any]], include: list[dict[str, Any]]) -> Problem | None:
    for number, extra in enumerate(include):
        route: Route = ("matrix", "include", number)
        unknown = next((key for key in extra if axes and key not in axes), None)
        if unknown is not None:
            hint = schema.nearest(unknown, axes) or f"its keys are: {', '.join(axes)}"
            message = f"entry {number + 1} of `include` has `{unknown}`, which is no key of `matrix`"
            return Problem("matrix/include", message, (*route, unknown), hint)
        missing = [f"`{key}`" for key in axes if key not in extra]
        if missing:
            message = f"entry {number + 1} of `include` has no {' and no '.join(missing)}"
            return Problem("matrix/include", message, route, "give a value for every key of `matrix`")
    return None


def _bad_exclude(axes: Mapping[str, list[Any]], exclude: list[dict[str, Any]]) -> Problem | None:
    for number, rule in enumerate(exclude):
        for key, value in rule.items():
            route = ("matrix", "exclude", number, key)
            if key not in axes:
                known = schema.nearest(key, axes) or f"its keys are: {', '.join(axes)}"
                return Problem("matrix/key", f"`exclude` names `{key}`, which is no key of `matrix`", route, known)
            if value not in axes[key]:
                # Silence would run, and pay for, what was meant to be left out.
                close = schema.nearest(str(value), map(str, axes[key])) or "remove it, or correct the value"
                message = f"`exclude` names {_shown(value)}, which is no value of `{key}`"
                return Problem("matrix/exclude", message, route, close)
    return None


def _empty_or_twice(cells: list[Cell]) -> Problem | None:
    if not cells:
        return Problem("matrix/empty", "`matrix` leaves no evaluation", ("matrix",), "give it a key with values")
    seen = set()
    for cell in cells:
        if cell.suffix in seen:
            route = next(iter(cell.sources.values()))[:3]
            message = f"entry {int(route[2]) + 1} of `include` repeats the combination `{cell.suffix}`"
            return Problem("matrix/duplicate", message, route, "remove it")
        seen.add(cell.suffix)
    return None


def _matches(combination: dict[str, Any], rule: dict[str, Any]) -> bool:
    return all(combination.get(key) == value for key, value in rule.items())


def _short_names(keys: Iterable[str]) -> dict[str, str]:
    """The last part of each dotted path where that is clear, else the whole path."""
    last = {key: key.rsplit(".", 1)[-1] for key in keys}
    counts = Counter(last.values())
    return {key: name if counts[name] == 1 else key for key, name in last.items()}


def _cell(
    base: dict[str, Any],
    combination: dict[str, Any],
    places: Mapping[str, Route],
    names: Mapping[str, str],
) -> Cell:
    value = copy.deepcopy(base)
    sources: dict[Route, Route] = {}
    labels = {}
    for key, chosen in combination.items():
        route = tuple(key.split("."))
        _put(value, route, copy.deepcopy(chosen))
        sources[route] = places[key]
        labels[names[key]] = _label(chosen)
    # Sorted, so that the order of the keys in the spec never changes an address.
    suffix = ",".join(f"{name}={labels[name]}" for name in sorted(labels))
    return Cell(f"[{suffix}]", value, sources)


def _put(value: dict[str, Any], route: tuple[str, ...], chosen: Any) -> None:
    for part in route[:-1]:
        inner = value.get(part)
        if not isinstance(inner, dict):
            inner = value[part] = {}
        value = inner
    value[route[-1]] = chosen


def _shown(value: Any) -> str:
    return f"`{value}`" if isinstance(value, str) else f"`{json.dumps(value, ensure_ascii=False)}`"


def _label(value: Any) -> str:
    """How a value stands in an address: itself where it is short and plain, else the start of its digest."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:8]
