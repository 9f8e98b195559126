"""Upgraded connections: asked for, granted, refused, and passed on by a process in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from mobula.wire import websocket
from mobula.wire.http_client import Address, HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_message import Headers
from mobula.wire.http_server import HttpServer
from mobula.wire.tunnel import Tunnel, TunnelClosed

BOUND_S = 10.0
ASKED = [
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "WebSocket"),
    ("Sec-WebSocket-Key", "k"),
    ("Sec-WebSocket-Version", "13"),
]


class Behind:
    """Grants, and sends back what it gets; `/no` is refused, `/deaf` reads nothing, `/last` says a word and ends."""

    def __init__(self) -> None:
        self.tunnel: Tunnel | None = None
        self.over = asyncio.Event()

    async def handle(self, request: Request, response: Response) -> None:
        if request.path == b"/no":
            await response.send_error(409, "EntityAlreadyExists", "there is one")
            return
        tunnel = self.tunnel = response.upgrade([("Upgrade", "websocket"), ("Sec-WebSocket-Accept", "a")])
        if request.path == b"/deaf":
            await self.over.wait()
            return
        if request.path == b"/last":
            tunnel.close(b"x" * 1_000_000)
            return
        with contextlib.suppress(TunnelClosed):
            while data := await tunnel.read():
                await tunnel.write(data)
        self.over.set()


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[tuple[Behind, HttpClient, Address, HttpServer]]:
    """A server that grants, one before it that passes on, and a client."""
    behind, client = Behind(), HttpClient()
    server = HttpServer(behind.handle)
    there = Address("127.0.0.1", await server.listen("127.0.0.1", 0))

    async def between(request: Request, response: Response) -> None:
        headers = websocket.asked_on(request.headers) if websocket.is_asked_for(request.headers) else []
        reply = await client.request(there, "GET", request.path.decode(), headers=headers)
        if reply.status == websocket.SWITCHING:
            await websocket.pass_on(reply, response)
        else:
            await response.send(reply.status, [], await reply.body())

    front = HttpServer(between)
    here = Address("127.0.0.1", await front.listen("127.0.0.1", 0))
    try:
        async with asyncio.timeout(BOUND_S):
            yield behind, client, here, front
    finally:
        behind.over.set()
        await client.close()
        await front.stop(1.0)
        await server.stop(1.0)


def test_what_asks_for_a_websocket() -> None:
    def asked(**changes: str) -> bool:
        fields = {**dict(ASKED), **{name.replace("_", "-"): value for name, value in changes.items()}}
        return websocket.is_asked_for(Headers([(k.encode(), v.encode()) for k, v in fields.items()]))

    assert asked()
    assert not asked(Connection="close")
    assert not asked(Upgrade="h2c")
    assert not asked(Sec_WebSocket_Version="8")
    assert not asked(Sec_WebSocket_Key="")


async def test_bytes_go_both_ways_through_a_process_in_between() -> None:
    async with world() as (behind, client, here, _):
        reply = await client.request(here, "GET", "/", headers=ASKED)
        assert (reply.status, reply.headers.get("sec-websocket-accept")) == (101, "a")
        assert (reply.headers.get("connection"), reply.headers.get("upgrade")) == ("Upgrade", "websocket")
        tunnel = reply.tunnel()
        sent = bytes(n % 251 for n in range(3_000_000))
        sending = asyncio.create_task(tunnel.write(sent))
        got = b""
        while len(got) < len(sent):
            got += await tunnel.read()
        await sending
        assert got == sent
        tunnel.close()
        await behind.over.wait()


async def test_what_is_refused_there_is_refused_here() -> None:
    async with world() as (_, client, here, _):
        reply = await client.request(here, "GET", "/no", headers=ASKED)
        assert reply.status == 409
        assert b"there is one" in await reply.body()


async def test_the_last_words_arrive_before_the_end() -> None:
    async with world() as (_, client, here, _):
        tunnel = (await client.request(here, "GET", "/last", headers=ASKED)).tunnel()
        got = 0
        while data := await tunnel.read():
            got += len(data)
        assert got == 1_000_000


async def test_who_is_not_read_can_not_send_without_end() -> None:
    async with world() as (behind, client, here, _):
        tunnel = (await client.request(here, "GET", "/deaf", headers=ASKED)).tunnel()
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                async with asyncio.timeout(0.5):
                    await tunnel.write(b"x" * 65_536)
                sent += 65_536
        assert sent < 64_000_000  # buffers of the kernel and of three processes
        behind.over.set()
        tunnel.close()


async def test_a_server_that_stops_ends_its_tunnels() -> None:
    async with world() as (_, client, here, front):
        tunnel = (await client.request(here, "GET", "/", headers=ASKED)).tunnel()
        await tunnel.write(b"x")
        assert await tunnel.read() == b"x"
        await front.stop(BOUND_S)
        assert await tunnel.read() == b""


async def test_bytes_may_follow_the_request_at_once() -> None:
    async with world() as (_, _, here, _):
        reader, writer = await asyncio.open_connection(here.host, here.port)
        fields = "".join(f"{name}: {value}\r\n" for name, value in ASKED)
        writer.write(f"GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\nearly".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
        assert await reader.readexactly(5) == b"early"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_an_upgrade_that_nobody_grants_is_an_answer_and_the_end() -> None:
    async def handle(request: Request, response: Response) -> None:
        await response.send(200, [], request.path)

    server = HttpServer(handle)
    port = await server.listen("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    fields = "".join(f"{name}: {value}\r\n" for name, value in ASKED)
    writer.write(f"GET /x HTTP/1.1\r\nHost: h\r\n{fields}\r\nGET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n".encode())
    text = await reader.read()
    assert text.endswith(b"/x")
    assert text.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in text
    writer.close()
    await writer.wait_closed()
    await server.stop(1.0)
