"""Lock entries as an apply leaves them, without an apply: every row gets a verdict by its number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from evalops import catalog, jobs, lock, semantics
from evalops.datasets.dataset import keys, read, uses
from evalops.lock import Entry, Lock, Status
from evalops.plan import Wanted
from evalops.project import Project
from evalops.result import Usage, Value, Verdict, VerdictStatus
from evalops.spec import Type


def entry(project: Project, wanted: Wanted, **changes: Any) -> Entry:
    """The entry of a finished job, with fields changed."""
    evaluation, identity = wanted
    use = uses(evaluation, semantics.variables(evaluation))
    rows = list(keys(read(lambda: project.open(use.path), use.path, use.columns), use))
    verdicts = [_verdict(wanted, number, key) for number, (key, _) in enumerate(rows)]
    summary, _ = jobs.grade(
        wanted, rows, verdicts, usage=Usage(calls=len(rows)), rungs={"json_schema": len(rows)}, most=0
    )
    made = Entry(
        address=evaluation.address,
        fingerprint=identity.fingerprint,
        provider=evaluation.provider,
        job=f"local-{identity.fingerprint[:16]}-1",
        status=Status.COMPLETED,
        created_at="2026-01-31T08:00:00Z",
        finished_at="2026-01-31T08:01:07Z",
        dataset=jobs.dataset_of(identity),
        inputs=identity.inputs,
        grade=identity.grade,
    )
    return replace(jobs.finished(made, wanted, summary), **changes)


def _verdict(wanted: Wanted, number: int, key: str) -> Verdict:
    values: dict[Type, tuple[Value, ...]] = {
        Type.CLASSIFY: wanted.evaluation.labels,
        Type.SCORE: (wanted.evaluation.min_score, wanted.evaluation.max_score),
        Type.COMPARE: ("A", "B", "Tie"),
        Type.CUSTOM: (0.0, 1.0),
    }
    choices = values[wanted.evaluation.type]
    return Verdict(key, VerdictStatus.SCORED, choices[number % len(choices)])


def of(project: Project, changes: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, Lock]:
    """The locks of a project whose evaluations have all run; `changes` are fields by address."""
    found = catalog.read(project)
    assert not any(each.is_error for each in found.diagnostics), found.diagnostics
    made: dict[str, Lock] = {}
    for wanted in found.wanted:
        path = lock.beside(wanted.evaluation.spec)
        each = entry(project, wanted, **(changes or {}).get(wanted.evaluation.address, {}))
        made[path] = made.get(path, Lock(path=path)).put(each)
    return made


def write(project: Project, locks: Iterable[Lock]) -> None:
    """Writes lockfiles, and keeps the templates as an apply does."""
    for each in locks:
        project.write_lock(each)
    for wanted in catalog.read(project).wanted:
        for text in wanted.evaluation.texts:
            project.keep_text(text.source)
