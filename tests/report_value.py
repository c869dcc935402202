"""A report's value with everything that one can have, and a stranger's text wherever a stranger has a say."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

HOSTILE = [
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "--></style><img src=x onerror=alert(3)>",
    "\"'><svg onload=alert(4)>",
    "' onmouseover='alert(5)",
    "{{ 7 * 7 }} {% raw %} ${alert(6)} `alert(6)`",
    "javascript:alert(7) http://evil.example/x.png <link rel=stylesheet href=//evil.example>",
    "\x1b[31mred\x1b]0;title\x07 \x9b31m \r over",
    "\u202egnp.exe\u202c \u200bzero\ufeff \u2028line\u2029",
    "__proto__",
    "constructor",
    "\ud800 half",
    "::add-mask::x\n##[error]y",
    "&lt;b&gt; &amp; ]]> <!-- <![CDATA[",
    "a" * 3000,
    "word " * 300,
    "\U0001f600 \u0645\u0631\u062d\u0628\u0627 \u4f60\u597d",
]


def metric(value: float = 60.0, **more: Any) -> Json:
    return {"value": value, "low": value * 0.9, "high": value * 1.1, "n": 100, **more}


def evaluation(text: str = "plain", *, address: str = "tone", kind: str = "classify", count: int = 60) -> Json:
    """One evaluation, with `text` in every field that is not a word of ours. `kind` is its type."""
    labels = ["polite", "rude", text]
    first = {"classify": "pass_percentage", "compare": "win_rate"}.get(kind, "mean_score")
    gate = {
        "metric": first,
        "min": 55.0,
        "on": "lower",
        "value": 54.0,
        "estimate": 60.0,
        "verdict": "failed",
        "reason": text,
    }
    group = {"rows": 30, "scored": 29, "small": True, "metrics": {first: metric()}}
    summary = {
        "job": text,
        "rows": count, "scored": count - 2, "invalid": 1, "errors": 1,
        "invalid_reasons": {text: 1}, "error_reasons": {text: 1},
        "metrics": {first: metric(reason=text), "kappa": metric(0.6), f"f1[{text}]": metric(0.5), "mae": {"value": None, "reason": text}},
        "bounds": {first: {"low": 58.0, "high": 62.0}},
        "confusion": {"labels": labels, "rows": [[20, 1, 0], [2, 10, 3], [0, 0, 4]]},
        "per_label": {text: {"support": 3, "precision": metric(0.5), "recall": metric(0.5), "f1": metric(0.5)}},
        "criteria": {text: metric(3.0)},
        "judges": [{"judge": text, "votes": 9, "scored": 9, "invalid": 0, "errors": 0, "metrics": {first: metric()}}],
        "groups": {text: {text: group, "other": {"rows": 1, "scored": 1, "metrics": {}, "label_counts": {text: 1}}}},
        "ungrouped": {text: text},
        "warnings": [text],
        "usage": {"calls": 3, "kept": 1, "prompt_tokens": 9, "completion_tokens": None, "cost": None, "reason": text},
    }  # fmt: skip
    counts = {"classify": "label_counts", "compare": "choice_counts"}.get(kind, "score_counts")
    summary[counts] = {"1": 3, "2 to 3": 20, "5": 7} if counts == "score_counts" else dict.fromkeys(labels, 20)
    return {
        "address": address, "lock": text, "spec": text, "type": kind, "provider": text, "job": "another", "status": "completed",
        "message": text, "generation": 2, "created_at": "2026-01-31T08:00:00Z", "finished_at": "2026-01-31T08:01:07Z",
        "fingerprint": "0" * 64, "dataset": {"rows": count, "digest": text, "submitted": text}, "inputs": {"type": kind},
        "asked": {
            "name": text, "description": text, "tags": [text], "dataset": text, "judges": [text, "second"],
            "candidates": [text, "b"] if kind == "compare" else [text], "responses": [text], "labels": labels,
            "pass_labels": ["polite"] if kind == "classify" else [], "pass_threshold": None if kind == "classify" else 3.0,
            "min_score": 1.0, "max_score": 5.0, "gold": "gold", "group_by": ["group"], "templates": {"judge.system_template": text},
            "verdict_columns": [],
        },
        "summary": summary,
        "headline": {"metric": first, **metric()},
        "gates": [gate, {"metric": first, "by": text, "group": text, "max": 90.0, "on": "estimate", "value": 60.0, "verdict": "passed"}],
        "move": move(text, address, kind, first),
        "trend": [{"metric": first, **metric(50.0 + place), "day": "2026-01-0" + str(place + 1), "commit": "abcdef" * 6, "failed": place == 1} for place in range(3)]
        + [{"metric": first, **metric(), "day": "", "commit": "", "failed": False}],
        "rows": sheet(text, kind, count),
    }  # fmt: skip


def move(text: str, address: str, kind: str, first: str) -> Json:
    """What moved since the base."""
    difference = {
        "metric": first,
        "shared": 10,
        "difference": metric(-5.0),
        "test": text,
        "p": 0.01,
        "p_adjusted": 0.02,
    }
    gate = {"metric": first, "min": 1.0, "on": "estimate", "value": 2.0, "verdict": "passed"}
    return {
        "address": address, "kind": "moved", "was": text, "type": kind, "status": "completed", "trend": "down",
        "before": {"metric": first, **metric()}, "after": {"metric": first, **metric()},
        "paired": {**difference, "lost": 3, "gained": 1, "flips": 4, "reason": text},
        "gates": [{"before": gate, "after": None, "turned": False, "changed": True}],
        "fields": [{"name": text, "before": text, "after": text, "mark": text}],
        "flips": [], "notes": [text],
    }  # fmt: skip


def sheet(text: str, kind: str, count: int) -> Json:
    """Rows, every other one with the text in each of its cells."""
    odd = [text if place % 2 else f"row {place}" for place in range(count)]
    verdicts: list[Any] = [place % 5 + 1.0 for place in range(count)]
    if kind in ("classify", "compare"):
        verdicts = [
            (["A", "B", "Tie"] if kind == "compare" else ["polite", "rude", text])[place % 3] for place in range(count)
        ]
    status = ["scored"] * count
    status[0], status[1], verdicts[0], verdicts[1] = "invalid", "error", None, None
    columns = {
        "key": [f"{place:016x}" for place in range(count)], "status": status, "verdict": verdicts,
        "passed": [None if each is None else each in ("polite", 4.0, 5.0) for each in verdicts],
        "problem": [text, text, *[None] * (count - 2)], "reason": odd, "gold": ["polite"] * count,
        "agrees": [None if each is None else each == "polite" for each in verdicts],
        "before": ["rude"] * count, "before_status": ["scored"] * count, "moved": ["up", "down", "other", "new", None][:count] + [None] * (count - 5),
        "votes": [[{"judge": 0, "repeat": 1, "status": "scored", "value": text, "problem": None, "reason": text},
                   {"judge": 1, "repeat": 1, "status": "invalid", "value": None, "problem": text, "reason": None}]] * count,
        "criteria": [{text: 3.0}] * count, "evaluators": [[{"name": text}]] * count,
    }  # fmt: skip
    if kind == "compare":
        columns |= {"orders": [["A", "B"]] * count, "said": [[text, None]] * count}
    groups = [text if place % 3 == 0 else "group" for place in range(count)]
    return {
        "count": count, "columns": columns, "source": {text: odd, "gold": odd, "group": groups, "question": odd, "number": list(range(count))},
        "outputs": {"model_b": odd} if kind == "compare" else {}, "prompts": {"judge.system_template": odd}, "absent": {"reason": text},
    }  # fmt: skip


def report(*evaluations: Json, text: str = "plain") -> Json:
    """The value around evaluations, as `evalops report` hands it to the page."""
    problem = {
        "severity": "error",
        "code": "a/b",
        "message": text,
        "path": text,
        "line": 3,
        "column": 1,
        "address": None,
        "hint": text,
    }
    return {
        "format_version": 1, "version": "0.1.0", "project": text, "at": "2026-01-31T08:00:00Z", "head": "a" * 40,
        "base": {"name": text, "commit": "b" * 40},
        "totals": {"evaluations": len(evaluations), "with_result": len(evaluations), "gates": 2, "failed_gates": 1, "rows": 60,
                   "scored": 58, "invalid": 1, "errors": 1, "calls": 3, "tokens": None, "cost": None},
        "review": {
            "totals": {"moved": 1, "new": 0, "gone": 1, "renamed": 0, "regraded": 0, "open": 0, "same": 0,
                       "trends": {"up": 0, "down": 1, "level": 0}, "failed_gates": 1},
            "moves": [{**move(text, text, "classify", "pass_percentage"), "kind": "gone"}], "failed_gates": [],
        },
        "pending": [{"address": text, "action": "rerun", "sign": "~", "reason": text}],
        "absent": {"older": text}, "problems": [problem], "evaluations": list(evaluations),
    }  # fmt: skip
