"""Problems as values, the one exception that carries them, and the exit codes.

A problem in what the user wrote is a `Diagnostic`; they pile up and are shown together at the edge.
`EvalopsError` is for "cannot go on" and carries diagnostics; only the command line's boundary turns it
into text and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from functools import partial
from typing import NamedTuple


class Exit(IntEnum):
    """Exit codes of every command; README lists them."""

    OK = 0
    PROBLEM = 1
    CHANGES = 2
    GATE_FAILED = 3
    UNKNOWN_OUTCOME = 4
    LOCKED_OR_STALE = 5
    STILL_RUNNING = 6
    USAGE = 64
    BUG = 70
    INTERRUPTED = 130


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Mark(NamedTuple):
    """A place in a file of the project: `path` as shown to the user, `line` and `column` from 1.

    A line of 0 means the file as a whole.
    """

    path: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}" if self.line else self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One problem: a stable `code` (`area/what`), what is wrong, where, and what to do next."""

    code: str
    message: str
    mark: Mark | None = None
    hint: str | None = None
    address: str | None = None
    severity: Severity = Severity.ERROR

    @property
    def is_error(self) -> bool:
        return self.severity is Severity.ERROR

    def __str__(self) -> str:
        """As a traceback or a notebook shows it; the command line has the offending line and colours besides."""
        place = f"{self.mark}: " if self.mark else ""
        hints = [f"  hint: {self.hint}"] if self.hint else []
        lines = [f"{place}{self.severity.value}[{self.code}]: {self.message}".replace("\n", "\\n"), *hints]
        return "".join(each if each.isprintable() or each == "\n" else repr(each)[1:-1] for each in "\n".join(lines))


class EvalopsError(Exception):
    """The command cannot go on; `diagnostics` say why and `exit_code` what the shell is told."""

    def __init__(self, *diagnostics: Diagnostic, exit_code: Exit = Exit.PROBLEM) -> None:
        super().__init__("; ".join(diagnostic.message for diagnostic in diagnostics))
        self.diagnostics: Sequence[Diagnostic] = diagnostics
        self.exit_code = exit_code
        for each in diagnostics:
            self.add_note(str(each))  # which a traceback shows below the message: place, code, hint

    def __repr__(self) -> str:
        return "\n".join(["EvalopsError:", *map(str, self.diagnostics)])

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), exit_code=self.exit_code), tuple(self.diagnostics)  # from a process of a pool


def has_errors(diagnostics: Iterable[Diagnostic]) -> bool:
    """Whether any of them is an error rather than a warning."""
    return any(diagnostic.is_error for diagnostic in diagnostics)
