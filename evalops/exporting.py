"""Results that were made elsewhere go to Patronus, each once: a second export finds what the first one brought."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from evalops import catalog, rows
from evalops.errors import Diagnostic, EvalopsError
from evalops.lock import Entry, Status
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers import patronus_request as wire
from evalops.result import VerdictStatus
from evalops.spec import Evaluation, Type

EVALUATOR = "evalops"
SERVICE = "patronus"


class Exported(NamedTuple):
    """How many results were sent, how many were there before, and how many rows have no verdict to send."""

    sent: int
    known: int
    without: int


class Place(NamedTuple):
    """Where results go at the service: an app, or an experiment of this name; None is the address."""

    project: str = wire.PROJECT
    app: str | None = None
    experiment: str | None = None


class _Service(Protocol):
    """What Patronus can be brought."""

    def place(self, project: str, name: str, mark: str) -> str:
        """The experiment that carries this mark, made where there is none."""

    def bring(self, evaluations: Sequence[Mapping[str, Any]]) -> int:
        """Sends results that are not there yet; how many they were."""


def export(project: Project, entry: Entry, place: Place) -> Exported:
    """Sends the results of a finished evaluation. Raises EvalopsError; what was sent before then stays."""
    evaluation = _evaluation(project, entry)
    mark = wire.mark(entry.fingerprint, entry.generation)
    with contextlib.closing(open_provider(SERVICE, project)) as provider:
        service = cast(_Service, provider)
        if place.app is not None:
            where: dict[str, Any] = {"app": place.app, "project_name": place.project}
        else:
            name = (place.experiment or entry.address)[:100]
            where = {"experiment_id": service.place(place.project, name, f"export-{mark}")}
        sent = total = without = 0
        part: list[dict[str, Any]] = []
        for each in _results(project, entry, evaluation, mark):
            if each is None:
                without += 1
                continue
            part.append({**each, **where})
            total += 1
            if len(part) == wire.MOST_BATCH:
                sent += service.bring(part)
                part = []
        sent += service.bring(part) if part else 0
    return Exported(sent, total - sent, without)


def _evaluation(project: Project, entry: Entry) -> Evaluation:
    """The evaluation of an entry. Raises EvalopsError where there is no result, or it is there already."""
    message = hint = None
    if entry.provider == SERVICE:
        message = f"the results of `{entry.address}` are at Patronus already"
    elif entry.status is not Status.COMPLETED:
        message, hint = f"`{entry.address}` has no result: it is {entry.status.value}", "evalops apply"
    elif entry.inputs.get("type") == Type.COMPARE:
        message = f"`{entry.address}` compares two responses, and Patronus keeps results of one"
    found = [each.evaluation for each in catalog.read(project).wanted if each.evaluation.address == entry.address]
    if message is None and not found:
        message, hint = f"no spec has the address `{entry.address}` any more", "restore it, or export another one"
    if message is not None:
        raise EvalopsError(Diagnostic(code="export/refused", message=message, hint=hint))
    return found[0]


def _results(project: Project, entry: Entry, evaluation: Evaluation, mark: str) -> Iterator[dict[str, Any] | None]:
    """Each row's result as the service takes it, None for a row without a verdict."""
    with rows.opened(project, entry) as found:
        for position, row in enumerate(found):
            is_scored = row.verdict.status is VerdictStatus.SCORED
            yield _result(entry, evaluation, mark, position, row) if is_scored else None


def _result(entry: Entry, evaluation: Evaluation, mark: str, position: int, row: rows.Judged) -> dict[str, Any]:
    is_label, verdict = evaluation.type is Type.CLASSIFY, row.verdict
    value = {
        "evaluator_id": EVALUATOR,
        "criteria": entry.address,
        "log_id": wire.log_id(f"export-{mark}", position),
        "pass": _passes(evaluation, verdict.value),
        "score": None if is_label else verdict.value,
        "text_output": str(verdict.value) if is_label else None,
        "explanation": verdict.feedback,
        "dataset_id": evaluation.dataset.path or None,
        "dataset_sample_id": row.key,
        "created_at": entry.finished_at,
        "tags": {wire.MARK: mark},
    }
    return {name: each for name, each in value.items() if each is not None}


def _passes(evaluation: Evaluation, value: Any) -> bool | None:
    """Whether a verdict is a pass; None where the spec does not say what one is."""
    if evaluation.pass_labels:
        return value in evaluation.pass_labels
    if evaluation.pass_threshold is not None:
        return float(value) >= evaluation.pass_threshold
    return None
