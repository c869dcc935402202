"""What is carried out in a project just now, by this server or by any other process, the same for every browser.

Nothing is kept here that could not be lost: a run is in its store and in the lockfiles, and after a kill the plan
says that it goes on. Rows are counted in the store of the provider `local`, whichever process writes it.
"""

from __future__ import annotations

import itertools
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol, cast

from evalops import api, hold
from evalops.apply import Stop
from evalops.errors import Diagnostic, EvalopsError, Exit
from evalops.hold import Holder
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Event, Finished, Notice, Progress
from evalops.ui.frame import Site
from evalops.ui.pace import Counts, Line, Rates, counted, moved

Json = dict[str, Any]

COUNTED = "local"  # the provider whose rows can be counted while they come
FRESH, LAZY = 0.4, 10.0  # seconds for which a look is as good as a new one, and times what it took
MOST_NOTICES = 20
WORK = frozenset({"create", "rerun", "resume", "adopt", "regrade"})  # actions that end with a result


class Phase(StrEnum):
    """What this project does. `elsewhere`: another process applies; `ended`: the last apply of this server has."""

    IDLE = "idle"
    HERE = "here"
    STOPPING = "stopping"
    ELSEWHERE = "elsewhere"
    ENDED = "ended"

    @property
    def is_busy(self) -> bool:
        """Whether an apply runs, so that none can be started."""
        return self in (Phase.HERE, Phase.STOPPING, Phase.ELSEWHERE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What came of an apply: its exit code as a word, what is to be said, and the evaluations that it touched."""

    word: str
    diagnostics: tuple[Diagnostic, ...] = ()
    results: tuple[Json, ...] = ()
    unclear: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The whole at one moment. A page with another `key` shows something else, and is made anew."""

    key: str
    phase: Phase
    lines: tuple[Line, ...] = ()
    notices: tuple[str, ...] = ()
    holder: Holder | None = None
    ended: Ended | None = None


class _Counted(Protocol):
    def counts(self, job: str) -> Counts: ...


@dataclass(slots=True)
class _Run:
    """An apply of this server, and what it has told so far."""

    number: int
    changes: Sequence[Json]
    stop: Stop = field(default_factory=Stop)
    thread: threading.Thread | None = None
    moves: dict[str, Progress] = field(default_factory=dict)
    over: dict[str, Finished] = field(default_factory=dict)
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_NOTICES))
    ended: Ended | None = None

    def observe(self, address: str, event: Event) -> None:
        match event:
            case Notice(text):
                self.notices.append(text)
            case Finished():
                self.over[address] = event
            case Progress():
                self.moves[address] = event


class Underway:
    """The one apply that a project has at a time. All of it may be asked by any thread."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._id = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._looking = threading.Lock()
        self._run: _Run | None = None
        self._rates = Rates()
        self._seen: tuple[Holder | None, dict[str, None]] = (None, {})
        self._last: tuple[float, Look] = (0.0, Look(key="", phase=Phase.IDLE))
        site.closing.add(self.stop, self._wait)

    # --- what browsers ask for ---

    def start(self, plan: api.Plan, *, retry_failed: bool) -> bool:
        """Carries out a plan in a thread; False where an apply runs already, here or elsewhere."""
        with self._lock:
            if self._is_running or self._holder() is not None or self._site.closing.is_now:
                return False
            run = self._run = _Run(next(self._numbers), plan.changes)
            carry_out = _carrying(self._site.api, plan, run, retry_failed=retry_failed)
            run.thread = threading.Thread(target=carry_out, name="evalops-apply", daemon=True)
            run.thread.start()
        self._forget_look()
        return True

    def stop(self) -> None:
        """Ends an apply of this server in order: rows in flight end and are kept. It does not wait for that."""
        run = self._run
        if run is not None and self._is_running:
            run.stop.ask()
            self._forget_look()

    def look(self) -> Look:
        """How it stands. Short looks only: however many browsers ask, and however large a store is."""
        with self._looking:
            until, last = self._last
            if time.monotonic() < until:
                return last
            began = time.monotonic()
            found = self._look()
            took = time.monotonic() - began
            self._last = (began + took + max(FRESH, LAZY * took), found)
            return found

    def here(self, changes: Iterable[Json]) -> dict[str, Line]:
        """The rows that are there already of what goes on, by address."""
        going_on = {each["address"] for each in changes if each["action"] == "resume"}
        return {each.address: each for each in self._open(self._site.project) if each.address in going_on}

    # --- how it stands ---

    @property
    def _is_running(self) -> bool:
        return self._run is not None and self._run.ended is None

    def _wait(self) -> None:
        if self._run is not None and self._run.thread is not None:
            self._run.thread.join()

    def _forget_look(self) -> None:
        with self._looking:
            self._last = (0.0, self._last[1])

    def _holder(self) -> Holder | None:
        """Another process that applies, or imports. What this one does for a moment is not told."""
        found = hold.holder(self._site.project.state / "apply.lock")
        return None if found is None or found.pid == os.getpid() else found

    def _look(self) -> Look:
        run = self._run
        if run is not None and run.ended is None:
            phase = Phase.STOPPING if run.stop.is_asked else Phase.HERE
            return self._made(phase, run.number, self._of_run(run), notices=tuple(run.notices))
        holder = self._holder()
        if holder is not None:
            return self._made(Phase.ELSEWHERE, f"{holder.pid}.{holder.since}", self._of_other(holder), holder=holder)
        self._rates.clear()
        if run is not None:
            return self._made(Phase.ENDED, run.number, (), ended=run.ended, notices=tuple(run.notices))
        return self._made(Phase.IDLE, 0, ())

    def _made(self, phase: Phase, number: object, lines: Iterable[Line], **more: Any) -> Look:
        found = tuple(self._rates.paced(each) for each in lines)
        return Look(key=f"{self._id}.{phase}.{number}", phase=phase, lines=found, **more)

    def _of_run(self, run: _Run) -> list[Line]:
        found, project = [], self._site.project
        for change in run.changes:
            if change["action"] not in WORK:
                continue
            address = change["address"]
            line = Line(address=address, status="waiting")
            if address in run.moves:
                line = moved(line, run.moves[address], _counts(project, run.moves[address].job))
            if address in run.over:
                job = run.over[address].job
                line = replace(line, status=job.status.value, note=job.message or "")
            found.append(line)
        return found

    def _of_other(self, holder: Holder) -> list[Line]:
        """What an apply elsewhere is at, by its lockfiles and the store; what it has done since stays in sight."""
        if self._seen[0] != holder:
            self._seen = (holder, {})
        project = self._site.project
        lines = {each.address: each for each in self._open(project)}
        self._seen[1].update(dict.fromkeys(lines))
        gone = [address for address in self._seen[1] if address not in lines]
        if gone:
            entries = {each["address"]: each for each in api.states(project.locks()[0])}
            for address in gone:
                status = entries[address]["status"] if address in entries else "forgotten"
                lines[address] = Line(address=address, status=status)
        return [lines[address] for address in sorted(lines)]

    def _open(self, project: Project) -> list[Line]:
        """Every evaluation whose job has not ended."""
        locks, _ = project.locks()
        found = []
        for entry in (each for lock in locks.values() for each in lock.entries.values()):
            if entry.status.is_open:
                total = entry.dataset.get("rows")
                line = Line(address=entry.address, status="under way", total=total)
                is_counted = entry.provider == COUNTED and entry.job
                found.append(counted(line, _counts(project, entry.job or "")) if is_counted else line)
        return found


def _counts(project: Project, job: str) -> Counts:
    with closing(open_provider(COUNTED, project)) as provider:
        return cast(_Counted, provider).counts(job)


def _carrying(project: api.Project, plan: api.Plan, run: _Run, *, retry_failed: bool) -> Callable[[], None]:
    """The apply as what a thread does: whatever comes of it is told, nothing is raised."""

    def carry_out() -> None:
        try:
            done = project.apply(plan, retry_failed=retry_failed, progress=run.observe, stop=run.stop)
        except EvalopsError as error:
            run.ended = Ended(word="problem", diagnostics=tuple(error.diagnostics))
        except BaseException as error:
            message = f"a bug of evalops stopped the apply: {type(error).__name__}; what was done is kept"
            run.ended = Ended(word="problem", diagnostics=(Diagnostic(code="ui/bug", message=message),))
            raise
        else:
            run.ended = Ended(
                word=_WORDS.get(done.exit_code, "problem"),
                diagnostics=done.diagnostics,
                results=tuple(done.results),
                unclear=done.unclear,
            )

    return carry_out


_WORDS = {
    Exit.OK: "done", Exit.GATE_FAILED: "gates failed", Exit.INTERRUPTED: "stopped", Exit.STILL_RUNNING: "still running",
    Exit.UNKNOWN_OUTCOME: "unknown outcome",
}  # fmt: skip
