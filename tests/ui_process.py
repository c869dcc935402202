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
import select
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

_COUNT = itertools.count()
PATIENCE = 30.0  # seconds for a start or an end, on a machine that is busy


class Ui:
    """A server of pages, until it is stopped or killed."""

    def __init__(self, root: Path, port: int, environment: Mapping[str, str]) -> None:
        self._errors = root.parent / f"{root.name}.ui-{next(_COUNT)}.err"
        code = "from evalops.cli import main; main()"
        command = [sys.executable, "-c", code, "--project", str(root), "ui", "--no-browser", "--port", str(port)]
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
            )
        self.address = self._read()
        self.url = self.address.partition("/enter")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def _read(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError(f"evalops ui did not start: {self.said()}")
        return line.decode().strip()

    def said(self) -> str:
        """What it has said beside the first address."""
        return self._errors.read_text(encoding="utf-8")

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

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait for that; the exit code."""
        self.process.terminate()
        return self._wait()

    def kill(self) -> int:
        """End it on the spot (SIGKILL); the exit code, which is negative unless it had ended before."""
        self.process.kill()
        return self._wait()

    def _wait(self) -> int:
        self.process.communicate(timeout=PATIENCE)
        return self.process.returncode


@contextlib.contextmanager
def opened(root: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> Iterator[Ui]:
    """The pages of the project at `root`; the same port again is a restart."""
    ui = Ui(root, port, environment or {})
    try:
        yield ui
    finally:
        if ui.process.poll() is None:
            ui.kill()
