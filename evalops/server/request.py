"""From the parameters of a request to an evaluation: every rule that the request alone can break."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from evalops import document, endpoint, schema, semantics, template
from evalops.endpoint import EMBEDDED, VENDORS, Endpoint
from evalops.errors import EvalopsError, Mark
from evalops.secret import Secret
from evalops.server.fields import MAX_NAME, TOKEN, Fields, masked
from evalops.server.problem import Problem
from evalops.settings import Serve, Settings
from evalops.spec import Candidate, Column, DatasetRef, Evaluation, Judge, Layer, Model, Places, Text, Type

IMAGES = "image_data_urls"
ROLES = {
    Type.CLASSIFY: ("model_to_evaluate",),
    Type.SCORE: ("model_to_evaluate",),
    Type.COMPARE: ("model_a", "model_b"),
}
SOURCES = ("serverless", "dedicated", "external")

MAX_WORKERS = 256  # more are taken for as many: each holds a row in memory
EMBEDDED_TOKENS = 512  # the official CLI always asks for 16000, and a small model may never stop by itself
MAX_LISTED = 100  # columns in one message

(_EMPTY,), _ = document.parse(b"{}", "request")
PLACES = Places((Layer((), _EMPTY, ()),))  # no file holds the request


class Asked(NamedTuple):
    """What a request asks for. `parameters` are echoed as they came, with their tokens masked.

    `secrets` are by role (`judge`, `model_a` …), as is `whole_row`: the models that came without an input template,
    for `complete`. `endpoints` answers `evaluation.models` one to one.
    """

    type: str
    parameters: dict[str, Any]
    evaluation: Evaluation
    file: str
    secrets: dict[str, Secret]
    endpoints: tuple[Endpoint, ...]
    whole_row: frozenset[str]


def read(body: Any, settings: Settings, serve: Serve | None = None) -> Asked:
    """The evaluation that the body of a request describes. Raises Problem (400) with the field that is wrong.

    `serve` is by default that of the settings. null is taken for an absent key; keys that the service does not know
    are echoed and otherwise ignored.
    """
    echo, serve = masked(body), serve or settings.serve
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object with `type` and `parameters`")
    top = Fields("", body)
    kind = Type(top.choice("type", [each.value for each in ROLES]))
    fields = top.object("parameters")
    file = fields.text("input_data_file_path")
    judge = _model(fields.object("judge"), "judge", settings, serve)
    called = []
    candidates: list[Candidate] = []
    for role in ROLES[kind]:
        value = fields.required(role) if kind is Type.COMPARE else fields.get(role)
        if isinstance(value, dict):
            called.append(_model(fields.object(role), role, settings, serve))
            candidates.append(called[-1].model)
        elif isinstance(value, str):
            candidates.append(Column(fields.text(role)))
        elif value is not None:
            fields.refuse(role, "must be the name of a dataset column or an object that describes a model")
    evaluation = Evaluation(
        address="job",
        name="job",
        spec="request",
        type=kind,
        provider="local",
        dataset=DatasetRef(path="dataset.jsonl", columns={}),
        judge=Judge(model=judge.model, template=judge.model.system_template),
        candidates=tuple(candidates),
        places=PLACES,
        **_verdicts(kind, fields),
    )
    called.append(judge)
    return Asked(
        type=kind.value,
        parameters=echo["parameters"],
        evaluation=evaluation,
        file=file,
        secrets={str(each.model.route[0]): each.secret for each in called if each.secret},
        endpoints=tuple(each.endpoint for each in called),
        whole_row=frozenset(str(each.model.route[0]) for each in called[:-1] if each.model.input_template is None),
    )


def complete(asked: Asked, columns: Sequence[str]) -> Evaluation:
    """The evaluation for a dataset with these columns: a model without an input template is shown the row.

    That is every column which nothing else uses, or the only one there is. Where this leaves nothing, the model stays
    without a template, which `unsupported` then reports.
    """
    evaluation = asked.evaluation
    source = _row_template(evaluation, columns) if asked.whole_row else None
    if source is None:
        return evaluation
    return replace(
        evaluation,
        candidates=tuple(
            replace(each, input_template=Text(source, (*each.route, "input_template")))
            if isinstance(each, Model) and each.route[0] in asked.whole_row
            else each
            for each in evaluation.candidates
        ),
    )


def unsupported(evaluation: Evaluation, columns: Sequence[str]) -> str | None:
    """Why a completed evaluation cannot run on a dataset with these columns, or None: the service's rules and words."""
    used = {*semantics.variables(evaluation), *evaluation.response_columns}
    problems = []
    if IMAGES in columns:
        problems.append(f"This server cannot judge images: no model is shown the column '{IMAGES}'. Remove it.")
    blind = [each.route[0] for each in evaluation.candidates if isinstance(each, Model) and each.input_template is None]
    if blind:
        problems.append(
            f"{_list(blind)} came without an input_template, and no column is left that it could be shown. "
            "Add an input_template with what the model is to be shown."
        )
    if missing := used - {*columns}:
        problems.append(
            f"Missing dataset column(s): {_list(missing)}. "
            f"A template or a model field names them, and the dataset has {_list(columns)}."
        )
    if unused := {*columns} - used - {IMAGES}:
        problems.append(
            f"Unsupported dataset column(s): {_list(unused)}. Each column must be referenced by a model or judge "
            f"template, or be a recognized field ('{IMAGES}'). "
            "Remove unused columns or reference them in a template."
        )
        if nameless := [column for column in unused if not _is_name(column)]:
            problems.append(f"No template can name {_list(nameless)}: rename or remove them.")
    return " ".join(problems) or None


# --- what a model is shown that came without a template ---


def _row_template(evaluation: Evaluation, columns: Sequence[str]) -> str | None:
    shown = [column for column in columns if column not in evaluation.response_columns and column != IMAGES]
    used = semantics.variables(evaluation)
    # Where the judge's template names all columns, one may be the right answer, which a candidate must not see: only
    # a single column is surely the question.
    rest = [column for column in shown if column not in used] or (shown if len(shown) == 1 else [])
    names = [column for column in rest if _is_name(column)]
    if len(rest) == len(names) == 1:
        return f"{{{{ {names[0]} }}}}"
    return "\n".join(f"{name}: {{{{ {name} }}}}" for name in names) or None


def _is_name(column: str) -> bool:
    """Whether a template can name this column."""
    found = template.parse(f"{{{{ {column} }}}}")
    return isinstance(found, template.Template) and found.variables == {column}


def _list(names: Iterable[Any]) -> str:
    found = sorted(map(str, names))
    more = len(found) - MAX_LISTED
    return f"{found[:MAX_LISTED]}" + (f" and {more} more" if more > 0 else "")


# --- verdicts ---


def _verdicts(kind: Type, fields: Fields) -> dict[str, Any]:
    """The fields of an evaluation that say what a verdict is."""
    match kind:
        case Type.CLASSIFY:
            labels = _labels(fields)
            return {"labels": labels, "pass_labels": _pass_labels(fields, labels)}
        case Type.SCORE:
            return _range(fields)
        case Type.COMPARE:
            return {"both_orders": not fields.boolean("disable_position_bias_correction")}
        case Type.CUSTOM:
            raise AssertionError("the service has no such type")


def _labels(fields: Fields) -> tuple[str, ...]:
    labels = fields.texts("labels", 2)
    first: dict[str, str] = {}
    for label in labels:
        if not label.strip() or len(label.splitlines()) != 1 or len(label) > MAX_NAME:
            fields.refuse("labels", f"must hold labels of one line and 1 to {MAX_NAME} characters")
        folded = label.strip().casefold()
        if folded in first:
            same = f"{first[folded][:60]!r} and {label[:60]!r}"
            fields.refuse("labels", f"must hold distinct labels: a judge cannot keep {same} apart")
        first[folded] = label
    return labels


def _pass_labels(fields: Fields, labels: tuple[str, ...]) -> tuple[str, ...]:
    if fields.get("pass_labels") is None:
        return ()
    passing = fields.texts("pass_labels", 1)
    for label in passing:
        if label not in labels:
            hint = schema.nearest(label[:60], labels)
            why = f"must be within `labels`: {label[:60]!r} is none of them" + (f"; {hint}" if hint else "")
            fields.refuse("pass_labels", why)
    return tuple(dict.fromkeys(passing))


def _range(fields: Fields) -> dict[str, float | None]:
    for key in ("min_score", "max_score"):
        fields.required(key)
    names = ("min_score", "max_score", "pass_threshold")
    low, high, threshold = (fields.number(key) for key in names)
    assert low is not None
    assert high is not None
    if low >= high:
        fields.refuse("min_score", f"must be below `{fields.param('max_score')}`: {low:g} is not below {high:g}")
    if threshold is not None and not low <= threshold <= high:
        fields.refuse("pass_threshold", f"must lie between the scores {low:g} and {high:g}, it is {threshold:g}")
    return {"min_score": low, "max_score": high, "pass_threshold": threshold}


# --- models ---


class _Called(NamedTuple):
    """A model with the place it is served at and the token for that."""

    model: Model
    endpoint: Endpoint
    secret: Secret | None


def _model(fields: Fields, role: str, settings: Settings, serve: Serve) -> _Called:
    name = fields.text("model")
    source = fields.choice("model_source", SOURCES)
    system = fields.template("system_template")
    if role == "judge" and system is None:
        fields.refuse("system_template", "is required")
    tokens, workers = fields.whole("max_tokens"), fields.whole("num_workers")
    found, secret = (
        _external(fields, name, serve) if source == "external" else (_served(fields, name, settings, serve), None)
    )
    return _Called(
        Model(
            model=name,
            route=(role,),
            model_source=source,
            system_template=system,
            input_template=fields.template("input_template") if role != "judge" else None,
            max_tokens=min(tokens, EMBEDDED_TOKENS) if tokens and found.is_embedded else tokens,
            temperature=fields.number("temperature", 0, 2),
            num_workers=workers and min(workers, MAX_WORKERS),
        ),
        found,
        secret,
    )


def _served(fields: Fields, name: str, settings: Settings, serve: Serve) -> Endpoint:
    """Where the settings say that an id is served. What they do not name is never looked for: it may be any file."""
    try:
        if name in settings.models:
            return named_endpoint(name, settings)
        default = default_endpoint(settings, serve)
        if default is None:
            fields.refuse(
                "model",
                f"is a model that this server does not have: {name[:100]!r}; its owner can add it under `models:` in "
                "evalops.yaml, or answer every such id with one model: `evalops serve --default-model NAME`",
            )
        return default
    except EvalopsError as error:
        fields.refuse("model", f"cannot be called, by this server's settings: {error}")


def default_endpoint(settings: Settings, serve: Serve) -> Endpoint | None:
    """Where the names go that `models` does not have. Raises EvalopsError where nothing says where that is."""
    default = serve.default_model
    if default is None:
        return None
    if default in settings.models:
        return named_endpoint(default, settings)
    if default.startswith(EMBEDDED):
        return Endpoint(base_url="", model=default)
    return endpoint.resolve(Model(model=default, route=()), settings, Mark("the default model"))


def named_endpoint(name: str, settings: Settings) -> Endpoint:
    """The endpoint of an id of `models`, which is either served somewhere or another name for a model."""
    entry = settings.models[name]
    if "base_url" not in entry and not str(entry.get("model", "")).startswith(EMBEDDED):
        keys = ("model_source", "external_base_url", "credential")
        model = Model(model=entry.get("model", name), route=(), **{key: entry.get(key) for key in keys})
    else:
        model = Model(model=name, route=())
    return endpoint.resolve(model, settings, settings.mark("models", name))


def _external(fields: Fields, name: str, serve: Serve) -> tuple[Endpoint, Secret]:
    """The endpoint that a request names itself. The server's own keys are never used for it."""
    if fields.get("external_base_url") is not None:
        key, url = "external_base_url", fields.text("external_base_url")
    else:
        key, prefix = "model", next((each for each in VENDORS if name.startswith(each)), None)
        if prefix in (None, name):
            known = ", ".join(f"{each}…" for each in VENDORS)
            fields.refuse("external_base_url", f"is required: the model is none of {known}")
        url, name = VENDORS[prefix].base_url, name.removeprefix(prefix)
    if reason := endpoint.refusal(url):
        fields.refuse(key, f"is not allowed: {reason}")
    origin = endpoint.origin(url)
    if origin not in {_origin_or_none(each) for each in serve.external_origins}:
        fields.refuse(
            key,
            f"leads to {origin}, where this server sends nothing; its owner can allow that with "
            f"`serve: {{external_origins: [{origin}]}}` in evalops.yaml",
        )
    token = fields.text(TOKEN)
    try:
        return Endpoint(base_url=url.rstrip("/"), model=name), Secret(token)
    except ValueError as error:
        fields.refuse(TOKEN, f"cannot be sent: {error}")


def _origin_or_none(url: str) -> str | None:
    try:
        return endpoint.origin(url)
    except ValueError:
        return None
