"""The registrar: keeps this host's healthy services registered in ZooKeeper.

`python -m mobula.names.registrar --config /etc/mobula/registrar.json`. A registration is an ephemeral node: it
vanishes with the host. A loadbalancer registers as the zone's apex only while its HAProxy answers that a webapi lives behind it;
one whose AZ has lost its links to the others loses its ZooKeeper session, and so its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct

import msgspec
import structlog

from mobula.names.health import Health
from mobula.wire import service
from mobula.wire.hosts import host_lives
from mobula.wire.http_client import Address, HttpClient, RequestFailed, Timeouts
from mobula.wire.zookeeper import Client, Registration

log = structlog.get_logger()

TTL_S = 5
UPLINK_PORT = 9
"""discard (RFC 863): nobody listens there, and the refusal is all that is wanted"""
UPLINK_S = 0.5


class Check(msgspec.Struct, frozen=True):
    """How a service's health is found out. `kind`: http (2xx at `path`), tcp (accepts), dns (answers for the root).

    With `uplink` it is of use only while this AZ reaches the internet."""

    kind: str
    port: int
    path: str
    interval_s: float
    timeout_s: float
    fall: int
    rise: int
    uplink: bool = False


class Wanted(msgspec.Struct, frozen=True):
    """A service to register: its name (``@`` is the zone's apex) and the port that DNS names."""

    name: str
    port: int
    check: Check


class RegistrarConfig(msgspec.Struct, frozen=True, kw_only=True):
    """registrar.json; durations in seconds."""

    region: str
    host: str
    az: str
    address: str
    zookeeper: tuple[str, ...]
    session_s: float
    status_port: int
    uplink: str
    """an address on the internet's side, whose host answers or refuses"""
    services: tuple[Wanted, ...]


class _Watched:
    """One service: its check's state and its registration."""

    def __init__(self, wanted: Wanted, config: RegistrarConfig, zookeeper: Client) -> None:
        self.wanted = wanted
        self.health = Health()
        self.why = "not checked yet"
        data = msgspec.json.encode({"address": config.address, "port": wanted.port, "ttl": TTL_S})
        self.registration = Registration(zookeeper, f"/names/{wanted.name}/{config.host}", data)

    def sentence(self) -> str:
        if self.health.registered and not self.registration.held:
            return f"{self.wanted.name} is well, but its registration is not in ZooKeeper"
        return self.health.sentence(self.wanted.name, self.why)


class Registrar:
    """All services of this host."""

    def __init__(self, config: RegistrarConfig) -> None:
        self._config = config
        self._zookeeper = Client(config.zookeeper, session_s=config.session_s)
        self._watched = [_Watched(wanted, config, self._zookeeper) for wanted in config.services]
        self._http = HttpClient(timeouts=Timeouts(connect_s=1.0, response_s=2.0, idle_s=2.0))
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to check."""
        self._zookeeper.start()
        self._tasks = [asyncio.get_running_loop().create_task(self._watch(w)) for w in self._watched]

    async def stop(self) -> None:
        """Withdraw everything first, then end."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(w.registration.withdraw() for w in self._watched))
        await self._http.close()
        await self._zookeeper.stop()

    def status(self) -> dict[str, object]:
        """Healthy when every service that is well is in ZooKeeper; each with its sentence."""
        bad = [w.sentence() for w in self._watched if not (w.health.registered and w.registration.held)]
        return {
            "healthy": not bad,
            "why": "; ".join(bad),
            "services": {w.wanted.name: {"held": w.registration.held, "says": w.sentence()} for w in self._watched},
        }

    async def _watch(self, watched: _Watched) -> None:
        check = watched.wanted.check
        while True:
            why = await self._ask(check)
            before, watched.why = watched.health, why
            watched.health = before.after(not why, fall=check.fall, rise=check.rise)
            if watched.health.registered != before.registered:
                log.info(watched.sentence())
                if watched.health.registered:
                    watched.registration.ensure()
                else:
                    await watched.registration.withdraw()
            await asyncio.sleep(check.interval_s)

    async def _ask(self, check: Check) -> str:
        """Empty if the service is well, else why it is not."""
        try:
            async with asyncio.timeout(check.timeout_s):
                if check.uplink and not await host_lives(self._config.uplink, UPLINK_PORT, timeout_s=UPLINK_S):
                    return f"{self._config.uplink} does not answer: this AZ's uplink is down"
                if check.kind == "http":
                    return await self._ask_http(check)
                return await (_ask_dns if check.kind == "dns" else _ask_tcp)(self._config.address, check.port)
        except (OSError, TimeoutError, EOFError, RequestFailed) as error:
            return f"{check.kind} check on port {check.port}: {type(error).__name__} {error}".strip()

    async def _ask_http(self, check: Check) -> str:
        response = await self._http.request(Address("127.0.0.1", check.port), "GET", check.path)
        async with response:
            body = await response.body(65_536)
        return (
            ""
            if 200 <= response.status < 300
            else f"{check.path} answers {response.status} {body[:200].decode(errors='replace')}"
        )


async def _ask_tcp(address: str, port: int) -> str:
    _, writer = await asyncio.open_connection(address, port)
    writer.close()
    return ""


async def _ask_dns(address: str, port: int) -> str:
    """Any answer to a question for the root's SOA: the server reads and writes."""
    question = struct.pack(">HHHHHHBHH", 1, 0, 1, 0, 0, 0, 0, 6, 1)
    reader, writer = await asyncio.open_connection(address, port)
    with contextlib.closing(writer):
        writer.write(struct.pack(">H", len(question)) + question)
        (size,) = struct.unpack(">H", await reader.readexactly(2))
        await reader.readexactly(size)
    return ""


def main() -> None:
    """Entry point."""
    service.main("registrar", RegistrarConfig, Registrar)


if __name__ == "__main__":
    main()
