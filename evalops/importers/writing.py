"""From files of another tool to specs and rows in a project: the only part of an import that reads and writes.

Everything is made and checked before the first file is written, and a spec that evalops would refuse is not: it becomes
a finding. Rows are written before the specs that name them.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from evalops import catalog, document, emit, endpoint, layout, semantics, spec
from evalops.datasets import dataset
from evalops.errors import Diagnostic, EvalopsError, Mark, Severity, has_errors
from evalops.importers import openai_evals, promptfoo
from evalops.importers.draft import Draft, Found, Part, free, gathered, no_equal
from evalops.importing import below_of, head, put
from evalops.project import Project, matching

LONGEST_NAME = 90  # characters; a number may follow
MOST_BYTES = 64 << 20  # of an export
MOST_ROWS = 512 << 20  # bytes of all files of rows


class Written(NamedTuple):
    """A spec file with that of its rows; `is_new` is false where both were there already, as they are."""

    spec: str
    specs: int
    dataset: str
    rows: int
    is_new: bool


class Done(NamedTuple):
    """What an import wrote, and what is to be said of it."""

    written: tuple[Written, ...]
    findings: tuple[Diagnostic, ...]


@dataclass(frozen=True, slots=True)
class _Folder:
    """The folder that a source may refer to: the project, or that of a file elsewhere."""

    project: Project

    def read(self, path: str, limit: int) -> bytes:
        return self.project.read(path, limit)

    def matching(self, glob: str) -> Sequence[str]:
        return matching(self.project.files(), [glob])


def bring(project: Project, tool: str, paths: Sequence[str], to: str, *, overwrite: bool) -> Done:
    """Writes the specs and rows that files of another tool become, into the folder `to`.

    Raises EvalopsError, and then nothing is written: where a source cannot be read, or where another file is in the
    way and `overwrite` is false.
    """
    below = below_of(project, to)
    found = _found(project, tool, paths)
    made = _made(project, below, found.drafts)
    findings = [*found.findings, *made.findings, *_taken_for_specs(project, below, found.sources)]
    new = _write(project, made.files, overwrite=overwrite)
    written = [each._replace(is_new=not new.isdisjoint((each.spec, each.dataset))) for each in made.written]
    return Done(tuple(written), tuple(gathered(findings)))


# --- what is read ---


def _found(project: Project, tool: str, paths: Sequence[str]) -> Found:
    located = [_located(project, path) for path in dict.fromkeys(paths)]
    if tool == "openai-evals":
        return openai_evals.found([(path, folder.read(path, MOST_BYTES)) for folder, path in located])
    each = [promptfoo.found(path, _Folder(folder)) for folder, path in located]
    return Found(
        tuple(draft for one in each for draft in one.drafts),
        tuple(finding for one in each for finding in one.findings),
        tuple(
            path for (folder, _), one in zip(located, each, strict=True) for path in one.sources if folder == project
        ),
    )


def _located(project: Project, path: str) -> tuple[Project, str]:
    """A file as typed in a shell: one of the project, or one in a folder of its own."""
    inside = project.relative(path)
    if not inside.startswith(("/", "../")) and (project.root / inside).exists():
        return project, inside
    typed = Path(os.path.normpath(Path(path).absolute()))
    if not typed.is_file():
        hint = "a path starts at the current folder, or at that of evalops.yaml"
        raise EvalopsError(Diagnostic(code="file/missing", message=f"there is no file `{path}`", hint=hint))
    return Project(typed.parent), typed.name


def _taken_for_specs(project: Project, below: str, sources: Iterable[str]) -> Iterator[Diagnostic]:
    """A source inside the project may match what its specs are looked for by."""
    globs = project.settings.specs
    for path in matching(sources, globs):
        folder = below or "evals/"
        yield Diagnostic(
            code="import/taken-for-a-spec",
            message=f"evalops takes `{path}` for a spec: `specs` in evalops.yaml is {', '.join(globs)}",
            hint=f"look for specs elsewhere, and import to there with --to {folder.rstrip('/')}:\n"
            f'  specs: ["{folder}**/*.yaml"]',
            severity=Severity.WARNING,
        )


# --- what is made of it ---


class _Made(NamedTuple):
    """Files by their paths, those of rows first."""

    files: Mapping[str, bytes]
    written: Sequence[Written]
    findings: Sequence[Diagnostic]


def _made(project: Project, below: str, drafts: Iterable[Draft]) -> _Made:
    elsewhere = _names(project)
    rows: dict[str, bytes] = {}
    specs: dict[str, bytes] = {}
    written: list[Written] = []
    findings: list[Diagnostic] = []
    used: set[str] = set()
    for draft in drafts:
        own_file = re.compile(rf"{re.escape(below + _cut(draft.name))}(-[0-9]+)?\.yaml")
        taken = used | {name.casefold() for name, path in elsewhere.items() if not own_file.fullmatch(path)}
        name = free(_cut(draft.name), taken, "-")
        data = "".join(_line(row) for row in draft.rows).encode("utf-8", "surrogatepass")
        path = _place(rows, f"{below}data/{_cut(draft.dataset)}", data)
        texts: list[str] = []
        for part in draft.parts:
            own = free(_cut(f"{name}-{part.name}") if part.name else name, taken, "-")
            try:
                text = _text(project, draft, part, own, path)
                findings += _check(project, f"{below}{name}.yaml", text, path, data, draft.mark)
            except EvalopsError as error:
                findings += (_refused(own, each, draft.mark) for each in error.diagnostics)
                continue
            taken.add(own)
            used.add(own)
            texts.append(text)
        if texts:
            used.add(name)
            rows[path] = data
            if sum(map(len, rows.values())) > MOST_ROWS:
                message = f"all rows together are more than the {MOST_ROWS >> 20} MiB that an import writes"
                raise EvalopsError(Diagnostic(code="import/too-many", message=message, mark=draft.mark))
            spec_path = f"{below}{name}.yaml"
            origin = f"From {draft.mark.path}, line {draft.mark.line}"
            specs[spec_path] = (head(project, below, origin) + "---\n".join(texts)).encode()
            written.append(Written(spec_path, len(texts), path, len(draft.rows), is_new=True))
    return _Made({**rows, **specs}, written, findings)


def _cut(name: str) -> str:
    return name[:LONGEST_NAME].rstrip("-._").casefold()


def _refused(name: str, problem: Diagnostic, mark: Mark) -> Diagnostic:
    return no_equal(f"`{name}` would be no valid spec and is left out: {problem.message}", mark, problem.hint)


def _names(project: Project) -> dict[str, str]:
    """The names that evaluations of the project have, with their specs."""
    evaluations, _ = catalog.evaluations_of(project, project.specs())
    return {each.name: each.spec for each in evaluations}


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def _place(known: Mapping[str, bytes], stem: str, data: bytes) -> str:
    """The path of rows: that of the same ones, else the first that is free."""
    same = next((path for path, each in known.items() if each == data), None)
    taken = {path.removesuffix(".jsonl").casefold() for path in known}
    return same or f"{free(stem, taken, '-')}.jsonl"


def _text(project: Project, draft: Draft, part: Part, name: str, path: str) -> str:
    """A document in our layout. Raises EvalopsError where it cannot be written."""
    local = {} if project.settings.provider == "local" else {"provider": "local"}
    value = {"version": 1, "name": name, **local, "dataset": {"path": path, "id": draft.id}, **part.fields}
    try:
        return layout.laid_out(emit.dump(value).encode("utf-8", "backslashreplace"), f"{name}.yaml")
    except RecursionError:
        raise EvalopsError(Diagnostic(code="import/too-deep", message="it is nested too deeply")) from None


def _check(project: Project, path: str, text: str, rows: str, data: bytes, origin: Mark) -> list[Diagnostic]:
    """What evalops.yaml lacks for a spec over these rows. Raises EvalopsError with all that is wrong with it."""
    documents, problems = document.parse(text.encode(), path)
    evaluations, more = spec.load(documents[0], project.settings, project.read_text) if documents else ([], [])
    problems = [*problems, *more]
    for each in evaluations:
        problems += semantics.check(each)
        use = dataset.uses(each, semantics.variables(each))
        problems += dataset.check(dataset.read(lambda: io.BytesIO(data), rows), use, lambda _: Mark(path, 1, 1))[1]
    if has_errors(problems):
        raise EvalopsError(*dict.fromkeys(each for each in problems if each.is_error))
    lacking = [problem for each in evaluations for problem in endpoint.check(each, project.settings)]
    # A key that evalops.yaml has to bind was named where its provider stands.
    lacking = [each for each in lacking if each.code != "spec/credential"]
    return [replace(each, code="import/model", mark=origin, severity=Severity.WARNING) for each in lacking]


# --- what is written ---


def _write(project: Project, files: Mapping[str, bytes], *, overwrite: bool) -> set[str]:
    """Writes the files that are not there already; their paths. Raises EvalopsError, and then there are none new."""
    present = {path: _present(project, path) for path in files}
    wanted = {path: data for path, data in files.items() if present[path] != data}
    in_the_way = [path for path in wanted if present[path] is not None]
    if in_the_way and not overwrite:
        names = ", ".join(f"`{path}`" for path in in_the_way[:5])
        more = f" and {len(in_the_way) - 5} more" if len(in_the_way) > 5 else ""
        raise EvalopsError(
            Diagnostic(
                code="import/exists",
                message=f"{names}{more} would be overwritten: nothing is imported",
                hint="--overwrite replaces what is there, --to DIR writes elsewhere",
            )
        )
    project.state.mkdir(exist_ok=True)
    made: list[str] = []
    with tempfile.TemporaryDirectory(dir=project.state, prefix="import-") as folder:
        staged = {path: Path(folder) / str(number) for number, path in enumerate(wanted)}
        try:
            for path, file in staged.items():
                file.write_bytes(wanted[path])
            for path, file in staged.items():
                if present[path] is None:
                    put(project, file, path)
                    made.append(path)
                else:
                    project.write(path, wanted[path])
        except BaseException:
            for path in made:
                (project.root / path).unlink(missing_ok=True)
            raise
    return set(wanted)


def _present(project: Project, path: str) -> bytes | None:
    """What is at a path of the project. Raises EvalopsError where that is no file of it."""
    if not os.path.lexists(project.root / path):
        return None
    return project.read(path, MOST_BYTES)
