"""Evaluators: a response and the true answer -> a number from 0 to 1, or the reason why there is none. No judge.

Each kind is a function of two texts; what a spec may say of it is in `FIELDS`. Where a response cannot be read for
certain there is no number: a guess would look like a result.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields as fields_of
from fractions import Fraction
from typing import Any, NamedTuple

from evalops import schema
from evalops.errors import Diagnostic, Mark, Severity
from evalops.evaluators import answer, overlap, pattern, shape
from evalops.evaluators.answer import Found, Number
from evalops.evaluators.pattern import Pattern, TooSlow
from evalops.spec import Column, Evaluation, Evaluator

SLOW = 3  # rows in which a pattern came to no end, before it is tried no more

# What a kind can be told beside `extract`; what must be said comes first, `None` where nothing must.
FIELDS: dict[str, tuple[str | None, ...]] = {
    "exact": (None, "strip"),
    "exact_casefold": (None, "strip"),
    "contains": (None, "strip", "ignore_case"),
    "regex": ("pattern", "ignore_case"),
    "numeric": (None, "tolerance", "relative"),
    "choice": (None,),
    "json_schema": ("schema",),
    "bleu": (None,),
    "rouge": (None, "variant"),
    "python": ("function",),
}
WITHOUT_GOLD = frozenset({"regex", "json_schema", "python"})


class Outcome(NamedTuple):
    """A number from 0 to 1, or the reason why there is none; `feedback` says shortly why."""

    value: float | None
    feedback: str = ""
    reason: str | None = None
    is_error: bool = False  # it could not be found out, which says nothing of the response


Evaluate = Callable[[Any, Any], Outcome]  # a response and the true answer, as the cells of a dataset


def build(evaluator: Evaluator) -> Evaluate:
    """What compares a response with the true answer, for any kind but `python`."""
    compare = _comparison(evaluator)
    read = reader(evaluator)
    needs_gold = evaluator.kind not in WITHOUT_GOLD
    slow = 0

    def evaluate(response: Any, gold: Any) -> Outcome:
        nonlocal slow
        if answer.is_blank(response):
            return Outcome(None, "there is nothing to evaluate", "empty_response")
        if needs_gold and answer.is_blank(gold):
            return Outcome(None, "the row has no true answer", "no_gold")
        try:
            if slow >= SLOW:
                raise TooSlow
            found = read(response)
            return _without(found) if found.reason else compare(found.text, answer.text_of(gold))
        except TooSlow:
            slow += 1
            return Outcome(None, "a pattern came to no end on it: make it simpler", "pattern_timeout", is_error=True)
        except shape.TooMuch:
            return Outcome(None, "the schema refers to itself too often", "schema_too_deep", is_error=True)

    return evaluate


def reader(evaluator: Evaluator) -> Callable[[Any], Found]:
    """What takes the part of a response that is compared. Raises `TooSlow`."""
    rule: str | Pattern = evaluator.extract or ("last_number" if evaluator.kind == "numeric" else "all")
    if rule not in answer.WORDS:
        rule = Pattern(str(rule))
    return lambda response: answer.extract(answer.text_of(response), rule)


def is_code(function: str, path: str) -> bool:
    """Whether a file of a project would be code of `module:function`: the module, or a part of the package it is in."""
    module = function.partition(":")[0].replace(".", "/")
    return path.endswith(".py") and (path == f"{module}.py" or path.startswith(f"{module.partition('/')[0]}/"))


def code(function: str, files: Iterable[str]) -> tuple[str, ...]:
    """Which of a project's `files` are the code of `module:function`; none where the module is not the project's own.

    What that code imports from elsewhere in the project is not known: finding out would take running it.
    """
    module = function.partition(":")[0].replace(".", "/")
    found = tuple(sorted(path for path in files if is_code(function, path)))
    return found if {f"{module}.py", f"{module}/__init__.py"}.intersection(found) else ()


def outcome(found: Any) -> Outcome:
    """What a Python function returned: a boolean, a number, or `{"value": .., "reason": ..}`; None is no verdict."""
    reason = ""
    if isinstance(found, dict):
        reason, found = str(found.get("reason") or ""), found.get("value")
    if found is None:
        return Outcome(None, reason or "the function gave no value", "no_value")
    if isinstance(found, str | bytes):
        return Outcome(None, f"the function gave text, {_shown(str(found))}, and no number", "unusable_value")
    try:
        value = float(found)
    except (TypeError, ValueError, OverflowError):
        return Outcome(None, f"the function gave a value of type {type(found).__name__}", "unusable_value")
    if not 0.0 <= value <= 1.0:  # not a number is neither
        return Outcome(None, f"the function gave {value:g}, which is not between 0 and 1", "out_of_range")
    return Outcome(value, reason)


# --- the kinds ---

Compare = Callable[[str, str], Outcome]


def _comparison(evaluator: Evaluator) -> Compare:
    match evaluator.kind:
        case "exact" | "exact_casefold":
            fold = str.casefold if evaluator.kind == "exact_casefold" else str
            strip = str.strip if evaluator.strip else str
            return lambda text, gold: _is(text, gold, same=fold(strip(text)) == fold(strip(gold)))
        case "contains":
            return lambda text, gold: _contains(evaluator, text, gold)
        case "regex":
            wanted = Pattern(evaluator.pattern or "", ignore_case=evaluator.ignore_case)
            return lambda text, _: _finds(wanted, text)
        case "numeric":
            return lambda text, gold: _numeric(evaluator, text, gold)
        case "choice":
            return _choice
        case "json_schema":
            known = shape.Shape(evaluator.schema)
            return lambda text, _: _fits(known, text)
        case "bleu" | "rouge":
            return lambda text, gold: _overlap(evaluator, text, gold)
    raise AssertionError(f"`{evaluator.kind}` is no comparison")


def _contains(evaluator: Evaluator, text: str, gold: str) -> Outcome:
    wanted = gold.strip() if evaluator.strip else gold
    has = wanted.casefold() in text.casefold() if evaluator.ignore_case else wanted in text
    return Outcome(float(has), f"it {'has' if has else 'lacks'} {_shown(wanted)}")


def _finds(wanted: Pattern, text: str) -> Outcome:
    found = wanted.search(text[-answer.SEARCHED :])
    return Outcome(0.0, "the pattern finds nothing") if found is None else Outcome(1.0, f"found {_shown(found)}")


def _numeric(evaluator: Evaluator, text: str, gold: str) -> Outcome:
    wanted, got = answer.one_number(gold), answer.one_number(text)
    if not isinstance(wanted, Number):
        return Outcome(None, f"of the true answer {_shown(gold)}: {wanted.why}", "bad_gold")
    if not isinstance(got, Number):
        return _without(got)
    allowed = Fraction(str(evaluator.tolerance)) * (abs(wanted.value) if evaluator.relative else 1)
    return _is(got.text, wanted.text, same=abs(got.value - wanted.value) <= allowed)


def _choice(text: str, gold: str) -> Outcome:
    wanted, got = answer.choice(gold), answer.choice(text)
    if wanted.reason:
        return Outcome(None, f"the true answer {_shown(gold)} is no letter of a choice", "bad_gold")
    return _without(got) if got.reason else _is(got.text, wanted.text, same=got.text == wanted.text)


def _fits(known: shape.Shape, text: str) -> Outcome:
    if len(text) > shape.LARGEST:
        return Outcome(None, f"{len(text):,} characters of JSON are more than {shape.LARGEST:,}", "too_long")
    value, problem = shape.parse(text)
    problem = problem or known.violation(value)
    return Outcome(0.0, problem[:200]) if problem else Outcome(1.0, "it is as the schema says")


def _overlap(evaluator: Evaluator, text: str, gold: str) -> Outcome:
    refusal = overlap.refusal(evaluator.kind, text, gold)
    if refusal:
        return Outcome(None, refusal[1], refusal[0])
    is_bleu = evaluator.kind == "bleu"
    value = overlap.bleu(text, gold) if is_bleu else overlap.rouge(text, gold, evaluator.variant)
    return Outcome(value, f"{'BLEU' if is_bleu else evaluator.variant} {value:.3f}")


def _is(got: str, wanted: str, *, same: bool) -> Outcome:
    feedback = f"got {_shown(got)}" + ("" if same else f", wanted {_shown(wanted)}")
    return Outcome(float(same), feedback)


def _without(found: Found) -> Outcome:
    return Outcome(None, found.why, found.reason)


def _shown(text: str) -> str:
    """A text as people see it, in one line; quoted where that tells where it begins and ends."""
    text = text.strip() if len(text) < 200 else text[:200].strip()
    text = text if len(text) <= 60 else f"{text[:59]}…"
    return text if text and text.isprintable() and " " not in text else json.dumps(text, ensure_ascii=False)


# --- what is wrong with an evaluator, known before a row is read ---


def check(evaluation: Evaluation) -> list[Diagnostic]:
    """What a schema cannot say of `evaluator`. Nothing is imported, and no pattern runs."""
    evaluator = evaluation.evaluator
    if evaluator is None:
        return []
    return [
        *_fields(evaluation, evaluator),
        *_gold(evaluation, evaluator),
        *_patterns(evaluation, evaluator),
        *_schema(evaluation, evaluator),
        *_function(evaluation, evaluator),
    ]


def _fields(evaluation: Evaluation, evaluator: Evaluator) -> Iterator[Diagnostic]:
    needed, *rest = FIELDS[evaluator.kind]
    plain = Evaluator(kind=evaluator.kind)
    if needed and getattr(evaluator, needed) is None:
        message = f"`evaluator` of kind `{evaluator.kind}` has no `{needed}`"
        yield _wrong(message, evaluation.places.mark("evaluator"), f"add `{needed}`")
    for each in fields_of(Evaluator):
        is_set = getattr(evaluator, each.name) != getattr(plain, each.name)
        if is_set and each.name not in ("kind", "extract", needed, *rest):
            owners = ", ".join(f"`{kind}`" for kind, known in FIELDS.items() if each.name in known)
            message = f"`evaluator.{each.name}` does not belong to the kind `{evaluator.kind}`"
            yield _wrong(message, evaluation.places.mark("evaluator", each.name), f"it is for {owners}")
    if evaluator.relative and not evaluator.tolerance:
        message = "`relative` says what `tolerance` is a share of, and there is none"
        yield _wrong(message, evaluation.places.mark("evaluator", "relative"), "add `tolerance`, like 0.01")


def _gold(evaluation: Evaluation, evaluator: Evaluator) -> Iterator[Diagnostic]:
    if evaluation.gold is None and evaluator.kind not in WITHOUT_GOLD:
        yield Diagnostic(
            code="spec/needs-gold",
            message=f"an evaluator of kind `{evaluator.kind}` needs the true answers",
            mark=evaluation.places.mark("evaluator"),
            hint="name their column: `gold: COLUMN`",
        )
    for candidate in evaluation.candidates:
        if isinstance(candidate, Column) and candidate == evaluation.gold:
            message = f"`{candidate}` would be compared with itself: `gold` and `model_to_evaluate` are one column"
            yield _wrong(message, evaluation.places.mark("gold"), None)


def _patterns(evaluation: Evaluation, evaluator: Evaluator) -> Iterator[Diagnostic]:
    for name in ("pattern", "extract"):
        text, mark = getattr(evaluator, name), evaluation.places.mark("evaluator", name)
        if text is None or (name == "extract" and text in answer.WORDS):
            continue
        problem = pattern.problem(text)
        if problem:
            hint = "a regular expression as Python writes it"
            yield _wrong(f"`evaluator.{name}` is no usable pattern: {problem}", mark, hint)
        elif name == "extract" and text.isidentifier() and (meant := schema.nearest(text, answer.WORDS)):
            message = f"`{text}` is taken for a regular expression, which finds that very word"
            yield Diagnostic(code="spec/evaluator", message=message, mark=mark, hint=meant, severity=Severity.WARNING)


def _schema(evaluation: Evaluation, evaluator: Evaluator) -> Iterator[Diagnostic]:
    if evaluator.schema is None or evaluator.kind != "json_schema":
        return
    for route, problem in shape.problems(evaluator.schema):
        mark = evaluation.places.mark("evaluator", "schema", *route)
        where = "".join(f".{part}" for part in route)
        yield _wrong(f"`evaluator.schema{where}` is no usable JSON Schema: {problem}", mark, None)


def _function(evaluation: Evaluation, evaluator: Evaluator) -> Iterator[Diagnostic]:
    if evaluator.function is None or evaluator.kind != "python":
        return
    top = evaluator.function.partition(":")[0].partition(".")[0]
    if top in sys.stdlib_module_names or top in ("evalops", "evalops_cli"):
        message = f"`{evaluator.function}` would be looked for in `{top}`, which is not yours"
        yield _wrong(message, evaluation.places.mark("evaluator", "function"), "give your module another name")


def _wrong(message: str, mark: Mark, hint: str | None) -> Diagnostic:
    return Diagnostic(code="spec/evaluator", message=message, mark=mark, hint=hint)
