"""`evalops serve` in a process of its own, with models that a test's model server answers for.

    with model_server.serve() as models, served(tmp_path, model_url=models.url) as server:
        server.url, server.process, server.store, server.stderr()
        server.stop()      SIGTERM, and the exit code
        server.kill()      SIGKILL

The same `tmp_path` again is the same store: a restart.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from evalops import endpoint

SERVERLESS = "Qwen/Qwen3-8B"
DEDICATED = "ep_12345"
EXTERNAL = "their-model"
KEY = "sk-of-the-service-27182818"
PATIENCE = 30.0  # seconds for a start or an end, on a machine that is busy


class Served:
    """A server, until it is stopped or killed."""

    def __init__(self, folder: Path, key: str | None, options: Sequence[str]) -> None:
        self.store = folder / "store"
        self._errors = folder / "serve.err"
        code = "from evalops.cli import main; main()"
        command = [sys.executable, "-c", code, "--project", str(folder / "project"), "serve", "--port", "0"]
        environment = {name: value for name, value in os.environ.items() if name != "EVALOPS_SERVE_API_KEY"}
        if key is not None:
            environment["EVALOPS_SERVE_API_KEY"] = key
        with self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                [*command, "--store", str(self.store), *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
            )
        self.url = self._read_url()

    def _read_url(self) -> str:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else b""
        if not line:
            self.kill()
            raise RuntimeError(f"evalops serve did not start: {self.stderr()}")
        return line.decode().strip()

    def stderr(self) -> str:
        """What this server, and those before it in the same folder, have said."""
        return self._errors.read_text(encoding="utf-8")

    def stop(self) -> int:
        """Ask it to end (SIGTERM) and wait for that; the exit code."""
        self.process.terminate()
        return self._wait()

    def kill(self) -> int:
        """End it on the spot (SIGKILL); the exit code, which is negative unless it had ended before."""
        self.process.kill()
        return self._wait()

    def _wait(self) -> int:
        try:
            self.process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        return self.process.returncode


@contextlib.contextmanager
def served(
    folder: Path, *, model_url: str, key: str | None = None, options: Sequence[str] = (), **settings: Any
) -> Iterator[Served]:
    """A server whose settings map SERVERLESS and DEDICATED to `model_url`, where external models may be, too.

    More of evalops.yaml goes into `settings`, `providers={"local": {"max_error_rate": 1}}` for one.
    """
    project = folder / "project"
    project.mkdir(exist_ok=True)
    value = {
        "version": 1,
        "models": {name: {"base_url": model_url} for name in (SERVERLESS, DEDICATED)},
        "serve": {"external_origins": [endpoint.origin(model_url)]},
        **settings,
    }
    (project / "evalops.yaml").write_text(json.dumps(value))
    server = Served(folder, key, options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
