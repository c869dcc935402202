"""A project whose settings are those of a revision that is trusted, so that a pull request cannot weaken them.

What a pull request may change in evalops.yaml shows in its plan: judges, defaults and datasets are part of what is
judged. What says where rows and keys go, what code runs and what it may cost is read from the revision instead.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evalops import git, history
from evalops import settings as settings_
from evalops.document import parse
from evalops.errors import Diagnostic, EvalopsError
from evalops.history import Repository, Snapshot
from evalops.project import Project
from evalops.settings import FILE, TRUSTED, Settings, Trusted


def project(here: Project, name: str) -> Project:
    """The project with the settings that a revision leads to. Raises EvalopsError where it cannot be trusted."""
    repository = history.find(here.root)
    _require_place(here.root)
    revision = repository.base(name)
    snapshot = repository.at(revision)
    theirs = _settings(repository, snapshot)
    mine = here.settings
    differ = list(settings_.differences(_value(theirs), _value(mine)))
    trusted = Trusted(
        name=name,
        commit=revision.commit,
        ignored=tuple(".".join(route) for route in differ if route[:1] and route[0] in TRUSTED),
        applied=tuple(".".join(route) for route in differ if route[:1] and route[0] not in TRUSTED),
    )
    return replace(here, trusted=trusted, given=mine.trusting(theirs), measured=snapshot.locks()[0])


def _require_place(root: Path) -> None:
    """Raises EvalopsError where a link of the repository leads to the project: the settings would be another one's."""
    top = Path(git.ask(root, "rev-parse", "--show-toplevel").text)
    for path in (root, *root.parents):
        if path.is_symlink() and path.parent.resolve().is_relative_to(top):
            raise EvalopsError(
                Diagnostic(
                    code="trusted/link",
                    message=f"`{path.name}` is a symbolic link in the repository: a change could lead it to a project "
                    "with other settings",
                    hint=f"name the project by its own folder: --project {root.resolve().relative_to(top)}",
                )
            )


def _settings(repository: Repository, snapshot: Snapshot) -> Settings:
    """The settings as of a revision; the defaults where it has no project at all, which no change can weaken then."""
    revision = snapshot.revision
    shown = f"{FILE}@{revision.commit[:12]}"
    found = snapshot.settings(shown)
    if found is not None:
        return found
    if any(path.rsplit("/", 1)[-1] == FILE for path in repository.names(revision)):
        raise EvalopsError(
            Diagnostic(
                code="trusted/missing",
                message=f"`{repository.prefix}{FILE}` is not in {revision.name}, though other projects are: nothing "
                "there says what this one may do",
                hint="bring its settings into that revision first, in a change of their own",
            )
        )
    return settings_.load(parse(b"version: 1\n", shown)[0][0])[0]


def _value(settings: Settings) -> object:
    return settings.document.value if settings.document else {}
