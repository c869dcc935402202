"""A plan that was made from these very bytes, kept in the user's cache folder.

The key is the content of every file that a plan is made from, and this package's version: whoever can choose
the content cannot choose what is found under it, since nothing of a project is ever written there. Values that
the plan depends on are digested again at each look-up; no time stamp is believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from evalops import __version__
from evalops.errors import EvalopsError
from evalops.project import Project
from evalops.settings import FILE


def folder() -> Path:
    """Where plans are kept."""
    return user_cache_path("evalops") / "plans"


def key(project: Project, extra: Iterable[str]) -> str:
    """The digest of the settings, every spec and every lockfile, and of what else the plan depends on."""
    digest = hashlib.sha256(f"{__version__}\0".encode())
    for text in extra:
        digest.update(f"{len(text)}\0{text}".encode("utf-8", "surrogatepass"))
    for path in (FILE, *project.specs(), *project.lockfiles()):
        data = project.read(path, 64 << 20)
        digest.update(f"{path}\0{len(data)}\0".encode("utf-8", "surrogatepass"))
        digest.update(data)
    return digest.hexdigest()


def load(project: Project, key_: str) -> Any | None:
    """The plan's machine form, None where there is none or a file it read has other content now."""
    try:
        value = json.loads((folder() / key_[:2] / key_).read_bytes())
        if all(_digest(project, path) == digest for path, digest in value["files"].items()):
            return value["plan"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EvalopsError):
        pass
    return None


def save(project: Project, key_: str, files: Iterable[str], plan: Any) -> None:
    """Keeps a plan; a cache that cannot be written is no problem."""
    path = folder() / key_[:2] / key_
    temporary = path.with_suffix(f".{os.getpid()}")
    try:
        value = {"files": {file: _digest(project, file) for file in sorted(set(files))}, "plan": plan}
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(value), encoding="utf-8")
        temporary.replace(path)
    except (OSError, EvalopsError):
        temporary.unlink(missing_ok=True)


def _digest(project: Project, path: str) -> str:
    with project.open(path) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]
