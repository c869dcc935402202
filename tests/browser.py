"""A real Chromium for tests of pages. Whatever a page asks of the network, says in its console or pops up is kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Watched:
    """A page, and what it did beside being looked at. `requests` are those of http, https and ws."""

    page: Any
    requests: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@contextmanager
def chromium() -> Iterator[Any]:
    """A started browser (`playwright.sync_api.Browser`). Fails where there is none: a page unseen is not tested."""
    from playwright.sync_api import sync_playwright

    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.fail("these tests need Chromium; install it:\n  apt-get install chromium")
    arguments = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    arguments += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # its sandbox does not run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def watched(browser: Any, **context: Any) -> Iterator[Watched]:
    """A new page in a context of its own (`viewport`, `color_scheme` …), watched from its first moment."""
    with browser.new_context(**context) as own:
        found = Watched(own.new_page())
        page = found.page
        page.set_default_timeout(60_000)
        page.on("request", lambda asked: found.requests.append(asked.url) if _is_network(asked.url) else None)
        page.on("console", lambda said: found.errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: found.errors.append(str(error)))
        page.on("dialog", lambda dialog: (found.dialogs.append(dialog.message), dialog.dismiss()))
        yield found


def expect(found: Any) -> Any:
    """What is waited for, as playwright has it; imported late, as without the extra `long` there is none."""
    from playwright.sync_api import expect as expected

    return expected(found)


def violations(page: Any) -> list[str]:
    """What the accessibility checker axe-core finds wrong with a page as it is now: rule, and where."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [f"{each['id']}: {node['target']} {node['failureSummary']}" for each in found for node in each["nodes"]]


def _is_network(url: str) -> bool:
    return url.split(":", 1)[0] in ("http", "https", "ws", "wss")
