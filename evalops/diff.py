"""Which run fields changed between a lock entry and a spec, and where the new value stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evalops.errors import Mark
from evalops.spec import Evaluation

# Inputs that stand in the spec under another name, or not at all.
_ROUTES = {
    "dataset.rows": ("dataset",),
    "judge.base_url": ("judge", "model"),
    "judge.weights": ("judge", "model"),
    "protocol": ("type",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One changed run field; None before is new, None after is gone. Long texts are shown by their digest."""

    name: str
    before: Any
    after: Any
    mark: Mark


def fields(before: Mapping[str, Any], after: Mapping[str, Any], evaluation: Evaluation) -> tuple[Field, ...]:
    """The fields that differ, by name."""
    from deepdiff import DeepDiff

    changed = DeepDiff(dict(before), dict(after), view="tree", ignore_numeric_type_changes=True)
    names = sorted({node.path(output_format="list")[0] for nodes in changed.values() for node in nodes})
    return tuple(
        Field(name=name, before=before.get(name), after=after.get(name), mark=_mark(name, evaluation)) for name in names
    )


def _mark(name: str, evaluation: Evaluation) -> Mark:
    route = _ROUTES.get(name) or tuple(name.split("."))
    return evaluation.places.mark(*route)
