"""Work under a lease, on a real ZooKeeper: one at a time, cut off at once when the lease is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from mobula.wire.lease import Lease
from mobula.wire.zookeeper import Client
from tests.probe import zookeeper
from tests.probe.zookeeper import keeper as keeper  # noqa: PLC0414 (a fixture)

pytestmark = pytest.mark.probe

SESSION_S = 2.0
PATH = "/workers/shard-1"


@dataclass
class Worker:
    """One process, as far as the lease sees it."""

    name: str
    client: Client
    lease: Lease = field(init=False)
    working: bool = False
    begun: int = 0
    breaks: bool = False
    task: asyncio.Task[None] = field(init=False)

    def start(self) -> None:
        self.lease = Lease(self.client, PATH, self.name.encode())
        self.task = asyncio.create_task(self.lease.serve(self.work, wait_s=lambda: 0.0))

    async def work(self) -> None:
        self.begun += 1
        if self.breaks:
            raise ValueError("broken")
        self.working = True
        try:
            await asyncio.Event().wait()
        finally:
            self.working = False

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})


@pytest_asyncio.fixture
async def workers(keeper: zookeeper.Server) -> AsyncIterator[list[Worker]]:
    made = [Worker(name, Client([keeper.address], session_s=SESSION_S)) for name in ("one", "two")]
    try:
        for worker in made:
            worker.client.start()
            await worker.client.wait_connected(10)
            worker.start()
        yield made
    finally:
        for worker in made:
            await worker.stop()
            await worker.client.stop()


async def until(what: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not what():
            await asyncio.sleep(0.01)


async def only(workers: list[Worker]) -> tuple[Worker, Worker]:
    """Who works, and who doesn't."""
    await until(lambda: sum(worker.working for worker in workers) == 1)
    return (workers[0], workers[1]) if workers[0].working else (workers[1], workers[0])


async def test_one_works_and_the_other_follows_when_it_stops(workers: list[Worker]) -> None:
    first, second = await only(workers)
    assert (await second.client.get(PATH)).data == first.name.encode()
    await first.stop()
    assert not first.working
    await until(lambda: second.working)
    assert (await second.client.get(PATH)).data == second.name.encode()


async def test_the_other_follows_when_the_process_dies(workers: list[Worker]) -> None:
    first, second = await only(workers)
    await asyncio.get_running_loop().run_in_executor(None, first.client.kazoo.stop)
    await until(lambda: not first.working and second.working)
    assert not first.lease.held


async def test_without_zookeeper_nobody_works_and_with_it_one_does(
    workers: list[Worker], keeper: zookeeper.Server
) -> None:
    await only(workers)
    keeper.stop()
    await until(lambda: not any(worker.working for worker in workers))
    keeper.start()
    await only(workers)


async def test_who_loses_the_node_stops_at_once(workers: list[Worker]) -> None:
    first, second = await only(workers)
    begun = first.begun + second.begun
    await second.client.delete(PATH)
    await until(lambda: first.begun + second.begun == begun + 1)
    first, second = await only(workers)
    assert (await first.client.get(PATH)).data == first.name.encode()


async def test_work_that_breaks_says_so_and_leaves_the_lease_to_others(workers: list[Worker]) -> None:
    first, second = await only(workers)
    second.breaks = True
    await first.stop()
    with pytest.raises(ValueError, match="broken"):
        await asyncio.wait_for(asyncio.shield(second.task), 20)
    assert not second.lease.held
    first.start()
    await until(lambda: first.working)
