"""The form of a verdict: what the judge is asked to write, and how its answer is read.

The reason comes before the verdict, since a format that asks for the verdict first hurts the reasoning
(arXiv 2408.02442). The last verdict in a reply counts: a judge that thinks aloud may mention several.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from evalops import voting
from evalops.engine.reply import Reply
from evalops.metrics.measure import number
from evalops.result import Value
from evalops.spec import Criterion, Evaluation, Type

MAX_READ = 200_000  # characters of a reply that are searched for a verdict
MAX_SCANNED = 50_000  # characters, the last ones, that are searched for JSON among other text


class Rung(StrEnum):
    """How a verdict was asked for, best first; the one used is stored with the row."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"
    TEXT = "text"
    LIKELIHOOD = "likelihood"


LADDER = (Rung.JSON_SCHEMA, Rung.JSON_OBJECT, Rung.TEXT)


_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str, check_circular=False).encode


class Reading(NamedTuple):
    """A verdict read from a reply, or the reason why there is none.

    `criteria` are the numbers that a score is made of; `gap` is by how much the likeliest label leads, 0 to 1.
    """

    value: Value = None
    feedback: str | None = None
    problem: str | None = None  # unparsable, unknown_label, out_of_range, length, refusal
    detail: str = ""
    criteria: Mapping[str, float] | None = None
    gap: float | None = None


def is_empty(response: Any) -> bool:
    """Whether a response holds nothing to judge: punctuation alone can earn passes (arXiv 2507.08794)."""
    if response is None:
        return True
    return isinstance(response, str) and all(unicodedata.category(character)[0] in "PZC" for character in response)


def nonce(template: str, source: Mapping[str, Any], responses: tuple[Any, ...]) -> str:
    """The marker of a row: the same in every run, so that the cache hits, and unknown to who wrote the row."""
    text = _encode([template, source, responses])
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def fence(text: str, name: str, mark: str) -> str:
    """`text` between markers."""
    return f"<{name} {mark}>\n{text}\n</{name} {mark}>"


def listed(criteria: Sequence[Criterion]) -> str:
    """The criteria as a judge reads them, one a line."""
    return "\n".join(f"- {name}: {description}" if description else f"- {name}" for name, description, _ in criteria)


class Form:
    """What one judge's verdict looks like: its keys, its JSON schema, its words, and how it is read.

    With `criteria` there is a number for each instead of one score, which is then their weighted mean.
    """

    def __init__(self, evaluation: Evaluation, *, reason: bool, criteria: Sequence[Criterion] = ()) -> None:
        self.type = evaluation.type
        self.reason = reason
        self.labels = evaluation.labels
        self.low, self.high = evaluation.min_score, evaluation.max_score
        self.key = {Type.CLASSIFY: "label", Type.COMPARE: "choice"}.get(self.type, "score")
        self._folded = {label.strip().casefold(): label for label in self.labels}
        self._criteria = {each.name.casefold(): each for each in criteria}
        words = "|".join(re.escape(each.name) for each in criteria) or self.key
        # A line can be matched in one way only: a reply of nothing but line breaks must not take minutes.
        before = r"[ \t*\"'`{-]*" if criteria else r"[ \t*\"'`{]*"  # models make a list of several
        self._line = re.compile(rf"^{before}({words})[ \t*\"'`]*[:=](.*)$", re.I | re.M)
        self._quoted = re.compile(rf'"(?:{words})"\s*:', re.I)
        self._about = f"The criteria:\n{listed(criteria)}\n\n" if any(each.description for each in criteria) else ""
        self.schema = self._schema()

    def instruction(self, rung: Rung) -> str:
        """The last part of the user message: the form of the answer."""
        value = {
            Type.CLASSIFY: "one of the labels "
            + ", ".join(json.dumps(label, ensure_ascii=False) for label in self.labels),
            Type.SCORE: f"a number from {_plain(self.low)} to {_plain(self.high)}",
            Type.COMPARE: '"1" if Response 1 is better, "2" if Response 2 is better, "tie" if neither is',
        }[self.type]
        keys = [each.name for each in self._criteria.values()] or [self.key]
        if rung is Rung.TEXT:
            first = "First explain your verdict in one or two sentences. Then end" if self.reason else "Answer"
            lines = "\n".join(f"{key}: VALUE" for key in keys)
            many = ("one line for each criterion, of", "each VALUE") if self._criteria else ("one line of", "VALUE")
            return f"{self._about}{first} with {many[0]} the form\n{lines}\nwhere {many[1]} is {value}."
        fields = ['"reason": one or two sentences'] if self.reason else []
        fields += [f'"{key}": {value}' for key in keys]
        form = f"Answer with one JSON object and nothing else. Its keys, in this order: {'; '.join(fields)}."
        return self._about + form

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
        find = self._find_criteria if self._criteria else self._find
        found = find(reply.content[-MAX_READ:])
        if reply.finish_reason == "length" and found.problem:
            return Reading(problem="length", detail="the reply was cut off by its token limit")
        return found

    def _find(self, content: str) -> Reading:
        """The last verdict in a reply: an object, or a line of the form `label: polite`."""
        content = content.strip()
        found, line, end = None, None, 0
        for value, stop in _objects(content):
            end = stop
            verdicts = [each for key, each in value.items() if key.casefold() == self.key]
            if verdicts:
                found = verdicts[-1], value.get("reason")
        for line in self._line.finditer(content, end):
            end = line.end()
        broken = self._quoted.search(content, end) or (line is None and "}" in content[end:])
        if (found or line) and broken:
            # What was found may be a quotation inside an object that is itself not well-formed.
            return Reading(problem="unparsable", detail=f"its last `{self.key}` is in JSON that is not well-formed")
        if line:
            return self._text(line[2], content[:2000])
        if found:
            return self.value(found[0], found[1] if isinstance(found[1], str) else None)
        if not self.reason and len(content) <= 300:
            bare = self._text(content, None)
            if bare.problem != "unknown_label":
                return bare
        return Reading(problem="unparsable", detail=f"the reply has no `{self.key}`")

    def _find_criteria(self, content: str) -> Reading:
        """The last number for each criterion: all in one object, or each on a line of its own."""
        content = content.strip()
        found: dict[str, Any] = {}
        lines: dict[str, Any] = {}
        end = 0
        for value, stop in _objects(content):
            end = stop
            given = {key.casefold(): each for key, each in value.items()}
            if not given.keys().isdisjoint(self._criteria):
                found = given
        for line in self._line.finditer(content, end):
            lines[line[1].casefold()] = line[2]
            end = line.end()
        broken = self._quoted.search(content, end) or (not lines and "}" in content[end:])
        if (found or lines) and broken:
            return Reading(problem="unparsable", detail="its last numbers are in JSON that is not well-formed")
        if lines:
            return self._numbers(lines, content[:2000])
        reason = found.get("reason")
        return self._numbers(found, reason if isinstance(reason, str) else None)

    def _numbers(self, values: Mapping[str, Any], feedback: str | None) -> Reading:
        """A number for each criterion, and their weighted mean."""
        numbers: dict[str, float] = {}
        for folded, criterion in self._criteria.items():
            if folded not in values:
                return Reading(problem="unparsable", detail=f"the reply has no `{criterion.name}`")
            value = values[folded]
            reading = self._text(value, None) if isinstance(value, str) else self.value(value)
            if not isinstance(reading.value, float):
                return reading._replace(detail=f"`{criterion.name}`: {reading.detail}")
            numbers[criterion.name] = reading.value
        weights = [each.weight for each in self._criteria.values()]
        return Reading(voting.mean([*numbers.values()], weights), feedback, criteria=numbers)

    def _text(self, text: str, feedback: str | None) -> Reading:
        """The reading of a value in plain text, which may be quoted or emphasised."""
        exact = self.value(text.strip(), feedback)
        return exact if exact.problem is None else self.value(text.strip(_DECORATION), feedback)

    def value(self, value: Any, feedback: str | None = None) -> Reading:
        """The reading of a bare value, from a reply or from a column of recorded verdicts."""
        match self.type:
            case Type.CLASSIFY:
                label = value if value in self.labels else self._folded.get(str(value).strip().casefold())
                if label is None:
                    return Reading(problem="unknown_label", detail=f"{str(value)[:100]!r} is none of the labels")
                return Reading(label, feedback)
            case Type.SCORE | Type.CUSTOM:
                score = number(value)
                if score is None:
                    return Reading(problem="unparsable", detail=f"{str(value)[:100]!r} is no number")
                if not (self.low or 0.0) <= score <= (self.high or 0.0):
                    return Reading(problem="out_of_range", detail=f"{score:g} is outside the range")
                return Reading(score, feedback)
            case Type.COMPARE:
                choice = re.sub(r"^response\s*", "", str(value).strip().casefold())
                if choice not in ("1", "2", "tie"):
                    return Reading(problem="unknown_label", detail=f"{str(value)[:100]!r} is none of 1, 2, tie")
                return Reading(choice, feedback)

    def _schema(self) -> dict[str, Any]:
        properties: dict[str, Any] = {"reason": {"type": "string"}} if self.reason else {}
        match self.type:
            case Type.CLASSIFY:
                properties["label"] = {"type": "string", "enum": list(self.labels)}
            case Type.SCORE | Type.CUSTOM:
                keys = [each.name for each in self._criteria.values()] or [self.key]
                properties |= dict.fromkeys(keys, _score_schema(self.low or 0.0, self.high or 0.0))
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


_DECORATION = " \t\r\n*\"'`,.{}"
_START = re.compile(r'\{\s*["}]')
_DECODER = json.JSONDecoder(strict=False)  # models write line breaks into strings


def _objects(content: str) -> Iterator[tuple[dict[str, Any], int]]:
    """The JSON objects in a text that are in no other one, each with where it ends."""
    try:
        value = _DECODER.decode(content)
    except (ValueError, RecursionError):
        pass
    else:
        if isinstance(value, dict):
            yield value, len(content)
        return
    skipped = max(0, len(content) - MAX_SCANNED)
    text, position = content[skipped:], 0
    while start := _START.search(text, position):
        try:
            value, position = _DECODER.raw_decode(text, start.start())
        except RecursionError:
            return
        except ValueError:
            position = start.start() + 1
        else:
            yield value, skipped + position


def _plain(value: float | None) -> str:
    return f"{value:g}" if value is not None else "?"
