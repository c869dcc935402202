"""What a run would take: the calls are those that are made, for any way of judging."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest
from evaluations import evaluation, settings

from evalops.estimate import RESPONSE, WITH_REASON, WITHOUT_REASON, estimate, stale
from evalops.fingerprint import Digests, Identity
from evalops.lock import Entry, Status
from evalops.plan import Basis, Estimate, Wanted
from evalops.settings import Price

ROWS, CHARACTERS = 10, 4000
DAY = date(2026, 11, 1)
WRITER = {"model": "w", "input_template": "{{ q }}"}


def of(
    *,
    rows: int | None = ROWS,
    characters: int | None = CHARACTERS,
    prices: dict[str, Price] | None = None,
    last: Entry | None = None,
    **fields: Any,
) -> Estimate:
    digests = Digests(rows=rows, dataset="d", submitted="s", grading="", characters=characters)
    identity = Identity(fingerprint="f", inputs={}, grade="g", digests=digests)
    return estimate(Wanted(evaluation(**fields), identity), prices or {}, last)


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
    prices = {name: Price(input=1.0, output=2.0, as_of=DAY) for name in ("judge", "x", "y", "z")}
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


# --- as measured ---


def last(summary: Any = None, **averages: tuple[float, float]) -> Entry:
    """What a lockfile holds of a run whose replies took so many tokens in and out, by stage."""
    found = {
        stage: dict(zip(("prompt_tokens", "completion_tokens"), each, strict=True)) for stage, each in averages.items()
    }
    return Entry(
        address="tone", fingerprint="f", provider="local", status=Status.COMPLETED, created_at="", dataset={}, inputs={}, grade="g",
        summary=summary if summary is not None else {"usage": {"averages": found}},
    )  # fmt: skip


def test_tokens_are_those_of_the_last_result() -> None:
    found = of(last=last(judge=(100.5, 20.25)), prices={"judge": Price(input=1.0, output=2.0, as_of=DAY)})
    assert (found.tokens, found.basis, found.as_of) == (1005 + 202, Basis.MEASURED, DAY)
    assert found.cost == pytest.approx((1005 + 2 * 202) / 1e6)
    assert of(last=last(judge=(100, 20)), type="compare").tokens == 2 * 10 * 120  # both orders
    assert of(last=last(judge=(100, 20)), repeats=3).tokens == 3 * 10 * 120
    assert (of().basis, of().as_of) == (Basis.RULE, None)


def test_each_stage_has_its_own() -> None:
    assert of(last=last(judge=(100, 20), model_to_evaluate=(10, 200)), model_to_evaluate=WRITER).tokens == 10 * 330
    half = of(last=last(model_to_evaluate=(10, 200)), model_to_evaluate=WRITER)
    assert (half.basis, half.tokens) == (Basis.BOTH, 10 * 210 + (of().tokens or 0))
    jury_of = last(**{"judges.0": (1, 1), "judges.1": (2, 2), "judges.2": (3, 3)})
    assert of(last=jury_of, **jury()).tokens == 10 * 12
    assert of(last=last(judge=(9, 9)), **jury()).basis is Basis.RULE  # another field is another model


@pytest.mark.parametrize("summary", [{}, {"usage": {}}, {"usage": {"calls": 3, "averages": {}}}, {"usage": None}])
def test_an_older_lockfile_has_none(summary: Any) -> None:
    assert of(last=last(summary)) == of()


def test_the_oldest_price_gives_the_day() -> None:
    prices = {name: Price(input=1, output=1, as_of=DAY - timedelta(days=place)) for place, name in enumerate("xyz")}
    assert of(prices=prices, **jury()).as_of == DAY - timedelta(days=2)
    assert of(prices={"x": prices["x"]}, **jury()).cost is None


def test_a_price_is_old_after_a_year() -> None:
    found = settings(prices={name: {"input": 1, "output": 1, "as_of": "2026-11-01"} for name in ("a", "b")})
    assert list(stale(found, ["a", "c"], DAY + timedelta(days=365))) == []
    (problem,) = stale(found, ["a", "c"], DAY + timedelta(days=366))
    assert problem.message == "the price of `a` is of 2026-11-01, more than a year ago" and not problem.is_error
    assert problem.mark and (problem.mark.path, problem.mark.line) == ("evalops.yaml", 6)
