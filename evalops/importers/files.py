"""The files that a file of another tool refers to: inside its folder only, read as data and never run."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Protocol

from evalops.datasets import formats
from evalops.document import MAX_BYTES
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.importers import source
from evalops.importers.draft import no_equal
from evalops.importers.source import Source

MOST_BYTES = 16 << 20  # of a file with rows
MOST_FILES = 1_000  # that one reference may stand for

TEXTS = ("", ".txt", ".md", ".j2", ".jinja", ".jinja2", ".html", ".xml", ".prompt")
VALUES = (".yaml", ".yml", *source.JSON)
_CODE = re.compile(r"\.(?:[mc]?[jt]s|py|rb|go|sh|bash|pl|php|exe)(?::[\w.]+)?$", re.I)


class Folder(Protocol):
    """Where the files are. Paths start there; what leads out of it is refused with EvalopsError."""

    def read(self, path: str, limit: int) -> bytes: ...

    def matching(self, glob: str) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Files:
    """The files around the one at `path`; what cannot be had becomes a finding."""

    folder: Folder
    path: str
    findings: list[Diagnostic] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)  # those that were read

    def say(self, finding: Diagnostic) -> None:
        """Keeps a remark for the one who imports."""
        self.findings.append(finding)

    def main(self) -> Source:
        """What the file itself holds. Raises EvalopsError."""
        self.sources.append(self.path)
        return source.read(self.folder.read(self.path, MAX_BYTES), self.path)[0]

    def paths(self, reference: str, mark: Mark, instead: str) -> list[str]:
        """The files that `file://…` stands for, none of code: `instead` says what to do then."""
        name = reference.removeprefix("file://")
        if "{{" in name or "{%" in name:
            self.say(
                no_equal(f"`{_shown(name)}` is made from variables, and none is looked up", mark, "write the path")
            )
            return []
        if is_code(name):
            self.say(no_equal(f"`{_shown(name)}` is code, and an import runs none", mark, instead))
            return []
        if any(part.startswith(".") for part in posixpath.normpath(name).split("/") if part not in (".", "..")):
            message = f"`{_shown(name)}` is hidden, or in a hidden folder: such files often hold keys"
            self.say(no_equal(message, mark, "copy it to another name"))
            return []
        path = posixpath.normpath(posixpath.join(posixpath.dirname(self.path), name))
        if path.startswith(("/", "../")) or path == ".." or "\\" in path or not path.isprintable():
            message = f"`{_shown(name)}` is outside the folder that is imported from"
            self.say(no_equal(message, mark, "copy it there"))
            return []
        if "*" not in path:
            return [path]
        found = list(self.folder.matching(path))[:MOST_FILES]
        if not found:
            self.say(no_equal(f"no file is like `{_shown(name)}`", mark))
        return found

    def _bytes(self, path: str, mark: Mark, limit: int = MAX_BYTES) -> bytes | None:
        """What a file holds, None with a finding where it cannot be had."""
        try:
            self.sources.append(path)
            return self.folder.read(path, limit)
        except EvalopsError as error:
            self._refused(error, mark)
            return None

    def text(self, path: str, mark: Mark) -> str | None:
        """The text of a file."""
        data = self._bytes(path, mark)
        try:
            return None if data is None else data.decode("utf-8-sig").replace("\r\n", "\n")
        except UnicodeDecodeError:
            self.say(no_equal(f"`{path}` is not UTF-8", mark, "save it as UTF-8"))
            return None

    def values(self, path: str, mark: Mark) -> list[Source]:
        """What a file of YAML or JSON holds."""
        is_rows = PurePosixPath(path).suffix.lower() in source.LINES
        data = self._bytes(path, mark, MOST_BYTES if is_rows else MAX_BYTES)
        try:
            return [] if data is None else source.read(data, path)
        except EvalopsError as error:
            self._refused(error, mark)
            return []

    def table(self, path: str, mark: Mark) -> Iterator[tuple[Mark, Mapping[str, str]]]:
        """The rows of a CSV file, each with its place."""
        data = self._bytes(path, mark, MOST_BYTES)
        if data is None:
            return
        try:
            for line, row in formats.reader(path)(io.BytesIO(data), path):
                yield Mark(path, line, 1), row
        except EvalopsError as error:
            self._refused(error, mark)

    def _refused(self, error: EvalopsError, mark: Mark) -> None:
        """Keeps the problems of a file as remarks, each at its own place where it has one."""
        for each in error.diagnostics:
            self.say(no_equal(each.message, each.mark or mark, each.hint))


def is_code(name: str) -> bool:
    """Whether a reference is to code, with or without a function behind a colon."""
    found = _CODE.search(name)
    return found is not None


def _shown(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:99]}…"
