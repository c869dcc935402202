"""What the verbs share: the project option, where output goes, and how problems are shown."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.project import Project

Command = TypeVar("Command", bound=Callable[..., Any])


def project_option(command: Command) -> Command:
    """`--project DIR` after the verb as well as before it."""
    option = click.option(
        "--project", "folder", type=click.Path(path_type=Path), help="The project folder; default: here or above."
    )
    return option(command)


def selection(command: Command) -> Command:
    """The arguments that choose evaluations."""
    exclude = click.option("-x", "--exclude", multiple=True, metavar="SELECTOR", help="Leave these out.")
    changed = click.option("--changed-since", metavar="REF", help="Only what files changed since a git revision touch.")
    return click.argument("selectors", nargs=-1)(exclude(changed(command)))


def trusted_option(command: Command) -> Command:
    """`--trusted-ref REF`, for what reads a pull request."""
    option = click.option(
        "--trusted-ref",
        metavar="REF",
        envvar="EVALOPS_TRUSTED_REF",
        show_envvar=True,
        help="Take prices, budget, policy, providers, models, credentials, functions and serve from evalops.yaml at "
        "this git revision. Files that git does not track are errors then.",
    )
    return option(command)


def open_project(folder: Path | None, trusted_ref: str | None = None) -> Project:
    """The project named by either option, else the one here or above, with the settings of a trusted revision."""
    from evalops import project

    root = click.get_current_context().find_root()
    folder = root.obj = folder or root.obj
    found = project.find(folder, explicit=folder is not None)
    if not trusted_ref:
        return found
    from evalops import trusted

    return trusted.project(found, trusted_ref)


def answer(text: str) -> None:
    """The result of a verb, on stdout."""
    # Half a character, from a dataset for instance, cannot be printed: it stays the escape that JSON has for it.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    click.echo(text, nl=not text.endswith("\n"), color=_colour(sys.stdout))


def say(text: str) -> None:
    """Progress and remarks, on stderr."""
    click.echo(text, err=True, color=_colour(sys.stderr))


def complain(diagnostics: Iterable[Diagnostic], project: Project | None = None) -> None:
    """Problems, on stderr, each with the line it is about."""
    from evalops.views import text

    found = list(diagnostics)
    if found:
        say(text.diagnostics(found, _reader(project)))


def _reader(project: Project | None) -> Callable[[str], Sequence[str]]:
    @cache
    def lines(path: str) -> Sequence[str]:
        try:
            return (project or open_project(None)).read(path).decode("utf-8", "replace").split("\n")
        except (EvalopsError, RuntimeError, OSError):
            return ()

    return lines


def _colour(stream: Any) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
