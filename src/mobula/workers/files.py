"""The sweeper of one storage host's files: removes those that nothing names, which are older than the commit deadline.

A page of the host's old files at a time; every shard is asked whether it knows these objects (docs/metadata.md, section 6). A host whose
shards don't answer keeps its files.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable

import prometheus_client
import structlog

from mobula.core.clock import Clock
from mobula.metadata.collecting import Collecting
from mobula.metadata.model import MetadataError
from mobula.wire.http_client import Address
from mobula.wire.storage_client import CopyMissing, StorageClient, StorageError, StoredFile
from mobula.workers.config import Pace

log = structlog.get_logger()

ASK_S = 30.0
"""for a page or a deletion"""

_orphans = prometheus_client.Counter("orphan_files_removed", "Files that nothing named", ["storage_host"])
_orphan_bytes = prometheus_client.Counter("orphan_bytes_removed", "Their sizes", ["storage_host"])


class FileSweeper:
    """mobula.workers.app.Duty. `address` says where the host's object server listens now."""

    def __init__(
        self,
        host: str,
        address: Callable[[], Address],
        collecting: Collecting,
        storage: StorageClient,
        *,
        pace: Pace,
        clock: Clock,
    ) -> None:
        self._host = host
        self._address = address
        self._collecting = collecting
        self._storage = storage
        self._pace = pace
        self._clock = clock
        self._after = ""
        self._looked_at = 0
        self._removed = 0
        self._why = ""
        self._last_walk = "no walk has ended yet"
        self.wrong = ""

    @property
    def says(self) -> str:
        now = f"{self._looked_at} files looked at, {self._removed} orphans removed"
        return "; ".join(filter(None, [now, self._last_walk, self._why, self.wrong]))

    async def work(self) -> None:
        """Walk, pause, walk again, until cancelled."""
        self._begin()
        while True:
            began_s = self._clock.monotonic_s()
            pause_s = self._pace.poll_s
            try:
                looked_at = await self.turn()
                self._why = ""
                pause_s = looked_at / self._pace.files_per_s if self._after else self._pace.sweep_pause_s
            except (MetadataError, StorageError, TimeoutError) as error:
                self._why = f"not swept: {error}"
                log.info("files not swept", storage_host=self._host, why=str(error))
            await asyncio.sleep(max(0.0, began_s + pause_s - self._clock.monotonic_s()))

    def _begin(self) -> None:
        self._after, self._looked_at, self._removed = "", 0, 0

    async def turn(self) -> int:
        """A page; answers how many files were looked at. Raises MetadataError, StorageError, TimeoutError: the page comes again."""
        if not self._after:
            self._begin()
        # Whole seconds, and strictly older.
        older_s = int(self._pace.commit_deadline_s) + 1
        async with asyncio.timeout(ASK_S):
            page = await self._storage.list_files(self._address(), after=self._after, older_s=older_s)
        for file in await self._orphans(page.files):
            if self._removed >= self._pace.orphans_max:
                self._end(f"more than {self._removed} orphans on {self._host}: is its metadata whole? run mobula audit")
                return page.looked_at
            await self._remove(file)
        self._looked_at += page.looked_at
        self._after = page.next
        if not page.next:
            self._end("")
        return page.looked_at

    def _end(self, wrong: str) -> None:
        self.wrong, self._after = wrong, ""
        self._last_walk = f"the last walk removed {self._removed} of {self._looked_at} files"
        log.info("files swept", storage_host=self._host, files=self._looked_at, orphans=self._removed, wrong=wrong)

    async def _orphans(self, files: tuple[StoredFile, ...]) -> list[StoredFile]:
        by_id: dict[uuid.UUID, StoredFile] = {uuid.UUID(file.object_id): file for file in files}
        unknown = await self._collecting.unknown(list(by_id), patience_s=self._pace.patience_s)
        return [file for file in files if uuid.UUID(file.object_id) in unknown]

    async def _remove(self, file: StoredFile) -> None:
        name = f"{file.account}/{file.object_id}.{file.size_bytes}.{file.md5}"
        try:
            async with asyncio.timeout(ASK_S):
                await self._storage.delete(
                    self._address(), file.account, file.object_id, file.size_bytes, bytes.fromhex(file.md5)
                )
        except CopyMissing:
            return
        self._removed += 1
        _orphans.labels(self._host).inc()
        _orphan_bytes.labels(self._host).inc(file.size_bytes)
        log.info("orphan removed", storage_host=self._host, file=name, age_s=file.age_s)
