"""A result broken down by the values of columns: each group is counted as the whole is, so that they add up to it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from evalops.metrics.measure import number
from evalops.metrics.tally import Gathered
from evalops.result import Graded, Group
from evalops.spec import Evaluation

MOST_GROUPS = 200  # values of a column; more are no groups but rows
NO_GROUP = "(none)"  # rows without a value


class Breakdown:
    """The groups of every column of `group_by`. `make` gives an empty count of the evaluation's type."""

    def __init__(self, evaluation: Evaluation, make: Callable[[], Gathered]) -> None:
        self._make = make
        self._columns: dict[str, dict[str, Gathered]] = {column: {} for column in evaluation.group_by}
        self.ungrouped: dict[str, str] = {}

    def add(self, graded: Graded) -> None:
        """Counts one row in its group of each column."""
        for (column, groups), name in zip(self._columns.items(), graded.groups, strict=True):
            if column in self.ungrouped:
                continue
            if name not in groups:
                if len(groups) == MOST_GROUPS:
                    self.ungrouped[column] = f"more than {MOST_GROUPS} different values"
                    groups.clear()
                    continue
                groups[name] = self._make()
            groups[name].add(graded)

    def groups(self, metrics: Collection[str]) -> dict[str, dict[str, Group]]:
        """Every group with those of `metrics` that say something of its column, by column and value."""
        return {
            column: {name: _group(groups[name], metrics) for name in sorted(groups, key=_order)}
            for column, groups in self._columns.items()
            if column not in self.ungrouped
        }


def _group(gathered: Gathered, metrics: Collection[str]) -> Group:
    found = gathered.metrics()
    kept = {name: found[name] for name in metrics if name in found}
    return Group(
        rows=gathered.tally.rows,
        scored=gathered.tally.scored,
        metrics=kept,
        label_counts={} if kept else gathered.label_counts(),
    )


def _order(name: str) -> tuple[bool, float, str]:
    """Numbers by their size, then texts, and last the rows without a value."""
    value = number(name)
    return name == NO_GROUP, float("inf") if value is None else value, name
