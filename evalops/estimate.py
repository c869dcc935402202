"""What an evaluation would take before it runs: calls exactly, tokens and cost by a stated rule of thumb.

Four characters are a token. Every call sends its templates and the columns in use; a judge that explains
answers with 80 tokens, one that does not with 10; a model that writes responses fills half of its `max_tokens`.
"""

from __future__ import annotations

from collections.abc import Mapping

from evalops.plan import Estimate, Wanted
from evalops.settings import Price
from evalops.spec import Evaluation, Model, Type

CHARACTERS = 4
WITH_REASON, WITHOUT_REASON = 80, 10
RESPONSE = 1024  # max_tokens of a model that names none


def estimate(wanted: Wanted, prices: Mapping[str, Price]) -> Estimate:
    """Rows, calls, tokens in and out, and cost; None where a model that is paid for has no price."""
    evaluation, identity = wanted
    digests = identity.digests
    calls = tokens = 0
    cost: float | None = 0.0
    for model, per_row, answer in _stages(evaluation):
        sent = per_row * (digests.characters + digests.rows * _literal(model)) // CHARACTERS
        received = per_row * digests.rows * answer
        calls += per_row * digests.rows
        tokens += sent + received
        price = prices.get(model.model)
        if price is not None and cost is not None:
            cost += (sent * price.input + received * price.output) / 1e6
        elif not model.model.startswith("embedded/"):
            cost = None
    return Estimate(rows=digests.rows, calls=calls, tokens=tokens, cost=cost)


def _stages(evaluation: Evaluation) -> list[tuple[Model, int, int]]:
    """Each model with its calls a row and the tokens of an answer."""
    judge = evaluation.judge
    stages = []
    for model in evaluation.models:
        if model is judge.model:
            twice = evaluation.type is Type.COMPARE and evaluation.both_orders
            stages.append((model, 2 if twice else 1, WITH_REASON if judge.reason else WITHOUT_REASON))
        else:
            stages.append((model, 1, (model.max_tokens or RESPONSE) // 2))
    return stages


def _literal(model: Model) -> int:
    return sum(len(text.source) for text in (model.system_template, model.input_template) if text)
