"""From lockfiles and verdicts files to a ranking of evaluations.

Nothing is asked of a provider: no network, no key. The dataset is read only where the metric needs it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from evalops import alike, catalog, duel, rank, sources, standing, verdicts
from evalops.alike import Entrant
from evalops.datasets.dataset import Row
from evalops.duel import Game
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical, sha256
from evalops.jobs import graded_row
from evalops.lock import beside
from evalops.metrics import summaries
from evalops.metrics.labels import POINTS
from evalops.project import Project
from evalops.result import SMALL, Graded, Metric, Verdict, VerdictStatus
from evalops.spec import Evaluation, Type
from evalops.standing import Candidate, Points, Ranking

MOST = 64 << 20  # bytes of a verdicts file


def entrants(project: Project, selectors: Sequence[str], exclude: Sequence[str] = ()) -> list[Entrant]:
    """The selected evaluations by address. Raises EvalopsError where nothing matches or a lockfile is broken."""
    evaluations, problems = catalog.evaluations_of(project, project.specs())
    try:
        chosen = catalog.choose(evaluations, selectors, exclude)
    except EvalopsError as error:
        raise EvalopsError(*problems, *error.diagnostics) from None
    if not chosen:
        nothing = Diagnostic(code="rank/nothing", message="there is no evaluation to rank", hint="evalops plan")
        raise EvalopsError(*(problems or [nothing]))
    locks, broken = project.locks()
    paths = {beside(each.spec) for each in chosen}
    broken = [each for each in broken if each.mark and each.mark.path in paths]
    if broken:
        raise EvalopsError(*broken)
    entries = {address: (path, each) for path, lock in locks.items() for address, each in lock.entries.items()}
    return [
        Entrant(each, *entries.get(each.address, (beside(each.spec), None)))
        for each in sorted(chosen, key=lambda each: each.address)
    ]


def of(project: Project, selectors: Sequence[str] = (), exclude: Sequence[str] = ()) -> Ranking:
    """The selected evaluations in order; where they compare pairs, the players of the pairs.

    Raises EvalopsError where they are not over the same rows, or not judged alike.
    """
    found = entrants(project, selectors, exclude)
    if len(found) < 2 and found[0].evaluation.type is not Type.COMPARE:
        raise EvalopsError(
            Diagnostic(
                code="rank/alone",
                message=f"`{found[0].address}` alone has nothing to be ranked against",
                hint="select several, or name the column that tells the candidates of its dataset apart: --by COLUMN",
            )
        )
    alike.check(project, found)
    shared = next((each for each in found if each.absence is None), found[0])
    is_compare = shared.evaluation.type is Type.COMPARE
    ranking = (_duels if is_compare else _candidates)(Results(project), found, shared)
    present = [each for each in found if each.absence is None]
    return replace(
        ranking,
        dataset=dataset_of(shared),
        judge=alike.judge(present),
        warnings=(*ranking.warnings, *alike.warnings(present)),
    )


def dataset_of(entrant: Entrant) -> dict[str, Any]:
    """What a ranking says of its rows."""
    held = entrant.entry.dataset if entrant.entry else {}
    path = entrant.evaluation.dataset.path or None
    return {"path": path, "rows": held.get("rows"), "digest": held.get("digest")}


def metric_of(summary: Mapping[str, Any] | None, name: str) -> Metric:
    """A metric of a summary's JSON."""
    found = ((summary or {}).get("metrics") or {}).get(name) or {"value": None, "reason": f"its result has no `{name}`"}
    return Metric(**{key: found.get(key) for key in ("value", "low", "high", "n", "reason")})


class Results:
    """The verdicts of a project's results, each file read once."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self._sections: dict[str, dict[str, verdicts.Section]] = {}

    def verdicts(self, entrant: Entrant) -> list[Verdict] | None:
        """An entrant's verdicts in the order of the dataset, None where no file has them."""
        path = verdicts.beside(entrant.path)
        if path not in self._sections:
            try:
                self._sections[path] = verdicts.parse(self.project.read(path, MOST), path)
            except EvalopsError as error:
                if error.diagnostics[0].code != "file/missing":
                    raise
                self._sections[path] = {}
        section = self._sections[path].get(entrant.address)
        if section is None or entrant.entry is None or section.job != entrant.entry.job:
            return None
        return verdicts.checked(section, entrant.evaluation, path)


def rows_of(project: Project, entrant: Entrant) -> Iterator[tuple[str, Row]] | None:
    """The rows that were judged, None where they are not here any more."""
    for evaluation, identity in catalog.read(project, [entrant.evaluation.spec]).wanted:
        held = entrant.entry.dataset if entrant.entry else {}
        if evaluation.address == entrant.address and identity.digests.submitted == held.get("submitted"):
            return sources.rows(project, evaluation)
    return None


# --- candidates with a value each ---


def _candidates(results: Results, found: Sequence[Entrant], first: Entrant) -> Ranking:
    name = first.evaluation.metric or summaries.headline(
        first.evaluation.type, lambda name: any(metric_of(each.summary, name).value is not None for each in found)
    )
    cells, notes = _cells(results.project, found, first, name)
    candidates = []
    for each in found:
        metric = Metric.absent(each.absence) if each.absence else metric_of(each.summary, name)
        points = {} if metric.value is None else _points(results.verdicts(each), each.evaluation, metric, name, cells)
        if isinstance(points, str):
            notes.append(f"`{each.address}` is ranked by its value alone: {points}")
            points = {}
        title = name_of(each, "model_to_evaluate") or each.address
        rows, missing = _no_verdict(each.summary)
        candidates.append(
            Candidate(
                name=title, address=each.address, metric=metric, points=points or None, rows=rows, no_verdict=missing
            )
        )
    blocks = {str(place): cell.cluster for place, cell in enumerate(cells) if cell.cluster is not None}
    standings = rank.order(candidates, metric=name, blocks=blocks)
    notes += [*rank.warnings(standings, candidates, blocks), *rank.unjudged(candidates, name)]
    return Ranking(metric=name, standings=standings, warnings=tuple(notes))


def _no_verdict(summary: Mapping[str, Any] | None) -> tuple[int | None, int | None]:
    """The rows of a summary's JSON, and how many of them are invalid or errors."""
    counts = [(summary or {}).get(key) for key in ("rows", "invalid", "errors")]
    rows, invalid, errors = (each if isinstance(each, int) else None for each in counts)
    return rows, None if invalid is None or errors is None else invalid + errors


def name_of(entrant: Entrant, key: str) -> str | None:
    """The model or column that the spec has under `key`."""
    fields = entrant.player(key)
    found = fields.get(key, fields.get(f"{key}.model"))
    return None if found is None else str(found)


def _cells(project: Project, found: Sequence[Entrant], first: Entrant, name: str) -> tuple[list[Graded], list[str]]:
    """What grading reads of each row: true answer and cluster, where the ranking needs them and they are here."""
    clustered = first.evaluation.cluster is not None and len({each.evaluation.cluster for each in found}) == 1
    if not standing.needs_gold(first.evaluation, name) and not clustered:
        return [], []
    rows = rows_of(project, first)
    if rows is None:
        return [], ["the rows that were judged are not here" + (", so clusters are not counted" if clustered else "")]
    evaluation = first.evaluation if clustered else replace(first.evaluation, cluster=None)
    return [graded_row(evaluation, Verdict(key, VerdictStatus.SCORED), row) for key, row in rows], []


def _points(
    found: Sequence[Verdict] | None, evaluation: Evaluation, metric: Metric, name: str, cells: Sequence[Graded]
) -> dict[str, Points] | str:
    """What each row gives, by its place in the dataset, or why that is not known."""
    if name not in standing.MEANS:
        return f"`{name}` is no mean over rows, so rows say nothing of its rank"
    if found is None:
        return "its verdicts file is not here"
    if standing.needs_gold(evaluation, name) and len(cells) != len(found):
        return "the rows with the true answers are not here"
    golds = [cell.gold for cell in cells] if len(cells) == len(found) else [None] * len(found)
    given = (
        (str(place), standing.points_of(evaluation, name, Graded(verdict, gold)))
        for place, (verdict, gold) in enumerate(zip(found, golds, strict=True))
    )
    points = {place: each for place, each in given if each is not None}
    value = sum(each.total for each in points.values()) / max(1, len(points)) * standing.scale_of(name)
    if not points or not math.isclose(value, metric.value or 0.0, rel_tol=1e-6, abs_tol=1e-9):
        return "its result is not graded as its spec says today, which `evalops apply` does"
    return points


# --- players of pairs ---


def _duels(results: Results, found: Sequence[Entrant], first: Entrant) -> Ranking:
    metric = first.evaluation.metric or duel.STRENGTH
    names = _names(found)
    games: list[Game] = []
    players: list[str] = []
    notes = []
    for each in found:
        pair = [names.get(_identity(each, key), "") for key in ("model_a", "model_b")]
        players += [name for name in pair if name]
        verdicts_ = None if each.absence else results.verdicts(each)
        if verdicts_ is None:
            notes.append(f"`{each.address}` is left out: {each.absence or 'its verdicts are not here'}")
            continue
        games += (
            Game(str(place), pair[0], pair[1], POINTS[str(verdict.value)])
            for place, verdict in enumerate(verdicts_)
            if verdict.status is VerdictStatus.SCORED
        )
    return duels(games, players, metric, notes)


def duels(games: Sequence[Game], players: Iterable[str], metric: str, notes: Iterable[str] = ()) -> Ranking:
    """A ranking of players by their games. Raises EvalopsError for a metric that is none of games."""
    if metric not in duel.METRICS:
        raise EvalopsError(
            Diagnostic(
                code="rank/metric",
                message=f"pairs are not ranked by `{metric}`",
                hint=f"`metric` may be {', '.join(f'`{name}`' for name in duel.METRICS)}",
            )
        )
    found = duel.order(games, players, metric=metric)
    units = len({game.unit for game in games})
    few = [rank.few(units)] if units < SMALL else []
    return Ranking(metric=metric, standings=found.standings, warnings=(*notes, *found.warnings, *few))


def _identity(entrant: Entrant, key: str) -> str:
    """All run fields of a player, whichever side it is on."""
    fields = entrant.player(key)
    return sha256(canonical({name.removeprefix(key): value for name, value in fields.items()})) if fields else ""


def _names(found: Sequence[Entrant]) -> dict[str, str]:
    """A name for each player; one model asked in two ways is two players, told apart by a digest."""
    titles = {_identity(each, key): name_of(each, key) or "" for each in found for key in ("model_a", "model_b")}
    shared = Counter(titles.values())
    return {
        digest: title if shared[title] == 1 else f"{title} ({digest[:6]})" for digest, title in titles.items() if digest
    }
