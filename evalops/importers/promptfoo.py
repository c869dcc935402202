"""A promptfoo config becomes specs: a file for each kind of assertion, over the tests that make it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical
from evalops.importers import promptfoo_checks
from evalops.importers.draft import FUNCTION, Found, free, gathered, no_equal, slug
from evalops.importers.files import Files, Folder
from evalops.importers.promptfoo_asked import Check
from evalops.importers.promptfoo_cases import MOST_TEXT, Case, cases, too_large
from evalops.importers.promptfoo_models import candidates, shown
from evalops.importers.promptfoo_prompts import prompts
from evalops.importers.promptfoo_specs import Group, Maker
from evalops.importers.source import Source

MOST_SPECS = 200
MOST_PATTERNS = 20  # of one kind of assertion, each of which is an evaluation of its own

_DONE = {"description", "prompts", "providers", "targets", "tests", "defaultTest", "assertionTemplates", "$schema"}
_PARTS = {"prompts", "providers", "targets", "tests", "defaultTest", "scenarios", "redteam"}
_NO_MATTER = {"outputPath", "sharing", "commandLineOptions", "writeLatestResults", "tags", "metadata", "env"}
_HINTS = {
    "redteam": "promptfoo stays the tool for that",
    "scenarios": "write them out as `tests`",
    "extensions": "an import runs no code",
    "nunjucksFilters": "an import runs no code",
    "derivedMetrics": "see `metric` and `thresholds` of a spec",
}
_ENV = "what `env` sets is not copied: a key stays in the environment, and evalops.yaml names the variable"


def found(path: str, folder: Folder) -> Found:
    """What a config becomes. Raises EvalopsError where it cannot be read, or is more than an import takes."""
    files = Files(folder=folder, path=path)
    config = files.main()
    if not isinstance(config.value, dict) or not _PARTS & set(config.value):
        message = "this is no promptfoo config: that is a mapping with `prompts`, `providers` and `tests`"
        raise EvalopsError(Diagnostic(code="import/unreadable", message=message, mark=config.mark()))
    _remark(config, files)
    asked, answering = prompts(config, files), candidates(config, files)
    tests = cases(config, files, promptfoo_checks.known)
    groups = _groups(_checked(tests, config, files), files)
    maker = Maker(files, _base(config, path), _description(config), asked, answering)
    drafts = [draft for group in groups if (draft := maker.draft(group))]
    if sum(len(each.parts) for each in drafts) > MOST_SPECS:
        message = f"the config makes more than {MOST_SPECS} specs"
        raise EvalopsError(Diagnostic(code="import/too-many", message=message, mark=config.mark(), hint="split it"))
    if tests and not any(case.asserted for case in tests):
        files.say(no_equal("no test asserts anything, so nothing would be judged", config.mark("tests")))
    return Found(tuple(drafts), tuple(gathered(files.findings)), tuple(dict.fromkeys(files.sources)))


def _remark(config: Source, files: Files) -> None:
    """Says what of a config stays behind as a whole."""
    for key in config.value:
        if key == "env":
            files.say(no_equal(_ENV, config.mark(key), "credentials: {NAME: {env: VARIABLE, origins: [https://…]}}"))
        elif key == "evaluateOptions":
            repeat = config.value[key].get("repeat") if isinstance(config.value[key], dict) else None
            if repeat not in (None, 1):
                message = "`repeat` asks a candidate several times; `repeats` of a spec asks the judge"
                files.say(no_equal(message, config.mark(key), "set `repeats` if the judge was meant"))
        elif key not in (*_DONE, *_NO_MATTER):
            files.say(no_equal(f"`{shown(key)}` has no equal here", config.mark(key), _HINTS.get(key)))
    if config.value.get("tests") is None:
        files.say(no_equal("the config has no `tests`, so there is no row to judge", config.mark()))


def _base(config: Source, path: str) -> str:
    """What the names of all specs begin with: what the config is called, or what it is about."""
    pure = PurePosixPath(path)
    stem = pure.name.removesuffix(pure.suffix).removeprefix("promptfooconfig").strip(".-_")
    return slug(stem or _description(config) or pure.parent.name, "promptfoo")


def _description(config: Source) -> str:
    text = config.value.get("description")
    return text.strip() if isinstance(text, str) else ""


# --- which assertions belong together ---


def _checked(tests: Iterable[Case], config: Source, files: Files) -> Iterator[tuple[Case, Sequence[Check]]]:
    """The tests with what is asked of them; no more text than there may be in their rows."""
    held = 0
    for case in tests:
        checks = list(promptfoo_checks.checks(case, config, files))
        held += sum(len(each.value) for each in checks)
        if held > MOST_TEXT:
            raise too_large(case.mark)
        yield case, checks


def _groups(asked: Iterable[tuple[Case, Sequence[Check]]], files: Files) -> list[Group]:
    """Assertions of the same fields; the second of the same test begins another group."""
    known: dict[tuple[object, ...], list[tuple[Case, Check]]] = {}
    for case, checks in asked:
        counts: Counter[tuple[object, ...]] = Counter()
        for check in checks:
            key = (check.name, canonical(check.fields), check.asks, check.is_default, case.output is not None)
            counts[key] += 1
            known.setdefault((*key, counts[key]), []).append((case, check))
    groups = list(_few([Group(members[0][1].name, members) for members in known.values()], files))
    mixed = {
        name
        for name in {each.name for each in groups}
        if len({g.check.is_default for g in groups if g.name == name}) > 1
    }
    named: list[Group] = []
    for group in groups:
        name = f"default-{group.name}" if group.name in mixed and group.check.is_default else group.name
        named.append(group._replace(name=free(name, {each.name for each in named}, "-")))
    return named


def _few(groups: Sequence[Group], files: Files) -> Iterator[Group]:
    """Those that can be told apart by people: not a pattern for every test."""
    patterns = Counter(group.name for group in groups if not group.check.role)
    for group in groups:
        if patterns[group.name] <= MOST_PATTERNS or group.check.role:
            yield group
            continue
        for _, check in group.members:
            message = f"`{group.name}` is asked with {patterns[group.name]} patterns, and a spec has one for all rows"
            files.say(no_equal(message, check.mark, f"use one pattern, or {FUNCTION}"))
