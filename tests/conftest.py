"""What many tests share: a project in a temporary folder, the command line in this process, and no network."""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import pytest
from browser import chromium
from command import Done
from hypothesis import settings
from model_server import Server, serve
from serve_client import Client
from serve_process import KEY, Served, served

from evalops.project import Project

File = str | bytes | Sequence[Mapping[str, Any]] | None

SETTINGS = "version: 1\n"
ROWS = [
    {"question": "Where is my parcel?", "response": "It left today.", "label": "polite", "grade": 4},
    {"question": "Can I return it?", "response": "Read the rules.", "label": "rude", "grade": 2},
    {"question": "Is it in stock?", "response": "Yes, gladly.", "label": "polite", "grade": 5},
]
SPEC = """\
version: 1
name: tone
type: classify
dataset: data/rows.jsonl
judge:
  model: ollama/llama3.2
  system_template: |
    Is this reply polite?
    {{ response }}
labels: [polite, rude]
pass_labels: [polite]
"""


def _refuse_network(event: str, arguments: tuple[Any, ...]) -> None:
    """Only this machine may be reached. DNS is left alone: a name that cannot be found is a case of its own."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = str(arguments[1][0])
        try:
            is_here = host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            is_here = False
        if not is_here:
            raise RuntimeError(f"a test must not connect to {host}")


sys.addaudithook(_refuse_network)

# A suite that runs in the background inherits signals that are ignored, and so would every process that it starts.
for _signal, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
    (signal.SIGQUIT, signal.SIG_DFL),
):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        signal.signal(_signal, _handler)

# A test is slow on a busy machine, and that says nothing of the code.
settings.register_profile("evalops", deadline=None)
settings.load_profile("evalops")


@dataclass(frozen=True)
class Folder:
    """A project folder that can be written to again and again."""

    root: Path

    def write(self, files: Mapping[str, File]) -> Project:
        """Writes texts, bytes, or rows as JSONL; None removes a file. Returns the project, read afresh."""
        for path, content in files.items():
            target = self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                target.unlink()
            elif isinstance(content, str | bytes):
                target.write_bytes(content.encode() if isinstance(content, str) else content)
            else:
                target.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content))
        return Project(self.root)

    def read(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A project folder with settings, three rows and no spec."""
    made = Folder(tmp_path / "project")
    made.write({"evalops.yaml": SETTINGS, "data/rows.jsonl": ROWS})
    return made


@pytest.fixture
def project(folder: Folder) -> Project:
    """A project with settings, three rows and the spec `tone`."""
    return folder.write({"tone.yaml": SPEC})


@dataclass(frozen=True)
class Cli:
    """`evalops` in this process, for the project at `root`."""

    root: Path

    def __call__(self, *arguments: str | Path) -> Done:
        return command.run(self.root, *arguments)


@pytest.fixture(scope="module")
def models() -> Iterator[Server]:
    """A model endpoint."""
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def server(models: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """`evalops serve` in front of it, which asks for `KEY`."""
    with served(tmp_path_factory.mktemp("served"), model_url=models.url, key=KEY) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Client]:
    """What goes over the wire to it."""
    with Client(server, KEY) as found:
        yield found


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a cache folder of one's own, no keys, and a current folder with nothing in it."""
    for name in [name for name in os.environ if name.endswith(("_API_KEY", "_TOKEN")) or name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    found = tmp_path / "home"
    (found / "here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(found))
    monkeypatch.setenv("XDG_CACHE_HOME", str(found / "cache"))
    monkeypatch.chdir(found / "here")
    return found


@pytest.fixture
def cli(folder: Folder, home: Path) -> Cli:
    """The command line, with `--project` set to `folder`."""
    return Cli(folder.root)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium for all tests of this process."""
    with chromium() as found:
        yield found
