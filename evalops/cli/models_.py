"""`evalops models`"""

from __future__ import annotations

from pathlib import Path

import click

from evalops.cli.output import answer, open_project, project_option


@click.command("models")
@click.option("--refresh", is_flag=True, help="Ask the service, and keep its answer for this user.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print them.")
@project_option
def command(*, refresh: bool, form: str, folder: Path | None) -> None:
    """List the models that Together is known to evaluate with.

    The list is data of this package, as of a day, and what --refresh has kept. A spec with another name gets a
    warning from validate and plan, never an error: models come daily.

    \b
    evalops models
    evalops models --refresh
    evalops models --format json
    """
    from evalops import remote
    from evalops.views import json_, tables

    value = remote.models(open_project(folder), refresh=refresh)
    answer(json_.dump(value) if form == "json" else tables.models(value))
