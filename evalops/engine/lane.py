"""Where calls go, and what is known of each such endpoint while its calls run."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum

from yarl import URL

from evalops.endpoint import origin
from evalops.engine.failure import Failure
from evalops.engine.limiter import Limiter
from evalops.secret import Secret


class Route(StrEnum):
    """What is asked of an endpoint: a path below its base URL."""

    CHAT = "/chat/completions"
    COMPLETIONS = "/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where requests go. Equal ones share a limiter, bounded by the largest `max_in_flight` of them."""

    base_url: str
    model: str  # the name by which the endpoint knows it
    key: Secret | None = None
    max_in_flight: int = field(default=32, compare=False)


class Lane:
    """What the client knows of one endpoint."""

    def __init__(self, endpoint: Endpoint, limiter: Limiter, proxy: str | None) -> None:
        self.origin = origin(endpoint.base_url)
        self.urls = {route: URL(endpoint.base_url.rstrip("/") + route) for route in Route}
        self.key = endpoint.key
        self.headers = {"Authorization": f"Bearer {endpoint.key.reveal()}"} if endpoint.key else {}
        self.proxy = proxy
        self.limiter = limiter
        self.is_reached = False  # it has answered something
        self.worked_at: float | None = None  # when it last gave a reply
        self.unreachable_since: float | None = None
        self.stopped: asyncio.Future[Failure] = asyncio.get_running_loop().create_future()

    @property
    def has_worked(self) -> bool:
        return self.worked_at is not None

    def stop(self, why: Failure) -> None:
        """Let all calls of this endpoint end with `why`, those that wait at once."""
        if not self.stopped.done():
            self.stopped.set_result(why)
            self.limiter.close()
