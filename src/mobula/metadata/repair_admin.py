"""The verbs of `mobula.metadata.admin` about lost pools: declare one, see how far its repair is, name what is gone, mend single copies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from mobula.core.capability import parse_key
from mobula.core.clock import SystemClock
from mobula.metadata.model import StorageServer
from mobula.metadata.repairing import Mend, Progress, RepairRefused, Repairs
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_client import HttpClient, Timeouts
from mobula.wire.storage_client import CopyName, StorageClient, StorageError, address_of

SAMPLE = 20
"""objects of each shard that are looked for on a server that answers"""
LOOK_BOUND_S = 3.0
LOST_MAX = 5000

Answer = dict[str, Any]


class RepairDeclare(msgspec.Struct, frozen=True):
    server: str
    bytes_per_s: int


class RepairStatus(msgspec.Struct, frozen=True):
    server: str


class RepairLost(msgspec.Struct, frozen=True):
    """Names after a key, of one shard."""

    server: str
    shard: int
    after: tuple[int, str, str] = (-1, "", "")


class MendCopies(msgspec.Struct, frozen=True):
    """Copies as [server, "<account>/<object id>.<size>.<md5>", group]."""

    copies: tuple[tuple[str, str, int], ...]


class Verbs:
    """What they work with."""

    def __init__(self, metadata: PostgresMetadata, storage: StorageClient) -> None:
        self._metadata = metadata
        self._storage = storage
        self._repairs = Repairs(metadata)

    async def declare(self, wanted: RepairDeclare) -> Answer:
        """Declare a pool lost if it is, or go on with its open repair. Raises RepairRefused."""
        await self._metadata.wait_mapped()
        if wanted.bytes_per_s < 1:
            raise RepairRefused(
                f"repair {wanted.server!r} at {wanted.bytes_per_s} bytes per second: it takes at least 1"
            )
        last = await self._repairs.progress(wanted.server)
        if last is None or last.done:
            refusal = await self._refusal(wanted.server)
            if refusal and last is None:
                raise RepairRefused(refusal)
            if refusal:
                return {"declared": False, "why": f"nothing more is lost: {refusal}", **_said(last)}
        servers = await self._servers()
        alive = [server for server in servers.values() if server.id != wanted.server and await self._answers(server)]
        await self._repairs.declare(wanted.server, alive, wanted.bytes_per_s)
        now = await self._repairs.progress(wanted.server)
        return {"declared": last is None or last.done, "why": "", **_said(now)}

    async def _refusal(self, name: str) -> str:
        """Why this pool is not lost; empty if it may be."""
        servers = await self._servers()
        if name not in servers:
            known = ", ".join(sorted(servers)) or "none"
            return f"repair {name!r}: no placement group has a place on it; those with places are {known}"
        server = servers[name]
        if not await self._answers(server):
            return ""
        sample = await self._repairs.sample(name, await self._metadata.groups(fresh=True), SAMPLE)
        held = sum(await asyncio.gather(*(self._holds(server, copy) for copy in sample)))
        if not sample:
            return f"repair {name!r}: it answers, and nothing that the metadata knows of should be on it; there is nothing to repair"
        if 2 * held >= len(sample):
            return (
                f"repair {name!r}: its pool is not lost: it answers, and has {held} of {len(sample)} objects that were looked for; "
                "single copies are mended by themselves"
            )
        return ""

    async def _servers(self) -> dict[str, StorageServer]:
        groups = await self._metadata.groups(fresh=True)
        return {server.id: server for group in groups for server in group.servers}

    async def _answers(self, server: StorageServer) -> bool:
        try:
            async with asyncio.timeout(LOOK_BOUND_S):
                return (await self._storage.capacity(address_of(server))).healthy
        except (StorageError, TimeoutError):
            return False

    async def _holds(self, server: StorageServer, copy: CopyName) -> bool:
        try:
            async with asyncio.timeout(LOOK_BOUND_S):
                return await self._storage.holds(address_of(server), copy)
        except (StorageError, TimeoutError):
            return False

    async def status(self, wanted: RepairStatus) -> Answer:
        """How far the last repair of a server is, and which servers it waits for."""
        await self._metadata.wait_mapped()
        progress = await self._repairs.progress(wanted.server)
        if progress is None:
            raise RepairRefused(f"repair {wanted.server!r}: its pool was never declared lost")
        places: dict[str, StorageServer] = {}
        for shard, state in progress.states.items():
            if state == "copying":
                for group in await self._repairs.groups_left(shard, progress.id):
                    places |= {group.servers[place].id: group.servers[place] for place in group.places}
        waits = [name for name, server in sorted(places.items()) if not await self._answers(server)]
        return {"waits_for": waits, **_said(progress)}

    async def lost(self, wanted: RepairLost) -> Answer:
        """A page of what is gone, and where the next one begins."""
        await self._metadata.wait_mapped()
        progress = await self._repairs.progress(wanted.server)
        if progress is None or wanted.shard not in self._repairs.shards:
            raise RepairRefused(f"repair {wanted.server!r}: nothing of it is known on shard {wanted.shard}")
        found = await self._repairs.lost(progress.id, wanted.shard, wanted.after, LOST_MAX)
        last = found[-1] if len(found) == LOST_MAX else None
        return {
            "lost": [
                {"path": lost.path, "object_id": str(lost.object_id), "bytes": lost.size_bytes, "copies": lost.copies}
                for lost in found
            ],
            "next": [last.vnode, last.directory, last.name] if last else None,
        }

    async def mend(self, wanted: MendCopies) -> Answer:
        """Have single copies looked after by the workers."""
        await self._metadata.wait_mapped()
        try:
            mends = [
                Mend(server, CopyName.parse(name), group, "an audit found it") for server, name, group in wanted.copies
            ]
        except ValueError as error:
            raise RepairRefused(f"mend copies: {error}; a copy is <account>/<object id>.<size>.<md5>") from error
        await self._repairs.note(mends)
        return {"noted": len(mends)}


def _said(progress: Progress | None) -> Answer:
    if progress is None:
        return {}
    return {
        "id": str(progress.id), "server": progress.server, "declared_at": progress.declared_at.isoformat(), "done": progress.done,
        "shards": {str(shard): state or "waiting" for shard, state in progress.states.items()},
        **asdict(progress.tally), "left": progress.tally.left,
    }  # fmt: skip


VERBS: dict[str, tuple[type, Callable[[Verbs, Any], Awaitable[Answer]]]] = {
    "repair-declare": (RepairDeclare, Verbs.declare),
    "repair-status": (RepairStatus, Verbs.status),
    "repair-lost": (RepairLost, Verbs.lost),
    "mend": (MendCopies, Verbs.mend),
}


@asynccontextmanager
async def speaking(metadata: PostgresMetadata, capability_keys: Iterable[str], caller: str) -> AsyncIterator[Verbs]:
    """The verbs, with connections of their own to the storage servers. Raises OSError, ValueError: no key."""
    path = next(iter(capability_keys), None)
    if path is None:
        raise ValueError("speak to the storage servers: the configuration names no capability key")
    key = parse_key(Path(path).read_text(encoding="ascii"))  # noqa: ASYNC240 (once, before anything else)
    http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=LOOK_BOUND_S))
    try:
        yield Verbs(metadata, StorageClient(http, key=key, caller=caller, clock=SystemClock()))
    finally:
        await http.close()
