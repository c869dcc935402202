"""The models that Together is known to evaluate with: a list in this package, and a newer one in the user's cache.

Both are data and say no more than "probably a slip": models come and go daily.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path

from evalops import schema
from evalops.endpoint import EMBEDDED
from evalops.errors import Diagnostic, Severity
from evalops.fingerprint import sha256
from evalops.providers import together_request as wire
from evalops.spec import Evaluation, Model

MOST_BYTES = 4 << 20
MOST_MODELS = 10_000
LONGEST = 300  # characters of an id
OWN = "together/"  # our prefix for its serverless models


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """The list of this package: of what day, read where, and the ids by `model_source`."""

    date: str
    source: str
    serverless: tuple[str, ...]
    external: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """What a service answered: when (RFC 3339), and the ids, which it does not sort by source."""

    at: str
    ids: tuple[str, ...]


@cache
def shipped() -> Shipped:
    """The list of this package."""
    value = json.loads((files("evalops") / "data" / "together_models.json").read_text(encoding="utf-8"))
    lists = {name: tuple(value[name]) for name in ("serverless", "external")}
    return Shipped(date=value["date"], source=value["source"], **lists)


def refreshed(origin: str | None) -> Refreshed | None:
    """The list that `keep` kept for the service at `origin`, None where there is none that can be used."""
    path = _path(origin)
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        value = json.loads(path.read_bytes())
        return Refreshed(at=str(datetime.fromisoformat(value["at"])), ids=_ids(value["models"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def keep(origin: str | None, ids: Iterable[str]) -> Refreshed:
    """Keeps what the service at `origin` answered a moment ago. Raises OSError where that cannot be written."""
    found = Refreshed(at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), ids=_ids(sorted(set(ids))))
    path = _path(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps({"origin": origin, "at": found.at, "models": found.ids}), encoding="utf-8")
    temporary.replace(path)
    return found


def check(evaluation: Evaluation, origin: str | None, served: Collection[str]) -> list[Diagnostic]:
    """A warning for each model that no list has; `served` are names that evalops.yaml knows. Offline.

    The user's cache is read only for a name that the package lacks, and can only take a warning away.
    """
    problems = []
    for model in evaluation.models:
        name, known = model.model.removeprefix(OWN), _known(model)
        if known is None or name in known or name in served:
            continue
        newer = refreshed(origin)
        if newer is None or name not in newer.ids:
            problems.append(_unknown(evaluation, model, name, known))
    return problems


def _known(model: Model) -> tuple[str, ...] | None:
    """The shipped ids among which a model must be, None where any id may be right."""
    where = wire.source(model)
    if where == "serverless" and model.external_base_url is None and not model.model.startswith((EMBEDDED, "ollama/")):
        return shipped().serverless
    is_shortcut = where == "external" and model.external_base_url is None and model.model.startswith(wire.SHORTCUTS)
    return shipped().external if is_shortcut else None


def _unknown(evaluation: Evaluation, model: Model, name: str, known: Collection[str]) -> Diagnostic:
    return Diagnostic(
        code="together/unknown-model",
        message=f"`{name}` is not among the {wire.source(model)} models that Together is known to evaluate with",
        mark=evaluation.places.mark(*model.route, "model"),
        hint=schema.nearest(name, known) or "`evalops models` lists them, with --refresh as of today",
        severity=Severity.WARNING,
    )


def _path(origin: str | None) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("evalops") / "models" / f"together-{sha256((origin or '').encode())[:16]}.json"


def _ids(value: Iterable[object]) -> tuple[str, ...]:
    found = tuple(value)
    if len(found) > MOST_MODELS:
        raise ValueError("too many models")
    return tuple(each for each in found if isinstance(each, str) and 0 < len(each) <= LONGEST)
