"""The settings of a project, from evalops.yaml, as one frozen value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evalops import schema
from evalops.document import Document
from evalops.errors import Diagnostic, Mark, has_errors

FILE = "evalops.yaml"
DEFAULT_SPECS = ("**/*.yaml",)


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
    """Money per million tokens."""

    input: float
    output: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the local engine waits (seconds) and how many failed rows it bears (a share, 0 to 1)."""

    attempt_timeout: float = 120.0
    row_timeout: float = 300.0
    down_after: float = 10.0
    max_error_rate: float = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most one apply may do; None is no bound."""

    rows: int | None = None
    calls: int | None = None
    cost: float | None = None


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
class Settings:
    """evalops.yaml with its defaults. `judges`, `models` and `defaults` stay as written: specs merge them."""

    document: Document | None = None
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
    policy: Any = True
    verdicts_max_bytes: int = 1_000_000
    remotes: Mapping[str, Remote] = field(default_factory=dict)
    serve: Serve = Serve()

    def mark(self, *route: str | int) -> Mark:
        """Where a setting was written."""
        return self.document.mark(*route) if self.document else Mark(FILE)


def load(document: Document) -> tuple[Settings, list[Diagnostic]]:
    """The settings in a parsed evalops.yaml; with errors, the defaults."""
    problems = schema.check(document.value, document, "project")
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
        prices={name: Price(**each) for name, each in value.get("prices", {}).items()},
        budget=Budget(**value.get("budget", {})),
        policy=value.get("policy", True),
        verdicts_max_bytes=value.get("verdicts", {}).get("max_bytes", 1_000_000),
        remotes={
            name: Remote(**each)
            for name, each in value.get("providers", {}).items()
            if name in ("together", "patronus")
        },
        serve=_serve(value.get("serve", {})),
    ), problems


def _serve(value: Mapping[str, Any]) -> Serve:
    return Serve(**{**value, "external_origins": tuple(value.get("external_origins", ()))})
