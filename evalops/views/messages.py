"""The requests that a row would cause, for a person."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from evalops.views.safe import line, safe

Value = Mapping[str, Any]

_ORDERS = {"given": "in the order of the spec", "flipped": "with the responses changed round"}
_TEXTS = ("messages", "prompt", "model")


def show(value: Value) -> str:
    """All requests with their texts; each line of a text stands behind a bar."""
    head = f"{line(value['address'])}, row {value['row']:,} of {value['rows']:,}, key {line(value['key'])}"
    parts = [head, *(_request(each) for each in value["requests"])]
    if not value["requests"]:
        parts.append(f"No model is asked. The verdict: {line(value['verdict'])}")
    return "\n\n".join(parts) + "\n"


def _request(value: Value) -> str:
    body = value["body"]
    about = [f"asked {value['repeats']} times"] if value["repeats"] > 1 else []
    about += [_ORDERS[value["order"]]] if value["order"] else []
    lines = [
        ", ".join([f"{line(value['field'])}: {line(value['model'])} at {line(value['url'] or 'this machine')}", *about])
    ]
    if not value["is_exact"]:
        lines.append(
            "  A model has yet to write a response: its place is marked, and the code of the markers will differ."
        )
    lines += [
        f"  {line(name)}: {line(json.dumps(each, ensure_ascii=False), 1000)}"
        for name, each in body.items()
        if name not in _TEXTS
    ]
    for message in body.get("messages", ()):
        lines += [f"  {line(message['role'])}", *_text(message["content"])]
    if "prompt" in body:
        lines += ["  prompt", *_text(body["prompt"])]
    return "\n".join(lines)


def _text(text: str) -> list[str]:
    return [f"  | {each}".rstrip() for each in safe(text).split("\n")]
