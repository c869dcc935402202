"""Rows of type custom: no model judges them, but a comparison or a Python function of the project's own.

That function is the only code of a project that evalops ever runs, and only here: settings name it, apply imports it.
It runs in a thread, one call at a time, so that a slow one holds up no other job.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from evalops import schema
from evalops.engine.jury import Evaluate
from evalops.errors import Diagnostic, EvalopsError
from evalops.evaluators import answer, kinds, overlap
from evalops.evaluators.kinds import Outcome
from evalops.result import Verdict, VerdictStatus
from evalops.secret import Secret, redact
from evalops.spec import Evaluation

LONGEST = 300  # characters of what is said of a row
LONGEST_READ = 10_000  # of what a function says, before what is secret is taken out of it
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIALS")  # ends of variables that hold one

Function = Callable[[Any, Any, dict[str, Any]], Any]


def require(evaluation: Evaluation) -> None:
    """Raises EvalopsError where the library of an evaluator is not installed."""
    kind = evaluation.evaluator.kind if evaluation.evaluator else ""
    if kind in overlap.LIBRARIES and not overlap.is_installed(kind):
        raise EvalopsError(
            Diagnostic(
                code="evaluator/not-installed",
                message=f"the evaluator `{kind}` needs the extra `text`, which is not installed",
                mark=evaluation.places.mark("evaluator"),
                hint="install it:\n  pip install 'evalops-cli[text]'",
            )
        )


def open_(evaluation: Evaluation, function: Function | None, timeout: float) -> Evaluate:
    """What gives the verdicts on rows; `function` is that of kind `python`, with `timeout` seconds for a row."""
    evaluator = evaluation.evaluator
    assert evaluator is not None, "only type custom is evaluated"
    gold = evaluation.gold
    if function is not None:
        return _Calls(evaluation, function, timeout).row
    evaluate = kinds.build(evaluator)

    async def row(key: str, response: Any, source: Mapping[str, Any]) -> Verdict:
        await asyncio.sleep(0)  # else nothing else would run before the last row
        return _verdict(key, evaluate(response, source.get(gold) if gold else None))

    return row


class _Calls:
    """A function of the project's own, called for one row after the other."""

    def __init__(self, evaluation: Evaluation, function: Function, timeout: float) -> None:
        assert evaluation.evaluator is not None
        self._function = function
        self._timeout = timeout
        self._gold = evaluation.gold
        self._read = kinds.reader(evaluation.evaluator) if evaluation.evaluator.extract else None
        self._turn = asyncio.Lock()
        self._secrets = tuple(_secrets(os.environ))

    async def row(self, key: str, response: Any, source: Mapping[str, Any]) -> Verdict:
        """The verdict on one row. A call without end is left behind, in a thread that ends with the process."""
        if answer.is_blank(response):
            return _verdict(key, Outcome(None, "there is nothing to evaluate", "empty_response"))
        async with self._turn:
            loop = asyncio.get_running_loop()
            future: asyncio.Future[Outcome] = loop.create_future()

            def run() -> None:
                found = self._outcome(response, dict(source))
                with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                    loop.call_soon_threadsafe(lambda: None if future.done() else future.set_result(found))

            threading.Thread(target=run, name="evalops-evaluator", daemon=True).start()
            try:
                return _verdict(key, await asyncio.wait_for(future, self._timeout))
            except TimeoutError:
                why = f"the function did not return within {self._timeout:g} seconds"
                return _verdict(key, Outcome(None, why, "timeout", is_error=True))

    def _outcome(self, response: Any, row: dict[str, Any]) -> Outcome:
        try:
            if self._read is not None:
                found = self._read(response)
                if found.reason:
                    return Outcome(None, found.why, found.reason)
                response = found.text
            given = self._function(response, row.get(self._gold) if self._gold else None, row)
            return self._redacted(kinds.outcome(given))
        except BaseException as error:  # whatever it was, this row has no verdict and the others may have one
            return Outcome(None, _said(error, self._secrets), "evaluator_failed", is_error=True)

    def _redacted(self, found: Outcome) -> Outcome:
        return found._replace(feedback=redact(found.feedback[:LONGEST_READ], self._secrets))


def _verdict(key: str, found: Outcome) -> Verdict:
    feedback = found.feedback[:LONGEST] or None
    if found.value is not None:
        return Verdict(key, VerdictStatus.SCORED, found.value, None, feedback)
    return Verdict(key, VerdictStatus.ERROR if found.is_error else VerdictStatus.INVALID, None, found.reason, feedback)


def _said(error: BaseException, secrets: tuple[Secret, ...]) -> str:
    """An exception in one line, without the keys of this process's environment."""
    try:
        text = str(error)
    except Exception:
        text = ""
    # Cut only after what is secret is gone: half a key is none that could be recognised.
    lines = redact(text[:LONGEST_READ], secrets).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:LONGEST]


def _secrets(environment: Mapping[str, str]) -> Iterator[Secret]:
    for name, value in environment.items():
        if name.upper().endswith(_SECRET):
            with contextlib.suppress(ValueError):
                yield Secret(value.strip())


# --- import ---


def load(function: str, root: Path, *, is_ours: bool) -> Function:
    """The function that settings name as `module:function`, its module run anew. `is_ours`: it lies in the project.

    Raises EvalopsError where it cannot be imported. Nothing is written beside the module.
    """
    module_name, _, name = function.partition(":")
    if is_ours:
        _refuse_taken(module_name.partition(".")[0], function, root)
    try:
        with _importable(module_name.partition(".")[0], root) if is_ours else contextlib.nullcontext():
            module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise _cannot(function, _said(error, tuple(_secrets(os.environ))), _hint(error, module_name)) from None
    found = getattr(module, name, None)
    if not callable(found):
        known = [each for each in vars(module) if not each.startswith("_") and callable(getattr(module, each))]
        raise _cannot(function, f"`{module_name}` has no function `{name}`", schema.nearest(name, known))
    if inspect.iscoroutinefunction(found):
        raise _cannot(function, "it is asynchronous", "write it with `def`: it runs in a thread of its own")
    return found  # type: ignore[no-any-return]


@contextlib.contextmanager
def _importable(top: str, root: Path) -> Iterator[None]:
    """The project's folder on the path, and nothing in memory or on disk of what an earlier import made of it."""
    for each in [each for each in sys.modules if each == top or each.startswith(f"{top}.")]:
        del sys.modules[each]
    importlib.invalidate_caches()
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    sys.path.insert(0, str(root))
    try:
        yield
    finally:
        sys.path.remove(str(root))
        sys.dont_write_bytecode = before


def _refuse_taken(top: str, function: str, root: Path) -> None:
    """A module of the project that hides an installed one would be found by that one's users too."""
    known = PathFinder.find_spec(top)
    places = [known.origin, *(known.submodule_search_locations or ())] if known else []
    if any(place and not Path(place).is_relative_to(root) for place in places):
        raise _cannot(function, f"a package called `{top}` is installed as well", "give your module another name")


def _cannot(function: str, why: str, hint: str | None) -> EvalopsError:
    message = f"the evaluator `{function}` cannot be used: {why}"
    return EvalopsError(Diagnostic(code="evaluator/import", message=message, hint=hint))


def _hint(error: BaseException, module: str) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name and f"{module}.".startswith(f"{error.name}."):
        return "modules are looked for in the folder of evalops.yaml and among what is installed"
    return None
