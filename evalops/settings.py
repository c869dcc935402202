"""The settings of a project, from evalops.yaml, as one frozen value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from evalops import schema
from evalops.document import Document
from evalops.errors import Diagnostic, Mark, Severity, has_errors

FILE = "evalops.yaml"
DEFAULT_SPECS = ("**/*.yaml",)
# What says where rows and keys may go, what code may run, and what an apply may cost: by a trusted revision, if named.
TRUSTED = ("providers", "models", "credentials", "functions", "prices", "budget", "policy", "serve")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A key by name: the environment variable that holds it and the origins it may be sent to."""

    name: str
    env: str
    origins: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedDataset:
    """A file that specs share by name; `sha256`, where it is given, is what the file must have."""

    path: str
    sha256: str | None = None
    description: str = ""
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Money per million tokens, as the vendor asked it on the day `as_of`."""

    input: float
    output: float
    as_of: date

    def of(self, sent: float, received: float) -> float:
        """The money for these numbers of tokens."""
        return (sent * self.input + received * self.output) / 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the local engine waits (seconds) and how many failed rows it bears (a share, 0 to 1)."""

    attempt_timeout: float = 120.0
    row_timeout: float = 300.0
    down_after: float = 10.0
    max_error_rate: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most one apply may do, and each of its evaluations; None is no bound."""

    rows: int | None = None
    calls: int | None = None
    cost: float | None = None
    per_evaluation: Budget | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What every evaluation must satisfy: a JSON Schema over its flat fields. `message` says why, or whom to ask."""

    name: str
    schema: Any
    severity: Severity = Severity.ERROR
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A service. `visibility_lag` (seconds) is how long a created job may be missing from its list; None is the
    provider's own. `marker` allows a comment in the judge's template by which a job of ours is known again.
    """

    base_url: str | None = None
    credential: str | None = None
    visibility_lag: float | None = None
    marker: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Serve:
    """What `evalops serve` allows: the model for names that `models` lacks, and where external models may be."""

    default_model: str | None = None
    external_origins: tuple[str, ...] = ()
    max_file_bytes: int = 5 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Trusted:
    """A revision whose settings hold, and what of evalops.yaml here differs from it, by dotted names: settings that
    are not used (`ignored`), and others that are (`applied`).
    """

    name: str
    commit: str
    ignored: tuple[str, ...] = ()
    applied: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return {"name": self.name, "commit": self.commit, "ignored": list(self.ignored), "applied": list(self.applied)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """evalops.yaml with its defaults. `judges`, `models` and `defaults` stay as written: specs merge them.

    `trusted` is the document that the sections of `TRUSTED` are from, where that is another one.
    """

    document: Document | None = None
    trusted: Document | None = None
    specs: tuple[str, ...] = DEFAULT_SPECS
    provider: str = "local"
    limits: Limits = Limits()
    judges: Mapping[str, Any] = field(default_factory=dict)
    models: Mapping[str, Any] = field(default_factory=dict)
    credentials: Mapping[str, Credential] = field(default_factory=dict)
    datasets: Mapping[str, NamedDataset] = field(default_factory=dict)
    functions: Mapping[str, str] = field(default_factory=dict)  # name -> module:function
    defaults: Mapping[str, Any] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    budget: Budget = Budget()
    policy: tuple[Rule, ...] = ()
    verdicts_max_bytes: int = 1_000_000
    remotes: Mapping[str, Remote] = field(default_factory=dict)
    serve: Serve = Serve()

    def mark(self, *route: str | int) -> Mark:
        """Where a setting was written."""
        document = self.document_of(str(route[0])) if route else self.document
        return document.mark(*route) if document else Mark(FILE)

    def document_of(self, section: str) -> Document | None:
        """The document that a section is from."""
        return self.trusted if self.trusted and section in TRUSTED else self.document

    def trusting(self, theirs: Settings) -> Settings:
        """These settings, with those of `theirs` in place of all that `TRUSTED` names."""
        return replace(
            self,
            trusted=theirs.document,
            limits=theirs.limits,
            remotes=theirs.remotes,
            models=theirs.models,
            credentials=theirs.credentials,
            functions=theirs.functions,
            prices=theirs.prices,
            budget=theirs.budget,
            policy=theirs.policy,
            serve=theirs.serve,
        )


def differences(before: Any, after: Any, route: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The routes of the settings that differ between two values; of what one of them lacks, the highest."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys(), key=str):
            if key not in before or key not in after:
                yield (*route, str(key))
            else:
                yield from differences(before[key], after[key], (*route, str(key)))
    elif before != after:
        yield route


def load(document: Document) -> tuple[Settings, list[Diagnostic]]:
    """The settings in a parsed evalops.yaml; with errors, the defaults."""
    problems = schema.check(document.value, document, "project")
    if not has_errors(problems):
        problems += _dates(document)
    if has_errors(problems):
        return Settings(document=document), problems
    value = document.value
    return Settings(
        document=document,
        specs=tuple(value.get("specs", DEFAULT_SPECS)),
        provider=value.get("provider", "local"),
        limits=Limits(**value.get("providers", {}).get("local", {})),
        judges=value.get("judges", {}),
        models=value.get("models", {}),
        credentials={
            name: Credential(name=name, env=each["env"], origins=tuple(each["origins"]))
            for name, each in value.get("credentials", {}).items()
        },
        datasets={name: NamedDataset(**each) for name, each in value.get("datasets", {}).items()},
        functions=value.get("functions", {}),
        defaults=value.get("defaults", {}),
        prices={
            name: Price(input=each["input"], output=each["output"], as_of=date.fromisoformat(each["as_of"]))
            for name, each in value.get("prices", {}).items()
        },
        budget=_budget(value.get("budget", {})),
        policy=tuple(
            Rule(**{**each, "name": name, "severity": Severity(each.get("severity", Severity.ERROR))})
            for name, each in value.get("policy", {}).items()
        ),
        verdicts_max_bytes=value.get("verdicts", {}).get("max_bytes", 1_000_000),
        remotes={
            name: Remote(**each)
            for name, each in value.get("providers", {}).items()
            if name in ("together", "patronus")
        },
        serve=_serve(value.get("serve", {})),
    ), problems


def _dates(document: Document) -> Iterator[Diagnostic]:
    """Days of prices that no calendar has."""
    for name, price in document.value.get("prices", {}).items():
        try:
            date.fromisoformat(price["as_of"])
        except ValueError:
            yield Diagnostic(
                code="schema/value",
                message=f"`prices.{name}.as_of` must be a day, not `{price['as_of']}`",
                mark=document.mark("prices", name, "as_of"),
                hint="write it as 2026-11-01",
            )


def _budget(value: Mapping[str, Any]) -> Budget:
    each = value.get("per_evaluation")
    return Budget(**{**value, "per_evaluation": None if each is None else Budget(**each)})


def _serve(value: Mapping[str, Any]) -> Serve:
    return Serve(**{**value, "external_origins": tuple(value.get("external_origins", ()))})
