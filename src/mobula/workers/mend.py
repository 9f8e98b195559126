"""Brings back single copies: what a GET did not find, what a storage server put aside because its bytes were wrong, what an audit noted.

A copy's name says what its bytes must be, so any server that has a file of that name can give it; the fetching one verifies. When no
server has one the object was deleted meanwhile, or is lost: there is nothing to bring back, and the audit says which.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence

import structlog

from mobula.core.groups import Group, StorageServer
from mobula.metadata.model import Metadata
from mobula.metadata.repairing import Mend, Repairs
from mobula.wire.storage_client import CopyName, StorageClient, StorageError, address_of
from mobula.workers.repair import Step, fetch
from mobula.workers.servers import Liveness, Pace

log = structlog.get_logger()

BATCH = 32
ASK_PERIOD_S = 15.0
BYTES_PER_S = 8 << 20


class Mending:
    """The single copies of one shard."""

    def __init__(
        self, repairs: Repairs, metadata: Metadata, storage: StorageClient, shard: int, *,
        liveness: Liveness | None = None, ask_period_s: float = ASK_PERIOD_S,
    ) -> None:  # fmt: skip
        self._repairs = repairs
        self._metadata = metadata
        self._storage = storage
        self._shard = shard
        self._liveness = liveness or Liveness(storage)
        self._ask_period_s = ask_period_s
        self._asked_s = float("-inf")
        self._pace = Pace()

    async def step(self) -> Step:
        """Ask the storage servers now and then what they have put aside, and mend some copies. Raises MetadataError: try again later."""
        groups = await self._metadata.groups()
        servers = list({server.id: server for group in groups for server in group.servers}.values())
        if time.monotonic() - self._asked_s >= self._ask_period_s:
            self._asked_s = time.monotonic()
            await self._note_wrong(servers)
        due = await self._repairs.due(self._shard, BATCH)
        if not due:
            return Step("no copy is known to be missing or wrong", busy=False)
        done: list[Mend] = []
        failed: list[Mend] = []
        for mend in due:
            (done if await self._mend(mend, groups, servers) else failed).append(mend)
        await self._repairs.settle_mends(self._shard, done, failed)
        return Step(f"{len(done)} copies mended or gone, {len(failed)} tried again later", busy=len(due) == BATCH)

    async def _note_wrong(self, servers: Sequence[StorageServer]) -> None:
        found = []
        for server in servers:
            said = await self._liveness.look(server)
            for text in said.wrong_copies if said else ():
                with contextlib.suppress(ValueError):
                    found.append(Mend(server.id, CopyName.parse(text), 0, "its bytes were wrong"))
        await self._repairs.note([mend for mend in found if self._repairs.is_home(self._shard, mend)])

    async def _mend(self, mend: Mend, groups: Sequence[Group], servers: Sequence[StorageServer]) -> bool:
        """Whether that is over: the copy is there, or there is none to be had, or it belongs elsewhere now."""
        group = next((g for g in groups if g.id == mend.group), None)
        holders = group.servers if group else servers
        server = next((s for s in holders if s.id == mend.server), None)
        if server is None:
            return True
        others = [s for s in holders if s.id != mend.server]
        if group is None:
            others = await self._who_has(mend.copy, others)
        await self._pace.take(mend.copy.size_bytes, BYTES_PER_S)
        became, why = await fetch(self._storage, self._liveness, server, mend.copy, [server, *others])
        log.info("copy mended" if became == "copied" else "copy not mended", server=server.id, object=str(mend.copy),
                 outcome=became, why=why or mend.why)  # fmt: skip
        return became is not None

    async def _who_has(self, copy: CopyName, servers: Sequence[StorageServer]) -> list[StorageServer]:
        """Who says so; who does not answer may have it."""
        found = []
        for server in servers:
            if not await self._liveness.is_up(server):
                found.append(server)
                continue
            try:
                if await self._storage.holds(address_of(server), copy):
                    found.append(server)
            except StorageError:
                found.append(server)
        return found
