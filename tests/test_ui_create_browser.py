"""Steps 1 and 2 of a new evaluation in a real browser: by hand, on a phone, and with names that mean no good."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import violations, watched
from repository import Repository
from ui_process import Ui, opened
from ui_steps import EVIL, LOOKS, field, fits, in_step, let_in, saved, settled, sound, upload

pytestmark = [pytest.mark.slow, pytest.mark.browser]

ROWS = [
    {
        "id": f"r{n}",
        "question": f"question {n}",
        "response": f"answer {n}",
        "other": f"reply {n}",
        "label": tone,
        EVIL: EVIL,
    }
    for n, tone in enumerate(["polite", "rude", "polite", "rude"])
]
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.make(tmp_path_factory.mktemp("create") / "project")
    made.spec("strict")
    made.commit("a start")
    return made


@pytest.fixture(scope="module")
def ui(project: Repository) -> Iterator[Ui]:
    with opened(project.root) as running:
        yield running
        assert "a bug of evalops" not in running.said()


@pytest.fixture(autouse=True)
def clean(project: Repository) -> Iterator[None]:
    yield
    project.git("clean", "--quiet", "-fd")
    project.git("checkout", "--quiet", "--", ".")


def new(project: Repository) -> list[str]:
    return sorted(line.split(None, 1)[1] for line in project.git("status", "--porcelain", "-uall").splitlines())


@pytest.mark.parametrize("type_", ["classify", "score", "compare"])
def test_from_a_file_on_the_desk_to_a_spec(browser: Any, ui: Ui, project: Repository, type_: str) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create")
        upload(page, "talk.jsonl", DATA)
        page.click("#send")
        page.wait_for_url("**/create/dataset?path=data%2Ftalk.jsonl")
        assert "of all 4 rows" in page.inner_text("main")
        page.get_by_role("link", name=type_.capitalize()).click()
        page.wait_for_url("**/create/evaluation?**")
        settled(page, "Valid")
        field(page, "description").fill("Is it: polite?")
        if type_ == "classify":
            page.click("[data-add=labels]")
            page.keyboard.type("neither")
            page.locator("[data-list=labels] input[name=passes]").nth(1).check()
            in_step(page, "labels: [polite, rude, neither]", "pass_labels: [polite, rude]")
        elif type_ == "score":
            field(page, "max_score").fill("10")
            field(page, "pass_threshold").fill("7.5")
            in_step(page, "max_score: 10", "pass_threshold: 7.5")
        else:
            page.locator("input[name='model_b.how'][value=model]").check()
            field(page, "model_b.model").fill("ollama/llama3.2")
            field(page, "model_b.max_tokens").fill("64")
            field(page, "model_b.input_template").fill("Answer: ")
            page.locator('[data-insert="model_b.input_template"] button', has_text="question").click()
            in_step(page, "model: ollama/llama3.2", "max_tokens: 64", "input_template: 'Answer: {{ question }}'")
            page.wait_for_function(
                "() => document.getElementById('r-model_b.input_template').textContent === 'Answer: question 0'"
            )
        page.click("[data-add=thresholds]")
        page.keyboard.type("invalid_rate")
        page.locator("[data-list=thresholds] input[name=max]").fill("0.1")
        in_step(page, "invalid_rate:\n    max: 0.1", "description: 'Is it: polite?'", f"type: {type_}")
        text = page.input_value("#yaml")
        saved(page, ui, "talk.yaml")
        assert new(project) == ["data/talk.jsonl", "talk.yaml"]
        assert project.read("talk.yaml") == text and (project.root / "data/talk.jsonl").read_bytes() == DATA
        assert project.run("fmt", "--check", "talk.yaml").code == project.run("validate", "talk.yaml").code == 0
        assert not found.errors and not found.dialogs


def test_what_is_typed_as_yaml_shows_in_the_form_and_stays(browser: Any, ui: Ui) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create/evaluation?spec=strict.yaml")
        text = page.input_value("#yaml")
        more = "\n# a remark\nmatrix:\n  pass_labels: [[polite], [rude]]\ngold: good # the truth\n"
        page.fill("#yaml", text.replace("name: strict", "name: strict-2") + more)
        page.wait_for_function("() => document.getElementById('f-name').value === 'strict-2'")
        assert field(page, "gold").input_value() == "good"
        assert "matrix" in page.inner_text("#more")
        field(page, "tags").fill("one two")
        in_step(page, "tags: [one, two]", "# a remark", "gold: good # the truth", "matrix:")
        page.fill("#yaml", "a: [")
        page.wait_for_selector("#fields:disabled")
        assert "cannot be read" in page.inner_text("#reason")
        page.click("#anew")
        page.wait_for_selector("#fields:enabled")
        assert "name: strict-2" in page.input_value("#yaml") and "gold: good" in page.input_value("#yaml")
        assert not found.errors


def test_an_error_stands_beside_its_field_and_saving_leads_to_it(browser: Any, ui: Ui, project: Repository) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create/evaluation?dataset=rows.jsonl")
        field(page, "name").fill("bad name")
        field(page, "judge.temperature").evaluate("each => each.closest('details').open = true")
        field(page, "judge.temperature").fill("9")
        settled(page, "2 errors")
        for name in ("name", "judge.temperature"):
            assert field(page, name).get_attribute("aria-invalid") == "true"
            assert f"e-{name}" in (field(page, name).get_attribute("aria-describedby") or "")
            assert page.locator(f'[id="e-{name}"]').is_visible()
        page.click("#save")
        page.wait_for_function("() => document.activeElement.id === 'f-name'")
        assert new(project) == []
        page.click("#problem-list button")
        assert page.evaluate("document.activeElement.id") == "yaml"
        field(page, "name").fill("good")
        field(page, "judge.temperature").fill("")
        settled(page, "Valid")
        assert field(page, "name").get_attribute("aria-invalid") is None


def test_nothing_is_replaced_or_lost_unasked(browser: Any, ui: Ui, project: Repository) -> None:
    with watched(browser) as found:
        page = found.page
        before = project.read("strict.yaml")
        let_in(ui, page, "/create/evaluation?dataset=rows.jsonl")
        field(page, "name").fill("other")
        field(page, "path").fill("strict.yaml")
        settled(page, "Valid")
        page.click("#save")
        page.wait_for_selector("#replace[open]")
        page.click("#replace-no")
        assert project.read("strict.yaml") == before and page.evaluate("document.activeElement.id") == "f-path"
        with page.expect_event("dialog"):
            page.click("nav a >> nth=0", no_wait_after=True)
        assert found.dialogs == [""] and page.url.endswith("dataset=rows.jsonl")
        page.click("#save")
        page.click("#replace-yes")
        page.wait_for_url("**/apply?only=strict.yaml")
        assert "name: other" in project.read("strict.yaml")


def test_hostile_names_are_text_everywhere(browser: Any, ui: Ui, project: Repository) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create")
        upload(page, EVIL + ".jsonl", DATA)
        page.fill("#path", "data/" + EVIL.replace("/", "").replace("\u202e", "") + ".jsonl")
        page.click("#send")
        page.wait_for_url("**/create/dataset?**")
        page.get_by_role("link", name="Classify").click()
        page.wait_for_url("**/create/evaluation?**")
        field(page, "gold").select_option(page.locator("#f-gold option", has_text="img_src").get_attribute("value"))
        page.locator("[data-list=group_by] input").last.check()
        page.locator('[data-insert="judge.system_template"] button', has_text="img_src").click()
        page.wait_for_function(
            "name => document.getElementById('yaml').value.includes(`gold: ${name}`)", arg="img_src_x_onerror"
        )
        assert "img_src_x_onerror" in field(page, "gold").input_value()
        field(page, "description").fill(EVIL)
        page.locator("[data-list=labels] input[name=text]").first.fill(EVIL)
        field(page, "metric").fill(EVIL)
        field(page, "tags").fill(EVIL)
        field(page, "judge.model").fill(EVIL)
        field(page, "name").fill(EVIL)
        page.wait_for_selector('[id="e-name"]:not([hidden])')
        assert page.locator('[id="e-tags"]').is_visible() and "is no name" in page.inner_text('[id="e-name"]').replace(
            "which ", ""
        )
        assert page.locator("main :is(img, svg, iframe)").count() == 0
        assert page.locator("script").count() == 2
        assert "onerror" in page.inner_text("#problem-list")
        page.fill("#yaml", f'{EVIL}: [{json.dumps(EVIL)}\n"')
        page.wait_for_selector("#fields:disabled")
        sound(found, ui)


def test_a_file_chosen_before_the_script_has_come(browser: Any, ui: Ui, tmp_path: Path) -> None:
    with watched(browser) as found:
        page, held = found.page, []
        let_in(ui, page, "/")
        page.route("**/create_upload.js", lambda route: held.append(route))
        with page.expect_request("**/create_upload.js"):
            page.goto(ui.url + "/create", wait_until="commit")
        page.set_input_files("#file", {"name": "early.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"})
        assert page.input_value("#path") == ""
        held[0].continue_()
        page.wait_for_function("() => document.getElementById('path').value === 'data/early.csv'")
        sound(found, ui)


def test_by_keyboard_alone(browser: Any, ui: Ui, project: Repository) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create")
        page.focus("#file")
        upload(page, "talk.jsonl", DATA)
        page.keyboard.press("Enter")  # the path has the focus
        page.wait_for_url("**/create/dataset?**")
        page.get_by_role("link", name="Classify").focus()
        page.keyboard.press("Enter")
        page.wait_for_url("**/create/evaluation?**")
        settled(page, "Valid")
        page.focus("input[name=type]:checked")
        page.keyboard.press("ArrowRight")
        page.wait_for_url("**type=score**")
        settled(page, "Valid")
        page.focus("#save")
        page.keyboard.press("Enter")
        page.wait_for_url("**/apply?only=talk.yaml")
        assert "type: score" in project.read("talk.yaml")


@pytest.mark.parametrize("look", LOOKS)
def test_every_state_fits_and_no_label_is_missing(
    browser: Any, ui: Ui, project: Repository, look: dict[str, Any]
) -> None:
    (project.root / "talk.jsonl").write_bytes(DATA)
    (project.root / "bad.jsonl").write_text('{"a": 1}\n{bad\n')
    with watched(browser, **look) as found:
        page = found.page
        let_in(ui, page, "/create")
        for path in ("/create", "/create/dataset?path=talk.jsonl", "/create/dataset?path=bad.jsonl",
                     *(f"/create/evaluation?dataset=talk.jsonl&type={each}" for each in ("classify", "score", "compare"))):  # fmt: skip
            found.errors.clear()
            page.goto(ui.url + path)
            if "type=" in path:
                settled(page, "Valid")
            fits(page)
            unnamed = "[...document.querySelectorAll('main :is(input, select, textarea)')].filter(each => !each.labels.length && !each.ariaLabel && !each.getAttribute('aria-labelledby')).map(each => each.outerHTML)"
            assert page.evaluate(unnamed) == []
            assert violations(page) == [], path
            assert not [each for each in found.errors if "409" not in each]


def test_a_drop_is_an_upload(browser: Any, ui: Ui, tmp_path: Path) -> None:
    with watched(browser) as found:
        page = found.page
        let_in(ui, page, "/create")
        page.evaluate("""() => {
            const data = new DataTransfer();
            data.items.add(new File(['a,b\\n1,2\\n'], 'dropped.csv'));
            document.getElementById('upload').dispatchEvent(new DragEvent('drop', {dataTransfer: data, bubbles: true, cancelable: true}));
        }""")
        page.wait_for_function("() => document.getElementById('path').value === 'data/dropped.csv'")
        page.click("#send")
        page.wait_for_url("**/create/dataset?path=data%2Fdropped.csv")
        assert not found.errors
