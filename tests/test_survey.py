"""What is in a dataset, against counting by brute force, and in bounded memory."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Iterable, Iterator
from statistics import median_low
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.datasets.dataset import Row
from evalops.datasets.survey import EXACT, MOST_COLUMNS, MOST_VALUES, Column, Survey, survey

cells = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-9, 9),
    st.floats(-2, 2),
    st.text("ab", max_size=3),
    st.just([1]),
    st.just({"x": 1}),
)
tables = st.lists(st.dictionaries(st.sampled_from("abc"), cells), min_size=1, max_size=30)


def found(sources: Iterable[dict[str, Any]]) -> Survey:
    return survey(Row(position, position + 1, source) for position, source in enumerate(sources))


def column(values: Iterable[Any]) -> Column:
    (only,) = found({"a": value} for value in values).columns
    return only


@settings(max_examples=50)
@given(tables)
def test_counts(rows: list[dict[str, Any]]) -> None:
    value = found(rows)
    assert value.rows == len(rows)
    assert value.repeated == len(rows) - len({repr(sorted(row.items())) for row in rows})
    assert {each.name for each in value.columns} == {name for row in rows for name in row}
    for each in value.columns:
        there = [row[each.name] for row in rows if each.name in row]
        filled = [cell for cell in there if cell is not None and cell != ""]
        assert each.absent == len(rows) - len(there)
        assert each.empties == len(there) - len(filled)
        assert sum(each.types.values()) == len(filled)
        assert each.is_exact and each.distinct == len({repr(cell) for cell in filled})
        texts = [len(cell) for cell in filled if isinstance(cell, str)]
        assert each.lengths == ((min(texts), median_low(texts), max(texts)) if texts else None)
        numbers = [cell for cell in filled if isinstance(cell, int | float) and not isinstance(cell, bool)]
        assert each.numbers == ((min(numbers), max(numbers)) if numbers else None)


def test_the_values_of_a_column_with_few() -> None:
    assert column(["b", "a", "b", "", None, "c", "a", "b"]).values == {"b": 3, "a": 2, "c": 1}
    assert column([True, False, True]).values == {"true": 2, "false": 1}
    assert column(["x", "y"]).values is None  # nothing repeats: these are no categories
    assert column([*map(str, range(MOST_VALUES + 1)), "1"]).values is None
    assert column(["x" * 1000] * 2).values is None


def test_a_number_is_no_text() -> None:
    assert column([1, "1", 1.0, True]).types == {"number": 2, "text": 1, "boolean": 1}


def test_many_values_are_estimated() -> None:
    for count in (EXACT, EXACT + 1, 5 * EXACT):
        value = column(number % count for number in range(count + 100))
        assert value.is_exact is (count <= EXACT)
        assert abs(value.distinct - count) <= (0 if value.is_exact else 0.06 * count)


def test_long_texts_have_lengths_of_four_digits() -> None:
    assert column(["x" * 9_999, "x" * 12_345, "x" * 123_456]).lengths == (9_999, 12_340, 123_400)


def test_so_many_columns_are_looked_at() -> None:
    value = found([{f"c{number}": number for number in range(MOST_COLUMNS + 5)}])
    assert len(value.columns) == MOST_COLUMNS and value.more
    assert not found([{"a": 1}]).more


def test_the_first_rows_are_kept_as_they_are() -> None:
    rows = [{"a": number, "b": "\x1b[31m"} for number in range(9)]
    assert list(found(rows).first) == rows[:3]


def test_half_a_character() -> None:
    assert column(["\ud800", "\ud800"]).distinct == 1


@pytest.mark.slow
def test_a_long_dataset_takes_no_more_memory() -> None:
    def rows(count: int) -> Iterator[dict[str, Any]]:
        return (
            {"a": f"{number} {'x' * 300}", "b": number, "c": number % 7, f"d{number}": 1} for number in range(count)
        )

    def peak(count: int) -> int:
        tracemalloc.start()
        found(rows(count))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    assert peak(80_000) < 1.2 * peak(20_000)


def test_counter_is_in_the_order_of_how_often() -> None:
    values = ["c", *"bb", *"aaa"]
    assert list((column(values).values or {}).items()) == Counter(values).most_common()
