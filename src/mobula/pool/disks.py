"""What can be seen of a disk without ZFS, which notices a failed one only when it reads or writes it.

Standard library only, and no import of ours: Ansible ships this file to the hosts beside the role's module.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

LABEL_BYTES = 512 * 1024
"""ZFS keeps two 256 KiB labels at each end of a disk"""
NAMES_START, NAMES_BYTES = 16 * 1024, 4096
"""where a label says whose disk this is; its other parts come back by themselves as ZFS goes on writing to a disk that was lost"""


@dataclass(frozen=True)
class Look:
    """A disk as it was found. `failure`: a few words if it can't be used, else empty; `blank`: nothing was ever written to it."""

    failure: str = ""
    blank: bool = False
    size_bytes: int = 0
    identity: tuple[int, int] = (0, 0)
    """of the file or device: another one lies there after a disk was exchanged"""
    silent: bool = False
    """it has not answered yet: nothing is known"""


def is_blank(path: Path) -> bool:
    """No label where ZFS (or a partition table) would have one. A disk without room for labels has failed: that is not blank."""
    with path.open("rb") as disk:
        size = disk.seek(0, os.SEEK_END)
        if size < 2 * LABEL_BYTES:
            return False
        for start in (0, size - LABEL_BYTES):
            disk.seek(start)
            if any(disk.read(LABEL_BYTES)):
                return False
    return True


def look(path: Path, before: Look | None) -> Look:
    """Look at the disk at `path`; `before` is how it was seen last. Never raises: what can't be read has failed."""
    try:
        found = path.stat()
        labelled = Path(f"{path}-part1")  # OpenZFS makes a partition of its own on a whole disk
        with (labelled if labelled.exists() else path).open("rb", buffering=0) as disk:
            size = disk.seek(0, os.SEEK_END)
            # What the kernel has of it in memory says nothing of the disk.
            os.posix_fadvise(disk.fileno(), 0, LABEL_BYTES, os.POSIX_FADV_DONTNEED)
            names = os.pread(disk.fileno(), NAMES_BYTES, NAMES_START)
        blank = not any(names) and is_blank(path)
    except OSError as error:
        gone = isinstance(error, FileNotFoundError)
        return Look("is gone" if gone else f"can't be read ({error.strerror})")
    identity = (found.st_dev, found.st_rdev or found.st_ino)
    failure = ""
    if size < 2 * LABEL_BYTES:
        failure = f"has {size} bytes"
    elif before is not None and before.identity == identity and before.size_bytes > size:
        failure = f"has shrunk from {before.size_bytes} to {size} bytes"
    elif blank:
        failure = "is blank"
    elif not any(names):
        failure = "has lost its ZFS label"
    # A disk that has shrunk stays so however often one looks.
    size = before.size_bytes if before is not None and failure.startswith("has shrunk") else size
    return Look(failure, blank, size, identity)
