"""Usage of one shard: what was appended for each change becomes sums by hour, and hours that are long over become one sum."""

from __future__ import annotations

import asyncio

import structlog

from mobula.core.clock import Clock
from mobula.core.hours import hour_of
from mobula.metadata.metering import Metering
from mobula.metadata.model import MetadataError

log = structlog.get_logger()

PERIOD_S = 30.0
ROWS_MAX = 5000
"""in one transaction: a fraction of a second"""
KEPT_HOURS = 72
"""more than reports are caught up with (reports.py)"""


async def fold_all(metering: Metering, shard: int) -> int:
    """Until nothing is left that was committed before; how many rows there were. Raises MetadataError."""
    total = 0
    while True:
        done = await metering.fold(shard, ROWS_MAX)
        total += done
        if done < ROWS_MAX:
            return total


class Folding:
    """mobula.workers.app.Duty."""

    wrong = ""

    def __init__(self, shard: int, metering: Metering, clock: Clock) -> None:
        self._shard = shard
        self._metering = metering
        self._clock = clock
        self._folded = 0
        self._closed = 0
        self._why = ""

    @property
    def says(self) -> str:
        done = f"{self._folded} rows of usage summed up"
        return f"{done}; {self._why}" if self._why else done

    async def work(self) -> None:
        """Fold, until cancelled."""
        while True:
            try:
                await self.turn()
                self._why = ""
            except MetadataError as error:
                self._why = f"not folded: {error}"
                log.info("usage not folded", shard=self._shard, why=str(error))
            await asyncio.sleep(PERIOD_S)

    async def turn(self) -> None:
        """All there is; once an hour what is over. Raises MetadataError."""
        self._folded += await fold_all(self._metering, self._shard)
        over = hour_of(self._clock.now_s()) - KEPT_HOURS
        if over > self._closed:
            while await self._metering.close_hours(self._shard, over, ROWS_MAX):
                pass
            self._closed = over
