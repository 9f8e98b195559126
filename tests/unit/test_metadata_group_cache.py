"""Placement groups while the shard that has them answers, is slow, or is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from mobula.metadata.group_cache import FRESH_S, WAIT_AFTER_S, GroupCache
from mobula.metadata.model import Group, Unavailable


@dataclass
class Shard:
    """Each reading finds groups of the next epoch; `away`: it does not answer; `open` cleared: it makes one wait."""

    now_s: float = 1000.0
    away: bool = False
    readings: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    async def read(self) -> Sequence[Group]:
        self.readings += 1
        await self.open.wait()
        if self.away:
            raise Unavailable("ask shard 1: no primary is known")
        return [Group(1, self.readings, ())]

    def cache(self) -> GroupCache:
        return GroupCache(self.read, clock=lambda: self.now_s)


async def epoch(cache: GroupCache, *, fresh: bool = False) -> int:
    (group,) = await asyncio.wait_for(cache.get(fresh=fresh), 5)
    return group.epoch


async def settled(cache: GroupCache) -> None:
    while cache._refreshing is not None:
        await asyncio.sleep(0)


async def test_the_first_one_reads_them_and_those_after_it_do_not() -> None:
    shard = Shard()
    cache = shard.cache()
    assert [await epoch(cache), await epoch(cache)] == [1, 1]
    assert shard.readings == 1


async def test_old_groups_are_used_while_new_ones_are_read() -> None:
    shard = Shard()
    cache = shard.cache()
    await epoch(cache)
    shard.now_s += FRESH_S + 0.1
    shard.open.clear()
    assert [await epoch(cache), await epoch(cache)] == [1, 1]
    shard.open.set()
    await settled(cache)
    assert await epoch(cache) == 2
    assert shard.readings == 2


async def test_nobody_waits_for_a_shard_that_is_away() -> None:
    shard = Shard()
    cache = shard.cache()
    await epoch(cache)
    shard.away = True
    for _ in range(20):
        shard.now_s += FRESH_S + 0.1
        assert await epoch(cache) == 1
        await settled(cache)
    assert shard.readings == 21


async def test_after_a_long_sleep_the_next_one_waits_for_new_ones() -> None:
    shard = Shard()
    cache = shard.cache()
    await epoch(cache)
    shard.now_s += WAIT_AFTER_S + 0.1
    assert await epoch(cache) == 2
    shard.away = True
    shard.now_s += WAIT_AFTER_S + 0.1
    assert await epoch(cache) == 2


async def test_fresh_ones_are_of_now_or_not_there() -> None:
    shard = Shard()
    cache = shard.cache()
    assert [await epoch(cache), await epoch(cache, fresh=True)] == [1, 2]
    shard.away = True
    with pytest.raises(Unavailable):
        await cache.get(fresh=True)


async def test_those_who_wait_for_fresh_ones_share_a_reading_that_began_after_they_asked() -> None:
    shard = Shard()
    cache = shard.cache()
    shard.open.clear()
    waiting = [asyncio.create_task(cache.get(fresh=True)) for _ in range(5)]
    while not shard.readings:
        await asyncio.sleep(0)
    shard.now_s += 0.1
    shard.open.set()
    found = await asyncio.wait_for(asyncio.gather(*waiting), 5)
    assert [group.epoch for groups in found for group in groups] == [1, 2, 2, 2, 2]


async def test_without_any_the_shard_has_to_answer() -> None:
    shard = Shard(away=True)
    with pytest.raises(Unavailable):
        await shard.cache().get(fresh=False)
