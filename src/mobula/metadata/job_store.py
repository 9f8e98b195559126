"""Jobs on PostgreSQL (docs/decisions/0011): what clients do goes to the shard of the job's id, a supervisor works on one shard."""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections.abc import Sequence
from typing import Any

import msgspec

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
    Version,
    Work,
)
from mobula.metadata.model import NotFound, Unavailable
from mobula.metadata.shard_map import vnode_of
from mobula.metadata.store import PostgresMetadata


def _from_hex(text: str) -> bytes:
    """PostgreSQL's bytes in JSON."""
    return bytes.fromhex(text.removeprefix("\\x"))


class _JobRow(msgspec.Struct):
    """A row of jobs.job, as its JSON says it."""

    id: uuid.UUID
    account: uuid.UUID
    login: str
    user_id: uuid.UUID | None
    document: str
    state: State
    cancelled: bool
    input_ended: bool
    sizes: tuple[int, ...]
    cursors: tuple[int, ...]
    open: tuple[int, ...]
    tasks: int
    tasks_done: int
    errors: int
    retries: int
    created_at: dt.datetime
    done_at: dt.datetime | None
    # A shard may not have migrated yet.
    parts: int = 0
    clearing: int = 0
    live: bool = True
    archive_started_at: dt.datetime | None = None
    archived_at: dt.datetime | None = None


class _VersionRow(msgspec.Struct, kw_only=True):
    """The columns of a row that say which bytes; all of them, or none."""

    account: uuid.UUID | None
    object_id: uuid.UUID | None
    size: int | None
    md5: str | None
    group_id: int | None
    copies: int | None

    @property
    def version(self) -> Version | None:
        if self.account is None or self.object_id is None or self.md5 is None:
            return None
        md5 = _from_hex(self.md5)
        return Version(self.account, self.object_id, self.size or 0, md5, self.group_id or 0, self.copies or 0)


class _TaskRow(_VersionRow):
    """A row of jobs.task, as its JSON says it."""

    job: uuid.UUID
    number: int
    phase: int
    name: str
    first_input: str
    reducer: int | None
    attempt: int
    agent: str
    clears: bool = False


class _FeedRow(_VersionRow):
    """A row of jobs.feed, as its JSON says it."""

    reducer: int
    number: int
    name: str
    clears: bool = False


# Made at import: msgspec is not safe when several threads are the first to decode a type.
_job, _task = msgspec.json.Decoder(_JobRow), msgspec.json.Decoder(_TaskRow)
_feed = msgspec.json.Decoder(_FeedRow)
_document, _errors = msgspec.json.Decoder(JobDocument), msgspec.json.Decoder(list[JobError])
EPOCH = dt.datetime.fromtimestamp(0, dt.UTC)


class PostgresJobDoor:
    """`JobDoor`."""

    def __init__(self, metadata: PostgresMetadata) -> None:
        self._metadata = metadata

    def shard_of(self, job: uuid.UUID) -> int:
        """Where its rows are. Raises Unavailable while the shard map is not known."""
        if self._metadata.map is None:
            raise Unavailable("the shard map has not been read from ZooKeeper yet")
        return self._metadata.map.shard_of(vnode_of(str(job)))

    async def create(self, job: uuid.UUID, owner: Owner, document: JobDocument) -> None:
        sql = "SELECT * FROM jobs.create_job($1, $2, $3, $4, $5, $6, $7)"
        said, reducers = msgspec.json.encode(document), [phase.reducers for phase in document.phases]
        await self._call(
            job, sql, job, owner.account, owner.login, owner.user, document.name, said, reducers, writes=True
        )

    async def add(self, job: uuid.UUID, names: Sequence[str]) -> None:
        _refuse(job, await self._call(job, "SELECT * FROM jobs.add_inputs($1, $2)", job, list(names), writes=True))

    async def end(self, job: uuid.UUID) -> None:
        _refuse(job, await self._call(job, "SELECT * FROM jobs.end_input($1, false)", job, writes=True))

    async def cancel(self, job: uuid.UUID) -> None:
        _refuse(job, await self._call(job, "SELECT * FROM jobs.end_input($1, true)", job, writes=True))

    async def look(self, job: uuid.UUID) -> Job:
        return _found(job, await self._call(job, "SELECT * FROM jobs.look($1)", job, writes=False))

    async def newest(self, job: uuid.UUID, stage: int, limit: int) -> Sequence[str]:
        row = await self._call(job, "SELECT * FROM jobs.newest_names($1, $2, $3)", job, stage, limit, writes=False)
        return list(row["names"])

    async def newest_errors(self, job: uuid.UUID, limit: int) -> Sequence[JobError]:
        row = await self._call(job, "SELECT * FROM jobs.newest_errors($1, $2)", job, limit, writes=False)
        return _errors.decode(row["errors"])

    async def of_account(self, account: uuid.UUID, *, name: str | None, running: bool, limit: int) -> Sequence[Job]:
        sql = "SELECT * FROM jobs.of_account($1, $2, $3, $4)"
        shards = self._metadata.map.shards if self._metadata.map is not None else ()
        answers = await asyncio.gather(
            *(self._metadata.call(shard, sql, account, name, running, limit, writes=False) for shard in shards)
        )
        found = [_read_job(row["job"]) for rows in answers for row in rows if row["job"] is not None]
        return sorted(found, key=lambda job: job.created or EPOCH, reverse=True)[:limit]

    async def _call(self, job: uuid.UUID, sql: str, *args: object, writes: bool) -> Any:
        return (await self._metadata.call(self.shard_of(job), sql, *args, writes=writes))[0]


class PostgresJobs:
    """`Jobs` and `Archives` of one shard."""

    def __init__(self, metadata: PostgresMetadata, shard: int) -> None:
        self._metadata = metadata
        self._shard = shard

    async def lead(self) -> int:
        (row,) = await self._metadata.call(self._shard, "SELECT * FROM jobs.lead()", writes=True)
        return int(row["epoch"])

    async def unfinished(self) -> Sequence[Job]:
        rows = await self._metadata.call(self._shard, "SELECT * FROM jobs.look(NULL)", writes=False)
        return [_read_job(row["job"]) for row in rows if row["job"] is not None]

    async def look(self, job: uuid.UUID) -> Job:
        return _found(
            job, (await self._metadata.call(self._shard, "SELECT * FROM jobs.look($1)", job, writes=False))[0]
        )

    async def feeds(self, job: uuid.UUID, phase: int, reducer: int, after: int, limit: int) -> Sequence[Feed]:
        sql = "SELECT * FROM jobs.feeds($1, $2, $3, $4, $5)"
        rows = await self._metadata.call(self._shard, sql, job, phase, reducer, after, limit, writes=False)
        found = [_feed.decode(row["feed"]) for row in rows if row["feed"] is not None]
        return [Feed(row.reducer, row.name, row.version, row.number, clears=row.clears) for row in found]

    async def begin(self, epoch: int, job: uuid.UUID) -> None:
        await self._move("SELECT * FROM jobs.begin_job($1, $2)", epoch, job)

    async def items(self, job: uuid.UUID, stage: int, after: int, limit: int) -> Sequence[Item]:
        sql = "SELECT * FROM jobs.items($1, $2, $3, $4)"
        rows = await self._metadata.call(self._shard, sql, job, stage, after, limit, writes=False)
        return [
            Item(row["number"], row["name"], row["first_input"], row["reducer"])
            for row in rows
            if row["number"] is not None
        ]

    async def dispatch(self, epoch: int, what: Dispatch) -> bool:
        works = _json([_written(work) for work in what.works])
        feeds = _json([
            {"reducer": feed.reducer, "name": feed.name, "clears": feed.clears, **_version(feed.version)} for feed in what.feeds
        ])  # fmt: skip
        sql = "SELECT * FROM jobs.dispatch($1, $2, $3, $4, $5, $6, $7, $8)"
        row = await self._move(
            sql, epoch, what.job, what.phase, what.after, what.upto, works, feeds, _json(what.errors)
        )
        return bool(row["done"])

    async def open_tasks(self, job: uuid.UUID) -> Sequence[Task]:
        rows = await self._metadata.call(self._shard, "SELECT * FROM jobs.open_tasks($1)", job, writes=False)
        return [_read_task(row["task"]) for row in rows if row["task"] is not None]

    async def hand_out(self, epoch: int, attempts: Sequence[Attempt], agent: str) -> Sequence[Attempt]:
        sql = "SELECT * FROM jobs.hand_out($1, $2, $3)"
        row = await self._move(sql, epoch, _json([_key(attempt) for attempt in attempts]), agent)
        return [attempts[place - 1] for place in row["begun"]]

    async def give_up(self, epoch: int, lost: Sequence[Lost]) -> None:
        told = _json([{**_key(one.attempt), "done": one.last} for one in lost])
        await self._move("SELECT * FROM jobs.give_up($1, $2, $3)", epoch, told, INTERNAL)

    async def commit(self, epoch: int, results: Sequence[Result]) -> Sequence[Attempt]:
        told = _json([
            {
                **_key(one.attempt), "made": one.made, "error": one.error, "ms": round(one.seconds * 1000), "memory_mb": one.memory_mb,
            }
            for one in results
        ])  # fmt: skip
        row = await self._move("SELECT * FROM jobs.commit_results($1, $2)", epoch, told)
        return [results[place - 1].attempt for place in row["counted"]]

    async def keep_made(self, epoch: int, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        sql = "SELECT * FROM jobs.keep_made($1, $2, $3, $4, $5, $6)"
        row = await self._move(sql, epoch, attempt.job, attempt.task, attempt.number, after, _json(made))
        return bool(row["kept"])

    async def move_made(self, epoch: int, job: uuid.UUID, limit: int) -> None:
        await self._move("SELECT * FROM jobs.move_made($1, $2, $3)", epoch, job, limit)

    async def to_clear(self, job: uuid.UUID, limit: int) -> Sequence[Cleared]:
        rows = await self._metadata.call(self._shard, "SELECT * FROM jobs.to_clear($1, $2)", job, limit, writes=False)
        return [
            Cleared(row["task"], row["name"], row["object_id"], row["feed"]) for row in rows if row["task"] is not None
        ]

    async def cleared(self, epoch: int, job: uuid.UUID, cleared: Sequence[Cleared]) -> None:
        told = _json([{"task": one.task, "feed": one.feed} for one in cleared])
        await self._move("SELECT * FROM jobs.cleared($1, $2, $3)", epoch, job, told)

    async def end_idle(self, epoch: int, idle_s: float) -> Sequence[uuid.UUID]:
        row = await self._move("SELECT * FROM jobs.end_idle($1, $2)", epoch, dt.timedelta(seconds=idle_s))
        return list(row["ended"])

    async def abandon(self, epoch: int, job: uuid.UUID) -> None:
        await self._move("SELECT * FROM jobs.abandon($1, $2, $3)", epoch, job, CANCELLED)

    async def finish(self, epoch: int, job: uuid.UUID) -> None:
        await self._move("SELECT * FROM jobs.finish($1, $2)", epoch, job)

    # `Archives`

    async def errors_after(self, job: uuid.UUID, after: int, limit: int) -> Sequence[JobError]:
        sql = "SELECT * FROM jobs.errors($1, $2, $3)"
        (row,) = await self._metadata.call(self._shard, sql, job, after, limit, writes=False)
        return _errors.decode(row["errors"])

    async def due(self, what: Due, age_s: float, limit: int) -> Sequence[uuid.UUID]:
        sql, age = "SELECT * FROM jobs.due($1, $2, $3)", dt.timedelta(seconds=age_s)
        (row,) = await self._metadata.call(self._shard, sql, what.value, age, limit, writes=False)
        return list(row["ids"])

    async def begin_archive(self, epoch: int, job: uuid.UUID) -> None:
        await self._move("SELECT * FROM jobs.begin_archive($1, $2)", epoch, job)

    async def end_archive(self, epoch: int, job: uuid.UUID, at: dt.datetime) -> None:
        await self._move("SELECT * FROM jobs.end_archive($1, $2, $3)", epoch, job, at)

    async def close(self, epoch: int, job: uuid.UUID) -> None:
        await self._move("SELECT * FROM jobs.close_job($1, $2)", epoch, job)

    async def purge(self, epoch: int, job: uuid.UUID, limit: int) -> bool:
        row = await self._move("SELECT * FROM jobs.purge($1, $2, $3)", epoch, job, limit)
        return bool(row["done"])

    async def _move(self, sql: str, epoch: int, *args: object) -> Any:
        (row,) = await self._metadata.call(self._shard, sql, epoch, *args, writes=True)
        if row["deposed"]:
            raise Deposed(f"epoch {epoch} of shard {self._shard}'s jobs is over")
        return row


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _key(attempt: Attempt) -> dict[str, object]:
    return {"job": attempt.job, "number": attempt.task, "attempt": attempt.number}


def _version(found: Version | None) -> dict[str, object]:
    if found is None:
        return {}
    return {
        "account": found.account, "object_id": found.object_id, "size": found.size_bytes, "md5": f"\\x{found.md5.hex()}",
        "group_id": found.group, "copies": found.copies,
    }  # fmt: skip


def _written(work: Work) -> dict[str, object]:
    told = {"name": work.name, "first_input": work.first_input, "reducer": work.reducer, "clears": work.clears}
    return told | _version(work.version)


def _read_job(text: str) -> Job:
    row = _job.decode(text)
    return Job(
        row.id, Owner(row.account, row.login, row.user_id), _document.decode(_from_hex(row.document)), row.state, row.cancelled,
        row.input_ended, row.sizes, row.cursors, row.open, row.tasks, row.tasks_done, row.errors, row.retries, row.parts, row.clearing,
        row.live, row.created_at, row.done_at, row.archive_started_at, row.archived_at,
    )  # fmt: skip


def _read_task(text: str) -> Task:
    row = _task.decode(text)
    work = Work(row.phase, row.name, row.first_input, row.version, row.reducer, row.clears)
    return Task(Attempt(row.job, row.number, row.attempt), work, row.agent)


def _found(job: uuid.UUID, row: Any) -> Job:
    if row["job"] is None:
        raise NotFound(str(job))
    return _read_job(row["job"])


def _refuse(job: uuid.UUID, row: Any) -> None:
    if row["refused"] == "not_found":
        raise NotFound(str(job))
    if row["refused"]:
        raise InvalidState(row["refused"])
