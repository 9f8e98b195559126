from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest

from mobula.wire.http_client import Address, ConnectionLost, HttpClient, RequestFailed, ResponseTimeout, Timeouts
from mobula.wire.http_exchange import ClientAborted, Request, Response
from mobula.wire.http_server import Handler, HttpServer
from mobula.wire.relay import relay

BOUND_S = 10.0
DATA = os.urandom(6_000_000)


@contextlib.asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[Address]:
    server = HttpServer(handler)
    try:
        yield Address("127.0.0.1", await server.listen("127.0.0.1", 0))
    finally:
        await server.stop(1.0)


async def source(request: Request, response: Response) -> None:
    """`/<size>`: so much from the given offset; `/<size>/<cut>`: and ends or stalls after `cut` bytes."""
    parts = request.path.decode().split("/")
    begin, size = int(request.query or 0), int(parts[1])
    await response.start(200, [], size - begin)
    end = int(parts[2]) if len(parts) > 2 else size
    while begin < end:
        await response.write(DATA[begin : min(begin + 50_000, end)])
        begin += 50_000
    if len(parts) > 3:
        await asyncio.Event().wait()
    if len(parts) == 2:
        await response.finish()


@pytest.mark.parametrize("size", [0, 1000, 300_000, 6_000_000])
async def test_a_body_goes_through_whole_and_both_connections_survive(size: int) -> None:
    client = HttpClient()

    async def front(_request: Request, response: Response) -> None:
        async with await client.request(upstream, "GET", f"/{size}") as taken:
            await response.start(200, [], size)
            await relay(taken, response)
            await response.finish()

    async with serving(source) as upstream, serving(front) as address:
        for _ in range(3):
            async with await client.request(address, "GET", "/") as response:
                assert await response.body(1 << 23) == DATA[:size]
        await client.close()


@pytest.mark.parametrize(("cut", "error"), [("/3000000", ConnectionLost), ("/3000000/stall", ResponseTimeout)])
async def test_a_source_that_fails_in_the_middle_is_replaced_where_it_stopped(
    cut: str, error: type[RequestFailed]
) -> None:
    client, hasty = HttpClient(), HttpClient(timeouts=Timeouts(idle_s=0.2))
    size = len(DATA)

    async def front(_request: Request, response: Response) -> None:
        await response.start(200, [], size)
        async with await hasty.request(upstream, "GET", f"/{size}{cut}") as taken:
            with pytest.raises(error):
                await relay(taken, response)
        assert 0 < response.sent_bytes <= 3_000_000
        async with await client.request(upstream, "GET", f"/{size}?{response.sent_bytes}") as taken:
            await relay(taken, response)
        await response.finish()

    async with serving(source) as upstream, serving(front) as address:
        async with await client.request(address, "GET", "/") as response:
            assert await response.body(1 << 23) == DATA
        await client.close()
        await hasty.close()


async def test_a_client_that_goes_away_ends_the_relay() -> None:
    client, ended = HttpClient(), asyncio.Event()

    async def front(_request: Request, response: Response) -> None:
        async with await client.request(upstream, "GET", f"/{len(DATA)}") as taken:
            await response.start(200, [], len(DATA))
            with pytest.raises(ClientAborted):
                await relay(taken, response)
            ended.set()

    async with serving(source) as upstream, serving(front) as address:
        _, writer = await asyncio.open_connection(address.host, address.port, limit=1000)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.sleep(0)
        writer.transport.abort()
        await asyncio.wait_for(ended.wait(), BOUND_S)
        await client.close()
