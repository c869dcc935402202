"""A row of the dataset that a spec names, and the spec's templates rendered with it; nothing is asked of anybody."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any

from evalops import sources, template
from evalops.datasets import dataset, sketch
from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.project import Project
from evalops.ui.create_fields import CANDIDATES
from evalops.views.safe import line, safe

Json = dict[str, Any]
MOST_SHOWN = 20_000  # characters of a rendered template
MOST_OF_CELL = 300
MOST_COLUMNS = 200


def of(project: Project, spec: Mapping[str, Any], number: int) -> Json:
    """`columns` with the name that a template has for each, and `row`: its cells, and each template with them."""
    names = _names(spec)
    first: Row | None = None
    row: Row | None = None
    count, note = 0, ""
    try:
        for each in islice(_rows(project, spec), max(number, 1)):
            first, row, count = first or each, each, count + 1
    except EvalopsError as error:
        note = error.diagnostics[0].message
    if row is not None and count < number and not note:
        note = f"There is no row {number:,}: the dataset has {count:,}."
        row = None
    columns = list(first.source)[:MOST_COLUMNS] if first else []
    cells = {names.get(name, name): value for name, value in row.source.items()} if row else {}
    return {
        "columns": _columns(columns, names),
        "row": {
            "number": number,
            "note": safe(note),
            "cells": [[line(name, 80), line(_text(value), MOST_OF_CELL)] for name, value in islice(cells.items(), 40)],
            "rendered": {field: _rendered(text, cells) for field, text in _templates(project, spec)} if row else {},
        },
    }


def _rows(project: Project, spec: Mapping[str, Any]) -> Iterator[Row]:
    value = spec.get("dataset")
    if isinstance(value, dict) and isinstance(rows := value.get("rows"), list):
        return (Row(place, place + 1, each) for place, each in enumerate(rows) if isinstance(each, dict))
    if isinstance(value, dict) and isinstance(digest := value.get("sha256"), str):
        kept = sources.kept(project, digest)
        return dataset.read(partial(project.open, kept), kept) if kept else iter(())
    path = value.get("path") if isinstance(value, dict) else value
    if not isinstance(path, str) or not path:
        return iter(())
    source = sources.find(project, path)
    return dataset.read(source.open, source.path)


def _names(spec: Mapping[str, Any]) -> dict[str, str]:
    """New names of columns, by those of the file."""
    value = spec.get("dataset")
    columns = value.get("columns") if isinstance(value, dict) else None
    given = columns.items() if isinstance(columns, dict) else ()
    return {theirs: ours for ours, theirs in given if isinstance(theirs, str)}


def _columns(columns: list[str], names: Mapping[str, str]) -> list[Json]:
    """Columns by the name that the spec has for them; `variable` is what a template writes, `theirs` a name to give."""
    free = sketch.variables([each for each in columns if each not in names])
    found = []
    for each in columns:
        name = names.get(each, each).encode("utf-8", "backslashreplace").decode()  # half a character is no name
        variable = name if each in names else free.get(each)
        found.append(
            {"name": name, "shown": line(name, 60), "variable": variable, "theirs": each if variable != name else None}
        )
    return found


def _templates(project: Project, spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in ("judge", *CANDIDATES):
        model = spec.get(key)
        for name in ("system_template", "input_template"):
            text = model.get(name) if isinstance(model, dict) else None
            if isinstance(text, dict) and isinstance(text.get("file"), str):
                try:
                    text = project.read_text(text["file"])
                except EvalopsError:
                    continue
            if isinstance(text, str) and text:
                yield f"{key}.{name}", text


def _rendered(text: str, cells: Mapping[str, Any]) -> Json:
    found = template.parse(text)
    if not isinstance(found, template.Template):
        return {"text": None, "error": safe(found[0].message)}
    try:
        made = found.render(cells)
    except template.RenderError as error:
        return {"text": None, "error": safe(error.message if isinstance(error.message, str) else error)}
    cut = f"\n… {len(made) - MOST_SHOWN:,} more characters" if len(made) > MOST_SHOWN else ""
    return {"text": safe(made[:MOST_SHOWN]) + cut, "error": None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
