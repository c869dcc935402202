"""evalops from Python: the verbs of the command line as methods, their JSON as plain data.

    import evalops
    project = evalops.open()                     # the project here or above; or evalops.open("path")
    print(project.plan())                        # what would run and what it would cost
    project.apply(yes=True)
    project.results("tone")["summary"]["metrics"]["pass_percentage"]
    project.frame("tone")                        # the rows as a pandas DataFrame

Nothing is printed and nothing is kept between two calls: each reads the folder as it is then. What cannot go on raises
`evalops.EvalopsError`, whose `diagnostics` say what is wrong, where, and what to do. Calls wait until they are done; in
asynchronous code: `await asyncio.to_thread(project.apply, yes=True)`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evalops import project as folders
from evalops.errors import Diagnostic, EvalopsError, Exit

# Each method imports what it needs, so that one does not wait for what only another one uses.
if TYPE_CHECKING:
    from pandas import DataFrame

    from evalops.apply import Stop
    from evalops.applying import Asked, Outcome
    from evalops.lock import Entry, Lock
    from evalops.plan import Options
    from evalops.planning import Selection
    from evalops.providers.base import Event

Json = dict[str, Any]
Names = str | Sequence[str]  # one or several
Watcher = Callable[[str, "Event"], None]  # an address, "" for none; a Progress, Finished or Notice of `providers.base`


@dataclass(frozen=True, slots=True)
class Plan:
    """What apply would do. `str()` is what `evalops plan` shows, `value` its `--format json`.

    >>> plan = project.plan()
    >>> plan
    <Plan: 1 change, digest ...>
    >>> [(change["action"], change["address"], change["rows"]) for change in plan.changes]
    [('create', 'tone', 4)]
    """

    value: Json

    @property
    def changes(self) -> list[Json]:
        """One for each address, those in step included."""
        found: list[Json] = self.value["changes"]
        return found

    @property
    def digest(self) -> str:
        """What an approval names: the same on every machine, as long as nothing has moved on."""
        return str(self.value["digest"])

    @property
    def has_changes(self) -> bool:
        """Whether apply would have anything to do or to say."""
        return any(change["action"] != "noop" for change in self.changes)

    def __str__(self) -> str:
        from evalops.views import text

        return text.plain(text.plan(self.value))

    def __repr__(self) -> str:
        count = sum(change["action"] != "noop" for change in self.changes)
        return f"<Plan: {count} change{'s' * (count != 1)}, digest {self.digest[:8]}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What an apply did. A failed job or gate raises nothing: `exit_code` is that of `evalops apply`, 0 if all is well.

    `results` are the evaluations that it touched, as `status` has them; `locks` the lockfiles that it wrote.
    `failed_gates` are by address. `unclear` says by address why it is not known whether a job was made. `usage` is what
    its jobs took: `calls`, tokens, `cost`.
    """

    exit_code: Exit
    plan: Plan
    results: list[Json] = field(repr=False, default_factory=list)
    locks: tuple[str, ...] = ()
    failed_gates: Mapping[str, list[Json]] = field(default_factory=dict)
    unclear: Mapping[str, str] = field(default_factory=dict)
    usage: Json = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()


@dataclass(frozen=True, slots=True)
class Project:
    """A project folder; `evalops.open` finds it.

    SELECTORS are those of the command line everywhere: addresses, names or spec paths with `*` and `?`, or `tag:WORD`.
    """

    root: Path

    def validate(self, *paths: str) -> list[Diagnostic]:
        """What is wrong with the specs, or with those at `paths`: errors and warnings. Offline and without a key.

        >>> project.validate()
        []
        """
        from evalops import planning

        found = self._folder
        return list(planning.validated(found, [found.relative(path) for path in paths] or None).diagnostics)

    def plan(
        self,
        *selectors: str,
        exclude: Names = (),
        changed_since: str | None = None,
        refresh: bool = False,
        rerun: Names = (),
        retry_failed: bool = False,
        trusted_ref: str | None = None,
    ) -> Plan:
        """What apply would do. Reads files only, unless `refresh` asks the providers which jobs they have.

        With `trusted_ref`, a git revision, its evalops.yaml says what may be called and what it may cost.
        Raises EvalopsError with everything that is wrong with any file.

        >>> print(project.plan("tone"))
        + tone  create   4 rows, 0 calls  new
        <BLANKLINE>
        ...
        """
        from evalops import plancache

        project = self._trusting(trusted_ref)
        asked = [repr(each) for each in (selectors, _several(exclude), _several(rerun), retry_failed)]
        # What git says is not among the bytes that the cache goes by.
        key = None if refresh or changed_since or trusted_ref else plancache.key(project, asked)
        value = plancache.load(project, key) if key else None
        if value is None:
            from evalops import planning
            from evalops.plan import Options

            began = time.time()
            selection = planning.Selection(include=selectors, exclude=_several(exclude), changed_since=changed_since)
            options = Options(rerun=frozenset(_several(rerun)), retry_failed=retry_failed)
            value, files = _planned(project, selection, options, refresh=refresh)
            if key and files is not None:
                plancache.save(project, key, files, value, began=began)
        return Plan(value)

    def apply(
        self,
        *selectors: str | Plan,
        exclude: Names = (),
        changed_since: str | None = None,
        yes: bool = False,
        approved: str | None = None,
        rerun: Names = (),
        reason: str | None = None,
        retry_failed: bool = False,
        refresh: bool = False,
        jobs: int | None = None,
        timeout: float | None = None,
        trusted_ref: str | None = None,
        progress: Watcher | None = None,
        stop: Stop | None = None,
    ) -> Applied:
        """Carries out the plan: runs what is new, finishes what was interrupted, writes the lockfiles.

        A plan in place of selectors is carried out as it was looked at; EvalopsError if one of its addresses has moved
        on. Else what costs anything needs `yes`, or `approved`, the digest of a plan. `timeout` is how many seconds to
        wait for jobs, 0 for not at all; those still open go on, and the next apply collects them. `jobs` are the paid
        requests under way at a time, by default 16; `refresh` runs again what a service judges in another way now.
        `trusted_ref` is as in `plan`.

        `progress` is called in this thread with each event of an address; what it raises stops the apply, and so does
        Ctrl-C in the main thread. In any other, signals are left alone, and `stop`, an `apply.Stop`, ends it in order:
        the exit code then is INTERRUPTED. What is done is kept, and the same call goes on.

        >>> done = project.apply(project.plan())
        >>> done.exit_code, done.locks
        (<Exit.OK: 0>, ('tone.lock',))
        """
        from evalops import applying, planning
        from evalops.plan import Options

        if bool(rerun) != bool(reason):
            raise _misused("`rerun` and `reason` go together: the lockfile records why it ran again")
        if jobs is not None and jobs < 1:
            raise _misused("`jobs` is 1 at the least: with none at a time nothing is ever sent")
        plans = [each for each in selectors if isinstance(each, Plan)]
        if len(plans) > 1:
            raise _misused("one plan is carried out at a time")
        chosen = tuple(each for each in selectors if not isinstance(each, Plan))
        asked = applying.Asked(
            selection=planning.Selection(include=chosen, exclude=_several(exclude), changed_since=changed_since),
            options=Options(
                rerun=frozenset(_several(rerun)), reason=reason, retry_failed=retry_failed, refresh=refresh
            ),
            saved=plans[0].changes if plans else None,
            approved=approved,
            patience=timeout,
            at_once=jobs,
        )
        with _own(progress) as observe:
            return _apply(self._trusting(trusted_ref), asked, observe, stop, yes=yes)

    def status(self, *selectors: str) -> list[Json]:
        """Every evaluation of the lockfiles with its state and last result, by address.

        Selectors are addresses with `*` and `?` here. Raises EvalopsError for a lockfile that cannot be used.

        >>> [(each["address"], each["status"], each["headline"][0]) for each in project.status()]
        [('tone', 'completed', 'pass_percentage')]
        """
        locks, problems = self._folder.locks()
        if problems:
            raise EvalopsError(*problems)
        return states(locks, selectors)

    def results(self, address: str) -> Json:
        """The result at an address: `evalops show --format json`. Raises EvalopsError where no lockfile has it.

        >>> metrics = project.results("tone")["summary"]["metrics"]
        >>> metrics["pass_percentage"]["value"], metrics["accuracy"]["value"]
        (75.0, 0.75)
        """
        from evalops.views import json_

        return json_.entry(self._folder.entry(address))

    def rows(
        self, address: str, *, status: str | None = None, verdict: Any = None, failed: bool = False
    ) -> Iterator[Json]:
        """The rows with their verdicts, in the order of the dataset, as `evalops rows` prints them.

        `status` is scored, invalid or error; `verdict` a label, score or choice; `failed` leaves those that did not
        pass, or differ from gold. Raises EvalopsError where no lockfile has the address, and, as soon as a row is asked
        for, where the rows are not here.

        >>> [row["source"]["reply"] for row in project.rows("tone", failed=True)]
        ['Read the rules.']
        """
        return _rows(self._folder, self._folder.entry(address), status=status, verdict=verdict, failed=failed)

    def frame(self, address: str, *, status: str | None = None, verdict: Any = None, failed: bool = False) -> DataFrame:
        """The rows as a pandas DataFrame, one column for each value: `key`, `source.COLUMN`, `verdict.value` …

        >>> frame = project.frame("tone")
        >>> frame.groupby("source.channel")["verdict.value"].apply(lambda found: (found == "polite").mean()).to_dict()
        {'chat': 1.0, 'mail': 0.5}
        """
        try:
            import pandas
        except ModuleNotFoundError:
            missing = "a DataFrame needs pandas, which is not installed"
            hint = "pip install pandas; `rows` gives the same as plain data"
            raise EvalopsError(Diagnostic(code="frame/not-installed", message=missing, hint=hint)) from None
        return pandas.json_normalize(list(self.rows(address, status=status, verdict=verdict, failed=failed)))

    def rank(
        self,
        *selectors: str,
        exclude: Names = (),
        by: Names | None = None,
        item: str | None = None,
    ) -> Json:
        """Candidates in order, with intervals and tests: `evalops rank --format json`.

        `by` names the column that tells the candidates of one dataset apart, two of them for type compare, and `item`
        the one that says which rows are the same item. Raises EvalopsError where they cannot be compared.

        >>> ranking = project.rank("tone", by="channel")
        >>> [(each["rank"], each["name"], each["value"]) for each in ranking["candidates"]]
        [(1, 'chat', 100.0), (2, 'mail', 50.0)]
        """
        from evalops import contenders, ranking

        if by is not None:
            return contenders.of(self._folder, selectors, _several(by), item, _several(exclude)).to_json()
        if item:
            raise _misused("`item` goes with `by`")
        return ranking.of(self._folder, selectors, _several(exclude)).to_json()

    def _trusting(self, revision: str | None) -> folders.Project:
        """The folder as it is now, with the settings that a revision leads to."""
        if revision is None:
            return self._folder
        from evalops import trusted

        return trusted.project(self._folder, revision)

    @property
    def _folder(self) -> folders.Project:
        """The folder as it is now: settings are not kept from one call to the next."""
        return folders.Project(self.root)


def open(path: str | PathLike[str] | None = None) -> Project:  # noqa: A001 - it is called as `evalops.open`
    """The project in the folder `path`; without one, that of the current folder or the nearest above it.

    Raises EvalopsError where there is no evalops.yaml.

    >>> project = evalops.open()
    """
    return Project(folders.find(None if path is None else Path(path), explicit=path is not None).root)


def states(locks: Mapping[str, Lock], selectors: Sequence[str] = ()) -> list[Json]:
    """Every entry, or those at the addresses with `*` and `?`, in its machine form, with the headline of its result."""
    from evalops import jobs
    from evalops.spec import Type
    from evalops.views import json_

    found = []
    for lock in locks.values():
        for entry in lock.entries.values():
            if is_meant(entry.address, selectors):
                headline = jobs.headline(Type(entry.inputs["type"]), entry.summary)
                found.append({**json_.entry(entry), "headline": list(headline) if headline else None})
    return sorted(found, key=lambda each: each["address"])


def is_meant(address: str, selectors: Sequence[str]) -> bool:
    """Whether one of the selectors is the address, or a pattern of it; none mean all."""
    return not selectors or any(address == one or fnmatchcase(address, one) for one in selectors)


def _several(names: Names) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def _rows(project: folders.Project, entry: Entry, **chosen: Any) -> Iterator[Json]:
    from evalops import rows
    from evalops.views import json_

    with rows.opened(project, entry) as found:
        for each in rows.chosen(found, **chosen):
            yield json_.row(each.key, each.source, each.verdict, each.detail, entry.job or "")


def _planned(
    project: folders.Project, selection: Selection, options: Options, *, refresh: bool
) -> tuple[Json, tuple[str, ...] | None]:
    """A plan's machine form, and the files that it was made from."""
    from evalops import planning
    from evalops.providers import Providers
    from evalops.views import json_

    with closing(Providers(project)) as providers:
        planned = planning.make(project, selection, options=options, providers=providers if refresh else None)
    return json_.plan(planned.plan, planned.warnings, project.kept_text, project.trusted), planned.files


def _apply(project: folders.Project, asked: Asked, observe: Watcher, stop: Stop | None, *, yes: bool) -> Applied:
    from evalops import apply, applying, planning
    from evalops.views import json_

    with applying.begun(project) as (providers, journal):
        once = planning.recover(project, providers, journal)
        with applying.explained(project, once):
            planned = applying.plan(project, asked, providers, once)
            applied = apply.Applied()
            if planned.plan.has_changes:
                if not yes and applying.needs_consent(asked, planned.plan, once):
                    raise _unconfirmed(planned.plan.digest)
                applied = applying.carry_out(project, asked, planned, providers, observe, once, stop)
            shown = Plan(json_.plan(planned.plan, planned.warnings, project.kept_text, project.trusted))
            outcome = applying.outcome(project, planned.plan, applied, once)
            if outcome.exit_code is Exit.INTERRUPTED and not (stop and stop.is_asked):
                raise KeyboardInterrupt  # whose default the carrying out had put off until all was written down
            return _applied(shown, outcome)


@contextmanager
def _own(progress: Watcher | None) -> Iterator[Watcher]:
    """The caller's function; what it raises comes out as it is, also where it would pass for a trouble of the disk."""
    raised: list[OSError] = []

    def observe(address: str, event: Event) -> None:
        try:
            if progress is not None:
                progress(address, event)
        except OSError as error:
            raised.append(error)
            raise

    try:
        yield observe
    except EvalopsError as error:
        if raised:
            raise raised[0] from error
        raise


def _applied(plan: Plan, outcome: Outcome) -> Applied:
    from evalops import result

    gates: dict[str, list[Json]] = {}
    for address, gate in outcome.failed_gates:
        gates.setdefault(address, []).append(dict(gate))
    touched = outcome.applied.entries
    return Applied(
        exit_code=outcome.exit_code,
        plan=plan,
        results=[each for each in states(outcome.locks) if each["address"] in touched],
        locks=tuple(sorted(outcome.applied.locks)),
        failed_gates=gates,
        unclear=dict(outcome.applied.unclear),
        usage=result.total(outcome.applied.usage.values()),
        diagnostics=(*outcome.diagnostics, *outcome.failures),
    )


def _unconfirmed(digest: str) -> EvalopsError:
    return EvalopsError(
        Diagnostic(
            code="apply/not-confirmed",
            message="the plan costs something, and nobody has agreed to it",
            hint=f"apply(plan) with a plan that you have looked at, apply(yes=True), or apply(approved={digest!r})",
        )
    )


def _misused(message: str) -> EvalopsError:
    return EvalopsError(Diagnostic(code="usage/arguments", message=message), exit_code=Exit.USAGE)
