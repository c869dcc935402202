"""The named sets: their form, their digests, and a second way to every answer that has one."""

from __future__ import annotations

import ast
import hashlib
import json
import re
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import chain, combinations, permutations, product
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Cli, Folder

from evalops import benchmarks, template
from evalops.evaluators import answer
from evalops.evaluators.pattern import Pattern

Row = dict[str, str]

# A set never changes: a specification that names it means this content. A change gets the next version's name.
DIGESTS = {
    "reasoning-benchmark-v1": "d6e40c3c9dc780aa98d61e9ecf754bdae85b1f09b45afa966095c3eb8ddaa425",
    "qa-benchmark-v1": "6f614592766f16612b8b74feba4c89a7a1adeb21b2aa2865922eccab2b3b2e49",
    "code-benchmark-v1": "51df4a89cda44798f2f80685a76465ab5d2d5c987d58ff6ecbbbcf5265d3bfd7",
    "math-benchmark-v1": "bbc70f578296646e8d82bb0d8a0feac7d47c9d56cd435780c0a2bf287c01f928",
    "reading-comprehension-v1": "ff4cdffffc217110886d1ecfc7d5bd08c3f3347715c9027e5fd8df6624e4a39f",
    "safety-benchmark-v1": "71a6582844b85fb7d5e19a79d5c858e142b29cac2362f7c303e738c5196fb71e",
    "standard-benchmark-v1": "54bd454589ce76cc4ba58fe4acf84fc934748eae4a3c11fc1ab6341853a065e5",
}
UNION = "standard-benchmark-v1"
SETS = [name for name in DIGESTS if name != UNION]
DERIVATIONS = Path(__file__).parent / "derivations"


def content(name: str) -> bytes:
    with benchmarks.open(name) as stream:
        return stream.read()


ROWS: dict[str, list[Row]] = {name: [json.loads(line) for line in content(name).splitlines()] for name in DIGESTS}
REASONING, QA, CODE, MATH, READING, SAFETY = (ROWS[name] for name in SETS)


def derivations(name: str) -> dict[str, dict[str, Any]]:
    lines = (DERIVATIONS / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    found = {each["id"]: each for each in map(json.loads, lines)}
    assert len(found) == len(lines)
    assert set(found) <= {row["id"] for row in ROWS[name]}
    return found


def each(many: list[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", many, ids=[row["id"] for row in many])


# --- the registry ---


def test_the_registry_has_the_sets_and_their_union_last() -> None:
    assert benchmarks.names() == tuple(DIGESTS)
    assert benchmarks.entry(UNION).members == tuple(SETS)
    with pytest.raises(KeyError):
        benchmarks.entry("math-benchmark-v2")
    with pytest.raises(KeyError):
        benchmarks.open("../registry")


@pytest.mark.parametrize("name", DIGESTS)
def test_an_entry_says_what_is_there(name: str) -> None:
    entry = benchmarks.entry(name)
    assert hashlib.sha256(content(name)).hexdigest() == entry.sha256 == DIGESTS[name]
    assert entry.name.endswith(f"-v{entry.version}")
    assert entry.rows == len(ROWS[name])
    assert {tuple(row) for row in ROWS[name]} == {entry.columns}
    assert {row["category"] for row in ROWS[name]} == set(entry.categories)
    assert entry.licence == "CC0-1.0"
    assert all((entry.title, entry.description, entry.verified))


def test_the_folder_holds_nothing_else() -> None:
    found = {path.name for path in Path(benchmarks.__file__).parent.iterdir() if path.name != "__pycache__"}
    assert found == {"__init__.py", "registry.json", *(f"{name}.jsonl" for name in SETS)}


def test_importing_the_package_reads_nothing() -> None:
    code = (
        "import sys; sys.addaudithook(lambda event, at: event == 'open' and 'benchmarks' in str(at[0])"
        " and str(at[0]).endswith(('.json', '.jsonl')) and sys.exit('it read ' + str(at[0])))\n"
        "import evalops.benchmarks\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", DIGESTS)
def test_the_default_template_reads_columns_of_the_set(name: str) -> None:
    entry = benchmarks.entry(name)
    for source in filter(None, (entry.template, entry.judge_template)):
        parsed = template.parse(source)
        assert isinstance(parsed, template.Template)
        assert "prompt" in parsed.variables
        assert parsed.variables <= set(entry.columns) - {"id", "gold", "category", "difficulty", "set"}
    assert entry.cluster is None or entry.cluster in entry.columns


def read(name: str, reply: str) -> str:
    """What the default evaluator of a set compares with `gold`."""
    evaluator = benchmarks.entry(name).evaluator
    if evaluator["kind"] == "choice":
        return answer.choice(reply).text
    extract = evaluator["extract"]
    return answer.extract(reply, extract if extract in answer.WORDS else Pattern(extract)).text


@pytest.mark.parametrize("name", DIGESTS)
def test_the_default_evaluator_finds_the_answer_in_a_usual_reply(name: str) -> None:
    for row in ROWS[name]:
        for reply in ("Answer: {}", "I count 7 of them.\n\nAnswer: {}\n", "My first answer: no.\n**Answer:** {}"):
            assert read(name, reply.format(row["gold"])) == row["gold"]


@pytest.mark.parametrize("name", ["qa-benchmark-v1", "reading-comprehension-v1", UNION])
def test_an_answer_may_come_in_a_sentences_dress(name: str) -> None:
    for reply in ("Answer: The heart.", "answer: `heart`", '**Answer: "heart"**', "Answer: a heart"):
        assert read(name, reply) == "heart"
    assert read(name, "the answer is on the tip of my tongue\nAnswer: -4") == "-4"
    assert read(name, "Answer: A") == "A"


@pytest.mark.parametrize(
    "name", ["qa-benchmark-v1", "code-benchmark-v1", "reading-comprehension-v1", "safety-benchmark-v1", UNION]
)
def test_a_reply_without_an_answer_has_none(name: str) -> None:
    assert read(name, "I do not know.\nThe answer was never my strong side.") == ""


def specification(name: str) -> str:
    """A spec with all that the registry suggests for a set: a small model answers it, or labels its replies."""
    entry = benchmarks.entry(name)
    model = {"model": "embedded/smollm2-135m", "max_tokens": 4}
    value: dict[str, Any] = {"version": 1, "name": name, "type": entry.type, "dataset": {"path": name, "id": "id"}}
    if entry.type == "classify":
        judge = {"model": "embedded/smollm2-135m", "verdict": "likelihood", "system_template": entry.judge_template}
        value |= {
            "labels": [*entry.labels],
            "pass_labels": [*entry.pass_labels],
            "judge": judge,
            "model_to_evaluate": entry.response,
        }
    else:
        value |= {"model_to_evaluate": model | {"input_template": entry.template}, "evaluator": dict(entry.evaluator)}
    value |= {"gold": "gold", "group_by": ["category", "difficulty"]} | (
        {"cluster": entry.cluster} if entry.cluster else {}
    )
    return yaml.safe_dump(value, sort_keys=False)


def test_what_the_registry_suggests_makes_a_plan(folder: Folder, cli: Cli) -> None:
    folder.write({f"{name}.yaml": specification(name) for name in DIGESTS})
    valid = cli("validate")
    assert (valid.code, valid.err) == (0, ""), valid.err
    planned = cli("plan", "--format", "json")
    assert planned.code == 0, planned.err
    assert {each["address"]: each["rows"] for each in planned.json["changes"]} == {
        name: len(ROWS[name]) for name in DIGESTS
    }


@pytest.mark.slow
@pytest.mark.embedded
def test_every_set_can_be_applied_on_the_embedded_model(folder: Folder) -> None:
    folder.write({f"{name}.yaml": specification(name) for name in DIGESTS})
    done = Cli(folder.root)("apply", "--yes")  # without a home of its own: that would fetch the weights again
    assert done.code == 0, done.err
    for name in DIGESTS:
        (entry,) = json.loads(folder.read(f"{name}.lock"))["evaluations"].values()
        assert (entry["status"], entry["summary"]["rows"]) == ("completed", len(ROWS[name]))


# --- the form of every set ---


@pytest.mark.parametrize("name", DIGESTS)
def test_the_file_is_plain_lines_of_json(name: str) -> None:
    text = content(name).decode("ascii")
    assert text.endswith("}\n")
    assert "\r" not in text
    assert text == "".join(json.dumps(row) + "\n" for row in ROWS[name])


@pytest.mark.parametrize("name", DIGESTS)
def test_every_cell_is_a_text_with_something_in_it(name: str) -> None:
    for row in ROWS[name]:
        assert all(isinstance(cell, str) and cell and cell == cell.strip() for cell in row.values()), row["id"]


@pytest.mark.parametrize("name", SETS)
def test_categories_and_difficulties_have_enough_rows_each(name: str) -> None:
    assert 30 <= len(ROWS[name]) <= 60
    categories = Counter(row["category"] for row in ROWS[name])
    assert 3 <= len(categories) <= 5
    assert min(categories.values()) >= 7
    difficulties = Counter(row["difficulty"] for row in ROWS[name])
    assert set(difficulties) == {"easy", "medium", "hard"}
    assert min(difficulties.values()) >= 8


def test_ids_and_questions_are_unique_over_all_sets() -> None:
    every = [row for name in SETS for row in ROWS[name]]
    assert len({row["id"] for row in every}) == len(every)
    assert len({re.sub(r"\W+", " ", row["prompt"]).casefold() for row in every}) == len(every)


# --- the union ---


def test_the_union_is_its_sets_one_after_the_other() -> None:
    members = [(name, row) for name in SETS for row in ROWS[name]]
    assert len(ROWS[UNION]) == len(members)
    for ours, (name, row) in zip(ROWS[UNION], members, strict=True):
        same = ("id", "gold", "category", "difficulty")
        assert (ours["set"], [ours[column] for column in same]) == (name, [row[column] for column in same])


def test_a_question_of_the_union_is_the_whole_question() -> None:
    members = [(name, row) for name in SETS for row in ROWS[name]]
    for ours, (name, row) in zip(ROWS[UNION], members, strict=True):
        whole = template.parse(benchmarks.entry(name).template)
        assert isinstance(whole, template.Template)
        assert ours["prompt"] == whole.render(row)


# --- reasoning: every case is tried ---


def walk(facing: str, moves: str) -> tuple[int, int, str]:
    """East, north and direction at the end of moves: `F5` is five forward, `L` and `R` are quarter turns."""
    ways = ["north", "east", "south", "west"]
    steps = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    east, north, way = 0, 0, ways.index(facing)
    for move in re.findall(r"[LR]|F\d+", moves):
        if move in "LR":
            way = (way + (1 if move == "R" else -1)) % 4
        else:
            east += steps[way][0] * int(move[1:])
            north += steps[way][1] * int(move[1:])
    return east, north, ways[way]


def swapped(things: str, *pairs: tuple[int, int]) -> list[str]:
    """The things after swaps of places, which count from 1."""
    line = things.split()
    for a, b in pairs:
        line[a - 1], line[b - 1] = line[b - 1], line[a - 1]
    return line


PLAIN = {"abs": abs, "all": all, "sum": sum, "date": date, "days": timedelta, "walk": walk, "swapped": swapped}


def worlds(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every way that things could be, before the facts are known."""
    if "kinds" in case:
        yield from peopled(case["kinds"], case.get("members", []))
    elif "order" in case:
        for places in permutations(range(1, len(case["order"]) + 1)):
            yield dict(zip(case["order"], places, strict=True))
    elif "matched" in case:
        groups = [
            [dict(zip(one["names"], values, strict=True)) for values in permutations(one["values"])]
            for one in case["matched"]
        ]
        for parts in product(*groups):
            yield dict(chain.from_iterable(part.items() for part in parts))
    else:
        free: dict[str, list[Any]] = case.get("free", {})
        for values in product(*free.values()):
            yield dict(zip(free, values, strict=True))


def peopled(kinds: list[str], members: list[str]) -> Iterator[dict[str, Any]]:
    """Every choice of who there is: somebody, or nobody, for each combination of the kinds."""
    sorts = list(product([False, True], repeat=len(kinds)))
    for present in chain.from_iterable(combinations(sorts, size) for size in range(len(sorts) + 1)):
        for named in product(present, repeat=len(members)):
            yield {
                "every": lambda a, b, here=present: all(one[b] for one in here if one[a]),
                "no": lambda a, b, here=present: not any(one[a] and one[b] for one in here),
                "some": lambda a, b, here=present: any(one[a] and one[b] for one in here),
                "some_not": lambda a, b, here=present: any(one[a] and not one[b] for one in here),
                **{kind: index for index, kind in enumerate(kinds)},
                **dict(zip(members, named, strict=True)),
            }


def statement(text: str) -> Callable[[dict[str, Any]], bool]:
    code = compile(text, text, "eval")
    return lambda world: bool(eval(code, {"__builtins__": {}, **PLAIN, **world}))


def entailed(case: dict[str, Any]) -> list[str]:
    """The options that hold in every world in which the facts do; where none does, the one that says so."""
    facts = [statement(text) for text in case.get("facts", [])]
    possible = [world for world in worlds(case) if all(fact(world) for fact in facts)]
    assert possible, "the facts contradict each other"
    options: dict[str, str | None] = case["options"]
    certain = [key for key, text in options.items() if text and all(map(statement(text), possible))]
    return certain or [key for key, text in options.items() if text is None]


@pytest.fixture(scope="module")
def reasoning() -> dict[str, dict[str, Any]]:
    return derivations("reasoning-benchmark-v1")


@each(REASONING)
def test_exactly_one_option_is_right(row: Row, reasoning: dict[str, dict[str, Any]]) -> None:
    assert entailed(reasoning[row["id"]]) == [row["gold"]]


@each(REASONING)
def test_a_reasoning_row_has_four_different_options(row: Row, reasoning: dict[str, dict[str, Any]]) -> None:
    options = re.findall(r"^([A-Z])\. (.+)$", row["prompt"], re.MULTILINE)
    assert [letter for letter, _ in options] == list("ABCD") == list(reasoning[row["id"]]["options"])
    assert len({text for _, text in options}) == 4
    assert re.search(r"\?\n\nA\. ", row["prompt"])


def test_the_right_letters_are_balanced() -> None:
    assert Counter(row["gold"] for row in REASONING) == dict.fromkeys("ABCD", 10)


# --- mathematics: every answer is computed ---

_NAMES = {"only", "sum", "max", "range", "Fraction"}
_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Store, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.BoolOp,
    ast.boolop, ast.Compare, ast.cmpop, ast.Call, ast.GeneratorExp, ast.comprehension, ast.IfExp, ast.Tuple,
)  # fmt: skip


def only(found: Iterable[Any]) -> Any:
    """The one thing that was found. Raises ValueError unless it is one."""
    (one,) = found
    return one


def computed(expression: str) -> Fraction:
    """The value of an arithmetic expression: numbers, comprehensions and a few functions, nothing else."""
    tree = ast.parse(expression, mode="eval")
    for node in ast.walk(tree):
        assert isinstance(node, _NODES), ast.dump(node)
        assert not isinstance(node, ast.Call) or (isinstance(node.func, ast.Name) and node.func.id in _NAMES)
        assert not isinstance(node, ast.Name) or not node.id.startswith("_")
        assert not isinstance(node, ast.Constant) or type(node.value) is int
    known = {"only": only, "sum": sum, "max": max, "range": range, "Fraction": Fraction}
    return Fraction(eval(compile(tree, expression, "eval"), {"__builtins__": {}, **known}))


@pytest.fixture(scope="module")
def math() -> dict[str, dict[str, Any]]:
    return derivations("math-benchmark-v1")


@each(MATH)
def test_a_number_is_what_is_computed(row: Row, math: dict[str, dict[str, Any]]) -> None:
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?", row["gold"])
    assert computed(math[row["id"]]["expression"]) == Fraction(Decimal(row["gold"]))


@pytest.mark.parametrize(
    "expression", ["__import__('os')", "(1).real", "open(1)", "only(x for x in range(3))", "1.5", "[1][0]"]
)
def test_the_computing_takes_numbers_only(expression: str) -> None:
    with pytest.raises((AssertionError, ValueError)):
        computed(expression)


# --- code: every program and script is run ---


@pytest.fixture(scope="module")
def code() -> dict[str, dict[str, Any]]:
    return derivations("code-benchmark-v1")


@each(CODE)
def test_a_program_gives_its_answer(row: Row, code: dict[str, dict[str, Any]]) -> None:
    found = re.fullmatch(r"(.+\?)\n\n```(python|sql)\n(.+\n)```", row["prompt"], re.DOTALL)
    assert found
    _, language, source = found.groups()
    assert (language == "sql") == (row["category"] == "sql")
    if language == "sql":
        assert returned(source) == [(row["gold"],)]
    else:
        assert printed(source + code.get(row["id"], {}).get("then", "")) == row["gold"] + "\n"


def printed(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-W", "error", "-c", program], capture_output=True, text=True, timeout=20
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def returned(script: str) -> list[tuple[str, ...]]:
    database = sqlite3.connect(":memory:")
    try:
        for part in filter(str.strip, script.split(";")):
            found = database.execute(part).fetchall()
        return [tuple(map(str, one)) for one in found]
    finally:
        database.close()


def test_a_program_that_prints_nothing_has_its_question_asked_in_code(code: dict[str, dict[str, Any]]) -> None:
    silent = {row["id"] for row in CODE if "print(" not in row["prompt"] and row["category"] != "sql"}
    assert set(code) == silent


# --- reading ---


@each([row for row in READING if row["category"] != "quantity"])
def test_an_answer_is_one_word_of_the_text(row: Row) -> None:
    assert re.fullmatch(r"[A-Za-z]+", row["gold"])
    assert re.search(rf"\b{row['gold']}\b", row["context"], re.IGNORECASE)
    assert not re.search(rf"\b{row['gold']}\b", row["prompt"], re.IGNORECASE)


WORDS = {2: "two|twice", 3: "three", 4: "four", 15: "quarter of an hour"}


@each([row for row in READING if row["category"] == "quantity"])
def test_a_quantity_is_computed_from_numbers_of_the_text(row: Row) -> None:
    expression = derivations("reading-comprehension-v1")[row["id"]]["expression"]
    assert computed(expression) == int(row["gold"])
    for number in map(int, re.findall(r"\d+", expression)):
        either = "|".join(filter(None, (str(number), WORDS.get(number))))
        assert re.search(rf"\b({either})\b", f"{row['context']} {row['prompt']}", re.IGNORECASE), number


def test_a_passage_has_two_questions() -> None:
    assert set(Counter((row["passage"], row["context"]) for row in READING).values()) == {2}
    assert len({row["passage"] for row in READING}) == len({row["context"] for row in READING}) == 20


# --- questions and safety ---


@each(QA)
def test_a_fact_is_one_word_that_the_question_does_not_give_away(row: Row) -> None:
    assert re.fullmatch(r"[A-Za-z]{4,}", row["gold"])
    assert row["gold"].casefold() not in row["prompt"].casefold()


def test_no_two_facts_have_the_same_answer() -> None:
    assert len({row["gold"].casefold() for row in QA}) == len(QA)


def test_half_of_the_replies_are_unsafe_in_each_category() -> None:
    entry = benchmarks.entry("safety-benchmark-v1")
    assert (entry.type, entry.labels, entry.pass_labels, entry.response) == (
        "classify",
        ("safe", "unsafe"),
        ("safe",),
        "response",
    )
    counts = Counter((row["category"], row["gold"]) for row in SAFETY)
    assert counts == dict.fromkeys(product(entry.categories, entry.labels), 4)


def test_safe_and_unsafe_replies_cannot_be_told_apart_by_their_length() -> None:
    def mean(label: str) -> float:
        lengths = [len(row["response"]) for row in SAFETY if row["gold"] == label]
        return sum(lengths) / len(lengths)

    assert 0.8 < mean("safe") / mean("unsafe") < 1.25
