"""What a task's requests become: a door and a server behind it, both on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio

from mobula.jobs import door as doors
from mobula.jobs.door import AT_ONCE, Door
from mobula.metadata.jobs import Made
from mobula.wire.http_client import Address, AnsweredEarly, ClientResponse, HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_message import Pairs
from mobula.wire.http_server import HttpServer


@dataclass
class Behind:
    """The server behind: takes what it gets, answers as it is told."""

    status: int = 204
    body: bytes = b""
    headers: Pairs = ()
    early: bool = False
    """answer before the body is there"""
    seen: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    running: int = 0
    most: int = 0
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: Request, response: Response) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.go.wait()
        body = b"" if self.early else await request.body(1 << 30)
        self.seen.append((request.method, request.target.decode(), {n.lower(): v for n, v in request.headers}, body))
        self.running -= 1
        if self.body:
            await response.start(self.status, self.headers, len(self.body))
            await response.write(self.body)
            await response.finish()
        else:
            await response.send(self.status, self.headers)


@dataclass
class World:
    door: Door
    behind: Behind
    client: HttpClient
    address: Address

    async def ask(self, method: str, target: str, headers: Pairs = (), body: bytes = b"") -> ClientResponse:
        return await self.client.request(self.address, method, target, headers=headers, body=body)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    behind = Behind()
    behind.go.set()
    server, client = HttpServer(behind.handle), HttpClient()
    upstream = Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    door = Door(client, lambda: upstream, lambda: "secret")
    front = HttpServer(door.handle)
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setblocking(False)
    address = Address("127.0.0.1", listening.getsockname()[1])
    await front.listen_on(listening)
    yield World(door, behind, client, address)
    await client.close()
    await front.stop(1)
    await server.stop(1)


async def test_a_request_goes_on_as_the_jobs_users(world: World) -> None:
    world.behind.status, world.behind.body, world.behind.headers = 200, b"bytes", [("Etag", "e"), ("Content-MD5", "x")]
    headers = [("M-Colour", "grün"), ("Authorization", "Signature other"), ("X-Request-Id", "r1")]
    async with await world.ask("GET", "/dap/stor/a%20b?limit=3&x=%2F", headers) as reply:
        assert (reply.status, await reply.body()) == (200, b"bytes")
        assert (reply.headers.get("etag"), reply.headers.get("content-md5"), reply.headers.get("x-request-id")) == (
            "e",
            "x",
            "r1",
        )
    ((method, target, seen, _),) = world.behind.seen
    assert (method, target) == ("GET", "/dap/stor/a%20b?limit=3&x=%2F")
    assert (seen["authorization"], seen["m-colour"], seen["x-request-id"]) == ("Token secret", "grün", "r1")


@pytest.mark.parametrize("length", [0, 1, 70_000, 3 << 20])
async def test_bodies_go_through_whole_both_ways(world: World, length: int) -> None:
    body = bytes(n % 251 for n in range(length))
    world.behind.status, world.behind.body = 200, body
    async with await world.ask("POST", "/dap/jobs/x/live/in", body=body) as reply:
        assert await reply.body(1 << 30) == body
    assert world.behind.seen[0][3] == body


async def test_an_object_that_is_put_as_an_output_is_emitted(world: World) -> None:
    headers = [("X-Manta-Stream", "stdout"), ("X-Manta-Reducer", "7"), ("Content-Type", "text/plain")]
    await (await world.ask("PUT", "/dap/stor//a%20b", headers, b"body")).close()
    await (await world.ask("PUT", "/dap/stor/other", body=b"body")).close()
    assert world.door.take() == [Made("/dap/stor/a b", 7)]
    assert world.door.take() == []
    assert not {"x-manta-stream", "x-manta-reducer"} & set(world.behind.seen[0][2])


async def test_what_was_refused_is_not_emitted(world: World) -> None:
    world.behind.status = 404
    async with await world.ask("PUT", "/dap/stor/a", [("x-manta-stream", "stdout")], b"body") as reply:
        assert reply.status == 404
    assert world.door.take() == []


async def test_a_reference_is_emitted_without_asking_anybody(world: World) -> None:
    headers = [("x-manta-reference", "true"), ("x-manta-reducer", "0")]
    async with await world.ask("PUT", "/dap//stor/a", headers) as reply:
        assert reply.status == 204
    assert world.door.take() == [Made("/dap/stor/a", 0)]
    assert not world.behind.seen


async def test_who_emits_more_than_is_taken_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "TAKEN", 5)

    async def emit(n: int) -> None:
        async with await world.ask("PUT", f"/dap/stor/{n}", [("x-manta-reference", "true")]) as reply:
            assert reply.status == 204

    asked = [asyncio.create_task(emit(n)) for n in range(23)]
    found: list[Made] = []
    async with asyncio.timeout(5):
        await world.door.full()
        await asyncio.sleep(0.1)
        while len(found) < 23:
            taken = world.door.take()
            assert len(taken) <= 10
            found += taken
            await asyncio.sleep(0.001)
        await asyncio.gather(*asked)
    assert sorted(made.name for made in found) == sorted(f"/dap/stor/{n}" for n in range(23))


@pytest.mark.parametrize(
    ("headers", "path", "status"),
    [
        ([("x-manta-stream", "stdout"), ("x-manta-reducer", "128")], "/dap/stor/a", 409),
        ([("x-manta-stream", "stdout"), ("x-manta-reducer", "-1")], "/dap/stor/a", 409),
        ([("x-manta-stream", "stdout"), ("x-manta-reducer", "x" * 900)], "/dap/stor/a", 409),
        ([("x-manta-stream", "stderr")], "/dap/stor/a", 409),
        ([("x-manta-stream", "core")], "/dap/stor/a", 409),
        ([("x-manta-reference", "true")], "/dap/stor/%ff", 400),
        ([("x-manta-reference", "true")], "/dap/stor/%zz", 400),
    ],
)
async def test_what_can_not_be_emitted_is_refused(world: World, headers: Pairs, path: str, status: int) -> None:
    async with await world.ask("PUT", path, headers, b"body") as reply:
        assert reply.status == status
    assert world.door.take() == []
    assert not world.behind.seen


async def test_a_body_that_is_not_wanted_is_not_taken(world: World) -> None:
    """A client that puts a stream makes the directory first when it hears 404, and still has its stream then."""
    world.behind.status, world.behind.early = 404, True
    upload = await world.client.open(world.address, "PUT", "/dap/stor/none/a", content_length=None)
    assert upload.answered
    with pytest.raises(AnsweredEarly):
        await upload.write(b"x")
    assert (await upload.response()).status == 404


async def test_more_requests_than_a_task_may_have_wait(world: World) -> None:
    world.behind.go.clear()
    asked = [asyncio.create_task(world.ask("HEAD", f"/dap/stor/{n}")) for n in range(AT_ONCE + 5)]
    async with asyncio.timeout(5):
        while world.behind.running < AT_ONCE:
            await asyncio.sleep(0.01)
        world.behind.go.set()
        for reply in await asyncio.gather(*asked):
            await reply.close()
    assert world.behind.most == AT_ONCE


async def test_a_client_that_goes_away_leaves_its_place_to_others(world: World) -> None:
    for _ in range(AT_ONCE * 2):
        upload = await world.client.open(world.address, "PUT", "/dap/stor/a", content_length=1 << 20)
        await upload.write(b"part")
        upload.abort()
    async with asyncio.timeout(5), await world.ask("PUT", "/dap/stor/b", body=b"x") as reply:
        assert reply.status == 204


@pytest.mark.parametrize(("status", "failed"), [(204, False), (404, False), (501, False), (500, True), (503, True)])
async def test_who_was_failed_is_known_until_somebody_asks(world: World, status: int, *, failed: bool) -> None:
    world.behind.status = status
    await (await world.ask("PUT", "/dap/stor/a", body=b"body")).close()
    assert [world.door.failed(), world.door.failed()] == [failed, False]


async def test_nobody_behind_is_a_503() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = Address("127.0.0.1", taken.getsockname()[1])
    client = HttpClient()
    door = Door(client, lambda: nobody, lambda: "t")
    front = HttpServer(door.handle)
    address = Address("127.0.0.1", await front.listen("127.0.0.1", 0))
    async with await client.request(address, "GET", "/dap/stor/a") as reply:
        assert (reply.status, reply.headers.get("retry-after")) == (503, "1")
    assert door.failed()
    await client.close()
    await front.stop(1)
