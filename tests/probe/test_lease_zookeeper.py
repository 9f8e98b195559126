"""Sessions on a real ZooKeeper that is killed on purpose: registrations come back, watches and the cached tree go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import pytest_asyncio

from mobula.wire.zookeeper import Client, NodeExists, NoNode, Registration, Tree, ZooKeeperError
from tests.probe import zookeeper
from tests.probe.zookeeper import keeper as keeper  # noqa: PLC0414 (a fixture)

pytestmark = pytest.mark.probe

SESSION_S = 2.0
PATH = "/names/web/h1"

type Picture = Mapping[str, Mapping[str, bytes]]


@pytest_asyncio.fixture
async def client(keeper: zookeeper.Server) -> AsyncIterator[Client]:
    made = Client([keeper.address], session_s=SESSION_S)
    made.start()
    try:
        await made.wait_connected(10)
        yield made
    finally:
        await made.stop()


async def until(what: Callable[[], object]) -> None:
    """Wait, bounded, until it is so."""
    async with asyncio.timeout(10):
        while not what():
            await asyncio.sleep(0.01)


async def test_nodes_are_made_read_changed_and_removed(client: Client) -> None:
    with pytest.raises(NoNode):
        await client.get("/a/b")
    await client.create("/a/b", b"1")
    with pytest.raises(NodeExists):
        await client.create("/a/b", b"2")
    await client.set("/a/b", b"3")
    node = await client.get("/a/b")
    assert (node.data, node.version) == (b"3", 1)
    assert node.mzxid > node.czxid
    await client.delete("/a/b")
    with pytest.raises(NoNode):
        await client.delete("/a/b")


async def test_calls_fail_at_once_without_a_session_and_work_again_with_one(
    client: Client, keeper: zookeeper.Server
) -> None:
    seen: list[bool] = []
    client.on_state(seen.append)
    keeper.stop()
    await until(lambda: not client.connected)
    began_s = time.monotonic()
    with pytest.raises(ZooKeeperError):
        await client.get("/a")
    assert time.monotonic() - began_s < 0.2
    with pytest.raises(ZooKeeperError, match="answered within"):
        await client.wait_connected(0.2)
    keeper.start()
    await client.wait_connected(10)
    await client.create("/a", b"1")
    await until(lambda: seen and seen[-1])
    assert False in seen


async def test_a_registration_comes_back_after_its_session_was_lost(client: Client, keeper: zookeeper.Server) -> None:
    registration = Registration(client, PATH, b"1")
    registration.ensure()
    await until(lambda: registration.held)
    first = await client.get(PATH)
    keeper.stop()
    await until(lambda: not registration.held)
    await asyncio.sleep(SESSION_S + 1)
    keeper.start()
    await until(lambda: registration.held)
    assert (await client.get(PATH)).czxid >= first.czxid
    await registration.withdraw()
    with pytest.raises(NoNode):
        await client.get(PATH)


async def test_a_registration_takes_over_an_earlier_sessions_node(client: Client, keeper: zookeeper.Server) -> None:
    earlier = Client([keeper.address], session_s=SESSION_S)
    earlier.start()
    try:
        await earlier.wait_connected(10)
        await earlier.create(PATH, b"old", ephemeral=True)
        registration = Registration(client, PATH, b"new")
        registration.ensure()
        await until(lambda: registration.held)
    finally:
        await earlier.stop()
    assert (await client.get(PATH)).data == b"new"
    await registration.withdraw()


async def test_a_watch_calls_back_with_what_is_there_and_with_each_change(
    client: Client, keeper: zookeeper.Server
) -> None:
    seen: list[bytes | None] = []
    client.watch("/w", lambda node: seen.append(node and node.data))
    await until(lambda: seen == [None])
    await client.create("/w", b"1")
    await until(lambda: seen[-1:] == [b"1"])
    keeper.stop()
    await until(lambda: not client.connected)
    keeper.start()
    await client.wait_connected(10)
    await client.set("/w", b"2")
    await until(lambda: seen[-1:] == [b"2"])
    await client.delete("/w")
    await until(lambda: seen[-1:] == [None])


async def test_a_tree_shows_whole_pictures_also_after_a_lost_session(client: Client, keeper: zookeeper.Server) -> None:
    seen: list[Picture] = []
    tree = Tree(client, "/names", seen.append)
    tree.start()
    try:
        await client.create(PATH, b"1")
        await until(lambda: tree.complete and seen[-1:] == [{"web": {"h1": b"1"}}])
        keeper.stop()
        await until(lambda: not client.connected)
        await asyncio.sleep(SESSION_S + 1)
        keeper.start()
        await client.wait_connected(10)
        await client.create("/names/web/h2", b"2")
        await client.set(PATH, b"3")
        await until(lambda: seen[-1:] == [{"web": {"h1": b"3", "h2": b"2"}}])
    finally:
        tree.stop()
