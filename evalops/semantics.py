"""What a schema cannot say about an evaluation: checked without reading a row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from evalops import judging, schema, template
from evalops.errors import Diagnostic, Mark, Severity
from evalops.evaluators import kinds
from evalops.metrics import thresholds
from evalops.spec import Column, Evaluation, Model, Text, Type


def check(evaluation: Evaluation) -> list[Diagnostic]:
    """Everything wrong with one evaluation by itself."""
    return [
        *_columns(evaluation),
        *_upload(evaluation),
        *_patronus(evaluation),
        *_labels(evaluation),
        *_range(evaluation),
        *thresholds.check(evaluation),
        *_templates(evaluation),
        *_judges(evaluation),
        *judging.check(evaluation),
        *kinds.check(evaluation),
    ]


def unique(evaluations: Iterable[Evaluation]) -> list[Diagnostic]:
    """Addresses that more than one evaluation has."""
    evaluations = list(evaluations)
    counts = Counter(each.address for each in evaluations)
    first: dict[str, Mark] = {}
    problems = []
    for each in evaluations:
        mark = each.places.mark("name")
        if counts[each.address] > 1 and each.address in first:
            problems.append(
                Diagnostic(
                    code="spec/duplicate-name",
                    message=f"`{each.address}` is already the address of the evaluation at {first[each.address]}",
                    mark=mark,
                    hint="give one of them another `name`",
                )
            )
        first.setdefault(each.address, mark)
    return problems


def variables(evaluation: Evaluation) -> frozenset[str]:
    """The columns that the templates of an evaluation use. A judge's criteria are none, whatever the dataset has."""
    found: set[str] = set()
    own = {id(judge.template) for judge in evaluation.judges if judge.criteria}
    for text in evaluation.texts:
        parsed = template.parse(text.source)
        if isinstance(parsed, template.Template):
            found |= parsed.variables - ({judging.CRITERIA} if id(text) in own else set())
    return frozenset(found)


def place(evaluation: Evaluation, column: str) -> Mark:
    """Where an evaluation names a column: a line of a template, or a field."""
    if column in evaluation.dataset.columns:
        return evaluation.places.mark("dataset", "columns", column)
    for key, candidate in zip(("model_a", "model_b") if len(evaluation.candidates) == 2 else ("model_to_evaluate",),
                              evaluation.candidates, strict=False):  # fmt: skip
        if isinstance(candidate, Column) and candidate == column:
            found, mark = evaluation.places.mark(key), evaluation.places.mark
            return found if found != mark() else mark("patronus", "columns", "task_output")
    for judge in evaluation.judges:
        if judge.column == column:
            return evaluation.places.mark(*judge.route, "column")
    for text in evaluation.texts:
        parsed = template.parse(text.source)
        if isinstance(parsed, template.Template) and column in parsed.variables:
            return _line(evaluation, text, *_position(text.source, column))
    asked = evaluation.patronus
    if asked is not None and column in asked.columns.values():
        name = next(name for name, each in asked.columns.items() if each == column)
        return evaluation.places.mark("patronus", "columns", name)
    return evaluation.places.mark(*_field(evaluation, column))


def _field(evaluation: Evaluation, column: str) -> tuple[str | int, ...]:
    """The field beside templates, candidates and judges that names a column."""
    ref = evaluation.dataset
    if column == evaluation.gold:
        return ("gold",)
    if column in evaluation.group_by:
        return ("group_by", evaluation.group_by.index(column))
    if column == evaluation.cluster:
        return ("cluster",)
    if column == ref.id:
        return ("dataset", "id")
    return ("dataset", "sample", "by") if ref.sample and column == ref.sample.by else ("dataset",)


def _line(evaluation: Evaluation, text: Text, number: int, column: int = 1) -> Mark:
    if text.file:
        return Mark(text.file, number, column)
    return evaluation.places.line(text.route, number, text.source.split("\n")[number - 1], column)


def _position(source: str, column: str) -> tuple[int, int]:
    """Line and column, from 1, where a template first names a column inside a tag."""
    for tag in re.finditer(r"\{\{.*?\}\}|\{%.*?%\}", source, re.S):
        name = re.search(rf"(?<![\w.]){re.escape(column)}\b", tag.group())
        if name:
            before = source[: tag.start() + name.start()]
            return before.count("\n") + 1, len(before) - before.rfind("\n")
    return 1, 1


def _columns(evaluation: Evaluation) -> Iterator[Diagnostic]:
    seen: set[str] = set()
    for ours, theirs in evaluation.dataset.columns.items():
        if theirs in seen:
            yield Diagnostic(
                code="spec/columns",
                message=f"`dataset.columns` gives the column `{theirs}` more than one name",
                mark=evaluation.places.mark("dataset", "columns", ours),
                hint="keep one of them",
            )
        seen.add(theirs)


def _upload(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """A file that Together has is judged as it lies there."""
    ref, mark = evaluation.dataset, evaluation.places.mark
    if ref.file_id is None:
        return
    if evaluation.provider != "together":
        yield Diagnostic(
            code="spec/file-id",
            message=f"`file_id` is a file at Together, and the provider is `{evaluation.provider}`",
            mark=mark("dataset", "file_id"),
            hint="write `provider: together`, or `path:` with a file of the project",
        )
    for key, is_set in (("columns", bool(ref.columns)), ("sample", ref.sample is not None)):
        if is_set:
            yield Diagnostic(
                code="spec/file-id",
                message=f"Together judges the file `{ref.file_id}` as it is, so `{key}` has no effect on it",
                mark=mark("dataset", key),
                hint=f"remove `{key}`, or use `path:` with a file of the project: evalops uploads what is in use of it",
            )
    used = variables(evaluation) | set(evaluation.response_columns)
    graded = (evaluation.gold, *evaluation.group_by, evaluation.cluster, ref.id)
    for column in dict.fromkeys(each for each in graded if each is not None and each not in used):
        yield Diagnostic(
            code="spec/file-id",
            message=f"no template uses the column `{column}`, and Together refuses a file that has such a column",
            mark=mark(*_field(evaluation, column)),
            hint="use `path:` with a file of the project: evalops uploads only the columns that the templates use",
        )


def _patronus(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """Only one service knows these evaluators."""
    if evaluation.patronus is None or evaluation.provider == "patronus":
        return
    key = "evaluators" if evaluation.patronus.graders else "patronus"
    yield Diagnostic(
        code="spec/patronus",
        message=f"`{key}` is for Patronus, and the provider is `{evaluation.provider}`",
        mark=evaluation.places.mark(key),
        hint="write `provider: patronus`, or a `judge` in its place",
    )


def _labels(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for index, label in enumerate(evaluation.pass_labels):
        if label not in evaluation.labels:
            yield Diagnostic(
                code="spec/pass-labels",
                message=f"`pass_labels` names `{label}`, which is not one of the labels",
                mark=evaluation.places.mark("pass_labels", index),
                hint=schema.nearest(label, evaluation.labels)
                or f"the labels are: {', '.join(f'`{each}`' for each in evaluation.labels)}",
            )
    if evaluation.labels and set(evaluation.pass_labels) >= set(evaluation.labels):
        yield Diagnostic(
            code="spec/pass-labels",
            message="every label is in `pass_labels`, so no row can fail",
            mark=evaluation.places.mark("pass_labels"),
            severity=Severity.WARNING,
        )
    first: dict[str, str] = {}
    for index, label in enumerate(evaluation.labels):
        other = first.setdefault(label.strip().casefold(), label)
        if other != label:
            yield Diagnostic(
                code="spec/labels",
                message=f"the label `{label}` differs from `{other}` by case or spaces only",
                mark=evaluation.places.mark("labels", index),
                hint="a judge cannot keep them apart: choose another word",
            )
        if "\n" in label or not label.strip():
            yield Diagnostic(
                code="spec/labels",
                message="a label must be one line of text",
                mark=evaluation.places.mark("labels", index),
            )


def _range(evaluation: Evaluation) -> Iterator[Diagnostic]:
    low, high, threshold = evaluation.min_score, evaluation.max_score, evaluation.pass_threshold
    if low is None or high is None:
        return
    if low >= high:
        yield Diagnostic(
            code="spec/range",
            message=f"`min_score` ({low:g}) must be below `max_score` ({high:g})",
            mark=evaluation.places.mark("min_score"),
        )
    elif threshold is not None and not low <= threshold <= high:
        yield Diagnostic(
            code="spec/range",
            message=f"`pass_threshold` is {threshold:g}, outside the range {low:g} to {high:g}",
            mark=evaluation.places.mark("pass_threshold"),
        )


def _templates(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for text in evaluation.texts:
        parsed = template.parse(text.source)
        if isinstance(parsed, template.Template):
            continue
        for problem in parsed:
            yield Diagnostic(
                code=problem.code,
                message=problem.message,
                mark=_line(evaluation, text, problem.line),
                hint=problem.hint,
            )


def _judges(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for judge in evaluation.judges:
        if judge.column is not None:
            yield from _recorded(evaluation)
        elif judge.likelihood and (evaluation.type is not Type.CLASSIFY or _models(evaluation)):
            yield Diagnostic(
                code="spec/judge",
                message="`verdict: likelihood` is for type `classify` with responses from a column",
                mark=evaluation.places.mark(*judge.route, "verdict"),
            )
    broken = any(not isinstance(template.parse(text.source), template.Template) for text in evaluation.texts)
    if evaluation.judge.template and not evaluation.candidates and not broken and not variables(evaluation):
        yield Diagnostic(
            code="template/no-columns",
            message="the judge's template uses no column, so every row gets the same question",
            mark=evaluation.places.mark(*evaluation.judge.route, "system_template"),
            hint="name a column, like {{ response }}, or set `model_to_evaluate`",
        )


def _recorded(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for key in _models(evaluation):
        yield Diagnostic(
            code="spec/judge",
            message=f"the verdicts are recorded in a column, so `{key}` cannot write new responses",
            mark=evaluation.places.mark(key),
        )


def _models(evaluation: Evaluation) -> list[str]:
    """The candidates that write new responses, by their keys in the spec."""
    return [str(each.route[0]) for each in evaluation.candidates if isinstance(each, Model)]
