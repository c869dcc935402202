"""What a schema cannot say about thresholds and the headline: which metrics there are, which bounds mean something."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from evalops import schema
from evalops.document import KeyPath
from evalops.errors import Diagnostic, Mark
from evalops.metrics import summaries
from evalops.metrics.labels import CHOICES
from evalops.spec import NO_REGRESSION, Evaluation, Threshold, Type


def check(evaluation: Evaluation) -> Iterator[Diagnostic]:
    """Everything wrong with what is asked of the result."""
    for name in dict.fromkeys(threshold.metric for threshold in evaluation.thresholds):
        yield from _metric(evaluation, name, ("thresholds", name))
    for threshold in evaluation.thresholds:
        if _is_known(evaluation, threshold.metric):
            yield from _bounds(evaluation, threshold)
            yield from _groups(evaluation, threshold)
    if evaluation.metric is not None:
        if summaries.parse(evaluation.metric).of is None:
            yield from _metric(evaluation, evaluation.metric, ("metric",))
        else:
            yield _unknown(evaluation, evaluation.metric, evaluation.places.mark("metric"))
    if evaluation.no_regression and evaluation.type is Type.CLASSIFY and not evaluation.pass_labels:
        yield Diagnostic(
            code="spec/needs-pass",
            message=f"`{NO_REGRESSION}` needs to know what a pass is",
            mark=evaluation.places.mark("thresholds", NO_REGRESSION),
            hint="add `pass_labels`",
        )


def _metric(evaluation: Evaluation, name: str, route: KeyPath) -> Iterator[Diagnostic]:
    """A metric that the type does not have, or that this evaluation cannot give a value."""
    mark = evaluation.places.mark(*route)
    metric, of = summaries.parse(name)
    if not _is_known(evaluation, name):
        yield _unknown(evaluation, name, mark)
        return
    if of is not None and of not in _members(evaluation, metric):
        yield _no_member(evaluation, metric, of, mark)
    needs_gold = metric in (summaries.NEED_GOLD | set(summaries.BY_LABEL[Type.CLASSIFY]))
    if needs_gold and evaluation.gold is None and evaluation.type is not Type.CUSTOM:
        yield Diagnostic(
            code="spec/needs-gold",
            message=f"`{name}` needs the true answers",
            mark=mark,
            hint="name their column: `gold: COLUMN`",
        )
    elif _needs_pass(evaluation, metric) and not evaluation.pass_labels and evaluation.pass_threshold is None:
        needs = "pass_labels" if evaluation.type is Type.CLASSIFY else "pass_threshold"
        yield Diagnostic(
            code="spec/needs-pass",
            message=f"`{name}` needs to know what a pass is",
            mark=mark,
            hint=f"add `{needs}`",
        )
    elif _lacks_votes(evaluation, metric):
        several = "several verdicts of the same judge" if metric == "flip_rate" else "several verdicts on a row"
        yield Diagnostic(
            code="spec/needs-votes",
            message=f"`{name}` needs {several}",
            mark=mark,
            hint="add `repeats`" + ("" if metric == "flip_rate" else ", or several `judges`"),
        )


def _lacks_votes(evaluation: Evaluation, metric: str) -> bool:
    if metric == "flip_rate":
        return evaluation.repeats < 2
    return metric in summaries.NEED_VOTES and not evaluation.is_jury


def _is_known(evaluation: Evaluation, name: str) -> bool:
    metric, of = summaries.parse(name)
    return metric in (summaries.NAMES if of is None else summaries.BY_LABEL)[evaluation.type]


# What people call a metric elsewhere.
_FOREIGN = {
    "mean": "mean_score", "average": "mean_score", "median": "median_score", "std": "std_score",
    "pass_rate": "pass_percentage", "f1": "macro_f1", "f1_score": "macro_f1", "precision": "macro_precision",
    "recall": "macro_recall", "cohen_kappa": "kappa", "pearson_correlation": "pearson",
    "spearman_correlation": "spearman", "mean_absolute_error": "mae", "consistency_rate": "consistency",
}  # fmt: skip


def _unknown(evaluation: Evaluation, name: str, mark: Mark) -> Diagnostic:
    known = summaries.NAMES[evaluation.type]
    metric = summaries.parse(name).metric
    members = _members(evaluation, metric)
    if metric in summaries.BY_LABEL[evaluation.type] and name == metric != evaluation.metric:
        hint: str | None = f"it is of one label: `{metric}[{members[0]}]`"
    elif name == "bradley_terry":
        hint = "it is of several candidates: `evalops rank` has it"
    elif _FOREIGN.get(name) in known:
        hint = f"it is called `{_FOREIGN[name]}` here"
    else:
        owners = [f"`{type_.value}`" for type_, names in summaries.NAMES.items() if name in names]
        hint = f"it is one of type {', '.join(owners)}" if owners else schema.nearest(metric, known)
    return Diagnostic(
        code="spec/unknown-metric",
        message=f"`{name}` is no metric of type `{evaluation.type.value}`",
        mark=mark,
        hint=hint or f"its metrics are: {', '.join(known)}",
    )


def _members(evaluation: Evaluation, metric: str) -> Sequence[str]:
    """What a metric can be asked of: labels, choices or criteria."""
    if metric == "mean_score":
        return list(dict.fromkeys(each.name for judge in evaluation.judges for each in judge.criteria))
    return evaluation.labels if evaluation.type is Type.CLASSIFY else CHOICES


def _no_member(evaluation: Evaluation, metric: str, of: str, mark: Mark) -> Diagnostic:
    known = _members(evaluation, metric)
    what, all_ = ("criterion of the judge", "criteria") if metric == "mean_score" else ("label", "labels")
    names = ", ".join(f"`{each}`" for each in known[:20])
    return Diagnostic(
        code="spec/unknown-metric",
        message=f"`{of}` is no {what}",
        mark=mark,
        hint=schema.nearest(of, known) or (f"the {all_} are: {names}" if names else "add `criteria` to the judge"),
    )


def _needs_pass(evaluation: Evaluation, metric: str) -> bool:
    is_variance = metric in ("between_row_variance", "within_row_variance")
    return metric in summaries.NEED_PASS or (is_variance and evaluation.type is Type.CLASSIFY)


def _groups(evaluation: Evaluation, threshold: Threshold) -> Iterator[Diagnostic]:
    if threshold.by is None:
        return
    mark = evaluation.places.mark(*threshold.route)
    if threshold.by not in evaluation.group_by:
        yield Diagnostic(
            code="spec/needs-groups",
            message=f"the result is not broken down by `{threshold.by}`",
            mark=mark,
            hint=schema.nearest(threshold.by, evaluation.group_by) or f"add `group_by: [{threshold.by}]`",
        )
    if threshold.metric in summaries.NEED_VOTES or summaries.parse(threshold.metric).of is not None:
        yield Diagnostic(
            code="spec/needs-groups",
            message=f"`{threshold.metric}` is known of the whole result only, not of its groups",
            mark=mark,
            hint=f"groups have: {', '.join(_grouped(evaluation))}",
        )


def _grouped(evaluation: Evaluation) -> list[str]:
    return [name for name in summaries.NAMES[evaluation.type] if name not in summaries.NEED_VOTES]


def _bounds(evaluation: Evaluation, threshold: Threshold) -> Iterator[Diagnostic]:
    """A bound that nothing can break, or nothing keep, is a slip: a percentage where a share is meant, often."""
    name, least, most = threshold.metric, threshold.min, threshold.max
    if least is not None and most is not None and least > most:
        message = f"no value of `{name}` can keep this threshold: `min` is above `max`"
        yield Diagnostic(code="spec/threshold", message=message, mark=evaluation.places.mark(*threshold.route))
    if threshold.on != "estimate" and name in summaries.NO_INTERVAL:
        yield Diagnostic(
            code="spec/threshold",
            message=f"`{name}` has no interval, so it has no `{threshold.on}` bound to hold against a threshold",
            mark=evaluation.places.mark(*threshold.route, "on"),
            hint="leave out `on`: the threshold is for the estimate then",
        )
    low, high = _span(evaluation, summaries.parse(name).metric)
    if low >= high:
        return  # the range of scores is wrong, which is said elsewhere
    for bound, value in (("min", least), ("max", most)):
        if value is not None and not low <= value <= high:
            yield Diagnostic(
                code="spec/threshold",
                message=f"`{name}` lies between {low:g} and {high:g}, so `{bound}` cannot be {value:g}",
                mark=evaluation.places.mark(*threshold.route, bound),
                hint=f"a share is meant: {value / 100:g} is {value:g} %" if high == 1 < value <= 100 else None,
            )


def _span(evaluation: Evaluation, metric: str) -> tuple[float, float]:
    """The least and the greatest value that a metric can have."""
    low, high = evaluation.min_score or 0.0, evaluation.max_score or 0.0
    width = high - low
    most = width**2 if evaluation.type is Type.SCORE else 1.0
    spans = {
        "pass_percentage": (0.0, 100.0),
        "corrected_pass_percentage": (0.0, 100.0),
        "mean_score": (low, high),
        "median_score": (low, high),
        "std_score": (0.0, width),
        "mae": (0.0, width),
        "between_row_variance": (0.0, most),
        "within_row_variance": (0.0, most),
    }
    signed = ("kappa", "kappa_scored", "length_correlation", "pearson", "spearman", "agreement")
    return spans.get(metric, (-1.0 if metric in signed else 0.0, 1.0))
