"""A kept plan is given again only for the very bytes that it was made from."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, SPEC, Cli, Folder

from evalops import plancache
from evalops.errors import Exit
from evalops.fingerprint import sha256
from evalops.project import Project

FILED = SPEC.split("  system_template")[0] + "  system_template: {file: prompts/tone.md}\nlabels: [polite, rude]\n"
FILES = {"tone.yaml": FILED, "prompts/tone.md": "Polite? {{ response }}\n", "old.lock": "{}"}
READ = ["data/rows.jsonl", "prompts/tone.md"]
PLAN = {"digest": "kept"}
LATER = 60.0  # seconds: no file has changed since then


def load(folder: Folder, *asked: str) -> Any:
    project = Project(folder.root)
    return plancache.load(project, plancache.key(project, asked))


def save(folder: Folder, *asked: str, began: float | None = None, files: list[str] = READ) -> None:
    project = Project(folder.root)
    key = plancache.key(project, asked)
    plancache.save(project, key, files, PLAN, began=time.time() + LATER if began is None else began)


def kept() -> list[Path]:
    return [path for path in plancache.folder().rglob("*") if path.is_file()]


@pytest.fixture
def cached(folder: Folder, home: Path) -> Folder:
    """A project whose plan is kept."""
    folder.write(FILES)
    save(folder)
    assert load(folder) == PLAN
    return folder


def test_what_is_no_part_of_a_plan_says_nothing(cached: Folder) -> None:
    cached.write({"notes.txt": "unrelated", "data/other.jsonl": "x", ".evalops/x": "state", ".hidden.yaml": ""})
    os.utime(cached.root / "data/rows.jsonl", (1, 1))
    cached.write({"tone.yaml": FILED})
    assert load(cached) == PLAN


def write(path: str, content: Any) -> Callable[[Folder], object]:
    return lambda folder: folder.write({path: content})


EDITS: dict[str, Callable[[Folder], object]] = {
    "settings": write("evalops.yaml", "version: 1\nbudget: {rows: 1}\n"),
    "a spec": write("tone.yaml", FILED.replace("[polite, rude]", "[rude, polite]")),
    "a comment": write("tone.yaml", FILED + "# more\n"),
    "a new spec": write("b.yaml", FILED),
    "a new spec in a folder": write("b/b.yaml", FILED),
    "a new lock": write("b.lock", "{}"),
    "a lock": write("old.lock", "{ }"),
    "a lock gone": write("old.lock", None),
    "a spec gone": write("tone.yaml", None),
    "a spec renamed": lambda folder: (folder.root / "tone.yaml").rename(folder.root / "b.yaml"),
    "a template": write("prompts/tone.md", "Rude? {{ response }}\n"),
    "a template gone": write("prompts/tone.md", None),
    "rows": write("data/rows.jsonl", ROWS[:2]),
}


@pytest.mark.parametrize("edit", EDITS)
def test_other_bytes_have_no_plan(cached: Folder, edit: str) -> None:
    EDITS[edit](cached)
    assert load(cached) is None


def test_what_is_put_back_has_its_plan_again(cached: Folder) -> None:
    cached.write({"tone.yaml": SPEC})
    assert load(cached) is None
    cached.write({"tone.yaml": FILED})
    assert load(cached) == PLAN


def test_no_time_stamp_is_believed(cached: Folder) -> None:
    path = cached.root / "data" / "rows.jsonl"
    before = path.stat()
    path.write_text(path.read_text().replace("gladly", "GLADLY"))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert load(cached) is None


def test_a_file_that_is_a_link_now_is_not_looked_through(cached: Folder, tmp_path: Path) -> None:
    path = cached.root / "data" / "rows.jsonl"
    path.rename(tmp_path / "rows.jsonl")
    path.symlink_to(tmp_path / "rows.jsonl")
    assert load(cached) is None


def test_a_plan_whose_files_changed_while_it_was_made_is_never_found(folder: Folder, home: Path) -> None:
    folder.write(FILES)
    save(folder, began=time.time() - LATER)
    assert load(folder) is None


def test_another_question_or_project_has_a_plan_of_its_own(cached: Folder, tmp_path: Path) -> None:
    assert load(cached, "tone") is None
    save(cached, "tone")
    assert load(cached, "tone") == PLAN
    assert load(cached, "to", "ne") is None
    other = Folder(tmp_path / "other")
    other.write({"evalops.yaml": "version: 1\n", "data/rows.jsonl": ROWS, **FILES})
    assert load(other) is None


def test_a_plan_of_a_file_that_cannot_be_read_is_not_kept(folder: Folder, home: Path) -> None:
    folder.write(FILES)
    save(folder, files=["data/none.jsonl"])
    assert kept() == []


@pytest.mark.parametrize(
    "broken",
    ["", "{", "[]", "null", '{"plan": 1}', '{"globs": ["**/*.yaml"], "found": ["old.lock", "tone.yaml"], "files": [], "plan": 1}',
     '{"globs": ["**/*.yaml"], "found": ["old.lock", "tone.yaml"], "files": {"../x": "y"}, "plan": 1}'],
)  # fmt: skip
def test_a_broken_copy_is_as_none(cached: Folder, broken: str) -> None:
    for path in kept():
        path.write_text(broken)
    assert load(cached) is None


def test_a_cache_that_cannot_be_written_is_no_problem(
    folder: Folder, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    folder.write(FILES)
    save(folder)
    assert load(folder) is None


@pytest.mark.parametrize("variable", ["TOGETHER_BASE_URL", "PATRONUS_API_BASE_URL"])
def test_where_a_service_is_makes_another_plan(cached: Folder, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "https://elsewhere.example")
    assert load(cached) is None


# --- through the command ---


def plan(cli: Cli, *arguments: str) -> Any:
    done = cli("plan", "--format", "json", *arguments)
    assert done.code == Exit.OK, done.err
    return done.json


def test_the_command_gives_a_kept_plan_in_both_forms(folder: Folder, cli: Cli) -> None:
    folder.write({"tone.yaml": SPEC})
    first = plan(cli)
    (path,) = kept()
    value = json.loads(path.read_bytes())
    assert value["plan"] == first
    # The files are too new for a plan of them to be believed later: said to be older, and the plan marked.
    files = {name: sha256((folder.root / name).read_bytes()) for name in value["files"]}
    path.write_text(json.dumps({**value, "files": files, "plan": {**first, "digest": "from the cache"}}))
    assert plan(cli)["digest"] == "from the cache"
    assert "Digest: from the cache" in cli("plan").out
    for arguments in (["tone"], ["-x", "none"], ["--refresh"]):
        assert plan(cli, *arguments)["digest"] == first["digest"]


def test_nothing_of_the_project_is_written(folder: Folder, cli: Cli) -> None:
    folder.write({"tone.yaml": SPEC})
    before = sorted(folder.root.rglob("*"))
    plan(cli)
    assert sorted(folder.root.rglob("*")) == before


@pytest.mark.parametrize(
    "files",
    [
        {"tone.yaml": SPEC.replace("ollama/llama3.2", "embedded/file:m.gguf")},
        {
            "tone.yaml": SPEC.replace("ollama/llama3.2", "mine"),
            "evalops.yaml": "version: 1\nmodels: {mine: {model: embedded/file:m.gguf}}\n",
        },
    ],
    ids=["in the spec", "in the settings"],
)
def test_weights_may_lie_anywhere_so_their_plan_is_made_anew(folder: Folder, cli: Cli, files: dict[str, str]) -> None:
    folder.write({**files, "m.gguf": b"GGUF\x03\0\0\0" + bytes(64)})
    first = plan(cli)
    assert kept() == []
    folder.write({"m.gguf": b"GGUF\x03\0\0\0" + bytes(63) + b"x"})
    assert plan(cli)["digest"] != first["digest"]
