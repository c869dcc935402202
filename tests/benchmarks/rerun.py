"""An apply of 1,000 rows that has nothing to do, and one that finds its finished job in the store."""

from __future__ import annotations

from pathlib import Path

from measure import Cost, evalops, figure, in_turn, run, title
from model_server import Config, spawn
from sample import rows_project

ROWS = 1_000
TURNS = 7
GOAL = 0.5  # seconds over start-up


def bench(folder: Path) -> None:
    """Prints both over start-up, and the requests they sent."""
    title(f"warm re-run: {ROWS:,} rows, median of {TURNS}")
    with spawn(Config(keep=0)) as server:
        root = rows_project(folder / "project", ROWS, server.url)
        command = [*evalops(), "--project", str(root), "apply", "--yes"]

        def adopted() -> Cost:
            (root / "shop-00000.lock").unlink()
            return run(command, home=folder)

        run(command, home=folder)
        before = server.stats()["requests"]
        found = in_turn(
            TURNS,
            start=lambda: run([*evalops(), "--version"], home=folder),
            again=lambda: run(command, home=folder),
            adopted=adopted,
        )
        sent = server.stats()["requests"] - before
    start = found["start"].wall
    for name, words in (("again", "unchanged"), ("adopted", "lockfile deleted")):
        over = found[name].wall - start
        figure(f"{words}, over start-up", f"{over:.2f} s", f"<= {GOAL} s", met=over <= GOAL)
    figure("requests", str(sent), "0", met=sent == 0)
    figure("unchanged apply over --version", f"{found['again'].wall / start:.1f} x")
