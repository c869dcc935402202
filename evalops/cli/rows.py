"""`evalops rows`"""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.lock import Entry
    from evalops.project import Project

BLOCK = 1 << 20  # bytes


@click.command("rows")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "table"]), default="jsonl", help="How to print.")
@click.option("--status", type=click.Choice(["scored", "invalid", "error"]), help="Only rows of this status.")
@click.option("--verdict", help="Only rows with this label, score or choice.")
@click.option("--failed", is_flag=True, help="Only rows that did not pass, or differ from gold.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@click.option("--raw", is_flag=True, help="The provider's result file, byte for byte.")
@project_option
def command(address: str, form: str, limit: int | None, **options: Any) -> None:
    """Print the rows of the evaluation at ADDRESS with their verdicts, in the order of the dataset.

    \b
    evalops rows support-tone --failed --format table
    evalops rows support-tone --status invalid
    evalops rows support-tone --format csv > rows.csv
    evalops rows support-tone --raw > result.jsonl
    """
    from evalops import api
    from evalops.views import csv_, tables

    project = open_project(options["folder"])
    if options["raw"]:
        entry = project.entry(address)
        if form != "jsonl" or limit or any(options[name] for name in ("status", "verdict", "failed")):
            raise click.UsageError("--raw prints the file as it is: nothing else goes with it.")
        _raw(project, entry)
        return
    chosen = {name: options[name] for name in ("status", "verdict", "failed")}
    values = itertools.islice(api.Project(project.root).rows(address, **chosen), limit)
    if form == "table":
        answer(tables.rows(list(values)))
        return
    lines = csv_.rows(values) if form == "csv" else (json.dumps(value, ensure_ascii=False) for value in values)
    for each in lines:
        answer(each)


def _raw(project: Project, entry: Entry) -> None:
    """The provider's file on stdout, as bytes: whoever asks for it wants what no view has touched."""
    from evalops import remote

    path = None
    if entry.provider == remote.SERVICE and entry.job:
        with remote.opened(project) as (_, inventory):
            path = inventory.result(entry.job)
            if path is None:
                raise EvalopsError(remote.gone(entry.job))
    if path is None:
        raise EvalopsError(
            Diagnostic(
                code="rows/no-file",
                message=f"`{entry.address}` ran at the provider `{entry.provider}`, which makes no result file",
                hint="evalops rows without --raw prints its rows",
            )
        )
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            sys.stdout.buffer.write(block)
    sys.stdout.flush()
