"""The metadata tier on PostgreSQL: routing by the shard map, one round trip a request; mkdir and rmdir in the steps of `two_shards`."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import msgspec
import structlog

from mobula.metadata import shard_map, two_shards
from mobula.metadata.batches import Batches
from mobula.metadata.config import Postgres
from mobula.metadata.group_cache import GroupCache
from mobula.metadata.model import (
    DirectoryFull,
    DirectoryMissing,
    DirectoryNotEmpty,
    Entry,
    Group,
    GroupChanged,
    IsDirectory,
    Kind,
    Listing,
    Lookup,
    NotFound,
    Page,
    ParentNotDirectory,
    Precondition,
    PreconditionFailed,
    Refusal,
    SourceChanged,
    StorageServer,
    Unavailable,
)
from mobula.metadata.paths import is_root, split
from mobula.metadata.placement import group_of, merge_groups, newest
from mobula.metadata.shard import Shard
from mobula.metadata.two_shards import Plan
from mobula.wire.zookeeper import Client, Node, NodeExists, NoNode

log = structlog.get_logger()

DEADLINE_S = 6.0
"""of one call to the metadata tier, so that a request of one call is answered within 10 s whatever a loadbalancer tried before"""
ENTRIES_MAX = 1_000_000
GROUPS_SHARD = 1
"""the first one that learns of a change"""
SWEEP_AGE = dt.timedelta(seconds=60)
MAP_PATH = "/metadata/shard-map"


REFUSALS: Mapping[str, type[Refusal]] = {
    "is_directory": IsDirectory,
    "precondition": PreconditionFailed,
    "group_changed": GroupChanged,
    "directory_full": DirectoryFull,
    "not_found": NotFound,
    "not_empty": DirectoryNotEmpty,
}

Put = Callable[..., Awaitable[bool]]
"""`_put_entry` of one mkdir; takes `incarnation` and `insert`"""


class _Stored(msgspec.Struct):
    """A row of metadata.entry, as its JSON says it."""

    name: str
    kind: Kind
    mtime: dt.datetime
    headers: dict[str, str]
    role_tags: tuple[str, ...]
    etag: str
    size: int
    md5: str
    content_type: str
    object_id: uuid.UUID | None
    account: uuid.UUID | None
    group_id: int
    copies: int
    reference: uuid.UUID | None = None
    """a shard may not have migrated yet"""
    lost: uuid.UUID | None = None


# Made at import: msgspec is not safe when several threads are the first to decode a type.
_stored = msgspec.json.Decoder(_Stored)
_page = msgspec.json.Decoder(list[_Stored])


@dataclass(frozen=True, slots=True)
class _Put:
    """An entry on its way into a batch."""

    directory: str
    name: str
    group: int
    document: bytes


class _Row(NamedTuple):
    """A name that is looked up."""

    vnode: int
    directory: str
    name: str


class _Way:
    """To one shard, single and in batches."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.puts = Batches(self._put)
        self.lookups = Batches(self._lookup)

    async def _put(self, puts: Sequence[_Put], deadline: float) -> Sequence[str | None]:
        """In the order that keeps two batches from waiting for each other; two puts of a name stay in theirs."""
        order = sorted(range(len(puts)), key=lambda number: (puts[number].directory, puts[number].name))
        groups = sorted({put.group for put in puts if put.group})
        document = (b"[" + b",".join(puts[number].document for number in order) + b"]").decode()
        sql = "SELECT * FROM metadata.put_entries($1, $2, $3)"
        rows = await self.shard.call(sql, groups, document, ENTRIES_MAX, deadline=deadline, writes=True)
        words: list[str | None] = [None] * len(puts)
        for number, word in zip(order, rows[0]["refused"], strict=True):
            words[number] = word
        return words

    async def _lookup(self, names: Sequence[_Row], deadline: float) -> Sequence[tuple[bool, Entry | None]]:
        sql = "SELECT * FROM metadata.lookup_all($1, $2, $3)"
        columns = [list(column) for column in zip(*names, strict=True)]
        rows = await self.shard.call(sql, *columns, deadline=deadline, writes=False)
        return [
            (row["directory_active"], _entry(_stored.decode(row["entry"])) if row["entry"] else None) for row in rows
        ]


class PostgresMetadata:
    """`mobula.metadata.model.Metadata` on the shards. `start` it on the event loop, `stop` it at the end."""

    def __init__(self, zookeeper: Client, postgres: Postgres, *, deadline_s: float = DEADLINE_S) -> None:
        self._zookeeper = zookeeper
        self._deadline_s = deadline_s
        self._postgres = postgres
        self._map: shard_map.ShardMap | None = None
        self._mapped = asyncio.Event()
        self._ways: dict[int, _Way] = {}
        self._groups = GroupCache(lambda: self._read_groups(GROUPS_SHARD))

    def start(self) -> None:
        """Follow the shard map and the shards' primaries."""
        self._zookeeper.watch(MAP_PATH, self._on_map)

    def stop(self) -> None:
        """Drop all connections."""
        self._groups.stop()
        for way in self._ways.values():
            way.shard.stop()

    def _on_map(self, node: Node | None) -> None:
        if node is None:
            return
        try:
            found = shard_map.decode(node.data)
        except shard_map.ShardMapError as error:
            log.error("shard map ignored", why=str(error))
            return
        if self._map is None or found.epoch > self._map.epoch:
            self._map = found
            self._mapped.set()
            log.info("shard map", epoch=found.epoch, shards=found.shards)

    def shard(self, number: int) -> Shard:
        """The shard of that number, followed from the first time it is asked for."""
        return self._way(number).shard

    def _way(self, number: int) -> _Way:
        if number not in self._ways:
            self._ways[number] = _Way(Shard(number, self._postgres, self._zookeeper))
            self._ways[number].shard.start()
        return self._ways[number]

    @property
    def ready(self) -> bool:
        """The shard map is known."""
        return self._map is not None

    @property
    def map(self) -> shard_map.ShardMap | None:
        """As last read, None until then."""
        return self._map

    @property
    def shards(self) -> Sequence[int]:
        """Numbers of all shards; none while the map is not known."""
        return self._map.shards if self._map else ()

    def shard_of(self, vnode: int) -> int:
        """Who has a vnode; 0 while the map is not known."""
        return self._map.shard_of(vnode) if self._map else 0

    async def call(self, shard: int, sql: str, *args: object, writes: bool, deadline: float | None = None) -> list[Any]:
        """Rows of one statement on one shard; the first column is ``generation``. Raises what `Shard.call` raises."""
        return await self.shard(shard).call(sql, *args, deadline=deadline or self._deadline(), writes=writes)

    def _deadline(self) -> float:
        return time.monotonic() + self._deadline_s

    async def _route(self, directory: str, deadline: float) -> tuple[_Way, int]:
        """To the shard of a directory's children, and their vnode."""
        if self._map is None:
            await self.wait_mapped(deadline)
        vnode = shard_map.vnode_of(directory)
        return self._way(self.shard_of(vnode)), vnode

    async def wait_mapped(self, deadline: float | None = None) -> None:
        """Until the shard map is known. Raises Unavailable."""
        try:
            await asyncio.wait_for(self._mapped.wait(), (deadline or self._deadline()) - time.monotonic())
        except TimeoutError as error:
            raise Unavailable("route a request: the shard map has never been read from ZooKeeper") from error

    async def _row(self, directory: str, sql: str, *args: object, deadline: float, writes: bool) -> Any:
        """The one row of a function of schema metadata, called with the directory's vnode and path first."""
        way, vnode = await self._route(directory, deadline)
        return (await way.shard.call(sql, vnode, directory, *args, deadline=deadline, writes=writes))[0]

    async def lookup(self, directory: str, name: str) -> Lookup:
        deadline = self._deadline()
        active, entry = await self._look(directory, name, deadline)
        return Lookup(entry, active or is_root(directory) or await self._exists(directory, deadline))

    async def _look(self, directory: str, name: str, deadline: float) -> tuple[bool, Entry | None]:
        """Whether the directory is active, and what is in it under that name."""
        way, vnode = await self._route(directory, deadline)
        return await way.lookups.ask(_Row(vnode, directory, name), deadline)

    async def _exists(self, path: str, deadline: float) -> bool:
        """A directory without an active row is one all the same if its mkdir stopped half way: finish that."""
        return await self._carry_out(two_shards.exist(), path, None, deadline)

    async def _put_entry(
        self,
        directory: str,
        entry: Entry,
        *,
        epoch: int = 0,
        precondition: Precondition = Precondition(),  # noqa: B008 (frozen)
        parent_is_root: bool,
        incarnation: int = 0,
        insert: bool = True,
        deadline: float,
    ) -> bool:
        """Put it; False if a directory's entry belongs to a later incarnation. Raises what `put_object` and `put_directory` raise."""
        way, vnode = await self._route(directory, deadline)
        any_of, none_of = _lists(precondition)
        document = _columns(entry) | {
            "vnode": vnode, "directory": directory, "incarnation": incarnation, "insert": insert, "parent_is_root": parent_is_root,
            "epoch": epoch, "any_of": any_of, "none_of": none_of,
        }  # fmt: skip
        put = _Put(directory, entry.name, entry.group, msgspec.json.encode(document))
        refused = await way.puts.ask(put, deadline)
        if refused == "directory_missing":
            if not await self._exists(directory, deadline):
                raise await self._why_missing(directory, deadline)
            refused = await way.puts.ask(put, deadline)
            if refused == "directory_missing":
                raise await self._why_missing(directory, deadline)
        if refused == "overtaken":
            return False
        _refuse(refused, f"{directory}/{entry.name}")
        return True

    async def _why_missing(self, directory: str, deadline: float) -> Refusal:
        _, found = await self._look(*split(directory), deadline)
        return (ParentNotDirectory if found and found.kind is Kind.OBJECT else DirectoryMissing)(directory)

    async def put_object(
        self, directory: str, entry: Entry, *, group_epoch: int, precondition: Precondition, parent_is_root: bool
    ) -> None:
        await self._put_entry(
            directory,
            entry,
            epoch=group_epoch,
            precondition=precondition,
            parent_is_root=parent_is_root,
            deadline=self._deadline(),
        )

    async def link_object(
        self,
        source_directory: str,
        source: Entry,
        directory: str,
        entry: Entry,
        *,
        group_epoch: int,
        parent_is_root: bool,
    ) -> None:
        """Three steps; whichever is the last one done, nothing that has a name can be collected (`decisions/0006`)."""
        deadline, reference = self._deadline(), uuid.uuid4()
        home = str(source.object_id)
        wanted = [(reference, directory, entry.name)]
        if source.reference is None and source.object_id is not None:
            wanted.append((source.object_id, source_directory, source.name))
        names = _json([{"reference": str(r), "directory": d, "name": n} for r, d, n in wanted])
        ask = partial(self._row, deadline=deadline, writes=True)
        await ask(home, "SELECT * FROM metadata.add_references($1, $2, $3)", names)
        shared = await ask(
            source_directory, "SELECT * FROM metadata.share_entry($1, $2, $3, $4)", source.name, source.object_id
        )
        if not shared["done"]:
            raise SourceChanged(f"{source_directory}/{source.name}")
        await self._put_entry(
            directory,
            replace(entry, reference=reference),
            epoch=group_epoch,
            parent_is_root=parent_is_root,
            deadline=deadline,
        )

    async def put_metadata(
        self,
        directory: str,
        name: str,
        *,
        headers: Mapping[str, str],
        role_tags: Sequence[str],
        content_type: str | None,
        precondition: Precondition,
    ) -> Entry:
        any_of, none_of = _lists(precondition)
        row = await self._row(
            directory, "SELECT * FROM metadata.put_metadata($1, $2, $3, $4, $5, $6, $7, $8)", name, _json(dict(headers)),
            list(role_tags), content_type, any_of, none_of, deadline=self._deadline(), writes=True,
        )  # fmt: skip
        _refuse(row["refused"], f"{directory}/{name}")
        return _entry(_stored.decode(row["entry"]))

    async def delete_object(self, directory: str, name: str, *, precondition: Precondition) -> None:
        any_of, none_of = _lists(precondition)
        sql = "SELECT * FROM metadata.delete_object($1, $2, $3, $4, $5)"
        row = await self._row(directory, sql, name, any_of, none_of, deadline=self._deadline(), writes=True)
        _refuse(row["refused"], f"{directory}/{name}")

    async def put_directory(self, directory: str, entry: Entry, *, parent_is_root: bool) -> None:
        deadline = self._deadline()
        put = partial(self._put_entry, directory, entry, parent_is_root=parent_is_root, deadline=deadline)
        await self._carry_out(two_shards.make(), f"{directory}/{entry.name}", put, deadline)

    async def delete_directory(self, directory: str, name: str) -> None:
        path = f"{directory}/{name}"
        if not await self._carry_out(two_shards.remove(), path, None, self._deadline()):
            raise NotFound(path)

    async def _carry_out(self, plan: Plan, path: str, put: Put | None, deadline: float) -> bool:
        """Send a plan's steps to the two shards until it ends; `put` writes the entry of a directory that is being made."""
        try:
            step = next(plan)
            while True:
                try:
                    answer = await self._step(step, path, put, deadline)
                except Refusal as error:
                    step = plan.throw(error)
                else:
                    step = plan.send(answer)
        except StopIteration as end:
            return bool(end.value)

    async def _step(self, step: two_shards.Step, path: str, put: Put | None, deadline: float) -> Any:
        above, name = split(path)
        ask = partial(self._row, deadline=deadline, writes=True)
        match step:
            case two_shards.Begin():
                row = await ask(path, "SELECT * FROM metadata.begin_directory($1, $2)")
                return row["state"] and two_shards.Row(row["incarnation"], two_shards.State(row["state"]))
            case two_shards.Activate(number):
                return (await ask(path, "SELECT * FROM metadata.activate_directory($1, $2, $3)", number))["done"]
            case two_shards.BeginRemoval():
                row = await ask(path, "SELECT * FROM metadata.begin_removal($1, $2)")
                _refuse(row["refused"], path)
                return row["incarnation"]
            case two_shards.Finish(number, state):
                await ask(path, "SELECT * FROM metadata.finish_directory($1, $2, $3, $4)", number, state.value)
                return None
            case two_shards.Look():
                _, found = await self._look(above, name, deadline)
                return found.kind if found else None
            case two_shards.Put(number, insert):
                assert put is not None  # noqa: S101 (only put_directory's plan has this step)
                return await put(incarnation=number, insert=insert)
            case two_shards.Adopt(number):
                sql = "SELECT * FROM metadata.adopt_directory($1, $2, $3, $4)"
                return (await ask(above, sql, name, number))["done"]
            case two_shards.Drop(number):
                return (await ask(above, "SELECT * FROM metadata.drop_directory($1, $2, $3, $4)", name, number))["done"]

    async def list_directory(self, path: str, page: Page) -> Listing:
        deadline = self._deadline()
        row = await self._row(
            path, "SELECT * FROM metadata.page($1, $2, $3, $4, $5, $6, $7)", page.limit, page.marker,
            "mtime" if page.by_mtime else "name", page.reverse, page.kind.value if page.kind else None, deadline=deadline, writes=False,
        )  # fmt: skip
        entries = [_entry(stored) for stored in _page.decode(row["entries"])]
        if (
            not row["directory_active"]
            and not row["total"]
            and (is_root(path) or not await self._exists(path, deadline))
        ):
            raise NotFound(path)
        return Listing(entries, row["total"])

    async def groups(self, *, fresh: bool = False) -> Sequence[Group]:
        return await self._groups.get(fresh=fresh)

    async def _read_groups(self, shard: int) -> list[Group]:
        rows = await self.call(shard, "SELECT * FROM metadata.groups()", writes=False)
        return [group_of(row["id"], row["epoch"], row["servers"]) for row in rows if row["id"] is not None]

    async def sweep(self) -> int:
        """Finish what a mkdir or rmdir left half-done more than 60 s ago; answers how many directories were finished."""
        return sum([await self.sweep_shard(shard) for shard in (self._map.shards if self._map else ())])

    async def sweep_shard(self, shard: int) -> int:
        """As `sweep`, of one shard."""
        rows = await self.call(shard, "SELECT * FROM metadata.unfinished_directories($1)", SWEEP_AGE, writes=False)
        left = [row for row in rows if row["path"] is not None]
        for row in left:
            state = two_shards.State(row["state"])
            plan = two_shards.sweep(two_shards.Row(row["incarnation"], state))
            there = await self._carry_out(plan, row["path"], None, self._deadline())
            log.info("half-done directory finished", path=row["path"], was=state.value, there=there)
        return len(left)

    async def region_init(self, storages: Sequence[StorageServer], shards: int) -> tuple[bool, int, int]:
        """Make the shard map and the placement groups, or bring the groups to these servers. Idempotent.

        Answers (changed, epoch of the shard map, number of groups). A group whose servers change gets the next epoch, on all shards.
        """
        changed = False
        try:
            await self._zookeeper.create(MAP_PATH, shard_map.even(shards).encode())
            changed = True
        except NodeExists:
            log.info("shard map stands")
        self._on_map(await self._read_map())
        standing = newest([await self._read_groups(shard) for shard in self.shards])
        groups = merge_groups(standing, storages)
        wanted = [{"id": g.id, "epoch": g.epoch, "servers": [asdict(s) for s in g.servers]} for g in groups]
        document = _json(wanted)
        for shard in self.shards:
            row = (await self.call(shard, "SELECT * FROM metadata.ensure_groups($1)", document, writes=True))[0]
            changed = changed or row["changed"] > 0
        return changed, self._map.epoch if self._map else 0, len(wanted)

    async def _read_map(self) -> Node | None:
        try:
            return await self._zookeeper.get(MAP_PATH)
        except NoNode:
            return None


def _refuse(word: str | None, what: str) -> None:
    if word is not None:
        raise REFUSALS[word](what)


def _lists(precondition: Precondition) -> tuple[list[str] | None, list[str] | None]:
    any_of, none_of = precondition.any_of, precondition.none_of
    return (None if any_of is None else list(any_of)), (None if none_of is None else list(none_of))


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _columns(entry: Entry) -> dict[str, object]:
    """An entry as the row's JSON, without the columns that say where it is."""
    return {
        "name": entry.name, "kind": entry.kind.value, "mtime": entry.mtime.isoformat(), "headers": dict(entry.headers),
        "role_tags": list(entry.role_tags), "etag": entry.etag, "size": entry.size_bytes, "md5": f"\\x{entry.md5.hex()}",
        "content_type": entry.content_type, "object_id": str(entry.object_id) if entry.object_id else None,
        "account": str(entry.account) if entry.account else None, "group_id": entry.group, "copies": entry.copies,
        "reference": str(entry.reference) if entry.reference else None,
    }  # fmt: skip


def _entry(stored: _Stored) -> Entry:
    return Entry(
        name=stored.name, kind=stored.kind, mtime=stored.mtime, headers=stored.headers, role_tags=stored.role_tags, etag=stored.etag,
        size_bytes=stored.size, md5=bytes.fromhex(stored.md5[2:]), content_type=stored.content_type, object_id=stored.object_id,
        account=stored.account, group=stored.group_id, copies=stored.copies, reference=stored.reference,
        lost=stored.lost is not None and stored.lost == stored.object_id,
    )  # fmt: skip
