"""LLM evaluations as code. This is the map of the package.

A spec becomes a plan in pure steps, values in and values out; each module imports only those before it:

    errors       problems as values, exit codes         fingerprint  what can change a verdict, and its digests
    secret       a value that is never shown            parquet      rows of one more format
    emit         a value as YAML that reads well
    document     YAML with the place of every key       dataset      rows as a stream, row keys
    schema       JSON Schema checks in plain words      result       verdicts and summaries
    layout       one layout for every spec
    settings     evalops.yaml                           stats        intervals and tests
    matrix       one spec, many evaluations             metrics      from verdicts to a summary, gates
    patronus     what that service is asked, as values
    spec         from a document to evaluations         lock         the lockfile
    endpoint     where a model is served, offline       verdicts     the verdicts file beside it
    template     Jinja2 in a sandbox with a budget      diff, plan   what apply would do
    voting       several votes, one verdict             estimate     calls, tokens, cost
    judging, semantics   what a schema cannot say
    web          proxies and pauses of any HTTP client

From verdicts to a summary: `labels` (words) and `scores` (numbers) count the rows, with `tally` (how they ended) and
`measure` (rates and means); `classification` is what gold says of labels, `breakdown` the groups of a column,
`opinions` several votes on a row. `metrics` puts them together and names them, `thresholds` checks what is asked of
them, `gate` holds it against them. Under these, beside `stats`: `resample` (the bootstrap), `agreement` (of opinions),
`contrast` (two samples), `strength` (of players in games). `paired` lays two results side by side,
`rank` orders candidates by a value each, `duel` by games between pairs, into a `standing`.

For type custom `evaluators` compare a response with the true answer: by what `answer` reads in it (a number, a letter),
a `pattern` under a deadline, the `shape` of JSON, or the `overlap` of words.

Of a dataset, `formats` reads the files, `sampling` picks a part, `survey` says what is in it, and `sketch` makes a spec
to start from.

The shell reads and writes: `project` (the folder), `hold` (who may write in it), `sources` (where rows come from),
`catalog` (all evaluations of a folder), `planning` (from a folder to a plan), `plancache`, `jobs` (from a job to a lock
entry), `rows`, `applying` (who may, what was agreed to, what came of it), `apply` (carrying out a plan), and under it
`orders` (many requests at once, by `sending`) over `once` (a paid request, sent once) over `journal` (what was sent,
written ahead). `remote` is what is at a service and nowhere else, `importing` makes specs of it, and so does
`experiments`; `exporting` is the way there. `holdings` are the datasets there are. `ranking` puts results in order
that are `alike`, `contenders` those inside one result.

For notebooks and scripts, and for the command line itself, `api` has all of it as methods of a project: see there.

For review, `history` is the project at another revision (asked of `git`), `review` how results moved, `reviewing` the
two together; `proof` is what `check` proves, by the `evidence` behind each lock entry.

    providers/   the services that run an evaluation, behind one protocol (`base`); `local` is the engine
    engine/      rows through models: `run`, `jury` and `judge` over `model` (the HTTP client), `store`, `embedded`;
                 `evaluator` for rows that no model judges
    server/      the engine behind a Together-compatible API
    views/       what people and programs see, from values to text
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
