"""Each kind of evaluator: what it gives for a response and a true answer, and what a spec may say of it."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from evaluations import evaluation, settings
from hypothesis import given
from hypothesis import strategies as st

from evalops.errors import Severity
from evalops.evaluators import kinds
from evalops.evaluators.kinds import Outcome
from evalops.spec import Evaluation, Evaluator


def judged(response: Any, gold: Any, kind: str, **fields: Any) -> Outcome:
    return kinds.build(Evaluator(kind=kind, **fields))(response, gold)


def value(response: Any, gold: Any, kind: str, **fields: Any) -> float | str | None:
    """The number, or the reason why there is none."""
    found = judged(response, gold, kind, **fields)
    return found.reason if found.value is None else found.value


@pytest.mark.parametrize(
    ("response", "gold", "fields", "expected"),
    [
        ("Paris", "Paris", {"kind": "exact"}, 1.0),
        (" Paris\n", "Paris", {"kind": "exact"}, 1.0),
        (" Paris\n", "Paris", {"kind": "exact", "strip": False}, 0.0),
        ("paris", "Paris", {"kind": "exact"}, 0.0),
        ("paris", "Paris", {"kind": "exact_casefold"}, 1.0),
        ("STRASSE", "Straße", {"kind": "exact_casefold"}, 1.0),
        (18, "18", {"kind": "exact"}, 1.0),
        (True, True, {"kind": "exact"}, 1.0),
        ({"a": 1}, '{"a": 1}', {"kind": "exact"}, 1.0),
        ("A: 18", "18", {"kind": "exact", "extract": "last_number"}, 1.0),
        ("First A.\nB", "B", {"kind": "exact", "extract": "last_line"}, 1.0),
        ("The answer is: Paris.", "Paris", {"kind": "exact", "extract": r"answer is:? (\w+)"}, 1.0),
        ("Paris", "Paris", {"kind": "exact", "extract": r"answer is:? (\w+)"}, "no_answer"),
        ("It is Paris.", "Paris", {"kind": "contains"}, 1.0),
        ("It is Paris.", " Paris ", {"kind": "contains"}, 1.0),
        ("It is Paris.", " Paris ", {"kind": "contains", "strip": False}, 0.0),
        ("It is paris.", "Paris", {"kind": "contains"}, 0.0),
        ("It is paris.", "Paris", {"kind": "contains", "ignore_case": True}, 1.0),
        ("order 1234", None, {"kind": "regex", "pattern": r"\b\d{4}\b"}, 1.0),
        ("order 12345", None, {"kind": "regex", "pattern": r"\b\d{4}\b"}, 0.0),
        ("SORRY", None, {"kind": "regex", "pattern": "sorry", "ignore_case": True}, 1.0),
        ("(2) so (B)", "B", {"kind": "choice"}, 1.0),
        ("b", "(B)", {"kind": "choice"}, 1.0),
        ("A or B", "B", {"kind": "choice"}, "ambiguous_answer"),
        ("A", "Paris, of course", {"kind": "choice"}, "bad_gold"),
        ('{"a": 1}', None, {"kind": "json_schema", "schema": {"required": ["a"]}}, 1.0),
        ({"a": 1}, None, {"kind": "json_schema", "schema": {"required": ["a"]}}, 1.0),
        ("[]", None, {"kind": "json_schema", "schema": {"type": "object"}}, 0.0),
        ("none", None, {"kind": "json_schema", "schema": {"type": "object"}}, 0.0),
        ("x" * 60_000, None, {"kind": "json_schema", "schema": True}, "too_long"),
        ("[" * 40_000, None, {"kind": "json_schema", "schema": True}, 0.0),
    ],
)  # fmt: skip
def test_a_response_and_its_number(response: Any, gold: Any, fields: dict[str, Any], expected: float | str) -> None:
    assert value(response, gold, **fields) == expected


@pytest.mark.parametrize(
    ("response", "gold", "fields", "expected"),
    [
        ("The total is $1,234.50.", "1234.5", {}, 1.0),
        ("3 + 4 = 7", 7, {}, 1.0),
        ("3 + 4 = 7", 7, {"extract": "all"}, "ambiguous_answer"),
        ("7 apples", 7, {"extract": "all"}, 1.0),
        ("7, then 8", 7, {"extract": r"\d+(?=, then)"}, 1.0),
        ("12", "13", {}, 0.0),
        ("0.3", "0.2", {"tolerance": 0.1}, 1.0),
        ("1.1", "1.0", {"tolerance": 0.1}, 1.0),
        ("1.11", "1.0", {"tolerance": 0.1}, 0.0),
        ("101", "100", {"tolerance": 0.01, "relative": True}, 1.0),
        ("-101", "-100", {"tolerance": 0.01, "relative": True}, 1.0),
        ("102", "100", {"tolerance": 0.01, "relative": True}, 0.0),
        ("1", "0", {"tolerance": 0.5, "relative": True}, 0.0),
        ("1/3", "0.3333", {"tolerance": 1e-4}, 1.0),
        ("no idea", "13", {}, "no_answer"),
        ("about 3,14", "3.14", {}, "ambiguous_answer"),
        ("12", "a dozen", {}, "bad_gold"),
        ("12", "12 or 13", {}, "bad_gold"),
        ("1e999", "1e-999", {}, 0.0),
    ],
)  # fmt: skip
def test_numbers_within_a_tolerance(response: str, gold: Any, fields: dict[str, Any], expected: float | str) -> None:
    assert value(response, gold, "numeric", **fields) == expected


@given(st.decimals(-(10**6), 10**6, places=3), st.decimals(-(10**6), 10**6, places=3), st.decimals(0, 10, places=2))
def test_a_tolerance_is_exact(got: Decimal, wanted: Decimal, tolerance: Decimal) -> None:
    close = abs(Fraction(got) - Fraction(wanted)) <= Fraction(tolerance)
    assert value(f"= {got}", str(wanted), "numeric", tolerance=float(tolerance)) == float(close)


def test_overlap_with_the_answer() -> None:
    pytest.importorskip("sacrebleu")
    assert judged("the cat sat", "the cat sat", "bleu") == Outcome(1.0, "BLEU 1.000")
    assert value("dog", "the cat sat", "bleu") == 0.0
    assert value("the cat", "日本", "rouge") == "bad_gold"
    assert value("the cat " * 1_000, "the cat " * 1_000, "rouge") == "too_long"


@pytest.mark.parametrize("kind", ["exact", "exact_casefold", "contains", "numeric", "choice", "bleu", "rouge"])
def test_what_is_not_there_is_not_compared(kind: str) -> None:
    for response in (None, "", " \n"):
        assert value(response, "1", kind) == "empty_response"
    for gold in (None, "", " "):
        assert value("1", gold, kind) == "no_gold"


def test_feedback_says_why() -> None:
    assert judged("12", "13", "numeric").feedback == "got 12, wanted 13"
    assert judged("A: 13", "13", "numeric").feedback == "got 13"
    assert judged("It is Rome", "Paris, France", "exact").feedback == 'got "It is Rome", wanted "Paris, France"'
    assert judged("x\x1b[2J" * 99, "a\nb", "exact").feedback.isprintable()
    assert len(judged("x" * 10_000, "y" * 10_000, "exact").feedback) < 200
    assert judged("in Rome", "Paris", "contains").feedback == "it lacks Paris"
    assert (
        judged("[1]", None, "json_schema", schema={"items": {"type": "string"}}).feedback
        == "[0]: 1 is not of type 'string'"
    )


def test_a_pattern_without_end_is_given_up() -> None:
    evaluate = kinds.build(Evaluator(kind="regex", pattern="(a+)+$"))
    hostile = "a" * 5_000 + "!"
    found = [evaluate(hostile, None) for _ in range(kinds.SLOW)]
    assert {(each.value, each.reason, each.is_error) for each in found} == {(None, "pattern_timeout", True)}
    assert evaluate("aaa", None).reason == "pattern_timeout", "one that takes a minute a row is tried no more"


def test_an_extract_without_end_is_no_verdict() -> None:
    found = judged("a" * 5_000 + "!", "a", "exact", extract="(a+)+$")
    assert (found.value, found.reason, found.is_error) == (None, "pattern_timeout", True)


# --- what a Python function returns ---


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        (True, Outcome(1.0)),
        (False, Outcome(0.0)),
        (0.25, Outcome(0.25)),
        (1, Outcome(1.0)),
        (Decimal("0.5"), Outcome(0.5)),
        ({"value": 0.5, "reason": "half"}, Outcome(0.5, "half")),
        ({"value": None, "reason": "cannot tell"}, Outcome(None, "cannot tell", "no_value")),
        (None, Outcome(None, "the function gave no value", "no_value")),
        ({}, Outcome(None, "the function gave no value", "no_value")),
        (1.5, Outcome(None, "the function gave 1.5, which is not between 0 and 1", "out_of_range")),
        (-0.1, Outcome(None, "the function gave -0.1, which is not between 0 and 1", "out_of_range")),
        (float("nan"), Outcome(None, "the function gave nan, which is not between 0 and 1", "out_of_range")),
        (float("inf"), Outcome(None, "the function gave inf, which is not between 0 and 1", "out_of_range")),
        (10**400, Outcome(None, "the function gave a value of type int", "unusable_value")),
        ("1", Outcome(None, "the function gave text, 1, and no number", "unusable_value")),
        ([1], Outcome(None, "the function gave a value of type list", "unusable_value")),
    ],
)
def test_what_a_function_gives(given_: Any, expected: Outcome) -> None:
    assert kinds.outcome(given_) == expected


@pytest.mark.parametrize(
    ("function", "files", "code"),
    [
        ("graders:f", ["graders.py", "other.py", "a/graders.py"], ["graders.py"]),
        ("pkg.units:f", ["pkg/units.py", "pkg/more.py", "pkg/data.json", "units.py"], ["pkg/more.py", "pkg/units.py"]),
        ("pkg:f", ["pkg/__init__.py", "pkg/deep/more.py"], ["pkg/__init__.py", "pkg/deep/more.py"]),
        ("pkg.units:f", ["pkg/other.py"], []),
        ("scipy.stats:f", ["graders.py"], []),
    ],
)
def test_the_code_of_a_function(function: str, files: list[str], code: list[str]) -> None:
    assert list(kinds.code(function, files)) == code


# --- what a spec may say ---


def custom(evaluator: Any, **fields: Any) -> Evaluation:
    known = settings(functions={"units": "graders:units", "clock": "time:time"})
    fields = {"model_to_evaluate": "response", "gold": "gold", **fields}
    return evaluation(type="custom", evaluator=evaluator, settings=known, **fields)


@pytest.mark.parametrize(
    "evaluator",
    ["exact", "choice", "numeric", {"kind": "regex", "pattern": "a"}, {"kind": "json_schema", "schema": {}}, {"kind": "json_schema", "schema": False},
     {"kind": "python", "function": "units"}, {"kind": "python", "function": "units", "extract": "last_line"}, {"kind": "rouge", "variant": "rouge1"},
     {"kind": "numeric", "tolerance": 0.1, "relative": True, "extract": "all"}, {"kind": "contains", "ignore_case": True, "strip": False}],
)  # fmt: skip
def test_evaluators_that_are_fine(evaluator: Any) -> None:
    assert kinds.check(custom(evaluator)) == []


@pytest.mark.parametrize(
    ("evaluator", "message"),
    [
        ({"kind": "regex"}, "`evaluator` of kind `regex` has no `pattern`"),
        ({"kind": "json_schema"}, "`evaluator` of kind `json_schema` has no `schema`"),
        ({"kind": "python"}, "`evaluator` of kind `python` has no `function`"),
        ({"kind": "exact", "pattern": "a"}, "`evaluator.pattern` does not belong to the kind `exact`"),
        ({"kind": "exact", "ignore_case": True}, "`evaluator.ignore_case` does not belong to the kind `exact`"),
        ({"kind": "exact", "tolerance": 0.1}, "`evaluator.tolerance` does not belong to the kind `exact`"),
        ({"kind": "numeric", "strip": False}, "`evaluator.strip` does not belong to the kind `numeric`"),
        ({"kind": "bleu", "variant": "rouge1"}, "`evaluator.variant` does not belong to the kind `bleu`"),
        ({"kind": "exact", "function": "units"}, "`evaluator.function` does not belong to the kind `exact`"),
        ({"kind": "exact", "schema": {}}, "`evaluator.schema` does not belong to the kind `exact`"),
        ({"kind": "numeric", "relative": True}, "`relative` says what `tolerance` is a share of, and there is none"),
        (
            {"kind": "regex", "pattern": "("},
            "`evaluator.pattern` is no usable pattern: missing ), unterminated subpattern at position 0",
        ),
        (
            {"kind": "exact", "extract": "(?R)"},
            "`evaluator.extract` is no usable pattern: unknown extension ?R at position 1",
        ),
        (
            {"kind": "json_schema", "schema": {"type": "x"}},
            "`evaluator.schema.type` is no usable JSON Schema: 'x' is not valid",
        ),
        ({"kind": "python", "function": "clock"}, "`time:time` would be looked for in `time`, which is not yours"),
    ],
)
def test_what_is_wrong_with_an_evaluator(evaluator: Any, message: str) -> None:
    [problem] = kinds.check(custom(evaluator))
    assert problem.message.startswith(message)
    assert problem.is_error and problem.mark and problem.mark.line


def test_a_field_that_belongs_elsewhere_says_where() -> None:
    [problem] = kinds.check(custom({"kind": "exact", "ignore_case": True}))
    assert problem.hint == "it is for `contains`, `regex`"


@pytest.mark.parametrize("kind", sorted(set(kinds.FIELDS) - {"python"}))
def test_gold_is_needed_where_there_is_something_to_compare(kind: str) -> None:
    needed = {"regex": {"pattern": "a"}, "json_schema": {"schema": {}}}.get(kind, {})
    problems = kinds.check(custom({"kind": kind, **needed}, gold=None))
    assert [each.code for each in problems] == ([] if kind in kinds.WITHOUT_GOLD else ["spec/needs-gold"])


def test_a_column_is_not_compared_with_itself() -> None:
    [problem] = kinds.check(custom("exact", gold="response"))
    assert "compared with itself" in problem.message


def test_a_word_that_looks_like_another_is_asked_about() -> None:
    [problem] = kinds.check(custom({"kind": "exact", "extract": "last_numbr"}))
    assert (problem.severity, problem.hint) == (Severity.WARNING, "did you mean `last_number`?")
    assert kinds.check(custom({"kind": "exact", "extract": "verdict"})) == []


def test_other_types_have_no_evaluator() -> None:
    assert kinds.check(evaluation()) == []
