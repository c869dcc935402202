"""Untrusted text made harmless for a terminal, in the one place that every text view goes through."""

from __future__ import annotations

import re

# Control characters but tab and line feed, C1, bidirectional marks, zero width, line separators, lone surrogates,
# tags. All can rewrite, hide or reorder what a reviewer reads.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)

_COMMAND = re.compile(r"^(?=[ \t]*(?:::[A-Za-z]|##(?:vso)?\[))", re.MULTILINE)


def safe(text: object) -> str:
    """`text` with every character that could do something in a terminal shown as its escape.

    A line that a continuous integration would take for a command to itself gets a backslash.
    """
    return _COMMAND.sub("\\\\", _UNSAFE.sub(_escape, str(text)))


def flat(text: object) -> str:
    """`safe` text that stays on the line it is put on."""
    return safe(text).replace("\n", "\\n").replace("\t", "\\t")


def line(text: object, limit: int = 200) -> str:
    """`safe` text on one line, cut to `limit` characters."""
    one = " ".join(safe(text).split())
    return one if len(one) <= limit else one[: limit - 1] + "…"


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
