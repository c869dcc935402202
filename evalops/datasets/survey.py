"""What is in a dataset: its columns, their types, lengths and values, rows that repeat; in one pass.

However long the file, no more is held than some thousand numbers a column.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, NamedTuple

from evalops.datasets.dataset import Occurrences, Row
from evalops.fingerprint import canonical, sha256

FIRST = 3  # rows that are kept
MOST_COLUMNS = 200  # that are looked at; the rest is counted
MOST_VALUES = 20  # of a column, to be counted one by one
LONGEST_VALUE = 60  # characters of such a value
EXACT = 1 << 12  # different values that are counted exactly; more are estimated to some 1.6 %
DIGITS = 4  # of a length

_TYPES = {str: "text", bool: "boolean", int: "number", float: "number", list: "list", dict: "object"}


class Range(NamedTuple):
    least: int
    median: int
    most: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. `empties` have no value, or no text; `absent` are rows that lack it; the rest is of what there is.

    `lengths` are the characters of texts, `numbers` the least and the greatest number. `values` are counts, where few
    values make up the whole column.
    """

    name: str
    types: Mapping[str, int]
    empties: int
    absent: int
    distinct: int
    is_exact: bool
    lengths: Range | None
    numbers: tuple[float, float] | None
    values: Mapping[str, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What is in a dataset. `repeated` rows are equal to an earlier one; `more` columns were not looked at."""

    rows: int
    repeated: int
    columns: tuple[Column, ...]
    first: tuple[Mapping[str, Any], ...]
    more: bool


def survey(rows: Iterable[Row]) -> Survey:
    """A survey of rows. Raises what reading them raises."""
    seen, found = Occurrences(), dict[str, _Column]()
    first: list[Mapping[str, Any]] = []
    count = repeated = 0
    more = False
    for row in rows:
        count += 1
        if len(first) < FIRST:
            first.append(row.source)
        repeated += seen.count(sha256(canonical(row.source))) > 1
        for name, value in row.source.items():
            column = found.get(name)
            if column is None:
                if len(found) == MOST_COLUMNS:
                    more = True
                    continue
                column = found[name] = _Column()
            column.add(value)
    columns = tuple(column.found(name, count) for name, column in found.items())
    return Survey(rows=count, repeated=repeated, columns=columns, first=tuple(first), more=more)


class _Different:
    """How many different values there are: counted, and from `EXACT` on estimated by the smallest of their hashes.

    Z. Bar-Yossef et al., Counting distinct elements in a data stream (2002), algorithm 1.
    """

    def __init__(self) -> None:
        self._hashes: set[int] = set()
        self._heap: list[int] = []  # the negated hashes: the greatest hash is on top
        self.is_exact = True

    def add(self, text: bytes) -> None:
        number = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest())
        if number in self._hashes:
            return
        if len(self._heap) < EXACT:
            heapq.heappush(self._heap, -number)
        else:
            self.is_exact = False
            if number > -self._heap[0]:
                return
            self._hashes.remove(-heapq.heapreplace(self._heap, -number))
        self._hashes.add(number)

    @property
    def count(self) -> int:
        return len(self._heap) if self.is_exact else round((EXACT - 1) * 2**64 / -self._heap[0])


@dataclass(slots=True)
class _Column:
    """What is known of a column so far."""

    cells: int = 0
    empties: int = 0
    types: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    numbers: tuple[float, float] | None = None
    values: Counter[str] | None = field(default_factory=Counter)
    different: _Different = field(default_factory=_Different)

    def add(self, value: Any) -> None:
        self.cells += 1
        if value is None or value == "":
            self.empties += 1
            return
        self.types[_TYPES[type(value)]] += 1
        text = f'"{value}'.encode("utf-8", "surrogatepass") if isinstance(value, str) else canonical(value)
        self.different.add(text)
        if isinstance(value, str):
            self.lengths[_rounded(len(value))] += 1
        elif isinstance(value, int | float) and not isinstance(value, bool):
            low, high = self.numbers or (value, value)
            self.numbers = (min(low, value), max(high, value))
        if self.values is not None:
            word = value if isinstance(value, str) else text.decode("utf-8", "replace")
            self.values[word] += 1
            if len(self.values) > MOST_VALUES or len(word) > LONGEST_VALUE:
                self.values = None

    def found(self, name: str, rows: int) -> Column:
        values = self.values if self.values and max(self.values.values()) > 1 else {}
        return Column(
            name=name,
            types=dict(self.types.most_common()),
            empties=self.empties,
            absent=rows - self.cells,
            distinct=self.different.count,
            is_exact=self.different.is_exact,
            lengths=_range(self.lengths),
            numbers=self.numbers,
            values=dict(sorted(values.items(), key=lambda each: (-each[1], each[0]))) or None,
        )


def _rounded(length: int) -> int:
    """A length with so many digits that no column has too many different ones to be counted."""
    if length < 10**DIGITS:
        return length
    step: int = 10 ** (len(str(length)) - DIGITS)
    return length // step * step


def _range(lengths: Counter[int]) -> Range | None:
    if not lengths:
        return None
    ordered = sorted(lengths)
    half = (lengths.total() + 1) // 2
    sums = accumulate(lengths[length] for length in ordered)
    median = next(length for length, up_to in zip(ordered, sums, strict=True) if up_to >= half)
    return Range(ordered[0], median, ordered[-1])
