"""Rows as a stream: what a row is, what is wrong with a file, digests, and the keys that name rows."""

from __future__ import annotations

import csv
import io
import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from evaluations import evaluation
from hypothesis import given
from hypothesis import strategies as st

from evalops.datasets import dataset
from evalops.datasets.dataset import SHOWN, Row, Uses, keys, read, scan
from evalops.datasets.formats import LONGEST_ROW
from evalops.errors import EvalopsError, Mark
from evalops.fingerprint import Digests

SPEC = Mark("tone.yaml", 9, 3)


def use(
    *submitted: str,
    path: str = "rows.jsonl",
    responses: tuple[str, ...] = (),
    grading: tuple[str, ...] = (),
    id: str | None = None,  # noqa: A002
    columns: dict[str, str] | None = None,
) -> Uses:
    return Uses(
        path=path,
        columns=tuple((columns or {}).items()),
        submitted=submitted,
        responses=responses,
        grading=grading,
        id=id,
    )


def rows(data: bytes | str, path: str = "rows.jsonl", columns: tuple[tuple[str, str], ...] = ()) -> list[Row]:
    raw = data.encode() if isinstance(data, str) else data
    return list(read(lambda: io.BytesIO(raw), path, columns))


def scanned(data: str, uses: Uses) -> tuple[Digests, list[tuple[str, Mark | None]]]:
    digests, problems = scan(lambda: io.BytesIO(data.encode()), uses, lambda column: SPEC)
    return digests, [(each.code, each.mark) for each in problems]


def refused(data: bytes | str, path: str = "rows.jsonl", columns: tuple[tuple[str, str], ...] = ()) -> tuple[str, str]:
    with pytest.raises(EvalopsError) as caught:
        rows(data, path, columns)
    (problem,) = caught.value.diagnostics
    return f"{problem.mark} {problem.code}", problem.message


def jsonl(values: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(each) + "\n" for each in values)


# --- reading ---


def test_jsonl() -> None:
    text = '\ufeff{"a": "x\u2028y"}\r\n\r\n  \n{"a": 1.5, "b": [null, {"c": true}]}'
    assert rows(text) == [Row(0, 1, {"a": "x\u2028y"}), Row(1, 4, {"a": 1.5, "b": [None, {"c": True}]})]


def test_files_that_were_put_together() -> None:
    assert [row.source for row in rows('\ufeff{"a": 1}\n\ufeff{"a": 2}\n\ufeff\n')] == [{"a": 1}, {"a": 2}]


def test_csv() -> None:
    text = '\ufeffa,b\r\nx,"1, ""2""\n3"\r\n\r\n007,\r\n'
    assert rows(text, "rows.CSV") == [Row(0, 2, {"a": "x", "b": '1, "2"\n3'}), Row(1, 5, {"a": "007", "b": ""})]


def test_a_cell_is_data() -> None:
    (row,) = rows('{"a": "{{ 7*7 }}{% for x in y %}"}\n')
    assert row.source == {"a": "{{ 7*7 }}{% for x in y %}"}


def test_new_names() -> None:
    assert rows('{"q": 1, "b": 2}\n', columns=(("a", "q"),))[0].source == {"a": 1, "b": 2}
    assert rows("q,b\n1,2\n", "x.csv", (("a", "q"), ("c", "none")))[0].source == {"a": "1", "b": "2"}
    assert rows('{"a": 1, "b": 2}\n', columns=(("a", "b"), ("b", "a")))[0].source == {"a": 2, "b": 1}


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ("[1]\n", "rows.jsonl:1:1 dataset/row", "row 1 is a list, not an object"),
        ('{"a": 1}\n"x"\n', "rows.jsonl:2:1 dataset/row", "row 2 is text, not an object"),
        ("\n\nnull", "rows.jsonl:3:1 dataset/row", "row 1 is null, not an object"),
        ("7\n", "rows.jsonl:1:1 dataset/row", "row 1 is a single value, not an object"),
        ('{"a": 1,}\n', "rows.jsonl:1:9 dataset/row",
         "row 1 is not JSON: expecting property name enclosed in double quotes"),
        ('{"a": Infinity}', "rows.jsonl:1:1 dataset/row", "row 1 cannot be read: Infinity is no JSON number"),
        ('{"a": -1e999}', "rows.jsonl:1:1 dataset/row", "row 1 cannot be read: -1e999 is too large for a number"),
        ('{"a": ' + "9" * 5000 + "}", "rows.jsonl:1:1 dataset/row",
         "row 1 cannot be read: a number has 5,000 digits, at most 100 are allowed"),
        ('{"a": ' + "[" * 100_000 + "}", "rows.jsonl:1:1 dataset/row", "row 1 cannot be read: it is nested too deeply"),
        (b'{"a": "\xff"}\n', "rows.jsonl:1:1 dataset/encoding", "this line is not UTF-8"),
        ('{"a": "' + "x" * LONGEST_ROW, "rows.jsonl:1:1 dataset/row-size", "row 1 is longer than 16 MiB"),
        ("", "rows.jsonl dataset/empty", "`rows.jsonl` has no rows"),
        (" \n\n", "rows.jsonl dataset/empty", "`rows.jsonl` has no rows"),
    ],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_a_row_that_cannot_be_read(data: bytes | str, place: str, message: str) -> None:
    assert refused(data) == (place, message)


@pytest.mark.parametrize(
    ("data", "place", "message"),
    [
        ("a,b\n1\n", "x.csv:2:1 dataset/row", "row 1 has 1 cell, the header has 2"),
        ('a,b\n"1\n2",3\n4,5,6\n', "x.csv:4:1 dataset/row", "row 2 has 3 cells, the header has 2"),
        ("a,a\n1,2\n", "x.csv:1:1 dataset/header", "the header names `a` twice"),
        ("a, \n1,2\n", "x.csv:1:1 dataset/header", "a column of the header has no name"),
        ('a,b\n1,2\n"x,y\n', "x.csv:3:1 dataset/row", "row 2 is not CSV: unexpected end of data"),
        ('a,b\n"x"y,z\n', "x.csv:2:1 dataset/row", "row 1 is not CSV: ',' expected after '\"'"),
        (b"a,b\n" + b"1,2\n" * 9000 + b"\xff,2\n", "x.csv:9002:1 dataset/encoding", "this line is not UTF-8"),
        ("a,b\n", "x.csv dataset/empty", "`x.csv` has no rows"),
        ("", "x.csv dataset/empty", "`x.csv` has no rows"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_csv_file_that_cannot_be_read(data: bytes | str, place: str, message: str) -> None:
    assert refused(data, "x.csv") == (place, message)


@pytest.mark.parametrize("path", ["rows.json", "rows.xlsx", "rows", "rows.jsonl.gz"])
def test_what_is_no_dataset(path: str) -> None:
    assert refused("{}", path) == ("None dataset/format", f"`{path}` is no dataset")


def test_two_columns_of_one_name() -> None:
    assert refused('{"q": 1, "a": 2}\n', columns=(("a", "q"),))[1] == (
        "`dataset.columns` calls `q` `a`, and this row has another column of that name"
    )


# --- what an evaluation needs ---

DATA = jsonl([{"q": "one", "r": "x", "gold": "a"}, {"q": "two", "r": "y", "gold": "b"}])


def test_what_is_in_order() -> None:
    digests, problems = scanned(DATA, use("q", "r", responses=("r",), grading=("gold",), id="q"))
    assert problems == []
    assert digests.rows == 2
    assert digests.characters == sum(len(f'{{"q":"{q}","r":"{r}"}}') for q, r in (("one", "x"), ("two", "y")))


@pytest.mark.parametrize("needs", [use("x"), use("q", id="x"), use("q", grading=("x",))])
def test_a_column_that_is_not_there_is_a_problem_of_the_spec(needs: Uses) -> None:
    with pytest.raises(EvalopsError, match="has no column `x`") as caught:
        scanned(DATA, needs)
    assert caught.value.diagnostics[0].mark == SPEC


def test_all_missing_columns_at_once() -> None:
    with pytest.raises(EvalopsError) as caught:
        scanned(DATA, use("gld", "x"))
    assert [(each.message, each.hint) for each in caught.value.diagnostics] == [
        ("`rows.jsonl` has no column `gld`", "did you mean `gold`?"),
        ("`rows.jsonl` has no column `x`", "the first row has: q, r, gold"),
    ]


def test_a_renamed_column_is_named_as_in_the_file() -> None:
    with pytest.raises(EvalopsError) as caught:
        scanned(DATA, use("answer", columns={"answer": "rr"}))
    assert (
        caught.value.diagnostics[0].message == "`rows.jsonl` has no column `rr`, which `dataset.columns` calls `answer`"
    )


def test_a_row_without_a_field() -> None:
    data = jsonl([{"q": 1, "r": 2}] + [{"q": 1}] * (SHOWN + 3))
    _, problems = scanned(data, use("q", "r"))
    assert problems == [
        *(("dataset/missing-field", Mark("rows.jsonl", line, 1)) for line in range(2, SHOWN + 2)),
        ("dataset/more", Mark("rows.jsonl", SHOWN + 2, 1)),
    ]


def test_a_gold_value_may_be_missing_in_some_rows() -> None:
    _, problems = scanned(jsonl([{"q": 1}, {"q": 2, "gold": "a"}]), use("q", grading=("gold",)))
    assert problems == []


def test_empty_fields_are_warned_of_and_counted() -> None:
    data = jsonl([{"q": value} for value in ["x", "", None, 0, False, [], "", "", "", "", ""]])
    _, problems = scan(lambda: io.BytesIO(data.encode()), use("q"), lambda column: SPEC)
    assert [(each.code, each.is_error, each.message) for each in problems] == [
        ("dataset/empty-field", False, "the column `q` is empty in rows 2, 3, 7, 8, 9 and 2 more")
    ]


def test_names_of_rows_are_unique_and_never_empty() -> None:
    data = jsonl(
        [{"n": "a", "q": 1}, {"n": "b", "q": 1}, {"n": "a", "q": 1}, {"n": "", "q": 1}, {"n": None, "q": 1}, {"q": 1}]
    )
    _, problems = scanned(data, use("q", id="n"))
    assert problems == [("dataset/id", Mark("rows.jsonl", line, 1)) for line in (3, 4, 5, 6)]


# --- digests ---


def test_columns_not_in_use_change_the_digest_of_the_file_only() -> None:
    needs = use("q", grading=("gold",))
    one, _ = scanned(DATA, needs)
    two, _ = scanned(DATA.replace('"r": "x"', '"r": "z"'), needs)
    assert one.dataset != two.dataset
    assert (one.submitted, one.grading, one.rows, one.characters) == (
        two.submitted,
        two.grading,
        two.rows,
        two.characters,
    )


def test_gold_changes_the_digest_of_grading_only() -> None:
    needs = use("q", grading=("gold",))
    one, _ = scanned(DATA, needs)
    two, _ = scanned(DATA.replace('"gold": "a"', '"gold": "b"'), needs)
    assert one.grading != two.grading
    assert one.submitted == two.submitted


def test_the_way_a_row_is_written_says_nothing() -> None:
    needs = use("q", "r", grading=("gold",))
    other = '\ufeff{"gold":"a","r":"\\u0078","q":"one"}\r\n\r\n{"r": "y", "gold": "b", "q": "two"}'
    assert scanned(DATA, needs) == scanned(other, needs)


def test_csv_and_jsonl_of_the_same_texts_are_the_same_rows() -> None:
    stream = io.StringIO()
    csv.writer(stream).writerows([["gold", "q", "r"], ["a", "one", "x"], ["b", "two", "y"]])
    needs = use("q", "r", grading=("gold",))
    assert scanned(DATA, needs)[0] == scanned(stream.getvalue(), use("q", "r", path="x.csv", grading=("gold",)))[0]


@pytest.mark.parametrize(
    "data",
    [
        DATA.replace("one", "onE"),
        DATA.replace('"one"', "1"),
        "".join(reversed(DATA.splitlines(keepends=True))),
        DATA + DATA,
        DATA.splitlines()[0],
        DATA.replace('"q": "one", "r": "x"', '"q": "x", "r": "one"'),
    ],
)
def test_other_rows_have_another_digest(data: str) -> None:
    assert scanned(data, use("q", "r"))[0].submitted != scanned(DATA, use("q", "r"))[0].submitted


# --- keys ---


def named(values: list[dict[str, Any]], needs: Uses) -> list[str]:
    return [key for key, _ in keys((Row(i, i + 1, each) for i, each in enumerate(values)), needs)]


def test_a_row_is_known_by_what_it_asks_not_by_what_was_answered() -> None:
    needs = use("q", "r", responses=("r",))
    one = named([{"q": 1, "r": "x"}, {"q": 2, "r": "x"}], needs)
    two = named([{"q": 2, "r": "other"}, {"q": 1, "r": "other"}], needs)
    assert one == list(reversed(two))
    assert len(set(one)) == 2


def test_rows_of_the_same_content_are_numbered() -> None:
    found = named([{"q": 1}, {"q": 2}, {"q": 1}, {"q": 1}], use("q"))
    assert found[2:] == [f"{found[0]}#2", f"{found[0]}#3"]
    assert len(found[0]) == 16


def test_a_named_row_keeps_its_key_whatever_else_changes() -> None:
    needs = use("q", id="n")
    assert named([{"n": "a", "q": 1}], needs) == named([{"n": "a", "q": 2, "x": 3}], needs)
    assert named([{"n": 1, "q": 1}], needs) != named([{"n": "1", "q": 1}], needs)


ROWS = st.lists(st.dictionaries(st.sampled_from("pqr"), st.integers(0, 2) | st.sampled_from(["", "x"])), max_size=12)


@given(ROWS)
def test_keys_are_unique(values: list[dict[str, Any]]) -> None:
    found = named(values, use("q", responses=("r",)))
    assert len(set(found)) == len(values)


@given(ROWS.filter(bool), st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_key(values: list[dict[str, Any]], random: Any) -> None:
    shuffled = random.sample(values, len(values))
    assert sorted(named(values, use("q"))) == sorted(named(shuffled, use("q")))


@given(
    st.lists(st.dictionaries(st.text(min_size=1), st.text() | st.none() | st.integers(-(10**30), 10**30)), min_size=1)
)
def test_what_json_holds_is_what_is_read(values: list[dict[str, Any]]) -> None:
    text = "".join(json.dumps(each) + "\n" for each in values)
    assert [row.source for row in rows(text)] == values


@given(
    st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0")), min_size=2, max_size=2
        ),
        min_size=1,
    )
)
def test_what_csv_holds_is_what_is_read(values: list[list[str]]) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows([["a", "b"], *values])
    assert [list(row.source.values()) for row in rows(stream.getvalue(), "x.csv")] == values


# --- memory ---


class Lines(io.RawIOBase):
    """So many rows, made while they are read."""

    def __init__(self, count: int) -> None:
        self.parts: Iterator[bytes] = (b'{"q": "%d", "r": "some text"}\n' % number for number in range(count))

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = next(self.parts, b"")
        buffer[: len(part)] = part
        return len(part)


def test_a_scan_holds_no_rows() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        digests, _ = scan(lambda: io.BufferedReader(Lines(count)), use("q", "r", id="q"), lambda column: SPEC)
        assert digests.rows == count
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(100)
    assert peak(12_000) < 1.5 * peak(1_000)


def test_uses_are_what_an_evaluation_names() -> None:
    found = dataset.uses(
        evaluation(
            model_to_evaluate="reply", gold="label", dataset={"path": "x.csv", "id": "n", "columns": {"reply": "r"}}
        ),
        {"question", "reply"},
    )
    assert found == use(
        "question", "reply", path="x.csv", responses=("reply",), grading=("label",), id="n", columns={"reply": "r"}
    )
    assert dataset.uses(evaluation(judge={"column": "verdict"}), ()).submitted == ("response", "verdict")


# --- rows that would fill the memory ---


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,b\n", "x," * LONGEST_ROW], "row 1 is not CSV: it is longer than 16 MiB"),
        (["a,b\n", "1,2\n", *['"' + "y" * 1_000_000 + '\n",'] * 20], "row 2 is not CSV: it is longer than 16 MiB"),
        (["a" * (LONGEST_ROW + 2)], "row 1 is not CSV: it is longer than 16 MiB"),
    ],
    ids=["one line", "many lines", "header"],
)
def test_a_row_of_a_csv_file_has_an_end(lines: list[str], message: str) -> None:
    assert refused("".join(lines), "rows.csv")[1] == message


def test_long_rows_of_a_csv_file_one_by_one() -> None:
    row = '"' + ("x" * 1_000_000 + "\n") * 9 + '"\n'
    assert len(rows("a\n" + row * 3, "rows.csv")) == 3


# --- rows that stand in a spec ---


def test_rows_have_the_places_they_are_given() -> None:
    marks = [Mark("tone.yaml", 7, 5), Mark("tone.yaml", 9, 5)]
    data = b'{"a": 1}\n{"b": 2}\n'
    found = list(read(lambda: io.BytesIO(data), "anything", (), marks))
    assert found == [Row(0, 7, {"a": 1}), Row(1, 9, {"b": 2})]


def test_the_digests_of_a_file_that_nobody_has_read() -> None:
    one = dataset.unread("0" * 64, use("q", grading=("gold",)))
    assert (one.rows, one.characters) == (None, None)
    others = [
        dataset.unread("1" * 64, use("q", grading=("gold",))),
        dataset.unread("0" * 64, use("q", "r", grading=("gold",))),
        dataset.unread("0" * 64, use("q", grading=("other",))),
    ]
    assert [other.submitted == one.submitted for other in others] == [False, False, True]
    assert [other.dataset == one.dataset for other in others] == [False, True, True]
    assert [other.grading == one.grading for other in others] == [False, True, False]
    assert dataset.unread("0" * 64, use("q")).grading == ""
