"""What lies behind a lock entry on this machine, held against what the entry says: its gates and its verdicts file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalops import jobs, sources, verdicts
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.lock import Entry
from evalops.metrics import gate, summaries
from evalops.plan import Wanted
from evalops.project import Project
from evalops.result import Usage
from evalops.spec import Evaluation
from evalops.verdicts import Section

_COUNTS = ("rows", "scored", "invalid", "errors", "invalid_reasons", "error_reasons")
_VALUES = ("label_counts", "score_counts", "choice_counts", "ties_by_inconsistency")
# What hangs on the length of responses that a model wrote, which no verdicts file has.
_NOT_KEPT = frozenset({"length_correlation", "longer_wins"})


def gates(wanted: Wanted, entry: Entry) -> Iterator[Diagnostic]:
    """Whether an entry's gates are what its own summary makes of the thresholds."""
    found = jobs.gates(wanted.evaluation, entry.summary or {})
    said = {(each["metric"], each.get("by")): each for each in entry.gates}
    for each in found:
        told = said.get((each["metric"], each.get("by")), {})
        if each["verdict"] != told.get("verdict") or not _is_close(each["value"], told.get("value")):
            yield untrue(entry, f"its gate on `{each['metric']}` is not what its summary says", wanted)


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
    for what in differences(entry.summary or {}, summary, decisive(wanted.evaluation)):
        yield _wrong(path, entry, f"adds up to another result than its lock entry has: {what}")


def decisive(evaluation: Evaluation) -> list[str]:
    """The metrics that a verdicts file can be held to."""
    found = [threshold.metric for threshold in evaluation.thresholds]
    found += [evaluation.metric or "", *summaries.HEADLINES[evaluation.type]]
    return [each for each in found if each not in _NOT_KEPT]


def differences(said: Mapping[str, Any], found: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    """The first of what two summaries do not agree on: counts, and these metrics."""
    for key in (*_COUNTS, *_VALUES):
        if said.get(key) != found.get(key):
            return [f"`{key}` is {_said(said.get(key))} there and {_said(found.get(key))} by its verdicts"]
    for name in dict.fromkeys(metrics):
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


def untrue(entry: Entry, message: str, wanted: Wanted) -> Diagnostic:
    """A lock entry that says what is not so."""
    has_jobs = entry.provider == "together"
    return Diagnostic(
        code="check/untrue",
        message=f"the lock entry of `{entry.address}` does not tell the truth: {message}",
        mark=wanted.evaluation.places.mark("name"),
        address=entry.address,
        hint="restore it from git" + (f"; what {entry.provider} has: evalops status --remote" if has_jobs else ""),
    )
