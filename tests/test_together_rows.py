"""Rows to Together and back: results come in another order, without ids, and rows may be equal."""

from __future__ import annotations

import io
import json
import random
import tracemalloc
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.providers import together_rows
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation

COLUMNS = ("question", "response")
MODEL = {"model": "m", "system_template": "s", "input_template": "{{ question }}"}


def keyed(sources: Iterable[dict[str, Any]]) -> Iterator[tuple[str, Row]]:
    return ((f"k{number}", Row(number, number + 1, source)) for number, source in enumerate(sources))


def lines(results: Iterable[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    return together_rows.read(io.BytesIO(b"".join(json.dumps(each).encode() + b"\n" for each in results)))


def joined(
    sources: Iterable[dict[str, Any]],
    results: Iterable[dict[str, Any]],
    ours: Evaluation | None = None,
    columns: tuple[str, ...] = COLUMNS,
) -> list[tuple[Verdict, dict[str, Any]]]:
    return list(together_rows.verdicts(ours or evaluation(), columns, keyed(sources), lines(results)))


def one(ours: Evaluation, **result: Any) -> tuple[Verdict, dict[str, Any]]:
    """The verdict in one result."""
    (found,) = joined(
        [{"question": "q"}], [{"question": "q", "evaluation_successful": True} | result], ours, ("question",)
    )
    return found


def problems(sources: Iterable[dict[str, Any]], results: Iterable[dict[str, Any]]) -> list[str]:
    with pytest.raises(EvalopsError) as caught:
        joined(sources, results)
    return [each.message for each in caught.value.diagnostics]


def row(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "question": f"q{number}", "response": f"r{number}", **more}


def result(number: int, **more: Any) -> dict[str, Any]:
    source = {key: value for key, value in row(number).items() if key != "id"}
    return source | {"evaluation_successful": True, "label": "polite", "feedback": f"f{number}"} | more


# --- up ---


def test_exactly_the_columns_in_use_are_uploaded() -> None:
    sources = [{"z": 1.5, "id": 7, "a": "é\u2028", "b": {"y": 1, "x": [None]}}, {"a": "", "b": None, "z": True}]
    got = list(together_rows.upload(keyed(sources), ("z", "b", "a")))
    assert got == [
        '{"a":"é\u2028","b":{"x":[null],"y":1},"z":1.5}\n'.encode(),
        b'{"a":"","b":null,"z":true}\n',
    ]


def test_half_a_character_is_uploaded_as_utf8() -> None:
    (line,) = together_rows.upload(keyed([{"a": "\ud800é"}]), ("a",))
    assert json.loads(line.decode()) == {"a": "\ud800é"}


def test_a_row_without_a_column_is_named() -> None:
    with pytest.raises(EvalopsError, match="row 2 has no field `b`"):
        list(together_rows.upload(keyed([{"a": 1, "b": 2}, {"a": 1}]), ("a", "b")))


def test_rows_are_uploaded_one_at_a_time() -> None:
    endless = ((f"k{n}", Row(n, n, {"a": n})) for n in iter(int, 1))
    assert next(together_rows.upload(endless, ("a",))) == b'{"a":0}\n'


# --- and back ---

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(-3, 3), st.sampled_from(["", "a", "é"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(st.sampled_from("xy"), inner, max_size=2)),
    max_leaves=3,
)


@given(
    sources=st.lists(st.fixed_dictionaries({"question": values, "response": values}), min_size=1, max_size=12),
    chance=st.randoms(use_true_random=False),
)
def test_a_result_finds_its_row_in_any_order(sources: list[dict[str, Any]], chance: random.Random) -> None:
    """Which of equal rows a result belongs to cannot be told, so the verdict is a function of the content."""

    def said(source: dict[str, Any]) -> str:
        plain = {key: together_rows._plain(value) for key, value in source.items() if value is not None}
        return json.dumps(plain, sort_keys=True)

    results = [source | {"label": "polite", "feedback": said(source)} for source in sources]
    chance.shuffle(results)
    texts = [
        json.loads(json.dumps(each), parse_float=lambda t: int(float(t)) if float(t) % 1 == 0 else float(t))
        for each in results
    ]
    got = joined([{"id": number, **source} for number, source in enumerate(sources)], texts)
    assert [(verdict.key, verdict.feedback) for verdict, _ in got] == [
        (f"k{number}", said(source)) for number, source in enumerate(sources)
    ]


def test_of_equal_rows_the_first_result_is_the_firsts() -> None:
    same = {"question": "q", "response": "r"}
    sources = [{"id": 1, **same}, {"id": 2, **row(2)}, {"id": 3, **same}]
    results = [same | {"label": "rude"}, result(2), same | {"label": "polite"}]
    assert [verdict.value for verdict, _ in joined(sources, results)] == ["rude", "polite", "polite"]


@pytest.mark.parametrize(("theirs", "ours"), [(1, 1.0), (1.0, 1), (-0.0, 0), ([2.0], [2]), ({"a": 3}, {"a": 3.0})])
def test_a_whole_number_is_one_number(theirs: Any, ours: Any) -> None:
    assert len(joined([{"question": ours}], [{"question": theirs, "label": "rude"}], columns=("question",))) == 1


@pytest.mark.parametrize(("theirs", "ours"), [(1, True), (0, False), ("1", 1), (2**53 + 1, 2**53), (1e300, 1e299)])
def test_other_values_are_other_rows(theirs: Any, ours: Any) -> None:
    with pytest.raises(EvalopsError):
        joined([{"question": ours}], [{"question": theirs, "label": "rude"}], columns=("question",))


def test_an_empty_field_may_come_back_as_none() -> None:
    assert joined([{"question": None}], [{"label": "rude"}], columns=("question",))


# --- counts that do not add up ---


def test_rows_without_a_result_are_named() -> None:
    sources = [row(number) for number in range(10)]
    assert problems(sources, [result(n) for n in range(10) if n not in (3, 7)]) == [
        "of 10 rows, 2 have no result: rows 4, 8"
    ]
    assert problems(sources, [result(9)]) == ["of 10 rows, 9 have no result: rows 1, 2, 3, 4, 5 and 4 more"]
    assert problems(sources[:1], []) == ["of 1 rows, 1 have no result: row 1"]


def test_results_without_a_row_are_named() -> None:
    assert problems([row(1)], [result(5), result(1), result(1)]) == [
        "of 3 results, 2 belong to no row: lines 1, 3 of the result file"
    ]


def test_a_foreign_result_in_the_place_of_a_row() -> None:
    assert problems([row(1), row(2)], [result(1), result(3)]) == [
        "of 2 rows, 1 have no result: row 2",
        "of 2 results, 1 belong to no row: line 2 of the result file",
    ]


@pytest.mark.parametrize("line", [b"[1]", b"{", b"\xff", b'"x"', b"[" * 100_000])
def test_a_line_that_is_no_row(line: bytes) -> None:
    with pytest.raises(EvalopsError, match="line 3 of the job's result file is no row"):
        list(together_rows.read(io.BytesIO(b"{}\n\n" + line)))


def test_what_no_json_writer_should_write_is_nothing() -> None:
    assert list(together_rows.read(io.BytesIO(b'{"score": NaN}\n{"score": -Infinity}'))) == [
        (1, {"score": None}),
        (2, {"score": None}),
    ]


# --- verdicts ---


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("polite", (VerdictStatus.SCORED, "polite", None)),
        (" rude\n", (VerdictStatus.SCORED, "rude", None)),
        ("Polite", (VerdictStatus.INVALID, None, "unknown_label")),
        ("", (VerdictStatus.INVALID, None, "unparsable")),
        (None, (VerdictStatus.INVALID, None, "unparsable")),
        (["polite"], (VerdictStatus.INVALID, None, "unparsable")),
    ],
)
def test_labels(label: Any, expected: tuple[Any, ...]) -> None:
    verdict, _ = one(evaluation(model_to_evaluate=None), label=label, feedback="why")
    assert (verdict.status, verdict.value, verdict.reason) == expected
    assert verdict.feedback == "why"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (4, (VerdictStatus.SCORED, 4.0, None)),
        (4.5, (VerdictStatus.SCORED, 4.5, None)),
        ("3", (VerdictStatus.SCORED, 3.0, None)),
        (6, (VerdictStatus.INVALID, None, "out_of_range")),
        (0.99, (VerdictStatus.INVALID, None, "out_of_range")),
        (None, (VerdictStatus.INVALID, None, "unparsable")),
        ("good", (VerdictStatus.INVALID, None, "unparsable")),
        (True, (VerdictStatus.INVALID, None, "unparsable")),
        (10**400, (VerdictStatus.INVALID, None, "unparsable")),
    ],
)
def test_scores(score: Any, expected: tuple[Any, ...]) -> None:
    verdict, _ = one(evaluation(type="score", model_to_evaluate=None), score=score)
    assert (verdict.status, verdict.value, verdict.reason) == expected


@pytest.mark.parametrize("said", [{"evaluation_successful": False}, {"evaluation_successful": "False"},
                                  {"evaluation_successful": None, "evaluation_status": "False"}])  # fmt: skip
def test_a_row_that_failed_has_no_verdict(said: dict[str, Any]) -> None:
    said = {key: value for key, value in said.items() if value is not None}
    source = {"question": "q", "label": "polite", **said}
    ((verdict, _),) = joined([{"question": "q"}], [source], columns=("question",))
    assert (verdict.status, verdict.value, verdict.reason) == (VerdictStatus.ERROR, None, "failed")


def compare(**said: Any) -> Verdict:
    fields = {key: value for key, value in said.items() if key != "one_order"}
    once = said.get("one_order", False)
    ours = evaluation(type="compare", model_a={**MODEL}, model_b={**MODEL}, disable_position_bias_correction=once)
    return one(ours, **fields)[0]


def test_both_orders() -> None:
    agreed = compare(choice_original="A", choice_flipped="A", final_decision="A", judge_feedback_original_order="f")
    assert agreed[1:6] == (VerdictStatus.SCORED, "A", None, "f", ("A", "A"))
    differing = compare(choice_original="A", choice_flipped="B", final_decision="Tie")
    assert (differing.value, differing.orders) == ("Tie", ("A", "B"))


def test_one_readable_order_decides() -> None:
    verdict = compare(choice_flipped="b", final_decision="B", is_invalid_judge_output=True)
    assert (verdict.status, verdict.value, verdict.orders) == (VerdictStatus.SCORED, "B", (None, "B"))


@pytest.mark.parametrize("flag", ["is_invalid_judge_output", "is_incomplete"])
def test_no_readable_order_is_no_verdict(flag: str) -> None:
    verdict = compare(final_decision="Tie", **{flag: True})
    assert (verdict.status, verdict.value, verdict.orders) == (VerdictStatus.INVALID, None, None)
    assert compare(choice_original="C", final_decision=3).status is VerdictStatus.INVALID


def test_one_order_alone() -> None:
    assert compare(one_order=True, choice_original="B", final_decision="B").orders == ("B", None)
    assert compare(one_order=True, choice_original="Tie").value == "Tie"
    assert compare(choice_original="Tie").status is VerdictStatus.INVALID  # the other order is missing


def test_what_the_models_wrote_is_kept() -> None:
    verdict, detail = one(evaluation(model_to_evaluate=MODEL), label="rude", MODEL_TO_EVALUATE_OUTPUT="hello")
    assert detail == {"outputs": ["hello"], "lengths": [5]} and verdict.lengths == (5,)
    sources = [{"question": "q", "first": "abc"}]
    outputs = {"MODEL_TO_EVALUATE_OUTPUT_B": "no", "judge_feedback_flipped_order": "g"}
    results = [{**sources[0], **outputs, "choice_original": "A", "choice_flipped": "A", "final_decision": "A"}]
    ((verdict, detail),) = joined(sources, results, evaluation(type="compare", model_b=MODEL), ("question", "first"))
    assert detail == {"outputs": ["no"], "lengths": [3, 2], "feedback_flipped": "g"}
    assert verdict.lengths == (3, 2)


def test_a_column_with_responses_gives_their_lengths() -> None:
    ((verdict, detail),) = joined([row(1)], [result(1)])
    assert (verdict.lengths, detail) == ((2,), {"lengths": [2]})
    assert verdict.rung is None and verdict.orders is None


@pytest.mark.slow
def test_many_rows_need_the_memory_of_few() -> None:
    text = "x" * 2_000
    count = 4_000

    def sources() -> Iterator[dict[str, Any]]:
        return ({"question": f"{number}", "response": text} for number in range(count))

    def results() -> Iterator[tuple[int, dict[str, Any]]]:
        for number in reversed(range(count)):
            yield count - number, {"question": f"{number}", "response": text, "label": "rude", "feedback": text}

    tracemalloc.start()
    try:
        found = sum(1 for _ in together_rows.verdicts(evaluation(), COLUMNS, keyed(sources()), results()))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == count
    assert peak < 2_000_000  # the feedback alone has four times that
