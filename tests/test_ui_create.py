"""A new evaluation by `evalops ui`, over real HTTP: uploads, the form and its YAML in step, and what is refused."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from apply_project import Folder
from hypothesis import given
from hypothesis import strategies as st
from repository import Repository
from serve_client import Client
from serve_process import KEY, Served
from ui_process import Ui, opened

from evalops import emit, layout, schema
from evalops.document import parse
from evalops.project import Project
from evalops.spec import Type
from evalops.ui import create_check, create_fields, create_start, create_text, create_upload

EVIL = "\"'><img src=x onerror=alert(1)></script><script>alert(2)</script>{{7*7}}\u202e"
ROWS = [
    {"id": f"r{n}", "question": f"question {n}", "response": f"answer {n}", "other": f"reply {n}", "tone": tone,
     "grade": 1 + n % 5, EVIL: EVIL}
    for n, tone in enumerate(["polite", "rude", "polite", "rude"])
]  # fmt: skip
SPEC = """\
# yaml-language-server: $schema=schemas/spec-v1.json
# What this is about.
version: 1
name: tone
type: classify  # the judge picks a label
dataset: {path: data/rows.jsonl, id: id}
judge:
  # Nobody is asked.
  model: embedded/smollm2-135m
  num_workers: 2
  system_template: |
    Is this polite?
    # not a comment
    {{ response }}
labels: [polite, rude]
pass_labels: [polite]
thresholds:
  pass_percentage: {min: 50}   # half of them
  no_regression: {margin: 2}
"""
JSON = {"accept": "application/json"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    made = Repository.make(tmp_path_factory.mktemp("create") / "project")
    (made.root / "data").mkdir()
    (made.root / "data/taken.jsonl").write_text('{"a": "1"}\n')
    made.folder.rows(ROWS, "data/rows.jsonl")
    (made.root / "schemas").mkdir()
    (made.root / "schemas/spec-v1.json").write_text(schema.text("spec"))
    (made.root / "inner").mkdir()
    (made.root / "inner/evalops.yaml").write_text("version: 1\n")
    (made.root / "link").symlink_to(made.root.parent)
    (made.root / "data/link.jsonl").symlink_to(made.root / "rows.jsonl")
    made.spec("strict")
    made.commit("a start")
    return made


@pytest.fixture(scope="module")
def ui(project: Repository) -> Iterator[Ui]:
    with opened(project.root) as running:
        yield running
        assert "a bug of evalops" not in running.said()
    assert not list((project.root / ".evalops").glob("*-*")), "something was left behind"


@pytest.fixture(scope="module")
def page(ui: Ui) -> Iterator[httpx.Client]:
    with ui.client() as client:
        client.headers.update(JSON)
        yield client


@pytest.fixture
def status(project: Repository) -> Iterator[Any]:
    """What git sees as new; gone again after the test."""
    yield lambda: sorted(line.split(None, 1)[1] for line in project.git("status", "--porcelain", "-uall").splitlines())
    project.git("clean", "--quiet", "-fd")
    project.git("checkout", "--quiet", "--", ".")


def put(page: httpx.Client, path: str, data: Any, **asked: str) -> httpx.Response:
    return page.put("/create/dataset", params={"path": path, **asked}, content=data)


def draft(page: httpx.Client, text: str = SPEC, path: str = "tone.yaml", **more: Any) -> dict[str, Any]:
    answer = page.post("/create/draft", json={"text": text, "path": path, "row": 1, "changes": None, **more})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def wrong(answer: dict[str, Any]) -> dict[str, str]:
    """The errors of a draft by their fields."""
    return {each["field"]: each["message"] for each in answer["problems"] if each["severity"] == "error"}


# --- step 1 ---


def test_what_is_uploaded_is_the_file_byte_for_byte(page: httpx.Client, project: Repository, status: Any) -> None:
    data = "\ufeffa,b\r\n1,ä\r\n".encode()
    answer = put(page, "data/new folder/mine.csv", data)
    assert answer.status_code == 201, answer.text
    assert answer.json()["location"] == "/create/dataset?path=data%2Fnew+folder%2Fmine.csv"
    assert (project.root / "data/new folder/mine.csv").read_bytes() == data
    assert status() == ['"data/new folder/mine.csv"']
    assert page.get(answer.json()["location"], headers={"accept": "text/html"}).status_code == 200


@pytest.mark.parametrize("path", [
    "", "../x.jsonl", "data/../../x.jsonl", "/etc/x.jsonl", "data//x.jsonl", "./x.jsonl", ".hidden.jsonl",
    ".evalops/x.jsonl", ".git/x.csv", "data/x.yaml", "evalops.yaml", "data/x", "data\\x.jsonl", "a\0b.jsonl", "a\nb.csv",
    "link/x.jsonl", "data/link.jsonl", "inner/x.jsonl", "tone.verdicts.jsonl", f"{'x' * 300}.jsonl",
])  # fmt: skip
def test_an_upload_stays_inside_the_project(page: httpx.Client, project: Repository, status: Any, path: str) -> None:
    for more in ({}, {"replace": "1"}):
        answer = put(page, path, b'{"a": "2"}\n', **more)
        assert answer.status_code == 400 and answer.json()["error"]["code"] in ("outside", "format"), answer.text
    assert status() == []
    assert not (project.root.parent / "x.jsonl").exists()
    assert json.loads((project.root / "rows.jsonl").read_text().splitlines()[0])["id"] == "r000"


def test_a_csv_without_commas_is_told(page: httpx.Client, status: Any) -> None:
    """As spreadsheets write it in half of the world; one with a comma in a cell cannot be read at all."""
    path = "data/semi.csv"
    assert put(page, path, "\ufefffrage;antwort\r\nWo?;Hier\r\n".encode()).status_code == 201
    shown = page.get("/create/dataset", params={"path": path}, headers={"accept": "text/html"}).text
    assert "has semicolons between its columns" in shown and "data/semi.csv:1" in shown
    broken = put(page, "data/other.csv", b"a;b\n1,5;2\n")
    assert broken.status_code == 422 and "has semicolons" in broken.text and "row 1 has 2 cells" in broken.text
    assert status() == [path]


def test_no_file_is_replaced_unasked(page: httpx.Client, project: Repository, status: Any) -> None:
    answer = put(page, "data/taken.jsonl", b'{"a": "2"}\n')
    assert answer.status_code == 409 and answer.json()["free"] == "data/taken-2.jsonl"
    assert (project.root / "data/taken.jsonl").read_text() == '{"a": "1"}\n'
    assert page.get("/create/name", params={"path": "data/taken.jsonl"}).status_code == 409
    assert put(page, "data/taken.jsonl", b'{"a": "2"}\n', replace="1").status_code == 201
    assert (project.root / "data/taken.jsonl").read_text() == '{"a": "2"}\n'
    assert status() == ["data/taken.jsonl"]


@pytest.mark.parametrize(("name", "path"), [
    ("mine.csv", "data/mine.csv"), ("../../etc/pass wd.jsonl", "data/pass-wd.jsonl"), (".jsonl", "data/jsonl.jsonl"),
    ("C:\\x\\Tabelle ä.CSV", "data/Tabelle-ä.csv"), ("<img src=x>.jsonl", "data/img-src-x.jsonl"), ("", "data/dataset.jsonl"),
    ("taken.jsonl", "data/taken-2.jsonl"), (EVIL, "data/script-7-7.jsonl"),
])  # fmt: skip
def test_any_file_gets_a_free_and_plain_name(page: httpx.Client, name: str, path: str) -> None:
    assert page.get("/create/name", params={"name": name}).json() == {"path": path}


@pytest.mark.parametrize(("data", "rows"), [
    (b'{"a": 1}\n{bad\n[1]\n{"a": 2}\n\n\xff\n', [2, 3, 5]), (b"", []), (b'{"a": 1}\n"x', [2]),
])  # fmt: skip
def test_rows_that_cannot_be_read_are_named_and_nothing_is_kept(
    page: httpx.Client, status: Any, data: bytes, rows: list[int]
) -> None:
    answer = put(page, "data/bad.jsonl", data)
    found = answer.json()["diagnostics"]
    assert answer.status_code == 422 and found, answer.text
    assert [each["message"].split()[1].strip(":") for each in found] == [str(row) for row in rows] or not rows
    assert status() == []


def test_an_upload_that_ends_early_leaves_nothing(ui: Ui, page: httpx.Client, status: Any) -> None:
    def body() -> Iterator[bytes]:
        yield b'{"a": 1}\n'
        raise httpx.ReadError("gone")

    with pytest.raises(httpx.ReadError):
        put(page, "data/half.jsonl", body())
    assert page.get("/create/name", params={"path": "data/half.jsonl"}).json() == {"path": "data/half.jsonl"}
    assert status() == []


def test_who_may_not_change_anything_uploads_nothing(page: httpx.Client, status: Any) -> None:
    for origin in ("http://evil.example", "null", ""):
        answer = page.put(
            "/create/dataset", params={"path": "data/x.jsonl"}, content=b'{"a":1}\n', headers={"origin": origin}
        )
        assert answer.status_code == 403
        assert (
            page.post("/create/spec", json={"text": SPEC, "path": "x.yaml"}, headers={"origin": origin}).status_code
            == 403
        )
    assert status() == []


def test_the_preview_says_what_is_in_a_dataset(page: httpx.Client) -> None:
    text = page.get("/create/dataset", params={"path": "data/rows.jsonl"}, headers={"accept": "text/html"}).text
    assert "of all 4 rows" in text and "1 to 5" not in text and "1 to 4" in text
    assert "polite" in text and "2 (50 %)" in text and "no row repeats" in text
    assert "<img" not in text and "alert(1)" in text and "\u202e" not in text
    assert "/create/evaluation?dataset=data%2Frows.jsonl&amp;type=score" in text


def test_the_first_page_lists_files_and_sets(page: httpx.Client) -> None:
    text = page.get("/create", headers={"accept": "text/html"}).text
    assert "data/rows.jsonl" in text and "math-benchmark-v1" in text and "data/link.jsonl" not in text
    assert "Together" not in text


@pytest.mark.slow
def test_a_file_of_the_service_is_looked_at_and_used(client: Client, server: Served, tmp_path: Path) -> None:
    file = client.upload([{"prompt": f"p{n}", "response": EVIL} for n in range(3)], "theirs.jsonl")
    settings = {"version": 1, "provider": "together", "providers": {"together": {"base_url": server.url}},
                "credentials": {"together": {"env": "TOGETHER_API_KEY", "origins": [server.url.removesuffix("/v1")]}}}  # fmt: skip
    root = tmp_path / "project"
    root.mkdir()
    (root / "evalops.yaml").write_text(json.dumps(settings))
    with (
        opened(root, environment={"TOGETHER_API_KEY": KEY, "XDG_CACHE_HOME": str(tmp_path)}) as ui,
        ui.client() as page,
    ):
        assert "/create/remote" in page.get("/create").text
        listed = page.get("/create/remote").text
        assert file in listed and "theirs.jsonl" in listed
        assert (
            page.get("/create/remote", params={"file": file}).status_code == 200
            and not (root / ".evalops/datasets").exists()
        )
        assert page.post("/create/remote", params={"file": "file-nothing"}).status_code in (404, 409)
        fetched = page.post("/create/remote", params={"file": file})
        assert fetched.status_code == 303, fetched.text
        preview = page.get(fetched.headers["location"])
        assert "of all 3 rows" in preview.text and "<img" not in preview.text
        way = html.unescape(preview.text.split('href="/create/evaluation?')[1].split('"')[0])
        form = page.get(f"/create/evaluation?{way}")
        begun = json.loads(form.text.split('id="begun">')[1].split("</script>")[0])["draft"]
        assert begun["problems"] == [] and file in begun["text"] and begun["row"]["cells"][0] == ["prompt", "p0"]
        saved = page.post("/create/spec", json={"text": begun["text"], "path": begun["path"]}, headers=JSON)
        assert saved.status_code == 201, saved.text
        assert "a bug of evalops" not in ui.said() and KEY not in form.text + listed + ui.said()


# --- step 2: form and YAML ---


@pytest.mark.parametrize("type_", ["classify", "score", "compare"])
def test_what_the_form_begins_with_is_valid_and_laid_out(project: Repository, type_: str) -> None:
    there = Project(project.root)
    value = create_start.of_dataset(there, "data/rows.jsonl", Type(type_))
    text = create_text.new(there, value, "rows.yaml")
    assert text == layout.laid_out(text.encode(), "rows.yaml")
    assert create_check.problems(there, text, "rows.yaml", most=None) == []
    assert value["type"] == type_ and (
        type_ != "compare" or {value["model_a"], value["model_b"]} == {"response", "other"}
    )


def test_a_change_of_the_form_leaves_the_rest_of_the_text(page: httpx.Client) -> None:
    found = draft(
        page, changes={"judge.model": "openai/gpt-4o-mini", "judge.temperature": "0.5", "description": "x: y"}
    )
    expected = SPEC.replace("  model: embedded/smollm2-135m", "  model: openai/gpt-4o-mini")
    expected = expected.replace("    {{ response }}\n", "    {{ response }}\n  temperature: 0.5\n")
    expected = expected.replace("name: tone\n", "name: tone\ndescription: 'x: y'\n")
    assert found["text"] == expected and found["problems"] == []
    assert found["more"] == ["thresholds.no_regression"]
    assert found["row"]["rendered"]["judge.system_template"]["text"] == "Is this polite?\n# not a comment\nanswer 0\n"


def test_another_type_drops_what_only_the_first_has(page: httpx.Client) -> None:
    changes = {"type": "score", "min_score": "1", "max_score": "five", "labels": [{"text": "polite", "passes": True}]}
    found = draft(page, changes=changes)
    assert "labels" not in found["text"] and "max_score: five\n" in found["text"]
    assert wrong(found)["max_score"] == "`max_score` must be a number, not `five`"
    back = draft(
        page,
        found["text"],
        changes={"type": "classify", "labels": [{"text": "a", "passes": False}, {"text": "b", "passes": True}]},
    )
    assert "labels: [a, b]\npass_labels: [b]\n" in back["text"] and "max_score" not in back["text"]


def test_a_candidate_is_a_column_or_a_model(page: httpx.Client) -> None:
    model = {"model_to_evaluate.how": "model", "model_to_evaluate.model": "m", "model_to_evaluate.model_source": "external",
             "model_to_evaluate.external_base_url": "https://llm.example.com/v1", "model_to_evaluate.max_tokens": "64",
             "model_to_evaluate.input_template": "{{ question }}\nshort!"}  # fmt: skip
    found = draft(page, changes=model)
    assert parsed(found["text"])["model_to_evaluate"] == {
        "model": "m", "model_source": "external", "external_base_url": "https://llm.example.com/v1", "max_tokens": 64,
        "input_template": "{{ question }}\nshort!"}  # fmt: skip
    assert found["row"]["rendered"]["model_to_evaluate.input_template"]["text"] == "question 0\nshort!"
    column = draft(
        page, found["text"], changes={"model_to_evaluate.how": "column", "model_to_evaluate.column": "response"}
    )
    assert "model_to_evaluate: response\n" in column["text"]
    assert "model_to_evaluate" not in draft(page, column["text"], changes={"model_to_evaluate.how": "none"})["text"]


@pytest.mark.parametrize(("changes", "field"), [
    ({"name": "bad name"}, "name"), ({"name": ""}, "name"), ({"name": "strict"}, "name"), ({"tags": "ok -bad"}, "tags"),
    ({"dataset.path": "nothing.jsonl"}, "dataset.path"), ({"dataset.path": "../x.jsonl"}, "dataset.path"),
    ({"dataset.path": ""}, "dataset.path"), ({"dataset.id": "nope"}, "dataset.id"), ({"gold": "nope"}, "gold"),
    ({"judge.model": ""}, "judge.model"), ({"judge.model": "unknown"}, "judge.model"),
    ({"judge.system_template": "{{ nope }}"}, "judge.system_template"),
    ({"judge.system_template": "{% if %}"}, "judge.system_template"), ({"judge.system_template": ""}, "judge.system_template"),
    ({"judge.max_tokens": "0"}, "judge.max_tokens"), ({"judge.temperature": "hot"}, "judge.temperature"),
    ({"judge.external_base_url": "http://evil.example/v1"}, "judge.external_base_url"),
    ({"judge.credential": "no such"}, "judge.credential"), ({"provider": "elsewhere"}, "provider"),
    ({"judge.how": "column", "judge.column": ""}, "judge.column"), ({"judge.how": "named", "judge.named": "x"}, "judge.named"),
    ({"labels": []}, "labels"), ({"labels": [{"text": "a", "passes": True}, {"text": "a", "passes": True}]}, "labels"),
    ({"thresholds": [{"metric": "kapa", "min": "1", "max": "", "on": "estimate"}]}, "thresholds"),
    ({"thresholds": [{"metric": "kappa", "min": "much", "max": "", "on": "lower"}]}, "thresholds"),
    ({"group_by": ["nope"]}, "group_by"), ({"metric": "nope"}, "metric"), ({"repeats": "1000"}, "repeats"),
    ({"model_to_evaluate.how": "column", "model_to_evaluate.column": "nope"}, "model_to_evaluate.column"),
    ({"model_to_evaluate.how": "model"}, "model_to_evaluate.model"),
    ({"type": "compare"}, "model_a.column"), ({"type": "score"}, "min_score"), ({"type": "nonsense"}, "type"),
])  # fmt: skip
def test_what_is_wrong_stands_at_its_field(page: httpx.Client, changes: dict[str, Any], field: str) -> None:
    assert field in wrong(draft(page, changes=changes)), draft(page, changes=changes)["problems"]


@pytest.mark.parametrize(
    "path", ["", "../x.yaml", "x.txt", ".x.yaml", "inner/x.yaml", "a/../b.yaml", "/x.yaml", "evalops.yaml"]
)
def test_a_spec_stays_where_evalops_looks_for_specs(page: httpx.Client, status: Any, path: str) -> None:
    answer = page.post("/create/spec", json={"text": SPEC, "path": path})
    assert answer.status_code == 422 and any(each["field"] == "path" for each in answer.json()["problems"])
    assert status() == []


def test_text_that_the_form_cannot_show_waits(page: httpx.Client) -> None:
    for text in ("a: [1\n", "- a\n", f"{SPEC}---\n{SPEC}", ""):
        found = draft(page, text, changes={"name": "other"})
        assert found["fields"] is None and found["reason"] and found["text"] == text
    anew = draft(page, "a: [1\n", is_anew=True, changes={"name": "other", "type": "classify", "judge.model": "m"})
    assert anew["text"].split("\n", 1)[1] == "version: 1\nname: other\ntype: classify\njudge:\n  model: m\n"


def test_a_column_without_a_name_for_templates_gets_one(page: httpx.Client) -> None:
    column = next(each for each in draft(page)["columns"] if each["name"] == EVIL)
    used = {
        "gold": EVIL,
        "group_by": ["tone", EVIL],
        "model_to_evaluate.how": "column",
        "model_to_evaluate.column": EVIL,
    }
    text = draft(page, changes=used)["text"]
    renamed = parsed(draft(page, text, changes={"dataset.columns": {"odd": EVIL}})["text"])
    assert renamed["gold"] == renamed["model_to_evaluate"] == "odd" and renamed["group_by"] == ["tone", "odd"]
    assert column["theirs"] == EVIL and column["variable"].isidentifier() and "\u202e" not in column["shown"]
    changes = {
        "dataset.columns": {column["variable"]: EVIL},
        "judge.system_template": f"{{{{ {column['variable']} }}}}",
    }
    found = draft(page, changes=changes)
    assert found["problems"] == [] and "alert(1)" in found["row"]["rendered"]["judge.system_template"]["text"]


def test_any_row_can_be_looked_at(page: httpx.Client) -> None:
    assert draft(page, row=4)["row"]["cells"][0] == ["id", "r3"]
    beyond = draft(page, row=9)["row"]
    assert beyond["note"] == "There is no row 9: the dataset has 4." and beyond["rendered"] == {}
    assert draft(page, row=-1)["row"]["number"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"text": 1, "path": "x"}',
        b'{"text": "", "path": "x", "changes": 3}',
        b'{"text": "", "path": "x.yaml", "is_anew": true, "changes": {"dataset.columns": [1]}}',
        b'{"text": "a: \\ud800", "path": "x.yaml"}',
        b'{"text": "", "path": "\\udfff.yaml"}',
        b"\xff",
    ],
)
def test_what_is_no_draft_is_refused(page: httpx.Client, body: bytes) -> None:
    assert page.post("/create/draft", content=body).status_code == 400


# --- saving ---


def test_what_is_saved_is_what_fmt_makes_and_nothing_else_changes(
    page: httpx.Client, project: Repository, status: Any
) -> None:
    put(page, "data/fresh.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    text = (
        SPEC.replace("rows.jsonl", "fresh.jsonl")
        .replace("name: tone\n", "")
        .replace("version: 1\n", "name:   fresh\nversion: 1\n")
    )
    answer = page.post("/create/spec", json={"text": text, "path": "fresh.yaml"})
    assert answer.status_code == 201, answer.text
    assert answer.json()["location"] == "/apply?only=fresh.yaml"
    assert status() == ["data/fresh.jsonl", "fresh.yaml"]
    assert (project.root / "fresh.yaml").read_text() == answer.json()["text"]
    assert project.run("fmt", "--check", "fresh.yaml").code == 0
    assert project.run("validate", "fresh.yaml").code == 0
    assert (project.root / "fresh.yaml").stat().st_mode & 0o777 == 0o644


def test_a_spec_is_replaced_only_as_it_was_seen(page: httpx.Client, project: Repository, status: Any) -> None:
    first = page.post("/create/spec", json={"text": SPEC, "path": "specs/deep/tone.yaml"})
    assert first.status_code == 201
    assert first.json()["text"].startswith("# yaml-language-server: $schema=../../schemas/spec-v1.json\n# What")
    text = SPEC.replace("Is this polite?", "Is it?")
    there = page.post("/create/spec", json={"text": text, "path": "specs/deep/tone.yaml"})
    assert there.status_code == 409 and there.json()["digest"] == first.json()["digest"]
    stale = page.post("/create/spec", json={"text": text, "path": "specs/deep/tone.yaml", "replaces": "0" * 64})
    assert stale.status_code == 409 and "changed meanwhile" in stale.json()["error"]["message"]
    assert "Is it?" not in project.read("specs/deep/tone.yaml")
    asked = {"text": text, "path": "specs/deep/tone.yaml", "replaces": there.json()["digest"]}
    assert page.post("/create/spec", json=asked).status_code == 201
    assert "Is it?" in project.read("specs/deep/tone.yaml") and status() == ["specs/deep/tone.yaml"]


def test_what_is_wrong_is_not_saved(page: httpx.Client, status: Any) -> None:
    answer = page.post("/create/spec", json={"text": SPEC.replace("classify", "score"), "path": "tone.yaml"})
    assert answer.status_code == 422 and answer.json()["problems"]
    assert status() == []


def test_a_spec_that_is_there_can_be_changed(page: httpx.Client) -> None:
    text = page.get("/create/evaluation?spec=strict.yaml", headers={"accept": "text/html"}).text
    assert '"path":"strict.yaml"' in text and '"base":"' in text
    for path in ("evalops.yaml", "../x.yaml", "data/rows.jsonl", ".git/config", "nothing.yaml"):
        assert page.get("/create/evaluation", params={"spec": path}).status_code in (404, 409)


# --- properties ---

LINES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), max_size=8)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-9, 9), LINES, st.just("a\nb\n"))
KEYS = st.sampled_from(["version", "name", "description", "tags", "type", "dataset", "judge", "labels", "pass_labels", "gold",
                        "min_score", "group_by", "model_a", "model_to_evaluate", "thresholds", "matrix", "judges", "path", "id",
                        "model", "system_template", "column", "temperature", "kappa", "min", "on", "no_regression"])  # fmt: skip
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=3) | st.dictionaries(KEYS, each, max_size=4), max_leaves=8
)
SPECS = st.dictionaries(KEYS, VALUES, min_size=1, max_size=8)


def parsed(text: str) -> Any:
    documents, problems = parse(text.encode(), "x.yaml")
    assert not problems, problems
    return documents[0].value


@pytest.mark.slow
@given(SPECS)
def test_what_the_form_shows_changes_nothing(spec: dict[str, Any]) -> None:
    shown = create_fields.shown(spec)
    assert create_fields.same(create_fields.changed(spec, shown.fields), spec)
    assert not set(shown.kept) & set(shown.fields)


@pytest.mark.slow
@given(SPECS, SPECS)
def test_a_rewritten_text_has_the_new_value_and_is_laid_out(before: dict[str, Any], after: dict[str, Any]) -> None:
    text = layout.laid_out(f"# a remark\n{emit.dump(before)}".encode(), "x.yaml")
    documents, _ = parse(text.encode(), "x.yaml")
    found = create_text.rewritten(documents[0], after, "x.yaml")
    assert create_fields.same(parsed(found), after) and "# a remark\n" in found
    assert layout.laid_out(found.encode(), "x.yaml") == found


FORMS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"name": LINES, "type": st.sampled_from(["classify", "score", "compare", ""])},
    optional={
        "description": LINES, "gold": LINES, "judge.model": LINES, "judge.system_template": st.just("a\n\n b\n"),
        "judge.temperature": LINES | st.floats(0, 2).map(str), "min_score": st.integers(-99, 99).map(str),
        "judge.how": st.sampled_from(["model", "named", "column"]), "judge.named": LINES, "judge.column": LINES,
        "model_a.how": st.sampled_from(["model", "column"]), "model_a.column": LINES, "model_a.model": LINES,
        "labels": st.lists(st.fixed_dictionaries({"text": LINES.filter(bool), "passes": st.booleans()}), unique_by=lambda each: each["text"]),
        "thresholds": st.lists(st.fixed_dictionaries({"metric": LINES.filter(bool), "min": st.just("1"), "max": st.just(""), "on": st.just("lower")}),
                               unique_by=lambda each: each["metric"]), "group_by": st.lists(LINES, unique=True),
    },
)  # fmt: skip


@pytest.mark.slow
@given(FORMS)
def test_what_a_form_says_comes_back_to_it(form: dict[str, Any]) -> None:
    spec = create_fields.changed({"version": 1}, form)
    text = create_text.new(Project(Path(__file__).parent), spec, "x.yaml")
    assert create_fields.same(parsed(text), spec)
    again = create_fields.changed(spec, form)
    assert create_fields.same(create_fields.changed(again, form), again)


@pytest.mark.slow
@given(st.text(), st.sampled_from(["", ".jsonl", ".csv", ".exe"]))
def test_every_suggested_name_may_be_used(name: str, suffix: str) -> None:
    project = Folder(Path(__file__).parent, "").root
    path = create_upload.suggested(Project(project), name + suffix)
    assert path.startswith("data/") and create_upload.refusal(Project(project), path) is None
