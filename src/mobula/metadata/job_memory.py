"""Jobs in memory, for tests: held by the same suite as the real ones."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mobula.core.job import JobDocument
from mobula.metadata.jobs import (
    CANCELLED,
    INTERNAL,
    Attempt,
    Cleared,
    Deposed,
    Dispatch,
    Due,
    Feed,
    InvalidState,
    Item,
    Job,
    JobError,
    Lost,
    Made,
    Owner,
    Result,
    State,
    Task,
    Work,
    first_input_of,
)
from mobula.metadata.model import NotFound


@dataclass
class _Emitted:
    """What an attempt has put out in great number."""

    phase: int
    first_input: str
    made: dict[int, Made] = field(default_factory=dict)
    """by number"""
    state: str = "kept"
    """then `counts`, or `lost`"""


@dataclass
class _Row:
    job: Job
    stages: list[list[Item]]
    tasks: dict[int, Task] = field(default_factory=dict)
    """those that are not done"""
    last_task: int = 0
    feeds: dict[int, list[Feed]] = field(default_factory=dict)
    """of each phase"""
    emitted: dict[tuple[int, int], _Emitted] = field(default_factory=dict)
    """by task and attempt"""
    clears: dict[int, Work] = field(default_factory=dict)
    """by number of a task that is done"""
    input_at: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    errors: list[JobError] = field(default_factory=list)


class MemoryJobs:
    """`JobDoor`, `Jobs` and `Archives` of metadata/jobs.py, of one shard."""

    def __init__(self) -> None:
        self._rows: dict[uuid.UUID, _Row] = {}
        self._epoch = 0

    async def create(self, job: uuid.UUID, owner: Owner, document: JobDocument) -> None:
        phases = len(document.phases)
        row = Job(
            job, owner, document, State.QUEUED, cancelled=False, input_ended=False, sizes=(0,) * (phases + 1), cursors=(0,) * phases,
            open=(0,) * phases, created=dt.datetime.now(dt.UTC),
        )  # fmt: skip
        self._rows.setdefault(job, _Row(row, [[] for _ in range(phases + 1)]))

    async def add(self, job: uuid.UUID, names: Sequence[str]) -> None:
        row = self._row(job)
        _refuse(row.job, ended_too=True)
        self._append(row, 0, [(name, "", None) for name in names])
        row.input_at = dt.datetime.now(dt.UTC)

    async def end(self, job: uuid.UUID) -> None:
        row = self._row(job)
        _refuse(row.job, ended_too=False)
        row.job = replace(row.job, input_ended=True)

    async def cancel(self, job: uuid.UUID) -> None:
        row = self._row(job)
        _refuse(row.job, ended_too=False)
        row.job = replace(row.job, cancelled=True, input_ended=True)

    async def look(self, job: uuid.UUID) -> Job:
        return self._row(job).job

    async def newest(self, job: uuid.UUID, stage: int, limit: int) -> Sequence[str]:
        return [item.name for item in self._rows[job].stages[stage][-limit:]] if job in self._rows else []

    async def newest_errors(self, job: uuid.UUID, limit: int) -> Sequence[JobError]:
        return self._rows[job].errors[-limit:] if job in self._rows else []

    async def of_account(self, account: uuid.UUID, *, name: str | None, running: bool, limit: int) -> Sequence[Job]:
        found = [row.job for row in self._rows.values() if row.job.owner.account == account and row.job.live]
        found = [
            job for job in found if name in (None, job.document.name) and not (running and job.state == State.DONE)
        ]
        return found[::-1][:limit]

    def names(self, job: uuid.UUID, stage: int) -> list[Item]:
        """Of a stage, all: for tests."""
        return list(self._row(job).stages[stage])

    def errors(self, job: uuid.UUID) -> list[JobError]:
        """All: for tests."""
        return list(self._row(job).errors)

    async def lead(self) -> int:
        self._epoch += 1
        return self._epoch

    async def unfinished(self) -> Sequence[Job]:
        return [row.job for row in self._rows.values() if row.job.state != State.DONE]

    async def feeds(self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int) -> Sequence[Feed]:
        found = self._row(job).feeds.get(phase, [])
        return [feed for feed in found if feed.reducer == reducer and feed.number > after][:limit]

    async def begin(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        if row.job.state != State.QUEUED:
            return
        row.job = replace(row.job, state=State.RUNNING)
        for number, phase in enumerate(row.job.document.phases):
            for reducer in range(phase.reducers):
                self._open(row, Work(number, reducer=reducer))

    async def items(self, job: uuid.UUID, stage: int, after: int, limit: int) -> Sequence[Item]:
        return self._row(job).stages[stage][after : after + limit]

    async def dispatch(self, epoch: int, what: Dispatch) -> bool:
        row = self._checked(epoch, what.job)
        if row.job.state != State.RUNNING or row.job.cancelled or row.job.cursors[what.phase] != what.after:
            return False
        row.job = replace(row.job, cursors=_with(row.job.cursors, what.phase, what.upto))
        for work in what.works:
            self._open(row, work)
        feeds = [replace(feed, number=what.after + n) for n, feed in enumerate(what.feeds, 1)]
        row.feeds.setdefault(what.phase, []).extend(feeds)
        clears = {feed.reducer for feed in feeds if feed.clears}
        for number, task in row.tasks.items():
            if task.work.phase == what.phase and task.work.reducer in clears:
                row.tasks[number] = replace(task, work=replace(task.work, clears=True))
        self._fail(row, what.errors)
        return True

    async def open_tasks(self, job: uuid.UUID) -> Sequence[Task]:
        return list(self._row(job).tasks.values())

    async def hand_out(self, epoch: int, attempts: Sequence[Attempt], agent: str) -> Sequence[Attempt]:
        self._check(epoch)
        begun = []
        for attempt in attempts:
            row, task = self._task(attempt)
            if task is not None and task.agent in {"", agent}:
                row.tasks[attempt.task] = replace(task, agent=agent)
                begun.append(attempt)
        return begun

    async def give_up(self, epoch: int, lost: Sequence[Lost]) -> None:
        self._check(epoch)
        for one in lost:
            row, task = self._task(one.attempt)
            if task is None:
                continue
            self._settle(row, one.attempt, "lost")
            if one.last:
                self._close(row, task)
                self._fail(row, [_error_of(task, "InternalError", INTERNAL)])
                self._clear_after(row, task)
                continue
            again = replace(one.attempt, number=one.attempt.number + 1)
            row.tasks[again.task] = replace(task, attempt=again, agent="")
            row.job = replace(
                row.job, retries=row.job.retries + 1, tasks=row.job.tasks + 1, tasks_done=row.job.tasks_done + 1
            )

    async def commit(self, epoch: int, results: Sequence[Result]) -> Sequence[Attempt]:
        self._check(epoch)
        counted = []
        for result in results:
            row, task = self._task(result.attempt)
            if task is None or not task.agent or row.job.cancelled:
                continue
            counted.append(result.attempt)
            emitted = row.emitted.get((task.attempt.task, task.attempt.number))
            names = {made.name for made in (*result.made, *(emitted.made.values() if emitted else ()))}
            if result.error is not None or task.work.name not in names:
                self._clear_after(row, task)
            if emitted is None or result.error is not None:
                self._close(row, task)
            else:
                del row.tasks[task.attempt.task]
                emitted.made |= dict(enumerate(result.made, max(emitted.made, default=0) + 1))
            self._settle(row, task.attempt, "counts" if result.error is None else "lost")
            if result.error is not None:
                self._fail(row, [_whose(result.error, task)])
            elif emitted is None:
                first = first_input_of(task.work)
                self._append(row, task.work.phase + 1, [(made.name, first, made.reducer) for made in result.made])
        return counted

    async def keep_made(self, epoch: int, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        self._check(epoch)
        row, task = self._task(attempt)
        if task is None or not task.agent or row.job.cancelled:
            return False
        fresh = _Emitted(task.work.phase, first_input_of(task.work))
        kept = row.emitted.setdefault((attempt.task, attempt.number), fresh).made
        for number, one in enumerate(made, after + 1):
            kept.setdefault(number, one)
        return True

    async def move_made(self, epoch: int, job: uuid.UUID, limit: int) -> None:
        row = self._checked(epoch, job)
        over = sorted(key for key, emitted in row.emitted.items() if emitted.state != "kept")
        if not over:
            return
        emitted = row.emitted[over[0]]
        taken = sorted(emitted.made)[:limit]
        names = [emitted.made.pop(number) for number in taken]
        counts = emitted.state == "counts"
        if counts:
            self._append(row, emitted.phase + 1, [(made.name, emitted.first_input, made.reducer) for made in names])
        if len(taken) < limit:
            del row.emitted[over[0]]
            row.job = replace(row.job, parts=row.job.parts - 1)
            if counts:
                self._count_closed(row, emitted.phase)

    async def to_clear(self, job: uuid.UUID, limit: int) -> Sequence[Cleared]:
        row = self._row(job)
        found: list[Cleared] = []
        for number, work in sorted(row.clears.items()):
            if work.reducer is None:
                found.append(Cleared(number, work.name, work.version.object_id if work.version else None))
            else:
                found += [
                    Cleared(number, feed.name, feed.version.object_id if feed.version else None, feed.number)
                    for feed in row.feeds.get(work.phase, [])
                    if feed.reducer == work.reducer and feed.clears
                ]
        return found[:limit]

    async def cleared(self, epoch: int, job: uuid.UUID, cleared: Sequence[Cleared]) -> None:
        row = self._checked(epoch, job)
        done = {(one.task, one.feed) for one in cleared}
        for number, work in list(row.clears.items()):
            feeds = row.feeds.get(work.phase, []) if work.reducer is not None else []
            for place, feed in enumerate(feeds):
                if feed.reducer == work.reducer and (number, feed.number) in done:
                    feeds[place] = replace(feed, clears=False)
            left = any(feed.clears and feed.reducer == work.reducer for feed in feeds)
            if number in {task for task, _ in done} and not left:
                del row.clears[number]
                row.job = replace(row.job, clearing=row.job.clearing - 1)

    async def end_idle(self, epoch: int, idle_s: float) -> Sequence[uuid.UUID]:
        self._check(epoch)
        before, ended = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=idle_s), []
        for row in self._rows.values():
            if row.job.state != State.DONE and not row.job.input_ended and row.input_at < before:
                row.job = replace(row.job, input_ended=True)
                ended.append(row.job.id)
        return ended

    # `Archives`

    async def errors_after(self, job: uuid.UUID, after: int, limit: int) -> Sequence[JobError]:
        return self._rows[job].errors[after : after + limit] if job in self._rows else []

    async def due(self, what: Due, age_s: float, limit: int) -> Sequence[uuid.UUID]:
        before = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=age_s)
        found = []
        for job in (row.job for row in self._rows.values()):
            waits = job.done if what is Due.ARCHIVE and job.archived is None else None
            if what is not Due.ARCHIVE and job.live is (what is Due.CLOSE):
                waits = job.archived
            if waits is not None and waits <= before:
                found.append((waits, job.id))
        return [job for _, job in sorted(found)][:limit]

    async def begin_archive(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        if row.job.state == State.DONE and row.job.archived is None:
            row.job = replace(row.job, archive_started=dt.datetime.now(dt.UTC))

    async def end_archive(self, epoch: int, job: uuid.UUID, at: dt.datetime) -> None:
        row = self._checked(epoch, job)
        if row.job.state == State.DONE and row.job.archived is None:
            row.job = replace(row.job, archived=at)

    async def close(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        if row.job.archived is not None:
            row.job = replace(row.job, live=False)

    async def purge(self, epoch: int, job: uuid.UUID, limit: int) -> bool:
        self._check(epoch)
        if job in self._rows and not self._rows[job].job.live:
            row = self._rows[job]
            stages: list[list[Item] | list[JobError]] = [*row.stages, row.errors]
            full = next((rows for rows in stages if rows), None)
            if full is None:
                del self._rows[job]
            else:
                del full[:limit]
        return job not in self._rows

    async def abandon(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        if not row.job.cancelled:
            return
        for task in list(row.tasks.values()):
            self._close(row, task)
            self._fail(row, [_error_of(task, "JobCancelledError", CANCELLED)])

    async def finish(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        whole = row.job.input_ended and row.job.cursors == row.job.sizes[:-1] and row.job.state == State.RUNNING
        whole = whole and not row.job.parts and not row.job.clearing
        if not row.tasks and (row.job.cancelled or whole):
            row.job = replace(row.job, state=State.DONE, done=row.job.done or dt.datetime.now(dt.UTC))

    def _check(self, epoch: int) -> None:
        if epoch != self._epoch:
            raise Deposed(f"epoch {epoch} is over, {self._epoch} has come")

    def _row(self, job: uuid.UUID) -> _Row:
        if job not in self._rows:
            raise NotFound(str(job))
        return self._rows[job]

    def _checked(self, epoch: int, job: uuid.UUID) -> _Row:
        self._check(epoch)
        return self._row(job)

    def _task(self, attempt: Attempt) -> tuple[_Row, Task | None]:
        """The task, if that is the attempt that counts."""
        row = self._row(attempt.job)
        task = row.tasks.get(attempt.task)
        return row, task if task is not None and task.attempt == attempt else None

    def _open(self, row: _Row, work: Work) -> None:
        row.last_task += 1
        row.tasks[row.last_task] = Task(Attempt(row.job.id, row.last_task), work)
        row.job = replace(
            row.job, tasks=row.job.tasks + 1, open=_with(row.job.open, work.phase, row.job.open[work.phase] + 1)
        )

    def _close(self, row: _Row, task: Task) -> None:
        del row.tasks[task.attempt.task]
        self._count_closed(row, task.work.phase)

    def _settle(self, row: _Row, attempt: Attempt, state: str) -> None:
        """What an attempt put out in great number is moved, or goes."""
        emitted = row.emitted.get((attempt.task, attempt.number))
        if emitted is not None:
            emitted.state = state
            row.job = replace(row.job, parts=row.job.parts + 1)

    def _clear_after(self, row: _Row, task: Task) -> None:
        if task.work.clears:
            row.clears[task.attempt.task] = task.work
            row.job = replace(row.job, clearing=row.job.clearing + 1)

    def _count_closed(self, row: _Row, phase: int) -> None:
        row.job = replace(
            row.job, tasks_done=row.job.tasks_done + 1, open=_with(row.job.open, phase, row.job.open[phase] - 1)
        )

    def _append(self, row: _Row, stage: int, found: Sequence[tuple[str, str, int | None]]) -> None:
        items = row.stages[stage]
        items += [Item(len(items) + n, *one) for n, one in enumerate(found, 1)]
        row.job = replace(row.job, sizes=_with(row.job.sizes, stage, len(items)))

    def _fail(self, row: _Row, errors: Sequence[JobError]) -> None:
        row.errors += errors
        row.job = replace(row.job, errors=row.job.errors + len(errors))


def _whose(error: JobError, task: Task) -> JobError:
    """With the attempt's that ended so."""
    server = task.agent.partition("/")[0]
    return replace(error, task=task.attempt.task, attempt=task.attempt.number, server=server)


def _error_of(task: Task, code: str, message: str) -> JobError:
    work = task.work
    return _whose(JobError(work.phase, code, message, work.name, work.first_input), task)


def _with(numbers: tuple[int, ...], at: int, value: int) -> tuple[int, ...]:
    return (*numbers[:at], value, *numbers[at + 1 :])


def _refuse(job: Job, *, ended_too: bool) -> None:
    for found, so in (
        ("done", job.state == State.DONE),
        ("cancelled", job.cancelled),
        ("inputDone", ended_too and job.input_ended),
    ):
        if so:
            raise InvalidState(found)
