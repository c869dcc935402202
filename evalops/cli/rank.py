"""`evalops rank`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import EvalopsError


@click.command("rank")
@click.argument("selectors", nargs=-1)
@click.option("-x", "--exclude", multiple=True, metavar="SELECTOR", help="Leave these out.")
@click.option(
    "--by", metavar="COLUMN", help="Rank inside one evaluation: the values of this column are the candidates."
)
@click.option("--item", metavar="COLUMN", help="With --by: rows with the same value here are the same item.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text", help="How to print it."
)
@project_option
def command(selectors: tuple[str, ...], form: str, folder: Path | None, **options: Any) -> None:
    """Rank several candidates that one judge judged on the same rows.

    The evaluations that SELECTORS choose (addresses, names or spec paths with * and ?, or tag:WORD) are the
    candidates, those of a matrix for instance. Equal values share a rank; each rank comes with the range that it has
    in 95 % of resamples of the rows, and each candidate with its difference to the leader and the p-value of there
    being none: McNemar's test for rates, paired resampling for scores, adjusted by Holm. Where evaluations compare
    pairs, the players are ranked by Bradley-Terry strengths, a tie being half a win for each.

    --by takes one evaluation apart whose dataset holds the answers of several models; type compare needs two columns.
    Lockfiles and verdicts files are read, and the dataset where the metric needs it; nothing is asked of anybody.
    `evalops plan` says whether the results answer the specs of today.

    \b
    evalops rank 'support-tone[*'
    evalops rank tag:candidates --format markdown
    evalops rank recipe-quality --by model --item prompt
    evalops rank chat-duels --by model_a,model_b
    """
    from evalops import api
    from evalops.views import json_, markdown, tables

    if options["item"] and not options["by"]:
        raise click.UsageError("--item goes with --by.")
    by = options.pop("by")
    columns = [column.strip() for column in by.split(",")] if by and "," in by else by
    project = open_project(folder)
    try:
        value = api.Project(project.root).rank(*selectors, by=columns, **options)
    except EvalopsError as error:
        if form == "json":
            refused = [json_.diagnostic(each) for each in error.diagnostics]
            answer(json_.dump({"format_version": json_.FORMAT, "candidates": [], "refused": refused}))
        raise
    views = {"text": tables.ranking, "json": json_.dump, "markdown": markdown.ranking}
    answer(views[form](value))
