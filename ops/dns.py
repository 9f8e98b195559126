"""One question for A records to one nameserver, over UDP, made from the standard library."""

from __future__ import annotations

import secrets
import socket
import struct
import time

from mobula.lab.network import inside
from ops.region import Region

PORT = 53
A, IN = 1, 1
POINTER = 0xC0
NO_ERROR, NO_SUCH_NAME = 0, 3


def ask(
    server: str, name: str, *, timeout_s: float = 3.0, namespace: str | None = None, port: int = PORT
) -> tuple[set[str], int]:
    """Addresses and TTL in seconds that the nameserver has for a name (none: the name has none); asked in `namespace`, or where we are.

    Raises:
        OSError: it does not answer, says that it can't, or not so that it can be read.
    """
    # Its number, and an address that is connected: what somebody else says, or says to an earlier question, is not heard.
    number = secrets.token_bytes(2)
    question = number + struct.pack(">HHHHH", 0x100, 1, 0, 0, 0) + _labels(name) + struct.pack(">HH", A, IN)
    if namespace is None:
        channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    else:
        with inside(namespace):
            channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    end_s = time.monotonic() + timeout_s
    with channel:
        channel.connect((server, port))
        channel.send(question)
        while True:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError(f"ask {server} for {name}: no answer within {timeout_s:g} s")
            channel.settimeout(left_s)
            answer = channel.recv(4096)
            if answer[:2] == number:
                break
    try:
        return addresses(answer)
    except (struct.error, IndexError) as error:
        raise OSError(f"ask {server} for {name}: its answer is cut off") from error
    except ValueError as error:
        raise OSError(f"ask {server} for {name}: {error}") from error


def _labels(name: str) -> bytes:
    labels = [label.encode() for label in name.split(".")]
    if not all(0 < len(label) < 64 for label in labels):
        raise OSError(f"ask for {name!r}: it is no name of DNS")
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def addresses(answer: bytes) -> tuple[set[str], int]:
    """The A records of an answer, and the least of their TTLs.

    Raises:
        struct.error, IndexError: it is cut off.
        ValueError: it says that the nameserver can't tell, or is none; says which.
    """
    flags, questions, count = struct.unpack_from(">HHH", answer, 2)
    if not flags & 0x8000:
        raise ValueError("it sent a question for an answer")
    if flags & 0xF not in (NO_ERROR, NO_SUCH_NAME):
        raise ValueError(f"it can't tell (code {flags & 0xF})")
    at = 12
    for _ in range(questions):
        at = _after_name(answer, at) + 4
    found, ttls_s = set(), []
    for _ in range(count):
        at = _after_name(answer, at)
        kind, of, ttl_s, size = struct.unpack_from(">HHIH", answer, at)
        at += 10 + size
        if at > len(answer):
            raise IndexError
        if (kind, of, size) == (A, IN, 4):  # else a name's other name, or what nobody asked for
            found.add(socket.inet_ntoa(answer[at - 4 : at]))
            ttls_s.append(ttl_s)
    return found, min(ttls_s, default=0)


def _after_name(answer: bytes, at: int) -> int:
    """Where a name ends, which is never looked up elsewhere: a pointer is its end."""
    while (size := answer[at]) and size < POINTER:
        at += 1 + size
    return at + (2 if size else 1)


def resolve(region: Region, server: str, name: str, *, namespace: str = "op") -> tuple[set[str], int]:
    """The same, asked in one of the region's namespaces. Raises OSError."""
    return ask(server, name, namespace=f"{region.name}-{namespace}")
