"""Players ranked by games between pairs of them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from evalops import duel
from evalops.duel import Game
from evalops.errors import EvalopsError
from evalops.stats import strength

PLAYERS = ("a", "b", "c")


def games(*results: tuple[str, str, float], times: int = 1) -> list[Game]:
    return [Game(str(number), *each) for number, each in enumerate(results * times)]


MIXED = games(
    ("a", "b", 1.0), ("b", "a", 1.0), ("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 0.5), ("c", "b", 0.5), times=4
)


def test_two_players_differ_by_the_log_of_their_odds() -> None:
    found = duel.order(games(("a", "b", 1.0), ("a", "b", 1.0), ("b", "a", 1.0), ("a", "b", 1.0), times=5), PLAYERS[:2])
    first, second = found.standings
    assert (first.name, second.name) == ("a", "b")
    assert first.metric.value is not None and second.metric.value is not None
    assert first.metric.value - second.metric.value == pytest.approx(math.log(3), abs=1e-6)
    assert first.metric.low is not None and first.metric.low < first.metric.value < (first.metric.high or 0)


def test_a_tie_is_half_a_win_for_each() -> None:
    found = duel.order(games(("a", "b", 0.5), ("b", "a", 1.0), ("a", "b", 1.0), ("a", "b", 1.0)), PLAYERS[:2])
    assert [(each.name, each.wins, each.win_rate and each.win_rate.value) for each in found.standings] == [
        ("a", 2.5, 0.625),
        ("b", 1.5, 0.375),
    ]


def test_equal_players_share_a_rank() -> None:
    found = duel.order(games(("a", "b", 1.0), ("b", "c", 1.0), ("c", "a", 1.0), times=10), PLAYERS)
    assert [(each.name, each.rank) for each in found.standings] == [("a", 1), ("b", 1), ("c", 1)]
    assert all(each.metric.value == pytest.approx(0.0, abs=1e-6) for each in found.standings)


@settings(max_examples=10)
@given(st.randoms(use_true_random=False))
def test_the_order_and_the_sides_of_the_games_change_nothing(chance: random.Random) -> None:
    shuffled = [
        Game(each.unit, each.second, each.first, 1 - each.points) if chance.random() < 0.5 else each for each in MIXED
    ]
    chance.shuffle(shuffled)
    assert duel.order(shuffled, PLAYERS) == duel.order(MIXED, PLAYERS)


def test_rows_not_games_are_drawn() -> None:
    """Ten games of one row say no more than one of them."""
    once = [Game(str(number), "a", "b", float(number % 3 > 0)) for number in range(30)]
    often = [each for each in once for _ in range(10)]
    first, second = (duel.order(each, PLAYERS[:2], metric="win_rate").standings[0] for each in (once, often))
    assert (first.metric.low, first.metric.high) == pytest.approx((second.metric.low, second.metric.high))
    assert first.metric.n == 30 and second.metric.n == 300
    assert (first.rank_low, first.rank_high) == (second.rank_low, second.rank_high)


def test_groups_that_never_met_are_refused() -> None:
    with pytest.raises(EvalopsError) as caught:
        duel.order(games(("a", "b", 1.0), ("b", "a", 1.0), ("c", "d", 1.0)), ("a", "b", "c", "d"))
    assert caught.value.diagnostics[0].code == "rank/disconnected"
    assert "`c`, `d`" in caught.value.diagnostics[0].message


def test_who_has_no_game_stands_last() -> None:
    found = duel.order(games(("a", "b", 1.0), ("b", "a", 0.5)), PLAYERS)
    assert (found.standings[-1].name, found.standings[-1].rank) == ("c", None)
    assert found.standings[-1].reason == "no game of it has a verdict"


def test_who_always_wins_has_a_finite_strength_and_a_warning() -> None:
    found = duel.order(games(("a", "b", 1.0), times=20), PLAYERS[:2])
    assert [each.rank for each in found.standings] == [1, 2]
    assert math.isfinite(found.standings[0].metric.value or math.inf)
    assert "never lost" in found.warnings[0]


def test_no_game_at_all() -> None:
    found = duel.order([], PLAYERS)
    assert [(each.name, each.rank) for each in found.standings] == [("a", None), ("b", None), ("c", None)]


def test_one_game_has_no_interval() -> None:
    found = duel.order(games(("a", "b", 1.0)), PLAYERS[:2])
    assert found.standings[0].metric.low is None
    assert found.standings[0].metric.reason == "too few rows for an interval"
    assert found.standings[0].rank_low is None


def test_ties_can_be_left_out() -> None:
    everything = games(
        ("a", "b", 1.0), ("a", "b", 0.5), ("a", "b", 0.5), ("b", "a", 1.0), ("a", "b", 1.0), ("a", "c", 0.5)
    )
    found = duel.order(everything, PLAYERS, metric="win_rate_no_ties")
    assert [(each.name, each.metric.value, each.metric.n) for each in found.standings[:2]] == [
        ("a", pytest.approx(2 / 3), 3),
        ("b", pytest.approx(1 / 3), 3),
    ]
    assert found.standings[2].reason == "it has no decided game"


def test_a_clear_winner_is_told_from_chance() -> None:
    clear = duel.order(games(*[("a", "b", 1.0)] * 9, ("b", "a", 1.0), times=6), PLAYERS[:2]).standings
    close = duel.order(games(*[("a", "b", 1.0)] * 5, *[("b", "a", 1.0)] * 4, times=6), PLAYERS[:2]).standings
    assert clear[1].p is not None and clear[1].p < 0.01 and (clear[1].rank_low, clear[1].rank_high) == (2, 2)
    assert close[1].p is not None and close[1].p > 0.1 and (close[1].rank_low, close[1].rank_high) == (1, 2)
    assert close[1].difference is not None and (close[1].difference.low or 0) < 0 < (close[1].difference.high or 0)


@settings(max_examples=30)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd"), st.sampled_from([1.0, 0.5])), min_size=1))
def test_many_fits_at_once_are_those_of_one_at_a_time(results: list[tuple[str, str, float]]) -> None:
    wins: dict[tuple[str, str], float] = {}
    for first, second, points in results:
        if first != second:
            wins[first, second] = wins.get((first, second), 0.0) + points
            wins[second, first] = wins.get((second, first), 0.0) + 1 - points
    assume(wins)
    names = sorted({name for pair in wins for name in pair})
    table = np.array([[[wins.get((one, other), 0.0) for other in names] for one in names]])
    one = strength.bradley_terry(wins).values
    expected = [one.get(name, math.nan) for name in names]
    assert duel.strengths(np.concatenate([table, table]))[1].tolist() == pytest.approx(expected, abs=1e-5, nan_ok=True)
