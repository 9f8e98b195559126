"""The connector: answers PowerDNS (remote backend, a unix socket) from the registrations in ZooKeeper.

`python -m mobula.names.connector --config /etc/mobula/names.json`. Protocol: one JSON object a line; ``{"result": false}`` is NXDOMAIN,
closing the connection is SERVFAIL (PowerDNS documentation, "Remote Backend").

What is answered when ZooKeeper is away: the last known set (also across a restart: a snapshot file), but at most `stale_s` seconds
old, and only while the nameserver of another AZ can at least be reached by TCP: one that is cut off from everybody answers SERVFAIL
at once, because the world may have changed without it. The same goes from a start until the first whole picture has arrived.
After an outage the old set, unless too old, is held for `HOLD_S`, so that registrations which come back a moment later leave no gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import structlog

from mobula.names import records
from mobula.names.records import Picture, Record
from mobula.wire import service
from mobula.wire.hosts import host_lives
from mobula.wire.zookeeper import Client, Tree

log = structlog.get_logger()

ROOT = "/names"
HOLD_S = 6.0
SNAPSHOT_S = 2.0
PROBE_S = 1.0
PROBE_TIMEOUT_S = 0.5
LINE_MAX = 65_536


class NamesConfig(msgspec.Struct, frozen=True, kw_only=True):
    """names.json; durations in seconds."""

    region: str
    host: str
    az: str
    address: str
    zone: str
    zookeeper: tuple[str, ...]
    socket: str
    snapshot: str
    stale_s: float
    status_port: int


class Snapshot(msgspec.Struct):
    """The last known registrations, and when (seconds since the epoch) they were known to be current."""

    services: dict[str, dict[str, records.Registered]]
    seen_s: float


class Registry:
    """What is answered, and whether it may be."""

    def __init__(self, config: NamesConfig) -> None:
        self._config = config
        self._snapshot = _load(Path(config.snapshot))
        self._records = records.build(config.zone, self._snapshot.services)
        self.connected = False
        self.alone = False
        self._read = False
        """a whole picture has arrived in this process: before that, a connection makes an old snapshot no younger"""
        self._outage_ended_s: float | None = None

    @property
    def refusal(self) -> str | None:
        """Why nothing may be answered now; None if it may."""
        if self.connected and self._read:
            return None
        if self.alone and not self.connected:
            return "neither ZooKeeper nor any other AZ can be reached"
        if not self._snapshot.seen_s:
            return "the registrations have never been read from ZooKeeper"
        if self._stale:
            age_s = time.time() - self._snapshot.seen_s
            return f"the last known set is {age_s:.0f} s old, {self._config.stale_s:.0f} s are allowed"
        return None

    @property
    def _stale(self) -> bool:
        """The last known set is too old to be answered."""
        return time.time() - self._snapshot.seen_s > self._config.stale_s

    def on_state(self, connected: bool) -> None:
        """ZooKeeper was found or lost."""
        if connected and not self.connected:
            self._outage_ended_s = time.monotonic()
        self.connected = connected

    def on_change(self, picture: Picture) -> None:
        """The registrations as they are now."""
        services = records.read(picture)
        self._read = True
        if self.holding and not self._stale:
            for name, instances in self._snapshot.services.items():
                services[name] = {**instances, **services.get(name, {})}
        if services != self._snapshot.services:
            self._snapshot.services = services
            self._records = records.build(self._config.zone, services)
            log.info("names", services={name: sorted(found) for name, found in services.items()})
        self.save()

    def save(self) -> None:
        """Note that what is known is current."""
        self._snapshot.seen_s = time.time()
        path = Path(self._config.snapshot)
        new = path.with_suffix(".new")
        try:
            new.write_bytes(msgspec.json.encode(self._snapshot))
            new.rename(path)
        except OSError as error:
            log.warning("snapshot not written", path=str(path), why=str(error))

    @property
    def holding(self) -> bool:
        """Old records are held after an outage, beside what has come back."""
        return self._outage_ended_s is not None and time.monotonic() - self._outage_ended_s < HOLD_S

    def settle(self) -> bool:
        """The hold after an outage is over; answers True once."""
        if self._outage_ended_s is not None and not self.holding:
            self._outage_ended_s = None
            return True
        return False

    def select(self, name: str, kind: str) -> list[Record]:
        """Records for a question."""
        return records.select(self._records, name, kind)

    def status(self) -> dict[str, object]:
        """Counts, and why nothing is answered if so."""
        refusal = self.refusal
        return {
            "healthy": refusal is None,
            "why": refusal or "",
            "connected": self.connected,
            "services": {name: len(found) for name, found in self._snapshot.services.items()},
        }


def _load(path: Path) -> Snapshot:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Snapshot)
    except (OSError, ValueError, RecursionError):  # absent, or damaged in any way
        return Snapshot({}, 0.0)


def answer(registry: Registry, zone: str, line: bytes) -> dict[str, Any] | None:
    """The answer to one line of PowerDNS; None closes the connection, which it turns into SERVFAIL. Never raises."""
    try:
        question = json.loads(line)
        method, parameters = question["method"], question.get("parameters") or {}
        if method == "initialize":
            return {"result": True}
        if method == "lookup":
            if registry.refusal is not None:
                return None
            found = registry.select(str(parameters["qname"]), str(parameters["qtype"]))
            return {"result": [_wire(record) for record in found]}
        domain = {"id": 1, "zone": f"{zone}.", "kind": "native", "serial": 1}
        if method == "getAllDomains":
            return {"result": [{**domain, "masters": [], "notified_serial": 1, "last_check": 0}]}
        if method == "getDomainInfo" and str(parameters.get("name", "")).lower().rstrip(".") == zone.lower():
            return {"result": domain}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        log.info("question not understood", line=line[:200].decode(errors="replace"))
    return {"result": False}


def _wire(record: Record) -> Mapping[str, Any]:
    values = asdict(record)
    return {
        "qname": values["name"],
        "qtype": values["type"],
        "content": values["content"],
        "ttl": values["ttl_s"],
        "auth": True,
        "domain_id": 1,
    }


class Connector:
    """The service: ZooKeeper on one side, PowerDNS on the other."""

    def __init__(self, config: NamesConfig) -> None:
        self._config = config
        self._registry = Registry(config)
        self._zookeeper = Client(config.zookeeper)
        self._tree = Tree(self._zookeeper, ROOT, self._registry.on_change)
        self._server: asyncio.Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Answer from the snapshot at once, then follow ZooKeeper."""
        path = Path(self._config.socket)
        path.unlink(missing_ok=True)  # noqa: ASYNC240 (one call, at the start)
        self._server = await asyncio.start_unix_server(self._serve, str(path), limit=LINE_MAX)
        # PowerDNS runs as a user of its own.
        path.chmod(0o666)  # noqa: ASYNC240
        self._zookeeper.on_state(self._registry.on_state)
        self._zookeeper.start()
        self._tree.start()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """End."""
        if self._task is not None:
            self._task.cancel()
        self._tree.stop()
        if self._server is not None:
            self._server.close()
        await self._zookeeper.stop()

    def status(self) -> dict[str, object]:
        return self._registry.status()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of PowerDNS, for ever."""
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            while line := await reader.readline():
                result = answer(self._registry, self._config.zone, line)
                if result is None:
                    break
                writer.write(json.dumps(result, separators=(",", ":")).encode() + b"\n")
                await writer.drain()
        writer.close()

    async def _keep(self) -> None:
        """Keep the snapshot young while connected; while not, find out whether anybody else is left."""
        while True:
            if self._registry.connected:
                self._registry.alone = False
                if self._registry.settle():
                    self._tree.refresh()
                elif self._tree.complete and not self._registry.holding:
                    self._registry.save()
                await asyncio.sleep(SNAPSHOT_S)
            else:
                self._registry.alone = not await self._reaches_another_zone()
                await asyncio.sleep(PROBE_S)

    async def _reaches_another_zone(self) -> bool:
        others = [hp for hp in self._config.zookeeper if not hp.startswith(f"{self._config.address}:")]
        hosts = [hp.rpartition(":")[::2] for hp in others]
        found = await asyncio.gather(*(host_lives(h, int(port), timeout_s=PROBE_TIMEOUT_S) for h, port in hosts))
        return any(found)


def main() -> None:
    """Entry point."""
    os.umask(0o022)
    service.main("names", NamesConfig, Connector)


if __name__ == "__main__":
    main()
