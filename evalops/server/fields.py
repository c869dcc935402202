"""The fields of a request: one at a time, with the rule it must keep and its place in what is said of it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evalops import template
from evalops.secret import MASK
from evalops.server.problem import Problem
from evalops.spec import Text

TOKEN = "external_api_token"  # noqa: S105 - the name of a field
MAX_DEPTH = 20  # of lists and objects inside each other; no documented field needs more than 3
MAX_LABELS = 1_000
MAX_NAME = 1_000  # characters of a label, a column, a model
MAX_WHOLE = 2**31 - 1
MAX_SCORE = 1e15


@dataclass(frozen=True, slots=True)
class Fields:
    """An object of the request. `path` is where it stands; a null is as good as no key at all."""

    path: str
    values: Mapping[str, Any]

    def param(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key

    def refuse(self, key: str, why: str) -> NoReturn:
        raise Problem(400, f"`{self.param(key)}` {why}", param=self.param(key))

    def get(self, key: str) -> Any:
        return self.values.get(key)

    def required(self, key: str) -> Any:
        value = self.get(key)
        return self.refuse(key, "is required") if value is None else value

    def object(self, key: str) -> Fields:
        value = self.required(key)
        return Fields(self.param(key), value) if isinstance(value, dict) else self.refuse(key, "must be an object")

    def text(self, key: str, *, longest: int = MAX_NAME) -> str:
        """A required text, not empty."""
        value = self.required(key)
        if not isinstance(value, str):
            self.refuse(key, "must be a string")
        if not value.strip() or len(value) > longest:
            self.refuse(key, f"must have 1 to {longest} characters" if value.strip() else "must not be empty")
        return value

    def choice(self, key: str, known: Sequence[str]) -> str:
        value = self.required(key)
        return str(value) if value in known else self.refuse(key, f"must be one of {', '.join(known)}")

    def boolean(self, key: str) -> bool:
        value = self.get(key)
        return bool(value) if value is None or isinstance(value, bool) else self.refuse(key, "must be true or false")

    def whole(self, key: str) -> int | None:
        value = self.get(key)
        if value is not None and (type(value) is not int or not 1 <= value <= MAX_WHOLE):
            self.refuse(key, f"must be a whole number from 1 to {MAX_WHOLE}")
        return value

    def number(self, key: str, low: float = -MAX_SCORE, high: float = MAX_SCORE) -> float | None:
        value = self.get(key)
        if value is None:
            return None
        if type(value) not in (int, float) or not low <= value <= high:
            self.refuse(key, f"must be a number from {low:g} to {high:g}")
        return float(value)

    def texts(self, key: str, least: int) -> tuple[str, ...]:
        value = self.required(key)
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            self.refuse(key, "must be a list of strings")
        if not least <= len(value) <= MAX_LABELS:
            self.refuse(key, f"must have {least} to {MAX_LABELS} items, it has {len(value)}")
        return tuple(value)

    def template(self, key: str) -> Text | None:
        """A template that can be read; an empty one shows nothing, so it is as good as none."""
        source = self.get(key)
        if source is not None and not isinstance(source, str):
            self.refuse(key, "must be a string")
        if not source:
            return None
        parsed = template.parse(source)
        if not isinstance(parsed, template.Template):
            problem = parsed[0]
            hint = f"; {problem.hint}" if problem.hint else ""
            self.refuse(key, f"is no usable template: line {problem.line}: {problem.message}{hint}")
        return Text(source, (*self.path.split(".")[1:], key))


_HALF = re.compile("[\ud800-\udfff]")


def masked(value: Any, depth: int = 0) -> Any:
    """A copy without tokens, refused where it could not be sent back as JSON."""
    if depth > MAX_DEPTH:
        raise Problem(400, f"the body has more than {MAX_DEPTH} lists and objects inside each other")
    match value:
        case dict():
            return {
                masked(key): MASK if key.casefold() == TOKEN and each is not None else masked(each, depth + 1)
                for key, each in value.items()
            }
        case list():
            return [masked(each, depth + 1) for each in value]
        case float() if not math.isfinite(value):
            raise Problem(400, "the body has a number that JSON does not know: NaN, Infinity, or too large")
        case str() if _HALF.search(value):
            raise Problem(400, "the body has half a surrogate pair, which is no character")
    return value
