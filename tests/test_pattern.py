"""Regular expressions of strangers: what is refused, and that none of them takes long."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.evaluators import pattern
from evalops.evaluators.pattern import Pattern, TooSlow

SAFE = [
    r"(?<=####)\s*(-?\d+)",
    r"answer is (.+)",
    r"[[(]([A-D])[])]",
    r"(?i)yes\b",
    r"\d{4}-\d{2}-\d{2}",
    r"a{,3}b",
    "x{e}",
]
HOSTILE = [r"(a+)+$", r"(a|aa)+$", r"(a|a)*b", r"(.*a){25}c", r"^(.*?,){20}P", r"(x+x+)+y"]


def nested(atom: str, count: int, times: int) -> str:
    for _ in range(times):
        atom = f"(?:{atom}){{{count}}}"
    return atom


@pytest.mark.parametrize("text", SAFE)
def test_a_pattern_as_python_writes_it_is_taken(text: str) -> None:
    assert pattern.problem(text) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("(", "missing )"),
        ("(?<=a*)b", "look-behind requires fixed-width pattern"),
        ("(?R)", "unknown extension"),
        (r"\p{L}", "bad escape"),
        ("a{99999999999999999999}", "too large"),
        ("(" * 500 + ")" * 500, "nested too deeply"),
        ("(?x)a # (", "comments"),
        ("(?ix:a)", "comments"),
        ("(?#(a)", "comments"),
        ("[[:alpha:](]", "[:alpha:]"),
        (nested("a?", 50, 3), "repeat too much"),
        (nested("", 1000, 4), "repeat too much"),
        ("((((((a){9}){9}){9}){9}){9}){9}", "repeat too much"),
        (r"(?:(?:(?:[)({2}\]]){20}){20}){20}", "repeat too much"),
    ],
)
def test_what_cannot_be_run_or_compiled_in_bounds_is_refused(text: str, why: str) -> None:
    began = time.process_time()
    assert why in str(pattern.problem(text))
    assert time.process_time() - began < 0.5


@pytest.mark.parametrize("text", HOSTILE)
def test_no_search_takes_long(text: str) -> None:
    assert pattern.problem(text) is None
    found, began = Pattern(text), time.process_time()
    for subject in ("a" * 5_000 + "!", "x" * 5_000, "1,2," * 2_000):
        for search in (found.search, found.last):
            try:
                search(subject)
            except TooSlow:
                break
        else:
            continue
        break
    assert time.process_time() - began < 10 * pattern.DEADLINE


def test_a_search_that_cannot_end_says_so() -> None:
    with pytest.raises(TooSlow):
        Pattern("(a+)+$").search("a" * 5_000 + "!")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("", 0),
        ("abc", 3),
        ("(?:ab){3}", 12),
        ("a{2,5}", 5),
        ("a{3,}", 3),
        ("a{,4}", 4),
        ("a{}", 2),
        ("[a{9}]", 1),
        (r"\({2}", 2),
    ],
)
def test_the_size_of_a_pattern(text: str, size: int) -> None:
    assert pattern.size(text) == size


def test_the_last_match_counts_and_of_it_the_first_group() -> None:
    text = "The answer is 3. No: the answer is 4."
    assert Pattern(r"answer is (\d)(.)").last(text) == "4"
    assert Pattern(r"answer is \d").last(text) == "answer is 4"
    assert Pattern(r"answer is (x)?").last(text) == ""
    assert Pattern("nothing").last(text) is None


def test_case_counts_unless_told_otherwise() -> None:
    assert Pattern("PARIS").search("in Paris") is None
    assert Pattern("PARIS", ignore_case=True).search("in Paris") == "Paris"


@given(st.text(max_size=30))
def test_any_text_is_a_pattern_or_refused(text: str) -> None:
    if pattern.problem(text) is None:
        Pattern(text).last("some text 1234 (a) [b]")


@given(st.from_regex(r"[ab(|)*+?.]{1,12}", fullmatch=True), st.text(alphabet="ab\n", max_size=12))
def test_it_finds_what_python_finds(text: str, subject: str) -> None:
    if pattern.problem(text) is None:
        expected = re.search(text, subject)
        assert Pattern(text).search(subject) == (expected.group() if expected else None)
