"""All evaluations of a project with their identities, and everything that is wrong with any of them."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from posixpath import normpath

from evalops import document, fingerprint, git, policy, schema, semantics, sources, spec
from evalops.datasets import dataset
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity, has_errors
from evalops.evaluators import kinds
from evalops.fingerprint import Digests
from evalops.lock import beside
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Provider
from evalops.settings import FILE, Settings
from evalops.spec import Evaluation

UNTRACKED = "project/untracked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """The evaluations that could be read, and the problems of all files together.

    `wanted` are those whose rows could be identified, `evaluations` all of them.
    """

    wanted: tuple[Wanted, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()
    specs: tuple[str, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(slots=True)
class _Scans:
    """Datasets already read, by what was asked of them, or why they cannot be: specs share datasets."""

    project: Project
    most: int | None = None  # rows that are looked at
    known: dict[tuple[dataset.Uses, str], tuple[Digests, list[Diagnostic]] | EvalopsError] = field(default_factory=dict)


def read(project: Project, paths: Iterable[str] | None = None) -> Catalog:
    """Every spec of the project, or those at `paths`, read, checked and identified."""
    specs = tuple(project.specs() if paths is None else paths)
    evaluations, problems = evaluations_of(project, specs)
    problems += (*sources.check(project.settings), *policy.check(project.settings))
    wanted, new = _identify(project, evaluations)
    new += _untracked(project, evaluations)
    return Catalog(
        wanted=tuple(sorted(wanted, key=lambda each: each.evaluation.address)),
        diagnostics=tuple(sorted(_once(problems + new), key=_place)),
        specs=specs,
        evaluations=tuple(evaluations),
    )


def of_text(project: Project, path: str, data: bytes, *, most: int | None = None) -> Catalog:
    """What `read` would say if the spec at `path` held `data`.

    With `most` in a hurry: of a dataset that many rows are looked at, of the other specs those that have its name.
    """
    evaluations, problems = _evaluations(project, path, data)
    names = {each.name.encode() for each in evaluations}
    paths = [each for each in project.specs() if each != path] if evaluations else []
    others, _ = evaluations_of(project, [each for each in paths if most is None or _has(project, each, names)])
    ours = [each for each in semantics.unique([*others, *evaluations]) if each.mark and each.mark.path == path]
    wanted, new = _identify(project, evaluations, most)
    found = tuple(sorted(_once([*problems, *ours, *new]), key=_place))
    return Catalog(wanted=tuple(wanted), diagnostics=found, specs=(path,), evaluations=tuple(evaluations))


def _has(project: Project, path: str, words: Iterable[bytes]) -> bool:
    try:
        data = project.read(path)
    except EvalopsError:
        return False
    return any(word in data for word in words)


def evaluations_of(project: Project, specs: Iterable[str]) -> tuple[list[Evaluation], list[Diagnostic]]:
    """The evaluations of specs as they are written, for what can be done without their rows."""
    problems: list[Diagnostic] = []
    evaluations: list[Evaluation] = []
    for path in specs:
        found, new = _spec(project, path)
        evaluations += found
        problems += new
    return evaluations, problems + list(semantics.unique(evaluations))


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
    chosen = {each.address for each in choose([each.evaluation for each in wanted], selectors, exclude)}
    return [each for each in wanted if each.evaluation.address in chosen]


def choose(
    evaluations: Sequence[Evaluation], selectors: Sequence[str], exclude: Sequence[str] = ()
) -> list[Evaluation]:
    """`select` for evaluations that are not identified."""
    for selector in selectors:
        if not any(_matches(each, selector) for each in evaluations):
            names = {name for each in evaluations for name in (each.address, each.name)}
            raise EvalopsError(
                Diagnostic(
                    code="select/nothing",
                    message=f"nothing matches `{selector}`",
                    hint=schema.nearest(selector, names) or "evalops status lists the addresses",
                )
            )
    return [
        each
        for each in evaluations
        if (not selectors or any(_matches(each, selector) for selector in selectors))
        and not any(_matches(each, selector) for selector in exclude)
    ]


def touched(wanted: Sequence[Wanted], paths: Collection[str], settings: Settings) -> list[Wanted]:
    """The evaluations that any of these files is part of: the spec, its lockfile, the dataset, a template, settings."""
    if FILE in paths:
        return list(wanted)
    return [
        each
        for each in wanted
        if not files(each.evaluation, settings).isdisjoint(paths) or _has_code(each.evaluation, paths)
    ]


def _has_code(evaluation: Evaluation, paths: Collection[str]) -> bool:
    """Whether a file is code of an evaluator that the project wrote itself."""
    function = evaluation.evaluator.function if evaluation.evaluator else None
    return function is not None and any(kinds.is_code(function, path) for path in paths)


def files(evaluation: Evaluation, settings: Settings) -> set[str]:
    """The files of the project that an evaluation is made from, its lockfile included."""
    return {evaluation.spec, beside(evaluation.spec), *read_by(evaluation, settings)}


def read_by(evaluation: Evaluation, settings: Settings) -> set[str]:
    """The files that a spec names: the dataset and templates."""
    templates = {text.file for text in evaluation.texts if text.file}
    return sources.files(evaluation.dataset, settings) | templates


def _matches(evaluation: Evaluation, selector: str) -> bool:
    if selector.startswith("tag:"):
        return any(fnmatchcase(tag, selector[4:]) for tag in evaluation.tags)
    # Addresses hold brackets, which are sets to a glob: compared as they are first.
    names = (evaluation.address, evaluation.name, evaluation.spec)
    return selector in names or any(fnmatchcase(name, selector.replace("[", "[[]")) for name in names)


def _spec(project: Project, path: str) -> tuple[list[Evaluation], list[Diagnostic]]:
    try:
        return _evaluations(project, path, project.read(path))
    except EvalopsError as error:
        return [], list(error.diagnostics)


def _evaluations(project: Project, path: str, data: bytes) -> tuple[list[Evaluation], list[Diagnostic]]:
    documents, problems = document.parse(data, path)
    evaluations: list[Evaluation] = []
    if has_errors(problems):
        return [], problems
    for each in documents:
        found, new = spec.load(each, project.settings, project.read_text)
        evaluations += found
        problems += new
    return evaluations, problems


def _identify(
    project: Project, evaluations: list[Evaluation], most: int | None = None
) -> tuple[list[Wanted], list[Diagnostic]]:
    scans = _Scans(project, most)
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
    identity = fingerprint.identify(evaluation, endpoints, digests, provider.pins(evaluation))
    return Wanted(evaluation, replace(identity, origin=provider.origin))


def _scan(evaluation: Evaluation, scans: _Scans) -> tuple[Digests, list[Diagnostic]]:
    ref, use = evaluation.dataset, sources.uses(evaluation)
    if ref.sha256 is not None:
        return dataset.unread(ref.sha256, use), []
    key = (use, evaluation.address if ref.rows is not None else "")  # rows in a spec have places of their own
    found = scans.known.get(key) or _read(evaluation, use, key, scans)
    if isinstance(found, EvalopsError):
        raise EvalopsError(*(_at_dataset(problem, evaluation) for problem in found.diagnostics))
    return found


def _read(
    evaluation: Evaluation, use: dataset.Uses, key: tuple[dataset.Uses, str], scans: _Scans
) -> tuple[Digests, list[Diagnostic]] | EvalopsError:
    """What a dataset is, or why it cannot be read: kept, but for problems that are told at a line of this spec."""
    source = sources.of(scans.project, evaluation)
    placed: list[Mark] = []

    def mark(column: str) -> Mark:
        placed.append(semantics.place(evaluation, column))
        return placed[-1]

    try:
        scans.known[key] = source.scan(use, mark, scans.most)
    except EvalopsError as error:
        if placed:
            return error
        scans.known[key] = error
    return scans.known[key]


def _untracked(project: Project, evaluations: Iterable[Evaluation]) -> Iterator[Diagnostic]:
    """Files of specs that git does not track: who reviews a change does not see what is judged.

    Errors where a revision is trusted, else warnings; and none then for a spec that is not tracked itself.
    """
    # A folder that is in no repository asks nobody.
    listed = git.ask(project.root, "ls-files", "-z") if git.is_near(project.root) else None
    if listed is None or not listed.ok:
        return
    tracked = set(listed.out.decode("utf-8", "surrogateescape").split("\0"))
    for each in evaluations:
        if project.trusted is None and each.spec not in tracked:
            continue
        named: dict[str, tuple[str | int, ...]] = {text.file: text.route for text in each.texts if text.file}
        known = project.settings.datasets.get(each.dataset.path)
        if known is None or known.sha256 is None:  # else whoever reviewed the digest knows the content
            named |= dict.fromkeys(sources.files(each.dataset, project.settings), ("dataset", "path"))
        for path, route in named.items():
            if normpath(path) not in tracked:
                yield Diagnostic(
                    code=UNTRACKED,
                    message=f"git does not track `{path}`: who reviews a change does not see what is judged",
                    mark=each.places.mark(*route),
                    address=each.address,
                    hint=_how_to_track(normpath(path), is_dataset=route[0] == "dataset"),
                    severity=Severity.WARNING if project.trusted is None else Severity.ERROR,
                )


def _how_to_track(path: str, *, is_dataset: bool) -> str:
    """What to do about a file that git does not track: one that is hidden, as .env is, was not left out by mistake."""
    if any(part.startswith(".") for part in path.split("/")):
        return "it is hidden, and may hold what nobody else should have: name a file that may be seen"
    named = f", or name it under `datasets` in {FILE} with its sha256" if is_dataset else ""
    return f"git add {shlex.quote(path)}{named}"


def _at_dataset(problem: Diagnostic, evaluation: Evaluation) -> Diagnostic:
    """A file that cannot be opened is a problem of the line that names it."""
    return problem if problem.mark else replace(problem, mark=evaluation.places.mark("dataset", "path"))
