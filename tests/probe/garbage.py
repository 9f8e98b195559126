"""A small region for the workers: real shards, real storage servers in the test's process, clients that store, link and drop."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import os
import random
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from mobula.core.clock import SystemClock
from mobula.metadata.collecting import Collecting, Counts
from mobula.metadata.model import Entry, Group, Kind, Precondition, StorageServer
from mobula.metadata.shard_map import even, vnode_of
from mobula.metadata.store import PostgresMetadata
from mobula.storage import app as storage_app
from mobula.storage.config import StorageConfig
from mobula.wire.http_client import Address, HttpClient, Timeouts
from mobula.wire.http_exchange import Request, Response
from mobula.wire.http_server import HttpServer
from mobula.wire.storage_client import CopyMissing, StorageClient
from mobula.wire.zookeeper import Client
from mobula.workers.collector import Collector
from mobula.workers.config import Pace
from mobula.workers.files import FileSweeper
from mobula.workers.sweeper import Sweeper
from tests.contract.webapi.local import KEY_TEXT
from tests.probe import shard

BOUND_S = 20.0
ALWAYS = Precondition()
AT_ONCE = Pace(grace_s=0.001, commit_deadline_s=6 * 3600.0)
EMPTY = (
    "TRUNCATE metadata.entry, metadata.garbage, metadata.released, metadata.reference, metadata.directory, metadata.directory_count, "
    "metadata.placement_group; UPDATE metadata.collected SET objects = 0, bytes = 0, names = 0"
)


class Crash(Exception):
    """The process died here."""


@dataclass
class Host:
    """A storage host; `away` answers 503, `hung` nothing at all."""

    server: StorageServer
    files: Path
    away: bool = False
    hung: bool = False
    asked: list[str] = field(default_factory=list)


@dataclass
class Region:
    """What the workers work on."""

    shards: shard.Shards
    metadata: PostgresMetadata
    storage: StorageClient
    hosts: dict[str, Host]
    account: uuid.UUID = field(default_factory=uuid.uuid4)
    chance: random.Random = field(default_factory=lambda: random.Random(1))  # noqa: S311

    @property
    def collecting(self) -> Collecting:
        return Collecting(self.metadata)

    @property
    def stor(self) -> str:
        return f"/{self.account}/stor"

    # workers

    def collector(self, number: int, pace: Pace = AT_ONCE, clock: Any = None, collecting: Any = None) -> Collector:
        return Collector(number, collecting or self.collecting, self.storage, pace, clock or SystemClock())

    def sweeper(self, number: int, pace: Pace = AT_ONCE) -> Sweeper:
        return Sweeper(number, self.collecting, pace)

    def address(self, host: str) -> Address:
        server = self.hosts[host].server
        return Address(server.address, server.port)

    def file_sweeper(self, host: str, pace: Pace) -> FileSweeper:
        return FileSweeper(
            host, lambda: self.address(host), self.collecting, self.storage, pace=pace, clock=SystemClock()
        )

    async def collect(self, pace: Pace = AT_ONCE) -> None:
        """Until nothing is left that can be collected."""
        collectors = [self.collector(number, pace) for number in self.numbers]
        while sum([await collector.turn() for collector in collectors]):
            pass

    @property
    def numbers(self) -> range:
        return range(1, len(self.shards.servers) + 1)

    async def counts(self) -> Counts:
        """Of all shards."""
        found = [await self.collecting.counts(number) for number in self.numbers]
        return Counts(
            *(sum(getattr(c, name) for c in found) for name in Counts.__dataclass_fields__)  # type: ignore[arg-type]
        )

    # clients

    async def group(self) -> Group:
        groups = await self.metadata._read_groups(1)
        return self.chance.choice(groups)

    async def store(self, body: bytes) -> Entry:
        """Two copies that no entry names yet."""
        group, object_id = await self.group(), uuid.uuid4()
        for server in group.servers[:2]:
            await self.storage.put(Address(server.address, server.port), str(self.account), str(object_id), body)
        return entry_of(self.account, object_id, body, group.id)

    async def commit(self, name: str, stored: Entry, directory: str = "") -> Entry:
        entry = replace(stored, name=name)
        epoch = await self.epoch(entry.group)
        await self.metadata.put_object(
            directory or self.stor, entry, group_epoch=epoch, precondition=ALWAYS, parent_is_root=True
        )
        return entry

    async def put(self, name: str, body: bytes | None = None) -> Entry:
        return await self.commit(
            name, await self.store(os.urandom(self.chance.randint(1, 2000)) if body is None else body)
        )

    async def epoch(self, group: int) -> int:
        return {g.id: g.epoch for g in await self.metadata._read_groups(1)}[group]

    async def delete(self, name: str) -> None:
        await self.metadata.delete_object(self.stor, name, precondition=ALWAYS)

    async def link(self, source: str, name: str, directory: str = "") -> None:
        entry = await self.look(source)
        assert entry is not None
        await self.relink(self.stor, entry, directory or self.stor, name)

    async def relink(self, source_directory: str, source: Entry, directory: str, name: str) -> None:
        await self.metadata.link_object(
            source_directory, source, directory, replace(source, name=name, reference=None),
            group_epoch=await self.epoch(source.group), parent_is_root=True,
        )  # fmt: skip

    async def break_link(self, source: str, steps: int) -> None:
        """A link whose process dies after its first or second step."""
        entry = await self.look(source)
        assert entry is not None
        assert entry.object_id is not None
        names = [(uuid.uuid4(), "broken"), (entry.object_id, source)]
        document = msgspec.json.encode([{"reference": str(r), "directory": self.stor, "name": n} for r, n in names])
        key = str(entry.object_id)
        home, here, vnode = self.collecting.home(entry.object_id), shard_of(self.stor), vnode_of(self.stor)
        sql = "SELECT * FROM metadata.add_references($1, $2, $3)"
        await self.metadata.call(home, sql, vnode_of(key), key, document.decode(), writes=True)
        if steps > 1:
            sql = "SELECT * FROM metadata.share_entry($1, $2, $3, $4)"
            await self.metadata.call(here, sql, vnode, self.stor, source, entry.object_id, writes=True)

    async def aged(self, pace: Pace) -> None:
        """Wait until every file is older than the sweeper wants it."""
        older_s = int(pace.commit_deadline_s) + 1

        async def young() -> int:
            pages = [
                await self.storage.list_files(self.address(host), after="", older_s=older_s) for host in self.hosts
            ]
            return sum(page.looked_at - len(page.files) for page in pages)

        async with asyncio.timeout(BOUND_S):
            while await young():
                await asyncio.sleep(0.05)

    async def look(self, name: str) -> Entry | None:
        return (await self.metadata.lookup(self.stor, name)).entry

    async def whole(self, entry: Entry) -> bool:
        """Each of its copies is there, with its bytes."""
        assert entry.account is not None
        (group,) = [g for g in await self.metadata._read_groups(1) if g.id == entry.group]
        for server in group.servers[: entry.copies]:
            address = Address(server.address, server.port)
            try:
                reader = await self.storage.open_get(
                    address, str(entry.account), str(entry.object_id), entry.size_bytes, entry.md5
                )
            except CopyMissing:
                return False
            async with reader:
                if md5(b"".join([chunk async for chunk in reader.chunks()])) != entry.md5:
                    return False
        return True

    # what is there

    def files(self) -> dict[str, set[str]]:
        """Object ids that have files, and on which hosts."""
        found: dict[str, set[str]] = {}
        for name, host in self.hosts.items():
            for path in host.files.glob("*-*/*"):
                found.setdefault(path.name[:36], set()).add(name)
        return found

    def has(self, entry: Entry) -> bool:
        return str(entry.object_id) in self.files()

    async def sql(self, statement: str, *args: object) -> list[dict[str, object]]:
        """Rows of all shards."""
        return [row for number in self.numbers for row in await self.shards.sql(number, statement, *args)]


def md5(body: bytes) -> bytes:
    return hashlib.md5(body, usedforsecurity=False).digest()


def entry_of(account: uuid.UUID, object_id: uuid.UUID, body: bytes, group: int) -> Entry:
    """What names two copies of it, but for the name."""
    return Entry(
        "", Kind.OBJECT, dt.datetime.now(dt.UTC), etag=str(object_id), size_bytes=len(body), md5=md5(body), object_id=object_id,
        account=account, group=group, copies=2,
    )  # fmt: skip


def shard_of(directory: str) -> int:
    return even(2).shard_of(vnode_of(directory))


def account_on(number: int) -> uuid.UUID:
    """An account whose `stor` is on that shard."""
    return next(a for a in iter(uuid.uuid4, None) if shard_of(f"/{a}/stor") == number)


async def until(what: Callable[[], Any]) -> None:
    """Wait, bounded, until it is so."""
    async with asyncio.timeout(BOUND_S):
        while not what():
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def region(shards: shard.Shards, folder: Path, *, hosts: int = 3) -> AsyncIterator[Region]:
    """With that many storage hosts, each in another AZ."""
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1, len(shards.servers) + 1):
            await shards.sql_script(number, EMPTY)
        client = Client([shards.zookeeper.address])
        client.start()
        stack.push_async_callback(client.stop)
        await client.wait_connected(10)
        metadata = PostgresMetadata(client, shards.postgres)
        metadata.start()
        stack.callback(metadata.stop)
        made = [await _host(stack, folder, f"test-{az}-storage-01", az) for az in "abcdef"[:hosts]]
        http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=BOUND_S))
        stack.push_async_callback(http.close)
        storage = StorageClient(http, key=bytes.fromhex(KEY_TEXT), caller="test", clock=SystemClock())
        await metadata.region_init([host.server for host in made], len(shards.servers))
        yield Region(shards, metadata, storage, {host.server.id: host for host in made})


async def _host(stack: contextlib.AsyncExitStack, folder: Path, name: str, az: str) -> Host:
    key = folder / "capability.key"
    key.write_text(KEY_TEXT)
    files = folder / name
    config = StorageConfig("test", name, az, "127.0.0.1", 0, str(files), (str(key),), fill_max=1.0)
    server = storage_app.build(config)
    await server.start()
    stack.push_async_callback(server.stop)
    host: Host

    async def handle(request: Request, response: Response) -> None:
        host.asked.append(request.method)
        if host.hung:
            await until(lambda: not host.hung)
        if host.away:
            await response.send_error(503, "ServiceUnavailable", "away")
        else:
            await server.handle(request, response)

    frame = HttpServer(handle)
    port = await frame.listen("127.0.0.1", 0)
    host = Host(StorageServer(name, az, "127.0.0.1", port), files)
    stack.push_async_callback(frame.stop, 1.0)
    return host
