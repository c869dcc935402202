"""The tests of a promptfoo config: each with the variables that it sets and what it asserts."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.importers.draft import no_equal
from evalops.importers.files import VALUES, Files
from evalops.importers.promptfoo_rows import VALUE, composed, variables, without_keys
from evalops.importers.source import LINES, Source

MOST_CASES = 20_000
MOST_TEXT = 64 << 20  # characters of all rows: an alias or a template makes much of little

_ROWS = "write the tests that it makes to a JSONL or CSV file, and name that"
_CODE = ("transform", "transformVars", "postprocess")
_AROUND = ("prefix", "suffix", "storeOutputAs", "runSerially")
_FULL = re.compile(r"(not-)?([a-z][a-z0-9:-]*)(?:\((\d+(?:\.\d+)?)\))?(?::([\s\S]*))?")
_OF_CODE = ("javascript:", "fn:", "eval:", "python:")


class Asserted(NamedTuple):
    """One assertion. `is_default` where it stands in `defaultTest`, and so holds for every test."""

    given: Source
    is_default: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One test: a row, and what is asserted of the response. `output` is a response that it holds already.

    `number`, from 1, is that of the test with these values.
    """

    number: int
    row: Mapping[str, Any]
    asserted: tuple[Asserted, ...]
    options: Mapping[str, Any]
    output: Any
    mark: Mark


def cases(config: Source, files: Files, known: Callable[[str], bool]) -> list[Case]:
    """All tests, each combination of listed values by itself. `known` says which words are types of assertions.

    Raises EvalopsError for more than an import takes.
    """
    default = _default(config, files)
    given = config.value.get("tests")
    found = _listed(config.at("tests"), files, known) if given is not None else iter(())
    made: list[Case] = []
    held = 0
    for test in found:
        for case in _cases(test, default, files, len(made)):
            held += _length(case.row)
            if held > MOST_TEXT:
                raise too_large(case.mark)
            made.append(case)
    return made


def too_large(mark: Mark) -> EvalopsError:
    """The refusal of tests with more text than an import takes."""
    message = f"the tests hold more than the {MOST_TEXT >> 20} MiB of text that an import takes"
    return EvalopsError(Diagnostic(code="import/too-many", message=message, mark=mark, hint="split the config"))


def _length(value: Any) -> int:
    """The characters of the texts in a value."""
    match value:
        case str():
            return len(value)
        case dict():
            return sum(_length(each) for each in value.values())
        case list():
            return sum(map(_length, value))
    return 0


def _default(config: Source, files: Files) -> Source:
    """`defaultTest`, which may be a file of its own."""
    nothing = Source(config.path, {}, config.mark)
    if "defaultTest" not in config.value:
        return nothing
    given = config.at("defaultTest")
    if isinstance(given.value, str):
        paths = files.paths(given.value, given.mark(), VALUE)
        given = next((each for path in paths for each in files.values(path, given.mark())), nothing)
    if not isinstance(given.value, dict):
        files.say(no_equal("`defaultTest` is no mapping", given.mark()))
        return nothing
    return given


# --- where tests come from ---


def _listed(given: Source, files: Files, known: Callable[[str], bool]) -> Iterator[Source]:
    value, mark = given.value, given.mark()
    if isinstance(value, list):
        for number in range(len(value)):
            yield from _listed(given.at(number), files, known)
    elif isinstance(value, dict) and not isinstance(value.get("path"), str):
        yield given
    elif isinstance(value, str | dict):
        name = value if isinstance(value, str) else value["path"]
        if given.path != files.path:
            files.say(no_equal("a file of tests names another one", mark, "name it in the config"))
        elif re.match(r"(?!file:)[a-z]+:", name):
            where = name.partition(":")[0]
            files.say(no_equal(f"tests come from `{where}:`, and an import asks no one", mark, _ROWS))
        else:
            for path in files.paths(name, mark, _ROWS):
                yield from _of_file(path, mark, files, known)
    else:
        files.say(no_equal("this test is no mapping", mark))


def _of_file(path: str, mark: Mark, files: Files, known: Callable[[str], bool]) -> Iterator[Source]:
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".csv":
        yield from _of_csv(path, mark, files, known)
    elif suffix in (*VALUES, *LINES):
        for each in files.values(path, mark):
            yield from _listed(each, files, known)
    else:
        files.say(no_equal(f"`{path}` is no file of tests that is known here", mark, _ROWS))


def _of_csv(path: str, mark: Mark, files: Files, known: Callable[[str], bool]) -> Iterator[Source]:
    for place, row in files.table(path, mark):
        yield Source(path, _test(row, place, files, known), lambda *route, at=place: at)


def _test(row: Mapping[str, str], mark: Mark, files: Files, known: Callable[[str], bool]) -> dict[str, Any]:
    """A row of a CSV file as a test: columns that begin with two underscores are about it."""
    found: dict[str, Any] = {"vars": {}, "assert": [], "metadata": {}, "options": {}}
    for column, cell in row.items():
        if column.startswith("__expected"):
            found["assert"] += [expected(cell, known)] if cell.strip() else []
        elif column.startswith("__metadata:"):
            found["metadata"][column.removeprefix("__metadata:").removesuffix("[]")] = cell
        elif column in ("__prefix", "__suffix"):
            found["options"] |= {column[2:]: cell} if cell else {}
        elif column in ("__description", "__metric", "__providerOutput"):
            found[column[2:]] = cell
        elif column.startswith("__"):
            files.say(no_equal(f"the column `{column}` is not known to this import", Mark(mark.path, 1, 1)))
        else:
            found["vars"][column] = cell
    metric = found.pop("metric", "")
    found["assert"] = [{**each, "metric": metric} if metric else each for each in found["assert"]]
    return found


def expected(text: str, known: Callable[[str], bool]) -> dict[str, Any]:
    """The assertion that a cell of `__expected` stands for: `contains: Paris`, `similar(0.8):…`, or a bare answer."""
    if text.startswith(_OF_CODE):
        return {"type": "python" if text.startswith("python") else "javascript"}
    if text.startswith("grade:"):
        return {"type": "llm-rubric", "value": text.removeprefix("grade:").strip()}
    found = _FULL.fullmatch(text)
    if not found or not known(found[2]):
        return {"type": "equals", "value": text}
    value: Any = found[4].strip() if found[4] is not None else None
    if re.fullmatch(r"i?contains-(?:any|all)", found[2]):
        value = [each.strip() for each in (value or "").split(",")]
    threshold = {"threshold": float(found[3])} if found[3] else {}
    return {"type": (found[1] or "") + found[2], **({} if value in (None, "") else {"value": value}), **threshold}


# --- from a test to rows ---


def _cases(test: Source, default: Source, files: Files, before: int) -> Iterator[Case]:
    """A test for each combination of the values that it lists, `before` of others that were made."""
    mark = test.mark()
    options = {**_mapping(default, "options"), **_mapping(test, "options")}
    problem = _problem(test, default, options)
    if problem:
        files.say(no_equal(problem, mark, "leave it out, or write what it does into the prompt or the values"))
        return
    for key in (each for each in _AROUND if options.get(each)):
        files.say(no_equal(f"`options.{key}` of a test is left out", mark, "write it into the prompt"))
    values = variables(test, default, files)
    if values is None:
        return
    count = 1
    for each in values.values():
        count *= len(each)
    if before + count > MOST_CASES:
        message = f"the tests are more than the {MOST_CASES:,} that an import takes"
        raise EvalopsError(Diagnostic(code="import/too-many", message=message, mark=mark, hint="split the config"))
    is_own = bool(options.get("disableDefaultAsserts"))
    asserted = (*(() if is_own else _asserted(default, files, is_default=True)), *_asserted(test, files))
    make = partial(Case, asserted=asserted, options=options, output=test.value.get("providerOutput") or None, mark=mark)
    for number, combination in enumerate(product(*values.values()), before + 1):
        # First, so that no key comes into another value.
        given = without_keys(dict(zip(values, combination, strict=True)), mark, files)
        row = composed(given, mark, files)
        yield make(number=number, row={**without_keys(_about(test, default, row), mark, files), **row})


def _problem(test: Source, default: Source, options: Mapping[str, Any]) -> str | None:
    """Why a test cannot be taken over at all."""
    code = next((each for each in _CODE if options.get(each)), None)
    if code:
        return f"`options.{code}` is code, and an import runs none: the test is left out"
    if test.value.get("provider") or test.value.get("assertScoringFunction"):
        key = "provider" if test.value.get("provider") else "assertScoringFunction"
        return f"a test has its own `{key}`, and a spec is for all of its rows: it is left out"
    return None


def _mapping(given: Source, key: str) -> dict[str, Any]:
    value = given.value.get(key)
    return value if isinstance(value, dict) else {}


def _asserted(given: Source, files: Files, *, is_default: bool = False) -> Iterator[Asserted]:
    value = given.value.get("assert")
    if isinstance(value, list):
        yield from (Asserted(given.at("assert", number), is_default) for number in range(len(value)))
    elif value is not None:
        files.say(no_equal("`assert` is no list", given.mark("assert")))


def _about(test: Source, default: Source, row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns for people: what the test is called, and its metadata."""
    found = {**_mapping(default, "metadata"), **_mapping(test, "metadata")}
    if isinstance(test.value.get("description"), str) and test.value["description"]:
        found["description"] = test.value["description"]
    return {key: value for key, value in found.items() if key not in row and key}
