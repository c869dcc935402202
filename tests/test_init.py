"""evalops init: a starter project that is valid as it is written, and never at the cost of a file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evalops import cli, schema
from evalops.errors import Exit

STARTER = Path(cli.__file__).parent.parent / "starter"
WRITTEN = {
    ".gitattributes",
    ".gitignore",
    "better-reply.yaml",
    "data/replies.jsonl",
    "data/reviews.jsonl",
    "evalops.yaml",
    "review-sentiment.yaml",
    "schemas/spec-v1.json",
}


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_starter_is_written_whole_and_valid(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "new" / "demo"
    assert cli.run(["init", str(root)]) == Exit.OK
    output = capsys.readouterr()
    assert set(tree(root)) == WRITTEN
    assert all(f"  {name}\n" in output.out for name in WRITTEN)
    assert f"evalops --project {root} apply" in output.err
    assert cli.run(["--project", str(root), "validate"]) == Exit.OK
    output = capsys.readouterr()
    assert output.out == "2 evaluations in 2 files: valid.\n"
    assert output.err == ""


def test_the_starter_plans_two_evaluations_with_enough_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli.run(["init", str(tmp_path)])
    capsys.readouterr()
    assert cli.run(["--project", str(tmp_path), "plan", "--format", "json"]) == Exit.OK
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [(each["address"], each["action"]) for each in changes] == [
        ("better-reply", "create"),
        ("review-sentiment", "create"),
    ]
    assert all(each["rows"] >= 12 for each in changes)


def test_each_spec_points_to_the_schema_beside_it(tmp_path: Path) -> None:
    cli.run(["init", str(tmp_path)])
    for spec in ("better-reply.yaml", "review-sentiment.yaml"):
        first = (tmp_path / spec).read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("# yaml-language-server: $schema=")
        assert (tmp_path / first.partition("=")[2]).read_text(encoding="utf-8") == schema.text("spec")


def test_git_ignores_the_state_and_shows_the_locks(tmp_path: Path) -> None:
    cli.run(["init", str(tmp_path)])
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    asked = ["git", "check-attr", "linguist-generated", "a.lock", "a.verdicts.jsonl", "data/reviews.jsonl"]
    attributes = subprocess.run(asked, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert [line.rpartition(" ")[2] for line in attributes.splitlines()] == ["unset", "set", "unspecified"]
    ignored = subprocess.run(["git", "check-ignore", ".evalops/store.sqlite", "a.lock"],
                             cwd=tmp_path, capture_output=True, text=True, check=False).stdout  # fmt: skip
    assert ignored == ".evalops/store.sqlite\n"


def test_here_is_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["init"]) == Exit.OK
    output = capsys.readouterr()
    assert set(tree(tmp_path)) == WRITTEN
    assert "this folder" in output.out
    assert "\n  evalops apply" in output.err


@pytest.mark.parametrize("arguments", [["--project", "{}", "init"], ["init", "--project", "{}"]])
def test_the_project_option_names_the_folder_too(tmp_path: Path, arguments: list[str]) -> None:
    root = tmp_path / "demo"
    assert cli.run([each.format(root) for each in arguments]) == Exit.OK
    assert set(tree(root)) == WRITTEN


def test_a_second_time_nothing_is_written_and_what_is_gone_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["init", str(tmp_path)])
    before = tree(tmp_path)
    (tmp_path / "review-sentiment.lock").write_text("a lock of yours", encoding="utf-8")
    (tmp_path / "data" / "replies.jsonl").unlink()
    capsys.readouterr()
    assert cli.run(["init", str(tmp_path)]) == Exit.OK
    written = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert written == ["  data/replies.jsonl"]
    assert tree(tmp_path) == {**before, "review-sentiment.lock": b"a lock of yours"}
    assert cli.run(["init", str(tmp_path)]) == Exit.OK
    assert "already" in capsys.readouterr().out


def test_no_file_is_overwritten_and_all_in_the_way_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {"evalops.yaml": b"version: 1\n", ".gitignore": b"/build/\n"}
    for name, data in mine.items():
        (tmp_path / name).write_bytes(data)
    assert cli.run(["init", str(tmp_path)]) == Exit.PROBLEM
    error = capsys.readouterr().err
    assert tree(tmp_path) == mine
    assert all(f"`{tmp_path / name}`" in error for name in mine)
    assert error.count("hint:") == 1


def test_a_link_or_a_file_in_place_of_a_folder_is_in_the_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, elsewhere = tmp_path / "demo", tmp_path / "elsewhere"
    root.mkdir()
    elsewhere.mkdir()
    (root / "data").symlink_to(elsewhere)
    (root / "schemas").write_text("no folder", encoding="utf-8")
    (root / "evalops.yaml").symlink_to(elsewhere / "missing.yaml")
    assert cli.run(["init", str(root)]) == Exit.PROBLEM
    error = capsys.readouterr().err
    assert all(f"`{root / name}`" in error for name in ("data", "schemas", "evalops.yaml"))
    assert tree(root) == {"schemas": b"no folder"}
    assert list(elsewhere.iterdir()) == []


def test_a_file_is_no_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").write_text("mine", encoding="utf-8")
    assert cli.run(["init", str(tmp_path / "demo")]) == Exit.PROBLEM
    assert f"`{tmp_path / 'demo'}` is there already" in capsys.readouterr().err
    assert tree(tmp_path) == {"demo": b"mine"}


def test_a_project_is_not_put_into_another_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "evalops.yaml").write_text("version: 1\n", encoding="utf-8")
    assert cli.run(["init", str(tmp_path / "below" / "demo")]) == Exit.PROBLEM
    assert "init/inside-project" in capsys.readouterr().err
    assert set(tree(tmp_path)) == {"evalops.yaml"}


def test_a_name_that_the_system_refuses_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["init", str(tmp_path / ("x" * 300))]) == Exit.PROBLEM
    error = capsys.readouterr().err
    assert "file/write" in error
    assert "too long" in error


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path: Path) -> None:
    # The system's limit on the size of a file stands for the disk: the small files fit, the next does not.
    command = f"ulimit -f 1 && exec {sys.executable} -c 'from evalops.cli import main; main()' init {tmp_path}/demo"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == Exit.PROBLEM, done.stderr
    assert "could not be written" in done.stderr
    assert tree(tmp_path) == {}


def test_the_package_holds_what_is_written() -> None:
    held = {path.relative_to(STARTER).as_posix() for path in STARTER.rglob("*") if path.is_file()}
    assert {name.removeprefix(".") for name in WRITTEN} == held | {"schemas/spec-v1.json"}
