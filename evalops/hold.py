"""A lock that one process has at a time; the system frees it when its holder dies, however that happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from evalops.errors import Diagnostic, EvalopsError, Exit, Mark

TRIES, PAUSE = 10, 0.02  # a look at who holds a lock takes it for a moment: times, seconds


class Holder(NamedTuple):
    """Who holds a lock, by its own word; `since` in seconds since 1970. What it did not say is None."""

    pid: int | None
    host: str | None
    since: int | None


@contextmanager
def held(path: Path, code: str, taken: str) -> Iterator[None]:
    """Holds the lock file at `path`; at once EvalopsError (exit 5) where another process has it.

    `code` and `taken` are the diagnostic's: `taken` says what the other process does, and its name is added.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+", encoding="utf-8")
    except OSError as error:
        message = f"cannot be written: {error.strerror or error}"
        mark = Mark(f"{path.parent.name}/{path.name}")
        raise EvalopsError(Diagnostic(code="file/write", message=message, mark=mark)) from None
    with stream:
        if not _is_had(stream):
            raise _taken(stream, code, taken)
        stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}, stream)
        stream.flush()
        yield


def holder(path: Path) -> Holder | None:
    """Who holds the lock file at `path` now, None where nobody does. Nothing is written."""
    try:
        with path.open(encoding="utf-8") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return _told(stream)
    except OSError:
        pass
    return None


def _is_had(stream: IO[str]) -> bool:
    """Takes the lock, unless somebody has it for longer than a look takes."""
    for attempt in range(TRIES):
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if attempt + 1 < TRIES:
                time.sleep(PAUSE)
        else:
            return True
    return False


def _told(stream: IO[str]) -> Holder:
    """What the holder wrote into its lock."""
    said: Any = {}
    with contextlib.suppress(ValueError, OSError):
        stream.seek(0)
        said = json.load(stream)
    said = said if isinstance(said, dict) else {}
    pid, host, since = (said.get(name) for name in Holder._fields)
    return Holder(
        pid if isinstance(pid, int) else None,
        host if isinstance(host, str) else None,
        since if isinstance(since, int) else None,
    )


def _taken(stream: IO[str], code: str, taken: str) -> EvalopsError:
    told = _told(stream)
    age = f" since {max(0, int(time.time()) - told.since)} s" if told.since is not None else ""
    return EvalopsError(
        Diagnostic(
            code=code,
            message=f"{taken}: process {told.pid or 'unknown'} on {told.host or 'an unknown host'}{age}",
            hint="wait for it, or stop it; the lock is freed the moment it ends",
        ),
        exit_code=Exit.LOCKED_OR_STALE,
    )
