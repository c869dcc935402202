"""The machine forms: the plan, the state of an evaluation, a row, a diagnostic."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from evalops.datasets.dataset import Row
from evalops.diff import Field
from evalops.errors import Diagnostic, Mark
from evalops.lock import Entry
from evalops.plan import Action, Basis, Change, Estimate, Plan
from evalops.result import Verdict
from evalops.settings import Trusted

FORMAT = 1
Text = Callable[[str], str | None]  # a digest -> the text that has it, if it is at hand


def dump(value: Any) -> str:
    """A machine form as text: stable, one key a line, newline at the end."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # Half a character, from a dataset for instance, cannot be printed: it stays the escape that JSON has for it.
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def diagnostic(each: Diagnostic) -> dict[str, Any]:
    """One problem."""
    mark = each.mark
    return {
        "severity": each.severity.value,
        "code": each.code,
        "message": each.message,
        "path": mark.path if mark else None,
        "line": mark.line if mark and mark.line else None,
        "column": mark.column if mark and mark.line else None,
        "address": each.address,
        "hint": each.hint,
    }


def plan(
    value: Plan,
    warnings: Iterable[Diagnostic] = (),
    text: Text = lambda digest: None,
    trusted: Trusted | None = None,
) -> dict[str, Any]:
    """The plan; `text` finds the earlier wording of long inputs for a diff, `trusted` says whose settings hold."""
    return {
        "format_version": FORMAT,
        "digest": value.digest,
        **({"trusted": trusted.to_json()} if trusted else {}),
        "summary": _totals(value),
        "changes": [_change(change, text) for change in value.changes],
        "diagnostics": [diagnostic(each) for each in warnings],
    }


def _change(change: Change, text: Text) -> dict[str, Any]:
    paid = change.money == "paid"
    return {
        "address": change.address,
        "action": change.action.value,
        "sign": change.action.sign,
        "money": change.money,
        "reason": change.reason,
        "mark": _mark(change.mark),
        "lock": change.lock,
        "fingerprint": change.fingerprint,
        "generation": change.generation,
        "fields": [_field(field, change, text) for field in change.fields],
        "rows": change.estimate.rows if paid else None,
        "calls": change.estimate.calls if paid else None,
        **({"calls_at_least": change.estimate.fewest} if paid and change.estimate.fewest is not None else {}),
        "tokens": change.estimate.tokens if paid else None,
        "cost": change.estimate.cost if paid else None,
        **_basis([change.estimate] if paid else []),
    }


def _field(field: Field, change: Change, text: Text) -> dict[str, Any]:
    value = {"name": field.name, "before": field.before, "after": field.after, "mark": _mark(field.mark)}
    before = _long(field.before, text)
    after = _source(field.name, change)
    if after is not None and (before is not None or field.before is None):
        lines = difflib.unified_diff((before or "").splitlines(), after.splitlines(), "before", "after", lineterm="")
        value["diff"] = list(lines)
    return value


def _long(value: Any, text: Text) -> str | None:
    if isinstance(value, str) and value.startswith("sha256:"):
        return text(value.removeprefix("sha256:"))
    return value if isinstance(value, str) else None


def _source(name: str, change: Change) -> str | None:
    """The wording of a template field in the spec of today."""
    if change.wanted is None or not name.endswith("_template"):
        return None
    route = tuple(name.split("."))
    return next((each.source for each in change.wanted.evaluation.texts if each.route == route), None)


def _totals(value: Plan) -> dict[str, Any]:
    paid = [change for change in value.changes if change.money == "paid"]
    costs = [change.estimate.cost for change in paid]
    return {
        "paid": {
            "changes": len(paid),
            "rows": _sum(change.estimate.rows for change in paid),
            "calls": _sum(change.estimate.calls for change in paid),
            **_fewest([change.estimate for change in paid]),
            "tokens": _sum(change.estimate.tokens for change in paid),
            "cost": None if None in costs else sum(cost or 0.0 for cost in costs),
            **_basis([change.estimate for change in paid]),
        },
        "free": sum(1 for each in value.changes if each.money == "free" and each.action.is_change),
        "unknown": sum(1 for each in value.changes if each.money == "unknown"),
        "blocked": sum(1 for _ in value.of(Action.FAILED, Action.DENIED)),
        "in_step": sum(1 for _ in value.of(Action.NOOP)),
    }


def _fewest(paid: Sequence[Estimate]) -> dict[str, int | None]:
    """The calls at the least, where they depend on the replies."""
    if all(each.fewest is None for each in paid):
        return {}
    return {"calls_at_least": _sum(each.calls if each.fewest is None else each.fewest for each in paid)}


def _basis(paid: Sequence[Estimate]) -> dict[str, Any]:
    """What the tokens are estimated by, and the day of the oldest price, where there are any."""
    bases = {each.basis for each in paid if each.tokens}
    days = [each.as_of for each in paid if each.as_of]
    return {
        **({"basis": next(iter(bases)) if len(bases) == 1 else Basis.BOTH} if bases else {}),
        **({"prices_as_of": min(days).isoformat()} if days else {}),
    }


def _sum(counts: Iterable[int | None]) -> int | None:
    """None where one of them is unknown."""
    found = list(counts)
    return None if None in found else sum(each or 0 for each in found)


def _mark(mark: Mark | None) -> str | None:
    return str(mark) if mark else None


def entry(each: Entry) -> dict[str, Any]:
    """The state of one address, as `show` gives it for every provider."""
    return {
        "format_version": FORMAT,
        "address": each.address,
        "provider": each.provider,
        "job": each.job,
        "status": each.status.value,
        "provider_status": each.status.value,
        "message": each.message,
        "generation": each.generation,
        "created_at": each.created_at,
        "finished_at": each.finished_at,
        "dataset": dict(each.dataset),
        "inputs": dict(each.inputs),
        **({"pins": dict(each.pins)} if each.pins else {}),
        "summary": dict(each.summary) if each.summary else None,
        "gates": [dict(gate) for gate in each.gates],
    }


def row(key: str, source: Row | None, verdict: Verdict, detail: Mapping[str, Any], job: str) -> dict[str, Any]:
    """One row with its verdict; `source` is null where the dataset no longer has it."""
    value: dict[str, Any] = {"status": verdict.status.value, "value": verdict.value, "reason": verdict.feedback}
    if verdict.reason:
        value["problem"] = verdict.reason
    if verdict.orders:
        value["orders"] = list(verdict.orders)
    if verdict.votes:
        value["votes"] = _votes(verdict, detail.get("feedbacks") or ())
    if verdict.criteria:
        value["criteria"] = dict(verdict.criteria)
    if verdict.rung:
        value["rung"] = verdict.rung
    found: dict[str, Any] = {"key": key, "source": source.source if source else None, "verdict": value, "job": job}
    if detail.get("evaluators"):
        found["evaluators"] = list(detail["evaluators"])
    if detail.get("outputs"):
        found["outputs"] = list(detail["outputs"])
    return found


def _votes(verdict: Verdict, feedbacks: Sequence[str | None]) -> list[dict[str, Any]]:
    """The single opinions, each with what its judge said."""
    found = []
    for vote, feedback in itertools.zip_longest(verdict.votes, feedbacks[: len(verdict.votes)]):
        value = {"judge": vote.judge, "repeat": vote.repeat, "status": vote.status.value, "value": vote.value}
        found.append({**value, "reason": feedback, **({"problem": vote.reason} if vote.reason else {})})
    return found
