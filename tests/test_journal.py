"""The write-ahead journal: nothing durable is forgotten, nothing broken is believed, whatever stops the writer."""

from __future__ import annotations

import errno
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from evalops import journal
from evalops.errors import EvalopsError
from evalops.journal import Intent, Journal, Key, State, durably
from evalops.secret import Secret

ROOT = Path(__file__).parent.parent
KEY = Key("together", "https://api.example.com", "ab" * 32, 1)
OTHER = Key("together", None, "cd" * 32, 2)
PARAMETERS = {
    "judge": {"system_template": "Polite?\n{{ response }} \u2028 é \ud800", "temperature": 0.5},
    "labels": ["a", "b"],
}
NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the journal goes; it is not there yet."""
    return tmp_path / ".evalops" / "journal"


def hurried(file: int, data: bytes) -> None:
    """Written and not synced: for tests of what stands there, not of what survives."""
    assert os.write(file, data) == len(data)


def begin(log: Journal, key: Key = KEY) -> None:
    log.intent(key, address="tone", lock="tone.lock", plan="p" * 64, estimate=1.25)


def submit(log: Journal, key: Key = KEY) -> None:
    begin(log, key)
    log.uploaded(key, file="file-1", sha256="ef" * 32, parameters=PARAMETERS)
    log.submitting(key)


def finish(log: Journal, key: Key = KEY) -> None:
    submit(log, key)
    log.created(key, job="eval-1", created_at="2026-01-01T00:00:00Z")
    log.locked(key, lock="tone.lock", digest="12" * 32)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def only(folder: Path) -> Path:
    (path,) = files(folder)
    return path


def state(folder: Path, key: Key = KEY) -> State | None:
    intent = journal.read(folder).get(key)
    return intent.state if intent else None


def refusal(action: Callable[[], object]) -> Any:
    """The one diagnostic with which something cannot go on."""
    with pytest.raises(EvalopsError) as caught:
        action()
    (diagnostic,) = caught.value.diagnostics
    return diagnostic


# --- what is written, and what is known of it ---


def test_a_run_is_known_to_the_next_as_it_was(folder: Path) -> None:
    with Journal.open(folder, run="first", clock=lambda: NOW) as log:
        finish(log)
        submit(log, OTHER)
        written = log.intents
    assert journal.read(folder) == written
    with Journal.open(folder) as log:
        assert log.intents == written
    found = written[KEY]
    assert found.state is State.LOCKED and found.is_settled and not found.is_open and not found.is_unlocked
    assert (found.address, found.lock, found.run, found.pid) == ("tone", "tone.lock", "first", os.getpid())
    assert (found.job, found.created_at, found.digest) == ("eval-1", "2026-01-01T00:00:00Z", "12" * 32)
    assert found.parameters == PARAMETERS and found.estimate == 1.25 and found.file == "file-1"
    assert found.intended_at == found.submitted_at == found.at == "2026-03-04T05:06:07.000Z"
    assert written[OTHER].is_open and not written[OTHER].is_settled


def test_lines_are_json_for_other_tools_too(folder: Path) -> None:
    with Journal.open(folder) as log:
        finish(log)
    records = [json.loads(line) for line in only(folder).read_text(encoding="ascii").splitlines()]
    assert [each["kind"] for each in records] == ["intent", "uploaded", "submitting", "created", "locked"]
    assert all(each["v"] == 1 and len(each["crc"]) == 8 and each["fingerprint"] == "ab" * 32 for each in records)


def test_only_the_user_may_read_it(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert only(folder).stat().st_mode & 0o777 == 0o600


def test_a_run_that_writes_nothing_leaves_nothing(folder: Path) -> None:
    assert journal.read(folder) == {}
    with Journal.open(folder) as log:
        assert log.intents == {}
    assert not folder.exists()


def test_each_record_is_one_write_and_then_one_sync(folder: Path) -> None:
    chunks: list[bytes] = []

    def append(file: int, data: bytes) -> None:
        chunks.append(data)
        durably(file, data)

    with Journal.open(folder, append=append) as log:
        finish(log)
    assert len(chunks) == 5 and all(chunk.count(b"\n") == 1 and chunk.endswith(b"\n") for chunk in chunks)
    assert only(folder).read_bytes() == b"".join(chunks)


@pytest.mark.parametrize(
    "value",
    [
        Secret("canary-key"),
        b"x",
        (1, 2),
        {1: 2},
        float("nan"),
        float("inf"),
        State.INTENT,
        NOW,
        {"a": [Secret("canary-key")]},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_json_is_refused_and_not_shown(folder: Path, value: object) -> None:
    with Journal.open(folder) as log:
        begin(log)
        before = only(folder).read_bytes()
        with pytest.raises(TypeError) as caught:
            log.uploaded(KEY, file="file-1", sha256="", parameters={"judge": value})
        assert "canary" not in str(caught.value)
        assert only(folder).read_bytes() == before and log.intents[KEY].state is State.INTENT


def test_what_is_known_does_not_change_with_the_callers_values(folder: Path) -> None:
    parameters: dict[str, Any] = {"labels": ["a"]}
    with Journal.open(folder) as log:
        begin(log)
        log.uploaded(KEY, file="file-1", sha256="", parameters=parameters)
        parameters["labels"].append("b")
        assert log.intents[KEY].parameters == {"labels": ["a"]}


@pytest.mark.parametrize("run", ["../up", "a/b", "", "x" * 101, "a\nb", "ü"])
def test_a_run_is_a_safe_file_name(folder: Path, run: str) -> None:
    if run == "":
        assert Journal.open(folder, run=run).run  # one is made up
    else:
        with pytest.raises(ValueError):
            Journal.open(folder, run=run)


def test_runs_keep_their_order_when_the_clock_goes_back(folder: Path) -> None:
    with Journal.open(folder, clock=lambda: NOW) as log:
        submit(log)
    with Journal.open(folder, clock=lambda: NOW - timedelta(days=1)) as log:
        log.absent(KEY, proof={"listed": 3})
        submit(log)
    names = [path.name for path in files(folder)]
    assert names == sorted(names) and state(folder) is State.SUBMITTING
    assert journal.read(folder)[KEY].submitted_at == "2026-03-03T05:06:07.000Z"


def test_threads_share_a_journal(folder: Path) -> None:
    keys = [KEY._replace(generation=number) for number in range(1, 41)]
    with Journal.open(folder, append=hurried) as log:
        threads = [threading.Thread(target=finish, args=(log, key)) for key in keys]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert journal.read(folder) == log.intents
    assert {each.state for each in journal.read(folder).values()} == {State.LOCKED}


def test_a_record_is_synced() -> None:
    """A pipe takes bytes and cannot be synced: the error shows that it was asked to."""
    end, start = os.pipe()
    try:
        with pytest.raises(OSError) as caught:
            durably(start, b"record")
        assert caught.value.errno == errno.EINVAL and os.read(end, 99) == b"record"
    finally:
        os.close(start)
        os.close(end)


# --- what may follow what ---

RECORDS: dict[State, Callable[[Journal, Key], Intent]] = {
    State.INTENT: lambda log, key: log.intent(key, address="tone", lock="tone.lock", plan="p"),
    State.UPLOADED: lambda log, key: log.uploaded(key, file="file-1", sha256="", parameters={}),
    State.SUBMITTING: lambda log, key: log.submitting(key),
    State.CREATED: lambda log, key: log.created(key, job="eval-1", created_at=""),
    State.REFUSED: lambda log, key: log.refused(key, code="400", why="no"),
    State.AMBIGUOUS: lambda log, key: log.ambiguous(key, why="reset"),
    State.ADOPTED: lambda log, key: log.adopted(key, job="eval-1", evidence="marker"),
    State.ABSENT: lambda log, key: log.absent(key, proof="complete"),
    State.ABANDONED: lambda log, key: log.abandoned(key, why="gone"),
    State.LOCKED: lambda log, key: log.locked(key, lock="tone.lock", digest="d"),
}
# For each state what may follow; said apart from the module, so that either can be wrong.
NEXT = {
    None: "intent",
    State.INTENT: "intent uploaded submitting refused adopted abandoned",
    State.UPLOADED: "intent uploaded submitting refused adopted abandoned",
    State.SUBMITTING: "created refused ambiguous adopted absent abandoned",
    State.CREATED: "locked abandoned",
    State.REFUSED: "intent adopted abandoned",
    State.AMBIGUOUS: "ambiguous adopted absent abandoned",
    State.ADOPTED: "locked abandoned",
    State.ABSENT: "intent adopted abandoned",
    State.ABANDONED: "intent adopted abandoned",
    State.LOCKED: "intent locked",
}
SENDING = {State.UPLOADED, State.SUBMITTING, State.CREATED, State.REFUSED}


def test_nothing_is_sent_while_a_job_may_be_there() -> None:
    for each in (State.SUBMITTING, State.AMBIGUOUS, State.CREATED, State.ADOPTED):
        assert not {"intent", "submitting"} & set(NEXT[each].split())


# One way to each state.
WAYS = {
    None: "",
    State.INTENT: "intent",
    State.UPLOADED: "intent uploaded",
    State.SUBMITTING: "intent uploaded submitting",
    State.CREATED: "intent submitting created",
    State.REFUSED: "intent submitting refused",
    State.AMBIGUOUS: "intent submitting ambiguous",
    State.ADOPTED: "intent submitting ambiguous adopted",
    State.ABSENT: "intent submitting absent",
    State.ABANDONED: "intent submitting abandoned",
    State.LOCKED: "intent submitting created locked",
}


@pytest.mark.parametrize("before", WAYS)
def test_what_may_follow_each_state(folder: Path, before: State | None) -> None:
    for kind in State:
        with Journal.open(folder / kind, append=hurried) as log:
            for way in WAYS[before].split():
                RECORDS[State(way)](log, KEY)
            written = log.intents
            if kind.value in NEXT[before].split():
                assert RECORDS[kind](log, KEY).state is kind
            else:
                with pytest.raises(ValueError):
                    RECORDS[kind](log, KEY)
                assert log.intents == written
            assert journal.read(folder / kind) == log.intents


class Runs(RuleBasedStateMachine):
    """Runs one after the other, killed at any record, over years: the files always say what happened."""

    def __init__(self) -> None:
        super().__init__()
        self.keep = tempfile.TemporaryDirectory()
        self.folder = Path(self.keep.name) / ".evalops" / "journal"
        self.now = NOW
        self.run = 0
        self.model: dict[Key, tuple[State, datetime, int]] = {}  # the state, since when, the run that meant it
        self.open()

    def open(self) -> None:
        self.log = Journal.open(self.folder, append=hurried, clock=lambda: self.now)
        self.run += 1
        cut = self.now - timedelta(days=7)
        for key in self.model.keys() - self.log.intents.keys():  # forgotten: only what was over for long
            state_, since, _ = self.model.pop(key)
            assert state_ not in (State.SUBMITTING, State.AMBIGUOUS, State.CREATED, State.ADOPTED) and since < cut

    @rule(kind=st.sampled_from(State), key=st.sampled_from([KEY, OTHER]))
    def record(self, kind: State, key: Key) -> None:
        before, _, run = self.model.get(key, (None, None, self.run))
        if kind.value in NEXT[before].split() and (run == self.run or kind not in SENDING):
            assert RECORDS[kind](self.log, key).state is kind
            self.model[key] = (kind, self.now, self.run if kind is State.INTENT else run)
        else:
            with pytest.raises(ValueError):
                RECORDS[kind](self.log, key)

    @rule(days=st.sampled_from([0, 1, 10, -3]))
    def another_run(self, days: int) -> None:
        self.log.close()
        self.now += timedelta(days=days)
        self.open()

    @rule(cut=st.integers(1, 400))
    def killed_in_the_middle_of_a_record(self, cut: int) -> None:
        self.log.close()
        if self.log.path.exists():
            last = self.log.path.read_bytes().splitlines(keepends=True)[-1]
            with self.log.path.open("ab") as stream:
                stream.write(last[: min(cut, len(last) - 2)])
        self.open()

    @precondition(lambda self: len(files(self.folder)) > 3)
    @rule()
    def everything_settles(self) -> None:
        for key, (state_, _, run) in list(self.model.items()):
            if state_ in (State.SUBMITTING, State.AMBIGUOUS):
                self.log.absent(key, proof="complete")
                self.model[key] = (State.ABSENT, self.now, run)
            elif state_ in (State.CREATED, State.ADOPTED):
                self.log.locked(key, lock="tone.lock", digest="d")
                self.model[key] = (State.LOCKED, self.now, run)
        last = max((since for _, since, _ in self.model.values()), default=self.now)  # the clock may have gone back
        self.another_run((last - self.now).days + 8)
        assert len(files(self.folder)) == 0

    @invariant()
    def the_files_say_what_happened(self) -> None:
        found = journal.read(self.folder)
        assert found == self.log.intents
        assert {key: each.state for key, each in found.items()} == {key: each[0] for key, each in self.model.items()}

    def teardown(self) -> None:
        self.log.close()
        self.keep.cleanup()


Runs.TestCase.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)
TestRuns = Runs.TestCase


# --- runs that go on with one another, and what is forgotten ---


def test_a_later_run_settles_what_an_earlier_one_left(folder: Path) -> None:
    with Journal.open(folder, run="first") as log:
        submit(log)
        submit(log, OTHER)
        log.ambiguous(OTHER, why="the connection was reset")
    with Journal.open(folder, run="second") as log:
        log.adopted(KEY, job="eval-7", evidence={"marker": "same", "parameters": "equal"})
        found = log.locked(KEY, lock="moved.lock", digest="d")
        log.absent(OTHER, proof={"listed": 12, "complete": True})
        submit(log, OTHER)
    assert (found.run, found.job, found.lock) == ("first", "eval-7", "moved.lock")
    both = journal.read(folder)
    assert both[KEY].is_settled and both[OTHER].is_open
    assert both[OTHER].run == "second" and both[OTHER].why is None and both[OTHER].proof is None


def test_a_run_never_goes_on_sending_for_another(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
    with Journal.open(folder) as log:
        with pytest.raises(ValueError, match="another run"):
            log.submitting(KEY)
        begin(log)
        log.submitting(KEY)


def later(days: float) -> Callable[[], datetime]:
    return lambda: NOW + timedelta(days=days)


def test_a_settled_run_is_remembered_for_a_week(folder: Path) -> None:
    with Journal.open(folder, clock=later(0)) as log:
        finish(log)
    with Journal.open(folder, clock=later(6.9)) as log:
        assert log.intents[KEY].job == "eval-1"
    with Journal.open(folder, clock=later(7.1)) as log:
        assert files(folder) == []
        finish(log)


def test_a_file_stays_while_an_earlier_one_needs_what_it_says(folder: Path) -> None:
    """The second file is all settled, and holds the outcome of what the first one began."""
    with Journal.open(folder, clock=later(0)) as log:
        submit(log)
        submit(log, OTHER)
    with Journal.open(folder, clock=later(1)) as log:
        log.adopted(KEY, job="eval-1", evidence="marker")
        log.locked(KEY, lock="tone.lock", digest="d")
    with Journal.open(folder, clock=later(99)) as log:
        assert len(files(folder)) == 2
        assert log.intents[KEY].state is State.LOCKED and log.intents[OTHER].is_open
        log.absent(OTHER, proof="complete")
    with Journal.open(folder, clock=later(200)):
        assert files(folder) == []


def test_an_open_intent_holds_no_later_knowledge_hostage_and_is_never_lost(folder: Path) -> None:
    with Journal.open(folder, clock=later(0)) as log:
        finish(log)
    with Journal.open(folder, clock=later(1)) as log:
        submit(log, OTHER)
    with Journal.open(folder, clock=later(500)) as log:
        assert [path.name[:6] for path in files(folder)] == ["000002"]
        assert set(log.intents) == {OTHER} and log.intents[OTHER].is_open


def test_a_sweep_that_is_killed_makes_nothing_open_again(folder: Path) -> None:
    with Journal.open(folder, clock=later(0)) as log:
        submit(log)
        log.ambiguous(KEY, why="reset")
    with Journal.open(folder, clock=later(1)) as log:
        log.adopted(KEY, job="eval-1", evidence="marker")
    with Journal.open(folder, clock=later(2)) as log:
        log.locked(KEY, lock="tone.lock", digest="d")
    for _ in range(3):
        files(folder)[0].unlink()  # the oldest first, as the sweep does
        assert not any(each.is_open or each.is_unlocked for each in journal.read(folder).values())


def test_a_file_that_someone_removed_is_missed(folder: Path) -> None:
    with Journal.open(folder) as log:
        submit(log)
    with Journal.open(folder) as log:
        log.ambiguous(KEY, why="reset")
    files(folder)[0].unlink()
    found = refusal(lambda: journal.read(folder))
    assert found.code == "journal/damaged" and found.mark.line == 1 and "000002-" in found.mark.path


# --- torn, edited, newer ---


def test_a_torn_tail_is_dropped_at_every_byte(folder: Path) -> None:
    with Journal.open(folder) as log:
        submit(log)
        before = log.intents
        log.created(KEY, job="eval-1", created_at="")
        after = log.intents
    path = only(folder)
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for size in range(start, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert journal.read(folder) == before, size
        path.write_bytes(whole[:size] + b"\0" * (len(whole) - size))  # the length reached the disk, not the data
        assert journal.read(folder) == before, size
        path.write_bytes(whole[:start] + b"\0" * (size - start + 1) + whole[size + 1 :])  # the first block is missing
        assert journal.read(folder) == (after if size == len(whole) - 1 else before), size
    path.write_bytes(whole[:-1])  # all but the end of the line: the record is whole
    assert journal.read(folder) == after


def test_a_torn_run_is_gone_on_with_in_a_new_file(folder: Path) -> None:
    with Journal.open(folder) as log:
        submit(log)
        log.created(KEY, job="eval-1", created_at="")
    torn = only(folder).read_bytes()[:-5]
    only(folder).write_bytes(torn)
    with Journal.open(folder) as log:
        assert log.intents[KEY].state is State.SUBMITTING
        log.adopted(KEY, job="eval-1", evidence="marker")
    assert files(folder)[0].read_bytes() == torn and state(folder) is State.ADOPTED


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("line", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "change",
    [
        lambda lines, at: lines[:at] + lines[at + 1 :],
        lambda lines, at: lines[: at + 1] + lines[at:],
        lambda lines, at: [*lines[:at], lines[at][:40] + b"\n", *lines[at + 1 :]],
        lambda lines, at: [*lines[:at], b"\n", *lines[at:]],
        lambda lines, at: [*lines[:at], lines[at].replace(b"together", b"2gether"), *lines[at + 1 :]],
        lambda lines, at: [*lines[:at], bytes(len(lines[at]) - 1) + b"\n", *lines[at + 1 :]],
        lambda lines, at: [*lines[:at], lines[at + 1], lines[at], *lines[at + 2 :]],
    ],
    ids=["removed", "doubled", "torn", "empty", "edited", "zeros", "swapped"],
)
def test_a_broken_line_in_the_middle_refuses(
    folder: Path, line: int, change: Callable[[list[bytes], int], list[bytes]]
) -> None:
    with Journal.open(folder) as log:
        finish(log)
        begin(log, OTHER)
        log.abandoned(OTHER, why="gone")
    path = only(folder)
    path.write_bytes(b"".join(change(lines_of(path), line - 1)))
    found = refusal(lambda: journal.read(folder))
    assert found.code == "journal/damaged" and "do not delete" in found.hint
    assert found.mark.path == f".evalops/journal/{path.name}" and found.mark.line in (line, line + 1)
    assert refusal(lambda: Journal.open(folder)) == found


def test_an_edited_last_line_is_no_torn_one(folder: Path) -> None:
    with Journal.open(folder) as log:
        submit(log)
    path = only(folder)
    path.write_bytes(path.read_bytes().replace(b'"submitting"', b'"abandoned"'))
    assert refusal(lambda: journal.read(folder)).mark.line == 3


def test_each_flipped_bit_is_noticed(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
        log.submitting(KEY)
        log.created(KEY, job="eval-1", created_at="")
    path = only(folder)
    whole = path.read_bytes()
    end = len(lines_of(path)[0]) + len(lines_of(path)[1])
    for at, bit in itertools.product(range(0, end, 3), (1, 32)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
        assert refusal(lambda: journal.read(folder)).code == "journal/damaged", at


@pytest.mark.parametrize("change", [{"v": 2}, {"kind": "pledged"}, {"v": None}, {"kind": None}])
def test_a_newer_version_is_refused(folder: Path, change: dict[str, Any]) -> None:
    with Journal.open(folder) as log:
        begin(log)
    seal(only(folder), lambda record: record | change)
    found = refusal(lambda: Journal.open(folder))
    assert found.code == "journal/newer-version" and found.mark.line == 1 and "update evalops" in found.hint
    assert (f"version {change['v']}" if "v" in change else f"kind `{change['kind']}`") in found.message


def test_fields_of_a_newer_version_that_change_no_meaning_are_left_alone(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
        before = log.intents
    seal(only(folder), lambda record: record | {"weather": "rain"})
    assert journal.read(folder) == before


@pytest.mark.parametrize(
    "change", [{"address": None}, {"pid": "7"}, {"origin": []}, {"generation": "1"}, {"kind": "locked"}]
)
def test_a_sealed_record_without_sense_is_refused(folder: Path, change: dict[str, Any]) -> None:
    with Journal.open(folder) as log:
        begin(log)
        log.submitting(KEY)
    path = only(folder)
    path.write_bytes(lines_of(path)[0] + lines_of(path)[0])
    seal(path, lambda record: record | change)
    assert refusal(lambda: journal.read(folder)).code == "journal/damaged"


def seal(path: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Writes a file's last record anew, changed and with the right checksum."""
    crc, out = 0, b""
    lines = lines_of(path)
    for number, line in enumerate(lines, 1):
        record = json.loads(line)
        del record["crc"]
        body = json.dumps(change(record) if number == len(lines) else record, separators=(",", ":")).encode()[:-1]
        crc = crc32(body, crc)
        out += body + b',"crc":"%08x"}\n' % crc
    path.write_bytes(out)


def test_strange_files_are_told_apart(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
    (folder / "notes.txt").write_text("mine")
    (folder / "000001-x.jsonl~").write_text("an editor's")
    (folder / "000002-empty.jsonl").write_text("")
    assert state(folder) is State.INTENT
    (folder / "copy.jsonl").write_text("")
    assert "copy.jsonl" in refusal(lambda: journal.read(folder)).mark.path


@pytest.mark.parametrize("make", ["link", "pipe", "folder"])
def test_what_is_no_file_is_neither_followed_nor_waited_for(folder: Path, make: str) -> None:
    folder.mkdir(parents=True)
    path = folder / "000001-x.jsonl"
    (folder.parent / "elsewhere").write_text("secret")
    {"link": lambda: path.symlink_to("../elsewhere"), "pipe": lambda: os.mkfifo(path), "folder": path.mkdir}[make]()
    found = refusal(lambda: journal.read(folder))
    assert found.code == "journal/unreadable" and path.name in found.message


def test_a_file_in_the_place_of_the_folder(folder: Path) -> None:
    folder.parent.mkdir()
    folder.write_text("")
    assert refusal(lambda: journal.read(folder)).code == "journal/unreadable"


# --- the disk says no ---


class Full:
    """An append for which the disk is full once, after some bytes of a chosen record."""

    def __init__(self, *, at: int, fits: int, error: int = errno.ENOSPC) -> None:
        self.at, self.fits, self.error, self.count = at, fits, error, 0

    def __call__(self, file: int, data: bytes) -> None:
        self.count += 1
        if self.count == self.at:
            os.write(file, data[: self.fits])
            raise OSError(self.error, os.strerror(self.error))
        durably(file, data)


@pytest.mark.parametrize("fits", [0, 1, 100, 10_000])
@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_full_disk_leaves_no_half_record(folder: Path, at: int, fits: int) -> None:
    with Journal.open(folder, append=Full(at=at, fits=fits)) as log:
        kinds = [State.INTENT, State.UPLOADED, State.SUBMITTING, State.CREATED, State.LOCKED]
        for kind in kinds[: at - 1]:
            RECORDS[kind](log, KEY)
        before = log.intents
        found = refusal(lambda: RECORDS[kinds[at - 1]](log, KEY))
        assert found.code == "journal/write" and "no space left" in found.message and log.path.name in found.message
        assert log.intents == before == journal.read(folder)
        for kind in kinds[at - 1 :]:  # there is room again
            RECORDS[kind](log, KEY)
        assert journal.read(folder) == log.intents and log.intents[KEY].state is State.LOCKED


def test_a_record_that_cannot_be_taken_back_is_the_last(folder: Path) -> None:
    kept: list[int] = []

    def append(file: int, data: bytes) -> None:
        if kept:
            os.write(file, data[:50])
            read_only = os.open(log.path, os.O_RDONLY)
            os.dup2(read_only, file)  # nothing can be cut off any more
            os.close(read_only)
            raise OSError(errno.EIO, "input/output error")
        kept.append(file)
        durably(file, data)

    with Journal.open(folder, append=append) as log:
        begin(log)
        before = log.intents
        assert "input/output error" in refusal(lambda: log.submitting(KEY)).message
        assert "takes no more records" in refusal(lambda: log.submitting(KEY)).message
    assert journal.read(folder) == before  # the half line is a torn tail
    with Journal.open(folder) as log:
        submit(log)


def test_an_interrupt_in_the_middle_of_a_record_takes_it_back(folder: Path) -> None:
    turns = iter([False, True, False])

    def append(file: int, data: bytes) -> None:
        durably(file, data)
        if next(turns):
            raise KeyboardInterrupt

    with Journal.open(folder, append=append) as log:
        begin(log)
        with pytest.raises(KeyboardInterrupt):
            log.submitting(KEY)
        assert journal.read(folder) == log.intents and log.intents[KEY].state is State.INTENT
        log.submitting(KEY)


def test_a_closed_journal_takes_nothing(folder: Path) -> None:
    with Journal.open(folder) as log:
        begin(log)
    assert refusal(lambda: log.submitting(KEY)).code == "journal/write"
    assert state(folder) is State.INTENT


def child(code: str, folder: Path) -> Any:
    """What a fresh Python prints as JSON: one that has limits, or children of its own."""
    head = "import json, os, signal, sys\nfrom pathlib import Path\nfrom evalops import journal\nfrom evalops.errors import EvalopsError\n"
    head += "from evalops.journal import Journal, Key, durably\nfolder = Path(sys.argv[1])\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code, folder], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


FULL = """
import resource
key = Key("together", None, "ab" * 32, 1)
says, sizes = [], []
with Journal.open(folder) as log:
    log.intent(key, address="a", lock="a.lock", plan="p")
    size = log.path.stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, size + 100))
    for _ in range(2):
        try:
            log.uploaded(key, file="f", sha256="", parameters={"text": "x" * 1000})
        except EvalopsError as error:
            says.append(error.diagnostics[0].code)
        sizes.append(log.path.stat().st_size - size)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        log.submitting(key)
    except EvalopsError as error:
        says.append(error.diagnostics[0].code)
print(json.dumps([says, sizes, [each.state for each in journal.read(folder).values()]]))
"""


def test_a_limit_of_the_system_on_the_size_of_files(folder: Path) -> None:
    assert child(FULL, folder) == [["journal/write"] * 3, [0, 0], ["intent"]]
    with Journal.open(folder) as log:
        submit(log)


READ_ONLY = """
import shutil, tempfile
home = Path(tempfile.mkdtemp())
if os.geteuid() == 0:  # root may write anywhere
    os.chown(home, 65534, 65534)
    os.seteuid(65534)
key, says = Key("together", None, "ab" * 32, 1), []
for place in (home / "state" / "journal", home / "state"):
    place.mkdir(parents=True, exist_ok=True)
    place.chmod(0o500)
    with Journal.open(home / "state" / "journal") as log:
        try:
            log.intent(key, address="a", lock="a.lock", plan="p")
        except EvalopsError as error:
            says.append([error.diagnostics[0].code, error.diagnostics[0].message.rsplit(": ")[-1], len(log.intents)])
        place.chmod(0o700)
        log.intent(key, address="a", lock="a.lock", plan="p")  # it can be mended under way
    says.append([each.state for each in journal.read(home / "state" / "journal").values()])
    shutil.rmtree(home / "state" / "journal")
(home / "state" / "journal").mkdir(mode=0o300)
try:
    journal.read(home / "state" / "journal")
except EvalopsError as error:
    says.append(error.diagnostics[0].code)
(home / "state" / "journal").chmod(0o700)
shutil.rmtree(home)
print(json.dumps(says))
"""


def test_a_folder_without_permission(folder: Path) -> None:
    refused = ["journal/write", "permission denied", 0]
    assert child(READ_ONLY, folder) == [refused, ["intent"], refused, ["intent"], "journal/unreadable"]


def test_a_full_disk_at_the_first_record_leaves_no_file(folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    with Journal.open(folder) as log:
        folder.write_text("")  # something in the way
        assert refusal(lambda: begin(log)).code == "journal/write"
        folder.unlink()
        begin(log)
    assert state(folder) is State.INTENT


# --- kill -9 ---

CRASH = """
steps = [
    lambda log, key: log.intent(key, address="a", lock="a.lock", plan="p"),
    lambda log, key: log.uploaded(key, file="f", sha256="", parameters={}),
    lambda log, key: log.submitting(key),
    lambda log, key: log.created(key, job="eval-1", created_at=""),
    lambda log, key: log.locked(key, lock="a.lock", digest="d"),
]
found = []
for point in range(5):
    for moment in ("before", "half", "written", "synced"):
        home = folder / f"{point}-{moment}" / "journal"
        pid = os.fork()
        if pid == 0:
            count = 0
            def append(file, data):
                global count
                count += 1
                if count - 1 == point:
                    os.write(file, {"before": b"", "half": data[:-9]}.get(moment, data))
                    if moment == "synced":
                        os.fdatasync(file)
                    os.kill(os.getpid(), signal.SIGKILL)
                durably(file, data)
            with Journal.open(home, append=append) as log:
                for step in steps:
                    step(log, Key("together", None, "ab" * 32, 1))
            os._exit(0)
        status = os.waitpid(pid, 0)[1]
        assert os.WTERMSIG(status) == signal.SIGKILL
        with Journal.open(home) as log:
            states = [each.state for each in log.intents.values()]
        found.append([point, moment, *states])
print(json.dumps(found))
"""


def test_killed_at_every_record_loses_only_what_was_not_written(folder: Path) -> None:
    kinds = [None, "intent", "uploaded", "submitting", "created", "locked"]
    found = child(CRASH, folder)
    assert len(found) == 20
    for point, moment, *states in found:
        last = kinds[point + (moment in ("written", "synced"))]
        assert states == ([last] if last else []), (point, moment)


# --- readers, and much of it ---


def test_a_reader_sees_a_whole_past_while_an_apply_writes_and_tidies_up(folder: Path) -> None:
    """A reader in another thread never fails, and never sees a key go back."""
    order = ["intent", "uploaded", "submitting", "created", "locked"]
    failures: list[object] = []
    stop = threading.Event()
    looks = 0

    def look() -> None:
        nonlocal looks
        seen: dict[Key, int] = {}
        try:
            while not stop.is_set():
                for key, intent in journal.read(folder).items():
                    now = order.index(intent.state)
                    if now < seen.get(key, 0):
                        failures.append((key, seen[key], now))
                    seen[key] = now
                looks += 1
        except BaseException as error:
            failures.append(error)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for run in range(20):
            with Journal.open(folder, append=hurried, clock=later(10 * run)) as log:
                for number in range(5):
                    finish(log, KEY._replace(generation=100 * run + number + 1))
        while looks < 3 and not failures:
            time.sleep(0)
    finally:
        stop.set()
        reader.join()
    assert failures == [] and len(files(folder)) <= 2


def test_ten_thousand_records_are_read(folder: Path) -> None:
    with Journal.open(folder, append=hurried) as log:
        for number in range(2000):
            finish(log, KEY._replace(generation=number + 1))
    found = journal.read(folder)
    assert len(found) == 2000 and all(each.is_settled for each in found.values())
