"""What is at the service and nowhere else: jobs, files, models and raw results, against `evalops serve`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from model_server import Server
from serve_client import Client, good, replies
from serve_process import EXTERNAL, SERVERLESS, Served
from service_project import TOKEN, Folder, at_service, make
from test_importing import JUDGE, external

from evalops.providers import together_models

EVIL = "rows\x1b[31m\u202ered.jsonl"


@pytest.fixture(scope="module")
def classified(client: Client) -> str:
    return make(client)


@pytest.fixture(scope="module")
def scored(client: Client, classified: str) -> str:
    """Made after the other one."""
    rows = [{"question": f"q{number} quality=4", "answer": "yes"} for number in range(3)]
    parameters = {
        "judge": JUDGE, "model_to_evaluate": "answer", "min_score": 1.0, "max_score": 5.0, "pass_threshold": 3.0,
    }  # fmt: skip
    return make(client, rows, body={"type": "score", "parameters": parameters})


@pytest.fixture
def folder(tmp_path: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_service(server.url, tmp_path, monkeypatch)


# --- jobs ---


def test_jobs_are_listed_newest_first_with_who_holds_them(folder: Folder, classified: str, scored: str) -> None:
    folder.good("import", classified)
    found = folder.good("status", "--remote", "--format", "json").json
    ids = [each["job"] for each in found]
    assert ids.index(scored) < ids.index(classified)
    one = found[ids.index(classified)]
    assert one["addresses"] == [classified]
    assert (one["type"], one["status"], one["provider_status"]) == ("classify", "completed", "completed")
    rows = [line.split() for line in folder.good("status", "--remote").out.splitlines()]
    assert next(row for row in rows if row[0] == classified)[-1] == classified


def test_jobs_are_picked_by_type_status_and_number(folder: Folder, classified: str, scored: str) -> None:
    def listed(*arguments: str) -> list[str]:
        return [each["job"] for each in folder.good("status", "--remote", "--format", "json", *arguments).json]

    assert scored in listed("--type", "score") and classified not in listed("--type", "score")
    assert listed("--status", "running") == []
    assert {classified, scored} <= set(listed("--status", "completed"))
    assert len(listed("--limit", "1")) == 1
    assert listed("--type", "classify", "--limit", "1") == listed("--type", "classify")[:1]
    assert folder.good("status", "--remote", "--status", "running").out == "The service has no such job.\n"
    assert folder.run("status", "--remote", "--status", "no-such-word").code == 1


@pytest.mark.parametrize("arguments", [["--type", "score"], ["--limit", "3"], ["--status", "x"], ["--remote", "tone"]])
def test_options_that_do_not_go_together(folder: Folder, arguments: list[str]) -> None:
    assert folder.run("status", *arguments).code == 64


def test_a_service_is_asked_only_with_a_key(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    done = folder.run("status", "--remote")
    assert done.code == 1
    assert "TOGETHER_API_KEY is not set" in done.err
    assert folder.good("status").code == 0


def test_show_takes_the_id_of_a_job(folder: Folder, classified: str, scored: str) -> None:
    value = folder.good("show", scored, "--format", "json").json
    assert value["address"] is None and value["addresses"] == []
    assert value["parameters"]["judge"]["model"] == SERVERLESS
    assert value["parameters"]["pass_threshold"] == 3
    assert value["results"]["aggregated_scores"]["pass_percentage"] == 0
    text = folder.good("show", scored).out
    assert text.startswith(f"{scored}  completed\n")
    assert "held by no lockfile" in text
    assert "model_to_evaluate  column answer" in text
    assert re.search(r"^aggregated_scores.mean_score +1\.[0-9]+$", text, re.MULTILINE)
    assert "polite" in folder.good("show", classified).out


def test_show_prefers_an_address(folder: Folder, classified: str) -> None:
    folder.good("import", classified)
    assert folder.good("show", classified, "--format", "json").json["address"] == classified


def test_show_of_a_job_that_a_lockfile_names_otherwise(folder: Folder, classified: str) -> None:
    folder.good("import", classified)
    spec = folder.root / f"{classified}.yaml"
    spec.write_text(spec.read_text().replace(f"name: {classified}", "name: tone"))
    folder.good("apply", "--yes")
    assert "held by tone" in folder.good("show", classified).out


def test_what_is_neither_an_address_nor_a_job(folder: Folder) -> None:
    done = folder.run("show", "eval-nothing")
    assert done.code == 1 and "Together has no job `eval-nothing`" in done.err
    done = folder.run("show", "ton")
    assert done.code == 1 and "no lockfile has the address `ton`" in done.err
    done = folder.run("show", "eval-../../v1/files")
    assert done.code == 1 and "Together has no job" in done.err


def test_no_token_is_shown(folder: Folder, client: Client, models: Server) -> None:
    job = make(client, judge=external(models))
    for done in (folder.good("show", job), folder.good("show", job, "--format", "json")):
        assert EXTERNAL in done.out
        assert "external_api_token" not in done.out


def test_a_token_that_a_service_echoes_is_masked() -> None:
    from evalops.lock import Status
    from evalops.providers.base import Job
    from evalops.remote import brief

    told = {"type": "score", "parameters": {"judge": {"external_api_token": TOKEN}}}
    job = Job(
        id="eval-1", fingerprint="", generation=1, status=Status.FAILED, provider_status="user_error",
        created_at="2026-01-01T00:00:00Z", message=f"401 for Bearer {TOKEN}", told=told,
    )  # fmt: skip
    assert brief(job, {})["message"] == "401 for Bearer ***"


def test_an_address_that_may_hold_a_password_is_not_shown() -> None:
    from evalops.remote import _essentials

    for url in (f"https://user:{TOKEN}@host.example/v1", f"https://host.example/v1?key={TOKEN}"):
        assert _essentials({"judge": {"external_base_url": url}}) == {"judge": {"external_base_url": "***"}}
    fine = {"judge": {"external_base_url": "https://host.example/v1"}}
    assert _essentials(fine) == fine


def test_numbers_and_depths_that_json_cannot_hold_are_texts() -> None:
    from evalops.remote import _masked

    deep: Any = "bottom"
    for _ in range(2000):
        deep = [deep]
    shown = json.dumps(_masked({"deep": deep, "odd": float("nan"), "fine": 1.5}, []), allow_nan=False)
    assert "bottom" not in shown and '"odd": "nan", "fine": 1.5' in shown


# --- rows ---


def test_raw_rows_are_the_providers_bytes(folder: Folder, client: Client, classified: str) -> None:
    folder.good("import", classified)
    file = client.job(classified)["results"]["result_file_id"]
    assert folder.good("rows", classified, "--raw").out.encode() == client.http.get(f"/v1/files/{file}/content").content


def test_raw_rows_go_with_nothing_else(folder: Folder, classified: str) -> None:
    folder.good("import", classified)
    for more in (["--format", "csv"], ["--failed"], ["--limit", "1"], ["--status", "scored"]):
        assert folder.run("rows", classified, "--raw", *more).code == 64


def test_the_engine_here_has_no_raw_file(folder: Folder) -> None:
    (folder.root / "rows.jsonl").write_text('{"response": "a", "label": "polite"}\n')
    (folder.root / "tone.yaml").write_text(
        "version: 1\nname: tone\ntype: classify\ndataset: rows.jsonl\njudge: {column: label}\n"
        "labels: [polite, rude]\nmodel_to_evaluate: response\n"
    )
    folder.good("apply", "--yes")
    done = folder.run("rows", "tone", "--raw")
    assert done.code == 1
    assert done.out == ""
    assert "`tone` ran at the provider `local`, which makes no result file" in done.err


# --- files ---


def test_files_are_listed(folder: Folder, client: Client) -> None:
    file = client.upload(replies(2))
    found = {each["id"]: each for each in folder.good("dataset", "list", "--remote", "--format", "json").json}
    assert found[file]["name"] == "rows.jsonl"
    assert found[file]["bytes"] == len(b"".join(json.dumps(row).encode() + b"\n" for row in replies(2)))
    assert found[file]["purpose"] == "eval"
    assert found[file]["created_at"].endswith("Z")
    assert file in folder.good("dataset", "list", "--remote").out


def test_the_name_of_a_file_does_nothing_in_a_terminal() -> None:
    from evalops.views import tables

    shown = tables.files([{"id": "file-1", "name": EVIL, "bytes": None, "purpose": "eval", "created_at": None}])
    assert "\x1b" not in shown and "\u202e" not in shown
    assert "\\x1b[31m" in shown


def test_the_datasets_of_the_specs_need_no_service(
    folder: Folder, classified: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.good("import", classified)
    monkeypatch.delenv("TOGETHER_API_KEY")
    found = folder.good("dataset", "list", "--format", "json").json[0]
    assert (found["path"], found["rows"], found["addresses"]) == (f"data/{classified}.jsonl", 6, [classified])
    assert f"data/{classified}.jsonl" in folder.good("dataset", "list").out


# --- models ---

TOGETHER = "https://api.together.ai"


def spec(folder: Folder, model: str, **more: Any) -> None:
    (folder.root / "rows.jsonl").write_text('{"response": "a"}\n')
    judge = {"model": model, "system_template": "Is it polite?", **more}
    value = {
        "version": 1, "name": "tone", "type": "classify", "provider": "together", "dataset": "rows.jsonl",
        "judge": judge, "labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response",
    }  # fmt: skip
    (folder.root / "tone.yaml").write_text(json.dumps(value))


def warned(folder: Folder) -> list[Any]:
    done = folder.run("validate", "--format", "json")
    assert done.code == 0, done
    return [each for each in done.json if each["code"] == "together/unknown-model"]


def test_the_shipped_list_is_well_formed() -> None:
    found = together_models.shipped()
    for ids in (found.serverless, found.external):
        assert list(ids) == sorted(set(ids)) and all("/" in each for each in ids)
    assert not set(found.serverless) & set(found.external)
    assert found.date and found.source


@pytest.fixture
def afar(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service is Together's own, which validate and plan do not ask."""
    monkeypatch.setenv("TOGETHER_BASE_URL", TOGETHER)


@pytest.mark.usefixtures("afar")
def test_an_unknown_model_is_a_warning_with_the_nearest(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")  # validate and plan ask nobody
    spec(folder, "openai/gpt-oss-12b", model_source="serverless")
    (warning,) = warned(folder)
    assert warning["severity"] == "warning"
    assert warning["line"] == 1 and warning["path"] == "tone.yaml"
    assert "`openai/gpt-oss-12b` is not among the serverless models" in warning["message"]
    assert warning["hint"] == "did you mean `openai/gpt-oss-120b`?"
    done = folder.good("plan")
    assert "warning[together/unknown-model]" in done.err
    assert "create" in done.out


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("openai/gpt-oss-120b", {}),
        ("together/openai/gpt-oss-120b", {}),
        ("ep_12345", {"model_source": "dedicated"}),
        ("zai-org/GLM-5", {"model_source": "serverless"}),
    ],
)
def test_a_known_model_and_an_endpoint_of_ones_own_are_fine(folder: Folder, model: str, more: dict[str, Any]) -> None:
    spec(folder, model, **more)
    assert warned(folder) == []


def test_a_service_on_this_machine_has_models_of_its_own(folder: Folder) -> None:
    spec(folder, "openai/gpt-oss-12b", model_source="serverless")
    assert warned(folder) == []


@pytest.mark.usefixtures("afar")
def test_a_model_of_evalops_yaml_is_known(folder: Folder) -> None:
    spec(folder, "my/own", model_source="serverless")
    assert len(warned(folder)) == 1
    folder.settings(models={"my/own": {"base_url": "http://127.0.0.1:9/v1"}})
    assert warned(folder) == []


@pytest.mark.usefixtures("afar")
def test_a_shortcut_is_looked_for_among_the_external_ones(folder: Folder) -> None:
    folder.settings(credentials={"openai": {"env": "OPENAI_API_KEY", "origins": ["https://api.openai.com", TOGETHER]}})
    spec(folder, "openai/gpt-4o-mimi", credential="openai")
    (warning,) = warned(folder)
    assert "external models" in warning["message"]
    assert warning["hint"] == "did you mean `openai/gpt-4o-mini`?"


@pytest.mark.usefixtures("afar")
def test_a_refreshed_list_takes_the_warning_away_and_leaves_the_plan_as_it_is(folder: Folder) -> None:
    spec(folder, SERVERLESS)
    assert len(warned(folder)) == 1
    before = folder.good("plan", "--format", "json").json
    together_models.keep(TOGETHER, [SERVERLESS])
    assert warned(folder) == []
    after = folder.good("plan", "--format", "json").json
    assert (after["digest"], after["changes"]) == (before["digest"], before["changes"])


def test_a_list_is_refreshed_from_the_service(folder: Folder) -> None:
    done = folder.good("models", "--refresh", "--format", "json")
    assert {"id": SERVERLESS, "model_source": None, "shipped": False, "refreshed": True} in done.json["models"]
    text = folder.good("models").out
    assert SERVERLESS in text and "was asked at" in text and "openai/gpt-oss-120b" in text


def test_the_list_needs_no_service(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert folder.good("models", "--format", "json").json["refreshed"] is None
    assert "openai/gpt-oss-120b" in folder.good("models").out
    assert folder.run("models", "--refresh").code == 1


@pytest.mark.parametrize(
    "content",
    ["", "[]", '{"at": 1, "models": []}', '{"at": "x", "models": []}', "[" * 5000, '{"at": "2026-01-01", "models": 3}'],
)
def test_a_spoilt_list_is_none(folder: Folder, content: str) -> None:
    together_models.keep(TOGETHER, ["a/b"])
    assert together_models.refreshed(TOGETHER) is not None
    (path,) = together_models._path(TOGETHER).parent.iterdir()
    path.write_text(content)
    assert together_models.refreshed(TOGETHER) is None


def test_every_service_has_its_own_list(folder: Folder) -> None:
    together_models.keep("https://a.example", ["a/b", "a/b", "", "x" * 500])
    found = together_models.refreshed("https://a.example")
    assert found is not None and found.ids == ("a/b",)
    assert together_models.refreshed("https://b.example") is None


def test_the_server_is_asked_once(client: Client) -> None:
    assert (
        SERVERLESS in good(client.http.get("/v1/evaluation/model-list", params={"model_source": "all"}))["model_list"]
    )
