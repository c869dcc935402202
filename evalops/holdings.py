"""The datasets that a project has or may name, and what is in one of them, as machine forms."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from evalops import benchmarks, emit, remote, sources, verdicts
from evalops.datasets import dataset, formats, sketch
from evalops.datasets.survey import Survey, survey
from evalops.errors import Diagnostic, EvalopsError
from evalops.plan import Wanted
from evalops.project import Project
from evalops.settings import Settings
from evalops.sources import Source
from evalops.spec import DatasetRef

FORMAT = 1


def listed(project: Project, wanted: Iterable[Wanted]) -> list[dict[str, Any]]:
    """Every dataset that the specs use, the project's files and sets, and the sets that ship; `rows` where known."""
    found = {each["path"]: each for each in _known(project)}
    for evaluation, identity in wanted:
        name, kind = _name(evaluation.spec, evaluation.dataset)
        each = found.setdefault(name, _item(name, kind))
        each["addresses"].append(evaluation.address)
        if evaluation.dataset.sample is None:
            each["rows"] = identity.digests.rows
    order = ("file", "rows", "upload", "project", "shipped")
    return sorted(found.values(), key=lambda each: (order.index(each["kind"]), each["path"]))


def shown(project: Project, text: str) -> dict[str, Any]:
    """What is in a file of the project or in a set. Raises EvalopsError where there is no such thing."""
    settings = project.settings
    source = sources.find(project, text)
    about = _about(text, settings)
    found = survey(dataset.read(source.open, source.path))
    if text in benchmarks.names() and text not in settings.datasets:
        spec = sketch.of_set(text, benchmarks.entry(text))
    else:
        name = PurePosixPath(text).stem if about["kind"] == "file" else text
        spec = sketch.of_columns(name, text, found)
    return _value(text, about, _digest(source), found, spec)


def shown_remote(project: Project, file: str) -> dict[str, Any]:
    """What is in a file that the service has; it is fetched to be looked at. Raises EvalopsError."""
    project.state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=project.state, prefix="show-") as folder, remote.opened(project) as (_, there):
        about = there.file(file)
        if about is None:
            raise EvalopsError(
                Diagnostic(
                    code="dataset/no-file",
                    message=f"the service has no file `{file}`",
                    hint="evalops dataset list --remote lists the files that are there",
                )
            )
        path = Path(folder) / "rows"
        there.fetch(file, path)
        suffix = sources.format_of(path)
        source = Source(path=f"{file}{suffix}", open=lambda: path.open("rb"))
        found, digest = survey(dataset.read(source.open, source.path)), _digest(source)
        spec = sketch.of_upload(Path(about.name).stem, file, digest, found)
        return _value(file, {"kind": "upload", "description": about.name, "licence": None}, digest, found, spec)


def _known(project: Project) -> Iterator[dict[str, Any]]:
    settings = project.settings
    for path in project.files():
        is_ours = path.endswith(verdicts.SUFFIX)
        if PurePosixPath(path).suffix.lower() in formats.SUFFIXES and not is_ours:
            yield _item(path, "file")
    for name, named in settings.datasets.items():
        yield _item(name, "project", named.description or named.path)
    for name in benchmarks.names():
        entry = benchmarks.entry(name)
        yield {**_item(name, "shipped", entry.description), "rows": entry.rows}


def _item(path: str, kind: str, description: str = "") -> dict[str, Any]:
    return {"path": path, "kind": kind, "rows": None, "addresses": [], "description": description}


def _name(spec: str, ref: DatasetRef) -> tuple[str, str]:
    """What a dataset is listed as, and its kind."""
    if ref.rows is not None:
        return spec, "rows"
    return (ref.path, "file") if ref.file_id is None else (ref.file_id, "upload")


def _about(text: str, settings: Settings) -> dict[str, Any]:
    if text in settings.datasets:
        named = settings.datasets[text]
        return {"kind": "project", "description": named.description, "licence": named.licence}
    if text in benchmarks.names():
        entry = benchmarks.entry(text)
        return {"kind": "shipped", "description": entry.description, "licence": entry.licence}
    return {"kind": "file", "description": "", "licence": None}


def _digest(source: Source) -> str:
    with source.open() as stream:
        return sources.sha256_of(stream)


def _value(path: str, about: Mapping[str, Any], digest: str, found: Survey, spec: Mapping[str, Any]) -> dict[str, Any]:
    columns = [asdict(each) for each in found.columns]
    for each in columns:
        each["lengths"] = each["lengths"] and each["lengths"]._asdict()
        each["numbers"] = each["numbers"] and dict(zip(("least", "most"), each["numbers"], strict=True))
    return {
        "format_version": FORMAT,
        "path": path,
        **about,
        "sha256": digest,
        "rows": found.rows,
        "repeated_rows": found.repeated,
        "columns": columns,
        "more_columns": found.more,
        "first_rows": [dict(row) for row in found.first],
        "spec": emit.dump(spec),
    }
