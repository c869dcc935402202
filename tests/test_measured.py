"""What the benchmarks measure: a project that is in step with its lockfiles."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from apply_project import Folder

SAMPLE = Path(__file__).parent / "benchmarks" / "sample.py"


def test_the_project_whose_plans_are_measured_is_in_step(tmp_path: Path) -> None:
    loading = importlib.util.spec_from_file_location("sample", SAMPLE)
    assert loading and loading.loader
    sample = importlib.util.module_from_spec(loading)
    loading.loader.exec_module(sample)
    root = sample.specs_project(tmp_path, 3)
    sample.write_locks(root)
    assert set(Folder(root, "").actions().values()) == {"noop"}
    assert len(list(root.glob("*.lock"))) == 3
