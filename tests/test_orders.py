"""Many requests at one service: how many at once, what waits for what, and what a second look brings further."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Folder
from test_once import LAG, SPEC, Bench
from together_service import Behaviour, TogetherService

from evalops import once as onces
from evalops.lock import Entry, Status
from evalops.once import key_of
from evalops.orders import Order, Orders
from evalops.plan import Action, Change

PATIENCE = 30.0
COUNT = 80


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TogetherService]:
    with TogetherService() as running:
        monkeypatch.setenv("TOGETHER_API_KEY", "sk-of-a-test")
        monkeypatch.setenv("TOGETHER_BASE_URL", running.url)
        yield running


@pytest.fixture
def bench(folder: Folder, service: TogetherService) -> Iterator[Bench]:
    names = [f"e{number}" for number in range(COUNT)]
    found = Bench(folder.write({f"{name}.yaml": SPEC.format(name=name) for name in names}), service)
    yield found
    found.close()


def change(bench: Bench, name: str, action: Action = Action.CREATE, **more: Any) -> Change:
    return Change(address=name, action=action, lock=f"{name}.lock", wanted=bench.wanted[name], **more)


def orders(bench: Bench, count: int, at_once: int = 16) -> Orders:
    """So many orders, of which none was begun."""
    found = Orders(bench.provider, bench.once, "digest", at_once)
    for number in range(count):
        found.add(change(bench, f"e{number}"))
    return found


def taken(found: Iterator[tuple[Order, Any]]) -> list[str]:
    return sorted(order.change.address for order, _ in found)


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.005)


class Background:
    """Takes the jobs of orders in a thread of its own, as apply does in its."""

    def __init__(self, wanted: Orders) -> None:
        self.found: list[str] = []
        self._thread = threading.Thread(target=lambda: self.found.extend(taken(wanted.jobs())), daemon=True)
        self._thread.start()

    def end(self) -> list[str]:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.found


@pytest.mark.parametrize("at_once", [1, 5])
def test_so_many_requests_are_under_way(bench: Bench, at_once: int) -> None:
    bench.service.behave(Behaviour(create=["slow+"] * at_once))
    wanted = Background(orders(bench, 8, at_once))
    until(lambda: bench.service.asked["create"] == at_once)
    time.sleep(0.05)  # nothing shows that no more will come
    assert bench.service.asked["create"] == at_once
    bench.service.go_on()
    assert len(wanted.end()) == len(bench.service.ledger) == 8
    assert bench.service.asked["upload"] == 1 and bench.service.asked["list"] == 1


def test_a_stop_lets_what_is_under_way_end(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["slow+"] * 3))
    wanted = orders(bench, 8, 3)
    running = Background(wanted)
    until(lambda: bench.service.asked["create"] == 3)
    bench.once.is_stopped = True
    bench.service.go_on()
    assert len(running.end()) == bench.service.asked["create"] == 3
    assert bench.once.unknown() == {} and list(wanted.left()) == []


def test_no_more_are_made_behind_a_slow_one_than_a_list_can_show(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["slow+"]))
    running = Background(orders(bench, COUNT))
    until(lambda: behind(bench) >= onces.MOST_BEHIND)
    time.sleep(0.1)
    assert behind(bench) == onces.MOST_BEHIND and bench.service.asked["create"] < COUNT
    bench.service.go_on()
    assert len(running.end()) == COUNT


def behind(bench: Bench) -> int:
    """How many requests followed the oldest that has no answer."""
    sent = sorted((each.submitted_at, bool(each.job)) for each in bench.journal.intents.values() if each.submitted_at)
    has_answer = [is_there for _, is_there in sent]
    return len(sent) - has_answer.index(False) - 1 if False in has_answer else 0


def test_what_paused_goes_on_once_the_doubt_is_gone(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], lag=LAG / 2))
    wanted = orders(bench, COUNT, 1)
    made = taken(wanted.jobs())
    assert len(made) == onces.MOST_BEHIND and wanted.is_unsettled
    (left,) = wanted.left()
    assert left.code == "apply/paused" and f"{COUNT - 1 - len(made)} evaluations" in left.message
    assert taken(wanted.more()) == []  # not listed yet
    bench.service.behave(advance=LAG / 2 + 1)
    made += taken(wanted.more())
    assert len(made) == len(set(made)) == COUNT == len(bench.service.ledger) and not wanted.is_unsettled
    assert bench.service.asked["create"] == COUNT and wanted.unclear == {}


def test_many_lost_answers_take_one_look(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+", "drop+", "html+"] * 5))
    wanted = orders(bench, 15)
    assert len(taken(wanted.jobs())) == 15 == bench.service.asked["create"]
    assert bench.service.asked["list"] == 2  # what was there before, and what was made


def test_what_is_proven_absent_is_sent_once_more(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502"]))
    wanted = orders(bench, 2, 1)
    assert taken(wanted.jobs()) == ["e1"] and list(wanted.unclear) == ["e0"]
    bench.service.behave(advance=LAG - 10)
    assert taken(wanted.more()) == [] and bench.service.asked["create"] == 2
    bench.service.behave(advance=20)
    assert taken(wanted.more()) == ["e0"] and bench.service.asked["create"] == 3
    assert len(bench.service.ledger) == 2 and wanted.unclear == {}


def test_another_time_is_left_to_the_next_apply(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502"] * 9))
    wanted = orders(bench, 1)
    assert taken(wanted.jobs()) == []
    for _ in range(3):
        bench.service.behave(advance=LAG + 10)
        assert taken(wanted.more()) == []
    assert bench.service.asked["create"] == 2 and not wanted.is_unsettled
    assert [each.code for each in wanted.problems] == ["apply/absent"] and wanted.problems[0].is_error


def test_what_an_earlier_apply_sent_is_found_and_never_sent(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+", "502"], lag=LAG / 2))
    assert taken(orders(bench, 2, 1).jobs()) == []
    bench.again()
    wanted = Orders(bench.provider, bench.once, "digest")
    for name in ("e0", "e1"):
        wanted.add(change(bench, name, Action.UNKNOWN, derived=Action.CREATE))
    assert wanted.unclear == {} and taken(wanted.jobs()) == []
    bench.service.behave(advance=LAG + 10)
    assert taken(wanted.more()) == ["e0"]
    assert bench.service.asked["create"] == 2  # nobody has agreed to pay for the other one
    assert [each.code for each in wanted.problems] == ["apply/absent"]


def test_a_look_that_fails_is_told_once(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], list=["ok", *["403"] * 3], lag=LAG / 2))
    wanted = orders(bench, 1)
    assert taken(wanted.jobs()) == []
    for _ in range(2):
        assert taken(wanted.more()) == []
        assert wanted.unclear["e0"].count("answered 403") == 1
    taken(wanted.more())
    assert "403" not in wanted.unclear["e0"] and "answered 502" in wanted.unclear["e0"]


def test_a_service_that_is_down_is_not_asked_for_each(bench: Bench) -> None:
    bench.service.behave(Behaviour(upload=["500"] * 99))
    wanted = orders(bench, 40, 2)
    assert taken(wanted.jobs()) == []
    assert bench.service.asked["upload"] <= 3 and bench.service.asked["create"] == 0
    (left,) = wanted.left()
    assert left.code == "apply/not-asked" and left.is_error and "evaluations are" in left.message
    assert all("`e" in each.message for each in wanted.problems)
    assert {each.state for each in bench.journal.intents.values()} <= {"intent"}


def test_a_refusal_of_one_is_none_of_all(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["401", "ok"]))
    wanted = orders(bench, 2, 1)
    assert taken(wanted.jobs()) == ["e1"] and "`e0`" in wanted.problems[0].message


def entry(bench: Bench, name: str, job: str) -> Entry:
    now = bench.provider.time().isoformat()
    made = bench.wanted[name].identity
    return Entry(
        address=name, fingerprint=made.fingerprint, generation=1, provider="together", origin=bench.service.url, job=job,
        status=Status.PENDING, created_at=now, dataset={}, inputs={}, grade="",
    )  # fmt: skip


@pytest.mark.parametrize(("advance", "status"), [(LAG / 2, Status.PENDING), (LAG + 5, Status.FAILED)])
def test_a_job_may_be_too_young_to_be_seen(bench: Bench, advance: float, status: Status) -> None:
    bench.provider.list()
    resumed = change(bench, "e0", Action.RESUME, entry=entry(bench, "e0", "eval-young"))
    bench.service.behave(advance=advance)
    bench.provider.list()
    wanted = Orders(bench.provider, bench.once, "digest")
    wanted.add(resumed)
    ((_, job),) = wanted.jobs()
    assert (job.id, job.status) == ("eval-young", status)


def test_what_is_free_does_not_wait_for_a_doubt(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], lag=LAG / 2))
    (*_, (order, job)) = orders(bench, onces.MOST_BEHIND + 1, 1).jobs()
    wanted = Orders(bench.provider, bench.once, "digest")
    wanted.add(change(bench, f"e{COUNT - 1}"))
    wanted.add(change(bench, order.change.address, Action.ADOPT, job=job.id))
    assert taken(wanted.jobs()) == [order.change.address]
    assert [each.code for each in wanted.left()] == ["apply/paused"]


def test_one_journal_key_is_one_order(bench: Bench) -> None:
    """Two orders for the same work, which a plan never makes: one is sent, the other waits for its outcome."""
    bench.service.behave(Behaviour(create=["slow+"]))
    wanted = orders(bench, 1)
    wanted.add(change(bench, "e0"))
    running = Background(wanted)
    until(lambda: bench.service.asked["create"] == 1)
    time.sleep(0.05)
    bench.service.go_on()
    assert set(running.end()) == {"e0"} and len(bench.service.ledger) == 1
    assert key_of(bench.provider, bench.request("e0")) in bench.journal.intents
