"""README.md tells the truth: its examples run, its tables are the code's."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from evalops import cli, schema
from evalops.errors import Exit
from evalops.metrics import summaries
from evalops.plan import Action

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.S | re.M)


def table(header: str) -> list[list[str]]:
    body = README.split(header, 1)[1].split("\n\n", 1)[0]
    lines = [line for line in body.splitlines() if line.startswith("|") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A project with the README's spec and settings."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "support.jsonl").write_text(
        '{"message": "Where is my parcel?", "reply": "It left today.", "human_label": "polite"}\n', encoding="utf-8"
    )
    spec, settings = (block for block in blocks("yaml") if "version: 1" in block)
    (tmp_path / "support-tone.yaml").write_text(spec, encoding="utf-8")
    (tmp_path / "evalops.yaml").write_text(settings, encoding="utf-8")
    return tmp_path


def test_the_example_spec_and_settings_are_valid(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--project", str(example), "validate"]) == Exit.OK, capsys.readouterr().err
    assert cli.run(["--project", str(example), "plan"]) == Exit.OK
    assert "create" in capsys.readouterr().out


def test_the_other_yaml_is_fields_that_a_spec_or_evalops_yaml_has() -> None:
    known = {**schema.whole("project")["properties"], **schema.whole("spec")["properties"]}
    parts = [block for block in blocks("yaml") if "version: 1" not in block]
    lines = [line for block in parts for line in (block.splitlines() if "\ndataset:" in block else [block])]
    fields = [field for line in lines for field in yaml.safe_load(line).items()]
    assert len(fields) > 5
    for name, value in fields:
        text = json.dumps(value).replace("\\u2026", "0" * 60)  # a digest that the README does not write out
        Draft202012Validator(known[name]).validate(json.loads(text))


def test_the_example_of_an_error_is_what_is_printed(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = example / "support-tone.yaml"
    text = spec.read_text(encoding="utf-8").replace("pass_labels: [polite]", "pass_labels: [polit]")
    spec.write_text(text, encoding="utf-8")
    assert cli.run(["--project", str(example), "validate"]) == Exit.PROBLEM
    assert capsys.readouterr().err == blocks("text")[0]


def test_every_verb_is_documented_and_teaches_by_example(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        assert f"evalops {name}" in README or f"`evalops {name}" in README or f" {name} " in README, name
        assert cli.run([name, "--help"]) == Exit.OK
        assert f"evalops {name}" in capsys.readouterr().out, f"{name} --help has no example"


def test_the_table_of_actions_is_the_codes() -> None:
    rows = table("| sign | action | money | when |")
    documented = {
        (word.strip(), row[0].strip("`"), row[2].replace("–", "-")) for row in rows for word in row[1].split(",")
    }
    assert documented == {(action.value, action.sign, action.money) for action in Action}


def test_the_table_of_exit_codes_is_the_codes() -> None:
    documented = {int(row[0]) for row in table("| code | meaning |")}
    assert documented == {int(code) for code in Exit}


def test_the_table_of_metrics_is_the_codes() -> None:
    rows = {row[0]: set(re.findall(r"`([a-z0-9_]+)`", row[1])) for row in table("| type | metrics for `thresholds` |")}
    for kind, names in summaries.NAMES.items():
        assert rows[kind.value] | rows["all"] == set(names)


@pytest.mark.slow
@pytest.mark.embedded
def test_the_first_command_runs_in_a_fresh_clone(tmp_path: Path) -> None:
    clone, home = tmp_path / "clone", tmp_path / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "VIRTUAL_ENV"))}
    done = subprocess.run(
        ["sh", "-c", blocks("sh")[0]],
        cwd=clone, env={**environment, "HOME": str(home)}, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Locks written:" in done.stdout
    assert re.search(r"^ review-sentiment +pass % .* passed$", done.stdout, re.M)
