"""`evalops import`"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evalops.cli.output import answer, complain, open_project, project_option, say
from evalops.errors import Diagnostic, EvalopsError, Exit
from evalops.views.safe import line

TOOLS = ("promptfoo", "openai-evals")

if TYPE_CHECKING:
    from evalops.importing import Import, Imported
    from evalops.project import Project
    from evalops.providers.base import Inventory, Job


@click.command("import")
@click.argument("ids", nargs=-1, metavar="[JOB_ID|PATH]...")
@click.option("--from", "tool", type=click.Choice(TOOLS), help="PATHs are files of another tool, not jobs.")
@click.option("--overwrite", is_flag=True, help="With --from: replace specs and rows that are there and differ.")
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
    tool: str | None,
    overwrite: bool,
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

    With --from, the evaluations of another tool become specs with their rows: a promptfoo config, or what the API of
    OpenAI Evals gives for evals, runs and output items. What has no equal here is named with its place and what to do
    instead. Nothing of them is run, looked up or fetched, and no key is copied.

    \b
    evalops import eval-de4c-1751308922
    evalops import --all --to imported
    evalops import --provider patronus 108 --dataset data/chat.jsonl --column task_output=answer
    evalops import --from promptfoo promptfooconfig.yaml --to evals
    evalops import --from openai-evals evals.json runs.json rows.jsonl --to evals
    """
    if tool is not None:
        if not ids or everything or dataset is not None or columns or provider != "together":
            raise click.UsageError("--from needs PATHs, and goes with --to and --overwrite only.")
        return _files(tool, ids, to, folder, overwrite=overwrite)
    if overwrite:
        raise click.UsageError("--overwrite goes with --from.")
    if provider == "patronus":
        if everything:
            raise click.UsageError("--all is for Together: an experiment needs rows of its own, so name each one.")
        return _experiments(ids, to, dataset, columns, folder)
    if dataset is not None or columns:
        raise click.UsageError("--dataset and --column go with --provider patronus.")
    if bool(ids) == everything:
        raise click.UsageError("name jobs, or give --all.")
    from evalops import importing

    project = open_project(folder)
    with importing.begun(project, to) as (importer, has):
        return _import(project, importer, has, ids)


def _files(tool: str, paths: tuple[str, ...], to: str, folder: Path | None, *, overwrite: bool) -> int:
    """Files of another tool. Their lines are never shown: there may be keys in them."""
    from evalops.importers import writing
    from evalops.views import text

    project = open_project(folder)
    try:
        with project.apply_lock():
            done = writing.bring(project, tool, paths, to, overwrite=overwrite)
    except EvalopsError as error:
        say(text.diagnostics(error.diagnostics, lambda path: ()))
        return error.exit_code
    for each in done.written:
        specs = f"{each.specs} specs, " if each.specs > 1 else ""
        rows = f"{each.rows:,} row{'s' * (each.rows != 1)} in {line(each.dataset)}"
        answer(f"{line(each.spec)}: {specs}{rows}{'' if each.is_new else ', as before'}")
    if done.findings:
        say(text.diagnostics(done.findings, lambda path: ()))
    if not done.written:
        answer("Nothing was imported.")
        return Exit.PROBLEM
    say("Where these specs stand:\n  evalops plan")
    return Exit.OK


def _experiments(
    ids: tuple[str, ...], to: str, dataset: str | None, columns: tuple[str, ...], folder: Path | None
) -> int:
    """Experiments at Patronus, over rows that are here."""
    pairs = [each.partition("=") for each in columns]
    mapped = {name: column for name, _, column in pairs}
    if not ids or dataset is None or not pairs or not all(name and column for name, _, column in pairs):
        raise click.UsageError("--provider patronus needs EXPERIMENT, --dataset PATH and --column FIELD=COLUMN.")
    if len(mapped) != len(columns):
        raise click.UsageError("--column names a field twice.")
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
        experiments.require(project, service, dataset=dataset, columns=mapped, to=to)
        for id_ in dict.fromkeys(ids):
            taken = experiments.take(project, service, once, id_, dataset=dataset, columns=mapped, to=to)
            answer(f"{line(taken.spec)}: {taken.found:,} of {taken.rows:,} rows have results")
            complain(taken.notes, project)
    say("Where these specs stand:\n  evalops plan")
    return 0


def _import(project: Project, importer: Import, has: Mapping[str, str], ids: tuple[str, ...]) -> int:
    from evalops import importing

    inventory = importer.inventory
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
