"""Several votes on single rows: who is asked what, how often, and what comes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from apply_project import Folder, truths
from evaluations import evaluation
from model_server import serve
from scripted_model import KEY, REJECTED, Answer, Model, choice, label, reply, score

from evalops.engine.failure import CallFailed, Kind
from evalops.engine.jury import Jury, RowFailed
from evalops.engine.reply import Reply
from evalops.result import Verdict, VerdictStatus, Vote
from evalops.spec import Evaluation

SCORED, INVALID, ERROR = VerdictStatus.SCORED, VerdictStatus.INVALID, VerdictStatus.ERROR
ROW = {"response": "Hello", "first": "one", "second": "two", "human": "polite", "q": "?"}
THREE = [{"model": "x"}, {"model": "y"}, {"model": "z"}]
DOWN = CallFailed(Kind.STATUS, "it is broken", status=500)
FORBIDDEN = CallFailed(Kind.STATUS, "no", status=401, fatal=True)


def jury_of(what: Evaluation, *models: Model, **fields: Any) -> Jury:
    asks = {id(each): model.ask for each, model in zip(what.models, models, strict=True)}
    return Jury(what, asks, dict.fromkeys(asks, False), **fields)


def heard(what: Evaluation, *models: Model, row: Mapping[str, Any] = ROW) -> tuple[Verdict, dict[str, Any]]:
    return asyncio.run(jury_of(what, *models).row(KEY, row))


def votes(verdict: Verdict) -> list[Any]:
    return [(*vote[:2], vote.value if vote.status is SCORED else f"({vote.reason})") for vote in verdict.votes]


def asked(models: Sequence[Model]) -> list[int]:
    return [len(model.bodies) for model in models]


# --- repeats ---


def test_a_judge_is_asked_the_same_again_and_again() -> None:
    model = Model(label("polite"), label("rude"), label("polite"))
    verdict, detail = heard(evaluation(repeats=3, judge={"temperature": 1}), model)
    assert verdict.value == "polite" and sorted(model.repeats) == [1, 2, 3]
    assert model.bodies[0] == model.bodies[1] == model.bodies[2]
    assert sorted(votes(verdict)) == [(0, 1, "polite"), (0, 2, "rude"), (0, 3, "polite")]
    assert detail["usage"] == {"judge": [3, 0, 30, 6]} and len(detail["feedbacks"]) == 3


def test_a_repair_is_of_the_same_repeat() -> None:
    model = Model("?", "?", label("polite"), label("rude"))
    verdict, detail = heard(evaluation(repeats=2, judge={"temperature": 1}), model)
    assert sorted(model.repeats) == [1, 1, 2, 2]
    assert (verdict.reason, detail["repaired"]) == ("no_majority", 2)


def test_a_response_is_written_once_a_row() -> None:
    writer, model = Model(reply("Written.")), Model(label("rude"))
    what = evaluation(
        repeats=4, judges=THREE[:1] + THREE[1:2], model_to_evaluate={"model": "w", "input_template": "{{ q }}"}
    )
    other = Model(label("rude"))
    verdict, detail = heard(what, writer, model, other)
    assert (asked([writer, model, other]), writer.repeats) == ([1, 4, 4], [1])
    assert verdict.value == "rude" and detail["outputs"] == ["Written."] and len(verdict.votes) == 8
    assert detail["usage"] == {"w": [1, 0, 10, 2], "x": [4, 0, 40, 8], "y": [4, 0, 40, 8]}


def test_each_vote_of_a_compare_is_both_orders() -> None:
    model = Model(choice("1"), choice("2"), choice("1"), choice("1"), choice("1"), choice("2"))
    verdict, detail = heard(evaluation(type="compare", repeats=3, judge={"temperature": 1}), model)
    assert asked([model]) == [6] and len(detail["feedbacks"]) == 3
    assert [vote.value for vote in verdict.votes] in (["A", "Tie", "A"], ["A", "A", "Tie"], ["Tie", "A", "A"])
    assert (verdict.value, verdict.orders) == ("A", None)


# --- juries ---


def test_each_judge_has_its_own_template_parameters_and_rung() -> None:
    judges = [
        {"model": "x", "system_template": "First?"},
        {"model": "y", "system_template": "Second?", "temperature": 0.5, "reason": "none"},
    ]
    what = evaluation(judges=judges)
    one = Model(label("polite"))
    other = Model(lambda body: REJECTED if "response_format" in body else "polite")
    jury = jury_of(what, one, other)
    verdict, _ = asyncio.run(jury.row(KEY, ROW))
    assert one.bodies[0]["messages"][0]["content"] == "First?" and one.bodies[0]["temperature"] == 0.0
    assert other.bodies[0]["messages"][0]["content"] == "Second?" and other.bodies[0]["temperature"] == 0.5
    assert "reason" not in other.prompts[-1]
    assert (verdict.value, verdict.rung, jury.rungs) == ("polite", "json_schema+text", [0, 2])
    asyncio.run(jury.row(KEY, ROW))
    assert asked([one, other]) == [2, 4]  # what did not work is not tried again
    known = jury_of(what, Model(label("polite")), other, rungs=[0, 2])
    asyncio.run(known.row(KEY, ROW))
    assert asked([other]) == [5]


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (("polite", "rude", "polite"), "polite"),
        (("polite", "rude", "?"), "no_majority"),
        (("polite", "?", "?"), "quorum"),
        (("polite", "polite", DOWN), "polite"),
        (("polite", DOWN, DOWN), "quorum"),
        ((DOWN, DOWN, DOWN), "status_500"),
    ],
)
def test_a_jury_decides(answers: Sequence[Any], expected: str) -> None:
    models = [Model(each if isinstance(each, CallFailed) or each == "?" else label(each)) for each in answers]
    verdict, detail = heard(evaluation(judges=THREE), *models)
    assert (verdict.value or verdict.reason) == expected
    assert [vote.judge for vote in verdict.votes] == [0, 1, 2]
    failed = [each for each in verdict.votes if each.status is ERROR]
    assert len(failed) == answers.count(DOWN) and all(each.reason == "status_500" for each in failed)
    assert verdict.status is (ERROR if expected == "status_500" else SCORED if verdict.value else INVALID)
    assert len(detail["feedbacks"]) == 3


def test_the_feedback_is_of_a_judge_that_agrees() -> None:
    models = [Model('{"reason": "R%d", "label": "%s"}' % each) for each in enumerate(("rude", "polite", "polite"))]  # noqa: UP031
    verdict, detail = heard(evaluation(judges=THREE), *models)
    assert (verdict.feedback, detail["feedbacks"]) == ("R1", ["R0", "R1", "R2"])


def test_scores_have_their_mean() -> None:
    models = [Model(score(score=each)) for each in (1, 2, 5)]
    verdict, _ = heard(evaluation(type="score", judges=THREE), *models)
    assert verdict.value == pytest.approx(8 / 3)
    verdict, _ = heard(evaluation(type="score", judges=THREE, vote={"rule": "median"}), *models)
    assert verdict.value == 2.0


def test_criteria_of_several_votes() -> None:
    models = [Model(score(tone=1, facts=3)), Model(score(tone=3, facts=5))]
    judges = [{**each, "criteria": ["tone", "facts"]} for each in THREE[:2]]
    verdict, _ = heard(evaluation(type="score", judges=judges), *models)
    assert (verdict.value, verdict.criteria) == (3.0, {"tone": 2.0, "facts": 4.0})


def test_verdicts_of_the_dataset_can_vote() -> None:
    what = evaluation(judges=[{"column": "human"}, *THREE[:2]], repeats=2)
    models = [Model(label("rude")), Model(label("polite"))]
    verdict, _ = heard(what, *models)
    assert votes(verdict) == [(0, 1, "polite"), (1, 1, "rude"), (1, 2, "rude"), (2, 1, "polite"), (2, 2, "polite")]
    assert verdict.value == "polite"
    people = evaluation(judges=[{"column": "human"}, {"column": "other"}])
    verdict, detail = heard(people, row={"human": "polite", "other": "", "response": ""})
    assert (verdict.reason, detail["feedbacks"]) == ("quorum", [None, "the column is empty"])


def test_an_endpoint_that_refuses_ends_the_job_whoever_else_answers() -> None:
    with pytest.raises(RowFailed) as caught:
        heard(evaluation(judges=THREE), Model(label("polite")), Model(FORBIDDEN), Model(label("polite")))
    assert caught.value.fatal and caught.value.reason == "status_401"


def test_a_template_that_fails_on_a_row_costs_its_judge_the_vote() -> None:
    judges = [*THREE[:2], {"model": "z", "system_template": "{{ q | length / none }}"}]
    models = [Model(label("polite")) for _ in judges]
    verdict, _ = heard(evaluation(judges=judges), *models, row={**ROW, "none": 0})
    assert (verdict.value, verdict.votes[2], asked(models)) == (
        "polite",
        Vote(2, 1, ERROR, None, "template"),
        [1, 1, 0],
    )


def test_a_bug_is_no_vote() -> None:
    def broken(body: dict[str, Any]) -> Reply:
        raise LookupError("a bug")

    with pytest.raises(LookupError):
        heard(evaluation(judges=THREE), Model(label("polite")), Model(broken), Model(label("polite")))


def test_an_empty_response_is_judged_by_rule_and_nobody_asked() -> None:
    models = [Model(label("polite")) for _ in THREE]
    verdict, _ = heard(evaluation(judges=THREE, repeats=2), *models, row={"response": "..."})
    assert (verdict.reason, verdict.votes, asked(models)) == ("empty_response", (), [0, 0, 0])
    verdict, _ = heard(evaluation(type="compare", judges=THREE), *models, row={"first": "", "second": "x"})
    assert (verdict.value, verdict.rung, asked(models)) == ("B", "rule", [0, 0, 0])
    mixed = evaluation(judges=[{"column": "human"}, *THREE[:2]], vote={"quorum": 1})
    verdict, _ = heard(mixed, *models[:2], row={"human": "rude", "response": " "})
    assert votes(verdict) == [(0, 1, "rude"), (1, 1, "(empty_response)"), (2, 1, "(empty_response)")]
    assert (verdict.value, asked(models)) == ("rude", [0, 0, 0])


def test_all_judges_are_asked_at_a_time() -> None:
    waiting = 0
    most = 0

    class Slow(Model):
        async def ask(self, *arguments: Any) -> Reply:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            await asyncio.sleep(0)
            waiting -= 1
            return await super().ask(*arguments)

    heard(evaluation(judges=THREE, repeats=2), *(Slow(label("polite")) for _ in THREE))
    assert most == 6


# --- the cascade ---


def cascade(
    type_: str = "classify", *, repeats: int = 1, first: Mapping[str, Any] | None = None, **vote: Any
) -> Evaluation:
    judges = [{"model": "x", "temperature": 1, **(first or {})}, *THREE[1:]]
    return evaluation(type=type_, judges=judges, repeats=repeats, vote={"cascade": True, **vote})


@pytest.mark.parametrize(
    ("type_", "answers", "margin", "is_sure"),
    [
        ("classify", (label("rude"),) * 3, None, True),
        ("classify", (label("rude"), label("polite"), label("rude")), None, False),
        ("classify", (label("rude"), label("rude"), DOWN), None, False),
        ("score", (score(score=3), score(score=3), score(score=4)), None, False),
        ("score", (score(score=3), score(score=3), score(score=4)), 1, True),
        ("score", (score(score=3), score(score=5), score(score=4)), 1, False),
    ],
)
def test_the_others_are_asked_where_the_first_is_unsure(
    type_: str, answers: tuple[Answer, ...], margin: float | None, is_sure: bool
) -> None:
    first = Model(*answers)
    others = [Model(label("polite") if type_ == "classify" else score(score=1)) for _ in range(2)]
    what = cascade(type_, repeats=3, **({"margin": margin} if margin else {}))
    verdict, detail = heard(what, first, *others)
    assert asked(others) == ([0, 0] if is_sure else [3, 3])
    assert len(verdict.votes) == (3 if is_sure else 9) and detail.get("saved") == (6 if is_sure else None)
    if type_ == "classify":
        assert verdict.value == ("rude" if is_sure else "polite")


def test_a_single_vote_that_is_sure_is_the_verdict() -> None:
    models = [Model(choice("1"), choice("2")), Model(choice("tie")), Model(choice("tie"))]
    verdict, detail = heard(cascade("compare", quorum=2), *models)
    assert (verdict.value, verdict.orders, verdict.votes) == ("A", ("A", "A"), ())
    assert (asked(models), detail["saved"]) == ([2, 0, 0], 4)


def test_a_judge_that_says_another_thing_in_the_other_order_is_unsure() -> None:
    models = [Model(choice("1")), Model(choice("2"), choice("1")), Model(choice("2"), choice("1"))]
    verdict, _ = heard(cascade("compare"), *models)
    assert (verdict.value, asked(models)) == ("B", [2, 2, 2])
    assert [vote.value for vote in verdict.votes] == ["Tie", "B", "B"]


@pytest.mark.parametrize(("shares", "is_sure"), [((0.7, 0.2), True), ((0.5, 0.4), False), ((0.4, 0.2), False)])
def test_a_likeliest_label_that_leads_by_too_little_is_unsure(shares: tuple[float, float], is_sure: bool) -> None:
    judges = [
        {"model": "x", "verdict": "likelihood", "system_template": "{{ q }}"},
        {"model": "y", "system_template": "{{ q }}"},
    ]
    what = evaluation(judges=judges, model_to_evaluate=None, vote={"cascade": True, "margin": 0.2, "quorum": 1})
    other = Model(label("polite"))
    heard(what, Model(Reply(content="", probabilities={" rude": shares[0], " polite": shares[1]})), other)
    assert asked([other]) == [0 if is_sure else 1]


def test_a_first_judge_without_a_verdict_leads_to_the_others() -> None:
    for answer in ("?", reply("", refusal="No."), DOWN):
        models = [Model(answer), Model(label("rude")), Model(label("rude"))]
        verdict, _ = heard(cascade(), *models)
        assert (verdict.value, len(verdict.votes)) == ("rude", 3)


def test_a_sure_split_of_scores_is_decided_by_the_others() -> None:
    models = [Model(score(score=3), score(score=4)), Model(score(score=4)), Model(score(score=4))]
    verdict, _ = heard(cascade("score", repeats=2, margin=1, rule="majority"), *models)
    assert (verdict.value, len(verdict.votes)) == (4.0, 6)  # within the margin, and yet no majority


# --- from the spec to the lockfile ---


def test_votes_come_through_to_the_lockfile_and_are_graded_again_without_the_rows(tmp_path: Path) -> None:
    with serve() as server:
        folder = Folder(tmp_path, server.url).settings(models={name: {"base_url": server.url} for name in "xyz"})
        rows = truths(8)
        for row in rows[::4]:
            row["response"] = "unclear"
        folder.rows(rows)
        judges = [
            {"model": name, "system_template": f"Is it {word}?"}
            for name, word in zip("xyz", ("polite", "kind", "nice"), strict=True)
        ]
        folder.spec(judges=judges, judge=None, vote={"quorum": 3})
        _drop(folder.root / "tone.yaml", "judge")
        folder.applied()
        assert folder.summary()["usage"]["calls"] == 24 and "saved" not in folder.summary()["usage"]
        lines = folder.verdicts()[1:]
        assert lines[1][2:] == ["polite", {"votes": [["polite"]] * 3}] and len(lines[0][3]["votes"]) == 3
        found = folder.rows_of()[1]["verdict"]
        assert [each["value"] for each in found["votes"]] == ["polite"] * 3
        assert all(each["reason"] and each["repeat"] == 1 for each in found["votes"])
        for file in (folder.root / ".evalops").glob("store.sqlite*"):
            file.unlink()
        before = folder.summary()
        spec = (folder.root / "tone.yaml").read_text()
        (folder.root / "tone.yaml").write_text(spec.replace("pass_labels:\n- polite", "pass_labels:\n- rude"))
        assert folder.actions() == {"tone": "regrade"}
        folder.applied()
        after = folder.summary()
        assert after["label_counts"] == before["label_counts"] and after["judges"] != before["judges"]
        assert after["metrics"]["agreement"] == before["metrics"]["agreement"]
        assert server.stats()["requests"] == 24


def test_a_cascade_says_what_it_may_take_and_what_it_saved(tmp_path: Path) -> None:
    with serve() as server:
        folder = Folder(tmp_path, server.url).settings(models={name: {"base_url": server.url} for name in "xyz"})
        folder.rows(truths(5))
        judges = [{"model": name, "system_template": f"Is it {name}?", "temperature": 1} for name in "xyz"]
        folder.spec(judges=judges, repeats=2, vote={"cascade": True})
        _drop(folder.root / "tone.yaml", "judge")
        assert "5 rows, 10 to 30 calls" in folder.run("plan").out
        (change,) = json.loads(folder.run("plan", "--format", "json").out)["changes"]
        assert (change["calls_at_least"], change["calls"]) == (10, 30)
        folder.applied()
        assert folder.summary()["usage"]["saved"] == 20 and server.stats()["requests"] == 10
        assert "20 calls saved by the cascade" in folder.run("show", "tone").out


def _drop(path: Path, key: str) -> None:
    value = yaml.safe_load(path.read_text())
    del value[key]
    path.write_text(yaml.safe_dump(value, sort_keys=False))
