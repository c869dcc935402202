"""The jobs of a server: the engine in a thread of its own, so that no job keeps a client waiting and no client a job.

A job that a kill or a stop interrupts keeps its finished rows and goes on at the next start.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import shutil
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from evalops import semantics
from evalops.datasets import dataset
from evalops.datasets.dataset import Row, Uses
from evalops.engine.model import Client, Endpoint, Policy
from evalops.engine.run import Outcome, Work, run_all
from evalops.engine.runtime import Runtime
from evalops.engine.store import JobRecord, Store
from evalops.errors import EvalopsError, Mark, has_errors
from evalops.fingerprint import Digests
from evalops.lock import Status
from evalops.metrics import summaries
from evalops.result import Graded
from evalops.secret import Secret
from evalops.server import answer, request
from evalops.server.files import Files
from evalops.server.problem import Problem
from evalops.settings import Settings
from evalops.spec import Evaluation

STORE = "store.sqlite"
OPEN = ("pending", "queued", "running")
AT_ONCE = 32  # jobs under way at one endpoint; their calls share its limiter
MOST_AT_ONCE = 256  # jobs under way altogether
READERS = 4  # datasets that are looked through at once, before their jobs run
WORKERS = 32  # calls in flight to one endpoint, unless a request says otherwise
AGAIN = 5.0  # seconds until what failed because of a full disk, for one, is tried again

T = TypeVar("T")

Say = Callable[[str], None]
Step = Callable[[str], Awaitable[None]]  # of a job, by its id


def now() -> str:
    """The time as the service writes it: RFC 3339 with microseconds, UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class UserError(Exception):
    """A job cannot be done as asked: what the service calls `user_error`."""


class Works:
    """The jobs of the server in `folder`. `root` is where embedded models named by path are looked for."""

    def __init__(self, folder: Path, root: Path, settings: Settings, files: Files, say: Say) -> None:
        self._folder = folder
        self._root = root
        self._settings = settings
        self._files = files
        self._say = say
        self._secrets: dict[str, Mapping[str, Secret]] = {}  # in memory only, for as long as the job needs them
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = threading.Event()
        self._started = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="evalops-engine", daemon=True)

    def start(self) -> None:
        """Begin, with the jobs that an earlier server left."""
        self._clean()
        self._thread.start()
        self._started.wait()

    def stop(self) -> None:
        """Let calls in flight end, start no further row, and wait for that."""
        self._stopping.set()
        self._call(lambda: self._stop.set())
        self._thread.join()

    def take(self, job: str, secrets: Mapping[str, Secret]) -> None:
        """Carry out a job that the store has, with the tokens of its external models."""
        self._secrets[job] = secrets
        self._call(lambda: self._begin(job))

    def keep_dataset(self, job: str, file: str, file_type: str) -> None:
        """Give a job its own name for the rows, so that it does not matter when the file is deleted."""
        place = self._folder / "jobs" / job
        place.mkdir(parents=True)
        try:
            (place / f"dataset.{file_type}").hardlink_to(self._files.path(file))
        except OSError:  # a file system without links
            shutil.copyfile(self._files.path(file), place / f"dataset.{file_type}")

    def drop_dataset(self, job: str) -> None:
        """Take the rows of a job that was not made after all."""
        shutil.rmtree(self._folder / "jobs" / job, ignore_errors=True)

    async def ask(self, what: Callable[[Client, Runtime], Coroutine[Any, Any, T]]) -> T:
        """Something that is asked of the engine itself, and not by a job. Raises a Problem while it does not run."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._stopping.is_set():
            raise Problem(503, "the engine does not run now: ask again in a moment")
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(what(self._client, self._runtime), loop))

    # --- the engine's thread ---

    def _call(self, what: Callable[[], object]) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what)

    def _run(self) -> None:
        while True:
            try:
                asyncio.run(self._carry_out())
            except EvalopsError as error:
                self._say(f"the engine stops: {error}; it starts again in {AGAIN:g} s")
            except Exception as error:
                self._say(f"a bug of evalops: {place(error)}; the engine starts again in {AGAIN:g} s")
            finally:
                self._started.set()
            if self._stopping.wait(AGAIN if not self._stopping.is_set() else 0):
                return

    async def _carry_out(self) -> None:
        limits = self._settings.limits
        policy = Policy(
            attempt_timeout=limits.attempt_timeout, row_timeout=limits.row_timeout, down_after=limits.down_after
        )
        self._ready: list[Work] = []
        self._changed = asyncio.Event()
        self._busy: dict[str, set[Endpoint]] = {}  # by job under way
        self._begun: set[str] = set()
        self._stop = asyncio.Event()
        self._readers = asyncio.Semaphore(READERS)
        self._store = Store(self._folder / STORE)
        try:
            async with Client(policy=policy) as self._client, Runtime(self._root, self._say) as self._runtime:
                self._loop = asyncio.get_running_loop()
                for record in reversed(self._store.jobs(status=OPEN)):
                    self._begin(record.id)
                self._started.set()
                if self._stopping.is_set():
                    self._stop.set()
                await run_all(
                    self._works(), self._store, self._client, _ignore, self._finish, self._stop, at_once=MOST_AT_ONCE
                )
                await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            self._store.close()

    def _begin(self, job: str) -> None:
        if job not in self._begun:  # it was found in the store the moment before it was handed over
            self._begun.add(job)
            self._task(job, self._prepare)

    def _task(self, job: str, step: Step) -> None:
        task = asyncio.create_task(self._see_to(job, step))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_to(self, job: str, step: Step) -> None:
        """Takes a step of a job, which ends the job where it fails; a disk that is full, for one, is waited for."""
        while not self._stop.is_set():
            try:
                return await self._take(job, step)
            except (EvalopsError, Problem, OSError) as error:
                self._say(f"{job} waits {AGAIN:g} s: {error}")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), AGAIN)

    async def _take(self, job: str, step: Step) -> None:
        try:
            await step(job)
        except Exception as error:
            if _passes(error):
                raise
            match error:
                case UserError() | Problem():
                    self._end(job, "user_error", str(error))
                case EvalopsError():
                    self._end(job, "error", _sentence(error))
                case _:
                    self._say(f"a bug of evalops: {place(error)}")
                    self._end(job, "error", "the server made a mistake; its log says where")

    async def _works(self) -> AsyncGenerator[Work]:
        while True:
            work = await self._next()
            for each in self._busy[work.job]:
                self._client.renew(each)  # what was down yesterday may be up
            self._store.start(work.job, "running", now())
            yield work

    async def _next(self) -> Work:
        """The first job that its endpoints have room for: one that hangs holds up none but its own jobs."""
        while True:
            load = Counter(each for endpoints in self._busy.values() for each in endpoints)
            for work in self._ready:
                endpoints = {each for target in work.targets for each in target.endpoints}
                if all(load[each] < AT_ONCE for each in endpoints):
                    self._ready.remove(work)
                    self._busy[work.job] = endpoints
                    return work
            self._changed.clear()
            await self._changed.wait()

    async def _prepare(self, job: str) -> None:
        """Looks through a job's rows and finds its models; then it waits for its turn."""
        async with self._readers:
            if self._stop.is_set():
                return
            record = self._store.job(job)
            if record is None or record.status not in OPEN:
                return
            asked = self._asked(record)
            evaluation, digests = await asyncio.to_thread(look_through, asked, self._dataset(job))
        self._store.start(job, "queued", now())
        self._ready.append(await self._work(job, asked, evaluation, digests))
        self._changed.set()

    def _asked(self, record: JobRecord) -> request.Asked:
        """The request of a job. Raises UserError where it cannot be carried out any more."""
        try:
            asked = request.read(json.loads(record.request or "null"), self._settings)
        except Problem as problem:  # the settings are not those of the time when it was taken
            raise UserError(problem.message) from None
        secrets = self._secrets.get(record.id, {})
        if set(asked.secrets) - set(secrets):
            raise UserError(
                "the server was started anew and keeps the tokens of external models in memory only: "
                "create the job again; answered rows are not asked again"
            )
        return asked._replace(secrets=dict(secrets))

    async def _work(self, job: str, asked: request.Asked, evaluation: Evaluation, digests: Digests) -> Work:
        use = _uses(evaluation)
        path = self._dataset(job)
        targets = []
        for model, place in zip(evaluation.models, asked.endpoints, strict=True):
            key = asked.secrets.get(str(model.route[0]))
            target = await self._runtime.target(place, model.num_workers or WORKERS, key)
            targets.append(target)
        return Work(
            job=job,
            evaluation=evaluation,
            generation=1,
            total=digests.rows or 0,
            submitted=digests.submitted,
            use=use,
            rows=lambda: _rows(path, use),
            targets=tuple(targets),
            max_error_rate=self._settings.limits.max_error_rate,
        )

    def _finish(self, job: str, outcome: Outcome) -> None:
        self._busy.pop(job, None)
        self._changed.set()
        if outcome.status is Status.COMPLETED:
            self._task(job, self._conclude)
        elif outcome.status is Status.FAILED:
            self._end(job, "error", outcome.message or "the job failed")

    async def _conclude(self, job: str) -> None:
        """Writes the result file and the results; a kill before their commit has them written again."""
        record = self._store.job(job)
        assert record is not None
        results = await asyncio.to_thread(self._results, record)
        self._store.conclude(job, "completed", json.dumps(results, ensure_ascii=False), now())
        self._say(f"{job} completed")
        self._forget(job)

    def _end(self, job: str, status: str, message: str) -> None:
        self._store.conclude(job, status, json.dumps({"error": message}, ensure_ascii=False), now())
        self._say(f"{job} {status}: {message}")
        self._forget(job)

    def _forget(self, job: str) -> None:
        self._secrets.pop(job, None)
        self.drop_dataset(job)

    def _results(self, record: JobRecord) -> dict[str, Any]:
        """The results of a job whose rows are all there; its result file is written on the way, row by row."""
        asked = request.read(json.loads(record.request or "null"), self._settings)
        path = self._dataset(record.id)
        evaluation = _completed(asked, path, columns_of(path))
        tally = answer.Tally()
        store = Store(self._folder / STORE)  # SQLite's connections stay in their thread
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as out:

                def graded() -> Iterator[Graded]:
                    for (_, row), stored in zip(_rows(path, _uses(evaluation)), store.rows(record.id), strict=True):
                        tally.add(stored)
                        out.write(json.dumps(answer.row(evaluation, row.source, stored), ensure_ascii=False) + "\n")
                        yield Graded(answer.decided(stored.verdict), None)

                summary = summaries.summarise(evaluation, graded())
            file = self._files.add(
                Path(name),
                id=f"file-{record.id.removeprefix('eval-')}-results",
                filename=f"{record.id}-results.jsonl",
                purpose="eval-output",
                file_type="jsonl",
            )
        finally:
            store.close()
            Path(name).unlink(missing_ok=True)
        return answer.results(evaluation, summary, tally, file.id)

    def _dataset(self, job: str) -> Path:
        found = sorted((self._folder / "jobs" / job).glob("dataset.*"))
        if not found:
            raise UserError("the dataset of this job is gone")
        return found[0]

    def _clean(self) -> None:
        """Removes what a kill left of jobs that are not to be done any more, or never were taken."""
        store = Store(self._folder / STORE)
        try:
            wanted = {record.id for record in store.jobs(status=OPEN)}
        finally:
            store.close()
        for place in (self._folder / "jobs").glob("*"):
            if place.name not in wanted:
                shutil.rmtree(place, ignore_errors=True)


def look_through(asked: request.Asked, path: Path) -> tuple[Evaluation, Digests]:
    """One look at every row: whether the columns are as the service wants them, and their digests.

    Raises UserError with what the service would say.
    """
    try:
        columns = columns_of(path)
        evaluation = _completed(asked, path, columns)
        problem = request.unsupported(evaluation, columns)
        if problem:
            raise UserError(problem)
        digests, problems = dataset.scan(lambda: path.open("rb"), _uses(evaluation), lambda _: Mark(path.name))
    except EvalopsError as error:
        raise UserError(_sentence(error)) from None
    except Problem as error:
        raise UserError(error.message) from None
    if has_errors(problems):
        raise UserError("; ".join(each.message for each in problems if each.is_error))
    return evaluation, digests


def _completed(asked: request.Asked, path: Path, columns: list[str]) -> Evaluation:
    evaluation = request.complete(asked, columns)
    return replace(evaluation, dataset=replace(evaluation.dataset, path=path.name))


def columns_of(path: Path) -> list[str]:
    """Every column that a row of the dataset has."""
    found: dict[str, None] = {}
    for row in dataset.read(lambda: path.open("rb"), path.name):
        if not row.source.keys() <= found.keys():
            found.update(dict.fromkeys(row.source))
    return list(found)


def _rows(path: Path, use: Uses) -> Iterator[tuple[str, Row]]:
    return dataset.keys(dataset.read(lambda: path.open("rb"), path.name), use)


def _uses(evaluation: Evaluation) -> Uses:
    return dataset.uses(evaluation, semantics.variables(evaluation))


def _sentence(error: EvalopsError) -> str:
    first = error.diagnostics[0]
    where = f"{first.mark.path} line {first.mark.line}: " if first.mark and first.mark.line else ""
    return f"{where}{first.message}" + (f" ({first.hint})" if first.hint else "")


def _passes(error: Exception) -> bool:
    """Whether the same may go well in a moment: there is no room on the disk, or there are too many open files."""
    match error:
        case EvalopsError():
            return error.diagnostics[0].code == "store/unusable"
        case Problem():
            return error.status >= 500
        case OSError():
            return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE)
    return False


def place(error: BaseException) -> str:
    """What went wrong and where, without the values that came with a request or a row."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"


def _ignore(job: str, done: int, counts: Mapping[str, int]) -> None:
    """Nobody watches the rows of a server's job."""
