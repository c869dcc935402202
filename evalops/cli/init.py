"""`evalops init`"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import click

from evalops.cli.output import answer, say
from evalops.errors import Diagnostic, EvalopsError

# In the package no name begins with a dot: git and build tools would act on these two there.
NAMES = {"gitignore": ".gitignore", "gitattributes": ".gitattributes"}


@click.command("init")
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--project", "folder", type=click.Path(path_type=Path), help="The same as DIRECTORY.")
@click.option("--ci", is_flag=True, help="Write workflows and a commit hook for the project that is there.")
def command(directory: Path | None, folder: Path | None, *, ci: bool) -> None:
    """Write a starter project that applies at once to DIRECTORY, by default to this folder.

    Two evaluations with their rows, judged by a small model on this machine: no key, no server. Nothing is
    overwritten: where a file is in the way, nothing is written at all.

    --ci is for a project in a git repository: workflows that review a pull request without any secret, post one
    comment and apply from a protected environment, a hook for pre-commit, and .gitattributes. A file that is there
    already stays as it is.

    \b
    evalops init demo
    evalops --project demo apply
    evalops init --ci demo
    """
    from evalops.views.safe import line

    root = directory or folder or click.get_current_context().find_root().obj or Path()
    if ci:
        _write_workflows(root)
        return
    _refuse_inside_project(root)
    starter = _starter()
    _refuse_obstacles(root, starter)
    missing = {name: data for name, data in starter.items() if not os.path.lexists(root / name)}
    _write(root, missing)
    where = "this folder" if root == Path() else f"`{line(root)}`"
    if missing:
        answer(f"Wrote a starter project to {where}:\n" + "".join(f"  {name}\n" for name in missing))
    else:
        answer(f"The starter project is in {where} already.\n")
    say(_next(root))


def _write_workflows(folder: Path) -> None:
    from evalops import project
    from evalops.cli import workflows
    from evalops.views.safe import line

    root, contents = workflows.of(project.find(folder, explicit=folder != Path()).root)
    obstacles = {name: _obstacle(root, name, data) for name, data in contents.items()}
    kept = [name for name, obstacle in obstacles.items() if obstacle]
    missing = {name: data for name, data in contents.items() if not os.path.lexists(root / name) and name not in kept}
    _write(root, missing)
    if missing:
        answer(f"Wrote to `{line(root)}`:\n" + "".join(f"  {name}\n" for name in missing))
    elif not kept:
        answer("The workflows are there already.\n")
    if kept:
        say("Left as they are, since they say something else:\n" + "".join(f"  {name}\n" for name in kept))
    if any(name.endswith("evalops-apply.yaml") for name in missing):
        say("What evalops-apply.yaml needs before its first time stands in its first lines.")


def _starter() -> dict[str, bytes]:
    """The starter project: contents by path."""
    from evalops import schema

    found = {NAMES.get(name, name): data for name, data in _walk(files("evalops") / "starter")}
    found["schemas/spec-v1.json"] = schema.text("spec").encode()  # what the first line of each spec points to
    return dict(sorted(found.items()))


def _walk(folder: Traversable, below: str = "") -> Iterator[tuple[str, bytes]]:
    for each in folder.iterdir():
        if each.is_dir():
            yield from _walk(each, f"{below}{each.name}/")
        else:
            yield below + each.name, each.read_bytes()


def _refuse_inside_project(root: Path) -> None:
    from evalops.settings import FILE

    for above in root.absolute().parents:
        if (above / FILE).is_file():
            raise EvalopsError(
                Diagnostic(
                    code="init/inside-project",
                    message=f"`{root}` lies in the project `{above}`, which would read the new specs as its own",
                    hint="choose a folder outside of it",
                )
            )


def _refuse_obstacles(root: Path, starter: Mapping[str, bytes]) -> None:
    """Raises EvalopsError with everything that stands where a file is to be written."""
    obstacles = dict.fromkeys(_obstacle(root, name, data) for name, data in starter.items())
    found = [
        Diagnostic(code="init/exists", message=f"`{each}` is there already, so nothing was written")
        for each in obstacles
        if each
    ]
    if found:
        found[-1] = replace(found[-1], hint="choose a new folder: evalops init DIRECTORY")
        raise EvalopsError(*found)


def _obstacle(root: Path, name: str, data: bytes) -> Path | None:
    """What is in the way of a file: another content under its name, or no folder where it needs one."""
    for folder in (root, *(root / each for each in reversed(PurePosixPath(name).parents[:-1]))):
        # A link inside the new project could lead anywhere, and a project follows none.
        if os.path.lexists(folder) and (not folder.is_dir() or (folder != root and folder.is_symlink())):
            return folder
    path = root / name
    return path if os.path.lexists(path) and not _holds(path, data) else None


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and not path.is_symlink() and path.read_bytes() == data
    except OSError:
        return False


def _write(root: Path, contents: Mapping[str, bytes]) -> None:
    """Writes all files or, where one cannot be written, none."""
    made: list[Path] = []
    try:
        for name, data in contents.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                made.append(path)
                stream.write(data)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        reason = (error.strerror or str(error)).lower()
        raise EvalopsError(
            Diagnostic(
                code="file/write",
                message=f"`{error.filename or root}` could not be written: {reason}",
                hint="nothing was written: make room or choose another folder",
            )
        ) from None


def _next(root: Path) -> str:
    """The commands that go on from here, each on a line that can be pasted."""
    evalops = "evalops" if root == Path() else f"evalops --project {shlex.quote(str(root))}"
    steps = [
        ("What would run:", f"{evalops} plan"),
        ("Run it; the first time, the model is fetched (93 MB):", f"{evalops} apply"),
    ]
    if find_spec("xllamacpp") is None:
        steps.insert(0, ("The model needs the extra `embedded`:", "pip install 'evalops-cli[embedded]'"))
    return "\n".join(f"{words}\n  {step}" for words, step in steps)
