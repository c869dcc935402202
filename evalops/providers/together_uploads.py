"""A file that Together has already: fetched once, and looked through before any job over it is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

from evalops import semantics, sources
from evalops.datasets import dataset
from evalops.datasets.dataset import Row
from evalops.errors import Diagnostic, EvalopsError, Mark, has_errors
from evalops.project import Project
from evalops.providers import together_request as wire
from evalops.providers.together_files import Files
from evalops.spec import Evaluation

SHOWN = 10  # columns; the rest is "and more"


def confirm(project: Project, files: Files, evaluation: Evaluation) -> tuple[str, str]:
    """The id and sha256 of the file that a spec names, which has this content and the columns in use.

    Raises EvalopsError, at the spec's line, where it is another one or the service would refuse it.
    """
    ref, mark = evaluation.dataset, evaluation.places.mark
    file, checksum = ref.file_id or "", ref.sha256 or ""
    try:
        files.confirm(file, checksum)
        problems = _problems(project, evaluation)
    except EvalopsError as error:
        problems = list(error.diagnostics)
    if has_errors(problems):
        where = {"dataset/digest": mark("dataset", "sha256")}
        default = mark("dataset", "file_id")
        raise EvalopsError(
            *(replace(each, mark=each.mark or where.get(each.code, default)) for each in problems if each.is_error)
        )
    return file, checksum


def _problems(project: Project, evaluation: Evaluation) -> list[Diagnostic]:
    """What is wrong with the rows, or with their columns: the service takes no column that nothing uses."""
    use, source = sources.uses(evaluation), sources.of(project, evaluation)
    known = {*use.submitted, wire.IMAGES}
    surplus: dict[str, None] = {}

    def watched() -> Iterator[Row]:
        for row in source.read(use):
            if len(surplus) <= SHOWN:
                surplus.update((column, None) for column in row.source if column not in known)
            yield row

    file = evaluation.dataset.file_id or ""
    place = partial(semantics.place, evaluation)
    _, problems = dataset.check(
        watched(), replace(use, path=file), place, lambda row, _: Mark(source.path, row.line, 1)
    )
    return [_refused(file, list(surplus))] if surplus else problems


def _refused(file: str, columns: list[str]) -> Diagnostic:
    names = ", ".join(f"`{column}`" for column in columns[:SHOWN]) + (" and more" if len(columns) > SHOWN else "")
    return Diagnostic(
        code="together/surplus",
        message=f"the file `{file}` has columns that no template uses, which Together refuses: {names}",
        hint="use `path:` with a copy of the file in the project: evalops uploads only the columns in use",
    )
