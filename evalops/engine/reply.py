"""What an OpenAI-compatible endpoint answered, read from its JSON. Nothing in it is trusted."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MOST_TOKENS = 10**9  # of one reply; who counts more does not count


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A model's answer to one request."""

    content: str  # "" where the model said nothing: refused, filtered, or out of tokens while it thought
    finish_reason: str | None = None
    refusal: str | None = None
    prompt_tokens: int | None = None  # None where the endpoint does not count
    completion_tokens: int | None = None
    probabilities: Mapping[str, float] | None = None  # 0 to 1, of the likeliest first tokens
    is_kept: bool = False  # known from an earlier call: nobody was asked


def parse(body: bytes) -> Reply:
    """The reply in a body of `chat/completions` or `completions`; ValueError, in one sentence, without one.

    Takes the dialects of the field: content as a list of parts, a choice without message, no `usage`.
    """
    choice, usage = _choice(body)
    message = choice.get("message")
    if isinstance(message, dict):
        content, refusal = _text(message.get("content")), message.get("refusal")
    else:
        content, refusal = _text(choice.get("text")), None
    finish_reason = choice.get("finish_reason")
    if usage is None:
        usage = {}
    logprobs = choice.get("logprobs")
    return Reply(
        content=content,
        finish_reason=finish_reason if isinstance(finish_reason, str) else None,
        refusal=_text(refusal) or None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
        probabilities=_first_token(logprobs) if isinstance(logprobs, dict) else None,
    )


def error_text(body: bytes) -> str:
    """What an endpoint says about an error, in whatever form; "" where it says nothing that can be read."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        text = body[:2000].decode(errors="replace").strip()
        return "" if text.startswith("<") else text
    if isinstance(value, list) and value:  # Google wraps it in a list
        value = value[0]
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return value if isinstance(value, str) else json.dumps(value)


def error_code(body: bytes) -> str | None:
    """The machine-readable code of an error body, such as `insufficient_quota`, if it has one."""
    try:
        code = json.loads(body)["error"]["code"]
    except (ValueError, RecursionError, TypeError, KeyError, IndexError):
        return None
    return code if isinstance(code, str) else None


def _choice(body: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("its answer is not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("its answer is no JSON object")
    choices = value.get("choices")
    if not isinstance(choices, list) or not choices:
        if value.get("error"):  # some gateways report errors with status 200
            raise ValueError(f"it answered with an error: {error_text(body)}")
        raise ValueError("its answer has no choices")
    choice, usage = choices[0], value.get("usage")
    if not isinstance(choice, dict):
        raise ValueError("its answer has a choice that is no object")
    return choice, usage if isinstance(usage, dict) else None


def _text(value: Any) -> str:
    """A string, or the text parts of a list of parts; anything else is no text."""
    if isinstance(value, list):
        value = "".join(part["text"] for part in value if isinstance(part, dict) and isinstance(part.get("text"), str))
    if not isinstance(value, str):
        return ""
    # JSON can spell half a surrogate pair; no file or database could store it.
    return value if value.isascii() else value.encode(errors="replace").decode()


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _first_token(logprobs: dict[str, Any]) -> dict[str, float] | None:
    """The probabilities at the first position, as `completions` of OpenAI and vLLM or as chat writes them."""
    top, content = logprobs.get("top_logprobs"), logprobs.get("content")
    pairs: list[tuple[Any, Any]] = []
    if isinstance(top, list) and top and isinstance(top[0], dict):
        pairs = [(token, _probability(logprob)) for token, logprob in top[0].items()]
    elif isinstance(content, list) and content and isinstance(content[0], dict):
        # llama.cpp gives `top_probs` when it is asked for probabilities after sampling
        entries = content[0].get("top_logprobs") or content[0].get("top_probs")
        if isinstance(entries, list):
            pairs = [_pair(entry) for entry in entries if isinstance(entry, dict)]
    found: dict[str, float] = {}
    for token, probability in pairs:
        if isinstance(token, str) and probability is not None:
            # Two tokens can read the same, such as the two halves of a cut character.
            found[_text(token)] = found.get(_text(token), 0.0) + probability
    return found or None


def _pair(entry: dict[str, Any]) -> tuple[Any, float | None]:
    if "prob" in entry:
        value = entry["prob"]
        return entry.get("token"), float(value) if type(value) in (int, float) and 0 <= value <= 1 else None
    return entry.get("token"), _probability(entry.get("logprob"))


def _probability(logprob: Any) -> float | None:
    if type(logprob) not in (int, float) or math.isnan(logprob):
        return None
    return math.exp(max(-1000.0, min(logprob, 0.0)))  # compared before converted: an int can be any size
