"""evalops from Python: its documentation runs, it says what the command line says, and it lives in other programs."""

from __future__ import annotations

import asyncio
import doctest
import gc
import itertools
import json
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from apply_project import Folder, truths
from model_server import Config, Server, serve

import evalops
from evalops import api, cli
from evalops.api import Project
from evalops.apply import Stop
from evalops.errors import EvalopsError, Exit
from evalops.providers.base import Event, Finished, Progress

CANARY = "sk-Canary-0815-4711"
REPLIES = [
    {"reply": "It left today.", "channel": "chat", "said": "polite", "gold": "polite"},
    {"reply": "Read the rules.", "channel": "mail", "said": "rude", "gold": "polite"},
    {"reply": "Yes, gladly.", "channel": "chat", "said": "polite", "gold": "polite"},
    {"reply": "With pleasure.", "channel": "mail", "said": "polite", "gold": "polite"},
]


@pytest.fixture
def folder(tmp_path: Path, home: Path) -> Folder:
    """A project with the spec `tone`, whose verdicts stand in its dataset: no model is called."""
    found = Folder(tmp_path / "project", "http://127.0.0.1:9").settings().rows(REPLIES)
    return found.spec(judge={"column": "said"}, model_to_evaluate=None, gold="gold")


@pytest.fixture
def project(folder: Folder) -> Project:
    return evalops.open(folder.root)


@pytest.fixture
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture
def served(tmp_path: Path, server: Server, home: Path) -> Folder:
    """A project with the spec `tone` over 12 rows, judged by a server."""
    return Folder(tmp_path / "served", server.url).settings().rows(truths(12)).spec()


def codes(error: EvalopsError) -> list[str]:
    return [each.code for each in error.diagnostics]


# What is documented


def test_the_examples_in_the_documentation_are_true(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.root)
    names: dict[str, Any] = {"evalops": evalops, "project": evalops.open()}
    found = [each for each in doctest.DocTestFinder().find(api, globs=names) if each.examples]
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    for test in sorted(found, key=lambda each: each.lineno or 0):  # one story, in the order of the file
        test.globs = names
        runner.run(test, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0
    methods = {name for name, each in vars(Project).items() if not name.startswith("_") and callable(each)}
    assert methods <= {each.name.rpartition(".")[2] for each in found}


def test_the_front_of_the_package_names_what_there_is() -> None:
    assert {"open", "EvalopsError", "__version__"} <= set(dir(evalops))
    assert evalops.open is api.open and evalops.EvalopsError is EvalopsError
    with pytest.raises(AttributeError, match="no attribute 'opened'"):
        evalops.opened  # type: ignore[attr-defined]  # noqa: B018


# The same as the command line


def test_every_answer_is_the_json_of_the_command_line(folder: Folder, project: Project) -> None:
    folder.spec("other", judge={"column": "said"}, model_to_evaluate=None, labels=["rude", "polite", "odd"])

    def printed(*arguments: str) -> Any:
        return json.loads(folder.run(*arguments, "--format", "json").out)

    assert project.plan().value == printed("plan")
    assert project.plan("tone", exclude=["other"]).value == printed("plan", "tone", "-x", "other") != printed("plan")
    assert project.apply(yes=True).results == project.status() == printed("status")
    assert [each["address"] for each in project.status("t*")] == ["tone"]
    assert project.results("tone") == printed("show", "tone")
    assert list(project.rows("tone")) == folder.rows_of()
    assert project.plan(exclude="other").changes == project.plan("tone").changes
    assert project.rank("tone", by="channel") == printed("rank", "tone", "--by", "channel")
    assert not project.plan().has_changes and project.plan(refresh=True).value == printed("plan")


def test_a_plan_reads_as_in_a_terminal_without_colours(folder: Folder, project: Project) -> None:
    assert f"{project.plan()}\n" == folder.run("plan").out
    assert "\x1b" not in str(project.plan())
    assert repr(project.plan()) == f"<Plan: 1 change, digest {project.plan().digest[:8]}>"


def test_rows_are_chosen_by_status_verdict_and_failure(folder: Folder, project: Project) -> None:
    folder.rows([*REPLIES, {"reply": "", "channel": "mail", "said": "maybe", "gold": "rude"}])
    project.apply(yes=True)

    def replies(**chosen: Any) -> list[str]:
        return [row["source"]["reply"] for row in project.rows("tone", **chosen)]

    assert replies(status="invalid") == [""]
    assert replies(failed=True) == ["Read the rules.", ""]
    assert replies(verdict="rude") == replies(status="scored", failed=True) == ["Read the rules."]
    assert replies(status="error") == []


def test_without_its_spec_nobody_says_which_rows_failed(folder: Folder, project: Project) -> None:
    project.apply(yes=True)
    (folder.root / "tone.yaml").rename(folder.root / "tone.txt")
    assert len(list(project.rows("tone"))) == 4
    with pytest.raises(EvalopsError) as raised:
        list(project.rows("tone", failed=True))
    assert [each.code for each in raised.value.diagnostics] == ["rows/no-spec"]


def test_rows_that_end_in_an_error_close_their_store_in_the_thread_that_opened_it(
    folder: Folder, project: Project
) -> None:
    project.apply(yes=True)
    (folder.root / "tone.yaml").rename(folder.root / "tone.txt")
    kept: list[EvalopsError] = []  # a traceback holds all that was under way

    def look() -> None:
        try:
            list(project.rows("tone", failed=True))
        except EvalopsError as error:
            kept.append(error)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert len(kept) == 1
    kept.clear()
    gc.collect()  # what sqlite refuses here fails the test


def test_each_call_reads_the_folder_as_it_is_then(folder: Folder, project: Project) -> None:
    assert len(project.plan().changes) == 1
    folder.settings(specs=["else/*.yaml"])
    assert project.plan().changes == []
    folder.settings().spec("more", judge={"column": "said"}, model_to_evaluate=None)
    assert [each["address"] for each in project.plan().changes] == ["more", "tone"]


def test_problems_are_values_where_they_are_asked_for_and_else_an_error(folder: Folder, project: Project) -> None:
    project.apply(yes=True)
    folder.spec(judge={"column": "said"}, model_to_evaluate=None, pass_labels=["polit"])
    found = project.validate()
    assert {"spec/pass-labels"} <= {each.code for each in found} and project.validate("tone.yaml") == found
    with pytest.raises(EvalopsError) as raised:
        project.plan()
    assert set(codes(raised.value)) == {each.code for each in found if each.is_error}
    (folder.root / "tone.lock").write_text("{")
    with pytest.raises(EvalopsError) as raised:
        project.status()
    assert codes(raised.value) == ["lock/syntax"]


def test_open_finds_the_project_here_or_above_or_says_that_there_is_none(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    below = folder.root / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert evalops.open() == evalops.open(str(folder.root)) == evalops.open(folder.root)
    for missing in (below, tmp_path / "nowhere"):
        with pytest.raises(EvalopsError) as raised:
            evalops.open(missing)
        assert codes(raised.value) == ["project/not-found"]


@pytest.mark.parametrize(
    "call",
    [
        lambda project: project.apply(rerun=["tone"]),
        lambda project: project.apply(reason="because"),
        lambda project: project.apply(project.plan(), project.plan()),
        lambda project: project.rank(item="reply"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(project: Project, call: Any) -> None:
    with pytest.raises(EvalopsError) as raised:
        call(project)
    assert codes(raised.value) == ["usage/arguments"] and raised.value.exit_code is Exit.USAGE


# Frames


def test_a_frame_has_a_column_for_every_value(folder: Folder, project: Project) -> None:
    pandas = pytest.importorskip("pandas")
    folder.rows([*REPLIES, {"reply": "", "channel": "mail", "said": "maybe", "gold": None}])
    project.apply(yes=True)
    frame = project.frame("tone")
    rows = list(project.rows("tone"))
    assert list(frame["key"]) == [row["key"] for row in rows] and len(frame) == 5
    assert {"job", "source.reply", "source.channel", "verdict.status", "verdict.value"} <= set(frame.columns)
    assert list(frame["verdict.status"]) == ["scored"] * 4 + ["invalid"]
    assert pandas.isna(frame["verdict.value"][4]) and frame["verdict.problem"][4] == "unknown_label"
    assert list(project.frame("tone", failed=True)["source.reply"]) == ["Read the rules.", ""]


def test_without_pandas_a_frame_says_what_to_install(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(EvalopsError, match="needs pandas") as raised:
        project.frame("tone")
    assert "pip install pandas" in str(raised.value.diagnostics[0].hint)


# Apply


def test_nothing_that_costs_runs_without_consent(served: Folder, server: Server) -> None:
    project = evalops.open(served.root)
    plan = project.plan()
    for refused in (lambda: project.apply(), lambda: project.apply("tone")):
        with pytest.raises(EvalopsError) as raised:
            refused()
        assert codes(raised.value) == ["apply/not-confirmed"] and plan.digest in str(raised.value.diagnostics[0])
    with pytest.raises(EvalopsError) as raised:
        project.apply(approved="0" * 64)
    assert codes(raised.value) == ["plan/stale"] and raised.value.exit_code is Exit.LOCKED_OR_STALE
    assert server.ledger.requests == 0 and not (served.root / "tone.lock").exists()
    assert project.apply(approved=plan.digest).exit_code is Exit.OK and server.ledger.requests == 12
    assert project.apply().exit_code is Exit.OK  # nothing is left that could cost anything


def test_a_plan_is_carried_out_as_it_was_looked_at(served: Folder, server: Server) -> None:
    project = evalops.open(served.root)
    plan = project.plan()
    served.spec("later", judge={"system_template": "Is it?"})
    done = project.apply(plan)
    assert [each["address"] for each in done.results] == ["tone"] and done.plan.digest == plan.digest
    plan = project.plan()
    served.spec("later", judge={"system_template": "Is it so?"})
    with pytest.raises(EvalopsError) as raised:
        project.apply(plan)
    assert codes(raised.value) == ["plan/stale"] and server.ledger.requests == 12


def test_a_plan_whose_work_another_spec_would_do_by_now_has_moved_on(served: Folder, server: Server) -> None:
    project = evalops.open(served.root)
    plan = project.plan()
    served.spec("earlier")  # the same work, so that `tone` would wait for it
    with pytest.raises(EvalopsError) as raised:
        project.apply(plan)
    assert codes(raised.value) == ["plan/stale"] and server.ledger.requests == 0


def test_progress_is_told_by_address_in_the_calling_thread(served: Folder) -> None:
    served.spec("again", judge={"system_template": "Is it rude?"})
    seen: list[tuple[str, Event]] = []
    threads = set()

    def progress(address: str, event: Event) -> None:
        seen.append((address, event))
        threads.add(threading.current_thread())

    evalops.open(served.root).apply(yes=True, progress=progress)
    finished = [address for address, event in seen if isinstance(event, Finished)]
    assert sorted(finished) == ["again", "tone"] and threads == {threading.current_thread()}


def test_what_an_apply_came_to_is_a_value(served: Folder, server: Server) -> None:
    served.rows(truths(12, rude_every=2)).spec(thresholds={"pass_percentage": {"min": 95}})
    project = evalops.open(served.root)
    done = project.apply(yes=True)
    assert done.exit_code is Exit.GATE_FAILED and done.locks == ("tone.lock",)
    assert [gate["metric"] for gate in done.failed_gates["tone"]] == ["pass_percentage"]
    server.config = Config(script=("400",) * 100)
    served.spec(judge={"system_template": "Is it?"})
    done = project.apply(yes=True)
    assert done.exit_code is Exit.PROBLEM and [each.code for each in done.diagnostics] == ["job/failed"]


def test_one_apply_at_a_time_in_one_process_too(served: Folder) -> None:
    project = evalops.open(served.root)
    refused: list[EvalopsError] = []

    def progress(address: str, event: Event) -> None:
        if not refused:
            with pytest.raises(EvalopsError) as raised:
                project.apply(yes=True)
            refused.append(raised.value)

    assert project.apply(yes=True, progress=progress).exit_code is Exit.OK
    assert codes(refused[0]) == ["apply/locked"]


@pytest.mark.parametrize("kind", [LookupError, ConnectionError])  # which is an OSError, but none of the folder's
def test_what_progress_raises_stops_the_apply_and_what_is_done_is_kept(
    served: Folder, server: Server, kind: type[Exception]
) -> None:
    def progress(address: str, event: Event) -> None:
        if isinstance(event, Progress):
            raise kind("enough")

    served.rows(truths(300))
    server.config = Config(latency_ms=20)
    project = evalops.open(served.root)
    with pytest.raises(kind, match="enough"):
        project.apply(yes=True, progress=progress)
    assert project.plan().changes[0]["action"] == "resume" and server.ledger.requests < 300
    assert project.apply().exit_code is Exit.OK
    assert project.results("tone")["summary"]["scored"] == 300


@pytest.mark.parametrize("is_early", [False, True])
def test_another_thread_can_stop_it_in_order(served: Folder, server: Server, is_early: bool) -> None:
    served.rows(truths(300))
    server.config = Config(latency_ms=20)
    project, stop = evalops.open(served.root), Stop()

    def progress(address: str, event: Event) -> None:
        stopping = threading.Thread(target=stop.ask)
        stopping.start()
        stopping.join()

    if is_early:
        stop.ask()
    done = project.apply(yes=True, progress=progress, stop=stop)
    assert done.exit_code is Exit.INTERRUPTED and server.ledger.requests < 300
    assert project.plan().changes[0]["action"] == ("create" if is_early else "resume")
    assert project.apply(yes=True).exit_code is Exit.OK and server.ledger.requests == 300  # none was asked twice


# In other programs


@pytest.mark.parametrize("in_thread", [False, True])
def test_it_runs_where_an_event_loop_runs(served: Folder, in_thread: bool) -> None:
    project = evalops.open(served.root)

    async def cell() -> api.Applied:
        return await asyncio.to_thread(project.apply, yes=True) if in_thread else project.apply(yes=True)

    assert asyncio.run(cell()).exit_code is Exit.OK


def test_signals_are_left_alone_in_a_thread_and_given_back_in_the_main_one(served: Folder) -> None:
    names = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
    before = [signal.getsignal(name) for name in names]
    during = []

    def progress(address: str, event: Event) -> None:
        during.append([signal.getsignal(name) for name in names])

    project = evalops.open(served.root)
    thread = threading.Thread(target=project.apply, kwargs={"yes": True, "progress": progress})
    thread.start()
    thread.join()
    assert during and all(each == before for each in during)
    served.spec(judge={"system_template": "Is it?"})
    project.apply(yes=True)
    assert [signal.getsignal(name) for name in names] == before


def test_a_timer_of_the_program_goes_on(served: Folder) -> None:
    ringing = []
    before = signal.signal(signal.SIGALRM, lambda number, frame: ringing.append(number))
    signal.setitimer(signal.ITIMER_REAL, 3600)
    try:
        done = evalops.open(served.root).apply(yes=True, progress=lambda *event: signal.raise_signal(signal.SIGALRM))
        assert done.exit_code is Exit.OK and ringing
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 3000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_ctrl_c_is_raised_when_all_is_written_down(served: Folder, server: Server) -> None:
    served.rows(truths(300))
    server.config = Config(latency_ms=20)
    project = evalops.open(served.root)
    first = itertools.count()

    def progress(address: str, event: Event) -> None:
        if next(first) == 0:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        project.apply(yes=True, progress=progress)
    assert server.ledger.requests < 300
    assert project.apply().exit_code is Exit.OK and server.ledger.requests == 300  # none was asked twice


def test_nothing_that_can_be_shown_holds_a_key(served: Folder, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TONE_KEY", CANARY)
    server.config = Config(script=("echo",) * 12, key=CANARY)
    origin = server.url.removesuffix("/v1")
    served.settings(
        local={"row_timeout": 0.3},
        models={"judge": {"base_url": server.url, "credential": "tone"}},
        credentials={"tone": {"env": "TONE_KEY", "origins": [origin]}},
    )
    project = evalops.open(served.root)
    seen: list[Any] = []
    plan = project.plan()
    done = project.apply(plan, progress=lambda *event: seen.append(event))
    assert server.ledger.requests and done.exit_code is Exit.PROBLEM
    shown = [project, plan, str(plan), done, done.results, seen, project.status(), list(project.rows("tone"))]
    assert "***" in repr(shown) and CANARY not in repr(shown)


def test_what_python_applied_the_command_line_has_in_step(folder: Folder, project: Project) -> None:
    project.apply(yes=True)
    assert cli.run(["--project", str(folder.root), "plan", "--detailed-exitcode"]) == Exit.OK
