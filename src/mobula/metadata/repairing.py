"""Repairs as the shards know them: declared, listed, settled, proved. The order of things: docs/metadata.md, section 6."""

from __future__ import annotations

import datetime as dt
import json
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import msgspec

from mobula.metadata.model import Group, MetadataError, StorageServer
from mobula.metadata.placement import group_of, replace_server
from mobula.metadata.shard_map import vnode_of
from mobula.metadata.store import PostgresMetadata
from mobula.wire.storage_client import CopyName

LIST_ROWS = 5000
LONG_S = 600.0
"""bound of a statement that looks at every row of a shard"""
PLANS_MAX = 5
"""a plan whose groups have moved meanwhile is made again"""
OUTCOMES = ("lost", "copied", "present", "changed")
"""of an object with several names that one counts that comes first here"""


class RepairRefused(MetadataError):
    """A repair can't be declared: the sentence says why."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What a repair is about, and what became of it."""

    objects: int = 0
    bytes: int = 0
    copied: int = 0
    """brought to another pool"""
    present: int = 0
    """right copies that were there already: written since, or by an earlier try"""
    changed: int = 0
    """deleted or overwritten since the declaration"""
    lost: int = 0
    done_bytes: int = 0

    @property
    def left(self) -> int:
        return self.objects - self.copied - self.present - self.changed - self.lost

    def __add__(self, other: Tally) -> Tally:
        return Tally(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


@dataclass(frozen=True, slots=True)
class Repair:
    """A repair on one shard."""

    id: uuid.UUID
    server: str
    declared_at: dt.datetime
    bytes_per_s: int
    state: str
    """listing, copying, done"""
    tally: Tally
    shard: int


@dataclass(frozen=True, slots=True)
class GroupLeft:
    """A group of which something is left: the places with another pool than before, and its servers now."""

    id: int
    places: tuple[int, ...]
    servers: tuple[StorageServer, ...]


Key = tuple[int, str, str]
FIRST: Key = (-1, "", "")


@dataclass(frozen=True, slots=True)
class Item:
    """A name whose object had a copy on the lost pool."""

    vnode: int
    directory: str
    name: str
    copy: CopyName
    copies: int
    current: bool
    """the name still has these bytes"""

    @property
    def key(self) -> Key:
        return (self.vnode, self.directory, self.name)


@dataclass(frozen=True, slots=True)
class LostName:
    """An object that is gone."""

    vnode: int
    directory: str
    name: str
    object_id: uuid.UUID
    size_bytes: int
    copies: int
    """as many as it had"""

    @property
    def path(self) -> str:
        return f"{self.directory}/{self.name}"


@dataclass(frozen=True, slots=True)
class Mend:
    """A single copy that has to be brought back to a server. `group` 0: not known."""

    server: str
    copy: CopyName
    group: int
    why: str
    tries: int = 0

    @property
    def home(self) -> int:
        """The vnode of its object id."""
        return vnode_of(self.copy.object_id)


@dataclass(frozen=True, slots=True)
class Progress:
    """A repair on all shards. Of bytes with several names each name is counted until the end, then the bytes once."""

    id: uuid.UUID
    server: str
    declared_at: dt.datetime
    states: dict[int, str]
    """by shard; '' where the declaration has not arrived yet"""
    tally: Tally

    @property
    def done(self) -> bool:
        return all(state == "done" for state in self.states.values())


class Repairs:
    """What `mobula repair`, the admin verbs and the workers do with the shards."""

    def __init__(self, metadata: PostgresMetadata) -> None:
        self._metadata = metadata

    @property
    def shards(self) -> Sequence[int]:
        return self._metadata.shards

    async def _rows(self, shard: int, sql: str, *args: object, writes: bool, bound_s: float | None = None) -> list[Any]:
        deadline = None if bound_s is None else time.monotonic() + bound_s
        return await self._metadata.call(shard, sql, *args, writes=writes, deadline=deadline)

    # declaration

    async def declare(self, server: str, alive: Iterable[StorageServer], bytes_per_s: int) -> uuid.UUID:
        """Declare a server's pool lost, or go on with its open repair; the rate is this one from now on.

        Raises:
            RepairRefused: no group has a place on it.
        """
        standing = next((r for r in await self.everything(open_only=True) if r.server == server), None)
        if standing is not None:
            repair, plan = standing.id, await self._plan(standing)
        else:
            repair, plan = await self._declare_first(server, list(alive), bytes_per_s)
        for shard in self.shards:
            await self._bring(shard, repair, server, bytes_per_s, plan)
        return repair

    async def _declare_first(
        self, server: str, alive: Sequence[StorageServer], bytes_per_s: int
    ) -> tuple[uuid.UUID, str]:
        for _ in range(PLANS_MAX):
            replaced = replace_server(await self._metadata.groups(fresh=True), server, alive)
            if not replaced:
                raise RepairRefused(f"repair {server!r}: no placement group has a place on it")
            plan = msgspec.json.encode(
                [{"id": r.group.id, "epoch": r.group.epoch, "servers": r.group.servers, "places": r.places} for r in replaced]
            ).decode()  # fmt: skip
            sql = "SELECT * FROM metadata.declare_repair($1, $2, $3, $4, true)"
            row = (await self._rows(1, sql, uuid.uuid4(), server, bytes_per_s, plan, writes=True))[0]
            if row["refused"] is None:
                return row["id"], row["plan"]
        raise RepairRefused(f"repair {server!r}: its placement groups keep changing; run it again")

    async def _bring(self, shard: int, repair: uuid.UUID, server: str, bytes_per_s: int, plan: str) -> None:
        sql = "SELECT * FROM metadata.declare_repair($1, $2, $3, $4, false)"
        await self._rows(shard, sql, repair, server, bytes_per_s, plan, writes=True)

    async def adopt(self, shard: int) -> None:
        """Bring a shard the declarations that it has missed: whoever declared may have died in between."""
        if shard == 1:
            return
        here = {repair.id for repair in await self.of_shard(shard, open_only=False)}
        for repair in await self.of_shard(1, open_only=True):
            if repair.id not in here:
                await self._bring(shard, repair.id, repair.server, repair.bytes_per_s, await self._plan(repair))

    async def _plan(self, repair: Repair) -> str:
        """As JSON."""
        row = (await self._rows(repair.shard, "SELECT * FROM metadata.repair_plan($1)", repair.id, writes=False))[0]
        return str(row["plan"])

    # work

    async def of_shard(self, shard: int, *, open_only: bool) -> list[Repair]:
        """Repairs that a shard knows, the oldest first."""
        rows = await self._rows(shard, "SELECT * FROM metadata.repairs($1)", open_only, writes=False)
        return [
            Repair(
                row["id"], row["server"], row["declared_at"], row["bytes_per_s"], row["state"],
                Tally(*(row[name] or 0 for name in Tally.__dataclass_fields__)), shard,
            )
            for row in rows if row["id"] is not None
        ]  # fmt: skip

    async def everything(self, *, open_only: bool) -> list[Repair]:
        """The same of all shards."""
        return [repair for shard in self.shards for repair in await self.of_shard(shard, open_only=open_only)]

    async def list_page(self, shard: int, repair: uuid.UUID, rows: int = LIST_ROWS) -> bool:
        """List what refers to the lost pool among the next so many names; whether more follow."""
        sql = "SELECT * FROM metadata.list_repair($1, $2)"
        return bool((await self._rows(shard, sql, repair, rows, writes=True, bound_s=60.0))[0]["more"])

    async def groups_left(self, shard: int, repair: uuid.UUID) -> list[GroupLeft]:
        """Groups of which something is left."""
        rows = await self._rows(shard, "SELECT * FROM metadata.repair_groups($1)", repair, writes=False)
        return [
            GroupLeft(row["group_id"], tuple(sorted(row["places"])), group_of(row["group_id"], 0, row["servers"]).servers)
            for row in rows if row["group_id"] is not None
        ]  # fmt: skip

    async def items(
        self, shard: int, repair: uuid.UUID, group: int, *, copies_max: int, after: Key, limit: int
    ) -> list[Item]:
        """What is left of a group, after a name: objects of at most so many copies."""
        sql = "SELECT * FROM metadata.repair_items($1, $2, $3, $4, $5, $6, $7)"
        rows = await self._rows(shard, sql, repair, group, copies_max, *after, limit, writes=False)
        return [
            Item(row["vnode"], row["directory"], row["name"], _copy(row), row["copies"], row["current"])
            for row in rows
            if row["object_id"] is not None
        ]

    async def settle(self, shard: int, repair: uuid.UUID, group: int, outcomes: Sequence[tuple[Item, str]]) -> None:
        """Note what became of these."""
        items = [
            {"vnode": i.vnode, "directory": i.directory, "name": i.name, "object_id": i.copy.object_id, "outcome": outcome}
            for i, outcome in outcomes
        ]  # fmt: skip
        sql = "SELECT * FROM metadata.settle_items($1, $2, $3)"
        await self._rows(shard, sql, repair, group, json.dumps(items), writes=True)

    async def finish(self, shard: int, repair: uuid.UUID) -> bool:
        """End a repair of which nothing is left here; not before every shard has listed, and not if that shows more."""
        for other in self.shards:
            found = next((r for r in await self.of_shard(other, open_only=False) if r.id == repair), None)
            if found is None or found.state == "listing":
                return False
        sql = "SELECT * FROM metadata.finish_repair($1)"
        return bool((await self._rows(shard, sql, repair, writes=True, bound_s=LONG_S))[0]["finished"])

    async def purge(self, shard: int, rows: int = LIST_ROWS) -> int:
        """Drop some of what finished repairs need not know any more; how much."""
        return int(
            (await self._rows(shard, "SELECT * FROM metadata.purge_repairs($1)", rows, writes=True))[0]["purged"]
        )

    # what came of it

    async def progress(self, server: str) -> Progress | None:
        """How far the last repair of that server is; None if there was none."""
        of = {shard: await self.of_shard(shard, open_only=False) for shard in self.shards}
        known = [repair for found in of.values() for repair in found if repair.server == server]
        last = max(known, key=lambda repair: repair.declared_at, default=None)
        if last is None:
            return None
        here = {shard: next((r for r in found if r.id == last.id), None) for shard, found in of.items()}
        tally = sum((r.tally for r in here.values() if r), Tally())
        progress = Progress(
            last.id, server, last.declared_at, {s: r.state if r else "" for s, r in here.items()}, tally
        )
        if not progress.done:
            return progress
        shared: list[tuple[uuid.UUID, str, int]] = []
        for shard in self.shards:
            rows = await self._rows(
                shard, "SELECT * FROM metadata.shared_items($1)", last.id, writes=False, bound_s=60.0
            )
            shared += [(r["object_id"], r["outcome"], r["size"]) for r in rows if r["object_id"] is not None]
        return Progress(last.id, server, last.declared_at, progress.states, counted_once(tally, shared))

    async def lost(self, repair: uuid.UUID, shard: int, after: Key, limit: int) -> list[LostName]:
        """Names whose objects are gone, of one shard, after a name."""
        sql = "SELECT * FROM metadata.lost_names($1, $2, $3, $4, $5)"
        rows = await self._rows(shard, sql, repair, *after, limit, writes=False)
        return [
            LostName(row["vnode"], row["directory"], row["name"], row["object_id"], row["size"], row["copies"])
            for row in rows
            if row["object_id"] is not None
        ]

    async def sample(self, server: str, groups: Iterable[Group], limit: int) -> list[CopyName]:
        """Some objects that should have a copy on a server."""
        places = [{"id": g.id, "place": n} for g in groups for n, member in enumerate(g.servers) if member.id == server]
        found = []
        for shard in self.shards:
            sql = "SELECT * FROM metadata.sample_copies($1, $2)"
            rows = await self._rows(shard, sql, json.dumps(places), limit, writes=False, bound_s=60.0)
            found += [_copy(row) for row in rows if row["object_id"] is not None]
        return found

    # single copies

    async def note(self, mends: Sequence[Mend]) -> None:
        """Have these copies looked after by the workers of their object ids' shards."""
        for shard in self.shards:
            here = [m for m in mends if self._metadata.shard_of(m.home) == shard]
            if here:
                await self._rows(shard, "SELECT * FROM metadata.note_mends($1)", _mends(here), writes=True)

    async def due(self, shard: int, limit: int) -> list[Mend]:
        """Copies that a shard has to look after now."""
        rows = await self._rows(shard, "SELECT * FROM metadata.due_mends($1)", limit, writes=False)
        return [
            Mend(row["server"], _copy(row), row["group_id"], row["why"], row["tries"])
            for row in rows
            if row["object_id"] is not None
        ]

    async def settle_mends(self, shard: int, done: Sequence[Mend], failed: Sequence[Mend]) -> None:
        """These are done with, those are tried again later."""
        sql = "SELECT * FROM metadata.settle_mends($1, $2)"
        await self._rows(shard, sql, _mends(done), _mends(failed), writes=True)

    def is_home(self, shard: int, mend: Mend) -> bool:
        """The shard is the one that looks after this copy."""
        return self._metadata.shard_of(mend.home) == shard


def counted_once(tally: Tally, shared: Iterable[tuple[uuid.UUID, str, int]]) -> Tally:
    """The tally, but that bytes with several names (each one's outcome and size is in `shared`) count once."""
    counts = asdict(tally)
    best: dict[uuid.UUID, tuple[str, int]] = {}
    for object_id, outcome, size_bytes in shared:
        known = best.get(object_id)
        if known is None:
            best[object_id] = (outcome, size_bytes)
            continue
        keep, drop = sorted((known[0], outcome), key=OUTCOMES.index)
        best[object_id] = (keep, size_bytes)
        for name, less in (("objects", 1), ("bytes", size_bytes), ("done_bytes", size_bytes), (drop, 1)):
            counts[name] -= less
    return Tally(**counts)


def _copy(row: Any) -> CopyName:
    return CopyName(str(row["account"]), str(row["object_id"]), row["size"], bytes(row["md5"]))


def _mends(mends: Iterable[Mend]) -> str:
    return json.dumps([
        {
            "vnode": m.home, "object_id": m.copy.object_id, "server": m.server, "account": m.copy.account, "size": m.copy.size_bytes,
            "md5": f"\\x{m.copy.md5.hex()}", "group_id": m.group, "why": m.why[:200],
        }
        for m in mends
    ])  # fmt: skip
