"""What an evaluation would take before it runs: calls exactly, tokens and cost by a stated rule of thumb.

Four characters are a token. Every call sends its templates and the columns in use; a judge that explains
answers with 80 tokens, one that does not with 10, and with 10 for each of its criteria; a model that writes responses
fills half of its `max_tokens`. A cascade may ask all of its judges or only the first: tokens and cost are the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from evalops import voting
from evalops.plan import Estimate, Wanted
from evalops.settings import Price
from evalops.spec import Evaluation, Judge, Model, Type

CHARACTERS = 4
WITH_REASON, WITHOUT_REASON = 80, 10
RESPONSE = 1024  # max_tokens of a model that names none


class _Stage(NamedTuple):
    """A model with its calls a row, at the most and at the least, and the tokens of an answer."""

    model: Model
    most: int
    least: int
    answer: int


def estimate(wanted: Wanted, prices: Mapping[str, Price]) -> Estimate:
    """Rows, calls, tokens in and out, and cost: None where nobody has counted the rows, or a model has no price."""
    evaluation, identity = wanted
    rows, characters = identity.digests.rows, identity.digests.characters
    if rows is None or characters is None:
        return Estimate(rows=None, calls=None, tokens=None, cost=None)
    if evaluation.patronus is not None:  # one call a row, which all evaluators answer, at prices of its own
        sent = len(evaluation.patronus.graders) * characters // CHARACTERS
        return Estimate(rows=rows, calls=rows, tokens=sent, cost=None)
    calls = fewest = tokens = 0
    cost: float | None = 0.0
    for model, most, least, answer in _stages(evaluation):
        sent = most * (characters + rows * _literal(model)) // CHARACTERS
        received = most * rows * answer
        calls += most * rows
        fewest += least * rows
        tokens += sent + received
        price = prices.get(model.model)
        if price is not None and cost is not None:
            cost += (sent * price.input + received * price.output) / 1e6
        elif not model.model.startswith("embedded/"):
            cost = None
    return Estimate(rows=rows, calls=calls, fewest=fewest if fewest < calls else None, tokens=tokens, cost=cost)


def _stages(evaluation: Evaluation) -> Iterator[_Stage]:
    for candidate in evaluation.candidates:
        if isinstance(candidate, Model):
            yield _Stage(candidate, 1, 1, (candidate.max_tokens or RESPONSE) // 2)
    orders = 2 if evaluation.type is Type.COMPARE and evaluation.both_orders else 1
    for place, judge in enumerate(evaluation.judges):
        if judge.model is not None:
            calls = orders * voting.repeats(evaluation, judge)
            is_needed = place == 0 or not evaluation.voting.cascade
            yield _Stage(judge.model, calls, calls if is_needed else 0, _answer(evaluation, judge))


def _answer(evaluation: Evaluation, judge: Judge) -> int:
    numbers = len(judge.criteria) if evaluation.type is Type.SCORE else 0
    return (WITH_REASON if judge.reason else WITHOUT_REASON) + WITHOUT_REASON * numbers


def _literal(model: Model) -> int:
    return sum(len(text.source) for text in (model.system_template, model.input_template) if text)
