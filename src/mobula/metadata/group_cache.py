"""Placement groups as last read. They are on one shard, and everybody needs them: nobody waits for it while they are known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from mobula.metadata.model import Group, Unavailable

log = structlog.get_logger()

FRESH_S = 5.0
"""what is older is read again, while the old is used"""
WAIT_AFTER_S = 60.0
"""if nobody has tried to read them for so long, the next one waits for it: much may have changed"""


class GroupCache:
    """`read` asks the shard. Old groups are safe: a commit names the epoch that it counted on, and a read of gone copies asks anew."""

    def __init__(
        self, read: Callable[[], Awaitable[Sequence[Group]]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._read = read
        self._clock = clock
        self._groups: Sequence[Group] = ()
        self._read_s = self._tried_s = float("-inf")
        """when the last reading that went well, and the last one, began"""
        self._lock = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None

    async def get(self, *, fresh: bool) -> Sequence[Group]:
        """`fresh`: as they are now or later. Raises Unavailable: so, or as none have been read ever, and the shard does not answer."""
        if fresh or not self._groups:
            return await self._now()
        now_s = self._clock()
        if now_s - self._tried_s > WAIT_AFTER_S:
            await self._refresh()
        elif now_s - self._read_s > FRESH_S and self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(self._refreshed)
        return self._groups

    async def _now(self) -> Sequence[Group]:
        asked_s = self._clock()
        async with self._lock:
            if self._read_s <= asked_s:  # else one that waited before us has read them since
                self._tried_s = began_s = self._clock()
                self._groups = await self._read()
                self._read_s = began_s
            return self._groups

    async def _refresh(self) -> None:
        try:
            await self._now()
        except Unavailable as error:
            log.info("placement groups not read again", why=str(error))

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("placement groups can't be read", why=str(error))

    def stop(self) -> None:
        """End what is read in the background."""
        if self._refreshing is not None:
            self._refreshing.cancel()
