"""--trusted-ref: what a pull request may cost, call and run is said by another revision, in a real git repository."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import PACKAGE, truths
from command import Done
from counting_proxy import CountingProxy
from markdown_it import MarkdownIt
from model_server import Server, serve
from repository import Repository

import evalops
from evalops import catalog, jobs
from evalops.cli.report import value_of
from evalops.errors import EvalopsError
from evalops.lock import Entry, Lock, Status
from evalops.project import Project
from evalops.trusted import project as trusting
from evalops.views import comment

KEY = "sk-canary-of-the-house-1123581321"
PRICE = {"input": 10.0, "output": 10.0, "as_of": "2099-11-01"}


@pytest.fixture(scope="module")
def ours() -> Iterator[Server]:
    with serve() as running:
        yield running


@pytest.fixture(scope="module")
def evil() -> Iterator[CountingProxy]:
    """Where a pull request would like rows and keys to go."""
    with CountingProxy() as running:
        yield running


@pytest.fixture
def here(tmp_path: Path, home: Path, ours: Server, monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Main has rules; on the branch there is a spec that keeps them."""
    monkeypatch.setenv("HOUSE_KEY", KEY)
    made = Repository.make(tmp_path / "project")
    made.write({"rows.jsonl": "".join(json.dumps(row) + "\n" for row in truths(12))})
    configure(made, settings(ours))
    made.commit("main")
    made.branch("change")
    spec(made)
    made.commit("a spec")
    return made


def settings(ours: Server) -> dict[str, Any]:
    origin = ours.url.removesuffix("/v1")
    return {
        "version": 1,
        "models": {"judge": {"base_url": ours.url, "credential": "house"}},
        "credentials": {"house": {"env": "HOUSE_KEY", "origins": [origin]}},
        "judges": {"strict": {"model": "judge", "system_template": "Is the reply polite?"}},
        "providers": {"local": {"down_after": 1.0}},
        "prices": {"judge": PRICE},
        "budget": {"calls": 20},
        "policy": {"small": {"schema": {"properties": {"rows": {"maximum": 15}}}}},
    }


def configure(made: Repository, value: dict[str, Any]) -> None:
    made.write({"evalops.yaml": yaml.safe_dump(value, sort_keys=False)})


def change(made: Repository, **sections: Any) -> None:
    """What the branch does to evalops.yaml; None removes a section."""
    value = yaml.safe_load(made.read("evalops.yaml"))
    configure(made, {key: each for key, each in {**value, **sections}.items() if each is not None})


def spec(made: Repository, **fields: Any) -> None:
    what = {"labels": ["polite", "rude"], "pass_labels": ["polite"], "model_to_evaluate": "response", "judge": "strict"}
    value = {"version": 1, "name": "tone", "type": "classify", "dataset": "rows.jsonl", **what, **fields}
    made.write(
        {"tone.yaml": yaml.safe_dump({key: each for key, each in value.items() if each is not None}, sort_keys=False)}
    )


def run(made: Repository, *arguments: str, ref: str = "main") -> Done:
    return made.run(*arguments, "--trusted-ref", ref)


def actions(done: Done) -> dict[str, str]:
    assert done.code == 0, done
    return {each["address"]: each["action"] for each in done.json["changes"]}


def planned(made: Repository) -> tuple[str, str]:
    """The action of `tone` by the branch's own settings, and by those of main."""
    plans = (made.run("plan", "--format", "json"), run(made, "plan", "--format", "json"))
    first, second = (actions(each)["tone"] for each in plans)
    return first, second


# --- what cannot be weakened ---


def test_a_budget(here: Repository, ours: Server) -> None:
    more = "".join(json.dumps(row) + "\n" for row in truths(21))
    change(here, budget={"calls": 1000}, policy=None)
    here.write({"rows.jsonl": more})
    here.commit()
    assert planned(here) == ("create", "denied")
    before = ours.ledger.requests
    done = run(here, "apply", "--yes")
    assert done.code == 1 and "the rule `small` forbids it: `rows` must be at most 15, not 21" in done.err
    assert ours.ledger.requests == before and not (here.root / "tone.lock").exists()
    done = run(here, "check", "--format", "json")
    assert done.code == 1 and [each["code"] for each in done.json["diagnostics"]] == ["check/denied"]


def test_a_budget_that_is_taken_away(here: Repository) -> None:
    change(here, budget=None)
    spec(here, repeats=2)
    here.commit()
    assert planned(here) == ("create", "denied")
    assert "over `budget.calls`: 24 of 20" in run(here, "plan").out


@pytest.mark.parametrize(
    "policy", [None, {}, {"small": {"schema": True}}, {"small": {"schema": False, "severity": "warning"}}]
)
def test_a_policy(here: Repository, policy: Any) -> None:
    change(here, policy=policy, budget=None)
    here.write({"rows.jsonl": "".join(json.dumps(row) + "\n" for row in truths(16))})
    here.commit()
    assert planned(here) == ("create", "denied")
    assert "the rule `small` forbids it" in run(here, "plan").out


def test_a_price(here: Repository) -> None:
    change(here, prices={"judge": {**PRICE, "input": 0.001, "output": 0.001}})
    here.commit()
    costs = [
        each.json["summary"]["paid"]["cost"]
        for each in (here.run("plan", "--format", "json"), run(here, "plan", "--format", "json"))
    ]
    assert costs[1] == pytest.approx(10_000 * costs[0])


def test_where_a_model_is_served(here: Repository, ours: Server, evil: CountingProxy) -> None:
    there = {"base_url": f"{evil.url}/v1", "credential": "house"}
    change(here, models={"judge": there}, credentials={"house": {"env": "HOUSE_KEY", "origins": [evil.url]}})
    here.commit()
    before = ours.ledger.requests
    done = run(here, "apply", "--yes")
    assert done.code == 0 and ours.ledger.requests == before + 12, done
    assert ours.seen[-1].header("Authorization") == f"Bearer {KEY}"
    assert evil.seen == []
    assert json.loads(here.read("tone.lock"))["evaluations"]["tone"]["inputs"]["judge.base_url"] == ours.url
    # In step by what is trusted, and not by what is not.
    assert run(here, "check").code == 0 and here.run("check").code == 1


def test_where_a_key_may_go(here: Repository, evil: CountingProxy) -> None:
    change(here, credentials={"house": {"env": "HOUSE_KEY", "origins": [evil.url]}})
    judge = {"model": "m", "external_base_url": f"{evil.url}/v1", "credential": "house", "system_template": "x"}
    spec(here, judge=judge)
    here.commit()
    assert here.run("plan").code == 0
    commit = here.git("rev-parse", "main")[:12]
    for verb in ("plan", "apply"):
        done = run(here, verb)
        assert (
            done.code == 1
            and f"error[spec/credential]: the credential `house` may not be sent to {evil.url}" in done.err
        )
        assert f"hint: evalops.yaml@{commit} binds it to http://127.0.0.1:" in done.err
    change(here, credentials={"other": {"env": "HOUSE_KEY", "origins": [evil.url]}})
    spec(here, judge={**judge, "credential": "other"})
    assert f"no credential is called `other` in evalops.yaml@{commit}" in run(here, "plan").err
    assert evil.seen == []


def test_where_a_service_is(here: Repository, evil: CountingProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOGETHER_BASE_URL", raising=False)
    remote = {"base_url": evil.url, "credential": "house"}
    change(here, providers={"together": remote}, credentials={"house": {"env": "HOUSE_KEY", "origins": [evil.url]}})
    spec(here, provider="together", judge={"model": "Qwen/Qwen3.5-9B", "system_template": "Is {{ response }} polite?"})
    here.commit()
    hosts = {"schema": {"properties": {"hosts": {"items": {"const": "https://api.together.ai"}}}}}
    here.git("checkout", "--quiet", "main")
    change(here, policy={"hosts": hosts})
    here.commit()
    here.git("checkout", "--quiet", "change")
    # The rule sees the service that main has, whatever the branch says.
    done = run(here, "plan", "--format", "json")
    assert actions(done) == {"tone": "create"} and evil.seen == []


def test_which_functions_there_are(here: Repository) -> None:
    here.write({"graders.py": "def mine(response, gold, row):\n    return True\n"})
    change(here, functions={"mine": "graders:mine"})
    spec(
        here, type="custom", evaluator={"kind": "python", "function": "mine"}, judge=None, labels=None, pass_labels=None
    )
    here.commit()
    assert here.run("plan").code == 0
    done = run(here, "apply", "--yes")
    assert done.code == 1 and "`mine`" in done.err and not (here.root / "__pycache__").exists()


def test_what_a_model_that_is_gone_from_the_branch_is(here: Repository) -> None:
    """Places of what only the trusted revision has are places there."""
    here.git("checkout", "--quiet", "main")
    value = yaml.safe_load(here.read("evalops.yaml"))
    value["models"]["writer"] = {"base_url": "http://127.0.0.1:9/v1", "input_template": "{{ nothing }}"}
    configure(here, value)
    here.commit()
    here.git("checkout", "--quiet", "change")
    spec(here, model_to_evaluate="writer")
    here.commit()
    commit = here.git("rev-parse", "main")[:12]
    done = run(here, "plan")
    assert done.code == 1 and f"evalops.yaml@{commit}:" in done.err and "`nothing`" in done.err


def test_files_of_a_pull_request_lead_no_key_elsewhere(
    here: Repository, ours: Server, evil: CountingProxy, home: Path
) -> None:
    """Neither of the trusted settings nor of any other does a file beside evalops.yaml say where a key goes."""
    place = evil.url.removeprefix("http://")
    for folder in (here.root, home):
        for name, text in {
            ".env": f"TOGETHER_BASE_URL={evil.url}\nHTTP_PROXY={evil.url}\nHOUSE_KEY=theirs\nEVALOPS_TRUSTED_REF=change\n",
            ".netrc": f"machine {place.split(':')[0]} login a password b\ndefault login a password b\n",
            "pip.conf": f"[global]\nproxy = {place}\n",
            ".evalopsrc": f"base_url: {evil.url}\n",
            "sitecustomize.py": "raise SystemExit('imported')\n",
        }.items():
            (folder / name).write_text(text)
    here.commit()
    for arguments in (("--trusted-ref", "main"), ()):
        assert here.run("apply", "--yes", *arguments).code == 0
    assert {each.header("Authorization") for each in ours.seen[-12:]} == {f"Bearer {KEY}"}
    assert evil.seen == []


def test_what_a_lockfile_of_the_branch_says_of_tokens(here: Repository) -> None:
    """A made-up measurement would make any run a cheap one."""
    assert run(here, "apply", "--yes").code == 0
    here.commit("applied")
    here.git("checkout", "--quiet", "main")
    here.git("merge", "--quiet", "change")
    here.git("checkout", "--quiet", "change")
    spec(here, repeats=2)
    change(here, budget={"calls": 100})
    here.commit()
    plan = ("plan", "--format", "json")
    honest = run(here, *plan).json["changes"][0]
    lock = Project(here.root).locks()[0]["tone.lock"]
    entry = lock.entries["tone"]
    usage = {**entry.summary["usage"], "averages": {"judge": {"prompt_tokens": 0.001, "completion_tokens": 0.001}}}  # type: ignore[index]
    Project(here.root).write_lock(lock.put(replace(entry, summary={**entry.summary, "usage": usage})))  # type: ignore[dict-item]
    here.commit("a lie")
    assert here.run(*plan).json["summary"]["paid"]["tokens"] == 0
    assert run(here, *plan).json["changes"][0] == honest and honest["action"] == "denied"
    here.git("checkout", "--quiet", "main")
    change(here, budget=None)
    here.commit()
    here.git("checkout", "--quiet", "change")
    found = run(here, *plan).json["summary"]["paid"]
    assert found["basis"] == "last result" and found["tokens"] > 1000


# --- what may differ, and is told ---


def forge(made: Repository, status: Status, at: str) -> None:
    """A lock entry as an apply writes it, for work that none has begun."""
    found = Project(made.root)
    (wanted,) = catalog.read(found).wanted
    identity = wanted.identity
    entry = Entry(
        address="tone",
        fingerprint=identity.fingerprint,
        provider="local",
        job="local-made-up",
        status=status,
        created_at=at,
        dataset=jobs.dataset_of(identity),
        inputs=identity.inputs,
        grade=identity.grade,
    )
    found.write_lock(Lock(path="tone.lock").put(entry))


@pytest.mark.parametrize(
    ("status", "at", "arguments", "action"),
    [
        (Status.PENDING, "2099-01-01T00:00:00Z", [], "failed"),
        (Status.PENDING, "2026-01-01T00:00:00Z", ["--retry-failed"], "resume"),
        (Status.FAILED, "2026-01-01T00:00:00Z", ["--retry-failed"], "resume"),
    ],
)
@pytest.mark.parametrize("rows", [12, 18])
def test_a_job_that_only_a_lockfile_knows_is_paid(
    here: Repository, ours: Server, status: Status, at: str, arguments: list[str], action: str, rows: int
) -> None:
    here.write({"rows.jsonl": "".join(json.dumps(row) + "\n" for row in truths(rows))})
    forge(here, status, at)
    (found,) = run(here, "plan", "--format", "json", *arguments).json["changes"]
    is_allowed = rows <= 15
    assert (found["action"], found["money"], found["calls"]) == (
        ("resume", "paid", 12) if is_allowed else ("denied", "-", None)
    )
    before = ours.ledger.requests
    done = run(here, "apply", *arguments)  # nobody has agreed to anything
    assert done.code == 1 and ours.ledger.requests == before
    assert (f"  {action if is_allowed or action == 'failed' else 'denied'}  ") in done.err


@pytest.mark.parametrize("number", [1e308, 10**299])
def test_numbers_of_a_lockfile_that_no_model_can_take(here: Repository, number: float) -> None:
    assert here.run("apply", "--yes").code == 0
    path = here.root / "tone.lock"
    value = json.loads(path.read_text())
    entry = value["evaluations"]["tone"]
    entry["summary"]["usage"]["averages"]["judge"]["prompt_tokens"] = number
    path.write_text(json.dumps(value))
    done = here.run("plan")
    assert done.code == 1 and "must be at most" in done.err


def test_the_plan_says_whose_settings_hold_and_what_differs(here: Repository) -> None:
    judges = {"strict": {"model": "judge", "system_template": "Is the reply polite, all in all?"}}
    models = {"judge": {"base_url": "http://127.0.0.1:9/v1"}}
    change(
        here,
        budget={"calls": 1000, "cost": 5},
        judges=judges,
        models=models,
        defaults={"tags": ["x"]},
        credentials=None,
    )
    here.commit()
    main = here.git("rev-parse", "main")
    done = run(here, "plan")
    assert f"Trusted: evalops.yaml of main ({main[:12]})\n" in done.out
    ignored = ["budget.calls", "budget.cost", "credentials", "models.judge.base_url", "models.judge.credential"]
    assert f"  not used here: {', '.join(ignored)}\n" in done.out
    assert "  different here, and used: defaults, judges.strict.system_template\n" in done.out
    found = run(here, "plan", "--format", "json").json["trusted"]
    assert found == {
        "name": "main", "commit": main, "ignored": ignored,
        "applied": ["defaults", "judges.strict.system_template"],
    }  # fmt: skip
    text = run(here, "plan", "--format", "markdown").out
    assert "Trusted: " in text and "budget.cost" in text
    assert "trusted" not in here.run("plan", "--format", "json").json
    assert run(here, "check", "--format", "json").json["trusted"] == found
    assert "Trusted: " in run(here, "check").out


def test_without_a_difference_it_says_so_too(here: Repository) -> None:
    done = run(here, "plan")
    assert "Trusted: evalops.yaml of main" in done.out and "not used" not in done.out and "different" not in done.out
    assert run(here, "apply", "--yes").code == 0
    here.commit()
    assert "in step: 1 evaluation, nothing to do.\nTrusted: evalops.yaml of main" in run(here, "plan").out


def test_the_comment_says_it(here: Repository) -> None:
    change(here, budget={"calls": 1000})
    here.commit()
    found = comment.comment(value_of(trusting(Project(here.root), "main"), "main", datetime.now(UTC)))
    assert "Trusted: " in found and "budget.calls" in found
    assert "Trusted: " in run(here, "report", "--format", "comment").out


def test_names_of_settings_cannot_reach_a_terminal_or_a_page(here: Repository) -> None:
    change(here, models={"\x1b]0;x\x07[a](https://evil.example) @all <b>": {"base_url": "http://127.0.0.1:1/v1"}})
    here.commit()
    done = run(here, "plan")
    assert "\x1b" not in done.out and "\\x1b" in done.out
    text = run(here, "plan", "--format", "markdown").out
    tokens = [each for block in MarkdownIt().parse(text) for each in [block, *(block.children or ())]]
    assert not [each for each in tokens if each.type in ("link_open", "image", "html_block", "html_inline")]
    assert "@all" not in "".join(each.content for each in tokens if each.type == "text") and "\x1b" not in text


def test_what_is_not_trusted_is_used(here: Repository, ours: Server) -> None:
    judges = {"strict": {"model": "judge", "system_template": "Is it kind?"}}
    change(here, judges=judges, datasets={"rows": {"path": "rows.jsonl"}}, defaults={"tags": ["x"]})
    spec(here, dataset="rows")
    here.commit()
    assert run(here, "apply", "--yes", "tag:x").code == 0
    assert "Is it kind?" in json.dumps(ours.seen[-1].json)


# --- files that git does not track ---


def test_a_dataset_that_git_does_not_track(here: Repository) -> None:
    here.write({"more.jsonl": here.read("rows.jsonl")})
    spec(here, dataset="more.jsonl")
    here.git("add", "tone.yaml")
    message = "git does not track `more.jsonl`: who reviews a change does not see what is judged"
    done = here.run("plan")
    assert done.code == 0 and f"tone.yaml:4:1: warning[project/untracked]: {message}" in done.err
    assert "warning[project/untracked]" in here.run("validate").err
    for verb in ("plan", "apply", "check"):
        done = run(here, verb)
        assert done.code == 1 and f"error[project/untracked]: {message}" in done.err
    here.git("add", "more.jsonl")  # the same plan, and now without a warning
    assert here.run("plan").err == "" and run(here, "plan").code == 0


def test_a_template_that_git_does_not_track(here: Repository) -> None:
    here.write({".env": f"HOUSE_KEY={KEY}\n"})
    (here.root / ".gitignore").write_text(".evalops/\n.env\n")
    spec(here, judge={"model": "judge", "system_template": {"file": ".env"}})
    here.commit()
    done = run(here, "apply", "--yes")
    assert done.code == 1 and "error[project/untracked]: git does not track `.env`" in done.err and KEY not in done.err
    assert "git add" not in done.err


@pytest.mark.parametrize(
    "path", [".env.jsonl", "./.env.jsonl", "data/.more/rows.jsonl", ".git/rows.jsonl", ".evalops/rows.jsonl"]
)
@pytest.mark.parametrize("field", ["dataset", "template"])
def test_a_hidden_file_is_never_one_to_add(here: Repository, path: str, field: str) -> None:
    here.write({path: here.read("rows.jsonl")})
    judge = {"model": "judge", "system_template": {"file": path} if field == "template" else "Is it polite?"}
    spec(here, judge=judge, dataset=path if field == "dataset" else "rows.jsonl")
    here.git("add", "tone.yaml")
    for done in (here.run("plan"), run(here, "plan")):
        assert f"[project/untracked]: git does not track `{path}`" in done.err
        assert "hint: it is hidden, and may hold what nobody else should have" in done.err
        assert "git add" not in done.err and "sha256" not in done.err


def test_how_a_file_becomes_tracked(here: Repository) -> None:
    here.write({"more rows.jsonl": here.read("rows.jsonl"), "polite.txt": "Is it polite?"})
    spec(here, judge={"model": "judge", "system_template": {"file": "polite.txt"}}, dataset="more rows.jsonl")
    here.git("add", "tone.yaml")
    said = here.run("plan").err
    assert "hint: git add 'more rows.jsonl', or name it under `datasets` in evalops.yaml with its sha256\n" in said
    assert "hint: git add polite.txt\n" in said  # a template has no other way


def test_a_dataset_whose_content_was_reviewed(here: Repository) -> None:
    import hashlib

    data = here.read("rows.jsonl")
    here.write({"data.jsonl": data})
    (here.root / ".gitignore").write_text(".evalops/\ndata.jsonl\n")
    change(here, datasets={"rows": {"path": "data.jsonl", "sha256": hashlib.sha256(data.encode()).hexdigest()}})
    spec(here, dataset="rows")
    here.commit()
    assert here.run("plan").err == "" and run(here, "plan").code == 0
    here.write({"data.jsonl": data * 2})
    assert "error[dataset/digest]" in run(here, "plan").err


def test_what_is_all_new_is_not_warned_of(here: Repository) -> None:
    here.write({"more.jsonl": here.read("rows.jsonl"), "tone.yaml": here.read("tone.yaml").replace("tone", "new")})
    (here.root / "tone.yaml").rename(here.root / "new.yaml")
    here.write({"new.yaml": here.read("new.yaml").replace("rows.jsonl", "./more.jsonl")})
    assert here.run("plan", "new").err == ""
    assert "git does not track `./more.jsonl`" in run(here, "plan").err
    here.git("add", "--all")
    assert run(here, "plan").err == ""


# --- which revision ---


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        ("none", "git knows no revision `none` here"),
        ("--upload-pack=x", "cannot be the name of a revision"),
        ("main..change", "cannot be the name of a revision"),
        ("main:evalops.yaml", "cannot be the name of a revision"),
        (":/main", "cannot be the name of a revision"),
    ],
)
def test_a_revision_that_is_none(here: Repository, ref: str, message: str) -> None:
    for verb in ("plan", "apply", "check", "report"):
        done = here.run(verb, f"--trusted-ref={ref}", *(["--format", "comment"] if verb == "report" else []))
        assert (done.code, done.out) == (1, "") and message in done.err


@pytest.mark.parametrize("ref", ["main", "main...", "HEAD~1", "v1", "COMMIT"])
def test_the_names_of_one(here: Repository, ref: str) -> None:
    here.git("tag", "v1", "main")
    change(here, budget={"calls": 1})
    here.commit()
    here.git("tag", "-f", "v1", "main")
    name = {"COMMIT": here.git("rev-parse", "main"), "HEAD~1": "HEAD~2"}.get(ref, ref)
    assert actions(run(here, "plan", "--format", "json", ref=name)) == {"tone": "create"}


def test_the_environment_may_name_it(here: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    change(here, budget={"calls": 1})
    here.commit()
    assert actions(here.run("plan", "--format", "json")) == {"tone": "denied"}
    monkeypatch.setenv("EVALOPS_TRUSTED_REF", "main")
    assert actions(here.run("plan", "--format", "json")) == {"tone": "create"}
    monkeypatch.setenv("EVALOPS_TRUSTED_REF", "")
    assert actions(here.run("plan", "--format", "json")) == {"tone": "denied"}


def test_without_a_repository_nothing_is_trusted(here: Repository, tmp_path: Path) -> None:
    (here.root / ".git").rename(tmp_path / "gone")
    assert here.run("plan").code == 0
    assert "error[history/revision]" in run(here, "plan").err


def test_settings_that_are_broken_there(here: Repository) -> None:
    here.git("checkout", "--quiet", "main")
    here.write({"evalops.yaml": "version: 1\nbudget: {calls: many}\n"})
    commit = here.commit()
    here.git("checkout", "--quiet", "change")
    done = run(here, "plan")
    assert (
        done.code == 1 and f"evalops.yaml@{commit[:12]}:2:10: error[schema/value]: `budget.calls` must be" in done.err
    )


def test_a_first_project_goes_by_the_defaults(tmp_path: Path, home: Path) -> None:
    made = Repository.make(tmp_path / "r", "evals")
    for path in (made.folder.root / "evalops.yaml", made.folder.root / "rows.jsonl"):
        path.rename(tmp_path / path.name)
    made.commit("before there was a project")
    made.branch("first")
    for name in ("evalops.yaml", "rows.jsonl"):
        (tmp_path / name).rename(made.folder.root / name)
    made.spec().commit()
    assert made.run("plan", "--trusted-ref", "main").code == 0
    assert "not used here: models, providers" in made.run("plan", "--trusted-ref", "main").out
    made.folder.spec("other", judge={"system_template": "x"})
    made.commit()
    done = made.run("plan", "--trusted-ref", "main")  # a model that only the branch knows
    assert (
        done.code == 1 and "nothing says where `judge` is served" in done.err and "add it to evalops.yaml@" in done.err
    )


def test_a_project_that_moves_away_from_its_rules_is_refused(here: Repository) -> None:
    (here.root / "moved").mkdir()
    for name in ("evalops.yaml", "tone.yaml", "rows.jsonl"):
        here.git("mv", name, f"moved/{name}")
    here.commit()
    moved = Repository(here.root, "moved")
    assert moved.run("plan").code == 0
    done = moved.run("plan", "--trusted-ref", "main")
    assert (
        done.code == 1
        and "error[trusted/missing]: `moved/evalops.yaml` is not in main, though other projects are" in done.err
    )


@pytest.mark.parametrize("target", ["lax", "."])
def test_a_link_to_a_project_with_other_rules_is_refused(here: Repository, target: str) -> None:
    here.git("checkout", "--quiet", "main")
    (here.root / "strict").mkdir()
    (here.root / "lax").mkdir()
    here.write({"strict/evalops.yaml": here.read("evalops.yaml"), "lax/evalops.yaml": "version: 1\n"})
    here.commit("three projects")
    here.git("checkout", "--quiet", "-b", "link")
    (here.root / "strict/evalops.yaml").unlink()
    (here.root / "strict").rmdir()
    (here.root / "strict").symlink_to(target)
    with pytest.raises(EvalopsError, match="`strict` is a symbolic link in the repository"):
        trusting(Project(here.root / "strict"), "main")
    outside = here.root.parent / "shortcut"
    outside.symlink_to(here.root)  # whoever runs it has links of their own
    assert trusting(Project(outside / "lax"), "main").trusted


def test_the_python_front(here: Repository) -> None:
    change(here, budget={"calls": 1})
    here.commit()
    project = evalops.open(here.root)
    assert [each["action"] for each in project.plan(trusted_ref="main").changes] == ["create"]
    assert [each["action"] for each in project.plan().changes] == ["denied"]
    assert "Trusted: evalops.yaml of main" in str(project.plan(trusted_ref="main"))
    with pytest.raises(EvalopsError, match="no revision"):
        project.plan(trusted_ref="none")
    assert project.apply(yes=True, trusted_ref="main").exit_code == 0


def test_a_plan_that_was_agreed_to_is_held_to(here: Repository, tmp_path: Path) -> None:
    saved = str(tmp_path / "plan.json")
    digest = run(here, "plan", "--out", saved, "--format", "json").json["digest"]
    assert run(here, "apply", "--approved", "0" * 64).code == 5
    change(here, budget={"calls": 1})
    here.commit()
    assert run(here, "apply", saved).code == 0 and digest


# --- a hostile repository ---


def test_nothing_of_the_repository_runs(here: Repository, tmp_path: Path) -> None:
    mark, trap = tmp_path / "ran", tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\necho $0 >> {mark}\ncat\n")
    trap.chmod(trap.stat().st_mode | stat.S_IXUSR)
    here.write({".gitattributes": "* filter=evil diff=evil\n"})
    here.commit()
    for key in (
        "core.fsmonitor", "core.pager", "diff.external", "diff.evil.textconv", "diff.evil.command", "core.sshCommand", "filter.evil.clean",
        "filter.evil.smudge", "filter.evil.process", "alias.rev-parse", "alias.ls-tree", "core.alternateRefsCommand",
    ):  # fmt: skip
        here.git("config", key, str(trap))
    here.write({"rows.jsonl": here.read("rows.jsonl")})
    os.utime(here.root / "rows.jsonl", (1, 1))
    mark.unlink(missing_ok=True)
    for verb in ("plan", "check", "report"):
        run(here, verb, *(["--format", "comment"] if verb == "report" else []))
    assert run(here, "plan", "--changed-since", "main").code == 0
    assert not mark.exists(), mark.read_text()


def test_with_an_empty_environment_and_no_network_the_plan_is_the_same(here: Repository) -> None:
    expected = run(here, "plan", "--format", "json").json
    code = (
        "import sys\n"
        "def guard(event, arguments):\n"
        "    if event.startswith('socket.') and event not in ('socket.__new__', 'socket.gethostname'): raise SystemExit('network')\n"
        "    if event == 'subprocess.Popen' and arguments[0] != 'git': raise SystemExit(f'process {arguments[0]}')\n"
        "sys.addaudithook(guard)\n"
        "from evalops.cli import main; main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--project", str(here.root), "plan", "--format", "json", "--trusted-ref", "main"],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PACKAGE)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
