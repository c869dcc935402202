"""What a ranking is made of: what rows give a candidate, where it stands, and the ranking as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from evalops.metrics import summaries
from evalops.metrics.labels import text_of
from evalops.metrics.measure import number
from evalops.result import Graded, Metric, VerdictStatus
from evalops.spec import Evaluation, Type

# The metrics that are means over rows.
MEANS = frozenset({"pass_percentage", "accuracy", "accuracy_scored", "mean_score", "mae", "invalid_rate", "error_rate"})
NEED_GOLD = MEANS & summaries.NEED_GOLD
# Where a row without a verdict counts as wrong; elsewhere, not at all.
OVER_ALL = frozenset({"accuracy", "kappa", "recall", "f1"})
LOWER_IS_BETTER = frozenset({"mae", "invalid_rate", "error_rate"})


class Points(NamedTuple):
    """What a row, or an item of several rows, gives a candidate: their sum, and the number of rows in it."""

    total: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One of those to be ranked, with the metric of its result. `points` by row; None where the rows are not here.

    `no_verdict` of its `rows` are invalid or errors; None is not known.
    """

    name: str
    address: str | None = None
    metric: Metric
    points: Mapping[str, Points] | None = None
    rows: int | None = None
    no_verdict: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where a candidate stands. `rank` is None, with the reason, for one that has no value.

    `rank_low` to `rank_high` holds its rank in 95 % of resamples of the rows. `difference` is to the leader, `p` of
    there being none, `p_adjusted` with all candidates in view (Holm). For games, `win_rate` counts ties half.
    """

    name: str
    address: str | None = None
    metric: Metric
    no_verdict: int | None = None
    rank: int | None = None
    rank_low: int | None = None
    rank_high: int | None = None
    wins: float | None = None
    win_rate: Metric | None = None
    difference: Metric | None = None
    test: str | None = None
    p: float | None = None
    p_adjusted: float | None = None
    reason: str | None = None

    def to_json(self) -> dict[str, Any]:
        """One flat object; what there is not is null."""
        value: dict[str, Any] = {"rank": self.rank, "rank_low": self.rank_low, "rank_high": self.rank_high}
        value |= {"name": self.name, "address": self.address}
        value |= {key: getattr(self.metric, key) for key in ("value", "low", "high", "n")}
        value["no_verdict"] = self.no_verdict
        if self.win_rate is not None:
            value |= {"wins": self.wins, "win_rate": self.win_rate.to_json()}
        value["difference"] = self.difference.to_json() if self.difference else None
        return {
            **value,
            "test": self.test,
            "p_vs_leader": self.p,
            "p_adjusted": self.p_adjusted,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """The candidates in order, the metric they are ranked by, and what all of them share."""

    metric: str
    standings: tuple[Standing, ...]
    dataset: Mapping[str, Any] = field(default_factory=dict)
    judge: Mapping[str, Any] = field(default_factory=dict)
    by: tuple[str, ...] = ()
    item: str | None = None
    is_paired: bool = True
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The machine form, which tables are rendered from."""
        return {
            "format_version": 1,
            "metric": self.metric,
            "dataset": dict(self.dataset),
            "judge": dict(self.judge),
            "by": list(self.by) or None,
            "item": self.item,
            "paired": self.is_paired,
            "candidates": [each.to_json() for each in self.standings],
            "warnings": list(self.warnings),
        }


def needs_gold(evaluation: Evaluation, metric: str) -> bool:
    """Whether points need the true answers, which the results of type custom have in them."""
    return metric in NEED_GOLD and evaluation.type is not Type.CUSTOM


def points_of(evaluation: Evaluation, metric: str, each: Graded) -> Points | None:
    """What a row adds to a metric that is a mean over rows, as `metrics` counts it; None where it does not count.

    Raises KeyError for a metric that is no such mean.
    """
    verdict = each.verdict
    scored = verdict.status is VerdictStatus.SCORED
    if metric in ("invalid_rate", "error_rate"):
        return Points(float(verdict.status.value == metric.removesuffix("_rate")), 1)
    if metric == "accuracy" and evaluation.type is Type.CUSTOM:
        least = evaluation.pass_threshold
        return None if least is None else Points(float(scored and float(verdict.value or 0.0) >= least), 1)
    if metric not in MEANS:
        raise KeyError(metric)
    if not scored and metric not in OVER_ALL:
        return None
    match metric:
        case "accuracy" | "accuracy_scored":
            label = text_of(each.gold)
            return None if label is None else Points(float(scored and str(verdict.value) == label), 1)
        case "pass_percentage" if evaluation.pass_threshold is not None:
            return Points(float(float(verdict.value or 0.0) >= evaluation.pass_threshold), 1)
        case "pass_percentage":
            return Points(float(verdict.value in evaluation.pass_labels), 1)
        case "mae":
            true = number(each.gold)
            return None if true is None else Points(abs(float(verdict.value or 0.0) - true), 1)
        case _:
            return Points(float(verdict.value or 0.0), 1)


def summed(points: Iterable[tuple[str, Points]]) -> dict[str, Points]:
    """The points of each item, or cluster, from those of its rows."""
    found: dict[str, Points] = {}
    for unit, (total, n) in points:
        before = found.get(unit, Points(0.0, 0))
        found[unit] = Points(before.total + total, before.n + n)
    return found


def is_over_all(metric: str) -> bool:
    """Whether rows without a verdict count as wrong, by any label or average of the metric."""
    return re.sub(r"\[.*|^(macro|weighted|micro)_", "", metric, flags=re.S) in OVER_ALL


def scale_of(metric: str) -> float:
    """What a mean over rows is multiplied with: only percentages are 0 to 100."""
    return 100.0 if metric.endswith("percentage") else 1.0
