"""Work that one process of several does at a time: whoever has made an ephemeral ZooKeeper node does it, while its session lives.

The work is cancelled as soon as the connection to ZooKeeper is lost, or the node is gone or another's. A process that stood still may go
on for a moment before it notices, beside the one that has the lease by then: the work has to be such that this does no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from mobula.wire.zookeeper import Client, NodeExists, NoNode, ZooKeeperError

log = structlog.get_logger()

LOOK_PERIOD_S = 10.0
"""a watch tells of changes at once; this is for those that were missed"""
RETRY_S = 0.5


class Lease:
    """The node `path`, which says who has it."""

    def __init__(self, client: Client, path: str, holder: bytes) -> None:
        self._client = client
        self._path = path
        self._holder = holder
        self._nudge = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self.held = False
        """as far as we know"""
        client.on_state(self._on_state)

    def _on_state(self, up: bool) -> None:
        if not up:
            self._lose("the connection to ZooKeeper is lost")
        self._nudge.set()

    def _lose(self, why: str) -> None:
        if self.held:
            log.warning("lease lost", path=self._path, why=why)
        self.held = False
        if self._working is not None:
            self._working.cancel()

    async def serve(self, work: Callable[[], Awaitable[None]], *, wait_s: Callable[[], float]) -> None:
        """For ever: get the lease, work while it is ours, and again. `wait_s`: how long to leave a free one to others.

        `work` ends only by being cancelled, or by an error, which is raised here; the node is removed then.
        """
        try:
            while True:
                await self._get(wait_s)
                self._working = asyncio.create_task(_run(work))
                await self._keep(self._working)
        finally:
            await self._let_go()

    async def _get(self, wait_s: Callable[[], float]) -> None:
        while True:
            self._nudge.clear()
            try:
                if await self._is_ours():
                    return
                await asyncio.sleep(wait_s())
                await self._client.create(self._path, self._holder, ephemeral=True)
            except NodeExists:
                await self._pause(LOOK_PERIOD_S)
            except ZooKeeperError:
                await self._pause(RETRY_S)
            # Made, it is ours if the next look says so: the session it was made in may have ended.

    async def _is_ours(self) -> bool:
        """Look, and be nudged when the node changes. Raises NodeExists: it is another's."""
        kazoo = self._client.kazoo
        session = kazoo.client_id
        stat = await self._client.call(kazoo.exists_async, self._path, watch=self._changed)
        if stat is None:
            self._lose("the node is gone")
            return False
        if session is None or stat.ephemeralOwner != session[0]:
            self._lose("the node is another's")
            raise NodeExists(self._path)
        if not self._client.connected:
            raise ZooKeeperError("the session ended while it was asked")
        if not self.held:
            log.info("lease taken", path=self._path)
        self.held = True
        return True

    def _changed(self, _event: object) -> None:
        self._client.soon(self._nudge.set)

    async def _keep(self, working: asyncio.Task[None]) -> None:
        """Until the work has ended, because we stopped it or by an error, which is raised."""
        working.add_done_callback(lambda _: self._nudge.set())
        try:
            while self.held and not working.done():
                self._nudge.clear()
                try:
                    await self._is_ours()
                except ZooKeeperError as error:
                    self._lose(str(error))
                if self.held and not working.done():
                    await self._pause(LOOK_PERIOD_S)
        finally:
            working.cancel()
            await asyncio.wait({working})
            self._working = None
        if not working.cancelled():
            working.result()

    async def _pause(self, bound_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._nudge.wait(), bound_s)

    async def _let_go(self) -> None:
        """Others may have it at once, if it is ours."""
        with contextlib.suppress(ZooKeeperError):
            if self.held and await self._is_ours():
                self.held = False
                with contextlib.suppress(NoNode):
                    await self._client.delete(self._path)
        self.held = False


async def _run(work: Callable[[], Awaitable[None]]) -> None:
    await work()
