"""A webapi in the test's process over real shards, and storage servers that can be lost and brought back."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from mobula.metadata.model import Group, Metadata, StorageServer
from mobula.metadata.store import PostgresMetadata
from mobula.storage import app as storage_app
from mobula.storage.config import StorageConfig
from mobula.wire.http_server import HttpServer
from mobula.wire.zookeeper import Client as ZooKeeper
from tests.contract.webapi.local import BOUND_S, LocalRegion, Storage
from tests.probe import shard


@dataclass(slots=True)
class ShardedRegion(LocalRegion):
    """A webapi over real shards; accounts and storage servers as in its base."""

    shards: shard.Shards = field(kw_only=True)

    async def _tier(self, servers: Sequence[StorageServer]) -> Metadata:
        zookeeper = ZooKeeper([self.shards.zookeeper.address])
        zookeeper.start()
        await zookeeper.wait_connected(10)
        tier = PostgresMetadata(zookeeper, self.shards.postgres)
        tier.start()
        self._stopping += [zookeeper.stop, tier.stop]
        await tier.region_init(servers, len(self.shards.servers))
        return tier

    def sql(self, statement: str) -> list[dict[str, object]]:
        """Rows of all shards."""
        numbers = range(1, len(self.shards.servers) + 1)
        return [row for number in numbers for row in asyncio.run(self.shards.sql(number, statement))]


@dataclass(slots=True)
class MortalRegion(ShardedRegion):
    """Its storage servers can lose their pools."""

    tier: PostgresMetadata = field(init=False)
    running: dict[str, tuple[StorageServer, Storage, HttpServer]] = field(default_factory=dict)

    async def _tier(self, servers: Sequence[StorageServer]) -> Metadata:
        self.tier = await ShardedRegion._tier(self, servers)  # type: ignore[assignment]
        self._stopping.append(self._end_storages)
        return self.tier

    async def _start_storage(self, number: int, key: str) -> StorageServer:  # noqa: ARG002 (it is where it always is)
        return await self._run_storage(number, 0)

    async def _run_storage(self, number: int, port: int) -> StorageServer:
        host = f"storage-{number}"
        files = self.folder / host
        config = StorageConfig(
            "test",
            host,
            "abc"[number % 3],
            "127.0.0.1",
            0,
            str(files),
            (str(self.folder / "capability.key"),),
            fill_max=1.0,
        )
        storage = Storage(storage_app.build(config), self.room, files)
        await storage.server.start()
        frame = HttpServer(storage.handle)
        server = StorageServer(host, config.az, "127.0.0.1", await frame.listen("127.0.0.1", port))
        self.running[host] = (server, storage, frame)
        return server

    async def _end_storages(self) -> None:
        for host in list(self.running):
            await self._end(host)

    async def _end(self, host: str) -> StorageServer:
        server, storage, frame = self.running.pop(host)
        await frame.stop(0.0)
        await storage.server.stop()
        return server

    def lose(self, host: str) -> StorageServer:
        """The pool is gone, and the server does not answer."""
        server = self.call(self._end(host))
        shutil.rmtree(self.folder / host)
        self.directory.suspect(host)
        return server

    def bring_back(self, server: StorageServer) -> None:
        """The same host, with an empty pool."""
        self.call(self._run_storage(int(server.id.rpartition("-")[2]), server.port))

    def groups(self) -> dict[int, Group]:
        """As they are now."""
        return {group.id: group for group in self.call(self.tier.groups(fresh=True))}

    def wait_seen(self, host: str) -> None:
        """Until the webapi knows that a storage server answers."""
        deadline_s = time.monotonic() + BOUND_S
        while host not in self.directory.rooms:
            assert time.monotonic() < deadline_s, f"{host} is not seen"
            time.sleep(0.02)
