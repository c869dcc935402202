"""The files of `evalops init --ci`: workflows for pull requests, a hook for commits."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from evalops import __version__
from evalops.errors import Diagnostic, EvalopsError

# In the package no name begins with a dot: build tools would act on these there.
PATHS = {
    "evalops.yaml": ".github/workflows/evalops.yaml",
    "evalops-comment.yaml": ".github/workflows/evalops-comment.yaml",
    "evalops-apply.yaml": ".github/workflows/evalops-apply.yaml",
    "pre-commit-config.yaml": ".pre-commit-config.yaml",
}


def of(folder: Path) -> tuple[Path, dict[str, bytes]]:
    """The root of the repository that a project is in, and the contents by path from there.

    Raises EvalopsError where there is no repository, or the project's path is one that a shell or YAML would read.
    """
    from evalops import git

    told = git.ask(folder, "rev-parse", "--show-toplevel")
    if not told.ok:
        raise _problem("no-repository", f"`{folder}` is in no git repository", "git init")
    root = Path(told.text)
    place = Path(os.path.relpath(folder.resolve(), root.resolve())).as_posix()
    if not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_./ -]*", place):
        raise _problem("path", f"`{place}` cannot stand in a workflow", "letters, digits and . _ - / are fine")
    values = {"@PROJECT@": place, "@VERSION@": __version__}
    source = files("evalops") / "workflows"
    found = {path: _filled((source / name).read_text("utf-8"), values) for name, path in PATHS.items()}
    below = "" if place == "." else f"{place}/"
    found[f"{below}.gitattributes"] = (files("evalops") / "starter" / "gitattributes").read_bytes()
    return root, dict(sorted(found.items()))


def _filled(text: str, values: Mapping[str, str]) -> bytes:
    for name, value in values.items():
        text = text.replace(name, value)
    return text.encode()


def _problem(what: str, message: str, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"init/{what}", message=message, hint=hint))
