"""What the tests' model server says: verdicts that are a pure function of the prompt, and faults by plan.

A marker `truth=LABEL` in the prompt is the verdict (the last one counts); else, where two markers `quality=N` are
in it, the greater one wins a comparison; else a hash of the prompt decides.

Faults are a function of the prompt and of how many times it came before: `script` names them attempt by attempt,
`faults` gives a rate for each. The names are those of `FAULTS`, or any status from 400 to 599.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import quote

UNUSABLE = "I would rather talk about the weather."
REFUSAL = "I cannot help with that."


@dataclass(frozen=True, kw_only=True)
class Config:
    """What the server does; all of it survives JSON, so that a subprocess can be given it."""

    latency_ms: float = 0.0
    script: tuple[str, ...] = ()  # the fault of a prompt's first, second, … request; "ok" for none
    faults: Mapping[str, float] = field(default_factory=dict)  # name to rate, 0 to 1, after the script
    retry_after: str | None = None  # sent with 429 and 503
    retry_after_ms: str | None = None
    capacity: int | None = None  # more requests than this at a time get 429
    key: str | None = None  # others get 401
    models: tuple[str, ...] = ()  # others get 404; none given: any model
    refuse: tuple[str, ...] = ()  # types of response_format that get 400
    context: int | None = None  # longer prompts, in characters, get 400
    usage: bool = True
    labels: tuple[str, ...] = ()  # what to choose from where neither schema, grammar nor prompt says it
    llama_logprobs: bool = False  # the form of llama.cpp instead of OpenAI's
    location: str = "/elsewhere"  # of the fault "redirect"
    keep: int = 1000  # how many of the last requests are kept for tests to look at


class Seen(NamedTuple):
    """A request as it came."""

    path: str
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{re.escape(name)}: *(.*?)\r?$", self.head, re.I | re.M)
        return found[1] if found else None


class Asked(NamedTuple):
    """A request for a model's answer, read."""

    config: Config
    seen: Seen
    body: dict[str, Any]
    prompt: str
    digest: bytes  # sha256 of the prompt


class Answer(NamedTuple):
    """What goes back: without a status the connection is closed, or left to `hang`; `cut` ends it half way."""

    status: int | None
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    kind: str = "application/json"
    cut: bool = False
    hang: bool = False


def answer(asked: Asked, content: str, **choice: Any) -> Answer:
    """A good reply with `content`; other keys go into the choice, `message` over the message."""
    config = asked.config
    extra = choice.pop("message", {})
    if asked.seen.path.endswith("/chat/completions"):
        message = {"role": "assistant", "content": content, **extra}
        value: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    else:
        value = {"index": 0, "text": content, "finish_reason": "stop", **choice}
    reply = {"id": "r", "object": "completion", "model": asked.body.get("model"), "choices": [value]}
    if config.usage:
        sizes = len(asked.prompt) // 4 + 1, len(content) // 4 + 1
        reply["usage"] = {
            "prompt_tokens": sizes[0],
            "completion_tokens": sizes[1],
            "total_tokens": sum(sizes),
        }
    return Answer(200, json.dumps(reply).encode())


def error(status: int, message: str, *, code: str | None = None, config: Config | None = None) -> Answer:
    """An error in OpenAI's form."""
    headers: tuple[tuple[str, str], ...] = ()
    if config and status in (429, 503):
        pairs = (("Retry-After", config.retry_after), ("retry-after-ms", config.retry_after_ms))
        headers = tuple((name, value) for name, value in pairs if value is not None)
    return Answer(status, json.dumps({"error": {"message": message, "code": code}}).encode(), headers)


def verdict(asked: Asked) -> str:
    """The reply that the request's form asks for."""
    wanted = asked.body.get("response_format") or {}
    if wanted.get("type") == "json_schema":
        return json.dumps(_fill(wanted["json_schema"]["schema"], asked))
    options = _options(asked)
    key = re.search(r'"(label|score|choice)": |^(label|score|choice): VALUE', asked.prompt, re.M)
    value = _choose(options, asked)
    if wanted.get("type") == "json_object":
        return json.dumps({"reason": _reason(asked), key[1] or key[2] if key else "label": value})
    if key:
        return f"{_reason(asked)}\n{key[1] or key[2]}: {value}"
    return str(value) if options else f"A written answer, number {asked.digest.hex()[:8]}."


def likelihood(asked: Asked) -> Answer:
    """The reply to `completions` with probabilities: 0.8 for the chosen label, the rest share 0.2."""
    options = [str(option) for option in _options(asked)] or ["yes", "no"]
    chosen = str(_choose(options, asked))
    shares = {option: 0.8 if option == chosen else 0.2 / max(1, len(options) - 1) for option in options}
    logarithms = {option: math.log(share) for option, share in shares.items()}
    if asked.config.llama_logprobs:
        top = [{"id": i, "token": token, "logprob": value} for i, (token, value) in enumerate(logarithms.items())]
        first = {"token": chosen, "logprob": logarithms[chosen], "top_logprobs": top}
        return answer(asked, chosen, logprobs={"content": [first]})
    found = {"tokens": [chosen], "token_logprobs": [logarithms[chosen]], "top_logprobs": [logarithms]}
    return answer(asked, chosen, logprobs=found)


def _fill(schema: Mapping[str, Any], asked: Asked) -> Any:
    """A value of a JSON schema, in the order of its properties."""
    if "enum" in schema:
        return _choose(schema["enum"], asked)
    match schema.get("type"):
        case "object":
            return {name: _fill(each, asked) for name, each in schema["properties"].items()}
        case "integer" | "number":
            return _choose(_options(asked) or [schema.get("minimum", 1)], asked)
        case "boolean":
            return bool(asked.digest[0] & 1)
        case "array":
            return [_fill(schema["items"], asked)]
    return _reason(asked)


def _reason(asked: Asked) -> str:
    return f"This follows from the text ({asked.digest.hex()[:6]})."


def _options(asked: Asked) -> list[Any]:
    """What to choose from: a grammar's words, what the prompt lists, or the configured labels."""
    quoted = re.findall(r'"((?:[^"\\]|\\.)+)"', str(asked.body.get("grammar") or ""))
    if quoted:
        return quoted
    named = re.search(r'one of the labels ("(?:[^"\\]|\\.)*"(?:, "(?:[^"\\]|\\.)*")*)', asked.prompt)
    if named:
        found: list[Any] = json.loads(f"[{named[1]}]")
        return found
    span = re.search(r"a number from (-?[\d.]+) to (-?[\d.]+)", asked.prompt)
    if span:
        low, high = math.ceil(float(span[1])), math.floor(float(span[2].rstrip(".")))
        return list(range(low, high + 1))
    return ["1", "2", "tie"] if '"1" if Response 1 is better' in asked.prompt else list(asked.config.labels)


def _choose(options: list[Any], asked: Asked) -> Any:
    """The verdict among `options`: the truth, the better one, or what the prompt's digest says."""
    truths = re.findall(r"truth=([\w.-]+)", asked.prompt)
    for truth in reversed(truths):
        for option in options:
            if str(option) == truth:
                return option
    qualities = [int(each) for each in re.findall(r"quality=(\d+)", asked.prompt)]
    if len(qualities) == 2 and len(options) >= 2:
        first, second = qualities
        return options[0] if first > second else options[1] if second > first else options[-1]
    if not options:
        return truths[-1] if truths else f"answer-{asked.digest.hex()[:8]}"
    return options[int.from_bytes(asked.digest[:4], "big") % len(options)]


def _echo(asked: Asked) -> Answer:
    """An error that repeats the key in every way a careless endpoint could write it."""
    key = (asked.seen.header("Authorization") or "").removeprefix("Bearer ")
    coded = [base64.b64encode(f"{before}{key}/rest".encode()).decode() for before in ("", "k", "ke")]
    return error(500, " ".join([f"bad Bearer {key}", quote(key, safe=""), json.dumps(key), key.encode().hex(), *coded]))


def _page(asked: Asked) -> Answer:
    return Answer(200, b"<!doctype html><title>Sign in</title><p>Sign in to the network</p>", kind="text/html")


FAULTS: dict[str, Callable[[Asked], Answer]] = {
    # replies that are well-formed and of no use
    "unusable": lambda asked: answer(asked, UNUSABLE),
    "refusal": lambda asked: answer(asked, "", message={"content": None, "refusal": REFUSAL}),
    "length": lambda asked: answer(asked, verdict(asked)[:5], finish_reason="length"),
    "null": lambda asked: answer(asked, "", message={"content": None}),
    "filtered": lambda asked: Answer(200, b'{"choices": [{"index": 0, "finish_reason": "content_filter"}]}'),
    "parts": lambda asked: answer(
        asked,
        "",
        message={"content": [{"type": "text", "text": part} for part in re.split("(?<= )", verdict(asked))]},
    ),
    # answers that are no replies
    "empty": lambda asked: Answer(200, b'{"choices": []}'),
    "error-200": lambda asked: Answer(200, b'{"error": {"message": "the upstream is busy", "code": 502}}'),
    "garbage": lambda asked: Answer(200, b'{"choices": [{"mess'),
    "deep": lambda asked: Answer(200, b"[" * 200_000),
    "large": lambda asked: Answer(200, b" " * (9 * 2**20)),
    "html": _page,
    "text": lambda asked: Answer(200, b"all good", kind="text/plain"),
    "plain-type": lambda asked: answer(asked, verdict(asked))._replace(kind="text/plain"),
    "truncated": lambda asked: answer(asked, verdict(asked))._replace(cut=True),
    "drop": lambda asked: Answer(None),
    "hang": lambda asked: Answer(None, hang=True),
    "redirect": lambda asked: Answer(307, headers=(("Location", asked.config.location),)),
    "quota": lambda asked: error(429, "You have used up your quota", code="insufficient_quota"),
    "echo": _echo,
}


def fault_of(config: Config, asked: Asked, attempt: int) -> str:
    if attempt < len(config.script):
        return config.script[attempt]
    if config.faults:
        digest = hashlib.sha256(asked.digest + attempt.to_bytes(4, "big")).digest()
        point = int.from_bytes(digest[:6], "big") / 2**48
        for name, rate in config.faults.items():
            if point < rate:
                return name
            point -= rate
    return "ok"
