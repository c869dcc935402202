"""The prompts of a promptfoo config: texts, chats of one question, and files of either."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from evalops.errors import Diagnostic, Mark
from evalops.importers import nunjucks
from evalops.importers.chat import HINT, Question, question
from evalops.importers.draft import no_equal, slug
from evalops.importers.files import TEXTS, VALUES, Files
from evalops.importers.source import LINES, Source

_CODE = "write the prompt that it makes as a template"
_ELSEWHERE = re.compile(r"(?!file://)[a-z][a-z0-9+.-]*://|exec:")
_BARE = re.compile(r"[\w./*-]+\.(?:txt|md|j2|json|jsonl|yaml|yml|csv|js|cjs|mjs|ts|py|sh)(?::\w+)?")


class Prompt(NamedTuple):
    """What a candidate is asked. `name` is for a spec's name where there are several, `label` is promptfoo's own."""

    name: str
    label: str
    system: str | None
    input: str
    mark: Mark


class _Raw(NamedTuple):
    """A prompt as it was written: text that may be a chat in JSON, or messages."""

    value: Any
    label: str
    name: str
    mark: Mark


def prompts(config: Source, files: Files) -> list[Prompt]:
    """All prompts that can be had; without any in the config, what a test calls `prompt`."""
    value = config.value.get("prompts")
    if value is None:
        return [Prompt("prompt", "", None, "{{ prompt }}", config.mark())]
    return [each for raw in _raws(config.at("prompts"), files) if (each := _prompt(raw, files))]


def _raws(given: Source, files: Files) -> Iterator[_Raw]:
    match given.value:
        case str():
            yield from _entry(given.value, "", given.mark(), files)
        case list():
            for number in range(len(given.value)):
                yield from _listed(given.at(number), files)
        case dict():  # of old: a file, and what it is called
            for path, label in given.value.items():
                yield from _entry(path, label if isinstance(label, str) else "", given.mark(path), files)
        case _:
            files.say(no_equal("`prompts` is neither a text nor a list", given.mark()))


def _listed(given: Source, files: Files) -> Iterator[_Raw]:
    value, mark = given.value, given.mark()
    if isinstance(value, dict):
        label = value.get("label")
        value = value.get("raw", value.get("id", value.get("path")))
        label = label if isinstance(label, str) else ""
    else:
        label = ""
    if isinstance(value, str):
        yield from _entry(value, label, mark, files)
    elif isinstance(value, list):
        yield _Raw(value, label, slug(label, ""), mark)
    else:
        files.say(no_equal("this prompt is neither a text nor the name of a file", mark))


def _entry(text: str, label: str, mark: Mark, files: Files) -> Iterator[_Raw]:
    """A prompt, or those of the files that it names."""
    if _ELSEWHERE.match(text):
        where = text.partition(":")[0]
        files.say(no_equal(f"a prompt comes from `{where}:`, which is not asked", mark, "write it as a template"))
    elif text.startswith("file://") or _BARE.fullmatch(text):
        for path in files.paths(text, mark, _CODE):
            yield from _of_file(path, label, mark, files)
    else:
        yield _Raw(text, label, slug(label, ""), mark)


def _of_file(path: str, label: str, mark: Mark, files: Files) -> Iterator[_Raw]:
    stem, suffix = PurePosixPath(path).stem, PurePosixPath(path).suffix.lower()
    name = slug(label or stem, "")
    if suffix == ".csv":
        yield from _of_csv(path, mark, files)
    elif suffix in LINES:
        yield from (
            _Raw(each.value, label, f"{name}-{n}", each.mark()) for n, each in enumerate(files.values(path, mark), 1)
        )
    elif suffix in VALUES and suffix != ".json":
        yield from (_Raw(each.value, label, name, each.mark()) for each in files.values(path, mark))
    elif suffix in (*TEXTS, ".json"):
        text = files.text(path, mark)
        parts = _parts(text or "") if suffix == ".txt" else [text] if text else []
        for number, part in enumerate(parts, 1):
            yield _Raw(part, label, f"{name}-{number}" if len(parts) > 1 else name, Mark(path, 1, 1))
    else:
        files.say(no_equal(f"`{path}` is no prompt that is known here", mark, _CODE))


def _parts(text: str) -> list[str]:
    """The prompts of a text file: a line of three dashes is between two."""
    return [part.strip() for part in re.split(r"(?m)^[ \t]*---[ \t]*$", text) if part.strip()]


def _of_csv(path: str, mark: Mark, files: Files) -> Iterator[_Raw]:
    for place, row in files.table(path, mark):
        label = str(row.get("label") or "")
        yield _Raw(row.get("prompt", next(iter(row.values()))), label, slug(label, ""), place)


# --- from what was written to templates ---


def _prompt(raw: _Raw, files: Files) -> Prompt | None:
    value = raw.value
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")) and not value.lstrip().startswith(("{{", "{%")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):  # a text that begins with a bracket
            value = raw.value
    asked = Question("", value) if isinstance(value, str) else question(value)
    if isinstance(asked, str):
        files.say(no_equal(asked, raw.mark, HINT))
        return None
    system, input_ = (nunjucks.translated(text, raw.mark) for text in asked)
    for each in (system, input_):
        if isinstance(each, Diagnostic):
            files.say(each)
            return None
    assert not isinstance(system, Diagnostic) and not isinstance(input_, Diagnostic)
    return Prompt(raw.name, raw.label, system.source or None, input_.source, raw.mark)
