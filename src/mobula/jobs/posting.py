"""Names that a task puts out in great number go to its supervisor while it runs, so that nobody has all of them in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import structlog

from mobula.metadata.jobs import Attempt, Made
from mobula.metadata.model import MetadataError

log = structlog.get_logger()

PAUSE_S = 0.5
"""until a supervisor is asked again that could not be"""


class Emitted(Protocol):
    """What a sandbox's tasks put out by themselves (`door.Door`)."""

    def take(self) -> list[Made]:
        """Since the last call."""

    async def full(self) -> None:
        """Until there is so much that it should be taken. A task waits that puts out still more."""


class Keeper(Protocol):
    """What keeps it (`wire.HttpSupervisor`)."""

    async def made(self, attempt: Attempt, after: int, made: Sequence[Made]) -> bool:
        """Names beyond that number of the attempt's; False: it does not count any more. May be repeated. Raises MetadataError."""


class Posting:
    """Of one attempt. Use `running` around its command, then `rest`."""

    def __init__(self, keeper: Keeper, attempt: Attempt, emitted: Emitted, kill: Callable[[], None]) -> None:
        self._keeper = keeper
        self._attempt = attempt
        self._emitted = emitted
        self._kill = kill
        self._batch: list[Made] = []
        """taken, and perhaps not kept yet"""
        self.kept = 0
        """names that the supervisor has"""
        self.counts = True
        """False: the attempt is nobody's any more, and its command was killed"""

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the command runs."""
        posting = asyncio.create_task(self._run())
        try:
            yield
        finally:
            posting.cancel()
            await asyncio.wait({posting})
        if not posting.cancelled():
            posting.result()

    async def rest(self) -> list[Made]:
        """What the result says itself, once all before it is kept."""
        await self._post()
        return self._emitted.take()

    async def _run(self) -> None:
        while self.counts:
            await self._emitted.full()
            self._batch += self._emitted.take()
            await self._post()
        self._kill()

    async def _post(self) -> None:
        """Until it is heard; cut off in its middle, it is said again."""
        while self._batch and self.counts:
            try:
                self.counts = await self._keeper.made(self._attempt, self.kept, self._batch)
            except MetadataError as error:
                log.info("names not told", job=str(self._attempt.job), names=len(self._batch), why=str(error))
                await asyncio.sleep(PAUSE_S)
            else:
                self.kept += len(self._batch)
                self._batch = []
