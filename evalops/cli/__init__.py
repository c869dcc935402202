"""The command line: a thin skin, and the one boundary where errors become text and an exit code."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

from evalops import __version__

COMMANDS = {
    "init": "Write a starter project that applies at once.",
    "validate": "Check every spec and dataset; all problems of all files at once.",
    "fmt": "Write specs in one layout; no value and no fingerprint changes.",
    "plan": "Show what apply would do and what it would cost.",
    "apply": "Run what is new, collect what is finished, and write the lockfiles.",
    "status": "List every evaluation with its last result.",
    "show": "Show one evaluation: result, labels, gates, failing rows.",
    "rows": "Print the rows of an evaluation with their verdicts.",
    "diff": "Show how results moved since a git revision, and whether that is real.",
    "check": "Prove in CI that the lockfiles answer the specs and that the gates hold.",
    "report": "Write all results as one HTML page, as data, or as the comment for a pull request.",
    "rank": "Rank several candidates on the same rows and judge, with intervals and tests.",
    "import": "Write specs for jobs that were made elsewhere, or for the evaluations of another tool.",
    "export": "Send results that were made elsewhere to Patronus.",
    "dataset": "List datasets, or look into one.",
    "models": "List the models that the service is known to evaluate with.",
    "serve": "Serve the engine behind a Together-compatible API.",
    "ui": "Open the project as a page: see, create, follow and review evaluations.",
    "schema": "Print a JSON Schema, for an editor or a check of your own.",
}


# `import` is a word of Python, and a module called `models` would say nothing.
MODULES = {"import": "import_", "models": "models_"}


class _Verbs(click.Group):
    """Imports a verb when it is called, so that `--help` and completion stay quick."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command: click.Command = import_module(f"evalops.cli.{MODULES.get(name, name)}").command
        return command

    def invoke(self, context: click.Context) -> Any:
        from evalops.errors import EvalopsError

        try:
            return super().invoke(context)
        except EvalopsError as error:
            from evalops.cli.output import complain

            complain(error.diagnostics)
            return int(error.exit_code)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--project", type=click.Path(path_type=Path), help="The project folder; default: here or above.")
@click.version_option(__version__, message="evalops %(version)s")
@click.pass_context
def cli(context: click.Context, project: Path | None) -> None:
    """LLM evaluations as code: specs in YAML, plan before apply, results in lockfiles.

    \b
    evalops init demo            a starter project
    evalops --project demo plan  what would run
    evalops --project demo apply run it
    """
    context.obj = project


def main() -> NoReturn:
    """The entry point: runs a verb and exits with the code that says how it went."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs a verb; every error becomes a message on stderr and an exit code (see `errors.Exit`)."""
    from evalops.errors import Exit

    try:
        result: Any = cli.main(args=arguments, prog_name="evalops", standalone_mode=False)
        return int(result) if isinstance(result, int) else Exit.OK
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        error.show(sys.stderr)
        return Exit.USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # The reader has enough. Python would complain once more while it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except Exception:
        from evalops.cli.crash import report

        report()
        return Exit.BUG
