"""What a schema cannot say about an evaluation: checked without reading a row."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from evalops import metrics, schema, template
from evalops.errors import Diagnostic, Mark, Severity
from evalops.spec import Column, Evaluation, Text, Threshold, Type


def check(evaluation: Evaluation) -> list[Diagnostic]:
    """Everything wrong with one evaluation by itself."""
    return [
        *_columns(evaluation),
        *_labels(evaluation),
        *_range(evaluation),
        *_thresholds(evaluation),
        *_templates(evaluation),
        *_judge(evaluation),
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
    """The columns that the templates of an evaluation use."""
    found: set[str] = set()
    for text in evaluation.texts:
        parsed = template.parse(text.source)
        if isinstance(parsed, template.Template):
            found |= parsed.variables
    return frozenset(found)


def place(evaluation: Evaluation, column: str) -> Mark:
    """Where an evaluation names a column: a line of a template, or a field."""
    if column in evaluation.dataset.columns:
        return evaluation.places.mark("dataset", "columns", column)
    for key, candidate in zip(("model_a", "model_b") if len(evaluation.candidates) == 2 else ("model_to_evaluate",),
                              evaluation.candidates, strict=False):  # fmt: skip
        if isinstance(candidate, Column) and candidate == column:
            return evaluation.places.mark(key)
    if evaluation.judge.column == column:
        return evaluation.places.mark("judge", "column")
    for text in evaluation.texts:
        parsed = template.parse(text.source)
        if isinstance(parsed, template.Template) and column in parsed.variables:
            return _line(evaluation, text, *_position(text.source, column))
    if evaluation.gold == column:
        return evaluation.places.mark("gold")
    return evaluation.places.mark("dataset")


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


def _thresholds(evaluation: Evaluation) -> Iterator[Diagnostic]:
    known = metrics.NAMES[evaluation.type]
    for threshold in evaluation.thresholds:
        mark = evaluation.places.mark("thresholds", threshold.metric)
        name = threshold.metric
        if name not in known:
            yield Diagnostic(
                code="spec/unknown-metric",
                message=f"`{name}` is no metric of type `{evaluation.type.value}`",
                mark=mark,
                hint=schema.nearest(name, known) or f"its metrics are: {', '.join(known)}",
            )
        elif name in metrics.NEED_GOLD and evaluation.gold is None:
            yield Diagnostic(
                code="spec/needs-gold",
                message=f"`{name}` needs the true answers",
                mark=mark,
                hint="name their column: `gold: COLUMN`",
            )
        elif name == "pass_percentage" and not evaluation.pass_labels and evaluation.pass_threshold is None:
            needs = "pass_labels" if evaluation.type is Type.CLASSIFY else "pass_threshold"
            yield Diagnostic(
                code="spec/needs-pass",
                message=f"`{name}` needs to know what a pass is",
                mark=mark,
                hint=f"add `{needs}`",
            )
        if name in known:
            yield from _bounds(evaluation, threshold, mark)


def _bounds(evaluation: Evaluation, threshold: Threshold, mark: Mark) -> Iterator[Diagnostic]:
    """A bound that nothing can break, or nothing keep, is a slip: a percentage where a share is meant, often."""
    name, least, most = threshold.metric, threshold.min, threshold.max
    if least is not None and most is not None and least > most:
        message = f"no value of `{name}` can keep this threshold: `min` is above `max`"
        yield Diagnostic(code="spec/threshold", message=message, mark=mark)
    low, high = _span(evaluation, name)
    if low >= high:
        return  # the range of scores is wrong, which is said elsewhere
    for bound, value in (("min", least), ("max", most)):
        if value is not None and not low <= value <= high:
            yield Diagnostic(
                code="spec/threshold",
                message=f"`{name}` lies between {low:g} and {high:g}, so `{bound}` cannot be {value:g}",
                mark=evaluation.places.mark("thresholds", name, bound),
                hint=f"a share is meant: {value / 100:g} is {value:g} %" if high == 1 < value <= 100 else None,
            )


def _span(evaluation: Evaluation, metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    low, high = evaluation.min_score or 0.0, evaluation.max_score or 0.0
    spans = {
        "pass_percentage": (0.0, 100.0),
        "mean_score": (low, high),
        "std_score": (0.0, high - low),
        "mae": (0.0, high - low),
        "kappa": (-1.0, 1.0),
        "length_correlation": (-1.0, 1.0),
    }
    return spans.get(metric, (0.0, 1.0))


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


def _same_family(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """A judge prefers texts of its own kind (arXiv 2404.13076)."""
    judge = evaluation.judge.model
    for model in evaluation.models:
        if judge is not None and model is not judge and _family(model.model) == _family(judge.model):
            yield Diagnostic(
                code="spec/same-family",
                message=f"`{judge.model}` judges what `{model.model}` writes: judges prefer texts of their own family",
                mark=evaluation.places.mark(*judge.route, "model"),
                hint="a judge of another family is the safer choice",
                severity=Severity.WARNING,
            )


def _family(model: str) -> str:
    """`gpt` of `openai/gpt-4o`, `smollm` of `embedded/smollm2-135m`."""
    name = model.rsplit("/", 1)[-1].casefold()
    found = re.match(r"[a-z]+", name)
    return found.group() if found else name


def _judge(evaluation: Evaluation) -> Iterator[Diagnostic]:
    judge = evaluation.judge
    if judge.column is not None:
        for key in ("model_to_evaluate", "model_a", "model_b"):
            if any(model.route == (key,) for model in evaluation.models):
                yield Diagnostic(
                    code="spec/judge",
                    message=f"the verdicts are recorded in a column, so `{key}` cannot write new responses",
                    mark=evaluation.places.mark(key),
                )
        return
    yield from _same_family(evaluation)
    if judge.likelihood and (evaluation.type is not Type.CLASSIFY or len(evaluation.models) > 1):
        yield Diagnostic(
            code="spec/judge",
            message="`verdict: likelihood` is for type `classify` with responses from a column",
            mark=evaluation.places.mark("judge", "verdict"),
        )
    broken = any(not isinstance(template.parse(text.source), template.Template) for text in evaluation.texts)
    if not evaluation.candidates and not broken and not variables(evaluation):
        yield Diagnostic(
            code="template/no-columns",
            message="the judge's template uses no column, so every row gets the same question",
            mark=evaluation.places.mark("judge", "system_template"),
            hint="name a column, like {{ response }}, or set `model_to_evaluate`",
        )
