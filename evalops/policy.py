"""The rules of a project, held against its evaluations: JSON Schemas with a name, over flat fields.

Rules and evaluations may both be a stranger's: no schema fetches another one, and all are bounded in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evalops import destination, schema
from evalops.document import KeyPath
from evalops.errors import Diagnostic, Mark
from evalops.evaluators import shape
from evalops.evaluators.pattern import TooSlow
from evalops.evaluators.shape import Shape, TooMuch
from evalops.plan import Estimate, Wanted
from evalops.settings import Rule, Settings


class Breach(NamedTuple):
    """A rule that an evaluation breaks: what is wrong with which field, and where that stands."""

    rule: Rule
    address: str
    what: str
    mark: Mark

    @property
    def reason(self) -> str:
        """All of it in one sentence, for who asks why."""
        end = f": {self.rule.message}" if self.rule.message else ""
        return f"the rule `{self.rule.name}` forbids it: {self.what} ({self.mark}){end}"

    @property
    def diagnostic(self) -> Diagnostic:
        """The breach as a problem of its field."""
        return Diagnostic(
            code="policy/broken",
            message=f"`{self.address}` breaks the rule `{self.rule.name}`: {self.what}",
            mark=self.mark,
            address=self.address,
            hint=self.rule.message or None,
            severity=self.rule.severity,
        )


def check(settings: Settings) -> Iterator[Diagnostic]:
    """What is wrong with the rules themselves."""
    for rule in settings.policy:
        for route, why in shape.problems(rule.schema):
            yield Diagnostic(
                code="policy/schema",
                message=f"the schema of the rule `{rule.name}` cannot be used: {why}",
                mark=settings.mark("policy", rule.name, "schema", *route),
                hint="a rule is a JSON Schema over flat fields: `{properties: {rows: {maximum: 5000}}}`",
            )


class Policy:
    """Rules without anything wrong, ready for evaluations."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = [(rule, Shape(rule.schema)) for rule in rules]

    def breaches(self, wanted: Wanted, estimate: Estimate) -> Iterator[Breach]:
        """The rules that an evaluation breaks, each with the first thing that it breaks it by."""
        facts, routes = _facts(wanted, estimate)
        for rule, held in self._rules:
            try:
                error = held.error(facts)
            except (TooMuch, TooSlow):
                yield Breach(rule, wanted.evaluation.address, "it takes too long to tell", _mark(wanted, ("name",)))
                continue
            if error is not None:
                route = _route(tuple(map(str, error.absolute_path)), routes)
                yield Breach(rule, wanted.evaluation.address, schema.breach(error), _mark(wanted, route))


def _facts(wanted: Wanted, estimate: Estimate) -> tuple[dict[str, Any], Mapping[str, KeyPath]]:
    """What rules see of an evaluation, and the fields of the spec that say it."""
    evaluation, identity = wanted
    sent = destination.of(wanted)
    keys = [each for each in sent if each.credential]
    facts = {
        **identity.inputs,
        "name": evaluation.name,
        "address": evaluation.address,
        "tags": list(evaluation.tags),
        "models": [model.model for model in evaluation.models],
        "hosts": [each.origin for each in sent],
        "credentials": [each.credential for each in keys],
        # What nobody has counted is beyond any bound.
        "rows": _or_infinite(estimate.rows),
        "calls": _or_infinite(estimate.calls),
        "tokens": _or_infinite(estimate.tokens),
        "cost": _or_infinite(estimate.cost),
    }
    routes: dict[str, KeyPath] = dict.fromkeys(("address", "models", "hosts", "credentials", "cost"), ("name",))
    routes |= dict.fromkeys(("rows", "calls", "tokens"), ("dataset",))
    routes |= {f"models.{place}": (*model.route, "model") for place, model in enumerate(evaluation.models)}
    routes |= {f"hosts.{place}": each.route for place, each in enumerate(sent)}
    routes |= {f"credentials.{place}": (*each.route[:-1], "credential") for place, each in enumerate(keys)}
    return facts, routes


def _or_infinite(number: float | None) -> float:
    return math.inf if number is None else number


def _route(path: tuple[str, ...], routes: Mapping[str, KeyPath]) -> KeyPath:
    """The field of the spec that a fact is of."""
    if not path:
        return ("name",)
    parts = tuple(int(part) if part.isdecimal() else part for part in path[0].split("."))
    return routes.get(".".join(path)) or routes.get(path[0]) or parts


def _mark(wanted: Wanted, route: KeyPath) -> Mark:
    return wanted.evaluation.places.mark(*route)
