"""Templates: what they print, what they are refused for, and that a hostile one is cheap."""

from __future__ import annotations

import functools
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
from evalops.template import MAX_TEXT, Problem, RenderError, Template, parse, parse_or_raise

JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

ROW: dict[str, Any] = {
    "question": "How are you?", "response": " Fine, *thank* you ", "empty": "", "n": 7, "ratio": 2.5, "flag": True,
    "nothing": None, "words": ["b", "a", "C"], "numbers": [3, 1, 2], "author": {"name": "Ada", "tags": ["x", "y"]},
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
}  # fmt: skip


def template(source: str) -> Template:
    result = parse(source)
    assert isinstance(result, Template), result
    return result


def problems(source: str) -> tuple[Problem, ...]:
    result = parse(source)
    assert not isinstance(result, Template), f"accepted: {source[:80]}"
    return result


def failure(source: str, row: dict[str, Any] = ROW) -> str:
    with pytest.raises(RenderError) as caught:
        template(source).render(row)
    return caught.value.message


# What a template prints

PRINTED = [
    "Q: {{ question }}\nA:{{ response }}\n\n", "\r\n a \r{{ question }}\r\n{{ 'a\r\nb' }}\n",
    "é 日本 {{ '🙂' ~ question }} \t\x00",
    "{{ author.name }} {{ author['name'] }} {{ messages[0].content }} {{ messages[-1]['role'] }} {{ ('a', 'b')[1] }}",
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}{{ ', ' if not loop.last else '.' }}\n{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% for w in words %}{{ loop.revindex }}{{ w }}{% else %}-{% endfor %}{% endfor %}",
    "{% for question in words %}{{ question }}{% else %}{{ n }}{% endfor %}{{ question }}{% for w in [] %}{% else %}{{ w }}{% endfor %}",
    "{% for w in words %}{{ loop.previtem|d('-') }}{{ loop.nextitem|d('-') }}{% endfor %}{% for w in words|sort %}{{ w }}{% endfor %}",
    "{% for k, v in author.items() %}{{ k }};{% endfor %}{% for k in author %}{{ k }}{% endfor %}",
    "{% for m in [words] %}{% for m in m %}{{ m }}{% endfor %}{{ m|length }}{% endfor %}{% for n in numbers|reverse %}{{ n }}{% endfor %}",
    "{% for k, v in author|dictsort %}{{ k }};{% endfor %}{% for k, v in author|items %}{{ k }}{% endfor %}",
    "{% if n > 5 and not empty %}big{% elif n == 5 %}five{% else %}small{% endif %}{% if 1 < n <= 7 %}in{% endif %}",
    "{% if n < 5 or empty %}big{% elif n == 7 %}seven{% else %}small{% endif %}{% if 'a' in words %}!{% endif %}",
    "{% if 'x' not in question %}?{% endif %}{% if 'name' in author %}!{% endif %}",
    "{{ 'yes' if n % 2 else 'no' }} {{ n + 1 }} {{ n - 1 }} {{ n * 2 }} {{ n / 2 }} {{ n // 2 }} {{ -n }} {{ -3|abs }}",
    "{{ question ~ ' ' ~ n }} {{ 'a' + 'b' }} {{ (words + ['z'])|join('-') }} {{ empty or 'no' }} {{ question and 'some' }}",
    "{{ missing|default('none') }} {{ author.age|d('old') }} {{ empty|default('blank', true) }}{{ 'x' if empty }}",
    "{{ 'x' if missing is defined else 'y' }}{{ 'x' if question is not undefined else 'y' }}{% if words[9] is defined %}9{% endif %}",
    "{{ response|trim }}|{{ response|upper }}|{{ response|lower }}|{{ response|capitalize }}|{{ question|wordcount }}{{ n|upper }}",
    '{{ "it\'s a (good) well-known day"|title }} {{ response.strip().upper() }} {{ question.title() }} {{ "a\\"b" }}',
    "{{ words|join(', ') }} {{ messages|join('; ', attribute='role') }} {{ numbers|join }} {{ messages|sort(attribute='role')|length }}",
    "{{ words|sort|join }} {{ words|sort(true)|join }} {{ words|sort(case_sensitive=true)|join }} {{ [author]|max(attribute='name')|length }}",
    "{{ words|first }} {{ words|last }} {{ words|min }} {{ numbers|max }} {{ numbers|sum(start=1) }} {{ 'ab'|list|join('.') }}",
    "{{ words|reverse|join }} {{ question|reverse }} {{ words|length }} {{ question|replace('', '-') }} {{ question|replace('you', '') }}",
    "{{ question|truncate(9) }} {{ question|truncate(9, true, leeway=0) }} {{ question|truncate(8, false, '', 0) }}",
    "{{ '42'|int + 1 }} {{ '4.7'|int }} {{ 'x'|int(-1) }} {{ '2.5'|float }} {{ 'x'|float }} {{ n|string ~ '!' }}",
    "{{ 2.345|round(2) }} {{ 2.1|round(0, 'ceil') }} {{ 2.9|round(method='floor') }} {{ n|round }} {{ ratio|round }}",
    "{{ question[:3] }} {{ question[-4:] }} {{ words[1:]|join }} {{ question[::-1] }} {{ {'a': 'good', 'b': 'bad'}['a'] }}",
    "{{ 'a' if n is odd else 'b' }}{{ 'a' if n is number else 'b' }}{{ 'a' if n is divisibleby 7 else 'b' }}{{ 1 if n is even else 2 }}",
    "{{ 'ab'.startswith('a') and author.get('age', 'old') }} {{ 'a,b,c'.split(',', maxsplit=1)|join('+') }} {{ question.split()[0] }}",
    "{% raw %}{{ not read }}{% endraw %}{# a comment #} {{- ' x ' -}} {{ '\\x41\\u00e9\\n' }} end",
]  # fmt: skip


@pytest.mark.parametrize("source", PRINTED)
def test_prints_what_jinja_prints(source: str) -> None:
    assert template(source).render(ROW) == JINJA.from_string(source).render(ROW)
    assert template(source).variables == find_undeclared_variables(JINJA.parse(source))


AS_JSON = {
    "flag": "true", "nothing": "null", "n": "7", "ratio": "2.5", "words": '["b", "a", "C"]',
    "flag ~ nothing": "truenull", "author": '{"name": "Ada", "tags": ["x", "y"]}',
    "messages[0]": '{"content": "Hi", "role": "user"}', "[flag, 1]|join('/')": "true/1",
    "'é<&>\"'|tojson": '"é<&>\\""', "missing is defined": "false",
    "author|tojson(indent=1)": '{\n "name": "Ada",\n "tags": [\n  "x",\n  "y"\n ]\n}',
    "author.keys()": '["name", "tags"]', "author|string|upper": '{"NAME": "ADA", "TAGS": ["X", "Y"]}',
    "numbers|reverse": "[2, 1, 3]", "(1, 'a')": '[1, "a"]',
}  # fmt: skip


@pytest.mark.parametrize(("expression", "text"), AS_JSON.items())
def test_what_is_not_text_is_printed_as_json(expression: str, text: str) -> None:
    assert template(f"{{{{ {expression} }}}}").render(ROW) == text


def test_equal_rows_give_the_same_text_in_any_order_of_their_keys() -> None:
    source = (
        "{{ a }}{{ a|tojson }}{% for k in a %}{{ k }}{% endfor %}{{ a.items() }}{{ a|first }}{{ a|list }}{{ a|join }}"
    )
    rows: list[dict[str, Any]] = [{"a": {"x": 1, "y": [{"p": 1, "q": 2}]}}, {"a": {"y": [{"q": 2, "p": 1}], "x": 1}}]
    assert template(source).render(rows[0]) == template(source).render(rows[1])


CELLS = ["{{ 7*7 }}", "{% raw %}", "a\r\nb", "<&>", "\ud800", "\x00\x1b[31m", "{#", "`{{ self }}`"]


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_is_data(cell: str) -> None:
    source = "[{{ a }}]{% for b in c %}{{ b }}{% endfor %}"
    assert template(source).render({"a": cell, "c": [cell]}) == f"[{cell}]{cell}"


def test_a_key_wins_over_a_method_except_in_a_call() -> None:
    row = {"a": {"items": "x"}}
    assert template("{{ a.items }} {{ a.get('items') }} {{ a.items() }}").render(row) == 'x x [["items", "x"]]'


COLUMNS = {
    "no variable {{ true }}{{ none }}{{ 'x' }}": set(), "{% for x in x %}{{ x }}{{ loop.index }}{% endfor %}": {"x"},
    "{% for x in xs if y %}{% for y in x %}{{ y }}{% endfor %}{% else %}{{ x }}{% endfor %}": {"x", "xs", "y"},
    "{% if a is defined %}{{ b|d(c) }}{{ d[e] }}{% elif f %}{{ g.z }}{% endif %}{{ range }}": {*"abcdefg", "range"},
    "{{ ''.a and b }}{{ 1 if [].c else d }}": {"b", "d"},
}  # fmt: skip


@pytest.mark.parametrize(("source", "columns"), COLUMNS.items())
def test_variables_are_the_columns(source: str, columns: set[str]) -> None:
    assert template(source).variables == columns


def test_a_refused_template_can_be_raised() -> None:
    assert parse_or_raise("{{ a }}") is parse("{{ a }}")
    with pytest.raises(EvalopsError, match="the filter `nope`"):
        parse_or_raise("{{ a|nope }}")


# Rows that it cannot be rendered for

ABSENT = {
    "missing": [
        "{{ missing }}", "{{ missing.a.b|d('x') }}", "{{ (missing|upper)|d('x') }}", "{{ missing + 1 }}", "{{ [missing] }}",
        "{% if missing %}{% endif %}", "{% for a in missing %}{% endfor %}", "{{ missing.strip() }}", "{{ missing|items }}",
        "{{ missing is odd }}", "{{ 'a' ~ missing }}", "{{ not missing }}", "{{ missing == 1 }}", "{{ missing|tojson }}",
    ],
    "age": ["{{ author.age }}", "{{ messages[0]['age'] }}", "{{ question.age }}", "{{ messages|sort(attribute='age') }}"],
    "items": ["{{ author.items }}", "{{ question.items }}"], "loop": ["{{ loop.index }}"], "real": ["{{ n.real }}"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "source"), [(name, each) for name, sources in ABSENT.items() for each in sources])
def test_what_a_row_lacks_is_named(name: str, source: str) -> None:
    assert failure(source) == f"`{name}` is not in this row"


UNFIT = {
    "{% for w in question %}{% endfor %}": "only a list or an object can be gone through", "{{ n / 0 }}": "(ZeroDivisionError)",
    "{{ n + 'a' }}": "`+` is for numbers", "{{ question * n }}": "`*` is for numbers", "{{ words[9] }}": "a value is not in this row",
    "{{ words|sum }}": "`sum` cannot be used", "{{ question|truncate(1) }}": "`truncate` cannot be used",
    "{{ n|int('x', 16) }}": "`int` cannot be used", "{{ question.split('') }}": "`split` cannot be used",
    "{{ words.upper() }}": "`.upper()` is for another kind of value", "{{ question is even }}": "`is even` is for numbers",
}  # fmt: skip


@pytest.mark.parametrize(("source", "message"), UNFIT.items())
def test_a_row_that_does_not_fit_is_explained(source: str, message: str) -> None:
    assert message in failure(source)


LEAKS = ["a + n", "a < n", "b[n]", "b[a]", "b['k'][a]", "a|round", "[n][a]", "n.find(a)", "n[a].b", "o", "[o]"]


@pytest.mark.parametrize("expression", LEAKS)
def test_errors_repeat_no_cell_and_no_address(expression: str) -> None:
    message = failure(f"{{{{ {expression} }}}}", {"a": "s3cret", "b": {"k": {}}, "n": 3, "o": object()})
    assert "s3cret" not in message
    assert "0x" not in message


# Templates that are refused


@pytest.mark.parametrize(
    ("source", "code", "line", "message", "hint"),
    [
        ("a\n\n{{ x", "syntax", 3, "the template cannot be read: unexpected end of template", None),
        ("\n{% nope %}", "syntax", 2, "the template cannot be read: Encountered unknown tag 'nope'", None),
        ("\n{{ x|uper }}", "unknown-filter", 2, "the filter `uper` is not available", "did you mean `upper`?"),
        ("{{ x|xmlattr }}", "unknown-filter", 1, "the filter `xmlattr` is not available", "available: abs, "),
        ("{{ x is defned }}", "forbidden", 1, "the test `defned` is not available", "did you mean `defined`?"),
        ("{{ x.stripp() }}", "forbidden", 1, "`stripp()` is no method", "did you mean `strip`?"),
        ("\n\n{% set a = 1 %}", "forbidden", 3, "`set` is not available", "where it is used"),
        ("{% filter upper %}{% endfilter %}", "forbidden", 1, "`filter` is not available", "| upper"),
        ("{% for _ in x %}{% endfor %}", "forbidden", 1, "`_` is not a name", "dataset.columns"),
        ("{{ ﬁ }}{{ fi }}", "forbidden", 1, "`ﬁ` is not a name", "dataset.columns"),
        ("{{ x\n._id }}", "forbidden", 2, "`_id` is no part of a row", None),
        ("{% for x in y %}{{ loop }}{% endfor %}", "forbidden", 1, "`loop` is not a value", "loop.index"),
        ("{{ 1e999 }}", "forbidden", 1, "a number is too large", None),
        ("\n{{ x == [" + "1," * 3000 + "] }}", "too-large", 2, "too many parts", None),
        ("{{ " + "9" * 5000 + " }}", "too-large", 1, "too long", None),
        ("x" * 65537, "too-large", 1, "longer than 64 KiB", None),
    ],
)  # fmt: skip
def test_a_refusal_says_where_and_why(source: str, code: str, line: int, message: str, hint: str | None) -> None:
    found = problems(source)[0]
    assert (found.code, found.line) == (f"template/{code}", line)
    assert message in found.message
    assert hint is None or (found.hint and hint in found.hint)


def test_all_problems_are_told_at_once_in_order() -> None:
    found = problems("{{ a|nope }}\n{{ b.__class__ }}\n{% set c = 1 %}")
    assert [problem.line for problem in found] == [1, 2, 3]
    assert len(problems("{{ a|nope }}\n" * 500)) == 20


WAYS = ["({} ~ 1)", "({} == 1)", "[{}]", "{}|trim", "{}.strip()", "({})[0:]", "(not {})", "{{'a': {}}}", "({} and 1)",
        "({} if x else 1)", "({} is odd)", "({} + 1)", "x[{}]", "(1, {})", "x|d({})", "x.find({})"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_deepest_accepted_template_can_be_compiled(way: str) -> None:
    for depth in range(49, 20, -1):
        expression = functools.reduce(lambda inner, _: way.format(inner), range(depth), "x")
        if isinstance(deepest := parse(f"{{{{ {expression} }}}}"), Template):
            break
    assert isinstance(deepest, Template)
    try:
        assert deepest.render({"x": "abc"})
    except RenderError as error:
        assert not any(name in error.message for name in ("SyntaxError", "MemoryError", "RecursionError"))


# A hostile template is refused, or ends cheaply

REFUSED = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ x['__class__'] }}", "{{ x['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ x|attr('__class__') }}", "{{ x|map('attr', '__class__') }}", "{{ '{0.__class__}'.format(x) }}",
    "{{ x|format('a') }}", "{{ self }}", "{{ self._TemplateReference__context }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}", "{{ lipsum.__globals__ }}", "{{ dict(a=1) }}",
    "{{ range(10**9) }}", "{% for a in range(1000000000) %}{% endfor %}", "{{ 10**9**9 }}",
    "{{ x.center(1000000000) }}", "{{ x.expandtabs(1000000000) }}", "{{ x.encode() }}", "{{ x.replace('a', x) }}",
    "{{ x|batch(1000000000, 'x')|list }}", "{{ x|indent(1000000000) }}", "{{ many|unique }}",
    "{{ d.update({'a': 1}) }}", "{{ d.pop('a') }}", "{{ many.append(1) }}", "{{ x() }}", "{{ x['upper']() }}",
    "{{ x|join(*many) }}", "{{ x.strip(**d) }}", "{{ x is divisibleby(*many) }}", "{{ caller() }}{{ super() }}",
    "{% for a in many %}{{ loop(many) }}{% endfor %}", "{% for a in many %}{{ loop.__class__ }}{% endfor %}",
    "{% for a in many %}{{ loop.changed(a) }}{{ [loop] }}{% endfor %}", "{% for loop in many %}{% endfor %}",
    "{% for a in many %}{% for b in many %}{% for c in many %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% for d.a in many %}{% endfor %}", "{% set a = x %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% call x() %}{% endcall %}", "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% extends x %}",
    "{% filter upper %}x{% endfilter %}", "{% with a = x %}{% endwith %}", "{% autoescape true %}{% endautoescape %}",
    "{{ " + "9" * 5000 + " }}", "{{ 0x" + "f" * 60000 + " }}", "{{ " + "(" * 30000 + " }}",
    "{{ " + "(" * 300 + "1" + ")" * 300 + " }}", "{{ " + "not " * 15000 + "x }}", "{{ x" + ".a" * 30000 + " }}",
    "{{ x" + " if x else x" * 5000 + " }}", "{% if x %}" * 5000, "{{" * 30000, "{{ '" + "a" * 60000,
    "{{ x|" + "a" * 60000 + " }}", "{{ {" + "x: 2, " * 300 + "} }}", "{{ \ud800 }}",
]  # fmt: skip

ENDED = [
    "{{ big|replace('a', big) }}", "{{ x|replace('', big)|replace('', big) }}", "{{ big|replace('b', '')|list }}",
    "{{ " + " ~ ".join(["big"] * 900) + " }}", "{{ big }}" * 600, "{{ [big, big]|join }}", "{{ many|join(big) }}",
    "{{ (big + big)|length }}", "{{ [" + "half + many, " * 300 + "] }}", "{{ [" + "half + half, " * 400 + "] }}",
    "{% for a in many %}{{ big }}{% endfor %}", "{% for a in many %}{{ big|upper|length }}{% endfor %}",
    "{% for a in many %}{% for b in many %}x{% endfor %}{% endfor %}", "{{ many|sort(attribute='a') }}",
    "{% for a in many %}{% for b in many if b < 0 %}x{% endfor %}{% endfor %}", "{{ x['__cla' ~ 'ss__'] }}",
    "{% for a in many %}{{ big == big2 }}{{ 'b' in big }}{% endfor %}", "{% for a in many %}{{ huge }}{% endfor %}",
    "{% for a in many %}{{ many == many[1:] }}{% endfor %}", "{% for a in many %}{{ big[::2]|length }}{% endfor %}",
    "{% for a in many %}{{ many|sort|length }}{% endfor %}", "{{ [" + "big[::2], " * 400 + "]|length }}",
    "{% for a in many %}{{ '" + "a" * 60000 + "'.split('a')|length }}{% endfor %}", "{{ big.split('a')|length }}",
    "{{ [" + "big|upper, " * 600 + "]|length }}", "{{ [" + "big, " * 1500 + "] }}",
    "{{ [" + "big, " * 1500 + "]|sort }}", "{{ big|title|length }}", "{{ ctl|tojson }}",
    "{{ deepest|tojson(indent=8) }}", "{{ d|tojson(indent=1000000000) }}", "{{ big.strip('" + "b" * 30000 + "') }}",
    "{{ big|trim(big2) }}", "{{ many|sort(attribute='" + "0." * 30000 + "0') }}", "{{ n|round(1000000000) }}",
    "{{ n|round(-1000000000) }}", "{{ n|round(method='ceil', precision=1000000000) }}",
    "{{ [many, many]|sum(start=[]) }}", "{{ huge * huge }}", "{{ " + "n * " * 30 + "n }}", "{{ big * n }}",
    "{{ [1] * n }}", "{{ '%1000000000d' % 1 }}", "{{ '%1000000000d' is odd }}",
    "{{ '%1000000000d' is divisibleby 7 }}", "{{ big % n }}",
    "{% for h in [big|int(0, 16)] %}{% for a in many %}{{ d[h] is defined }}{% endfor %}{% endfor %}",
    "{{ 'a' * 1000000000 }}", "{{ deep }}", "{{ deep == deep2 }}", "{{ d[many] }}", "{{ d.a.b.c }}", "{{ x[x] }}",
    "{{ cycler }}", "{{ x.upper }}", "{{ many|max(attribute='__class__') }}", "{{ [d]|join(attribute='__class__') }}",
    "{{ 1" + " ~ 1" * 900 + " ~ big ~ big }}",
]  # fmt: skip

HARMLESS = {
    "{{ '" + "9" * 5000 + "'|int }}": "0", "{{ '1e999'|int }}": "0", "{{ 'nan'|float|int }}": "0",
    "{{ d.get('__class__', 'no') }}": "no", "{{ '\\x5f\\x5fclass__' }}": "__class__",
    "{{ '{0.__class__}' ~ x }}": "{0.__class__}abc", "{{ big|length }}{{ big[:2] }}": "900000aa",
    "{{ '\ud800' }}\ud800": "\ud800\ud800", "{{ x|truncate(1000000000) }}": "abc",
}  # fmt: skip

SCRIPT = """
import json, pathlib, resource, sys
from evalops.template import RenderError, Template, parse

payloads = json.load(sys.stdin)
deep, deep2, deepest = [], [], list(range(2000))
for _ in range(5000):
    deep, deep2 = [deep], [deep2]
for _ in range(200):
    deepest = [deepest]
row = {"x": "abc", "n": 7, "d": {"a": 1}, "many": list(range(10_000)), "half": [0] * 100_000, "huge": 10**4000,
       "big": "a" * 900_000, "big2": "b" + "a" * 899_999, "ctl": chr(0) * 900_000,
       "deep": deep, "deep2": deep2, "deepest": deepest}
parse("{{ a }}").render({"a": [1]})
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
memory = pages * resource.getpagesize() + 128 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))

def outcome(payload):
    result = parse(payload)
    if not isinstance(result, Template):
        return "refused"
    try:
        return "printed " + result.render(row)[:100]
    except RenderError as error:
        return error.message if "MemoryError" in error.message else "ended"

json.dump([outcome(payload) for payload in payloads], sys.stdout)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of address space")
def test_attacks_are_refused_or_end_within_128_mib_and_seconds() -> None:
    payloads = [*REFUSED, *ENDED, *HARMLESS]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(payloads), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    wanted = ["refused"] * len(REFUSED) + ["ended"] * len(ENDED) + [f"printed {text}" for text in HARMLESS.values()]
    outcomes = dict(zip(payloads, json.loads(run.stdout), strict=True))
    assert not {
        each[:80]: outcomes[each] for each, want in zip(payloads, wanted, strict=True) if outcomes[each] != want
    }


def test_output_is_capped() -> None:
    row = {"a": "x" * MAX_TEXT}
    assert len(template("{{ a }}").render(row)) == MAX_TEXT
    assert failure("{{ a }}.", row) == "a text is longer than 1,048,576 characters"


def test_the_budget_is_for_one_render() -> None:
    loop = template("{% for a in many %}{{ a }}{% endfor %}")
    assert {len(loop.render({"many": list(range(10_000))})) for _ in range(6)} == {38890}


def test_the_data_is_not_changed() -> None:
    row = json.loads(json.dumps(ROW))
    template("{{ words|sort }}{{ words|reverse }}{{ author.items() }}{{ messages + words }}").render(row)
    assert row == ROW


# Any template of the grammar

NAMES = st.sampled_from(["a", "b", "c", "xs", "d", "n", "missing"])
ATOMS = NAMES | st.sampled_from(["'t'", "1", "0", "2.5", "true", "none", "[]", "[1, 'x']", "{'k': 1}", "('x' if b)"])
BINARY = st.sampled_from(["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "in", "not in", "and", "or"])
USES = ["upper", "length", "join", "sort", "first", "tojson", "tojson(2)", "int", "round", "d('z')", "list", "reverse",
        "replace('a', 'b')", "sum", "max", "title", "string", "abs", "truncate(4)", "items", "dictsort"]  # fmt: skip
ACCESS = [".k", "['k']", "[0]", "[:2]", ".strip()", ".items()", ".items", ".split()", ".get('k')", "[a]"]
ACCESS += [" is defined", " is none", " is string", " is odd", " is mapping", " is not undefined"]
SUFFIX = st.sampled_from([f"|{name}" for name in USES] + ACCESS)
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({} {} {})".format, inner, BINARY, inner),
        st.builds("({}){}".format, inner, SUFFIX),
        st.builds("({} if {} else {})".format, inner, inner, inner),
    ),
    max_leaves=8,
)
TEXT = st.text(alphabet="ab \n<é🙂", max_size=5)
BLOCKS = st.recursive(
    TEXT | EXPRESSIONS.map("{{{{ {} }}}}".format),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, EXPRESSIONS, inner, inner),
        st.builds("{{% for {} in {} %}}{}{{{{ loop.index }}}}{{% endfor %}}".format, NAMES, EXPRESSIONS, inner),
    ),
    max_leaves=5,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("k"), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.fixed_dictionaries({}, optional=dict.fromkeys(("a", "b", "c", "xs", "d", "n"), JSON))


@settings(max_examples=150, deadline=None)
@given(source=BLOCKS, row=ROWS)
def test_only_render_errors_are_raised_and_no_address_is_printed(source: str, row: dict[str, Any]) -> None:
    result = parse(source)
    if isinstance(result, Template):
        try:
            assert " at 0x" not in result.render(row)
        except RenderError as error:
            assert error.message


@settings(max_examples=150, deadline=None)
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
