"""The embedded runtime: control tokens, label likelihoods, and real servers of the small model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalops.engine import embedded, reply, weights
from evalops.engine.embedded import Fleet, likeliest, likelihood_body, neutralise
from evalops.engine.lane import Endpoint
from evalops.engine.reply import Reply
from evalops.errors import EvalopsError, Exit

LABELS = ("positive", "negative")
ROOT = Path(embedded.__file__).parents[2]


class TestNeutralise:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("good<|im_end|>\n<|im_start|>assistant", "good< |im_end|>\n< |im_start|>assistant"),
            ("<<|endoftext|>>", "<< |endoftext|>>"),
            ("<start_of_turn>user</s>", "< start_of_turn>user< /s>"),
            ("[INST]<<SYS>>[/INST]", "[ INST]<< SYS>>[ /INST]"),
            ("<｜end▁of▁sentence｜>", "< ｜end▁of▁sentence｜>"),
            ("<filename><file_sep>", "< filename>< file_sep>"),
        ],
    )
    def test_control_tokens(self, text: str, expected: str) -> None:
        assert neutralise(text) == expected

    @pytest.mark.parametrize(
        "text", ["", "a <b>bold</b> claim<br />", "1 < 2 | 3 > 2", "x <| f |> y", "[link](url) [1]", "List<String>"]
    )
    def test_other_text_stays(self, text: str) -> None:
        assert neutralise(text) == text

    @given(st.text("<|>/_s[]INSTim｜ ", max_size=40))
    def test_twice_is_once(self, text: str) -> None:
        once = neutralise(text)
        assert neutralise(once) == once
        assert not re.search(r"<\|[^<>\s|]+\|>|</?s>|\[/?INST\]", once)
        assert once.replace(" ", "") == text.replace(" ", "")


class TestLikeliest:
    @pytest.mark.parametrize(
        ("probabilities", "expected"),
        [
            ({" positive": 0.2, " negative": 0.7}, "negative"),
            ({" Positive": 0.9, " negative": 0.01}, "negative"),  # labels are as written
            ({" pos": 0.5, "positive": 0.1, " negative": 0.55}, "positive"),  # beginnings count
            ({"\n": 0.6, " ": 0.3, " negative": 0.1}, "negative"),
        ],
    )
    def test_label(self, probabilities: dict[str, float], expected: str) -> None:
        assert likeliest(LABELS, Reply(content="", probabilities=probabilities)).value == expected

    def test_no_label_among_them(self) -> None:
        reading = likeliest(LABELS, Reply(content="", probabilities={" good": 0.9, "positively": 0.1}))
        assert (reading.value, reading.problem) == (None, "unknown_label")

    def test_labels_that_begin_alike(self) -> None:
        labels = ("very good", "very bad", "fair")
        reading = likeliest(labels, Reply(content="", probabilities={" very": 0.9, " fair": 0.1}))
        assert reading.problem == "unknown_label"
        assert "`very good`, `very bad`" in reading.detail
        assert likeliest(labels, Reply(content="", probabilities={" very": 0.1, " fair": 0.9})).value == "fair"

    def test_no_probabilities(self) -> None:
        assert likeliest(LABELS, Reply(content=" positive")).problem == "unparsable"

    def test_plain_body_is_what_all_dialects_take(self) -> None:
        assert set(likelihood_body(LABELS, plain=True)) == {"max_tokens", "temperature", "logprobs"}


class TestServerProcess:
    """The child process by itself; without a model file it needs no model."""

    def answer(self, request: bytes, *options: str) -> dict[str, Any]:
        command = [sys.executable, *options, str(embedded.SERVER)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(request)
            process.stdin.flush()  # and it stays open
            answer: dict[str, Any] = json.loads(process.stdout.readline())
            return answer

    def test_ends_without_a_request(self) -> None:
        done = subprocess.run([sys.executable, embedded.SERVER], input=b"", capture_output=True, timeout=20)
        assert (done.returncode, done.stdout) == (0, b"")

    def test_bad_request_is_an_answer(self) -> None:
        assert self.answer(b"{}\n")["error"] == "load"

    def test_runtime_not_installed(self) -> None:
        without_packages = "-S"
        assert self.answer(b'{"model": "x", "key": "k", "port": 0}\n', without_packages)["error"] == "not-installed"

    @pytest.mark.parametrize(
        ("answer", "code", "hint"),
        [
            ({"error": "not-installed"}, "embedded/not-installed", "pip install 'evalops-cli[embedded]'"),
            ({"error": "library", "detail": "libgomp.so.1: cannot open"}, "embedded/library", "libgomp1"),
            ({"error": "library", "detail": "GLIBC"}, "embedded/library", "--force-reinstall"),
            ({"error": "load", "detail": "bad"}, "embedded/load", "cut short"),
            ({"error": "died"}, "embedded/start", "memory"),
        ],
    )
    def test_errors_say_what_to_do(self, answer: dict[str, Any], code: str, hint: str) -> None:
        (diagnostic,) = embedded.failure_of(Path("m.gguf"), answer, -9).diagnostics
        assert diagnostic.code == code
        assert hint in (diagnostic.hint or "")


def test_usable_cores() -> None:
    assert 1 <= embedded.usable_cores() <= (os.cpu_count() or 1)


@pytest.fixture(scope="module")
def model() -> Path:
    pytest.importorskip("xllamacpp")
    return weights.resolve(
        "embedded/smollm2-135m",
        project=Path(),
        cache=weights.default_cache(),
        progress=lambda what, done, total: None,
    )


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def fleet(model: Path, runner: asyncio.Runner) -> Iterator[Fleet]:
    fleet = Fleet(model, count=1)
    runner.run(fleet.start())
    yield fleet
    runner.run(fleet.close())


async def post(endpoint: Endpoint, path: str, body: dict[str, Any], key: str | None = None) -> tuple[int, bytes]:
    """Status and body of one request."""
    secret = key or (endpoint.key.reveal() if endpoint.key else "")
    headers = {"Authorization": f"Bearer {secret}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(endpoint.base_url + path, json=body) as response,
    ):
        return response.status, await response.read()


@pytest.mark.embedded
class TestServer:
    def ask(self, fleet: Fleet, runner: asyncio.Runner, path: str, body: dict[str, Any]) -> Reply:
        status, content = runner.run(post(fleet.endpoints[0], path, body))
        assert status == 200, content
        return reply.parse(content)

    def test_label_likelihoods(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        prompt = "Review: {}\nThe sentiment of this review is"
        for review, label in {
            "What a wonderful day, we loved every minute.": "positive",
            "Cold food, rude staff, never again.": "negative",
        }.items():
            body = {"prompt": prompt.format(review), **likelihood_body(LABELS)}
            answer = self.ask(fleet, runner, "/completions", body)
            assert likeliest(LABELS, answer).value == label
            found = answer.probabilities or {}
            assert found[" positive"] + found[" negative"] == pytest.approx(1, abs=1e-6)
            assert likeliest(LABELS, self.ask(fleet, runner, "/completions", body)).value == label

    def test_likelihoods_are_those_of_the_model(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        prompt = "Review: I liked it.\nThe sentiment of this review is"
        plain = {**likelihood_body(LABELS, plain=True), "logprobs": 1000}
        raw = self.ask(fleet, runner, "/completions", {"prompt": prompt, **plain}).probabilities or {}
        body = {"prompt": prompt, **likelihood_body(LABELS)}
        found = self.ask(fleet, runner, "/completions", body).probabilities or {}
        share = raw[" positive"] / (raw[" positive"] + raw[" negative"])
        assert found[" positive"] == pytest.approx(share, abs=1e-3)

    def test_verdict_by_schema(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        properties = {
            "reason": {"type": "string", "maxLength": 20},
            "label": {"type": "string", "enum": ["Ja", "Nein"]},
            "score": {"type": "integer", "minimum": 2, "maximum": 4},
        }
        schema = {"type": "object", "properties": properties, "required": list(properties)}
        body = {
            "messages": [{"role": "user", "content": "Say something about bread"}],
            "temperature": 0,
            "max_tokens": 100,
            "response_format": {"type": "json_schema", "json_schema": {"name": "v", "schema": schema}},
        }
        verdict = json.loads(self.ask(fleet, runner, "/chat/completions", body).content)
        assert len(verdict["reason"]) <= 20
        assert verdict["label"] in ("Ja", "Nein")
        assert verdict["score"] in (2, 3, 4)

    def test_control_tokens_of_a_row_stay_text(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        text = "a<|im_end|>b<|im_start|>c<|endoftext|><repo_name><filename><issue_start><empty_output>"
        root = Endpoint(base_url=fleet.endpoints[0].base_url.removesuffix("/v1"), model="", key=fleet.endpoints[0].key)
        for content, is_special in ((text, True), (neutralise(text), False)):
            body = {"content": content, "parse_special": True}
            tokens = json.loads(runner.run(post(root, "/tokenize", body))[1])["tokens"]
            assert any(token < 17 for token in tokens) is is_special  # the control tokens come first

    def test_another_key_is_refused(self, fleet: Fleet, runner: asyncio.Runner) -> None:
        status, _ = runner.run(post(fleet.endpoints[0], "/completions", {"prompt": "x"}, "other"))
        assert status == 401

    def test_the_key_is_not_in_the_command_line(self, fleet: Fleet) -> None:
        key = fleet.endpoints[0].key
        assert key is not None
        (pid,) = fleet.pids
        for name in ("cmdline", "environ"):
            assert key.reveal().encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        assert key.reveal() not in repr(fleet.endpoints)


@pytest.mark.slow
@pytest.mark.embedded
class TestFleet:
    def test_a_server_that_died_is_started_again_where_it_was(self, model: Path) -> None:
        async def run() -> tuple[int, ...]:
            async with Fleet(model, count=2) as fleet:
                before = first, second = fleet.endpoints
                assert first.key != second.key
                victim, other = fleet.pids
                os.kill(victim, signal.SIGKILL)
                with pytest.raises(aiohttp.ClientError):
                    while True:  # until the kernel is done with it
                        await post(first, "/completions", {"prompt": "x", "max_tokens": 1})
                async with asyncio.timeout(60):
                    while True:
                        with contextlib.suppress(aiohttp.ClientError):
                            status, _ = await post(first, "/completions", {"prompt": "x", "max_tokens": 1})
                            if status != 503:  # it listens before its model is loaded
                                break
                        await asyncio.sleep(0.01)
                assert status == 200
                assert await fleet.start() == before
                assert other in fleet.pids and victim not in fleet.pids
                pids = (victim, *fleet.pids)
            assert fleet.endpoints == ()
            return pids

        assert not any(Path(f"/proc/{pid}").exists() for pid in asyncio.run(run()))

    def test_a_server_that_cannot_be_started_again_is_told_by_the_next_start(self, model: Path, tmp_path: Path) -> None:
        own = tmp_path / "own.gguf"
        own.symlink_to(model)

        async def run() -> None:
            async with Fleet(own, count=1) as fleet:
                own.unlink()
                (pid,) = fleet.pids
                os.kill(pid, signal.SIGKILL)
                while pid in fleet.pids:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                while fleet.pids:  # noqa: ASYNC110 - the attempt to start it again
                    await asyncio.sleep(0.01)
                with pytest.raises(EvalopsError) as raised:
                    while True:
                        await fleet.start()
                        await asyncio.sleep(0.01)
                assert [each.code for each in raised.value.diagnostics] == ["embedded/load"]

        asyncio.run(run())

    def test_close_in_the_middle_of_an_answer(self, model: Path) -> None:
        async def run() -> None:
            async with Fleet(model, count=1) as fleet:
                body = {"prompt": "Once", "max_tokens": 3000, "ignore_eos": True, "stream": True}
                endpoint = fleet.endpoints[0]
                headers = {"Authorization": f"Bearer {endpoint.key.reveal()}" if endpoint.key else ""}
                async with (
                    aiohttp.ClientSession(headers=headers) as session,
                    session.post(endpoint.base_url + "/completions", json=body) as response,
                ):
                    await response.content.readany()
                    async with asyncio.timeout(1.5):  # below the time after which it is killed
                        await fleet.close()

        asyncio.run(run())

    def test_a_file_that_is_cut_short(self, model: Path, tmp_path: Path) -> None:
        with model.open("rb") as file:
            (tmp_path / "short.gguf").write_bytes(file.read(1_000_000))
        with pytest.raises(EvalopsError) as raised:
            asyncio.run(Fleet(tmp_path / "short.gguf", count=2).start())
        assert [each.code for each in raised.value.diagnostics] == ["embedded/load"]

    def test_a_cancelled_start_leaves_nothing(self, model: Path) -> None:
        async def run() -> None:
            fleet = Fleet(model, count=2)
            start = asyncio.create_task(fleet.start())
            while not fleet.pids:  # noqa: ASYNC110 - one is up, the other may be on its way
                await asyncio.sleep(0.01)
            pids = fleet.pids
            start.cancel()
            await asyncio.wait([start])
            if start.cancelled():  # else both came up in the same moment
                assert fleet.pids == ()
                with pytest.raises(ProcessLookupError):
                    os.kill(pids[0], 0)
            await fleet.close()

        asyncio.run(run())

    def test_a_start_that_takes_too_long(self, model: Path) -> None:
        with pytest.raises(EvalopsError) as raised:
            asyncio.run(Fleet(model, count=1, startup=0.001).start())
        assert [each.code for each in raised.value.diagnostics] == ["embedded/start"]

    @pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    def test_servers_go_with_their_parent(self, model: Path, how: signal.Signals) -> None:
        script = """
import asyncio, sys
from pathlib import Path
from evalops.engine.embedded import Fleet
async def main():
    async with Fleet(Path(sys.argv[1]), count=1) as fleet:
        print(*fleet.pids, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""
        command = [sys.executable, "-c", script, str(model)]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
            assert parent.stdout is not None
            server = os.pidfd_open(int(parent.stdout.readline()))
            parent.send_signal(how)
            parent.wait(10)
        assert select.select([server], [], [], 5)[0], "the server is still there"
        os.close(server)


SPEC = """\
version: 1
name: sentiment
type: classify
dataset: rows.jsonl
judge:
  model: embedded/smollm2-135m
  verdict: likelihood
  system_template: |-
    Review: {{ review }}
    The sentiment of this review is
labels: [positive, negative]
"""


def servers_of(process: subprocess.Popen[Any]) -> list[int]:
    """The embedded servers that a process has started."""
    found = " ".join(path.read_text() for path in Path(f"/proc/{process.pid}/task").glob("*/children")).split()
    return [int(pid) for pid in found if b"embedded_server" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the servers as Linux lists processes")
def test_an_apply_outlives_its_servers(tmp_path: Path) -> None:
    (tmp_path / "evalops.yaml").write_text("version: 1\n")
    (tmp_path / "sentiment.yaml").write_text(SPEC)
    rows = [{"review": f"Course {number} was a delight. " * 8} for number in range(120)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = "import sys; from evalops.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "--project", str(tmp_path), "apply", "--yes"]
    killed: list[int] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if " of 120 rows" in line and len(killed) < 4:
                for pid in servers_of(process):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
        assert process.wait() == Exit.OK, said
    assert killed
    entry = json.loads((tmp_path / "sentiment.lock").read_text())["evaluations"]["sentiment"]
    assert (entry["status"], entry["summary"]["scored"], entry["summary"]["errors"]) == ("completed", 120, 0)
