"""A value that must never be shown, and the cleaning of texts that may echo it."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import quote, quote_plus

MASK = "***"

# A shorter "key" is a placeholder (`none`, `x`): hiding it would only blacken innocent words.
SHORTEST_HIDDEN = 4


class Secret:
    """A key or token. Printing, formatting or pickling it gives nothing away; `reveal` is the only way in."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Raises ValueError, without the value, where it could not be sent in a header."""
        if not value or not value.isascii() or not value.isprintable() or value != value.strip():
            raise ValueError("a secret must be printable ASCII, not empty and without outer spaces")
        self._value = value

    def reveal(self) -> str:
        """The value itself: for the header of a request, never for a text."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled or copied")


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """`text` with each secret masked, plain or as URL, JSON, HTML, base64 or hex would write it."""
    values = frozenset(secret.reveal() for secret in secrets)
    pattern = _pattern(values)
    return pattern.sub(MASK, text) if pattern else text


@lru_cache(maxsize=16)
def _pattern(values: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for value in values if len(value) >= SHORTEST_HIDDEN for form in _forms(value)}
    if not forms:
        return None
    # The longest first: a form that begins another one must not leave its tail behind.
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)), re.IGNORECASE)


def _forms(value: str) -> set[str]:
    raw = value.encode()
    escaped = json.dumps(value)[1:-1]
    forms = {value, quote(value, safe=""), quote_plus(value), quote(value), html.escape(value), raw.hex()}
    return forms | {escaped, escaped.replace("/", "\\/"), repr(value)[1:-1]} | _base64_forms(raw)


def _base64_forms(raw: bytes) -> set[str]:
    """What base64 makes of `raw` inside a longer text: one form for each of the three alignments.

    The characters that also depend on the neighbours are left out.
    """
    forms = set()
    for before in range(3):
        first, last = -(-before * 8 // 6), (before + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            forms.add(encode(b"\0" * before + raw).decode()[first:last])
    return forms
