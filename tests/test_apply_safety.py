"""No lost and no doubled job: apply against a service that keeps a ledger, under crashes, faults, kills and rivals."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crash_schedules import CRASHED, KEY, MUTANTS, TOKEN, Schedule, played, scenes, schedules, write_project, write_spec
from together_service import CREATES, STATUSES, Behaviour, TogetherService

import evalops
from evalops import catalog, cli, journal
from evalops.cli import crash
from evalops.errors import Exit
from evalops.project import Project
from evalops.providers.client import Client
from evalops.providers.together import Together

PATIENCE = 60.0  # seconds, on a machine that is busy
LAG = 2.0  # the visibility lag in the settings of tests that wait for it


def slowly(value: object) -> Any:
    """A value of a parameter that only the long suites take."""
    return pytest.param(value, marks=pytest.mark.slow)


class Home:
    """A project at a service, and the command as a process or in this one."""

    def __init__(self, root: Path, service: TogetherService, specs: int = 2, **settings: Any) -> None:
        self.root, self.service = root, service
        root.mkdir(parents=True)
        remote = {"base_url": service.url, "credential": "us", "visibility_lag": LAG}
        origins = [service.url, "https://vendor.example"]
        credentials = {
            "us": {"env": "TOGETHER_API_KEY", "origins": [service.url]},
            "vendor": {"env": "VENDOR_KEY", "origins": origins},
        }
        write_project(root, specs, settings={"providers": {"together": remote}, "credentials": credentials, **settings})

    def start(self, *arguments: str, most: int | None = None, **environment: str) -> subprocess.Popen[str]:
        """`evalops apply --yes` in a process of its own, whose files may not grow beyond `most` bytes."""
        limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))) if most is not None else None
        code = "from evalops.cli import main; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, "--project", str(self.root), "apply", "--yes", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=limit,
            env={**os.environ, "PYTHONPATH": str(Path(evalops.__file__).parents[1]), "CI": "", **environment},
        )

    def apply(self, *arguments: str) -> int:
        """The same in this process."""
        return cli.run(["--project", str(self.root), "apply", "--yes", *arguments])

    def settled(self, most: int = 8) -> None:
        """Applies until all is done, with a service that is well and whose clock goes on."""
        for _ in range(most):
            self.service.behave(Behaviour(), advance=60)
            if self.apply() == Exit.OK:
                return
        raise AssertionError("it is never done")

    def entries(self) -> dict[str, Any]:
        """The entries of all lockfiles."""
        found: dict[str, Any] = {}
        for path in self.root.glob("*.lock"):
            found |= json.loads(path.read_text())["evaluations"]
        return found

    def works(self) -> Counter[str]:
        """How often each work was paid for."""
        return Counter(each["work"] for each in self.service.ledger)

    def jobs(self) -> set[str]:
        """The jobs that lockfiles name."""
        return {each["job"] for each in self.entries().values()}

    def open(self) -> list[str]:
        """The addresses whose outcome is open."""
        return [each.address for each in journal.read(self.root / ".evalops" / "journal").values() if each.is_open]


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[TogetherService]:
    monkeypatch.setenv("TOGETHER_API_KEY", KEY)
    monkeypatch.setenv("VENDOR_KEY", TOKEN)
    with TogetherService() as running:
        yield running


@pytest.fixture
def home(tmp_path: Path, service: TogetherService) -> Home:
    """Two evaluations that were never applied."""
    return Home(tmp_path / "project", service)


# --- a thousand evaluations: first, as it takes longest ---


@pytest.mark.slow
def test_a_thousand_evaluations(tmp_path: Path, service: TogetherService) -> None:
    """Sixteen at a time, 30 % of the replies faulty, and the process killed again and again: the ledger says 1,000."""
    chance = random.Random(4)
    faults = ["502+", "502", "drop+", "drop", "half+", "html+", "no-id+", "500", "429", "503+"]
    words = [chance.choice(faults) if chance.random() < 0.3 else "ok" for _ in range(1500)]
    home = Home(tmp_path / "project", service, 0)
    specs = list(_thousand())
    for first in range(0, 1000, 100):
        (home.root / f"from{first}.yaml").write_text("\n---\n".join(specs[first : first + 100]))
    service.behave(Behaviour(create=words, lag_polls=1, most_lag=LAG / 2))
    killed = 0
    for number in range(60):
        process = home.start("--jobs", "16")
        if number % 3 == 0:  # in the middle of its requests, however fast the machine is
            most = len(service.ledger) + chance.randrange(3, 25)
            while process.poll() is None and len(service.ledger) < most:
                time.sleep(0.01)
            process.kill()
        out, err = process.communicate(timeout=300)
        killed += process.returncode < 0
        assert max(home.works().values(), default=0) <= 1, (out[-2000:], err[-2000:])
        service.behave(advance=10)
        if process.returncode == Exit.OK:
            break
    assert process.returncode == Exit.OK and killed >= 2, err[-2000:]
    assert len(service.ledger) == 1000 and set(home.works().values()) == {1}
    assert home.jobs() == {id_ for each in service.ledger for id_ in each["ids"]}


def _thousand() -> Iterator[str]:
    for number in range(1000):
        judge = {"model": "Qwen/Qwen3.5-9B", "system_template": f"Polite? {number}: {{{{ q }}}}"}
        fields = {"model_to_evaluate": "a", "labels": ["yes", "no"], "pass_labels": ["yes"]}
        yield json.dumps(
            {"version": 1, "name": f"e{number}", "type": "classify", "dataset": "rows.jsonl", "judge": judge, **fields}
        )


# --- schedules of crashes and faults ---


def play(folder: Path, wanted: list[Schedule]) -> None:
    broken = [each for schedule in played(folder, wanted) for each in schedule]
    assert not broken, "\n\n".join(broken[:3])


@pytest.mark.slow
def test_a_sample_of_schedules(tmp_path: Path) -> None:
    play(tmp_path, schedules(15, seed=1_000_000))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(21))
def test_schedules(tmp_path: Path, part: int) -> None:
    play(tmp_path, schedules(100, seed=100 * part))


def test_the_schedules_hold_what_they_should() -> None:
    """Every word of a create is met, and there are double crashes, late lists, edits and full disks among them."""
    found = schedules(2000)
    assert {each.behaviour["create"][0] for each in found} | {each.behaviour["create"][-1] for each in found} >= set(
        CREATES
    )
    assert {each.edit for each in found} == {None, "edited", "deleted", "state", "lock"}
    assert {each for schedule in found for each in schedule.crashes} > set(range(1, 61))
    assert sum(len(each.crashes) > 1 for each in found) > 500
    for name in ("jump", "skew", "rerun", "full", "signals"):
        assert sum(bool(getattr(each, name)) for each in found) > 100, name
    assert min(Counter(each.jobs for each in found)[jobs] for jobs in (1, 2, 16)) > 300
    for name in ("lag", "lag_polls", "list", "cut", "upload", "forged"):
        assert sum(name in each.behaviour for each in found) > 100, name


@pytest.mark.slow
def test_a_broken_apply_is_caught(tmp_path: Path) -> None:
    """The checks can fail: each of these applies would pay twice, lose a job or believe a stranger."""
    wanted = [each for mutant in MUTANTS for each in scenes(mutant)]
    for mutant in MUTANTS[1:]:  # the first two have the same scenes
        wanted += scenes(mutant, is_broken=False)
    broken = list(zip(wanted, played(tmp_path, wanted), strict=True))
    assert {schedule.mutant for schedule, found in broken if found} == set(MUTANTS)


# --- one request a decision ---


@pytest.mark.parametrize("word", ["429", "502", "409+", "503+", "drop+", "half+", "html+", "evil-id+", "307", *map(slowly, (
    "408", "409", "425", "500", "503", "504", *(f"{each}+" for each in STATUSES if each not in (409, 503)), "head+", "empty+", "no-id+", "huge+", "308", "list+",
))])  # fmt: skip
def test_what_is_not_clear_is_asked_for_once(home: Home, word: str) -> None:
    service = home.service
    service.behave(Behaviour(create=[word, "ok"], lag=LAG))
    assert home.apply("--jobs", "1") == Exit.UNKNOWN_OUTCOME
    assert service.asked["create"] == 2 and home.open() == ["s0"]
    assert set(home.entries()) == {"s1"}
    service.behave(advance=60)
    assert home.apply() == Exit.OK
    assert set(home.works().values()) == {1} and len(home.jobs()) == 2
    assert service.asked["create"] == 2 if word.endswith("+") else 3


@pytest.mark.parametrize("word", ["400", "401", "403", "404", "413", "422"])
def test_a_refusal_is_no_doubt(home: Home, word: str) -> None:
    home.service.behave(Behaviour(create=[word]))
    assert home.apply("--jobs", "1") == Exit.PROBLEM and home.open() == []
    assert set(home.entries()) == {"s1"}
    assert home.apply() == Exit.OK and len(home.service.ledger) == 2


@pytest.mark.parametrize("words", [["500"], ["drop"], ["drop+"], ["no-id"]])
def test_an_upload_that_fails_costs_nothing(home: Home, words: list[str]) -> None:
    home.service.behave(Behaviour(upload=list(words)))
    home.apply()
    home.settled()
    assert len(home.service.ledger) == 2 and len(home.service.files) == 1


def test_an_upload_that_is_there_is_used(home: Home, tmp_path: Path) -> None:
    assert home.apply() == Exit.OK
    other = Home(tmp_path / "other", home.service, 1)
    write_spec(other.root, 0, "Another question?")
    assert other.apply() == Exit.OK
    files = {each["body"]["parameters"]["input_data_file_path"] for each in home.service.ledger}
    assert len(files) == len(home.service.files) == 1


# --- an apply that waits ---


@pytest.mark.slow
def test_who_waits_finds_what_was_lost(home: Home) -> None:
    """A job whose answer was lost is in no list yet: it is found and collected by the apply that sent it."""
    home.service.behave(Behaviour(create=["502+"], pending=True, lag=1.0))
    process = home.start()
    until(lambda: len(home.entries()) == 2)
    home.service.behave(Behaviour())
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.OK, (out, err)
    assert {each["status"] for each in home.entries().values()} == {"completed"} and home.open() == []
    assert home.service.asked["create"] == len(home.service.ledger) == 2


@pytest.mark.slow
def test_who_waits_finds_what_an_earlier_apply_lost(home: Home) -> None:
    home.service.behave(Behaviour(create=["502+"], pending=True, lag=1.0))
    assert home.apply("--no-wait") == Exit.UNKNOWN_OUTCOME and len(home.entries()) == 1
    process = home.start()
    until(lambda: len(home.entries()) == 2)
    home.service.behave(Behaviour())
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.OK, (out, err)
    assert home.service.asked["create"] == len(home.service.ledger) == 2


@pytest.mark.slow
def test_who_waits_sends_again_what_was_never_there(home: Home) -> None:
    """Once that is proven, and not before."""
    home.service.behave(Behaviour(create=["502"], pending=True))
    process = home.start()
    until(lambda: home.service.asked["create"] == 2)
    began = home.service.now
    until(lambda: len(home.entries()) == 2)
    assert home.service.now - began > LAG - 1
    home.service.behave(Behaviour())
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.OK, (out, err)
    assert home.service.asked["create"] == 3 and set(home.works().values()) == {1}


@pytest.mark.slow
def test_a_doubt_is_not_waited_for(home: Home) -> None:
    """Neither beyond the time that was given, nor when nothing else is waited for."""
    home.service.behave(Behaviour(create=["502+"], pending=True, lag=600))
    assert home.apply("--timeout", "1s") == Exit.UNKNOWN_OUTCOME
    home.service.behave(Behaviour(lag=600))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    assert len(home.entries()) == 1 and home.service.asked["create"] == 2


# --- a service that cannot be asked ---


def test_what_needs_no_service_is_done_without(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    assert home.apply() == Exit.OK
    spec = json.loads((home.root / "s0.yaml").read_text())
    (home.root / "s0.yaml").write_text(json.dumps(spec | {"pass_labels": ["no"]}))
    write_spec(home.root, 1, "Is it kind?")
    home.service.behave(Behaviour(list=["403"] * 9))
    assert home.apply() == Exit.PROBLEM
    assert home.entries()["s0"]["summary"]["metrics"]["pass_percentage"]["value"] == 0
    err = capfd.readouterr().err
    assert "provider/refused" in err and "apply/not-asked" in err and "`s1`" in err
    assert home.service.asked["create"] == 2
    home.service.behave(Behaviour())
    assert home.apply() == Exit.OK and home.service.asked["create"] == 3


def test_a_doubt_does_not_keep_from_what_needs_no_service(home: Home) -> None:
    assert home.apply() == Exit.OK
    spec = json.loads((home.root / "s0.yaml").read_text())
    write_spec(home.root, 1, "Is it kind?")
    home.service.behave(Behaviour(create=["502+"], lag=600))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    (home.root / "s0.yaml").write_text(json.dumps(spec | {"pass_labels": ["no"]}))
    home.service.behave(Behaviour(list=["403"] * 9))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    assert home.entries()["s0"]["summary"]["metrics"]["pass_percentage"]["value"] == 0


def test_one_result_that_cannot_be_fetched_is_a_problem_of_one(home: Home) -> None:
    home.service.behave(Behaviour(read=["403"]))
    assert home.apply("--jobs", "1") == Exit.PROBLEM
    assert sorted(each["status"] for each in home.entries().values()) == ["completed", "pending"]
    assert home.apply() == Exit.OK and home.service.asked["create"] == 2


def test_jobs_that_cannot_be_followed_go_on(home: Home) -> None:
    home.service.behave(Behaviour(list=["ok", "ok", "403"]))
    assert home.apply() == Exit.PROBLEM
    assert {each["status"] for each in home.entries().values()} == {"pending"}
    assert home.apply() == Exit.OK and home.service.asked["create"] == 2


def test_a_fresh_clone_believes_in_young_jobs(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    """A job in a lockfile that no list shows yet is no failed job, also where no journal knows of it."""
    home.service.behave(Behaviour(pending=True, date=True))
    assert home.apply("--no-wait") == Exit.STILL_RUNNING
    shutil.rmtree(home.root / ".evalops")
    home.service.behave(Behaviour(gone=sorted(home.jobs())))
    assert cli.run(["--project", str(home.root), "plan", "--refresh"]) == Exit.OK
    assert "! s0" not in (said := capfd.readouterr().out) and "> s0" in said
    assert home.apply("--timeout", "0.2s") == Exit.STILL_RUNNING
    home.service.behave(Behaviour())
    assert home.apply() == Exit.OK and home.service.asked["create"] == 2


# --- lists ---


def test_a_list_that_fails_leaves_it_open(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    home.service.behave(Behaviour(create=["502+"], lag=LAG))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.service.behave(Behaviour(list=["404"]), advance=60)
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.settled()
    assert set(home.works().values()) == {1}


@pytest.mark.parametrize("others", [0, slowly(1), slowly(99), 100, slowly(300)])
def test_jobs_of_others_are_left_alone(home: Home, others: int) -> None:
    home.service.reset(Behaviour(create=["502+", "502"], lag=LAG), others=others)
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.settled()
    assert set(home.works().values()) == {1} and home.jobs() == {
        id_ for each in home.service.ledger for id_ in each["ids"]
    }


@pytest.mark.slow
@pytest.mark.parametrize("behaviour", [{"cut": 10}, {"order": "oldest"}])
def test_a_list_that_does_not_reach_back_proves_nothing(home: Home, behaviour: dict[str, Any]) -> None:
    home.service.reset(Behaviour(), others=120)
    home.service.behave(Behaviour(create=["502+", *["ok"] * 20], lag=LAG, **behaviour))
    for number in range(2, 20):
        write_spec(home.root, number)
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.service.behave(Behaviour(**behaviour), advance=60)
    assert home.apply() == Exit.UNKNOWN_OUTCOME  # it is there, and this list cannot show it
    home.settled()
    assert set(home.works().values()) == {1} and len(home.service.ledger) == 20


def test_two_jobs_for_one_request(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    """The oldest is taken, and the other one is named: somebody pays for it."""
    home.service.behave(Behaviour(create=["twice+"], lag=LAG))
    assert home.apply("--jobs", "1") == Exit.UNKNOWN_OUTCOME
    home.service.behave(Behaviour(), advance=60)
    assert home.apply() == Exit.OK
    first, second = home.service.ledger[0]["ids"]
    assert first in home.jobs() and second not in home.jobs() and second in capfd.readouterr().err
    home.settled()
    assert set(home.works().values()) == {1}


def test_a_forged_marker_is_not_believed(home: Home) -> None:
    """Neither where the outcome is open, nor for an apply that knows nothing of the job."""
    home.service.behave(Behaviour(create=["502"], forged=True))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.settled()
    ours = {id_ for each in home.service.ledger for id_ in each["ids"]}
    assert home.jobs() == ours and len(ours) == 2


# --- what is lost, changed or in two places ---


@pytest.mark.xfail(strict=True, reason="an adoption by marker does not compare the file")
def test_a_marker_with_another_file_is_not_believed(home: Home) -> None:
    home.service.behave(Behaviour(create=["400", "400"]))
    assert home.apply() == Exit.PROBLEM
    intents = journal.read(home.root / ".evalops" / "journal").values()
    bodies = [json.loads(json.dumps(each.parameters)) for each in intents]
    for body in bodies:
        body["parameters"]["input_data_file_path"] = "file-theirs"
    forged = {home.service.place(body) for body in bodies}
    assert home.apply() == Exit.OK
    assert not home.jobs() & forged


def test_a_fresh_clone_adopts_what_changed_after_a_rerun(home: Home) -> None:
    assert home.apply() == Exit.OK
    assert home.apply("--rerun", "s0", "--reason", "again") == Exit.OK
    write_spec(home.root, 0, "Is it kind?")
    assert home.apply() == Exit.OK and len(home.service.ledger) == 4
    for path in [*home.root.glob("*.lock"), *home.root.glob("*.verdicts.jsonl")]:
        path.unlink()
    shutil.rmtree(home.root / ".evalops")
    assert home.apply() == Exit.OK
    assert len(home.service.ledger) == 4


def test_a_fresh_clone_adopts(home: Home) -> None:
    assert home.apply() == Exit.OK
    before = home.jobs()
    for path in [*home.root.glob("*.lock"), *home.root.glob("*.verdicts.jsonl")]:
        path.unlink()
    shutil.rmtree(home.root / ".evalops")
    assert home.apply() == Exit.OK
    assert home.jobs() == before and home.service.asked["create"] == 2


def test_an_edit_does_not_hide_what_is_open(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    home.service.behave(Behaviour(create=["502+"], lag=LAG))
    assert home.apply("--jobs", "1") == Exit.UNKNOWN_OUTCOME
    write_spec(home.root, 0, "Is it kind?")
    assert home.apply() == Exit.UNKNOWN_OUTCOME  # the old one is still open, the new one is made
    home.service.behave(Behaviour(), advance=60)
    assert home.apply() == Exit.OK
    lost = home.service.ledger[0]["ids"][0]
    assert lost in capfd.readouterr().err and lost not in home.jobs()
    assert set(home.works().values()) == {1} and len(home.service.ledger) == 3
    write_spec(home.root, 0)
    assert home.apply() == Exit.OK
    assert home.entries()["s0"]["job"] == lost and len(home.service.ledger) == 3


def test_a_spec_that_is_gone_does_not_hide_what_is_open(home: Home, capfd: pytest.CaptureFixture[str]) -> None:
    home.service.behave(Behaviour(create=["502+"], lag=LAG))
    assert home.apply("--jobs", "1") == Exit.UNKNOWN_OUTCOME
    (home.root / "s0.yaml").unlink()
    capfd.readouterr()
    assert home.apply() == Exit.UNKNOWN_OUTCOME and "s0" in capfd.readouterr().err
    home.service.behave(Behaviour(), advance=60)
    assert home.apply() == Exit.OK
    assert home.service.ledger[0]["ids"][0] in capfd.readouterr().err


def test_a_job_that_is_gone_is_never_sent_again(home: Home) -> None:
    home.service.behave(Behaviour(pending=True))
    assert home.apply("--timeout", "0") in (Exit.OK, Exit.STILL_RUNNING)
    gone = [id_ for each in home.service.ledger for id_ in each["ids"]]
    home.service.behave(Behaviour(gone=gone), advance=1000)
    assert home.apply() == Exit.PROBLEM
    assert home.apply() == Exit.PROBLEM
    assert home.service.asked["create"] == 2


def test_two_addresses_with_the_same_work(home: Home) -> None:
    spec = json.loads((home.root / "s0.yaml").read_text())
    (home.root / "s9.yaml").write_text(json.dumps(spec | {"name": "s9"}))
    home.service.behave(Behaviour(create=["502+"], lag=LAG))
    assert home.apply() == Exit.UNKNOWN_OUTCOME
    home.settled()
    assert len(home.service.ledger) == 2
    assert home.entries()["s0"]["job"] == home.entries()["s9"]["job"]


def test_two_reruns_are_one_generation_each(home: Home) -> None:
    assert home.apply() == Exit.OK
    for number in (3, 4):
        assert home.apply("--rerun", "s0", "--reason", "again") == Exit.OK
        assert len(home.service.ledger) == number
    assert home.entries()["s0"]["generation"] == 3 and set(home.works().values()) == {1}


def test_identical_specs_in_two_projects(home: Home, tmp_path: Path) -> None:
    """What one has paid for, the other takes: the service's jobs are everybody's with the key."""
    other = Home(tmp_path / "other", home.service)
    assert home.apply() == other.apply() == Exit.OK
    assert home.jobs() == other.jobs() and len(home.service.ledger) == 2


def test_a_clock_that_jumps(home: Home) -> None:
    """The service's clock decides, wherever it stands."""
    for jump in (-86400.0, 86400.0, -7200.0):
        home.service.reset(Behaviour(create=["502+"], lag=LAG), advance=jump)
        for path in [*home.root.glob("*.lock"), *home.root.glob("*.verdicts.jsonl")]:
            path.unlink()
        shutil.rmtree(home.root / ".evalops", ignore_errors=True)
        assert home.apply() == Exit.UNKNOWN_OUTCOME
        assert home.apply() == Exit.UNKNOWN_OUTCOME
        home.settled()
        assert set(home.works().values()) == {1}


def test_a_closed_pipe_stops_no_record(home: Home) -> None:
    process = home.start("-v")
    assert process.stdout is not None
    process.stdout.close()
    process.wait(PATIENCE)
    assert process.stderr is not None
    process.stderr.close()
    home.settled()
    assert set(home.works().values()) == {1}


@pytest.mark.parametrize("most", [60, slowly(400), slowly(1200), 2500])
def test_a_disk_that_is_full(home: Home, most: int) -> None:
    process = home.start(most=most)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (Exit.PROBLEM, Exit.UNKNOWN_OUTCOME) and "Traceback" not in err, (out, err)
    known = {each.job for each in journal.read(home.root / ".evalops" / "journal").values()}
    assert {id_ for each in home.service.ledger for id_ in each["ids"]} <= known or home.open()
    home.settled()
    assert set(home.works().values()) == {1} and len(home.service.ledger) == 2


@pytest.mark.parametrize("place", ["", "journal", "uploads", "results"])
def test_state_that_cannot_be_written(home: Home, place: str) -> None:
    """Something else is where the state should be: nothing is sent, or what is sent is known."""
    state = home.root / ".evalops"
    (state / place).parent.mkdir(exist_ok=True)
    (state / place).write_text("no folder")
    assert home.apply() == Exit.PROBLEM
    (state / place).unlink()
    home.settled()
    assert set(home.works().values()) == {1} and len(home.service.ledger) == 2


# --- signals, kills and rivals ---


def until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it never comes"
        time.sleep(0.005)


def test_a_signal_lets_the_request_in_flight_end(home: Home) -> None:
    home.service.behave(Behaviour(create=["slow+"]))
    process = home.start("--jobs", "1")
    until(lambda: home.service.asked["create"] == 1)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)  # the signal is on its way, and nothing shows when it was taken
    home.service.go_on()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert home.open() == [] and home.service.asked["create"] == 1
    assert set(home.entries()) == {"s0"}
    home.settled()
    assert set(home.works().values()) == {1} and home.service.asked["create"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_a_signal_leaves_the_jobs_that_are_waited_for_alone(home: Home, count: int) -> None:
    home.service.behave(Behaviour(pending=True))
    process = home.start()
    until(lambda: home.service.asked["list"] >= 3)
    for _ in range(count):
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert len(home.jobs()) == 2 and home.open() == []
    home.service.behave(Behaviour())
    assert home.apply() == Exit.OK and home.service.asked["create"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("second", [signal.SIGINT, slowly(signal.SIGTERM)])
def test_a_second_signal_waits_for_nothing(home: Home, second: signal.Signals) -> None:
    home.service.behave(Behaviour(create=["slow+"]))
    process = home.start("--jobs", "1")
    until(lambda: home.service.asked["create"] == 1)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.send_signal(second)
    out, err = process.communicate(timeout=10)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert home.open() == ["s0"] and "s0" in err
    home.service.go_on()
    home.settled()
    assert set(home.works().values()) == {1}


def test_a_signal_lets_all_requests_in_flight_end(tmp_path: Path, service: TogetherService) -> None:
    home = Home(tmp_path / "project", service, 8)
    service.behave(Behaviour(create=["slow+"] * 4))
    process = home.start("--jobs", "4")
    until(lambda: service.asked["create"] == 4)
    process.send_signal(signal.SIGINT)
    time.sleep(0.1)  # the signal is on its way, and nothing shows when it was taken
    service.go_on()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert home.open() == [] and service.asked["create"] == 4 and len(home.entries()) == 4
    home.settled()
    assert set(home.works().values()) == {1} and service.asked["create"] == 8


@pytest.mark.slow
def test_a_second_signal_waits_for_none_of_many(tmp_path: Path, service: TogetherService) -> None:
    home = Home(tmp_path / "project", service, 8)
    service.behave(Behaviour(create=["hang+"] * 4))
    process = home.start("--jobs", "4")
    until(lambda: service.asked["create"] == 4)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert time.monotonic() - began < 5 and len(home.open()) == 4
    assert all(f"`{address}`" in err for address in home.open())
    home.settled()
    assert set(home.works().values()) == {1} and service.asked["create"] == 8


@pytest.mark.slow
def test_who_runs_ci_is_not_kept_waiting(home: Home) -> None:
    home.service.behave(Behaviour(create=["hang+"] * 2))
    process = home.start(CI="true")
    until(lambda: home.service.asked["create"] == 2)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Exit.INTERRUPTED and "Traceback" not in err, (out, err)
    assert 3 < time.monotonic() - began < 7 and len(home.open()) == 2
    home.settled()
    assert set(home.works().values()) == {1}


def test_two_applies_at_once(home: Home) -> None:
    home.service.behave(Behaviour(create=["slow+"]))
    process = home.start("--jobs", "1")
    until(lambda: home.service.asked["create"] == 1)
    started = time.monotonic()
    rival = home.start()
    _, err = rival.communicate(timeout=PATIENCE)
    assert rival.returncode == Exit.LOCKED_OR_STALE and str(process.pid) in err
    began = time.monotonic()
    assert home.apply() == Exit.LOCKED_OR_STALE and time.monotonic() - began < 1, began - started
    process.kill()
    process.communicate(timeout=PATIENCE)
    home.service.go_on()
    assert home.apply() != Exit.LOCKED_OR_STALE  # at once
    home.settled()
    assert set(home.works().values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("part", range(5))
def test_kills_at_any_time(tmp_path: Path, service: TogetherService, part: int) -> None:
    """Real processes, killed at random moments, twenty for each part."""
    killed = number = 0
    while killed < 20:
        number += 1
        chance = random.Random(100 * part + number)
        words = [chance.choice(["ok", "502+", "502", "drop+", "half+", "500", "late+"]) for _ in range(8)]
        service.reset(Behaviour(create=words, lag_polls=chance.choice([0, 0, 3]), most_lag=LAG / 2))
        home = Home(tmp_path / str(number), service, 6)
        for _ in range(2):
            process = home.start()
            time.sleep(chance.uniform(0.3, 1.6))  # the moment is the test
            process.kill()
            process.communicate(timeout=PATIENCE)
            killed += process.returncode < 0
            assert max(home.works().values(), default=0) <= 1
        home.settled()
        assert home.jobs() == {id_ for each in service.ledger for id_ in each["ids"]} and len(home.jobs()) == 6
        before = service.asked["create"]
        assert home.apply() == Exit.OK and service.asked["create"] == before


# --- secrets ---


@pytest.mark.parametrize("word", ["echo:400", "echo:502+", slowly("echo:500"), slowly("echo:422")])
def test_no_secret_is_written_or_printed(tmp_path: Path, service: TogetherService, word: str) -> None:
    """The key and the token of a model's vendor, both echoed by the service in what it says of its failure."""
    home = Home(tmp_path / "project", service, 3)
    _with_tokens_everywhere(home.root)
    service.behave(Behaviour(create=[word] * 5, list=["ok", "ok", "echo"], lag=LAG))
    process = home.start("-vv")
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in (Exit.PROBLEM, Exit.UNKNOWN_OUTCOME), err
    assert "cannot take" in err
    assert service.asked["create"] == 5
    texts = {"stdout": out.encode(), "stderr": err.encode()}
    texts |= {str(path): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    leaks = [name for name, data in texts.items() for each in (KEY, TOKEN) if each.encode() in data]
    assert leaks == []


def _with_tokens_everywhere(root: Path) -> None:
    """Specs with a model of a vendor in each place that can have one."""
    theirs = {
        "model": "theirs",
        "model_source": "external",
        "external_base_url": "https://vendor.example/v1",
        "credential": "vendor",
    }
    judge = {**theirs, "system_template": "Which is polite? {{ q }}"}
    writer = {**theirs, "system_template": "Be polite.", "input_template": "{{ q }}"}
    common = {"version": 1, "dataset": "rows.jsonl", "judge": judge}
    score = {**common, "name": "scored", "type": "score", "min_score": 1, "max_score": 5, "pass_threshold": 3}
    duel = {**common, "name": "duel", "type": "compare", "model_a": writer, "model_b": {**writer, "model": "other"}}
    (root / "scored.yaml").write_text(json.dumps({**score, "model_to_evaluate": writer}))
    (root / "duel.yaml").write_text(json.dumps(duel))


def test_the_token_of_a_vendor_reaches_the_request_and_no_more(tmp_path: Path, service: TogetherService) -> None:
    home = Home(tmp_path / "project", service, 3)
    assert home.apply("-v") == Exit.OK
    sent = [each["body"]["parameters"]["judge"].get("external_api_token") for each in service.ledger]
    assert sorted(sent, key=str) == [None, None, TOKEN]
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert leaks == []


def test_no_secret_is_in_a_crash_log(tmp_path: Path, service: TogetherService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in the middle of the request that holds both."""
    home = Home(tmp_path / "project", service, 3)
    monkeypatch.chdir(home.root)
    fails: list[int] = []
    project = Project(home.root)
    together = Together(project, partial(Client, clock=lambda: time.monotonic() / (not fails)))
    (wanted,) = (each for each in catalog.read(project).wanted if each.evaluation.name == "s2")
    request = together.prepare(together.request(*wanted, 1))
    fails.append(1)
    try:
        together.submit(request)
    except ZeroDivisionError:
        crash.report()
    together.close()
    log = (home.root / ".evalops" / "crash.log").read_text()
    assert service.ledger[0]["body"]["parameters"]["judge"]["external_api_token"] == TOKEN
    assert "ZeroDivisionError" in log and KEY not in log and TOKEN not in log


assert CRASHED == 128 + signal.SIGKILL
