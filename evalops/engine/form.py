"""The form of a verdict: what the judge is asked to write, and how its answer is read.

The reason comes before the verdict, since a format that asks for the verdict first hurts the reasoning
(arXiv 2408.02442). The last verdict in a reply counts: a judge that thinks aloud may mention several.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import unicodedata
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, NamedTuple

from evalops.engine.reply import Reply
from evalops.result import Value
from evalops.spec import Evaluation, Type

MAX_READ = 200_000  # characters of a reply that are searched for a verdict


class Rung(StrEnum):
    """How a verdict was asked for, best first; the one used is stored with the row."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"
    LIKELIHOOD = "likelihood"


LADDER = (Rung.JSON_SCHEMA, Rung.JSON_OBJECT, Rung.TEXT)


class Reading(NamedTuple):
    """A verdict read from a reply, or the reason why there is none."""

    value: Value = None
    feedback: str | None = None
    problem: str | None = None  # unparsable, unknown_label, out_of_range, length, refusal
    detail: str = ""


def is_empty(response: Any) -> bool:
    """Whether a response holds nothing to judge: punctuation alone can earn passes (arXiv 2507.08794)."""
    if response is None:
        return True
    return isinstance(response, str) and all(
        unicodedata.category(character)[0] in "PZC" for character in response
    )


def nonce(template: str, source: Mapping[str, Any], responses: tuple[Any, ...]) -> str:
    """The marker of a row: the same in every run, so that the cache hits, and unknown to who wrote the row."""
    text = json.dumps([template, source, responses], sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fence(text: str, name: str, mark: str) -> str:
    """`text` between markers."""
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"


class Form:
    """What one evaluation's verdict looks like: its key, its JSON schema, its words, and how it is read."""

    def __init__(self, evaluation: Evaluation, *, reason: bool) -> None:
        self.type = evaluation.type
        self.reason = reason
        self.labels = evaluation.labels
        self.low, self.high = evaluation.min_score, evaluation.max_score
        self.key = {Type.CLASSIFY: "label", Type.SCORE: "score", Type.COMPARE: "choice"}[self.type]
        self._folded = {label.strip().casefold(): label for label in self.labels}
        self._line = re.compile(rf'^[\s*"\'`{{]*{self.key}[\s*"\'`]*[:=]\s*(.+?)[\s*"\'`,.}}]*$', re.I | re.M)
        self.schema = self._schema()

    def instruction(self, rung: Rung) -> str:
        """The last part of the user message: the form of the answer."""
        value = {
            Type.CLASSIFY: "one of the labels "
            + ", ".join(json.dumps(label, ensure_ascii=False) for label in self.labels),
            Type.SCORE: f"a number from {_plain(self.low)} to {_plain(self.high)}",
            Type.COMPARE: '"1" if Response 1 is better, "2" if Response 2 is better, "tie" if neither is',
        }[self.type]
        if rung is Rung.TEXT:
            first = (
                "First explain your verdict in one or two sentences. Then end" if self.reason else "Answer"
            )
            return f"{first} with one line of the form\n{self.key}: VALUE\nwhere VALUE is {value}."
        fields = ['"reason": one or two sentences'] if self.reason else []
        fields.append(f'"{self.key}": {value}')
        return f"Answer with one JSON object and nothing else. Its keys, in this order: {'; '.join(fields)}."

    def response_format(self, rung: Rung) -> dict[str, Any] | None:
        """What the request asks the endpoint to enforce."""
        if rung is Rung.JSON_SCHEMA:
            return {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": self.schema},
            }
        return {"type": "json_object"} if rung is Rung.JSON_OBJECT else None

    def read(self, reply: Reply) -> Reading:
        """The verdict in a reply."""
        if reply.refusal:
            return Reading(problem="refusal", detail=reply.refusal[:300])
        if reply.finish_reason == "content_filter":
            return Reading(problem="refusal", detail="the endpoint's content filter stopped the reply")
        found = self._find(reply.content[-MAX_READ:])
        if reply.finish_reason == "length" and found.problem:
            return Reading(problem="length", detail="the reply was cut off by its token limit")
        return found

    def _find(self, content: str) -> Reading:
        for value in _objects(content):
            if self.key in value:
                feedback = value.get("reason")
                return self.value(value[self.key], feedback if isinstance(feedback, str) else None)
        lines = self._line.findall(content)
        if lines:
            return self.value(lines[-1], content.strip()[:2000] or None)
        if not self.reason and self._folded.get(content.strip().strip("\"'`.").casefold()):
            return self.value(content.strip().strip("\"'`."), None)
        return Reading(problem="unparsable", detail=f"the reply has no `{self.key}`")

    def value(self, value: Any, feedback: str | None = None) -> Reading:
        """The reading of a bare value, from a reply or from a column of recorded verdicts."""
        match self.type:
            case Type.CLASSIFY:
                label = value if value in self.labels else self._folded.get(str(value).strip().casefold())
                if label is None:
                    return Reading(
                        problem="unknown_label", detail=f"{str(value)[:100]!r} is none of the labels"
                    )
                return Reading(label, feedback)
            case Type.SCORE:
                score = _number(value)
                if score is None:
                    return Reading(problem="unparsable", detail=f"{str(value)[:100]!r} is no number")
                if not (self.low or 0.0) <= score <= (self.high or 0.0):
                    return Reading(problem="out_of_range", detail=f"{score:g} is outside the range")
                return Reading(score, feedback)
            case Type.COMPARE:
                choice = re.sub(r"^response\s*", "", str(value).strip().casefold())
                if choice not in ("1", "2", "tie"):
                    return Reading(
                        problem="unknown_label", detail=f"{str(value)[:100]!r} is none of 1, 2, tie"
                    )
                return Reading(choice, feedback)

    def _schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"reason": {"type": "string"}} if self.reason else {}
        match self.type:
            case Type.CLASSIFY:
                properties["label"] = {"type": "string", "enum": list(self.labels)}
            case Type.SCORE:
                properties["score"] = _score_schema(self.low or 0.0, self.high or 0.0)
            case Type.COMPARE:
                properties["choice"] = {"type": "string", "enum": ["1", "2", "tie"]}
        return {
            "type": "object",
            "properties": properties,
            "required": list(properties),
            "additionalProperties": False,
        }


def _score_schema(low: float, high: float) -> dict[str, Any]:
    # A short list of whole numbers is the one form that every endpoint enforces.
    if low.is_integer() and high.is_integer() and high - low <= 20:
        return {"type": "integer", "enum": list(range(int(low), int(high) + 1))}
    return {"type": "number"}


def _objects(content: str) -> list[dict[str, Any]]:
    """The JSON objects in a text, the last first: a judge that thinks aloud may write several."""
    text = content.strip()
    try:
        value = json.loads(text)
        return [value] if isinstance(value, dict) else []
    except (ValueError, RecursionError):
        pass
    found: list[dict[str, Any]] = []
    decoder = json.JSONDecoder()
    position = text.find("{")
    while position >= 0 and len(found) < 100:
        try:
            value, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError):
            end = position + 1
        else:
            found.append(value)
        position = text.find("{", end)
    return found[::-1]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _plain(value: float | None) -> str:
    return f"{value:g}" if value is not None else "?"
