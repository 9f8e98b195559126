"""In which order the kernel is asked, seen by strace: nothing is acknowledged that a crash could take."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from mobula.storage.files import SYNCED_WHOLE, file_system
from tests import syscalls
from tests.contract.test_storage_server import ACCOUNT, PROGRAM, Storage, end, md5, new_id, speaking, start
from tests.probe import strace
from tests.probe.machine import BOUND_S, folder
from tests.probe.postgres import Server
from tests.syscalls import Call, Stored

pytestmark = pytest.mark.probe

LARGE_BYTES = 200_000
TOGETHER = 12
# The same server, for which a sync is nothing.
CARELESS = (sys.executable, "-c", """
import os, runpy, sys
os.fsync = os.fdatasync = lambda fd: None
sys.argv[0] = "mobula.storage"
runpy.run_module("mobula.storage", run_name="__main__", alter_sys=True)
""")  # fmt: skip


@pytest.fixture
def on_disk() -> Iterator[Path]:
    """A folder on a disk's file system: what a server asks of a tmpfs says nothing."""
    mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="surrogateescape")
    places = [Path(tempfile.gettempdir()), Path("/var/tmp")]
    good = [place for place in places if file_system(mounts, place.resolve()) in SYNCED_WHOLE]
    if not good:
        pytest.skip(f"{' and '.join(map(str, places))} lie on no disk's file system; name a folder that does in TMPDIR")
    with folder(good[0]) as path:
        yield path


@dataclass(frozen=True, slots=True)
class Traced:
    """What a storage server did from its start to its stop, and what was put."""

    calls: Sequence[Call]
    large: Stored
    small: Sequence[Stored]
    """the first one of the first segment, then those that came together"""
    deleted: Stored


def traced(at: Path, program: Sequence[str] = PROGRAM) -> Traced:
    out = at / "trace"
    storage = start(at, program=strace.around(out, program))
    try:
        stored = asyncio.run(_ask(storage))
        storage.process.send_signal(signal.SIGTERM)
        assert storage.process.wait(BOUND_S) == 0
    finally:
        end(storage)
    calls = syscalls.parse(strace.ended(out, storage.process.pid))
    return Traced(calls, stored[0], stored[1:], stored[1])


async def _ask(storage: Storage) -> list[Stored]:
    async with speaking() as client:

        async def put(body: bytes) -> Stored:
            object_id = new_id()
            await client.put(storage.address, ACCOUNT, object_id, body)
            return Stored(str(storage.data_dir), ACCOUNT, object_id, len(body), md5(body).hex())

        large, first = await put(os.urandom(LARGE_BYTES)), await put(os.urandom(100))
        together = await asyncio.gather(*(put(os.urandom(1000 + number)) for number in range(TOGETHER)))
        await client.delete(storage.address, ACCOUNT, first.object_id, first.size_bytes, bytes.fromhex(first.md5))
    return [large, first, *together]


def test_the_storage_server_answers_when_what_it_says_lasts(on_disk: Path) -> None:
    seen = traced(on_disk)
    assert syscalls.large(seen.calls, seen.large) == []
    for stored in seen.small:
        assert syscalls.small(seen.calls, stored) == []
        assert syscalls.dropped(seen.calls, stored) == []
    assert syscalls.deleted(seen.calls, seen.deleted) == []


def test_the_checker_sees_a_storage_server_that_does_not_sync(on_disk: Path) -> None:
    seen = traced(on_disk, CARELESS)
    assert "fsync of the temporary file" in syscalls.large(seen.calls, seen.large)[0]
    for stored in seen.small:
        wrong = syscalls.small(seen.calls, stored)
        assert "fdatasync of the segment" in wrong[0]
        assert any("fsync of the log's folder" in sentence for sentence in wrong)
    assert "fdatasync of the segment" in syscalls.deleted(seen.calls, seen.deleted)[0]


async def commits(at: Path, *, fsync: bool) -> list[list[str]]:
    """What the checker says of a few commits, one after the other."""
    data = at / "server"
    data.mkdir()
    server = Server(data, fsync=fsync)
    await asyncio.to_thread(server.make)
    server.start()
    try:
        await server.ready()
        connection = await server.connect()
        assert await connection.fetchval("SHOW wal_sync_method") == "fdatasync"
        await connection.execute("CREATE TABLE t (n int)")
        begins: dict[int, tuple[str, int]] = {}
        out = at / "trace"
        with strace.attached(out, server.processes()):
            for rows in (3, 5, 7):
                begins[rows] = await connection.fetchrow(
                    "SELECT file_name, file_offset FROM pg_walfile_name_offset(pg_current_wal_insert_lsn())"
                )
                await connection.execute("INSERT INTO t SELECT generate_series(1, $1::int)", rows)
            await connection.fetchval("SELECT 1")  # the last answer's call has ended, too
        await connection.close()
    finally:
        server.stop(signal.SIGKILL)
    calls = syscalls.parse(out.read_text("latin-1"))
    return [syscalls.commit(calls, *begin, f"INSERT 0 {rows}\0".encode()) for rows, begin in begins.items()]


async def test_postgresql_answers_when_its_wal_is_on_disk(on_disk: Path) -> None:
    assert await commits(on_disk, fsync=True) == [[], [], []]


async def test_the_checker_sees_a_postgresql_that_does_not_sync(on_disk: Path) -> None:
    for wrong in await commits(on_disk, fsync=False):
        assert "fdatasync of the WAL" in wrong[0]
