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
    Deposed,
    Dispatch,
    Feed,
    InvalidState,
    Item,
    Job,
    JobError,
    Lost,
    Owner,
    Result,
    State,
    Task,
    Work,
    first_input_of,
)
from mobula.metadata.model import NotFound


@dataclass
class _Row:
    job: Job
    stages: list[list[Item]]
    tasks: dict[int, Task] = field(default_factory=dict)
    """those that are not done"""
    last_task: int = 0
    feeds: dict[int, list[Feed]] = field(default_factory=dict)
    """of each phase"""
    errors: list[JobError] = field(default_factory=list)


class MemoryJobs:
    """`JobDoor` and `Jobs` of metadata/jobs.py, of one shard."""

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
        found = [row.job for row in self._rows.values() if row.job.owner.account == account]
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
            if one.last:
                self._close(row, task)
                work = task.work
                self._fail(row, [JobError(work.phase, "InternalError", INTERNAL, work.name, work.first_input)])
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
            self._close(row, task)
            first = first_input_of(task.work)
            if result.error is None:
                self._append(row, task.work.phase + 1, [(made.name, first, made.reducer) for made in result.made])
            else:
                self._fail(row, [result.error])
            counted.append(result.attempt)
        return counted

    async def abandon(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        if not row.job.cancelled:
            return
        for task in list(row.tasks.values()):
            self._close(row, task)
            self._fail(
                row, [JobError(task.work.phase, "JobCancelledError", CANCELLED, task.work.name, task.work.first_input)]
            )

    async def finish(self, epoch: int, job: uuid.UUID) -> None:
        row = self._checked(epoch, job)
        whole = row.job.input_ended and row.job.cursors == row.job.sizes[:-1] and row.job.state == State.RUNNING
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
        phase = task.work.phase
        del row.tasks[task.attempt.task]
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
