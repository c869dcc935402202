"""Rows judged against an endpoint that takes 50 ms, 64 at a time, beside a plain loop that posts the same bodies.

Both are measured at two numbers of rows: what lies between is the cost and the rate of a row, without start-up.
"""

from __future__ import annotations

import sys
from pathlib import Path

from measure import Cost, evalops, figure, in_turn, marginal, run, title
from model_server import Config, serve, spawn
from sample import rows_project

FEW, MANY = 1_000, 5_000
IN_FLIGHT = 64
LATENCY_MS = 50
TURNS = 3


def bench(folder: Path) -> None:
    """Prints CPU and rate of a judged row, and their ratios to the plain loop."""
    title(f"throughput: {FEW:,} and {MANY:,} rows, {LATENCY_MS} ms latency, {IN_FLIGHT} in flight, median of {TURNS}")
    bodies = _bodies(folder)
    with spawn(Config(latency_ms=LATENCY_MS, keep=0)) as server:

        def judged(rows: int) -> Cost:
            root = rows_project(folder / "judged", rows, server.url)
            (root / "shop-00000.lock").unlink(missing_ok=True)
            for file in (root / ".evalops").glob("store.sqlite*"):
                file.unlink()
            return run([*evalops(), "--project", str(root), "apply", "--yes"], home=folder)

        def plain(rows: int) -> Cost:
            loop = str(Path(__file__).with_name("plain_loop.py"))
            url = f"{server.url}/chat/completions"
            return run([sys.executable, loop, url, str(bodies), str(rows), str(IN_FLIGHT)])

        found = in_turn(
            TURNS,
            few=lambda: judged(FEW),
            plain_few=lambda: plain(FEW),
            many=lambda: judged(MANY),
            plain_many=lambda: plain(MANY),
        )
    ours = marginal(found["few"], found["many"], MANY - FEW)
    loop = marginal(found["plain_few"], found["plain_many"], MANY - FEW)
    figure("CPU of a judged row", f"{ours.cpu * 1e3:.2f} ms", "<= 0.5 ms", met=ours.cpu <= 0.0005)
    figure("CPU of a posted body, plain loop", f"{loop.cpu * 1e3:.2f} ms")
    figure("ratio", f"{ours.cpu / loop.cpu:.2f} x")
    figure("rows a second", f"{1 / ours.wall:,.0f}")
    figure("bodies a second, plain loop", f"{1 / loop.wall:,.0f}")
    figure("most that the latency allows", f"{IN_FLIGHT / LATENCY_MS * 1e3:,.0f}")
    figure("ratio of the rates", f"{loop.wall / ours.wall:.2f}", ">= 0.90", met=loop.wall >= 0.9 * ours.wall)


def _bodies(folder: Path) -> Path:
    """The bodies that evalops sends, a line each."""
    with serve(Config(keep=FEW)) as server:
        root = rows_project(folder / "recorded", FEW, server.url)
        run([*evalops(), "--project", str(root), "apply", "--yes"], home=folder)
        bodies = [seen.body for seen in server.seen]
    path = folder / "bodies.jsonl"
    path.write_bytes(b"\n".join(bodies))
    return path
