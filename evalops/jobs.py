"""From a finished job to a lock entry: rows joined to their source, summary, gates and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import zip_longest
from typing import Any

from evalops import result, voting
from evalops.datasets.dataset import Row, shown
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import Identity
from evalops.lock import Entry
from evalops.metrics import gate, summaries
from evalops.metrics.breakdown import NO_GROUP
from evalops.metrics.labels import text_of
from evalops.plan import Wanted
from evalops.result import Graded, Usage, Verdict, VerdictStatus
from evalops.spec import Evaluation, Type
from evalops.verdicts import room

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
    size = 0

    def graded() -> Iterator[Graded]:
        nonlocal size
        for position, (pair, verdict) in enumerate(zip_longest(rows, verdicts)):
            if pair is None or verdict is None:
                raise EvalopsError(_unpaired(evaluation, position))
            key, row = pair
            verdict = voting.combined(evaluation, verdict)
            if verdict.rung:
                found[verdict.rung] = found.get(verdict.rung, 0) + 1
            verdict = verdict._replace(key=key)
            size += room(verdict)
            if size <= most:
                kept.append(verdict._replace(feedback=None, rung=None, lengths=()))
            yield graded_row(evaluation, verdict, row)

    summary = summaries.summarise(evaluation, graded())
    value = result.to_json(summary, usage, found if rungs is None else rungs)
    return value, kept if size <= most else []


def graded_row(evaluation: Evaluation, verdict: Verdict, row: Row) -> Graded:
    """A verdict with what grading reads of its row."""
    source = row.source
    if not verdict.lengths and verdict.status is VerdictStatus.SCORED:
        verdict = verdict._replace(lengths=_lengths(evaluation, source))
    return Graded(
        verdict,
        source.get(evaluation.gold) if evaluation.gold else None,
        tuple(text_of(source.get(column)) or NO_GROUP for column in evaluation.group_by),
        _cluster(source.get(evaluation.cluster), row) if evaluation.cluster else None,
    )


def _lengths(evaluation: Evaluation, source: Mapping[str, Any]) -> tuple[int, ...]:
    """The lengths of responses that stand in the dataset."""
    columns = evaluation.response_columns
    if not columns or len(columns) != len(evaluation.candidates):
        return ()
    found = [source.get(column) for column in columns]
    return tuple(len(str(value)) for value in found) if None not in found else ()


def _cluster(value: Any, row: Row) -> str:
    """The name of a row's cluster; a row without one is a cluster by itself, named as no cell is."""
    text = text_of(value)
    return f"\0{row.position}" if text is None else f"={text}"


def gates(evaluation: Evaluation, summary: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    """Every threshold of an evaluation, held against its summary."""
    return tuple(gate.check(threshold, summary) for threshold in evaluation.thresholds)


def suffices(entry: Entry, wanted: Wanted) -> bool:
    """Whether an entry's summary answers the thresholds and the headline of today, without its rows."""
    if entry.summary is None or entry.grade != wanted.identity.grade:
        return False
    return gate.suffices(wanted.evaluation, entry.summary)


def finished(entry: Entry, wanted: Wanted, summary: dict[str, Any]) -> Entry:
    """The entry with this result in place of an earlier one."""
    headline = wanted.evaluation.metric
    rest = {key: value for key, value in summary.items() if key not in ("job", "headline")}
    summary = {"job": entry.job, **({"headline": headline} if headline else {}), **rest}
    return replace(entry, summary=summary, gates=gates(wanted.evaluation, summary), grade=wanted.identity.grade)


def dataset_of(identity: Identity) -> dict[str, Any]:
    """What a lock entry says of the rows."""
    digests = identity.digests
    return {"rows": digests.rows, "digest": digests.dataset, "submitted": digests.submitted}


def headline(type_: Type, summary: Mapping[str, Any] | None) -> tuple[str, Mapping[str, Any]] | None:
    """The name and the value of the metric that a table shows first, None where there is no such number."""
    if not summary or "metrics" not in summary:
        return None
    chosen = summary.get("headline")
    for name in (chosen,) if chosen else summaries.HEADLINES[type_]:
        metric = summary["metrics"].get(name)
        if metric and metric.get("value") is not None:
            return name, metric
    return None


def _unpaired(evaluation: Evaluation, position: int) -> Diagnostic:
    return Diagnostic(
        code="result/rows",
        message=f"the verdicts and the rows of `{shown(evaluation.dataset)}` do not pair up from row {position + 1} on",
        address=evaluation.address,
        hint="the dataset is not the one that was judged: restore it, or run the evaluation again",
    )
