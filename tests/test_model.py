"""Calls to models, against a real HTTP server on loopback; waits between attempts pass on a clock of their own."""

from __future__ import annotations

import asyncio
import base64
import copy
import email.utils
import json
import pickle
import random
import shutil
import socket
import ssl
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from model_server import Config, serve, spawn

from evalops.engine.model import CallFailed, Client, Endpoint, Kind, Policy, Reply, Route, Secret
from evalops.secret import redact
from evalops.web import proxy_for

KEY = 'sk-Canary/+"7&%key'  # whatever a form of writing could change

RETRIED = ("truncated", "garbage", "deep", "drop", "empty", "error-200", "text")
SCHEMA = {"type": "object", "properties": {"reason": {"type": "string"}, "label": {"enum": ["polite", "rude"]}}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": SCHEMA}}


class Time:
    """A clock that only sleeping moves; `slept` is what was asked for."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


def body(text: str = "truth=polite") -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "response_format": FORMAT}


def using(run: Callable[[Client], Awaitable[Any]], clock: Time | None = None, **settings: Any) -> Any:
    """The result of `run` with a client, on a clock of its own."""
    clock = clock or Time()

    async def inside() -> Any:
        settings.setdefault("chance", random.Random(7))
        settings.setdefault("proxies", {})
        async with Client(clock=clock, sleep=clock.sleep, **settings) as client:
            return await run(client)

    return asyncio.run(inside())


def ask(
    url: str, *, text: str = "truth=polite", key: Secret | None = None, clock: Time | None = None, **policy: Any
) -> Reply:
    """One call with a client of its own."""
    endpoint = Endpoint(base_url=url, model="m", key=key)
    reply = using(lambda client: client.call(endpoint, Route.CHAT, body(text)), clock, policy=Policy(**policy))
    assert isinstance(reply, Reply)
    return reply


def failure(url: str, **settings: Any) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        ask(url, **settings)
    error = caught.value
    assert error.__cause__ is None and error.__context__ is None  # they could carry the request
    assert "\n" not in error.message and len(error.message) <= 300
    return error


def closed_port() -> str:
    """A URL where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/v1"


# What a reply is


def test_a_reply_has_text_and_tokens() -> None:
    with serve() as server:
        reply = ask(server.url, key=Secret("sk-1"))
        request = server.seen[0]
    assert json.loads(reply.content)["label"] == "polite"
    assert reply.finish_reason == "stop"
    assert reply.refusal is None and reply.probabilities is None
    assert reply.prompt_tokens == len("truth=polite") // 4 + 1
    assert reply.completion_tokens == len(reply.content) // 4 + 1
    assert request.path == "/v1/chat/completions"
    assert request.json == {"model": "m", **body()}
    assert request.header("Authorization") == "Bearer sk-1"
    assert request.header("Content-Type") == "application/json"


def test_bytes_are_sent_as_they_are_and_no_key_means_no_header() -> None:
    data = b'{ "messages": [{"content": "truth=a"}],   "model": "other"}'
    with serve() as server:
        endpoint = Endpoint(base_url=server.url + "/", model="m")
        using(lambda client: client.call(endpoint, Route.CHAT, data))
        assert server.seen[0].body == data
        assert server.seen[0].path == "/v1/chat/completions"
        assert server.seen[0].header("Authorization") is None


def test_an_endpoint_need_not_count_tokens() -> None:
    with serve(Config(usage=False)) as server:
        reply = ask(server.url)
    assert reply.prompt_tokens is None and reply.completion_tokens is None


@pytest.mark.parametrize(
    ("fault", "content", "finish_reason", "refusal"),
    [
        ("refusal", "", "stop", "I cannot help with that."),
        ("null", "", "stop", None),
        ("filtered", "", "content_filter", None),
        ("length", '{"rea', "length", None),
        ("unusable", "I would rather talk about the weather.", "stop", None),
    ],
)
def test_an_answer_without_a_verdict_is_still_a_reply(
    fault: str, content: str, finish_reason: str, refusal: str | None
) -> None:
    with serve(Config(script=(fault,))) as server:
        reply = ask(server.url)
        assert server.ledger.requests == 1
    assert (reply.content, reply.finish_reason, reply.refusal) == (content, finish_reason, refusal)


@pytest.mark.parametrize("fault", ["parts", "plain-type"])
def test_dialects_are_understood(fault: str) -> None:
    with serve(Config(script=(fault,))) as server:
        assert json.loads(ask(server.url).content)["label"] == "polite"
        assert server.ledger.requests == 1


@pytest.mark.parametrize("llama", [False, True])
def test_completions_give_the_probabilities_of_the_first_token(llama: bool) -> None:
    with serve(Config(labels=("good", "bad", "mixed"), llama_logprobs=llama)) as server:
        endpoint = Endpoint(base_url=server.url, model="m")
        wanted = {"prompt": "Review: truth=bad\nSentiment:", "logprobs": 5, "max_tokens": 1}
        reply = using(lambda client: client.call(endpoint, Route.COMPLETIONS, wanted))
        assert server.seen[0].path == "/v1/completions"
    assert reply.content == "bad"
    assert reply.probabilities == pytest.approx({"good": 0.1, "bad": 0.8, "mixed": 0.1})


def test_text_that_no_file_could_hold_is_made_storable() -> None:
    with serve() as server:
        endpoint = Endpoint(base_url=server.url, model="m")
        wanted = {"messages": [{"role": "user", "content": "a label with half a pair"}], "grammar": '"\ud83d"'}
        reply = using(lambda client: client.call(endpoint, Route.CHAT, wanted))
    assert reply.content.encode() == b"?"


# What is tried again, and what is not


@pytest.mark.parametrize(
    "fault",
    [*map(str, (408, 409, 425, 429, 500, 502, 503, 504, 529)), *RETRIED],
)
def test_what_can_pass_is_tried_again(fault: str) -> None:
    with serve(Config(script=("ok", fault, fault))) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> tuple[int, Reply]:
            await client.call(endpoint, Route.CHAT, body())
            return client.sent, await client.call(endpoint, Route.CHAT, body())

        before, reply = using(run)
        assert json.loads(reply.content)["label"] == "polite"
        assert (before, server.ledger.requests) == (1, 4)


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_rejected_request_fails_alone_and_at_once(status: int) -> None:
    with serve(Config(script=(str(status),))) as server:
        error = failure(server.url)
        assert server.ledger.requests == 1
    assert (error.kind, error.status, error.fatal) == (Kind.REJECTED, status, False)
    assert error.message.endswith(f": The server says {status}")


def test_refused_formats_and_long_prompts_are_rejections() -> None:
    with serve(Config(refuse=("json_schema",))) as server:
        assert failure(server.url).kind is Kind.REJECTED
    with serve(Config(context=10)) as server:
        assert failure(server.url).kind is Kind.REJECTED


@pytest.mark.parametrize("status", [401, 402, 403, 404, 405, 410])
def test_what_would_fail_every_row_stops_the_endpoint(status: int) -> None:
    with serve(Config(script=(str(status),))) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> list[CallFailed]:
            errors = []
            for text in ("one", "two"):
                with pytest.raises(CallFailed) as caught:
                    await client.call(endpoint, Route.CHAT, body(text))
                errors.append(caught.value)
            return errors

        first, second = using(run)
        assert server.ledger.requests == 1
    assert first.fatal and first.kind is Kind.STATUS and first.status == status
    assert first.message == second.message and first is not second
    assert first.message.startswith(f"`{server.url.removesuffix('/v1')}` ")


def test_a_403_after_replies_is_about_the_row() -> None:
    with serve(Config(script=("ok", "403", "ok"))) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> CallFailed:
            await client.call(endpoint, Route.CHAT, body())
            with pytest.raises(CallFailed) as caught:
                await client.call(endpoint, Route.CHAT, body())
            await client.call(endpoint, Route.CHAT, body())
            return caught.value

        assert not using(run).fatal


def test_the_wrong_key_and_no_key_are_told_apart() -> None:
    with serve(Config(key="right")) as server:
        wrong = failure(server.url, key=Secret("wrong-key"))
        none = failure(server.url)
    assert "refuses the key (401)" in wrong.message
    assert "wants a key and has been given none (401)" in none.message


def test_an_unknown_model_is_named_by_the_endpoint() -> None:
    with serve(Config(models=("other",))) as server:
        error = failure(server.url)
    assert error.fatal and "The model `m` does not exist" in error.message


def test_a_spent_quota_is_not_waited_for() -> None:
    with serve(Config(script=("quota",) * 3)) as server:
        error = failure(server.url)
        assert server.ledger.requests == 1
    assert error.fatal and error.kind is Kind.RATE_LIMITED


def test_tries_end_with_the_last_error() -> None:
    clock = Time()
    with serve(Config(faults={"500": 1.0})) as server:
        error = failure(server.url, clock=clock)
        assert server.ledger.requests == 6
    assert (error.kind, error.status, error.fatal) == (Kind.STATUS, 500, False)
    assert len(clock.slept) == 5
    assert all(0 <= slept <= 0.5 * 2**n for n, slept in enumerate(clock.slept))
    assert len(set(clock.slept)) == 5


def test_a_hang_ends_with_the_attempt_and_is_tried_again() -> None:
    with serve(Config(script=("ok", "hang"))) as server:
        assert ask(server.url, attempt_timeout=0.05)
        assert ask(server.url, attempt_timeout=0.05)
        assert server.stats()["answers"] == {"ok": 2, "hang": 1}
    with serve(Config(faults={"hang": 1.0})) as server:
        error = failure(server.url, attempt_timeout=0.03, attempts=2)
        assert server.ledger.requests == 2
    assert error.kind is Kind.TIMEOUT and error.fatal  # nothing has ever been answered
    assert "gave no answer within 0.03 s" in error.message


@pytest.mark.parametrize("fault", ["large"])
def test_a_reply_without_end_is_not_read(fault: str) -> None:
    with serve(Config(script=(fault,) * 9)) as server:
        error = failure(server.url)
    assert error.kind is Kind.REPLY and "larger than 8 MiB" in error.message


def test_a_web_page_means_the_wrong_address_unless_the_endpoint_has_worked() -> None:
    with serve(Config(script=("html",) * 9)) as server:
        error = failure(server.url)
        assert server.ledger.requests == 1
    assert error.kind is Kind.REPLY and error.fatal and "web page" in error.message
    with serve(Config(script=("ok", "html"))) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> None:
            for _ in range(2):
                await client.call(endpoint, Route.CHAT, body())

        using(run)
        assert server.ledger.requests == 3


# Rate limits


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry_after": "30"}, 30, 30),
        ({"retry_after": "0.25"}, 0.25, 0.25),
        ({"retry_after": "30", "retry_after_ms": "1500"}, 1.5, 1.5),
        ({"retry_after": "86400"}, 60, 60),
        ({"retry_after": email.utils.formatdate(2_000_000_000, usegmt=True)}, 60, 60),
        ({"retry_after": email.utils.formatdate(0, usegmt=True)}, 0, 0.5),
        ({"retry_after": "0"}, 0, 0.5),
        ({"retry_after": "soon"}, 0, 0.5),
        ({"retry_after": "nan"}, 0, 0.5),
        ({"retry_after": "-5"}, 0, 0.5),
        ({}, 0, 0.5),
    ],
)
def test_retry_after_is_kept_up_to_a_bound(headers: dict[str, str], low: float, high: float) -> None:
    clock = Time()
    with serve(Config(script=("429",), **headers)) as server:  # type: ignore[arg-type]
        ask(server.url, clock=clock)
        assert server.ledger.requests == 2
    assert low <= clock.now - 1000 <= high


def test_a_pause_is_shared_by_all_calls_of_the_endpoint() -> None:
    clock = Time()
    with serve(Config(script=("429",), retry_after="20")) as server:
        endpoint = Endpoint(base_url=server.url, model="m", max_in_flight=1)

        async def run(client: Client) -> list[float]:
            async def one(text: str) -> float:
                await client.call(endpoint, Route.CHAT, body(text))
                return clock.now

            first = asyncio.create_task(one("first"))
            await asyncio.sleep(0)
            server.config = Config(script=("429",), retry_after="20")
            return await asyncio.gather(first, *(one(text) for text in "abc"))

        ends = using(run, clock)
        assert server.stats()["answers"] == {"429": 4, "ok": 4}
    assert all(end >= 1020 for end in ends)


def test_rate_limits_do_not_use_up_the_tries() -> None:
    with serve(Config(script=("429",) * 12, retry_after="5")) as server:
        assert ask(server.url)
        assert server.ledger.requests == 13


def test_an_endpoint_that_only_limits_ends_the_run_after_one_row() -> None:
    clock = Time()
    with serve(Config(faults={"429": 1.0}, retry_after="25")) as server:
        error = failure(server.url, clock=clock)
    assert error.kind is Kind.RATE_LIMITED and error.fatal
    assert 250 <= clock.now - 1000 <= 300


def test_the_window_finds_what_the_endpoint_can_take() -> None:
    with serve(Config(capacity=4, latency_ms=1, retry_after_ms="1")) as server:
        endpoint = Endpoint(base_url=server.url, model="m", max_in_flight=32)

        async def run(client: Client) -> int:
            texts = (f"{number} truth=rude" for number in range(200))
            replies = await asyncio.gather(*(client.call(endpoint, Route.CHAT, body(text)) for text in texts))
            assert all(json.loads(reply.content)["label"] == "rude" for reply in replies)
            return client.sent

        sent = using(run)
        stats = server.stats()
    assert stats["answers"]["ok"] == stats["distinct"] == 200
    assert stats["requests"] == sent < 400


# Endpoints that are not there


def test_an_endpoint_that_is_down_ends_all_calls_with_one_message() -> None:
    clock, url = Time(), closed_port()
    endpoint = Endpoint(base_url=url, model="m")

    async def run(client: Client) -> list[BaseException | Reply]:
        calls = (client.call(endpoint, Route.CHAT, body(str(number))) for number in range(40))
        return await asyncio.gather(*calls, return_exceptions=True)

    errors = using(run, clock)
    assert {str(error) for error in errors} == {
        f"`{url.removesuffix('/v1')}` could not be reached: connection refused (tried for 10 s)"
    }
    assert all(isinstance(error, CallFailed) and error.fatal and error.kind is Kind.CONNECT for error in errors)
    assert clock.now - 1000 < 100  # many sleepers move this clock at once


def test_an_endpoint_that_starts_late_is_waited_for() -> None:
    url = closed_port()

    class Late(Time):
        async def sleep(self, seconds: float) -> None:
            if len(self.slept) == 3:
                self.server = spawn(port=int(url.split(":")[2].removesuffix("/v1")))
                self.server.__enter__()
            await super().sleep(seconds)

    clock = Late()
    try:
        assert ask(url, clock=clock)
    finally:
        clock.server.__exit__(None, None, None)


def test_an_endpoint_that_goes_away_is_given_a_minute() -> None:
    clock = Time()
    with serve() as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> CallFailed:
            await client.call(endpoint, Route.CHAT, body())
            server.close()
            with pytest.raises(CallFailed) as caught:
                await client.call(endpoint, Route.CHAT, body())
            return caught.value

        error = using(run, clock)
    assert error.fatal and "(tried for 60 s)" in error.message
    assert 60 <= clock.now - 1000 <= 90


def test_a_port_that_only_hangs_up_is_down() -> None:
    with serve(Config(faults={"drop": 1.0})) as server:
        error = failure(server.url)
    assert error.fatal and error.kind is Kind.CONNECT
    assert "closed the connection without an answer (tried for 10 s)" in error.message


def test_rows_that_rest_are_woken_when_the_endpoint_is_given_up() -> None:
    class Long(Time):
        all_rest: asyncio.Event

        async def sleep(self, seconds: float) -> None:
            self.slept.append(seconds)
            if len(self.slept) == 3:
                self.all_rest.set()
            await asyncio.Event().wait()

    clock = Long()
    clock.all_rest = asyncio.Event()
    with serve(Config(script=("500",))) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> list[BaseException | Reply]:
            resting = [asyncio.create_task(client.call(endpoint, Route.CHAT, body(text))) for text in "abc"]
            await asyncio.wait_for(clock.all_rest.wait(), 5)
            server.config = Config(key="another")
            resting.append(asyncio.create_task(client.call(endpoint, Route.CHAT, body("d"))))
            return await asyncio.wait_for(asyncio.gather(*resting, return_exceptions=True), 5)

        errors = using(run, clock)
    assert [error.status for error in errors] == [401] * 4


def test_a_host_that_cannot_be_is_no_bug() -> None:
    error = failure(f"https://{'a' * 64}.example/v1")
    assert error.fatal and "no valid address" in error.message


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "http://[::"])
def test_a_proxy_that_cannot_be_used_is_said_at_once(proxy: str) -> None:
    endpoint = Endpoint(base_url="https://api.example.com/v1", model="m")
    clock = Time()
    with pytest.raises(CallFailed, match="proxy") as caught:
        using(lambda client: client.call(endpoint, Route.CHAT, body()), clock, proxies={"https": proxy})
    assert caught.value.fatal and not clock.slept


@pytest.mark.parametrize("url", ["http://example.com/v1", "https://user:pass@example.com/v1", "ftp://127.0.0.1", ""])
def test_an_address_that_a_spec_may_not_name_is_not_called_either(url: str) -> None:
    with pytest.raises(ValueError, match="is not allowed"):
        ask(url)


# Where rows and keys go


def test_redirects_are_not_followed() -> None:
    with serve() as target:
        with serve(Config(script=("redirect",), location=f"{target.url}/chat/completions?q=1")) as server:
            error = failure(server.url, key=Secret(KEY))
        assert target.ledger.requests == 0
    assert error.fatal and error.status == 307
    assert f"redirects to `{target.url}/chat/completions` (307)" in error.message


def test_tls_is_not_optional() -> None:
    with serve() as server:
        error = failure(server.url.replace("http:", "https:"))
        assert server.ledger.requests == 0
    assert error.fatal and error.kind is Kind.CONNECT and "TLS" in error.message


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")
def test_a_certificate_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=localhost"
    files = ["-keyout", str(key), "-out", str(certificate), "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(tls=context) as server:
        error = failure(server.url, key=Secret(KEY))
        assert server.ledger.requests == 0
    assert error.fatal and "failed the TLS check: self" in error.message


def test_no_netrc_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\ndefault login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with serve() as server:
        ask(server.url)
        assert server.seen[0].header("Authorization") is None


def test_a_proxy_sees_neither_rows_nor_key() -> None:
    with serve() as proxy:
        endpoint = Endpoint(base_url="https://api.example.com/v1", model="m", key=Secret(KEY))
        with pytest.raises(CallFailed, match="the proxy answered 404") as caught:
            using(
                lambda client: client.call(endpoint, Route.CHAT, body("private")),
                proxies={"https": proxy.url.removesuffix("/v1")},
            )
        seen = proxy.seen[0]
    assert caught.value.fatal
    assert seen.path == "api.example.com:443"
    assert seen.header("Authorization") is None and seen.body == b""


@pytest.mark.parametrize(
    ("url", "proxies", "found"),
    [
        ("https://api.example.com/v1", {"https": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://api.example.com/v1", {"all": "http://proxy:3128"}, "http://proxy:3128"),
        ("https://api.example.com/v1", {"https": "proxy:3128"}, "http://proxy:3128"),
        ("https://api.example.com/v1", {"http": "http://proxy:3128"}, None),
        ("https://api.example.com/v1", {"https": "http://proxy:3128", "no": ".example.com"}, None),
        ("https://api.example.com/v1", {"https": "http://proxy:3128", "no": "example.org"}, "http://proxy:3128"),
        ("http://127.0.0.1:8080/v1", {"http": "http://proxy:3128", "all": "http://proxy:3128"}, None),
        ("http://[::1]:8080/v1", {"http": "http://proxy:3128"}, None),
        ("https://api.example.com/v1", {}, None),
    ],
)
def test_proxies_are_for_other_machines(url: str, proxies: dict[str, str], found: str | None) -> None:
    assert proxy_for(url, proxies) == found


# Secrets


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(KEY)
    endpoint = Endpoint(base_url="https://api.example.com/v1", model="m", key=secret)
    for text in (str(secret), repr(secret), f"{secret}", f"{secret!r:>5}", "%s" % secret, repr(endpoint)):  # noqa: UP031
        assert "Canary" not in text and "***" in text
    for copied in (lambda: pickle.dumps(secret), lambda: copy.deepcopy(endpoint)):
        with pytest.raises(TypeError, match="not pickled or copied"):
            copied()
    assert secret.reveal() == KEY
    assert secret == Secret(KEY) and hash(secret) == hash(Secret(KEY)) and secret != KEY


@pytest.mark.parametrize("value", ["", " ", "key\n", "key\r\nX-Header: 1", "schlüssel", "a\0b", " key"])
def test_a_secret_that_would_break_a_header_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="a secret must be printable ASCII"):
        Secret(value)


def test_an_endpoint_that_repeats_the_key_does_not_give_it_away() -> None:
    with serve(Config(faults={"echo": 1.0})) as server:
        message = failure(server.url, key=Secret(KEY)).message
    assert "***" in message
    assert "Canary" not in message and "FuYXJ5" not in message and KEY.encode().hex()[:10] not in message


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY, safe=""),
        quote(KEY, safe="").lower(),
        json.dumps(KEY)[1:-1],
        json.dumps(KEY)[1:-1].replace("/", r"\/"),
        KEY.replace("&", "&amp;").replace('"', "&quot;"),
        KEY.encode().hex(),
        base64.b64encode(KEY.encode()).decode(),
        base64.b64encode(f"Bearer {KEY}".encode()).decode(),
        base64.urlsafe_b64encode(f"k:{KEY}:x".encode()).decode(),
        base64.b64encode(f"ab{KEY}".encode()).decode().rstrip("="),
    ],
)
def test_every_form_of_a_secret_is_masked(form: str) -> None:
    found = redact(f"before {form} after", [Secret("another-key"), Secret(KEY)])
    left = found.removeprefix("before ").removesuffix(" after")
    assert "***" in left and len(left.replace("***", "")) <= 16, left  # of base64: what stood beside the key


def test_words_that_are_no_secret_stay() -> None:
    assert redact("none of it", [Secret("x"), Secret("no")]) == "none of it"
    assert redact("nothing", []) == "nothing"


# Many calls


def test_connections_are_shared_and_bounded() -> None:
    with serve(Config(latency_ms=2)) as server:
        wide = Endpoint(base_url=server.url, model="m", max_in_flight=8)
        narrow = Endpoint(base_url=server.url, model="m", max_in_flight=2)

        async def run(client: Client) -> None:
            calls = (client.call(endpoint, Route.CHAT, body(str(n))) for n in range(60) for endpoint in (narrow, wide))
            await asyncio.gather(*calls)

        using(run)
        stats = server.stats()
    assert stats["requests"] == 120
    assert stats["max_in_flight"] == 8  # one limiter for both, with the larger bound
    assert stats["connections"] <= 8


def test_a_cancelled_call_gives_its_slot_back() -> None:
    with serve(Config(script=("hang",))) as server:
        endpoint = Endpoint(base_url=server.url, model="m", max_in_flight=1)

        async def run(client: Client) -> Reply:
            hanging = asyncio.create_task(client.call(endpoint, Route.CHAT, body("hangs")))
            while not server.ledger.requests:  # noqa: ASYNC110 - the server lives in another thread
                await asyncio.sleep(0.001)
            server.config = Config()
            next_ = asyncio.create_task(client.call(endpoint, Route.CHAT, body("next")))
            await asyncio.sleep(0)
            hanging.cancel()
            return await asyncio.wait_for(next_, 5)

        assert using(run).content


def test_nothing_is_sent_after_the_deadline() -> None:
    clock = Time()
    with serve(Config(faults={"500": 1.0})) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> list[CallFailed]:
            errors = []
            for deadline in (999.0, 1005.0):
                with pytest.raises(CallFailed) as caught:
                    await client.call(endpoint, Route.CHAT, body(), deadline=deadline)
                errors.append(caught.value)
            return errors

        # The first wait of this chance is longer than the five seconds that are left.
        late, last = using(run, clock, policy=Policy(backoff=20.0))
        assert server.ledger.requests == 1
    assert late.kind is Kind.TIMEOUT and "before the deadline" in late.message
    assert last.status == 500  # the wait would have ended after the deadline
    assert not clock.slept


@pytest.mark.slow
def test_a_run_with_every_fault_ends_and_counts_exactly() -> None:
    faults = {"unusable": 0.2, "429": 0.1, "500": 0.05, "hang": 0.01, "drop": 0.02, "truncated": 0.02, "400": 0.02}
    with serve(Config(faults=faults, retry_after_ms="5")) as server:
        endpoint = Endpoint(base_url=server.url, model="m")

        async def run(client: Client) -> tuple[Client, list[Reply | BaseException]]:
            calls = (client.call(endpoint, Route.CHAT, body(f"{n} truth=rude")) for n in range(400))
            return client, await asyncio.gather(*calls, return_exceptions=True)

        client, results = using(run, policy=Policy(attempt_timeout=0.5))
        stats = server.stats()
    replies = [result for result in results if isinstance(result, Reply)]
    rejected = [result for result in results if isinstance(result, CallFailed) and result.kind is Kind.REJECTED]
    assert len(replies) + len(rejected) == 400
    assert client.sent == stats["requests"] and stats["distinct"] == 400
    assert len(rejected) == stats["answers"]["400"]
    assert len(replies) == stats["answers"]["ok"] + stats["answers"]["unusable"]


# The server itself


def test_the_server_in_its_own_process_counts_and_repeats_itself() -> None:
    config = Config(faults={"500": 0.3}, labels=("a", "b"))
    found = []
    for _ in range(2):
        with spawn(config) as server:
            endpoint = Endpoint(base_url=server.url, model="m")

            async def run(client: Client, endpoint: Endpoint = endpoint) -> list[str]:
                wanted = ({"messages": [{"role": "user", "content": f"row {n}"}]} for n in range(30))
                return [(await client.call(endpoint, Route.CHAT, each)).content for each in wanted]

            contents = using(run)
            found.append((contents, server.stats(prompts=True)["prompts"], server.stats()["answers"]))
    assert found[0] == found[1]
    contents, prompts, answers = found[0]
    assert set(contents) == {"a", "b"}
    assert answers["ok"] == len(prompts) == 30
    assert sum(prompts.values()) == 30 + answers["500"]
