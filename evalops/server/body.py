"""The body of a request, read within bounds: a slow or endless one ends, and holds up nobody else."""

from __future__ import annotations

import asyncio
import json
from typing import Any, NoReturn

from starlette.requests import Request

from evalops.server.problem import Problem

PATIENCE = 60.0  # seconds that a client may take for the next piece of its body


class Body:
    """A request's body, piece by piece: at most `most` bytes, and never waiting longer than `patience` seconds.

    `beside` are bytes that the form around the content may take. Too much is refused without closing the connection:
    a client that sends first and reads then would never hear why. What it still sends, the HTTP server drops.
    """

    def __init__(self, request: Request, most: int, patience: float, *, beside: int = 0) -> None:
        self._request = request
        self._most = most
        self._limit = most + beside
        self._patience = patience
        self._size = 0
        self._is_read = False
        length = request.headers.get("content-length", "")
        if length.isascii() and length.isdigit() and int(length[:20]) > self._limit:
            raise self._too_large()

    async def next(self) -> bytes | None:
        """The next piece, None at the end. Raises a Problem where it does not come or is too much."""
        if self._is_read:
            return None
        try:
            async with asyncio.timeout(self._patience):
                message = await self._request.receive()
        except TimeoutError:
            reason = f"nothing has come for {self._patience:g} seconds"
            raise Problem(408, reason, headers={"connection": "close"}) from None
        if message["type"] == "http.disconnect":
            raise Problem(400, "the connection was closed before the end of the request")
        self._is_read = not message.get("more_body", False)
        piece: bytes = message.get("body", b"")
        self._size += len(piece)
        if self._size > self._limit:
            raise self._too_large()
        return piece

    def _too_large(self) -> Problem:
        return Problem(413, f"this is larger than {self._most:,} bytes, the most that is taken here")


async def read(request: Request, most: int) -> bytes:
    """A whole body. Raises Problem where it does not come or is too much."""
    body, data = Body(request, most, PATIENCE), bytearray()
    while (piece := await body.next()) is not None:
        data += piece
    return bytes(data)


async def read_json(request: Request, most: int) -> Any:
    """A JSON body. Raises Problem for anything else, and for numbers that JSON does not have."""
    data = await read(request, most)
    try:
        return json.loads(data.decode("utf-8"), parse_constant=_refuse)
    except UnicodeDecodeError:
        raise Problem(400, "the body is not UTF-8") from None
    except json.JSONDecodeError as error:
        raise Problem(400, f"the body is not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except (ValueError, RecursionError):
        raise Problem(
            400, "the body is no JSON that can be read: a number is out of range, or it is too deep"
        ) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
