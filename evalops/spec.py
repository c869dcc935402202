"""From a document to evaluations: defaults, the matrix, names from evalops.yaml, templates from files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from evalops import matrix, patronus, schema
from evalops.document import Document, KeyPath
from evalops.errors import Diagnostic, EvalopsError, Mark, has_errors
from evalops.patronus import Patronus
from evalops.settings import Settings

_OF_EVERY_SPEC = ("version", "name", "type", "dataset")
NO_REGRESSION = "no_regression"  # among the thresholds, and no metric
ReadText = Callable[[str], str]  # a path in the project -> its text; raises EvalopsError


class Type(StrEnum):
    CLASSIFY = "classify"
    SCORE = "score"
    COMPARE = "compare"
    CUSTOM = "custom"


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
        """The place of the value at a route, or of a part of it that a matrix varies, or of its nearest ancestor."""
        layer = self._layer(route)
        place = (*layer.source, *route[len(layer.at) :])
        if place not in layer.document.marks:
            varied = next((each for each in self.layers if each.at[: len(route)] == route), layer)
            if varied is not layer:
                return varied.document.mark(*varied.source)
        return layer.document.mark(*place)

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

    @property
    def stage(self) -> str:
        """The field that it stands in, as one word: what usage is counted by."""
        return ".".join(map(str, self.route))


class Column(str):
    """The name of a dataset column that holds the responses."""

    __slots__ = ()


Candidate = Column | Model


class Criterion(NamedTuple):
    """One of several things that a score is made of."""

    name: str
    description: str = ""
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Who gives the verdicts: a model with its template, or a column of recorded verdicts; for type custom, nobody.

    `route` is where it stands in the spec.
    """

    column: str | None = None
    model: Model | None = None
    template: Text | None = None
    likelihood: bool = False
    reason: bool = True
    criteria: tuple[Criterion, ...] = ()
    route: KeyPath = ("judge",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Voting:
    """How several votes on a row become one verdict; None is the default for the type, or for their number."""

    rule: str | None = None
    quorum: int | None = None
    cascade: bool = False
    margin: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """What compares a response with the true answer in type custom; `function` is `module:function` of settings."""

    kind: str
    extract: str | None = None
    pattern: str | None = None
    ignore_case: bool = False
    strip: bool = True
    tolerance: float = 0.0
    relative: bool = False
    schema: Any = None
    variant: str = "rougeL"
    function: str | None = None


class Sample(NamedTuple):
    """A part of the rows, by a hash of row and seed; `by` names a column whose values each get their share."""

    size: int
    seed: int = 0
    by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetRef:
    """Where the rows are, the column that names a row, and new names for columns (ours -> the file's).

    `path` is a file of the project or the name of a set. Instead of it there may be the `rows` themselves, or a
    file that the provider has (`file_id`) with the digest of its bytes (`sha256`).
    """

    path: str = ""
    rows: tuple[Mapping[str, Any], ...] | None = None
    file_id: str | None = None
    sha256: str | None = None
    id: str | None = None
    columns: Mapping[str, str]
    sample: Sample | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A bound on a metric, of the whole or, with the column `by`, of every group; `on` is estimate, lower or upper."""

    metric: str
    by: str | None = None
    min: float | None = None
    max: float | None = None
    on: str = "estimate"

    @property
    def route(self) -> KeyPath:
        """Where it stands in the spec."""
        return ("thresholds", self.metric, *(("by", self.by) if self.by is not None else ()))


class NoRegression(NamedTuple):
    """How far the result may fall below that of a base revision; where `strict`, also if the fall may be chance."""

    margin: float = 0.0
    strict: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One unit of work. `candidates` holds none or one response for classify and score, two for compare.

    `judge` is the first of `judges`, `panel` the others. `evaluator` is there for type custom, which has no judge;
    `patronus` where that service judges: the names of its evaluators then are the `criteria` of `judge`.
    """

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
    group_by: tuple[str, ...] = ()
    cluster: str | None = None
    repeats: int = 1
    panel: tuple[Judge, ...] = ()
    voting: Voting = Voting()
    evaluator: Evaluator | None = None
    patronus: Patronus | None = None
    metric: str | None = None
    thresholds: tuple[Threshold, ...] = ()
    no_regression: NoRegression | None = None

    @property
    def judges(self) -> tuple[Judge, ...]:
        """All judges, in the spec's order."""
        return (self.judge, *self.panel)

    @property
    def is_jury(self) -> bool:
        """Whether a row's verdict is made of several votes."""
        return bool(self.panel) or self.repeats > 1

    @property
    def models(self) -> tuple[Model, ...]:
        """Every model that is called, the candidates first, then the judges in their order."""
        candidates = [each for each in self.candidates if isinstance(each, Model)]
        return (*candidates, *(judge.model for judge in self.judges if judge.model))

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
    if _is_foreign(document.value):
        return [], [_foreign(document)]
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


def _is_foreign(value: Any) -> bool:
    """Whether a document is another tool's: with keys that no spec has, and without those that every spec has."""
    return (
        isinstance(value, dict)
        and value.keys().isdisjoint(_OF_EVERY_SPEC)
        and not value.keys() <= schema.whole("spec")["properties"].keys()
    )


def _foreign(document: Document) -> Diagnostic:
    return Diagnostic(
        code="spec/foreign",
        message="this is no spec: it has none of " + ", ".join(f"`{key}`" for key in _OF_EVERY_SPEC),
        mark=document.mark(),
        hint='look for specs in a folder of their own, with `specs: ["evals/**/*.yaml"]` in evalops.yaml',
    )


def _with_defaults(document: Document, settings: Settings) -> tuple[Any, list[Layer]]:
    layers = [Layer((), document, ())]
    if not isinstance(document.value, dict):
        return document.value, layers
    value = dict(document.value)
    for key, default in settings.defaults.items():
        is_without = key == "judge" and ("judges" in value or "evaluators" in value or value.get("type") == Type.CUSTOM)
        if key not in value and settings.document and not is_without:
            value[key] = default
            layers.append(Layer((key,), settings.document, ("defaults", key)))
    return value, layers


def _evaluation(cell: matrix.Cell, places: Places, settings: Settings, read_text: ReadText, path: str) -> Evaluation:
    value = cell.value
    judges, places = _judges(value, places, settings, read_text)
    candidates: list[Candidate] = []
    for key in ("model_to_evaluate", "model_a", "model_b"):
        if key in value:
            candidate, places = _candidate(key, value[key], places, settings, read_text)
            candidates.append(candidate)
    type_ = Type(value["type"])
    is_custom = type_ is Type.CUSTOM
    asked = patronus.parse(value)
    if asked is not None:
        value = _as_asked(value, asked)
        judges = judges or [_graders(asked, type_)]
        output = asked.columns.get("task_output")
        candidates = candidates or ([Column(output)] if output else [])
    return Evaluation(
        address=value["name"] + cell.suffix,
        name=value["name"],
        spec=path,
        type=type_,
        provider=value.get("provider", settings.provider),
        dataset=_dataset(value["dataset"], places),
        judge=judges[0] if judges else Judge(),
        panel=tuple(judges[1:]),
        candidates=tuple(candidates),
        places=places,
        description=value.get("description", ""),
        tags=tuple(value.get("tags", ())),
        labels=tuple(value.get("labels", ())),
        pass_labels=tuple(value.get("pass_labels", ())),
        min_score=0.0 if is_custom else _float(value.get("min_score")),
        max_score=1.0 if is_custom else _float(value.get("max_score")),
        pass_threshold=_float(value.get("pass_threshold", 1.0 if is_custom else None)),
        both_orders=not value.get("disable_position_bias_correction", False),
        gold=value.get("gold"),
        group_by=tuple(value.get("group_by", ())),
        cluster=value.get("cluster"),
        repeats=value.get("repeats", 1),
        voting=Voting(**{**value.get("vote", {}), "margin": _float(value.get("vote", {}).get("margin"))}),
        evaluator=_evaluator(value["evaluator"], places, settings) if is_custom else None,
        patronus=asked,
        metric=value.get("metric"),
        thresholds=tuple(
            threshold
            for metric, bound in value.get("thresholds", {}).items()
            if metric != NO_REGRESSION
            for threshold in _bounds(metric, bound)
        ),
        no_regression=_no_regression(value.get("thresholds", {}).get(NO_REGRESSION)),
    )


def _no_regression(value: Mapping[str, Any] | None) -> NoRegression | None:
    return None if value is None else NoRegression(float(value.get("margin", 0.0)), value.get("strict", False))


def _as_asked(value: Mapping[str, Any], asked: Patronus) -> dict[str, Any]:
    """A spec with what goes without saying where evaluators of Patronus judge: they pass or fail, and score 0 to 1."""
    if value["type"] == Type.SCORE:
        return {"min_score": 0, "max_score": 1, **value}
    if value["type"] == Type.CLASSIFY:
        return {"labels": list(patronus.LABELS), "pass_labels": [patronus.PASS], **value}
    return dict(value)


def _graders(asked: Patronus, type_: Type) -> Judge:
    """The evaluators of Patronus as a judge whose criteria are the numbers that they give."""
    names = patronus.names(asked, is_score=type_ is Type.SCORE)
    return Judge(criteria=tuple(map(Criterion, names)), route=("evaluators",))


def _bounds(metric: str, bound: Mapping[str, Any]) -> Iterator[Threshold]:
    """The bound of the whole, if there is one, and those of groups."""
    if "min" in bound or "max" in bound:
        yield _threshold(metric, None, bound)
    for column, each in bound.get("by", {}).items():
        yield _threshold(metric, column, each)


def _threshold(metric: str, by: str | None, bound: Mapping[str, Any]) -> Threshold:
    return Threshold(
        metric=metric,
        by=by,
        min=_float(bound.get("min")),
        max=_float(bound.get("max")),
        on=bound.get("on", "estimate"),
    )


def _dataset(value: Any, places: Places) -> DatasetRef:
    if isinstance(value, str):
        return DatasetRef(path=value, columns={})
    forms = [key for key in ("path", "rows", "file_id") if key in value]
    if len(forms) > 1:
        raise EvalopsError(
            Diagnostic(
                code="spec/dataset",
                message=f"a dataset has `{forms[0]}` or `{forms[1]}`, not both",
                mark=places.mark("dataset", forms[1]),
                hint="remove one of them",
            )
        )
    return DatasetRef(
        path=value.get("path", ""),
        rows=tuple(value["rows"]) if "rows" in value else None,
        file_id=value.get("file_id"),
        sha256=value.get("sha256"),
        id=value.get("id"),
        columns=value.get("columns", {}),
        sample=Sample(**value["sample"]) if "sample" in value else None,
    )


def _evaluator(value: Any, places: Places, settings: Settings) -> Evaluator:
    if isinstance(value, str):
        kinds = schema.whole("spec")["properties"]["evaluator"]["properties"]["kind"]["enum"]
        if value not in kinds:
            raise EvalopsError(
                Diagnostic(
                    code="spec/evaluator",
                    message=f"no evaluator is called `{value}`",
                    mark=places.mark("evaluator"),
                    hint=schema.nearest(value, kinds) or f"they are: {', '.join(kinds)}",
                )
            )
        value = {"kind": value}
    evaluator = Evaluator(**value)
    name = evaluator.function
    if evaluator.kind != "python" or name is None:
        return evaluator
    if name not in settings.functions:
        raise _unknown_name("function", name, settings.functions, places.mark("evaluator", "function"))
    return replace(evaluator, function=settings.functions[name])


def _judges(
    value: Mapping[str, Any], places: Places, settings: Settings, read_text: ReadText
) -> tuple[list[Judge], Places]:
    if "judge" in value and "judges" in value:
        raise EvalopsError(
            Diagnostic(
                code="spec/judge",
                message="an evaluation has `judge` or `judges`, not both",
                mark=places.mark("judge"),
                hint="remove one of them",
            )
        )
    written: dict[KeyPath, Any] = {("judges", index): each for index, each in enumerate(value.get("judges", ()))}
    if "judge" in value:
        written["judge",] = value["judge"]
    judges = []
    for route, each in written.items():
        judge, places = _judge(each, route, places, settings, read_text)
        judges.append(judge)
    return judges, places


def _judge(value: Any, route: KeyPath, places: Places, settings: Settings, read_text: ReadText) -> tuple[Judge, Places]:
    if isinstance(value, str):
        if value not in settings.judges or not settings.document:
            raise _unknown_name("judge", value, settings.judges, places.mark(*route))
        places = Places((*places.layers, Layer(route, settings.document, ("judges", value))))
        value = settings.judges[value]
    if "column" in value:
        extra = sorted(set(value) - {"column"})
        if extra:
            raise EvalopsError(
                Diagnostic(
                    code="spec/judge",
                    message=f"a judge with `column` calls no model, so `{extra[0]}` does not belong here",
                    mark=places.mark(*route, extra[0]),
                    hint="remove it, or remove `column`",
                )
            )
        return Judge(column=value["column"], route=route), places
    for key in ("model", "system_template"):
        if key not in value:
            raise EvalopsError(
                Diagnostic(
                    code="schema/missing-key",
                    message=f"`{route[0]}` has no `{key}`",
                    mark=places.mark(*route),
                    hint=f"add `{key}`, or name a judge of evalops.yaml, or use `column: NAME`",
                )
            )
    model = _model(value, route, read_text, places)
    likelihood = value.get("verdict") == "likelihood"
    return Judge(
        model=model,
        template=model.system_template,
        likelihood=likelihood,
        reason=value.get("reason", "first") == "first" and not likelihood,
        criteria=tuple(
            Criterion(each) if isinstance(each, str) else Criterion(**each) for each in value.get("criteria", ())
        ),
        route=route,
    ), places


def _candidate(
    key: str, value: Any, places: Places, settings: Settings, read_text: ReadText
) -> tuple[Candidate, Places]:
    if isinstance(value, str):
        document = settings.document_of("models")
        if value not in settings.models or not document:
            return Column(value), places
        places = Places((*places.layers, Layer((key,), document, ("models", value))))
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
        raise EvalopsError(*(replace(problem, mark=mark) for problem in error.diagnostics)) from None


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
