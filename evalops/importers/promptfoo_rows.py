"""What a test of promptfoo sets: its variables, from lists and files, with other variables in them filled in."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from evalops.errors import Diagnostic, Mark
from evalops.importers import nunjucks
from evalops.importers.draft import no_equal
from evalops.importers.files import TEXTS, VALUES, Files
from evalops.importers.promptfoo_models import shown
from evalops.importers.source import LINES, Source

VALUE = "write the value"
DEEPEST = 64  # lists and mappings in a value

_KEY = re.compile(r"(?i:(?:^|[_-])(?:api[_-]?key|secret|password|access[_-]?token|authorization)$)|ApiKey$")


def variables(test: Source, default: Source, files: Files) -> dict[str, list[Any]] | None:
    """Each variable with the values that it takes, None where one cannot be had."""
    found: dict[str, list[Any]] = {}
    for given in (default, test):
        value = given.value.get("vars")
        if isinstance(value, str):
            sources = [
                each
                for path in files.paths(value, given.mark("vars"), VALUE)
                for each in files.values(path, given.mark("vars"))
            ]
            value = {key: each for one in sources if isinstance(one.value, dict) for key, each in one.value.items()}
        if not isinstance(value, dict | None):
            files.say(no_equal("`vars` is no mapping", given.mark("vars")))
            return None
        for name, each in (value or {}).items():
            taken = _values(each, given.mark("vars", name), files)
            if taken is None:
                return None
            found[name] = taken
    return found


def _values(value: Any, mark: Mark, files: Files) -> list[Any] | None:
    """The values of a variable: those of a list one after the other, and what stands in the files that it names."""
    found: list[Any] = []
    for each in value if isinstance(value, list) and value else [value]:
        if not (isinstance(each, str) and each.startswith("file://")):
            found.append(each)
            continue
        paths = files.paths(each, mark, VALUE)
        contents = [content for path in paths for content in _content(path, mark, files)]
        if not contents:
            return None
        found += contents
    return found


def _content(path: str, mark: Mark, files: Files) -> list[Any]:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix in VALUES:
        return [each.value for each in files.values(path, mark)]
    if suffix in (*TEXTS, *LINES, ".csv"):
        text = files.text(path, mark)
        return [] if text is None else [text.strip()]
    files.say(no_equal(f"`{path}` is a file that is no text, and a row holds texts: its test is left out", mark))
    return []


def composed(row: dict[str, Any], mark: Mark, files: Files) -> dict[str, Any]:
    """The row with variables in its texts filled in: a cell is never read as a template later."""
    found = dict(row)
    for name, value in row.items():
        if isinstance(value, str) and nunjucks.is_template(value):
            text = nunjucks.rendered(value, row, mark)
            if isinstance(text, Diagnostic):
                files.say(text)
            else:
                found[name] = text
    return found


def without_keys(value: Any, mark: Mark, files: Files, depth: int = 0) -> Any:
    """A value without what is called like a key: none is copied, wherever it stands."""
    if depth > DEEPEST:
        files.say(no_equal(f"a value has more than {DEEPEST} lists and mappings inside one another", mark))
        return None
    if isinstance(value, list):
        return [without_keys(each, mark, files, depth + 1) for each in value]
    if not isinstance(value, dict):
        return value
    for name in (name for name in value if _KEY.search(name)):
        message = f"the variable `{shown(name)}` is called like a key, and no key is copied"
        files.say(no_equal(message, mark, "a prompt needs none: leave it out, or call it otherwise"))
    return {name: without_keys(each, mark, files, depth + 1) for name, each in value.items() if not _KEY.search(name)}
