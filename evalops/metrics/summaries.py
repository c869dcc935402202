"""From verdicts to a summary, in one pass; and the names of the metrics that it has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from evalops.metrics import classification, opinions, tally
from evalops.metrics.breakdown import Breakdown
from evalops.metrics.labels import Choices, Labels
from evalops.metrics.measure import Moments
from evalops.metrics.opinions import Opinions
from evalops.metrics.scores import Scores
from evalops.result import (
    ClassifySummary,
    CompareSummary,
    Graded,
    Metric,
    Parts,
    ScoreSummary,
    Summary,
)
from evalops.spec import Evaluation, Type

_GOLD = classification.NAMES
_ALWAYS = (*tally.NAMES, *opinions.NAMES)
NAMES = {
    Type.CLASSIFY: ("pass_percentage", "corrected_pass_percentage", *_GOLD, *_ALWAYS),
    Type.SCORE: (
        "mean_score", "median_score", "normalized_mean", "std_score", "pass_percentage", "corrected_pass_percentage",
        "mae", "pearson", "spearman", "length_correlation", *_ALWAYS,
    ),
    Type.COMPARE: (
        "win_rate", "win_rate_no_ties", "tie_rate", "consistency", "first_slot_preference", "longer_wins",
        *_GOLD, *_ALWAYS,
    ),
    Type.CUSTOM: (
        "mean_score", "median_score", "std_score", "pass_percentage", "accuracy", "length_correlation", *tally.NAMES,
    ),
}  # fmt: skip
# With a label or a criterion behind it: `f1[rude]`, `mean_score[clarity]`.
BY_LABEL = {
    Type.CLASSIFY: classification.PARTS,
    Type.SCORE: ("mean_score",),
    Type.COMPARE: classification.PARTS,
    Type.CUSTOM: (),
}
# What a table shows first, where it is known.
HEADLINES = {
    Type.CLASSIFY: ("pass_percentage", "accuracy"),
    Type.SCORE: ("mean_score",),
    Type.COMPARE: ("win_rate",),
    Type.CUSTOM: ("mean_score",),
}
# What every group has, beside the metrics that thresholds or the headline name.
GROUPED = {
    Type.CLASSIFY: ("pass_percentage", "accuracy"),
    Type.SCORE: ("mean_score", "pass_percentage"),
    Type.COMPARE: ("win_rate", "accuracy"),
    Type.CUSTOM: ("mean_score", "pass_percentage"),
}
NEED_GOLD = frozenset({*_GOLD, "corrected_pass_percentage", "mae", "pearson", "spearman"})
NEED_PASS = frozenset({"pass_percentage", "corrected_pass_percentage"})
NEED_VOTES = frozenset(opinions.NAMES)
NO_INTERVAL = frozenset({"std_score", "between_row_variance", "within_row_variance"})

_NAME = re.compile(r"([a-z0-9_]+)(?:\[(.+)\])?", re.S)


class Name(NamedTuple):
    """A metric as thresholds name it: of the whole result, or of one label or criterion."""

    metric: str
    of: str | None = None


def parse(text: str) -> Name:
    """`f1[rude]` is the metric f1 of rude."""
    found = _NAME.fullmatch(text)
    return Name(found[1], found[2]) if found else Name(text)


def headline(type_: Type, is_known: Callable[[str], bool]) -> str:
    """The type's first metric that is known."""
    return next(filter(is_known, HEADLINES[type_]), HEADLINES[type_][0])


Gathered = Labels | Choices | Scores


def gather(evaluation: Evaluation) -> Gathered:
    """An empty count of rows of the evaluation's type."""
    match evaluation.type:
        case Type.CLASSIFY:
            return Labels(evaluation)
        case Type.COMPARE:
            return Choices(evaluation)
        case Type.SCORE | Type.CUSTOM:
            return Scores(evaluation)


def summarise(evaluation: Evaluation, graded: Iterable[Graded]) -> Summary:
    """The summary of all rows of a job, read once."""
    whole = gather(evaluation)
    votes = Opinions(evaluation, lambda: gather(evaluation)) if evaluation.is_jury else None
    breakdown = Breakdown(evaluation, lambda: gather(evaluation))
    criteria: dict[str, Moments] = {each.name: Moments() for judge in evaluation.judges for each in judge.criteria}
    for each in graded:
        whole.add(each)
        if each.groups:
            breakdown.add(each)
        if votes:
            votes.add(each)
        for name, value in (each.verdict.criteria or {}).items():
            criteria.setdefault(name, Moments()).add(value, each.cluster)
    metrics = whole.metrics() | (votes.metrics() if votes else {})
    wanted = grouped(evaluation, metrics)
    parts = Parts(
        criteria=_criteria(evaluation, criteria),
        judges=votes.judges((*wanted, "kappa")) if votes else (),
        disagreements=votes.disagreements() if votes else (),
        groups=breakdown.groups(wanted),
        ungrouped=breakdown.ungrouped,
    )
    notes = tuple(f"no breakdown by `{column}`: {reason}" for column, reason in breakdown.ungrouped.items())
    return _summary(whole, metrics, parts, notes)


def grouped(evaluation: Evaluation, metrics: Mapping[str, Metric]) -> tuple[str, ...]:
    """The metrics that each group has: a few that the whole has a value for, and those that the spec asks for."""
    usual = [name for name in GROUPED[evaluation.type] if metrics[name].value is not None]
    asked = [evaluation.metric, *(threshold.metric for threshold in evaluation.thresholds if threshold.by)]
    known = set(NAMES[evaluation.type]) - NEED_VOTES
    return tuple(dict.fromkeys([*usual, *(name for name in asked if name in known)]))


def _criteria(evaluation: Evaluation, found: Mapping[str, Moments]) -> dict[str, Metric]:
    low, high = evaluation.min_score or 0.0, evaluation.max_score or 0.0
    if evaluation.patronus is not None:
        low, high = 0.0, 1.0
    return {name: each.metric("no row has this criterion", low, high) for name, each in found.items()}


def _summary(whole: Gathered, metrics: Mapping[str, Metric], parts: Parts, notes: tuple[str, ...]) -> Summary:
    counts = whole.tally.counts()
    match whole:
        case Scores():
            return ScoreSummary(
                counts=counts,
                score_counts=whole.score_counts(),
                metrics=metrics,
                bounds=whole.tally.pass_bounds(whole.passed),
                parts=parts,
                warnings=(*whole.warnings(metrics["length_correlation"]), *notes),
            )
        case Labels():
            return ClassifySummary(
                counts=counts,
                label_counts=whole.label_counts(),
                metrics=metrics,
                bounds=whole.tally.pass_bounds(whole.passed),
                parts=_with_gold(parts, whole),
                warnings=(*whole.gold.warnings(), *notes),
            )
        case Choices():
            return CompareSummary(
                counts=counts,
                choice_counts=whole.label_counts(),
                ties_by_inconsistency=whole.ties_by_inconsistency,
                metrics=metrics,
                bounds={},
                parts=_with_gold(parts, whole),
                warnings=(*whole.warnings(), *notes),
            )


def _with_gold(parts: Parts, whole: Labels | Choices) -> Parts:
    return replace(parts, confusion=whole.gold.confusion(), per_label=whole.gold.by_label())
