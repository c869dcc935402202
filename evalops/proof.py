"""Whether the lockfiles of a project answer its specs and its gates hold: what `evalops check` proves.

Offline and without an environment: files are read, and git is asked what it tracks and what a base revision had.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from evalops import evidence, git, history, paired, planning, reviewing, verdicts, witness
from evalops.errors import Diagnostic, EvalopsError, Exit, Mark
from evalops.history import MAX_VERDICTS, Revision
from evalops.lock import Entry, Lock, Status
from evalops.plan import Action, Change
from evalops.planning import Planned
from evalops.project import STATE, Project
from evalops.review import Kind, Move
from evalops.reviewing import Reviewed
from evalops.settings import FILE, Trusted
from evalops.spec import NO_REGRESSION, Evaluation
from evalops.verdicts import Section

GATE = "gate/"  # the codes of gates that failed; all others are problems
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """One evaluation, where its name stands, and what is wrong with it."""

    address: str
    mark: Mark
    diagnostics: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What was found. `diagnostics` are about the project as a whole; `prefix` is its folder in the repository.

    `is_whole` is false where errors in files kept the evaluations from being looked at.
    """

    evaluations: tuple[Checked, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    base: Revision | None = None
    prefix: str = ""
    is_whole: bool = True
    trusted: Trusted | None = None

    @property
    def all(self) -> tuple[Diagnostic, ...]:
        """Everything that was found, by place."""
        found = [*self.diagnostics, *(each for one in self.evaluations for each in one.diagnostics)]
        return tuple(sorted(dict.fromkeys(found), key=lambda each: each.mark or Mark("")))

    @property
    def exit(self) -> Exit:
        """A problem outweighs a gate that failed."""
        errors = [each for each in self.all if each.is_error]
        if any(not each.code.startswith(GATE) for each in errors):
            return Exit.PROBLEM
        return Exit.GATE_FAILED if errors else Exit.OK

    @property
    def totals(self) -> dict[str, int]:
        """How many evaluations hold, fail a gate, have another problem; and the errors of the project as a whole."""
        held = [{each.code.startswith(GATE) for each in one.diagnostics if each.is_error} for one in self.evaluations]
        return {
            "evaluations": len(held),
            "hold": sum(not each for each in held),
            "gate_failed": sum(each == {True} for each in held),
            "problem": sum(False in each for each in held),
            "project": sum(each.is_error for each in self.diagnostics),
        }


def check(project: Project, base: str | None = None, *, remote: bool = False) -> Proof:
    """Everything that does not hold. `base` is the revision for `no_regression`, by default the merge base.

    With `remote` the services are asked for the jobs and their rows: this needs keys.
    """
    prefix = ""
    with contextlib.suppress(EvalopsError):  # a project need not lie in a repository
        prefix = history.find(project.root).prefix
    problems = list(_tracked(project))
    try:
        planned = planning.make(project)
    except EvalopsError as error:
        problems += error.diagnostics
        return Proof(diagnostics=tuple(problems), prefix=prefix, is_whole=False, trusted=project.trusted)
    problems += planned.warnings
    found: dict[str, list[Diagnostic]] = {}
    denied = {change.address for change in planned.plan.of(Action.DENIED)}
    for change in planned.plan.changes:
        found.setdefault(change.address, []).extend(_step(change))
    for breach in planned.broken:
        # What is in step may have run before there was the rule, or its entry is made up: nothing else would tell.
        if breach.diagnostic.is_error and breach.address not in denied:
            found[breach.address].append(breach.diagnostic)
    settled = _settled(planned)
    for change, entry in settled:
        found[change.address] += _result(change, entry)
    for address, diagnostic in _files(project, planned.locks, settled):
        found[address].append(diagnostic)
    if remote:
        for address, diagnostic in witness.heard(project, settled):
            found[address].append(diagnostic)
    revision, regressions = _regressions(project, planned, base)
    for diagnostic in regressions:
        found[diagnostic.address or ""].append(diagnostic)
    shown = {change.address: change.mark or Mark(change.lock) for change in planned.plan.changes}
    own = [each for each in problems if each.address not in found]
    for each in problems:
        if each.address in found:
            found[each.address].append(each)
    checked = (Checked(address=key, mark=shown[key], diagnostics=tuple(each)) for key, each in sorted(found.items()))
    return Proof(
        evaluations=tuple(checked), diagnostics=tuple(own), base=revision, prefix=prefix, trusted=project.trusted
    )


def _settled(planned: Planned) -> list[tuple[Change, Entry]]:
    """The evaluations that are in step and have a result."""
    return [
        (change, change.entry)
        for change in planned.plan.of(Action.NOOP)
        if change.entry and change.wanted and change.entry.status is Status.COMPLETED
    ]


def _tracked(project: Project) -> Iterator[Diagnostic]:
    """State that came with the repository would be a stranger's answers."""
    if git.ask(project.root, "ls-files", "-z", "--", STATE).out:
        yield Diagnostic(
            code="project/tracked-state",
            message=f"git tracks files below `{STATE}/`: another's answers would be taken for yours",
            hint=f"remove them: git rm -r --cached {STATE}",
        )


def _step(change: Change) -> Iterator[Diagnostic]:
    """Why an evaluation is not in step with its lock; nothing where it is."""
    if change.action is Action.NOOP:
        return
    mark = change.fields[0].mark if change.fields else change.mark or Mark(change.lock)
    code, message, hint = "check/out-of-step", f"{change.action.value}, {change.reason}", "evalops apply"
    if change.action is Action.FAILED:
        code, message, hint = "check/failed", change.reason, "evalops apply --retry-failed"
    elif change.action is Action.DENIED:
        code, message, hint = "check/denied", change.reason, f"see `policy` and `budget` in {FILE}"
    elif change.money == "free":
        hint += " (free)"
    what = "is not in step with its lock" if code == "check/out-of-step" else "has no result"
    yield Diagnostic(
        code=code, message=f"`{change.address}` {what}: {message}", mark=mark, address=change.address, hint=hint
    )


# --- gates ---


def _result(change: Change, entry: Entry) -> Iterator[Diagnostic]:
    """Gates that fail, by the summary rather than by what the lockfile says of them."""
    assert change.wanted is not None
    evaluation = change.wanted.evaluation
    untrue = list(evidence.gates(change.wanted, entry))
    yield from untrue
    job = (entry.summary or {}).get("job")
    if entry.summary is None or job != entry.job:
        yield Diagnostic(
            code="check/untrue",
            message=f"`{entry.address}` has the job `{entry.job}` and the result of `{job}`",
            mark=Mark(change.lock),
            address=entry.address,
        )
    routes = {(each.metric, each.by): each.route for each in evaluation.thresholds}
    for gate in entry.failed_gates:
        route = routes.get((gate["metric"], gate.get("by")), ("thresholds",))
        yield Diagnostic(
            code=f"{GATE}failed",
            message=f"`{entry.address}`: {_gate(gate)}",
            mark=evaluation.places.mark(*route),
            address=entry.address,
        )


def _gate(gate: Mapping[str, Any]) -> str:
    """A gate that failed, in words."""
    name = f"`{gate['metric']}`" + (f" by `{gate['by']}`" if "by" in gate else "")
    if gate["value"] is None:
        return f"{name} is not known: {gate.get('reason')}"
    bounds = " and ".join(f"{word} {gate[key]:g}" for key, word in _BOUNDS.items() if gate.get(key) is not None)
    end = "" if gate["on"] == "estimate" else f" at the {gate['on']} end of its interval"
    where = f" in `{gate['group']}`" if "group" in gate else ""
    return f"{name} is {gate['value']:.4g}{end}{where}, and {bounds} is asked for"


_BOUNDS = {"min": "at least", "max": "at most"}


def _regressions(project: Project, planned: Planned, base: str | None) -> tuple[Revision | None, list[Diagnostic]]:
    """What fell since the base revision; that there is none to compare with is a problem where a spec asks for it."""
    gated = _gated(planned)
    if not gated:
        return (history.find(project.root).base(base) if base else None), []
    try:
        reviewed = reviewing.of(project, base, with_rows=False)
    except EvalopsError as error:
        first = next(iter(gated.values()))
        return None, [replace(each, mark=_place(first), address=first.address) for each in error.diagnostics]
    return reviewed.base, fallen(planned, reviewed)


def fallen(planned: Planned, reviewed: Reviewed) -> list[Diagnostic]:
    """The results in step that fell since the base further than their spec allows by `no_regression`."""
    moves = {move.address: move for move in reviewed.review.moves}
    found = []
    for address, evaluation in _gated(planned).items():
        if address not in moves:
            found.append(_incomparable(evaluation, reviewed.base))
        elif why := _regressed(moves[address], evaluation):
            found.append(_fell(evaluation, reviewed.base, why))
    return found


def _gated(planned: Planned) -> dict[str, Evaluation]:
    """The settled evaluations that must not fall, by address."""
    return {
        change.address: change.wanted.evaluation
        for change, _ in _settled(planned)
        if change.wanted and change.wanted.evaluation.no_regression
    }


def _incomparable(evaluation: Evaluation, base: Revision) -> Diagnostic:
    return Diagnostic(
        code="check/base",
        message=f"`{evaluation.address}` cannot be compared: its lockfile as of {base.commit[:12]} cannot be used",
        mark=_place(evaluation),
        address=evaluation.address,
        hint="choose another base: evalops check --base REF",
    )


def _regressed(move: Move, evaluation: Evaluation) -> str | None:
    """Why the result counts as fallen, None where it does not; the same verdicts never have."""
    bound = evaluation.no_regression
    if bound is None or move.kind is not Kind.MOVED or move.paired is None:
        return None
    found = paired.regressed(move.paired, bound.margin, strict=bound.strict)
    return found.reason if found.failed else None


def _fell(evaluation: Evaluation, base: Revision, why: str) -> Diagnostic:
    return Diagnostic(
        code=f"{GATE}regressed",
        message=f"`{evaluation.address}` is worse than at {base.commit[:12]}: {why}",
        mark=_place(evaluation),
        address=evaluation.address,
        hint=f"evalops diff {base.commit[:12]}",
    )


def _place(evaluation: Evaluation) -> Mark:
    return evaluation.places.mark("thresholds", NO_REGRESSION)


# --- what lies behind the entries ---


def _files(
    project: Project, locks: Mapping[str, Lock], settled: Iterable[tuple[Change, Entry]]
) -> Iterator[tuple[str, Diagnostic]]:
    """Verdicts files that are not of their entries, or do not add up to them; those that are absent prove nothing."""
    by_lock: dict[str, list[tuple[Change, Entry]]] = {}
    for change, entry in settled:
        by_lock.setdefault(change.lock, []).append((change, entry))
    for lock, changes in by_lock.items():
        path = verdicts.beside(lock)
        try:
            sections = _sections(project, path)
        except EvalopsError as error:
            yield from ((changes[0][0].address, each) for each in error.diagnostics)
            continue
        for address in sections.keys() - locks[lock].entries.keys():
            yield changes[0][0].address, _stray(path, address)
        for change, entry in changes:
            assert change.wanted is not None
            if entry.address in sections:
                found = evidence.file(project, change.wanted, entry, sections[entry.address], path)
                yield from ((entry.address, each) for each in found)


def _sections(project: Project, path: str) -> Mapping[str, Section]:
    try:
        return verdicts.parse(project.read(path, MAX_VERDICTS), path)
    except EvalopsError as error:
        if error.diagnostics[0].code == "file/missing":
            return {}
        raise


def _stray(path: str, address: str) -> Diagnostic:
    return Diagnostic(
        code="check/verdicts",
        message=f"`{path}` holds verdicts of `{address}`, which its lockfile does not have",
        mark=Mark(path),
        hint=f"restore it with `git checkout -- {path}`",
    )
