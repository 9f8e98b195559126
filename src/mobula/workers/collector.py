"""The collector of one shard: deletes the copies of what no entry names any more, then the row that says so.

    released row   -> the bytes' home gives the name up (garbage there, if it was the last) -> the row goes
    garbage row    -> each copy deleted, on the servers that the group has now -> the row goes, if the group is still that one

Each step may be repeated, and whatever is cut off leaves the row. Two collectors of a shard at once do some things twice, no harm.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterable

import prometheus_client
import structlog

from mobula.core.clock import Clock
from mobula.metadata.collecting import Collecting, Counts, Garbage, Place, by_home
from mobula.metadata.model import MetadataError, OutcomeUnknown, StorageServer, Unavailable
from mobula.wire.storage_client import CopyMissing, StorageClient, StorageError, address_of
from mobula.workers.away import Away
from mobula.workers.config import Pace

log = structlog.get_logger()

DELETE_S = 10.0
"""a server that takes longer is away"""
DELETES_MAX = 8
"""at once on one server, of each shard"""
COUNT_PERIOD_S = 30.0

_objects = prometheus_client.Gauge("garbage_objects", "Objects whose last name was dropped", ["shard", "state"])
_bytes = prometheus_client.Gauge("garbage_bytes", "Their sizes, each object counted once", ["shard", "state"])
_oldest = prometheus_client.Gauge("garbage_oldest_seconds", "How long the first of them has waited", ["shard"])


class Collector:
    """mobula.workers.app.Duty."""

    def __init__(self, shard: int, collecting: Collecting, storage: StorageClient, pace: Pace, clock: Clock) -> None:
        self._shard = shard
        self._collecting = collecting
        self._storage = storage
        self._pace = pace
        self._clock = clock
        self._away = Away(clock)
        self._slots: dict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(DELETES_MAX))
        self._after = 0
        self._doomed: set[int] = set()
        self._placeless: tuple[int, ...] = ()
        self._counted_s = float("-inf")
        self._why = ""
        self.counts = Counts()

    @property
    def says(self) -> str:
        c = self.counts
        parts = [f"{c.waiting_objects} objects ({c.waiting_bytes} bytes) wait, {c.collected_objects} collected"]
        parts += [f"{c.waiting_names} names of shared bytes wait"] if c.waiting_names else []
        parts += [f"{who} is away: {why}" for who, why in self._away.reasons.items()]
        return "; ".join([*parts, *filter(None, [self._why, self.wrong])])

    @property
    def wrong(self) -> str:
        """What an operator has to look at."""
        if self._doomed:
            return f"{len(self._doomed)} garbage rows of shard {self._shard} name bytes that an entry names; run mobula audit"
        if self._placeless:
            groups = ", ".join(map(str, self._placeless))
            return f"garbage of shard {self._shard} is in groups that it does not know: {groups}; run mobula check"
        return ""

    async def work(self) -> None:
        """Collect, at the configured pace, until cancelled."""
        try:
            while True:
                began_s = self._clock.monotonic_s()
                done = 0
                try:
                    done = await self.turn()
                    await self._count(began_s)
                    self._why = ""
                except MetadataError as error:
                    self._why = f"not collected: {error}"
                    log.info("not collected", shard=self._shard, why=str(error))
                pace_s = done / self._pace.collect_per_s if done else self._pace.poll_s
                await asyncio.sleep(max(0.0, began_s + pace_s - self._clock.monotonic_s()))
        finally:
            self._counted_s = float("-inf")
            self._forget_gauges()

    async def turn(self) -> int:
        """A batch of names, a batch of garbage; answers how many rows went. Raises MetadataError."""
        return await self._give_up_names() + await self._collect()

    async def _give_up_names(self) -> int:
        limit = self._pace.batch
        batch = await self._collecting.released(self._shard, after=self._after, limit=limit)
        # On to the next ones whatever becomes of these; those that stay are met again after the last.
        self._after = batch[-1].lost.row if len(batch) == limit else 0
        gone = 0
        for home, names in by_home(self._collecting, batch).items():
            who = f"shard {home}"
            if who in self._away:
                continue
            try:
                await self._collecting.give_up(home, names)
            except (Unavailable, OutcomeUnknown) as error:
                self._away.failed(who, str(error))
                continue
            self._away.answered(who)
            gone += await self._collecting.forget(self._shard, [name.lost.row for name in names])
        return gone

    async def _collect(self) -> int:
        places = await self._collecting.places(self._shard)
        self._placeless = tuple(sorted({place.group for place in places if not place.servers}))
        reachable = [p for p in places if p.servers and not any(server.id in self._away for server in p.servers)]
        if not reachable:
            return 0
        random.shuffle(reachable)  # no place always comes last
        rows = await self._collecting.batch(
            self._shard, reachable, grace_s=self._pace.grace_s, skip=self._doomed, limit=self._pace.batch
        )
        if not rows:
            return 0
        where = {(place.group, place.copies): place for place in reachable}
        rows = self._believed(rows, await self._collecting.named([row.object_id for row in rows]))
        gone = await asyncio.gather(*(self._delete(row, where[row.group, row.copies].servers) for row in rows))
        rows = [row for row, is_gone in zip(rows, gone, strict=True) if is_gone]
        if not rows:
            return 0
        await self._collecting.collect(self._shard, [row.row for row in rows], _epochs(reachable))
        return len(rows)

    def _believed(self, rows: Iterable[Garbage], named: Iterable[object]) -> list[Garbage]:
        """Nothing that an entry names is deleted, whatever a garbage row says: that row is somebody's mistake."""
        known = set(named)
        for row in rows:
            if row.object_id in known:
                log.error("a garbage row names what an entry names", shard=self._shard, object=str(row.object_id))
                self._doomed.add(row.row)
        return [row for row in rows if row.object_id not in known]

    async def _delete(self, row: Garbage, servers: Iterable[StorageServer]) -> bool:
        """Whether every copy is gone."""
        return all(await asyncio.gather(*(self._delete_copy(row, server) for server in servers)))

    async def _delete_copy(self, row: Garbage, server: StorageServer) -> bool:
        async with self._slots[server.id]:
            if server.id in self._away:
                return False
            try:
                async with asyncio.timeout(DELETE_S):
                    await self._storage.delete(
                        address_of(server),
                        str(row.account),
                        str(row.object_id),
                        row.size_bytes,
                        row.md5,
                    )
            except CopyMissing:
                pass
            except (StorageError, TimeoutError) as error:
                self._away.failed(server.id, str(error) or f"no answer within {DELETE_S:.0f} s")
                return False
            self._away.answered(server.id)
            return True

    async def _count(self, now_s: float) -> None:
        if now_s - self._counted_s < COUNT_PERIOD_S:
            return
        self.counts = c = await self._collecting.counts(self._shard)
        self._counted_s = now_s
        for gauge, waiting, collected in (
            (_objects, c.waiting_objects, c.collected_objects),
            (_bytes, c.waiting_bytes, c.collected_bytes),
        ):
            gauge.labels(self._shard, "dropped").set(waiting + collected)
            gauge.labels(self._shard, "waiting").set(waiting)
            gauge.labels(self._shard, "collected").set(collected)
        _oldest.labels(self._shard).set(c.oldest_s)

    def _forget_gauges(self) -> None:
        """The shard is another worker's: what this one knew of it would be said for ever."""
        for state in ("dropped", "waiting", "collected"):
            for gauge in (_objects, _bytes):
                gauge.labels(self._shard, state)
                gauge.remove(self._shard, state)
        _oldest.labels(self._shard)
        _oldest.remove(self._shard)


def _epochs(places: Iterable[Place]) -> dict[int, int]:
    return {place.group: place.epoch for place in places}
