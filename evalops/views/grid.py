"""The rows of a result as data for `page/report.js`: columns of safe text, short enough for a page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalops.views.safe import safe

MOST_TEXT = 48 << 20  # characters of a page's cells; more make browsers slow
CUTS = (20_000, 4_000, 1_000, 300, 100)  # characters of a cell, the first that lets all of them fit
MOST_VALUES = 24  # of a column that is worth a filter without being asked for
MOST_FILTERS = 6
SHORT = 40  # characters of such a value
STATUSES = ("scored", "invalid", "error")
_NESTED = ("said", "votes", "criteria", "evaluators")

Json = dict[str, Any]


def data(evaluation: Mapping[str, Any], room: int = MOST_TEXT) -> Json:
    """What the script reads. `room` is how many characters its cells may have; `notes` say what is left out."""
    sheet, asked = evaluation["rows"], evaluation["asked"] or {}
    columns = sheet["columns"]
    texts = list(_texts(sheet, asked))
    prompts = [{"name": name, "values": values} for name, values in sheet["prompts"].items()]
    cells = [
        *(each["values"] for each in (*texts, *prompts)),
        *(columns.get(name, ()) for name in ("reason", *_NESTED)),
    ]
    limit = _limit([length for column in cells for length in _lengths(column)], room)
    for each in (*texts, *prompts):
        each |= {"name": safe(each["name"]), "values": [_text(value, limit) for value in each["values"]]}
    hidden = {asked.get("gold"), *asked.get("verdict_columns", ())}
    return {
        "type": evaluation["type"],
        "count": sheet["count"],
        "key": [_text(each, limit) for each in columns.get("key", ())],
        "status": [STATUSES.index(each) for each in columns.get("status", ())],
        "verdict": [_value(each) for each in columns.get("verdict", [None] * sheet["count"])],
        **{name: columns[name] for name in ("passed", "agrees", "moved", "orders") if name in columns},
        **{name: [_value(each) for each in columns[name]] for name in ("before", "gold") if name in columns},
        **{name: [_text(each, limit) for each in columns[name]] for name in ("problem", "reason") if name in columns},
        **{name: [_deep(each, limit) for each in columns[name]] for name in _NESTED if name in columns},
        **({"before_status": columns["before_status"]} if "before_status" in columns else {}),
        "judges": [_text(each, limit) for each in asked.get("judges", ())],
        "candidates": [_text(each, limit) for each in asked.get("candidates", ())],
        "groups": _groups(sheet, asked, hidden),
        "texts": [each for each in texts if each.pop("column", None) not in hidden],
        "prompts": prompts,
        "notes": list(_notes(sheet["absent"], limit)),
    }  # fmt: skip


def _texts(sheet: Mapping[str, Any], asked: Mapping[str, Any]) -> Iterator[Json]:
    """Responses, in the order of the candidates, then what else the dataset has."""
    responses = list(asked.get("responses") or ())
    names = [*(name for name in responses if name in sheet["source"])]
    is_pair = len(asked.get("candidates") or ()) == 2
    places = {name: "AB"[place] for place, name in enumerate(asked.get("candidates") or ())} if is_pair else {}
    for name in names:
        yield {
            "name": name,
            "column": name,
            "role": places.get(name, "response").lower(),
            "values": sheet["source"][name],
        }
    for name, values in sheet["outputs"].items():
        role = {"model_a": "a", "model_b": "b"}.get(name, "response")
        yield {"name": f"{name} wrote", "role": role, "values": values}
    for name, values in sheet["source"].items():
        if name not in names:
            yield {"name": name, "column": name, "role": "column", "values": values}


def _limit(lengths: Sequence[int], room: int) -> int:
    """How long a text may be so that all of them fit."""
    return next((cut for cut in CUTS if sum(min(length, cut) for length in lengths) <= room), CUTS[-1])


def _lengths(value: Any) -> Iterator[int]:
    """The lengths of all texts in plain data."""
    if isinstance(value, str):
        yield len(value)
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _lengths(each)


def _groups(sheet: Mapping[str, Any], asked: Mapping[str, Any], hidden: set[Any]) -> list[Json]:
    """The columns of `group_by`, and others with few different values."""
    wanted = [name for name in asked.get("group_by") or () if name in sheet["source"]]
    known = {*wanted, *hidden, *(asked.get("responses") or ())}
    more = [name for name, values in sheet["source"].items() if name not in known and _is_category(values)]
    return [
        {"name": safe(name), "values": [_text(value, 200) or "(none)" for value in sheet["source"][name]]}
        for name in [*wanted, *more][: max(MOST_FILTERS, len(wanted))]
    ]


def _is_category(values: Sequence[Any]) -> bool:
    """Whether a column has few different short values, each on several rows."""
    found: set[str] = set()
    for value in values:
        if isinstance(value, dict | list) or (isinstance(value, str) and len(value) > SHORT):
            return False
        if value is not None:
            found.add(str(value))
        if len(found) > MOST_VALUES:
            return False
    return 1 < len(found) <= len(values) / 3


def _notes(absent: Mapping[str, str], limit: int) -> Iterator[str]:
    names = {"reason": "What the judge said", "source": "The texts", "prompts": "The prompts"}
    for key, why in absent.items():
        if key in names:
            yield f"{names[key]}: not here, {safe(why)}"
    if limit < CUTS[0]:
        yield f"Texts of more than {limit:,} characters are cut; evalops report --format json has them whole"


def _value(value: Any) -> Any:
    """A verdict: a number, or safe text."""
    return value if value is None or isinstance(value, int | float) else _text(value, CUTS[0])


def _text(value: Any, limit: int) -> str | None:
    """A cell as safe text, JSON where it is none; cut where it is too long."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    more = len(text) - limit
    text = safe((text[:limit] if more > 0 else text).replace("\r\n", "\n"))
    return f"{text} … (cut: {more:,} more characters)" if more > 0 else text


def _deep(value: Any, limit: int) -> Any:
    """Plain data with every text in it made safe."""
    match value:
        case str():
            return _text(value, limit)
        case dict():
            return {safe(name): _deep(each, limit) for name, each in value.items()}
        case list():
            return [_deep(each, limit) for each in value]
    return value
