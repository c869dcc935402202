"""Candidates ranked by games between pairs of them: Bradley-Terry strengths or win rates, resampled over rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from evalops.errors import Diagnostic, EvalopsError
from evalops.rank import adjusted, competition, spans
from evalops.result import Metric
from evalops.standing import Standing
from evalops.stats.resample import SEED, interval_of, resampled_sums
from evalops.stats.strength import bradley_terry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    FloatArray = NDArray[np.float64]

STRENGTH = "bradley_terry"
METRICS = (STRENGTH, "win_rate", "win_rate_no_ties")
_CELLS = 1_000_000  # numbers in a table that are held at once
_STEPS = 100  # far more than fits take
_DIGITS = {STRENGTH: 6}  # strengths that differ less are the same: the fit goes no further

Pair = tuple[str, str]


class Game(NamedTuple):
    """One verdict between two players; `points` for the first: 1, 0.5 or 0. `unit` is the row, or item, it is from."""

    unit: str
    first: str
    second: str
    points: float


class Duels(NamedTuple):
    """The players by rank, and what their strengths assume."""

    standings: tuple[Standing, ...]
    warnings: tuple[str, ...] = ()


class _Found(NamedTuple):
    """By player, in the order of names: strengths or rates, and rates with ties half."""

    values: FloatArray
    rates: FloatArray


def order(games: Iterable[Game], players: Iterable[str], *, metric: str = STRENGTH, seed: int = SEED) -> Duels:
    """The players by rank, then by name; those without a game last. The order of `games` changes nothing.

    Rows, not games, are resampled: what one row says of several pairs stays together. Raises EvalopsError where
    players who never met, directly or through others, cannot be ranked together.
    """
    import numpy as np

    rows = _rows(each for each in games if metric != "win_rate_no_ties" or each.points != 0.5)
    kinds = sorted(Counter(rows).items())
    total: Counter[Pair] = Counter()
    for kind, count in kinds:
        total.update({pair: times * count for pair, times in kind})
    names = sorted({name for pair in total for name in pair})
    absent = Metric.absent("no game of it has a verdict" if metric != "win_rate_no_ties" else "it has no decided game")
    idle = [Standing(name=name, metric=absent, reason=absent.reason) for name in sorted(set(players).difference(names))]
    if not names:
        return Duels(tuple(idle))
    fitted = bradley_terry(total)
    if not fitted.values:
        raise EvalopsError(
            Diagnostic(
                code="rank/disconnected",
                message=f"these games give no common order: {fitted.reason}",
                hint="rank each group by itself, or add games between them",
            )
        )
    rates = _rates(_tables(list(total), names, np.array([list(total.values())])))
    values: FloatArray = np.array([[fitted.values[name] for name in names]]) if metric == STRENGTH else rates
    found, drawn = _Found(values, rates), _drawn(kinds, names, metric, seed)
    warnings = (fitted.reason,) if fitted.reason and metric == STRENGTH else ()
    standings = _standings(total, names, found, drawn, len(rows), digits=_DIGITS.get(metric, 12))
    return Duels((*standings, *idle), warnings)


def _rows(games: Iterable[Game]) -> list[tuple[tuple[Pair, float], ...]]:
    """The wins of each row, a tie half a win for each."""
    rows: dict[str, Counter[Pair]] = {}
    for unit, first, second, points in games:
        if first != second:
            rows.setdefault(unit, Counter()).update({(first, second): points, (second, first): 1 - points})
    return [tuple(sorted(row.items())) for row in rows.values()]


def _drawn(
    kinds: Sequence[tuple[tuple[tuple[Pair, float], ...], int]], names: Sequence[str], metric: str, seed: int
) -> _Found:
    """What the players have in each resample of the rows, a line a resample; NaN where one has no game."""
    import numpy as np

    pairs = sorted({pair for kind, _ in kinds for pair, _ in kind})
    place = {pair: number for number, pair in enumerate(pairs)}
    features = np.zeros((len(kinds), len(pairs)))
    for line, (kind, _) in zip(features, kinds, strict=True):
        for pair, times in kind:
            line[place[pair]] = times
    counts = np.array([count for _, count in kinds], dtype=np.int64)
    sums = resampled_sums(features, counts, np.random.default_rng(seed))
    wins = _tables(pairs, names, np.maximum(sums, 0.0))
    rates = _rates(wins)
    if metric != STRENGTH:
        return _Found(rates, rates)
    step = max(1, _CELLS // len(names) ** 2)
    return _Found(np.concatenate([strengths(wins[start : start + step]) for start in range(0, len(wins), step)]), rates)


def _tables(pairs: Sequence[Pair], names: Sequence[str], sums: FloatArray) -> FloatArray:
    """How often each player beat each other one: a square table for each line of sums by pair."""
    import numpy as np

    place = {name: number for number, name in enumerate(names)}
    wins = np.zeros((len(sums), len(names), len(names)))
    for number, (winner, loser) in enumerate(pairs):
        wins[:, place[winner], place[loser]] = sums[:, number]
    return wins


def _rates(wins: FloatArray) -> FloatArray:
    """Points over games, a line a table."""
    import numpy as np

    won = wins.sum(axis=2)
    with np.errstate(invalid="ignore"):
        rates: FloatArray = won / (won + wins.sum(axis=1))
    return rates


def strengths(wins: FloatArray) -> FloatArray:
    """`strength.bradley_terry` for many tables of wins at once; NaN where some never met the others.

    Newton's method on all tables side by side, steps cut to 1 so that they never run away from a likelihood that has
    one peak.
    """
    import numpy as np

    games = wins + wins.transpose(0, 2, 1)
    apart = ~_connected(games > 0)
    wins = wins + np.where(_connected(wins > 0), 0.0, 0.5)[:, None, None] * (games > 0)
    games = wins + wins.transpose(0, 2, 1)
    won = wins.sum(axis=2)
    found = np.zeros(won.shape)
    # Strengths are known up to a shift, and tables that fall apart not even so: both are kept from dividing by 0.
    shift = np.where(apart[:, None, None], np.eye(won.shape[1]), 1 / won.shape[1])
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(found[:, None, :] - found[:, :, None]))
        spread = games * chance * (1 - chance)
        slope = won - (games * chance).sum(axis=2)
        curve = np.eye(won.shape[1]) * spread.sum(axis=2)[:, :, None] - spread + shift
        step = np.where(apart[:, None], 0.0, np.linalg.solve(curve, slope[:, :, None])[:, :, 0])
        step /= np.maximum(1.0, np.abs(step).max(axis=1, keepdims=True))
        found += step
        if np.abs(step).max(initial=0.0) < 1e-9:
            break
    found -= found.mean(axis=1, keepdims=True)
    return np.where(apart[:, None], np.nan, found)


def _connected(edges: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether in each table every player can be reached from every other."""
    import numpy as np

    reached = (edges | np.eye(edges.shape[1], dtype=bool)).astype(np.float32)
    for _ in range(edges.shape[1].bit_length()):
        reached = np.minimum(reached @ reached, 1.0)  # twice as many steps
    return np.asarray((reached > 0).all(axis=(1, 2)), dtype=np.bool_)


def _standings(
    total: Mapping[Pair, float], names: Sequence[str], found: _Found, drawn: _Found, rows: int, *, digits: int
) -> list[Standing]:
    values = found.values[0].tolist()
    ranks = competition([round(value, digits) + 0.0 for value in values])
    places = sorted(range(len(names)), key=lambda place: (ranks[place], names[place]))
    first = places[0]
    lines = drawn.values[:, places] if rows > 1 else None
    held = spans(lines, [ranks[place] for place in places], near=10.0**-digits)
    standings = []
    for place, (low, high) in zip(places, held, strict=True):
        name, apart = names[place], drawn.values[:, place] - drawn.values[:, first]
        games = round(sum(times for pair, times in total.items() if name in pair))
        standing = Standing(
            name=name,
            metric=_metric(values[place], drawn.values[:, place], rows, games),
            rank=ranks[place],
            rank_low=low,
            rank_high=high,
            wins=sum(times for (winner, _), times in total.items() if winner == name),
            win_rate=_metric(float(found.rates[0, place]), drawn.rates[:, place], rows, games),
        )
        if place != first:
            difference = _metric(values[place] - values[first], apart, rows, games)
            standing = replace(standing, difference=difference, test="bootstrap", p=_p(apart))
        standings.append(standing)
    return adjusted(standings)


def _metric(value: float, drawn: FloatArray, rows: int, games: int) -> Metric:
    """A value with the interval of its resamples, which few rows do not have."""
    interval = interval_of(value, drawn, rows) if rows > 1 else None
    if interval is None:
        return Metric(value=value, n=games, reason="too few rows for an interval")
    return Metric(value=value, low=interval.low, high=interval.high, n=games)


def _p(apart: FloatArray) -> float:
    """The p-value of no difference: twice the share of resamples on the far side of 0."""
    import numpy as np

    defined = apart[~np.isnan(apart)]
    far = min(np.count_nonzero(defined >= 0), np.count_nonzero(defined <= 0))
    return min(1.0, 2 * (1 + int(far)) / (1 + len(defined)))
