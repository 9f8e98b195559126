"""Which shard holds a directory's children: vnodes by hash, and a versioned map of vnode ranges to shards."""

from __future__ import annotations

import bisect
import hashlib
import struct
from dataclasses import dataclass

import msgspec

from mobula.metadata.model import VNODES


class ShardMapError(ValueError):
    """The map does not say of every vnode exactly one shard."""


def vnode_of(directory: str) -> int:
    """vnode of a directory path (``/<account uuid>/stor/a``): first 4 bytes of its MD5, modulo `VNODES`."""
    digest = hashlib.md5(directory.encode(), usedforsecurity=False).digest()
    return int(struct.unpack(">I", digest[:4])[0]) % VNODES


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    epoch: int
    vnodes: int
    ranges: list[tuple[int, int, int]]


@dataclass(frozen=True, slots=True)
class ShardMap:
    """Ranges ``(first vnode, last vnode, shard)``, ordered and without a gap."""

    epoch: int
    ranges: tuple[tuple[int, int, int], ...]

    def __post_init__(self) -> None:
        wanted = 0
        for first, last, _shard in self.ranges:
            if first != wanted or last < first:
                raise ShardMapError(f"shard map epoch {self.epoch}: a range begins at vnode {first}, expected {wanted}")
            wanted = last + 1
        if wanted != VNODES:
            raise ShardMapError(
                f"shard map epoch {self.epoch}: the ranges end at vnode {wanted - 1}, expected {VNODES - 1}"
            )

    def shard_of(self, vnode: int) -> int:
        """The shard of a vnode."""
        return self.ranges[bisect.bisect_right(self.ranges, vnode, key=lambda r: r[0]) - 1][2]

    @property
    def shards(self) -> tuple[int, ...]:
        """All shards, ascending."""
        return tuple(sorted({shard for _, _, shard in self.ranges}))

    def encode(self) -> bytes:
        """As JSON, for ZooKeeper."""
        return msgspec.json.encode(_Document(self.epoch, VNODES, list(self.ranges)))


def even(shards: int) -> ShardMap:
    """The first map of a region: vnodes spread evenly over shards 1..n."""
    bounds = [VNODES * n // shards for n in range(shards + 1)]
    return ShardMap(1, tuple((bounds[n], bounds[n + 1] - 1, n + 1) for n in range(shards)))


def decode(data: bytes) -> ShardMap:
    """Read a map from JSON.

    Raises:
        ShardMapError: malformed, with other vnodes than this version's, or with gaps.
    """
    try:
        document = msgspec.json.decode(data, type=_Document)
    except msgspec.MsgspecError as error:
        raise ShardMapError(f"shard map: {error}") from error
    if document.vnodes != VNODES:
        raise ShardMapError(
            f"shard map epoch {document.epoch}: it has {document.vnodes} vnodes, this version knows {VNODES}"
        )
    return ShardMap(document.epoch, tuple(document.ranges))
