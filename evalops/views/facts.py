"""What there is to know of an evaluation beside its result, as pairs of words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from evalops.views import text as words


def of(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each with its title: what was judged, by whom, against what, where, and what that took."""
    asked = value["asked"] or {}
    dataset = value["dataset"]
    rows = f"{dataset['rows']:,} rows, " if isinstance(dataset.get("rows"), int) else ""
    yield "Dataset", f"{asked['dataset'] + ', ' if asked else ''}{rows}digest {str(dataset.get('digest'))[:12]}"
    judges = asked.get("judges") or [
        value["inputs"][key] for key in ("judge.model", "judge.column") if key in value["inputs"]
    ]
    yield ("Judge" if len(judges) == 1 else "Judges"), ", ".join(map(str, judges)) or "not known"
    candidates = list(asked.get("candidates") or ())
    if len(candidates) == 2:
        yield "A and B", f"{candidates[0]} and {candidates[1]}"
    elif candidates:
        yield "Judged", f"{candidates[0]}{' (column)' if candidates[0] in asked['responses'] else ''}"
    if asked.get("pass_labels"):
        yield "Passes", ", ".join(asked["pass_labels"])
    elif asked.get("pass_threshold") is not None:
        yield "Passes", f"from {asked['pass_threshold']:g} on"
    if asked.get("gold"):
        yield "Gold", f"column {asked['gold']}"
    yield "Job", f"{value['job'] or 'none'} at {value['provider']}"
    finished, begun = value["finished_at"], words.time(value["created_at"])
    yield "Finished", words.time(finished) if finished else f"not yet; begun {begun}"
    usage = (value["summary"] or {}).get("usage") or {}
    took = words.usage(usage) or usage.get("reason")
    if took:
        yield "Took", took
    if value["generation"] > 1:
        yield "Generation", str(value["generation"])
    yield "Files", f"{value['spec'] or 'no spec of today'}, {value['lock']}"
