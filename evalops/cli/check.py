"""`evalops check`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, trusted_option

if TYPE_CHECKING:
    from evalops.errors import Diagnostic
    from evalops.proof import Proof

FORMATS = ("text", "json", "junit", "github", "sarif")


@click.command("check")
@click.option("--base", metavar="REF", help="The revision for `no_regression`; default: as in `diff`.")
@click.option("--remote", is_flag=True, help="Ask the services whether the lockfiles tell the truth; needs their keys.")
@click.option("--format", "form", type=click.Choice(FORMATS), default="text", help="How to print what was found.")
@trusted_option
@project_option
def command(base: str | None, form: str, trusted_ref: str | None, folder: Path | None, *, remote: bool) -> int:
    """Prove that the lockfiles answer the specs and that the gates hold. Made for CI: no network, no key.

    Every evaluation is in step with its lock, so that apply would have nothing to do; no lock entry was edited or
    mixed by a merge; verdicts files belong to their entries and add up to them; every threshold and every rule of
    `policy` holds; where a spec says `no_regression`, its result is no worse than at the base; and git tracks no local
    state.

    Exit code 0 if all of it holds, 3 if a gate fails, 1 for anything else. --remote fetches the jobs and their rows
    once more and counts again; what a service does not keep is a warning, and so is an evaluator that it changed.

    \b
    evalops check
    evalops check --base origin/main...
    evalops check --format github         annotations at the lines of the specs
    evalops check --format junit > evalops.xml
    evalops check --remote
    evalops check --trusted-ref origin/main
    """
    from evalops import proof
    from evalops.views import ci, json_

    project = open_project(folder, trusted_ref)
    found = proof.check(project, base, remote=remote)
    value = machine_form(found)
    views = {"text": ci.text, "json": json_.dump, "junit": ci.junit, "github": ci.github, "sarif": ci.sarif}
    if form in ("text", "junit"):
        complain(found.all, project)
    answer(views[form](value))
    return int(found.exit)


def machine_form(found: Proof) -> dict[str, Any]:
    """What a check found, as JSON; `file` is a path from the repository's root, as annotations need it."""
    from evalops import __version__
    from evalops.proof import FORMAT

    evaluations = []
    for each in found.evaluations:
        diagnostics = [_located(problem, found.prefix) for problem in each.diagnostics]
        evaluations.append(
            {
                "address": each.address,
                "file": found.prefix + each.mark.path,
                "status": _status(diagnostics),
                "diagnostics": diagnostics,
            }
        )
    return {
        "format_version": FORMAT,
        "version": __version__,
        "exit": int(found.exit),
        "is_whole": found.is_whole,
        "base": found.base._asdict() if found.base else None,
        **({"trusted": found.trusted.to_json()} if found.trusted else {}),
        "totals": found.totals,
        "evaluations": evaluations,
        "project": [_located(each, found.prefix) for each in found.diagnostics],
        "diagnostics": [_located(each, found.prefix) for each in found.all],
    }


def _status(diagnostics: list[dict[str, Any]]) -> str:
    from evalops.proof import GATE

    errors = [each["code"].startswith(GATE) for each in diagnostics if each["severity"] == "error"]
    return "holds" if not errors else "gate_failed" if all(errors) else "problem"


def _located(problem: Diagnostic, prefix: str) -> dict[str, Any]:
    from evalops.settings import FILE
    from evalops.views import json_

    value = json_.diagnostic(problem)
    return {**value, "file": prefix + (value["path"] or FILE)}
