"""What the assertions of a promptfoo config ask, and which of them have no equal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import Any

from evalops.importers import nunjucks, promptfoo_judges, promptfoo_texts
from evalops.importers.draft import FUNCTION, differs, no_equal, slug
from evalops.importers.files import VALUES, Files
from evalops.importers.promptfoo_asked import Asked, Check
from evalops.importers.promptfoo_cases import Asserted, Case
from evalops.importers.promptfoo_models import shown
from evalops.importers.source import Source

_KINDS: dict[str, Callable[[Asked], Check | None]] = {
    "equals": promptfoo_texts.equals,
    "contains": promptfoo_texts.contains,
    "icontains": promptfoo_texts.contains,
    "contains-any": promptfoo_texts.several,
    "contains-all": promptfoo_texts.several,
    "icontains-any": promptfoo_texts.several,
    "icontains-all": promptfoo_texts.several,
    "starts-with": promptfoo_texts.starts,
    "regex": promptfoo_texts.regex,
    "is-json": promptfoo_texts.json_,
    "contains-json": promptfoo_texts.json_,
    "bleu": promptfoo_texts.overlap,
    "rouge-n": promptfoo_texts.overlap,
    "llm-rubric": promptfoo_judges.rubric,
    "model-graded-closedqa": promptfoo_judges.rubric,
    "select-best": promptfoo_judges.best,
}

_JUDGE = "write a judge that asks for it: `type: classify` with labels, or `type: score`"
_OVERLAP = "BLEU and ROUGE are there: `type: custom`, `evaluator: {kind: rouge}`"
_MEASURED = "tokens and cost are in the result of every apply; a row has no verdict on them"
# What to do about the others that promptfoo has.
_HINTS = {
    **dict.fromkeys(
        ("javascript", "python", "ruby", "webhook", "is-sql", "contains-sql", "is-xml", "contains-xml", "is-html",
         "contains-html", "is-valid-function-call", "is-valid-openai-function-call", "is-valid-openai-tools-call",
         "tool-call-f1", "word-count"),
        FUNCTION,
    ),
    **dict.fromkeys(("similar", "levenshtein", "gleu", "meteor", "rouge-l", "rouge-s"), _OVERLAP),
    **dict.fromkeys(("cost", "latency", "perplexity", "perplexity-score", "finish-reason"), _MEASURED),
    **dict.fromkeys(
        ("factuality", "answer-relevance", "context-faithfulness", "context-recall", "context-relevance", "g-eval",
         "conversation-relevance", "classifier", "moderation", "is-refusal", "pi", "search-rubric", "guardrails"),
        _JUDGE,
    ),
    "max-score": "evalops rank orders candidates by any metric",
    "human": "put what people say into a column: `judge: {column: NAME}`",
}  # fmt: skip


def known(word: str) -> bool:
    """Whether a word is a type of assertion: a cell of `__expected` may hold a bare answer instead."""
    return word in _KINDS or word in _HINTS


def checks(case: Case, config: Source, files: Files) -> Iterator[Check]:
    """What the assertions of a test ask; those that have no equal are left out with a finding."""
    for asserted in case.asserted:
        for given in _flat(asserted.given, config, files):
            asked = _asked(given, case, files)
            found = asked and _KINDS[asked.base](asked)
            if asked and found:
                yield _graded(found, asked, asserted)


def _flat(given: Source, config: Source, files: Files) -> Iterator[Source]:
    """An assertion, the one that it refers to, or those of its set."""
    value = given.value
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        try:
            given = config.at(*value["$ref"].removeprefix("#/").split("/"))
        except (KeyError, TypeError):
            files.say(no_equal(f"the config has no `{shown(value['$ref'])}`", given.mark()))
            return
        value = given.value
    if not (isinstance(value, dict) and value.get("type") == "assert-set" and isinstance(value.get("assert"), list)):
        yield given
        return
    if value.get("threshold") is not None:
        message = "an `assert-set` is taken apart: each of its parts is an evaluation of its own"
        files.say(differs(message, given.mark(), "bound each by `thresholds`"))
    for number, inner in enumerate(value["assert"]):
        if not (isinstance(inner, dict) and inner.get("type") == "assert-set"):
            yield given.at("assert", number)


def _asked(given: Source, case: Case, files: Files) -> Asked | None:
    """An assertion with its value at hand, None with a finding where it has no equal."""
    value, mark = given.value, given.mark()
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        files.say(no_equal("this assertion has no `type`", mark))
        return None
    type_ = value["type"]
    asked = Asked(type_.removeprefix("not-"), type_.startswith("not-"), value.get("value"), value, case, mark, files)
    if asked.base not in _KINDS:
        asked.no("has no equal here", _HINTS.get(asked.base, "see what a judge or `type: custom` can do"))
        return None
    if value.get("transform"):
        asked.no("changes the response with code first, and an import runs none", FUNCTION)
        return None
    if value.get("weight") not in (None, 0, 1):
        message = "a `weight` is left out: every evaluation has a result of its own"
        files.say(no_equal(message, mark, "bound each by `thresholds`"))
    if isinstance(asked.value, str) and asked.value.startswith("file://"):
        found = _of_file(asked)
        return None if found is None else asked._replace(value=found)
    return asked


def _of_file(asked: Asked) -> Any:
    """What stands in the file that is the value of an assertion."""
    for path in asked.files.paths(asked.value, asked.mark, FUNCTION):
        if PurePosixPath(path).suffix.lower() in VALUES:
            return next((each.value for each in asked.files.values(path, asked.mark)), None)
        text = asked.files.text(path, asked.mark)
        return None if text is None else text.strip()
    return None


def _graded(check: Check, asked: Asked, asserted: Asserted) -> Check:
    """With a name, and with the bound that promptfoo has: it fails where any test fails.

    An assertion of no weight is only shown there, and so is a choice between two.
    """
    metric = asked.settings.get("metric")
    is_named = isinstance(metric, str) and metric and not nunjucks.is_template(metric)
    fields = dict(check.fields)
    if asked.settings.get("weight") != 0 and fields["type"] != "compare":
        fields["thresholds"] = {"pass_percentage": {"min": 100}}
    name = slug(str(metric), asked.type) if is_named else check.name
    return check._replace(name=name, fields=fields, is_default=asserted.is_default)
