"""`evalops ui` in a process of its own, for the project in a folder.

with opened(root) as ui:
    ui.url, ui.address      where it listens, and the address that lets one browser in
    ui.client()             an HTTP client that was let in
    ui.kill()               SIGKILL
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
from process import PATIENCE, Process

_COUNT = itertools.count()


class Ui(Process):
    """A server of pages, until it is stopped or killed."""

    def __init__(self, root: Path, port: int, environment: Mapping[str, str]) -> None:
        arguments = ["--project", str(root), "ui", "--no-browser", "--port", str(port)]
        errors = root.parent / f"{root.name}.ui-{next(_COUNT)}.err"
        super().__init__(arguments, errors, {**os.environ, **environment})
        self.address = self.first
        self.url = self.address.partition("/enter")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def next_address(self) -> str:
        """An address that lets one more browser in."""
        told = [line.strip() for line in self.said().splitlines() if "/enter?token=" in line]
        return told[-1] if told else self.address

    @contextlib.contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client that was let in, as a page of this server: it sends what a browser would."""
        with httpx.Client(base_url=self.url, trust_env=False, verify=False, timeout=PATIENCE) as client:  # plain HTTP
            found = client.get(self.next_address())
            assert found.status_code == 303, found.text
            client.headers["origin"] = self.url
            yield client


@contextlib.contextmanager
def opened(root: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> Iterator[Ui]:
    """The pages of the project at `root`; the same port again is a restart."""
    ui = Ui(root, port, environment or {})
    try:
        yield ui
    finally:
        ui.close()
