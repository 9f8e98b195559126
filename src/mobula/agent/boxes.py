"""Sandboxes of this host: their slots, their bounds, the storage API in them, and what earlier starts have left."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from mobula.core.images import newest
from mobula.core.job import TASKS_GROUP, Phase
from mobula.jobs.door import Door
from mobula.jobs.lead import Order
from mobula.jobs.runner import NoImage
from mobula.metadata.jobs import Job
from mobula.sandbox import cgroups
from mobula.sandbox.cgroups import Group, Limits
from mobula.sandbox.sandbox import GONE_S, REMOVE_AGAIN_S, Sandbox, SandboxError, Slot
from mobula.sandbox.volumes import Volumes
from mobula.wire.http_client import HttpClient
from mobula.wire.http_failures import Address
from mobula.wire.http_server import HttpServer

log = structlog.get_logger()

DOOR_PORT = 80
STOP_S = 1.0
SLOTS_MAX = 1024
GIB = 1 << 30
SHARES = 4
"""of the disk: a sandbox gets one at most, whatever its job asks for, so that one alone leaves room for others"""


@dataclass(frozen=True, slots=True)
class Image:
    """One version of the task image: what tasks see as their root, and `sandbox-init`."""

    root: Path
    program: Path


class Boxes:
    """`runner.Makes`."""

    def __init__(
        self,
        *,
        images: Mapping[str, Image],
        volumes: Path,
        run: Path,
        processes_max: int,
        client: HttpClient,
        webapi: Callable[[], Address],
        token: Callable[[Job], str],
    ) -> None:
        """`images`: by version. `run`: a folder in memory, for what is gone with the machine. `webapi`, `token`: see `Door`."""
        self._images = images
        self._volumes = Volumes(volumes)
        self._run = run
        self._processes_max = processes_max
        self._client = client
        self._webapi = webapi
        self._token = token
        self._free: dict[str, list[Slot]] = {version: [] for version in images}
        self._slots: dict[Sandbox, tuple[str, Slot]] = {}
        self._servers: dict[Sandbox, HttpServer] = {}
        self._made = 0
        self.no_shares = ""
        """why jobs don't have equal shares of the processors; "": they do"""

    @property
    def count(self) -> int:
        """Of sandboxes that there are."""
        return len(self._slots)

    @property
    def images(self) -> list[str]:
        """Versions that this host has."""
        return list(self._images)

    def sweep(self) -> None:
        """Remove what an earlier start has left; its sandboxes end with it. Raises OSError, SandboxError."""
        end_s = time.monotonic() + GONE_S
        while not cgroups.remove_all(TASKS_GROUP):
            if time.monotonic() > end_s:
                raise SandboxError(f"remove sandboxes of an earlier start: something in {TASKS_GROUP} does not end")
            time.sleep(REMOVE_AGAIN_S)
        self.no_shares = cgroups.prepare(TASKS_GROUP)
        if self.no_shares:
            log.warning("jobs have no shares of the processors", why=self.no_shares)
        self._volumes.count()
        for name in self._volumes.names():
            self._volumes.remove(name)
        shutil.rmtree(self._run, ignore_errors=True)
        self._run.mkdir(mode=0o700, parents=True)

    async def make(self, order: Order) -> Sandbox:
        phase = _phase(order)
        version = newest(phase.image_range, tuple(self._images))
        if version is None:
            raise NoImage(f"of {', '.join(self._images)} none is in the range {phase.image_range!r}")
        slot = self._slot(version)
        name = str(slot.number)
        try:
            folder = self._volumes.make(name, min(phase.disk_gb * GIB, self._volumes.size_bytes // SHARES))
            folder.chmod(0o711)
            sandbox = Sandbox(
                slot, folder, Group(TASKS_GROUP, name, str(order.job.id)), self._run / f"{name}.accounting"
            )
            sandbox.prepare()
        except OSError as error:
            self._volumes.remove(name)
            self._free[version].append(slot)
            raise SandboxError(f"make a sandbox: {error}") from error
        self._slots[sandbox] = (version, slot)
        return sandbox

    def _slot(self, version: str) -> Slot:
        if self._free[version]:
            return self._free[version].pop()
        if self._made >= SLOTS_MAX:
            raise SandboxError(f"make a sandbox: there are {self._made}, which is the most that a host has")
        try:
            slot = Slot(self._made, self._images[version].root)
        except OSError as error:
            raise SandboxError(f"make a sandbox: {error}") from error
        self._made += 1
        return slot

    async def start(self, sandbox: Sandbox, order: Order) -> Door:
        phase = _phase(order)
        version, _ = self._slots[sandbox]
        await sandbox.start(self._images[version].program, Limits(phase.memory_mb << 20, self._processes_max))
        door = Door(self._client, self._webapi, lambda: self._token(order.job))
        self._servers[sandbox] = server = HttpServer(door.handle)
        for listening in sandbox.listen(DOOR_PORT):
            await server.listen_on(listening)
        return door

    async def end(self, sandbox: Sandbox) -> None:
        if sandbox in self._servers:
            await self._servers.pop(sandbox).stop(STOP_S)
        version, slot = self._slots.pop(sandbox)
        try:
            await sandbox.close()
            self._volumes.remove(str(slot.number))
        except (OSError, SandboxError) as error:
            # Its slot is not used again; the next start of the agent sweeps.
            log.error("sandbox stays", slot=slot.number, why=str(error))
            slot.close()
            return
        self._free[version].append(slot)

    def close(self) -> None:
        """No sandbox is left."""
        for slots in self._free.values():
            for slot in slots:
                slot.close()
            slots.clear()
        cgroups.remove_all(TASKS_GROUP)


def _phase(order: Order) -> Phase:
    return order.job.document.phases[order.task.work.phase]
