"""What is at Together's service, whoever put it there: jobs, files, and the models it evaluates with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from evalops.errors import EvalopsError
from evalops.providers import together_request as wire
from evalops.providers.base import Job, RemoteFile
from evalops.providers.client import Client
from evalops.providers.together_files import ID, Files, unreadable

MODELS = f"{wire.EVALUATIONS}/model-list"
LONGEST_NAME = 255  # characters of a file's name


class Jobs(Protocol):
    """Whoever knows one job by its id."""

    def job(self, id_: str) -> Job | None: ...


class TogetherInventory:
    """See `providers.base.Inventory`. `read` is what makes a job of the service's description, None for none."""

    def __init__(
        self,
        provider: Jobs,
        files: Files,
        client: Callable[[], Client],
        read: Callable[[Mapping[str, Any]], Job | None],
    ) -> None:
        self._provider = provider
        self._files = files
        self._client = client
        self._read = read

    def jobs(self, *, status: str | None = None, limit: int) -> Sequence[Job]:
        found = self._client().get(wire.EVALUATIONS, wire.list_query(limit, status))
        jobs = [self._read(each) for each in _objects(found, "its list of jobs is none")]
        return sorted((job for job in jobs if job), key=lambda job: job.created_at, reverse=True)

    def job(self, id_: str) -> Job | None:
        return self._provider.job(id_) if ID.fullmatch(id_) else None

    def files(self) -> Sequence[RemoteFile]:
        found = self._client().get(wire.FILES)
        listed = found.get("data") if isinstance(found, dict) else found
        files = [_file(each) for each in _objects(listed, "its list of files is none")]
        known = self._files.known()
        found = (file._replace(sha256=known.get(file.id)) for file in files if file)
        return sorted(found, key=lambda file: file.created_at or "", reverse=True)

    def file(self, id_: str) -> RemoteFile | None:
        if not ID.fullmatch(id_):
            return None
        try:
            found = self._client().get(wire.file_path(id_))
        except EvalopsError as error:
            if error.diagnostics[0].code == "provider/not-found":
                return None
            raise
        file = _file(found) if isinstance(found, dict) else None
        if file is None or file.id != id_:
            raise EvalopsError(unreadable(f"what it says of the file `{id_}` is no file"))
        return file

    def fetch(self, id_: str, to: Path) -> None:
        self._client().download(wire.file_path(id_, "content"), to)

    def result(self, job: str) -> Path | None:
        found = self._files.result(job)
        return found.path if found else None

    def models(self) -> Sequence[str]:
        found = self._client().get(MODELS, (("model_source", "all"),))
        ids = found.get("model_list") if isinstance(found, dict) else None
        if not isinstance(ids, list) or not all(isinstance(each, str) for each in ids):
            raise EvalopsError(unreadable("its list of models is none"))
        return ids


def _objects(found: Any, why: str) -> list[Mapping[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise EvalopsError(unreadable(why))
    return found


def _file(value: Mapping[str, Any]) -> RemoteFile | None:
    """A file as the service describes it, None for what is no such description."""
    id_, name, size, created = (value.get(key) for key in ("id", "filename", "bytes", "created_at"))
    if not isinstance(id_, str) or not ID.fullmatch(id_):
        return None
    return RemoteFile(
        id=id_,
        name=name[:LONGEST_NAME] if isinstance(name, str) else "",
        kind=str(value.get("FileType") or "")[:20].lower(),
        size=size if isinstance(size, int) and not isinstance(size, bool) else None,
        purpose=str(value.get("purpose") or "")[:80],
        created_at=_stamp(created),
    )


def _stamp(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
