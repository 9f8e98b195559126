"""Checks on loopback: what passes, what is said of what fails, and that no failure ends the checking."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from mobula.names.registrar import Check, Registrar, RegistrarConfig, Wanted

BOUND_S = 5.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def check(kind: str, port: int) -> Check:
    return Check(kind, port, "/ping", interval_s=0.005, timeout_s=0.1, fall=2, rise=2)


def registrar(*checks: Check) -> Registrar:
    services = tuple(Wanted(f"service-{n}", 80, one) for n, one in enumerate(checks))
    return Registrar(
        RegistrarConfig(
            region="lab", host="lab-a-api-01", az="a", address="127.0.0.1", zookeeper=("127.0.0.1:1",), session_s=4.0,
            status_port=0, uplink="127.0.0.1", services=services,
        )
    )  # fmt: skip


async def ask(one: Check) -> str:
    """Why the service is not well; empty if it is."""
    service = registrar()
    try:
        return await asyncio.wait_for(service._ask(one), BOUND_S)
    finally:
        await service._http.close()


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """A server on loopback that treats each connection so, then closes it; its port."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def saying(data: bytes) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(data)

    return serve


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


def http(status: str, body: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("http", http("200 OK", "{}")),
        ("http", http("204 No Content")),
        ("tcp", b""),
        ("tcp", b"anything"),
        ("dns", struct.pack(">H", 12) + bytes(12)),
    ],
)
async def test_a_service_that_answers_is_well(kind: str, said: bytes) -> None:
    async with listening(saying(said)) as port:
        assert await ask(check(kind, port)) == ""


@pytest.mark.parametrize(
    ("kind", "said", "why"),
    [
        ("http", http("503 Service Unavailable", '{"why":"no shard"}'), '/ping answers 503 {"why":"no shard"}'),
        ("http", http("301 Moved Permanently"), "/ping answers 301"),
        ("http", http("200 OK", "x" * 70_000), "more than 65536 bytes"),
        ("http", b"SSH-2.0-OpenSSH\r\n\r\n", "http check on port"),
        ("http", b"", "http check on port"),
        ("dns", b"", "dns check on port"),
        ("dns", b"\0", "dns check on port"),
        ("dns", struct.pack(">H", 500) + b"cut", "dns check on port"),
    ],
)
async def test_a_service_that_answers_badly_is_not_and_the_sentence_says_how(kind: str, said: bytes, why: str) -> None:
    async with listening(saying(said)) as port:
        assert why in await ask(check(kind, port))


@pytest.mark.parametrize(
    ("uplink", "why"),
    [
        ("127.0.0.1", ""),  # refuses the port
        ("255.255.255.255", "255.255.255.255 does not answer: this AZ's uplink is down"),
    ],
)
async def test_a_service_that_needs_the_uplink_is_well_only_with_it(uplink: str, why: str) -> None:
    async with listening(saying(http("200 OK"))) as port:
        service = registrar()
        service._config = msgspec.structs.replace(service._config, uplink=uplink)
        asked = service._ask(msgspec.structs.replace(check("http", port), uplink=True, timeout_s=1.0))
        assert await asyncio.wait_for(asked, BOUND_S) == why
        await service._http.close()


@pytest.mark.parametrize("kind", ["http", "dns"])
async def test_a_service_that_is_silent_is_not_well_within_the_bound(kind: str) -> None:
    async with listening(silent) as port:
        why = await ask(check(kind, port))
    assert why.startswith(f"{kind} check on port {port}: ")


@pytest.mark.parametrize("kind", ["http", "tcp", "dns"])
async def test_a_service_that_is_not_there_is_not_well(kind: str, unused_tcp_port: int) -> None:
    assert f"{kind} check on port {unused_tcp_port}: Conn" in await ask(check(kind, unused_tcp_port))


class Calls:
    """A registration that notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.held = False

    def ensure(self) -> None:
        self.asked.append("ensure")
        self.held = True

    async def withdraw(self) -> None:
        self.asked.append("withdraw")
        self.held = False


async def test_a_service_is_registered_while_it_is_well_and_its_check_outlives_every_failure() -> None:
    well = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(4096)
        writer.write(struct.pack(">H", 1) + b"x" if well else b"")

    async with listening(serve) as port:
        service = registrar(check("dns", port))
        (watched,) = service._watched
        calls = watched.registration = Calls()  # type: ignore[assignment]
        assert service.status()["why"] == "service-0 is not registered: not checked yet"
        task = asyncio.create_task(service._watch(watched))

        async def until(asked: list[str]) -> None:
            while calls.asked != asked:
                assert not task.done()
                await asyncio.sleep(0.002)

        await asyncio.wait_for(until(["ensure"]), BOUND_S)
        assert service.status()["healthy"] is True
        well = False
        await asyncio.wait_for(until(["ensure", "withdraw"]), BOUND_S)
        assert "service-0 is not registered: dns check on port" in str(service.status()["why"])
        well = True
        await asyncio.wait_for(until(["ensure", "withdraw", "ensure"]), BOUND_S)
        task.cancel()


def test_a_service_that_is_well_but_not_in_zookeeper_is_a_reason_to_be_unhealthy() -> None:
    service = registrar(check("tcp", 1))
    watched = service._watched[0]
    watched.health = watched.health.after(True, fall=1, rise=1)
    says = "service-0 is well, but its registration is not in ZooKeeper"
    assert service.status() == {
        "healthy": False,
        "why": says,
        "services": {"service-0": {"held": False, "says": says}},
    }
