"""Where the calls of a run go: endpoints with their keys, and the embedded servers that it starts."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from evalops import web
from evalops.endpoint import Endpoint
from evalops.engine import embedded, model, weights
from evalops.engine.run import Target
from evalops.secret import Secret

NOTICE_EVERY = 2.0  # seconds


class Runtime:
    """An async context manager: leaving it ends the servers it started. `notice` tells a person who waits."""

    def __init__(self, root: Path, notice: Callable[[str], None]) -> None:
        self._root = root
        self._notice = notice
        self._stack = AsyncExitStack()
        self._embedded: dict[str, tuple[embedded.Fleet, Target]] = {}
        self._starting = asyncio.Lock()
        self._told = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def target(self, endpoint: Endpoint, workers: int, key: Secret | None = None) -> Target:
        """Where the calls to `endpoint` go, with `key` or the one of its credential.

        Raises EvalopsError for a missing key or a model that cannot be started.
        """
        if endpoint.is_embedded:
            return await self._served(endpoint.model)
        found = model.Endpoint(
            base_url=endpoint.base_url, model=endpoint.model, key=key or key_of(endpoint), max_in_flight=workers
        )
        return Target(identity=f"{endpoint.base_url}\n{endpoint.model}", endpoints=(found,))

    async def _served(self, name: str) -> Target:
        """An embedded model's servers, those that are lost started anew; its file is fetched first where need be."""
        async with self._starting:
            known = self._embedded.get(name)
            if known is not None:
                fleet, target = known
                endpoints = await fleet.start()
                if endpoints == target.endpoints:
                    return target
                identity = target.identity
            else:
                path = await asyncio.to_thread(
                    weights.resolve, name, project=self._root, cache=weights.default_cache(), progress=self._progress
                )
                self._notice(f"starting {name} on this machine")
                fleet = await self._stack.enter_async_context(embedded.Fleet(path))
                identity = f"{name}\n{await asyncio.to_thread(weights.identity, name, self._root)}"
            target = Target(identity=identity, endpoints=fleet.endpoints, is_embedded=True)
            self._embedded[name] = (fleet, target)
            return target

    def _progress(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._told >= NOTICE_EVERY:
            self._told = now
            of = f" of {total / 1e6:,.0f}" if total else ""
            self._notice(f"fetching {what}: {done / 1e6:,.0f}{of} MB")


def key_of(endpoint: Endpoint) -> Secret | None:
    """The key of an endpoint, from the environment only. Raises EvalopsError where it is not set."""
    return web.key_of(endpoint.credential) if endpoint.credential else None
