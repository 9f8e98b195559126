"""Bounds of disk: a btrfs subvolume with a simple quota for each sandbox, made and removed by ioctl in a tenth of a millisecond.

Numbers and structures: linux/btrfs.h. The file system is on a device or a file of its own (the role `compute` makes it); what writes
beyond its bound is told EDQUOT.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SUBVOL_CREATE, _SNAP_DESTROY, _QUOTA_CONTROL, _QGROUP_LIMIT = 0x5000940E, 0x5000940F, 0xC0109428, 0x8030942B
_ENABLE_SIMPLE = 4
_MAX_REFERENCED = 1
_NAME_BYTES = 4088


class Volumes:
    """The subvolumes in the root of a mounted btrfs (Linux 6.7 or later: simple quotas)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def count(self) -> None:
        """Begin to count what is in each, unless that was begun before. Raises OSError: the file system can't."""
        with _opened(self._root) as folder:
            try:
                fcntl.ioctl(folder, _QUOTA_CONTROL, bytearray(struct.pack("QQ", _ENABLE_SIMPLE, 0)))
            except FileExistsError:
                return

    def make(self, name: str, bytes_max: int) -> Path:
        """An empty folder, in which no more than so much lies at any time. Raises OSError."""
        with _opened(self._root) as folder:
            fcntl.ioctl(folder, _SUBVOL_CREATE, _named(name))
        path = self._root / name
        with _opened(path) as folder:
            fcntl.ioctl(folder, _QGROUP_LIMIT, struct.pack("Q5Q", 0, _MAX_REFERENCED, bytes_max, 0, 0, 0))
        return path

    def remove(self, name: str) -> None:
        """With all that is in it; nothing happens if there is none. Raises OSError."""
        with _opened(self._root) as folder:
            try:
                fcntl.ioctl(folder, _SNAP_DESTROY, _named(name))
            except FileNotFoundError:
                return
            except OSError:
                # A subvolume within it, or no subvolume at all: piece by piece.
                shutil.rmtree(self._root / name)

    @property
    def size_bytes(self) -> int:
        """Of all together, with what is in them. Raises OSError."""
        found = os.statvfs(self._root)
        return found.f_blocks * found.f_frsize

    def names(self) -> list[str]:
        """Of all that are there."""
        return sorted(path.name for path in self._root.iterdir())


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _named(name: str) -> bytearray:
    """struct btrfs_ioctl_vol_args; mutable, because `ioctl` takes no longer bytes."""
    data = os.fsencode(name)
    if not data or len(data) >= _NAME_BYTES or b"/" in data:
        raise ValueError(f"name a volume {name!r}: it must be one component of a path")
    return bytearray(struct.pack(f"q{_NAME_BYTES}s", 0, data))
