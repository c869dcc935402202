"""A matrix becomes cells: their values, their addresses, and what is refused before anything is expanded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.matrix import MOST, Cell, Problem, expand

BASE = {"version": 1, "name": "tone", "judge": {"model": "m", "temperature": 0.5}}


def cells(matrix: dict[str, Any], **base: Any) -> list[Cell]:
    found = expand({**BASE, **base, "matrix": matrix})
    assert not isinstance(found, Problem), found
    return found


def problem(matrix: dict[str, Any]) -> Problem:
    found = expand({**BASE, "matrix": matrix})
    assert isinstance(found, Problem), found
    return found


def test_without_a_matrix_there_is_one_cell() -> None:
    assert expand(BASE) == [Cell("", BASE, {})]


def test_the_product_in_the_order_of_the_spec() -> None:
    found = cells({"judge.model": ["b", "a"], "gold": ["x", "y"]})
    assert [each.suffix for each in found] == [
        "[gold=x,model=b]",
        "[gold=y,model=b]",
        "[gold=x,model=a]",
        "[gold=y,model=a]",
    ]
    assert found[0].value == {**BASE, "judge": {"model": "b", "temperature": 0.5}, "gold": "x"}
    assert found[3].sources == {("judge", "model"): ("matrix", "judge.model", 1), ("gold",): ("matrix", "gold", 1)}


def test_the_spec_itself_is_not_touched() -> None:
    base = {"judge": {"model": "m"}, "matrix": {"judge.model": ["a", "b"], "labels": [["x", "y"]]}}
    found = expand(base)
    assert isinstance(found, list)
    found[0].value["labels"].append("z")
    assert base == {"judge": {"model": "m"}, "matrix": {"judge.model": ["a", "b"], "labels": [["x", "y"]]}}
    assert found[1].value["labels"] == ["x", "y"]


def test_a_path_through_what_is_no_mapping_replaces_it() -> None:
    (cell,) = cells({"model_to_evaluate.model": ["m"]}, model_to_evaluate="response")
    assert cell.value["model_to_evaluate"] == {"model": "m"}


@pytest.mark.parametrize(
    ("value", "label"),
    [
        ("openai/gpt-4o", "openai/gpt-4o"),
        (0.5, "0.5"),
        (True, "true"),
        ("a b", "a b"),
        ("a,b", "1e6e9aa8"),
        ("a=b", None),
        ("a]", None),
        ("ä", None),
        ("", None),
        ("x" * 81, None),
        ("a\nb", None),
        (["x", "y"], None),
        ({"b": 1, "a": 2}, None),
    ],
)
def test_a_value_stands_in_the_address_if_it_is_short_and_plain_else_its_digest(value: Any, label: str | None) -> None:
    (cell,) = cells({"gold": [value]})
    text = cell.suffix.removeprefix("[gold=").removesuffix("]")
    assert text == label if label and len(label) != 8 else len(text) == 8 and int(text, 16) >= 0


def test_an_address_says_the_whole_path_where_its_last_part_is_not_clear() -> None:
    assert cells({"model_a.model": ["x"], "model_b.model": ["y"], "gold": ["z"]})[0].suffix == (
        "[gold=z,model_a.model=x,model_b.model=y]"
    )
    assert cells({"include": [{"model_a.model": "x", "model_b.model": "y"}]})[0].suffix == (
        "[model_a.model=x,model_b.model=y]"
    )


def test_include_and_exclude() -> None:
    found = cells({
        "judge.model": ["a", "b"], "gold": ["x", "y"],
        "exclude": [{"judge.model": "a", "gold": "y"}], "include": [{"gold": "z", "judge.model": "a"}],
    })  # fmt: skip
    assert [each.suffix for each in found] == [
        "[gold=x,model=a]",
        "[gold=x,model=b]",
        "[gold=y,model=b]",
        "[gold=z,model=a]",
    ]
    assert found[-1].sources == {
        ("gold",): ("matrix", "include", 0, "gold"),
        ("judge", "model"): ("matrix", "include", 0, "judge.model"),
    }


def test_include_alone_may_vary_different_keys() -> None:
    found = cells({"include": [{"judge.model": "a"}, {"judge.model": "b", "gold": "x"}]})
    assert [each.suffix for each in found] == ["[model=a]", "[gold=x,model=b]"]


REFUSED: list[tuple[dict[str, Any], str, tuple[str | int, ...]]] = [
    ({}, "matrix/empty", ("matrix",)),
    ({"include": [], "exclude": []}, "matrix/empty", ("matrix",)),
    ({"gold": ["a"], "exclude": [{"gold": "a"}]}, "matrix/empty", ("matrix",)),
    ({"name": ["a", "b"]}, "matrix/key", ("matrix", "name")),
    ({"type": ["score"]}, "matrix/key", ("matrix", "type")),
    ({"matrix.gold": ["a"]}, "matrix/key", ("matrix", "matrix.gold")),
    ({"include": [{"gold": "a"}, {"version": 1}]}, "matrix/key", ("matrix", "include", 1, "version")),
    ({"judge": ["a"], "judge.model": ["b"]}, "matrix/key", ("matrix", "judge.model")),
    ({"judge.model": ["b"], "judge": ["a"]}, "matrix/key", ("matrix", "judge.model")),
    ({"gold": ["a", "b", "a"]}, "matrix/duplicate", ("matrix", "gold", 2)),
    ({"gold": [1, "1"]}, "matrix/duplicate", ("matrix", "gold", 1)),
    ({"gold": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]}, "matrix/duplicate", ("matrix", "gold", 1)),
    ({"gold": ["a"], "include": [{"gold": "b"}, {"gold": "a"}]}, "matrix/duplicate", ("matrix", "include", 1)),
    ({"gold": ["a"], "include": [{"glod": "b"}]}, "matrix/include", ("matrix", "include", 0, "glod")),
    ({"gold": ["a"], "judge.model": ["m"], "include": [{"gold": "b"}]}, "matrix/include", ("matrix", "include", 0)),
    ({"gold": ["a", "b"], "exclude": [{"glod": "b"}]}, "matrix/key", ("matrix", "exclude", 0, "glod")),
    ({"gold": ["a", "b"], "exclude": [{"gold": "c"}]}, "matrix/exclude", ("matrix", "exclude", 0, "gold")),
    ({"gold": list(range(MOST + 1))}, "matrix/too-large", ("matrix",)),
    ({"gold": ["a"], "exclude": [{"gold": "a"}] * (MOST + 1)}, "matrix/too-large", ("matrix", "exclude")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("matrix", "code", "route"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refused(matrix: dict[str, Any], code: str, route: tuple[str | int, ...]) -> None:
    found = problem(matrix)
    assert (found.code, found.route) == (code, route)
    assert found.hint


def test_a_spend_attack_is_refused_before_it_is_expanded() -> None:
    assert problem({f"judge.k{n}": list(range(1000)) for n in range(40)}).message == (
        f"`matrix` makes {1000**40:,} evaluations, at most 1,000 are allowed"
    )


def test_the_most_is_allowed() -> None:
    assert len(cells({"gold": list(range(MOST))})) == MOST


KEYS = ["judge.model", "judge.temperature", "gold", "model_a.model", "dataset.path"]
AXES = st.dictionaries(
    st.sampled_from(KEYS),
    st.lists(st.sampled_from(["a", "b/c", "d,e", 1, 2.5, True]), min_size=1, max_size=3, unique_by=str),
    min_size=1,
    max_size=4,
)


@given(AXES, st.randoms(use_true_random=False))
def test_the_order_of_keys_and_values_changes_no_address(axes: dict[str, list[Any]], random: Any) -> None:
    def found(matrix: dict[str, list[Any]]) -> dict[str, Any]:
        return {each.suffix: each.value for each in cells(matrix)}

    names = list(axes)
    random.shuffle(names)
    shuffled = {name: random.sample(axes[name], len(axes[name])) for name in names}
    assert found(axes) == found(shuffled)
    assert len(found(axes)) == len(cells(axes))
