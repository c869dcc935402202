"""A plan that was made from these very bytes, kept in the user's cache folder.

It is found by what was asked, and used only where the project has the same spec files and lockfiles as then, and
every file that the plan was made from has the same sha256: no time stamp is believed. Nothing of a project is ever
written there, so that who can choose its content cannot choose what is found.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from evalops import __version__
from evalops.errors import EvalopsError
from evalops.lock import SUFFIX
from evalops.project import Project, matching
from evalops.settings import FILE

_TICK = 0.05  # seconds that a file system's clock may be behind


def folder() -> Path:
    """Where plans are kept."""
    return user_cache_path("evalops") / "plans"


def key(project: Project, extra: Iterable[str]) -> str:
    """The digest of the project's folder and settings, this package's version, and what else is asked.

    Beside files of the project, a plan depends on the journal, on where the services are, on lists of models, and on
    the day: prices grow old.
    """
    digest = hashlib.sha256()
    around = (
        f"{datetime.now(UTC):%Y-%m-%d}",
        *_stamps(project.state / "journal"),
        *(os.environ.get(name, "") for name in ("TOGETHER_BASE_URL", "PATRONUS_API_BASE_URL")),
        *_stamps(_models()),
    )
    for text in (__version__, str(project.root), *extra, *around):
        digest.update(f"{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
    digest.update(project.read(FILE))
    return digest.hexdigest()


def _models() -> Path:
    return user_cache_path("evalops") / "models"


def _stamps(folder: Path) -> list[str]:
    """What changes when a file of the folder does; nothing where there is no such folder."""
    try:
        return sorted(f"{each.name}\0{(at := each.stat()).st_size}\0{at.st_mtime_ns}" for each in folder.iterdir())
    except OSError:
        return []


def load(project: Project, key_: str) -> Any | None:
    """The plan's machine form, None where there is none or a file it was made from has come, gone or changed."""
    try:
        value = json.loads((folder() / key_[:2] / key_).read_bytes())
        if value["found"] == _found(project, value["globs"]) and all(
            _digest(project, path) == digest for path, digest in value["files"].items()
        ):
            return value["plan"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EvalopsError):
        pass
    return None


def save(project: Project, key_: str, files: Iterable[str], plan: Any, *, began: float) -> None:
    """Keeps a plan that was made from the specs, the lockfiles and `files`, read since `began` (seconds, epoch).

    A plan whose files changed meanwhile is never found again. A cache that cannot be written is no problem.
    """
    path = folder() / key_[:2] / key_
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        found = _found(project, project.settings.specs)
        value = {
            "globs": project.settings.specs,
            "found": found,
            "files": {file: _digest(project, file, since=began - _TICK) for file in sorted({*found, *files})},
            "plan": plan,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(path)
    except (OSError, EvalopsError):
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _found(project: Project, globs: Sequence[str]) -> list[str]:
    """The spec files and the lockfiles, from one look at the folder."""
    return matching(project.files(), (*globs, f"**/*{SUFFIX}"))


def _digest(project: Project, path: str, *, since: float = math.inf) -> str | None:
    """The sha256 of a file, None where its content may have changed after `since`."""
    digest = hashlib.sha256()
    with project.open(path) as stream:
        if os.fstat(stream.fileno()).st_ctime >= since:
            return None
        while block := stream.read(1 << 16):
            digest.update(block)
    return digest.hexdigest()
