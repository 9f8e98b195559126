"""What accounts use, as each shard has counted it: sums by hour, folded from what is appended (migrations/0012, docs/decisions/0014)."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from mobula.metadata.directory import SHARD as ACCOUNTS_SHARD
from mobula.metadata.model import Unavailable
from mobula.metadata.shard_map import vnode_of
from mobula.metadata.store import PostgresMetadata


class Counted(msgspec.Struct, frozen=True):
    """Requests for one account's paths in one hour, as one process has counted them so far. Bytes are those of bodies."""

    account: uuid.UUID
    hour: int
    total: int
    methods: Mapping[str, int]
    bytes_in: int
    bytes_out: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one account in one hour, as one shard knows it: JSON in the form of the reports, None where there is nothing."""

    account: str
    storage: str | None
    requests: str | None
    compute: str | None


class Metering:
    """Schema `metering` of the shards. Raises what every call to a shard raises; each call may be repeated."""

    def __init__(self, metadata: PostgresMetadata) -> None:
        self._metadata = metadata

    @property
    def shards(self) -> Sequence[int]:
        return self._metadata.shards

    def shard_of(self, account: uuid.UUID) -> int:
        """Where its requests are counted. Raises Unavailable while the shard map is not known."""
        if self._metadata.map is None:
            raise Unavailable("the shard map has not been read from ZooKeeper yet")
        return self._metadata.map.shard_of(vnode_of(str(account)))

    async def note_requests(self, shard: int, process: uuid.UUID, counts: Sequence[Counted]) -> None:
        """What a process has counted, all of it since the hour began."""
        sql = "SELECT * FROM metering.note_requests($1, $2)"
        await self._metadata.call(shard, sql, process, msgspec.json.encode(counts).decode(), writes=True)

    async def fold(self, shard: int, limit: int) -> int:
        """Make sums of so many rows of each kind at most; how many there were."""
        (row,) = await self._metadata.call(shard, "SELECT * FROM metering.fold($1)", limit, writes=True)
        return int(row["folded"])

    async def close_hours(self, shard: int, upto: int, limit: int) -> int:
        """Tell hours up to this one apart no more; how many rows went by it, so many of each kind at most."""
        (row,) = await self._metadata.call(
            shard, "SELECT * FROM metering.close_hours($1, $2)", upto, limit, writes=True
        )
        return int(row["dropped"])

    async def first_hour(self) -> int:
        """The first one of which every shard can still say what was used."""
        found = [await self._closed(shard) for shard in self.shards]
        if not found:
            raise Unavailable("the shard map has not been read from ZooKeeper yet")
        return max(found) + 1

    async def _closed(self, shard: int) -> int:
        (row,) = await self._metadata.call(shard, "SELECT * FROM metering.closed_hour()", writes=False)
        return int(row["hour"])

    async def page(self, shard: int, hour: int, after: str, limit: int) -> Sequence[Usage]:
        """The next so many accounts that the shard knows, in their order; fold before."""
        sql = "SELECT * FROM metering.usage($1, $2, $3)"
        rows = await self._metadata.call(shard, sql, hour, after, limit, writes=False)
        return [
            Usage(row["account"], row["storage"], row["requests"], row["compute"])
            for row in rows
            if row["account"] is not None
        ]

    async def logins(self, accounts: Sequence[str]) -> Mapping[str, str]:
        """By account; those that are no account's have none."""
        sql = "SELECT * FROM metering.logins($1)"
        wanted = [uuid.UUID(account) for account in accounts]
        rows = await self._metadata.call(ACCOUNTS_SHARD, sql, wanted, writes=False)
        return {str(row["account"]): row["login"] for row in rows if row["account"] is not None}
