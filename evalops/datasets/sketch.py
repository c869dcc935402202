"""A spec to start from, for a dataset: what its columns suggest, to be changed by whoever knows better."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evalops import template
from evalops.datasets.survey import Column, Survey

MODEL = "embedded/smollm2-135m"
MOST_SHOWN = 4  # columns in a template
_IDS = ("id", "key", "uid")
_TRUTHS = ("gold", "label", "verdict", "expected", "target", "truth")
_RESPONSES = ("response", "answer", "reply", "output", "completion")
_GROUPS = ("category", "difficulty", "set", "language", "topic")
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_NO_VARIABLE = re.compile(r"[^A-Za-z0-9]+")


def of_columns(name: str, path: str, found: Survey) -> dict[str, Any]:
    """A spec over a file or set of the project, of type classify."""
    columns = {each.name: each for each in found.columns}
    truth = _first(_TRUTHS, columns, lambda each: _labels(each) is not None)
    response = _first(_RESPONSES, columns, lambda each: not each.absent)
    key = _first(_IDS, columns, lambda each: each.is_exact and each.distinct == found.rows)
    apart = {*_IDS, *_TRUTHS, *_GROUPS, response}
    there = [each.name for each in found.columns if not each.absent and each.name not in _TRUTHS]
    # A judge is shown texts. A column of few values or of numbers is what somebody found, more often than not.
    texts = [each for each in there if each not in apart and _is_text(columns[each], found.rows)]
    shown = (texts or [each for each in there if each not in apart] or there)[:MOST_SHOWN]
    names = variables(list(dict.fromkeys([*shown, *([response] if response else [])])))
    labels = _labels(columns[truth]) if truth else None
    dataset = {"path": path, "id": key, "columns": {ours: theirs for theirs, ours in names.items() if ours != theirs}}
    spec = _judged(name, {each: value for each, value in dataset.items() if value}, labels, list(names.values()))
    spec |= {"model_to_evaluate": response, "gold": truth, "group_by": [each for each in _GROUPS if each in columns]}
    return {each: value for each, value in spec.items() if value}


def of_upload(name: str, file: str, digest: str, found: Survey) -> dict[str, Any]:
    """A spec over a file that Together has: it takes no column that the template does not use."""
    spec = _judged(name, {"file_id": file, "sha256": digest}, None, [each.name for each in found.columns])
    return {"version": 1, "name": spec.pop("name"), "type": spec.pop("type"), "provider": "together"} | spec


def of_set(name: str, entry: Any) -> dict[str, Any]:
    """A spec over a set that ships, as its registry describes it (`benchmarks.Entry`)."""
    spec: dict[str, Any] = {"version": 1, "name": name, "type": entry.type, "dataset": {"path": name, "id": "id"}}
    if entry.judge_template is not None:
        spec["judge"] = {"model": MODEL, "system_template": entry.judge_template}
        spec["labels"] = list(entry.labels)
        spec["pass_labels"] = list(entry.pass_labels)
        spec["model_to_evaluate"] = entry.response
    else:
        spec["evaluator"] = dict(entry.evaluator)
        spec["model_to_evaluate"] = {"model": MODEL, "input_template": entry.template}
    spec["gold"] = "gold"
    spec["group_by"] = [each for each in _GROUPS if each in entry.columns]
    return spec | ({"cluster": entry.cluster} if entry.cluster else {})


def _judged(name: str, dataset: Mapping[str, Any], labels: list[str] | None, shown: Sequence[str]) -> dict[str, Any]:
    what = f"Say which of these it is: {', '.join(labels)}." if labels else "Say whether this is good or bad."
    question = "\n".join([what, "", *(f"{each}: {{{{ {each} }}}}" for each in shown)]) + "\n"
    return {
        "version": 1,
        "name": _NO_NAME.sub("-", name).strip("-._")[:100] or "first",
        "type": "classify",
        "dataset": dataset["path"] if list(dataset) == ["path"] else dict(dataset),
        "judge": {"model": MODEL, "system_template": question},
        "labels": labels or ["good", "bad"],
        "pass_labels": (labels or ["good"])[:1],
    }


def _first(names: Sequence[str], columns: Mapping[str, Column], is_fit: Callable[[Column], bool]) -> str | None:
    return next((each for each in names if each in columns and is_fit(columns[each])), None)


def _is_text(column: Column, rows: int) -> bool:
    is_of_few_values = bool(column.values) and 2 * len(column.values or ()) <= rows
    return set(column.types) == {"text"} and not is_of_few_values


def _labels(column: Column) -> list[str] | None:
    """The values of a column, where a judge could be asked to choose one of them."""
    values = list(column.values or ())
    is_told_apart = len({each.strip().casefold() for each in values}) == len(values)
    is_text = set(column.types) == {"text"} and all(each.strip() and "\n" not in each for each in values)
    return values if len(values) > 1 and is_told_apart and is_text else None


def variables(columns: Sequence[str]) -> dict[str, str]:
    """A name that a template can use for each column, where there is one."""
    found: dict[str, str] = {}
    for column in columns:
        for name in (column, _NO_VARIABLE.sub("_", column).strip("_").lower(), f"column_{len(found) + 1}"):
            parsed = template.parse(f"{{{{ {name} }}}}")
            if isinstance(parsed, template.Template) and parsed.variables == {name} and name not in found.values():
                found[column] = name
                break
    return found
