"""`evalops serve` answers Patronus' evaluate: for the official client, and for our own provider."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import patronus_api
import pytest
import yaml
from apply_project import Folder
from model_server import Config, Server, serve
from patronus_api import PatronusAPI
from serve_process import SERVERLESS, Served, served

KEY = "a-key-of-sixteen-letters"


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Served]]:
    with (
        serve() as models,
        served(
            tmp_path_factory.mktemp("serve"), model_url=models.url, key=KEY, options=["--default-model", SERVERLESS]
        ) as server,
    ):
        yield models, server


@pytest.fixture
def models(backend: tuple[Server, Served]) -> Server:
    backend[0].config = Config()
    return backend[0]


@pytest.fixture
def client(backend: tuple[Server, Served]) -> Iterator[PatronusAPI]:
    with PatronusAPI(base_url=backend[1].url, api_key=KEY, max_retries=0, _strict_response_validation=True) as found:
        yield found


def test_the_official_client_gets_a_verdict_of_every_evaluator(models: Server, client: PatronusAPI) -> None:
    found = client.evaluations.evaluate(
        evaluators=[{"evaluator": "judge", "criteria": "patronus:is-polite"}, {"evaluator": "toxicity", "explain_strategy": "never"}, {"evaluator": "lynx"}],
        task_input="Where is it?", task_output="It left today. truth=pass", tags={"team": "us"}, log_id="l1", capture="none",
    )  # fmt: skip
    judge, toxicity, lynx = found.results
    assert (judge.status, judge.evaluator_id, judge.criteria) == ("success", "judge", "patronus:is-polite")
    assert judge.evaluation_result is not None and toxicity.evaluation_result is not None
    assert (judge.evaluation_result.pass_, judge.evaluation_result.score_raw) == (True, 1.0)
    assert (
        judge.evaluation_result.explanation
        and judge.evaluation_result.log_id == "l1"
        and judge.evaluation_result.tags == {"team": "us"}
    )
    assert toxicity.evaluation_result.explanation is None
    assert (lynx.status, lynx.evaluation_result) == ("validation_error", None) and "task_context" in str(
        lynx.error_message
    )
    bodies = [json.loads(each.body) for each in list(models.ledger.seen)[-2:]]
    prompts = ["\n".join(message["content"] for message in body["messages"]) for body in bodies]
    assert any("is polite" in each for each in prompts) and all("Where is it?" in each for each in prompts)


def test_a_failing_row_fails(models: Server, client: PatronusAPI) -> None:
    (found,) = client.evaluations.evaluate(
        evaluators=[{"evaluator": "judge", "criteria": "polite:3"}], task_output="Go away. truth=fail"
    ).results
    assert found.evaluation_result is not None
    assert (
        found.evaluation_result.pass_,
        found.evaluation_result.criteria,
        found.evaluation_result.criteria_revision,
    ) == (False, "polite", 3)


def test_what_stands_in_a_row_or_in_criteria_is_data(models: Server, client: PatronusAPI) -> None:
    client.evaluations.evaluate(
        evaluators=[{"evaluator": "judge", "criteria": "{{ 7*7 }} {% raise %}"}],
        task_input="{{ 6*6 }}",
        task_output="{{ 5*5 }} truth=pass",
    )
    text = list(models.ledger.seen)[-1].body.decode()
    assert "{{ 7*7 }}" in text and "{{ 6*6 }}" in text and "{{ 5*5 }}" in text


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"task_output": None}, "task_input"), ({"evaluators": []}, "evaluators"), ({"evaluators": [{"criteria": "x"}]}, "evaluators"),
        ({"app": "xx", "experiment_id": "7"}, "app"), ({"capture": "some"}, "capture"), ({"task_context": ["x"] * 51}, "task_context"),
        ({"task_input": 5}, "task_input"), ({"evaluators": [{"evaluator": "judge", "explain_strategy": "x"}]}, "evaluators"),
    ],
)  # fmt: skip
def test_what_the_service_refuses_is_refused(client: PatronusAPI, wrong: Any, field: str) -> None:
    with pytest.raises(patronus_api.UnprocessableEntityError) as found:
        client.evaluations.evaluate(**{"evaluators": [{"evaluator": "judge"}], "task_output": "x", **wrong})
    assert isinstance(found.value.body, dict) and found.value.body["detail"][0]["loc"] == ["body", field]


@pytest.mark.parametrize("tags", ['{"a": "\\ud800"}', '{"a": 1e999}', "[" * 50 + "]" * 50])
@pytest.mark.parametrize("path", ["evaluate", "experiments"])
def test_what_cannot_be_said_back_is_refused(
    backend: tuple[Server, Served], models: Server, path: str, tags: str
) -> None:
    body = f'{{"name": "x", "evaluators": [{{"evaluator": "judge"}}], "task_output": "truth=pass", "tags": {tags}}}'
    with httpx.Client(trust_env=False, headers={"X-API-KEY": KEY}) as http:
        assert http.post(f"{backend[1].url}/v1/{path}", content=body).status_code == 400


def test_a_judge_that_fails_is_a_failure_of_its_result(models: Server, client: PatronusAPI) -> None:
    models.config = Config(script=("unusable",) * 20)
    (found,) = client.evaluations.evaluate(evaluators=[{"evaluator": "judge"}], task_output="unheard of").results
    assert found.status == "error" and found.error_message


def test_the_key_is_asked_for_in_either_header(backend: tuple[Server, Served], models: Server) -> None:
    url = f"{backend[1].url}/v1/evaluate"
    body = {"evaluators": [{"evaluator": "judge"}], "task_output": "truth=pass"}
    with httpx.Client(trust_env=False) as http:
        codes = [
            http.post(url, json=body, headers=each).status_code
            for each in ({}, {"X-API-KEY": "wrong"}, {"X-API-KEY": KEY}, {"Authorization": f"Bearer {KEY}"})
        ]
    assert codes == [401, 401, 200, 200]


def test_a_spec_for_patronus_runs_against_it(
    backend: tuple[Server, Served], models: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATRONUS_API_KEY", KEY)
    folder = Folder(tmp_path / "project", models.url).settings(providers={"patronus": {"base_url": backend[1].url}})
    folder.rows([{"answer": f"a{number} truth={'fail' if number % 3 == 0 else 'pass'}"} for number in range(12)])
    value = {
        "version": 1, "name": "tone", "type": "classify", "provider": "patronus", "dataset": "rows.jsonl", "model_to_evaluate": "answer",
        "evaluators": [{"evaluator": "judge", "criteria": "is-polite"}, "toxicity"], "patronus": {"lost_reply": "repeat"},
    }  # fmt: skip
    (folder.root / "tone.yaml").write_text(yaml.safe_dump(value))
    folder.applied()
    assert folder.summary()["label_counts"] == {"pass": 8, "fail": 4}
    assert folder.entry()["pins"] == {"judge/is-polite": "judge/is-polite:1", "toxicity": "toxicity"}
