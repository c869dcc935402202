"""Files of other tools, read for their values: YAML with what aliases repeat written out, JSON, and lines of JSON.

Each value comes with the way to the place where it stands. All bounds of `document` hold for YAML.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple, NoReturn

from yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, NodeEvent

from evalops import document
from evalops.document import KeyPath
from evalops.errors import Diagnostic, EvalopsError, Mark

JSON = (".json",)
LINES = (".jsonl", ".ndjson")


class Source(NamedTuple):
    """A value that was read from a file. `mark` takes a route and gives the place of what stands there."""

    path: str
    value: Any
    mark: Callable[..., Mark]

    def at(self, *route: str | int) -> Source:
        """A value inside this one, which must be there."""
        value = self.value
        for part in route:
            value = value[part]
        return Source(self.path, value, lambda *further: self.mark(*route, *further))


def read(data: bytes, path: str) -> list[Source]:
    """The values of a file by its suffix: documents of YAML, the one of JSON, or one a line. Raises EvalopsError."""
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in LINES:
        return list(_lines(_text(data, path), path))
    if suffix in JSON:
        return [_json(_text(data, path), path, 0)]
    documents, problems = document.parse(data, path, loader=_Expanded)
    if problems:
        raise EvalopsError(*problems)
    return [Source(path, each.value, each.mark) for each in documents]


# --- YAML ---


class _Expanded:
    """The events of a YAML text with what an alias stands for in its place: how far that may go, `document` says."""

    def __init__(self, text: str) -> None:
        self._events = _expanded(document.events(text))

    def get_event(self) -> Any:
        return next(self._events, None)


class _Open(NamedTuple):
    """An anchored value that is being read."""

    anchor: str | None
    depth: int
    events: list[Any]


def _expanded(events: Iterator[Any]) -> Iterator[Any]:
    known: dict[str, list[Any]] = {}
    open_: list[_Open] = []
    depth = 0
    for event in events:
        is_alias = isinstance(event, AliasEvent) and event.anchor in known
        anchor = event.anchor if isinstance(event, NodeEvent) and not isinstance(event, AliasEvent) else None
        if anchor is not None:
            event.anchor = None
            open_.append(_Open(anchor, depth, []))
        for each in known[event.anchor] if is_alias else (event,):
            for one in open_:
                one.events.append(each)
            yield each
        is_start = isinstance(event, CollectionStartEvent)
        depth += is_start - isinstance(event, CollectionEndEvent)
        while open_ and depth == open_[-1].depth and not is_start:
            closed = open_.pop()
            known[closed.anchor or ""] = closed.events


# --- JSON ---


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_float)
_BLANK = re.compile(r"[ \t\r\n]*")


def _text(data: bytes, path: str) -> str:
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise _unreadable("the file is not UTF-8", Mark(path, line, 1)) from None


def _lines(text: str, path: str) -> Iterator[Source]:
    for number, line in enumerate(text.split("\n")):
        if line.strip():
            yield _json(line, path, number)


def _json(text: str, path: str, above: int) -> Source:
    """The value of a text that stands below so many lines of a file."""
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        message = f"this is not JSON: {error.msg[:1].lower()}{error.msg[1:]}"
        raise _unreadable(message, Mark(path, above + error.lineno, error.colno)) from None
    except (ValueError, RecursionError) as error:
        message = "it is nested too deeply" if isinstance(error, RecursionError) else "it holds a number of no use"
        raise _unreadable(message, Mark(path, above + 1, 1)) from None
    known: dict[KeyPath, dict[str | int, int]] = {}

    def mark(*route: str | int) -> Mark:
        at = _skip(text, 0)
        for end, part in enumerate(route):
            outer = route[:end]
            if outer not in known:
                known[outer] = dict(_members(text, at))
            if part not in known[outer]:
                break
            at = known[outer][part]
        return Mark(path, above + text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at))

    return Source(path, value, mark)


def _members(text: str, at: int) -> Iterator[tuple[str | int, int]]:
    """What an object or a list holds, and where each value begins; the text was read once, so it is well-formed."""
    if text[at] not in "[{":
        return
    is_object, number = text[at] == "{", 0
    at = _skip(text, at + 1)
    while text[at] not in "]}":
        name: str | int = number
        if is_object:
            name, end = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, end) + 1)  # over the colon
        yield name, at
        at = _skip(text, _DECODER.raw_decode(text, at)[1])
        at = _skip(text, at + 1) if text[at] == "," else at
        number += 1


def _skip(text: str, at: int) -> int:
    found = _BLANK.match(text, at)
    return found.end() if found else at


def _unreadable(message: str, mark: Mark) -> EvalopsError:
    return EvalopsError(Diagnostic(code="import/unreadable", message=message, mark=mark))
