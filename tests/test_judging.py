"""What is said of judges, their criteria, repeats and votes before anything runs."""

from __future__ import annotations

from typing import Any

import pytest
from evaluations import evaluation

from evalops import judging, semantics

TWO = [{"model": "gpt-5"}, {"model": "llama-4"}]
HOT = {"temperature": 0.7}


def found(**fields: Any) -> list[str]:
    return [f"{each.severity}: {each.message}" for each in judging.check(evaluation(**fields))]


def words(**fields: Any) -> str:
    return "\n".join(found(**fields))


def test_good_ones() -> None:
    assert found() == found(judges=TWO) == found(repeats=5, judge=HOT) == found(judge={"column": "human"}) == []
    assert found(judges=TWO, vote={"rule": "majority", "quorum": 2}) == []
    assert found(type="score", judges=TWO, vote={"rule": "median"}) == []
    assert found(type="score", judge={"criteria": ["tone", {"name": "facts", "weight": 2}]}) == []
    assert found(judges=[TWO[0] | HOT, TWO[1] | HOT], repeats=3, vote={"cascade": True}) == []


# --- repeats ---


def test_repeats_of_a_judge_that_draws_nothing() -> None:
    (one,) = found(repeats=3)
    assert one == "warning: `judge` is asked 3 times for mostly the same answer: its temperature is 0"
    assert len(found(repeats=2, judges=[TWO[0], TWO[1] | HOT])) == 1
    assert len(found(repeats=2, judges=[TWO[0] | {"temperature": 0}, TWO[1]])) == 2
    likelihood = {"verdict": "likelihood", "temperature": 1, "system_template": "{{ a }}"}
    assert "by likelihood" in words(repeats=2, judge=likelihood, model_to_evaluate=None)
    assert found(repeats=2, judges=[{"column": "human"}, TWO[0] | HOT]) == []


# --- juries ---


def test_the_same_judge_twice_is_one_vote_counted_twice() -> None:
    (one,) = judging.check(evaluation(judges=[TWO[0], TWO[1], TWO[0]]))
    assert one.is_error and one.code == "spec/same-judge" and "`gpt-5`" in one.message
    assert one.hint and "repeats" in one.hint
    assert one.mark and one.mark.line == evaluation(judges=[TWO[0], TWO[1], TWO[0]]).places.mark("judges", 2).line
    assert words(judges=[TWO[0], TWO[0] | {"temperature": 0}]).startswith("error")  # the default, said
    assert words(judges=[{"column": "human"}, {"column": "human"}]).startswith("error: `human` is asked the same")
    assert found(judges=[{"column": "human"}, {"column": "other"}]) == []
    # Not next to each other, and another of the same family between them.
    assert [each[:5] for each in found(judges=[TWO[0], TWO[0] | HOT, TWO[0] | HOT])] == ["warni", "error"]


def test_judges_of_one_family() -> None:
    (one,) = found(judges=[{"model": "openai/gpt-5"}, {"model": "gpt-5-mini"}])
    assert one == "warning: `gpt-5-mini` and `openai/gpt-5` are of one family, and err alike"
    assert words(judges=[TWO[0], TWO[0] | {"system_template": "Is it rude?"}]).startswith("warning")
    assert words(judges=[TWO[0], TWO[0] | HOT]).startswith("warning")


@pytest.mark.parametrize("place", [0, 1])
def test_any_judge_may_be_of_the_writers_family(place: int) -> None:
    judges = [TWO[0], {"model": "gemma-3"}]
    writer = {"model": ["gpt-4o", "gemma-2"][place], "input_template": "{{ q }}"}
    (one,) = found(judges=judges, model_to_evaluate=writer)
    assert one.startswith(f"warning: `{judges[place]['model']}` judges what `{writer['model']}` writes")


def test_every_judge_is_checked_and_not_only_the_first() -> None:
    def errors(**fields: Any) -> list[str]:
        return [each.message for each in semantics.check(evaluation(**fields)) if each.is_error]

    assert "likelihood" in errors(type="score", judges=[TWO[0], TWO[1] | {"verdict": "likelihood"}])[0]
    writer = {"model": "w", "input_template": "{{ q }}"}
    (one,) = errors(judges=[TWO[0], {"column": "human"}], model_to_evaluate=writer)
    assert "`model_to_evaluate` cannot write new responses" in one


# --- the vote ---


@pytest.mark.parametrize(
    ("fields", "start"),
    [
        ({"judges": TWO, "vote": {"rule": "mean"}}, "error: the mean is for scores"),
        ({"type": "compare", "judges": TWO, "vote": {"rule": "median"}}, "error: the median is for scores"),
        ({"judges": TWO, "vote": {"quorum": 3}}, "error: `quorum` is 3, and a row has 2 votes at the most"),
        ({"vote": {"quorum": 2}}, "error: `quorum` is 2, and a row has 1 vote at the most"),
        ({"judges": TWO, "vote": {"margin": 0.1}}, "warning: `margin` has no effect without `cascade`"),
        ({"judge": HOT, "repeats": 3, "vote": {"cascade": True}}, "warning: `cascade` has no effect"),
        ({"judges": TWO, "vote": {"cascade": True}}, "warning: the first judge is asked once"),
    ],
)
def test_a_vote_that_cannot_be_meant(fields: dict[str, Any], start: str) -> None:
    (one,) = found(**fields)
    assert one.startswith(start)


def test_a_first_judge_that_can_doubt() -> None:
    assert found(type="compare", judges=TWO, vote={"cascade": True}) == []
    likely = {"model": "gpt-5", "verdict": "likelihood", "system_template": "{{ a }}"}
    fields = {"judges": [likely, TWO[1]], "model_to_evaluate": None}
    assert found(**fields, vote={"cascade": True, "margin": 0.2}) == []
    assert len(found(**fields, vote={"cascade": True})) == 1


# --- criteria ---


@pytest.mark.parametrize(
    ("criteria", "name"),
    [(["tone", "Tone"], "Tone"), (["reason"], "reason"), (["a", "b", "A"], "A"), (["REASON"], "REASON")],
)
def test_names_that_a_reply_cannot_keep_apart(criteria: list[str], name: str) -> None:
    (one,) = judging.check(evaluation(type="score", judge={"criteria": criteria}))
    assert one.is_error and f"`{name}`" in one.message and one.hint


def test_criteria_that_no_judge_sees() -> None:
    (one,) = found(judge={"criteria": ["tone"]})
    assert one.startswith("warning: in type `classify` the judge sees `criteria` only where")
    assert found(judge={"criteria": ["tone"], "system_template": "{{ criteria }} Polite?"}) == []


def test_a_response_column_called_criteria_would_be_hidden() -> None:
    (one,) = found(type="score", judge={"criteria": ["tone"]}, model_to_evaluate="criteria")
    assert one.startswith("error") and "`criteria`" in one


def test_criteria_are_no_column_where_the_judge_has_them() -> None:
    template = {"system_template": "{{ criteria }} {{ question }}"}
    assert semantics.variables(evaluation(judge=template)) == {"criteria", "question"}
    assert semantics.variables(evaluation(judge={**template, "criteria": ["tone"]})) == {"question"}
    writer = {"model": "w", "input_template": "{{ criteria }}"}  # there it is a column as any other
    both = evaluation(judge={**template, "criteria": ["tone"]}, model_to_evaluate=writer)
    assert semantics.variables(both) == {"criteria", "question"}
    other = evaluation(judges=[{**template, "criteria": ["tone"]}, {**template, "model": "other"}])
    assert semantics.variables(other) == {"criteria", "question"}
