"""The project folder: the only place that reads and writes its files.

Paths from specs may come from a stranger. A file is opened one path component at a time without following a
link, so that nothing outside the folder is ever read; lockfiles are replaced in one step.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from evalops import git as git_
from evalops import hold, schema
from evalops import lock as locks
from evalops import settings as settings_
from evalops.document import parse
from evalops.errors import Diagnostic, EvalopsError, has_errors
from evalops.fingerprint import sha256
from evalops.lock import Entry, Lock
from evalops.settings import Settings, Trusted

STATE = ".evalops"
MAX_TEXT = 1 << 20  # bytes of a spec, a template, settings
MAX_LOCK = 64 << 20


@dataclass(frozen=True)
class Project:
    """A folder with an evalops.yaml. Where a revision is `trusted`, `given` are the settings that it leads to, and
    `measured` its lockfiles by path: what they say of tokens is believed.
    """

    root: Path
    trusted: Trusted | None = field(default=None, compare=False)
    given: Settings | None = field(default=None, compare=False, repr=False)
    measured: Mapping[str, Lock] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def settings(self) -> Settings:
        """The settings. Raises EvalopsError with everything wrong with them."""
        if self.given is not None:
            return self.given
        documents, problems = parse(self.read(settings_.FILE), settings_.FILE)
        if not documents or has_errors(problems):
            raise EvalopsError(*problems)
        found, problems = settings_.load(documents[0])
        if has_errors(problems):
            raise EvalopsError(*problems)
        return found

    @property
    def state(self) -> Path:
        """The folder of local state, which git ignores."""
        return self.root / STATE

    def files(self) -> list[str]:
        """Every file, sorted, as a path from the project folder; no links, hidden names and inner projects."""
        return own(sorted(_walk(self.root, "")))

    def specs(self) -> list[str]:
        """The spec files, sorted, as paths from the project folder."""
        return matching(self.files(), self.settings.specs)

    def lockfiles(self) -> list[str]:
        """The lockfiles, sorted, those of specs that are gone included."""
        return [path for path in self.files() if path.endswith(locks.SUFFIX)]

    def relative(self, path: str) -> str:
        """A path as typed in a shell, as one from the project folder: a pre-commit hook names files that way."""
        typed = Path(os.path.normpath(Path(path).absolute()))
        inside = typed.is_relative_to(self.root) and not (self.root / path).exists()
        return typed.relative_to(self.root).as_posix() if inside else path

    def open(self, path: str) -> BinaryIO:
        """A regular file inside the project, for reading. Raises EvalopsError for anything else."""
        descriptor = _open_inside(self.root, path)
        return os.fdopen(descriptor, "rb")

    def read(self, path: str, limit: int = MAX_TEXT) -> bytes:
        """The bytes of a file inside the project, at most `limit`."""
        with self.open(path) as stream:
            # No more is asked for than is there: Python reserves memory for all of it first.
            data = stream.read(min(limit, os.fstat(stream.fileno()).st_size) + 1)
        if len(data) > limit:
            raise _refused(path, f"is larger than {limit >> 20} MiB", "file/too-large")
        return data

    def read_text(self, path: str) -> str:
        """The text of a template file."""
        try:
            return self.read(path).decode("utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:
            raise _refused(path, "is not UTF-8", "file/encoding") from None

    def locks(self) -> tuple[dict[str, Lock], list[Diagnostic]]:
        """All lockfiles by path, and what is wrong with those that cannot be used."""
        found: dict[str, Lock] = {}
        problems: list[Diagnostic] = []
        for path in self.lockfiles():
            try:
                text = self.read(path, MAX_LOCK).decode("utf-8", "replace")
                found[path] = locks.parse(text, path)
            except EvalopsError as error:
                problems += error.diagnostics
        return found, problems

    def entry(self, address: str) -> Entry:
        """The lock entry at an address. Raises EvalopsError where no lockfile has it."""
        found, problems = self.locks()
        entries = {each.address: each for lock in found.values() for each in lock.entries.values()}
        if address in entries:
            return entries[address]
        hint = schema.nearest(address, entries) or "evalops status lists the addresses"
        nothing = Diagnostic(code="select/nothing", message=f"no lockfile has the address `{address}`", hint=hint)
        raise EvalopsError(*(problems or [nothing]))

    def write_lock(self, lock: Lock) -> None:
        """Writes a lockfile; one without entries is removed."""
        if lock.entries:
            # Half a character, from an endpoint's message for instance, stays the escape that JSON has for it.
            self.write(lock.path, locks.dump(lock).encode("utf-8", "backslashreplace"))
        else:
            (self.root / lock.path).unlink(missing_ok=True)

    def write(self, path: str, data: bytes) -> None:
        """Replaces a file in one durable step; what was there stays whole until then."""
        target = self.root / path
        try:
            handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                Path(name).chmod(0o644)
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
        except OSError as error:
            raise EvalopsError(
                Diagnostic(
                    code="file/write",
                    message=f"`{path}` could not be written: {_reason(error)}",
                    hint="nothing is lost: make room or mend the folder, then run the same command again",
                )
            ) from None

    def changed_since(self, revision: str) -> set[str]:
        """The files that differ from a git revision, new ones included. Raises EvalopsError for an unknown one."""
        known = git(self.root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").strip()
        if not known:
            raise EvalopsError(
                Diagnostic(
                    code="project/revision",
                    message=f"git knows no revision `{revision}` here",
                    hint="fetch it first; a shallow clone lacks older ones",
                )
            )
        asked = ("diff", "--name-only", "--no-renames", "--relative", "--ignore-submodules=all", "--no-ext-diff", "-z")
        differ = git_.ask(self.root, *asked, known, "--", config=git_.unfiltered(self.root))
        if not differ.ok:
            message = f"what changed since `{revision}` cannot be told: {differ.problem}"
            raise EvalopsError(Diagnostic(code="project/revision", message=message))
        changed = differ.out.decode("utf-8", "replace")
        new = git(self.root, "ls-files", "--others", "--exclude-standard", "-z")
        return {path for path in (changed + new).split("\0") if path}

    def keep_text(self, text: str) -> None:
        """Keeps a long input under its digest, so that a later plan can show how it changed."""
        path = self.state / "texts" / sha256(text.encode("utf-8", "surrogatepass"))
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            self.write(path.relative_to(self.root).as_posix(), text.encode("utf-8", "surrogatepass"))

    def kept_text(self, digest: str) -> str | None:
        """A text that an apply on this machine kept, None where it is not here."""
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            return None
        try:
            return self.read(f"{STATE}/texts/{digest}").decode("utf-8", "replace")
        except EvalopsError:
            return None

    @contextlib.contextmanager
    def apply_lock(self) -> Iterator[None]:
        """Holds the apply lock of the project; at once EvalopsError (exit 5) where another apply has it.

        The system frees it when its holder dies, however that happens.
        """
        self._refuse_tracked_state()
        taken = "another apply is running in this project"
        with hold.held(self.state / "apply.lock", "apply/locked", taken):
            ignore = self.state / ".gitignore"
            with contextlib.suppress(
                OSError
            ):  # it only saves a mistake: what follows is told where it cannot be written
                if not ignore.exists():
                    ignore.write_text("*\n", encoding="utf-8")
            yield

    def _refuse_tracked_state(self) -> None:
        """State that came with the repository would be a stranger's answers."""
        if git(self.root, "ls-files", "--", STATE):
            raise EvalopsError(
                Diagnostic(
                    code="project/tracked-state",
                    message=f"git tracks files below `{STATE}/`: another's answers would be taken for yours",
                    hint=f"remove them: git rm -r --cached {STATE}",
                )
            )


def find(start: Path | None = None, *, explicit: bool = False) -> Project:
    """The project at `start`, or the nearest one above it. Raises EvalopsError where there is none."""
    start = (start or Path.cwd()).absolute()
    for folder in [start] if explicit else [start, *start.parents]:
        if (folder / settings_.FILE).is_file():
            return Project(folder)
    where = "there" if explicit else "here or in a folder above"
    raise EvalopsError(
        Diagnostic(
            code="project/not-found",
            message=f"no {settings_.FILE} {where}: {start}",
            hint="evalops init DIR makes a starter project; --project DIR names another folder",
        )
    )


def matching(files: Iterable[str], globs: Iterable[str]) -> list[str]:
    """The paths that match any glob, the settings left out."""
    pattern = re.compile("|".join(map(_pattern, globs)))
    return [path for path in files if pattern.fullmatch(path) and path != settings_.FILE]


def own(files: Iterable[str]) -> list[str]:
    """The files without those of projects inside this one: a folder with settings of its own is one."""
    found = list(files)
    inner = tuple(path.removesuffix(settings_.FILE) for path in found if path.endswith(f"/{settings_.FILE}"))
    return [path for path in found if not path.startswith(inner)] if inner else found


def git(root: Path, *arguments: str) -> str:
    """The output of a git command that runs nothing of the repository's, "" where git or a repository is missing."""
    return git_.ask(root, *arguments).out.decode("utf-8", "replace")


def _walk(root: Path, below: str) -> Iterator[str]:
    """The regular files below a folder, links and hidden names left out."""
    with os.scandir(root / below) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(root, f"{below}{entry.name}/")
            elif entry.is_file(follow_symlinks=False):
                yield below + entry.name


def _pattern(glob: str) -> str:
    """A glob as a regular expression: `*` stays within a folder, `**/` is any number of folders."""
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    signs = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return "".join(signs.get(part, re.escape(part)) for part in parts)


def _open_inside(root: Path, path: str) -> int:
    """A descriptor for a regular file below `root`, reached without following a link."""
    parts = path.split("/")
    if not path or path.startswith("/") or "\0" in path or "\\" in path or ".." in parts:
        raise _refused(path, "is not a path inside the project", "file/outside")
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for part in [part for part in parts[:-1] if part not in ("", ".")]:
            inner = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            os.close(folder)
            folder = inner
        # Non-blocking, so that a pipe in place of a file does not hang.
        found = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _refused(path, "goes through a symbolic link, or is no file", "file/outside") from None
        code = "file/missing" if error.errno == errno.ENOENT else "file/unreadable"
        raise _refused(path, _reason(error), code) from None
    finally:
        os.close(folder)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise _refused(path, "is not a regular file", "file/outside")
    return found


def _reason(error: OSError) -> str:
    words = {
        errno.ENOENT: "does not exist",
        errno.EACCES: "may not be read",
        errno.ENOSPC: "the disk is full",
    }
    return words.get(error.errno or 0, os.strerror(error.errno or 0).lower())


def _refused(path: str, why: str, code: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=code, message=f"`{path}` {why}", hint=_HINTS.get(code)))


_HINTS = {
    "file/missing": "paths start at the folder of evalops.yaml",
    "file/outside": "only files in the folder of evalops.yaml are read: copy it there",
    "file/encoding": "save it as UTF-8",
}


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
