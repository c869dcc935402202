"""Every evaluation of a project with what is asked of it, what apply would do, its last result, and how that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalops import api, catalog, lock, trend
from evalops.datasets.dataset import shown
from evalops.errors import EvalopsError
from evalops.project import Project
from evalops.spec import Candidate, Column, Evaluation, Judge
from evalops.trend import Point
from evalops.views import json_

Json = dict[str, Any]
_CANDIDATES = ("model_to_evaluate", "model_a", "model_b")


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What an evaluation is, in words; columns of the dataset have `column` before their name."""

    type: str
    provider: str
    judge: str
    candidates: tuple[str, ...]
    dataset: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One evaluation: of a spec, of a lockfile whose spec is gone, or both.

    `change` is what the plan says of it, None where there is no plan; `state` what `status` does.
    """

    address: str
    spec: str | None
    lock: str
    about: About
    change: Json | None
    state: Json | None
    points: Sequence[Point] = ()

    @property
    def failed_gates(self) -> list[Json]:
        """Gates of the last result that do not hold."""
        return [gate for gate in (self.state or {}).get("gates", ()) if gate["verdict"] == "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """All of them, by address; the plan, None where none can be made; and what is wrong, errors first."""

    lines: tuple[Line, ...]
    plan: Json | None
    problems: tuple[Json, ...]


def of(found: api.Project) -> Listing:
    """What there is in a project as it lies there; nobody is asked. Raises EvalopsError for broken settings."""
    project = Project(found.root)
    evaluations, _ = catalog.evaluations_of(project, project.specs())
    locks, _ = project.locks()
    plan, problems = planned(found)
    changes = {(each["lock"], each["address"]): each for each in (plan.changes if plan else ())}
    states = {(path, each["address"]): each for path in locks for each in api.states({path: locks[path]})}
    specs = {(lock.beside(each.spec), each.address): each for each in evaluations}
    points = trend.of(found.root)
    lines = [
        Line(
            address=key[1],
            spec=specs[key].spec if key in specs else None,
            lock=key[0],
            about=_about(specs[key]) if key in specs else _remembered(states[key]),
            change=changes.get(key),
            state=states.get(key),
            points=points.get(key, ()),
        )
        for key in {*specs, *states}
    ]
    ordered = sorted(problems, key=lambda each: str(each["severity"] != "error"))
    return Listing(
        lines=tuple(sorted(lines, key=lambda each: (each.address, each.lock))),
        plan=plan.value if plan else None,
        problems=tuple(ordered),
    )


def planned(found: api.Project, *only: str, retry: bool = False) -> tuple[api.Plan | None, Sequence[Json]]:
    """The plan and what it warns of, or why there is none."""
    try:
        plan = found.plan(*only, retry_failed=retry)
    except EvalopsError as error:
        return None, [json_.diagnostic(each) for each in error.diagnostics]
    return plan, plan.value["diagnostics"]


def _about(evaluation: Evaluation) -> About:
    return About(
        type=evaluation.type.value,
        provider=evaluation.provider,
        judge=_judges(evaluation),
        candidates=tuple(map(_candidate, evaluation.candidates)),
        dataset=shown(evaluation.dataset),
        tags=evaluation.tags,
        description=evaluation.description,
    )


def _judges(evaluation: Evaluation) -> str:
    if evaluation.evaluator:
        return evaluation.evaluator.function or evaluation.evaluator.kind
    if evaluation.patronus:
        return ", ".join(each.name for each in evaluation.patronus.graders)
    names = ", ".join(dict.fromkeys(map(_judge, evaluation.judges)))
    return names + (f", {evaluation.repeats} times" if evaluation.repeats > 1 else "")


def _judge(judge: Judge) -> str:
    return judge.model.model if judge.model else f"column {judge.column}"


def _candidate(candidate: Candidate) -> str:
    return f"column {candidate}" if isinstance(candidate, Column) else candidate.model


def _remembered(state: Mapping[str, Any]) -> About:
    """What the lockfile knows of an evaluation whose spec is gone or cannot be read."""
    inputs = state["inputs"]
    judges = [str(inputs[key]) for key in ("judge.model", "evaluator.kind") if key in inputs]
    judges += [f"column {inputs['judge.column']}"] if "judge.column" in inputs else []
    models = [str(inputs[f"{key}.model"]) for key in _CANDIDATES if f"{key}.model" in inputs]
    columns = [f"column {inputs[key]}" for key in _CANDIDATES if key in inputs]
    return About(
        type=str(inputs.get("type", "")),
        provider=str(state["provider"]),
        judge=", ".join(judges),
        candidates=(*columns, *models),
    )
