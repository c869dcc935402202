"""The rules of the one paid request, piece by piece: what is written when, what a look at the service may conclude."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from conftest import Folder
from together_service import Behaviour, TogetherService

from evalops import catalog, planning
from evalops import once as onces
from evalops.errors import EvalopsError
from evalops.journal import Intent, Journal
from evalops.lock import Status
from evalops.once import Once, Outcome, Unsent
from evalops.plan import Action, Change
from evalops.project import Project
from evalops.providers.base import Job, Listing, Refused, Request, Unclear
from evalops.providers.client import Client
from evalops.providers.together import Together
from evalops.sending import Sending

LAG = 900.0
SPEC = """\
version: 1
name: {name}
type: classify
provider: together
dataset: data/rows.jsonl
judge: {{model: Qwen/Qwen3.5-9B, system_template: 'Polite? {name}'}}
model_to_evaluate: response
labels: [polite, rude]
pass_labels: [polite]
"""


class Bench:
    """One project at a service, with the journal of a run; `again` is the next run."""

    def __init__(self, project: Project, service: TogetherService) -> None:
        self.project, self.service = project, service
        self.wanted = {each.evaluation.address: each for each in catalog.read(project).wanted}
        self._start()

    def _start(self) -> None:
        self.provider = Together(self.project, lambda *args, **more: Client(*args, **more, sleep=lambda seconds: None))
        providers = {"together": self.provider}
        self.journal = Journal.open(self.project.state / planning.JOURNAL, clock=planning.clock(providers.values))
        self.once = Once(journal=self.journal, providers=providers, claimed=set())

    def again(self) -> Bench:
        """As if the process had ended here."""
        self.close()
        self._start()
        return self

    def close(self) -> None:
        self.journal.close()
        self.provider.close()

    def request(self, name: str = "tone", generation: int = 1) -> Request:
        evaluation, identity = self.wanted[name]
        return self.provider.request(evaluation, identity, generation)

    def send(self, name: str = "tone", generation: int = 1) -> Outcome:
        change = Change(
            address=name, action=Action.CREATE, lock=f"{name}.lock", wanted=self.wanted[name], generation=generation
        )
        sending: Sending[str, Outcome] = Sending(1)
        sending.start(name, self.once.send(self.provider, self.request(name, generation), change, "digest"))
        return sending.next()[1]

    def states(self, name: str = "tone") -> list[str]:
        """Where the generations of an evaluation stand."""
        fingerprint = self.wanted[name].identity.fingerprint
        return [str(each.state) for key, each in self.journal.intents.items() if key.fingerprint == fingerprint]

    @property
    def intent(self) -> Intent:
        (found,) = self.journal.intents.values()
        return found


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TogetherService]:
    with TogetherService() as running:
        monkeypatch.setenv("TOGETHER_API_KEY", "sk-of-a-test")
        monkeypatch.setenv("TOGETHER_BASE_URL", running.url)
        yield running


@pytest.fixture
def bench(folder: Folder, service: TogetherService) -> Iterator[Bench]:
    names = ["tone", *(f"more{number}" for number in range(60))]
    found = Bench(folder.write({f"{name}.yaml": SPEC.format(name=name) for name in names}), service)
    yield found
    found.close()


def test_a_job_is_written_down_before_and_after(bench: Bench) -> None:
    outcome = bench.send()
    assert isinstance(outcome, Job) and bench.intent.job == outcome.id == bench.service.ledger[0]["ids"][0]
    assert bench.states() == ["created"]
    bench.once.locked(bench.provider, bench.request(), "tone.lock", "digest")
    bench.once.locked(bench.provider, bench.request(), "other.lock", "digest")  # two addresses with the same work
    assert bench.states() == ["locked"] and bench.once.unknown() == {}


def test_what_was_sent_is_known_by_value_and_holds_no_marker_of_another(bench: Bench) -> None:
    bench.send()
    assert bench.intent.parameters == bench.service.ledger[0]["body"]


def test_a_refusal_may_be_sent_again(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["422"]))
    assert isinstance(bench.send(), Refused) and bench.states() == ["refused"]
    assert isinstance(bench.send(), Job) and len(bench.service.ledger) == 1


@pytest.mark.parametrize("word", ["502+", "drop+", "evil-id+", "409+"])
def test_a_lost_answer_is_looked_up(bench: Bench, word: str) -> None:
    bench.service.behave(Behaviour(create=[word]))
    assert isinstance(bench.send(), Unclear) and bench.states() == ["ambiguous"]
    (found,) = bench.once.look(bench.provider).values()
    assert [found.id] == bench.service.ledger[0]["ids"]
    assert bench.states() == ["adopted"] and bench.service.asked["create"] == 1


def test_a_lost_answer_that_no_list_shows_stays_open(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], lag=LAG / 2))
    assert isinstance(bench.send(), Unclear) and bench.once.look(bench.provider) == {}
    assert bench.states() == ["ambiguous"]
    assert isinstance(bench.send(), Unclear) and bench.service.asked["create"] == 1  # nor is it sent again
    assert list(bench.once.unknown()) == [(bench.wanted["tone"].identity.fingerprint, 1)]
    bench.again().once.recover()
    assert bench.states() == ["ambiguous"]
    bench.service.behave(advance=LAG / 2 + 1)
    bench.again().once.recover()
    assert bench.states() == ["adopted"] and list(bench.once.paid().values()) == bench.service.ledger[0]["ids"]


@pytest.mark.parametrize(("waited", "state"), [(LAG - 10, "ambiguous"), (LAG + 10, "absent")])
def test_absence_is_proven_by_the_lists_and_the_clock_of_the_service(bench: Bench, waited: float, state: str) -> None:
    bench.service.behave(Behaviour(create=["502"]))
    bench.send()
    bench.service.behave(advance=waited)
    bench.again().once.recover()
    assert bench.states() == [state]


@pytest.mark.parametrize("ahead", [-86400.0, -3600.0, 3600.0, 86400.0])
def test_the_service_may_live_at_another_time(bench: Bench, ahead: float) -> None:
    bench.service.behave(Behaviour(create=["502+"], lag=LAG / 2), advance=ahead)
    assert isinstance(bench.send(), Unclear)
    bench.again().once.recover()
    assert bench.states() == ["ambiguous"]
    bench.service.behave(advance=LAG + 10)
    bench.again().once.recover()
    assert bench.states() == ["adopted"]


def test_a_service_that_cannot_be_asked_leaves_it_open(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], list=["ok", *["500"] * 20]))
    outcome = bench.send()
    assert isinstance(outcome, Unclear) and "answered 502" in outcome.why
    with pytest.raises(EvalopsError, match="answered 500"):
        bench.once.look(bench.provider)
    bench.again().once.recover()
    assert bench.once.down == {"together"} and bench.states() == ["ambiguous"]
    assert [each.code for each in bench.once.diagnostics] == ["provider/unavailable"]


def test_a_crash_before_the_request_is_a_doubt_too(bench: Bench) -> None:
    request = bench.provider.prepare(bench.request())
    key = onces.key_of(bench.provider, request)
    bench.journal.intent(key, address="tone", lock="tone.lock", plan="digest")
    bench.journal.uploaded(
        key, file=request.file or "", sha256=request.sha256 or "", parameters=dict(request.sent or {})
    )
    assert bench.again().once.unknown() == {}
    assert isinstance(bench.send(), Job)  # not sent before: it begins anew


def test_a_job_of_another_client_is_taken_once(bench: Bench) -> None:
    request = bench.provider.prepare(bench.request())
    body = dict(request.sent or {})
    first, second = bench.service.place(body, age=7200), bench.service.place(body, age=3600)
    outcome = bench.send()
    assert isinstance(outcome, Job) and outcome.id == first and bench.states() == ["adopted"]
    bench.again().once.claimed.add(first)
    assert isinstance(bench.send("more0"), Job) and bench.service.asked["create"] == 1
    assert second not in bench.once.claimed


def test_a_rerun_wants_a_job_of_its_own(bench: Bench) -> None:
    bench.send()
    bench.once.locked(bench.provider, bench.request(), "tone.lock", "digest")
    again = bench.send(generation=2)
    assert isinstance(again, Job) and len({each["work"] for each in bench.service.ledger}) == 2
    bench.again().once.wanted = {(bench.wanted["tone"].identity.fingerprint, 1)}
    (told,) = bench.once.left_over()
    assert told.code == "apply/left-over" and again.id in told.message and "--rerun" in (told.hint or "")


def test_a_paid_job_that_nobody_wants_any_more_is_named(bench: Bench) -> None:
    job = bench.send()
    assert isinstance(job, Job)
    assert bench.again().once.left_over() == []  # what is wanted is not known yet
    bench.once.wanted = set()
    assert [job.id in each.message for each in bench.once.left_over()] == [True]
    bench.once.wanted = {(bench.wanted["tone"].identity.fingerprint, 1)}
    assert bench.once.left_over() == []


def test_two_matching_jobs_are_told_of(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["twice+"], lag=10))
    assert isinstance(bench.send(), Unclear)
    bench.service.behave(advance=20)
    bench.again().once.recover()
    first, second = bench.service.ledger[0]["ids"]
    assert bench.intent.job == first
    (told,) = bench.once.diagnostics
    assert told.code == "apply/twice" and second in told.message


def test_jobs_pause_before_an_open_one_could_leave_the_list(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502+"], lag=LAG / 2))
    assert isinstance(bench.send(), Unclear)
    outcomes = [bench.send(f"more{number}") for number in range(55)]
    assert [isinstance(each, Job) for each in outcomes] == [True] * onces.MOST_BEHIND + [False] * (
        55 - onces.MOST_BEHIND
    )
    bench.again().once.recover()
    assert bench.send("more58") == Unsent()  # the next run does not begin to count anew
    bench.service.behave(advance=LAG + 10)
    bench.again().once.recover()
    assert bench.states() == ["adopted"] and isinstance(bench.send("more58"), Job)


# --- what a list proves ---


@pytest.mark.slow
def test_a_list_is_as_old_as_its_question(bench: Bench) -> None:
    """It may have been made long before its answer is whole, and a job meanwhile."""
    bench.provider.list()
    bench.service.behave(Behaviour(list=["slow"]))
    asked = bench.provider.time()
    threading.Timer(2.0, bench.service.go_on).start()
    at = datetime.fromisoformat(bench.provider.list().at)
    assert at < asked + timedelta(seconds=1.1) < bench.provider.time()  # a `Date` is cut to seconds


def job(name: str) -> Job:
    return Job(
        id=name,
        fingerprint="",
        generation=1,
        status=Status.PENDING,
        provider_status="",
        created_at="2026-01-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    ("shown", "after", "is_gapless", "is_complete", "is_proof"),
    [
        (["c", "b", "a"], "b", True, True, True),
        (["c", "b", "a"], "b", True, False, True),  # cut behind what was there before: no matter
        (["c", "b", "a"], "b", False, False, False),  # in no order, and more than it shows
        (["c"], "b", True, True, False),  # it should have shown `b`: it is cut, whatever it says
        ([], "b", True, True, False),
        ([], None, True, True, True),  # nothing was there before
        (["c"], None, True, False, False),
    ],
)
def test_what_a_list_proves(
    bench: Bench, shown: Sequence[str], after: str | None, is_gapless: bool, is_complete: bool, is_proof: bool
) -> None:
    bench.service.behave(Behaviour(create=["502"]))
    bench.send()
    listing = Listing([job(each) for each in shown], is_complete, "", is_gapless=is_gapless)
    assert onces._covers(listing, replace(bench.intent, after=after)) == is_proof


def test_the_newest_job_that_was_there_is_kept(bench: Bench) -> None:
    bench.service.reset(Behaviour(create=["ok", "502"]), others=3)
    newest = bench.service.jobs[-1]["workflow_id"]
    first = bench.send("more0")
    assert isinstance(first, Job)
    bench.send()
    found = {each.address: each.after for each in bench.journal.intents.values()}
    assert found == {"more0": newest, "tone": first.id}


def test_stamps_are_the_services(bench: Bench) -> None:
    bench.service.behave(Behaviour(create=["502"]), advance=-86400)
    bench.send()
    stamp = datetime.fromisoformat(bench.intent.submitted_at or "")
    assert abs(stamp - (datetime.now(UTC) - timedelta(days=1))) < timedelta(minutes=1)
