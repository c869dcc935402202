"""What a person reads in a terminal. Signs and words carry the meaning, colour only repeats it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import click

from evalops.errors import Diagnostic, Severity
from evalops.settings import FILE
from evalops.views.safe import flat, line, safe

Lines = Callable[[str], Sequence[str]]  # a path of the project -> its lines, none where it cannot be read

MOST = 12  # settings that differ, before the rest is counted

_COLOURS = {"+": "green", "~": "yellow", "<": "cyan", ">": "cyan", "*": "cyan", ".": "red", "?": "magenta", "!": "red"}


def diagnostics(found: Iterable[Diagnostic], lines: Lines) -> str:
    """Problems with their place, the offending line under a caret, and the hint."""
    return "\n".join(_diagnostic(each, lines) for each in found)


def plain(text: str) -> str:
    """A text without its colours."""
    return click.unstyle(text)


def _diagnostic(each: Diagnostic, lines: Lines) -> str:
    colour = "red" if each.severity is Severity.ERROR else "yellow"
    kind = click.style(f"{each.severity.value}[{each.code}]", fg=colour, bold=True)
    place = f"{flat(each.mark)}: " if each.mark else ""
    # A warning about an evaluation may stand in evalops.yaml, far from its name.
    is_said = not each.address or f"`{each.address}`" in each.message
    about = f"{flat(each.address)}: " if not is_said and each.mark and each.mark.path == FILE else ""
    text = f"{place}{kind}: {about}{flat(each.message)}"
    mark = each.mark
    source = lines(mark.path) if mark and mark.line else ()
    if mark and 0 < mark.line <= len(source):
        text += "\n" + _snippet(source[mark.line - 1], mark.line, mark.column)
    if each.hint:
        text += f"\n  {click.style('hint:', fg='cyan')} {safe(each.hint)}"
    return text


def _snippet(source: str, number: int, column: int) -> str:
    width = len(str(number))
    start = max(0, column - 80)
    shown, before = line_of(source[start : start + 160]), line_of(source[start : column - 1])
    bar = click.style("|", fg="blue")
    return f"  {click.style(str(number), fg='blue')} {bar} {shown}\n  {' ' * width} {bar} {' ' * len(before)}^"


def line_of(text: str) -> str:
    """A source line as it is shown: safe, tabs as one space so that the caret stands right."""
    return safe(text.rstrip("\r\n").replace("\t", " "))


def plan(value: Mapping[str, Any], *, verbose: bool = False) -> str:
    """The plan from its machine form: one line a change, what is in step counted only."""
    changes = [each for each in value["changes"] if verbose or each["action"] != "noop"]
    summary = value["summary"]
    if not changes or all(each["action"] == "noop" for each in changes):
        rows = [_change(each, 0) for each in changes]
        count = summary["in_step"]
        step = f"Everything is in step: {count} evaluation{'s' * (count != 1)}, nothing to do."
        return "\n".join([*rows, step, *trusted(value)])
    width = min(60, max(len(flat(each["address"])) for each in changes))
    rows = []
    for each in changes:
        rows.append(_change(each, width))
        rows += _fields(each["fields"], verbose=verbose)
    return "\n".join([*rows, "", totals(summary), *trusted(value), f"Digest: {value['digest']}"])


def _change(each: Mapping[str, Any], width: int) -> str:
    sign = click.style(each["sign"], fg=_COLOURS.get(each["sign"]), bold=True)
    parts = (
        f"{sign} {flat(each['address']):<{width}}",
        f"{each['action']:<7}",
        amount(each),
        line(each["reason"], 160),
    )
    return "  ".join(part for part in parts if part).rstrip()


def amount(each: Mapping[str, Any]) -> str:
    """What a change takes: rows, calls, cost; nothing where it is free."""
    text = "rows unknown" if each["money"] == "paid" else ""
    if each["rows"] is not None:
        text = f"{count(each['rows'], 'row')}, {_calls(each)}"
    return text + (f", {_money(each['cost'])}" if each["cost"] else "")


def _calls(value: Mapping[str, Any]) -> str:
    """`300 calls`, or `100 to 300 calls` where the replies decide."""
    least = value.get("calls_at_least", value["calls"])
    return f"{least:,} to {count(value['calls'], 'call')}" if least != value["calls"] else count(value["calls"], "call")


def _fields(fields: Iterable[Mapping[str, Any]], *, verbose: bool) -> Iterable[str]:
    for field in fields:
        yield f"      {flat(field['name'])}  {click.style(flat(field['mark']), dim=True)}"
        if verbose and field.get("diff"):
            for each in field["diff"][2:]:
                colour = {"+": "green", "-": "red", "@": "cyan"}.get(each[:1])
                yield f"        {click.style(safe(each), fg=colour)}"
        elif "diff" not in field or not verbose:
            yield f"        {short(field['before'])} -> {short(field['after'])}"


def short(value: Any) -> str:
    """The value of a field on one line, a digest by its first digits."""
    if value is None:
        return "(none)"
    text = str(value)
    digest = re.fullmatch("(sha256:)?([0-9a-f]{12})[0-9a-f]{52}", text)
    return line(f"{digest[1] or ''}{digest[2]}…" if digest else text, 80)


def totals(summary: Mapping[str, Any]) -> str:
    """What a plan would do and take, in one sentence."""
    paid = summary["paid"]
    parts = []
    if paid["changes"] and paid["rows"] is None:
        parts.append(f"{paid['changes']:,} to run: rows and cost unknown (files at the service are not counted)")
    elif paid["changes"]:
        cost = "no cost" if paid["cost"] == 0 else "cost unknown (no price for a model)"
        if paid["cost"]:
            dated = f" (prices of {paid['prices_as_of']})" if paid.get("prices_as_of") else ""
            cost = f"cost about {_money(paid['cost'])}{dated}"
        basis = _BASES.get(paid.get("basis", ""), "")
        parts.append(
            f"{paid['changes']:,} to run: {count(paid['rows'], 'row')}, {_calls(paid)}, "
            f"about {paid['tokens']:,} tokens{basis}, {cost}"
        )
    for key, words in (("free", "free"), ("unknown", "of unknown outcome"), ("blocked", "blocked")):
        if summary[key]:
            parts.append(f"{summary[key]:,} {words}")
    parts.append(f"{summary['in_step']:,} in step")
    return f"Plan: {'; '.join(parts)}."


_BASES = {
    "rule of thumb": " by rule of thumb",
    "last result": " as in the last results",
    "both": ", in part as in the last results",
}


def trusted(value: Mapping[str, Any]) -> list[str]:
    """Whose settings a plan goes by, where that is another revision, and what of evalops.yaml differs from it."""
    found = value.get("trusted")
    if not found:
        return []
    lines = [f"Trusted: {line(FILE)} of {line(found['name'], 100)} ({found['commit'][:12]})"]
    for key, words in (("ignored", "not used here"), ("applied", "different here, and used")):
        if found[key]:
            more = f" and {len(found[key]) - MOST:,} more" if len(found[key]) > MOST else ""
            lines.append(f"  {words}: {', '.join(line(each, 80) for each in found[key][:MOST])}{more}")
    return lines


def usage(value: Mapping[str, Any]) -> str:
    """What jobs took: `40 calls, 12,000 tokens, cost 0.021`, an estimate named as one; "" where nobody was asked."""
    if not value.get("calls") and not value.get("kept") and not value.get("estimate"):
        return ""
    parts = [count(value["calls"], "call")] if value.get("calls") is not None else []
    if value.get("kept"):
        parts.append(f"{value['kept']:,} {'reply' if value['kept'] == 1 else 'replies'} known from before")
    if value.get("saved"):
        parts.append(f"{count(value['saved'], 'call')} saved by the cascade")
    sent, received = value.get("prompt_tokens"), value.get("completion_tokens")
    if sent is not None:
        parts.append(count(sent + (received or 0), "token"))
    elif value.get("calls"):
        parts.append("tokens unknown")
    return ", ".join([*parts, _cost(value)])


def _cost(value: Mapping[str, Any]) -> str:
    reason = safe(value.get("reason") or "unknown")
    if value.get("cost") is not None:
        return f"cost {_money(value['cost'])}"
    if value.get("estimate"):
        return f"cost about {_money(value['estimate']['cost'])}, an estimate ({reason})"
    return f"cost unknown ({reason})"


def time(stamp: str) -> str:
    """A time of a lockfile as people read it."""
    return stamp.replace("T", " ").replace("Z", " UTC")


def count(number: int, word: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {word}{'s' * (number != 1)}"


def _money(value: float) -> str:
    return f"{value:.4g}" if value else "0"


def metric(name: str, value: Mapping[str, Any]) -> str:
    """`97.5 [91.3, 99.3]`, or why there is no number."""
    if value.get("value") is None:
        return f"none ({safe(value.get('reason') or 'unknown')})"
    digits = 1 if name.endswith("percentage") else 4 if name.endswith("variance") else 2
    # Adding zero turns the -0.0 of rounding into 0.0.
    text, low, high = (
        None if value.get(key) is None else f"{round(value[key], digits) + 0.0:.{digits}f}"
        for key in ("value", "low", "high")
    )
    clusters = f" over {count(value['clusters'], 'cluster')}" if value.get("clusters") else ""
    return f"{text} [{low}, {high}]{clusters}" if low and high else str(text)


def effect(name: str, value: float) -> str:
    """A size of a change of a metric: `9.9 points`, `0.31`."""
    return f"{value:.1f} points" if name.endswith("percentage") else f"{value:.2g}"


def gate(value: Mapping[str, Any]) -> str:
    """One gate: the value that was held against its bound, the interval, the bound, and the verdict as a word."""
    bounds = " and ".join(f"{word} {value[word]:g}" for word in ("min", "max") if word in value)
    on = "" if value["on"] == "estimate" else f" ({value['on']} bound)"
    held = "none" if value["value"] is None else f"{value['value']:.4g}"
    if "estimate" in value:
        held += f" of {value['estimate']:.4g}"
    if "low" in value and "high" in value:
        held += f" [{value['low']:.4g}, {value['high']:.4g}]"
    where = f" in {line(value['group'], 60)}" if "group" in value else ""
    reason = f": {safe(value['reason'])}" if value.get("reason") else ""
    return f"{value['verdict']}: {gate_name(value)}{on} {held}{where}, {bounds}{reason}{_failed(value)}"


def gate_name(value: Mapping[str, Any]) -> str:
    """What a gate looks at: a metric, of the whole or of the groups of a column."""
    return line(value["metric"], 120) + (f" by {line(value['by'], 60)}" if "by" in value else "")


def _failed(value: Mapping[str, Any]) -> str:
    names = value.get("failed_groups")
    if not names:
        return ""
    more = " …" if value["failed"] > 5 else ""
    named = ", ".join(line(name, 60) for name in names[:5])
    return f" ({value['failed']} of {value['groups']} groups: {named}{more})"
