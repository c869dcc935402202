"""What the services bear out of lock entries: their jobs are asked for again, or the results that they keep of rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from evalops import evidence, jobs, planning, verdicts
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.history import MAX_VERDICTS
from evalops.lock import Entry, Status
from evalops.plan import Change, Wanted
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Job, Kept, Provider, Request
from evalops.result import Usage, Verdict, VerdictStatus

RECOUNTED = ("together",)  # the providers whose jobs can be asked for again
KEPT = ("patronus",)  # those that have no jobs, and keep the results of single rows
UNPROVEN = "check/unproven"
Settled = Sequence[tuple[Change, Entry]]


class _Service(Protocol):
    def answers(self, job: Job, request: Request) -> bool: ...

    def doubt(self, job: str) -> None: ...


class _Keeper(Protocol):
    def kept(self, job: str, request: Request) -> Kept | None: ...


def heard(project: Project, settled: Settled) -> Iterator[tuple[str, Diagnostic]]:
    """What does not hold by the services, with its address. Raises EvalopsError where one cannot be asked."""
    for name in (*RECOUNTED, *KEPT):
        held = [(change, entry) for change, entry in settled if entry.provider == name and entry.job]
        if held:
            with contextlib.closing(open_provider(name, project)) as provider:
                for change, entry in held:
                    yield from ((entry.address, each) for each in _asked(project, change, entry, provider))


def _asked(project: Project, change: Change, entry: Entry, provider: Provider) -> Iterator[Diagnostic]:
    """What the service says of the job of an entry; of single rows also what it would judge in another way by now."""
    assert change.wanted is not None
    if entry.provider in RECOUNTED:
        yield from job(change.wanted, entry, provider)
        return
    yield from kept(change.wanted, entry, provider, _own(project, change, entry))
    yield from _moved(change, entry, provider)


def _own(project: Project, change: Change, entry: Entry) -> dict[str, Verdict]:
    """What the verdicts file has of a job, by row key; what is wrong with the file is told elsewhere."""
    path = verdicts.beside(change.lock)
    try:
        section = verdicts.parse(project.read(path, MAX_VERDICTS), path).get(change.address)
        if section is None or section.job != entry.job or change.wanted is None:
            return {}
        return {each.key: each for each in verdicts.checked(section, change.wanted.evaluation, path)}
    except EvalopsError:
        return {}


def _moved(change: Change, entry: Entry, provider: Provider) -> Iterator[Diagnostic]:
    """Evaluators that a service has changed: the result stays true of those that it names."""
    assert change.wanted is not None
    evaluation = change.wanted.evaluation
    try:
        why = planning.moved(entry, provider.pinned(evaluation))
    except EvalopsError as error:
        if error.diagnostics[0].code.startswith("provider/"):
            raise
        why = error.diagnostics[0].message
    if why:
        yield Diagnostic(
            code="check/moved",
            message=f"`{entry.address}`: {why}, since its result was made",
            mark=evaluation.places.mark("evaluators"),
            address=entry.address,
            hint="evalops plan --refresh shows what would run again, and evalops apply --refresh runs it",
            severity=Severity.WARNING,
        )


# --- one entry ---


def job(wanted: Wanted, entry: Entry, provider: Provider) -> Iterator[Diagnostic]:
    """Whether the service has an entry's job, as what the spec asks for, with the rows that make its result.

    Rows are fetched anew. Raises EvalopsError where the service cannot be asked.
    """
    found = provider.job(entry.job or "")
    if found is None:
        yield evidence.untrue(entry, f"{entry.provider} has no job `{entry.job}`", wanted)
        return
    if found.status is not Status.COMPLETED:
        yield evidence.untrue(entry, f"{entry.provider} says of its job: {found.provider_status}", wanted)
        return
    request = provider.request(*wanted, entry.generation)
    service = cast(_Service, provider)
    if not service.answers(found, request):
        yield evidence.untrue(entry, f"its job `{entry.job}` was asked for something else than its spec says", wanted)
        return
    service.doubt(found.id)
    try:
        rows = _verdicts(provider.rows(found.id, request))
        summary, _ = jobs.grade(wanted, request.rows(), rows, usage=Usage(), most=0)
    except EvalopsError as error:
        if error.diagnostics[0].code.startswith("provider/"):
            raise
        yield evidence.untrue(entry, f"the rows of its job do not fit: {error.diagnostics[0].message}", wanted)
        return
    for what in evidence.differences(entry.summary or {}, summary, list(summary["metrics"])):
        yield evidence.untrue(entry, f"the rows of its job make another result: {what}", wanted)


def kept(wanted: Wanted, entry: Entry, provider: Provider, own: Mapping[str, Verdict]) -> Iterator[Diagnostic]:
    """Whether the results that a service keeps make an entry's result, with our `own` verdicts for all other rows.

    What cannot be proven is a warning. Raises EvalopsError where the service cannot be asked.
    """
    request = provider.request(*wanted, entry.generation)
    try:
        found = cast(_Keeper, provider).kept(entry.job or "", request)
        rows = list(_verdicts(found.rows)) if found else []
    except EvalopsError as error:
        if error.diagnostics[0].code.startswith("provider/"):
            raise
        yield evidence.untrue(entry, f"the rows of its job do not fit: {error.diagnostics[0].message}", wanted)
        return
    if found is None:
        yield evidence.untrue(entry, f"{entry.provider} has no job `{entry.job}`", wanted)
        return
    missing = {each.key for each in rows if each.status is VerdictStatus.ERROR}
    if missing <= own.keys():
        told = [own[each.key] if each.key in missing else each for each in rows]
        summary, _ = jobs.grade(wanted, request.rows(), told, usage=Usage(), most=0)
        decisive = evidence.decisive(wanted.evaluation) if missing else list(summary["metrics"])
        untrue = evidence.differences(entry.summary or {}, summary, decisive)
    else:
        untrue = _exceeded(entry.summary or {}, rows)
    yield from (evidence.untrue(entry, f"the rows of its job make another result: {what}", wanted) for what in untrue)
    yield from _unproven(wanted, entry, len(rows), len(missing), is_ours=found.is_ours)


def _exceeded(said: Mapping[str, Any], rows: Iterable[Verdict]) -> list[str]:
    """The first count that is greater in what a service keeps than in an entry, which has all rows."""
    scored = [each.value for each in rows if each.status is VerdictStatus.SCORED]
    counts = {"scored": (said.get("scored") or 0, len(scored))}
    counts |= {label: (count, scored.count(label)) for label, count in (said.get("label_counts") or {}).items()}
    found = ((name, told, known) for name, (told, known) in counts.items() if known > told)
    return [f"{told:,} rows are `{name}` there and {known:,} of what is kept" for name, told, known in found][:1]


def _unproven(wanted: Wanted, entry: Entry, rows: int, missing: int, *, is_ours: bool) -> Iterator[Diagnostic]:
    """What is believed of an entry though the service does not bear it out."""
    asked, hint = wanted.evaluation.patronus, None
    if missing:
        why = f"{entry.provider} keeps the results of {rows - missing:,} of {rows:,} rows: the rest cannot be proven"
        if asked is not None and not asked.can_look_up:
            hint = "`patronus: {capture: all}` keeps them, from the next run on"
    elif not is_ours:
        why = f"the job `{entry.job}` was not made for this spec: that it judged these very rows cannot be proven"
    else:
        return
    yield Diagnostic(
        code=UNPROVEN,
        message=f"`{entry.address}`: {why}",
        mark=wanted.evaluation.places.mark("name"),
        address=entry.address,
        hint=hint,
        severity=Severity.WARNING,
    )


def _verdicts(rows: Iterable[tuple[Verdict, Any]]) -> Iterator[Verdict]:
    return (verdict for verdict, _ in rows)
