"""Evaluations for tests, read from spec text as the package reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from evalops import document, spec
from evalops.document import Document
from evalops.settings import Settings, load
from evalops.spec import Evaluation

TEMPLATE = "Is it polite?"


def evaluation(
    *, settings: Settings | None = None, judge: Any = None, judges: Sequence[Any] = (), **fields: Any
) -> Evaluation:
    """One evaluation, of type classify with a column `response` unless told otherwise; None leaves a field out."""
    value: dict[str, Any] = {"version": 1, "name": "tone", "type": "classify", "dataset": "rows.jsonl"}
    if judges:
        value["judges"] = [_judge(each) for each in judges]
    elif fields.get("type") != "custom":
        value["judge"] = _judge(judge)
    match fields.get("type", "classify"):
        case "classify":
            value |= {"labels": ["polite", "rude"], "model_to_evaluate": "response"}
        case "score":
            value |= {"min_score": 1, "max_score": 5, "model_to_evaluate": "response"}
        case "compare":
            value |= {"model_a": "first", "model_b": "second"}
    value = {key: each for key, each in (value | fields).items() if each is not None}
    found, problems = spec.load(_document(value, "tone.yaml"), settings or Settings(), str)
    assert not problems, problems
    return found[0]


def settings(**fields: Any) -> Settings:
    """Settings with these fields."""
    found, problems = load(_document({"version": 1, **fields}, "evalops.yaml"))
    assert not problems, problems
    return found


def _judge(judge: Any) -> Any:
    if isinstance(judge, str) or (isinstance(judge, dict) and "column" in judge):
        return judge
    return {"model": "judge", "system_template": TEMPLATE} | (judge or {})


def _document(value: dict[str, Any], path: str) -> Document:
    documents, problems = document.parse(yaml.safe_dump(value, sort_keys=False, allow_unicode=True).encode(), path)
    assert not problems, problems
    return documents[0]
