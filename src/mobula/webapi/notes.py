"""Copies that a GET did not find where they should be, until the workers' table has them. Best effort: an audit finds them too."""

from __future__ import annotations

import time
from collections import OrderedDict

from mobula.metadata.model import Entry
from mobula.metadata.repairing import Mend
from mobula.wire.storage_client import CopyName

AGAIN_S = 60.0
"""the same copy is noted at most so often"""
_KNOWN = 10_000
_WAITING = 1_000


class Notes:
    """`missing` by whoever reads, `take` by whoever hands them on."""

    def __init__(self) -> None:
        self._waiting: list[Mend] = []
        self._noted: OrderedDict[tuple[str, str], float] = OrderedDict()

    def missing(self, server: str, entry: Entry) -> None:
        """That server has no copy of this object."""
        key, now = (server, str(entry.object_id)), time.monotonic()
        if now - self._noted.get(key, float("-inf")) < AGAIN_S or len(self._waiting) >= _WAITING:
            return
        self._noted[key] = now
        self._noted.move_to_end(key)
        if len(self._noted) > _KNOWN:
            self._noted.popitem(last=False)
        copy = CopyName(str(entry.account), str(entry.object_id), entry.size_bytes, entry.md5)
        self._waiting.append(Mend(server, copy, entry.group, "a GET did not find it"))

    def take(self) -> list[Mend]:
        """What was noted since the last time."""
        taken, self._waiting = self._waiting, []
        return taken
