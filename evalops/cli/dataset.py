"""`evalops dataset`"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from evalops.cli.output import answer, complain, open_project, project_option


@click.group("dataset")
def command() -> None:
    """List datasets: those of the specs, or the files at the service.

    \b
    evalops dataset list
    evalops dataset list --remote
    """


@command.command("list", short_help="Those of the specs, or those at the service.")
@click.option("--remote", "is_remote", is_flag=True, help="The files at the service.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print them.")
@project_option
def list_(*, is_remote: bool, form: str, folder: Path | None) -> int:
    """List the datasets of the specs with their rows, or, with --remote, the files at the service.

    \b
    evalops dataset list
    evalops dataset list --remote --format json
    """
    from evalops.errors import Exit
    from evalops.views import json_, tables

    project = open_project(folder)
    if is_remote:
        from evalops import remote

        files = remote.files(project)
        answer(json_.dump(files) if form == "json" else tables.files(files))
        return Exit.OK
    from evalops import catalog

    found = catalog.read(project)
    datasets: dict[str, dict[str, Any]] = {}
    for evaluation, identity in found.wanted:
        each = datasets.setdefault(
            evaluation.dataset.path, {"path": evaluation.dataset.path, "rows": identity.digests.rows, "addresses": []}
        )
        each["addresses"].append(evaluation.address)
    listed = [datasets[path] for path in sorted(datasets)]
    answer(json_.dump(listed) if form == "json" else tables.datasets(listed))
    errors = [each for each in found.diagnostics if each.is_error]
    complain(errors, project)
    return Exit.PROBLEM if errors else Exit.OK
