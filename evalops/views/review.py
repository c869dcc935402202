"""How results moved, for a terminal; and the words for it that Markdown shares."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click

from evalops.stats import contrast
from evalops.views import tables
from evalops.views import text as words
from evalops.views.safe import line

HEADER = ("", "evaluation", "base", "now", "difference", "p (Holm)", "")
COLUMNS = 2  # of a row's excerpt

_SIGNS = {"new": "+", "gone": "-", "renamed": "<", "regraded": "*", "open": ">", "same": "="}
_TRENDS = {"up": "▲", "down": "▼", "level": "≈"}
_ORDER = "▼▲≈>+-*<="
_TITLES = {"pass_percentage": "pass %", "mean_score": "mean", "changed_labels": "other labels"}
_COLOURS = {"▲": "green", "▼": "red", "+": "green", "-": "red"}
_DIGEST = re.compile("(sha256:)?[0-9a-f]{64}")
_FREE = ("renamed", "regraded")


def show(value: Mapping[str, Any]) -> str:
    """The totals, a line each for what moved, and below why, and which rows flipped."""
    moves = ordered(value)
    parts = [f"Since {base(value)}: {totals(value)}."]
    if moves:
        parts.append(tables.grid(HEADER, [row(each) for each in moves]))
    for each in moves:
        lines = [*details(each), *_detectable(each)]
        if lines or each["flips"]:
            sign = symbol(each)
            parts.append("\n".join([click.style(f"{sign} {line(each['address'])}", fg=_COLOURS.get(sign)), *lines]))
        if each["flips"]:
            parts.append(tables.grid(("row", "base", "now", "", "feedback"), [flip(found) for found in each["flips"]]))
    if value["failed_gates"]:
        lines = [f"  {line(each['address'])}: {words.gate(each['gate'])}" for each in value["failed_gates"]]
        parts.append("\n".join(["Gates that fail now:", *lines]))
    return "\n\n".join(parts)


def base(value: Mapping[str, Any]) -> str:
    """The revision that the results are compared with."""
    return f"{value['base']['commit'][:12]} ({line(value['base']['name'], 100)})"


def totals(value: Mapping[str, Any]) -> str:
    """How many of what, in words of ours and numbers only."""
    found = value["totals"]
    trends = [f"{found['trends'][key]:,} {word}" for key, word in _TREND_WORDS.items() if found["trends"][key]]
    parts = [f"{found['moved']:,} moved ({', '.join(trends)})"] if found["moved"] else []
    for key, word in _KIND_WORDS.items():
        parts += [f"{found[key]:,} {word}"] if found[key] else []
    parts.append(f"{found['same']:,} the same")
    if found["failed_gates"]:
        parts.append(f"{words.count(found['failed_gates'], 'gate')} failing")
    return ", ".join(parts)


_TREND_WORDS = {"down": "down", "up": "up", "level": "within chance"}
_KIND_WORDS = {
    "open": "without a result yet",
    "new": "new",
    "gone": "gone",
    "renamed": "renamed (free)",
    "regraded": "regraded (free)",
}


def ordered(value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What moved, the worst first."""
    return sorted(value["moves"], key=lambda move: _ORDER.index(symbol(move)))


def symbol(move: Mapping[str, Any]) -> str:
    """One sign for what happened; the word stands in the last column."""
    return _TRENDS[move["trend"]] if move["kind"] == "moved" else _SIGNS[move["kind"]]


def row(move: Mapping[str, Any]) -> list[str]:
    """The cells of `HEADER`, each one line of safe text."""
    found = move["paired"]
    return [
        symbol(move),
        line(move["address"]),
        _metric(move["before"]),
        _metric(move["after"]),
        difference(found) if found else "",
        _p(found["p_adjusted"]) if found else "",
        word(move),
    ]


def word(move: Mapping[str, Any]) -> str:
    """What happened, in a word."""
    if move["kind"] != "moved":
        return f"{move['kind']}, free" if move["kind"] in _FREE else str(move["kind"])
    return "within chance" if move["trend"] == "level" else str(move["trend"])


def difference(found: Mapping[str, Any]) -> str:
    """`-5.4 [-9.0, -1.8]`; a plus stands where it went up, and the metric where it is not the headline's."""
    metric = found["difference"]
    text = words.metric(found["metric"], metric)
    if metric.get("value") is not None and metric["value"] > 0 and found["metric"] != "changed_labels":
        text = f"+{text}"
    return f"{text} {_TITLES[found['metric']]}" if found["metric"] == "changed_labels" else text


def details(move: Mapping[str, Any]) -> Iterator[str]:
    """Why it moved, and what to know before believing it: lines of safe text."""
    if move["was"]:
        yield f"  renamed from `{line(move['was'])}`: the same work"
    for each in move["fields"]:
        yield f"  {change(each)}"
    for each in move["gates"]:
        yield f"  {gate(each)}"
    for note in move["notes"]:
        yield f"  {line(note, 300)}"
    found = move["paired"]
    if found and found["test"]:
        yield f"  {test(found)}"


def change(field: Mapping[str, Any]) -> str:
    """One run field on both sides, and where the new value stands; long texts are known by their digest only."""
    before, after = (words.short(field[key]) for key in ("before", "after"))
    is_digest = any(_DIGEST.fullmatch(str(field[key])) for key in ("before", "after"))
    what = "changed" if is_digest else f"{before} -> {after}"
    return f"`{line(field['name'])}` {what}  {line(field['mark'])}"


def gate(move: Mapping[str, Any]) -> str:
    """A threshold that another bound was set for, or that ends in another way."""
    before, after = move["before"], move["after"]
    name = words.gate_name(after or before)
    if after is None:
        return f"threshold `{name}` removed: free"
    if before is None:
        return f"threshold `{name}` new, free: {words.gate(after)}"
    changed = f", bound changed (free): {bound(before)} -> {bound(after)}" if move["changed"] else ""
    turned = f" {before['verdict']} -> {after['verdict']}" if move["turned"] else f" {after['verdict']} as before"
    return f"gate `{name}`{turned}{changed}"


def bound(value: Mapping[str, Any]) -> str:
    """`min 95` as the spec has it."""
    on = "" if value["on"] == "estimate" else f" on {value['on']}"
    return " ".join(f"{key} {value[key]:g}" for key in ("min", "max") if value.get(key) is not None) + on


def test(found: Mapping[str, Any]) -> str:
    """How the difference was tested, and on what."""
    if not found["shared"]:
        return f"{found['test']}: wider than a paired difference, and without a p-value"
    shared = words.count(found["shared"], "shared row")
    moved = f", {found['lost']} down and {found['gained']} up" if found["lost"] or found["gained"] else ""
    return f"{found['test']} on {shared}{moved}, {words.count(found['flips'], 'row')} flipped"


def _detectable(move: Mapping[str, Any]) -> Iterator[str]:
    """How large a change had to be for the shared rows to show it, where they showed none."""
    found = move["paired"]
    if move["kind"] != "moved" or move["trend"] != "level" or not found or not found["shared"]:
        return
    n, name, least = found["shared"], found["metric"], None
    if name == "pass_percentage":
        rate = contrast.detectable_paired_rate(n, found["flips"] / n)
        least = None if rate is None else 100 * rate
    elif found["difference"].get("low") is not None and found["difference"].get("high") is not None:
        # The interval of the difference is about 1.96 standard errors to either side.
        error = (found["difference"]["high"] - found["difference"]["low"]) / 2 / 1.96
        least = contrast.detectable_mean(n, error * math.sqrt(n), paired=True) if name != "changed_labels" else None
    if least:
        yield f"  smallest detectable change with these rows: {words.effect(name, least)} (80 % power, tested alone)"


def flip(found: Mapping[str, Any]) -> list[str]:
    """A flipped row: its key, both verdicts, and of its text what is at hand."""
    return [
        line(found["key"], 40),
        _value(found["before"]),
        _value(found["after"]),
        excerpt(found["source"]),
        line(found["feedback"] or "", 120),
    ]


def excerpt(source: Mapping[str, Any] | None) -> str:
    """The first columns of a row."""
    shown: Sequence[tuple[str, Any]] = list((source or {}).items())[:COLUMNS]
    return "; ".join(f"{line(name, 30)}: {line(value, 80)}" for name, value in shown)


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else line(value, 60)


def _metric(value: Mapping[str, Any] | None) -> str:
    if value is None:
        return ""
    name = value["metric"]
    return f"{_TITLES.get(name, line(name, 60))} {words.metric(name, value)}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
