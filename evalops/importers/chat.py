"""Messages of a chat as the texts that a spec has: one system message and one question."""

from __future__ import annotations

from typing import Any, NamedTuple

HINT = "a candidate gets one system message and one question"
THE_RESPONSE = "(the response below)"
"""What a judge reads where a grader had the response: evalops shows it apart, between markers of its own."""


class Question(NamedTuple):
    """What a candidate is asked, as templates of the tool that it comes from; `system` is "" where there is none."""

    system: str
    input: str


def question(value: Any) -> Question | str:
    """The one question of a chat, or why it is none."""
    if isinstance(value, dict) and isinstance(value.get("messages"), list):
        value = value["messages"]
    if not isinstance(value, list) or not value:
        return "this prompt is neither a text nor a chat"
    turns: list[tuple[str, str]] = []
    for each in value:
        text = content(each.get("content")) if isinstance(each, dict) else None
        if text is None:
            return "a message of this chat is no text"
        turns.append((str(each.get("role")), text))
    if turns[-1][0] != "user" or any(role not in ("system", "developer") for role, _ in turns[:-1]):
        return "this chat has several turns"
    return Question("\n\n".join(text for _, text in turns[:-1]), turns[-1][1])


def content(value: Any) -> str | None:
    """The text of a message: bare, in a part, or in several; None for what is no text."""
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        return value["text"] if isinstance(value.get("text"), str) else None
    if not isinstance(value, list) or not value:
        return None
    texts = [each if isinstance(each, str) else content(each) if isinstance(each, dict) else None for each in value]
    return None if any(each is None for each in texts) else "\n".join(each or "" for each in texts)
