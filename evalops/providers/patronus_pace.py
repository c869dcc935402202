"""How many calls to Patronus are under way at once, found out from how it answers; and the pauses that it asks for.

For threads what `engine.limiter` is for tasks: the window doubles with each round of answers up to the first sign of
overload, is halved at most once a round trip, and from then on grows by one call a round.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

FIRST_WINDOW = 8


class Pace:
    """Slots for calls. `clock` is in seconds, and serves pauses only."""

    def __init__(self, limit: int, window: int = FIRST_WINDOW, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = max(1, limit)
        self._window = float(min(self._limit, window))
        self._threshold = math.inf  # below it the window doubles, above it grows by one a round
        self._in_flight = self._started = 0
        self._cut = 0  # the last slot given before the window was last halved
        self._paused_until = 0.0
        self._is_stopped = False
        self._clock = clock
        self._turn = threading.Condition()

    @property
    def window(self) -> int:
        """How many calls may be under way now."""
        return int(self._window)

    @property
    def is_stopped(self) -> bool:
        """Whether no more slots are given."""
        return self._is_stopped

    def acquire(self) -> int | None:
        """A slot, to be given back with `release`; None after `stop`."""
        with self._turn:
            while not self._is_stopped:
                rest = self._paused_until - self._clock()
                if rest <= 0 and self._in_flight + 1 <= self._window:
                    self._in_flight += 1
                    self._started += 1
                    return self._started
                self._turn.wait(rest if rest > 0 else None)
            return None

    def release(self, slot: int, *, is_overloaded: bool) -> None:
        """Gives a slot back, and learns from how its call ended."""
        with self._turn:
            if is_overloaded and slot > self._cut:
                # Calls that were under way before then tell of the old window, not of the halved one.
                self._cut = self._started
                self._threshold = self._window = max(1.0, self._window / 2)
            elif not is_overloaded and self._in_flight + 1 > self._window:
                step = 1.0 if self._window < self._threshold else 1.0 / self._window
                self._window = min(float(self._limit), self._window + step)
            self._in_flight -= 1
            self._turn.notify_all()

    def pause(self, seconds: float) -> None:
        """Gives no slot for this long from now; the longest pause asked for holds."""
        with self._turn:
            self._paused_until = max(self._paused_until, self._clock() + seconds)

    def wait(self, seconds: float) -> bool:
        """Lets one caller wait; False where a stop ended it. The others go on."""
        until = self._clock() + seconds
        with self._turn:
            while not self._is_stopped and (rest := until - self._clock()) > 0:
                self._turn.wait(rest)
            return not self._is_stopped

    def stop(self) -> None:
        """Gives no more slots, and ends all waits.

        A signal's handler calls this, in a thread that may hold the lock: it only sets a flag, which `wake` tells of.
        """
        self._is_stopped = True

    def wake(self) -> None:
        """Lets those who wait see that there was a stop."""
        with self._turn:
            self._turn.notify_all()
