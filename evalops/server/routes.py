"""The endpoints of evaluations: create, list, retrieve, status, the models, and who is asking."""

from __future__ import annotations

import json
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from evalops.engine.store import JobRecord, Store
from evalops.fingerprint import canonical, sha256
from evalops.secret import MASK
from evalops.server import answer, request
from evalops.server.body import read_json
from evalops.server.files import Files
from evalops.server.problem import Problem
from evalops.server.work import Works, now
from evalops.settings import Settings

STATUSES = ("pending", "queued", "running", "completed", "error", "user_error")
MOST_LISTED = 100
LISTED = 10
LARGEST_REQUEST = 1 << 20  # bytes of a create
SHOWN_ID = 80


class Evaluations:
    """The handlers, and what they share."""

    def __init__(self, store: Store, works: Works, files: Files, settings: Settings) -> None:
        self._store = store
        self._works = works
        self._files = files
        self._settings = settings
        self._last = ""

    def routes(self) -> list[Route]:
        """Every path without its version."""
        return [
            Route("/evaluation", self.create, methods=["POST"]),
            Route("/evaluation", self.list, methods=["GET"]),
            Route("/evaluation/model-list", self.models, methods=["GET"]),
            Route("/evaluation/{id}", self.retrieve, methods=["GET"]),
            Route("/evaluation/{id}/status", self.status, methods=["GET"]),
            Route("/v3/whoami", whoami, methods=["GET"]),
        ]

    async def create(self, asked_by: Request) -> Response:
        asked = request.read(await read_json(asked_by, LARGEST_REQUEST), self._settings)
        for role, secret in asked.secrets.items():
            if secret.reveal() == MASK:
                message = "the token is masked, as this server echoes it: send the token itself"
                raise Problem(400, message, param=f"parameters.{role}.external_api_token")
        file = self._dataset(asked.file)
        text = json.dumps({"type": asked.type, "parameters": asked.parameters}, ensure_ascii=False)
        fingerprint = sha256(canonical([asked.type, asked.parameters, file.checksum]))
        record = self._add(text, fingerprint, file.id, file.file_type)
        self._works.take(record.id, asked.secrets)
        return JSONResponse({"workflow_id": record.id, "status": record.status})

    def _dataset(self, id_: str) -> Any:
        try:
            file = self._files.get(id_)
        except Problem:
            message = f"no file has the id `{id_[:SHOWN_ID]}`: upload it first"
            raise Problem(400, message, param="parameters.input_data_file_path") from None
        return file

    def _add(self, text: str, fingerprint: str, file: str, file_type: str) -> JobRecord:
        """A job under a new id, with a hold on its rows before anybody can see it."""
        while True:
            job = f"eval-{secrets.token_hex(4)}-{int(time.time())}"
            try:
                self._works.keep_dataset(job, file, file_type)
            except FileExistsError:
                continue
            try:
                return self._store.add_job(
                    JobRecord(job, fingerprint, 1, "pending", None, 0, self._now(), request=text)
                )
            except BaseException:
                self._works.drop_dataset(job)
                raise

    def _now(self) -> str:
        """The time, later than that of any job before: the list is in this order."""
        while (at := now()) <= self._last:
            time.sleep(1e-6)
        self._last = at
        return at

    async def list(self, asked_by: Request) -> Response:
        status = asked_by.query_params.get("status")
        if status is not None and status not in STATUSES:
            raise Problem(400, f"status must be one of {', '.join(STATUSES)}", param="status")
        limit = _limit(asked_by.query_params.get("limit"))
        found = self._store.jobs(status=(status,) if status else (), limit=limit)
        return JSONResponse([answer.job(each) for each in found])

    async def retrieve(self, asked_by: Request) -> Response:
        return JSONResponse(answer.job(self._job(asked_by)))

    async def status(self, asked_by: Request) -> Response:
        body = answer.job(self._job(asked_by))
        return JSONResponse({"status": body["status"], "results": body["results"]})

    def _job(self, asked_by: Request) -> JobRecord:
        job = asked_by.path_params["id"]
        record = self._store.job(job) if len(job) <= SHOWN_ID and job.isascii() else None
        if record is None:
            raise Problem(404, f"no evaluation has the id `{job[:SHOWN_ID]}`", code="not_found")
        return record

    async def models(self, asked_by: Request) -> Response:
        source = asked_by.query_params.get("model_source", "all")
        return JSONResponse(answer.model_list(self._settings, self._settings.serve, source))


def _limit(text: str | None) -> int:
    if text is None:
        return LISTED
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not 1 <= int(text) <= MOST_LISTED:
        raise Problem(400, f"limit must be a whole number from 1 to {MOST_LISTED}", param="limit")
    return int(text)


async def whoami(asked_by: Request) -> Response:
    """One key, one project: the official command line asks before everything else."""
    place = {"id": "local", "name": "evalops", "slug": "evalops"}
    return JSONResponse(
        {
            "type": "project_api_key",
            "api_key": {"id": "key_local", "name": "evalops serve"},
            "organization": {**place, "id": "org_local"},
            "project": {**place, "id": "proj_local"},
        }
    )
