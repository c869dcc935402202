"""Projects to measure with: many specs or many rows, and lockfiles that answer them."""

from __future__ import annotations

import json
from pathlib import Path

from evalops import catalog, jobs, lock
from evalops.lock import Entry, Lock, Status
from evalops.plan import Wanted
from evalops.project import Project
from evalops.providers import open_provider
from evalops.providers.base import Provider
from evalops.result import Usage, Verdict, VerdictStatus

LABELS = ("good", "bad")
_SPEC = """\
version: 1
name: {name}
description: Replies to the customers of shop {number} are of use
tags: [support, team-{team}]
type: classify
dataset: {dataset}
judge:
  model: judge
  external_base_url: {url}
  num_workers: 64
  system_template: |
    You judge how a support agent of shop {number} answers its customers.
    The customer wrote: {{{{ question }}}}
    A reply is good if it answers the question, is polite, and promises nothing that the shop cannot keep.
labels: [good, bad]
pass_labels: [good]
model_to_evaluate: response
gold: label
thresholds:
  pass_percentage: {{min: 10}}
  invalid_rate: {{max: 0.5}}
"""


def rows_project(root: Path, rows: int, url: str) -> Path:
    """A project of one evaluation with so many rows, judged by the endpoint at `url`."""
    _settings(root)
    _write_spec(root, 0, dataset="rows.jsonl", url=url)
    _write_rows(root / "rows.jsonl", rows, first=0)
    return root


def specs_project(root: Path, specs: int, *, shared: bool = False) -> Path:
    """A project of so many spec files, each with ten rows of its own, or all with the same ten."""
    _settings(root)
    for number in range(specs):
        dataset = "rows.jsonl" if shared else f"data/{number}.jsonl"
        _write_spec(root, number, dataset=dataset, url="http://127.0.0.1:9/v1")
        _write_rows(root / dataset, 10, first=0 if shared else number * 10)
    return root


def write_locks(root: Path) -> None:
    """The lockfiles of a project whose evaluations have all run, each row with its true label as its verdict."""
    project = Project(root)
    found = catalog.read(project)
    assert not found.diagnostics, found.diagnostics[0]
    provider = open_provider("local", project)
    for each in found.wanted:
        path = lock.beside(each.evaluation.spec)
        entries = {each.evaluation.address: _entry(each, provider)}
        (root / path).write_text(lock.dump(Lock(path=path, entries=entries)), encoding="utf-8")


def _entry(wanted: Wanted, provider: Provider) -> Entry:
    evaluation, identity = wanted
    number = identity.digests.rows
    verdicts = [Verdict(str(row), VerdictStatus.SCORED, LABELS[row % 2]) for row in range(number)]
    rows = provider.request(evaluation, identity, 1).rows()
    usage = Usage(calls=number, prompt_tokens=100 * number, completion_tokens=30 * number)
    summary, _ = jobs.grade(wanted, rows, verdicts, usage=usage, most=0)
    return jobs.finished(
        Entry(
            address=evaluation.address,
            fingerprint=identity.fingerprint,
            provider=evaluation.provider,
            job=f"local-{identity.fingerprint[:16]}-1",
            status=Status.COMPLETED,
            created_at="2025-01-01T00:00:00Z",
            finished_at="2025-01-01T00:00:01Z",
            dataset=jobs.dataset_of(identity),
            inputs=identity.inputs,
            grade=identity.grade,
        ),
        wanted,
        summary,
    )


def _settings(root: Path) -> None:
    (root / "data").mkdir(parents=True, exist_ok=True)
    (root / "evalops.yaml").write_text("version: 1\n", encoding="utf-8")


def _write_spec(root: Path, number: int, *, dataset: str, url: str) -> None:
    text = _SPEC.format(name=f"shop-{number:05}", number=number, team=number % 10, dataset=dataset, url=url)
    (root / f"shop-{number:05}.yaml").write_text(text, encoding="utf-8")


def _write_rows(path: Path, rows: int, first: int) -> None:
    with path.open("w", encoding="utf-8") as stream:
        for number in range(first, first + rows):
            row = {
                "question": f"Where is my parcel number {number}? I ordered it a week ago and paid for quick delivery.",
                "response": f"I am sorry for the wait. Parcel {number} left our house on Monday and arrives tomorrow.",
                "label": LABELS[number % 2],
            }
            stream.write(json.dumps(row) + "\n")
