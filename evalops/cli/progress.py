"""How far an apply is: one line an evaluation on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from evalops.apply import Observer
from evalops.cli.output import say
from evalops.providers.base import Event, Finished, Notice, Progress
from evalops.views.safe import line

EVERY = 10.0  # seconds between two plain lines of one evaluation


@contextmanager
def watch() -> Iterator[Observer]:
    """An observer that shows events on stderr."""
    if not sys.stderr.isatty():
        yield _Plain()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeRemainingColumn(),
        TextColumn("{task.fields[counts]}", markup=False),
    )
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)


class _Plain:
    """A line when an evaluation begins to move, every few seconds, and when it ends."""

    def __init__(self) -> None:
        self._shown: dict[str, float] = {}

    def __call__(self, address: str, event: Event) -> None:
        now = time.monotonic()
        match event:
            case Notice(text):
                say(line(text))
            case Finished(job):
                say(f"{line(address)}: {job.status.value}")
            case Progress() if event.done and now - self._shown.setdefault(address, now) >= EVERY:
                self._shown[address] = now
                say(f"{line(address)}: {event.done} of {event.total} rows{_counts(event)}")


class _Bars:
    """One bar an evaluation."""

    def __init__(self, bars: Any) -> None:
        self._bars = bars
        self._tasks: dict[str, Any] = {}
        self._started: dict[str, tuple[float, int]] = {}

    def __call__(self, address: str, event: Event) -> None:
        match event:
            case Notice(text):
                self._bars.console.print(line(text), markup=False, highlight=False)
            case Finished(job):
                task = self._tasks.pop(address, None)
                if task is not None:
                    self._bars.remove_task(task)
                self._bars.console.print(f"{line(address)}: {job.status.value}", markup=False, highlight=False)
            case Progress():
                self._move(address, event)

    def _move(self, address: str, event: Progress) -> None:
        now = time.monotonic()
        started, first = self._started.setdefault(address, (now, event.done))
        rate = (event.done - first) / (now - started) if now > started else 0.0
        if address not in self._tasks:
            self._tasks[address] = self._bars.add_task(line(address), total=event.total, rate="", counts="")
        self._bars.update(
            self._tasks[address],
            completed=event.done,
            rate=f"{rate:.1f}/s" if rate else "",
            counts=_counts(event),
        )


def _counts(event: Progress) -> str:
    words = [f"{event.counts[name]} {name}" for name in ("invalid", "error") if event.counts.get(name)]
    return f" ({', '.join(words)})" if words else ""
