"""Whether the verdicts in a result file are those that the service counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalops.result import Value, Verdict, VerdictStatus
from evalops.spec import Evaluation, Type

ROUNDING = 0.005  # the service may round a mean to two digits
_CHOICES = {"A": "A_wins", "B": "B_wins", "Tie": "Ties"}
_INVALID = {Type.CLASSIFY: "invalid_label_count", Type.SCORE: "invalid_score_count"}
_FAILED = ("judge_fail_count", "generation_fail_count")


@dataclass(slots=True)
class Tally:
    """The verdicts of a job, counted as they come."""

    rows: int = 0
    scored: int = 0
    total: float = 0.0  # of the scores
    values: Counter[Value] = field(default_factory=Counter)  # of labels and choices

    def add(self, verdict: Verdict) -> None:
        """Counts one verdict."""
        self.rows += 1
        if verdict.status is not VerdictStatus.SCORED:
            return
        self.scored += 1
        if isinstance(verdict.value, str):
            self.values[verdict.value] += 1
        elif verdict.value is not None:
            self.total += verdict.value

    def differences(self, evaluation: Evaluation, counts: Mapping[str, Any]) -> Iterator[str]:
        """How the service's own counts differ, in words.

        Where rows have no verdict, it is not known how the service counts them: they may stand under any of its
        counts. What it does not say is not compared.
        """
        match evaluation.type:
            case Type.CLASSIFY:
                labels = _object(counts.get("label_counts"))
                if labels is not None:
                    yield from self._values({label: labels.get(label, 0) for label in evaluation.labels})
            case Type.COMPARE:
                yield from self._values({choice: counts.get(name) for choice, name in _CHOICES.items()})
            case Type.SCORE:
                yield from self._mean((_object(counts.get("aggregated_scores")) or {}).get("mean_score"))
        if evaluation.type in _INVALID:
            yield from self._missing(_number(counts.get(_INVALID[evaluation.type])), counts)

    def _values(self, counted: Mapping[str, Any]) -> Iterator[str]:
        numbers = {value: _number(number) for value, number in counted.items()}
        left = self.rows - self.scored
        for value, number in numbers.items():
            ours = self.values[value]
            if number is not None and not ours <= number <= ours + left:
                yield f"Together counts {number:,} of `{value}`, its result file has {ours:,}"
        total = sum(number or 0 for number in numbers.values())
        if total > self.rows:
            yield f"Together counts {total:,} verdicts, its result file has {self.rows:,} rows"

    def _mean(self, mean: Any) -> Iterator[str]:
        if self.scored < self.rows or not self.rows or isinstance(mean, bool) or not isinstance(mean, int | float):
            return
        ours = self.total / self.rows
        if not abs(ours - mean) <= ROUNDING + 1e-9 * abs(mean):
            yield f"Together gives a mean score of {mean:.6g}, that of its result file is {ours:.6g}"

    def _missing(self, invalid: int | None, counts: Mapping[str, Any]) -> Iterator[str]:
        left = self.rows - self.scored
        if invalid is not None and invalid > left:
            yield f"Together counts {invalid:,} as unusable, its result file has {left:,} without a verdict"
        reasons = [invalid, *(_number(counts.get(name)) for name in _FAILED)]
        if None not in reasons and left > (known := sum(each or 0 for each in reasons)):
            yield f"the result file has {left:,} without a verdict, Together counts {known:,} as failed or unusable"


def _object(value: Any) -> Mapping[str, Any] | None:
    """An object; where the service documents it as text that holds one, that."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return value if isinstance(value, dict) else None


def _number(value: Any) -> int | None:
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return int(value) if is_whole and not isinstance(value, bool) else None
