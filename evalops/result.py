"""What came back: verdicts row by row, and the summary of a job as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

Value = str | float | None


class VerdictStatus(StrEnum):
    """scored: the judge's answer was understood. invalid: it was not. error: no answer came."""

    SCORED = "scored"
    INVALID = "invalid"
    ERROR = "error"


class Verdict(NamedTuple):
    """The judge's word on one row.

    `value` is a label, a score, or A, B or Tie; None unless scored. `reason` says why there is none
    (`unparsable`, `length`, `refusal`, `timeout` …), `feedback` is the judge's explanation or the error's text.
    `orders` is what a compare said in the given and in the flipped order, mapped back: `("A", "B")`. `lengths` are the
    characters of the judged responses, where they are still known.
    """

    key: str
    status: VerdictStatus
    value: Value = None
    reason: str | None = None
    feedback: str | None = None
    orders: tuple[str | None, str | None] | None = None
    rung: str | None = None
    lengths: tuple[int, ...] = ()


class Graded(NamedTuple):
    """A verdict with the row's true answer, None where it has none."""

    verdict: Verdict
    gold: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A number with its 95 % interval over `n` rows, or None with the reason why there is none."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The metric without what it does not have."""
        if self.value is None:
            return {"value": None, "reason": self.reason}
        value: dict[str, Any] = {"value": self.value}
        for key in ("low", "high", "n", "reason"):
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
    them, cost where prices are known. None is not known, for the reason given.
    """

    calls: int | None = 0
    kept: int | None = 0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """All fields, `reason` only where a number is missing."""
        value: dict[str, Any] = {
            "calls": self.calls,
            "kept": self.kept,
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cost": self.cost,
        }
        return {**value, "reason": self.reason} if self.reason else value


class Bounds(NamedTuple):
    """A rate if every row without a verdict had failed, and if every one had passed."""

    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifySummary:
    counts: Counts
    label_counts: Mapping[str, int]
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreSummary:
    counts: Counts
    score_counts: Mapping[str, int]
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareSummary:
    counts: Counts
    choice_counts: Mapping[str, int]
    ties_by_inconsistency: int
    metrics: Mapping[str, Metric]
    bounds: Mapping[str, Bounds]
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
    if summary.warnings:
        value["warnings"] = list(summary.warnings)
    if rungs:
        value["rungs"] = dict(sorted(rungs.items()))
    value["usage"] = usage.to_json() if isinstance(usage, Usage) else dict(usage)
    return value
