"""A job at a service, whoever made it: what it was asked to do, and what the service says came of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from evalops.views import tables
from evalops.views.safe import flat, line

_MODELS = ("judge", "model_to_evaluate", "model_a", "model_b")
_TEMPLATES = ("system_template", "input_template")


def show(value: Mapping[str, Any]) -> str:
    """Status, where it came from, parameters and results."""
    return "\n\n".join(part for part in (_head(value), _parameters(value), *_results(value["results"] or {})) if part)


def _head(value: Mapping[str, Any]) -> str:
    lines = [
        f"{click.style(flat(value['job']), bold=True)}  {line(value['provider_status'] or value['status'])}",
        f"  {line(value['type'] or 'of an unknown type')} at {flat(value['origin'])}, made {flat(value['created_at'])}"
        + (f", finished {flat(value['finished_at'])}" if value["finished_at"] else ""),
    ]
    if value["message"]:
        lines.append(f"  {line(value['message'], 400)}")
    held = ", ".join(map(flat, value["addresses"]))
    lines.append(f"  held by {held}" if held else "  held by no lockfile of this project")
    return "\n".join(lines)


def _parameters(value: Mapping[str, Any]) -> str:
    given = value["parameters"]
    lines = [f"dataset  {line(value['dataset']['file_id'] or 'none')}"]
    for key in _MODELS:
        model = given.get(key)
        if isinstance(model, Mapping):
            lines += _model(key, model)
        elif model is not None:
            lines.append(f"{key}  column {line(model)}")
    lines += [f"{key}  {_said(each)}" for key, each in given.items() if key not in _MODELS]
    return "\n".join(lines)


def _model(key: str, model: Mapping[str, Any]) -> Iterator[str]:
    where = ", ".join(line(model[name]) for name in ("model_source", "external_base_url") if name in model)
    yield f"{key}  {line(model.get('model', 'none'))}" + (f" ({where})" if where else "")
    for name, each in model.items():
        if name not in ("model", "model_source", "external_base_url"):
            yield f"  {name}  {line(each, 100) if name in _TEMPLATES else _said(each)}"


def _results(results: Mapping[str, Any]) -> Iterator[str]:
    """The service's numbers by their names; counts of labels as a table."""
    plain: dict[str, Any] = {}
    for name, each in results.items():
        if isinstance(each, Mapping):
            plain |= {f"{name}.{inner}": value for inner, value in each.items() if name != "label_counts"}
        elif name != "error":
            plain[name] = each
    if plain:
        width = max(map(len, map(line, plain)))
        yield "\n".join(f"{line(name):<{width}}  {_said(each)}" for name, each in plain.items())
    counts = results.get("label_counts")
    if isinstance(counts, Mapping) and counts and all(type(each) is int for each in counts.values()):
        yield tables.counts(counts, "label")


def _said(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    return line(", ".join(map(str, value)) if isinstance(value, list) else value, 120)
