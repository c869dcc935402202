"""The job store: what is committed stays, whatever happens to the process or the disk."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from apply_project import PACKAGE
from hypothesis import example, given
from hypothesis import strategies as st

from evalops.engine import store as stores
from evalops.engine.reply import Reply
from evalops.engine.store import BATCH, VERSION, JobRecord, Store, Used
from evalops.errors import EvalopsError
from evalops.result import Verdict, VerdictStatus, Vote

JOB = JobRecord("job-1", "f" * 64, 1, "pending", None, 10, "2026-01-01T00:00:00Z", None)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "store.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    opened = Store(path)
    yield opened
    opened.close()


def scored(value: Any = "polite", **fields: Any) -> Verdict:
    return Verdict("k", VerdictStatus.SCORED, value, **fields)


def add(store: Store, position: int, verdict: Verdict | None = None, job: str = "job-1", **detail: Any) -> None:
    store.add_row(job, position, verdict or scored(), detail, position + 1)


def positions(store: Store, job: str = "job-1") -> list[int]:
    return [each.position for each in store.rows(job)]


def committed(path: Path) -> int:
    """How many rows another process would see."""
    database = sqlite3.connect(path)
    try:
        return int(database.execute("SELECT count(*) FROM rows").fetchone()[0])
    finally:
        database.close()


# What a job took


def test_usage_is_summed_by_stage_and_committed_with_the_replies(path: Path) -> None:
    store = Store(path)
    counted = Reply(content="x", prompt_tokens=10, completion_tokens=2)
    for reply in (counted, counted, replace(counted, is_kept=True), Reply(content="x", prompt_tokens=3)):
        store.add_usage("job-1", "judge", reply)
    store.add_usage("job-1", "model_to_evaluate", replace(counted, is_kept=True))
    store.add_usage("job-2", "judge", counted)
    assert store.usage("job-1") == {
        "judge": Used(
            calls=3, prompt=20, completion=4, uncounted=1, replies=3, all_prompt=30, all_completion=6, kept=1
        ),
        "model_to_evaluate": Used(replies=1, all_prompt=10, all_completion=2, kept=1),
    }
    store.add_usage("job-1", "judge", counted)
    store.close()
    again = Store(path)
    assert again.usage("job-1")["judge"][:3] == (4, 30, 6) and again.usage("job-2")["judge"].calls == 1
    assert again.usage("none") == {}
    again.close()


def test_usage_that_was_not_committed_is_lost_with_its_replies(path: Path) -> None:
    store = Store(path)
    store.add_reply(b"key", Reply(content="x"))
    store.add_usage("job-1", "judge", Reply(content="x", prompt_tokens=1, completion_tokens=1))
    reader = Store(path)
    assert reader.reply(b"key") is None and reader.usage("job-1") == {}
    store.flush()
    assert reader.reply(b"key") and reader.usage("job-1")["judge"].calls == 1
    reader.close()
    store.close()


# Rows


def test_writes_are_gathered_and_committed_together(store: Store, path: Path) -> None:
    add(store, 0)
    add(store, 1)
    store.add_reply(b"key", Reply(content="x"))
    assert committed(path) == 0
    store.flush()
    assert committed(path) == 2
    store.flush()
    assert committed(path) == 2


def test_the_store_says_when_enough_is_gathered(store: Store) -> None:
    for number in range(BATCH - 1):
        add(store, number)
    assert not store.is_full
    store.add_reply(b"key", Reply(content="x"))
    assert store.is_full
    store.flush()
    assert not store.is_full


def test_closing_commits(path: Path) -> None:
    store = Store(path)
    add(store, 0)
    store.close()
    assert committed(path) == 1


def test_rows_come_in_the_order_of_the_dataset_and_of_their_job_only(store: Store) -> None:
    for position in (3, 1, 2, 0):
        add(store, position)
    add(store, 7, job="job-2")
    assert positions(store) == [0, 1, 2, 3]
    assert positions(store, "job-2") == [7] and positions(store, "other") == []


def test_a_row_that_is_judged_again_replaces_the_first(store: Store) -> None:
    add(store, 0, Verdict("k", VerdictStatus.ERROR, None, "timeout"))
    add(store, 0, scored("rude"))
    assert [each.verdict.value for each in store.rows("job-1")] == ["rude"]


texts = st.text(st.characters(exclude_categories=()), max_size=30)  # half surrogate pairs too: JSON can spell them
storable = st.text(st.characters(codec="utf-8"), max_size=30)
values = st.none() | storable | st.floats(allow_nan=False) | st.sampled_from([1.0, -0.0, 1e308])
orders = st.none() | st.tuples(st.sampled_from(["A", "B", "Tie", None]), st.sampled_from(["A", "B", "Tie", None]))
votes = st.builds(
    Vote, st.integers(0, 15), st.integers(1, 100), st.sampled_from(VerdictStatus), values, st.none() | storable
)
verdicts = st.builds(
    Verdict,
    storable,
    st.sampled_from(VerdictStatus),
    values,
    st.none() | storable,
    st.none() | storable,
    orders,
    st.none() | storable,
    st.lists(st.integers(0, 10**9), max_size=2).map(tuple),
    st.lists(votes, max_size=4).map(tuple),
    st.none() | st.dictionaries(storable, st.floats(allow_nan=False), min_size=1, max_size=3),
)


@given(verdicts)
def test_a_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    store = Store(Path(":memory:"))
    store.add_row("job-1", 0, verdict, {"lengths": list(verdict.lengths), "outputs": ["x"]}, 5)
    (stored,) = store.rows("job-1")
    store.close()
    assert stored.verdict == verdict
    assert stored.detail == {"lengths": list(verdict.lengths), "outputs": ["x"]}


@given(texts)
@example("half a pair: \ud83d")
def test_any_text_of_a_judge_can_be_stored(text: str) -> None:
    store = Store(Path(":memory:"))
    add(store, 0, scored(feedback=text), outputs=[text])
    (stored,) = store.rows("job-1")
    store.close()
    assert stored.verdict.feedback == text.encode("utf-8", "replace").decode()


def test_a_resumed_run_learns_what_is_done_with_what_was_judged(store: Store) -> None:
    add(store, 0)
    add(store, 4)
    add(store, 5, Verdict("k", VerdictStatus.ERROR, None, "timeout"))
    add(store, 99)
    store.flush()
    done, errors = store.finished("job-1", 10)
    assert list(done) == [1, 0, 0, 0, 5, 6, 0, 0, 0, 0]
    assert errors == 1
    assert list(store.finished("other", 3)[0]) == [0, 0, 0]


def test_forgetting_errors_keeps_the_rest(store: Store) -> None:
    add(store, 0)
    add(store, 1, Verdict("k", VerdictStatus.ERROR, None, "timeout"))
    add(store, 2, Verdict("k", VerdictStatus.INVALID, None, "unparsable"))
    add(store, 1, Verdict("k", VerdictStatus.ERROR, None, "timeout"), job="job-2")
    store.flush()
    store.forget_errors("job-1")
    assert positions(store) == [0, 2] and positions(store, "job-2") == [1]


# Replies


def test_a_reply_is_known_at_once_and_after_reopening(path: Path) -> None:
    reply = Reply(content="né", finish_reason="stop", prompt_tokens=3, probabilities={" a": 0.5})
    kept = replace(reply, is_kept=True)
    store = Store(path)
    store.add_reply(b"\0key", reply)
    assert store.reply(b"\0key") == kept
    assert store.reply(b"other") is None
    store.close()
    store = Store(path)
    assert store.reply(b"\0key") == kept
    store.add_reply(b"\0key", Reply(content="another"))
    store.close()
    store = Store(path)
    assert store.reply(b"\0key") == kept  # the first answer stays: it is the one that rows were judged by
    store.close()


# Jobs


def test_a_job_is_inserted_once(store: Store) -> None:
    assert store.add_job(JOB) == JOB
    store.set_status("job-1", "completed", None, "2026-01-02T00:00:00Z")
    again = store.add_job(JOB)
    assert (again.status, again.finished_at) == ("completed", "2026-01-02T00:00:00Z")
    assert store.job("job-1") == again and store.job("other") is None


def test_jobs_are_listed_newest_first(store: Store) -> None:
    for number in (1, 3, 2):
        store.add_job(JOB._replace(id=f"job-{number}", created_at=f"2026-01-0{number}T00:00:00Z"))
    store.add_job(JOB._replace(id="job-0", created_at="2026-01-02T00:00:00Z"))
    assert [each.id for each in store.jobs()] == ["job-3", "job-0", "job-2", "job-1"]


def test_the_status_is_written_after_the_rows(store: Store, path: Path) -> None:
    store.add_job(JOB)
    add(store, 0)
    store.set_status("job-1", "failed", "it broke", None)
    assert committed(path) == 1
    job = store.job("job-1")
    assert job is not None and (job.status, job.message) == ("failed", "it broke")


def test_any_message_can_be_stored(store: Store) -> None:
    store.add_job(JOB)
    store.set_status("job-1", "failed", "the endpoint said \ud800", None)
    job = store.job("job-1")
    assert job is not None and job.message == "the endpoint said ?"


def test_reading_does_not_hold_up_writing(store: Store, path: Path) -> None:
    store.add_job(JOB)
    for number in range(50):
        add(store, number)
    reader = Store(path)
    store.flush()
    rows = iter(reader.rows("job-1"))
    next(rows)
    started = time.monotonic()
    add(store, 50)
    store.set_status("job-1", "completed", None, None)
    assert time.monotonic() - started < 1
    assert len(list(rows)) == 49
    reader.close()


# What can be wrong with the file


def problem(path: Path) -> EvalopsError:
    with pytest.raises(EvalopsError) as caught:
        Store(path)
    return caught.value


def test_the_store_of_a_newer_version_is_refused_and_left_alone(path: Path) -> None:
    Store(path).close()
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version={VERSION + 1}")
    database.close()
    error = problem(path)
    assert error.diagnostics[0].code == "store/newer-version"
    assert str(error.diagnostics[0].mark) == "state/store.sqlite"
    assert problem(path).diagnostics[0].code == "store/newer-version"


@pytest.mark.parametrize("data", [b"this is no database " * 100, b"SQLite format 3\0" + b"\xff" * 4080])
def test_a_file_that_is_no_store_is_a_clear_error(path: Path, data: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(data)
    diagnostic = problem(path).diagnostics[0]
    assert diagnostic.code == "store/unusable" and diagnostic.hint and "remove" in diagnostic.hint


def test_a_file_in_place_of_the_folder_is_a_clear_error(path: Path) -> None:
    path.parent.write_text("")
    assert problem(path).diagnostics[0].code == "store/unusable"


def test_a_damaged_store_is_a_clear_error_when_it_is_read(path: Path) -> None:
    store = Store(path)
    for number in range(2000):
        add(store, number, scored(feedback="x" * 100))
        store.add_reply(str(number).encode(), Reply(content="y" * 100))
    store.close()
    data = bytearray(path.read_bytes())
    data[8192:] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    opened = Store(path)
    for use in (lambda: list(opened.rows("job-1")), lambda: opened.reply(b"7"), lambda: opened.finished("job-1", 9)):
        with pytest.raises(EvalopsError) as caught:
            use()
        assert caught.value.diagnostics[0].code == "store/unusable"
    opened.close()


FILL = """
import resource, sys
from pathlib import Path
from evalops.engine.store import Store
from evalops.errors import EvalopsError
from evalops.result import Verdict, VerdictStatus
store = Store(Path(sys.argv[1]))
store.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
kept = 0
try:
    for number in range(100_000):
        store.add_row("job-1", number, Verdict("k", VerdictStatus.SCORED, "polite", None, "x" * 200), {}, 1)
        if number % 100 == 99:
            store.flush()
            kept = number + 1
except EvalopsError as error:
    print(kept, error.diagnostics[0].code, error.diagnostics[0].message, sep="|")
"""


def test_a_full_disk_is_an_error_and_keeps_what_was_committed(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(path)],
        capture_output=True, text=True, timeout=60, check=False, env={"PYTHONPATH": str(PACKAGE)},
    )  # fmt: skip
    kept, code, message = done.stdout.strip().split("|")
    assert code == "store/unusable" and "cannot be used" in message, done
    store = Store(path)
    assert int(kept) > 0 and positions(store) == list(range(int(kept)))
    add(store, int(kept))  # and with room again, it goes on
    store.flush()
    assert len(positions(store)) == int(kept) + 1
    store.close()


KILL = """
import os, signal, sys
from pathlib import Path
from evalops.engine.store import Store
from evalops.result import Verdict, VerdictStatus
store = Store(Path(sys.argv[1]))
for number in range(300):
    store.add_row("job-1", number, Verdict("k", VerdictStatus.SCORED, "polite"), {}, 1)
    if number % 10 == 9 and number < 295:
        store.flush()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_loses_what_was_not_committed_and_a_torn_commit_is_rolled_back(path: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILL, str(path)], timeout=60, check=False, env={"PYTHONPATH": str(PACKAGE)})
    log = path.with_name("store.sqlite-wal")
    data = log.read_bytes()
    found = []
    for number, size in enumerate(range(len(data), 0, -len(data) // 12)):
        copy = tmp_path / f"copy-{number}" / "store.sqlite"
        copy.parent.mkdir()
        shutil.copy(path, copy)
        copy.with_name(log.name).write_bytes(data[:size])
        store = Store(copy)
        found.append(len(positions(store)))
        assert positions(store) == list(range(found[-1])) and found[-1] % 10 == 0
        store.close()
    assert found[0] == 290 and found == sorted(found, reverse=True) and found[-1] < 290


# --- a look from outside ---


def test_another_process_counts_what_is_committed(store: Store, path: Path) -> None:
    add(store, 0)
    add(store, 1, scored("rude"))
    add(store, 2, Verdict("k", VerdictStatus.ERROR, None))
    assert stores.counts(path, "job-1") == {}
    store.flush()
    add(store, 3)
    assert stores.counts(path, "job-1") == {("scored", "polite"): 1, ("scored", "rude"): 1, ("error", None): 1}
    assert stores.counts(path, "job-2") == {}


def test_a_store_that_is_not_there_is_not_made_by_a_look(path: Path) -> None:
    assert stores.counts(path, "job-1") == {} and not path.exists()
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    assert stores.counts(path, "job-1") == {}
