"""What a check found, for machines of continuous integration: GitHub annotations, SARIF, JUnit."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from evalops.settings import FILE
from evalops.views import text as words
from evalops.views.safe import line, safe

_GATE = "gate/"
# Beyond what `safe` shows as escapes, XML has no place for these.
_NOT_XML = re.compile("[\ufffe\uffff]")


def summary(value: Mapping[str, Any]) -> str:
    """How it ended, in one sentence of ours."""
    found = value["totals"]
    if not value["is_whole"]:
        return f"Nothing could be checked: {words.count(found['project'], 'error')} in the files of the project."
    parts = [f"{found['hold']} hold"] + [
        f"{found[key]} {what}"
        for key, what in (("gate_failed", "with a gate that fails"), ("problem", "with a problem"))
        if found[key]
    ]
    parts += [f"{words.count(found['project'], 'problem')} of the project itself"] if found["project"] else []
    unproven = sum(_is_unproven(each) for each in value["evaluations"])
    parts += [f"{unproven} not proven by {'its' if unproven == 1 else 'their'} service"] if unproven else []
    base = f" Base: {value['base']['commit'][:12]}." if value["base"] else ""
    return f"{words.count(found['evaluations'], 'evaluation')}: {', '.join(parts)}.{base}"


def _is_unproven(checked: Mapping[str, Any]) -> bool:
    """Whether a service was asked, and could not bear out all of a result."""
    return any(each["code"] == "check/unproven" for each in checked["diagnostics"])


def text(value: Mapping[str, Any]) -> str:
    """A line for each evaluation that does not hold, and the sentence."""
    rows = [each for each in value["evaluations"] if each["status"] != "holds"]
    width = min(60, max((len(line(each["address"])) for each in rows), default=0))
    lines = [f"{line(each['address']):<{width}}  {', '.join(_codes(each))}" for each in rows]
    return "\n".join([*lines, *([""] if lines else []), summary(value), *words.trusted(value)])


def _codes(checked: Mapping[str, Any]) -> list[str]:
    return list(dict.fromkeys(each["code"] for each in checked["diagnostics"] if each["severity"] == "error"))


# --- GitHub ---


def github(value: Mapping[str, Any]) -> str:
    """Workflow commands that annotate lines, and the sentence. A message cannot end its command or begin another."""
    return "\n".join([*map(_annotation, value["diagnostics"]), summary(value)])


def _annotation(problem: Mapping[str, Any]) -> str:
    named = {"file": problem["file"], "line": problem["line"], "col": problem["column"], "title": problem["code"]}
    properties = ",".join(f"{key}={_property(each)}" for key, each in named.items() if each is not None)
    hint = f"\n{problem['hint']}" if problem["hint"] else ""
    return f"::{problem['severity']} {properties}::{_data(problem['message'] + hint)}"


def _data(value: object) -> str:
    return safe(value).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: object) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


# --- SARIF ---


def sarif(value: Mapping[str, Any]) -> str:
    """SARIF 2.1.0: a rule for each code, a result for each problem."""
    problems = value["diagnostics"]
    driver = {
        "name": "evalops",
        "semanticVersion": value["version"],
        "rules": [{"id": code, "name": _rule(code)} for code in dict.fromkeys(each["code"] for each in problems)],
    }
    run = {
        "tool": {"driver": driver},
        "columnKind": "unicodeCodePoints",
        "results": [_finding(each) for each in problems],
        "invocations": [{"executionSuccessful": value["is_whole"]}],
    }
    document = {"$schema": "https://json.schemastore.org/sarif-2.1.0.json", "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace").decode() + "\n"


def _rule(code: str) -> str:
    return "".join(part.capitalize() for part in re.split("[/-]", code))


def _finding(problem: Mapping[str, Any]) -> dict[str, Any]:
    hint = f"\n{problem['hint']}" if problem["hint"] else ""
    region = {"startLine": problem["line"], "startColumn": problem["column"]} if problem["line"] else {"startLine": 1}
    return {
        "ruleId": problem["code"],
        "level": problem["severity"],
        "message": {"text": safe(problem["message"] + hint)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(problem["file"].encode("utf-8", "surrogateescape"))},
                    "region": region,
                }
            }
        ],
        "partialFingerprints": {"evalops/v1": f"{problem['code']}:{safe(problem['address'] or problem['file'])}"},
    }


# --- JUnit ---


def junit(value: Mapping[str, Any]) -> str:
    """JUnit XML: a test case for each evaluation, and one for the project."""
    cases: list[tuple[str, str, Sequence[Mapping[str, Any]]]] = [
        (str(each["file"]), str(each["address"]), each["diagnostics"]) for each in value["evaluations"]
    ]
    cases.append((FILE, "project", value["project"]))
    root = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(root, "testsuite", name="evalops")
    counts = {"tests": 0, "failures": 0, "errors": 0}
    for classname, name, problems in cases:
        case = ElementTree.SubElement(suite, "testcase", classname=_xml(classname), name=_xml(name))
        errors = [each for each in problems if each["severity"] == "error"]
        kinds = list(_outcomes(errors))
        for kind, problem in zip(kinds, errors, strict=True):
            said = _xml(line(problem["message"], 1000))
            about = ElementTree.SubElement(case, kind, type=problem["code"], message=said)
            about.text = _xml(_report(problem))
        counts["tests"] += 1
        counts["errors"] += "error" in kinds
        counts["failures"] += "failure" in kinds and "error" not in kinds
    for each in (root, suite):
        each.attrib.update({key: str(count) for key, count in counts.items()})
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False).join(['<?xml version="1.0"?>\n', "\n"])


def _outcomes(errors: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    return ("failure" if each["code"].startswith(_GATE) else "error" for each in errors)


def _report(problem: Mapping[str, Any]) -> str:
    place = ":".join(str(problem[key]) for key in ("file", "line", "column") if problem[key] is not None)
    return "\n".join(part for part in (f"{place}: {problem['message']}", problem["hint"]) if part)


def _xml(value: str) -> str:
    return _NOT_XML.sub("\ufffd", safe(value))
