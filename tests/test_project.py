"""The project folder: nothing outside it is read, nothing is half written, one apply at a time."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import locks
import pytest
from conftest import SETTINGS, SPEC, Cli, Folder

from evalops import catalog
from evalops import project as project_
from evalops.errors import EvalopsError, Exit
from evalops.fingerprint import sha256
from evalops.lock import Lock
from evalops.project import MAX_TEXT, Project, find


def code_of(action: object, *arguments: object) -> str:
    with pytest.raises(EvalopsError) as caught:
        action(*arguments)  # type: ignore[operator]
    (problem,) = caught.value.diagnostics
    return problem.code


# --- which files there are ---


@pytest.mark.parametrize(
    ("glob", "yes", "no"),
    [
        ("**/*.yaml", ["a.yaml", "b/a.yaml", "b/c/a.yaml"], ["a.yml", "a.yaml.txt", "evalops.yaml"]),
        ("*.yaml", ["a.yaml"], ["b/a.yaml"]),
        ("specs/*.yaml", ["specs/a.yaml"], ["specs/b/a.yaml", "a.yaml", "xspecs/a.yaml"]),
        ("specs/**", ["specs/a.yaml", "specs/b/a.yaml"], ["a.yaml"]),
        ("a?.yaml", ["ab.yaml"], ["a.yaml", "abc.yaml", "a/.yaml"]),
        ("a+[b].yaml", ["a+[b].yaml"], ["aab.yaml"]),
    ],
)
def test_globs(glob: str, yes: list[str], no: list[str]) -> None:
    assert project_.matching([*yes, *no], [glob]) == yes


def test_specs_are_regular_files_that_are_not_hidden(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "x.yaml").write_text("")
    for path in ("b.yaml", "a/a.yaml", ".hidden.yaml", ".git/x.yaml", "notes.txt"):
        folder.write({path: ""})
    (folder.root / "link.yaml").symlink_to(tmp_path / "outside" / "x.yaml")
    (folder.root / "links").symlink_to(tmp_path / "outside")
    (folder.root / "folder.yaml").mkdir()
    os.mkfifo(folder.root / "pipe.yaml")
    assert Project(folder.root).specs() == ["a/a.yaml", "b.yaml"]


# --- what may be read ---

OUTSIDE = [
    "../secret.txt",
    "data/../../secret.txt",
    "./../secret.txt",
    "data/..",
    "..",
    "/etc/hostname",
    "//etc/hostname",
    "data\\..\\..\\secret.txt",
    "data/rows.jsonl\0.txt",
    "",
    "link.txt",
    "linked/secret.txt",
    "linked/../data/rows.jsonl",
    "data/inner/link.txt",
    "data",
    "pipe",
    "data/rows.jsonl/x",
]


@pytest.fixture
def trapped(folder: Folder, tmp_path: Path) -> Project:
    """A project with every kind of way out, and a secret beside it."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    folder.write({"data/inner/x.txt": "x"})
    (folder.root / "link.txt").symlink_to(secret)
    (folder.root / "linked").symlink_to(tmp_path)
    (folder.root / "data" / "inner" / "link.txt").symlink_to("../../../secret.txt")
    os.mkfifo(folder.root / "pipe")
    return Project(folder.root)


def test_a_project_inside_is_one_of_its_own(folder: Folder) -> None:
    folder.write(
        {"evals/evalops.yaml": SETTINGS, "evals/deep/inner.yaml": SPEC, "evals.yaml": SPEC, "outer.lock": "{}"}
    )
    folder.write({"evals/inner.lock": "{}"})
    assert (Project(folder.root).specs(), Project(folder.root).lockfiles()) == (["evals.yaml"], ["outer.lock"])
    assert Project(folder.root / "evals").specs() == ["deep/inner.yaml"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_nothing_but_regular_files_inside_is_read(trapped: Project, path: str) -> None:
    assert code_of(trapped.read, path) == "file/outside"


@pytest.mark.parametrize(
    "path",
    [
        "%2e%2e/secret.txt",
        "..%2fsecret.txt",
        "．．/secret.txt",
        "data/.../x",
        "~/secret.txt",
        "DATA/rows.jsonl",
        " ../x",
    ],
)
def test_a_strange_path_is_just_a_file_that_is_not_there(trapped: Project, path: str) -> None:
    assert code_of(trapped.read, path) in ("file/missing", "file/outside")


@pytest.mark.parametrize("path", ["data/rows.jsonl", "./data/rows.jsonl", "data//rows.jsonl", "data/./rows.jsonl"])
def test_a_file_inside_is_read(trapped: Project, path: str) -> None:
    assert trapped.read(path).startswith(b'{"question"')


def test_a_special_file_does_not_hang_and_a_device_is_none(folder: Folder) -> None:
    (folder.root / "zero.jsonl").symlink_to("/dev/zero")
    assert code_of(Project(folder.root).read, "zero.jsonl") == "file/outside"


def test_what_is_too_large_or_no_text(folder: Folder) -> None:
    project = folder.write(
        {"big.md": b"x" * (MAX_TEXT + 1), "full.md": b"x" * MAX_TEXT, "latin.md": b"\xf6", "dos.md": b"a\r\nb"}
    )
    assert code_of(project.read, "big.md") == "file/too-large"
    assert len(project.read("full.md")) == MAX_TEXT
    assert code_of(project.read_text, "latin.md") == "file/encoding"
    assert project.read_text("dos.md") == "a\nb"


def test_a_sparse_file_of_ten_gigabytes_is_refused_at_once(folder: Folder) -> None:
    with (folder.root / "huge.yaml").open("wb") as stream:
        stream.truncate(10 << 30)
    assert code_of(Project(folder.root).read, "huge.yaml") == "file/too-large"


@pytest.mark.parametrize(
    "files",
    [
        {"evil.yaml": "[" * 400_000},
        {"evil.yaml": "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True))},
        {"evil.yaml": "{" * 400_000},
        {"evil.yaml": "a:\n" * 200_000},
        {"evil.yaml": "x: " + "9" * 900_000},
        {"evil.yaml": SPEC, "data/rows.jsonl": "[" * 400_000},
        {"evil.yaml": SPEC + "matrix:\n" + "".join(f"  judge.k{n}: {list(range(200))}\n" for n in range(400))},
    ],
    ids=["brackets", "aliases", "braces", "keys", "digits", "rows", "matrix"],
)  # fmt: skip
def test_a_bomb_is_a_diagnostic(folder: Folder, cli: Cli, files: dict[str, str]) -> None:
    folder.write(files)
    before = os.times()
    done = cli("validate")
    used = os.times()
    assert done.code == Exit.PROBLEM
    assert re.search(r"error\[[a-z]+/[a-z-]+\]: ", done.err)
    assert len(done.err) < 25_000
    assert used.user + used.system - before.user - before.system < 1


@pytest.mark.parametrize(
    "name", ["a\n::error::x.yaml", "a\x1b[31m.yaml", "a\u202e.yaml", os.fsdecode(b"\xff.yaml"), "a b'\".yaml"]
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_a_name_cannot_reach_the_terminal(folder: Folder, cli: Cli, name: str, form: str) -> None:
    folder.write({name: 'version: 1\nname: "a\\n::set-output"\n"b\\n::error::x": 1\ntype: "\\e[31m"\n'})
    done = cli("validate", "--format", form)
    assert done.code == Exit.PROBLEM
    shown = done.out + done.err
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", shown.replace("\u202e", "") if form == "json" else shown
    )
    assert not [line for line in shown.splitlines() if line.startswith(("::", "##"))]


# --- writing ---


@contextlib.contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """A disk that is full, as far as this process can tell."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_lock_that_cannot_be_written_leaves_the_old_one_whole(folder: Folder) -> None:
    project = folder.write({"tone.yaml": SPEC})
    (lock,) = locks.of(project).values()
    project.write_lock(lock)
    before, names = folder.read("tone.lock"), sorted(folder.root.iterdir())
    with no_file_larger_than(100), pytest.raises(EvalopsError) as caught:
        project.write_lock(lock.put(locks.entry(project, catalog.read(project).wanted[0], address="other")))
    (problem,) = caught.value.diagnostics
    assert problem.code == "file/write"
    assert problem.message.startswith("`tone.lock` could not be written: ")
    assert "nothing is lost" in (problem.hint or "")
    assert folder.read("tone.lock") == before
    assert sorted(folder.root.iterdir()) == names


def test_a_lock_in_a_folder_that_is_gone_is_a_problem(project: Project) -> None:
    (lock,) = locks.of(project).values()
    moved = Lock(path="gone/tone.lock", entries=lock.entries)
    assert code_of(project.write_lock, moved) == "file/write"


def test_a_lock_without_entries_is_no_file(project: Project) -> None:
    (lock,) = locks.of(project).values()
    project.write_lock(lock)
    assert project.lockfiles() == ["tone.lock"]
    project.write_lock(lock.drop(lock.entries))
    project.write_lock(lock.drop(lock.entries))
    assert project.lockfiles() == []


def test_a_write_replaces_a_link_and_follows_none(project: Project, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("untouched")
    (project.root / "tone.lock").symlink_to(target)
    project.write("tone.lock", b"{}")
    assert target.read_text() == "untouched"
    assert not (project.root / "tone.lock").is_symlink()
    assert (project.root / "tone.lock").stat().st_mode & 0o777 == 0o644


def test_all_broken_locks_are_named_and_the_good_ones_read(folder: Folder) -> None:
    project = folder.write({"tone.yaml": SPEC, "a.lock": "{", "b/b.lock": '{"version": 9}'})
    for lock in locks.of(folder.write({"a.lock": "{}"})).values():
        project.write_lock(lock)
    folder.write({"a.lock": "{"})
    found, problems = project.locks()
    assert list(found) == ["tone.lock"]
    assert [(each.mark.path if each.mark else None, each.code) for each in problems] == [
        ("a.lock", "lock/syntax"), ("b/b.lock", "lock/newer-version"),
    ]  # fmt: skip


def test_kept_texts(project: Project) -> None:
    project.keep_text("a\n\ud800")
    project.keep_text("a\n\ud800")
    assert project.kept_text(sha256("a\n\ud800".encode("utf-8", "surrogatepass"))) is not None
    project.keep_text("Prompt ä")
    assert project.kept_text(sha256("Prompt ä".encode())) == "Prompt ä"
    for other in ("0" * 64, "../../evalops.yaml", "", "0" * 63 + "\n"):
        assert project.kept_text(other) is None


# --- one apply at a time ---

HOLD = "import sys; from pathlib import Path; from evalops.project import Project\nwith Project(Path(sys.argv[1])).apply_lock():\n    print('held', flush=True); sys.stdin.read()"


def test_the_apply_lock_has_one_holder_and_dies_with_it(project: Project) -> None:
    here = {**os.environ, "PYTHONPATH": str(Path(project_.__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(project.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=here,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(EvalopsError) as caught, project.apply_lock():
            pass
        assert caught.value.exit_code == Exit.LOCKED_OR_STALE
        assert f"process {holder.pid} " in caught.value.diagnostics[0].message
        holder.kill()
    with project.apply_lock():
        assert json.loads((project.root / ".evalops" / "apply.lock").read_text())["pid"] == os.getpid()
    with project.apply_lock():
        pass


def git(root: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_an_apply_hides_its_state_from_git(folder: Folder, project: Project) -> None:
    git(folder.root, "init", "-q")
    with project.apply_lock():
        folder.write({".evalops/store.sqlite": "ours"})
    git(folder.root, "add", "-A")
    with project.apply_lock():  # which tracked state would refuse
        pass


def test_state_that_came_with_the_repository_is_refused(folder: Folder, project: Project, home: Path) -> None:
    git(folder.root, "init", "-q")
    folder.write({".evalops/store.sqlite": "planted"})
    with project.apply_lock():
        pass
    git(folder.root, "add", "--force", "-A")
    with pytest.raises(EvalopsError, match="git tracks files below"), project.apply_lock():
        pass


def test_git_runs_nothing_of_the_repository(folder: Folder, home: Path, tmp_path: Path) -> None:
    git(folder.root, "init", "-q")
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    for key in ("core.fsmonitor", "diff.external", "core.pager"):
        git(folder.root, "config", key, str(trap))
    hooks = folder.root / ".git" / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "post-index-change").symlink_to(trap)
    assert "data/" in project_.git(folder.root, "status", "--porcelain")
    assert project_.git(folder.root, "ls-files") == ""
    project_.git(folder.root, "diff")
    assert not (tmp_path / "sprung").exists()
    assert project_.git(folder.root, "no-such-command") == ""
    assert project_.git(folder.root / "none", "status") == ""


@pytest.mark.parametrize("name", ["evil", "a=b", "a.b"])
def test_what_changed_since_a_revision_is_told_without_running_anything(
    folder: Folder, home: Path, tmp_path: Path, name: str
) -> None:
    """git sends files that it compares through filters, and asks submodules, each with a configuration of its own."""
    mark, inner = tmp_path / "ran", folder.root / "inner"
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho $0 >> {mark}\ncat\n")
    trap.chmod(0o755)
    commit = ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-m", "x")
    for root in (inner, folder.root):
        root.mkdir(exist_ok=True)
        git(root, "init", "-q")
        (root / "tracked.txt").write_text("one\n")
        git(root, "add", "-A")
        git(root, *commit)
    for root in (inner, folder.root):
        for attributes in (root / ".gitattributes", root / ".git/info/attributes"):
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(f"*.txt filter={name} diff={name}\n* filter={name}\n")
        for key in (
            f"filter.{name}.clean", f"filter.{name}.process", f"filter.{name}.smudge", "core.fsmonitor", "diff.external",
            f"diff.{name}.textconv", f"diff.{name}.command", "core.pager",
        ):  # fmt: skip
            git(root, "config", key, str(trap))
        git(root, "config", f"filter.{name}.required", "true")
        hooks = root / ".git/hooks"
        hooks.mkdir(exist_ok=True)
        (hooks / "post-index-change").symlink_to(trap)
        (root / "tracked.txt").write_text("two\n")
    mark.unlink(missing_ok=True)
    found = Project(folder.root).changed_since("HEAD")
    assert not mark.exists(), mark.read_text()
    assert {"tracked.txt", ".gitattributes"} <= found and "data/rows.jsonl" not in found
    subprocess.run(["git", "diff", "HEAD"], cwd=folder.root, capture_output=True)
    assert mark.exists(), "the traps are no traps"


def test_what_git_cannot_tell_is_a_problem(folder: Folder, home: Path) -> None:
    git(folder.root, "init", "-q")
    git(folder.root, "add", "-A")
    git(folder.root, "-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "--quiet", "-m", "x")
    (folder.root / ".git/index").write_bytes(b"broken")
    assert code_of(Project(folder.root).changed_since, "HEAD") == "project/revision"


# --- finding it ---


def test_a_project_is_found_from_below(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder.root / "a" / "b").mkdir(parents=True)
    assert find(folder.root / "a" / "b").root == folder.root
    monkeypatch.chdir(folder.root / "a")
    assert find().root == folder.root
    assert code_of(lambda: find(folder.root / "a", explicit=True)) == "project/not-found"
    assert code_of(find, Path("/")) == "project/not-found"


@pytest.mark.parametrize(
    ("here", "typed", "path"),
    [
        (".", "a/b.yaml", "a/b.yaml"),
        ("a", "b.yaml", "a/b.yaml"),
        ("a", "a/b.yaml", "a/b.yaml"),
        ("a", "../b.yaml", "b.yaml"),
    ],
)
def test_a_path_typed_in_a_shell(
    folder: Folder, monkeypatch: pytest.MonkeyPatch, here: str, typed: str, path: str
) -> None:
    folder.write({"a/b.yaml": ""})
    monkeypatch.chdir(folder.root / here)
    assert Project(folder.root).relative(typed) == path


def test_settings_that_are_wrong_stop_everything(folder: Folder, cli: Cli) -> None:
    for text, code in (("version: 2\n", "schema/value"), ("", "yaml/empty"), ("version: 1\n---\nversion: 1\n", None)):
        project = folder.write({"evalops.yaml": text, "tone.yaml": SPEC})
        if code:
            assert code_of(lambda project=project: project.settings) == code
            for verb in ("validate", "plan", "apply"):
                done = cli(verb)
                assert (done.code, f"error[{code}]" in done.err, done.out) == (Exit.PROBLEM, True, "")
