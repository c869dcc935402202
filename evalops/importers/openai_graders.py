"""The graders of OpenAI Evals in our words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from evalops.errors import Diagnostic
from evalops.importers import literal, references
from evalops.importers.chat import THE_RESPONSE, content
from evalops.importers.draft import FUNCTION, differs, no_equal, number
from evalops.importers.source import Source

_OVERLAPS: Mapping[str, dict[str, Any]] = {
    "bleu": {"kind": "bleu"},
    "rouge_1": {"kind": "rouge", "variant": "rouge1"},
    "rouge_2": {"kind": "rouge", "variant": "rouge2"},
    "rouge_l": {"kind": "rouge", "variant": "rougeL"},
}
_ROLES = {"system": "", "developer": "", "user": "", "assistant": "Assistant: "}


class Graded(NamedTuple):
    """What a grader asks: the fields of a spec but for what is judged.

    `subject` is what is judged: the response, a column of the rows, or None where the judge's template shows all of it.
    `target` is the text that the response is compared with, for each row anew.
    """

    fields: Mapping[str, Any]
    subject: references.Reference | None
    target: str | None = None


class _Asked(NamedTuple):
    """A grader, the names of the columns, and where remarks go."""

    given: Source
    columns: Mapping[str, str]
    say: Callable[[Diagnostic], None]

    def text(self, key: str) -> str:
        value = self.given.value.get(key)
        return value if isinstance(value, str) else ""

    def no(self, why: str, hint: str | None = None) -> None:
        """Leaves the grader out."""
        self.say(no_equal(f"the grader `{_name(self.given)}` {why}", self.given.mark(), hint))


def graded(given: Source, columns: Mapping[str, str], say: Callable[[Diagnostic], None]) -> Graded | None:
    """What a grader asks, None with a finding where it has no equal."""
    asked = _Asked(given, columns, say)
    kind = given.value.get("type") if isinstance(given.value, dict) else None
    if isinstance(kind, str) and kind in _KINDS:
        return _KINDS[kind](asked)
    if isinstance(given.value, dict):
        shown = kind if isinstance(kind, str) else "none"
        asked.no(f"is of type `{shown[:60]}`, which has no equal here", _HINTS.get(shown, FUNCTION))
    else:
        say(no_equal("this grader is no mapping", given.mark()))
    return None


def _name(given: Source) -> str:
    name = given.value.get("name")
    return name[:60] if isinstance(name, str) else "(no name)"


# --- texts ---


def _sides(asked: _Asked) -> tuple[references.Reference, str] | None:
    """What is judged and what it is compared with; where the response is the reference, the other way round."""
    one, other = asked.text("input"), asked.text("reference")
    if references.asks_for_more(one) or references.asks_for_more(other):
        asked.no("reads more of a sample than its text", "use `extract` of an evaluator on the response")
        return None
    subject = references.only(one)
    if subject is None or (not subject.is_response and any(each.is_response for each in references.references(other))):
        is_turned = asked.text("operation") in ("eq", "ne") or asked.given.value.get("type") == "text_similarity"
        turned = references.only(other)
        subject, other = (turned, one) if is_turned and turned is not None else (None, other)
    if subject is None or any(each.is_response for each in references.references(other)):
        asked.no("does not compare one response or column with a text", FUNCTION)
        return None
    if not other:
        asked.no("has no `reference`")
        return None
    return subject, other


def _string_check(asked: _Asked) -> Graded | None:
    sides, operation = _sides(asked), asked.text("operation")
    if sides is None:
        return None
    subject, target = sides
    if operation == "eq":
        return Graded({"type": "custom", "evaluator": {"kind": "exact", "strip": False}}, subject, target)
    if operation in ("like", "ilike"):
        case = {"ignore_case": True} if operation == "ilike" else {}
        return Graded({"type": "custom", "evaluator": {"kind": "contains", "strip": False, **case}}, subject, target)
    if operation != "ne":
        asked.no(f"has the operation `{operation[:60]}`, which is not known")
        return None
    if references.references(target):
        hint = "compare with `exact`, and bound it the other way: `thresholds: {pass_percentage: {max: 0}}`"
        asked.no("wants a response that differs from a text of its row", hint)
        return None
    pattern = literal.lacks(literal.equals(target), is_whole=True)
    return Graded({"type": "custom", "evaluator": {"kind": "regex", "pattern": pattern}}, subject)


def _text_similarity(asked: _Asked) -> Graded | None:
    metric = asked.text("evaluation_metric")
    if metric not in _OVERLAPS:
        known = ", ".join(f"`{each}`" for each in _OVERLAPS)
        asked.no(f"measures by `{metric[:60]}`, which has no equal here", f"{known} are there; else {FUNCTION}")
        return None
    sides = _sides(asked)
    if sides is None:
        return None
    library = "sacrebleu" if metric == "bleu" else "rouge-score"
    message = f"`{metric}` is that of {library}, so its numbers may not quite be those of OpenAI"
    asked.say(differs(message, asked.given.mark(), "look at `pass_threshold` again; it needs the extra `text`"))
    fields = {"type": "custom", "evaluator": _OVERLAPS[metric], **_passing(asked)}
    return Graded(fields, *sides)


def _passing(asked: _Asked) -> dict[str, Any]:
    threshold = number(asked.given.value.get("pass_threshold"))
    return {} if threshold is None else {"pass_threshold": threshold}


# --- judges ---


def _label_model(asked: _Asked) -> Graded | None:
    judge = _judge(asked)
    if judge is None:
        return None
    value = asked.given.value
    fields = {
        "type": "classify",
        "judge": judge[0],
        "labels": value.get("labels"),
        "pass_labels": value.get("passing_labels"),
    }
    return Graded({key: each for key, each in fields.items() if each not in (None, [])}, judge[1])


def _score_model(asked: _Asked) -> Graded | None:
    judge = _judge(asked)
    if judge is None:
        return None
    span = asked.given.value.get("range")
    low, high = span if isinstance(span, list) and len(span) == 2 else (0, 1)
    fields = {"type": "score", "judge": judge[0], "min_score": low, "max_score": high, **_passing(asked)}
    return Graded(fields, judge[1])


def _judge(asked: _Asked) -> tuple[dict[str, Any], references.Reference | None] | None:
    """The judge with its template, and whether it is shown the response."""
    text = _messages(asked.given.value.get("input"))
    if text is None:
        asked.no("shows its model something that is no text")
        return None
    if references.asks_for_more(text):
        asked.no("reads more of a sample than its text", "judge the response as a whole")
        return None
    if not asked.text("model"):
        asked.no("has no `model`")
        return None
    judge: dict[str, Any] = {"model": by_our_name(asked.text("model")), **sampling(asked.given, asked.say)}
    judge["system_template"] = references.template(text, asked.columns, THE_RESPONSE)
    shown = next((each for each in references.references(text) if each.is_response), None)
    return judge, shown


def _messages(value: Any) -> str | None:
    """The texts of messages as one, None where one of them is no text."""
    messages = value if isinstance(value, list) else [value]
    texts = [content(each.get("content")) if isinstance(each, dict) else None for each in messages]
    if not texts or any(each is None for each in texts):
        return None
    roles = [_ROLES.get(str(each.get("role")), "") for each in messages]
    return "\n\n".join(role + (text or "").strip("\n") for role, text in zip(roles, texts, strict=True)) + "\n"


def by_our_name(model: str) -> str:
    """Our name for a model as OpenAI calls it."""
    return f"openai/{model}"


def sampling(given: Source, say: Callable[[Diagnostic], None]) -> dict[str, Any]:
    """The settings of a model that a spec can say."""
    value = given.value.get("sampling_params")
    value = value if isinstance(value, dict) else {}
    found: dict[str, Any] = {}
    if number(value.get("temperature")) is not None:
        found["temperature"] = value["temperature"]
    keys = ("max_completion_tokens", "max_completions_tokens", "max_tokens")
    tokens = [value[key] for key in keys if type(value.get(key)) is int]
    if tokens:
        found["max_tokens"] = tokens[0]
    is_default = {"top_p": 1, "response_format": {"type": "text"}, "text": {"format": {"type": "text"}}}
    others = [key for key in value if value[key] not in (None, [], is_default.get(key))]
    others = [key for key in others if key not in (*keys, "temperature")]
    if others:
        listed = ", ".join(f"`{key[:60]}`" for key in others[:5])
        say(no_equal(f"a spec cannot say {listed} of a model", given.mark("sampling_params")))
    return found


_KINDS: dict[str, Callable[[_Asked], Graded | None]] = {
    "string_check": _string_check,
    "text_similarity": _text_similarity,
    "label_model": _label_model,
    "score_model": _score_model,
}
_HINTS = {
    "python": FUNCTION,
    "multi": "import its graders one by one, and bound each by `thresholds`",
}
