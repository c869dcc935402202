"""The command line in this process, and how a command ended."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from evalops import cli
from evalops.errors import Exit


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What was printed, as one value."""
        return json.loads(self.out)

    def lines(self) -> list[Any]:
        """What was printed, a value a line."""
        return [json.loads(line) for line in self.out.splitlines() if line]


def run(root: Path, *arguments: str | Path) -> Done:
    """`evalops` for the project at `root`; it may end in any way but in a bug."""
    # As strict as a terminal: what UTF-8 cannot hold is an error, as it is for the user.
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(["--project", str(root), *map(str, arguments)])
    done = Done(int(code), *(stream.buffer.getvalue().decode() for stream in (out, err)))  # type: ignore[attr-defined]
    assert done.code != Exit.BUG, done.err
    return done
