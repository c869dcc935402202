"""A sample of a dataset: stable, without bias, in proportion, and no larger in memory than itself."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.datasets import sampling
from evalops.datasets.dataset import Row, Uses
from evalops.datasets.sampling import MOST_STRATA, shares
from evalops.errors import EvalopsError, Mark
from evalops.spec import Sample

Source = dict[str, Any]

sources = st.lists(st.fixed_dictionaries({"a": st.integers(0, 30), "kind": st.sampled_from("xyz")}), min_size=1)
sizes = st.integers(1, 40)
counts = st.dictionaries(st.text(max_size=3), st.integers(1, 50), min_size=1, max_size=12)


def reader(rows: Sequence[Source]) -> Callable[[], Iterator[Row]]:
    return lambda: (Row(position, position + 1, dict(source)) for position, source in enumerate(rows))


def sampled(
    rows: Sequence[Source], size: int, seed: int = 0, by: str | None = None, key: str | None = None
) -> list[Row]:
    use = Uses(
        path="rows.jsonl", columns=(), submitted=(), responses=(), grading=(), id=key, sample=Sample(size, seed, by)
    )
    return list(sampling.rows(reader(rows), use))


def contents(rows: Sequence[Row]) -> Counter[tuple[Any, ...]]:
    return Counter(tuple(sorted(row.source.items())) for row in rows)


@settings(max_examples=40)
@given(sources, sizes, st.integers(0, 3))
def test_it_is_so_many_rows_of_the_dataset_in_its_order(rows: list[Source], size: int, seed: int) -> None:
    found = sampled(rows, size, seed)
    assert len(found) == min(size, len(rows))
    assert [row.position for row in found] == sorted({row.position for row in found})
    assert all(row.source == rows[row.position] for row in found)
    assert found == sampled(rows, size, seed)


@settings(max_examples=40)
@given(sources, sources, sizes)
def test_rows_that_are_added_only_push_others_over_the_edge(rows: list[Source], more: list[Source], size: int) -> None:
    before, after = contents(sampled(rows, size)), contents(sampled([*rows, *more], size))
    assert (after - before).total() <= len(more)
    assert not (after - before) - Counter(tuple(sorted(row.items())) for row in more)  # what is new in it was added


@settings(max_examples=40)
@given(sources, sizes, st.randoms())
def test_the_order_of_the_rows_says_nothing(rows: list[Source], size: int, chance: Any) -> None:
    mixed = list(rows)
    chance.shuffle(mixed)
    assert contents(sampled(rows, size)) == contents(sampled(mixed, size))


@settings(max_examples=40)
@given(sources, sizes)
def test_a_larger_sample_holds_the_smaller_one(rows: list[Source], size: int) -> None:
    assert {row.position for row in sampled(rows, size)} <= {row.position for row in sampled(rows, size + 1)}


def test_another_seed_is_another_sample() -> None:
    rows = [{"a": number} for number in range(100)]
    assert contents(sampled(rows, 20)) != contents(sampled(rows, 20, seed=1))


def test_rows_are_known_by_their_id_where_there_is_one() -> None:
    rows = [{"id": str(number), "a": 0} for number in range(50)]
    edited = [{**row, "a": 1} for row in rows]
    known = [[row.source["id"] for row in sampled(each, 10, key="id")] for each in (rows, edited)]
    assert known[0] == known[1]
    assert [row.source["id"] for row in sampled(edited, 10)] != [row.source["id"] for row in sampled(rows, 10)]


def test_equal_rows_are_chosen_one_by_one() -> None:
    """Half of the rows are alike: about half of a sample is, and neither all nor none."""
    rows = [{"a": number if number % 2 else "same"} for number in range(2_000)]
    shares_ = [sum(row.source["a"] == "same" for row in sampled(rows, 200, seed)) / 200 for seed in range(10)]
    assert min(shares_) > 0.4 and max(shares_) < 0.6
    assert len({round(share, 3) for share in shares_}) > 1


def test_every_row_has_the_same_chance() -> None:
    rows = [{"a": number} for number in range(60)]
    hits = Counter(row.position for seed in range(400) for row in sampled(rows, 15, seed))
    assert set(hits) == set(range(60))
    # 100 each; 5 standard deviations of a binomial are 43
    assert all(abs(count - 100) < 44 for count in hits.values())


# --- in proportion ---


@settings(max_examples=40)
@given(counts, sizes)
def test_shares(found: dict[str, int], size: int) -> None:
    total = sum(found.values())
    given_ = shares(found, size)
    assert set(given_) == set(found)
    assert sum(given_.values()) == min(size, total)
    assert all(0 <= given_[name] <= count for name, count in found.items())
    if size >= len(found):
        assert all(given_.values())
    if all(count * size >= total for count in found.values()):  # none is too small for its share
        assert all(abs(given_[name] - size * count / total) < 1 for name, count in found.items() if size < total)


@settings(max_examples=40)
@given(counts, sizes)
def test_who_has_more_rows_has_no_smaller_share(found: dict[str, int], size: int) -> None:
    given_ = shares(found, size)
    for one, more in ((one, more) for one in found for more in found if found[one] < found[more]):
        assert given_[one] <= given_[more] + 1


@pytest.mark.parametrize(
    ("found", "size", "expected"),
    [
        ({"a": 50, "b": 30, "c": 20}, 10, {"a": 5, "b": 3, "c": 2}),
        ({"a": 98, "b": 1, "c": 1}, 10, {"a": 8, "b": 1, "c": 1}),
        ({"a": 1, "b": 1, "c": 1}, 2, {"a": 1, "b": 1, "c": 0}),
        ({"a": 5, "b": 4}, 100, {"a": 5, "b": 4}),
    ],
)
def test_shares_by_hand(found: dict[str, int], size: int, expected: dict[str, int]) -> None:
    assert shares(found, size) == expected


@settings(max_examples=40)
@given(sources, sizes)
def test_each_value_gets_its_share(rows: list[Source], size: int) -> None:
    found = sampled(rows, size, by="kind")
    got = Counter(row.source["kind"] for row in found)
    assert len(found) == min(size, len(rows))
    assert sorted(got.values()) == sorted(
        share for share in shares(Counter(row["kind"] for row in rows), size).values() if share
    )


def test_rows_without_a_value_are_a_group_of_their_own() -> None:
    rows: list[Source] = [{"a": n, "kind": "x"} for n in range(8)] + [{"a": 8}, {"a": 9, "kind": None}]
    assert [row.source["a"] > 7 for row in sampled(rows, 5, by="kind")].count(True) == 1


def test_a_column_that_is_not_there() -> None:
    use = Uses(
        path="x.csv", columns=(), submitted=(), responses=(), grading=(), id=None, sample=Sample(1, 0, "catgory")
    )
    with pytest.raises(EvalopsError) as caught:
        list(sampling.rows(reader([{"category": "x"}]), use, lambda column: Mark("tone.yaml", 3, len(column))))
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.mark) == ("dataset/missing-column", Mark("tone.yaml", 3, 7))
    assert problem.hint == "did you mean `category`?"


def test_a_column_with_too_many_values() -> None:
    with pytest.raises(EvalopsError) as caught:
        sampled([{"a": number} for number in range(MOST_STRATA + 1)], 5, by="a")
    assert caught.value.diagnostics[0].code == "dataset/strata"


# --- size ---


@pytest.mark.slow
def test_a_long_dataset_takes_the_memory_of_the_sample() -> None:
    def read() -> Iterator[Row]:
        return (Row(number, number + 1, {"a": f"{number} {'x' * 500}", "kind": number % 3}) for number in range(60_000))

    use = Uses(path="x.csv", columns=(), submitted=(), responses=(), grading=(), id=None, sample=Sample(100, 0, "kind"))
    tracemalloc.start()
    assert sum(1 for _ in sampling.rows(read, use)) == 100
    assert tracemalloc.get_traced_memory()[1] < 2 << 20
    tracemalloc.stop()
