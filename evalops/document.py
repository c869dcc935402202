"""YAML documents with the position of every key and value, safe to read from a stranger.

Values are built from the parser's events on an explicit stack, so the limits on size, depth and nodes hold
before anything large exists, and no input recurses. Scalars follow the core schema of YAML 1.2 (section
10.3.2 of its specification) and nothing else: `No`, `on` and `2024-01-01` are strings.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.events import (
    AliasEvent,
    CollectionStartEvent,
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    NodeEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from evalops.errors import Diagnostic, Mark

KeyPath = tuple[str | int, ...]
"""The route to a node: `("judge", "model")`, `("labels", 0)`, `()` for the document itself."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_NODES = 100_000
MAX_NUMBER = 100
"""Characters of a number: what is longer is an id or an attack, and int() is quadratic."""
MAX_PROBLEMS = 100

_FASTEST = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One document of a file; `value` is plain dicts, lists and scalars that JSON can hold.

    `marks` tells where each value starts, `keys` where each key of a mapping starts, `raw` the text of plain
    scalars that became a number, a boolean or null, `literals` which values are `|` blocks. `lines` are
    those of the whole file.
    """

    path: str
    value: Any
    marks: Mapping[KeyPath, Mark]
    keys: Mapping[KeyPath, Mark]
    raw: Mapping[KeyPath, str]
    literals: Set[KeyPath]
    lines: Sequence[str]

    def mark(self, *route: str | int) -> Mark:
        """Where the key of that route is, or its value where it has none, or its nearest known ancestor."""
        for end in range(len(route), 0, -1):
            known = self.keys.get(route[:end]) or self.marks.get(route[:end])
            if known:
                return known
        return self.marks[()]

    def content_line(self, route: KeyPath, number: int) -> int:
        """The line of the file that holds line `number` (from 1) of the text at `route`.

        Only `|` blocks keep the lines of the file; for any other value it is the line the value starts on.
        """
        line = (self.marks.get(route) or self.mark(*route)).line
        return min(line + number, len(self.lines)) if route in self.literals else line


def parse(
    data: bytes, path: str, *, loader: Callable[[str], Any] = _FASTEST
) -> tuple[list[Document], list[Diagnostic]]:
    """The documents of a file and what is wrong with it; never raises for what the file holds.

    A document comes only with values that the file says for sure: none from a file that could not be read to
    its end, none that holds a refused tag, number, key or alias. One whose only fault is a repeated key comes
    with the first of the two, so that later checks can add their problems. `loader` makes the event source.
    """
    text = _decode(data, path)
    if isinstance(text, Diagnostic):
        return [], [text]
    reader = _Reader(path, text.split("\n"))
    reader.read(loader, text)
    if not reader.documents and not reader.problems:
        hint = "start with `version: 1`, or remove the file"
        reader.report("yaml/empty", "the file holds no document", Mark(path, 1, 1), hint)
    return reader.documents, sorted(reader.problems, key=lambda problem: problem.mark or Mark(path))


# --- from bytes to text ---

# Further line breaks (U+2028, a lone carriage return …) are refused with the control characters: where a
# reviewer sees one line, libyaml would see two.
_REFUSED = re.compile(
    "[^\t\n\r\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]|\r(?!\n)"
)


def _decode(data: bytes, path: str) -> str | Diagnostic:
    """The text with plain line feeds and without a byte order mark, or why it cannot be read."""

    def problem(code: str, message: str, before: str, hint: str) -> Diagnostic:
        mark = Mark(path, before.count("\n") + 1, len(before) - before.rfind("\n"))
        return Diagnostic(code=code, message=message, mark=mark, hint=hint)

    if len(data) > MAX_BYTES:
        message = f"the file has {len(data):,} bytes, more than the {MAX_BYTES:,} allowed"
        return problem("yaml/too-large", message, "", "put rows into a dataset and long texts into files")
    if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        return problem("yaml/encoding", "the file is UTF-16 or UTF-32", "", "save it as UTF-8")
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"byte 0x{data[error.start]:02X} at offset {error.start:,} is not UTF-8"
        return problem("yaml/encoding", message, data[: error.start].decode(), "save the file as UTF-8")
    if refused := _REFUSED.search(text):
        code = ord(refused[0])
        message = f"the character U+{code:04X} is not allowed in a YAML file"
        hint = f"save the file as UTF-8 with common line ends, or write `\\u{code:04x}` in double quotes"
        return problem("yaml/control-character", message, text[: refused.start()], hint)
    text = text.replace("\r\n", "\n")
    # Refused before parsing: libyaml compares each directive with all earlier ones, seconds for a full file.
    if directive := re.search("^%TAG", text, re.MULTILINE):
        message = "`%TAG` directives are not supported"
        return problem("yaml/tag", message, text[: directive.start()], "remove the line")
    return text


_SURROGATE = re.compile("[\ud800-\udfff]")


# --- from text to values ---

_TAG = "tag:yaml.org,2002:"
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_NUMBER = re.compile(
    r"(?P<int>[-+]?[0-9]+)"
    r"|0o(?P<octal>[0-7]+)"
    r"|0x(?P<hex>[0-9a-fA-F]+)"
    r"|(?P<float>[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)"
    r"|(?P<special>[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))"
)


def _resolve(text: str) -> Any:
    """What a plain scalar means in the core schema; `text` itself where it is a string.

    Raises ValueError for a number that JSON cannot hold.
    """
    value = _WORDS.get(text, text)
    if value is not text or text[0] not in "+-.0123456789":
        return value
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if match["special"]:
        raise ValueError(f"`{text}` is not a number that JSON can hold")
    if len(text) > MAX_NUMBER:
        raise ValueError(f"a number of {len(text):,} characters is longer than the {MAX_NUMBER} allowed")
    if match["float"]:
        value = float(text)
        if math.isinf(value):
            raise ValueError(f"`{text}` is too large for a number")
        return value
    if match["int"]:
        return int(text)
    return int(match["octal"], 8) if match["octal"] else int(match["hex"], 16)


def _tagged(text: str, tag: str) -> Any:
    """The value of a scalar with an explicit tag; ValueError where the two do not fit."""
    if tag == _TAG + "str":
        return text
    value = _resolve(text)
    fits = {"int": (int,), "float": (float, int), "bool": (bool,), "null": (type(None),)}
    name = tag.removeprefix(_TAG)
    if type(value) not in fits[name]:
        raise ValueError(f"`{_short(text)}` does not fit its tag `!!{name}`")
    return float(value) if name == "float" else value


_SCALAR_TAGS = frozenset(_TAG + name for name in ("str", "int", "float", "bool", "null"))
_QUOTE = "put it in quotes if it is meant as text"
_CHARACTER = "write the character itself"
_REPEAT = "repeat the value, or name a shared judge in evalops.yaml"
_NOWHERE: KeyPath = ("",)


@dataclass(slots=True)
class _Frame:
    """An open mapping or list; what comes into `into=None` is thrown away.

    `next` is the route of the node that comes next: `None` while a mapping waits for a key, `_NOWHERE` where
    the value of a refused key is to be thrown away.
    """

    into: dict[str | int, Any] | list[Any] | None
    route: KeyPath = ()
    next: KeyPath | None = None

    @property
    def waits_for_key(self) -> bool:
        return self.next is None and self.into is not None


def events(text: str) -> Iterator[Any]:
    """The parser's events of a text that `parse` could read, for what goes by its lines rather than its values."""
    return _events(_FASTEST, text)


def _events(loader: Callable[[str], Any], text: str) -> Iterator[Any]:
    """The parser's events; whatever it raises is a YAMLError."""
    try:
        next_event = loader(text).get_event
        while (event := next_event()) is not None:
            yield event
    # Bytes in a tag that are not UTF-8 (libyaml); a version or an escape out of range (pure Python).
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(str(error)) from error


class _Reader:
    """Turns the events of one file into documents and problems."""

    def __init__(self, path: str, lines: Sequence[str]) -> None:
        self.path = path
        self.lines = lines
        self.documents: list[Document] = []
        self.problems: list[Diagnostic] = []
        self.stopped = False
        self.nodes = 0
        self.begin()

    def read(self, loader: Callable[[str], Any], text: str) -> None:
        """Takes events until the file ends, is broken, or passes a limit."""
        event: Any = None
        try:
            for event in _events(loader, text):
                kind = event.__class__
                if kind is ScalarEvent:
                    self.scalar(event)
                elif kind is MappingEndEvent or kind is SequenceEndEvent:
                    self.frames.pop()
                elif kind is MappingStartEvent or kind is SequenceStartEvent:
                    self.open(event)
                elif kind is AliasEvent:
                    self.alias(event)
                elif kind is DocumentStartEvent:
                    self.begin()
                elif kind is DocumentEndEvent:
                    self.finish()
                if self.stopped:
                    return
        except yaml.YAMLError as error:
            self.documents.clear()
            self.problems.append(_syntax(error, event, self.path, self.lines))

    def begin(self) -> None:
        self.root: list[Any] = []
        self.frames = [_Frame(self.root, (), ())]
        self.marks: dict[KeyPath, Mark] = {}
        self.keys: dict[KeyPath, Mark] = {}
        self.raw: dict[KeyPath, str] = {}
        self.literals: set[KeyPath] = set()
        self.unreadable = False

    def finish(self) -> None:
        is_empty = self.raw.get(()) == ""
        if self.unreadable or is_empty:
            return
        self.documents.append(
            Document(
                path=self.path,
                value=self.root[0],
                marks=self.marks,
                keys=self.keys,
                raw=self.raw,
                literals=self.literals,
                lines=self.lines,
            )
        )

    def scalar(self, event: ScalarEvent) -> None:
        mark = self.node(event)
        # Half a character, escaped: libyaml refuses it while scanning, the pure Python loader does not.
        if event.style == '"' and _SURROGATE.search(event.value):
            self.refuse("yaml/syntax", "this holds an escape that is not a character", mark, _CHARACTER)
        if self.frames[-1].waits_for_key:
            self.key(event, mark)
            return
        text: str = event.value
        is_plain = event.implicit[0] and event.tag is None
        value = self.value(text, event.tag, mark) if is_plain or event.tag is not None else text
        route = self.put(value)
        if route is None:
            return
        self.marks[route] = mark
        if is_plain and value is not text:
            self.raw[route] = text
        elif event.style == "|" and event.tag is None:
            self.literals.add(route)

    def value(self, text: str, tag: str | None, mark: Mark) -> Any:
        """What a plain or tagged scalar means; `text` itself after a problem."""
        try:
            if tag is None:
                return _resolve(text)
            if self.has_known_tag(tag, _SCALAR_TAGS, mark):
                return _tagged(text, tag)
        except ValueError as error:
            self.refuse("yaml/number" if tag is None else "yaml/tag", str(error), mark, _QUOTE)
        return text

    def key(self, event: ScalarEvent, mark: Mark) -> None:
        """Takes a key, as its text; a refused one has its value thrown away."""
        frame = self.frames[-1]
        text: str = event.value
        is_plain = event.implicit[0]
        route = (*frame.route, text)
        first = self.keys.get(route)
        frame.next = _NOWHERE
        if event.tag is not None and not self.has_known_tag(event.tag, {_TAG + "str"}, mark):
            return
        if is_plain and text == "<<":
            self.refuse("yaml/merge-key", "merge keys `<<` are not supported", mark, _REPEAT)
        elif is_plain and text == "":
            self.refuse("yaml/key", "a key is missing before `:`", mark, "write `key: value`")
        elif first:
            lines = f"line {mark.line}" if first.line == mark.line else f"lines {first.line} and {mark.line}"
            message = f"`{_short(text)}` is set twice, on {lines}"
            self.report("yaml/duplicate-key", message, mark, "keep one of them")
        else:
            self.keys[route] = mark
            frame.next = route

    def open(self, event: CollectionStartEvent) -> None:
        """Starts a mapping or list, thrown away where a key should be."""
        mark = self.node(event)
        if len(self.frames) > MAX_DEPTH:
            message = f"more than {MAX_DEPTH} lists and mappings inside one another"
            self.stop("yaml/too-deep", message, mark, "flatten it: no field needs that many")
        is_map = event.__class__ is MappingStartEvent
        if event.tag is not None:
            self.has_known_tag(event.tag, {_TAG + ("map" if is_map else "seq")}, mark)
        into: dict[str | int, Any] | list[Any] = {} if is_map else []
        frame = self.frames[-1]
        if frame.waits_for_key:
            hint = _template_hint(self.lines[mark.line - 1]) or "write `key: value`"
            self.refuse("yaml/key", "a key must be text, not a list or a mapping", mark, hint)
            frame.next = _NOWHERE
            route = None
        else:
            route = self.put(into)
        if route is None:
            self.frames.append(_Frame(None))
        else:
            self.marks[route] = mark
            self.frames.append(_Frame(into, route, None if is_map else (*route, 0)))

    def alias(self, event: AliasEvent) -> None:
        self.node(event)
        self.unreadable = True
        frame = self.frames[-1]
        if frame.waits_for_key:
            frame.next = _NOWHERE
        else:
            self.put(None)

    def node(self, event: NodeEvent) -> Mark:
        """Counts a node, refuses its anchor, and gives its place."""
        mark = _place(event.start_mark, self.path, self.lines)
        self.nodes += 1
        if self.nodes > MAX_NODES:
            message = f"more than {MAX_NODES:,} keys and values"
            self.stop("yaml/too-many-nodes", message, mark, "split the file; rows belong into a dataset")
        if event.anchor is not None:
            name = ("*" if event.__class__ is AliasEvent else "&") + event.anchor
            message = f"`{_short(name)}`: anchors and aliases are not supported"
            self.report("yaml/alias", message, mark, f"{_REPEAT}; {_QUOTE}")
        return mark

    def put(self, value: Any) -> KeyPath | None:
        """Puts a value where the open collection waits for it; its route, None where it is thrown away."""
        frame = self.frames[-1]
        into, route = frame.into, frame.next
        if into is None or route is None:
            return None
        if isinstance(into, list):
            into.append(value)
            frame.next = (*frame.route, len(into))
            return route
        frame.next = None
        if route is _NOWHERE:
            return None
        into[route[-1]] = value
        return route

    def has_known_tag(self, tag: str, known: Set[str], mark: Mark) -> bool:
        if tag in known:
            return True
        shown = "!!" + tag.removeprefix(_TAG) if tag.startswith(_TAG) else tag
        message = f"the tag `{_short(shown)}` is not supported here"
        self.refuse("yaml/tag", message, mark, f"remove it; {_QUOTE}")
        return False

    def report(self, code: str, message: str, mark: Mark, hint: str) -> None:
        self.problems.append(Diagnostic(code=code, message=message, mark=mark, hint=hint))
        if len(self.problems) == MAX_PROBLEMS:
            message = f"{MAX_PROBLEMS} problems so far, the rest of the file was not read"
            self.stop("yaml/too-many-problems", message, mark, "solve those first")

    def refuse(self, code: str, message: str, mark: Mark, hint: str) -> None:
        """Reports a node whose value cannot be known, so that its document is left out."""
        self.unreadable = True
        self.report(code, message, mark, hint)

    def stop(self, code: str, message: str, mark: Mark, hint: str) -> None:
        if not self.stopped:
            self.stopped = True
            self.documents.clear()
            self.problems.append(Diagnostic(code=code, message=message, mark=mark, hint=hint))


def _place(mark: Any, path: str, lines: Sequence[str]) -> Mark:
    """The parser's mark, counted from 1; libyaml puts what is missing at the end of a file one line later."""
    if mark.line < len(lines):
        return Mark(path, mark.line + 1, mark.column + 1)
    return Mark(path, len(lines), len(lines[-1]) + 1)


def _short(text: str) -> str:
    """A user's text on one line, cut to what a message can carry."""
    line = " ".join(text.split())
    return line if len(line) <= 60 else line[:59] + "…"


# --- what the parser could not read, in plain words ---

_INDENT = "check the indentation of this line and of those above"
_CLOSE = "add it, and put texts that hold brackets in quotes"
_ESCAPE = "write `\\\\` for a backslash, or use single quotes, where it is just itself"
_TEMPLATE = re.compile(r"(?:[-:,\[]|^)\s*\{[{%]")
_TEMPLATE_HINT = "put text that starts with `{{` or `{%` in quotes, or below a `|`"

# Parts of what libyaml and PyYAML say, the first that fits; `<line>` is where the broken thing starts,
# `<char>` what stands at the mark.
_SYNTAX = (
    ("quoted scalar found unexpected", "the quoted text from line <line> is never closed", "add the quote"),
    ("unknown escape", "a backslash in double quotes starts an escape, and this one is unknown", _ESCAPE),
    ("hex", "this escape needs more hexadecimal digits", _ESCAPE),
    ("escape code", "this escape is not a character", _CHARACTER),
    ("flow sequence", "`,` or `]` is missing in the list from line <line>", _CLOSE),
    ("flow mapping", "`,` or `}` is missing in the mapping from line <line>", _CLOSE),
    ("simple key", "this line has no `: ` after its key", "write `key: value`, with a space"),
    ("mapping values", "`:` is not allowed here", f"put text that holds `: ` in quotes, or {_INDENT}"),
    ("sequence entries", "a list item cannot start here", "give each `- item` a line of its own"),
    ("mapping keys", "text cannot start with `? `", _QUOTE),
    ("block scalar", "only `+`, `-` or a digit may follow `|` or `>`", "start the text on the next line"),
    ("an anchor", "text cannot start with `&`", _QUOTE),
    ("an alias", "text cannot start with `*`", _QUOTE),
    ("directive", "a line cannot start with `%`", _QUOTE),
    ("tag", "text cannot start with `!`", _QUOTE),
    ("cannot start any token", "text cannot start with <char>", _QUOTE),
    ("node content", "a value is missing before <char>", "add it, or remove the comma or bracket"),
    ("incompatible", "only YAML 1.x is supported", "remove the `%YAML` line"),
    ("block collection", "this line is not a `- item` of the list from line <line>", _INDENT),
    ("block mapping", "this line is not a `key: value` of the mapping from line <line>", _INDENT),
    ("document start", "this line does not belong to what stands above it", _INDENT),
)
_AT_START = ("simple key", "an anchor", "an alias")
_BLOCK_ENDS = ("block collection", "block mapping", "document start")


def _template_hint(line: str) -> str | None:
    return _TEMPLATE_HINT if _TEMPLATE.search(line) else None


def _syntax(error: Exception, last: Any, path: str, lines: Sequence[str]) -> Diagnostic:
    """The diagnostic for what the parser raised after the event `last`."""
    opened = getattr(error, "context_mark", None)
    found = getattr(error, "problem_mark", None) or opened or (last and last.end_mark)
    said = f"{getattr(error, 'context', None) or ''} {getattr(error, 'problem', None) or ''}"
    mark = _place(found, path, lines) if found else Mark(path, 1, 1)
    line = lines[mark.line - 1]
    before, char = line[: mark.column - 1], line[mark.column - 1 : mark.column]
    at_end = mark.line == len(lines) and not char
    needle, message, hint = next(
        (known for known in _SYNTAX if known[0] in said),
        ("", "this is not valid YAML", "check quotes, brackets and indentation"),
    )
    if char == "\t" or ("\t" in before and not before.strip()):
        message, hint = "a tab is not allowed here", "indent with spaces"
    elif needle in _BLOCK_ENDS and before.strip():
        message, hint = "the value ends before this", "put the whole value in quotes"
    message = message.replace("<line>", str(opened.line + 1 if opened else mark.line))
    message = message.replace("<char>", f"`{char}`" if char else "the end of the line")
    # What is never closed, or is no key, anchor or alias after all, has to be mended where it starts.
    if opened and (at_end or needle in _AT_START):
        mark = _place(opened, path, lines)
    hint = _template_hint(line) or hint
    return Diagnostic(code="yaml/syntax", message=message, mark=mark, hint=hint)
