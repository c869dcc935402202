"""Agreement of several opinions: Krippendorff's published figures, brute force over pairs, and simulated variances."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.stats import agreement

# K. Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), section C: four observers, twelve units.
OBSERVERS = [
    [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
]
UNITS = [tuple(float(value) for value in unit if value is not None) for unit in zip(*OBSERVERS, strict=True)]


def named(rows: Sequence[tuple[float, ...]]) -> Counter[tuple[str, ...]]:
    return Counter(tuple(str(value) for value in row) for row in rows)


def test_alpha_is_as_published() -> None:
    assert agreement.alpha_of_labels(named(UNITS)).value == pytest.approx(0.743, abs=5e-4)
    scores = agreement.alpha_of_scores(Counter(UNITS))
    assert scores.value == pytest.approx(0.849, abs=5e-4)
    assert scores.n == 11  # the unit of one observer says nothing
    assert scores.low is not None and scores.high is not None and scores.low < 0.849 < scores.high <= 1


def alpha_by_pairs(rows: Sequence[tuple[float, ...]], *, nominal: bool) -> float | None:
    """1 - observed / expected disagreement, from all ordered pairs within rows and over all of them."""

    def apart(a: float, b: float) -> float:
        return float(a != b) if nominal else (a - b) ** 2

    rows = [row for row in rows if len(row) > 1]
    values = [value for row in rows for value in row]
    observed = sum(sum(apart(a, b) for a, b in permutations(row, 2)) / (len(row) - 1) for row in rows) / max(
        1, len(values)
    )
    expected = sum(apart(a, b) for a, b in permutations(values, 2)) / max(1, len(values) * (len(values) - 1))
    return None if expected == 0 else 1 - observed / expected


opinions = st.lists(
    st.lists(st.sampled_from([1.0, 2.0, 2.5, 4.0]), max_size=4).map(tuple), max_size=12
)  # fmt: skip


@given(opinions)
def test_alpha_is_that_of_all_pairs(rows: list[tuple[float, ...]]) -> None:
    for nominal in (True, False):
        expected = alpha_by_pairs(rows, nominal=nominal)
        found = agreement.alpha_of_labels(named(rows)) if nominal else agreement.alpha_of_scores(Counter(rows))
        if expected is None:
            assert found.value is None and found.reason
        else:
            assert found.value == pytest.approx(expected, abs=1e-12)
            if found.low is not None and found.high is not None:
                assert found.low <= found.value <= found.high


@given(opinions, st.randoms())
def test_neither_the_order_of_rows_nor_of_judges_matters(rows: list[tuple[float, ...]], chance: object) -> None:
    mixed = [tuple(sorted(row, key=lambda _: chance.random())) for row in rows]  # type: ignore[attr-defined]
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    assert agreement.alpha_of_scores(Counter(rows)) == agreement.alpha_of_scores(Counter(mixed))
    assert agreement.flip_rate(Counter(rows)) == agreement.flip_rate(Counter(mixed))


def test_the_scale_of_scores_does_not_matter() -> None:
    rows = [(1e-9, 3e-9), (2e-9, 2e-9), (5e-9, 4e-9)]
    shifted = [tuple(1e9 * value + 7 for value in row) for row in rows]
    found = [agreement.alpha_of_scores(Counter(each)).value for each in (rows, shifted)]
    assert found[0] == pytest.approx(alpha_by_pairs(rows, nominal=False)) == pytest.approx(found[1])


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "no row has two opinions"),
        ([("a",), ("b",), ()], "no row has two opinions"),
        ([("a", "a")] * 30, "all opinions are the same, so chance agrees always"),
    ],
)
def test_alpha_has_a_reason_where_it_has_no_value(rows: list[tuple[str, ...]], reason: str) -> None:
    found = agreement.alpha_of_labels(Counter(rows))
    assert (found.value, found.reason) == (None, reason)


def test_constant_scores_that_no_float_holds_exactly_have_no_alpha() -> None:
    assert agreement.alpha_of_scores({(0.1, 0.1, 0.1): 7}).value is None


def test_alpha_has_no_interval_where_nearly_nothing_differs_or_rows_are_few() -> None:
    nearly = agreement.alpha_of_labels({("a", "a"): 99, ("b", "b"): 1})
    assert nearly.value == 1.0 and nearly.low is None and nearly.reason
    few = agreement.alpha_of_labels({("a", "a"): 3, ("b", "b"): 3, ("a", "b"): 1})
    assert few.value is not None and few.low is None and few.reason


def test_alpha_of_a_million_rows() -> None:
    found = agreement.alpha_of_labels({("a", "a", "a"): 600_000, ("b", "b", "b"): 300_000, ("a", "b", "b"): 100_000})
    assert found.value is not None and found.low is not None and found.high is not None
    assert found.high - found.low < 0.003 and found.n == 1_000_000


# --- repeats ---


def test_the_flip_rate_counts_rows_that_are_not_of_one_mind() -> None:
    found = agreement.flip_rate({("a", "a", "a"): 6, ("a", "b", "a"): 2, ("b",): 5, (): 3})
    assert (found.value, found.n) == (0.25, 8)
    assert found.low is not None and found.high is not None and found.low < 0.25 < found.high
    assert agreement.flip_rate({("a",): 4}).reason == "no row has two opinions"


@given(st.lists(st.lists(st.integers(1, 5).map(float), min_size=3, max_size=3).map(tuple), min_size=2, max_size=15))
def test_the_components_of_balanced_rows_are_those_of_the_analysis_of_variance(rows: list[tuple[float, ...]]) -> None:
    table = np.array(rows)
    within = float(table.var(axis=1, ddof=1).mean())
    between = float(table.mean(axis=1).var(ddof=1)) - within / 3
    found = agreement.components(Counter(rows))
    assert found is not None
    assert tuple(found) == pytest.approx((max(0.0, between), within), abs=1e-9)


def test_the_components_of_rows_of_any_number_of_opinions_are_unbiased() -> None:
    chance, found = np.random.default_rng(6), []
    for _ in range(300):
        rows = [tuple(chance.normal(chance.normal(3, 1.0), 0.5, size).tolist()) for size in (1, 2, 2, 3, 5) * 8]
        parts = agreement.components(Counter(rows))
        assert parts is not None
        found.append(parts)
    assert np.mean([each.between for each in found]) == pytest.approx(1.0, abs=0.05)
    assert np.mean([each.within for each in found]) == pytest.approx(0.25, abs=0.01)


def test_components_need_two_rows_and_a_repeat() -> None:
    assert agreement.components({}) is None
    assert agreement.components({(1.0, 2.0): 1}) is None
    assert agreement.components({(1.0,): 4, (2.0,): 4}) is None
    assert agreement.components({(4.0, 4.0): 1_000_000}) == (0.0, 0.0)
