"""The page: everything of a stranger's is text, the policy fits what is in it, charts are where their numbers are."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from report_value import HOSTILE, evaluation, metric, report

from evalops.views import charts, facts, grid, html_, sections

TAGS = {
    "html", "head", "meta", "title", "style", "body", "a", "header", "nav", "span", "main", "article", "section", "div", "h1",
    "h2", "h3", "p", "ul", "ol", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tr", "th", "td", "br", "code",
    "pre", "strong", "details", "summary", "figure", "noscript", "script", "button", "svg", "rect", "line", "circle", "text",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "class", "id", "href", "rel", "role", "tabindex", "scope", "type",
    "title", "hidden", "height", "width", "x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "rx", "dy", "text-anchor",
}  # fmt: skip
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]")


class Page(HTMLParser):
    """What a browser sees: the elements with their attributes, and what is in styles and scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("style", "script"):
            self.raw.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.elements and self.cdata_elem:
            self.raw[-1] = (self.raw[-1][0], self.raw[-1][1] + data)
        else:
            self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    @property
    def data(self) -> list[Any]:
        return [json.loads(text) for about, text in self.raw if about.get("type") == "application/json"]


def read(text: str) -> Page:
    """The page; asserts that nothing in it does anything but what it has of its own."""
    assert not UNSAFE.search(text)
    page = Page(text)
    for tag, attributes in page.elements:
        assert tag in TAGS, tag
        for name, value in attributes.items():
            assert name in ATTRIBUTES or name.startswith(("aria-", "data-")), (tag, name)
            if name == "href":
                assert str(value).startswith("#"), value
    return page


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("kind", ["classify", "score", "compare", "custom"])
def test_whatever_a_stranger_writes_is_text(text: str, kind: str) -> None:
    found = html_.page(report(evaluation(text, address=text, kind=kind), text=text))
    page = read(found)
    scripts = [about for about, _ in page.raw if "type" not in about]
    assert len(scripts) == 2, "one style and one script"
    (data,) = page.data
    assert data["count"] == 60 and len(data["texts"][0]["values"]) == 60
    shown = grid.safe(text.replace("\r\n", "\n"))
    assert data["texts"][0]["values"][1] == shown
    assert sum(shown in each for each in page.texts) > 3 or len(shown) > 80 or "\n" in shown


def test_the_policy_allows_what_the_page_has_and_nothing_else() -> None:
    page = read(html_.page(report(evaluation())))
    (policy,) = [attributes["content"] for _, attributes in page.elements if attributes.get("http-equiv")]
    rules = dict(each.strip().split(" ", 1) for each in str(policy).split(";"))
    hashes = {
        kind: f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for kind, text in zip(
            ("style-src", "script-src"), [text for about, text in page.raw if "type" not in about], strict=True
        )
    }
    assert rules == {
        "default-src": "'none'", **hashes, "base-uri": "'none'", "form-action": "'none'",
        "require-trusted-types-for": "'script'", "trusted-types": "'none'",
    }  # fmt: skip
    tags = [tag for tag, _ in page.elements]
    place = next(at for at, (_, attributes) in enumerate(page.elements) if "http-equiv" in attributes)
    assert place < tags.index("style"), "a policy holds for what comes after it"


def test_style_and_script_are_plain_and_whole() -> None:
    style, script = html_.asset("style.css"), html_.asset("report.js")
    assert "</" not in style and "@import" not in style and "url(" not in style
    assert "</script" not in script.lower() and "<!--" not in script
    for word in ("innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "fetch(", "XMLHttp", "import("):
        assert word not in script
    assert "\r" not in style + script


def test_the_files_of_the_page_are_in_the_package() -> None:
    folder = Path(html_.__file__).parent / "page"
    assert {each.name for each in folder.iterdir()} == {
        "style.css", "report.js", "report.html", "evaluation.html", "charts.html",
    }  # fmt: skip
    project = tomllib.loads((Path(html_.__file__).parents[2] / "pyproject.toml").read_text())
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["evalops"]


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=200)
@given(values)
@example("</script><!--&\u2028\u2029<script>")
def test_json_in_a_script_element_is_what_it_was_and_ends_nothing(value: Any) -> None:
    text = html_.embedded(value)
    assert not re.search("[<>&\u2028\u2029]", text)
    assert json.loads(text) == value


def test_templates_of_others_are_as_strict() -> None:
    own = html_.environment(
        jinja2.DictLoader({"a.html": "{{ text }}|{{ text | line(5) }}|{% from 'evaluation.html' import evaluation %}"})
    )
    assert own.get_template("a.html").render(
        text="<b>\x1b[1m & more"
    ) == "&lt;b&gt;\\x1b[1m &amp; more|&lt;b&gt;…|".replace("&lt;b&gt;…", "&lt;b&gt;\\…")
    with pytest.raises(jinja2.UndefinedError):
        own.get_template("a.html").render()
    page = own.from_string("{% from 'evaluation.html' import evaluation %}{{ evaluation(section) }}")
    (section,) = sections.of(report(evaluation()), linked=False)
    text = page.render(section=section)
    assert text.count("<article") == 1 and 'data-rows="e-tone-rows"' in text and "rel=" not in text


# --- what is said ---


def plain(text: str) -> str:
    return " ".join(" ".join(Page(text).texts).split())


def test_the_overview_says_how_all_stand() -> None:
    found = plain(html_.page(report(evaluation(), text="demo")))
    for words in (
        "Evaluations of demo", "1 of 2 ✗ 1 failed", "1 invalid, 1 errors", "0 up, 1 down", "not known 3 calls, tokens not counted",
        "Not applied yet", "✗ 1 gate failed", "60.0 % Pass rate", "▼ -5.0, down, p 0.020", "[54.0, 66.0]", "Gone since the base: demo",
    ):  # fmt: skip
        assert words in found, words


@pytest.mark.parametrize(
    ("usage", "said"),
    [
        ({"calls": 3, "kept": 1, "prompt_tokens": 9, "completion_tokens": 2, "cost": 0.021},
         "3 calls, 1 reply known from before, 11 tokens, cost 0.021"),
        ({"calls": 5, "kept": 8, "estimate": {"cost": 0.5, "tokens": 9}, "reason": "no price"},
         "5 calls, 8 replies known from before, tokens unknown, cost about 0.5, an estimate (no price)"),
        ({"calls": None, "kept": None, "reason": "Together does not say what a job took"}, "Together does not say what a job took"),
    ],
)  # fmt: skip
def test_what_a_job_took_is_said_as_everywhere_else(usage: dict[str, Any], said: str) -> None:
    value = evaluation()
    value["summary"]["usage"] = usage
    assert dict(facts.of(value))["Took"] == said


def test_an_evaluation_without_a_result_says_so() -> None:
    bare = {
        **evaluation(), "summary": None, "headline": None, "gates": [], "move": None, "trend": [], "status": "failed",
        "message": "the endpoint is gone", "asked": None,
        "rows": {"count": 0, "columns": {}, "source": {}, "outputs": {}, "prompts": {}, "absent": {"rows": "there is no result yet"}},
    }  # fmt: skip
    found = plain(html_.page({**report(bare), "review": None, "base": None, "head": None}))
    assert "! failed" in found and "the endpoint is gone" in found and "No rows here: there is no result yet." in found
    nothing = plain(html_.page({**report(), "review": None, "base": None, "problems": [], "pending": []}))
    assert "No lockfile has a result yet. To make the first: evalops apply" in nothing


def test_addresses_that_are_alike_have_anchors_of_their_own() -> None:
    names = ["a[b]", "a b", "A-B", "ü", ""]
    found = [each["id"] for each in sections.of(report(*(evaluation(address=name) for name in names)))]
    assert found[:2] == ["e-a-b", "e-a-b-1"] and len(set(found)) == 5
    assert all(re.fullmatch("[a-z0-9-]+", each) for each in found)


# --- rows ---


def test_cells_are_cut_only_where_the_page_would_be_too_large() -> None:
    value = evaluation("x" * 5000)
    whole = grid.data(value)
    assert whole["texts"][0]["values"][1] == "x" * 5000
    assert not any("are cut" in note for note in whole["notes"])
    cut = grid.data(value, room=200_000)
    assert cut["texts"][0]["values"][1] == "x" * 300 + " … (cut: 4,700 more characters)"
    assert cut["votes"][0][0]["reason"].endswith(" more characters)")
    assert "Texts of more than 300 characters are cut; evalops report --format json has them whole" in cut["notes"]


def test_columns_worth_a_filter_are_those_of_the_spec_and_those_with_few_values() -> None:
    value = evaluation()
    value["rows"]["source"] |= {
        "channel": ["a", "b", "c"] * 20,
        "many": [str(each) for each in range(60)],
        "same": ["x"] * 60,
    }
    value["rows"]["source"] |= {"long": ["y" * 50, "z" * 50] * 30, "nested": [{"a": 1}, {"a": 2}] * 30}
    assert [each["name"] for each in grid.data(value)["groups"]] == ["group", "channel"]


def test_gold_and_recorded_verdicts_are_no_texts_of_the_row() -> None:
    value = evaluation()
    value["asked"]["verdict_columns"] = ["question"]
    assert [each["name"] for each in grid.data(value)["texts"]] == ["plain", "group", "number"]


def test_the_sides_of_a_comparison_are_known() -> None:
    texts = grid.data(evaluation("answer", kind="compare"))["texts"]
    assert [(each["name"], each["role"]) for each in texts][:2] == [("answer", "a"), ("model_b wrote", "b")]


# --- charts ---


@pytest.mark.parametrize(
    ("name", "value", "gates", "ends", "scale"),
    [
        ("pass_percentage", metric(60.0), [], None, (0, 100)),
        ("mean_score", metric(3.0), [], charts.Scale(1, 5), (1, 5)),
        ("mean_score", metric(3.0), [], None, (0, 3.3)),
        ("kappa", metric(0.5), [], None, (0, 1)),
        ("kappa", {"value": -0.2, "low": -0.5, "high": 0.1}, [], None, (-1, 1)),
        ("f1[rude]", metric(0.5), [], None, (0, 1)),
        ("mae", metric(3.0), [], None, (0, 3.3)),
        ("mae", metric(3.0), [{"metric": "mae", "max": 4.0}], None, (0, 4)),
    ],
)
def test_an_axis_is_that_of_the_metric(
    name: str, value: Any, gates: Any, ends: Any, scale: tuple[float, float]
) -> None:
    assert charts.scale_of(name, value, gates, ends) == pytest.approx(scale)


def test_an_interval_lies_where_its_numbers_are() -> None:
    gates = [
        {"metric": "pass_percentage", "min": 55.0, "on": "lower", "verdict": "failed"},
        {"metric": "pass_percentage", "by": "group", "min": 5.0, "on": "estimate", "verdict": "passed"},
        {"metric": "kappa", "min": 0.5, "on": "estimate", "verdict": "passed"},
    ]
    found = charts.interval("pass_percentage", metric(60.0), gates)
    assert found and (found.at, found.low, found.high) == (60.0, 54.0, 66.0)
    assert [(each.at, each.kind, each.passed) for each in found.gates] == [(55.0, "min", False)]
    assert found.text == "pass_percentage 60.0 [54.0, 66.0], gate: at least 55 (lower bound), failed"
    assert charts.interval("kappa", {"value": None, "reason": "no gold"}) is None
    alone = charts.interval("std_score", {"value": 0.0})
    assert alone and (alone.at, alone.low, alone.high) == (0.0, None, None)


def test_a_histogram_a_matrix_and_a_trend() -> None:
    bars = charts.columns({"1": 5, "2": 10, "3": 0}, ["1"])
    assert [(each.label, each.rows, each.size, each.is_fail, each.share) for each in bars] == [
        ("1", 5, 50.0, True, "33.3%"), ("2", 10, 100.0, False, "66.7%"), ("3", 0, 0.0, False, "0.0%"),
    ]  # fmt: skip
    assert charts.columns({}) == [] and charts.columns({"a": 0})[0].size == 0.0
    many = charts.columns({str(place): 1 for place in range(40)})
    assert sum(each.is_named for each in many) == 10
    matrix = charts.matrix({"labels": ["a", "b"], "rows": [[9, 1], [0, 0]]})
    assert [[(cell.rows, cell.heat, cell.is_hit) for cell in line] for line in matrix] == [
        [(9, 5, True), (1, 1, False)], [(0, 0, False), (0, 0, True)],
    ]  # fmt: skip
    assert charts.matrix({"reason": "too many"}) == [] and charts.matrix({"labels": ["a"], "rows": [[1]]}) == []
    trend = charts.trend(evaluation()["trend"], evaluation()["gates"])
    assert trend and [each.x for each in trend.dots] == [12.5, 37.5, 62.5, 87.5] and len(trend.lines) == 3
    assert [each.is_now for each in trend.dots] == [False, False, False, True] and trend.dots[1].failed
    assert trend.dots[0].y > trend.dots[3].y, "better is higher"
    assert [(each.kind, each.passed) for each in trend.gates] == [("min", False)]
    assert charts.trend(evaluation()["trend"][:1]) is None
    level = charts.trend([{"metric": "kappa", "value": 1.0, "day": "d", "commit": "c", "failed": False}] * 2)
    assert level and all(each.y == 50.0 for each in level.dots)
