"""Waiting for jobs at Together: one list call for many jobs, less often the longer it takes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from types import TracebackType

from evalops.lock import Status
from evalops.providers.base import Event, Finished, Job, Progress

FIRST_WAIT, LONGEST_WAIT, LONGER = 0.25, 20.0, 1.5  # seconds, seconds, times
STEP = 0.2  # seconds after which a stop is heeded

Look = Callable[[Iterable[str]], Mapping[str, Job | None]]


class Following:
    """The events of jobs at the service.

    `look` finds jobs by their ids, None for one that is not there; it may leave out some, which are asked for next
    time. A job may be missing until `lag` seconds after it was made. `now` is the time by the service's clock.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        look: Look,
        *,
        lag: float,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._open = {job.id: job for job in jobs}
        self._look = look
        self._lag = timedelta(seconds=lag)
        self._now = now
        self._sleep = sleep
        self._is_stopped = False

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def __iter__(self) -> Iterator[Event]:
        wait = FIRST_WAIT
        while self._open and not self._is_stopped:
            open_ = len(self._open)
            for id_, found in self._look(tuple(self._open)).items():
                asked = self._open.pop(id_)
                known = self._seen(asked, found)
                if known.status in (Status.COMPLETED, Status.FAILED):
                    yield Finished(known)
                else:
                    self._open[id_] = asked  # behind those that were not looked for
                    yield Progress(job=id_, done=0, total=None, note=known.provider_status)
            if len(self._open) < open_:
                wait = FIRST_WAIT  # there may be more that have ended and were not looked for
            if self._open:
                self._pause(wait)
                wait = min(LONGEST_WAIT, wait * LONGER)
        for job in self._open.values():
            yield Finished(replace(job, status=Status.RUNNING))

    def stop(self, *, now: bool = False) -> None:
        """Wait no longer. A plain flag: a signal's handler, which calls this, may not wait for a lock."""
        self._is_stopped = True

    def _seen(self, asked: Job, found: Job | None) -> Job:
        """A job as it is now."""
        if found is not None:
            return replace(found, fingerprint=asked.fingerprint, generation=asked.generation)
        if self._now() < datetime.fromisoformat(asked.created_at) + self._lag:
            return replace(asked, provider_status="not listed yet")
        return replace(asked, status=Status.FAILED, message="Together no longer has the job")

    def _pause(self, seconds: float) -> None:
        while seconds > 0 and not self._is_stopped:
            self._sleep(min(seconds, STEP))
            seconds -= STEP
