"""Files on disk: what is kept, what is refused, and what a crash leaves."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evalops.server.file import File, describe
from evalops.server.files import MOST_ANNOUNCED, Files
from evalops.server.problem import Problem

ROWS = b'{"q": "a"}\n{"q": "b"}\n'
LARGEST = 10_000


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path / "files", largest=LARGEST)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def send(files: Files, content: bytes = ROWS, name: str = "rows.jsonl") -> File:
    """A file by way of announcement, upload and processing."""
    file_id, token = files.announce(name, "eval", None, sha256(content))
    with files.open_upload(file_id, token) as upload:
        for start in range(0, len(content), 7):
            upload.write(content[start : start + 7])
        upload.finish()
    return files.process(file_id)


def refused(status: int, call: Callable[..., Any], *arguments: Any, **named: Any) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments, **named)
    assert caught.value.status == status, caught.value.message
    assert len(caught.value.message) < 400
    return caught.value


def on_disk(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


# --- coming in ---


def test_a_file_is_announced_sent_and_processed(files: Files) -> None:
    file = send(files)
    assert (file.filename, file.bytes, file.purpose, file.file_type) == ("rows.jsonl", len(ROWS), "eval", "jsonl")
    assert (file.checksum, file.status, file.lines) == (sha256(ROWS), "COMPLETED", 2)
    assert files.get(file.id) == file
    assert files.path(file.id).read_bytes() == ROWS
    assert files.process(file.id) == file


def test_a_file_is_pending_until_it_is_processed(files: Files) -> None:
    file_id, token = files.announce("rows.csv", "eval", "csv", None)
    refused(404, files.get, file_id)
    refused(400, files.process, file_id)
    with files.open_upload(file_id, token) as upload:
        upload.write(b"q\na\n")
        assert upload.finish().status == "PENDING"
    assert files.get(file_id).to_json()["Processed"] is False
    assert "validation_report" not in files.get(file_id).to_json()
    assert files.process(file_id).lines == 1


def test_the_same_content_is_taken_once(files: Files) -> None:
    file = send(files)
    problem = refused(409, files.announce, "other.jsonl", "eval", None, sha256(ROWS).upper())
    assert problem.to_json()["file_id"] == file.id
    assert problem.headers == {"x-should-retry": "false"}
    files.announce("rows.csv", "eval", "csv", sha256(ROWS))
    files.announce("rows.jsonl", "eval-sample", None, sha256(ROWS))
    files.delete(file.id)
    assert send(files).id != file.id


def test_content_that_never_was_processed_or_is_broken_does_not_stand_in_the_way(files: Files) -> None:
    for content in (b"[]\n", ROWS):
        file_id, token = files.announce("rows.jsonl", "eval", None, sha256(content))
        upload = files.open_upload(file_id, token)
        upload.write(content)
        upload.finish()
    broken = send(files, b"[]\n")
    assert broken.status == "INVALID_FORMAT"
    assert send(files).status == "COMPLETED"


def test_other_content_than_announced_is_refused_and_can_be_sent_again(files: Files, tmp_path: Path) -> None:
    file_id, token = files.announce("rows.jsonl", "eval", "jsonl", sha256(ROWS))
    with files.open_upload(file_id, token) as upload:
        upload.write(b"other")
        assert sha256(b"other") in refused(400, upload.finish).message
    assert on_disk(tmp_path) == ["files", "files/.incoming"]
    with files.open_upload(file_id, token) as upload:
        upload.write(ROWS)
        upload.finish()
    assert files.process(file_id).status == "COMPLETED"


def test_a_file_may_have_the_largest_size_and_not_a_byte_more(files: Files, tmp_path: Path) -> None:
    assert send(files, b'{"q": "%s"}' % (b"x" * (LARGEST - 9))).bytes == LARGEST
    file_id, token = files.announce("rows.jsonl", "eval", None, None)
    with files.open_upload(file_id, token) as upload:
        upload.write(b"x" * LARGEST)
        refused(413, upload.write, b"x")
    assert on_disk(tmp_path / "files/.incoming") == []


def test_an_upload_needs_its_token_and_is_done_once(files: Files) -> None:
    file_id, token = files.announce("rows.jsonl", "eval", None, None)
    for wrong in ("", token[:-1], token + "x", "é", "\ud800", "x" * 100_000):
        refused(404, files.open_upload, file_id, wrong)
    refused(404, files.open_upload, "file-unknown", token)
    first = files.open_upload(file_id, token)
    refused(409, files.open_upload, file_id, token)
    first.abort()
    with files.open_upload(file_id, token) as upload:
        upload.write(ROWS)
        upload.finish()
        upload.abort()
    refused(404, files.open_upload, file_id, token)
    assert files.path(file_id).read_bytes() == ROWS


def test_announcements_that_nobody_follows_up_are_forgotten(files: Files) -> None:
    first = files.announce("rows.jsonl", "eval", None, None)
    second = files.announce("rows.jsonl", "eval", None, None)
    for _ in range(MOST_ANNOUNCED - 1):
        files.announce("rows.jsonl", "eval", None, None)
    refused(404, files.open_upload, *first)
    files.open_upload(*second).abort()


def test_content_without_announcement_is_described_at_its_end_and_kept_once(files: Files, tmp_path: Path) -> None:
    described = describe("rows.jsonl", "eval", None)
    found = []
    for _ in range(2):
        with files.new_upload() as upload:
            upload.write(ROWS)
            found.append(files.process(upload.finish(described).id))
    assert found[0] == found[1]
    assert on_disk(tmp_path / "files/.incoming") == []


# --- what a client says ---


@pytest.mark.parametrize(
    ("said", "param", "words"),
    [
        ((None, "eval", "jsonl"), "file_name", "missing"),
        (("", "eval", "jsonl"), "file_name", "missing"),
        (("..", "eval", "jsonl"), "file_name", "missing"),
        (("a/", "eval", "jsonl"), "file_name", "missing"),
        (("x" * 256, "eval", "jsonl"), "file_name", "255"),
        (("x" * 100_000, "eval", "jsonl"), "file_name", "255"),
        (("a\nb.jsonl", "eval", "jsonl"), "file_name", "control"),
        (("a\0.jsonl", "eval", "jsonl"), "file_name", "control"),
        (("a\u2028.jsonl", "eval", "jsonl"), "file_name", "control"),
        (("\ud800.jsonl", "eval", "jsonl"), "file_name", "control"),
        (("rows.jsonl", None, "jsonl"), "purpose", "`eval`"),
        (("rows.jsonl", "fine-tune", "jsonl"), "purpose", "--purpose eval"),
        (("rows.jsonl", "x" * 100_000, "jsonl"), "purpose", "`eval`"),
        (("rows.jsonl", "eval", "parquet"), "file_type", "`csv`"),
        (("rows.parquet", "eval", None), "file_type", "`jsonl`"),
        (("rows", "eval", None), "file_type", "missing"),
        (("rows.jsonl", "eval", "x" * 100_000), "file_type", "`csv`"),
    ],
)
def test_a_wrong_field_is_named(files: Files, said: tuple[str, str, str], param: str, words: str) -> None:
    problem = refused(400, files.announce, *said, None)
    assert problem.param == param
    assert words in problem.message


@pytest.mark.parametrize("checksum", ["x", "0" * 63, "g" * 64, "0" * 100_000])
def test_a_checksum_is_a_sha256(files: Files, checksum: str) -> None:
    assert refused(400, files.announce, "rows.jsonl", "eval", None, checksum).param == "checksum"


@pytest.mark.parametrize("name", ["../../x.jsonl", "/etc/x.jsonl", "C:\\temp\\x.jsonl", "..\\x.jsonl", "a/../x.jsonl"])
def test_of_a_path_only_the_name_is_kept(files: Files, tmp_path: Path, name: str) -> None:
    file = send(files, name=name)
    assert file.filename == "x.jsonl"
    assert on_disk(tmp_path) == [
        "files",
        "files/.incoming",
        f"files/{file.id}",
        f"files/{file.id}/about.json",
        f"files/{file.id}/content",
    ]


@pytest.mark.parametrize(
    "text", ["", ".", "..", "../x", ".incoming", "a/b", "a b", "é", "-a", "a\n", "a" * 129, "x" * 100_000, "\0"]
)
def test_an_id_that_is_none_is_not_found_and_not_repeated(files: Files, text: str) -> None:
    for call in (files.get, files.path, files.delete, files.process, Files.check_id):
        problem = refused(404, call, text)
        assert text == "" or len(text) < 20 or text not in problem.message
    refused(404, files.open_upload, text, "token")


def test_ids_of_the_service_are_ids() -> None:
    for text in ("file-0a1b", "a", "A.b_c-9", "x" * 128):
        assert Files.check_id(text) == text


# --- processing ---


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("rows.jsonl", b"", "`rows.jsonl` has no rows"),
        ("rows.jsonl", b"\n\n", "has no rows"),
        ("rows.jsonl", ROWS + b"[1]\n", "line 3: row 3 is a list"),
        ("rows.jsonl", ROWS + b'{"q": "\xff"}\n', "line 3: this line is not UTF-8"),
        ("rows.jsonl", b"[" * 5000, "line 1: row 1"),
        ("data.txt", b"{", "row 1 is not JSON"),
        ("rows.csv", b"q,r\n1,2\n3\n", "line 3: row 2 has 1 cell"),
        ("rows.csv", b"q\n\xff\n", "UTF-8"),
        ("rows.csv", b"q\n\0\n", ""),
        ("rows.csv", b"q,%s,%s\n1,2,3\n" % (b"x" * 4000, b"x" * 4000), "the header names"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(files: Files, name: str, content: bytes, reason: str) -> None:
    file_id, token = files.announce(name, "eval", "csv" if name.endswith("csv") else "jsonl", None)
    with files.open_upload(file_id, token) as upload:
        upload.write(content)
        upload.finish()
    file = files.process(file_id)
    if file.problem is None:  # some Pythons read NUL bytes
        assert content == b"q\n\0\n"
        return
    assert file.status == "INVALID_FORMAT"
    assert reason in file.problem
    assert len(file.problem) <= 500
    report = file.to_json()["validation_report"]
    assert (report["valid"], report["error_type"], report["error"]) == (False, "INVALID_FORMAT", file.problem)
    assert files.path(file_id).read_bytes() == content


def test_processing_what_has_gone_is_not_found(files: Files) -> None:
    file_id, token = files.announce("rows.jsonl", "eval", None, None)
    with files.open_upload(file_id, token) as upload:
        upload.write(ROWS)
        upload.finish()
    files.path(file_id).unlink()
    refused(404, files.process, file_id)


def test_a_file_that_is_deleted_while_it_is_processed_stays_deleted(files: Files, tmp_path: Path) -> None:
    file_id, token = files.announce("rows.jsonl", "eval", None, None)
    with files.open_upload(file_id, token) as upload:
        upload.write(ROWS)
        upload.finish()
    files.path(file_id).unlink()
    os.mkfifo(files.path(file_id))  # its reader waits for us
    with ThreadPoolExecutor(1) as pool:
        processing = pool.submit(files.process, file_id)
        with files.path(file_id).open("wb") as stream:
            stream.write(ROWS)
            files.delete(file_id)
        refused(404, processing.result)
    assert files.list() == []
    assert on_disk(tmp_path) == ["files", "files/.incoming"]


# --- the server's own files ---


def test_a_result_file_is_taken_over_and_replaced_under_its_id(files: Files, tmp_path: Path) -> None:
    for count in (1, 3):
        path = tmp_path / "results.jsonl"
        path.write_bytes(b"{}\n" * count)
        file = files.add(path, id="file-result", filename="results.jsonl", purpose="eval-output", file_type="jsonl")
        assert not path.exists()
        assert (file.id, file.lines, file.bytes, file.status) == ("file-result", count, 3 * count, "COMPLETED")
        assert file.checksum == sha256(b"{}\n" * count)
    assert files.list() == [file]
    assert files.path(file.id).read_bytes() == b"{}\n" * 3
    assert on_disk(tmp_path / "files/.incoming") == []
    path.write_bytes(b"")
    assert files.add(path, id=None, filename="x.jsonl", purpose="eval-output", file_type="jsonl").id.startswith("file-")
    path.write_bytes(b"")
    refused(404, files.add, path, id="../x", filename="x", purpose="eval-output", file_type="jsonl")


def test_a_job_keeps_the_content_of_a_file_that_is_deleted_or_replaced(files: Files, tmp_path: Path) -> None:
    file = send(files)
    os.link(files.path(file.id), tmp_path / "dataset.jsonl")
    with files.path(file.id).open("rb") as stream:
        files.delete(file.id)
        assert stream.read() == ROWS
    assert (tmp_path / "dataset.jsonl").read_bytes() == ROWS
    refused(404, files.delete, file.id)
    refused(404, files.path, file.id)
    assert on_disk(tmp_path / "files") == [".incoming"]


# --- over time ---


def test_files_outlive_the_server_and_leftovers_do_not(files: Files, tmp_path: Path) -> None:
    kept = [send(files, b'{"q": %d}\n' % number) for number in range(5)]
    kept.append(send(files, b"no json"))
    announced = files.announce("rows.jsonl", "eval", None, None)
    upload = files.open_upload(*announced)
    upload.write(b"half")
    upload._stream.close()  # as a killed process does
    again = Files(tmp_path / "files", largest=LARGEST)
    assert again.list() == list(reversed(kept)) == files.list()
    assert on_disk(tmp_path / "files/.incoming") == []
    refused(404, again.open_upload, *announced)
    assert refused(409, again.announce, "a.jsonl", "eval", None, kept[2].checksum).extra == {"file_id": kept[2].id}


@pytest.mark.parametrize("about", [b"", b"{", b"\xff", b"[]", b"null", b"7", b"{}", b'{"id": "file-a"}'])
def test_what_cannot_be_read_at_the_start_is_no_file_and_is_left_alone(
    files: Files, tmp_path: Path, about: bytes
) -> None:
    file = send(files)
    broken = tmp_path / "files/file-a"
    broken.mkdir()
    (broken / "content").write_bytes(b"x")
    (broken / "about.json").write_bytes(about)
    renamed = tmp_path / "files/file-b"
    shutil.copytree(tmp_path / "files" / file.id, renamed)
    (tmp_path / "files/stray.txt").write_bytes(b"x")
    assert Files(tmp_path / "files", largest=LARGEST).list() == [file]
    assert (broken / "content").exists()


def test_a_newer_version_may_add_to_what_is_known(files: Files, tmp_path: Path) -> None:
    file = send(files)
    path = tmp_path / "files" / file.id / "about.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "green"}))
    assert Files(tmp_path / "files", largest=LARGEST).list() == [file]


def test_a_store_that_fails_is_a_problem_without_a_path(files: Files, tmp_path: Path) -> None:
    upload = files.open_upload(*files.announce("rows.jsonl", "eval", None, None))
    upload.write(ROWS)
    shutil.rmtree(tmp_path / "files")
    problem = refused(507, upload.finish)
    assert str(tmp_path) not in problem.message
    upload.abort()
    refused(507, files.new_upload)
    file_id, token = files.announce("rows.jsonl", "eval", None, None)
    refused(507, files.open_upload, file_id, token)
    refused(507, files.open_upload, file_id, token)


def test_a_result_file_that_cannot_be_stored_leaves_nothing(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"{}\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))  # a full disk
    try:
        refused(507, files.add, path, id="file-x", filename="x.jsonl", purpose="eval-output", file_type="jsonl")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert on_disk(tmp_path / "files") == [".incoming"]


def test_many_clients_at_once(files: Files) -> None:
    def one(number: int) -> File:
        file = send(files, b'{"q": %d}\n' % number)
        files.list()
        if number % 3 == 0:
            files.delete(file.id)
        return file

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(one, range(60)))
    assert len({file.id for file in made}) == 60
    assert {file.id for file in files.list()} == {file.id for number, file in enumerate(made) if number % 3}
    times = [file.created_ns for file in files.list()]
    assert times == sorted(times, reverse=True)
