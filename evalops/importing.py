"""Jobs that were made elsewhere become specs: the parameters, the rows, and the result in a lockfile.

Nothing is ever asked to run: a plan is made that can do no more than adopt the one job, and apply carries it out. The
spec is put in its place last, so that a kill leaves no spec behind whose work would seem to be still to do.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from evalops import apply, catalog, document, emit, endpoint, fingerprint, plan, planning, semantics, spec, verdicts
from evalops.datasets import dataset
from evalops.errors import Diagnostic, EvalopsError, Severity, has_errors
from evalops.journal import Journal
from evalops.lock import Status, beside
from evalops.once import Once
from evalops.plan import Action, Known, Plan, Wanted
from evalops.project import Project, matching
from evalops.providers import together_request as wire
from evalops.providers.base import Inventory, Job, Provider
from evalops.remote import MOST_JOBS, gone, holders, opened

SUFFIXES = {"jsonl": ".jsonl", "csv": ".csv"}
MOST_NAMES = 1000  # that are tried for one job
SCHEMA = "schemas/spec-v1.json"
_MODELS = ("judge", "model_to_evaluate", "model_a", "model_b")
_KNOWN = {
    "input_data_file_path", "labels", "pass_labels", "min_score", "max_score", "pass_threshold",
    "disable_position_bias_correction", *_MODELS,
}  # fmt: skip
_KNOWN_OF_MODEL = {
    "model", "model_source", "system_template", "input_template", "external_base_url", "external_api_token",
    "max_tokens", "temperature", "num_workers",
}  # fmt: skip


class Imported(NamedTuple):
    """What became of a job. `notes` are warnings: what evalops.yaml lacks, what a spec cannot say."""

    job: str
    address: str
    spec: str
    dataset: str
    status: Status
    notes: tuple[Diagnostic, ...]
    interrupted: bool


class _Place(NamedTuple):
    """Where an import goes, as paths from the project folder, none of which is there yet."""

    name: str
    spec: str
    dataset: str

    @property
    def files(self) -> tuple[str, ...]:
        lock = beside(self.spec)
        return self.spec, self.dataset, lock, verdicts.beside(lock)


def jobs(inventory: Inventory, ids: Sequence[str]) -> Iterator[Job | Diagnostic]:
    """The jobs with these ids, in their order, each once; a problem in place of one that is not there."""
    for id_ in dict.fromkeys(ids):
        yield inventory.job(id_) or gone(id_)


def listed(inventory: Inventory) -> list[Job]:
    """Every job that the service lists, the oldest first."""
    return list(reversed(inventory.jobs(limit=MOST_JOBS)))


@dataclass(slots=True)
class Import:
    """Imports into a folder of the project: `below` is "" or ends in a slash; `taken` are names that are in use."""

    project: Project
    provider: Provider
    inventory: Inventory
    once: Once
    below: str
    taken: set[str]

    def take(self, job: Job) -> Imported:
        """Writes the spec, the rows and the lock entry of a job. Raises EvalopsError, and then nothing is left."""
        parameters = (job.told or {}).get("parameters")
        told = {**(job.told or {}), "workflow_id": job.id}
        found = wire.spec_of(told)  # raises where the job says nothing
        assert isinstance(parameters, dict)
        file = self._file(job, parameters)
        place = self._free(found["name"], SUFFIXES[file.kind])
        value, notes = self._bound({**wire.spec_of(told, place.dataset), "name": place.name}, job)
        try:
            origin = f"Job {job.id} at Together, made {job.created_at}"
            text = head(self.project, self.below, origin) + emit.dump(value)
        except RecursionError:
            raise _skipped(job, "its parameters are nested too deeply") from None
        self.project.state.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.project.state, prefix="import-") as folder:
            rows, written = Path(folder) / "rows", Path(folder) / "spec"
            self.inventory.fetch(file.id, rows)
            wanted = self._read(text, place, rows, job)
            self._compare(wanted, parameters, job)
            put(self.project, rows, place.dataset)
            with self._undone(place):
                applied = self._adopt(wanted, job)
                written.write_text(text, encoding="utf-8")
                put(self.project, written, place.spec)
        self.taken.add(place.name)
        return Imported(
            job=job.id,
            address=place.name,
            spec=place.spec,
            dataset=place.dataset,
            status=applied.entries[place.name].status,
            notes=(*notes, *_unsaid(parameters, job)),
            interrupted=applied.interrupted,
        )

    # --- the rows ---

    def _file(self, job: Job, parameters: Mapping[str, Any]) -> Any:
        id_ = parameters.get("input_data_file_path")
        file = self.inventory.file(id_) if isinstance(id_, str) else None
        if file is None:
            raise _skipped(job, "its dataset is no longer at the service")
        kind = file.kind or Path(file.name).suffix.lower().removeprefix(".")
        if kind not in SUFFIXES:
            raise _skipped(job, f"its dataset is a {kind or 'file of an unknown format'}, not jsonl or csv")
        return file._replace(kind=kind)

    # --- where it goes ---

    def _free(self, name: str, suffix: str) -> _Place:
        """The first name that no evaluation and no file has."""
        for number in range(1, MOST_NAMES):
            found = name if number == 1 else f"{name}-{number}"
            place = _Place(found, f"{self.below}{found}.yaml", f"{self.below}data/{found}{suffix}")
            if found not in self.taken and not any(os.path.lexists(self.project.root / each) for each in place.files):
                return place
        raise EvalopsError(Diagnostic(code="import/exists", message=f"every name like `{name}` is in use"))

    @contextmanager
    def _undone(self, place: _Place) -> Iterator[None]:
        """Takes away the rows and the lock where the spec does not follow them."""
        try:
            yield
        except BaseException:
            for path in place.files[1:]:
                (self.project.root / path).unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                (self.project.root / place.dataset).parent.rmdir()  # only if nothing else is in it
            raise

    # --- the spec ---

    def _bound(self, value: Mapping[str, Any], job: Job) -> tuple[dict[str, Any], list[Diagnostic]]:
        """The spec with a credential for each external model, and what evalops.yaml has to bind."""
        found, notes = dict(value), []
        for key in _MODELS:
            model = value.get(key)
            if isinstance(model, dict) and model.get("model_source") == "external":
                name, note = self._credential(model, job)
                found[key] = {**model, "credential": name}
                notes += [note] if note else []
        return found, list(dict.fromkeys(notes))

    def _credential(self, model: Mapping[str, Any], job: Job) -> tuple[str, Diagnostic | None]:
        vendor = next((each for each in wire.SHORTCUTS if str(model.get("model")).startswith(each)), None)
        url = model.get("external_base_url") or (vendor and endpoint.VENDORS[vendor].base_url)
        if not isinstance(url, str) or endpoint.refusal(url):
            # The URL may hold a password: it is not shown.
            raise _skipped(job, "it calls a model at an address that evalops does not allow")
        needed = (endpoint.origin(url), self.provider.origin or "")
        credentials = self.project.settings.credentials
        for name, each in credentials.items():
            if set(needed) <= set(each.origins):
                return name, None
        known = next((key for key, each in endpoint.VENDORS.items() if endpoint.origin(each.base_url) == needed[0]), "")
        host = (urlsplit(url).hostname or "").replace(":", "-").replace(".", "-").strip("-")
        name = _unused(known.rstrip("/") or host or "external", credentials)
        binding = endpoint.VENDORS[known].credential if known else None
        env = binding.env if binding else f"{name.upper().replace('-', '_').replace('.', '_')}_API_KEY"
        env = env if env[0].isalpha() else f"KEY_{env}"
        origins = ", ".join(dict.fromkeys(needed))
        return name, Diagnostic(
            code="import/credential",
            message=f"the credential `{name}` is not in evalops.yaml yet: Together calls {needed[0]} with your key",
            hint=f"add it there, and plan can go on:\n  credentials:\n    {name}: {{env: {env}, origins: [{origins}]}}",
            severity=Severity.WARNING,
        )

    def _read(self, text: str, place: _Place, rows: Path, job: Job) -> Wanted:
        """The evaluation in a spec's text over the rows in a file. Raises EvalopsError with all that is wrong."""
        documents, problems = document.parse(text.encode("utf-8", "surrogatepass"), place.spec)
        evaluations, more = (
            spec.load(documents[0], self.project.settings, self.project.read_text) if documents else ([], [])
        )
        problems += more
        if has_errors(problems) or len(evaluations) != 1:
            raise _inexpressible(job, problems)
        evaluation = evaluations[0]
        found = semantics.check(evaluation) + self.provider.check(evaluation)
        # A key that evalops.yaml does not bind yet is told apart, and is not needed to collect a result.
        found = [each for each in found if each.code != "provider/credential"]
        use = dataset.uses(evaluation, semantics.variables(evaluation))
        try:
            digests, more = dataset.scan(lambda: rows.open("rb"), use, lambda name: semantics.place(evaluation, name))
        except EvalopsError as error:
            raise _inexpressible(job, error.diagnostics) from None
        if has_errors(found := found + more):
            raise _inexpressible(job, found)
        provider = self.provider
        identity = fingerprint.identify(evaluation, provider.endpoints(evaluation), digests, provider.pins(evaluation))
        return Wanted(evaluation, identity)

    def _compare(self, wanted: Wanted, parameters: Mapping[str, Any], job: Job) -> None:
        """Makes sure, by value, that the spec asks for what the job did."""
        evaluation = wanted.evaluation
        sent = wire.body(evaluation, wire.parameters(evaluation, str(parameters["input_data_file_path"]), {}))
        told = {"type": (job.told or {}).get("type"), "parameters": parameters}
        if not wire.same_work(sent, told):
            raise _skipped(job, "a spec cannot say all that it was asked to do")

    # --- the lock entry ---

    def _adopt(self, wanted: Wanted, job: Job) -> apply.Applied:
        """What apply does with a job that is there. Raises EvalopsError where its result cannot be used."""
        fingerprint_ = wanted.identity.fingerprint
        made = plan.build([wanted], {}, [Known(fingerprint_, 1, job.id)], forget=False)
        (change,) = made.changes
        assert change.action is Action.ADOPT and change.job == job.id, "an import never makes a job"
        providers = {self.provider.name: self.provider}
        # A job under way stays so, and apply collects it another day.
        applied = apply.carry_out(
            self.project, Plan(changes=(change,)), {}, providers, lambda address, event: None, self.once, patience=0.0
        )
        problems = [each for each in applied.diagnostics if each.is_error]
        if problems or wanted.evaluation.address not in applied.entries:
            raise EvalopsError(*(replace(each, address=None, mark=None) for each in problems), *_lost(job, problems))
        return applied


def modeline(project: Project, path: str) -> str:
    """The line by which an editor finds the schema of a spec at `path`, or below it; nothing where there is none."""
    if not (project.root / SCHEMA).is_file():
        return ""
    return f"# yaml-language-server: $schema={'../' * path.count('/')}{SCHEMA}\n"


def head(project: Project, below: str, origin: str) -> str:
    """The comments above an imported spec in the folder `below`; one line tells where it is from."""
    return f"{modeline(project, below)}# {' '.join(origin.split())}\n"


def put(project: Project, source: Path, path: str) -> None:
    """Moves a file into a project, where nothing may be in its way and no link leads elsewhere. Raises EvalopsError."""
    target = project.root / path
    for folder in reversed(Path(path).parents[:-1]):
        if (project.root / folder).is_symlink():
            raise EvalopsError(_unwritable(str(folder), "it is a symbolic link"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        source.chmod(0o644)
        with source.open("rb") as stream:
            os.fsync(stream.fileno())
        try:
            target.hardlink_to(source)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            with target.open("xb"):
                source.replace(target)
    except OSError as error:
        raise EvalopsError(_unwritable(path, (error.strerror or str(error)).lower())) from None


@contextmanager
def begun(project: Project, to: str) -> Iterator[tuple[Import, dict[str, str]]]:
    """An import into the folder `to` under the apply lock; and the jobs that the project has already, with their place.

    Raises EvalopsError where another holds the lock, the service cannot be asked, or no spec would be found there.
    """
    with (
        project.apply_lock(),
        opened(project) as (provider, inventory),
        Journal.open(project.state / planning.JOURNAL) as journal,
    ):
        once = Once(journal=journal, providers={provider.name: provider}, claimed=set())
        yield start(project, provider, inventory, once, to), held(project, once)


def start(project: Project, provider: Provider, inventory: Inventory, once: Once, to: str) -> Import:
    """Imports into the folder `to` of a project. Raises EvalopsError where no spec would be found there."""
    below = below_of(project, to)
    taken = {each.evaluation.name for each in catalog.read(project).wanted}
    taken |= {entry.address for lock in project.locks()[0].values() for entry in lock.entries.values()}
    return Import(project, provider, inventory, once, below, taken)


def held(project: Project, once: Once) -> dict[str, str]:
    """The jobs that this project has already, by id, with who has them."""
    found = {job: f"an earlier apply of `{address}`" for address, job in _paid(once)}
    return found | {job: ", ".join(f"`{each}`" for each in addresses) for job, addresses in holders(project).items()}


def _paid(once: Once) -> Iterator[tuple[str, str]]:
    for intent in once.journal.intents.values():
        if intent.job:
            yield intent.address, intent.job


def below_of(project: Project, to: str) -> str:
    """A folder of a project as the beginning of paths. Raises EvalopsError where no spec would be found in it."""
    below, globs = _below(to), project.settings.specs
    if not matching([f"{below}name.yaml"], globs):
        raise EvalopsError(
            Diagnostic(
                code="import/folder",
                message=f"`specs` in evalops.yaml does not look for specs in `{below or './'}`",
                hint=f"choose a folder with --to; specs are {', '.join(f'`{each}`' for each in globs)}",
            )
        )
    return below


def _below(to: str) -> str:
    parts = [part for part in to.split("/") if part not in ("", ".")]
    if to.startswith("/") or any(part == ".." or part.startswith(".") or "\\" in part for part in parts):
        raise EvalopsError(
            Diagnostic(code="import/folder", message=f"`{to}` is no folder inside the project that specs are read from")
        )
    return "".join(f"{part}/" for part in parts)


def _unused(name: str, taken: Iterable[str]) -> str:
    known = set(taken)
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(known) + 2))
    return next(each for each in names if each not in known)


def _unsaid(parameters: Mapping[str, Any], job: Job) -> list[Diagnostic]:
    """What a job says beside what a spec can: of a newer service, for instance."""
    names = [name for name, value in parameters.items() if name not in _KNOWN and value is not None]
    for key in _MODELS:
        model = parameters.get(key)
        if isinstance(model, dict):
            names += [f"{key}.{name}" for name in model if name not in _KNOWN_OF_MODEL and model[name] is not None]
    if not names:
        return []
    listed_ = ", ".join(f"`{name}`" for name in names[:5])
    return [
        Diagnostic(
            code="import/unknown-field",
            message=f"the job `{job.id}` also says {listed_}, which a spec cannot: it is left out",
            severity=Severity.WARNING,
        )
    ]


def _skipped(job: Job, why: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code="import/skipped", message=f"the job `{job.id}` is left out: {why}"))


def _inexpressible(job: Job, problems: Iterable[Diagnostic]) -> EvalopsError:
    """The problems of a spec that was never written: without the place in it."""
    what = [each for each in problems if each.is_error]
    found = [replace(each, message=f"the job `{job.id}` is left out: {each.message}", mark=None) for each in what]
    return EvalopsError(*found) if found else _skipped(job, "it cannot be written as one spec")


def _lost(job: Job, problems: Sequence[Diagnostic]) -> list[Diagnostic]:
    why = "its result does not fit its dataset" if problems else "its result could not be collected"
    return list(_skipped(job, why).diagnostics)


def _unwritable(path: str, why: str) -> Diagnostic:
    return Diagnostic(code="file/write", message=f"`{path}` could not be written: {why}")
