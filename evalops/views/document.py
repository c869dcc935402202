"""The report as one Markdown document. Whatever comes from a spec, a dataset or a model is code, or a safe sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from evalops.views import chips, markdown, parts
from evalops.views import review as moved
from evalops.views import text as words
from evalops.views.safe import code, fence, prose

Value = Mapping[str, Any]


def show(report: Value) -> str:
    """Totals, problems, a line for each evaluation, what moved, and each evaluation by itself."""
    found = [f"# Evaluations of {code(report['project'], 80)}", _about(report), _totals(report)]
    found += [f"- {each['severity']}: {prose(each['message'], 300)}" for each in report.get("problems", [])]
    found += [f"- {prose(why, 300)}" for why in report["absent"].values()]
    if report["pending"]:
        found.append(f"{words.count(len(report['pending']), 'change')} not applied yet: the results are of other specs")
    found += ["## Results", _results(report["evaluations"])]
    if report["review"] and report["review"]["moves"]:
        review = report["review"]
        shown = [*markdown.failing(review), *markdown.results(review), *markdown.reasons(review)]
        found += ["## Since the base", f"{moved.totals(review)}.", *shown]
    for each in report["evaluations"]:
        found += _evaluation(each)
    return "\n\n".join(part for part in found if part) + "\n"


def _about(report: Value) -> str:
    said = [f"Made {words.time(report['at'])} by evalops {report['version']}"]
    said += [f"at {code(report['head'][:12])}"] if report["head"] else []
    if report["base"]:
        said.append(f"beside {code(report['base']['commit'][:12])} ({code(report['base']['name'], 100)})")
    return ", ".join(said) + "."


def _totals(report: Value) -> str:
    totals = report["totals"]
    gates = f"{totals['gates'] - totals['failed_gates']:,} of {words.count(totals['gates'], 'gate')} passed"
    rows = f"{words.count(totals['rows'], 'row')}, {totals['invalid']:,} invalid, {totals['errors']:,} errors"
    cost = "cost not known" if totals["cost"] is None else f"cost {totals['cost']:.4g}"
    return f"**{words.count(totals['evaluations'], 'evaluation')}**, **{gates}**, {rows}, {cost}."


def _results(evaluations: Sequence[Value]) -> str:
    rows = []
    for each in evaluations:
        found, summary, state = each["headline"], each["summary"] or {}, chips.state(each)
        result = f"{found['metric']} {words.metric(found['metric'], found)}" if found else "none"
        missing = summary.get("invalid", 0) + summary.get("errors", 0)
        amounts = (f"{summary.get('rows', 0):,}", f"{missing:,}")
        rows.append([code(state.sign), code(each["address"]), prose(result), state.word, *amounts])
    return markdown.table(("", "evaluation", "result [95 % interval]", "state", "rows", "no verdict"), rows)


def _evaluation(value: Value) -> Iterator[str]:
    summary = value["summary"] or {}
    yield f"## {code(value['address'])}"
    if value["message"]:
        yield prose(value["message"], 400)
    yield from (f"- gate {prose(words.gate(gate), 300)}" for gate in value["gates"])
    yield from (f"- warning: {prose(each, 400)}" for each in summary.get("warnings") or ())
    metrics = summary.get("metrics") or {}
    if metrics:
        rows = [
            [code(name), prose(words.metric(name, each)), str(each.get("n") or "")] for name, each in metrics.items()
        ]
        yield markdown.table(("metric", "value [95 % interval]", "rows"), rows)
    for key, title in (("label_counts", "label"), ("score_counts", "score"), ("choice_counts", "choice")):
        if summary.get(key):
            yield markdown.table((title, "rows"), [[code(name), f"{count:,}"] for name, count in summary[key].items()])
    for grid in parts.grids(summary):
        yield markdown.table(list(map(prose, grid.columns)), [list(map(prose, row)) for row in grid.rows])
    for name, text in ((value["asked"] or {}).get("templates") or {}).items():
        yield f"{code(name)}:\n\n{fence(text)}"
