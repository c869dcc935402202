"""Templates: what they print, what they are refused for, and that a hostile one is cheap."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from typing import Any

import jinja2
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from evalops.errors import EvalopsError
from evalops.template import MAX_DEPTH, MAX_TEXT, Problem, RenderError, Template, parse, parse_or_raise

JINJA = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)

ROW: dict[str, Any] = {
    "question": "How are you?", "response": " Fine, *thank* you ", "empty": "", "n": 7, "ratio": 2.5, "flag": True,
    "nothing": None, "words": ["b", "a", "C"], "numbers": [3, 1, 2], "author": {"name": "Ada", "tags": ["x", "y"]},
    "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}], "odd": {"items": "x"},
}  # fmt: skip
BEFORE = json.dumps(ROW)


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


def wrapped(text: str) -> str:
    return text if text.startswith("{") and text[1:2] in "{%" else f"{{{{ {text} }}}}"


PRINTED = [
    "Q: {{ question }}\nA:{{ response }}\n\n", "\r\n{{ n }}\r{{ 'a\r\nb' }}\n", "é {{ '🙂' ~ question }} \x00",
    "{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m.content }}{{ ', ' if not loop.last }}\n{% endfor %}",
    "{% for m in messages if m.role == 'user' %}{{ loop.index0 }}{{ loop.length }}{{ m.role }}{% endfor %}",
    "{% for m in messages %}{% for w in words %}{{ loop.revindex }}{{ w }}{% else %}-{% endfor %}{% endfor %}",
    "{% for n in words %}{{ n }}{% endfor %}{{ n }}{% for w in [] %}{% else %}{{ n }}{% endfor %}",
    "{% for w in words %}{{ loop.previtem|d('-') }}{{ loop.nextitem|d('-') }}{% endfor %}",
    "{% for k, v in author.items() %}{{ k }};{% endfor %}{% for k in author %}{{ k }}{% endfor %}",
    "{% for n in numbers|reverse %}{{ n }}{% endfor %}{% for w in words|sort %}{{ w }}{% endfor %}",
    "{% for k, v in author|dictsort %}{{ k }};{% endfor %}{% for k, v in author|items %}{{ k }}{% endfor %}",
    "{% if n > 5 and not empty %}big{% elif n == 5 %}five{% else %}small{% endif %}{% if 1 < n <= 7 %}in{% endif %}",
    "{% if n < 5 or empty %}big{% elif n == 7 %}seven{% else %}small{% endif %}{% if 'a' in words %}!{% endif %}",
    "{% if 'x' not in question %}?{% endif %}{% if 'name' in author %}!{% endif %}{% if n[9] is defined %}9{% endif %}",
    "{% raw %}{{ not read }}{% endraw %}{# a comment #} {{- ' x ' -}} {{ '\\x41\\u00e9\\n' }} end",
]  # fmt: skip
VALUES = [
    "author.name", "messages[0].content", "messages[-1]['role']", "('a', 'b')[1]", "'x' if empty",
    "'a' if n % 2 else 'b'", "n + 1", "n * 2", "n / 2", "n // 2", "-n", "-3|abs", "(words + ['z'])|join('-')",
    "question ~ ' ' ~ n", "'a' + 'b'", "empty or 'no'", "question and 'some'", "missing|default('none')", "n|upper",
    "author.age|d('old')", "empty|d('blank', true)", "'x' if missing is defined else 'y'", "response|upper|lower|trim",
    "response|capitalize", "question|wordcount", "\"it's a (good) well-known day\"|title", "response.strip().upper()",
    '"a\\"b"', "words|join(', ')", "messages|join('; ', attribute='role')", "numbers|join", "words|sort|join",
    "words|sort(true)|join", "words|sort(case_sensitive=true)|join", "[author]|max(attribute='name')|length",
    "numbers|sum(start=1)", "'ab'|list|join('.')", "n|string ~ '!'", "words|reverse|join", "question|reverse",
    "words|length", "question|replace('', '-')", "question|replace('you', '')", "question|truncate(9)",
    "question|truncate(9, true, leeway=0)", "question|truncate(8, false, '', 0)", "'42'|int + 1", "'4.7'|int",
    "'x'|int(-1)", "'x'|float", "2.345|round(2)", "2.1|round(0, 'ceil')", "ratio|round", "2.9|round(method='floor')",
    "question[:3]", "words[1:]|join", "question[::-1]", "1 if n is even", "{'a': 'good', 'b': 'bad'}['a']",
    "'a' if n is odd", "'a' if n is divisibleby 7", "question.split()[0]",
    "'ab'.startswith('a') and author.get('age', 'old')", "'a,b'.split(',', maxsplit=1)|join('+')",
]  # fmt: skip


@pytest.mark.parametrize("source", [*PRINTED, *map(wrapped, VALUES)])
def test_prints_what_jinja_prints(source: str) -> None:
    assert template(source).render(ROW) == JINJA.from_string(source).render(ROW)
    assert template(source).variables == find_undeclared_variables(JINJA.parse(source))


AS_JSON = {
    "flag": "true", "nothing": "null", "n": "7", "ratio": "2.5", "words": '["b", "a", "C"]',
    "flag ~ nothing": "truenull", "author": '{"name": "Ada", "tags": ["x", "y"]}',
    "messages[0]": '{"content": "Hi", "role": "user"}', "missing is defined": "false", "[flag, 1]|join('/')": "true/1",
    "'é<&>\"'|tojson": '"é<&>\\""', "(1, 'a')": '[1, "a"]', "odd.items": "x", "odd.items()": '[["items", "x"]]',
    "numbers|reverse": "[2, 1, 3]", "author.keys()": '["name", "tags"]', "author|string|upper|length": "35",
    "author|tojson(indent=1)": '{\n "name": "Ada",\n "tags": [\n  "x",\n  "y"\n ]\n}',
}  # fmt: skip


@pytest.mark.parametrize(("value", "text"), AS_JSON.items())
def test_what_is_not_text_is_printed_as_json(value: str, text: str) -> None:
    assert template(wrapped(value)).render(ROW) == text
    assert json.dumps(ROW) == BEFORE


@pytest.mark.parametrize("use", ["a", "a|tojson", "a|list", "a|first", "a|join", "a.items()", "a|items", "a.values()"])
def test_equal_rows_give_the_same_text_in_any_order_of_their_keys(use: str) -> None:
    source = wrapped(use) + "{% for key in a %}{{ key }}{% endfor %}"
    rows: list[dict[str, Any]] = [{"a": {"x": 1, "y": [{"p": 1, "q": 2}]}}, {"a": {"y": [{"q": 2, "p": 1}], "x": 1}}]
    assert template(source).render(rows[0]) == template(source).render(rows[1])


COLUMNS = {
    "no variable {{ true }}{{ none }}{{ 'x' }}": set(), "{% for x in x %}{{ x }}{{ loop.index }}{% endfor %}": {"x"},
    "{% for x in xs if y %}{% for y in x %}{{ y }}{% endfor %}{% else %}{{ x }}{% endfor %}": {"x", "xs", "y"},
    "{% if a is defined %}{{ b|d(c) }}{{ d[e] }}{% elif f %}{{ g.z }}{% endif %}": set("abcdefg"),
    "{{ ''.a and b }}{{ 1 if [].c else d }}{{ range }}": {"b", "d", "range"},
}  # fmt: skip


@pytest.mark.parametrize(("source", "columns"), COLUMNS.items())
def test_variables_are_the_columns(source: str, columns: set[str]) -> None:
    assert template(source).variables == columns


UNFIT = {
    "`missing` is not in this row": [
        "missing", "missing.a.b|d('x')", "(missing|upper)|d('x')", "missing + 1", "[missing]", "missing is odd",
        "missing.strip()", "missing|items", "'a' ~ missing", "not missing", "missing == 1", "missing|tojson",
        "{% if missing %}{% endif %}", "{% for a in missing %}{% endfor %}", "missing[1:]",
    ],
    "`age` is not in this row": ["author.age", "messages[0]['age']", "question.age", "messages|sort(attribute='age')"],
    "`items` is not in this row": ["author.items", "question.items"], "`loop` is not in this row": ["loop.index"],
    "a value is not in this row": ["words[9]"], "`real` is not": ["n.real"], "(ZeroDivisionError)": ["n / 0"],
    "can be gone through": ["{% for w in question %}{% endfor %}", "n|join"], "`+` is for numbers": ["n + 'a'"],
    "`*` is for numbers": ["question * n", "words * n"], "`is even` is for numbers": ["words is even"],
    "`sum` cannot": ["words|sum"], "`truncate` cannot": ["question|truncate(1)"], "`int` cannot": ["n|int(0, 16)"],
    "`split` cannot": ["question.split('')"], "`.upper()` is for": ["words.upper()"], "(TypeError)": ["2[:1]"],
}  # fmt: skip


@pytest.mark.parametrize(("message", "source"), [(message, each) for message, all_ in UNFIT.items() for each in all_])
def test_what_a_row_lacks_is_named(message: str, source: str) -> None:
    assert message in failure(wrapped(source))


LEAKS = ["a + n", "a < n", "b[n]", "b[a]", "b['k'][a]", "a|round", "[n][a]", "n.find(a)", "n[a].b", "o", "[o]"]


def test_errors_repeat_no_cell_and_no_address() -> None:
    row = {"a": "s3cret", "b": {"k": {}}, "n": 3, "o": object()}
    messages = [failure(wrapped(each), row) for each in LEAKS]
    assert not [each for each in messages if "s3cret" in each or "0x" in each]


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
        ("{{ ﬁ }}{{ fi }}", "forbidden", 1, "`ﬁ` is not a name", "dataset.columns"),
        ("{{ x\n._id }}", "forbidden", 2, "`_id` is no part of a row", None),
        ("{% for x in y %}{{ loop }}{% endfor %}", "forbidden", 1, "`loop` is not a value", "loop.index"),
        ("{{ 1e999 }}", "forbidden", 1, "a number is too large", None),
        ("{{ x\n" + " == 1" * 3000 + " }}", "too-large", 2, "too many parts", None),
        ("x" * 65537, "too-large", 1, "longer than 64 KiB", None),
    ],
)  # fmt: skip
def test_a_refusal_says_where_and_why(source: str, code: str, line: int, message: str, hint: str | None) -> None:
    found = problems(source)[0]
    assert (found.code, found.line) == (f"template/{code}", line)
    assert message in found.message
    assert hint is None or (found.hint and hint in found.hint)


def test_all_problems_are_told_in_order_and_can_be_raised() -> None:
    found = problems("{{ a|nope }}\n{{ b.__class__ }}\n{% set c = 1 %}")
    assert [problem.line for problem in found] == [1, 2, 3]
    assert len(problems("{{ a|nope }}\n" * 500)) == 20
    assert parse_or_raise("{{ a }}") is parse("{{ a }}")
    with pytest.raises(EvalopsError, match="the filter `nope`"):
        parse_or_raise("{{ a|nope }}")


WAYS = ["({} ~ 1)", "({} == 1)", "[{}]", "{}|trim", "{}.strip()", "({})[0:]", "(not {})", "{{'a': {}}}", "({} and 1)",
        "({} if x else 1)", "({} is odd)", "({} + 1)", "x[{}]", "(1, {})", "x|d({})", "x.find({})"]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_deepest_accepted_template_can_be_compiled(way: str) -> None:
    levels = [functools.reduce(lambda inner, _: way.format(inner), range(n), "x") for n in range(MAX_DEPTH, 20, -1)]
    deepest = next(found for each in levels if isinstance(found := parse(f"{{{{ {each} }}}}"), Template))
    try:
        assert deepest.render({"x": "abc"})
    except RenderError as error:
        assert "cannot be rendered" not in error.message  # what Python cannot compile


# A hostile template is refused, or ends cheaply

REFUSED = [
    "''.__class__.__mro__[1].__subclasses__()", "x['__class__']", "x['\\x5f\\x5fclass\\x5f\\x5f']",
    "x|attr('__class__')", "x|map('attr', '__class__')", "'{0.__class__}'.format(x)", "self",
    "self._TemplateReference__context", "cycler.__init__.__globals__.os.popen('id').read()", "lipsum.__globals__",
    "range(10**9)", "10**9**9", "x.center(1000000000)", "x.replace('a', x)", "x|batch(1000000000, 'x')|list",
    "many|unique", "d.update({'a': 1})", "many.append(1)", "x()", "x['upper']()", "x|join(*many)", "x.strip(**d)",
    "x is divisibleby(*many)", "{% for loop in many %}{% endfor %}", "{% for a in range(1000000000) %}{% endfor %}",
    "{% for a in many recursive %}{{ loop(many) }}{% endfor %}", "{% for a in many %}{{ loop.__class__ }}{% endfor %}",
    "{% for a in d %}{{ [loop] }}{% endfor %}",
    "{% for a in many %}{% for b in many %}{% for c in many %}x{% endfor %}{% endfor %}{% endfor %}",
    "{% set a = x %}", "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "{% call x() %}{% endcall %}",
    "{% include '/etc/passwd' %}", "{% import 'os' as os %}", "{% with a = x %}{% endwith %}",
    "{% autoescape true %}{% endautoescape %}", "9" * 5000, "0x" + "f" * 60000, "(" * 30000,
    "(" * 300 + "1" + ")" * 300, "not " * 15000 + "x", "x" + ".a" * 9000, "x" + " if x else x" * 5000,
    "{% if x %}" * 5000, "{{" * 30000, "{{ '" + "a" * 60000, "x|" + "a" * 60000, "{'a': 1, " + "x: 2, " * 300 + "}",
    "\ud800",
]  # fmt: skip
LOOPED = [
    "{{ big }}", "{{ big|upper|length }}", "{{ big == big2 }}{{ 'b' in big }}", "{{ huge }}", "{{ many == many[1:] }}",
    "{{ big[::2]|length }}", "{{ many|sort|length }}", "{{ '" + "a" * 60000 + "'.split('a')|length }}",
    "{% for b in many %}x{% endfor %}", "{% for b in many if b < 0 %}x{% endfor %}", "{{ d|tojson(2)|length }}" * 9,
    "{% for h in [big|int(0, 16)] %}{% for a in many %}{{ d[h] is defined }}{% endfor %}{% endfor %}",
]  # fmt: skip
ENDED = [
    *("{% for a in many %}" + body + "{% endfor %}" for body in LOOPED[:-1]), LOOPED[-1], "{{ big }}" * 600,
    "big|replace('a', big)", "x|replace('', big)|replace('', big)", "big|list", " ~ ".join(["big"] * 900),
    "(big + big)|length", "[" + "half + many, " * 300 + "]", "[" + "big[::2], " * 400 + "]|length",
    "big.split('a')|length", "[" + "big|upper, " * 600 + "]|length", "[" + "big, " * 1500 + "]",
    "[" + "big, " * 1500 + "]|sort", "big|title|length", "[" + "ctl, " * 12 + "]|tojson|length",
    "deepest|tojson(indent=8)", "d|tojson(indent=1000000000)", "big.strip('" + "b" * 30000 + "')", "big|trim(big2)",
    "many|sort(attribute='" + "0." * 30000 + "0')", "n|round(1000000000)", "n|round(-1000000000)",
    "n|round(method='ceil', precision=1000000000)", "[many, many]|sum(start=[])", "huge * huge", "n * " * 30 + "n",
    "[1] * n", "'a' * 1000000000", "'%1000000000d' % 1", "'%1000000000d' is odd", "'%1000000000d' is divisibleby 7",
    "deep", "deep == deep2", "d[many]", "d.a.b.c", "x[x]", "cycler", "x.upper", "x['__cla' ~ 'ss__']",
    "many|max(attribute='__class__')", "[d]|join(attribute='__class__')", "1" + " ~ 1" * 900 + " ~ big ~ big",
]  # fmt: skip
HARMLESS = {
    "'" + "9" * 5000 + "'|int": "0", "'1e999'|int": "0", "'nan'|float|int": "0", "d.get('__class__', 'no')": "no",
    "'\\x5f\\x5fclass__'": "__class__", "'{0.__class__}' ~ x": "{0.__class__}abc", "big[:2]": "aa",
    "big|length": "900000", "'\ud800'": "\ud800", "x|truncate(1000000000)": "abc",
}  # fmt: skip

SCRIPT = """
import json, pathlib, resource, sys
from evalops.template import RenderError, Template, parse
payloads = json.load(sys.stdin)
deep, deep2, deepest = [], [], list(range(2000))
for level in range(5000):
    deep, deep2, deepest = [deep], [deep2], [deepest] if level < 200 else deepest
row = {"x": "abc", "n": 7, "d": {"a": 1}, "many": list(range(10_000)), "half": [0] * 100_000, "huge": 10**4000,
       "big": "a" * 900_000, "big2": "b" + "a" * 899_999, "ctl": chr(0) * 900_000,
       "deep": deep, "deep2": deep2, "deepest": deepest}
pages = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
memory = pages * resource.getpagesize() + 128 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
resource.setrlimit(resource.RLIMIT_CPU, (20, 20))
def outcome(payload):
    found = parse(payload)
    try:
        return "printed " + found.render(row)[:100] if isinstance(found, Template) else "refused"
    except RenderError as error:
        return error.message if "MemoryError" in error.message else "ended"
json.dump([outcome(payload) for payload in payloads], sys.stdout)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's accounting of address space")
def test_attacks_are_refused_or_end_within_128_mib_and_seconds() -> None:
    payloads = [wrapped(each) for each in (*REFUSED, *ENDED, *HARMLESS)]
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(payloads), capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr[-2000:]
    wanted = ["refused"] * len(REFUSED) + ["ended"] * len(ENDED) + [f"printed {text}" for text in HARMLESS.values()]
    outcomes = zip(payloads, json.loads(run.stdout), wanted, strict=True)
    assert [(payload[:80], outcome, want) for payload, outcome, want in outcomes if outcome != want] == []


def test_output_is_capped_and_the_budget_is_for_one_render() -> None:
    row = {"a": "x" * MAX_TEXT, "many": list(range(10_000))}
    assert len(template("{{ a }}").render(row)) == MAX_TEXT
    assert failure("{{ a }}.", row) == "a text is longer than 1,048,576 characters"
    assert {len(template("{% for a in many %}{{ a }}{% endfor %}").render(row)) for _ in range(6)} == {38890}


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
CELLS = st.text() | st.sampled_from(["{{ 7*7 }}", "{% raw %}", "{#", "<&>", "\r\n", "\ud800", "{{ self }}"])
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


JUNK = st.text(alphabet="{}%#- '\"\\abx_.|()[],:1=*~\n", max_size=60).map("{{{{ {}".format)


@settings(max_examples=150, deadline=None)
@given(source=BLOCKS | JUNK, row=ROWS)
def test_only_problems_and_render_errors_come_out_and_no_address(source: str, row: dict[str, Any]) -> None:
    found = parse(source)
    try:
        assert not isinstance(found, Template) or " at 0x" not in found.render(row)
        assert isinstance(found, Template) or all(problem.message and problem.line >= 1 for problem in found)
    except RenderError as error:
        assert error.message


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(CELLS, min_size=3, max_size=3), between=st.lists(TEXT, min_size=4, max_size=4))
@example(cells=["{{ 7*7 }}", "{% raw %}", "a\r\nb\ud800\x00\x1b[31m"], between=["", "<&>", "-", "\n"])
def test_cells_appear_as_they_are(cells: list[str], between: list[str]) -> None:
    source = between[0] + "{{ a }}" + between[1] + "{{ d.k }}" + between[2] + "{{ xs[0] }}" + between[3]
    row = {"a": cells[0], "d": {"k": cells[1]}, "xs": [cells[2]]}
    expected = between[0] + cells[0] + between[1] + cells[1] + between[2] + cells[2] + between[3]
    assert template(source).render(row) == expected
