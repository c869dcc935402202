"""Files at Together: datasets are sent once for the same content, results are fetched once.

What is kept here only saves requests: it can be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from evalops import sources
from evalops.errors import Diagnostic, EvalopsError
from evalops.fingerprint import canonical, sha256
from evalops.project import STATE, Project
from evalops.providers import together_request as wire
from evalops.providers.client import Answer, Client

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")  # of a job or file: nothing that could lead out of a folder
MOST_ABOUT = 1 << 20  # bytes of what is kept beside a file
_UNUSABLE = ("FAILED", "INVALID_FORMAT")


class Result(NamedTuple):
    """A job's result file, and what the service counted in it."""

    path: Path
    counts: Mapping[str, Any]


class Files:
    """The files of a project at the service of `origin`. `client` is asked for only where something is to be sent."""

    def __init__(self, project: Project, origin: str | None, client: Callable[[], Client]) -> None:
        self._project = project
        self._client = client
        self._place = sha256(canonical(origin))[:8]
        self._checked: dict[str, str] = {}  # file ids by sha256, known to be good
        self._turn = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}  # by sha256: of threads with the same content, one sends it

    # --- datasets ---

    def put(self, lines: Iterable[bytes]) -> tuple[str, str]:
        """The id and the sha256 of the file with this content, sent if it is not there. Raises EvalopsError."""
        folder = self._project.state / "uploads"
        folder.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with tempfile.NamedTemporaryFile(dir=folder, suffix=".jsonl") as stream:
            for line in lines:
                digest.update(line)
                size += len(line)
                stream.write(line)
            stream.flush()
            checksum = digest.hexdigest()
            with self._turns.setdefault(checksum, threading.Lock()):
                if checksum not in self._checked:
                    self._checked[checksum] = self._known(checksum, size) or self._send(Path(stream.name), checksum)
        return self._checked[checksum], checksum

    def _known(self, checksum: str, size: int) -> str | None:
        """The file that an earlier apply sent, if the service still has it."""
        file = self._noted().get(checksum)
        if not isinstance(file, str) or not ID.fullmatch(file):
            return None
        try:
            found = self._client().get(wire.file_path(file))
        except EvalopsError as error:
            if error.diagnostics[0].code == "provider/not-found":
                return None
            raise
        is_it = isinstance(found, dict) and found.get("id") == file and found.get("bytes") in (size, None)
        return file if is_it and found.get("processing_status") not in _UNUSABLE else None

    def _send(self, path: Path, checksum: str) -> str:
        client = self._client()
        answer = client.post(wire.FILES, wire.upload_form(f"{checksum[:16]}.jsonl", checksum))
        if answer.status == 409:
            file = self._same(answer)
        else:
            file = answer.headers.get("x-together-file-id", "")
            place = answer.headers.get("location", "")
            if answer.status != 302 or not ID.fullmatch(file) or not place:
                raise EvalopsError(client.refusal(answer))
            client.upload(place, path)
            done = client.post(wire.file_path(file, "preprocess"))
            if done.status != 200:
                raise EvalopsError(client.refusal(done))
        with self._turn:
            self._write(f"uploads/{self._place}.json", {**self._noted(), checksum: file})
        return file

    def _same(self, answer: Answer) -> str:
        """The file that has this content already."""
        try:
            file = answer.json()["file_id"]
        except (ValueError, KeyError, TypeError):
            file = None
        if not isinstance(file, str) or not ID.fullmatch(file):
            raise EvalopsError(self._client().refusal(answer))
        return file

    def _noted(self) -> dict[str, Any]:
        return self._read(f"uploads/{self._place}.json") or {}

    # --- files that are there already ---

    def confirm(self, file: str, checksum: str) -> None:
        """Makes sure that the service has this file with this content, and that a copy is here.

        Raises EvalopsError with what it has instead.
        """
        if not ID.fullmatch(file):
            raise _no_file(file)
        try:
            self._client().get(wire.file_path(file))
        except EvalopsError as error:
            raise (_no_file(file) if error.diagnostics[0].code == "provider/not-found" else error) from None
        with self._turns.setdefault(checksum, threading.Lock()):
            if self._seen().get(file) != checksum or sources.kept(self._project, checksum) is None:
                self._fetch(file, checksum)

    def copy(self, file: str, checksum: str) -> None:
        """Makes sure that a copy of a file is here. Nothing is asked where one with this content is."""
        with self._turns.setdefault(checksum, threading.Lock()):
            if sources.kept(self._project, checksum) is None:
                self._fetch(file, checksum)

    def known(self) -> dict[str, str]:
        """The sha256 of the files, by their ids, that were sent or fetched from here."""
        return {file: checksum for checksum, file in self._noted().items() if isinstance(file, str)} | self._seen()

    def _fetch(self, file: str, checksum: str) -> None:
        """Fetches a file; it is kept only if it has the content that is asked for."""
        if not ID.fullmatch(file):
            raise _no_file(file)
        folder = self._project.root / sources.KEPT
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            path = Path(place) / "rows"
            found = self._client().download(wire.file_path(file, "content"), path)
            if found != checksum:
                raise EvalopsError(
                    Diagnostic(
                        code="dataset/digest",
                        message=f"the file `{file}` at Together has the sha256 {found}, and {checksum} is asked for",
                        hint="nothing was asked to run; if that is the right file, write its sha256 in the spec",
                    )
                )
            path.replace(folder / f"{checksum}{sources.format_of(path)}")
        with self._turn:
            self._write(f"datasets/{self._place}.json", {**self._seen(), file: checksum})

    def _seen(self) -> dict[str, Any]:
        return self._read(f"datasets/{self._place}.json") or {}

    # --- results ---

    def result(self, job: str) -> Result | None:
        """A finished job's result as the service has it, None where it has no such job. Raises EvalopsError."""
        if not ID.fullmatch(job):
            return None
        name = f"results/{self._place}/{job}"
        path = self._project.state / f"{name}.jsonl"
        counts = self._read(f"{name}.json") if path.exists() else None
        if counts is None:
            try:
                found = self._client().get(wire.job_path(job))
            except EvalopsError as error:
                if error.diagnostics[0].code == "provider/not-found":
                    return None
                raise
            counts = found.get("results") if isinstance(found, dict) else None
            file = counts.get("result_file_id") if isinstance(counts, dict) else None
            if not isinstance(counts, dict) or not isinstance(file, str) or not ID.fullmatch(file):
                status = str(found.get("status"))[:80] if isinstance(found, dict) else "nothing"
                message = f"the job {job} has no result file: Together says `{status}` of it"
                raise EvalopsError(Diagnostic(code="together/no-result", message=message))
            path.parent.mkdir(parents=True, exist_ok=True)
            self._client().download(wire.file_path(file, "content"), path)
            self._write(f"{name}.json", counts)  # last: without it the file is another answer's
        return Result(path, counts)

    def doubt(self, job: str) -> None:
        """A job's file and counts contradict each other: both are fetched anew next time; until then the file stays."""
        (self._project.state / f"results/{self._place}/{job}.json").unlink(missing_ok=True)

    # --- what is kept ---

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            value = json.loads(self._project.read(f"{STATE}/{name}", MOST_ABOUT))
        except (EvalopsError, ValueError, RecursionError):
            return None
        return value if isinstance(value, dict) else None

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        self._project.write(f"{STATE}/{name}", json.dumps(value).encode())


def _no_file(file: str) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code="together/no-file",
            message=f"Together has no file `{file}`",
            hint="evalops dataset list --remote lists the files that are there",
        )
    )


def unreadable(why: str) -> Diagnostic:
    """An answer of the service that makes no sense."""
    return Diagnostic(code="provider/answer", message=f"Together's answer cannot be used: {why}")
