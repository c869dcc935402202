"""Type custom from end to end: the command line, a project with code of its own, and a model that writes responses."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import Done
from conftest import Cli, Folder
from model_server import Server, serve

import evalops

CANARY = "sk-Canary-0815-4711"
ROWS = [
    {"question": "2 + 3?", "response": "So it is 5.", "gold": "5", "unit": "m"},
    {"question": "2 * 3?", "response": "So it is 5.", "gold": "6", "unit": "m"},
    {"question": "2 - 3?", "response": "", "gold": "-1", "unit": "s"},
    {"question": "6 / 3?", "response": "No idea", "gold": "2", "unit": "s"},
]
SPEC = """\
version: 1
name: {name}
type: custom
dataset: data/rows.jsonl
model_to_evaluate: response
gold: gold
evaluator: {evaluator}
"""
# A module that leaves a trace wherever it is imported.
TRAP = """\
import pathlib
with pathlib.Path(__file__).with_name("imported.txt").open("a") as trace:
    trace.write("x")
"""
GRADE = (
    TRAP + "def grade(response, gold, row):\n    return {'value': gold in response, 'reason': f'in {row[\"unit\"]}'}\n"
)
USE_GRADE = "{kind: python, function: grade}"


def spec(evaluator: str, name: str = "sums", **more: str) -> str:
    return SPEC.format(name=name, evaluator=evaluator) + "".join(f"{key}: {value}\n" for key, value in more.items())


def settings(function: str = "graders:grade", **more: Any) -> str:
    return json.dumps({"version": 1, "functions": {"grade": function}, **more})


@pytest.fixture
def sums(folder: Folder) -> Folder:
    """A project with four sums and a grader of its own, without a spec."""
    folder.write({"evalops.yaml": settings(), "data/rows.jsonl": ROWS, "graders.py": GRADE})
    return folder


def applied(cli: Cli) -> Done:
    done = cli("apply", "--yes")
    assert done.code == 0, done
    return done


def verdicts(cli: Cli, address: str = "sums") -> list[tuple[Any, ...]]:
    """Status, value and reason of every row."""
    lines = [json.loads(line)["verdict"] for line in cli("rows", address).out.splitlines()]
    return [(each["status"], each["value"], each.get("problem") or each["reason"]) for each in lines]


def summary(cli: Cli, address: str = "sums") -> dict[str, Any]:
    found: dict[str, Any] = cli("show", address, "--format", "json").json["summary"]
    return found


def actions(cli: Cli) -> dict[str, str]:
    done = cli("plan", "--format", "json")
    assert done.code == 0, done
    return {change["address"]: change["action"] for change in done.json["changes"]}


# --- responses from a column ---


def test_a_column_is_evaluated_without_a_call(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec("numeric", thresholds="{mean_score: {min: 0.4}}")})
    assert "4 rows, 0 calls" in cli("plan").out
    applied(cli)
    assert verdicts(cli) == [
        ("scored", 1.0, "got 5"),
        ("scored", 0.0, "got 5, wanted 6"),
        ("invalid", None, "empty_response"),
        ("invalid", None, "no_answer"),
    ]
    found = summary(cli)
    assert (found["rows"], found["scored"], found["invalid"], found["errors"]) == (4, 2, 2, 0)
    assert found["metrics"]["mean_score"]["value"] == 0.5
    assert found["metrics"]["pass_percentage"]["value"] == 50.0
    assert actions(cli) == {"sums": "noop"}
    assert not (sums.root / "imported.txt").exists()


def test_a_gate_on_the_result(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec("numeric", thresholds="{mean_score: {min: 0.6}}")})
    assert cli("apply", "--yes").code == 3


def test_what_the_verdict_is_made_of_is_a_rerun_and_nothing_else_is(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec("exact")})
    applied(cli)
    for evaluator in ("numeric", "{kind: exact, strip: false}", "{kind: exact, extract: last_line}"):
        sums.write({"sums.yaml": spec(evaluator)})
        assert actions(cli) == {"sums": "rerun"}, evaluator
    sums.write({"sums.yaml": spec("{kind: exact, strip: true}", tags="[nightly]")})
    assert actions(cli) == {"sums": "noop"}
    sums.write({"sums.yaml": spec("exact", group_by="[unit]")})
    assert actions(cli) == {"sums": "regrade"}
    sums.write({"sums.yaml": spec("exact"), "data/rows.jsonl": [{**row, "unit": "km"} for row in ROWS]})
    assert actions(cli) == {"sums": "noop"}, "a column that no evaluator reads"
    sums.write({"data/rows.jsonl": [{**row, "gold": "7"} for row in ROWS]})
    assert actions(cli) == {"sums": "rerun"}, "the true answer makes the verdict"


def test_a_hostile_pattern_stops_the_job_and_not_the_machine(sums: Folder, cli: Cli) -> None:
    hostile = [{"response": "a" * 3_000 + f"!{number}", "gold": "a"} for number in range(40)]
    sums.write({"sums.yaml": spec('{kind: regex, pattern: "(a+)+$"}'), "data/rows.jsonl": hostile})
    assert cli("validate").code == cli("plan").code == 0
    done = cli("apply", "--yes")
    assert done.code == 1 and "pattern came to no end" in done.err
    assert verdicts(cli)[0] == ("error", None, "pattern_timeout")


def test_a_schema_is_held_against_responses_without_a_connection(sums: Folder, cli: Cli) -> None:
    rows = [
        {"response": '{"unit": "m"}'},
        {"response": '```json\n{"unit": 3}\n```'},
        {"response": {"unit": "s"}},
        {"response": "m"},
    ]
    evaluator = "{kind: json_schema, schema: {required: [unit], properties: {unit: {type: string}}}}"
    sums.write({"sums.yaml": spec(evaluator).replace("gold: gold\n", ""), "data/rows.jsonl": rows})
    applied(cli)
    assert [value for _, value, _ in verdicts(cli)] == [1.0, 0.0, 1.0, 0.0]
    assert verdicts(cli)[1][2] == "unit: 3 is not of type 'string'"


def test_a_library_that_is_missing_is_named_before_a_job_exists(sums: Folder, tmp_path: Path) -> None:
    """In a process of its own, where the library cannot be found."""
    sums.write({"sums.yaml": spec("bleu")})
    hide = "import sys; sys.modules['sacrebleu'] = None\nimport importlib.util as u; find = u.find_spec\n"
    hide += "u.find_spec = lambda name, *more: None if name == 'sacrebleu' else find(name, *more)\n"
    code = (
        hide + f"from evalops import cli; raise SystemExit(cli.run(['--project', {str(sums.root)!r}, *sys.argv[1:]]))"
    )
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path(evalops.__file__).parents[1])}
    done = [
        subprocess.run([*command, *each], capture_output=True, text=True, env=environment)
        for each in (["plan"], ["apply", "--yes"])
    ]
    assert [each.returncode for each in done] == [0, 1]
    assert "error[evaluator/not-installed]" in done[1].stderr and "evalops-cli[text]" in done[1].stderr
    assert "sums.yaml:7" in done[1].stderr


def test_together_has_no_such_type(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec("exact", provider="together")})
    done = cli("plan")
    assert done.code == 1
    assert "sums.yaml:3:1: error[together/type]" in done.err and "hint: use `provider: local`" in done.err


# --- a Python function ---


def test_only_apply_imports_the_projects_code(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec(USE_GRADE)})
    trace = sums.root / "imported.txt"
    for command in (
        ["validate"],
        ["plan"],
        ["plan", "-v"],
        ["plan", "--format", "json"],
        ["status"],
        ["plan", "--refresh"],
        ["schema", "spec"],
    ):
        assert cli(*command).code == 0, command
        assert not trace.exists(), command
    applied(cli)
    assert trace.read_text() == "x", "once"
    assert verdicts(cli) == [
        ("scored", 1.0, "in m"),
        ("scored", 0.0, "in m"),
        ("invalid", None, "empty_response"),
        ("scored", 0.0, "in s"),
    ]
    assert str(sums.root) not in sys.path
    assert not (sums.root / "__pycache__").exists()
    for command in (["plan"], ["status"], ["show", "sums"], ["rows", "sums"]):
        assert cli(*command).code == 0
    applied(cli)
    assert trace.read_text() == "x", "nothing was to do"


def test_edited_code_is_a_rerun_and_what_runs_is_what_was_edited(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec(USE_GRADE)})
    applied(cli)
    sums.write({"graders.py": GRADE.replace("gold in response", "len(gold) / 2")})
    assert actions(cli) == {"sums": "rerun"}
    assert "changed: evaluator.code" in cli("plan").out
    applied(cli)
    assert [value for _, value, _ in verdicts(cli)] == [0.5, 0.5, None, 0.5]
    sums.write({"graders.py": GRADE})
    applied(cli)
    assert [value for _, value, _ in verdicts(cli)] == [1.0, 0.0, None, 0.0]


def test_a_function_in_a_package_reads_its_neighbours(sums: Folder, cli: Cli) -> None:
    module = "from . import words\nfrom checks import words as again\nassert words is again\ndef grade(response, gold, row):\n    return words.SAME\n"
    sums.write(
        {"evalops.yaml": settings("checks.units:grade"), "checks/units.py": module, "checks/words.py": "SAME = True\n"}
    )
    sums.write({"sums.yaml": spec(USE_GRADE)})
    applied(cli)
    assert [value for _, value, _ in verdicts(cli)] == [1.0, 1.0, None, 1.0]
    sums.write({"checks/words.py": "SAME = False\n"})
    assert actions(cli) == {"sums": "rerun"}
    applied(cli)
    assert [value for _, value, _ in verdicts(cli)] == [0.0, 0.0, None, 0.0]
    sums.write({"checks/more.py": ""})
    assert actions(cli) == {"sums": "rerun"}


def test_any_column_may_have_been_read(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec(USE_GRADE)})
    applied(cli)
    sums.write({"data/rows.jsonl": [*ROWS[:3], {**ROWS[3], "unit": "km"}]})
    assert actions(cli) == {"sums": "rerun"}
    applied(cli)
    assert verdicts(cli)[3] == ("scored", 0.0, "in km")


def test_what_goes_wrong_in_a_function_is_an_error_of_its_row(
    sums: Folder, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    code = """
import os, sys
def grade(response, gold, row):
    match row["unit"]:
        case "key": raise ValueError(f"rejected: {os.environ['SOME_API_KEY']}\\nsecond line")
        case "exit": sys.exit(3)
        case "stop": raise KeyboardInterrupt
        case "long": raise ValueError("x" * 100_000)
        case "mute": raise AssertionError
        case "nan": return float("nan")
        case "two": return 2
        case "text": return "yes"
        case "none": return None
        case "change": row.clear(); return True
    return 0.5
"""
    units = ["key", "exit", "stop", "long", "mute", "nan", "two", "text", "none", "change", "m"]
    rows = [{"question": each, "response": "r", "gold": "g", "unit": each} for each in units]
    limits = {"providers": {"local": {"max_error_rate": 0.5}}}
    sums.write(
        {"evalops.yaml": settings(**limits), "graders.py": code, "data/rows.jsonl": rows, "sums.yaml": spec(USE_GRADE)}
    )
    applied(cli)
    found = [json.loads(line) for line in cli("rows", "sums").out.splitlines()]
    problems = [(each["verdict"]["status"], each["verdict"].get("problem")) for each in found]
    assert problems == [("error", "evaluator_failed")] * 5 + [
        ("invalid", "out_of_range"),
        ("invalid", "out_of_range"),
        ("invalid", "unusable_value"),
        ("invalid", "no_value"),
        ("scored", None),
        ("scored", None),
    ]
    assert found[0]["verdict"]["reason"] == "ValueError: rejected: ***"
    assert len(found[3]["verdict"]["reason"]) <= 300
    assert found[4]["verdict"]["reason"] == "AssertionError: no message"
    assert found[9]["source"]["unit"] == "change"
    for path in sums.root.rglob("*"):
        assert path.is_dir() or CANARY.encode() not in path.read_bytes(), path


def test_a_function_that_does_not_return_holds_up_one_row(sums: Folder, cli: Cli) -> None:
    code = "import threading\ndef grade(response, gold, row):\n    if row['gold'] == '6': threading.Event().wait()\n    return 1\n"
    limits = {"providers": {"local": {"row_timeout": 0.2}}}
    sums.write({"evalops.yaml": settings(**limits), "graders.py": code, "sums.yaml": spec(USE_GRADE)})
    applied(cli)
    assert verdicts(cli)[:2] == [("scored", 1.0, None), ("error", None, "timeout")]
    assert verdicts(cli)[3] == ("scored", 1.0, None)


@pytest.mark.parametrize(
    ("function", "code", "why"),
    [
        ("missing:grade", "", "No module named 'missing'"),
        ("graders:grad", GRADE, "`graders` has no function `grad`"),
        ("graders:grade", "def grade(:", "SyntaxError"),
        ("graders:grade", "import sys; sys.exit(2)", "SystemExit: 2"),
        ("graders:grade", "import nowhere_at_all", "No module named 'nowhere_at_all'"),
        ("graders:grade", "async def grade(response, gold, row): return 1", "it is asynchronous"),
        ("graders:GRADE", "GRADE = 3", "`graders` has no function `GRADE`"),
        ("graders:grade", f"raise ValueError('{CANARY}')", "ValueError: ***"),
        ("yaml:grade", "", "`yaml` has no function `grade`"),
    ],
)
def test_code_that_cannot_be_used_is_told_before_a_job_exists(
    sums: Folder, cli: Cli, monkeypatch: pytest.MonkeyPatch, function: str, code: str, why: str
) -> None:
    monkeypatch.setenv("SOME_API_KEY", CANARY)
    sums.write({"evalops.yaml": settings(function), "graders.py": code, "sums.yaml": spec(USE_GRADE)})
    assert cli("validate").code == cli("plan").code == 0
    done = cli("apply", "--yes")
    assert done.code == 1
    assert "sums.yaml:7:1: error[evaluator/import]" in done.err and why in done.err
    assert CANARY not in done.err + done.out
    assert actions(cli) == {"sums": "create"}


def test_a_module_does_not_hide_an_installed_one(sums: Folder, cli: Cli) -> None:
    sums.write({"evalops.yaml": settings("yaml:grade"), "yaml.py": GRADE, "sums.yaml": spec(USE_GRADE)})
    done = cli("apply", "--yes")
    assert done.code == 1 and "a package called `yaml` is installed as well" in done.err
    assert not (sums.root / "imported.txt").exists()
    assert "safe_load" in vars(sys.modules["yaml"])


def test_a_link_to_code_outside_the_project_is_not_followed(sums: Folder, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text(GRADE)
    (sums.root / "linked_graders.py").symlink_to(tmp_path / "outside.py")
    sums.write({"evalops.yaml": settings("linked_graders:grade"), "sums.yaml": spec(USE_GRADE)})
    done = cli("apply", "--yes")
    assert done.code == 1 and "No module named 'linked_graders'" in done.err


def test_code_that_changes_after_the_plan_runs_nothing(sums: Folder, cli: Cli) -> None:
    """The module that changes itself as it is imported stands for an editor that saves at the wrong time."""
    late = GRADE + "path = pathlib.Path(__file__)\npath.write_text(path.read_text() + '\\n')\n"
    sums.write({"graders.py": late, "sums.yaml": spec(USE_GRADE)})
    done = cli("apply", "--yes")
    assert done.code == 1 and "changed since the plan was made" in done.err


def test_changed_code_is_found_since_a_revision(sums: Folder, cli: Cli) -> None:
    sums.write({"sums.yaml": spec(USE_GRADE), "other.yaml": spec("exact", "other"), ".gitignore": ".evalops/\n"})
    git = ["git", "-C", str(sums.root), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True, capture_output=True)
    sums.write({"graders.py": GRADE + "# edited\n"})
    done = cli("plan", "--changed-since", "HEAD", "--format", "json")
    assert [change["address"] for change in done.json["changes"]] == ["sums"]


# --- responses that a model writes ---


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def test_a_model_writes_and_no_model_judges(sums: Folder, cli: Cli, server: Server) -> None:
    models = {"writer": {"base_url": server.url}}
    writer = "{model: writer, input_template: 'Solve: {{ question }}', temperature: 0}"
    text = spec(USE_GRADE).replace("model_to_evaluate: response", f"model_to_evaluate: {writer}")
    sums.write({"evalops.yaml": settings(models=models), "sums.yaml": text})
    assert "4 rows, 4 calls" in cli("plan").out
    applied(cli)
    assert server.ledger.requests == 4
    assert {json.loads(seen.body)["messages"][-1]["content"] for seen in server.ledger.seen} == {
        f"Solve: {row['question']}" for row in ROWS
    }
    assert len(verdicts(cli)) == 4
    sums.write({"graders.py": GRADE.replace("gold in response", "bool(response)")})
    applied(cli)
    assert server.ledger.requests == 4, "the responses are known"
    assert [value for _, value, _ in verdicts(cli)] == [1.0] * 4
    assert summary(cli)["metrics"]["mean_score"]["value"] == 1.0


def test_a_call_that_fails_is_no_verdict(sums: Folder, cli: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}/v1"
    models = {"writer": {"base_url": url}}
    text = spec("numeric").replace("response\n", "{model: writer, input_template: '{{ question }}'}\n")
    sums.write({"evalops.yaml": settings(models=models, providers={"local": {"down_after": 0.2}}), "sums.yaml": text})
    done = cli("apply", "--yes")
    assert done.code == 1
    assert cli("show", "sums").code == 0
