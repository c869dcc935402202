"""`evalops ui`"""

from __future__ import annotations

import contextlib
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import click

from evalops.cli.output import answer, open_project, project_option, say
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.ui.door import Door

HOST = "127.0.0.1"


@click.command("ui")
@click.option("--port", default=8322, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one.")
@click.option("--no-browser", is_flag=True, help="Print the address only; to open it is left to you.")
@project_option
def command(port: int, no_browser: bool, folder: Path | None) -> int:  # noqa: FBT001 - named by click
    """Open the project as a page: see, create, follow and review evaluations in a browser.

    It listens on this machine only. The address that is printed lets one browser in; when it is used, the next one
    is printed. What is created there are specs and lockfiles as anywhere else. Ctrl-C or SIGTERM stops it; what runs
    goes on with the next `evalops ui` or `evalops apply`.

    \b
    evalops ui
    evalops ui --port 0 --no-browser
    """
    _require()
    root = open_project(folder).root
    from evalops.server import listen
    from evalops.ui import app
    from evalops.ui.door import Door
    from evalops.ui.frame import Closing

    try:
        listening = listen.bind(HOST, port)
    except OSError as error:
        message = f"cannot listen at {HOST} port {port}: {error.strerror or error}"
        raise _problem("address", message, "another `evalops ui` may be there; try --port 0") from None
    with listening:
        port = listening.getsockname()[1]
        door = Door(f"http://{HOST}:{port}", port)
        closing = Closing()
        pages = app.create(root, door, port, _log, closing)
        listen.run(pages, listening, lambda: _greet(door, is_opened=not no_browser), closing.begin)
        closing.wait()
    say("stopped; what was running goes on at the next start")
    return 0


def _greet(door: Door, *, is_opened: bool) -> None:
    answer(door.url)
    if is_opened:  # in a thread: a browser in a terminal would keep the server from its first answer
        Thread(target=_open, args=(door.url,), daemon=True).start()


def _open(url: str) -> None:
    if not webbrowser.open(url):
        _log("no browser could be opened: open this address yourself")


def _require() -> None:
    missing = [name for name in ("starlette", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        hint = "install it:\n  pip install 'evalops-cli[serve]'"
        raise _problem("not-installed", "evalops ui needs the extra `serve`, which is not installed", hint)


def _log(text: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk must not end the pages
        say(text)


def _problem(what: str, message: str, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"ui/{what}", message=message, hint=hint))
