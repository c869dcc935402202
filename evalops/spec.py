"""From a document to evaluations: defaults, the matrix, names from evalops.yaml, templates from files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from evalops import matrix, schema
from evalops.document import Document, KeyPath
from evalops.errors import Diagnostic, EvalopsError, Mark, has_errors
from evalops.settings import Settings

ReadText = Callable[[str], str]  # a path in the project -> its text; raises EvalopsError


class Type(StrEnum):
    CLASSIFY = "classify"
    SCORE = "score"
    COMPARE = "compare"


class Layer(NamedTuple):
    """What stands below the route `at` of a value was written below `source` of `document`."""

    at: KeyPath
    document: Document
    source: KeyPath


@dataclass(frozen=True, slots=True)
class Places:
    """Where each value of an evaluation was written: its spec, the matrix, or evalops.yaml."""

    layers: tuple[Layer, ...]

    def mark(self, *route: str | int) -> Mark:
        """The place of the value at a route, or of its nearest known ancestor."""
        layer = self._layer(route)
        return layer.document.mark(*layer.source, *route[len(layer.at) :])

    def line(self, route: KeyPath, number: int, text: str, column: int) -> Mark:
        """The place of a column (from 1) of line `number` (from 1) of the text at a route; `text` is that line."""
        layer = self._layer(route)
        document = layer.document
        line = document.content_line((*layer.source, *route[len(layer.at) :]), number)
        before = document.lines[line - 1].find(text)  # indented, or in quotes; -1 where it is folded or escaped
        return Mark(document.path, line, before + column if before >= 0 else 1)

    def _layer(self, route: KeyPath) -> Layer:
        return next(each for each in reversed(self.layers) if route[: len(each.at)] == each.at)


@dataclass(frozen=True, slots=True)
class Text:
    """A template as written, with the file it came from, if any, and its route in the spec."""

    source: str
    route: KeyPath
    file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model as a spec names it; `endpoint.resolve` says where it is served."""

    model: str
    route: KeyPath
    model_source: str | None = None
    external_base_url: str | None = None
    credential: str | None = None
    system_template: Text | None = None
    input_template: Text | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    num_workers: int | None = None


class Column(str):
    """The name of a dataset column that holds the responses."""

    __slots__ = ()


Candidate = Column | Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who gives the verdicts: a model with its template, or a column of recorded verdicts."""

    column: str | None = None
    model: Model | None = None
    template: Text | None = None
    likelihood: bool = False
    reason: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """The file with the rows, the column that names a row, and new names for columns (ours -> the file's)."""

    path: str
    id: str | None = None
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A bound on a metric; `on` is estimate, lower or upper."""

    metric: str
    min: float | None = None
    max: float | None = None
    on: str = "estimate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One unit of work. `candidates` holds none or one response for classify and score, two for compare."""

    address: str
    name: str
    spec: str
    type: Type
    provider: str
    dataset: DatasetRef
    judge: Judge
    candidates: tuple[Candidate, ...]
    places: Places
    description: str = ""
    tags: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    pass_labels: tuple[str, ...] = ()
    min_score: float | None = None
    max_score: float | None = None
    pass_threshold: float | None = None
    both_orders: bool = True
    gold: str | None = None
    thresholds: tuple[Threshold, ...] = ()

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model that is called, the candidates first."""
        candidates = [each for each in self.candidates if isinstance(each, Model)]
        return (*candidates, self.judge.model) if self.judge.model else tuple(candidates)

    @property
    def response_columns(self) -> tuple[str, ...]:
        """The columns that hold responses."""
        return tuple(str(each) for each in self.candidates if isinstance(each, Column))

    @property
    def texts(self) -> tuple[Text, ...]:
        """Every template."""
        found = (text for model in self.models for text in (model.system_template, model.input_template))
        return tuple(text for text in found if text is not None)


def load(document: Document, settings: Settings, read_text: ReadText) -> tuple[list[Evaluation], list[Diagnostic]]:
    """The evaluations of one document, and what is wrong with it; with errors, no evaluation."""
    value, layers = _with_defaults(document, settings)
    problems = schema.check(value, Places(tuple(layers)), "spec")
    if isinstance(value, dict) and "matrix" in value:
        # What is missing may come from the matrix: each of its evaluations is checked for that below.
        problems = [each for each in problems if each.code != "schema/missing-key"]
    if has_errors(problems):
        return [], problems
    cells = matrix.expand(value)
    if isinstance(cells, matrix.Problem):
        mark = document.mark(*cells.route)
        return [], [Diagnostic(code=cells.code, message=cells.message, mark=mark, hint=cells.hint)]
    evaluations = []
    for cell in cells:
        moved = [Layer(at, document, source) for at, source in cell.sources.items()]
        places = Places((*layers, *moved))
        problems += schema.check(cell.value, places, "spec") if cell.suffix else []
        if not has_errors(problems):
            try:
                evaluations.append(_evaluation(cell, places, settings, read_text, document.path))
            except EvalopsError as error:
                problems += error.diagnostics
    unique = list(dict.fromkeys(problems))
    return ([], unique) if has_errors(unique) else (evaluations, unique)


def _at(problem: Diagnostic, mark: Mark) -> Diagnostic:
    return Diagnostic(code=problem.code, message=problem.message, mark=mark, hint=problem.hint)


def _with_defaults(document: Document, settings: Settings) -> tuple[Any, list[Layer]]:
    layers = [Layer((), document, ())]
    if not isinstance(document.value, dict):
        return document.value, layers
    value = dict(document.value)
    for key, default in settings.defaults.items():
        if key not in value and settings.document:
            value[key] = default
            layers.append(Layer((key,), settings.document, ("defaults", key)))
    return value, layers


def _evaluation(cell: matrix.Cell, places: Places, settings: Settings, read_text: ReadText, path: str) -> Evaluation:
    value = cell.value
    judge, places = _judge(value["judge"], places, settings, read_text)
    candidates: list[Candidate] = []
    for key in ("model_to_evaluate", "model_a", "model_b"):
        if key in value:
            candidate, places = _candidate(key, value[key], places, settings, read_text)
            candidates.append(candidate)
    dataset = value["dataset"]
    if isinstance(dataset, str):
        dataset = {"path": dataset}
    return Evaluation(
        address=value["name"] + cell.suffix,
        name=value["name"],
        spec=path,
        type=Type(value["type"]),
        provider=value.get("provider", settings.provider),
        dataset=DatasetRef(path=dataset["path"], id=dataset.get("id"), columns=dataset.get("columns", {})),
        judge=judge,
        candidates=tuple(candidates),
        places=places,
        description=value.get("description", ""),
        tags=tuple(value.get("tags", ())),
        labels=tuple(value.get("labels", ())),
        pass_labels=tuple(value.get("pass_labels", ())),
        min_score=_float(value.get("min_score")),
        max_score=_float(value.get("max_score")),
        pass_threshold=_float(value.get("pass_threshold")),
        both_orders=not value.get("disable_position_bias_correction", False),
        gold=value.get("gold"),
        thresholds=tuple(
            Threshold(
                metric=metric,
                min=_float(bound.get("min")),
                max=_float(bound.get("max")),
                on=bound.get("on", "estimate"),
            )
            for metric, bound in value.get("thresholds", {}).items()
        ),
    )


def _judge(value: Any, places: Places, settings: Settings, read_text: ReadText) -> tuple[Judge, Places]:
    if isinstance(value, str):
        if value not in settings.judges or not settings.document:
            raise _unknown_name("judge", value, settings.judges, places.mark("judge"))
        places = Places((*places.layers, Layer(("judge",), settings.document, ("judges", value))))
        value = settings.judges[value]
    if "column" in value:
        extra = sorted(set(value) - {"column"})
        if extra:
            raise EvalopsError(
                Diagnostic(
                    code="spec/judge",
                    message=f"a judge with `column` calls no model, so `{extra[0]}` does not belong here",
                    mark=places.mark("judge", extra[0]),
                    hint="remove it, or remove `column`",
                )
            )
        return Judge(column=value["column"]), places
    for key in ("model", "system_template"):
        if key not in value:
            raise EvalopsError(
                Diagnostic(
                    code="schema/missing-key",
                    message=f"`judge` has no `{key}`",
                    mark=places.mark("judge"),
                    hint=f"add `{key}`, or name a judge of evalops.yaml, or use `column: NAME`",
                )
            )
    model = _model(value, ("judge",), read_text, places)
    likelihood = value.get("verdict") == "likelihood"
    return Judge(
        model=model,
        template=model.system_template,
        likelihood=likelihood,
        reason=value.get("reason", "first") == "first" and not likelihood,
    ), places


def _candidate(
    key: str, value: Any, places: Places, settings: Settings, read_text: ReadText
) -> tuple[Candidate, Places]:
    if isinstance(value, str):
        if value not in settings.models or not settings.document:
            return Column(value), places
        places = Places((*places.layers, Layer((key,), settings.document, ("models", value))))
        named = {each: settings.models[value][each] for each in settings.models[value] if each != "base_url"}
        # A model with a `base_url` is served there under its id; `endpoint.resolve` looks it up again.
        value = {
            **named,
            "model": value if "base_url" in settings.models[value] else named.get("model", value),
        }
    return _model(value, (key,), read_text, places), places


def _model(value: Mapping[str, Any], route: KeyPath, read_text: ReadText, places: Places) -> Model:
    return Model(
        model=value["model"],
        route=route,
        model_source=value.get("model_source"),
        external_base_url=value.get("external_base_url"),
        credential=value.get("credential"),
        system_template=_text(value.get("system_template"), (*route, "system_template"), read_text, places),
        input_template=_text(value.get("input_template"), (*route, "input_template"), read_text, places),
        max_tokens=value.get("max_tokens"),
        temperature=_float(value.get("temperature")),
        num_workers=value.get("num_workers"),
    )


def _text(value: Any, route: KeyPath, read_text: ReadText, places: Places) -> Text | None:
    if value is None:
        return None
    if isinstance(value, str):
        return Text(value, route)
    try:
        return Text(read_text(value["file"]), route, value["file"])
    except EvalopsError as error:
        mark = places.mark(*route, "file")
        raise EvalopsError(*(_at(problem, mark) for problem in error.diagnostics)) from None


def _unknown_name(kind: str, name: str, known: Mapping[str, Any], mark: Mark) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code=f"spec/unknown-{kind}",
            message=f"no {kind} is called `{name}` in evalops.yaml",
            mark=mark,
            hint=schema.nearest(name, known) or f"add it there under `{kind}s:`",
        )
    )


def _float(value: Any) -> float | None:
    return None if value is None else float(value)
