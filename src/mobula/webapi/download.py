"""A download: the bytes of one GET, from whichever copies have them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from mobula.core.errors import unavailable
from mobula.core.ranges import ByteRange
from mobula.metadata.model import Entry, StorageServer
from mobula.webapi.context import Context, Store
from mobula.wire.storage_client import CopyMissing, CopyName, StorageError, StorageUnavailable, address_of

log = structlog.get_logger()

PUT_ASIDE_BOUND_S = 2.0


def copy_name(entry: Entry) -> CopyName:
    """What the copies of an object are called."""
    return CopyName(str(entry.account), str(entry.object_id), entry.size_bytes, entry.md5)


@dataclass(slots=True)
class Download:
    """`part` of an object; `start` sends the head of the answer, once it is known that there is something to send."""

    context: Context
    store: Store
    entry: Entry
    part: ByteRange
    start: Callable[[], Awaitable[None]]

    async def send(self) -> None:
        """From any copy; when one fails, also in mid-body, from the next one from the byte where it stopped.

        Raises:
            ApiError: no copy can be read, before the first byte.
            StorageUnavailable: no copy can be read any more, after it, or what was sent was wrong (the connection is then cut: the
                client sees a short body).
        """
        why = "its placement group is not known"
        servers = await self._servers(fresh=False)
        for server in servers:
            failure = await self._send_from(server)
            if failure is None:
                return
            why = f"{server.id}: {failure}"
        # What is cached may be some seconds old, and the group have another server by now.
        for server in await self._servers(fresh=True):
            if server in servers:
                continue
            failure = await self._send_from(server)
            if failure is None:
                return
            why = f"{server.id}: {failure}"
        if self.context.response.started:
            raise StorageUnavailable(f"send {self.entry.object_id}: {why}")
        raise unavailable(f"no copy of the object can be read now: {why}", retry_after_s=5)

    async def _servers(self, *, fresh: bool) -> list[StorageServer]:
        """Who has copies: those that answer first, the own AZ's before others."""
        groups = await self.store.metadata.groups(fresh=fresh)
        group = next((g for g in groups if g.id == self.entry.group), None)
        servers = group.servers[: self.entry.copies] if group else ()
        return sorted(servers, key=lambda s: (s.id not in self.store.directory.rooms, s.az != self.store.az))

    async def _send_from(self, server: StorageServer) -> str | None:
        """What is left of the bytes, from one server; why that failed."""
        response, copy = self.context.response, copy_name(self.entry)
        left = ByteRange(self.part.first + response.sent_bytes, self.part.last)
        whole = left.size_bytes == copy.size_bytes
        try:
            async with await self.store.storage.open_get(
                address_of(server), copy.account, copy.object_id, copy.size_bytes, copy.md5,
                part=None if whole else left, request_id=self.context.request.request_id,
            ) as reader:  # fmt: skip
                if not response.started:
                    await self.start()
                await reader.relay_to(response)
            await response.finish()
        except StorageError as error:
            log.warning("copy can't be read", object_id=copy.object_id, server=server.id, why=str(error))
            if isinstance(error, CopyMissing):
                self.store.notes.missing(server.id, self.entry)
            elif response.sent_bytes and await self._was_put_aside(server, copy):
                raise
            return str(error)
        return None

    async def _was_put_aside(self, server: StorageServer, copy: CopyName) -> bool:
        """A copy that broke off is gone now: its server saw at the end that its bytes were wrong, so what was sent may be, too."""
        try:
            async with asyncio.timeout(PUT_ASIDE_BOUND_S):
                return not await self.store.storage.holds(address_of(server), copy)
        except (StorageError, TimeoutError):
            return False
