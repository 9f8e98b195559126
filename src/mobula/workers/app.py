"""The background workers of an api host: duties, each done by one worker of the region at a time (mobula.wire.lease).

shard-<n>       garbage of a shard (collector.py), what died half way in it (sweeper.py), its part of lost pools (repair.py), single copies
                that are missing or wrong (mend.py), sums of what accounts use (folding.py)
files-<host>    a storage host's files that nothing names (files.py)
usage           the hourly usage reports (reports.py)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from mobula.core.clock import SystemClock
from mobula.metadata.collecting import Collecting
from mobula.metadata.metering import Metering
from mobula.metadata.repairing import Repairs
from mobula.metadata.store import PostgresMetadata
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.posts import Posts, Work
from mobula.wire.registered import ROOT, Webapis, addresses_of
from mobula.wire.storage_client import StorageClient
from mobula.wire.zookeeper import Client, Tree
from mobula.workers.collector import Collector
from mobula.workers.config import WorkerConfig
from mobula.workers.files import FileSweeper
from mobula.workers.folding import Folding
from mobula.workers.mend import Mending
from mobula.workers.repair import PoolRepair
from mobula.workers.reports import Reporting, Reports
from mobula.workers.stepping import Stepping
from mobula.workers.sweeper import Sweeper
from mobula.workers.system_store import WRITE_S, SystemStore, SystemToken

FOLDER = "/workers"
LOOK_PERIOD_S = 1.0
COPY_S = 3600.0


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
        self._webapis = Webapis(config.near_webapis)
        self._asking = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=WRITE_S))
        self._metering = Metering(self._metadata)
        store = SystemStore(self._asking, self._webapis.pick, SystemToken(self._metadata, config.tokens()))
        self._reports = Reports(self._metering, store, self._clock)
        self._tree = Tree(self._zookeeper, ROOT, self._on_names)
        self._addresses: dict[str, Address] = {}
        self._duties: dict[str, Mapping[str, Duty]] = {}
        self._posts = Posts(self._zookeeper, FOLDER, config.host.encode())
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to follow the region."""
        self._zookeeper.start()
        self._metadata.start()
        self._tree.start()
        self._follower = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """End: each duty first, then its lease."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.wait({self._follower})
        await self._posts.stop()
        self._tree.stop()
        self._metadata.stop()
        await self._http.close()
        await self._copies.close()
        await self._asking.close()
        await self._zookeeper.stop()

    def _on_names(self, picture: Mapping[str, Mapping[str, bytes]]) -> None:
        self._addresses = addresses_of(picture, "storage")
        self._webapis.on_names(picture)

    async def _follow(self) -> None:
        """A post for each shard of the map, for each storage host that is registered, and for the reports of the region."""
        while True:
            makes: dict[str, Callable[[], Mapping[str, Duty]]]
            makes = {f"shard-{shard}": partial(self._shard_duties, shard) for shard in self._shards()}
            makes |= {f"files-{host}": partial(self._file_duties, host) for host in self._addresses}
            makes["usage"] = lambda: {"reports": Reporting(self._reports, self._clock)}
            self._duties = {name: self._duties.get(name) or make() for name, make in makes.items()}
            self._posts.want({name: _all_of(duties) for name, duties in self._duties.items()})
            await asyncio.sleep(LOOK_PERIOD_S)

    def _shards(self) -> Iterable[int]:
        known = self._metadata.map
        return known.shards if known else ()

    def _shard_duties(self, shard: int) -> Mapping[str, Duty]:
        return {
            "collector": Collector(shard, self._collecting, self._storage, self._config, self._clock),
            "sweeper": Sweeper(shard, self._collecting, self._config),
            "repair": Stepping(PoolRepair(self._repairs, self._copying, shard)),
            "usage": Folding(shard, self._metering, self._clock),
            "mending": Stepping(Mending(self._repairs, self._metadata, self._copying, shard)),
        }

    def _file_duties(self, host: str) -> Mapping[str, Duty]:
        def address() -> Address:
            return self._addresses.get(host, last)

        last = self._addresses[host]
        return {
            "files": FileSweeper(host, address, self._collecting, self._storage, pace=self._config, clock=self._clock)
        }

    def status(self) -> dict[str, object]:
        """Healthy once the shard map is known, unless a duty of ours has something for an operator."""
        held = {name: duties for name, duties in sorted(self._duties.items()) if self._posts.holds(name)}
        wrong = [duty.wrong for duties in held.values() for duty in duties.values() if duty.wrong]
        if not self._metadata.ready:
            wrong.insert(0, "the shard map has not been read from ZooKeeper yet")
        said = {f"{name} {kind}": duty.says for name, duties in held.items() for kind, duty in duties.items()}
        return {"healthy": not wrong, "why": "; ".join(wrong), "duties": said}


def _all_of(duties: Mapping[str, Duty]) -> Work:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            for duty in duties.values():
                group.create_task(duty.work())

    return work
