"""Assertions that need no judge: texts, patterns, JSON and overlap."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from evalops.evaluators import pattern, shape
from evalops.importers import literal
from evalops.importers.draft import FUNCTION
from evalops.importers.promptfoo_asked import Asked, Check

LONGEST = 1_000  # characters of a pattern
_NAMED = re.compile(r"\(\?<(?![=!])")  # a named group as JavaScript writes it


def equals(asked: Asked) -> Check | None:
    """The response is the value; a mapping or a list is compared as JSON."""
    if isinstance(asked.value, dict | list):
        if asked.is_not:
            asked.no("with JSON has no equal here", FUNCTION)
            return None
        return _shaped(asked, {"const": asked.value})
    if asked.is_not:
        text = asked.filled(asked.value)
        return None if text is None else _patterned(asked, literal.equals(text), is_whole=True)
    return _compared(asked, {"kind": "exact", "strip": False})


def contains(asked: Asked) -> Check | None:
    """The value stands in the response; `icontains` on any case."""
    is_caseless = asked.base == "icontains"
    if asked.is_not:
        text = asked.filled(asked.value)
        return None if text is None else _patterned(asked, literal.has_any([text]), ignore_case=is_caseless)
    case = {"ignore_case": True} if is_caseless else {}
    return _compared(asked, {"kind": "contains", "strip": False, **case})


def several(asked: Asked) -> Check | None:
    """Any or all of several texts stand in the response."""
    given = asked.value.split(",") if isinstance(asked.value, str) else asked.value
    if not isinstance(given, list) or not given:
        asked.no("has no list of texts")
        return None
    texts = [asked.filled(each.strip() if isinstance(each, str) else each) for each in given]
    usable = [each for each in texts if each is not None]
    if len(usable) < len(texts):
        return None
    is_any = asked.base.endswith("any")
    made = literal.has_any(usable) if is_any else literal.has_all(usable)
    return _patterned(asked, made, ignore_case=asked.base.startswith("i"), is_whole=not is_any)


def starts(asked: Asked) -> Check | None:
    """The response begins with the value."""
    text = asked.filled(asked.value)
    return None if text is None else _patterned(asked, literal.starts(text), is_whole=True)


def regex(asked: Asked) -> Check | None:
    """The value, a pattern of JavaScript, finds something in the response."""
    text = asked.filled(asked.value)
    return None if text is None else _patterned(asked, _NAMED.sub("(?P<", text))


def json_(asked: Asked) -> Check | None:
    """The response is JSON, or has some in it, that a schema accepts."""
    value: Any = True if asked.value is None else asked.value
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            asked.no("has a schema that is no JSON")
            return None
    if asked.is_not:
        asked.no("has no equal here", FUNCTION)
        return None
    return _shaped(asked, value)


def overlap(asked: Asked) -> Check | None:
    """The response has words in common with the value."""
    if asked.is_not:
        asked.no("has no equal here", "use it without `not-` and bound `mean_score` by `max`")
        return None
    is_bleu = asked.base == "bleu"
    what = "BLEU is that of sacrebleu" if is_bleu else "ROUGE is the F-measure of rouge-score"
    asked.differs(
        f"{what}, so its numbers are not quite those of promptfoo",
        "look at `pass_threshold` again; it needs the extra `text`",
    )
    evaluator = {"kind": "bleu"} if is_bleu else {"kind": "rouge", "variant": "rouge1"}
    return _compared(asked, evaluator, pass_threshold=asked.threshold(0.5 if is_bleu else 0.75))


def _compared(asked: Asked, evaluator: Mapping[str, Any], **fields: Any) -> Check | None:
    """A response held against a text that each row has."""
    text = asked.filled(asked.value)
    return None if text is None else asked.check({"type": "custom", "evaluator": evaluator, **fields}, "expected", text)


def _patterned(asked: Asked, found: str, *, ignore_case: bool = False, is_whole: bool = False) -> Check | None:
    """A response in which a pattern is found, or not."""
    problem = pattern.problem(found)
    found = literal.lacks(found, is_whole=is_whole) if asked.is_not else found
    if problem or len(found) > LONGEST:
        asked.no(f"cannot be a pattern here: {problem or f'it is longer than {LONGEST:,} characters'}", FUNCTION)
        return None
    evaluator = {"kind": "regex", "pattern": found, **({"ignore_case": True} if ignore_case else {})}
    return asked.check({"type": "custom", "evaluator": evaluator})


def _shaped(asked: Asked, schema: Any) -> Check | None:
    """A response that a JSON Schema accepts."""
    if isinstance(schema, dict) and schema.get("$schema", shape.DRAFT) != shape.DRAFT:
        schema = {key: value for key, value in schema.items() if key != "$schema"}
        asked.differs("a JSON Schema is read as draft 2020-12 here, whatever it says of itself")
    problems = shape.problems(schema) if isinstance(schema, dict | bool) else [((), "it is no mapping")]
    if problems:
        asked.no(f"has a schema that evalops does not take: {problems[0][1]}", FUNCTION)
        return None
    evaluator: dict[str, Any] = {"kind": "json_schema", "schema": schema}
    if asked.base == "contains-json":
        evaluator["extract"] = literal.JSON_INSIDE
        asked.differs("`contains-json` takes what stands from the first bracket to the last")
    return asked.check({"type": "custom", "evaluator": evaluator})
