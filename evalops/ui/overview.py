"""The first page: every evaluation with its plan, last result and trend; filters; what an apply would do and cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from evalops.trend import Point
from evalops.ui import listing
from evalops.ui.frame import Site, edit_of, review_of
from evalops.ui.listing import Line
from evalops.views import text as words

FILTERS = ("type", "provider", "state", "gates")
_LOOKS = {"create": "info", "rerun": "info", "unknown": "warn", "failed": "bad", "denied": "bad"}  # of the state
_WIDTH, _HEIGHT, _EDGE = 120, 28, 4  # of a trend, in units of its SVG


class Trend(NamedTuple):
    """Results over time, drawn: the points as `x,y`, what is said of them, since when, and every one in words."""

    dots: Sequence[tuple[float, float]]
    said: str
    since: str
    spelled: str

    @property
    def path(self) -> str:
        return " ".join(f"{x:g},{y:g}" for x, y in self.dots)


def routes(site: Site) -> list[BaseRoute]:
    """`/`"""

    def overview(request: Request) -> Response:
        found = listing.of(site.api)
        asked = {name: request.query_params.get(name, "") for name in (*FILTERS, "q")}
        lines = [each for each in found.lines if _is_meant(each, asked)]
        return site.render(
            request,
            "overview.html",
            lines=[(each, _shown(each)) for each in lines],
            count=len(found.lines),
            asked=asked,
            choices={name: _choices(name, found.lines) for name in FILTERS},
            totals=words.totals(found.plan["summary"]) if found.plan else None,
            has_changes=found.plan is not None and any(each["action"] != "noop" for each in found.plan["changes"]),
            problems=site.with_lines(found.problems),
        )

    return [Route("/", overview, methods=["GET"])]


def _is_meant(line: Line, asked: Mapping[str, str]) -> bool:
    about = line.about
    text = " ".join([line.address, line.spec or "", about.dataset, about.judge, *about.candidates, *about.tags])
    return all(word in text.casefold() for word in asked["q"].casefold().split()) and all(
        not asked[name] or asked[name] == _value(name, line) for name in FILTERS
    )


def _value(name: str, line: Line) -> str:
    """What a line has for a filter."""
    match name:
        case "type":
            return line.about.type
        case "provider":
            return line.about.provider
        case "state":
            return line.change["action"] if line.change else "not planned"
    if not line.state or not line.state["gates"]:
        return "none"
    return "failed" if line.failed_gates else "passed"


def _choices(name: str, lines: Iterable[Line]) -> list[str]:
    return sorted({_value(name, each) for each in lines})


def _shown(line: Line) -> dict[str, Any]:
    """The words of a line, for its cells."""
    state, change = line.state or {}, line.change
    headline, summary = state.get("headline"), state.get("summary") or {}
    return {
        "href": review_of(line.address) if line.state else None,
        "edit": edit_of(line.spec) if line.spec else None,
        "look": _LOOKS.get(change["action"], "") if change else "",
        "amount": words.amount(change) if change else "",
        "metric": headline[0] if headline else None,
        "result": words.metric(*headline) if headline else None,
        "is_earlier": bool(summary) and summary.get("job") not in (None, state.get("job")),
        "missing": summary.get("invalid", 0) + summary.get("errors", 0),
        "warnings": summary.get("warnings", ()),
        "gates": [words.gate(gate) for gate in state.get("gates", ())],
        "trend": _trend(line, headline),
    }


def _trend(line: Line, headline: Sequence[Any] | None) -> Trend | None:
    """The history with today's result at its end; None where there is nothing to compare."""
    if not headline:
        return None
    name, value = headline[0], float(headline[1]["value"])
    points = [each for each in line.points if each.metric == name]
    if points and points[-1].value != value:
        points.append(Point(name, value, "today", ""))
    if len(points) < 2:
        return None
    values = [each.value for each in points]
    low, high = min(values), max(values)
    step = (_WIDTH - 2 * _EDGE) / (len(values) - 1)
    span = (high - low) or 1.0
    dots = [
        (round(_EDGE + step * place, 1), round(_HEIGHT - _EDGE - (each - low) / span * (_HEIGHT - 2 * _EDGE), 1))
        for place, each in enumerate(values)
    ]
    moved = values[-1] - values[0]
    way = "up" if moved > 0 else "down"
    said = f"{way} {words.effect(name, abs(moved))}" if moved else "no change"
    spelled = ", ".join(f"{words.metric(name, {'value': each.value})} ({each.day})" for each in points)
    return Trend(dots, said, points[0].day, f"{name}: {spelled}")
