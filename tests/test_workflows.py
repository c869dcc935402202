"""evalops init --ci: workflows whose steps run as they are written, with no more rights than they need."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import Repository

import evalops
from evalops import cli
from evalops.cli.workflows import PATHS
from evalops.errors import Exit

PACKAGE = Path(evalops.__file__).parent
ACTION = PACKAGE.parent / "action.yml"
WORKFLOWS = [name for name, path in PATHS.items() if path.startswith(".github/")]
# Stands for `gh`: notes what it is asked, and answers for one pull request and the comments that ANSWER has.
GH = """\
#!/bin/bash
printf '%s\\n' "$*" >> "$LOG"
case "$*" in
  *"/pulls "*) printf '%s' "$FOUND" ;;
  "run download"*) mkdir -p "${@: -1}" && printf '%s' "$COMMENT" > "${@: -1}/comment.json" ;;
  *--paginate*) printf '%s' "$KNOWN" ;;
esac
"""


# What the event says.
EVENT = {
    "${{ github.event.pull_request.base.sha }}": "main",
    "origin/${{ github.event.repository.default_branch }}": "origin/main",
}


@pytest.fixture
def repository(tmp_path: Path, home: Path) -> Repository:
    """A project in a folder of a repository, with the files of `init --ci`, all committed on main."""
    made = Repository.make(tmp_path / "r", "llm evals").spec()
    done = made.run("init", "--ci", str(made.folder.root))
    assert done.code == Exit.OK, done.err
    made.commit()
    made.branch("change").spec("tone", "fair").commit()
    made.git("update-ref", "refs/remotes/origin/main", "main")
    return made


@dataclass
class Runner:
    """Runs the steps of a workflow as the service does: `bash -e` in the checkout, and no network but a fake `gh`."""

    repository: Repository
    temp: Path
    values: dict[str, str] = field(default_factory=dict)  # of expressions

    def __post_init__(self) -> None:
        for name, text in {
            "pip": '#!/bin/bash\nprintf "pip %s\\n" "$*" >> "$LOG"\n',
            "gh": GH,
            "evalops": f"#!/bin/bash\nexec '{sys.executable}' -c 'from evalops.cli import main; main()' \"$@\"\n",
        }.items():
            path = self.temp / "bin" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            path.chmod(0o755)
        self.environment = {
            "PATH": f"{self.temp / 'bin'}:{os.environ['PATH']}",
            "HOME": str(self.temp),
            "PYTHONPATH": str(PACKAGE.parent),
            "RUNNER_TEMP": str(self.temp),
            "GITHUB_BASE_REF": "main",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REF": "refs/heads/change",
            "LOG": str(self.temp / "log"),
            **{f"GITHUB_{name}": str(self.temp / name) for name in ("STEP_SUMMARY", "OUTPUT")},
        }

    def read(self, name: str) -> str:
        path = self.temp / name
        return path.read_text() if path.exists() else ""

    def run(self, workflow: str, only: str = "", **more: str) -> dict[str, int]:
        """The exit codes of all steps with a shell, by name; each runs, whatever became of those before it."""
        value = load(ACTION if workflow == ACTION.name else self.repository.root / PATHS[workflow])
        (job,) = value["jobs"].values() if "jobs" in value else [value["runs"]]
        found = {}
        for step in job["steps"]:
            if "run" in step and only in step["name"]:
                env = {**value.get("env", {}), **job.get("env", {}), **step.get("env", {})}
                told = dict(line.split("=", 1) for line in self.read("OUTPUT").splitlines())
                known = {name: self.values.get(text, EVENT.get(text, text)) for name, text in env.items()}
                for name, text in env.items():
                    if output := re.fullmatch(r"\$\{\{ steps\.\w+\.outputs\.(\w+) \}\}", text):
                        known[name] = told.get(output[1], known[name])
                done = subprocess.run(
                    ["/bin/bash", "-e", "-c", step["run"]], cwd=self.repository.root, capture_output=True, text=True,
                    env={**self.environment, **known, **more},
                )  # fmt: skip
                found[step["name"]] = done.returncode
                self.said = done.stdout + done.stderr
        return found


@pytest.fixture
def runner(repository: Repository, tmp_path: Path) -> Runner:
    return Runner(repository, tmp_path / "runner")


def load(path: Path) -> Any:
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # in which `on` is a word


@pytest.mark.slow
def test_the_review_of_a_pull_request(runner: Runner) -> None:
    codes = runner.run("evalops.yaml")
    assert codes == {
        "Install": 0,
        "Validate": 0,
        "Plan": 0,
        "Comment": 0,
        "Report": 0,
        "Check": 1,
    }  # nothing applied yet
    assert runner.read("log") == f"pip install evalops-cli=={evalops.__version__}\n"
    assert "tone" in runner.read("STEP_SUMMARY") and "::error" in runner.said
    assert json.loads(runner.read("comment.json"))["plan"]["summary"]["paid"]["changes"] > 0
    assert runner.read("evalops-report.html").startswith("<!doctype html>\n")


def test_the_comment_is_posted_once_and_then_updated(runner: Runner) -> None:
    left = runner.repository.run("report", "--format", "comment-json", "main").out
    left = left.replace("tone", "$(touch hurt) @all")
    codes = runner.run("evalops-comment.yaml", FOUND="7\n8\n", COMMENT=left, GH_REPO="us/them", HEAD="x:$(id)", RUN="5")
    assert set(codes.values()) == {0}, runner.said
    asked = runner.read("log").splitlines()
    assert asked[0].startswith("api --method GET repos/us/them/pulls -f state=open -f head=x:$(id) ")
    assert asked[-1] == f"api --silent --method POST repos/us/them/issues/7/comments -F body=@{runner.temp}/comment.md"
    posted = runner.read("comment.md")
    assert posted.startswith("<!-- evalops -->\n") and "`$(touch hurt) @all`" in posted
    runner.run("evalops-comment.yaml", FOUND="7\n", KNOWN="12\n13\n", COMMENT=left, GH_REPO="us/them")
    assert "--method PATCH repos/us/them/issues/comments/12 " in runner.read("log").splitlines()[-1]
    assert not (runner.repository.root / "hurt").exists()


@pytest.mark.parametrize("left", ["", "<!-- evalops -->\n[click](http://evil.example)", '{"plan": "@all"}'])
def test_what_evalops_would_not_have_left_is_not_posted(runner: Runner, left: str) -> None:
    codes = runner.run("evalops-comment.yaml", FOUND="7\n", COMMENT=left)
    assert codes["Post it"] == 1 and "POST" not in runner.read("log")


def test_apply_commits_lockfiles_and_nothing_else_and_pushes_over_what_came_meanwhile(
    runner: Runner, tmp_path: Path
) -> None:
    repository = runner.repository
    repository.git("init", "--quiet", "--bare", str(tmp_path / "origin"))
    repository.git("remote", "add", "origin", str(tmp_path / "origin"))
    repository.write({"README.md": "from another"})
    theirs = repository.commit("theirs")
    repository.git("push", "--quiet", "origin", "HEAD:change")
    repository.git("reset", "--quiet", "--hard", "HEAD~")
    repository.spec("tone", "poor", thresholds={"pass_percentage": {"min": 99}}).commit()
    repository.write({"notes.txt": "mine"})
    expression = "${{ steps.apply.outputs.code }}"
    runner.values = {expression: "3", "${{ inputs.digest }}": "", "${{ steps.app.outputs.token }}": "secret"}
    codes = runner.run("evalops-apply.yaml")
    assert runner.read("OUTPUT") == "code=3\n"  # a gate fails, and the result is kept all the same
    assert {name: code for name, code in codes.items() if code} == {"Result": 3}
    assert repository.git("rev-parse", "HEAD") == repository.git(
        "--git-dir", str(tmp_path / "origin"), "rev-parse", "change"
    )
    assert repository.git("show", "--name-only", "--format=%s %an", "HEAD").split("\n") == [
        "evalops apply evalops", "", "llm evals/tone.lock", "llm evals/tone.verdicts.jsonl",
    ]  # fmt: skip
    assert theirs in repository.git("rev-list", "HEAD")
    assert not re.search("secret", (repository.root / ".git/config").read_text())
    assert runner.run("evalops-apply.yaml", "Commit") == {"Commit": 0}  # nothing to commit


@pytest.mark.slow
def test_a_pull_request_cannot_raise_its_own_budget(runner: Runner) -> None:
    made = runner.repository
    made.git("checkout", "--quiet", "main")
    made.folder.settings(policy={"none": {"schema": False, "message": "nothing runs here"}})
    made.commit()
    made.git("checkout", "--quiet", "-b", "sly")
    made.folder.settings()
    made.spec("tone", "fair").commit()
    codes = runner.run("evalops.yaml")
    assert (codes["Validate"], codes["Plan"], codes["Check"]) == (0, 0, 1)
    for name in ("STEP_SUMMARY", "comment.json"):
        assert "denied" in runner.read(name) and "nothing runs here" in runner.read(name)
    assert "not used here: policy" in runner.read("STEP_SUMMARY") and "check/denied" in runner.said
    made.git("update-ref", "refs/remotes/origin/main", "main")
    runner.values["${{ inputs.digest }}"] = ""
    assert runner.run("evalops-apply.yaml", "Apply") == {"Apply": 0}
    assert runner.read("OUTPUT") == "code=1\n" and not (made.folder.root / "tone.lock").exists()


@pytest.mark.parametrize(("digest", "rest"), [("", ""), ("$(id) x", " --approved $(id) x")])
def test_apply_asks_for_the_plan_that_was_approved(runner: Runner, digest: str, rest: str) -> None:
    (runner.temp / "bin/evalops").write_text('#!/bin/bash\nprintf "%s" "$*" > "$LOG"\nexit 5\n')
    runner.values["${{ inputs.digest }}"] = digest
    assert runner.run("evalops-apply.yaml", "Apply") == {"Apply": 0}
    assert runner.read("log") == f"--project llm evals apply --yes --trusted-ref origin/main{rest}"
    assert runner.read("OUTPUT") == "code=5\n"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_rights_pins_and_expressions(name: str) -> None:
    text = (PACKAGE / "workflows" / name).read_text()
    value = load(PACKAGE / "workflows" / name)
    (job,) = value["jobs"].values()
    for line in re.findall(r"uses: .*", text):
        assert re.fullmatch(r"uses: actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    for step in job["steps"]:
        assert "${{" not in step.get("run", "")  # an expression is text to the shell: values come by the environment
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] == "false"
    assert "pull_request_target" not in text
    rights = {**value["permissions"], **job.get("permissions", {})}
    expected: Mapping[str, dict[str, str]] = {
        "evalops.yaml": {"contents": "read"},
        "evalops-comment.yaml": {"actions": "read", "pull-requests": "write"},
        "evalops-apply.yaml": {"contents": "read"},
    }
    assert rights == expected[name]
    assert ("secrets." in text) == (name == "evalops-apply.yaml")
    assert ("environment" in job) == (name == "evalops-apply.yaml")
    assert ("actions/checkout" in text) == (name != "evalops-comment.yaml")
    assert int(job["timeout-minutes"]) > 0 and job["runs-on"].startswith("ubuntu-")


@pytest.mark.slow
def test_an_auditor_of_workflows_finds_nothing(repository: Repository) -> None:
    shutil.copy(ACTION, repository.root / "action.yml")
    zizmor = Path(sys.executable).with_name("zizmor")
    command = [zizmor, "--offline", "--no-progress", "--format=json", "."]
    done = subprocess.run(command, cwd=repository.root, capture_output=True, text=True)
    assert [f"{each['ident']}: {each['desc']}" for each in json.loads(done.stdout)] == [], done.stderr
    assert "evalops-comment.yaml" in done.stderr and "action.yml" in done.stderr


def test_the_action(runner: Runner) -> None:
    (runner.temp / "bin/evalops").write_text('#!/bin/bash\nprintf "%s\\n" "$*" >> "$LOG"\necho shown\n')
    runner.values = {"${{ inputs.project }}": "$(id) evals", "${{ inputs.base }}": ""}
    assert set(runner.run("action.yml", GITHUB_ACTION_PATH="/the action").values()) == {0}
    runner.run("action.yml", "Check", BASE="v1")
    assert runner.read("log").splitlines() == [
        "pip install /the action",
        "--project $(id) evals report --format comment --trusted-ref main origin/main...",
        "--project $(id) evals check --trusted-ref main --base origin/main... --format github",
        "--project $(id) evals check --trusted-ref main --base v1 --format github",
    ]
    assert runner.read("OUTPUT") == f"path={runner.temp}/comment.md\n"
    assert runner.read("comment.md") == runner.read("STEP_SUMMARY") == "shown\n"
    text = ACTION.read_text()
    assert all("${{" not in step.get("run", "") for step in load(ACTION)["runs"]["steps"])
    used = re.findall(r"^ .*uses: (.*)", text, re.M)
    assert used and all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v[\d.]+", each) for each in used)


def test_the_hook_runs(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository.root)  # where pre-commit runs it
    (repo,) = load(repository.root / ".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        evalops_, *arguments = shlex.split(hook["entry"])
        assert (evalops_, cli.run(arguments)) == ("evalops", Exit.OK)


def test_what_is_there_stays_as_it_is(repository: Repository) -> None:
    mine = repository.root / ".pre-commit-config.yaml"
    mine.write_text("repos: []\n")
    (repository.root / ".github/workflows/evalops.yaml").unlink()
    done = repository.run("init", "--ci")
    assert done.code == Exit.OK
    assert "  .github/workflows/evalops.yaml\n" in done.out and "evalops-apply" not in done.out
    assert "  .pre-commit-config.yaml\n" in done.err and mine.read_text() == "repos: []\n"
    assert "llm evals/.gitattributes" in repository.git("ls-files", "*.gitattributes")
    again = repository.run("init", "--ci")
    assert again.out == "" and "Left as they are" in again.err


def test_where_there_is_no_repository_or_an_odd_path(tmp_path: Path, home: Path) -> None:
    made = Repository.make(tmp_path / "r", "$(id)")
    assert "cannot stand in a workflow" in made.run("init", "--ci").err
    (made.root / ".git").rename(tmp_path / "gone")
    done = made.run("init", "--ci")
    assert done.code == Exit.PROBLEM and "in no git repository" in done.err
