"""Several works under way at once: what is slow runs in threads, and everything between in one.

A work is a generator: it yields what is slow and is sent what came of it. So the steps of a paid request stand in
their order in one place, and what they share needs no lock.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from itertools import count
from typing import Any, Generic, NamedTuple, TypeVar

K = TypeVar("K")
T = TypeVar("T")
WAIT = 0.2  # seconds: a bound wait lets the main thread see signals that another thread was given


class Act(NamedTuple):
    """Something slow. `is_paid`: it is waited for, also by one who begins nothing new."""

    run: Callable[[], Any]
    is_paid: bool = False


Steps = Generator[Act, Any, T]


class Sending(Generic[K, T]):
    """Works under way, `most` at a time, each for something. All but the slow acts run in the thread that calls.

    The threads hold up nobody: a process that ends does not wait for them.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._numbers = count()
        self._under_way: dict[int, tuple[K, Steps[T], Act]] = {}
        self._answers: queue.SimpleQueue[tuple[int, Any, BaseException | None]] = queue.SimpleQueue()
        self._ended: deque[tuple[K, T]] = deque()

    def __len__(self) -> int:
        """How many works were begun whose outcome was not taken yet."""
        return len(self._under_way) + len(self._ended)

    @property
    def is_full(self) -> bool:
        return len(self) >= self._most

    @property
    def must_end(self) -> bool:
        """Whether there is an outcome to take, or a paid act to wait for."""
        return bool(self._ended) or any(act.is_paid for _, _, act in self._under_way.values())

    def start(self, what: K, steps: Steps[T]) -> None:
        """Begins a work. Raises what it raises before its first slow act."""
        self._go_on(next(self._numbers), what, steps, lambda: next(steps))

    def next(self) -> tuple[K, T]:
        """Waits until a work has ended: what it was for, and its outcome. Raises what a work raises."""
        while not self._ended:
            with contextlib.suppress(queue.Empty):
                self._hear(*self._answers.get(timeout=WAIT))
        return self._ended.popleft()

    def _hear(self, number: int, value: Any, error: BaseException | None) -> None:
        what, steps, _ = self._under_way.pop(number)
        self._go_on(number, what, steps, lambda: steps.send(value) if error is None else steps.throw(error))

    def _go_on(self, number: int, what: K, steps: Steps[T], step: Callable[[], Act]) -> None:
        try:
            act = step()
        except StopIteration as end:
            self._ended.append((what, end.value))
            return
        self._under_way[number] = what, steps, act
        threading.Thread(target=self._run, args=(number, act), name=f"evalops-{number}", daemon=True).start()

    def _run(self, number: int, act: Act) -> None:
        try:
            answer = number, act.run(), None
        except BaseException as error:  # raised where it is waited for
            self._answers.put((number, None, error))
        else:
            self._answers.put(answer)
