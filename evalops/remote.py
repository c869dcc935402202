"""What is at a service, in its machine forms: jobs, files, models. Secrets that a service echoes are masked here."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, cast

from evalops.errors import Diagnostic, EvalopsError
from evalops.lock import Entry
from evalops.project import Project
from evalops.providers import open_provider, together_models
from evalops.providers.base import Event, Finished, Inventory, Job, Progress, Provider, Request
from evalops.secret import Secret, redact

FORMAT = 1
SERVICE = "together"
MOST_JOBS = 100  # that the service lists
DEEPEST = 20  # levels of a value that are shown
PREFIX = "eval-"  # of the service's job ids

_GENERAL = ("labels", "pass_labels", "min_score", "max_score", "pass_threshold", "disable_position_bias_correction")
_MODELS = ("judge", "model_to_evaluate", "model_a", "model_b")
_MODEL = ("model", "model_source", "external_base_url", "system_template", "input_template", "max_tokens",
          "temperature", "num_workers")  # fmt: skip
_TOKEN = "external_api_token"  # noqa: S105  # the name of a field


class _Stocked(Protocol):
    def inventory(self) -> Inventory: ...


@contextlib.contextmanager
def opened(project: Project) -> Iterator[tuple[Provider, Inventory]]:
    """The service of a project, and what it has."""
    provider = open_provider(SERVICE, project)
    try:
        yield provider, cast(_Stocked, provider).inventory()
    finally:
        provider.close()


def holders(project: Project, provider: str = SERVICE) -> dict[str, list[str]]:
    """The addresses whose lock entries name a job of a provider, by its id."""
    found: dict[str, list[str]] = {}
    for lock in project.locks()[0].values():
        for entry in lock.entries.values():
            if entry.provider == provider and entry.job:
                found.setdefault(entry.job, []).append(entry.address)
    return {job: sorted(addresses) for job, addresses in found.items()}


def jobs(project: Project, *, type_: str | None, status: str | None, limit: int) -> list[dict[str, Any]]:
    """The jobs at the service, newest first, with the addresses that hold them. Raises EvalopsError."""
    held = holders(project)
    with opened(project) as (_, inventory):
        # The service picks by status, and not by type.
        found = inventory.jobs(status=status, limit=MOST_JOBS if type_ else limit)
    wanted = [each for each in found if type_ is None or (each.told or {}).get("type") == type_]
    return [brief(each, held) for each in wanted[:limit]]


def followed(project: Project, entries: Iterable[Entry]) -> Iterator[tuple[str, Event]]:
    """What happens to the open jobs of these entries at the service, until all have ended. Nothing is written."""
    at: dict[str, list[str]] = {}
    for entry in entries:
        if entry.provider == SERVICE and entry.job and entry.status.is_open:
            at.setdefault(entry.job, []).append(entry.address)
    with opened(project) as (provider, _):
        work: list[tuple[Job, Request | None]] = []
        for id_ in at:
            found = provider.job(id_)
            if found is None:
                raise EvalopsError(gone(id_))
            work.append((found, None))
        with provider.follow(work) as following:
            for event in following:
                if isinstance(event, Finished | Progress):
                    id_ = event.job.id if isinstance(event, Finished) else event.job
                    yield from ((address, event) for address in at[id_])


def job(project: Project, id_: str) -> dict[str, Any]:
    """One job with what it was asked to do and what came of it. Raises EvalopsError where there is none."""
    with opened(project) as (provider, inventory):
        found = inventory.job(id_)
        if found is None:
            raise EvalopsError(gone(id_))
        told = (found.told or {}).get("parameters")
        parameters = told if isinstance(told, dict) else {}
        value = {
            "format_version": FORMAT,
            "address": None,
            "provider": SERVICE,
            "origin": provider.origin,
            **brief(found, holders(project)),
            "dataset": {"file_id": parameters.get("input_data_file_path")},
            "parameters": _essentials(parameters),
            "results": dict(found.results) if found.results else None,
        }
        masked: dict[str, Any] = _masked(value, _tokens(parameters))
        return masked


def files(project: Project) -> list[dict[str, Any]]:
    """The files at the service, newest first. Raises EvalopsError."""
    with opened(project) as (_, inventory):
        return [
            {
                "id": each.id,
                "name": each.name,
                "bytes": each.size,
                "purpose": each.purpose,
                "created_at": each.created_at,
                "sha256": each.sha256,
            }
            for each in inventory.files()
        ]


def models(project: Project, *, refresh: bool) -> dict[str, Any]:
    """The models that the service is known to evaluate with: the list of this package, and the refreshed one."""
    with opened(project) as (provider, inventory):
        newer = together_models.refreshed(provider.origin)
        if refresh:
            try:
                newer = together_models.keep(provider.origin, inventory.models())
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise EvalopsError(
                    Diagnostic(code="models/cache", message=f"the list of models could not be kept: {reason}")
                ) from None
    ours = together_models.shipped()
    named = dict.fromkeys(ours.serverless, "serverless") | dict.fromkeys(ours.external, "external")
    today = set(newer.ids) if newer else set()
    return {
        "format_version": FORMAT,
        "provider": SERVICE,
        "shipped": {"date": ours.date, "source": ours.source},
        "refreshed": {"origin": provider.origin, "at": newer.at} if newer else None,
        "models": [
            {"id": each, "model_source": named.get(each), "shipped": each in named, "refreshed": each in today}
            for each in sorted({*named, *today})
        ],
    }


def gone(id_: str) -> Diagnostic:
    """The service has no such job."""
    return Diagnostic(
        code="job/gone",
        message=f"Together has no job `{id_}`",
        hint="evalops status --remote lists the jobs that are there",
    )


def brief(found: Job, held: Mapping[str, list[str]]) -> dict[str, Any]:
    """A job with the addresses that hold it; nothing secret is in it."""
    told = found.told or {}
    parameters = told.get("parameters")
    value = {
        "job": found.id,
        "type": told.get("type") if isinstance(told.get("type"), str) else None,
        "status": found.status.value,
        "provider_status": found.provider_status,
        "created_at": found.created_at,
        "finished_at": found.finished_at,
        "message": found.message,
        "addresses": held.get(found.id, []),
    }
    masked: dict[str, Any] = _masked(value, _tokens(parameters if isinstance(parameters, dict) else {}))
    return masked


def _essentials(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a job was asked to do: the fields we know, and so no token."""
    found = {name: parameters[name] for name in _GENERAL if parameters.get(name) is not None}
    for key in _MODELS:
        value = parameters.get(key)
        if isinstance(value, dict):
            found[key] = {name: value[name] for name in _MODEL if value.get(name) is not None}
            url = found[key].get("external_base_url")
            if isinstance(url, str) and ("@" in url or "?" in url):  # it may hold a password
                found[key]["external_base_url"] = "***"
        elif isinstance(value, str):
            found[key] = value
    return found


def _tokens(parameters: Mapping[str, Any]) -> list[Secret]:
    found = []
    for key in _MODELS:
        value = parameters.get(key)
        token = value.get(_TOKEN) if isinstance(value, dict) else None
        if isinstance(token, str):
            with contextlib.suppress(ValueError):
                found.append(Secret(token.strip()))
    return found


def _masked(value: Any, secrets: list[Secret], depth: int = DEEPEST) -> Any:
    """A value with every secret in its texts masked, and without what is nested too deeply to be printed."""
    match value:
        case str():
            return redact(value, secrets)
        case dict() | list() if depth == 0:
            return "…"
        case dict():
            return {redact(key, secrets): _masked(each, secrets, depth - 1) for key, each in value.items()}
        case list():
            return [_masked(each, secrets, depth - 1) for each in value]
        case float() if not math.isfinite(value):
            return str(value)  # which JSON cannot hold
    return value
