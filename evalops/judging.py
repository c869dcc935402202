"""What a schema cannot say about judges, their criteria, repeats and votes."""

from __future__ import annotations

import re
from collections.abc import Iterator

from evalops import template, voting
from evalops.errors import Diagnostic, Severity
from evalops.spec import Evaluation, Judge, Type

CRITERIA = "criteria"  # what a template calls them


def check(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """Everything wrong with who judges an evaluation, and how often."""
    for judge in evaluation.judges:
        yield from _criteria(evaluation, judge)
    yield from _same_family(evaluation)
    if evaluation.repeats > 1:
        yield from _repeats(evaluation)
    yield from _jurors(evaluation)
    yield from _vote(evaluation)


def shows_criteria(judge: Judge) -> bool:
    """Whether a judge's template prints its criteria."""
    parsed = template.parse(judge.template.source) if judge.template else None
    return isinstance(parsed, template.Template) and CRITERIA in parsed.variables


def _criteria(evaluation: Evaluation, judge: Judge) -> Iterator[Diagnostic]:
    """A name is a key of the reply, beside `reason`, and judges are careless about case."""
    if not judge.criteria or judge.model is None:
        return
    seen: set[str] = set()
    for index, criterion in enumerate(judge.criteria):
        folded = criterion.name.casefold()
        if folded in seen or folded == "reason":
            yield Diagnostic(
                code="spec/criteria",
                message=f"`{criterion.name}` is already the name of "
                + ("the judge's explanation" if folded == "reason" else "another criterion, but for case"),
                mark=evaluation.places.mark(*judge.route, "criteria", index),
                hint="choose another word",
            )
        seen.add(folded)
    mark = evaluation.places.mark(*judge.route, "criteria")
    if CRITERIA in evaluation.response_columns:
        yield Diagnostic(
            code="spec/criteria",
            message="a judge with `criteria` cannot be shown the responses of a column with that name",
            mark=mark,
            hint=f"name the column anew: `dataset: {{path: …, columns: {{response: {CRITERIA}}}}}`",
        )
    if evaluation.type is not Type.SCORE and not shows_criteria(judge):
        yield Diagnostic(
            code="spec/criteria",
            message=f"in type `{evaluation.type.value}` the judge sees `criteria` only where its template prints them",
            mark=mark,
            hint="write {{ criteria }} into the template",
            severity=Severity.WARNING,
        )


def _repeats(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for judge in evaluation.judges:
        if judge.model is not None and (judge.likelihood or not judge.model.temperature):
            why = "judging by likelihood draws nothing" if judge.likelihood else "its temperature is 0"
            yield Diagnostic(
                code="spec/repeats",
                message=f"`{judge.model.model}` is asked {evaluation.repeats} times for mostly the same answer: {why}",
                mark=evaluation.places.mark("repeats"),
                hint="remove `repeats`" + ("" if judge.likelihood else ", or give the judge a `temperature` above 0"),
                severity=Severity.WARNING,
            )


def _jurors(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """Judges that are alike err alike: their agreement says less than it seems to (arXiv 2404.18796)."""
    earlier: list[Judge] = []
    for judge in evaluation.judges:
        mark = evaluation.places.mark(*judge.route)
        kin = [each for each in earlier if _is_kin(judge, each)]
        if any(_asks_alike(judge, each) for each in earlier):
            yield Diagnostic(
                code="spec/same-judge",
                message=f"`{_name(judge)}` is asked the same by two of the judges, so its one answer votes twice",
                mark=mark,
                hint="remove one of them; to ask a judge several times, there is `repeats`",
            )
        elif kin:
            yield Diagnostic(
                code="spec/same-family",
                message=f"`{_name(judge)}` and `{_name(kin[0])}` are of one family, and err alike",
                mark=mark,
                hint="judges of several families are the safer choice",
                severity=Severity.WARNING,
            )
        earlier.append(judge)


def _name(judge: Judge) -> str:
    return judge.model.model if judge.model else str(judge.column)


def _is_kin(one: Judge, other: Judge) -> bool:
    return one.model is not None and other.model is not None and family(one.model.model) == family(other.model.model)


def _asks_alike(one: Judge, other: Judge) -> bool:
    """Whether two judges send the same requests, or read the same column."""

    def asked(judge: Judge) -> object:
        model = judge.model
        where = model and (model.model, model.external_base_url, model.temperature or 0.0, model.max_tokens)
        source = judge.template and judge.template.source
        return judge.column, where, source, judge.likelihood, judge.reason, judge.criteria

    return asked(one) == asked(other)


def _vote(evaluation: Evaluation) -> Iterator[Diagnostic]:
    vote, planned = evaluation.voting, voting.planned(evaluation)
    is_score = evaluation.type is Type.SCORE
    mark = evaluation.places.mark
    if vote.rule in (voting.MEAN, voting.MEDIAN) and not is_score:
        yield Diagnostic(
            code="spec/vote",
            message=f"the {vote.rule} is for scores, and the verdicts of type `{evaluation.type.value}` are none",
            mark=mark("vote", "rule"),
            hint="use `majority`",
        )
    if vote.quorum is not None and vote.quorum > planned:
        yield Diagnostic(
            code="spec/vote",
            message=f"`quorum` is {vote.quorum}, and a row has {planned} vote{'s' * (planned != 1)} at the most",
            mark=mark("vote", "quorum"),
        )
    if vote.margin is not None and not vote.cascade:
        yield _warning(evaluation, "margin", "`margin` has no effect without `cascade`")
    if vote.cascade and not evaluation.panel:
        yield _warning(evaluation, "cascade", "`cascade` has no effect: there is no other judge to ask")
    elif vote.cascade and not _can_doubt(evaluation):
        yield _warning(
            evaluation,
            "cascade",
            "the first judge is asked once, so only a reply without a verdict leads to the others",
            "give it `repeats`, or `verdict: likelihood` with a `margin`",
        )


def _can_doubt(evaluation: Evaluation) -> bool:
    """Whether the first judge of a cascade can say that it is unsure."""
    is_asked_twice = evaluation.type is Type.COMPARE and evaluation.both_orders
    is_likelihood = evaluation.judge.likelihood and bool(evaluation.voting.margin)
    return voting.repeats(evaluation, evaluation.judge) > 1 or is_asked_twice or is_likelihood


def _warning(evaluation: Evaluation, key: str, message: str, hint: str | None = None) -> Diagnostic:
    mark = evaluation.places.mark("vote", key)
    return Diagnostic(code="spec/vote", message=message, mark=mark, hint=hint, severity=Severity.WARNING)


def _same_family(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """A judge prefers texts of its own kind (arXiv 2404.13076)."""
    writers = [model for model in evaluation.candidates if not isinstance(model, str)]
    for judge in evaluation.judges:
        for writer in writers:
            if judge.model is not None and family(writer.model) == family(judge.model.model):
                yield Diagnostic(
                    code="spec/same-family",
                    message=f"`{judge.model.model}` judges what `{writer.model}` writes: judges prefer texts of their "
                    "own family",
                    mark=evaluation.places.mark(*judge.route, "model"),
                    hint="a judge of another family is the safer choice",
                    severity=Severity.WARNING,
                )


def family(model: str) -> str:
    """`gpt` of `openai/gpt-4o`, `smollm` of `embedded/smollm2-135m`."""
    name = model.rsplit("/", 1)[-1].casefold()
    found = re.match(r"[a-z]+", name)
    return found.group() if found else name
