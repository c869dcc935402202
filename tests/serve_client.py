"""A client of `evalops serve` that uses no SDK: what goes over the wire is what a test says."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Self

import httpx
from serve_process import SERVERLESS, Served

OPEN = ("pending", "queued", "running")
PATIENCE = 60.0  # seconds for a job, on a machine that is busy
WORKERS = 16
ENVELOPE = {"message", "type", "param", "code"}


def replies(count: int, *, of: str = "reply") -> list[dict[str, Any]]:
    """Rows with the verdict that the model server is to give; no two are alike."""
    labels = ("polite", "rude")
    return [{"response": f"This is {of} {number}, truth={labels[number % 3 == 0]}"} for number in range(count)]


def asked(file: str, **changes: Any) -> dict[str, Any]:
    """The body of a create for rows of `replies`; `changes` go over the parameters."""
    judge = {
        "model": SERVERLESS,
        "model_source": "serverless",
        "system_template": "Is this polite?",
        "num_workers": WORKERS,
    }
    parameters = {
        "input_data_file_path": file,
        "judge": judge,
        "model_to_evaluate": "response",
        "labels": ["polite", "rude"],
        "pass_labels": ["polite"],
    }
    return {"type": "classify", "parameters": {**parameters, **changes}}


class Client:
    """A connection pool; a context manager."""

    def __init__(self, server: Served, key: str = "any") -> None:
        # The proxies of this machine are none of the tests' business.
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=server.url, trust_env=False, timeout=PATIENCE, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def upload(self, rows: Sequence[Mapping[str, Any]] | bytes, name: str = "rows.jsonl") -> str:
        """A file's id."""
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        form = {"purpose": "eval", "file_name": name}
        return str(good(self.http.post("/v1/files/upload", data=form, files={"file": (name, content)}))["id"])

    def create(self, file: str, **changes: Any) -> str:
        """A job's id."""
        return str(good(self.http.post("/v1/evaluation", json=asked(file, **changes)))["workflow_id"])

    def job(self, job: str) -> Any:
        return good(self.http.get(f"/v1/evaluation/{job}"))

    def finished(self, job: str) -> Any:
        """The job, once it is over."""
        wait(lambda: self.job(job)["status"] not in OPEN, every=0.04)
        return self.job(job)

    def completed(self, job: str) -> list[dict[str, Any]]:
        """The result rows of a job that must succeed."""
        found = self.finished(job)
        assert found["status"] == "completed", found
        content = self.http.get(f"/v1/files/{found['results']['result_file_id']}/content")
        assert content.status_code == 200
        return [json.loads(line) for line in content.text.splitlines()]

    def outcome(self, job: str) -> Any:
        """Results and rows, without the ids that differ from run to run."""
        rows = self.completed(job)
        results = self.job(job)["results"]
        return {name: value for name, value in results.items() if name != "result_file_id"}, rows


def wait(condition: Callable[[], object], *, every: float = 0.002) -> None:
    """Waits until something is so; what never is fails the test."""
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "this does not come to be"
        time.sleep(every)


def good(response: httpx.Response) -> Any:
    assert response.status_code == 200, response.text
    return response.json()


class Answer(NamedTuple):
    """An answer as it came over a socket."""

    status: int
    headers: bytes
    body: bytes

    def problem(self) -> dict[str, Any]:
        """What is wrong, by the envelope that every refusal has to come in."""
        assert 400 <= self.status < 500, self
        return problem(json.loads(self.body))


def problem(body: Any) -> dict[str, Any]:
    """The error in the service's envelope."""
    assert set(body["error"]) == ENVELOPE, body
    assert isinstance(body["error"]["message"], str)
    assert 0 < len(body["error"]["message"]) < 1000, "it repeats what it was sent"
    found: dict[str, Any] = body["error"]
    return found


def connect(server: Served) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def exchange(server: Served, data: bytes) -> Answer:
    """Sends bytes as they are, and reads one answer."""
    with connect(server) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has seen enough, and may have said so
            connection.sendall(data)
        return read(connection)


def read(connection: socket.socket) -> Answer:
    """The next answer on a connection, by its Content-Length."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        assert piece, f"the connection ended without an answer: {received!r}"
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    fields = dict(field.lower().split(b": ", 1) for field in headers.split(b"\r\n"))
    while len(body) < int(fields[b"content-length"]):
        piece = connection.recv(65536)
        assert piece, "the answer is cut short"
        body += piece
    return Answer(int(line.split(b" ")[1]), headers, body[: int(fields[b"content-length"])])
