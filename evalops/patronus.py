"""What a spec asks of Patronus: evaluators, the columns they read, where results go; and one verdict out of several.

Everything here is a plain value. What is sent, and when, is the provider's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

PASS, FAIL = "pass", "fail"
LABELS = (PASS, FAIL)
ALL, ANY = "all_pass", "any_pass"

# What evaluators read of a row, by the service's names: a change can change a verdict.
READ = ("task_input", "task_output", "task_context", "system_prompt", "gold_answer", "attachments")
# What only travels along.
CARRIED = ("dataset_sample_id", "trace_id", "span_id", "log_id")


class Grader(NamedTuple):
    """One evaluator of the service: an id or an alias, what it goes by, and when it explains itself."""

    evaluator: str
    criteria: str | None = None
    explain_strategy: str | None = None

    @property
    def name(self) -> str:
        """What results are called by."""
        return f"{self.evaluator}/{self.criteria}" if self.criteria else self.evaluator

    def __str__(self) -> str:
        """All that can change a verdict, for the lockfile."""
        return self.name + (f" (explain {self.explain_strategy})" if self.explain_strategy else "")


_IN, _OUT, _CONTEXT, _GOLD = "task_input", "task_output", "task_context", "gold_answer"
# What the evaluators of a family cannot do without, by how their ids and aliases begin; the longest beginning counts.
_NEEDS = {
    "lynx": (_IN, _OUT, _CONTEXT),
    "hallucination": (_IN, _OUT, _CONTEXT),
    "retrieval-hallucination": (_IN, _OUT, _CONTEXT),
    "answer-relevance": (_IN, _OUT),
    "retrieval-answer-relevance": (_IN, _OUT),
    "context-relevance": (_IN, _CONTEXT),
    "retrieval-context-relevance": (_IN, _CONTEXT),
    "context-sufficiency": (_IN, _CONTEXT, _OUT, _GOLD),
    "retrieval-context-sufficiency": (_IN, _CONTEXT, _OUT, _GOLD),
    "toxicity": (_OUT,),
    "pii": (_OUT,),
    "phi": (_OUT,),
    "metrics": (_OUT, _GOLD),
}
_NEEDS_OF_CRITERIA = {"patronus:fuzzy-match": (_OUT, _GOLD)}


def needs(grader: Grader) -> tuple[str, ...]:
    """The fields that an evaluator cannot do without, as far as its name tells."""
    known = [each for each in _NEEDS if grader.evaluator == each or grader.evaluator.startswith(f"{each}-")]
    found = _NEEDS[max(known, key=len)] if known else ()
    name = (grader.criteria or "").removesuffix(":" + (grader.criteria or "").rpartition(":")[2])
    criteria = grader.criteria if grader.criteria in _NEEDS_OF_CRITERIA else name
    return tuple(dict.fromkeys((*found, *_NEEDS_OF_CRITERIA.get(criteria or "", ()))))


@dataclass(frozen=True, slots=True, kw_only=True)
class Patronus:
    """The parts of a spec that only Patronus knows. `columns` maps fields of the service to columns of the dataset.

    `lost_reply` says whether a call without an answer, which cannot be looked up, is made again; None is not said.
    """

    graders: tuple[Grader, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    project: str | None = None
    project_id: str | None = None
    app: str | None = None
    experiment: str | None = None
    capture: str = "none"
    tags: Mapping[str, str] = field(default_factory=dict)
    confidence_interval_strategy: str | None = None
    dataset_id: str | None = None
    combine: str = ALL
    lost_reply: str | None = None
    num_workers: int | None = None

    @property
    def read(self) -> tuple[str, ...]:
        """The columns that evaluators read."""
        return tuple(self.columns[each] for each in READ if each in self.columns)

    @property
    def carried(self) -> tuple[str, ...]:
        """The columns that only travel along."""
        return tuple(self.columns[each] for each in CARRIED if each in self.columns)

    @property
    def can_look_up(self) -> bool:
        """Whether the service keeps every result, so that a call whose answer was lost can be found there."""
        return self.capture == "all"


class Outcome(NamedTuple):
    """What one evaluator said of one row, as far as it did."""

    passed: bool | None
    score: float | None


def parse(value: Mapping[str, Any]) -> Patronus | None:
    """The Patronus parts of a spec, None where it has none."""
    if "evaluators" not in value and "patronus" not in value:
        return None
    fields = dict(value.get("patronus", {}))
    columns = dict(fields.pop("columns", {}))
    if isinstance(value.get("model_to_evaluate"), str):
        columns["task_output"] = value["model_to_evaluate"]
    graders = tuple(Grader(each) if isinstance(each, str) else Grader(**each) for each in value.get("evaluators", ()))
    return Patronus(graders=graders, columns=columns, **fields)


def names(asked: Patronus, *, is_score: bool) -> tuple[str, ...]:
    """The names of the numbers that a row may have: each evaluator's, then what they come to together."""
    own = [each.name for each in asked.graders]
    beside = [_beside(name, is_score=is_score) for name in own]
    return (*own, *beside, *((ALL, ANY) if len(own) > 1 else ()))


def numbers(asked: Patronus, outcomes: Mapping[str, Outcome], *, is_score: bool) -> dict[str, float]:
    """The numbers of one row, 0 to 1, by `names`: whether it passed, its score, and both of all evaluators together."""
    found: dict[str, float] = {}
    for name, (passed, score) in outcomes.items():
        first, second = (score, passed) if is_score else (passed, score)
        found |= {name: float(first)} if first is not None else {}
        found |= {_beside(name, is_score=is_score): float(second)} if second is not None else {}
    passes = [outcomes[each.name].passed for each in asked.graders if each.name in outcomes]
    if len(asked.graders) > 1 and len(passes) == len(asked.graders) and None not in passes:
        found |= {ALL: float(all(passes)), ANY: float(any(passes))}
    return found


def combined(asked: Patronus, found: Mapping[str, float], *, is_score: bool) -> str | float | None:
    """The verdict on a row from its numbers; None where an evaluator gave none: half an answer is no verdict."""
    own = [found.get(each.name) for each in asked.graders]
    if not own or None in own:
        return None
    if is_score:
        return sum(each or 0.0 for each in own) / len(own)
    passes = all(own) if asked.combine == ALL else any(own)
    return PASS if passes else FAIL


def _beside(name: str, *, is_score: bool) -> str:
    return f"{name} {'pass' if is_score else 'score'}"
