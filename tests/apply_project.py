"""A project folder for tests of apply: specs and rows as values, the command line in this process or its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import yaml
from command import Done

import evalops
from evalops import project
from evalops.project import Project

PACKAGE = Path(evalops.__file__).parents[1]
TEMPLATE = "Is the reply polite?"
ROWS = "rows.jsonl"
Row = Mapping[str, Any]


def truths(count: int, *, rude_every: int = 4) -> list[dict[str, Any]]:
    """Rows whose reply tells the tests' model server the verdict, with that verdict as gold."""
    labels = ["rude" if number % rude_every == 0 else "polite" for number in range(count)]
    return [
        {"id": f"r{number}", "response": f"reply {number} truth={label}", "gold": label}
        for number, label in enumerate(labels)
    ]


def duels(count: int) -> list[dict[str, Any]]:
    """Rows with two responses; the one of the greater quality wins."""
    return [
        {"question": f"q{number}", "first": f"one quality={number % 3}", "second": f"two quality={number % 2}"}
        for number in range(count)
    ]


@dataclass(frozen=True)
class Folder:
    """A project at `root` whose model `judge` is served at `url`."""

    root: Path
    url: str

    def settings(self, *, local: Mapping[str, Any] | None = None, **fields: Any) -> Folder:
        """Writes evalops.yaml; `local` are the engine's limits."""
        value = {
            "version": 1,
            "models": {"judge": {"base_url": self.url}, "writer": {"base_url": self.url}},
            "providers": {"local": {"down_after": 1.0, **(local or {})}},
            **fields,
        }
        self._write("evalops.yaml", yaml.safe_dump(value, sort_keys=False))
        return self

    def rows(self, rows: Iterable[Row], path: str = ROWS) -> Folder:
        """Writes a dataset."""
        self._write(path, "".join(json.dumps(row) + "\n" for row in rows))
        return self

    def spec(self, name: str = "tone", *, judge: Any = None, file: str | None = None, **fields: Any) -> Folder:
        """Writes a spec, of type classify unless told otherwise; a field that is None is left out."""
        if isinstance(judge, dict) and "column" not in judge:
            judge = {"model": "judge", "system_template": TEMPLATE, **judge}
        value = {
            "version": 1,
            "name": name,
            "type": "classify",
            "dataset": ROWS,
            "judge": judge or {"model": "judge", "system_template": TEMPLATE},
            **fields,
        }
        if value["type"] == "classify":
            value = {"labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response", **value}
        written = {key: each for key, each in value.items() if each is not None}
        self._write(file or f"{name}.yaml", yaml.safe_dump(written, sort_keys=False))
        return self

    def duel(self, name: str = "duel", **fields: Any) -> Folder:
        """Writes a spec of type compare."""
        judge = {"system_template": "Which answer to {{ question }} is better?"}
        return self.spec(name, type="compare", judge=judge, model_a="first", model_b="second", **fields)

    def run(self, *arguments: str) -> Done:
        """A command in this process."""
        return command.run(self.root, *arguments)

    def apply(self, *arguments: str) -> Done:
        """`evalops apply --yes`"""
        return self.run("apply", "--yes", *arguments)

    def applied(self, *arguments: str) -> Done:
        """An apply that must end well."""
        done = self.apply(*arguments)
        assert done.code == 0, done
        return done

    def actions(self, *arguments: str) -> dict[str, str]:
        """What plan says would happen, by address; what is in step is `noop`."""
        done = self.run("plan", "--format", "json", *arguments)
        assert done.code == 0, done
        return {change["address"]: change["action"] for change in json.loads(done.out)["changes"]}

    def start(
        self, *arguments: str, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """`evalops apply --yes` in a process of its own; `prefix` is a command that runs it, such as nohup."""
        code = "from evalops.cli import main; main()"
        return subprocess.Popen(
            [*prefix, sys.executable, "-c", code, "--project", str(self.root), "apply", "--yes", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(PACKAGE), **(environment or {})},
        )

    def lock(self, name: str = "tone") -> dict[str, Any]:
        """The entries of a lockfile."""
        value: dict[str, Any] = json.loads((self.root / f"{name}.lock").read_text())["evaluations"]
        return value

    def entry(self, address: str = "tone", lock: str | None = None) -> dict[str, Any]:
        """One entry."""
        value: dict[str, Any] = self.lock(lock or address)[address]
        return value

    def summary(self, address: str = "tone", lock: str | None = None) -> dict[str, Any]:
        """The result in an entry."""
        value: dict[str, Any] = self.entry(address, lock)["summary"]
        return value

    def verdicts(self, name: str = "tone") -> list[Any]:
        """The lines of a verdicts file."""
        return [json.loads(line) for line in (self.root / f"{name}.verdicts.jsonl").read_text().splitlines()]

    def rows_of(self, address: str = "tone") -> list[dict[str, Any]]:
        """What `evalops rows` prints."""
        done = self.run("rows", address)
        assert done.code == 0, done
        return [json.loads(line) for line in done.out.splitlines()]

    @property
    def project(self) -> Project:
        """The project as the package sees it."""
        return project.find(self.root, explicit=True)

    def _write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
