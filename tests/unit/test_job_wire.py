"""Agents and a supervisor over HTTP: what is said arrives as it was said, and nobody is heard who may not speak."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

import pytest
import pytest_asyncio

from mobula.core.capability import HEADER, Grant, sign
from mobula.core.clock import ManualClock
from mobula.core.job import parse
from mobula.jobs.lead import Agent, Lead, Located, Order
from mobula.jobs.wire import SUBJECT, HttpSupervisor, SupervisorDoor
from mobula.metadata.job_memory import MemoryJobs
from mobula.metadata.jobs import Cleared, Item, Job, JobError, Made, Owner, Result, State, Version
from mobula.metadata.model import Unavailable
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer

KEY = b"k" * 32
OWNER = Owner(uuid.UUID(int=2), "dap")
VERSION = Version(OWNER.account, uuid.UUID(int=9), 1 << 40, bytes(range(16)), 3, 2)
DOCUMENT = {
    "phases": [{"exec": "wc \u20ac", "assets": ["/a"], "uarg": {"x": None}}, {"exec": "sort", "type": "reduce"}]
}
BOUND_S = 5.0


class Places:
    async def locate(self, _job: Job, _phase: int, items: Sequence[Item]) -> Sequence[Located | JobError]:
        return [Located(item.name, VERSION) for item in items]

    async def follow(self) -> bool:
        return False

    def hosts(self, _version: Version) -> Sequence[str]:
        return ("s-a",)

    async def delete(self, _job: Job, _cleared: Sequence[Cleared]) -> None: ...


@dataclass
class World:
    jobs: MemoryJobs
    lead: Lead
    client: HttpClient
    address: Address

    def supervisor(self, shard: int = 1, key: bytes = KEY, where: Address | None = None) -> HttpSupervisor:
        return HttpSupervisor(
            shard, lambda: where or self.address, self.client, key=key, me=Agent("s-a", "1"), clock=ManualClock()
        )

    async def job(self) -> uuid.UUID:
        job = uuid.uuid4()
        await self.jobs.create(job, OWNER, parse(json.dumps(DOCUMENT).encode()))
        await self.jobs.add(job, ["/dap/stor/ä"])
        await self.jobs.end(job)
        self.lead.wake(job)
        return job


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    jobs, clock, client = MemoryJobs(), ManualClock(), HttpClient()
    lead = Lead(jobs, Places(), clock)
    server = HttpServer(SupervisorDoor({1: lead}, [b"other" * 7, KEY], clock).handle)
    address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    working = asyncio.create_task(lead.work())
    while not lead.leads:
        await asyncio.sleep(0)
    yield World(jobs, lead, client, address)
    working.cancel()
    await asyncio.wait({working})
    await client.close()
    await server.stop(1)


async def an_order(world: World) -> Order:
    async with asyncio.timeout(BOUND_S):
        while True:
            orders, strangers = await world.supervisor().orders(8, None)
            assert strangers == ()
            if orders:
                return orders[0]


async def test_a_job_goes_over_the_wire_and_comes_to_its_end(world: World) -> None:
    job = await world.job()
    order = await an_order(world)
    assert order.job == await world.jobs.look(job)
    assert (order.task.work.name, order.task.work.version) == ("/dap/stor/ä", VERSION)
    supervisor = world.supervisor()
    await supervisor.results([Result(order.task.attempt, [Made("/dap/stor/out", 0)])], [])
    reducer = await an_order(world)
    assert reducer.task.work.reducer == 0
    async with asyncio.timeout(BOUND_S):
        whole = False
        while not whole:
            feeds, whole = await supervisor.feed(job, 1, 0, 0, 16)
    assert [(feed.name, feed.version, feed.number) for feed in feeds] == [("/dap/stor/out", VERSION, 1)]
    await supervisor.results([Result(reducer.task.attempt, error=JobError(1, "UserTaskError", "exit €"))], [])
    async with asyncio.timeout(BOUND_S):
        while (await world.jobs.look(job)).state != State.DONE:
            await asyncio.sleep(0.001)
    assert [error.message for error in world.jobs.errors(job)] == ["exit €"]


async def test_names_in_great_number_go_before_the_result(world: World) -> None:
    job = await world.job()
    order = await an_order(world)
    supervisor, attempt = world.supervisor(), order.task.attempt
    names = [Made(f"/dap/stor/{n}€", n % 2 or None) for n in range(4500)]
    for after in (0, 2000, 2000):
        assert await supervisor.made(attempt, after, names[after : after + 2000])
    assert not await supervisor.made(replace(attempt, number=1), 0, names[:1])
    await supervisor.results([Result(attempt, names[4000:])], [])
    async with asyncio.timeout(BOUND_S):
        while len(world.jobs.names(job, 1)) < 4500:
            await asyncio.sleep(0.001)
    assert [(item.name, item.reducer) for item in world.jobs.names(job, 1)] == [
        (one.name, one.reducer) for one in names
    ]
    assert {item.first_input for item in world.jobs.names(job, 1)} == {"/dap/stor/ä"}


async def test_what_came_to_nothing_is_given_out_again(world: World) -> None:
    await world.job()
    order = await an_order(world)
    await world.supervisor().results([], [order.task.attempt])
    assert (await an_order(world)).task.attempt.number == 1


async def test_what_an_agent_has_and_should_not_is_told(world: World) -> None:
    await world.job()
    order = await an_order(world)
    await world.supervisor().results([], [order.task.attempt])
    _, strangers = await world.supervisor().orders(8, [order.task.attempt])
    assert strangers == (order.task.attempt,)


async def test_nobody_leads_another_shard_here(world: World) -> None:
    with pytest.raises(Unavailable, match=r"503 .*nobody leads the jobs of shard '2' here"):
        await world.supervisor(2).orders(8, None)


async def test_who_has_another_key_is_not_heard(world: World) -> None:
    with pytest.raises(Unavailable, match="403"):
        await world.supervisor(key=b"x" * 32).results([], [])


async def test_a_supervisor_that_is_not_there_is_unavailable(world: World) -> None:
    with pytest.raises(Unavailable, match="ask the supervisor of shard 1"):
        await world.supervisor(where=Address("127.0.0.1", 1)).results([], [])
    nobody = HttpSupervisor(1, lambda: None, world.client, key=KEY, me=Agent("s-a", "1"), clock=ManualClock())
    with pytest.raises(Unavailable, match="nobody leads"):
        await nobody.results([], [])


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/jobs/1/orders", b"", 400),
        ("/jobs/1/orders", b"[]", 400),
        ("/jobs/1/results", b'{"agent":{}}', 400),
        ("/jobs/1/feed", b'{"job":"x"}', 400),
        ("/jobs/1/wake/no-job", b"", 400),
        ("/jobs/x/orders", b"", 503),
        ("/", b"", 503),
        ("/jobs/1/nothing", b"", 404),
        ("/jobs/1", b"", 404),
    ],
)
async def test_what_is_not_understood_is_refused(world: World, path: str, body: bytes, status: int) -> None:
    grant = Grant("POST", SUBJECT, None, int(ManualClock().now_s()) + 60, "s-a")
    async with await world.client.request(
        world.address, "POST", path, headers=[(HEADER, sign(KEY, grant))], body=body
    ) as reply:
        assert reply.status == status
