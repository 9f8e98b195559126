"""CL-107: nothing that has a name is ever collected, all the rest is in the end, and the counters balance: while clients drop, replace and
link as fast as they can, and workers die before and after every step.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from mobula.core.clock import SystemClock
from mobula.metadata.model import Entry, MetadataError, NotFound, SourceChanged
from mobula.workers.collector import Collector
from mobula.workers.config import Pace
from mobula.workers.files import FileSweeper
from mobula.workers.sweeper import Sweeper
from tests.probe import garbage, shard
from tests.probe.garbage import Crash, Region, account_on

pytestmark = pytest.mark.probe

SEEDS = int(os.environ.get("MOBULA_LONG", "3"))
CLIENTS = 5
OPERATIONS = 60
NAMES = 6
ALL_AT_ONCE = Pace(grace_s=0.001, commit_deadline_s=3.0, batch=16)
"""files and references count from 3 s on, far longer than any client here takes from its bytes to their name"""


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest_asyncio.fixture
async def region(shards: shard.Shards, tmp_path: Path) -> AsyncIterator[Region]:
    async with garbage.region(shards, tmp_path) as made:
        yield made


@dataclass
class Fate:
    """Says which call of a worker is its last: `dies(n)` of the n-th one. Half of them have had their effect by then."""

    dies: Callable[[int], str]
    """"" (goes on), "before" or "after" """
    calls: int = 0

    async def meet(self, call: Callable[[], Awaitable[Any]]) -> Any:
        how = self.dies(self.calls)
        self.calls += 1
        if how == "before":
            raise Crash
        answer = await call()
        if how == "after":
            raise Crash
        return answer


class Mortal:
    """Its async methods may be the last thing that a process does."""

    def __init__(self, target: Any, fate: Fate) -> None:
        self._target = target
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not asyncio.iscoroutinefunction(found):
            return found
        return lambda *args, **kwargs: self._fate.meet(lambda: found(*args, **kwargs))


@dataclass
class Workers:
    """All duties of a region. Each turn is a new process: what one knew is lost."""

    region: Region
    pace: Pace
    removed: set[str] = field(default_factory=set)
    """object ids of orphans"""

    async def turn(self, fate: Fate) -> int:
        """Each duty once; answers how many rows went. Raises Crash."""
        collecting: Any = Mortal(self.region.collecting, fate)
        storage: Any = Mortal(self.region.storage, fate)
        gone = 0
        for number in self.region.numbers:
            gone += await Collector(number, collecting, storage, self.pace, SystemClock()).turn()
            await Sweeper(number, collecting, self.pace).references()
        return gone

    async def sweep_files(self, fate: Fate) -> None:
        """All files of all hosts. Raises Crash."""
        collecting: Any = Mortal(self.region.collecting, fate)
        for host in self.region.hosts:
            storage: Any = Mortal(Noting(self.region.storage, self.removed), fate)
            address = self.region.address(host)
            sweeper = FileSweeper(
                host, lambda address=address: address, collecting, storage, pace=self.pace, clock=SystemClock()  # type: ignore[misc]
            )  # fmt: skip
            await sweeper.turn()


class Noting:
    """Storage servers; notes what is deleted there."""

    def __init__(self, storage: Any, deleted: set[str]) -> None:
        self._storage = storage
        self._deleted = deleted

    async def list_files(self, *args: Any, **kwargs: Any) -> Any:
        return await self._storage.list_files(*args, **kwargs)

    async def delete(self, *args: Any, **kwargs: Any) -> None:
        await self._storage.delete(*args, **kwargs)
        self._deleted.add(args[2])


IMMORTAL = Fate(lambda _: "")


def dies_at(number: int, how: str) -> Fate:
    return Fate(lambda n: how if n == number else "")


async def drain(workers: Workers) -> None:
    """Until nothing goes any more: neither rows nor references nor files."""
    region = workers.region
    while await workers.turn(IMMORTAL):
        pass
    async with asyncio.timeout(60):
        while True:
            await workers.turn(IMMORTAL)
            await workers.sweep_files(IMMORTAL)
            young = await region.sql("SELECT FROM metadata.reference WHERE NOT confirmed")
            named = {str(row["object_id"]) for row in await region.sql("SELECT object_id FROM metadata.entry")}
            if not young and set(region.files()) == named:
                return
            await asyncio.sleep(0.1)


async def balance(workers: Workers, stored: dict[str, int]) -> None:
    """Everything that was ever stored has a name now, or was collected, or was nobody's: each once. `stored`: sizes by object id."""
    region = workers.region
    counts = await region.counts()
    live = set(region.files())
    held = await region.sql("SELECT object_id, reference FROM metadata.entry WHERE reference IS NOT NULL")
    kept = await region.sql("SELECT object_id, reference FROM metadata.reference")
    assert {tuple(row.values()) for row in held} == {tuple(row.values()) for row in kept}
    assert (counts.waiting_objects, counts.waiting_names, counts.waiting_bytes) == (0, 0, 0)
    assert not live & workers.removed
    collected = set(stored) - live - workers.removed
    assert counts.collected_objects == len(collected)
    assert counts.collected_bytes == sum(stored[object_id] for object_id in collected)


async def test_a_worker_that_dies_at_any_step_costs_nothing_and_leaves_nothing(region: Region) -> None:
    """One scenario for each step, before it and after it; then whatever the dead have left is finished."""
    workers = Workers(region, ALL_AT_ONCE)
    elsewhere = f"/{account_on(3 - garbage.shard_of(region.stor))}/stor"
    stored: dict[str, int] = {}
    kept: list[Entry] = []

    async def put(name: str) -> Entry:
        entry = await region.put(name)
        stored[str(entry.object_id)] = entry.size_bytes
        return entry

    async def scenario(n: str) -> None:
        for name in ("dropped", "replaced", "shared", "twice", "begun", "half"):
            await put(f"{name}-{n}")
        await region.link(f"shared-{n}", f"link-{n}")
        await region.link(f"twice-{n}", f"again-{n}", elsewhere)
        await region.break_link(f"begun-{n}", 1)
        await region.break_link(f"half-{n}", 2)
        await region.delete(f"dropped-{n}")
        kept.append(await put(f"replaced-{n}"))
        for name in ("link", "begun"):
            entry = await region.look(f"{name}-{n}")
            assert entry is not None
            kept.append(entry)
        for name in ("shared", "twice", "half"):
            await region.delete(f"{name}-{n}")
        await region.metadata.delete_object(elsewhere, f"again-{n}", precondition=garbage.ALWAYS)
        orphan = await region.store(b"nobody's")
        stored[str(orphan.object_id)] = orphan.size_bytes

    async def die_at_each_step(
        work: Callable[[Fate], Awaitable[object]], before: Callable[[str], Awaitable[None]]
    ) -> int:
        """Until it gets through, from before its first step to after its last one; answers how many steps it had."""
        for step in itertools.count():
            died = 0
            for how in ("before", "after"):
                await before(f"{work.__name__}-{step}-{how}")
                try:
                    await work(dies_at(step, how))
                except Crash:
                    died += 1
                assert all(await asyncio.gather(*(region.whole(entry) for entry in kept[-20:])))
            if not died:
                return step
        raise AssertionError

    async def nothing_new(_: str) -> None:
        return

    for number in range(3):
        await scenario(f"{number}")
    assert await die_at_each_step(workers.turn, scenario) > 20
    await region.aged(ALL_AT_ONCE)
    assert await die_at_each_step(workers.turn, nothing_new) > 10
    assert await die_at_each_step(workers.sweep_files, nothing_new) > 10
    await drain(workers)
    for entry in kept:
        assert await region.whole(entry)
    assert set(region.files()) == {str(entry.object_id) for entry in kept}
    await balance(workers, stored)


@dataclass
class Crowd:
    """Clients who do what they like, and check what they find."""

    region: Region
    directories: tuple[str, ...]
    chance: random.Random
    stored: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    done: int = 0

    def place(self) -> tuple[str, str]:
        return self.chance.choice(self.directories), f"n{self.chance.randrange(NAMES)}"

    async def client(self) -> None:
        kinds = (self.put, self.put, self.delete, self.link, self.link, self.read, self.read)
        for _ in range(OPERATIONS):
            task = asyncio.create_task(self.chance.choice(kinds)())  # type: ignore[arg-type]
            if self.chance.random() < 0.1:  # this client's process dies on its way
                await asyncio.sleep(self.chance.random() * 0.01)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError, NotFound, SourceChanged):
                await task
                self.done += 1

    async def put(self) -> None:
        directory, name = self.place()
        stored = await self._store()
        await self._commit(directory, name, stored)

    async def _store(self) -> Entry:
        body = os.urandom(self.chance.randint(1, 500))
        region = self.region
        group, object_id = await region.group(), uuid.uuid4()
        # Noted before: a client that dies may have stored it, and one copy is enough to be found.
        entry = garbage.entry_of(region.account, object_id, body, group.id)
        for server in group.servers[:2]:
            await region.storage.put(region.address(server.id), str(region.account), str(object_id), body)
            self.stored[str(object_id)] = len(body)
        return entry

    async def _commit(self, directory: str, name: str, stored: Entry) -> None:
        await self.region.commit(name, stored, directory)

    async def delete(self) -> None:
        directory, name = self.place()
        await self.region.metadata.delete_object(directory, name, precondition=garbage.ALWAYS)

    async def link(self) -> None:
        (directory, name), (to, new) = self.place(), self.place()
        entry = (await self.region.metadata.lookup(directory, name)).entry
        if entry is not None:
            await self.region.relink(directory, entry, to, new)

    async def read(self) -> None:
        """What an entry says can be read, unless the entry has gone meanwhile."""
        directory, name = self.place()
        entry = (await self.region.metadata.lookup(directory, name)).entry
        if entry is None or await self.region.whole(entry):
            return
        now = (await self.region.metadata.lookup(directory, name)).entry
        if now is not None and now.object_id == entry.object_id:
            self.lost.append(f"{directory}/{name}: {entry.object_id}")


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_clients_and_dying_workers_race_and_no_byte_with_a_name_is_lost(region: Region, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311
    other = account_on(3 - garbage.shard_of(region.stor))
    crowd = Crowd(region, (region.stor, f"/{other}/stor"), chance)
    workers = Workers(region, ALL_AT_ONCE)
    crashes = 0
    ended = asyncio.Event()

    async def work(turn: Callable[[Fate], Awaitable[object]]) -> None:
        nonlocal crashes
        while not ended.is_set():
            try:
                await turn(Fate(lambda _: chance.choice(("before", "after")) if chance.random() < 0.05 else ""))
            except Crash:
                crashes += 1
            except MetadataError as error:
                pytest.fail(f"a worker was refused: {error}")

    async with asyncio.TaskGroup() as group:
        # Two of each: the lease's last holder may still be at it.
        busy = [group.create_task(work(turn)) for turn in (workers.turn, workers.turn, workers.sweep_files)]
        await asyncio.gather(*(crowd.client() for _ in range(CLIENTS)))
        ended.set()
        await asyncio.gather(*busy)
    assert crashes > 3
    assert crowd.done > CLIENTS * OPERATIONS / 2
    assert not crowd.lost
    await drain(workers)
    for row in await region.sql("SELECT directory, name FROM metadata.entry"):
        entry = (await region.metadata.lookup(str(row["directory"]), str(row["name"]))).entry
        assert entry is not None
        assert await region.whole(entry)
    await balance(workers, crowd.stored)
