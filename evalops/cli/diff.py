"""`evalops diff`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalops.cli.output import answer, complain, open_project, project_option, say

if TYPE_CHECKING:
    from evalops.project import Project


@click.command("diff")
@click.argument("base", required=False)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", help="How to print it."
)
@project_option
def command(base: str | None, form: str, folder: Path | None) -> None:
    """Show how results moved since BASE, a git revision; by default since this branch left the default branch.

    For every evaluation whose result changed: the headline before and now with 95 % intervals, the difference with a
    paired test over the rows that both results have (adjusted by Holm), the fields that explain it, gates that
    changed sides, and up to ten rows that flipped, with their text where the dataset is here. A new name and
    another threshold are shown as free.

    Reads lockfiles and verdicts files of both sides, and nothing else: no network, no key, no checkout. BASE... with
    three dots means its merge base with HEAD.

    \b
    ▲ up   ▼ down   ≈ within chance   > no result yet
    + new  - gone   < renamed         * regraded

    \b
    evalops diff
    evalops diff main
    evalops diff origin/main... --format markdown
    """
    from evalops import reviewing
    from evalops.views import comment, json_, review

    project = open_project(folder)
    found = reviewing.of(project, base)
    value = found.to_json()
    complain(found.diagnostics, project)
    answer({"text": review.show, "json": json_.dump, "markdown": comment.review}[form](value))
    if form == "text":
        _remind(project)


def _remind(project: Project) -> None:
    """What is not applied yet has not moved anything."""
    from evalops import api
    from evalops.errors import EvalopsError

    try:
        changes = api.Project(project.root).plan().changes  # which is quick where nothing has changed since the last
        pending = sum(each["action"] != "noop" for each in changes)
    except EvalopsError:
        say("The specs of today have errors:\n  evalops validate")
        return
    if pending:
        say(f"{pending} change{'s' * (pending != 1)} not applied yet:\n  evalops plan")
