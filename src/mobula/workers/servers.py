"""Storage servers as workers see them: which of them answer now, and how fast they may be made to work."""

from __future__ import annotations

import asyncio
import time

from mobula.core.groups import StorageServer
from mobula.wire.http_client import Address
from mobula.wire.storage_client import StorageCapacity, StorageClient, StorageError, address_of

LOOK_BOUND_S = 2.0
LOOK_AGE_S = 3.0
OBJECT_BYTES = 64 * 1024
"""what an object costs beside its bytes: a small one is syncs, not bytes"""


class Liveness:
    """Asks storage servers for their capacity, each at most every few seconds."""

    def __init__(self, storage: StorageClient, *, age_s: float = LOOK_AGE_S) -> None:
        self._storage = storage
        self._age_s = age_s
        self._seen: dict[Address, tuple[float, StorageCapacity | None]] = {}

    async def look(self, server: StorageServer) -> StorageCapacity | None:
        """What the server says, None if it doesn't answer."""
        address = address_of(server)
        at, found = self._seen.get(address, (float("-inf"), None))
        if time.monotonic() - at > self._age_s:
            try:
                async with asyncio.timeout(LOOK_BOUND_S):
                    found = await self._storage.capacity(address)
            except (StorageError, TimeoutError):
                found = None
            self._seen[address] = (time.monotonic(), found)
        return found

    async def is_up(self, server: StorageServer) -> bool:
        """It answers and is well."""
        found = await self.look(server)
        return found is not None and found.healthy


class Pace:
    """Holds a rate of bytes per second; what was not used for a second is not saved up."""

    def __init__(self) -> None:
        self._due_s = 0.0

    async def take(self, size_bytes: int, bytes_per_s: float) -> None:
        """Wait until an object of this size may be copied."""
        now = time.monotonic()
        self._due_s = max(self._due_s, now - 1.0) + (size_bytes + OBJECT_BYTES) / bytes_per_s
        await asyncio.sleep(max(0.0, self._due_s - now))
