"""Rows on their way to Together and back: what is uploaded, and which result belongs to which row.

The service keeps neither order nor ids, and takes no column that nothing uses. So a result is known by the content of
the columns that were sent, and of equal rows the first result belongs to the first one. Rows and results meet in a
temporary file: a million of them need the memory of one.
"""

from __future__ import annotations

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from evalops.datasets.dataset import Occurrences, Row
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical, sha256
from evalops.providers.together_counts import Tally
from evalops.result import Value, Verdict, VerdictStatus
from evalops.spec import Evaluation, Model, Type

LONGEST_RESULT = 64 << 20  # bytes of one row of results
SHOWN = 5  # row numbers that are shown; the rest is counted
CHOICES = {"a": "A", "b": "B", "tie": "Tie"}

# What the service adds to a row. A column of the same name would be lost.
_ADDED = {"evaluation_successful", "evaluation_status"}
_ADDED_COMPARE = _ADDED | {
    "MODEL_TO_EVALUATE_OUTPUT_A", "MODEL_TO_EVALUATE_OUTPUT_B", "judge_raw_output_original",
    "judge_raw_output_flipped", "choice_original", "choice_flipped", "judge_feedback_original_order",
    "judge_feedback_flipped_order", "final_decision", "is_invalid_judge_output", "is_incomplete",
}  # fmt: skip
ADDED: Mapping[Type, frozenset[str]] = {
    Type.CLASSIFY: frozenset(_ADDED | {"MODEL_TO_EVALUATE_OUTPUT", "label", "feedback"}),
    Type.SCORE: frozenset(_ADDED | {"MODEL_TO_EVALUATE_OUTPUT", "score", "feedback"}),
    Type.COMPARE: frozenset(_ADDED_COMPARE),
}

_TABLES = """
PRAGMA journal_mode=OFF;
CREATE TABLE results (content TEXT PRIMARY KEY, line INTEGER, verdict TEXT) WITHOUT ROWID;
CREATE TABLE sources (position INTEGER PRIMARY KEY, key TEXT, content TEXT);
CREATE UNIQUE INDEX by_content ON sources (content);
BEGIN;
"""


def upload(rows: Iterable[tuple[str, Row]], columns: Sequence[str]) -> Iterator[bytes]:
    """The lines of the JSONL file for the service: each row's `columns` in canonical form.

    Raises EvalopsError at a row that lacks one of them.
    """
    for _, row in rows:
        for column in columns:
            if column not in row.source:
                raise EvalopsError(
                    Diagnostic(
                        code="dataset/missing-field",
                        message=f"row {row.position + 1} has no field `{column}`",
                        hint="every row needs the columns that the spec uses",
                    )
                )
        used = {column: row.source[column] for column in columns}
        line = canonical(used)
        try:
            line.decode()
        except UnicodeDecodeError:  # half a character, which UTF-8 cannot hold, but JSON can
            line = json.dumps(used, sort_keys=True, separators=(",", ":")).encode()
        yield line + b"\n"


def read(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a result file with their lines, from 1. Raises EvalopsError with the line that is not a row."""
    number = 0
    while line := stream.readline(LONGEST_RESULT + 1):
        number += 1
        if not line.strip():
            continue
        try:
            value = json.loads(line, parse_constant=lambda _: None) if len(line) <= LONGEST_RESULT else None
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _mismatch(f"line {number} of the job's result file is no row")
        yield number, value


def verdicts(
    evaluation: Evaluation,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Row]],
    results: Iterable[tuple[int, dict[str, Any]]],
    counts: Mapping[str, Any] | None = None,
) -> Iterator[tuple[Verdict, dict[str, Any]]]:
    """The verdict on each row in the order of `rows`, with `outputs` and `lengths` where they are known.

    `columns` are those that were uploaded, `counts` what the service says of the job. Raises EvalopsError, before the
    first verdict, where a row has no result or a result no row, and where the verdicts are not those counted.
    """
    tally = Tally()
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as database:
        database.executescript(_TABLES)
        seen = Occurrences()
        for line, result in results:
            verdict, detail = _verdict(evaluation, result)
            tally.add(verdict)
            text = json.dumps([verdict[1:], detail])
            content = _content(result, columns, seen)
            database.execute("INSERT INTO results VALUES (?, ?, ?)", (content, line, text))
        seen = Occurrences()
        for key, row in rows:
            content = _content(row.source, columns, seen)
            database.execute("INSERT INTO sources VALUES (?, ?, ?)", (row.position, key, content))
        _require_pairs(database)
        _require_counts(tally, evaluation, counts or {})
        pairs = "SELECT key, verdict FROM sources JOIN results USING (content) ORDER BY position"
        for key, text in database.execute(pairs):
            (status, value, reason, feedback, orders, rung, lengths, *_), detail = json.loads(text)
            orders, lengths = orders and tuple(orders), tuple(lengths)
            yield Verdict(key, VerdictStatus(status), value, reason, feedback, orders, rung, lengths), detail


def _content(source: Mapping[str, Any], columns: Sequence[str], seen: Occurrences) -> str:
    """What a row is known by: a digest of the columns that were sent, and which one of equal rows it is."""
    used = {column: _plain(source[column]) for column in columns if source.get(column) is not None}
    digest = sha256(canonical(used))
    return f"{digest}#{seen.count(digest)}"


def _plain(value: Any) -> Any:
    """A value with whole numbers as such: on its way through a service, 10.0 may become 10."""
    match value:
        case float() if value.is_integer() and abs(value) < 1 << 53:
            return int(value)
        case list():
            return [_plain(each) for each in value]
        case dict():
            return {key: _plain(each) for key, each in value.items()}
    return value


def _require_pairs(database: sqlite3.Connection) -> None:
    """Raises EvalopsError that says how many rows and results have no counterpart, and which."""
    problems = []
    missing = "SELECT position + 1 FROM sources WHERE content NOT IN (SELECT content FROM results) ORDER BY 1"
    foreign = "SELECT line FROM results WHERE content NOT IN (SELECT content FROM sources) ORDER BY 1"
    count = "SELECT (SELECT count(*) FROM sources), (SELECT count(*) FROM results)"
    sources, results = database.execute(count).fetchone()
    if numbers := _numbers(database, missing):
        problems.append(_mismatch(f"of {sources:,} rows, {numbers[0]:,} have no result: {_listed('row', numbers)}"))
    if numbers := _numbers(database, foreign):
        where = _listed("line", numbers)
        problems.append(
            _mismatch(f"of {results:,} results, {numbers[0]:,} belong to no row: {where} of the result file")
        )
    if problems:
        raise EvalopsError(*(each for problem in problems for each in problem.diagnostics))


def _require_counts(tally: Tally, evaluation: Evaluation, counts: Mapping[str, Any]) -> None:
    """Raises EvalopsError where the service counted other verdicts than its result file has."""
    problems = [
        Diagnostic(
            code="together/counts",
            message=message,
            hint="its file and its counts contradict each other: ask Together which of them is right",
        )
        for message in tally.differences(evaluation, counts)
    ]
    if problems:
        raise EvalopsError(*problems)


def _numbers(database: sqlite3.Connection, query: str) -> tuple[int, list[int]] | None:
    """How many numbers a query finds, and the first of them; None for no number."""
    count = database.execute(f"SELECT count(*) FROM ({query})").fetchone()[0]  # noqa: S608  # a query of ours
    return (count, [number for (number,) in database.execute(f"{query} LIMIT {SHOWN}")]) if count else None


def _listed(what: str, numbers: tuple[int, list[int]]) -> str:
    count, shown = numbers
    more = f" and {count - len(shown):,} more" if count > len(shown) else ""
    return f"{what}{'s' * (count > 1)} {', '.join(str(each) for each in shown)}{more}"


def _mismatch(message: str) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code="together/results",
            message=message,
            hint="the dataset may have changed since the job was made; `evalops rows --raw` shows the file as it is",
        )
    )


def _verdict(evaluation: Evaluation, result: Mapping[str, Any]) -> tuple[Verdict, dict[str, Any]]:
    """The verdict in a row of results, still without a key, and the rest of what it says."""
    detail: dict[str, Any] = {}
    responses = [
        result.get(_output_of(evaluation, number) if isinstance(each, Model) else each)
        for number, each in enumerate(evaluation.candidates)
    ]
    outputs = [
        response
        for response, candidate in zip(responses, evaluation.candidates, strict=True)
        if isinstance(candidate, Model)
    ]
    if any(output is not None for output in outputs):
        detail["outputs"] = outputs
    lengths = tuple(len(str(each)) for each in responses) if None not in responses else ()
    if lengths:
        detail["lengths"] = list(lengths)
    feedback = _text(result, "judge_feedback_original_order" if evaluation.type is Type.COMPARE else "feedback")
    if evaluation.type is Type.COMPARE and (flipped := _text(result, "judge_feedback_flipped_order")):
        detail["feedback_flipped"] = flipped
    if not _is_successful(result):
        said = feedback or "the service could not evaluate this row"
        return Verdict("", VerdictStatus.ERROR, None, "failed", said, lengths=lengths), detail
    match evaluation.type:
        case Type.CLASSIFY:
            value, problem = _label(result.get("label"), evaluation.labels)
        case Type.SCORE:
            value, problem = _score(result.get("score"), evaluation)
        case Type.COMPARE:
            return _compared(evaluation, result, feedback, lengths), detail
    status = VerdictStatus.INVALID if problem else VerdictStatus.SCORED
    return Verdict("", status, value, problem, feedback, lengths=lengths), detail


def _output_of(evaluation: Evaluation, number: int) -> str:
    return "MODEL_TO_EVALUATE_OUTPUT" + (f"_{'AB'[number]}" if evaluation.type is Type.COMPARE else "")


def _text(result: Mapping[str, Any], column: str) -> str | None:
    value = result.get(column)
    return value if isinstance(value, str) and value else None


def _is_successful(result: Mapping[str, Any]) -> bool:
    """Older jobs say `evaluation_status`, as text."""
    said = result.get("evaluation_successful", result.get("evaluation_status"))
    return said is not False and str(said).casefold() != "false"


def _label(value: Any, labels: Sequence[str]) -> tuple[Value, str | None]:
    label = value.strip() if isinstance(value, str) else ""
    found = value if value in labels else label
    return (found, None) if found in labels else (None, "unknown_label" if label else "unparsable")


def _score(value: Any, evaluation: Evaluation) -> tuple[Value, str | None]:
    try:
        score = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        score = math.nan
    if math.isnan(score):
        return None, "unparsable"
    low, high = evaluation.min_score, evaluation.max_score
    is_inside = (low is None or score >= low) and (high is None or score <= high)
    return (score, None) if is_inside else (None, "out_of_range")


def _compared(
    evaluation: Evaluation, result: Mapping[str, Any], feedback: str | None, lengths: tuple[int, ...]
) -> Verdict:
    """The verdict of a comparison; a single readable order decides, as the service counts it."""
    given, flipped, final = (_choice(result, each) for each in ("choice_original", "choice_flipped", "final_decision"))
    final = final or (None if evaluation.both_orders else given)
    orders = (given, flipped) if given or flipped else None
    is_flagged = result.get("is_invalid_judge_output", result.get("is_incomplete")) is True
    if final is None or (is_flagged and orders is None):
        return Verdict("", VerdictStatus.INVALID, None, "unparsable", feedback, orders, lengths=lengths)
    return Verdict("", VerdictStatus.SCORED, final, None, feedback, orders, lengths=lengths)


def _choice(result: Mapping[str, Any], column: str) -> str | None:
    value = result.get(column)
    return CHOICES.get(value.strip().casefold()) if isinstance(value, str) else None
