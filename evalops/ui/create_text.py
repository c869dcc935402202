"""A spec's text with another value in it: what stays as it was keeps its lines, its quotes and its comments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalops import emit, layout
from evalops.document import Document, KeyPath, parse
from evalops.errors import EvalopsError
from evalops.importing import SCHEMA, modeline
from evalops.project import Project
from evalops.ui.create_fields import same

_MODELINE = re.compile(rf"# yaml-language-server: \$schema=(?:\.\./)*{re.escape(SCHEMA)}\n")


def headed(project: Project, text: str, path: str) -> str:
    """A text with the line by which an editor finds the schema, as it is for a spec at `path`, where there is one."""
    found = _MODELINE.match(text)
    line = modeline(project, path) if found else ""
    return line + text[found.end() :] if found and line else text


def new(project: Project, value: Mapping[str, Any], path: str) -> str:
    """A spec as `fmt` lays it out."""
    return layout.laid_out((modeline(project, path) + emit.dump(value)).encode(), path)


def rewritten(document: Document, after: Mapping[str, Any], path: str) -> str:
    """The text of a file that holds this one document, with its value replaced, as `fmt` lays it out."""
    if same(document.value, after):
        return "\n".join(document.lines)
    lines = [*_head(document), *_mapping(document, (), document.value, after, _last(document))]
    for text in ("\n".join([*lines, ""]), _anew(document, after)):
        try:
            found = layout.laid_out(text.encode("utf-8", "surrogatepass"), path)
        except EvalopsError:
            continue
        documents, problems = parse(found.encode(), path)
        if not problems and len(documents) == 1 and same(documents[0].value, after):
            return found
    return _anew(document, after)  # what YAML cannot hold: validation says where


def _anew(document: Document, after: Mapping[str, Any]) -> str:
    """The value alone, below the remarks that begin the file."""
    remarks = []
    for line in document.lines:
        if not line.startswith("#"):
            break
        remarks.append(f"{line}\n")
    return "".join(remarks) + emit.dump(after)


def _head(document: Document) -> Sequence[str]:
    """The lines above the first field."""
    first = min((mark.line for route, mark in document.keys.items() if len(route) == 1), default=1)
    return document.lines[: first - 1]


def _last(document: Document) -> int:
    """The line behind the last one, from 1."""
    return len(document.lines) + 1


def _mapping(
    document: Document, route: KeyPath, before: Mapping[str, Any], after: Mapping[str, Any], end: int
) -> Iterator[str]:
    """The lines of a block mapping, which end before the line `end`."""
    marks = {str(each[-1]): mark for each, mark in document.keys.items() if each[:-1] == route}
    starts = [*(mark.line for mark in marks.values()), end]
    indent = " " * (next(iter(marks.values())).column - 1) if marks else ""
    loose: list[str] = []
    for place, name in enumerate(marks):
        yield from loose
        start, stop = starts[place], starts[place + 1]
        solid = stop
        while solid - 1 > start and _is_loose(document.lines[solid - 2]):
            solid -= 1
        loose = list(document.lines[solid - 1 : stop - 1])
        if name not in after:
            continue
        if same(before.get(name), after[name]):
            yield from document.lines[start - 1 : solid - 1]
        else:
            yield from _entry(document, (*route, name), before.get(name), after[name], indent, start, solid)
    for name in after:
        if name not in marks:
            yield from _dumped(name, after[name], indent)
    yield from loose


def _entry(
    document: Document, route: KeyPath, before: Any, after: Any, indent: str, start: int, end: int
) -> Iterator[str]:
    """A field with another value: in place where it is a mapping with a line for each key."""
    inner = [mark for each, mark in document.keys.items() if each[:-1] == route]
    is_block = len({mark.line for mark in inner}) == len(inner) and len({mark.column for mark in inner}) == 1
    if is_block and isinstance(after, dict) and after and isinstance(before, dict) and inner[0].line > start:
        yield from document.lines[start - 1 : inner[0].line - 1]
        yield from _mapping(document, route, before, after, end)
    else:
        yield from _dumped(str(route[-1]), after, indent)


def _dumped(name: str, value: Any, indent: str) -> Iterator[str]:
    for line in emit.dump({name: value}).removesuffix("\n").split("\n"):
        yield indent + line if line else ""


def _is_loose(line: str) -> bool:
    return not line.strip() or line.lstrip().startswith("#")
