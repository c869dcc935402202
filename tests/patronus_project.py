"""A project whose provider `patronus` is a server of the test."""

from __future__ import annotations

from pathlib import Path

import pytest
from apply_project import Folder
from patronus_service import KEY, PatronusService


def settled(folder: Path, service: PatronusService) -> Folder:
    """A project in a folder, with the service in its settings."""
    return Folder(folder, service.url).settings(providers={"patronus": {"base_url": service.url}})


def at_patronus(folder: Path, service: PatronusService, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """The same with the key that the service takes in the environment."""
    monkeypatch.setenv("PATRONUS_API_KEY", KEY)
    return settled(folder, service)
