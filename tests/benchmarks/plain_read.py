"""The least that a plan must do: parse all files of a project, or read and hash them.

python plain_read.py parse|hash FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import yaml


def parse(path: Path) -> None:
    """Builds what the file says, without looking at it."""
    match path.suffix:
        case ".yaml":
            yaml.load(path.read_bytes(), yaml.CSafeLoader)
        case ".lock":
            json.loads(path.read_bytes())
        case _:
            for line in path.read_bytes().splitlines():
                json.loads(line)


def digest(path: Path) -> None:
    """Reads and hashes the file."""
    hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    _, what, folder = sys.argv
    for each in Path(folder).rglob("*.*"):
        (parse if what == "parse" else digest)(each)
