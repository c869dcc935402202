"""`evalops ui` from a file on the desk to a result that was looked at, in one go, for each type and provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder
from browser import watched
from repository import Repository
from serve_process import SERVERLESS, Served
from service_project import at_service
from ui_process import opened
from ui_steps import apply, comes, field, fits, in_step, let_in, saved, settled, sound, upload

pytestmark = [pytest.mark.slow, pytest.mark.browser]

TYPES = ["classify", "score", "compare"]
SMALL = "embedded/smollm2-135m"
PATIENT = 240_000  # milliseconds for a small model on a machine that is busy
ROWS = [
    {"question": "How was the food?", "response": "It was wonderful, thank you.", "other": "Go away."},
    {"question": "How was the staff?", "response": "Rude, and never again.", "other": "They were kind to us."},
    {"question": "And the view?", "response": "I liked it a lot.", "other": "No idea."},
]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@contextmanager
def walked(browser: Any, made: Repository, type_: str, model: str, provider: str) -> Iterator[Any]:
    """All steps with one type, a judge and a provider; the page with the result."""
    with opened(made.root) as ui, watched(browser) as found:
        page = found.page
        let_in(ui, page, "/")
        page.get_by_role("link", name="New evaluation").first.click()
        upload(page, "talk.jsonl", DATA)
        page.click("#send")
        comes(page, "of all 3 rows")
        page.get_by_role("link", name=type_.capitalize()).click()
        page.wait_for_url("**/create/evaluation?**")
        filled(page, type_, model, provider)
        saved(page, ui, "talk.yaml")
        comes(page, "What it takes")
        apply(page)
        comes(page, "The apply is done", within=PATIENT)
        comes(page, "Everything is in step")
        page.get_by_role("link", name="talk", exact=True).click()
        page.wait_for_url("**/evaluations/talk")
        page.locator("tr[data-place='2']").wait_for()
        yield page
        fits(page)
        sound(found, ui)
        assert ui.stop() == 0 and "a bug of evalops" not in ui.said()


def filled(page: Any, type_: str, model: str, provider: str) -> None:
    """The form, as short as an answer can be; of two responses one is asked for."""
    page.wait_for_selector("#fields:enabled")
    field(page, "provider").select_option(provider)
    page.locator("input[name='judge.how'][value=model]").check()
    source = "serverless" if provider == "together" else None
    chosen(page, "judge", model, source)
    page.get_by_text("More of the judge").click()
    field(page, "judge.max_tokens").fill("48")
    if provider == "local":
        field(page, "judge.reason").select_option("none")
    if type_ == "compare":
        page.locator("input[name='model_b.how'][value=model]").check()
        chosen(page, "model_b", model, source)
        field(page, "model_b.max_tokens").fill("8")
        field(page, "model_b.system_template").fill("You are brief.")
        field(page, "model_b.input_template").fill("Answer: ")
        page.locator('[data-insert="model_b.input_template"] button', has_text="question").click()
        in_step(page, "model_b:\n  model: " + model)
    settled(page, "Valid")


def chosen(page: Any, name: str, model: str, source: str | None) -> None:
    field(page, f"{name}.model").fill(model)
    if source:
        field(page, f"{name}.model_source").select_option(source)


def kept(made: Repository, type_: str) -> None:
    """What is on disk is what a person would commit, and the command line has nothing to add to it."""
    new = {line.split(None, 1)[1] for line in made.git("status", "--porcelain", "-uall").splitlines()}
    assert new == {"data/talk.jsonl", "talk.yaml", "talk.lock", "talk.verdicts.jsonl"}
    assert (made.root / "data/talk.jsonl").read_bytes() == DATA
    before = (made.root / "talk.yaml").read_bytes()
    assert f"type: {type_}\n".encode() in before
    assert made.run("fmt", "--check").code == made.run("validate").code == 0
    assert made.run("fmt").code == 0 and (made.root / "talk.yaml").read_bytes() == before
    done = made.run("plan", "--detailed-exitcode")
    assert done.code == 0, done
    assert made.run("check").code == 0


def started(root: Path) -> Repository:
    """A repository in which nothing is ignored, with settings alone."""
    made = Repository(root)
    root.mkdir(exist_ok=True)
    made.git("init", "--quiet", "--initial-branch", "main")
    (root / "evalops.yaml").write_text("version: 1\n")
    made.commit("a start")
    return made


@pytest.mark.embedded
@pytest.mark.parametrize("type_", TYPES)
def test_on_the_embedded_engine(browser: Any, tmp_path: Path, type_: str) -> None:
    pytest.importorskip("xllamacpp")
    made = started(tmp_path / "project")
    with walked(browser, made, type_, SMALL, "local") as page:
        assert "It was wonderful" in page.inner_text("main")
    kept(made, type_)
    assert Folder(made.root, "").summary("talk")["rows"] == 3


@pytest.mark.parametrize("type_", TYPES)
def test_at_a_service_that_is_our_own(
    browser: Any, server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: str
) -> None:
    folder = at_service(server.url, tmp_path, monkeypatch)
    made = started(folder.root)
    with walked(browser, made, type_, SERVERLESS, "together") as page:
        with page.expect_download() as waiting:
            page.get_by_role("link", name="The provider's own file").click()
        assert len(waiting.value.path().read_bytes().splitlines()) == 3
    kept(made, type_)
    assert set(folder.actions().values()) == {"noop"}
