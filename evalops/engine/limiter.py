"""How many calls may be in flight to one endpoint, found out from how it answers.

Additive increase, multiplicative decrease, as TCP does it (RFC 5681) with calls in place of bytes: the
window doubles with each round of answers up to the first sign of overload, is halved at most once a round
trip, and from then on grows by one call a round.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Awaitable, Callable
from enum import Enum, auto

FIRST_WINDOW = 16

Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Signal(Enum):
    """What the end of a call says about the endpoint's load."""

    ANSWERED = auto()
    NOTHING = auto()
    OVERLOADED = auto()


class Limiter:
    """Slots for the calls to one endpoint: the oldest call first, a retried one keeps its turn.

    `clock` and `sleep` are in seconds; they serve pauses and deadlines.
    """

    __slots__ = (
        "_clock",
        "_closed",
        "_cut",
        "_in_flight",
        "_limit",
        "_paused_until",
        "_resuming",
        "_sleep",
        "_started",
        "_threshold",
        "_turns",
        "_waiting",
        "_window",
    )

    def __init__(self, limit: int, *, clock: Clock = time.monotonic, sleep: Sleep = asyncio.sleep) -> None:
        self._limit = max(1, limit)
        self._window = float(min(self._limit, FIRST_WINDOW))
        self._threshold = math.inf  # below it the window doubles, above it grows by one a round
        self._in_flight = 0
        self._turns = 0
        self._started = 0
        self._cut = 0  # the last slot given before the window was last halved
        self._waiting: list[tuple[int, asyncio.Future[bool]]] = []
        self._paused_until = 0.0
        self._resuming: asyncio.Task[None] | None = None
        self._closed = False
        self._clock = clock
        self._sleep = sleep

    @property
    def window(self) -> int:
        """How many calls may be in flight now."""
        return int(self._window)

    def allow(self, limit: int) -> None:
        """Raise the limit to `limit`, where that is more."""
        if limit > self._limit:
            self._limit = limit

    def turn(self) -> int:
        """A place in the queue: a call takes one and keeps it for all its attempts."""
        self._turns += 1
        return self._turns

    async def acquire(self, turn: int, deadline: float = math.inf) -> int | None:
        """A slot, to be given back with `release`; None after `close`, or if none came before `deadline`."""
        if deadline < math.inf and self._clock() >= deadline:
            return None
        if self._waiting or self._resuming or self._in_flight + 1 > self._window or self._closed:
            if self._closed or not await self._wait(turn, deadline):
                return None
        else:
            self._in_flight += 1
        self._started += 1
        return self._started

    def release(self, slot: int, signal: Signal) -> None:
        """Give a slot back and learn from how its call ended."""
        if signal is Signal.ANSWERED:
            # A window that is not full proves nothing about a larger one.
            if self._window < self._limit and self._in_flight + 1 > self._window:
                step = 1.0 if self._window < self._threshold else 1.0 / self._window
                self._window = min(float(self._limit), self._window + step)
        elif signal is Signal.OVERLOADED and slot > self._cut:
            # Calls that were already under way then tell of the old window, not of the halved one.
            self._cut = self._started
            self._threshold = self._window = max(1.0, self._window / 2)
        self._in_flight -= 1
        if self._waiting:
            self._wake()

    def pause(self, seconds: float) -> None:
        """Give no slot for `seconds` from now; the longest pause asked for holds."""
        self._paused_until = max(self._paused_until, self._clock() + seconds)
        if self._resuming is None and not self._closed:
            self._resuming = asyncio.get_running_loop().create_task(self._resume())

    def close(self) -> None:
        """Give no more slots; all who wait get None."""
        self._closed = True
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
        while self._waiting:
            _give_up(heapq.heappop(self._waiting)[1])

    async def _wait(self, turn: int, deadline: float) -> bool:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[bool] = loop.create_future()
        heapq.heappush(self._waiting, (turn, future))
        self._wake()
        timer = None
        if deadline < math.inf:
            timer = loop.call_later(max(0.0, deadline - self._clock()), _give_up, future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.result():
                # The slot came in the same moment: pass it on, or it would be lost for ever.
                self._in_flight -= 1
                self._wake()
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        while self._waiting and self._resuming is None and self._in_flight + 1 <= self._window:
            _, future = heapq.heappop(self._waiting)
            if not future.done():  # else its call was cancelled or gave up
                self._in_flight += 1
                future.set_result(True)

    async def _resume(self) -> None:
        while (rest := self._paused_until - self._clock()) > 0:
            await self._sleep(rest)
        self._resuming = None
        self._wake()


def _give_up(future: asyncio.Future[bool]) -> None:
    if not future.done():
        future.set_result(False)
