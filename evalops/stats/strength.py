"""Strengths of candidates from games between pairs of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple


class Strengths(NamedTuple):
    """Log-strengths with mean 0: a beats b with probability 1 / (1 + exp(b - a)).

    Empty with the reason where the games do not tell; a reason beside values says what was assumed.
    """

    values: Mapping[str, float]
    reason: str | None = None


def bradley_terry(wins: Mapping[tuple[str, str], float]) -> Strengths:
    """The strengths that make the games likeliest; `wins[a, b]` is how often a beat b, a tie half a win for each.

    R. A. Bradley, M. E. Terry, Biometrika 39 (1952), fitted by choix (L. Maystre, M. Grossglauser, NeurIPS 2015); half
    wins for ties as in H. Turner, D. Firth, Journal of Statistical Software 48 (2012), section 5. Where players who
    met do not all stand in a circle of wins, the likeliest strengths are infinite (L. R. Ford, American Mathematical
    Monthly 64, 1957): then every pair that met gets one tied game more, and the reason says so.
    """
    import choix
    import numpy as np

    players = sorted({player for pair in wins for player in pair})
    place = {player: number for number, player in enumerate(players)}
    matrix = np.zeros((len(players), len(players)))
    for (winner, loser), times in wins.items():
        if winner != loser:
            matrix[place[winner], place[loser]] += times
    met = (matrix + matrix.T) > 0
    if len(players) < 2:
        return Strengths({}, "fewer than two candidates have met")
    apart = set(range(len(players))) - _reached(met.tolist())
    if apart:
        names = ", ".join(f"`{players[number]}`" for number in sorted(apart))
        return Strengths({}, f"no game connects {names} with `{players[0]}`")
    reason = None
    won = (matrix > 0).tolist()
    if len(_reached(won)) < len(players) or len(_reached(list(zip(*won, strict=True)))) < len(players):
        matrix = matrix + 0.5 * met
        reason = "some never lost or never won against the others: one tied game was added for every pair that met"
    found = choix.ilsr_pairwise_dense(matrix, max_iter=10_000)
    return Strengths({player: float(found[number]) for player, number in place.items()}, reason)


def _reached(edges: list[Iterable[bool]]) -> set[int]:
    """The players that can be reached from the first one."""
    reached, waiting = {0}, [0]
    while waiting:
        for number, joined in enumerate(edges[waiting.pop()]):
            if joined and number not in reached:
                reached.add(number)
                waiting.append(number)
    return reached
