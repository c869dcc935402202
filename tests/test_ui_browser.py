"""`evalops ui` in a real browser: both themes, a phone's width, the keyboard, and names that mean no good."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder
from browser import watched
from repository import Repository
from ui_process import Ui, opened
from ui_steps import EVIL, LOOKS, fits, let_in

from evalops.errors import Exit

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    """Results with a history, one that waits, and hostile text wherever a spec, a dataset and a file can hold it."""
    made = Repository.make(tmp_path_factory.mktemp("browser") / "project")
    for column in ("poor", "fair", "good"):
        made.spec("tone", column, thresholds={"pass_percentage": {"min": 88}}, tags=["support"])
        assert made.folder.apply().code in (Exit.OK, Exit.GATE_FAILED)
        made.commit(column)
    hostile(made.folder)
    made.folder.apply("evil")
    made.spec("later", "poor")
    with opened(made.root) as running:
        yield running
        assert "a bug of evalops" not in running.said()


def hostile(folder: Folder) -> None:
    name = EVIL.replace("/", "") + ".jsonl"
    folder.rows([{EVIL: EVIL, "answer": EVIL, "id": "r1"}], name)
    judging: dict[str, Any] = {"judge": {"column": EVIL}, "labels": [EVIL, "rude"], "pass_labels": [EVIL]}
    folder.spec("evil", dataset=name, description=EVIL, model_to_evaluate="answer", **judging)


@pytest.mark.parametrize("look", LOOKS)
def test_the_overview_fits_and_says_nothing_to_the_console(browser: Any, ui: Ui, look: dict[str, Any]) -> None:
    with watched(browser, **look) as found:
        let_in(ui, found.page, "/")
        assert found.page.title() == "Overview of project · evalops"
        fits(found.page)
        names = found.page.locator("tbody th[scope=row]").all_inner_texts()
        assert [name.split("\n")[0].strip() for name in names] == ["evil", "later", "tone"]
        background = found.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == (look["color_scheme"] == "dark")
        assert not found.errors and not found.dialogs
        assert {each for each in found.requests if not each.startswith(ui.url + "/")} == set()


def test_hostile_names_stay_text(browser: Any, ui: Ui) -> None:
    with watched(browser) as found:
        let_in(ui, found.page, "/?q=%22%27%3E%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&type=%3Cscript%3E")
        let_in(ui, found.page, "/")
        page = found.page
        assert page.locator("img, main script").count() == 0
        assert "<img src=x onerror=alert(1)>" in page.inner_text("main")
        assert "{{7*7}}" in page.inner_text("main") and "\u202e" not in page.inner_text("main")
        assert not found.errors and not found.dialogs


def test_filters_work_with_the_keyboard_alone(browser: Any, ui: Ui) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Look at the plan"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "q"
        page.keyboard.type("tone")
        page.keyboard.press("Enter")
        page.wait_for_url("**q=tone**")
        assert page.locator("tbody tr").count() == 1
        page.select_option("#state", "noop")
        page.wait_for_url("**state=noop**")
        assert page.locator("#q").input_value() == "tone" and page.locator("tbody tr").count() == 1
        assert not found.errors


def test_another_browser_with_the_used_address_stays_outside(browser: Any, ui: Ui) -> None:
    with watched(browser) as found:
        address = ui.next_address()
        let_in(ui, found.page, "/")
        with watched(browser) as other:
            other.page.goto(address)
            assert "was used before" in other.page.inner_text("main")
            other.page.goto(ui.url + "/evaluation?address=tone")
            assert "tone" not in other.page.inner_text("main") and other.page.locator("nav").count() == 0


def test_a_page_of_another_site_can_neither_read_nor_frame_nor_send(browser: Any, ui: Ui, tmp_path: Path) -> None:
    """From another port of this machine, which is the same site to a browser: the cookie comes along."""
    project = Folder(tmp_path / "other", "http://127.0.0.1:9")
    project.root.mkdir()
    with opened(project.settings().root) as other, watched(browser) as found:
        let_in(ui, found.page, "/")
        let_in(other, found.page, "/")
        # The policy of our own page would stop it before ours does: a page without one.
        found.page.route(f"{other.url}/bare", lambda route: route.fulfill(body="<p>bare", content_type="text/html"))
        found.page.goto(f"{other.url}/bare")
        send = "fetch(%r, {method: 'POST', credentials: 'include', mode: 'no-cors'}).then(a => a.type, () => 'blocked')"
        assert found.page.evaluate(send % (ui.url + "/")) in ("opaque", "blocked")
        read = "fetch(%r, {credentials: 'include'}).then(a => a.text(), () => 'blocked')"
        assert found.page.evaluate(read % (ui.url + "/")) == "blocked"
        found.page.evaluate(f"document.body.innerHTML = '<iframe src={ui.url}/></iframe>'")
        found.page.wait_for_function("document.querySelector('iframe').contentDocument === null")
        frame = found.page.frames[-1]
        frame.wait_for_load_state()
        assert "tone" not in frame.content()
