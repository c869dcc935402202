"""The time of a plan as a user sees it: cold, and with the plan of the same bytes at hand.

Every project is in step with its lockfiles, so that all of them are read, checked and compared.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from measure import Cost, evalops, figure, in_turn, run, title
from sample import specs_project, write_locks

TURNS = 5


def bench(folder: Path) -> None:
    """Prints plans of 1,000 spec files, with datasets of their own and with one for all, and of 10,000."""
    _bench(folder, 1_000, shared=False, cold_goal=2.5, warm_goal=0.3)
    _bench(folder, 1_000, shared=True, cold_goal=2.5, warm_goal=0.3)
    _bench(folder, 10_000, shared=False, cold_goal=None, warm_goal=1.5)


def _bench(folder: Path, specs: int, *, shared: bool, cold_goal: float | None, warm_goal: float) -> None:
    whose = "one dataset for all" if shared else "a dataset each"
    turns = TURNS if cold_goal else 1
    title(f"plan: {specs:,} spec files, {whose}, median of {TURNS}" + ("" if cold_goal else " (cold: once)"))
    root = specs_project(folder / f"{specs}-{shared}", specs, shared=shared)
    write_locks(root)

    def plan(*, cold: bool) -> Cost:
        if cold:
            shutil.rmtree(folder / "cache", ignore_errors=True)
        return run([*evalops(), "--project", str(root), "plan", "--detailed-exitcode"], home=folder)

    def plain(what: str) -> Cost:
        return run([sys.executable, str(Path(__file__).with_name("plain_read.py")), what, str(root)])

    cold = in_turn(turns, plan=lambda: plan(cold=True), parse=lambda: plain("parse"))
    warm = in_turn(TURNS, plan=lambda: plan(cold=False), hash=lambda: plain("hash"))
    first, parse = cold["plan"].wall, cold["parse"].wall
    again, hash_ = warm["plan"].wall, warm["hash"].wall
    goal = {"goal": f"<= {cold_goal} s", "met": first <= cold_goal} if cold_goal else {}
    figure("cold", f"{first:.2f} s, CPU {cold['plan'].cpu:.2f} s", **goal)
    figure("  over parsing the files with PyYAML and json", f"{first / parse:.2f} x of {parse:.2f} s")
    figure("unchanged", f"{again:.2f} s, CPU {warm['plan'].cpu:.2f} s", f"<= {warm_goal} s", met=again <= warm_goal)
    figure("  over reading and hashing the files", f"{again / hash_:.2f} x of {hash_:.2f} s")
    figure("unchanged over cold", f"{again / first:.2f}")
