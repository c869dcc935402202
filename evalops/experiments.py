"""An experiment that was made elsewhere becomes a spec and a lock entry, over a dataset that is here.

Patronus gives back results, not the texts that were judged: the rows come from the project, and are joined to the
results by their sample ids. Nothing is run and nothing is paid. The spec is written last, so that a kill leaves none
behind whose work would seem to be still to do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from evalops import apply, document, emit, fingerprint, plan, semantics, sources, spec
from evalops.dataset import Row
from evalops.errors import Diagnostic, EvalopsError, has_errors
from evalops.lock import beside
from evalops.once import Once
from evalops.patronus import Grader
from evalops.plan import Action, Known, Plan, Wanted
from evalops.project import Project
from evalops.providers import patronus_request as wire
from evalops.providers.base import Provider, Request
from evalops.providers.patronus_inventory import Experiment

Results = Sequence[Mapping[str, Any]]


class Taken(NamedTuple):
    """What became of an experiment: its spec, and how many of its rows have results."""

    address: str
    spec: str
    rows: int
    found: int


class _Service(Protocol):
    """What has experiments."""

    def experiment(self, id_: str) -> tuple[Experiment, Results] | None:
        """An experiment with all its results, None where there is none."""

    def adopt(
        self, experiment: Experiment, request: Request, graders: Sequence[Grader], results: Callable[[Row], Results]
    ) -> int:
        """Writes down its results as those of a finished job; how many rows have some."""


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
    graders = _graders(results)
    name, path = _free(project, experiment.name, to)
    value = _spec(name, experiment, graders, results, dataset, columns)
    text = f"# Experiment {experiment.id} at Patronus, made {experiment.created_at}\n{emit.dump(value)}"
    wanted = _wanted(project, provider, text, path)
    request = provider.request(*wanted, 1)
    by_row = _joined(request, results, columns)
    count = service.adopt(experiment, request, graders, by_row)
    try:
        _adopt(project, provider, once, wanted, experiment.id)
        project.write(path, text.encode("utf-8", "backslashreplace"))
    except BaseException:
        (project.root / beside(path)).unlink(missing_ok=True)
        raise
    return Taken(name, path, wanted.identity.digests.rows or 0, count)


def _graders(results: Results) -> list[Grader]:
    """The evaluators that gave the results, as they were pinned."""
    found: dict[Grader, None] = {}
    for each in results:
        criteria, revision = each.get("criteria"), each.get("criteria_revision")
        if criteria and isinstance(revision, int) and not wire.is_pinned(criteria):
            criteria = f"{criteria}:{revision}"
        found[Grader(str(each.get("evaluator_id")), criteria or None)] = None
    return list(found)


def _spec(
    name: str,
    experiment: Experiment,
    graders: Sequence[Grader],
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
        "evaluators": [wire.evaluator(each) for each in graders],
        "patronus": {
            **({"project_id": experiment.project_id} if experiment.project_id else {}),
            "experiment": experiment.name,
            "capture": "all",
            "columns": dict(columns),
        },
    }


def _free(project: Project, name: str, to: str) -> tuple[str, str]:
    """The first name like this that no file has, and the path of its spec."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "experiment"
    below = f"{to.strip('/')}/" if to.strip("/") else ""
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
    """The evaluation that a spec's text asks for. Raises EvalopsError with all that is wrong."""
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


def _joined(request: Request, results: Results, columns: Mapping[str, str]) -> Callable[[Row], Results]:
    """The results of a row: by the column with its sample id, by its key here, or by its place from 1.

    Raises EvalopsError where most rows have none: then this is another dataset.
    """
    by_sample: dict[str, list[Mapping[str, Any]]] = {}
    for each in results:
        by_sample.setdefault(str(each.get("dataset_sample_id")), []).append(each)
    column = columns.get("dataset_sample_id")
    names: list[Callable[[str, Row], str]] = [lambda key, row: key, lambda key, row: str(row.position + 1)]
    if column is not None:
        names = [lambda key, row: str(row.source.get(column))]
    for name in names:
        at = {row.position: by_sample.get(name(key, row), []) for key, row in request.rows()}
        if 2 * sum(map(bool, at.values())) > len(at):
            return lambda row, at=at: at[row.position]  # type: ignore[misc]
    raise _problem(
        "rows",
        "most rows of the dataset have no result in the experiment",
        "name the column with the sample ids: --column dataset_sample_id=COLUMN",
    )


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
