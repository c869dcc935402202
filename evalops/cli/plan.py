"""`evalops plan`"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, say, selection


@click.command("plan")
@selection
@click.option("-v", "--verbose", is_flag=True, help="Show how templates changed, and what is in step.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print the plan.")
@click.option("--refresh", is_flag=True, help="Ask the providers which jobs they have.")
@click.option("--rerun", multiple=True, metavar="ADDRESS", help="Plan to run this one again.")
@click.option("--retry-failed", is_flag=True, help="Plan to try failed jobs again.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Save the plan for `apply FILE`.")
@click.option("--detailed-exitcode", is_flag=True, help="Exit with 2 if there is anything to do.")
@project_option
def command(**options: Any) -> int:
    """Show what apply would do: what runs and what it costs, what is free, what is in step.

    Reads files only: no network, no key, nothing of the repository is run. SELECTORS are addresses, names or
    spec paths with * and ?, or tag:WORD.

    \b
    + create   ~ rerun    paid
    < adopt    > resume   * regrade  . forget   free
    = noop     ? unknown  ! failed or denied

    \b
    evalops plan
    evalops plan 'tone*' -x tag:slow -v
    evalops plan --changed-since origin/main
    evalops plan --out plan.json && evalops apply plan.json
    """
    from evalops.errors import Exit
    from evalops.views import text

    project = open_project(options["folder"])
    value = _value(project, options)
    if options["out"]:
        options["out"].write_text(_dump(value), encoding="utf-8")
        say(f"Saved to {options['out']}. To carry it out:\n  evalops apply {options['out']}")
    if options["form"] == "json":
        answer(_dump(value))
    else:
        _warn(value, project)
        answer(text.plan(value, verbose=options["verbose"]))
    pending = any(change["action"] != "noop" for change in value["changes"])
    return Exit.CHANGES if pending and options["detailed_exitcode"] else Exit.OK


def _value(project: Any, options: dict[str, Any]) -> Any:
    """The plan's machine form, from the cache where it was made before from the same bytes."""
    from evalops import plancache

    asked = [repr(options[name]) for name in ("selectors", "exclude", "rerun", "retry_failed")]
    # What git says is not among the bytes that the cache goes by.
    key = None if options["refresh"] or options["changed_since"] else plancache.key(project, asked)
    value = plancache.load(project, key) if key else None
    if value is None:
        began = time.time()
        value, files = _make(project, options)
        if key and files is not None:
            plancache.save(project, key, files, value, began=began)
    return value


def _make(project: Any, options: dict[str, Any]) -> tuple[Any, tuple[str, ...] | None]:
    from evalops import planning
    from evalops.plan import Options
    from evalops.planning import Selection
    from evalops.views import json_

    providers = planning.open_providers(project) if options["refresh"] else None
    planned = planning.make(
        project,
        Selection(include=options["selectors"], exclude=options["exclude"], changed_since=options["changed_since"]),
        options=Options(rerun=frozenset(options["rerun"]), retry_failed=options["retry_failed"]),
        providers=providers,
    )
    return json_.plan(planned.plan, planned.warnings, project.kept_text), planned.files


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
