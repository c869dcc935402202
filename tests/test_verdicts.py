"""The verdicts file: what is written is read back, no text of the dataset is in it, and a stranger's is refused."""

from __future__ import annotations

import json

import pytest
from evaluations import evaluation
from hypothesis import given, settings
from hypothesis import strategies as st

from evalops.errors import EvalopsError, Mark
from evalops.result import Verdict, VerdictStatus, Vote
from evalops.spec import Evaluation
from evalops.verdicts import SHORTEST, Section, beside, checked, dump, parse, room

KEYS = st.text("0123456789abcdef", min_size=16, max_size=16)
CHOICES = st.sampled_from(["A", "B", "Tie"])
VERDICTS = (
    st.builds(lambda key, value: Verdict(key, VerdictStatus.SCORED, value), KEYS, st.text() | st.floats(0, 10))
    | st.builds(
        lambda key, value, one, two: Verdict(key, VerdictStatus.SCORED, value, orders=(one, two)),
        KEYS, CHOICES, CHOICES | st.none(), CHOICES | st.none(),
    )
    | st.builds(
        lambda key, status, reason: Verdict(key, status, None, reason),
        KEYS, st.sampled_from([VerdictStatus.INVALID, VerdictStatus.ERROR]), st.none() | st.text(),
    )
)  # fmt: skip
OPINIONS = st.builds(lambda value: (VerdictStatus.SCORED, value, None), st.text() | st.floats(0, 10)) | st.tuples(
    st.sampled_from([VerdictStatus.INVALID, VerdictStatus.ERROR]), st.none(), st.none() | st.text()
)
VOTES = st.lists(st.lists(OPINIONS, min_size=1, max_size=3), min_size=1, max_size=3).map(
    lambda judges: tuple(
        Vote(judge, repeat, *each) for judge, given in enumerate(judges) for repeat, each in enumerate(given, 1)
    )
)
CRITERIA = st.dictionaries(st.text(min_size=1), st.floats(0, 10), min_size=1, max_size=3)
VOTED = st.builds(
    lambda verdict, votes, criteria: verdict._replace(votes=votes, criteria=criteria),
    VERDICTS, VOTES | st.just(()), CRITERIA | st.none(),
)  # fmt: skip
SECTIONS = st.lists(
    st.builds(
        lambda address, job, verdicts: Section(address=address, job=job, verdicts=verdicts),
        st.text(min_size=1), st.text("ab-1", min_size=1), st.lists(VERDICTS | VOTED, max_size=5),
    ),
    max_size=3, unique_by=lambda section: section.address,
)  # fmt: skip
HEAD = '{"address":"tone","job":"local-1","rows":1}\n'


@given(SECTIONS)
@settings(max_examples=50)
def test_what_is_written_is_read_back(sections: list[Section]) -> None:
    by_address = {each.address: each for each in sections}
    data = dump(by_address)
    assert parse(data, "a.verdicts.jsonl") == by_address
    assert dump(dict(reversed(by_address.items()))) == data


def test_the_text() -> None:
    section = Section(
        address="tone",
        job="local-1",
        verdicts=[
            Verdict("0123456789abcdef", VerdictStatus.SCORED, "höflich", feedback="The reply says: yes", rung="json"),
            Verdict("0123456789abcdef#2", VerdictStatus.SCORED, "A", orders=("A", None)),
            Verdict("fedcba9876543210", VerdictStatus.INVALID, None, "length", feedback="It goes on and on"),
        ],
    )
    assert dump({"tone": section}).decode() == (
        '{"address":"tone","job":"local-1","rows":3}\n'
        '["0123456789abcdef",1,"höflich"]\n'
        '["0123456789abcdef#2",1,"A",["A",null]]\n'
        '["fedcba9876543210",1,null,"invalid","length"]\n'
    )


def test_the_text_of_votes_and_criteria() -> None:
    key = "0123456789abcdef"
    votes = (
        Vote(0, 1, VerdictStatus.SCORED, "polite"),
        Vote(0, 2, VerdictStatus.SCORED, "rude"),
        Vote(1, 1, VerdictStatus.INVALID, None, "length"),
        Vote(1, 2, VerdictStatus.SCORED, "polite"),
    )
    found = [
        Verdict(key, VerdictStatus.SCORED, "polite", votes=votes),
        Verdict(key, VerdictStatus.INVALID, None, "quorum", votes=votes[2:3]),
        Verdict(key, VerdictStatus.SCORED, 3.5, criteria={"tone": 3.0, "facts": 4.0}),
    ]
    lines = dump({"tone": Section(address="tone", job="j", verdicts=found)}).decode().splitlines()[1:]
    assert lines == [
        '["0123456789abcdef",1,"polite",{"votes":[["polite","rude"],[["invalid","length"],"polite"]]}]',
        '["0123456789abcdef",1,null,"invalid","quorum",{"votes":[[],[["invalid","length"]]]}]',
        '["0123456789abcdef",1,3.5,{"criteria":{"tone":3.0,"facts":4.0}}]',
    ]


def test_the_room_of_a_verdict_is_never_more_than_it_takes() -> None:
    for count in (0, 1, 5, 6, 100):
        votes = tuple(Vote(0, repeat, VerdictStatus.SCORED, "") for repeat in range(1, count + 1))
        verdict = Verdict("0" * 16, VerdictStatus.SCORED, 1, votes=votes)
        line = dump({"a": Section(address="a", job="j", verdicts=[verdict])}).splitlines(keepends=True)[1]
        assert 1 <= room(verdict) <= max(1, len(line) // SHORTEST)


def test_no_line_is_shorter_than_what_the_bound_counts_with() -> None:
    section = Section(
        address="a", job="j", verdicts=[Verdict("0" * 16, VerdictStatus.SCORED, value) for value in ("", 1)]
    )
    assert min(map(len, dump({"a": section}).splitlines(keepends=True))) >= SHORTEST


@pytest.mark.parametrize(
    "line",
    [
        "",
        "nonsense",
        "null",
        "7",
        '"abc"',
        "[]",
        '["k",1]',
        '["k",1,null]',
        '["k",1,true]',
        '["k",1,NaN]',
        '["k",1,["a"]]',
        '["k",1,{"a":1}]',
        '[1,1,"a"]',
        '["k",1,"a","scored",null]',
        '["k",1,"a","invalid",null]',
        '["k",1,null,"lost",null]',
        '["k",1,null,"invalid",7]',
        '["k",1,"A",["A"]]',
        '["k",1,"A",["A","B","Tie"]]',
        '["k",1,"A",["A",1]]',
        '["k",1,"a",null,null,null]',
        '["k",1,"a",{}]',
        '["k",1,"a",{"votes":[]}]',
        '["k",1,"a",{"votes":["a"]}]',
        '["k",1,"a",{"votes":"a"}]',
        '["k",1,"a",{"votes":{"a":["a"]}}]',
        '["k",1,"a",{"votes":[[null]]}]',
        '["k",1,"a",{"votes":[[true]]}]',
        '["k",1,"a",{"votes":[["a",["scored",null]]]}]',
        '["k",1,"a",{"votes":[["a",["invalid"]]]}]',
        '["k",1,"a",{"votes":[["a"]],"more":1}]',
        '["k",1,"a",{"votes":[["a"]]},1]',
        '["k",1,{"votes":[["a"]]}]',
        '["k",1,3,{"criteria":[]}]',
        '["k",1,3,{"criteria":["tone"]}]',
        '["k",1,3,{"criteria":{"tone":"4"}}]',
        '["k",1,3,{"criteria":{"tone":null}}]',
        '["k",1,"a",{"votes":[[' + '"a",' * 2000 + '"a"]]}]',
        '{"address":"x"}',
        '{"address":1,"job":"j"}',
        '{"address":"x","job":["j"]}',
        "<<<<<<< ours",
        "[" * 100_000,
        "\xff",
    ],
    ids=lambda value: value[:24],
)
def test_a_line_that_is_none(line: str) -> None:
    data = (HEAD + '["k",1,"a"]\n' + line + "\n").encode("latin-1")
    with pytest.raises(EvalopsError) as caught:
        parse(data, "tone.verdicts.jsonl")
    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.mark) == ("verdicts/line", Mark("tone.verdicts.jsonl", 3, 1))
    assert problem.hint == "restore it with `git checkout -- tone.verdicts.jsonl`"


JURY = evaluation(judges=[{"model": "x"}, {"model": "y"}], repeats=2)
MARKS = evaluation(type="score", judge={"criteria": ["tone"]})


@pytest.mark.parametrize(
    ("what", "line", "is_fine"),
    [
        (JURY, '["k",1,"rude",{"votes":[["rude","rude"],["polite",["invalid","length"]]]}]', True),
        (JURY, '["k",1,"rude",{"votes":[["rude","kind"]]}]', False),
        (JURY, '["k",1,"rude",{"votes":[["rude","rude","rude"]]}]', False),
        (JURY, '["k",1,"rude",{"votes":[["rude"],["rude"],["rude"]]}]', False),
        (MARKS, '["k",1,3,{"criteria":{"tone":3}}]', True),
        (MARKS, '["k",1,3,{"criteria":{"tone":6}}]', False),
        (MARKS, '["k",1,3,{"criteria":{"facts":3}}]', False),
        (JURY, '["k",1,"rude",{"criteria":{"tone":3}}]', False),
    ],
)
def test_what_an_evaluation_can_have(what: Evaluation, line: str, is_fine: bool) -> None:
    (section,) = parse((HEAD + line).encode(), "a").values()
    if is_fine:
        assert checked(section, what, "a") == section.verdicts
    else:
        with pytest.raises(EvalopsError, match="verdict 1 of `tone` is none that this evaluation can have"):
            checked(section, what, "a")


def test_a_verdict_before_any_address_is_none() -> None:
    with pytest.raises(EvalopsError, match="line 1 is no verdict"):
        parse(b'["k",1,"a"]\n' + HEAD.encode(), "a")


@given(st.binary(max_size=60))
def test_no_bytes_break_it(noise: bytes) -> None:
    try:
        assert isinstance(parse(noise, "a"), dict)
    except EvalopsError as error:
        assert error.diagnostics[0].code == "verdicts/line"


def test_an_empty_file_has_no_section() -> None:
    assert parse(b"", "a") == {}
    assert parse(HEAD.encode(), "a") == {"tone": Section(address="tone", job="local-1", verdicts=[])}
    assert json.loads(HEAD)["rows"] == 1  # counted for people: a section is held to its job's rows when it is used


def test_beside() -> None:
    assert beside("b/tone.lock") == "b/tone.verdicts.jsonl"
