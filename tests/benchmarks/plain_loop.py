"""The least that a client of an endpoint can do: post bodies with aiohttp, so many at a time, and drop the answers.

python plain_loop.py URL BODIES.jsonl COUNT IN_FLIGHT
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp


async def post(session: aiohttp.ClientSession, url: str, bodies: Iterator[bytes]) -> None:
    """One connection's share of the bodies."""
    for body in bodies:
        async with session.post(url, data=body, headers={"Content-Type": "application/json"}) as response:
            await response.read()
            response.raise_for_status()


async def main(url: str, bodies: list[bytes], count: int, in_flight: int) -> None:
    """Posts `count` bodies, over and again from the first."""
    shared = itertools.islice(itertools.cycle(bodies), count)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        await asyncio.gather(*(post(session, url, shared) for _ in range(in_flight)))


if __name__ == "__main__":
    _, address, file, number, workers = sys.argv
    asyncio.run(main(address, Path(file).read_bytes().splitlines(), int(number), int(workers)))
