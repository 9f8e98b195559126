"""The form of a log segment: records one after the other, up to the first one that is not whole. Pure.

A record: magic, CRC-32 of all that follows, number of the segment, kind, account, object id, size, MD5, body (little endian, packed).
"""

from __future__ import annotations

import enum
import struct
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

_HEAD = struct.Struct("<4sI")
_BODY = struct.Struct("<QB16s16sI16s")
_MAGIC = b"MbL1"
HEAD_BYTES = _HEAD.size + _BODY.size


class Kind(enum.IntEnum):
    STORED = 1
    DELETED = 2
    """has no body"""


_KINDS = frozenset(Kind)


@dataclass(frozen=True, slots=True)
class Record:
    """What happened to an object; ids and MD5 are raw bytes (16 each)."""

    kind: Kind
    account: bytes
    object_id: bytes
    size_bytes: int
    md5: bytes
    body: bytes = b""
    """`size_bytes` long, or empty for what was deleted"""

    @property
    def names(self) -> tuple[str, str]:
        """Account and object id as text."""
        return str(uuid.UUID(bytes=self.account)), str(uuid.UUID(bytes=self.object_id))


def encode(segment: int, record: Record) -> list[bytes]:
    """The record's bytes, in pieces that need not be joined."""
    fields = _BODY.pack(segment, record.kind, record.account, record.object_id, record.size_bytes, record.md5)
    return [_HEAD.pack(_MAGIC, zlib.crc32(record.body, zlib.crc32(fields))), fields, record.body]


def scan(segment: int, data: bytes) -> Iterator[Record]:
    """The records of a segment. What follows the last whole one was never acknowledged, or is of another segment."""
    at, view = 0, memoryview(data)
    while len(data) - at >= HEAD_BYTES:
        magic, crc = _HEAD.unpack_from(data, at)
        number, kind, account, object_id, size, md5 = _BODY.unpack_from(data, at + _HEAD.size)
        begin = at + HEAD_BYTES
        end = begin + (size if kind == Kind.STORED else 0)
        if magic != _MAGIC or number != segment or kind not in _KINDS or end > len(data):
            return
        if zlib.crc32(view[at + _HEAD.size : end]) != crc:
            return
        yield Record(Kind(kind), account, object_id, size, md5, data[begin:end])
        at = end
