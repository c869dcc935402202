"""Carrying out jobs at Patronus, which knows none: all rows through its one call, each result durable as it lands.

Threads make the calls. Whoever iterates over the events reads the dataset and writes the store, which are of one
thread; so a plain loop over events is all that there is, and leaving it early loses nothing that has landed.
"""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from evalops import sources
from evalops.datasets.dataset import Row
from evalops.errors import EvalopsError
from evalops.fingerprint import canonical
from evalops.lock import Status
from evalops.meter import Meter, OverBudget
from evalops.providers import patronus_rows
from evalops.providers.base import Event, Finished, Job, Notice, Progress, Request
from evalops.providers.patronus_call import LOST, Caller, Fatal, Landed, Spent, Stopped, Work, log_id
from evalops.providers.patronus_inventory import MOST_SOUGHT, Service
from evalops.providers.patronus_pace import Pace
from evalops.result import Verdict, VerdictStatus

if TYPE_CHECKING:
    from evalops.engine.store import Store

REPORT_EVERY = 0.1  # seconds between two reports of a job
STEP = 0.2  # seconds after which a stop is heeded
PATIENCE, PATIENCE_NOW = 60.0, 0.5  # seconds that calls under way have to end
SENT = "lost_reply"  # why a row has no verdict that was sent, and that nothing is known of
DOUBTFUL = frozenset({SENT, LOST})  # why a row has none that may have been billed all the same
UNDONE = "not_carried_out"  # why a row is none yet: it was put down to be sent, and was not carried out


class _Item(NamedTuple):
    """A row to do: its key, the checksum of what is judged, and what the service keeps of it."""

    key: str
    row: Row
    checksum: int
    known: Sequence[Mapping[str, Any]]


@dataclass(slots=True)
class _Sent:
    """A row that is about to be sent, to be put down before it is; `is_down` says that it was.

    With `is_undone`, one that was put down and not carried out: that is taken back.
    """

    item: _Item
    is_undone: bool = False
    is_down: threading.Event = field(default_factory=threading.Event)


_Said = tuple[_Item, Landed] | _Sent | BaseException | str | None  # None: a thread has ended


@dataclass(slots=True, kw_only=True)
class Run:
    """One job under way. `is_resumed`: rows may have been sent before, and what the service keeps is looked for."""

    job: Job
    request: Request
    work: Work
    max_error_rate: float
    is_resumed: bool
    kept: Sequence[int]  # the checksums of the rows that are there, else 0
    errors_kept: int  # of them
    last: str | None = None  # what the last row said that ended in an error
    counts: Counter[str] = field(default_factory=Counter)
    repeated: list[str] = field(default_factory=list)
    digest: Any = field(default_factory=hashlib.sha256)

    @property
    def total(self) -> int:
        rows = self.request.identity.digests.rows
        assert rows is not None, "a file at another service was refused by `semantics.check`"
        return rows

    @property
    def done(self) -> int:
        return sum(self.counts[each] for each in ("kept", *VerdictStatus))

    @property
    def puts_down(self) -> bool:
        """Whether a row is put down before it is sent."""
        return not self.work.asked.can_look_up and self.work.asked.lost_reply == "error"


class Following:
    """The events of jobs that run here. A context: leaving it ends the threads."""

    def __init__(
        self,
        work: Sequence[tuple[Job, Request]],
        start: Callable[[Job, Request], Run],
        store: Store,
        service: Service,
        caller: Callable[[Pace, Callable[[str], None]], Caller],
        workers: int,
        meter: Meter,
    ) -> None:
        self._work, self._start, self._store, self._service = work, start, store, service
        self._workers, self._pace, self._meter = workers, Pace(workers), meter
        self._counted: set[int] = set()  # rows under way, by position, whose last call the meter has counted
        self._said: queue.SimpleQueue[_Said] = queue.SimpleQueue()
        self._callers = caller
        self._todo: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._feed: Iterator[_Item] = iter(())
        self._ahead = 0  # rows that were handed out and have not landed
        self._threads: list[threading.Thread] = []
        self._run: Run | None = None
        self._ending: BaseException | None = None
        self._is_over = self._is_now = False

    def __enter__(self) -> Following:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop(now=kind is not None or self._is_now)
        with suppress(*((EvalopsError,) if kind else ())):  # what cannot be written has been told then
            self._land()
            self._store.flush()

    def stop(self, *, now: bool = False) -> None:
        """Start no further row; with `now`, wait for no call either. Only sets flags: a signal's handler calls this."""
        self._is_over = True
        self._is_now = self._is_now or now
        self._pace.stop()

    def __iter__(self) -> Iterator[Event]:
        for job, request in self._work:
            if self._is_over:
                return
            yield from self._carry_out(job, request)

    def _land(self) -> None:
        """Waits a moment for the calls under way, and writes down everything that was answered: it is paid for."""
        self._let_go()
        until = time.monotonic() + (PATIENCE_NOW if self._is_now else PATIENCE)
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        while not self._said.empty():
            self._put_down(self._said.get())

    # --- in the thread that iterates ---

    def _carry_out(self, job: Job, request: Request) -> Iterator[Event]:
        try:
            run = self._run = self._start(job, request)
            self._meter.begin(job.id, calls=self._calls(job), cost=0.0)
        except EvalopsError as error:
            yield self._finish(job, Status.FAILED, str(error))
            return
        left = self._begin(run)
        reported = 0.0
        while left and not self._is_now:
            self._hand_out()
            try:
                said = self._said.get(timeout=STEP)  # a bound wait lets the main thread see signals
            except queue.Empty:
                if self._is_over:
                    self._let_go()
                continue
            left -= said is None
            if isinstance(said, str):
                yield Notice(said)
            else:
                self._put_down(said)
            if time.monotonic() - reported >= REPORT_EVERY:
                reported = time.monotonic()
                yield Progress(job=job.id, done=run.done, total=run.total, counts=dict(run.counts))
        if left:
            self._land()
        yield from self._end(run)

    def _calls(self, job: Job) -> int:
        """The calls that a job has taken before."""
        forgotten = sum(each.calls for each in self._store.usage(job.id).values())
        kept = sum(int(stored.detail.get("calls", 0)) for stored in self._store.rows(job.id))
        return forgotten + kept

    def _begin(self, run: Run) -> int:
        """Starts the threads of a job; how many there are."""
        self._ending = None
        self._pace = Pace(self._workers, self._pace.window)
        if self._is_over:  # it came in this moment
            self._pace.stop()
        caller, self._todo, self._ahead = self._callers(self._pace, self._said.put), queue.SimpleQueue(), 0
        self._feed = self._rows_of(run)
        count = max(1, min(self._workers, run.total))
        self._threads = [
            threading.Thread(target=self._go, args=(run, caller, self._todo), name="evalops-patronus", daemon=True)
            for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()
        return count

    def _hand_out(self) -> None:
        """Keeps rows ready for the threads, twice as many as there are; after the last one each of them is let go."""
        try:
            while self._ahead < 2 * len(self._threads) and not self._pace.is_stopped:
                item = next(self._feed, None)
                if item is None:
                    self._let_go()
                    return
                self._ahead += 1
                self._todo.put(item)
        except (Fatal, EvalopsError) as error:
            self._give_up(error)

    def _let_go(self) -> None:
        """Ends the threads that have nothing to do."""
        for _ in self._threads:
            self._todo.put(None)
        self._pace.wake()

    def _put_down(self, said: _Said) -> None:
        """Writes what landed; the first thing that ends the job stops the others."""
        run = self._run
        if isinstance(said, BaseException):
            self._give_up(said)
        elif isinstance(said, _Sent) and run is not None:
            verdict = Verdict(said.item.key, VerdictStatus.ERROR, None, SENT, "the answer was lost")
            if said.is_undone:  # with no checksum it is still to do
                verdict = Verdict(said.item.key, VerdictStatus.INVALID, None, UNDONE)
            checksum = 0 if said.is_undone else said.item.checksum
            self._store.add_row(run.job.id, said.item.row.position, verdict, {}, checksum)
            self._store.flush()
            said.is_down.set()
        elif isinstance(said, tuple) and run is not None:
            item, landed = said
            self._ahead -= 1
            verdict = patronus_rows.verdict(run.request.evaluation, item.key, landed.results)
            detail = patronus_rows.detail(landed.results, log_id=landed.log_id, calls=landed.calls)
            self._store.add_row(run.job.id, item.row.position, verdict, detail, item.checksum)
            self._store.flush()
            run.counts[verdict.status.value] += 1
            run.repeated += [landed.log_id] if landed.is_repeated or run.is_resumed else []
            if verdict.status is VerdictStatus.ERROR and (problem := self._too_many(run)):
                run.last = run.last or verdict.feedback
                self._give_up(Fatal(problem))

    def _too_many(self, run: Run) -> str | None:
        """What is said where more rows ended in an error than may, those of before counted."""
        errors = run.counts["error"] + run.errors_kept
        if errors <= run.max_error_rate * run.total:
            return None
        share = f"more than the allowed share of {run.max_error_rate:.0%}"
        return f"{errors} of {run.total} rows ended in an error, {share}"

    def _give_up(self, why: BaseException) -> None:
        """Lets the threads of the job come to an end: calls under way are waited for, and no other one is made."""
        self._ending = self._ending or why
        self._pace.stop()
        self._let_go()

    def _end(self, run: Run) -> Iterator[Event]:
        ending = self._ending
        yield Progress(job=run.job.id, done=run.done, total=run.total, counts=dict(run.counts))
        if isinstance(ending, Spent):
            self._is_over = True  # of all jobs: the quota is one
            rest = run.total - run.done
            message = f"the monthly quota of Patronus is spent: {run.done:,} of {run.total:,} rows are done and kept"
            yield self._finish(run.job, Status.CANCELLED, f"{message}, {rest:,} are to do")
        elif isinstance(ending, OverBudget):
            message = f"{ending}; {run.done:,} of {run.total:,} rows are done and kept"
            yield self._finish(run.job, Status.CANCELLED, message)
        elif isinstance(ending, Fatal | EvalopsError):
            last = f"; the last: {run.last}" if run.last else ""
            yield self._finish(run.job, Status.FAILED, f"{ending}{self._doubt(run)}{last}")
        elif ending is not None:
            self._finish(run.job, Status.FAILED, f"a bug of evalops stopped the job: {type(ending).__name__}")
            raise ending
        elif self._is_over:
            yield self._finish(run.job, Status.CANCELLED, None)
        elif run.digest.hexdigest() != run.request.identity.digests.submitted:
            message = "the dataset changed while the job ran: apply again to run the new rows"
            yield self._finish(run.job, Status.FAILED, message)
        elif (problem := self._too_many(run)) is not None:
            yield self._finish(run.job, Status.FAILED, problem + self._doubt(run))
        else:
            yield from self._doubles(run)
            yield self._finish(run.job, Status.COMPLETED, None)

    def _doubt(self, run: Run) -> str:
        """What trying again may cost once more; nothing where every result is kept, and so is found."""
        if run.work.asked.can_look_up:
            return ""
        lost = sum(each.verdict.reason in DOUBTFUL for each in self._store.rows(run.job.id))
        if not lost:
            return ""
        what = f"the answers of {lost:,} rows were lost" if lost > 1 else "the answer of one row was lost"
        return f"; {what}, and may be billed twice: `--retry-failed` asks once more"

    def _doubles(self, run: Run) -> Iterator[Notice]:
        """Calls that were made again and kept twice all the same: the search of the service was behind."""
        if not run.repeated or run.work.asked.capture == "none":
            return
        try:
            found = self._service.find(run.repeated)
        except EvalopsError:
            return
        twice = 0
        for results in found.values():
            counts = Counter((each.get("evaluator_id"), each.get("criteria")) for each in results)
            twice += sum(count > 1 for count in counts.values())
        if twice:
            yield Notice(f"Patronus keeps {twice} results of {run.job.id} twice: calls whose answer was lost")

    def _finish(self, job: Job, status: Status, message: str | None) -> Finished:
        finished_at = None if status.is_open else now()
        self._store.set_status(job.id, status.value, message, finished_at)
        self._run, self._threads = None, []
        return Finished(with_status(job, status, message, finished_at))

    # --- in the threads that make the calls ---

    def _go(self, run: Run, caller: Caller, todo: queue.SimpleQueue[_Item | None]) -> None:
        try:
            while (item := todo.get()) and not self._pace.is_stopped:
                before, undone = partial(self._mark, run, item), partial(self._take_back, run, item)
                self._said.put((item, caller.row(run.work, item.key, item.row, item.known, before, undone)))
        except Stopped:
            pass
        except BaseException as error:
            self._said.put(error)
        finally:
            self._said.put(None)

    def _mark(self, run: Run, item: _Item) -> bool:
        """Where a lost answer must not lead to another call, a row is put down before it is sent: a kill loses it.

        Whether it may be sent, which the budget decides too.
        """
        try:
            self._meter.take(run.job.id)
        except OverBudget as over:
            self._said.put(over)
            return False
        self._counted.add(item.row.position)
        if not run.puts_down:
            return True
        sent = _Sent(item)
        self._said.put(sent)
        while not sent.is_down.wait(STEP):
            if self._pace.is_stopped:
                return False
        return True

    def _take_back(self, run: Run, item: _Item) -> None:
        """A row that was put down, and was not carried out, is to do again whatever comes next."""
        if item.row.position in self._counted:
            self._counted.discard(item.row.position)
            self._meter.give_back(run.job.id)
        if run.puts_down:
            self._said.put(_Sent(item, is_undone=True))

    # --- the rows ---

    def _rows_of(self, run: Run) -> Iterator[_Item]:
        """The rows to do, those of a resumed job with what the service keeps of them."""
        rows = self._rows(run)
        if not run.is_resumed or run.work.asked.capture == "none":
            yield from rows
            return
        while part := list(islice(rows, MOST_SOUGHT)):
            ids = [log_id(run.work, each.row) for each in part]
            found = self._service.find(ids)
            yield from (each._replace(known=found[id_]) for each, id_ in zip(part, ids, strict=True))

    def _rows(self, run: Run) -> Iterator[_Item]:
        use = sources.uses(run.request.evaluation)
        done = run.kept
        for key, row in run.request.rows():
            text = canonical(use.used(row.source))
            run.digest.update(text + b"\n")
            if row.position >= run.total:
                raise Fatal("the dataset grew while the job ran: apply again to run the new rows")
            checksum = zlib.crc32(text) or 1
            if done[row.position] == checksum:
                run.counts["kept"] += 1
            else:
                yield _Item(key, row, checksum, ())


def with_status(job: Job, status: Status, message: str | None, finished_at: str | None) -> Job:
    """A job as it stands now."""
    return replace(job, status=status, provider_status=status.value, message=message, finished_at=finished_at)


def now() -> str:
    """The time, as it stands in a lockfile."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
