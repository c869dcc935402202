"""How the result of each evaluation moved over the git history of its lockfile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from evalops import git, history, jobs
from evalops import lock as locks
from evalops.errors import EvalopsError
from evalops.history import Blob, Revision, Snapshot
from evalops.lock import Entry
from evalops.spec import Type

MOST_COMMITS = 1000  # of the project's folder, from the newest on
MOST_POINTS = 24  # of one evaluation
LARGEST = 4 << 20  # bytes of a lockfile that is looked at for this
_LOG = ("log", "--first-parent", "--diff-merges=first-parent", "--raw", "--no-abbrev", "--no-renames", "--no-ext-diff",
        "--no-textconv", "--relative", "-z", "--format=%x00%H %cs", f"--max-count={MOST_COMMITS}")  # fmt: skip


class Point(NamedTuple):
    """A result: the headline with its interval, the day (YYYY-MM-DD) and the commit from which on it stood there.

    `failed` says whether a gate of it failed.
    """

    metric: str
    value: float
    day: str
    commit: str
    low: float | None = None
    high: float | None = None
    failed: bool = False


class _Change(NamedTuple):
    """A lockfile as a commit left it."""

    path: str
    blob: str
    day: str
    commit: str


def of(root: Path) -> Mapping[tuple[str, str], Sequence[Point]]:
    """The results by lockfile and address, the oldest first; nothing where there is no history.

    Results of the same job that say the same are one. All of an address are of the newest one's metric.
    """
    try:
        head = history.find(root).head
    except EvalopsError:
        return {}
    return _at(root, head) if head else {}


def point(entry: Entry, day: str = "", commit: str = "") -> Point | None:
    """The result that an entry has, None where that is no number."""
    try:
        headline = jobs.headline(Type(entry.inputs["type"]), entry.summary)
    except (KeyError, ValueError):
        return None
    if headline is None:
        return None
    name, metric = headline
    failed = any(gate["verdict"] == "failed" for gate in entry.gates)
    return Point(name, float(metric["value"]), day, commit, _end(metric, "low"), _end(metric, "high"), failed)


def is_shallow(root: Path) -> bool:
    """Whether the clone lacks older commits."""
    return git.ask(root, "rev-parse", "--is-shallow-repository").text == "true"


@lru_cache(maxsize=2)
def _at(root: Path, head: str) -> Mapping[tuple[str, str], Sequence[Point]]:
    changes = list(_recent(_changes(git.ask(root, *_LOG, head, "--", ".").text)))
    blobs = _sizes(root, {each.blob for each in changes})
    texts = Snapshot(root=root, revision=Revision("", head), blobs=blobs).read(blobs, LARGEST)
    found: dict[tuple[str, str], list[tuple[tuple[str | None, str, float], Point]]] = {}
    for change in reversed(changes):  # git has the newest first
        for address, entry in _entries(texts.get(change.blob, b"")).items():
            new = point(entry, change.day, change.commit)
            if new is None:
                continue
            said = (entry.result_job, new.metric, new.value)
            points = found.setdefault((change.path, address), [])
            if not points or points[-1][0] != said:
                points.append((said, new))
    return {key: _alike([each for _, each in points]) for key, points in found.items()}


def _alike(points: list[Point]) -> list[Point]:
    return [each for each in points if each.metric == points[-1].metric][-MOST_POINTS:]


def _recent(changes: Iterator[_Change]) -> Iterator[_Change]:
    """The newest of each lockfile. Twice as many as are shown: one that holds several evaluations changes for each."""
    counts: dict[str, int] = {}
    for change in changes:
        counts[change.path] = counts.get(change.path, 0) + 1
        if counts[change.path] <= 2 * MOST_POINTS:
            yield change


def _changes(told: str) -> Iterator[_Change]:
    """The lockfiles that each commit wrote, the newest commit first."""
    commit, day = "", ""
    fields = iter(told.split("\0"))
    for field in fields:
        words = field.split()
        if field.lstrip("\n").startswith(":") and len(words) == 5:
            path, blob = next(fields, ""), words[3]
            if path.endswith(locks.SUFFIX) and blob.strip("0"):  # zeros: the commit removed it
                yield _Change(path, blob, day, commit)
        elif len(words) == 2:
            commit, day = words


def _sizes(root: Path, blobs: set[str]) -> dict[str, Blob]:
    asked = "".join(f"{each}\n" for each in sorted(blobs)).encode()
    told = git.ask(root, "cat-file", "--batch-check", stdin=asked).text
    lines = (each.split() for each in told.split("\n"))
    return {each[0]: Blob(each[0], int(each[2])) for each in lines if len(each) == 3 and each[1] == "blob"}


def _entries(data: bytes) -> Mapping[str, Entry]:
    """The entries of a lockfile; none of one that cannot be used."""
    try:
        return locks.parse(data.decode("utf-8", "replace"), "").entries
    except EvalopsError:
        return {}


def _end(metric: Mapping[str, Any], key: str) -> float | None:
    return float(metric[key]) if key in metric else None
