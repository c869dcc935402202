"""The grids that a result is shown in."""

from __future__ import annotations

from typing import Any

from evalops.views import parts, tables

METRIC = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8}


def grids(summary: dict[str, Any]) -> list[parts.Grid]:
    return list(parts.grids(summary))


def test_a_result_of_an_earlier_version_has_none() -> None:
    assert grids({"rows": 3, "metrics": {}, "label_counts": {"a": 3}}) == []


def test_groups_with_their_metrics_and_what_is_small() -> None:
    groups = {
        "billing": {"rows": 1200, "scored": 1100, "metrics": {"accuracy": METRIC}},
        "\x1b[31mred": {
            "rows": 2,
            "scored": 0,
            "small": True,
            "metrics": {"accuracy": {"value": None, "reason": "no"}},
        },
    }
    (grid,) = grids({"groups": {"topic": groups}})
    assert grid.columns == ("topic", "rows", "scored", "accuracy", "")
    assert grid.rows[0] == ["billing", "1,200", "1,100", "0.50 [0.25, 0.75]", ""]
    assert grid.rows[1][-2:] == ["", "few rows"] and "\x1b" not in grid.rows[1][0]
    assert "billing" in tables.grid(*grid)


def test_groups_that_have_labels_only() -> None:
    groups = {"a": {"rows": 40, "scored": 40, "label_counts": {"polite": 30, "rude": 10, "odd": 0}, "metrics": {}}}
    (grid,) = grids({"groups": {"topic": groups}})
    assert grid.columns == ("topic", "rows", "scored", "") and grid.rows[0][-1] == "30 polite, 10 rude"


def test_labels_matrix_criteria_and_judges() -> None:
    label = {"support": 8, "precision": METRIC, "recall": METRIC, "f1": METRIC}
    judge = {"judge": "small", "votes": 8, "scored": 7, "invalid": 1, "errors": 0, "metrics": {"kappa": METRIC}}
    found = grids(
        {
            "criteria": {"clarity": METRIC},
            "per_label": {"a": label},
            "confusion": {"labels": ["a", "b"], "rows": [[1, 2], [3, 4]]},
            "judges": [judge, judge],
        }
    )
    assert [grid.columns[0] for grid in found] == ["criterion", "label", "gold \\ verdict", "judge"]
    assert found[2].rows == [("a", "1", "2"), ("b", "3", "4")]
    assert [row[0] for row in found[3].rows] == ["small", "small"]
    assert grids({"confusion": {"reason": "more than 30 labels"}}) == []
    many = [str(number) for number in range(20)]
    assert grids({"confusion": {"labels": many, "rows": [[0] * 20] * 20}}) == []
