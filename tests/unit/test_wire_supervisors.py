"""Who leads the jobs of a shard, and telling it that something has happened."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
import structlog

from mobula.core.capability import HEADER, verify
from mobula.core.clock import SystemClock
from mobula.wire.http_client import HttpClient
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer
from mobula.wire.supervisors import SUBJECT, Line, Supervisors

KEY = b"k" * 32
JOB = uuid.UUID(int=7)


class Listening:
    """A supervisor that notes what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.heard = asyncio.Event()

    async def handle(self, request: Request, response: Response) -> None:
        verify([KEY], request.headers.get(HEADER), "POST", SUBJECT, None, now_s=SystemClock().now_s())
        self.told.append(request.path.decode())
        self.heard.set()
        await response.send(204)


def supervisors(**nodes: bytes) -> Supervisors:
    """As ZooKeeper's picture says."""
    zookeeper: Any = None
    found = Supervisors(zookeeper)
    found._on_change({"supervisors": {name.replace("_", "-"): data for name, data in nodes.items()}})
    return found


@pytest_asyncio.fixture
async def client() -> AsyncIterator[HttpClient]:
    made = HttpClient()
    yield made
    await made.close()


def test_each_shards_supervisor_is_where_its_node_says() -> None:
    found = supervisors(shard_1=b"10.0.0.1:8083", shard_2=b"\xff", shard_3=b"nothing")
    assert [found.of(shard) for shard in (1, 2, 3, 4)] == [Address("10.0.0.1", 8083), None, None, None]
    assert found.count == 1


async def test_a_supervisor_is_told(client: HttpClient) -> None:
    listening = Listening()
    server = HttpServer(listening.handle)
    port = await server.listen("127.0.0.1", 0)
    found = supervisors(shard_2=f"127.0.0.1:{port}".encode())
    Line(found, client, key=KEY, caller="api-1", clock=SystemClock()).wake(2, JOB)
    async with asyncio.timeout(5):
        await listening.heard.wait()
    assert listening.told == [f"/jobs/2/wake/{JOB}"]
    await client.close()
    await server.stop(1)


async def test_nobody_to_tell_is_no_error(client: HttpClient) -> None:
    line = Line(supervisors(shard_1=b"127.0.0.1:1"), client, key=KEY, caller="api-1", clock=SystemClock())
    line.wake(2, JOB)
    with structlog.testing.capture_logs() as logs:
        line.wake(1, JOB)
        async with asyncio.timeout(5):
            while not logs:
                await asyncio.sleep(0)
    assert logs[0]["event"] == "supervisor not woken"
