"""Bradley–Terry: against the likelihood itself, and where games do not tell."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import scipy.optimize

from evalops.stats.strength import bradley_terry

GAMES = {("a", "b"): 30.0, ("b", "a"): 18.5, ("b", "c"): 22.0, ("c", "b"): 9.0, ("a", "c"): 25.5, ("c", "a"): 5.0}


def likeliest(wins: dict[tuple[str, str], float]) -> dict[str, float]:
    players = sorted({player for pair in wins for player in pair})

    def unlikely(free: np.ndarray) -> float:
        strength = dict(zip(players, [0.0, *free], strict=True))
        return sum(times * math.log1p(math.exp(strength[b] - strength[a])) for (a, b), times in wins.items())

    found = scipy.optimize.minimize(unlikely, np.zeros(len(players) - 1), method="BFGS", options={"gtol": 1e-7})
    values = np.array([0.0, *found.x])
    return dict(zip(players, (values - values.mean()).tolist(), strict=True))


def test_strengths_are_the_likeliest_and_centred() -> None:
    found = bradley_terry(GAMES)
    assert found.reason is None
    assert found.values == pytest.approx(likeliest(GAMES), abs=1e-5)
    assert sum(found.values.values()) == pytest.approx(0, abs=1e-12)


def test_two_players_are_their_odds() -> None:
    found = bradley_terry({("x", "y"): 30, ("y", "x"): 10})
    assert found.values["x"] - found.values["y"] == pytest.approx(math.log(3), abs=1e-7)


def test_many_players_with_known_strengths_are_found_again() -> None:
    chance, truth = random.Random(2), {f"p{number:02}": number / 8 for number in range(12)}
    wins = dict.fromkeys(((a, b) for a in truth for b in truth if a != b), 0.0)
    for a, b in wins:
        for _ in range(200):
            first = chance.random() < 1 / (1 + math.exp(truth[b] - truth[a]))
            wins[(a, b) if first else (b, a)] += 1
    found = bradley_terry(wins).values
    mean = sum(truth.values()) / len(truth)
    assert found == pytest.approx({player: value - mean for player, value in truth.items()}, abs=0.12)


def test_a_long_chain_of_games_is_solved() -> None:
    wins = {(f"p{n:02}", f"p{n + 1:02}"): 3.0 for n in range(19)} | {
        (f"p{n + 1:02}", f"p{n:02}"): 1.0 for n in range(19)
    }
    found = bradley_terry(wins)
    assert found.values["p00"] - found.values["p19"] == pytest.approx(19 * math.log(3), rel=1e-4)


def test_the_order_of_the_games_does_not_matter() -> None:
    assert bradley_terry(dict(reversed(GAMES.items()))) == bradley_terry(GAMES)


def test_ties_alone_make_all_equal() -> None:
    found = bradley_terry({("a", "b"): 5, ("b", "a"): 5, ("b", "c"): 0.5, ("c", "b"): 0.5})
    assert found.reason is None and found.values == pytest.approx({"a": 0, "b": 0, "c": 0}, abs=1e-9)


def test_who_won_every_game_is_strong_but_not_infinitely_so() -> None:
    found = bradley_terry(GAMES | {("d", "a"): 10, ("d", "b"): 10})
    assert found.reason and "one tied game" in found.reason
    assert max(found.values, key=lambda player: found.values[player]) == "d"
    assert math.isfinite(found.values["d"]) and found.values["d"] < 5
    more = bradley_terry(GAMES | {("d", "a"): 1000, ("d", "b"): 1000})
    assert more.values["d"] > found.values["d"]


def test_the_tied_game_that_is_added_is_one() -> None:
    found = bradley_terry({("a", "b"): 10})
    assert found.values["a"] - found.values["b"] == pytest.approx(math.log(10.5 / 0.5))


def test_players_that_never_met_are_not_compared() -> None:
    found = bradley_terry(GAMES | {("x", "y"): 3, ("y", "x"): 1})
    assert not found.values and found.reason == "no game connects `x`, `y` with `a`"


@pytest.mark.parametrize("wins", [{}, {("a", "a"): 3.0}, {("a", "b"): 0.0, ("b", "a"): 0.0}])
def test_without_games_there_are_no_strengths(wins: dict[tuple[str, str], float]) -> None:
    found = bradley_terry(wins)
    assert not found.values and found.reason
