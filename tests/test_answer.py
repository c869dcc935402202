"""What is read in a response, and what is not guessed."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.evaluators import answer
from evalops.evaluators.answer import AMBIGUOUS, NO_ANSWER, Found, Number
from evalops.evaluators.pattern import Pattern

# --- numbers ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("18", "18"), ("A: 18", "18"), ("18.", "18"), ("18, of course", "18"), ("(18)", "18"), ("= 18kg", "18"), ("007", "7"),
        ("+4", "4"), ("-3", "-3"), ("−3", "-3"), ("it is -$5", "-5"), ("$-5", "-5"), ("€ 5", "5"), ("12 %", "12"),
        ("$1,234.50", "1234.5"), ("1,000,000 dollars", "1000000"), ("1\u202f234", "1234"), ("1_000", "1000"),
        ("3/4", "3/4"), ("1 1/2 cups", "3/2"), (r"\frac{3}{4}", "3/4"), (r"-\dfrac{1}{2}", "-1/2"), (r"$2\frac{1}{2}$", "5/2"),
        (".5", "1/2"), ("-.5", "-1/2"), ("...18", "18"), ("The sum.18", "18"), ("1.5e3", "1500"), ("2E-2", "1/50"),
        ("1.5 × 10^3", "1500"), ("2x10^{-2}", "1/50"), (r"\boxed{42}", "42"), ("18 and 18.0", "18"),
    ],
)  # fmt: skip
def test_a_number_in_any_dress(text: str, value: str) -> None:
    last, only = answer.last_number(text), answer.one_number(text)
    assert isinstance(last, Number) and last.value == Fraction(value)
    assert isinstance(only, Number) and only.value == Fraction(value)


@pytest.mark.parametrize("text", ["", "none", "x2", "v1.2", "gsm8k", "²", "٣", "a_1"])
def test_text_without_a_number(text: str) -> None:
    assert answer.last_number(text) == answer.one_number(text) == Found("", NO_ANSWER, "there is no number in it")


@pytest.mark.parametrize(
    "text", ["3,14", "1,2345", "1234,567", "1.234.567", "0.1.2", "10/12/2024", "1/0", "1,2,3", "9" * 2_000]
)
def test_a_number_that_could_be_another_is_not_read(text: str) -> None:
    for found in (answer.last_number(f"it is {text}"), answer.one_number(text)):
        assert isinstance(found, Found) and found.reason == AMBIGUOUS and text[:20] in found.why


def test_of_several_numbers_the_last_or_none() -> None:
    text = "5 - 3 = 2, so <<5-3=2>>2"
    last, only = answer.last_number(text), answer.one_number(text)
    assert isinstance(last, Number) and last.value == 2
    assert isinstance(only, Found) and only.reason == AMBIGUOUS


@given(st.fractions(max_denominator=10**6), st.integers(0, 12))
def test_what_is_written_is_read(value: Fraction, places: int) -> None:
    rounded = f"{value.numerator / value.denominator:,.{places}f}"
    found = answer.one_number(f"so {rounded} dollars")
    assert isinstance(found, Number) and found.value == Fraction(rounded.replace(",", ""))


def test_a_repeating_decimal_is_cut() -> None:
    found = answer.one_number("8." + "3" * 50_000)
    assert isinstance(found, Number) and abs(found.value - Fraction(25, 3)) < Fraction(1, 10**900)


# --- multiple choice ---


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"), ("b", "B"), ("(B)", "B"), ("B.", "B"), ("**B**", "B"), ("$B$", "B"), ("I", "I"),
        ("B. Paris", "B"), ("(B) Paris (A nice city)", "B"), ("**B) Paris**", "B"),
        ("The answer is B", "B"), ("the answer is (c).", "C"), ("The answer is d", "D"), ("Answer: D", "D"), ("Answer:\nB", "B"),
        ("**Answer:** D\n", "D"), ("Final answer: (D) Paris", "D"), ("The answer is\n\n(B)", "B"), ("Answer choice B", "B"),
        ("The correct answer is option **C**: because B", "C"), ("The answer is A because it is.", "A"),
        ("The answer is B, I think", "B"), ("The answer is B. A is wrong.", "B"), ("The answer is D. Dogs", "D"),
        (r"\boxed{C}", "C"), (r"So $\boxed{\text{C}}$, not (A)", "C"), ("I'd go with C", "C"), ("I would pick option D.", "D"),
        ("First (A). No, it is (B).", "B"), ("I think it's (B), not (A)", "B"), ("(A) is right; (B) is wrong.", "A"),
        ("The answer is A. Wait: the answer is C.", "C"), ("The answer isn't A, it's B", "B"),
        ("answer is B or C but I choose C", "C"), ("(A) and (B) are out, so (C)", "C"), ("Option B.", "B"), ("So the best is B.", "B"),
        ("B\n\nBecause (A) is far away", "B"), ("(A) is far away, so it is\nC", "C"), ("A) foo\nB) bar\nThe answer is: B) bar", "B"),
        ("(A) x\n(B) y\n\nI choose (B)", "B"), ("A) red\n\nred is warm", "A"),
    ],
)  # fmt: skip
def test_the_letter_that_was_chosen(text: str, letter: str) -> None:
    assert answer.choice(text) == Found(letter)


@pytest.mark.parametrize(
    "text",
    ["A or B", "The answer is A or B", "The answer is (A) and (C)", "The answer is A/B", "Either (A) or (B)", "A, B",
     "(A) foo\n(B) bar\n(C) baz", "A. x\nB. y", "A\n\nOn second thought\n\nB", "**A** or **B**"],
)  # fmt: skip
def test_two_letters_are_no_choice(text: str) -> None:
    assert answer.choice(text).reason == AMBIGUOUS


@pytest.mark.parametrize(
    "text",
    ["", "I don't know", "The answer is A dog", "It is a dog", "none of the above", "You and I", "The answer is not B",
     "It's neither A nor B", "AB", "1"],
)  # fmt: skip
def test_no_letter_is_made_up(text: str) -> None:
    assert answer.choice(text).reason == NO_ANSWER


# --- parts, and time ---


def test_the_part_that_is_compared() -> None:
    text = "First 3.\n\nThen 1,200 euros \n\n"
    assert answer.extract(text, "all").text == text
    assert answer.extract(text, "last_line").text == "Then 1,200 euros"
    assert answer.extract(text, "last_number").text == "1,200"
    assert answer.extract(text, Pattern(r"First (\d)")).text == "3"
    for rule in ("last_line", "last_number", Pattern("x")):
        assert answer.extract(" \n", rule).reason == NO_ANSWER


def test_of_an_endless_response_the_end_is_searched() -> None:
    text = "The answer is 1. " + "x" * answer.SEARCHED
    assert answer.extract(text, "last_number").reason == NO_ANSWER
    assert answer.extract(text + " 2", "last_number").text == "2"


def test_cells_that_are_no_text() -> None:
    assert [answer.text_of(each) for each in ("a", 18, 1.5, True, ["é"], {"a": 1})] == [
        "a",
        "18",
        "1.5",
        "true",
        '["é"]',
        '{"a": 1}',
    ]
    assert [each for each in (None, "", " \n", 0, False, "?") if answer.is_blank(each)] == [None, "", " \n"]


@pytest.mark.parametrize(
    "part",
    ["1", "1,", "1,111", "1/", "1 1/", "-", "$", r"\frac{1", r"\frac{1}{", "1e", "1 x 10^", ".1", "1.", "The answer is ", "(", "A or ",
     "**", "(A)", " ", "answer is option ", "A, ", "(A)\n", "not ", "\n", "I ", "'", ") ", "\\boxed{\\text{", "A."],
)  # fmt: skip
def test_a_text_made_to_burn_time_is_read_to_its_end(part: str) -> None:
    text = part * (answer.SEARCHED // len(part))
    found = (answer.last_number(text), answer.one_number(text), answer.choice(text))
    assert all(isinstance(each, answer.Number | answer.Found) for each in found)


@given(st.text(max_size=60))
def test_any_text_can_be_read(text: str) -> None:
    assert answer.choice(text).reason in (None, NO_ANSWER, AMBIGUOUS)
    answer.last_number(text)
    answer.one_number(text)
