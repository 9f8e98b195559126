from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import uvloop

from mobula.wire.http_client import (
    Address,
    AnsweredEarly,
    ConnectFailed,
    ConnectionLost,
    HttpClient,
    InvalidResponse,
    ResponseTimeout,
    Timeouts,
    Upload,
)
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer

BOUND_S = 5.0
QUICK = Timeouts(connect_s=1.0, response_s=0.2, idle_s=0.2)
Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def echo(request: Request, response: Response) -> None:
    if request.path == b"/refuse":
        await response.send_error(507, "NotEnoughSpace", "full")
    elif request.path == b"/large":
        await response.start(200)
        for _ in range(100):
            await response.write(b"x" * 65536)
        await response.finish()
    else:
        body = await request.body(1 << 26)
        await response.send(200, [("x-peer-port", str(id(request._connection)))], body)


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[HttpClient, Address, HttpServer]]:
    server, client = HttpServer(echo), HttpClient()
    try:
        yield client, Address("127.0.0.1", await server.listen("127.0.0.1", 0)), server
    finally:
        await client.close()
        await server.stop(1.0)


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[tuple[HttpClient, Address]]:
    """A server that does what it is told, however wrong."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await script(reader, writer)
        finally:
            writer.close()

    client = HttpClient(timeouts=QUICK)
    async with await asyncio.start_server(run, "127.0.0.1", 0) as server:
        yield client, Address("127.0.0.1", server.sockets[0].getsockname()[1])
        await client.close()


async def send_for_ever(upload: Upload) -> None:
    while True:
        await upload.write(b"x" * 65536)
        await asyncio.sleep(0)


def says(*parts: bytes, linger_s: float = 0.0) -> Script:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
            await writer.drain()
        await asyncio.sleep(linger_s)

    return script


async def test_requests_share_a_connection() -> None:
    async with serving() as (client, address, server):
        for text in (b"a", b"bc"):
            response = await client.request(address, "PUT", "/", body=text)
            assert (response.status, await response.body()) == (200, text)
        assert len(server.connections) == 1
        async with await client.request(address, "HEAD", "/") as response:
            assert response.status == 200
        response = await client.request(address, "GET", "/")
        assert await response.body() == b""
        assert len(server.connections) == 1


async def test_a_body_is_streamed_with_and_without_a_known_length() -> None:
    async with serving() as (client, address, _):
        for length in (300_000, None):
            upload = await client.open(address, "PUT", "/", content_length=length)
            for _ in range(3):
                await upload.write(b"y" * 100_000)
            response = await upload.response()
            assert len(await response.body()) == 300_000


@pytest.mark.parametrize("length", [3_000_000, None])
async def test_a_thread_can_send_a_body(length: int | None) -> None:
    async with serving() as (client, address, _):
        upload = await client.open(address, "PUT", "/", content_length=length)
        write = await upload.thread_writer()
        for _ in range(3):
            await asyncio.to_thread(write, memoryview(b"z" * 1_000_000))
        response = await upload.response()
        assert await response.body(1 << 23) == b"z" * 3_000_000


async def test_aborting_an_upload_that_is_over_leaves_its_connection_to_who_uses_it_now() -> None:
    async with serving() as (client, address, server):
        over = await client.open(address, "PUT", "/", content_length=1)
        await over.write(b"x")
        assert await (await over.response()).body() == b"x"
        upload = await client.open(address, "PUT", "/", content_length=2)
        assert len(server.connections) == 1
        over.abort()
        await upload.write(b"yz")
        assert await (await upload.response()).body() == b"yz"


async def test_a_server_that_does_not_want_the_body_says_so_before_it_is_sent() -> None:
    async with serving() as (client, address, _):
        upload = await client.open(address, "PUT", "/refuse", content_length=100)
        assert upload.answered
        with pytest.raises(AnsweredEarly):
            await upload.write(b"x")
        response = await upload.response()
        assert response.status == 507
        assert b"NotEnoughSpace" in await response.body()


async def test_an_answer_in_the_middle_of_a_body_is_noticed() -> None:
    continued = b"HTTP/1.1 100 Continue\r\n\r\n"
    async with scripted(says(continued, b"HTTP/1.1 507 Full\r\nContent-Length: 0\r\n\r\n", linger_s=0.1)) as (
        client,
        address,
    ):
        upload = await client.open(address, "PUT", "/", content_length=1 << 30)
        with pytest.raises(AnsweredEarly):
            await send_for_ever(upload)
        assert (await upload.response()).status == 507


async def test_a_response_left_unread_gives_its_connection_up() -> None:
    async with serving() as (client, address, _):
        async with await client.request(address, "GET", "/large") as response:
            assert len(await anext(response.chunks())) > 0
        response = await client.request(address, "GET", "/large")
        assert sum([len(chunk) async for chunk in response.chunks()]) == 6_553_600


async def test_a_connection_that_died_while_kept_is_replaced_for_what_may_be_asked_twice_only() -> None:
    served = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")  # and dies over the second request

    async with scripted(script) as (client, address):
        for _ in range(3):
            await (await client.request(address, "GET", "/")).body()
        assert served == 3
        await (await client.request(address, "PUT", "/", body=b"x", repeatable=True)).body()
        assert served == 4
        with pytest.raises(ConnectionLost):
            await client.request(address, "POST", "/")
        assert served == 4
        await (await client.request(address, "GET", "/")).body()
        with pytest.raises(ConnectionLost):
            await client.request(address, "GET", "/", repeatable=False)
        assert served == 5


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ((b"",), ConnectionLost),
        ((b"HTTP/1.1 200 OK\r\nContent-Le",), ConnectionLost),
        ((b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",), ConnectionLost),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",), ConnectionLost),
        ((b"nonsense\r\n\r\n",), InvalidResponse),
        ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n",), InvalidResponse),
        ((b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",), InvalidResponse),
        ((b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 60_000 + b"\r\n",), InvalidResponse),
    ],
)
async def test_a_broken_response_has_a_name(parts: tuple[bytes, ...], error: type[Exception]) -> None:
    async with scripted(says(*parts)) as (client, address):
        with pytest.raises(error):
            await (await client.request(address, "GET", "/")).body()


async def test_a_response_without_a_length_ends_with_its_connection() -> None:
    async with scripted(says(b"HTTP/1.1 200 OK\r\n\r\nabc")) as (client, address):
        response = await client.request(address, "GET", "/")
        assert await response.body() == b"abc"


async def test_silence_has_a_name() -> None:
    async with scripted(says(linger_s=1.0)) as (client, address):
        with pytest.raises(ResponseTimeout):
            await client.request(address, "GET", "/")
    async with scripted(says(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", linger_s=1.0)) as (client, address):
        response = await client.request(address, "GET", "/")
        with pytest.raises(ResponseTimeout):
            await response.body()


async def test_nobody_there_has_a_name() -> None:
    async with serving() as (client, address, server):
        await server.stop(1.0)
        with pytest.raises(ConnectFailed, match=r"127\.0\.0\.1"):
            await client.request(address, "GET", "/")


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_whoever_waits_for_a_server_that_is_gone_is_told_at_once() -> None:
    async with scripted(silent) as (_, address):
        patient = HttpClient(timeouts=Timeouts(response_s=600))
        waiting = asyncio.create_task(patient.request(address, "PUT", "/x", body=b"small"))
        until_sent = asyncio.get_running_loop().time() + BOUND_S
        while not patient._open.get(address):
            assert asyncio.get_running_loop().time() < until_sent
            await asyncio.sleep(0.01)
        patient.drop(Address("127.0.0.2", 1))
        patient.drop(address)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(waiting, BOUND_S)
        assert not patient._open[address]
        await patient.close()


async def test_a_thread_that_sends_to_a_server_that_is_gone_is_told_too() -> None:
    over = asyncio.Event()

    async def takes_the_head(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        await over.wait()

    async with scripted(takes_the_head) as (_, address):
        patient = HttpClient(timeouts=Timeouts(idle_s=600))
        upload = await patient.open(address, "PUT", "/x", content_length=1 << 30)
        write = await upload.thread_writer()

        def send() -> None:
            while True:
                write(memoryview(bytes(1 << 20)))

        sending = asyncio.create_task(asyncio.to_thread(send))
        done, _ = await asyncio.wait({sending}, timeout=0.2)  # until the socket is full
        assert not done
        patient.drop(address)
        with pytest.raises(ConnectionLost):
            await asyncio.wait_for(sending, BOUND_S)
        over.set()
        upload.abort()
        await patient.close()


async def test_whoever_gives_up_when_the_answer_has_just_come_leaves_the_connection_to_who_uses_it_now(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (client, address, _):
        keep, kept = client.keep, []

        def keep_and_give_up(connection: Any) -> None:
            keep(connection)
            kept.append(connection)
            asking.cancel()

        monkeypatch.setattr(client, "keep", keep_and_give_up)
        asking = asyncio.create_task(client.request(address, "PUT", "/", body=b"a"))
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert [c.usable(asyncio.get_running_loop().time()) for c in kept] == [True]


def test_connections_that_are_ending_by_themselves_don_t_keep_the_others_from_being_dropped() -> None:
    async def drop_all() -> None:
        async with scripted(silent) as (_, address):
            patient = HttpClient(timeouts=Timeouts(response_s=600))
            asking = [asyncio.create_task(patient.request(address, "GET", "/")) for _ in range(3)]
            async with asyncio.timeout(BOUND_S):
                while len(patient._open.get(address, ())) < len(asking):
                    await asyncio.sleep(0)
            next(iter(patient._open[address])).abort()
            patient.drop(address)
            done = await asyncio.wait_for(asyncio.gather(*asking, return_exceptions=True), BOUND_S)
            assert [type(error) for error in done] == [ConnectionLost] * 3
            await patient.close()

    uvloop.run(drop_all())  # it closes a socket at once; asyncio's own loop a moment later


def test_a_connection_that_was_made_when_its_maker_gave_up_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    async def give_up() -> None:
        async with scripted(silent) as (_, address):
            patient = HttpClient(timeouts=Timeouts(response_s=600))
            opened = patient.opened

            def open_and_give_up(connection: Any) -> None:
                opened(connection)
                asking.cancel()

            monkeypatch.setattr(patient, "opened", open_and_give_up)
            asking = asyncio.create_task(patient.request(address, "GET", "/"))
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(asking, BOUND_S)
            assert not patient._open[address]
            patient.drop(address)
            await patient.close()

    uvloop.run(give_up())
