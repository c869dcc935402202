"""evalops fmt: one layout for every spec, no value changed and no comment lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import ROWS, SETTINGS, SPEC, Cli, Folder
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops import benchmarks, emit
from evalops.datasets import sketch, survey
from evalops.datasets.dataset import Row
from evalops.document import parse
from evalops.errors import EvalopsError, Exit
from evalops.layout import laid_out, order
from evalops.providers import together_request

ORDER = order()
ROOT = Path(__file__).parents[1]
MESSY = """\
# yaml-language-server: $schema=schemas/spec-v1.json
# how it is called
name:   tone
labels:
- polite   # a good one
-   rude


# the format
version: 1
judge:
    model: m   # inline
    # the question
    system_template: |
          Is it polite? # no comment

            {{ response }}
    # the judge ends here
type: classify
dataset: {path: rows.jsonl,   # where
  id: id}
thresholds:
   kappa:
      min: 0.5
# the end
""".replace("tone\n", "tone  \n")
NEAT = """\
# yaml-language-server: $schema=schemas/spec-v1.json
# the format
version: 1
# how it is called
name:   tone
type: classify
dataset: {path: rows.jsonl,   # where
  id: id}
judge:
  model: m   # inline
  # the question
  system_template: |
    Is it polite? # no comment

      {{ response }}
  # the judge ends here
labels:
  - polite   # a good one
  - rude
thresholds:
  kappa:
    min: 0.5
# the end
"""


def values(text: str) -> list[Any]:
    documents, problems = parse(text.encode(), "a.yaml")
    assert not problems
    return [document.value for document in documents]


def fmt(text: str) -> str:
    return laid_out(text.encode(), "a.yaml")


def test_fields_in_order_levels_of_two_and_comments_with_what_they_are_about() -> None:
    assert fmt(MESSY) == NEAT
    assert fmt(NEAT) == NEAT


@pytest.mark.parametrize(
    ("text", "neat"),
    [
        ("\ufeffa: 1\r\nb: 2\r\n", "a: 1\nb: 2\n"),
        ("\n\n  a: 1\n  b:\n     c: 2\n\n\n", "a: 1\nb:\n  c: 2\n"),
        ("a:\n- - 1\n  - 2\n-\n  b: 1\n  c:\n  - 3\n", "a:\n  - - 1\n    - 2\n  -\n    b: 1\n    c:\n      - 3\n"),
        ("a:\n-   b: |\n        text\n    c: 1\n", "a:\n  - b: |\n      text\n    c: 1\n"),
        ("a:\n    b: |2\n         text\n      more\n", "a:\n  b: |2\n       text\n    more\n"),
        ("a: |\n  text", "a: |\n  text"),
        ("a: |+\n    text\n\n\nb: 1\n", "a: |+\n  text\n\n\nb: 1\n"),
        ("name: |+\n    text\n\n\nversion: 1\n", "version: 1\nname: |+\n  text\n\n\n"),
        ("name: |+\n    text\n\ntype: |+\n  a\n\n\nversion: 1\n", "version: 1\nname: |+\n  text\n\ntype: |+\n  a\n\n\n"),
        ("type: 1\nname: |+\n  text\n\n", "name: |+\n  text\n\ntype: 1\n"),
        ("a: >-\n    one\n    two\n\n\n\nb: 1", "a: >-\n  one\n  two\n\nb: 1\n"),
        ("a: |\n      text\n   # less far in\nb: 1\n", "a: |\n  text\n# less far in\nb: 1\n"),
        ("a:\n    # nothing yet\n    # b: 1\nc: 1\n", "a:\n  # nothing yet\n  # b: 1\nc: 1\n"),
        ("a:\n    b: 'one\n      # two'\n    c: x#y # z\n", "a:\n  b: 'one\n    # two'\n  c: x#y # z\n"),
        ("a: 1 \n--- \n\n\n- 1\n-  2\n--- # more\nname: b\nversion: 1\n...\n", "a: 1\n---\n\n- 1\n- 2\n--- # more\nversion: 1\nname: b\n...\n"),
        ("b: 1\nversion: 1\na: 2\n", "version: 1\nb: 1\na: 2\n"),
        ("{name: a, version: 1}\n", "{name: a, version: 1}\n"),
        ("name: a\n? version\n: 1\n", "name: a\n? version\n: 1\n"),
        ("# a file\n\n# a name\nname: a\n\nversion: 1\n", "# a file\n\nversion: 1\n# a name\nname: a\n"),
    ],
)  # fmt: skip
def test_layouts(text: str, neat: str) -> None:
    found = fmt(text)
    assert found == neat
    assert values(found) == values(text)
    assert fmt(found) == found


def test_what_would_mean_something_else_is_left_alone() -> None:
    with pytest.raises(EvalopsError) as caught:
        fmt("labels: [a]\ntype: |\n  text")  # which would gain a line break where it belongs
    (problem,) = caught.value.diagnostics
    assert problem.code == "fmt/left-alone"
    with pytest.raises(EvalopsError, match="twice"):
        fmt("a: 1\na: 2\n")


@pytest.mark.parametrize("path", [*ROOT.glob("specs/*.yaml"), *ROOT.glob("evalops/starter/*.yaml")], ids=lambda path: path.name)  # fmt: skip
def test_the_specs_that_ship_are_in_that_layout(path: Path) -> None:
    data = path.read_bytes()
    assert laid_out(data, path.name, is_spec=path.name != "evalops.yaml") == data.decode()


# --- what evalops writes itself ---


@given(st.dictionaries(st.sampled_from(ORDER), st.deferred(lambda: inner), min_size=1))
@settings(max_examples=40)
def test_what_evalops_writes_is_in_that_layout(value: dict[str, Any]) -> None:
    ordered = {key: value[key] for key in ORDER if key in value}
    text = "# Imported\n" + emit.dump(ordered)
    assert fmt(text) == text


def test_sketches_are_in_that_layout() -> None:
    found = survey.survey(Row(number, number + 1, row) for number, row in enumerate(ROWS))
    texts = [sketch.of_columns("tone", "data/rows.jsonl", found), sketch.of_upload("tone", "file-1", "0" * 64, found)]
    texts += [sketch.of_set(name, benchmarks.entry(name)) for name in benchmarks.names()]
    assert len(texts) > 2
    for text in map(emit.dump, texts):
        assert fmt(text) == text


def test_imports_are_in_that_layout() -> None:
    judge = {"model": "m", "model_source": "serverless", "system_template": "Is it polite?\n{{ response }}"}
    writer = {"model": "w", "model_source": "serverless", "system_template": "s", "input_template": "{{ question }}"}
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("classify", {"labels": ["a", "b"], "pass_labels": ["a"], "model_to_evaluate": writer}),
        ("score", {"min_score": 1, "max_score": 5, "pass_threshold": 3, "model_to_evaluate": "response"}),
        ("compare", {"model_a": "first", "model_b": writer}),
    ]
    for kind, fields in kinds:
        parameters = {"judge": judge, "input_data_file_path": "file-1", **fields}
        told = {"workflow_id": "eval-1a2b-17", "type": kind, "parameters": parameters}
        text = emit.dump(together_request.spec_of(told, "imported/rows.jsonl"))
        assert fmt(text) == text


# --- the command ---


def test_fmt_writes_what_differs_and_no_fingerprint_changes(folder: Folder, cli: Cli) -> None:
    lines = SPEC.splitlines(keepends=True)
    folder.write({"tone.yaml": "".join(lines[1:]) + "\n\n# the version\nversion: 1\n", "evalops.yaml": "# ours\n\n\nversion: 1\n"})  # fmt: skip
    before = cli("plan", "--format", "json").json["digest"]
    checked = cli("fmt", "--check")
    assert (checked.code, checked.out) == (Exit.PROBLEM, "evalops.yaml\ntone.yaml\n")
    assert "2 of 2 files would change" in checked.err and folder.read("evalops.yaml") == "# ours\n\n\nversion: 1\n"
    done = cli("fmt")
    assert (done.code, done.out, done.err) == (Exit.OK, "evalops.yaml\ntone.yaml\n", "2 of 2 files changed.\n")
    assert folder.read("tone.yaml") == "# the version\n" + SPEC
    assert folder.read("evalops.yaml") == "# ours\n\nversion: 1\n"
    assert cli("plan", "--format", "json").json["digest"] == before
    assert cli("fmt", "--check") == (Exit.OK, "", "Nothing to change.\n")


def test_fmt_of_some_files_and_of_one_that_is_broken(folder: Folder, cli: Cli) -> None:
    odd = "name: a\nversion: 1\n"
    folder.write({"sub/a.yaml": odd, "sub/b.yaml": "a: [\n", "c.yaml": odd, "evalops.yaml": SETTINGS})
    done = cli("fmt", "sub")
    assert done.code == Exit.PROBLEM and done.out == "sub/a.yaml\n"
    assert "sub/b.yaml" in done.err and folder.read("sub/b.yaml") == "a: [\n"
    assert folder.read("sub/a.yaml") == "version: 1\nname: a\n" and folder.read("c.yaml") == odd
    assert cli("fmt", "c.yaml").out == "c.yaml\n"
    assert "fmt/no-yaml" in cli("fmt", "data/rows.jsonl").err
    missing = cli("fmt", "../outside.yaml")
    assert missing.code == Exit.PROBLEM and "file/outside" in missing.err


# --- any file: the same values, the same comments, each at its key ---

KEYS = [*ORDER[:6], "judge", "labels", "matrix", "ours", "a b", "1"]
plain = st.text(st.sampled_from("ab #:-'\"{}[]|>\n\\é"), max_size=12)
scalars = plain | st.booleans() | st.none() | st.integers(-99, 99) | st.floats(-9, 9)
inner = st.recursive(
    scalars,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | plain, each, max_size=3),
    max_leaves=8,
)
specs = st.dictionaries(st.sampled_from(KEYS), inner, min_size=1, max_size=6)


class Author:
    """Writes a value in a layout of its own, with a comment at every key that names it."""

    def __init__(self, choose: Any) -> None:
        self.choose = choose
        self.lines: list[str] = []

    def write(self, value: dict[str, Any]) -> str:
        for key, each in value.items():
            self.entry(key, each, self.choose(0, 0), f"{key!r}")
        return "\n".join(self.lines) + self.choose("\n", "\n\n\n")

    def entry(self, key: str, value: Any, indent: int, route: str) -> None:
        pad = " " * indent
        self.lines += [""] * self.choose(0, 0, 2)
        if self.choose(True, False):
            self.lines.append(f"{pad}# above {route}")
        head = f"{pad}{emit._scalar(key)}:"
        behind = self.choose("", f"  # behind {route}", "   ")
        if isinstance(value, dict) and value:
            self.lines.append(head + behind)
            step = self.choose(1, 2, 3, 4)
            for name, each in value.items():
                self.entry(name, each, indent + step, f"{route}/{name!r}")
        elif isinstance(value, list) and value and not any(isinstance(each, dict | list) for each in value):
            self.items(head, behind, value, pad, route)
        else:
            first, *block = emit.dump({"a": [] if isinstance(value, list) else value}).split("\n")[:-1]
            self.lines.append(head + first[2:] + behind)
            wide = pad if "2" in first else pad + " " * self.choose(0, 1, 5)  # a number says how far in the text is
            self.lines += [wide + line if line else self.choose("", pad) for line in block]

    def items(self, head: str, behind: str, value: list[Any], pad: str, route: str) -> None:
        if self.choose(True, False):
            flow = ", ".join(map(emit._scalar, value))
            self.lines.append(f"{head} [{flow}]" + behind)
            return
        self.lines.append(head + behind)
        dash = pad + " " * self.choose(0, 1, 2, 5) + "-" + " " * self.choose(1, 1, 3)
        self.lines += [dash + emit._scalar(each) + self.choose("", f" # in {route}") for each in value]


def remarks(text: str) -> list[tuple[str, str]]:
    """Each comment with what stands in the line of code that it is about."""
    lines = text.split("\n")
    found = []
    for number, line in enumerate(lines):
        if above := re.fullmatch(r" *(# above .*)", line):
            below = next(
                each for each in lines[number + 1 :] if each.strip() and not each.lstrip().startswith("# above")
            )
            found.append((above[1], re.sub(r" *#.*", "", below).strip()))
        elif behind := re.search(r"(# (?:behind|in) .*)", line):
            found.append((behind[1], re.sub(r"^(- *)", "- ", re.sub(r" *# (?:behind|in) .*", "", line).strip())))
    return sorted(found)


@given(specs, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_any_spec_in_any_layout(value: dict[str, Any], random: Any) -> None:
    text = Author(lambda *choices: random.choice(choices)).write(value)
    (before,) = values(text)
    try:
        found = fmt(text)
    except EvalopsError:
        assert re.search(r"[|]2?[+]", text)  # a blank line that comes to stand below such a text would be part of it
        return
    (after,) = values(found)
    assert after == before and list(map(repr, sorted(after.items(), key=str))) == list(
        map(repr, sorted(before.items(), key=str))
    )
    assert remarks(found) == remarks(text)
    assert fmt(found) == found
    ranks = [ORDER.index(key) for key in after if key in ORDER]
    assert ranks == sorted(ranks)
