"""`evalops rows`"""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option

if TYPE_CHECKING:
    from evalops.rows import Judged


@click.command("rows")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "table"]), default="jsonl", help="How to print.")
@click.option("--status", type=click.Choice(["scored", "invalid", "error"]), help="Only rows of this status.")
@click.option("--verdict", help="Only rows with this label, score or choice.")
@click.option("--failed", is_flag=True, help="Only rows that did not pass, or differ from gold.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@project_option
def command(address: str, form: str, limit: int | None, **options: Any) -> None:
    """Print the rows of the evaluation at ADDRESS with their verdicts, in the order of the dataset.

    \b
    evalops rows support-tone --failed --format table
    evalops rows support-tone --status invalid
    evalops rows support-tone --format csv > rows.csv
    """
    from evalops import rows
    from evalops.cli.show import entry_of
    from evalops.views import csv_, json_, tables

    project = open_project(options["folder"])
    entry = entry_of(project, address)
    chosen = itertools.islice((each for each in rows.of(project, entry) if _is_wanted(each, options)), limit)
    values = (json_.row(each.key, each.source, each.verdict, each.detail, entry.job or "") for each in chosen)
    if form == "table":
        answer(tables.rows(list(values)))
        return
    lines = csv_.rows(values) if form == "csv" else (json.dumps(value, ensure_ascii=False) for value in values)
    for each in lines:
        answer(each)


def _is_wanted(row: Judged, options: dict[str, Any]) -> bool:
    from evalops.rows import matches

    return (
        (row.failed or not options["failed"])
        and options["status"] in (None, row.verdict.status.value)
        and (options["verdict"] is None or matches(row.verdict.value, options["verdict"]))
    )
