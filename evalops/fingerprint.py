"""Identity: which fields can change a verdict, and the digests over them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from dataclasses import fields as fields_of
from typing import Any

from evalops.endpoint import Endpoint
from evalops.patronus import READ
from evalops.spec import Candidate, Column, Evaluation, Evaluator, Judge, Model, Text, Type

# Raised when a provider's requests or our prompts change in a way that can change verdicts.
PROTOCOLS = {"local": 1, "together": 1, "patronus": 1}

LONGEST = 120  # characters; a longer input stands in the lockfile as its digest

Value = str | int | float | bool | None

_encode = json.JSONEncoder(
    sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False, check_circular=False
).encode  # what comes out of a file holds no circles to look for


@dataclass(frozen=True, slots=True, kw_only=True)
class Digests:
    """What was read of a dataset: rows, and sha256 over all columns, the columns in use, and the grading ones.

    `characters` counts the text in the columns in use, for the estimate of tokens. Both counts are None where a
    service has the rows and only their sha256 is known.
    """

    rows: int | None
    dataset: str
    submitted: str
    grading: str
    characters: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything plan compares with a lock entry.

    `endpoints` are those of the models, one to one, and `origin` is the service that runs it, if one does.
    """

    fingerprint: str
    inputs: Mapping[str, Value]
    grade: str
    digests: Digests
    endpoints: tuple[Endpoint, ...] = ()
    origin: str | None = None


def canonical(value: Any) -> bytes:
    """One byte form for equal JSON values: sorted keys, no spaces, UTF-8."""
    return _encode(value).encode("utf-8", "surrogatepass")


def sha256(data: bytes) -> str:
    """Hex digest, 64 characters."""
    return hashlib.sha256(data).hexdigest()


def identify(
    evaluation: Evaluation, endpoints: Iterable[Endpoint], digests: Digests, weights: Mapping[str, str]
) -> Identity:
    """The identity of an evaluation over a dataset.

    `endpoints` answers `evaluation.models` one to one; `weights` maps embedded model ids and Python functions to the
    digest of their files, so that another file under the same path is another model.
    """
    endpoints = tuple(endpoints)
    fields = run_fields(evaluation, endpoints, digests.submitted, weights)
    return Identity(
        fingerprint=sha256(canonical(fields)),
        inputs={key: _short(value) for key, value in sorted(fields.items())},
        grade=sha256(canonical({**grade_fields(evaluation), "grading": digests.grading})),
        digests=digests,
        endpoints=endpoints,
    )


def run_fields(
    evaluation: Evaluation, endpoints: tuple[Endpoint, ...], submitted: str, weights: Mapping[str, str]
) -> dict[str, Any]:
    """The flat run fields: dotted names as in the spec, so that a change can be shown at its line."""
    fields: dict[str, Any] = {
        "provider": evaluation.provider,
        "protocol": PROTOCOLS[evaluation.provider],
        "type": evaluation.type.value,
        "dataset.rows": submitted,
        "labels": list(evaluation.labels) or None,
        "min_score": evaluation.min_score,
        "max_score": evaluation.max_score,
    }
    if evaluation.type is Type.CUSTOM:
        del fields["min_score"], fields["max_score"]
    if not evaluation.both_orders:
        fields["disable_position_bias_correction"] = True
    at = dict(zip((id(model) for model in evaluation.models), endpoints, strict=True))
    for judge in evaluation.judges:
        fields |= _judge_fields(".".join(map(str, judge.route)), judge, at, weights)
    fields |= _voting_fields(evaluation)
    fields |= _patronus_fields(evaluation)
    if evaluation.evaluator is not None:
        fields |= _evaluator_fields(evaluation.evaluator)
        fields["evaluator.code"] = weights.get(evaluation.evaluator.function or "")
        fields["gold"] = evaluation.gold  # no judge: the true answer makes the verdict
    for key, candidate in zip(candidate_keys(evaluation), evaluation.candidates, strict=True):
        fields |= _candidate_fields(key, candidate, at, weights)
    return {key: value for key, value in fields.items() if value is not None}


def candidate_keys(evaluation: Evaluation) -> tuple[str, ...]:
    """The spec's names for the candidates, in their order."""
    return (
        ("model_a", "model_b")
        if len(evaluation.candidates) == 2
        else ("model_to_evaluate",)[: len(evaluation.candidates)]
    )


def grade_fields(evaluation: Evaluation) -> dict[str, Any]:
    """The fields that only read the verdicts. Thresholds are compared with the gates, which need no verdict."""
    return {
        "pass_labels": sorted(evaluation.pass_labels),
        "pass_threshold": evaluation.pass_threshold,
        "gold": evaluation.gold,
        **({"group_by": list(evaluation.group_by)} if evaluation.group_by else {}),
        **({"cluster": evaluation.cluster} if evaluation.cluster else {}),
        **({"combine": evaluation.patronus.combine} if evaluation.patronus else {}),
    }


def _judge_fields(key: str, judge: Judge, at: Mapping[int, Endpoint], weights: Mapping[str, str]) -> dict[str, Any]:
    if judge.column is not None:
        return {f"{key}.column": judge.column}
    if judge.model is None:
        return {}
    return {
        **_model_fields(key, judge.model, at[id(judge.model)], weights),
        f"{key}.verdict": "likelihood" if judge.likelihood else None,
        f"{key}.reason": None if judge.reason or judge.likelihood else "none",
        f"{key}.criteria": canonical([list(each) for each in judge.criteria]).decode() if judge.criteria else None,
    }


def _voting_fields(evaluation: Evaluation) -> dict[str, Any]:
    if not evaluation.is_jury:
        return {}
    voting = evaluation.voting
    return {
        "repeats": evaluation.repeats if evaluation.repeats > 1 else None,
        "vote.rule": voting.rule,
        "vote.quorum": voting.quorum,
        "vote.cascade": voting.cascade or None,
        "vote.margin": voting.margin,
    }


def _evaluator_fields(evaluator: Evaluator) -> dict[str, Any]:
    """What differs from the defaults only, so that a later field leaves the fingerprint as it is."""
    plain = Evaluator(kind=evaluator.kind)
    found = {each.name: getattr(evaluator, each.name) for each in fields_of(Evaluator)}
    changed = {name: value for name, value in found.items() if name == "kind" or value != getattr(plain, name)}
    if "schema" in changed:
        changed["schema"] = canonical(changed["schema"]).decode()
    return {f"evaluator.{name}": value for name, value in changed.items()}


def _patronus_fields(evaluation: Evaluation) -> dict[str, Any]:
    """Who judges, and what of a row they read. The order of evaluators says nothing."""
    asked = evaluation.patronus
    if asked is None:
        return {}
    # The response stands among the candidates already, under its usual name.
    columns = {name: asked.columns[name] for name in READ if name in asked.columns and name != "task_output"}
    return {
        "evaluators": sorted(map(str, asked.graders)),
        **{f"patronus.columns.{name}": column for name, column in columns.items()},
    }


def _candidate_fields(
    key: str, candidate: Candidate, at: Mapping[int, Endpoint], weights: Mapping[str, str]
) -> dict[str, Any]:
    if isinstance(candidate, Column):
        return {key: str(candidate)}
    return _model_fields(key, candidate, at[id(candidate)], weights)


def _model_fields(key: str, model: Model, endpoint: Endpoint, weights: Mapping[str, str]) -> dict[str, Any]:
    return {
        f"{key}.model": endpoint.model,
        f"{key}.model_source": endpoint.source,
        f"{key}.base_url": endpoint.base_url or None,
        f"{key}.weights": weights.get(endpoint.model),
        f"{key}.system_template": _source(model.system_template),
        f"{key}.input_template": _source(model.input_template),
        f"{key}.max_tokens": model.max_tokens,
        f"{key}.temperature": model.temperature,
    }


def _source(text: Text | None) -> str | None:
    return text.source if text else None


def _short(value: Any) -> Value:
    """A field as the lockfile shows it: short values as they are, long ones as a digest."""
    if isinstance(value, list):
        value = ", ".join(json.dumps(each, ensure_ascii=False) if "," in each else each for each in value)
    if isinstance(value, str) and (len(value) > LONGEST or "\n" in value):
        return f"sha256:{sha256(value.encode('utf-8', 'surrogatepass'))}"
    return value  # type: ignore[no-any-return]
