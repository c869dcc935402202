"""Works under way at once: what runs where, how many, and what becomes of errors."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from evalops.sending import Act, Sending, Steps

PATIENCE = 30.0


def steps(*acts: Callable[[], Any], trail: list[Any] | None = None, is_paid: bool = False) -> Steps[list[Any]]:
    """A work that does these one after the other, and what came of them."""
    found = []
    for act in acts:
        found.append((yield Act(act, is_paid)))
        if trail is not None:
            trail.append(threading.current_thread())
    return found


def test_a_work_goes_through_its_steps() -> None:
    sending: Sending[str, list[Any]] = Sending(1)
    trail: list[Any] = []
    sending.start("a", steps(lambda: 1, threading.current_thread, trail=trail))
    name, (one, thread) = sending.next()
    assert (name, one) == ("a", 1) and len(sending) == 0
    assert thread.daemon and thread not in trail and set(trail) == {threading.current_thread()}


def test_a_work_without_a_slow_act_has_ended_at_once() -> None:
    sending: Sending[str, list[Any]] = Sending(1)
    sending.start("a", steps())
    assert sending.is_full and sending.must_end
    assert sending.next() == ("a", []) and not sending.must_end


def test_works_are_under_way_together() -> None:
    sending: Sending[int, list[Any]] = Sending(3)
    meet = threading.Barrier(3, timeout=PATIENCE)
    for number in range(3):
        assert not sending.is_full
        sending.start(number, steps(lambda: meet.wait() >= 0))
    assert sending.is_full
    assert sorted(sending.next() for _ in range(3)) == [(0, [True]), (1, [True]), (2, [True])]


def test_only_paid_acts_must_end() -> None:
    sending: Sending[str, list[Any]] = Sending(2)
    go = threading.Event()
    sending.start("free", steps(lambda: go.wait(PATIENCE)))
    assert not sending.must_end
    sending.start("paid", steps(lambda: go.wait(PATIENCE), is_paid=True))
    assert sending.must_end
    go.set()
    assert {sending.next()[0], sending.next()[0]} == {"free", "paid"}


def test_an_error_of_an_act_is_raised_in_its_work() -> None:
    def careful() -> Steps[str]:
        try:
            yield Act(lambda: 1 // 0)
        except ZeroDivisionError:
            return (yield Act(lambda: "mended"))
        return "never"

    sending: Sending[str, str] = Sending(1)
    sending.start("a", careful())
    assert sending.next() == ("a", "mended")


def test_what_a_work_does_not_catch_is_raised_where_it_is_waited_for() -> None:
    sending: Sending[str, list[Any]] = Sending(2)
    sending.start("bad", steps(lambda: 1 // 0))
    with pytest.raises(ZeroDivisionError):
        sending.next()
    assert len(sending) == 0
    sending.start("good", steps(lambda: 1))
    assert sending.next() == ("good", [1])


def test_a_process_that_ends_waits_for_no_act() -> None:
    code = """
import time
from evalops.sending import Act, Sending
def steps():
    yield Act(lambda: time.sleep(600), is_paid=True)
sending = Sending(1)
sending.start("a", steps())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=PATIENCE).returncode == 0
