"""The peak memory of an apply of a few rows and of many."""

from __future__ import annotations

from pathlib import Path

from measure import Cost, evalops, figure, run, title
from model_server import Config, spawn
from sample import rows_project

FEW, MANY = 1_000, 100_000
GOAL = 1.5  # times


def bench(folder: Path) -> None:
    """Prints both peaks and their ratio."""
    title(f"memory: {FEW:,} and {MANY:,} rows, no latency, 64 in flight")
    with spawn(Config(keep=0)) as server:

        def judged(rows: int) -> Cost:
            root = rows_project(folder / str(rows), rows, server.url)
            return run([*evalops(), "--project", str(root), "apply", "--yes"], home=folder)

        few, many = judged(FEW), judged(MANY)
    figure(f"peak with {FEW:,} rows", f"{few.peak:.0f} MiB")
    figure(f"peak with {MANY:,} rows", f"{many.peak:.0f} MiB")
    figure("ratio", f"{many.peak / few.peak:.2f} x", f"<= {GOAL} x", met=many.peak <= GOAL * few.peak)
    figure("rows a second, without latency", f"{(MANY - FEW) / (many.wall - few.wall):,.0f}")
