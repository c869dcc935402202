"""What a person does on the pages of `evalops ui`, step by step, and how the pages are looked at."""

from __future__ import annotations

import re
from typing import Any

import pytest
from browser import Watched
from process import PATIENCE
from ui_process import Ui

EVIL = "\"'><img src=x onerror=alert(1)><svg onload=alert(2)>{{7*7}}</script><script>alert(3)</script>\u202e"
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
LOOKS = [
    pytest.param({"color_scheme": "light", "viewport": {"width": 1280, "height": 900}}, id="light"),
    pytest.param({"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}}, id="dark"),
    pytest.param({"color_scheme": "light", **PHONE}, id="phone"),
]
WAIT = PATIENCE * 1000


def let_in(ui: Ui, page: Any, path: str) -> None:
    page.goto(ui.next_address())
    page.wait_for_url(ui.url + "/")
    page.goto(ui.url + path)


def comes(page: Any, text: str, *, within: float = WAIT) -> None:
    """Waits until the page has a text that the pattern fits."""
    page.get_by_text(re.compile(text)).first.wait_for(timeout=within)


def sound(found: Watched, ui: Ui) -> None:
    """Nothing popped up, nothing was said in the console, and nobody else was asked."""
    assert not found.dialogs and not found.errors
    assert {each for each in found.requests if not each.startswith(ui.url + "/")} == set()


def fits(page: Any) -> None:
    """Nothing is wider than the window."""
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, page.url


# --- a new evaluation ---


def upload(page: Any, name: str, data: bytes) -> None:
    """Chooses a file, which is not sent yet."""
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": data})
    page.wait_for_function("() => document.getElementById('path').value")


def field(page: Any, name: str) -> Any:
    return page.locator(f'[id="f-{name}"]')


def in_step(page: Any, *texts: str) -> None:
    """Waits until the YAML has these texts."""
    page.wait_for_function(
        "all => all.every(each => document.getElementById('yaml').value.includes(each))", arg=list(texts)
    )


def settled(page: Any, said: str) -> None:
    """Waits for what is said of the draft."""
    page.wait_for_function("text => document.getElementById('state').textContent.startsWith(text)", arg=said)


def saved(page: Any, ui: Ui, path: str) -> None:
    settled(page, "Valid")
    page.click("#save")
    page.wait_for_url(f"{ui.url}/apply?only={path}")


# --- an apply ---


def apply(page: Any) -> None:
    """What a person does with a plan that costs something, by the keyboard."""
    agreed = page.get_by_label("Run it, with the calls")
    if agreed.count():
        agreed.press("Space")
    page.locator("button.primary").press("Enter")
