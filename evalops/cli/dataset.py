"""`evalops dataset`"""

from __future__ import annotations

from pathlib import Path

import click

from evalops.cli.output import answer, complain, open_project, project_option


@click.group("dataset")
def command() -> None:
    """List datasets, or look into one: files, the sets that ship with evalops, files at the service.

    \b
    evalops dataset list
    evalops dataset show math-benchmark-v1
    evalops dataset list --remote
    """


_FORMAT = click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")


@command.command("list", short_help="Those of the project and the sets by name, or the files at the service.")
@click.option("--remote", "is_remote", is_flag=True, help="The files at the service.")
@_FORMAT
@project_option
def list_(*, is_remote: bool, form: str, folder: Path | None) -> int:
    """List the datasets that specs use or could use, or, with --remote, the files at the service.

    That is the files of the project, the sets under `datasets:` in evalops.yaml, and the sets that ship with evalops.

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
    from evalops import catalog, holdings

    found = catalog.read(project)
    listed = holdings.listed(project, found.wanted)
    answer(json_.dump(listed) if form == "json" else tables.datasets(listed))
    errors = [each for each in found.diagnostics if each.is_error]
    complain(errors, project)
    return Exit.PROBLEM if errors else Exit.OK


@command.command("show", short_help="What is in one: columns, types, values, first rows, a spec to start from.")
@click.argument("name")
@click.option("--remote", "is_remote", is_flag=True, help="NAME is the id of a file at the service, which is fetched.")
@_FORMAT
@project_option
def show(name: str, *, is_remote: bool, form: str, folder: Path | None) -> int:
    """Look into a dataset: its columns with types, lengths and values, its digest, and a spec to start from.

    NAME is a file of the project, as a path from its folder, or the name of a set.

    \b
    evalops dataset show data/support.jsonl
    evalops dataset show math-benchmark-v1
    evalops dataset show file-0f6a1c3e --remote
    """
    from evalops import holdings
    from evalops.errors import Exit
    from evalops.views import json_, tables

    project = open_project(folder)
    found = holdings.shown_remote(project, name) if is_remote else holdings.shown(project, name)
    answer(json_.dump(found) if form == "json" else tables.dataset(found))
    return Exit.OK
