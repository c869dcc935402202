"""The HTTP server around the application: its socket, its signals, and answers to what is no HTTP at all."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from evalops.server.problem import Problem

LARGEST_HEAD = 64 << 10  # bytes of a request line with its headers
PATIENCE = 30.0  # seconds in which a connection must ask for something
KEEP_ALIVE = 30
GRACE = 5  # seconds for answers under way when the server is told to stop


class _Protocol(H11Protocol):
    """Says what is wrong in the service's envelope, and does not wait for ever for a request."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._last = self.cycle
        self._look = self.loop.call_later(PATIENCE, self._look_again)

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        problem = Problem(400, "this is no HTTP request that can be read, or its headers are too long")
        body = json.dumps(problem.to_json()).encode()
        head = (
            b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\nconnection: close\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        if not self.transport.is_closing():
            self.transport.write(head + body)
            self.transport.close()

    def _look_again(self) -> None:
        """Close a connection that has completed no request since the last look, and waits for one."""
        if self.conn.their_state is h11.IDLE and self.cycle is self._last:
            self.transport.close()
            return
        self._last = self.cycle
        self._look = self.loop.call_later(PATIENCE, self._look_again)


class _Server(uvicorn.Server):
    """Ends on SIGINT and SIGTERM as on a wish, and leaves the signals to whoever had them before."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], leave: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._leave = leave

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._leave()
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        def handle(number: int, frame: FrameType | None) -> None:
            self.handle_exit(number, frame)

        names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {name: signal.getsignal(name) for name in names}
        before = {name: handler for name, handler in before.items() if handler is not signal.SIG_IGN}
        for name in before:
            signal.signal(name, handle)
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(1024)
    except BaseException:
        listening.close()
        raise
    return listening


def run(
    app: Any, listening: socket.socket, ready: Callable[[], None], leave: Callable[[], None] = lambda: None
) -> None:
    """Serve until a signal ends it; `ready` is called once requests are answered and signals heeded.

    `leave` is called when it is told to end, before answers under way are waited for.

    Raises RuntimeError where it cannot begin.
    """
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",  # it warns of every broken request, which would let strangers fill the log
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=GRACE,
        h11_max_incomplete_event_size=LARGEST_HEAD,
    )
    server = _Server(config, ready, leave)
    server.run(sockets=[listening])
    if not server.started:
        raise RuntimeError("the server did not start")
