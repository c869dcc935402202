"""Comparing what a user sees with a file. EVALOPS_GOLDEN=update rewrites the files instead; read the diff."""

from __future__ import annotations

import os
from pathlib import Path

UPDATE = os.environ.get("EVALOPS_GOLDEN") == "update"


def check(text: str, path: Path) -> None:
    """Asserts that `path` holds `text`."""
    if UPDATE:
        path.write_text(text, encoding="utf-8")
        return
    assert path.is_file(), f"{path} is missing: EVALOPS_GOLDEN=update pytest writes it"
    assert text == path.read_text(encoding="utf-8"), f"{path} is not what is printed: EVALOPS_GOLDEN=update rewrites it"
