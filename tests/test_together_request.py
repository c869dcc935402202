"""What is said to Together: the same on the wire as its own SDK says, known again by value, refused before it is sent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import pytest
import yaml
from evaluations import evaluation
from hypothesis import given, settings
from hypothesis import strategies as st
from together import Together

from evalops import document, spec
from evalops.errors import EvalopsError, Severity
from evalops.providers import together_request as request
from evalops.providers.client import Answer, Client
from evalops.secret import Secret
from evalops.settings import Settings
from evalops.spec import Evaluation

KEY = "sk-canary-key"
MARK = "0123456789abcdef-1"


# --- on the wire ---


@dataclass(frozen=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> list[tuple[str, str]]:
        return parse_qsl(urlsplit(self.target).query)

    @property
    def form(self) -> list[tuple[Any, ...]]:
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parts: Any = message_from_bytes(head + self.body).get_payload()
        return [
            (part.get_param("name", header="content-disposition"), part.get_filename(), part.get_payload())
            for part in parts
        ]


@dataclass
class Capture:
    """A loopback server that answers like the service and keeps what it was asked."""

    url: str = ""
    asked: list[Asked] = field(default_factory=list)

    def take(self) -> list[Asked]:
        taken, self.asked = self.asked, []
        return taken

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], Any]:
        if method == "POST" and path == "/v1/files":
            place = f"{self.url}/bucket/object?signature=a%2Fb%20c&part=1"
            return 302, {"Location": place, "X-Together-File-Id": "file-1"}, {}
        if path.endswith("/preprocess"):
            described = {"id": "file-1", "bytes": 1, "created_at": 1, "filename": "rows.jsonl", "FileType": "jsonl"}
            return 200, {}, described | {"object": "file", "purpose": "eval"}
        if method == "POST":
            return 200, {}, {"workflow_id": "eval-1", "status": "pending"}
        return 200, {}, [] if path == "/v1/evaluation" else {}


@pytest.fixture(scope="module")
def server() -> Iterator[Capture]:
    capture = Capture()

    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            capture.asked.append(Asked(self.command, self.path, headers, body))
            status, more, value = capture.answer(self.command, urlsplit(self.path).path)
            text = json.dumps(value).encode()
            self.send_response(status)
            for name, each in {"Content-Type": "application/json", **more, "Content-Length": str(len(text))}.items():
                self.send_header(name, each)
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    listening.daemon_threads = True
    capture.url = f"http://127.0.0.1:{listening.server_port}"
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield capture
    listening.shutdown()
    thread.join()
    listening.server_close()


@pytest.fixture(scope="module")
def sdk(server: Capture) -> Iterator[Together]:
    with Together(api_key=KEY, base_url=server.url) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: Capture) -> Iterator[Client]:
    with Client(f"{server.url}/v1", Secret(KEY), service="Together", key_name="TOGETHER_API_KEY") as client:
        yield client


words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30).map(lambda text: f"T{text}")
tokens = st.text("abcdefghij-_.", min_size=8, max_size=20).map(lambda text: f"sk{text}x")
temperatures = st.one_of(st.just(0), st.floats(0, 2), st.integers(0, 2))
workers = {"num_workers": st.integers(1, 64)}
sources = st.sampled_from(["serverless", "dedicated", "external", "shortcut"])


@st.composite
def models(draw: st.DrawFn, *, judge: bool) -> dict[str, Any]:
    """A model as the SDK's users write it."""
    where = draw(sources)
    model = {"model": draw(words), "model_source": where, "system_template": draw(words)}
    if not judge:
        model["input_template"] = draw(words)
    if where in ("external", "shortcut"):
        model |= {"external_api_token": draw(tokens)}
        model |= {"external_base_url": "https://llm.example.com/v1"} if where == "external" else {}
        model |= {"model": "openai/gpt-4o", "model_source": "external"} if where == "shortcut" else {}
    optional = {"max_tokens": st.integers(1, 1 << 20), "temperature": temperatures, **workers}
    return model | draw(st.fixed_dictionaries({}, optional=optional))


@st.composite
def jobs(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A type and parameters as the SDK's users write them."""
    type_ = draw(st.sampled_from(["classify", "score", "compare"]))
    candidates = st.one_of(words, models(judge=False))
    wanted: dict[str, Any] = {"input_data_file_path": draw(words), "judge": draw(models(judge=True))}
    if type_ == "classify":
        labels = draw(st.lists(words, min_size=2, max_size=5, unique=True))
        wanted |= {"labels": labels, "pass_labels": labels[:1]}
    elif type_ == "score":
        low = draw(st.integers(-5, 5))
        wanted |= {"min_score": low, "max_score": low + 4, "pass_threshold": low + draw(st.floats(0, 4))}
    else:
        wanted |= {"model_a": draw(candidates), "model_b": draw(candidates)}
        wanted |= draw(st.sampled_from([{}, {"disable_position_bias_correction": True}]))
    if type_ != "compare" and draw(st.booleans()):
        wanted["model_to_evaluate"] = draw(candidates)
    return type_, wanted


def split(type_: str, wanted: dict[str, Any]) -> tuple[Evaluation, dict[str, Secret]]:
    """The evaluation that asks for `wanted`, and the tokens, which no spec holds."""
    fields = {key: value for key, value in wanted.items() if key != "input_data_file_path"}
    found = {}
    for key, value in fields.items():
        if isinstance(value, dict):
            fields[key] = {name: each for name, each in value.items() if name != "external_api_token"}
            found |= {key: Secret(value["external_api_token"])} if "external_api_token" in value else {}
    if type_ != "compare":
        fields.setdefault("model_to_evaluate", None)
    return evaluation(type=type_, **fields), found


@settings(max_examples=150)
@given(job=jobs())
def test_a_job_is_asked_for_as_the_official_sdk_does(
    job: tuple[str, dict[str, Any]], server: Capture, sdk: Together, client: Client
) -> None:
    type_, wanted = job
    ours, secrets = split(type_, wanted)
    body = request.body(ours, request.parameters(ours, wanted["input_data_file_path"], secrets))
    server.take()
    sdk.evals.create(type=type_, parameters=wanted)  # type: ignore[arg-type]
    assert isinstance(client.post_once(request.EVALUATIONS, request.encode(body)), Answer)
    theirs, mine = server.take()
    assert json.loads(mine.body) == json.loads(theirs.body)
    assert list(json.loads(mine.body)) == list(json.loads(theirs.body))
    assert (mine.method, mine.path, mine.query) == (theirs.method, theirs.path, theirs.query)
    for name in ("authorization", "content-type", "accept"):
        assert mine.headers[name] == theirs.headers[name]
    assert not any(secret.reveal() in repr(body) for secret in secrets.values())


def test_the_bytes_are_those_of_the_sdk(server: Capture, sdk: Together, client: Client) -> None:
    ours = evaluation(judge={"system_template": 'Grüße 👋 \x7f"\\'}, pass_labels=["polite"])
    body = request.body(ours, request.parameters(ours, "file-1", {}))
    server.take()
    sdk.evals.create(type="classify", parameters=body["parameters"])
    client.post_once(request.EVALUATIONS, request.encode(body))
    theirs, mine = server.take()
    assert mine.body == theirs.body


@given(
    limit=st.one_of(st.none(), st.integers(1, 1000)),
    status=st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), min_size=1)),
)
@settings(max_examples=40)
def test_a_list_is_asked_for_as_the_official_sdk_does(
    limit: int | None, status: str | None, server: Capture, sdk: Together, client: Client
) -> None:
    server.take()
    wanted = {key: value for key, value in {"limit": limit, "status": status}.items() if value is not None}
    sdk.evals.list(**wanted)  # type: ignore[arg-type]
    client.get(request.EVALUATIONS, request.list_query(limit, status))
    theirs, mine = server.take()
    assert (mine.method, mine.path, mine.query) == (theirs.method, theirs.path, theirs.query)


@given(job=st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: text not in (".", "..")))
@settings(max_examples=40)
def test_a_job_is_read_as_the_official_sdk_does(job: str, server: Capture, sdk: Together, client: Client) -> None:
    server.take()
    sdk.evals.retrieve(job)
    client.get(request.job_path(job))
    theirs, mine = server.take()
    assert (mine.method, mine.path, mine.query) == (theirs.method, theirs.path, theirs.query)
    assert mine.target.count("/") == 3


@pytest.mark.parametrize("job", ["", ".", ".."])
def test_a_path_cannot_be_left(job: str) -> None:
    with pytest.raises(EvalopsError):
        request.job_path(job)


def test_a_file_is_uploaded_as_the_official_sdk_does(
    tmp_path: Path, server: Capture, sdk: Together, client: Client
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":"\xc3\xa9"}\n' * 20_000)
    server.take()
    sdk.files.upload(path, purpose="eval", check=False)
    form = request.upload_form(path.name, hashlib.sha256(path.read_bytes()).hexdigest())
    announced = client.post(request.FILES, form)
    client.upload(announced.headers["location"], path)
    client.post(request.file_path(announced.headers["x-together-file-id"], "preprocess"))
    asked = server.take()
    theirs, ours = asked[:3], asked[3:]
    assert [(each.method, each.target) for each in ours] == [(each.method, each.target) for each in theirs]
    assert ours[0].form == theirs[0].form and [name for name, *_ in ours[0].form] == list(form)
    assert ours[1].body == theirs[1].body == path.read_bytes()
    ignored = {"user-agent", "accept-encoding", "connection", "host"}
    put = [
        {name: each for name, each in asked.headers.items() if name not in ignored} for asked in (ours[1], theirs[1])
    ]
    assert put[0] == put[1] == {"accept": "*/*", "content-length": str(path.stat().st_size)}
    assert ours[2].body == theirs[2].body == b""


# --- parameters ---


def test_only_what_a_spec_says_is_sent() -> None:
    ours = evaluation(pass_labels=["polite"], model_to_evaluate=None)
    assert request.parameters(ours, "file-1", {}) == {
        "input_data_file_path": "file-1",
        "judge": {"model": "judge", "model_source": "serverless", "system_template": "Is it polite?"},
        "labels": ["polite", "rude"],
        "pass_labels": ["polite"],
    }


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ({"model": "Qwen/Qwen3"}, "serverless"),
        ({"model": "together/Qwen/Qwen3"}, "serverless"),
        ({"model": "openai/gpt-4o"}, "external"),
        ({"model": "openai/gpt-oss-120b"}, "serverless"),
        ({"model": "google/gemma-3n"}, "serverless"),
        ({"model": "anthropic/claude"}, "external"),
        ({"model": "openai/gpt-4o", "model_source": "serverless"}, "serverless"),
        ({"model": "ep_1", "model_source": "dedicated"}, "dedicated"),
        ({"model": "mine", "external_base_url": "https://llm.example.com/v1"}, "external"),
    ],
)
def test_where_a_model_is_served(model: dict[str, Any], expected: str) -> None:
    ours = evaluation(judge=model)
    sent = request.parameters(ours, "file-1", {"judge": Secret("sk-canary")})["judge"]
    assert sent["model_source"] == expected
    assert sent["model"] == model["model"].removeprefix("together/")
    assert ("external_api_token" in sent) == (expected == "external")  # a key goes nowhere else


def test_a_secret_is_in_the_bytes_alone() -> None:
    ours = evaluation(judge={"model": "openai/gpt-4o"})
    body = request.body(ours, request.parameters(ours, "file-1", {"judge": Secret("sk-canary")}))
    assert "sk-canary" not in repr(body)
    assert json.loads(request.encode(body))["parameters"]["judge"]["external_api_token"] == "sk-canary"


# --- known again ---


def body_of(*, mark: str | None = MARK, **fields: Any) -> dict[str, Any]:
    ours = evaluation(**fields)
    value: dict[str, Any] = json.loads(request.encode(request.body(ours, request.parameters(ours, "f", {}, mark=mark))))
    return value


def changed(job: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A copy with other parameters; `judge__model` reaches inside, None removes."""
    copy: dict[str, Any] = json.loads(json.dumps(job))
    for route, value in fields.items():
        *into, last = route.split("__")
        target = copy["parameters"]
        for each in into:
            target = target[each]
        target[last] = value
        if value is None:
            del target[last]
    return copy


def test_the_marker_stands_first_and_is_found() -> None:
    job = body_of()
    assert job["parameters"]["judge"]["system_template"] == f"{{# evalops:{MARK} #}}Is it polite?"
    assert request.marker_of(job["parameters"]) == MARK == request.marker("0123456789abcdef" * 4, 1)
    assert request.marker_of(body_of(mark=None)["parameters"]) is None


@pytest.mark.parametrize("value", [{}, {"judge": "x"}, {"judge": {}}, {"judge": {"system_template": 1}}])
def test_no_marker(value: dict[str, Any]) -> None:
    assert request.marker_of(value) is None


@pytest.mark.parametrize("template", ["{{ a }}\n", "\n{{ a }}", "{%- if a %}x{% endif %}", "} {# c #}", "  x"])
def test_the_marker_renders_to_nothing(template: str) -> None:
    import jinja2

    marked = body_of(judge={"system_template": template})["parameters"]["judge"]["system_template"]
    for keep in (True, False):
        environment = jinja2.Environment(keep_trailing_newline=keep)
        assert environment.from_string(marked).render(a="A") == environment.from_string(template).render(a="A")


def sorted_with_ints(job: dict[str, Any]) -> dict[str, Any]:
    """As the service echoes parameters: keys in order, 10 for 10.0."""
    whole = json.loads(
        json.dumps(job, sort_keys=True), parse_float=lambda t: int(float(t)) if float(t) % 1 == 0 else float(t)
    )
    return dict(whole)


@settings(max_examples=50)
@given(
    job=jobs(),
    marked=st.sampled_from([(None, None), (MARK, MARK), (MARK, None), (None, MARK), (MARK, "f" * 16 + "-2")]),
)
def test_an_echo_is_the_same_work(job: tuple[str, dict[str, Any]], marked: tuple[str | None, str | None]) -> None:
    ours, secrets = split(*job)
    sent, echoed = (
        json.loads(request.encode(request.body(ours, request.parameters(ours, "f", secrets, mark=mark))))
        for mark in marked
    )
    assert request.same_work(sent, sorted_with_ints(echoed))
    assert request.same_work(sorted_with_ints(echoed), sent)


@pytest.mark.parametrize(
    "fields",
    [
        {"pass_labels": ["rude"]},
        {"pass_labels": None},
        {"judge__num_workers": 9},
        {"judge__external_api_token": "***"},
        {"judge__max_tokens": 32768},
        {"judge__temperature": 0.05},
        {"judge__external_base_url": "https://api.openai.com/v1/"},
        {"new_field": 1},
    ],
)
def test_what_does_not_make_another_work(fields: dict[str, Any]) -> None:
    job = body_of(judge={"model": "openai/gpt-4o"}, pass_labels=["polite"], mark=None)
    assert request.same_work(job, changed(job, **fields))
    assert request.same_work(changed(job, **fields), job)


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": ["rude", "polite"]},
        {"labels": None},
        {"model_to_evaluate": "other"},
        {"model_to_evaluate": None},
        {"model_to_evaluate": {"model": "response"}},
        {"input_data_file_path": "other"},
        {"judge__model": "other"},
        {"judge__model_source": "dedicated"},
        {"judge__system_template": "Is it polite? "},
        {"judge__system_template": f"Is it polite?{{# evalops:{MARK} #}}"},
        {"judge__max_tokens": 1},
        {"judge__temperature": 0},
        {"judge__external_base_url": "https://llm.example.com"},
        {"judge": None},
    ],
)
def test_what_makes_another_work(fields: dict[str, Any]) -> None:
    job = body_of(pass_labels=["polite"], mark=None)
    assert not request.same_work(job, changed(job, **fields))
    assert not request.same_work(changed(job, **fields), job)


def test_of_our_own_job_the_defaults_may_be_new() -> None:
    job = body_of(model_to_evaluate={"model": "m", "system_template": "s", "input_template": "i"})
    assert request.same_work(job, changed(job, judge__max_tokens=65536, model_to_evaluate__temperature=1))
    assert not request.same_work(job, changed(job, judge__model="forged"))
    told = changed(job, judge__max_tokens=10)
    assert not request.same_work(told, changed(job, judge__max_tokens=11))


def test_the_type_and_the_file() -> None:
    job = body_of(type="compare", mark=None)
    assert request.same_work(job, changed(job, disable_position_bias_correction=False))
    assert not request.same_work(job, changed(job, disable_position_bias_correction=True))
    assert not request.same_work(job, {**job, "type": "score"})
    assert request.same_work(job, changed(job, input_data_file_path="other"), with_file=False)


@pytest.mark.parametrize(
    "echoed", [{}, {"parameters": None}, {"parameters": []}, {"type": [], "parameters": {"judge": 1}}]
)
def test_an_echo_of_nothing_is_no_job_of_ours(echoed: dict[str, Any]) -> None:
    assert not request.same_work(body_of(), echoed)


# --- what the service would refuse ---


def read(text: str) -> Evaluation:
    documents, problems = document.parse(text.encode(), "tone.yaml")
    (one,), more = spec.load(documents[0], Settings(), str)
    assert not problems + more
    return one


def found(**fields: Any) -> list[tuple[str, str | None]]:
    return [(each.code, each.hint) for each in request.check(evaluation(**{"pass_labels": ["polite"]} | fields))]


def test_good_evaluations() -> None:
    model = {"model": "m", "system_template": "s", "input_template": "{{ a }}"}
    assert found() == found(model_to_evaluate=model) == found(type="score", pass_threshold=3, pass_labels=None) == []
    assert found(type="compare", pass_labels=None, model_a=model) == []
    assert found(judge={"model": "x", "external_base_url": "https://llm.example.com/v1"}) == []


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"pass_labels": None}, "pass-labels"),
        ({"type": "score", "pass_labels": None}, "pass-threshold"),
        ({"judge": {"column": "human"}}, "judge"),
        ({"judge": {"verdict": "likelihood"}}, "judge"),
        ({"judge": {"reason": "none"}}, "judge"),
        ({"type": "score", "pass_threshold": 3, "pass_labels": None, "judge": {"criteria": ["tone"]}}, "judge"),
        ({"judges": [{}, {"model": "other"}]}, "judge"),
        ({"repeats": 3}, "judge"),
        ({"type": "custom", "evaluator": "exact", "gold": "g", "pass_labels": None, "model_to_evaluate": "a"}, "type"),
        ({"judge": {"model": "embedded/smollm2-135m"}}, "model"),
        ({"judge": {"model": "ollama/llama3.2"}}, "model"),
        ({"judge": {"model": "mine", "model_source": "external"}}, "external"),
        ({"judge": {"model_source": "dedicated", "external_base_url": "https://a.example.com"}}, "external"),
        ({"judge": {"credential": "mine"}}, "external"),
        ({"judge": {"system_template": "{{ label }}"}}, "column"),
        ({"model_to_evaluate": "feedback"}, "column"),
        ({"judge": {"system_template": "{{ image_data_urls }}"}}, "images"),
        ({"model_to_evaluate": {"model": "m", "input_template": "i"}}, "template"),
        ({"model_to_evaluate": {"model": "m", "system_template": "i"}}, "template"),
    ],
)
def test_what_together_would_refuse(fields: dict[str, Any], code: str) -> None:
    ((got, _),) = found(**fields)
    assert got == f"together/{code}"


def test_a_column_named_like_a_result_of_another_type_is_fine() -> None:
    assert found(judge={"system_template": "{{ score }} {{ choice_original }}"}) == []


def test_a_problem_has_a_place_and_a_way_out() -> None:
    text = (
        "version: 1\nname: tone\ntype: classify\ndataset: rows.jsonl\njudge:\n  model: ollama/llama3.2\n"
        "  system_template: |\n    Look.\n    {{ label }}\nlabels: [a, b]\n"
    )
    problems = request.check(read(text))
    assert {each.code: (each.mark and (each.mark.line, each.mark.column)) for each in problems} == {
        "together/model": (6, 3),
        "together/pass-labels": (10, 1),
        "together/column": (9, 8),
    }
    assert all(each.hint for each in problems)
    assert {each.hint for each in problems if each.code == "together/model"} == {"use `provider: local`"}
    assert all(each.severity is Severity.ERROR for each in problems)


# --- the way back ---


@settings(max_examples=60)
@given(job=jobs(), marked=st.booleans())
def test_an_imported_spec_asks_for_the_same_job(job: tuple[str, dict[str, Any]], marked: bool) -> None:
    ours, secrets = split(*job)
    params = request.parameters(ours, "f", secrets, mark=MARK if marked else None)
    sent = json.loads(request.encode(request.body(ours, params)))
    value = request.spec_of(sorted_with_ints({**sent, "workflow_id": "eval-de4c-1751308922"}))
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    assert not any(secret.reveal() in text for secret in secrets.values())
    assert value["name"] == "eval-de4c-1751308922" and value.pop("provider") == "together"
    again = read(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    sent_again = json.loads(request.encode(request.body(again, request.parameters(again, "f", secrets))))
    assert request.same_work(sent, sent_again)
    grades = ("pass_labels", "pass_threshold")
    assert [sent_again["parameters"].get(key) for key in grades] == [sent["parameters"].get(key) for key in grades]


def test_a_token_becomes_the_name_of_a_credential() -> None:
    job = body_of(judge={"model": "mine", "external_base_url": "https://llm.example.com/v1"})
    value = request.spec_of({**changed(job, judge__external_api_token="sk-canary"), "workflow_id": "../x y"}, "d.jsonl")
    assert value["judge"]["credential"] == "llm-example-com"
    assert value["name"] == "x-y" and value["dataset"] == "d.jsonl"
    assert "sk-canary" not in str(value) and "evalops:" not in str(value)


def test_scores_of_zero_are_kept() -> None:
    job = body_of(type="score", min_score=0, max_score=1, pass_threshold=0)
    value = request.spec_of(job)
    assert (value["min_score"], value["pass_threshold"], value["name"]) == (0, 0, "imported")


@pytest.mark.parametrize(
    "job", [{}, {"type": "classify"}, {"type": "other", "parameters": {"judge": {}}}, {"type": []}]
)
def test_a_job_that_says_too_little(job: dict[str, Any]) -> None:
    with pytest.raises(EvalopsError):
        request.spec_of(job)
