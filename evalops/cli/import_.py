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
@click.option(
    "--provider",
    type=click.Choice(["together", "patronus"]),
    default="together",
    show_default=True,
    help="Who has them.",
)
@click.option("--dataset", metavar="PATH", help="Patronus: the rows of the experiment, which it does not give back.")
@click.option("--column", "columns", multiple=True, metavar="FIELD=COLUMN", help="Patronus: as `patronus.columns`.")
@project_option
def command(
    ids: tuple[str, ...],
    *,
    everything: bool,
    to: str,
    provider: str,
    dataset: str | None,
    columns: tuple[str, ...],
    folder: Path | None,
) -> int:
    """Write specs for jobs that were made elsewhere, by the SDK or in the browser, with their rows and results.

    Each job becomes a spec, its dataset in `data/` beside it, and a lock entry with its result, so that plan has
    nothing left to do. Nothing is run and nothing is paid. Keys stay out of it: a spec names a credential, and what
    evalops.yaml has to bind is printed. No file is overwritten.

    \b
    evalops import eval-de4c-1751308922
    evalops import --all --to imported
    evalops import --provider patronus 108 --dataset data/chat.jsonl --column task_output=answer
    """
    if provider == "patronus":
        return _experiments(ids, to, dataset, columns, folder)
    if dataset is not None or columns:
        raise click.UsageError("--dataset and --column go with --provider patronus.")
    if bool(ids) == everything:
        raise click.UsageError("name jobs, or give --all.")
    from evalops import planning, remote
    from evalops.journal import Journal
    from evalops.once import Once

    project = open_project(folder)
    with project.apply_lock(), remote.opened(project) as (service, inventory):
        journal = Journal.open(project.state / planning.JOURNAL)
        try:
            once = Once(journal=journal, providers={service.name: service}, claimed=set())
            return _import(project, service, inventory, once, ids, to)
        finally:
            journal.close()


def _experiments(
    ids: tuple[str, ...], to: str, dataset: str | None, columns: tuple[str, ...], folder: Path | None
) -> int:
    """Experiments at Patronus, over rows that are here."""
    mapped = dict(each.split("=", 1) for each in columns if "=" in each)
    if not ids or dataset is None or len(mapped) != len(columns) or not mapped:
        raise click.UsageError("--provider patronus needs EXPERIMENT, --dataset PATH and --column FIELD=COLUMN.")
    from contextlib import closing

    from evalops import experiments, planning
    from evalops.journal import Journal
    from evalops.once import Once
    from evalops.providers import open_provider

    project = open_project(folder)
    with (
        project.apply_lock(),
        closing(open_provider("patronus", project)) as service,
        Journal.open(project.state / planning.JOURNAL) as journal,
    ):
        once = Once(journal=journal, providers={service.name: service}, claimed=set())
        for id_ in dict.fromkeys(ids):
            taken = experiments.take(project, service, once, id_, dataset=dataset, columns=mapped, to=to)
            answer(f"{line(taken.spec)}: {taken.found:,} of {taken.rows:,} rows have results")
    say("Where these specs stand:\n  evalops plan")
    return 0


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
