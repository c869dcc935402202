"""`evalops serve`"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, project_option, say
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.secret import Secret
    from evalops.settings import Settings

KEY = "EVALOPS_SERVE_API_KEY"


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option("--port", default=8321, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option(
    "--store", type=click.Path(path_type=Path), help="The folder for jobs and files; default: .evalops/serve."
)
@click.option("--default-model", metavar="MODEL", help="Answers every model name that evalops.yaml does not map.")
@click.option("--allow-external", multiple=True, metavar="ORIGIN", help="Where external models may be; repeatable.")
@click.option("--api-key", envvar=KEY, metavar="KEY", help=f"Ask every client for this key; better: {KEY}.")
@project_option
def command(**options: Any) -> int:
    """Serve the engine behind a Together-compatible API, on a machine of your own.

    The official SDK and command line work unchanged once they are pointed at it. Model names are those under
    `models` in evalops.yaml, where there is one; --default-model answers all others. Without a key it listens on
    this machine only. Ctrl-C or SIGTERM stops it; what runs goes on at the next start.

    \b
    evalops serve --default-model embedded/smollm2-135m
    evalops serve --port 0 --store /var/lib/evalops
    EVALOPS_SERVE_API_KEY=... evalops serve --host 0.0.0.0
    """
    _require()
    root, settings = _settings(options)
    key = _key(options)
    _check_host(options["host"], key)
    folder = options["store"] or root / ".evalops" / "serve"
    from evalops.hold import held
    from evalops.server import app, listen

    with held(folder / "serve.lock", "serve/locked", "another server has this store"):
        try:
            application = app.create(app.Options(folder=folder, root=root, settings=settings, key=key, say=_log))
        except OSError as error:
            message = f"the store {folder} cannot be used: {error.strerror or error}"
            raise _problem("store", message, "give --store a folder that nothing else uses") from None
        try:
            listening = listen.bind(options["host"], options["port"])
        except (OSError, UnicodeError) as error:
            reason = getattr(error, "strerror", None) or error
            where = f"{options['host']} port {options['port']}"
            raise _problem("address", f"cannot listen at {where}: {reason}", "try --port 0") from None
        with listening:
            address = listening.getsockname()
            listen.run(
                application, listening, lambda: _greet(address, options["host"], folder, has_key=key is not None)
            )
    say("stopped; what was running goes on at the next start")
    return 0


def _require() -> None:
    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        hint = "install it:\n  pip install 'evalops-cli[serve]'"
        raise _problem("not-installed", "evalops serve needs the extra `serve`, which is not installed", hint)


def _settings(options: dict[str, Any]) -> tuple[Path, Settings]:
    """The project's folder and settings with the options in them; without a project, this folder and the defaults."""
    from evalops import project
    from evalops.settings import Settings

    explicit = options["folder"] or click.get_current_context().find_root().obj
    try:
        found = project.find(explicit, explicit=explicit is not None)
    except EvalopsError as error:
        if explicit is not None or error.diagnostics[0].code != "project/not-found":
            raise
        root, settings = Path.cwd(), Settings()
    else:
        root, settings = found.root, found.settings
    serve = settings.serve
    serve = replace(
        serve,
        default_model=options["default_model"] or serve.default_model,
        external_origins=(*serve.external_origins, *options["allow_external"]),
    )
    settings = replace(settings, serve=serve)
    _check_default(settings)
    return root, settings


def _check_default(settings: Settings) -> None:
    """What would fail every job is said before the first one. Raises EvalopsError."""
    from evalops.engine import embedded, runtime
    from evalops.server import request

    default = request.default_endpoint(settings, settings.serve)
    if default is not None and default.is_embedded:
        embedded.require()
    elif default is not None:
        runtime.key_of(default)


def _key(options: dict[str, Any]) -> Secret | None:
    from evalops.secret import Secret

    os.environ.pop(KEY, None)  # no child needs it
    if not options["api_key"]:
        return None
    try:
        return Secret(options["api_key"])
    except ValueError as error:
        raise _problem("key", f"--api-key holds no key: {error}", "take letters and digits, 16 or more") from None


def _check_host(host: str, key: Secret | None) -> None:
    from evalops.endpoint import is_loopback

    if key is None and not is_loopback(host):
        message = f"without a key the server listens on this machine only, and `{host}` is more than that"
        raise _problem("no-key", message, f"set {KEY}, or leave out --host")


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk must not end the jobs
        say(text)


def _greet(address: Any, host: str, folder: Path, *, has_key: bool) -> None:
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{address[1]}"
    key = "the key" if has_key else "any"
    say(
        f"jobs and files are kept in {folder}\n"
        + ("" if has_key else "no key is set: only this machine is answered\n")
        + "to point a client at it:\n"
        f"  export TOGETHER_BASE_URL={url}      (SDK and tg, version 3; {url}/v1 for version 2)\n"
        f"  export TOGETHER_API_KEY={key}"
    )
    answer(url)


def _problem(what: str, message: str, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"serve/{what}", message=message, hint=hint))
