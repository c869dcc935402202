"""Assertions that a model grades: rubrics, and the best of two."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

from evalops.importers import nunjucks
from evalops.importers.chat import THE_RESPONSE, content
from evalops.importers.promptfoo_asked import Asked, Check
from evalops.importers.promptfoo_models import model
from evalops.template import Template

JUDGE = "openai/gpt-4.1"  # whom promptfoo asks where nobody is named and there is a key for OpenAI
LABELS = ("pass", "fail")

_EDIT = "edit `judge.system_template` to ask otherwise"
_PLACE = re.compile(r"\{\{-?\s*(output|rubric)\s*-?\}\}")
_QUESTIONS = {
    "classify": "Does the response meet this requirement?",
    "score": "How well does the response meet this requirement? 0 is not at all, 1 is in every respect.",
    "compare": "Which of the two responses is better? This is what counts:",
}


def question(type_: str, rubric: str, asks: str = "") -> str:
    """The judge's template for a rubric, both templates; `asks` are words of the config around it, if it has any."""
    if asks:
        return _PLACE.sub(lambda found: THE_RESPONSE if found[1] == "output" else rubric.strip(), asks)
    return f"{_QUESTIONS[type_]}\n\n{rubric.strip()}\n"


def rubric(asked: Asked) -> Check | None:
    """The response meets a rubric; with a threshold, well enough."""
    judge = _judge(asked)
    value = json.dumps(asked.value, ensure_ascii=False) if isinstance(asked.value, dict | list) else asked.value
    text = None if judge is None else asked.filled(value)
    if judge is None or text is None:
        return None
    asks = _asks(asked)
    if asked.settings.get("threshold") is None:
        passes = [LABELS[1 if asked.is_not else 0]]
        fields: dict[str, Any] = {"type": "classify", "judge": judge, "labels": list(LABELS), "pass_labels": passes}
        return asked.check(fields, "rubric", text)._replace(asks=asks)
    if asked.is_not:
        asked.no("with a `threshold` has no equal here", "use it without `not-` and bound `mean_score` by `max`")
        return None
    least = asked.threshold(1.0)
    fields = {"type": "score", "judge": judge, "min_score": 0, "max_score": 1, "pass_threshold": least}
    return asked.check(fields, "rubric", text)._replace(asks=asks)


def best(asked: Asked) -> Check | None:
    """One response is better than another."""
    if asked.is_not:
        asked.no("has no equal here")
        return None
    judge = _judge(asked)
    text = None if judge is None else asked.filled(asked.value)
    if _prompt(asked) is not None:
        asked.differs("a `rubricPrompt` is left out: the judge gets the criterion in the words of evalops", _EDIT)
    return None if text is None else asked.check({"type": "compare", "judge": judge}, "rubric", text)


def _prompt(asked: Asked) -> Any:
    """The config's own prompt for a grader, as it is written."""
    found = asked.settings.get("rubricPrompt") or asked.case.options.get("rubricPrompt")
    return found[0] if isinstance(found, list) and isinstance(found[0], str) else found or None


def _asks(asked: Asked) -> str:
    """The same as a template of ours, in which the rubric and the response have their places; "" for none."""
    found = _prompt(asked)
    if isinstance(found, str) and found.startswith("file://"):
        paths = asked.files.paths(found, asked.mark, _EDIT)
        found = asked.files.text(paths[0], asked.mark) if paths else None
    if found is None:
        return ""
    made = nunjucks.translated(_text(found), asked.mark)
    source = made.source if isinstance(made, Template) else ""
    if not source.strip() or "output" in nunjucks.variables(_PLACE.sub("", source)):
        asked.differs("a `rubricPrompt` cannot be taken over: the judge gets the rubric in the words of evalops", _EDIT)
        return ""
    asked.differs(
        "a `rubricPrompt` is the judge's template now, and evalops asks for the form of the answer itself",
        "take out of `judge.system_template` what it says of JSON and scores",
    )
    return source


def _text(prompt: Any) -> str:
    """The texts of a prompt, which may be messages, in JSON or not; "" for what is no text."""
    with contextlib.suppress(ValueError, RecursionError):
        prompt = json.loads(prompt) if isinstance(prompt, str) and prompt.lstrip().startswith("[") else prompt
    given = prompt if isinstance(prompt, list) else [prompt]
    parts = [each.get("content") if isinstance(each, dict) else each for each in given]
    return "\n\n".join(text.strip() for each in parts if (text := content(each))) + "\n"


def _judge(asked: Asked) -> dict[str, Any] | None:
    """Who grades: the assertion's provider, the test's, or promptfoo's own choice. The template comes later."""
    given = asked.settings.get("provider") or asked.case.options.get("provider")
    if isinstance(given, dict) and isinstance(given.get("text"), str | dict):
        given = given["text"]
    if given is None:
        asked.differs(
            f"no grader is named: the judge is `{JUDGE}`, one of those that promptfoo takes by the keys it finds",
            "write another one into `judge.model`",
        )
        return {"model": JUDGE}
    name = given.get("id") if isinstance(given, dict) else given
    if not isinstance(name, str):
        asked.no("has a grader without an `id`")
        return None
    return model(name, given if isinstance(given, dict) else {}, asked.mark, asked.files)
