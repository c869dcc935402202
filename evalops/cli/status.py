"""`evalops status`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, complain, open_project, project_option

if TYPE_CHECKING:
    from evalops.lock import Lock


@click.command("status")
@click.argument("selectors", nargs=-1)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@project_option
def command(selectors: tuple[str, ...], form: str, folder: Path | None) -> int:
    """List every evaluation of the lockfiles with its state and last result.

    Reads lockfiles only. `evalops plan` says whether they answer the specs of today.

    \b
    evalops status
    evalops status 'tone*' --format json
    """
    from fnmatch import fnmatchcase

    from evalops.errors import Exit
    from evalops.views import json_, tables

    project = open_project(folder)
    locks, problems = project.locks()
    found = [
        each
        for each in states(locks)
        if not selectors or any(each["address"] == one or fnmatchcase(each["address"], one) for one in selectors)
    ]
    if form == "json":
        answer(json_.dump(found))
    elif found:
        answer(tables.status(found))
    else:
        answer("Nothing has been applied yet. To see what would run:\n  evalops plan")
    complain(problems, project)
    return Exit.PROBLEM if problems else Exit.OK


def states(locks: Mapping[str, Lock]) -> list[dict[str, Any]]:
    """Every entry as its machine form, with the headline of its result."""
    from evalops import jobs
    from evalops.spec import Type
    from evalops.views import json_

    found = []
    for lock in locks.values():
        for entry in lock.entries.values():
            value = json_.entry(entry)
            headline = jobs.headline(Type(entry.inputs["type"]), entry.summary)
            found.append({**value, "headline": list(headline) if headline else None})
    return sorted(found, key=lambda each: each["address"])
