"""`dataset: {file_id, sha256}`: a file that the service has, against `evalops serve` behind a proxy that counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from command import Done
from counting_proxy import CountingProxy
from serve_client import Client, replies
from serve_process import SERVERLESS, Served
from service_project import Folder, at_service

ROWS = replies(6)
DATA = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


class Upload(NamedTuple):
    file_id: str
    sha256: str


@pytest.fixture
def proxy(server: Served) -> Iterator[CountingProxy]:
    with CountingProxy(server.url) as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path, proxy: CountingProxy, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return at_service(proxy.url, tmp_path, monkeypatch)


def upload(client: Client, data: bytes = DATA, name: str = "rows.jsonl") -> Upload:
    return Upload(client.upload(data, name), hashlib.sha256(data).hexdigest())


def spec(folder: Folder, dataset: Any, **fields: Any) -> Folder:
    value = {
        "version": 1,
        "name": "tone",
        "type": "classify",
        "provider": "together",
        "dataset": dataset._asdict() if isinstance(dataset, Upload) else dataset,
        "judge": {"model": SERVERLESS, "system_template": f"Is this polite? {folder.root}"},
        "labels": ["polite", "rude"],
        "pass_labels": ["polite"],
        "model_to_evaluate": "response",
        **fields,
    }
    (folder.root / "tone.yaml").write_text(yaml.safe_dump(value, sort_keys=False, width=1000))
    return folder


def sent(proxy: CountingProxy) -> list[str]:
    """What was asked of the service that is no reading."""
    return [f"{each.method} {each.path}" for each in proxy.seen if each.method != "GET"]


def paid(folder: Folder, proxy: CountingProxy, done: Done) -> None:
    assert done.code == 0, done
    assert folder.entry("tone")["summary"]["label_counts"] == {"polite": 4, "rude": 2}
    assert sent(proxy) == ["POST /v1/evaluation"]


def test_a_job_over_a_file_that_is_there(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    there = upload(client)
    spec(folder, there)
    before = folder.good("plan", "--format", "json").json
    assert not proxy.seen
    assert before["changes"][0]["rows"] is None and before["summary"]["paid"]["rows"] is None
    assert "rows unknown" in folder.good("plan").out
    paid(folder, proxy, folder.run("apply", "--yes"))
    (create,) = [each for each in proxy.seen if each.method == "POST"]
    assert create.json["parameters"]["input_data_file_path"] == there.file_id
    entry = folder.entry("tone")
    assert entry["dataset"]["rows"] is None
    assert entry["summary"]["rows"] == 6

    proxy.seen.clear()
    assert folder.actions() == {"tone": "noop"}
    folder.good("apply", "--yes")
    assert proxy.seen == []
    rows = [json.loads(line) for line in folder.good("rows", "tone").out.splitlines()]
    assert [row["source"] for row in rows] == ROWS


def test_a_fresh_clone_plans_the_same_and_fetches_what_it_needs(
    folder: Folder, client: Client, proxy: CountingProxy
) -> None:
    spec(folder, upload(client))
    before = folder.good("plan", "--format", "json").json
    paid(folder, proxy, folder.run("apply", "--yes"))
    lock = (folder.root / "tone.lock").read_bytes()
    shutil.rmtree(folder.root / ".evalops")
    assert folder.actions() == {"tone": "noop"}

    (folder.root / "tone.lock").unlink()
    assert folder.good("plan", "--format", "json").json["digest"] == before["digest"]
    proxy.seen.clear()
    folder.good("apply", "--yes")
    assert sent(proxy) == []
    assert (
        json.loads((folder.root / "tone.lock").read_text())["evaluations"]["tone"]["job"]
        == json.loads(lock)["evaluations"]["tone"]["job"]
    )
    shutil.rmtree(folder.root / ".evalops")
    assert len(folder.good("rows", "tone").out.splitlines()) == 6


def test_a_changed_threshold_grades_again_without_the_rows(
    folder: Folder, client: Client, proxy: CountingProxy
) -> None:
    spec(folder, there := upload(client))
    paid(folder, proxy, folder.run("apply", "--yes"))
    shutil.rmtree(folder.root / ".evalops")
    proxy.seen.clear()
    spec(folder, there, thresholds={"pass_percentage": {"min": 10}})
    assert folder.actions() == {"tone": "regrade"}
    folder.good("apply", "--yes")
    assert proxy.seen == []


def test_grading_again_fetches_the_rows_and_asks_for_nothing_else(
    folder: Folder, client: Client, proxy: CountingProxy
) -> None:
    spec(folder, there := upload(client))
    paid(folder, proxy, folder.run("apply", "--yes"))
    shutil.rmtree(folder.root / ".evalops")
    spec(folder, there, pass_labels=["rude"])
    assert folder.actions() == {"tone": "regrade"}
    folder.good("apply", "--yes")
    assert folder.entry("tone")["summary"]["metrics"]["pass_percentage"]["value"] == pytest.approx(100 / 3)
    assert sent(proxy) == ["POST /v1/evaluation"]


@pytest.mark.parametrize("dataset", [{"rows": ROWS}, {"path": "rows.jsonl"}, {"path": "named"}])
def test_other_rows_are_uploaded_as_they_are_asked_for(folder: Folder, proxy: CountingProxy, dataset: Any) -> None:
    folder.settings(datasets={"named": {"path": "rows.jsonl", "sha256": hashlib.sha256(DATA).hexdigest()}})
    (folder.root / "rows.jsonl").write_bytes(DATA)
    spec(folder, {**dataset, "sample": {"size": 3}}, judge={"model": SERVERLESS, "system_template": "Is it polite?"})
    folder.good("apply", "--yes")
    found = [json.loads(line)["source"] for line in folder.good("rows", "tone").out.splitlines()]
    assert len(found) == 3 and all(row in ROWS for row in found)
    assert folder.entry("tone")["dataset"]["rows"] == 3
    assert folder.actions() == {"tone": "noop"}


def test_another_content_is_found_before_anything_is_paid(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    there = upload(client)
    wrong = "0" * 64
    done = spec(folder, there._replace(sha256=wrong)).run("apply", "--yes")
    assert done.code == 1
    assert f"`{there.file_id}` at Together has the sha256 {there.sha256}, and {wrong} is asked for" in done.err
    assert "tone.yaml:7:" in done.err
    assert sent(proxy) == []
    assert not (folder.root / "tone.lock").exists()
    assert list((folder.root / ".evalops/datasets").iterdir()) == []


def test_the_content_of_one_file_vouches_for_no_other(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    """A copy is here, but it is of the file that was named before."""
    right = upload(client)
    paid(folder, proxy, spec(folder, right).run("apply", "--yes"))
    other = upload(client, DATA + DATA)
    done = spec(folder, other._replace(sha256=right.sha256), labels=["rude", "polite"]).run("apply", "--yes")
    assert done.code == 1 and other.sha256 in done.err
    assert sent(proxy) == ["POST /v1/evaluation"]


def test_columns_that_the_service_would_refuse(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    data = "".join(json.dumps({**row, "category": "x", "id": n}) + "\n" for n, row in enumerate(ROWS)).encode()
    done = spec(folder, upload(client, data)).run("apply", "--yes")
    assert done.code == 1
    assert "error[together/surplus]" in done.err and "`category`, `id`" in done.err and "`path:`" in done.err
    assert sent(proxy) == []


def test_columns_that_are_missing(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    there = upload(client)
    done = spec(folder, there, model_to_evaluate="respons").run("apply", "--yes")
    assert done.code == 1
    assert "tone.yaml:16:1: error[dataset/missing-column]" in done.err
    assert f"`{there.file_id}` has no column `respons`" in done.err and "did you mean `response`?" in done.err
    assert sent(proxy) == []


def test_a_file_that_is_gone(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    there = upload(client, DATA + b"\n")
    spec(folder, there)
    client.http.delete(f"/v1/files/{there.file_id}")
    done = folder.run("apply", "--yes")
    assert done.code == 1
    assert f"Together has no file `{there.file_id}`" in done.err
    assert sent(proxy) == []


def test_a_csv_file(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    data = b"response\r\n" + b"".join(f'"{row["response"]}"\r\n'.encode() for row in ROWS)
    spec(folder, there := upload(client, data, "rows.csv"))
    paid(folder, proxy, folder.run("apply", "--yes"))
    assert [path.suffix for path in (folder.root / ".evalops/datasets").glob(f"{there.sha256}*")] == [".csv"]


@pytest.mark.parametrize(
    ("fields", "place", "words"),
    [
        ({"provider": "local"}, "tone.yaml:6:", "`file_id` is a file at Together, and the provider is `local`"),
        ({"gold": "label"}, "tone.yaml:17:1", "no template uses the column `label`"),
        ({"group_by": ["topic"]}, "tone.yaml:18:3", "no template uses the column `topic`"),
    ],
)
def test_what_cannot_be_done_is_said_offline(
    folder: Folder, proxy: CountingProxy, fields: Any, place: str, words: str
) -> None:
    done = spec(folder, Upload("file-1", "0" * 64), **fields).run("validate")
    assert done.code == 1
    assert words in done.err and f"{place}" in done.err
    assert proxy.seen == []


@pytest.mark.parametrize("key", ["columns", "sample"])
def test_a_file_at_the_service_is_judged_as_it_is(folder: Folder, key: str) -> None:
    more = {"columns": {"response": "reply"}, "sample": {"size": 2}}
    dataset = {"file_id": "file-1", "sha256": "0" * 64, key: more[key]}
    done = spec(folder, dataset).run("validate")
    assert done.code == 1 and f"so `{key}` has no effect on it" in done.err


@pytest.mark.parametrize(
    "bound", [{"budget": {"rows": 5}}, {"policy": {"few": {"schema": {"properties": {"rows": {"maximum": 5}}}}}}]
)
def test_rows_that_nobody_counted_are_beyond_any_bound(
    folder: Folder, proxy: CountingProxy, bound: dict[str, Any]
) -> None:
    folder.settings(**bound)
    assert spec(folder, Upload("file-1", "0" * 64)).actions() == {"tone": "denied"}


def test_the_identity_is_that_of_content_and_columns(folder: Folder) -> None:
    def fingerprint(dataset: Upload, **fields: Any) -> str:
        (change,) = spec(folder, dataset, **fields).good("plan", "--format", "json").json["changes"]
        return str(change["fingerprint"])

    here = fingerprint(Upload("file-1", "0" * 64))
    assert fingerprint(Upload("file-2", "0" * 64)) == here
    assert fingerprint(Upload("file-1", "1" * 64)) != here
    assert fingerprint(Upload("file-1", "0" * 64), model_to_evaluate="other") != here


def test_a_file_is_looked_into_and_its_sha256_told(folder: Folder, client: Client, proxy: CountingProxy) -> None:
    there = upload(client)
    found = folder.good("dataset", "show", there.file_id, "--remote", "--format", "json").json
    assert (found["sha256"], found["rows"], found["kind"]) == (there.sha256, 6, "upload")
    text = folder.good("dataset", "show", there.file_id, "--remote").out
    assert f"sha256 {there.sha256}\n" in text
    (folder.root / "tone.yaml").write_text(found["spec"].replace("embedded/smollm2-135m", SERVERLESS))
    folder.good("apply", "--yes")
    listed = {each["id"]: each for each in folder.good("dataset", "list", "--remote", "--format", "json").json}
    assert listed[there.file_id]["sha256"] == there.sha256
    done = folder.run("dataset", "show", "file-nothing", "--remote")
    assert done.code == 1 and "has no file `file-nothing`" in done.err
