"""Where rows come from: a file of the project, rows in a spec, a set by its name, or a file that a service has.

Everything that reads the rows of an evaluation does so through here. Nothing is asked of anybody: what a service has
is read from the copy that its provider keeps, and is known by its sha256 where there is none.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from evalops import benchmarks, schema, semantics
from evalops.datasets import dataset, formats, sampling
from evalops.datasets.dataset import Row, Uses
from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.fingerprint import Digests
from evalops.project import STATE, Project
from evalops.settings import NamedDataset, Settings
from evalops.spec import DatasetRef, Evaluation

KEPT = f"{STATE}/datasets"  # copies of files that a service has, by their sha256


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows, and what messages call them. `marks` are the places of rows that stand in a spec."""

    path: str
    open: Callable[[], BinaryIO]
    marks: tuple[Mark, ...] = ()
    place: dataset.Place | None = None

    def read(self, use: Uses, mark: Callable[[str], Mark] | None = None) -> Iterator[Row]:
        """The rows that `use` asks for, with the positions that they have in the whole dataset."""
        use = replace(use, path=self.path)
        return sampling.rows(lambda: dataset.read(self.open, self.path, use.columns, self.marks), use, mark)

    def scan(self, use: Uses, mark: Callable[[str], Mark], most: int | None = None) -> tuple[Digests, list[Diagnostic]]:
        """The digests of the rows, or of the first `most`, and what is wrong with them. See `dataset.check`."""
        rows = self.read(use if most is None else replace(use, sample=None), mark)
        return dataset.check(islice(rows, most), replace(use, path=self.path), mark, self.place)


def of(project: Project, evaluation: Evaluation) -> Source:
    """What an evaluation's rows are read from. Raises EvalopsError for a name that no set has."""
    ref = evaluation.dataset
    if ref.rows is not None:
        return _inline(evaluation)
    if ref.sha256 is not None:
        return _copy(project, ref)
    return find(project, ref.path, evaluation.places.mark("dataset", "path"))


def find(project: Project, text: str, mark: Mark | None = None) -> Source:
    """What a path or a name stands for. Raises EvalopsError, at `mark`, for a name that no set has."""
    settings = project.settings
    if text in settings.datasets:
        named = settings.datasets[text]
        return Source(path=named.path, open=lambda: _named(project, text, named))
    if not _is_name(text):
        return Source(path=text, open=lambda: project.open(text))
    if text in benchmarks.names():
        return Source(path=f"{text}.jsonl", open=lambda: benchmarks.open(text))
    raise EvalopsError(
        Diagnostic(
            code="dataset/unknown-name",
            message=f"`{text}` is neither the name of a set nor a file of the formats {', '.join(formats.SUFFIXES)}",
            mark=mark,
            hint=schema.nearest(text, names(settings)) or "evalops dataset list shows the names",
        )
    )


def names(settings: Settings) -> list[str]:
    """The names of all sets: those of the project, then those that ship."""
    return [*settings.datasets, *benchmarks.names()]


def rows(project: Project, evaluation: Evaluation) -> Iterator[tuple[str, Row]]:
    """An evaluation's rows with their keys, at positions from 0 on."""
    use = uses(evaluation)
    found = of(project, evaluation).read(use)
    if use.sample is not None:
        found = (row._replace(position=position) for position, row in enumerate(found))
    return dataset.keys(found, use)


def uses(evaluation: Evaluation) -> Uses:
    """What an evaluation reads of its dataset."""
    return dataset.uses(evaluation, semantics.variables(evaluation))


def files(ref: DatasetRef, settings: Settings) -> set[str]:
    """The files of the project that a dataset is read from, beside the spec and the settings."""
    named = settings.datasets.get(ref.path)
    if named is not None:
        return {named.path}
    return set() if ref.rows is not None or ref.sha256 is not None or _is_name(ref.path) else {ref.path}


def check(settings: Settings) -> list[Diagnostic]:
    """What is wrong with the names of a project's sets."""
    problems = []
    for name in settings.datasets:
        if not _is_name(name):
            why, hint = "looks like a file", f"leave out `{PurePosixPath(name).suffix}`"
        elif name in benchmarks.names():
            why, hint = "is the name of a set that ships with evalops", "a name means one content: choose another one"
        else:
            continue
        mark = settings.mark("datasets", name)
        problems.append(Diagnostic(code="dataset/name", message=f"`{name}` {why}", mark=mark, hint=hint))
    return problems


def kept(project: Project, digest: str) -> str | None:
    """The path of the copy of a service's file, None where there is none here, or the digest is none."""
    if not digest.isalnum():
        return None
    paths = (f"{KEPT}/{digest}{suffix}" for suffix in formats.SUFFIXES)
    return next((path for path in paths if (project.root / path).is_file()), None)


def sha256_of(stream: BinaryIO) -> str:
    """The digest of a file, from where it stands on."""
    return hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]


def format_of(path: Path) -> str:
    """What a file is by its first bytes, as a suffix, whatever it is called."""
    with path.open("rb") as stream:
        head = stream.read(1 << 12)
    if head.startswith(b"PAR1"):
        return ".parquet"
    return ".jsonl" if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith((b"{", b"[")) else ".csv"


def _is_name(text: str) -> bool:
    """Whether this is a name rather than a path: there is neither folder nor format in it."""
    return "/" not in text and PurePosixPath(text).suffix.lower() not in formats.SUFFIXES


def _inline(evaluation: Evaluation) -> Source:
    """Rows in a spec are read as the lines of a JSONL file are."""
    rows, mark = evaluation.dataset.rows or (), evaluation.places.mark
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    marks = tuple(mark("dataset", "rows", position) for position in range(len(rows)))

    def place(row: Row, column: str | None) -> Mark:
        theirs = evaluation.dataset.columns.get(column or "", column)
        route = ("dataset", "rows", row.position)
        return mark(*route) if theirs is None else mark(*route, theirs)

    return Source(path=dataset.shown(evaluation.dataset), open=partial(io.BytesIO, data), marks=marks, place=place)


def _copy(project: Project, ref: DatasetRef) -> Source:
    """A file that a service has, as far as it was fetched."""
    digest = ref.sha256 or ""
    path = kept(project, digest)

    def opened() -> BinaryIO:
        if path is None:
            raise EvalopsError(
                Diagnostic(
                    code="dataset/not-here",
                    message=f"the rows of the file `{ref.file_id}` are not on this machine",
                    hint="evalops apply fetches them",
                )
            )
        return _checked(project.open(path), path, digest, None)

    return Source(path=path or f"{KEPT}/{digest}.jsonl", open=opened)


def _named(project: Project, name: str, named: NamedDataset) -> BinaryIO:
    """The file of a set of the project. Its problems are those of the line in evalops.yaml."""
    mark = project.settings.mark
    try:
        stream = project.open(named.path)
    except EvalopsError as error:
        where = mark("datasets", name, "path")
        raise EvalopsError(*(replace(each, mark=each.mark or where) for each in error.diagnostics)) from None
    if named.sha256 is None:
        return stream
    return _checked(stream, named.path, named.sha256, mark("datasets", name, "sha256"))


def _checked(stream: BinaryIO, path: str, digest: str, mark: Mark | None) -> BinaryIO:
    """A file of which every byte was read once: nothing of one that is not the right one is ever used."""
    found = sha256_of(stream)
    if found != digest:
        stream.close()
        raise EvalopsError(
            Diagnostic(
                code="dataset/digest",
                message=f"the file `{path}` has the sha256 {found}, and {digest} is asked for",
                mark=mark,
                hint="restore it, or give the new content a name of its own" if mark else f"remove {path}",
            )
        )
    stream.seek(0)
    return stream
