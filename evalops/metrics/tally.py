"""Rows counted by how they ended: scored, invalid or an error, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Protocol

from evalops.metrics.measure import Rate
from evalops.result import Bounds, Counts, Graded, Metric, VerdictStatus

NAMES = ("invalid_rate", "error_rate")
NO_VERDICT = "no row has a verdict"


@dataclass(slots=True)
class Tally:
    """Counts by status, reason and cluster."""

    rows: int = 0
    statuses: Counter[VerdictStatus] = field(default_factory=Counter)
    reasons: Counter[tuple[VerdictStatus, str]] = field(default_factory=Counter)
    clusters: Counter[tuple[str, VerdictStatus]] = field(default_factory=Counter)

    def add(self, graded: Graded) -> bool:
        """Counts one row; whether it is scored."""
        self.rows += 1
        status = graded.verdict.status
        self.statuses[status] += 1
        if graded.cluster is not None:
            self.clusters[graded.cluster, status] += 1
        if status is VerdictStatus.SCORED:
            return True
        self.reasons[status, graded.verdict.reason or "unknown"] += 1
        return False

    @property
    def scored(self) -> int:
        return self.statuses[VerdictStatus.SCORED]

    def counts(self) -> Counts:
        """All counts as a value."""

        def of(status: VerdictStatus) -> dict[str, int]:
            return {reason: n for (each, reason), n in self.reasons.items() if each is status}

        return Counts(
            rows=self.rows,
            scored=self.scored,
            invalid=self.statuses[VerdictStatus.INVALID],
            errors=self.statuses[VerdictStatus.ERROR],
            invalid_reasons=of(VerdictStatus.INVALID),
            error_reasons=of(VerdictStatus.ERROR),
        )

    def rates(self) -> dict[str, Metric]:
        """The shares of all rows that are invalid and errors."""
        return {"invalid_rate": self._rate(VerdictStatus.INVALID), "error_rate": self._rate(VerdictStatus.ERROR)}

    def _rate(self, status: VerdictStatus) -> Metric:
        if not self.clusters:
            return Rate(self.rows, self.statuses[status]).metric("no rows")
        rate = Rate()
        for (cluster, each), n in self.clusters.items():
            rate.add(n * (each is status), cluster, n)
        return rate.metric("no rows")

    def pass_bounds(self, passed: int | None) -> dict[str, Bounds]:
        """What `pass_percentage` would be over all rows, if every one without a verdict failed, or passed; nothing
        where nothing says what a pass is."""
        if self.rows == 0 or passed is None:
            return {}
        missing = self.rows - self.scored
        return {"pass_percentage": Bounds(100.0 * passed / self.rows, 100.0 * (passed + missing) / self.rows)}


class Gathered(Protocol):
    """The rows of an evaluation of one type, as they are counted."""

    tally: Tally

    def add(self, graded: Graded) -> None: ...

    def metrics(self) -> dict[str, Metric]: ...

    def label_counts(self) -> dict[str, int]: ...

    def value(self, said: Any) -> float | None: ...
