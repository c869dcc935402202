"""`evalops validate`"""

from __future__ import annotations

from pathlib import Path

import click

from evalops.cli.output import answer, complain, open_project, project_option


@click.command("validate")
@click.argument("paths", nargs=-1)
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print problems.")
@project_option
def command(paths: tuple[str, ...], form: str, folder: Path | None) -> int:
    """Check every spec, or those at PATHS, with their templates and datasets, and by the rules of `policy`.

    Offline and without a key. All problems of all files are shown at once; exit code 1 if one is an error.

    \b
    evalops validate
    evalops validate tone.yaml --format json
    """
    from evalops import planning
    from evalops.errors import Exit, has_errors
    from evalops.views import json_

    project = open_project(folder)
    found = planning.validated(project, [project.relative(path) for path in paths] or None)
    if form == "json":
        answer(json_.dump([json_.diagnostic(each) for each in found.diagnostics]))
    else:
        complain(found.diagnostics, project)
        count, files = len(found.wanted), len(found.specs)
        if not has_errors(found.diagnostics):
            answer(f"{count} evaluation{'s' * (count != 1)} in {files} file{'s' * (files != 1)}: valid.")
    return Exit.PROBLEM if has_errors(found.diagnostics) else Exit.OK
