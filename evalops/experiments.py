"""An experiment that was made elsewhere becomes a spec and a lock entry, over a dataset that is here.

Patronus gives back results, not the texts that were judged: the rows come from the project, and are joined to the
results by their sample ids. What all calls had in common goes into the spec. Nothing is run and nothing is paid. The
spec is written last, so that a kill leaves none behind whose work would seem to be still to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, cast

from evalops import apply, document, emit, fingerprint, importing, plan, schema, semantics, sources, spec
from evalops.datasets.dataset import Row
from evalops.errors import Diagnostic, EvalopsError, Severity, has_errors
from evalops.lock import beside
from evalops.once import Once
from evalops.patronus import CARRIED, READ, Grader
from evalops.plan import Action, Known, Plan, Wanted
from evalops.project import Project
from evalops.providers import patronus_request as wire
from evalops.providers.base import Provider, Request
from evalops.providers.patronus_inventory import Experiment
from evalops.providers.patronus_kept import Results, joined

STRATEGIES = ("never", "on-fail", "on-success", "always")
INTERVALS = ("none", "full-history")


class Taken(NamedTuple):
    """What became of an experiment: its spec, and how many of its rows have results. `notes` are warnings."""

    address: str
    spec: str
    rows: int
    found: int
    notes: tuple[Diagnostic, ...] = ()


class _Service(Protocol):
    """What has experiments."""

    def experiment(self, id_: str) -> tuple[Experiment, Results] | None:
        """An experiment with all its results, None where there is none."""

    def adopt(
        self, experiment: Experiment, request: Request, graders: Sequence[Grader], results: Callable[[Row], Results]
    ) -> int:
        """Writes down its results as those of a finished job; how many rows have some."""


def require(project: Project, provider: Provider, *, dataset: str, columns: Mapping[str, str], to: str) -> None:
    """Raises EvalopsError for all that can be known to be wrong before the service is asked."""
    importing.below_of(project, to)
    known = (*READ, *CARRIED)
    unknown = [
        Diagnostic(
            code="import/column",
            message=f"`--column {name}={column}`: Patronus has no field `{name}`",
            hint=schema.nearest(name, known) or f"its fields are {', '.join(known)}",
        )
        for name, column in columns.items()
        if name not in known
    ]
    if unknown:
        raise EvalopsError(*unknown)
    draft = {"version": 1, "name": "import", "type": "classify", "provider": "patronus", "dataset": dataset}
    more = {"evaluators": ["judge"], "patronus": {"columns": dict(columns)}}
    _wanted(project, provider, emit.dump({**draft, **more}), "import.yaml")


def take(
    project: Project, provider: Provider, once: Once, id_: str, *, dataset: str, columns: Mapping[str, str], to: str
) -> Taken:
    """Writes the spec and the lock entry of an experiment. Raises EvalopsError, and then no spec is left."""
    service = cast(_Service, provider)
    found = service.experiment(id_)
    if found is None:
        raise _problem("gone", f"Patronus has no experiment `{id_}`")
    experiment, results = found
    if not results:
        raise _problem("empty", f"the experiment `{id_}` keeps no results: its calls were made with `capture: none`")
    _refuse_twice(project, experiment)
    told = _told(results)
    below = importing.below_of(project, to)
    name, path = _free(project, experiment.name, below)
    value = _spec(name, experiment, told, results, dataset, columns)
    origin = f"Experiment {experiment.id} at Patronus, made {experiment.created_at}"
    text = importing.head(project, below, origin) + emit.dump(value)
    wanted = _wanted(project, provider, text, path)
    request = provider.request(*wanted, 1)
    count = service.adopt(experiment, request, told.graders, joined(request, results))
    try:
        _adopt(project, provider, once, wanted, experiment.id)
        project.write(path, text.encode("utf-8", "backslashreplace"))
    except BaseException:
        (project.root / beside(path)).unlink(missing_ok=True)
        raise
    return Taken(name, path, wanted.identity.digests.rows or 0, count, tuple(_left_out(experiment, told.varying)))


# --- what the results tell of how they were asked for ---


class _Told(NamedTuple):
    """The evaluators as they were pinned, what all calls had in common, and the names of what differs among them."""

    graders: tuple[Grader, ...]
    common: Mapping[str, Any]
    varying: tuple[str, ...]


def _told(results: Results) -> _Told:
    varying: list[str] = []

    def one(name: str, values: Iterable[Any]) -> str | None:
        """The value that all have."""
        found = {each if isinstance(each, str) and each else None for each in values}
        varying.extend([name] if len(found) > 1 else [])
        return found.pop() if len(found) == 1 else None

    asked: dict[Grader, list[Any]] = {}
    for each in results:
        criteria, revision = each.get("criteria"), each.get("criteria_revision")
        if criteria and isinstance(revision, int) and not wire.is_pinned(criteria):
            criteria = f"{criteria}:{revision}"
        grader = Grader(str(each.get("evaluator_id")), criteria or None)
        asked.setdefault(grader, []).append(each.get("explain_strategy"))
    graders = tuple(
        each._replace(explain_strategy=_among(one(f"explain_strategy of {each.name}", said), STRATEGIES))
        for each, said in asked.items()
    )
    tags = [each["tags"] if isinstance(each.get("tags"), dict) else {} for each in results]
    names = sorted({name for each in tags for name in each} - {wire.MARK})
    known = {name: one(f"the tag {name}", (each.get(name) for each in tags)) for name in names}
    common = {
        "tags": {name: value for name, value in known.items() if value is not None},
        "confidence_interval_strategy": _among(one("confidence_interval_strategy", map(_interval, results)), INTERVALS),
        "dataset_id": one("dataset_id", (each.get("dataset_id") for each in results)),
    }
    return _Told(graders, {name: value for name, value in common.items() if value}, tuple(varying))


def _among(value: str | None, known: Sequence[str]) -> str | None:
    return value if value in known else None


def _interval(result: Mapping[str, Any]) -> Any:
    """How an interval was asked for, as far as a result says so."""
    about = result.get("additional_info")
    interval = about.get("confidence_interval") if isinstance(about, dict) else None
    return interval.get("strategy") if isinstance(interval, dict) else None


def _left_out(experiment: Experiment, names: Sequence[str]) -> Iterable[Diagnostic]:
    if names:
        listed = ", ".join(f"`{each}`" for each in names)
        yield Diagnostic(
            code="import/left-out",
            message=f"the calls of the experiment {experiment.id} differ in {listed}, which a spec says once for all: "
            "this is left out",
            severity=Severity.WARNING,
        )


def _spec(
    name: str,
    experiment: Experiment,
    told: _Told,
    results: Results,
    dataset: str,
    columns: Mapping[str, str],
) -> dict[str, Any]:
    is_classify = all(isinstance(each.get("pass"), bool) for each in results)
    return {
        "version": 1,
        "name": name,
        "type": "classify" if is_classify else "score",
        "provider": "patronus",
        "dataset": dataset,
        "evaluators": [wire.evaluator(each) for each in told.graders],
        "patronus": {
            **({"project_id": experiment.project_id} if experiment.project_id else {}),
            "experiment": experiment.name,
            "capture": "all",
            **told.common,
            "columns": dict(columns),
        },
    }


def _free(project: Project, name: str, below: str) -> tuple[str, str]:
    """The first name like this that no file has, and the path of its spec."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "experiment"
    for number in range(1, 1000):
        found = plain if number == 1 else f"{plain}-{number}"
        path = f"{below}{found}.yaml"
        if not any(os.path.lexists(project.root / each) for each in (path, beside(path))):
            (project.root / below).mkdir(parents=True, exist_ok=True)
            return found, path
    raise _problem("exists", f"every name like `{plain}` is in use")


def _refuse_twice(project: Project, experiment: Experiment) -> None:
    for lock in project.locks()[0].values():
        for entry in lock.entries.values():
            if entry.provider == "patronus" and entry.job == experiment.id:
                raise _problem("exists", f"this project has the experiment {experiment.id} already: `{entry.address}`")


def _wanted(project: Project, provider: Provider, text: str, path: str) -> Wanted:
    """The evaluation that a spec's text asks for. Raises EvalopsError with all that is wrong.

    No problem has its place in this spec, which nobody can look at yet.
    """
    try:
        return _read(project, provider, text, path)
    except EvalopsError as error:
        problems = ((each, each.mark) for each in error.diagnostics)
        found = (replace(each, mark=None) if at and at.path == path else each for each, at in problems)
        raise EvalopsError(*found) from None


def _read(project: Project, provider: Provider, text: str, path: str) -> Wanted:
    documents, problems = document.parse(text.encode("utf-8", "backslashreplace"), path)
    evaluations, more = (
        spec.load(documents[0], project.settings, project.read_text)
        if documents and not has_errors(problems)
        else ([], [])
    )
    problems = [*problems, *more]
    if has_errors(problems) or len(evaluations) != 1:
        raise EvalopsError(*problems)
    evaluation = evaluations[0]
    found = semantics.check(evaluation) + provider.check(evaluation)
    digests, more = sources.of(project, evaluation).scan(
        sources.uses(evaluation), lambda column: semantics.place(evaluation, column)
    )
    if has_errors([*found, *more]):
        raise EvalopsError(*(each for each in (*found, *more) if each.is_error))
    identity = fingerprint.identify(evaluation, provider.endpoints(evaluation), digests, provider.pins(evaluation))
    return Wanted(evaluation, identity)


def _adopt(project: Project, provider: Provider, once: Once, wanted: Wanted, job: str) -> None:
    """What apply does with a job that is there. Raises EvalopsError where its result cannot be used."""
    made = plan.build([wanted], {}, [Known(wanted.identity.fingerprint, 1, job)], forget=False)
    (change,) = made.changes
    assert change.action is Action.ADOPT and change.job == job, "an import never makes a job"
    applied = apply.carry_out(
        project, Plan(changes=(change,)), {}, {provider.name: provider}, lambda address, event: None, once
    )
    if has_errors(applied.diagnostics):
        raise EvalopsError(*applied.diagnostics)


def _problem(what: str, message: str, hint: str | None = None) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"import/{what}", message=message, hint=hint))
