"""The command line with the provider `together` against `evalops serve`, in processes of their own, end to end.

Between them stands a proxy that counts, and lies where a test asks for that. One server serves all tests of this
file; the rows of each test are its own, so that none finds the jobs of another.
"""

from __future__ import annotations

import csv
import json
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, Row, duels, truths
from command import Done
from counting_proxy import Answer, Asked, Change, CountingProxy
from model_server import Config, Server, serve
from serve_process import EXTERNAL, SERVERLESS, served
from together import Together

KEY = "sk-canary-of-together-2718281828"
TOKEN = "sk-canary-of-the-vendor-1618033"
PATIENCE = 30.0  # seconds, on a machine that is busy
COUNT = 6


@dataclass(frozen=True)
class Scene:
    """A project, and the service as it reaches it."""

    folder: Folder
    proxy: CountingProxy
    models: Server

    def rows(self, rows: list[dict[str, Any]], path: str = "rows.jsonl") -> None:
        """Writes rows that no other test has."""
        self.folder.rows([self.own(row) for row in rows], path)

    def own(self, row: Row) -> dict[str, Any]:
        return {key: f"{self.proxy.url} {value}" if key in _SALTED else value for key, value in row.items()}

    def spec(self, name: str = "tone", *, judge: Row | None = None, **fields: Any) -> None:
        written = {"model": SERVERLESS, "system_template": "Is the reply polite?", **(judge or {})}
        self.folder.spec(name, **{"provider": "together", "judge": written, "gold": "gold", **fields})

    def apply(self, *arguments: str) -> Done:
        return self.folder.apply(*arguments)

    def applied(self, *arguments: str) -> Done:
        return self.folder.applied(*arguments)

    def requests(self, act: Callable[[], object]) -> list[Asked]:
        """What an act asks of the service."""
        before = len(self.proxy.seen)
        act()
        return self.proxy.seen[before:]

    @property
    def job(self) -> str:
        return str(self.folder.entry()["job"])


_SALTED = {"response", "question"}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("serve")
    with serve() as models, served(folder, model_url=models.url, providers={"local": {"down_after": 0.5}}) as server:
        yield models, server.url


@pytest.fixture
def scene(backend: tuple[Server, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    models, url = backend
    models.config = Config()
    with CountingProxy(url) as proxy:
        monkeypatch.setenv("TOGETHER_BASE_URL", proxy.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        folder = Folder(tmp_path / "project", models.url)
        found = Scene(folder.settings(), proxy, models)
        found.rows(truths(COUNT))
        found.spec()
        yield found
        for path in (tmp_path / "project").rglob("*"):
            if path.is_file():
                assert KEY.encode() not in (data := path.read_bytes()) and TOKEN.encode() not in data, path


def said(rows: list[dict[str, Any]]) -> list[Any]:
    """The verdicts of what `evalops rows` prints."""
    return [row["verdict"]["value"] for row in rows]


def of_job(change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Change:
    """Lies about jobs, in the list and each alone; None is a job that is not there."""

    def answer(asked: Asked, answer: Answer) -> Answer:
        if asked.method != "GET" or not asked.path.startswith("/v1/evaluation") or answer.status != 200:
            return answer
        if asked.path == "/v1/evaluation":
            return answer.saying([found for job in answer.json if (found := change(job)) is not None])
        found = change(answer.json)
        return answer.saying({"error": {"message": "no such job"}}, 404) if found is None else answer.saying(found)

    return answer


# --- what a plan becomes ---


def test_create_writes_the_result_and_the_lock(scene: Scene) -> None:
    done = scene.applied()
    entry = scene.folder.entry()
    assert (entry["provider"], entry["origin"], entry["status"]) == ("together", scene.proxy.url, "completed")
    assert entry["job"].startswith("eval-") and entry["generation"] == 1
    assert entry["summary"]["label_counts"] == {"polite": 4, "rude": 2} and entry["summary"]["scored"] == COUNT
    assert entry["summary"]["metrics"]["accuracy"]["value"] == 1.0
    assert entry["summary"]["usage"]["calls"] is None and "Together" in entry["summary"]["usage"]["reason"]
    assert "tone" in done.out and "Locks written: tone.lock" in done.out
    assert scene.proxy.creates == 1
    upload = next(each for each in scene.proxy.seen if each.method == "PUT")
    assert [set(json.loads(line)) for line in upload.body.splitlines()] == [{"response"}] * COUNT
    assert "authorization" not in upload.headers


def test_what_is_in_step_asks_nobody_and_needs_no_key(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.applied()
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert scene.requests(scene.applied) == []
    assert scene.folder.actions() == {"tone": "noop"}


def test_another_evaluation_asks_nothing_about_this_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.folder.spec("here", judge={"model": "judge", "system_template": "Is it polite?"})
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert scene.requests(lambda: scene.applied("here")) == []
    assert scene.folder.entry("here")["provider"] == "local"


@pytest.mark.parametrize("state", [True, False], ids=["with-state", "fresh-clone"])
def test_without_its_lock_the_job_is_adopted(scene: Scene, state: bool) -> None:
    scene.applied()
    before = scene.folder.entry()
    (scene.folder.root / "tone.lock").unlink()
    (scene.folder.root / "tone.verdicts.jsonl").unlink()
    if not state:
        shutil.rmtree(scene.folder.root / ".evalops")
    asked = scene.requests(scene.applied)
    assert [each.method for each in asked if each.method != "GET"] == []
    after = scene.folder.entry()
    assert (after["job"], after["summary"]) == (before["job"], before["summary"])


def sdk_job(scene: Scene, **changes: Any) -> str:
    """A job of the official SDK over the rows of `tone`, as somebody would write it by hand."""
    client: Any = Together(api_key=KEY, base_url=scene.proxy.url)
    path = scene.folder.root.parent / "by-hand.jsonl"
    lines = (scene.folder.root / "rows.jsonl").read_text().splitlines()
    used = [{"response": json.loads(line)["response"]} for line in lines]
    path.write_text("".join(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n" for row in used))
    file = client.files.upload(path, purpose="eval").id
    parameters = {
        "input_data_file_path": file,
        "judge": {"model": SERVERLESS, "model_source": "serverless", "system_template": "Is the reply polite?"},
        "model_to_evaluate": "response",
        "labels": ["polite", "rude"],
        "pass_labels": ["rude"],
        **changes,
    }
    return str(client.evals.create(type="classify", parameters=parameters).workflow_id)


def test_a_job_of_the_sdk_is_adopted_whatever_it_calls_a_pass(scene: Scene) -> None:
    job = sdk_job(scene)
    asked = scene.requests(scene.applied)
    assert not [each for each in asked if (each.method, each.path) == ("POST", "/v1/evaluation")]
    assert scene.job == job and scene.folder.summary()["metrics"]["pass_percentage"]["value"] == pytest.approx(400 / 6)


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": ["rude", "polite"]},
        {"judge": {"model": SERVERLESS, "model_source": "serverless", "system_template": "Is the reply rude?"}},
    ],
    ids=["labels", "template"],
)
def test_a_job_that_could_give_other_verdicts_is_not_adopted(scene: Scene, changes: dict[str, Any]) -> None:
    job = sdk_job(scene, **changes)
    before = scene.proxy.creates
    scene.applied()
    assert scene.proxy.creates == before + 1 and scene.job != job


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"pass_labels": ["rude"]}, True),
        ({"pass_labels": ["rude"]}, False),
        ({"thresholds": {"accuracy": {"min": 0.5}}}, False),
        ({"gold": None}, True),
    ],
    ids=["pass_labels", "pass_labels-fresh-clone", "thresholds-fresh-clone", "gold"],
)
def test_to_grade_again_asks_nothing(scene: Scene, change: dict[str, Any], state: bool) -> None:
    scene.applied()
    job = scene.job
    scene.spec(**change)
    if not state:
        shutil.rmtree(scene.folder.root / ".evalops")
    assert scene.folder.actions() == {"tone": "regrade"}
    assert scene.requests(scene.applied) == []
    assert scene.job == job and scene.folder.actions() == {"tone": "noop"}
    if "pass_labels" in change:
        assert scene.folder.summary()["metrics"]["pass_percentage"]["value"] == pytest.approx(200 / 6)


def test_without_verdicts_file_the_rows_are_fetched_once(scene: Scene) -> None:
    scene.applied()
    (scene.folder.root / "tone.verdicts.jsonl").unlink()
    shutil.rmtree(scene.folder.root / ".evalops")
    scene.spec(pass_labels=["rude"])
    asked = scene.requests(scene.applied)
    assert [each.method for each in asked] == ["GET", "GET"] and asked[1].path.endswith("/content")
    (scene.folder.root / "tone.verdicts.jsonl").unlink()
    scene.spec(pass_labels=["polite"])
    assert scene.requests(scene.applied) == []


def test_a_rename_asks_nothing(scene: Scene) -> None:
    scene.applied()
    before = scene.folder.entry()
    (scene.folder.root / "tone.yaml").unlink()
    scene.spec("manner")
    assert scene.requests(scene.applied) == []
    after = scene.folder.entry("manner")
    assert (after["job"], after["summary"]) == (before["job"], before["summary"])
    assert not (scene.folder.root / "tone.lock").exists()


def test_another_template_is_a_rerun_that_names_field_and_line(scene: Scene) -> None:
    scene.applied()
    first = scene.job
    scene.spec(judge={"system_template": "Is the reply really polite?"})
    done = scene.folder.run("plan")
    text = (scene.folder.root / "tone.yaml").read_text().splitlines()
    line = next(number for number, each in enumerate(text, 1) if "system_template" in each)
    assert "~ tone" in done.out and "judge.system_template" in done.out and f"tone.yaml:{line}" in done.out
    scene.applied()
    assert scene.proxy.creates == 2 and scene.job != first and scene.folder.entry()["generation"] == 1
    uploads = [each for each in scene.proxy.seen if each.path == "/v1/files"]
    assert len(uploads) == 1  # the same rows are known by their digest


def test_the_same_work_at_two_addresses_is_paid_once(scene: Scene) -> None:
    scene.spec("twin")
    scene.applied()
    assert scene.proxy.creates == 1
    assert scene.folder.entry("twin")["job"] == scene.job


def test_a_rerun_is_a_second_job_for_the_same_work(scene: Scene) -> None:
    scene.applied()
    first = scene.job
    scene.applied("--rerun", "tone", "--reason", "a second opinion")
    assert scene.proxy.creates == 2 and scene.job != first
    assert (scene.folder.entry()["generation"], scene.folder.entry()["reason"]) == (2, "a second opinion")
    assert scene.requests(scene.applied) == []


# --- types and sources ---


def test_scores(scene: Scene) -> None:
    rows = [{"id": n, "response": f"reply {n} truth={n % 5 + 1}", "gold": n % 5 + 1} for n in range(10)]
    scene.rows(rows)
    fields: dict[str, Any] = {
        "type": "score",
        "min_score": 1,
        "max_score": 5,
        "pass_threshold": 3,
        "model_to_evaluate": "response",
    }
    scene.spec(judge={"system_template": "Grade it"}, **fields)
    scene.applied()
    summary = scene.folder.summary()
    assert summary["metrics"]["mean_score"]["value"] == 3.0 and summary["metrics"]["pass_percentage"]["value"] == 60
    scene.spec(judge={"system_template": "Grade it"}, **{**fields, "pass_threshold": 5})
    assert scene.requests(scene.applied) == []
    assert scene.folder.summary()["metrics"]["pass_percentage"]["value"] == 20
    assert said(scene.folder.rows_of()) == [row["gold"] for row in rows]


@pytest.mark.parametrize("both", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["both-orders", "one-order"])
def test_comparisons(scene: Scene, both: bool) -> None:
    scene.rows(duels(9))
    fields: dict[str, Any] = {} if both else {"disable_position_bias_correction": True}
    judge = {"system_template": "Which answer to {{ question }} is better?"}
    scene.spec(type="compare", judge=judge, model_a="first", model_b="second", gold=None, **fields)
    scene.applied()
    summary = scene.folder.summary()
    assert summary["choice_counts"] == {"A": 4, "B": 1, "Tie": 4}
    found = scene.folder.rows_of()
    assert [row["verdict"]["value"] for row in found[:4]] == ["Tie", "Tie", "A", "B"]
    assert all(("orders" in row["verdict"]) == both for row in found) or not both
    assert [row["source"]["question"].split()[-1] for row in found] == [f"q{number}" for number in range(9)]


def test_responses_are_written_by_a_model(scene: Scene) -> None:
    scene.rows([{"question": f"q{n} truth=polite", "gold": "polite"} for n in range(3)])
    writer = {
        "model": SERVERLESS,
        "system_template": "Be short",
        "input_template": "{{ question }}",
        "max_tokens": 50,
        "temperature": 0.5,
    }
    scene.spec(judge={"system_template": "Judge the answer to {{ question }}"}, model_to_evaluate=writer)
    scene.applied()
    assert scene.folder.summary()["scored"] == 3
    for row in scene.folder.rows_of():
        assert row["outputs"] and isinstance(row["outputs"][0], str)


def test_an_external_model_is_called_with_the_key_that_is_bound_to_both(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_KEY", TOKEN)
    scene.models.config = Config(key=TOKEN)
    origins = [scene.models.url.removesuffix("/v1"), scene.proxy.url]
    judge = {
        "model": EXTERNAL,
        "model_source": "external",
        "external_base_url": scene.models.url,
        "credential": "vendor",
    }
    scene.folder.settings(credentials={"vendor": {"env": "VENDOR_KEY", "origins": origins}})
    scene.spec(judge=judge)
    done = scene.applied("-v")
    assert scene.folder.summary()["scored"] == COUNT
    (sent,) = [each for each in scene.proxy.seen if (each.method, each.path) == ("POST", "/v1/evaluation")]
    assert sent.json["parameters"]["judge"]["external_api_token"] == TOKEN
    assert TOKEN not in done.out + done.err
    monkeypatch.delenv("VENDOR_KEY")
    assert scene.requests(scene.applied) == []


@pytest.mark.parametrize("bound", [[], ["vendor"], ["service"]], ids=["to-none", "to-the-vendor", "to-the-service"])
def test_a_key_that_is_not_bound_to_both_is_refused_by_plan(scene: Scene, bound: list[str]) -> None:
    origins = {"vendor": scene.models.url.removesuffix("/v1"), "service": scene.proxy.url}
    judge = {"model": EXTERNAL, "model_source": "external", "external_base_url": scene.models.url}
    if bound:
        named = [origins[each] for each in bound]
        scene.folder.settings(credentials={"vendor": {"env": "VENDOR_KEY", "origins": named}})
        judge["credential"] = "vendor"
    scene.spec(judge=judge)
    done = scene.folder.run("plan")
    assert done.code == 1 and "provider/credential" in done.err and "tone.yaml:" in done.err
    assert all(origins[each] in done.err for each in {"vendor", "service"} - set(bound))
    assert scene.requests(scene.apply) == []


# --- datasets and rows ---


def test_csv_rows_and_columns_that_were_not_uploaded(scene: Scene) -> None:
    rows = [{**scene.own(row), "category": f"c{number}"} for number, row in enumerate(truths(4))]
    with (scene.folder.root / "rows.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    scene.spec(dataset="rows.csv")
    scene.applied()
    found = scene.folder.rows_of()
    assert [row["source"] for row in found] == rows
    assert said(found) == [row["gold"] for row in rows]
    assert all(row["verdict"]["reason"] for row in found)


def test_equal_rows_have_a_verdict_each(scene: Scene) -> None:
    rows = truths(2) * 3
    scene.rows([{**row, "id": f"n{number}"} for number, row in enumerate(rows)])
    scene.applied()
    assert scene.folder.summary()["scored"] == 6
    found = scene.folder.rows_of()
    assert [row["source"]["id"] for row in found] == [f"n{number}" for number in range(6)]
    assert said(found) == [row["gold"] for row in rows]


def test_results_in_another_order_belong_to_their_rows(scene: Scene) -> None:
    def reversed_(asked: Asked, answer: Answer) -> Answer:
        if not asked.path.endswith("/content"):
            return answer
        return answer._replace(body=b"\n".join(reversed(answer.body.splitlines())) + b"\n")

    scene.proxy.change = reversed_
    scene.applied()
    assert said(scene.folder.rows_of()) == [row["gold"] for row in truths(COUNT)]
    assert scene.folder.summary()["metrics"]["accuracy"]["value"] == 1.0


def test_rows_without_a_verdict_are_counted_and_shown(scene: Scene) -> None:
    rows = truths(COUNT)
    rows[3]["response"] += " long" * 3000
    scene.rows(rows)
    scene.models.config = Config(context=6000)
    scene.applied()
    summary = scene.folder.summary()
    assert (summary["scored"], summary["errors"]) == (COUNT - 1, 1)
    (row,) = [row for row in scene.folder.rows_of() if row["verdict"]["status"] != "scored"]
    assert row["source"]["id"] == "r3"
    assert "r3" in scene.folder.run("rows", "tone", "--status", "error", "--format", "csv").out
    assert scene.requests(lambda: scene.folder.rows_of()) == []


def test_rows_of_another_dataset_are_not_joined(scene: Scene) -> None:
    scene.applied()
    scene.rows(truths(COUNT + 1))
    before = len(scene.proxy.seen)
    done = scene.folder.run("rows", "tone")
    assert done.code == 1 and "rows/changed" in done.err and "--rerun" not in done.err
    assert len(scene.proxy.seen) == before


def test_counts_that_do_not_add_up_are_an_error_that_says_how(scene: Scene) -> None:
    def lie(job: dict[str, Any]) -> dict[str, Any]:
        if job["results"]:
            job["results"]["label_counts"] = {"polite": 5, "rude": 1}
        return job

    scene.proxy.change = of_job(lie)
    done = scene.apply()
    assert done.code == 1
    assert "Together counts 5 of `polite`, its result file has 4" in done.err
    assert "Together counts 1 of `rude`, its result file has 2" in done.err
    assert scene.folder.entry()["job"] and not scene.folder.entry().get("summary")
    scene.proxy.change = None
    scene.applied()
    assert scene.proxy.creates == 1 and scene.folder.summary()["scored"] == COUNT


@pytest.mark.parametrize("cut", ["missing", pytest.param("foreign", marks=pytest.mark.slow)])
def test_results_that_are_not_those_of_the_rows_are_an_error(scene: Scene, cut: str) -> None:
    def shorten(asked: Asked, answer: Answer) -> Answer:
        if not asked.path.endswith("/content"):
            return answer
        lines = answer.body.splitlines()
        lines = lines[:-1] if cut == "missing" else [*lines, lines[0].replace(b"reply", b"answer")]
        return answer._replace(body=b"\n".join(lines) + b"\n")

    scene.proxy.change = shorten
    done = scene.apply()
    assert done.code == 1 and "together/results" in done.err
    wanted = {"missing": "of 6 rows, 1 have no result: row", "foreign": "of 7 results, 1 belong to no row: line 7"}
    assert wanted[cut] in done.err
    scene.proxy.change = None
    scene.applied()
    assert scene.proxy.creates == 1


# --- jobs that do not end well ---


def failing(job: dict[str, Any]) -> dict[str, Any]:
    return {**job, "status": "user_error", "results": {"error": "Unsupported dataset column(s): ['category']."}}


def test_a_failed_job_says_why_and_is_never_sent_again_by_itself(scene: Scene) -> None:
    scene.proxy.change = of_job(failing)
    done = scene.apply()
    assert done.code == 1 and "Unsupported dataset column(s): ['category']." in done.err
    assert "another job, which is paid" in done.err and "--retry-failed" in done.err
    rows = scene.folder.run("rows", "tone")
    assert rows.code == 1 and "has no result file: Together says `user_error`" in rows.err
    assert scene.folder.entry()["status"] == "failed"
    again = scene.apply()
    assert again.code == 1 and "! tone" in again.out + again.err
    assert "Unsupported dataset column(s)" in again.out + again.err
    assert scene.folder.actions() == {"tone": "failed"}
    assert scene.proxy.creates == 1


def test_a_failed_job_is_tried_again_as_another_one(scene: Scene) -> None:
    scene.proxy.change = of_job(failing)
    scene.apply()
    first = scene.job
    scene.proxy.change = of_job(lambda job: failing(job) if job["workflow_id"] == first else job)
    scene.applied("--retry-failed")
    assert scene.proxy.creates == 2
    entry = scene.folder.entry()
    assert (entry["generation"], entry["status"]) == (2, "completed") and entry["job"] != first
    assert scene.requests(scene.applied) == []


def running(job: dict[str, Any]) -> dict[str, Any]:
    return {**job, "status": "running", "results": None}


def stopped(scene: Scene, *, polls: int = 2, number: signal.Signals = signal.SIGINT) -> Done:
    """An apply in a process of its own, stopped while it waits for its job."""
    process = scene.folder.start()
    until = time.monotonic() + PATIENCE

    def polled() -> int:
        seen = list(scene.proxy.seen)
        made = [place for place, each in enumerate(seen) if (each.method, each.path) == ("POST", "/v1/evaluation")]
        return len(seen) - made[-1] - 1 if made else 0

    while polled() < polls:
        assert process.poll() is None and time.monotonic() < until, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return Done(process.returncode, out, err)


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_ctrl_c_leaves_the_job_and_says_how_to_go_on(scene: Scene, number: signal.Signals) -> None:
    scene.proxy.change = of_job(running)
    done = stopped(scene, number=number)
    assert done.code == 130 and "to go on:\n  evalops --project" in done.err and done.err.rstrip().endswith("apply")
    assert KEY not in done.out + done.err
    entry = scene.folder.entry()
    assert entry["job"] and entry["status"] == "running"
    assert scene.folder.actions() == {"tone": "resume"}
    scene.proxy.change = None
    scene.applied()
    assert scene.proxy.creates == 1 and scene.folder.entry()["status"] == "completed"


def test_a_job_that_is_no_longer_there_is_shown_and_not_paid_again(scene: Scene) -> None:
    scene.folder.settings(providers={"together": {"visibility_lag": 0}})
    scene.proxy.change = of_job(running)
    stopped(scene)
    gone = scene.job
    scene.proxy.change = of_job(lambda job: None if job["workflow_id"] == gone else job)
    done = scene.apply()
    assert done.code == 1 and "no longer has the job" in done.err
    assert scene.folder.actions() == {"tone": "failed"}
    again = scene.apply()
    assert again.code == 1 and "! tone" in again.out + again.err
    assert scene.proxy.creates == 1
    scene.applied("--retry-failed")
    assert scene.proxy.creates == 2 and scene.folder.entry()["generation"] == 2


def test_a_status_that_nobody_knows_is_shown_and_waited_for(scene: Scene) -> None:
    polls = 0

    def odd(job: dict[str, Any]) -> dict[str, Any]:
        nonlocal polls
        polls += 1
        return job if polls > 3 else {**job, "status": "warming_up", "results": None}

    scene.proxy.change = of_job(odd)
    scene.applied()
    assert scene.proxy.creates == 1 and scene.folder.entry()["status"] == "completed"


# --- keys and places ---


def test_a_missing_key_is_named_before_anything_is_sent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert scene.requests(lambda: _refused(scene, "provider/no-key", "TOGETHER_API_KEY")) == []
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    scene.applied()
    assert scene.proxy.creates == 1


def test_a_wrong_key_is_named_and_not_shown(scene: Scene) -> None:
    def refuse(asked: Asked, answer: Answer) -> Answer:
        said = f"Invalid API key: {asked.headers['authorization']}"
        return answer.saying({"error": {"message": said, "type": "invalid_request_error"}}, 401)

    scene.proxy.change = refuse
    _refused(scene, "provider/auth", "`TOGETHER_API_KEY`")
    scene.proxy.change = None
    scene.applied()
    assert scene.proxy.creates == 1


def test_the_address_may_end_in_its_version(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_BASE_URL", scene.proxy.url + "/v1")
    scene.applied()
    monkeypatch.setenv("TOGETHER_BASE_URL", "https://elsewhere.example")
    scene.folder.settings(providers={"together": {"base_url": scene.proxy.url}})
    assert scene.folder.actions() == {"tone": "noop"}
    assert {each.path.split("/")[1] for each in scene.proxy.seen if each.method != "PUT"} == {"v1"}


@pytest.mark.slow  # a service that cannot be reached is asked six times, with pauses
@pytest.mark.parametrize("flaw", ["down", "html"])
def test_a_service_that_cannot_be_used_loses_nothing(scene: Scene, flaw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if flaw == "down":
        monkeypatch.setenv("TOGETHER_BASE_URL", "http://127.0.0.1:9")
        _refused(scene, "provider/unreachable", "could not be reached")
        monkeypatch.setenv("TOGETHER_BASE_URL", scene.proxy.url)
    else:
        scene.proxy.change = lambda asked, answer: answer._replace(status=200, body=b"<html>Sign in</html>")
        _refused(scene, "provider/answer", "not JSON")
        scene.proxy.change = None
    scene.applied()
    assert scene.proxy.creates == 1


def _refused(scene: Scene, code: str, text: str) -> None:
    done = scene.apply()
    assert done.code == 1 and code in done.err and text in done.err
    assert KEY not in done.out + done.err and "Traceback" not in done.err
    assert not (scene.folder.root / "tone.lock").exists()
