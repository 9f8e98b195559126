"""What `mobula audit` asks a shard, on the image's PostgreSQL with this release's schema, by the image's psql."""

from __future__ import annotations

import datetime as dt
import hashlib
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
import pytest_asyncio

from mobula.metadata.model import Entry, Kind, Precondition, StorageServer
from mobula.metadata.shard_map import even, vnode_of
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client
from ops.audit import Placement, Record, Row, Stray
from ops.audit_region import LEASE, OBJECT_ROWS, Said, rows_of, rows_sql
from tests.probe import shard
from tests.probe.machine import BOUND_S, root
from tests.probe.shard import HOUR

pytestmark = pytest.mark.probe
ACCOUNT = uuid.uuid4()
ROOT = f"/{ACCOUNT}/stor"
VNODE = vnode_of(ROOT)
NUMBER = even(2).shard_of(VNODE)
"""the shard of what lies in ROOT"""
STORAGES = [StorageServer(f"{az}-1", az, f"10.0.0.{n}", 8060) for n, az in enumerate("abc", 1)]
ODD_NAMES = ("back\\slash", "tab\there", "new\nline", "\\N", "ü 🚀", "plain")
MD5 = hashlib.md5(b"bytes", usedforsecurity=False)


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest_asyncio.fixture
async def store(shards: shard.Shards) -> AsyncIterator[PostgresMetadata]:
    client = Client([shards.zookeeper.address])
    client.start()
    made = PostgresMetadata(client, shards.postgres)
    made.start()
    try:
        await client.wait_connected(10)
        yield made
    finally:
        made.stop()
        await client.stop()


def asked(shards: shard.Shards, number: int, sql: str) -> subprocess.CompletedProcess[str]:
    """As on a metadata host, but that psql is the image's, run by its loader: the server's socket lies outside the image."""
    server, image = shards.servers[number - 1], root()
    (loader,) = image.glob("usr/lib/*-linux-gnu/ld-linux-*.so.*")
    psql = [str(loader), "--library-path", str(loader.parent), str(next(image.glob("usr/lib/postgresql/*/bin/psql")))]
    argv = [
        *psql,
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-d",
        "mobula",
        "-h",
        str(server.folder),
        "-p",
        str(server.port),
        "-U",
        "postgres",
    ]
    return subprocess.run(
        ["python3", "-c", OBJECT_ROWS, *argv], input=sql, capture_output=True, text=True, check=False, timeout=BOUND_S
    )  # fmt: skip


def rows(shards: shard.Shards, number: int, only: Sequence[str] | None = None) -> list[Record]:
    said = asked(shards, number, rows_sql(number, even(2), only))
    assert (said.returncode, said.stderr) == (0, "")
    return list(rows_of(said.stdout.split("\n"), number))


async def put(store: PostgresMetadata, name: str, *, size: int = 5) -> str:
    """The id of an object put there."""
    group = (await store.groups())[0]
    entry = Entry(
        name, Kind.OBJECT, dt.datetime.now(dt.UTC), etag=str(uuid.uuid4()), size_bytes=size, md5=MD5.digest(), object_id=uuid.uuid4(),
        account=ACCOUNT, group=group.id if size else 0, copies=2 if size else 0,
    )  # fmt: skip
    await store.put_object(ROOT, entry, group_epoch=group.epoch, precondition=Precondition(), parent_is_root=True)
    return str(entry.object_id)


async def test_a_shard_says_its_groups_strays_entries_and_garbage(
    shards: shard.Shards, store: PostgresMetadata
) -> None:
    await store.region_init(STORAGES, 2)
    ids = {name: await put(store, name) for name in ODD_NAMES}
    empty, dropped = await put(store, "empty", size=0), ids["plain"]
    await store.delete_object(ROOT, "plain", precondition=Precondition())
    await store.put_directory(ROOT, Entry("folder", Kind.DIRECTORY, dt.datetime.now(dt.UTC)), parent_is_root=True)
    account = str(ACCOUNT)
    wanted = [
        Row(i, NUMBER, False, account, 5, MD5.hexdigest(), 1, 2, VNODE, ROOT, n) for n, i in ids.items() if n != "plain"
    ]
    wanted.append(Row(empty, NUMBER, False, account, 0, MD5.hexdigest(), 0, 0, VNODE, ROOT, "empty"))
    wanted.append(Row(dropped, NUMBER, True, account, 5, MD5.hexdigest(), 1, 2, VNODE, "", ""))
    linked = await store.lookup(ROOT, ODD_NAMES[0])
    assert linked.entry is not None
    target = f"/{ACCOUNT}/public"
    await store.link_object(
        ROOT, linked.entry, target, linked.entry, group_epoch=(await store.groups())[0].epoch, parent_is_root=True
    )
    await store.delete_object(target, linked.entry.name, precondition=Precondition())
    groups = [Placement(NUMBER, group.id, tuple((s.id, s.az) for s in group.servers)) for group in await store.groups()]
    found = rows(shards, NUMBER)
    released = [r for n in (1, 2) for r in rows(shards, n) if isinstance(r, Row) and r.released]
    assert [(r.object_id, r.dropped) for r in released] == [(ids[ODD_NAMES[0]], True)]
    assert sorted((r for r in found if isinstance(r, Placement)), key=lambda p: p.id) == groups
    assert [r for r in found if isinstance(r, Row) and not r.released] == sorted(wanted, key=lambda r: r.object_id)
    assert [r for r in found if isinstance(r, Stray)] == []
    some = [ids["\\N"], dropped, str(uuid.uuid4())]
    assert {r.object_id for r in rows(shards, NUMBER, some) if isinstance(r, Row)} == {ids["\\N"], dropped}

    # The same rows on the other shard are strays, and an entry without an id is asked for as ''.
    other = 3 - NUMBER
    insert = "INSERT INTO metadata.entry (vnode, directory, name, kind, mtime, size) VALUES ($1, $2, $3, $4, now(), 7)"
    await shards.sql(other, insert, VNODE, ROOT, "lost\tfolder", "directory")
    await shards.sql(other, insert, VNODE, ROOT, "no id", "object")
    assert [r for r in rows(shards, other) if isinstance(r, Stray)] == [Stray(other, VNODE, f"{ROOT}/lost\tfolder")]
    assert [r.name for r in rows(shards, other, [""]) if isinstance(r, Row)] == ["no id"]
    assert [r for r in rows(shards, other, []) if isinstance(r, Row)] == []


async def test_without_a_lease_a_shard_is_not_believed(shards: shard.Shards) -> None:
    assert asked(shards, 1, LEASE).stdout == "1\n"
    await shards.lease(1, -HOUR)
    try:
        assert asked(shards, 1, LEASE).stdout == "\n"
        with pytest.raises(Said, match="did not have the lease all the time"):
            rows(shards, 1)
    finally:
        await shards.lease(1, HOUR)


def test_a_question_that_fails_is_told_without_rows(shards: shard.Shards) -> None:
    said = asked(shards, 1, rows_sql(1, even(2), None).replace("metadata.garbage", "metadata.no_such_table"))
    assert said.returncode == 3
    assert "no_such_table" in said.stderr
    assert "entry\t" not in said.stdout
