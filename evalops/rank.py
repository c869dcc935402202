"""Several candidates over the same rows, in order: ranks that ties share, how sure they are, and a test against the
leader. Values are what the results say; rows are only resampled for what a single value cannot tell.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from evalops import paired
from evalops.result import SMALL, Metric
from evalops.standing import LOWER_IS_BETTER, MEANS, Candidate, Points, Standing, is_over_all, scale_of, summed
from evalops.stats import contrast, intervals
from evalops.stats.resample import SEED, kinds_of, permutation_p, resampled_sums

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

MORE = 3  # rows, or percent of them, without a verdict that one may have more than another unsaid


# --- ranks ---


def competition(values: Sequence[float], *, lower_is_better: bool = False) -> list[int]:
    """Ranks that ties share: 1, 2, 2, 4. Values that differ in the 13th digit only are the same."""
    rounded = [float(f"{value:.12g}") for value in values]
    if lower_is_better:
        rounded = [-value for value in rounded]
    return [1 + sum(other > value for other in rounded) for value in rounded]


def order(
    candidates: Iterable[Candidate],
    *,
    metric: str,
    is_paired: bool = True,
    blocks: Mapping[str, str] | None = None,
    seed: int = SEED,
) -> tuple[Standing, ...]:
    """The candidates by rank, then by name; those without a value last.

    `is_paired`: the same key of `points` is the same row for all. `blocks` gives the cluster of a row, which is then
    drawn as one. The order of `candidates` changes nothing.
    """
    lower = metric in LOWER_IS_BETTER
    everyone = sorted(candidates, key=_name)
    if not is_paired and blocks:
        everyone = [replace(each, points=_blocked(each.points, blocks)) for each in everyone]
    ranked = [each for each in everyone if each.metric.value is not None]
    ranks = competition([each.metric.value or 0.0 for each in ranked], lower_is_better=lower)
    pairs = sorted(zip(ranks, ranked, strict=True), key=lambda pair: pair[0])
    drawn = _resampled([each for _, each in pairs], blocks or {}, is_paired=is_paired, seed=seed)
    held = spans(-drawn if lower and drawn is not None else drawn, [rank for rank, _ in pairs])
    standings = [
        replace(_standing(each), rank=rank, rank_low=low, rank_high=high)
        for (rank, each), (low, high) in zip(pairs, held, strict=True)
    ]
    if pairs:
        scale = scale_of(metric)
        leader = pairs[0][1]
        for place, (_, each) in enumerate(pairs[1:], 1):
            found: dict[str, Any] = {"reason": "rank intervals are not known for this metric"}
            if metric in MEANS:
                found = _compared(each, leader, blocks or {}, scale, is_paired=is_paired, seed=seed)
            standings[place] = replace(standings[place], **found)
    last = [replace(_standing(each), reason=each.metric.reason) for each in everyone if each.metric.value is None]
    return (*adjusted(standings), *last)


def _standing(each: Candidate) -> Standing:
    return Standing(name=each.name, address=each.address, metric=each.metric, no_verdict=each.no_verdict)


def _blocked(points: Mapping[str, Points] | None, blocks: Mapping[str, str]) -> dict[str, Points] | None:
    """The points by cluster."""
    return None if points is None else summed((blocks.get(unit, unit), each) for unit, each in points.items())


def _name(each: Candidate | Standing) -> tuple[str, str]:
    return each.address or "", each.name


def adjusted(standings: Sequence[Standing]) -> list[Standing]:
    """The standings with p-values adjusted for how many were tested."""
    p_values = [each.p for each in standings if each.p is not None]
    found = iter(intervals.holm(p_values))
    return [each if each.p is None else replace(each, p_adjusted=next(found)) for each in standings]


def spans(
    drawn: FloatArray | None, ranks: Sequence[int], *, near: float | None = None
) -> list[tuple[int | None, int | None]]:
    """The 95 % interval of each rank, from values of all candidates, more is better, a line a resample.

    Values that differ by less than `near` are the same. (None, None) where too many resamples lack a candidate.
    """
    import numpy as np

    values = np.empty((0, 0)) if drawn is None else drawn[~np.isnan(drawn).any(axis=1)]
    if drawn is None or len(values) == 0 or len(values) < 0.99 * len(drawn):
        return [(None, None)] * len(ranks)
    near = 1e-9 * float(np.abs(values).max()) if near is None else near
    found: list[tuple[int | None, int | None]] = []
    for place, rank in enumerate(ranks):
        held = 1 + np.count_nonzero(values > values[:, [place]] + near, axis=1)
        low, high = np.quantile(held, (0.025, 0.975), method="inverted_cdf")
        found.append((min(rank, int(low)), max(rank, int(high))))
    return found


def _resampled(
    candidates: Sequence[Candidate], blocks: Mapping[str, str], *, is_paired: bool, seed: int
) -> FloatArray | None:
    """The candidates' values over rows drawn with replacement, a line a resample; None where a row is missing."""
    import numpy as np

    known = [each.points for each in candidates if each.points]
    if len(known) < len(candidates) or not known:
        return None
    if min(len({blocks.get(unit, unit) for unit in points}) for points in known) < 2:
        return None  # one row, or one cluster, says nothing of how much another would differ
    chance = np.random.default_rng(seed)
    groups = [known] if is_paired else [[each] for each in known]
    sums = np.concatenate([_sums(group, blocks, chance) for group in groups], axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no row of a candidate
        values: FloatArray = sums[:, 0::2] / sums[:, 1::2]
    return values


def _sums(group: Sequence[Mapping[str, Points]], blocks: Mapping[str, str], chance: np.random.Generator) -> FloatArray:
    """Resampled totals and numbers of rows, side by side for each candidate of a group that shares its rows."""
    rows: dict[str, list[float]] = {}
    for place, points in enumerate(group):
        for unit, (total, n) in points.items():
            line = rows.setdefault(blocks.get(unit, unit), [0.0] * (2 * len(group)))
            line[2 * place] += total
            line[2 * place + 1] += n
    return resampled_sums(*kinds_of(map(tuple, rows.values())), chance)


# --- tests against the leader ---


def _compared(
    each: Candidate, leader: Candidate, blocks: Mapping[str, str], scale: float, *, is_paired: bool, seed: int
) -> dict[str, Any]:
    """The difference to the leader and its test, as fields of a standing."""
    if each.points is None or leader.points is None:
        return {"reason": "its rows are not here" if each.points is None else "the leader's rows are not here"}
    if not is_paired:
        return _apart(each, leader, seed)
    shared = sorted(each.points.keys() & leader.points.keys())
    pairs = [(each.points[unit], leader.points[unit]) for unit in shared]
    if not pairs:
        return {"reason": "it shares no row with the leader"}
    if not blocks and all(point.n == 1 and point.total in (0.0, 1.0) for pair in pairs for point in pair):
        return _mcnemar(pairs, scale)
    sums: dict[str, float] = {}
    for unit, (own, best) in zip(shared, pairs, strict=True):
        block = blocks.get(unit, unit)
        sums[block] = sums.get(block, 0.0) + own.total / own.n - best.total / best.n
    # Means of blocks of several rows are brought back to the mean of the rows.
    scale *= len(sums) / len(shared)
    difference, p = paired.means(Counter(sums.values()), len(shared), scale, seed)
    return {"difference": difference, "test": "paired resampling", "p": p}


def _mcnemar(pairs: Sequence[tuple[Points, Points]], scale: float) -> dict[str, Any]:
    lost = sum(own.total < best.total for own, best in pairs)
    gained = sum(own.total > best.total for own, best in pairs)
    difference, p = paired.rates(lost, gained, len(pairs), scale)
    return {"difference": difference, "test": "McNemar", "p": p}


def _apart(each: Candidate, leader: Candidate, seed: int) -> dict[str, Any]:
    """Two candidates over rows of their own: the interval from theirs, and a permutation test."""
    first, second = (tuple((each.points or {}).values()) for each in (each, leader))
    value = (each.metric.value or 0.0) - (leader.metric.value or 0.0)
    estimates = [
        contrast.Estimate(metric.value, metric.low, metric.high)
        for metric in (each.metric, leader.metric)
        if metric.value is not None and metric.low is not None and metric.high is not None
    ]
    n = len(first) + len(second)
    difference = Metric(value=value, n=n, reason="one of the two has no interval")
    if len(estimates) == 2:
        low, high = contrast.difference(estimates[0], estimates[1])
        difference = Metric(value=value, low=low, high=high, n=n)
    return {"difference": difference, "test": "permutation", "p": permutation_p(first, second, seed=seed)}


# --- what to know before a decision ---


def warnings(
    standings: Sequence[Standing],
    candidates: Sequence[Candidate],
    blocks: Mapping[str, str] | None = None,
    *,
    is_paired: bool = True,
) -> list[str]:
    """Few rows, few clusters, and verdicts that are missing on different rows."""
    counts = [each.metric.n or 0 for each in standings if each.rank is not None]
    clusters = len(set((blocks or {}).values()))
    found = [few(min(counts))] if counts and min(counts) < SMALL else []
    if blocks and clusters < SMALL:
        found.append(few(clusters, "cluster"))
    known = sorted((each for each in candidates if each.points is not None), key=_name)
    if is_paired and len({frozenset(each.points or ()) for each in known}) > 1:
        said = ", ".join(f"{len(each.points or ())} of `{each.address or each.name}`" for each in known)
        found.append(f"the candidates do not have a verdict on the same rows ({said}); tests go over the shared ones")
    return found


def unjudged(candidates: Sequence[Candidate], metric: str) -> list[str]:
    """Candidates with a value that lack a verdict on more than a few rows more than the one that lacks the fewest."""
    known = [
        (each, each.no_verdict, each.rows)
        for each in sorted(candidates, key=_name)
        if each.metric.value is not None and each.no_verdict is not None and each.rows is not None
    ]
    if not known or metric in ("invalid_rate", "error_rate"):
        return []
    fewest = min(missing for _, missing, _ in known)
    so = "they count as wrong" if is_over_all(metric) else "its value is over the others only"
    return [
        f"`{each.address or each.name}` has no verdict on {missing} of {rows} rows: {so}"
        for each, missing, rows in known
        if missing - fewest > max(MORE, rows * MORE / 100)
    ]


def few(n: int, what: str = "row") -> str:
    """The warning for an order of so few rows or clusters."""
    return f"{n} {what}{'s are' if n != 1 else ' is'} few for a ranking: below {SMALL}, intervals are rough"
