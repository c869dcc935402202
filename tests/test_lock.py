"""The lockfile: what is written is read back, and what nobody wrote is refused."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import locks
import pytest
from conftest import SPEC, Folder
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.errors import EvalopsError
from evalops.lock import Entry, Lock, Status, beside, dump, parse
from evalops.project import Project

HEX = st.text("0123456789abcdef", min_size=64, max_size=64)
NUMBERS = st.integers(-(10**15), 10**15) | st.floats(allow_nan=False, allow_infinity=False)
METRICS = st.builds(lambda value, n: {"value": value, "n": n}, st.none() | NUMBERS, st.integers(0, 10**6))
SUMMARIES = st.builds(
    lambda counts, metrics, warnings: {
        "job": "j",
        **counts,
        "metrics": metrics,
        "warnings": warnings,
        "later": {"x": 1},
    },
    st.fixed_dictionaries({key: st.integers(0, 10**6) for key in ("rows", "scored", "invalid", "errors")}),
    st.dictionaries(st.text(max_size=9), METRICS, max_size=3),
    st.lists(st.text(max_size=20), max_size=2),
)
GATES = st.builds(
    lambda metric, value, verdict: {"metric": metric, "min": 0.5, "on": "lower", "value": value, "verdict": verdict},
    st.text(max_size=9), st.none() | NUMBERS, st.sampled_from(["passed", "failed"]),
)  # fmt: skip
ENTRIES = st.builds(
    Entry,
    address=st.text(min_size=1, max_size=20),
    fingerprint=HEX,
    generation=st.integers(1, 99),
    reason=st.none() | st.text(max_size=20),
    provider=st.text(max_size=9),
    origin=st.none() | st.text(max_size=9),
    job=st.none() | st.text("abcABC012_-", min_size=1, max_size=128),
    status=st.sampled_from(Status),
    message=st.none() | st.text(max_size=40),
    created_at=st.just("2026-01-31T08:00:00Z"),
    finished_at=st.none() | st.just("2026-01-31T08:01:07Z"),
    dataset=st.builds(lambda rows, one, two: {"rows": rows, "digest": one, "submitted": two}, st.integers(0), HEX, HEX),
    inputs=st.dictionaries(st.text(max_size=9), st.text() | NUMBERS | st.booleans(), max_size=3).map(
        lambda found: {**found, "type": "classify"}
    ),
    grade=HEX,
    summary=st.none() | SUMMARIES,
    gates=st.lists(GATES, max_size=2).map(tuple),
    unknown=st.dictionaries(st.sampled_from(["later", "zeal"]), st.text(max_size=5) | st.none()),
)
LOCKS = st.builds(
    lambda entries, unknown: Lock(path="a.lock", entries={each.address: each for each in entries}, unknown=unknown),
    st.lists(ENTRIES, max_size=3, unique_by=lambda entry: entry.address),
    st.dictionaries(st.just("remark"), st.text(max_size=9)),
)


@pytest.fixture
def text(folder: Folder) -> str:
    """A lockfile of two evaluations, as an apply writes it."""
    project = folder.write(
        {"tone.yaml": SPEC + "thresholds: {pass_percentage: {min: 50}}\n---\n" + SPEC.replace("tone", "manners")}
    )
    return dump(locks.of(project)["tone.lock"])


def refused(text: str) -> list[tuple[str, str]]:
    with pytest.raises(EvalopsError) as caught:
        parse(text, "tone.lock")
    assert all(each.hint for each in caught.value.diagnostics)
    return [(each.code, each.message) for each in caught.value.diagnostics]


# --- writing and reading ---


@given(LOCKS)
@settings(max_examples=40)
def test_what_is_written_is_read_back(lock: Lock) -> None:
    text = dump(lock)
    assert parse(text, "a.lock") == lock
    assert dump(parse(text, "a.lock")) == text


@given(LOCKS, st.randoms(use_true_random=False))
@settings(max_examples=20)
def test_the_order_in_which_things_came_says_nothing(lock: Lock, random: Any) -> None:
    addresses = random.sample(sorted(lock.entries), len(lock.entries))
    assert dump(
        Lock(path="b.lock", entries={key: lock.entries[key] for key in addresses}, unknown=lock.unknown)
    ) == dump(lock)


def test_the_text_is_made_for_review(text: str) -> None:
    lines = text.splitlines()
    assert text.endswith("}\n")
    assert not any(line != line.rstrip() for line in lines)
    assert max(map(len, lines)) < 120
    assert [line.strip().split('"')[1] for line in lines if line.startswith("    ") and line[4] == '"'] == [
        "manners",
        "tone",
    ]
    entry = lines[lines.index('    "tone": {') + 1 :]
    keys = [line.strip().split('"')[1] for line in entry if line.startswith("      ") and line[6] == '"']
    assert keys == [
        "fingerprint", "generation", "provider", "job", "status", "created_at", "finished_at", "dataset", "inputs",
        "grade", "summary", "gates", "digest",
    ]  # fmt: skip


def test_an_edit_elsewhere_leaves_an_entry_as_it_was(text: str) -> None:
    lock = parse(text, "tone.lock")
    new = dump(
        lock.put(Entry(**{**{name: getattr(lock.entries["tone"], name) for name in Entry.__slots__}, "address": "zz"}))
    )
    assert new.startswith(text[: text.rindex("    }")])


def test_what_is_not_known_is_kept(text: str) -> None:
    value = json.loads(text)
    lock = parse(text, "tone.lock")
    entry = lock.entries["tone"]
    later = Entry(**{**{name: getattr(entry, name) for name in Entry.__slots__}, "unknown": {"signature": ["x"]}})
    again = parse(dump(Lock(path="tone.lock", entries={"tone": later}, unknown={"tool": "2.0"})), "tone.lock")
    assert again.entries["tone"].unknown == {"signature": ["x"]}
    assert again.unknown == {"tool": "2.0"}
    assert value["version"] == 1


def test_put_and_drop_make_another_lock(text: str) -> None:
    lock = parse(text, "tone.lock")
    assert list(lock.drop(["tone", "none"]).entries) == ["manners"]
    assert lock.drop(lock.entries).put(*lock.entries.values()) == lock
    assert list(lock.entries) == ["manners", "tone"]


@pytest.mark.parametrize(
    ("spec", "lock"),
    [("a.yaml", "a.lock"), ("b/a.yml", "b/a.lock"), ("a.b.yaml", "a.b.lock"), ("b.c/a.yaml", "b.c/a.lock")],
)
def test_beside(spec: str, lock: str) -> None:
    assert beside(spec) == lock


def test_half_a_character_is_written_as_an_escape(folder: Folder) -> None:
    project = folder.write({"tone.yaml": SPEC})
    (lock,) = locks.of(project, {"tone": {"status": Status.FAILED, "message": "the endpoint said \ud83d"}}).values()
    project.write_lock(lock)
    assert r"said \ud83d" in folder.read("tone.lock")
    assert project.locks() == ({"tone.lock": lock}, [])


# --- what nobody wrote ---


def leaves(value: Any, route: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [found for key, each in value.items() for found in leaves(each, (*route, key))]
    if isinstance(value, list):
        return [found for index, each in enumerate(value) for found in leaves(each, (*route, index))]
    return [route]


def other(value: Any) -> Any:
    """A value of the same kind, or nearly."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str() if len(value) == 64:
            return ("0" if value[0] != "0" else "1") + value[1:]
        case str():
            return value + "x"
    return 0


def test_every_value_of_an_entry_is_under_its_digest(text: str) -> None:
    value = json.loads(text)
    routes = [route for route in leaves(value) if route[0] == "evaluations"]
    assert len(routes) > 60
    for route in routes:
        changed = json.loads(text)
        place = changed
        for key in route[:-1]:
            place = place[key]
        place[route[-1]] = other(place[route[-1]])
        codes = {code for code, _ in refused(json.dumps(changed))}
        assert codes <= {"lock/edited", "schema/value"}, route
        assert codes, route


def test_a_key_more_less_or_elsewhere_is_an_edit(text: str) -> None:
    for edit in (
        lambda entry: entry.pop("summary"),
        lambda entry: entry["summary"].pop("warnings", entry["summary"].pop("usage")),
        lambda entry: entry.update(note="fine"),
        lambda entry: entry["gates"].append(entry["gates"][0]),
        lambda entry: entry["summary"]["metrics"].update(kappa=entry["summary"]["metrics"]["pass_percentage"]),
    ):
        value = json.loads(text)
        edit(value["evaluations"]["tone"])
        assert refused(json.dumps(value))[0][0] == "lock/edited"


def test_an_entry_under_another_address_is_an_edit(text: str) -> None:
    value = json.loads(text)
    value["evaluations"]["other"] = value["evaluations"].pop("tone")
    assert refused(json.dumps(value)) == [
        ("lock/edited", "the entry `other` does not match its digest: it was edited by hand, or a merge mixed two")
    ]


def test_all_edited_entries_are_named(text: str) -> None:
    found = refused(text.replace("completed", "failed"))
    assert [message.split("`")[1] for _, message in found] == ["manners", "tone"]


def test_the_way_the_file_is_written_says_nothing(text: str) -> None:
    value = json.loads(text)
    value["evaluations"] = dict(reversed(value["evaluations"].items()))
    assert parse(json.dumps(value, sort_keys=True), "tone.lock") == parse(text, "tone.lock")


@pytest.mark.parametrize(
    ("edit", "code", "message"),
    [
        (lambda text: text.replace('"version": 1', '"version": 2'), "lock/newer-version",
         "this lockfile has version 2, this evalops knows 1"),
        (lambda text: text.replace('"version": 1', '"version": 0'), "schema/value",
         "`version` must be at least 1, not 0"),
        (lambda text: text.replace('"version": 1,', ""), "schema/missing-key", "`version` is missing"),
        (lambda text: "", "lock/syntax", "this lockfile is not JSON"),
        (lambda text: text[:500], "lock/syntax", "this lockfile is not JSON"),
        (lambda text: text + text, "lock/syntax", "this lockfile is not JSON"),
        (lambda text: "[]", "schema/value", "the document must be a mapping, not a list"),
        (lambda text: "null", "schema/value", "the document has no value, it must be a mapping"),
        (lambda text: "[" * 100_000, "lock/syntax", "this lockfile is nested too deeply"),
        (lambda text: f'{{"version": 1, "evaluations": {{}}, "x": {"[" * 900}{"]" * 900}}}' * 1, None, None),
        (lambda text: text.replace('"rows": 3', '"rows": NaN'), "lock/syntax",
         "this lockfile cannot be used: `NaN` is no number that it can hold"),
        (lambda text: text.replace('"rows": 3', '"rows": 1e999'), "lock/syntax",
         "this lockfile cannot be used: `1e999` is no number that it can hold"),
        (lambda text: text.replace('"rows": 3', '"rows": ' + "3" * 1001), "lock/syntax",
         "this lockfile cannot be used: `33333333333333333333` is no number that it can hold"),
        (lambda text: text.replace('"generation": 1', '"generation": 1, "generation": 1'), "lock/syntax",
         "this lockfile cannot be used: it has the key `generation` twice in one object"),
        (lambda text: text.replace('"manners": {', '"tone": {'), "lock/syntax",
         "this lockfile cannot be used: it has the key `tone` twice in one object"),
    ],
)  # fmt: skip
def test_what_is_no_lockfile(text: str, edit: Any, code: str | None, message: str | None) -> None:
    if code is None:
        assert parse(edit(text), "tone.lock").entries == {}
    else:
        assert refused(edit(text))[0] == (code, message)


@given(st.text() | st.binary().map(lambda data: data.decode("utf-8", "replace")))
def test_no_text_breaks_it(noise: str) -> None:
    assert refused(noise)


@pytest.mark.parametrize("job", ["../../etc/passwd", "a b", "", "x" * 129, "a\n", "a/b", "ä"])
def test_a_job_that_is_no_id(text: str, job: str) -> None:
    value = json.loads(text)
    value["evaluations"]["tone"]["job"] = job
    assert ("schema/value", "`evaluations.tone.job` is not written as it must be") in refused(json.dumps(value))


# --- merges ---


def git(root: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def branch(project: Project, name: str, addresses: dict[str, dict[str, Any]]) -> None:
    """A branch off the first commit on which these entries changed."""
    git(project.root, "checkout", "-q", "-b", name, "first")
    for lock in locks.of(project, addresses).values():
        project.write_lock(lock)
    git(project.root, "commit", "-qam", name)


@pytest.fixture
def repository(folder: Folder, home: Path) -> Project:
    """A repository whose first commit holds two evaluations in step."""
    project = folder.write({"tone.yaml": SPEC + "---\n" + SPEC.replace("tone", "manners")})
    for lock in locks.of(project).values():
        project.write_lock(lock)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "first"], ["branch", "-q", "first"]):
        git(project.root, *command)
    return project


def test_a_merge_of_two_entries_keeps_both(repository: Project) -> None:
    branch(repository, "ours", {"tone": {"generation": 2, "job": "tone-2"}})
    branch(repository, "theirs", {"manners": {"generation": 2, "job": "manners-2"}})
    assert "CONFLICT" not in git(repository.root, "merge", "ours")
    found, problems = repository.locks()
    assert problems == []
    assert {address: entry.job for address, entry in found["tone.lock"].entries.items()} == {
        "tone": "tone-2", "manners": "manners-2",
    }  # fmt: skip


def test_a_merge_of_one_entry_from_two_sides_is_a_conflict_or_refused(repository: Project) -> None:
    # A re-ran it as job 2, B collected job 1: lines apart, so without the digest git would mix them into one.
    branch(repository, "ours", {"tone": {"generation": 2, "job": "tone-2", "created_at": "2026-02-01T08:00:00Z"}})
    branch(repository, "theirs", {"tone": {"message": "collected", "finished_at": "2026-02-02T08:00:00Z"}})
    assert "CONFLICT" in git(repository.root, "merge", "ours")
    _, problems = repository.locks()
    assert [(each.code, each.message) for each in problems] == [
        ("lock/syntax", "this lockfile holds an unresolved merge")
    ]


def test_an_entry_put_together_from_two_sides_is_refused(repository: Project) -> None:
    branch(repository, "ours", {"tone": {"generation": 2, "job": "tone-2"}})
    branch(repository, "theirs", {"tone": {"finished_at": "2026-02-02T08:00:00Z"}})
    git(repository.root, "merge", "-X", "ours", "ours")  # every conflict taken from one side, as a hurried person does
    assert "<<<" not in (repository.root / "tone.lock").read_text()
    _, problems = repository.locks()
    assert [(each.code, each.address) for each in problems] == [("lock/edited", "tone")]
