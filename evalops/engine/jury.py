"""All judges of an evaluation at work on one row: its responses, their votes, one verdict.

An empty response is judged by rule and not by a model: punctuation alone can earn a pass (arXiv 2507.08794).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from evalops import template, voting
from evalops.engine.form import is_empty
from evalops.engine.judge import Ask, Judge, count, neutral, parameters
from evalops.engine.model import CallFailed, Kind, Route
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Column, Evaluation, Model, Text, Type
from evalops.voting import Opinion

Evaluate = Callable[[str, Any, Mapping[str, Any]], Awaitable[Verdict]]  # a row's key, its response, its columns


class RowFailed(Exception):
    """A row has no verdict because a call failed; `fatal`: so would every other row."""

    def __init__(self, reason: str, message: str, detail: dict[str, Any], *, fatal: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.detail = detail
        self.fatal = fatal


class _Case(NamedTuple):
    """One row before the jury; `ruled` is the verdict where none of its models is asked."""

    key: str
    source: Mapping[str, Any]
    responses: tuple[Any, ...]
    ruled: Verdict | None


class Jury:
    """Gives the verdicts of one evaluation, by one judge or several. `asks` and `is_embedded` are by the identity of
    its models, `rungs` by the place of its judges: how far down the ladder their endpoints were known to send us.
    For type custom `evaluate` gives the verdicts, and there is no judge.
    """

    def __init__(
        self,
        evaluation: Evaluation,
        asks: Mapping[int, Ask],
        is_embedded: Mapping[int, bool],
        rungs: Sequence[int] = (),
        evaluate: Evaluate | None = None,
    ) -> None:
        self._evaluation = evaluation
        self._evaluate = evaluate
        self._asks = asks
        self._embedded = is_embedded
        judges = [each for each in evaluation.judges if each.column is not None or each.model is not None]
        self._judges = [
            Judge(
                evaluation,
                judge,
                asks.get(id(judge.model)),
                is_embedded=is_embedded.get(id(judge.model), False),
                rung=rungs[place] if rungs else 0,
            )
            for place, judge in enumerate(judges)
        ]
        self._recorded = [judge.column is not None for judge in judges]
        self._models = [(place, each) for place, each in enumerate(evaluation.candidates) if isinstance(each, Model)]
        texts = [text for _, model in self._models for text in (model.system_template, model.input_template) if text]
        self._templates = {id(text): template.parse_or_raise(text.source) for text in texts}

    @property
    def rungs(self) -> list[int]:
        """The best rung that has worked for each judge, as a place on the ladder; 0 while none has."""
        return [judge.rung for judge in self._judges]

    async def row(self, key: str, source: Mapping[str, Any]) -> tuple[Verdict, dict[str, Any]]:
        """The verdict on one row, and what else is kept of it. Raises RowFailed."""
        detail: dict[str, Any] = {}
        responses: tuple[Any, ...] = ()
        ruled = None
        try:
            if self._evaluate is not None:
                responses = await self._responses(source, detail)
                return await self._evaluate(key, responses[0], source), detail
            if not all(self._recorded):
                responses = await self._responses(source, detail)
                detail["lengths"] = [len(str(response)) for response in responses]
                ruled = _by_rule(key, self._evaluation.type, responses)
                if ruled and not any(self._recorded):
                    return ruled, detail
            if not self._evaluation.is_jury:
                return await self._judges[0].verdict(key, source, responses, detail), detail
            return await self._voted(_Case(key, source, responses, ruled), detail), detail
        except template.RenderError as error:
            raise RowFailed("template", error.message, detail) from None
        except CallFailed as failed:
            raise RowFailed(_reason(failed), failed.message, detail, fatal=failed.fatal) from None

    async def _voted(self, case: _Case, detail: dict[str, Any]) -> Verdict:
        """The verdict of all judges, or in a cascade of the first alone where it is sure."""
        evaluation = self._evaluation
        vote, rule = evaluation.voting, voting.rule(evaluation)
        places = range(len(self._judges))
        opinions = await self._hear(places[:1] if vote.cascade else places, case, detail)
        if vote.cascade and len(places) > 1:
            if voting.is_sure(opinions, vote.margin):
                verdict = voting.combine(case.key, opinions, rule=rule, quorum=1)
                if verdict.status is VerdictStatus.SCORED:
                    detail["saved"] = sum(voting.calls(evaluation, judge) for judge in evaluation.panel)
                    return verdict
            opinions += await self._hear(places[1:], case, detail)
        return voting.combine(case.key, opinions, rule=rule, quorum=voting.quorum(evaluation))

    async def _hear(self, places: Iterable[int], case: _Case, detail: dict[str, Any]) -> list[Opinion]:
        """The votes of these judges, all asked at a time; what they took is added to `detail`."""
        evaluation = self._evaluation
        asked = [
            self._opinion(place, repeat, case)
            for place in places
            for repeat in range(1, 1 + voting.repeats(evaluation, evaluation.judges[place]))
        ]
        # All are waited for, also where one fails: what is in flight is paid for.
        opinions = []
        for each in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(each, BaseException):
                raise each
            opinion, own = each
            _add(detail, own)
            opinions.append(opinion)
        return opinions

    async def _opinion(self, place: int, repeat: int, case: _Case) -> tuple[Opinion, dict[str, Any]]:
        """One vote, and what it took. Raises CallFailed where no other row would fare better."""
        key, source, responses, ruled = case
        detail: dict[str, Any] = {}
        try:
            if ruled and not self._recorded[place]:
                verdict = ruled
            else:
                verdict = await self._judges[place].verdict(key, source, responses, detail, repeat)
        except template.RenderError as error:
            verdict = Verdict(key, VerdictStatus.ERROR, None, "template", error.message)
        except CallFailed as failed:
            if failed.fatal:
                raise
            verdict = Verdict(key, VerdictStatus.ERROR, None, _reason(failed), failed.message)
        detail["feedbacks"] = [verdict.feedback]
        return Opinion(place, repeat, verdict, detail.get("gap")), detail

    async def _responses(self, source: Mapping[str, Any], detail: dict[str, Any]) -> tuple[Any, ...]:
        """The judged texts: from columns, or written now, once a row; two models write side by side."""
        found: list[Any] = [
            source.get(each) if isinstance(each, Column) else None for each in self._evaluation.candidates
        ]
        if self._models:
            detail["stage"] = "generation"  # where a failed row came to its end
            texts = await asyncio.gather(*(self._generate(model, source, detail) for _, model in self._models))
            del detail["stage"]
            for (index, _), text in zip(self._models, texts, strict=True):
                found[index] = text
            detail["outputs"] = texts
        return tuple(found)

    async def _generate(self, model: Model, source: Mapping[str, Any], detail: dict[str, Any]) -> str:
        is_embedded = self._embedded[id(model)]
        columns = neutral(source) if is_embedded else source
        system = self._render(model.system_template, columns)
        user = self._render(model.input_template, columns)
        if is_embedded:
            system, user = None, "\n\n".join(text for text in (system, user) if text)
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": user or ""})
        body = {"messages": messages, **parameters(model, is_embedded=is_embedded)}
        reply = await self._asks[id(model)](Route.CHAT, body, 1)
        count(detail, model, reply)
        return reply.content

    def _render(self, text: Text | None, columns: Mapping[str, Any]) -> str | None:
        return self._templates[id(text)].render(columns) if text else None


def _by_rule(key: str, type_: Type, responses: tuple[Any, ...]) -> Verdict | None:
    """The verdict on a row where a response holds nothing to judge."""
    empty = [is_empty(response) for response in responses]
    if not any(empty):
        return None
    if type_ is not Type.COMPARE:
        return Verdict(key, VerdictStatus.INVALID, None, "empty_response", "there is nothing to judge")
    choice = "Tie" if all(empty) else "B" if empty[0] else "A"
    return Verdict(key, VerdictStatus.SCORED, choice, None, "judged by rule: an empty response loses", None, "rule")


def _reason(failed: CallFailed) -> str:
    if failed.kind is Kind.TIMEOUT:
        return "timeout"
    return f"status_{failed.status}" if failed.status else failed.kind.value


def _add(detail: dict[str, Any], own: Mapping[str, Any]) -> None:
    """Adds what one vote took to what its row took."""
    total = detail.setdefault("usage", {})
    for model, used in own.get("usage", {}).items():
        sums = total.get(model, (0, 0, 0, 0))
        total[model] = [None if None in pair else sum(pair) for pair in zip(sums, used, strict=True)]
    if "repaired" in own:
        detail["repaired"] = detail.get("repaired", 0) + own["repaired"]
    detail.setdefault("feedbacks", []).extend(own["feedbacks"])
