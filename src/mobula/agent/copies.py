"""The bytes of objects, for tasks: the file of the copy on this host, or a stream of any copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from mobula.core.ranges import ByteRange
from mobula.jobs.runner import StoreError
from mobula.metadata.jobs import Version
from mobula.wire.http_failures import Address
from mobula.wire.storage_client import CopyName, StorageClient, StorageError

OTHERS_READ = 0o044
TRIES = 5
"""of each copy"""
PAUSE_S = 1.0
"""before the second round; twice as long before each further one"""


class RegionCopies:
    """`runner.Copies`. `addresses`: of the storage hosts that are up."""

    def __init__(
        self, data_dir: Path, me: str, storage: StorageClient, addresses: Callable[[], Mapping[str, Address]]
    ) -> None:
        self._data_dir = data_dir
        self._me = me
        self._storage = storage
        self._addresses = addresses

    def path(self, version: Version) -> Path:
        path = self._data_dir / str(_name(version))
        found = path.stat()
        if found.st_size != version.size_bytes:
            raise StoreError(
                f"the copy of {version.object_id} has {found.st_size} bytes, wanted are {version.size_bytes}"
            )
        if found.st_mode & OTHERS_READ != OTHERS_READ:  # stored by an earlier release
            path.chmod(found.st_mode | OTHERS_READ)
        return path

    async def read(self, version: Version, hosts: Sequence[str]) -> AsyncIterator[bytes]:
        name, at, why = _name(version), 0, "no host is known to have a copy"
        near_first = sorted(hosts, key=lambda host: host != self._me)
        for number, host in enumerate(near_first * TRIES):
            if number and number % len(hosts) == 0:
                await asyncio.sleep(PAUSE_S * 2 ** (number // len(hosts) - 1))
            server = self._addresses().get(host)
            if server is None:
                why = f"{host} is not up"
                continue
            part = ByteRange(at, version.size_bytes - 1) if at else None
            try:
                async with await self._storage.open_get(
                    server, name.account, name.object_id, name.size_bytes, name.md5, part=part
                ) as copy:
                    async for chunk in copy.chunks():
                        at += len(chunk)
                        yield chunk
                return
            except StorageError as error:
                why = str(error)
        raise StoreError(f"error fetching inputs: {why}")


def _name(version: Version) -> CopyName:
    return CopyName(str(version.account), str(version.object_id), version.size_bytes, version.md5)
