"""Jinja2 templates of prompts, safe to take from a stranger's pull request.

Jinja2's sandbox keeps a template away from Python. What it does not bound is work and memory, so a template is
checked on its syntax tree before it is ever compiled (an allow-list of nodes, filters, tests and methods), and
each render has a budget: loops pay for their body times the size of the row, filters for what they make. Both
are pure counting, with no thread and no clock, so a row ends the same way on every machine.

Beyond Jinja2's strict mode: `true`, `null`, lists and objects are printed as JSON, and a dot finds a column's
key before a method. A cell is never read as a template.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes, pass_context
from jinja2.filters import FILTERS
from jinja2.loaders import BaseLoader
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.tests import TESTS
from jinja2.visitor import NodeTransformer

from evalops.errors import Diagnostic, EvalopsError

MAX_SOURCE = 64 * 1024  # characters of a template
MAX_NODES = 5_000  # of its syntax tree
MAX_DEPTH = 60  # of nested expressions and blocks
MAX_LOOPS = 2  # loops inside each other
MAX_TEXT = 1 << 20  # characters of any text a render makes, its output included
MAX_NUMBER = 1 << 64
BUDGET = 300_000  # steps of one render: a node met in a loop, or `STEP` characters
STEP = 4096

_METHODS = {
    str: {
        "strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "split", "splitlines",
        "startswith", "endswith", "removeprefix", "removesuffix", "count", "find",
    },
    dict: {"items", "keys", "values", "get"},
}  # fmt: skip
_LOOP = {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"}
_TESTS = {
    "boolean", "defined", "divisibleby", "eq", "==", "equalto", "even", "false", "float", "ge", ">=", "gt", ">",
    "greaterthan", "in", "integer", "iterable", "le", "<=", "lessthan", "lower", "lt", "<", "mapping", "ne", "!=",
    "none", "number", "odd", "sequence", "string", "true", "undefined", "upper",
}  # fmt: skip
_FILTERS = {
    "abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length",
    "list", "lower", "max", "min", "reverse", "round", "sort", "string", "sum", "title", "trim", "truncate",
    "unique", "upper", "wordcount",
}  # fmt: skip
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice,
    nodes.If, nodes.For, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.CondExpr,
    nodes.Const, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Filter, nodes.Test, nodes.Call,
    nodes.Keyword,
)  # fmt: skip
_HINTS = {
    "Assign": "write the value where it is used",
    "AssignBlock": "write the text where it is used",
    "Macro": "write the text where it is used",
    "Include": "put the text in this template: it is one file",
    "Import": "put the text in this template: it is one file",
    "FromImport": "put the text in this template: it is one file",
    "Extends": "put the text in this template: it is one file",
    "Block": "put the text in this template: it is one file",
    "Pow": "calculate it in the dataset",
    "FilterBlock": "use the filter on the value: {{ column | upper }}",
}


class Problem(NamedTuple):
    """Why a template is refused, at which of its lines, and what to do instead."""

    code: str
    message: str
    line: int
    hint: str | None = None


class RenderError(Exception):
    """A template cannot be rendered for a row; the message is for the user and repeats no cell."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was checked: its text and the columns it may ask for."""

    source: str
    variables: frozenset[str]

    def render(self, columns: Mapping[str, Any]) -> str:
        """The text for one row. Raises RenderError, and nothing else."""
        return _compiled(self.source)(columns)


@lru_cache(maxsize=4096)
def parse(source: str) -> Template | tuple[Problem, ...]:
    """The template, or everything that is wrong with it."""
    if len(source) > MAX_SOURCE:
        return (Problem("template/too-large", f"the template is longer than {MAX_SOURCE // 1024} KiB", 1),)
    try:
        tree = _ENVIRONMENT.parse(source)
    except TemplateSyntaxError as error:
        return (Problem("template/syntax", error.message or "it cannot be read", error.lineno),)
    except RecursionError:
        return (_too_deep(1),)
    problems = tuple(_problems(tree))
    if problems:
        return problems
    return Template(source, frozenset(meta.find_undeclared_variables(tree)))


def parse_or_raise(source: str) -> Template:
    """The template of a spec that was checked before; raises EvalopsError where it was not."""
    found = parse(source)
    if isinstance(found, Template):
        return found
    raise EvalopsError(*(Diagnostic(code=each.code, message=each.message, hint=each.hint) for each in found))


def _too_deep(line: int) -> Problem:
    return Problem("template/too-large", "the template is nested too deeply", line)


def _problems(tree: nodes.Template) -> Iterator[Problem]:
    """What the allow-lists refuse, found without recursion."""
    stack: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    count = 0
    while stack:
        node, depth, loops = stack.pop()
        count += 1
        if count > MAX_NODES or depth > MAX_DEPTH:
            yield _too_deep(node.lineno)
            return
        loops += isinstance(node, nodes.For)
        problem = _problem(node, loops)
        if problem:
            yield problem
        children = [*node.iter_child_nodes()]
        if isinstance(node, nodes.Call):
            children.remove(node.node)  # a method's name is judged with its call
            children += [node.node.node] if isinstance(node.node, nodes.Getattr) else []
        stack += [(child, depth + 1, loops) for child in reversed(children)]


def _problem(node: nodes.Node, loops: int) -> Problem | None:
    def refuse(what: str, hint: str | None = None) -> Problem:
        return Problem("template/forbidden", what, node.lineno, hint)

    match node:
        case nodes.For():
            if node.recursive:
                return refuse("a loop cannot be recursive")
            if loops > MAX_LOOPS:
                return refuse(f"more than {MAX_LOOPS} loops stand inside each other")
        case nodes.Name():
            if node.name.startswith("_") or node.name in ("self", "caller", "varargs", "kwargs"):
                return refuse(f"`{node.name}` is not a column's name that a template can use")
        case nodes.Getattr():
            if node.attr.startswith("_"):
                return refuse(f"`.{node.attr}` is no part of a row")
        case nodes.Getitem(arg=nodes.Const(value=str(name))) if name.startswith("_"):
            return refuse(f"`[{name!r}]` is no part of a row")
        case nodes.Filter():
            if node.name not in _KNOWN_FILTERS:
                return Problem("template/unknown-filter", f"the filter `{node.name}` is not available", node.lineno,
                               f"available: {', '.join(sorted(_KNOWN_FILTERS))}")  # fmt: skip
            if node.dyn_args or node.dyn_kwargs:
                return refuse("a filter takes no `*` or `**` arguments")
        case nodes.Test():
            if node.name not in _TESTS:
                return refuse(f"the test `{node.name}` is not available")
        case nodes.Call():
            known = {name for names in _METHODS.values() for name in names}
            if not isinstance(node.node, nodes.Getattr) or node.node.attr not in known:
                return refuse(
                    "only a few methods of texts and objects can be called", f"available: {', '.join(sorted(known))}"
                )
            if node.dyn_args or node.dyn_kwargs:
                return refuse("a call takes no `*` or `**` arguments")
        case _ if not isinstance(node, _NODES):
            name = type(node).__name__
            return refuse(f"`{_WORDS.get(name, name.lower())}` is not available in templates", _HINTS.get(name))
    return None


_WORDS = {"Assign": "set", "AssignBlock": "set", "Pow": "**", "FilterBlock": "filter", "CallBlock": "call",
          "FromImport": "import"}  # fmt: skip


class _Budget:
    """What is left of one render's steps, and how large its row is."""

    __slots__ = ("left", "scale")

    def __init__(self, size: int) -> None:
        self.left = BUDGET
        self.scale = 1 + size // STEP

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise RenderError("the template does too much work for this row")


_KEY = "\0budget"  # no name that a template can write


def _budget(context: Context) -> _Budget:
    found: _Budget = context.resolve_or_missing(_KEY)
    return found


@pass_context
def _each(context: Context, value: Any, weight: int) -> Any:
    """What a loop goes over, paid for in advance."""
    if isinstance(value, str) or not hasattr(value, "__len__"):
        if isinstance(value, Undefined):
            str(value)  # raises with the name
        raise RenderError("a loop goes over a list or an object, and this row has another value there")
    budget = _budget(context)
    budget.spend(len(value) * weight * budget.scale)
    return value


@pass_context
def _concat(context: Context, values: list[Any]) -> str:
    """`a ~ b`, with its size known before it is made."""
    texts = [_shown(value) for value in values]
    return "".join(_sized(context, texts, sum(map(len, texts))))


@pass_context
def _join(context: Context, value: Any, d: str = "", attribute: str | None = None) -> str:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        raise RenderError("`join` wants a list")
    if attribute is not None:
        value = [_ENVIRONMENT.getattr(each, attribute) for each in value]
    texts = [str(_shown(each)) for each in value]
    return str(d).join(_sized(context, texts, sum(map(len, texts)) + len(str(d)) * len(texts)))


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any) -> str:
    text, old, new = str(_shown(s)), str(old), str(new)
    _sized(context, None, len(text) + text.count(old) * max(0, len(new) - len(old)))
    return text.replace(old, new)


@pass_context
def _tojson(context: Context, value: Any, indent: int | None = None) -> str:
    if indent is not None and not 0 <= indent <= 8:
        raise RenderError("`tojson` indents by at most 8")
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return _sized(context, text, len(text))


def _sized(context: Context, value: Any, size: int) -> Any:
    _budget(context).spend(1 + size // STEP)
    if size > MAX_TEXT:
        raise RenderError(f"the template makes a text of more than {MAX_TEXT:,} characters")
    return value


def _bounded(function: Callable[..., Any]) -> Callable[..., Any]:
    """One of Jinja2's own filters, which makes no more than it is given; it pays for its input."""
    passes = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def filter_(context: Context, value: Any, *arguments: Any, **named: Any) -> Any:
        size = len(value) if hasattr(value, "__len__") and not isinstance(value, Undefined) else 0
        budget = _budget(context)
        budget.spend(1 + (size // STEP if isinstance(value, str) else size * budget.scale // 64))
        if passes is None:
            return function(value, *arguments, **named)
        first = {"context": context, "eval_context": context.eval_ctx, "environment": context.environment}
        result = function(first[passes.name], value, *arguments, **named)
        return list(result) if isinstance(result, Iterator) else result

    return filter_


def _shown(value: Any) -> Any:
    """How a value is printed: text as it is, everything else as JSON."""
    if isinstance(value, str | Undefined):
        return value if isinstance(value, str) else str(value)
    if isinstance(value, dict | list | bool | tuple) or value is None:
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, int | float):
        return str(value)
    return ", ".join(str(each) for each in value) if hasattr(value, "__iter__") else ""


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, with dots and brackets that look into the row only."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, int | float) and isinstance(right, int | float):
            if abs(left) > MAX_NUMBER or abs(right) > MAX_NUMBER:
                raise RenderError("a number is too large to calculate with")
        elif operator != "+" or type(left) is not type(right) or not isinstance(left, str | list):
            raise RenderError(f"`{operator}` is for numbers")
        else:
            _sized(context, None, len(left) + len(right))
        return super().call_binop(context, operator, left, right)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, dict) and attribute in obj:
            return obj[attribute]
        if attribute in _METHODS.get(type(obj), ()) or (isinstance(obj, LoopContext) and attribute in _LOOP):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)


class _Paying(NodeTransformer):
    """Puts the counting filters around loops and concatenations."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        weight = 1 + sum(1 for _ in node.find_all(nodes.Node))
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "\0each", [nodes.Const(weight)], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(nodes.List(node.nodes), "\0concat", [], [], None, None, lineno=node.lineno)


_ENVIRONMENT = _Environment(
    undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False, finalize=_shown, cache_size=0,
    loader=BaseLoader(), optimized=False,
)  # fmt: skip
_ENVIRONMENT.globals.clear()
_ENVIRONMENT.tests = {name: TESTS[name] for name in _TESTS}
_ENVIRONMENT.filters = {
    **{name: _bounded(FILTERS[name]) for name in _FILTERS},
    "join": _join, "replace": _replace, "tojson": _tojson, "\0each": _each, "\0concat": _concat,
}  # fmt: skip
_KNOWN_FILTERS = frozenset(name for name in _ENVIRONMENT.filters if not name.startswith("\0"))


@lru_cache(maxsize=1024)
def _compiled(source: str) -> Callable[[Mapping[str, Any]], str]:
    tree = _Paying().visit(_ENVIRONMENT.parse(source))
    code = _ENVIRONMENT.compile(tree)
    template = _ENVIRONMENT.template_class.from_code(_ENVIRONMENT, code, {})  # type: ignore[arg-type]
    names = meta.find_undeclared_variables(tree)

    def render(columns: Mapping[str, Any]) -> str:
        row = {name: columns[name] for name in names if name in columns}
        row[_KEY] = _Budget(_size(row.values()))
        parts: list[str] = []
        total = 0
        try:
            for part in template.root_render_func(template.new_context(row)):
                parts.append(part)
                total += len(part)
                if total > MAX_TEXT:
                    raise RenderError(f"the rendered text is longer than {MAX_TEXT:,} characters")
        except RenderError:
            raise
        except UndefinedError as error:
            raise RenderError(_absent(error)) from None
        except (
            TemplateError,
            ArithmeticError,
            LookupError,
            TypeError,
            ValueError,
            AttributeError,
            RecursionError,
        ) as error:
            # The text of a Python error may repeat a cell.
            raise RenderError(f"the template cannot be rendered for this row ({type(error).__name__})") from None
        return "".join(parts)

    return render


def _size(values: Any) -> int:
    """About how many characters a row has; nested values count by their parts."""
    size = 0
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            size += len(value)
        elif isinstance(value, dict):
            size += len(value)
            stack += value.values()
        elif isinstance(value, list):
            size += len(value)
            stack += value
    return size


def _absent(error: UndefinedError) -> str:
    """`'x' is undefined` and `… has no attribute 'x'` in our words."""
    quoted = (error.message or "").split("'")[1::2]
    return f"`{quoted[-1]}` is not in this row" if quoted else "a value is not in this row"
