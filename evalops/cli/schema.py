"""`evalops schema`"""

from __future__ import annotations

import click

from evalops.cli.output import answer


@click.command("schema")
@click.argument("name", type=click.Choice(["spec", "project", "lock", "plan"]), default="spec")
def command(name: str) -> None:
    """Print a JSON Schema (2020-12): of a spec, of evalops.yaml, of a lockfile, of a plan.

    An editor with YAML support checks and completes a spec that begins with

    \b
    # yaml-language-server: $schema=spec-v1.json

    \b
    evalops schema spec > spec-v1.json
    """
    from evalops import schema

    answer(schema.bundled(name))
