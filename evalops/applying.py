"""An apply around the carrying out: who may, what was agreed to, and what came of it."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evalops import apply, planning, remaining
from evalops.apply import Applied, Observer
from evalops.errors import Diagnostic, EvalopsError, Exit, Severity
from evalops.journal import Journal
from evalops.lock import Entry, Lock
from evalops.once import Once
from evalops.plan import Action, Change, Options, Plan
from evalops.planning import Planned, Selection
from evalops.project import Project
from evalops.providers import Providers
from evalops.providers.base import Provider

Saved = Sequence[Mapping[str, Any]]  # the changes of a plan in its machine form


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an apply is for: a selection, or what was `saved` of a plan, and no more than a digest that was `approved`.

    `patience` is how many seconds it waits for jobs, None for as long as it takes; `at_once` how many paid requests
    are under way at a time, None for what is usual.
    """

    selection: Selection = Selection()
    options: Options = Options()
    saved: Saved | None = None
    approved: str | None = None
    patience: float | None = None
    at_once: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an apply came to: what to say of it, its exit code, and the lockfiles as they are now.

    `failures` are jobs that failed; `failed_gates` have the address that they are of.
    """

    applied: Applied
    locks: Mapping[str, Lock]
    diagnostics: tuple[Diagnostic, ...]
    failures: tuple[Diagnostic, ...]
    failed_gates: tuple[tuple[str, Mapping[str, Any]], ...]
    exit_code: Exit


@contextmanager
def begun(project: Project) -> Iterator[tuple[Mapping[str, Provider], Journal]]:
    """Holds the apply lock, with the providers and the journal open. Raises EvalopsError where another has it."""
    with (
        project.apply_lock(),
        closing(Providers(project)) as providers,
        Journal.open(project.state / planning.JOURNAL, clock=planning.clock(providers.opened)) as journal,
    ):
        yield providers, journal


@contextmanager
def explained(project: Project, once: Once) -> Iterator[None]:
    """What stops an apply is an EvalopsError that also says what may have been paid for."""
    try:
        yield
    except BrokenPipeError:
        raise
    except (EvalopsError, OSError) as problem:
        error = problem if isinstance(problem, EvalopsError) else _unwritable(project, problem)
        # Whatever else is wrong, that money may have been spent is what a script must not miss.
        doubts = _doubts(once)
        raise EvalopsError(
            *once.diagnostics,
            *once.left_over(),
            *error.diagnostics,
            *doubts,
            exit_code=Exit.UNKNOWN_OUTCOME if doubts else error.exit_code,
        ) from None


def plan(project: Project, asked: Asked, providers: Mapping[str, Provider], once: Once) -> Planned:
    """The plan of today for what is asked. Raises EvalopsError (exit 5) where what was agreed to has moved on."""
    planned = planning.make(project, asked.selection, options=asked.options, providers=providers, once=once)
    planned = replace(planned, plan=_held_to(planned.plan, asked.saved, asked.approved))
    if asked.patience == 0.0:
        _require_services(planned.plan)
    return planned


def _require_services(plan: Plan) -> None:
    """Raises EvalopsError where nothing would go on for an evaluation that nobody waits for."""
    alone = [each.address for each in plan.changes if remaining.is_asked_from_here(each)]
    if alone:
        are = ", ".join(f"`{address}`" for address in alone[:5]) + (", …" if len(alone) > 5 else "")
        without = " ".join(f"-x {shlex.quote(address)}" for address in alone[:5])
        raise EvalopsError(
            Diagnostic(
                code="apply/no-wait",
                message=f"{are} cannot be left to Patronus: it keeps no jobs, and this command makes each call itself",
                hint="`--timeout 20m` in place of `--no-wait` stops after that time and keeps what is done, and the "
                f"same command goes on; or leave it out: evalops apply --no-wait {without}",
            )
        )


def needs_consent(asked: Asked, plan: Plan, once: Once) -> bool:
    """Whether carrying it out may cost something that nobody has agreed to."""
    if asked.approved or asked.saved is not None:
        return False
    paid = (each.wanted for each in plan.changes if each.money == "paid" and each.wanted)
    return any(each.evaluation.provider not in once.down for each in paid)


def carry_out(
    project: Project,
    asked: Asked,
    planned: Planned,
    providers: Mapping[str, Provider],
    observe: Observer,
    once: Once,
    stop: apply.Stop | None = None,
) -> Applied:
    """See `apply.carry_out`; the long inputs are kept, so that a later plan can show how they changed."""
    for change in planned.plan.changes:
        if change.wanted:
            for text in change.wanted.evaluation.texts:
                project.keep_text(text.source)
    return apply.carry_out(
        project,
        planned.plan,
        planned.locks,
        providers,
        observe,
        once,
        patience=asked.patience,
        at_once=asked.at_once,
        stop=stop,
    )


def outcome(project: Project, plan: Plan, applied: Applied, once: Once) -> Outcome:
    """What is to be said of an apply that came to its end."""
    locks, _ = project.locks()
    addresses = {change.address for change in plan.changes}
    entries = {each.address: each for lock in locks.values() for each in lock.entries.values()}
    failed = [(address, gate) for address in sorted(addresses & set(entries)) for gate in entries[address].failed_gates]
    return Outcome(
        applied=applied,
        locks=locks,
        diagnostics=(*once.diagnostics, *once.left_over(), *applied.diagnostics, *_doubts(once)),
        failures=tuple(map(_failure, applied.failed)),
        failed_gates=tuple(failed),
        exit_code=_exit_code(plan, applied, once, gates_failed=bool(failed)),
    )


def _held_to(plan: Plan, saved: Saved | None, approved: str | None) -> Plan:
    """The plan, cut to what was saved or approved. Raises EvalopsError (exit 5) where that moved on."""
    if approved and plan.digest != approved:
        today = f"the plan that was approved is not the plan of today (its digest is {plan.digest})"
        raise _stale([today], "run `evalops plan`, review it, and approve that digest")
    if saved is None:
        return plan
    # By lockfile too: an evaluation that moved is adopted in one and forgotten in the other.
    meant = {(each["address"], each["lock"]): each for each in saved if each["action"] != "noop"}
    wanted = {(each.address, each.lock): each for each in plan.changes if (each.address, each.lock) in meant}
    addresses = {address for address, _ in wanted}
    moved = sorted(
        address
        for (address, lock), each in meant.items()
        if (address, lock) not in wanted or not _same(each, wanted[address, lock], addresses)
    )
    if moved:
        raise _stale(
            [f"`{address}` has moved on since the plan was saved" for address in moved],
            "run `evalops plan` again and look at what is different",
        )
    return replace(plan, changes=tuple(wanted.values()))


def _stale(messages: Sequence[str], hint: str) -> EvalopsError:
    found = (Diagnostic(code="plan/stale", message=message, hint=hint) for message in messages)
    return EvalopsError(*found, exit_code=Exit.LOCKED_OR_STALE)


def _same(saved: Mapping[str, Any], change: Change, addresses: Collection[str]) -> bool:
    if change.waits and change.source not in addresses:
        return False  # what it would adopt is not part of what was saved, and will not run
    if remaining.depends(change) and (change.estimate.calls or 0) > (saved.get("calls") or 0):
        return False  # on another machine more of its rows are unknown
    # A plan made offline says `create` where apply, which asks the provider, finds the job and pays nothing.
    actions = {change.action.value} | ({"create", "rerun"} if change.action is Action.ADOPT else set())
    return (
        saved.get("fingerprint") == change.fingerprint
        and saved.get("generation") == change.generation
        and saved.get("action") in actions
    )


def _exit_code(plan: Plan, applied: Applied, once: Once, *, gates_failed: bool) -> Exit:
    if applied.interrupted:
        return Exit.INTERRUPTED
    is_open = any(change.address not in applied.entries for change in plan.of(Action.UNKNOWN))
    if applied.unclear or once.unknown() or is_open:
        return Exit.UNKNOWN_OUTCOME
    if once.down or any(each.is_error for each in applied.diagnostics):
        return Exit.PROBLEM
    if applied.is_waiting:
        return Exit.STILL_RUNNING
    if applied.failed or any(plan.of(Action.FAILED, Action.DENIED)):
        return Exit.PROBLEM
    return Exit.GATE_FAILED if gates_failed else Exit.OK


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


def _failure(entry: Entry) -> Diagnostic:
    is_paid_anew = entry.provider in planning.PAID_ANEW
    what = "to try again makes another job, which is paid" if is_paid_anew else "finished rows are kept"
    return Diagnostic(
        code="job/failed",
        message=f"`{entry.address}` failed: {entry.message}",
        address=entry.address,
        hint=f"{what}; mend the cause, then: evalops apply --retry-failed",
    )
