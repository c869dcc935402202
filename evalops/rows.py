"""The rows of a finished job, joined to the dataset rows that they judge."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from evalops import catalog
from evalops.datasets.dataset import Row
from evalops.errors import Diagnostic, EvalopsError
from evalops.lock import Entry
from evalops.metrics.labels import text_of
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Provider
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation, Type


class Judged(NamedTuple):
    """A verdict with its row; `source` is None where the dataset no longer is the one that was judged.

    `failed`: no verdict, not what gold says, or, for a row without gold, not a pass; None where the evaluation that
    would say so is gone.
    """

    key: str
    source: Row | None
    verdict: Verdict
    detail: dict[str, Any]
    failed: bool | None


@contextlib.contextmanager
def opened(project: Project, entry: Entry) -> Iterator[Iterator[Judged]]:
    """The rows of an entry's job in the order of the dataset, for as long as its provider is open.

    To ask for the first raises EvalopsError where they are not here.
    """
    # No generator of its own: one that is left unfinished would close a store in whatever thread it is collected.
    with contextlib.closing(open_provider(entry.provider, project)) as provider:
        yield joined(entry, provider, _wanted(project, entry))


def joined(entry: Entry, provider: Provider, wanted: Wanted | None) -> Iterator[Judged]:
    """The rows of an entry's job as a provider has them; `wanted` still judges the same rows. Raises EvalopsError."""
    request = provider.request(*wanted, entry.generation) if wanted else None
    verdicts = iter(provider.rows(entry.job or "", request))
    first = next(verdicts, None)
    if first is None:
        raise EvalopsError(_missing(entry, is_changed=wanted is None, is_local=provider.origin is None))
    evaluation = wanted.evaluation if wanted else None
    sources = itertools.chain(request.rows() if request else (), itertools.repeat(None))
    for (verdict, detail), pair in zip(itertools.chain([first], verdicts), sources, strict=False):
        key, source = pair or (verdict.key, None)
        failed = _failed(evaluation, verdict, source) if evaluation else None
        yield Judged(key, source, verdict, detail, failed)


def _missing(entry: Entry, *, is_changed: bool, is_local: bool) -> Diagnostic:
    if is_changed:
        return Diagnostic(
            code="rows/changed",
            message=f"the rows of `{entry.address}` are not here: its dataset is no longer the one that was judged",
            hint="restore it, or evaluate what is there now: evalops apply",
        )
    where = "are not on this machine" if is_local else f"are neither here nor at {entry.provider}"
    why = f"they were made where the job {entry.job} ran" if is_local else f"the job {entry.job} is gone"
    return Diagnostic(
        code="rows/missing",
        message=f"the rows of `{entry.address}` {where}",
        hint=f"{why}; to make them here:\n  evalops apply --rerun '{entry.address}' --reason 'rows are elsewhere'",
    )


def chosen(
    found: Iterable[Judged], *, status: str | None = None, verdict: Any = None, failed: bool = False
) -> Iterator[Judged]:
    """The rows of a status, with a verdict (see `matches`), or that failed; all conditions have to hold.

    Raises EvalopsError where nobody knows any more what a failure is: none shown would look like none there.
    """
    for each in found:
        if failed and each.failed is None:
            message = "which rows failed cannot be told: what was judged is no longer what its spec says"
            hint = "evalops plan shows what changed; without `--failed` all rows are printed"
            raise EvalopsError(Diagnostic(code="rows/no-spec", message=message, hint=hint))
        if (
            (each.failed or not failed)
            and status in (None, each.verdict.status.value)
            and (verdict is None or matches(each.verdict.value, str(verdict)))
        ):
            yield each


def matches(value: Any, text: str) -> bool:
    """Whether a verdict is the one that `text` names: `4` is the score 4.0."""
    try:
        return str(value) == text or float(value) == float(text)
    except (TypeError, ValueError):
        return False


def _wanted(project: Project, entry: Entry) -> Wanted | None:
    """The evaluation of today, if it still judges the rows that the entry holds."""
    evaluations, _ = catalog.evaluations_of(project, project.specs())
    specs = sorted({each.spec for each in evaluations if each.address == entry.address})
    for wanted in catalog.read(project, specs).wanted:  # no other datasets are gone through
        if wanted.evaluation.address == entry.address:
            return wanted if wanted.identity.digests.submitted == entry.dataset["submitted"] else None
    return None


def _failed(evaluation: Evaluation, verdict: Verdict, source: Row | None) -> bool:
    if verdict.status is not VerdictStatus.SCORED:
        return True
    gold = text_of(source.source.get(evaluation.gold)) if source and evaluation.gold else None
    if gold is not None and evaluation.type is not Type.CUSTOM:  # whose score is made of it
        return not matches(verdict.value, gold)
    if evaluation.pass_labels:
        return verdict.value not in evaluation.pass_labels
    return evaluation.pass_threshold is not None and float(verdict.value or 0.0) < evaluation.pass_threshold
