"""A model for tests of judges: a script of answers, and what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from evalops.engine.failure import CallFailed, Kind
from evalops.engine.lane import Route
from evalops.engine.reply import Reply

KEY = "00ff00ff00ff00ff"
REJECTED = CallFailed(Kind.REJECTED, "response_format is not supported", status=400)
Answer = Reply | CallFailed | str | Callable[[dict[str, Any]], Any]


class Model:
    """A model that gives these answers in turn, the last one for ever.

    `bodies` is what it was asked, `repeats` the repeat that each was for.
    """

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.bodies: list[dict[str, Any]] = []
        self.routes: list[Route] = []
        self.repeats: list[int] = []

    async def ask(self, route: Route, body: dict[str, Any], repeat: int) -> Reply:
        self.repeats.append(repeat)
        self.routes.append(route)
        self.bodies.append(json.loads(json.dumps(body)))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await asyncio.sleep(0)
        if callable(answer):
            answer = answer(body)
        if isinstance(answer, CallFailed):
            raise answer
        return answer if isinstance(answer, Reply) else reply(answer)

    @property
    def prompts(self) -> list[str]:
        """Everything said in each request, as one text."""
        return ["\n\n".join(each["content"] for each in body["messages"]) for body in self.bodies]


def reply(content: str, **fields: Any) -> Reply:
    return Reply(content=content, prompt_tokens=10, completion_tokens=2, **fields)


def label(name: str) -> str:
    return json.dumps({"reason": "so", "label": name})


def choice(name: str) -> str:
    return json.dumps({"reason": "so", "choice": name})


def score(**numbers: float) -> str:
    return json.dumps({"reason": "so", **numbers})
