"""What Patronus refuses, or bills twice, said before anything is sent: of a spec, and of each of its rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple

from evalops.datasets.dataset import Occurrences, Row
from evalops.errors import Diagnostic, Mark, Severity
from evalops.fingerprint import canonical, sha256
from evalops.patronus import LABELS, PASS, Patronus, needs
from evalops.providers import patronus_request as wire
from evalops.spec import Column, Evaluation, Type

SHOWN = 5  # problems of rows

_IN, _OUT, _CONTEXT = "task_input", "task_output", "task_context"


# --- the spec ---


def check(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """Everything wrong with what a spec asks of Patronus."""
    foreign = list(_foreign(evaluation))
    yield from foreign
    asked = evaluation.patronus
    if evaluation.type in (Type.COMPARE, Type.CUSTOM):
        return  # the rest says nothing of these
    if (asked is None or not asked.graders) and not foreign:
        yield Diagnostic(
            code="patronus/evaluators",
            message="Patronus judges with evaluators of its own, and the spec names none",
            mark=evaluation.places.mark("provider"),
            hint="add `evaluators: [{evaluator: …, criteria: …}]`, or run the judge with `provider: local`",
        )
    if asked is None:
        return
    yield from _twice(evaluation, asked)
    yield from _fields(evaluation, asked)
    yield from _place(evaluation, asked)
    yield from _billing(evaluation, asked)


def _problem(evaluation: Evaluation, what: str, message: str, hint: str | None, *route: str | int) -> Diagnostic:
    mark = evaluation.places.mark(*route)
    return Diagnostic(code=f"patronus/{what}", message=message, mark=mark, hint=hint)


def _foreign(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """What only other providers do, with where it goes instead."""
    if evaluation.type is Type.COMPARE:
        message = "Patronus judges one response at a time, so it cannot compare two"
        hint = "write two specs of type `score` and put them in order with `evalops rank`, or use `provider: local`"
        yield _problem(evaluation, "type", message, hint, "type")
    if evaluation.type is Type.CUSTOM:
        message = "`type: custom` runs on this machine, not at Patronus"
        hint = "use `provider: local`, or type `classify` with `evaluators` of Patronus such as `exact-match`"
        yield _problem(evaluation, "type", message, hint, "type")
    for judge in evaluation.judges:
        if judge.model is not None or judge.column is not None:
            message = f"`{judge.route[0]}` is not for Patronus, which judges with evaluators of its own"
            hint = "write `evaluators: [{evaluator: judge, criteria: …}]` in its place, or use `provider: local`"
            yield _problem(evaluation, "judge", message, hint, *judge.route)
            break
    if evaluation.repeats > 1 or evaluation.panel:
        message = "Patronus gives each evaluator one vote"
        hint = "name several `evaluators`, which `patronus.combine` puts together, or use `provider: local`"
        yield _problem(evaluation, "judge", message, hint, "repeats" if evaluation.repeats > 1 else "judges")
    for candidate in evaluation.candidates if evaluation.type is not Type.COMPARE else ():
        if not isinstance(candidate, Column):
            message = "Patronus writes no responses: `model_to_evaluate` must be a column that holds them"
            yield _problem(evaluation, "model", message, "write them with `provider: local` first", *candidate.route)
    yield from _scale(evaluation)


def _scale(evaluation: Evaluation) -> Iterator[Diagnostic]:
    if evaluation.patronus is None:
        return
    if evaluation.type is Type.CLASSIFY and set(evaluation.labels) != set(LABELS):
        message = f"evaluators of Patronus say `{LABELS[0]}` or `{LABELS[1]}`, and no other label"
        yield _problem(evaluation, "labels", message, "remove `labels` and `pass_labels`", "labels")
    elif evaluation.type is Type.CLASSIFY and evaluation.pass_labels != (PASS,):
        yield _problem(evaluation, "labels", f"a pass is `{PASS}` at Patronus", "remove `pass_labels`", "pass_labels")
    if evaluation.type is Type.SCORE and (evaluation.min_score, evaluation.max_score) != (0.0, 1.0):
        key = "min_score" if evaluation.min_score != 0 else "max_score"
        yield _problem(evaluation, "score", "scores of Patronus lie between 0 and 1", f"remove `{key}`", key)
    if evaluation.type is Type.SCORE and evaluation.patronus.combine != "all_pass":
        message = "`combine` is for type `classify`: a score is the mean of the evaluators' scores"
        yield _problem(evaluation, "score", message, "remove it", "patronus", "combine")


def _twice(evaluation: Evaluation, asked: Patronus) -> Iterator[Diagnostic]:
    seen: set[str] = set()
    for index, each in enumerate(asked.graders):
        if each.name in seen:
            message = f"`{each.name}` is asked twice"
            yield _problem(evaluation, "evaluators", message, "remove one of them", "evaluators", index)
        seen.add(each.name)


def _fields(evaluation: Evaluation, asked: Patronus) -> Iterator[Diagnostic]:
    """What every call must have, and what the evaluators' families need."""
    if not {_IN, _OUT} & set(asked.columns):
        message = "Patronus needs an input or an output of every row"
        hint = "add `patronus: {columns: {task_input: COLUMN, task_output: COLUMN}}`"
        yield _problem(evaluation, "columns", message, hint, *(("patronus", "columns") if asked.columns else ()))
    output, own = asked.columns.get("task_output"), _written(evaluation)
    if own is not None and own != output:
        message = f"`model_to_evaluate` is `{output}` and `task_output` is `{own}`: they are two words for one thing"
        yield _problem(evaluation, "columns", message, "remove one of them", "patronus", "columns", "task_output")
    for index, each in enumerate(asked.graders):
        missing = [name for name in needs(each) if name not in asked.columns]
        if missing and {_IN, _OUT} & set(asked.columns):
            listed = ", ".join(f"`{name}`" for name in missing)
            message = f"`{each.name}` needs {listed}, which no column is given for"
            hint = f"add `patronus: {{columns: {{{missing[0]}: COLUMN}}}}`"
            yield _problem(evaluation, "columns", message, hint, "evaluators", index)


def _written(evaluation: Evaluation) -> str | None:
    """The `task_output` of the spec where it stands beside `model_to_evaluate`."""
    place = evaluation.places.mark("patronus", "columns", "task_output")
    if place == evaluation.places.mark("patronus", "columns") or place == evaluation.places.mark("patronus"):
        return None
    layer = next(each for each in reversed(evaluation.places.layers) if not each.at)
    written: Any = layer.document.value
    for key in ("patronus", "columns", "task_output"):
        written = written.get(key) if isinstance(written, dict) else None
    return written if isinstance(written, str) else None


def _place(evaluation: Evaluation, asked: Patronus) -> Iterator[Diagnostic]:
    if asked.app is not None and asked.experiment is not None:
        message = "results go to an app or to an experiment, not to both"
        yield _problem(evaluation, "place", message, "remove `app` or `experiment`", "patronus", "app")
    if asked.project is not None and asked.project_id is not None:
        message = "`project` comes before `project_id`, which then has no effect"
        found = _problem(evaluation, "place", message, "remove one of them", "patronus", "project_id")
        yield Diagnostic(code=found.code, message=message, mark=found.mark, hint=found.hint, severity=Severity.WARNING)
    if wire.MARK in asked.tags:
        message = f"the tag `{wire.MARK}` is how evalops knows its own results"
        yield _problem(evaluation, "tags", message, "choose another name", "patronus", "tags", wire.MARK)


def _billing(evaluation: Evaluation, asked: Patronus) -> Iterator[Diagnostic]:
    """A result that is not kept cannot be found again."""
    if asked.can_look_up or asked.lost_reply is not None:
        return
    kept = "no result" if asked.capture == "none" else "only the results that fail"
    yield Diagnostic(
        code="patronus/capture",
        message=f"with `capture: {asked.capture}` Patronus keeps {kept}: a call whose answer is lost is made again, "
        "and may be billed twice",
        mark=evaluation.places.mark("patronus", "capture"),
        hint="write `patronus: {capture: all}`, or say what is wanted with `lost_reply: repeat` or `lost_reply: error`",
        severity=Severity.WARNING,
    )


# --- the rows ---


class _Found(NamedTuple):
    what: str
    message: str
    column: str | None
    severity: Severity = Severity.ERROR


def check_rows(
    evaluation: Evaluation, rows: Iterable[Row], place: Callable[[Row, str | None], Mark]
) -> Iterator[Diagnostic]:
    """What is wrong with single rows: the first few of each severity, and how many more there are."""
    asked = evaluation.patronus
    if asked is None:
        return
    counts = {Severity.ERROR: 0, Severity.WARNING: 0}
    more: dict[Severity, Mark] = {}
    seen = Occurrences()
    for row in rows:
        for each in (*_row(asked, row), *_log_id(asked, row, seen)):
            counts[each.severity] += 1
            if counts[each.severity] > SHOWN:
                more.setdefault(each.severity, place(row, each.column))
                continue
            yield Diagnostic(
                code=f"patronus/{each.what}",
                message=f"row {row.position + 1}: {each.message}",
                mark=place(row, each.column),
                severity=each.severity,
            )
    for severity, mark in more.items():
        rest = counts[severity] - SHOWN
        message = f"{rest} more such problem{'s' * (rest > 1)} from here on"
        yield Diagnostic(code="patronus/more", message=message, mark=mark, severity=severity)


def _row(asked: Patronus, row: Row) -> Iterator[_Found]:
    cells = {name: row.source.get(column) for name, column in asked.columns.items()}
    has = {name for name, value in cells.items() if value not in (None, "", [])}
    if not has & {_IN, _OUT}:
        yield _Found("empty-row", "it has neither an input nor an output", asked.columns.get(_IN))
        return
    for name in dict.fromkeys(need for each in asked.graders for need in needs(each)):
        if name not in has and name in cells:
            names = ", ".join(f"`{each.name}`" for each in asked.graders if name in needs(each))
            message = f"`{asked.columns[name]}` is empty, and {names} cannot judge without it"
            yield _Found("empty-field", message, asked.columns[name], Severity.WARNING)
    yield from _context(asked, cells.get(_CONTEXT))
    yield from _attached(asked, cells.get("attachments"))


def _log_id(asked: Patronus, row: Row, seen: Occurrences) -> Iterator[_Found]:
    """What is looked for by a log id must be of one row."""
    column = asked.columns.get("log_id")
    own = row.source.get(column) if column and asked.capture != "none" else None
    if own not in (None, "") and seen.count(sha256(canonical(str(own)))) > 1:
        message = f"the log id in `{column}` is that of an earlier row too, and each would get the other's results"
        yield _Found("log-id", message, column)


def _context(asked: Patronus, cell: Any) -> Iterator[_Found]:
    texts, column = wire.context(cell) or [], asked.columns.get(_CONTEXT)
    if len(texts) > wire.MOST_CONTEXT:
        yield _Found("context", f"`{column}` has {len(texts)} texts, and {wire.MOST_CONTEXT} are allowed", column)
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size <= wire.MOST_TOKENS:  # a token has a byte at the least
        return
    count = tokens(texts)
    if count is None:
        message = f"`{column}` has {size:,} bytes, which may be more than {wire.MOST_TOKENS:,} tokens"
        hint = "; the extra `tokens` counts them"
        yield _Found("tokens", message + hint, column, Severity.WARNING)
    elif count > wire.MOST_TOKENS:
        yield _Found("tokens", f"`{column}` has {count:,} tokens, and {wire.MOST_TOKENS:,} are allowed", column)


def _attached(asked: Patronus, cell: Any) -> Iterator[_Found]:
    column = asked.columns.get("attachments")
    for each in wire.attachments(cell) or ():
        if not isinstance(each, dict) or not isinstance(each.get("url"), str) or not each["url"]:
            yield _Found("attachment", f"an attachment in `{column}` has no `url`", column)
        elif each.get("media_type") not in wire.MEDIA_TYPES:
            known = ", ".join(wire.MEDIA_TYPES)
            yield _Found("attachment", f"the `media_type` of an attachment in `{column}` is none of {known}", column)
        elif "usage_type" in each and each["usage_type"] not in wire.USAGE_TYPES:
            known = ", ".join(wire.USAGE_TYPES)
            yield _Found("attachment", f"the `usage_type` of an attachment in `{column}` is none of {known}", column)
        elif set(each) - {"url", "media_type", "usage_type"}:
            name = min(set(each) - {"url", "media_type", "usage_type"})
            yield _Found("attachment", f"an attachment in `{column}` has an unknown field `{name}`", column)


def tokens(texts: Iterable[str]) -> int | None:
    """The tokens of texts in o200k_base, counted exactly; None where the extra that counts is not installed."""
    encoding = _encoding()
    return None if encoding is None else sum(len(encoding.encode_ordinary(text)) for text in texts)


@cache
def _encoding() -> Any:
    try:
        import bpe_openai
    except ImportError:
        return None
    return bpe_openai.get_encoding("o200k_base")
