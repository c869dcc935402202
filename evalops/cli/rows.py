"""`evalops rows`"""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.lock import Entry
    from evalops.project import Project
    from evalops.spec import Evaluation


@click.command("rows")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["jsonl", "csv", "table"]), default="jsonl", help="How to print.")
@click.option("--status", type=click.Choice(["scored", "invalid", "error"]), help="Only rows of this status.")
@click.option("--verdict", help="Only rows with this label, score or choice.")
@click.option("--failed", is_flag=True, help="Only rows that did not pass, or differ from gold.")
@click.option("--limit", type=click.IntRange(min=1), help="At most this many rows.")
@project_option
def command(
    address: str,
    form: str,
    status: str | None,
    verdict: str | None,
    failed: bool,
    limit: int | None,
    folder: Path | None,
) -> None:
    """Print the rows of the evaluation at ADDRESS with their verdicts, in the order of the dataset.

    \b
    evalops rows support-tone --failed --format table
    evalops rows support-tone --status invalid
    evalops rows support-tone --format csv > rows.csv
    """
    from evalops.cli.show import entry_of

    project = open_project(folder)
    chosen = (
        row
        for row, fails in machine_rows(project, entry_of(project, address))
        if (not failed or fails)
        and status in (None, row["verdict"]["status"])
        and (verdict is None or _is(row["verdict"]["value"], verdict))
    )
    rows = itertools.islice(chosen, limit)
    if form == "jsonl":
        for row in rows:
            answer(json.dumps(row, ensure_ascii=False))
    elif form == "csv":
        _print_csv(rows)
    else:
        _print_table(list(rows))


def machine_rows(project: Project, entry: Entry) -> Iterator[tuple[dict[str, Any], bool]]:
    """The rows of an entry's job in their machine form, each with whether it failed.

    Raises EvalopsError where the rows are not on this machine.
    """
    from evalops import dataset, semantics
    from evalops.providers import open_provider
    from evalops.views import json_

    evaluation = _evaluation(project, entry)
    provider = open_provider(entry.provider, project)
    verdicts = iter(provider.rows(entry.job or ""))
    first = next(verdicts, None)
    if first is None:
        raise EvalopsError(
            Diagnostic(
                code="rows/missing",
                message=f"the rows of `{entry.address}` are not on this machine",
                hint=f"they were made where the job {entry.job} ran; to make them here: "
                f"evalops apply --rerun '{entry.address}' --reason 'rows are elsewhere'",
            )
        )

    rows: Iterator[Any] = iter(())
    if evaluation is not None:
        use = dataset.uses(evaluation, semantics.variables(evaluation))
        opened = dataset.read(lambda: project.open(use.path), use.path, use.columns)
        rows = dataset.keys(opened, use)
    for (verdict, detail), pair in zip(
        itertools.chain([first], verdicts), itertools.chain(rows, itertools.repeat(None))
    ):
        source = pair[1] if pair is not None else None
        row = json_.row(pair[0] if pair else verdict.key, source, verdict, detail, entry.job or "")
        yield row, evaluation is not None and _fails(evaluation, row)


def _evaluation(project: Project, entry: Entry) -> Evaluation | None:
    """The evaluation of today, if it still is the work that the entry holds."""
    from evalops import catalog

    for wanted in catalog.read(project).wanted:
        if wanted.evaluation.address == entry.address:
            same = wanted.identity.digests.submitted == entry.dataset["submitted"]
            return wanted.evaluation if same else None
    return None


def _fails(evaluation: Evaluation, row: dict[str, Any]) -> bool:
    """No verdict, not what gold says, or, for a row without gold, not a pass."""
    verdict = row["verdict"]
    if verdict["status"] != "scored":
        return True
    gold = (row["source"] or {}).get(evaluation.gold) if evaluation.gold else None
    if gold not in (None, ""):
        return not _is(verdict["value"], str(gold))
    if evaluation.pass_labels:
        return verdict["value"] not in evaluation.pass_labels
    return evaluation.pass_threshold is not None and float(verdict["value"]) < evaluation.pass_threshold


def _is(value: Any, text: str) -> bool:
    try:
        return str(value) == text or float(value) == float(text)
    except (TypeError, ValueError):
        return False


def _print_csv(rows: Iterator[dict[str, Any]]) -> None:
    writer: Any = None
    stream = io.StringIO()
    for row in rows:
        verdict = row["verdict"]
        flat = {
            "key": row["key"],
            **{f"source.{name}": value for name, value in (row["source"] or {}).items()},
            "status": verdict["status"],
            "verdict": verdict["value"],
            "reason": verdict["reason"],
        }
        if writer is None:
            writer = csv.DictWriter(stream, list(flat), extrasaction="ignore")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in flat.items()})
        answer(stream.getvalue())
        stream.seek(0)
        stream.truncate()


def _cell(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _print_table(rows: list[dict[str, Any]]) -> None:
    from evalops.views import tables

    if not rows:
        answer("No rows.")
        return
    columns = [name for name in (rows[0]["source"] or {}) if name not in ("id",)][:3]
    answer(tables.rows(rows, columns))
