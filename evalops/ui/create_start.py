"""The spec that the form begins with: what the columns of a dataset suggest for each type, under a free name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from evalops import catalog, remote, sources
from evalops.datasets import dataset, sketch
from evalops.datasets.survey import Column, Survey, survey
from evalops.project import Project, matching
from evalops.providers import together_models
from evalops.spec import Type

MOST_ROWS = 2000  # that are looked at
_SIDES = re.compile(r"(?i)(response|answer|reply|output|completion|translation|summary)|(?:^|_)(a|b|1|2)$")
_CHOICES = {"A", "B", "Tie"}


def of_dataset(project: Project, path: str, type_: Type) -> dict[str, Any]:
    """A spec over a file or set of the project. Raises EvalopsError where it cannot be read."""
    source = sources.find(project, path)
    found = survey(islice(dataset.read(source.open, source.path), MOST_ROWS))
    name = PurePosixPath(path).stem if path.endswith((".jsonl", ".csv", ".parquet")) else path
    return _named(project, _typed(sketch.of_columns(name, path, found), type_, found))


def of_upload(project: Project, file: str, digest: str, type_: Type) -> dict[str, Any]:
    """A spec over a file that Together has, of which a copy is here. Raises EvalopsError."""
    path = sources.kept(project, digest) or f"{sources.KEPT}/{digest}.jsonl"
    found = survey(islice(dataset.read(lambda: project.open(path), path), MOST_ROWS))
    return _named(project, _typed(sketch.of_upload(file, file, digest, found), type_, found))


def _named(project: Project, spec: dict[str, Any]) -> dict[str, Any]:
    """The spec under a free name, with a model that its provider has: what runs on this machine is not at Together."""
    found = {**spec, "name": free_name(project, str(spec["name"]))}
    if spec.get("provider", project.settings.provider) == remote.SERVICE:
        found["judge"] = {**spec["judge"], "model": sorted(together_models.shipped().serverless)[0]}
    return found


def free_name(project: Project, name: str) -> str:
    """The name, or the first like it that no evaluation and no file of a spec has."""
    found, _ = catalog.evaluations_of(project, project.specs())
    taken = {each.name for each in found} | {PurePosixPath(each).stem for each in project.specs()}
    names = (name if number == 1 else f"{name[:95]}-{number}" for number in range(1, len(taken) + 2))
    return next(each for each in names if each not in taken)


def place(project: Project, name: str) -> str:
    """Where a spec of that name goes: into the first folder that evalops looks for specs in."""
    globs = project.settings.specs
    folders = ["", *(each[: each.find("*")].rpartition("/")[0] + "/" for each in globs if "*" in each)]
    return next((f"{each}{name}.yaml" for each in folders if matching([f"{each}{name}.yaml"], globs)), f"{name}.yaml")


def _typed(spec: dict[str, Any], type_: Type, found: Survey) -> dict[str, Any]:
    """What is suggested for a type, from what is for classify."""
    match type_:
        case Type.SCORE:
            return _as_score(spec, found)
        case Type.COMPARE:
            return _as_compare(spec, found)
    return spec


def _as_score(spec: dict[str, Any], found: Survey) -> dict[str, Any]:
    kept = {key: value for key, value in spec.items() if key not in ("labels", "pass_labels", "gold")}
    kept |= {"type": "score", "judge": _asking(spec, "Say how good this is, from 1 (bad) to 5 (very good).")}
    kept |= {"min_score": 1, "max_score": 5, "pass_threshold": 4}
    truth = next((each.name for each in found.columns if _is_grade(each)), None)
    return {**kept, "gold": truth} if truth else kept


def _as_compare(spec: dict[str, Any], found: Survey) -> dict[str, Any]:
    drop = ("labels", "pass_labels", "gold", "model_to_evaluate")
    kept = {key: value for key, value in spec.items() if key not in drop}
    names = {theirs: ours for ours, theirs in _renamed(spec).items()}
    pair = [names.get(each, each) for each in _pair(spec, found)]
    lines = [f"{each}: {{{{ {each} }}}}" for each in _shown(spec) if each not in pair]
    judge = {**spec["judge"], "system_template": "\n".join(["Say which response is better.", "", *lines]) + "\n"}
    kept |= {"type": "compare", "judge": judge}
    kept |= dict(zip(("model_a", "model_b"), pair, strict=False))
    truth = next((each.name for each in found.columns if each.values and set(each.values) <= _CHOICES), None)
    return {**kept, "gold": truth} if truth else kept


def _pair(spec: dict[str, Any], found: Survey) -> list[str]:
    """The two columns that look most like responses."""
    key = spec["dataset"].get("id") if isinstance(spec["dataset"], dict) else None
    texts = [each.name for each in found.columns if set(each.types) == {"text"} and not each.values]
    texts = [each for each in texts if each != key]
    sides = [each for each in texts if _SIDES.search(each)]
    if len(sides) == 1:
        return texts[texts.index(sides[0]) :][:2] if sides[0] != texts[-1] else texts[-2:]
    return (sides or texts)[-2:]


def _asking(spec: dict[str, Any], question: str) -> dict[str, Any]:
    """The judge with another first line of its template."""
    rest = str(spec["judge"]["system_template"]).partition("\n")[2]
    return {**spec["judge"], "system_template": f"{question}\n{rest}"}


def _shown(spec: dict[str, Any]) -> Sequence[str]:
    return re.findall(r"\{\{ (\w+) \}\}", str(spec["judge"]["system_template"]))


def _renamed(spec: dict[str, Any]) -> dict[str, str]:
    value = spec["dataset"]
    return dict(value.get("columns", {})) if isinstance(value, dict) else {}


def _is_grade(column: Column) -> bool:
    is_within = column.numbers is not None and column.numbers[0] >= 1 and column.numbers[1] <= 5
    return set(column.types) == {"number"} and is_within and column.name.lower() not in ("id", "key")
