"""A ranking inside one evaluation, whose dataset holds the answers of several candidates, told apart by a column."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple

from evalops import alike, rank, ranking, schema, standing
from evalops.alike import Entrant
from evalops.datasets.dataset import Row
from evalops.duel import STRENGTH, Game
from evalops.errors import Diagnostic, EvalopsError
from evalops.jobs import graded_row
from evalops.metrics import labels, summaries
from evalops.project import Project
from evalops.result import Graded, Metric, VerdictStatus
from evalops.spec import Evaluation, Type
from evalops.standing import Candidate, Points, Ranking

MOST = 50  # candidates; a column with more values names something else
APART = "no column says which rows of the candidates are the same item, so they are compared as separate samples"


class Judged(NamedTuple):
    """A verdict with its row, and the row's names in the columns that tell the candidates apart, "" for none."""

    row: Row
    names: tuple[str, ...]
    graded: Graded


def of(
    project: Project,
    selectors: Sequence[str],
    columns: Sequence[str],
    item: str | None = None,
    exclude: Sequence[str] = (),
) -> Ranking:
    """The values of a column as candidates; of two columns, as the players of each row's pair.

    `item` names the column that says which rows of different candidates are the same item; without it, one that does
    so for all rows is looked for. Raises EvalopsError where there is not one evaluation with its rows.
    """
    entrant = _only(ranking.entrants(project, selectors, exclude))
    evaluation = entrant.evaluation
    is_compare = evaluation.type is Type.COMPARE
    if len(columns) != 1 + is_compare:
        wanted = "two columns, as in --by model_a,model_b" if is_compare else "one column, as in --by model"
        raise _refused("rank/by", f"type `{evaluation.type}` is ranked by {wanted}", entrant)
    everything = _judged(project, entrant, columns, item)
    rows = [each for each in everything if all(each.names)]
    names = sorted({name for each in rows for name in each.names})
    if not 2 <= len(names) <= MOST:
        count = f"{len(names)} value{'s' * (len(names) != 1)}"
        why = f"more than the {MOST} that are ranked" if len(names) > MOST else "which leaves nothing to rank"
        hint = "--by takes the column that names who wrote a response"
        raise _refused("rank/by", f"`{','.join(columns)}` has {count}, {why}", entrant, hint)
    found = (
        _players(evaluation, rows, names, item) if is_compare else _groups(evaluation, rows, names, columns[0], item)
    )
    notes = [*found.warnings, *alike.kinship(entrant.judges, names)]
    if len(rows) < len(everything):
        notes.append(f"{len(everything) - len(rows)} rows without a name in `{','.join(columns)}` are left out")
    held, judge = ranking.dataset_of(entrant), alike.judge([entrant])
    return replace(found, dataset=held, judge=judge, by=tuple(columns), warnings=tuple(notes))


def _only(found: Sequence[Entrant]) -> Entrant:
    if len(found) != 1:
        names = ", ".join(f"`{each.address}`" for each in found[:3]) + (" …" if len(found) > 3 else "")
        hint = "name one of them: evalops rank ADDRESS --by COLUMN"
        raise _refused(
            "rank/by", f"--by ranks inside one evaluation, and {len(found)} are selected: {names}", None, hint
        )
    return found[0]


def _judged(project: Project, entrant: Entrant, columns: Sequence[str], item: str | None) -> list[Judged]:
    """The rows of the entrant with their verdicts."""
    if entrant.absence:
        raise _refused("rank/no-result", f"`{entrant.address}` has no result to rank: {entrant.absence}", entrant)
    verdicts = ranking.Results(project).verdicts(entrant)
    rows = ranking.rows_of(project, entrant)
    if verdicts is None or rows is None:
        gone = (
            "its verdicts file is not here" if verdicts is None else "the rows that were judged are not here any more"
        )
        hint = "evalops apply writes the file, if it is not larger than `verdicts.max_bytes` of evalops.yaml allows"
        message = f"`{entrant.address}` cannot be taken apart: {gone}"
        raise _refused("rank/no-rows", message, entrant, hint if verdicts is None else "evalops plan")
    found: list[Judged] = []
    for verdict, pair in zip_longest(verdicts, rows):
        if verdict is None or pair is None:
            message = f"the verdicts of `{entrant.address}` are not those of its rows"
            raise _refused("rank/no-rows", message, entrant, "evalops apply")
        row = pair[1]
        if not found:
            _require((*columns, *([item] if item else [])), row, entrant)
        names = tuple(_name(row.source.get(column)) for column in columns)
        found.append(Judged(row, names, graded_row(entrant.evaluation, verdict, row)))
    return found


def _require(columns: Iterable[str], row: Row, entrant: Entrant) -> None:
    for column in columns:
        if column not in row.source:
            hint = schema.nearest(column, row.source) or f"the first row has: {', '.join(row.source)}"
            raise _refused("rank/column", f"the dataset of `{entrant.address}` has no column `{column}`", entrant, hint)


def _name(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _refused(code: str, message: str, entrant: Entrant | None, hint: str | None = None) -> EvalopsError:
    return EvalopsError(Diagnostic(code=code, message=message, hint=hint, address=entrant.address if entrant else None))


# --- one response a row ---


def _groups(
    evaluation: Evaluation, rows: Sequence[Judged], names: Sequence[str], column: str, item: str | None
) -> Ranking:
    by_name: defaultdict[str, list[Judged]] = defaultdict(list)
    for each in rows:
        by_name[each.names[0]].append(each)
    found = {name: summaries.summarise(evaluation, (each.graded for each in by_name[name])).metrics for name in names}
    metric = evaluation.metric or summaries.headline(
        evaluation.type, lambda name: any(each[name].value is not None for each in found.values())
    )
    notes = []
    if item is None:
        item, note = _pairing(rows, column)
        notes = [note] if note else []
    candidates = [
        Candidate(
            name=name,
            metric=found[name].get(metric) or Metric.absent(f"there is no `{metric}`"),
            points=_points(evaluation, metric, by_name[name], item),
            rows=len(by_name[name]),
            no_verdict=sum(each.graded.verdict.status is not VerdictStatus.SCORED for each in by_name[name]),
        )
        for name in names
    ]
    blocks = {_unit(each, item): each.graded.cluster for each in rows if each.graded.cluster is not None}
    standings = rank.order(candidates, metric=metric, is_paired=item is not None, blocks=blocks)
    notes += rank.warnings(standings, candidates, blocks, is_paired=item is not None)
    notes += rank.unjudged(candidates, metric)
    return Ranking(metric=metric, standings=standings, item=item, is_paired=item is not None, warnings=tuple(notes))


def _unit(each: Judged, item: str | None) -> str:
    return str(each.row.position) if item is None else _name(each.row.source.get(item))


def _points(evaluation: Evaluation, metric: str, rows: Iterable[Judged], item: str | None) -> dict[str, Points] | None:
    if metric not in standing.MEANS:
        return None
    given = ((_unit(each, item), standing.points_of(evaluation, metric, each.graded)) for each in rows)
    return standing.summed((unit, each) for unit, each in given if each is not None) or None


def _pairing(rows: Sequence[Judged], by: str) -> tuple[str | None, str | None]:
    """The column whose every value stands once with each candidate, and what to say where it is not clear."""
    names = {each.names[0] for each in rows}
    found: dict[str, list[str]] = {}
    for column in rows[0].row.source:
        cells = [_name(each.row.source.get(column)) for each in rows]
        pairs = {(cell, each.names[0]) for cell, each in zip(cells, rows, strict=True)}
        if column != by and len(pairs) == len(rows) == len(set(cells)) * len(names):
            found[column] = cells
    if not found:
        return None, f"{APART}; --item COLUMN names one"
    # Columns that pair the rows in the same way are as good as one.
    columns = sorted(found)
    first = found[columns[0]]
    for column in columns[1:]:
        if len(set(zip(first, found[column], strict=True))) != len(set(first)):
            return None, f"`{columns[0]}` and `{column}` pair the rows differently: --item COLUMN says which to go by"
    return next(column for column in rows[0].row.source if column in found), None


# --- two responses a row ---


def _players(evaluation: Evaluation, rows: Sequence[Judged], names: Sequence[str], item: str | None) -> Ranking:
    games = [
        Game(_unit(each, item), each.names[0], each.names[1], labels.POINTS[str(each.graded.verdict.value)])
        for each in rows
        if each.graded.verdict.status is VerdictStatus.SCORED
    ]
    alone = sum(each.names[0] == each.names[1] for each in rows)
    notes = [f"{alone} rows pair a candidate with itself and say nothing"] if alone else []
    return replace(ranking.duels(games, names, evaluation.metric or STRENGTH, notes), item=item)
