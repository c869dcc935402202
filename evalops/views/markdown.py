"""Plans and results as Markdown, for a pull request or a report.

Whatever comes from a spec, a dataset or a model goes through `safe.code` or `safe.prose`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from evalops.views import review as moved
from evalops.views import standings, text
from evalops.views.safe import cells, code, fence, line, prose

_NUMERIC = ("rank", "rows", "games", "wins", "no verdict")
_NAMES = ("candidate", "evaluation")
FIELDS = 4  # changed fields of an evaluation whose places are given


def ranking(value: Mapping[str, Any]) -> str:
    """Candidates in order, as `tables.ranking` has them."""
    header = standings.columns(value)
    lines = [prose(standings.title(value)), ""]
    lines.append(cells(prose(name) for name in header))
    lines.append(cells("---:" if name in _NUMERIC else "---" for name in header))
    for row in standings.rows(value):
        pairs = zip(header, row, strict=True)
        lines.append(cells(code(cell) if name in _NAMES and cell else prose(cell) for name, cell in pairs))
    notes = [f"- warning: {prose(each)}" for each in value["warnings"]]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"


# --- a plan ---


def plan(value: Mapping[str, Any], *, verbose: bool = False) -> str:
    """The plan as a table of what there is to do; at the end the digest for `apply --approved`."""
    changes = [each for each in value["changes"] if verbose or each["action"] != "noop"]
    parts = [text.totals(value["summary"])]
    if changes:
        parts.append(table(("", "evaluation", "action", "takes", "why"), map(_change, changes)))
    if verbose:
        parts += [each for change in changes for each in _diffs(change)]
    if value.get("trusted"):
        parts.append("\n".join(f"- {prose(each.strip(), 1000)}" for each in text.trusted(value)))
    parts.append(f"Digest: {code(value['digest'])}")
    return "\n\n".join(parts) + "\n"


def plan_signs(value: Mapping[str, Any]) -> str:
    """The plan as lists of addresses, one an action."""
    actions: dict[str, list[str]] = {}
    for each in value["changes"]:
        if each["action"] != "noop":
            actions.setdefault(f"{code(each['sign'])} {each['action']}", []).append(each["address"])
    return "\n".join([text.totals(value["summary"]), "", *(named(key, each) for key, each in actions.items())])


def _change(each: Mapping[str, Any]) -> list[str]:
    why = prose(line(each["reason"], 160))
    marks = [code(field["mark"]) for field in each["fields"][:FIELDS] if field["mark"]]
    return [
        code(each["sign"]),
        code(each["address"]),
        each["action"],
        text.amount(each),
        f"{why} ({', '.join(marks)})" if marks else why,
    ]


def _diffs(change: Mapping[str, Any]) -> Iterator[str]:
    for field in change["fields"]:
        if field.get("diff"):
            yield f"{code(change['address'])}, {code(field['name'])}:\n\n" + fence("\n".join(field["diff"][2:]), "diff")


# --- how results moved ---


def review(value: Mapping[str, Any]) -> str:
    """The totals, what moved, why, and which rows flipped."""
    parts = [f"Since {code(value['base']['commit'][:12])} ({code(value['base']['name'], 100)}): {moved.totals(value)}."]
    return "\n\n".join([*parts, *failing(value), *results(value), *reasons(value)]) + "\n"


def failing(value: Mapping[str, Any]) -> list[str]:
    """The gates that fail now."""
    rows = [[code(each["address"]), prose(text.gate(each["gate"]), 300)] for each in value["failed_gates"]]
    return [table(("evaluation", "gate that fails"), rows)] if rows else []


def results(value: Mapping[str, Any]) -> list[str]:
    """A line each for what moved."""
    rows = []
    for each in moved.ordered(value):
        sign, _, *cells_, word = moved.row(each)
        rows.append([code(sign), code(each["address"]), *map(prose, cells_), prose(word)])
    return [table(moved.HEADER, rows)] if rows else []


def reasons(value: Mapping[str, Any], *, with_rows: bool = True) -> list[str]:
    """Why each moved, and its flipped rows."""
    parts = []
    for each in moved.ordered(value):
        lines = [f"- {prose(why.strip(), 400)}" for why in moved.details(each)]
        if lines or (each["flips"] and with_rows):
            parts.append(f"{code(moved.symbol(each))} {code(each['address'])}" + ("\n\n" if lines else ""))
            parts[-1] += "\n".join(lines)
        if each["flips"] and with_rows:
            rows = [[code(cell, 240) if cell else "" for cell in moved.flip(found)] for found in each["flips"]]
            parts.append(table(("row", "base", "now", "text", "feedback"), rows))
    return parts


def review_signs(value: Mapping[str, Any]) -> list[str]:
    """What moved as lists of addresses, one a sign."""
    found: dict[str, list[str]] = {}
    for each in moved.ordered(value):
        found.setdefault(f"{code(moved.symbol(each))} {moved.word(each)}", []).append(each["address"])
    return ["\n".join(named(key, each) for key, each in found.items())] if found else []


def named(title: str, addresses: Iterable[str]) -> str:
    """A list of addresses as one item."""
    return f"- {title}: {', '.join(code(each) for each in addresses)}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already."""
    return "\n".join([cells(header), cells("---" for _ in header), *map(cells, rows)])
