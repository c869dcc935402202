"""Checks of texts as regular expressions, for those that are about one fixed text, or about its absence."""

from __future__ import annotations

import re
from collections.abc import Sequence

JSON_INSIDE = r"(?s)\A(?:(?=[^\[{]*[\[{].*[\]}])[^\[{]*)?(.+[\]}]|.+)"
"""Finds what stands from the first bracket to the last, and all of a text that has no JSON in it."""


START = r"\A"


def escaped(text: str) -> str:
    """The pattern that finds a text as it is, without escapes that nothing needs."""
    return re.sub(r"[\\.^$*+?{}\[\]|()]", r"\\\g<0>", text)


def has_any(texts: Sequence[str]) -> str:
    """Any of the texts stands in it."""
    return "|".join(map(escaped, texts))


def has_all(texts: Sequence[str]) -> str:
    """All of the texts stand in it."""
    return START + "".join(rf"(?=[\s\S]*?{escaped(each)})" for each in texts)


def starts(text: str) -> str:
    """It begins with the text."""
    return START + escaped(text)


def equals(text: str) -> str:
    """It is the text."""
    return rf"{START}{escaped(text)}\Z"


def lacks(pattern: str, *, is_whole: bool = False) -> str:
    """The pattern finds nothing in it; one that `is_whole` is of the forms above that begin with the text itself."""
    return rf"\A(?!{pattern.removeprefix(START)})" if is_whole else rf"\A(?![\s\S]*?(?:{pattern}))"
