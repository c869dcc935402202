"""Version 2 of the official SDK, whose base URL ends in `/v1`, against `evalops serve`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from model_server import serve
from serve_process import SERVERLESS, served

VERSION = "2.24.0"
# What version 3, which the tests have, does not need itself.
PACKAGES = (f"together=={VERSION}", "tqdm>=4.67.1", "tabulate>=0.9")

SCRIPT = """
import json, sys, time
import together

client = together.Together(max_retries=0)
file = client.files.upload(file=sys.argv[1], purpose="eval")
again = client.files.upload(file=sys.argv[1], purpose="eval")
parameters = {**json.loads(sys.argv[2]), "input_data_file_path": file.id}
job = client.evals.create(type="classify", parameters=parameters).workflow_id
until = time.monotonic() + 60
while client.evals.status(job).status not in ("completed", "error", "user_error") and time.monotonic() < until:
    time.sleep(0.02)
found = client.evals.retrieve(job)
print(json.dumps({
    "version": together.__version__,
    "is_same": again.id == file.id,
    "listed": [each.workflow_id for each in client.evals.list()] == [job],
    "status": found.status,
    "label_counts": found.results.label_counts,
    "rows": len(client.files.content(found.results.result_file_id).text().splitlines()),
    "deleted": client.files.delete(file.id).deleted,
}))
"""


def run(command: list[Any], **environment: str) -> str:
    done = subprocess.run(
        list(map(str, command)), env=os.environ | environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_version_2_of_the_sdk(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", packages, *PACKAGES])
    rows = tmp_path / "rows.jsonl"
    truths = ["polite", "rude", "polite"]
    rows.write_text("".join(json.dumps({"question": f"truth={each}", "answer": "Yes"}) + "\n" for each in truths))
    parameters = {
        "judge": {"model": SERVERLESS, "model_source": "serverless", "system_template": "Judge {{ question }}"},
        "model_to_evaluate": "answer",
        "labels": ["polite", "rude"],
        "pass_labels": ["polite"],
    }
    with serve() as models, served(tmp_path, model_url=models.url, key="sk-of-the-server") as server:
        out = run(
            [sys.executable, "-c", SCRIPT, rows, json.dumps(parameters)],
            PYTHONPATH=str(packages),
            TOGETHER_BASE_URL=f"{server.url}/v1",
            TOGETHER_API_KEY="sk-of-the-server",
        )
    assert json.loads(out) == {
        "version": VERSION,
        "is_same": True,
        "listed": True,
        "status": "completed",
        "label_counts": {"polite": 2, "rude": 1},
        "rows": 3,
        "deleted": True,
    }
