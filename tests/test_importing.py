"""Jobs that the SDK or a browser made become specs that are in step: against `evalops serve` in its own process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from model_server import Server, serve
from serve_client import Client, replies
from serve_process import EXTERNAL, KEY, SERVERLESS, Served, served
from service_project import TOKEN, Folder, at_service, make

from evalops.journal import read as read_journal

DUELS = [{"question": f"q{n}", "one": f"one {n} quality={n % 3}", "two": f"two {n} quality=1"} for n in range(4)]


@pytest.fixture
def folder(tmp_path: Path, server: Served, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_service(server.url, tmp_path, monkeypatch)


def count(client: Client) -> int:
    return len(client.http.get("/v1/evaluation", params={"limit": 100}).json())


@pytest.fixture(scope="module")
def classified(client: Client) -> str:
    return make(client)


# --- what is in step ---


def test_an_imported_job_is_in_step_and_has_its_result(folder: Folder, client: Client, classified: str) -> None:
    before = count(client)
    done = folder.good("import", classified)
    assert done.out == f"{classified}.yaml: completed, its rows are in data/{classified}.jsonl\n"
    assert folder.files() == {
        f"{classified}.yaml", f"{classified}.lock", f"{classified}.verdicts.jsonl", f"data/{classified}.jsonl",
    }  # fmt: skip
    assert folder.actions() == {classified: "noop"}
    assert folder.entry(classified)["job"] == classified
    assert folder.entry(classified)["summary"]["label_counts"] == {"polite": 4, "rude": 2}
    assert folder.good("apply", "--yes").out == ""
    assert len(folder.good("rows", classified).out.splitlines()) == 6
    assert count(client) == before
    assert read_journal(folder.root / ".evalops" / "journal") == {}


def test_the_spec_reads_well(folder: Folder, client: Client) -> None:
    template = "Is this polite?\n\n{% if response %}\n  Reply: {{ response }}\n{% endif %}\n"
    judge = {"model": SERVERLESS, "model_source": "serverless", "system_template": template, "temperature": 0.0}
    job = make(client, judge=judge, labels=["polite", "rude", "no"])
    folder.good("import", job)
    made = client.job(job)["created_at"][:19]
    assert folder.text(f"{job}.yaml") == (
        f"# Job {job} at Together, made {made}Z\n"
        "version: 1\n"
        f"name: {job}\n"
        "type: classify\n"
        "provider: together\n"
        f"dataset: data/{job}.jsonl\n"
        "judge:\n"
        f"  model: {SERVERLESS}\n"
        "  model_source: serverless\n"
        "  system_template: |\n"
        "    Is this polite?\n"
        "\n"
        "    {% if response %}\n"
        "      Reply: {{ response }}\n"
        "    {% endif %}\n"
        "  temperature: 0\n"
        "labels: [polite, rude, 'no']\n"
        "pass_labels: [polite]\n"
        "model_to_evaluate: response\n"
    )
    assert folder.actions() == {job: "noop"}


WRITER = {
    "model": SERVERLESS, "model_source": "serverless", "system_template": "Be brief.",
    "input_template": "{{ question }}", "max_tokens": 64, "temperature": 0.5, "num_workers": 4,
}  # fmt: skip
JUDGE = {"model": SERVERLESS, "model_source": "serverless", "system_template": "Judge the answer to: {{ question }}"}


@pytest.mark.parametrize(
    "body",
    [
        {"type": "score", "parameters": {"judge": JUDGE, "min_score": 1.0, "max_score": 10.0, "pass_threshold": 3.5, "model_to_evaluate": WRITER}},
        {"type": "compare", "parameters": {"judge": JUDGE, "model_a": "one", "model_b": "two"}},
        {"type": "compare", "parameters": {"judge": JUDGE, "model_a": "one", "model_b": WRITER, "disable_position_bias_correction": True}},
        {"type": "classify", "parameters": {"judge": {**JUDGE, "system_template": "Only {{ one }}"}, "labels": ["a", "b"], "pass_labels": ["a"]}},
    ],
)  # fmt: skip
def test_every_type_is_in_step(folder: Folder, client: Client, body: Mapping[str, Any]) -> None:
    used = {
        column for column in DUELS[0] if f"{{{{ {column} }}}}" in json.dumps(body) or f'"{column}"' in json.dumps(body)
    }
    job = make(client, [{column: row[column] for column in used} for row in DUELS], body=body)
    folder.good("import", job)
    assert folder.actions() == {job: "noop"}
    assert folder.entry(job)["summary"]["rows"] == 4


def test_a_csv_stays_csv(folder: Folder, client: Client) -> None:
    job = make(client, b'response\n"Thanks, truth=polite"\n"Go, truth=rude"\n', name="rows.csv")
    folder.good("import", job)
    assert folder.text(f"data/{job}.csv").startswith("response\n")
    assert folder.actions() == {job: "noop"}


def test_a_job_of_evalops_itself_comes_without_its_mark(
    folder: Folder, client: Client, tmp_path: Path, classified: str
) -> None:
    folder.good("import", classified)
    folder.root.joinpath(f"{classified}.yaml").write_text(
        folder.text(f"{classified}.yaml").replace("Is this", "Is that")
    )
    folder.good("apply", "--yes")
    made = folder.entry(classified)["job"]
    assert made != classified
    assert "evalops:" in client.job(made)["parameters"]["judge"]["system_template"]
    other = Folder(tmp_path / "other").settings()
    other.good("import", made)
    assert "evalops:" not in other.text(f"{made}.yaml")
    assert other.actions() == {made: "noop"}


# --- all of them ---


def test_all_takes_what_the_project_lacks_and_goes_on_where_one_cannot_be_had(
    tmp_path: Path, models: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "served").mkdir()
    with served(tmp_path / "served", model_url=models.url) as server, Client(server) as client:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        folder = Folder(tmp_path / "project").settings()
        one, lost = make(client), make(client, replies(3, of="note"))
        failed = make(client, replies(2, of="odd"), model_to_evaluate="absent")
        client.http.delete(f"/v1/files/{client.job(lost)['parameters']['input_data_file_path']}")
        assert client.job(failed)["status"] == "user_error"
        folder.good("import", one)
        done = folder.run("import", "--all", "--to", "old/jobs")
        assert done.code == 1
        assert f"{one}: this project has it already, at `{one}`." in done.err
        assert f"{failed}: left out, for it failed" in done.err
        assert "import/skipped" in done.err and f"`{lost}` is left out: its dataset is no longer" in done.err
        assert done.out == "Nothing was imported.\n"
        two = make(client, replies(4, of="word"))
        done = folder.run("import", "--all", "--to", "old/jobs")
        assert done.code == 1
        assert done.out == f"old/jobs/{two}.yaml: completed, its rows are in old/jobs/data/{two}.jsonl\n"
        assert folder.actions() == {one: "noop", two: "noop"}
        assert count(client) == 4


def test_a_job_under_way_is_collected_by_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model_answers import Config

    (tmp_path / "served").mkdir()
    with serve(Config(latency_ms=300.0)) as slow, served(tmp_path / "served", model_url=slow.url) as server:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        folder = Folder(tmp_path / "project").settings()
        with Client(server) as client:
            job = client.create(client.upload(replies(4)))
            done = folder.good("import", job)
            assert "its rows are in" in done.out and "completed" not in done.out
            assert folder.actions() == {job: "resume"}
            folder.good("apply", "--yes")
            assert folder.actions() == {job: "noop"}
            assert count(client) == 1


# --- keys ---


def external(models: Server, **more: Any) -> dict[str, Any]:
    return {
        "model": EXTERNAL, "model_source": "external", "external_base_url": models.url, "external_api_token": TOKEN,
        "system_template": "Is this polite?", **more,
    }  # fmt: skip


def test_a_token_becomes_a_credential_to_bind(folder: Folder, client: Client, models: Server, server: Served) -> None:
    job = make(client, judge=external(models))
    done = folder.good("import", job)
    origins = [models.url.rpartition("/v1")[0], server.url]
    assert "warning[import/credential]: the credential `127-0-0-1` is not in evalops.yaml yet" in done.err
    assert f"127-0-0-1: {{env: KEY_127_0_0_1_API_KEY, origins: [{', '.join(origins)}]}}" in done.err
    assert "\n  credential: 127-0-0-1\n" in folder.text(f"{job}.yaml").replace("'", "")
    assert folder.run("plan").code == 1
    folder.settings(credentials={"127-0-0-1": {"env": "KEY_127_0_0_1_API_KEY", "origins": origins}})
    assert folder.actions() == {job: "noop"}
    everything = b"".join(path.read_bytes() for path in folder.root.rglob("*") if path.is_file())
    assert TOKEN.encode() not in everything and KEY.encode() not in everything


def test_a_credential_that_is_bound_already_is_named(
    folder: Folder, client: Client, models: Server, server: Served
) -> None:
    job = make(client, judge=external(models))
    folder.settings(
        credentials={"theirs": {"env": "THEIR_KEY", "origins": [models.url.rpartition("/v1")[0], server.url]}}
    )
    done = folder.good("import", job)
    assert "import/credential" not in done.err
    assert "  credential: theirs\n" in folder.text(f"{job}.yaml")
    assert folder.actions() == {job: "noop"}


# --- what is refused ---


def test_nothing_is_overwritten(folder: Folder, classified: str) -> None:
    (folder.root / f"{classified}.lock").mkdir()
    (folder.root / "data").mkdir()
    (folder.root / "data" / f"{classified}-2.jsonl").write_text("mine")
    done = folder.good("import", classified)
    assert done.out.startswith(f"{classified}-3.yaml: ")
    assert f"name: {classified}-3\n" in folder.text(f"{classified}-3.yaml")
    assert folder.text(f"data/{classified}-2.jsonl") == "mine"


def test_a_name_of_another_evaluation_is_left_alone(folder: Folder, classified: str) -> None:
    (folder.root / "rows.jsonl").write_text('{"response": "a", "label": "polite"}\n')
    (folder.root / "other.yaml").write_text(
        f"version: 1\nname: {classified}\ntype: classify\nprovider: local\ndataset: rows.jsonl\njudge: {{column: label}}\n"
        "labels: [polite, rude]\nmodel_to_evaluate: response\n"
    )
    folder.good("import", classified)
    assert folder.actions() == {classified: "create", f"{classified}-2": "noop"}


def test_no_link_leads_out_of_the_project(folder: Folder, classified: str, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (folder.root / "data").symlink_to(outside)
    done = folder.run("import", classified)
    assert done.code == 1
    assert "`data` could not be written: it is a symbolic link" in done.err
    assert list(outside.iterdir()) == []
    assert folder.files() == set()


@pytest.mark.parametrize("to", ["../elsewhere", "/tmp", "a/../b", ".hidden", "a\\b"])
def test_the_folder_is_inside_the_project(folder: Folder, classified: str, to: str) -> None:
    done = folder.run("import", classified, "--to", to)
    assert done.code == 1
    assert "import/folder" in done.err


def test_a_folder_without_specs_is_named(folder: Folder, classified: str) -> None:
    folder.settings(specs=["evals/*.yaml"])
    done = folder.run("import", classified)
    assert done.code == 1
    assert "choose a folder with --to; specs are `evals/*.yaml`" in done.err
    folder.good("import", classified, "--to", "evals")
    assert folder.actions() == {classified: "noop"}


@pytest.mark.parametrize("id_", ["eval-nothing", "../../etc/passwd", "eval a", "..", "-", "é"])
def test_an_id_that_is_none_is_said_and_the_others_are_taken(folder: Folder, classified: str, id_: str) -> None:
    done = folder.run("import", "--", id_, classified)
    assert done.code == 1
    assert "job/gone" in done.err
    assert folder.actions() == {classified: "noop"}


def test_rows_that_do_not_fit_leave_nothing_behind(
    tmp_path: Path, models: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose result file has fewer rows than the dataset."""
    (tmp_path / "served").mkdir()
    with served(tmp_path / "served", model_url=models.url) as server, Client(server) as client:
        monkeypatch.setenv("TOGETHER_BASE_URL", server.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        folder = Folder(tmp_path / "project").settings()
        job = make(client, replies(3))
        result = client.job(job)["results"]["result_file_id"]
        (path,) = [each for each in server.store.rglob("*") if each.name == "content" and result in str(each)]
        path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
        done = folder.run("import", job)
        assert done.code == 1
        assert f"the job `{job}` is left out: its result does not fit its dataset" in done.err
        assert folder.files() == set()
        assert folder.actions() == {}


@pytest.mark.parametrize(
    "named",
    [
        {"base_url": "http://127.0.0.1:9/v1"},
        {"model": SERVERLESS, "system_template": "Be brief.", "input_template": "{{ response }}"},
    ],
)
def test_a_column_that_evalops_takes_for_a_model_is_not_guessed_at(
    folder: Folder, classified: str, named: Mapping[str, str]
) -> None:
    """The spec would be fine, and ask for other work than the job did."""
    folder.settings(models={"response": named})
    done = folder.run("import", classified)
    assert done.code == 1
    assert f"`{classified}` is left out" in done.err
    assert folder.files() == set()


# --- a service that says strange things ---

ROWS = '{"response": "a"}\n{"response": "b"}\n'
RESULTS = "".join(
    json.dumps({"response": each, "evaluation_successful": True, "label": "polite", "feedback": "x"}) + "\n"
    for each in "ab"
)


class Canned:
    """Answers by path: JSON for a value, bytes for a text, 404 for everything else."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                canned.asked.append(self.path)
                found = canned.answers.get(self.path.partition("?")[0])
                body = found.encode() if isinstance(found, str) else json.dumps(found).encode()
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                canned.asked.append(f"POST {self.path}")

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def job(self, file: Any = None, **parameters: Any) -> None:
        """One job, `eval-1`, of a file."""
        about = {
            "id": "file-1",
            "filename": "../../evil.jsonl",
            "bytes": len(ROWS),
            "purpose": "eval",
            "FileType": "jsonl",
        }
        judge = {"model": "openai/gpt-oss-20b", "model_source": "serverless", "system_template": "Is it polite?"}
        told = {
            "input_data_file_path": "file-1", "judge": judge, "labels": ["polite", "rude"], "pass_labels": ["polite"],
            "model_to_evaluate": "response", **parameters,
        }  # fmt: skip
        job = {
            "workflow_id": "eval-1", "type": "classify", "status": "completed", "parameters": told,
            "created_at": "2026-08-01T10:00:00.5Z", "updated_at": "2026-08-01T10:05:00Z",
            "results": {"result_file_id": "file-2", "label_counts": {"polite": 2}},
        }  # fmt: skip
        self.answers = {
            "/v1/evaluation": [job], "/v1/evaluation/eval-1": job, "/v1/files/file-1": {**about, **(file or {})},
            "/v1/files/file-1/content": ROWS, "/v1/files/file-2/content": RESULTS,
        }  # fmt: skip


@pytest.fixture
def canned(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    found = Canned()
    monkeypatch.setenv("TOGETHER_BASE_URL", found.url)
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    assert not [each for each in found.asked if each.startswith("POST")]
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def test_a_name_from_the_service_is_no_path(folder: Folder, canned: Canned) -> None:
    canned.job()
    folder.good("import", "eval-1")
    assert folder.files() == {"eval-1.yaml", "eval-1.lock", "eval-1.verdicts.jsonl", "data/eval-1.jsonl"}
    assert folder.actions() == {"eval-1": "noop"}


def test_a_shortcut_names_the_key_of_its_vendor(folder: Folder, canned: Canned) -> None:
    canned.job(
        judge={
            "model": "openai/gpt-4o", "model_source": "external", "system_template": "Is it polite?",
            "external_api_token": TOKEN, "external_base_url": None, "max_tokens": 100,
        }
    )  # fmt: skip
    done = folder.good("import", "eval-1")
    binding = {"openai": {"env": "OPENAI_API_KEY", "origins": ["https://api.openai.com", canned.url]}}
    assert f"openai: {{env: OPENAI_API_KEY, origins: [https://api.openai.com, {canned.url}]}}" in done.err
    assert "  credential: openai\n" in folder.text("eval-1.yaml")
    assert folder.run("plan").code == 1
    folder.settings(credentials=binding)
    assert folder.actions() == {"eval-1": "noop"}
    assert TOKEN not in folder.text("eval-1.yaml") + folder.text("eval-1.lock")


def test_what_a_spec_cannot_say_is_named(folder: Folder, canned: Canned) -> None:
    canned.job(
        judge={
            "model": "zai-org/GLM-5", "model_source": "serverless", "system_template": "Is it polite?", "seed": 4,
            "top_k": None,
        },
        tenant="x\x1b[31m",
    )  # fmt: skip
    done = folder.good("import", "eval-1")
    assert "import/unknown-field" in done.err and "`judge.seed`" in done.err and "`tenant`" in done.err
    assert "top_k" not in done.err and "\x1b[31m" not in done.err
    assert folder.actions() == {"eval-1": "noop"}


EXTERNAL_JUDGE = {
    "model": "m",
    "model_source": "external",
    "system_template": "Is it polite?",
    "external_api_token": TOKEN,
}


@pytest.mark.parametrize(
    ("file", "parameters", "why"),
    [
        ({"FileType": "parquet"}, {}, "its dataset is a parquet"),
        ({"FileType": None, "filename": "rows.txt"}, {}, "its dataset is a txt"),
        ({}, {"input_data_file_path": "file-9"}, "its dataset is no longer at the service"),
        ({}, {"input_data_file_path": "../evaluation/eval-1"}, "its dataset is no longer at the service"),
        ({}, {"input_data_file_path": 7}, "its dataset is no longer at the service"),
        ({}, {"judge": None}, "does not say what it evaluates"),
        ({}, {"labels": ["polite", 1]}, "is left out"),
        ({}, {"labels": ["polite", "rude", "half \ud800"]}, "is left out"),
        ({}, {"pass_labels": None}, "Together needs `pass_labels`"),
        ({}, {"model_to_evaluate": "absent"}, "has no column `absent`"),
        ({}, {"judge": {**EXTERNAL_JUDGE, "external_base_url": f"https://user:{TOKEN}@host.example/v1"}}, "an address that evalops does not allow"),
        ({}, {"judge": {**EXTERNAL_JUDGE, "external_base_url": f"https://host.example/v1?key={TOKEN}"}}, "an address that evalops does not allow"),
        ({}, {"judge": {**EXTERNAL_JUDGE, "external_base_url": "http://10.0.0.1/v1"}}, "an address that evalops does not allow"),
        ({}, {"judge": EXTERNAL_JUDGE}, "an address that evalops does not allow"),
        ({}, {"judge": {**EXTERNAL_JUDGE, "model_source": "serverless", "temperature": 7}}, "is left out"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_spec_is_left_out(
    folder: Folder, canned: Canned, file: Mapping[str, Any], parameters: Mapping[str, Any], why: str
) -> None:
    canned.job(file, **parameters)
    done = folder.run("import", "eval-1")
    assert done.code == 1
    assert why in done.err
    assert "eval-1" in done.err
    assert folder.files() == set()
    assert list(folder.root.glob(".evalops/import-*")) == []


@pytest.mark.parametrize("path", ["/v1/files/file-1/content", "/v1/files/file-2/content"])
def test_a_file_that_is_gone_leaves_nothing_behind(folder: Folder, canned: Canned, path: str) -> None:
    canned.job()
    del canned.answers[path]
    done = folder.run("import", "eval-1")
    assert done.code == 1
    assert folder.files() == set()


def test_labels_that_are_nested_without_end(folder: Folder, canned: Canned) -> None:
    labels: Any = ["a"]
    for _ in range(600):
        labels = [labels]
    canned.job(labels=labels)
    assert folder.run("import", "eval-1").code == 1
    assert folder.good("show", "eval-1", "--format", "json").json["job"] == "eval-1"
    folder.good("show", "eval-1")
    assert folder.files() == set()


def test_a_failed_job_is_taken_by_its_id_only(folder: Folder, canned: Canned) -> None:
    canned.job()
    job = canned.answers["/v1/evaluation/eval-1"]
    job |= {"status": "user_error", "results": {"error": "no\x1b[31m credit"}}
    done = folder.good("import", "--all")
    assert "left out, for it failed: no\\x1b[31m credit" in done.err
    assert done.out == "Nothing was imported.\n"
    done = folder.good("import", "eval-1")
    assert done.out.startswith("eval-1.yaml: failed")
    assert folder.actions() == {"eval-1": "failed"}


def test_a_status_that_is_not_known_is_shown_as_it_is(folder: Folder, canned: Canned) -> None:
    canned.job()
    canned.answers["/v1/evaluation"][0]["status"] = "resting\x1b[31m"
    assert "resting\\x1b[31m" in folder.good("status", "--remote").out
    (found,) = folder.good("status", "--remote", "--format", "json").json
    assert (found["status"], found["provider_status"]) == ("running", "resting\x1b[31m")


def test_wrong_usage(folder: Folder) -> None:
    assert folder.run("import").code == 64
    assert folder.run("import", "--all", "eval-1").code == 64


def test_another_apply_is_waited_for_by_nobody(folder: Folder, classified: str) -> None:
    from evalops.project import Project

    with Project(folder.root).apply_lock():
        assert folder.run("import", classified).code == 5
    assert folder.files() == set()
