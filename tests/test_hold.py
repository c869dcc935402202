"""The lock that one process has at a time, and looks at who has it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from evalops import hold
from evalops.errors import EvalopsError, Exit


def test_a_look_says_who_has_it_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state" / "apply.lock"
    assert hold.holder(path) is None and not path.exists()
    with hold.held(path, "apply/locked", "another apply is running"):
        found = hold.holder(path)
        assert found is not None and found.pid == os.getpid() and found.host and found.since
        with pytest.raises(EvalopsError) as caught, hold.held(path, "apply/locked", "another apply is running"):
            pass
        assert caught.value.exit_code is Exit.LOCKED_OR_STALE
        assert f"process {os.getpid()} on" in caught.value.diagnostics[0].message
    assert hold.holder(path) is None


@pytest.mark.parametrize("note", ["", "[]", "{", '{"pid": "x", "since": []}'])
def test_a_holder_that_says_nothing_is_still_one(tmp_path: Path, note: str) -> None:
    path = tmp_path / "apply.lock"
    with hold.held(path, "apply/locked", "taken"):
        path.write_text(note)
        assert hold.holder(path) == (None, None, None)


def test_looks_never_keep_anybody_from_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "apply.lock"
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            hold.holder(path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(50):
            with hold.held(path, "apply/locked", "taken"):
                pass
    finally:
        is_over.set()
        looking.join()
