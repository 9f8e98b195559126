"""Waits until ZFS has on disk what was written before, for whoever can't ask it to sync (zfs-fuse; decision 0009).

ZFS counts a file's blocks (`st_blocks`) while it writes the transaction group that has them, and writes one group after the other. So a
group is on disk once the blocks are counted of something that was written after its own were. Nobody is asked to hurry: a group is
written every 30 s.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

POLL_S = 0.5
MARK_BYTES = 4096
BLOCK_BYTES = 512
"""of st_blocks, whatever the file system's are"""
_libc = ctypes.CDLL(None, use_errno=True)  # Python has no statx
# Of linux/fcntl.h and linux/stat.h. Asked without force, FUSE answers what it knew an hour ago.
_AT_FDCWD, _FORCE_SYNC, _BLOCKS = -100, 0x2000, 0x400
_STATX_BYTES, _BLOCKS_AT = 256, 48


def wait(mark: Path, stopped: threading.Event) -> bool:
    """Whether all that was written before is on disk; not if it was stopped meanwhile. `mark` is made and replaced. Raises OSError."""
    for _ in range(2):
        mark.unlink(missing_ok=True)
        mark.write_bytes(os.urandom(MARK_BYTES))
        while _counted_bytes(mark) < MARK_BYTES:
            if stopped.wait(POLL_S):
                return False
    return True


def _counted_bytes(path: Path) -> int:
    """Raises OSError."""
    found = ctypes.create_string_buffer(_STATX_BYTES)
    if _libc.statx(_AT_FDCWD, os.fsencode(path), _FORCE_SYNC, _BLOCKS, found):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return int.from_bytes(found.raw[_BLOCKS_AT : _BLOCKS_AT + 8], "little") * BLOCK_BYTES
