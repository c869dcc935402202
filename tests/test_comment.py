"""The comment on a pull request, read as CommonMark with GitHub's extensions: nothing of a stranger's becomes more than
text, it fits, and what does not fit is left out by levels.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from repository import Repository

from evalops import lock
from evalops.cli import report
from evalops.errors import EvalopsError
from evalops.views import comment, markdown
from evalops.views.safe import cells, code, fence, line, prose

READER = MarkdownIt("gfm-like", {"html": True, "linkify": True})
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d UTC")
BOUND = {"pass_percentage": {"min": 80}}

HOSTILE = [
    "```\n</details>\n# Owned\n[click](http://evil.example)\n```",
    "` `` ``` ```` text",
    "@octocat @org/admins and #1, GH-1, owner/repo#12, a1b2c3d4e5f6, JIRA-7",
    "[x](http://evil.example) ![i](https://evil.example/p.png) [a]: http://evil.example",
    "<img src=x onerror=alert(1)><script>x</script><!-- --> <http://evil.example> <a@b.example>",
    "http://evil.example https://evil.example www.evil.example ftp://evil.example mailto:a@b.example a@b.example evil.com",
    "&#64;octocat &lt;b&gt; &commat;octocat &copy;",
    "::add-mask::x\n::set-output name=a::b\n  ::error::c\n##[add-mask]d\n##vso[task.x]e",
    "\n::add-mask::x\r\n\u2028::error::y",
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \r over",
    "\u202egnp.exe\u202c \u200b\u200d\ufeff \u2066x\u2069",
    "a | b || \\| c \\",
    "*bold* _it_ ~~gone~~ **b** __b__ $x$ ^y^ | --- |",
    "- [ ] task\n1. one\n> quote\n---\n=====\n    code\n\ttab",
    "/apply\n/approve",
    "-->", "]]>", "\\", "`", "``", "|", "[", "](", "<", "&", "#", "@", " ", "",
    "\ud800 half", "\U0001f600 \ufffe", "a" * 5000, "`" * 300,
]  # fmt: skip


def inline(tokens: list[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from inline(token.children or [])


def read(text: str) -> list[Token]:
    """Every token; asserts that nothing in it does anything."""
    found = list(inline(READER.parse(text)))
    kinds = {token.type for token in found}
    assert not kinds & {"link_open", "image", "html_inline", "s_open", "blockquote_open", "hr", "code_block"}, kinds
    blocks = [token.content.strip() for token in found if token.type == "html_block"]
    assert blocks in ([], [comment.MARKER])
    for token in found:
        if token.type == "text":
            # What GitHub makes something of in text, once references are read.
            assert not re.search(r"[@#$]|://|www\.|\bGH-|\b[0-9a-f]{7,40}\b|\b[A-Za-z]+-\d", token.content), (
                token.content
            )
    assert not re.search(r"^\s*::[A-Za-z]|##\[|##vso\[|^/|^\s*##\[", text, re.M)
    assert not re.search(
        "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff]", text
    )
    return found


# --- the parts that everything goes through ---

nasty = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(alphabet="ab1 `|\\[](){}<>!@#$&;:/.*_~^-+=\"'\n\t\r\u202e\x1b", max_size=40),
    st.lists(st.sampled_from(["`", "``", "|", "\\", "[", "](", ")", "<", ">", "!", "@a", "#1", "http://e.com", "*", "_", "a", " "]), max_size=12).map("".join),
    st.text(max_size=30),
)  # fmt: skip


@settings(max_examples=300)
@given(nasty)
def test_code_is_one_span_with_all_of_the_text(text: str) -> None:
    found = read(f"- {code(text)} end")
    (span,) = [token for token in found if token.type == "code_inline"]
    assert span.content == (line(text) or "-")


@settings(max_examples=300)
@given(st.lists(nasty, min_size=3, max_size=3))
def test_a_table_keeps_its_cells(texts: list[str]) -> None:
    table = "\n".join([cells(["a", "b", "c"]), cells(["---"] * 3), cells(map(code, texts)), cells(map(prose, texts))])
    found = read(table)
    assert sum(token.type == "td_open" for token in found) == 6
    spans = [token.content for token in found if token.type == "code_inline"][:3]
    assert spans == [line(text) or "-" for text in texts]


@settings(max_examples=500)
@given(nasty)
@example("--")
@example("1. x")
@example("> x")
@example("see `a``b` and x.y`c`")
@example("the value `|` of `a` is [1.5, 2.5] < 3")
def test_a_sentence_is_text_and_code(text: str) -> None:
    found = read(f"- {prose(text)}")
    kinds = {token.type for token in found}
    assert kinds <= {
        "bullet_list_open", "list_item_open", "paragraph_open", "inline", "text", "code_inline", "paragraph_close",
        "list_item_close", "bullet_list_close", "text_special",
    }, kinds  # fmt: skip


def test_a_plain_sentence_stays_as_it_is() -> None:
    said = "its gate on `pass_percentage` is 97.5 [91.3, 99.3], p < 0.001: `a` -> `b`, not known"
    assert prose(said) == said
    assert prose("judged on rows.jsonl (40 rows)") == "judged on `rows.jsonl` (40 rows)"


@settings(max_examples=300)
@given(nasty)
def test_no_content_ends_a_fence(text: str) -> None:
    found = read(f"{fence(text, 'diff')}\n\nafter")
    assert [token.type for token in found if token.type != "text"] == [
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert found[0].info == "diff" and found[-2].content == "after"


# --- real projects ---


@pytest.fixture
def here(tmp_path: Path) -> Repository:
    return changed(tmp_path / "project")


def changed(root: Path) -> Repository:
    """One evaluation that moved, one that was renamed, one new and not applied, and a gate that fails."""
    made = Repository.make(root)
    made.spec("tone", thresholds=BOUND).spec("old", labels=["polite", "rude", "old"])
    made.applied(message="base")
    made.branch("topic").spec("tone", "poor", thresholds=BOUND)
    (made.root / "old.yaml").unlink()
    made.spec("new-name", labels=["polite", "rude", "old"])
    made.applied()
    return made.spec("waiting", "fair")


def written(repository: Repository, *arguments: str) -> str:
    done = repository.run("report", "--format", "comment", *arguments)
    assert done.code == 0, done
    read(done.out)
    return done.out


def test_the_comment_joins_plan_results_and_gates(here: Repository) -> None:
    text = written(here, "main")
    assert text.startswith("<!-- evalops -->\n\n### evalops\n")
    assert "**1 gate failing**" in text and "1 moved (1 down), 1 renamed (free)" in text
    assert "Plan: 1 to run: 60 rows" in text and "| `+` | `waiting` | create |" in text
    assert here.git("rev-parse", "HEAD")[:12] in text and here.git("rev-parse", "main")[:12] in text
    assert STAMP.search(text)
    assert "`response: answer" in text and "-30.0 [" in text
    first = next(token.content for token in READER.parse(text) if token.type == "inline" and token.level == 1)
    assert first == "evalops"


def test_a_regression_is_among_the_gates(here: Repository) -> None:
    here.spec("tone", "poor", thresholds={**BOUND, "no_regression": {"margin": 2}})
    text = written(here, "main")
    assert "**2 gates failing**" in text and "`tone` is worse than at" in text


def test_what_cannot_be_made_is_said_and_the_rest_is_there(here: Repository) -> None:
    text = written(here, "nowhere")
    assert "git knows no revision `nowhere` here" in text and "Plan: 1 to run" in text and "**1 error**" in text
    here.write({"tone.yaml": "version: 1\nname: tone\n", "new-name.lock": "{"})
    text = written(here, "main")
    assert "No plan: the specs have errors" in text and "Results: 1 moved" in text
    assert "`tone.yaml:1`" in text and "`new-name.lock:1`" in text


def test_a_project_in_step_has_a_short_comment(tmp_path: Path) -> None:
    made = Repository.make(tmp_path).spec()
    made.applied()
    text = written(made)
    assert len(text) < 400 and "1 the same" in text and "No gate fails" in text


@pytest.mark.slow
def test_hostile_rows_labels_and_entries_stay_text(tmp_path: Path) -> None:
    made = Repository.make(tmp_path / "project")
    labels = list(dict.fromkeys(" ".join(text.split())[:150] for text in HOSTILE[:14] if text.strip()))
    count = 3 * len(labels)
    rows = [
        {"id": f"{labels[number % len(labels)]}{number}", "response": labels[-number % len(labels)], "@team #1": "x", "good": labels[number % len(labels)], "poor": labels[(number + 1) % len(labels)]}
        for number in range(count)
    ]  # fmt: skip
    made.folder.rows(rows)
    bound = {"pass_percentage": {"min": 99}, f"recall[{labels[0]}]": {"min": 0.9}}
    fields: dict[str, Any] = {"labels": labels, "pass_labels": labels[:9], "thresholds": bound, "gold": "good"}
    made.spec("tone", "good", **fields)
    made.applied()
    made.branch("feature/@octocat/<b>#1`").spec("tone", "poor", **fields)
    made.spec("other", "good", **fields)
    made.applied()
    entry = lock.parse(made.read("other.lock"), "other.lock").entries["other"]
    gates = tuple(
        {**gate, "metric": HOSTILE[3], "by": HOSTILE[0], "group": HOSTILE[2], "verdict": "failed", "reason": HOSTILE[4]}
        for gate in entry.gates
    )
    strange = [
        replace(entry, address=text, fingerprint=f"{number:064}", gates=gates, reason=text)
        for number, text in enumerate(HOSTILE)
    ]
    strange += [
        replace(entry, address=f"failed {text}", status=lock.Status.FAILED, message=text) for text in HOSTILE[:14]
    ]
    made.folder.project.write_lock(lock.Lock(path="strange.lock").put(*strange))
    text = written(made, "main")
    assert "1 moved" in text and len(text.encode()) <= comment.LIMIT
    for form in (
        ("diff", "main", "--format", "markdown"),
        ("plan", "--format", "markdown"),
        ("plan", "--format", "markdown", "-v"),
    ):
        done = made.run(*form)
        assert done.code == 0, done
        read(done.out)
    read(written(made, "HEAD"))


def leaves(value: Any, payload: str, *, ours: frozenset[str]) -> Any:
    """A machine form with every text of a stranger replaced; numbers and the words of ours stay."""
    if isinstance(value, dict):
        return {key: each if key in ours else leaves(each, payload, ours=ours) for key, each in value.items()}
    if isinstance(value, list):
        return [leaves(each, payload, ours=ours) for each in value]
    return payload if isinstance(value, str) else value


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the comment on a real project is made of."""
    here = changed(tmp_path_factory.mktemp("machine") / "project")
    return report.value_of(here.folder.project, "main", datetime(2026, 1, 31, tzinfo=UTC))


@pytest.mark.parametrize("payload", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_any_text_says_it_is_text(machine: dict[str, Any], payload: str) -> None:
    hostile = leaves(machine, payload, ours=comment.WORDS)
    for limit in (comment.LIMIT, 6_000, 3_000, 10):
        read(comment.comment(hostile, limit))
    read(comment.plan(hostile["plan"], verbose=True))


# --- a value that another job left ---


def places(value: Any, route: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The routes of everything in a machine form."""
    yield route
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*route, key))


def with_at(value: Any, route: tuple[Any, ...], payload: Any) -> Any:
    """A copy with something else at a route."""
    if not route:
        return payload
    made = copy.copy(value)
    made[route[0]] = with_at(value[route[0]], route[1:], payload)
    return made


def test_a_value_goes_from_one_job_to_another(machine: dict[str, Any]) -> None:
    assert comment.of(json.dumps(machine).encode()) == comment.comment(machine)


@pytest.mark.slow
def test_whatever_another_job_left_it_is_refused_or_text(machine: dict[str, Any]) -> None:
    refused = 0
    for route in places(machine):
        for payload in (*HOSTILE[:16], None, 7, [], {}, ["[x](http://e.com)"], {"[x](http://e.com)": "@all"}, 1e999):
            try:
                text = comment.of(json.dumps(with_at(machine, route, payload)).encode())
            except EvalopsError as error:
                assert error.diagnostics[0].code == "report/foreign"
                refused += 1
            else:
                read(text)
                assert len(text.encode()) <= comment.LIMIT
    assert refused > 100


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"7", b"[" * 100_000, b"\xff", b'{"review": 1e999}'])
def test_what_is_no_value_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(EvalopsError):
        comment.of(data)


# --- what fits ---


def large(count: int, *, address: str = "evaluation-{:04}-of-a-project", flips: int = 10) -> dict[str, Any]:
    """The value of a comment on a project where everything moved, fails its gate and waits for another apply."""
    gate = {
        "metric": "pass_percentage",
        "min": 80,
        "on": "estimate",
        "value": 60.0,
        "low": 47.0,
        "high": 72.0,
        "verdict": "failed",
    }
    metric = {"metric": "pass_percentage", "value": 60.0, "low": 47.0, "high": 72.0, "n": 60}
    paired = {"metric": "pass_percentage", "shared": 60, "difference": {"value": -30.0, "low": -44.0, "high": -14.0}, "test": "McNemar's exact test", "p": 0.001, "p_adjusted": 0.01, "lost": 20, "gained": 2, "flips": 22}  # fmt: skip
    moves = [
        {
            "address": address.format(number), "kind": "moved", "was": None, "type": "classify", "status": "completed", "trend": "down", "before": metric, "after": metric,
            "paired": paired, "gates": [], "fields": [{"name": "judge.model", "before": "a", "after": "b", "mark": "a.yaml:1:1"}], "notes": [],
            "flips": [{"key": f"r{row}", "before": "polite", "after": "rude", "source": {"response": "x" * 90}, "feedback": "y" * 90} for row in range(flips)],
        }
        for number in range(count)
    ]  # fmt: skip
    totals = {"moved": count, "new": 0, "gone": 0, "renamed": 0, "regraded": 0, "open": 0, "same": 0, "trends": {"up": 0, "down": count, "level": 0}, "failed_gates": count}  # fmt: skip
    base = {"name": "main...", "commit": "a" * 40}
    changes = [
        {"address": address.format(number), "action": "rerun", "sign": "~", "money": "paid", "reason": "changed: judge.model", "fields": [], "rows": 60, "calls": 60, "cost": None}
        for number in range(count)
    ]  # fmt: skip
    summary = {"paid": {"changes": count, "rows": 60 * count, "calls": 60 * count, "tokens": 1, "cost": None}, "free": 0, "unknown": 0, "blocked": 0, "in_step": 0}  # fmt: skip
    return {
        "review": {"base": base, "totals": totals, "moves": moves, "failed_gates": [{"address": each["address"], "gate": gate} for each in moves]},
        "plan": {"summary": summary, "changes": changes, "digest": "d" * 64, "diagnostics": []}, "problems": [], "fallen": [], "head": "b" * 40, "base": base, "at": "2026-01-31 08:00 UTC",
    }  # fmt: skip


@pytest.mark.slow
def test_a_comment_is_left_out_by_levels_and_never_cut() -> None:
    sizes = []
    for count in (1, 10, 60, 400, 2_000):
        text = comment.comment(large(count, flips=2))
        sizes.append(len(text.encode()))
        assert sizes[-1] <= comment.LIMIT
        assert f"{count:,} moved ({count:,} down)" in text and f"**{count:,} gate{'s' * (count != 1)} failing**" in text
        assert f"{count:,} to run: {60 * count:,} rows" in text
        assert ("Shortened to fit" in text) == ("| row |" not in text)
    read(comment.comment(large(2)))
    assert "| row |" in comment.comment(large(1))
    tables, signs, totals = (comment.comment(large(count, flips=6)) for count in (100, 400, 1_500))
    assert "| row |" not in tables and "`evaluation-0099-of-a-project` | pass %" in tables
    assert "| evaluation" not in signs and "- `▼` down: `evaluation-0000-of-a-project`" in signs
    assert "evaluation-" not in totals and len(totals) < 1_000


@pytest.mark.slow
@pytest.mark.parametrize("address", ["`|" * 40 + "{}", "ü" * 100 + "{}"])
def test_two_thousand_evaluations_stay_below_the_limit_and_say_the_totals(address: str) -> None:
    value = large(2_000, address=address, flips=1)
    for text, total in (
        (comment.comment(value), "2,000 moved"),
        (comment.plan(value["plan"]), "2,000 to run"),
        (comment.review(value["review"]), "2,000 moved"),
    ):
        assert len(text.encode()) <= comment.LIMIT and total in text
    assert "d" * 64 in comment.plan(value["plan"])


def test_many_problems_are_counted(here: Repository) -> None:
    for number in range(40):
        here.write({f"broken-{number}.yaml": "version: 1\nname: [\n"})
    text = written(here, "main")
    assert "errors**" in text and re.search(r"and \d+ more", text)


def test_a_plan_as_markdown_is_a_table_with_its_digest(here: Repository) -> None:
    done = here.run("plan", "--format", "markdown")
    found = read(done.out)
    cells_ = [token.content for token in found if token.type == "inline"]
    assert "`waiting`" in cells_ and "60 rows, 0 calls" in cells_
    digest = json.loads(here.run("plan", "--format", "json").out)["digest"]
    assert f"Digest: `{digest}`" in done.out
    assert here.run("plan", "--format", "markdown", "--detailed-exitcode").code == 2


def test_a_template_that_changed_is_a_fence_in_the_verbose_plan() -> None:
    change = {
        **large(1)["plan"]["changes"][0],
        "fields": [
            {
                "name": "judge.system_template",
                "before": "a",
                "after": "b",
                "mark": "a.yaml:1:1",
                "diff": ["---", "+++", "@@ -1 +1 @@", "-old", "+```", "+::add-mask::x"],
            }
        ],
    }
    text = markdown.plan({**large(1)["plan"], "changes": [change]}, verbose=True)
    (block,) = [token for token in read(text) if token.type == "fence"]
    assert block.content == "@@ -1 +1 @@\n-old\n+```\n+::add-mask::x\n"
