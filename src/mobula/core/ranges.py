"""Byte ranges of HTTP requests: a `Range` header and a size in, one range out."""

from __future__ import annotations

import re
from typing import NamedTuple

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*(?:([0-9]{1,19})\s*-\s*([0-9]{0,19})|-\s*([0-9]{1,19}))\s*", re.ASCII)


class RangeNotSatisfiable(ValueError):
    """The header can't be understood, or names nothing that the object has. -> 416"""


class SeveralRanges(ValueError):
    """More than one range was asked for, which is not supported. -> 501"""


class ByteRange(NamedTuple):
    """The bytes `first` to `last`, both included, as in the header."""

    first: int
    last: int

    @property
    def size_bytes(self) -> int:
        return self.last - self.first + 1

    def content_range(self, size_bytes: int) -> str:
        """Value of `Content-Range` for an object of `size_bytes`."""
        return f"bytes {self.first}-{self.last}/{size_bytes}"


def parse_range(header: str, size_bytes: int) -> ByteRange:
    """The range that a `Range` header asks for, of an object of `size_bytes`; an end beyond it is clamped.

    Raises RangeNotSatisfiable, SeveralRanges.
    """
    if "," in header:
        raise SeveralRanges(f"read range {header!r}: several ranges; ask for one at a time")
    match = _ONE_RANGE.fullmatch(header)
    if match is None:
        raise RangeNotSatisfiable(f"read range {header!r}: not of the form bytes=first-last")
    if match[3] is not None:
        first, last = max(size_bytes - int(match[3]), 0), size_bytes - 1
    else:
        first, last = int(match[1]), int(match[2]) if match[2] else size_bytes - 1
        if match[2] and last < first:
            raise RangeNotSatisfiable(f"read range {header!r}: it ends before it begins")
    last = min(last, size_bytes - 1)
    if first > last:
        raise RangeNotSatisfiable(f"read range {header!r}: the object has {size_bytes} bytes")
    return ByteRange(first, last)
