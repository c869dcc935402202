"""The application: keys, hosts and errors are the same for every endpoint.

Written as plain ASGI where it wraps every request, so that uploads and downloads stream through untouched.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from evalops.endpoint import is_loopback
from evalops.engine.store import Store
from evalops.errors import EvalopsError
from evalops.secret import Secret
from evalops.server import file_routes
from evalops.server.evaluate import Evaluate
from evalops.server.files import Files
from evalops.server.listen import LARGEST_HEAD
from evalops.server.problem import Problem
from evalops.server.routes import Evaluations
from evalops.server.work import STORE, Works, place
from evalops.settings import Settings

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

UPLOADS = "/uploads/"  # below it, the token in the path is the right to write

_VERSION = re.compile(r"^(?:/v1)+(?=/|$)")
_HOST = re.compile(r"[A-Za-z0-9._\[\]:-]{1,255}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a server is run: its folder, where embedded models named by path are looked for, and the key to ask for."""

    folder: Path
    root: Path
    settings: Settings
    key: Secret | None
    say: Callable[[str], None]


def create(options: Options) -> Any:
    """The ASGI application. Its jobs begin with its lifespan, and are left with it. Raises EvalopsError."""
    files = Files(options.folder / "files", largest=options.settings.serve.max_file_bytes)
    works = Works(options.folder, options.root, options.settings, files, options.say)
    store = Store(options.folder / STORE)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        works.start()
        try:
            yield
        finally:
            works.stop()
            store.close()

    evaluations = Evaluations(store, works, files, options.settings)
    app = Starlette(
        routes=[
            *evaluations.routes(),
            *Evaluate(works, options.settings).routes(),
            *file_routes.routes(files),
        ],
        lifespan=lifespan,
        exception_handlers={
            Problem: _problem,
            HTTPException: _unknown,
            EvalopsError: _unusable,
            OSError: _unusable,
        },
    )
    app.router.redirect_slashes = False
    return _Guard(app, options)


async def _problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _unknown(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        message = f"nothing answers {request.method[:20]} at this path: evalops serve has /v1/evaluation and /v1/files"
        return Problem(404, message, code="not_found").response()
    if error.status_code == 405:
        message = f"this path does not take {request.method[:20]}"
        return Problem(405, message, headers=error.headers).response()
    return Problem(error.status_code, str(error.detail), headers=error.headers).response()


async def _unusable(request: Request, error: Exception) -> Response:
    """Nothing can be written: nothing was taken, and the client may come again."""
    reason = error.diagnostics[0].message if isinstance(error, EvalopsError) else "its folder cannot be used"
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror
    return Problem(503, f"the server cannot store anything now: {reason}").response()


class _Guard:
    """What holds for every request, before any endpoint sees it."""

    def __init__(self, app: Any, options: Options) -> None:
        self._app = app
        self._key = options.key
        self._say = options.say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # SDKs differ in whether the base URL ends in /v1, so that a path may have the version twice or not at all.
        path = _VERSION.sub("", scope["path"]) or "/"
        scope = {**scope, "path": path, "raw_path": path.encode()}
        began = False

        async def watched(message: Any) -> None:
            nonlocal began
            began = began or message["type"] == "http.response.start"
            await send(message)

        refused = self._refusal(scope)
        if refused is not None:
            await refused.response()(scope, receive, send)
            return
        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            self._say(f"a bug of evalops: {place(error)}")
            if not began:
                await Problem(500, "the server made a mistake; its log says where").response()(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        if _size(scope) > LARGEST_HEAD:
            return Problem(431, f"the headers have more than {LARGEST_HEAD:,} bytes", headers={"Connection": "close"})
        if b"transfer-encoding" in headers and b"content-length" in headers:
            # Two ends that each believe another of the two would take a part of one body for a request.
            message = "a body has either a Content-Length or a Transfer-Encoding"
            return Problem(400, message, headers={"Connection": "close"})
        host = headers.get(b"host", b"").decode("latin-1")
        if not _HOST.fullmatch(host):
            return Problem(400, "the Host header names no host")
        if self._key is None:
            # Without a key, whatever this machine's browser opens could reach the server under another name.
            if not is_loopback(_name(host)):
                return Problem(403, "without a key this server answers to the name of this machine only", code="host")
            origin = headers.get(b"origin", b"").decode("latin-1")
            if origin and origin not in (f"http://{host}", f"https://{host}"):
                return Problem(403, "without a key this server answers no pages of other sites", code="origin")
            return None
        if scope["path"].startswith(UPLOADS):
            return None
        # Patronus' clients have a header of their own for it.
        bare = headers.get(b"x-api-key", b"")
        return self._key_refusal(headers.get(b"authorization") or (bare and b"Bearer " + bare))

    def _key_refusal(self, header: bytes) -> Problem | None:
        assert self._key is not None
        scheme, _, given = header.partition(b" ")
        if not given:
            message = "this server needs a key: Authorization: Bearer KEY"
        elif scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._key.reveal().encode()):
            message = "the key is not that of this server"
        else:
            return None
        return Problem(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _size(scope: Scope) -> int:
    """The bytes of a request before its body."""
    fields = sum(len(name) + len(value) for name, value in scope["headers"])
    return fields + len(scope["raw_path"]) + len(scope["query_string"])


def _name(host: str) -> str:
    """The host of a Host header without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
