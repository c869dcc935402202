"""`evalops show`"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from evalops.cli.output import answer, open_project, project_option
from evalops.errors import Diagnostic, EvalopsError

if TYPE_CHECKING:
    from evalops.engine.preview import Sent
    from evalops.lock import Entry
    from evalops.project import Project
    from evalops.spec import Evaluation

MOST = 10  # rows that are shown


@click.command("show")
@click.argument("address")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print it.")
@click.option("--messages", is_flag=True, help="Show the exact requests that apply would send for a row.")
@click.option("--row", type=click.IntRange(min=1), help="Which row, from 1, in the order of the dataset.")
@project_option
def command(address: str, form: str, row: int | None, folder: Path | None, *, messages: bool) -> None:
    """Show the result at ADDRESS: metrics with their intervals, label counts, gates, failing rows.

    In place of an address, the id of a job asks the service: what the job was asked to do and what came of it,
    whoever made it.

    --messages shows what the judges and candidates would be sent for one row, to the byte. Nothing is sent, and no
    key is needed. An endpoint that refuses the form of a request is asked once more in a plainer one.

    \b
    evalops show support-tone
    evalops show 'support-tone[model=a]' --format json
    evalops show eval-de4c-1751308922
    evalops show support-tone --messages --row 3
    """
    from evalops.views import json_, result

    if row and not messages:
        raise click.UsageError("--row goes with --messages.")
    project = open_project(folder)
    if messages:
        from evalops.views import messages as texts

        value = _messages(project, address, row or 1)
        answer(json_.dump(value) if form == "json" else texts.show(value))
        return
    if _is_job(project, address):
        from evalops import remote
        from evalops.views import job

        value = remote.job(project, address)
        answer(json_.dump(value) if form == "json" else job.show(value))
        return
    entry = project.entry(address)
    if form == "json":
        answer(json_.dump(json_.entry(entry)))
        return
    answer(result.show(json_.entry(entry), _failing(project, entry)))


def _is_job(project: Project, name: str) -> bool:
    """Whether a name that is no address is the id of a job at the service."""
    from evalops.remote import PREFIX, SERVICE

    entries = [entry for lock in project.locks()[0].values() for entry in lock.entries.values()]
    if any(entry.address == name for entry in entries):
        return False
    return name.startswith(PREFIX) or any(entry.job == name and entry.provider == SERVICE for entry in entries)


def _messages(project: Project, address: str, number: int) -> dict[str, Any]:
    """The requests for one row. Raises EvalopsError where there is no such row, or a service makes its own."""
    from evalops import endpoint, sources
    from evalops.engine import preview

    evaluation = _evaluation(project, address)
    if evaluation.provider != "local":
        raise _problem(
            "messages", f"`{evaluation.provider}` makes the messages itself", "evalops plan -v has the templates"
        )
    use = sources.uses(evaluation)
    key, chosen, count = "", None, 0
    for key_, row in sources.rows(project, evaluation):
        count += 1
        if count == number:
            key, chosen = key_, row
    if chosen is None:
        raise _problem(
            "row", f"there is no row {number:,}: the dataset of `{address}` has {count:,}", "rows count from 1"
        )
    endpoints = [
        endpoint.resolve(model, project.settings, evaluation.places.mark(*model.route, "model"))
        for model in evaluation.models
    ]
    found, verdict = preview.requests(evaluation, endpoints, key, use.shown(chosen.source))
    said = [str(each) for each in (verdict.value, verdict.reason, verdict.feedback) if each is not None]
    return {
        "format_version": 1,
        "address": evaluation.address,
        "row": number,
        "rows": count,
        "key": key,
        "requests": [_request(each) for each in found],
        "verdict": None if found else ", ".join(said),
    }


def _request(sent: Sent) -> dict[str, Any]:
    return {
        "field": sent.field,
        "model": sent.endpoint.model,
        "url": sent.endpoint.base_url + sent.route if sent.endpoint.base_url else None,
        "repeats": sent.repeats,
        "order": sent.order,
        "is_exact": sent.is_exact,
        "body": json.loads(sent.data),
    }


def _evaluation(project: Project, address: str) -> Evaluation:
    """The one evaluation at an address, applied or not. Raises EvalopsError with what is wrong with the specs."""
    from evalops import catalog, schema

    evaluations, problems = catalog.evaluations_of(project, project.specs())
    found = next((each for each in evaluations if each.address == address), None)
    if found is not None:
        return found
    errors = [each for each in problems if each.is_error]
    hint = schema.nearest(address, [each.address for each in evaluations]) or "evalops plan -v lists the addresses"
    raise EvalopsError(*errors) if errors else _problem("nothing", f"no spec has the address `{address}`", hint)


def _problem(what: str, message: str, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"show/{what}", message=message, hint=hint))


def _failing(project: Project, entry: Entry) -> list[dict[str, Any]]:
    """The first rows to look at, if the rows are on this machine."""
    from evalops import rows
    from evalops.views import json_

    try:
        with rows.opened(project, entry) as found:
            first = list(itertools.islice((each for each in found if each.failed), MOST))
    except EvalopsError:
        return []
    return [json_.row(each.key, each.source, each.verdict, each.detail, entry.job or "") for each in first]
