"""An export of OpenAI Evals becomes specs: one for each grader of an eval, over the rows of its runs.

A run that says how its responses are made has candidates; another one has the responses that the export kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evalops.errors import Diagnostic
from evalops.importers import openai_export, openai_graders, openai_runs, references
from evalops.importers.draft import Draft, Found, Part, completed, free, gathered, identified, no_equal, slug
from evalops.importers.openai_export import Export
from evalops.importers.openai_graders import Graded
from evalops.importers.openai_runs import Batch, Item
from evalops.importers.references import Reference
from evalops.importers.source import Source

_RECORD = (
    "save the output items of a run and import them with the others, or name a column: `model_to_evaluate: COLUMN`"
)


def found(files: Sequence[tuple[str, bytes]]) -> Found:
    """What the files of an export become. Raises EvalopsError where one cannot be read."""
    export = openai_export.read(files)
    findings: list[Diagnostic] = []
    drafts = [draft for each in export.evals for draft in _drafts(each, export, findings)]
    if not export.evals:
        message = "no file has an eval with its `testing_criteria`, so nothing says how the rows are judged"
        hint = "save what `client.evals.list()` gives, and import it with the others"
        findings.append(no_equal(message, None, hint))
    return Found(tuple(drafts), tuple(gathered(findings)))


def _drafts(eval_: Source, export: Export, findings: list[Diagnostic]) -> Iterator[Draft]:
    """The spec files of an eval."""
    name = slug(openai_runs.text(eval_.value, "name") or openai_runs.text(eval_.value, "id"), "eval")
    batches = openai_runs.batches(eval_, export, findings)
    for batch in batches:
        base = f"{name}-{batch.name}" if len(batches) > 1 else name
        for number in range(len(eval_.value["testing_criteria"])):
            given = eval_.at("testing_criteria", number)
            table = _Table(batch.items, batch.responses if batch.candidate is None else [])
            graded = openai_graders.graded(given, table.columns, findings.append)
            judged = graded and _judged(given, graded, batch, table, findings)
            if graded is not None and judged is not None:
                yield _draft(eval_, given, {**graded.fields, **judged, **_gold(graded, table)}, table, base)


@dataclass(slots=True)
class _Table:
    """Rows in the making. `columns` are the names of what the items hold, `response` is that of recorded responses, if
    there are any; further columns may come.
    """

    items: Sequence[Item]
    responses: Sequence[Any]
    columns: Mapping[str, str] = field(init=False)
    rows: list[dict[str, Any]] = field(init=False)
    response: str | None = None
    is_as_given: bool = True

    def __post_init__(self) -> None:
        self.columns = openai_runs.names(self.items)
        self.rows = [{self.columns[key]: each for key, each in item.items()} for item in self.items]
        if any(each is not None for each in self.responses):
            self.response = self.add("response", ["" if each is None else each for each in self.responses])
            self.is_as_given = True

    def column(self, reference: Reference, name: str) -> str:
        """The column that a reference to a row is; a new one, where it leads further into what a row holds."""
        if len(reference.path) == 2 and reference.path[1] in self.columns:
            return self.columns[str(reference.path[1])]
        return self.add(name, [references.shown(references.looked_up(reference, item)) for item in self.items])

    def add(self, name: str, values: Sequence[Any]) -> str:
        """A new column, by a name that no other has."""
        name = free(name, {each for row in self.rows for each in row})
        for row, value in zip(self.rows, values, strict=True):
            row[name] = value
        self.is_as_given = False
        return name


def _draft(eval_: Source, given: Source, fields: Mapping[str, Any], table: _Table, base: str) -> Draft:
    name = f"{base}-{slug(openai_runs.text(given.value, 'name'), 'grader')}"
    title = openai_runs.text(eval_.value, "name")
    parts = [each for each in fields.values() if isinstance(each, dict)]
    templates = [each[key] for each in parts for key in each if key.endswith("_template")]
    named = [fields[key] for key in ("gold", "model_to_evaluate") if isinstance(fields.get(key), str)]
    # What a row does not have is empty to OpenAI.
    rows = [
        {**row, **{column: "" for column in named if column not in row}} for row in completed(table.rows, templates)
    ]
    column, rows_ = identified(rows, range(1, len(rows) + 1))
    return Draft(
        name=name,
        parts=(Part("", {**({"description": title} if title else {}), **fields}),),
        dataset=base if table.is_as_given else name,
        rows=tuple(rows_),
        id=column,
        mark=given.mark(),
    )


def _judged(
    given: Source, graded: Graded, batch: Batch, table: _Table, findings: list[Diagnostic]
) -> dict[str, Any] | None:
    """The fields that say what is judged, None with a finding where nothing can be."""
    if graded.subject is None:
        return {}
    if not graded.subject.is_response:
        return {"model_to_evaluate": table.column(graded.subject, "answer")}
    if batch.candidate is not None and len(batch.models) > 1:
        return {"model_to_evaluate": batch.candidate, "matrix": {"model_to_evaluate.model": list(batch.models)}}
    if batch.candidate is not None:
        return {"model_to_evaluate": {"model": batch.models[0], **batch.candidate}}
    if table.response is None:
        message = "a grader judges responses, and the export neither has any nor says how they are made"
        findings.append(no_equal(message, given.mark(), _RECORD))
        return None
    return {"model_to_evaluate": table.response}


def _gold(graded: Graded, table: _Table) -> dict[str, Any]:
    """The column with what is compared with."""
    if graded.target is None:
        return {}
    only = references.only(graded.target)
    if only is not None:
        return {"gold": table.column(only, "expected")}
    return {"gold": table.add("expected", [references.filled(graded.target, item) for item in table.items])}
