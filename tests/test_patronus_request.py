"""What is said to Patronus is what its official client says: method, path, query and JSON, for all fields."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import patronus_api
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patronus_api import PatronusAPI
from patronus_service import KEY, PatronusService

from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.patronus import Grader, Patronus
from evalops.providers import patronus_request as wire
from evalops.providers.client import Answer, Client, Lost
from evalops.providers.patronus_inventory import Service
from evalops.secret import Secret

ANSWERS = {
    "/v1/evaluate": {"results": []},
    "/v1/evaluations/search": {"evaluations": []},
    "/v1/evaluations/batch": {"evaluations": []},
    "/v1/projects": {"id": "p1", "name": "x", "created_at": "2024-01-01T00:00:00Z"},
    "/v1/evaluators": {"evaluators": [{"id": "lynx", "aliases": []}]},
    "/v1/evaluator-criteria": {"evaluator_criteria": [{"name": "polite", "revision": 3}]},
}
EXPERIMENT = {
    "id": "7",
    "name": "x",
    "project_id": "p1",
    "created_at": "2024-01-01T00:00:00Z",
    "tags": {},
    "metadata": {},
}


class Said(NamedTuple):
    """One request as the service sees it, without what belongs to the library that sent it."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: Any
    key: str | None
    kinds: tuple[str | None, str | None]


class Recorder:
    """A server that writes down what it is told."""

    def __init__(self) -> None:
        self.said: list[Said] = []
        recorder = self

        class Connection(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._take("GET")

            def do_POST(self) -> None:
                self._take("POST")

            def _take(self, method: str) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                body = json.loads(data) if data else None
                key, kinds = (
                    self.headers.get("X-API-KEY"),
                    (self.headers.get("Accept"), self.headers.get("Content-Type")),
                )
                recorder.said.append(Said(method, parts.path, parse_qs(parts.query), body, key, kinds))
                found: Any = ANSWERS.get(parts.path)
                if parts.path.startswith("/v1/experiments"):
                    is_list = method == "GET" and parts.path == "/v1/experiments"
                    found = {"experiments": []} if is_list else {"experiment": EXPERIMENT}
                reply = json.dumps(found).encode()
                self.wfile.write(
                    b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(reply)
                    + reply
                )

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Connection)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Recorder:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def both(self) -> tuple[Said, Said]:
        """The last two requests."""
        one, other = self.said[-2:]
        self.said.clear()
        return one, other


class Pair(NamedTuple):
    recorder: Recorder
    theirs: PatronusAPI
    ours: Client
    service: Service


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    with (
        Recorder() as recorder,
        Client(recorder.url, Secret(KEY), service="Patronus", key_name="K", key_header="X-API-KEY") as ours,
        PatronusAPI(base_url=recorder.url, api_key=KEY, max_retries=0) as theirs,
    ):
        yield Pair(recorder, theirs, ours, Service(lambda: ours))


def test_the_oracle_is_the_version_that_is_meant() -> None:
    assert patronus_api.__version__ == "0.3.0"


TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
WORD = st.text(st.characters(codec="utf-8", exclude_characters=":"), min_size=1, max_size=12)
FULL = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
GRADERS = st.lists(
    st.builds(Grader, WORD, st.none() | FULL, st.sampled_from([None, "never", "on-fail", "on-success", "always"])),
    min_size=1,
    max_size=4,
)
ATTACHMENT = st.fixed_dictionaries(
    {"url": st.just("https://example.com/a.png"), "media_type": st.sampled_from(wire.MEDIA_TYPES)},
    optional={"usage_type": st.sampled_from(wire.USAGE_TYPES)},
)
CELLS = st.fixed_dictionaries(
    {},
    optional={
        "task_input": FULL,
        "task_output": FULL,
        "system_prompt": FULL,
        "gold_answer": FULL,
        "task_context": st.lists(TEXT, min_size=1, max_size=50),
        "attachments": st.lists(ATTACHMENT, min_size=1, max_size=3),
        "dataset_sample_id": FULL,
        "trace_id": FULL,
        "span_id": FULL,
    },
)
PLACE = st.one_of(
    st.fixed_dictionaries({}, optional={"app": WORD, "project_name": WORD}),
    st.fixed_dictionaries({"project_id": st.uuids().map(str)}, optional={"app": WORD}),
    st.fixed_dictionaries({"experiment_id": st.integers(0, 10**9).map(str)}),
)
REST = st.fixed_dictionaries(
    {
        "capture": st.sampled_from(["all", "fails-only", "none"]),
        "tags": st.dictionaries(WORD.filter(lambda x: x != "evalops"), TEXT, max_size=3),
    },
    optional={"confidence_interval_strategy": st.sampled_from(["none", "full-history"]), "dataset_id": FULL},
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(graders=GRADERS, cells=CELLS, place=PLACE, rest=REST, number=st.integers(0, 10**6))
def test_evaluate_is_the_same_call(
    pair: Pair, graders: list[Grader], cells: Any, place: Any, rest: Any, number: int
) -> None:
    log = wire.log_id("mark", number)
    asked = Patronus(
        columns={name: f"column of {name}" for name in cells},
        project=place.get("project_name"),
        project_id=place.get("project_id"),
        app=place.get("app"),
        **rest,
    )
    row = Row(number, number + 1, {f"column of {name}": value for name, value in cells.items()})
    body = wire.evaluate(
        asked, row, graders, key="row-key", mark="mark", experiment=place.get("experiment_id"), log_id=log
    )
    assert isinstance(pair.ours.call(wire.EVALUATE, wire.encode(body)), Answer)

    named = {name: value for name, value in cells.items() if name != "attachments"}
    if "attachments" in cells:
        named["evaluated_model_attachments"] = cells["attachments"]
    if not {"project_id", "experiment_id"} & set(place):
        place = {"project_name": "evalops", **place}
    pair.theirs.evaluations.evaluate(
        evaluators=[{name: value for name, value in each._asdict().items() if value is not None} for each in graders],  # type: ignore[misc]
        log_id=log,
        **{"dataset_sample_id": "row-key", **named, **rest, **place, "tags": {**rest["tags"], "evalops": "mark"}},
    )
    ours, theirs = pair.recorder.both()
    assert ours == theirs
    assert ours.key == KEY and ours[:2] == ("POST", "/v1/evaluate")


def test_one_text_of_context_is_a_list_of_one_and_a_list_may_stand_as_json_in_a_cell() -> None:
    assert wire.context("just one") == ["just one"]
    assert wire.context('["a", "b"]') == ["a", "b"]
    assert wire.context("[not json") == ["[not json"]
    assert wire.context(["a", 1, {"b": 2}]) == ["a", "1", '{"b": 2}']
    assert wire.context(None) is wire.context("") is wire.context([]) is None


def test_what_is_not_text_in_a_cell_is_sent_as_its_json() -> None:
    asked = Patronus(columns={"task_input": "a", "task_output": "b", "gold_answer": "c", "system_prompt": "d"})
    row = Row(0, 1, {"a": {"x": 1}, "b": 3.5, "c": None, "d": ""})
    body = wire.evaluate(asked, row, [Grader("judge")], key="k", mark="m", experiment="1", log_id="l")
    assert (body["task_input"], body["task_output"]) == ('{"x": 1}', "3.5")
    assert not {"gold_answer", "system_prompt", "task_context", "evaluated_model_attachments"} & set(body)
    assert body["capture"] == "none" and "app" not in body and "project_name" not in body


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=FULL,
    tags=st.dictionaries(WORD, TEXT, max_size=3),
    metadata=st.dictionaries(WORD, st.integers() | TEXT, max_size=3),
    ids=st.lists(FULL, min_size=1, max_size=4, unique=True),
)
def test_projects_experiments_and_searches_are_the_same_calls(
    pair: Pair, name: str, tags: Any, metadata: Any, ids: list[str]
) -> None:
    same = []

    def compare() -> None:
        one, other = pair.recorder.both()
        assert one == other
        same.append(one.path)

    pair.ours.ask(wire.PROJECTS, wire.encode(wire.project(name)))
    pair.theirs.projects.create(name=name)
    compare()
    pair.ours.post_once(wire.EXPERIMENTS, wire.encode(wire.experiment("p1", name, tags, metadata)))
    pair.theirs.experiments.create(name=name, project_id="p1", tags=tags, metadata=metadata)
    compare()
    pair.service._projects.clear()
    pair.service.find(ids)
    operation, value = ("eq", ids[0]) if len(ids) == 1 else ("in", ids)
    pair.theirs.evaluations.search(filters=[{"field": "log_id", "operation": operation, "value": value}])  # type: ignore[typeddict-item]
    compare()
    pair.service.results(ids[0])
    pair.theirs.evaluations.search(filters=[{"field": "experiment_id", "operation": "eq", "value": ids[0]}])
    compare()
    pair.ours.ask(
        wire.BATCH,
        wire.encode(wire.batch([{"evaluator_id": name, "log_id": ids[0], "pass": True, "score": 0.5, "tags": tags}])),
    )
    pair.theirs.evaluations.batch_create(
        evaluations=[{"evaluator_id": name, "log_id": ids[0], "pass": True, "score": 0.5, "tags": tags}]
    )
    compare()
    assert same == [
        "/v1/projects",
        "/v1/experiments",
        "/v1/evaluations/search",
        "/v1/evaluations/search",
        "/v1/evaluations/batch",
    ]


@pytest.mark.parametrize("family", ["judge", None])
@pytest.mark.parametrize("name", ["polite", "patronus:is-polite", "né à & = ?"])
def test_queries_are_the_same_calls(pair: Pair, name: str, family: str | None) -> None:
    pair.ours.get(wire.EVALUATORS, wire.evaluators(name))
    pair.theirs.evaluators.list(by_alias_or_id=name)
    one, other = pair.recorder.both()
    assert one[:4] == other[:4]
    pair.ours.get(wire.CRITERIA, wire.criteria(name, family))
    given = {"evaluator_family": family} if family else {}
    pair.theirs.evaluator_criteria.list(name=name, get_last_revision=True, **given)  # type: ignore[arg-type]
    one, other = pair.recorder.both()
    assert one[:4] == other[:4]
    pair.ours.get(wire.EXPERIMENTS, wire.experiments("p1", limit=100, offset=200))
    pair.theirs.experiments.list(project_id="p1", limit=100, offset=200)
    one, other = pair.recorder.both()
    assert one[:4] == other[:4]
    pair.ours.get(wire.experiment_path("7"))
    pair.theirs.experiments.retrieve("7")
    one, other = pair.recorder.both()
    assert one[:4] == other[:4]


# The scripted service of the other tests


@pytest.fixture(scope="module")
def scripted() -> Iterator[tuple[PatronusService, PatronusAPI]]:
    with (
        PatronusService() as service,
        PatronusAPI(base_url=service.url, api_key=KEY, max_retries=0, _strict_response_validation=True) as client,
    ):
        yield service, client


def test_the_scripted_service_answers_the_official_client(scripted: tuple[PatronusService, PatronusAPI]) -> None:
    _, client = scripted
    assert client.whoami.retrieve().caller.api_key is not None
    project = client.projects.create(name="support")
    assert client.projects.create(name="support").id == project.id
    experiment = client.experiments.create(name="x", project_id=project.id, tags={"a": "b"}).experiment
    assert client.experiments.retrieve(experiment.id).experiment.tags == {"a": "b"}
    assert [each.id for each in client.experiments.list(project_id=project.id, limit=5, offset=0).experiments] == [
        experiment.id
    ]
    assert [each.id for each in client.evaluators.list(by_alias_or_id="lynx").evaluators] == ["lynx-large-2024-07-23"]
    (criteria,) = client.evaluator_criteria.list(name="polite", get_last_revision=True).evaluator_criteria
    assert (criteria.name, criteria.revision) == ("polite", 1)
    found = client.evaluations.evaluate(
        evaluators=[{"evaluator": "judge", "criteria": "polite:1"}, {"evaluator": "lynx"}],
        task_output="truth=pass", capture="all", experiment_id=experiment.id, log_id="l1", tags={"evalops": "m"},
        confidence_interval_strategy="full-history",
    )  # fmt: skip
    assert {each.status for each in found.results} == {"success", "validation_error"}
    judged = next(each.evaluation_result for each in found.results if each.evaluation_result)
    assert judged.pass_ is True and judged.additional_info.confidence_interval is not None
    searched = client.evaluations.search(filters=[{"field": "log_id", "operation": "eq", "value": "l1"}]).evaluations
    assert [(each.pass_, each.score, each.experiment_id) for each in searched] == [(True, 1.0, int(experiment.id))]
    made = client.evaluations.batch_create(evaluations=[{"evaluator_id": "ours", "log_id": "l2", "pass": False}])
    assert len(made.evaluations) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"task_output": None}, "task_input"),
        ({"evaluators": []}, "evaluators"),
        ({"app": "xx", "experiment_id": "7"}, "app"),
        ({"capture": "some"}, "capture"),
        ({"task_context": ["x"] * 51}, "task_context"),
        ({"evaluated_model_attachments": [{"url": "u", "media_type": "text/plain"}]}, "evaluated_model_attachments"),
    ],
)
def test_the_scripted_service_refuses_what_the_real_one_does(
    scripted: tuple[PatronusService, PatronusAPI], wrong: Any, field: str
) -> None:
    body = {"evaluators": [{"evaluator": "judge"}], "task_output": "x", **wrong}
    with pytest.raises(patronus_api.UnprocessableEntityError, match=field):
        scripted[1].evaluations.evaluate(**body)


# Errors


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "provider/refused"), (401, "provider/auth"), (403, "provider/refused"), (404, "provider/not-found"),
        (422, "provider/refused"), (429, "provider/rate-limited"), (500, "provider/unavailable"), (503, "provider/unavailable"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ("Invalid key", "Invalid key"),
        (
            [{"loc": ["body", "task_input"], "msg": "Field required", "type": "missing"}],
            "body.task_input: Field required",
        ),
        ([{"loc": ["a"], "msg": "no"}, {"msg": "neither"}], "a: no; neither"),
        ({"odd": 1}, ""),
    ],
)
def test_an_error_is_told_in_the_services_words(status: int, code: str, detail: Any, said: str) -> None:
    with Client(
        "http://127.0.0.1:9", Secret(KEY), service="Patronus", key_name="PATRONUS_API_KEY", key_header="X-API-KEY"
    ) as client:
        found = client.refusal(Answer(status=status, headers={}, body=json.dumps({"detail": detail}).encode()))
    assert found.code == code
    assert found.message == f"Patronus answered {status}" + (f": {said}" if said else "")
    if status == 401:
        assert found.hint and "PATRONUS_API_KEY" in found.hint


def test_an_echoed_key_is_masked() -> None:
    with Client("http://127.0.0.1:9", Secret(KEY), service="Patronus", key_name="K", key_header="X-API-KEY") as client:
        found = client.refusal(
            Answer(status=403, headers={}, body=json.dumps({"detail": f"no rights for {KEY}"}).encode())
        )
        assert KEY not in found.message and "***" in found.message
        lost = client.call(wire.EVALUATE, b"{}")
        assert isinstance(lost, Lost) and not lost.is_sent and lost.problem.code == "provider/unreachable"


def test_an_alias_nobody_knows_is_a_problem(scripted: tuple[PatronusService, PatronusAPI]) -> None:
    with Client(scripted[0].url, Secret(KEY), service="Patronus", key_name="K", key_header="X-API-KEY") as client:
        service = Service(lambda: client)
        with pytest.raises(EvalopsError, match="no evaluator `nobody`"):
            service.pin(Grader("nobody"))
        with pytest.raises(EvalopsError, match="no criteria `no-such`"):
            service.pin(Grader("judge", "no-such"))
        assert service.pin(Grader("lynx")) == Grader("lynx-large-2024-07-23", "patronus:hallucination:1")
        assert service.pin(Grader("judge", "x:4", "always")) == Grader("judge-large-2024-08-08", "x:4", "always")
