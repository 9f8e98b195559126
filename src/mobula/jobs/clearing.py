"""Deletes what was handed on from phase to phase and is not needed any more, of one shard's jobs in turns. Of one term, run by its Lead."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from mobula.metadata.jobs import Cleared, Deposed, Job, Jobs
from mobula.metadata.model import MetadataError

log = structlog.get_logger()

BATCH = 64
"""objects that are deleted at a time; then it is another job's turn"""


class Deletes(Protocol):
    """Names of the region."""

    async def delete(self, job: Job, cleared: Sequence[Cleared]) -> None:
        """Those that are still these objects. Raises MetadataError: some may be left."""


class Clearing:
    """`wake` says of a job that it has something to delete; `on_cleared` is told when some of it is gone."""

    def __init__(self, jobs: Jobs, deletes: Deletes, on_cleared: Callable[[uuid.UUID], None]) -> None:
        self._jobs = jobs
        self._deletes = deletes
        self._on_cleared = on_cleared
        self._queue: dict[uuid.UUID, Job] = {}
        self._more = asyncio.Event()

    def wake(self, job: Job) -> None:
        self._queue.setdefault(job.id, job)
        self._more.set()

    async def work(self, epoch: int) -> None:
        """Until cancelled, or until another supervisor leads. What fails is not kept: whoever leads says it again."""
        while True:
            while not self._queue:
                self._more.clear()
                await self._more.wait()
            job = self._queue.pop(next(iter(self._queue)))
            try:
                await self._clear(epoch, job)
            except Deposed as error:
                log.info("nothing is cleared any more", why=str(error))
                return
            except MetadataError as error:
                log.info("clearing waits", job=str(job.id), why=str(error))
            except Exception as error:
                # Ours to mend; the other jobs go on meanwhile.
                log.error("job not cleared", job=str(job.id), exc_info=error)

    async def _clear(self, epoch: int, job: Job) -> None:
        found = await self._jobs.to_clear(job.id, BATCH)
        if not found:
            return
        await self._deletes.delete(job, found)
        await self._jobs.cleared(epoch, job.id, found)
        if len(found) == BATCH:
            self.wake(job)
        else:
            self._on_cleared(job.id)
