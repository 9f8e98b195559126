"""Brings back what a lost pool held: one worker per shard, all state in the shard's tables, so that any other one may go on.

`step` does a little and says what it did. Each step may be repeated, also by two workers at once: a copy that is there is only verified,
and what became of an object is noted once. An object is *lost* only when every server that should have it has answered that it doesn't,
or has wrong bytes; while one of them is silent the object waits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from mobula.core.groups import StorageServer
from mobula.metadata.repairing import FIRST, GroupLeft, Item, Key, Repair, Repairs
from mobula.wire.storage_client import (
    CopyName,
    SourceMissing,
    SourceUnavailable,
    SourceWrong,
    StorageClient,
    StorageError,
    address_of,
)
from mobula.workers.servers import Liveness, Pace

log = structlog.get_logger()

BATCH = 64
AT_ONCE = 4
"""copies on their way at the same time"""
PAGES_A_STEP = 20
COPIES_MAX = 6
GROUPS_AGE_S = 10.0
"""of what is known of the groups: hundreds of rows, and another repair may change them"""
ADOPT_PERIOD_S = 5.0


@dataclass(frozen=True, slots=True)
class Step:
    """What a step did, and whether the next one should follow at once."""

    what: str
    busy: bool


@dataclass(slots=True)
class _Round:
    """Where a round through what is left of a repair is."""

    group: int = -1
    after: Key = FIRST
    settled: int = 0
    why: str = ""
    """the last reason for which something waits"""
    groups: Sequence[GroupLeft] = ()
    read_s: float = float("-inf")
    """when `groups` were read"""


class PoolRepair:
    """The repairs of one shard."""

    def __init__(
        self, repairs: Repairs, storage: StorageClient, shard: int, *, liveness: Liveness | None = None
    ) -> None:
        self._repairs = repairs
        self._storage = storage
        self._shard = shard
        self._liveness = liveness or Liveness(storage)
        self._pace = Pace()
        self._rounds: dict[object, _Round] = {}
        self._adopted_s = float("-inf")

    async def step(self) -> Step:
        """Do a little of the oldest repair that can go on. Raises MetadataError: try again later."""
        if time.monotonic() - self._adopted_s > ADOPT_PERIOD_S:
            await self._repairs.adopt(self._shard)
            self._adopted_s = time.monotonic()
        waiting = []
        for repair in await self._repairs.of_shard(self._shard, open_only=True):
            done = await (self._list(repair) if repair.state == "listing" else self._copy(repair))
            if done.busy:
                return done
            waiting.append(done.what)
        if waiting:
            return Step("; ".join(waiting), busy=False)
        purged = await self._repairs.purge(self._shard)
        return Step(
            f"dropped {purged} rows of finished repairs" if purged else "no repair is declared", busy=purged > 0
        )

    async def _list(self, repair: Repair) -> Step:
        for _ in range(PAGES_A_STEP):
            if not await self._repairs.list_page(self._shard, repair.id):
                return Step(f"listed what referred to {repair.server}", busy=True)
        return Step(f"list what refers to {repair.server}", busy=True)

    async def _copy(self, repair: Repair) -> Step:
        at = self._rounds.setdefault(repair.id, _Round())
        if time.monotonic() - at.read_s > GROUPS_AGE_S:
            at.groups, at.read_s = await self._repairs.groups_left(self._shard, repair.id), time.monotonic()
        left = [group for group in at.groups if group.id >= at.group]
        if not left and at.group < 0:
            return await self._finish(repair)
        if not left:  # the round is over
            del self._rounds[repair.id]
            if at.settled:
                return Step(f"went once through what {repair.server} had", busy=True)
            return Step(f"repair of {repair.server} waits: {at.why or 'nothing could be copied'}", busy=False)
        group = left[0]
        if group.id != at.group:
            at.group, at.after = group.id, FIRST
        return await self._copy_some(repair, group, at)

    async def _copy_some(self, repair: Repair, group: GroupLeft, at: _Round) -> Step:
        """The next objects of a group. Those with a place on a server that doesn't answer wait; `copies` tells them apart."""
        away = [place for place in group.places if not await self._liveness.is_up(group.servers[place])]
        copies_max = min(away) if away else COPIES_MAX
        if away:
            at.why = (
                f"{group.servers[min(away)].id} does not answer; its pool has to be there, empty, before it gets copies"
            )
        items = []
        if copies_max > min(group.places):
            items = await self._repairs.items(
                self._shard, repair.id, group.id, copies_max=copies_max, after=at.after, limit=BATCH
            )
        if not items:
            at.group, at.after = group.id + 1, FIRST
            return Step(f"group {group.id}: nothing more can be done now", busy=True)
        limit = asyncio.Semaphore(AT_ONCE)

        async def one(item: Item) -> str | None:
            async with limit:
                return await self._bring(repair, group, item, at)

        outcomes = await asyncio.gather(*(one(item) for item in items))
        settled = [(item, outcome) for item, outcome in zip(items, outcomes, strict=True) if outcome]
        if settled:
            await self._repairs.settle(self._shard, repair.id, group.id, settled)
        at.settled += len(settled)
        at.after = items[-1].key
        return Step(f"group {group.id}: {len(settled)} of {len(items)} objects settled", busy=True)

    async def _bring(self, repair: Repair, group: GroupLeft, item: Item, at: _Round) -> str | None:
        """Have an object's copies in all places that have another pool now; what became of it, None: not known yet."""
        if not item.current:
            return "changed"
        holders = group.servers[: item.copies]
        outcome = "present"
        for place in group.places:
            if place >= item.copies:
                continue
            rate = repair.bytes_per_s / max(1, len(self._repairs.shards))
            await self._pace.take(item.copy.size_bytes, rate)
            became, why = await fetch(self._storage, self._liveness, holders[place], item.copy, holders)
            if became is None:
                at.why = why
                return None
            if became == "lost":
                log.warning("object lost", object_id=item.copy.object_id, path=f"{item.directory}/{item.name}")
                return became
            if became == "copied":
                outcome = became
        return outcome

    async def _finish(self, repair: Repair) -> Step:
        self._rounds.pop(repair.id, None)
        if await self._repairs.finish(self._shard, repair.id):
            return Step(f"repair of {repair.server} is done on this shard", busy=True)
        return Step(f"repair of {repair.server} waits: another shard has not listed yet", busy=False)


async def fetch(
    storage: StorageClient, liveness: Liveness, server: StorageServer, copy: CopyName, holders: Sequence[StorageServer]
) -> tuple[str | None, str]:
    """Have a server fetch its copy from whichever of the others has it: copied, present, lost or (None) not known yet, and why."""
    ups = {s.id: await liveness.is_up(s) for s in holders}
    # An object of one copy may be there already: asked to fetch from itself, the server looks at what it has.
    sources = sorted((s for s in holders if s.id != server.id), key=lambda s: not ups[s.id]) or [server]
    silent = ""
    for source in sources:
        try:
            stored = await storage.copy(address_of(server), copy, address_of(source))
        except (SourceMissing, SourceWrong) as error:
            log.info("source has no right copy", source=source.id, why=str(error))
        except SourceUnavailable as error:
            silent = f"{source.id} does not answer: {error}"
        except StorageError as error:
            return None, f"{server.id}: {error}"
        else:
            return ("copied" if stored else "present"), ""
    return (None, silent) if silent else ("lost", "")
