"""The report as one HTML file that needs nothing else: style, script and data are in it, and policy forbids the rest.

Every text that a template prints is made harmless on its way (`safe`) and escaped by Jinja2; what the script shows
comes as JSON in which nothing can end the element that holds it, and is set as text.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

import jinja2

from evalops.views import charts, overview, sections
from evalops.views import text as words
from evalops.views.safe import line, safe

_NOT_IN_SCRIPTS = "<>&\u2028\u2029"  # what JSON may hold and a script element must not


def page(value: Mapping[str, Any]) -> str:
    """The report of `report.of` as a document; `problems` may stand in it, diagnostics in their machine form."""
    style, script = asset("style.css"), asset("report.js")
    return (
        environment()
        .get_template("report.html")
        .render(
            style=style,
            script=script,
            policy=policy(style, script),
            report=value,
            problems=value.get("problems", []),
            overview=overview.of(value),
            sections=sections.of(value),
        )
    )


def environment(*loaders: jinja2.BaseLoader, **options: Any) -> jinja2.Environment:
    """Templates with everything escaped and made harmless: those of `loaders`, then those of `page/`.

    `options` are those of Jinja2. Beside its own filters there are `json`, for a script element of type
    application/json, `line`, for a text on one line of at most so many characters, and `time`, for a lockfile's.
    """
    found = jinja2.Environment(
        loader=jinja2.ChoiceLoader([*loaders, jinja2.FunctionLoader(asset)]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
        **options,
    )
    found.filters |= {"json": embedded, "line": line, "time": words.time}
    found.globals |= {"charts": charts}
    return found


@cache
def asset(name: str) -> str:
    """A file of `page/`."""
    return (files("evalops") / "views" / "page" / name).read_text("utf-8")


def policy(style: str, script: str) -> str:
    """What the document may do: have this style and this script, and nothing else. For a `meta` element."""
    return (
        f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def embedded(value: Any) -> str:
    """A value as JSON that can stand in a script element as it is: nothing in it is markup, or ends the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for each in _NOT_IN_SCRIPTS:
        text = text.replace(each, f"\\u{ord(each):04x}")
    return text


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _harmless(value: Any) -> Any:
    """A text as `safe` has it; markup that a template made, and what is no text, as it is."""
    return safe(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
