"""Where the rows of an evaluation go, and with which key: for rules, for lock entries, and for who reviews a plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple
from urllib.parse import urlsplit

from evalops.document import KeyPath
from evalops.endpoint import VENDORS, is_here, origin
from evalops.errors import Diagnostic, Mark, Severity
from evalops.lock import Lock
from evalops.plan import Action, Change, Plan, Wanted
from evalops.settings import Settings
from evalops.spec import Model

SERVICE: KeyPath = ("provider",)


class Destination(NamedTuple):
    """An origin that rows are sent to, the name of the key that goes along, and the field of the spec that says so."""

    origin: str
    credential: str | None
    route: KeyPath

    @property
    def stage(self) -> str:
        """The field of the model, as in `spec.Model.stage`."""
        return ".".join(map(str, self.route[:-1]))


def of(wanted: Wanted) -> list[Destination]:
    """The service that runs an evaluation, if one does, and the endpoints of its models; none for embedded ones."""
    evaluation, identity = wanted
    found = [Destination(identity.origin, None, SERVICE)] if identity.origin else []
    for model, endpoint in zip(evaluation.models, identity.endpoints, strict=False):
        url, key = endpoint.base_url, endpoint.credential.name if endpoint.credential else model.credential
        if not url and endpoint.source == "external":  # a service that knows where the vendor is
            url = next((vendor.base_url for name, vendor in VENDORS.items() if model.model.startswith(name)), "")
        if url:
            found.append(Destination(origin(url), key, _route(model)))
    return found


def credentials(wanted: Wanted) -> dict[str, str]:
    """The names of the keys that go along, by the field of the model."""
    return {each.stage: each.credential for each in of(wanted) if each.credential}


def changes(plan: Plan, locks: Mapping[str, Lock], settings: Settings) -> Iterator[Diagnostic]:
    """Warnings for who reviews a plan: rows that would go to another host, or to one that nobody has named so far, and
    keys that are not those of the last run.
    """
    known = _known(locks, settings)
    new: dict[str, list[tuple[Change, Destination]]] = {}
    for change in plan.changes:
        if change.wanted is None or change.action not in _SENDS:
            continue
        before = _origins(change.entry.inputs) if change.entry else known
        for each in of(change.wanted):
            if each.route != SERVICE and each.origin not in before and not is_here(each.origin):
                new.setdefault(each.origin, []).append((change, each))
        yield from _other_keys(change, change.wanted)
    for place, found in sorted(new.items()):
        yield _moved(place, found)


_SENDS = (Action.CREATE, Action.RERUN, Action.RESUME, Action.UNKNOWN)


def _route(model: Model) -> KeyPath:
    return (*model.route, "external_base_url" if model.external_base_url else "model")


def _known(locks: Mapping[str, Lock], settings: Settings) -> set[str]:
    """The origins that a lockfile has, or evalops.yaml names, and those of the vendors."""
    named = [each["base_url"] for each in settings.models.values() if "base_url" in each]
    named += [url for each in settings.credentials.values() for url in each.origins]
    named += [vendor.base_url for vendor in VENDORS.values()]
    entries = (entry for lock in locks.values() for entry in lock.entries.values())
    return set(map(_origin, named)).union(*(_origins(each.inputs) for each in entries))


def _origins(inputs: Mapping[str, object]) -> set[str]:
    """Where the rows of a lock entry went."""
    return {_origin(str(value)) for name, value in inputs.items() if name.endswith(".base_url")}


def _origin(url: str) -> str:
    try:
        return origin(url) if urlsplit(url).hostname else ""
    except ValueError:
        return ""


def _moved(place: str, found: list[tuple[Change, Destination]]) -> Diagnostic:
    """One warning for each origin, however many evaluations it is about."""
    (change, first), *others = found
    more = f" and {len(others)} more" if others else ""
    key = f", with the key `{first.credential}`" if first.credential else ""
    was = "which they did not before" if change.entry else "which neither evalops.yaml nor a lockfile names"
    return Diagnostic(
        code="plan/destination",
        message=f"rows of `{change.address}`{more} would go to {place}{key}, {was}",
        mark=_mark(change, first.route),
        address=None if others else change.address,
        hint="see that this host may have them",
        severity=Severity.WARNING,
    )


def _other_keys(change: Change, wanted: Wanted) -> Iterator[Diagnostic]:
    """Keys that are others than those of the last run."""
    if change.entry is None or change.entry.credentials is None:
        return
    before = change.entry.credentials
    for each in of(wanted):
        if each.credential and before.get(each.stage) != each.credential:
            was = f"the key `{before[each.stage]}`" if each.stage in before else "no key"
            yield Diagnostic(
                code="plan/credential",
                message=f"`{change.address}` would send the key `{each.credential}` to {each.origin}; last time it "
                f"sent {was}",
                mark=_mark(change, (*each.route[:-1], "credential")),
                address=change.address,
                hint="see that this host may have it",
                severity=Severity.WARNING,
            )


def _mark(change: Change, route: KeyPath) -> Mark | None:
    return change.wanted.evaluation.places.mark(*route) if change.wanted else change.mark
