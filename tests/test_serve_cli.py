"""The official command line, unchanged, against `evalops serve`: both in processes of their own.

Each call of it takes a second, so that a test makes several.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command import Done
from model_server import Server
from serve_process import DEDICATED, EXTERNAL, KEY, SERVERLESS, Served
from together import Together

TOKEN = "sk-of-their-model-3141592653"
PATIENCE = 60.0  # seconds for a call or a job, on a machine that is busy
NOWHERE = "http://127.0.0.1:9"

ANSWERS = [
    {"question": "Where is it? truth=polite", "answer": "On its way"},
    {"question": "And now? truth=rude", "answer": "Ask again"},
    {"question": "Thanks! truth=polite", "answer": "Gladly"},
]
DUELS = [
    {"question": "Which?", "one": "quality=3", "two": "quality=2"},
    {"question": "And here?", "one": "quality=9", "two": "quality=1"},
    {"question": "Last?", "one": "quality=4", "two": "quality=4"},
]
TEMPLATE = "Judge the answer to: {{ question }}"


class Tg:
    """`tg` as its users have it, with a home of its own and no way out of this machine."""

    def __init__(self, home: Path, url: str) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_CACHE_HOME": str(home / "cache"),
            "TOGETHER_BASE_URL": url,
            "TOGETHER_API_KEY": KEY,
            "TOGETHER_CREDENTIALS_PATH": str(home / "none"),
            "TOGETHER_TELEMETRY_DISABLED": "1",
            "TOGETHER_DISABLE_VERSION_CHECK": "1",
            "CI": "1",
            "COLUMNS": "1000",
            "NO_COLOR": "1",
            "HTTP_PROXY": NOWHERE,
            "HTTPS_PROXY": NOWHERE,
            "NO_PROXY": "127.0.0.1",
        }
        self.home = home

    def __call__(self, *arguments: str | Path, **environment: str) -> Done:
        options = [] if "--json" in arguments else ["--no-json"]
        done = subprocess.run(
            [str(Path(sys.executable).with_name("tg")), *map(str, arguments), *options],
            env=self.environment | environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *arguments: str | Path) -> Done:
        done = self(*arguments)
        assert done.code == 0, done
        return done


@pytest.fixture
def tg(server: Served, tmp_path: Path) -> Tg:
    (tmp_path / "home").mkdir()
    return Tg(tmp_path / "home", server.url)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def finish(server: Served, job: str) -> Any:
    """The job when it is over, without a second for every look."""
    with Together(api_key=KEY, base_url=server.url) as client:
        until = time.monotonic() + PATIENCE
        while client.evals.status(job).status in ("pending", "queued", "running"):
            assert time.monotonic() < until, "the job does not end"
            time.sleep(0.02)
        return client.evals.retrieve(job)


def judge(source: str, models: Server) -> list[str]:
    names = {"serverless": SERVERLESS, "dedicated": DEDICATED, "external": EXTERNAL}
    found = ["--judge-model", names[source], "--judge-model-source", source, "--judge-system-template", TEMPLATE]
    if source == "external":
        found += ["--judge-external-api-token", TOKEN, "--judge-external-base-url", models.url]
    return found


@pytest.mark.slow
def test_files_from_their_upload_to_their_end(tg: Tg, tmp_path: Path) -> None:
    assert "proj_" in tg.ok("whoami").out  # and no project id is asked for
    path = jsonl(tmp_path / "rows.jsonl", ANSWERS)
    uploaded = tg.ok("files", "upload", path, "--purpose", "eval").out
    assert "Success" in uploaded
    file = uploaded.split()[-1]
    listed = tg.ok("files", "list").out
    assert file in listed
    assert "rows.jsonl" in listed
    found = tg.ok("files", "retrieve", file, "--json").json
    assert (found["filename"], found["bytes"]) == ("rows.jsonl", path.stat().st_size)
    assert "saved to" in tg.ok("files", "download", file, "--output", tmp_path / "down").out
    assert (tmp_path / "down" / "rows.jsonl").read_bytes() == path.read_bytes()
    assert tg.ok("files", "download", file, "--stdout").lines() == ANSWERS
    assert "deleted" in tg.ok("files", "delete", file).out
    gone = tg("files", "retrieve", file)
    assert gone.code == 1
    assert f"there is no file `{file}`" in gone.out + gone.err


@pytest.mark.slow
def test_classify_from_a_local_path_to_its_results(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "answers.jsonl", ANSWERS)
    kind = ["--type", "classify", "--labels", "polite,rude", "--pass-labels", "polite"]
    created = tg.ok(
        "evals",
        "create",
        *kind,
        *judge("serverless", models),
        "--model-field",
        "answer",
        "--input-data-file-path",
        path,
    )
    job = next(word for word in created.out.split() if word.strip("()").startswith("eval-")).strip("()")
    assert finish(server, job).status == "completed"
    assert tg.ok("evals", "status", job).out.strip() == "Status: completed"
    body = tg.ok("evals", job, "--json").json
    assert (body["workflow_id"], body["type"], body["status"]) == (job, "classify", "completed")
    assert body["results"]["label_counts"] == {"polite": 2, "rude": 1}
    listed = tg.ok("evals", "list").out
    assert job in listed
    assert "label: polite (count: 2)" in listed


@pytest.mark.slow
def test_score_of_a_models_answers_by_the_id_of_a_file(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    rows = [{"question": f"Question {truth}, truth={truth}", "answer": "An answer"} for truth in (1, 3, 5)]
    with Together(api_key=KEY, base_url=server.url) as client:
        file = client.files.upload(file=jsonl(tmp_path / "rows.jsonl", rows), purpose="eval").id
    model = ["--model-to-evaluate", SERVERLESS, "--model-to-evaluate-source", "serverless"]
    model += ["--model-to-evaluate-input-template", "{{ answer }}"]  # no system template: sent as null
    scores = ["--min-score", "1", "--max-score", "5", "--pass-threshold", "3"]
    job = tg.ok(
        "evals", "create", "--type", "score", *judge("dedicated", models), *model, *scores,
        "--input-data-file-path", file, "--json",
    ).json["workflow_id"]  # fmt: skip
    done = finish(server, job)
    assert done.status == "completed", done
    assert done.parameters["model_to_evaluate"]["max_tokens"] == 16000
    assert done.parameters["model_to_evaluate"]["temperature"] is None
    listed = tg.ok("evals", "list", "--status", "completed").out
    assert "mean score: 3.0" in listed
    assert "pass percentage: 66.6" in listed
    content = tg.ok("files", "retrieve-content", done.results.result_file_id, "--stdout", "--json").json["content"]
    found = [json.loads(line) for line in content.splitlines()]
    assert [row["score"] for row in found] == [1, 3, 5]
    assert all(row["MODEL_TO_EVALUATE_OUTPUT"] for row in found)


@pytest.mark.slow
def test_compare_with_an_external_judge(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "duels.jsonl", DUELS)
    fields = ["--model-a-field", "one", "--model-b-field", "two"]
    options = [*judge("external", models), *fields, "--input-data-file-path", str(path), "--json"]
    job = tg.ok("evals", "create", "--type", "compare", *options).json["workflow_id"]
    found = finish(server, job)
    assert found.status == "completed", found
    assert (found.results.a_wins, found.results.b_wins, found.results.ties) == (2, 0, 1)
    body = tg.ok("evals", "retrieve", job, "--json")
    assert body.json["parameters"]["judge"]["external_api_token"] == "***"
    assert TOKEN not in body.out
    assert "Winning Model: one (model A)" in tg.ok("evals", "list", "--limit", "100").out


@pytest.mark.slow
def test_the_list_page_by_page(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    wanted: Any = {
        "judge": {"model": SERVERLESS, "model_source": "serverless", "system_template": TEMPLATE},
        "model_to_evaluate": "answer",
        "labels": ["polite", "rude"],
        "pass_labels": ["polite"],
    }
    with Together(api_key=KEY, base_url=server.url) as client:
        file = client.files.upload(file=jsonl(tmp_path / "rows.jsonl", [ANSWERS[0] | {"id": 1}]), purpose="eval").id
        wanted["input_data_file_path"] = file
        made = [str(client.evals.create(type="classify", parameters=wanted).workflow_id) for _ in range(25)]
    for job in made:
        assert finish(server, job).status == "user_error"
    newest = made[::-1]

    def listed(*options: str) -> list[str]:
        return [job["workflow_id"] for job in tg.ok("evals", "list", "--json", *options).json]

    assert listed("--limit", "25") == newest[:20]  # a page of the command line
    assert listed("--limit", "25", "--after", newest[19]) == newest[20:]
    text = tg.ok("evals", "list", "--status", "user_error", "--limit", "1").out
    assert newest[0] in text
    assert "status: user_error" in text
    assert "Unsupported dataset column(s)" in tg.ok("evals", newest[0]).out
    assert "No evals found" in tg.ok("evals", "list", "--status", "running").out


@pytest.mark.slow
def test_what_is_refused_ends_with_a_message(tg: Tg, models: Server, tmp_path: Path) -> None:
    wrong = tg("evals", "list", TOGETHER_API_KEY="sk-wrong")
    assert wrong.code == 1
    assert "the key is not that of this server" in wrong.err
    unknown = tg("evals", "retrieve", "eval-0000-1700000000")
    check_refusal(unknown, "no evaluation has the id `eval-0000-1700000000`")
    options = [*judge("serverless", models), "--model-field", "answer"]
    options += ["--input-data-file-path", str(jsonl(tmp_path / "rows.jsonl", ANSWERS))]
    refused = tg("evals", "create", "--type", "classify", "--labels", "polite,rude", *options)
    check_refusal(refused, "`parameters.pass_labels` must have 1 to")


def check_refusal(done: Done, message: str) -> None:
    assert done.code == 1
    assert message in done.out + done.err
    assert "Traceback" not in done.out + done.err


@pytest.mark.slow
def test_what_else_is_refused(tg: Tg, server: Served, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", ANSWERS)
    check_refusal(tg("files", "upload", path), "it runs evaluations only")  # its purpose is fine-tune by default
    for arguments in (["files", "download", "file-unknown", "--stdout"], ["files", "delete", "file-unknown"]):
        check_refusal(tg(*arguments), "there is no file `file-unknown`")
    check_refusal(tg("evals", "list", "--limit", "1000"), "limit must be a whole number from 1 to 100")
    # Without a project, the command line asks who it is first, and shows that refusal with a traceback of its own.
    wrong = tg("evals", "list", TOGETHER_API_KEY="sk-wrong", TOGETHER_PROJECT_ID="proj_local")
    check_refusal(wrong, "the key is not that of this server")
    as_json = tg("evals", "status", "eval-0000-1700000000", "--json")
    assert (as_json.code, as_json.json["error"]["type"]) == (1, "not_found_error")


@pytest.mark.slow
def test_what_else_there_is(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("question,answer\ntruth=rude,Because\n")
    file = tg.ok("files", "upload", tmp_path / "rows.csv", "--purpose", "eval", "--json").json
    assert (file["FileType"], file["processing_status"], file["purpose"]) == ("csv", "COMPLETED", "eval")
    text = tg.ok("files", "upload", tmp_path / "rows.csv", "--purpose", "eval").out
    assert f"already exists under ID: {file['id']}" in text
    again = tg("files", "upload", tmp_path / "rows.csv", "--purpose", "eval", "--json")
    assert (again.code, again.json["file_id"]) == (1, file["id"])
    created = tg.ok(
        "evals", "create", "--type", "classify", "--labels", "polite,rude", "--pass-labels", "polite", "--json",
        *judge("dedicated", models), "--model-field", "answer", "--input-data-file-path", file["id"],
    ).json  # fmt: skip
    job = created["workflow_id"]
    assert created["status"] == "pending"
    result = finish(server, job).results.result_file_id
    assert tg.ok("evals", "status", job, "--json").json == {"status": "completed"}
    assert "completed" in tg.ok("evals", "get", job).out
    tg.ok("files", "download", result, "--output", tmp_path / "down")
    assert json.loads((tmp_path / "down" / f"{job}-results.jsonl").read_text())["label"] == "rude"
    away = tg(
        "--base-url", server.url, "--api-key", KEY, "evals", "list", TOGETHER_BASE_URL=NOWHERE, TOGETHER_API_KEY=""
    )
    assert (away.code, job in away.out) == (0, True)


@pytest.mark.slow
def test_compare_of_two_models(tg: Tg, server: Served, models: Server, tmp_path: Path) -> None:
    job = tg.ok(
        "evals", "create", "--type", "compare", *judge("serverless", models), "--disable-position-bias-correction",
        "--model-a", EXTERNAL, "--model-a-source", "external", "--model-a-input-template", "{{ one }}",
        "--model-a-external-api-token", TOKEN, "--model-a-external-base-url", models.url,
        "--model-b", DEDICATED, "--model-b-source", "dedicated", "--model-b-input-template", "{{ two }}",
        "--input-data-file-path", jsonl(tmp_path / "duels.jsonl", DUELS), "--json",
    ).json["workflow_id"]  # fmt: skip
    found = finish(server, job)
    assert found.status == "completed", found
    assert found.parameters["model_a"]["external_api_token"] == "***"
    assert found.results.a_wins + found.results.b_wins + found.results.ties == 3
