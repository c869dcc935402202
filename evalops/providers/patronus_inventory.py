"""What is at Patronus: projects, experiments, what an alias stands for today, and the results that it keeps."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evalops.errors import Diagnostic, EvalopsError, Mark
from evalops.patronus import Grader
from evalops.providers import patronus_request as wire
from evalops.providers.base import Refused
from evalops.providers.client import Answer, Client
from evalops.providers.patronus_rows import unreadable

ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
PAGE = 100  # experiments asked for at once
MOST_PAGES = 50
MOST_SOUGHT = 100  # log ids in one search


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """An experiment as the service describes it."""

    id: str
    name: str
    project_id: str
    created_at: str
    tags: Mapping[str, Any]
    metadata: Mapping[str, Any]


class Service:
    """The free calls. Every one may raise EvalopsError. `client` is opened when it is first needed."""

    def __init__(self, client: Callable[[], Client]) -> None:
        self._client = client
        self._pins: dict[Grader, Grader] = {}
        self._projects: dict[str, str] = {}

    # --- where results go ---

    def project(self, name: str) -> str:
        """The id of a project, which is made where there is none: the service finds it by its name."""
        if name not in self._projects:
            found = self._client().ask(wire.PROJECTS, wire.encode(wire.project(name)))
            self._projects[name] = _id(found, "its project has no id")
        return self._projects[name]

    def experiment(self, id_: str) -> Experiment | None:
        """One experiment, None where the service does not have it."""
        if not ID.fullmatch(id_):
            return None
        try:
            found = self._client().get(wire.experiment_path(id_))
        except EvalopsError as error:
            if error.diagnostics[0].code == "provider/not-found":
                return None
            raise
        return _experiment(found.get("experiment") if isinstance(found, dict) else None)

    def marked(self, project_id: str, mark: str) -> Experiment | None:
        """The oldest experiment of a project that carries our mark."""
        found = [each for each in self._experiments(project_id) if each.tags.get(wire.MARK) == mark]
        return min(found, key=lambda each: (each.created_at, each.id), default=None)

    def _experiments(self, project_id: str) -> Iterator[Experiment]:
        seen: set[str] = set()
        for page in range(MOST_PAGES):
            query = wire.experiments(project_id, limit=PAGE, offset=page * PAGE)
            listed = _list(self._client().get(wire.EXPERIMENTS, query), "experiments")
            found = [_experiment(each) for each in listed]
            yield from (each for each in found if each.id not in seen)
            if len(listed) < PAGE or all(each.id in seen for each in found):
                return
            seen |= {each.id for each in found}

    def create(self, project_id: str, name: str, mark: str, metadata: Mapping[str, Any]) -> Experiment:
        """An experiment that carries our mark. One whose answer is lost is found by its mark, and not made twice."""
        body = wire.encode(wire.experiment(project_id, name, {wire.MARK: mark}, metadata))
        problem: Diagnostic | None = None
        for _ in range(3):
            got = self._client().post_once(wire.EXPERIMENTS, body)
            if isinstance(got, Answer):
                value = got.json()
                return _experiment(value.get("experiment") if isinstance(value, dict) else None)
            if isinstance(got, Refused):
                raise EvalopsError(*got.diagnostics)
            problem = Diagnostic(code="provider/no-answer", message=f"no experiment was made: {got.why}")
            found = self.marked(project_id, mark)
            if found is not None:
                return found
        assert problem is not None
        raise EvalopsError(problem)

    # --- what an alias stands for ---

    def pin(self, grader: Grader, mark: Mark | None = None) -> Grader:
        """An evaluator under its dated id and the revision of its criteria, as they are today."""
        if grader not in self._pins:
            self._pins[grader] = self._pin(grader, mark)
        return self._pins[grader]

    def _pin(self, grader: Grader, mark: Mark | None) -> Grader:
        found = _list(self._client().get(wire.EVALUATORS, wire.evaluators(grader.evaluator)), "evaluators")
        own = [each for each in found if each.get("id") == grader.evaluator]
        own = own or [each for each in found if grader.evaluator in (each.get("aliases") or ())]
        if not own:
            raise _unknown("evaluator", grader.evaluator, mark)
        family = own[0].get("evaluator_family")
        criteria = grader.criteria or own[0].get("default_criteria")
        if isinstance(criteria, str) and criteria and not wire.is_pinned(criteria):
            criteria = self._revision(criteria, family if isinstance(family, str) else None, mark)
        return grader._replace(evaluator=_text(own[0].get("id")), criteria=criteria or None)

    def _revision(self, name: str, family: str | None, mark: Mark | None) -> str:
        found = _list(self._client().get(wire.CRITERIA, wire.criteria(name, family)), "evaluator_criteria")
        own = [each for each in found if each.get("name") in (name, name.rpartition(":")[2])]
        revisions = [each["revision"] for each in own if isinstance(each.get("revision"), int)]
        if not revisions:
            raise _unknown("criteria", name, mark)
        return f"{name}:{max(revisions)}"

    # --- results ---

    def find(self, log_ids: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
        """The results that the service keeps of calls, by log id."""
        found: dict[str, list[dict[str, Any]]] = {each: [] for each in log_ids}
        for start in range(0, len(log_ids), MOST_SOUGHT):
            part = log_ids[start : start + MOST_SOUGHT]
            for each in _list(self._client().ask(wire.SEARCH, wire.encode(wire.search(part))), "evaluations"):
                if each.get("log_id") in found:
                    found[each["log_id"]].append(each)
        return found

    def results(self, experiment: str) -> list[dict[str, Any]]:
        """All results that the service keeps of an experiment."""
        return _list(self._client().ask(wire.SEARCH, wire.encode(wire.search_experiment(experiment))), "evaluations")

    def bring(self, evaluations: Sequence[Mapping[str, Any]]) -> int:
        """Sends results of others, those that are not there yet; how many they were."""
        problem: Diagnostic | None = None
        sent = 0
        for _ in range(3):
            known = self.find([each["log_id"] for each in evaluations])
            missing = [each for each in evaluations if not known[each["log_id"]]]
            if not missing:
                return sent
            sent = len(missing)
            got = self._client().post_once(wire.BATCH, wire.encode(wire.batch(missing)))
            if isinstance(got, Answer):
                return sent
            if isinstance(got, Refused):
                raise EvalopsError(*got.diagnostics)
            problem = Diagnostic(code="provider/no-answer", message=f"results may not have arrived: {got.why}")
        assert problem is not None
        raise EvalopsError(problem)


def _experiment(value: Any) -> Experiment:
    id_ = _id(value, "what it says of an experiment is none")
    tags, metadata = value.get("tags"), value.get("metadata")
    return Experiment(
        id=id_,
        name=_text(value.get("name"))[:100],
        project_id=_text(value.get("project_id")),
        created_at=_text(value.get("created_at")),
        tags=tags if isinstance(tags, dict) else {},
        metadata=metadata if isinstance(metadata, dict) else {},
    )


def _id(value: Any, why: str) -> str:
    id_ = value.get("id") if isinstance(value, dict) else None
    id_ = str(id_) if isinstance(id_, int) and not isinstance(id_, bool) else id_
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        raise unreadable(why)
    return id_


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Any, name: str) -> list[dict[str, Any]]:
    found = value.get(name) if isinstance(value, dict) else None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise unreadable(f"its list of {name} is none")
    return found


def _unknown(what: str, name: str, mark: Mark | None) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code=f"patronus/unknown-{what}",
            message=f"Patronus has no {what} `{name}`",
            mark=mark,
            hint="the service's own pages list those that this key may use",
        )
    )
