"""One spec with a `matrix` becomes one value per combination, each with its own address."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from evalops.errors import Diagnostic

MOST = 1000  # combinations of one spec; a spend attack is refused before it is expanded

_PLAIN = re.compile(r"[A-Za-z0-9 ._:/@+-]{1,80}")
_FIXED = ("version", "name", "matrix", "type")


class Cell(NamedTuple):
    """One combination: what its address adds, the spec's value with it, and where each value was written."""

    suffix: str
    value: dict[str, Any]
    sources: Mapping[tuple[str | int, ...], tuple[str | int, ...]]  # route set -> route in the document


def expand(value: dict[str, Any]) -> list[Cell] | Diagnostic:
    """All cells in the order of the spec; without a matrix one, with an empty suffix.

    The Diagnostic has no mark: the caller knows the document.
    """
    matrix = value.get("matrix")
    if matrix is None:
        return [Cell("", value, {})]
    axes = {key: values for key, values in matrix.items() if key not in ("include", "exclude")}
    include, exclude = matrix.get("include", []), matrix.get("exclude", [])
    problem = _problem(axes, include, exclude)
    if problem:
        return problem
    base = {key: each for key, each in value.items() if key != "matrix"}
    names = _short_names(axes)
    # Each combination with where each of its values stands.
    picks: list[tuple[dict[str, Any], dict[str, tuple[str | int, ...]]]] = []
    for indices in itertools.product(*(range(len(values)) for values in axes.values())) if axes else ():
        combination = {key: axes[key][index] for key, index in zip(axes, indices, strict=True)}
        if not any(_matches(combination, rule) for rule in exclude):
            picks.append((combination, {key: ("matrix", key, i) for key, i in zip(axes, indices, strict=True)}))
    for number, extra in enumerate(include):
        picks.append((extra, {key: ("matrix", "include", number, key) for key in extra}))
    return [_cell(base, combination, places, names) for combination, places in picks]


def _problem(axes: dict[str, list[Any]], include: list[Any], exclude: list[Any]) -> Diagnostic | None:
    count = (math.prod(len(values) for values in axes.values()) if axes else 0) + len(include)
    if count > MOST:
        return Diagnostic(
            code="matrix/too-large",
            message=f"`matrix` makes {count:,} evaluations, at most {MOST:,} are allowed",
            hint="leave out values, or split the spec",
        )
    for key in {*axes, *(key for rule in include for key in rule)}:
        if key.split(".")[0] in _FIXED:
            return Diagnostic(code="matrix/key", message=f"`matrix` cannot vary `{key}`")
    for rule in exclude:
        for key in rule:
            if key not in axes:
                return Diagnostic(
                    code="matrix/key",
                    message=f"`exclude` names `{key}`, which is no key of `matrix`",
                    hint=f"its keys are: {', '.join(axes)}",
                )
    for extra in include:
        if axes and set(extra) != set(axes):
            return Diagnostic(
                code="matrix/include",
                message="an entry of `include` must give a value for every key of `matrix`",
                hint=f"its keys are: {', '.join(axes)}",
            )
    return None


def _matches(combination: dict[str, Any], rule: dict[str, Any]) -> bool:
    return all(combination.get(key) == value for key, value in rule.items())


def _short_names(axes: Mapping[str, Any]) -> dict[str, str]:
    """The last part of each dotted path where that is clear, else the whole path."""
    last = [key.rsplit(".", 1)[-1] for key in axes]
    return {key: key if last.count(key.rsplit(".", 1)[-1]) > 1 else key.rsplit(".", 1)[-1] for key in axes}


def _cell(
    base: dict[str, Any],
    combination: dict[str, Any],
    places: Mapping[str, tuple[str | int, ...]],
    names: Mapping[str, str],
) -> Cell:
    value = copy.deepcopy(base)
    sources: dict[tuple[str | int, ...], tuple[str | int, ...]] = {}
    labels = {}
    for key, chosen in combination.items():
        route = tuple(key.split("."))
        _put(value, route, copy.deepcopy(chosen))
        sources[route] = places[key]
        labels[names.get(key, key.rsplit(".", 1)[-1])] = _label(chosen)
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


def _label(value: Any) -> str:
    """How a value stands in an address: itself where it is short and plain, else the start of its digest."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if _PLAIN.fullmatch(text) else hashlib.sha256(text.encode()).hexdigest()[:8]
