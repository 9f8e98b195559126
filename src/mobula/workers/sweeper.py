"""The sweeper of one shard: what a request that died half way has left in the metadata.

a half-made or half-removed directory   finished after a minute (mobula.metadata.two_shards)
a reference of a link                   looked at once, when older than the commit deadline: dropped if its name does not have it
"""

from __future__ import annotations

import asyncio

import structlog

from mobula.metadata.collecting import LONG_AGO, Collecting, Reference
from mobula.metadata.model import MetadataError, OutcomeUnknown, Unavailable
from mobula.workers.config import Pace

log = structlog.get_logger()

LOOKS_MAX = 8
PERIOD_S = 30.0


class Sweeper:
    """mobula.workers.app.Duty."""

    wrong = ""

    def __init__(self, shard: int, collecting: Collecting, pace: Pace) -> None:
        self._shard = shard
        self._collecting = collecting
        self._pace = pace
        self._after = LONG_AGO
        self._slots = asyncio.Semaphore(LOOKS_MAX)
        self._why = ""
        self._finished = 0
        self._dropped = 0

    @property
    def says(self) -> str:
        done = (
            f"{self._finished} half-done directories finished, {self._dropped} references of broken-off links dropped"
        )
        return f"{done}; {self._why}" if self._why else done

    async def work(self) -> None:
        """Sweep, until cancelled."""
        while True:
            self._why = ""
            for sweep in (self.directories, self.references):
                try:
                    while await sweep():
                        pass
                except MetadataError as error:
                    self._why = str(error)
                    log.info("not swept", shard=self._shard, what=sweep.__name__, why=str(error))
            await asyncio.sleep(PERIOD_S)

    async def directories(self) -> bool:
        """Finish the half-done ones; whether there may be more. Raises MetadataError."""
        finished = await self._collecting.finish_directories(self._shard)
        self._finished += finished
        return finished > 0

    async def references(self) -> bool:
        """A batch of them; whether there are more. Raises MetadataError."""
        limit = self._pace.batch
        batch = await self._collecting.unconfirmed(
            self._shard, older_s=self._pace.commit_deadline_s, after=self._after, limit=limit
        )
        # Those of which nobody can say now are met again after the last ones.
        more = len(batch) == limit
        self._after = batch[-1].made_at if more else LONG_AGO
        looks = await asyncio.gather(*(self._look(reference) for reference in batch))
        looked = {reference: holds for reference, holds in zip(batch, looks, strict=True) if holds is not None}
        if looked:
            dropped = await self._collecting.settle(self._shard, looked)
            self._dropped += dropped
            if dropped:
                log.info("references of broken-off links dropped", shard=self._shard, references=dropped)
        return more

    async def _look(self, reference: Reference) -> bool | None:
        """Whether its name has it; None: can't be said now."""
        async with self._slots:
            try:
                return await self._collecting.holds(reference, patience_s=self._pace.patience_s)
            except (Unavailable, OutcomeUnknown) as error:
                self._why = f"a reference was not looked at: {error}"
                return None
