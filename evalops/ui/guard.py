"""What holds for every request before a page sees it, and for every answer.

The pages can spend money and write files, so that they answer nobody but the browser that was let in:

    Host            must be the address that this server listens at. Another one may lead here, and does where a page
                    of a stranger has its name resolved to this machine (DNS rebinding).
    cookie          must be of a session; nothing but the entry and the look of the page goes without.
    Sec-Fetch-Site  where the browser sends it, must say that no other site asks. All ports of this machine are one
                    site to a browser, so that SameSite alone would let other local servers in.
    Origin          must be ours where anything could change. Every browser sends it then, and no page can forge it.

Written as plain ASGI, so that uploads, downloads and events stream through untouched.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import Response

from evalops.server.problem import Problem
from evalops.ui.door import ENTER, Door

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Refuse = Callable[
    [MutableMapping[str, Any], Problem], Response
]  # a problem as a page, for one who may not have been let in

SAFE = frozenset({"GET", "HEAD"})  # they never change anything
OURS = frozenset({"", "same-origin", "none"})  # values of Sec-Fetch-Site: from a page of ours, or typed by the user
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # `no-referrer` would have forms send `Origin: null`
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


class Guard:
    """The application behind its door. `public` are the paths that need no session; `say` takes lines of the log."""

    def __init__(
        self, app: Any, door: Door, port: int, *, public: Collection[str], refuse: Refuse, say: Callable[[str], None]
    ) -> None:
        self._app = app
        self._door = door
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}
        self._public = public
        self._refuse = refuse
        self._say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def guarded(message: Any) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._answer(scope)
        if answer is not None:
            await answer(scope, receive, guarded)
            return
        try:
            await self._app(scope, receive, guarded)
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            self._say(f"a bug of evalops: {type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}")
            if not began:
                problem = Problem(500, "evalops made a mistake; the terminal where it runs says where")
                await self._refuse(scope, problem)(scope, receive, guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """What is answered here: a refusal, or the entry; None lets the request pass, with `let_in` in its scope."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        scope["let_in"] = False
        host = headers.get("host", "").lower()
        if host not in self._hosts:
            return self._refuse(scope, Problem(403, "this server answers to its own address only", code="host"))
        scope["let_in"] = self._door.knows(cookie_parser(headers.get("cookie", "")).get(self._door.cookie, ""))
        if scope["path"] == ENTER and scope["method"] == "GET":
            return self._enter(scope, headers)
        problem = self._problem(scope, headers, host)
        return self._refuse(scope, problem) if problem else None

    def _problem(self, scope: Scope, headers: dict[str, str], host: str) -> Problem | None:
        if scope["method"] in SAFE and scope["path"] in self._public:
            return None
        if not scope["let_in"]:
            return Problem(403, "open the address that `evalops ui` printed in its terminal", code="session")
        if headers.get("sec-fetch-site", "") not in OURS:
            scope["let_in"] = False
            return Problem(403, "another site sent you here: type the address, or reload the page", code="site")
        if scope["method"] not in SAFE and headers.get("origin", "") != f"http://{host}":
            return Problem(403, "only a page of this server may change anything", code="origin")
        return None

    def _enter(self, scope: Scope, headers: dict[str, str]) -> Response:
        """The cookie for the token, on the way to the first page, whose address has no token."""
        asked = parse_qs(scope["query_string"].decode("latin-1"))
        session = self._door.exchange(asked.get("token", [""])[0])
        if session is None and not scope["let_in"]:
            message = "this address was used before, or it is of an earlier `evalops ui`"
            return self._refuse(scope, Problem(403, message, code="token"))
        if headers.get("sec-fetch-site", "") in OURS:
            answer = Response(status_code=303, headers={"location": "/"})
        else:  # a redirect is still on behalf of the site with the link, and would go without the cookie
            answer = Response(headers={"refresh": "0; url=/"}, media_type="text/html")
        if session is not None:
            answer.set_cookie(self._door.cookie, session, httponly=True, samesite="strict")
            self._say(f"a browser was let in; for another one:\n  {self._door.url}")
        return answer
