"""Calls to models behind OpenAI-compatible endpoints: one connection pool, retries, a limiter for each."""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from evalops import __version__
from evalops.endpoint import refusal
from evalops.engine import failure, reply
from evalops.engine.failure import CallFailed, Failure, Kind
from evalops.engine.lane import Endpoint, Lane, Route
from evalops.engine.limiter import Clock, Limiter, Signal, Sleep
from evalops.engine.reply import Reply
from evalops.secret import Secret
from evalops.web import proxy_for

__all__ = ["CallFailed", "Client", "Endpoint", "Kind", "Policy", "Reply", "Route", "Secret"]

LARGEST_BODY = 8 * 2**20  # bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long a call is tried. All times in seconds."""

    attempt_timeout: float = 120.0
    connect_timeout: float = 10.0
    row_timeout: float = 300.0  # for all attempts of a call, from when the first one starts
    attempts: int = 6  # not counted: failed connections and rate limits, which cost nothing
    backoff: float = 0.5  # the bound of the first random wait, doubled each time
    longest_backoff: float = 20.0
    longest_pause: float = 60.0  # of what an endpoint asks for with Retry-After
    down_after: float = 10.0  # without any answer yet: the endpoint is down
    lost_after: float = 60.0  # it did answer, and has been out of reach since


class Client:
    """An async context manager around one HTTP session; `call` is all it does.

    `clock`, `sleep` (seconds) and `chance` serve the waits between attempts. `proxies` maps a scheme to a
    proxy's URL, by default as HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY say. Nothing else comes from
    outside: no .netrc, no cookies, no redirects, and certificates are always verified.
    """

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        chance: random.Random | None = None,
        proxies: Mapping[str, str] | None = None,
    ) -> None:
        self.sent = 0  # requests so far, retries included
        self._policy = policy or Policy()
        self._clock = clock
        self._sleep = sleep
        self._chance = chance or random.Random()  # noqa: S311 - it spreads retries and guards nothing
        self._proxies = dict(urllib.request.getproxies_environment() if proxies is None else proxies)
        self._lanes: dict[Endpoint, Lane] = {}
        self._timeout = self._timeout_of(self._policy.attempt_timeout)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The limiter bounds the connections; a bound here would queue the calls a second time.
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={
                "Accept": "application/json",
                "Content-Type": "application/json",
                "User-Agent": f"evalops/{__version__}",
            },
            trust_env=False,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lane in self._lanes.values():
            lane.limiter.close()
        await self._session.close()

    async def call(
        self,
        endpoint: Endpoint,
        route: Route,
        body: bytes | Mapping[str, Any],
        *,
        deadline: float | None = None,
    ) -> Reply:
        """The model's reply to `body`: bytes go out as they are, a mapping as JSON with the endpoint's model.

        Nothing is waited for beyond `deadline` (on the client's clock), nor longer than the policy says.
        Raises CallFailed; once a fatal one, then the same for all calls of that endpoint.
        """
        lane = self._lanes.get(endpoint) or self._open(endpoint)
        lane.limiter.allow(endpoint.max_in_flight)
        data = body if isinstance(body, bytes) else json.dumps({"model": endpoint.model, **body}).encode()
        row = _Row(lane.limiter.turn(), deadline)
        while True:
            slot = await lane.limiter.acquire(row.turn, row.deadline)
            if slot is None:
                raise self._no_slot(lane, row).exception()
            signal = Signal.NOTHING
            try:
                seconds = row.start(self._clock(), self._policy.row_timeout)
                outcome = await self._attempt(lane, lane.urls[route], data, seconds)
                signal = Signal.ANSWERED if isinstance(outcome, Reply) else outcome.signal
            finally:
                lane.limiter.release(slot, signal)
            if isinstance(outcome, Reply):
                return outcome
            wait = self._wait_after(lane, row, outcome)
            if wait:
                await self._rest(lane, wait)

    def renew(self, endpoint: Endpoint) -> None:
        """Forget that `endpoint` was given up: for a process that lives longer than the trouble of an endpoint."""
        lane = self._lanes.get(endpoint)
        if lane is not None and lane.stopped.done():
            del self._lanes[endpoint]

    async def _attempt(self, lane: Lane, url: URL, data: bytes, seconds: float) -> Reply | Failure:
        """One request. Its failure is a value: an exception of the HTTP client would carry the request."""
        self.sent += 1
        timeout = self._timeout if seconds >= self._policy.attempt_timeout else self._timeout_of(seconds)
        try:
            async with self._session.post(
                url, data=data, headers=lane.headers, proxy=lane.proxy, allow_redirects=False, timeout=timeout
            ) as response:
                outcome = self._read(lane, response, await _body(response))
        except (aiohttp.ClientError, OSError, UnicodeError) as error:  # a timeout is an OSError
            outcome = failure.of_error(error, seconds=timeout.total or 0.0, has_worked=lane.has_worked)
        if isinstance(outcome, Reply):
            return outcome
        secrets = [each.key for each in self._lanes.values() if each.key]
        return outcome._replace(message=failure.clean(f"`{lane.origin}` {outcome.message}", secrets))

    def _read(self, lane: Lane, response: aiohttp.ClientResponse, body: bytes | None) -> Reply | Failure:
        lane.is_reached, lane.unreachable_since = True, None
        if not 200 <= response.status < 300:
            return failure.of_status(
                response.status,
                response.headers,
                body or b"",
                url=str(response.url),
                has_key=lane.key is not None,
                has_worked=lane.has_worked,
            )
        if body is None:
            return failure.of_reply(f"it is larger than {LARGEST_BODY // 2**20} MiB")
        try:
            answer = reply.parse(body)
        except ValueError as error:
            if response.content_type == "text/html":
                return failure.of_reply("it is a web page", fatal=not lane.has_worked, retry=True)
            return failure.of_reply(str(error), retry=True)
        lane.worked_at = self._clock()
        return answer

    def _wait_after(self, lane: Lane, row: _Row, failed: Failure) -> float:
        """Seconds until this call tries again, beside a pause of the lane; CallFailed where it does not."""
        policy, now = self._policy, self._clock()
        if failed.kind is Kind.CONNECT:
            failed = self._unreachable(lane, row, failed, now)
        row.note(failed)
        if failed.fatal:
            lane.stop(failed)
        if failed.fatal or not failed.retry:
            raise failed.exception()
        pause = min(failed.pause or 0.0, policy.longest_pause)
        longest = min(policy.longest_backoff, policy.backoff * 2.0 ** min(row.failures - 1, 30))
        wait = 0.0 if pause else self._chance.uniform(0.0, longest)
        if pause:
            lane.limiter.pause(pause)
        if row.tries >= policy.attempts or now + pause + wait >= row.deadline:
            raise self._given_up(lane, row, failed).exception()
        return wait

    def _unreachable(self, lane: Lane, row: _Row, failed: Failure, now: float) -> Failure:
        """`failed`, or that the endpoint is down, once nothing has been reached there for long enough."""
        if lane.unreachable_since is None:
            lane.unreachable_since = row.started
        limit = self._policy.lost_after if lane.is_reached else self._policy.down_after
        if failed.fatal or now - lane.unreachable_since < limit:
            return failed
        return failed._replace(fatal=True, message=f"{failed.message} (tried for {limit:g} s)")

    def _given_up(self, lane: Lane, row: _Row, failed: Failure) -> Failure:
        """The last failure of a call; fatal where the others cannot fare better."""
        others_work = lane.worked_at is not None and lane.worked_at >= row.began
        if (failed.kind is Kind.RATE_LIMITED and not others_work) or (
            failed.kind is Kind.TIMEOUT and not lane.has_worked
        ):
            failed = failed._replace(fatal=True)
            lane.stop(failed)
        return failed

    def _no_slot(self, lane: Lane, row: _Row) -> Failure:
        if lane.stopped.done():
            return lane.stopped.result()
        if row.failed:
            return self._given_up(lane, row, row.failed)
        return Failure(Kind.TIMEOUT, f"`{lane.origin}` had no free place before the deadline")

    async def _rest(self, lane: Lane, seconds: float) -> None:
        """Sleep, but no longer than the endpoint is worth waiting for."""
        sleeping: asyncio.Future[Any] = asyncio.ensure_future(self._sleep(seconds))
        try:
            await asyncio.wait({sleeping, lane.stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sleeping.cancel()

    def _open(self, endpoint: Endpoint) -> Lane:
        problem = refusal(endpoint.base_url)
        if problem:  # validated long before; the last door before the network looks again
            raise ValueError(f"{endpoint.base_url!r} is not allowed: {problem}")
        limiter = Limiter(endpoint.max_in_flight, clock=self._clock, sleep=self._sleep)
        lane = self._lanes[endpoint] = Lane(endpoint, limiter, proxy_for(endpoint.base_url, self._proxies))
        if lane.proxy and not lane.proxy.startswith(("http://", "https://")):
            message = f"`{lane.origin}` is to be reached through a proxy, and only http proxies are supported"
            lane.stop(Failure(Kind.CONNECT, message, fatal=True))
        return lane

    def _timeout_of(self, seconds: float) -> aiohttp.ClientTimeout:
        return aiohttp.ClientTimeout(total=seconds, connect=min(seconds, self._policy.connect_timeout))


class _Row:
    """How far one call has come."""

    __slots__ = ("began", "deadline", "failed", "failures", "started", "tries", "turn")

    def __init__(self, turn: int, deadline: float | None) -> None:
        self.turn = turn
        self.deadline = math.inf if deadline is None else deadline
        self.began = -1.0  # when the first attempt started
        self.started = 0.0  # the attempt under way
        self.failed: Failure | None = None
        self.failures = self.tries = 0

    def start(self, now: float, row_timeout: float) -> float:
        """Begin an attempt; the seconds that are left for it."""
        self.started = now
        if self.began < 0:
            # Time in the queue is not the row's: a narrow window must not fail the rows behind it.
            self.began = now
            self.deadline = min(self.deadline, now + row_timeout)
        return max(self.deadline - now, 0.001)  # 0 would mean no bound at all

    def note(self, failed: Failure) -> None:
        self.failed = failed
        self.failures += 1
        self.tries += failed.kind not in (Kind.CONNECT, Kind.RATE_LIMITED)


async def _body(response: aiohttp.ClientResponse) -> bytes | None:
    """The body, None where it is larger than any reply."""
    chunks: list[bytes] = []
    size = 0
    while chunk := await response.content.readany():
        size += len(chunk)
        if size > LARGEST_BODY:
            return None
        chunks.append(chunk)
    return b"".join(chunks)
