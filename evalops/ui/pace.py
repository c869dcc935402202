"""How far one evaluation is, how fast it goes, and when it will be done, as far as that is known."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from evalops.providers.base import Progress
from evalops.result import Value

Counts = Mapping[tuple[str, Value], int]  # rows by status and value

WINDOW, SHORTEST = 20.0, 1.0  # seconds by which a rate is measured, at the most and at the least
LONG = 10.0  # seconds without a row, after which that is worth a word
MOST_VALUES = 12  # different verdicts that are counted apart
OVER = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """How far one evaluation is. What is None is not known; `rate` is in rows a second, `left` in seconds.

    `still` are the seconds without a new row, None before they are many.
    """

    address: str
    status: str
    done: int | None = None
    total: int | None = None
    rate: float | None = None
    left: float | None = None
    still: float | None = None
    verdicts: tuple[tuple[str, int], ...] = ()
    invalid: int = 0
    errors: int = 0
    note: str = ""


def moved(line: Line, event: Progress, counts: Counts) -> Line:
    """A line by what the run tells; where rows can be counted, by what is committed."""
    line = replace(line, status=event.note or "running", total=event.total)
    if counts or event.total is None:
        return counted(line, counts) if counts else line
    told = event.counts
    return replace(line, done=event.done, invalid=told.get("invalid", 0), errors=told.get("error", 0))


def counted(line: Line, counts: Counts) -> Line:
    """A line by the rows that are there."""
    by_value: dict[str, int] = {}
    by_status: dict[str, int] = {}
    for (status, value), count in counts.items():
        by_status[status] = by_status.get(status, 0) + count
        if status == "scored" and value is not None:
            name = f"{value:g}" if isinstance(value, int | float) else str(value)
            by_value[name] = by_value.get(name, 0) + count
    verdicts = tuple(sorted(by_value.items(), key=_place)) if len(by_value) <= MOST_VALUES else ()
    return replace(
        line,
        done=sum(by_status.values()),
        verdicts=verdicts,
        invalid=by_status.get("invalid", 0),
        errors=by_status.get("error", 0),
    )


def _place(each: tuple[str, int]) -> tuple[float, str]:
    """Numbers by their size, words by the alphabet: an order that does not change while rows come."""
    try:
        return float(each[0]), each[0]
    except ValueError:
        return math.inf, each[0]


class Rates:
    """How fast rows come, by the looks of the last seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looks: dict[str, deque[tuple[float, int]]] = {}
        self._moved: dict[str, tuple[float, int]] = {}  # when the last new row was seen, and how many there were

    def clear(self) -> None:
        """Forgets every look."""
        self._looks.clear()
        self._moved.clear()

    def paced(self, line: Line) -> Line:
        """A line with its rate and the time that is left, where both can be told."""
        if line.done is None:
            return line
        now = self._clock()
        return self._timed(self._stood(line, now, line.done), now, line.done)

    def _timed(self, line: Line, now: float, done: int) -> Line:
        looks = self._looks.setdefault(line.address, deque())
        looks.append((now, done))
        while len(looks) > 2 and looks[0][0] < now - WINDOW:
            looks.popleft()
        span, more = now - looks[0][0], done - looks[0][1]
        if span < SHORTEST or more <= 0 or line.status in OVER:
            return line
        rate = more / span
        left = math.ceil((line.total - done) / rate) if line.total is not None else None
        return replace(line, rate=rate, left=left)

    def _stood(self, line: Line, now: float, done: int) -> Line:
        """A line with how long it has stood still, if that is long."""
        since, before = self._moved.setdefault(line.address, (now, done))
        if done != before:
            since = now
            self._moved[line.address] = (now, done)
        is_long = now - since >= LONG and line.status not in OVER
        return replace(line, still=now - since) if is_long else line
