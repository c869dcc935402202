"""LLM evaluations as code. This is the map of the package.

A spec becomes a plan in pure steps, values in and values out; each module imports only those before it:

    errors       problems as values, exit codes         template     Jinja2 in a sandbox with a budget
    secret       a value that is never shown            result       verdicts and summaries
    document     YAML with the place of every key       voting       several votes, one verdict
    emit         a value as YAML that reads well        stats/       intervals, tests, resampling, agreement
    schema       JSON Schema checks in plain words      metrics/     from verdicts to a summary, gates
    layout       one layout for every spec              judging, semantics   what a schema cannot say
    settings     evalops.yaml                           evaluators/  responses judged without a model
    meter        what a budget still allows             datasets/    rows as a stream, row keys
    matrix       one spec, many evaluations             lock         the lockfile
    patronus     what that service is asked, as values  verdicts     the verdicts file beside it
    spec         from a document to evaluations         diff, plan   what apply would do
    endpoint     where a model is served, offline       estimate     calls, tokens, cost
    web          proxies, keys, pauses of HTTP clients  destination  where rows and keys go
    fingerprint  what can change a verdict              policy       rules that evaluations keep

`paired` lays two results side by side, `rank` orders candidates by a value each, `duel` by games between pairs, into
a `standing`.

The shell reads and writes:

    project      the folder; who writes in it: hold     apply        carrying out a plan, under applying (who may, what
    catalog      all its evaluations                                 was agreed to, what came of it)
    sources      where their rows come from             orders       many paid requests at once, by sending
    planning     from a folder to a plan                once         one of them, sent once
    plancache    the plan of a folder that stayed       journal      what was sent, written ahead
    remaining    what jobs that go on still cost        jobs, rows   from a job to a lock entry; to its rows

For review, `history` is the project at another revision (asked of `git`), `trusted` this one with the settings of
another, `review` how results moved, `reviewing` the two together. `proof` is what `check` proves, by the `evidence`
behind each lock entry and by the services as `witness`. `report` is all of a project as one value: results, their
`trend` over the history, and their rows as `sheets` of columns. `ranking` puts results in order that are `alike`,
`contenders` those inside one result.

At a service, `remote` is what is there and nowhere else; `importing` and `experiments` make specs of it, `exporting`
is the way there. `holdings` are the datasets there are.

For notebooks and scripts, and for the command line itself, `api` has all of it as methods of a project: see there.

    providers/   the services that run an evaluation, behind one protocol (`base`); `local` is the engine
    engine/      rows through models: `run`, `jury` and `judge` over `model` (the HTTP client), `store`, `embedded`;
                 `evaluator` for rows that no model judges
    server/      the engine behind a Together-compatible API
    importers/   files of other tools become specs and rows: promptfoo, OpenAI Evals
    views/       what people and programs see, from values to text
    ui/          the project as pages in a browser
    cli/         one thin file a verb, and the one error boundary
    benchmarks/  the named datasets that ship with the package, and their registry
    starter/     what `evalops init` writes, and workflows/ with --ci
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evalops.api import open as open  # noqa: A004
    from evalops.errors import EvalopsError as EvalopsError

__version__ = "0.1.0"

_FRONT = {"open": "evalops.api", "EvalopsError": "evalops.errors"}

if not TYPE_CHECKING:  # else no misspelt name of this package would be found

    def __getattr__(name: str) -> object:
        """What there is for Python, imported when it is asked for: the command line must not wait for it."""
        if name not in _FRONT:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_FRONT[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *_FRONT})
