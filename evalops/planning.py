"""From a project to a plan: reads the files, asks the providers where wanted, and lets `plan.build` decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from evalops import catalog, destination, estimate, plan, remaining, schema
from evalops import journal as journals
from evalops.catalog import Catalog
from evalops.errors import Diagnostic, EvalopsError, has_errors
from evalops.journal import Journal
from evalops.lock import Entry, Lock, Status, held
from evalops.once import Once
from evalops.plan import Denial, Estimate, Estimator, Known, Options, Plan, Wanted
from evalops.policy import Breach, Policy
from evalops.project import Project
from evalops.providers.base import Job, Provider
from evalops.settings import Settings

JOURNAL = "journal"
PAID_ANEW = frozenset({"together"})  # a failed job of theirs cannot be gone on with


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which evaluations are meant: globs, `tag:WORD`, exclusions, what changed since a revision. Empty is all."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    changed_since: str | None = None

    @property
    def is_all(self) -> bool:
        return not self.include and not self.exclude and self.changed_since is None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan with what it was made from. `broken` are the rules that evaluations break, those in step included."""

    plan: Plan
    locks: Mapping[str, Lock]
    warnings: tuple[Diagnostic, ...] = ()
    broken: tuple[Breach, ...] = ()
    files: tuple[str, ...] | None = None  # that it read beside specs, locks and settings; None where not all are named


def make(
    project: Project,
    selection: Selection = Selection(),
    *,
    options: Options = Options(),
    providers: Mapping[str, Provider] | None = None,
    once: Once | None = None,
) -> Planned:
    """The plan of a project. `providers` are asked for their jobs; None plans from the files alone.

    `once` knows what earlier applies sent; without it, the journal is read as it is.

    Raises EvalopsError with everything that is wrong with any file: a plan of half a project is none.
    """
    found = catalog.read(project)
    locks, problems = project.locks()
    problems = [*found.diagnostics, *problems]
    if has_errors(problems):
        raise EvalopsError(*problems)
    _check_addresses(options.rerun, found.wanted)
    wanted = catalog.select(found.wanted, selection.include, selection.exclude)
    if selection.changed_since is not None:
        wanted = catalog.touched(wanted, project.changed_since(selection.changed_since), project.settings)
    built = plan.build(
        wanted,
        locks,
        None if providers is None else _jobs(providers, wanted, locks, once, options.rerun),
        estimate=_estimator(project, locks),
        options=options,
        forget=selection.is_all,
        unknown=once.unknown() if once else _in_doubt(project),
        paid_anew=PAID_ANEW,
        moved=_moved(wanted, locks, providers) if providers and (once is None or options.refresh) else None,
    )
    if once:
        once.wanted = _standing(found.wanted, locks) | {(each.fingerprint, each.generation) for each in built.changes}
    broken = breaches(project, wanted, locks)
    priced = remaining.priced(project, built, providers, _estimator(project, locks))
    made = _allowed(priced, broken, project.settings)
    problems += (each.diagnostic for each in broken if not each.diagnostic.is_error)
    problems += _notes(made, locks, project.settings)
    # What is here of a job that goes on, and what git tracks, lies outside of the files that a plan is made from.
    is_whole = not any(map(remaining.depends, priced.changes)) and all(
        each.code != catalog.UNTRACKED for each in problems
    )
    return Planned(
        plan=made,
        locks=locks,
        warnings=_about(wanted, problems),
        broken=broken,
        files=_files(found.wanted, project.settings) if is_whole else None,
    )


def _allowed(built: Plan, broken: Sequence[Breach], settings: Settings) -> Plan:
    """The plan with all denied that a rule forbids, each by the first of them, and what is over the budget then."""
    errors = [each for each in reversed(broken) if each.diagnostic.is_error]
    denied = {each.address: Denial(each.reason, each.mark) for each in errors}
    return plan.within(plan.deny(built, denied), settings.budget)


def validated(project: Project, paths: Iterable[str] | None = None) -> Catalog:
    """The evaluations of all specs, or of those at `paths`, with everything that is wrong, broken rules included."""
    found = catalog.read(project, paths)
    if has_errors(found.diagnostics):
        return found
    broken = breaches(project, found.wanted, project.locks()[0])
    return replace(found, diagnostics=(*found.diagnostics, *(each.diagnostic for each in broken)))


def breaches(project: Project, wanted: Sequence[Wanted], locks: Mapping[str, Lock]) -> tuple[Breach, ...]:
    """The rules of a project that its evaluations break."""
    if not project.settings.policy:
        return ()
    rules, estimated = Policy(project.settings.policy), _estimator(project, locks)
    return tuple(found for each in wanted for found in rules.breaches(each, estimated(each)))


def _estimator(project: Project, locks: Mapping[str, Lock]) -> Estimator:
    """Estimates by the last results; where a revision is trusted, by those that it has: a branch may make some up."""
    known = locks if project.measured is None else project.measured

    def estimated(wanted: Wanted) -> Estimate:
        evaluation = wanted.evaluation
        return estimate.estimate(wanted, project.settings.prices, held(known, evaluation.spec, evaluation.address))

    return estimated


def _notes(made: Plan, locks: Mapping[str, Lock], settings: Settings) -> Iterator[Diagnostic]:
    """What whoever agrees to a plan should know: other hosts, other keys, old prices."""
    yield from destination.changes(made, locks, settings)
    paid = (each.wanted for each in made.changes if each.wanted and each.money == "paid")
    models = {model.model for wanted in paid for model in wanted.evaluation.models}
    yield from estimate.stale(settings, models, datetime.now(UTC).date())


def clock(opened: Callable[[], Iterable[Provider]]) -> Callable[[], datetime]:
    """The clock for the journal: that of the service which is paid, as its list of jobs has it. Ours may be wrong.

    `opened` tells which providers there are by then.
    """

    def time() -> datetime:
        paid = (each for each in opened() if not each.is_repeatable)
        return next((each.time() for each in paid), datetime.now(UTC))

    return time


def recover(project: Project, providers: Mapping[str, Provider], journal: Journal) -> Once:
    """What earlier applies sent and never heard of, looked for at the services; the rest stays open."""
    locks, _ = project.locks()
    claimed = {entry.job for lock in locks.values() for entry in lock.entries.values() if entry.job}
    claimed |= {each.job for each in journal.intents.values() if each.job}
    once = Once(journal=journal, providers=providers, claimed=claimed)
    once.recover()
    return once


def _about(wanted: Sequence[Wanted], warnings: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The warnings that concern what is planned."""
    addresses = {None, *(each.evaluation.address for each in wanted)}
    return tuple(each for each in warnings if each.address in addresses)


def _files(wanted: Sequence[Wanted], settings: Settings) -> tuple[str, ...] | None:
    files: set[str] = set()
    for evaluation, _ in wanted:
        named = (settings.models.get(model.model, {}).get("model", model.model) for model in evaluation.models)
        if any(name.startswith("embedded/file:") for name in named):
            return None  # weights may lie anywhere
        if evaluation.evaluator is not None and evaluation.evaluator.function is not None:
            return None  # so may the code of a function: a package gets new files
        files |= catalog.read_by(evaluation, settings)
    return tuple(sorted(files))


def _jobs(
    providers: Mapping[str, Provider],
    wanted: Sequence[Wanted],
    locks: Mapping[str, Lock],
    once: Once | None,
    rerun: Collection[str],
) -> list[Known]:
    """The jobs that are there: those that an apply paid for and could not write down come first.

    Nothing is asked where all work has finished and none is to run again: that needs neither key nor network. A
    provider that apply could not ask is `down`.
    """
    paid = once.paid() if once else {}
    jobs = [Known(fingerprint, generation, job) for (fingerprint, generation), job in paid.items()]
    entries = [entry for lock in locks.values() for entry in lock.entries.values()]
    done = {each.fingerprint for each in entries if each.status is Status.COMPLETED}
    asked = [each for each in wanted if each.identity.fingerprint not in done or each.evaluation.address in rerun]
    addresses = {each.evaluation.address for each in wanted}
    for name in providers:
        held = {
            each.job: each
            for each in entries
            if each.provider == name and each.job and each.status.is_open and each.address in addresses
        }
        own = [each for each in asked if each.evaluation.provider == name]
        if own or held:
            jobs += _known(providers[name], own, held, once)
    return jobs


def _moved(wanted: Sequence[Wanted], locks: Mapping[str, Lock], providers: Mapping[str, Provider]) -> dict[str, str]:
    """The finished addresses whose evaluators are no longer what they were at the service, and how they differ."""
    found = {}
    for evaluation, _ in wanted:
        entry = held(locks, evaluation.spec, evaluation.address)
        if entry is None or not entry.pins or entry.status is not Status.COMPLETED:
            continue
        if why := moved(entry, providers[evaluation.provider].pinned(evaluation)):
            found[evaluation.address] = why
    return found


def moved(entry: Entry, today: Mapping[str, str]) -> str | None:
    """How the evaluators of a result differ from what their names stand for today, None where they do not."""
    changed = [(name, old, today[name]) for name, old in (entry.pins or {}).items() if today.get(name, old) != old]
    differs = "; ".join(f"`{name}` from {old} to {new}" for name, old, new in changed)
    return f"the service changed {differs}" if differs else None


def _known(
    provider: Provider, wanted: Sequence[Wanted], held: Mapping[str, Entry], once: Once | None
) -> Iterator[Known]:
    """The jobs that a provider has. Of one that cannot be asked, and of young jobs, lockfiles are believed."""
    found: Sequence[Job] = []
    is_down = once is not None and provider.name in once.down
    if not is_down:
        try:
            found = provider.known(wanted, {job: (each.fingerprint, each.generation) for job, each in held.items()})
        except EvalopsError as error:
            if once is None or provider.is_repeatable:
                raise
            once.cannot_ask(provider, error)
            is_down = True
    yield from (Known(each.fingerprint, each.generation, each.id) for each in found)
    for job, entry in held.items():
        if is_down or _is_young(entry, provider):
            yield Known(entry.fingerprint, entry.generation, job)


def _is_young(entry: Entry, provider: Provider) -> bool:
    """Whether a job may be missing from what the provider lists for its youth alone."""
    if not provider.visibility_lag:
        return False  # whatever time an entry names: a lockfile may be a stranger's
    try:
        made = datetime.fromisoformat(entry.created_at)
        return provider.time() < made + timedelta(seconds=provider.visibility_lag)
    except (ValueError, TypeError):
        return False  # edited by hand


def _standing(wanted: Sequence[Wanted], locks: Mapping[str, Lock]) -> set[tuple[str, int]]:
    """The work that specs ask for, by fingerprint and generation."""
    found = set()
    for evaluation, identity in wanted:
        entry = held(locks, evaluation.spec, evaluation.address)
        found.add((identity.fingerprint, entry.generation if entry else 1))
    return found


def _in_doubt(project: Project) -> dict[tuple[str, int], str]:
    """What the journal, as it lies there, says is open. Offline."""
    return {
        (each.key.fingerprint, each.key.generation): f"the request of {each.submitted_at} has no known outcome yet"
        for each in journals.read(project.state / JOURNAL).values()
        if each.is_open
    }


def _check_addresses(addresses: frozenset[str], wanted: Sequence[Wanted]) -> None:
    known = [each.evaluation.address for each in wanted]
    for address in sorted(addresses - set(known)):
        raise EvalopsError(
            Diagnostic(
                code="select/nothing",
                message=f"no evaluation has the address `{address}`",
                hint=schema.nearest(address, known) or "evalops status lists the addresses",
            )
        )
