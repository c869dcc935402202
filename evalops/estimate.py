"""What an evaluation would take before it runs: calls exactly, tokens and cost as measured, or by a rule of thumb.

Measured is what a reply of the same model field took in the last result. By the rule of thumb four characters are a
token. Every call sends its templates and the columns in use; a judge that explains answers with 80 tokens, one that
does not with 10, and with 10 for each of its criteria; a model that writes responses fills half of its `max_tokens`.
A cascade may ask all of its judges or only the first: tokens and cost are the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, timedelta
from typing import Any, NamedTuple

from evalops import voting
from evalops.errors import Diagnostic, Severity
from evalops.lock import Entry
from evalops.plan import Basis, Estimate, Wanted
from evalops.settings import Price, Settings
from evalops.spec import Evaluation, Judge, Model, Type

CHARACTERS = 4
STALE = timedelta(days=365)  # after which a price is taken for one that may have changed
WITH_REASON, WITHOUT_REASON = 80, 10
RESPONSE = 1024  # max_tokens of a model that names none


class _Stage(NamedTuple):
    """A model with its calls a row, at the most and at the least, and the tokens of an answer."""

    model: Model
    most: int
    least: int
    answer: int


def estimate(wanted: Wanted, prices: Mapping[str, Price], last: Entry | None = None) -> Estimate:
    """Rows, calls, tokens in and out, and cost: None where nobody has counted the rows, or a model has no price.

    `last` is what the lockfile holds at the address.
    """
    evaluation, identity = wanted
    rows, characters = identity.digests.rows, identity.digests.characters
    if rows is None or characters is None:
        return Estimate(rows=None, calls=None, tokens=None, cost=None)
    if evaluation.patronus is not None:  # one call a row, which all evaluators answer, at prices of its own
        sent = len(evaluation.patronus.graders) * characters // CHARACTERS
        return Estimate(rows=rows, calls=rows, tokens=sent, cost=None)
    calls = fewest = tokens = 0
    cost: float | None = 0.0
    days, bases = [], set()
    for model, most, least, answer in _stages(evaluation):
        sent, received = most * (characters + rows * _literal(model)) // CHARACTERS, most * rows * answer
        measured = _measured(last, model)
        bases.add(Basis.MEASURED if measured else Basis.RULE)
        if measured:
            sent, received = (round(most * rows * each) for each in measured)
        calls += most * rows
        fewest += least * rows
        tokens += sent + received
        price = prices.get(model.model)
        if price is not None:
            cost = None if cost is None else cost + price.of(sent, received)
            days.append(price.as_of)
        elif not model.model.startswith("embedded/"):
            cost = None
    return Estimate(
        rows=rows,
        calls=calls,
        fewest=fewest if fewest < calls else None,
        tokens=tokens,
        cost=cost,
        basis=Basis.BOTH if len(bases) > 1 else next(iter(bases), Basis.RULE),
        as_of=min(days, default=None),
    )


def stale(settings: Settings, models: Iterable[str], today: date) -> Iterator[Diagnostic]:
    """Warnings of old prices of these models."""
    for name in sorted(set(models) & set(settings.prices)):
        as_of = settings.prices[name].as_of
        if today - as_of > STALE:
            yield Diagnostic(
                code="prices/old",
                message=f"the price of `{name}` is of {as_of}, more than a year ago",
                mark=settings.mark("prices", name, "as_of"),
                hint="look it up anew, and set `as_of` to that day",
                severity=Severity.WARNING,
            )


def _measured(last: Entry | None, model: Model) -> tuple[float, float] | None:
    """The tokens in and out of a reply of the last result, None where it has none that can be used."""
    usage: Mapping[str, Any] = (last.summary or {}).get("usage") or {} if last else {}
    found = (usage.get("averages") or {}).get(model.stage)
    return (found["prompt_tokens"], found["completion_tokens"]) if found else None


def _stages(evaluation: Evaluation) -> Iterator[_Stage]:
    for candidate in evaluation.candidates:
        if isinstance(candidate, Model):
            yield _Stage(candidate, 1, 1, (candidate.max_tokens or RESPONSE) // 2)
    for place, judge in enumerate(evaluation.judges):
        if judge.model is not None:
            calls = voting.calls(evaluation, judge)
            is_needed = place == 0 or not evaluation.voting.cascade
            yield _Stage(judge.model, calls, calls if is_needed else 0, _answer(evaluation, judge))


def _answer(evaluation: Evaluation, judge: Judge) -> int:
    numbers = len(judge.criteria) if evaluation.type is Type.SCORE else 0
    return (WITH_REASON if judge.reason else WITHOUT_REASON) + WITHOUT_REASON * numbers


def _literal(model: Model) -> int:
    return sum(len(text.source) for text in (model.system_template, model.input_template) if text)
