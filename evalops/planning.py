"""From a project to a plan: reads the files, asks the providers where wanted, and lets `plan.build` decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evalops import catalog, estimate, plan, schema
from evalops.errors import Diagnostic, EvalopsError, has_errors
from evalops.lock import Lock
from evalops.plan import Known, Options, Plan, Wanted
from evalops.project import Project
from evalops.providers import PROVIDERS, open_provider
from evalops.providers.base import Provider
from evalops.settings import Settings


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
    """A plan with what it was made from."""

    plan: Plan
    locks: Mapping[str, Lock]
    warnings: tuple[Diagnostic, ...] = ()
    files: tuple[str, ...] | None = None  # that it read beside specs, locks and settings; None where not all are named


def make(
    project: Project,
    selection: Selection = Selection(),
    *,
    options: Options = Options(),
    providers: Mapping[str, Provider] | None = None,
) -> Planned:
    """The plan of a project. `providers` are asked for their jobs; None plans from the files alone.

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
        wanted = catalog.touched(wanted, project.changed_since(selection.changed_since))
    prices = project.settings.prices
    built = plan.build(
        wanted,
        locks,
        None if providers is None else _jobs(providers),
        estimate=lambda each: estimate.estimate(each, prices),
        options=options,
        forget=selection.is_all,
    )
    allowed = plan.deny(built, _denials(wanted, project.settings.policy))
    return Planned(
        plan=plan.within(allowed, project.settings.budget),
        locks=locks,
        warnings=_about(wanted, problems),
        files=_files(found.wanted, project.settings),
    )


def open_providers(project: Project) -> dict[str, Provider]:
    """Every provider that is installed. Opening one asks nobody and reads no secret."""
    return {name: open_provider(name, project) for name in PROVIDERS}


def _about(wanted: Sequence[Wanted], warnings: Sequence[Diagnostic]) -> tuple[Diagnostic, ...]:
    """The warnings that concern what is planned."""
    addresses = {None, *(each.evaluation.address for each in wanted)}
    return tuple(each for each in warnings if each.address in addresses)


def _files(wanted: Sequence[Wanted], settings: Settings) -> tuple[str, ...] | None:
    files = set()
    for evaluation, _ in wanted:
        named = (settings.models.get(model.model, {}).get("model", model.model) for model in evaluation.models)
        if any(name.startswith("embedded/file:") for name in named):
            return None  # weights may lie anywhere
        files |= {evaluation.dataset.path, *(text.file for text in evaluation.texts if text.file)}
    return tuple(sorted(files))


def _jobs(providers: Mapping[str, Provider]) -> list[Known]:
    return [
        Known(job.fingerprint, job.generation, job.id) for provider in providers.values() for job in provider.list()[0]
    ]


def _denials(wanted: Sequence[Wanted], policy: object) -> dict[str, str]:
    if policy is True:
        return {}
    denied = {}
    for evaluation, identity in wanted:
        broken = schema.violations({**identity.inputs, "rows": identity.digests.rows}, policy)
        if broken:
            denied[evaluation.address] = f"`policy` forbids it: {broken[0]}"
    return denied


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
