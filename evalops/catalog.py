"""All evaluations of a project with their identities, and everything that is wrong with any of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from evalops import dataset, document, fingerprint, schema, semantics, spec
from evalops.errors import Diagnostic, EvalopsError, Mark, has_errors
from evalops.fingerprint import Digests
from evalops.lock import beside
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Provider
from evalops.settings import FILE
from evalops.spec import Evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The evaluations that could be read, and the problems of all files together."""

    wanted: tuple[Wanted, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    specs: tuple[str, ...] = ()


@dataclass(slots=True)
class _Scans:
    """Datasets already read, by what was asked of them: specs share datasets."""

    project: Project
    known: dict[dataset.Uses, tuple[Digests, list[Diagnostic]]] = field(default_factory=dict)


def read(project: Project, paths: Iterable[str] | None = None) -> Catalog:
    """Every spec of the project, or those at `paths`, read, checked and identified."""
    specs = tuple(project.specs() if paths is None else paths)
    problems: list[Diagnostic] = []
    evaluations: list[Evaluation] = []
    for path in specs:
        found, new = _spec(project, path)
        evaluations += found
        problems += new
    problems += semantics.unique(evaluations)
    wanted, new = _identify(project, evaluations)
    return Catalog(
        wanted=tuple(sorted(wanted, key=lambda each: each.evaluation.address)),
        diagnostics=tuple(sorted(_once(problems + new), key=_place)),
        specs=specs,
    )


def _once(problems: Iterable[Diagnostic]) -> Iterable[Diagnostic]:
    """Each problem once: one that several evaluations share, a row's for instance, has no address."""
    found: dict[Diagnostic, Diagnostic] = {}
    for each in problems:
        shared = replace(each, address=None)
        first = found.setdefault(shared, each)
        if first.address != each.address:
            found[shared] = shared
    return found.values()


def _place(problem: Diagnostic) -> tuple[str, int, int]:
    mark = problem.mark or Mark("")
    return mark.path, mark.line, mark.column


def select(wanted: Sequence[Wanted], selectors: Sequence[str], exclude: Sequence[str] = ()) -> list[Wanted]:
    """The evaluations that match any selector (an address or name with globs, `tag:WORD`) and no exclusion.

    Raises EvalopsError for a selector that matches nothing.
    """
    for selector in selectors:
        if not any(_matches(each.evaluation, selector) for each in wanted):
            names = {name for each in wanted for name in (each.evaluation.address, each.evaluation.name)}
            raise EvalopsError(
                Diagnostic(
                    code="select/nothing",
                    message=f"nothing matches `{selector}`",
                    hint=schema.nearest(selector, names) or "evalops status lists the addresses",
                )
            )
    return [
        each
        for each in wanted
        if (not selectors or any(_matches(each.evaluation, selector) for selector in selectors))
        and not any(_matches(each.evaluation, selector) for selector in exclude)
    ]


def touched(wanted: Sequence[Wanted], paths: Collection[str]) -> list[Wanted]:
    """The evaluations that any of these files is part of: the spec, its lockfile, the dataset, a template, settings."""
    if FILE in paths:
        return list(wanted)
    return [each for each in wanted if not files(each.evaluation).isdisjoint(paths)]


def files(evaluation: Evaluation) -> set[str]:
    """The files of the project that an evaluation is made from, its lockfile included."""
    templates = {text.file for text in evaluation.texts if text.file}
    return {evaluation.spec, beside(evaluation.spec), evaluation.dataset.path, *templates}


def _matches(evaluation: Evaluation, selector: str) -> bool:
    if selector.startswith("tag:"):
        return any(fnmatchcase(tag, selector[4:]) for tag in evaluation.tags)
    # Addresses hold brackets, which are sets to a glob: compared as they are first.
    names = (evaluation.address, evaluation.name, evaluation.spec)
    return selector in names or any(fnmatchcase(name, selector.replace("[", "[[]")) for name in names)


def _spec(project: Project, path: str) -> tuple[list[Evaluation], list[Diagnostic]]:
    try:
        documents, problems = document.parse(project.read(path), path)
    except EvalopsError as error:
        return [], list(error.diagnostics)
    evaluations: list[Evaluation] = []
    if has_errors(problems):
        return [], problems
    for each in documents:
        found, new = spec.load(each, project.settings, project.read_text)
        evaluations += found
        problems += new
    return evaluations, problems


def _identify(project: Project, evaluations: list[Evaluation]) -> tuple[list[Wanted], list[Diagnostic]]:
    scans = _Scans(project)
    providers: dict[str, Provider] = {}
    wanted = []
    problems: list[Diagnostic] = []
    for evaluation in evaluations:
        if evaluation.provider not in providers:
            providers[evaluation.provider] = open_provider(evaluation.provider, project)
        found = semantics.check(evaluation) + providers[evaluation.provider].check(evaluation)
        try:
            digests, new = _scan(evaluation, scans)
            found += new
            if not has_errors(found):
                wanted.append(_wanted(evaluation, providers[evaluation.provider], digests))
        except EvalopsError as error:
            found += error.diagnostics
        problems += (replace(each, address=evaluation.address) for each in found)
    return wanted, problems


def _wanted(evaluation: Evaluation, provider: Provider, digests: Digests) -> Wanted:
    endpoints = provider.endpoints(evaluation)
    return Wanted(evaluation, fingerprint.identify(evaluation, endpoints, digests, provider.pins(evaluation)))


def _scan(evaluation: Evaluation, scans: _Scans) -> tuple[Digests, list[Diagnostic]]:
    use = dataset.uses(evaluation, semantics.variables(evaluation))
    if use not in scans.known:
        try:
            scans.known[use] = dataset.scan(
                lambda: scans.project.open(use.path), use, lambda column: semantics.place(evaluation, column)
            )
        except EvalopsError as error:
            raise EvalopsError(*(_at_dataset(problem, evaluation) for problem in error.diagnostics)) from None
    return scans.known[use]


def _at_dataset(problem: Diagnostic, evaluation: Evaluation) -> Diagnostic:
    """A file that cannot be opened is a problem of the line that names it."""
    return problem if problem.mark else replace(problem, mark=evaluation.places.mark("dataset", "path"))
