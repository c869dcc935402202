"""The runs of OpenAI Evals: which rows an eval has, and what is judged in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from evalops.errors import Diagnostic
from evalops.fingerprint import canonical
from evalops.importers import openai_graders, references
from evalops.importers.chat import HINT, question
from evalops.importers.draft import no_equal, number, slug
from evalops.importers.openai_export import Export
from evalops.importers.source import Source

_SAVE = "save its file, `client.files.content(ID)`, as ID.jsonl, and import it with the others"

Item = Mapping[str, Any]


class Batch(NamedTuple):
    """Rows that are judged alike. `candidate` says how their responses are made, by each of the `models`."""

    name: str
    items: Sequence[Item]
    responses: Sequence[Any]
    candidate: Mapping[str, Any] | None
    models: Sequence[str]


def batches(eval_: Source, export: Export, findings: list[Diagnostic]) -> list[Batch]:
    """The rows of an eval by its runs, those that differ by the model only together."""
    is_only = len(export.evals) == 1
    runs = [each for each in export.runs if is_only or each.value.get("eval_id") in (eval_.value.get("id"), None)]
    known: dict[bytes, Batch] = {}
    for run in runs:
        batch = _batch(run, export, findings)
        if batch is None:
            continue
        key = canonical([batch.items, batch.candidate, batch.responses if batch.candidate is None else []])
        first = known.setdefault(key, batch)
        known[key] = first._replace(models=list(dict.fromkeys([*first.models, *batch.models])))
    return list(known.values()) if runs else _without_runs(eval_, export, findings)


def _without_runs(eval_: Source, export: Export, findings: list[Diagnostic]) -> list[Batch]:
    """The rows of an eval whose runs are not in the export: its output items, or the only rows that there are."""
    own, is_only = eval_.value.get("id"), len(export.evals) == 1
    kept = {id_: items for id_, items in export.items.items() if is_only or items[0].get("eval_id") == own}
    rows = {id_: _items(items) for id_, items in kept.items()}
    if not rows and is_only:
        rows = dict(export.rows)
    if not rows:
        message = "the export has no rows for this eval, so there is nothing to judge"
        findings.append(no_equal(message, eval_.mark(), "save its runs and their output items too"))
    return [
        Batch(slug(id_, "rows"), [each["item"] for each in items], list(map(_response, items)), None, [])
        for id_, items in rows.items()
    ]


def _batch(run: Source, export: Export, findings: list[Diagnostic]) -> Batch | None:
    """A run, None with a finding where its rows are not in the export."""
    data = run.value["data_source"]
    rows = _rows(run, export)
    if not rows:
        from_ = data.get("source")
        kind = from_.get("type") if isinstance(from_, dict) else None
        called = text(run.value, "name") or text(run.value, "id")
        message = f"the rows of the run `{called[:60]}` are not in the export"
        hint = _SAVE if kind == "file_id" else "save its output items, and import them with the others"
        findings.append(no_equal(message, run.mark(), hint))
        return None
    candidate = _candidate(run, rows, findings)
    name = slug(text(run.value, "name") or text(run.value, "id"), "run")
    items, responses = [each["item"] for each in rows], [_response(each) for each in rows]
    models = [openai_graders.by_our_name(data["model"])] if candidate is not None else []
    return Batch(name, items, responses, candidate, models)


def _rows(run: Source, export: Export) -> list[Item]:
    """The rows of a run, each `{item, sample}`: in it, in a file, or as its output items repeat them."""
    from_ = run.value["data_source"].get("source")
    from_ = from_ if isinstance(from_, dict) else {}
    given = from_.get("content")
    if not isinstance(given, list):
        given = export.of_file(from_["id"]) if isinstance(from_.get("id"), str) else []
    rows = [each for each in given if isinstance(each, dict) and isinstance(each.get("item"), dict)]
    kept = _items(export.items.get(str(run.value.get("id")), []))
    if not rows:
        return kept
    waiting: dict[bytes, list[Item]] = {}
    for each in kept:
        waiting.setdefault(canonical(each["item"]), []).append(each)
    return [_joined(row, waiting.get(canonical(row["item"]), [])) for row in rows]


def _candidate(run: Source, rows: Sequence[Item], findings: list[Diagnostic]) -> Mapping[str, Any] | None:
    """How a run makes its responses, as a model of ours without its name; None where it only reads them."""
    data = run.at("data_source")
    asked = data.value.get("input_messages")
    if not isinstance(data.value.get("model"), str) or not isinstance(asked, dict):
        return None
    mark = data.mark("input_messages")
    if not isinstance(asked.get("template"), list):
        message = "a run asks what its rows hold as a chat, so its responses are taken as they were"
        findings.append(no_equal(message, mark, HINT))
        return None
    found = question(asked["template"])
    if isinstance(found, str) or any(each.is_sample for text in found for each in references.references(text)):
        why = found if isinstance(found, str) else "a prompt asks for a sample"
        findings.append(no_equal(f"{why}: the responses of the run are taken as they were", mark, HINT))
        return None
    columns = names([row["item"] for row in rows])
    system, input_ = (references.template(text, columns, "") for text in found)
    settings = openai_graders.sampling(data, findings.append)
    return {**settings, **({"system_template": system} if system else {}), "input_template": input_}


def names(items: Sequence[Item]) -> dict[str, str]:
    """The columns of rows: names that a template can use, by those that the rows have."""
    return references.columns(dict.fromkeys(key for item in items for key in item))


def text(value: Any, key: str) -> str:
    """A text field of an object of the API, "" where it has none."""
    found = value.get(key) if isinstance(value, dict) else None
    return found.strip() if isinstance(found, str) else ""


def _items(items: Sequence[Item]) -> list[Item]:
    """Output items as rows, in their order."""
    places = [number(each.get("datasource_item_id")) for each in items]
    known = sorted(range(len(items)), key=lambda at: (places[at] is None, places[at] or 0))
    return [{"item": items[at]["datasource_item"], "sample": items[at].get("sample")} for at in known]


def _joined(row: Item, kept: list[Item]) -> Item:
    """A row with the response of its output item, where it has none of its own."""
    if kept and _response(row) is None:
        return {**row, "sample": kept.pop(0)["sample"]}
    return row


def _response(row: Item) -> Any:
    """The text of a sample: its own field, or its last message."""
    sample = row.get("sample")
    if not isinstance(sample, dict):
        return None
    if isinstance(sample.get("output_text"), str):
        return sample["output_text"]
    output = sample.get("output")
    last = output[-1] if isinstance(output, list) and output else None
    return last.get("content") if isinstance(last, dict) and isinstance(last.get("content"), str) else None
