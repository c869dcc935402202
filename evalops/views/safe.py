"""Untrusted text made harmless for a terminal and for Markdown, in the one place that every view goes through."""

from __future__ import annotations

import re
from collections.abc import Iterable

# Control characters but tab and line feed, C1, bidirectional marks, zero width, line separators, lone surrogates,
# tags. All can rewrite, hide or reorder what a reviewer reads.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f]"
)

# A word of Markdown that is more than a word: markup, HTML, a link or an address (GitHub makes links of www., of
# mentions, numbers, commits and tickets by itself), a formula. A bracket only where a link could follow, an underscore
# at a word's end, `<` but before a space, `>` but in an arrow.
_MARKUP = re.compile(
    r"[`*~#@&$\\|^]|<(?! |$)|(?<!-)>|!\[|\](?=[(\[:])|(?<!\w)_|_(?!\w)|//|(?i:\b(?:www\.|mailto:|xmpp:))"
    r"|(?<=\w)\.(?=[^\W\d_])|\b[0-9a-f]{7,}\b|\b[A-Za-z]+-[0-9]"
)
# A first word that begins a list, a quotation, a rule or a heading.
_OPENING = re.compile(r"(?:[-+=>]+|[0-9]{1,9}[.)])(?:\s|$)")
_WORD = re.compile(r"(\s+)")

# What a continuous integration would take for a command to itself: at the start of a line, or anywhere in it.
_COMMAND = re.compile(r"^(?=[^\S\n]*::[A-Za-z])|(?<=##)(?=\[)|(?<=##vso)(?=\[)", re.MULTILINE)


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


def code(text: object, limit: int = 200) -> str:
    """Text as code in Markdown, on one line: nothing in it is a link, a mention or HTML.

    In a table, `cells` has to see to the bars in it.
    """
    one = line(text, limit) or "-"
    ticks = "`" * (1 + max(map(len, re.findall("`+", one)), default=0))
    room = " " if "`" in (one[0], one[-1]) else ""
    return f"{ticks}{room}{one}{room}{ticks}"


def prose(text: object, limit: int = 1000) -> str:
    """A sentence in Markdown, on one line: what it names in back-ticks is code, and so is every word that could be more
    than a word.
    """
    parts = line(text, limit).split("`")
    if len(parts) % 2 == 0 or _OPENING.match(parts[0]):
        return code(text, limit)
    pieces = [
        piece
        for number, part in enumerate(parts)
        if part
        for piece in ([code(part, limit)] if number % 2 else map(_plain, _WORD.split(part)))
    ]
    # Two runs of back-ticks side by side would be one.
    found = ""
    for piece in pieces:
        found += f" {piece}" if found.endswith("`") and piece.startswith("`") else piece
    return found


def cells(row: Iterable[str]) -> str:
    """A line of a Markdown table of cells that are Markdown themselves."""
    whole = [cell.replace("|", "\\|") for cell in row]
    return f"| {' | '.join(whole)} |"


def fence(text: object, language: str = "") -> str:
    """Text on several lines as a block of code that nothing in it can end, and no line of which is a bot's command."""
    body = re.sub("^/", " /", safe(text), flags=re.MULTILINE)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", body)), default=0))
    return f"{ticks}{language}\n{body}\n{ticks}"


def _plain(word: str) -> str:
    """A word of a sentence, as code where it could be anything else; the marks around it stay outside."""
    if not _MARKUP.search(word):
        return word
    found = re.fullmatch(r"(?s)([(\"']*)(.*?)([.,;:)\"'?]*)", word)
    return f"{found[1]}{code(found[2])}{found[3]}" if found and found[2] else code(word)


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
