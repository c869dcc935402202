"""`evalops serve` in a process of its own, with models that a test's model server answers for.

    with model_server.serve() as models, served(tmp_path, model_url=models.url) as server:
        server.url, server.process, server.store, server.said()
        server.stop()      SIGTERM, and the exit code
        server.kill()      SIGKILL

The same `tmp_path` again is the same store: a restart.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from process import Process

from evalops import endpoint

SERVERLESS = "Qwen/Qwen3-8B"
DEDICATED = "ep_12345"
EXTERNAL = "their-model"
KEY = "sk-of-the-service-27182818"


class Served(Process):
    """A server, until it is stopped or killed. Servers in the same folder share what they have said."""

    def __init__(self, folder: Path, key: str | None, options: Sequence[str]) -> None:
        self.store = folder / "store"
        environment = {name: value for name, value in os.environ.items() if name != "EVALOPS_SERVE_API_KEY"}
        if key is not None:
            environment["EVALOPS_SERVE_API_KEY"] = key
        arguments = ["--project", str(folder / "project"), "serve", "--port", "0", "--store", str(self.store)]
        super().__init__([*arguments, *options], folder / "serve.err", environment)
        self.url = self.first


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
        server.close()
