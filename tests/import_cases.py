"""Sources of other tools in cases/import, and what an import makes of them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import golden
from command import Done
from conftest import Cli, Folder

from evalops import catalog
from evalops.errors import Diagnostic, EvalopsError
from evalops.project import matching

CASES = Path(__file__).parent / "cases" / "import"
SETTINGS: dict[str, Any] = {"version": 1, "specs": ["evals/**/*.yaml"]}


@dataclass(frozen=True)
class Memory:
    """A folder that is in memory."""

    files: Mapping[str, str]

    def read(self, path: str, limit: int) -> bytes:
        if path not in self.files:
            raise EvalopsError(Diagnostic(code="file/missing", message=f"`{path}` does not exist"))
        return self.files[path].encode("utf-8", "surrogatepass")

    def matching(self, glob: str) -> list[str]:
        return matching(sorted(self.files), [glob])


def lay(folder: Folder, name: str) -> list[str]:
    """Copies the source of a case into a project, and gives the paths of its files from there."""
    shutil.copytree(CASES / name / "source", folder.root / "old")
    folder.write({"evalops.yaml": json.dumps(SETTINGS)})
    found = (path for path in (folder.root / "old").rglob("*") if path.is_file())
    return sorted(path.relative_to(folder.root).as_posix() for path in found)


def written(folder: Folder) -> dict[str, str]:
    """Every file of an import by its path."""
    found = sorted(path for path in (folder.root / "evals").rglob("*") if path.is_file())
    return {path.relative_to(folder.root).as_posix(): path.read_text(encoding="utf-8") for path in found}


def compare(folder: Folder, name: str, done: Done) -> None:
    """Asserts that an import printed and wrote what is expected."""
    files = "".join(f"=== {path}\n{text}" for path, text in written(folder).items())
    golden.check(f"{done.err}{done.out}[exit code {done.code}]\n\n{files}", CASES / name / "expected.txt")


def serve_all(folder: Folder, **fields: Any) -> None:
    """Says in evalops.yaml that every model of the specs is the one with these fields."""
    project = folder.write({"evalops.yaml": json.dumps(SETTINGS)})
    evaluations, problems = catalog.evaluations_of(project, project.specs())
    assert problems == []
    names = sorted({model.model for each in evaluations for model in each.models})
    folder.write({"evalops.yaml": json.dumps({**SETTINGS, "models": dict.fromkeys(names, fields)})})


def holds(cli: Cli, *again: str) -> None:
    """Asserts that what an import wrote is valid, laid out, can be planned, and is made the same once more."""
    for arguments in (("validate",), ("fmt", "--check", "evals"), ("plan",)):
        done = cli(*arguments)
        assert done.code == 0, done.err
    done = cli(*again)
    assert done.code == 0, done.err
    assert {line.endswith(", as before") for line in done.out.splitlines()} == {True}


def errors_of(tool: str, source: Any) -> set[str]:
    """What validate has against the specs that a source becomes in a new project; they are laid out at once."""
    with tempfile.TemporaryDirectory() as root:
        folder = Folder(Path(root) / "project")
        folder.write({"evalops.yaml": json.dumps(SETTINGS), "source.json": json.dumps(source)})
        cli = Cli(folder.root)
        done = cli("import", "--from", tool, "source.json", "--to", "evals")
        assert done.code in (0, 1)
        if done.code == 1:
            return set()
        assert cli("fmt", "--check", "evals").code == 0
        return set(re.findall(r"error\[([a-z/-]+)\]", cli("validate").err))


def results(folder: Folder) -> dict[str, Any]:
    """The lock entries of all evaluations, by address."""
    locks = (json.loads(path.read_text()) for path in (folder.root / "evals").rglob("*.lock"))
    return {address: entry for lock in locks for address, entry in lock["evaluations"].items()}
