"""Which storage servers a webapi counts on, and what becomes of those that leave."""

from __future__ import annotations

import asyncio
from typing import cast

from mobula.webapi.placement import StorageDirectory
from mobula.wire.http_client import Address
from mobula.wire.storage_client import StorageCapacity, StorageClient, StorageUnavailable


class Storage:
    """In place of the storage client: some servers answer, the others are silent."""

    def __init__(self, *answering: Address) -> None:
        self.answering = answering
        self.dropped: list[Address] = []

    async def capacity(self, server: Address) -> StorageCapacity:
        if server not in self.answering:
            raise StorageUnavailable("no answer")
        return StorageCapacity(healthy=True, size_bytes=100, available_bytes=100)

    def drop(self, server: Address) -> None:
        self.dropped.append(server)


async def test_a_server_that_has_left_is_dropped_only_if_it_does_not_answer_any_more() -> None:
    gone, draining, here = (Address(f"10.0.0.{n}", 8060) for n in (1, 2, 3))
    storage = Storage(draining, here)
    directory = StorageDirectory(cast(StorageClient, storage))
    directory.on_change({"gone": gone, "draining": draining, "here": here})
    directory.on_change({"here": here})
    await asyncio.gather(*directory._looks)
    assert storage.dropped == [gone]
    directory.stop()
