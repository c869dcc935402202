"""The limiter: its window, its queue, its pauses, and what it costs."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.engine.limiter import FIRST_WINDOW, Limiter, Signal


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)
        self.now += seconds


async def settle() -> None:
    """Let everything that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def fill(limiter: Limiter) -> list[int]:
    """Take all slots of the window, while none is taken: as many as it says, and not one more."""
    tasks = [asyncio.ensure_future(limiter.acquire(limiter.turn())) for _ in range(limiter.window)]
    await settle()
    assert all(task.done() for task in tasks)
    await require_none_left(limiter)
    return [slot for task in tasks if (slot := task.result()) is not None]


async def require_none_left(limiter: Limiter) -> None:
    """Whoever asks for a slot now has to wait; this one goes away again, and takes nothing along."""
    more = asyncio.ensure_future(limiter.acquire(limiter.turn()))
    await settle()
    assert not more.done()
    more.cancel()
    await settle()


async def round_trip(limiter: Limiter, signal: Signal = Signal.ANSWERED) -> None:
    for slot in await fill(limiter):
        limiter.release(slot, signal)


def test_the_window_doubles_each_round_up_to_the_limit() -> None:
    async def run() -> list[int]:
        limiter, windows = Limiter(100), []
        for _ in range(5):
            windows.append(limiter.window)
            # As in a run: as soon as one call ends, the next one takes its slot.
            slots = await fill(limiter)
            waiting = [asyncio.ensure_future(limiter.acquire(limiter.turn())) for _ in range(100)]
            await settle()
            for slot in slots:
                limiter.release(slot, Signal.ANSWERED)
            await settle()
            for task in waiting:
                if task.done() and (given := task.result()) is not None:
                    limiter.release(given, Signal.NOTHING)
                task.cancel()
            await settle()
        return windows

    assert asyncio.run(run()) == [FIRST_WINDOW, 32, 64, 100, 100]


@pytest.mark.parametrize("limit", [1, 3])
def test_a_small_limit_is_kept_from_the_start(limit: int) -> None:
    async def run() -> int:
        limiter = Limiter(limit)
        for _ in range(5):
            await round_trip(limiter)
        return limiter.window

    assert asyncio.run(run()) == limit


def test_a_round_of_overload_halves_the_window_once() -> None:
    async def run() -> None:
        limiter = Limiter(16)
        await round_trip(limiter, Signal.OVERLOADED)
        assert limiter.window == 8
        await round_trip(limiter, Signal.OVERLOADED)
        assert limiter.window == 4

    asyncio.run(run())


def test_calls_that_were_under_way_at_the_cut_do_not_cut_again() -> None:
    async def run() -> None:
        limiter = Limiter(16)
        slots = await fill(limiter)
        for slot in slots[:9]:
            limiter.release(slot, Signal.OVERLOADED)
        late = await limiter.acquire(limiter.turn())  # one of the halved window
        assert late is not None
        for slot in slots[9:]:
            limiter.release(slot, Signal.OVERLOADED)
        assert limiter.window == 8
        limiter.release(late, Signal.OVERLOADED)
        assert limiter.window == 4

    asyncio.run(run())


def test_the_window_never_closes_and_grows_by_one_a_round_after_overload() -> None:
    async def run() -> None:
        limiter = Limiter(64)
        for _ in range(10):
            await round_trip(limiter, Signal.OVERLOADED)
        assert limiter.window == 1
        windows = []
        for _ in range(12):
            slots = await fill(limiter)
            waiting = asyncio.ensure_future(limiter.acquire(limiter.turn()))
            await settle()
            for slot in slots:
                limiter.release(slot, Signal.ANSWERED)
            last = await waiting
            assert last is not None
            limiter.release(last, Signal.NOTHING)
            windows.append(limiter.window)
        assert all(after - before <= 1 for before, after in itertools.pairwise(windows))
        assert 3 <= windows[-1] <= 13

    asyncio.run(run())


def test_a_window_that_nobody_fills_stays() -> None:
    async def run() -> int:
        limiter = Limiter(64)
        for _ in range(100):
            slot = await limiter.acquire(limiter.turn())
            assert slot is not None
            limiter.release(slot, Signal.ANSWERED)
        return limiter.window

    assert asyncio.run(run()) == FIRST_WINDOW


def test_an_endpoint_that_takes_twenty_at_once_is_kept_near_twenty() -> None:
    async def run() -> list[int]:
        limiter, windows = Limiter(256), []
        for _ in range(200):
            slots = await fill(limiter)
            waiting = asyncio.ensure_future(limiter.acquire(limiter.turn()))
            await settle()
            for place, slot in enumerate(slots):
                limiter.release(slot, Signal.ANSWERED if place < 20 else Signal.OVERLOADED)
            last = await waiting
            assert last is not None
            limiter.release(last, Signal.NOTHING)
            windows.append(limiter.window)
        return windows[20:]

    windows = asyncio.run(run())
    assert min(windows) >= 9 and max(windows) <= 22
    assert 13 <= sum(windows) / len(windows) <= 20


def test_the_oldest_call_goes_first_and_a_retry_keeps_its_turn() -> None:
    async def run() -> list[str]:
        limiter, order = Limiter(1), []

        async def wait(name: str, turn: int) -> None:
            slot = await limiter.acquire(turn)
            assert slot is not None
            order.append(name)
            limiter.release(slot, Signal.NOTHING)

        first = limiter.turn()
        (slot,) = await fill(limiter)
        tasks = [asyncio.create_task(wait(name, limiter.turn())) for name in "bcd"]
        await settle()
        tasks.append(asyncio.create_task(wait("a again", first)))
        await settle()
        limiter.release(slot, Signal.NOTHING)
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(run()) == ["a again", "b", "c", "d"]


def test_a_call_that_is_cancelled_in_the_queue_takes_no_slot() -> None:
    async def run() -> None:
        limiter = Limiter(1)
        (slot,) = await fill(limiter)
        gone, next_ = (asyncio.ensure_future(limiter.acquire(limiter.turn())) for _ in range(2))
        await settle()
        gone.cancel()
        await settle()
        limiter.release(slot, Signal.NOTHING)
        assert await next_ is not None
        await require_none_left(limiter)

    asyncio.run(run())


def test_a_call_that_is_cancelled_as_its_slot_comes_passes_it_on() -> None:
    async def run() -> None:
        limiter = Limiter(1)
        (slot,) = await fill(limiter)
        gone, next_ = (asyncio.ensure_future(limiter.acquire(limiter.turn())) for _ in range(2))
        await settle()
        limiter.release(slot, Signal.NOTHING)  # the slot is given, but `gone` has not run yet
        gone.cancel()
        assert await next_ is not None
        assert gone.cancelled()
        await require_none_left(limiter)

    asyncio.run(run())


def test_a_pause_holds_everybody_and_the_longest_counts() -> None:
    async def run() -> list[tuple[str, float]]:
        clock, order = Time(), []
        limiter = Limiter(2, clock=clock, sleep=clock.sleep)

        async def wait(name: str) -> None:
            slot = await limiter.acquire(limiter.turn())
            assert slot is not None
            order.append((name, clock.now))
            limiter.release(slot, Signal.ANSWERED)

        limiter.pause(5)
        limiter.pause(7)
        limiter.pause(1)
        await asyncio.gather(*(wait(name) for name in "abc"))
        await wait("d")
        return order

    assert asyncio.run(run()) == [("a", 7.0), ("b", 7.0), ("c", 7.0), ("d", 7.0)]


def test_closing_sends_all_who_wait_away() -> None:
    async def run() -> None:
        limiter = Limiter(1)
        (slot,) = await fill(limiter)
        waiting = [asyncio.ensure_future(limiter.acquire(limiter.turn())) for _ in range(3)]
        await settle()
        limiter.pause(60)
        limiter.close()
        assert await asyncio.gather(*waiting) == [None, None, None]
        limiter.release(slot, Signal.ANSWERED)
        assert await limiter.acquire(limiter.turn()) is None

    asyncio.run(run())


def test_nobody_waits_beyond_the_deadline() -> None:
    async def run() -> None:
        limiter = Limiter(1)
        now = time.monotonic()
        assert await limiter.acquire(limiter.turn(), now - 1) is None
        (slot,) = await fill(limiter)
        assert await limiter.acquire(limiter.turn(), now + 0.02) is None
        limiter.release(slot, Signal.ANSWERED)
        assert await limiter.acquire(limiter.turn(), now + 60) is not None
        await require_none_left(limiter)

    asyncio.run(run())


def test_the_limit_can_be_raised_not_lowered() -> None:
    async def run() -> int:
        limiter = Limiter(2)
        limiter.allow(4)
        limiter.allow(1)
        for _ in range(5):
            slots = await fill(limiter)
            for slot in slots:
                limiter.release(slot, Signal.ANSWERED)
        return limiter.window

    assert asyncio.run(run()) == 4


STEPS = st.lists(
    st.tuples(st.sampled_from(["start", "end", "cancel", "pause"]), st.integers(0, 99), st.sampled_from(Signal)),
    max_size=60,
)


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 20), steps=STEPS)
def test_no_slot_is_lost_or_given_twice(limit: int, steps: list[tuple[str, int, Signal]]) -> None:
    async def run() -> None:
        clock = Time()
        limiter = Limiter(limit, clock=clock, sleep=clock.sleep)
        held: list[int] = []
        waiting: list[asyncio.Task[int | None]] = []

        async def collect() -> None:
            await settle()
            for task in [task for task in waiting if task.done()]:
                waiting.remove(task)
                if not task.cancelled() and (slot := task.result()) is not None:
                    held.append(slot)
            assert not waiting or len(held) >= limiter.window
            assert len(set(held)) == len(held) <= limit

        for what, place, signal in steps:
            if what == "start":
                waiting.append(asyncio.create_task(limiter.acquire(limiter.turn())))
            elif what == "end" and held:
                limiter.release(held.pop(place % len(held)), signal)
            elif what == "cancel" and waiting:
                waiting[place % len(waiting)].cancel()
            elif what == "pause":
                limiter.pause(place)
            if place % 3:
                await collect()
        await collect()
        while held:
            limiter.release(held.pop(), Signal.NOTHING)
            await collect()
        assert not waiting
        assert len(await fill(limiter)) == limiter.window  # none is lost, and none is there twice

    asyncio.run(run())
