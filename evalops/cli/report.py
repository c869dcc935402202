"""`evalops report`"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option

if TYPE_CHECKING:
    from evalops.errors import Diagnostic
    from evalops.project import Project


@click.command("report")
@click.argument("base", required=False)
@click.option("--format", "form", type=click.Choice(["comment"]), default="comment", help="What to write.")
@project_option
def command(base: str | None, form: str, folder: Path | None) -> None:
    """Write the comment for a pull request: what is not applied yet, how results moved since BASE, and the gates.

    At most 60,000 bytes: what does not fit is left out by levels (rows, then tables, then addresses), never cut; the
    totals are always there. The first line is a marker that nobody sees, by which the comment is found again.
    Nothing from a spec, a dataset or a model becomes a link, an image, a mention, HTML or a command. BASE is as in
    `evalops diff`. The exit code is 0 also if gates fail: that is for `evalops check`.

    \b
    evalops report --format comment > comment.md
    evalops report --format comment origin/main...
    """
    from evalops.views import comment

    answer(comment.comment(value_of(open_project(folder), base, datetime.now(UTC))))


def value_of(project: Project, base: str | None, now: datetime) -> dict[str, Any]:
    """Everything that the comment says; what cannot be made is a problem in it."""
    from evalops import planning, proof, reviewing
    from evalops.errors import EvalopsError
    from evalops.views import json_

    problems: list[Diagnostic] = []
    value: dict[str, Any] = {"review": None, "plan": None, "head": None, "base": None, "fallen": []}
    reviewed = None
    try:
        reviewed = reviewing.of(project, base)
        found = reviewed.to_json()
        value |= {"review": found, "head": found["head"], "base": found["base"]}
        problems += reviewed.diagnostics
    except EvalopsError as error:
        problems += error.diagnostics
    try:
        planned = planning.make(project)
        value["plan"] = json_.plan(planned.plan, planned.warnings, project.kept_text)
        problems += planned.warnings
        value["fallen"] = [json_.diagnostic(each) for each in proof.fallen(planned, reviewed)] if reviewed else []
    except EvalopsError as error:
        problems = [each for each in problems if each.is_error] + list(error.diagnostics)
    shown = [json_.diagnostic(each) for each in dict.fromkeys(problems)]
    return {**value, "problems": shown, "at": f"{now:%Y-%m-%d %H:%M} UTC"}
