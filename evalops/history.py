"""The project at another git revision: its lockfiles, verdicts files and settings. Nothing is checked out.

The repository may be a stranger's. Only objects are read, by ids that git gave; see `git.ask` for what is kept from
running.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evalops import git
from evalops import lock as locks
from evalops import settings as settings_
from evalops.document import parse
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity, has_errors
from evalops.lock import Lock
from evalops.project import MAX_LOCK, MAX_TEXT, own
from evalops.settings import Settings
from evalops.verdicts import Section
from evalops.verdicts import parse as parse_verdicts

MAX_VERDICTS = 64 << 20  # bytes of a file
AT_ONCE = 256 << 20  # bytes that are read together
DEFAULTS = ("refs/remotes/origin/main", "refs/remotes/origin/master", "refs/heads/main", "refs/heads/master")
_REGULAR = (b"100644", b"100755")
# What a revision may look like: neither an option, nor a range, a path or a search through all messages.
_REVISION = re.compile(r"(?!-)(?!.*(?:\.\.|@\{-|\^\{/))[^\x00-\x20\x7f:?*\[\\]{1,250}")
_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


class Revision(NamedTuple):
    """A commit, and what it was asked for by."""

    name: str
    commit: str


class Blob(NamedTuple):
    """A file of a revision: its object and size in bytes."""

    id: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """The git repository that a project lies in; `prefix` is the project's folder in it, "" or ending in a slash."""

    root: Path
    prefix: str

    @property
    def head(self) -> str | None:
        """The commit that is checked out, None where there is none yet."""
        return self._commit("HEAD")

    def base(self, name: str | None = None) -> Revision:
        """The revision to compare with: by default the merge base with the default branch.

        A name that ends in `...` means its merge base with HEAD. Raises EvalopsError where there is no such revision.
        """
        if name is None:
            return self._merge_base(*self._default())
        if name.endswith("..."):
            return self._merge_base(name, self._found(name.removesuffix("...")))
        return Revision(name, self._found(name))

    def at(self, revision: Revision) -> Snapshot:
        """The project as of a revision; without files where it was not there yet."""
        tree = git.ask(self.root, "rev-parse", "--verify", "--quiet", f"{revision.commit}:{self.prefix.rstrip('/')}")
        found = git.ask(self.root, "ls-tree", "-r", "-z", "--long", "--full-tree", tree.text) if tree.ok else None
        blobs = dict(_blobs(found.out)) if found else {}
        return Snapshot(root=self.root, revision=revision, blobs={path: blobs[path] for path in own(blobs)})

    def names(self, revision: Revision) -> list[str]:
        """The paths of all files of a revision, from the repository's root."""
        found = git.ask(self.root, "ls-tree", "-r", "-z", "--name-only", "--full-tree", revision.commit).out
        return found.decode("utf-8", "surrogateescape").split("\0")

    def _default(self) -> tuple[str, str]:
        """The default branch as it is called, and its commit."""
        told = git.ask(self.root, "symbolic-ref", "--quiet", "refs/remotes/origin/HEAD").text
        for name in ([told] if told.startswith("refs/remotes/origin/") else []) + list(DEFAULTS):
            commit = self._commit(name) if _REVISION.fullmatch(name) else None
            if commit:
                return name.removeprefix("refs/remotes/").removeprefix("refs/heads/"), commit
        raise _unknown("git knows no default branch here: neither origin's nor main or master", "name a revision")

    def _merge_base(self, name: str, commit: str) -> Revision:
        found = git.ask(self.root, "merge-base", commit, self.head or "").text.split("\n")[0]
        if not _ID.fullmatch(found):
            branch = name.removesuffix("...")
            raise _unknown(f"`{branch}` and what is checked out have no common ancestor here", _FETCH)
        return Revision(name.removesuffix("...") + "...", found)

    def _found(self, name: str) -> str:
        if not _REVISION.fullmatch(name):
            raise _unknown(f"`{name[:100]}` cannot be the name of a revision", "a branch, a tag, a commit, or HEAD~1")
        commit = self._commit(name)
        if commit is None:
            raise _unknown(f"git knows no revision `{name}` here", _FETCH)
        return commit

    def _commit(self, name: str) -> str | None:
        asked = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        found = git.ask(self.root, *asked).text
        return found if _ID.fullmatch(found) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The files of a project as of a revision, by their paths from the project folder."""

    root: Path
    revision: Revision
    blobs: Mapping[str, Blob]

    def read(self, paths: Iterable[str], limit: int) -> dict[str, bytes]:
        """The contents of those files that are there and not larger than `limit` bytes."""
        wanted = {path: blob for path in paths if (blob := self.blobs.get(path)) and blob.size <= limit}
        contents: dict[str, bytes] = {}
        for ids in _batches(set(wanted.values())):
            asked = "".join(f"{each}\n" for each in ids).encode()
            contents |= _contents(git.ask(self.root, "cat-file", "--batch", stdin=asked).out)
        return {path: contents[blob.id] for path, blob in wanted.items() if blob.id in contents}

    def locks(
        self, known: Callable[[str, bytes], Lock | None] = lambda path, data: None
    ) -> tuple[dict[str, Lock], list[Diagnostic]]:
        """All lockfiles by path, and warnings of those that cannot be used. `known` spares parsing what is the same."""
        found: dict[str, Lock] = {}
        problems: list[Diagnostic] = []
        paths = [path for path in self.blobs if path.endswith(locks.SUFFIX)]
        for path, data in sorted(self.read(paths, MAX_LOCK).items()):
            try:
                found[path] = known(path, data) or locks.parse(data.decode("utf-8", "replace"), path)
            except EvalopsError as error:
                problems.append(self._unusable(path, error))
        return found, problems

    def sections(self, paths: Iterable[str]) -> tuple[dict[str, dict[str, Section]], list[Diagnostic]]:
        """The verdicts files at these paths, and warnings of those that cannot be used."""
        found: dict[str, dict[str, Section]] = {}
        problems: list[Diagnostic] = []
        for path, data in sorted(self.read(paths, MAX_VERDICTS).items()):
            try:
                found[path] = parse_verdicts(data, path)
            except EvalopsError as error:
                problems.append(self._unusable(path, error))
        return found, problems

    def settings(self, name: str = settings_.FILE) -> Settings | None:
        """The settings, None where there were none; `name` is what places call their file.

        Raises EvalopsError with what is wrong with them.
        """
        data = self.read([settings_.FILE], MAX_TEXT).get(settings_.FILE)
        if data is None:
            return None
        documents, problems = parse(data, name)
        if documents and not has_errors(problems):
            found, problems = settings_.load(documents[0])
            if not has_errors(problems):
                return found
        raise EvalopsError(*problems)

    def _unusable(self, path: str, error: EvalopsError) -> Diagnostic:
        return Diagnostic(
            code="history/unusable",
            message=f"`{path}` as of {self.revision.commit[:12]} is left out: {error.diagnostics[0].message}",
            mark=Mark(path),
            severity=Severity.WARNING,
        )


def find(root: Path) -> Repository:
    """The repository that a project lies in. Raises EvalopsError where there is none that can be used."""
    found = git.ask(root, "rev-parse", "--show-prefix")
    if not found.ok:
        raise _unknown(f"the history cannot be read: {found.problem or 'this is no git repository'}", None)
    return Repository(root=root, prefix=found.text)


_FETCH = "fetch it first; a shallow clone lacks history: git fetch --unshallow, or `fetch-depth: 0` in CI"


def _unknown(message: str, hint: str | None) -> EvalopsError:
    return EvalopsError(Diagnostic(code="history/revision", message=message, hint=hint))


def _blobs(listing: bytes) -> Iterable[tuple[str, Blob]]:
    """The regular files of a listing, hidden names left out as they are in the folder."""
    for line in listing.split(b"\0"):
        about, _, name = line.partition(b"\t")
        fields = about.split()
        path = name.decode("utf-8", "surrogateescape")
        if len(fields) == 4 and fields[0] in _REGULAR and not any(part.startswith(".") for part in path.split("/")):
            yield path, Blob(fields[2].decode(), int(fields[3]))


def _batches(blobs: Iterable[Blob]) -> Iterable[list[str]]:
    """Object ids in groups that are not too large to be read at once."""
    batch: list[str] = []
    size = 0
    for blob in sorted(blobs):
        if batch and size + blob.size > AT_ONCE:
            yield batch
            batch, size = [], 0
        batch.append(blob.id)
        size += blob.size
    if batch:
        yield batch


def _contents(out: bytes) -> dict[str, bytes]:
    """The objects in the output of `cat-file --batch`; those that are missing are left out."""
    found: dict[str, bytes] = {}
    place = 0
    while (end := out.find(b"\n", place)) >= 0:
        fields = out[place:end].split()
        place = end + 1
        if len(fields) == 3 and fields[2].isdigit():
            size = int(fields[2])
            found[fields[0].decode()] = out[place : place + size]
            place += size + 1
    return found
