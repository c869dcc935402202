"""What came back: verdicts row by row, and the summary of a job as one frozen value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

Value = str | float | None
SMALL = 30  # scored rows; a group of fewer says little


class VerdictStatus(StrEnum):
    """scored: the judge's answer was understood. invalid: it was not. error: no answer came."""

    SCORED = "scored"
    INVALID = "invalid"
    ERROR = "error"


class Vote(NamedTuple):
    """One of several opinions on a row: the judge's place in the spec, from 0, and which repeat, from 1."""

    judge: int
    repeat: int
    status: VerdictStatus
    value: Value = None
    reason: str | None = None


class Verdict(NamedTuple):
    """The judge's word on one row.

    `value` is a label, a score, or A, B or Tie; None unless scored. `reason` says why there is none
    (`unparsable`, `length`, `refusal`, `timeout` …), `feedback` is the judge's explanation or the error's text.
    `orders` is what a compare said in the given and in the flipped order, mapped back: `("A", "B")`. `lengths` are the
    characters of the judged responses, where they are still known. `votes` are what the verdict was made of, where
    there are several; `criteria` are the numbers that a score is the weighted mean of.
    """

    key: str
    status: VerdictStatus
    value: Value = None
    reason: str | None = None
    feedback: str | None = None
    orders: tuple[str | None, str | None] | None = None
    rung: str | None = None
    lengths: tuple[int, ...] = ()
    votes: tuple[Vote, ...] = ()
    criteria: Mapping[str, float] | None = None


class Graded(NamedTuple):
    """A verdict with the row's true answer, its values in the columns of `group_by`, and its cluster."""

    verdict: Verdict
    gold: Value
    groups: tuple[str, ...] = ()
    cluster: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number with its 95 % interval over `n` rows, or None with the reason why there is none.

    `clusters` is their number where the interval counts clusters. Beside a number, `reason` says what is odd about it,
    or why it has no interval.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    clusters: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The metric without what it does not have."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        value: dict[str, Any] = {"value": self.value}
        for key in ("low", "high", "n", "clusters", "reason"):
            if getattr(self, key) is not None:
                value[key] = getattr(self, key)
        return value

    @staticmethod
    def absent(reason: str) -> Metric:
        return Metric(value=None, reason=reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Every row is scored, invalid or an error; the reasons are counted too."""

    rows: int
    scored: int
    invalid: int
    errors: int
    invalid_reasons: Mapping[str, int] = field(default_factory=dict)
    error_reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a job took: calls that were answered and replies kept from before, tokens where the endpoints count
    them, cost where prices are known. None is not known, for the reason given. `saved` are the calls that a cascade
    did not have to make. `intervals` are those that a service gives itself, by evaluator. `averages` are the tokens of
    a reply by stage, replies that were kept included: what the next plan counts with. `estimate` is what was expected,
    where the cost is not known.
    """

    calls: int | None = 0
    kept: int | None = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    saved: int = 0
    reason: str | None = None
    intervals: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    averages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    estimate: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The numbers, and of the rest what there is."""
        value: dict[str, Any] = {
            "calls": self.calls,
            "kept": self.kept,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
        }
        more = {
            "saved": self.saved,
            "reason": self.reason,
            "estimate": dict(self.estimate or {}),
            "averages": {stage: dict(each) for stage, each in self.averages.items()},
            "intervals": dict(self.intervals),
        }
        return value | {key: each for key, each in more.items() if each}


def total(used: Iterable[Usage]) -> dict[str, Any]:
    """What several jobs took, in the form of one; a number that is not known of one of them is not known of all.

    An estimate stands for the cost of all of them, with what was counted in it.
    """
    found = list(used)
    value: dict[str, Any] = {"saved": sum(each.saved for each in found)}
    for name in ("calls", "kept", "prompt_tokens", "completion_tokens", "cost"):
        numbers = [getattr(each, name) for each in found if each.calls != 0 or each.kept]
        value[name] = None if None in numbers else sum(numbers)
    value["kept"] = sum(each.kept or 0 for each in found)
    reasons = [each.reason for each in found if each.cost is None and each.reason]
    if reasons:
        value["reason"] = "; ".join(dict.fromkeys(reasons))
    costs = [each.cost if each.cost is not None else (each.estimate or {}).get("cost") for each in found]
    if value["cost"] is None and None not in costs:
        value["estimate"] = {"cost": sum(cost or 0.0 for cost in costs)}
    return value


class Bounds(NamedTuple):
    """A rate if every row without a verdict had failed, and if every one had passed."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelMetrics:
    """One label against gold: `support` rows have it as their true answer."""

    support: int
    precision: Metric
    recall: Metric
    f1: Metric

    def to_json(self) -> dict[str, Any]:
        """The three metrics by name."""
        metrics = {name: getattr(self, name).to_json() for name in ("precision", "recall", "f1")}
        return {"support": self.support, **metrics}


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How many rows have a true label (rows) and a verdict (columns), or the reason why that is not kept."""

    labels: tuple[str, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The matrix, or the reason alone."""
        if self.reason:
            return {"reason": self.reason}
        return {"labels": list(self.labels), "rows": [list(row) for row in self.rows]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows with one value in a column; `label_counts` only where no metric says anything of them."""

    rows: int
    scored: int
    metrics: Mapping[str, Metric]
    label_counts: Mapping[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The group; `small` where it has too few verdicts to say much."""
        value: dict[str, Any] = {"rows": self.rows, "scored": self.scored}
        if self.scored < SMALL:
            value["small"] = True
        if self.label_counts:
            value["label_counts"] = dict(self.label_counts)
        return value | {"metrics": {name: metric.to_json() for name, metric in self.metrics.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeResult:
    """One judge of several: what it is called, and its own votes."""

    judge: str
    votes: int
    scored: int
    invalid: int
    errors: int
    metrics: Mapping[str, Metric]

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        counts = {name: getattr(self, name) for name in ("judge", "votes", "scored", "invalid", "errors")}
        return {**counts, "metrics": {name: metric.to_json() for name, metric in self.metrics.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a result has beside its metrics, each where the spec asks for it.

    `ungrouped` says why a column has no groups. `disagreements` are the keys of the rows on which votes differ most.
    """

    confusion: Confusion | None = None
    per_label: Mapping[str, LabelMetrics] = field(default_factory=dict)
    criteria: Mapping[str, Metric] = field(default_factory=dict)
    judges: tuple[JudgeResult, ...] = ()
    disagreements: tuple[str, ...] = ()
    groups: Mapping[str, Mapping[str, Group]] = field(default_factory=dict)
    ungrouped: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The parts that there are."""
        value = {
            "confusion": self.confusion and self.confusion.to_json(),
            "per_label": {label: each.to_json() for label, each in self.per_label.items()},
            "criteria": {name: each.to_json() for name, each in self.criteria.items()},
            "judges": [each.to_json() for each in self.judges],
            "disagreements": list(self.disagreements),
            "groups": {
                column: {name: group.to_json() for name, group in groups.items()}
                for column, groups in self.groups.items()
            },
            "ungrouped": dict(self.ungrouped),
        }
        return {key: each for key, each in value.items() if each}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifySummary:
    counts: Counts
    label_counts: Mapping[str, int]
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
    parts: Parts = Parts()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    counts: Counts
    score_counts: Mapping[str, int]
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
    parts: Parts = Parts()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSummary:
    counts: Counts
    choice_counts: Mapping[str, int]
    ties_by_inconsistency: int
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
    parts: Parts = Parts()
    warnings: tuple[str, ...] = ()


Summary = ClassifySummary | ScoreSummary | CompareSummary


def to_json(summary: Summary, usage: Usage | Mapping[str, Any], rungs: Mapping[str, int]) -> dict[str, Any]:
    """The summary as it stands in a lockfile and in `show --format json`; `usage` may be an earlier one's JSON."""
    counts = summary.counts
    value: dict[str, Any] = {
        "rows": counts.rows,
        "scored": counts.scored,
        "invalid": counts.invalid,
        "errors": counts.errors,
    }
    for key in ("invalid_reasons", "error_reasons"):
        if getattr(counts, key):
            value[key] = dict(sorted(getattr(counts, key).items()))
    match summary:
        case ClassifySummary():
            value["label_counts"] = dict(summary.label_counts)
        case ScoreSummary():
            value["score_counts"] = dict(summary.score_counts)
        case CompareSummary():
            value["choice_counts"] = dict(summary.choice_counts)
            value["ties_by_inconsistency"] = summary.ties_by_inconsistency
    value["metrics"] = {name: metric.to_json() for name, metric in summary.metrics.items()}
    value["bounds"] = {name: {"low": each.low, "high": each.high} for name, each in summary.bounds.items()}
    value |= summary.parts.to_json()
    if summary.warnings:
        value["warnings"] = list(summary.warnings)
    if rungs:
        value["rungs"] = dict(sorted(rungs.items()))
    value["usage"] = usage.to_json() if isinstance(usage, Usage) else dict(usage)
    return value
