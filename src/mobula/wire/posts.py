"""Several leases of one process: for each name whose work is wanted it stands for the lease, and works while it has it.

Free leases spread over the processes: whoever has some leaves the next one to others for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import structlog

from mobula.wire.lease import Lease
from mobula.wire.zookeeper import Client

log = structlog.get_logger()

AFTER_ERROR_S = 5.0
MODESTY_S = 0.25
"""for each lease that we have"""
MODESTY_MAX_S = 3.0

type Work = Callable[[], Awaitable[None]]


class Posts:
    """Leases below `folder`, each of which says `holder` while it is ours."""

    def __init__(self, zookeeper: Client, folder: str, holder: bytes) -> None:
        self._zookeeper = zookeeper
        self._folder = folder
        self._holder = holder
        self._leases: dict[str, Lease] = {}
        """kept for ever: each listens to the session"""
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def want(self, works: Mapping[str, Work]) -> None:
        """Stand for these from now on, and for no others; those that were wanted before go on as they are."""
        for name in self._tasks.keys() - works.keys():
            self._tasks.pop(name).cancel()
        for name in works.keys() - self._tasks.keys():
            lease = self._leases.setdefault(name, Lease(self._zookeeper, f"{self._folder}/{name}", self._holder))
            self._tasks[name] = asyncio.create_task(self._hold(name, lease, works[name]))

    def holds(self, name: str) -> bool:
        """The lease is ours, as far as we know."""
        return name in self._tasks and self._leases[name].held

    async def stop(self) -> None:
        """End: each work first, then its lease."""
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        self._tasks.clear()

    async def _hold(self, name: str, lease: Lease, work: Work) -> None:
        while True:
            try:
                await lease.serve(work, wait_s=self._modesty_s)
            except Exception as error:
                # Ours to mend; the lease has been given up, so that another release's process may do better.
                log.error("work failed", post=name, exc_info=error)
            await asyncio.sleep(AFTER_ERROR_S)

    def _modesty_s(self) -> float:
        held = sum(1 for lease in self._leases.values() if lease.held)
        return min(held * MODESTY_S, MODESTY_MAX_S)
