"""A project whose provider `together` is an `evalops serve` in a process of its own, and jobs made there without it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import command
import pytest
from command import Done
from serve_client import Client, good, replies
from serve_process import KEY

TOKEN = "sk-of-their-model-31415926"


@dataclass(frozen=True)
class Folder:
    """A project of which no output may hold a token."""

    root: Path

    def run(self, *arguments: str) -> Done:
        done = command.run(self.root, *arguments)
        assert TOKEN not in done.out + done.err
        return done

    def good(self, *arguments: str) -> Done:
        done = self.run(*arguments)
        assert done.code == 0, done
        return done

    def settings(self, **more: Any) -> Folder:
        self.root.mkdir(exist_ok=True)
        (self.root / "evalops.yaml").write_text(json.dumps({"version": 1, **more}))
        return self

    def actions(self) -> dict[str, str]:
        return {each["address"]: each["action"] for each in self.good("plan", "--format", "json").json["changes"]}

    def files(self) -> set[str]:
        paths = (path.relative_to(self.root) for path in self.root.rglob("*") if path.is_file())
        return {path.as_posix() for path in paths if path.parts[0] != ".evalops"} - {"evalops.yaml"}

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def entry(self, name: str) -> Any:
        return json.loads(self.text(f"{name}.lock"))["evaluations"][name.rsplit("/", 1)[-1]]


def at_service(url: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """A project below `folder` for the service at `url`, with its key and a cache of its own."""
    monkeypatch.setenv("TOGETHER_BASE_URL", url)
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return Folder(folder / "project").settings()


def make(client: Client, rows: Any = None, *, name: str = "rows.jsonl", body: Any = None, **changes: Any) -> str:
    """A job that is over, made without evalops."""
    file = client.upload(rows or replies(6), name)
    if body is None:
        job = client.create(file, **changes)
    else:
        body = {**body, "parameters": {"input_data_file_path": file, **body["parameters"]}}
        job = str(good(client.http.post("/v1/evaluation", json=body))["workflow_id"])
    client.finished(job)
    return job
