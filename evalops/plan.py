"""What apply would do, as a value: `build` is pure and is the only place that decides."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from enum import StrEnum
from typing import Any, NamedTuple

from evalops import diff
from evalops.errors import Mark
from evalops.fingerprint import Identity, canonical, sha256
from evalops.lock import Entry, Lock, Status, beside, held
from evalops.settings import Budget
from evalops.spec import Evaluation


class Action(StrEnum):
    """Everything apply can do with an address."""

    CREATE = "create"
    RERUN = "rerun"
    ADOPT = "adopt"
    RESUME = "resume"
    REGRADE = "regrade"
    FORGET = "forget"
    NOOP = "noop"
    UNKNOWN = "unknown"
    FAILED = "failed"
    DENIED = "denied"

    @property
    def sign(self) -> str:
        """The one character in front of a change; the word always stands beside it."""
        return _SIGNS[self]

    @property
    def money(self) -> str:
        """paid, free or unknown; `-` where nothing happens."""
        return _MONEY[self]

    @property
    def is_change(self) -> bool:
        """Whether apply has something to do or to say."""
        return self is not Action.NOOP


_SIGNS = {
    Action.CREATE: "+", Action.RERUN: "~", Action.ADOPT: "<", Action.RESUME: ">", Action.REGRADE: "*",
    Action.FORGET: ".", Action.NOOP: "=", Action.UNKNOWN: "?", Action.FAILED: "!", Action.DENIED: "!",
}  # fmt: skip
_MONEY = {
    Action.CREATE: "paid", Action.RERUN: "paid", Action.ADOPT: "free", Action.RESUME: "free",
    Action.REGRADE: "free", Action.FORGET: "free", Action.NOOP: "free", Action.UNKNOWN: "unknown",
    Action.FAILED: "-", Action.DENIED: "-",
}  # fmt: skip


class Wanted(NamedTuple):
    """An evaluation with its identity over today's rows."""

    evaluation: Evaluation
    identity: Identity


class Known(NamedTuple):
    """A job that a provider already has for a fingerprint and generation."""

    fingerprint: str
    generation: int
    job: str


class Basis(StrEnum):
    """What tokens are estimated by."""

    RULE = "rule of thumb"
    MEASURED = "last result"
    BOTH = "both"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run would take: rows, model calls, tokens, and cost where prices are known. None is unknown.

    `fewest` are the calls at the least, where they depend on the replies. `basis` says where the tokens are from, and
    `as_of` is the day of the oldest price.
    """

    rows: int | None = 0
    calls: int | None = 0
    fewest: int | None = None
    tokens: int | None = 0
    cost: float | None = 0.0
    basis: Basis = Basis.RULE
    as_of: date | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What happens at one address. `entry` is what the lock holds for it.

    An adoption comes from the address `source`, whose entry is `found` where that has finished, or from `job`.
    `why` is what the user gave as the reason of a rerun, `derived` what the files alone say where more is known.
    """

    address: str
    action: Action
    lock: str
    wanted: Wanted | None = None
    entry: Entry | None = None
    reason: str = ""
    fields: tuple[diff.Field, ...] = ()
    source: str | None = None
    found: Entry | None = None
    job: str | None = None
    generation: int = 1
    why: str | None = None
    estimate: Estimate = Estimate()
    mark: Mark | None = None
    derived: Action | None = None

    @property
    def money(self) -> str:
        """That of the action; but going on with a job is paid where calls of it are still to be made."""
        is_left = self.action in (Action.RESUME, Action.ADOPT) and self.estimate.calls
        return "paid" if is_left else self.action.money

    @property
    def work(self) -> tuple[str, int]:
        """What several addresses may share."""
        return self.fingerprint, self.generation

    @property
    def goes_on(self) -> bool:
        """Whether it goes on with a job that is there."""
        return self.action is Action.RESUME or (self.action is Action.ADOPT and self.job is not None)

    @property
    def waits(self) -> bool:
        """Whether it adopts what another change of the same plan runs."""
        return self.action is Action.ADOPT and self.found is None and self.job is None

    @property
    def fingerprint(self) -> str:
        if self.wanted:
            return self.wanted.identity.fingerprint
        return self.entry.fingerprint if self.entry else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The changes of all selected addresses, by address."""

    changes: tuple[Change, ...]

    @property
    def digest(self) -> str:
        """What an approval covers: address, fingerprint, generation and action of each change, no-ops left out.

        An address that is in step may come or go without staling an approval.
        """
        return sha256(canonical([key(each) for each in self.changes if each.action.is_change]))

    @property
    def has_changes(self) -> bool:
        return any(change.action.is_change for change in self.changes)

    def of(self, *actions: Action) -> Iterator[Change]:
        """The changes with one of these actions."""
        return (change for change in self.changes if change.action in actions)


def key(change: Change) -> list[Any]:
    """What must not have moved between plan and apply."""
    return [change.address, change.fingerprint, change.generation, (change.derived or change.action).value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the user asked apply for: addresses to run again and why, failed jobs to try again, and with `refresh`
    whether services changed what names in the specs stand for.
    """

    rerun: frozenset[str] = frozenset()
    reason: str | None = None
    retry_failed: bool = False
    refresh: bool = False


Estimator = Callable[[Wanted], Estimate]


def build(
    wanted: Sequence[Wanted],
    locks: Mapping[str, Lock],
    jobs: Iterable[Known] | None = None,
    *,
    estimate: Estimator = lambda wanted: Estimate(rows=wanted.identity.digests.rows),
    options: Options = Options(),
    forget: bool = True,
    unknown: Mapping[tuple[str, int], str] | None = None,
    paid_anew: Collection[str] = (),
    moved: Mapping[str, str] | None = None,
) -> Plan:
    """The plan for the wanted evaluations against the lockfiles and the jobs providers are known to have.

    `locks` are all lockfiles of the project by path. `jobs` is None where no provider was asked; else an open job
    that is not among them has vanished. `forget` is off where only some addresses are looked at. `unknown` is the
    work (fingerprint and generation) whose outcome is open, with the reason. A failed job of a provider in
    `paid_anew` can only be tried again as another one. `moved` are finished addresses of which a service would judge
    otherwise today, with the reason.
    """
    scene = _Scene(wanted, locks, jobs, paid_anew, moved or {})
    changes = [_change(each, scene, options) for each in wanted]
    changes = [_doubted(change, unknown or {}) for change in _pay_once(changes)]
    changes = [
        replace(change, estimate=estimate(change.wanted)) if change.wanted and change.action.money == "paid" else change
        for change in changes
    ]
    if forget:
        adopted = {change.source for change in changes if change.action is Action.ADOPT}
        changes += _forgotten(scene, adopted)
    return Plan(changes=tuple(sorted(changes, key=lambda change: (change.address, change.lock))))


class _Scene:
    """What exists, by what it is looked up by."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        locks: Mapping[str, Lock],
        jobs: Iterable[Known] | None,
        paid_anew: Collection[str],
        moved: Mapping[str, str],
    ) -> None:
        self.locks = locks
        self.paid_anew = paid_anew
        self.moved = moved
        self.places = {(beside(each.evaluation.spec), each.evaluation.address) for each in wanted}
        self.jobs: dict[tuple[str, int], Known] = {}
        self.asked = jobs is not None
        for job in jobs or ():
            self.jobs.setdefault((job.fingerprint, job.generation), job)
        self.finished: dict[str, tuple[str, Entry]] = {}
        for path in sorted(locks):
            for entry in locks[path].entries.values():
                if entry.status is Status.COMPLETED:
                    self.finished.setdefault(entry.fingerprint, (path, entry))


def _change(wanted: Wanted, scene: _Scene, options: Options) -> Change:
    evaluation, identity = wanted
    entry = held(scene.locks, evaluation.spec, evaluation.address)
    generation = entry.generation if entry else 1
    base = Change(
        address=evaluation.address,
        action=Action.NOOP,
        lock=beside(evaluation.spec),
        wanted=wanted,
        entry=entry,
        generation=generation,
        mark=evaluation.places.mark("name"),
    )
    if entry and evaluation.address in options.rerun:
        return replace(_once_more(base, scene, "asked for with --rerun"), why=options.reason)
    if entry and entry.fingerprint == identity.fingerprint:
        gone = scene.asked and entry.status.is_open and (entry.fingerprint, generation) not in scene.jobs
        if options.retry_failed and (gone or entry.status is Status.FAILED) and evaluation.provider in scene.paid_anew:
            return _once_more(base, scene, "the failed job is tried again")
        if evaluation.address in scene.moved and entry.status is Status.COMPLETED:
            why = scene.moved[evaluation.address]
            return replace(_once_more(base, scene, why), why=why)
        return _same_work(base, entry, identity, evaluation, options, gone=gone)
    return _other_work(base, entry, scene)


def _once_more(base: Change, scene: _Scene, reason: str) -> Change:
    """The next generation of the same work: paid, unless an earlier apply has paid for it and was killed."""
    generation = base.generation + 1
    job = scene.jobs.get((base.fingerprint, generation))
    if job:
        return replace(base, action=Action.ADOPT, job=job.job, generation=generation, reason=_has(job))
    return replace(base, action=Action.RERUN, generation=generation, reason=reason)


def _doubted(change: Change, unknown: Mapping[tuple[str, int], str]) -> Change:
    """Work that may have been paid for a moment ago is looked for before anything is sent."""
    reason = unknown.get((change.fingerprint, change.generation)) if change.action.money == "paid" else None
    return replace(change, action=Action.UNKNOWN, derived=change.action, reason=reason) if reason else change


def _has(job: Known) -> str:
    return f"the provider has it as job {job.job}"


def _same_work(
    base: Change, entry: Entry, identity: Identity, evaluation: Evaluation, options: Options, *, gone: bool
) -> Change:
    """The lock holds this very work: finish it, look at it again, or leave it."""
    if entry.status is Status.FAILED or gone:
        if options.retry_failed:
            return replace(base, action=Action.RESUME, reason="the failed job is tried again")
        reason = "the provider no longer has the job" if gone else entry.message or "the job failed"
        return replace(base, action=Action.FAILED, reason=reason)
    if entry.status.is_open:
        stopped = f"stopped: {entry.message}" if entry.message else "was interrupted"
        was = stopped if entry.status is Status.CANCELLED else f"is {entry.status.value}"
        return replace(base, action=Action.RESUME, reason=f"the job {was}")
    if entry.grade != identity.grade:
        return replace(base, action=Action.REGRADE, reason="what counts as a pass, or gold, changed")
    wanted = {(each.metric, each.by): (each.min, each.max, each.on) for each in evaluation.thresholds}
    if bounds(entry.gates) != wanted:
        return replace(base, action=Action.REGRADE, reason="`thresholds` changed")
    if entry.summary is not None and entry.summary.get("headline") != evaluation.metric:
        return replace(base, action=Action.REGRADE, reason="`metric` changed")
    return base


def bounds(gates: Iterable[Mapping[str, Any]]) -> dict[Any, tuple[Any, ...]]:
    """The thresholds that gates were made with, by metric and column of groups: their order says nothing."""
    return {(gate["metric"], gate.get("by")): (gate.get("min"), gate.get("max"), gate["on"]) for gate in gates}


def _other_work(base: Change, entry: Entry | None, scene: _Scene) -> Change:
    """The lock does not hold this work: it may exist elsewhere, else it is paid for."""
    base = replace(base, generation=1)  # that other work was run again says nothing of this one
    finished = scene.finished.get(base.fingerprint)
    if finished:
        path, other = finished
        return replace(
            base,
            action=Action.ADOPT,
            found=other,
            source=other.address,
            generation=other.generation,
            reason=_origin(base, path, other, is_gone=(path, other.address) not in scene.places),
        )
    job = scene.jobs.get((base.fingerprint, base.generation))
    if job:
        return replace(base, action=Action.ADOPT, job=job.job, reason=_has(job))
    if entry is None:
        return replace(base, action=Action.CREATE, reason="new")
    assert base.wanted is not None
    fields = diff.fields(entry.inputs, base.wanted.identity.inputs, base.wanted.evaluation)
    names = ", ".join(field.name for field in fields) or "the fingerprint"
    return replace(base, action=Action.RERUN, fields=fields, reason=f"changed: {names}")


def _origin(base: Change, path: str, other: Entry, *, is_gone: bool) -> str:
    """Where adopted work comes from, in words."""
    if is_gone and other.address == base.address:
        return f"moved from {path}"
    place = f" in {path}" if path != base.lock else ""
    return f"{'renamed from' if is_gone else 'the same work as'} `{other.address}`{place}"


def _pay_once(changes: list[Change]) -> list[Change]:
    """Two addresses that want the same work pay for it once: the later ones adopt from the first."""
    first: dict[tuple[str, int], str] = {}
    result = []
    for change in changes:
        work = (change.fingerprint, change.generation)
        if change.action.money == "paid" and work in first:
            reason = f"the same work as `{first[work]}`, once that has run"
            change = replace(change, action=Action.ADOPT, source=first[work], fields=(), reason=reason)
        elif change.action.money == "paid":
            first[work] = change.address
        result.append(change)
    return result


def _forgotten(scene: _Scene, adopted: set[str | None]) -> Iterator[Change]:
    for path, lock in scene.locks.items():
        for address, entry in lock.entries.items():
            if (path, address) in scene.places:
                continue
            reason = "renamed or moved" if address in adopted else "no spec has it any more"
            yield Change(
                address=address,
                action=Action.FORGET,
                lock=path,
                entry=entry,
                reason=reason,
                generation=entry.generation,
                mark=Mark(path),
            )


class Denial(NamedTuple):
    """Why an evaluation may not run, and the field or setting that it is for."""

    reason: str
    mark: Mark | None = None


def deny(plan: Plan, denials: Mapping[str, Denial]) -> Plan:
    """The plan with these addresses denied where they would cost money, and with them what has or waits for the same
    work: of several that go on with one job only the first is said to cost anything.
    """
    denied = {each.address for each in plan.changes if each.address in denials and each.money == "paid"}
    jobs = {each.work: each.address for each in plan.changes if each.address in denied and each.goes_on}

    def judge(change: Change) -> Change:
        if change.address in denied and change.money == "paid":
            why = denials[change.address]
            return replace(change, action=Action.DENIED, reason=why.reason, mark=why.mark or change.mark)
        first = change.source if change.waits else jobs.get(change.work) if change.goes_on else None
        if first in denied:
            return replace(change, action=Action.DENIED, reason=f"`{first}`, the same work, is denied")
        return change

    return replace(plan, changes=tuple(judge(change) for change in plan.changes))


def within(plan: Plan, budget: Budget) -> Plan:
    """The plan with the paid changes denied that would go over the budget, in the order of their addresses."""
    spent = Estimate()
    denials = {}
    for change in plan.changes:
        if change.money != "paid":
            continue
        own, total = change.estimate, _sum(spent, change.estimate)
        over = (_over("budget.per_evaluation", budget.per_evaluation, own) if budget.per_evaluation else None) or _over(
            "budget", budget, total
        )
        if over:
            denials[change.address] = Denial(over)
        else:
            spent = _sum(spent, replace(own, rows=own.rows or 0, calls=own.calls or 0, cost=own.cost or 0.0))
    return deny(plan, denials) if denials else plan


def _sum(so_far: Estimate, more: Estimate) -> Estimate:
    """Both together; what is not known of one of them is not known."""
    return Estimate(
        rows=None if so_far.rows is None or more.rows is None else so_far.rows + more.rows,
        calls=None if so_far.calls is None or more.calls is None else so_far.calls + more.calls,
        cost=None if so_far.cost is None or more.cost is None else so_far.cost + more.cost,
    )


def _over(name: str, budget: Budget, wanted: Estimate) -> str | None:
    """Which bound of a budget is gone over, in words."""
    rows, calls, cost = wanted.rows, wanted.calls, wanted.cost
    if rows is None or calls is None:
        is_bound = budget.rows is not None or budget.calls is not None or budget.cost is not None
        return f"`{name}` is set, and nobody has counted the rows of a file at the service" if is_bound else None
    if budget.rows is not None and rows > budget.rows:
        return f"over `{name}.rows`: {rows:,} of {budget.rows:,}"
    if budget.calls is not None and calls > budget.calls:
        return f"over `{name}.calls`: {calls:,} of {budget.calls:,}"
    if budget.cost is not None and cost is None:
        return f"`{name}.cost` is set, and a model of this evaluation has no price"
    if budget.cost is not None and cost is not None and cost > budget.cost:
        return f"over `{name}.cost`: {cost:.4g} of {budget.cost:g}"
    return None
