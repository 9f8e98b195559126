"""The guard of one PostgreSQL peer: grants and renews the lease of a primary, watches the old one's grants on a standby.

`python -m mobula.metadata.guard --config /etc/mobula/guard.json`. The theory is in `lease`; here are the facts it decides on: two local
connections (one whose commits wait for the standby, one whose never do) and one ZooKeeper session. Never a cancel request: whoever
gives up closes the connection.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
import time
from typing import Any

import asyncpg
import structlog

from mobula.metadata.config import GuardConfig
from mobula.metadata.lease import (
    G1_WAIT_S,
    Beat,
    Instant,
    Keys,
    Reign,
    Signs,
    Verdict,
    stepped_back,
    sync_of,
    wait_end,
)
from mobula.metadata.reaper import Reaper
from mobula.wire import service
from mobula.wire.zookeeper import Client, NodeExists, ZooKeeperError

log = structlog.get_logger()

SESSION_S = 2.0
STANDBY_POLL_S = 0.05
GRANTS_POLL_S = 0.25
LOCAL_TIMEOUT_S = 2.0
ZOOKEEPER_TIMEOUT_S = 0.4
RECONNECT_S = 0.1
SECONDS = re.compile(r"\d+\.\d+ s")
SYNC_NOT_IN_FORCE = "FZ002"
LOOK = "SELECT pg_is_in_recovery() AS standby, pg_postmaster_start_time()::text AS boot"


class Lost(Exception):
    """A local connection or ZooKeeper did not answer in time."""


async def fetch(connection: asyncpg.Connection, sql: str, *args: object, timeout_s: float) -> Any:
    """One row, or Lost after `timeout_s`: the connection is then aborted, never cancelled."""
    task = asyncio.ensure_future(connection.fetchrow(sql, *args))
    done, _ = await asyncio.wait({task}, timeout=timeout_s)
    if not done:
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        connection.terminate()
        raise Lost(f"no answer within {timeout_s} s to {sql[:40]!r}")
    return task.result()


class Guard:
    """One guard; `start` and `stop` on the event loop."""

    def __init__(self, config: GuardConfig) -> None:
        self._config = config
        self._zookeeper = Client(config.zookeeper, session_s=SESSION_S)
        self._own = f"{config.fence}/{config.host}"
        self._others = tuple(f"{config.fence}/{peer.host}" for peer in config.peers if peer.host != config.host)
        self._beats: asyncpg.Connection | None = None
        self._control: asyncpg.Connection | None = None
        self._signs = Signs()
        self._grants_read_s = 0.0
        self._standby_boot = ""
        """start of the server in which it was last seen as a standby"""
        self._reign: Reign | None = None
        self._looked: Instant | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._role = "starting"
        self._kind = ""
        self._sentence = "no cycle has run yet"
        self._until_s = 0.0

    async def start(self) -> None:
        """Begin to guard."""
        self._zookeeper.start()
        loop = asyncio.get_running_loop()
        reaper = Reaper(self._config, self._zookeeper, self._beat_seen_s)
        self._tasks = [loop.create_task(work) for work in (self._make_nodes(), self._run(), reaper.run())]

    async def stop(self) -> None:
        """End: the lease runs out by itself."""
        for task in self._tasks:
            task.cancel()
        self._drop_connections()
        await self._zookeeper.stop()

    def status(self) -> dict[str, object]:
        """Role, kind of the last grant, what is left of it, and the sentence of the last cycle."""
        left_s = self._until_s - time.time()
        leased = self._role == "primary" and left_s > 0
        return {
            "healthy": self._role == "standby" or leased,
            "why": "" if leased or self._role == "standby" else self._sentence,
            "role": self._role,
            "lease": {"kind": self._kind, "left_s": round(max(0.0, left_s), 3)} if leased else None,
            "last": self._sentence,
        }

    def _say(self, sentence: str) -> None:
        """Note what the last cycle came to; log it when it is something else than before, whatever the seconds in it."""
        if SECONDS.sub("", sentence) != SECONDS.sub("", self._sentence):
            log.info(sentence)
        self._sentence = sentence

    async def _make_nodes(self) -> None:
        while True:
            try:
                for path in (self._own, f"{self._own}-poll", Reaper.node(self._config, self._config.host)):
                    await self._zookeeper.ensure_path(path)
            except (ZooKeeperError, NodeExists):
                await asyncio.sleep(RECONNECT_S)
            else:
                return

    async def _run(self) -> None:
        while True:
            try:
                await self._connect()
                while True:
                    await self._look()
            except (
                Lost,
                OSError,
                TimeoutError,
                asyncpg.PostgresError,
                asyncpg.InterfaceError,
                asyncpg.InternalClientError,
            ) as error:
                self._say(f"no connection to the local server: {type(error).__name__} {error}")
            except Exception as error:
                # The outermost loop: a guard that goes on may grant again, one that ended never does.
                self._say(f"failed: {type(error).__name__} {error}")
                log.error("guard's cycle failed", exc_info=error)
            self._role = "unknown"
            self._drop_connections()
            await asyncio.sleep(RECONNECT_S)

    def _drop_connections(self) -> None:
        for connection in (self._beats, self._control):
            if connection is not None:
                connection.terminate()

    async def _connect(self) -> None:
        c = self._config
        where = {
            "host": c.socket_dir,
            "port": c.postgres_port,
            "user": "postgres",
            "database": "mobula",
            "timeout": LOCAL_TIMEOUT_S,
        }
        # An unlogged-only commit waits for the standby when it sets hint bits on a logged page: this connection never waits.
        self._control = await asyncpg.connect(
            **where, server_settings={"synchronous_commit": "off", "application_name": "guard-control"}
        )
        self._beats = await asyncpg.connect(
            **where, server_settings={"synchronous_commit": "on", "application_name": "guard-beats"}
        )

    async def _local(self, sql: str, *args: object) -> Any:
        assert self._control is not None  # noqa: S101
        return await fetch(self._control, sql, *args, timeout_s=LOCAL_TIMEOUT_S)

    async def _look(self) -> None:
        """Once on a standby; as long as it is primary on a primary."""
        row = await self._local(LOOK)
        if row["standby"]:
            self._standby_boot, self._reign = row["boot"], None
            self._role = "standby"
            await self._watch()
            self._say("standby: watching the primary's grants")
            await asyncio.sleep(STANDBY_POLL_S)
            return
        if self._reign is None or self._reign.boot != row["boot"]:
            self._reign = await self._begin(row["boot"], promoted=self._standby_boot == row["boot"])
        self._role = "primary"
        await self._rule(self._reign)

    def _beat_seen_s(self) -> float | None:
        return self._signs.beat_seen_s if self._role == "standby" and self._signs.complete else None

    async def _watch(self) -> None:
        """On a standby: note when the primary's beats and grants last changed."""
        row = await self._local("SELECT n FROM fence.heartbeat")
        self._signs.saw_beat(row["n"], time.monotonic())
        if time.monotonic() - self._grants_read_s > GRANTS_POLL_S:
            self._grants_read_s = time.monotonic()
            try:
                self._signs.saw_grants(await self._read_grants(), time.monotonic())
            except (ZooKeeperError, TimeoutError):
                return

    async def _read_grants(self) -> tuple[int, ...]:
        """mzxid of the other guards' G2 nodes, at least as new as a write of ours on the same session."""
        kazoo = self._zookeeper.kazoo
        # Another node than `_own`: that one marks G2 grants only.
        calls = [self._zookeeper.call(kazoo.set_async, f"{self._own}-poll", b"")]
        calls += [self._zookeeper.call(kazoo.exists_async, path) for path in self._others]
        _, *stats = await asyncio.wait_for(asyncio.gather(*calls), 1.5)
        return tuple(stat.mzxid if stat else 0 for stat in stats)

    async def _begin(self, boot: str, *, promoted: bool) -> Reign:
        """The server is primary and this guard has not granted to it in this run: when may it?"""
        row = await self._local(
            "SELECT fence.timeline() AS generation, (SELECT clean FROM fence.lease WHERE boot = pg_postmaster_start_time()) AS clean"
        )
        config, now_s = self._config, time.monotonic()
        if row["clean"] is not None:
            # A guard has granted in this run of the server before: its wait was over.
            wait_until_s, clean = now_s, bool(row["clean"])
        else:
            wait_until_s, clean = wait_end(now_s, config.lease_s, config.margin_s, None), promoted
            if promoted and self._signs.complete:
                wait_until_s = wait_end(now_s, config.lease_s, config.margin_s, await self._last_sign())
            # Moves the position past anything that a standby of the old timeline may report as flushed.
            await self._local("SELECT pg_switch_wal()")
        log.info("primary", boot=boot, generation=row["generation"], clean=clean, wait_s=round(wait_until_s - now_s, 2))
        return Reign(config.host, boot, row["generation"], clean, wait_until_s, config.lease_s)

    async def _last_sign(self) -> float | None:
        """When the old primary's grants last showed a sign, looking once more now; None if ZooKeeper can't be asked."""
        row = await self._local("SELECT n FROM fence.heartbeat")
        self._signs.saw_beat(row["n"], time.monotonic())
        try:
            self._signs.saw_grants(await self._read_grants(), time.monotonic())
        except (ZooKeeperError, TimeoutError):
            return None
        return self._signs.newest_s()

    async def _rule(self, reign: Reign) -> None:
        """Cycles of grants until the server is no primary any more or another start of it."""
        beat: asyncio.Task[Beat | None] | None = None
        beat_began_s = 0.0
        self._looked = None
        try:
            while True:
                began_s = time.monotonic()
                row = await self._local(LOOK)
                if row["standby"] or row["boot"] != reign.boot:
                    return
                await self._mind_the_clock(reign)
                if beat is None:
                    beat, beat_began_s = asyncio.ensure_future(self._beat()), began_s
                await asyncio.wait({beat}, timeout=max(0.0, beat_began_s + G1_WAIT_S - time.monotonic()))
                verdict = Verdict(None, "no beat has come back yet")
                if beat.done():
                    verdict = self._judge(reign, beat.result())
                    beat = None
                if verdict.until_s is None:
                    verdict = await self._by_zookeeper(reign, verdict.why)
                await self._grant(reign, verdict)
                await asyncio.sleep(max(0.01, self._config.period_s - (time.monotonic() - began_s)))
        finally:
            if beat is not None:
                # Its connection is dropped with the server's role; a cancel would publish what waits.
                beat.add_done_callback(lambda t: t.cancelled() or t.exception())

    def _judge(self, reign: Reign, beat: Beat | None) -> Verdict:
        if beat is None:
            return Verdict(None, "synchronous replication is not in force")
        return reign.by_beat(beat, _now())

    async def _mind_the_clock(self, reign: Reign) -> None:
        now = _now()
        if self._looked is not None and stepped_back(self._looked, now):
            log.warning("the wall clock was stepped back: lease withdrawn until the next grant")
            reign.granted_until_s = 0.0
            # Never an INSERT here: that the row is there means that the wait is over.
            await self._local("UPDATE fence.lease SET until = '-infinity' RETURNING 1")
        self._looked = now

    async def _beat(self) -> Beat | None:
        """G1: one synchronous commit, and whether a synchronous standby has flushed it. May take for ever. None: it would prove nothing."""
        connection = self._beats
        assert connection is not None  # noqa: S101
        start = _now()
        try:
            sql = "SELECT lsn, boot::text AS boot, generation FROM fence.beat($1)"
            row = await connection.fetchrow(sql, self._config.host)
        except asyncpg.PostgresError as error:
            if error.sqlstate == SYNC_NOT_IN_FORCE:
                return None
            raise
        done = await fetch(connection, "SELECT fence.replicated($1) AS ok", row["lsn"], timeout_s=LOCAL_TIMEOUT_S)
        return Beat(start, row["boot"], row["generation"], done["ok"])

    async def _by_zookeeper(self, reign: Reign, why: str) -> Verdict:
        """G2: pipelined on one session, so that what is read is at least as new as our write."""
        kazoo, scope = self._zookeeper.kazoo, self._config.scope
        start = _now()
        calls = [
            self._zookeeper.call(kazoo.set_async, self._own, str(time.time_ns()).encode()),
            self._zookeeper.call(kazoo.get_async, f"{scope}/leader"),
            self._zookeeper.call(kazoo.get_async, f"{scope}/sync"),
        ]
        try:
            _, leader, sync = await asyncio.wait_for(asyncio.gather(*calls), ZOOKEEPER_TIMEOUT_S)
        except (ZooKeeperError, TimeoutError) as error:
            return Verdict(None, f"{why}; ZooKeeper: {error or 'no answer'}")
        sync_leader, standby = sync_of(sync[0])
        verdict = reign.by_keys(Keys(start, leader[0].decode(), sync_leader, standby), _now())
        return verdict if verdict.until_s else Verdict(None, f"{why}; {verdict.why}")

    async def _grant(self, reign: Reign, verdict: Verdict) -> None:
        if verdict.until_s is None:
            if reign.granted_until_s < time.time():
                self._kind = ""
                self._say(f"nothing granted: {verdict.why}")
            return
        until = dt.datetime.fromtimestamp(verdict.until_s, dt.UTC)
        sql = "SELECT fence.grant_lease($1, $2::text::timestamptz, $3, $4) AS granted"
        row = await self._local(sql, until, reign.boot, reign.generation, reign.clean)
        if row["granted"]:
            reign.granted_until_s = self._until_s = verdict.until_s
            self._kind = verdict.why
            self._say(f"granted by {verdict.why}")
        else:
            self._say("refused: the lease was revoked, or the server is another one now")


def _now() -> Instant:
    return Instant(time.time(), time.monotonic())


def main() -> None:
    """Entry point."""
    service.main("guard", GuardConfig, Guard)


if __name__ == "__main__":
    main()
