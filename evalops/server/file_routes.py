"""The endpoints of files: upload in two ways, list, look up, delete, download.

No content is ever held in memory: it goes from the connection to the disk, and back, in pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import AsyncIterator, Iterator
from typing import BinaryIO, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from evalops.server.body import PATIENCE, Body
from evalops.server.file import File, describe
from evalops.server.files import Files, Upload
from evalops.server.form import LONGEST_FORM, Form
from evalops.server.problem import Problem

BLOCK = 256 << 10  # bytes sent at once
CHECKS = 2  # files whose rows are counted at once; threads remain for everything else

_HOST = re.compile(r"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")


def routes(files: Files, *, patience: float = PATIENCE) -> list[Route]:
    """The endpoints over `files`, without a version in their paths. Whoever knows the token may PUT an upload."""
    api = _Api(files, patience)
    return [
        Route("/files", api.announce, methods=["POST"]),
        Route("/files", api.list, methods=["GET"]),
        Route("/uploads/{id}/{token}", api.receive, methods=["PUT"]),
        Route("/files/upload", api.receive_form, methods=["POST"]),
        Route("/files/multipart/{step:path}", api.refuse_parts, methods=["POST"]),
        Route("/files/{id}", api.retrieve, methods=["GET"]),
        Route("/files/{id}", api.delete, methods=["DELETE"]),
        Route("/files/{id}/preprocess", api.preprocess, methods=["POST"]),
        Route("/files/{id}/content", api.content, methods=["GET"]),
    ]


class _Api:
    def __init__(self, files: Files, patience: float) -> None:
        self._files = files
        self._patience = patience
        self._checks = asyncio.Semaphore(CHECKS)

    async def announce(self, request: Request) -> Response:
        form = Form(request.headers.get("content-type"), takes_file=False)
        body = Body(request, LONGEST_FORM, self._patience)
        while (piece := await body.next()) is not None:
            form.feed(piece)
        fields = form.close()
        file_id, token = self._files.announce(*(fields.get(name) for name in (*_DESCRIPTION, "checksum")))
        headers = {"location": _address(request, f"uploads/{file_id}/{token}"), "x-together-file-id": file_id}
        return Response(status_code=302, headers=headers)

    async def receive(self, request: Request) -> Response:
        body = Body(request, self._files.largest, self._patience)
        upload = await asyncio.to_thread(
            self._files.open_upload, request.path_params["id"], request.path_params["token"]
        )
        async with _aborting(upload):
            while (piece := await body.next()) is not None:
                await asyncio.to_thread(upload.write, piece)
            await asyncio.to_thread(upload.finish)
        return Response(status_code=200)

    async def receive_form(self, request: Request) -> Response:
        form = Form(request.headers.get("content-type"), takes_file=True)
        body = Body(request, self._files.largest, self._patience, beside=LONGEST_FORM)
        upload = await asyncio.to_thread(self._files.new_upload)
        async with _aborting(upload):
            while (piece := await body.next()) is not None:
                content = form.feed(piece)
                if content:
                    await asyncio.to_thread(upload.write, content)
            fields = form.close()
            if form.filename is None:
                raise Problem(400, "`file` is missing: send the content as the part `file` of the form", param="file")
            name, purpose, file_type = (fields.get(each) for each in _DESCRIPTION)
            described = describe(name or form.filename, purpose, file_type)
            file = await asyncio.to_thread(upload.finish, described)
        return JSONResponse((await self._process(file.id)).to_json())

    async def preprocess(self, request: Request) -> Response:
        return JSONResponse((await self._process(request.path_params["id"])).to_json())

    async def list(self, request: Request) -> Response:
        return JSONResponse({"data": [file.to_json() for file in self._files.list()]})

    async def retrieve(self, request: Request) -> Response:
        return JSONResponse(self._files.get(request.path_params["id"]).to_json())

    async def delete(self, request: Request) -> Response:
        file_id = request.path_params["id"]
        await asyncio.to_thread(self._files.delete, file_id)
        return JSONResponse({"id": file_id, "deleted": True})

    async def content(self, request: Request) -> Response | _Download:
        file = self._files.get(request.path_params["id"])
        return _Download(await asyncio.to_thread(self._open, file), file)

    async def refuse_parts(self, request: Request) -> Response:
        message = (
            f"uploads in parts are not taken, and files are at most {self._files.largest:,} bytes:"
            " split the dataset into several files and evaluate each"
        )
        raise Problem(400, message)

    async def _process(self, file_id: str) -> File:
        async with self._checks:
            return await asyncio.to_thread(self._files.process, file_id)

    def _open(self, file: File) -> BinaryIO:
        try:
            return self._files.path(file.id).open("rb")
        except FileNotFoundError:
            raise Problem(404, f"the content of `{file.id}` is gone", param="id") from None


_BINARY = "application/octet-stream"
_DESCRIPTION = ("file_name", "purpose", "file_type")


@contextlib.asynccontextmanager
async def _aborting(upload: Upload) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await asyncio.shield(asyncio.to_thread(upload.abort))
        raise


# --- what goes out ---


def _address(request: Request, path: str) -> str:
    """Another endpoint of this API, under the address and version that the client has used for `/files`."""
    host = request.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = request.scope.get("server") or ("127.0.0.1", None)
        host = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
    here = request.scope["path"].removesuffix("/").removesuffix("files")
    return f"{request.scope['scheme']}://{host}{quote(here)}{path}"


class _Download(NamedTuple):
    """The answer with a file's content, all of it or a range. The stream is closed however the answer ends."""

    stream: BinaryIO
    file: File

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self.stream:
            await self._response(Request(scope))(scope, receive, send)

    def _response(self, request: Request) -> Response:
        size = os.fstat(self.stream.fileno()).st_size
        headers = _about(self.file)
        if request.method == "HEAD":
            return Response(headers={**headers, "content-length": str(size)}, media_type=_BINARY)
        asked = _asked(request, size, headers["etag"])
        span = range(size) if asked is None else asked
        headers["content-length"] = str(len(span))
        if asked is not None:
            headers["content-range"] = f"bytes {asked.start}-{asked.stop - 1}/{size}"
        pieces = _pieces(self.stream, span)
        return StreamingResponse(pieces, 200 if asked is None else 206, headers, media_type=_BINARY)


def _about(file: File) -> dict[str, str]:
    """The headers of a file's content."""
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", file.filename)
    return {
        "accept-ranges": "bytes",
        "etag": f'"{file.checksum}"',
        "content-disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(file.filename, safe='')}",
        "x-content-type-options": "nosniff",
    }


def _asked(request: Request, size: int, etag: str) -> range | None:
    """The bytes that a request asks for (RFC 9110, section 14), None for all.

    A Range that is malformed, names several ranges or is of another content is ignored, as the RFC allows.
    Raises a Problem (416) where there are no such bytes.
    """
    match = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if match is None or request.headers.get("if-range", etag) != etag:
        return None
    first, last = (int(text) if text else None for text in match.groups())
    if first is None and last is None:
        return None
    if first is None:
        start, stop = max(size - (last or 0), 0), size
    elif last is not None and last < first:
        return None
    else:
        start, stop = first, size if last is None else min(last + 1, size)
    if start >= stop:
        raise Problem(416, f"the file has {size:,} bytes", headers={"content-range": f"bytes */{size}"})
    return range(start, stop)


def _pieces(stream: BinaryIO, span: range) -> Iterator[bytes]:
    stream.seek(span.start)
    left = len(span)
    while left and (piece := stream.read(min(BLOCK, left))):
        left -= len(piece)
        yield piece
