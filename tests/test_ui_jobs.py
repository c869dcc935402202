"""The jobs tab of `evalops ui`: this machine's store, and a service that is `evalops serve`, over real HTTP."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
from apply_project import Folder as Local
from apply_project import truths
from model_server import serve
from serve_client import Client
from serve_process import KEY, Served
from service_project import Folder, at_service, make
from ui_process import opened


@pytest.fixture
def folder(tmp_path: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_service(server.url, tmp_path, monkeypatch)


def test_jobs_of_the_store_name_their_evaluations(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    with serve() as models:
        made = Local(tmp_path / "project", models.url).settings().rows(truths(4)).spec("tone")
        with opened(made.root) as ui, ui.client() as page:
            assert "No job is here yet" in page.get("/jobs").text
            assert made.apply().code == 0
            text = page.get("/jobs").text
            assert "1 job" in text and made.entry()["job"] in text and 'href="/evaluations/tone"' in text
            (made.root / "tone.lock").unlink()
            text = page.get("/jobs").text
            assert "1 that no evaluation has" in text and "no spec knows it" in text and "Import as spec" not in text


@pytest.mark.slow
def test_without_a_key_it_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY", raising=False)
    made = Folder(tmp_path / "project").settings()
    with opened(made.root) as ui, ui.client() as page:
        answer = page.get("/jobs?at=together")
        assert answer.status_code == 200
        assert "could not be asked" in answer.text and "TOGETHER_API_KEY is not set" in answer.text
        assert page.get("/jobs?at=elsewhere").status_code == 404
        refused = page.post("/jobs/import", data={"job": "eval-1"})
        assert refused.status_code == 409 and "TOGETHER_API_KEY" in refused.text


@pytest.mark.slow
def test_a_job_that_no_spec_knows_becomes_one(folder: Folder, client: Client, server: Served) -> None:
    job = make(client)
    with opened(folder.root) as ui, ui.client() as page:
        text = page.get("/jobs?at=together").text
        assert job in text and "no spec knows it" in text and server.url in text
        assert KEY not in text
        answer = page.post("/jobs/import", data={"job": job})
        assert answer.status_code == 200 and "was imported: completed" in answer.text
        name = next(path.stem for path in folder.root.glob("*.yaml") if path.name != "evalops.yaml")
        assert f'href="/evaluations/{name}"' in answer.text
        assert folder.actions() == {name: "noop"}
        again = page.post("/jobs/import", data={"job": job})
        assert again.status_code == 409 and "has the job" in again.text
        raw = page.get(f"/download/provider.jsonl/{name}")
        assert raw.status_code == 200 and raw.text == folder.good("rows", name, "--raw").out
        assert "own file" in page.get(f"/evaluations/{name}").text


@pytest.mark.slow
def test_what_cannot_be_imported_leaves_nothing(folder: Folder, client: Client) -> None:
    job = make(client)
    with opened(folder.root) as ui, ui.client() as page:
        before = folder.files()
        for wrong in ({"job": "eval-no-such"}, {"job": job, "to": "../elsewhere"}, {"job": "<img src=x>"}):
            answer = page.post("/jobs/import", data=wrong)
            assert answer.status_code == 409 and "<img src=x>" not in answer.text
        assert "inside the project" in html.unescape(page.post("/jobs/import", data={"job": job, "to": ".."}).text)
        assert page.post("/jobs/import").status_code == 400
        assert page.get("/jobs/import").status_code in (404, 405)
        assert folder.files() == before
