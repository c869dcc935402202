"""The bodies and rows of the server: as the reference has them, and as the official client reads them strictly."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import together
from evaluations import evaluation as spec_evaluation
from evaluations import settings as project_settings
from hypothesis import given
from hypothesis import strategies as st

from evalops.engine.store import JobRecord, Stored
from evalops.metrics import summaries
from evalops.result import Graded, Verdict, VerdictStatus
from evalops.server.answer import Tally, decided, job, model_list, results, row
from evalops.server.problem import Problem
from evalops.settings import Serve
from evalops.spec import Evaluation

CREATED, STARTED, FINISHED = (f"2026-05-01T10:00:0{second}.000001Z" for second in range(3))
PARAMETERS = {
    "labels": ["polite", "rude"],
    "min_score": 1.0,
    "model_to_evaluate": None,
    "judge": {"model": "m", "external_api_token": "***"},
}
MODEL = {"model": "ollama/llama3.2", "input_template": "{{ prompt }}"}
SOURCE = {"prompt": "Hello?"}
GENERATION = {"stage": "generation"}


def record(status: str, **fields: Any) -> JobRecord:
    request = json.dumps({"type": fields.pop("type", "classify"), "parameters": PARAMETERS})
    return JobRecord("eval-0a1b-1751308922", "", 1, status, None, 3, CREATED, request=request)._replace(**fields)


def ended(status: str, found: Any, **fields: Any) -> JobRecord:
    return record(status, started_at=STARTED, finished_at=FINISHED, results=json.dumps(found), **fields)


def evaluation(type_: str = "classify", **fields: Any) -> Evaluation:
    return spec_evaluation(type=type_, **fields)


def stored(
    status: VerdictStatus, value: Any = None, orders: Any = None, rung: str | None = "text", **detail: Any
) -> Stored:
    scored = status is VerdictStatus.SCORED
    feedback = "because" if scored else "could not be read"
    verdict = Verdict("k", status, value, None if scored else "unparsable", feedback, orders, rung)
    return Stored(0, verdict, detail)


def scored(value: Any, orders: Any = None, **detail: Any) -> Stored:
    return stored(VerdictStatus.SCORED, value, orders, **detail)


def invalid(orders: Any = None, **detail: Any) -> Stored:
    return stored(VerdictStatus.INVALID, None, orders, **detail)


def failed(**detail: Any) -> Stored:
    verdict = Verdict("k", VerdictStatus.ERROR, None, "timeout", "gave no answer within 120 s")
    return Stored(0, verdict, detail)


def summed(evaluation: Evaluation, rows: list[Stored], file: str | None = "file-9") -> dict[str, Any]:
    """The results of these rows, as the server takes them."""
    tally = Tally()
    for each in rows:
        tally.add(each)
    summary = summaries.summarise(evaluation, (Graded(decided(each.verdict), None) for each in rows))
    return results(evaluation, summary, tally, file)


# --- jobs ---


@pytest.mark.parametrize("status", ["pending", "queued"])
def test_a_waiting_job(status: str) -> None:
    assert job(record(status)) == {
        "workflow_id": "eval-0a1b-1751308922",
        "type": "classify",
        "owner_id": "local",
        "status": status,
        "status_updates": [
            {"status": "pending", "message": "Job created and pending for processing", "timestamp": CREATED}
        ],
        "parameters": PARAMETERS,
        "created_at": CREATED,
        "updated_at": CREATED,
        "results": None,
    }


def test_a_running_job_has_no_results_whatever_is_stored() -> None:
    found = job(record("running", started_at=STARTED, results='{"label_counts": {}}'))
    assert found["results"] is None
    assert found["updated_at"] == STARTED
    assert found["status_updates"][1:] == [{"status": "running", "message": "Job status updated", "timestamp": STARTED}]


def test_a_completed_job() -> None:
    found = job(ended("completed", {"A_wins": 1}))
    assert found["results"] == {"A_wins": 1}
    assert found["updated_at"] == FINISHED
    assert [(each["status"], each["timestamp"]) for each in found["status_updates"]] == [
        ("pending", CREATED),
        ("running", STARTED),
        ("completed", FINISHED),
    ]


@pytest.mark.parametrize("status", ["error", "user_error"])
def test_a_failed_job_says_why(status: str) -> None:
    assert job(ended(status, {"error": "unsupported"}))["results"] == {"error": "unsupported"}
    assert job(record(status, message="it broke"))["results"] == {"error": "it broke"}
    assert job(record(status))["results"] == {"error": "the job failed"}
    assert job(ended(status, {"error": "x"}))["status_updates"][-1]["status"] == status


# --- results ---


def test_results_of_classify() -> None:
    rows = [scored("polite"), scored("polite"), scored("rude"), scored("polite")]
    rows += [invalid(), failed(**GENERATION), failed(), failed()]
    assert summed(evaluation(pass_labels=["polite"]), rows) == {
        "label_counts": {"polite": 3, "rude": 1},
        "pass_percentage": 75.0,
        "invalid_label_count": 1,
        "generation_fail_count": 1,
        "judge_fail_count": 2,
        "result_file_id": "file-9",
    }


def test_no_pass_rate_without_a_pass() -> None:
    assert summed(evaluation(), [scored("polite")])["pass_percentage"] is None
    assert summed(evaluation("score"), [scored(2.0)])["aggregated_scores"]["pass_percentage"] is None
    assert summed(evaluation(pass_labels=["rude"]), [invalid()])["pass_percentage"] is None
    assert summed(evaluation(pass_labels=["rude"]), [scored("polite")])["pass_percentage"] == 0.0


def test_results_of_score() -> None:
    rows = [scored(2.0), scored(4.0), invalid(), failed(), failed(**GENERATION)]
    assert summed(evaluation("score", pass_threshold=4), rows) == {
        "aggregated_scores": {"mean_score": 3.0, "std_score": pytest.approx(2**0.5), "pass_percentage": 50.0},
        "failed_samples": 3,
        "invalid_score_count": 1,
        "generation_fail_count": 1,
        "judge_fail_count": 1,
        "result_file_id": "file-9",
    }


def test_results_of_compare_count_the_pass_that_decides() -> None:
    rows = [
        scored("A", ("A", "A")),
        scored("Tie", ("A", "B")),
        invalid(("A", None)),
        invalid((None, "B")),
        invalid((None, None)),
        failed(),
        failed(**GENERATION),
    ]
    assert summed(evaluation("compare"), rows) == {
        "A_wins": 2,
        "B_wins": 1,
        "Ties": 1,
        "generation_fail_count": 1,
        "judge_fail_count": 1 + 1 + 2 + 1,  # both passes together
        "result_file_id": "file-9",
    }


@pytest.mark.parametrize("orders", [None, (None, None)])
def test_a_single_pass_fails_once(orders: Any) -> None:
    single = evaluation("compare", disable_position_bias_correction=True)
    assert summed(single, [invalid(orders), scored("B", (None, "B"))])["judge_fail_count"] == 1
    assert summed(single, [invalid(orders), scored("B", (None, "B"))])["B_wins"] == 1


def test_no_rows_at_all_are_valid_json_too() -> None:
    for type_ in ("classify", "score", "compare"):
        json.dumps(summed(evaluation(type_), [], None), allow_nan=False)


# --- one readable pass decides ---


@pytest.mark.parametrize("orders", [("A", None), (None, "A")])
def test_one_readable_pass_decides(orders: Any) -> None:
    found = decided(invalid(orders).verdict)
    assert (found.status, found.value, found.reason, found.orders) == (VerdictStatus.SCORED, "A", None, orders)


@given(st.sampled_from(VerdictStatus), st.none() | st.tuples(*[st.sampled_from(["A", "B", "Tie", None])] * 2))
def test_nothing_else_is_decided_anew(status: VerdictStatus, orders: Any) -> None:
    verdict = stored(status, "Tie" if status is VerdictStatus.SCORED else None, orders).verdict
    found = decided(verdict)
    assert decided(found) == found
    assert (found != verdict) == (status is VerdictStatus.INVALID and orders is not None and orders.count(None) == 1)


# --- rows ---


def test_a_row_of_classify_in_the_live_order() -> None:
    found = row(evaluation(model_to_evaluate=MODEL), SOURCE, scored("polite", outputs=["Hi!"]))
    assert list(found.items()) == [
        ("prompt", "Hello?"),
        ("MODEL_TO_EVALUATE_OUTPUT", "Hi!"),
        ("evaluation_successful", True),
        ("label", "polite"),
        ("feedback", "because"),
    ]


def test_a_row_of_a_column_has_no_output() -> None:
    assert row(evaluation("score"), {"response": "Hi"}, scored(4.0)) == {
        "response": "Hi",
        "evaluation_successful": True,
        "score": 4.0,
        "feedback": "because",
    }


@pytest.mark.parametrize(("type_", "key"), [("classify", "label"), ("score", "score")])
def test_rows_without_a_verdict_keep_their_columns(type_: str, key: str) -> None:
    asked = evaluation(type_, model_to_evaluate=MODEL)
    kept = {**SOURCE, "MODEL_TO_EVALUATE_OUTPUT": "Hi!", "evaluation_successful": False, key: None}
    assert row(asked, SOURCE, invalid(outputs=["Hi!"])) == {**kept, "feedback": "could not be read"}
    error = {**kept, "MODEL_TO_EVALUATE_OUTPUT": None, "feedback": "gave no answer within 120 s"}
    assert row(asked, SOURCE, failed(**GENERATION)) == error


def test_a_column_of_the_dataset_gives_way_to_the_service_s() -> None:
    found = row(evaluation(), {"label": "mine", "response": "Hi"}, scored("rude"))
    assert list(found) == ["response", "evaluation_successful", "label", "feedback"]
    assert found["label"] == "rude"


PASSES = [
    "judge_raw_output_original",
    "judge_raw_output_flipped",
    "choice_original",
    "judge_feedback_original_order",
    "choice_flipped",
    "judge_feedback_flipped_order",
    "final_decision",
    "is_invalid_judge_output",
]


def test_a_row_of_compare_maps_the_flipped_choice_back() -> None:
    asked = evaluation("compare", model_a=MODEL, model_b={**MODEL})
    found = row(asked, SOURCE, scored("Tie", ("A", "B"), outputs=["one", "two"], feedbacks=["first", "also “first”"]))
    assert list(found) == [
        "prompt",
        "MODEL_TO_EVALUATE_OUTPUT_A",
        "MODEL_TO_EVALUATE_OUTPUT_B",
        "evaluation_successful",
        *PASSES,
    ]
    assert (found["MODEL_TO_EVALUATE_OUTPUT_A"], found["MODEL_TO_EVALUATE_OUTPUT_B"]) == ("one", "two")
    assert json.loads(found["judge_raw_output_original"]) == {"feedback": "first", "choice": "A"}
    assert json.loads(found["judge_raw_output_flipped"]) == {
        "feedback": "also “first”",
        "choice": "A",
    }  # as it was said
    assert (found["choice_original"], found["choice_flipped"]) == ("A", "B")
    assert (found["judge_feedback_original_order"], found["judge_feedback_flipped_order"]) == ("first", "also “first”")
    assert (found["final_decision"], found["is_invalid_judge_output"]) == ("Tie", False)


def test_an_output_belongs_to_the_model_that_wrote_it() -> None:
    found = row(evaluation("compare", model_b=MODEL), {}, scored("A", ("A", "A"), outputs=["two"]))
    assert "MODEL_TO_EVALUATE_OUTPUT_A" not in found
    assert found["MODEL_TO_EVALUATE_OUTPUT_B"] == "two"


def test_a_tie_is_one_from_both_sides() -> None:
    found = row(evaluation("compare"), {}, scored("Tie", ("Tie", "Tie"), feedbacks=["even", "even"]))
    assert json.loads(found["judge_raw_output_flipped"])["choice"] == found["choice_flipped"] == "Tie"


def test_one_readable_pass_decides_a_row_and_flags_it() -> None:
    found = row(evaluation("compare"), {}, invalid((None, "B"), feedbacks=["no JSON", "better"]))
    assert found["evaluation_successful"] is True
    assert (found["final_decision"], found["is_invalid_judge_output"]) == ("B", True)
    assert (found["choice_original"], found["judge_feedback_original_order"]) == (None, "no JSON")
    assert json.loads(found["judge_raw_output_original"]) == {"feedback": "no JSON", "choice": None}
    assert json.loads(found["judge_raw_output_flipped"]) == {"feedback": "better", "choice": "A"}


def test_two_unreadable_passes_decide_nothing() -> None:
    for detail in ({"feedbacks": ["no JSON", "nor here"]}, {}):
        found = row(evaluation("compare"), {}, invalid((None, None), **detail))
        assert found["evaluation_successful"] is False
        assert found["is_invalid_judge_output"] is True
        assert found["choice_original"] is found["choice_flipped"] is found["final_decision"] is None
        assert found["judge_feedback_original_order"]


def test_a_compare_whose_calls_failed_has_the_error_as_feedback() -> None:
    found = row(evaluation("compare", model_a=MODEL, model_b={**MODEL}), SOURCE, failed(**GENERATION))
    assert found == {
        **SOURCE,
        "MODEL_TO_EVALUATE_OUTPUT_A": None,
        "MODEL_TO_EVALUATE_OUTPUT_B": None,
        "evaluation_successful": False,
        **dict.fromkeys(PASSES),
        "judge_feedback_original_order": "gave no answer within 120 s",
        "is_invalid_judge_output": False,
    }


def test_a_verdict_by_rule_has_no_raw_output() -> None:
    found = row(evaluation("compare"), {}, stored(VerdictStatus.SCORED, "B", None, "rule"))
    assert found["judge_raw_output_original"] is found["judge_raw_output_flipped"] is None
    assert found["choice_original"] == found["choice_flipped"] == found["final_decision"] == "B"
    assert found["is_invalid_judge_output"] is False


@pytest.mark.parametrize("orders", [("B", None), (None, "B")])
def test_one_pass_has_the_original_order_only(orders: Any) -> None:
    asked = evaluation("compare", disable_position_bias_correction=True)
    assert row(asked, {"first": 1}, scored("B", orders)) == {
        "first": 1,
        "evaluation_successful": True,
        "judge_raw_output_original": '{"feedback": "because", "choice": "B"}',
        "choice_original": "B",
        "judge_feedback_original_order": "because",
        "final_decision": "B",
        "is_invalid_judge_output": False,
    }
    broken = row(asked, {}, invalid())
    assert broken["is_invalid_judge_output"] is True
    assert broken["final_decision"] is None


VERDICTS = st.builds(
    stored,
    st.sampled_from(VerdictStatus),
    st.sampled_from(["A", "B", "Tie"]),
    st.none() | st.tuples(*[st.sampled_from(["A", "B", "Tie", None])] * 2),
)


@given(VERDICTS, st.booleans())
def test_every_row_of_a_compare_has_the_same_columns(one: Stored, single: bool) -> None:
    asked = evaluation("compare", disable_position_bias_correction=single)
    if one.verdict.status is not VerdictStatus.SCORED:
        one = one._replace(verdict=one.verdict._replace(value=None))
    found = row(asked, SOURCE, one)
    columns = [name for name in PASSES if not single or "flipped" not in name]
    assert list(found) == ["prompt", "evaluation_successful", *columns]
    assert found["evaluation_successful"] == (found["final_decision"] is not None)
    assert row(asked, SOURCE, one._replace(verdict=decided(one.verdict))) == found or single


# --- the models ---


def test_the_model_list_has_what_a_request_can_name() -> None:
    known = project_settings(models={"b": {"base_url": "http://127.0.0.1:1/v1"}, "a": {"model": "embedded/file:/x"}})
    assert model_list(known, Serve()) == {"model_list": ["a", "b"]}
    assert model_list(known, Serve(default_model="embedded/smollm2-135m"), "dedicated")["model_list"][-1] == (
        "embedded/smollm2-135m"
    )
    assert model_list(known, Serve(default_model="b"), "serverless") == {"model_list": ["a", "b"]}
    assert model_list(known, Serve(default_model="embedded/file:/home/me/x.gguf")) == {"model_list": ["a", "b"]}
    assert model_list(known, Serve(default_model="b"), "external") == {"model_list": []}
    with pytest.raises(Problem) as caught:
        model_list(known, Serve(), "every")
    assert (caught.value.status, caught.value.param) == (400, "model_source")


# --- the official client, which here takes nothing that its types do not say ---


@contextlib.contextmanager
def serving(bodies: dict[str, Any]) -> Iterator[together.Together]:
    """A client, strict, of a server that answers these paths with these bodies."""

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = json.dumps(bodies[self.path], ensure_ascii=False, allow_nan=False).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            with together.Together(
                api_key="x", base_url=url, max_retries=0, timeout=10, _strict_response_validation=True
            ) as client:
                yield client
        finally:
            server.shutdown()
            thread.join()


JOBS = {
    "classify": ended("completed", summed(evaluation(pass_labels=["polite"]), [scored("polite"), failed()])),
    "classify, no pass": ended("completed", summed(evaluation(), [scored("polite"), invalid()])),
    "score": ended("completed", summed(evaluation("score"), [scored(4.0), failed()]), type="score"),
    "score, one row": ended("completed", summed(evaluation("score", pass_threshold=3), [scored(4.0)]), type="score"),
    "compare": ended("completed", summed(evaluation("compare"), [scored("A", ("A", "A"))]), type="compare"),
    "error": ended("error", {"error": "more than 30 % of the rows failed"}),
    "user_error": ended("user_error", {"error": "Unsupported dataset column(s): ['id']."}),
    "running": record("running", started_at=STARTED),
    "queued": record("queued"),
    "pending": record("pending"),
}


def test_the_official_client_takes_every_body_strictly() -> None:
    bodies = {name: job(each) for name, each in JOBS.items()}
    paths: dict[str, Any] = {"/v1/evaluation": list(bodies.values())}
    for number, found in enumerate(bodies.values()):
        paths[f"/v1/evaluation/{number}"] = found
        paths[f"/v1/evaluation/{number}/status"] = {key: found[key] for key in ("status", "results")}
    with serving(paths) as client:
        for number, found in enumerate(bodies.values()):
            read = client.evals.retrieve(str(number))
            assert json.loads(read.to_json(exclude_unset=True, exclude_none=False))["results"] == found["results"]
            assert (read.workflow_id, read.status, read.type) == (found["workflow_id"], found["status"], found["type"])
            assert read.parameters == PARAMETERS
            assert read.created_at is not None
            assert read.created_at.microsecond == 1
            assert client.evals.status(str(number)).status == found["status"]
        assert [each.status for each in client.evals.list()] == [each["status"] for each in bodies.values()]


def test_the_strict_client_is_strict() -> None:
    wrong = {**job(JOBS["pending"]), "status": "failed"}
    with serving({"/v1/evaluation/1": wrong}) as client, pytest.raises(together.APIResponseValidationError):
        client.evals.retrieve("1")


def test_the_official_client_sees_the_numbers() -> None:
    with serving({f"/v1/evaluation/{name}": job(JOBS[name]) for name in ("classify", "score", "compare")}) as client:
        labelled: Any = client.evals.retrieve("classify").results
        assert labelled.label_counts == {"polite": 1, "rude": 0}  # an object, which its own CLI needs
        graded: Any = client.evals.retrieve("score").results
        assert (graded.aggregated_scores.mean_score, graded.failed_samples) == (4.0, 1)
        compared: Any = client.evals.retrieve("compare").results
        assert (compared.model_dump(by_alias=True)["A_wins"], compared.result_file_id) == (1, "file-9")


def test_times_are_those_of_the_service() -> None:
    for each in JOBS.values():
        found = job(each)
        times = [found["created_at"], found["updated_at"], *(one["timestamp"] for one in found["status_updates"])]
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", each) for each in times)
