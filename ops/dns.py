"""One question for A records to one nameserver, over UDP, made from the standard library."""

from __future__ import annotations

import socket
import struct

from mobula.lab.network import inside
from ops.region import Region

PORT = 53


def ask(server: str, name: str, *, timeout_s: float = 3.0, namespace: str | None = None) -> tuple[set[str], int]:
    """Addresses and TTL in seconds that the nameserver has for a name; asked in `namespace`, or where we are.

    Raises:
        OSError: it does not answer, or not so that it can be read.
    """
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    if namespace is None:
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        with inside(namespace):
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with channel:
        channel.settimeout(timeout_s)
        channel.sendto(struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">HH", 1, 1), (server, PORT))
        answer = channel.recv(4096)
    try:
        return _addresses(answer, 12 + len(labels) + 4)
    except struct.error as error:
        raise OSError(f"ask {server} for {name}: its answer is cut off") from error


def _addresses(answer: bytes, at: int) -> tuple[set[str], int]:
    (count,) = struct.unpack(">H", answer[6:8])
    found, ttl_s = set(), 0
    for _ in range(count):
        _kind, _, ttl_s, size = struct.unpack(">HHIH", answer[at + 2 : at + 12])
        found.add(socket.inet_ntoa(answer[at + 12 : at + 12 + size]))
        at += 12 + size
    return found, ttl_s


def resolve(region: Region, server: str, name: str, *, namespace: str = "op") -> tuple[set[str], int]:
    """The same, asked in one of the region's namespaces. Raises OSError."""
    return ask(server, name, namespace=f"{region.name}-{namespace}")
