"""What a table of a ranking says, for a terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalops.views import text as words
from evalops.views.safe import line

_TITLES = {"pass_percentage": "pass %", "mean_score": "mean", "bradley_terry": "strength"}


def title(value: Mapping[str, Any]) -> str:
    """What the candidates are ranked by, on what, by whom."""
    dataset, by = value["dataset"], value["by"]
    parts = [f"Ranked by {value['metric']}"]
    if dataset.get("path"):
        parts.append(f"on {dataset['path']}")
    if dataset.get("rows") is not None:
        parts[-1] += f" ({words.count(dataset['rows'], 'row')})"
    judge = _judge(value["judge"])
    if judge:
        parts.append(f"judged by {judge}")
    if by:
        parts.append(f"candidates by {' and '.join(by)}")
    if value["item"]:
        parts.append(f"items by {value['item']}")
    return ", ".join(parts)


def _judge(judge: Mapping[str, Any]) -> str:
    if "evaluator.kind" in judge:
        return f"the evaluator {judge['evaluator.kind']}"
    models = [str(each) for key, each in judge.items() if key.endswith(".model")]
    columns: list[str] = []
    for key, each in judge.items():
        if key.endswith(".column"):
            columns += map(str, each) if isinstance(each, list) else [str(each)]
    return ", ".join([*models, *(["recorded verdicts in " + ", ".join(columns)] if columns else [])])


def columns(value: Mapping[str, Any]) -> list[str]:
    """The header."""
    metric = value["metric"]
    has_games = any("win_rate" in each for each in value["candidates"])
    return [
        "rank",
        "in 95 %",
        "candidate",
        *(["evaluation"] if _has_addresses(value) else []),
        f"{_TITLES.get(metric, metric)} [95 % interval]",
        *(["wins", "win rate"] if has_games else []),
        "games" if has_games else "rows",
        *(["no verdict"] if any(each.get("no_verdict") for each in value["candidates"]) else []),
        "to the leader",
        "p (Holm)",
        *(["note"] if any(each["reason"] for each in value["candidates"]) else []),
    ]


def rows(value: Mapping[str, Any]) -> Iterator[list[str]]:
    """A line a candidate, each cell one line of safe text."""
    header = columns(value)
    metric = value["metric"]
    for each in value["candidates"]:
        cells = {
            "rank": "-" if each["rank"] is None else str(each["rank"]),
            "in 95 %": _span(each),
            "candidate": line(each["name"]),
            "evaluation": line(each["address"] or ""),
            header[3 + ("evaluation" in header)]: "" if each["value"] is None else words.metric(metric, each),
            "wins": f"{each.get('wins') or 0:g}",
            "win rate": words.metric("win_rate", each["win_rate"]) if "win_rate" in each else "",
            "games": f"{each['n'] or 0:,}",
            "rows": f"{each['n'] or 0:,}",
            "no verdict": "" if each.get("no_verdict") is None else f"{each['no_verdict']:,}",
            "to the leader": words.metric(metric, each["difference"]) if each["difference"] else "",
            "p (Holm)": _p(each["p_adjusted"]),
            "note": line(each["reason"] or ""),
        }
        yield [cells[name] for name in header]


def _has_addresses(value: Mapping[str, Any]) -> bool:
    """Whether the addresses say more than the names do."""
    return any(each["address"] and each["address"] != each["name"] for each in value["candidates"])


def _span(each: Mapping[str, Any]) -> str:
    low, high = each["rank_low"], each["rank_high"]
    if low is None:
        return ""
    return str(low) if low == high else f"{low}–{high}"


def _p(value: float | None) -> str:
    if value is None:
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
