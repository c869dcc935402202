"""Parquet datasets: the same rows as their JSONL twin, and clear errors."""

from __future__ import annotations

import datetime
import io
import json
import random
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.datasets import dataset
from evalops.datasets.dataset import Uses
from evalops.errors import EvalopsError, Mark

ROWS = [{"text": f"row {n}", "n": n, "share": n / 7, "tags": ["a", str(n)], "more": {"x": None}} for n in range(2_500)]


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [row.source for row in dataset.read(lambda: path.open("rb"), path.name)]


def digests(path: Path) -> Any:
    use = Uses(path=path.name, columns=(), submitted=("n", "text"), responses=(), grading=(), id=None)
    return dataset.scan(lambda: path.open("rb"), use, Mark)


def test_a_parquet_file_is_the_same_dataset_as_its_jsonl_twin(tmp_path: Path) -> None:
    twin = tmp_path / "rows.jsonl"
    twin.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert read(parquet(tmp_path / "rows.parquet", ROWS)) == read(twin)
    assert digests(tmp_path / "rows.parquet") == digests(twin)


def test_values_that_json_does_not_have_become_those_it_has(tmp_path: Path) -> None:
    noon = datetime.datetime(2026, 1, 2, 12, 0)
    row = {"day": noon.date(), "at": noon, "price": Decimal("1.50"), "share": float("nan"), "gone": None}
    path = parquet(tmp_path / "rows.parquet", [row])
    assert read(path) == [
        {"day": "2026-01-02", "at": "2026-01-02T12:00:00", "price": "1.50", "share": None, "gone": None}
    ]


@given(st.lists(st.fixed_dictionaries({"a": st.none() | st.text(), "b": st.integers(-(2**60), 2**60)}), min_size=1))
def test_every_row_comes_back(rows: list[dict[str, Any]]) -> None:
    sink = io.BytesIO()
    schema = pyarrow.schema([("a", pyarrow.string()), ("b", pyarrow.int64())])
    kept = [row for row in rows if row["a"] is None or row["a"].isprintable()]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(kept, schema=schema), sink)
    found = dataset.read(lambda: io.BytesIO(sink.getvalue()), "rows.parquet")
    if kept:
        assert [row.source for row in found] == kept
    else:
        with pytest.raises(EvalopsError, match="has no rows"):
            list(found)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"no parquet at all", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_what_is_no_parquet_file_is_an_error_that_names_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rows.parquet"
    path.write_bytes(content)
    with pytest.raises(EvalopsError, match="cannot be read") as caught:
        read(path)
    assert caught.value.diagnostics[0].mark == Mark("rows.parquet")


def test_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvalopsError, match="row 2 on: it holds a value of type bytes"):
        read(parquet(tmp_path / "rows.parquet", [{"image": None}, {"image": b"\x89PNG"}]))


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table([["x"], ["y"], ["z"]], names=["text", "n", "text"]), path)
    with pytest.raises(EvalopsError, match="row 1 on: it has more than one column `text`"):
        read(path)


@pytest.mark.slow
def test_a_file_of_one_group_of_rows_is_not_held_at_once(tmp_path: Path) -> None:
    rows = [{"text": random.Random(number).randbytes(500).hex()} for number in range(40_000)]
    path = tmp_path / "rows.parquet"
    table = pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, path, row_group_size=len(rows), use_dictionary=False)
    code = (
        "import pyarrow, sys; from evalops.datasets import dataset; path = sys.argv[1]\n"
        "print(sum(1 for _ in dataset.read(lambda: open(path, 'rb'), path)), pyarrow.default_memory_pool().max_memory())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    count, most = map(int, done.stdout.split())
    assert count == len(rows)
    assert path.stat().st_size > 38 << 20
    assert most < 20 << 20
