"""The canonical layout of a YAML file: indentation, blanks, the order of a spec's fields. No value, no comment changes.

Lines are moved and indented, never written anew: quotes, breaks within a value and comments stay as their author put
them. What comes out is read again, and a file that would not hold the same values stays as it is.
"""

from __future__ import annotations

import json
import re
from bisect import bisect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise, takewhile
from typing import Any, NamedTuple

from yaml.events import (
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from evalops import schema
from evalops.document import Document, events, parse
from evalops.errors import Diagnostic, EvalopsError, Mark

STEP = 2  # columns of a level
_DASH = re.compile(r"-(?: +|$)")
_BOUNDARY = re.compile(r"(?:---|\.\.\.)(?:\s|$)|%")
_MODELINE = re.compile(r"#\s*yaml-language-server:")


def laid_out(data: bytes, path: str, *, is_spec: bool = True) -> str:
    """The text of a file in canonical layout; only a spec's fields are put in order.

    Raises EvalopsError where the file is no YAML that evalops reads, or would not come back with the same values.
    """
    documents, problems = parse(data, path)
    if problems:
        raise EvalopsError(*problems)
    text = data.decode().removeprefix("\ufeff").replace("\r\n", "\n")
    found = _indented(text)
    if is_spec:
        found = _ordered(found, path)
    again, problems = parse(found.encode(), path)
    before, after = (Counter(each.text for each in _shape(each).comments) for each in (text, found))
    if problems or list(map(_values, again)) != list(map(_values, documents)) or before != after:
        message = "the file would not mean the same in another layout, so it stays as it is"
        hint = "one field on each line, indented with spaces, is always fine"
        raise EvalopsError(Diagnostic(code="fmt/left-alone", message=message, mark=Mark(path, 1, 1), hint=hint))
    return found


def _values(document: Document) -> str:
    """Everything that the values say: their types and, below the fields, their order too."""
    value = document.value
    return json.dumps({key: value[key] for key in sorted(value)} if isinstance(value, dict) else value)


# --- what the lines of a file are ---


class Comment(NamedTuple):
    """A comment; lines and columns from 0."""

    line: int
    column: int
    text: str


class _Held(NamedTuple):
    """A line inside a value that began on an earlier line."""

    start: int
    kind: str  # block, scalar, flow


@dataclass(slots=True)
class _Shape:
    """Where values of several lines, block mappings and comments are."""

    lines: list[str]
    held: dict[int, _Held] = field(default_factory=dict)
    mappings: set[tuple[int, int]] = field(default_factory=set)
    comments: list[Comment] = field(default_factory=list)

    def is_loose(self, number: int) -> bool:
        """Whether a line is blank, or a comment that begins it: the next field's, not part of the one above."""
        line = self.lines[number]
        return number not in self.held and (not line.strip() or line.startswith("#"))

    def is_boundary(self, number: int) -> bool:
        return number not in self.held and _BOUNDARY.match(self.lines[number]) is not None


def _shape(text: str) -> _Shape:
    shape = _Shape(text.split("\n"))
    covered: dict[int, list[tuple[int, int]]] = {}
    open_: list[Any] = []
    for event in events(text):
        start, end = event.start_mark, event.end_mark
        match event:
            case ScalarEvent():
                _hold_scalar(shape, covered, event)
            case SequenceStartEvent() | MappingStartEvent():
                open_.append(event)
                if isinstance(event, MappingStartEvent) and not event.flow_style:
                    shape.mappings.add((start.line, start.column))
            case SequenceEndEvent() | MappingEndEvent():
                begun = open_.pop()
                if begun.flow_style:
                    first = begun.start_mark.line
                    for number in range(first + 1, end.line + 1):
                        shape.held.setdefault(number, _Held(first, "flow"))
    shape.comments = list(_comments(shape, covered))
    return shape


def _hold_scalar(shape: _Shape, covered: dict[int, list[tuple[int, int]]], event: Any) -> None:
    """Notes the lines and columns that a scalar takes."""
    start, end = event.start_mark, event.end_mark
    if event.style in ("|", ">"):
        # Behind the last line break there is no line. A block without one at its end ends there.
        count = len(shape.lines) - (not shape.lines[-1])
        last = min(end.line if end.column else end.line - 1, count - 1)
        if "+" not in shape.lines[start.line][start.column :].split("#")[0]:
            while last > start.line and not shape.lines[last].strip(" "):
                last -= 1
            # Blanks beyond the column of the text are part of it.
            text = event.value.rstrip("\n").split("\n")
            last += sum(1 for _ in takewhile(lambda line: not line.strip(" "), reversed(text))) if any(text) else 0
        shape.held.update(dict.fromkeys(range(start.line + 1, last + 1), _Held(start.line, "block")))
        return
    for number in range(start.line, end.line + 1):
        begin = start.column if number == start.line else 0
        stop = end.column if number == end.line else len(shape.lines[number])
        covered.setdefault(number, []).append((begin, stop))
        if number > start.line:
            shape.held[number] = _Held(start.line, "scalar")


def _comments(shape: _Shape, covered: dict[int, list[tuple[int, int]]]) -> Iterator[Comment]:
    for number, line in enumerate(shape.lines):
        held = shape.held.get(number)
        if "#" not in line or (held and held.kind == "block") or line.startswith("%"):
            continue
        for found in re.finditer(r"(?:^|(?<=\s))#", line):
            column = found.start()
            if not any(begin <= column < stop for begin, stop in covered.get(number, ())):
                yield Comment(number, column, line[column:].rstrip())
                break


# --- indentation and blanks ---


class _Level(NamedTuple):
    """A block collection that is open: its column in the file, and the one that it gets."""

    old: int
    new: int
    is_list: bool


def _indented(text: str) -> str:
    shape = _shape(text)
    writer = _Writer(shape)
    for number in range(len(shape.lines)):
        writer.line(number)
    return _spaced(writer.out, shape)


def _spaced(lines: Sequence[tuple[str, bool]], shape: _Shape) -> str:
    """The lines with at most one blank one between two, none at either end; a held line is kept whatever it is."""
    found: list[tuple[str, bool]] = []
    for line, is_held in lines:
        if line or is_held or (found and (found[-1][0] or found[-1][1])):
            found.append((line, is_held))
    while found and not found[-1][0] and not found[-1][1]:
        found.pop()
    # A block without a line break at its end has none in its value: one more would change it.
    ends_open = len(shape.lines) - 1 in shape.held and bool(shape.lines[-1])
    return "\n".join(line for line, _ in found) + ("" if ends_open else "\n")


class _Writer:
    """Gives each line its new indentation, from the first to the last."""

    def __init__(self, shape: _Shape) -> None:
        self.shape = shape
        self.out: list[tuple[str, bool]] = []  # with whether the line is held
        self.levels: list[_Level] = []
        self.inner: dict[int, _Level] = {}  # of a line, the innermost collection that it is in
        self.blocks: dict[int, tuple[int, int]] = {}  # by the line that begins a block
        self.own = {each.line for each in shape.comments if not shape.lines[each.line][: each.column].strip()}
        # What is neither blank nor a comment of its own.
        self.solid = [each for each, line in enumerate(shape.lines) if line.strip() and each not in self.own]

    def line(self, number: int) -> None:
        line = self.shape.lines[number]
        held = self.shape.held.get(number)
        if held:
            self.out.append((self._held(number, line, held), True))
        elif not line.strip():
            self.out.append(("", False))
        elif number in self.own:
            self.out.append((" " * self._comment(number) + line.strip(), False))
        elif _BOUNDARY.match(line):
            self.levels.clear()
            self.out.append((line.rstrip(), False))
        else:
            found = self._structural(number, line)
            follows = self.shape.held.get(number + 1)
            # The blanks at the end of a line may be part of a text that goes on below.
            self.out.append((found if follows and follows.kind == "scalar" else found.rstrip(), False))

    def _structural(self, number: int, line: str) -> str:
        """A line that begins an entry of a mapping or a list, or several: `- - key: value`."""
        rest = line.lstrip(" ")
        column = len(line) - len(rest)
        self._close(column, is_list=_DASH.match(rest) is not None)
        prefix = ""
        while True:
            dash = _DASH.match(rest)
            level = self._open(column, is_list=dash is not None)
            prefix = prefix or " " * level.new
            if dash is None:
                break
            prefix += "- "
            rest, column = rest[dash.end() :], column + dash.end()
            if not _DASH.match(rest) and (number, column) not in self.shape.mappings:
                break
        self.inner[number] = self.levels[-1]
        return prefix + rest

    def _close(self, column: int, *, is_list: bool) -> None:
        while self.levels:
            top = self.levels[-1]
            if top.old < column or (top.old == column and (is_list or not top.is_list)):
                return
            self.levels.pop()

    def _open(self, column: int, *, is_list: bool) -> _Level:
        top = self.levels[-1] if self.levels else None
        if top is None or top.old < column or (is_list and not top.is_list):
            top = _Level(column, top.new + STEP if top else 0, is_list)
            self.levels.append(top)
        return top

    def _held(self, number: int, line: str, held: _Held) -> str:
        level = self.inner.get(held.start)
        if level is None:
            return line
        body = line.lstrip(" ")
        indent = len(line) - len(body)
        if held.kind == "block":
            column, shift = self._block(held.start, level)
            return " " * (indent + shift) + body if body or indent > column else ""
        shifted = " " * max(indent + level.new - level.old, 0) + body
        return shifted.rstrip() if held.kind == "flow" else shifted if body else ""

    def _block(self, start: int, level: _Level) -> tuple[int, int]:
        """The column of a block's text, and by how many columns it moves."""
        if start not in self.blocks:
            if given := re.search(r"[|>][+-]?([1-9])", self.shape.lines[start]):
                self.blocks[start] = level.old + int(given[1]), level.new - level.old
            else:
                first = bisect(self.solid, start)
                column = self._indent(self.solid[first]) if first < len(self.solid) else 0
                self.blocks[start] = column, level.new + STEP - column
        return self.blocks[start]

    def _comment(self, number: int) -> int:
        """The column of a comment on a line of its own: that of the entry below, where it was at the same one."""
        column = self._indent(number)
        place = bisect(self.solid, number)
        below = self.solid[place] if place < len(self.solid) else None
        if below is not None and self._indent(below) == column and not self.shape.is_boundary(below):
            levels = list(self.levels)
            found = self._structural(below, self.shape.lines[below])
            self.levels = levels
            return len(found) - len(found.lstrip(" "))
        inside = next((each for each in reversed(self.levels) if each.old <= column), None)
        if inside is None:
            return 0
        held = self.shape.held.get(self.solid[place - 1])
        # Below a block, a comment further in would be part of its text.
        return inside.new + (STEP if column > inside.old and not (held and held.kind == "block") else 0)

    def _indent(self, number: int) -> int:
        line = self.shape.lines[number]
        return len(line) - len(line.lstrip(" "))


# --- the order of the fields ---


def _ordered(text: str, path: str) -> str:
    """Each field of a spec in its place, with the comments above it."""
    shape = _shape(text)
    documents, _ = parse(text.encode(), path)
    lines = list(shape.lines)
    for document in reversed(documents):  # so that the lines of those above stay where they are
        fields = {route[0]: mark for route, mark in document.keys.items() if len(route) == 1}
        starts = [mark.line - 1 for mark in fields.values()]
        is_plain = starts and all(mark.column == 1 for mark in fields.values()) and len({*starts}) == len(starts)
        if is_plain and isinstance(document.value, dict):
            first, chunks, end = _chunks(shape, starts)
            ranked = sorted(zip(map(_rank, fields), chunks, strict=True), key=lambda each: each[0])
            moved = [shape.lines[number] for _, chunk in ranked for number in chunk]
            while not moved[0].strip():
                del moved[0]  # a blank line above what is the first field now
            lines[first:end] = moved
    if lines == shape.lines:
        return text
    return _indented("\n".join(lines))


@cache
def order() -> tuple[str, ...]:
    """The fields of a spec in the order in which they are read: that of its schema."""
    return tuple(json.loads(schema.text("spec"))["properties"])


def _rank(name: object) -> int:
    return order().index(str(name)) if name in order() else len(order())


def _chunks(shape: _Shape, starts: Sequence[int]) -> tuple[int, list[range], int]:
    """The lines of each field with what stands above it, and where the first begins and the last ends."""
    end = next((each for each in range(starts[-1], len(shape.lines)) if shape.is_boundary(each)), len(shape.lines))
    while shape.is_loose(end - 1):
        end -= 1
    leads = [_header_end(shape, starts[0])]
    for above, start in pairwise(starts):
        lead = start
        while lead - 1 > above and shape.is_loose(lead - 1):
            lead -= 1
        leads.append(lead)
    return leads[0], [range(*each) for each in pairwise([*leads, end])], end


def _header_end(shape: _Shape, start: int) -> int:
    """Where what stands above the first field is that field's: below the last blank line, or an editor's line."""
    lead = start
    while lead and not shape.is_boundary(lead - 1) and _is_remark(shape.lines[lead - 1]):
        lead -= 1
    return lead


def _is_remark(line: str) -> bool:
    return line.startswith("#") and not _MODELINE.match(line)
