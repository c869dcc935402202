"""The form of an evaluation over the value of its spec: what each field shows, and what a change of it writes.

A value that a field cannot show as it is, and every key that the form does not have, stays in the spec untouched.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from evalops.document import KeyPath
from evalops.spec import Type
from evalops.ui import create_lists as lists
from evalops.ui.create_lists import BREAK, KEPT, number, number_text

Spec = dict[str, Any]
CANDIDATES = ("model_to_evaluate", "model_a", "model_b")
OF_TYPE = {
    Type.CLASSIFY: {"labels", "pass_labels", "model_to_evaluate"},
    Type.SCORE: {"min_score", "max_score", "pass_threshold", "model_to_evaluate"},
    Type.COMPARE: {"model_a", "model_b", "disable_position_bias_correction"},
    Type.CUSTOM: {"evaluator", "model_to_evaluate"},
}
_MODEL = ("model", "model_source", "external_base_url", "credential")
_LIMITS = ("max_tokens", "temperature", "num_workers")


class Kind(StrEnum):
    """What a field holds: a line, a name out of a list (whatever is in it), a text, a number, a mark, words, a list."""

    LINE = "line"
    CHOICE = "choice"
    TEXT = "text"
    NUMBER = "number"
    FLAG = "flag"
    WORDS = "words"
    LIST = "list"


class Shown(NamedTuple):
    """A spec as its form shows it: `kept` are fields whose value it cannot show, `more` is all that it does not."""

    fields: dict[str, Any]
    kept: list[str]
    more: list[str]


def _leaves() -> Iterator[tuple[KeyPath, Kind]]:
    yield from ((("name",), Kind.LINE), (("description",), Kind.TEXT), (("tags",), Kind.WORDS))
    yield from ((("type",), Kind.CHOICE), (("provider",), Kind.CHOICE), (("dataset", "id"), Kind.CHOICE))
    for key in ("judge", *CANDIDATES):
        yield from (((key, each), Kind.CHOICE if each == "model_source" else Kind.LINE) for each in _MODEL)
        yield (key, "system_template"), Kind.TEXT
        if key != "judge":
            yield (key, "input_template"), Kind.TEXT
        yield from (((key, each), Kind.NUMBER) for each in _LIMITS)
    yield from ((("judge", "verdict"), Kind.CHOICE), (("judge", "reason"), Kind.CHOICE))
    yield from (((each,), Kind.NUMBER) for each in ("min_score", "max_score", "pass_threshold", "repeats"))
    yield from ((("disable_position_bias_correction",), Kind.FLAG), (("gold",), Kind.CHOICE))
    yield from ((("group_by",), Kind.LIST), (("cluster",), Kind.CHOICE), (("metric",), Kind.LINE))


LEAVES = {".".join(map(str, route)): (route, kind) for route, kind in _leaves()}
_TOPS = {route[0] for route, _ in LEAVES.values()} | {"version", "dataset", "labels", "pass_labels", "thresholds"}


def shown(spec: Spec) -> Shown:
    """What the form shows of a spec."""
    found = {name: _leaf(spec, route, kind) for name, (route, kind) in LEAVES.items()}
    found |= {"labels": lists.labels(spec), "thresholds": lists.thresholds(spec), "dataset.path": _path(spec)}
    found |= _judge(spec)
    for key in CANDIDATES:
        found |= _candidate(spec, key)
    kept = [name for name, value in found.items() if value is KEPT]
    return Shown({name: value for name, value in found.items() if value is not KEPT}, kept, _more(spec, kept))


def changed(spec: Spec, changes: Mapping[str, Any]) -> Spec:
    """A spec with changes of its form; what they leave as it is shown stays as it is written."""
    found: Spec = copy.deepcopy(spec)
    now = shown(found).fields
    asked = {name: value for name, value in changes.items() if name not in now or now[name] != value}
    if "type" in asked:
        _retype(found, str(asked["type"]))
    own = _own(found.get("type")) | _TOPS - set().union(*OF_TYPE.values())
    asked = {name: value for name, value in asked.items() if name.split(".")[0] in own}
    for name in [each for each in asked if each.endswith(".how")]:
        _become(found, name.removesuffix(".how"), str(asked[name]), {**now, **changes})
    for name, value in asked.items():
        if name in LEAVES and name not in ("type",):
            _write(found, *LEAVES[name], value)
    _write_names(found, asked)
    if isinstance(asked.get("labels"), list):
        lists.write_labels(found, asked["labels"])
    if isinstance(asked.get("thresholds"), list):
        lists.write_thresholds(found, asked["thresholds"])
    return found


def name_of(spec: Any, route: KeyPath) -> str | None:
    """The field of the form that a place in a spec belongs to, None where it has none."""
    if not route:
        return None
    top = str(route[0])
    if top in ("labels", "pass_labels", "thresholds", "group_by"):
        return "labels" if top == "pass_labels" else top
    for end in range(len(route), 0, -1):
        name = ".".join(map(str, route[:end]))
        if name in LEAVES:
            return name
    if top == "dataset":
        return "dataset.path"
    if top == "judge" or top in CANDIDATES:
        value = spec.get(top) if isinstance(spec, dict) else None
        is_column = "column" in (route[-1], *(value if isinstance(value, dict) else ())) or isinstance(value, str)
        is_column = is_column or (value is None and top in ("model_a", "model_b"))
        return f"{top}.{('named' if top == 'judge' and isinstance(value, str) else 'column') if is_column else 'how'}"
    return None


# --- from a spec to fields ---


def _leaf(spec: Spec, route: KeyPath, kind: Kind) -> Any:
    """A value as its field shows it; `KEPT` where it cannot."""
    value: Any = spec
    for part in route:
        value = value.get(part) if isinstance(value, dict) else None
    match kind:
        case Kind.FLAG:
            return bool(value) if value is None or isinstance(value, bool) else KEPT
        case Kind.LIST:
            is_list = isinstance(value, list) and all(isinstance(each, str) for each in value)
            return [] if value is None else value if is_list and len({*value}) == len(value) else KEPT
        case Kind.WORDS:
            is_words = isinstance(value, list) and all(isinstance(each, str) and _is_word(each) for each in value)
            return "" if value is None else " ".join(value) if is_words else KEPT
        case Kind.NUMBER:
            return number_text(value)
    if value is None:
        return ""
    is_shown = isinstance(value, str) and (
        kind is Kind.CHOICE or not (BREAK.search(value) if kind is Kind.LINE else "\r" in value)
    )
    return value if is_shown else KEPT


def _is_word(text: str) -> bool:
    return re.fullmatch(r"[^\s,]+", text) is not None


def _path(spec: Spec) -> Any:
    value = spec.get("dataset")
    if isinstance(value, dict):
        value = KEPT if "rows" in value or "file_id" in value else value.get("path")
    return "" if value is None else value if isinstance(value, str) and not BREAK.search(value) else KEPT


def _judge(spec: Spec) -> Spec:
    value = spec.get("judge")
    if isinstance(value, str):
        return {"judge.how": "named", "judge.named": value, "judge.column": ""}
    if isinstance(value, dict) and "column" in value:
        column = value["column"]
        return {"judge.how": "column", "judge.named": "", "judge.column": column if isinstance(column, str) else KEPT}
    how = "model" if value is None or isinstance(value, dict) else KEPT
    return {"judge.how": how if "judges" not in spec else KEPT, "judge.named": "", "judge.column": ""}


def _candidate(spec: Spec, key: str) -> Spec:
    value = spec.get(key)
    if isinstance(value, dict):
        return {f"{key}.how": "model", f"{key}.column": ""}
    if value is None:
        return {f"{key}.how": "none" if key == "model_to_evaluate" else "column", f"{key}.column": ""}
    return {f"{key}.how": "column", f"{key}.column": value} if isinstance(value, str) else {f"{key}.how": KEPT}


def _more(spec: Spec, kept: list[str]) -> list[str]:
    """Everything in a spec that its form does not show, by its dotted name."""
    found = [str(key) for key in spec if key not in _TOPS]
    known = {"dataset": {"path", "id"}, "judge": {"column"}}
    for key in ("dataset", "judge", *CANDIDATES):
        value = spec.get(key)
        names = {str(route[1]) for route, _ in LEAVES.values() if route[0] == key and len(route) > 1}
        if isinstance(value, dict):
            found += [f"{key}.{each}" for each in value if each not in names | known.get(key, set())]
    found += [f"thresholds.{each}" for each in lists.other_thresholds(spec)]
    hows = {f"{each}.how" for each in ("judge", *CANDIDATES)}
    found += [each.removesuffix(".how") if each in hows else each for each in kept]
    return [each for each in dict.fromkeys(found) if each != "judge" or "judges" not in spec]


# --- from fields to a spec ---


def _retype(spec: Spec, type_: str) -> None:
    """Another type: what only other types have goes."""
    spec["type"] = type_
    for key in set().union(*OF_TYPE.values()) - _own(type_):
        spec.pop(key, None)


def _own(type_: object) -> set[str]:
    return OF_TYPE[Type(type_)] if isinstance(type_, str) and type_ in list(Type) else set()


def _become(spec: Spec, key: str, how: str, fields: Mapping[str, Any]) -> None:
    """A judge or candidate of another form, with what its fields say by now."""
    if how == "none":
        spec.pop(key, None)
    elif how == "model":
        spec[key] = {}
        for name, (route, kind) in LEAVES.items():
            if route[0] == key and len(route) == 2 and fields.get(name):
                _write(spec, route, kind, fields[name])
    elif how == "named":
        spec[key] = str(fields.get(f"{key}.named") or "")
    elif how == "column":
        column = str(fields.get(f"{key}.column") or "")
        spec[key] = {"column": column} if key == "judge" else column


def _write(spec: Spec, route: KeyPath, kind: Kind, value: Any) -> None:
    into: Any = spec
    for part in route[:-1]:
        if part == "dataset" and isinstance(into.get(part), str) and value:
            into[part] = {"path": into[part]}
        if part not in into and value:
            into[part] = {}
        into = into.get(part)
        if not isinstance(into, dict) or (part == "judge" and "column" in into):
            return  # a column, a name: it has no such field
    found = _parsed(kind, value)
    if found in ("", [], None, False) and not (isinstance(found, int | float) and found is not False):
        into.pop(route[-1], None)
    else:
        into[route[-1]] = found
    if route[0] == "dataset" and set(into) == {"path"}:
        spec["dataset"] = into["path"]


def _parsed(kind: Kind, value: Any) -> Any:
    """What a field says, as the spec has it; a number that is none stays a text, for validation to name."""
    match kind:
        case Kind.FLAG:
            return value is True
        case Kind.LIST:
            return list(dict.fromkeys(str(each) for each in value)) if isinstance(value, list) else []
        case Kind.WORDS:
            return re.findall(r"[^\s,]+", str(value))
        case Kind.NUMBER:
            return number(str(value))
        case Kind.TEXT:
            return str(value).replace("\r\n", "\n")
    return str(value)


def _write_names(spec: Spec, asked: Mapping[str, Any]) -> None:
    """The fields that name a dataset, a judge, columns."""
    dataset, judge = spec.get("dataset"), spec.get("judge")
    if "dataset.path" in asked:
        path = str(asked["dataset.path"])
        if isinstance(dataset, dict) and not {"rows", "file_id"} & set(dataset):
            spec["dataset"] = {**dataset, "path": path}
        elif not isinstance(dataset, dict):
            spec["dataset"] = path
    for ours, theirs in dict(asked.get("dataset.columns") or {}).items():
        into = spec.setdefault("dataset", {})
        into = {"path": into} if isinstance(into, str) else into
        if isinstance(into, dict) and isinstance(into.setdefault("columns", {}), dict):
            into["columns"][str(ours)] = str(theirs)
            spec["dataset"] = into
            _rename(spec, str(theirs), str(ours))
    if "judge.named" in asked and isinstance(judge, str):
        spec["judge"] = str(asked["judge.named"])
    if "judge.column" in asked and isinstance(judge, dict) and "column" in judge:
        spec["judge"] = {**judge, "column": str(asked["judge.column"])}
    for key in CANDIDATES:
        if (
            f"{key}.column" in asked
            and not isinstance(spec.get(key), dict)
            and (key in spec or f"{key}.how" not in asked)
        ):
            spec[key] = str(asked[f"{key}.column"])


def _rename(spec: Spec, theirs: str, ours: str) -> None:
    """A column by its new name wherever a field has the old one."""
    for into, keys in (
        (spec, ("gold", "cluster", *CANDIDATES)),
        (spec["dataset"], ("id",)),
        (spec.get("judge"), ("column",)),
    ):
        for key in keys:
            if isinstance(into, dict) and into.get(key) == theirs:
                into[key] = ours
    if isinstance(spec.get("group_by"), list):
        spec["group_by"] = [ours if each == theirs else each for each in spec["group_by"]]


def same(one: Any, other: Any) -> bool:
    """Whether two values would be written alike: 1 is not true, and the order of keys counts for nothing."""
    return json.dumps(_plain(one), sort_keys=True) == json.dumps(_plain(other), sort_keys=True)


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {key: _plain(each) for key, each in value.items()}
        case list():
            return list(map(_plain, value))
        case float() if value.is_integer():
            return int(value)
    return value
