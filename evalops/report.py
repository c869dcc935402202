"""A whole project as one value of plain JSON: results, gates, how they moved, their history, and all rows.

Offline: specs, lockfiles, verdicts files, datasets, git objects, and rows that are on this machine. What is not there
is absent with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from evalops import __version__, catalog, history, jobs, plan, reviewing, sheets, trend, verdicts
from evalops.datasets.dataset import shown
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.lock import Entry, Lock, Status, beside
from evalops.plan import Wanted
from evalops.project import Project
from evalops.result import Verdict
from evalops.review import Kind, Move
from evalops.reviewing import Reviewed
from evalops.sheets import Result
from evalops.spec import Column, Evaluation, Type
from evalops.verdicts import Section

FORMAT = 1
Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is to have. `base` is a revision as in `diff`; selectors choose evaluations as in `plan`.

    Without `with_rows` there are no rows but the first that flipped since the base, with their texts.
    """

    base: str | None = None
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    with_rows: bool = True


@dataclass(slots=True)
class _Scene:
    """What the project has, read once."""

    project: Project
    locks: Mapping[str, Lock]
    evaluations: Mapping[str, Evaluation]
    wanted: Mapping[str, Wanted]
    reviewed: Reviewed | None
    points: Mapping[tuple[str, str], Sequence[trend.Point]]
    moves: Mapping[str, Move] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    files: dict[str, dict[str, Section]] = field(default_factory=dict)
    absent: Json = field(default_factory=dict)


def of(project: Project, asked: Asked, now: datetime) -> tuple[Json, list[Diagnostic]]:
    """The value, and what is wrong with files or could not be had.

    Raises EvalopsError for broken settings, a selector that matches nothing, and a base that was named and is not
    there.
    """
    scene = _scene(project, asked)
    entries = [(path, entry) for path, lock in sorted(scene.locks.items()) for entry in lock.entries.values()]
    chosen = _chosen(scene, asked, [entry for _, entry in entries])
    bare = sheets.keyless(project)
    found = [_evaluation(scene, path, entry, bare, asked) for path, entry in entries if entry.address in chosen]
    found.sort(key=lambda each: each["address"])
    review = scene.reviewed.to_json() if scene.reviewed else None
    return {
        "format_version": FORMAT,
        "version": __version__,
        "project": project.root.name,
        "at": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "head": review["head"] if review else None,
        "base": review["base"] if review else None,
        "totals": _totals(found),
        "review": _review(review, chosen),
        "pending": _pending(scene, asked, chosen),
        "absent": scene.absent,
        "evaluations": found,
    }, scene.problems


# --- what there is ---


def _scene(project: Project, asked: Asked) -> _Scene:
    found = catalog.read(project)
    locks, problems = project.locks()
    scene = _Scene(
        project=project,
        locks=locks,
        evaluations={each.address: each for each in found.evaluations},
        wanted={each.evaluation.address: each for each in found.wanted},
        reviewed=None,
        points=trend.of(project.root),
        problems=[*found.diagnostics, *problems],
    )
    try:
        scene.reviewed = reviewing.of(project, asked.base, with_rows=not asked.with_rows)
        scene.moves = {each.address: each for each in scene.reviewed.review.moves if each.kind is not Kind.GONE}
        scene.problems += scene.reviewed.diagnostics
    except EvalopsError as error:
        if asked.base is not None:
            raise
        scene.absent["base"] = error.diagnostics[0].message
    if not scene.points:
        scene.absent["trend"] = "git has no earlier version of a lockfile"
    elif trend.is_shallow(project.root):
        scene.absent["older"] = "the clone is shallow, so older results are not here: git fetch --unshallow"
    scene.problems = list(dict.fromkeys(scene.problems))
    return scene


def _chosen(scene: _Scene, asked: Asked, entries: Iterable[Entry]) -> set[str]:
    """The addresses that are meant: of specs, and of lock entries whose spec is gone or cannot be read."""
    gone = [entry.address for entry in entries if entry.address not in scene.evaluations]
    include = [each for each in asked.include if not any(_is_meant(address, each) for address in gone)]
    chosen: set[str] = set()
    if include or not asked.include:
        chosen = {each.address for each in catalog.choose(list(scene.evaluations.values()), include, asked.exclude)}
    for address in gone:
        if not asked.include or any(_is_meant(address, each) for each in asked.include):
            chosen |= set() if any(_is_meant(address, each) for each in asked.exclude) else {address}
    return chosen


def _is_meant(address: str, selector: str) -> bool:
    return address == selector or fnmatchcase(address, selector.replace("[", "[[]"))


# --- one evaluation ---


def _evaluation(scene: _Scene, path: str, entry: Entry, bare: Project, asked: Asked) -> Json:
    evaluation = scene.evaluations.get(entry.address)
    if evaluation is not None and beside(evaluation.spec) != path:
        evaluation = None  # the entry of a spec that has moved
    headline = jobs.headline(Type(entry.inputs["type"]), entry.summary)
    move = scene.moves.get(entry.address)
    return {
        "address": entry.address,
        "lock": path,
        "spec": evaluation.spec if evaluation else None,
        "type": entry.inputs["type"],
        "provider": entry.provider,
        "job": entry.job,
        "status": entry.status.value,
        "message": entry.message,
        "generation": entry.generation,
        "created_at": entry.created_at,
        "finished_at": entry.finished_at,
        "fingerprint": entry.fingerprint,
        "dataset": dict(entry.dataset),
        "inputs": dict(entry.inputs),
        "asked": _asked(evaluation) if evaluation else None,
        "summary": dict(entry.summary) if entry.summary else None,
        "headline": {"metric": headline[0], **headline[1]} if headline else None,
        "gates": [dict(gate) for gate in entry.gates],
        "move": move.to_json() if move and move.kind is not Kind.SAME else None,
        "trend": _trend(scene.points.get((path, entry.address), ()), entry),
        "rows": sheets.of(bare, _result(scene, path, entry, evaluation, move)) if asked.with_rows else None,
    }


def _asked(evaluation: Evaluation) -> Json:
    """What the spec says beside what the lockfile has of it."""
    return {
        "name": evaluation.name,
        "description": evaluation.description,
        "tags": list(evaluation.tags),
        "dataset": shown(evaluation.dataset),
        "judges": _judges(evaluation),
        "candidates": [str(each) if isinstance(each, Column) else each.model for each in evaluation.candidates],
        "responses": list(evaluation.response_columns),
        "labels": list(evaluation.labels),
        "pass_labels": list(evaluation.pass_labels),
        "pass_threshold": evaluation.pass_threshold,
        "min_score": evaluation.min_score,
        "max_score": evaluation.max_score,
        "gold": evaluation.gold,
        "group_by": list(evaluation.group_by),
        "templates": {".".join(map(str, each.route)): each.source for each in evaluation.texts},
        "verdict_columns": [judge.column for judge in evaluation.judges if judge.column],
    }


def _judges(evaluation: Evaluation) -> list[str]:
    if evaluation.evaluator:
        return [evaluation.evaluator.function or evaluation.evaluator.kind]
    if evaluation.patronus:
        return [each.name for each in evaluation.judge.criteria]
    return [judge.model.model if judge.model else f"column {judge.column}" for judge in evaluation.judges]


def _trend(points: Sequence[trend.Point], entry: Entry) -> list[Json]:
    """The committed results, and today's where it is another one."""
    now = trend.point(entry) if entry.status is Status.COMPLETED else None
    if now and not (points and (points[-1].metric, points[-1].value) == (now.metric, now.value)):
        points = [*(each for each in points if each.metric == now.metric), now]
    return [each._asdict() for each in points]


def _result(scene: _Scene, path: str, entry: Entry, evaluation: Evaluation | None, move: Move | None) -> Result:
    wanted = scene.wanted.get(entry.address)
    if wanted and (evaluation is None or wanted.identity.digests.submitted != entry.dataset["submitted"]):
        wanted = None
    file = verdicts.beside(path)
    section = _sections(scene, file).get(entry.address)
    return Result(
        entry=entry,
        evaluation=evaluation,
        wanted=wanted,
        section=section if section and section.job == entry.result_job else None,
        path=file,
        earlier=_before(scene, move),
    )


def _sections(scene: _Scene, path: str) -> Mapping[str, Section]:
    """A verdicts file, read once."""
    if path not in scene.files:
        try:
            scene.files[path] = verdicts.parse(scene.project.read(path, history.MAX_VERDICTS), path)
        except EvalopsError as error:
            scene.files[path] = {}
            worth = (each for each in error.diagnostics if each.code != "file/missing")
            scene.problems += (replace(each, severity=Severity.WARNING) for each in worth)
    return scene.files[path]


def _before(scene: _Scene, move: Move | None) -> Mapping[str, Verdict] | None:
    """The verdicts of the base by row, where another job made them."""
    if scene.reviewed is None or move is None or move.kind is not Kind.MOVED or move.earlier is None:
        return None
    found = scene.reviewed.earlier(move.earlier)
    return None if found is None else {each.key: each for each in found}


# --- the whole ---


def _totals(found: Sequence[Json]) -> Json:
    """What all evaluations are together; a sum is None where a part of it is not known."""
    summaries = [each["summary"] for each in found if each["summary"]]
    gates = [gate["verdict"] for each in found for gate in each["gates"] if each["status"] == "completed"]
    usages = [summary.get("usage") or {} for summary in summaries]
    return {
        "evaluations": len(found),
        "with_result": len(summaries),
        "gates": len(gates),
        "failed_gates": gates.count("failed"),
        **{key: sum(summary[key] for summary in summaries) for key in ("rows", "scored", "invalid", "errors")},
        "calls": _sum(usage.get("calls") for usage in usages),
        "tokens": _sum(_tokens(usage) for usage in usages),
        "cost": _sum(usage.get("cost") for usage in usages),
    }


def _tokens(usage: Mapping[str, Any]) -> int | None:
    parts = [usage.get("prompt_tokens"), usage.get("completion_tokens")]
    return None if None in parts else sum(each or 0 for each in parts)


def _sum(parts: Iterable[Any]) -> Any:
    found = list(parts)
    return None if None in found or not found else sum(found)


def _review(review: Json | None, chosen: set[str]) -> Json | None:
    """How results moved; what was not chosen is left out, but for the totals, which are of all."""
    if review is None:
        return None
    gone = {each["address"] for each in review["moves"] if each["kind"] == Kind.GONE.value}
    kept = chosen | gone
    return {key: each for key, each in review.items() if key not in ("format_version", "head", "base")} | {
        "moves": [each for each in review["moves"] if each["address"] in kept],
        "failed_gates": [each for each in review["failed_gates"] if each["address"] in kept],
    }


def _pending(scene: _Scene, asked: Asked, chosen: set[str]) -> list[Json]:
    """What apply would do: these results are not of the specs of today."""
    wanted = [each for address, each in scene.wanted.items() if address in chosen]
    built = plan.build(wanted, scene.locks, forget=not asked.include and not asked.exclude)
    return [
        {"address": change.address, "action": change.action.value, "sign": change.action.sign, "reason": change.reason}
        for change in built.changes
        if change.action.is_change
    ]
