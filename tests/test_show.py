"""What `evalops show` says of a result beside its numbers."""

from __future__ import annotations

from typing import Any

import pytest

from evalops.views import result

COUNTS = {"rows": 200, "scored": 200, "invalid": 0, "errors": 0}


def shown(kind: str, metrics: dict[str, Any], **summary: Any) -> str:
    value: dict[str, Any] = {
        "address": "tone", "status": "completed", "provider": "local", "job": "job-1", "created_at": "2026-01-31",
        "finished_at": None, "generation": 1, "message": None, "gates": [], "inputs": {"type": kind},
        "summary": {**COUNTS, "metrics": metrics, **summary},
    }  # fmt: skip
    return result.show(value, [])


@pytest.mark.parametrize(
    ("kind", "metrics", "summary", "said"),
    [
        ("classify", {"pass_percentage": {"value": 85.0, "n": 200}}, {}, "pass_percentage by less than 11.3 points"),
        (
            "classify",
            {"accuracy": {"value": 0.5, "n": 388}},
            {},
            "With 388 rows a change of accuracy by less than 0.1 ",
        ),
        (
            "score",
            {"mean_score": {"value": 3.0, "n": 63}, "std_score": {"value": 2.0}},
            {},
            "mean_score by less than 1 ",
        ),
        (
            "compare",
            {"win_rate": {"value": 0.5, "n": 200}},
            {"choice_counts": {"A": 80, "Tie": 40, "B": 80}},
            "win_rate by less than 0.13 ",
        ),
    ],
)
def test_the_smallest_change_that_as_many_rows_would_show(
    kind: str, metrics: dict[str, Any], summary: dict[str, Any], said: str
) -> None:
    text = shown(kind, metrics, **summary)
    assert said in text and "may pass for chance (80 % power, two separate runs)." in text


@pytest.mark.parametrize(
    ("kind", "metrics", "summary"),
    [
        ("classify", {"pass_percentage": {"value": None, "reason": "no verdict"}}, {}),
        ("classify", {"pass_percentage": {"value": 100.0, "n": 1}}, {}),
        ("classify", {"pass_percentage": {"value": 85.0, "n": 200, "clusters": 9}}, {}),
        ("score", {"mean_score": {"value": 3.0, "n": 1}, "std_score": {"value": None, "reason": "one"}}, {}),
        ("score", {"mean_score": {"value": 3.0, "n": 9}, "std_score": {"value": 0.0}}, {}),
        ("compare", {"win_rate": {"value": 0.5, "n": 200}}, {}),
        ("custom", {"mean_score": {"value": 3.0, "n": 9}, "odd": {"value": 1.0}}, {"headline": "odd"}),
    ],
)
def test_nothing_is_said_where_it_is_not_known(kind: str, metrics: dict[str, Any], summary: dict[str, Any]) -> None:
    assert "pass for chance" not in shown(kind, metrics, **summary)
