"""What jobs that go on still cost where every row is a call of ours: rows that are known are not paid again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Protocol, cast

from evalops.plan import Action, Change, Estimate, Estimator, Plan
from evalops.project import Project
from evalops.providers import Providers
from evalops.providers.base import Left, Provider, Request

BY_ROW = frozenset({"patronus"})  # services without jobs: whoever waits makes the calls
HERE = "local"  # the provider whose jobs are on the machine that began them, and nowhere else


class _ByRow(Protocol):
    def left(self, job: str, request: Request, *, retry: bool, ask: bool) -> Left: ...


class _Here(Protocol):
    def has(self, request: Request) -> bool: ...


def goes_on(change: Change) -> str | None:
    """The job of such a service that a change goes on with, None where it does not."""
    if change.wanted is None or change.wanted.evaluation.provider not in BY_ROW:
        return None
    if change.action is Action.RESUME and change.entry:
        return change.entry.job
    return change.job if change.action is Action.ADOPT else None


def is_asked_from_here(change: Change) -> bool:
    """Whether carrying a change out means that this machine makes a call for each row."""
    if change.wanted is None or change.wanted.evaluation.provider not in BY_ROW:
        return False
    return change.action in (Action.CREATE, Action.RERUN) or goes_on(change) is not None


def depends(change: Change) -> bool:
    """Whether what going on takes depends on the machine: on what of the job is there."""
    return goes_on(change) is not None or _is_ours(change)


def _is_ours(change: Change) -> bool:
    is_here = change.wanted is not None and change.wanted.evaluation.provider == HERE
    return is_here and change.action is Action.RESUME


def priced(project: Project, plan: Plan, providers: Mapping[str, Provider] | None, estimate: Estimator) -> Plan:
    """The plan with what is left to pay of jobs that go on. Without `providers` nobody is asked what a service keeps.

    A job of this machine that another one began, or nobody, is paid as a whole.

    Raises EvalopsError where a service, or what is here of a job, cannot be asked.
    """
    return replace(plan, changes=tuple(_priced(project, plan, providers, estimate)))


def _priced(
    project: Project, plan: Plan, providers: Mapping[str, Provider] | None, estimate: Estimator
) -> Iterator[Change]:
    seen: set[str] = set()  # addresses with the same work share a job, and the first one pays
    with closing(Providers(project)) as own:
        opened = providers or own
        for change in plan.changes:
            job = f"{change.fingerprint}-{change.generation}" if _is_ours(change) else goes_on(change)
            if job is None or job in seen or change.wanted is None:
                yield change
                continue
            seen.add(job)
            name = change.wanted.evaluation.provider
            request = opened[name].request(*change.wanted, change.generation)
            if name == HERE:
                yield change if cast(_Here, opened[name]).has(request) else _anew(change, estimate(change.wanted))
                continue
            service, retry = cast(_ByRow, opened[name]), change.action is Action.RESUME
            left = service.left(job, request, retry=retry, ask=providers is not None)
            reason = f"{left.why}; {change.reason}" if left.why else change.reason
            yield replace(change, reason=reason, estimate=_part(estimate(change.wanted), left))


def _anew(change: Change, whole: Estimate) -> Change:
    """A job that is not here: all of its rows are asked."""
    return replace(change, reason=f"nothing of it is on this machine; {change.reason}", estimate=whole)


def _part(whole: Estimate, left: Left) -> Estimate:
    """The part of the whole that is left: rows are alike."""
    share = left.calls / whole.calls if whole.calls else 0.0
    return replace(
        whole,
        rows=left.calls,
        calls=left.calls,
        fewest=left.fewest if left.fewest < left.calls else None,
        tokens=None if whole.tokens is None else round(whole.tokens * share),
        cost=None if whole.cost is None else whole.cost * share,
    )
