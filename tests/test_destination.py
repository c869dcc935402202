"""Where rows and keys go, as whoever reviews a plan sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from apply_project import Folder, truths
from conftest import Folder as Made
from model_server import serve

from evalops import catalog, destination
from evalops.destination import Destination
from evalops.plan import Wanted
from evalops.project import Project

HOUSE = {"env": "HOUSE_KEY", "origins": ["https://llm.example.com", "https://api.together.ai", "http://127.0.0.1:9"]}
CREDENTIALS = {"house": HOUSE, "other": {**HOUSE, "env": "OTHER_KEY"}}
JUDGE = {"model": "m", "system_template": "Is {{ response }} polite?"}


def wanted(folder: Made, judge: dict[str, Any], *, credentials: Any = CREDENTIALS, **fields: Any) -> Wanted:
    value = {
        "version": 1,
        "credentials": credentials,
        "models": {"here": {"base_url": "http://127.0.0.1:9/v1", "credential": "house"}},
    }
    spec = {
        "version": 1, "name": "tone", "type": "classify", "dataset": "data/rows.jsonl", "judge": {**JUDGE, **judge},
        "labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response", **fields,
    }  # fmt: skip
    project = folder.write({"evalops.yaml": json.dumps(value), "tone.yaml": json.dumps(spec)})
    found = catalog.read(project)
    assert not [each for each in found.diagnostics if each.is_error], found.diagnostics
    return found.wanted[0]


EXTERNAL = {"external_base_url": "https://llm.example.com/v1", "credential": "house"}
TOGETHER = Destination("https://api.together.ai", None, ("provider",))


@pytest.mark.parametrize(
    ("judge", "fields", "expected"),
    [
        ({"model": "openai/gpt-4o"}, {}, [Destination("https://api.openai.com", "openai", ("judge", "model"))]),
        (EXTERNAL, {}, [Destination("https://llm.example.com", "house", ("judge", "external_base_url"))]),
        ({"model": "here"}, {}, [Destination("http://127.0.0.1:9", "house", ("judge", "model"))]),
        ({"model": "embedded/file:m.gguf"}, {}, []),
        ({"model": "Qwen/Qwen3.5-9B"}, {"provider": "together"}, [TOGETHER]),
        (EXTERNAL, {"provider": "together"}, [TOGETHER, Destination("https://llm.example.com", "house", ("judge", "external_base_url"))]),
        (
            {"model": "openai/gpt-4o", "credential": "oa", "model_source": "external"},
            {"provider": "together"},
            [TOGETHER, Destination("https://api.openai.com", "oa", ("judge", "model"))],
        ),
    ],
)  # fmt: skip
def test_where_rows_go(
    folder: Made, home: Any, judge: dict[str, Any], fields: dict[str, Any], expected: list[Destination]
) -> None:
    origins = ["https://api.openai.com", "https://api.together.ai"]
    credentials = {**CREDENTIALS, "oa": {"env": "OA", "origins": origins}}
    folder.write({"m.gguf": b"GGUF"})
    found = wanted(folder, judge, credentials=credentials, **fields)
    assert destination.of(found) == expected
    assert destination.credentials(found) == {each.stage: each.credential for each in expected if each.credential}


# --- in a plan ---


def warnings(made: Folder) -> list[str]:
    found = made.run("plan", "--format", "json").json["diagnostics"]
    return [f"{each['path']}:{each['line']}: {each['message']}" for each in found if each["code"].startswith("plan/")]


@pytest.fixture
def made(tmp_path: Any) -> Any:
    with serve() as server:
        yield Folder(tmp_path, server.url).settings().rows(truths(4)).spec()


def external(made: Folder, host: str = "evil.example", **judge: Any) -> Folder:
    return made.spec(judge={"model": "m", "external_base_url": f"https://{host}/v1", **judge})


def test_a_host_that_nobody_has_named_is_marked(made: Folder) -> None:
    assert warnings(made) == []  # this machine
    assert warnings(made.spec(judge={"model": "openai/gpt-4o"})) == []  # a vendor's own
    external(made)
    expected = "rows of `tone` would go to https://evil.example, which neither evalops.yaml nor a lockfile names"
    assert warnings(made) == [f"tone.yaml:14: {expected}"]
    assert f"warning[plan/destination]: {expected}" in made.run("plan").err
    external(made).spec(
        "second", judge={"model": "m", "external_base_url": "https://evil.example/v1", "system_template": "Well?"}
    )
    assert warnings(made) == [f"second.yaml:14: {expected.replace('`tone`', '`second` and 1 more')}"]


def test_a_host_that_the_settings_name_is_known(made: Folder) -> None:
    origins = {"env": "K", "origins": ["https://evil.example"]}
    made.settings(models={"judge": {"base_url": "https://other.example/v1"}}, credentials={"k": origins})
    assert warnings(made) == [] and warnings(external(made)) == [] and warnings(external(made, "other.example")) == []
    assert len(warnings(external(made, "third.example"))) == 1


def test_a_host_that_changed_is_marked_whoever_names_it(made: Folder) -> None:
    made.applied()
    made.settings(models={"judge": {"base_url": "https://other.example/v1"}})
    assert made.actions() == {"tone": "rerun"}
    (found,) = warnings(made)
    assert "rows of `tone` would go to https://other.example, which they did not before" in found
    made.spec(judge={"model": "openai/gpt-4o"})
    assert "would go to https://api.openai.com, with the key `openai`, which they did not before" in warnings(made)[0]
    # Where nothing runs nothing is sent.
    made.settings(budget={"calls": 0})
    assert made.actions() == {"tone": "denied"} and warnings(made) == []


def test_a_key_that_changed_is_marked(made: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOUSE_KEY", "sk-house-0001")
    place = made.url.removesuffix("/v1")
    keys = {name: {"env": "HOUSE_KEY", "origins": [place]} for name in ("house", "second")}

    def settings(credential: str | None) -> None:
        model = {"base_url": made.url, **({"credential": credential} if credential else {})}
        made.settings(models={"judge": model}, credentials=keys)

    settings(None)
    made.applied()
    assert "credentials" not in made.entry()
    settings("house")
    assert made.actions() == {"tone": "noop"} and warnings(made) == []
    made.rows(truths(5)).applied()
    assert made.entry()["credentials"] == {"judge": "house"}
    settings("second")
    made.rows(truths(6))
    (found,) = warnings(made)
    assert found.startswith("tone.yaml:11: `tone` would send the key `second` to http://127.0.0.1:")
    assert found.endswith("; last time it sent the key `house`")
    made.applied()
    assert made.entry()["credentials"] == {"judge": "second"} and made.run("check").code == 0


def test_markdown_and_the_check_have_it_too(made: Folder) -> None:
    external(made)
    assert "https://evil.example" in json.dumps(made.run("check", "--format", "json").json["diagnostics"])
    done = made.run("plan", "--format", "markdown")
    assert (
        "| `tone.yaml:14` | warning | `plan/destination` | rows of `tone` would go to `https://evil.example`"
        in done.out
    )


def test_a_lockfile_of_before_says_nothing_of_keys(made: Folder) -> None:
    made.applied()
    text = (made.root / "tone.lock").read_text()
    assert '"credentials"' not in text and Project(made.root).locks()[1] == []
