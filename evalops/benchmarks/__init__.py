"""The named datasets that ship with evalops: written for it, checked, and never changed; a change is a new name.

`registry.json` says what each of them is; the rows lie beside it, one file a set. A union has no file: its rows are
those of its members, each with the name of its `set` and with a `prompt` that needs no other column. Nothing is read
before it is asked for. The files are part of the package, so nothing here checks their digests; a test does.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, BinaryIO

_UNION_COLUMNS = ("id", "set", "prompt", "gold", "category", "difficulty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the registry says of one set.

    `sha256` is of the bytes that `open` gives. The rest are values for a spec: `template` is an `input_template` for
    the model to evaluate and `evaluator` reads what it replies. A set of `type` classify also has recorded replies in
    the column `response`, which a judge can label: `judge_template`, `labels` and `pass_labels` are for that.
    `cluster` is the column of rows that belong together, `members` are the sets of a union.
    """

    name: str
    version: int
    title: str
    description: str
    licence: str
    verified: str
    type: str
    rows: int
    columns: tuple[str, ...]
    categories: tuple[str, ...]
    sha256: str
    template: str
    evaluator: Mapping[str, Any]
    cluster: str | None = None
    response: str | None = None
    judge_template: str | None = None
    labels: tuple[str, ...] = ()
    pass_labels: tuple[str, ...] = ()
    members: tuple[str, ...] = ()


def names() -> tuple[str, ...]:
    """The names of the sets that ship with evalops, the union last."""
    return tuple(_registry())


def entry(name: str) -> Entry:
    """What the registry says of a set. Raises KeyError for a name that it does not have."""
    return _registry()[name]


def open(name: str) -> BinaryIO:  # noqa: A001 - read as `benchmarks.open`
    """The rows of a set as JSON lines, from the start. Raises KeyError as `entry` does."""
    members = entry(name).members
    return io.BytesIO(b"".join(_union(members)) if members else _content(name))


@cache
def _registry() -> dict[str, Entry]:
    text = (files(__name__) / "registry.json").read_text(encoding="utf-8")
    return {name: _entry(name, fields) for name, fields in json.loads(text).items()}


def _entry(name: str, fields: Mapping[str, Any]) -> Entry:
    frozen: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
    return Entry(name=name, **frozen)


def _content(name: str) -> bytes:
    return (files(__name__) / f"{name}.jsonl").read_bytes()


def _union(members: tuple[str, ...]) -> Iterator[bytes]:
    for name in members:
        template = entry(name).template
        for line in _content(name).splitlines():
            row = json.loads(line)
            row |= {"set": name, "prompt": _filled(template, row)}
            chosen = {column: row[column] for column in _UNION_COLUMNS}
            yield json.dumps(chosen, ensure_ascii=False).encode() + b"\n"


def _filled(template: str, row: Mapping[str, str]) -> str:
    """A template of the registry for one row. They only name columns, so that this does without a template engine."""
    return re.sub(r"\{\{ (\w+) \}\}", lambda name: row[name[1]], template)
