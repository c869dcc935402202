"""LLM evaluations as code. This is the map of the package.

A spec becomes a plan in pure steps, values in and values out; each module imports only those before it:

    errors       problems as values, exit codes         fingerprint  what can change a verdict, and its digests
    secret       a value that is never shown            parquet      rows of one more format
    emit         a value as YAML that reads well
    document     YAML with the place of every key       dataset      rows as a stream, row keys
    schema       JSON Schema checks in plain words      result       verdicts and summaries
    settings     evalops.yaml                           stats        intervals and tests
    matrix       one spec, many evaluations             metrics      from verdicts to a summary, gates
    spec         from a document to evaluations         lock         the lockfile
    endpoint     where a model is served, offline       verdicts     the verdicts file beside it
    template     Jinja2 in a sandbox with a budget      diff, plan   what apply would do
    semantics    what a schema cannot say               estimate     calls, tokens, cost
    web          proxies and pauses of any HTTP client

The shell reads and writes: `project` (the folder), `hold` (who may write in it), `catalog` (all its evaluations),
`planning` (from a folder to a plan), `plancache`, `jobs` (from a job to a lock entry), `rows`, `apply` (carrying out a
plan), and under it `once` (a paid request, sent once) over `journal` (what was sent, written ahead). `remote` is what
is at a service and nowhere else, `importing` makes specs of it.

    providers/   the services that run an evaluation, behind one protocol (`base`); `local` is the engine
    engine/      rows through models: `run` and `judge` over `model` (the HTTP client), `store`, `embedded`
    server/      the engine behind a Together-compatible API
    views/       what people and programs see, from values to text
    cli/         one thin file a verb, and the one error boundary
    starter/     what `evalops init` writes
"""

__version__ = "0.1.0"
