"""The background workers of an api host: duties, each done by one worker of the region at a time (mobula.wire.lease).

shard-<n>       garbage of a shard (collector.py), what died half way in it (sweeper.py), its part of lost pools (repair.py), single copies
                that are missing or wrong (mend.py)
files-<host>    a storage host's files that nothing names (files.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import msgspec
import structlog

from mobula.core.clock import SystemClock
from mobula.metadata.collecting import Collecting
from mobula.metadata.repairing import Repairs
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.lease import Lease
from mobula.wire.storage_client import StorageClient
from mobula.wire.zookeeper import Client, Tree
from mobula.workers.collector import Collector
from mobula.workers.config import WorkerConfig
from mobula.workers.files import FileSweeper
from mobula.workers.mend import Mending
from mobula.workers.repair import PoolRepair
from mobula.workers.stepping import Stepping
from mobula.workers.sweeper import Sweeper

log = structlog.get_logger()

FOLDER = "/workers"
LOOK_PERIOD_S = 1.0
AFTER_ERROR_S = 5.0
COPY_S = 3600.0
MODESTY_S = 0.25
"""for each lease that we have a free one is left to others for so long: they spread over the workers"""
MODESTY_MAX_S = 3.0


class Duty(Protocol):
    """What one worker does at a time."""

    @property
    def says(self) -> str:
        """How far it is, in a sentence."""

    @property
    def wrong(self) -> str:
        """What an operator has to look at; empty if nothing."""

    async def work(self) -> None:
        """Until cancelled. May be going on elsewhere for a moment, and be cut off anywhere."""


@dataclass(frozen=True, slots=True)
class Post:
    """A lease, and the duties of who has it."""

    lease: Lease
    duties: Mapping[str, Duty]


class Worker:
    """mobula.wire.service.Service."""

    def __init__(self, config: WorkerConfig) -> None:
        self._config = config
        self._clock = SystemClock()
        self._zookeeper = Client(config.zookeeper)
        self._metadata = PostgresMetadata(self._zookeeper, config.postgres)
        self._collecting = Collecting(self._metadata)
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=30.0))
        self._storage = StorageClient(self._http, key=config.signing_key(), caller=config.host, clock=self._clock)
        # A copy is answered when it lasts, however large it is; the client has a bound of its own for that.
        self._copies = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=COPY_S))
        self._copying = StorageClient(self._copies, key=config.signing_key(), caller=config.host, clock=self._clock)
        self._repairs = Repairs(self._metadata)
        self._tree = Tree(self._zookeeper, "/names", self._on_names)
        self._addresses: dict[str, Address] = {}
        self._leases: dict[str, Lease] = {}
        self._posts: dict[str, tuple[Post, asyncio.Task[None]]] = {}
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the region."""
        self._zookeeper.start()
        self._metadata.start()
        self._tree.start()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End: each duty first, then its lease."""
        tasks = [*([self._follower] if self._follower else []), *(task for _, task in self._posts.values())]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._tree.stop()
        self._metadata.stop()
        await self._http.close()
        await self._copies.close()
        await self._zookeeper.stop()

    def _on_names(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        addresses = {}
        for host, data in picture.get("storage", {}).items():
            try:
                found = msgspec.json.decode(data)
                addresses[host] = Address(str(found["address"]), int(found["port"]))
            except (msgspec.MsgspecError, KeyError, TypeError, ValueError):
                log.warning("registration not understood", host=host)
        self._addresses = addresses

    async def _follow(self) -> None:
        """A post for each shard of the map, and for each storage host that is registered."""
        while True:
            wanted: dict[str, Callable[[], Mapping[str, Duty]]] = {}
            known = self._metadata.map
            for shard in known.shards if known else ():
                wanted[f"shard-{shard}"] = _later(self._shard_duties, shard)
            for host in self._addresses:
                wanted[f"files-{host}"] = _later(self._file_duties, host)
            for name in set(self._posts) - set(wanted):
                self._posts.pop(name)[1].cancel()
            for name in wanted.keys() - self._posts.keys():
                post = Post(self._lease(name), wanted[name]())
                self._posts[name] = (post, asyncio.create_task(self._hold(post)))
            await asyncio.sleep(LOOK_PERIOD_S)

    def _lease(self, name: str) -> Lease:
        """One object for each node, kept: it listens to the session for ever."""
        if name not in self._leases:
            self._leases[name] = Lease(self._zookeeper, f"{FOLDER}/{name}", self._config.host.encode())
        return self._leases[name]

    def _shard_duties(self, shard: int) -> Mapping[str, Duty]:
        return {
            "collector": Collector(shard, self._collecting, self._storage, self._config, self._clock),
            "sweeper": Sweeper(shard, self._collecting, self._config),
            "repair": Stepping(PoolRepair(self._repairs, self._copying, shard)),
            "mending": Stepping(Mending(self._repairs, self._metadata, self._copying, shard)),
        }

    def _file_duties(self, host: str) -> Mapping[str, Duty]:
        def address() -> Address:
            return self._addresses.get(host, last)

        last = self._addresses[host]
        return {
            "files": FileSweeper(host, address, self._collecting, self._storage, pace=self._config, clock=self._clock)
        }

    async def _hold(self, post: Post) -> None:
        async def work() -> None:
            async with asyncio.TaskGroup() as group:
                for duty in post.duties.values():
                    group.create_task(duty.work())

        while True:
            try:
                await post.lease.serve(work, wait_s=self._modesty_s)
            except Exception as error:
                # Ours to mend; the lease has been given up, so that another release's worker may do better.
                log.error("duty failed", duties=list(post.duties), exc_info=error)
            await asyncio.sleep(AFTER_ERROR_S)

    def _modesty_s(self) -> float:
        held = sum(1 for lease in self._leases.values() if lease.held)
        return min(held * MODESTY_S, MODESTY_MAX_S)

    def status(self) -> dict[str, object]:
        """Healthy once the shard map is known, unless a duty of ours has something for an operator."""
        held = {name: post for name, (post, _) in sorted(self._posts.items()) if post.lease.held}
        wrong = [duty.wrong for post in held.values() for duty in post.duties.values() if duty.wrong]
        if not self._metadata.ready:
            wrong.insert(0, "the shard map has not been read from ZooKeeper yet")
        duties = {f"{name} {kind}": duty.says for name, post in held.items() for kind, duty in post.duties.items()}
        return {"healthy": not wrong, "why": "; ".join(wrong), "duties": duties}


def _later(make: Callable[..., Mapping[str, Duty]], argument: object) -> Callable[[], Mapping[str, Duty]]:
    return lambda: make(argument)
