"""A result in `evalops ui`: the report's section of it beside a base, and everything to take away, over real HTTP."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from apply_project import Folder
from repository import ID, Repository
from ui_process import Ui, opened

EVIL = "</script><img src=x onerror=alert(1)>\u202e"
MATRIX = "tone[judge.column=fair]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A result that moved since its commit, one of each other type, a matrix, one that waits, and hostile texts."""
    made = Repository.make(tmp_path_factory.mktemp("review") / "project")
    made.spec("tone", "fair", thresholds={"pass_percentage": {"min": 80}}, gold="good", group_by=["choice"])
    made.applied(message="first")
    made.spec("tone", "good", thresholds={"pass_percentage": {"min": 80}}, gold="good", group_by=["choice"])
    hostile(made.folder)
    shape: dict[str, Any] = {
        "dataset": ID,
        "type": "score",
        "judge": {"column": "grade"},
        "model_to_evaluate": "response",
    }
    made.folder.spec("grade", min_score=1, max_score=5, pass_threshold=3, **shape)
    made.folder.spec(
        "cells", file="cells.yaml", dataset=ID, judge={"column": "good"}, matrix={"judge.column": ["fair", "poor"]}
    )
    made.applied("tone", "evil", "grade", "cells*", message="second")
    made.spec("later", "poor")
    return made


def hostile(folder: Folder) -> None:
    folder.rows([{"id": "r1", EVIL: EVIL, "said": "polite", "response": EVIL}], "evil.jsonl")
    folder.spec("evil", dataset="evil.jsonl", judge={"column": "said"}, description=EVIL, labels=["polite", EVIL])


@pytest.fixture(scope="module")
def ui(made: Repository) -> Iterator[Ui]:
    """The pages of it, which have written nothing into git's sight in the end."""
    before = made.git("status", "--porcelain")
    with opened(made.root) as running:
        yield running
        assert made.git("status", "--porcelain") == before
        assert "a bug of evalops" not in running.said()


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[httpx.Client]:
    with ui.client() as client:
        yield client


def data(text: str) -> dict[str, Any]:
    """What the script of a page reads."""
    found = re.search(r'<script type="application/json" id="[^"]+">(.*?)</script>', text, re.DOTALL)
    assert found
    value: dict[str, Any] = json.loads(found[1])
    return value


# --- the page ---


def test_a_result_has_its_numbers_gates_charts_and_rows(page: httpx.Client) -> None:
    text = page.get("/evaluations/tone").text
    assert "90.0 %" in text and "passed" in text and "Verdicts against gold" in text and "by choice" in text
    found = data(text)
    assert found["count"] == 60 and set(found["verdict"]) == {"polite", "rude"}
    assert 'src="/static/report.js"' in text and page.get("/static/report.js").status_code == 200


@pytest.mark.slow
def test_it_stands_beside_a_revision_of_git(page: httpx.Client) -> None:
    text = page.get("/evaluations/tone", params={"base": "HEAD~1"}).text
    assert "Since the base" in text and "85.0" in text
    assert sum(each is not None for each in data(text)["moved"]) == 3
    now = page.get("/evaluations/tone", params={"base": "HEAD"}).text
    assert "moved" not in data(now)
    nothing = page.get("/evaluations/tone", params={"base": "--no-such<img>"})
    assert nothing.status_code == 200 and "<img>" not in nothing.text
    assert "history/revision" in nothing.text and "90.0" in nothing.text  # a slip in the base hides no result


def test_the_overview_leads_to_it(page: httpx.Client) -> None:
    text = page.get("/").text
    assert 'href="/evaluations/tone"' in text and 'href="/evaluations/later"' not in text


def test_it_leads_to_the_form_of_its_spec(page: httpx.Client, made: Repository) -> None:
    edit = 'href="/create/evaluation?spec=cells.yaml"'
    address = min(made.folder.lock("cells"))
    assert edit in page.get(f"/evaluations/{quote(address, safe='')}").text
    assert page.get("/").text.count(edit) == 2
    assert "Edit cells.yaml" in page.get("/create/evaluation?spec=cells.yaml").text


def test_an_address_of_a_matrix_is_encoded(page: httpx.Client, made: Repository) -> None:
    addresses = sorted(made.folder.lock("cells"))
    assert len(addresses) == 2
    for address in addresses:
        path = f"/evaluations/{quote(address, safe='')}"
        assert f'href="{path}"' in page.get("/").text
        answer = page.get(path)
        assert answer.status_code == 200 and data(answer.text)["count"] == 60


def test_what_has_no_result_leads_to_its_plan(page: httpx.Client) -> None:
    text = page.get("/evaluations/later").text
    assert "no result yet" in text and 'href="/apply?only=later"' in text


@pytest.mark.parametrize("address", ["nothing", "t*", "tag:x", "", "..%2Ftone", "tone%2F..%2F..%2Fevalops.yaml", "%00"])
def test_what_is_no_address_is_not_found(page: httpx.Client, address: str) -> None:
    assert page.get(f"/evaluations/{address}").status_code == 404
    assert page.get(f"/download/rows.csv/{address}").status_code == 404


def test_hostile_texts_are_data(page: httpx.Client) -> None:
    text = page.get("/evaluations/evil").text
    assert "<img" not in text and "\u202e" not in text and text.count("</script>") == text.count("<script")
    assert any("onerror=alert(1)" in each["values"][0] for each in data(text)["texts"])


# --- downloads ---


def test_rows_come_as_the_command_line_has_them(page: httpx.Client, made: Repository) -> None:
    answer = page.get("/download/rows.jsonl/tone")
    assert answer.headers["content-disposition"] == 'attachment; filename="tone.rows.jsonl"'
    assert answer.text == made.run("rows", "tone").out
    found = list(csv.DictReader(io.StringIO(page.get("/download/rows.csv/tone").text)))
    assert (
        len(found) == 60 and page.get("/download/rows.csv/tone").text == made.run("rows", "tone", "--format", "csv").out
    )


@pytest.mark.slow
def test_summary_and_report_come_as_files(page: httpx.Client, made: Repository) -> None:
    summary = page.get("/download/summary.json/tone")
    assert summary.json()["summary"] == made.folder.summary()
    report = page.get("/download/report.html/tone")
    assert (
        report.headers["content-type"].startswith("text/html") and "attachment" in report.headers["content-disposition"]
    )
    assert report.text.startswith("<!doctype html>") and "Content-Security-Policy" in report.text


def test_the_name_of_a_file_is_plain(page: httpx.Client, made: Repository) -> None:
    address = sorted(made.folder.lock("cells"))[0]
    named = page.get(f"/download/rows.csv/{quote(address, safe='')}").headers["content-disposition"]
    assert re.fullmatch(r'attachment; filename="cells-[A-Za-z0-9._-]+\.rows\.csv"', named)


def test_what_there_is_not_says_so(page: httpx.Client) -> None:
    assert page.get("/download/provider.jsonl/tone").status_code == 404
    assert "makes no result file" in page.get("/download/provider.jsonl/tone").text
    assert page.get("/download/passwords/tone").status_code == 404
    later = page.get("/download/rows.jsonl/later", headers={"accept": "application/json"})
    assert later.status_code == 409 and "no lockfile has the address" in later.json()["error"]["message"]


@pytest.mark.slow
def test_rows_that_are_elsewhere_say_why(tmp_path: Path) -> None:
    """Another checkout has the lockfile and the verdicts, and no store."""
    made = Repository.make(tmp_path / "project").spec("tone")
    made.folder.applied()
    store = made.root / ".evalops" / "store.sqlite"
    store.unlink()
    with opened(made.root) as ui, ui.client() as page:
        text = page.get("/evaluations/tone").text
        assert data(text)["count"] == 60
        answer = page.get("/download/rows.jsonl/tone")
        assert answer.status_code in (200, 409) and "Traceback" not in answer.text
