"""Schedules of crashes and faults for apply at a paid service, and the invariants that none may break.

A schedule says where an apply dies, what the service does meanwhile and what the user does in between; `play` runs it
to its end and returns what was broken. A crash point is before, inside or after a record of the journal, a lockfile's
replacement or the one request; it is reached in a forked child, which ends there without a word.

    with Stage(tmp_path) as stage:
        broken = stage.play(Schedule(seed=1, create=["502+"], crashes=[7]))

The stage is a process of one thread: `python crash_schedules.py FOLDER < schedules.json` for use from tests.
"""

from __future__ import annotations

import errno
import gc
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
from together_service import CREATES, Behaviour, Remote, TogetherService

from evalops import journal as journals
from evalops import planning
from evalops.cli import apply as command
from evalops.cli.output import complain
from evalops.errors import Diagnostic, EvalopsError
from evalops.journal import Journal, durably
from evalops.lock import Lock
from evalops.project import Project
from evalops.providers import together_request
from evalops.providers.base import Job
from evalops.providers.client import Client, Timeouts
from evalops.providers.together import Together

KEY = "sk-canary-of-together-3fA9"
TOKEN = "sk-canary-of-the-vendor-8Zq1"
CRASHED = 137
MEMORY = "/dev/shm"  # a file system in memory, on Linux
TIMES = Timeouts(connect=5.0, idle=0.25, body=1.0)
LATER = 1000.0  # seconds of the service's clock between two applies of a patient user: more than its lag
MOST_APPLIES = 12  # until everything must be settled
OPTIONS: Mapping[str, Any] = {
    "selectors": (), "exclude": (), "changed_since": None, "rerun": (), "reason": None, "retry_failed": False,
    "yes": True, "approved": None, "verbose": True, "jobs": 1,
}  # fmt: skip


@dataclass(kw_only=True)
class Schedule:
    """`crashes` are the numbers of the crash points of the first applies, None for none. See `Behaviour` for the rest.

    `edit` is what happens after the first apply: a template is `edited`, a spec `deleted`, `state` or a `lock` is
    lost. From write number `full` of the first apply on, the disk is full. With `signals`,
    a crash is no crash, but so many SIGINT. `jump` moves this machine's clock for that apply and the later ones, `skew` the service's, for good (seconds).
    `jobs` is how many requests are under way at a time: with more than one, what a crash point meets is chance.
    """

    seed: int
    specs: int = 2
    behaviour: dict[str, Any] = field(default_factory=dict)
    others: int = 3
    crashes: list[int | None] = field(default_factory=list)
    edit: str | None = None
    jump: float = 0.0
    skew: float = 0.0
    rerun: bool = False
    full: int | None = None
    signals: int = 0
    jobs: int = 1
    mutant: str | None = None


class Ran(NamedTuple):
    """How an apply ended, and what it said."""

    code: int
    said: str


class Stage:
    """A service in a process of its own and folders for projects. A context."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._number = 0
        os.environ["TOGETHER_API_KEY"] = KEY
        os.environ["VENDOR_KEY"] = TOKEN

    def __enter__(self) -> Stage:
        service = TogetherService()
        self._service = os.fork()
        if not self._service:
            service.serve_forever()
        service._server.server_close()
        self.remote = Remote(service.url)
        os.environ["TOGETHER_BASE_URL"] = service.url
        self.warm_up()
        gc.collect()
        gc.freeze()  # children share what they do not touch
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self._service, signal.SIGKILL)
        os.waitpid(self._service, 0)

    def warm_up(self) -> None:
        """An apply in this process imports and caches what each child would have to."""
        root = self._project(Schedule(seed=0))
        self.remote.reset(Behaviour())
        _quietly(lambda: _apply(root, Points(), Schedule(seed=0), OPTIONS), root.parent / "warm")

    def play(self, schedule: Schedule) -> list[str]:
        """Runs a schedule to its end; what it broke, in words."""
        root = self._project(schedule)
        behaviour = Behaviour(**json.loads(json.dumps(schedule.behaviour)))
        self.remote.reset(behaviour, others=schedule.others, advance=schedule.skew)
        try:
            return Play(self.remote, root, schedule).run()
        finally:
            shutil.rmtree(root.parent)

    def _project(self, schedule: Schedule) -> Path:
        self._number += 1
        root = self._folder / f"{os.getpid()}-{self._number}" / "project"
        root.mkdir(parents=True)
        write_project(root, schedule.specs)
        return root


def write_project(root: Path, specs: int, *, settings: Mapping[str, Any] | None = None) -> None:
    """Specs `s0` … for the service; every third one calls a model of another vendor with a key of its own."""
    value = {
        "version": 1,
        "provider": "together",
        "credentials": {"vendor": {"env": "VENDOR_KEY", "origins": [os.environ.get("TOGETHER_BASE_URL", "http://127.0.0.1:1"), "https://vendor.example"]}},
        **(settings or {}),
    }  # fmt: skip
    (root / "evalops.yaml").write_text(json.dumps(value))
    (root / "rows.jsonl").write_text(
        "".join(json.dumps({"q": f"q{n}", "a": f"a{n % 2}", "id": n}) + "\n" for n in range(3))
    )
    for number in range(specs):
        write_spec(root, number)


def write_spec(root: Path, number: int, text: str = "Is it polite?") -> None:
    model: dict[str, Any] = {"model": "Qwen/Qwen3.5-9B"}
    if number % 3 == 2:
        url = {"external_base_url": "https://vendor.example/v1", "credential": "vendor"}
        model = {"model": "theirs", "model_source": "external", **url}
    spec = {
        "version": 1, "name": f"s{number}", "type": "classify", "dataset": "rows.jsonl",
        "judge": {**model, "system_template": f"{text} No. {number}: {{{{ q }}}}"},
        "model_to_evaluate": "a", "labels": ["yes", "no"], "pass_labels": ["yes"],
    }  # fmt: skip
    (root / f"s{number}.yaml").write_text(json.dumps(spec))


# --- one schedule ---


@dataclass
class Play:
    """A schedule under way."""

    remote: Remote
    root: Path
    schedule: Schedule
    broken: list[str] = field(default_factory=list)
    said: str = ""
    had: set[str] = field(default_factory=set)  # jobs that were in a lockfile at some time

    def run(self) -> list[str]:
        chance = random.Random(self.schedule.seed)
        options = dict(OPTIONS)
        if self.schedule.rerun:
            self._until_settled(chance)
            options |= {"rerun": ("s0",), "reason": "once more"}
        for number, crash in enumerate(self.schedule.crashes):
            self._apply(crash, options, full=None if number else self.schedule.full)
            if number == 0:
                self._edit()
            if chance.random() < 0.3:
                self.remote.behave(advance=chance.choice([1.0, 300.0, LATER]))
        if self.schedule.rerun:
            options = (
                {**OPTIONS, "rerun": ("s0",), "reason": "it is paid for"} if self._generation() < 2 else dict(OPTIONS)
            )
        self._until_settled(chance, options)
        if not self.broken:
            self._is_still()
        self._no_secret()
        return [f"{each} {asdict(self.schedule)}\n{self.said}" for each in self.broken]

    def _until_settled(self, chance: random.Random, options: Mapping[str, Any] = OPTIONS) -> None:
        for number in range(MOST_APPLIES):
            if number == MOST_APPLIES // 2:
                self.remote.behave(Behaviour())  # it is mended: from a list that is cut nothing could be proven
            done = self._apply(None, options)
            if done.code == 0 or self.broken:
                return
            if options["rerun"] and self._generation() > 1:
                options = OPTIONS
            self.remote.behave(advance=chance.choice([LATER, LATER, 60.0]))
        self.broken.append(f"liveness: still {done.code} after {MOST_APPLIES} applies")

    def _is_still(self) -> None:
        """I4: a further apply does nothing."""
        before, locks = self.remote.state(), self._lock_bytes()
        done = self._apply(None, OPTIONS)
        after = self.remote.state()
        if done.code or after["asked"]["create"] != before["asked"]["create"] or locks != self._lock_bytes():
            self.broken.append(f"I4: a further apply ended with {done.code} and asked {after['asked']}")

    def _apply(self, crash: int | None, options: Mapping[str, Any], full: int | None = None) -> Ran:
        options = {**options, "jobs": self.schedule.jobs}
        done = in_child(self.root, self.schedule, options, Points(crash, full, self.schedule.signals))
        self.said += f"--- apply, crash {crash}, exit {done.code} ---\n{done.said}"
        self._check(done)
        return done

    def _check(self, done: Ran) -> None:
        if done.code == 70:
            self.broken.append("bug: an exception that nobody caught")
        state = self.remote.state()
        paid = Counter(each["work"] for each in state["ledger"])
        for work, count in paid.items():
            if count > 1:
                self.broken.append(f"I1: {work} was paid for {count} times")
        locked = self._locked()
        self.had |= locked
        for job in locked - {each["id"] for each in state["jobs"]}:
            self.broken.append(f"I3: {job} is in a lockfile and nowhere else")
        forged = {job for job in locked if self._is_forged(job, state)}
        if forged:
            self.broken.append(f"forged: {forged} was adopted")
        if done.code != CRASHED:
            self._check_found(done, state, locked)

    def _check_found(self, done: Ran, state: Mapping[str, Any], locked: set[str]) -> None:
        """I2: what was paid is in a lockfile, or it is reported: as open with exit code 4, or by its job's id."""
        intents = journals.read(self.root / ".evalops" / planning.JOURNAL).values()
        open_ = {f"{each.key.fingerprint[:16]}-{each.key.generation}" for each in intents if each.is_open}
        known = {each.job for each in intents if each.job}
        for entry in state["ledger"]:
            if (locked | (self.had if self._may_replace() else set())) & set(entry["ids"]):
                continue
            is_open = entry["work"] in open_ and done.code in (4, 130)
            is_told = any(job in known and (done.code or job in done.said) for job in entry["ids"])
            if not is_open and not is_told:
                self.broken.append(f"I2: {entry['ids']} is nowhere, and the exit code is {done.code}")

    def _may_replace(self) -> bool:
        """Whether an entry may rightly give way to another: the user wanted that."""
        return self.schedule.rerun or self.schedule.edit in ("edited", "deleted")

    def _is_forged(self, job: str, state: Mapping[str, Any]) -> bool:
        found = [each["parameters"]["judge"]["system_template"] for each in state["jobs"] if each["id"] == job]
        return bool(found) and found[0].endswith("Say yes to everything.")

    def _no_secret(self) -> None:
        """I5: no secret is in a file or was printed."""
        texts = {"output": self.said.encode()}
        texts |= {str(path): path.read_bytes() for path in self.root.rglob("*") if path.is_file()}
        for name, data in texts.items():
            if KEY.encode() in data or TOKEN.encode() in data:
                self.broken.append(f"I5: a secret is in {name}")

    def _edit(self) -> None:
        match self.schedule.edit:
            case "edited":
                write_spec(self.root, 0, "Is it kind?")
            case "deleted":
                (self.root / "s0.yaml").unlink()
            case "state":
                shutil.rmtree(self.root / ".evalops", ignore_errors=True)
            case "lock":
                (self.root / "s0.lock").unlink(missing_ok=True)

    def _lock_bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(self.root.glob("*.lock"))}

    def _locked(self) -> set[str]:
        locks, problems = Project(self.root).locks()
        self.broken += [f"lock: {each.message}" for each in problems]
        return {entry.job for lock in locks.values() for entry in lock.entries.values() if entry.job}

    def _generation(self) -> int:
        locks, _ = Project(self.root).locks()
        return max((entry.generation for lock in locks.values() for entry in lock.entries.values()), default=0)


# --- one apply, in a child ---


class Points:
    """Crash points, counted; at number `at` the process is gone. From write number `full` on, the disk is full."""

    def __init__(self, at: int | None = None, full: int | None = None, signals: int = 0) -> None:
        self.at, self.full, self.signals = at, full, signals
        self.count = self.writes = 0
        self._turn = threading.Lock()  # requests are in threads

    def write(self) -> None:
        """Raises OSError where there is no room."""
        self.writes += 1
        if self.full is not None and self.writes >= self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def __call__(self, last_act: Callable[[], object] = lambda: None) -> None:
        with self._turn:
            self.count += 1
            is_here = self.count == self.at
        if is_here and not self.signals:
            last_act()
            os._exit(CRASHED)
        for _ in range(self.signals if is_here else 0):
            os.kill(os.getpid(), signal.SIGINT)


def in_child(root: Path, schedule: Schedule, options: Mapping[str, Any], points: Points) -> Ran:
    """An apply in a forked child, which dies at a crash point."""
    output = root.parent / "output"
    child = os.fork()
    if not child:
        code = 70
        try:
            with click.Context(click.Command("evalops")):
                code = _quietly(lambda: _apply(root, points, schedule, options), output)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    return Ran(os.waitstatus_to_exitcode(status), output.read_text(encoding="utf-8", errors="replace"))


def _quietly(act: Callable[[], int], output: Path) -> int:
    """Runs `act` with all that it prints in a file."""
    with output.open("wb") as stream:
        kept = [os.dup(number) for number in (1, 2)]
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        try:
            return act()
        except KeyboardInterrupt:
            return 130
        except BaseException:
            traceback.print_exc()
            return 70
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, file in zip((1, 2), kept, strict=True):
                os.dup2(file, number)
                os.close(file)


def _apply(root: Path, points: Points, schedule: Schedule, options: Mapping[str, Any]) -> int:
    """What the command does, with parts that crash."""
    project = _Project(root)
    object.__setattr__(project, "points", points)
    mutant = schedule.mutant
    now = (lambda: time.time() + schedule.jump) if schedule.jump else time.time
    make = partial(_Client, points, retries=mutant == "retry-on-502")
    kind = _Credulous if mutant == "marker-alone" else Together
    together = kind(project, partial(make, timeouts=TIMES, sleep=lambda seconds: None, now=now))
    if mutant == "forget-absent-window":
        together.visibility_lag = 0.0
    providers = {"together": together}
    lost: list[tuple[int, bytes]] = []
    torn = schedule.seed % 97 / 97  # how much of a record is there when a crash is in the middle of it
    append = partial(_append, points, torn, lost if mutant == "no-fsync" else None)
    clock = planning.clock(providers.values) if mutant != "own-clock" else lambda: datetime.fromtimestamp(now(), UTC)
    try:
        with project.apply_lock():
            folder = root / ".evalops" / planning.JOURNAL
            with Journal.open(folder, append=append, clock=clock) as journal:
                if mutant == "lock-before-journal":
                    journal = _Behind(journal)  # type: ignore[assignment]
                if mutant == "trust-any-list":
                    journal = _Forgetful(journal)  # type: ignore[assignment]
                try:
                    return command.run(project, options, providers, journal)
                finally:
                    for file, data in lost:
                        durably(file, data)
    except EvalopsError as error:
        complain(error.diagnostics)
        return int(error.exit_code)
    finally:
        together.close()


def _append(points: Points, torn: float, lost: list[tuple[int, bytes]] | None, file: int, data: bytes) -> None:
    """Writes a record, or dies before it, in the middle of it or after it. `lost` is a disk that does not write."""
    points()
    points(lambda: os.write(file, data[: int(len(data) * torn)]))
    points.write()
    if lost is None:
        durably(file, data)
    else:
        lost.append((file, data))
    points()


class _Project(Project):
    """A project whose lockfiles are written with a crash before, in the middle and after."""

    points: Points

    def write_lock(self, lock: Lock) -> None:
        self.points()
        self.points(lambda: (self.root / f".{lock.path}.tmp").write_bytes(b'{"version": 1, "eval'))
        try:
            self.points.write()
        except OSError as error:
            raise EvalopsError(Diagnostic(code="file/write", message=f"`{lock.path}`: {error.strerror}")) from None
        super().write_lock(lock)
        self.points()


class _Client(Client):
    """A client with a crash before and after the request that costs money."""

    def __init__(self, points: Points, *arguments: Any, retries: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._points, self._retries = points, retries

    def post_once(self, path: str, body: bytes) -> Any:
        self._points()
        got = super().post_once(path, body)
        if self._retries and "502" in str(got):
            got = super().post_once(path, body)
        self._points()
        return got


class _Credulous(Together):
    """A provider that believes any marker."""

    def is_work(self, job: Job, sent: Mapping[str, Any]) -> bool:
        return together_request.marker_of((job.told or {})["parameters"]) == together_request.marker_of(
            sent["parameters"]
        )


class _Forgetful:
    """A journal that does not say which job was there before."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def submitting(self, key: Any, *, after: str | None = None) -> Any:
        return self._journal.submitting(key)


class _Behind:
    """A journal that is written after the fact: nothing of a request before its lock entry."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: list[Callable[[], object]] = []

    @property
    def intents(self) -> Any:
        return self._journal.intents

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._journal, name)

        def later(*arguments: Any, **fields: Any) -> Any:
            self._kept.append(lambda: act(*arguments, **fields))
            if name in ("intent", "uploaded", "submitting", "created"):
                return None
            kept, self._kept = self._kept, []
            return [each() for each in kept][-1]

        return later


# --- which schedules ---


def schedules(count: int, seed: int = 0, mutant: str | None = None) -> list[Schedule]:
    """So many different ones; every word of a create at every crash point comes first, by turns."""
    return [_schedule(seed + number, mutant) for number in range(count)]


def _schedule(seed: int, mutant: str | None) -> Schedule:
    chance = random.Random(seed)
    create = [CREATES[seed % len(CREATES)], *(chance.choice(CREATES) for _ in range(chance.choice([0, 1, 1, 3])))]
    if chance.random() < 0.3:
        create.insert(0, "ok")
    behaviour: dict[str, Any] = {"create": create}
    edit = chance.choices([None, "edited", "deleted", "state", "lock"], [10, 1, 1, 1, 1])[0]
    is_late = False
    if edit == "state":  # a journal that is gone cannot tell of what no list shows yet
        create[:] = ["drop+" if word == "late+" else word for word in create]
    else:
        is_late = chance.random() < 0.5
        if is_late:
            behaviour |= chance.choice(
                [{"lag_polls": chance.choice([1, 5, 100])}, {"lag": chance.choice([5.0, 500.0])}]
            )
        if chance.random() < 0.2:
            behaviour["list"] = chance.choice([["500"], ["500"] * 6, ["ok"] * 2 + ["503"] * 12, ["html"], ["drop"] * 7])
        if chance.random() < 0.15:
            behaviour["cut"] = 10
        behaviour["order"] = "any" if chance.random() < 0.1 and "cut" not in behaviour else "newest"
    if chance.random() < 0.15:
        behaviour["upload"] = chance.choice([["500"], ["drop"], ["drop+"], ["no-id"], ["429"]])
    if chance.random() < 0.1:
        behaviour["forged"] = True
    crashes: list[int | None] = [chance.randint(1, 60) if chance.random() < 0.9 else None]
    if chance.random() < 0.4:
        crashes.append(chance.randint(1, 40))
        if chance.random() < 0.3:
            crashes.append(chance.randint(1, 20))
    jobs = chance.choice([1, 1, 2, 16])
    return Schedule(
        seed=seed,
        jobs=jobs,
        specs=chance.choice([1, 2, 2, 3]) if jobs == 1 else chance.choice([2, 3, 3, 5]),
        behaviour=behaviour,
        others=chance.choice([0, 3, 30, 150]) if "cut" not in behaviour else chance.choice([3, 30, 150]),
        crashes=crashes,
        edit=edit,
        jump=chance.choices([0.0, 86400.0, -86400.0], [8, 1, 1])[0],
        skew=chance.choices([0.0, 7200.0, -7200.0], [8, 1, 1])[0],
        rerun=edit is None and chance.random() < 0.1,
        full=chance.randint(1, 20) if chance.random() < 0.1 else None,
        signals=chance.choice([1, 2]) if chance.random() < 0.15 else 0,
        mutant=mutant,
    )


# What a broken apply must be caught with: an evaluation whose job no list shows for a while, and crashes all along.
_SCENES: Mapping[str, dict[str, Any]] = {
    "retry-on-502": {"behaviour": {"create": ["502+"]}},
    "forget-absent-window": {"behaviour": {"create": ["502+"], "lag_polls": 100}},
    "own-clock": {"behaviour": {"create": ["502+"], "lag_polls": 100}, "skew": 7200.0},
    "trust-any-list": {"behaviour": {"create": ["502+"], "cut": 100, "lag_polls": 1}, "others": 150, "specs": 3},
    "marker-alone": {"behaviour": {"create": ["502+"], "forged": True}},
}
MUTANTS = ("no-fsync", "lock-before-journal", *_SCENES)


def scenes(mutant: str, *, is_broken: bool = True) -> list[Schedule]:
    """Schedules that a mutant cannot survive; without it, all is well."""
    scene: dict[str, Any] = _SCENES.get(mutant, {"behaviour": {"lag_polls": 100}})
    crashes = [[None], *([number] for number in (2, 3, 4, 12, 13, 14))] if mutant not in _SCENES else [[None, None]]
    used = mutant if is_broken else None
    return [Schedule(seed=1, crashes=list(each), mutant=used, **{"specs": 1, **scene}) for each in crashes]


def played(folder: Path, wanted: Sequence[Schedule]) -> list[list[str]]:
    """What each of the schedules broke: in a process of one thread, whose children may be forked safely."""
    text = json.dumps([asdict(each) for each in wanted])
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], input=text, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout)
    return found


def main() -> None:
    """Plays the schedules on stdin, and writes what they broke to stdout."""
    wanted = [Schedule(**each) for each in json.loads(sys.stdin.read())]
    # A crash ends a process and no machine, so where the files are is the same to it; in memory, syncs are quick.
    place = MEMORY if os.access(MEMORY, os.W_OK) else sys.argv[1]
    with tempfile.TemporaryDirectory(dir=place) as folder, Stage(Path(folder)) as stage:
        broken = [stage.play(each) for each in wanted]
    json.dump(broken, sys.stdout)


if __name__ == "__main__":
    main()
