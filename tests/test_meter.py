"""The meter of an apply: no call too many, and money as soon as it is known."""

from __future__ import annotations

import threading

import pytest

from evalops.meter import Meter, OverBudget
from evalops.settings import Budget


def used_up(meter: Meter, job: str, most: int = 1000, cost: float = 0.0) -> tuple[int, OverBudget]:
    """How many calls a job may make, each for `cost`, and what ends that."""
    for number in range(most):
        try:
            meter.take(job)
        except OverBudget as over:
            return number, over
        meter.pay(job, cost)
    raise AssertionError("nothing ends it")


@pytest.mark.parametrize(
    ("budget", "cost", "calls", "bound", "message"),
    [
        (Budget(calls=5), 1.0, 5, "budget.calls", "`budget.calls` is reached: 5 of 5"),
        (Budget(calls=0), 0.0, 0, "budget.calls", "`budget.calls` is reached: 0 of 0"),
        (Budget(cost=2.5), 1.0, 3, "budget.cost", "`budget.cost` is reached: 3 of 2.5"),
        (Budget(cost=2.0), 1.0, 2, "budget.cost", "`budget.cost` is reached: 2 of 2"),
        (Budget(per_evaluation=Budget(calls=4)), 0.0, 4, "budget.per_evaluation.calls", None),
        (Budget(calls=9, per_evaluation=Budget(cost=0.5)), 0.25, 2, "budget.per_evaluation.cost", None),
        (Budget(calls=2, per_evaluation=Budget(calls=3)), 0.0, 2, "budget.calls", None),
    ],
)
def test_a_bound(budget: Budget, cost: float, calls: int, bound: str, message: str | None) -> None:
    meter = Meter(budget)
    made, over = used_up(meter, "a", cost=cost)
    assert (made, over.bound) == (calls, bound) and meter.stopped("a") == bound
    assert message is None or str(over) == message
    assert used_up(meter, "a")[0] == 0, "it stays so"


def test_without_a_budget_nothing_ends_it() -> None:
    with pytest.raises(AssertionError, match="nothing ends it"):
        used_up(Meter(Budget(rows=0)), "a", cost=1e9)


def test_one_job_of_several() -> None:
    meter = Meter(Budget(calls=7, per_evaluation=Budget(calls=5)))
    assert used_up(meter, "a")[1].bound == "budget.per_evaluation.calls"
    made, over = used_up(meter, "b")
    assert (made, over.bound) == (2, "budget.calls") and meter.stopped("a") == "budget.per_evaluation.calls"
    assert meter.stopped("c") is None


def test_what_a_job_took_before_counts() -> None:
    meter = Meter(Budget(calls=10, per_evaluation=Budget(cost=2.0)))
    meter.begin("a", calls=7, cost=0.0)
    meter.begin("b", calls=1, cost=2.0)
    assert used_up(meter, "b")[1].bound == "budget.per_evaluation.cost"
    assert used_up(meter, "a")[0] == 2


def test_a_call_without_an_answer_is_none() -> None:
    meter = Meter(Budget(calls=1))
    for _ in range(3):
        meter.take("a")
        meter.give_back("a")
    assert used_up(meter, "a")[0] == 1


def test_what_is_free_is_not_held_up_by_what_others_cost() -> None:
    meter = Meter(Budget(cost=0.0, calls=2))
    with pytest.raises(OverBudget):
        meter.take("a")
    for _ in range(2):
        meter.take("a", is_free=True)
    with pytest.raises(OverBudget, match="calls"):
        meter.take("a", is_free=True)


def test_many_threads_make_no_call_too_many() -> None:
    meter, made = Meter(Budget(calls=500)), []

    def call() -> None:
        made.append(used_up(meter, threading.current_thread().name)[0])

    threads = [threading.Thread(target=call) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 500
