"""The agent of a storage host: asks each shard's supervisor for work, runs it, and says what came of it, until somebody has heard it.

Tasks that began a moment ago are few at a time, because beginning costs the processors; those that go on may be many, as most
of them wait. What an agent has is its own only as long as its supervisor thinks so too: it says now and then all that it has, and ends what
is not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Protocol

import structlog

from mobula.core.clock import Clock
from mobula.jobs.lead import Order
from mobula.jobs.runner import Lost, Runner
from mobula.metadata.jobs import Attempt, Result
from mobula.metadata.model import MetadataError

log = structlog.get_logger()

MOST = 256
"""tasks at a time"""
YOUNG_MAX = 8
YOUNG_S = 1.0
"""for so long a task counts as one that begins, unless it ends before"""
LINGER_S = 0.03
"""a result waits so long for those of others, which are expected"""
SAY_ALL_S = 2.0
AGAIN_S = 0.5
ILL_S = 1.0
"""after an attempt that came to nothing here others may have what there is"""
IDLE_S = 15.0
"""a sandbox waits so long for more of its job and phase"""


class Supervisor(Protocol):
    """Of one shard, wherever it is just now. All raise MetadataError when it can't be asked."""

    async def orders(
        self, slots: int, held: Sequence[Attempt] | None, most: int
    ) -> tuple[Sequence[Order], Sequence[Attempt]]:
        """Work for so many slots, later for `most`, for which it waits; and of what we have (`held`, said now and then) that which we
        should not.
        """

    async def results(self, results: Sequence[Result], lost: Sequence[Attempt]) -> None:
        """`lost`: attempts that came to nothing here."""


class Work:
    """Of one agent. `run` until cancelled."""

    def __init__(self, supervisors: Mapping[int, Supervisor], runner: Runner, clock: Clock) -> None:
        self._supervisors = supervisors
        self._runner = runner
        self._clock = clock
        self._held: dict[int, dict[Attempt, asyncio.Task[None]]] = {shard: {} for shard in supervisors}
        self._young: set[Attempt] = set()
        self._room = asyncio.Event()
        self._ill_until_s = float("-inf")
        self._ended: dict[int, list[Result | Attempt]] = {shard: [] for shard in supervisors}
        """what a supervisor has to be told"""
        self._say = {shard: asyncio.Event() for shard in supervisors}

    @property
    def held(self) -> int:
        """Tasks that this agent has."""
        return sum(map(len, self._held.values()))

    async def run(self) -> None:
        """All of it, until cancelled; the tasks end too."""
        try:
            async with asyncio.TaskGroup() as group:
                for shard, supervisor in self._supervisors.items():
                    group.create_task(self._ask(shard, supervisor))
                    group.create_task(self._tell(shard, supervisor))
                group.create_task(self._tidy())
        finally:
            tasks = [task for held in self._held.values() for task in held.values()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
            await self._runner.close()

    async def _ask(self, shard: int, supervisor: Supervisor) -> None:
        held = self._held[shard]
        said_s = float("-inf")
        while True:
            await self._until_room()
            try:
                says_all = self._clock.monotonic_s() - said_s >= SAY_ALL_S
                if says_all:
                    said_s = self._clock.monotonic_s()
                most = len(held) + MOST - self.held
                slots = min(len(held) + YOUNG_MAX - len(self._young), most)
                orders, strangers = await supervisor.orders(slots, self._unended(shard) if says_all else None, most)
            except MetadataError as error:
                log.info("no work can be had", shard=shard, why=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            self._end(shard, strangers)
            for order in orders:
                if order.task.attempt not in held:
                    self._young.add(order.task.attempt)
                    held[order.task.attempt] = asyncio.create_task(self._do(shard, order))

    def _unended(self, shard: int) -> list[Attempt]:
        """All that it has, and what it has not yet told the end of."""
        ended = (e if isinstance(e, Attempt) else e.attempt for e in self._ended[shard])
        return list(dict.fromkeys([*self._held[shard], *ended]))

    async def _until_room(self) -> None:
        # Half of them at once: to ask for one after the other costs everybody more.
        while len(self._young) > YOUNG_MAX // 2 or self.held >= MOST:
            self._room.clear()
            await self._room.wait()
        if (ill_s := self._ill_until_s - self._clock.monotonic_s()) > 0:
            await asyncio.sleep(ill_s)

    def _end(self, shard: int, strangers: Collection[Attempt]) -> None:
        for attempt in strangers:
            if attempt in self._held[shard]:
                log.info("attempt is not ours any more", job=str(attempt.job), task=attempt.task)
                self._runner.kill(attempt)

    async def _do(self, shard: int, order: Order) -> None:
        attempt = order.task.attempt
        grown = asyncio.get_running_loop().call_later(YOUNG_S, self._grow, attempt)
        ended: Result | Attempt = attempt
        try:
            ended = await self._runner.run(order, partial(self._grow, attempt))
        except Lost as error:
            self._ill_until_s = self._clock.monotonic_s() + ILL_S
            log.warning("attempt lost", job=str(attempt.job), task=attempt.task, why=str(error))
        except Exception as error:
            # Ours to mend; somebody else may do better meanwhile.
            self._ill_until_s = self._clock.monotonic_s() + ILL_S
            log.error("attempt failed", job=str(attempt.job), task=attempt.task, exc_info=error)
        finally:
            grown.cancel()
            self._grow(attempt)
            self._ended[shard].append(ended)
            del self._held[shard][attempt]
            self._say[shard].set()
            self._room.set()

    def _grow(self, attempt: Attempt) -> None:
        self._young.discard(attempt)
        self._room.set()

    async def _tell(self, shard: int, supervisor: Supervisor) -> None:
        """What has ended while the last ones were told, together."""
        while True:
            await self._say[shard].wait()
            if self._young:
                await asyncio.sleep(LINGER_S)
            self._say[shard].clear()
            while ended := list(self._ended[shard]):
                results = [one for one in ended if isinstance(one, Result)]
                lost = [one for one in ended if isinstance(one, Attempt)]
                try:
                    await supervisor.results(results, lost)
                except MetadataError as error:
                    log.info("results not told", shard=shard, results=len(ended), why=str(error))
                    await asyncio.sleep(AGAIN_S)
                    continue
                del self._ended[shard][: len(ended)]

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(IDLE_S / 4)
            await self._runner.expire(IDLE_S)
