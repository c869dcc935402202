"""What apply would do, decided from values alone. What each action looks like is in cases/plan."""

from __future__ import annotations

import itertools
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import locks
import pytest
from conftest import SPEC, Cli, Folder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evalops import catalog, plan
from evalops.errors import Exit, Mark
from evalops.lock import Entry, Lock, Status
from evalops.plan import Action, Change, Denial, Estimate, Known, Options, Plan, Wanted, build
from evalops.project import Project
from evalops.settings import Budget

MATRIX = SPEC + "matrix:\n  judge.model: [ollama/a, ollama/b]\n"
GRADE = SPEC.replace("tone", "grade").replace("classify", "score").split("labels:")[0] + "min_score: 1\nmax_score: 5\n"


def wanted(project: Project) -> list[Wanted]:
    found = catalog.read(project)
    assert not found.diagnostics, found.diagnostics
    return list(found.wanted)


def actions(made: Plan) -> dict[str, str]:
    return {f"{each.lock}:{each.address}": each.action.value for each in made.changes}


def only(made: Plan) -> Change:
    (change,) = made.changes
    return change


@pytest.fixture
def two(folder: Folder) -> Project:
    return folder.write({"tone.yaml": SPEC, "grade.yaml": GRADE})


# --- the table of actions ---


def test_signs_and_money_are_complete() -> None:
    assert {action.sign for action in Action} == set("+~<>*.=?!")
    assert {action.value for action in Action if action.money == "paid"} == {"create", "rerun"}
    assert [action for action in Action if not action.is_change] == [Action.NOOP]


def test_after_an_apply_all_is_in_step(two: Project) -> None:
    found = wanted(two)
    assert actions(build(found, {})) == {"grade.lock:grade": "create", "tone.lock:tone": "create"}
    after = build(found, locks.of(two))
    assert actions(after) == {"grade.lock:grade": "noop", "tone.lock:tone": "noop"}
    assert not after.has_changes


@pytest.mark.parametrize("status", [Status.PENDING, Status.RUNNING, Status.CANCELLED])
def test_an_open_job_is_gone_on_with(two: Project, status: Status) -> None:
    found = build(wanted(two), locks.of(two, {"tone": {"status": status, "summary": None}}))
    assert actions(found) == {"grade.lock:grade": "noop", "tone.lock:tone": "resume"}


def test_an_open_job_that_the_provider_does_not_have_has_vanished(two: Project) -> None:
    made = locks.of(two, {"tone": {"status": Status.RUNNING}})
    entry = made["tone.lock"].entries["tone"]
    here = Known(entry.fingerprint, 1, "job")
    assert actions(build(wanted(two), made, [here]))["tone.lock:tone"] == "resume"
    for jobs in ([], [here._replace(generation=2)], [here._replace(fingerprint="0" * 64)]):
        change = next(build(wanted(two), made, jobs).of(Action.FAILED))
        assert (change.address, change.reason) == ("tone", "the provider no longer has the job")
    again = build(wanted(two), made, [], options=Options(retry_failed=True))
    assert actions(again)["tone.lock:tone"] == "resume"


def test_a_finished_job_need_not_be_at_the_provider_any_more(two: Project) -> None:
    assert not build(wanted(two), locks.of(two), []).has_changes


def test_a_failed_job_is_never_submitted_by_itself(two: Project) -> None:
    made = locks.of(two, {"tone": {"status": Status.FAILED, "message": "the endpoint is down"}})
    change = next(build(wanted(two), made).of(Action.FAILED))
    assert change.reason == "the endpoint is down"
    assert build(wanted(two), made).digest == build(wanted(two), made, []).digest
    assert actions(build(wanted(two), made, options=Options(retry_failed=True)))["tone.lock:tone"] == "resume"


def test_a_job_at_the_provider_is_adopted_by_fingerprint_and_generation(two: Project) -> None:
    found = wanted(two)
    tone = next(each for each in found if each.evaluation.name == "tone")
    known = Known(tone.identity.fingerprint, 1, "job-7")
    made = build(found, {}, [known._replace(generation=2), known, known._replace(job="later")])
    assert actions(made) == {"grade.lock:grade": "create", "tone.lock:tone": "adopt"}
    assert next(made.of(Action.ADOPT)).job == "job-7"
    assert actions(build(found, {}, [known._replace(generation=2)]))["tone.lock:tone"] == "create"


def test_a_run_again_asked_for_has_the_next_generation(two: Project) -> None:
    options = Options(rerun=frozenset({"tone"}), reason="the model was upgraded")
    made = build(wanted(two), locks.of(two, {"tone": {"generation": 3}}), options=options)
    change = next(made.of(Action.RERUN))
    assert (change.generation, change.why, change.fields) == (4, "the model was upgraded", ())
    assert actions(build(wanted(two), {}, options=options))["tone.lock:tone"] == "create"


def test_a_rename_is_free_and_leaves_nothing_behind(folder: Folder) -> None:
    made = locks.of(folder.write({"tone.yaml": SPEC}))
    found = build(wanted(folder.write({"tone.yaml": SPEC.replace("name: tone", "name: manners")})), made)
    assert actions(found) == {"tone.lock:manners": "adopt", "tone.lock:tone": "forget"}
    adopt = next(found.of(Action.ADOPT))
    assert (adopt.source, adopt.found, adopt.reason) == (
        "tone",
        made["tone.lock"].entries["tone"],
        "renamed from `tone`",
    )
    assert adopt.estimate == Estimate()


def test_a_swap_of_two_names_costs_nothing(folder: Folder) -> None:
    other = SPEC.replace("ollama/llama3.2", "ollama/qwen3")
    made = locks.of(folder.write({"a.yaml": SPEC, "b.yaml": other.replace("tone", "manners")}))
    swapped = folder.write({"a.yaml": other, "b.yaml": SPEC.replace("tone", "manners")})
    assert actions(build(wanted(swapped), made)) == {"a.lock:tone": "adopt", "b.lock:manners": "adopt"}


def test_going_back_to_what_another_address_has_is_free(folder: Folder) -> None:
    made = locks.of(folder.write({"tone.yaml": MATRIX}))
    found = build(wanted(folder.write({"tone.yaml": SPEC.replace("llama3.2", "b")})), made)
    assert next(found.of(Action.ADOPT)).reason == "renamed from `tone[model=ollama/b]`"


def test_the_same_work_is_paid_for_once(folder: Folder) -> None:
    project = folder.write(
        {"a.yaml": SPEC.replace("tone", "b"), "b.yaml": SPEC.replace("tone", "a"), "c.yaml": SPEC.replace("tone", "c")}
    )
    made = build(wanted(project), {})
    assert actions(made) == {"b.lock:a": "create", "a.lock:b": "adopt", "c.lock:c": "adopt"}
    assert {each.source for each in made.of(Action.ADOPT)} == {"a"}
    assert all(each.waits for each in made.of(Action.ADOPT))
    asked = Options(rerun=frozenset("abc"))
    assert sorted(actions(build(wanted(project), locks.of(project), options=asked)).values()) == [
        "adopt",
        "adopt",
        "rerun",
    ]


def test_only_a_finished_entry_is_adopted(folder: Folder) -> None:
    made = locks.of(folder.write({"tone.yaml": SPEC}), {"tone": {"status": Status.RUNNING}})
    found = build(wanted(folder.write({"tone.yaml": SPEC.replace("name: tone", "name: manners")})), made)
    assert actions(found) == {"tone.lock:manners": "create", "tone.lock:tone": "forget"}


def test_without_all_evaluations_nothing_is_forgotten(two: Project) -> None:
    assert actions(build(wanted(two)[:1], locks.of(two), forget=False)) == {"grade.lock:grade": "noop"}
    assert actions(build(wanted(two)[:1], locks.of(two)))["tone.lock:tone"] == "forget"


# --- what changed ---

CHANGES: list[tuple[str, str, Action, list[str]]] = [
    ("ollama/llama3.2", "ollama/qwen3", Action.RERUN, ["judge.model"]),
    ("Is this", "Was this", Action.RERUN, ["judge.system_template"]),
    (
        "  model:",
        "  max_tokens: 9\n  temperature: 1\n  model:",
        Action.RERUN,
        ["judge.max_tokens", "judge.temperature"],
    ),
    ("labels: [polite, rude]", "labels: [rude, polite]", Action.RERUN, ["labels"]),
    ("pass_labels: [polite]", "pass_labels: [rude]", Action.REGRADE, []),
    ("pass_labels: [polite]", "gold: label", Action.REGRADE, []),
    ("pass_labels: [polite]", "pass_labels: [polite]\nthresholds: {pass_percentage: {min: 50}}", Action.REGRADE, []),
    ("pass_labels: [polite]", "pass_labels: [polite]\nthresholds: {}\ntags: [a]\ndescription: b", Action.NOOP, []),
]


@pytest.mark.parametrize(("old", "new", "action", "names"), CHANGES, ids=lambda value: str(value)[:20])
def test_an_edit(folder: Folder, old: str, new: str, action: Action, names: list[str]) -> None:
    made = locks.of(folder.write({"tone.yaml": SPEC}))
    assert old in SPEC
    change = only(build(wanted(folder.write({"tone.yaml": SPEC.replace(old, new)})), made))
    assert (change.action, [each.name for each in change.fields]) == (action, names)
    for field in change.fields:
        line = folder.read("tone.yaml").splitlines()[field.mark.line - 1]
        assert line.strip().startswith(field.name.rsplit(".", 1)[-1])


@pytest.mark.parametrize("bounds", ["{min: 60}", "{min: 50, max: 90}", "{max: 50}", "{min: 50, on: lower}", None])
def test_another_threshold_is_graded_again(folder: Folder, bounds: str | None) -> None:
    base = SPEC + "thresholds:\n  pass_percentage: {min: 50}\n  invalid_rate: {max: 0.1}\n"
    made = locks.of(folder.write({"tone.yaml": base}))
    new = base.replace("{min: 50}", bounds) if bounds else base.replace("  pass_percentage: {min: 50}\n", "")
    assert only(build(wanted(folder.write({"tone.yaml": new})), made)).action is Action.REGRADE
    swapped = SPEC + "thresholds:\n  invalid_rate: {max: 0.10}\n  pass_percentage: {min: 50.0}\n"
    assert only(build(wanted(folder.write({"tone.yaml": swapped})), made)).action is Action.NOOP


def test_numbers_of_another_kind_are_no_change(folder: Folder) -> None:
    made = locks.of(folder.write({"grade.yaml": GRADE}))
    assert not build(
        wanted(folder.write({"grade.yaml": GRADE.replace("min_score: 1", "min_score: 1.0")})), made
    ).has_changes


# --- digest ---


def test_the_digest_covers_what_an_approval_is_for(two: Project) -> None:
    found = wanted(two)
    base = build(found, {})
    assert base.digest == build(list(reversed(found)), {}, []).digest
    assert base.digest == plan.within(build(found, {}, estimate=lambda each: Estimate(rows=9)), Budget()).digest
    made = locks.of(two)
    different = [
        build(found[1:], {}),
        build(found, {"tone.lock": made["tone.lock"]}),
        build(found, made),
        build(found, made, options=Options(rerun=frozenset({"tone"}))),
        build(found, locks.of(two, {"tone": {"generation": 2}}), options=Options(rerun=frozenset({"tone"}))),
        plan.deny(base, {"tone": Denial("no")}),
    ]
    assert len({each.digest for each in different} | {base.digest}) == len(different) + 1


def test_what_is_in_step_may_come_and_go_without_staling_an_approval(two: Project, folder: Folder) -> None:
    made = locks.of(two)
    found = build(wanted(two), {"grade.lock": made["grade.lock"]})
    (folder.root / "grade.yaml").unlink()
    assert build(wanted(Project(folder.root)), {}).digest == found.digest


# --- policy and budget ---


def test_only_what_costs_money_is_denied(two: Project) -> None:
    made = locks.of(two)
    denied = plan.deny(
        build(wanted(two), {"tone.lock": made["tone.lock"]}), {"tone": Denial("rule"), "grade": Denial("rule")}
    )
    assert actions(denied) == {"grade.lock:grade": "denied", "tone.lock:tone": "noop"}


def test_what_waits_for_denied_work_is_denied_with_it(folder: Folder) -> None:
    project = folder.write({"a.yaml": SPEC.replace("tone", "a"), "b.yaml": SPEC.replace("tone", "b"), "c.yaml": GRADE})
    made = plan.deny(build(wanted(project), {}), {"a": Denial("rule", Mark("a.yaml", 3))})
    assert (made.changes[0].reason, made.changes[0].mark) == ("rule", Mark("a.yaml", 3))
    assert actions(made) == {"a.lock:a": "denied", "b.lock:b": "denied", "c.lock:grade": "create"}
    assert made.changes[1].reason == "`a`, the same work, is denied"
    # A finished entry can be adopted whatever the policy says of new work.
    done = {"a.lock": locks.of(project)["a.lock"]}
    assert actions(plan.deny(build(wanted(project), done), {"a": Denial("p"), "b": Denial("p")}))["b.lock:b"] == "adopt"


def costs(two: Project, *estimates: Estimate) -> Plan:
    found = wanted(two)
    table = dict(zip([each.evaluation.address for each in found], estimates, strict=True))
    return build(found, {}, estimate=lambda each: table[each.evaluation.address])


@pytest.mark.parametrize(
    ("budget", "denied"),
    [
        (Budget(), {}),
        (Budget(rows=30, calls=60, cost=3.0), {}),
        (Budget(rows=29), {"tone": "over `budget.rows`: 30 of 29"}),
        (Budget(calls=59), {"tone": "over `budget.calls`: 60 of 59"}),
        (Budget(cost=2.5), {"tone": "over `budget.cost`: 3 of 2.5"}),
        (Budget(rows=9), {"grade": "over `budget.rows`: 10 of 9", "tone": "over `budget.rows`: 20 of 9"}),
        (Budget(rows=20), {"tone": "over `budget.rows`: 30 of 20"}),
        (Budget(rows=0, cost=0), {"grade": "over `budget.rows`: 10 of 0", "tone": "over `budget.rows`: 20 of 0"}),
        (Budget(per_evaluation=Budget(rows=20, calls=40, cost=2.0)), {}),
        (Budget(per_evaluation=Budget(rows=15)), {"tone": "over `budget.per_evaluation.rows`: 20 of 15"}),
        (Budget(per_evaluation=Budget(calls=39)), {"tone": "over `budget.per_evaluation.calls`: 40 of 39"}),
        (Budget(per_evaluation=Budget(cost=1.5)), {"tone": "over `budget.per_evaluation.cost`: 2 of 1.5"}),
        # What one may not take leaves its part of the whole to the others.
        (Budget(calls=40, per_evaluation=Budget(rows=15)), {"tone": "over `budget.per_evaluation.rows`: 20 of 15"}),
        (
            Budget(calls=19, per_evaluation=Budget(rows=15)),
            {"grade": "over `budget.calls`: 20 of 19", "tone": "over `budget.per_evaluation.rows`: 20 of 15"},
        ),
    ],
)
def test_a_budget(two: Project, budget: Budget, denied: Mapping[str, str]) -> None:
    made = plan.within(costs(two, Estimate(rows=10, calls=20, cost=1.0), Estimate(rows=20, calls=40, cost=2.0)), budget)
    assert {each.address: each.reason for each in made.of(Action.DENIED)} == denied


def test_a_cost_that_is_not_known_is_over_any_bound_on_cost(two: Project) -> None:
    made = plan.within(costs(two, Estimate(rows=1, cost=None), Estimate(rows=1, cost=0.5)), Budget(cost=1.0))
    assert {each.address: each.reason for each in made.of(Action.DENIED)} == {
        "grade": "`budget.cost` is set, and a model of this evaluation has no price"
    }


# --- for any project and any state ---

STATES = st.sampled_from([None, "done", "other grade", *(status.value for status in Status), "other work"])


def entry(project: Project, each: Wanted, state: str, generation: int) -> Entry:
    made = replace(locks.entry(project, each), generation=generation)
    match state:
        case "other work":
            return replace(made, fingerprint="0" * 64)
        case "other grade":
            return replace(made, grade="0" * 64)
        case "done":
            return made
    return replace(made, status=Status(state))


def simulate(project: Project, made: Plan, before: Mapping[str, Lock]) -> dict[str, Lock]:
    """The locks after an apply of a plan in which every job succeeds."""
    after = dict(before)
    for change in made.changes:
        lock = after.get(change.lock, Lock(path=change.lock))
        if change.action is Action.FORGET:
            after[change.lock] = lock.drop([change.address])
        elif change.wanted and change.action is not Action.NOOP:
            new = replace(locks.entry(project, change.wanted), generation=change.generation)
            after[change.lock] = lock.put(new)
    return after


@given(st.lists(STATES, min_size=4, max_size=4), st.integers(1, 3), st.booleans())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_one_apply_brings_any_project_in_step(
    folder: Folder, states: Sequence[str | None], generation: int, asked: bool
) -> None:
    project = folder.write({"tone.yaml": MATRIX, "again.yaml": SPEC.replace("tone", "again"), "grade.yaml": GRADE})
    found = wanted(project)
    before: dict[str, Lock] = {
        "old.lock": Lock(
            path="old.lock",
            entries={"gone": replace(locks.entry(project, found[0]), address="gone", fingerprint="1" * 64)},
        )
    }
    for each, state in zip(found, states, strict=True):
        if state is not None:
            path = plan.beside(each.evaluation.spec)
            before[path] = before.get(path, Lock(path=path)).put(entry(project, each, state, generation))
    jobs = [] if asked else None
    made = build(found, before, jobs, options=Options(retry_failed=True))
    assert {each.action for each in made.changes}.isdisjoint({Action.FAILED, Action.DENIED, Action.UNKNOWN})
    assert [each.address for each in made.changes] == sorted(each.address for each in made.changes)
    assert (
        build(list(reversed(found)), dict(reversed(before.items())), jobs, options=Options(retry_failed=True)) == made
    )
    paid = [(each.fingerprint, each.generation) for each in made.changes if each.action.money == "paid"]
    assert len(set(paid)) == len(paid), "the same work is paid for twice"
    assert not build(found, simulate(project, made, before)).has_changes


# --- through the files ---


def test_a_plan_needs_no_network_no_key_and_no_process_of_the_repository(
    two: Project, cli: Cli, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder.root / "conftest.py").write_text("raise SystemExit('imported')")
    (folder.root / "sitecustomize.py").write_text("raise SystemExit('imported')")
    (folder.root / ".env").write_text("OPENAI_BASE_URL=https://evil.example\n")
    first = cli("plan", "--format", "json")
    monkeypatch.setattr(socket, "socket", None)
    monkeypatch.setattr(subprocess, "Popen", None)
    for name in ("HOME", "PATH", "USER"):
        monkeypatch.delenv(name, raising=False)
    assert cli("plan", "--format", "json", "-x", "none") == first


def test_a_saved_plan_of_a_moved_evaluation_can_be_carried_out(folder: Folder, cli: Cli, home: Any) -> None:
    locks.write(folder.write({"tone.yaml": SPEC}), locks.of(Project(folder.root)).values())
    folder.write({"tone.yaml": None, "support/tone.yaml": SPEC})
    assert cli("plan", "--out", "plan.json").code == Exit.OK
    done = cli("apply", "plan.json")
    assert done.code == Exit.OK, done.err
    assert cli("plan", "--detailed-exitcode").code == Exit.OK
    assert not (folder.root / "tone.lock").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "the document must be a mapping, not a list"),
        ('{"changes": [{"address": "tone"}]}', "`diagnostics` is missing"),
        (None, "No such file or directory"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_no_saved_plan(project: Project, cli: Cli, text: str | None, why: str) -> None:
    if text is not None:
        Path("plan.json").write_text(text)
    done = cli("apply", "plan.json")
    assert done.code == Exit.PROBLEM
    assert f"error[plan/unreadable]: `plan.json` is no saved plan: {why}" in done.err


def test_half_a_character_in_a_dataset_can_be_printed(folder: Folder, cli: Cli) -> None:
    spec = SPEC.split("judge:")[0] + "judge: {column: label}\nlabels: [polite, rude]\n"
    folder.write({"tone.yaml": spec, "data/rows.jsonl": '{"response": "\\ud83d", "label": "polite"}\n'})
    for arguments in (["plan"], ["plan", "--format", "json"], ["apply", "--yes"], ["show", "tone"], ["rows", "tone"],
                      ["rows", "tone", "--format", "csv"], ["rows", "tone", "--format", "table"]):  # fmt: skip
        assert cli(*arguments).code == Exit.OK
    assert cli("rows", "tone").json["source"]["response"] == "\ud83d"


def test_every_pair_of_actions_sorts_by_address(two: Project) -> None:
    made = locks.of(two)
    for subset in itertools.chain.from_iterable(itertools.combinations(made, size) for size in range(3)):
        changes = build(wanted(two), {path: made[path] for path in subset}).changes
        assert [each.address for each in changes] == ["grade", "tone"]
