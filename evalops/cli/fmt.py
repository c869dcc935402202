"""`evalops fmt`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalops.cli.output import answer, complain, open_project, project_option, say

if TYPE_CHECKING:
    from evalops.errors import Diagnostic
    from evalops.project import Project


@click.command("fmt")
@click.argument("paths", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 and name the files that would change.")
@project_option
def command(paths: tuple[str, ...], folder: Path | None, *, check: bool) -> int:
    """Write every spec and evalops.yaml, or the files and folders at PATHS, in one layout.

    Fields in one order, two columns for each level, at most one blank line: a diff then shows what was meant. Every
    comment stays with what it is about. No value changes and no fingerprint, so nothing runs again. A file for which
    that cannot be said stays as it is, with an error.

    \b
    evalops fmt
    evalops fmt tone.yaml
    evalops fmt --check
    """
    from evalops.errors import EvalopsError, Exit
    from evalops.views.safe import flat

    project = open_project(folder)
    files = _files(project, paths)
    problems: list[Diagnostic] = []
    changed: list[str] = []
    for path in files:
        try:
            if _lay_out(project, path, check=check):
                changed.append(path)
        except EvalopsError as error:
            problems += error.diagnostics
    complain(problems, project)
    if changed:
        answer("".join(f"{flat(path)}\n" for path in changed))
    count = f"{len(changed)} of {len(files)} file{'s' * (len(files) != 1)}"
    if changed and check:
        say(f"{count} would change: evalops fmt")
    elif not problems:
        say(f"{count} changed." if changed else "Nothing to change.")
    return Exit.PROBLEM if problems or (check and changed) else Exit.OK


def _files(project: Project, paths: tuple[str, ...]) -> list[str]:
    """The files that are asked for; all specs and the settings by default."""
    from evalops.settings import FILE

    every = [FILE, *project.specs()]
    found: list[str] = []
    for path in map(project.relative, paths):
        folder = "" if path in (".", "") else f"{path.rstrip('/')}/"
        inside = [each for each in every if each.startswith(folder)] if (project.root / path).is_dir() else []
        found += inside or [path]
    return list(dict.fromkeys(found)) if paths else every


def _lay_out(project: Project, path: str, *, check: bool) -> bool:
    """Whether a file is in another layout; unless it is only looked at, it is then written. Raises EvalopsError."""
    from evalops import layout
    from evalops.errors import Diagnostic, EvalopsError
    from evalops.settings import FILE

    if not path.endswith((".yaml", ".yml")):
        message = f"`{path}` is no YAML file"
        raise EvalopsError(Diagnostic(code="fmt/no-yaml", message=message, hint="fmt is for specs and evalops.yaml"))
    data = project.read(path)
    text = layout.laid_out(data, path, is_spec=path != FILE)
    if text.encode() == data:
        return False
    if not check:
        project.write(path, text.encode())
    return True
