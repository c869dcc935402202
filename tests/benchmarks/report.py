"""A report of 50,000 rows: making it, and opening, filtering, searching and sorting it in Chromium."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from browser import chromium, watched
from measure import evalops, figure, run, title

ROWS = 50_000
TURNS = 5
GOAL = 1000  # milliseconds
WORDS = ("alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa", "omicron", "rho")
SPEC = {
    "version": 1,
    "name": "sums",
    "type": "custom",
    "dataset": {"path": "rows.jsonl", "id": "id"},
    "evaluator": {"kind": "exact", "extract": "last_number"},
    "model_to_evaluate": "response",
    "gold": "truth",
    "group_by": ["category"],
}
# From the user's act to the frame that shows what came of it; a search waits for the last key by itself.
ACT = """([act, value]) => new Promise((done) => {
  const began = performance.now(), table = document.querySelector('.rows');
  const select = (label) => [...table.querySelectorAll('label')].find((each) => each.textContent === label).nextSibling;
  const shown = () => requestAnimationFrame(() => setTimeout(() => done(performance.now() - began), 0));
  const acts = {
    filter: () => { const each = select(value[0]); each.selectedIndex = value[1]; each.dispatchEvent(new Event('change')); shown(); },
    search: () => {
      new MutationObserver(shown).observe(table.querySelector('.count'), { childList: true });
      const each = table.querySelector('input'); each.value = value; each.dispatchEvent(new Event('input'));
    },
    sort: () => { [...table.querySelectorAll('.sort')].find((each) => each.textContent === value).click(); shown(); },
  };
  acts[act]();
})"""


def bench(folder: Path) -> None:
    """Prints what the page costs to make, and how long each act of a reader takes."""
    title(f"report: {ROWS:,} rows, worst of {TURNS}")
    root, page = folder / "project", folder / "report.html"
    root.mkdir()
    (root / "evalops.yaml").write_text("version: 1\n")
    (root / "sums.yaml").write_text(json.dumps(SPEC))
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows()))
    command = [*evalops(), "--project", str(root)]
    run([*command, "apply", "--yes"], home=folder)
    cost = run([*command, "report", "--out", str(page)], home=folder)
    figure("made", f"{cost.wall:.1f} s, {cost.peak:.0f} MiB")
    figure("size", f"{page.stat().st_size / 1e6:.1f} MB")
    with chromium() as browser, watched(browser, viewport={"width": 1280, "height": 900}) as found:
        opened = [_open(found.page, page.as_uri()) for _ in range(TURNS)]
        _figure("opened, with the table drawn", opened)
        _figure("filtered by outcome", _turns(found.page, "filter", ["Outcome", 1], ["Outcome", 0]))
        _figure("filtered by category", _turns(found.page, "filter", ["category", 1], ["category", 0]))
        _figure("searched for two words", _turns(found.page, "search", "omicron 1234", "zeta rho"))
        _figure("sorted by text", _turns(found.page, "sort", "response", "question"))
        figure(
            "requests, errors",
            f"{len(found.requests)}, {len(found.errors)}",
            "0, 0",
            met=not (found.requests or found.errors),
        )


def _rows() -> Iterator[dict[str, str]]:
    pick = random.Random(1)
    for number in range(ROWS):
        truth = str(pick.randint(1, 99))
        said = truth if pick.random() < 0.8 else "0"
        question, answer = (" ".join(pick.choices(WORDS, k=count)) for count in (20, 60))
        about = {"category": pick.choice("abcde"), "truth": truth}
        yield {"id": f"r{number}", "question": f"{question} {number}", "response": f"{answer} {said}", **about}


def _open(page: Any, address: str) -> float:
    """Milliseconds from the navigation to a drawn row."""
    page.goto("about:blank")
    page.goto(f"{address}#e-sums", wait_until="commit")
    page.locator(".open").first.wait_for()
    took = page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd")
    return float(took)


def _turns(page: Any, act: str, *values: Any) -> list[float]:
    return [float(page.evaluate(ACT, [act, value])) for _ in range(TURNS) for value in values]


def _figure(name: str, found: list[float]) -> None:
    worst = max(found)
    figure(name, f"{worst:.0f} ms (median {statistics.median(found):.0f})", f"<= {GOAL} ms", met=worst <= GOAL)
