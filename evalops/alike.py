"""Who may stand in one ranking: results over the same rows, by the same judge asked in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evalops import catalog, fingerprint, judging
from evalops.errors import Diagnostic, EvalopsError
from evalops.lock import Entry, Status
from evalops.project import Project
from evalops.spec import Evaluation

CANDIDATES = ("model_to_evaluate", "model_a", "model_b")
GRADING = ("pass_labels", "pass_threshold", "gold")
COLUMN = "judge.column"
_SHOWN = 3  # fields in which two results differ


class Entrant(NamedTuple):
    """An evaluation, the lock entry with its result, if any, and the lockfile for it."""

    evaluation: Evaluation
    path: str
    entry: Entry | None

    @property
    def address(self) -> str:
        return self.evaluation.address

    @property
    def inputs(self) -> Mapping[str, Any]:
        """The run fields of what was applied."""
        return self.entry.inputs if self.entry else {}

    @property
    def absence(self) -> str | None:
        """Why it has no result."""
        if self.entry is None:
            return "it has not been applied"
        if self.entry.status is not Status.COMPLETED:
            message = f": {self.entry.message}" if self.entry.message else ""
            return f"its job is {self.entry.status.value}{message}"
        return None if self.entry.summary else "it has no result"

    @property
    def summary(self) -> Mapping[str, Any] | None:
        """The result of the last job that completed."""
        return self.entry.summary if self.entry and self.absence is None else None

    @property
    def judges(self) -> list[str]:
        """The models that gave the verdicts."""
        return [str(self.inputs[key]) for key in self.inputs if _is_judge(key) and key.endswith(".model")]

    def player(self, key: str) -> dict[str, Any]:
        """The run fields of the candidate that the spec has under `key`."""
        return {name: value for name, value in self.inputs.items() if name.split(".")[0] == key}

    @property
    def candidates(self) -> dict[str, Any]:
        """The run fields of all candidates."""
        return {name: value for key in CANDIDATES for name, value in self.player(key).items()}


def check(project: Project, entrants: Sequence[Entrant]) -> None:
    """Raises EvalopsError, naming both and what differs, where two results may not be ranked together."""
    found = [each for each in entrants if each.entry is not None]
    digests = _digests(project, found)
    for each in found[1:]:
        problems = _judged_apart(found[0], each)
        if digests[each.address] != digests[found[0].address]:
            problems.append(_other_rows(found[0], each))
        if problems:
            raise EvalopsError(*problems)


def warnings(entrants: Sequence[Entrant]) -> list[str]:
    """What is taken on trust, and judges of a candidate's own family."""
    found = []
    if len({each.inputs.get(COLUMN) for each in entrants if each.entry}) > 1:
        found.append("the verdicts are recorded in several columns: that one judge gave them all is taken on trust")
    for each in entrants:
        models = [str(value) for key, value in each.candidates.items() if key.endswith(".model")]
        found += kinship(each.judges, models)
    return list(dict.fromkeys(found))


def kinship(judges: Sequence[str], models: Sequence[str]) -> list[str]:
    """A judge prefers texts of its own family (arXiv 2404.13076)."""
    return [
        f"`{judge}` judges `{model}`: judges prefer texts of their own family"
        for judge in judges
        for model in models
        if judging.family(judge) == judging.family(model)
    ]


def judge(entrants: Sequence[Entrant]) -> dict[str, Any]:
    """Who judged, as run fields; a field in which recorded verdicts differ holds all its values."""
    found: dict[str, Any] = {}
    for key in sorted({key for each in entrants for key in each.inputs if _is_judge(key)}):
        values = sorted({str(each.inputs[key]) for each in entrants if key in each.inputs})
        first = next(each.inputs[key] for each in entrants if key in each.inputs)
        found[key] = first if len(values) == 1 else values
    return found


def _is_judge(key: str) -> bool:
    return key.split(".")[0] in ("judge", "judges", "vote", "repeats", "evaluator")


def _judging(each: Entrant) -> dict[str, Any]:
    """All that says how a result was made and is read: what may not differ between candidates."""
    inputs = {key: value for key, value in each.inputs.items() if key not in each.candidates}
    inputs.pop("dataset.rows", None)  # the columns in use differ with the candidate; the rows are compared as a whole
    fields = fingerprint.grade_fields(each.evaluation)
    return {**inputs, **{key: fields.get(key) for key in GRADING}, "metric": each.evaluation.metric}


def _judged_apart(first: Entrant, second: Entrant) -> list[Diagnostic]:
    one, two = _judging(first), _judging(second)
    names = [key for key in sorted({*one, *two}) if one.get(key) != two.get(key)]
    if names == [COLUMN] and one.get(COLUMN) and two.get(COLUMN) and first.candidates != second.candidates:
        return []  # the recorded verdicts on other responses stand in another column
    if "type" in names:
        names = ["type"]  # the rest follows from it
    if not names:
        return []
    shown = "; ".join(f"`{key}` is {_said(one.get(key))} and {_said(two.get(key))}" for key in names[:_SHOWN])
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [
        Diagnostic(
            code="rank/judge",
            message=f"`{first.address}` and `{second.address}` are not judged alike: {shown}{more}",
            hint="a ranking needs one judge and template for all: select the evaluations that share them",
        )
    ]


def _said(value: Any) -> str:
    if value is None or value == []:
        return "not set"
    return f"`{', '.join(map(str, value)) if isinstance(value, list) else value}`"


def _digests(project: Project, found: Sequence[Entrant]) -> dict[str, str]:
    """The digest of each result's dataset, as of today where they differ and it still judges the rows of today.

    A column that came later, such as the responses of another candidate, changes the digest and no verdict.
    """
    digests = {each.address: str(each.entry.dataset["digest"]) for each in found if each.entry}
    if len(set(digests.values())) < 2:
        return digests
    submitted = {each.address: each.entry.dataset["submitted"] for each in found if each.entry}
    for evaluation, identity in catalog.read(project, sorted({each.evaluation.spec for each in found})).wanted:
        if submitted.get(evaluation.address) == identity.digests.submitted:
            digests[evaluation.address] = identity.digests.dataset
    return digests


def _other_rows(first: Entrant, second: Entrant) -> Diagnostic:
    names = [each.evaluation.dataset.path or "the rows in its spec" for each in (first, second)]
    where = f"`{names[0]}` and `{names[1]}`"
    if names[0] == names[1]:
        where = f"`{names[0]}` with other content, another sample or other column names"
    return Diagnostic(
        code="rank/dataset",
        message=f"`{first.address}` and `{second.address}` are not over the same rows: {where}",
        hint="a ranking needs one dataset: put the responses of all candidates into columns of one file",
    )
