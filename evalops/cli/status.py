"""`evalops status`"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, say

if TYPE_CHECKING:
    from evalops.project import Project

LISTED = 20  # jobs of a service, unless told otherwise


@click.command("status")
@click.argument("selectors", nargs=-1)
@click.option("--watch", "is_watching", is_flag=True, help="Wait for the jobs at the service that are not finished.")
@click.option("--remote", "is_remote", is_flag=True, help="List the jobs at the service instead.")
@click.option("--type", "type_", type=click.Choice(["classify", "score", "compare"]), help="With --remote: this type.")
@click.option("--status", "word", metavar="WORD", help="With --remote: in this status, by the service's word.")
@click.option("--limit", type=click.IntRange(1, 100), help="With --remote: at most this many; default 20.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@project_option
def command(selectors: tuple[str, ...], form: str, folder: Path | None, **options: Any) -> int:
    """List every evaluation of the lockfiles with its state and last result.

    Reads lockfiles only. `evalops plan` says whether they answer the specs of today. With --remote the service is
    asked for its jobs, whoever made them, newest first; its words are pending, queued, running, completed, error and
    user_error. --watch tells how they end; `evalops apply` collects their results.

    \b
    evalops status
    evalops status 'tone*' --format json
    evalops status --watch
    evalops status --remote --type score --status completed
    """
    if options["is_remote"]:
        return _remote(selectors, form, folder, options)
    if any(options[name] for name in ("type_", "word", "limit")):
        raise click.UsageError("--type, --status and --limit go with --remote.")
    from evalops import api
    from evalops.errors import Exit
    from evalops.views import json_, tables

    project = open_project(folder)
    if options["is_watching"]:
        _watch(project, selectors)
    locks, problems = project.locks()
    found = api.states(locks, selectors)
    if form == "json":
        answer(json_.dump(found))
    elif found:
        answer(tables.status(found))
    else:
        answer("Nothing has been applied yet. To see what would run:\n  evalops plan")
    complain(problems, project)
    return Exit.PROBLEM if problems else Exit.OK


def _watch(project: Project, selectors: tuple[str, ...]) -> None:
    """Shows the jobs on their way, on stderr; lockfiles are left to apply, which writes them with the results."""
    from evalops import api, remote
    from evalops.cli.progress import watch

    locks, _ = project.locks()
    entries = (
        each for lock in locks.values() for each in lock.entries.values() if api.is_meant(each.address, selectors)
    )
    with watch() as observe:
        ended = [observe(address, event) for address, event in remote.followed(project, entries)]
    if ended:
        say("To collect the results:\n  evalops apply")


def _remote(selectors: tuple[str, ...], form: str, folder: Path | None, options: Mapping[str, Any]) -> int:
    from evalops import remote
    from evalops.errors import Exit
    from evalops.views import json_, tables

    if selectors:
        raise click.UsageError("--remote lists the service's jobs, which have no addresses to select.")
    limit = options["limit"] or LISTED
    found = remote.jobs(open_project(folder), type_=options["type_"], status=options["word"], limit=limit)
    answer(json_.dump(found) if form == "json" else tables.jobs(found))
    return Exit.OK
