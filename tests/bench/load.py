"""The load: so many connections, each with one request at a time, for so long. A process of its own.

    python -m tests.bench.load        an Order (JSON) on standard input, a Told (JSON) on standard output

Messages are made before the clock starts; in the loop a request costs a look for the head's end and a `write`. The bodies of answers are
counted, not kept: each must be as long as the object.
"""

from __future__ import annotations

import asyncio
import json
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import uvloop

BUFFER_BYTES = 1 << 20
CONNECT_S = 10.0
OVERTIME_S = 90.0
"""for the requests that are under way when the time is over"""


@dataclass(frozen=True, slots=True)
class Order:
    """What to do. Keys are numbers from `first_key` on: in their order, each once, or (`pick_from` > 0) any of so many."""

    ports: Sequence[int]
    method: str
    prefix: str
    size_bytes: int
    connections: int
    seconds: float
    requests_max: int
    heads: Sequence[str]
    """header blocks, lines that end in CRLF; requests carry them in turn"""
    pick_from: int = 0
    expected: Sequence[int] = (200, 201, 204)


@dataclass(slots=True)
class Told:
    """What happened. `answers` counts by status, or by what went wrong instead of one."""

    asked: int = 0
    answered: int = 0
    """as expected"""
    seconds: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    cpu_s: float = 0.0
    answers: dict[str, int] = field(default_factory=dict)


def percentile(sorted_values: Sequence[float], share: float) -> float:
    """The value that `share` of all are at most; 0 of none."""
    if not sorted_values:
        return 0.0
    return sorted_values[min(len(sorted_values) - 1, int(share * len(sorted_values)))]


class Load:
    """One run; connections take their requests from it."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.asked = 0
        self.latencies_s: list[float] = []
        self.answers: Counter[str] = Counter()
        self.ended_s = 0.0
        self._end_s = float("inf")
        self._open = 0
        self._over: asyncio.Future[None]
        self._body = random.Random(1).randbytes(order.size_bytes) if order.method == "PUT" else b""  # noqa: S311
        self._pick = random.Random(2)  # noqa: S311
        length = f"Content-Length: {len(self._body)}\r\n" if order.method == "PUT" else ""
        kind = "Content-Type: application/octet-stream\r\n" if order.method == "PUT" else ""
        self._heads = [f" HTTP/1.1\r\nHost: 127.0.0.1\r\n{length}{kind}{head}\r\n".encode() for head in order.heads]

    def next_message(self) -> list[bytes] | None:
        """The next request; None when it is over."""
        order, number = self.order, self.asked
        if number >= order.requests_max or time.perf_counter() > self._end_s:
            return None
        self.asked += 1
        key = self._pick.randrange(order.pick_from) if order.pick_from else number
        head = b"%b %b%08d%b" % (
            order.method.encode(), order.prefix.encode(), key, self._heads[number % len(self._heads)],
        )  # fmt: skip
        return [head, self._body] if len(self._body) > BUFFER_BYTES else [head + self._body]

    def count(self, answer: int | str, body_bytes: int, began_s: float) -> None:
        """An answer has come, or what came instead."""
        order, now_s = self.order, time.perf_counter()
        if isinstance(answer, int) and answer in order.expected:
            if order.method == "GET" and body_bytes != order.size_bytes:
                answer = f"{body_bytes} bytes"
            else:
                self.latencies_s.append(now_s - began_s)
        self.answers[str(answer)] += 1
        self.ended_s = now_s

    def left(self) -> None:
        """A connection has ended."""
        self._open -= 1
        if not self._open and not self._over.done():
            self._over.set_result(None)

    async def run(self) -> Told:
        """Raises OSError and TimeoutError when nobody answers at all, or does not finish."""
        loop, order = asyncio.get_running_loop(), self.order
        self._over = loop.create_future()
        self._open = order.connections
        connections = []
        async with asyncio.timeout(CONNECT_S):
            for number in range(order.connections):
                port = order.ports[number % len(order.ports)]
                _, connection = await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
                connections.append(connection)
        began_s = time.perf_counter()
        self._end_s = began_s + order.seconds
        for connection in connections:
            connection.ask()
        async with asyncio.timeout(order.seconds + OVERTIME_S):
            await self._over
        usage = resource.getrusage(resource.RUSAGE_SELF)
        took = sorted(self.latencies_s)
        return Told(
            self.asked, len(took), max(1e-9, self.ended_s - began_s), percentile(took, 0.5) * 1e3, percentile(took, 0.99) * 1e3,
            usage.ru_utime + usage.ru_stime, dict(self.answers),
        )  # fmt: skip


class Connection(asyncio.BufferedProtocol):
    """Asks, reads the answer, asks again."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._filled = 0
        self._status = 0
        self._length_bytes = 0
        self._body_bytes = -1
        """of the answer's body, so many have come; -1 while its head is arriving"""
        self._began_s = 0.0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        """Send the next request, or end."""
        message = self._load.next_message()
        if message is None:
            self._began_s = 0.0
            self._transport.close()
            return
        self._began_s = time.perf_counter()
        for piece in message:
            self._transport.write(piece)

    def get_buffer(self, _sizehint: int) -> memoryview:
        # A head that came in pieces is kept; a body is overwritten.
        return self._view[self._filled :] if self._body_bytes < 0 else self._view

    def buffer_updated(self, nbytes: int) -> None:
        if self._body_bytes < 0:
            self._filled += nbytes
            end = self._buffer.find(b"\r\n\r\n", 0, self._filled)
            if end < 0:
                return
            self._read_head(bytes(self._view[:end]))
            self._body_bytes, self._filled = self._filled - end - 4, 0
        else:
            self._body_bytes += nbytes
        if self._body_bytes >= self._length_bytes:
            self._load.count(self._status, self._body_bytes, self._began_s)
            self._body_bytes = -1
            self.ask()

    def _read_head(self, head: bytes) -> None:
        self._status = int(head[9:12])
        low = head.lower()
        if b"transfer-encoding" in low:
            raise ValueError("an answer of unknown length: not for this load")
        at = low.find(b"content-length:")
        bodyless = self._load.order.method == "HEAD" or self._status in (204, 304) or at < 0
        self._length_bytes = 0 if bodyless else int(low[at + 15 :].split(b"\r\n", 1)[0])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._began_s:
            self._load.count(f"connection lost: {exc or 'closed'}", 0, self._began_s)
        self._load.left()


def main() -> int:
    """Read an order, do it, tell. 1: nobody answered."""
    given: dict[str, Any] = json.load(sys.stdin)
    try:
        told = uvloop.run(Load(Order(**given)).run())
    except (OSError, TimeoutError) as error:
        sys.stderr.write(f"load: {type(error).__name__} {error}\n")
        return 1
    json.dump(asdict(told), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
