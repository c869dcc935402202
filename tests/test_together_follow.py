"""Waiting for jobs at Together, in no time: the clock and the service are values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from evalops.lock import Status
from evalops.providers.base import Event, Finished, Job, Progress
from evalops.providers.together_follow import FIRST_WAIT, LONGEST_WAIT, STEP, Following

START = datetime(2026, 1, 1, tzinfo=UTC)


def job(id_: str, status: Status = Status.RUNNING, word: str = "running") -> Job:
    return Job(
        id=id_, fingerprint="f", generation=2, status=status, provider_status=word, created_at="2026-01-01T00:00:00Z"
    )


class Scene:
    """A service that says of each job what `say` says at the time, and a clock that only sleeping moves."""

    def __init__(self, say: Callable[[str, float], Job | None], *ids: str, lag: float = 0.0, at_once: int = 99) -> None:
        self.say, self.at_once = say, at_once
        self.seconds = 0.0
        self.stop_at = float("inf")
        self.asked: list[tuple[float, tuple[str, ...]]] = []
        self.naps: list[float] = []
        self.following = Following(
            [job(id_) for id_ in ids],
            self.look,
            lag=lag,
            now=lambda: START + timedelta(seconds=self.seconds),
            sleep=self.sleep,
        )

    def look(self, ids: Iterable[str]) -> Mapping[str, Job | None]:
        named = tuple(ids)[: self.at_once]
        self.asked.append((self.seconds, named))
        return {id_: self.say(id_, self.seconds) for id_ in named}

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.seconds += seconds
        if self.seconds >= self.stop_at:
            self.following.stop()

    def events(self) -> list[Event]:
        with self.following:
            return list(self.following)


def ends(after: float, status: Status = Status.COMPLETED) -> Callable[[str, float], Job]:
    """A job that has ended after so many seconds; the service knows neither fingerprint nor generation."""
    return lambda id_, now: Job(
        id=id_,
        fingerprint="",
        generation=1,
        status=status if now >= after else Status.RUNNING,
        provider_status="word",
        created_at="2026-01-01T00:00:00Z",
    )


def test_a_job_that_has_ended_is_not_waited_for() -> None:
    scene = Scene(ends(0), "a", "b")
    events = scene.events()
    assert scene.naps == [] and len(scene.asked) == 1
    assert {
        event.job.id: (event.job.fingerprint, event.job.generation) for event in events if isinstance(event, Finished)
    } == {
        "a": ("f", 2),
        "b": ("f", 2),
    }


def test_it_asks_less_often_the_longer_it_takes() -> None:
    scene = Scene(ends(1000), "a")
    events = scene.events()
    times = [at for at, _ in scene.asked]
    waits = [round(later - earlier, 3) for earlier, later in pairwise(times)]
    assert waits[0] == pytest.approx(FIRST_WAIT) and waits == sorted(waits)
    assert waits[-1] == pytest.approx(LONGEST_WAIT) and len(waits) < 70
    assert max(scene.naps) <= STEP
    assert all(isinstance(event, Progress) and event.note == "word" for event in events[:-1])
    assert isinstance(events[-1], Finished) and events[-1].job.status is Status.COMPLETED


def test_a_failure_is_an_end() -> None:
    (event,) = Scene(ends(0, Status.FAILED), "a").events()
    assert isinstance(event, Finished) and event.job.status is Status.FAILED


def test_a_job_that_is_not_there_has_failed_once_it_should_be() -> None:
    scene = Scene(lambda id_, now: None, "a", lag=60.0)
    *before, last = scene.events()
    assert {event.note for event in before if isinstance(event, Progress)} == {"not listed yet"}
    assert isinstance(last, Finished) and last.job.status is Status.FAILED
    assert last.job.message == "Together no longer has the job"
    assert 60 <= scene.seconds < 60 + LONGEST_WAIT


def test_a_job_that_appears_late_is_followed_on() -> None:
    scene = Scene(lambda id_, now: job(id_, Status.COMPLETED) if now > 30 else None, "a", lag=60.0)
    assert isinstance(end := scene.events()[-1], Finished) and end.job.status is Status.COMPLETED


def test_of_many_jobs_each_has_its_turn() -> None:
    scene = Scene(ends(5), *"abcdefg", at_once=3)
    events = scene.events()
    assert sorted(event.job.id for event in events if isinstance(event, Finished)) == list("abcdefg")
    first = [id_ for _, ids in scene.asked[:3] for id_ in ids]
    assert set(first) == set("abcdefg")


def test_of_many_jobs_that_have_ended_none_is_waited_for_long() -> None:
    """A look that brings something is followed by another one soon, however long it has taken so far."""
    scene = Scene(ends(1000), *(f"j{number}" for number in range(100)), at_once=5)
    assert len([event for event in scene.events() if isinstance(event, Finished)]) == 100
    assert scene.seconds < 1000 + LONGEST_WAIT + 20 * 2 * FIRST_WAIT


def test_stop_leaves_the_rest_as_running() -> None:
    scene = Scene(ends(1000), "a", "b")
    events = []
    for event in scene.following:
        events.append(event)
        scene.following.stop()
    assert [event.job.status for event in events if isinstance(event, Finished)] == [Status.RUNNING] * 2
    assert scene.naps == []


def test_stop_ends_a_pause() -> None:
    scene = Scene(ends(1000), "a")
    scene.stop_at = 50
    events = scene.events()
    assert isinstance(events[-1], Finished) and events[-1].job.status is Status.RUNNING
    assert 50 <= scene.seconds <= 50 + STEP


def test_a_stop_before_the_first_look_asks_nothing() -> None:
    scene = Scene(ends(0), "a")
    scene.following.stop(now=True)
    assert [event.job.status for event in scene.events() if isinstance(event, Finished)] == [Status.RUNNING]
    assert scene.asked == []
