"""All benchmarks, or those named:  python tests/benchmarks/run.py [startup] [plan] [rerun] [throughput] [memory] [report]

Every ratio is between figures of one run on one machine; absolute figures are for a feeling only.
"""

from __future__ import annotations

import argparse
import compileall
import os
import platform
import sys
import tempfile
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

import evalops

HERE = Path(__file__).resolve().parent
NAMES = ("startup", "plan", "rerun", "throughput", "memory", "report")


def main() -> None:
    """Runs them one after the other, each in a folder of its own."""
    parser = argparse.ArgumentParser(description="Benchmarks of evalops, as ratios within one run")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)}; default: all")
    names = parser.parse_args().names or NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}")
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, load {load}")
    compileall.compile_dir(Path(evalops.__file__).parent, quiet=2)  # as pip leaves an installed package
    for name in names:
        # Each in a process of its own: a child's peak memory is never less than its parent's at the fork.
        process = get_context("spawn").Process(target=bench, args=(name,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit(f"the benchmark {name} failed")


def bench(name: str) -> None:
    """Runs one benchmark in a folder that is gone afterwards."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]  # for its neighbours, and for the tests' model server
    with tempfile.TemporaryDirectory(prefix="evalops-") as folder:
        import_module(name).bench(Path(folder))


if __name__ == "__main__":
    main()
