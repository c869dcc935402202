"""What a response says: its last line, its last number, the letter it chose, or what a pattern finds.

A reader takes text and gives what it found or why it found nothing; it never guesses between two answers.
Numbers are written the English way: a comma (or a narrow space) groups thousands, a point begins the decimals.
Every expression here takes time in proportion to its text, whoever wrote that.
"""

from __future__ import annotations

import json
import re
from collections import deque
from fractions import Fraction
from typing import Any, NamedTuple

from evalops.evaluators.pattern import Pattern

SEARCHED = 100_000  # characters, the last ones, that are searched for an answer
DIGITS = 1_000  # of a longer number, what is behind the point is cut off

WORDS = ("all", "last_line", "last_number")

NO_ANSWER = "no_answer"
AMBIGUOUS = "ambiguous_answer"


class Found(NamedTuple):
    """What a reader found, or the reason why it found nothing, with a sentence for people."""

    text: str = ""
    reason: str | None = None
    why: str = ""


class Number(NamedTuple):
    """A number as it was written, and its value."""

    text: str
    value: Fraction


def text_of(value: Any) -> str:
    """A cell as text: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def is_blank(value: Any) -> bool:
    """Whether a cell says nothing at all."""
    return value is None or (isinstance(value, str) and not value.strip())


def extract(text: str, rule: str | Pattern) -> Found:
    """The part of a response that is compared. Raises `pattern.TooSlow`."""
    if rule == "all":
        return Found(text)
    text = text[-SEARCHED:]
    if isinstance(rule, Pattern):
        found = rule.last(text)
        return Found(found) if found else Found(reason=NO_ANSWER, why="the pattern of `extract` finds nothing in it")
    if rule == "last_line":
        lines = text.strip().splitlines()
        return Found(lines[-1].strip()) if lines else Found(reason=NO_ANSWER, why="it has no line of text")
    number = last_number(text)
    return Found(number.text) if isinstance(number, Number) else number


# --- numbers ---

_NUMBER = re.compile(
    r"""
    (?<!\w) (?<![0-9][.,/])
    (?: (?P<sign>[-+−–]) [$€£¥₹]? (?=[.0-9\\]) )?
    (?: (?: (?P<lead>[0-9]++)[ ]? )? \\[dt]?frac\{ (?P<over>[0-9]++) \}\{ (?P<under>[0-9]++) \}
      | (?: (?P<whole>[0-9]++)[ ] )? (?P<part>[0-9]++) / (?P<of>[0-9]++) (?![.,/_]?[0-9])
      | (?: (?P<grouped> [0-9]{1,3}+ (?:[,_\u00a0\u2009\u202f][0-9]{3})++ ) | (?P<plain>[0-9]++) )
        (?: \.(?P<decimals>[0-9]++) )? (?![.,/_]?[0-9])
      | (?<!\.) \.(?P<bare>[0-9]++) (?![.,/_]?[0-9])
      | (?P<odd> [0-9]++ (?:[.,/_\u00a0\u2009\u202f][0-9]++)++ ) )
    (?: [eE](?P<e>[-+]?[0-9]{1,3}) (?!\w)
      | [ ]?[x×*·][ ]?10[ ]?\^[ ]?\{?(?P<power>[-+−]?[0-9]{1,3})\}? )?
    """,
    re.VERBOSE,
)


def last_number(text: str) -> Number | Found:
    """The number that comes last in `text`, whatever unit or currency stands beside it."""
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return _number(last[0]) if last else _NO_NUMBER


def one_number(text: str) -> Number | Found:
    """The only number in `text`; the same one may come again."""
    first: Number | Found = _NO_NUMBER
    for found in _NUMBER.finditer(text):
        number = _number(found)
        if isinstance(number, Found):
            return number
        if isinstance(first, Number) and first.value != number.value:
            return Found(reason=AMBIGUOUS, why=f"it has several numbers, {first.text} and {number.text} among them")
        first = number
    return first


_NO_NUMBER = Found(reason=NO_ANSWER, why="there is no number in it")


def _number(found: re.Match[str]) -> Number | Found:
    """What a match of `_NUMBER` is worth; none is 1/0, what reads in two ways (3,14 or 1.2.3), or an endless one."""
    part = {name: text or "" for name, text in found.groupdict().items()}
    text, under = found.group().strip(), part["of"] or part["under"] or "1"
    over = part["part"] or part["over"]
    whole = re.sub(r"[^0-9]", "", part["whole"] or part["lead"] or part["grouped"] or part["plain"])
    if part["odd"] or not under.strip("0") or max(map(len, (over, under, whole))) > DIGITS:
        return Found(reason=AMBIGUOUS, why=f"the number {text[:40]} in it cannot be read with certainty")
    decimals, power = (part["decimals"] or part["bare"])[:DIGITS], part["e"] or part["power"]
    value = Fraction(int(whole + decimals), 10 ** len(decimals)) if decimals else Fraction(int(whole or 0))
    if over:
        value += Fraction(int(over), int(under))
    if power:
        value *= Fraction(10) ** int(power.replace("−", "-"))
    return Number(text, -value if part["sign"] in ("-", "−", "–") else value)


# --- multiple choice ---

_OPEN = r"[(\[{\"'“‘]*+"
# A letter that stands for an option. Behind `A` and `I`, which are words too, comes a sign, the end, or such a word.
_END = r"(?=\s*+(?:$|[^\w\s'’]|(?:because|since|as|or|and|which|for)\b))"
_LETTER = rf"(?:([B-HJ-Z])(?![\w'’])|([A-Za-z]){_END})"
_SAID = re.compile(
    r"(?i:\b(?:(?:answer|choice)(?:[ ](?:choice|option|letter))?[ ]?"
    r"(?::|=|(?:is|was|would[ ]be|should[ ]be|must[ ]be|has[ ]to[ ]be)\b)"
    r"|(?:I|we)(?:[ ]would|['’]d)?[ ](?:choose|chose|pick|select|go[ ]with))"
    r"(?:[ ]*+(?:clearly|therefore|thus|definitely|most[ ]likely|option|choice|letter|the)\b)*+)"
    rf"[\s:]*+{_OPEN}{_LETTER}"
)
_BOXED = re.compile(r"\\boxed\{(?:\\(?:text|textbf|mathrm)\{)?\(?([A-Za-z])\)?\}")
_SHOWN = re.compile(
    r"\(([A-Za-z])\)|\[([A-Z])\]|\*\*[(\[]?([A-Z])[)\]]?[.:)]?\*\*|\b(?:[Oo]ption|[Cc]hoice) ([A-Z])(?![\w'’])"
)
_ALONE = re.compile(r"[\W_]*+([A-Za-z])[\W_]*+")
_LINE = re.compile(rf"[*]*+{_OPEN}([A-Za-z])[)\].:*]{{1,4}}(?=\s)")
_TAIL = re.compile(r"(?:^|\s)([A-HJ-Z])[\s.!)\]\"'”’]*+$")
_LATER = re.compile(rf"[)\]}}\"'*.]*+\s*+(?:,\s*+)?(?:\b(?:or|and)\b|[,/&])\s*+(?:[Oo]ption\s)?[*]*+{_OPEN}{_LETTER}")
_EARLIER = re.compile(r"\b([A-Z])[)\]}\"'*]*\s*(?:,\s*)?(?:\b(?:or|and)\b|[,/&])\s*(?:[Oo]ption\s)?[(\[{\"'*]*$")
_NOT = re.compile(
    r"(?:\b(?:not|never|neither|nor|eliminated?|excludes?|out|than)|n['’]t)\s+(?:the\s+)?(?:option\s+)?[(\[*]*$", re.I
)
_WRONG = re.compile(
    r"[)\]*]*+\s++(?:(?:is|are|was)(?:n['’]t|\s++(?:not|wrong|incorrect|false|impossible|out))|cannot|can['’]t)\b", re.I
)
_NEAR = 40  # characters around a letter that may say more of it


def choice(text: str) -> Found:
    """The letter that a response to a multiple-choice question chose, as a capital.

    What it declares (`The answer is B`, `\\boxed{B}`) counts before a letter it shows (`(B)`, `**B**`, `option B`),
    and that before a bare one at the end. Of several the last counts; `A or B` is no choice.
    """
    text = text[-SEARCHED:].strip()
    alone = _ALONE.fullmatch(text) or ("\n" not in text and _LINE.match(text))
    if alone and all(_letter(each)[0] == alone[1].upper() for each in _SHOWN.finditer(text)):
        return Found(alone[1].upper())
    boxed = [*_BOXED.finditer(text)]
    if boxed:
        return Found(boxed[-1][1].upper())
    plain = re.sub(r"[*`]", "", text)
    said = [*_SAID.finditer(plain)]
    if said:
        return _single(plain, said[-1])
    lines = [line.strip() for line in text.splitlines()]
    own = {found[1].upper() for found in map(_ALONE.fullmatch, {*lines[:1], *lines[-1:]}) if found}
    if own:
        return Found(own.pop()) if len(own) == 1 else _list(own)
    listed = {found[1].upper() for found in map(_LINE.match, lines) if found}
    shown = [each for each in _SHOWN.finditer(text) if not _is_denied(text, each)]
    if shown:
        starts_line = not text[: shown[-1].start()].rpartition("\n")[2].strip()
        return _list(listed) if starts_line and len(listed) > 1 else _single(text, shown[-1])
    tail = _TAIL.search(plain, max(0, len(plain) - _NEAR))
    if tail and not _is_denied(plain, tail):
        return _single(plain, tail)
    if len(listed) > 1:
        return _list(listed)
    return Found(listed.pop()) if listed else Found(reason=NO_ANSWER, why="no letter is chosen in it")


def _list(letters: set[str]) -> Found:
    return Found(reason=AMBIGUOUS, why=f"it lists {', '.join(sorted(letters))} and does not say which")


def _single(text: str, found: re.Match[str]) -> Found:
    """The letter of a match, unless another one is joined to it."""
    letter, start, end = _letter(found)
    later = _LATER.match(text, end)
    earlier = _EARLIER.search(text[max(0, start - _NEAR) : start])
    for other in ([_letter(later)[0]] if later else []) + ([earlier[1]] if earlier else []):
        if other != letter:
            return Found(reason=AMBIGUOUS, why=f"it names {min(letter, other)} as well as {max(letter, other)}")
    return Found(letter)


def _letter(found: re.Match[str]) -> tuple[str, int, int]:
    """The letter of a match as a capital, and where it is."""
    group = next(index for index, each in enumerate(found.groups(), 1) if each)
    return found[group].upper(), found.start(group), found.end(group)


def _is_denied(text: str, found: re.Match[str]) -> bool:
    _, start, end = _letter(found)
    return bool(_NOT.search(text[max(0, start - _NEAR) : start]) or _WRONG.match(text, end))
