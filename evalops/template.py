"""Jinja2 templates of prompts, safe to take from a stranger's pull request.

Jinja2's sandbox keeps a template away from Python, but bounds neither work nor memory. So a template is checked on its
syntax tree before it is compiled (an allow-list of nodes, filters, tests and methods), and each render has a budget: a
loop pays for its body, whatever reads or makes a value for its size. That is counting, with no thread and no clock: a
row ends the same way on every machine.

Beyond Jinja2's strict mode: what is not text is printed as JSON, the keys of an object come in order (as in the digest
of its row), a dot finds a key before a method, a loop over text is an error. A cell is never read as a template.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jinja2
from jinja2 import Undefined, meta, nodes, pass_context
from jinja2.filters import FILTERS, make_attrgetter
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from evalops.errors import Diagnostic, EvalopsError
from evalops.schema import nearest

MAX_SOURCE = 64 * 1024  # characters of a template
MAX_NODES = 2_000  # of its syntax tree
MAX_DEPTH = 50  # of nested expressions and blocks; one becomes two brackets, and Python compiles 200
MAX_LOOPS = 2  # loops inside each other
MAX_TEXT = 1 << 20  # characters of any text a render works on or makes, its output included
MAX_NUMBER = 1 << 64
BUDGET = 200_000  # steps of one render, about a microsecond each: a node in a loop, an item, or `STEP` characters
STEP = 64
_LEFT = "\0left"  # the column that counts down; no template can write its name

_METHODS: dict[type, set[str]] = {
    str: {"capitalize", "count", "endswith", "find", "lower", "lstrip", "removeprefix", "removesuffix", "rstrip",
          "split", "splitlines", "startswith", "strip", "title", "upper"},
    dict: {"get", "items", "keys", "values"}}  # fmt: skip
_CALLABLE = _METHODS[str] | _METHODS[dict]
_SEARCHES = _CALLABLE - {"strip", "lstrip", "rstrip"}  # these look for every character of their argument
_LOOP = {"index", "index0", "revindex", "revindex0", "first", "last", "length", "previtem", "nextitem"}
_TESTS = {"boolean", "defined", "divisibleby", "even", "false", "float", "integer", "iterable", "mapping", "none",
          "number", "odd", "sequence", "string", "true", "undefined"}  # fmt: skip
_ON_TEXT = {"capitalize", "lower", "string", "title", "trim", "truncate", "upper", "wordcount"}
_ON_ITEMS = {"list", "max", "min", "sort", "sum"}
_FILTERS = _ON_TEXT | _ON_ITEMS | {
    "abs", "d", "default", "dictsort", "first", "float", "int", "items", "join", "last", "length", "replace",
    "reverse", "round", "tojson"}  # fmt: skip
_COSTS = {"d": 0, "default": 0, "get": 0, "length": 0, "max": 2, "min": 2, "dictsort": 3, "sort": 3, "upper": 3,
          "wordcount": 8, "split": 16, "splitlines": 16, "title": 16}  # fmt: skip  # for a step of the value; else 1
_NODES = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.Name, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.If,
    nodes.For, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos, nodes.Add,
    nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.CondExpr, nodes.Const, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Filter, nodes.Test, nodes.Call, nodes.Keyword)  # fmt: skip
_WORDS = {"Assign": "set", "AssignBlock": "set", "Pow": "**", "FilterBlock": "filter", "CallBlock": "call",
          "FromImport": "import", "Scope": "autoescape"}  # fmt: skip
_HINTS = dict.fromkeys(("include", "import", "extends", "block"), "put the text in this template: it is one file") | {
    "set": "write the value where it is used", "filter": "use it on the value, like {{ column | upper }}"}  # fmt: skip


class Problem(NamedTuple):
    """Why a template is refused, at which of its lines, and what to do instead."""

    code: str
    message: str
    line: int
    hint: str | None = None


class RenderError(Exception):
    """A template cannot be rendered for a row; the message is for the user and repeats no cell."""

    message = property(str)


@dataclass(frozen=True, slots=True)
class Template:
    """A template that was checked: its text and the columns it may ask for."""

    source: str
    variables: frozenset[str]

    def render(self, columns: Mapping[str, Any]) -> str:
        """The text for one row. Raises RenderError, and nothing else."""
        row = {name: columns[name] for name in self.variables if name in columns} | {_LEFT: [BUDGET]}
        try:
            template = _compiled(self.source)
            return _joined(template.root_render_func(template.new_context(row)))
        except RenderError:
            raise
        except jinja2.UndefinedError as error:
            name = ["", *(error.message or "").split("'")[1::2]][-1]  # which is a cell in `{{ object[cell] }}`
            what = f"`{name}`" if name and name in self.source else "a value"
            raise RenderError(f"{what} is not in this row") from None
        except Exception as error:  # whatever a stranger's template or row provokes; its text may repeat a cell
            raise RenderError(f"the template cannot be rendered for this row ({type(error).__name__})") from None


@lru_cache(maxsize=4096)
def parse(source: str) -> Template | tuple[Problem, ...]:
    """The template, or what is wrong with it: the first 20 problems, in the order of the text."""
    if len(source) > MAX_SOURCE:
        return (Problem("template/too-large", f"the template is longer than {MAX_SOURCE // 1024} KiB", 1),)
    try:
        tree = _ENVIRONMENT.parse(source)
        if problems := tuple(_problems(tree)):
            return problems[:20]
        names = meta.TrackingCodeGenerator(_ENVIRONMENT)
        names.optimizer = None  # it would calculate with constants, unpaid
        names.visit(tree)
        return Template(source, frozenset(names.undeclared_identifiers))
    except jinja2.TemplateSyntaxError as error:
        message = f"the template cannot be read: {(error.message or 'a mistake').rstrip('.')}"
        return (Problem("template/syntax", message, error.lineno),)
    except (RecursionError, ValueError):  # thousands of brackets, or of digits
        return (Problem("template/too-large", "a part of the template is too long or nested too deeply", 1),)


def parse_or_raise(source: str) -> Template:
    """The template of a spec that was checked before; raises EvalopsError where it was not."""
    found = parse(source)
    if isinstance(found, Template):
        return found
    raise EvalopsError(*(Diagnostic(code=each.code, message=each.message, hint=each.hint) for each in found))


def _problems(tree: nodes.Template) -> Iterator[Problem]:
    """What the allow-lists refuse, found without recursion."""
    stack: list[tuple[nodes.Node, int, int]] = [(tree, 0, 0)]
    count, line = 0, 1
    while stack:
        node, depth, loops = stack.pop()
        count, line = count + 1, node.lineno or line  # a side of a comparison has no line
        if count > MAX_NODES or depth > MAX_DEPTH:
            yield Problem("template/too-large", "the template has too many parts or is nested too deeply", line)
            return
        loops += isinstance(node, nodes.For)
        refused = _refused_name(node) or _refused_use(node, loops)
        if refused:
            code = "unknown-filter" if isinstance(node, nodes.Filter) else "forbidden"
            yield Problem(f"template/{code}", refused[0], line, refused[1])
            continue
        children = [*node.iter_child_nodes()]
        match node:  # the name of a method, and `loop`, were judged with what is made of them
            case nodes.Call(node=nodes.Getattr() as method):
                children[0] = method.node
            case nodes.Getattr(node=nodes.Name(name="loop")):
                continue
        stack += [(child, depth + 1, loops) for child in reversed(children)]


def _refused_name(node: nodes.Node) -> tuple[str, str | None] | None:
    """Why a name or a constant is refused, and a hint."""
    match node:
        case nodes.Name(name="loop"):
            return "`loop` is not a value", "name a part of it, like {{ loop.index }}"
        # Python takes two spellings of a letter for one name, and would print the wrong column.
        case nodes.Name(name=name) if name[0] == "_" or name == "self" or name != unicodedata.normalize("NFKC", name):
            return f"`{name}` is not a name that a template can use", "name the column anew in `dataset.columns`"
        case nodes.Getattr(node=nodes.Name(name="loop"), attr=name) if name not in _LOOP:
            return f"`loop.{name}` is not available", nearest(name, _LOOP)
        case nodes.Getattr(attr=name) | nodes.Getitem(arg=nodes.Const(value=str(name))) if name.startswith("_"):
            return f"`{name}` is no part of a row", None
        case nodes.Const(value=int() | float() as number) if abs(number) > MAX_NUMBER:
            return "a number is too large to calculate with", None
        case nodes.Pair(key=key) if not (isinstance(key, nodes.Const) and isinstance(key.value, str)):
            return "the keys of an object are texts, written out", "like {'good': 1}"
    return None


def _refused_use(node: nodes.Node, loops: int) -> tuple[str, str | None] | None:
    """Why a filter, a test, a call or a block is refused, and a hint."""
    match node:
        case nodes.Filter() | nodes.Test() | nodes.Call() if node.dyn_args or node.dyn_kwargs:
            return "arguments with `*` or `**` are not available", "write them one by one"
        case nodes.Filter(name=name) if name not in _FILTERS:
            hint = nearest(name, _FILTERS) or f"available: {', '.join(sorted(_FILTERS))}"
            return f"the filter `{name}` is not available", hint
        case nodes.Test(name=name) if name not in _TESTS:
            return f"the test `{name}` is not available", nearest(name, _TESTS)
        case nodes.Call(node=called) if not (isinstance(called, nodes.Getattr) and called.attr in _CALLABLE):
            method = getattr(called, "attr", getattr(called, "name", "…"))
            return f"`{method}()` is no method of a text or an object", nearest(method, _CALLABLE)
        case nodes.For(recursive=recursive) if recursive or loops > MAX_LOOPS:
            return f"a loop cannot be recursive, and only {MAX_LOOPS} stand inside each other", None
        case _ if not isinstance(node, _NODES):
            name = _WORDS.get(type(node).__name__, type(node).__name__.lower())
            return f"`{name}` is not available in templates", _HINTS.get(name)
    return None


def _spend(context: Context, steps: int) -> None:
    context.parent[_LEFT][0] -= steps
    if context.parent[_LEFT][0] < 0:
        raise RenderError("the template does too much work for this row")


def _within(size: int) -> int:
    if size > MAX_TEXT:
        raise RenderError(f"a text is longer than {MAX_TEXT:,} characters")
    return size


def _defined(value: Any) -> Any:
    if isinstance(value, Undefined):
        str(value)  # raises, with the name
    return value


def _steps(value: Any) -> int:
    """How much work a value is, as far as a budget reaches."""
    steps, stack = 1, [value]
    while stack and steps <= BUDGET:
        value = stack.pop()
        if isinstance(value, str):
            steps += _within(len(value)) // STEP
        elif isinstance(value, int):
            steps += value.bit_length() // STEP
        elif isinstance(value, dict | list | tuple):
            steps += len(value)
            if steps <= BUDGET:
                stack += (*value, *value.values()) if isinstance(value, dict) else value
    return steps


@pass_context
def _paid(context: Context, value: Any) -> Any:
    _spend(context, _steps(value))
    return value


@pass_context
def _each(context: Context, value: Any, weight: int) -> Any:
    """What a loop goes over, paid for in advance."""
    if not isinstance(_defined(value), dict | list | tuple):
        raise RenderError("only a list or an object can be gone through, and this row has another value there")
    _spend(context, len(value) * weight)
    return sorted(value) if isinstance(value, dict) else value


@pass_context
def _join(context: Context, value: Any, d: Any = "", attribute: str | int | None = None) -> str:
    """What `a ~ b` is too: its size is known before it is made."""
    items = _each(context, value, 1 + len(str(attribute)))
    if attribute is not None:
        items = map(make_attrgetter(_ENVIRONMENT, attribute), items)
    texts, separator = [_shown(context, each) for each in items], _shown(context, d)
    _spend(context, 1 + _within(sum(map(len, texts)) + len(separator) * len(texts)) // STEP)
    return separator.join(texts)


@pass_context
def _replace(context: Context, s: Any, old: Any, new: Any) -> str:
    text, old, new = (_shown(context, each) for each in (s, old, new))
    read = _steps([text, old, new])
    _spend(context, read + _within(len(text) + text.count(old) * max(0, len(new) - len(old))) // STEP)
    return text.replace(old, new)


@pass_context
def _json(context: Context, value: Any, indent: int | None = None) -> str:
    """A value as JSON, its keys sorted."""
    if indent is not None and indent not in range(9):
        raise RenderError("`tojson` indents by 0 to 8")
    steps = _steps(value)
    small = indent is None and steps < 1000  # even where each character becomes `\u0000`
    _spend(context, steps if small else 8 + 2 * steps)
    encoder = json.JSONEncoder(ensure_ascii=False, sort_keys=True, indent=indent, default=_defined)
    return encoder.encode(value) if small else _joined(encoder.iterencode(value))


def _joined(parts: Iterable[str]) -> str:
    texts, size = [], 0
    for part in parts:
        texts.append(part)
        size = _within(size + len(part))
    return "".join(texts)


@pass_context
def _shown(context: Context, value: Any) -> str:
    """How a value is printed: text as it is, everything else as JSON."""
    return str(value) if isinstance(value, str | Undefined) else _json(context, value)


@pass_context
def _call(context: Context, value: Any, name: str, /, *arguments: Any, **named: Any) -> Any:
    if name not in _METHODS.get(type(_defined(value)), set()):
        raise RenderError(f"`.{name}()` is for another kind of value than this row has there")
    return _use(getattr(type(value), name), name, context, value, *arguments, **named)


def _use(function: Any, name: str, context: Context, value: Any, /, *arguments: Any, **named: Any) -> Any:
    """A filter of Jinja2 or a method: they make no more than they are given, and pay for that."""
    given = (*arguments, *named.values())
    cost = _COSTS.get(name, 1)
    if cost and any(isinstance(each, dict | list | tuple) for each in given):
        raise RenderError(f"`{name}` takes no list and no object as an argument")
    if name == "round" and any(isinstance(each, int) and abs(each) > 20 for each in given):
        raise RenderError("`round` keeps at most 20 digits")
    if name in _ON_TEXT:
        value = _shown(context, value)
    elif name in _ON_ITEMS and isinstance(value, str):
        _spend(context, _within(len(value)))
        value = list(value)
    texts = sum(len(each) for each in given if isinstance(each, str))
    steps = cost and _steps(_defined(value))
    _spend(context, 1 + cost * (steps + texts // STEP if name in _SEARCHES else steps * (1 + texts // 8)))
    if cost and isinstance(value, dict):
        value = dict(sorted(value.items()))
    passed = (_ENVIRONMENT,) if hasattr(function, "jinja_pass_arg") else ()
    try:
        result = function(*passed, value, *arguments, **named)
        return [*result] if isinstance(result, Iterator | KeysView | ValuesView | ItemsView) else result
    except jinja2.UndefinedError:
        raise
    except Exception as error:
        raise RenderError(f"`{name}` cannot be used on this row's value ({type(error).__name__})") from None


def _number(value: Any, operator: str) -> Any:
    if not isinstance(_defined(value), int | float) or abs(value) > MAX_NUMBER:
        raise RenderError(f"`{operator}` is for numbers of up to 64 bits (texts are joined by `~`)")
    return value


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, with dots and brackets that look into the row only."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "%", "**"})

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "+" and type(left) is type(right) and isinstance(left, str | list):
            _spend(context, 1 + _within(len(left) + len(right)) // (STEP if isinstance(left, str) else 8))
            return left + right
        return super().call_binop(context, operator, _number(left, operator), _number(right, operator))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(_defined(obj), dict) and attribute in obj:
            return obj[attribute]
        if isinstance(obj, LoopContext) and attribute in _LOOP:
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        try:
            return obj[argument]
        except (TypeError, LookupError):
            return self.undefined(obj=obj, name=argument)


class _Paying(NodeTransformer):
    """Puts counting filters around what can take more than a step, and in the place of methods."""

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.generic_visit(node)
        match node:
            case nodes.For():
                weight = nodes.Const(1 + len([*node.find_all(nodes.Node)]))
                node.iter = nodes.Filter(node.iter, "\0each", [weight], [], None, None)
            case nodes.Compare() | nodes.Operand():
                node.expr = nodes.Filter(node.expr, "\0paid", [], [], None, None)
            case nodes.Getitem(arg=nodes.Slice()):
                node.node = nodes.Filter(node.node, "\0defined", [], [], None, None)  # Python warns at `1[:2]`
                return nodes.Filter(node, "\0paid", [], [], None, None)
            case nodes.Concat():
                return nodes.Filter(nodes.List(node.nodes), "join", [], [], None, None)
            case nodes.Call(node=nodes.Getattr() as method):
                arguments = [nodes.Const(method.attr), *node.args]
                return nodes.Filter(method.node, "\0call", arguments, node.kwargs, None, None)
        return node


_ENVIRONMENT = _Environment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True, finalize=_shown, cache_size=0, optimized=False,
)  # fmt: skip
_JINJA = {**FILTERS, "list": list, "int": lambda value, default=0: FILTERS["int"](value, default)}  # no endless hex
_ENVIRONMENT.filters = {
    **{name: pass_context(partial(_use, _JINJA[name], name)) for name in _FILTERS}, "join": _join, "replace": _replace,
    "tojson": _json, "\0paid": _paid, "\0each": _each, "\0call": _call, "\0defined": _defined,
}  # fmt: skip
_ENVIRONMENT.tests = {name: _ENVIRONMENT.tests[name] for name in _TESTS} | {
    "even": lambda value: _number(value, "is even") % 2 == 0,
    "odd": lambda value: _number(value, "is odd") % 2 == 1,
    "divisibleby": lambda value, by: _number(value, "is divisibleby") % _number(by, "is divisibleby") == 0,
}  # Jinja2's own format where the value is a text
_ENVIRONMENT.globals.clear()


@lru_cache(maxsize=1024)
def _compiled(source: str) -> jinja2.Template:
    code = _ENVIRONMENT.compile(_Paying().visit(_ENVIRONMENT.parse(source)))
    return _ENVIRONMENT.template_class.from_code(_ENVIRONMENT, code, {})
