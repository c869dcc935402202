"""`evalops` as a server in a process of its own: it says on one line that it listens, and ends by a signal."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PATIENCE = 30.0  # seconds for a start or an end, on a machine that is busy


class Process:
    """A command that serves, until it is stopped or killed. `first` is its first line; `errors` has all else."""

    def __init__(self, arguments: list[str], errors: Path, environment: Mapping[str, str]) -> None:
        self._errors = errors
        with errors.open("ab") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", "from evalops.cli import main; main()", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stream,
                env=environment,
            )
        self.first = self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError(f"it did not start: {self.said()}")
        return line.decode().strip()

    def said(self) -> str:
        """What it has said beside its first line, and those before it that wrote to the same file."""
        return self._errors.read_text(encoding="utf-8")

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait for that; the exit code."""
        self.process.terminate()
        return self._wait()

    def kill(self) -> int:
        """End it on the spot (SIGKILL); the exit code, which is negative unless it had ended before."""
        self.process.kill()
        return self._wait()

    def close(self) -> None:
        """Kills it if it still runs."""
        if self.process.poll() is None:
            self.kill()

    def _wait(self) -> int:
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode
