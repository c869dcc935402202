"""A value as YAML that a person likes to read: plain words where they are safe, `|` blocks for texts of several lines.

What is written here, `document` reads back as the same value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 100  # of a list on one line

_PLAIN = re.compile(r"[A-Za-z_](?:[A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?")
# Words that this or another reader of YAML takes for something else than text.
_WORDS = re.compile(r"(?i:null|true|false|yes|no|on|off|y|n)")
# What `document` refuses in a file, and a lone carriage return, which no block can hold.
_ESCAPED = re.compile("[^\t\n\x20-\x7e\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_SHORT = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def dump(value: Mapping[str, Any]) -> str:
    """A mapping of texts, numbers, booleans, None, lists and mappings as one document."""
    return "".join(f"{line}\n" for line in _mapping(value, ""))


def _mapping(value: Mapping[str, Any], indent: str) -> Iterator[str]:
    for key, each in value.items():
        yield from _entry(f"{indent}{_scalar(key)}:", each, indent + "  ")


def _entry(head: str, value: Any, indent: str) -> Iterator[str]:
    """A value behind its key or dash; `indent` is that of lines below it."""
    match value:
        case Mapping() if value:
            yield head
            yield from _mapping(value, indent)
        case list() | tuple() if _flow(value) is None:
            yield head
            for each in value:
                yield from _entry(f"{indent}-", each, indent + "  ")
        case str() if "\n" in value and value.strip("\n") and not _ESCAPED.search(value):
            yield from _block(head, value, indent)
        case list() | tuple():
            yield f"{head} {_flow(value)}"
        case Mapping():
            yield f"{head} {{}}"
        case _:
            yield f"{head} {_scalar(value)}"


def _block(head: str, text: str, indent: str) -> Iterator[str]:
    """A `|` block; the sign says how many line breaks end it, the number where a line may begin with a space."""
    body = text.rstrip("\n")
    ends = len(text) - len(body)
    sign = "-" if ends == 0 else "" if ends == 1 else "+"
    yield f"{head} |{'2' if text[0].isspace() else ''}{sign}"
    for line in (*body.split("\n"), *[""] * max(ends - 1, 0)):
        yield indent + line if line else ""


def _flow(value: Sequence[Any]) -> str | None:
    """A list on one line, None where it does not fit or holds more than short scalars."""
    if any(isinstance(each, Mapping | list | tuple) for each in value):
        return None
    line = f"[{', '.join(map(_scalar, value))}]"
    return line if len(line) <= WIDTH else None


def _scalar(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case float() if value.is_integer() and abs(value) < 1 << 53:
            return str(int(value))
        case int() | float():
            return repr(value)
    text = str(value)
    if _PLAIN.fullmatch(text) and not _WORDS.fullmatch(text):
        return text
    if "'" not in text and "\n" not in text and not _ESCAPED.search(text):
        return f"'{text}'"
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(character: str) -> str:
    """One character as it stands between double quotes."""
    if character in _SHORT:
        return _SHORT[character]
    if not _ESCAPED.fullmatch(character):
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
