"""The comment on a pull request: plan, results and gates in at most so many bytes, never cut in the middle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from evalops.errors import Diagnostic, EvalopsError
from evalops.views import markdown, text
from evalops.views import review as moved
from evalops.views.safe import code, prose

LIMIT = 60_000  # bytes; GitHub takes 65,536 characters
MARKER = "<!-- evalops -->"  # by which the comment is found again
PROBLEMS = 20  # that are shown

# Texts that evalops chooses itself. All others go through `safe`, wherever they stand.
WORDS = frozenset(
    {"kind", "trend", "status", "type", "action", "sign", "money", "severity", "at", "on", "verdict", "test", "commit"}
    | {"head", "digest", "fingerprint", "format_version", "metric", "prices_as_of"}
)
_PLAIN = re.compile(r"[A-Za-z0-9 .,:;()'_+~=<>!-]{0,80}")

Value = Mapping[str, Any]


def comment(value: Value, limit: int = LIMIT) -> str:
    """The comment with as much in it as fits: all of it, without the rows, addresses by sign, or the totals alone.

    `value` has `review` and `plan` (their machine forms, None where they could not be made), `problems` and `fallen`
    (diagnostics), `head`, `base` and the time `at`.
    """
    return fitting([partial(_whole, value, level) for level in _LEVELS], limit)


def of(data: bytes) -> str:
    """The comment of a value as JSON that another job left, which may be anybody's.

    Raises EvalopsError for what evalops would not have written. What it would have is no more true for that, but it is
    text: no link, no image, no mention, no HTML.
    """
    try:
        value = json.loads(data)
        if _is_ours(value):
            return comment(value)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        pass
    raise EvalopsError(
        Diagnostic(
            code="report/foreign",
            message="that is no value of a comment as `evalops report --format comment-json` writes it",
            hint="both jobs need the same version of evalops",
        )
    )


def _is_ours(value: Any, key: str = "") -> bool:
    """Whether what stands in a comment as it is, because evalops chooses it, are plain words."""
    if isinstance(value, dict):
        return all(_is_ours(each, name) for name, each in value.items())
    if isinstance(value, list):
        return all(_is_ours(each, key) for each in value)
    return not isinstance(value, str) or key not in WORDS or _PLAIN.fullmatch(value) is not None


def plan(value: Value, *, verbose: bool = False, limit: int = LIMIT) -> str:
    """A plan as Markdown, short enough for a comment."""
    digest = f"Digest: {code(value['digest'])}"
    problems = _problems({"problems": value["diagnostics"]})
    return fitting(
        [
            lambda: _joined([markdown.plan(value, verbose=verbose).removesuffix("\n"), *problems]),
            lambda: _joined([markdown.plan(value).removesuffix("\n"), *problems]),
            lambda: _joined([markdown.plan_signs(value), digest]),
            lambda: _joined([text.totals(value["summary"]), digest]),
        ],
        limit,
    )


def review(value: Value, limit: int = LIMIT) -> str:
    """How results moved as Markdown, short enough for a comment."""
    since = f"Since {_base(value)}: {moved.totals(value)}."
    return fitting(
        [
            lambda: markdown.review(value),
            lambda: _joined([since, *markdown.failing(value), *markdown.results(value)]),
            lambda: _joined([since, *markdown.review_signs(value)]),
            lambda: _joined([since]),
        ],
        limit,
    )


def fitting(levels: Sequence[Callable[[], str]], limit: int) -> str:
    """The first of several texts that is not longer than `limit` bytes, else the last."""
    found = ""
    for level in levels:
        found = level()
        if len(found.encode()) <= limit:
            break
    return found


def _base(value: Value) -> str:
    return f"{code(value['base']['commit'][:12])} ({code(value['base']['name'], 100)})"


def _joined(parts: list[str]) -> str:
    return "\n\n".join(parts) + "\n"


# --- the comment's levels ---


def _whole(value: Value, level: Callable[[Value], list[str]]) -> str:
    short = [] if level is _full else ["_Shortened to fit: `evalops diff` and `evalops plan` show all of it._"]
    return _joined([MARKER, "### evalops", _head(value), *level(value), *short])


def _head(value: Value) -> str:
    """The totals of everything, and of which revisions they are: on every level."""
    lines = []
    if value["problems"]:
        errors = sum(each["severity"] == "error" for each in value["problems"])
        warnings = len(value["problems"]) - errors
        counts = [text.count(number, word) for number, word in ((errors, "error"), (warnings, "warning")) if number]
        lines.append(f"**{' and '.join(counts)}**")
    if value["review"]:
        gates = value["review"]["totals"]["failed_gates"] + len(value["fallen"])
        lines.append(f"**{text.count(gates, 'gate')} failing**" if gates else "No gate fails")
        lines.append(f"Results: {moved.totals(value['review'])}")
    lines.append(text.totals(value["plan"]["summary"]) if value["plan"] else "No plan: the specs have errors")
    lines += [prose(each) for each in text.trusted(value["plan"] or {})[:1]]
    about = [f"head {code(value['head'][:12])}"] if value["head"] else []
    about += (
        [f"base {code(value['base']['commit'][:12])} ({code(value['base']['name'], 100)})"] if value["base"] else []
    )
    return "\n".join([*(f"- {each}" for each in lines), "", f"{', '.join([*about, value['at']])}"])


def _full(value: Value) -> list[str]:
    return _parts(value, with_rows=True)


def _without_rows(value: Value) -> list[str]:
    return _parts(value, with_rows=False)


def _parts(value: Value, *, with_rows: bool) -> list[str]:
    parts = _problems(value)
    found = value["review"]
    if found:
        shown = [
            *markdown.failing(found),
            *_fallen(value),
            *markdown.results(found),
            *markdown.reasons(found, with_rows=with_rows),
        ]
        parts += ["#### Results", *shown] if shown else []
    if value["plan"] and any(each["action"] != "noop" for each in value["plan"]["changes"]):
        parts += ["#### Not applied yet", markdown.plan(value["plan"]).removesuffix("\n")]
    return parts


def _fallen(value: Value) -> list[str]:
    """What is worse than its spec allows, against the base."""
    lines = [f"- {prose(each['message'], 300)}" for each in value["fallen"]]
    return ["\n".join(lines)] if lines else []


def _problems(value: Value) -> list[str]:
    rows = [
        [code(_place(each)), each["severity"], code(each["code"]), prose(each["message"], 300)]
        for each in value["problems"][:PROBLEMS]
    ]
    if not rows:
        return []
    more = len(value["problems"]) - len(rows)
    table = markdown.table(("where", "", "", "what"), rows)
    return ["#### Problems", table, *([f"and {more} more"] if more > 0 else [])]


def _place(problem: Value) -> str:
    return ":".join(str(problem[key]) for key in ("path", "line") if problem[key] is not None) or "-"


def _signs(value: Value) -> list[str]:
    parts = []
    if value["review"]:
        addresses = dict.fromkeys(each["address"] for each in [*value["review"]["failed_gates"], *value["fallen"]])
        parts += [markdown.named("gates failing", addresses)] if addresses else []
        parts += markdown.review_signs(value["review"])
    if value["plan"]:
        parts += ["#### Not applied yet", markdown.plan_signs(value["plan"])]
    return parts


def _totals(value: Value) -> list[str]:
    return []


_LEVELS = (_full, _without_rows, _signs, _totals)
