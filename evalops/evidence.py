"""What lies behind a lock entry, held against what the entry says: its verdicts file, or the job at the service."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, cast

from evalops import gate, jobs, metrics, sources, verdicts
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.lock import Entry, Status
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers.base import Job, Provider, Request
from evalops.result import Usage, Verdict
from evalops.verdicts import Section

RECOUNTED = ("together",)  # the providers whose jobs can be asked for again
_COUNTS = ("rows", "scored", "invalid", "errors", "invalid_reasons", "error_reasons")
_VALUES = ("label_counts", "score_counts", "choice_counts", "ties_by_inconsistency")
# What hangs on the length of responses that a model wrote, which no verdicts file has.
_NOT_KEPT = frozenset({"length_correlation", "longer_wins"})


class _Service(Protocol):
    def answers(self, job: Job, request: Request) -> bool: ...

    def doubt(self, job: str) -> None: ...


def gates(wanted: Wanted, entry: Entry) -> Iterator[Diagnostic]:
    """Whether an entry's gates are what its own summary makes of the thresholds."""
    found = jobs.gates(wanted.evaluation, entry.summary or {})
    said = {(each["metric"], each.get("by")): each for each in entry.gates}
    for each in found:
        told = said.get((each["metric"], each.get("by")), {})
        if each["verdict"] != told.get("verdict") or not _is_close(each["value"], told.get("value")):
            yield _untrue(entry, f"its gate on `{each['metric']}` is not what its summary says", wanted)


def file(project: Project, wanted: Wanted, entry: Entry, section: Section, path: str) -> Iterator[Diagnostic]:
    """Whether a verdicts file is of an entry's result and adds up to it."""
    job = (entry.summary or {}).get("job")
    if section.job != job:
        yield _wrong(path, entry, f"holds verdicts of the job `{section.job}`, and the result is of `{job}`")
        return
    try:
        found = verdicts.checked(section, wanted.evaluation, path)
        summary, _ = jobs.grade(wanted, sources.rows(project, wanted.evaluation), found, usage=Usage(), most=0)
    except EvalopsError as error:
        yield from error.diagnostics
        return
    decisive = [threshold.metric for threshold in wanted.evaluation.thresholds]
    decisive += [wanted.evaluation.metric or "", *metrics.HEADLINES[wanted.evaluation.type]]
    for what in _differences(entry.summary or {}, summary, [each for each in decisive if each not in _NOT_KEPT]):
        yield _wrong(path, entry, f"adds up to another result than its lock entry has: {what}")


def job(wanted: Wanted, entry: Entry, provider: Provider) -> Iterator[Diagnostic]:
    """Whether the service has an entry's job, as what the spec asks for, with the rows that make its result.

    Rows are fetched anew. Raises EvalopsError where the service cannot be asked.
    """
    found = provider.job(entry.job or "")
    if found is None:
        yield _untrue(entry, f"{entry.provider} has no job `{entry.job}`", wanted)
        return
    if found.status is not Status.COMPLETED:
        yield _untrue(entry, f"{entry.provider} says of its job: {found.provider_status}", wanted)
        return
    request = provider.request(*wanted, entry.generation)
    service = cast(_Service, provider)
    if not service.answers(found, request):
        yield _untrue(entry, f"its job `{entry.job}` was asked for something else than its spec says", wanted)
        return
    service.doubt(found.id)
    try:
        rows = _verdicts(provider.rows(found.id, request))
        summary, _ = jobs.grade(wanted, request.rows(), rows, usage=Usage(), most=0)
    except EvalopsError as error:
        if error.diagnostics[0].code.startswith("provider/"):
            raise
        yield _untrue(entry, f"the rows of its job do not fit: {error.diagnostics[0].message}", wanted)
        return
    for what in _differences(entry.summary or {}, summary, list(summary["metrics"])):
        yield _untrue(entry, f"the rows of its job make another result: {what}", wanted)


def _verdicts(rows: Iterable[tuple[Verdict, Any]]) -> Iterator[Verdict]:
    return (verdict for verdict, _ in rows)


def _differences(said: Mapping[str, Any], found: Mapping[str, Any], decisive: Sequence[str]) -> list[str]:
    """The first of what two summaries do not agree on: counts, and the metrics that decide."""
    for key in (*_COUNTS, *_VALUES):
        if said.get(key) != found.get(key):
            return [f"`{key}` is {_said(said.get(key))} there and {_said(found.get(key))} by its verdicts"]
    for name in dict.fromkeys(decisive):
        told, counted = (gate.find(each, name).get("value") for each in (said, found))
        if not _is_close(told, counted):
            return [f"`{name}` is {_said(told)} there and {_said(counted)} by its verdicts"]
    return []


def _is_close(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-6, abs_tol=1e-9)


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{count} {name}" for name, count in list(value.items())[:5]) or "nothing"
    return "not there" if value is None else f"{value:g}"


def _wrong(path: str, entry: Entry, message: str) -> Diagnostic:
    return Diagnostic(
        code="check/verdicts",
        message=f"`{path}` {message}",
        mark=Mark(path),
        address=entry.address,
        hint="restore both files from one commit, or run it again: evalops apply --rerun ADDRESS --reason TEXT",
    )


def _untrue(entry: Entry, message: str, wanted: Wanted) -> Diagnostic:
    return Diagnostic(
        code="check/untrue",
        message=f"the lock entry of `{entry.address}` does not tell the truth: {message}",
        mark=wanted.evaluation.places.mark("name"),
        address=entry.address,
        hint="restore it from git; what the provider has can be seen with `evalops status --remote`",
    )
