"""From a project and its history to a review. Offline: lockfiles, verdicts files, and rows where they are at hand."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from evalops import catalog, history, review, sources, verdicts
from evalops.datasets.dataset import Row
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.history import Revision
from evalops.lock import Entry, Lock, beside
from evalops.project import MAX_LOCK, Project
from evalops.providers import open_provider
from evalops.result import Verdict
from evalops.review import Kept, Kind, Move, Review, Side
from evalops.spec import Evaluation
from evalops.verdicts import Section

MOST = 50  # evaluations whose flipped rows are looked up in their datasets
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """A review with what it was made of; `earlier` finds the verdicts of a result of the base that moved."""

    review: Review
    base: Revision
    head: str | None
    earlier: Kept
    diagnostics: tuple[Diagnostic, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The machine form of `evalops diff`."""
        return {
            "format_version": FORMAT,
            "base": {"name": self.base.name, "commit": self.base.commit},
            "head": self.head,
            **self.review.to_json(),
        }


def of(project: Project, base: str | None = None, *, with_rows: bool = True) -> Reviewed:
    """How the results of a project moved since a revision, by default since it left the default branch.

    Lockfiles that cannot be used are warned of and left out. Raises EvalopsError where there is no such revision.
    """
    repository = history.find(project.root)
    snapshot = repository.at(repository.base(base))
    locks, problems = project.locks()
    earlier, more = snapshot.locks(_same_as(project, locks))
    for each in (*problems, *more):  # a file that cannot be used on one side says nothing of the other
        path = each.mark.path if each.mark else ""
        locks.pop(path, None)
        earlier.pop(path, None)
    changed = {path for path in {*locks, *earlier} if locks.get(path) is not earlier.get(path)}
    old, unread = snapshot.sections(map(verdicts.beside, changed))
    new, unreadable = _sections(project, changed & set(locks))
    evaluations = _evaluations(project, changed)
    before = Side(entries=_entries(earlier), verdicts=_kept(old))
    found = review.build(
        before,
        Side(entries=_entries(locks), verdicts=_kept(new)),
        evaluations,
    )
    return Reviewed(
        review=_with_rows(project, found, evaluations) if with_rows else found,
        base=snapshot.revision,
        head=repository.head,
        earlier=before.verdicts,
        diagnostics=(*map(_warning, problems), *more, *unread, *unreadable),
    )


def _same_as(project: Project, locks: Mapping[str, Lock]) -> Callable[[str, bytes], Lock | None]:
    """Finds the lock that today's file of the same content has: most lockfiles are the same on both sides."""

    def known(path: str, data: bytes) -> Lock | None:
        return locks[path] if path in locks and project.read(path, MAX_LOCK) == data else None

    return known


def _entries(locks: Mapping[str, Lock]) -> dict[str, Entry]:
    """All entries by address. Of a spec that moved, two lockfiles may have one: the later path wins, on either side."""
    return {address: entry for path in sorted(locks) for address, entry in locks[path].entries.items()}


def _sections(project: Project, paths: Iterable[str]) -> tuple[dict[str, dict[str, Section]], list[Diagnostic]]:
    """The verdicts files beside these lockfiles."""
    found: dict[str, dict[str, Section]] = {}
    problems: list[Diagnostic] = []
    for path in sorted(map(verdicts.beside, paths)):
        try:
            found[path] = verdicts.parse(project.read(path, history.MAX_VERDICTS), path)
        except EvalopsError as error:
            problems += (_warning(each) for each in error.diagnostics if each.code != "file/missing")
    return found, problems


def _kept(files: Mapping[str, Mapping[str, Section]]) -> Kept:
    """Finds the verdicts of the job that an entry's result is of."""
    sections = {(each.address, each.job): each for sections in files.values() for each in sections.values()}

    def find(entry: Entry) -> list[Verdict] | None:
        section = sections.get((entry.address, entry.result_job or ""))
        return list(section.verdicts) if section else None

    return find


def _evaluations(project: Project, changed: Iterable[str]) -> dict[str, Evaluation]:
    """The evaluations of today whose lockfile changed, as far as their specs can be read."""
    wanted = set(changed)
    found, _ = catalog.evaluations_of(project, [path for path in project.specs() if beside(path) in wanted])
    return {each.address: each for each in found}


def _warning(problem: Diagnostic) -> Diagnostic:
    return replace(problem, severity=Severity.WARNING)


# --- rows ---


def _with_rows(project: Project, found: Review, evaluations: Mapping[str, Evaluation]) -> Review:
    """The review with the columns of flipped rows, and what the judge said of them, where they are on this machine."""
    flipped = [move for move in found.of(Kind.MOVED) if move.flips and move.address in evaluations][:MOST]
    rows = {move.address: _rows(project, move, evaluations[move.address]) for move in flipped}

    def filled(move: Move) -> Move:
        at_hand = rows.get(move.address) or {}
        return replace(move, flips=tuple(each._replace(**at_hand.get(each.flip.key, {})) for each in move.flips))

    return Review(moves=tuple(map(filled, found.moves)))


def _rows(project: Project, move: Move, evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    """What is at hand of each flipped row; nothing of a dataset that is not the one that was judged."""
    keys = {each.flip.key for each in move.flips}
    found: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(EvalopsError, OSError):
        today = catalog.read(project, [evaluation.spec]).wanted
        wanted = next((each for each in today if each.evaluation.address == move.address), None)
        if wanted and wanted.identity.digests.submitted == move.entry.dataset["submitted"]:
            judged = itertools.zip_longest(sources.rows(project, evaluation), _feedback(project, move.entry))
            for pair, said in judged:
                if pair and pair[0] in keys:
                    found[pair[0]] = {"source": _shown(pair[1], evaluation), "feedback": said}
    return found


def _shown(row: Row, evaluation: Evaluation) -> dict[str, Any]:
    """The columns of a row, responses first; not those that hold the verdict and the true answer."""
    hidden = {evaluation.gold, *(judge.column for judge in evaluation.judges)}
    names = [name for name in evaluation.response_columns if name in row.source]
    return {name: row.source[name] for name in dict.fromkeys([*names, *row.source]) if name not in hidden}


def _feedback(project: Project, entry: Entry) -> Iterator[str | None]:
    """What the judge said of each row, in the order of the dataset; nothing where no job of this machine is known."""
    if entry.provider != "local" or not entry.job:
        return
    with contextlib.closing(open_provider(entry.provider, project)) as provider:
        for verdict, _ in provider.rows(entry.job, None):
            yield verdict.feedback
