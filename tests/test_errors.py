"""Problems as values: how they read, and that they survive a way through other processes."""

from __future__ import annotations

import pickle
import traceback

from evalops.errors import Diagnostic, EvalopsError, Exit, Mark, Severity

LABEL = Diagnostic(
    code="spec/labels",
    message="`labels` names `rude` twice",
    mark=Mark("tone.yaml", 7, 3),
    hint="remove one:\n  labels: [polite, rude]",
)
NOTE = Diagnostic(code="lock/old", message="it is old", mark=Mark("tone.lock"), severity=Severity.WARNING)


def test_a_problem_reads_with_its_place_and_its_hint() -> None:
    assert str(LABEL) == (
        "tone.yaml:7:3: error[spec/labels]: `labels` names `rude` twice\n  hint: remove one:\n  labels: [polite, rude]"
    )
    assert str(NOTE) == "tone.lock: warning[lock/old]: it is old"


def test_an_error_shows_every_problem_in_a_notebook_and_in_a_traceback() -> None:
    error = EvalopsError(LABEL, NOTE)
    assert repr(error) == f"EvalopsError:\n{LABEL}\n{NOTE}"
    assert str(error) == "`labels` names `rude` twice; it is old"
    shown = "".join(traceback.format_exception(error))
    assert str(LABEL) in shown and str(NOTE) in shown


def test_what_a_stranger_wrote_cannot_rewrite_what_is_read() -> None:
    found = str(Diagnostic(code="a/b", message="x\x1b[2J\nerror[c/d]: é \u202e\ud800", hint="one\ntwo\x07"))
    assert found == "error[a/b]: x\\x1b[2J\\nerror[c/d]: é \\u202e\\ud800\n  hint: one\ntwo\\x07"


def test_an_error_comes_back_whole_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(EvalopsError(LABEL, NOTE, exit_code=Exit.LOCKED_OR_STALE)))
    assert isinstance(error, EvalopsError) and error.exit_code is Exit.LOCKED_OR_STALE
    assert list(error.diagnostics) == [LABEL, NOTE] and str(error) == "`labels` names `rude` twice; it is old"
    assert getattr(error, "__notes__", None) == [str(LABEL), str(NOTE)]
