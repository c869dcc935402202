"""Carrying out jobs: dataset -> (generate) -> judge -> verdict -> store, row by row and without a barrier.

Each job has a number of workers that take the next row from one stream, so that memory holds the rows in
flight and no more. Everything runs on one event loop; what is done is committed twenty times a second.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalops import voting
from evalops.datasets.dataset import Row, Uses
from evalops.engine.judge import Ask
from evalops.engine.jury import Evaluate, Jury, RowFailed
from evalops.engine.model import Client, Endpoint, Reply, Route
from evalops.engine.store import WINDOW, Store
from evalops.errors import EvalopsError
from evalops.fingerprint import canonical
from evalops.lock import Status
from evalops.meter import Meter, OverBudget
from evalops.result import Verdict, VerdictStatus
from evalops.settings import Budget, Price
from evalops.spec import Evaluation, Model

_encode = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode  # made once: json.dumps makes one a call

GRACE = 5.0  # seconds that calls in flight have to end after a stop
CHARACTERS = 4  # of a token, by a rule of thumb, for the budget where an endpoint does not count
FEWEST = 4  # rows under way at the least where each takes many votes: the last vote of one must not keep all waiting


def encoded(model: str, body: Mapping[str, Any]) -> bytes:
    """A request as it is sent, and as the cache knows it."""
    return _encode({"model": model, **body}).encode("utf-8", "backslashreplace")


@dataclass(slots=True, kw_only=True)
class Target:
    """Where the calls of one model go: an endpoint, or several that serve the same (one process a core).

    `identity` stands for the model in the cache: what serves it today may stand elsewhere tomorrow.
    """

    identity: str
    endpoints: tuple[Endpoint, ...]
    is_embedded: bool = False
    busy: list[int] = field(default_factory=list)

    @property
    def width(self) -> int:
        """How many calls it takes at once."""
        return sum(endpoint.max_in_flight for endpoint in self.endpoints)

    def pick(self) -> contextlib.AbstractContextManager[Endpoint]:
        """The endpoint with the fewest calls, for the time of one."""
        return contextlib.nullcontext(self.endpoints[0]) if len(self.endpoints) == 1 else self._pick()

    @contextlib.contextmanager
    def _pick(self) -> Iterator[Endpoint]:
        self.busy = self.busy or [0] * len(self.endpoints)
        index = self.busy.index(min(self.busy))
        self.busy[index] += 1
        try:
            yield self.endpoints[index]
        finally:
            self.busy[index] -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One job to carry out. `targets` answers `evaluation.models` one to one.

    `submitted` is the digest the rows must have in the end; `rows` opens the keyed dataset anew. `evaluate` is there
    for type custom. `meter` is asked before each call; `prices` are by model id, and a model without one is free.
    """

    job: str
    evaluation: Evaluation
    generation: int
    total: int
    submitted: str
    use: Uses
    rows: Callable[[], Iterator[tuple[str, Row]]]
    targets: tuple[Target, ...]
    max_error_rate: float
    evaluate: Evaluate | None = None
    meter: Meter = field(default_factory=lambda: Meter(Budget()))
    prices: Mapping[str, Price] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job was left."""

    status: Status
    message: str | None = None


Report = Callable[[str, int, Mapping[str, int]], None]  # job, rows done, rows by status


class Failed(Exception):
    """The job cannot go on; the message is for the user."""


class Run:
    """One job under way."""

    def __init__(self, work: Work, store: Store, client: Client) -> None:
        self.work = work
        self.counts: Counter[str] = Counter()
        self._store = store
        self._client = client
        self._stopping = False
        self._over: OverBudget | None = None
        self._under_way = 0  # calls
        self._is_quiet = asyncio.Event()  # none is
        self._is_quiet.set()
        self._turn = asyncio.Lock()
        self._digest = hashlib.sha256()
        self._done, self._errors = store.finished(work.job, work.total)
        self._salt = f"{work.generation}\0".encode() if work.generation > 1 else b""
        models = list(zip(work.evaluation.models, work.targets, strict=True))
        targets = {id(model): target for model, target in models}
        asks = {id(model): self._ask(model, target) for model, target in models}
        embedded = {model: target.is_embedded for model, target in targets.items()}
        judges = (targets.get(id(judge.model)) for judge in work.evaluation.judges)
        self._rung_keys = [self._rung_key(target.identity if target else "") for target in judges]
        rungs = [self._known_rung(key) for key in self._rung_keys]
        self._jury = Jury(work.evaluation, asks, embedded, rungs, work.evaluate)

    def stop(self) -> None:
        """Start no further row."""
        self._stopping = True

    async def run(self) -> Outcome:
        """All rows that the store does not hold yet."""
        rows = self._rows()
        workers = [asyncio.create_task(self._worker(rows)) for _ in range(max(1, min(self._width, self.work.total)))]
        try:
            await asyncio.gather(*workers)
        except (Failed, EvalopsError) as error:
            self._stopping = True
            await asyncio.wait(workers, timeout=GRACE)  # what is in flight is paid for
            return Outcome(status=Status.FAILED, message=str(error))
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
            self._keep_rungs()
        if self._over is not None:
            return await self._stopped_by(self._over)
        if self._stopping:
            return Outcome(status=Status.CANCELLED)
        if self._digest.hexdigest() != self.work.submitted:
            message = "the dataset changed while the job ran: apply again to run the new rows"
            return Outcome(status=Status.FAILED, message=message)
        return Outcome(status=Status.COMPLETED)

    async def _stopped_by(self, over: OverBudget) -> Outcome:
        """The budget is used up: calls that rows were left with are paid for, and their replies kept."""
        await self._is_quiet.wait()  # each call has a bound of its own, and whoever stops the run waits no longer
        self._store.flush()
        done = sum(map(bool, self._store.finished(self.work.job, self.work.total)[0]))
        return Outcome(
            status=Status.CANCELLED, message=f"{over}; {done:,} of {self.work.total:,} rows are done and kept"
        )

    @property
    def _width(self) -> int:
        """How many rows are under way at a time: as many as the endpoints take calls, twice over where a row takes
        several, so that they are busy while a row waits for the last of its votes.
        """
        width = sum(target.width for target in self.work.targets) or 1
        evaluation = self.work.evaluation
        votes = evaluation.repeats if evaluation.voting.cascade else voting.planned(evaluation)
        return width if votes == 1 else max(FEWEST, 2 * width // votes)

    def _rung_key(self, identity: str) -> bytes:
        # Kept with the replies: without it, rows whose replies are known would knock at the upper rungs once more.
        return hashlib.sha256(b"\0".join((self._salt, b"rung", identity.encode()))).digest()

    def _known_rung(self, key: bytes) -> int:
        known = self._store.reply(key)
        return int(known.content) if known else 0

    def _keep_rungs(self) -> None:
        for key, rung in zip(self._rung_keys, self._jury.rungs, strict=False):  # type custom has no judge
            if rung:
                self._store.add_reply(key, Reply(content=str(rung)))

    def _rows(self) -> Iterator[tuple[str, Row, int]]:
        """The rows to do with a checksum of what is judged, while the digest of all of them is taken."""
        for key, row in self.work.rows():
            text = canonical(self.work.use.used(row.source))
            self._digest.update(text + b"\n")
            position = row.position
            if position >= self.work.total:
                raise Failed("the dataset grew while the job ran: apply again to run the new rows")
            checksum = zlib.crc32(text) or 1
            if self._done[position] == checksum:
                self.counts["kept"] += 1
            else:
                yield key, row, checksum

    async def _worker(self, rows: Iterator[tuple[str, Row, int]]) -> None:
        for key, row, checksum in rows:
            if self._stopping:
                return
            try:
                verdict, detail = await self._jury.row(key, self.work.use.shown(row.source))
            except RowFailed as failed:
                if failed.fatal:
                    raise Failed(failed.message) from None
                verdict = Verdict(key, VerdictStatus.ERROR, None, failed.reason, failed.message)
                detail = failed.detail
            except OverBudget as over:
                self._over, self._stopping = over, True
                return
            self._store.add_row(self.work.job, row.position, verdict, detail, checksum)
            self.counts[verdict.status.value] += 1
            if verdict.status is VerdictStatus.ERROR:
                self._check_errors(verdict)
            if self._store.is_full:
                self._store.flush()

    def _check_errors(self, verdict: Verdict) -> None:
        errors, limit = self._errors + self.counts["error"], self.work.max_error_rate * self.work.total
        if errors > limit:
            raise Failed(
                f"{errors} of {self.work.total} rows ended in an error, more than the allowed share of "
                f"{self.work.max_error_rate:.0%}; the last: {verdict.feedback}"
            )

    async def _in_turn(self) -> None:
        """Lets one reply after the other be worked on, with the next call of the first on its way before the second.

        Else replies that come together would go through every step together, their next calls would leave
        together, and the endpoint would be idle between such bursts.
        """
        async with self._turn:
            await asyncio.sleep(0)

    def _ask(self, model: Model, target: Target) -> Ask:
        """One call through the cache: path, body and repeat in, the reply out. A repeat sends nothing else."""
        head = self._salt + target.identity.encode()
        stage, price = model.stage, self.work.prices.get(model.model)

        async def ask(route: Route, body: dict[str, Any], repeat: int) -> Reply:
            with target.pick() as endpoint:
                data = encoded(endpoint.model, body)
                parts = (head, route.encode(), data)
                # JSON holds no zero byte, so no body is another one's repeat.
                key = hashlib.sha256(b"\0".join(parts if repeat == 1 else (*parts, b"%d" % repeat))).digest()
                known = self._store.reply(key)
                if known is not None:
                    self._store.add_usage(self.work.job, stage, known)
                    return known
                reply = await self._paid(endpoint, route, data, stage, price)
                self._store.add_reply(key, reply)
                self._store.add_usage(self.work.job, stage, reply)
                self.counts["calls"] += 1
                await self._in_turn()
                return reply

        return ask

    async def _paid(self, endpoint: Endpoint, route: Route, data: bytes, stage: str, price: Price | None) -> Reply:
        """One call, as far as the budget goes. Raises OverBudget."""
        meter, job = self.work.meter, self.work.job
        meter.take(job, is_free=price is None or not (price.input or price.output))
        self._under_way += 1
        self._is_quiet.clear()
        try:
            reply = await self._client.call(endpoint, route, data)
        except BaseException:
            meter.give_back(job)
            raise
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._is_quiet.set()
        if price is not None:
            sent, received = reply.prompt_tokens, reply.completion_tokens
            if sent is None or received is None:
                sent, received = len(data) // CHARACTERS, len(reply.content) // CHARACTERS
                self._store.add_guess(job, stage, sent, received)
            meter.pay(job, price.of(sent, received))
        return reply


async def run_all(
    works: AsyncGenerator[Work],
    store: Store,
    client: Client,
    report: Report,
    finish: Callable[[str, Outcome], None],
    stop: asyncio.Event,
    *,
    at_once: int,
) -> None:
    """Carries out jobs as they come, `at_once` at a time, until there are no more or `stop` is set.

    Raises EvalopsError where the store cannot be written to: what was committed before is kept. A bug that one job
    runs into fails that job, and is raised once the others have ended.
    """
    bugs: list[BaseException] = []
    running: dict[asyncio.Task[Outcome], Run] = {}
    stopped = asyncio.create_task(stop.wait())
    coming: asyncio.Task[Work | None] | None = None
    is_last = False
    try:
        while True:
            if coming is None and len(running) < at_once and not is_last and not stop.is_set():
                coming = asyncio.create_task(_next(works))
            if not running and coming is None:
                if bugs:
                    raise bugs[0]
                return
            await asyncio.wait(
                {*running, *((coming,) if coming else ()), *(() if stop.is_set() else (stopped,))},
                timeout=WINDOW if running else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if coming is not None and coming.done():
                work, coming = coming.result(), None
                is_last = work is None
                if work is not None and not stop.is_set():
                    run = Run(work, store, client)
                    running[asyncio.create_task(run.run())] = run
            store.flush()
            _report(running.values(), report)
            if stop.is_set():
                await _drop(coming)
                coming = None
                await _wind_down(running, store)
            for task in [task for task in running if task.done()]:
                run = running.pop(task)
                store.flush()
                report(run.work.job, _rows_done(run), dict(run.counts))
                finish(run.work.job, _outcome(task, bugs))
    finally:
        stopped.cancel()
        await _drop(coming)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await works.aclose()


def _outcome(task: asyncio.Task[Outcome], bugs: list[BaseException]) -> Outcome:
    """How a job's task ended. Raises EvalopsError where it could not write to the store."""
    if task.cancelled():
        return Outcome(status=Status.CANCELLED)
    error = task.exception()
    if error is None or isinstance(error, EvalopsError):
        return task.result()
    bugs.append(error)
    return Outcome(status=Status.FAILED, message=f"a bug of evalops stopped the job: {type(error).__name__}")


async def _next(works: AsyncGenerator[Work]) -> Work | None:
    return await anext(works, None)


async def _drop(task: asyncio.Task[Work | None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _wind_down(running: Mapping[asyncio.Task[Outcome], Run], store: Store) -> None:
    """Lets calls in flight end within the grace time, then drops them."""
    for run in running.values():
        run.stop()
    if not running:
        return
    _, late = await asyncio.wait(running, timeout=GRACE)
    for task in late:
        task.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    store.flush()


def _report(runs: Any, report: Report) -> None:
    for run in runs:
        report(run.work.job, _rows_done(run), dict(run.counts))


def _rows_done(run: Run) -> int:
    counts = run.counts
    return counts["kept"] + counts["scored"] + counts["invalid"] + counts["error"]
