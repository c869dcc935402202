"""`evalops import`"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalops.cli.output import answer, complain, open_project, project_option, say
from evalops.errors import Diagnostic, EvalopsError, Exit
from evalops.views.safe import line

if TYPE_CHECKING:
    from evalops.importing import Import, Imported
    from evalops.once import Once
    from evalops.project import Project
    from evalops.providers.base import Inventory, Job, Provider


@click.command("import")
@click.argument("ids", nargs=-1, metavar="[JOB_ID]...")
@click.option("--all", "everything", is_flag=True, help="Every job that the service lists and this project lacks.")
@click.option("--to", default="", metavar="DIR", help="The folder for the specs; default: the project folder.")
@project_option
def command(ids: tuple[str, ...], *, everything: bool, to: str, folder: Path | None) -> int:
    """Write specs for jobs that were made elsewhere, by the SDK or in the browser, with their rows and results.

    Each job becomes a spec, its dataset in `data/` beside it, and a lock entry with its result, so that plan has
    nothing left to do. Nothing is run and nothing is paid. Keys stay out of it: a spec names a credential, and what
    evalops.yaml has to bind is printed. No file is overwritten.

    \b
    evalops import eval-de4c-1751308922
    evalops import --all --to imported
    """
    if bool(ids) == everything:
        raise click.UsageError("name jobs, or give --all.")
    from evalops import planning, remote
    from evalops.journal import Journal
    from evalops.once import Once

    project = open_project(folder)
    with project.apply_lock(), remote.opened(project) as (provider, inventory):
        journal = Journal.open(project.state / planning.JOURNAL)
        try:
            once = Once(journal=journal, providers={provider.name: provider}, claimed=set())
            return _import(project, provider, inventory, once, ids, to)
        finally:
            journal.close()


def _import(
    project: Project, provider: Provider, inventory: Inventory, once: Once, ids: tuple[str, ...], to: str
) -> int:
    from evalops import importing

    importer = importing.start(project, provider, inventory, once, to)
    has = importing.held(project, once)
    found: Iterable[Job | Diagnostic] = importing.jobs(inventory, ids) if ids else _listed(inventory)
    done: list[Imported] = []
    code = Exit.OK
    for each in found:
        if isinstance(each, Diagnostic):
            complain([each], project)
            code = Exit.PROBLEM
        elif each.id in has:
            say(f"{line(each.id)}: this project has it already, at {line(has[each.id])}.")
        elif not ids and each.message:
            say(f"{line(each.id)}: left out, for it failed: {line(each.message)}")
        elif (taken := _take(importer, each, project)) is None:
            code = Exit.PROBLEM
        else:
            done.append(taken)
            if taken.interrupted:
                code = Exit.INTERRUPTED
                break
    _close(project, done)
    return code


def _listed(inventory: Inventory) -> list[Job]:
    from evalops import importing, remote

    found = importing.listed(inventory)
    if len(found) >= remote.MOST_JOBS:
        say(f"The service lists its newest {len(found)} jobs only: import older ones by their ids.")
    return found


def _take(importer: Import, job: Job, project: Project) -> Imported | None:
    try:
        taken = importer.take(job)
    except EvalopsError as error:
        complain(error.diagnostics, project)
        return None
    answer(f"{line(taken.spec)}: {taken.status.value}, its rows are in {line(taken.dataset)}")
    return taken


def _close(project: Project, done: list[Imported]) -> None:
    notes = dict.fromkeys(note for taken in done for note in taken.notes)
    complain(notes, project)
    if done:
        say("Where these specs stand:\n  evalops plan")
    else:
        answer("Nothing was imported.")
