"""The write-ahead journal of apply: what was decided, sent and answered, durable before the next step.

It is for providers whose create costs money and cannot be repeated safely. A file a run, named `NUMBER-RUN.jsonl`:
the number, not the clock, gives the order. A line is one record, written at once and synced, and ends in a CRC-32
of itself and of all lines before it. A file is never written again after its run: only its last line can be torn.

    intent → uploaded → submitting → created → locked
                             │   └→ refused
                             └→ ambiguous → adopted → locked, absent or abandoned
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import socket
import stat
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Self
from zlib import crc32

from evalops.errors import Diagnostic, EvalopsError, Mark

VERSION = 1
# A finished run is remembered for longer than any service takes to list a new job: a lock entry that was thrown
# away meanwhile must not look like work that was never sent.
RETENTION = timedelta(days=7)

_SEAL = len(',"crc":"00000000"}')
_FILE = re.compile(r"([0-9]{6,})-[\w.-]+\.jsonl", re.ASCII)
_ATTEMPTS = 5  # looks at a folder from which an apply removes files
_sync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class State(StrEnum):
    """The kind of a record, and where an intent stands after it."""

    INTENT = "intent"
    UPLOADED = "uploaded"
    SUBMITTING = "submitting"
    CREATED = "created"
    REFUSED = "refused"
    AMBIGUOUS = "ambiguous"
    ADOPTED = "adopted"
    ABSENT = "absent"
    ABANDONED = "abandoned"
    LOCKED = "locked"


_OPEN = frozenset({State.SUBMITTING, State.AMBIGUOUS})
_UNLOCKED = frozenset({State.CREATED, State.ADOPTED})
_UNSENT = frozenset({State.INTENT, State.UPLOADED})
# What may stand before a record of each kind. An intent begins anew wherever no job can be left behind.
_AFTER: Mapping[State, frozenset[State]] = {
    State.INTENT: frozenset(State) - _OPEN - _UNLOCKED,
    State.UPLOADED: _UNSENT,
    State.SUBMITTING: _UNSENT,
    State.CREATED: frozenset({State.SUBMITTING}),
    State.REFUSED: _UNSENT | {State.SUBMITTING},
    State.AMBIGUOUS: _OPEN,
    State.ADOPTED: frozenset(State) - _UNLOCKED - {State.LOCKED},  # what was absent may appear after all
    State.ABSENT: _OPEN,
    State.ABANDONED: frozenset(State) - {State.LOCKED},
    State.LOCKED: _UNLOCKED | {State.LOCKED},  # two addresses may share a job
}
# Only the run that sends can write these: what an earlier one left is looked for, never gone on with.
_SAME_RUN = (State.UPLOADED, State.SUBMITTING, State.CREATED, State.REFUSED)
_EACH: Mapping[str, Any] = {
    "run": str, "at": str, "provider": str, "origin": str | None, "fingerprint": str, "generation": int,
}  # fmt: skip
_FIELDS: Mapping[State, Mapping[str, type]] = {
    State.INTENT: {"address": str, "lock": str, "host": str, "pid": int, "plan": str, "estimate": object},
    State.UPLOADED: {"file": str, "sha256": str, "parameters": dict},
    State.SUBMITTING: {},
    State.CREATED: {"job": str, "created_at": str},
    State.REFUSED: {"code": str, "why": str},
    State.AMBIGUOUS: {"why": str},
    State.ADOPTED: {"job": str, "evidence": object},
    State.ABSENT: {"proof": object},
    State.ABANDONED: {"why": str},
    State.LOCKED: {"lock": str, "digest": str},
}


class Key(NamedTuple):
    """What at most one paid job is for."""

    provider: str
    origin: str | None
    fingerprint: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """All that is known of one key: the last attempt at it, and where that stands. Times are RFC 3339, UTC.

    `run`, `host` and `pid` are of the apply that meant to send it, `at` is the time of the last record;
    `created_at` is the provider's time, `after` the newest job that the provider was known to have before.
    """

    key: Key
    state: State
    run: str
    at: str
    intended_at: str
    address: str
    lock: str
    host: str
    pid: int
    plan: str
    estimate: Any
    file: str | None = None
    sha256: str | None = None
    parameters: Mapping[str, Any] | None = None
    submitted_at: str | None = None
    after: str | None = None
    job: str | None = None
    created_at: str | None = None
    code: str | None = None
    why: str | None = None
    evidence: Any = None
    proof: Any = None
    digest: str | None = None

    @property
    def is_open(self) -> bool:
        """Whether a job may exist that nobody knows the id of: it must be looked for before anything is sent."""
        return self.state in _OPEN

    @property
    def is_unlocked(self) -> bool:
        """Whether its job is known and its lock entry may be missing."""
        return self.state in _UNLOCKED

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to do: it has an outcome, or was never sent."""
        return not (self.is_open or self.is_unlocked)


class Line(NamedTuple):
    """One whole record and where it stands."""

    mark: Mark
    record: Mapping[str, Any]


def parse(data: bytes, path: str) -> list[Line]:
    """The records of one file, without a torn last line: that one was not durable, so nothing followed it.

    Raises EvalopsError for any other line that is not as it was written, and for records of a newer version.
    """
    parts = data.split(b"\n")
    is_cut = bool(parts[-1])
    if not is_cut:
        parts.pop()
    lines, crc = [], 0
    for number, text in enumerate(parts, 1):
        mark, body = Mark(path, number, 1), text[:-_SEAL]
        crc = crc32(body, crc)
        if text != _sealed(body, crc):
            # A write that was cut short, or whose first block never reached the disk.
            if number == len(parts) and (is_cut or b"\0" in text):
                break
            raise _damaged(mark, "it was changed, or lines before it are gone")
        lines.append(Line(mark, _record(body + b"}", mark)))
    return lines


def replay(lines: Iterable[Line]) -> dict[Key, Intent]:
    """Where each key stands after these records, given in the order in which they were written.

    Raises EvalopsError, naming the line, for an order that no apply writes.
    """
    intents: dict[Key, Intent] = {}
    orphans: dict[Key, Line] = {}  # their intent was in a file that was removed as settled
    for line in lines:
        try:
            key = _key(line.record)
            if key not in intents and line.record["kind"] != State.INTENT:
                orphans[key] = line
                continue
            intents[key] = advance(intents.get(key), line.record)
        except ValueError as error:
            raise _damaged(line.mark, str(error)) from None
    for line in orphans.values():
        if State(line.record["kind"]) in _OPEN | _UNLOCKED:
            raise _damaged(line.mark, "the file with the records before it is gone")
    return intents


def advance(known: Intent | None, record: Mapping[str, Any]) -> Intent:
    """The intent after one more record. Raises ValueError where that record may not follow."""
    kind, key = State(record["kind"]), _key(record)
    for name, type_ in _FIELDS[kind].items():
        if name not in record or not isinstance(record[name], type_):
            raise ValueError(f"a record `{kind}` without a usable `{name}`")
    fields = {name: record[name] for name in _FIELDS[kind]}
    if kind is not State.INTENT and known is None:
        raise ValueError(f"a record `{kind}` without an intent")
    if known is not None and known.state not in _AFTER[kind]:
        raise ValueError(f"a record `{kind}` after `{known.state}`")
    if kind is State.INTENT or known is None:
        return Intent(key=key, state=kind, run=record["run"], at=record["at"], intended_at=record["at"], **fields)
    if kind in _SAME_RUN and record["run"] != known.run:
        raise ValueError(f"a record `{kind}` of another run than its intent")
    if kind is State.SUBMITTING:
        after = record.get("after")
        fields |= {"submitted_at": record["at"], "after": after if isinstance(after, str) else None}
    return replace(known, state=kind, at=record["at"], **fields)


def read(folder: Path) -> dict[Key, Intent]:
    """Where each key stands, for one who only looks, also while an apply writes."""
    return replay(line for _, lines in _load(folder) for line in lines)


def durably(file: int, data: bytes) -> None:
    """Appends to a file and waits for the disk. Raises OSError where not all of it could be written."""
    if os.write(file, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _sync(file)


def _utc() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True, eq=False)
class Journal:
    """The journal of one run, on top of what earlier ones left. For one process at a time, any number of threads.

    Each method writes one record and returns once it is durable. It raises EvalopsError where it could not be
    written (then it counts as not written), ValueError where it may not follow what is known of its key, and
    TypeError for what is no plain JSON, a secret for one. Texts of a provider are to be redacted before.
    """

    path: Path
    run: str
    _intents: dict[Key, Intent]
    _append: Callable[[int, bytes], None]
    _clock: Callable[[], datetime]
    _file: int | None = None
    _size: int = 0
    _crc: int = 0
    _is_over: bool = False
    _turn: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        run: str | None = None,
        append: Callable[[int, bytes], None] = durably,
        clock: Callable[[], datetime] = _utc,
    ) -> Self:
        """The journal of a new run; its file is made with its first record. Only one who holds the apply lock may.

        Files of earlier runs whose every key is settled since `RETENTION` are removed, the oldest first, up to one
        that must stay. Raises EvalopsError for a damaged journal.
        """
        run = run or f"{clock():%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}"
        if not re.fullmatch(r"[\w.-]{1,100}", run, re.ASCII):
            raise ValueError(f"`{run}` cannot be a part of a file's name")
        files = _load(folder)
        number = 1
        for path, _ in files[-1:]:
            number += _number(path)
            _make_sure(path)
        with contextlib.suppress(OSError):  # what cannot be tidied up does no harm
            _sweep(folder, files, _stamp(clock() - RETENTION))
        intents = read(folder)  # only what a later run can still know may be gone on with
        return cls(folder / f"{number:06}-{run}.jsonl", run, intents, append, clock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes no more records."""
        with self._turn:
            self._is_over = True
            if self._file is not None:
                os.close(self._file)
                self._file = None

    @property
    def intents(self) -> dict[Key, Intent]:
        """Where each key stands: what was found at the start, and the records of this run."""
        with self._turn:
            return dict(self._intents)

    def intent(self, key: Key, *, address: str, lock: str, plan: str, estimate: Any = None) -> Intent:
        """A job is meant to be made for an address: `plan` is the plan's digest, `lock` its lockfile's path."""
        more = {"host": socket.gethostname(), "pid": os.getpid(), "plan": plan, "estimate": estimate}
        return self._write(State.INTENT, key, address=address, lock=lock, **more)

    def uploaded(self, key: Key, *, file: str, sha256: str, parameters: dict[str, Any]) -> Intent:
        """The dataset is there; `parameters` is all that will be sent, less the secrets."""
        return self._write(State.UPLOADED, key, file=file, sha256=sha256, parameters=parameters)

    def submitting(self, key: Key, *, after: str | None = None) -> Intent:
        """The one request follows: from here on a job may exist, newer than the job `after`."""
        return self._write(State.SUBMITTING, key, after=after)

    def created(self, key: Key, *, job: str, created_at: str) -> Intent:
        """The provider took it; `created_at` is its time."""
        return self._write(State.CREATED, key, job=job, created_at=created_at)

    def refused(self, key: Key, *, code: str, why: str) -> Intent:
        """The provider surely did not take it."""
        return self._write(State.REFUSED, key, code=code, why=why)

    def ambiguous(self, key: Key, *, why: str) -> Intent:
        """It cannot be told whether the provider took it."""
        return self._write(State.AMBIGUOUS, key, why=why)

    def adopted(self, key: Key, *, job: str, evidence: Any) -> Intent:
        """A job that the provider has is this one."""
        return self._write(State.ADOPTED, key, job=job, evidence=evidence)

    def absent(self, key: Key, *, proof: Any) -> Intent:
        """The provider was asked late and fully enough: there is no such job."""
        return self._write(State.ABSENT, key, proof=proof)

    def abandoned(self, key: Key, *, why: str) -> Intent:
        """The user lets go of it."""
        return self._write(State.ABANDONED, key, why=why)

    def locked(self, key: Key, *, lock: str, digest: str) -> Intent:
        """The lock entry that names its job is durable."""
        return self._write(State.LOCKED, key, lock=lock, digest=digest)

    def _write(self, kind: State, key: Key, **fields: Any) -> Intent:
        with self._turn:
            record = {"v": VERSION, "kind": str(kind), "run": self.run, "at": _stamp(self._clock())}
            record |= key._asdict() | fields
            _refuse_what_is_not_plain(record)
            body = json.dumps(record, separators=(",", ":")).encode()[:-1]
            # From its own text, so that what is known now is what a later run will know.
            intent = advance(self._intents.get(key), json.loads(body + b"}"))
            crc = crc32(body, self._crc)
            line = _sealed(body, crc) + b"\n"
            self._put(line)
            self._size += len(line)
            self._crc = crc
            self._intents[key] = intent
            return intent

    def _put(self, line: bytes) -> None:
        if self._is_over:
            raise _failed(self.path, None)
        try:
            if self._file is None:
                self._file = _begin(self.path)
            self._append(self._file, line)
        except OSError as error:
            self._undo()
            raise _failed(self.path, error) from None
        except BaseException:
            self._undo()
            raise

    def _undo(self) -> None:
        """Takes back what there may be of the last line; a file of which that is not sure takes no more."""
        if self._file is not None:
            try:
                os.ftruncate(self._file, self._size)
                _sync(self._file)
            except OSError:
                self._is_over = True


def _begin(path: Path) -> int:
    """A new file whose name is durable, and the folders on the way to it too."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
    try:
        for folder in path.parents[:3]:  # the journal, the state, the project
            _sync_path(folder)
    except BaseException:
        os.close(file)
        path.unlink(missing_ok=True)
        raise
    return file


def _sweep(folder: Path, files: Sequence[tuple[Path, list[Line]]], before: str) -> None:
    intents = replay(line for _, lines in files for line in lines)
    for path, lines in files:
        keys = {_key(line.record) for line in lines} & intents.keys()
        if not all(intents[key].is_settled and intents[key].at < before for key in keys):
            return  # a later file may hold the outcome of what this one began: none is removed before it
        path.unlink()
        _sync_path(folder)


def _make_sure(path: Path) -> None:
    """Waits for the disk: a killed apply may have written a record that it did not come to sync."""
    try:
        _sync_path(path)
    except OSError as error:
        raise _failed(path, error) from None


def _load(folder: Path) -> list[tuple[Path, list[Line]]]:
    """The files in the order of their runs, and their records."""
    for _ in range(_ATTEMPTS):
        try:
            return [(path, parse(_content(path), _shown(path))) for path in _files(folder)]
        except FileNotFoundError:
            continue  # an apply has just removed it
        except OSError as error:
            message = f"`{_shown(Path(error.filename or folder))}` cannot be read: {_reason(error)}"
            hint = "it says which jobs were sent: mend it or its permissions"
            raise EvalopsError(Diagnostic(code="journal/unreadable", message=message, hint=hint)) from None
    raise _damaged(Mark(_shown(folder)), "its files come and go")


def _files(folder: Path) -> list[Path]:
    try:
        paths = [path for path in folder.iterdir() if path.suffix == ".jsonl"]
    except FileNotFoundError:
        return []
    return sorted(paths, key=lambda path: (_number(path), path.name))


def _content(path: Path) -> bytes:
    # Neither a link out of the folder nor a pipe that would hang.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "no file", str(path))
        with os.fdopen(file, "rb", closefd=False) as stream:
            return stream.read()
    finally:
        os.close(file)


def _number(path: Path) -> int:
    found = _FILE.fullmatch(path.name)
    if not found:
        raise _damaged(Mark(_shown(path)), "its name does not say where it belongs in the order")
    return int(found[1])


def _sealed(body: bytes, crc: int) -> bytes:
    return b'%b,"crc":"%08x"}' % (body, crc)


def _record(text: bytes, mark: Mark) -> Mapping[str, Any]:
    record = json.loads(text)
    version, kind = record.get("v"), record.get("kind")
    if version != VERSION or kind not in list(State):
        what = f"kind `{kind}`" if version == VERSION else f"version {version}"
        raise EvalopsError(
            Diagnostic(
                code="journal/newer-version",
                message=f"a record of {what}, which this evalops does not know",
                mark=mark,
                hint="update evalops: an older one could pay twice for what a newer one has sent",
            )
        )
    return record  # type: ignore[no-any-return]


def _key(record: Mapping[str, Any]) -> Key:
    for name, type_ in _EACH.items():
        if not isinstance(record.get(name), type_):
            raise ValueError(f"a record without a usable `{name}`")
    return Key(record["provider"], record.get("origin"), record["fingerprint"], record["generation"])


def _refuse_what_is_not_plain(value: object) -> None:
    """JSON that comes back as it was; the value itself is never named, it may be a secret."""
    if isinstance(value, dict):
        for name, each in value.items():
            if type(name) is not str:
                raise TypeError(f"a journal record cannot hold a key of type {type(name).__name__}")
            _refuse_what_is_not_plain(each)
    elif isinstance(value, list):
        for each in value:
            _refuse_what_is_not_plain(each)
    elif value is not None and type(value) not in (str, int, float, bool):
        raise TypeError(f"a journal record cannot hold a value of type {type(value).__name__}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise TypeError("a journal record cannot hold a number that is not finite")


def _stamp(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _sync_path(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _shown(path: Path) -> str:
    """A path as from the project folder."""
    return "/".join(path.parts[-3 if path.suffix else -2 :])


def _reason(error: OSError) -> str:
    return os.strerror(error.errno or errno.EIO).lower()


def _failed(path: Path, error: OSError | None) -> EvalopsError:
    why = f"could not be written: {_reason(error)}" if error else "takes no more records"
    hint = "nothing was sent after it: make room or mend the folder, then run the same command again"
    return EvalopsError(Diagnostic(code="journal/write", message=f"`{_shown(path)}` {why}", hint=hint))


def _damaged(mark: Mark, why: str) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code="journal/damaged",
            message=f"the journal of what was sent cannot be trusted here: {why}",
            mark=mark,
            hint="do not delete it, it may be all that knows of a paid job: compare `evalops status --remote` with the "
            "lockfiles, take in what is missing with `evalops import JOB_ID`, and only then move the file away",
        )
    )
