"""From a job to the bodies and the result rows of the service."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalops.endpoint import EMBEDDED
from evalops.engine.store import JobRecord, Stored
from evalops.result import ClassifySummary, CompareSummary, ScoreSummary, Summary, Verdict, VerdictStatus
from evalops.server.problem import Problem
from evalops.server.request import SOURCES
from evalops.settings import Serve, Settings
from evalops.spec import Evaluation, Model, Type

OWNER = "local"
FAILED = ("error", "user_error")
OTHER = {"A": "B", "B": "A"}


# --- jobs ---


def job(record: JobRecord) -> dict[str, Any]:
    """The body of a job: `EvaluationJob` of the service."""
    request = json.loads(record.request or "{}")
    return {
        "workflow_id": record.id,
        "type": request.get("type"),
        "owner_id": OWNER,
        "status": record.status,
        "status_updates": _updates(record),
        "parameters": request.get("parameters"),
        "created_at": record.created_at,
        "updated_at": record.finished_at or record.started_at or record.created_at,
        "results": _results(record),
    }


def _updates(record: JobRecord) -> list[dict[str, str]]:
    """What is known of a job's way; when it was queued is not kept."""
    steps = [
        ("pending", "Job created and pending for processing", record.created_at),
        ("running", "Job status updated", record.started_at),
        (record.status, "Job status updated", record.finished_at),
    ]
    return [
        {"status": status, "message": message, "timestamp": timestamp}
        for status, message, timestamp in steps
        if timestamp
    ]


def _results(record: JobRecord) -> Any:
    if record.status in FAILED:
        found = json.loads(record.results) if record.results else None
        return found or {"error": record.message or "the job failed"}
    return json.loads(record.results) if record.status == "completed" and record.results else None


def model_list(settings: Settings, serve: Serve, source: str = "all") -> dict[str, list[str]]:
    """The ids that requests can name; external ones are not listed, since their vendors know them. Raises Problem."""
    if source not in ("all", *SOURCES):
        raise Problem(400, f"`model_source` must be one of all, {', '.join(SOURCES)}", param="model_source")
    if source == "external":
        return {"model_list": []}
    names = set(settings.models)
    # The path of a file is nobody's business; the model answers to any other name as well.
    if serve.default_model and not serve.default_model.startswith(f"{EMBEDDED}file:"):
        names.add(serve.default_model)
    return {"model_list": sorted(names)}


# --- results ---


@dataclass(slots=True)
class Tally:
    """Counts what failed while the rows of a job come by: calls by stage, and passes of a judge that said nothing."""

    generation: int = 0
    judge: int = 0
    unread: int = 0

    def add(self, stored: Stored) -> None:
        """Counts one row, as the store holds it."""
        verdict = stored.verdict
        if verdict.status is VerdictStatus.INVALID:
            self.unread += verdict.orders.count(None) if verdict.orders else 1
        elif verdict.status is VerdictStatus.ERROR and stored.detail.get("stage") == "generation":
            self.generation += 1
        elif verdict.status is VerdictStatus.ERROR:
            self.judge += 1


def results(evaluation: Evaluation, summary: Summary, tally: Tally, result_file_id: str | None) -> dict[str, Any]:
    """The results of a finished job; `summary` is of `decided` verdicts. No definition of a pass: no rate."""
    common = {
        "generation_fail_count": tally.generation,
        "judge_fail_count": tally.judge,
        "result_file_id": result_file_id,
    }
    match summary:
        case ClassifySummary():
            return {
                "label_counts": dict(summary.label_counts),
                "pass_percentage": summary.metrics["pass_percentage"].value,
                "invalid_label_count": summary.counts.invalid,
                **common,
            }
        case ScoreSummary():
            names = ("mean_score", "std_score", "pass_percentage")
            return {
                "aggregated_scores": {name: summary.metrics[name].value for name in names},
                "failed_samples": summary.counts.rows - summary.counts.scored,
                "invalid_score_count": summary.counts.invalid,
                **common,
            }
        case CompareSummary():
            # The service has no other count here for what cannot be read; it counts both passes of a row.
            unread = tally.unread if evaluation.both_orders else summary.counts.invalid
            wins = summary.choice_counts
            return {
                "A_wins": wins["A"],
                "B_wins": wins["B"],
                "Ties": wins["Tie"],
                **common,
                "judge_fail_count": tally.judge + unread,
            }


def decided(verdict: Verdict) -> Verdict:
    """The verdict of the one pass that could be read where the other could not: the service's rule for a compare."""
    found = [choice for choice in verdict.orders or () if choice is not None]
    if verdict.status is not VerdictStatus.INVALID or len(found) != 1:
        return verdict
    return verdict._replace(status=VerdictStatus.SCORED, value=found[0], reason=None)


# --- rows ---


def row(evaluation: Evaluation, source: Mapping[str, Any], stored: Stored) -> dict[str, Any]:
    """One row of the result file: the dataset's columns, then the service's in its order.

    A dataset's column of the same name gives way.
    """
    verdict = decided(stored.verdict)
    found: dict[str, Any] = {
        **_outputs(evaluation, stored.detail),
        "evaluation_successful": verdict.status is VerdictStatus.SCORED,
    }
    match evaluation.type:
        case Type.CLASSIFY:
            found |= {"label": verdict.value, "feedback": _feedback(verdict)}
        case Type.SCORE:
            found |= {"score": verdict.value, "feedback": _feedback(verdict)}
        case Type.COMPARE:
            found |= _passes(evaluation, stored)
    return {column: value for column, value in source.items() if column not in found} | found


def _outputs(evaluation: Evaluation, detail: Mapping[str, Any]) -> dict[str, str | None]:
    """What the models wrote, null where one of their calls failed."""
    suffixes = ("_A", "_B") if evaluation.type is Type.COMPARE else ("",)
    names = [
        f"MODEL_TO_EVALUATE_OUTPUT{suffix}"
        for suffix, candidate in zip(suffixes, evaluation.candidates, strict=False)
        if isinstance(candidate, Model)
    ]
    written = detail.get("outputs") or [None] * len(names)
    return dict(zip(names, written, strict=True))


def _feedback(verdict: Verdict) -> str | None:
    return verdict.feedback if verdict.status is VerdictStatus.SCORED else verdict.feedback or verdict.reason


def _passes(evaluation: Evaluation, stored: Stored) -> dict[str, Any]:
    """What a compare's judge said, pass by pass.

    The flipped choice is mapped back to the original order; the raw output has it as the judge said it.
    """
    raw, verdict = stored.verdict, decided(stored.verdict)
    text = _feedback(verdict)
    if evaluation.both_orders:
        given, flipped = raw.orders or (verdict.value, verdict.value)
        shared = None if raw.status is VerdictStatus.ERROR else text  # a call that failed was one of the two
        feedbacks = stored.detail.get("feedbacks") or (text, shared)
        passes = [
            ("original", "original_order", given, given, feedbacks[0]),
            ("flipped", "flipped_order", flipped, OTHER.get(str(flipped), flipped), feedbacks[1]),
        ]
    else:
        # In whichever order the row was shown: the verdict is mapped back.
        given = flipped = verdict.value
        passes = [("original", "original_order", given, given, text)]
    was_asked = raw.rung != "rule" and raw.status is not VerdictStatus.ERROR
    found: dict[str, Any] = {}
    for name, _, _, said, feedback in passes:
        output = json.dumps({"feedback": feedback, "choice": said}, ensure_ascii=False)
        found[f"judge_raw_output_{name}"] = output if was_asked else None
    for name, order, choice, _, feedback in passes:
        found |= {f"choice_{name}": choice, f"judge_feedback_{order}": feedback}
    return {
        **found,
        "final_decision": verdict.value,
        "is_invalid_judge_output": raw.status is not VerdictStatus.ERROR and None in (given, flipped),
    }
