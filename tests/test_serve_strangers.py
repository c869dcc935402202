"""`evalops serve` and whoever finds its port: garbage, tricks, slow clients, keys. Nothing makes it fail or write."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Cli
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from model_server import serve
from serve_client import Client, asked, connect, exchange, problem, read, replies, wait
from serve_process import Served, served

from evalops.errors import Exit

HOST = b"Host: 127.0.0.1\r\n"
JSON = b"Content-Type: application/json\r\n"
ROUTES = {
    "/v1/evaluation": "GET HEAD POST",
    "/v1/evaluation/model-list": "GET HEAD",
    "/v1/evaluation/eval-0000-1": "GET HEAD",
    "/v1/evaluation/eval-0000-1/status": "GET HEAD",
    "/v3/whoami": "GET HEAD",
    "/v1/v3/whoami": "GET HEAD",
    "/v1/files": "GET HEAD POST",
    "/v1/files/upload": "GET HEAD POST DELETE",  # as an id, it is one that nothing has
    "/v1/files/file-0": "GET HEAD DELETE",
    "/v1/files/file-0/preprocess": "POST",
    "/v1/files/file-0/content": "GET HEAD",
    "/v1/files/multipart/initiate": "POST",
    "/v1/uploads/file-0/token": "PUT",
    "/v1": "",
    "/": "",
}
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get", "GETT"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that has survived, in the end, with its folder the only one that anything was written to."""
    folder = tmp_path_factory.mktemp("around") / "a" / "b" / "served"
    folder.mkdir(parents=True)
    with serve() as models, served(folder, model_url=models.url) as running:
        before = surroundings(folder)
        yield running
        assert running.process.poll() is None
        assert running.stop() == 0
        assert surroundings(folder) == before
        for word in ("Traceback", "a bug of evalops", "never retrieved"):
            assert word not in running.said()


@pytest.fixture
def client(server: Served) -> Iterator[Client]:
    with Client(server) as running:
        yield running


def surroundings(folder: Path) -> dict[str, bytes | None]:
    """All around the server's folder, with its project and where both are; what it says apart."""
    found = {}
    for path in sorted(folder.parents[2].rglob("*")):
        if not path.is_relative_to(folder / "store") and path.name != "serve.err":
            found[str(path)] = path.read_bytes() if path.is_file() else None
    return found


def refused(server: Served, line: str | bytes, *fields: bytes, body: bytes = b"") -> dict[str, Any]:
    """What a request is refused with."""
    return exchange(server, request(line, *fields, body=body)).problem()


def request(line: str | bytes, *fields: bytes, body: bytes = b"") -> bytes:
    head = line.encode() if isinstance(line, str) else line
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return head + b" HTTP/1.1\r\n" + HOST + b"".join(fields) + length + b"\r\n" + body


# --- what is no request, or none that is wanted ---


@pytest.mark.parametrize("path", ROUTES)
def test_methods_that_a_path_does_not_take(server: Served, path: str) -> None:
    for method in METHODS:
        if method not in ROUTES[path].split() and method != "HEAD":  # whose answers have no body
            answer = exchange(server, request(f"{method} {path}"))
            assert answer.status in (404, 405)
            answer.problem()


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        bytes(range(256)) * 300,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500,  # a TLS hello
        b"\r\n\r\n\r\n\r\n",
        b"GET /v1/files\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n\r\n",  # no host
        b"GET /v1/files HTTP/1.0\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\nHost: 127.0.0.1, localhost\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\nHost: \r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HOST + b"X: \x00\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HOST + b"X Y: z\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HOST + b"no colon\r\n\r\n",
        b"GET /v1/\xff\xfe HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /v1/\x00 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"G@T /v1/files HTTP/1.1\r\n" + HOST + b"\r\n",
        b"A" * 70_000 + b" /v1/files HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /v1/files HTTP/1.1\r\n" + HOST + b"".join(b"X%d: aaaaa\r\n" % n for n in range(9_000)) + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
        b"CONNECT example.com:80 HTTP/1.1\r\n" + HOST + b"\r\n",
        b"GET http://example.com/v1/files HTTP/1.1\r\n" + HOST + b"\r\n",
    ],
)
def test_bytes_that_are_no_request(server: Served, data: bytes) -> None:
    exchange(server, data).problem()


@pytest.mark.parametrize("path", ["/v1/evaluation", "/v1/files", "/v1/files/upload"])
@pytest.mark.parametrize(
    "framing",
    [
        b"Content-Length: abc\r\n\r\n{}",
        b"Content-Length: -1\r\n\r\n{}",
        b"Content-Length: 1e3\r\n\r\n{}",
        b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}}",
        b"Content-Length: 2, 3\r\n\r\n{}}",
        b"Content-Length: " + b"9" * 18 + b"\r\n\r\n{}",
        b"Content-Length: " + b"9" * 5_000 + b"\r\n\r\n{}",
        b"Transfer-Encoding: gzip\r\n\r\n{}",
        b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}no end\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 30 + b"\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_bodies_of_no_length_or_too_much(server: Served, path: str, framing: bytes) -> None:
    exchange(server, b"POST " + path.encode() + b" HTTP/1.1\r\n" + HOST + framing).problem()


def test_no_request_hides_in_the_body_of_another(server: Served) -> None:
    inner = b"GET /v1/files HTTP/1.1\r\n" + HOST + b"\r\n"
    both = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" % (5 + len(inner))
    with connect(server) as connection:
        connection.sendall(b"POST /v1/evaluation HTTP/1.1\r\n" + HOST + both + inner)
        assert read(connection).problem()["message"] == "a body has either a Content-Length or a Transfer-Encoding"
        assert connection.recv(1) == b""  # what follows is not answered


def test_a_good_request_and_then_garbage(server: Served) -> None:
    with connect(server) as connection:
        connection.sendall(request("GET /v1/evaluation") + b"\x00\r\n\r\n")
        assert read(connection).status == 200


# --- ids, paths, values ---

TRICKS = [
    "..",
    "../../etc/passwd",
    "%2e%2e",
    "%2e%2e%2f%2e%2e%2fserve.lock",
    "..%2f..%2fstore.sqlite",
    "%2Fetc%2Fpasswd",
    "//etc/passwd",
    "/",
    "%00",
    "file-0%00.json",
    "%ff%fe",
    "%0d%0aX:1",
    "..%5c..",
    ".incoming",
    "con",
    "%F0%9F%92%A3",
    "%ED%A0%80",
    "%",
    "%zz",
    ";",
    "~root",
    "$HOME",
    "*",
    "a" * 60_000,
    "a" * 100_000,
    "%C3%BC" * 10_000,
]


@pytest.mark.parametrize("text", TRICKS, ids=range(len(TRICKS)))
def test_ids_that_would_be_paths(server: Served, text: str) -> None:
    for line in (
        f"GET /v1/evaluation/{text}",
        f"GET /v1/evaluation/{text}/status",
        f"GET /v1/files/{text}",
        f"GET /v1/files/{text}/content",
        f"DELETE /v1/files/{text}",
        f"POST /v1/files/{text}/preprocess",
        f"PUT /v1/uploads/{text}/token",
        f"PUT /v1/uploads/file-0/{text}",
        f"GET /{text}",
    ):
        if line not in ("GET /v1/files//", "GET /v1/evaluation//", "GET /v1/files/", "GET /v1/evaluation/"):
            refused(server, line)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=101", "limit"),
        ("limit=1e1", "limit"),
        ("limit=NaN", "limit"),
        ("limit=", "limit"),
        ("limit=%D9%A1", "limit"),  # a digit, in another script
        ("limit=" + "9" * 5_000, "limit"),
        ("limit=" + "9" * 50_000, "limit"),
        ("status=failed", "status"),
        ("status=%00", "status"),
        ("status=%ff", "status"),
        ("status=" + "a" * 50_000, "status"),
        ("status=completed'%20OR%201=1--", "status"),
    ],
)
def test_queries(server: Served, query: str, param: str) -> None:
    assert refused(server, f"GET /v1/evaluation?{query}")["param"] == param


def test_a_query_of_100_000_characters(server: Served) -> None:
    refused(server, "GET /v1/evaluation?status=" + "a" * 100_000)
    refused(server, "GET /v1/evaluation/model-list?model_source=" + "a" * 60_000)
    assert exchange(server, request("GET /v1/evaluation?unknown=" + "a&" * 20_000)).status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b"\xef\xbb\xbf{}",
        b"{}\x00",
        b"null",
        b"[]",
        b"1",
        b'"text"',
        b"NaN",
        b'{"type": NaN}',
        b'{"type": "classify", "parameters": {"labels": Infinity}}',
        b'{"type": "score", "parameters": {"min_score": 1e999}}',
        b'{"type": ' + b"9" * 5_000 + b"}",
        b'{"type": "\\ud800"}',
        b'{"\\udfff": 1}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"type": "classify", "parameters": {"judge": ' + b"[" * 500 + b"]" * 500 + b"}}",
        b"type=classify&parameters=1",
        b" " * 100_000,
        b"a" * (9 << 20),
    ],
    ids=range(22),
)
def test_bodies(server: Served, body: bytes) -> None:
    refused(server, "POST /v1/evaluation", JSON, body=body)


HUGE = [10**30, -(10**30), 10**400, 1e308, -1e308, 2**63, 0.1 + 2**53, "1" * 100_000, [], {}, True]


@pytest.mark.parametrize("value", HUGE, ids=range(len(HUGE)))
def test_values_that_no_field_takes(client: Client, value: Any) -> None:
    judge = asked("f")["parameters"]["judge"]
    changes: list[dict[str, Any]] = [
        {"input_data_file_path": value},
        {"labels": value},
        {"labels": [value, value]},
        {"pass_labels": [value]},
        {"model_to_evaluate": value if value != "1" * 100_000 else [value]},
        *({"judge": judge | {name: value}} for name in ("model", "model_source", "max_tokens", "temperature")),
        {"judge": value},
    ]
    for change in changes:
        answer = client.http.post("/v1/evaluation", content=json.dumps(asked("file-0", **change)))
        assert 400 <= answer.status_code < 500, answer.text[:200]
        problem(answer.json())


# Values that a stranger may send, and fields of a good request for them to stand in.
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=8), each, max_size=4), max_leaves=12)  # fmt: skip
NAMES = [
    "input_data_file_path",
    "judge",
    "model_to_evaluate",
    "labels",
    "pass_labels",
    "min_score",
    "max_score",
    "pass_threshold",
    "model_a",
    "model_b",
]
FIELDS = [
    "model",
    "model_source",
    "system_template",
    "input_template",
    "external_base_url",
    "external_api_token",
    "max_tokens",
    "temperature",
    "num_workers",
]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=VALUES)
def test_any_json_is_answered(client: Client, body: Any) -> None:
    answer = client.http.post("/v1/evaluation", content=json.dumps(body))
    assert 400 <= answer.status_code < 500, answer.text
    problem(answer.json())


@pytest.mark.slow
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["classify", "score", "compare"]),
    changes=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=3),
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=2),
)
def test_a_request_with_a_few_fields_changed_is_answered(
    client: Client, dataset: str, kind: str, changes: dict[str, Any], fields: dict[str, Any]
) -> None:
    good = asked(dataset, min_score=1, max_score=5, pass_threshold=3, model_a="response", model_b="response")
    parameters = good["parameters"]
    body = {"type": kind, "parameters": parameters | {"judge": parameters["judge"] | fields} | changes}
    answer = client.http.post("/v1/evaluation", content=json.dumps(body))
    assert answer.status_code < 500, answer.text
    if answer.status_code == 200:
        assert client.http.get(f"/v1/evaluation/{answer.json()['workflow_id']}").status_code == 200
    else:
        problem(answer.json())


@pytest.fixture(scope="module")
def dataset(server: Served) -> str:
    with Client(server) as client:
        return client.upload(replies(1))


# --- files ---


@pytest.mark.parametrize(
    "name",
    ["../../../../out.jsonl", "/tmp/out.jsonl", "C:\\out.jsonl", "..\\out.jsonl", ".jsonl", "con.jsonl", "a b;c\"d'é.jsonl"],
)  # fmt: skip
def test_names_of_files_are_no_paths(client: Client, name: str) -> None:
    form = {"purpose": "eval", "file_name": name}
    answer = client.http.post("/v1/files/upload", data=form, files={"file": ("x", b'{"name": %d}\n' % hash(name))})
    if answer.status_code == 200:
        assert "/" not in answer.json()["filename"]
        assert "\\" not in answer.json()["filename"]
        content = client.http.get(f"/v1/files/{answer.json()['id']}/content")
        assert content.status_code == 200
        assert "/" not in content.headers["content-disposition"].partition("filename*")[0]
    else:
        problem(answer.json())


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a" * 256, "a\nb.jsonl", "a\x00.jsonl", "a\u2028.jsonl", "a.exe"])
def test_names_that_no_file_has(client: Client, name: str) -> None:
    fields = {"purpose": "eval", "file_name": name or ".", "file_type": "" if name == "a.exe" else "jsonl"}
    answer = client.http.post("/v1/files", files={key: (None, value) for key, value in fields.items()})
    assert 400 <= answer.status_code < 500
    problem(answer.json())


def test_forms_that_are_none(server: Served) -> None:
    kind = b"Content-Type: multipart/form-data; boundary=x\r\n"
    part = b'--x\r\nContent-Disposition: form-data; name="file_name"\r\n\r\n'
    for path in ("/v1/files", "/v1/files/upload"):
        for fields, body in [
            (b"", b"abc"),
            (b"Content-Type: application/json\r\n", b"{}"),
            (b"Content-Type: multipart/form-data\r\n", b"--x--"),
            (b"Content-Type: multipart/form-data; boundary=" + b"x" * 10_000 + b"\r\n", b"--x--"),
            (b"Content-Type: \xff\xfe\r\n", b"--x--"),
            (kind, b"abc"),
            (kind, b"--x--\r\n"),
            (kind, part),
            (kind, part + b"\xff\xfe\r\n--x--\r\n"),
            (kind, part.replace(b"file_name", b"\xff") + b"a\r\n--x--\r\n"),
            (kind, part + b"a" * 70_000 + b"\r\n--x--\r\n"),
            (kind, (part + b"a\r\n") * 2_000 + b"--x--\r\n"),
            (kind, b"--x\r\n" + b"X: y\r\n" * 20_000),
            (kind, b"--x\r\nno headers\r\n\r\n--x--\r\n"),
        ]:
            refused(server, f"POST {path}", fields, body=body)


def test_nobody_writes_to_the_upload_of_another(client: Client) -> None:
    fields = {"purpose": "eval", "file_name": "rows.jsonl", "file_type": "jsonl"}
    announced = client.http.post("/v1/files", files={key: (None, value) for key, value in fields.items()})
    place, file = announced.headers["location"], announced.headers["x-together-file-id"]
    for address in (place[:-1], place + "x", place.rpartition("/")[0] + "/x", place.replace(file, "file-0")):
        answer = client.http.put(address, content=b"mine")
        assert answer.status_code == 404
        problem(answer.json())
    assert client.http.put(place, content=b'{"mine": 1}\n').status_code == 200
    again = client.http.put(place, content=b"mine again")
    assert again.status_code == 404
    assert client.http.get(f"/v1/files/{file}/content").content == b'{"mine": 1}\n'


@pytest.mark.parametrize(
    "value",
    ["bytes=9-1", "bytes=-", "bytes=a-b", "bytes=0-1,3-4", "bytes=" + "9" * 5_000 + "-", "items=0-1", "bytes=--1", "bytes=0x0-"],
)  # fmt: skip
def test_ranges_that_are_none(client: Client, dataset: str, value: str) -> None:
    answer = client.http.get(f"/v1/files/{dataset}/content", headers={"Range": value})
    assert answer.status_code == 200  # such a header is ignored (RFC 9110, 14.2)
    assert answer.content.startswith(b'{"response"')


def test_a_range_beyond_the_end(client: Client, dataset: str) -> None:
    for value in ("bytes=100000-", "bytes=-0", "bytes=999999999999999999-"):
        answer = client.http.get(f"/v1/files/{dataset}/content", headers={"Range": value})
        assert answer.status_code == 416
        problem(answer.json())


# --- names and origins ---


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("0.0.0.0", 403),
        ("::1", 403),
        ("[::ffff:127.0.0.1]", 403),
        ("2130706433", 403),
        ("127.1", 403),
        ("127.0.0.1@evil.example", 400),
        ("127.0.0.1 ", 200),
        ("127.0.0.1/..", 400),
        ("a" * 300, 400),
        ("löcalhost", 400),
    ],
)
def test_without_a_key_only_names_of_this_machine(server: Served, host: str, status: int) -> None:
    answer = exchange(server, b"GET /v1/files HTTP/1.1\r\nHost: " + host.encode() + b"\r\n\r\n")
    assert answer.status == status
    if status != 200:
        answer.problem()


def test_without_a_key_no_pages_of_other_sites(client: Client, server: Served) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1", "file://", server.url + ".evil.example", "x"):
        for method, path in (("GET", "/v1/evaluation"), ("POST", "/v1/evaluation"), ("OPTIONS", "/v1/files")):
            answer = client.http.request(method, path, headers={"Origin": origin})
            assert answer.status_code == 403
            assert problem(answer.json())["code"] == "origin"
            assert "access-control-allow-origin" not in answer.headers
    assert client.http.get("/v1/evaluation", headers={"Origin": server.url}).status_code == 200


def test_keys(tmp_path: Path) -> None:
    with served(tmp_path, model_url="http://127.0.0.1:9/v1", key="sk-right") as server:
        for field in (
            b"",
            b"Authorization: \r\n",
            b"Authorization: Bearer\r\n",
            b"Authorization: Bearer sk-wrong\r\n",
            b"Authorization: Bearer sk-righ\r\n",
            b"Authorization: Bearer sk-right2\r\n",
            b"Authorization: Basic sk-right\r\n",
            b"Authorization: sk-right\r\n",
            b"Authorization: Bearer \xff\xfe\r\n",
            b"Authorization: Bearer " + b"a" * 60_000 + b"\r\n",
            b"X-API-Key: sk-wrong\r\n",
        ):
            for line in ("GET /v1/evaluation", "GET /nowhere", "POST /v1/files", "GET /v1/../v1/files"):
                answer = exchange(server, request(line, field))
                assert answer.status == 401
                assert "sk-right" not in str(answer.problem())
        assert exchange(server, request("GET /v1/files", b"Authorization: Bearer sk-right\r\n")).status == 200
        assert exchange(server, request("GET /v1/files", b"authorization: bearer  sk-right\r\n")).status == 200
        for path in ("/uploads/file-0/token", "/v1/uploads/file-0/token"):
            assert refused(server, f"PUT {path}", body=b"a")["type"] == "not_found_error"  # its token is the right
        for path in ("/uploads/../files", "/v1/uploads/%2e%2e/files"):
            assert exchange(server, request(f"GET {path}")).status in (401, 404, 405)
        evil = b"GET /v1/files HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer sk-right\r\n\r\n"
        assert exchange(server, evil).status == 200  # with a key, it may have any name
        assert server.stop() == 0
        assert "sk-right" not in server.said()
    assert not [path for path in server.store.rglob("*") if path.is_file() and b"sk-right" in path.read_bytes()]


# --- clients that are slow or gone ---


@pytest.mark.slow
def test_slow_clients_hold_up_nobody(tmp_path: Path) -> None:
    heads = [b"GET /v1/fi", b"POST /v1/evaluation HTTP/1.1\r\n" + HOST + b"Content-Length: 1000\r\n\r\n{"]
    with serve() as models, served(tmp_path, model_url=models.url) as server, contextlib.ExitStack() as stack:
        client = stack.enter_context(Client(server))
        file = client.upload(replies(3))
        fields = {"purpose": "eval", "file_name": "rows.jsonl", "file_type": "jsonl"}
        form = b"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: 100000\r\n\r\n"
        part = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jsonl"\r\n\r\n{"a": 1}\n'
        for number in range(350):
            connection = stack.enter_context(connect(server))
            if number < 50:
                connection.sendall(heads[number % 2])
            elif number < 60:
                announced = client.http.post("/v1/files", files={key: (None, value) for key, value in fields.items()})
                place = announced.headers["location"].removeprefix(server.url).encode()
                connection.sendall(b"PUT " + place + b" HTTP/1.1\r\n" + HOST + b"Content-Length: 100000\r\n\r\n{")
            elif number < 70:
                connection.sendall(b"POST /v1/files/upload HTTP/1.1\r\n" + HOST + form + part)
        incoming = server.store / "files" / ".incoming"
        wait(lambda: len(list(incoming.iterdir())) == 20)
        began = time.monotonic()
        with Client(server) as other:
            assert other.http.get("/v1/evaluation").status_code == 200
            assert len(other.completed(other.create(file))) == 3
        assert time.monotonic() - began < 2
        stack.pop_all().close()  # they all go
        wait(lambda: not list(incoming.iterdir()))
        with Client(server) as other:
            found = other.http.get("/v1/files").json()["data"]
        assert [each["purpose"] for each in found] == ["eval-output", "eval"]
        assert server.stop() == 0
        assert "Traceback" not in server.said()


@pytest.mark.slow
def test_connections_that_ask_for_nothing_are_closed(tmp_path: Path) -> None:
    with (
        served(tmp_path, model_url="http://127.0.0.1:9/v1") as server,
        connect(server) as idle,
        connect(server) as half,
        connect(server) as body,
    ):
        body.sendall(b"POST /v1/evaluation HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\n{")
        half.sendall(request("GET /v1/evaluation"))
        assert read(half).status == 200
        half.sendall(b"GET /v1/evalua")  # and no more
        assert idle.recv(1) == b""
        assert read(body).status == 408
        half.settimeout(70)
        assert half.recv(1) == b""


# --- starts that cannot be ---


def test_starts_that_are_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*options: str | Path, store: Path = tmp_path / "store") -> str:
        done = cli("serve", "--store", store, *options)
        assert done.code == Exit.PROBLEM
        assert "Traceback" not in done.err
        return done.err

    for host in ("0.0.0.0", "::", "192.0.2.1", "example.com"):
        assert f"without a key the server listens on this machine only, and `{host}` is more" in fails("--host", host)
    assert "nothing says where `nobody` is served" in fails("--default-model", "nobody")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert "the environment variable OPENAI_API_KEY is not set" in fails("--default-model", "openai/gpt-4o-mini")
    assert not (tmp_path / "store").exists()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"cannot listen at 127.0.0.1 port {port}: Address already in use" in fails("--port", str(port))
    assert "cannot listen at 192.0.2.1 port 0" in fails("--host", "192.0.2.1", "--port", "0", "--api-key", "sk-1")
    label = "a" * 100 + ".example"
    assert "cannot listen at" in fails("--host", label, "--port", "0", "--api-key", "sk-1")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in fails(store=tmp_path / "file")
    assert "cannot be written" in fails(store=tmp_path / "file" / "below")
    (tmp_path / "no-files").mkdir()
    (tmp_path / "no-files" / "files").write_text("")
    assert f"the store {tmp_path / 'no-files'} cannot be used: " in fails(store=tmp_path / "no-files")
    (tmp_path / "no-store" / "store.sqlite").mkdir(parents=True)
    assert "the job store cannot be used: unable to open database file" in fails(store=tmp_path / "no-store")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "store.sqlite").write_bytes(b"no database" * 1000)
    assert "the job store cannot be used: file is not a database" in fails(store=tmp_path / "broken")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "cannot be written" in cli("serve", "--store", tmp_path / "closed" / "store").err


def test_one_server_a_store(cli: Cli, server: Served) -> None:
    done = cli("serve", "--port", "0", "--store", server.store)
    assert done.code == Exit.LOCKED_OR_STALE
    assert f"another server has this store: process {server.process.pid} on " in done.err


def test_answers_have_no_more_than_they_say(server: Served) -> None:
    """HEAD has the headers of GET and no body, so that the next answer on the connection is read right."""
    with connect(server) as connection:
        connection.sendall(request("HEAD /v1/evaluation") + request("GET /v3/whoami", b"Connection: close\r\n"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 200") == 2
    assert json.loads(received.rpartition(b"\r\n\r\n")[2])["type"] == "project_api_key"
