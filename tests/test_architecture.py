"""Who may import whom, one home a library, and what the command line must not wait for."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import evalops

PACKAGE = Path(evalops.__file__).parent
ROOT = PACKAGE.parent


class Import(NamedTuple):
    """One import statement: what of, and whether it runs with the module rather than in a function or for types."""

    name: str
    is_eager: bool


def path_of(module: str) -> Path:
    path = PACKAGE.joinpath(*module.split(".")) if module else PACKAGE
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def modules() -> list[str]:
    """Every module by its name without `evalops.`; the package itself is ``."""
    names = (path.relative_to(PACKAGE).with_suffix("") for path in PACKAGE.rglob("*.py"))
    return sorted(".".join(part for part in name.parts if part != "__init__") for name in names)


MODULES = modules()


@cache
def imports(module: str) -> tuple[Import, ...]:
    """Everything that a module imports, wherever the statement stands."""
    return tuple(_imports(ast.parse(path_of(module).read_text(encoding="utf-8")), is_eager=True))


def _imports(node: ast.AST, *, is_eager: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (Import(each.name, is_eager) for each in child.names)
            case ast.ImportFrom():
                for each in child.names:
                    name = f"{child.module}.{each.name}"
                    known = name.startswith("evalops.") and name.removeprefix("evalops.") in MODULES
                    yield Import(name if known else str(child.module), is_eager)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports(child, is_eager=False)
            case ast.If() if ast.unparse(child.test) == "TYPE_CHECKING":
                yield from _imports(child, is_eager=False)
            case _:
                yield from _imports(child, is_eager=is_eager)


def ours(module: str, *, eager: bool = False) -> set[str]:
    """The modules of this package that a module imports."""
    found = {each.name for each in imports(module) if each.is_eager or not eager}
    return {name.removeprefix("evalops").removeprefix(".") for name in found if name.split(".")[0] == "evalops"} - {
        module
    }


# --- who may import whom ---

# The pipeline in its order: values in, values out. Each imports only those before it.
PIPELINE = [
    "errors", "secret", "document", "emit", "schema", "layout", "settings", "meter", "matrix", "patronus", "spec", "endpoint", "web", "fingerprint", "template", "result", "voting",
    "stats", "stats.intervals", "stats.contrast", "stats.resample", "stats.agreement", "stats.strength",
    "metrics", "metrics.measure", "metrics.tally", "metrics.classification", "metrics.labels", "metrics.scores", "metrics.breakdown", "metrics.opinions", "metrics.summaries", "metrics.gate",
    "paired", "standing", "rank", "duel", "metrics.thresholds", "judging",
    "evaluators", "evaluators.pattern", "evaluators.answer", "evaluators.shape", "evaluators.overlap", "evaluators.kinds", "semantics",
    "datasets", "datasets.parquet", "datasets.formats", "datasets.dataset", "datasets.sampling", "datasets.survey", "datasets.sketch", "lock", "verdicts", "diff", "plan", "estimate", "destination", "policy",
]  # fmt: skip
# The shell: the folder, its evaluations, jobs, and carrying out a plan.
SHELL = [
    "git",
    "hold",
    "project",
    "sources",
    "journal",
    "jobs",
    "catalog",
    "rows",
    "alike",
    "ranking",
    "contenders",
    "sending",
    "once",
    "orders",
    "remaining",
    "planning",
    "plancache",
    "apply",
    "applying",
    "history",
    "trusted",
    "review",
    "reviewing",
    "trend",
    "sheets",
    "report",
    "evidence",
    "witness",
    "proof",
    "remote",
    "holdings",
    "importing",
    "exporting",
    "experiments",
]
# The shell's front for Python, with the JSON that the command line prints.
FRONT = "api"


def layer(module: str) -> str:
    """Where a module belongs: its folder, or the part of the spine it is in."""
    if module in PIPELINE:
        return "pipeline"
    if "." in module or path_of(module).name == "__init__.py" or module == FRONT:
        return module.split(".")[0]
    return "shell" if module in SHELL else f"unknown: {module}"


MAY = {
    "": {"pipeline", FRONT},  # for their names; nothing is imported before it is asked for
    "benchmarks": set(),
    "pipeline": {"pipeline"},
    "engine": {"pipeline", "engine", ""},
    "providers": {"pipeline", "providers", "engine", "shell"},
    "views": {"pipeline", "views"},
    "shell": {"pipeline", "providers", "shell", "benchmarks", ""},
    "server": {"pipeline", "engine", "server"},
    "importers": {"pipeline", "shell", "importers"},
    FRONT: {"pipeline", "shell", "providers", "views"},
    "ui": {"pipeline", "shell", "providers", "views", "server", "ui", FRONT},
    "cli": {
        "pipeline",
        "shell",
        "providers",
        "views",
        "server",
        "engine",
        "ui",
        "cli",
        "benchmarks",
        "importers",
        FRONT,
        "",
    },
}


def test_every_module_has_its_place() -> None:
    assert {layer(module) for module in MODULES} == set(MAY)
    assert set(PIPELINE) | set(SHELL) <= set(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_point_one_way(module: str) -> None:
    assert {layer(each) for each in ours(module)} <= MAY[layer(module)]
    if module in PIPELINE:
        assert ours(module) <= set(PIPELINE[: PIPELINE.index(module)])
    if module in SHELL:
        assert {each for each in ours(module) if each in SHELL} <= set(SHELL[: SHELL.index(module)])


def test_only_the_local_provider_knows_the_engine() -> None:
    users = {
        module
        for module in MODULES
        if layer(module) != "engine" and any(layer(each) == "engine" for each in ours(module))
    }
    assert {each for each in users if layer(each) != "server"} <= {
        "providers.local",
        "providers.patronus",  # the store of its rows
        "providers.patronus_kept",
        "providers.patronus_left",
        "providers.patronus_loop",
        "cli.serve",
        "cli.show",  # the requests of a row, in the engine's own words
    }


def test_a_provider_sees_no_lock_file_plan_or_terminal() -> None:
    for module in (each for each in MODULES if layer(each) == "providers"):
        assert not ours(module) & {
            "plan",
            "planning",
            "plancache",
            "apply",
            "jobs",
            "catalog",
            "rows",
            "verdicts",
            "diff",
        }
    assert not any(layer(each) == "shell" for each in ours("providers.base"))


def test_only_one_part_of_an_import_reads_and_writes() -> None:
    users = {module for module in MODULES if layer(module) == "importers" and "shell" in map(layer, ours(module))}
    assert users == {"importers.writing"}


def test_providers_are_reached_through_their_registry() -> None:
    assert {
        module for module in MODULES if ours(module) & {"providers.local", "providers.together", "providers.patronus"}
    } == set()


def test_views_and_the_command_line_are_nobody_elses() -> None:
    for module in MODULES:
        theirs = {each for each in ours(module) if layer(each) in ("cli", "views")}
        if layer(module) in (FRONT, "ui"):
            assert "cli" not in map(layer, theirs)
        elif layer(module) not in ("cli", "views"):
            assert not theirs, module


def test_there_is_no_cycle() -> None:
    waiting = {
        module: (ours(module) - {""}) & set(MODULES) for module in MODULES
    }  # which has a version to give, no more
    while waiting:
        free = {module for module, needs in waiting.items() if not needs & set(waiting)}
        assert free, f"in a cycle, or behind one: {sorted(waiting)}"
        waiting = {module: needs for module, needs in waiting.items() if module not in free}


def test_the_map_of_the_package_names_every_module_of_the_spine() -> None:
    spine = {module for module in PIPELINE if "." not in module}
    assert {*spine, *SHELL, FRONT} <= words(evalops.__doc__)


@pytest.mark.parametrize("family", ["stats", "metrics", "datasets", "evaluators", "server", "ui", "importers"])
def test_the_map_of_a_family_names_its_modules(family: str) -> None:
    theirs = {module.partition(".")[2] for module in MODULES if module.startswith(f"{family}.")}
    assert theirs <= words(import_module(f"evalops.{family}").__doc__)


def words(text: str | None) -> set[str]:
    return set(re.findall(r"[a-z_]+", str(text)))


# --- third-party libraries ---

HOMES = {
    "yaml": {"document", "layout", "importers.source"},
    "jsonschema": {"schema", "evaluators.shape"},  # our own documents; a schema that stands in a spec
    "jsonschema_rs": {"schema"},
    "referencing": {"evaluators.shape"},  # of jsonschema
    "regex": {"evaluators.pattern"},
    "sacrebleu": {"evaluators.overlap"},
    "rouge_score": {"evaluators.overlap"},
    "bpe_openai": {"providers.patronus_rules"},
    "jinja2": {"template", "ui.frame", "views.html_"},
    "pyarrow": {"datasets.parquet"},
    "httpx": {"providers.client"},
    "starlette": {module for module in MODULES if layer(module) in ("server", "ui")},
    "uvicorn": {"server.listen"},
    "h11": {"server.listen"},  # uvicorn's own parser
    "python_multipart": {"server.form"},
    "aiohttp": {"engine.model", "engine.failure"},
    "yarl": {"engine.model", "engine.lane"},  # aiohttp's own URLs
    "numpy": {"stats.intervals", "stats.resample", "stats.agreement", "stats.strength", "rank", "duel"},
    "scipy": {"stats.intervals", "stats.contrast", "stats.resample"},
    "choix": {"stats.strength"},
    "deepdiff": {"diff"},
    "click": {module for module in MODULES if layer(module) in ("cli", "views")},
    "rich": {"views.tables", "cli.progress"},
    "platformdirs": {"plancache", "engine.weights", "providers.together_models"},
    "xllamacpp": {"engine.embedded_server"},
    "pandas": {"api"},
}
# Slow to import, so only where they are needed: inside a function.
HEAVY = {
    "jsonschema",
    "jsonschema_rs",
    "deepdiff",
    "numpy",
    "scipy",
    "choix",
    "xllamacpp",
    "pyarrow",
    "regex",
    "sacrebleu",
    "rouge_score",
    "pandas",
    "bpe_openai",
}
EXTRAS = {
    "bpe_openai": "tokens",
    "xllamacpp": "embedded",
    "pyarrow": "parquet",
    "starlette": "serve",
    "uvicorn": "serve",
    "python_multipart": "serve",
    "sacrebleu": "text",
    "rouge_score": "text",
    "pandas": "dev",
}


def third_party(module: str) -> Iterator[Import]:
    for each in imports(module):
        name = each.name.split(".")[0]
        if name != "evalops" and name not in sys.stdlib_module_names:
            yield Import(name, each.is_eager)


@pytest.mark.parametrize("module", MODULES)
def test_a_library_has_one_home(module: str) -> None:
    for name, _ in third_party(module):
        assert module in HOMES.get(name, ()), f"{name} is not at home in {module}"


@pytest.mark.parametrize("module", MODULES)
def test_a_heavy_library_is_imported_where_it_is_needed(module: str) -> None:
    assert [name for name, is_eager in third_party(module) if is_eager and name in HEAVY] == []


def test_the_dependencies_are_the_libraries_in_use() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    required = re.findall(
        r'^    "([A-Za-z0-9-]+)>=', text.split("dependencies = [", 1)[1].split("]", 1)[0], re.MULTILINE
    )
    assert {name.lower().removeprefix("py").replace("-", "_") for name in required} == set(HOMES) - {
        "yarl",
        "h11",
        "referencing",
        *EXTRAS,
    }
    for library, extra in EXTRAS.items():
        listed = tomllib.loads(text)["project"]["optional-dependencies"][extra]
        assert any(each.startswith(f"{library.replace('_', '-')}>=") for each in listed)


# --- names and size ---


def test_no_module_has_a_name_that_says_nothing() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "handler", "core", "misc", "types", "models"}
    for module in MODULES:
        last = module.rsplit(".", 1)[-1]
        assert last not in banned
        assert last not in sys.stdlib_module_names, f"{last} is the standard library's"
        assert last != "base" or module == "providers.base"


# --- what the command line must not wait for ---

LATE = [
    "yaml",
    "jsonschema",
    "jsonschema_rs",
    "jinja2",
    "rich",
    "scipy",
    "numpy",
    "aiohttp",
    "httpx",
    "starlette",
    "asyncio",
    "sqlite3",
    "deepdiff",
    "platformdirs",
]


def loaded(code: str, *arguments: str) -> set[str]:
    """What a fresh Python has imported after some code."""
    more = "\nimport json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", code + more, *arguments], cwd=ROOT, capture_output=True, text=True, check=True
    )
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(found)


@pytest.mark.parametrize(
    "code",
    [
        "import evalops.cli",
        "from evalops import cli; cli.run(['--version'])",
        "from evalops import cli; cli.run(['--help'])",
    ],
)
def test_the_command_line_starts_with_click_alone(code: str) -> None:
    assert loaded(code) & set(LATE) == set()


def test_a_plan_imports_neither_the_engine_nor_what_only_results_need(project: object, cli: object) -> None:
    root = str(project.root)  # type: ignore[attr-defined]
    code = "import sys; from evalops import cli; cli.run(['--project', sys.argv[1], 'plan'])"
    assert loaded(code, root) & {"aiohttp", "scipy", "numpy", "rich", "deepdiff"} == set()
