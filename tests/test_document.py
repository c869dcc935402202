"""Reading YAML: values, positions, and everything a stranger's file can try."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.document import MAX_BYTES, MAX_DEPTH, MAX_NODES, MAX_PROBLEMS, Document, KeyPath, parse
from evalops.errors import Diagnostic, Mark

LIBYAML = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
LOADERS = [LIBYAML, yaml.SafeLoader]


@pytest.fixture(params=LOADERS, ids=["libyaml", "python"])
def loader(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    return request.param


def read(text: str | bytes, **options: Any) -> Document:
    data = text.encode() if isinstance(text, str) else text
    documents, problems = parse(data, "a.yaml", **options)
    assert problems == []
    assert len(documents) == 1
    return documents[0]


def problems_of(text: str | bytes, **options: Any) -> list[Diagnostic]:
    data = text.encode() if isinstance(text, str) else text
    return parse(data, "a.yaml", **options)[1]


def found(text: str | bytes, **options: Any) -> list[tuple[str, int, int]]:
    """Code, line and column of each problem."""
    return [(p.code, p.mark.line, p.mark.column) for p in problems_of(text, **options) if p.mark]


# --- scalars ---

SCALARS: dict[str, Any] = {
    # null
    "null": None,
    "Null": None,
    "NULL": None,
    "~": None,
    "": None,
    "nULL": "nULL",
    "none": "none",
    "None": "None",
    # booleans, and what YAML 1.1 takes for one
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
    "tRue": "tRue",
    "yes": "yes",
    "Yes": "Yes",
    "no": "no",
    "No": "No",
    "NO": "NO",
    "on": "on",
    "On": "On",
    "off": "off",
    "OFF": "OFF",
    "y": "y",
    "n": "n",
    # integers
    "0": 0,
    "7": 7,
    "-7": -7,
    "+7": 7,
    "-0": 0,
    "010": 10,
    "0099": 99,
    "0o17": 15,
    "0xFF": 255,
    "0xff": 255,
    "123456789012345678901234567890": 123456789012345678901234567890,
    "0o18": "0o18",
    "0O17": "0O17",
    "0xFG": "0xFG",
    "0X1": "0X1",
    "0b11": "0b11",
    "-0o17": "-0o17",
    "-0x1": "-0x1",
    "1_000": "1_000",
    "1,000": "1,000",
    "+": "+",
    "١٢": "١٢",
    "²": "²",
    "12a": "12a",
    # floats
    "1.5": 1.5,
    "-1.5": -1.5,
    "+1.5": 1.5,
    "1.": 1.0,
    ".5": 0.5,
    "-.5": -0.5,
    "1e3": 1000.0,
    "1E3": 1000.0,
    "1e+3": 1000.0,
    "1.5e-3": 0.0015,
    ".5e1": 5.0,
    "1.10": 1.1,
    "0.0": 0.0,
    ".": ".",
    "..": "..",
    "1e": "1e",
    "e3": "e3",
    "1.2.3": "1.2.3",
    "1_0.5": "1_0.5",
    "1.5f": "1.5f",
    "inf": "inf",
    "nan": "nan",
    ".iNF": ".iNF",
    "+.nan": "+.nan",
    # dates, times, versions, and other things that look like something else
    "12:30:45": "12:30:45",
    "1:30": "1:30",
    "2024-01-01": "2024-01-01",
    "2024-01-01T12:00:00Z": "2024-01-01T12:00:00Z",
    "=": "=",
    "gpt-4.1": "gpt-4.1",
    "95%": "95%",
    "a b  c": "a b  c",
    "naïve 漢字 😀": "naïve 漢字 😀",
    # quoted text is text
    "'true'": "true",
    '"1"': "1",
    "''": "",
    '"~"': "~",
    "'it''s'": "it's",
    '"\\u00e9\\n\\x41\\U0001F600"': "é\nA😀",
    '"a\\/b"': "a/b",
    # tags of the core schema
    "!!str 1": "1",
    "!!str": "",
    "!!str no": "no",
    "!!int '3'": 3,
    "!!float 3": 3.0,
    "!!float '1e3'": 1000.0,
    "!!bool 'true'": True,
    "!!null ''": None,
    "!!map {}": {},
    "!!seq []": [],
    "!<tag:yaml.org,2002:str> 1": "1",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_follow_the_core_schema_of_yaml_1_2(text: str, loader: Callable[[str], Any]) -> None:
    expected = SCALARS[text]
    for source in (f"k: {text}", f"k: {text}\n", f"k: {text} # comment\n", f"k: {text}\r\nz: 1\r\n"):
        value = read(source, loader=loader).value["k"]
        assert (type(value), value) == (type(expected), expected)


@pytest.mark.parametrize("text", [text for text in SCALARS if text and "," not in text])
def test_scalars_mean_the_same_in_a_flow_list(text: str) -> None:
    (value,) = read(f"[{text} ]").value
    assert (type(value), value) == (type(SCALARS[text]), SCALARS[text])


def test_labels_that_yaml_1_1_reads_as_booleans_stay_text() -> None:
    assert read("labels: [Yes, No, on]").value == {"labels": ["Yes", "No", "on"]}


def test_keys_are_taken_as_their_text() -> None:
    document = read("on: 1\n1: 2\nnull: 3\n1.10: 4\ntrue: 5\n'': 6\n? long\n: 7\n!!str tagged: 8\n'<<': 9\n")
    assert list(document.value) == ["on", "1", "null", "1.10", "true", "", "long", "tagged", "<<"]


def test_raw_keeps_the_text_of_plain_scalars_that_are_no_strings() -> None:
    document = read("labels: [1.10, yes, 007, True, '1', !!int 5]\nempty:\nname: x\nmask: 0xFF\n")
    assert document.raw == {
        ("labels", 0): "1.10",
        ("labels", 2): "007",
        ("labels", 3): "True",
        ("empty",): "",
        ("mask",): "0xFF",
    }


@pytest.mark.parametrize("text", [".inf", "-.INF", "+.Inf", ".nan", ".NaN", "1e999", "-1e999"])
def test_numbers_that_json_cannot_hold_are_refused(text: str, loader: Callable[[str], Any]) -> None:
    documents, problems = parse(f"ok: 1\nbad: {text}\n".encode(), "a.yaml", loader=loader)
    assert documents == []
    assert [(p.code, p.mark) for p in problems] == [("yaml/number", Mark("a.yaml", 2, 6))]
    assert f"`{text}`" in problems[0].message


@pytest.mark.parametrize("text", ["1" * 5000, "0x" + "f" * 5000, "0o" + "7" * 5000, "0." + "1" * 5000])
def test_numbers_of_thousands_of_digits_are_refused(text: str, loader: Callable[[str], Any]) -> None:
    (problem,) = problems_of(f"n: {text}", loader=loader)
    assert problem.code == "yaml/number"
    assert len(problem.message) < 100
    assert read(f"n: '{text}'", loader=loader).value == {"n": text}


# --- documents ---


def test_a_file_holds_several_documents_and_empty_ones_are_skipped(loader: Callable[[str], Any]) -> None:
    text = b"# first\n---\nname: a\n---\n# nothing\n---\nname: b\n...\n---\nnull\n"
    documents, problems = parse(text, "dir/a.yaml", loader=loader)
    assert problems == []
    assert [document.value for document in documents] == [{"name": "a"}, {"name": "b"}, None]
    assert documents[0].mark("name") == Mark("dir/a.yaml", 3, 1)
    assert documents[1].mark("name") == Mark("dir/a.yaml", 7, 1)
    assert documents[1].marks.keys() == {(), ("name",)}
    assert documents[0].lines == text.decode().split("\n")


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n---\n# x\n", "\ufeff"])
def test_a_file_without_a_document_is_a_problem(text: str, loader: Callable[[str], Any]) -> None:
    assert found(text, loader=loader) == [("yaml/empty", 1, 1)]


def test_a_file_with_an_error_is_not_called_empty() -> None:
    assert found("a: [") == [("yaml/syntax", 1, 5)]


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("[", "yaml/syntax"),
        ("[" * 100, "yaml/too-deep"),
        ("- a: 1\n  a: 2\n" * 200, "yaml/too-many-problems"),
    ],
)
def test_no_document_comes_from_a_file_that_was_not_read_to_its_end(end: str, code: str) -> None:
    documents, problems = parse(f"name: a\n---\n{end}".encode(), "a.yaml")
    assert documents == []
    assert problems[-1].code == code


def test_a_refused_value_costs_only_its_own_document() -> None:
    documents, problems = parse(b"a: 1\n---\na: !x 1\n---\na: 3\n", "a.yaml")
    assert [document.value for document in documents] == [{"a": 1}, {"a": 3}]
    assert [p.code for p in problems] == ["yaml/tag"]


# --- positions ---

SPEC = """\
# a comment
name: tone
labels: [polite, "rude 😀", x]
judge:
  model: 漢字/a
  系統: |
    Is it polite?

    {{ response }}
list:
- a: 1
-   b: 2
- - deep
"""
PLACES: dict[KeyPath, tuple[tuple[int, int], tuple[int, int] | None]] = {
    (): ((2, 1), None),
    ("name",): ((2, 7), (2, 1)),
    ("labels",): ((3, 9), (3, 1)),
    ("labels", 0): ((3, 10), None),
    ("labels", 1): ((3, 18), None),
    ("labels", 2): ((3, 28), None),
    ("judge",): ((5, 3), (4, 1)),
    ("judge", "model"): ((5, 10), (5, 3)),
    ("judge", "系統"): ((6, 7), (6, 3)),
    ("list",): ((11, 1), (10, 1)),
    ("list", 0): ((11, 3), None),
    ("list", 0, "a"): ((11, 6), (11, 3)),
    ("list", 1): ((12, 5), None),
    ("list", 1, "b"): ((12, 8), (12, 5)),
    ("list", 2): ((13, 3), None),
    ("list", 2, 0): ((13, 5), None),
}


@pytest.mark.parametrize(
    "data",
    [SPEC.encode(), SPEC.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + SPEC.encode()],
    ids=["LF", "CRLF", "BOM"],
)
def test_every_key_and_value_has_its_place(data: bytes, loader: Callable[[str], Any]) -> None:
    document = read(data, loader=loader)
    assert document.marks == {route: Mark("a.yaml", *value) for route, (value, _) in PLACES.items()}
    assert document.keys == {route: Mark("a.yaml", *key) for route, (_, key) in PLACES.items() if key}
    assert document.value["judge"]["系統"] == "Is it polite?\n\n{{ response }}\n"
    assert document.lines == SPEC.split("\n")


@pytest.mark.parametrize(
    ("route", "place"),
    [
        ((), (2, 1)),
        (("judge",), (4, 1)),
        (("judge", "model"), (5, 3)),
        (("judge", "temperature"), (4, 1)),
        (("judge", "model", "deeper", 3), (5, 3)),
        (("labels", 1), (3, 18)),
        (("labels", 9), (3, 1)),
        (("unknown", "x"), (2, 1)),
    ],
)
def test_mark_gives_the_key_or_the_nearest_known_ancestor(route: KeyPath, place: tuple[int, int]) -> None:
    assert read(SPEC).mark(*route) == Mark("a.yaml", *place)


@pytest.mark.parametrize("text", ["a:", "a:\n", "? a", "a: !!str", "- ", "a: |", "x: [a]\ny:\n\n\n# end"])
def test_marks_of_empty_values_stay_within_the_file(text: str, loader: Callable[[str], Any]) -> None:
    document = read(text, loader=loader)
    for mark in document.marks.values():
        assert 1 <= mark.column <= len(document.lines[mark.line - 1]) + 1


@pytest.mark.parametrize(
    ("text", "line", "expected"),
    [
        ("k: |\n  one\n  two\n", 1, 2),
        ("k: |\n  one\n  two\n", 2, 3),
        ("k: |-  # comment\n\n\n    {{ x }}\n", 3, 4),
        ("k: |+2\n   one\n   two\n\n", 2, 3),
        ("k:\n  |\n  one\n  two\n", 2, 4),
        ("k: |\r\n  one\r\n  two\r\n", 2, 3),
        ("k: |\n  one\n", 99, 3),
        ("x: 1\nk: >\n  one\n  two\n", 2, 2),
        ("x: 1\nk: one\n  two\n", 2, 2),
        ("x: 1\nk: 'one\n\n  two'\n", 2, 2),
        ("x: 1\nz: 2\n", 2, 1),
    ],
)
def test_content_line_finds_a_line_of_a_literal_block(text: str, line: int, expected: int) -> None:
    document = read(text)
    assert document.content_line(("k",), line) == expected


def test_content_line_points_at_the_very_text() -> None:
    document = read(SPEC)
    route = ("judge", "系統")
    for number, line in enumerate(document.value["judge"]["系統"].splitlines(), 1):
        assert document.lines[document.content_line(route, number) - 1].strip() == line


# --- what is refused ---


def test_every_duplicate_key_is_named_with_both_lines(loader: Callable[[str], Any]) -> None:
    text = "a: 1\nb: {c: 1, d: 2, c: 3}\na: {x: 1}\nl:\n- k: 1\n  k: 2\na: 4\n'b': 5\n"
    documents, problems = parse(text.encode(), "a.yaml", loader=loader)
    assert [(p.code, p.mark.line, p.mark.column) for p in problems if p.mark] == [
        ("yaml/duplicate-key", 2, 17),
        ("yaml/duplicate-key", 3, 1),
        ("yaml/duplicate-key", 6, 3),
        ("yaml/duplicate-key", 7, 1),
        ("yaml/duplicate-key", 8, 1),
    ]
    assert problems[0].message == "`c` is set twice, on line 2"
    assert problems[1].message == "`a` is set twice, on lines 1 and 3"
    (document,) = documents
    assert document.value == {"a": 1, "b": {"c": 1, "d": 2}, "l": [{"k": 1}]}
    assert document.marks[("a",)] == Mark("a.yaml", 1, 4)
    assert document.keys[("a",)] == Mark("a.yaml", 1, 1)
    assert ("a", "x") not in document.keys


def test_keys_that_only_look_alike_are_not_duplicates() -> None:
    assert read("1: a\n'01': b\nA: c\na: d\n").value == {"1": "a", "01": "b", "A": "c", "a": "d"}


def test_anchors_and_aliases_are_refused(loader: Callable[[str], Any]) -> None:
    text = "a: &one {x: 1}\nb: *one\n*one : 3\n"
    documents, problems = parse(text.encode(), "a.yaml", loader=loader)
    assert documents == []
    assert [(p.code, p.mark.line, p.mark.column) for p in problems if p.mark] == [
        ("yaml/alias", 1, 4),
        ("yaml/alias", 2, 4),
        ("yaml/alias", 3, 1),
    ]
    assert "`&one`" in problems[0].message
    assert "`*one`" in problems[1].message
    assert "evalops.yaml" in (problems[0].hint or "")


def test_merge_keys_are_refused_also_without_an_alias(loader: Callable[[str], Any]) -> None:
    assert found("a: 1\n<<: {b: 2}\n", loader=loader) == [("yaml/merge-key", 2, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "!foo x",
        "!!python/object/apply:os.system [ls]",
        "!!python/name:os.system ''",
        "!!set {}",
        "!!binary aGk=",
        "!!timestamp 2024-01-01",
        "! x",
        "!!int x",
        "!!int 1.5",
        "!!int true",
        "!!bool yes",
        "!!bool 1",
        "!!null x",
        "!!float .inf",
        "!!float x",
        "!!str {}",
        "!!map []",
        "!!seq {}",
        "!!map x",
        "!<x> y",
    ],
)
def test_tags_beside_the_core_ones_are_refused(text: str, loader: Callable[[str], Any]) -> None:
    assert found(f"k: {text}", loader=loader) == [("yaml/tag", 1, 4)]


def test_tags_are_refused_on_keys_and_in_values_that_are_thrown_away() -> None:
    assert found("!x a: 1\n!!int 2: 2\n!!str c: 3\n") == [("yaml/tag", 1, 1), ("yaml/tag", 2, 1)]
    assert found("a: 1\na: [!x 1]\n") == [("yaml/duplicate-key", 2, 1), ("yaml/tag", 2, 5)]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("? [a, b]\n: 1\n", (1, 3)),
        ("{a: 1}: 2\n", (1, 1)),
        ("x: {[]: 1}\n", (1, 5)),
        ("k:\n  ?\n  : 1\n", (2, 4)),
    ],
)
def test_keys_must_be_text(text: str, place: tuple[int, int]) -> None:
    assert found(text) == [("yaml/key", *place)]


@pytest.mark.parametrize("text", ["t: {{ prompt }}", "t: {{ prompt }} and more", "- {{x}}", "t: {% if x %}"])
def test_an_unquoted_template_is_told_to_be_quoted(text: str) -> None:
    problems = problems_of(text)
    assert problems
    assert all("{{" in (p.hint or "") and "quotes" in (p.hint or "") for p in problems)


def test_problems_pile_up_in_the_order_of_the_file() -> None:
    text = "b: !x 1\na: 1\na: 2\nn: .inf\nr: *q\n? {}\n: 1\nz: 'open\n"
    assert found(text) == [
        ("yaml/tag", 1, 4),
        ("yaml/duplicate-key", 3, 1),
        ("yaml/number", 4, 4),
        ("yaml/alias", 5, 4),
        ("yaml/key", 6, 3),
        ("yaml/syntax", 8, 4),
    ]


def test_an_error_found_late_is_sorted_to_where_it_starts() -> None:
    assert found("a: [\n  !x 1\n") == [("yaml/syntax", 1, 4), ("yaml/tag", 2, 3)]


# --- encodings ---


@pytest.mark.parametrize(
    ("data", "place", "word"),
    [
        (b"a: caf\xe9\n", (1, 7), "0xE9 at offset 6"),
        (b"a: 1\r\nb: \xf0\x9f\x98\x80\xff", (2, 5), "0xFF at offset 13"),
        (b"\xef\xbb\xbfa: \x80", (1, 4), "0x80"),
        (b"a: \xed\xa0\x80", (1, 4), "0xED"),
        (b"a: \xc0\xaf", (1, 4), "0xC0"),
        (b"a: \xf0\x9f", (1, 4), "0xF0"),
        ("a: 1".encode("utf-16"), (1, 1), "UTF-16"),
        (b"\xfe\xff" + "a: 1".encode("utf-16-be"), (1, 1), "UTF-16"),
        ("a: 1".encode("utf-32"), (1, 1), "UTF-32"),
        (b"\0\0\xfe\xff" + "a: 1".encode("utf-32-be"), (1, 1), "UTF-32"),
    ],
)
def test_only_utf_8_is_read(data: bytes, place: tuple[int, int], word: str) -> None:
    (problem,) = problems_of(data)
    assert problem.code == "yaml/encoding"
    assert problem.mark == Mark("a.yaml", *place)
    assert word in problem.message
    assert "UTF-8" in (problem.hint or "")


CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\t\n"]
INVISIBLE = ["\u2028", "\u2029", "\ufeff", "\ufffe", "\uffff"]


@pytest.mark.parametrize("char", CONTROLS + INVISIBLE, ids=lambda char: f"{ord(char):04x}")
def test_control_characters_and_further_line_breaks_are_refused(char: str) -> None:
    for text in (f"a: 1\nb: 'x{char}y'\n", f"a: 1\n# xxx{char}y\n"):
        assert found(text) == [("yaml/control-character", 2, 6)]
    assert read(f'a: "\\u{ord(char):04x}"').value == {"a": char}


# --- bombs ---


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_depth_is_allowed_up_to_the_limit(loader: Callable[[str], Any]) -> None:
    value = read(nested(MAX_DEPTH), loader=loader).value
    for _ in range(MAX_DEPTH - 1):
        (value,) = value
    assert value == []
    assert found(nested(MAX_DEPTH + 1), loader=loader) == [("yaml/too-deep", 1, MAX_DEPTH + 1)]


def test_nodes_are_allowed_up_to_the_limit() -> None:
    assert len(read("\n".join(["- a"] * (MAX_NODES - 1))).value) == MAX_NODES - 1
    assert found("\n".join(["- a"] * MAX_NODES)) == [("yaml/too-many-nodes", MAX_NODES, 3)]


def test_size_is_allowed_up_to_the_limit() -> None:
    assert len(read(b"a: " + b"x" * (MAX_BYTES - 3)).value["a"]) == MAX_BYTES - 3
    assert found(b"a: " + b"x" * (MAX_BYTES - 2)) == [("yaml/too-large", 1, 1)]


LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10))
BOMBS = {
    "brackets": ("[" * 400_000, "yaml/too-deep"),
    "braces": ("{" * 400_000, "yaml/too-deep"),
    "flow keys": ("{a: " * 200_000, "yaml/too-deep"),
    "dashes": ("- " * 200_000, "yaml/too-deep"),
    "question marks": ("? " * 200_000, "yaml/too-deep"),
    "indentation": ("".join(" " * n + "a:\n" for n in range(1000)), "yaml/too-deep"),
    "aliases": (LAUGHS, "yaml/alias"),
    "alias of itself": ("a: &a [*a]", "yaml/alias"),
    "documents": ("---\n" * 260_000, "yaml/too-many-nodes"),
    "the same key": ("k: 1\n" * 200_000, "yaml/too-many-problems"),
    "anchors": ("- &a 1\n" * 100_000, "yaml/too-many-problems"),
    "directives": ("".join(f"%TAG !a{n}! x\n" for n in range(60_000)), "yaml/tag"),
    "commas": ("[" + "," * 1_000_000, "yaml/syntax"),
    "exclamation marks": ("!" * 1_000_000, "yaml/tag"),
    "colons": (":" * 1_000_000, "yaml/syntax"),
    "an open quote": ('"' + "a\n" * 500_000, "yaml/syntax"),
    "blank lines": ("\n" * 1_000_000, "yaml/empty"),
    "a long text": ("a\n" * 500_000, None),
    "digits": ("1" * 1_000_000, "yaml/number"),
    "a tag that is no text": ("!%ED%A0%80 x", "yaml/syntax"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_diagnostics(name: str) -> None:
    text, code = BOMBS[name]
    documents, problems = parse(text.encode(), "a.yaml")
    assert [p.code for p in problems][-1:] == ([code] if code else [])
    assert bool(documents) == (code is None)
    assert len(problems) <= MAX_PROBLEMS + 1


# --- syntax errors ---

SYNTAX: list[tuple[str, tuple[int, int], str]] = [
    ("a:\n\tb: c", (2, 1), "a tab"),
    ("a:\n  b: 1\n\tc: 2", (3, 1), "a tab"),
    ("a: |\n\tx", (2, 1), "a tab"),
    ("- \ta: b", (1, 3), "a tab"),
    ("a: 1\nname foo\nb: 2", (2, 1), "no `: ` after its key"),
    ("a: 1\nb:2\nc: 3", (2, 1), "no `: ` after its key"),
    ("a: b: c", (1, 5), "`:` is not allowed"),
    ("a: 1\n  b: 2", (2, 4), "`:` is not allowed"),
    ("a: [1,2\n", (1, 4), "`]` is missing in the list from line 1"),
    ("x: 1\na: [1\nb: 2\n", (3, 2), "`]` is missing in the list from line 2"),
    ("a: {x: 1\nb: 2\n", (2, 2), "`}` is missing in the mapping from line 1"),
    ("a: ]", (1, 4), "a value is missing before `]`"),
    ("a: [", (1, 5), "a value is missing before the end of the line"),
    ("x: 1\na: 'x\nb: 1\n", (2, 4), "from line 2 is never closed"),
    ('a: "\n---\n"', (2, 1), "from line 1 is never closed"),
    ('a: "x" y', (1, 8), "the value ends before this"),
    ("a: 'it's'", (1, 8), "the value ends before this"),
    ("a: [b]]", (1, 7), "the value ends before this"),
    ("a: @x", (1, 4), "text cannot start with `@`"),
    ("a: `x`", (1, 4), "text cannot start with ```"),
    ("a: %x", (1, 4), "text cannot start with `%`"),
    ("a: *bold* x", (1, 4), "text cannot start with `*`"),
    ("a: & b", (1, 4), "text cannot start with `&`"),
    ("a: !e!x b", (1, 4), "text cannot start with `!`"),
    ("a: ? b", (1, 4), "text cannot start with `? `"),
    ("a: - b", (1, 4), "a list item cannot start here"),
    ("- a\nb: c", (2, 1), "not a `- item` of the list from line 1"),
    ("a:\n  b: 1\n c: 2", (3, 2), "not a `key: value` of the mapping from line 1"),
    ("  a: 1\nb: 2", (2, 1), "does not belong to what stands above"),
    ("a: |x\n b", (1, 5), "may follow `|`"),
    ('a: "\\q"', (1, 5), "this one is unknown"),
    ('a: "\\x4"', (1, 7), "hexadecimal"),
    ('a: "\\ud83d\\ude00"', (1, 7), "not a character"),
    ("%YAML 3.0\n---\na", (1, 1), "YAML 1.x"),
    ("%%\n---\na", (1, 2), "cannot start with `%`"),
    ("😀: 1\n漢: 'x' y", (2, 8), "the value ends before this"),
    ("a: 1\r\nb: @\r\n", (2, 4), "cannot start with `@`"),
]


@pytest.mark.parametrize(("text", "place", "word"), SYNTAX)
def test_syntax_errors_are_told_in_plain_words(text: str, place: tuple[int, int], word: str) -> None:
    (problem,) = problems_of(text)
    assert (problem.code, problem.mark) == ("yaml/syntax", Mark("a.yaml", *place))
    assert word in problem.message
    assert problem.hint


@pytest.mark.parametrize("text", [text for text, _, _ in SYNTAX])
def test_both_loaders_refuse_the_same(text: str) -> None:
    for loader in LOADERS:
        documents, problems = parse(text.encode(), "a.yaml", loader=loader)
        assert documents == []
        assert [p.code for p in problems] == ["yaml/syntax"]


def test_messages_carry_no_long_text_and_no_line_break() -> None:
    long = "k\\n" * 400
    for text in (f'? "{long}"\n: 1\n? "{long}"\n: 2\n', f"a: !{'x' * 500} 1", f"a: &{'x' * 500} 1"):
        (problem,) = problems_of(text)
        assert len(problem.message) < 150
        assert "\n" not in problem.message


# --- any input ---

YAML_LIKE = st.text(st.sampled_from("ab1 \n\t:-[]{},?!&*#|>'\"%@\\~.<é😀\r\x00\u2028\ufeff"), max_size=60)


def check_marks(document: Document) -> None:
    for mark in (*document.marks.values(), *document.keys.values()):
        assert 1 <= mark.line <= len(document.lines)
        assert 1 <= mark.column <= len(document.lines[mark.line - 1]) + 1


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=80) | YAML_LIKE.map(str.encode) | st.text(max_size=80).map(str.encode))
def test_parse_never_raises(data: bytes) -> None:
    for loader in LOADERS:
        documents, problems = parse(data, "a.yaml", loader=loader)
        assert documents or problems
        for document in documents:
            check_marks(document)
            json.dumps(document.value, allow_nan=False).encode()
        for problem in problems:
            assert problem.code.startswith("yaml/")
            assert problem.mark
            assert problem.hint


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**90), 10**90)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


def dump_json(value: Any, indent: int | None) -> str:
    """JSON whose only escapes are of characters that YAML does not take as they are."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    for char in (*CONTROLS, *INVISIBLE):
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


@settings(max_examples=100, deadline=None)
@given(JSON, st.sampled_from([None, 0, 2]))
def test_json_is_read_as_json(value: Any, indent: int | None) -> None:
    for loader in LOADERS:
        document = read(dump_json(value, indent), loader=loader)
        assert document.value == value
        assert json.dumps(document.value) == json.dumps(value)


WORDS = st.text(st.sampled_from("kxyzé漢😀"), min_size=1, max_size=6).map("k".__add__)
BLOCKS = st.recursive(
    WORDS | st.integers(0, 99),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=12,
)


def routes(value: Any, route: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    yield route, value
    entries: Any = ()
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, list):
        entries = enumerate(value)
    for key, inner in entries:
        yield from routes(inner, (*route, key))


@settings(max_examples=100, deadline=None)
@given(BLOCKS, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_every_mark_points_at_its_text(value: Any, line_end: str, flow: bool) -> None:
    text = yaml.safe_dump(value, allow_unicode=True, sort_keys=False, width=60, default_flow_style=flow)
    for loader in LOADERS:
        document = read(text.replace("\n", line_end), loader=loader)
        assert document.value == value
        known = dict(routes(value))
        assert document.marks.keys() == known.keys()
        assert document.keys.keys() == {route for route in known if route and isinstance(route[-1], str)}
        for route, inner in known.items():
            mark = document.marks[route]
            here = document.lines[mark.line - 1][mark.column - 1 :]
            if isinstance(inner, dict):
                assert here.startswith(("{", "?", *inner))
            elif isinstance(inner, list):
                assert here.startswith(("[", "-"))
            else:
                assert here.startswith(str(inner))
        for route, mark in document.keys.items():
            assert document.lines[mark.line - 1][mark.column - 1 :].startswith(str(route[-1]))
