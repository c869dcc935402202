"""The rows of one result as columns: what was judged, what the judge said, gold, and the verdict at a base.

Nobody is asked. Texts and reasons are there where the job's rows are on this machine; else the verdicts file has the
verdicts, and the dataset the texts, as long as it is the one that was judged.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evalops import rows, sources, template, verdicts
from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.judging import CRITERIA
from evalops.lock import Entry
from evalops.metrics.labels import POINTS, text_of
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import PROVIDERS, open_provider
from evalops.result import Verdict, VerdictStatus
from evalops.rows import Judged
from evalops.settings import Remote
from evalops.spec import Evaluation, Model, Type
from evalops.verdicts import Section

MOST_PROMPTS = 8 << 20  # characters of filled in templates
_TRIED = 50  # rows by which their length is guessed
NOT_KEPT = "the verdicts file has no reasons: they are where the job ran"

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An entry with what it may be read with.

    `wanted` is there where today's evaluation judges the same rows, `section` and `path` where the verdicts file has
    the result's verdicts; `earlier` are those of the base, by row.
    """

    entry: Entry
    evaluation: Evaluation | None = None
    wanted: Wanted | None = None
    section: Section | None = None
    path: str = ""
    earlier: Mapping[str, Verdict] | None = None


@dataclass(slots=True)
class _Columns:
    """Columns that grow row by row; one that begins late is filled up with None."""

    count: int = 0
    found: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, values: Mapping[str, Any]) -> None:
        """One row more."""
        for name, value in values.items():
            if name not in self.found:
                self.found[name] = [None] * self.count
            self.found[name].append(value)
        self.count += 1
        for column in self.found.values():
            if len(column) < self.count:
                column.append(None)


def keyless(project: Project) -> Project:
    """The project as one who has no key for any service sees it: what is not on this machine is not fetched."""
    settings = project.settings
    remotes = {name: replace(settings.remotes.get(name, Remote()), credential="") for name in PROVIDERS}
    return replace(project, given=replace(settings, credentials={}, remotes=remotes))


def of(project: Project, result: Result) -> Json:
    """The rows in the order of the dataset. `absent` says why a column, or all of it, is not there.

    `project` is one without keys (see `keyless`): with keys, rows that are elsewhere would be fetched.
    """
    if result.entry.summary is None:
        return _nothing("there is no result yet")
    try:
        with contextlib.closing(open_provider(result.entry.provider, project)) as provider:
            return _sheet(rows.joined(_of_summary(result.entry), provider, _same_job(result)), result, {})
    except EvalopsError as error:
        first = error.diagnostics[0]
        is_away = first.code.startswith("provider/")  # it would have been asked
        why = f"they are at {result.entry.provider} and not on this machine" if is_away else first.message
    if result.section is None:
        return _nothing(f"{why}, and no verdicts file has its verdicts")
    try:
        found = _from_file(project, result, result.section)
    except EvalopsError as error:
        return _nothing(error.diagnostics[0].message)
    absent = {"reason": NOT_KEPT}
    if result.wanted is None:
        absent["source"] = "the dataset is not here as it was judged"
    return _sheet(found, result, absent)


def _nothing(why: str) -> Json:
    return {"count": 0, "columns": {}, "source": {}, "outputs": {}, "prompts": {}, "absent": {"rows": why}}


def _of_summary(entry: Entry) -> Entry:
    """The entry with the job that its result is of, which may be an earlier one."""
    return replace(entry, job=entry.result_job)


def _same_job(result: Result) -> Wanted | None:
    return result.wanted if result.entry.result_job == result.entry.job else None


def _from_file(project: Project, result: Result, section: Section) -> Iterator[Judged]:
    """The verdicts of a file, joined to the dataset by the keys of its rows."""
    found: Sequence[Verdict] = section.verdicts
    known: dict[str, Row] = {}
    if result.evaluation is not None:
        found = verdicts.checked(section, result.evaluation, result.path)
    if result.wanted is not None:
        known = dict(sources.rows(project, result.wanted.evaluation))
    return (Judged(each.key, known.get(each.key), each, {}, failed=False) for each in found)


# --- columns ---


def _sheet(judged: Iterable[Judged], result: Result, absent: Mapping[str, str]) -> Json:
    columns, source, outputs = _Columns(), _Columns(), _Columns()
    for each in judged:
        columns.add(_row(each, result))
        source.add({name: _plain(value) for name, value in (each.source.source if each.source else {}).items()})
        outputs.add(_outputs(each.detail, result.evaluation))
    prompts, missing = _prompts(result, source)
    return {
        "count": columns.count,
        "columns": {name: values for name, values in columns.found.items() if any(each is not None for each in values)},
        "source": source.found,
        "outputs": outputs.found,
        "prompts": prompts,
        "absent": {**absent, **missing},
    }


def _row(each: Judged, result: Result) -> Json:
    verdict, evaluation = each.verdict, result.evaluation
    is_scored = verdict.status is VerdictStatus.SCORED
    gold = text_of(each.source.source.get(evaluation.gold)) if each.source and evaluation and evaluation.gold else None
    is_against = (
        is_scored and evaluation is not None and evaluation.type is not Type.CUSTOM
    )  # whose score is made of it
    feedbacks = each.detail.get("feedbacks") or ()
    return {
        "key": each.key,
        "status": verdict.status.value,
        "verdict": _plain(verdict.value),
        "passed": _passed(verdict, evaluation) if is_scored else None,
        "problem": verdict.reason,
        "reason": verdict.feedback,
        "gold": gold,
        "agrees": rows.matches(verdict.value, gold) if is_against and gold is not None else None,
        "orders": list(verdict.orders) if verdict.orders else None,
        "said": list(feedbacks) if feedbacks and not verdict.votes else None,
        "votes": _votes(verdict, feedbacks) if verdict.votes else None,
        "criteria": dict(verdict.criteria) if verdict.criteria else None,
        "evaluators": list(each.detail["evaluators"]) if each.detail.get("evaluators") else None,
        **_before(each.key, verdict, result),
    }


def _passed(verdict: Verdict, evaluation: Evaluation | None) -> bool | None:
    """Whether a verdict is a pass, None where nothing says what one is."""
    if evaluation is None:
        return None
    if evaluation.pass_labels:
        return verdict.value in evaluation.pass_labels
    if evaluation.pass_threshold is not None and isinstance(verdict.value, int | float):
        return verdict.value >= evaluation.pass_threshold
    return None


def _votes(verdict: Verdict, feedbacks: Sequence[str | None]) -> list[Json]:
    said = [*feedbacks, *[None] * len(verdict.votes)]
    return [
        {"judge": vote.judge, "repeat": vote.repeat, "status": vote.status.value, "value": _plain(vote.value)}
        | {"problem": vote.reason, "reason": reason}
        for vote, reason in zip(verdict.votes, said, strict=False)
    ]


def _before(key: str, verdict: Verdict, result: Result) -> Json:
    """The verdict at the base, and where it went since: up, down, other, or new, where there was no such row."""
    if result.earlier is None:
        return {}
    old = result.earlier.get(key)
    if old is None:
        return {"before": None, "before_status": None, "moved": "new"}
    value = {"before": _plain(old.value), "before_status": old.status.value}
    if (old.status, old.value) == (verdict.status, verdict.value):
        return {**value, "moved": None}
    then, now = _worth(old, result.evaluation), _worth(verdict, result.evaluation)
    return {**value, "moved": "other" if then is None or now is None or then == now else "up" if now > then else "down"}


def _worth(verdict: Verdict, evaluation: Evaluation | None) -> float | None:
    """A verdict as a number that is greater where it is better, None where nothing says what is."""
    if evaluation is None or verdict.status is not VerdictStatus.SCORED:
        return None
    if evaluation.type is Type.COMPARE:
        return POINTS.get(str(verdict.value))
    if isinstance(verdict.value, int | float):
        return float(verdict.value)
    return float(verdict.value in evaluation.pass_labels) if evaluation.pass_labels else None


def _outputs(detail: Mapping[str, Any], evaluation: Evaluation | None) -> Json:
    """What models wrote, by the field of the model; a candidate that is a column has None."""
    names = [str(each.route[0]) for each in evaluation.candidates if isinstance(each, Model)] if evaluation else []
    return dict(zip(names, detail.get("outputs") or (), strict=False))


def _plain(value: Any) -> Any:
    """A value of a stranger's file as one that JSON has."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


# --- prompts ---


def _prompts(result: Result, source: _Columns) -> tuple[Json, Json]:
    """Each template filled in for every row, or why not: together they may be many times as long as the dataset."""
    if result.wanted is None or not source.found:
        return {}, {}
    evaluation = result.wanted.evaluation
    use = sources.uses(evaluation)
    own = {CRITERIA} if any(judge.criteria for judge in evaluation.judges) else set()
    found: Json = {}
    length = 0
    for text in {each.source: each for each in evaluation.texts}.values():
        parsed = template.parse(text.source)
        if not isinstance(parsed, template.Template) or parsed.variables & own:
            continue
        values: list[str | None] = []
        for place in range(source.count):
            row = {name: column[place] for name, column in source.found.items() if column[place] is not None}
            values.append(_filled(parsed, use.shown(row)))
            length += len(values[-1] or "")
            if length > MOST_PROMPTS or (place == _TRIED and length / place * source.count > MOST_PROMPTS):
                return {}, {"prompts": "they are too long together: evalops show ADDRESS --messages --row N has one"}
        found[".".join(map(str, text.route))] = values
    return found, {}


def _filled(parsed: template.Template, columns: Mapping[str, Any]) -> str | None:
    try:
        return parsed.render(columns)
    except template.RenderError:
        return None
