"""What a region looks like from outside of its machines: ports as the internet finds them, names as a nameserver tells them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mobula.lab.network import LabError, inside, run
from mobula.lab.topology import edge_rules
from ops.conformance.region import Answer
from ops.region import Region

CONNECT_TIMEOUT_S = 1.5
PATIENT_TIMEOUT_S = 5.0
AT_ONCE = 256
DNS_TIMEOUT_S = 2.0
DNS_TRIES = 3
LIST = ("--stateless", "list", "table", "inet", "edge")
KINDS = {"A": 1, "SRV": 33}

Port = tuple[str, str, int]
"""host, address, port"""


def states_of(namespace: str, ports: Sequence[Port], *, expected: Iterable[Port]) -> list[tuple[str, int, str]]:
    """(host, port, open | refused | silent) of TCP ports as seen from a namespace. Those of `expected` get a second, patient try."""
    patient = set(expected)
    states = dict(zip(ports, asyncio.run(_connect_all(namespace, ports, CONNECT_TIMEOUT_S)), strict=True))
    again = [port for port in ports if port in patient and states[port] != "open"]
    states.update(zip(again, asyncio.run(_connect_all(namespace, again, PATIENT_TIMEOUT_S)), strict=True))
    return [(host, port, states[host, address, port]) for host, address, port in ports]


async def _connect_all(namespace: str, ports: Sequence[Port], timeout_s: float) -> list[str]:
    room = asyncio.Semaphore(AT_ONCE)

    async def one(address: str, port: int) -> str:
        async with room:
            with inside(namespace):
                probe = socket.socket()
            with probe:
                probe.setblocking(False)
                loop = asyncio.get_running_loop()
                try:
                    await asyncio.wait_for(loop.sock_connect(probe, (address, port)), timeout_s)
                except ConnectionRefusedError:
                    return "refused"
                except (OSError, TimeoutError):
                    return "silent"
                return "open"

    return await asyncio.gather(*(one(address, port) for _, address, port in ports))


def ask(namespace: str, server: str, questions: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Answer]:
    """What a nameserver answers, asked by UDP from a namespace."""
    with inside(namespace):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.settimeout(DNS_TIMEOUT_S)
        client.connect((server, 53))
        return {(name, kind): _ask(client, name, kind) for name, kind in questions}


def _ask(client: socket.socket, name: str, kind: str) -> Answer:
    query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + encode(name) + struct.pack(">HH", KINDS[kind], 1)
    why = "no try"
    for _ in range(DNS_TRIES):
        try:
            client.send(query)
            return read_answer(client.recv(65535), KINDS[kind])
        except OSError as error:
            why = str(error) or type(error).__name__
    return Answer(why=why)


def encode(name: str) -> bytes:
    """A name as DNS writes it."""
    return b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"


def read_answer(data: bytes, kind: int) -> Answer:
    """The records of one type in a reply."""
    code = data[3] & 0xF
    if code:
        return Answer(why=f"code {code}")
    if data[2] & 0x2:
        return Answer(why="the answer was cut short")
    at = _skip_name(data, 12) + 4
    records = []
    for _ in range(struct.unpack(">H", data[6:8])[0]):
        at = _skip_name(data, at)
        found, _, ttl_s, size = struct.unpack(">HHIH", data[at : at + 10])
        at += 10
        if found == kind:
            records.append((_content(data, at, found, size), ttl_s))
        at += size
    return Answer(tuple(records))


def _content(data: bytes, at: int, kind: int, size: int) -> str:
    if kind == KINDS["A"]:
        return socket.inet_ntoa(data[at : at + size])
    port = struct.unpack(">HHH", data[at : at + 6])[2]
    return f"{port} {'.'.join(_labels(data, at + 6))}"


def _labels(data: bytes, at: int) -> Iterator[str]:
    while data[at]:
        if data[at] & 0xC0:  # a pointer to where the rest of the name stands
            at = struct.unpack(">H", data[at : at + 2])[0] & 0x3FFF
            continue
        yield data[at + 1 : at + 1 + data[at]].decode(errors="replace").lower()
        at += 1 + data[at]


def _skip_name(data: bytes, at: int) -> int:
    while data[at]:
        if data[at] & 0xC0:
            return at + 2
        at += 1 + data[at]
    return at + 1


def ports_to_try(hosts: Mapping[str, str], ports: Iterable[int]) -> list[Port]:
    """Every port at every host (name -> address)."""
    wanted = sorted(set(ports))
    return [(name, address, port) for name, address in sorted(hosts.items()) for port in wanted]


def edge_of(region: Region, az: str) -> tuple[str, str]:
    """The allow-list at an AZ's edge that is loaded, and this clone's, loaded into a namespace of its own to be listed alike."""
    names, balancers = ([h.address for h in region.pool(pool)] for pool in ("nameservice", "loadbalancer"))
    router = ["nsenter", f"--net=/run/netns/{region.name}-r{region.zones[az]}"]
    try:
        loaded = run([*router, "nft", *LIST])
    except LabError:
        loaded = ""
    load = f"nft --file - && nft {' '.join(LIST)}"
    return loaded, run(["unshare", "--net", "sh", "-c", load], stdin=edge_rules(names, balancers))
