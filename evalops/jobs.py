"""From a finished job to a lock entry: rows joined to their source, summary, gates and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from evalops import metrics, result
from evalops.dataset import Row
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import Identity
from evalops.lock import Entry
from evalops.plan import Wanted
from evalops.result import Graded, Usage, Verdict
from evalops.spec import Evaluation, Type

Rows = Callable[[], Iterator[tuple[str, Row]]]


def grade(
    wanted: Wanted,
    rows: Iterable[tuple[str, Row]],
    verdicts: Iterable[Verdict],
    *,
    usage: Usage | Mapping[str, Any],
    rungs: Mapping[str, int] | None = None,
    most: int,
) -> tuple[dict[str, Any], list[Verdict]]:
    """The summary as JSON, and the verdicts under the keys that their rows have today, none if more than `most`.

    `rows` and `verdicts` are both in the order of the dataset; they are joined by position, since a corrected
    gold value changes a row's key and not its verdict. Raises EvalopsError where they do not pair up.
    """
    evaluation = wanted.evaluation
    kept: list[Verdict] = []
    found: dict[str, int] = {}

    def graded() -> Iterator[Graded]:
        for position, (pair, verdict) in enumerate(zip_longest(rows, verdicts)):
            if pair is None or verdict is None:
                raise EvalopsError(_unpaired(evaluation, position))
            key, row = pair
            if verdict.rung:
                found[verdict.rung] = found.get(verdict.rung, 0) + 1
            if position <= most:
                kept.append(verdict._replace(key=key, feedback=None, rung=None, lengths=()))
            yield Graded(verdict, row.source.get(evaluation.gold) if evaluation.gold else None)

    summary = metrics.summarise(evaluation, graded())
    value = result.to_json(summary, usage, found if rungs is None else rungs)
    return value, kept if len(kept) <= most else []


def gates(evaluation: Evaluation, summary: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Every threshold of an evaluation, held against its summary."""
    return tuple(metrics.gate(threshold, summary) for threshold in evaluation.thresholds)


def finished(entry: Entry, wanted: Wanted, summary: dict[str, Any]) -> Entry:
    """The entry with this result in place of an earlier one."""
    summary = {"job": entry.job, **{key: value for key, value in summary.items() if key != "job"}}
    return replace(entry, summary=summary, gates=gates(wanted.evaluation, summary), grade=wanted.identity.grade)


def dataset_of(identity: Identity) -> dict[str, Any]:
    """What a lock entry says of the rows."""
    digests = identity.digests
    return {"rows": digests.rows, "digest": digests.dataset, "submitted": digests.submitted}


def headline(type_: Type, summary: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the value of the metric that a table shows first, None where there is no such number."""
    if not summary or "metrics" not in summary:
        return None
    for name in metrics.HEADLINES[type_]:
        metric = summary["metrics"].get(name)
        if metric and metric.get("value") is not None:
            return name, metric
    return None


def _unpaired(evaluation: Evaluation, position: int) -> Diagnostic:
    return Diagnostic(
        code="result/rows",
        message=f"the verdicts and the rows of `{evaluation.dataset.path}` do not pair up from row {position + 1} on",
        address=evaluation.address,
        hint="the dataset is not the one that was judged: restore it, or run the evaluation again",
    )
