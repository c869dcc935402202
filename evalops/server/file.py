"""A file of the server as a value: what is known of it, and what a client may say of one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from evalops.datasets import dataset
from evalops.errors import EvalopsError
from evalops.server.problem import Problem

PURPOSES = ("eval", "eval-sample")
TYPES = ("jsonl", "csv")
LONGEST_NAME = 255  # characters of a file name
LONGEST_REASON = 500  # characters of why a file cannot be read


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """What is known of a file.

    `status` is PENDING until its rows have been counted (`lines`), then COMPLETED, or INVALID_FORMAT with the reason
    in `problem`. `checksum` is the sha256 of the content, in hex.
    """

    id: str
    filename: str
    bytes: int
    purpose: str
    file_type: str
    checksum: str
    created_ns: int
    status: str = "PENDING"
    lines: int | None = None
    problem: str | None = None

    @property
    def created_at(self) -> int:
        """Seconds since 1970."""
        return self.created_ns // 1_000_000_000

    def to_json(self) -> dict[str, Any]:
        """The file as the service describes it; `LineCount` and `Processed` are what older clients read."""
        body: dict[str, Any] = {
            "id": self.id,
            "object": "file",
            "created_at": self.created_at,
            "filename": self.filename,
            "bytes": self.bytes,
            "purpose": self.purpose,
            "FileType": self.file_type,
            "LineCount": self.lines or 0,
            "Processed": self.status == "COMPLETED",
            "processing_status": self.status,
        }
        if self.problem is not None:
            report = {"valid": False, "error": self.problem, "error_type": "INVALID_FORMAT", "file_id": self.id}
            body["validation_report"] = report
        elif self.lines is not None:
            body["validation_report"] = {"valid": True, "nlines": self.lines, "file_id": self.id}
        return body


class Described(NamedTuple):
    """What a client says of a file."""

    filename: str
    purpose: str
    file_type: str


def describe(filename: str | None, purpose: str | None, file_type: str | None) -> Described:
    """What a client says of a file it sends, checked; without a type, the suffix of the name is it.

    Raises a Problem (400) that names the field and what is allowed.
    """
    if purpose not in PURPOSES:
        said = f"`{purpose[:40]}` is no purpose of this server" if purpose else "`purpose` is missing"
        hint = "it runs evaluations only: send `eval` or `eval-sample`, as in `tg files upload FILE --purpose eval`"
        raise Problem(400, f"{said}; {hint}", param="purpose")
    name = plain_name(filename)
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    kind = (file_type or suffix).lower()
    if kind not in TYPES:
        said = f"`{kind[:40]}` files cannot be evaluated" if kind else "`file_type` is missing"
        raise Problem(400, f"{said}: send the rows as `jsonl` or `csv`", param="file_type")
    return Described(name, purpose, kind)


def plain_name(text: str | None) -> str:
    # Some clients send the whole path. Only its last part is kept, so that no download writes elsewhere by it.
    name = re.split(r"[/\\]", text or "")[-1]
    if name in ("", ".", ".."):
        raise Problem(400, "`file_name` is missing: send the name of the file", param="file_name")
    if len(name) > LONGEST_NAME:
        raise Problem(400, f"`file_name` has more than {LONGEST_NAME} characters", param="file_name")
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name):
        raise Problem(400, "`file_name` has control characters", param="file_name")
    return name


def count(path: Path, file: File) -> tuple[int | None, str | None]:
    """The rows of a dataset, or why it is none."""
    name = file.filename if file.filename.lower().endswith(f".{file.file_type}") else f"data.{file.file_type}"
    try:
        return sum(1 for _ in dataset.read(lambda: path.open("rb"), name)), None
    except EvalopsError as error:
        first = error.diagnostics[0]
        place = f"line {first.mark.line}: " if first.mark and first.mark.line else ""
        hint = f" ({first.hint})" if first.hint else ""
        return None, f"{place}{first.message}{hint}"[:LONGEST_REASON]
