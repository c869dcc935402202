"""States in a sign and a few words, with the tone of their colour: the same on every page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evalops.views import review as moved
from evalops.views import text as words
from evalops.views.safe import line


class Chip(NamedTuple):
    """A state: its sign and word; `tone` is good, bad, warn, info or empty."""

    sign: str
    word: str
    tone: str = ""


def state(value: Mapping[str, Any]) -> Chip:
    """How an evaluation stands: its job, then its gates."""
    if value["status"] != "completed":
        tone, sign = ("bad", "!") if value["status"] == "failed" else ("info", "…")
        return Chip(sign, value["status"], tone)
    failed = sum(gate["verdict"] == "failed" for gate in value["gates"])
    if failed:
        return Chip("✗", f"{words.count(failed, 'gate')} failed", "bad")
    count = len(value["gates"])
    return Chip("✓", f"{words.count(count, 'gate')} passed", "good") if count else Chip("•", "no gates")


def delta(move: Mapping[str, Any] | None) -> Chip | None:
    """How the headline moved since the base."""
    if move is None:
        return None
    sign, _, _, _, difference, p, word = moved.row(move)
    tone = {"up": "good", "down": "bad"}.get(move["trend"] if move["kind"] == "moved" else "", "")
    said = ", ".join(each for each in (difference.partition(" [")[0], word, f"p {p}" if p else "") if each)
    return Chip(sign, said, tone)


def gate(value: Mapping[str, Any]) -> Chip:
    """A threshold and how it ended."""
    passed = value["verdict"] == "passed"
    return Chip("✓" if passed else "✗", words.gate(value), "good" if passed else "bad")


def counts(summary: Mapping[str, Any]) -> Chip | None:
    """The rows without a verdict, and why."""
    if not summary:
        return None
    missing = [(summary["invalid"], "invalid"), (summary["errors"], "error")]
    said = [f"{count:,} {word}{'s' * (word == 'error' and count != 1)}" for count, word in missing if count]
    reasons = {**(summary.get("invalid_reasons") or {}), **(summary.get("error_reasons") or {})}
    why = ", ".join(f"{count:,} {line(reason, 60)}" for reason, count in reasons.items())
    if not said:
        return Chip("✓", f"{words.count(summary['rows'], 'row')}, all with a verdict")
    return Chip("⊘", f"{words.count(summary['rows'], 'row')}, {' and '.join(said)}{f': {why}' if why else ''}", "warn")
