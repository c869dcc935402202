"""`evalops export`"""

from __future__ import annotations

from pathlib import Path

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.views.safe import line


@click.command("export")
@click.argument("addresses", nargs=-1, required=True, metavar="ADDRESS...")
@click.option("--to-project", default="evalops", metavar="NAME", show_default=True, help="The project at Patronus.")
@click.option("--experiment", metavar="NAME", help="The experiment there; default: the address.")
@click.option("--app", metavar="NAME", help="Results go to this app, and to no experiment.")
@project_option
def command(
    addresses: tuple[str, ...], to_project: str, experiment: str | None, app: str | None, folder: Path | None
) -> int:
    """Send results that were made elsewhere to Patronus, so that they stand there beside others.

    Rows without a verdict stay here. Nothing is run. A result that is there already is not sent again, so the same
    command goes on after a failure.

    \b
    evalops export support-tone
    evalops export support-tone support-length --to-project support
    evalops export support-tone --app chat
    """
    if experiment is not None and app is not None:
        raise click.UsageError("--experiment and --app exclude each other.")
    from evalops import exporting

    project = open_project(folder)
    place = exporting.Place(to_project, app, experiment)
    with project.apply_lock():
        for address in addresses:
            done = exporting.export(project, project.entry(address), place)
            parts = [f"{done.sent:,} sent"]
            parts += [f"{done.known:,} were there"] if done.known else []
            parts += [f"{done.without:,} have no verdict"] if done.without else []
            answer(f"{line(address)}: {', '.join(parts)}")
    return 0
