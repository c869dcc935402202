"""`evalops ui` in a real browser: plan, apply, stop and go on, a kill in the middle, review, downloads, jobs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, duels, truths
from browser import violations, watched
from model_server import Config, Server, serve
from process import PATIENCE
from repository import Repository
from serve_client import Client
from serve_process import SERVERLESS, Served
from service_project import at_service, make
from ui_process import Ui, opened
from ui_steps import EVIL, LOOKS, WAIT, apply, comes, fits, let_in, sound

pytestmark = [pytest.mark.slow, pytest.mark.browser]


@pytest.fixture
def slow() -> Iterator[Server]:
    with serve(Config(latency_ms=100.0)) as server:
        yield server


def project(folder: Path, server: Server, rows: int = 60) -> Folder:
    """A project in git with an evaluation whose rows are judged one after the other."""
    made = Repository.make(folder / "project")
    found = Folder(made.root, server.url).settings().rows(truths(rows))
    return found.spec("tone", judge={"num_workers": 1}, gold="gold", thresholds={"pass_percentage": {"min": 50}})


def test_an_apply_is_followed_stopped_gone_on_with_and_reviewed(browser: Any, slow: Server, tmp_path: Path) -> None:
    made = project(tmp_path, slow)
    with opened(made.root) as ui, watched(browser) as found, watched(browser) as second:
        page, other = found.page, second.page
        let_in(ui, page, "/")
        page.get_by_role("link", name="Look at the plan").click()
        let_in(ui, other, "/apply")
        apply(page)
        for each in (page, other):
            comes(each, r"time left: about")
            assert each.locator("h1").inner_text() == "Applying"
            assert "polite: " in each.inner_text("#lines") and "of 60" in each.inner_text("#lines")
        assert violations(page) == []
        page.get_by_role("button", name="Stop").click()
        for each in (page, other):
            comes(each, "What is done is kept")
            comes(each, r"\d+ of 60 rows are there")
        other.get_by_role("button", name="Go on").click()
        for each in (page, other):
            comes(each, "The apply is done")
            comes(each, "Everything is in step")
        page.get_by_role("link", name="tone").click()
        comes(page, "Pass rate")
        assert violations(page) == []
        sound(found, ui)
        sound(second, ui)
    assert made.actions() == {"tone": "noop"} and made.summary()["scored"] == 60
    assert slow.stats()["repeats"] == 0


def test_a_page_left_open_goes_on_after_a_kill(browser: Any, slow: Server, tmp_path: Path) -> None:
    made = project(tmp_path, slow)
    with opened(made.root) as ui, watched(browser) as found:
        page = found.page
        let_in(ui, page, "/apply")
        apply(page)
        comes(page, r"[1-9]\d* of 60")
        ui.kill()
        page.locator("#lost").wait_for(state="visible", timeout=WAIT)
        assert violations(page) == []
        with opened(made.root, port=ui.port) as again:
            tab = page.context.new_page()
            tab.goto(again.next_address())
            tab.close()
            comes(page, r"\d+ of 60 rows are there")
            page.get_by_role("button", name="Go on").click()
            comes(page, "The apply is done")
            assert not found.dialogs
    assert made.summary()["scored"] == 60 and slow.stats()["repeats"] <= 2


def test_an_apply_from_the_command_line_is_followed(browser: Any, slow: Server, tmp_path: Path) -> None:
    made = project(tmp_path, slow)
    with opened(made.root) as ui, watched(browser) as found:
        let_in(ui, found.page, "/apply")
        running = made.start()
        comes(found.page, "Another process applies")
        comes(found.page, r"[1-9]\d* of 60")
        assert found.page.get_by_role("button").count() == 0
        running.communicate(timeout=PATIENCE)
        comes(found.page, "Everything is in step")
        sound(found, ui)
    assert running.returncode == 0


# --- review ---


@pytest.fixture(scope="module")
def reviewed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Repository, Ui]]:
    """One of each type, with flipped rows since the commit, and hostile texts everywhere."""
    with serve() as server:
        made = Repository.make(tmp_path_factory.mktemp("walk") / "project")
        folder = Folder(made.root, server.url).settings().rows(truths(40)).rows(duels(30), "duels.jsonl")
        folder.spec("tone", gold="gold", tags=["support"]).duel("duel", dataset="duels.jsonl")
        folder.spec("grade", type="score", model_to_evaluate="response", min_score=1, max_score=5, pass_threshold=3)
        folder.rows([{"id": "r", EVIL: EVIL, "said": EVIL, "response": EVIL}], "evil.jsonl")
        folder.spec(
            "evil",
            dataset="evil.jsonl",
            judge={"column": "said"},
            labels=[EVIL, "rude"],
            pass_labels=[EVIL],
            description=EVIL,
        )
        made.applied()
        rude = [{**row, "response": row["response"].replace("polite", "rude")} for row in truths(40)[:6]]
        folder.rows([*rude, *truths(40)[6:]])
        made.folder.apply("tone")
        with opened(made.root) as ui:
            yield made, ui
            assert "a bug of evalops" not in ui.said()


@pytest.mark.parametrize("address", ["tone", "duel", "grade", "evil"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_review_fits_is_accessible_and_harmless(
    browser: Any, reviewed: tuple[Repository, Ui], look: dict[str, Any], address: str
) -> None:
    _, ui = reviewed
    with watched(browser, **look) as found:
        let_in(ui, found.page, f"/evaluations/{address}")
        found.page.locator("tr[data-place='0']").wait_for()
        fits(found.page)
        assert violations(found.page) == []
        found.page.locator("tr[data-place='0'] button").click()
        found.page.get_by_role("dialog").wait_for()
        assert violations(found.page) == []
        assert found.page.locator("img").count() == 0 and "\u202e" not in found.page.content()
        sound(found, ui)


def test_rows_are_searched_filtered_and_flipped_ones_come_first(browser: Any, reviewed: tuple[Repository, Ui]) -> None:
    _, ui = reviewed
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/evaluations/tone")
        page.get_by_label("Before and after").fill("HEAD")
        page.get_by_role("button", name="Compare").click()
        page.wait_for_url("**base=HEAD**")
        page.locator("tr[data-place='0']").wait_for()
        flipped = page.locator("tr[data-place='0']").inner_text()
        assert "▼" in flipped and "polite" in flipped
        page.keyboard.press("/")
        page.keyboard.type("reply 31")
        page.get_by_text(re.compile(r"^[1-5] of 40 rows$")).wait_for()
        page.get_by_role("button", name="Clear all").click()
        page.get_by_label("Disagreement").select_option("down")
        assert "of 40 rows" in page.locator(".count").inner_text()
        sound(found, ui)


def test_many_rows_come_after_the_page(browser: Any, tmp_path: Path) -> None:
    made = Repository.make(tmp_path / "project")
    made.folder.rows(
        [{"id": f"r{number}", "response": f"answer {number}", "good": "polite"} for number in range(5_001)]
    )
    made.spec("many").applied()
    with opened(made.root) as ui, watched(browser) as found:
        let_in(ui, found.page, "/evaluations/many")
        comes(found.page, "5,001 rows are being read")
        found.page.locator("tr[data-place='0']").wait_for(timeout=WAIT)
        comes(found.page, "5,001 rows")
        assert found.page.locator("#late").count() == 0
        sound(found, ui)


def test_downloads_are_what_the_command_line_prints(browser: Any, reviewed: tuple[Repository, Ui]) -> None:
    made, ui = reviewed
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/evaluations/tone")
        for name, wanted in (
            ("Rows, JSONL", made.run("rows", "tone").out),
            ("Rows, CSV", made.run("rows", "tone", "--format", "csv").out),
        ):
            with page.expect_download() as waiting:
                page.get_by_role("link", name=name).click()
            assert waiting.value.path().read_text() == wanted
        with page.expect_download() as waiting:
            page.get_by_role("link", name="Report, HTML").click()
        assert waiting.value.suggested_filename == "tone.report.html"
        sound(found, ui)


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("path", ["/", "/apply", "/jobs"])
def test_pages_fit_and_are_accessible(
    browser: Any, reviewed: tuple[Repository, Ui], look: dict[str, Any], path: str
) -> None:
    made, ui = reviewed
    made.folder.spec("waiting", labels=["polite", "rude", "neither"])
    with watched(browser, **look) as found:
        let_in(ui, found.page, path)
        fits(found.page)
        assert violations(found.page) == []
        sound(found, ui)


# --- a service ---


def test_at_a_service_that_is_our_own(
    browser: Any, client: Client, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = at_service(server.url, tmp_path, monkeypatch)
    theirs = make(client)
    rows = "".join(json.dumps(row) + "\n" for row in truths(12))
    (folder.root / "rows.jsonl").write_text(rows)
    judge = {"model": SERVERLESS, "model_source": "serverless", "system_template": "Is it polite?"}
    spec = {"version": 1, "name": "ours", "type": "classify", "provider": "together", "dataset": "rows.jsonl", "judge": judge,
            "labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response"}  # fmt: skip
    (folder.root / "ours.yaml").write_text(json.dumps(spec))
    with opened(folder.root) as ui, watched(browser) as found:
        page = found.page
        let_in(ui, page, "/apply")
        apply(page)
        comes(page, "The apply is done")
        page.get_by_role("link", name="ours").click()
        with page.expect_download() as waiting:
            page.get_by_role("link", name="The provider's own file").click()
        assert waiting.value.path().read_text() == folder.good("rows", "ours", "--raw").out
        page.goto(ui.url + "/jobs?at=together")
        assert violations(page) == []
        page.get_by_role("button", name=f"Import {theirs} as spec").click()
        comes(page, "was imported: completed")
        sound(found, ui)
    assert set(folder.actions().values()) == {"noop"}
