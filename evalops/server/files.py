"""Uploaded and result files on disk.

    FOLDER/<file id>/{content, about.json}    a file
    FOLDER/.incoming/<random>/                one that is being received; what is there at a start is a leftover

A file appears, is replaced and goes by renaming its folder, so that no crash leaves half of one. The names that
clients give are text in `about.json` and never paths.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import TracebackType

from evalops.server.file import Described, File, count, describe, plain_name
from evalops.server.problem import Problem

MOST_ANNOUNCED = 1000  # uploads that were announced and have not come; the oldest are forgotten
BLOCK = 1 << 20  # bytes read at once

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


@dataclass(slots=True)
class _Announced:
    token: str
    described: Described
    checksum: str | None
    is_open: bool = False


class Files:
    """The files of a server, in `folder`; uploads are at most `largest` bytes. For any thread."""

    def __init__(self, folder: Path, *, largest: int) -> None:
        self.largest = largest
        self._folder = folder
        self._incoming = folder / ".incoming"
        self._lock = threading.Lock()
        self._announced: dict[str, _Announced] = {}
        shutil.rmtree(self._incoming, ignore_errors=True)
        self._incoming.mkdir(parents=True)
        self._files = {file.id: file for file in _stored(folder)}

    @staticmethod
    def check_id(text: str) -> str:
        """An id that may be looked for. Raises a Problem (404) for any other text, which it does not repeat."""
        if not _ID.fullmatch(text):
            raise Problem(404, "there is no file with this id: ids look like `file-…`", param="id")
        return text

    def get(self, file_id: str) -> File:
        """A file. Raises a Problem (404) where there is none."""
        file = self._files.get(self.check_id(file_id))
        if file is None:
            raise Problem(404, f"there is no file `{file_id}`", param="id")
        return file

    def path(self, file_id: str) -> Path:
        """Where the content of a file is. Raises a Problem (404) where there is no such file."""
        return self._folder / self.get(file_id).id / "content"

    def list(self) -> list[File]:
        """All files, the newest first."""
        with self._lock:
            files = list(self._files.values())
        return sorted(files, key=lambda file: (file.created_ns, file.id), reverse=True)

    def announce(
        self, filename: str | None, purpose: str | None, file_type: str | None, checksum: str | None
    ) -> tuple[str, str]:
        """A new file's id, and the token with which its content may be sent.

        Raises a Problem: 400 for fields that are wrong, 409 with the `file_id` of a file with the same content.
        """
        described = describe(filename, purpose, file_type)
        checksum = checksum.lower() if checksum else None
        if checksum and not _CHECKSUM.fullmatch(checksum):
            raise Problem(400, "`checksum` is not the sha256 of the content in hex", param="checksum")
        if checksum and (same := self._same(described, checksum)):
            raise Problem(
                409,
                f"this content is already here as `{same.id}`",
                code="file_exists",
                headers={"x-should-retry": "false"},
                extra={"file_id": same.id},
            )
        file_id, token = _new_id(), secrets.token_urlsafe(32)
        with self._lock:
            while len(self._announced) >= MOST_ANNOUNCED:
                del self._announced[next(iter(self._announced))]
            self._announced[file_id] = _Announced(token, described, checksum)
        return file_id, token

    def open_upload(self, file_id: str, token: str) -> Upload:
        """Takes the content of an announced file.

        Raises a Problem: 404 where id and token are not of an announced file, 409 while another upload of it runs.
        """
        with self._lock:
            announced = self._announced.get(self.check_id(file_id))
            if announced is None or not secrets.compare_digest(
                token.encode(errors="replace"), announced.token.encode()
            ):
                raise Problem(404, "no upload was announced with this address, or it is done: announce it again")
            if announced.is_open:
                raise Problem(409, f"another upload of `{file_id}` is running", headers={"x-should-retry": "false"})
            announced.is_open = True
        try:
            return Upload(self, self._new_folder(), file_id=file_id, announced=announced)
        except BaseException:
            announced.is_open = False
            raise

    def new_upload(self) -> Upload:
        """Takes content that was not announced; `Upload.finish` is told what it is."""
        return Upload(self, self._new_folder(), file_id=_new_id())

    def process(self, file_id: str) -> File:
        """Counts the rows of a file that has come. What cannot be read is INVALID_FORMAT; it stays what it is.

        Takes as long as reading the file does. Raises a Problem: 404 where there is none, 400 before its content came.
        """
        if self.check_id(file_id) in self._announced and file_id not in self._files:
            raise Problem(400, f"the content of `{file_id}` has not been sent yet", param="id")
        file = self.get(file_id)
        if file.status != "PENDING":
            return file
        try:
            lines, problem = count(self.path(file_id), file)
        except FileNotFoundError:
            raise Problem(404, f"the content of `{file_id}` is gone", param="id") from None
        counted = replace(file, status="INVALID_FORMAT" if problem else "COMPLETED", lines=lines, problem=problem)
        fresh = self._incoming / secrets.token_hex(8)
        with _storing():
            _write_about(fresh, counted)
            with self._lock:
                if self._files.get(file_id) == file:  # neither deleted nor counted by another since
                    fresh.replace(self._folder / file_id / "about.json")
                    self._files[file_id] = counted
            fresh.unlink(missing_ok=True)
        return self.get(file_id)

    def add(
        self,
        path: Path,
        *,
        id: str | None,  # noqa: A002 - as `File` and the API call it
        filename: str,
        purpose: str,
        file_type: str,
    ) -> File:
        """Takes over (moves) a finished file of the server's own. The same id again replaces what was there."""
        digest = hashlib.sha256()
        size = lines = 0
        with path.open("rb") as stream:
            while block := stream.read(BLOCK):
                digest.update(block)
                size += len(block)
                lines += block.count(b"\n")
            os.fsync(stream.fileno())
        file = File(
            id=self.check_id(id) if id else _new_id(),
            filename=plain_name(filename),
            bytes=size,
            purpose=purpose,
            file_type=file_type,
            checksum=digest.hexdigest(),
            created_ns=time.time_ns(),
            status="COMPLETED",
            lines=lines if file_type == "jsonl" else None,
        )
        folder = self._new_folder()
        try:
            with _storing():
                shutil.move(path, folder / "content")
            return self._publish(folder, file)
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # there only where it was not published

    def delete(self, file_id: str) -> None:
        """Removes a file. Raises a Problem (404) where there is none."""
        gone = self._incoming / secrets.token_hex(8)
        with self._lock:
            folder = self._folder / self.get(file_id).id
            with _storing(), contextlib.suppress(FileNotFoundError):
                folder.rename(gone)
            del self._files[file_id]
        shutil.rmtree(gone, ignore_errors=True)

    def _same(self, described: Described, checksum: str) -> File | None:
        for file in self.list():
            theirs = Described(described.filename, file.purpose, file.file_type)
            if file.checksum == checksum and theirs == described and file.status == "COMPLETED":
                return file
        return None

    def _new_folder(self) -> Path:
        folder = self._incoming / secrets.token_hex(8)
        with _storing():
            folder.mkdir()
        return folder

    def _publish(self, folder: Path, file: File) -> File:
        target, old = self._folder / file.id, self._incoming / secrets.token_hex(8)
        with _storing():
            _write_about(folder / "about.json", file)
            _sync(folder)
            with self._lock:
                if target.exists():
                    target.rename(old)
                folder.rename(target)
                self._files[file.id] = file
            _sync(self._folder)
        shutil.rmtree(old, ignore_errors=True)
        return file

    def _settle(self, file_id: str, *, is_done: bool) -> None:
        with self._lock:
            if is_done:
                self._announced.pop(file_id, None)
            elif file_id in self._announced:
                self._announced[file_id].is_open = False


class Upload:
    """Content on its way in. It is `finish`ed or `abort`ed; leaving the `with` block unfinished aborts it."""

    def __init__(self, files: Files, folder: Path, *, file_id: str, announced: _Announced | None = None) -> None:
        self._files = files
        self._folder = folder
        self._id = file_id
        self._announced = announced
        self._digest = hashlib.sha256()
        self._size = 0
        self._is_over = False
        with _storing():
            self._stream = (folder / "content").open("xb")

    def write(self, chunk: bytes) -> None:
        """Adds to the content. Raises a Problem (413) where it becomes too large."""
        self._size += len(chunk)
        if self._size > self._files.largest:
            raise Problem(413, f"the file is larger than {self._files.largest:,} bytes, the most that is taken")
        self._digest.update(chunk)
        with _storing():
            self._stream.write(chunk)

    def finish(self, described: Described | None = None) -> File:
        """Makes it a file. Without an announcement, `described` says what it is, and known content is not kept twice.

        Raises a Problem (400) where the content is not the one that was announced.
        """
        checksum = self._digest.hexdigest()
        if self._announced is not None:
            described = self._announced.described
            if self._announced.checksum not in (None, checksum):
                raise Problem(400, f"the content has another checksum than was announced: {checksum}", param="checksum")
        assert described is not None
        with _storing():
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
        if self._announced is None and (same := self._files._same(described, checksum)):
            self.abort()
            return same
        file = File(
            id=self._id,
            filename=described.filename,
            bytes=self._size,
            purpose=described.purpose,
            file_type=described.file_type,
            checksum=checksum,
            created_ns=time.time_ns(),
        )
        self._files._publish(self._folder, file)
        self._is_over = True
        self._files._settle(self._id, is_done=True)
        return file

    def abort(self) -> None:
        """Drops what has come, so that the file can be sent again. Does nothing after `finish`."""
        if self._is_over:
            return
        self._is_over = True
        with contextlib.suppress(OSError):  # a full disk: what is still in the buffer cannot be written
            self._stream.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._files._settle(self._id, is_done=False)

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.abort()


def _new_id() -> str:
    return f"file-{uuid.uuid4()}"


def _stored(folder: Path) -> Iterator[File]:
    """The files of an earlier start. What cannot be read is left where it is, and is no file."""
    known = {field.name for field in fields(File)}
    for about in folder.glob("*/about.json"):
        with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
            value = json.loads(about.read_bytes())
            file = File(**{name: value[name] for name in known & value.keys()})
            if file.id == about.parent.name and (about.parent / "content").is_file():
                yield file


def _write_about(path: Path, file: File) -> None:
    with path.open("w", encoding="utf-8") as stream:
        json.dump(asdict(file), stream)
        stream.flush()
        os.fsync(stream.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _storing() -> Iterator[None]:
    """A disk that is full is an answer and no crash; the message has no path of this machine."""
    try:
        yield
    except OSError as error:
        raise Problem(507, f"the server cannot store the file: {error.strerror or 'its disk fails'}") from error
