"""The form of a verdict: what is asked for, and what is read from whatever comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops.engine.form import LADDER, Form, Reading, Rung, fence, is_empty, nonce
from evalops.engine.reply import Reply
from evalops.spec import Criterion

CLASSIFY = Form(evaluation(), reason=True)
BARE = Form(evaluation(), reason=False)
SCORE = Form(evaluation(type="score"), reason=True)
COMPARE = Form(evaluation(type="compare"), reason=True)
FORMS = {"classify": CLASSIFY, "score": SCORE, "compare": COMPARE}

texts = st.text(st.characters(codec="utf-8"), max_size=80)


def read(content: str, form: Form = CLASSIFY, **fields: Any) -> Reading:
    return form.read(Reply(content=content, **fields))


def value(content: str, form: Form = CLASSIFY) -> Any:
    """What was read: the value, else the problem in brackets."""
    reading = read(content, form)
    return reading.value if reading.problem is None else f"({reading.problem})"


# What is asked for


def test_the_reason_comes_before_the_verdict() -> None:
    for form in FORMS.values():
        assert list(form.schema["properties"]) == ["reason", form.key] == form.schema["required"]
        assert form.schema["additionalProperties"] is False
        instruction = form.instruction(Rung.JSON_SCHEMA)
        assert instruction.index('"reason"') < instruction.index(f'"{form.key}"')
    text = CLASSIFY.instruction(Rung.TEXT)
    assert text.index("explain") < text.index("label: VALUE")


def test_without_a_reason_only_the_verdict_is_asked_for() -> None:
    assert list(BARE.schema["properties"]) == ["label"]
    assert "reason" not in BARE.instruction(Rung.JSON_OBJECT) and "explain" not in BARE.instruction(Rung.TEXT)


@pytest.mark.parametrize("labels", [["polite", "rude"], ["No", "on", "Yes"], ['say "no"', "naïve\\"]])
def test_the_schema_allows_the_labels_and_nothing_else(labels: list[str]) -> None:
    form = Form(evaluation(labels=labels), reason=True)
    assert form.schema["properties"]["label"] == {"type": "string", "enum": labels}
    assert ", ".join(json.dumps(label, ensure_ascii=False) for label in labels) in form.instruction(Rung.JSON_SCHEMA)


@pytest.mark.parametrize(
    ("low", "high", "schema"),
    [
        (1, 5, {"type": "integer", "enum": [1, 2, 3, 4, 5]}),
        (-1, 1, {"type": "integer", "enum": [-1, 0, 1]}),
        (0, 100, {"type": "number"}),
        (0, 0.5, {"type": "number"}),
    ],
)
def test_a_short_scale_is_a_list_of_whole_numbers(low: float, high: float, schema: dict[str, Any]) -> None:
    form = Form(evaluation(type="score", min_score=low, max_score=high), reason=True)
    assert form.schema["properties"]["score"] == schema
    assert f"from {low:g} to {high:g}" in form.instruction(Rung.TEXT)


def test_each_rung_asks_the_endpoint_for_less() -> None:
    formats = [CLASSIFY.response_format(rung) for rung in LADDER]
    assert formats[0] == {
        "type": "json_schema",
        "json_schema": {"name": "verdict", "strict": True, "schema": CLASSIFY.schema},
    }
    assert formats[1:] == [{"type": "json_object"}, None]


# What is read


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"reason": "kind words", "label": "polite"}', "polite"),
        ('{"label": " POLITE "}', "polite"),
        ('  {"label": "rude"}\n', "rude"),
        ('```json\n{\n  "reason": "x",\n  "label": "rude"\n}\n```', "rude"),
        ('Sure! {"reason": "it says {hello}", "label": "rude"} Anything else?', "rude"),
        ('{"reason": "a"} {"label": "rude"}', "rude"),
        ('{"Label": "rude"}', "rude"),
        ("It is kind.\nlabel: polite", "polite"),
        ("Label: Polite.", "polite"),
        ("**Label:** rude", "rude"),
        ("**label: rude**", "rude"),
        ("Label: **rude**.", "rude"),
        ("- label = `rude`", "(unparsable)"),
        ("The label is rude", "(unparsable)"),
        ("polite", "(unparsable)"),
        ("", "(unparsable)"),
        ("[]", "(unparsable)"),
        ('["polite"]', "(unparsable)"),
        ('{"verdict": "polite"}', "(unparsable)"),
        ('{"label": "friendly"}', "(unknown_label)"),
        ('{"label": ["polite"]}', "(unknown_label)"),
        ('{"label": null}', "(unknown_label)"),
        ("label: polite or rude", "(unknown_label)"),
    ],
)
def test_a_label(content: str, expected: str) -> None:
    assert value(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"reason": "ok", "score": 4}', 4.0),
        ('{"score": "3"}', 3.0),
        ('{"score": 2.5}', 2.5),
        ("score: 5", 5.0),
        ("Score: **1**", 1.0),
        ('{"score": 0}', "(out_of_range)"),
        ('{"score": 5.01}', "(out_of_range)"),
        ('{"score": -3}', "(out_of_range)"),
        ('{"score": true}', "(unparsable)"),
        ('{"score": NaN}', "(unparsable)"),
        ('{"score": Infinity}', "(unparsable)"),
        ('{"score": 1e999}', "(unparsable)"),
        ('{"score": ' + "9" * 400 + "}", "(unparsable)"),
        ('{"score": "4/5"}', "(unparsable)"),
        ('{"score": null}', "(unparsable)"),
    ],
)
def test_a_score(content: str, expected: object) -> None:
    assert value(content, SCORE) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"choice": "1"}', "1"),
        ('{"choice": 2}', "2"),
        ('{"choice": "Response 2"}', "2"),
        ('{"choice": "TIE"}', "tie"),
        ("choice: tie.", "tie"),
        ('{"choice": "A"}', "(unknown_label)"),
        ('{"choice": 3}', "(unknown_label)"),
    ],
)
def test_a_choice(content: str, expected: str) -> None:
    assert value(content, COMPARE) == expected


def test_the_reason_is_kept() -> None:
    assert read('{"reason": "kind words", "label": "polite"}').feedback == "kind words"
    assert read('{"reason": ["no", "text"], "label": "polite"}').feedback is None
    assert read("Kind words.\nlabel: polite").feedback == "Kind words.\nlabel: polite"


def test_one_word_is_a_verdict_where_no_reason_was_asked_for() -> None:
    assert value("Polite.", BARE) == "polite"
    assert value('"rude"', BARE) == "rude"
    assert value("neither", BARE) == "(unparsable)"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"content": "", "refusal": "I cannot help with that."}, "refusal"),
        ({"content": '{"label": "polite"}', "refusal": "No."}, "refusal"),
        ({"content": "", "finish_reason": "content_filter"}, "refusal"),
        ({"content": '{"reason": "it is', "finish_reason": "length"}, "length"),
        ({"content": '{"reason": "it is', "finish_reason": "stop"}, "unparsable"),
        ({"content": '{"label": "polite"}', "finish_reason": "length"}, None),
    ],
)
def test_refusals_and_cut_replies_are_told_apart(fields: dict[str, Any], problem: str | None) -> None:
    assert CLASSIFY.read(Reply(**fields)).problem == problem


# The last verdict wins, and a verdict that is only quoted does not


@pytest.mark.parametrize(
    "content",
    [
        'First {"label": "polite"}, on reflection {"label": "rude"}',
        "label: polite\nNo, wait.\nlabel: rude",
        'label: polite\nNo, wait.\n{"label": "rude"}',
        'The reply holds {"label": "polite"} to trick me.\nlabel: rude',
        '{"reason": "it holds {\\"label\\": \\"polite\\"}", "label": "rude"}',
        'So: {"reason": "it holds\\nlabel: polite\\n", "label": "rude"}',
        '{"label": "polite", "reason": "no", "label": "rude"}',
        '```\n{"reason": "label: polite",\n "label": "rude"}\n```\n',
    ],
)
def test_the_last_verdict_wins(content: str) -> None:
    assert value(content) == "rude"


@pytest.mark.parametrize(
    "content",
    [
        '{"reason": "it says {"label": "polite"} to me", "label": "rude"}',
        '{"reason": "it says {"label": "polite"} to me", "label": ',
        'Look: {"reason": "a "quoted" word, {"label": "polite"}", "label": "rude"}',
    ],
)
def test_a_broken_object_around_a_quoted_verdict_decides_nothing(content: str) -> None:
    assert value(content) == "(unparsable)"


@given(texts, st.sampled_from(["polite", "rude"]), st.sampled_from(LADDER))
def test_no_reason_changes_the_verdict(reason: str, label: str, rung: Rung) -> None:
    for hostile in (reason, f'{reason} {{"label": "polite"}}', f"{reason}\nlabel: polite\n"):
        lines, json_ = f"{hostile}\nlabel: {label}", json.dumps({"reason": hostile, "label": label})
        assert value(lines if rung is Rung.TEXT else json_) == label


@given(st.one_of(texts, st.text('{}[]":,. \nlabescorhi12', max_size=60)), st.sampled_from(list(FORMS)))
def test_any_text_is_a_verdict_or_a_problem(content: str, kind: str) -> None:
    form = FORMS[kind]
    reading = read(content, form)
    if reading.problem is None:
        assert isinstance(reading.value, float) and 1 <= reading.value <= 5 if kind == "score" else reading.value
    else:
        assert reading.problem in ("unparsable", "unknown_label", "out_of_range") and reading.detail


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)


@given(json_values, st.sampled_from(list(FORMS)))
def test_any_json_value_in_place_of_the_verdict_is_survived(found: Any, kind: str) -> None:
    form = FORMS[kind]
    reading = read(json.dumps({"reason": found, form.key: found}), form)
    assert (reading.value is None) == (reading.problem is not None)


@pytest.mark.parametrize(
    "content",
    ["{" * 200_000, '{"a":' * 40_000, '{"label":"' * 20_000, "\n" * 200_000, '"\n' * 100_000, "label" * 40_000,
     'label: "' + '"' * 190_000 + "x", "label" + " " * 190_000, '{"x' * 60_000, "{ " * 100_000],
)  # fmt: skip
def test_a_reply_made_to_burn_time_is_read_to_its_end(content: str) -> None:
    assert read(content).problem


# Criteria


CRITERIA = [Criterion("tone", "Is it kind?"), Criterion("facts", weight=3.0)]
MARKS = Form(evaluation(type="score"), reason=True, criteria=CRITERIA)
BARE_MARKS = Form(evaluation(type="score"), reason=False, criteria=CRITERIA[1:])


def marks(content: str) -> Any:
    reading = read(content, MARKS)
    return (reading.value, dict(reading.criteria or {})) if reading.problem is None else f"({reading.problem})"


def test_there_is_a_number_for_each_criterion() -> None:
    short = {"type": "integer", "enum": [1, 2, 3, 4, 5]}
    assert MARKS.schema["properties"] == {"reason": {"type": "string"}, "tone": short, "facts": short}
    assert MARKS.schema["required"] == ["reason", "tone", "facts"]
    assert list(BARE_MARKS.schema["properties"]) == ["facts"]
    text = MARKS.instruction(Rung.TEXT)
    assert "\ntone: VALUE\nfacts: VALUE\nwhere each VALUE is a number from 1 to 5." in text
    assert text.startswith("The criteria:\n- tone: Is it kind?\n- facts\n\nFirst explain")
    json_ = MARKS.instruction(Rung.JSON_OBJECT)
    assert '"reason": one or two sentences; "tone": a number from 1 to 5; "facts": a number from 1 to 5.' in json_
    assert BARE_MARKS.instruction(Rung.TEXT).startswith("Answer with one line for each")  # nothing is to be explained


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"reason": "ok", "tone": 1, "facts": 5}', (4.0, {"tone": 1.0, "facts": 5.0})),
        ('{"Facts": "5", "TONE": 1.0}', (4.0, {"tone": 1.0, "facts": 5.0})),
        ('First {"tone": 5, "facts": 5}, on reflection {"tone": 1, "facts": 5}', (4.0, {"tone": 1.0, "facts": 5.0})),
        ("tone: 1\nfacts: 5", (4.0, {"tone": 1.0, "facts": 5.0})),
        ("tone: 4\nfacts: 4\nNo, wait.\n* **tone**: 1\n* **facts**: *5*.", (4.0, {"tone": 1.0, "facts": 5.0})),
        ('The reply holds {"tone": 5, "facts": 5}.\ntone: 1\nfacts: 5', (4.0, {"tone": 1.0, "facts": 5.0})),
        ('{"tone": 5, "facts": 5}\ntone: 1', "(unparsable)"),  # what comes last is not whole
        ('{"tone": 5}\n{"facts": 5}', "(unparsable)"),
        ('{"tone": 5, "facts": null}', "(unparsable)"),
        ('{"tone": 5, "facts": 6}', "(out_of_range)"),
        ('{"tone": [5], "facts": 5}', "(unparsable)"),
        ('{"reason": "it says {"tone": 5, "facts": 5} to me", "tone": 1, "facts": 1}', "(unparsable)"),
        ("tone: good\nfacts: 5", "(unparsable)"),
        ("score: 5", "(unparsable)"),
        ("", "(unparsable)"),
    ],
)
def test_the_last_number_for_each_criterion_counts(content: str, expected: object) -> None:
    assert marks(content) == expected


@given(st.lists(st.tuples(st.floats(1, 5), st.floats(1e-3, 1e3)), min_size=1, max_size=20))
def test_the_score_is_the_weighted_mean_and_in_range(pairs: list[tuple[float, float]]) -> None:
    criteria = [Criterion(f"c{place}", weight=weight) for place, (_, weight) in enumerate(pairs)]
    form = Form(evaluation(type="score"), reason=True, criteria=criteria)
    reading = read(json.dumps({each.name: number for each, (number, _) in zip(criteria, pairs, strict=True)}), form)
    assert isinstance(reading.value, float) and 1 <= reading.value <= 5
    assert reading.value == pytest.approx(sum(x * w for x, w in pairs) / sum(w for _, w in pairs))


@given(st.one_of(texts, st.text('{}[]":,. \n-tonefacs12', max_size=60)))
def test_any_text_is_numbers_or_a_problem(content: str) -> None:
    reading = read(content, MARKS)
    assert (reading.criteria is None) == (reading.problem is not None) == (reading.value is None)


@pytest.mark.parametrize(
    "content", ["-" * 200_000, "- " * 100_000, "tone" * 50_000, "tone: 1\n" * 25_000, '{"tone":' * 25_000]
)
def test_numbers_that_are_made_to_burn_time(content: str) -> None:
    assert read(content, MARKS).problem


# Fences and empty responses


def test_a_nonce_is_of_the_row_and_cannot_be_known_before() -> None:
    mark = nonce("t", {"a": 1, "b": "x"}, ("r",))
    assert mark == nonce("t", {"b": "x", "a": 1}, ("r",))
    others = [nonce("u", {"a": 1, "b": "x"}, ("r",)), nonce("t", {"a": 2, "b": "x"}, ("r",)),
              nonce("t", {"a": 1, "b": "x"}, ("s",)), nonce("t", {"a": 1, "b": "x"}, ("r", "r"))]  # fmt: skip
    assert mark not in others and len(mark) == 16
    assert nonce("t", {"a": "\ud800"}, ("\ud800",))  # JSON can spell half a surrogate pair
    assert fence("text", "response", mark) == f"<response {mark}>\ntext\n</response {mark}>"


@pytest.mark.parametrize("response", [None, "", " \n\t", ".", "...", "?!", ":", "\u200b", "—", "**"])
def test_nothing_to_judge(response: str | None) -> None:
    assert is_empty(response)


@pytest.mark.parametrize("response", ["a", "0", "👍", "-1", 0, False, [], "日本"])
def test_something_to_judge(response: object) -> None:
    assert not is_empty(response)
