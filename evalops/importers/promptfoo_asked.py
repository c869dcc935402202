"""One assertion of a promptfoo config, with all that its meaning hangs on, and what becomes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from evalops.errors import Diagnostic, Mark
from evalops.importers import nunjucks
from evalops.importers.draft import differs, no_equal, number, text_of
from evalops.importers.files import Files
from evalops.importers.promptfoo_cases import Case
from evalops.importers.promptfoo_models import shown


class Check(NamedTuple):
    """What one assertion asks of one test. Assertions of the same `fields` become one evaluation.

    What differs from test to test is the `value`, rendered; `template` is how it was written. `role` is the column
    for it: the `expected` text, or the `rubric` of a judge.
    """

    name: str
    fields: Mapping[str, Any]
    mark: Mark
    role: str = ""
    value: str = ""
    template: str = ""
    is_default: bool = False
    asks: str = ""  # the words around a rubric, where the config has its own


class Asked(NamedTuple):
    """An assertion: its type with and without `not-`, its value, its other settings, and the test that it is of."""

    base: str
    is_not: bool
    value: Any
    settings: Mapping[str, Any]
    case: Case
    mark: Mark
    files: Files

    @property
    def type(self) -> str:
        return f"not-{self.base}" if self.is_not else self.base

    def no(self, why: str, hint: str | None = None) -> None:
        """Leaves the assertion out."""
        self.files.say(no_equal(f"`{shown(self.type)}` {why}", self.mark, hint))

    def differs(self, message: str, hint: str | None = None) -> None:
        """Says how the assertion does not mean quite the same here."""
        self.files.say(differs(message, self.mark, hint))

    def filled(self, value: Any) -> str | None:
        """A value as text, with the variables of the test in it; None with a finding where there is none."""
        text = text_of(value) if isinstance(value, str | int | float) else ""
        found = nunjucks.rendered(text, self.case.row, self.mark)
        if isinstance(found, Diagnostic):
            self.files.say(found)
            return None
        if not found.strip():
            self.no("has no text to go by")
            return None
        return found

    def check(self, fields: Mapping[str, Any], role: str = "", value: str = "") -> Check:
        """What becomes of it; with a `role`, each row has a value of its own."""
        template = self.value if role and isinstance(self.value, str) else ""
        return Check(self.type, fields, self.mark, role, value, template)

    def threshold(self, default: float) -> float:
        """The least score that passes, 0 to 1."""
        found = number(self.settings.get("threshold"))
        return found if found is not None and 0 <= found <= 1 else default
