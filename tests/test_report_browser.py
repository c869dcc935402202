"""The report in a real Chromium: filters, sorting, search, keyboard, both themes, a phone, and a stranger's texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from browser import Watched, expect, watched
from report_value import HOSTILE, evaluation, report

from evalops.views import html_

pytestmark = [pytest.mark.slow, pytest.mark.browser]

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@contextmanager
def opened(browser: Any, folder: Path, value: Any, anchor: str = "", **context: Any) -> Iterator[Watched]:
    """A page of a report, from disk. At the end nothing was asked of the network, and the console is empty."""
    path = folder / "report.html"
    path.write_text(html_.page(value), encoding="utf-8")
    with watched(browser, **{"viewport": WIDE, "reduced_motion": "reduce", **context}) as found:
        found.page.goto(f"{path.as_uri()}{anchor}")
        yield found
        assert (found.requests, found.errors, found.dialogs) == ([], [], [])


def shown(page: Any) -> list[str]:
    """The numbers of the rows that are drawn, from the top."""
    found: list[str] = page.locator("article:not([hidden]) .open").all_inner_texts()
    return found


def count(page: Any) -> str:
    return str(page.locator("article:not([hidden]) .rows .count").inner_text())


def choose(page: Any, label: str, option: str) -> None:
    """Sets a filter to the choice whose words begin like this."""
    select = page.get_by_label(label, exact=True).locator("visible=true")
    names = select.locator("option").all_inner_texts()
    (found,) = [name for name in names if name.startswith(option)]
    select.select_option(label=found)


def counted(page: Any, said: str) -> None:
    """Waits until the table says how many rows it shows. (The policy lets no test run code of its own to find out.)"""
    expect(page.locator("article:not([hidden]) .rows .count")).to_have_text(said)


def row(page: Any, number: int) -> Any:
    return page.get_by_role("button", name=re.compile(f"^Row {number},"))


# --- filters, search, sorting ---


def test_filters_say_what_there_is_and_leave_what_is_asked_for(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation()), "#e-tone") as it:
        page = it.page
        assert count(page) == "60 rows" and shown(page)[:4] == ["2", "1", "3", "4"]
        assert page.get_by_text("those that moved since the base first").is_visible()
        assert page.get_by_label("Outcome", exact=True).locator("option").all_inner_texts() == [
            "any", "✓ passes (19)", "✗ does not pass (39)", "⊘ invalid (1)", "! error (1)",
        ]  # fmt: skip
        choose(page, "Outcome", "✗")
        assert count(page) == "39 of 60 rows" and shown(page)[0] == "3"
        choose(page, "Verdict", "rude")
        assert count(page) == "19 of 60 rows"
        choose(page, "Outcome", "⊘")
        assert count(page) == "0 of 60 rows" and page.get_by_text("No row is like that.").is_visible()
        page.get_by_role("button", name="Clear all").click()
        assert count(page) == "60 rows" and page.get_by_label("Search").input_value() == ""
        choose(page, "Disagreement", "≠ verdict is not gold")
        assert count(page) == "39 of 60 rows"
        choose(page, "Disagreement", "≠ judges disagree")
        assert count(page) == "60 rows"
        choose(page, "Disagreement", "▼")
        assert count(page) == "1 of 60 rows" and shown(page) == ["2"]
        choose(page, "Disagreement", "any")
        choose(page, "group", "plain")
        assert count(page) == "20 of 60 rows"
        assert page.get_by_role("status").locator("visible=true").inner_text() == "20 of 60 rows"


def test_search_looks_through_every_text_and_marks_what_it_finds(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation("A Plain text (1)")), "#e-tone") as it:
        page = it.page
        page.keyboard.press("/")
        page.keyboard.type("PLAIN (1)")
        counted(page, "50 of 60 rows")
        assert shown(page)[:2] == ["2", "1"], "they have it in their problems"
        page.keyboard.press("Enter")
        page.keyboard.press("Enter")
        marks = page.locator("dialog mark").all_inner_texts()
        assert {"Plain", "(1)"} <= set(marks)
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        page.keyboard.press("Escape")
        counted(page, "60 rows")


def test_columns_sort_both_ways_and_what_has_no_value_comes_last(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation(kind="score")), "#e-tone") as it:
        page = it.page
        head = page.locator(".grid").get_by_role("columnheader", name="Verdict")
        assert head.get_attribute("aria-sort") == "none"
        page.get_by_role("button", name="Verdict", exact=True).click()
        assert head.get_attribute("aria-sort") == "ascending" and shown(page)[:3] == ["6", "11", "16"]
        page.get_by_role("button", name="Verdict", exact=True).click()
        assert head.get_attribute("aria-sort") == "descending" and shown(page)[:3] == ["5", "10", "15"]
        page.locator(".grid").evaluate("each => { each.scrollTop = 1e6 }")
        expect(page.locator(".open").last).to_have_text("2")
        choose(page, "Outcome", "✓")
        assert shown(page)[:2] == ["5", "10"], "it stays sorted"
        page.get_by_role("button", name="Row", exact=True).click()
        assert shown(page)[:3] == ["4", "5", "9"]
        assert head.get_attribute("aria-sort") == "none"


def test_a_cell_of_the_matrix_shows_its_rows(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation()), "#e-tone") as it:
        it.page.locator("[data-pick][data-gold=polite][data-verdict=rude]").click()
        assert count(it.page) == "19 of 60 rows" and it.page.get_by_label("Verdict", exact=True).input_value() == "rude"
        assert it.page.evaluate("document.activeElement.className") == "open"


def test_many_scores_are_filtered_by_ranges(browser: Any, tmp_path: Path) -> None:
    value = evaluation(kind="score")
    value["rows"]["columns"]["verdict"] = [None, None, *(1 + place / 58 for place in range(58))]
    with opened(browser, tmp_path, report(value), "#e-tone") as it:
        options = it.page.get_by_label("Verdict", exact=True).locator("option").all_inner_texts()
        assert len(options) == 11 and options[1] == "1 to 1.09828 (6)"
        choose(it.page, "Verdict", "1 to")
        assert count(it.page) == "6 of 60 rows"


# --- the keyboard, and one row ---


def test_the_keyboard_moves_opens_and_comes_back(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation()), "#e-tone") as it:
        page = it.page

        def focused() -> str:
            return str(page.evaluate("document.activeElement.textContent"))

        page.get_by_role("button", name="Row", exact=True).click()  # by the dataset's order
        page.locator("body").click(position={"x": 2, "y": 2})
        page.keyboard.press("j")
        assert focused() == "1"
        for key, number in (
            ("j", "2"),
            ("ArrowDown", "3"),
            ("k", "2"),
            ("ArrowUp", "1"),
            ("k", "1"),
            ("End", "60"),
            ("j", "60"),
            ("Home", "1"),
        ):
            page.keyboard.press(key)
            assert focused() == number, key
        page.keyboard.press("PageDown")
        assert 10 < int(focused()) < 40
        line = page.locator("tr.is-active")
        box, grid = line.bounding_box(), page.locator(".grid").bounding_box()
        assert grid["y"] <= box["y"] and box["y"] + box["height"] <= grid["y"] + grid["height"] + 1, "in sight"
        before = focused()
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name=f"Row {before}")
        assert dialog.is_visible()
        page.keyboard.press("j")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("k")
        assert page.get_by_role("dialog").get_attribute("aria-labelledby") == "row-title"
        assert page.locator("#row-title").inner_text() == f"Row {int(before) + 1}"
        page.keyboard.press("Escape")
        assert page.locator("dialog").count() == 0 and focused() == str(int(before) + 1)
        page.keyboard.press("Tab")
        page.get_by_label("Search").focus()
        page.keyboard.type("jk/")
        assert page.get_by_label("Search").input_value() == "jk/", "letters are letters in a field"


def test_a_row_has_verdict_reason_gold_texts_votes_and_prompt(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation("told")), "#e-tone") as it:
        page = it.page
        row(page, 4).click()
        said = page.locator("dialog").inner_text()
        for words in (
            "✓ polite passes", "polite ✓ agrees", "rude → polite + not among the rows of the base", "What the judge said\ntold",
            "Votes: they disagree", "second\t1\tinvalid: told", "Criteria", "Other columns", "judge.system_template, filled in for this row",
        ):  # fmt: skip
            assert words in said, (words, said)
        page.get_by_text("judge.system_template, filled in").click()
        assert page.locator("dialog details pre").inner_text() == "told"
        for _ in range(3):
            page.get_by_role("button", name="← Previous").click()
        assert page.get_by_role("button", name="← Previous").is_disabled()
        assert "! error: told" in page.locator("dialog").inner_text()
        page.locator("dialog").click(position={"x": 3, "y": 3})
        page.get_by_role("button", name="Close").click()


def test_a_comparison_stands_side_by_side_with_the_winner_in_both_orders(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation("told", kind="compare")), "#e-tone") as it:
        page = it.page
        row(page, 4).click()
        sides = page.locator("dialog .sides > section")
        assert sides.all_inner_texts() == ["A: told\n✓ wins\ntold", "B: b\ntold"]
        one, other = (sides.nth(place).bounding_box() for place in (0, 1))
        assert one["y"] == other["y"] and one["x"] + one["width"] <= other["x"]
        said = page.locator("dialog").inner_text()
        assert "Both orders: they disagree" in said and "A shown first\tA\ttold" in said and "B shown first\tB" in said
        page.keyboard.press("j")
        assert "B: b\n✓ wins" in page.locator("dialog").inner_text()
        page.keyboard.press("j")
        assert page.get_by_text("= tie").count() == 2


# --- the page ---


def test_views_are_shown_one_at_a_time_and_have_addresses(browser: Any, tmp_path: Path) -> None:
    value = report(evaluation(), evaluation(address="second one"))
    with opened(browser, tmp_path, value) as it:
        page = it.page
        assert page.locator("article").evaluate_all("all => all.map(each => each.hidden)") == [False, True, True]
        assert page.title() == "plain · evalops report"
        assert page.get_by_role("link", name="Overview").get_attribute("aria-current") == "page"
        page.get_by_role("link", name="second one").first.click()
        page.wait_for_url("**#e-second-one")
        assert page.locator("article:not([hidden])").get_attribute("id") == "e-second-one"
        assert page.title().startswith("second one · ") and page.evaluate("document.activeElement.tagName") == "H2"
        assert page.locator(".nav a[aria-current]").count() == 0 and count(page) == "60 rows"
        page.get_by_role("link", name="tone", exact=False).locator("visible=true").first.click()
        page.go_back()
        page.go_back()
        page.locator("#overview").wait_for(state="visible")
        page.keyboard.press("Tab")
        page.evaluate("location.hash = '#main'")
        assert not page.locator("#overview").evaluate("each => each.hidden"), "the way past the header changes no view"
        page.evaluate("location.hash = '#nowhere'")
        assert not page.locator("#overview").evaluate("each => each.hidden")


CONTRAST = """() => {
  const channel = (value) => (value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                            return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (colour) => { const [r, g, b] = rgb(colour).map((each) => channel(each / 255)); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (element) => { for (let each = element; each; each = each.parentElement) {
    const colour = getComputedStyle(each).backgroundColor; if (rgb(colour)[3] === 255) return colour; } return 'white'; };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!own || !element.checkVisibility({ visibilityProperty: true }) || element.closest('svg, [disabled], .visually-hidden')) continue;
    const [one, other] = [light(getComputedStyle(element).color), light(ground(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName}.${element.className} ${element.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("kind", ["classify", "score", "compare"])
def test_everything_can_be_read_in_both_themes(browser: Any, tmp_path: Path, scheme: str, kind: str) -> None:
    with opened(browser, tmp_path, report(evaluation(kind=kind)), color_scheme=scheme) as it:
        page = it.page
        grounds = {"light": "rgb(245, 246, 248)", "dark": "rgb(14, 18, 23)"}
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[scheme]
        assert page.evaluate(CONTRAST) == []
        page.evaluate("location.hash = '#e-tone'")
        page.wait_for_selector(".open")
        assert page.evaluate(CONTRAST) == []
        row(page, 4).click()
        assert page.evaluate(CONTRAST) == []
        page.keyboard.press("Escape")
        button = page.get_by_role("button", name="Theme:")
        for theme in ("light", "dark", None):
            button.click()
            assert page.evaluate("document.documentElement.dataset.theme || null") == theme
            ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
            assert ground == grounds[theme or scheme]


@pytest.mark.parametrize("text", ["plain", "a" * 3000, "word " * 300])
@pytest.mark.parametrize("kind", ["classify", "score", "compare"])
@pytest.mark.parametrize("width", [320, 390, 800])
def test_no_page_is_wider_than_the_screen(browser: Any, tmp_path: Path, text: str, kind: str, width: int) -> None:
    value = report(evaluation(text, kind=kind), text=text)
    with opened(browser, tmp_path, value, viewport={"width": width, "height": 844}) as it:
        page = it.page
        widths = "[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]"
        assert page.evaluate(widths) == [width] * 3
        page.evaluate("location.hash = '#e-tone'")
        page.wait_for_selector(".open")
        assert page.evaluate(widths) == [width] * 3
        row(page, 4).click()
        assert page.evaluate(widths) == [width] * 3
        assert page.evaluate("(each => each.scrollWidth <= each.clientWidth)(document.querySelector('dialog'))")


def test_on_a_phone_a_row_keeps_its_verdict_and_its_text(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation()), "#e-tone", viewport=PHONE) as it:
        heads = [each for each in it.page.locator(".grid th").all() if each.is_visible()]
        assert [each.inner_text() for each in heads] == ["Row", "Verdict", "plain"]
        boxes = [each.bounding_box() for each in heads]
        assert boxes[2]["width"] > 100
        row(it.page, 4).click()
        assert it.page.locator("dialog").bounding_box()["width"] == 390


def test_only_rows_in_sight_are_drawn(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation(count=20_000)), "#e-tone") as it:
        page = it.page
        assert count(page) == "20,000 rows" and len(shown(page)) < 60
        page.keyboard.press("j")
        page.keyboard.press("End")
        assert shown(page)[-1] == "20,000" and len(shown(page)) < 60
        table = page.locator(".grid table")
        assert table.get_attribute("aria-rowcount") == "20001"
        assert page.locator("tr.is-active").get_attribute("aria-rowindex") == "20001"
        page.locator(".grid").evaluate("each => { each.scrollTop = each.scrollHeight / 2 }")
        expect(page.locator(".open").first).to_have_text(re.compile("^(9,9|10,0)"))


def test_without_scripts_everything_but_the_rows_is_there(browser: Any, tmp_path: Path) -> None:
    value = report(evaluation(), evaluation(address="second"))
    with opened(browser, tmp_path, value, java_script_enabled=False) as it:
        assert it.page.get_by_role("heading", name="second").is_visible()
        assert it.page.locator("article:visible").count() == 3


def test_a_reader_of_the_screen_gets_words_for_every_chart(browser: Any, tmp_path: Path) -> None:
    with opened(browser, tmp_path, report(evaluation()), "#e-tone") as it:
        page = it.page
        names = [
            each.get_attribute("aria-label") for each in page.locator("svg[role=img]").locator("visible=true").all()
        ]
        assert all(names) and any("gate: at least 55 (lower bound), failed" in str(each) for each in names)
        assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0
        assert page.get_by_role("heading", level=1).count() == 0 and page.get_by_role("heading", level=2).count() == 1
        assert page.get_by_role("region", name="Rows of tone").is_visible()
        page.get_by_text("As a table").click()
        assert "not committed" in page.locator(".history table").inner_text()


# --- strangers ---


@pytest.mark.parametrize("kind", ["classify", "score", "compare"])
def test_nothing_of_a_stranger_does_anything(browser: Any, tmp_path: Path, kind: str) -> None:
    value = report(*(evaluation(text, address=text, kind=kind) for text in HOSTILE), text=HOSTILE[0])
    with opened(browser, tmp_path, value) as it:
        page = it.page
        elements = "[...document.querySelectorAll('script:not([type]), img, iframe, object, link, base, form, svg [onload]')].length"
        for view in page.locator("article").evaluate_all("all => all.map(each => each.id)"):
            page.evaluate("id => { location.hash = id }", view)
            page.locator(f"#{view}").wait_for(state="visible")
            if view == "overview":
                continue
            row(page, 2).locator("visible=true").click()
            page.keyboard.press("j")
            page.keyboard.press("j")
            page.evaluate("for (const each of document.querySelectorAll('dialog summary')) each.click()")
            page.keyboard.press("Escape")
            page.locator("article:not([hidden]) input[type=search]").fill("o")
            page.evaluate("for (const each of document.querySelectorAll('article:not([hidden]) .sort')) each.click()")
            assert page.evaluate(elements) == 1, "the script of the page"
