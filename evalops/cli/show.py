"""`evalops show`"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.lock import Entry
    from evalops.project import Project

MOST = 10  # rows that are shown


@click.command("show")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@project_option
def command(address: str, form: str, folder: Path | None) -> None:
    """Show the result at ADDRESS: metrics with their intervals, label counts, gates, failing rows.

    \b
    evalops show support-tone
    evalops show 'support-tone[model=a]' --format json
    """
    from evalops.views import json_, result

    project = open_project(folder)
    entry = entry_of(project, address)
    if form == "json":
        answer(json_.dump(json_.entry(entry)))
        return
    answer(result.show(json_.entry(entry), _failing(project, entry)))


def entry_of(project: Project, address: str) -> Entry:
    """The lock entry at an address. Raises EvalopsError where no lockfile has it."""
    from evalops import schema

    locks, problems = project.locks()
    entries = {entry.address: entry for lock in locks.values() for entry in lock.entries.values()}
    if address in entries:
        return entries[address]
    if problems:
        raise EvalopsError(*problems)
    raise EvalopsError(
        Diagnostic(
            code="select/nothing",
            message=f"no lockfile has the address `{address}`",
            hint=schema.nearest(address, entries) or "evalops status lists the addresses",
        )
    )


def _failing(project: Project, entry: Entry) -> list[dict[str, Any]]:
    """The first rows to look at, if the rows are on this machine."""
    from evalops import rows
    from evalops.views import json_

    try:
        failed = (each for each in rows.of(project, entry) if each.failed)
        first = list(itertools.islice(failed, MOST))
    except EvalopsError:
        return []
    return [json_.row(each.key, each.source, each.verdict, each.detail, entry.job or "") for each in first]
