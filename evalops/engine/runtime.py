"""Where the calls of a run go: endpoints with their keys, and the embedded servers that it starts."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from evalops.endpoint import Endpoint
from evalops.engine import embedded, model, weights
from evalops.engine.run import Target
from evalops.engine.secret import Secret
from evalops.errors import Diagnostic, EvalopsError

NOTICE_EVERY = 2.0  # seconds


class Runtime:
    """An async context manager: leaving it ends the servers it started. `notice` tells a person who waits."""

    def __init__(self, root: Path, notice: Callable[[str], None]) -> None:
        self._root = root
        self._notice = notice
        self._stack = AsyncExitStack()
        self._embedded: dict[str, Target] = {}
        self._told = 0.0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def target(self, endpoint: Endpoint, workers: int) -> Target:
        """Where the calls to `endpoint` go. Raises EvalopsError for a missing key or a model that cannot be started."""
        if endpoint.is_embedded:
            if endpoint.model not in self._embedded:
                self._embedded[endpoint.model] = await self._start(endpoint.model)
            return self._embedded[endpoint.model]
        found = model.Endpoint(
            base_url=endpoint.base_url, model=endpoint.model, key=key_of(endpoint), max_in_flight=workers
        )
        return Target(identity=f"{endpoint.base_url}\n{endpoint.model}", endpoints=(found,))

    async def _start(self, name: str) -> Target:
        """Servers for an embedded model, its file fetched first where need be."""
        path = await asyncio.to_thread(
            weights.resolve, name, project=self._root, cache=weights.default_cache(), progress=self._progress
        )
        self._notice(f"starting {name} on this machine")
        fleet = await self._stack.enter_async_context(embedded.Fleet(path))
        identity = f"{name}\n{await asyncio.to_thread(weights.identity, name, self._root)}"
        return Target(identity=identity, endpoints=fleet.endpoints, is_embedded=True)

    def _progress(self, what: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._told >= NOTICE_EVERY:
            self._told = now
            of = f" of {total / 1e6:,.0f}" if total else ""
            self._notice(f"fetching {what}: {done / 1e6:,.0f}{of} MB")


def key_of(endpoint: Endpoint) -> Secret | None:
    """The key of an endpoint, from the environment only. Raises EvalopsError where it is not set."""
    credential = endpoint.credential
    if credential is None:
        return None
    value = os.environ.get(credential.env, "").strip()
    if not value:
        raise EvalopsError(
            Diagnostic(
                code="provider/no-key",
                message=f"the environment variable {credential.env} is not set",
                hint=f"it holds the key for {', '.join(credential.origins)}",
            )
        )
    try:
        return Secret(value)
    except ValueError as error:
        raise EvalopsError(
            Diagnostic(
                code="provider/no-key",
                message=f"the environment variable {credential.env} holds no key: {error}",
            )
        ) from None
