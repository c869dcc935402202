"""How results moved from one side to the other: a pure function over the lock entries of both.

`before` is a base revision, `after` the working tree. An evaluation is the same one under another name where its
fingerprint is; all p-values are adjusted together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from evalops import diff, jobs, paired
from evalops.errors import EvalopsError
from evalops.lock import Entry, Status
from evalops.paired import Flip, Paired
from evalops.plan import bounds
from evalops.result import Verdict, VerdictStatus
from evalops.spec import Evaluation, Type

SHOWN = 10  # flipped rows of an evaluation
NAMED = 3  # rows that are new or gone
SIGNIFICANT = 0.05
LARGEST = 1e100  # a score in a verdicts file

Kept = Callable[[Entry], Sequence[Verdict] | None]  # an entry's verdicts, None where no file has them
Metric = tuple[str, Mapping[str, Any]]  # a name, and value and interval as in a lockfile


class Kind(StrEnum):
    """What happened at an address."""

    MOVED = "moved"
    NEW = "new"
    GONE = "gone"
    RENAMED = "renamed"
    REGRADED = "regraded"
    OPEN = "open"
    SAME = "same"


class Trend(StrEnum):
    """Where the headline went: `level` is a difference that chance explains, or none at all."""

    UP = "up"
    DOWN = "down"
    LEVEL = "level"


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """The results at one point of the history, by address."""

    entries: Mapping[str, Entry]
    verdicts: Kept = lambda entry: None


class GateMove(NamedTuple):
    """One threshold on both sides, None where there was none."""

    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def is_turned(self) -> bool:
        """Whether it passes on one side and fails on the other."""
        return bool(self.before and self.after and self.before["verdict"] != self.after["verdict"])

    @property
    def is_changed(self) -> bool:
        """Whether another bound is asked for."""
        return bounds([self.before] if self.before else ()) != bounds([self.after] if self.after else ())

    def to_json(self) -> dict[str, Any]:
        """Both sides, and how they differ."""
        sides = {key: dict(each) if each else None for key, each in self._asdict().items()}
        return {**sides, "turned": self.is_turned, "changed": self.is_changed}


class Flipped(NamedTuple):
    """A flipped row, with its columns and what the judge said, where they are at hand."""

    flip: Flip
    source: Mapping[str, Any] | None = None
    feedback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """What happened at one address. `entry` is that of today, of a gone one that of the base.

    `was` is the earlier name of a renamed one. `flips` are the first flipped rows, those that got worse before others.
    """

    address: str
    kind: Kind
    entry: Entry
    earlier: Entry | None = None
    was: str | None = None
    before: Metric | None = None
    after: Metric | None = None
    paired: Paired | None = None
    gates: tuple[GateMove, ...] = ()
    fields: tuple[diff.Field, ...] = ()
    flips: tuple[Flipped, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def type(self) -> Type:
        return Type(self.entry.inputs["type"])

    @property
    def trend(self) -> Trend:
        """Where it went beyond chance."""
        difference = self.paired.difference if self.paired else None
        if self.paired is None or difference is None or difference.value is None or not _is_surely_moved(self.paired):
            return Trend.LEVEL
        return Trend.UP if difference.value > 0 else Trend.DOWN

    def to_json(self) -> dict[str, Any]:
        """Everything but the entries."""
        return {
            "address": self.address,
            "kind": self.kind.value,
            "was": self.was,
            "type": self.type.value,
            "status": self.entry.status.value,
            "trend": self.trend.value,
            "before": _metric_json(self.before),
            "after": _metric_json(self.after),
            "paired": _paired_json(self.paired),
            "gates": [each.to_json() for each in self.gates],
            "fields": [
                {"name": each.name, "before": each.before, "after": each.after, "mark": str(each.mark)}
                for each in self.fields
            ],
            "flips": [
                {**each.flip._asdict(), "source": dict(each.source) if each.source else None, "feedback": each.feedback}
                for each in self.flips
            ],
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """Every evaluation of both sides, by address; those that are the same too."""

    moves: tuple[Move, ...]

    def of(self, *kinds: Kind) -> Iterator[Move]:
        """The evaluations of some kinds."""
        return (move for move in self.moves if move.kind in kinds)

    def to_json(self) -> dict[str, Any]:
        """The totals, all that is not the same, and every gate that fails now."""
        counts = {kind.value: sum(1 for _ in self.of(kind)) for kind in Kind}
        trends = {trend.value: sum(each.trend is trend for each in self.of(Kind.MOVED)) for trend in Trend}
        failing = [
            {"address": move.address, "gate": dict(gate)}
            for move in self.moves
            if move.kind is not Kind.GONE
            for gate in move.entry.failed_gates
        ]
        return {
            "totals": {**counts, "trends": trends, "failed_gates": len(failing)},
            "moves": [move.to_json() for move in self.moves if move.kind is not Kind.SAME],
            "failed_gates": failing,
        }


def build(before: Side, after: Side, evaluations: Mapping[str, Evaluation]) -> Review:
    """What happened to every evaluation that either side has. `evaluations` are those of today's specs, by address."""
    gone = {address: entry for address, entry in before.entries.items() if address not in after.entries}
    moves: dict[str, Move] = {}
    for address, entry in after.entries.items():
        earlier, was = before.entries.get(address), None
        if earlier is None:
            was = next((each for each, old in gone.items() if old.fingerprint == entry.fingerprint), None)
            earlier = gone.pop(was) if was is not None else None
        moves[address] = _move(entry, earlier, was, before, after, evaluations.get(address))
    for address, entry in gone.items():
        moves[address] = Move(address=address, kind=Kind.GONE, entry=entry, before=_headline(entry))
    return Review(moves=_adjusted([moves[address] for address in sorted(moves)]))


def _move(
    entry: Entry, earlier: Entry | None, was: str | None, before: Side, after: Side, evaluation: Evaluation | None
) -> Move:
    move = Move(address=entry.address, kind=Kind.NEW, entry=entry, earlier=earlier, was=was, after=_headline(entry))
    if entry.status is not Status.COMPLETED or entry.summary is None:
        word = entry.message or f"its job is {entry.status.value}"
        return replace(move, kind=Kind.OPEN, after=None, before=_headline(earlier), notes=(f"no result yet: {word}",))
    if earlier is None:
        return move
    move = replace(move, before=_headline(earlier), gates=_gates(earlier, entry))
    if _is_same_work(earlier, entry):
        is_regraded = bool(move.gates) or earlier.grade != entry.grade or move.before != move.after
        kind = Kind.RENAMED if was is not None else Kind.REGRADED if is_regraded else Kind.SAME
        return replace(move, kind=kind, notes=() if earlier.grade == entry.grade else (_OTHER_GRADE,))
    fields = diff.fields(earlier.inputs, entry.inputs, evaluation) if evaluation else ()
    old, new = before.verdicts(earlier), after.verdicts(entry)
    is_graded_anew = earlier.grade != entry.grade and not _may_be_rows(earlier, entry, old, new, evaluation)
    notes = _notes(earlier, entry, fields, is_graded_anew=is_graded_anew)
    move = replace(move, kind=Kind.MOVED, fields=fields, notes=notes)
    if earlier.summary is None:
        return replace(move, notes=(*move.notes, "the base has no result of it"))
    found, why = _paired(move, earlier, old, new, evaluation)
    first = sorted(found.flips, key=lambda flip: _rank(flip, evaluation))[:SHOWN] if found else []
    return replace(move, paired=found, flips=tuple(map(Flipped, first)), notes=(*move.notes, *why))


_OTHER_GRADE = "what counts as a pass, or gold, changed: both results are older verdicts read anew"


def _is_same_work(earlier: Entry, entry: Entry) -> bool:
    return (earlier.fingerprint, earlier.generation) == (entry.fingerprint, entry.generation) and (
        earlier.summary is not None
    )


def _headline(entry: Entry | None) -> Metric | None:
    """The number that stands first; None where there is no result."""
    return jobs.headline(Type(entry.inputs["type"]), entry.summary) if entry else None


def _gates(earlier: Entry, entry: Entry) -> tuple[GateMove, ...]:
    """The thresholds that differ in their bounds or in how they ended."""
    old, new = ({(gate["metric"], gate.get("by")): gate for gate in each.gates} for each in (earlier, entry))
    moves = (GateMove(old.get(key), new.get(key)) for key in dict.fromkeys([*old, *new]))
    return tuple(each for each in moves if each.is_turned or each.is_changed)


def _notes(earlier: Entry, entry: Entry, fields: Sequence[diff.Field], *, is_graded_anew: bool) -> tuple[str, ...]:
    """What a reader has to know before believing the difference."""
    notes = []
    if entry.generation != earlier.generation and entry.reason:
        notes.append(f"run again: {entry.reason}")
    if any(each.name.split(".")[0] in ("judge", "judges") for each in fields):
        notes.append("the judge changed too, so the difference may be the judge's")
    if is_graded_anew:
        notes.append("what counts as a pass, or gold, changed: the difference is by the rules of today")
    return tuple(notes)


def _may_be_rows(
    earlier: Entry,
    entry: Entry,
    old: Sequence[Verdict] | None,
    new: Sequence[Verdict] | None,
    evaluation: Evaluation | None,
) -> bool:
    """Whether other rows alone may be why the grade differs: it covers their cells of gold, groups and clusters."""
    if earlier.dataset["submitted"] == entry.dataset["submitted"]:
        return False
    if evaluation is not None and not (evaluation.gold or evaluation.group_by or evaluation.cluster):
        return False
    return old is None or new is None or {each.key for each in old} != {each.key for each in new}


# --- the difference ---


def _paired(
    move: Move,
    earlier: Entry,
    old: Sequence[Verdict] | None,
    new: Sequence[Verdict] | None,
    evaluation: Evaluation | None,
) -> tuple[Paired | None, tuple[str, ...]]:
    """The difference, over shared rows where that can be; and why it is none, or not paired."""
    kind = move.type
    if Type(earlier.inputs["type"]) is not kind:
        return None, ("the type changed, so there is nothing to compare",)
    why = _unusable(old, new, evaluation, kind)
    if why is None:
        assert old is not None and new is not None and evaluation is not None
        try:
            found = paired.compare(
                old, new, kind, pass_labels=evaluation.pass_labels, pass_threshold=evaluation.pass_threshold
            )
            if found.shared:
                return found, _left_out(found)
            why = "no row has a verdict in both results"
        except EvalopsError as error:
            why = error.diagnostics[0].message
    found = paired.unpaired(earlier.summary or {}, move.entry.summary or {}, kind)
    return replace(found, reason=why), (f"not paired: {why}",)


def _unusable(
    old: Sequence[Verdict] | None, new: Sequence[Verdict] | None, evaluation: Evaluation | None, kind: Type
) -> str | None:
    """Why rows cannot be paired."""
    if evaluation is None:
        return "its spec cannot be read today"
    for which, found in (("the base", old), ("today", new)):
        if found is None:
            return f"no verdicts file has the verdicts of {which}"
        if not all(_is_sound(verdict, kind) for verdict in found):
            return f"the verdicts file of {which} does not fit the type"
    return None


def _is_sound(verdict: Verdict, kind: Type) -> bool:
    """Whether a verdict from a file is of its type at all."""
    if verdict.status is not VerdictStatus.SCORED:
        return True
    if kind in (Type.SCORE, Type.CUSTOM):
        return isinstance(verdict.value, int | float) and abs(verdict.value) < LARGEST
    return isinstance(verdict.value, str) and (kind is Type.CLASSIFY or verdict.value in ("A", "B", "Tie"))


def _left_out(found: Paired) -> tuple[str, ...]:
    parts = [
        f"{len(keys):,} {what} ({_named(keys)})"
        for keys, what in (
            (found.added, "new"),
            (found.removed, "gone"),
            (found.gained_verdict, "without a verdict before"),
            (found.lost_verdict, "without a verdict now"),
        )
        if keys
    ]
    return (f"rows left out of the difference: {', '.join(parts)}",) if parts else ()


def _named(keys: Sequence[str]) -> str:
    """The first few keys; of a digest, its beginning."""
    shown = [key if len(key) <= 40 else f"{key[:12]}…" for key in keys[:NAMED]]
    return ", ".join([*shown, "…"] if len(keys) > NAMED else shown)


def _rank(flip: Flip, evaluation: Evaluation | None) -> tuple[float, str]:
    """What got worse comes first."""
    if isinstance(flip.before, str) and isinstance(flip.after, str):
        passes = evaluation.pass_labels if evaluation and evaluation.pass_labels else ("A",)
        return float(flip.after in passes) - float(flip.before in passes), flip.key
    return float(flip.after or 0.0) - float(flip.before or 0.0), flip.key


def _adjusted(moves: Sequence[Move]) -> tuple[Move, ...]:
    """The moves with p-values that count all evaluations in."""
    tested = [place for place, move in enumerate(moves) if move.paired]
    adjusted = dict(zip(tested, paired.holm([moves[place].paired for place in tested]), strict=True))  # type: ignore[misc]
    return tuple(replace(move, paired=adjusted.get(place)) for place, move in enumerate(moves))


def _is_surely_moved(found: Paired) -> bool:
    if found.metric == "changed_labels":
        return False
    p = found.p if found.p_adjusted is None else found.p_adjusted
    if p is not None:
        return p <= SIGNIFICANT
    low, high = found.difference.low, found.difference.high
    return low is not None and high is not None and (low > 0 or high < 0)


# --- as JSON ---


def _metric_json(metric: Metric | None) -> dict[str, Any] | None:
    return {"metric": metric[0], **metric[1]} if metric else None


def _paired_json(found: Paired | None) -> dict[str, Any] | None:
    """The difference with rows counted; a list of them may be as long as the dataset."""
    if found is None:
        return None
    value = found.to_json()
    lists = ("flips", "added", "removed", "gained_verdict", "lost_verdict")
    return {key: len(each) if key in lists else each for key, each in value.items()}
