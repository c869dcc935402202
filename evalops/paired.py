"""Two results of one evaluation side by side: what changed on the rows that both have, and whether that is chance."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from evalops.errors import Diagnostic, EvalopsError
from evalops.metrics.labels import POINTS
from evalops.result import Metric, Value, Verdict, VerdictStatus
from evalops.spec import Type
from evalops.stats import contrast, intervals, resample

MCNEMAR = "McNemar's exact test"
BOOTSTRAP = "paired bootstrap, random sign flips"
UNPAIRED = "two separate samples"

_NO_SHARED = "no row has a verdict in both results"
_SIGNIFICANT = 0.05


class Flip(NamedTuple):
    """A row whose outcome changed."""

    key: str
    before: Value
    after: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Paired:
    """The difference of two results, new less old.

    `metric` is what `difference` is of: `pass_percentage`, `mean_score`, `win_rate`, or `changed_labels` (0 to 1, not
    a difference but how many rows changed). It goes over the `shared` rows, which have a verdict in both results.
    `p` is None with the `reason` where there is no test; `p_adjusted` counts the other evaluations in (`holm`).
    `lost` and `gained` are the rows that got worse and better; `flips` those that passed once and failed once, or
    without a bound between pass and fail, those with another value; all in the order of their keys.
    """

    metric: str
    shared: int
    difference: Metric
    test: str | None
    p: float | None
    p_adjusted: float | None = None
    reason: str | None = None
    lost: int = 0
    gained: int = 0
    flips: tuple[Flip, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    gained_verdict: tuple[str, ...] = ()
    lost_verdict: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {
            "metric": self.metric,
            "shared": self.shared,
            "difference": self.difference.to_json(),
            "test": self.test,
            "p": self.p,
            "p_adjusted": self.p_adjusted,
            **({"reason": self.reason} if self.reason else {}),
            "lost": self.lost,
            "gained": self.gained,
            "flips": [flip._asdict() for flip in self.flips],
            "added": list(self.added),
            "removed": list(self.removed),
            "gained_verdict": list(self.gained_verdict),
            "lost_verdict": list(self.lost_verdict),
        }


def compare(
    before: Iterable[Verdict],
    after: Iterable[Verdict],
    kind: Type,
    *,
    pass_labels: Sequence[str] = (),
    pass_threshold: float | None = None,
    seed: int = resample.SEED,
) -> Paired:
    """What changed from one result to the other, the same for any order of their verdicts.

    Raises EvalopsError where a result has two verdicts on one row.
    """
    old, new = _by_key(before), _by_key(after)
    both = sorted(old.keys() & new.keys())
    scored = [key for key in both if _is_scored(old[key]) and _is_scored(new[key])]
    pairs = [Flip(key, old[key].value, new[key].value) for key in scored]
    match kind:
        case Type.CLASSIFY if pass_labels:
            found = _rates(pairs, frozenset(pass_labels))
        case Type.CLASSIFY:
            found = _labels(pairs)
        case Type.COMPARE:
            found = _means("win_rate", pairs, _points, _points, seed)
        case _:
            found = _means("mean_score", pairs, _score, _passed_at(pass_threshold), seed)
    return replace(
        found,
        added=tuple(sorted(new.keys() - old.keys())),
        removed=tuple(sorted(old.keys() - new.keys())),
        gained_verdict=tuple(key for key in both if _is_scored(new[key]) and not _is_scored(old[key])),
        lost_verdict=tuple(key for key in both if _is_scored(old[key]) and not _is_scored(new[key])),
    )


class Tested(NamedTuple):
    """A difference over n rows, and the p-value of there being none."""

    difference: Metric
    p: float | None


def rates(lost: int, gained: int, n: int, scale: float = 1.0) -> Tested:
    """The difference of two rates over the same n rows, `lost` and `gained` of which changed, times `scale`."""
    if n == 0:
        return Tested(Metric.absent(_NO_SHARED), None)
    low, high = contrast.paired_rates(lost, gained, n)
    difference = Metric(value=scale * (gained - lost) / n, low=scale * low, high=scale * high, n=n)
    return Tested(difference, contrast.mcnemar(lost, gained))


def means(differences: Mapping[float, int], n: int, scale: float = 1.0, seed: int = resample.SEED) -> Tested:
    """The mean of differences over n rows, given as counts by difference, times `scale`."""
    if n == 0:
        return Tested(Metric.absent(_NO_SHARED), None)
    found = resample.paired_mean(differences, seed=seed)
    difference = Metric(value=scale * found.value, n=n, reason="all rows differ by the same")
    if found.interval:
        low, high = (scale * end for end in found.interval)
        difference = replace(difference, low=low, high=high, reason=None)
    return Tested(difference, found.p)


def _by_key(verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
    found: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.key in found:
            raise EvalopsError(
                Diagnostic(
                    code="verdicts/duplicate",
                    message=f"row `{verdict.key}` has two verdicts in one result, so it cannot be compared",
                    hint="restore the verdicts file from git, or run the evaluation again",
                )
            )
        found[verdict.key] = verdict
    return found


def _is_scored(verdict: Verdict) -> bool:
    return verdict.status is VerdictStatus.SCORED


def _rates(pairs: Sequence[Flip], pass_labels: frozenset[str]) -> Paired:
    """The difference of the pass percentages, in points of a hundred."""
    flips = tuple(pair for pair in pairs if (pair.before in pass_labels) != (pair.after in pass_labels))
    gained = sum(flip.after in pass_labels for flip in flips)
    lost, n = len(flips) - gained, len(pairs)
    difference, p = rates(lost, gained, n, 100.0)
    return Paired(
        metric="pass_percentage",
        shared=n,
        difference=difference,
        test=MCNEMAR if n else None,
        p=p,
        reason=None if n else _NO_SHARED,
        lost=lost,
        gained=gained,
        flips=flips,
    )


def _labels(pairs: Sequence[Flip]) -> Paired:
    """The share of rows with another label: without `pass_labels` there is no better and worse to test."""
    flips = tuple(pair for pair in pairs if pair.before != pair.after)
    share = Metric.absent(_NO_SHARED)
    if pairs:
        share = Metric(
            value=len(flips) / len(pairs), **intervals.wilson(len(flips), len(pairs))._asdict(), n=len(pairs)
        )
    return Paired(
        metric="changed_labels",
        shared=len(pairs),
        difference=share,
        test=None,
        p=None,
        reason="no pass_labels, so no label is better than another" if pairs else _NO_SHARED,
        flips=flips,
    )


def _means(
    metric: str,
    pairs: Sequence[Flip],
    number: Callable[[Value], float],
    outcome: Callable[[Value], Value],
    seed: int,
) -> Paired:
    """The difference of the means of `number`; a row has flipped where its `outcome` did."""
    differences = Counter(number(pair.after) - number(pair.before) for pair in pairs)
    difference, p = means(differences, len(pairs), seed=seed)
    return Paired(
        metric=metric,
        shared=len(pairs),
        difference=difference,
        test=BOOTSTRAP if pairs else None,
        p=p,
        reason=None if pairs else _NO_SHARED,
        lost=sum(count for value, count in differences.items() if value < 0),
        gained=sum(count for value, count in differences.items() if value > 0),
        flips=tuple(pair for pair in pairs if outcome(pair.before) != outcome(pair.after)),
    )


def _points(value: Value) -> float:
    return POINTS.get(str(value), 0.5)


def _score(value: Value) -> float:
    return float(value or 0.0)


def _passed_at(threshold: float | None) -> Callable[[Value], Value]:
    return _score if threshold is None else lambda value: float(_score(value) >= threshold)


# --- without the rows ---

_HEADLINES = {Type.CLASSIFY: "pass_percentage", Type.COMPARE: "win_rate"}


def unpaired(before: Mapping[str, Any], after: Mapping[str, Any], kind: Type) -> Paired:
    """The difference of the headline of two summaries (their JSON), where verdicts of one are not at hand.

    Wider than a paired one, and without a test; says so in `reason`.
    """
    metric = _HEADLINES.get(kind, "mean_score")
    reason = "the verdicts of both results are not at hand, so rows could not be paired"
    old, new = (_estimate(summary, metric) for summary in (before, after))
    shared = Paired(metric=metric, shared=0, difference=Metric.absent(reason), test=UNPAIRED, p=None, reason=reason)
    for which, estimate in (("earlier", old), ("new", new)):
        if isinstance(estimate, str):
            missing = f"the {which} result has no {metric}: {estimate}"
            return replace(shared, difference=Metric.absent(missing), test=None)
    assert not isinstance(old, str) and not isinstance(new, str)
    difference = Metric(value=new.value - old.value, reason="one of them has no interval")
    if math.isfinite(old.low + old.high + new.low + new.high):
        low, high = contrast.difference(new, old)
        difference = Metric(value=new.value - old.value, low=low, high=high)
    return replace(shared, difference=difference)


def _estimate(summary: Mapping[str, Any], metric: str) -> contrast.Estimate | str:
    """A metric of a summary's JSON, NaN for a bound that it lacks, or the reason why there is none."""
    found = summary.get("metrics", {}).get(metric) or {}
    if found.get("value") is None:
        return str(found.get("reason") or "not known")
    return contrast.Estimate(*(float(found.get(key, math.nan)) for key in ("value", "low", "high")))


# --- many results, and the gate ---


def holm(results: Sequence[Paired]) -> tuple[Paired, ...]:
    """The results with p-values adjusted for how many are tested at once."""
    tested = [place for place, result in enumerate(results) if result.p is not None]
    adjusted = dict(zip(tested, intervals.holm([results[place].p or 0.0 for place in tested]), strict=True))
    return tuple(replace(result, p_adjusted=adjusted.get(place)) for place, result in enumerate(results))


class Regression(NamedTuple):
    """Whether a result got worse than the gate allows, and why it is so."""

    failed: bool
    reason: str


def regressed(result: Paired, margin: float = 0.0, *, strict: bool = False) -> Regression:
    """Whether the fall may be more than `margin` (in the metric's own units) and is no chance; where `strict`, whether
    it may be at all.

    Significant is p <= 0.05, adjusted where there are several; unpaired, an interval without 0. What cannot be known
    fails.
    """
    found = result.difference
    if found.value is None or result.metric == "changed_labels":
        return Regression(failed=True, reason=f"no difference to judge: {result.reason or found.reason}")
    # Of rows that all differ by the same, the difference is all there is to know.
    fall = max(0.0, -(found.value if found.low is None else found.low))
    allowed = f"{result.metric} may have fallen by {fall:.3g}, {margin:g} is allowed"
    if fall <= margin:
        return Regression(failed=False, reason=allowed)
    if strict:
        return Regression(failed=True, reason=allowed)
    p = result.p if result.p_adjusted is None else result.p_adjusted
    if p is not None:
        failed, how = found.value < 0 and p <= _SIGNIFICANT, f"p = {p:.3g}"
    else:
        failed, how = found.high is None or found.high < 0, str(result.reason)
    return Regression(failed=failed, reason=f"{allowed}; {how}" if failed else f"{allowed}, not significantly: {how}")
