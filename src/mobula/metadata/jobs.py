"""Jobs as the metadata tier keeps them: values, and the interface (docs/decisions/0011). All rows of a job lie on one shard.

A job's names stand in stages: stage 0 are its inputs, stage p what phase p-1 put out, the last one its outputs. Items are numbered from 1
in each stage, without gaps, and never change.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from mobula.core.job import JobDocument
from mobula.metadata.model import Refusal


class State(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"


class InvalidState(Refusal):
    """The job takes no more input, or can't be cancelled any more; `found` says why: done, cancelled or inputDone."""

    def __init__(self, found: str) -> None:
        super().__init__(f"it is {found}")
        self.found = found


class Deposed(Refusal):
    """Another supervisor has the shard's jobs."""


@dataclass(frozen=True, slots=True)
class Owner:
    """As whom a job runs."""

    account: uuid.UUID
    login: str
    user: uuid.UUID | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job's row at one moment."""

    id: uuid.UUID
    owner: Owner
    document: JobDocument
    state: State
    cancelled: bool
    input_ended: bool
    sizes: tuple[int, ...]
    """of each stage: its items"""
    cursors: tuple[int, ...]
    """of each phase: items of its stage that were dispatched"""
    open: tuple[int, ...]
    """of each phase: tasks whose end was not committed"""
    tasks: int = 0
    """attempts, as the contract counts"""
    tasks_done: int = 0
    errors: int = 0
    retries: int = 0
    parts: int = 0
    """attempts of whose names, in great number, some are still to be moved or dropped"""
    clearing: int = 0
    """tasks that are done, of whose objects some are still to be deleted"""
    live: bool = True
    """clients may still ask for it"""
    created: dt.datetime | None = field(default=None, compare=False)
    done: dt.datetime | None = field(default=None, compare=False)
    archive_started: dt.datetime | None = field(default=None, compare=False)
    archived: dt.datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Item:
    """A name in a stage."""

    number: int
    name: str
    first_input: str = ""
    """the job's input that it came from, if there was no reducer between"""
    reducer: int | None = None
    """the one that its maker wants to have it"""


@dataclass(frozen=True, slots=True)
class Version:
    """A version of an object, which stays the same whatever becomes of its name."""

    account: uuid.UUID
    object_id: uuid.UUID
    size_bytes: int
    md5: bytes
    group: int
    copies: int


@dataclass(frozen=True, slots=True)
class JobError:
    """What the API says of something that failed."""

    phase: int
    code: str
    message: str
    name: str = ""
    first_input: str = ""
    stderr: str = ""
    core: str = ""
    task: int | None = None
    """the attempt's that ended so, and its host's, which a shard adds; None: of an item that became no task"""
    attempt: int = 0
    server: str = ""


@dataclass(frozen=True, slots=True)
class Work:
    """What a task does: of a map phase, one item; of a reduce phase, all that one reducer is fed."""

    phase: int
    name: str = ""
    first_input: str = ""
    version: Version | None = None
    """of the item; None for an empty object, and for a reducer"""
    reducer: int | None = None
    clears: bool = False
    """its object is the job's own, and is deleted once this is done"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a task: the only one whose result counts, as long as the task's row has its number."""

    job: uuid.UUID
    task: int
    number: int = 0


@dataclass(frozen=True, slots=True)
class Task:
    """A task that is not done."""

    attempt: Attempt
    work: Work
    agent: str = ""
    """host and generation of who has it; "" while nobody has"""


@dataclass(frozen=True, slots=True)
class Feed:
    """An item for a reducer."""

    reducer: int
    name: str
    version: Version | None
    number: int = 0
    """its item's, once it is stored"""
    hosts: tuple[str, ...] = ()
    """that have a copy, as those know who feed reducers; not stored"""
    clears: bool = False
    """as a Work's"""


@dataclass(frozen=True, slots=True)
class Dispatch:
    """The items of a phase's stage after `after`, up to and with `upto`, and what became of them."""

    job: uuid.UUID
    phase: int
    after: int
    upto: int
    works: Sequence[Work] = ()
    feeds: Sequence[Feed] = ()
    errors: Sequence[JobError] = ()


@dataclass(frozen=True, slots=True)
class Made:
    """What a task put out."""

    name: str
    reducer: int | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """How an attempt ended, at its agent."""

    attempt: Attempt
    made: Sequence[Made] = ()
    error: JobError | None = None
    seconds: float = 0.0
    """how long its command ran"""
    memory_mb: int = 0
    """that it was given; both are metered if it counts"""


@dataclass(frozen=True, slots=True)
class Lost:
    """An attempt that nobody will end; `last`: the task is not tried again."""

    attempt: Attempt
    last: bool = False


@dataclass(frozen=True, slots=True)
class Cleared:
    """An object that was handed on, and is not needed any more."""

    task: int
    name: str
    object_id: uuid.UUID | None
    """None: it is empty"""
    feed: int = 0
    """the number of what a reducer was fed; 0: the task's own"""


INTERNAL = "internal error"
CANCELLED = "job was cancelled"


class JobDoor(Protocol):
    """What clients do with a job. Each call raises NotFound, and what every call to a shard raises."""

    async def create(self, job: uuid.UUID, owner: Owner, document: JobDocument) -> None: ...

    async def add(self, job: uuid.UUID, names: Sequence[str]) -> None:
        """More inputs. Raises InvalidState after end, cancel or done."""

    async def end(self, job: uuid.UUID) -> None:
        """There will be no more; ending twice is harmless. Raises InvalidState after cancel or done."""

    async def cancel(self, job: uuid.UUID) -> None:
        """Raises InvalidState after cancel or done."""

    async def look(self, job: uuid.UUID) -> Job: ...

    async def newest(self, job: uuid.UUID, stage: int, limit: int) -> Sequence[str]:
        """The last names of a stage, in their order; of a job that is not there none."""

    async def newest_errors(self, job: uuid.UUID, limit: int) -> Sequence[JobError]:
        """Likewise."""

    async def of_account(self, account: uuid.UUID, *, name: str | None, running: bool, limit: int) -> Sequence[Job]:
        """Those of that name, those that are not done, the newest first."""


class Jobs(Protocol):
    """What a supervisor asks of a shard. Each call is one transaction and may be repeated.

    Those that move something name the `epoch` that `lead` has answered, and raise Deposed when a later one has come. All raise what every
    call to a shard raises.
    """

    async def lead(self) -> int:
        """From now on this supervisor counts, and no earlier one."""

    async def unfinished(self) -> Sequence[Job]:
        """Jobs that are not done, the oldest first."""

    async def look(self, job: uuid.UUID) -> Job:
        """Raises NotFound."""

    async def feeds(self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int) -> Sequence[Feed]:
        """What a reducer has been given so far, beyond that number."""

    async def begin(self, epoch: int, job: uuid.UUID) -> None:
        """A queued job runs: its reducers are tasks from now on."""

    async def items(self, job: uuid.UUID, stage: int, after: int, limit: int) -> Sequence[Item]: ...

    async def dispatch(self, epoch: int, what: Dispatch) -> bool:
        """Tasks, feeds and errors in place of items; False: these were dispatched before."""

    async def open_tasks(self, job: uuid.UUID) -> Sequence[Task]:
        """Those that are not committed. A job has as many as its supervisor dispatches, not as many as it has inputs."""

    async def hand_out(self, epoch: int, attempts: Sequence[Attempt], agent: str) -> Sequence[Attempt]:
        """Write down who has them; answers those that may be begun."""

    async def give_up(self, epoch: int, lost: Sequence[Lost]) -> None:
        """Count each in `retries`, or make it an error when it was the last try; what was decided meanwhile stays as it is."""

    async def commit(self, epoch: int, results: Sequence[Result]) -> Sequence[Attempt]:
        """Decide those that still count, and answer them: what they made are items of the next stage."""

    async def keep_made(self, epoch: int, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        """What an attempt puts out in great number, beyond that number of its own; False: it does not count any more.

        It is nothing until the attempt is committed; then `Job.parts` says that it is to be moved.
        """

    async def move_made(self, epoch: int, job: uuid.UUID, limit: int) -> None:
        """Some of what was kept: items of the next stage, or gone with an attempt that was lost. A task is open until all is moved."""

    async def to_clear(self, job: uuid.UUID, limit: int) -> Sequence[Cleared]:
        """What is to be deleted now."""

    async def cleared(self, epoch: int, job: uuid.UUID, cleared: Sequence[Cleared]) -> None:
        """That is deleted."""

    async def end_idle(self, epoch: int, idle_s: float) -> Sequence[uuid.UUID]:
        """End the input of jobs to which nobody has added any for so long; answers them."""

    async def abandon(self, epoch: int, job: uuid.UUID) -> None:
        """Of a cancelled job: whatever is open ends with an error each."""

    async def finish(self, epoch: int, job: uuid.UUID) -> None:
        """The job is done, if there is nothing left to do."""


class Due(enum.StrEnum):
    """What a job waits for, once it is done."""

    ARCHIVE = "archive"
    """since it was done"""
    CLOSE = "close"
    """clients ask for it no more: since it was archived"""
    PURGE = "purge"
    """likewise"""


class Archives(Protocol):
    """What becomes of jobs that are done, on one shard. As `Jobs`: each call is one transaction, may be repeated, and those that change
    something name the epoch."""

    async def look(self, job: uuid.UUID) -> Job:
        """Raises NotFound."""

    async def items(self, job: uuid.UUID, stage: int, after: int, limit: int) -> Sequence[Item]: ...

    async def errors_after(self, job: uuid.UUID, after: int, limit: int) -> Sequence[JobError]:
        """In their order, without the first `after`."""

    async def due(self, what: Due, age_s: float, limit: int) -> Sequence[uuid.UUID]:
        """Jobs that have waited for it so long, the longest first."""

    async def begin_archive(self, epoch: int, job: uuid.UUID) -> None: ...

    async def end_archive(self, epoch: int, job: uuid.UUID, at: dt.datetime) -> None: ...

    async def close(self, epoch: int, job: uuid.UUID) -> None:
        """Of a job that is archived: it is not live any more."""

    async def purge(self, epoch: int, job: uuid.UUID, limit: int) -> bool:
        """Delete so many rows of a job that is closed; whether all are gone."""


def task_id(attempt: Attempt) -> uuid.UUID:
    """What users know an attempt by: in names of what it put out, and in the list of errors."""
    return uuid.uuid5(attempt.job, f"{attempt.task}/{attempt.number}")


def first_input_of(work: Work) -> str:
    """What the outputs of a task say that they came from."""
    return work.first_input or ("" if work.phase or work.reducer is not None else work.name)
