"""Where objects go: groups whose servers are registered, answer, and have room."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import structlog

from mobula.core.errors import ApiError, unavailable
from mobula.metadata.model import Group
from mobula.wire.http_client import Address
from mobula.wire.storage_client import StorageCapacity, StorageClient, StorageError

log = structlog.get_logger()

POLL_S = 2.0
FILL_MAX = 0.90
SERVICE = "storage"


@dataclass(frozen=True, slots=True)
class Room:
    """What is known of a storage server now."""

    capacity: StorageCapacity

    @property
    def free(self) -> float:
        """Share of its room that is free."""
        return self.capacity.available_bytes / self.capacity.size_bytes

    def takes(self, size_bytes: int) -> bool:
        """It is well, and below its fill threshold after so many more bytes."""
        c = self.capacity
        return (
            c.healthy
            and c.size_bytes > 0
            and (c.size_bytes - c.available_bytes + size_bytes) <= c.size_bytes * FILL_MAX
        )


def choose(
    groups: Sequence[Group], rooms: Mapping[str, Room], copies: int, size_bytes: int, pick: random.Random
) -> list[Group]:
    """Groups that can take `copies` copies, in the order in which to try them: of two random ones the one with more room first.

    The best of two evens out what is full and what is new without sending everybody to the emptiest server at once (M. Mitzenmacher,
    "The Power of Two Choices in Randomized Load Balancing", 2001).

    Raises:
        ApiError: NotEnoughSpace (more copies than servers, or all full), ServiceUnavailable (servers are away).
    """
    long_enough = [g for g in groups if len(g.servers) >= copies]
    if groups and not long_enough:
        raise ApiError("NotEnoughSpace", f"{copies} copies need {copies} storage servers; there are fewer")
    alive = [g for g in long_enough if all(s.id in rooms and rooms[s.id].capacity.healthy for s in g.servers[:copies])]
    if not alive:
        raise unavailable("no group of storage servers is up", retry_after_s=30)
    roomy = [g for g in alive if all(rooms[s.id].takes(size_bytes) for s in g.servers[:copies])]
    if not roomy:
        raise ApiError.of("NotEnoughSpace", megabytes=max(1, size_bytes >> 20))
    order = pick.sample(roomy, len(roomy))
    if len(order) > 1 and _free(order[1], rooms, copies) > _free(order[0], rooms, copies):
        order[0], order[1] = order[1], order[0]
    return order


def _free(group: Group, rooms: Mapping[str, Room], copies: int) -> float:
    """The share of free room on the fullest of the group's servers."""
    return min(rooms[server.id].free for server in group.servers[:copies])


class StorageDirectory:
    """Follows registrations (`/names/storage`) and asks each registered server for its capacity."""

    def __init__(self, storage: StorageClient) -> None:
        self._storage = storage
        self._addresses: dict[str, Address] = {}
        self._rooms: dict[str, Room] = {}
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._nudge = asyncio.Event()

    @property
    def rooms(self) -> Mapping[str, Room]:
        """What is known of each registered server that answers."""
        return self._rooms

    def start(self) -> None:
        """Begin to ask."""
        self._task = asyncio.get_running_loop().create_task(self._poll())

    def stop(self) -> None:
        """End."""
        for task in (*self._looks, *([self._task] if self._task else [])):
            task.cancel()

    def on_change(self, addresses: Mapping[str, Address]) -> None:
        """These servers are registered now. Who has left is not chosen any more, at once."""
        loop = asyncio.get_running_loop()
        for server in set(self._addresses) - set(addresses):
            task = loop.create_task(self._last_look(self._addresses[server]))
            self._looks.add(task)
            task.add_done_callback(self._looks.discard)
        self._addresses = dict(addresses)
        for gone in set(self._rooms) - set(addresses):
            del self._rooms[gone]
        self._nudge.set()

    async def _poll(self) -> None:
        while True:
            self._nudge.clear()
            await asyncio.gather(*(self._ask(server, address) for server, address in self._addresses.items()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._nudge.wait(), POLL_S)

    async def _last_look(self, address: Address) -> None:
        """One that has left and still answers is finishing its work; one that doesn't is gone, and nobody should wait for it."""
        try:
            async with asyncio.timeout(POLL_S):
                await self._storage.capacity(address)
        except (StorageError, TimeoutError) as error:
            log.warning("storage server is gone", address=str(address), why=str(error))
            self._storage.drop(address)

    async def _ask(self, server: str, address: Address) -> None:
        try:
            async with asyncio.timeout(POLL_S):
                capacity = await self._storage.capacity(address)
        except (StorageError, TimeoutError) as error:
            if self._rooms.pop(server, None):
                log.warning("storage server does not answer", server=server, why=str(error))
            return
        if server in self._addresses:
            self._rooms[server] = Room(capacity)

    def suspect(self, server: str) -> None:
        """It has just failed: not chosen again before it has answered."""
        self._rooms.pop(server, None)
