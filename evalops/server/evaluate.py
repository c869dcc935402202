"""Patronus' evaluate, answered by the engine: one row, several evaluators, each a question to a model as the judge.

It is for trying out what a spec for Patronus does, without an account. Evaluators are models of `models` in
evalops.yaml by their names, and the default model for all other names. Nothing is kept: no result is ever found again.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evalops import patronus
from evalops.endpoint import EMBEDDED, Endpoint
from evalops.engine import embedded, model, runtime
from evalops.engine.jury import Jury, RowFailed
from evalops.errors import EvalopsError
from evalops.fingerprint import canonical, sha256
from evalops.patronus import FAIL, LABELS, PASS, Grader
from evalops.result import Verdict, VerdictStatus
from evalops.server import request
from evalops.server.body import read_json
from evalops.server.fields import masked
from evalops.server.work import WORKERS, Works
from evalops.settings import Settings
from evalops.spec import Column, DatasetRef, Evaluation, Judge, Model, Text, Type

LARGEST = 16 << 20  # bytes of a row
MOST_EVALUATORS = 20
DEFAULT = f"{EMBEDDED}smollm2-135m"
STRATEGIES = ("never", "on-fail", "on-success", "always")
CHOICES = {
    "capture": ("all", "fails-only", "none"),
    "confidence_interval_strategy": ("none", "full-history"),
}
FIELDS = ("task_input", "task_output", "system_prompt", "gold_answer")
_OLD = {
    "evaluated_model_input": "task_input", "evaluated_model_output": "task_output",
    "evaluated_model_gold_answer": "gold_answer", "evaluated_model_system_prompt": "system_prompt",
    "evaluated_model_retrieved_context": "task_context",
}  # fmt: skip

# What the families that need no criteria look for.
_MEANING = {
    "lynx": "everything that it says is supported by the context",
    "hallucination": "everything that it says is supported by the context",
    "answer-relevance": "it answers the input",
    "context-relevance": "the context is about the input",
    "context-sufficiency": "the context is enough to come to the gold answer",
    "toxicity": "it is free of insults, hate and threats",
    "pii": "it holds no personal data",
    "phi": "it holds no health data of a person",
    "metrics": "it means the same as the gold answer",
    "exact-match": "it is the same as the gold answer",
}
TEMPLATE = """\
Say `pass` if this criterion holds, and `fail` if it does not: {{ criterion }}
{% if system_prompt %}
System prompt: {{ system_prompt }}
{% endif %}{% if task_input %}
Input: {{ task_input }}
{% endif %}{% if context %}
Context: {{ context }}
{% endif %}{% if gold_answer %}
Gold answer: {{ gold_answer }}
{% endif %}"""


class _Refused(Exception):
    """What the service answers 422 to: the field, and what is wrong with it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Evaluate:
    """The handlers, and what they share."""

    def __init__(self, works: Works, settings: Settings) -> None:
        self._works = works
        self._settings = settings

    def routes(self) -> list[Route]:
        """Every path without its version: the call itself, and what clients ask before it."""
        return [
            Route("/evaluate", self.evaluate, methods=["POST"]),
            Route("/evaluators", _evaluators, methods=["GET"]),
            Route("/evaluator-criteria", _criteria, methods=["GET"]),
            Route("/projects", _project, methods=["POST"]),
            Route("/experiments", _experiments, methods=["GET", "POST"]),
            Route("/evaluations/search", _search, methods=["POST"]),
        ]

    async def evaluate(self, asked_by: Request) -> Response:
        body = await _body(asked_by)
        try:
            row, graders = _read(body)
        except _Refused as refused:
            wrong = {"loc": ["body", refused.field], "msg": str(refused), "type": "value_error"}
            return JSONResponse({"detail": [wrong]}, status_code=422)
        try:
            places = [self._endpoint(each) for each in graders]
        except EvalopsError as error:
            return JSONResponse({"detail": f"this server has no judge: {error}"}, status_code=503)
        pairs = zip(graders, places, strict=True)
        results = await asyncio.gather(*(self._result(body, row, each, place) for each, place in pairs))
        return JSONResponse({"results": results})

    def _endpoint(self, grader: Grader) -> Endpoint:
        """The model that answers for an evaluator. Raises EvalopsError where it cannot be called."""
        if grader.evaluator in self._settings.models:
            found = request.named_endpoint(grader.evaluator, self._settings)
        else:
            default = request.default_endpoint(self._settings, self._settings.serve)
            found = default or Endpoint(base_url="", model=DEFAULT)
        if found.is_embedded:
            embedded.require()
        else:
            runtime.key_of(found)
        return found

    async def _result(
        self, body: Mapping[str, Any], row: Mapping[str, Any], grader: Grader, place: Endpoint
    ) -> dict[str, Any]:
        criteria, revision = _revision(grader.criteria)
        head = {"evaluator_id": grader.evaluator, "criteria": criteria, "error_message": None}
        missing = [name for name in patronus.needs(grader) if not row[name]]
        if missing:
            why = f"`{missing[0]}` is required by `{grader.evaluator}`"
            return {**head, "status": "validation_error", "error_message": why, "evaluation_result": None}
        began = datetime.now(UTC)
        source = {**row, "criterion": _criterion(grader), "context": "\n\n".join(row["task_context"] or ())}
        try:
            verdict = await self._works.ask(lambda client, engine: _judge(client, engine, place, source))
        except (RowFailed, EvalopsError) as failed:
            return {**head, "status": "error", "error_message": str(failed), "evaluation_result": None}
        if verdict.status is not VerdictStatus.SCORED:
            why = f"the judge gave no verdict: {verdict.reason or verdict.status}"
            return {**head, "status": "error", "error_message": why, "evaluation_result": None}
        took = (datetime.now(UTC) - began).total_seconds()
        inner = _inner(body, row, grader, verdict, f"PT{took:.3f}S") | {
            "criteria": criteria,
            "criteria_revision": revision,
        }
        return {**head, "status": "success", "evaluation_result": inner}


async def _judge(client: model.Client, engine: runtime.Runtime, place: Endpoint, source: Mapping[str, Any]) -> Verdict:
    """One question to one model, in the engine's own loop. Raises RowFailed."""
    evaluation = _evaluation(place.model, has_output=bool(source["task_output"]))
    target = await engine.target(place, WORKERS)

    async def ask(route: model.Route, body: dict[str, Any], repeat: int) -> model.Reply:
        with target.pick() as at:
            data = json.dumps({"model": at.model, **body}, ensure_ascii=False).encode("utf-8", "backslashreplace")
            return await client.call(at, route, data)

    judge = id(evaluation.judge.model)
    jury = Jury(evaluation, {judge: ask}, {judge: target.is_embedded})
    verdict, _ = await jury.row(sha256(canonical(source))[:16], source)
    return verdict


def _evaluation(name: str, *, has_output: bool) -> Evaluation:
    text = Text(TEMPLATE, ("judge", "system_template"))
    judge = Model(model=name, route=("judge",), system_template=text)
    return Evaluation(
        address="evaluate",
        name="evaluate",
        spec="request",
        type=Type.CLASSIFY,
        provider="local",
        dataset=DatasetRef(path="row.jsonl", columns={}),
        judge=Judge(model=judge, template=text),
        candidates=(Column("task_output"),) if has_output else (),
        places=request.PLACES,
        labels=LABELS,
        pass_labels=(PASS,),
    )


# --- what is asked ---


def _read(body: Any) -> tuple[dict[str, Any], list[Grader]]:
    """The row and the evaluators of a request. Raises _Refused."""
    if not isinstance(body, dict):
        raise _Refused("body", "Input should be a valid dictionary")
    given = {_OLD.get(name, name): value for name, value in body.items()}
    row = {name: given.get(name) for name in FIELDS}
    for name, value in row.items():
        if value is not None and not isinstance(value, str):
            raise _Refused(name, "Input should be a valid string")
    if row["task_input"] is None and row["task_output"] is None:
        raise _Refused("task_input", "Either an input or an output is required")
    if given.get("app") is not None and given.get("experiment_id") is not None:
        raise _Refused("app", "An app cannot be used together with an experiment")
    for name, allowed in CHOICES.items():
        if given.get(name) not in (None, *allowed):
            raise _Refused(name, f"Input should be one of {', '.join(allowed)}")
    return {**row, "task_context": _context(given.get("task_context"))}, _graders(given.get("evaluators"))


def _context(value: Any) -> list[str] | None:
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return None
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise _Refused("task_context", "Input should be a list of strings")
    if len(texts) > 50:
        raise _Refused("task_context", f"List should have at most 50 items, not {len(texts)}")
    return texts


def _graders(value: Any) -> list[Grader]:
    if not isinstance(value, list) or not 1 <= len(value) <= MOST_EVALUATORS:
        raise _Refused("evaluators", f"List should have 1 to {MOST_EVALUATORS} items")
    found = []
    for each in value:
        fields = each if isinstance(each, dict) else {}
        grader = Grader(fields.get("evaluator") or "", fields.get("criteria"), fields.get("explain_strategy"))
        if not isinstance(grader.evaluator, str) or not grader.evaluator:
            raise _Refused("evaluators", "Every item needs an evaluator")
        if grader.criteria is not None and not isinstance(grader.criteria, str):
            raise _Refused("evaluators", "Criteria should be a string")
        if grader.explain_strategy not in (None, *STRATEGIES):
            raise _Refused("evaluators", f"explain_strategy should be one of {', '.join(STRATEGIES)}")
        found.append(grader)
    return found


def _revision(criteria: str | None) -> tuple[str | None, int | None]:
    name, _, revision = (criteria or "").rpartition(":")
    return (name, int(revision)) if name and revision.isdecimal() and len(revision) < 10 else (criteria, None)


def _criterion(grader: Grader) -> str:
    """What a judge is asked: the name of the criteria in words, or what the family is for."""
    criteria, _ = _revision(grader.criteria)
    if criteria and criteria != "patronus:hallucination":
        return criteria.removeprefix("patronus:").replace("-", " ").replace("_", " ")
    known = [each for each in _MEANING if each in grader.evaluator]
    return _MEANING[max(known, key=len)] if known else "it is a good answer"


# --- what is answered ---


def _inner(
    body: Mapping[str, Any], row: Mapping[str, Any], grader: Grader, verdict: Verdict, took: str
) -> dict[str, Any]:
    passed = verdict.value == PASS
    strategy = grader.explain_strategy or "always"
    explains = strategy == "always" or strategy == ("on-success" if passed else "on-fail")
    tags = body.get("tags")
    assert verdict.value in (PASS, FAIL)
    return {
        "id": str(uuid.uuid4().int % 10**14),
        "log_id": body.get("log_id") or str(uuid.uuid4()),
        "app": body.get("app"),
        "experiment_id": body.get("experiment_id"),
        "created_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "evaluator_id": grader.evaluator,
        "evaluator_family": grader.evaluator.partition("-")[0],
        "evaluator_profile_public_id": str(uuid.uuid5(uuid.NAMESPACE_URL, grader.name)),
        "pass": passed,
        "score_raw": float(passed),
        "text_output": None,
        "explain_strategy": strategy,
        "explanation": verdict.feedback if explains else None,
        "evaluation_duration": took,
        "explanation_duration": None,
        "evaluation_metadata": None,
        "additional_info": {"positions": None, "extra": None, "confidence_interval": None},
        "evaluated_model_input": row["task_input"],
        "evaluated_model_output": row["task_output"],
        "evaluated_model_gold_answer": row["gold_answer"],
        "evaluated_model_system_prompt": row["system_prompt"],
        "evaluated_model_retrieved_context": row["task_context"],
        "dataset_id": body.get("dataset_id"),
        "dataset_sample_id": None,
        "tags": tags if isinstance(tags, dict) else {},
        "external": False,
        "evaluation_type": "patronus_evaluation",
    }


# --- what is asked before: every name is known, and nothing is kept ---


async def _evaluators(asked_by: Request) -> Response:
    name = asked_by.query_params.get("by_alias_or_id", "judge")[:200]
    known = {
        "id": name, "name": name, "evaluator_family": name.partition("-")[0], "aliases": [name], "description": None,
        "default_criteria": None, "evaluation_enabled": True, "evaluation_run_enabled": False,
        "profile_required": False, "image_url": None,
    }  # fmt: skip
    return JSONResponse({"evaluators": [known]})


async def _criteria(asked_by: Request) -> Response:
    name = asked_by.query_params.get("name", "")[:200]
    known = {
        "name": name, "revision": 1, "public_id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "config": {},
        "evaluator_family": asked_by.query_params.get("evaluator_family"), "description": None,
        "is_patronus_managed": name.startswith("patronus:"), "created_at": "2024-01-01T00:00:00Z",
    }  # fmt: skip
    return JSONResponse({"evaluator_criteria": [known] if name else []})


async def _project(asked_by: Request) -> Response:
    name = str((await _object(asked_by)).get("name"))[:200]
    made = {"id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "name": name, "created_at": "2024-01-01T00:00:00Z"}
    return JSONResponse(made)


async def _experiments(asked_by: Request) -> Response:
    if asked_by.method == "GET":
        return JSONResponse({"experiments": []})
    body = await _object(asked_by)
    fields = {name: body.get(name) for name in ("name", "project_id", "tags", "metadata")}
    id_ = str(int(sha256(canonical(fields))[:12], 16))
    return JSONResponse({"experiment": {**fields, "id": id_, "created_at": "2024-01-01T00:00:00Z"}})


async def _search(asked_by: Request) -> Response:
    await _object(asked_by)
    return JSONResponse({"evaluations": []})


async def _object(asked_by: Request) -> dict[str, Any]:
    body = await _body(asked_by)
    return body if isinstance(body, dict) else {}


async def _body(asked_by: Request) -> Any:
    """A JSON body, of which every part can be said back. Raises Problem for any other."""
    return masked(await read_json(asked_by, LARGEST))
