"""Jobs, rows and replies in one SQLite file, so that a killed run goes on where it stopped.

Writes are gathered and committed together, at the latest `WINDOW` seconds after the first of them: a kill
loses the rows in flight and one such window. In WAL mode a commit survives the death of the process, and a
torn one is rolled back at the next start. One process writes at a time; the apply lock sees to that.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from evalops.engine.reply import Reply
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.result import Value, Verdict, VerdictStatus, Vote

VERSION = 1
WINDOW = 0.05  # seconds
BATCH = 500  # writes; more are committed at once
GUESSED = " by rule"  # after a stage: the tokens of its calls that were not counted
FORGOTTEN = ""  # the stage of calls of rows that are tried again

_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, generation INTEGER NOT NULL, status TEXT NOT NULL,
    message TEXT, rows INTEGER NOT NULL, created_at TEXT NOT NULL, finished_at TEXT,
    started_at TEXT, request TEXT, results TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS jobs_by_age ON jobs (created_at DESC, id);
CREATE TABLE IF NOT EXISTS rows (
    job TEXT NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, status TEXT NOT NULL, value,
    reason TEXT, feedback TEXT, rung TEXT, detail TEXT NOT NULL,
    PRIMARY KEY (job, position)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS replies (
    key BLOB PRIMARY KEY, reply TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS usage (
    job TEXT NOT NULL, stage TEXT NOT NULL,
    calls INTEGER NOT NULL, prompt INTEGER NOT NULL, completion INTEGER NOT NULL, uncounted INTEGER NOT NULL,
    replies INTEGER NOT NULL, all_prompt INTEGER NOT NULL, all_completion INTEGER NOT NULL, kept INTEGER NOT NULL,
    PRIMARY KEY (job, stage)
) WITHOUT ROWID;
"""
_ADD_USAGE = """
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (job, stage) DO UPDATE SET
    calls = calls + excluded.calls, prompt = prompt + excluded.prompt, completion = completion + excluded.completion,
    uncounted = uncounted + excluded.uncounted, replies = replies + excluded.replies,
    all_prompt = all_prompt + excluded.all_prompt, all_completion = all_completion + excluded.all_completion,
    kept = kept + excluded.kept
"""


_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode  # made once: json.dumps makes one a call
_REPLY = tuple(name for name in Reply.__slots__ if name != "is_kept")


class JobRecord(NamedTuple):
    """A job of the engine.

    A job of the server also has what was asked for and what came out, as JSON in the server's words, which
    `status` is then one of, too.
    """

    id: str
    fingerprint: str
    generation: int
    status: str
    message: str | None
    rows: int
    created_at: str
    finished_at: str | None = None
    started_at: str | None = None
    request: str | None = None
    results: str | None = None


class Used(NamedTuple):
    """What one model of a job took so far, whatever came of the rows.

    `calls` were answered, with `prompt` tokens sent and `completion` tokens received; of `uncounted` of them the
    endpoint does not say how many. `replies` are all those whose tokens are known, the ones `kept` from earlier calls
    included, with their tokens `all_prompt` and `all_completion`.
    """

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    uncounted: int = 0
    replies: int = 0
    all_prompt: int = 0
    all_completion: int = 0
    kept: int = 0


class Stored(NamedTuple):
    """A row as the store holds it; `detail` has `outputs`, `lengths` and `usage` by model."""

    position: int
    verdict: Verdict
    detail: dict[str, Any]


class Store:
    """The file at `path`, made where it does not exist. Raises EvalopsError where it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: list[tuple[Any, ...]] = []
        self._replies: dict[bytes, str] = {}
        self._usage: dict[tuple[str, str], list[int]] = {}
        with self._explained():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, isolation_level=None, timeout=10.0)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise EvalopsError(
                    Diagnostic(
                        code="store/newer-version",
                        message="the job store was written by a newer evalops",
                        mark=Mark(_shown(path)),
                        hint="update evalops, or remove the file: its finished jobs are in the lockfiles",
                    )
                )
            self._database.executescript(_TABLES)
            self._database.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Commits what is gathered and closes the file."""
        self.flush()
        self._database.close()

    def flush(self) -> None:
        """Commits all that is gathered. Raises EvalopsError where that fails, a full disk for one."""
        if not self._rows and not self._replies and not self._usage:
            return
        with self._wholly():
            self._database.executemany("INSERT OR IGNORE INTO replies VALUES (?, ?)", list(self._replies.items()))
            self._database.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", self._rows)
            self._database.executemany(_ADD_USAGE, [(*key, *each) for key, each in self._usage.items()])
        self._rows.clear()
        self._replies.clear()
        self._usage.clear()

    @property
    def is_full(self) -> bool:
        """Whether enough is gathered to be committed before its window ends."""
        return len(self._rows) + len(self._replies) >= BATCH

    def add_job(self, job: JobRecord) -> JobRecord:
        """Inserts a job; one with the same id stays as it is. Returns what the store holds. Durable."""
        with self._durably():
            self._database.execute("INSERT OR IGNORE INTO jobs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", job)
        return self.job(job.id) or job

    def set_status(self, job: str, status: str, message: str | None, finished_at: str | None) -> None:
        """Records how a job stands, after all its rows."""
        self.flush()
        with self._durably():
            self._database.execute(
                "UPDATE jobs SET status = ?, message = ?, finished_at = ? WHERE id = ?",
                (status, _storable(message), finished_at, job),
            )

    def conclude(self, job: str, status: str, results: str, finished_at: str) -> None:
        """Records how a job of the server ended: its last status with its results, together."""
        self.flush()
        with self._durably():
            self._database.execute(
                "UPDATE jobs SET status = ?, results = ?, finished_at = ? WHERE id = ?",
                (status, _storable(results), finished_at, job),
            )

    def start(self, job: str, status: str, started_at: str) -> None:
        """Records that a job of the server is under way; when it began first stays."""
        with self._explained():
            self._database.execute(
                "UPDATE jobs SET status = ?, started_at = coalesce(started_at, ?) WHERE id = ?",
                (status, started_at, job),
            )

    def job(self, id_: str) -> JobRecord | None:
        """One job, or None."""
        with self._explained():
            found = self._database.execute("SELECT * FROM jobs WHERE id = ?", (id_,)).fetchone()
        return JobRecord(*found) if found else None

    def jobs(self, *, status: Collection[str] = (), limit: int = -1) -> list[JobRecord]:
        """The jobs, newest first: all, or those with one of these words as their status, at most `limit`."""
        where = f"WHERE status IN ({', '.join('?' * len(status))})" if status else ""
        with self._explained():
            found = self._database.execute(
                f"SELECT * FROM jobs {where} ORDER BY created_at DESC, id LIMIT ?",  # noqa: S608 - marks only
                (*status, limit),
            ).fetchall()
        return [JobRecord(*each) for each in found]

    def add_row(self, job: str, position: int, verdict: Verdict, detail: Mapping[str, Any], checksum: int) -> None:
        """Gathers one row for the next commit. `checksum`, not 0, is of what was judged."""
        text = {**detail, "orders": verdict.orders, "checksum": checksum}
        if verdict.votes:
            text["votes"] = verdict.votes
        if verdict.criteria:
            text["criteria"] = verdict.criteria
        found = (*verdict[:5], verdict.rung, _encode(text))
        self._rows.append((job, position, *map(_storable, found)))

    def rows(self, job: str) -> Iterator[Stored]:
        """The rows of a job in the order of the dataset."""
        self.flush()
        with self._explained():
            cursor = self._database.execute(
                "SELECT position, key, status, value, reason, feedback, rung, detail FROM rows "
                "WHERE job = ? ORDER BY position",
                (job,),
            )
            for position, key, status, value, reason, feedback, rung, text in cursor:
                detail = json.loads(text)
                orders = detail.pop("orders", None)
                detail.pop("checksum", None)
                verdict = Verdict(
                    key,
                    VerdictStatus(status),
                    value,
                    reason,
                    feedback,
                    orders and tuple(orders),
                    rung,
                    tuple(detail.get("lengths", ())),
                    tuple(_vote(*vote) for vote in detail.pop("votes", ())),
                    detail.pop("criteria", None),
                )
                yield Stored(position, verdict, detail)

    def finished(self, job: str, rows: int) -> tuple[array[int], int]:
        """What a resumed run skips: the checksum of each row that the job has, else 0; and how many are errors.

        A row that was judged while the dataset was another one for a moment has another checksum than today's.
        """
        done, errors = array("I", bytes(4 * rows)), 0
        with self._explained():
            for position, status, checksum in self._database.execute(
                "SELECT position, status, json_extract(detail, '$.checksum') FROM rows WHERE job = ?", (job,)
            ):
                if position < rows:
                    done[position] = checksum or 0
                    errors += status == VerdictStatus.ERROR
        return done, errors

    def forget_errors(self, job: str) -> None:
        """Drops the rows of a job that ended in an error, so that they are tried again. Their calls stay counted."""
        self.flush()
        with self._wholly():
            (calls,) = self._database.execute(
                "SELECT sum(json_extract(detail, '$.calls')) FROM rows WHERE job = ? AND status = 'error'", (job,)
            ).fetchone()
            if calls:
                self._database.execute(_ADD_USAGE, (job, FORGOTTEN, calls, *[0] * (len(Used._fields) - 1)))
            self._database.execute("DELETE FROM rows WHERE job = ? AND status = 'error'", (job,))

    def reply(self, key: bytes) -> Reply | None:
        """A reply kept from an earlier call with the same content."""
        text = self._replies.get(key)
        if text is None:
            try:  # written out: once a row, a context would cost half as much as the query
                found = self._database.execute("SELECT reply FROM replies WHERE key = ?", (key,)).fetchone()
            except (sqlite3.Error, OSError) as error:
                raise self._unusable(error) from error
            if found is None:
                return None
            text = found[0]
        return Reply(**json.loads(text), is_kept=True)

    def add_reply(self, key: bytes, reply: Reply) -> None:
        """Gathers one reply for the next commit."""
        value = {name: value for name in _REPLY if (value := getattr(reply, name)) is not None}
        self._replies[key] = _encode(value)

    def add_usage(self, job: str, stage: str, reply: Reply) -> None:
        """Counts a reply for a job, with the same commit as the reply itself. `stage` is the model's route."""
        used = self._usage.setdefault((job, stage), [0] * len(Used._fields))
        prompt, completion = reply.prompt_tokens, reply.completion_tokens
        is_counted = prompt is not None and completion is not None
        sent, received = (prompt or 0, completion or 0) if is_counted else (0, 0)
        is_call = not reply.is_kept
        more = (is_call, is_call * sent, is_call * received, is_call and not is_counted, is_counted, sent, received)
        for place, number in enumerate((*more, reply.is_kept)):
            used[place] += number

    def add_guess(self, job: str, stage: str, prompt: int, completion: int) -> None:
        """Tokens of an uncounted call by a rule of thumb, beside what was counted: a budget goes by them."""
        used = self._usage.setdefault((job, stage + GUESSED), [0] * len(Used._fields))
        used[Used._fields.index("prompt")] += prompt
        used[Used._fields.index("completion")] += completion

    def usage(self, job: str) -> dict[str, Used]:
        """What a job took so far, by stage."""
        self.flush()
        with self._explained():
            found = self._database.execute("SELECT * FROM usage WHERE job = ? ORDER BY stage", (job,)).fetchall()
        return {stage: Used(*numbers) for _, stage, *numbers in found}

    @contextmanager
    def _durably(self) -> Iterator[None]:
        # Jobs are few and lockfiles name them: their commits, and all before them, reach the disk and not only the
        # system's cache. A checkpoint would do that as well, but waits for whoever is reading.
        with self._explained():
            self._database.execute("PRAGMA synchronous=FULL")
            try:
                yield
            finally:
                self._database.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def _wholly(self) -> Iterator[None]:
        """All that is written within, or nothing of it."""
        with self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> EvalopsError:
        return EvalopsError(
            Diagnostic(
                code="store/unusable",
                message=f"the job store cannot be used: {error}",
                mark=Mark(_shown(self.path)),
                hint="free some disk space, then run the same command again: finished rows are kept"
                if "full" in str(error)
                else "check that the folder can be written to; if the file is damaged, remove it",
            )
        )


def counts(path: Path, job: str) -> dict[tuple[str, Value], int]:
    """The rows of a job by status and value, as they are committed. A short look that changes nothing, also while
    another process writes; nothing is there where the file cannot be read.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)) as database:
            asked = "SELECT status, value, count(*) FROM rows WHERE job = ? GROUP BY status, value"
            return {(status, value): count for status, value, count in database.execute(asked, (job,))}
    except (sqlite3.Error, OSError):
        return {}


def _storable(value: Any) -> Any:
    """A text without the half surrogate pairs that JSON can spell and no file can hold; other values as they are."""
    return value if not isinstance(value, str) or value.isascii() else value.encode(errors="replace").decode()


def _shown(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _vote(judge: int, repeat: int, status: str, value: Value, reason: str | None) -> Vote:
    return Vote(judge, repeat, VerdictStatus(status), value, reason)
