"""What Patronus says of a row: results matched to the evaluators that were asked, and one verdict made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evalops import patronus
from evalops.errors import Diagnostic, EvalopsError
from evalops.patronus import Grader, Outcome, Patronus
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation, Type

SUCCESS, INVALID = "success", "validation_error"  # every other status is a failure that may pass
MOST_TEXT = 20_000  # characters of an explanation


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What one evaluator said of one row. `status` is the service's word, or `lost` where there was no answer."""

    status: str
    passed: bool | None = None
    score: float | None = None
    problem: str | None = None
    explanation: str | None = None
    text: str | None = None
    interval: Mapping[str, Any] | None = None
    id: str | None = None
    evaluator: str | None = None
    criteria: str | None = None
    tokens: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether asking again would change nothing."""
        return self.status in (SUCCESS, INVALID)

    def masked(self, mask: Callable[[str], str]) -> Result:
        """The result with `mask` over the service's own words."""
        problem, explanation, text = (each and mask(each) for each in (self.problem, self.explanation, self.text))
        return replace(self, status=mask(self.status), problem=problem, explanation=explanation, text=text)


def answered(body: Any, asked: Sequence[tuple[Grader, Grader]]) -> dict[str, Result]:
    """The results in an answer, by the names of the evaluators, each asked for as (spec's, pinned).

    One that the answer lacks is not there. Raises ValueError for what is no answer.
    """
    results = body.get("results") if isinstance(body, dict) else None
    if not isinstance(results, list):
        raise ValueError("there are no results")
    found: dict[str, Result] = {}
    for each in results:
        if isinstance(each, dict) and isinstance(each.get("status"), str):
            inner = each.get("evaluation_result")
            inner = inner if isinstance(inner, dict) else {}
            name = _whose({**inner, **{k: v for k, v in each.items() if v is not None}}, asked, found)
            if name:
                found[name] = _result(each["status"], each.get("error_message"), inner)
    return found


def captured(evaluations: Iterable[Any], asked: Sequence[tuple[Grader, Grader]], mark: str | None) -> dict[str, Result]:
    """What the service kept of one call, as its search has it; of several results of one evaluator the first.

    With a `mark`, what carries another one is left out: the log id is the user's own, and this is of another run.
    """
    found: dict[str, Result] = {}
    for each in evaluations:
        if not isinstance(each, dict):
            continue
        tags = each.get("tags")
        if mark is not None and isinstance(tags, dict) and tags.get("evalops", mark) != mark:
            continue
        name = _whose(each, asked, found)
        if name:
            found[name] = _result(SUCCESS, None, {**each, "score_raw": each.get("score")})
    return found


def _whose(value: Mapping[str, Any], asked: Sequence[tuple[Grader, Grader]], found: Mapping[str, Any]) -> str | None:
    """The evaluator that a result is of: the order says nothing, and an id may stand for an alias."""
    left = [pair for pair in asked if pair[0].name not in found]
    own = [pair for pair in left if value.get("evaluator_id") in (pair[0].evaluator, pair[1].evaluator)]
    if len(own) > 1:
        said = value.get("criteria") or value.get("profile_name")
        revision = value.get("criteria_revision")
        exact = [pair for pair in own if pair[1].criteria in (said, f"{said}:{revision}")]
        named = [pair for pair in own if said is not None and said in _spellings(pair)]
        own = exact or named or [pair for pair in own if pair[1].criteria is None and said is None]
    return own[0][0].name if own else None


def _spellings(pair: tuple[Grader, Grader]) -> set[str | None]:
    """How a service may spell the criteria that were asked for."""
    written, pinned = pair[0].criteria, pair[1].criteria
    return {written, pinned, (pinned or "").rpartition(":")[0] or pinned}


def _result(status: str, problem: Any, inner: Mapping[str, Any]) -> Result:
    passed, score, about = inner.get("pass"), inner.get("score_raw"), inner.get("additional_info")
    interval = about.get("confidence_interval") if isinstance(about, dict) else None
    tokens = inner.get("usage_tokens")
    return Result(
        status=status[:80],
        passed=passed if isinstance(passed, bool) else None,
        score=_number(score),
        problem=_text(problem),
        explanation=_text(inner.get("explanation")),
        text=_text(inner.get("text_output")),
        interval=_interval(interval),
        id=_text(inner.get("id")),
        evaluator=_text(inner.get("evaluator_id")),
        criteria=_text(inner.get("criteria")),
        tokens=tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None,
    )


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        return None
    return float(value)


def _text(value: Any) -> str | None:
    if value is None or value == "":
        return None
    return str(value)[:MOST_TEXT]


def _interval(value: Any) -> dict[str, Any] | None:
    if not isinstance(value, dict):
        return None
    numbers = {key: value.get(key) for key in ("alpha", "lower", "median", "upper")}
    found = {key: each for key, each in numbers.items() if isinstance(each, int | float) and math.isfinite(each)}
    return {"strategy": str(value.get("strategy"))[:80], **found} if found else None


# --- one verdict ---


def verdict(evaluation: Evaluation, key: str, results: Mapping[str, Result]) -> Verdict:
    """The verdict on a row: an error where an evaluator may yet answer, invalid where one never will."""
    asked = evaluation.patronus
    assert asked is not None
    is_score = evaluation.type is Type.SCORE
    outcomes = {name: Outcome(*_said(each)) for name, each in results.items() if each.status == SUCCESS}
    numbers = patronus.numbers(asked, outcomes, is_score=is_score) or None
    status, reason = _standing(asked, results)
    value = None
    if status is VerdictStatus.SCORED:
        value = patronus.combined(asked, numbers or {}, is_score=is_score)
        if value is None:
            is_out = any(each.score is not None and _said(each)[1] is None for each in results.values())
            status, reason = VerdictStatus.INVALID, "out_of_range" if is_out else "no_verdict"
    return Verdict(key, status, value, reason, _feedback(results), criteria=numbers)


def _said(result: Result) -> tuple[bool | None, float | None]:
    """Whether a row passed and its score, without a score that is outside of 0 to 1."""
    score = result.score
    return result.passed, score if score is not None and 0 <= score <= 1 else None


def _standing(asked: Patronus, results: Mapping[str, Result]) -> tuple[VerdictStatus, str | None]:
    found = [results.get(each.name) for each in asked.graders]
    failed = next((each for each in found if each is None or not each.is_final), found)
    if failed is not found:
        return VerdictStatus.ERROR, getattr(failed, "status", None) or "missing"
    if any(each is not None and each.status == INVALID for each in found):
        return VerdictStatus.INVALID, INVALID
    return VerdictStatus.SCORED, None


def _feedback(results: Mapping[str, Result]) -> str | None:
    said = {name: each.problem or each.explanation or each.text for name, each in results.items()}
    texts = {name: text for name, text in said.items() if text}
    if len(results) == 1:
        return next(iter(texts.values()), None)
    return "\n".join(f"{name}: {text}" for name, text in texts.items()) or None


def detail(results: Mapping[str, Result], *, log_id: str, calls: int) -> dict[str, Any]:
    """What is kept of a row beside its verdict, as JSON."""
    return {
        "evaluators": [
            {
                "name": name,
                "status": each.status,
                "pass": each.passed,
                "score": each.score,
                **{
                    key: getattr(each, attribute)
                    for key, attribute in _MORE.items()
                    if getattr(each, attribute) is not None
                },
            }
            for name, each in results.items()
        ],
        "log_id": log_id,
        "calls": calls,
    }


_MORE = {
    "evaluator": "evaluator", "criteria": "criteria", "explanation": "explanation", "text": "text",
    "problem": "problem", "confidence_interval": "interval", "id": "id", "tokens": "tokens",
}  # fmt: skip


def unreadable(why: str) -> EvalopsError:
    """An answer of the service that makes no sense."""
    return EvalopsError(Diagnostic(code="provider/answer", message=f"Patronus cannot be understood: {why}"))
