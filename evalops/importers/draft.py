"""What an import makes before anything is written: specs with their rows, and what is to be said of the rest."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from evalops import template
from evalops.errors import Diagnostic, Mark, Severity
from evalops.template import Template

Row = Mapping[str, Any]

LONGEST = 60  # characters of a part of a name
SHOWN = 5  # places of one remark

FUNCTION = (
    "write it as a Python function of the response, the gold text and the row, name that under `functions:` in "
    "evalops.yaml, and use it: `type: custom`, `evaluator: {kind: python, function: NAME}`"
)


class Part(NamedTuple):
    """One document of a spec file: `fields` are all but its version, name and dataset.

    `name` is what tells it from the others in the file, "" for the only one.
    """

    name: str
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A spec file that is not written yet, and the rows of all its documents.

    `name` is for the spec file and `dataset` for the rows, whose column `id` names each; `mark` is where it comes from.
    """

    name: str
    parts: Sequence[Part]
    dataset: str
    rows: Sequence[Row]
    id: str
    mark: Mark


class Found(NamedTuple):
    """Everything that came of a source. The findings are warnings; `sources` are the files that were read."""

    drafts: tuple[Draft, ...] = ()
    findings: tuple[Diagnostic, ...] = ()
    sources: tuple[str, ...] = ()


def no_equal(message: str, mark: Mark | None, hint: str | None = None) -> Diagnostic:
    """Something of the source that has no equal here and is left out."""
    return Diagnostic(code="import/no-equal", message=message, mark=mark, hint=hint, severity=Severity.WARNING)


def differs(message: str, mark: Mark, hint: str | None = None) -> Diagnostic:
    """Something that is taken over, and does not mean quite the same here."""
    return Diagnostic(code="import/differs", message=message, mark=mark, hint=hint, severity=Severity.WARNING)


def gathered(findings: Iterable[Diagnostic]) -> list[Diagnostic]:
    """Each remark once, at the first of its places, with the others named in it; in the order of the places."""
    places: dict[Diagnostic, list[Mark | None]] = {}
    for each in findings:
        marks = places.setdefault(replace(each, mark=None), [])
        if each.mark not in marks:
            marks.append(each.mark)
    found = [_at(each, marks) for each, marks in places.items()]
    return sorted(found, key=lambda each: each.mark or Mark("\U0010ffff"))


def _at(finding: Diagnostic, marks: Sequence[Mark | None]) -> Diagnostic:
    first, *others = marks
    lines = list(dict.fromkeys(_line(each, first) for each in others if each is not None and each != first))
    shown = ", ".join(lines[:SHOWN]) + (f" and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else "")
    message = f"{finding.message} (also at {shown})" if lines else finding.message
    return replace(finding, message=message, mark=first)


def _line(mark: Mark, first: Mark | None) -> str:
    is_near = first is not None and first.path == mark.path
    return f"line {mark.line}" if is_near else f"{mark.path}:{mark.line}"


def slug(text: str, fallback: str) -> str:
    """A text as part of a name: letters, digits and dashes, cut between two words."""
    plain = unicodedata.normalize("NFKD", text[:500]).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+(?:[._][a-z0-9]+)*", plain)
    found = ""
    for word in words:
        if len(found) + len(word) >= LONGEST:
            break
        found += f"-{word}" if found else word
    return found or (words[0][:LONGEST] if words else fallback)


def free(name: str, taken: Collection[str], sign: str = "_") -> str:
    """The name, or the first one like it that is not taken."""
    numbers = (f"{name}{sign}{number}" for number in range(2, len(taken) + 3))
    return name if name not in taken else next(each for each in numbers if each not in taken)


def identified(rows: Sequence[Row], numbers: Iterable[int]) -> tuple[str, list[Row]]:
    """The rows with a column that names each, and its name: `id` where that does so already, else with the numbers."""
    own = [row.get("id") for row in rows]
    names = {str(each) for each in own if isinstance(each, str | int) and str(each)}
    if len(names) == len(rows):
        return "id", list(rows)
    column = free("row" if any("id" in row for row in rows) else "id", {name for row in rows for name in row})
    return column, [{column: str(number), **row} for number, row in zip(numbers, rows, strict=True)]


def completed(rows: Iterable[Row], templates: Iterable[str]) -> list[Row]:
    """The rows with an empty text for each variable of the templates that they do not have."""
    parsed = [template.parse(each) for each in templates]
    used = sorted({name for each in parsed if isinstance(each, Template) for name in each.variables})
    return [{**row, **{name: "" for name in used if name not in row}} for row in rows]


def number(value: Any) -> float | int | None:
    """A number as it is; None for all else, which true and false are too."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def text_of(value: Any) -> str:
    """A value as JavaScript writes it in a text: 4.0 is `4`."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 1 << 53:
        value = int(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
