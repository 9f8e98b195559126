"""The guard on a real primary, a real synchronous standby and a real ZooKeeper; Patroni's part is played by the test."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field

import asyncpg
import pytest
import pytest_asyncio

from mobula.metadata.config import GuardConfig, Peer
from mobula.metadata.guard import Guard, fetch
from mobula.metadata.migrate import migrate
from mobula.metadata.revoke import revoke
from mobula.wire.zookeeper import Client
from tests.probe import zookeeper
from tests.probe.machine import folder
from tests.probe.postgres import Server

pytestmark = pytest.mark.probe

LEASE_S = 1.0
MARGIN_S = 0.1
SCOPE = "/patroni/shard-1"
SYNC = "synchronous_standby_names = 'b'\n"
BOUND_S = 15.0


@dataclass
class Pair:
    """Peers `a` (primary) and `b` (its synchronous standby) and a ZooKeeper whose keys say so."""

    servers: dict[str, Server]
    keeper: zookeeper.Server
    client: Client
    guards: list[Guard] = field(default_factory=list)

    async def guard(self, name: str) -> Guard:
        """A running guard of that peer."""
        server = self.servers[name]
        peers = tuple(Peer(n, s.address) for n, s in self.servers.items())
        guard = Guard(
            GuardConfig(
                "test", name, name, server.address, 1, peers, (self.keeper.address,),
                socket_dir=str(server.folder), postgres_port=server.port, lease_s=LEASE_S, margin_s=MARGIN_S,
            )
        )  # fmt: skip
        await guard.start()
        self.guards.append(guard)
        return guard

    async def lead(self, name: str, standby: str | None) -> None:
        """Patroni's keys: who leads, and who is synchronous."""
        for path, data in (
            (f"{SCOPE}/leader", name),
            (f"{SCOPE}/sync", json.dumps({"leader": name, "sync_standby": standby})),
        ):
            await self.client.ensure_path(path)
            await self.client.set(path, data.encode())

    async def until_s(self, name: str) -> float:
        """How far in the future the lease of that peer ends, 0 without one."""
        connection = await self.servers[name].connect(database="mobula")
        try:
            sql = "SELECT extract(epoch FROM until - clock_timestamp())::float8 FROM fence.lease WHERE fence.leased() IS NOT NULL"
            return float(await connection.fetchval(sql) or 0.0)
        except asyncpg.FeatureNotSupportedError:
            return 0.0
        finally:
            await connection.close()

    async def leased(self, name: str) -> float:
        """Wait, bounded, until that peer is leased; answers the monotonic time then."""
        async with asyncio.timeout(BOUND_S):
            while not await self.until_s(name):
                await asyncio.sleep(0.01)
        return time.monotonic()

    async def unleased(self, name: str) -> None:
        """Wait, bounded, until that peer is not leased."""
        async with asyncio.timeout(BOUND_S):
            while await self.until_s(name):
                await asyncio.sleep(0.01)


@pytest.fixture
def servers() -> Iterator[tuple[dict[str, Server], zookeeper.Server]]:
    with ExitStack() as stack:
        keeper = zookeeper.Server(stack.enter_context(folder()))
        stack.callback(keeper.stop)
        keeper.start()
        pair = {name: Server(stack.enter_context(folder()), fsync=False) for name in "ab"}
        for server in pair.values():
            stack.callback(server.stop, signal.SIGKILL)
        pair["a"].make()
        pair["a"].start()
        asyncio.run(_prepare(pair["a"]))
        pair["b"].copy_of(pair["a"], "b")
        pair["b"].start()
        asyncio.run(pair["b"].ready())
        yield pair, keeper


async def _prepare(server: Server) -> None:
    await server.ready()
    await migrate(str(server.folder), server.port)
    server.configure(SYNC)
    connection = await server.connect()
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@pytest_asyncio.fixture
async def pair(servers: tuple[dict[str, Server], zookeeper.Server]) -> AsyncIterator[Pair]:
    client = Client([servers[1].address])
    client.start()
    made = Pair(*servers, client)
    try:
        await client.wait_connected(10)
        await made.lead("a", "b")
        yield made
    finally:
        for guard in made.guards:
            await guard.stop()
        await client.stop()


def kind(guard: Guard) -> str:
    lease = guard.status()["lease"]
    return str(lease["kind"]) if isinstance(lease, dict) else ""


async def turns(guard: Guard, wanted: Callable[[Guard], bool]) -> None:
    """Wait, bounded, until the guard is as wanted."""
    async with asyncio.timeout(BOUND_S):
        while not wanted(guard):
            await asyncio.sleep(0.01)


async def test_a_replicated_beat_grants_and_zookeeper_grants_while_the_standby_is_frozen(pair: Pair) -> None:
    guard = await pair.guard("a")
    await turns(guard, lambda g: kind(g) == "G1")
    assert guard.status()["healthy"]
    pair.servers["b"].freeze(frozen=True)
    try:
        gaps = 0
        while kind(guard) != "G2":
            gaps += not await pair.until_s("a")
            await asyncio.sleep(0.01)
        for _ in range(100):
            gaps += not await pair.until_s("a")
            await asyncio.sleep(0.01)
        assert gaps == 0
        await pair.client.delete(f"{SCOPE}/leader")
        began_s = time.monotonic()
        await pair.unleased("a")
        assert time.monotonic() - began_s < LEASE_S + 0.3
        assert not guard.status()["healthy"]
        await pair.lead("a", "b")
        await turns(guard, lambda g: kind(g) == "G2")
    finally:
        pair.servers["b"].freeze(frozen=False)
    await turns(guard, lambda g: kind(g) == "G1")


async def test_a_lease_is_never_longer_than_its_length(pair: Pair) -> None:
    await pair.guard("a")
    await pair.leased("a")
    longest_s = 0.0
    for _ in range(100):
        longest_s = max(longest_s, await pair.until_s("a"))
        await asyncio.sleep(0.01)
    assert 0.5 < longest_s <= LEASE_S


async def test_a_promoted_server_grants_only_after_the_old_ones_lease_has_run_out(pair: Pair) -> None:
    await pair.guard("a")
    new = await pair.guard("b")
    await pair.leased("a")
    await turns(new, lambda g: g.status()["role"] == "standby" and bool(g._signs.complete))
    # The old primary is cut off: it goes on serving under its last lease, and nobody hears of it.
    pair.servers["b"].configure("")
    await pair.guards[0].stop()
    ends_s = time.monotonic() + await pair.until_s("a")
    promoted_s = time.monotonic()
    standby = await pair.servers["b"].connect()
    await standby.fetchval("SELECT pg_promote()")
    await standby.close()
    await pair.lead("b", None)
    granted_s = await pair.leased("b")
    assert granted_s > ends_s
    assert granted_s < promoted_s + LEASE_S + MARGIN_S + 1.0
    connection = await pair.servers["b"].connect(database="mobula")
    assert await connection.fetchval("SELECT fence.require()") == 2
    await connection.close()


async def test_the_early_wait_costs_nothing_when_the_old_primary_was_silent_for_long(pair: Pair) -> None:
    old = await pair.guard("a")
    new = await pair.guard("b")
    await pair.leased("a")
    await turns(new, lambda g: bool(g._signs.complete))
    await old.stop()
    await pair.unleased("a")
    await asyncio.sleep(MARGIN_S + 0.3)
    standby = await pair.servers["b"].connect()
    await standby.fetchval("SELECT pg_promote()")
    await pair.lead("b", None)
    began_s = time.monotonic()
    assert await pair.leased("b") - began_s < 0.9
    await standby.close()


async def test_a_lone_restarted_primary_grants_nothing_until_a_beat_was_replicated(pair: Pair) -> None:
    guard = await pair.guard("a")
    await pair.leased("a")
    pair.servers["b"].stop(signal.SIGINT)
    # A commit that nobody acknowledged: the restart will publish it.
    connection = await pair.servers["a"].connect(database="mobula")
    waiting = asyncio.ensure_future(fetch(connection, "SELECT * FROM fence.beat('unacknowledged')", timeout_s=60))
    waiting.add_done_callback(lambda t: t.cancelled() or t.exception())
    await asyncio.sleep(0.3)
    pair.servers["a"].stop(signal.SIGQUIT)
    pair.servers["a"].start()
    await pair.servers["a"].ready()
    await turns(guard, lambda g: "not clean" in str(g.status()["last"]))
    for _ in range(int((LEASE_S + MARGIN_S + 0.5) / 0.05)):
        assert not await pair.until_s("a")
        await asyncio.sleep(0.05)
    pair.servers["b"].start()
    await pair.leased("a")
    connection.terminate()


async def test_a_lone_restarted_primary_whom_the_sync_key_calls_alone_grants(pair: Pair) -> None:
    guard = await pair.guard("a")
    await pair.leased("a")
    pair.servers["b"].stop(signal.SIGINT)
    pair.servers["a"].stop(signal.SIGQUIT)
    pair.servers["a"].start()
    await pair.servers["a"].ready()
    await pair.lead("a", None)
    await pair.leased("a")
    assert kind(guard) == "G2"


async def test_a_guard_that_was_restarted_skips_the_wait(pair: Pair) -> None:
    guard = await pair.guard("a")
    await pair.leased("a")
    await guard.stop()
    await pair.unleased("a")
    began_s = time.monotonic()
    await pair.guard("a")
    assert await pair.leased("a") - began_s < LEASE_S


async def test_a_revoked_lease_stays_revoked(pair: Pair) -> None:
    guard = await pair.guard("a")
    await pair.leased("a")
    await revoke(str(pair.servers["a"].folder), pair.servers["a"].port)
    assert not await pair.until_s("a")
    await turns(guard, lambda g: "revoked" in str(g.status()["last"]))
    assert not await pair.until_s("a")


async def test_nothing_is_granted_while_synchronous_replication_is_off(pair: Pair) -> None:
    pair.servers["a"].configure("")
    connection = await pair.servers["a"].connect()
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    guard = await pair.guard("a")
    await turns(guard, lambda g: "not in force" in str(g.status()["last"]))
    assert not await pair.until_s("a")
