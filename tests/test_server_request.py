"""What a request may ask of the server: the service's rules, its own documented bodies, and nobody's secrets."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import pytest
from evaluations import settings as project_settings
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from evalops import semantics, template
from evalops.endpoint import Endpoint
from evalops.secret import Secret
from evalops.server.fields import MAX_LABELS
from evalops.server.problem import Problem
from evalops.server.request import IMAGES, MAX_WORKERS, Asked, complete, read, unsupported
from evalops.settings import Serve
from evalops.spec import Column, Model, Type

TOKEN = "sk-test-4f9a7c"
SETTINGS = project_settings(
    models={
        "Qwen/Qwen3-8B": {"base_url": "http://127.0.0.1:8000/v1/"},
        "ep_1": {"base_url": "https://models.example.com/v1", "model": "llama", "credential": "ours"},
        "small": {"model": "embedded/file:/srv/weights.gguf"},
        "fast": {"model": "openai/gpt-4o-mini"},
        "embedded/smollm2-135m": {},
        "nowhere": {"max_tokens": 5},
    },
    credentials={"ours": {"env": "OUR_KEY", "origins": ["https://models.example.com"]}},
)
SERVE = Serve(external_origins=("https://api.openai.com", "HTTPS://Proxy.example.com:443", "http://127.0.0.1:9000"))
JUDGE = {"model": "Qwen/Qwen3-8B", "model_source": "serverless", "system_template": "Is it polite? {{ prompt }}"}
MODEL = {
    "model": "small", "model_source": "serverless", "system_template": "Be brief.", "input_template": "{{ prompt }}",
    "max_tokens": 100, "temperature": 0.7,
}  # fmt: skip
EXTERNAL = {**JUDGE, "model": "openai/gpt-4o", "model_source": "external", "external_api_token": TOKEN}


def body(type_: str = "classify", **fields: Any) -> dict[str, Any]:
    """A request that is in order, with these parameters; `...` leaves one out."""
    parameters: dict[str, Any] = {"input_data_file_path": "file-1", "judge": JUDGE}
    by_type: dict[str, dict[str, Any]] = {
        "classify": {"labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response"},
        "score": {"min_score": 1.0, "max_score": 10.0, "pass_threshold": 7.0, "model_to_evaluate": "response"},
        "compare": {"model_a": "first", "model_b": "second"},
    }
    parameters |= by_type[type_] | fields
    parameters = {key: value for key, value in parameters.items() if value is not ...}
    return deepcopy({"type": type_, "parameters": parameters})


def asked(value: Any, serve: Serve = SERVE) -> Asked:
    return read(value, SETTINGS, serve)


def refused(value: Any, serve: Serve = SERVE) -> Problem:
    with pytest.raises(Problem) as caught:
        read(value, SETTINGS, serve)
    assert caught.value.status == 400
    return caught.value


# --- what comes out ---


def test_a_classify_request_with_a_column_becomes_an_evaluation() -> None:
    found = asked(body())
    evaluation = found.evaluation
    assert (found.type, found.file, found.secrets, found.whole_row) == ("classify", "file-1", {}, frozenset())
    assert (evaluation.address, evaluation.provider, evaluation.type) == ("job", "local", Type.CLASSIFY)
    assert evaluation.candidates == ("response",)
    assert isinstance(evaluation.candidates[0], Column)
    assert (evaluation.labels, evaluation.pass_labels) == (("polite", "rude"), ("polite",))
    assert evaluation.judge.model is not None
    assert evaluation.judge.template is evaluation.judge.model.system_template  # the engine goes by identity
    assert evaluation.judge.model.route == ("judge",)
    assert found.endpoints == (Endpoint(base_url="http://127.0.0.1:8000/v1", model="Qwen/Qwen3-8B"),)


def test_a_model_object_becomes_a_candidate_with_its_settings() -> None:
    evaluation = asked(body("score", model_to_evaluate={**MODEL, "num_workers": 7})).evaluation
    model = evaluation.candidates[0]
    assert isinstance(model, Model)
    assert (model.route, model.max_tokens, model.temperature, model.num_workers) == (
        ("model_to_evaluate",),
        100,
        0.7,
        7,
    )
    assert model.input_template is not None
    assert model.input_template.source == "{{ prompt }}"
    assert (evaluation.min_score, evaluation.max_score, evaluation.pass_threshold) == (1.0, 10.0, 7.0)


def test_the_endpoints_answer_the_models_one_to_one() -> None:
    found = asked(body("compare", model_a=MODEL, model_b={**MODEL, "model": "ep_1", "model_source": "dedicated"}))
    assert [model.route for model in found.evaluation.models] == [("model_a",), ("model_b",), ("judge",)]
    assert [each.base_url for each in found.endpoints] == [
        "",
        "https://models.example.com/v1",
        "http://127.0.0.1:8000/v1",
    ]
    assert [each.model for each in found.endpoints] == ["embedded/file:/srv/weights.gguf", "llama", "Qwen/Qwen3-8B"]


@pytest.mark.parametrize(("given", "both"), [(..., True), (None, True), (False, True), (True, False)])
def test_a_compare_is_judged_in_both_orders_unless_told_otherwise(given: Any, both: bool) -> None:
    assert asked(body("compare", disable_position_bias_correction=given)).evaluation.both_orders is both


def test_the_places_of_a_request_are_no_file() -> None:
    evaluation = asked(body()).evaluation
    assert evaluation.places.mark("judge", "model").path == "request"
    assert evaluation.places.line(("judge", "system_template"), 1, "x", 1).path == "request"
    assert semantics.place(evaluation, "prompt").path == "request"


# --- bodies that the service's own documentation and tools send ---

SHORT = {"model": "Qwen/Qwen3-8B", "model_source": "serverless"}


@pytest.mark.parametrize(
    "value",
    [
        body(model_to_evaluate=SHORT),
        body("score", model_to_evaluate=SHORT),
        body("compare", model_a=SHORT, model_b=SHORT),
        body("compare", model_a=SHORT),
        body("score", pass_threshold=...),
        body("score", pass_threshold=None, min_score=1, max_score=5),
        body(pass_labels=...),
        body(pass_labels=None),
        body(model_to_evaluate=...),
        body(model_to_evaluate=None),
        body("score", model_to_evaluate=None),
        body(judge={**JUDGE, "max_tokens": None, "temperature": None, "num_workers": None, "external_base_url": None}),
        body("compare", disable_position_bias_correction=False),
        body("compare", labels=None, min_score=None, unknown={"deep": [1, None]}),
        body(judge=EXTERNAL),
        body(
            judge={**EXTERNAL, "model": "meta/llama", "external_base_url": "https://proxy.example.com/api/v1"},
            model_to_evaluate={**MODEL, "model_source": "dedicated"},
        ),
        # What `tg evals create` makes of one model flag: nulls for the rest, and 16000 tokens.
        body(
            model_to_evaluate={
                "model": "small",
                "model_source": "serverless",
                "max_tokens": 16000,
                "temperature": None,
                "system_template": None,
                "input_template": None,
            }
        ),
    ],
)
def test_documented_bodies_are_taken(value: Any) -> None:
    found = asked(json.loads(json.dumps(value)))
    assert found.evaluation.type.value == value["type"]
    assert len(found.endpoints) == len(found.evaluation.models)


def test_what_is_echoed_is_what_came() -> None:
    value = body(pass_labels=None, unknown={"deep": [1, 2.5, None, True]}, judge={**JUDGE, "also": "kept"})
    assert json.dumps(asked(value).parameters) == json.dumps(value["parameters"])  # keys in their order, nulls, ints


# --- the rules ---


@pytest.mark.parametrize("value", [None, [], "text", 1, True])
def test_a_body_is_an_object(value: Any) -> None:
    assert "JSON object" in refused(value).message


@pytest.mark.parametrize(
    ("value", "param"),
    [
        ({}, "type"),
        ({"type": "rank", "parameters": {}}, "type"),
        ({"type": ["classify"], "parameters": {}}, "type"),
        ({**body("score"), "type": "custom"}, "type"),  # ours, and unknown to the service
        ({"type": "classify"}, "parameters"),
        ({"type": "classify", "parameters": []}, "parameters"),
    ],
)
def test_type_and_parameters_are_required(value: Any, param: str) -> None:
    assert refused(value).param == param


@pytest.mark.parametrize(
    ("type_", "key", "wrong"),
    [
        ("classify", "input_data_file_path", [..., None, "", " ", 5, "x" * 2000]),
        ("classify", "judge", [..., None, "name", []]),
        ("classify", "labels", [..., None, [], ["one"], "ab", ["a", 1], [f"l{i}" for i in range(MAX_LABELS + 1)]]),
        ("classify", "labels", [["a", "a"], ["Yes", "yes "], ["a", ""], ["a", " "], ["a", "b\nc"], ["a", "x" * 2000]]),
        ("classify", "pass_labels", [[], "polite", ["kind"], ["polite", "Rude"], [None]]),
        ("classify", "model_to_evaluate", ["", " ", 5, [], True]),
        ("score", "min_score", [..., None, "1", True, 10, 11.5, float("-1e300"), 10**400]),
        ("score", "max_score", [..., None, [10], False]),
        ("score", "pass_threshold", [0.9, 10.1, "7", True, 10**400]),
        ("compare", "model_a", [..., None, "", 1, []]),
        ("compare", "model_b", [..., None, ["first"]]),
        ("compare", "disable_position_bias_correction", ["true", 1, 0, []]),
    ],
)
def test_a_wrong_parameter_is_named(type_: str, key: str, wrong: list[Any]) -> None:
    for value in wrong:
        problem = refused(body(type_, **{key: value}))
        assert problem.param == f"parameters.{key}", value
        assert f"`parameters.{key}`" in problem.message
        assert len(problem.message) < 500


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("model", [..., None, "", 7, "x" * 2000]),
        ("model_source", [..., None, "", "Serverless", 1]),
        ("max_tokens", [0, -1, 1.0, "5", True, 2**31, 10**400]),
        ("num_workers", [0, -1, 2.5, "5", False]),
        ("temperature", [-0.1, 2.01, "1", True, 10**400]),
        ("system_template", [5, [], "{{ open", "{% include 'x' %}", "x" * 300_000]),
    ],
)
@pytest.mark.parametrize("role", ["judge", "model_to_evaluate"])
def test_a_wrong_field_of_a_model_is_named(role: str, key: str, wrong: list[Any]) -> None:
    for value in wrong:
        model = {name: each for name, each in (MODEL | {key: value}).items() if each is not ...}
        problem = refused(body("classify", **{role: model}))
        assert problem.param == f"parameters.{role}.{key}", value
        assert len(problem.message) < 500


@pytest.mark.parametrize("value", [..., None, ""])
def test_a_judge_needs_a_template(value: Any) -> None:
    judge = {key: each for key, each in (JUDGE | {"system_template": value}).items() if each is not ...}
    assert refused(body(judge=judge)).param == "parameters.judge.system_template"


def test_a_template_is_refused_with_its_line_and_reason() -> None:
    problem = refused(body(model_to_evaluate={**MODEL, "input_template": "one\n{{ prompt | uper }}"}))
    assert problem.param == "parameters.model_to_evaluate.input_template"
    assert "line 2: the filter `uper` is not available; did you mean `upper`?" in problem.message


def test_a_near_miss_of_a_pass_label_is_explained() -> None:
    assert "did you mean ` rude`?" in refused(body(labels=["polite", " rude"], pass_labels=["rude"])).message


@pytest.mark.parametrize(("low", "high"), [(5, 5), (5.0, 1.0)])
def test_the_scores_are_a_range(low: float, high: float) -> None:
    assert refused(body("score", min_score=low, max_score=high, pass_threshold=None)).param == "parameters.min_score"


def test_limits_are_inside() -> None:
    asked(body("score", pass_threshold=1.0))
    asked(body("score", pass_threshold=10))
    asked(body(judge={**JUDGE, "temperature": 0, "max_tokens": 1, "num_workers": 1}))
    asked(body(judge={**JUDGE, "temperature": 2, "max_tokens": 2**31 - 1}))
    asked(body(labels=[f"l{i}" for i in range(MAX_LABELS)], pass_labels=None))


def test_the_workers_of_one_request_are_bounded() -> None:
    model = asked(body(judge={**JUDGE, "num_workers": 10_000_000})).evaluation.judge.model
    assert model is not None
    assert model.num_workers == MAX_WORKERS


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("key", ["min_score", "unknown"])
def test_numbers_that_json_does_not_know_are_refused_wherever_they_stand(key: str, text: str) -> None:
    raw = json.dumps(body("score", **{key: "HERE"})).replace('"HERE"', f'[{{"deep": {text}}}]')
    assert "NaN" in refused(json.loads(raw)).message


@pytest.mark.parametrize("where", ['{"key": "HERE"}', '{"HERE": 1}'])
def test_half_a_character_is_refused_wherever_it_stands(where: str) -> None:
    raw = json.dumps(body(unknown="PLACE")).replace('"PLACE"', where.replace("HERE", "\\ud83d"))
    assert "surrogate" in refused(json.loads(raw)).message


def test_a_body_may_not_be_a_tower() -> None:
    tower: Any = 1
    for _ in range(500):
        tower = [tower]
    assert "inside each other" in refused({"type": "classify", "parameters": {"unknown": tower}}).message


# --- where models are served ---


def test_an_id_that_the_settings_do_not_name_says_what_to_do() -> None:
    problem = refused(body(judge={**JUDGE, "model": "meta/Llama"}))
    assert problem.param == "parameters.judge.model"
    assert "`models:` in evalops.yaml" in problem.message
    assert "--default-model" in problem.message


@pytest.mark.parametrize(
    "model",
    [
        "embedded/file:/etc/passwd",
        "embedded/file:weights.gguf",
        "embedded/hf:a/b@c",
        "embedded/smollm2-360m",
        "openai/gpt-4o",
    ],
)
@pytest.mark.parametrize("source", ["serverless", "dedicated"])
def test_no_request_chooses_weights_or_vendors_by_itself(model: str, source: str) -> None:
    judge = {**JUDGE, "model": model, "model_source": source}
    assert refused(body(judge=judge)).param == "parameters.judge.model"
    found = asked(body(judge=judge), Serve(default_model="Qwen/Qwen3-8B"))
    assert found.endpoints[-1].base_url == "http://127.0.0.1:8000/v1"
    assert refused(body(judge={**judge, "model_source": "external", "external_api_token": TOKEN}), Serve())


@pytest.mark.parametrize(
    ("name", "base_url", "model"),
    [
        ("small", "", "embedded/file:/srv/weights.gguf"),
        ("embedded/smollm2-135m", "", "embedded/smollm2-135m"),
        ("fast", "https://api.openai.com/v1", "gpt-4o-mini"),
        ("ep_1", "https://models.example.com/v1", "llama"),
        ("embedded/file:/home/me/model.gguf", "", "embedded/file:/home/me/model.gguf"),
        ("ollama/llama3.2", "http://127.0.0.1:11434/v1", "llama3.2"),
    ],
)
def test_a_default_model_may_be_any_that_the_owner_names(name: str, base_url: str, model: str) -> None:
    found = asked(body(judge={**JUDGE, "model": "whatever"}), Serve(default_model=name)).endpoints[0]
    assert (found.base_url, found.model) == (base_url, model)


def test_settings_that_lead_nowhere_are_told() -> None:
    for judge, serve in [("nowhere", Serve()), ("x", Serve(default_model="nowhere")), ("x", Serve(default_model="y"))]:
        problem = refused(body(judge={**JUDGE, "model": judge}), serve)
        assert problem.param == "parameters.judge.model"
        assert "nothing says where" in problem.message


@pytest.mark.parametrize(("asked_for", "granted"), [(16000, 512), (100, 100), (None, None)])
def test_an_embedded_model_is_not_asked_for_16000_tokens(asked_for: int | None, granted: int | None) -> None:
    for model, expected in (("small", granted), ("Qwen/Qwen3-8B", asked_for)):
        value = body(model_to_evaluate={**MODEL, "model": model, "max_tokens": asked_for})
        assert asked(value).evaluation.models[0].max_tokens == expected
        assert asked(value).parameters["model_to_evaluate"]["max_tokens"] == asked_for


# --- external models ---


@pytest.mark.parametrize(
    ("model", "url", "base_url", "id_"),
    [
        ("openai/gpt-4o", None, "https://api.openai.com/v1", "gpt-4o"),
        ("openai/gpt-4o", "https://proxy.example.com/v1/", "https://proxy.example.com/v1", "openai/gpt-4o"),
        ("llama", "http://127.0.0.1:9000/v1", "http://127.0.0.1:9000/v1", "llama"),
        # A name of the settings is theirs for the other sources only: the request says where this one is.
        ("ep_1", "https://api.openai.com/v1", "https://api.openai.com/v1", "ep_1"),
    ],
)
def test_an_external_model_is_where_the_request_says(model: str, url: str | None, base_url: str, id_: str) -> None:
    found = asked(body(judge={**EXTERNAL, "model": model, "external_base_url": url}))
    assert found.endpoints[-1] == Endpoint(base_url=base_url, model=id_)  # and no credential of the server
    assert found.secrets == {"judge": Secret(TOKEN)}


@pytest.mark.parametrize(
    ("changed", "key", "reason"),
    [
        ({"model": "anthropic/claude-haiku-4-5"}, "model", "external_origins: [https://api.anthropic.com]"),
        ({"model": "llama"}, "external_base_url", "is required"),
        ({"model": "openai/"}, "external_base_url", "is required"),
        ({"external_base_url": "https://evil.example.com/v1"}, "external_base_url", "external_origins"),
        ({"external_base_url": "https://api.openai.com:444/v1"}, "external_base_url", "external_origins"),
        ({"external_base_url": "http://api.openai.com/v1"}, "external_base_url", "this machine only"),
        ({"external_base_url": "http://127.0.0.1:9001/v1"}, "external_base_url", "external_origins"),
        ({"external_base_url": "http://localhost:9000/v1"}, "external_base_url", "external_origins"),
        ({"external_base_url": "https://169.254.169.254/latest"}, "external_base_url", "an address"),
        ({"external_base_url": "https://api.openai.com@evil.example.com"}, "external_base_url", "user name"),
        ({"external_base_url": "file:///etc/passwd"}, "external_base_url", "https://"),
        ({"external_base_url": 5}, "external_base_url", "string"),
        ({"external_api_token": None}, "external_api_token", "is required"),
        ({"external_api_token": 5}, "external_api_token", "string"),
        ({"external_api_token": f"{TOKEN}\r\nX-Evil: 1"}, "external_api_token", "printable"),
    ],
)
def test_an_external_model_is_refused_by_the_field_that_is_wrong(changed: Any, key: str, reason: str) -> None:
    problem = refused(body(judge=EXTERNAL | changed))
    assert problem.param == f"parameters.judge.{key}"
    assert reason in problem.message
    assert TOKEN not in problem.message


def test_nothing_is_sent_outside_by_default() -> None:
    assert "external_origins" in refused(body(judge=EXTERNAL), Serve()).message
    assert "external_origins" in refused(body(judge=EXTERNAL), Serve(external_origins=("https://[",))).message


def test_tokens_are_masked_wherever_they_stand_and_come_back_by_role() -> None:
    other = "sk-other-11"
    value = body(
        "compare",
        judge=EXTERNAL,
        model_b={**EXTERNAL, "external_api_token": other, "input_template": "{{ prompt }}"},
        model_a={**MODEL, "external_api_token": "unused-but-secret"},
        nested=[{"External_API_Token": ["list-secret"], "deeper": {"external_api_token": None}}],
    )
    found = asked(value)
    assert found.secrets == {"judge": Secret(TOKEN), "model_b": Secret(other)}
    for text in (json.dumps(found.parameters), repr(found)):
        for secret in (TOKEN, other, "unused-but-secret", "list-secret"):
            assert secret not in text
    assert found.parameters["judge"]["external_api_token"] == "***"
    assert found.parameters["nested"][0]["deeper"] == {"external_api_token": None}
    assert value["parameters"]["judge"]["external_api_token"] == TOKEN  # the body itself is left alone


def test_a_stored_request_can_be_read_again() -> None:
    first = asked(body(judge=EXTERNAL, model_to_evaluate=MODEL))
    again = asked({"type": first.type, "parameters": json.loads(json.dumps(first.parameters))})
    assert again.endpoints == first.endpoints
    assert set(again.secrets) == set(first.secrets)
    assert again.parameters == first.parameters


# --- what a model without an input template is shown ---


def shown(columns: list[str], *, template_: str = "Judge it.", **fields: Any) -> str | None:
    value = body(**{"judge": {**JUDGE, "system_template": template_}, "model_to_evaluate": SHORT, **fields})
    found = asked(value)
    assert found.whole_row
    model = complete(found, columns).models[0]
    return model.input_template.source if model.input_template else None


def test_one_column_that_nothing_else_uses_is_shown_bare() -> None:
    assert shown(["prompt"]) == "{{ prompt }}"
    assert shown(["prompt", "gold"], template_="Is it like {{ gold }}?") == "{{ prompt }}"
    assert shown(["prompt", IMAGES]) == "{{ prompt }}"


def test_several_columns_are_shown_by_name_in_their_order() -> None:
    assert shown(["question", "context"]) == "question: {{ question }}\ncontext: {{ context }}"


def test_the_only_column_is_shown_although_the_judge_sees_it_too() -> None:
    assert shown(["prompt"], template_="{{ prompt }}") == "{{ prompt }}"


def test_what_the_judge_alone_was_given_is_not_guessed_at() -> None:
    found = asked(body(model_to_evaluate=SHORT, judge={**JUDGE, "system_template": "{{ prompt }} {{ gold }}"}))
    evaluation = complete(found, ["prompt", "gold"])
    assert unsupported(evaluation, ["prompt", "gold"]) == (
        "['model_to_evaluate'] came without an input_template, and no column is left that it could be shown. "
        "Add an input_template with what the model is to be shown."
    )


def test_a_column_of_responses_is_not_shown_to_the_other_model() -> None:
    found = asked(body("compare", model_a="first", model_b=SHORT, judge={**JUDGE, "system_template": "Which?"}))
    assert found.whole_row == {"model_b"}
    evaluation = complete(found, ["first", "prompt"])
    assert evaluation.candidates[0] == "first"
    assert evaluation.models[0].input_template is not None
    assert evaluation.models[0].input_template.source == "{{ prompt }}"
    assert unsupported(evaluation, ["first", "prompt"]) is None
    assert [model.route for model in evaluation.models] == [("model_b",), ("judge",)]  # as the endpoints stand


def test_a_model_with_a_template_keeps_it() -> None:
    found = asked(body("compare", model_a=MODEL, model_b=SHORT, judge={**JUDGE, "system_template": "Which?"}))
    evaluation = complete(found, ["prompt"])
    assert evaluation.candidates[0] is found.evaluation.candidates[0]
    assert [model.input_template and model.input_template.source for model in evaluation.models[:2]] == [
        "{{ prompt }}"
    ] * 2


@pytest.mark.parametrize(
    "column", ["my column", "_hidden", "self", "true", "a-b", "x }} {{ y", "", "ﬁeld", "loop", "a.b"]
)
def test_a_column_that_no_template_can_name_is_told(column: str) -> None:
    found = asked(body(model_to_evaluate=SHORT, judge={**JUDGE, "system_template": "Judge it."}))
    message = unsupported(complete(found, ["prompt", column]), ["prompt", column])
    assert message is not None
    assert message.endswith(f"No template can name [{column!r}]: rename or remove them.")


@given(
    st.lists(
        st.text(max_size=8) | st.sampled_from(["prompt", "gold", "a b", IMAGES, "response"]), unique=True, max_size=6
    )
)
def test_any_columns_make_a_template_or_a_message(columns: list[str]) -> None:
    found = asked(body(model_to_evaluate=SHORT, judge={**JUDGE, "system_template": "Is it like {{ gold }}?"}))
    evaluation = complete(found, columns)
    problem = unsupported(evaluation, columns)
    source = evaluation.models[0].input_template
    assert source is None or isinstance(template.parse(source.source), template.Template)
    if problem is None:
        assert semantics.variables(evaluation) == {*columns}
        assert template.parse_or_raise(source.source if source else "").render(dict.fromkeys(columns, "x"))


# --- the columns of the dataset ---


def test_unused_columns_are_told_in_the_service_s_words() -> None:
    assert unsupported(asked(body()).evaluation, ["response", "id", "prompt", "category"]) == (
        "Unsupported dataset column(s): ['category', 'id']. Each column must be referenced by a model or judge "
        "template, or be a recognized field ('image_data_urls'). "
        "Remove unused columns or reference them in a template."
    )


def test_every_use_of_a_column_counts() -> None:
    judge = {**JUDGE, "system_template": "{{ meta.kind }}{% for turn in turns %}{{ turn.text }}{% endfor %}"}
    found = asked(body(judge=judge, model_to_evaluate={**MODEL, "system_template": "{% if mode %}short{% endif %}"}))
    assert unsupported(found.evaluation, ["prompt", "meta", "turns", "mode"]) is None


def test_columns_that_are_named_and_missing_are_told() -> None:
    message = unsupported(asked(body()).evaluation, ["prompt"])
    assert message is not None
    assert message.startswith("Missing dataset column(s): ['response']. ")
    assert message.endswith("the dataset has ['prompt'].")


def test_images_are_recognised_and_said_to_be_out_of_reach() -> None:
    message = unsupported(asked(body()).evaluation, ["prompt", "response", IMAGES])
    assert message is not None
    assert "cannot judge images" in message
    assert "Unsupported" not in message


def test_a_message_about_very_many_columns_stays_short() -> None:
    message = unsupported(asked(body()).evaluation, ["prompt", "response", *(f"column_{i}" for i in range(5000))])
    assert message is not None
    assert "and 4900 more" in message
    assert len(message) < 5000


# --- whatever comes ---

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BODIES = [
    body(model_to_evaluate=MODEL),
    body("score"),
    body("compare", model_a={**EXTERNAL, **{"input_template": "x"}}, model_b=SHORT),
]


@hypothesis_settings(max_examples=300)
@given(st.data())
def test_any_body_is_taken_or_refused_with_400(data: st.DataObject) -> None:
    value: Any = deepcopy(data.draw(st.sampled_from(BODIES)))
    for _ in range(data.draw(st.integers(1, 2))):
        place = value
        while True:
            key = data.draw(st.sampled_from(sorted(place)))
            inner = place[key]
            if not isinstance(inner, dict) or not inner or data.draw(st.integers(0, 4)) == 0:
                break
            place = inner
        place[key] = data.draw(ANYTHING)
    try:
        found = asked(value)
    except Problem as problem:
        assert problem.status == 400
        assert len(problem.message) < 1000
        json.dumps(problem.to_json(), allow_nan=False, ensure_ascii=False).encode()
    else:
        assert (
            json.loads(json.dumps(found.parameters, allow_nan=False, ensure_ascii=False).encode()) == found.parameters
        )
        assert TOKEN not in repr(found)
        complete(found, ["prompt", "response"])


@given(ANYTHING)
def test_any_json_is_taken_or_refused_with_400(value: Any) -> None:
    with pytest.raises(Problem) as caught:
        asked(value)
    assert caught.value.status == 400
