"""A spec that is not saved yet, as its page needs it: text, fields, what `evalops validate` says, a row rendered."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalops import catalog, layout
from evalops.document import Document, KeyPath, parse
from evalops.errors import Diagnostic, EvalopsError
from evalops.metrics import summaries
from evalops.project import Project, matching
from evalops.spec import Type
from evalops.ui import create_fields as fields
from evalops.ui import create_row, create_text
from evalops.ui.create_upload import is_inner
from evalops.ui.frame import harmless
from evalops.views.safe import safe

Json = dict[str, Any]
MOST_ROWS = 2000  # that are looked at while somebody types; saving looks at all
_MISSING = re.compile(r"(?:`([^`]+)` has no )?`([^`]+)`(?: is missing.*)?")


def draft(project: Project, text: str, path: str, changes: Mapping[str, Any] | None, row: int) -> Json:
    """A spec's text with changes of its form carried out; without any, the text is what somebody typed.

    `fields` are None where the form cannot show the spec, and then `reason` says why.
    """
    document, reason = _document(text, path)
    if changes and document:
        text = create_text.rewritten(document, fields.changed(document.value, changes), path)
        document, reason = _document(text, path)
    if document:
        text = create_text.headed(project, text, path)
    value = document.value if document else {}
    shown = fields.shown(value) if document else fields.Shown({}, [], [])
    type_ = value.get("type")
    return {
        "text": text,
        "path": path,
        "fields": shown.fields if document else None,
        "kept": shown.kept,
        "more": [safe(each) for each in shown.more],
        "reason": reason,
        "metrics": summaries.NAMES[Type(type_)] if type_ in list(Type) else (),
        "problems": problems(project, text, path, most=MOST_ROWS),
        **create_row.of(project, value, row),
    }


def anew(project: Project, changes: Mapping[str, Any], path: str) -> str:
    """The text of a spec that only its form knows."""
    value = fields.changed({"version": 1}, changes)
    return create_text.new(project, value, path)


def problems(project: Project, text: str, path: str, *, most: int | None) -> list[Json]:
    """Everything wrong with a text as the spec at `path`, each with the field of the form that it is about."""
    data = text.encode("utf-8", "surrogatepass")
    document, _ = _document(text, path)
    found: list[Diagnostic] = list(placed(project, path))
    try:
        found += catalog.of_text(project, path, data, most=most).diagnostics
    except EvalopsError as error:
        found += error.diagnostics
    return [_problem(each, document, path) for each in found]


def laid_out(text: str, path: str) -> bytes:
    """What `fmt` makes of a text. Raises EvalopsError."""
    return layout.laid_out(text.encode("utf-8", "surrogatepass"), path).encode()


def placed(project: Project, path: str) -> list[Diagnostic]:
    """Why no spec can be at a path."""
    parts = path.split("/")
    hint = "a path from the project folder, like `support-tone.yaml` or `specs/tone.yaml`"
    if any(part in ("", ".", "..") or part.startswith(".") or not part.isprintable() or "\\" in part for part in parts):
        return [Diagnostic(code="file/outside", message=f"`{path}` is no path for a spec of this project", hint=hint)]
    if not path.endswith((".yaml", ".yml")) or len(path) > 200:
        return [Diagnostic(code="fmt/no-yaml", message=f"`{path}` is not the name of a YAML file", hint=hint)]
    globs = project.settings.specs
    if not matching([path], globs) or is_inner(project, path):
        where = f"specs are {', '.join(f'`{each}`' for each in globs)}"
        return [Diagnostic(code="import/folder", message=f"evalops does not look for specs at `{path}`", hint=where)]
    return []


def _document(text: str, path: str) -> tuple[Document | None, str]:
    """The one mapping that the form can show, or why there is none."""
    documents, found = parse(text.encode("utf-8", "surrogatepass"), path)
    if found or not documents:
        return None, "The YAML cannot be read as it is: the form waits until it can."
    if len(documents) > 1:
        return None, f"The file holds {len(documents)} specs; the form shows one, so these are edited as YAML."
    if not isinstance(documents[0].value, dict):
        return None, "The YAML is no mapping of fields, so the form has nothing to show."
    return documents[0], ""


# --- which field a problem is about ---


def _problem(problem: Diagnostic, document: Document | None, path: str) -> Json:
    found = harmless(problem)
    return {**found, "field": _field(problem, document, path), "is_here": found["path"] == safe(path)}


def _field(problem: Diagnostic, document: Document | None, path: str) -> str | None:
    if problem.mark is None:
        return "path"
    value = document.value if document else {}
    if problem.mark.path != path:
        return "dataset.path" if problem.code.startswith(("dataset/", "file/")) else None
    if document is None:
        return None
    route = _route(document, problem.mark.line, problem.mark.column)
    if problem.code == "schema/missing-key" and (missing := _MISSING.match(problem.message)):
        owner = tuple(missing[1].split(".")) if missing[1] else ()
        route = (*owner, missing[2])
    return fields.name_of(value, route)


def _route(document: Document, line: int, column: int) -> KeyPath:
    """The innermost key or entry that begins at a place, or last before it."""
    places = [(mark.line, mark.column, route) for route, mark in document.keys.items()]
    places += [(mark.line, mark.column, route) for route, mark in document.marks.items() if route not in document.keys]
    before = [each for each in places if each[:2] <= (line, column) and each[2]]
    return max(before, key=lambda each: (each[:2], len(each[2])))[2] if before else ()
