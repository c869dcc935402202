"""The lockfile: one entry an address, canonical JSON made for review, safe against merges and edits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, NoReturn

from evalops import schema
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.fingerprint import canonical, sha256

VERSION = 1
LONGEST_NUMBER = 300  # characters; a longer integer is beyond any float, and int() takes quadratic time
SUFFIX = ".lock"


class Status(StrEnum):
    """What is known of an entry's job."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether there is still something to wait for or to go on with."""
        return self in (Status.PENDING, Status.RUNNING, Status.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What was applied at one address.

    `summary` is the job's result as JSON, `gates` the verdict on each threshold, `grade` the digest of the
    grade fields they were made with. `reason` is why the generation was raised. `pins` are what names in the spec
    stood for, at a service that may change that, `credentials` the names of the keys that went along, by the field of
    the model. Times are RFC 3339, UTC.
    """

    address: str
    fingerprint: str
    generation: int = 1
    reason: str | None = None
    provider: str
    origin: str | None = None
    job: str | None = None
    status: Status
    message: str | None = None
    created_at: str
    finished_at: str | None = None
    dataset: Mapping[str, Any]
    inputs: Mapping[str, Any]
    pins: Mapping[str, str] | None = None
    credentials: Mapping[str, str] | None = None
    grade: str
    summary: Mapping[str, Any] | None = None
    gates: tuple[Mapping[str, Any], ...] = ()
    unknown: Mapping[str, Any] = field(default_factory=dict)

    @property
    def result_job(self) -> str | None:
        """The job that the result is of: an earlier one as long as today's has none."""
        return (self.summary or {}).get("job") or self.job

    @property
    def failed_gates(self) -> list[Mapping[str, Any]]:
        """The gates of the result that do not hold; none while there is no result of this job."""
        if self.status is not Status.COMPLETED:
            return []
        return [gate for gate in self.gates if gate.get("verdict") == "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The entries of one lockfile by address; `path` as shown to the user."""

    path: str
    entries: Mapping[str, Entry] = field(default_factory=dict)
    unknown: Mapping[str, Any] = field(default_factory=dict)
    # What `dump` made of an entry, for the locks that come of this one: an apply writes the file for each entry anew.
    _texts: dict[str, tuple[Entry, str]] = field(default_factory=dict, compare=False, repr=False)

    def put(self, *entries: Entry) -> Lock:
        """This lock with these entries added or replaced."""
        return replace(self, entries={**self.entries, **{entry.address: entry for entry in entries}})

    def drop(self, addresses: Iterable[str]) -> Lock:
        """This lock without these entries."""
        gone = set(addresses)
        return replace(self, entries={key: each for key, each in self.entries.items() if key not in gone})


# The order of the keys in a lockfile: what a reviewer looks for first comes first.
_FIELDS = (
    "fingerprint", "generation", "reason", "provider", "origin", "job", "status", "message",
    "created_at", "finished_at", "dataset", "inputs", "pins", "credentials", "grade", "summary", "gates",
)  # fmt: skip
_OPTIONAL = ("reason", "origin", "message", "finished_at", "pins", "credentials")


def beside(spec: str) -> str:
    """The lockfile of a spec file: `NAME.lock` for `NAME.yaml`."""
    return spec.rsplit(".", 1)[0] + SUFFIX


def held(locks: Mapping[str, Lock], spec: str, address: str) -> Entry | None:
    """What the lockfile of a spec file has for an address; `locks` are by path."""
    lock = locks.get(beside(spec))
    return lock.entries.get(address) if lock else None


def dump(lock: Lock) -> str:
    """The lockfile's text: sorted entries, one key a line, a digest at the end of each entry."""
    head = _json({"version": VERSION, **lock.unknown, "evaluations": {}}).removesuffix("{}\n}")
    entries = ",".join(_text(lock, address) for address in sorted(lock.entries))
    return f"{head}{{{entries}\n  }}\n}}\n" if entries else f"{head}{{}}\n}}\n"


def _text(lock: Lock, address: str) -> str:
    """An entry on lines of its own."""
    entry = lock.entries[address]
    known, text = lock._texts.get(address, (None, ""))
    if known is not entry:
        text = f"\n{_json(address)}: {_json(_entry_value(entry))}".replace("\n", "\n    ")
        lock._texts[address] = entry, text
    return text


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)


def parse(text: str, path: str) -> Lock:
    """The lock in a lockfile's text.

    Raises EvalopsError for a broken file, one of a newer version, and for entries that were edited or that a
    merge put together from two others.
    """
    try:
        return _parse(text, path)
    except (ValueError, RecursionError) as error:
        raise _broken(text, path, error) from None


def _parse(text: str, path: str) -> Lock:
    value = json.loads(
        text, object_pairs_hook=_object, parse_constant=_refuse_number, parse_float=_float, parse_int=_integer
    )
    version = value.get("version") if isinstance(value, dict) else None
    if isinstance(version, int) and version > VERSION:
        raise EvalopsError(
            Diagnostic(
                code="lock/newer-version",
                message=f"this lockfile has version {version}, this evalops knows {VERSION}",
                mark=Mark(path),
                hint="update evalops",
            )
        )
    problems = schema.check(value, schema.File(path), "lock")
    if problems:
        raise EvalopsError(*(replace(each, hint=_restore(path)) for each in problems))
    problems = [
        _edited(address, path)
        for address, entry in value["evaluations"].items()
        if entry.get("digest") != _digest(address, entry)
    ]
    if problems:
        raise EvalopsError(*problems)
    return Lock(
        path=path,
        entries={address: _entry(address, entry) for address, entry in value["evaluations"].items()},
        unknown={key: each for key, each in value.items() if key not in ("version", "evaluations")},
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A reviewer reads both lines of a repeated key, a parser the last."""
    value: dict[str, Any] = {}
    for key, each in pairs:
        if key in value:
            raise ValueError(f"it has the key `{key}` twice in one object")
        value[key] = each
    return value


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"`{text[:20]}` is no number that it can hold")


def _integer(text: str) -> int:
    return int(text) if len(text) <= LONGEST_NUMBER else _refuse_number(text)


def _float(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_number(text)


def _entry_value(entry: Entry) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for key in _FIELDS:
        each = getattr(entry, key)
        if each is None and key in _OPTIONAL:
            continue
        value[key] = list(each) if key == "gates" else each
    value |= entry.unknown
    value["digest"] = _digest(entry.address, value)
    return value


def digest_of(entry: Entry) -> str:
    """The digest that closes an entry in its lockfile."""
    return str(_entry_value(entry)["digest"])


def _entry(address: str, value: Mapping[str, Any]) -> Entry:
    known = {key: value[key] for key in _FIELDS if key in value}
    known["status"] = Status(known["status"])
    known["gates"] = tuple(known.get("gates", ()))
    unknown = {key: each for key, each in value.items() if key not in _FIELDS and key != "digest"}
    return Entry(address=address, unknown=unknown, **known)


def _digest(address: str, value: Mapping[str, Any]) -> str:
    return sha256(canonical([address, {key: each for key, each in value.items() if key != "digest"}]))


def _edited(address: str, path: str) -> Diagnostic:
    return Diagnostic(
        code="lock/edited",
        message=f"the entry `{address}` does not match its digest: it was edited by hand, or a merge mixed two",
        mark=Mark(path),
        address=address,
        hint=f"{_restore(path)}, or remove the entry: apply then looks for its job again",
    )


def _restore(path: str) -> str:
    return f"restore it with `git checkout -- {path}`"


def _broken(text: str, path: str, error: Exception) -> EvalopsError:
    mark = Mark(path, error.lineno, error.colno) if isinstance(error, json.JSONDecodeError) else Mark(path)
    message, hint = "this lockfile is not JSON", _restore(path)
    if re.search("^<<<<<<< ", text, re.MULTILINE):
        message = "this lockfile holds an unresolved merge"
        hint = "take either side of each entry whole, then run `evalops plan`"
    elif isinstance(error, RecursionError):
        message = "this lockfile is nested too deeply"
    elif not isinstance(error, json.JSONDecodeError):
        message = f"this lockfile cannot be used: {error}"
    return EvalopsError(Diagnostic(code="lock/syntax", message=message, mark=mark, hint=hint))
