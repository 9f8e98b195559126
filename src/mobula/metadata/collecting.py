"""What collector and sweeper ask of the shards and tell them (docs/metadata.md, section 6). Every call may be repeated.

A call that raises OutcomeUnknown may have happened: do it again, or look.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import uuid
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from mobula.metadata.model import StorageServer, Unavailable
from mobula.metadata.shard_map import ShardMap, vnode_of
from mobula.metadata.store import PostgresMetadata


@dataclass(frozen=True, slots=True)
class Place:
    """Where the garbage of one (group, copies) lies: on these servers, under that epoch. No servers: nobody can say."""

    group: int
    copies: int
    epoch: int
    servers: tuple[StorageServer, ...]


@dataclass(frozen=True, slots=True)
class Garbage:
    """Bytes that no entry names any more: a row of metadata.garbage."""

    row: int
    account: uuid.UUID
    object_id: uuid.UUID
    size_bytes: int
    md5: bytes
    group: int
    copies: int


@dataclass(frozen=True, slots=True)
class Released:
    """A name that shared bytes have lost: a row of metadata.released; `lost.row` is its number."""

    reference: uuid.UUID
    lost: Garbage


@dataclass(frozen=True, slots=True)
class Counts:
    """One shard at one moment. Dropped is what was collected and what waits."""

    waiting_objects: int = 0
    waiting_bytes: int = 0
    waiting_names: int = 0
    oldest_s: float = 0.0
    collected_objects: int = 0
    collected_bytes: int = 0
    collected_names: int = 0

    @property
    def dropped_objects(self) -> int:
        return self.waiting_objects + self.collected_objects

    @property
    def dropped_bytes(self) -> int:
        return self.waiting_bytes + self.collected_bytes


@dataclass(frozen=True, slots=True)
class Reference:
    """A name that bytes have or were about to get: a row of metadata.reference."""

    vnode: int
    object_id: uuid.UUID
    reference: uuid.UUID
    directory: str
    name: str
    made_at: dt.datetime


class Undecided(Unavailable):
    """A transaction that is older than it may be goes on: nothing is concluded from what is not there."""


LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""before every reference"""


class Collecting:
    """The workers' side of the metadata tier."""

    def __init__(self, metadata: PostgresMetadata) -> None:
        self._metadata = metadata

    @property
    def map(self) -> ShardMap:
        """Raises Unavailable while it is not known."""
        found = self._metadata.map
        if found is None:
            raise Unavailable("the shard map has not been read from ZooKeeper yet")
        return found

    def home(self, object_id: uuid.UUID) -> int:
        """The shard on which the references of shared bytes are."""
        return self.map.shard_of(vnode_of(str(object_id)))

    # garbage

    async def places(self, shard: int) -> list[Place]:
        """All places of a shard that have garbage."""
        rows = await self._metadata.call(shard, "SELECT * FROM metadata.garbage_places()", writes=False)
        return [_place(row) for row in rows if row["group_id"] is not None]

    async def batch(
        self, shard: int, places: Sequence[Place], *, grace_s: float, skip: Collection[int], limit: int
    ) -> list[Garbage]:
        """Rows of these places that have waited for so long; those of earlier places first."""
        rows = await self._metadata.call(
            shard, "SELECT * FROM metadata.garbage_batch($1, $2, $3, $4, $5)", [p.group for p in places], [p.copies for p in places],
            dt.timedelta(seconds=grace_s), list(skip), limit, writes=False,
        )  # fmt: skip
        return [_garbage(row) for row in rows if row["id"] is not None]

    async def named(self, objects: Sequence[uuid.UUID]) -> set[uuid.UUID]:
        """Of these those that an entry of any shard names. Raises Unavailable if one shard can't say."""
        sql = "SELECT * FROM metadata.named_objects($1)"
        answers = await _all(self._metadata.call(shard, sql, objects, writes=False) for shard in self.map.shards)
        return {found for rows in answers for found in rows[0]["named"]}

    async def collect(self, shard: int, rows: Iterable[int], epochs: Mapping[int, int]) -> tuple[int, int]:
        """Their bytes are gone from the servers that their groups had under `epochs`; answers (objects, bytes) that this ended."""
        (row,) = await self._metadata.call(
            shard, "SELECT * FROM metadata.collect($1, $2, $3)", sorted(rows), list(epochs), list(epochs.values()), writes=True,
        )  # fmt: skip
        return row["objects"], row["bytes"]

    async def counts(self, shard: int) -> Counts:
        """Reads all garbage rows: now and then."""
        (row,) = await self._metadata.call(shard, "SELECT * FROM metadata.garbage_counts()", writes=False)
        values = dict(row)
        del values["generation"]
        return Counts(**values | {"oldest_s": values.pop("oldest").total_seconds()})

    # names of shared bytes

    async def released(self, shard: int, *, after: int, limit: int) -> list[Released]:
        """The next rows beyond that number."""
        sql = "SELECT * FROM metadata.released_batch($1, $2)"
        rows = await self._metadata.call(shard, sql, after, limit, writes=False)
        return [Released(row["reference"], _garbage(row)) for row in rows if row["id"] is not None]

    async def give_up(self, home: int, names: Sequence[Released]) -> int:
        """Tell the home of these bytes that the names are gone; answers how many bytes became garbage by that."""
        document = msgspec.json.encode([_name(name) for name in names]).decode()
        sql = "SELECT * FROM metadata.release_references($1)"
        (row,) = await self._metadata.call(home, sql, document, writes=True)
        return int(row["garbage"])

    async def forget(self, shard: int, rows: Iterable[int]) -> int:
        """Drop released rows that were given up; answers how many this dropped."""
        sql = "SELECT * FROM metadata.forget_released($1)"
        (row,) = await self._metadata.call(shard, sql, sorted(rows), writes=True)
        return int(row["names"])

    async def unconfirmed(self, shard: int, *, older_s: float, after: dt.datetime, limit: int) -> list[Reference]:
        """The next references beyond that time that are so old, and whose entry nobody has looked at."""
        rows = await self._metadata.call(
            shard, "SELECT * FROM metadata.unconfirmed_references($1, $2, $3)", dt.timedelta(seconds=older_s), after, limit, writes=False,
        )  # fmt: skip
        return [
            Reference(row["vnode"], row["object_id"], row["reference"], row["directory"], row["name"], row["made_at"])
            for row in rows
            if row["object_id"] is not None
        ]

    async def holds(self, wanted: Reference, *, patience_s: float) -> bool:
        """Whether its name has it, or will still give it up.

        Raises:
            Undecided: no, but a transaction that is older than `patience_s` may still say otherwise.
        """
        vnode = vnode_of(wanted.directory)
        (row,) = await self._metadata.call(
            self.map.shard_of(vnode), "SELECT * FROM metadata.holds_reference($1, $2, $3, $4, $5)", vnode, wanted.directory, wanted.name,
            wanted.object_id, wanted.reference, writes=False,
        )  # fmt: skip
        if not row["holds"]:
            _check_age(row["oldest"], patience_s)
        return bool(row["holds"])

    async def settle(self, shard: int, looked: Mapping[Reference, bool]) -> int:
        """Confirm those that hold, drop the others; answers how many were dropped. Never makes garbage."""
        columns = [(r.vnode, r.object_id, r.reference, r.made_at, holds) for r, holds in looked.items()]
        sql = "SELECT * FROM metadata.settle_references($1, $2, $3, $4, $5)"
        (row,) = await self._metadata.call(shard, sql, *map(list, zip(*columns, strict=True)), writes=True)
        return int(row["dropped"])

    # files

    async def unknown(self, objects: Sequence[uuid.UUID], *, patience_s: float) -> set[uuid.UUID]:
        """Of these objects those that have no row on any shard: no entry, no garbage, no reference.

        Names move between shards while we ask one after the other, but never without leaving a reference at the bytes' home first. So the
        homes are asked again at the end: what was linked before the first answers has one there, what was not has not moved.

        Raises:
            Unavailable: a shard did not answer, or a transaction older than `patience_s` goes on there, or the map changed meanwhile.
        """
        before = self.map
        left = set(objects)
        for _ in range(2):
            if not left:
                break
            asked = sorted(left)
            answers = await _all(self._known(shard, asked, patience_s) for shard in before.shards)
            left.difference_update(*answers)
        if self.map.epoch != before.epoch:
            raise Unavailable("the shard map changed while the shards were asked")
        return left

    async def _known(self, shard: int, objects: Sequence[uuid.UUID], patience_s: float) -> set[uuid.UUID]:
        (row,) = await self._metadata.call(
            shard, "SELECT * FROM metadata.known_objects($1, $2)", objects, [vnode_of(str(o)) for o in objects], writes=False,
        )  # fmt: skip
        _check_age(row["oldest"], patience_s)
        return set(row["known"])

    # directories

    async def finish_directories(self, shard: int) -> int:
        """Finish what a mkdir or rmdir left half-done a minute ago; answers how many directories were finished."""
        return await self._metadata.sweep_shard(shard)


def by_home(collecting: Collecting, names: Iterable[Released]) -> dict[int, list[Released]]:
    """Names by the shard that has to be told of them."""
    found: dict[int, list[Released]] = defaultdict(list)
    for name in names:
        found[collecting.home(name.lost.object_id)].append(name)
    return found


async def _all(calls: Iterable[Any]) -> list[Any]:
    """All answers; the first error is raised when all have ended, so that nothing goes on behind our back."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def _check_age(oldest: dt.timedelta, patience_s: float) -> None:
    if oldest.total_seconds() > patience_s:
        raise Undecided(
            f"a transaction has been going on for {oldest.total_seconds():.0f} s: it may still be committed"
        )


def _place(row: Any) -> Place:
    servers = msgspec.json.decode(row["servers"], type=list[StorageServer]) if row["servers"] else []
    return Place(row["group_id"], row["copies"], row["epoch"] or 0, tuple(servers[: row["copies"]]))


def _garbage(row: Any) -> Garbage:
    return Garbage(
        row["id"], row["account"], row["object_id"], row["size"], row["md5"], row["group_id"], row["copies"],
    )  # fmt: skip


def _name(name: Released) -> dict[str, object]:
    lost = name.lost
    return {
        "vnode": vnode_of(str(lost.object_id)), "object_id": str(lost.object_id), "reference": str(name.reference),
        "account": str(lost.account), "size": lost.size_bytes, "md5": f"\\x{lost.md5.hex()}", "group_id": lost.group,
        "copies": lost.copies,
    }  # fmt: skip
