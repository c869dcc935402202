"""The project at another revision, asked of a real git: which one is meant, what is read, and what is never run."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from apply_project import PACKAGE
from repository import NOBODY, Repository

from evalops import git, history
from evalops.errors import EvalopsError
from evalops.history import Revision


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    """A branch `topic` with one commit more than main."""
    made = Repository.make(tmp_path / "project").spec()
    made.applied(message="base")
    made.branch("topic")
    return made


def refused(repository: Repository, name: str | None) -> str:
    with pytest.raises(EvalopsError) as error:
        history.find(repository.folder.root).base(name)
    assert error.value.diagnostics[0].code == "history/revision"
    return error.value.diagnostics[0].message


# --- which revision ---


def test_the_default_is_where_the_branch_left_the_default_branch(here: Repository) -> None:
    fork = here.git("rev-parse", "main")
    here.commit("on the topic")
    here.git("checkout", "--quiet", "main")
    ahead = here.commit("main goes on")
    here.git("checkout", "--quiet", "topic")
    found = history.find(here.root)
    assert found.base() == Revision("main...", fork)
    assert found.base("main") == Revision("main", ahead)
    assert found.base("main...") == Revision("main...", fork)
    assert found.base("HEAD~1").commit == fork
    assert found.head == here.git("rev-parse", "HEAD")


def test_the_branch_that_origin_calls_its_default_comes_before_main(here: Repository) -> None:
    trunk = here.commit("of the trunk")
    here.git("update-ref", "refs/remotes/origin/trunk", trunk)
    assert history.find(here.root).base().name == "main..."
    here.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/trunk")
    assert history.find(here.root).base() == Revision("origin/trunk...", trunk)
    here.git("update-ref", "refs/remotes/origin/main", "main")
    here.git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/gone")
    assert history.find(here.root).base().name == "origin/main..."


@pytest.mark.parametrize(
    "name",
    [
        "--output=/tmp/x",
        "-h",
        "main:evalops.yaml",
        "main..topic",
        ":/base",
        "HEAD^{/base}",
        "@{-1}",
        "a b",
        "a\nb",
        "",
        "x" * 300,
        "a*",
    ],
)
def test_what_is_no_name_of_a_revision_is_refused_before_git_sees_it(here: Repository, name: str) -> None:
    assert "cannot be the name" in refused(here, name)


def test_a_revision_that_is_not_here_says_what_to_fetch(here: Repository) -> None:
    assert refused(here, "origin/main") == "git knows no revision `origin/main` here"
    here.git("branch", "--quiet", "-m", "main", "trunk")
    assert "no default branch" in refused(here, None)
    here.git("checkout", "--quiet", "--orphan", "alone")
    here.commit("of another history")
    assert "no common ancestor" in refused(here, "trunk...")


def test_without_a_repository_or_a_commit_there_is_no_history(tmp_path: Path, here: Repository) -> None:
    (tmp_path / "plain").mkdir()
    with pytest.raises(EvalopsError, match="not a git repository"):
        history.find(tmp_path / "plain")
    empty = Repository.make(tmp_path / "empty")
    assert history.find(empty.root).head is None
    assert "no default branch" in refused(empty, None)


# --- what is read ---


def test_a_snapshot_reads_lockfiles_verdicts_and_settings_of_then(here: Repository) -> None:
    before = here.read("tone.lock")
    here.write({"tone.lock": "{", "tone.verdicts.jsonl": "", "evalops.yaml": "version: 9"})
    here.commit()
    found = history.find(here.root)
    snapshot = found.at(found.base())
    locks, problems = snapshot.locks()
    assert problems == [] and list(locks) == ["tone.lock"] and locks["tone.lock"].entries.keys() == {"tone"}
    assert snapshot.read(["tone.lock"], 1 << 20) == {"tone.lock": before.encode()}
    assert snapshot.read(["tone.lock", "nothing"], 10) == {}
    sections, problems = snapshot.sections(["tone.verdicts.jsonl", "other.verdicts.jsonl"])
    assert problems == [] and len(sections["tone.verdicts.jsonl"]["tone"].verdicts) == 60
    settings = snapshot.settings()
    assert settings is not None and "judge" in settings.models
    broken = found.at(found.base("HEAD"))
    assert [each.severity.value for each in broken.locks()[1]] == ["warning"]
    with pytest.raises(EvalopsError):
        broken.settings()


def test_a_project_below_the_root_is_read_by_its_own_paths(tmp_path: Path) -> None:
    made = Repository.make(tmp_path, "evals/ä b").spec()
    (tmp_path / "outside.lock").write_text("not ours")
    made.applied()
    found = history.find(made.folder.root)
    assert found.prefix == "evals/ä b/"
    assert list(found.at(found.base()).locks()[0]) == ["tone.lock"]
    made.write({"../other/evalops.yaml": "version: 1\n"})
    elsewhere = history.find(made.folder.root.parent / "other")
    assert elsewhere.at(elsewhere.base()).blobs == {}


def test_links_submodules_and_hidden_files_are_no_files_of_the_project(here: Repository) -> None:
    (here.root / "link.lock").symlink_to("/etc/passwd")
    here.write({".hidden/a.lock": "x", ".b.lock": "x", "deep/er/c.lock": "x"})
    here.git("add", "--force", "--all")
    here.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub.lock")
    here.git("commit", "--quiet", "--message", "odd")
    found = history.find(here.root)
    blobs = found.at(found.base("HEAD")).blobs
    assert {path for path in blobs if path.endswith(".lock")} == {"tone.lock", "deep/er/c.lock"}


def test_a_project_inside_is_none_of_its_files(here: Repository) -> None:
    here.write({"inner/evalops.yaml": "version: 1\n", "inner/tone.yaml": "version: 1\n"})
    here.commit()
    repository = history.find(here.root)
    assert not any(path.startswith("inner/") for path in repository.at(repository.base("HEAD")).blobs)


def test_names_that_git_would_quote_are_read(here: Repository) -> None:
    name = 'a "b"\tc\\d\nü.lock'
    here.write({name: here.read("tone.lock")})
    here.commit()
    found = history.find(here.root)
    assert set(found.at(found.base("HEAD")).locks()[0]) == {name, "tone.lock"}


def test_what_a_missing_object_would_be_is_left_out(here: Repository) -> None:
    found = history.find(here.root)
    snapshot = found.at(found.base())
    blob = snapshot.blobs["tone.lock"]
    (here.root / ".git/objects" / blob.id[:2] / blob.id[2:]).unlink()
    assert snapshot.locks() == ({}, [])


# --- a hostile repository ---


def trap(path: Path, mark: Path) -> str:
    """A program that leaves a mark when it runs."""
    path.write_text(f"#!/bin/sh\necho $0 >> {mark}\ncat\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_nothing_of_a_repository_is_run(here: Repository, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    program = trap(tmp_path / "trap", mark)
    here.write({".gitattributes": "* filter=evil diff=evil\n"})
    here.spec("tone", "poor").commit("attributes")
    for key in (
        "core.fsmonitor", "core.pager", "pager.ls-tree", "pager.diff", "diff.external", "diff.evil.textconv", "diff.evil.command", "core.sshCommand",
        "filter.evil.clean", "filter.evil.smudge", "filter.evil.process", "core.alternateRefsCommand", "gpg.program", "core.gitProxy", "alias.rev-parse",
    ):  # fmt: skip
        here.git("config", key, program)
    here.git("config", "log.showSignature", "true")
    hooks = here.root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-commit"):
        trap(hooks / name, mark)
    here.git("config", "core.hooksPath", str(hooks))
    mark.unlink(missing_ok=True)
    done = here.run("diff", "main")
    assert done.code == 0, done
    found = history.find(here.root)
    assert found.at(found.base()).locks()[0]
    assert here.run("check").code == 1
    assert here.run("report").code == 0
    assert not mark.exists(), mark.read_text()
    here.git("diff", "main", ok=False)
    assert mark.exists(), "the traps are no traps"


def test_what_a_partial_clone_lacks_is_not_fetched(here: Repository, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    here.git("config", "core.repositoryFormatVersion", "1")
    here.git("config", "extensions.partialClone", "origin")
    here.git("config", "remote.origin.promisor", "true")
    here.git("config", "remote.origin.url", f"ext::{trap(tmp_path / 'trap', mark)}")
    here.git("config", "protocol.ext.allow", "always")
    found = history.find(here.root)
    snapshot = found.at(found.base())
    blob = snapshot.blobs["tone.lock"]
    (here.root / ".git/objects" / blob.id[:2] / blob.id[2:]).unlink()
    assert snapshot.locks()[0] == {}
    assert not mark.exists()


def test_a_folder_that_looks_like_a_repository_is_none(here: Repository, tmp_path: Path) -> None:
    """A pull request can hold the files of a bare repository, with a configuration of its own."""
    mark = tmp_path / "ran"
    inner = here.root / "evals"
    subprocess.run(["git", *NOBODY, "init", "--quiet", "--bare", str(inner)], check=True)
    (inner / "config").write_text(f"[core]\n\tbare = true\n\tfsmonitor = {trap(tmp_path / 'trap', mark)}\n")
    assert not git.ask(inner, "rev-parse", "--show-prefix").ok
    assert not mark.exists()


def test_the_environment_leads_git_nowhere_else(here: Repository, tmp_path: Path) -> None:
    other = Repository.make(tmp_path / "other")
    other.commit("of another repository")
    mark = tmp_path / "ran"
    code = "import sys; from evalops import history; from pathlib import Path; print(history.find(Path(sys.argv[1])).base('main').commit)"
    environment = {
        **os.environ, "PYTHONPATH": str(PACKAGE), "GIT_DIR": str(other.root / ".git"), "GIT_WORK_TREE": str(other.root),
        "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "alias.x", "GIT_CONFIG_VALUE_0": f"!{trap(tmp_path / 'trap', mark)}",
        "GIT_EXTERNAL_DIFF": str(tmp_path / "trap"), "GIT_OBJECT_DIRECTORY": str(other.root / ".git/objects"),
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", code, str(here.root)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == here.git("rev-parse", "main")
    assert not mark.exists()


def test_without_git_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EvalopsError, match="git is not installed"):
        history.find(tmp_path)
