"""An agent's assets and outputs, through a small Manta of the tests."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from mobula.core.job import JobDocument, Phase
from mobula.jobs import front
from mobula.jobs.front import FrontDoor
from mobula.jobs.lead import Order
from mobula.jobs.runner import NoAsset, StoreError
from mobula.metadata.jobs import Attempt, Job, Owner, State, Task, Work
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from tests.contract.manta import Manta

ROW = Job(
    uuid.UUID(int=1), Owner(uuid.UUID(int=2), "dap"), JobDocument((Phase("wc"),)), State.RUNNING, False, True, (1, 0), (1,), (1,),
)  # fmt: skip
ORDER = Order(Task(Attempt(ROW.id, 1), Work(0, "/dap/stor/a")), ROW)
OUT = "/dap/stor/deep er/down/out"


@dataclass
class World:
    manta: Manta
    door: FrontDoor

    async def put(self, body: bytes, name: str = OUT) -> None:
        with tempfile.TemporaryFile() as file:
            file.write(body)
            file.flush()
            await self.door.put(ORDER, name, file.fileno())

    def methods(self) -> list[str]:
        return [f"{method} {target.decode()}" for method, target in self.manta.seen]


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(front, "PAUSE_S", 0.001)
    manta, client = Manta(), HttpClient()
    server = HttpServer(manta.handle)
    address = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    yield World(manta, FrontDoor(client, lambda: address, lambda job: f"of-{job.owner.login}"))
    await client.close()
    await server.stop(1)


async def unavailable(request: Request, response: Response) -> None:
    await response.send_error(503, "ServiceUnavailable", "not now")


async def gone(_request: Request, response: Response) -> None:
    """The connection breaks in the middle of the answer."""
    await response.start(200, content_length=100)
    await response.write(b"part")


@pytest.mark.parametrize("length", [0, 1, 300_000, 2 << 20])
async def test_an_output_is_put_whole_and_its_directories_are_made(world: World, length: int) -> None:
    body = os.urandom(length)
    await world.put(body)
    await world.door.put(ORDER, f"{OUT} in memory", body)
    assert world.manta.things[OUT].data == world.manta.things[f"{OUT} in memory"].data == body
    assert {"/dap/stor/deep er", "/dap/stor/deep er/down"} <= world.manta.things.keys()


async def test_directories_that_are_known_are_not_made_again(world: World) -> None:
    await world.put(b"1")
    asked = len(world.manta.seen)
    await world.put(b"2", f"{OUT}2")
    assert len(world.manta.seen) == asked + 1


async def test_a_directory_that_was_removed_meanwhile_is_made_again(world: World) -> None:
    await world.put(b"1")
    world.manta.things.clear()
    await world.put(b"2")
    assert world.manta.things[OUT].data == b"2"


async def test_what_can_not_be_put_now_is_tried_again(world: World) -> None:
    world.manta.faults = [unavailable, gone, unavailable]
    await world.put(b"1")
    world.manta.faults = [unavailable, gone, unavailable]
    await world.put(b"22")
    assert world.manta.things[OUT].data == b"22"
    world.manta.faults = [unavailable] * 9
    with pytest.raises(StoreError, match=f"put {OUT}: not in 4 tries"):
        await world.put(b"333")


async def test_what_is_refused_is_not_tried_again(world: World) -> None:
    async def forbidden(_request: Request, response: Response) -> None:
        await response.send_error(403, "AuthorizationFailed", "no")

    await world.put(b"1")
    world.manta.faults, asked = [forbidden], len(world.manta.seen)
    with pytest.raises(StoreError, match="it is refused with 403"):
        await world.put(b"1")
    assert len(world.manta.seen) == asked + 1


async def test_an_asset_is_got_and_may_be_run(world: World, tmp_path: Path) -> None:
    body = os.urandom(700_000)
    world.manta.object("/dap/stor/a tool", body)
    world.manta.faults = [unavailable, gone]
    world.manta.cut_after_bytes = [1000]
    await world.door.fetch(ORDER, "/dap/stor/a tool", tmp_path / "tool")
    assert (tmp_path / "tool").read_bytes() == body
    assert (tmp_path / "tool").stat().st_mode & 0o777 == 0o777


async def test_an_asset_that_is_not_there_is_the_users_error(world: World, tmp_path: Path) -> None:
    with pytest.raises(NoAsset) as caught:
        await world.door.fetch(ORDER, "/dap/stor/none", tmp_path / "tool")
    assert str(caught.value) == 'error retrieving asset "/dap/stor/none" (status code 404)'
    world.manta.faults = [unavailable] * 9
    with pytest.raises(StoreError, match="not in 4 tries"):
        await world.door.fetch(ORDER, "/dap/stor/none", tmp_path / "tool")


async def test_it_asks_as_the_jobs_user(world: World, tmp_path: Path) -> None:
    asked: list[str | None] = []

    async def look(request: Request, response: Response) -> None:
        asked.append(request.headers.get("authorization"))
        await response.send(404)

    world.manta.faults = [look]
    with pytest.raises(NoAsset):
        await world.door.fetch(ORDER, "/dap/stor/none", tmp_path / "tool")
    assert asked == ["Token of-dap"]
