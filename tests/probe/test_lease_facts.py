"""The facts of PostgreSQL, asyncpg and ZooKeeper on which the lease rests, seen again on the versions that we ship.

A primary whose synchronous standby isn't there makes every commit wait. Whoever gives up on such a commit must not make its row
visible: nobody else has it, and it vanishes with the next failover.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from mobula.metadata.guard import Lost, fetch
from mobula.metadata.migrate import migrate
from mobula.wire.zookeeper import Client
from tests.probe import zookeeper
from tests.probe.machine import folder
from tests.probe.postgres import Server
from tests.probe.shard import GRANT, HOUR

pytestmark = pytest.mark.probe

GONE = "synchronous_standby_names = 'gone'\n"
INSERT = "INSERT INTO t VALUES ($1) RETURNING a"
PATIENCE_S = 0.4

ASYNCPG_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
VALUES = itertools.count(1)
"""every test has a row of its own: a restart publishes what earlier tests left waiting"""

type Attempt = Callable[["Primary", int], Awaitable[Any]]


class Primary:
    """A primary with this release's schema whose synchronous standby isn't there."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.opened: list[asyncpg.Connection] = []

    async def connect(self, **settings: Any) -> asyncpg.Connection:
        connection = await self.server.connect(database="mobula", **settings)
        self.opened.append(connection)
        return connection

    async def query(self, sql: str, *args: object) -> Any:
        """One value, by a connection whose commits don't wait."""
        connection = await self.connect(server_settings={"synchronous_commit": "local"})
        try:
            return await connection.fetchval(sql, *args)
        finally:
            await connection.close()

    async def visible(self, a: int) -> bool:
        return bool(await self.query("SELECT EXISTS (SELECT FROM t WHERE a = $1)", a))

    async def until(self, sql: str, *args: object) -> None:
        """Wait, bounded, until the query says true."""
        async with asyncio.timeout(10):
            while not await self.query(sql, *args):
                await asyncio.sleep(0.02)

    async def until_waiting(self, connection: asyncpg.Connection) -> None:
        """Until that connection's commit waits for the standby."""
        await self.until(
            "SELECT wait_event = 'SyncRep' FROM pg_stat_activity WHERE pid = $1", connection.get_server_pid()
        )


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with folder() as at:
        made = Server(at)
        try:
            made.make()
            made.start()
            asyncio.run(_prepare(made))
            yield made
        finally:
            made.stop(signal.SIGKILL)


async def _prepare(server: Server) -> None:
    await server.ready()
    await migrate(str(server.folder), server.port)
    connection = await server.connect(database="mobula")
    await connection.execute("CREATE TABLE t (a int)")
    await connection.close()
    server.stop(signal.SIGINT)
    server.configure(GONE)
    server.start()
    await server.ready()


@pytest_asyncio.fixture
async def primary(server: Server) -> AsyncIterator[Primary]:
    made = Primary(server)
    yield made
    # Whatever still waits is dropped with its server.
    server.stop(signal.SIGQUIT)
    for connection in made.opened:
        connection.terminate()
    server.start()
    await server.ready()


async def _timeout_argument(p: Primary, a: int) -> object:
    return await (await p.connect()).fetchval(INSERT, a, timeout=PATIENCE_S)


async def _wait_for(p: Primary, a: int) -> object:
    return await asyncio.wait_for((await p.connect()).fetchval(INSERT, a), PATIENCE_S)


async def _command_timeout(p: Primary, a: int) -> object:
    return await (await p.connect(command_timeout=PATIENCE_S)).fetchval(INSERT, a)


async def _cancelled_task(p: Primary, a: int) -> object:
    connection = await p.connect()
    task = asyncio.ensure_future(connection.fetchval(INSERT, a))
    await p.until_waiting(connection)
    task.cancel()
    return await task


async def _pool(p: Primary, a: int) -> object:
    where = {"host": str(p.server.folder), "port": p.server.port, "user": "postgres", "database": "mobula"}
    async with asyncpg.create_pool(min_size=1, max_size=1, **where) as pool:
        return await asyncio.wait_for(pool.fetchval(INSERT, a), PATIENCE_S)


async def _close_with_timeout(p: Primary, a: int) -> object:
    connection = await p.connect()
    task = asyncio.ensure_future(connection.fetchval(INSERT, a))
    await p.until_waiting(connection)
    with contextlib.suppress(TimeoutError, asyncpg.InterfaceError):
        await connection.close(timeout=PATIENCE_S)
    return await task


async def _terminated_backend(p: Primary, a: int) -> object:
    connection = await p.connect()
    task = asyncio.ensure_future(connection.fetchval(INSERT, a))
    await p.until_waiting(connection)
    await p.query("SELECT pg_terminate_backend($1)", connection.get_server_pid())
    return await task


async def _never_cancel(p: Primary, a: int, **settings: str) -> object:
    return await fetch(await p.connect(server_settings=settings), INSERT, a, timeout_s=PATIENCE_S * 2)


async def _never_cancel_statement_timeout(p: Primary, a: int) -> object:
    return await _never_cancel(p, a, statement_timeout="200ms")


async def _never_cancel_lock_timeout(p: Primary, a: int) -> object:
    return await _never_cancel(p, a, lock_timeout="100ms", idle_in_transaction_session_timeout="100ms")


async def _never_cancel_connection_check(p: Primary, a: int) -> object:
    return await _never_cancel(p, a, client_connection_check_interval="50ms")


async def _shield_and_abort(p: Primary, a: int) -> object:
    connection = await p.connect()
    task = asyncio.ensure_future(connection.fetchval(INSERT, a))
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    try:
        return await asyncio.wait_for(asyncio.shield(task), PATIENCE_S)
    except TimeoutError:
        connection._transport.abort()
        raise


async def _caller_cancelled(p: Primary, a: int) -> object:
    connection = await p.connect()
    caller = asyncio.ensure_future(fetch(connection, INSERT, a, timeout_s=60))
    await p.until_waiting(connection)
    caller.cancel()
    return await caller


async def _outcome(attempt: Attempt, p: Primary, a: int) -> BaseException | object:
    try:
        return await attempt(p, a)
    except (TimeoutError, asyncio.CancelledError, Lost, OSError, *ASYNCPG_ERRORS) as error:
        return error


async def test_a_commit_waits_for_a_standby_that_is_not_there(primary: Primary) -> None:
    connection = await primary.connect()
    value = next(VALUES)
    task = asyncio.ensure_future(connection.fetchval(INSERT, value))
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    await primary.until_waiting(connection)
    assert not await primary.visible(value)
    connection.terminate()


@pytest.mark.parametrize(
    "attempt",
    [_timeout_argument, _wait_for, _command_timeout, _cancelled_task, _pool, _close_with_timeout, _terminated_backend],
)
async def test_whoever_gives_up_by_a_cancel_makes_an_unreplicated_row_visible(
    primary: Primary, attempt: Attempt
) -> None:
    value = next(VALUES)
    await _outcome(attempt, primary, value)
    await primary.until("SELECT EXISTS (SELECT FROM t WHERE a = $1)", value)


@pytest.mark.parametrize(
    "attempt",
    [
        _never_cancel,
        _never_cancel_statement_timeout,
        _never_cancel_lock_timeout,
        _never_cancel_connection_check,
        _shield_and_abort,
        _caller_cancelled,
    ],
)
async def test_whoever_closes_the_socket_makes_nothing_visible(primary: Primary, attempt: Attempt) -> None:
    value = next(VALUES)
    outcome = await _outcome(attempt, primary, value)
    assert isinstance(outcome, TimeoutError | Lost | asyncio.CancelledError)
    await asyncio.sleep(0.5)  # time for a cancel, if there were one, to do its harm
    assert not await primary.visible(value)
    waiting = (
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND application_name <> 'guard-beats'"
    )
    assert await primary.query(waiting)


async def test_a_lone_restart_publishes_commits_that_nobody_acknowledged(server: Server) -> None:
    primary = Primary(server)
    connection = await primary.connect()
    value = next(VALUES)
    task = asyncio.ensure_future(connection.fetchval(INSERT, value))
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    await primary.until_waiting(connection)
    server.stop(signal.SIGQUIT)
    server.start()
    await server.ready()
    assert await primary.visible(value)


@pytest.mark.parametrize("synchronous_commit", ["on", "off"])
async def test_an_unlogged_commit_that_sets_hint_bits_waits_unless_synchronous_commit_is_off(
    primary: Primary, synchronous_commit: str
) -> None:
    await primary.query("DROP TABLE IF EXISTS h")
    await primary.query("CREATE TABLE h AS SELECT g FROM generate_series(1, 10000) g")
    await primary.query("CREATE UNLOGGED TABLE IF NOT EXISTS u (a int)")
    await primary.query("CHECKPOINT")
    connection = await primary.connect(server_settings={"synchronous_commit": synchronous_commit})

    async def commit() -> None:
        async with connection.transaction():
            await connection.execute("INSERT INTO u VALUES (1)")
            await connection.fetchval("SELECT count(*) FROM h")

    task = asyncio.ensure_future(commit())
    done, _ = await asyncio.wait({task}, timeout=1.5)
    connection.terminate()
    task.add_done_callback(lambda t: t.cancelled() or t.exception())
    assert bool(done) is (synchronous_commit == "off")


async def test_the_lease_survives_a_clean_restart_as_a_row_but_not_as_a_lease(server: Server) -> None:
    primary = Primary(server)
    assert await primary.query(GRANT, HOUR)
    assert await primary.query("SELECT fence.require()") == 1
    server.stop(signal.SIGINT)
    server.start()
    await server.ready()
    assert await primary.query(
        "SELECT until > clock_timestamp() AND boot <> pg_postmaster_start_time() FROM fence.lease"
    )
    assert await primary.query("SELECT fence.leased()") is None
    with pytest.raises(asyncpg.PostgresError, match="not leased") as refused:
        await primary.query("SELECT fence.require()")
    assert refused.value.sqlstate == "FZ001"
    assert await primary.query(GRANT, HOUR)
    assert await primary.query("SELECT fence.require()") == 1


async def test_the_lease_is_gone_after_a_crash(server: Server) -> None:
    primary = Primary(server)
    assert await primary.query(GRANT, HOUR)
    await primary.query("CHECKPOINT")
    server.stop(signal.SIGQUIT)
    server.start()
    await server.ready()
    assert await primary.query("SELECT count(*) FROM fence.lease") == 0


async def test_a_revoked_lease_is_not_granted_again_in_this_run(server: Server) -> None:
    primary = Primary(server)
    assert await primary.query(GRANT, HOUR)
    await primary.query("SELECT fence.revoke()")
    assert await primary.query("SELECT fence.leased()") is None
    assert not await primary.query(GRANT, HOUR)
    server.stop(signal.SIGINT)
    server.start()
    await server.ready()
    assert await primary.query(GRANT, HOUR)


async def test_a_standby_can_not_read_the_lease(server: Server) -> None:
    primary = Primary(server)
    assert await primary.query(GRANT, HOUR)
    with folder() as at:
        standby = Server(at)
        try:
            standby.copy_of(server, "reader")
            standby.start()
            await standby.ready()
            connection = await standby.connect(database="mobula")
            with pytest.raises(asyncpg.FeatureNotSupportedError) as refused:
                await connection.fetchval("SELECT fence.leased()")
            assert refused.value.sqlstate == "0A000"
            assert await connection.fetchval("SELECT n FROM fence.heartbeat") == 0
            await connection.close()
        finally:
            standby.stop(signal.SIGKILL)


async def test_a_recreated_key_has_the_same_version_and_another_czxid() -> None:
    with folder() as at:
        keeper = zookeeper.Server(at)
        client = Client([keeper.address])
        try:
            keeper.start()
            client.start()
            await client.wait_connected(10)
            await client.create("/leader", b"a", ephemeral=True)
            first = await client.get("/leader")
            await client.delete("/leader")
            await client.create("/leader", b"b", ephemeral=True)
            second = await client.get("/leader")
        finally:
            await client.stop()
            keeper.stop()
    assert first.version == second.version
    assert first.czxid < second.czxid
