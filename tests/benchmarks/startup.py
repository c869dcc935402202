"""How long the command takes to start, beside importing the library that it is built on."""

from __future__ import annotations

import sys
from pathlib import Path

from measure import evalops, figure, in_turn, run, title

TURNS = 15


def bench(folder: Path) -> None:
    """Prints `evalops --version` beside `import click`."""
    title(f"start-up: median of {TURNS}")
    found = in_turn(
        TURNS,
        bare=lambda: run([sys.executable, "-c", "pass"]),
        click=lambda: run([sys.executable, "-c", "import click"]),
        version=lambda: run([*evalops(), "--version"]),
        help=lambda: run([*evalops(), "plan", "--help"]),
    )
    bare, click, version = found["bare"].wall, found["click"].wall, found["version"].wall
    figure("python -c pass", f"{bare * 1e3:.0f} ms")
    figure("python -c 'import click'", f"{click * 1e3:.0f} ms")
    figure("evalops --version", f"{version * 1e3:.0f} ms")
    figure("evalops plan --help", f"{found['help'].wall * 1e3:.0f} ms")
    figure("--version over import click", f"{version / click:.2f} x", "<= 1.5 x", met=version <= 1.5 * click)
