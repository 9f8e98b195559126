"""A host lives if its kernel answers, whatever it says."""

from __future__ import annotations

import asyncio

import pytest

from mobula.wire.hosts import host_lives


async def test_a_host_that_refuses_a_connection_lives_and_one_that_is_silent_does_not(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    assert await host_lives("127.0.0.1", unused_tcp_port, timeout_s=0.5)

    async def silent(*_: object) -> None:
        await asyncio.sleep(5)

    monkeypatch.setattr(asyncio, "open_connection", silent)
    assert not await host_lives("127.0.0.1", unused_tcp_port, timeout_s=0.01)


async def test_a_host_that_takes_a_connection_lives() -> None:
    server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        assert await host_lives("127.0.0.1", server.sockets[0].getsockname()[1], timeout_s=0.5)
