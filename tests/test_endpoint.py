"""Where a model is served, and that no key can be carried away by whoever writes a spec."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import SPEC

from evalops import document, endpoint, settings, spec
from evalops.endpoint import VENDORS, Endpoint, origin, refusal, resolve
from evalops.errors import EvalopsError, Mark
from evalops.settings import Credential, Settings
from evalops.spec import Model

MARK = Mark("tone.yaml", 6, 3)

# --- which URLs rows and keys may go to ---

ALLOWED = [
    "https://api.openai.com/v1",
    "https://api.openai.com:443/v1/",
    "HTTPS://API.OPENAI.COM/v1",
    "https://llm.example.com:8443/v1",
    "https://llm-gateway.internal.example/openai/v1",
    "https://my_service.example/v1",
    "https://gateway/v1",
    "https://a.b.c.d.example",
    "https://127.0.0.1.nip.example/v1",  # a public name, whatever it is resolved to
    "https://llm.example.com/v1/../v2",
    "https://localhost/v1",
    "https://[::1]:8443/v1",
    "http://localhost:11434/v1",
    "http://LOCALHOST:11434/v1",
    "http://127.0.0.1:8000/v1",
    "http://127.0.0.53/v1",
    "http://[::1]:8000/v1",
]
REFUSED = {
    "http is for this machine only": [
        "http://api.openai.com/v1",
        "http://localhost.evil.example/v1",
        "http://127.0.0.1.evil.example/v1",
        "http://localhost./v1",
        "http://127.1:8000/v1",
        "http://0:8000/v1",
        "http://0.0.0.0:8000/v1",
        "http://2130706433/v1",
        "http://0x7f000001/v1",
        "http://[::ffff:127.0.0.1]/v1",
    ],
    "it names an address rather than a host": [
        "https://10.0.0.7/v1",
        "https://192.168.1.1/v1",
        "https://169.254.169.254/latest/meta-data",
        "https://1.1.1.1/v1",
        "https://2130706433/v1",
        "https://0x7f000001/v1",
        "https://0x7f.1/v1",
        "https://017700000001/v1",
        "https://1.2.3.4.5/v1",
        "https://[fe80::1]/v1",
        "https://[fe80::1%25eth0]/v1",
        "https://[::ffff:127.0.0.1]/v1",
        "https://[v1.x]/v1",
    ],
    "it holds a user name or password": [
        "https://me@llm.example.com/v1",
        "https://me:secret@llm.example.com/v1",
        "https://@llm.example.com/v1",
        "https://api.openai.com@evil.example/v1",
        "https://api.openai.com:443@evil.example/v1",
        "http://localhost:8000@evil.example/v1",
        "http://127.0.0.1@evil.example/v1",
    ],
    "it has characters that look-alike hosts are made of": [
        "https://api.openаi.com/v1",  # a Cyrillic letter
        "https://api。openai.com/v1",  # an ideographic full stop
        "https://api.openai.com／v1",  # a full-width slash
        "https://api.openai.com\\@evil.example/v1",
        "https://api.openai.com /v1",
        "https://api.openai.com\n.evil.example/v1",
        "https://api.openai.com\t/v1",
        "\x00https://api.openai.com/v1",
    ],
    "its host is written in a way that look-alike hosts use": [
        "https://api.openai.com./v1",
        "https://api..openai.com/v1",
        "https://xn--api-openi-g4g.com/v1",
        "https://api.xn--openi-g4g.com/v1",
        "https://api.openai.com%2eevil.example/v1",
        "https://api.openai.com%00.evil.example/v1",
        "https://%61pi.openai.com/v1",
        "https://api.openai.com;evil.example/v1",
        "https://-api.openai.com/v1",
        "https://api.openai.com,evil.example/v1",
        "https://*.openai.com/v1",
    ],
    "it has a query or a fragment": [
        "https://llm.example.com/v1?to=evil.example",
        "https://llm.example.com/v1?",
        "https://llm.example.com/v1#x",
        "https://llm.example.com/v1#",
        "https://evil.example?@api.openai.com/v1",
        "https://evil.example#@api.openai.com/v1",
    ],
    "it must begin with https:// and name a host": [
        "",
        "api.openai.com/v1",
        "//api.openai.com/v1",
        "https:/api.openai.com/v1",
        "https:///api.openai.com/v1",
        "https://",
        "https://:443/v1",
        "ftp://api.openai.com/v1",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
    ],
    "it is no URL": [
        "https://[::1/v1",
        "https://api.openai.com:x/v1",
        "https://api.openai.com:70000/v1",
        "https://api.openai.com:-1/v1",
        "https://api.openai.com:0/v1",
    ],
}


@pytest.mark.parametrize("url", ALLOWED)
def test_allowed(url: str) -> None:
    assert refusal(url) is None


@pytest.mark.parametrize(("url", "reason"), [(url, why) for why, urls in REFUSED.items() for url in urls], ids=ascii)
def test_refused(url: str, reason: str) -> None:
    assert refusal(url) == reason


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://API.example/v1", "https://api.example"),
        ("https://api.example:443", "https://api.example"),
        ("https://api.example:8443/v1/", "https://api.example:8443"),
        ("http://localhost:80/v1", "http://localhost"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_origin(url: str, expected: str) -> None:
    assert origin(url) == expected


# --- which key goes along ---

PROD = Credential(name="prod", env="PROD_KEY", origins=("https://llm.example.com", "http://127.0.0.1:8000"))
BOUND = Settings(
    credentials={"prod": PROD},
    models={
        "house": {"base_url": "https://llm.example.com/v1/", "model": "inner", "credential": "prod"},
        "open": {"base_url": "http://127.0.0.1:9000/v1"},
        "moved": {"base_url": "https://elsewhere.example/v1", "credential": "prod"},
        "weights": {"model": "embedded/file:/srv/model.gguf"},
        "openai/gpt-4o": {"base_url": "http://127.0.0.1:9000/v1"},
    },
)


def model(name: str, **fields: Any) -> Model:
    return Model(model=name, route=("judge",), **fields)


def found(name: str, **fields: Any) -> Endpoint:
    return resolve(model(name, **fields), BOUND, MARK)


def refused(name: str, **fields: Any) -> str:
    with pytest.raises(EvalopsError) as caught:
        found(name, **fields)
    (problem,) = caught.value.diagnostics
    assert problem.mark == MARK
    return f"{problem.code}: {problem.message}"


@pytest.mark.parametrize("prefix", VENDORS)
def test_a_vendor_has_its_own_key_for_its_own_origin(prefix: str) -> None:
    vendor = VENDORS[prefix]
    assert found(f"{prefix}some/model") == Endpoint(
        base_url=vendor.base_url, model="some/model", credential=vendor.credential
    )
    assert refusal(vendor.base_url) is None
    if vendor.credential:
        assert vendor.credential.origins == (origin(vendor.base_url),)


def test_a_model_of_the_settings() -> None:
    assert found("house") == Endpoint(base_url="https://llm.example.com/v1", model="inner", credential=PROD)
    assert found("open") == Endpoint(base_url="http://127.0.0.1:9000/v1", model="open")
    assert found("openai/gpt-4o").base_url == "http://127.0.0.1:9000/v1"


def test_an_endpoint_of_the_spec_gets_no_key_unless_it_names_one() -> None:
    url = "https://anywhere.example/v1"
    assert found("openai/gpt-4o-mini", external_base_url=url) == Endpoint(base_url=url, model="openai/gpt-4o-mini")
    assert found("house", external_base_url=url).credential is None
    assert found("m", external_base_url="https://llm.example.com/v1/", credential="prod").credential == PROD


def test_weights() -> None:
    assert found("embedded/smollm2-135m") == Endpoint(base_url="", model="embedded/smollm2-135m")
    assert found("embedded/file:models/x.gguf").is_embedded
    assert found("weights") == Endpoint(base_url="", model="embedded/file:/srv/model.gguf")


@pytest.mark.parametrize("path", ["/etc/passwd", "~/model.gguf", "../model.gguf", "models/../../model.gguf", ".."])
def test_a_spec_names_weights_inside_the_project_only(path: str) -> None:
    assert refused(f"embedded/file:{path}") == f"spec/model: `embedded/file:{path}` is outside the project"


FOREIGN = [
    "https://evil.example/v1",
    "https://llm.example.com.evil.example/v1",
    "https://evil.example/llm.example.com/v1",
    "https://llm-example.com/v1",
    "https://sub.llm.example.com/v1",
    "https://llm.example.com:8443/v1",
    "https://localhost/v1",
    "http://127.0.0.1:8001/v1",
    "http://127.0.0.1/v1",
    "http://localhost:8000/v1",
    "http://[::1]:8000/v1",
]


@pytest.mark.parametrize("url", FOREIGN)
def test_a_key_goes_to_its_origins_only(url: str) -> None:
    assert refused("m", external_base_url=url, credential="prod") == (
        f"spec/credential: the credential `prod` may not be sent to {origin(url)}"
    )


def test_a_key_cannot_be_carried_away_through_a_vendor_or_the_settings() -> None:
    assert refused("openai/gpt-4o-mini", credential="prod").startswith("spec/credential: ")
    assert refused("moved").startswith("spec/credential: ")
    assert refused("open", credential="prod").startswith("spec/credential: ")
    assert refused("house", external_base_url="https://evil.example/v1", credential="prod").startswith(
        "spec/credential: "
    )
    # A vendor's own key has no name that a spec could pair with a host.
    assert refused("m", external_base_url="https://evil.example/v1", credential="openai").startswith(
        "spec/credential: no "
    )


EVIL = "external_base_url: 'https://evil.example/v1'"
EVERYWHERE = {
    "in the spec": ("", "  external_base_url: https://evil.example/v1\n  credential: prod\n", ""),
    "by a named judge": (
        f"judges:\n  house: {{model: m, {EVIL}, credential: prod, system_template: x}}\n",
        None,
        "",
    ),
    "by a model of the settings": ("models:\n  m: {base_url: 'https://evil.example/v1', credential: prod}\n", "", ""),
    "by defaults": (
        f"defaults:\n  judge: {{model: m, {EVIL}, credential: prod, system_template: x}}\n",
        None,
        "",
    ),
    "by the matrix": ("", "  credential: prod\n", "matrix:\n  judge.external_base_url: ['https://evil.example/v1']\n"),
    "by the matrix, the other way round": (
        "",
        "  external_base_url: https://evil.example/v1\n",
        "matrix:\n  judge.credential: [prod]\n",
    ),
    "by a candidate": (
        "",
        "  external_base_url: https://llm.example.com/v1\n",
        f"model_to_evaluate: {{model: m, {EVIL}, credential: prod, input_template: x}}\n",
    ),
}


@pytest.mark.parametrize("way", EVERYWHERE)
def test_no_way_of_writing_pairs_a_key_with_a_foreign_host(way: str) -> None:
    more, judge, rest = EVERYWHERE[way]
    head = SPEC.split("judge:")[0] + "labels: [a, b]\n"
    inside = "" if judge is None else f"judge:\n  model: m\n{judge}  system_template: '{{{{ response }}}}'\n"
    inside = "judge: house\n" if way == "by a named judge" else inside
    text = "version: 1\ncredentials:\n  prod: {env: PROD_KEY, origins: ['https://llm.example.com']}\n" + more
    loaded, problems = settings.load(document.parse(text.encode(), "evalops.yaml")[0][0])
    assert not problems
    evaluations, problems = spec.load(document.parse((head + inside + rest).encode(), "tone.yaml")[0][0], loaded, str)
    assert not problems, problems
    assert evaluations
    for each in evaluations:
        codes = [problem.code for problem in endpoint.check(each, loaded)]
        assert codes == ["spec/credential"]


# --- what is said ---


@pytest.mark.parametrize(
    ("name", "fields", "message", "hint"),
    [
        ("mistral", {}, "nothing says where `mistral` is served", "add it to evalops.yaml under `models: {mistral: {"),
        ("Open", {}, "nothing says where `Open` is served", "did you mean `open`?"),
        ("together/x", {"model_source": "serverless"}, "nothing says where `together/x` is served",
         "add it to evalops.yaml under `models: {together/x: {base_url: …}}`, or remove `model_source: serverless`"),
        ("m", {"external_base_url": "http://a.example"}, "`http://a.example` is not allowed: http is for this", None),
        ("m", {"external_base_url": "https://u:hunter2@a.example"}, "this URL is not allowed: it holds a user", None),
        ("m", {"external_base_url": "https://a.example", "credential": "prdo"},
         "no credential is called `prdo` in evalops.yaml", "did you mean `prod`?"),
        ("m", {"external_base_url": "https://a.example", "credential": "other"},
         "no credential is called `other` in evalops.yaml", "add it: `credentials: {other: {env: …, origins: […]}}`"),
    ],
)  # fmt: skip
def test_messages(name: str, fields: dict[str, Any], message: str, hint: str | None) -> None:
    with pytest.raises(EvalopsError) as caught:
        found(name, **fields)
    (problem,) = caught.value.diagnostics
    assert problem.message.startswith(message)
    assert (problem.hint or "").startswith(hint or "")
    assert "hunter2" not in str(problem)


def test_a_bad_origin_binds_nothing_and_breaks_nothing() -> None:
    for bad in ("https://[", "https://a.example:99999", "a.example"):
        bound = Settings(credentials={"prod": Credential(name="prod", env="K", origins=(bad,))})
        with pytest.raises(EvalopsError, match="may not be sent to"):
            resolve(model("m", external_base_url="https://a.example", credential="prod"), bound, MARK)


def test_a_problem_stands_at_the_field_it_is_about() -> None:
    text = SPEC.replace("ollama/llama3.2", "m\n  external_base_url: https://a.example\n  credential: none")
    ((evaluation,), _) = spec.load(document.parse(text.encode(), "tone.yaml")[0][0], Settings(), str)
    assert [each.mark for each in endpoint.check(evaluation, Settings())] == [Mark("tone.yaml", 8, 3)]
    ((evaluation,), _) = spec.load(
        document.parse(text.replace("https", "http").encode(), "tone.yaml")[0][0], Settings(), str
    )
    assert [each.mark for each in endpoint.check(evaluation, Settings())] == [Mark("tone.yaml", 7, 3)]
