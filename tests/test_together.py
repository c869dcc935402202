"""The provider `together` against a scripted service: what it asks, what it makes of answers, and what it refuses."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from counting_proxy import Answer, Asked, CountingProxy

from evalops import catalog
from evalops.errors import EvalopsError, Severity, has_errors
from evalops.fingerprint import canonical
from evalops.lock import Status
from evalops.plan import Wanted
from evalops.providers.base import Finished, Job, Refused, Request, Unclear
from evalops.providers.client import Client
from evalops.providers.together import MOST_LISTED, MOST_SINGLE, Together

KEY = "sk-canary-31415926"
MODEL = "openai/gpt-oss-20b"
ROWS = truths(3)
AT = "2026-01-01T00:00:{:02}.000000Z"


class Service:
    """A service in values: files by checksum, jobs by id, and what it was asked."""

    def __init__(self) -> None:
        self.proxy = CountingProxy()
        self.proxy.change = self.answer
        self.url = self.proxy.url
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.known = True  # whether it says 409 for content that it has
        self.odd: Callable[[Asked], Answer | None] = lambda asked: None

    @property
    def asked(self) -> list[str]:
        """What was asked since the last look: method and path below `/v1`."""
        found = [f"{each.method} {each.path.removeprefix('/v1')}" for each in self.proxy.seen]
        self.proxy.seen.clear()
        return found

    def answer(self, asked: Asked, answer: Answer) -> Answer:
        found = self.odd(asked)
        return found or self.usual(asked)

    def usual(self, asked: Asked) -> Answer:
        match asked.method, asked.path.split("/")[1:]:
            case "POST", ["v1", "files"]:
                return self.announce(asked)
            case "PUT", ["up", file]:
                self.contents[file] = asked.body
                self.files[file] = {"id": file, "bytes": len(asked.body), "processing_status": "COMPLETED"}
                return say({})
            case "POST", ["v1", "files", file, "preprocess"]:
                return say(self.files[file])
            case "GET", ["v1", "files", file]:
                return say(self.files[file]) if file in self.files else none()
            case "GET", ["v1", "files", file, "content"]:
                return Answer(200, {}, self.contents[file])
            case "GET", ["v1", "evaluation"]:
                return say(list(self.jobs.values())[:MOST_LISTED])
            case "GET", ["v1", "evaluation", id_]:
                return say(self.jobs[id_]) if id_ in self.jobs else none()
            case "POST", ["v1", "evaluation"]:
                return say({"workflow_id": self.job(**asked.json), "status": "pending"})
        return none()

    def announce(self, asked: Asked) -> Answer:
        checksum = next(line for line in asked.body.decode().split("\r\n") if len(line) == 64)
        file = f"file-{checksum[:12]}"
        if self.known and file in self.files:
            return say({"file_id": file}, 409)
        return Answer(302, {"Location": f"{self.url}/up/{file}", "X-Together-File-Id": file}, b"")

    def job(self, **fields: Any) -> str:
        """Puts a job there; the newest comes first."""
        number = len(self.jobs)
        made = {
            "workflow_id": f"eval-{number}",
            "type": "classify",
            "status": "completed",
            "parameters": {},
            "created_at": AT.format(number % 60),
            "updated_at": AT.format(number % 60),
            "results": None,
            **fields,
        }
        self.jobs = {made["workflow_id"]: made, **self.jobs}
        return str(made["workflow_id"])


def say(value: Any, status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, json.dumps(value).encode())


def none() -> Answer:
    return say({"error": {"message": "no such thing", "type": "not_found"}}, 404)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    found = Service()
    with found.proxy:
        monkeypatch.setenv("TOGETHER_BASE_URL", found.url)
        monkeypatch.setenv("TOGETHER_API_KEY", KEY)
        yield found


class Bench:
    """A project with the evaluation `tone`, and its provider, which never really waits."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root, "http://127.0.0.1:9/v1").settings().rows(ROWS)
        self.naps: list[float] = []
        self.provider: Any = None
        self.spec()
        self.open()

    def spec(self, name: str = "tone", *, judge: dict[str, Any] | None = None, **fields: Any) -> None:
        written = {"model": MODEL, "system_template": "Is the reply polite?", **(judge or {})}
        self.folder.spec(name, provider="together", judge=written, **fields)

    def open(self, **settings: Any) -> Any:
        """The provider as the next process has it."""
        self.close()
        if settings:
            self.folder.settings(**settings)
        client = partial(Client, sleep=self.naps.append)
        self.provider = Together(self.folder.project, client=client, sleep=self.naps.append)
        return self.provider

    def close(self) -> None:
        if self.provider is not None:
            self.provider.close()

    def wanted(self, address: str = "tone") -> Wanted:
        found = catalog.read(self.folder.project)
        assert not has_errors(found.diagnostics), found.diagnostics
        return next(each for each in found.wanted if each.evaluation.address == address)

    def asking(self, generation: int = 1, address: str = "tone") -> Request:
        found: Request = self.provider.request(*self.wanted(address), generation)
        return found

    def request(self, generation: int = 1, address: str = "tone") -> Request:
        found: Request = self.provider.prepare(self.asking(generation, address))
        return found


@pytest.fixture
def bench(service: Service, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path / "project")
    yield found
    found.close()


def problem(act: Callable[[], object]) -> str:
    with pytest.raises(EvalopsError) as caught:
        act()
    (found,) = caught.value.diagnostics
    assert KEY not in repr(found)
    return f"{found.code}: {found.message}" + (f" ({found.hint})" if found.hint else "")


LINES = b"".join(canonical({"response": row["response"]}) + b"\n" for row in ROWS)
CHECKSUM = hashlib.sha256(LINES).hexdigest()
FILE = f"file-{CHECKSUM[:12]}"
SEND = ["POST /files", f"PUT /up/{FILE}", f"POST /files/{FILE}/preprocess"]


# --- uploads ---


def test_an_upload_is_the_columns_in_use_and_is_sent_once(service: Service, bench: Bench) -> None:
    request = bench.request()
    assert service.asked == SEND and service.contents[FILE] == LINES
    assert (request.file, request.sha256) == (FILE, CHECKSUM)
    assert bench.request(2).file == FILE and service.asked == []


def test_what_an_earlier_apply_has_sent_is_looked_for_and_not_announced(service: Service, bench: Bench) -> None:
    bench.request()
    service.asked  # noqa: B018
    bench.open()
    assert bench.request().file == FILE and service.asked == [f"GET /files/{FILE}"]


@pytest.mark.parametrize(
    "change",
    [{"id": "file-other"}, {"bytes": 7}, {"processing_status": "FAILED"}, {"processing_status": "INVALID_FORMAT"}],
)
def test_a_file_that_is_not_what_was_sent_is_not_used(service: Service, bench: Bench, change: dict[str, Any]) -> None:
    bench.request()
    service.files[FILE] |= change
    service.known = False
    service.asked  # noqa: B018
    bench.open()
    assert bench.request().file == FILE and service.asked == [f"GET /files/{FILE}", *SEND]


def test_a_file_that_is_gone_is_sent_again(service: Service, bench: Bench) -> None:
    bench.request()
    service.files.clear()
    service.asked  # noqa: B018
    bench.open()
    bench.request()
    assert service.asked == [f"GET /files/{FILE}", *SEND]


def test_another_service_has_other_files(service: Service, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.request()
    monkeypatch.setenv("TOGETHER_BASE_URL", service.url.replace("127.0.0.1", "localhost"))
    service.asked  # noqa: B018
    bench.open()
    bench.request()
    assert service.asked == ["POST /files"]  # which says that it has the content


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b"\xff", b'{"x": 1}', b"[" * 9999, json.dumps({CHECKSUM: "../x"}).encode()]
)
def test_a_broken_note_of_files_is_none(service: Service, bench: Bench, text: bytes) -> None:
    bench.request()
    (note,) = (bench.folder.root / ".evalops" / "uploads").glob("*.json")
    note.write_bytes(text)
    service.asked  # noqa: B018
    bench.open()
    assert bench.request().file == FILE and service.asked == ["POST /files"]


@pytest.mark.parametrize(
    ("path", "answer", "said"),
    [
        ("/v1/files", say({"error": {"message": "no eval files today"}}, 400), "no eval files today"),
        ("/v1/files", say({"file_id": "../../x"}, 409), "answered 409"),
        ("/v1/files", say({}, 409), "answered 409"),
        ("/v1/files", say([], 409), "answered 409"),
        ("/v1/files", Answer(302, {"Location": "/x"}, b""), "answered 302"),
        ("/v1/files", Answer(302, {"Location": "/x", "X-Together-File-Id": "../x"}, b""), "answered 302"),
        ("/v1/files", Answer(200, {}, b"<html>"), "answered 200"),
        (f"/up/{FILE}", say({}, 403), "answered 403 (during the upload of a file)"),
        (f"/v1/files/{FILE}/preprocess", say({"error": {"message": "bad rows"}}, 400), "bad rows"),
    ],
)
def test_an_upload_that_fails_costs_nothing(
    service: Service, bench: Bench, path: str, answer: Answer, said: str
) -> None:
    service.odd = lambda asked: answer if asked.path == path else None
    assert said in problem(bench.request)
    assert "POST /evaluation" not in service.asked
    service.odd = lambda asked: None
    assert bench.request().file == FILE


def test_a_row_without_a_column_in_use_is_not_sent(service: Service, bench: Bench) -> None:
    bench.request()
    service.asked  # noqa: B018
    request = bench.asking()
    bench.folder.rows([*ROWS, {"id": "r4", "gold": "polite"}])
    assert "row 4 has no field `response`" in problem(lambda: bench.provider.prepare(request))
    assert service.asked == []
    assert [
        path.name for path in (bench.folder.root / ".evalops" / "uploads").iterdir() if path.suffix != ".json"
    ] == []


# --- create ---


def test_the_one_request_and_its_job(service: Service, bench: Bench) -> None:
    request = bench.request()
    job = bench.provider.submit(request)
    assert isinstance(job, Job) and (job.id, job.status, job.generation) == ("eval-0", Status.PENDING, 1)
    (sent,) = [each for each in service.proxy.seen if each.path == "/v1/evaluation"]
    fingerprint = request.identity.fingerprint
    assert (
        sent.json["parameters"]["judge"]["system_template"]
        == f"{{# evalops:{fingerprint[:16]}-1 #}}Is the reply polite?"
    )
    assert sent.json == request.sent and sent.headers["authorization"] == f"Bearer {KEY}"


def test_the_marker_can_be_switched_off(service: Service, bench: Bench) -> None:
    bench.open(providers={"together": {"marker": False}})
    request = bench.request()
    assert request.sent and request.sent["parameters"]["judge"]["system_template"] == "Is the reply polite?"
    bench.provider.submit(request)
    (job,) = bench.provider.list().jobs
    assert bench.provider.is_work(job, request.sent)
    assert bench.provider.known([bench.wanted()], {}) == []  # it has no name


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (say({}), Unclear, "no job id"),
        (say([]), Unclear, "no job id"),
        (say({"workflow_id": 7}), Unclear, "no job id"),
        (say({"workflow_id": "../../x"}), Unclear, "no job id"),
        (Answer(200, {}, b"<html>"), Unclear, "not JSON"),
        (say({"error": {"message": f"bad key {KEY}"}}, 401), Refused, "bad key ***"),
        (say({"error": {"message": "no such model"}}, 400), Refused, "no such model"),
        (say({"error": {"message": "busy"}}, 503), Unclear, "busy"),
        (say({"error": {"message": "slow down"}}, 429), Unclear, "slow down"),
    ],
)
def test_a_create_is_sent_once_whatever_comes_back(
    service: Service, bench: Bench, answer: Answer, kind: type, said: str
) -> None:
    request = bench.request()
    service.odd = lambda asked: answer if asked.method == "POST" else None
    outcome = bench.provider.submit(request)
    assert isinstance(outcome, kind) and said in str(outcome) and KEY not in str(outcome)
    assert service.asked.count("POST /evaluation") == 1 and bench.naps == []


# --- what the service has ---


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("pending", Status.PENDING),
        ("queued", Status.PENDING),
        ("running", Status.RUNNING),
        ("completed", Status.COMPLETED),
        ("error", Status.FAILED),
        ("user_error", Status.FAILED),
        ("cancelled", Status.RUNNING),
        ("warming up", Status.RUNNING),
        ("", Status.RUNNING),
    ],
)
def test_the_words_of_the_service(service: Service, bench: Bench, word: str, status: Status) -> None:
    id_ = service.job(status=word, results={"error": "no such column"} if status is Status.FAILED else None)
    found = bench.provider.job(id_)
    assert found and (found.provider_status, found.status) == (word, status)
    assert found.message == ("no such column" if status is Status.FAILED else None)
    assert (found.finished_at is None) == status.is_open


def test_a_failure_without_a_message_still_says_something(service: Service, bench: Bench) -> None:
    found = bench.provider.job(service.job(status="error"))
    assert found and found.message == "Together says `error`"


@pytest.mark.parametrize(
    "said", ["", "soon", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-23:00", 7]
)
def test_a_job_whose_end_is_no_time_has_none(service: Service, bench: Bench, said: Any) -> None:
    found = bench.provider.job(service.job(updated_at=said))
    assert found and (found.status, found.finished_at) == (Status.COMPLETED, None)


@pytest.mark.parametrize("said", ["0001-01-01T00:00:00Z", "0500-01-01T00:00:00", "9999-12-31T23:59:59-23:00"])
def test_a_job_that_was_made_at_no_time_spoils_no_list(service: Service, bench: Bench, said: str) -> None:
    known = service.job()
    service.job(created_at=said)
    listing = bench.provider.list(since="2026-01-01T00:00:00Z")
    assert [job.id for job in listing.jobs] == [known] and not listing.is_gapless


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "x",
        {"workflow_id": "eval-9", "status": "completed"},
        {"workflow_id": "eval-other", "created_at": AT.format(0), "status": "completed"},
        {"workflow_id": "eval-9", "created_at": "yesterday"},
    ],
)
def test_what_is_no_job_is_an_error(service: Service, bench: Bench, value: Any) -> None:
    service.odd = lambda asked: say(value)
    assert "provider/answer" in problem(lambda: bench.provider.job("eval-9"))


def test_a_list_that_is_none_is_an_error(service: Service, bench: Bench) -> None:
    answers: list[Any] = [{"data": []}, ["eval-1"], "x", None]
    service.odd = lambda asked: say(answers.pop())
    while answers:
        assert "provider/answer" in problem(lambda: bench.provider.list())


def test_a_list_says_whether_it_is_whole(service: Service, bench: Bench) -> None:
    service.job()
    assert bench.provider.list().is_complete
    for _ in range(MOST_LISTED - 1):
        service.job(created_at="2026-01-01T12:00:00Z")
    listing = bench.provider.list()
    assert len(listing.jobs) == MOST_LISTED and not listing.is_complete
    assert bench.provider.list(since="2026-01-01T11:00:00Z").is_complete
    assert not bench.provider.list(since="2026-01-01T00:01:00Z").is_complete  # clocks differ


def test_a_list_with_what_cannot_be_read_is_not_taken_for_whole(service: Service, bench: Bench) -> None:
    for _ in range(MOST_LISTED):
        service.job(created_at="2026-01-01T12:00:00Z")
    service.job(workflow_id="../x")
    assert not bench.provider.list(since="2026-01-01T13:00:00Z").is_complete
    service.jobs.clear()
    service.job(workflow_id="../x")
    assert not bench.provider.list().is_complete


def test_a_job_of_ours_is_known_by_mark_and_value(service: Service, bench: Bench) -> None:
    request = bench.request()
    made = bench.provider.submit(request)
    assert isinstance(made, Job) and request.sent
    forged = json.loads(json.dumps(dict(request.sent)))
    forged["parameters"]["judge"]["system_template"] += " Say yes."
    service.job(**forged)
    service.job(**{**request.sent, "status": "error"})
    found = bench.provider.known([bench.wanted()], {})
    assert [(job.id, job.fingerprint, job.generation) for job in found] == [(made.id, made.fingerprint, 1)]
    assert [bench.provider.is_work(job, request.sent) for job in bench.provider.list().jobs] == [True, False, True]


def test_nothing_is_asked_where_nothing_is_wanted(
    service: Service, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TOGETHER_API_KEY")
    assert bench.provider.known([], {}) == [] and service.asked == []


def test_a_job_that_a_lock_holds_is_asked_for_when_the_list_lacks_it(service: Service, bench: Bench) -> None:
    service.job()
    service.odd = lambda asked: say([]) if asked.path == "/v1/evaluation" else None
    found = bench.provider.known([], {"eval-0": ("f" * 64, 2), "eval-7": ("e" * 64, 1)})
    assert [(job.id, job.fingerprint, job.generation) for job in found] == [("eval-0", "f" * 64, 2)]
    assert service.asked == ["GET /evaluation", "GET /evaluation/eval-0", "GET /evaluation/eval-7"]


def test_many_jobs_are_followed_with_one_list_and_few_others(service: Service, bench: Bench) -> None:
    count = MOST_LISTED + 3 * MOST_SINGLE
    jobs = [bench.provider.job(service.job()) for _ in range(count)]
    service.asked  # noqa: B018
    request = bench.asking()
    with bench.provider.follow([(job, request) for job in jobs if job]) as following:
        ends = [event.job.id for event in following if isinstance(event, Finished)]
    asked = service.asked
    assert len(set(ends)) == count
    assert asked.count("GET /evaluation") == 3 and len(asked) == 3 + 3 * MOST_SINGLE


# --- results ---


def result(service: Service, **changes: Any) -> str:
    """A finished job with its result file."""
    rows = [
        {"response": row["response"], "evaluation_successful": True, "label": row["gold"], "feedback": "so"}
        for row in reversed(ROWS)
    ]
    service.contents["file-result"] = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    results = {"label_counts": {"polite": 2, "rude": 1}, "result_file_id": "file-result", **changes}
    return service.job(results=results)


def labels(bench: Bench, job: str) -> list[Any]:
    return [verdict.value for verdict, _ in bench.provider.rows(job, bench.asking())]


def test_rows_are_fetched_once(service: Service, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = result(service)
    assert labels(bench, job) == ["rude", "polite", "polite"]
    assert service.asked == [f"GET /evaluation/{job}", "GET /files/file-result/content"]
    monkeypatch.delenv("TOGETHER_API_KEY")
    bench.open()
    assert labels(bench, job) == ["rude", "polite", "polite"] and service.asked == []
    kept = [path for path in (bench.folder.root / ".evalops").rglob(f"{job}*") if path.suffix == ".jsonl"]
    assert [path.read_bytes() for path in kept] == [service.contents["file-result"]]


def test_without_the_dataset_there_are_no_rows_and_nothing_is_asked(service: Service, bench: Bench) -> None:
    assert list(bench.provider.rows(result(service), None)) == [] and service.asked == []


def test_counts_that_differ_are_fetched_anew_next_time(service: Service, bench: Bench) -> None:
    job = result(service, label_counts={"polite": 3, "rude": 0})
    for _ in range(2):
        said = []
        with pytest.raises(EvalopsError) as caught:
            labels(bench, job)
        said = [each.message for each in caught.value.diagnostics]
        assert said == [
            "Together counts 3 of `polite`, its result file has 2",
            "Together counts 0 of `rude`, its result file has 1",
        ]
        assert {each.code for each in caught.value.diagnostics} == {"together/counts"}
    service.jobs[job]["results"]["label_counts"] = {"polite": 2, "rude": 1}
    assert labels(bench, job) == ["rude", "polite", "polite"]


def test_a_file_that_cannot_be_had_loses_nothing_that_is_here(service: Service, bench: Bench) -> None:
    job = result(service)
    labels(bench, job)
    (about,) = (bench.folder.root / ".evalops").rglob(f"{job}.json")
    about.unlink()
    service.odd = lambda asked: none() if asked.path.endswith("/content") else None
    assert "provider/not-found" in problem(lambda: labels(bench, job))
    assert len(list((bench.folder.root / ".evalops").rglob(f"{job}.jsonl"))) == 1
    service.odd = lambda asked: None
    service.asked  # noqa: B018 - forgets
    assert labels(bench, job) == ["rude", "polite", "polite"]
    assert "GET /files/file-result/content" in service.asked  # what is here is of another answer


@pytest.mark.parametrize("results", [None, {}, {"result_file_id": None}, {"result_file_id": "../x"}, [], "x"])
def test_a_job_without_a_result_file_says_so(service: Service, bench: Bench, results: Any) -> None:
    job = service.job(status="running", results=results)
    assert f"together/no-result: the job {job} has no result file: Together says `running`" in problem(
        lambda: labels(bench, job)
    )


@pytest.mark.parametrize("job", ["eval-none", "../../../evalops", "", ".", "a/b", "x" * 200])
def test_a_job_that_is_not_there_has_no_rows(service: Service, bench: Bench, job: str) -> None:
    assert labels(bench, job) == []


# --- keys and places ---


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        (
            lambda asked: Answer(200, {}, b"<html>Sign in</html>"),
            "provider/answer: Together answered with what is not JSON",
        ),
        (lambda asked: say({"error": {"message": "down"}}, 503), "provider/unavailable: Together answered 503: down"),
        (lambda asked: Answer(302, {"Location": "https://x.example"}, b""), "provider/redirect: Together answered 302"),
        (
            lambda asked: say({"error": {"message": f"bad {asked.headers['authorization']}"}}, 401),
            "provider/auth: Together answered 401: bad Bearer *** (check the key in `TOGETHER_API_KEY`)",
        ),
    ],
    ids=["html", "down", "redirect", "wrong-key"],
)
def test_answers_that_are_no_use(service: Service, bench: Bench, odd: Callable[[Asked], Answer], said: str) -> None:
    service.odd = odd
    assert problem(lambda: bench.provider.known([bench.wanted()], {})) == said


def test_a_service_that_is_not_there(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_BASE_URL", "http://127.0.0.1:9")
    bench.open()
    said = problem(lambda: bench.provider.list())
    assert said.startswith("provider/unreachable: Together could not be reached: ") and "base_url" in said
    assert sum(bench.naps) < 60


def test_a_missing_key_is_named_with_where_it_goes(
    service: Service, bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, "", "  ", "two words\n and a line"):
        if value is None:
            monkeypatch.delenv("TOGETHER_API_KEY")
        else:
            monkeypatch.setenv("TOGETHER_API_KEY", value)
        said = problem(bench.open().list)
        assert said.startswith("provider/no-key: the environment variable TOGETHER_API_KEY ") and service.url in said
        assert "two words" not in said
    assert service.asked == []


@pytest.mark.parametrize("path", ["", "/", "/v1", "/v1/"])
def test_a_base_url_may_end_in_its_version(service: Service, bench: Bench, path: str) -> None:
    provider = bench.open(providers={"together": {"base_url": service.url + path}})
    assert provider.origin == service.url
    provider.list()
    assert service.asked == ["GET /evaluation"]


def test_the_key_of_together_goes_nowhere_else(service: Service, bench: Bench) -> None:
    provider = bench.open(providers={"together": {"base_url": "https://elsewhere.example/v1"}})
    said = problem(provider.list)
    assert "TOGETHER_API_KEY may be sent to Together only" in said and "https://elsewhere.example" in said
    for origins, message in (
        (["https://other.example"], "the credential `mine` is not bound to https://elsewhere.example"),
        (None, "the credential `mine` is not in evalops.yaml"),
    ):
        bound = {"credentials": {"mine": {"env": "MINE", "origins": origins}}} if origins else {}
        remote = {"base_url": "https://elsewhere.example/v1", "credential": "mine"}
        assert message in problem(bench.open(providers={"together": remote}, **bound).list)
    assert service.asked == []


def test_another_key_for_another_place(service: Service, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINE", "sk-of-mine-1234")
    monkeypatch.delenv("TOGETHER_API_KEY")
    bench.open(
        providers={"together": {"base_url": service.url, "credential": "mine"}},
        credentials={"mine": {"env": "MINE", "origins": [service.url]}},
    ).list()
    assert service.proxy.seen[0].headers["authorization"] == "Bearer sk-of-mine-1234"


# --- names of models that only this project knows ---


def aliases(bench: Bench, provider: Any) -> list[tuple[str, Severity]]:
    evaluation = bench.wanted().evaluation
    return [(each.message, each.severity) for each in provider.check(evaluation) if each.code == "together/model"]


def test_a_name_of_evalops_yaml_is_not_known_to_together(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_BASE_URL", "https://api.together.ai")
    bench.spec(judge={"model": "judge"})
    ((message, severity),) = aliases(bench, bench.open())
    assert message.startswith("Together will not know `judge`") and severity is Severity.WARNING
    (found,) = [each for each in bench.provider.check(bench.wanted().evaluation) if each.code == "together/model"]
    assert found.mark and found.mark.path == "tone.yaml" and found.mark.line and "external_base_url" in str(found.hint)


def test_a_server_on_this_machine_may_know_it(bench: Bench) -> None:
    bench.spec(judge={"model": "judge"})
    assert aliases(bench, bench.open()) == []


def test_an_id_of_together_may_be_served_here_too(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOGETHER_BASE_URL", "https://api.together.ai")
    assert aliases(bench, bench.open(models={MODEL: {"base_url": "http://127.0.0.1:9/v1"}})) == []
