"""Rows of a job as Patronus keeps them: found by their log ids, those of an experiment of others by sample ids."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from evalops import sources
from evalops.datasets.dataset import Row
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical
from evalops.lock import Status
from evalops.patronus import Grader
from evalops.providers.base import Request
from evalops.providers.patronus_call import Work, log_id
from evalops.providers.patronus_inventory import MOST_SOUGHT, Experiment, Service
from evalops.providers.patronus_loop import now
from evalops.providers.patronus_rows import Result, captured, detail, verdict

if TYPE_CHECKING:
    from evalops.engine.store import Store

Results = Sequence[Mapping[str, Any]]


class One(NamedTuple):
    """A row with what the service keeps of it, by the names of the evaluators."""

    key: str
    log_id: str
    results: Mapping[str, Result]

    def is_whole(self, work: Work) -> bool:
        """Whether no evaluator has to be asked again."""
        return all(own.name in self.results and self.results[own.name].is_final for own, _ in work.graders)


def rows(service: Service, work: Work, of: Iterable[tuple[str, Row]]) -> Iterator[One]:
    """What the service keeps of these rows, by the log ids that our calls carried. Raises EvalopsError."""
    left = iter(of)
    while part := list(islice(left, MOST_SOUGHT)):
        ids = [log_id(work, row) for _, row in part]
        found = service.find(ids)
        for (key, _), id_ in zip(part, ids, strict=True):
            yield One(key, id_, captured(found[id_], work.graders, work.mark))


def of_others(service: Service, work: Work, experiment: Experiment, request: Request) -> Iterator[One]:
    """The rows of an experiment that carries no mark of ours. Raises EvalopsError where they are of other data."""
    by_row = joined(request, service.results(experiment.id))
    for key, row in request.rows():
        given = by_row(row)
        yield One(key, str(given[0].get("log_id")) if given else "", captured(given, work.graders, None))


def joined(request: Request, results: Results) -> Callable[[Row], Results]:
    """The results of a row: by the column with its sample id, by its key here, or by its place from 1.

    Raises EvalopsError where most rows have none: then this is another dataset.
    """
    by_sample: dict[str, list[Mapping[str, Any]]] = {}
    for each in results:
        by_sample.setdefault(str(each.get("dataset_sample_id")), []).append(each)
    asked = request.evaluation.patronus
    column = asked.columns.get("dataset_sample_id") if asked else None
    names: list[Callable[[str, Row], str]] = [lambda key, row: key, lambda key, row: str(row.position + 1)]
    if column is not None:
        names = [lambda key, row: str(row.source.get(column))]
    for name in names:
        at = {row.position: by_sample.get(name(key, row), []) for key, row in request.rows()}
        if 2 * sum(map(bool, at.values())) > len(at):
            return lambda row, at=at: at[row.position]  # type: ignore[misc]
    raise EvalopsError(
        Diagnostic(
            code="import/rows",
            message="most rows of the dataset have no result in the experiment",
            hint="name the column with the sample ids: --column dataset_sample_id=COLUMN",
        )
    )


def adopt(
    store: Store,
    experiment: Experiment,
    request: Request,
    told: str,
    graders: Sequence[Grader],
    results: Callable[[Row], Results],
) -> int:
    """Writes down the results of an experiment as those of a finished job; how many rows have some."""
    from evalops.engine.store import JobRecord

    identity, at = request.identity, experiment.created_at or now()
    rows_ = identity.digests.rows or 0
    made = JobRecord(experiment.id, identity.fingerprint, 1, "pending", None, rows_, at, request=told)
    if store.add_job(made).fingerprint != identity.fingerprint:
        message = f"the experiment {experiment.id} is here already as other work"
        raise EvalopsError(Diagnostic(code="import/exists", message=message))
    count, use = 0, sources.uses(request.evaluation)
    for key, row in request.rows():
        given = results(row)
        found = captured(given, [(each, each) for each in graders], None)
        more = detail(found, log_id=str(given[0].get("log_id")) if given else "", calls=0)
        checksum = zlib.crc32(canonical(use.used(row.source))) or 1
        store.add_row(experiment.id, row.position, verdict(request.evaluation, key, found), more, checksum)
        count += bool(given)
    store.set_status(experiment.id, Status.COMPLETED.value, None, now())
    return count
