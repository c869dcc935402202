"""Patronus on loopback, over real HTTP, with faults by plan and a ledger of what was billed and what was kept.

    with PatronusService(Behaviour(rates={"429": 0.1, "502+": 0.05})) as service:
        service.url, service.ledger.requests, service.ledger.billed, service.captured
        service.behave(Behaviour())

What an evaluate may meet, one word each in `Behaviour.evaluate`, in turn, or by chance with `rates`: a word that ends in
`+` is a call that is carried out, billed and kept, without it nothing is:

    429, 500, 502+, any status     an error
    drop, drop+                    the connection ends before the answer
    html+, empty+, list+           200 with a body that is no use
    failed, failed+                200, and the first evaluator has failed (`+`: the last one)
    missing                        200 without the first evaluator
    quota                          429, and nothing is left of the month

A row passes if its output says `truth=pass` or `truth=polite`; else it fails. `score=0.3` in it is the score,
and `toxicity=fail` goes before for evaluators of that family.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KEY = "patronus-test-key"
CAPTURES, STRATEGIES = ("all", "fails-only", "none"), ("never", "on-fail", "on-success", "always")
MEDIA = ("image/jpeg", "image/png", "audio/flac", "audio/mp3", "audio/mp4", "audio/mpeg", "audio/wav")
LEGACY = {
    "evaluated_model_input": "task_input", "evaluated_model_output": "task_output", "evaluated_model_gold_answer": "gold_answer",
    "evaluated_model_system_prompt": "system_prompt", "evaluated_model_retrieved_context": "task_context",
}  # fmt: skip
NEEDS = {"lynx": ("task_input", "task_output", "task_context"), "toxicity": ("task_output",), "judge": ()}


@dataclass(kw_only=True)
class Behaviour:
    """How the service acts from now on."""

    evaluate: list[str] = field(default_factory=list)
    other: list[str] = field(default_factory=list)  # statuses, or `drop` and `drop+`, for POST /v1/experiments
    batch: list[str] = field(default_factory=list)  # the same for POST /v1/evaluations/batch
    rates: Mapping[str, float] = field(default_factory=dict)
    invalid: float = 0.0  # the share of rows of which the first evaluator says validation_error
    invalid_rows: tuple[str, ...] = ()  # or those whose output holds one of these
    quota: int | None = None  # evaluate calls left of the month
    rpm: int | None = None  # what is said to be left of the minute
    retry_ms: int | None = 1
    latency: float = 0.0  # seconds
    echo: bool = False  # explanations and errors hold the key
    lag: int = 0  # searches that do not find what is new
    key: str | None = None
    evaluate_key: str | None = None  # for evaluate alone
    longest: int | None = None  # bytes of a body; 422 beyond
    upgrades: Mapping[str, str] = field(default_factory=dict)  # alias -> id, from now on
    revisions: Mapping[str, int] = field(default_factory=dict)


@dataclass
class Ledger:
    """What was asked, and what was paid for: (log id, evaluator, criteria) of each evaluation carried out."""

    requests: int = 0
    taken: int = 0
    others: int = 0
    billed: Counter[tuple[str, str, str | None]] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    seen: list[dict[str, Any]] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0


EVALUATORS = {
    "lynx": "lynx-large-2024-07-23", "toxicity": "toxicity-2024-10-27", "judge": "judge-large-2024-08-08",
    "judge-small": "judge-small-2024-08-08", "glider": "glider-2024-12-11", "pii": "pii-2024-05-31",
}  # fmt: skip


class PatronusService:
    """The service: a context, in which it listens."""

    def __init__(self, behaviour: Behaviour | None = None) -> None:
        self._server = _Server(("127.0.0.1", 0), _Connection)
        self._server.service = self
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self.lock = threading.RLock()
        self.ledger = Ledger()
        self.captured: list[dict[str, Any]] = []
        self.projects: dict[str, dict[str, Any]] = {}
        self.experiments: dict[str, dict[str, Any]] = {}
        self.attempts: Counter[str] = Counter()
        self.behaviour = behaviour or Behaviour()

    def __enter__(self) -> PatronusService:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def behave(self, behaviour: Behaviour) -> None:
        """Another behaviour from now on; what was kept stays."""
        with self.lock:
            self.behaviour = behaviour

    # --- what the contract of all providers says of a server of models ---

    @property
    def config(self) -> Behaviour:
        return self.behaviour

    @config.setter
    def config(self, config: Any) -> None:
        if not isinstance(config, Behaviour):
            config = Behaviour(evaluate_key=config.key, latency=config.latency_ms / 1000, longest=config.context)
        self.behave(config)

    # --- the answers ---

    def project(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        name = body.get("name")
        if not isinstance(name, str) or not name:
            return _invalid("name", "Field required")
        with self.lock:
            return 200, self.projects.setdefault(name, {"id": str(uuid.uuid4()), "name": name, "created_at": _now()})

    def experiment(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        if not isinstance(body.get("name"), str) or not 1 <= len(body["name"]) <= 100:
            return _invalid("name", "String should have at least 1 and at most 100 characters")
        if not isinstance(body.get("project_id"), str):
            return _invalid("project_id", "Field required")
        with self.lock:
            id_ = str(101 + len(self.experiments))
            known = ("name", "project_id", "tags", "metadata")
            self.experiments[id_] = {"id": id_, "created_at": _now(), **{key: body.get(key) for key in known}}
            return 200, {"experiment": self.experiments[id_]}

    def listed(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        found = [each for each in self.experiments.values() if query.get("project_id") in (None, each["project_id"])]
        start = int(query.get("offset", 0))
        return found[start : start + int(query.get("limit", 1000))]

    def known(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        wanted = query.get("by_alias_or_id")
        found = []
        for alias, id_ in {**EVALUATORS, **self.behaviour.upgrades}.items():
            if wanted in (None, alias, id_):
                found.append({
                    "id": id_, "name": alias.title(), "evaluator_family": alias.split("-")[0], "aliases": [alias],
                    "default_criteria": "patronus:hallucination" if alias == "lynx" else None, "description": None,
                    "evaluation_enabled": True, "evaluation_run_enabled": True, "profile_required": False, "image_url": None,
                })  # fmt: skip
        return found

    def criteria(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        name = query.get("name", "")
        if name.startswith("no-"):
            return []
        revision = self.behaviour.revisions.get(name, 1)
        return [{
            "public_id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "name": name, "revision": revision, "config": {},
            "evaluator_family": query.get("evaluator_family"), "is_patronus_managed": name.startswith("patronus:"),
            "created_at": "2024-01-01T00:00:00Z", "description": None,
        }]  # fmt: skip

    def word(self, body: Mapping[str, Any]) -> str:
        """What this call meets."""
        with self.lock:
            behaviour = self.behaviour
            if behaviour.quota is not None:
                if behaviour.quota <= 0:
                    return "quota"
                behaviour.quota -= 1
            if behaviour.evaluate:
                return behaviour.evaluate.pop(0)
            log = str(body.get("log_id"))
            self.attempts[log] += 1
            chance = _chance(f"{log}/{self.attempts[log]}")
            for word, rate in behaviour.rates.items():
                if chance < rate:
                    return word
                chance -= rate
        return "ok"

    def carry_out(self, body: Mapping[str, Any], word: str) -> dict[str, Any]:
        """The evaluation of a row: billed, and kept as the call asks for."""
        results = []
        items = list(body["evaluators"])
        broken = {"failed": items[:1], "failed+": items[-1:]}.get(word, [])
        for place, item in enumerate(items):
            result = self._result(body, item, is_first=place == 0)
            if item in broken:
                result |= {
                    "status": "error",
                    "error_message": f"the evaluator is busy{KEY if self.behaviour.echo else ''}",
                    "evaluation_result": None,
                }
            results.append(result)
            inner = result["evaluation_result"]
            with self.lock:
                if inner is not None:
                    self.ledger.billed[str(body.get("log_id")), item["evaluator"], item.get("criteria")] += 1
                    if body.get("capture") == "all" or (body.get("capture") == "fails-only" and inner["pass"] is False):
                        self.captured.append(self._kept(body, inner))
        return {"results": results[1:] if word == "missing" else results[::-1]}

    def _result(self, body: Mapping[str, Any], item: Mapping[str, Any], *, is_first: bool) -> dict[str, Any]:
        names = {**EVALUATORS, **self.behaviour.upgrades}
        id_ = names.get(item["evaluator"], item["evaluator"])
        family = next((alias for alias, each in names.items() if each == id_), id_).split("-")[0]
        criteria, _, revision = (item.get("criteria") or "").rpartition(":")
        if not revision.isdigit():
            criteria, revision = item.get("criteria"), "1"
        head = {"evaluator_id": id_, "criteria": criteria, "status": "success", "error_message": None}
        missing = [name for name in NEEDS.get(family, ()) if not body.get(name)]
        text = str(body.get("task_output") or body.get("task_input"))
        is_invalid = is_first and (
            _chance(f"{body.get('log_id')}/invalid") < self.behaviour.invalid
            or any(each in text for each in self.behaviour.invalid_rows)
        )
        if missing or is_invalid:
            why = f"{missing[0]} is required" if missing else "the output is too long for this evaluator"
            return {**head, "status": "validation_error", "error_message": why, "evaluation_result": None}
        said = re.search(r"score=([0-9.]+)", text)
        passed = bool(re.search(r"truth=(pass|polite)", text)) if not said else float(said[1]) >= 0.5
        own = re.search(rf"\b{family}=(pass|fail)", text)
        passed = own[1] == "pass" if own else passed
        strategy = item.get("explain_strategy") or "always"
        explains = strategy == "always" or strategy == ("on-success" if passed else "on-fail")
        why = f"because it is {passed}" + (f", {KEY}" if self.behaviour.echo else "")
        interval = None
        if body.get("confidence_interval_strategy") == "full-history":
            interval = {"strategy": "full-history", "alpha": 0.95, "lower": 0.1, "median": 0.6, "upper": 0.9}
        return {**head, "evaluation_result": {
            "id": str(uuid.uuid4().int % 10**14), "log_id": body.get("log_id"), "project_id": None, "app": body.get("app"),
            "experiment_id": body.get("experiment_id"), "created_at": _now(), "evaluator_id": id_, "evaluator_family": family,
            "evaluator_profile_public_id": str(uuid.uuid5(uuid.NAMESPACE_URL, id_)), "profile_name": criteria, "criteria": criteria,
            "criteria_revision": int(revision), "pass": passed, "score_raw": float(said[1]) if said else float(passed),
            "text_output": None, "explain_strategy": strategy, "explanation": why if explains else None,
            "evaluation_duration": "PT0.01S", "explanation_duration": None, "evaluation_metadata": None,
            "additional_info": {"positions": None, "extra": None, "confidence_interval": interval},
            "evaluated_model_input": body.get("task_input"), "evaluated_model_output": body.get("task_output"),
            "dataset_id": body.get("dataset_id"), "dataset_sample_id": None, "tags": body.get("tags") or {}, "external": False,
            "evaluation_type": "patronus_evaluation", "usage_tokens": 42,
        }}  # fmt: skip

    def _kept(self, body: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
        fields = (
            "id", "log_id", "app", "created_at", "criteria", "criteria_revision", "dataset_id", "evaluator_family",
            "evaluator_id", "explain_strategy", "explanation", "pass", "tags", "text_output", "evaluation_type",
        )  # fmt: skip
        experiment = body.get("experiment_id")
        return {
            **{name: inner[name] for name in fields}, "score": inner["score_raw"], "project_id": None,
            "experiment_id": int(experiment) if experiment else None, "dataset_sample_id": body.get("dataset_sample_id"),
            "trace_id": body.get("trace_id"), "span_id": body.get("span_id"), "metadata": None, "evaluation_duration": "PT0.01S",
            "annotation_criteria_id": None, "_task": body,
        }  # fmt: skip

    def imported(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        given = body.get("evaluations")
        if not isinstance(given, list) or not 1 <= len(given) <= 1000:
            return _invalid("evaluations", "List should have 1 to 1000 items")
        for each in given:
            if not each.get("evaluator_id") or not each.get("log_id"):
                return _invalid("evaluations", "evaluator_id and log_id are required")
        with self.lock:
            made = [
                {"id": str(uuid.uuid4().int % 10**14), "evaluation_type": "client_evaluation", **each} for each in given
            ]
            self.captured += made
        return 200, {"evaluations": made}

    def searched(self, body: Mapping[str, Any]) -> tuple[int, Any]:
        with self.lock:
            if self.behaviour.lag > 0:
                self.behaviour.lag -= 1
                return 200, {"evaluations": []}
            filters = body.get("filters") or []
            found = [each for each in self.captured if all(_matches(each, one) for one in filters)]
        return 200, {"evaluations": [{key: value for key, value in each.items() if key != "_task"} for each in found]}


def _matches(each: Mapping[str, Any], one: Mapping[str, Any]) -> bool:
    if "or_" in one:
        return any(_matches(each, part) for part in one["or_"])
    if "and_" in one:
        return all(_matches(each, part) for part in one["and_"])
    value, wanted = each.get(one["field"]), one.get("value")
    if one.get("operation") == "in":
        return value in wanted
    assert one.get("operation") == "eq", one
    return value == wanted or str(value) == str(wanted)


def check(body: Any) -> tuple[int, Any] | None:  # noqa: C901 - a rule a line
    """What the endpoint refuses with 422."""
    if not isinstance(body, dict):
        return _invalid("body", "Input should be a valid dictionary")
    for old, new in LEGACY.items():
        if old in body:
            body.setdefault(new, body[old])
    items = body.get("evaluators")
    if not isinstance(items, list) or not items:
        return _invalid("evaluators", "List should have at least 1 item")
    for item in items:
        if not isinstance(item, dict) or not item.get("evaluator"):
            return _invalid("evaluators", "Field required")
        if item.get("explain_strategy") not in (None, *STRATEGIES):
            return _invalid("explain_strategy", "Input should be 'never', 'on-fail', 'on-success' or 'always'")
    if body.get("task_input") is None and body.get("task_output") is None:
        return _invalid("task_input", "Either input or output is required")
    if body.get("app") is not None and body.get("experiment_id") is not None:
        return _invalid("app", "app cannot be used together with experiment_id")
    if body.get("capture", "none") not in CAPTURES:
        return _invalid("capture", "Input should be 'all', 'fails-only' or 'none'")
    context = body.get("task_context")
    if isinstance(context, list) and len(context) > 50:
        return _invalid("task_context", "List should have at most 50 items")
    for each in body.get("evaluated_model_attachments") or ():
        if each.get("media_type") not in MEDIA or not each.get("url"):
            return _invalid("evaluated_model_attachments", "Input should be a known media type")
    return None


def _invalid(field_: str, message: str) -> tuple[int, Any]:
    return 422, {"detail": [{"loc": ["body", field_], "msg": message, "type": "value_error"}]}


def _chance(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    service: PatronusService

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that was killed says no goodbye."""


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Nothing is said of a request."""

    def do_GET(self) -> None:
        self._take("GET")

    def do_POST(self) -> None:
        self._take("POST")

    def _take(self, method: str) -> None:
        service = self.server.service
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        given, parts = self.headers.get("X-API-KEY"), urlsplit(self.path)
        key = service.behaviour.key
        if parts.path == "/v1/evaluate":
            key = key or service.behaviour.evaluate_key
        if not given or (key is not None and given != key):
            service.ledger.requests += parts.path == "/v1/evaluate"
            self._say(401, {"detail": "Invalid API key"})
            return
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        try:
            body = json.loads(data) if data else {}
        except ValueError:
            self._say(422, {"detail": [{"loc": ["body"], "msg": "JSON decode error", "type": "json_invalid"}]})
            return
        if parts.path == "/v1/evaluate" and method == "POST":
            self._evaluate(body, len(data))
            return
        with service.lock:
            service.ledger.others += 1
        found = self._other(method, parts.path, query, body)
        if found is not None:
            self._say(*found)

    def _other(self, method: str, path: str, query: Mapping[str, str], body: Any) -> tuple[int, Any] | None:
        service = self.server.service
        match method, path.strip("/").split("/")[1:]:
            case "GET", ["whoami"]:
                return 200, {"caller": {"api_key": {"id": "1", "account": {"id": "1", "name": "us"}}, "user": None}}
            case "GET", ["evaluators"]:
                return 200, {"evaluators": service.known(query)}
            case "GET", ["evaluator-criteria"]:
                return 200, {"evaluator_criteria": service.criteria(query)}
            case "POST", ["projects"]:
                return service.project(body)
            case "GET", ["projects"]:
                return 200, {"projects": list(service.projects.values())}
            case "POST", ["experiments"]:
                return self._faulty(service.behaviour.other, service.experiment, body)
            case "GET", ["experiments"]:
                return 200, {"experiments": service.listed(query)}
            case "GET", ["experiments", id_] if id_ in service.experiments:
                return 200, {"experiment": service.experiments[id_]}
            case "POST", ["evaluations", "search"]:
                return service.searched(body)
            case "POST", ["evaluations", "batch"]:
                return self._faulty(service.behaviour.batch, service.imported, body)
        return 404, {"detail": "Not Found"}

    def _faulty(self, words: list[str], make: Callable[[Any], tuple[int, Any]], body: Any) -> tuple[int, Any] | None:
        """An answer with the next of these faults."""
        word = words.pop(0) if words else "ok"
        found = make(body) if word == "ok" or word.endswith("+") else None
        if word.startswith("drop"):
            self._drop()
            return None
        return found if word == "ok" else (int(word.rstrip("+")), {"detail": "not now"})

    def _evaluate(self, body: Any, size: int) -> None:
        service, ledger = self.server.service, self.server.service.ledger
        with service.lock:
            ledger.requests += 1
            ledger.in_flight += 1
            ledger.max_in_flight = max(ledger.max_in_flight, ledger.in_flight)
            ledger.seen.append(body)
        try:
            self._answer(body, size)
        finally:
            with service.lock:
                ledger.in_flight -= 1

    def _answer(self, body: Any, size: int) -> None:
        service, behaviour = self.server.service, self.server.service.behaviour
        refused = check(body)
        if refused is None and behaviour.longest is not None and size > behaviour.longest:
            refused = _invalid("task_output", "the text is too long")
        if refused is not None:
            self._count("422")
            self._say(*refused)
            return
        word = service.word(body)
        self._count(word)
        if behaviour.latency:
            time.sleep(behaviour.latency)
        is_carried_out = word in ("ok", "failed", "missing") or word.endswith("+")
        found = service.carry_out(body, word) if is_carried_out else None
        bare = word.rstrip("+")
        if word == "quota":
            self._say(429, {"detail": "Monthly quota exceeded"}, **{"x-ratelimit-monthly-remaining-requests": "0"})
        elif bare.isdigit():
            self._say(int(bare), {"detail": f"not now{KEY if behaviour.echo else ''}"})
        elif bare == "drop":
            self._drop()
        elif bare in ("html", "empty", "list"):
            self._raw(200, {"html": b"<html>", "empty": b"", "list": b"[]"}[bare])
        else:
            service.ledger.taken += 1
            self._say(200, found)

    def _count(self, word: str) -> None:
        with self.server.service.lock:
            self.server.service.ledger.answers[word] += 1

    def _drop(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def _say(self, status: int, value: Any, **headers: str) -> None:
        self._raw(status, json.dumps(value).encode(), **headers)

    def _raw(self, status: int, data: bytes, **headers: str) -> None:
        behaviour = self.server.service.behaviour
        if behaviour.retry_ms is not None and (status == 429 or status >= 500):
            headers = {"retry-after-ms": str(behaviour.retry_ms), **headers}
        if behaviour.rpm is not None:
            headers = {"x-ratelimit-rpm-remaining-requests": str(behaviour.rpm), **headers}
        lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", f"Date: {formatdate(usegmt=True)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
