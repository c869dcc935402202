"""`evalops apply`"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, say, selection, trusted_option
from evalops.errors import Diagnostic, EvalopsError, Exit
from evalops.views.safe import line

if TYPE_CHECKING:
    from evalops.applying import Asked, Outcome, Saved
    from evalops.journal import Journal
    from evalops.lock import Entry
    from evalops.once import Once
    from evalops.plan import Plan
    from evalops.planning import Planned
    from evalops.project import Project
    from evalops.providers.base import Provider


def _seconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh]?)", value.strip())
    if not found:
        raise click.BadParameter(f"`{value[:40]}` is no time: write 90s, 20m or 2h", context, parameter)
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


@click.command("apply")
@selection
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
@click.option("-v", "--verbose", is_flag=True, help="Show how templates changed, and what is in step.")
@click.option("--approved", metavar="DIGEST", help="Go on only if the plan has this digest.")
@click.option("--rerun", multiple=True, metavar="ADDRESS", help="Run this one again; needs --reason.")
@click.option("--reason", help="Why, for the lockfile.")
@click.option("--retry-failed", is_flag=True, help="Try failed jobs again.")
@click.option("--refresh", is_flag=True, help="Also run again what a service judges with other evaluators now.")
@click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=None,
    show_default="16",
    help="Requests to a paid service at a time; at Patronus calls, by default 32 or `num_workers`.",
)
@click.option(
    "--no-wait", is_flag=True, help="Submit, and leave the results to a later apply; not for `local` and `patronus`."
)
@click.option(
    "--timeout",
    callback=_seconds,
    metavar="TIME",
    help="Stop after this long, such as 90s, 20m or 2h; the same command goes on.",
)
@trusted_option
@project_option
def command(**options: Any) -> int:
    """Carry out the plan: run what is new, finish what was interrupted, write the lockfiles.

    Shows the plan and asks, unless --yes. Without a terminal nothing is asked: --yes or --approved is needed as
    soon as something costs money. A saved plan may stand in place of SELECTORS; it is refused if one of its
    addresses has moved on. Ctrl-C keeps what is done; the same command goes on.

    \b
    evalops apply
    evalops apply tag:nightly --yes
    evalops apply plan.json
    evalops apply --rerun tone --reason 'the endpoint was upgraded'
    evalops apply --timeout 20m        exit 6 if jobs are still running; the same command collects them
    evalops apply --trusted-ref origin/main        keys and budget of the default branch, on any branch
    """
    if options["no_wait"] and options["timeout"] is not None:
        raise click.UsageError("--no-wait and --timeout exclude each other.")
    if bool(options["rerun"]) != bool(options["reason"]):
        raise click.UsageError("--rerun and --reason go together: the lockfile records why it ran again.")
    from evalops import applying

    project = open_project(options["folder"], options["trusted_ref"])
    with applying.begun(project) as (providers, journal):
        return run(project, options, providers, journal)


def run(project: Project, options: Mapping[str, Any], providers: Mapping[str, Provider], journal: Journal) -> int:
    """The apply of one who holds the apply lock, from what earlier ones left open to the exit code.

    `options` are those of the command. Raises EvalopsError where it cannot go on.
    """
    from evalops import applying, planning

    once = planning.recover(project, providers, journal)
    with applying.explained(project, once):
        return _go_on(project, options, providers, once)


def _go_on(project: Project, options: Mapping[str, Any], providers: Mapping[str, Provider], once: Once) -> int:
    from evalops import apply, applying
    from evalops.cli.progress import watch

    asked = _asked(options)
    planned = applying.plan(project, asked, providers, once)
    _show(project, planned, verbose=options["verbose"])
    if not planned.plan.has_changes:
        return _close(project, applying.outcome(project, planned.plan, apply.Applied(), once))
    if not options["yes"] and applying.needs_consent(asked, planned.plan, once):
        _confirm(planned.plan)
    with watch() as observe:
        applied = applying.carry_out(project, asked, planned, providers, observe, once)
    return _close(project, applying.outcome(project, planned.plan, applied, once))


def _asked(options: Mapping[str, Any]) -> Asked:
    from evalops import applying
    from evalops.plan import Options
    from evalops.planning import Selection

    saved, selectors = _saved(options["selectors"])
    return applying.Asked(
        selection=Selection(include=selectors, exclude=options["exclude"], changed_since=options["changed_since"]),
        options=Options(
            rerun=frozenset(options["rerun"]),
            reason=options["reason"],
            retry_failed=options["retry_failed"],
            refresh=bool(options.get("refresh")),
        ),
        saved=saved,
        approved=options["approved"],
        patience=0.0 if options.get("no_wait") else options.get("timeout"),
        at_once=options["jobs"],
    )


def _saved(selectors: tuple[str, ...]) -> tuple[Saved | None, tuple[str, ...]]:
    """The changes of a saved plan among the arguments, and the selectors without it."""
    paths = [each for each in selectors if each.endswith(".json")]
    if not paths:
        return None, selectors
    if len(paths) > 1:
        raise click.UsageError("One plan is carried out at a time.")
    from evalops import schema

    try:
        value = json.loads(Path(paths[0]).read_text(encoding="utf-8"))
        broken = [each.message for each in schema.check(value, schema.File(paths[0]), "plan")]
    except OSError as error:
        broken = [error.strerror or str(error)]
    except (ValueError, RecursionError):
        broken = ["it is not JSON"]
    if broken:
        message, hint = f"`{paths[0]}` is no saved plan: {broken[0]}", f"evalops plan --out {paths[0]}"
        raise EvalopsError(Diagnostic(code="plan/unreadable", message=message, hint=hint))
    return value["changes"], tuple(each for each in selectors if each not in paths)


def _show(project: Project, planned: Planned, *, verbose: bool) -> None:
    from evalops.views import json_, text

    complain(planned.warnings, project)
    say(text.plan(json_.plan(planned.plan, (), project.kept_text, project.trusted), verbose=verbose))


def _confirm(plan: Plan) -> None:
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise EvalopsError(
            Diagnostic(
                code="apply/not-confirmed",
                message="there is no terminal to ask for confirmation",
                hint=f"evalops apply --yes, or evalops apply --approved {plan.digest}",
            )
        )
    click.confirm("Run this?", abort=True, err=True)


def _close(project: Project, outcome: Outcome) -> int:
    """The table of results, the lockfiles written, the gates that fail, and the exit code."""
    from evalops import api, result
    from evalops.views import tables, text

    applied = outcome.applied
    complain(outcome.diagnostics, project)
    for address, why in applied.unclear.items():
        say(f"{line(address)}: it is not known whether its job was made: {line(why, 600)}")
    if applied.entries:
        answer(tables.status([each for each in api.states(outcome.locks) if each["address"] in applied.entries]))
    for address, gate in outcome.failed_gates:
        say(f"gate {line(address)}: {text.gate(gate)}")
    complain(outcome.failures, project)
    took = text.usage(result.total(applied.usage.values()))
    if took:
        answer(f"The jobs took {took}.")
    if applied.locks:
        answer("Locks written: " + ", ".join(sorted(applied.locks)))
    if outcome.exit_code is Exit.INTERRUPTED:
        folder = click.get_current_context().find_root().obj
        again = shlex.join(["evalops", *(["--project", str(folder)] if folder else []), "apply"])
        say(f"Interrupted. What is done is kept; to go on:\n  {again}")
    elif outcome.exit_code is Exit.STILL_RUNNING:
        say(_rest(applied.entries.values()))
    return outcome.exit_code


def _rest(entries: Iterable[Entry]) -> str:
    """What is left to do when the time is over."""
    from evalops.remaining import BY_ROW

    open_ = [each for each in entries if each.status.is_open]
    stopped = [line(each.address) for each in open_ if each.provider in BY_ROW]
    text = "Some jobs are still running; `evalops apply` collects their results." if len(stopped) < len(open_) else ""
    if stopped:
        text += f"\nThe time is over for {', '.join(stopped)}: the rows so far are kept, and the same command goes on."
    return text.strip()
