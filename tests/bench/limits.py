"""Our own promises that need no peer: a directory near its limit is as fast as a small one, slow uploads cost little and leave nothing."""

from __future__ import annotations

import asyncio
import http.client
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from mobula.metadata.shard_map import vnode_of
from tests.bench.load import Order
from tests.bench.measure import median, send
from tests.bench.ours import ACCOUNT, Ours
from tests.bench.system import BenchError, ask
from tests.probe import postgres

SMALL_ENTRIES, LARGE_ENTRIES = 10_000, 980_000
ROUNDS = 10
ROUND_PUTS = 1_000
ROUND_PAGES = 20
PAGE_ENTRIES = 1_000
DIFFERENCE_MAX = 0.2
UPLOADS = 64
UPLOAD_BYTES_S = 1_000_000
UPLOAD_BYTES = 1 << 30
PIECE_BYTES = 100_000
UPLOADS_S = 60.0
MEMORY_MAX_MIB = 150.0
EMPTY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Limit:
    """A promise, and what was found."""

    what: str
    wanted: str
    found: str
    kept: bool


def run(system: Ours, say: Callable[[str], None]) -> Iterator[Limit]:
    """Measure each. Raises BenchError."""
    yield from directories(system, say)
    yield from uploads(system, say)


def directories(system: Ours, say: Callable[[str], None]) -> Iterator[Limit]:
    """Puts and pages in a small and in a large directory, in turn, so that noise hits both."""
    connection = http.client.HTTPConnection("127.0.0.1", system.ports[0], timeout=60)
    names = {SMALL_ENTRIES: "small", LARGE_ENTRIES: "large"}
    for entries, name in names.items():
        say(f"a directory of {entries:,} entries, by COPY")
        path = f"/{ACCOUNT}/stor/{name}"
        system.request(connection, "PUT", path, Content_Type="application/json; type=directory")
        asyncio.run(seed(system.primary, name, entries))
    puts: dict[int, list[float]] = {entries: [] for entries in names}
    pages: dict[int, list[float]] = {entries: [] for entries in names}
    for number in range(ROUNDS):
        for entries, name in names.items():
            puts[entries].append(_put_some(system, name, number))
            pages[entries] += _page_times_s(system, connection, name)
        say(
            f"round {number + 1}/{ROUNDS}: "
            + "; ".join(f"{n:,} entries: {puts[n][-1]:.0f} puts/s, page {median(pages[n]) * 1e3:.1f} ms" for n in names)
        )
    connection.close()
    rates = {entries: len(found) / sum(1 / rate for rate in found) for entries, found in puts.items()}
    times = {entries: median(found) for entries, found in pages.items()}
    slower, longer = rates[LARGE_ENTRIES] / rates[SMALL_ENTRIES], times[LARGE_ENTRIES] / times[SMALL_ENTRIES]
    count = ROUNDS * ROUND_PUTS
    yield Limit(
        f"{count:,} puts into a directory of {LARGE_ENTRIES:,} entries, against one of {SMALL_ENTRIES:,}",
        f"{1 - DIFFERENCE_MAX:.2f} to {1 + DIFFERENCE_MAX:.2f} x",
        f"{slower:.2f} x ({rates[LARGE_ENTRIES]:.0f}/s, {rates[SMALL_ENTRIES]:.0f}/s)",
        abs(slower - 1) < DIFFERENCE_MAX,
    )
    yield Limit(
        f"a page of {PAGE_ENTRIES:,} from its middle, against the small one's",
        f"{1 - DIFFERENCE_MAX:.2f} to {1 + DIFFERENCE_MAX:.2f} x",
        f"{longer:.2f} x ({times[LARGE_ENTRIES] * 1e3:.1f} ms, {times[SMALL_ENTRIES] * 1e3:.1f} ms)",
        abs(longer - 1) < DIFFERENCE_MAX,
    )


async def seed(primary: postgres.Server, name: str, entries: int) -> None:
    """Empty objects with names in no order, as a shard would have them after as many puts."""
    connection = await primary.connect(database="mobula")
    try:
        account = await connection.fetchval("SELECT uuid FROM directory.account WHERE login = $1", ACCOUNT)
        directory = f"/{account}/stor/{name}"
        vnode = vnode_of(directory)
        columns = ["vnode", "directory", "name", "kind", "mtime", "etag", "content_type", "object_id", "account"]
        now = await connection.fetchval("SELECT clock_timestamp()")
        rows = (
            (vnode, directory, uuid.uuid4().hex, "object", now, str(uuid.uuid4()), "text/plain", uuid.uuid4(), account)
            for _ in range(entries)
        )
        await connection.copy_records_to_table("entry", schema_name="metadata", columns=columns, records=rows)
        await connection.execute("INSERT INTO metadata.directory_count VALUES ($1, $2, $3)", vnode, directory, entries)
        await connection.execute("VACUUM ANALYZE metadata.entry")  # what autovacuum does in its time
    finally:
        await connection.close()


def _put_some(system: Ours, name: str, number: int) -> float:
    order = Order(
        system.ports, "PUT", f"/{ACCOUNT}/stor/{name}/{number}-", 1024, 16, 600, ROUND_PUTS, system.heads()
    )  # fmt: skip
    told = send(order)
    if told.answered < ROUND_PUTS:
        raise BenchError(f"put into directory {name!r}: {told.answers}")
    return told.answered / told.seconds


def _page_times_s(system: Ours, connection: http.client.HTTPConnection, name: str) -> list[float]:
    head = dict(line.split(": ", 1) for line in system.heads()[0].splitlines())
    path = f"/{ACCOUNT}/stor/{name}?limit={PAGE_ENTRIES}&marker={quote('8')}"
    times = []
    for _ in range(ROUND_PAGES):
        began_s = time.perf_counter()
        found = ask(connection, "GET", path, b"", head).count(b"\n")
        times.append(time.perf_counter() - began_s)
        if found != PAGE_ENTRIES:
            raise BenchError(f"list directory {name!r}: {found} entries, {PAGE_ENTRIES} expected")
    return times


def uploads(system: Ours, say: Callable[[str], None]) -> Iterator[Limit]:
    """Slow uploads to one webapi, all broken off at the end."""
    say(f"{UPLOADS} uploads of {UPLOAD_BYTES_S / 1e6:g} MB/s each to one webapi, for {UPLOADS_S:.0f} s")
    heads = system.heads()

    async def all_of_them() -> None:
        names = (f"{system.prefix}slow-{number}" for number in range(UPLOADS))
        sending = [_upload(system.ports[0], name, head) for name, head in zip(names, heads, strict=False)]
        await asyncio.gather(_see_them_arrive(system.folder), *sending)

    asyncio.run(all_of_them())
    broken_off_s = time.monotonic()
    memory_mib = peak_mib(system.webapis[0])
    left = unfinished(system.folder)
    while left and time.monotonic() - broken_off_s < 2 * EMPTY_AFTER_S:
        time.sleep(0.05)
        left = unfinished(system.folder)
    took_s = time.monotonic() - broken_off_s
    yield Limit(
        f"memory of a webapi with {UPLOADS} slow uploads, at its most",
        f"< {MEMORY_MAX_MIB:.0f} MiB",
        f"{memory_mib:.0f} MiB",
        memory_mib < MEMORY_MAX_MIB,
    )
    yield Limit(
        "storage empty of them after they were broken off",
        f"< {EMPTY_AFTER_S:.0f} s",
        f"{len(left)} left after {took_s:.1f} s" if left else f"{took_s:.1f} s",
        not left and took_s < EMPTY_AFTER_S,
    )


async def _see_them_arrive(folder: Path) -> None:
    """Each is on two servers in mid-time, where they will be looked for afterwards."""
    await asyncio.sleep(UPLOADS_S / 2)
    found = len(unfinished(folder))
    if found != 2 * UPLOADS:
        raise BenchError(f"look for {UPLOADS} uploads on two storage servers: {found} files found on their way")


async def _upload(port: int, path: str, head: str) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {UPLOAD_BYTES}\r\n{head}\r\n".encode())
    began_s, sent_bytes, piece = time.monotonic(), 0, os.urandom(PIECE_BYTES)
    while time.monotonic() - began_s < UPLOADS_S:
        writer.write(piece)
        sent_bytes += len(piece)
        await writer.drain()
        await asyncio.sleep(max(0.0, sent_bytes / UPLOAD_BYTES_S - (time.monotonic() - began_s)))
    writer.transport.abort()
    if sent_bytes < UPLOADS_S * UPLOAD_BYTES_S * 0.9:
        raise BenchError(f"send {path} at {UPLOAD_BYTES_S} bytes/s: only {sent_bytes / UPLOADS_S:.0f} were taken")


def peak_mib(pid: int) -> float:
    """The most memory that a process has had, resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise BenchError(f"read the memory of process {pid}: the kernel does not say it")


def unfinished(folder: Path) -> Sequence[str]:
    """Files of uploads on the storage servers: on their way, or left behind."""
    return [str(path) for path in folder.glob("data-?/tmp/*")]
