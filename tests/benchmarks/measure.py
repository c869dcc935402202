"""What a command costs: wall time, CPU time and peak memory of its process, and how figures are printed.

Other processes disturb every single figure, so alternatives run in turn and their medians are compared.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Cost(NamedTuple):
    """Seconds of wall time, seconds of CPU time (user and system), and peak resident memory in MiB."""

    wall: float
    cpu: float
    peak: float


def evalops() -> list[str]:
    """The installed command of this interpreter's environment, as a user starts it."""
    installed = Path(sys.executable).with_name("evalops")
    return [str(installed)] if installed.exists() else [sys.executable, "-c", "from evalops.cli import main; main()"]


def run(command: Sequence[str], *, home: Path | None = None, expect: Sequence[int] = (0,)) -> Cost:
    """The cost of a command; its output is dropped, unless it fails. `home` holds its caches."""
    places = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache")} if home else {}
    environment = {**os.environ, **places}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)  # of this child alone
        wall = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode not in expect:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{output.read().decode()}")
    return Cost(
        wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / (1 << (20 if sys.platform == "darwin" else 10))
    )


def in_turn(times: int, **alternatives: Callable[[], Cost]) -> Mapping[str, Cost]:
    """Every alternative `times` times, one after the other; the medians, each figure by itself."""
    found: dict[str, list[Cost]] = {name: [] for name in alternatives}
    for _ in range(times):
        for name, measure in alternatives.items():
            found[name].append(measure())
    return {name: Cost(*map(statistics.median, zip(*costs, strict=True))) for name, costs in found.items()}


def marginal(small: Cost, large: Cost, rows: int) -> Cost:
    """What one row more costs, from two runs that differ by `rows` rows."""
    return Cost(*((more - less) / rows for less, more in zip(small, large, strict=True)))


def title(text: str) -> None:
    """The first line of a benchmark."""
    print(f"\n{text}\n{'-' * min(len(text), shutil.get_terminal_size().columns)}", flush=True)


def figure(name: str, value: str, goal: str = "", *, met: bool | None = None) -> None:
    """One figure, and its goal with how it was met."""
    word = "" if met is None else "  met" if met else "  MISSED"
    print(f"  {name:<44} {value:>22}{f'   goal {goal}' if goal else ''}{word}", flush=True)
