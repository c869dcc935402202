"""Templates: what they print, what they are refused for, and that a hostile one is cheap."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import jinja2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalops.errors import EvalopsError
from evalops.template import Problem, RenderError, Template, parse, parse_or_raise
from evalops.template.rendering import MAX_OUTPUT

JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

ROW: dict[str, Any] = {
    "question": "How are you?",
    "response": " Fine, *thank* you ",
    "empty": "",
    "n": 7,
    "ratio": 2.5,
    "flag": True,
    "nothing": None,
    "words": ["b", "a", "C"],
    "numbers": [3, 1, 2],
    "author": {"name": "Ada", "tags": ["x", "y"]},
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}


def template(source: str) -> Template:
    result = parse(source)
    assert isinstance(result, Template), result
    return result


def problems(source: str) -> list[Problem]:
    result = parse(source)
    assert isinstance(result, list), f"accepted: {source[:80]}"
    return result


def failure(source: str, row: dict[str, Any] = ROW) -> str:
    with pytest.raises(RenderError) as caught:
        template(source).render(row)
    return caught.value.message


# What a template prints


PRINTED = [
    "Q: {{ question }}\nA:{{ response }}\n\n",
    "{{ author.name }} {{ author['name'] }} {{ messages[0].content }} {{ messages[-1]['role'] }}",
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}\n{% endfor %}",
    "{% for m in messages %}{{ loop.revindex0 }}{{ ', ' if not loop.last else '.' }}{% endfor %}",
    "{% for w in [] %}{{ w }}{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% for w in words %}{{ loop.revindex }}{{ w }}{% endfor %}{% endfor %}",
    "{% for question in words %}{{ question }}{% endfor %}{{ question }}",
    "{% for k, v in author.items() %}{{ k }};{% endfor %}{% for k in author %}{{ k }}{% endfor %}",
    "{% for m in [words] %}{% for m in m %}{{ m }}{% endfor %}{{ m|length }}{% endfor %}",
    "{% for k, v in author|dictsort %}{{ k }};{% endfor %}",
    "{% if n > 5 and not empty %}big{% elif n == 5 %}five{% else %}small{% endif %}",
    "{% if n < 5 or empty %}big{% elif n == 7 %}seven{% else %}small{% endif %}",
    "{% if 1 < n <= 7 %}in{% endif %}{% if 'a' in words %}!{% endif %}",
    "{% if 'x' not in question %}?{% endif %}{% if 'name' in author %}!{% endif %}",
    "{{ 'yes' if n % 2 else 'no' }} {{ n + 1 }} {{ n - 1 }} {{ n * 2 }} {{ n / 2 }} {{ n // 2 }} {{ -n }}",
    "{{ question ~ ' ' ~ n }} {{ 'a' + 'b' }} {{ (words + ['z'])|join('-') }}",
    "{{ empty or 'nothing' }} {{ question and 'some' }}",
    "{{ missing|default('none') }} {{ author.age|d('old') }} {{ empty|default('blank', true) }}",
    "{{ 'x' if missing is defined else 'y' }}{{ 'x' if question is not undefined else 'y' }}",
    "{{ 'x' if author.age is defined else 'y' }}{{ 'x' if words[9] is defined else 'y' }}",
    "{{ response|trim }}|{{ response|upper }}|{{ response|lower }}|{{ response|capitalize }}",
    '{{ "it\'s a (good) well-known day"|title }} {{ response.strip().upper() }} {{ question.title() }}',
    "{{ words|join(', ') }} {{ messages|join('; ', attribute='role') }} {{ ', '.join(words) }}",
    "{{ words|sort|join }} {{ words|sort(true)|join }} {{ words|sort(case_sensitive=true)|join }}",
    "{{ words|first }} {{ words|last }} {{ words|min }} {{ numbers|max }} {{ numbers|sum(start=1) }}",
    "{{ words|reverse|join }} {{ question|reverse }} {{ numbers|join }} {{ words|length }}",
    "{{ messages|map(attribute='role')|join(' ') }} {{ words|map('upper')|join }}",
    "{{ question|replace('o', '0') }} {{ question|replace('', '-', 2) }} {{ question.replace('?', '!') }}",
    "{{ question|truncate(9) }} {{ question|truncate(9, true, leeway=0) }}",
    "{{ question|truncate(8, false, '', 0) }} {{ question|truncate }}",
    "{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n'|indent }}",
    "{{ 'a\n\nb'|indent('> ', blank=true) }}",
    "{{ '42'|int + 1 }} {{ '4.7'|int }} {{ 'x'|int(-1) }} {{ '2.5'|float }} {{ 'x'|float }}",
    "{{ 2.345|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }} {{ n|round }}",
    "{{ ratio|round }} {{ -3|abs }} {{ question|wordcount }} {{ 'ab'|list|join('.') }} {{ n|string ~ '!' }}",
    "{{ question[:3] }} {{ question[-4:] }} {{ words[1:]|join }} {{ question[::-1] }} {{ question|safe }}",
    "{{ 'a' if n is odd else 'b' }}{{ 'a' if n is number else 'b' }}{{ 'a' if n is divisibleby 7 else 'b' }}",
    "{{ 'a' if author is mapping else 'b' }}{{ 'a' if n is in [] else 'b' }}{{ 'a' if n is eq 7 else 'b' }}",
    "{{ {'a': 'good', 'b': 'bad'}['a'] }} {{ ('a', 'b')[1] }} {{ question.split()[0] }}",
    "{{ 'ab'.startswith('a') and author.get('age', 'old') }} {{ 'a,b'.split(',')|join('+') }}",
    "{% raw %}{{ not read }}{% endraw %}{# a comment #} {{- ' x ' -}} end",
    '{{ \'\\x41\\u00e9\\n\' }}{{ "a\\"b" }}',
    "é 日本 🙂 {{ '🙂' ~ question }} \t",
]


@pytest.mark.parametrize("source", PRINTED)
def test_prints_what_jinja_prints(source: str) -> None:
    assert template(source).render(ROW) == JINJA.from_string(source).render(ROW)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("flag", "true"),
        ("nothing", "null"),
        ("n", "7"),
        ("ratio", "2.5"),
        ("words", '["b", "a", "C"]'),
        ("author", '{"name": "Ada", "tags": ["x", "y"]}'),
        ("messages[0]", '{"content": "Hi", "role": "user"}'),
        ("flag ~ nothing", "truenull"),
        ("[flag, 1]|join('/')", "true/1"),
        ("'é<&>\"'|tojson", '"é<&>\\""'),
        ("author|tojson(indent=1)", '{\n "name": "Ada",\n "tags": [\n  "x",\n  "y"\n ]\n}'),
        ("'x' if false", ""),
        ("author.items", None),
    ],
)
def test_values_are_spelled_as_json(expression: str, text: str | None) -> None:
    if text is None:
        assert "is not in this row" in failure(f"{{{{ {expression} }}}}")
    else:
        assert template(f"{{{{ {expression} }}}}").render(ROW) == text


def test_equal_objects_print_the_same_text_in_any_order_of_their_keys() -> None:
    both = [template("{{ a }}{{ a|tojson }}").render({"a": a}) for a in ({"x": 1, "y": 2}, {"y": 2, "x": 1})]
    assert both[0] == both[1]


CELLS = ["{{ 7*7 }}", "{% raw %}", "a\r\nb", "<&>", "\ud800", "\x00\x1b[31m", "{#", "`{{ self }}`"]


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_data(cell: str) -> None:
    assert template("[{{ a }}]{% for b in c %}{{ b }}{% endfor %}").render({"a": cell, "c": [cell]}) == (
        f"[{cell}]{cell}"
    )


def test_a_key_wins_over_a_method_of_the_same_name() -> None:
    assert template("{{ a.items }} {{ a.get('items') }}").render({"a": {"items": "x"}}) == "x x"


def test_whitespace_is_kept() -> None:
    assert template("\n a \n{{ question }}\n\n").render(ROW) == "\n a \nHow are you?\n\n"


# Which columns it needs


@pytest.mark.parametrize(
    ("source", "columns"),
    [
        ("no variable", set()),
        ("{% for m in messages %}{{ m.text }}{{ loop.index }}{% endfor %}", {"messages"}),
        ("{% for m in messages %}{{ m }}{% else %}{{ m }}{% endfor %}", {"messages", "m"}),
        ("{% for x in x %}{{ x }}{% endfor %}", {"x"}),
        ("{% for x in xs %}{{ x }}{% endfor %}{{ x }}", {"x", "xs"}),
        ("{% for x in xs if y %}{% for y in x %}{{ y }}{% endfor %}{% endfor %}", {"xs", "y"}),
        (
            "{% if a is defined %}{{ b|default(c) }}{{ d[e] }}{% elif f %}{{ g.z }}{% endif %}",
            set("abcdefg"),
        ),
        ("{{ loop }}", {"loop"}),
        ("{{ true }}{{ none }}{{ 'x' }}", set()),
    ],
)
def test_variables_are_the_columns(source: str, columns: set[str]) -> None:
    assert template(source).variables == columns
    if source != "{{ loop }}":
        assert find_undeclared_variables(JINJA.parse(source)) == columns


def test_templates_are_cached() -> None:
    assert parse("cached {{ a }}") is parse("cached {{ a }}")
    found = problems("{{ a|nope }}")
    found.clear()
    assert problems("{{ a|nope }}")


def test_a_refused_template_can_be_raised() -> None:
    assert parse_or_raise("{{ a }}") is parse("{{ a }}")
    with pytest.raises(EvalopsError, match="no filter `nope`"):
        parse_or_raise("{{ a|nope }}")


# Rows that it cannot be rendered for


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ missing }}", "`missing` is not in this row"),
        ("{{ author.age }}", "`author.age` is not in this row"),
        ("{{ messages[0].text }}", "`messages[0].text` is not in this row"),
        ("{{ messages[5] }}", "`messages[5]` is not in this row: `messages` is a list"),
        ("{{ question.text }}", "`question.text` is not in this row: `question` is text"),
        ("{{ nothing.text }}", "`nothing.text` is not in this row: `nothing` is null"),
        ("{{ missing.a.b|default('x') }}", "`missing` is not in this row"),
        ("{{ (missing|upper)|default('x') }}", "`missing` is not in this row"),
        ("{% if missing %}{% endif %}", "`missing` is not in this row"),
        (
            "{% for w in question %}{% endfor %}",
            "the loop over `question` needs a list or an object, not text",
        ),
        (
            "{% for a, b in words %}{% endfor %}",
            "the loop over `words` needs items that are lists of 2, not text",
        ),
        ("{{ n + 'a' }}", "`+` cannot add a number and text: `~` joins anything as text"),
        ("{{ question * n }}", "`*` needs numbers, not text"),
        ("{{ question % n }}", "`%` needs numbers, not text"),
        ("{{ words * n }}", "`*` needs numbers, not a list"),
        ("{{ n / 0 }}", "`/` divides by zero"),
        ("{{ n is divisibleby 0 }}", "`divisibleby` divides by zero"),
        ("{{ n < question }}", "`<` cannot compare a number with text"),
        ("{{ words|sum }}", "`sum` needs numbers, not text"),
        ("{{ [n, question]|sort }}", "`sort` needs only numbers or only text"),
        ("{{ []|first }}", "`first` of an empty list"),
        ("{{ n|length }}", "`length` needs text, a list or an object, not a number"),
        ("{{ question|truncate(1) }}", "`truncate(1)` leaves no room for its ending of 3 characters"),
        ("{{ question.split('') }}", "this method cannot be called with these arguments"),
        ("{{ words.upper() }}", "this method needs text, not a list"),
    ],
)
def test_a_row_that_does_not_fit_is_named(source: str, message: str) -> None:
    assert failure(source) == message


def test_a_value_that_is_not_json_is_an_error_of_the_row() -> None:
    assert failure("{{ a }}", {"a": object()}) == "a value of type `object` cannot be written as JSON"
    assert failure("{{ a|upper }}", {"a": {1, 2}}) == "a value of type `set` cannot be written as JSON"


@pytest.mark.parametrize("use", ["{{ a }}", "{{ a|tojson }}", "{{ a == b }}", "{{ a ~ '' }}"])
def test_values_are_nested_a_hundred_levels_deep_at_most(use: str) -> None:
    fits: Any = "x"
    for _ in range(99):
        fits = [fits]
    assert template(use).render({"a": fits, "b": fits})
    assert failure(use, {"a": [[fits]], "b": []}) == "a value is nested more than 100 levels deep"


def test_errors_repeat_no_cell() -> None:
    row = {"a": "s3cret", "b": {"s3cret": "s3cret"}, "n": 3}
    for source in (
        "{{ a + n }}",
        "{{ a < n }}",
        "{{ b[n] }}",
        "{{ a|round }}",
        "{{ [n][a] }}",
        "{{ n.find(a) }}",
    ):
        assert "s3cret" not in failure(source, row)


# Templates that are refused


@pytest.mark.parametrize(
    ("source", "code", "line", "message", "hint"),
    [
        ("a\n\n{{ x", "template/syntax", 3, "the template cannot be read: unexpected end of template", None),
        ("{% if x %}\n", "template/syntax", 1, "Unexpected end of template", None),
        ("\n{% nope %}", "template/syntax", 2, "unknown tag 'nope'", None),
        ("{{{{ x }}}}", "template/syntax", 1, "the template cannot be read", "a variable has two braces"),
        ("{{ '\\x' }}", "template/syntax", 1, "the template cannot be read", None),
        (
            "\n{{ x|uper }}",
            "template/unknown-filter",
            2,
            "templates have no filter `uper`",
            "did you mean `upper`?",
        ),
        ("{{ x|selectattr('a') }}", "template/unknown-filter", 1, "`selectattr`", "{% for x in list if"),
        ("{{ x|xmlattr }}", "template/unknown-filter", 1, "templates have no filter `xmlattr`", "`tojson`"),
        (
            "{{ x is defned }}",
            "template/unknown-test",
            1,
            "templates have no test `defned`",
            "did you mean `defined`?",
        ),
        ("{{ x.stripp() }}", "template/unknown-method", 1, "no method `stripp`", "did you mean `strip`?"),
        ("{{ range(3) }}", "template/forbidden", 1, "templates cannot call `range`", "filters"),
        ("{% set a = 1 %}", "template/forbidden", 1, "templates cannot use `set`", "write the expression"),
        (
            "{% macro a() %}{% endmacro %}",
            "template/forbidden",
            1,
            "templates cannot use `macro`",
            "`for` loop",
        ),
        ("{% include 'a' %}", "template/forbidden", 1, "templates cannot use `include`", "one text"),
        (
            "{% with a = 1 %}{% endwith %}",
            "template/forbidden",
            1,
            "templates cannot use `with`",
            "expression",
        ),
        (
            "{% filter upper %}{% endfilter %}",
            "template/forbidden",
            1,
            "templates cannot use `filter`",
            "|upper",
        ),
        ("{{ x ** 2 }}", "template/forbidden", 1, "templates cannot use `**`", "x * x"),
        ("{{ x|join(sep='a') }}", "template/arguments", 1, "`join` cannot take these arguments", None),
        ("{{ x.split(sep=',') }}", "template/arguments", 1, "`split` takes 0 to 2 arguments", None),
        ("{{ x|map }}{{ x|map('join', 'a') }}", "template/arguments", 1, "`map` cannot take", None),
        (
            "{{ x|map('attr') }}",
            "template/unknown-filter",
            1,
            "`map` needs the name of a filter",
            "map('upper')",
        ),
        ("{% for _ in x %}{% endfor %}", "template/forbidden", 1, "`_` starts with an underscore", None),
        ("{% for x in y recursive %}{% endfor %}", "template/forbidden", 1, "`recursive`", None),
        (
            "{% for x in y %}{{ loop }}{% endfor %}",
            "template/forbidden",
            1,
            "`loop` is not a value",
            "loop.index",
        ),
        (
            "{% for x in y %}{{ loop.cycle }}{% endfor %}",
            "template/forbidden",
            1,
            "no `loop.cycle`",
            "`index`",
        ),
        ("x" * 65537, "template/too-long", 1, "65,537 characters", "column"),
    ],
)
def test_a_refusal_says_where_why_and_what_to_do(
    source: str, code: str, line: int, message: str, hint: str | None
) -> None:
    found = problems(source)[0]
    assert (found.code, found.line) == (code, line)
    assert message in found.message
    assert hint is None or (found.hint and hint in found.hint)


def test_all_problems_are_told_at_once_in_order() -> None:
    found = problems("{{ a|nope }}\n{{ b.__class__ }}\n{% set c = 1 %}")
    assert [problem.line for problem in found] == [1, 2, 3]
    assert len(problems("{{ a|nope }}\n" * 500)) == 20


def test_loops_nest_twice() -> None:
    loop = "{{% for {0} in {1} %}}{2}{{% endfor %}}"
    two = loop.format("a", "xs", loop.format("b", "a", "{{ b }}"))
    assert template(two).render({"xs": [[1, 2], [3]]}) == "123"
    assert problems(loop.format("z", "ys", two))[0].code == "template/too-deep"


# A hostile template is refused, or ends cheaply

REFUSED = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ x['__class__'] }}",
    "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ x['\\u005f_init__'] }}",
    "{{ x|attr('__class__') }}",
    "{{ x|attr('\\x5f\\x5fclass__') }}",
    "{{ x|map('attr', '__class__') }}",
    "{{ x|map(attribute='a')|selectattr('__class__') }}",
    "{{ '{0.__class__}'.format(x) }}",
    "{{ '{a.__class__}'.format_map(d) }}",
    "{{ x|format('a') }}",
    "{{ self }}",
    "{{ self.__init__.__globals__ }}",
    "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ lipsum.__globals__ }}",
    "{{ lipsum(n=1000000) }}",
    "{{ joiner('a') }}",
    "{{ namespace(a=1) }}",
    "{{ dict(a=1) }}",
    "{{ range(10**9) }}",
    "{% for a in range(1000000000) %}{% endfor %}",
    "{{ 10**9**9 }}",
    "{{ 'a' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ x.format(x) }}",
    "{{ x.center(1000000000) }}",
    "{{ x.ljust(1000000000) }}",
    "{{ x.zfill(1000000000) }}",
    "{{ x.expandtabs(1000000000) }}",
    "{{ x.encode() }}",
    "{{ x|center(1000000000) }}",
    "{{ x|wordwrap(1) }}",
    "{{ x|urlize }}",
    "{{ x|batch(1000000000, 'x')|list }}",
    "{{ x|slice(1000000000)|list }}",
    "{{ x|select('in', x) }}",
    "{{ x|groupby('a') }}",
    "{{ d.update({'a': 1}) }}",
    "{{ d.pop('a') }}",
    "{{ many.append(1) }}",
    "{{ x.join }}{{ x.mro() }}",
    "{{ x() }}",
    "{{ (x.upper)() }}{{ x['upper']() }}",
    "{{ x|join(*many) }}",
    "{{ x|join(**d) }}",
    "{{ caller() }}{{ super() }}",
    "{% for a in many %}{{ loop(many) }}{% endfor %}",
    "{% for a in many %}{{ loop.__class__ }}{% endfor %}",
    "{% for a in many %}{{ loop.changed(a) }}{% endfor %}",
    "{% for a in many %}{% for b in many %}{% for c in many %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% for loop in many %}{% endfor %}",
    "{% for d.a in many %}{% endfor %}",
    "{% set a = x %}{% for b in many %}{% set a = a ~ a %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call x() %}{% endcall %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends x %}",
    "{% block a %}{% endblock %}",
    "{% filter upper %}x{% endfilter %}",
    "{% with a = x %}{% endwith %}",
    "{% autoescape true %}{% endautoescape %}",
    "{{ " + "9" * 5000 + " }}",
    "{{ 0x" + "f" * 60000 + " }}",
    "{{ 1" + "*9" * 30000 + " }}",
    "{{ " + "(" * 30000 + " }}",
    "{{ " + "(" * 300 + "1" + ")" * 300 + " }}",
    "{{ " + "not " * 15000 + "x }}",
    "{{ " + "-" * 60000 + "1 }}",
    "{{ x" + ".a" * 30000 + " }}",
    "{{ x" + "|trim" * 10000 + " }}",
    "{{ x" + " if x else x" * 5000 + " }}",
    "{% if x %}" * 5000 + "{% endif %}" * 1000,
    "{{" * 30000,
    "{%" * 30000,
    "{{ '" + "a" * 60000,
    "{{ " + "'" * 60001,
    "{{ x|" + "a" * 60000 + " }}",
    "{{ {" + "1: 2, " * 10000 + "} }}",
]

ENDED = [
    "{{ big|replace('a', big) }}",
    "{{ x|replace('', big)|replace('', big)|replace('', big) }}",
    "{{ big.replace('a', big) }}",
    "{{ big|replace('a', 'bb')|replace('b', 'cc')|replace('c', 'dd')|length }}",
    "{{ " + " ~ ".join(["big"] * 1000) + " }}",
    "{{ " + "big ~ " * 20 + "big|length }}",
    "{{ big }}" * 5000,
    "{{ (big + big + big + big + big + big + big + big + big + big + big)|length }}",
    "{{ many|join(big) }}",
    "{{ big.join(many) }}",
    "{{ many|map('tojson')|join(big) }}",
    "{% for a in many %}{{ big }}{% endfor %}",
    "{% for a in many %}{{ big|upper|length }}{% endfor %}",
    "{% for a in many %}{% for b in many %}x{% endfor %}{% endfor %}",
    "{% for a in many %}{% for b in many if b < 0 %}x{% endfor %}{% endfor %}",
    "{% for a in many %}{{ big == big2 }}{{ 'b' in big }}{% endfor %}",
    "{% for a in many %}{{ many|sort|length }}{% endfor %}",
    "{% for a in many %}{{ n }}{{ huge }}{% endfor %}",
    "{{ big.split('a')|length }}{{ big.split('a')|length }}",
    "{{ [" + "big.split('a'), " * 3000 + "]|length }}",
    "{{ [" + "big|upper, " * 3000 + "]|length }}",
    "{{ big|list|length }}",
    "{{ big.strip('" + "b" * 30000 + "') }}",
    "{{ x|truncate(1000000000) }}",
    "{{ x|indent(1000000000) }}",
    "{{ d|tojson(indent=1000000000) }}",
    "{{ n|round(1000000000) }}",
    "{{ n|round(-1000000000) }}",
    "{{ huge * huge }}",
    "{{ n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n * n }}",
    "{{ big * n }}",
    "{{ big % n }}",
    "{{ n * many }}",
    "{{ deep }}",
    "{{ deep == deep2 }}",
    "{{ many[" + "n" + "|float] }}",
    "{{ d[many] }}",
    "{{ d.a.b.c }}",
    "{{ x['__cla' ~ 'ss__'] }}",
    "{{ d['__class__'|lower] }}",
    "{{ x[x] }}",
    "{{ cycler }}",
    "{{ x|sum(attribute='__class__') }}",
    "{{ many|map(attribute='__class__')|join }}",
    "{{ many|sort(attribute='__class__') }}",
]

HARMLESS = {
    "{{ '" + "9" * 5000 + "'|int }}": "0",
    "{{ '1e999'|int }}": "0",
    "{{ 'nan'|float|int }}": "0",
    "{{ '\\x5f\\x5fclass__' }}": "__class__",
    "{{ '{0.__class__}' ~ x }}": "{0.__class__}abc",
    "{{ d.get('__class__', 'no') }}": "no",
    "{{ loop is defined }}": "false",
}

SCRIPT = """
import json, pathlib, resource, sys
from evalops.template import RenderError, Template, parse

payloads = json.load(sys.stdin)
deep, deep2 = [], []
for _ in range(5000):
    deep, deep2 = [deep], [deep2]
row = {"x": "abc", "n": 7, "d": {"a": 1}, "many": list(range(10_000)), "huge": 10**4000,
       "big": "a" * 900_000, "big2": "b" + "a" * 899_999, "deep": deep, "deep2": deep2}
parse("{{ a }}")
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
memory = pages * resource.getpagesize() + 64 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

def outcome(payload):
    result = parse(payload)
    if not isinstance(result, Template):
        return "refused"
    try:
        return "printed " + result.render(row)[:100]
    except RenderError as error:
        return "ended" if "MemoryError" not in error.message else error.message

json.dump([outcome(payload) for payload in payloads], sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of address space")
def test_attacks_are_refused_or_end_within_64_mib_and_seconds() -> None:
    payloads = [*REFUSED, *ENDED, *HARMLESS]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        input=json.dumps(payloads),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    wanted = ["refused"] * len(REFUSED) + ["ended"] * len(ENDED) + [f"printed {text}" for text in HARMLESS.values()]
    outcomes = dict(zip(payloads, json.loads(run.stdout), strict=True))
    wrong = {p[:80]: outcomes[p] for p, want in zip(payloads, wanted, strict=True) if outcomes[p] != want}
    assert not wrong


def test_output_is_capped() -> None:
    row = {"a": "x" * MAX_OUTPUT}
    assert len(template("{{ a }}").render(row)) == MAX_OUTPUT
    assert failure("{{ a }}.", row) == "the rendered text is longer than 1,048,576 characters"


def test_the_budget_is_for_one_render() -> None:
    loop = template("{% for a in many %}{{ a }}{% endfor %}")
    row = {"many": list(range(10_000))}
    assert {len(loop.render(row)) for _ in range(10)} == {38890}


def test_the_data_is_not_changed() -> None:
    row = json.loads(json.dumps(ROW))
    template("{{ words|sort }}{{ words|reverse }}{{ author.items() }}{{ messages + words }}").render(row)
    assert row == ROW


# Any template of the grammar

NAMES = st.sampled_from(["a", "b", "c", "xs", "d", "n", "missing"])
ATOMS = st.one_of(NAMES, st.sampled_from(["'t'", "1", "0", "2.5", "true", "none", "[]", "[1, 'x']", "{'k': 1}"]))
BINARY = st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "in", "not in", "and", "or"])
FILTERS = [
    "upper",
    "length",
    "join",
    "sort",
    "first",
    "tojson",
    "int",
    "round",
    "d('z')",
    "map('upper')",
    "list",
]
FILTERS += [
    "replace('a', 'b')",
    "reverse",
    "sum",
    "max",
    "indent",
    "title",
    "string",
    "abs",
    "truncate(4)",
    "items",
]
ACCESS = [".k", "['k']", "[0]", "[:2]", ".strip()", ".items()", ".split()", ".get('k')"]
SUFFIX = st.sampled_from([f"|{name}" for name in FILTERS] + ACCESS)
TESTS = st.sampled_from(["is defined", "is none", "is string", "is odd", "is mapping", "is not undefined"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, BINARY, inner),
        st.builds("({}){}".format, inner, SUFFIX),
        st.builds("({} {})".format, inner, TESTS),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)
TEXT = st.text(alphabet="ab \n<é🙂", max_size=5)
BLOCKS = st.recursive(
    st.one_of(TEXT, EXPRESSIONS.map("{{{{ {} }}}}".format)),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSIONS, inner, inner),
        st.builds("{{% for {} in {} %}}{}{{{{ loop.index }}}}{{% endfor %}}".format, NAMES, EXPRESSIONS, inner),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3) | st.just("k"), inner)),
    max_leaves=5,
)
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(("a", "b", "c", "xs", "d", "n"), JSON))


@settings(max_examples=200, deadline=None)
@given(source=BLOCKS, row=ROWS)
def test_only_render_errors_are_raised(source: str, row: dict[str, Any]) -> None:
    result = parse(source)
    if isinstance(result, Template):
        try:
            assert isinstance(result.render(row), str)
        except RenderError as error:
            assert error.message


@settings(max_examples=200, deadline=None)
@given(source=st.text(alphabet="{}%#- '\"\\abx_.|()[],:1=*~\n", max_size=60).map("{{{{ {}".format))
def test_any_text_is_a_template_or_problems(source: str) -> None:
    result = parse(source)
    assert isinstance(result, Template) or all(problem.message and problem.line >= 1 for problem in result)


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.text(), min_size=3, max_size=3), between=st.lists(TEXT, min_size=4, max_size=4))
def test_cells_appear_as_they_are(cells: list[str], between: list[str]) -> None:
    source = between[0] + "{{ a }}" + between[1] + "{{ d.k }}" + between[2] + "{{ xs[0] }}" + between[3]
    row = {"a": cells[0], "d": {"k": cells[1]}, "xs": [cells[2]]}
    expected = between[0] + cells[0] + between[1] + cells[1] + between[2] + cells[2] + between[3]
    assert template(source).render(row) == expected


SAME = [
    "|upper",
    "|title",
    "|trim",
    "|replace('a', 'bc')",
    "|truncate(4)",
    "|indent(1)",
    "[1:]",
    ".split()|join",
]
PLAIN = st.recursive(
    st.sampled_from(["a", "b", "d.k", "xs[0]", "'t'", "missing|d('m')", "xs|join('-')", "xs|sort|first"]),
    lambda inner: st.one_of(
        st.builds("({} ~ {})".format, inner, inner),
        st.builds("({} + {})".format, inner, inner),
        st.builds("({} or {})".format, inner, inner),
        st.builds("({0} if {1} <= {0} else {1})".format, inner, inner),
        st.builds("({}){}".format, inner, st.sampled_from(SAME)),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(expression=PLAIN, cells=st.lists(st.text(alphabet="abAB -'(\n.é", max_size=8), min_size=5, max_size=5))
def test_expressions_on_text_mean_what_they_mean_in_jinja(expression: str, cells: list[str]) -> None:
    source = "{% for x in xs %}{{ loop.index }}{{ x }}{% endfor %}{{ " + expression + " }}"
    row = {"a": cells[0], "b": cells[1], "d": {"k": cells[2]}, "xs": cells[3:]}
    assert template(source).render(row) == JINJA.from_string(source).render(row)
