"""What is said to Patronus: the paths and bodies of its API, as its official client sends them.

A field that is not given is left out; JSON is the same as that of `patronus-api`.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from evalops.datasets.dataset import Row
from evalops.patronus import Grader, Patronus

EVALUATE = "/v1/evaluate"
SEARCH = "/v1/evaluations/search"
BATCH = "/v1/evaluations/batch"
PROJECTS = "/v1/projects"
EXPERIMENTS = "/v1/experiments"
EVALUATORS = "/v1/evaluators"
CRITERIA = "/v1/evaluator-criteria"

MARK = "evalops"  # the tag that says which work of ours a result belongs to
PROJECT = "evalops"  # where a spec names no project
MOST_CONTEXT, MOST_TOKENS = 50, 120_000
MOST_BATCH = 100  # results in one import, as the SDK sends them; the service takes 1,000
MEDIA_TYPES = (
    "image/jpeg", "image/png", "audio/flac", "audio/mp3", "audio/mp4", "audio/mpeg", "audio/wav",
)  # fmt: skip
USAGE_TYPES = tuple(
    f"evaluated_model_{each}" for each in ("system_prompt", "input", "output", "gold_answer", "retrieved_context")
)
_PINNED = re.compile(r"[^:]+:([^:]+:)?\d+")  # criteria with a revision
_SPACE = uuid.UUID("6f7b1f0c-3f0a-5b1e-9a53-0c0f8d6f2f11")  # of our log ids


def encode(value: Any) -> bytes:
    """The bytes of a body. Half a character, which JSON can spell and UTF-8 cannot hold, stays an escape."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "backslashreplace")


# --- evaluate ---


def evaluate(
    asked: Patronus, row: Row, graders: Iterable[Grader], *, key: str, mark: str, experiment: str | None, log_id: str
) -> dict[str, Any]:
    """One call: a row, and the evaluators that it is still without. `key` is the row's, `mark` that of the job."""
    cells = {name: row.source.get(column) for name, column in asked.columns.items()}
    read = {name: _text(value) for name, value in cells.items() if name not in ("task_context", "attachments")}
    body: dict[str, Any] = {
        "evaluators": [evaluator(each) for each in graders],
        **{name: value for name, value in read.items() if value is not None},
        "task_context": context(cells.get("task_context")),
        "evaluated_model_attachments": attachments(cells.get("attachments")),
        "capture": asked.capture,
        "confidence_interval_strategy": asked.confidence_interval_strategy,
        "dataset_id": asked.dataset_id,
        "dataset_sample_id": read.get("dataset_sample_id") or key,
        "log_id": log_id,
        "tags": {**asked.tags, MARK: mark},
        **_place(asked, experiment),
    }
    return {name: value for name, value in body.items() if value is not None}


def _place(asked: Patronus, experiment: str | None) -> dict[str, Any]:
    """Where results are kept: an experiment has its project, and beside one the service ignores another."""
    if experiment is not None:
        return {"experiment_id": experiment}
    if asked.project is None and asked.project_id is not None:
        return {"app": asked.app, "project_id": asked.project_id}
    return {"app": asked.app, "project_name": asked.project or PROJECT}


def evaluator(each: Grader) -> dict[str, str]:
    """One entry of `evaluators`."""
    return {name: value for name, value in each._asdict().items() if value is not None}


def context(cell: Any) -> list[str] | None:
    """The texts of a context: those of a list, or of one that stands as JSON in a cell; one text is a list of one."""
    if isinstance(cell, str) and cell.lstrip().startswith("["):
        try:
            found = json.loads(cell)
        except (ValueError, RecursionError):
            found = None
        cell = found if isinstance(found, list) else cell
    if cell is None or cell == "" or cell == []:
        return None
    return [_text(each) or "" for each in cell] if isinstance(cell, list) else [_text(cell) or ""]


def attachments(cell: Any) -> list[Any] | None:
    """The attachments of a row, as they stand there: a list, one object, or either as JSON in a cell."""
    if isinstance(cell, str) and cell.strip():
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return [cell]  # which the rules refuse
    if not cell:
        return None
    return cell if isinstance(cell, list) else [cell]


def log_id(mark: str, position: int) -> str:
    """The log id of a row: the same whoever asks, and whenever, so that its results can be looked for."""
    return str(uuid.uuid5(_SPACE, f"{mark}/{position}"))


def mark(fingerprint: str, generation: int) -> str:
    """What marks the results of one job."""
    return f"{fingerprint[:16]}-{generation}"


def _text(value: Any) -> str | None:
    """A cell as text, None for one that holds nothing."""
    if value is None or value == "":
        return None
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# --- projects and experiments ---


def project(name: str) -> dict[str, str]:
    """What makes a project, or finds the one of that name."""
    return {"name": name}


def experiment(project_id: str, name: str, tags: Mapping[str, str], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What makes an experiment. The service has no two words for it: a second one of that name is another one."""
    return {"project_id": project_id, "name": name, "tags": dict(tags), "metadata": dict(metadata)}


def experiments(project_id: str, *, limit: int, offset: int) -> list[tuple[str, str]]:
    """The query for a page of a project's experiments."""
    return [("limit", str(limit)), ("offset", str(offset)), ("project_id", project_id)]


def experiment_path(id_: str) -> str:
    """Where one experiment is."""
    return f"{EXPERIMENTS}/{quote(id_, safe='')}"


# --- what an alias stands for today ---


def is_pinned(criteria: str) -> bool:
    """Whether criteria name a revision."""
    return _PINNED.fullmatch(criteria) is not None


def evaluators(alias: str) -> list[tuple[str, str]]:
    """The query for the evaluator that an alias stands for."""
    return [("by_alias_or_id", alias)]


def criteria(name: str, family: str | None) -> list[tuple[str, str]]:
    """The query for the last revision of criteria."""
    found = [("evaluator_family", family)] if family else []
    return [*found, ("get_last_revision", "true"), ("name", name)]


# --- results ---


def search(log_ids: Sequence[str]) -> dict[str, Any]:
    """What finds the results of calls by their log ids."""
    if len(log_ids) == 1:
        return {"filters": [{"field": "log_id", "operation": "eq", "value": log_ids[0]}]}
    return {"filters": [{"field": "log_id", "operation": "in", "value": list(log_ids)}]}


def search_experiment(id_: str) -> dict[str, Any]:
    """What finds all results of an experiment."""
    return {"filters": [{"field": "experiment_id", "operation": "eq", "value": id_}]}


def batch(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What brings results of others to the service."""
    return {"evaluations": [dict(each) for each in evaluations]}
