"""What the first page of a report says: cards, what is pending, what is gone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalops.views import review as moved
from evalops.views import text as words
from evalops.views.chips import Chip
from evalops.views.safe import line

Json = dict[str, Any]


def of(report: Mapping[str, Any]) -> Json:
    """The cards and notices of the first page."""
    totals, review = report["totals"], report["review"]
    return {
        "cards": list(_cards(totals, review, report)),
        "gone": [move for move in (review or {}).get("moves", ()) if move["kind"] == "gone"],
        "since": moved.totals(review) if review else None,
        "absent": [_capital(why) for why in report["absent"].values()],
        "pending": report["pending"],
    }


def _cards(totals: Mapping[str, Any], review: Mapping[str, Any] | None, report: Mapping[str, Any]) -> Iterator[Json]:
    count, done = totals["evaluations"], totals["with_result"]
    note = "all have a result" if done == count else f"{count - done:,} without a result yet"
    yield {"title": "Evaluations", "figure": f"{count:,}", "note": note, "chip": None}
    gates, failed = totals["gates"], totals["failed_gates"]
    chip = Chip("✗", f"{failed:,} failed", "bad") if failed else Chip("✓", "all passed", "good") if gates else None
    yield {
        "title": "Gates passed",
        "figure": f"{gates - failed:,} of {gates:,}",
        "note": "" if gates else "no thresholds",
        "chip": chip,
    }
    missing = totals["invalid"] + totals["errors"]
    note = f"{totals['invalid']:,} invalid, {totals['errors']:,} errors" if missing else "all have a verdict"
    yield {"title": "Rows judged", "figure": f"{totals['rows']:,}", "note": note, "chip": None}
    if review:
        trends = review["totals"]["trends"]
        chip = Chip("▼", f"{trends['down']:,} down", "bad") if trends["down"] else None
        figure = f"{trends['up']:,} up, {trends['down']:,} down"
        base = report["base"]
        note = f"since {base['commit'][:8]} ({line(base['name'], 40)})"
        yield {"title": "Moved beyond chance", "figure": figure, "note": note, "chip": chip}
    cost = totals["cost"]
    calls = "calls not counted" if totals["calls"] is None else words.count(totals["calls"], "call")
    said = "tokens not counted" if totals["tokens"] is None else words.count(totals["tokens"], "token")
    yield {
        "title": "Cost",
        "figure": "not known" if cost is None else f"{cost:.4g}",
        "note": f"{calls}, {said}",
        "chip": None,
    }


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
