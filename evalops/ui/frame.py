"""What the pages share: the project, the templates, and the frame around every page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, urlencode

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from evalops import api
from evalops.errors import Diagnostic, EvalopsError
from evalops.project import Project
from evalops.server.body import read
from evalops.server.problem import Problem
from evalops.views import html_, json_
from evalops.views import text as words
from evalops.views.safe import safe

TEMPLATES = Path(__file__).parent / "templates"
SHOWN = 160  # characters of a line with a problem
LARGEST_FORM, MOST_FIELDS = 1 << 20, 10_000  # bytes; of one form without files


class Section(NamedTuple):
    """An entry of the navigation."""

    title: str
    path: str


class Closing:
    """The end of this server. What lasts longer than a request is told of it, and then waited for."""

    def __init__(self) -> None:
        self.is_now = False
        self._lasting: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def add(self, end: Callable[[], None], wait: Callable[[], None]) -> None:
        """What is called when the server is told to end, and what returns once that is done."""
        self._lasting.append((end, wait))

    def begin(self) -> None:
        """Tells everything to end; does not wait."""
        self.is_now = True
        for end, _ in self._lasting:
            end()

    def wait(self) -> None:
        """Waits until all of it has ended."""
        for _, wait in self._lasting:
            wait()


@dataclass(frozen=True)
class Site:
    """A project as pages. What a page shows is read anew for each request, so that all browsers see the same."""

    root: Path
    sections: tuple[Section, ...] = ()
    closing: Closing = field(default_factory=Closing)

    @property
    def project(self) -> Project:
        """The folder as it is now: settings are not kept from one request to the next."""
        return Project(self.root)

    @property
    def api(self) -> api.Project:
        """The verbs of the command line."""
        return api.Project(self.root)

    @cached_property
    def _templates(self) -> jinja2.Environment:
        return html_.environment(jinja2.FileSystemLoader(TEMPLATES))

    def render(self, request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
        """A page from a file of `templates/` that extends `layout.html`.

        Texts are escaped and made harmless; a field gets its value as it is by `{{ value | e }}`.
        """
        frame = {"name": self.root.name, "sections": self.sections, "here": request.url.path}
        return HTMLResponse(self.part(template, **frame, **values), status_code=status)

    def part(self, template: str, **values: Any) -> str:
        """A piece of a page, from a file of `templates/`."""
        return self._templates.get_template(template).render(values)

    def refuse(self, scope: MutableMapping[str, Any], problem: Problem) -> Response:
        """A problem as a page, or as JSON for a script; it names nothing of the project."""
        request = Request(scope)
        if wants_json(request):
            return problem.response()
        values = {"problem": problem, "let_in": scope.get("let_in", False)}
        answer = self.render(request, "problem.html", status=problem.status, **values)
        answer.headers.update(problem.headers or {})
        return answer

    def stopped(self, request: Request, error: EvalopsError) -> Response:
        """What is wrong in the project's files, so that there is nothing else to show."""
        found = [json_.diagnostic(each) for each in error.diagnostics]
        if wants_json(request):
            message = "; ".join(each["message"] for each in found)
            return JSONResponse({"error": {"message": message}, "diagnostics": found}, status_code=409)
        return self.render(request, "stopped.html", status=409, problems=self.with_lines(found))

    def with_lines(self, diagnostics: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Problems in their machine form for `problems.html`, each with the line that it is about as `text`."""
        project, lines = self.project, dict[str, list[str]]()
        found = []
        for each in diagnostics:
            path, number = each["path"], each["line"]
            if number and path not in lines:
                lines[path] = _lines(project, path)
            source = lines[path] if number else []
            text = words.line_of(source[number - 1][:SHOWN]) if 0 < (number or 0) <= len(source) else None
            found.append({**each, "text": text})
        return found


def harmless(problem: Diagnostic) -> dict[str, Any]:
    """A problem in its machine form, for a script that puts it into a page as it is."""
    found = json_.diagnostic(problem)
    return found | {each: safe(found[each]) if found[each] else None for each in ("message", "hint", "path")}


def review_of(address: str) -> str:
    """The path of the page with the result at an address."""
    return f"/evaluations/{quoted(address)}"


def edit_of(spec: str) -> str:
    """The page with the form of a spec of the project."""
    return f"/create/evaluation?{urlencode({'spec': spec}, errors='replace')}"


def plan_of(selector: str) -> str:
    """The page with the plan of what a selector means."""
    return f"/apply?{urlencode({'only': selector}, errors='replace')}"


def quoted(address: str) -> str:
    """An address as one part of a path."""
    return quote(address, safe="", errors="replace")


async def fields(request: Request) -> dict[str, list[str]]:
    """The fields of a form. Raises Problem where there is more than a form has, or it does not come."""
    data = await read(request, LARGEST_FORM)
    try:
        return parse_qs(data.decode(), keep_blank_values=True, errors="replace", max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Problem(400, "this is no form that can be read") from None


def wants_json(request: Request) -> bool:
    """Whether a script asks, and not a person."""
    return "application/json" in request.headers.get("accept", "")


def _lines(project: Project, path: str) -> list[str]:
    try:
        return project.read(path).decode("utf-8", "replace").split("\n")
    except (EvalopsError, OSError):
        return []
