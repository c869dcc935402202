"""A part of a dataset, chosen by a hash of each row: rows that are added later leave it as it is, but for its edge.

The rows are read two or three times, and what is held is the sample's positions: never the rows.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from evalops import schema
from evalops.datasets.dataset import Occurrences, Row, Uses
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.fingerprint import canonical, sha256
from evalops.spec import Sample

MOST_STRATA = 1000  # values of the column that a sample is stratified by

Read = Callable[[], Iterator[Row]]


def rows(read: Read, use: Uses, mark: Callable[[str], Mark] | None = None) -> Iterator[Row]:
    """The rows of the sample that `use` asks for, in the order of the dataset and with the positions they have there.

    All rows where it asks for none. `read` opens the dataset anew; `mark` gives the place in the spec where a column
    is named. Raises EvalopsError where the column to stratify by is not there, or is none to do that by.
    """
    sample = use.sample
    if sample is None:
        yield from read()
        return
    shared = None if sample.by is None else shares(_strata(read(), use, sample.by, mark), sample.size)
    left = set(_chosen(read(), use, sample, shared))
    for row in read():
        if row.position in left:
            yield row
            left.remove(row.position)
            if not left:
                return


def shares(counts: Mapping[str, int], size: int) -> dict[str, int]:
    """How many rows of each stratum are in a sample of `size` rows, all rows where there are fewer.

    In proportion, by largest remainders, the earlier name first; and none is left out that there is room for.
    """
    total = sum(counts.values())
    if size >= total:
        return dict(counts)
    found = {name: size * count // total for name, count in counts.items()}
    by_remainder = sorted(counts, key=lambda name: (-(size * counts[name] % total), name))
    for name in by_remainder[: size - sum(found.values())]:
        found[name] += 1
    without = sorted(name for name in found if not found[name])
    if size < len(counts):
        return found
    for name in without:
        # From whoever has most beyond its share, which has more than one.
        richest = max((each for each in found if found[each] > 1),
                      key=lambda each: (found[each] * total - size * counts[each], each))  # fmt: skip
        found[richest] -= 1
        found[name] = 1
    return found


def _chosen(rows: Iterable[Row], use: Uses, sample: Sample, shared: Mapping[str, int] | None) -> Collection[int]:
    """The positions of the rows with the smallest hashes, of each stratum as many as its share."""
    seen = Occurrences()
    heaps: dict[str, list[tuple[int, int]]] = {}
    for row in rows:
        # Of equal rows each has a hash of its own, or they would all be in, or all out.
        name = sha256(canonical(row.source if use.id is None else row.source.get(use.id)))
        rank = hashlib.sha256(f"{sample.seed} {name} {seen.count(name)}".encode()).digest()
        stratum = "" if sample.by is None else _stratum(row, sample.by)
        most = sample.size if shared is None else shared.get(stratum, 0)
        heap = heaps.setdefault(stratum, [])
        item = (-int.from_bytes(rank), -row.position)  # the greatest is on top
        if len(heap) < most:
            heapq.heappush(heap, item)
        elif most and item > heap[0]:
            heapq.heapreplace(heap, item)
    return [-position for heap in heaps.values() for _, position in heap]


def _strata(rows: Iterable[Row], use: Uses, column: str, mark: Callable[[str], Mark] | None) -> Counter[str]:
    """How many rows each value of a column has; rows without one are a stratum of their own."""
    counts: Counter[str] = Counter()
    columns: dict[str, None] = {}
    is_there = False
    for row in rows:
        columns = columns or dict.fromkeys(row.source)
        is_there = is_there or column in row.source
        counts[_stratum(row, column)] += 1
        if len(counts) > MOST_STRATA:
            raise _refused(
                "dataset/strata",
                f"the column `{column}` has more than {MOST_STRATA:,} values, too many to give each its share",
                mark and mark(column),
                "name a column with few values, or remove `by`",
            )
    if not is_there:
        raise _refused(
            "dataset/missing-column",
            f"`{use.path}` has no column `{column}`",
            mark and mark(column),
            schema.nearest(column, columns) or f"the first row has: {', '.join(columns)}",
        )
    return counts


def _stratum(row: Row, column: str) -> str:
    value = row.source.get(column)
    return sha256(canonical(None if value == "" else value))


def _refused(code: str, message: str, mark: Mark | None, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=code, message=message, mark=mark, hint=hint))
