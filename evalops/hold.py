"""A lock that one process has at a time; the system frees it when its holder dies, however that happens."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from evalops.errors import Diagnostic, EvalopsError, Exit, Mark


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
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _taken(stream, code, taken) from None
        stream.truncate(0)
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": int(time.time())}, stream)
        stream.flush()
        yield


def _taken(stream: IO[str], code: str, taken: str) -> EvalopsError:
    holder: Mapping[str, object] = {}
    with contextlib.suppress(ValueError, OSError):
        stream.seek(0)
        holder = json.load(stream)
    since = holder.get("since")
    age = f" since {max(0, int(time.time()) - since)} s" if isinstance(since, int) else ""
    return EvalopsError(
        Diagnostic(
            code=code,
            message=f"{taken}: process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown host')}{age}",
            hint="wait for it, or stop it; the lock is freed the moment it ends",
        ),
        exit_code=Exit.LOCKED_OR_STALE,
    )
