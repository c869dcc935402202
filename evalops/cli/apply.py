"""`evalops apply`"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, complain, open_project, project_option, say, selection
from evalops.errors import Diagnostic, EvalopsError, Exit, Severity
from evalops.views.safe import line

if TYPE_CHECKING:
    from evalops.apply import Applied
    from evalops.journal import Journal
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
@click.option("--no-wait", is_flag=True, help="Submit, and leave the results to a later apply; not for `local`.")
@click.option("--timeout", callback=_seconds, metavar="TIME", help="Wait this long for jobs, such as 90s, 20m or 2h.")
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
    """
    if options["no_wait"] and options["timeout"] is not None:
        raise click.UsageError("--no-wait and --timeout exclude each other.")
    if bool(options["rerun"]) != bool(options["reason"]):
        raise click.UsageError("--rerun and --reason go together: the lockfile records why it ran again.")
    project = open_project(options["folder"])
    with project.apply_lock():
        return _apply(project, options)


def _apply(project: Project, options: dict[str, Any]) -> int:
    from evalops import planning
    from evalops.journal import Journal

    providers = planning.open_providers(project)
    try:
        with Journal.open(project.state / planning.JOURNAL, clock=planning.clock(providers)) as journal:
            return run(project, options, providers, journal)
    finally:
        for provider in providers.values():
            provider.close()


def run(project: Project, options: Mapping[str, Any], providers: Mapping[str, Provider], journal: Journal) -> int:
    """The apply of one who holds the apply lock, from what earlier ones left open to the exit code.

    `options` are those of the command. Raises EvalopsError where it cannot go on.
    """
    from evalops import planning

    once = planning.recover(project, providers, journal)
    try:
        return _go_on(project, options, providers, once)
    except BrokenPipeError:
        raise
    except (EvalopsError, OSError) as problem:
        error = problem if isinstance(problem, EvalopsError) else _unwritable(project, problem)
        # Whatever else is wrong, that money may have been spent is what a script must not miss.
        doubts = _doubts(once)
        raise EvalopsError(
            *once.diagnostics,
            *error.diagnostics,
            *doubts,
            exit_code=Exit.UNKNOWN_OUTCOME if doubts else error.exit_code,
        ) from None


def _go_on(project: Project, options: Mapping[str, Any], providers: Mapping[str, Provider], once: Once) -> int:
    from evalops import apply
    from evalops.cli.progress import watch

    saved, selectors = _saved(options["selectors"])
    planned = _plan(project, options, selectors, providers, once)
    plan = _held_to(planned.plan, saved, options["approved"])
    _show(project, planned, plan, verbose=options["verbose"])
    if not plan.has_changes:
        return _close(project, plan, apply.Applied(), once)
    _confirm(plan, yes=options["yes"] or bool(options["approved"]) or saved is not None)
    for change in plan.changes:
        if change.wanted:
            for text in change.wanted.evaluation.texts:
                project.keep_text(text.source)
    with watch() as observe:
        patience = 0.0 if options.get("no_wait") else options.get("timeout")
        applied = apply.carry_out(project, plan, planned.locks, providers, observe, once, patience=patience)
    return _close(project, plan, applied, once)


def _plan(
    project: Project, options: Mapping[str, Any], selectors: tuple[str, ...], providers: Any, once: Once
) -> Planned:
    from evalops import planning
    from evalops.plan import Options

    return planning.make(
        project,
        planning.Selection(include=selectors, exclude=options["exclude"], changed_since=options["changed_since"]),
        options=Options(
            rerun=frozenset(options["rerun"]), reason=options["reason"], retry_failed=options["retry_failed"]
        ),
        providers=providers,
        once=once,
    )


def _saved(selectors: tuple[str, ...]) -> tuple[Any, tuple[str, ...]]:
    """A saved plan among the arguments, and the selectors without it."""
    paths = [each for each in selectors if each.endswith(".json")]
    if not paths:
        return None, selectors
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
    # By lockfile too: an evaluation that moved is adopted in one and forgotten in the other.
    changes = {(each["address"], each["lock"]): each for each in value["changes"]}
    return changes, tuple(each for each in selectors if each not in paths)


def _held_to(plan: Plan, saved: Any, approved: str | None) -> Plan:
    """The plan, cut to what was saved or approved. Raises EvalopsError (exit 5) where that moved on."""
    from dataclasses import replace

    if approved and plan.digest != approved:
        raise EvalopsError(
            Diagnostic(
                code="plan/stale",
                message=f"the plan that was approved is not the plan of today (its digest is {plan.digest})",
                hint="run `evalops plan`, review it, and approve that digest",
            ),
            exit_code=Exit.LOCKED_OR_STALE,
        )
    if saved is None:
        return plan
    meant = {place: each for place, each in saved.items() if each["action"] != "noop"}
    wanted = {(each.address, each.lock): each for each in plan.changes if (each.address, each.lock) in meant}
    moved = sorted(
        address
        for (address, lock), each in meant.items()
        if (address, lock) not in wanted or not _same(each, wanted[address, lock])
    )
    if moved:
        raise EvalopsError(
            *(
                Diagnostic(
                    code="plan/stale",
                    message=f"`{address}` has moved on since the plan was saved",
                    hint="run `evalops plan` again and look at what is different",
                )
                for address in moved
            ),
            exit_code=Exit.LOCKED_OR_STALE,
        )
    return replace(plan, changes=tuple(wanted.values()))


def _same(saved: Any, change: Any) -> bool:
    from evalops.plan import Action

    # A plan made offline says `create` where apply, which asks the provider, finds the job and pays nothing.
    actions = {change.action.value} | ({"create", "rerun"} if change.action is Action.ADOPT else set())
    return (
        saved.get("fingerprint") == change.fingerprint
        and saved.get("generation") == change.generation
        and saved.get("action") in actions
    )


def _show(project: Project, planned: Planned, plan: Plan, *, verbose: bool) -> None:
    from evalops.views import json_, text

    complain(planned.warnings, project)
    say(text.plan(json_.plan(plan, (), project.kept_text), verbose=verbose))


def _confirm(plan: Plan, *, yes: bool) -> None:
    if yes or not any(change.action.money == "paid" for change in plan.changes):
        return
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        raise EvalopsError(
            Diagnostic(
                code="apply/not-confirmed",
                message="there is no terminal to ask for confirmation",
                hint=f"evalops apply --yes, or evalops apply --approved {plan.digest}",
            )
        )
    click.confirm("Run this?", abort=True, err=True)


def _close(project: Project, plan: Plan, applied: Applied, once: Once) -> int:
    """The table of results, the lockfiles written, the gates that fail, and the exit code."""
    from evalops.cli.status import states
    from evalops.views import tables, text

    doubts = _doubts(once)
    complain([*once.diagnostics, *applied.diagnostics, *doubts], project)
    for address, why in applied.unclear.items():
        say(f"{line(address)}: it is not known whether its job was made: {line(why, 600)}")
    locks, _ = project.locks()
    addresses = {change.address for change in plan.changes}
    entries = {each.address: each for lock in locks.values() for each in lock.entries.values()}
    if applied.entries:
        answer(tables.status([each for each in states(locks) if each["address"] in applied.entries]))
    failed = [(address, gate) for address in sorted(addresses & set(entries)) for gate in entries[address].failed_gates]
    for address, gate in failed:
        say(f"gate {line(address)}: {text.gate(gate)}")
    complain((_failure(entry) for entry in applied.failed), project)
    if applied.locks:
        answer("Locks written: " + ", ".join(sorted(applied.locks)))
    return _exit_code(plan, applied, gates_failed=bool(failed), in_doubt=bool(doubts))


def _unwritable(project: Project, error: OSError) -> EvalopsError:
    """A file of the project's state that could not be made: the disk is full, or something else is in its place."""
    path = Path(str(error.filename or project.state))
    shown = path.relative_to(project.root) if path.is_relative_to(project.root) else path
    message = f"`{shown}` cannot be used: {(error.strerror or type(error).__name__).lower()}"
    hint = "nothing is lost: make room or mend the folder, then run the same command again"
    return EvalopsError(Diagnostic(code="file/write", message=message, hint=hint))


def _doubts(once: Once) -> list[Diagnostic]:
    """Requests whose outcome is open, those that no spec asks for any more included."""
    return [
        Diagnostic(
            code="apply/in-doubt",
            message=why,
            hint="run the same command again then: nothing is sent for this work before its outcome is known",
            severity=Severity.WARNING,
        )
        for why in once.unknown().values()
    ]


def _failure(entry: Any) -> Diagnostic:
    from evalops.planning import PAID_ANEW

    what = "to try again makes another job, which is paid" if entry.provider in PAID_ANEW else "finished rows are kept"
    return Diagnostic(
        code="job/failed",
        message=f"`{entry.address}` failed: {entry.message}",
        address=entry.address,
        hint=f"{what}; mend the cause, then: evalops apply --retry-failed",
    )


def _exit_code(plan: Plan, applied: Applied, *, gates_failed: bool, in_doubt: bool) -> int:
    from evalops.plan import Action

    if applied.interrupted:
        folder = click.get_current_context().find_root().obj
        again = shlex.join(["evalops", *(["--project", str(folder)] if folder else []), "apply"])
        say(f"Interrupted. What is done is kept; to go on:\n  {again}")
        return Exit.INTERRUPTED
    if applied.unclear or in_doubt or any(plan.of(Action.UNKNOWN)):
        return Exit.UNKNOWN_OUTCOME
    if any(each.is_error for each in applied.diagnostics):
        return Exit.PROBLEM
    if applied.is_waiting:
        say("Some jobs are still running; `evalops apply` collects their results.")
        return Exit.STILL_RUNNING
    blocked = any(plan.of(Action.FAILED, Action.DENIED))
    if applied.failed or blocked:
        return Exit.PROBLEM
    return Exit.GATE_FAILED if gates_failed else Exit.OK
