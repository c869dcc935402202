"""The client of remote services, against a raw server on loopback that answers with whatever bytes a case says."""

from __future__ import annotations

import contextlib
import email.utils
import gzip
import hashlib
import json
import logging
import os
import socket
import struct
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from evalops.errors import EvalopsError
from evalops.providers.base import Refused, Unclear
from evalops.providers.client import ATTEMPTS, MAX_REPLY, Answer, Client, Timeouts
from evalops.secret import MASK, Secret

KEY = "sk-Canary/+7&key"
TOKEN = "xx-canary-token"
BODY = json.dumps({"judge": {"external_api_token": TOKEN}}).encode()
PATH = "/v1/evaluation"

Reply = bytes | Callable[[socket.socket], None]


def http_(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer as bytes; `retry_after` becomes `Retry-After`. It says that the connection ends, unless told else."""
    lines = [f"HTTP/1.1 {status} X", *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]
    if "content_length" not in headers and "transfer_encoding" not in headers:
        lines.append(f"Content-Length: {len(body)}")
    lines += [] if "connection" in headers else ["Connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def nothing(connection: socket.socket) -> None:
    """The connection stays open until the other side ends it."""
    with contextlib.suppress(OSError):
        connection.recv(1)


def then(data: bytes, after: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    def act(connection: socket.socket) -> None:
        connection.sendall(data)
        after(connection)

    return act


@dataclass
class Wire:
    """A server for one request a connection: reads it (its head alone where `early`), then plays the next reply."""

    replies: list[Reply] = field(default_factory=list)
    early: bool = False
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)  # heads and bodies
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> int:
        return sum(head.startswith(b"POST") for head, _ in self.requests)

    def serve(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(5)
                self._one(connection)

    def _one(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            more = connection.recv(65536)
            if not more:
                return
            data += more
            if not data[:1].isalpha():
                return  # the beginning of TLS
        head, _, body = data.partition(b"\r\n\r\n")
        lengths = [line[15:] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        while not self.early and len(body) < int(lengths[0] if lengths else 0):
            body += connection.recv(65536)
        self.requests.append((head, body))
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if isinstance(reply, bytes):
            connection.sendall(reply)
        else:
            reply(connection)


@contextlib.contextmanager
def wire(*replies: Reply, early: bool = False) -> Iterator[Wire]:
    """A server that plays the replies one after another, and the last one for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        made = Wire(list(replies), early, port=listening.getsockname()[1])
        thread = threading.Thread(target=made.serve, args=(listening,), daemon=True)
        thread.start()
        yield made
        with contextlib.suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@dataclass
class Waits:
    """A sleep that only notes."""

    slept: list[float] = field(default_factory=list)

    def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


QUICK = Timeouts(connect=2, idle=0.15, body=5)


def client(url: str, **settings: Any) -> Client:
    settings = {"timeouts": QUICK, "sleep": Waits(), "chance": lambda: 1.0} | settings
    made = Client(url, Secret(KEY), service="Together", key_name="TOGETHER_API_KEY", **settings)
    made.hide([Secret(TOKEN)])
    return made


def post(server: Wire, **settings: Any) -> Answer | Refused | Unclear:
    with client(server.url, **settings) as asking:
        return asking.post_once(PATH, BODY)


def assert_clean(value: object) -> None:
    """No secret in any text of a result or an exception, and no exception of the HTTP library behind it."""
    texts = [repr(value), str(value)]
    if isinstance(value, BaseException):
        assert value.__context__ is None and value.__cause__ is None
        texts += traceback.format_exception(value)
        texts += [repr(each) for each in getattr(value, "diagnostics", ())]
    for text in texts:
        assert "anary" not in text, text


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


# --- what costs money is asked for once ---

ECHO = json.dumps({"error": {"message": f"bad: {BODY.decode()} Bearer {KEY}", "type": "x"}}).encode()
JOB = b'{"workflow_id":"eval-1","status":"pending"}'
CHUNKED = {"transfer_encoding": "chunked"}

UNCLEAR: dict[str, Reply] = {
    **{
        f"{status}": http_(status, ECHO) for status in (301, 302, 307, 308, 402, 405, 408, 409, 425, 500, 502, 503, 504)
    },
    "429 with Retry-After": http_(429, ECHO, retry_after="1"),
    "redirect": http_(307, b"", location=f"/elsewhere?{TOKEN}"),
    "HTML": http_(200, b"<html>welcome</html>", content_type="text/html"),
    "empty": http_(200),
    "no content": b"HTTP/1.1 204 X\r\n\r\n",
    "truncated": http_(200, JOB, content_length="1000"),
    "truncated chunks": http_(200, b"ff\r\n" + JOB, **CHUNKED),
    "half JSON": http_(200, JOB[:-1]),
    "deep JSON": http_(200, b"[" * 200_000),
    "10 MB": http_(200, b'"' + b"x" * 10_000_000 + b'"'),
    "compressed": http_(200, gzip.compress(JOB), content_encoding="gzip"),
    "no HTTP": b"SSH-2.0-server\r\n",
    "closed": lambda connection: None,
    "reset": reset,
    "reset in the head": then(b"HTTP/1.1 200 OK\r\nContent-", reset),
    "reset in the body": then(http_(200, b'{"wor', content_length="100"), reset),
    "hangs": nothing,
    "hangs in the body": then(http_(200, b'{"wor', content_length="100"), nothing),
}


@pytest.mark.parametrize("reply", UNCLEAR.values(), ids=UNCLEAR)
def test_in_doubt_it_is_unclear_and_never_asked_again(reply: Reply) -> None:
    with wire(reply) as server:
        got = post(server)
    assert isinstance(got, Unclear) and got.why.startswith("Together "), got
    assert server.posts == len(server.requests) == 1
    assert_clean(got)


def test_a_connection_that_breaks_under_the_request_is_unclear() -> None:
    with wire(reset, early=True) as server, client(server.url) as asking:
        got = asking.post_once(PATH, b'"' + b"x" * 5_000_000 + b'"')
    assert isinstance(got, Unclear) and server.posts == 1


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422])
@pytest.mark.parametrize("reply", [ECHO, b"", b"<html>"])
def test_a_clear_no(status: int, reply: bytes) -> None:
    with wire(http_(status, reply)) as server:
        got = post(server)
    assert isinstance(got, Refused) and server.posts == 1
    assert f"Together answered {status}" in got.diagnostics[0].message
    assert (MASK in got.diagnostics[0].message) == (reply == ECHO)
    assert_clean(got)


def test_a_no_that_breaks_off_is_still_a_no() -> None:
    with wire(then(http_(400, b'{"err', content_length="99"), reset)) as server:
        assert isinstance(post(server), Refused)


def test_a_wrong_key_is_told_by_its_variable() -> None:
    with wire(http_(401, b'{"error":{"message":"no such key"}}')) as server:
        got = post(server)
    assert isinstance(got, Refused)
    (problem,) = got.diagnostics
    assert (problem.code, problem.message) == ("provider/auth", "Together answered 401: no such key")
    assert problem.hint == "check the key in `TOGETHER_API_KEY`"


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_clear_yes(status: int) -> None:
    with wire(http_(status, JOB, date="Sat, 21 Nov 2026 10:00:00 GMT")) as server:
        got = post(server)
    assert isinstance(got, Answer) and got.json() == json.loads(JOB)
    assert got.headers["date"] == "Sat, 21 Nov 2026 10:00:00 GMT"
    ((head, body),) = server.requests
    assert body == BODY and f"Authorization: Bearer {KEY}".encode() in head
    assert head.split(b"\r\n")[0] == b"POST /v1/evaluation HTTP/1.1"


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with client(f"http://127.0.0.1:{port}") as asking:
        got = asking.post_once(PATH, BODY)
    assert isinstance(got, Refused) and "Connection refused" in got.diagnostics[0].message
    assert_clean(got)


def test_a_name_that_is_none() -> None:
    with client("https://nowhere.invalid") as asking:
        got = asking.post_once(PATH, BODY)
    assert isinstance(got, Refused) and got.diagnostics[0].code == "provider/unreachable"


@pytest.mark.parametrize("reply", [http_(400), reset])
def test_no_secure_connection(reply: Reply) -> None:
    with wire(reply) as server, client(server.url.replace("http:", "https:")) as asking:
        got = asking.post_once(PATH, BODY)
    assert isinstance(got, Refused) and server.posts == 0


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(http_(403, b"no")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        with client("https://api.example.com") as asking:
            got = asking.post_once(PATH, BODY)
    assert isinstance(got, Refused) and "proxy" in got.diagnostics[0].message
    assert [head.split(b"\r\n")[0] for head, _ in proxy.requests] == [b"CONNECT api.example.com:443 HTTP/1.1"]
    assert not any(b"anary" in head for head, _ in proxy.requests)


def test_this_machine_is_reached_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with wire(http_(200, JOB)) as server:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
        assert isinstance(post(server), Answer)


def test_a_proxy_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "ftp://user:canary@127.0.0.1")
    with pytest.raises(EvalopsError) as caught:
        client("https://api.example.com")
    assert_clean(caught.value)


def test_a_body_that_never_ends() -> None:
    ticks = iter(range(0, 1_000_000, 3))

    def drip(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection.sendall(b"1\r\n \r\n")

    with wire(then(http_(200, **CHUNKED), drip)) as server:
        got = post(server, clock=lambda: float(next(ticks)))
    assert isinstance(got, Unclear) and "did not end within 5 s" in got.why


def test_a_paid_request_never_rides_on_a_connection_that_may_have_died() -> None:
    dies_at_the_next = then(http_(200, JOB, connection="keep-alive"), nothing)
    with wire(dies_at_the_next) as server, client(server.url) as asking:
        for _ in range(3):
            assert isinstance(asking.post_once(PATH, BODY), Answer)
    assert server.posts == 3


def test_a_cookie_and_a_netrc_are_not_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password canary\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with wire(http_(200, b"[]", set_cookie="a=b")) as server:
        with client(server.url) as asking:
            asking.get(PATH)
            asking.get(PATH)
        with Client(server.url, None, service="Together", key_name="K", timeouts=QUICK) as asking:
            asking.get(PATH)
    heads = [head.lower() for head, _ in server.requests]
    assert not any(b"cookie" in head for head in heads)
    assert [b"authorization" in head for head in heads] == [True, True, False]


# --- the base URL ---


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/", "/prefix", "/prefix/v1/"])
def test_a_base_url_with_or_without_its_version(end: str) -> None:
    with wire(http_(200, b"[]")) as server, client(server.url + end) as asking:
        assert asking.get(PATH, [("limit", "5")]) == []
        assert asking.origin == server.url
    prefix = "/prefix" if "prefix" in end else ""
    assert server.requests[0][0].split(b"\r\n")[0] == f"GET {prefix}/v1/evaluation?limit=5 HTTP/1.1".encode()


@pytest.mark.parametrize(
    "url",
    ["http://api.example.com", "https://user:canary@api.example.com", "ftp://127.0.0.1", "https://10.0.0.1", "",
     "https://a.example.com?x=1", f"https://{'a' * 70}.example.com"],
)  # fmt: skip
def test_a_base_url_that_a_key_may_not_go_to(url: str) -> None:
    with pytest.raises(EvalopsError) as caught:
        client(url)
    assert caught.value.diagnostics[0].code == "provider/url"
    assert_clean(caught.value)


# --- reads are patient ---


def read(server: Wire, **settings: Any) -> tuple[Any, list[float]]:
    waits = Waits()
    with client(server.url, sleep=waits, **settings) as asking:
        return asking.get(PATH), waits.slept


def failure(server: Wire, **settings: Any) -> tuple[EvalopsError, list[float]]:
    waits = Waits()
    with client(server.url, sleep=waits, **settings) as asking, pytest.raises(EvalopsError) as caught:
        asking.get(PATH)
    assert_clean(caught.value)
    return caught.value, waits.slept


@pytest.mark.parametrize(
    "reply",
    [reset, lambda connection: None, http_(200, b"<html>"), http_(200, b"[", content_length="9"),
     *(http_(status, ECHO) for status in (408, 425, 429, 500, 502, 503, 504))],
)  # fmt: skip
def test_what_may_pass_is_tried_again(reply: Reply) -> None:
    with wire(reply, reply, http_(200, b"[1]")) as server:
        assert read(server) == ([1], [1.0, 2.0])


def test_patience_ends() -> None:
    with wire(http_(503, ECHO)) as server:
        error, slept = failure(server)
    assert len(server.requests) == ATTEMPTS and slept == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert error.diagnostics[0].code == "provider/unavailable"


def test_the_waits_differ_from_client_to_client() -> None:
    with wire(http_(503), http_(503), http_(200, b"[]")) as server:
        assert read(server, chance=lambda: 0.0)[1] == [0.5, 1.0]


def date(seconds: float) -> str:
    return email.utils.formatdate(seconds, usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry_after": "7"}, 7.0),
        ({"retry_after": "0"}, 0.0),
        ({"retry_after": date(1_000_030)}, 30.0),
        ({"retry_after": date(1_000_030), "date": date(1_000_020)}, 10.0),  # the service's own clock counts
        ({"retry_after": date(1)}, 0.0),
        ({"retry_after": "soon"}, 1.0),
        ({"retry_after": "-5"}, 1.0),
        ({"retry_after": "9" * 5000}, 1.0),
    ],
)
def test_retry_after_is_honoured(headers: dict[str, str], expected: float) -> None:
    with wire(http_(429, **headers), http_(200, b"[]")) as server:
        assert read(server, now=lambda: 1_000_000.0) == ([], [expected])


def test_the_time_of_the_service_goes_back_only_with_its_clock() -> None:
    """Its `Date` is cut to seconds."""
    clock, seen = [0.0], []
    answers = [(10.0, 1_000), (10.7, 1_000), (11.2, 1_001), (12.0, 1_005), (13.0, 500)]
    replies = (http_(200, b"[]", date=date(said)) for _, said in answers)
    with wire(*replies) as server, client(server.url, clock=lambda: clock[0]) as asking:
        for clock[0], _ in answers:
            asking.get(PATH)
            seen.append(round(asking.time().timestamp(), 3))
    assert seen == [1000.0, 1000.7, 1001.2, 1005.0, 500.0]


@pytest.mark.parametrize(
    "said",
    ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 0001 00:00:00 GMT", "soon"],
)
def test_a_date_that_is_none_is_no_time(said: str) -> None:
    replies = http_(200, b'{"workflow_id": "x"}', date=said)
    with wire(replies) as server, client(server.url, now=lambda: 1000.0) as asking:
        assert isinstance(asking.post_once(PATH, BODY), Answer)
        assert asking.time().timestamp() == 1000.0


def test_a_pause_that_is_too_long_is_told() -> None:
    with wire(http_(429, retry_after="3600")) as server:
        error, slept = failure(server)
    assert slept == [] and len(server.requests) == 1
    assert error.diagnostics[0].hint == "it asks to be left alone for 3,600 s"


@pytest.mark.parametrize(
    ("status", "code"),
    [(400, "refused"), (401, "auth"), (403, "refused"), (404, "not-found"), (409, "refused"), (302, "redirect")],
)
def test_what_does_not_pass_is_told_at_once(status: int, code: str) -> None:
    with wire(http_(status, ECHO, location="/other")) as server:
        error, slept = failure(server)
    assert len(server.requests) == 1 and slept == []
    assert error.diagnostics[0].code == f"provider/{code}"


def test_a_long_message_is_cut_after_its_secrets_are_masked() -> None:
    for fill in range(430, 500, 3):
        body = json.dumps({"error": {"message": "x" * fill + KEY + "y" * 100}}).encode()
        with wire(http_(400, body)) as server:
            error, _ = failure(server)
        message = error.diagnostics[0].message
        assert len(message) <= 500 and "sk-C" not in message


def test_a_service_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    error, slept = failure(Wire(port=port))
    assert len(slept) == ATTEMPTS - 1 and error.diagnostics[0].code == "provider/unreachable"


def test_an_answer_shows_nothing() -> None:
    got = Answer(status=302, headers={"location": KEY}, body=KEY.encode())
    assert_clean(got)
    with pytest.raises(ValueError) as caught:
        Answer(status=200, headers={}, body=b"{" + KEY.encode()).json()
    assert_clean(caught.value)


# --- files ---


def test_a_free_request_gives_its_answer_whatever_it_is() -> None:
    with wire(http_(409, b'{"file_id":"file-1"}')) as server, client(server.url) as asking:
        got = asking.post("/v1/files", {"purpose": "eval"})
        assert (got.status, got.json()) == (409, {"file_id": "file-1"})
        assert asking.refusal(got).code == "provider/refused"
    with wire(reset) as server, client(server.url) as asking, pytest.raises(EvalopsError) as caught:
        asking.post("/v1/files")
    assert server.posts == 1
    assert_clean(caught.value)


def test_a_download_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    data, to = b"row\n" * 50_000, tmp_path / "rows.jsonl"
    broken = then(http_(200, data[:1000], content_length="200000"), reset)
    with wire(broken, http_(200, data)) as server, client(server.url) as asking:
        assert asking.download("/v1/files/f/content", to) == hashlib.sha256(data).hexdigest()
    assert to.read_bytes() == data and list(tmp_path.iterdir()) == [to]
    to.unlink()
    for reply in (http_(200, data[:9], content_length="10"), http_(404, ECHO), http_(200, data)):
        with wire(reply) as server, client(server.url) as asking, pytest.raises(EvalopsError) as caught:
            asking.download("/v1/files/f/content", to, limit=100)
        assert_clean(caught.value)
        assert list(tmp_path.iterdir()) == []


def test_a_download_from_another_place_takes_no_key_there(tmp_path: Path) -> None:
    with (
        wire(http_(200, b"rows")) as store,
        wire(http_(302, location=f"{store.url}/x?sig=1")) as server,
        client(server.url) as asking,
    ):
        asking.download("/v1/files/f/content", tmp_path / "rows")
    assert b"anary" in server.requests[0][0] and b"anary" not in store.requests[0][0]
    assert store.requests[0][0].startswith(b"GET /x?sig=1 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "place",
    [
        "http://files.example.com/x",
        "ftp://a/b",
        "https://10.0.0.1/x",
        "https://u:p@a.com/",
        "https://[",
        "https://a.com/é",
    ],
)
def test_a_place_that_files_may_not_go_to(place: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1")
    with wire(http_(302, location=place)) as server, client(server.url) as asking:
        with pytest.raises(EvalopsError, match="not allowed"):
            asking.download("/f", tmp_path / "to")
        with pytest.raises(EvalopsError, match="not allowed"):
            asking.upload(f"{server.url}/put", tmp_path / "rows")
    assert len(server.requests) == 2


def test_a_remote_service_does_not_send_files_to_this_machine(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1")
    for place in ("http://127.0.0.1:9/x", "https://localhost:9/x"):
        with client("https://api.example.com") as asking, pytest.raises(EvalopsError, match="it is this machine"):
            asking.upload(place, tmp_path / "rows")


def test_an_endless_redirect_ends(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1")
    with wire(http_(307, location="/again")) as server, client(server.url) as asking:
        with pytest.raises(EvalopsError, match="from one place to the next"):
            asking.download("/f", tmp_path / "to")
        with pytest.raises(EvalopsError, match="from one place to the next"):
            asking.upload(f"{server.url}/put", tmp_path / "rows")


def test_a_file_is_put_without_the_key(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"row\n" * 1000)
    with wire(http_(307, location="/there?a=%2F"), http_(200)) as server, client(server.url) as asking:
        asking.upload(f"{server.url}/put?sig=%2Fa", tmp_path / "rows")
    first, second = server.requests
    assert first[0].startswith(b"PUT /put?sig=%2Fa HTTP/1.1\r\n") and second[0].startswith(
        b"PUT /there?a=%2F HTTP/1.1\r\n"
    )
    assert first[1] == second[1] == b"row\n" * 1000
    assert b"anary" not in first[0] + second[0]


@pytest.mark.parametrize("reply", [http_(201), http_(204), http_(403, ECHO), http_(503), reset])
def test_only_200_is_an_upload_and_it_is_tried_once(reply: Reply, tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b"1")
    with wire(reply) as server, client(server.url) as asking, pytest.raises(EvalopsError) as caught:
        asking.upload(f"{server.url}/put", tmp_path / "rows")
    assert len(server.requests) == 1 and "during the upload" in str(caught.value)
    assert_clean(caught.value)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with wire(http_(200, b"x")) as server, client(server.url) as asking, pytest.raises(EvalopsError) as caught:
        asking.download("/f", tmp_path / "missing" / "to")
    assert_clean(caught.value)


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with wire(http_(200, JOB)) as server:
        post(server)
    assert not [record for record in caplog.records if "http" in record.name]


def test_the_reply_bound_leaves_room_for_an_id() -> None:
    body = json.dumps({"workflow_id": "eval-1", "more": "x" * (MAX_REPLY - 100)}).encode()
    with wire(http_(200, body)) as server:
        assert isinstance(post(server), Answer)
