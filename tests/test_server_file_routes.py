"""The endpoints of files on a real server, with the official SDK, curl-like requests and raw sockets as clients."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount
from together import APIStatusError, AsyncTogether, BadRequestError, NotFoundError, Together

from evalops.server import file_routes
from evalops.server.files import Files
from evalops.server.problem import Problem

ROWS = b'{"q": "a"}\n{"q": "b"}\n'
LARGEST = 3_000_000


@dataclass(frozen=True)
class Server:
    """A server in a thread of this process, its files and where it stores them."""

    url: str
    files: Files
    folder: Path

    @property
    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=20, verify=False)  # which spares loading certificates

    @property
    def together(self) -> Together:
        return Together(api_key="x", base_url=self.url, max_retries=0, _strict_response_validation=True)

    @property
    def is_clean(self) -> bool:
        """Whether nothing of a broken upload is left."""
        return not any((self.folder / ".incoming").iterdir())


async def problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


@contextlib.contextmanager
def serving(folder: Path, *, largest: int = LARGEST, patience: float = 20) -> Iterator[Server]:
    files = Files(folder, largest=largest)
    routes = file_routes.routes(files, patience=patience)
    mounts = [Mount(path, routes=routes) for path in ("/v1/v1", "/v1", "")]
    app = Starlette(routes=mounts, exception_handlers={Problem: problem})
    listening = socket.socket(proto=socket.IPPROTO_TCP)  # without the protocol, asyncio leaves Nagle's delay on
    listening.bind(("127.0.0.1", 0))
    listening.listen(100)
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}", files, folder)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the module; each test sends content of its own."""
    with serving(tmp_path_factory.mktemp("store") / "files") as made:
        yield made


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that takes hardly anything."""
    with serving(tmp_path_factory.mktemp("small") / "files", largest=10_000) as made:
        yield made


@pytest.fixture(autouse=True)
def nothing_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No test may make the server log a traceback, or anything else that looks wrong."""
    yield
    records = [record for record in caplog.records if record.levelno >= logging.WARNING or record.exc_info]
    assert [record.getMessage() for record in records] == []


def eventually(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.005)


def rows(name: str, count: int = 3) -> bytes:
    return b"".join(json.dumps({"q": f"{name} {number}"}).encode() + b"\n" for number in range(count))


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def announcement(content: bytes = ROWS, **changed: str | None) -> dict[str, str]:
    fields = {
        "purpose": "eval",
        "file_name": "rows.jsonl",
        "file_type": "jsonl",
        "checksum": hashlib.sha256(content).hexdigest(),
        **changed,
    }
    return {name: value for name, value in fields.items() if value is not None}


def multipart(fields: dict[str, str | bytes], *, file: bytes | None = None, end: bytes = b"--\r\n") -> bytes:
    """A form by hand, with the boundary `b`; the file comes first, as from `curl -F file=@…`."""
    parts = []
    if file is not None:
        parts.append(b'content-disposition: form-data; name="file"; filename="rows.jsonl"\r\n\r\n' + file)
    for name, value in fields.items():
        data = value.encode() if isinstance(value, str) else value
        parts.append(b'content-disposition: form-data; name="%s"\r\n\r\n' % name.encode() + data)
    return b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b" + end


FORM = {"content-type": "multipart/form-data; boundary=b"}


def in_envelope(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert len(response.content) < 1000
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


# --- the official SDK ---


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_the_sdk_uploads_lists_retrieves_downloads_and_deletes(server: Server, tmp_path: Path, kind: str) -> None:
    content = rows("sdk") if kind == "jsonl" else b"q,r\nsdk,1\nsdk,2\nsdk,3\n"
    path = written(tmp_path, f"my rows é.{kind}", content)
    with server.together as client:
        sent = client.files.upload(path, purpose="eval")
        assert (sent.filename, sent.bytes, sent.file_type, sent.purpose) == (path.name, len(content), kind, "eval")
        assert sent.processing_status == "COMPLETED"
        found = client.files.retrieve(sent.id)
        assert found.validation_report is not None
        assert (found.validation_report.valid, found.validation_report.nlines) == (True, 3)
        assert client.files.list().data[0] == found
        assert client.files.content(sent.id).read() == content
        with client.files.with_streaming_response.content(sent.id) as response:
            assert b"".join(response.iter_bytes()) == content
        gone = client.files.delete(sent.id)
        assert (gone.id, gone.deleted) == (sent.id, True)
        with pytest.raises(NotFoundError):
            client.files.retrieve(sent.id)
        with pytest.raises(NotFoundError):
            client.files.content(sent.id)


def test_the_sdk_gets_the_same_file_for_the_same_content_without_retrying(server: Server, tmp_path: Path) -> None:
    path = written(tmp_path, "twice.jsonl", rows("twice"))
    requests: list[str] = []
    http = httpx.Client(event_hooks={"request": [lambda request: requests.append(request.method)]})
    with Together(api_key="x", base_url=server.url, http_client=http, _strict_response_validation=True) as client:
        first = client.files.upload(path, purpose="eval")
        requests.clear()
        assert client.files.upload(path, purpose="eval").id == first.id
        assert requests == ["POST", "GET"]


def test_the_async_sdk_and_base_urls_with_a_version_work(server: Server, tmp_path: Path) -> None:
    async def run() -> None:
        async with AsyncTogether(api_key="x", base_url=server.url + "/v1", max_retries=0) as client:
            sent = await client.files.upload(written(tmp_path, "a.jsonl", rows("async")), purpose="eval")
            assert sent.processing_status == "COMPLETED"
            assert await (await client.files.content(sent.id)).read() == rows("async")

    asyncio.run(run())


def test_the_default_purpose_of_the_sdk_is_refused_with_the_one_to_use(server: Server, tmp_path: Path) -> None:
    path = written(tmp_path, "rows.jsonl", rows("purpose"))
    with server.together as client, pytest.raises(APIStatusError, match=r"--purpose eval"):
        client.files.upload(path, check=False)


def test_a_dataset_that_cannot_be_read_comes_up_with_its_reason(server: Server, tmp_path: Path) -> None:
    with server.together as client:
        sent = client.files.upload(written(tmp_path, "x.jsonl", b"{}\nbroken\n"), purpose="eval", check=False)
        assert sent.processing_status == "INVALID_FORMAT"
        report = client.files.retrieve(sent.id).validation_report
        assert report is not None
        assert not report.valid
        assert "line 2" in str(report.error)


def test_parts_are_refused_with_what_to_do(server: Server) -> None:
    with server.together as client:
        for step in ("initiate", "complete", "abort"):
            with pytest.raises(BadRequestError, match="split the dataset"):
                client.post(f"/v1/files/multipart/{step}", cast_to=httpx.Response, body={"file_size": 6 << 30})


# --- announcement and upload ---


@pytest.mark.parametrize("version", ["", "/v1", "/v1/v1"])
@pytest.mark.parametrize("encoding", ["multipart", "urlencoded"])
def test_an_upload_step_by_step(server: Server, version: str, encoding: str) -> None:
    content = rows(f"steps {version} {encoding}")
    fields = announcement(content)
    with server.client as client:
        form = {"data": fields} if encoding == "urlencoded" else {"files": {k: (None, v) for k, v in fields.items()}}
        answer = client.post(f"{version}/files", **form)  # type: ignore[arg-type]
        assert answer.status_code == 302
        file_id = answer.headers["x-together-file-id"]
        assert answer.headers["location"].startswith(f"{server.url}{version}/uploads/{file_id}/")
        in_envelope(client.post(f"{version}/files/{file_id}/preprocess"), 400)
        put = client.put(answer.headers["location"], content=content)
        assert (put.status_code, put.content) == (200, b"")
        assert client.get(f"{version}/files/{file_id}").json()["processing_status"] == "PENDING"
        done = client.post(f"{version}/files/{file_id}/preprocess")
        assert (done.status_code, done.json()["processing_status"], done.json()["LineCount"]) == (200, "COMPLETED", 3)
        in_envelope(client.put(answer.headers["location"], content=content), 404)
        again = client.post(f"{version}/files", data=fields)
        assert again.json()["file_id"] == file_id
        assert again.headers["x-should-retry"] == "false"
        in_envelope(again, 409)


@pytest.mark.parametrize("host", ["evil.test", "[::1", "a b", "é", "x" * 300, "a@b", "a/b"])
def test_a_host_header_does_not_break_the_address(server: Server, host: str) -> None:
    with server.client as client:
        answer = client.post("/v1/files", data=announcement(rows(host)), headers={"host": host.encode()})
    if answer.status_code == 302:
        where = urlsplit(answer.headers["location"])
        assert where.netloc in (host, urlsplit(server.url).netloc)
        assert where.path.startswith("/v1/uploads/")
    else:
        assert answer.status_code == 400  # by the HTTP server itself


def announce(client: httpx.Client, content: bytes, **changed: None) -> str:
    """Where to send the content."""
    where: str = client.post("/v1/files", data=announcement(content, **changed)).headers["location"]
    return where


def test_wrong_content_can_be_corrected(server: Server) -> None:
    content = rows("corrected")
    with server.client as client:
        where = announce(client, content)
        assert in_envelope(client.put(where, content=b"other"), 400)["param"] == "checksum"
        assert server.is_clean
        assert client.put(where, content=content).status_code == 200


def test_a_wrong_token_is_as_unknown_as_a_wrong_id(server: Server) -> None:
    with server.client as client:
        where = announce(client, rows("token"))
        for wrong in (where[:-1], where + "x", where.replace("file-", "file-0"), f"{server.url}/v1/uploads/%00/%ff"):
            in_envelope(client.put(wrong, content=ROWS), 404)
        assert client.put(where, content=rows("token")).status_code == 200


def endless(size: int) -> Iterator[bytes]:
    for _ in range(0, size, 65536):
        yield b"x" * 65536


@pytest.mark.parametrize("way", ["length", "chunks"])
@pytest.mark.parametrize("path", ["put", "form"])
def test_too_much_content_is_refused_and_the_client_hears_of_it(server: Server, way: str, path: str) -> None:
    with server.client as client:
        content: Any = b"x" * (LARGEST * 3) if way == "length" else endless(LARGEST * 3)
        if path == "put":
            answer = client.put(announce(client, rows(f"{way} large")), content=content)
        else:
            head = multipart({}, file=b"")[: -len(b"\r\n--b--\r\n")]
            body = (
                head + content
                if isinstance(content, bytes)
                else (piece for each in ([head], content) for piece in each)
            )
            answer = client.post("/v1/files/upload", content=body, headers=FORM)
        assert f"{LARGEST:,} bytes" in in_envelope(answer, 413)["message"]
    assert server.is_clean


def test_the_largest_file_is_taken_in_both_ways(server: Server) -> None:
    content = b'{"q": "%s"}' % (b"x" * (LARGEST - 9))
    with server.client as client:
        sent = client.post("/v1/files/upload", content=multipart({"purpose": "eval"}, file=content), headers=FORM)
        assert (sent.status_code, sent.json()["bytes"]) == (200, LARGEST)
        client.delete(f"/v1/files/{sent.json()['id']}")
        assert client.put(announce(client, content), content=content).status_code == 200


def raw(server: Server, data: bytes) -> socket.socket:
    where = urlsplit(server.url)
    connection = socket.create_connection((where.hostname, where.port), timeout=10)
    connection.sendall(data)
    return connection


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_client_that_leaves_in_the_middle_leaves_nothing(server: Server, is_reset: bool) -> None:
    content = rows(f"leaves {is_reset}")
    with server.client as client:
        where = announce(client, content, checksum=None)  # so that nothing but the break tells that it is not all
        head = f"PUT {urlsplit(where).path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        form = b"POST /v1/files/upload HTTP/1.1\r\nhost: x\r\ncontent-length: 9999\r\n%s\r\n\r\n" % b": ".join(
            each.encode() for each in next(iter(FORM.items()))
        )
        for begin in (head + content[:10], form + multipart({}, file=ROWS)[:100]):
            connection = raw(server, begin)
            eventually(lambda: not server.is_clean)
            if is_reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
            eventually(lambda: server.is_clean)
        assert client.put(where, content=content).status_code == 200


def test_a_second_upload_at_the_same_time_is_refused(server: Server) -> None:
    content = rows("at once")
    with server.client as client:
        where = announce(client, content)
        begin = f"PUT {urlsplit(where).path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode()
        connection = raw(server, begin)
        eventually(lambda: not server.is_clean)
        in_envelope(client.put(where, content=content), 409)
        connection.sendall(content)
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()


def test_a_client_that_stops_sending_is_cut_off(tmp_path: Path) -> None:
    with serving(tmp_path / "files", patience=0.05) as server, server.client as client:
        where = announce(client, ROWS)
        path = urlsplit(where).path
        for begin in (f"PUT {path}", "POST /v1/files/upload", "POST /v1/files"):
            kind = f"{next(iter(FORM))}: {FORM['content-type']}"
            connection = raw(server, f"{begin} HTTP/1.1\r\nhost: x\r\n{kind}\r\ncontent-length: 99\r\n\r\n--b".encode())
            answer = b""
            while piece := connection.recv(65536):  # to the end: the connection is closed
                answer += piece
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"nothing has come for 0.05 seconds" in answer
            connection.close()
        assert server.is_clean
        assert client.put(where, content=ROWS).status_code == 200


# --- forms ---


@pytest.mark.parametrize(
    ("headers", "body", "status", "words"),
    [
        ({}, b"", 400, "no form"),
        ({"content-type": "application/json"}, b'{"purpose": "eval"}', 400, "no form"),
        ({"content-type": "multipart/form-data"}, multipart({}), 400, "boundary"),
        ({"content-type": "multipart/form-data; boundary="}, multipart({}), 400, "boundary"),
        ({"content-type": "multipart/form-data; boundary=" + "b" * 5000}, multipart({}), 400, "cannot be read"),
        (FORM, b"", 400, "too early"),
        (FORM, b"garbage", 400, ""),
        (FORM, b"--b\r\nno header\r\n\r\nx\r\n--b--\r\n", 400, ""),
        (FORM, multipart({}), 400, "`purpose` is missing"),
        (FORM, multipart({"purpose": "eval"}), 400, "`file_name` is missing"),
        (FORM, multipart({**announcement()}, end=b""), 400, "too early"),
        (FORM, multipart({**announcement()})[:200], 400, "too early"),
        (FORM, multipart({**announcement(), "file_name": b"\xff.jsonl"}), 400, "UTF-8"),
        (FORM, multipart({**announcement(), "file_name": b"a\r\nx-evil: 1.jsonl"}), 400, "control"),
        (FORM, multipart({**announcement(), "file_name": b"x" * 70_000}), 413, "65,536"),
        (FORM, multipart({f"x{number}": b"" for number in range(700)}), 413, "fields"),
        (FORM, multipart({**announcement(), "file_name": b"x" * 700_000}), 413, "65,536"),
        (FORM, multipart({**announcement(), "checksum": b"1"}), 400, "`checksum`"),
        (FORM, multipart({**announcement(), "file_type": "parquet"}), 400, "`jsonl` or `csv`"),
        (FORM, multipart({}, file=ROWS), 400, "/v1/files/upload"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"purpose=eval&file_name=%ff.jsonl", 400, "UTF-8"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"purpose=\xff", 400, "UTF-8"),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a&" * 30_000, 400, ""),
        ({"content-type": "application/x-www-form-urlencoded"}, b"a=1&" * 30_000, 413, "65,536"),
    ],
)
def test_an_announcement_that_is_wrong(
    server: Server, headers: dict[str, str], body: bytes, status: int, words: str
) -> None:
    with server.client as client:
        error = in_envelope(client.post("/v1/files", content=body, headers=headers), status)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (multipart({"purpose": "eval"}), 400, "`file` is missing"),
        (multipart({}, file=ROWS), 400, "`purpose`"),
        (multipart({"purpose": "fine-tune"}, file=ROWS), 400, "`eval`"),
        (multipart({"purpose": "eval", "file_name": "x\0.jsonl"}, file=ROWS), 400, "control"),
        (multipart({"purpose": "eval", "file_type": "parquet"}, file=ROWS), 400, "`csv`"),
        (multipart({"purpose": "eval"}, file=ROWS, end=b""), 400, "too early"),
        (multipart({"purpose": "eval"}, file=ROWS)[:90], 400, "too early"),
        (multipart({"purpose": "eval"}, file=ROWS) + b"more" * 20_000, 413, ""),
        (multipart({}, file=ROWS)[:-7] + multipart({"purpose": "eval"}, file=ROWS), 400, "more than one"),
        (b'--b\r\ncontent-disposition: form-data; name="\xff"\r\n\r\nx\r\n--b--\r\n', 400, "UTF-8"),
        (b'--b\r\ncontent-disposition: form-data; name="file"; filename="\xff"\r\n\r\nx\r\n--b--\r\n', 400, "UTF-8"),
        (b"--b\r\n" + b"x" * 70_000, 400, ""),
    ],
)
def test_a_one_step_upload_that_is_wrong(small: Server, body: bytes, status: int, words: str) -> None:
    with small.client as client:
        error = in_envelope(client.post("/v1/files/upload", content=body, headers=FORM), status)
    assert words in error["message"]
    assert small.is_clean
    assert small.files.list() == []


def test_a_one_step_upload(server: Server) -> None:
    content = rows("one step", 20_000)
    with server.client as client:
        fields = {"purpose": "eval", "file_name": "named.jsonl"}
        first = client.post("/v1/files/upload", data=fields, files={"file": ("other.txt", content)})
        assert first.status_code == 200
        assert (first.json()["filename"], first.json()["LineCount"]) == ("named.jsonl", 20_000)
        again = client.post("/v1/files/upload", content=multipart({"purpose": "eval"}, file=content), headers=FORM)
        assert again.json() == first.json()
        assert client.get(f"/v1/files/{first.json()['id']}/content").content == content
    assert server.is_clean


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_a_form_in_small_pieces_is_the_same_form(server: Server, size: int) -> None:
    content = b'{"q": "%d \\r\\n--b \\r\\n--"}\r\n--\r\n{}\n' % size
    body = multipart({"purpose": "eval", "file_name": "é.jsonl"}, file=content)
    with server.client as client:
        pieces = (body[start : start + size] for start in range(0, len(body), size))
        sent = client.post("/v1/files/upload", content=pieces, headers=FORM).json()
        assert (sent["filename"], sent["bytes"], sent["processing_status"]) == (
            "é.jsonl",
            len(content),
            "INVALID_FORMAT",
        )
        assert client.get(f"/v1/files/{sent['id']}/content").content == content


# --- ids ---


@pytest.mark.parametrize(
    "text", ["x", "..%2f..%2fx", "%2e%2e", "%00", "%ff", "%0d%0aevil:1", "a" * 129, "a" * 50_000, "é"]
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/files/{}"),
        ("DELETE", "/v1/files/{}"),
        ("GET", "/v1/files/{}/content"),
        ("POST", "/v1/files/{}/preprocess"),
        ("PUT", "/v1/uploads/{}/token"),
        ("PUT", "/v1/uploads/file-1/{}"),
    ],
)
def test_an_id_that_does_not_exist(server: Server, method: str, path: str, text: str) -> None:
    with server.client as client:
        answer = client.request(method, path.format(text))
    if answer.headers["content-type"].startswith("text/plain"):  # no such path: the application's own answer
        assert answer.status_code in (404, 405)
        assert any(code in text for code in ("2f", "2e", "0a"))
    else:
        in_envelope(answer, 404)


# --- download ---


@pytest.fixture(scope="module")
def stored(server: Server) -> str:
    """The content's path of a file of 1,000 bytes: 0 to 249 four times."""
    content = bytes(range(250)) * 4
    with server.client as client:
        body = multipart({"purpose": "eval"}, file=content)
        return f"/v1/files/{client.post('/v1/files/upload', content=body, headers=FORM).json()['id']}/content"


CONTENT = bytes(range(250)) * 4


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-999", 0, 1000),
        ("bytes=10-19", 10, 20),
        ("bytes=990-", 990, 1000),
        ("bytes=0-5000", 0, 1000),
        ("bytes=-1", 999, 1000),
        ("bytes=-5000", 0, 1000),
        ("bytes=0-" + "9" * 18, 0, 1000),
    ],
)
def test_a_range(server: Server, stored: str, asked: str, start: int, stop: int) -> None:
    with server.client as client:
        answer = client.get(stored, headers={"range": asked})
    assert answer.status_code == 206
    assert answer.content == CONTENT[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/1000"
    assert answer.headers["content-length"] == str(stop - start)


@pytest.mark.parametrize("asked", ["bytes=1000-", "bytes=1000-1001", "bytes=-0", "bytes=" + "9" * 18 + "-"])
def test_a_range_that_is_not_there(server: Server, stored: str, asked: str) -> None:
    with server.client as client:
        answer = client.get(stored, headers={"range": asked})
    in_envelope(answer, 416)
    assert answer.headers["content-range"] == "bytes */1000"


@pytest.mark.parametrize(
    "asked",
    [
        *("", "x", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-4", "lines=0-1", "bytes=0-1,5-6", "bytes=--1"),
        "bytes=0-" + "9" * 5000,
        "bytes=٣-٤",
    ],
)
def test_a_range_that_makes_no_sense_is_ignored(server: Server, stored: str, asked: str) -> None:
    with server.client as client:
        answer = client.get(stored, headers={"range": asked.encode()})
    assert (answer.status_code, answer.content) == (200, CONTENT)


def test_a_download_goes_on_where_it_broke_off_if_the_content_is_the_same(server: Server, stored: str) -> None:
    with server.client as client:
        tag = client.get(stored).headers["etag"]
        assert client.get(stored, headers={"range": "bytes=500-", "if-range": tag}).content == CONTENT[500:]
        assert client.get(stored, headers={"range": "bytes=500-", "if-range": '"other"'}).content == CONTENT


def test_head_says_what_get_would_send(server: Server, stored: str) -> None:
    with server.client as client:
        full, head = client.get(stored), client.head(stored)
        assert (head.status_code, head.content) == (200, b"")
        without = {"date"}
        assert {k: v for k, v in head.headers.items() if k not in without} == {
            k: v for k, v in full.headers.items() if k not in without
        }
        assert client.get(stored).status_code == 200  # the connection is still in step
        assert full.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "name", ['a"b.jsonl', "a;b\\'.jsonl", "日本 é.jsonl", "a%0d%0ab.jsonl", "x" * 250 + ".csv", "a‮b.jsonl"]
)
def test_any_name_is_a_safe_header(server: Server, name: str) -> None:
    content = rows(name) if name.endswith("l") else b"q\nx\n"
    with server.client as client:
        body = multipart({"purpose": "eval", "file_name": name}, file=content)
        sent = client.post("/v1/files/upload", content=body, headers=FORM).json()
        assert sent["filename"] == name.rpartition("\\")[2]
        answer = client.get(f"/v1/files/{sent['id']}/content")
    disposition = answer.headers["content-disposition"]
    assert disposition.startswith('attachment; filename="')
    assert disposition.isascii()
    assert disposition.count('"') == 2
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_empty_file_can_be_downloaded(server: Server) -> None:
    with server.client as client:
        sent = client.post("/v1/files/upload", content=multipart({"purpose": "eval"}, file=b""), headers=FORM).json()
        assert (sent["bytes"], sent["processing_status"]) == (0, "INVALID_FORMAT")
        where = f"/v1/files/{sent['id']}/content"
        assert client.get(where).content == b""
        in_envelope(client.get(where, headers={"range": "bytes=0-"}), 416)
        assert client.head(where).headers["content-length"] == "0"


def test_a_client_that_leaves_in_the_middle_of_a_download(server: Server) -> None:
    content = b'{"q": "%s"}\n' % (b"y" * (LARGEST - 10))
    with server.client as client:
        sent = client.post(
            "/v1/files/upload", content=multipart({"purpose": "eval"}, file=content), headers=FORM
        ).json()
        where = f"/v1/files/{sent['id']}/content"
        connection = raw(server, f"GET {where} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200")
        connection.close()
        with client.stream("GET", where) as response:
            next(response.iter_bytes())
            assert client.delete(f"/v1/files/{sent['id']}").json() == {"id": sent["id"], "deleted": True}
            in_envelope(client.get(where), 404)


def test_content_that_has_gone_is_not_found(server: Server) -> None:
    content = rows("gone")
    with server.client as client:
        sent = client.post(
            "/v1/files/upload", content=multipart({"purpose": "eval"}, file=content), headers=FORM
        ).json()
        server.files.path(sent["id"]).unlink()
        in_envelope(client.get(f"/v1/files/{sent['id']}/content"), 404)
        client.delete(f"/v1/files/{sent['id']}")


# --- several clients ---


def test_slow_clients_hold_up_nobody(server: Server) -> None:
    content = rows("slow")
    with server.client as client:
        waiting = []
        for number in range(40):
            path = urlsplit(announce(client, rows(f"slow {number}"))).path
            waiting.append(raw(server, f"PUT {path} HTTP/1.1\r\nhost: x\r\ncontent-length: 99\r\n\r\n{{".encode()))
        assert client.put(announce(client, content), content=content).status_code == 200
        for connection in waiting:
            connection.close()
    eventually(lambda: server.is_clean)
