"""Asking git, in a way that runs nothing a repository brings along."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

SECONDS = 60.0

# A repository can name programs in its configuration, and a folder of a pull request can pretend to be one.
_QUIET = (
    "--no-pager", "--literal-pathspecs", "--no-replace-objects",
    "-c", "core.fsmonitor=", "-c", "core.hooksPath=/dev/null", "-c", "diff.external=", "-c", "core.pager=",
    "-c", "safe.bareRepository=explicit", "-c", "log.showSignature=false", "-c", "maintenance.auto=false",
)  # fmt: skip
_ENVIRONMENT = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    # What a partial clone lacks stays away: to fetch it would run the programs of any protocol.
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
    "LC_ALL": "C",
}


_NO_CONFIG: Mapping[str, str] = {}


class Answer(NamedTuple):
    """What git said. `ok` is false also where there is no git; `problem` is its first complaint."""

    ok: bool
    out: bytes
    problem: str = ""

    @property
    def text(self) -> str:
        """The output as text, without the line break at its end."""
        return self.out.decode("utf-8", "surrogateescape").removesuffix("\n")


def ask(root: Path, *arguments: str, stdin: bytes = b"", config: Mapping[str, str] = _NO_CONFIG) -> Answer:
    """Runs a git command in a folder. Names of revisions and paths in `arguments` are the caller's to check.

    `config` has settings by name. A command that looks into files of the working tree needs those of `unfiltered`.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | _ENVIRONMENT
    environment["GIT_CONFIG_COUNT"] = str(len(config))
    for number, (name, value) in enumerate(config.items()):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    try:
        done = subprocess.run(  # noqa: S603
            ["git", *_QUIET, *arguments],  # noqa: S607
            cwd=root, capture_output=True, timeout=SECONDS, env=environment, check=False, input=stdin,
        )  # fmt: skip
    except FileNotFoundError:
        return Answer(ok=False, out=b"", problem="git is not installed")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        return Answer(ok=False, out=b"", problem=f"git could not be run: {error}")
    complaint = done.stderr.decode("utf-8", "replace").strip().split("\n")[0]
    return Answer(ok=done.returncode == 0, out=done.stdout if done.returncode == 0 else b"", problem=complaint)


def is_near(root: Path) -> bool:
    """Whether a folder may lie in a repository; looks at names only."""
    return any((folder / ".git").exists() for folder in (root, *root.parents))


def unfiltered(root: Path) -> dict[str, str]:
    """The settings by which no filter of a repository runs: git would send each file that it compares through them."""
    found = ask(root, "config", "-z", "--name-only", "--get-regexp", r"^filter\.").text
    names = {name.rpartition(".")[0] for name in found.split("\0") if name.count(".") > 1}
    off = {"clean": "", "smudge": "", "process": "", "required": "false"}
    return {f"{name}.{key}": value for name in sorted(names) for key, value in off.items()}
