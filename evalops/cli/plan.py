"""`evalops plan`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, say, selection, trusted_option


@click.command("plan")
@selection
@click.option("-v", "--verbose", is_flag=True, help="Show how templates changed, and what is in step.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", help="How to print the plan."
)
@click.option("--refresh", is_flag=True, help="Ask the services which jobs they have, and what changed there.")
@click.option("--rerun", multiple=True, metavar="ADDRESS", help="Plan to run this one again.")
@click.option("--retry-failed", is_flag=True, help="Plan to try failed jobs again.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan for `apply FILE`.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if there is anything to do.")
@trusted_option
@project_option
def command(**options: Any) -> int:
    """Show what apply would do: what runs and what it costs, what is free, what is in step.

    Reads files only: no network, no key, nothing of the repository is run. SELECTORS are addresses, names or
    spec paths with * and ?, or tag:WORD.

    \b
    + create   ~ rerun    paid
    < adopt    > resume   * regrade  . forget   free
    = noop     ? unknown  ! failed or denied

    At Patronus a job that goes on is paid too, for each row that is neither here nor kept there. What a service has
    changed behind a name, such as another version of an evaluator, shows with --refresh only, for nobody is asked else.

    \b
    evalops plan
    evalops plan 'tone*' -x tag:slow -v
    evalops plan --changed-since origin/main
    evalops plan --out plan.json && evalops apply plan.json
    evalops plan --format markdown        for a pull request, at most 60,000 bytes
    evalops plan --trusted-ref origin/main        a pull request cannot raise its own budget
    """
    from evalops import api
    from evalops.errors import Exit
    from evalops.views import text

    project = open_project(options["folder"])
    names = ("exclude", "changed_since", "refresh", "rerun", "retry_failed", "trusted_ref")
    asked = {name: options[name] for name in names}
    planned = api.Project(project.root).plan(*options["selectors"], **asked)
    value = planned.value
    if options["out"]:
        options["out"].write_text(_dump(value), encoding="utf-8")
        say(f"Saved to {options['out']}. To carry it out:\n  evalops apply {options['out']}")
    if options["form"] == "json":
        answer(_dump(value))
    else:
        _warn(value, project)
        answer((_markdown if options["form"] == "markdown" else text.plan)(value, verbose=options["verbose"]))
    return Exit.CHANGES if planned.has_changes and options["detailed_exitcode"] else Exit.OK


def _markdown(value: Any, *, verbose: bool) -> str:
    from evalops.views import comment  # which needs more than a plan in a terminal does

    return comment.plan(value, verbose=verbose)


def _dump(value: Any) -> str:
    from evalops.views import json_

    return json_.dump(value)


def _warn(value: Any, project: Any) -> None:
    from evalops.errors import Diagnostic, Mark, Severity

    complain(
        (
            Diagnostic(
                code=each["code"],
                message=each["message"],
                mark=Mark(each["path"], each["line"] or 0, each["column"] or 0) if each["path"] else None,
                hint=each["hint"],
                severity=Severity(each["severity"]),
            )
            for each in value["diagnostics"]
        ),
        project,
    )
