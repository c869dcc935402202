"""A project in a real git repository, whose judges are columns of its rows: an apply asks nobody and takes no time."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apply_project import Folder
from command import Done

NOBODY = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.com", "-c", "commit.gpgsign=false")
ROWS = 60
ID = {"path": "rows.jsonl", "id": "id"}


def rows(count: int = ROWS) -> list[dict[str, Any]]:
    """Rows with the verdicts of four judges: `good` passes 54 of 60, `fair` 51, `poor` 36, and `same` as `good`."""
    return [
        {
            "id": f"r{number:03}",
            "question": f"question {number}",
            "response": f"answer {number}",
            "good": "polite" if number % 10 else "rude",
            "fair": "polite" if number % 10 and number % 20 != 5 else "rude",
            "poor": "polite" if number % 5 < 3 else "rude",
            "same": "polite" if number % 10 else "rude",
            "grade": 1 + number % 5,
            "lower": max(1, number % 5),
            "choice": ("A", "B", "Tie")[number % 3],
            "other": ("B", "B", "Tie")[number % 3],
        }
        for number in range(count)
    ]


@dataclass(frozen=True)
class Repository:
    """A repository at `root` with a project in its folder `below`, "" for the root itself."""

    root: Path
    below: str = ""

    @property
    def folder(self) -> Folder:
        return Folder(self.root / self.below, "http://127.0.0.1:9")

    @classmethod
    def make(cls, root: Path, below: str = "") -> Repository:
        """A repository on the branch main, with rows and no spec."""
        made = cls(root, below)
        (root / below).mkdir(parents=True, exist_ok=True)
        made.git("init", "--quiet", "--initial-branch", "main")
        (root / ".gitignore").write_text(".evalops/\n")
        made.folder.settings().rows(rows())
        return made

    def git(self, *arguments: str, ok: bool = True) -> str:
        """What a git command prints; one that may fail has `ok` off."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            ["git", *NOBODY, *arguments], cwd=self.root, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0 or not ok, done.stderr
        return done.stdout.strip()

    def spec(self, name: str = "tone", column: str = "good", **fields: Any) -> Repository:
        """Writes a spec whose verdicts are in a column."""
        what: dict[str, Any] = {"dataset": ID, "judge": {"column": column}, **fields}
        self.folder.spec(name, **what)
        return self

    def commit(self, message: str = "a change") -> str:
        """Everything in one commit; its id."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def applied(self, *arguments: str, message: str = "applied", codes: Sequence[int] = (0, 3)) -> str:
        """Applies and commits."""
        done = self.folder.apply(*arguments)
        assert done.code in codes, done
        return self.commit(message)

    def branch(self, name: str, start: str = "main") -> Repository:
        """Checks out a new branch."""
        self.git("checkout", "--quiet", "-b", name, start)
        return self

    def run(self, *arguments: str) -> Done:
        """A command of evalops in this process."""
        return self.folder.run(*arguments)

    def write(self, files: Mapping[str, str]) -> None:
        """Writes files of the project."""
        for path, text in files.items():
            target = self.root / self.below / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")

    def read(self, path: str) -> str:
        """A file of the project."""
        return (self.root / self.below / path).read_text(encoding="utf-8")
