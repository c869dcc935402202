"""A real HTTP server on loopback that answers like an OpenAI-compatible endpoint, with faults by plan.

    with serve(Config(faults={"500": 0.05})) as server: ...     a thread of this process; `server.url`
    with spawn(Config(latency_ms=50)) as server: ...            a process of its own, for kills and figures
    python tests/model_server.py --port 8080 --config '{"latency_ms": 50}'

Every request is counted: `server.stats()`, or GET /stats. What is answered is decided in `model_answers.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from model_answers import FAULTS, Answer, Asked, Config, Seen, answer, error, fault_of, likelihood, verdict

__all__ = ["Config", "Ledger", "Process", "Seen", "Server", "serve", "spawn"]


class Ledger:
    """What has been asked, by prompt (16 digits of its sha256) and by answer, and how much of it at once."""

    def __init__(self, keep: int) -> None:
        self.requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self.connections = 0
        self.prompts: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()  # "ok", a fault's name or a status
        self.seen: deque[Seen] = deque(maxlen=keep)

    def stats(self, *, prompts: bool = False) -> dict[str, Any]:
        """The figures, in the form of GET /stats (with the count of every prompt: GET /stats?prompts=1)."""
        counts = dict(self.prompts)
        return {
            "requests": self.requests,
            "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight,
            "connections": self.connections,
            "distinct": len(counts),
            "repeats": sum(counts.values()) - len(counts),
            "answers": dict(self.answers),
            **({"prompts": counts} if prompts else {}),
        }


class _Endpoint:
    """The answers, and the ledger of them."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.ledger = Ledger(config.keep)
        self.open: set[asyncio.Transport] = set()

    def respond(self, path: str, head: str, body: bytes) -> Answer:
        """The answer to one request."""
        if path.startswith("/stats"):
            return Answer(200, json.dumps(self.ledger.stats(prompts="prompts=1" in path)).encode())
        self.ledger.requests += 1
        seen = Seen(path, head, body)
        self.ledger.seen.append(seen)
        name, found = self._find(seen)
        self.ledger.answers[name] += 1
        return found

    def _find(self, seen: Seen) -> tuple[str, Answer]:
        config = self.config
        if config.key is not None and seen.header("Authorization") != f"Bearer {config.key}":
            return "401", error(401, "Incorrect API key provided")
        if seen.path.endswith("/models"):
            models = [{"id": model, "object": "model"} for model in config.models]
            return "models", Answer(200, json.dumps({"object": "list", "data": models}).encode())
        if not seen.path.endswith(("/v1/chat/completions", "/v1/completions")):
            return "404", Answer(404, b'{"detail": "Not Found"}')
        try:
            asked = self._read(seen)
        except (ValueError, KeyError, TypeError, AttributeError):
            return "400", error(400, "The request cannot be read")
        attempt = self.ledger.prompts[asked.digest.hex()[:16]]
        self.ledger.prompts[asked.digest.hex()[:16]] += 1
        refused = self._refused(asked)
        if refused:
            return str(refused.status), refused
        fault = fault_of(config, asked, attempt)
        if fault == "ok":
            is_likelihood = not seen.path.endswith("/chat/completions") and asked.body.get("logprobs")
            return "ok", likelihood(asked) if is_likelihood else answer(asked, verdict(asked))
        if fault in FAULTS:
            return fault, FAULTS[fault](asked)
        return fault, error(int(fault), f"The server says {fault}", config=config)

    def _read(self, seen: Seen) -> Asked:
        body = json.loads(seen.body)
        if "messages" in body:
            prompt = "\n\n".join(message["content"] for message in body["messages"])
        else:
            prompt = body["prompt"]
        return Asked(self.config, seen, body, prompt, hashlib.sha256(prompt.encode(errors="replace")).digest())

    def _refused(self, asked: Asked) -> Answer | None:
        config, model = self.config, asked.body.get("model")
        if config.models and model not in config.models:
            return error(404, f"The model `{model}` does not exist", code="model_not_found")
        wanted = (asked.body.get("response_format") or {}).get("type")
        if wanted in config.refuse:
            return error(400, f"response_format {wanted} is not supported")
        if config.context is not None and len(asked.prompt) > config.context:
            return error(400, "The prompt is too long", code="context_length_exceeded")
        if config.capacity is not None and self.ledger.in_flight > config.capacity:
            return error(429, "Too many requests at a time", config=config)
        return None


class _Connection(asyncio.Protocol):
    """HTTP/1.1 with Content-Length and keep-alive: as much of it as clients of such endpoints use."""

    def __init__(self, endpoint: _Endpoint) -> None:
        self.endpoint = endpoint
        self.received = b""
        self.is_busy = False
        self.waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.endpoint.ledger.connections += 1
        self.endpoint.open.add(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.endpoint.open.discard(self.transport)
        if self.waiting:
            self.waiting.cancel()
        if self.is_busy:
            self.endpoint.ledger.in_flight -= 1
            self.is_busy = False

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.is_busy:
            self._next()

    def _next(self) -> None:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            if self.received and not self.received[:1].isalpha():  # a TLS hello, as every server answers it
                self.transport.write(b"HTTP/1.1 400 Answer\r\nContent-Length: 0\r\n\r\n")
                self.transport.close()
            return
        head = self.received[:end].decode("latin-1")
        length = re.search(r"\ncontent-length: *(\d+)", head, re.I)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(self.received) < whole:
            return
        body, self.received = self.received[end + 4 : whole], self.received[whole:]
        line, _, fields = head.partition("\r\n")
        ledger = self.endpoint.ledger
        self.is_busy = True
        ledger.in_flight += 1
        ledger.max_in_flight = max(ledger.max_in_flight, ledger.in_flight)
        found = self.endpoint.respond(line.split(" ")[1], fields, body)
        if self.endpoint.config.latency_ms:
            seconds = self.endpoint.config.latency_ms / 1000
            self.waiting = asyncio.get_running_loop().call_later(seconds, self._send, found)
        else:
            self._send(found)

    def _send(self, found: Answer) -> None:
        self.waiting = None
        if found.hang:
            return
        if found.status is None:
            self.transport.abort()
            return
        lines = [
            f"HTTP/1.1 {found.status} Answer",
            f"Content-Type: {found.kind}",
            f"Content-Length: {len(found.body)}",
        ]
        lines += [f"{name}: {value}" for name, value in found.headers]
        body = found.body[: len(found.body) // 2] if found.cut else found.body
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        self.endpoint.ledger.in_flight -= 1
        self.is_busy = False
        if found.cut:
            self.transport.close()
        elif self.received:
            self._next()


async def _listen(endpoint: _Endpoint, port: int, tls: ssl.SSLContext | None) -> tuple[asyncio.Server, str]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(endpoint), "127.0.0.1", port, ssl=tls, backlog=1024)
    scheme = "https" if tls else "http"
    return server, f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


class Server:
    """A server in a thread of this process: `url` is the base URL; `ledger` may be read at any time."""

    def __init__(self, config: Config, tls: ssl.SSLContext | None = None) -> None:
        self._endpoint = _Endpoint(config)
        self._tls = tls
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._ready.wait()

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server, self.url = await _listen(self._endpoint, 0, self._tls)
        self._ready.set()
        await self._stop.wait()
        server.close()
        for transport in list(self._endpoint.open):
            transport.abort()
        await asyncio.sleep(0)  # for the transports to notice

    @property
    def ledger(self) -> Ledger:
        return self._endpoint.ledger

    @property
    def seen(self) -> list[Seen]:
        return list(self.ledger.seen)

    @property
    def config(self) -> Config:
        return self._endpoint.config

    @config.setter
    def config(self, config: Config) -> None:
        """Behave otherwise from now on; the ledger goes on."""
        self._endpoint.config = config

    def stats(self, *, prompts: bool = False) -> dict[str, Any]:
        """The ledger's figures."""
        return self.ledger.stats(prompts=prompts)

    def close(self) -> None:
        """Stop listening and end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()


class Process:
    """A server in a process of its own, which ends when this one does."""

    def __init__(self, config: Config, port: int = 0) -> None:
        command = [
            sys.executable,
            str(Path(__file__)),
            "--port",
            str(port),
            "--config",
            json.dumps(asdict(config)),
        ]
        self._process = subprocess.Popen([*command, "--until-eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.url: str = json.loads(self._process.stdout.readline())["url"]
        self.pid = self._process.pid

    def stats(self, *, prompts: bool = False) -> dict[str, Any]:
        """The ledger's figures, asked for over HTTP."""
        address = self.url.removesuffix("/v1") + ("/stats?prompts=1" if prompts else "/stats")
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(address, timeout=30) as response:
            found: dict[str, Any] = json.load(response)
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def serve(config: Config | None = None, *, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """A server in a thread."""
    server = Server(config or Config(), tls)
    try:
        yield server
    finally:
        server.close()


@contextlib.contextmanager
def spawn(config: Config | None = None, *, port: int = 0) -> Iterator[Process]:
    """A server in a process of its own."""
    server = Process(config or Config(), port)
    try:
        yield server
    finally:
        server.close()


async def _main(config: Config, port: int, *, until_eof: bool) -> None:
    _, url = await _listen(_Endpoint(config), port, None)
    print(json.dumps({"url": url}), flush=True)
    if until_eof:
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        await reader.read()
    else:
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A mock of an OpenAI-compatible endpoint, on loopback")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--config", type=lambda text: Config(**json.loads(text)), default=Config())
    parser.add_argument("--until-eof", action="store_true", help="end when stdin closes")
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(options.config, options.port, until_eof=options.until_eof))
