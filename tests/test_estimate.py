"""What a run would take: the calls are those that are made, for any way of judging."""

from __future__ import annotations

from typing import Any

import pytest
from evaluations import evaluation

from evalops.estimate import RESPONSE, WITH_REASON, WITHOUT_REASON, estimate
from evalops.fingerprint import Digests, Identity
from evalops.plan import Estimate, Wanted
from evalops.settings import Price

ROWS, CHARACTERS = 10, 4000
WRITER = {"model": "w", "input_template": "{{ q }}"}


def of(
    *,
    rows: int | None = ROWS,
    characters: int | None = CHARACTERS,
    prices: dict[str, Price] | None = None,
    **fields: Any,
) -> Estimate:
    digests = Digests(rows=rows, dataset="d", submitted="s", grading="", characters=characters)
    identity = Identity(fingerprint="f", inputs={}, grade="g", digests=digests)
    return estimate(Wanted(evaluation(**fields), identity), prices or {})


def jury(**more: Any) -> dict[str, Any]:
    return {"judges": [{"model": "x"}, {"model": "y"}, {"model": "z"}], **more}


@pytest.mark.parametrize(
    ("fields", "calls"),
    [
        ({}, 1),
        ({"judge": {"column": "human"}}, 0),
        ({"model_to_evaluate": WRITER}, 2),
        ({"type": "compare"}, 2),
        ({"type": "compare", "disable_position_bias_correction": True}, 1),
        ({"type": "compare", "model_a": WRITER, "model_b": {**WRITER, "model": "v"}}, 4),
        ({"repeats": 5}, 5),
        (jury(), 3),
        (jury(repeats=2, model_to_evaluate=WRITER), 7),
        (jury(repeats=2, type="compare"), 12),
        ({"judges": [{"column": "human"}, {"model": "x"}], "repeats": 3}, 3),
    ],
)
def test_calls(fields: dict[str, Any], calls: int) -> None:
    found = of(**fields)
    assert (found.rows, found.calls, found.fewest) == (ROWS, calls * ROWS, None)


@pytest.mark.parametrize(
    ("fields", "least", "most"),
    [
        (jury(), 1, 3),
        (jury(repeats=4), 4, 12),
        (jury(type="compare"), 2, 6),
        (jury(model_to_evaluate=WRITER), 2, 4),
    ],
)
def test_a_cascade_asks_the_first_judge_at_the_least(fields: dict[str, Any], least: int, most: int) -> None:
    found = of(**fields, vote={"cascade": True})
    assert (found.fewest, found.calls) == (least * ROWS, most * ROWS)
    assert found.tokens == of(**fields).tokens  # of all calls


def test_tokens() -> None:
    sent = (CHARACTERS + ROWS * len("Is it polite?")) // 4
    assert of().tokens == sent + ROWS * WITH_REASON
    assert of(judge={"reason": "none"}).tokens == sent + ROWS * WITHOUT_REASON
    assert of(repeats=4).tokens == CHARACTERS + ROWS * len("Is it polite?") + 4 * ROWS * WITH_REASON
    assert of(type="score", judge={"criteria": ["a", "b"]}).tokens == sent + ROWS * (WITH_REASON + 2 * WITHOUT_REASON)
    written = (CHARACTERS + ROWS * len("{{ q }}")) // 4 + ROWS * RESPONSE // 2
    assert of(model_to_evaluate=WRITER).tokens == sent + ROWS * WITH_REASON + written


def test_cost() -> None:
    prices = {name: Price(input=1.0, output=2.0) for name in ("judge", "x", "y", "z")}
    sent = (CHARACTERS + ROWS * len("Is it polite?")) // 4
    one = (sent + 2 * ROWS * WITH_REASON) / 1e6
    assert of(prices=prices).cost == pytest.approx(one)
    for thrice in ({"repeats": 3}, jury()):
        assert of(prices=prices, **thrice).cost == pytest.approx(3 * one, rel=1e-3)
    assert of(prices={"x": prices["x"]}, **jury()).cost is None
    assert of(judge={"model": "embedded/file:m.gguf"}).cost == of(judge={"column": "human"}).cost == 0.0


def test_rows_that_nobody_has_counted() -> None:
    unknown = Estimate(rows=None, calls=None, tokens=None, cost=None)
    assert of(rows=None) == of(characters=None) == unknown
