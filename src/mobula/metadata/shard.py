"""One shard: who its primary is, connections to it, and calls that are never cancelled.

The rules (docs/metadata.md): an answer counts only under a lease and not under an older generation than already seen; whoever gives up
closes the socket and never sends a cancel request, because a cancelled commit wait makes an unreplicated row visible; while the leader
key is merely gone, the old leader is still asked: its lease decides.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import msgspec
import structlog

from mobula.metadata.config import Postgres
from mobula.metadata.model import OutcomeUnknown, Unavailable
from mobula.wire.zookeeper import Client, Node, ZooKeeperError

log = structlog.get_logger()

CONNECTIONS_MAX = 24
CONNECT_TIMEOUT_S = 1.0
READ_ATTEMPT_S = 2.0
RETRY_S = 0.1
# not leased, on a standby, read only, starting or stopping, schema not there or not migrated yet, no connection left: nothing happened
NOTHING_HAPPENED = frozenset({"FZ001", "0A000", "25006", "57P03", "42P01", "42883", "3F000", "3D000", "53300"})
# A deadlock or a serialization failure was rolled back: try again.
AGAIN = frozenset({"40P01", "40001"})


class _Member(msgspec.Struct):
    conn_url: str


class Shard:
    """Calls to the primary of one shard. `start` on the event loop first."""

    def __init__(self, number: int, postgres: Postgres, zookeeper: Client) -> None:
        self.number = number
        self._postgres = postgres
        self._zookeeper = zookeeper
        self._ssl = postgres.context()
        self._leader: str | None = None
        self._address: str | None = None
        self._idle: list[asyncpg.Connection] = []
        self._busy: dict[asyncpg.Connection, str] = {}
        """those that wait for an answer, and from whom"""
        self._slots = asyncio.Semaphore(CONNECTIONS_MAX)
        self._changed = asyncio.Event()
        self._generation = 0
        self._background: set[asyncio.Task[Any]] = set()

    def start(self) -> None:
        """Follow Patroni's leader key."""
        self._zookeeper.watch(f"/patroni/shard-{self.number}/leader", self._on_leader)

    def stop(self) -> None:
        """Drop the connections."""
        self._drop_idle()

    def _on_leader(self, node: Node | None) -> None:
        if node is None:
            return
        leader = node.data.decode()
        if leader != self._leader:
            task = asyncio.get_running_loop().create_task(self._follow(leader))
            self._background.add(task)
            task.add_done_callback(self._background.discard)

    async def _follow(self, leader: str) -> None:
        """Learn the leader's address; goes on until it knows it, or another leader has come."""
        self._leader = leader
        while self._leader == leader:
            try:
                node = await self._zookeeper.get(f"/patroni/shard-{self.number}/members/{leader}")
                address = urlsplit(msgspec.json.decode(node.data, type=_Member).conn_url).hostname
            except (ZooKeeperError, msgspec.MsgspecError, ValueError) as error:
                log.info("leader's address not known yet", shard=self.number, leader=leader, why=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            log.info("shard's primary", shard=self.number, leader=leader, address=address)
            self.lead_by(address)
            return

    def lead_by(self, address: str | None) -> None:
        """From now on the primary is there: every connection to another one is dropped at once, also those that wait for an answer.

        A primary that was deposed answers nothing that counts, and one without power nothing at all: whoever waits for it would wait
        until its deadline, and with it every put that goes after that one (`batches.py`).
        """
        if address != self._address:
            self._address = address
            self._drop_idle()
            for connection in [c for c, whose in self._busy.items() if whose != address]:
                connection.terminate()
        self._changed.set()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().terminate()

    async def call(self, sql: str, *args: object, deadline: float, writes: bool) -> list[Any]:
        """Rows of one statement whose first column is ``generation``; tried again while nothing can have happened.

        `deadline` is a time.monotonic() value.

        Raises:
            Unavailable: nothing happened, and the deadline has come.
            OutcomeUnknown: a write was sent and no answer came.
        """
        why = "no attempt was possible"
        while time.monotonic() < deadline:
            self._changed.clear()
            attempt_s = deadline - time.monotonic()
            try:
                return await self._once(sql, args, attempt_s if writes else min(attempt_s, READ_ATTEMPT_S))
            except Unavailable as error:
                why = str(error)
            except OutcomeUnknown as error:
                if writes:
                    raise
                why = str(error)
            await self._pause(deadline)
        raise Unavailable(f"ask shard {self.number}: {why}")

    async def _pause(self, deadline: float) -> None:
        bound = min(RETRY_S, max(0.0, deadline - time.monotonic()))
        try:
            await asyncio.wait_for(self._changed.wait(), bound)
        except TimeoutError:
            return

    async def _once(self, sql: str, args: Sequence[object], timeout_s: float) -> list[Any]:
        address = self._address
        if address is None:
            raise Unavailable("no primary is known")
        end = time.monotonic() + timeout_s
        try:
            # Mostly one is free; only a wait needs a bound.
            await (
                asyncio.wait_for(self._slots.acquire(), timeout_s) if self._slots.locked() else self._slots.acquire()
            )
        except TimeoutError as error:
            raise Unavailable(f"all {CONNECTIONS_MAX} connections are busy") from error
        try:
            connection = await self._connection(address, end)
            self._busy[connection] = address
            try:
                rows = await self._never_cancel(connection, sql, args, max(0.01, end - time.monotonic()))
            finally:
                del self._busy[connection]
                self._put_back(connection, address)
        finally:
            self._slots.release()
        self._check_generation(rows)
        return rows

    def _put_back(self, connection: asyncpg.Connection, address: str) -> None:
        """Keep a connection for the next call, unless it is closed or leads to another server than the primary of now."""
        if address != self._address:
            connection.terminate()
        elif not connection.is_closed():
            self._idle.append(connection)

    def _check_generation(self, rows: Sequence[Any]) -> None:
        if not rows:
            raise Unavailable("the statement answered no row, so nothing says that there is a lease")
        generation = rows[0]["generation"]
        if generation is None:
            raise Unavailable("the primary has no lease")
        if generation < self._generation:
            raise Unavailable(f"answer of generation {generation}, {self._generation} was seen already")
        self._generation = generation

    async def _connection(self, address: str, end: float) -> asyncpg.Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        p = self._postgres
        timeout_s = min(CONNECT_TIMEOUT_S, max(0.05, end - time.monotonic()))
        try:
            # No command_timeout, no statement_timeout: both end in a cancel.
            return await asyncpg.connect(
                host=address, port=p.port, user=p.user, database=p.database, ssl=self._ssl, timeout=timeout_s,
                server_settings={"application_name": "mobula"},
            )  # fmt: skip
        except (
            OSError,
            TimeoutError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ) as error:
            raise Unavailable(f"connect to {address}: {type(error).__name__} {error}") from error

    async def _never_cancel(
        self, connection: asyncpg.Connection, sql: str, args: Sequence[object], timeout_s: float
    ) -> list[Any]:
        """Run one statement in a task that nobody ever cancels; giving up aborts the socket."""
        task = asyncio.ensure_future(connection.fetch(sql, *args))
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # retrieved even if nobody is left to ask
        try:
            done, _ = await asyncio.wait({task}, timeout=timeout_s)
        except asyncio.CancelledError:
            connection.terminate()
            raise
        if not done:
            connection.terminate()
            raise OutcomeUnknown(f"no answer within {timeout_s:.1f} s")
        try:
            return list(task.result())
        except asyncpg.PostgresError as error:
            raise self._failed(connection, error) from error
        except Exception as error:
            # A driver whose connection ends under it fails in many ways, some of them not meant for anybody (AttributeError).
            if not isinstance(error, OSError | asyncpg.InterfaceError) and not connection.is_closed():
                raise
            connection.terminate()
            raise OutcomeUnknown(f"connection lost: {type(error).__name__} {error}") from error

    def _failed(self, connection: asyncpg.Connection, error: Exception) -> Exception:
        """What a server's error says of the outcome."""
        state: str = getattr(error, "sqlstate", None) or ""
        if state == "FZ001" or state in AGAIN:
            return Unavailable(f"{error}")
        connection.terminate()
        if state in NOTHING_HAPPENED:
            return Unavailable(f"{state} {error}")
        if state == "57P01" or isinstance(error, asyncpg.PostgresConnectionError):
            return OutcomeUnknown(f"{state} {error}")
        return error
