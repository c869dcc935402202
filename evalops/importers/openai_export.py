"""What an export of OpenAI Evals holds: evals, runs, output items and rows, wherever they stand in its files.

There is no one form of such an export: people save what the API gives, an object or a page of a list at a time. So each
object is known by its fields, whatever it is wrapped in.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from evalops.document import KeyPath
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.fingerprint import canonical
from evalops.importers import source
from evalops.importers.source import Source

DEEPEST = 8  # wrappers around an object


@dataclass(slots=True)
class Export:
    """All that the files hold. `items` are output items by run, `rows` those of files by the stem of their names."""

    evals: list[Source] = field(default_factory=list)
    runs: list[Source] = field(default_factory=list)
    items: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)
    rows: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)

    def of_file(self, id_: str) -> list[Mapping[str, Any]]:
        """The rows of a file that OpenAI keeps: the one that is called like it, or the only one there is."""
        if id_ in self.rows:
            return self.rows[id_]
        return next(iter(self.rows.values())) if len(self.rows) == 1 else []


def read(files: Iterable[tuple[str, bytes]]) -> Export:
    """The objects in files, JSON or a JSON value a line. Raises EvalopsError where one cannot be read or has none."""
    found = Export()
    seen: set[bytes] = set()
    for path, data in files:
        count = 0
        for each in _sources(path, data):
            for one in _objects(each):
                count += 1
                key = canonical(one.value)
                if key not in seen or "item" in one.value:
                    seen.add(key)
                    _keep(found, one)
        if not count:
            raise EvalopsError(
                Diagnostic(
                    code="import/unreadable",
                    message="there is no eval, run, output item or row of OpenAI Evals in this file",
                    mark=Mark(path, 1, 1),
                    hint="save what the API gives; a config that the dashboard exports is for --from promptfoo",
                )
            )
    return found


def _sources(path: str, data: bytes) -> Sequence[Source]:
    name = path if PurePosixPath(path).suffix.lower() in (*source.JSON, *source.LINES) else f"{path}.json"
    return [each._replace(path=path) for each in source.read(data, name)]


def _objects(given: Source) -> Iterator[Source]:
    """The objects of the API in a value, found without recursion."""
    waiting: list[tuple[Any, KeyPath]] = [(given.value, ())]
    while waiting:
        value, route = waiting.pop()
        if isinstance(value, dict) and _kind(value):
            yield given.at(*route)
            if isinstance(value.get("runs"), list | dict):
                waiting.append((value["runs"], (*route, "runs")))
            if isinstance(value.get("output_items"), list | dict):
                waiting.append((value["output_items"], (*route, "output_items")))
        elif isinstance(value, dict | list) and len(route) < DEEPEST:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += reversed([(each, (*route, key)) for key, each in inner if isinstance(each, dict | list)])


def _kind(value: Mapping[str, Any]) -> str | None:
    """Which object of the API this is."""
    if isinstance(value.get("testing_criteria"), list):
        return "eval"
    if isinstance(value.get("data_source"), dict):
        return "run"
    if isinstance(value.get("datasource_item"), dict):
        return "item"
    return "row" if isinstance(value.get("item"), dict) else None


def _keep(export: Export, found: Source) -> None:
    kind = _kind(found.value)
    if kind == "eval":
        export.evals.append(found)
    elif kind == "run":
        export.runs.append(found)
    elif kind == "item":
        export.items.setdefault(str(found.value.get("run_id")), []).append(found.value)
    else:
        export.rows.setdefault(PurePosixPath(found.path).stem, []).append(found.value)
