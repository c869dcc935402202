"""The requests that one row would cause, byte for byte: the jury asks them itself, with nobody at the other end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalops.endpoint import Endpoint
from evalops.engine import embedded
from evalops.engine.judge import Ask, is_flipped
from evalops.engine.jury import Jury, RowFailed
from evalops.engine.lane import Route
from evalops.engine.reply import Reply
from evalops.engine.run import encoded
from evalops.errors import Diagnostic, EvalopsError
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation, Model, Type

NOBODY = "nobody was asked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request, asked `repeats` times. `field` is where its model stands in the spec.

    `order` of a comparison is given or flipped. `is_exact` is false where it holds a text that a model has yet to
    write.
    """

    field: str
    endpoint: Endpoint
    route: Route
    body: Mapping[str, Any]
    repeats: int
    order: str | None
    is_exact: bool

    @property
    def data(self) -> bytes:
        """What goes over the wire."""
        return encoded(embedded.MODEL if self.endpoint.is_embedded else self.endpoint.model, self.body)


def requests(
    evaluation: Evaluation, endpoints: Sequence[Endpoint], key: str, source: Mapping[str, Any]
) -> tuple[list[Sent], Verdict]:
    """The requests for a row, candidates first, and the verdict where there are none: by rule, or from a column.

    Each in the form that is asked for first, and of all judges, also those that a cascade may not need. `source` is
    what the judges may see of the row, `endpoints` are those of `evaluation.models`. Raises EvalopsError where a
    template fails on the row.
    """
    calls: dict[int, list[tuple[Route, dict[str, Any], int]]] = {id(model): [] for model in evaluation.models}
    asks = {id(model): _noting(model, calls[id(model)]) for model in evaluation.models}
    is_embedded = {id(model): each.is_embedded for model, each in zip(evaluation.models, endpoints, strict=True)}
    every = replace(evaluation, voting=replace(evaluation.voting, cascade=False))
    jury = Jury(every, asks, is_embedded, evaluate=_unjudged if evaluation.evaluator else None)
    try:
        verdict, _ = asyncio.run(jury.row(key, source))
    except RowFailed as failed:
        raise EvalopsError(Diagnostic(code="show/row", message=failed.message)) from None
    writers = {id(each) for each in evaluation.candidates if isinstance(each, Model)}
    found = []
    for model, endpoint in zip(evaluation.models, endpoints, strict=True):
        known = calls[id(model)]
        is_judge = id(model) not in writers
        for place, (route, body, _) in enumerate(each for each in known if each[2] == 1):
            found.append(
                Sent(
                    field=model.stage,
                    endpoint=endpoint,
                    route=route,
                    body=body,
                    repeats=max(repeat for _, _, repeat in known),
                    order=_order(evaluation, key, place) if is_judge and evaluation.type is Type.COMPARE else None,
                    is_exact=not (is_judge and writers),
                )
            )
    return found, verdict


def _order(evaluation: Evaluation, key: str, place: int) -> str:
    flipped = place == 1 if evaluation.both_orders else is_flipped(key)
    return "flipped" if flipped else "given"


def _noting(model: Model, calls: list[tuple[Route, dict[str, Any], int]]) -> Ask:
    async def ask(route: Route, body: dict[str, Any], repeat: int) -> Reply:
        calls.append((route, body, repeat))
        # As a judge it refuses, after which nothing more is asked of it.
        return Reply(content=f"(what {model.model} writes)", refusal=NOBODY)

    return ask


async def _unjudged(key: str, response: Any, source: Mapping[str, Any]) -> Verdict:
    return Verdict(key, VerdictStatus.INVALID, None, "refusal", NOBODY)
