"""Any OpenAI-compatible endpoint serves: here the embedded server, addressed as a stranger's would be."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from evalops import cli
from evalops.engine import embedded, weights
from evalops.errors import Exit

SPEC = """\
version: 1
name: sentiment
type: classify
dataset: {{path: rows.jsonl, id: id}}
judge:
  model: whatever
  external_base_url: {url}
  credential: house
  max_tokens: 40
  reason: none
  system_template: |
    Is this review positive or negative? {{{{ review }}}}
labels: [positive, negative]
gold: gold
"""
SETTINGS = """\
version: 1
credentials:
  house: {{env: HOUSE_KEY, origins: ["{origin}"]}}
"""
ROWS = [
    {"id": 1, "review": "A wonderful evening, we laughed all the way home.", "gold": "positive"},
    {"id": 2, "review": "Cold soup, rude staff, never again.", "gold": "negative"},
]


async def serve_and_apply(project: Path) -> tuple[int, str]:
    """Exit code of an apply against one embedded server, and the server's key."""
    path = await asyncio.to_thread(
        weights.resolve,
        "embedded/smollm2-135m",
        project=project,
        cache=weights.default_cache(),
        progress=lambda *_: None,
    )
    async with embedded.Fleet(path, count=1) as fleet:
        (endpoint,) = fleet.endpoints
        assert endpoint.key is not None
        key = endpoint.key.reveal()
        (project / "evalops.yaml").write_text(SETTINGS.format(origin=endpoint.base_url.removesuffix("/v1")))
        (project / "sentiment.yaml").write_text(SPEC.format(url=endpoint.base_url))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HOUSE_KEY", key)
            code = await asyncio.to_thread(cli.run, ["--project", str(project), "apply", "--yes"])
        return code, key


@pytest.mark.slow
@pytest.mark.embedded
def test_the_embedded_server_as_an_external_endpoint(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    code, key = asyncio.run(serve_and_apply(tmp_path))
    assert code == Exit.OK
    entry = json.loads((tmp_path / "sentiment.lock").read_text())["evaluations"]["sentiment"]
    assert entry["summary"]["scored"] == len(ROWS)
    assert entry["summary"]["rungs"] == {"json_schema": len(ROWS)}
    written = [each for each in tmp_path.rglob("*") if each.is_file()]
    assert not [each for each in written if key.encode() in each.read_bytes()]
