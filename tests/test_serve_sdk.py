"""The official SDK, unchanged, against `evalops serve` in a process of its own."""

from __future__ import annotations

import asyncio
import csv
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import together
from model_server import Config, Server, serve
from serve_process import DEDICATED, EXTERNAL, KEY, SERVERLESS, Served, served
from together import AsyncTogether, Together

from evalops.engine.store import JobRecord, Store

TOKEN = "sk-of-their-model-3141592653"
PATIENCE = 30.0  # seconds for a job, on a machine that is busy

LABELS = ["polite", "rude", "polite", "polite", "rude"]
SCORES = [5, 1, 3, 4, 2]
QUALITIES = [(9, 3), (1, 2), (5, 5), (8, 1), (2, 2)]
ROWS = {
    "classify": [{"question": f"Question {i}, truth={each}", "answer": f"Answer {i}"} for i, each in enumerate(LABELS)],
    "score": [{"question": f"Question {i}, truth={each}", "answer": f"Answer {i}"} for i, each in enumerate(SCORES)],
    "compare": [
        {"question": f"Question {i}", "one": f"One {i}, quality={a}", "two": f"Two {i}, quality={b}"}
        for i, (a, b) in enumerate(QUALITIES)
    ],
}
FIELDS: dict[str, dict[str, Any]] = {
    "classify": {"labels": ["polite", "rude"], "pass_labels": ["polite"]},
    "score": {"min_score": 1.0, "max_score": 5.0, "pass_threshold": 3.0},
    "compare": {},
}
COLUMNS = {
    ("classify", "column"): "question answer evaluation_successful label feedback",
    ("classify", "model"): "question answer MODEL_TO_EVALUATE_OUTPUT evaluation_successful label feedback",
    ("score", "column"): "question answer evaluation_successful score feedback",
    ("score", "model"): "question answer MODEL_TO_EVALUATE_OUTPUT evaluation_successful score feedback",
}
ONE_PASS = {"choice_original", "judge_feedback_original_order", "judge_raw_output_original"}
TWO_PASSES = ONE_PASS | {"choice_flipped", "judge_feedback_flipped_order", "judge_raw_output_flipped"}
DECISION = {"evaluation_successful", "final_decision", "is_invalid_judge_output"}


# --- parts ---


@pytest.fixture(scope="module")
def client(server: Served) -> Iterator[Together]:
    """The SDK, which takes no answer that is not as its types say."""
    with Together(api_key=KEY, base_url=server.url, max_retries=0, _strict_response_validation=True) as found:
        yield found


@pytest.fixture(scope="module")
def http(server: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {KEY}"}) as found:
        yield found


@pytest.fixture(scope="module")
def datasets(client: Together, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The id of an uploaded file for each type."""
    folder = tmp_path_factory.mktemp("rows")
    return {
        kind: client.files.upload(file=jsonl(folder / f"{kind}.jsonl", rows), purpose="eval").id
        for kind, rows in ROWS.items()
    }


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def model(source: str, models: Server, **fields: Any) -> dict[str, Any]:
    """A model of a request, wherever it is served."""
    names = {"serverless": SERVERLESS, "dedicated": DEDICATED, "external": EXTERNAL}
    found = {"model": names[source], "model_source": source, **fields}
    if source == "external":
        found |= {"external_base_url": models.url, "external_api_token": TOKEN}
    return found


def parameters(kind: str, candidate: str, source: str, models: Server, file: str, **more: Any) -> dict[str, Any]:
    """The parameters of a job on the rows of that type: with answers of a column, or of a model."""
    judge = {"system_template": "Judge the answer to: {{ question }}", "max_tokens": 256, "temperature": 0.0}
    common = {"system_template": "Be brief.", "max_tokens": 64, "temperature": 0.5}
    names = {"model_a": "one", "model_b": "two"} if kind == "compare" else {"model_to_evaluate": "answer"}
    candidates = {
        role: column if candidate == "column" else model(source, models, input_template=f"{{{{ {column} }}}}", **common)
        for role, column in names.items()
    }
    return {"input_data_file_path": file, "judge": model(source, models, **judge), **FIELDS[kind], **candidates, **more}


def finished(client: Together, job: str) -> Any:
    """The job when it is over."""
    until = time.monotonic() + PATIENCE
    while client.evals.status(job).status in ("pending", "queued", "running"):
        assert time.monotonic() < until, "the job does not end"
        time.sleep(0.02)
    return client.evals.retrieve(job)


def run(client: Together, kind: str, wanted: dict[str, Any]) -> Any:
    created = client.evals.create(type=kind, parameters=wanted)  # type: ignore[arg-type]
    assert created.workflow_id
    assert created.status == "pending"
    return finished(client, created.workflow_id)


def results(job: Any) -> dict[str, Any]:
    """The results as they came: the SDK's types have no object for `label_counts`."""
    found: dict[str, Any] = job.model_dump(mode="json", by_alias=True, exclude_unset=True)["results"]
    return found


def rows(client: Together, file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in client.files.content(file).text().splitlines()]


# --- jobs ---


@pytest.mark.parametrize("source", ["serverless", "dedicated", "external"])
@pytest.mark.parametrize("candidate", ["column", "model"])
@pytest.mark.parametrize("kind", ["classify", "score", "compare"])
def test_every_kind_of_job(
    client: Together, models: Server, datasets: dict[str, str], kind: str, candidate: str, source: str
) -> None:
    wanted = parameters(kind, candidate, source, models, datasets[kind])
    job = run(client, kind, wanted)
    assert (job.status, job.type) == ("completed", kind), job
    assert job.workflow_id.startswith("eval-")
    assert [each.status for each in job.status_updates] == ["pending", "running", "completed"]
    assert job.created_at <= job.updated_at
    assert job.created_at.tzinfo is not None
    masked = json.loads(json.dumps(wanted).replace(TOKEN, "***"))
    assert job.parameters == masked
    found = results(job)
    file = found.pop("result_file_id")
    assert found == expected(kind, candidate, rows(client, file))
    assert results(client.evals.status(job.workflow_id)) == {**found, "result_file_id": file}
    check_rows(kind, candidate, rows(client, file))


def expected(kind: str, candidate: str, found: list[dict[str, Any]]) -> dict[str, Any]:
    failures = {"generation_fail_count": 0, "judge_fail_count": 0}
    match kind:
        case "classify":
            counts = {"polite": 3, "rude": 2}
            return {"label_counts": counts, "pass_percentage": 60.0, "invalid_label_count": 0, **failures}
        case "score":
            scores = {"mean_score": 3.0, "std_score": pytest.approx(2.5**0.5), "pass_percentage": 60.0}
            return {"aggregated_scores": scores, "failed_samples": 0, "invalid_score_count": 0, **failures}
    if candidate == "column":
        return {"A_wins": 2, "B_wins": 1, "Ties": 2, **failures}
    wins = Counter(row["final_decision"] for row in found)
    return {"A_wins": wins["A"], "B_wins": wins["B"], "Ties": wins["Tie"], **failures}


def check_rows(kind: str, candidate: str, found: list[dict[str, Any]]) -> None:
    """Every row of the dataset exactly once, with the columns that the service has for the type."""
    assert [{name: row[name] for name in ROWS[kind][0]} for row in found] == ROWS[kind]
    for i, row in enumerate(found):
        assert row["evaluation_successful"] is True
        if kind == "compare":
            outputs = {f"MODEL_TO_EVALUATE_OUTPUT_{each}" for each in "AB"} if candidate == "model" else set()
            assert row.keys() == {*ROWS[kind][0], *outputs, *TWO_PASSES, *DECISION}
            check_decision(row)
            if candidate == "column":
                a, b = QUALITIES[i]
                assert row["final_decision"] == ("A" if a > b else "B" if b > a else "Tie")
        else:
            assert list(row) == COLUMNS[kind, candidate].split()
            truth, verdict = (LABELS, "label") if kind == "classify" else (SCORES, "score")
            assert row[verdict] == truth[i]
            assert row["feedback"].startswith("This follows")
        assert all(row[name].startswith("A written answer") for name in row if name.startswith("MODEL_TO_EVALUATE"))


def check_decision(row: dict[str, Any]) -> None:
    both = {row["choice_original"], row["choice_flipped"]}
    assert row["final_decision"] == (both.pop() if len(both) == 1 else "Tie")
    assert row["is_invalid_judge_output"] is False
    for order in ("original", "flipped"):
        raw = json.loads(row[f"judge_raw_output_{order}"])
        assert raw.keys() == {"feedback", "choice"}
        assert raw["feedback"] == row[f"judge_feedback_{order}_order"]
    assert json.loads(row["judge_raw_output_original"])["choice"] == row["choice_original"]
    mapped = {"A": "B", "B": "A", "Tie": "Tie"}  # what the judge said of the flipped order, in the original one
    assert mapped[json.loads(row["judge_raw_output_flipped"])["choice"]] == row["choice_flipped"]


def test_one_pass_of_a_compare(client: Together, models: Server, datasets: dict[str, str]) -> None:
    wanted = parameters(
        "compare", "column", "serverless", models, datasets["compare"], disable_position_bias_correction=True
    )
    found = results(run(client, "compare", wanted))
    assert (found["A_wins"], found["B_wins"], found["Ties"]) == (2, 1, 2)
    assert all(
        row.keys() == {*ROWS["compare"][0], *ONE_PASS, *DECISION} for row in rows(client, found["result_file_id"])
    )


def test_the_body_of_a_job(client: Together, http: httpx.Client, models: Server, datasets: dict[str, str]) -> None:
    job = run(client, "classify", parameters("classify", "column", "serverless", models, datasets["classify"]))
    body = http.get(f"/v1/evaluation/{job.workflow_id}").json()
    assert body.keys() == {
        *("workflow_id", "type", "status", "owner_id", "status_updates", "parameters"),
        *("created_at", "updated_at", "results"),
    }
    assert body["results"]["label_counts"] == {"polite": 3, "rude": 2}  # an object: the SDK's type says a text
    times = [body["created_at"], body["updated_at"], *(each["timestamp"] for each in body["status_updates"])]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", each) for each in times), times
    listed = http.get("/v1/evaluation?limit=1").json()
    assert listed == [body]
    status = http.get(f"/v1/evaluation/{job.workflow_id}/status").json()
    assert status == {"status": "completed", "results": body["results"]}


def test_other_rows_by_their_columns(client: Together, models: Server, tmp_path: Path) -> None:
    source = [
        {"question": 'One, "truth=rude"\nwith a line', "answer": "käse"},
        {"question": "Two, truth=polite", "answer": "=1+1"},
    ]
    path = tmp_path / "rows.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, ["question", "answer"])
        writer.writeheader()
        writer.writerows(source)
    file = client.files.upload(file=path, purpose="eval")
    assert (file.file_type, file.processing_status) == ("csv", "COMPLETED")
    found = results(run(client, "classify", parameters("classify", "column", "serverless", models, file.id)))
    assert found["label_counts"] == {"polite": 1, "rude": 1}
    assert [{name: row[name] for name in source[0]} for row in rows(client, found["result_file_id"])] == source


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("classify", {"model_to_evaluate": {"model": SERVERLESS, "model_source": "serverless"}}),
        ("classify", {"judge": {"max_tokens": None, "temperature": None, "num_workers": None}}),
        ("classify", {"model_to_evaluate": {"model": SERVERLESS, "model_source": "serverless", "max_tokens": 16000,
                                            "temperature": None, "system_template": None, "input_template": None}}),
        ("score", {"pass_threshold": None}),
        ("score", {"min_score": 1, "max_score": 5, "pass_threshold": 4, "anything": {"else": [1]}}),
        ("compare", {"model_a": {"model": SERVERLESS, "model_source": "serverless"}, "model_b": "two"}),
        ("compare", {"disable_position_bias_correction": None}),
    ],
)  # fmt: skip
def test_short_bodies_that_the_documentation_has(
    client: Together, models: Server, datasets: dict[str, str], kind: str, changes: dict[str, Any]
) -> None:
    wanted = parameters(kind, "column", "serverless", models, datasets[kind])
    changes = {**changes, "judge": {**wanted["judge"], **changes.get("judge", {})}}
    job = run(client, kind, {**wanted, **changes})
    assert job.status == "completed", job
    if kind == "score" and changes.get("pass_threshold", 0) is None:
        assert results(job)["aggregated_scores"]["pass_percentage"] is None


def test_a_body_without_pass_threshold(client: Together, models: Server, datasets: dict[str, str]) -> None:
    wanted = parameters("score", "column", "serverless", models, datasets["score"])
    del wanted["pass_threshold"]
    assert results(run(client, "score", wanted))["aggregated_scores"]["mean_score"] == 3.0


def test_columns_that_nothing_uses_are_the_users_error(client: Together, models: Server, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [{**row, "id": 1, "category": "x"} for row in ROWS["classify"]])
    file = client.files.upload(file=path, purpose="eval").id
    job = run(client, "classify", parameters("classify", "column", "serverless", models, file))
    assert job.status == "user_error"
    assert results(job)["error"].startswith("Unsupported dataset column(s): ['category', 'id']. Each column must be")
    assert client.evals.status(job.workflow_id).status == "user_error"


def test_a_file_that_is_no_dataset_is_the_users_error(client: Together, models: Server, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "truth=rude", "answer": "x"}\n{"question": \n')
    file = client.files.upload(file=path, purpose="eval", check=False)
    assert file.processing_status == "INVALID_FORMAT"
    job = run(client, "classify", parameters("classify", "column", "serverless", models, file.id))
    assert job.status == "user_error"
    assert "line 2" in results(job)["error"]


def test_a_job_outlives_its_file(client: Together, models: Server, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", [*ROWS["classify"], {"question": "More, truth=rude", "answer": "gone"}])
    file = client.files.upload(file=path, purpose="eval").id
    wanted = parameters("classify", "column", "serverless", models, file)
    job = client.evals.create(type="classify", parameters=wanted).workflow_id  # type: ignore[arg-type]
    client.files.delete(file)
    assert results(finished(client, job))["label_counts"] == {"polite": 3, "rude": 3}  # type: ignore[arg-type]


# --- files ---


def test_the_same_content_twice_is_one_file_and_costs_one_request(server: Served, tmp_path: Path) -> None:
    answers: list[int] = []
    path = jsonl(tmp_path / "again.jsonl", [{"question": "Again?", "answer": "Yes, as before"}])
    hooks = {"response": [lambda response: answers.append(response.status_code)]}
    with (
        httpx.Client(event_hooks=hooks) as counted,
        Together(api_key=KEY, base_url=server.url, http_client=counted, _strict_response_validation=True) as client,
    ):
        first = client.files.upload(file=path, purpose="eval")
        assert answers == [302, 200, 200]
        answers.clear()
        assert client.files.upload(file=path, purpose="eval").id == first.id
        assert answers == [409, 200]  # no retry: the second is the question for the file
        client.files.delete(first.id)
        assert client.files.upload(file=path, purpose="eval").id != first.id


def test_a_file_from_its_upload_to_its_end(client: Together, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "Ünïcode rows (1).jsonl", [{"a": "ä\u2028", "b": index} for index in range(1000)])
    file = client.files.upload(file=path, purpose="eval")
    assert (file.filename, file.bytes, file.object) == (path.name, path.stat().st_size, "file")
    assert (file.file_type, file.purpose, file.processing_status) == ("jsonl", "eval", "COMPLETED")
    assert abs(file.created_at - time.time()) < 60
    found = client.files.retrieve(file.id)
    assert found.filename == path.name
    assert found.validation_report is not None
    assert (found.validation_report.valid, found.validation_report.nlines) == (True, 1000)
    client.files.content(file.id).write_to_file(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()
    with client.files.with_streaming_response.content(file.id) as response:
        assert b"".join(response.iter_bytes()) == path.read_bytes()
    deleted = client.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    for gone in (client.files.retrieve, client.files.content, client.files.delete):
        with pytest.raises(together.NotFoundError):
            gone(file.id)


def test_parts_of_a_file(client: Together, http: httpx.Client, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "parts.jsonl", [{"text": "x" * 90}] * 100)
    content = path.read_bytes()
    address = f"/v1/files/{client.files.upload(file=path, purpose='eval').id}/content"
    for asked, part in [("0-9", content[:10]), ("100-", content[100:]), ("-7", content[-7:]), ("5-5", content[5:6])]:
        answer = http.get(address, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part)
        assert answer.headers["content-range"].endswith(f"/{len(content)}")
    assert http.get(address, headers={"Range": "bytes=99999-"}).status_code == 416
    assert http.get(address).headers["accept-ranges"] == "bytes"


def test_the_list_of_files(models: Server, tmp_path: Path) -> None:
    """In strict mode the SDK does not know the purpose of result files, which is the service's own."""
    with (
        served(tmp_path, model_url=models.url) as server,
        Together(api_key="any", base_url=server.url, _strict_response_validation=True) as strict,
        Together(api_key="any", base_url=server.url) as lax,
    ):
        assert strict.files.list().data == []
        ids = [
            strict.files.upload(file=jsonl(tmp_path / f"{kind}.jsonl", rows), purpose="eval").id
            for kind, rows in ROWS.items()
        ]
        assert [file.id for file in strict.files.list().data] == ids[::-1]
        job = run(strict, "score", parameters("score", "column", "serverless", models, ids[1]))
        found = lax.files.list().data
        assert [file.id for file in found] == [results(job)["result_file_id"], *ids[::-1]]
        assert (found[0].purpose, found[0].processing_status) == ("eval-output", "COMPLETED")


def test_the_upload_in_one_step(http: httpx.Client) -> None:
    form: dict[str, Any] = {
        "file": ("rows.jsonl", b'{"one": "step"}\n'),
        "purpose": (None, "eval"),
        "file_name": (None, "own.jsonl"),
    }
    answer = http.post("/v1/files/upload", files=form)
    assert answer.status_code == 200, answer.text
    file = answer.json()
    assert (file["filename"], file["purpose"], file["FileType"], file["bytes"]) == ("own.jsonl", "eval", "jsonl", 16)
    assert http.post("/v1/files/upload", files=form).json()["id"] == file["id"]
    assert http.get(f"/v1/files/{file['id']}/content").content == b'{"one": "step"}\n'


# --- the list of jobs ---


@pytest.mark.slow
def test_a_thousand_jobs(models: Server, tmp_path: Path) -> None:
    statuses = ["completed", "error", "user_error", "completed"]
    request = json.dumps({"type": "classify", "parameters": {"judge": {"model": "x"}, "labels": ["a", "b"]}})
    made = [
        JobRecord(
            f"eval-{index:04x}-1700000000", "f", 1, statuses[index % 4], None, 1,
            created_at=f"2026-01-02T03:04:05.{index:06d}Z", finished_at=f"2026-01-02T03:05:00.{index:06d}Z",
            request=request, results=json.dumps({"label_counts": {"a": index}} if index % 4 in (0, 3) else {"error": "no"}),
        )
        for index in range(1000)
    ]  # fmt: skip
    newest = [job.id for job in reversed(made)]
    random.Random(1).shuffle(made)
    store = Store(tmp_path / "store" / "store.sqlite")
    for job in made:
        store.add_job(job)
    store.close()
    with (
        served(tmp_path, model_url=models.url) as server,
        Together(api_key="any", base_url=server.url, max_retries=0, _strict_response_validation=True) as client,
    ):

        def listed(**options: Any) -> list[str | None]:
            return [job.workflow_id for job in client.evals.list(**options)]

        assert listed() == newest[:10]
        assert listed(limit=1) == newest[:1]
        assert listed(limit=100) == newest[:100]
        by_status = {each: [id_ for id_ in newest if statuses[int(id_[5:9], 16) % 4] == each] for each in statuses}
        for status, ids in by_status.items():
            assert listed(status=status) == ids[:10]
            assert listed(status=status, limit=100) == ids[:100]
        assert listed(status="running") == []
        assert client.evals.retrieve(newest[-1]).results.label_counts == {"a": 0}  # type: ignore[union-attr]
        for options in ({"limit": 0}, {"limit": 101}, {"limit": -1}, {"status": "failed"}):
            with pytest.raises(together.BadRequestError):
                listed(**options)


def test_a_job_that_runs_is_listed_as_running(tmp_path: Path) -> None:
    with (
        serve(Config(faults={"hang": 1.0})) as models,
        served(tmp_path, model_url=models.url) as server,
        Together(api_key="any", base_url=server.url, max_retries=0, _strict_response_validation=True) as client,
    ):
        file = client.files.upload(file=jsonl(tmp_path / "rows.jsonl", ROWS["score"]), purpose="eval").id
        wanted = parameters("score", "column", "dedicated", models, file)
        job = client.evals.create(type="score", parameters=wanted).workflow_id  # type: ignore[arg-type]
        until = time.monotonic() + PATIENCE
        while not client.evals.list(status="running") and time.monotonic() < until:
            time.sleep(0.02)
        assert [each.workflow_id for each in client.evals.list(status="running")] == [job]
        assert client.evals.list(status="completed") == []
        assert client.evals.status(job).results is None  # type: ignore[arg-type]
        server.kill()  # nobody waits for models that never answer


# --- who asks, and what is wrong with it ---


def test_who_is_asking(client: Together, http: httpx.Client) -> None:
    found = client.whoami()
    assert found.type == "project_api_key"
    body = http.get("/v3/whoami").json()
    assert body["project"]["id"].startswith("proj_")
    assert all(body[each]["id"] for each in ("api_key", "organization", "project"))


def test_the_models_that_can_be_named(http: httpx.Client) -> None:
    for query in ("", "?model_source=all", "?model_source=serverless"):
        assert http.get(f"/v1/evaluation/model-list{query}").json() == {"model_list": sorted([SERVERLESS, DEDICATED])}
    answer = http.get("/v1/evaluation/model-list?model_source=other")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model_source")


def test_a_wrong_key(server: Served, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "rows.jsonl", ROWS["score"])
    with Together(api_key="sk-wrong", base_url=server.url, max_retries=0) as stranger:
        for call in (
            stranger.evals.list,
            stranger.whoami,
            stranger.files.list,
            lambda: stranger.evals.retrieve("eval-1-2"),
            lambda: stranger.files.upload(file=path, purpose="eval"),
        ):
            with pytest.raises(together.AuthenticationError) as caught:
                call()
            assert KEY not in str(caught.value)


def test_no_key_and_what_is_none(server: Served) -> None:
    wrong = ["Bearer", f"Basic {KEY}", KEY, f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", "Bearer schlüssel"]
    with httpx.Client(base_url=server.url) as nobody:
        for path in ("/v1/evaluation", "/v1/files", "/v3/whoami", "/v1/evaluation/model-list", "/nowhere"):
            answer = nobody.get(path)
            assert answer.status_code == 401
            assert answer.json()["error"]["message"] == "this server needs a key: Authorization: Bearer KEY"
            assert answer.headers["www-authenticate"] == "Bearer"
        for value in wrong:
            headers = [(b"Authorization", value.encode())]
            assert nobody.get("/v1/evaluation", headers=headers).status_code == 401
        assert nobody.get("/v1/evaluation", headers={"Authorization": f"bearer {KEY}"}).status_code == 200


def test_ids_that_nothing_has(client: Together) -> None:
    for id_ in ("eval-0000-1700000000", "eval a/b?c", "../../etc/passwd", "ü", "x" * 5000):
        for call in (client.evals.retrieve, client.evals.status, client.files.retrieve, client.files.content):
            with pytest.raises(together.NotFoundError) as caught:
                call(id_)
            error = caught.value.body["error"]  # type: ignore[index]
            assert len(error["message"]) < 300
            assert error["type"] == "not_found_error"


def test_paths_with_the_version_once_twice_or_not_at_all(http: httpx.Client) -> None:
    bodies = [http.get(f"{prefix}/files").json() for prefix in ("", "/v1", "/v1/v1")]
    assert bodies[0] == bodies[1] == bodies[2]
    assert "data" in bodies[0]
    assert [http.get(f"{prefix}/evaluation?limit=1").status_code for prefix in ("", "/v1", "/v1/v1")] == [200] * 3


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"judge": None}, "parameters.judge"),
        ({"judge": "a-model"}, "parameters.judge"),
        ({"judge": {"model": SERVERLESS}}, "parameters.judge.model_source"),
        ({"judge": {"model": SERVERLESS, "model_source": "serverless"}}, "parameters.judge.system_template"),
        ({"judge": {"model_source": "serverless", "system_template": "x"}}, "parameters.judge.model"),
        ({"judge": {"model": "unknown", "model_source": "serverless", "system_template": "x"}}, "parameters.judge.model"),
        ({"labels": None}, "parameters.labels"),
        ({"labels": ["one"], "pass_labels": ["one"]}, "parameters.labels"),
        ({"labels": "a,b"}, "parameters.labels"),
        ({"pass_labels": []}, "parameters.pass_labels"),
        ({"pass_labels": ["kind"]}, "parameters.pass_labels"),
        ({"model_to_evaluate": 7}, "parameters.model_to_evaluate"),
        ({"model_to_evaluate": {"model": SERVERLESS}}, "parameters.model_to_evaluate.model_source"),
        ({"input_data_file_path": None}, "parameters.input_data_file_path"),
        ({"input_data_file_path": "file-unknown"}, "parameters.input_data_file_path"),
        ({"input_data_file_path": "../../etc/passwd"}, "parameters.input_data_file_path"),
    ],
)  # fmt: skip
def test_requests_that_cannot_be_done(
    client: Together, models: Server, datasets: dict[str, str], changes: dict[str, Any], param: str
) -> None:
    wanted = {**parameters("classify", "column", "serverless", models, datasets["classify"]), **changes}
    with pytest.raises(together.BadRequestError) as caught:
        client.evals.create(type="classify", parameters=wanted)  # type: ignore[arg-type]
    assert caught.value.body["error"]["param"] == param  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("score", {"min_score": None}),
        ("score", {"min_score": 5.0, "max_score": 5.0}),
        ("score", {"pass_threshold": 6.0}),
        ("score", {"max_score": "5"}),
        ("compare", {"model_a": None}),
        ("compare", {"disable_position_bias_correction": "yes"}),
        ("guess", {}),
    ],
)
def test_other_types_that_cannot_be_done(
    client: Together, models: Server, datasets: dict[str, str], kind: str, changes: dict[str, Any]
) -> None:
    base = kind if kind in datasets else "classify"
    wanted = {**parameters(base, "column", "serverless", models, datasets[base]), **changes}
    with pytest.raises(together.BadRequestError) as caught:
        client.evals.create(type=kind, parameters=wanted)  # type: ignore[arg-type]
    for name in changes:
        assert name in caught.value.body["error"]["param"] or name in str(caught.value)  # type: ignore[index]


def test_external_models_are_called_where_the_owner_allows_it_only(
    client: Together, models: Server, datasets: dict[str, str]
) -> None:
    for url in ("https://models.example/v1", "http://127.0.0.1:1/v1", "http://models.example/v1", "file:///etc/passwd"):
        wanted = parameters("classify", "column", "external", models, datasets["classify"])
        wanted["judge"]["external_base_url"] = url
        with pytest.raises(together.BadRequestError) as caught:
            client.evals.create(type="classify", parameters=wanted)  # type: ignore[arg-type]
        assert TOKEN not in caught.value.response.text
        assert caught.value.body["error"]["param"] == "parameters.judge.external_base_url"  # type: ignore[index]
    wanted = parameters("classify", "column", "external", models, datasets["classify"])
    del wanted["judge"]["external_api_token"]
    with pytest.raises(together.BadRequestError, match="external_api_token"):
        client.evals.create(type="classify", parameters=wanted)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b'"text"', b"{}", b"\xff\xfe", b'{"type": "classify"}', b"NaN", b"[" * 100_000,
        b'{"type": "score", "parameters": {"min_score": NaN}}', b'{"type": "classify", "parameters": []}',
        b'{"type": {"a": 1}, "parameters": {}}', b'{"type": "classify", "parameters": {"a": "\\ud800"}}',
        b'{"type": "score", "parameters": {"min_score": 1e999}}', b'{"a": ' + b"9" * 5000 + b"}",
    ],
)  # fmt: skip
def test_bodies_that_are_no_request(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/evaluation", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error"
    assert len(error["message"]) < 500


# --- tokens ---


@pytest.mark.slow
@pytest.mark.parametrize("is_accepted", [True, False])
def test_tokens_of_external_models_stay_in_memory(tmp_path: Path, is_accepted: bool) -> None:
    answers: list[bytes] = []

    def keep(response: httpx.Response) -> None:
        answers.append(response.read() + repr(response.headers).encode())

    with (
        serve(Config(key=TOKEN if is_accepted else "another", latency_ms=20)) as models,
        served(tmp_path, model_url=models.url) as server,
        httpx.Client(event_hooks={"response": [keep]}) as seen,
        Together(api_key="any", base_url=server.url, http_client=seen, max_retries=0) as client,
    ):

        def check() -> None:
            for path in server.store.rglob("*"):
                assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
            assert TOKEN not in server.said()
            assert not [each for each in answers if TOKEN.encode() in each]

        file = client.files.upload(file=jsonl(tmp_path / "rows.jsonl", ROWS["compare"]), purpose="eval").id
        wanted = parameters("compare", "model", "external", models, file)
        job = client.evals.create(type="compare", parameters=wanted).workflow_id  # type: ignore[arg-type]
        check()
        found = finished(client, job)  # type: ignore[arg-type]
        assert found.status == ("completed" if is_accepted else "error")
        assert client.evals.list()[0].parameters["judge"]["external_api_token"] == "***"  # type: ignore[index]
        assert found.parameters["model_b"]["external_api_token"] == "***"
        assert {request.header("Authorization") for request in models.seen} == {f"Bearer {TOKEN}"}
        if is_accepted:
            client.files.content(found.results.result_file_id)
        check()
        assert server.stop() == 0
        check()


@pytest.mark.slow
def test_a_job_whose_token_is_gone_says_so_after_a_restart(tmp_path: Path) -> None:
    with serve(Config(faults={"hang": 1.0})) as models:
        with (
            served(tmp_path, model_url=models.url) as server,
            Together(api_key="any", base_url=server.url, max_retries=0) as client,
        ):
            file = client.files.upload(file=jsonl(tmp_path / "rows.jsonl", ROWS["score"]), purpose="eval").id
            jobs = [
                client.evals.create(type="score", parameters=parameters("score", "column", source, models, file))  # type: ignore[arg-type]
                for source in ("external", "serverless")
            ]
            server.kill()
        models.config = Config()
        with (
            served(tmp_path, model_url=models.url) as server,
            Together(api_key="any", base_url=server.url, max_retries=0) as client,
        ):
            lost, kept = (finished(client, job.workflow_id) for job in jobs)  # type: ignore[arg-type]
        assert (lost.status, kept.status) == ("user_error", "completed")
        assert "create the job again" in results(lost)["error"]
        assert results(kept)["aggregated_scores"]["mean_score"] == 3.0


# --- the asynchronous client ---


def test_the_asynchronous_client(server: Served, models: Server, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncTogether(
            api_key=KEY, base_url=server.url, max_retries=0, _strict_response_validation=True
        ) as client:
            path = jsonl(tmp_path / "rows.jsonl", ROWS["classify"][:3])
            file = await client.files.upload(file=path, purpose="eval")
            assert (await client.files.upload(file=path, purpose="eval")).id == file.id
            wanted = parameters("classify", "column", "serverless", models, file.id)
            created = await asyncio.gather(
                *(client.evals.create(type="classify", parameters=wanted) for _ in range(5))  # type: ignore[arg-type]
            )
            ids = [each.workflow_id for each in created]
            assert len(set(ids)) == 5
            until = time.monotonic() + PATIENCE
            while {(await client.evals.status(each)).status for each in ids} != {"completed"}:  # type: ignore[arg-type]
                assert time.monotonic() < until
                await asyncio.sleep(0.02)
            assert set(ids) <= {job.workflow_id for job in await client.evals.list(limit=100)}
            job = await client.evals.retrieve(ids[0])  # type: ignore[arg-type]
            found = results(job)
            assert found["label_counts"] == {"polite": 2, "rude": 1}
            content = await client.files.content(found["result_file_id"])
            assert len((await content.text()).splitlines()) == 3
            assert (await client.whoami()).type == "project_api_key"
            assert (await client.files.delete(file.id)).deleted
            with pytest.raises(together.NotFoundError):
                await client.evals.retrieve("eval-0000-1")

    asyncio.run(work())
