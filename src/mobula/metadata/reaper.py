"""The reaper: two standbys that agree that the leader's *host* is dead release its leader key, instead of waiting for its session.

A session lives for Patroni's `ttl` after its last sign (6 s), so that a slow host is not deposed. A host without power needs no such
patience: it answers no TCP handshake, not even a refusal. Each guard on a standby that sees no new beat for `SILENCE_S` tries to connect
to the leader's PostgreSQL and Patroni; any answer at all means that the host lives. Silence for another `DOWN_S`: it says so in a node of
its own in ZooKeeper, names the leader key's czxid in it, and says it again and again. Who stands in `/sync`, and sees on the same session
that the key is still that one and that the other guard said the same within `FRESH_S`, deletes the key.

Nothing's safety rests on this: to Patroni and to the lease it is the same as an expired session. Without the lease it would be wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from mobula.metadata.config import GuardConfig
from mobula.metadata.lease import sync_of
from mobula.wire.hosts import host_lives
from mobula.wire.zookeeper import Client, Node, NodeExists, NoNode, ZooKeeperError

log = structlog.get_logger()

PERIOD_S = 0.15
SILENCE_S = 0.5
DOWN_S = 0.35
FRESH_S = 0.6
LEADER_AGE_S = 0.5
HANDSHAKE_S = 0.3
ZOOKEEPER_S = 0.8
PORTS = (5432, 8008)
"""PostgreSQL, Patroni"""


@dataclass(slots=True)
class Suspicion:
    """What a guard holds of the leader's host. Times are monotonic seconds of this host."""

    czxid: int = 0
    """of the leader key that the suspicion is about, 0 for none"""
    since_s: float | None = None
    """first handshake of an unbroken row of failed ones"""
    others: dict[str, tuple[int, float]] = field(default_factory=dict)
    """guard -> (mzxid of its word, when that was first seen here; -inf for one that may be old)"""

    def clear(self) -> None:
        """The host lives, or it is another leader."""
        self.since_s = None

    def silent(self, czxid: int, now_s: float) -> bool:
        """Another round of failed handshakes; whether it is time to say so."""
        if self.since_s is None or czxid != self.czxid:
            self.czxid, self.since_s = czxid, now_s
        return now_s - self.since_s >= DOWN_S - HANDSHAKE_S

    def heard(self, guard: str, mzxid: int, now_s: float) -> None:
        """The node of another guard, as just read. The first look at it does not say how old it is."""
        known = self.others.get(guard)
        if known is None:
            self.others[guard] = (mzxid, float("-inf"))
        elif known[0] != mzxid:
            self.others[guard] = (mzxid, now_s)

    def agreed(self, words: Mapping[str, bytes], now_s: float) -> bool:
        """All other standbys' guards have said lately that this leader's host is silent."""
        said = str(self.czxid).encode()
        return bool(words) and all(
            word.split(b" ")[0] == said and now_s - self.others[guard][1] < FRESH_S for guard, word in words.items()
        )


class Reaper:
    """One guard's reaper. `beat_seen_s` answers when the last new beat was seen, None while the own server is no standby."""

    def __init__(self, config: GuardConfig, zookeeper: Client, beat_seen_s: Callable[[], float | None]) -> None:
        self._config = config
        self._zookeeper = zookeeper
        self._beat_seen_s = beat_seen_s
        self._addresses = {peer.host: peer.address for peer in config.peers}
        self._suspicion = Suspicion()
        self._leader: Node | None = None
        self._leader_read_s = 0.0
        self._released = 0

    @staticmethod
    def node(config: GuardConfig, host: str) -> str:
        """Where that host's guard says that the leader's host is silent."""
        return f"{config.fence}/{host}-down"

    async def run(self) -> None:
        """Watch for ever."""
        while True:
            began_s = time.monotonic()
            try:
                await self._step(began_s)
            except (ZooKeeperError, NodeExists, TimeoutError):
                pass
            except Exception as error:
                log.error("reaper's look failed", exc_info=error)
            await asyncio.sleep(max(0.02, PERIOD_S - (time.monotonic() - began_s)))

    async def _step(self, now_s: float) -> None:
        seen_s = self._beat_seen_s()
        if seen_s is None:
            self._suspicion.clear()
            return
        if self._leader is None or (now_s - seen_s < SILENCE_S and now_s - self._leader_read_s > LEADER_AGE_S):
            await self._read_leader()
        if now_s - seen_s < SILENCE_S or self._leader is None:
            self._suspicion.clear()
            return
        name = self._leader.data.decode()
        address = self._addresses.get(name)
        if name == self._config.host or address is None:
            self._suspicion.clear()
            return
        answers = await asyncio.gather(*(host_lives(address, port, timeout_s=HANDSHAKE_S) for port in PORTS))
        if any(answers):
            self._suspicion.clear()
        elif self._suspicion.silent(self._leader.czxid, time.monotonic()) and self._zookeeper.connected:
            await self._accuse(name, self._leader)

    async def _read_leader(self) -> None:
        """Know the leader key, and the others' words as they were before anything happened."""
        async with asyncio.timeout(ZOOKEEPER_S):
            with contextlib.suppress(NoNode):
                self._leader = await self._zookeeper.get(f"{self._config.scope}/leader")
            for peer in self._config.peers:
                if peer.host != self._config.host:
                    with contextlib.suppress(NoNode):
                        node = await self._zookeeper.get(self.node(self._config, peer.host))
                        self._suspicion.heard(peer.host, node.mzxid, time.monotonic())
        self._leader_read_s = time.monotonic()

    async def _accuse(self, name: str, leader: Node) -> None:
        """Say it; if the other standby says so too and we are synchronous, release the key. Pipelined on one session."""
        config, zookeeper = self._config, self._zookeeper
        others = [p.host for p in config.peers if p.host not in (config.host, name)]
        word = f"{leader.czxid} {time.time_ns()}".encode()
        async with asyncio.timeout(ZOOKEEPER_S):
            _, *nodes = await asyncio.gather(
                zookeeper.set(self.node(config, config.host), word),
                zookeeper.get(f"{config.scope}/leader"),
                zookeeper.get(f"{config.scope}/sync"),
                *(zookeeper.get(self.node(config, host)) for host in others),
                return_exceptions=True,
            )
        if isinstance(nodes[0], NoNode) or (isinstance(nodes[0], Node) and nodes[0].czxid != leader.czxid):
            self._leader = None
            self._suspicion.clear()
            return
        found = [node for node in nodes if isinstance(node, Node)]
        if len(found) != len(nodes):
            return
        current, sync, *words = found
        for host, node in zip(others, words, strict=True):
            self._suspicion.heard(host, node.mzxid, time.monotonic())
        agreed = self._suspicion.agreed(
            {host: node.data for host, node in zip(others, words, strict=True)}, time.monotonic()
        )
        _, standby = sync_of(sync.data)
        if agreed and standby == config.host and self._released != leader.czxid:
            self._released = leader.czxid
            log.warning(
                "the leader's host answers nothing: its leader key is released", leader=name, czxid=leader.czxid
            )
            await zookeeper.delete(f"{config.scope}/leader", current.version)
