"""OpenAI's templates know `{{item.x}}`, of a row, and `{{sample.output_text}}`, the response: here, names of columns.

Anything else in such a text is text, whatever it would mean to a template of ours.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from evalops.importers.draft import free

RESPONSE = ("sample", "output_text")

_REFERENCE = re.compile(r"\{\{\s*+((?:item|sample)\b[^{}]*+)\}\}")
_PART = re.compile(r"\.?([A-Za-z_$][^.\[\]]*)|\[(\d{1,6})\]|\[(?:\"([^\"\]]*)\"|'([^'\]]*)')\]")
_FOR_TEMPLATES = re.compile(r"\{[{%#]|\{\Z")  # a brace at the end may stand before a reference
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_RESERVED = {"and", "as", "else", "elif", "false", "for", "if", "import", "in", "is", "loop", "none", "not", "or",
             "recursive", "self", "set", "true", "with", "without"}  # fmt: skip

Path = tuple[str | int, ...]


class Reference(NamedTuple):
    """A way into a row or a sample: `("item", "a", 0)`."""

    path: Path

    @property
    def is_response(self) -> bool:
        return self.path == RESPONSE

    @property
    def is_sample(self) -> bool:
        return self.path[0] == "sample"


def parts(text: str) -> list[str | Reference]:
    """A text as it is written, and what it refers to."""
    found: list[str | Reference] = []
    end = 0
    for match in _REFERENCE.finditer(text):
        path = _path(match[1].rstrip())
        if path is not None:
            found += [text[end : match.start()], Reference(path)]
            end = match.end()
    found.append(text[end:])
    return [each for each in found if each != ""]


def only(text: str) -> Reference | None:
    """The reference that a text is and nothing else."""
    found = parts(text.strip())
    return found[0] if len(found) == 1 and isinstance(found[0], Reference) else None


def references(text: str) -> list[Reference]:
    """Everything that a text refers to."""
    return [each for each in parts(text) if isinstance(each, Reference)]


def asks_for_more(text: str) -> bool:
    """Whether a text refers to more of a sample than the response, which is not there for us."""
    return any(each.is_sample and not each.is_response for each in references(text))


def template(text: str, columns: Mapping[str, str], response: str) -> str:
    """The text as a template of ours; `response` stands in the place of the response."""
    return "".join(
        _escaped(each) if isinstance(each, str) else response if each.is_response else _column(each, columns)
        for each in parts(text)
    )


def filled(text: str, item: Mapping[str, Any]) -> str:
    """The text for one row; what the row does not have is empty."""
    return "".join(each if isinstance(each, str) else shown(looked_up(each, item)) for each in parts(text))


def looked_up(reference: Reference, item: Any) -> Any:
    """The value that a reference to a row leads to, None where there is none."""
    for part in reference.path[1:]:
        try:
            item = item[part]
        except (KeyError, IndexError, TypeError):
            return None
    return item


def shown(value: Any) -> str:
    """A value in a text: JSON but for text itself."""
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def columns(names: Iterable[str]) -> dict[str, str]:
    """Names of columns that a template can use, for the names that the rows have."""
    found: dict[str, str] = {}
    for name in names:
        plain = name if _is_name(name) else re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
        plain = plain if _is_name(plain) else f"column_{plain}".rstrip("_")
        found[name] = free(plain, set(found.values()))
    return found


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None and name.lower() not in _RESERVED


def _path(text: str) -> Path | None:
    """The parts of `item.a["b"][0]`, None for what is none."""
    found: list[str | int] = []
    end = 0
    while match := _PART.match(text, end):
        named = next(each for each in match.groups() if each is not None)
        found.append(int(named) if match[2] else named.strip())
        end = match.end()
    return tuple(found) if end == len(text) and len(found) > 1 else None


def _column(reference: Reference, names: Mapping[str, str]) -> str:
    """A reference to a row as our templates write it."""
    first, *others = reference.path[1:]
    inner = "".join(f"[{json.dumps(each, ensure_ascii=False)}]" for each in others)
    return f"{{{{ {names.get(str(first), str(first))}{inner} }}}}"


def _escaped(text: str) -> str:
    return _FOR_TEMPLATES.sub(lambda found: "{{ '" + found[0] + "' }}", text)
