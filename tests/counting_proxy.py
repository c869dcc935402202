"""A proxy in front of a service: it counts what passes, and changes answers where a test asks for that.

Without a service behind it, what `change` says is all there is.

    with CountingProxy(service.url) as proxy:
        proxy.url, proxy.seen, proxy.posts
        proxy.change = lambda asked, answer: answer._replace(body=b"<html>")
"""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

_KEPT = ("content-type", "location", "x-together-file-id", "date", "retry-after")


class Asked(NamedTuple):
    """One request."""

    method: str
    path: str  # without the query
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Answer(NamedTuple):
    """What goes back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def saying(self, value: Any, status: int | None = None) -> Answer:
        """The same with other JSON."""
        return self._replace(body=json.dumps(value).encode(), status=status or self.status)


Change = Callable[[Asked, Answer], Answer]


class CountingProxy:
    """A context, in which it listens. `seen` are the requests in their order."""

    def __init__(self, service: str | None = None) -> None:
        self.service = service and urlsplit(service).netloc
        self.seen: list[Asked] = []
        self.change: Change | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Connection)
        self._server.block_on_close = False  # connections that a client keeps open
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def posts(self) -> list[str]:
        """The paths of what was not a read."""
        return [each.path for each in self.seen if each.method != "GET"]

    @property
    def creates(self) -> int:
        return self.posts.count("/v1/evaluation")

    def answer(self, asked: Asked, target: str) -> Answer:
        """What the service says, changed."""
        answer = self._ask(asked, target) if self.service else Answer(404, {}, b"{}")
        return self.change(asked, answer) if self.change else answer

    def _ask(self, asked: Asked, target: str) -> Answer:
        connection = http.client.HTTPConnection(str(self.service), timeout=30)
        with contextlib.closing(connection):
            connection.request(asked.method, target, asked.body, asked.headers)
            response = connection.getresponse()
            headers = {name: value for name, value in response.getheaders() if name.lower() in _KEPT}
            return Answer(response.status, headers, response.read())


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        if headers.pop("transfer-encoding", None):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(headers.get("content-length", 0)))
        headers["content-length"] = str(len(body))
        asked = Asked(self.command, self.path.partition("?")[0], headers, body)
        proxy: CountingProxy = self.server.proxy  # type: ignore[attr-defined]
        proxy.seen.append(asked)
        answer = proxy.answer(asked, self.path)
        self.send_response_only(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = _pass  # noqa: N815  # the names that the class looks for

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def log_message(self, *args: Any) -> None:
        """Nothing is to be said."""
