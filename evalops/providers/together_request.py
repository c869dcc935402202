"""What is said to Together's evaluation service: the body of a job, how it is known again, and what it would refuse.

Pure: no key is read and nothing is sent. Names and defaults are those of the service; an evaluation's own names for
the same things are nearly all theirs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

from evalops import semantics
from evalops.endpoint import EMBEDDED, VENDORS
from evalops.errors import Diagnostic, EvalopsError, Severity
from evalops.fingerprint import candidate_keys
from evalops.providers.together_rows import ADDED
from evalops.secret import Secret
from evalops.spec import Column, Evaluation, Model, Type

EVALUATIONS = "/v1/evaluation"
FILES = "/v1/files"
IMAGES = "image_data_urls"  # a column that the service takes without a template that uses it

# Vendors whose models the service calls by a short name, and the open models among those names, which it serves itself.
SHORTCUTS = ("anthropic/", "google/", "openai/")
OPEN_MODELS = ("google/gemma", "openai/gpt-oss")
_OWN = "together/"  # our prefix for its serverless models
_HERE = (EMBEDDED, "ollama/")

_MODELS = ("judge", "model_to_evaluate", "model_a", "model_b")
_SHARED = ("labels", "min_score", "max_score", "disable_position_bias_correction")
_MODEL_FIELDS = ("model", "model_source", "system_template", "input_template", "external_base_url", "max_tokens",
                 "temperature")  # fmt: skip
# What the service takes where a request says nothing.
_JUDGE_DEFAULTS = {"max_tokens": 32768, "temperature": 0.05}
_MODEL_DEFAULTS = {"max_tokens": 1024, "temperature": 0.05}
_CHOSEN_THERE = ("max_tokens", "temperature", "external_base_url")

_MARKER = re.compile(r"\{# evalops:([0-9a-f]{16}-[1-9][0-9]*) #\}")
_MARKERS = re.compile(rf"(?:{_MARKER.pattern})+")


def marker(fingerprint: str, generation: int) -> str:
    """The name by which a job of ours is known at the service."""
    return f"{fingerprint[:16]}-{generation}"


def body(evaluation: Evaluation, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The request for a job."""
    return {"parameters": parameters, "type": evaluation.type.value}


def parameters(
    evaluation: Evaluation, file_id: str, tokens: Mapping[str, Secret], *, mark: str | None = None
) -> dict[str, Any]:
    """The parameters of a job over an uploaded file.

    `tokens` are the keys of external models by the model's name in the spec (`judge`, `model_a` …). They stay secrets
    until `encode`. `mark` is a `marker`, written as a comment that renders to nothing; None leaves it out.
    """
    judge = evaluation.judge.model
    assert judge is not None, "a judge that is a column was refused by `check`"
    sent: dict[str, Any] = {"input_data_file_path": file_id, "judge": _model("judge", judge, tokens)}
    if mark is not None:
        # At the start: at the end it would change a template that ends in a line break, which Jinja2 drops.
        sent["judge"]["system_template"] = f"{{# evalops:{mark} #}}{sent['judge']['system_template']}"
    match evaluation.type:
        case Type.CLASSIFY:
            sent |= {"labels": list(evaluation.labels), "pass_labels": list(evaluation.pass_labels)}
        case Type.SCORE:
            sent |= {"max_score": evaluation.max_score, "min_score": evaluation.min_score}
            sent |= {"pass_threshold": evaluation.pass_threshold}
        case Type.COMPARE if not evaluation.both_orders:
            sent["disable_position_bias_correction"] = True
    for key, candidate in zip(candidate_keys(evaluation), evaluation.candidates, strict=True):
        sent[key] = str(candidate) if isinstance(candidate, Column) else _model(key, candidate, tokens)
    return sent


def encode(request: Mapping[str, Any]) -> bytes:
    """The request as JSON, with the secrets that it names."""
    text = json.dumps(
        request, ensure_ascii=False, separators=(",", ":"), allow_nan=False, default=lambda secret: secret.reveal()
    )
    return text.encode("utf-8", "backslashreplace")  # half a character, as JSON writes it


def job_path(job: str) -> str:
    """Where a job is read."""
    return f"{EVALUATIONS}/{_segment(job)}"


def file_path(file_id: str, part: str = "") -> str:
    """Where a file is described, or its `content` read, or `preprocess` asked for."""
    return f"{FILES}/{_segment(file_id)}" + (f"/{part}" if part else "")


def list_query(limit: int | None = None, status: str | None = None) -> tuple[tuple[str, str], ...]:
    """The query of the list of jobs."""
    return tuple((name, str(value)) for name, value in (("limit", limit), ("status", status)) if value is not None)


def upload_form(name: str, sha256: str) -> dict[str, str]:
    """The fields that announce the upload of a JSONL file."""
    return {"purpose": "eval", "file_name": name, "file_type": "jsonl", "checksum": sha256}


def source(model: Model) -> str:
    """`serverless`, `dedicated` or `external`: as the spec says, else by what the model's id begins with."""
    if model.model_source is not None:
        return model.model_source
    is_vendors = model.model.startswith(SHORTCUTS) and not model.model.startswith(OPEN_MODELS)
    return "external" if model.external_base_url is not None or is_vendors else "serverless"


def marker_of(parameters: Mapping[str, Any]) -> str | None:
    """The marker that a job's parameters carry."""
    judge = parameters.get("judge")
    template = judge.get("system_template") if isinstance(judge, dict) else None
    found = _MARKER.match(template) if isinstance(template, str) else None
    return found.group(1) if found else None


def same_work(sent: Mapping[str, Any], echoed: Mapping[str, Any], *, with_file: bool = True) -> bool:
    """Whether two jobs (each with `type` and `parameters`) can only give the same verdicts.

    Compared by value: markers, keys, worker counts and what merely grades are ignored, and what one of them leaves
    out is the service's default. Of a job with our marker, the defaults may be any: it chose them. Without
    `with_file` the caller knows otherwise that the rows are the same.
    """
    ours, theirs = _work(sent), _work(echoed)
    if not with_file:
        ours.pop("input_data_file_path", None)
        theirs.pop("input_data_file_path", None)
    found = [marker_of(each["parameters"]) for each in (sent, echoed) if isinstance(each.get("parameters"), dict)]
    if len(found) == 2 and found[0] is not None and found[0] == found[1]:
        theirs = {key: value for key, value in theirs.items() if key in ours or not key.endswith(_CHOSEN_THERE)}
    return bool(_defaults(ours) | ours == _defaults(theirs) | theirs)


def _work(job: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a job that can change a verdict, flat, less those that say nothing."""
    said = job.get("parameters")
    given = said if isinstance(said, dict) else {}
    fields = {"type": job.get("type")}
    fields |= {key: given.get(key) for key in ("input_data_file_path", *_SHARED)}
    for key in _MODELS:
        value = given.get(key)
        if isinstance(value, dict):
            fields |= {f"{key}.{name}": value.get(name) for name in _MODEL_FIELDS}
        else:
            fields[key] = value
    return {key: _compared(key, value) for key, value in fields.items() if value is not None}


def _compared(key: str, value: Any) -> Any:
    if isinstance(value, str) and key == "judge.system_template":
        return _unmarked(value)
    return value.rstrip("/") if isinstance(value, str) and key.endswith("external_base_url") else value


def _defaults(work: Mapping[str, Any]) -> dict[str, Any]:
    """What the service takes for the fields that a job leaves out."""
    found: dict[str, Any] = {"disable_position_bias_correction": False} if work.get("type") == "compare" else {}
    for key in _MODELS:
        model = work.get(f"{key}.model")
        if model is None:
            continue
        values = _JUDGE_DEFAULTS if key == "judge" else _MODEL_DEFAULTS
        found |= {f"{key}.{name}": value for name, value in values.items()}
        vendor = next((each for each in SHORTCUTS if str(model).startswith(each)), None)
        if vendor and work.get(f"{key}.model_source") == "external":
            found[f"{key}.external_base_url"] = VENDORS[vendor].base_url
    return found


def _model(key: str, model: Model, tokens: Mapping[str, Secret]) -> dict[str, Any]:
    """A model as the service wants it, without what the spec leaves out."""
    fields = {
        "input_template": model.input_template and model.input_template.source,
        "max_tokens": model.max_tokens,
        "model": model.model.removeprefix(_OWN),
        "model_source": source(model),
        "system_template": model.system_template and model.system_template.source,
        "temperature": model.temperature,
        "external_api_token": tokens.get(key) if source(model) == "external" else None,
        "external_base_url": model.external_base_url,
        "num_workers": model.num_workers,
    }
    return {name: value for name, value in fields.items() if value is not None}


def _segment(name: str) -> str:
    if name in ("", ".", ".."):
        raise EvalopsError(Diagnostic(code="together/id", message=f"`{name}` is no id"))
    return quote(name, safe="")


def _unmarked(template: str) -> str:
    found = _MARKERS.match(template)
    return template[found.end() :] if found else template


# --- what the service would refuse ---


def check(evaluation: Evaluation) -> list[Diagnostic]:
    """What the service would refuse of an evaluation, or could not do; beyond what is wrong with it anywhere."""
    if evaluation.type is Type.CUSTOM:
        return [_local(evaluation, "type", "Together has no type `custom`: it has no evaluators", "type")]
    return [*_judge(evaluation), *_passes(evaluation), *_columns(evaluation), *_candidates(evaluation)]


def _judge(evaluation: Evaluation) -> Iterator[Diagnostic]:
    judge = evaluation.judge
    if judge.column is not None:
        yield _local(evaluation, "judge", "recorded verdicts are not graded at Together", "judge", "column")
    if judge.likelihood:
        yield _local(evaluation, "judge", "Together has no `verdict: likelihood`", "judge", "verdict")
    elif judge.model is not None and not judge.reason:
        yield _local(evaluation, "judge", "Together's judges always give a reason", "judge", "reason")
    if judge.criteria:
        yield _local(evaluation, "judge", "Together's judges give one score, and none for each of `criteria`", "judge")
    if evaluation.panel:
        yield _local(evaluation, "judge", "a job at Together has one judge", "judges")
    if evaluation.repeats > 1:
        yield _local(evaluation, "judge", "a job at Together judges each row once", "repeats")
    for model in evaluation.models:
        yield from _source(evaluation, model)


def _source(evaluation: Evaluation, model: Model) -> Iterator[Diagnostic]:
    mark, where = evaluation.places.mark, source(model)
    if model.model.startswith(_HERE) and model.external_base_url is None:
        yield _local(evaluation, "model", f"`{model.model}` runs on this machine", *model.route, "model")
    elif where == "external" and model.external_base_url is None and not model.model.startswith(SHORTCUTS):
        names = ", ".join(f"`{each}`" for each in SHORTCUTS)
        yield Diagnostic(
            code="together/external",
            message=f"nothing says where the external model `{model.model}` is served",
            mark=mark(*model.route, "model"),
            hint=f"give `external_base_url`, or begin the id with one of {names}",
        )
    elif where != "external" and model.external_base_url is not None:
        yield Diagnostic(
            code="together/external",
            message=f"a `{where}` model is served by Together, so `external_base_url` does not belong here",
            mark=mark(*model.route, "external_base_url"),
            hint="remove it, or write `model_source: external`",
        )
    if where != "external" and model.credential is not None:
        yield Diagnostic(
            code="together/external",
            message=f"a `{where}` model is called with the key of Together, so `credential` is not used",
            mark=mark(*model.route, "credential"),
            severity=Severity.WARNING,
        )


def _passes(evaluation: Evaluation) -> Iterator[Diagnostic]:
    if evaluation.type is Type.CLASSIFY and not evaluation.pass_labels:
        yield Diagnostic(
            code="together/pass-labels",
            message="Together needs `pass_labels`",
            mark=evaluation.places.mark("labels"),
            hint="name the labels that count as a pass: changing them later costs nothing",
        )
    if evaluation.type is Type.SCORE and evaluation.pass_threshold is None:
        yield Diagnostic(
            code="together/pass-threshold",
            message="Together needs `pass_threshold`",
            mark=evaluation.places.mark("max_score"),
            hint="give the score that counts as a pass: changing it later costs nothing",
        )


def _columns(evaluation: Evaluation) -> Iterator[Diagnostic]:
    used = semantics.variables(evaluation) | set(evaluation.response_columns)
    for column in sorted(used & ADDED[evaluation.type]):
        yield Diagnostic(
            code="together/column",
            message=f"Together writes its result into `{column}`, so the dataset's column of that name would be lost",
            mark=semantics.place(evaluation, column),
            hint=f"name it anew: `dataset: {{path: …, columns: {{my_{column.lower()}: {column}}}}}`",
        )
    if IMAGES in semantics.variables(evaluation):
        yield Diagnostic(
            code="together/images",
            message=f"Together shows the images of `{IMAGES}` to its models, and the template prints them as text too",
            mark=semantics.place(evaluation, IMAGES),
            hint=f"name the column without printing it: {{% if {IMAGES} %}}{{% endif %}}",
            severity=Severity.WARNING,
        )


def _candidates(evaluation: Evaluation) -> Iterator[Diagnostic]:
    for key, candidate in zip(candidate_keys(evaluation), evaluation.candidates, strict=True):
        if isinstance(candidate, Column):
            continue
        for name in ("system_template", "input_template"):
            if getattr(candidate, name) is None:
                yield Diagnostic(
                    code="together/template",
                    message=f"Together needs the `{name}` of `{key}`",
                    mark=evaluation.places.mark(key),
                    hint="like `input_template: '{{ question }}'`" if name == "input_template" else f"add `{name}`",
                )


def _local(evaluation: Evaluation, what: str, message: str, *route: str | int) -> Diagnostic:
    mark = evaluation.places.mark(*route)
    return Diagnostic(code=f"together/{what}", message=message, mark=mark, hint="use `provider: local`")


# --- the way back ---


def spec_of(job: Mapping[str, Any], dataset: str | None = None) -> dict[str, Any]:
    """A spec for a job that was made elsewhere, as a value for YAML; `dataset` is where its rows were put.

    Keys become names of credentials, to be bound in evalops.yaml. Raises EvalopsError where the job does not say
    what it does.
    """
    given, type_ = job.get("parameters"), job.get("type")
    judge = given.get("judge") if isinstance(given, dict) else None
    if (
        not isinstance(type_, str)
        or type_ not in set(Type)
        or not isinstance(given, dict)
        or not isinstance(judge, dict)
    ):
        message = f"the job `{job.get('workflow_id')}` does not say what it evaluates"
        raise EvalopsError(Diagnostic(code="together/import", message=message))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(job.get("workflow_id") or "")).lstrip("._-")[:100] or "imported"
    path = dataset or f"data/{name}.jsonl"
    spec = {"version": 1, "name": name, "type": type_, "provider": "together", "dataset": path}
    fields = (*_SHARED, "pass_labels", "pass_threshold")
    said: dict[str, Any] = {key: given[key] for key in fields if not _is_nothing(given.get(key))}
    for key in _MODELS:
        value = given.get(key)
        if isinstance(value, dict):
            said[key] = _model_of(value)
        elif isinstance(value, str):
            said[key] = value
    if isinstance(judge.get("system_template"), str):
        said["judge"]["system_template"] = _unmarked(judge["system_template"])
    order = ("judge", "labels", "pass_labels", "min_score", "max_score", "pass_threshold")
    return spec | {key: said[key] for key in (*order, *said) if key in said}


def _is_nothing(value: Any) -> bool:
    return value is None or value is False or value == []


def _model_of(value: Mapping[str, Any]) -> dict[str, Any]:
    """A model of a job as a spec names it."""
    found = {name: value[name] for name in (*_MODEL_FIELDS, "num_workers") if value.get(name) is not None}
    for name in ("max_tokens", "num_workers"):
        if isinstance(found.get(name), float) and found[name].is_integer():
            found[name] = int(found[name])
    url = found.get("external_base_url")
    if isinstance(url, str):  # a vendor's shortcut comes with the credential of that vendor
        try:
            host = urlsplit(url).hostname
        except ValueError:
            host = None
        found["credential"] = re.sub(r"[^A-Za-z0-9]+", "-", host or "").strip("-") or "external"
    return found
