"""What becomes of a shard's jobs when they are done: their lists are written as objects, then nobody may ask for them live any more, then
their rows go. Of one term, beside its Lead; whatever was cut off in its middle is begun again by the next one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from mobula.core.clock import Clock
from mobula.jobs.runner import StoreError
from mobula.metadata.job_said import archived_error_line, first_input, line, status
from mobula.metadata.jobs import Archives, Deposed, Due, Job, JobError, State
from mobula.metadata.model import MetadataError, NotFound

log = structlog.get_logger()

AT_ONCE = 4
"""jobs that are archived at a time: a long one does not keep the others waiting"""
SWEEP_S = 10.0
DUE_MAX = 1000
PAGE = 1000
"""names or errors that are in memory of a list"""
PURGE_ROWS = 2000
PURGE_PAUSE_S = 0.05
"""between two batches: there is time, and clients have none"""
TEXT, ERRORS, JSON = "text/plain", "application/x-json-stream; type=job-error", "application/json"
LIVE = "live"

Pages = Callable[[], AsyncGenerator[bytes]]
"""A list from its beginning, none of its pages empty"""


class DirectoryGone(Exception):
    """The user has removed the job's directory."""


class Refused(Exception):
    """The storage API will not do it, whenever it is asked."""


class Writer(Protocol):
    """The storage API, as the job's user."""

    async def put(self, job: Job, name: str, content_type: str, pages: Pages) -> None:
        """An object in the job's directory. Raises DirectoryGone, Refused, StoreError, and what `pages` raises."""

    async def remove(self, job: Job, name: str) -> None:
        """A directory of it, which may be gone. Raises Refused, StoreError."""


class Term(Protocol):
    """Whose jobs they are (`lead.Lead`)."""

    on_done: Callable[[uuid.UUID], None]
    """told of each job that is done"""

    async def led(self) -> int:
        """The term's epoch, once it has begun."""


@dataclass(frozen=True, slots=True)
class Pace:
    """In seconds."""

    live_s: float = 3600.0
    """from the archive's end on clients may ask for the job live"""
    purge_s: float = 24 * 3600.0
    """and its rows are kept"""
    refused_s: float = 24 * 3600.0
    """after its end a job whose user may not write its lists (any more) goes without"""


class Archive:
    """mobula.workers.app.Duty, of one term."""

    wrong = ""

    def __init__(self, archives: Archives, writer: Writer, lead: Term, clock: Clock, pace: Pace | None = None) -> None:
        self._archives = archives
        self._writer = writer
        self._lead = lead
        self._clock = clock
        self._pace = pace or Pace()
        self._epoch = 0
        self._queue: deque[uuid.UUID] = deque()
        self._known: set[uuid.UUID] = set()
        """those in the queue, and those that are being archived"""
        self._more = asyncio.Event()
        lead.on_done = self.wake

    @property
    def says(self) -> str:
        return f"{len(self._known)} jobs to archive"

    def wake(self, job: uuid.UUID) -> None:
        """It is done just now: somebody waits for its lists."""
        if job not in self._known:
            self._known.add(job)
            self._queue.appendleft(job)
            self._more.set()

    async def work(self) -> None:
        """Until cancelled. Raises Deposed: another supervisor leads."""
        self._epoch = await self._lead.led()
        tasks = [asyncio.create_task(self._archive_all()) for _ in range(AT_ONCE)]
        tasks.append(asyncio.create_task(self._sweep_all()))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _archive_all(self) -> None:
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            job = self._queue.popleft()
            try:
                await self._archive(job)
            except Deposed:
                raise
            except (MetadataError, StoreError, Refused) as error:
                log.warning("job not archived", job=str(job), why=str(error))
            except Exception as error:
                # Ours to mend; the other jobs go on meanwhile.
                log.error("job not archived", job=str(job), exc_info=error)
            finally:
                self._known.discard(job)

    async def _sweep_all(self) -> None:
        while True:
            try:
                await self._sweep()
            except Deposed:
                raise
            except MetadataError as error:
                log.info("archives wait", why=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _sweep(self) -> None:
        """What nobody has told us of, what could not be done before, and what is due by now."""
        for job in await self._archives.due(Due.ARCHIVE, 0, DUE_MAX):
            if job not in self._known:
                self._known.add(job)
                self._queue.append(job)
                self._more.set()
        for job in await self._archives.due(Due.CLOSE, self._pace.live_s, DUE_MAX):
            try:
                await self._close(job)
            except StoreError as error:
                log.info("jobs stay live", why=str(error))
                break
        for job in await self._archives.due(Due.PURGE, self._pace.purge_s, DUE_MAX):
            await self._purge(job)

    # one job

    async def _archive(self, job: uuid.UUID) -> None:
        """Raises MetadataError, StoreError, Refused: later, from its beginning."""
        await self._archives.begin_archive(self._epoch, job)
        try:
            row = await self._archives.look(job)
        except NotFound:
            return
        if row.state != State.DONE or row.archived is not None:
            return
        try:
            at = await self._write(row)
        except DirectoryGone as error:
            log.info("nowhere to archive a job", job=str(job), why=str(error))
            at = self._now()
        except Refused as error:
            at = self._now()
            if row.done is None or (at - row.done).total_seconds() < self._pace.refused_s:
                raise
            log.error("job goes without its lists", job=str(job), why=str(error))
        await self._archives.end_archive(self._epoch, job, at)

    async def _write(self, row: Job) -> dt.datetime:
        """All of it, when that was; who finds job.json finds the rest. Raises what `Writer.put` raises."""
        lists = (
            ("in.txt", TEXT, lambda: self._names(row, 0)),
            ("out.txt", TEXT, lambda: self._names(row, len(row.sizes) - 1)),
            ("fail.txt", TEXT, lambda: self._errors(row, _failed)),
            ("err.txt", ERRORS, lambda: self._errors(row, _told)),
        )
        puts = (self._writer.put(row, name, kind, pages) for name, kind, pages in lists)
        for said in await asyncio.gather(*puts, return_exceptions=True):
            if isinstance(said, BaseException):
                raise said
        at = self._now()
        whole = line(status(replace(row, archived=at)))
        await self._writer.put(row, "job.json", JSON, lambda: _one_page(whole))
        return at

    async def _names(self, row: Job, stage: int) -> AsyncGenerator[bytes]:
        after, is_last = 0, False
        while not is_last:
            items = await self._archives.items(row.id, stage, after, PAGE)
            after, is_last = after + len(items), len(items) < PAGE
            if items:
                yield "".join(f"{item.name}\n" for item in items).encode()

    async def _errors(self, row: Job, say: Callable[[Job, JobError], bytes]) -> AsyncGenerator[bytes]:
        after, is_last = 0, False
        while not is_last:
            errors = await self._archives.errors_after(row.id, after, PAGE)
            after, is_last = after + len(errors), len(errors) < PAGE
            if page := b"".join(say(row, error) for error in errors):
                yield page

    async def _close(self, job: uuid.UUID) -> None:
        """Raises MetadataError, StoreError: later."""
        try:
            await self._writer.remove(await self._archives.look(job), LIVE)
        except Refused as error:
            # Somebody has put something there, or the user may do nothing any more: the directory stays.
            log.warning("live directory stays", job=str(job), why=str(error))
        await self._archives.close(self._epoch, job)

    async def _purge(self, job: uuid.UUID) -> None:
        while True:
            if await self._archives.purge(self._epoch, job, PURGE_ROWS):
                return
            await asyncio.sleep(PURGE_PAUSE_S)

    def _now(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._clock.now_s(), dt.UTC)


def _failed(_job: Job, error: JobError) -> bytes:
    first = first_input(error)
    return f"{first}\n".encode() if first else b""


def _told(job: Job, error: JobError) -> bytes:
    return line(archived_error_line(job, error))


async def _one_page(page: bytes) -> AsyncGenerator[bytes]:
    yield page
