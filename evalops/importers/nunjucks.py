"""promptfoo's templates are Nunjucks, which is Jinja2 but for a few words: those are exchanged, the rest is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from evalops import template
from evalops.errors import Diagnostic, Mark
from evalops.importers.draft import no_equal
from evalops.template import RenderError, Template

# What has no end goes on to that of the text: to look for one again behind every bracket would take hours.
_TAG = re.compile(r"\{\{.*?(?:\}\}|\Z)|\{%.*?(?:%\}|\Z)", re.S)
_QUOTED = re.compile(r"(\"(?:[^\"\\]|\\.)*+(?:\"|\\?\Z)|'(?:[^'\\]|\\.)*+(?:'|\\?\Z))", re.S)
_WORDS = (
    (re.compile(r"==="), "=="),
    (re.compile(r"!=="), "!="),
    (re.compile(r"&&"), " and "),
    (re.compile(r"\|\|"), " or "),
    (re.compile(r"\|\s*dump\b"), "| tojson"),
    (re.compile(r"\|\s*safe\b"), ""),
    (re.compile(r"\.length\b(?!\s*\()"), " | length"),
    (re.compile(r"^(\{%-?\s*)else\s?if\b"), r"\1elif"),
)
_VARIABLE = re.compile(r"\s*\{\{-?\s*([A-Za-z][A-Za-z0-9_]*)\s*(?:\|\s*safe\s*)?-?\}\}\s*")

OUTSIDE = {"env", "process"}  # variables of the environment


def is_template(text: str) -> bool:
    """Whether anything in a text is for a template engine."""
    return "{{" in text or "{%" in text or "{#" in text


def variable(text: str) -> str | None:
    """The variable that a text is and nothing else: `x` of `{{ x }}`."""
    found = _VARIABLE.fullmatch(text)
    return found[1] if found else None


def translated(text: str, mark: Mark) -> Template | Diagnostic:
    """The same template in our words, or why there is none."""
    parsed = template.parse(_TAG.sub(_tag, text))
    if not isinstance(parsed, Template):
        problem = parsed[0]
        message = f"a template cannot be taken over: {problem.message}"
        return no_equal(message, mark, problem.hint or "write it without that")
    outside = sorted(OUTSIDE & parsed.variables)
    if outside:
        message = f"`{{{{ {outside[0]}.… }}}}` asks for variables of the environment, and none is looked up"
        return no_equal(message, mark, "write the value")
    return parsed


def variables(source: str) -> frozenset[str]:
    """The variables of a template in our words."""
    parsed = template.parse(source)
    return parsed.variables if isinstance(parsed, Template) else frozenset()


def rendered(text: str, row: Mapping[str, Any], mark: Mark) -> str | Diagnostic:
    """The text of a template for one test, or why there is none; what a test does not set is empty, as in promptfoo."""
    if not is_template(text):
        return text
    found = translated(text, mark)
    if isinstance(found, Diagnostic):
        return found
    try:
        return found.render({**dict.fromkeys(found.variables, ""), **row})
    except RenderError as error:
        return no_equal(f"a template cannot be filled in: {error}", mark)


def _tag(found: re.Match[str]) -> str:
    parts = _QUOTED.split(found[0])
    return "".join(part if number % 2 else _plain(part) for number, part in enumerate(parts))


def _plain(code: str) -> str:
    for pattern, word in _WORDS:
        code = pattern.sub(word, code)
    return code
