"""`evalops check` in real git repositories: what it proves, what it names, and how machines read it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from apply_project import PACKAGE
from repository import Repository
from together_service import Behaviour, TogetherService

from evalops import lock
from evalops.errors import Exit
from evalops.lock import Status

BOUND = {"pass_percentage": {"min": 80}}

# Nothing but git is started, and nobody is reached.
ALONE = """
import sys
def refuse(event, arguments):
    if event.startswith("socket.") or (event == "subprocess.Popen" and arguments[1][0] != "git"):
        raise RuntimeError(f"{event} {arguments}")
sys.addaudithook(refuse)
from evalops.cli import main
main()
"""


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    """Two evaluations on main, applied; the branch `topic` is checked out."""
    made = Repository.make(tmp_path / "project")
    made.spec("tone", thresholds=BOUND).spec("other", labels=["polite", "rude", "odd"])
    made.applied(message="base")
    return made.branch("topic")


def alone(repository: Repository, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command without network and environment."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(PACKAGE)}
    command = [sys.executable, "-c", ALONE, "--project", str(repository.folder.root), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def found(repository: Repository, *arguments: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(repository.run("check", *arguments, "--format", "json").out)
    return value


def codes(repository: Repository, *arguments: str) -> list[str]:
    return [each["code"] for each in found(repository, *arguments)["diagnostics"] if each["severity"] == "error"]


def forge(repository: Repository, address: str, path: str | None = None, **changes: Any) -> None:
    """Edits an entry as one who knows how the digest is made."""
    path = path or f"{address}.lock"
    locks = lock.parse(repository.read(path), path)
    entry = locks.entries[address]
    repository.write({path: lock.dump(locks.put(replace(entry, **changes)))})


# --- in step ---


def test_it_fails_before_the_apply_and_passes_after_without_network_and_environment(here: Repository) -> None:
    here.spec("tone", "fair", thresholds=BOUND)
    done = alone(here, "check")
    assert done.returncode == Exit.PROBLEM
    assert "`tone` is not in step with its lock: rerun, changed: dataset.rows, judge.column" in done.stderr
    assert re.search(r"^tone.yaml:\d+:\d+: error\[check/out-of-step\]", done.stderr, re.M)
    assert "2 evaluations: 1 hold, 1 with a problem." in done.stdout
    here.applied()
    done = alone(here, "check")
    assert (done.returncode, done.stdout) == (Exit.OK, "2 evaluations: 2 hold.\n"), done


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        ({"thresholds": {"pass_percentage": {"min": 70}}}, "regrade"),
        ({"name": "renamed", "file": "tone.yaml", "thresholds": BOUND}, "adopt"),
        ({"pass_labels": ["rude"], "thresholds": BOUND}, "regrade"),
    ],
)
def test_what_is_free_to_apply_is_out_of_step_too(here: Repository, edit: dict[str, Any], word: str) -> None:
    here.folder.spec(
        **{"name": "tone", "dataset": {"path": "rows.jsonl", "id": "id"}, "judge": {"column": "good"}, **edit}
    )
    value = found(here)
    assert value["exit"] == Exit.PROBLEM and word in json.dumps(value["diagnostics"])
    assert any(each["hint"] == "evalops apply (free)" for each in value["diagnostics"])


def test_a_spec_that_is_gone_and_one_that_is_new(here: Repository) -> None:
    (here.root / "tone.yaml").unlink()
    here.spec("new", "poor")
    messages = [each["message"] for each in found(here)["diagnostics"]]
    assert messages == [
        "`new` is not in step with its lock: create, new",
        "`tone` is not in step with its lock: forget, no spec has it any more",
    ]


def test_a_job_that_failed_or_runs_is_named(here: Repository) -> None:
    forge(here, "tone", status=Status.FAILED, message="the endpoint is gone")
    forge(here, "other", status=Status.RUNNING)
    messages = {each["code"]: each["message"] for each in found(here)["diagnostics"]}
    assert messages == {
        "check/failed": "`tone` has no result: the endpoint is gone",
        "check/out-of-step": "`other` is not in step with its lock: resume, the job is running",
    }


def test_errors_in_files_are_all_named_and_nothing_else_is_claimed(here: Repository) -> None:
    here.write({"tone.yaml": "version: 1\nname: tone\n", "other.lock": "{}"})
    value = found(here)
    assert not value["is_whole"] and value["evaluations"] == []
    assert {each["path"] for each in value["diagnostics"]} == {"tone.yaml", "other.lock"}
    done = here.run("check")
    assert done.code == Exit.PROBLEM and done.out.startswith("Nothing could be checked:")


def test_state_that_git_tracks_is_refused(here: Repository) -> None:
    here.git("add", "--force", ".evalops")
    assert codes(here) == ["project/tracked-state"]


def test_a_folder_without_git_is_checked_as_well(tmp_path: Path, here: Repository) -> None:
    (here.root / ".git").rename(tmp_path / "away")
    assert here.run("check").code == Exit.OK


# --- gates ---


def test_a_gate_that_fails_is_shown_at_its_line(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND).folder.apply()
    done = here.run("check")
    assert done.code == Exit.GATE_FAILED
    assert "error[gate/failed]: `tone`: `pass_percentage` is 60, and at least 80 is asked for" in done.err
    (each,) = found(here)["diagnostics"]
    assert here.read("tone.yaml").splitlines()[each["line"] - 1].strip() == "pass_percentage:"


def test_a_problem_outweighs_a_gate(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND).folder.apply()
    here.spec("new", "fair")
    assert here.run("check").code == Exit.PROBLEM


def regressing(column: str, **bound: Any) -> dict[str, Any]:
    return {"name": "tone", "column": column, "thresholds": {"no_regression": bound}}


@pytest.mark.parametrize(
    ("column", "bound", "fails"),
    [
        ("poor", {"margin": 2}, True),  # 30 points down
        ("poor", {"margin": 60}, False),  # the interval ends before that
        ("fair", {"margin": 1}, False),  # 5 points down, p = 0.25
        ("fair", {"margin": 1, "strict": True}, True),
        ("fair", {"margin": 30, "strict": True}, False),
        ("same", {"strict": True}, True),  # nothing changed, which so few rows do not prove
    ],
)
def test_no_regression_fails_beyond_the_margin_and_beyond_chance(
    here: Repository, column: str, bound: dict[str, Any], fails: bool
) -> None:
    here.spec(**regressing(column, **bound)).folder.apply()
    value = found(here, "--base", "main")
    assert value["exit"] == (Exit.GATE_FAILED if fails else Exit.OK), value["diagnostics"]
    assert [each["code"] for each in value["diagnostics"]] == ["gate/regressed"] * fails
    assert value["base"]["name"] == "main"
    if fails:
        (each,) = value["diagnostics"]
        assert "is worse than at" in each["message"] and "may have fallen by" in each["message"]
        assert here.read("tone.yaml").splitlines()[each["line"] - 1].strip().startswith("no_regression:")


def test_the_same_verdicts_never_are_a_regression(here: Repository) -> None:
    here.spec(**regressing("good", strict=True)).folder.apply()
    assert here.run("check").code == Exit.OK
    here.folder.spec(
        "renamed",
        file="tone.yaml",
        dataset={"path": "rows.jsonl", "id": "id"},
        judge={"column": "good"},
        thresholds={"no_regression": {"strict": True}},
    )
    here.folder.apply()
    assert here.run("check").code == Exit.OK
    here.spec("brand-new", "poor", thresholds={"no_regression": {"strict": True}}).folder.apply()
    assert here.run("check").code == Exit.OK, "there is nothing that it could have fallen from"


def test_a_change_of_the_gate_alone_needs_no_apply(here: Repository) -> None:
    here.spec("other", thresholds={"no_regression": {}}, labels=["polite", "rude", "odd"])
    assert here.run("check").code == Exit.OK
    here.spec("other", thresholds={"no_regression": {"margin": 2}}, labels=["polite", "rude", "odd"])
    assert json.loads(here.run("plan", "--format", "json").out)["summary"]["in_step"] == 2


def test_no_regression_without_a_base_is_a_problem(here: Repository) -> None:
    here.spec(**regressing("good")).applied()
    done = here.run("check", "--base", "origin/main")
    assert done.code == Exit.PROBLEM and "git knows no revision `origin/main` here" in done.err
    here.git("branch", "-m", "main", "trunk")
    assert codes(here) == ["history/revision"]
    assert codes(here, "--base", "trunk") == []
    here.git("checkout", "--quiet", "trunk")
    here.write({"tone.lock": "{"})
    here.commit("broken")
    here.git("checkout", "--quiet", "topic")
    assert codes(here, "--base", "trunk") == ["check/base"]


def test_a_base_is_asked_for_only_where_a_spec_needs_it(here: Repository) -> None:
    here.git("branch", "-m", "main", "trunk")
    assert here.run("check").code == Exit.OK
    assert here.run("check", "--base", "nowhere").code == Exit.PROBLEM


def test_no_regression_needs_pass_labels_and_knows_its_keys(here: Repository) -> None:
    here.spec("tone", pass_labels=None, thresholds={"no_regression": {}})
    done = here.run("validate")
    assert done.code == Exit.PROBLEM and "`no_regression` needs to know what a pass is" in done.err
    here.spec("tone", thresholds={"no_regression": {"min": 3}})
    assert "no_regression" in here.run("validate").err
    here.spec("tone", thresholds={"no_regression": {"margin": -1}})
    assert here.run("validate").code == Exit.PROBLEM


# --- what lies behind the entries ---


def test_a_hand_edited_entry_is_named(here: Repository) -> None:
    here.write({"tone.lock": here.read("tone.lock").replace('"value": 90.0', '"value": 99.0')})
    done = here.run("check")
    assert done.code == Exit.PROBLEM and "the entry `tone` does not match its digest" in done.err


def test_an_entry_that_was_forged_with_its_digest_does_not_add_up(here: Repository) -> None:
    entry = lock.parse(here.read("tone.lock"), "tone.lock").entries["tone"]
    summary = json.loads(json.dumps(entry.summary))
    summary["metrics"]["pass_percentage"]["value"] = 99.0
    forge(here, "tone", summary=summary)
    assert codes(here) == ["check/verdicts", "check/untrue"], "neither verdicts nor gates"
    summary["metrics"]["pass_percentage"]["value"] = 90.0
    summary["label_counts"] = {"polite": 59, "rude": 1}
    forge(here, "tone", summary=summary)
    assert codes(here) == ["check/verdicts"]


def test_a_gate_that_was_forged_is_not_believed(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND).folder.apply()
    gate = {"metric": "pass_percentage", "min": 80.0, "on": "estimate", "value": 90.0, "verdict": "passed"}
    forge(here, "tone", gates=(gate,))
    assert codes(here) == ["check/untrue"]


def test_verdicts_of_another_job_of_nobody_and_broken_ones_are_named(here: Repository) -> None:
    original = here.read("tone.verdicts.jsonl")
    here.write({"tone.verdicts.jsonl": original.replace('"job":"local-', '"job":"local-x', 1)})
    assert codes(here) == ["check/verdicts"]
    here.write({"tone.verdicts.jsonl": original + original.replace('"address":"tone"', '"address":"stranger"', 1)})
    assert "`stranger`" in here.run("check").err
    here.write({"tone.verdicts.jsonl": original + "[1,2]\n"})
    assert codes(here) == ["verdicts/line"]
    here.write({"tone.verdicts.jsonl": original.replace('"polite"', '"kind"')})
    assert codes(here) == ["verdicts/value"]
    here.write({"tone.verdicts.jsonl": original.replace('"polite"', '"rude"', 1)})
    assert "adds up to another result" in here.run("check").err
    (here.root / "tone.verdicts.jsonl").unlink()
    assert here.run("check").code == Exit.OK, "a file that is too large is not kept"


# --- branches that meet ---


def branches(tmp_path: Path, evaluations: int, count: int) -> None:
    """Half of the branches add a spec, half run one again; merged one after another."""
    made = Repository.make(tmp_path / "project")
    for number in range(evaluations):
        made.spec(f"tone-{number:03}", labels=["polite", "rude", f"label {number}"])
    made.applied(message="base")
    for number in range(count):
        made.branch(f"topic-{number}")
        if number % 2:
            made.spec(f"added-{number}", "fair", labels=["polite", "rude", f"new {number}"])
        else:
            made.spec(f"tone-{number:03}", "poor", labels=["polite", "rude", f"label {number}"])
        made.applied()
    made.git("checkout", "--quiet", "main")
    for number in range(count):
        made.git("merge", "--quiet", "--no-edit", f"topic-{number}")
    assert made.run("check").code == Exit.OK
    done = made.run("diff", "HEAD~1")
    assert done.code == 0, done
    totals = f"{evaluations + count // 2} evaluations: {evaluations + count // 2} hold.\n"
    assert made.run("check").out == totals


def test_branches_that_add_and_run_again_merge_without_a_conflict(tmp_path: Path) -> None:
    branches(tmp_path, 6, 4)


@pytest.mark.slow
def test_twelve_branches_off_a_base_of_150_merge_without_a_conflict(tmp_path: Path) -> None:
    branches(tmp_path, 150, 12)


def test_two_branches_that_ran_the_same_one_again_conflict_and_a_mixed_entry_is_named(here: Repository) -> None:
    for name, column in (("left", "fair"), ("right", "poor")):
        here.branch(name).spec("tone", column, thresholds=BOUND)
        here.applied()
    here.git("merge", "--no-edit", "left", ok=False)
    assert set(here.git("diff", "--name-only", "--diff-filter=U").split()) == {
        "tone.lock",
        "tone.verdicts.jsonl",
        "tone.yaml",
    }
    assert "unresolved merge" in here.run("check").err or here.run("check").code == Exit.PROBLEM
    here.git("checkout", "--theirs", "tone.yaml", "tone.verdicts.jsonl")
    left = json.loads(here.git("show", "left:tone.lock"))
    right = json.loads(here.git("show", "right:tone.lock"))
    left["evaluations"]["tone"]["summary"] = right["evaluations"]["tone"]["summary"]
    here.write({"tone.lock": json.dumps(left, indent=2) + "\n"})
    done = here.run("check")
    assert done.code == Exit.PROBLEM and "the entry `tone` does not match its digest" in done.err
    here.git("checkout", "--theirs", "tone.lock")
    assert here.run("check").code in (Exit.OK, Exit.GATE_FAILED)


# --- for machines ---

HOSTILE = "a,b:c%d ::error::x\u202e\x1b[31m"


@pytest.fixture
def below(tmp_path: Path) -> Repository:
    """A project in a folder of the repository, with a gate that fails and a group of a hostile name."""
    made = Repository.make(tmp_path / "project", "my evals/ä")
    rows = [{"id": str(number), "response": "x", "good": "rude", "group": HOSTILE} for number in range(40)]
    made.folder.rows(rows)
    bound = {"pass_percentage": {"min": 80, "by": {"group": {"min": 80}}}}
    made.spec("tone", group_by=["group"], thresholds=bound)
    made.folder.apply()
    return made


def parsed(line: str) -> tuple[str, dict[str, str], str]:
    """A workflow command, read as the runner does."""
    match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
    assert match, line

    def unescaped(text: str) -> str:
        for code, sign in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
            text = text.replace(code, sign)
        return text

    return (
        match[1],
        {key: unescaped(value) for key, value in (each.split("=", 1) for each in match[2].split(","))},
        unescaped(match[3]),
    )


def test_annotations_stand_at_the_line_and_cannot_be_broken_out_of(below: Repository) -> None:
    done = below.run("check", "--format", "github")
    assert done.code == Exit.GATE_FAILED
    *commands, last = done.out.splitlines()
    assert last == "1 evaluation: 0 hold, 1 with a gate that fails." and len(commands) == 2
    for command in commands:
        word, properties, message = parsed(command)
        assert word == "error" and properties["file"] == "my evals/ä/tone.yaml" and properties["title"] == "gate/failed"
        assert "thresholds" not in message and int(properties["line"]) > 1
    assert r"a,b:c%d ::error::x\u202e\x1b[31m" in parsed(commands[1])[2]


def test_a_message_on_several_lines_stays_one_command(here: Repository) -> None:
    here.spec("tone", "fair", thresholds=BOUND)
    (command,) = here.run("check", "--format", "github").out.splitlines()[:-1]
    assert "%0Aevalops apply" in command


def test_sarif_names_rules_results_and_places(below: Repository) -> None:
    done = below.run("check", "--format", "sarif")
    value = json.loads(done.out)
    assert value["version"] == "2.1.0"
    (run,) = value["runs"]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["gate/failed"]
    assert len(run["results"]) == 2
    for result in run["results"]:
        assert result["ruleId"] == "gate/failed" and result["level"] == "error"
        place = result["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == "my%20evals/%C3%A4/tone.yaml"
        assert place["region"]["startLine"] > 1 and place["region"]["startColumn"] >= 1
        assert "\x1b" not in result["message"]["text"]
    assert json.loads(Repository(below.root, below.below).run("check", "--format", "sarif").out) == value


def test_sarif_without_anything_to_say_is_empty(here: Repository) -> None:
    (run,) = json.loads(here.run("check", "--format", "sarif").out)["runs"]
    assert run["results"] == [] and run["invocations"] == [{"executionSuccessful": True}]


def test_junit_has_a_case_for_each_evaluation_and_no_character_that_xml_lacks(here: Repository) -> None:
    here.spec("tone", "poor", thresholds=BOUND).folder.apply()
    here.spec("other", "fair", labels=["polite", "rude", "odd"]).spec(
        "fine", "same", labels=["polite", "rude", "\ufffe"]
    )
    done = here.run("check", "--format", "junit")
    root = ElementTree.fromstring(done.out)
    assert root.attrib == {"tests": "4", "failures": "1", "errors": "2"}
    cases = {case.get("name"): [each.tag for each in case] for case in root.iter("testcase")}
    assert cases == {"tone": ["failure"], "other": ["error"], "fine": ["error"], "project": []}
    assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", done.out)


def test_junit_survives_every_character(below: Repository) -> None:
    rows = [
        {
            "id": str(number),
            "response": "x",
            "good": "rude",
            "group": "".join(map(chr, range(32))) + "\ufffe\ud800<&\"']]>",
        }
        for number in range(40)
    ]
    below.folder.rows(rows)
    below.folder.apply()
    root = ElementTree.fromstring(below.run("check", "--format", "junit").out)
    assert "\\x00" in "".join(each.text or "" for each in root.iter("failure"))


def test_every_format_has_the_same_exit_code(below: Repository) -> None:
    for form in ("text", "json", "junit", "github", "sarif"):
        assert below.run("check", "--format", form).code == Exit.GATE_FAILED


def test_a_warning_of_the_specs_is_no_reason_to_fail(here: Repository) -> None:
    value = found(here)
    assert all(each["severity"] == "warning" for each in value["diagnostics"]) and value["exit"] == 0


# --- the services ---


@pytest.fixture
def paid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Repository, TogetherService]]:
    """An evaluation that ran at a service, where every row passes; and one of this machine."""
    with TogetherService() as service:
        monkeypatch.setenv("TOGETHER_API_KEY", "sk-of-a-test")
        monkeypatch.setenv("TOGETHER_BASE_URL", service.url)
        made = Repository.make(tmp_path / "project").spec("here", "fair")
        judge = {"model": "Qwen/Qwen3.5-9B", "system_template": "Polite?"}
        made.folder.spec("tone", provider="together", judge=judge)
        made.applied()
        yield made, service


def test_a_service_bears_out_what_the_lockfile_says(paid: tuple[Repository, TogetherService]) -> None:
    here, service = paid
    (here.root / ".evalops").rename(here.root.parent / "elsewhere")
    before = dict(service.asked)
    assert here.run("check").code == Exit.OK and service.asked == before
    done = here.run("check", "--remote")
    assert done.code == Exit.OK, done
    assert service.asked["read"] > before["read"] and service.asked["upload"] == before["upload"]
    assert service.asked["create"] == before["create"]
    once = service.asked["read"]
    here.run("check", "--remote")
    assert service.asked["read"] - once >= 3, "the job, its result and the rows are fetched each time"


def test_a_lock_that_is_made_up_is_found_at_the_service(paid: tuple[Repository, TogetherService]) -> None:
    here, _ = paid
    entry = lock.parse(here.read("tone.lock"), "tone.lock").entries["tone"]
    summary = json.loads(json.dumps(entry.summary))
    summary["label_counts"] = {"polite": 0, "rude": 60}
    summary["metrics"]["pass_percentage"]["value"] = 0.0
    (here.root / "tone.verdicts.jsonl").unlink()
    forge(here, "tone", summary=summary)
    assert here.run("check").code == Exit.OK, "offline, nothing speaks against it"
    done = here.run("check", "--remote")
    assert done.code == Exit.PROBLEM and "does not tell the truth: the rows of its job make another result" in done.err


def test_another_job_and_other_rows_are_found_at_the_service(paid: tuple[Repository, TogetherService]) -> None:
    here, service = paid
    (job,) = service.jobs
    file = job["parameters"]["input_data_file_path"]
    data = service.files[file]
    service.files[file] = b"".join(data.splitlines(keepends=True)[1:])
    assert "the rows of its job do not fit" in here.run("check", "--remote").err
    service.files[file] = data
    job["parameters"]["judge"]["system_template"] = "Always polite."
    assert "was asked for something else" in here.run("check", "--remote").err
    service.behave(Behaviour(failing=True))
    assert "together says of its job: user_error" in here.run("check", "--remote").err
    service.behave(Behaviour(gone=[job["workflow_id"]]))
    assert f"together has no job `{job['workflow_id']}`" in here.run("check", "--remote").err


def test_without_a_key_the_service_is_not_asked(
    paid: tuple[Repository, TogetherService], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, _ = paid
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert here.run("check").code == Exit.OK
    done = here.run("check", "--remote")
    assert done.code == Exit.PROBLEM and "TOGETHER_API_KEY" in done.err
