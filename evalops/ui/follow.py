"""Step 3: the plan with its cost, the confirmation, and the apply as it goes, for every browser that looks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from evalops.server.problem import Problem
from evalops.ui import listing
from evalops.ui.frame import Site, fields, review_of, wants_json
from evalops.ui.pace import OVER, Line
from evalops.ui.underway import Look, Phase, Underway
from evalops.views import json_
from evalops.views import text as words

PATH = "/apply"
EVERY = 0.5  # seconds between two looks of a page
QUIET = 15.0  # seconds without news, after which a browser is told that somebody is there
LOOKS = {"create": "info", "rerun": "info", "resume": "info", "unknown": "warn", "failed": "bad", "denied": "bad"}
MOVED_ON = "The plan has moved on since you looked at it: nothing was started. This is the plan of now."


def routes(site: Site) -> list[BaseRoute]:
    """`/apply`, `/apply/stop`, `/apply/events`"""
    underway = Underway(site)

    def show(request: Request) -> Response:
        only = tuple(request.query_params.getlist("only"))
        return _page(site, request, underway, only, retry="retry" in request.query_params)

    async def start(request: Request) -> Response:
        return await run_in_threadpool(_start, site, request, underway, await fields(request))

    def stop(request: Request) -> Response:
        underway.stop()
        return RedirectResponse(PATH, status_code=303)

    async def events(request: Request) -> Response:
        return StreamingResponse(_events(site, underway), media_type="text/event-stream")

    return [
        Route(PATH, show, methods=["GET"]),
        Route(PATH, start, methods=["POST"]),
        Route(f"{PATH}/stop", stop, methods=["POST"]),
        Route(f"{PATH}/events", events, methods=["GET"]),
    ]


def _start(site: Site, request: Request, underway: Underway, form: Mapping[str, Sequence[str]]) -> Response:
    """Starts what was looked at, and nothing else."""
    only, retry = tuple(form.get("only", ())), "retry" in form
    plan = site.api.plan(*only, retry_failed=retry)
    if form.get("digest") != [plan.digest]:
        why = MOVED_ON
    elif not plan.has_changes:
        why = "There is nothing to do."
    elif _is_paid(plan.value["summary"]) and "agreed" not in form:
        why = "Nothing was started: nobody agreed to what it takes."
    elif not underway.start(plan, retry_failed=retry):
        why = "An apply is running already: it was not started again."
    else:
        return RedirectResponse(PATH, status_code=303)
    if wants_json(request):
        raise Problem(409, why[:1].lower() + why[1:].rstrip("."))
    return _page(site, request, underway, only, retry=retry, refused=why)


def _page(
    site: Site, request: Request, underway: Underway, only: tuple[str, ...], *, retry: bool, refused: str = ""
) -> Response:
    look = underway.look()
    plan, problems = (None, ()) if look.phase.is_busy else listing.planned(site.api, *only, retry=retry)
    changes = [each for each in plan.changes if each["action"] != "noop"] if plan else []
    return site.render(
        request,
        "apply.html",
        status=409 if refused else 200,
        **_said(site, look),
        refused=refused,
        plan=plan.value if plan else None,
        changes=[(each, _shown(each)) for each in changes],
        problems=site.with_lines(problems),
        there=underway.here(changes),
        only=only,
        retry=retry,
        totals=words.totals(plan.value["summary"]) if plan else "",
        is_paid=plan is not None and _is_paid(plan.value["summary"]),
        button=_button(changes),
        has_failed=any(each["action"] == "failed" for each in changes),
        again=f"{PATH}?{urlencode([*(('only', each) for each in only), ('retry', 1)])}",
    )


def _is_paid(summary: Mapping[str, Any]) -> bool:
    """Whether it takes calls or money, or may."""
    paid = summary["paid"]
    return bool(paid["changes"]) and (paid["calls"] != 0 or paid["cost"] != 0)


def _shown(change: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a change, for its cells."""
    return {
        "look": LOOKS.get(change["action"], ""),
        "amount": words.amount(change),
        "fields": [
            {"name": each["name"], "moved": f"{words.short(each['before'])} → {words.short(each['after'])}"}
            | {"diff": each.get("diff", ())[2:]}
            for each in change["fields"]
        ],
    }


def _button(changes: Sequence[Mapping[str, Any]]) -> str:
    does = [each["action"] for each in changes if each["action"] not in ("failed", "denied")]
    return "Go on" if does and set(does) == {"resume"} else "Apply this plan"


# --- as it goes ---


async def _events(site: Site, underway: Underway) -> AsyncIterator[str]:
    """A `look` event whenever something has moved, until the browser leaves or the server ends."""
    last, silence = "", 0.0
    yield "retry: 2000\n\n"
    while not site.closing.is_now:
        look = await run_in_threadpool(underway.look)
        data = json.dumps({"key": look.key, "html": site.part("apply_lines.html", **_said(site, look))})
        if data != last:
            last, silence = data, 0.0
            yield f"event: look\ndata: {data}\n\n"
        elif silence >= QUIET:
            silence = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(EVERY)
        silence += EVERY


def _said(site: Site, look: Look) -> dict[str, Any]:
    """What a page says of a look."""
    over = sum(each.status in OVER for each in look.lines)
    ended = look.ended
    return {
        "look": look,
        "busy": look.phase.is_busy,
        "lines": [(each, _pace(each), _span(each.left)) for each in look.lines],
        "stands": any(each.still is not None for each in look.lines) and look.phase is Phase.HERE,
        "standing": f"{over} of {words.count(len(look.lines), 'evaluation')} ended" if look.lines else "",
        "is_stopping": look.phase is Phase.STOPPING,
        "elsewhere": look.phase is Phase.ELSEWHERE,
        "ended": ended,
        "found": site.with_lines([json_.diagnostic(each) for each in ended.diagnostics]) if ended else [],
        "results": [_result(each) for each in ended.results] if ended else [],
    }


def _result(state: Mapping[str, Any]) -> dict[str, Any]:
    failed = [each for each in state["gates"] if each["verdict"] == "failed"]
    return {
        "address": state["address"],
        "href": review_of(state["address"]) if state["summary"] else None,
        "status": state["status"],
        "result": words.metric(*state["headline"]) if state["headline"] else "",
        "metric": state["headline"][0] if state["headline"] else "",
        "gates": len(state["gates"]),
        "failed": [words.gate(each) for each in failed],
    }


def _pace(line: Line) -> str:
    rate = line.rate
    if line.still is not None:
        seconds = int(line.still // 5) * 5  # what changes with every look is hard to read
        return f"no new row for {seconds} s" if seconds < 90 else f"no new row for {seconds // 60} min"
    if rate is None:
        return "unknown"
    return f"{rate:,.1f} rows a second" if rate >= 1 else f"{rate * 60:,.1f} rows a minute"


def _span(seconds: float | None) -> str:
    """A time that is left, in the largest unit that says enough."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"about {round(seconds)} s"
    return f"about {round(seconds / 60)} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"
