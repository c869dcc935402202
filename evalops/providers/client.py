"""The one door to a remote service: an HTTP client that asks for paid work once, and for everything else patiently.

An exception of the HTTP library holds the request, and so the key. None leaves this module: what went wrong is told
in our own words, with every secret masked.
"""

from __future__ import annotations

import hashlib
import http.cookiejar
import json
import logging
import random
import ssl
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx

from evalops.endpoint import is_loopback, origin, refusal
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.providers.base import Refused, Unclear
from evalops.secret import Secret, redact
from evalops.web import http_time, proxy_for, retry_after

MAX_REPLY = 1 << 20  # bytes of the answer to a write; it holds an id
MAX_READ = 64 << 20  # bytes of a list of jobs, each with its templates
MAX_FILE = 50 << 30  # bytes of a file
MAX_MESSAGE = 500  # characters of a problem, with what a service says
MAX_HOPS = 5  # redirects of a file's transfer
ATTEMPTS = 6  # of a read
LONGEST_PAUSE = 120.0  # seconds between two attempts

# The service looked at the request and did not take it. Every other status leaves room for doubt.
NOT_TAKEN = frozenset({400, 401, 403, 404, 413, 422})
_PASSING = frozenset({408, 425, 429})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# These would write signed URLs to whatever log is set up.
for _name in ("httpx", "httpcore"):
    logging.getLogger(_name).setLevel(logging.WARNING)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a service answered; `flaw` says why the body is not whole. Its parts may echo secrets: not shown."""

    status: int
    headers: Mapping[str, str] = field(repr=False)  # names in lower case
    body: bytes = field(repr=False)
    flaw: str | None = None

    def json(self) -> Any:
        """The body as JSON. Raises ValueError, without the body, where it is none."""
        try:
            if self.flaw is None:
                return json.loads(self.body)
        except (ValueError, RecursionError):
            pass  # the exception would hold the body
        raise ValueError("the answer is not JSON")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds: to connect, between two pieces of data, and for the whole body of an answer."""

    connect: float = 10.0
    idle: float = 60.0
    body: float = 120.0


class _Failed(NamedTuple):
    """A request without a usable answer. `is_sent`: it may have reached the service."""

    code: str
    why: str
    is_sent: bool = True
    is_passing: bool = True
    pause: float | None = None
    hint: str | None = None


class Lost(NamedTuple):
    """A request without an answer. `is_sent`: it may have reached the service."""

    problem: Diagnostic
    is_sent: bool


class Client:
    """Requests to the service at `base_url`, which may end in `/v1`; paths begin with their version.

    Raises EvalopsError where the URL is not one that a key may be sent to. `service` is the name in messages,
    `key_name` the variable that holds the key, which goes into the header `key_header`, by default as a bearer token.
    `clock`, `now`, `sleep` (seconds) and `chance` serve the waits.
    """

    def __init__(
        self,
        base_url: str,
        key: Secret | None,
        *,
        service: str,
        key_name: str,
        key_header: str | None = None,
        mark: Mark | None = None,
        timeouts: Timeouts | None = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        reason = refusal(base_url) or _unresolvable(base_url)
        if reason:
            shown = f"`{base_url}`" if "@" not in base_url else "the base URL"  # it may hold a password
            raise EvalopsError(Diagnostic(code="provider/url", message=f"{shown} is not allowed: {reason}", mark=mark))
        self.base_url = base_url.rstrip("/").removesuffix("/v1").rstrip("/")
        self.origin = origin(self.base_url)
        self._service, self._key_name = service, key_name
        self._timeouts = timeouts or Timeouts()
        self._clock, self._now, self._sleep, self._chance = clock, now, sleep, chance
        self._offset: float | None = None  # seconds of the service's clock before `clock`
        self._hidden = frozenset([key]) if key else frozenset()
        self._turn = threading.Lock()  # requests may come from several threads
        headers = {"Accept": "application/json"}
        if key:
            headers |= {key_header: key.reveal()} if key_header else {"Authorization": f"Bearer {key.reveal()}"}
        self._reads = self._open(self.base_url, headers)
        # A kept connection may die just as it is used again, which would leave a paid request in doubt.
        self._writes = self._open(self.base_url, headers, keep=0)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._reads.close()
        self._writes.close()

    def time(self) -> datetime:
        """The time by the service's clock, as far as its answers tell: ours may be wrong, or be set back."""
        moment = self._now() if self._offset is None else self._clock() + self._offset
        return datetime.fromtimestamp(moment, UTC)

    def hide(self, secrets: Iterable[Secret]) -> None:
        """Masks further secrets, such as those in the body of a request, in all texts from now on."""
        with self._turn:
            self._hidden |= frozenset(secrets)

    def get(self, path: str, query: Iterable[tuple[str, str]] = ()) -> Any:
        """The JSON at `path`; what may pass is tried again. Raises EvalopsError."""
        params = tuple(query)

        def attempt() -> tuple[Any] | _Failed:
            got = self._ask(self._reads, "GET", self.base_url + path, MAX_READ, params=params)
            return got if isinstance(got, _Failed) else self._read(got)

        return self._patiently(attempt)[0]

    def _read(self, got: Answer) -> tuple[Any] | _Failed:
        """The JSON of an answer."""
        if not 200 <= got.status < 300:
            return self._failed(got)
        try:
            return (got.json(),)
        except ValueError:
            return _Failed("provider/answer", f"answered with {got.flaw or 'what is not JSON'}")

    def post_once(self, path: str, body: bytes) -> Answer | Refused | Unclear:
        """Sends one JSON request that may cost money, exactly once; an Answer is 2xx and JSON.

        Refused: it never left this machine, or the service did not take it. Everything else is Unclear.
        """
        got = self._ask(self._writes, "POST", self.base_url + path, MAX_REPLY, content=body, headers=_JSON)
        if isinstance(got, _Failed):
            return Unclear(self._told(got)) if got.is_sent else Refused((self._problem(got),))
        if got.status in NOT_TAKEN:
            return Refused((self.refusal(got),))
        if not 200 <= got.status < 300:
            return Unclear(self._told(self._failed(got)))
        try:
            got.json()
        except ValueError:
            return Unclear(f"{self._service} answered {got.status} with {got.flaw or 'what is not JSON'}")
        return got

    def call(self, path: str, body: bytes) -> Answer | Lost:
        """Sends one JSON request that may cost money, once; the answer whatever its status, or why there is none."""
        got = self._ask(self._writes, "POST", self.base_url + path, MAX_READ, content=body, headers=_JSON)
        return Lost(self._problem(got), is_sent=got.is_sent) if isinstance(got, _Failed) else got

    def ask(self, path: str, body: bytes) -> Any:
        """The JSON that answers a free JSON request which may be repeated. Raises EvalopsError."""

        def attempt() -> tuple[Any] | _Failed:
            got = self._ask(self._writes, "POST", self.base_url + path, MAX_READ, content=body, headers=_JSON)
            return got if isinstance(got, _Failed) else self._read(got)

        return self._patiently(attempt)[0]

    def post(self, path: str, fields: Mapping[str, str] | None = None) -> Answer:
        """Sends a free request once, with the fields of a form or empty; the answer, whatever its status.

        Raises EvalopsError where there is no answer.
        """
        form = [(name, (None, value)) for name, value in fields.items()] if fields else None
        got = self._ask(self._writes, "POST", self.base_url + path, MAX_REPLY, files=form)
        if isinstance(got, _Failed):
            raise EvalopsError(self._problem(got))
        return got

    def masked(self, text: str) -> str:
        """A text of the service without the secrets that it may echo."""
        return redact(text, self._hidden)

    def refusal(self, answer: Answer) -> Diagnostic:
        """An answer that is not the wanted one, as a problem."""
        return self._problem(self._failed(answer))

    def upload(self, url: str, path: Path) -> None:
        """Streams a file to a signed URL, of this or another host, without the key. Raises EvalopsError."""
        for _ in range(MAX_HOPS):
            with self._stranger(url) as client, path.open("rb") as stream:
                got = self._ask(client, "PUT", url, MAX_REPLY, content=stream)
            if isinstance(got, _Failed):
                break
            if got.status == 200:
                return
            if got.status not in _REDIRECTS or "location" not in got.headers:
                got = self._failed(got)
                break
            url = _joined(url, got.headers["location"])
        else:
            got = _Failed("provider/redirect", "sends the upload from one place to the next")
        assert isinstance(got, _Failed)
        raise EvalopsError(self._problem(got._replace(why=f"{got.why} (during the upload of a file)")))

    def download(self, path: str, to: Path, *, limit: int = MAX_FILE) -> str:
        """Streams what is at `path` to a file and returns its sha256; a broken transfer is begun again.

        The file appears whole or not at all. The service may refer to another host, which does not get the key.
        Raises EvalopsError.
        """
        return self._patiently(lambda: self._fetch(path, to, limit))

    def _fetch(self, path: str, to: Path, limit: int) -> str | _Failed:
        url, client = self.base_url + path, self._reads
        for _ in range(MAX_HOPS):
            got = self._save(client, url, to, limit)
            if isinstance(got, str | _Failed):
                return got
            url = _joined(url, got.headers["location"])
            client = self._stranger(url)
        return _Failed("provider/redirect", "sends the download from one place to the next", is_passing=False)

    def _save(self, client: httpx.Client, url: str, to: Path, limit: int) -> str | Answer | _Failed:
        """The sha256 of what was saved; or the redirect that came in its place."""
        digest, part = hashlib.sha256(), None
        try:
            with client.stream("GET", url, headers={"Accept": "*/*"}) as response:
                if response.status_code != 200:
                    got = self._answer(response, MAX_REPLY)
                    is_redirect = got.status in _REDIRECTS and "location" in got.headers
                    return got if is_redirect else self._failed(got)
                size = 0
                with tempfile.NamedTemporaryFile(dir=to.parent, delete=False) as stream:
                    part = Path(stream.name)
                    for chunk in response.iter_bytes():
                        size += len(chunk)
                        if size > limit:
                            return _Failed("provider/answer", f"sends more than {limit:,} bytes", is_passing=False)
                        digest.update(chunk)
                        stream.write(chunk)
            part.replace(to)
            return digest.hexdigest()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return self._lost(error)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            problem = Diagnostic(code="provider/file", message=f"`{to.name}` cannot be written: {reason}")
        finally:
            if part is not None:
                part.unlink(missing_ok=True)
            if client is not self._reads:
                client.close()
        raise EvalopsError(problem)

    def _ask(self, client: httpx.Client, method: str, url: str, limit: int, **content: Any) -> Answer | _Failed:
        """One request: its answer with any status, or why there is none."""
        try:
            with client.stream(method, url, **content) as response:
                return self._answer(response, limit)
        except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
            return self._lost(error)

    def _answer(self, response: httpx.Response, limit: int) -> Answer:
        body, flaw, until = bytearray(), None, self._clock() + self._timeouts.body
        try:
            for chunk in response.iter_raw():  # never unpacked: a few bytes could fill the memory
                body += chunk
                if len(body) > limit:
                    flaw = f"more than {limit:,} bytes"
                elif self._clock() > until:
                    flaw = f"data that did not end within {self._timeouts.body:g} s"
                if flaw:
                    break
        except httpx.HTTPError:
            flaw = "data that broke off"
        headers = {name.lower(): value for name, value in response.headers.items()}
        if (said := http_time(headers.get("date", ""))) is not None:
            offset = said.timestamp() - self._clock()
            # A date is cut to seconds: of two that differ by less, the greater is nearer the truth.
            if self._offset is None or not 0 <= self._offset - offset < 1:
                self._offset = offset
        return Answer(status=response.status_code, headers=headers, body=b"" if flaw else bytes(body), flaw=flaw)

    def _lost(self, error: Exception) -> _Failed:
        """A request without an answer. The texts of connection errors are the operating system's, others are ours."""
        hint = "check the network, the proxy settings and `base_url`"
        match error:
            case httpx.ProxyError():
                why = f"could not be reached: the proxy refused the connection ({error})"
            case httpx.ConnectTimeout():
                why = "could not be reached: connecting took too long"
            case httpx.ConnectError():
                why = f"could not be reached: {str(error).rpartition('] ')[2] or 'no connection'}"
            case httpx.InvalidURL() | httpx.UnsupportedProtocol() | UnicodeError():
                why = "could not be asked: no valid address"
                return _Failed("provider/url", why, is_sent=False, is_passing=False, hint=hint)
            case httpx.TimeoutException():
                return _Failed("provider/no-answer", f"gave no answer within {self._timeouts.idle:g} s")
            case _:
                return _Failed("provider/no-answer", "broke the connection off before its answer was whole")
        return _Failed("provider/unreachable", why, is_sent=False, hint=hint)

    def _failed(self, answer: Answer) -> _Failed:
        """An answer with a status that was not wanted."""
        status, said = answer.status, _message(answer)
        why = f"answered {status}" + (f": {said}" if said else "")
        pause = retry_after(answer.headers, self._now)
        if status == 401:
            return _Failed("provider/auth", why, is_passing=False, hint=f"check the key in `{self._key_name}`")
        if status in _PASSING or status >= 500:
            code = "rate-limited" if status == 429 else "unavailable"
            hint = f"it asks to be left alone for {pause:,.0f} s" if pause and pause > LONGEST_PAUSE else None
            return _Failed(f"provider/{code}", why, pause=pause, hint=hint)
        code = "redirect" if 300 <= status < 400 else "not-found" if status == 404 else "refused"
        return _Failed(f"provider/{code}", why, is_passing=False)

    def _patiently(self, attempt: Callable[[], T | _Failed]) -> T:
        number = 1
        while isinstance(got := attempt(), _Failed):
            wait = min(0.5 * 2**number, 20.0) * (0.5 + self._chance() / 2) if got.pause is None else got.pause
            if not got.is_passing or wait > LONGEST_PAUSE or number == ATTEMPTS:
                raise EvalopsError(self._problem(got))
            self._sleep(wait)
            number += 1
        return got

    def _problem(self, failed: _Failed) -> Diagnostic:
        return Diagnostic(code=failed.code, message=self._told(failed), hint=failed.hint)

    def _told(self, failed: _Failed) -> str:
        # Masked first and cut last, so that no part of a secret is left over.
        text = redact(" ".join(redact(f"{self._service} {failed.why}", self._hidden).split()), self._hidden)
        return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"

    def _stranger(self, url: str) -> httpx.Client:
        """A client for a place that the service named: no key, and no way into this machine or its network."""
        here = is_loopback(urlsplit(self.base_url).hostname or "")
        reason = refusal(url.partition("?")[0]) or _unresolvable(url)
        if reason is None and is_loopback(urlsplit(url).hostname or "") and not here:
            reason = "it is this machine"
        if reason or not (url.isascii() and url.isprintable()):
            why = f"names a place for a file that is not allowed: {reason or 'it is no URL'}"
            raise EvalopsError(self._problem(_Failed("provider/redirect", why)))
        return self._open(url, {})

    def _open(self, url: str, headers: Mapping[str, str], *, keep: int = 20) -> httpx.Client:
        times = self._timeouts
        try:
            return httpx.Client(
                headers={"User-Agent": "evalops", "Accept-Encoding": "identity", **headers},
                timeout=httpx.Timeout(times.idle, connect=times.connect),
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=keep),
                proxy=proxy_for(url, urllib.request.getproxies()),
                verify=_certificates(),
                trust_env=False,  # .netrc could send another key
                follow_redirects=False,
                cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
            )
        except (ValueError, ImportError, httpx.InvalidURL):
            problem = Diagnostic(code="provider/proxy", message="the proxy in the environment cannot be used")
        raise EvalopsError(problem)


_JSON = {"Content-Type": "application/json"}


@cache
def _certificates() -> ssl.SSLContext:
    return ssl.create_default_context()


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError:
        return ""  # which is no place


def _unresolvable(url: str) -> str | None:
    try:
        (urlsplit(url).hostname or "").encode("idna")
    except UnicodeError:
        return "its host is no name"
    return None


def _message(answer: Answer) -> str:
    """What an error answer says: the `message` of its envelope, or the `detail` of FastAPI's."""
    try:
        body = answer.json()
    except ValueError:
        return ""
    if isinstance(body, dict) and "detail" in body:
        return _detail(body["detail"])
    error = body.get("error", body) if isinstance(body, dict) else None
    said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) else ""


def _detail(detail: Any) -> str:
    """A text, or a list of what is wrong and where."""
    if isinstance(detail, str):
        return detail
    said = []
    for each in detail if isinstance(detail, list) else ():
        place, message = (each.get("loc"), each.get("msg")) if isinstance(each, dict) else (None, each)
        where = ".".join(map(str, place)) if isinstance(place, list) else ""
        said.append(f"{where}: {message}" if where else str(message))
    return "; ".join(said)
