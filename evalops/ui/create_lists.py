"""The lists of the form: labels, each marked pass or fail, and thresholds; and numbers as fields show them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from evalops.spec import NO_REGRESSION

KEPT: Final = object()
"""Of a value that a field cannot show as it is: it stays as it is."""

_BOUND = {"min", "max", "on"}
BREAK = re.compile("[\r\n]")


def number(text: str) -> int | float | str:
    """The number that a text is; the text where it is none, or one that a spec cannot hold."""
    text = text.strip()
    if re.fullmatch(r"[-+]?[0-9]{1,18}", text):
        return int(text)
    if re.fullmatch(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]{1,4})?", text) and len(text) < 60:
        found = float(text)
        return found if math.isfinite(found) else text
    return text


def number_text(value: Any) -> Any:
    """A number as a field shows it, `KEPT` for what is not written by one."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return KEPT
    if isinstance(value, str):
        return value if isinstance(number(value), str) and value == value.strip() and not BREAK.search(value) else KEPT
    text = str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else repr(value)
    return text if number(text) == value else KEPT


# --- labels ---


def labels(spec: Mapping[str, Any]) -> Any:
    """Labels as `{text, passes}`."""
    texts, passing = spec.get("labels", []), spec.get("pass_labels", [])
    if not _are_lines(texts) or not _are_lines(passing) or not set(passing) <= set(texts):
        return KEPT
    if len({*passing}) < len(passing) or not all((*texts, "x")):
        return KEPT
    return [{"text": each, "passes": each in passing} for each in texts]


def _are_lines(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) and not BREAK.search(each) for each in value)


def write_labels(spec: dict[str, Any], rows: Sequence[Any]) -> None:
    """Writes labels from their fields; an empty one is none yet."""
    found = [(str(each.get("text", "")), each.get("passes") is True) for each in rows if isinstance(each, dict)]
    texts = [text for text, _ in found if text]
    passing = list(dict.fromkeys(text for text, passes in found if text and passes))
    for key, value in (("labels", texts), ("pass_labels", passing)):
        if (value and set(value) != set(spec.get(key, ()))) or (value != spec.get(key) and key == "labels"):
            spec[key] = value
        if not value:
            spec.pop(key, None)


# --- thresholds ---


def thresholds(spec: Mapping[str, Any]) -> Any:
    """The bounds on the whole result as `{metric, min, max, on}`."""
    value = spec.get("thresholds", {})
    if not isinstance(value, dict):
        return KEPT
    return [_shown(metric, bound) for metric, bound in value.items() if _is_simple(metric, bound)]


def other_thresholds(spec: Mapping[str, Any]) -> list[str]:
    """The thresholds that the form does not show: of groups, against a base, and what is not written as one."""
    value = spec.get("thresholds", {})
    if not isinstance(value, dict):
        return []
    return [str(metric) for metric, bound in value.items() if not _is_simple(metric, bound)]


def write_thresholds(spec: dict[str, Any], rows: Sequence[Any]) -> None:
    """Writes thresholds from their fields; those that the form does not show stay."""
    value = spec.get("thresholds", {})
    asked = {str(each["metric"]): each for each in rows if isinstance(each, dict) and each.get("metric")}
    if not isinstance(value, dict):
        return
    found: dict[str, Any] = {}
    for metric, bound in value.items():
        if not _is_simple(metric, bound):
            found[metric] = bound
        elif metric in asked:
            row = asked.pop(metric)
            found[metric] = bound if _shown(metric, bound) == row else _bound(row)
    found |= {metric: _bound(row) for metric, row in asked.items() if metric not in found}
    if found:
        spec["thresholds"] = found
    else:
        spec.pop("thresholds", None)


def _is_simple(metric: Any, bound: Any) -> bool:
    if metric == NO_REGRESSION or not isinstance(bound, dict) or not set(bound) <= _BOUND or BREAK.search(metric):
        return False
    is_known = bound.get("on", "estimate") in ("estimate", "lower", "upper")
    return bool(metric) and is_known and all(number_text(bound.get(each)) is not KEPT for each in ("min", "max"))


def _shown(metric: str, bound: Mapping[str, Any]) -> dict[str, str]:
    ends = {each: number_text(bound.get(each)) for each in ("min", "max")}
    return {"metric": metric, **ends, "on": bound.get("on", "estimate")}


def _bound(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {each: number(str(row[each])) for each in ("min", "max") if str(row.get(each, "")).strip()}
    return {**found, "on": row["on"]} if row.get("on") in ("lower", "upper") else found
