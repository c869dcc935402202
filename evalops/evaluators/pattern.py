"""Regular expressions that a stranger may have written: checked, and run under a deadline.

Python's own `re` cannot be stopped: `(a+)+$` takes longer than anyone waits. `regex` takes a deadline, in seconds of
the process's CPU time, but copies what is repeated, so that nested counts fill the memory while it compiles: `size`
is held first. What `re` does not know (recursion, fuzzy matches) is refused, so patterns are those of Python.
"""

from __future__ import annotations

import re
import warnings
from collections import deque
from functools import cached_property
from typing import Any

DEADLINE = 0.2  # seconds for one search
LARGEST = 5_000  # parts of a pattern, those that a count repeats taken as often

_TOKEN = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*+\]|(?P<open>\()|(?P<close>\))|\{(?P<least>[0-9]*)(?P<to>,?)(?P<most>[0-9]*)\}|.",
    re.DOTALL,
)
_COMMENT = re.compile(r"\(\?(?:#|[A-Za-z]*x)")  # a parenthesis in a comment is none
_POSIX = re.compile(r"\[:[^\]]*:\]")  # `re` and `regex` disagree where such a class ends


class TooSlow(Exception):
    """A search did not end in time."""


def problem(pattern: str) -> str | None:
    """Why a pattern cannot be used, None where it can. Quick for any pattern."""
    if _COMMENT.search(pattern):
        return "comments and the flag `x` are not taken"
    if _POSIX.search(pattern):
        return "classes like `[:alpha:]` are not taken"
    import regex

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `[[` may mean something else one day
            re.compile(pattern)
        if size(pattern) > LARGEST:
            return "its counts repeat too much"
        regex.compile(pattern)
    except (re.error, regex.error, OverflowError) as error:
        return str(error)
    except RecursionError:
        return "it is nested too deeply"
    return None


def size(pattern: str) -> int:
    """How many parts a pattern has once every counted part is written out: `(ab){3}` has six."""
    outer: list[int] = []
    total = last = 0
    for token in _TOKEN.finditer(pattern):
        match token.lastgroup:
            case "open":
                outer.append(total)
                total = 0
            case "close" if outer:
                last = max(total, 1)
                total = outer.pop() + last
            case "most" if token["least"] or token["most"]:
                copies = max(int(token["least"][:9] or 0), int(token["most"][:9] or 0), 1)
                total += last * (copies - 1)
                last *= copies
            case _:
                last = 1
                total += 1
    return total + sum(outer)


class Pattern:
    """A pattern that has no `problem`; compiled when it is first used."""

    def __init__(self, pattern: str, *, ignore_case: bool = False) -> None:
        self._pattern = pattern
        self._ignore_case = ignore_case

    @cached_property
    def _compiled(self) -> Any:
        import regex

        return regex.compile(self._pattern, regex.IGNORECASE if self._ignore_case else 0)

    def search(self, text: str) -> str | None:
        """What it finds first in `text`. Raises TooSlow."""
        try:
            found = self._compiled.search(text, timeout=DEADLINE)
        except (TimeoutError, MemoryError):
            raise TooSlow from None
        return str(found.group()) if found else None

    def last(self, text: str) -> str | None:
        """What it finds last in `text`: its first group, where it has one. Raises TooSlow."""
        try:
            found = deque(self._compiled.finditer(text, timeout=DEADLINE), maxlen=1)
        except (TimeoutError, MemoryError):
            raise TooSlow from None
        return str(found[0].group(1 if self._compiled.groups else 0) or "") if found else None
