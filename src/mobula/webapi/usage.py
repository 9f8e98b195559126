"""What this process counts of requests, by hour and by the account whose paths they name, until a shard has it (docs/decisions/0014).

Counts only grow, and all of an hour's are handed over each time, so that doing so twice does no harm. In memory there are the accounts that
were asked for in the last two hours. A process that is killed takes what it has counted since it last handed over with it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from mobula.core.clock import Clock
from mobula.core.hours import hour_of
from mobula.metadata.metering import Counted
from mobula.metadata.model import MetadataError

log = structlog.get_logger()

HAND_OVER_S = 20.0
AT_ONCE = 500
"""accounts in one statement"""
KEPT_HOURS = 6
"""what no shard has taken for so long is dropped: a report of that hour is made long since"""
REFUSED = frozenset({401, 403})
BROKEN = 500

type Key = tuple[int, uuid.UUID]
"""hour, account"""


@dataclass(slots=True)
class Bill:
    """Whom a request is counted for; nobody: it is not."""

    account: uuid.UUID | None = None


@dataclass(slots=True)
class _Tally:
    methods: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    total: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


class Notes(Protocol):
    """`mobula.metadata.metering.Metering`."""

    def shard_of(self, account: uuid.UUID) -> int: ...

    async def note_requests(self, shard: int, process: uuid.UUID, counts: list[Counted]) -> None: ...


class RequestCounts:
    """Of one process, which nobody else is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._process = uuid.uuid4()
        self._tallies: dict[Key, _Tally] = defaultdict(_Tally)
        self._unsaid: set[Key] = set()

    def count(self, bill: Bill, method: str, status: int, *, bytes_in: int, bytes_out: int) -> None:
        """A request that was answered. What was refused, or could not be done, nobody has to pay for."""
        if bill.account is None or not status or status in REFUSED or status >= BROKEN:
            return
        key = hour_of(self._clock.now_s()), bill.account
        tally = self._tallies[key]
        tally.methods[method] += 1
        tally.total += 1
        tally.bytes_in += bytes_in
        tally.bytes_out += bytes_out
        self._unsaid.add(key)

    def changed(self) -> list[Counted]:
        """All that has not been handed over as it is now."""
        return [_counted(key, self._tallies[key]) for key in self._unsaid]

    def said(self, counts: Collection[Counted]) -> None:
        """A shard has these; what has grown meanwhile is still to be said."""
        for count in counts:
            key = count.hour, count.account
            if self._tallies[key].total == count.total:
                self._unsaid.discard(key)

    def forget(self) -> None:
        """Hours that are over: what shards have, and what they have not taken in time."""
        this_hour = hour_of(self._clock.now_s())
        for key in [key for key in self._tallies if key[0] < this_hour - 1]:
            if key not in self._unsaid or key[0] < this_hour - KEPT_HOURS:
                del self._tallies[key]
                self._unsaid.discard(key)

    async def hand_over(self, notes: Notes) -> None:
        """Let each shard know what concerns it; what one does not take is kept until the next time. Raises MetadataError: nobody could."""
        by_shard: Mapping[int, list[Counted]] = defaultdict(list)
        for count in self.changed():
            by_shard[notes.shard_of(count.account)].append(count)
        for shard, counts in by_shard.items():
            for at in range(0, len(counts), AT_ONCE):
                part = counts[at : at + AT_ONCE]
                try:
                    await notes.note_requests(shard, self._process, part)
                except MetadataError as error:
                    log.info("requests not noted", shard=shard, accounts=len(part), why=str(error))
                    break
                self.said(part)
        self.forget()

    async def keep_handing_over(self, notes: Notes) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(HAND_OVER_S)
            try:
                await self.hand_over(notes)
            except MetadataError as error:
                log.info("requests not noted", why=str(error))


def _counted(key: Key, tally: _Tally) -> Counted:
    return Counted(key[1], key[0], tally.total, dict(tally.methods), tally.bytes_in, tally.bytes_out)
