"""What an apply has used so far, against its budget: asked before each paid call, told after it.

Calls are counted before they are made, so there is never one too many. Money is known only once a reply is there: what
goes over are at most the calls that were under way when the bound was reached.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from evalops.settings import Budget


class OverBudget(Exception):
    """No further call may be made; the message names the bound and how much is used."""

    def __init__(self, bound: str, message: str) -> None:
        super().__init__(message)
        self.bound = bound


@dataclass(slots=True)
class _Used:
    calls: int = 0
    cost: float = 0.0


class Meter:
    """The meter of one apply, shared by all of its jobs and by all threads that make calls."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._all = _Used()
        self._jobs: defaultdict[str, _Used] = defaultdict(_Used)
        self._stopped: dict[str, str] = {}
        self._turn = threading.Lock()

    def begin(self, job: str, *, calls: int, cost: float) -> None:
        """A job goes on: what it has used in earlier applies counts too, so that no apply buys a budget anew."""
        with self._turn:
            for used in (self._all, self._jobs[job]):
                used.calls += calls
                used.cost += cost

    def take(self, job: str, *, is_free: bool = False) -> None:
        """Counts a call that is about to be made. Raises OverBudget where a bound is reached; then none is counted.

        A call that `is_free` may be made whatever others have cost.
        """
        with self._turn:
            for bound, reached in self._reached(job, is_free=is_free):
                self._stopped[job] = bound
                raise OverBudget(bound, f"`{bound}` is reached: {reached}")
            self._all.calls += 1
            self._jobs[job].calls += 1

    def give_back(self, job: str) -> None:
        """A call that was counted got no answer."""
        with self._turn:
            self._all.calls -= 1
            self._jobs[job].calls -= 1

    def pay(self, job: str, cost: float) -> None:
        """An answer cost this much."""
        with self._turn:
            self._all.cost += cost
            self._jobs[job].cost += cost

    def stopped(self, job: str) -> str | None:
        """The bound, as a setting, that a job was stopped by."""
        return self._stopped.get(job)

    def _reached(self, job: str, *, is_free: bool) -> Iterator[tuple[str, str]]:
        own = self._budget.per_evaluation
        bounds = [("budget", self._budget, self._all)]
        bounds += [("budget.per_evaluation", own, self._jobs[job])] if own else []
        for name, budget, used in bounds:
            if budget.calls is not None and used.calls >= budget.calls:
                yield f"{name}.calls", f"{used.calls:,} of {budget.calls:,}"
            if budget.cost is not None and used.cost >= budget.cost and not is_free:
                yield f"{name}.cost", f"{used.cost:.4g} of {budget.cost:g}"
