"""From assertions that ask the same to a spec file with its rows.

What an assertion asks is in the spec, what each test wants in a column. Every prompt, and every provider whose settings
differ, is a document of its own; providers that differ by the model only are a `matrix`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from evalops.fingerprint import canonical
from evalops.importers import nunjucks, promptfoo_judges
from evalops.importers.draft import Draft, Part, Row, completed, free, identified, no_equal
from evalops.importers.files import Files
from evalops.importers.promptfoo_asked import Check
from evalops.importers.promptfoo_cases import Case
from evalops.importers.promptfoo_models import Candidate
from evalops.importers.promptfoo_prompts import Prompt
from evalops.template import Template


class Group(NamedTuple):
    """Assertions that ask the same of some tests, each at most once."""

    name: str
    members: Sequence[tuple[Case, Check]]

    @property
    def check(self) -> Check:
        return self.members[0][1]

    @property
    def is_recorded(self) -> bool:
        """Whether the tests hold their responses."""
        return self.members[0][0].output is not None


class _Answer(NamedTuple):
    """What is judged: the fields of a document, what tells it from others, and the templates that rows are for."""

    name: str
    fields: Mapping[str, Any]
    templates: tuple[str, ...] = ()


class Maker(NamedTuple):
    """What all specs of a config have in common."""

    files: Files
    base: str
    description: str
    prompts: Sequence[Prompt]
    candidates: Sequence[Candidate]

    def draft(self, group: Group) -> Draft | None:
        """The spec file of a group; None where there is nothing to judge."""
        answers = list(self._answers(group))
        if not answers:
            return None
        rows, fields = self._rows(group)
        has_own = set(rows[0]) != set(group.members[0][0].row)
        asked = fields.get("judge", {}).get("system_template", "")
        # What a test does not set is empty in promptfoo.
        rows = completed(rows, [asked, *(text for answer in answers for text in answer.templates)])
        column, named = identified(rows, [case.number for case, _ in group.members])
        about = {"description": self.description} if self.description else {}
        return Draft(
            name=f"{self.base}-{group.name}",
            parts=tuple(Part(each.name, {**about, **fields, **each.fields}) for each in answers),
            dataset=f"{self.base}-{group.name if has_own else 'tests'}",
            rows=tuple(named),
            id=column,
            mark=group.check.mark,
        )

    # --- rows ---

    def _rows(self, group: Group) -> tuple[list[Row], dict[str, Any]]:
        """The rows of a group, and its fields with the columns that they have."""
        cases, checks = zip(*group.members, strict=True)
        rows: list[dict[str, Any]] = [dict(case.row) for case in cases]
        fields = dict(group.check.fields)
        if group.is_recorded:
            column = free("response", _columns(rows))
            rows = [{**row, column: case.output} for row, case in zip(rows, cases, strict=True)]
            fields["model_to_evaluate"] = column
        _wanted(checks, rows, fields)
        return [*rows], fields

    # --- candidates ---

    def _answers(self, group: Group) -> Iterator[_Answer]:
        """What is judged: responses that are there, or each prompt with each provider."""
        if group.check.fields["type"] == "compare":
            yield from self._pair(group)
        elif group.is_recorded:
            yield _Answer("", {})
        else:
            for prompt in self.prompts:
                yield from self._each(prompt)

    def _each(self, prompt: Prompt) -> Iterator[_Answer]:
        """The documents of a prompt: one for all models with the same settings."""
        first = (prompt.name or f"prompt-{self.prompts.index(prompt) + 1}") if len(self.prompts) > 1 else ""
        alike: dict[bytes, list[Candidate]] = {}
        for each in self.candidates:
            if _is_asked(each, prompt):
                alike.setdefault(canonical({**(each.model or {"echo": True}), "model": ""}), []).append(each)
        for members in alike.values():
            models = list(dict.fromkeys(str(each.model["model"]) for each in members if each.model))
            own = members[0].name if len(alike) > 1 and len(models) < 2 else ""
            name = "-".join(part for part in (first, own) if part)
            if members[0].model is None:
                yield from self._echoed(name, prompt, members[0])
                continue
            candidate = _written(prompt, members[0].model)
            fields: dict[str, Any] = {"model_to_evaluate": candidate}
            if len(models) > 1:
                del candidate["model"]
                fields["matrix"] = {"model_to_evaluate.model": models}
            yield _Answer(name, fields, _templates(prompt))

    def _echoed(self, name: str, prompt: Prompt, one: Candidate) -> Iterator[_Answer]:
        """`echo` gives the prompt back: a response that is a column."""
        column = nunjucks.variable(prompt.input)
        if column is None or prompt.system is not None:
            message = "`echo` gives its prompt back, which can be a column here only where it is one variable"
            self.files.say(no_equal(message, one.mark, "write the prompt as `{{ response }}`"))
        else:
            yield _Answer(name, {"model_to_evaluate": column}, _templates(prompt))

    def _pair(self, group: Group) -> Iterator[_Answer]:
        """Two candidates that are compared: two prompts, or two providers."""
        pairs = [
            (prompt, each.model)
            for prompt in self.prompts
            for each in self.candidates
            if each.model is not None and _is_asked(each, prompt)
        ]
        if len(pairs) != 2 or group.is_recorded:
            for _, check in group.members:
                count = "one response" if group.is_recorded else f"{len(pairs)} candidates"
                message = f"`select-best` has {count} to choose from, and `compare` has two"
                hint = "write a spec of `type: compare` for each pair; evalops rank makes one order of them"
                self.files.say(no_equal(message, check.mark, hint))
            return
        (one, first), (other, second) = pairs
        fields = {"model_a": _written(one, first), "model_b": _written(other, second)}
        yield _Answer("", fields, (*_templates(one), *_templates(other)))


def _wanted(checks: Sequence[Check], rows: list[dict[str, Any]], fields: dict[str, Any]) -> None:
    """Puts what each test wants into `rows`, and says in `fields` where it is; what all want alike needs no column."""
    role, written = checks[0].role, checks[0].template
    is_same = len({check.template or check.value for check in checks}) == 1
    own = nunjucks.variable(written) if is_same else None
    if role == "expected" and own is not None:
        fields["gold"] = own
    elif role == "rubric" and is_same:
        rubric = nunjucks.translated(written or checks[0].value, checks[0].mark)
        _ask(fields, rubric.source if isinstance(rubric, Template) else checks[0].value, checks[0].asks)
    elif role:
        column = free(role, _columns(rows))
        for row, check in zip(rows, checks, strict=True):
            row[column] = check.value
        if role == "rubric":
            _ask(fields, f"{{{{ {column} }}}}", checks[0].asks)
        else:
            fields["gold"] = column


def _ask(fields: dict[str, Any], rubric: str, asks: str) -> None:
    """Gives the judge its template."""
    asked = promptfoo_judges.question(fields["type"], rubric, asks)
    fields["judge"] = {**fields["judge"], "system_template": asked}


def _written(prompt: Prompt, model: Mapping[str, Any]) -> dict[str, Any]:
    """A model that writes responses to a prompt."""
    system = {"system_template": prompt.system} if prompt.system is not None else {}
    return {**model, **system, "input_template": prompt.input}


def _templates(prompt: Prompt) -> tuple[str, ...]:
    return (prompt.system or "", prompt.input)


def _columns(rows: Iterable[Row]) -> set[str]:
    return {name for row in rows for name in row}


def _is_asked(candidate: Candidate, prompt: Prompt) -> bool:
    """Whether a provider is asked a prompt: all of them, or those that it names, with `group:*` for many."""
    if candidate.prompts is None:
        return True
    label = prompt.label or prompt.input
    return any(
        label == each or (each.endswith("*") and label.startswith(each[:-1])) or label.startswith(f"{each}:")
        for each in candidate.prompts
    )
