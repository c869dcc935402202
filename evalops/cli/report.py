"""`evalops report`"""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from evalops.cli.output import answer, complain, open_project, project_option, say, trusted_option

if TYPE_CHECKING:
    from evalops.errors import Diagnostic
    from evalops.project import Project

FORMATS = ("html", "comment", "comment-json", "markdown", "json", "csv", "parquet")
MOST_JSON = 64 << 20  # bytes of a comment's value
NOT_FOR_TERMINALS = ("html", "parquet")


@click.command("report")
@click.argument("base", required=False)
@click.option("--format", "form", type=click.Choice(FORMATS), default="html", help="What to write; default: html.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="The file to write; default: stdout.")
@click.option("-s", "--select", "include", multiple=True, metavar="SELECTOR", help="Only these, as in `plan`.")
@click.option("-x", "--exclude", multiple=True, metavar="SELECTOR", help="Leave these out.")
@click.option("--from", "source", type=click.File("rb"), help="Make the comment of what comment-json has written.")
@trusted_option
@project_option
def command(
    base: str | None,
    form: str,
    out: Path | None,
    source: BinaryIO | None,
    trusted_ref: str | None,
    folder: Path | None,
    **selected: tuple[str, ...],
) -> None:
    """Write a report on all results: one HTML file with gates, charts, history, and every row to filter and read.

    The page needs nothing else: it opens from a CI artifact or from disk, asks for nothing over the network, and
    nothing from a spec, a dataset or a model is markup in it. It has what is here: results from the lockfiles, their
    history from git, texts from the datasets, and what the judges said where the job ran on this machine. What is not
    here is left out with the reason. No key, no network.

    With BASE, a git revision as in `evalops diff`, every result stands beside the one that it had there, row by row;
    by default that is where this branch left the default branch.

    \b
    evalops report --out report.html
    evalops report main --out report.html
    evalops report -s 'support-*' -x tag:slow --out report.html
    evalops report --format markdown > report.md
    evalops report --format json | jq .totals
    evalops report --format csv > rows.csv          the rows of all evaluations
    evalops report --format parquet --out rows.parquet
    evalops report --format comment > comment.md    for a pull request

    The comment has at most 60,000 bytes: plan, results and gates, left out by levels (rows, then tables, then
    addresses), never cut. Its first line is a marker that nobody sees, by which it is found again. Where the job that
    may write is another one than the job that read the pull request, as it should be, the first leaves
    `--format comment-json` and the second makes the comment with `--format comment --from FILE`: whatever a stranger
    put into that file, what comes out is text, or an error.

    The exit code is 0 also if gates fail: that is for `evalops check`.
    """
    if source is not None:
        if form != "comment" or base is not None:
            raise click.UsageError("--from goes with --format comment, and without BASE.")
        from evalops.views import comment

        data = source.read(MOST_JSON + 1)
        answer(comment.of(data if len(data) <= MOST_JSON else b""))
        return
    project, now = open_project(folder, trusted_ref), datetime.now(UTC)
    if out is None and form in NOT_FOR_TERMINALS and sys.stdout.isatty():
        raise click.UsageError(f"{form} is not for a terminal. Name a file: --out report.{form}")
    if form.startswith("comment"):
        if any(selected.values()):
            raise click.UsageError("--select and --exclude do not go with the comment: it is about the whole project.")
        from evalops.views import comment, json_

        value = value_of(project, base, now)
        _write(project, out, comment.comment(value) if form == "comment" else json_.dump(value))
        return
    _write(project, out, _made(project, form, base, selected, now))
    if out is not None:
        say(f"Wrote {out}")


def _made(
    project: Project, form: str, base: str | None, selected: dict[str, tuple[str, ...]], now: datetime
) -> str | bytes:
    """The report in a format, but the comment's."""
    from evalops import report
    from evalops.views import csv_, document, html_, json_

    value, problems = report.of(project, report.Asked(base=base, with_rows=form != "markdown", **selected), now)
    complain(problems, project)
    value["problems"] = [json_.diagnostic(each) for each in problems]
    match form:
        case "html":
            return html_.page(value)
        case "markdown":
            return document.show(value)
        case "csv":
            return csv_.table(csv_.columns(value))
        case "parquet":
            from evalops.datasets import parquet

            return parquet.table(csv_.columns(value))
    return json_.dump(value)


def _write(project: Project, out: Path | None, made: str | bytes) -> None:
    """To the file, in one step, or to stdout."""
    if out is not None:
        data = made.encode("utf-8", "backslashreplace") if isinstance(made, str) else made
        project.write(str(out.absolute()), data)
    elif isinstance(made, bytes):
        sys.stdout.buffer.write(made)
        sys.stdout.flush()
    else:
        answer(made)


def value_of(project: Project, base: str | None, now: datetime) -> dict[str, Any]:
    """Everything that the comment says; what cannot be made is a problem in it."""
    from evalops import planning, proof, reviewing
    from evalops.errors import EvalopsError
    from evalops.views import json_

    problems: list[Diagnostic] = []
    value: dict[str, Any] = {"review": None, "plan": None, "head": None, "base": None, "fallen": []}
    reviewed = None
    try:
        reviewed = reviewing.of(project, base)
        found = reviewed.to_json()
        value |= {"review": found, "head": found["head"], "base": found["base"]}
        problems += reviewed.diagnostics
    except EvalopsError as error:
        problems += error.diagnostics
    try:
        planned = planning.make(project)
        value["plan"] = json_.plan(planned.plan, planned.warnings, project.kept_text, project.trusted)
        problems += planned.warnings
        value["fallen"] = [json_.diagnostic(each) for each in proof.fallen(planned, reviewed)] if reviewed else []
    except EvalopsError as error:
        problems = [each for each in problems if each.is_error] + list(error.diagnostics)
    shown = [json_.diagnostic(each) for each in dict.fromkeys(problems)]
    return {**value, "problems": shown, "at": f"{now:%Y-%m-%d %H:%M} UTC"}
