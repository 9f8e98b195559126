"""What every implementation of `Metadata` promises: run on the one in memory and on PostgreSQL of the base image."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
import pytest_asyncio

from mobula.metadata.memory import MemoryMetadata
from mobula.metadata.model import (
    DirectoryMissing,
    DirectoryNotEmpty,
    Entry,
    GroupChanged,
    IsDirectory,
    Kind,
    Metadata,
    NotFound,
    Page,
    ParentNotDirectory,
    Precondition,
    PreconditionFailed,
    SourceChanged,
    StorageServer,
)
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client
from tests.probe import shard

STORAGES = [StorageServer(f"s-{az}-1", az, f"10.0.{n}.41", 8060) for n, az in enumerate("abc", 1)]
ALWAYS = Precondition()
EPOCH = 1
NOON = dt.datetime(2026, 3, 1, 12, 0, 0, 123000, tzinfo=dt.UTC)


class Fixture(Protocol):
    """An implementation, and what a test must see or do beside its interface."""

    metadata: Metadata

    async def garbage(self, account: uuid.UUID) -> Sequence[uuid.UUID | None]:
        """Object ids that became garbage, in order."""

    async def released(self, account: uuid.UUID) -> Sequence[tuple[uuid.UUID | None, uuid.UUID | None]]:
        """Object ids of shared bytes that lost a name, with that name's reference."""

    async def move_group(self, group: int) -> None:
        """Give a group its next epoch on every shard, as a repair would."""


@dataclass
class InMemory:
    metadata: MemoryMetadata

    async def garbage(self, account: uuid.UUID) -> Sequence[uuid.UUID | None]:
        return [g.entry.object_id for g in self.metadata.garbage if g.entry.account == account]

    async def released(self, account: uuid.UUID) -> Sequence[tuple[uuid.UUID | None, uuid.UUID | None]]:
        return [(g.entry.object_id, g.entry.reference) for g in self.metadata.released if g.entry.account == account]

    async def move_group(self, group: int) -> None:
        self.metadata.move_group(group)


@dataclass
class OnPostgres:
    metadata: PostgresMetadata
    shards: shard.Shards

    async def garbage(self, account: uuid.UUID) -> Sequence[uuid.UUID | None]:
        found: list[uuid.UUID | None] = []
        for number in range(1, len(self.shards.servers) + 1):
            rows = await self.shards.sql(
                number, "SELECT object_id FROM metadata.garbage WHERE account = $1 ORDER BY id", account
            )
            found += [uuid.UUID(str(row["object_id"])) for row in rows]
        return found

    async def released(self, account: uuid.UUID) -> Sequence[tuple[uuid.UUID | None, uuid.UUID | None]]:
        sql = "SELECT object_id, reference FROM metadata.released WHERE account = $1 ORDER BY id"
        rows = [row for n in range(1, len(self.shards.servers) + 1) for row in await self.shards.sql(n, sql, account)]
        return [(uuid.UUID(str(row["object_id"])), uuid.UUID(str(row["reference"]))) for row in rows]

    async def move_group(self, group: int) -> None:
        for number in range(1, len(self.shards.servers) + 1):
            await self.shards.sql(number, "UPDATE metadata.placement_group SET epoch = epoch + 1 WHERE id = $1", group)


@pytest.fixture(scope="session")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.probe)])
def running(request: pytest.FixtureRequest) -> shard.Shards | None:
    """The shards to run on, None for memory."""
    return None if request.param == "memory" else request.getfixturevalue("shards")


@pytest_asyncio.fixture
async def tier(running: shard.Shards | None) -> AsyncIterator[Fixture]:
    if running is None:
        yield InMemory(MemoryMetadata(STORAGES))
        return
    client = Client([running.zookeeper.address])
    client.start()
    store = PostgresMetadata(client, running.postgres)
    store.start()
    try:
        await client.wait_connected(10)
        await store.region_init(STORAGES, len(running.servers))
        yield OnPostgres(store, running)
    finally:
        store.stop()
        await client.stop()


@pytest.fixture
def account() -> uuid.UUID:
    return uuid.uuid4()


@pytest.fixture
def stor(account: uuid.UUID) -> str:
    return f"/{account}/stor"


def thing(name: str, account: uuid.UUID | None = None, *, size: int = 5, mtime: dt.datetime = NOON) -> Entry:
    """An object as a service would write it."""
    return Entry(
        name=name, kind=Kind.OBJECT, mtime=mtime, headers={"m-colour": "grün"}, role_tags=("r1",), etag=str(uuid.uuid4()),
        size_bytes=size, md5=hashlib.md5(name.encode(), usedforsecurity=False).digest(), content_type="text/plain",
        object_id=uuid.uuid4() if size else None, account=(account or uuid.uuid4()) if size else None,
        group=1 if size else 0, copies=2 if size else 0,
    )  # fmt: skip


def folder(name: str, **headers: str) -> Entry:
    return Entry(name, Kind.DIRECTORY, NOON, headers)


async def put(m: Metadata, directory: str, entry: Entry, precondition: Precondition = ALWAYS) -> None:
    root = directory.count("/") <= 2
    groups = {g.id: g.epoch for g in await m.groups()}
    await m.put_object(
        directory, entry, group_epoch=groups.get(entry.group, 0), precondition=precondition, parent_is_root=root
    )


async def mkdir(m: Metadata, directory: str, entry: Entry) -> None:
    await m.put_directory(directory, entry, parent_is_root=directory.count("/") <= 2)


async def test_an_object_comes_back_as_it_was_put(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    for entry in (thing("a ü'\r*(", account), thing("empty", account, size=0)):
        await put(tier.metadata, stor, entry)
        assert (await tier.metadata.lookup(stor, entry.name)).entry == entry


async def test_a_root_directory_exists_without_being_made(tier: Fixture, stor: str) -> None:
    found = await tier.metadata.lookup(stor, "nothing")
    assert found.entry is None
    assert found.directory_exists
    with pytest.raises(NotFound):
        await tier.metadata.list_directory(stor, Page())


async def test_the_name_in_a_missing_directory_is_looked_up_as_missing_with_its_directory(
    tier: Fixture, stor: str
) -> None:
    found = await tier.metadata.lookup(f"{stor}/no", "x")
    assert found.entry is None
    assert not found.directory_exists


async def test_a_name_below_an_object_is_looked_up_as_missing_with_its_directory(tier: Fixture, stor: str) -> None:
    await put(tier.metadata, stor, thing("o"))
    found = await tier.metadata.lookup(f"{stor}/o", "x")
    assert found.entry is None
    assert not found.directory_exists


async def test_an_object_needs_its_directory(tier: Fixture, stor: str) -> None:
    with pytest.raises(DirectoryMissing):
        await put(tier.metadata, f"{stor}/no", thing("x"))
    await put(tier.metadata, stor, thing("o"))
    with pytest.raises(ParentNotDirectory):
        await put(tier.metadata, f"{stor}/o", thing("x"))
    with pytest.raises(ParentNotDirectory):
        await mkdir(tier.metadata, f"{stor}/o", folder("d"))
    with pytest.raises(DirectoryMissing):
        await mkdir(tier.metadata, f"{stor}/no", folder("d"))
    assert not (await tier.metadata.lookup(f"{stor}/no/d", "x")).directory_exists


async def test_a_replaced_or_deleted_objects_bytes_become_garbage_once(
    tier: Fixture, stor: str, account: uuid.UUID
) -> None:
    first, second, empty = thing("o", account), thing("o", account), thing("o", account, size=0)
    await put(tier.metadata, stor, first)
    assert await tier.garbage(account) == []
    await put(tier.metadata, stor, second)
    assert await tier.garbage(account) == [first.object_id]
    await put(tier.metadata, stor, empty)
    assert await tier.garbage(account) == [first.object_id, second.object_id]
    await tier.metadata.delete_object(stor, "o", precondition=ALWAYS)
    assert await tier.garbage(account) == [first.object_id, second.object_id]
    assert (await tier.metadata.lookup(stor, "o")).entry is None


async def test_an_object_replaced_by_a_directory_becomes_garbage(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    entry = thing("o", account)
    await put(tier.metadata, stor, entry)
    await mkdir(tier.metadata, stor, folder("o"))
    assert await tier.garbage(account) == [entry.object_id]
    await put(tier.metadata, f"{stor}/o", thing("child", account))
    assert [e.kind for e in (await tier.metadata.list_directory(stor, Page())).entries] == [Kind.DIRECTORY]


async def test_a_refused_write_changes_nothing(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    entry = thing("o", account)
    await put(tier.metadata, stor, entry)
    with pytest.raises(PreconditionFailed):
        await put(tier.metadata, stor, thing("o", account), Precondition(any_of=("other",)))
    with pytest.raises(PreconditionFailed):
        await tier.metadata.delete_object(stor, "o", precondition=Precondition(any_of=()))
    assert (await tier.metadata.lookup(stor, "o")).entry == entry
    assert await tier.garbage(account) == []


@pytest.mark.parametrize(
    ("present", "precondition", "allowed"),
    [
        (True, Precondition(any_of=("E",)), True),
        (True, Precondition(any_of=("x", "E")), True),
        (True, Precondition(any_of=("x",)), False),
        (True, Precondition(any_of=("*",)), True),
        (True, Precondition(any_of=()), False),
        (True, Precondition(none_of=("E",)), False),
        (True, Precondition(none_of=("x",)), True),
        (True, Precondition(none_of=("*",)), False),
        (True, Precondition(any_of=("E",), none_of=("E",)), False),
        (False, Precondition(any_of=("E",)), False),
        (False, Precondition(any_of=("*",)), False),
        (False, Precondition(any_of=()), True),
        (False, Precondition(none_of=("*",)), True),
        (False, Precondition(none_of=("E",)), True),
    ],
)
async def test_a_precondition_decides_on_the_current_etag(
    tier: Fixture, stor: str, *, present: bool, precondition: Precondition, allowed: bool
) -> None:
    if present:
        await put(tier.metadata, stor, replace(thing("o"), etag="E"))
    entry = thing("o")
    if allowed:
        await put(tier.metadata, stor, entry, precondition)
        assert (await tier.metadata.lookup(stor, "o")).entry == entry
    else:
        with pytest.raises(PreconditionFailed):
            await put(tier.metadata, stor, entry, precondition)


async def test_of_many_creators_of_one_name_exactly_one_wins(tier: Fixture, stor: str) -> None:
    outcomes = await asyncio.gather(
        *(put(tier.metadata, stor, thing("o"), Precondition(any_of=())) for _ in range(12)), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(o, PreconditionFailed) for o in outcomes) == 11


async def test_unconditional_writers_of_one_name_all_succeed(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    entries = [thing("o", account) for _ in range(12)]
    await asyncio.gather(*(put(tier.metadata, stor, entry) for entry in entries))
    kept = (await tier.metadata.lookup(stor, "o")).entry
    assert kept in entries
    dropped = await tier.garbage(account)
    assert sorted(map(str, dropped)) == sorted(str(e.object_id) for e in entries if e != kept)
    assert (await tier.metadata.list_directory(stor, Page())).total == 1


async def test_an_object_is_refused_under_an_old_group(tier: Fixture, stor: str) -> None:
    groups = {g.id: g.epoch for g in await tier.metadata.groups()}
    await tier.move_group(2)
    entry = replace(thing("o"), group=2)
    with pytest.raises(GroupChanged):
        await tier.metadata.put_object(stor, entry, group_epoch=groups[2], precondition=ALWAYS, parent_is_root=True)
    with pytest.raises(GroupChanged):
        await tier.metadata.put_object(
            stor, replace(entry, group=4711), group_epoch=1, precondition=ALWAYS, parent_is_root=True
        )
    await tier.metadata.put_object(stor, entry, group_epoch=groups[2] + 1, precondition=ALWAYS, parent_is_root=True)
    await tier.metadata.put_object(
        stor, thing("empty", size=0), group_epoch=0, precondition=ALWAYS, parent_is_root=True
    )


async def test_groups_put_the_first_three_copies_into_three_azs(tier: Fixture) -> None:
    groups = await tier.metadata.groups()
    assert len(groups) == 6
    assert {tuple(s.id for s in g.servers) for g in groups} == {
        (f"s-{x}-1", f"s-{y}-1", f"s-{z}-1") for x in "abc" for y in "abc" for z in "abc" if len({x, y, z}) == 3
    }


async def test_put_metadata_replaces_headers_and_keeps_the_rest(tier: Fixture, stor: str) -> None:
    entry = thing("o")
    await put(tier.metadata, stor, entry)
    changed = await tier.metadata.put_metadata(
        stor,
        "o",
        headers={"m-new": "1"},
        role_tags=("r2",),
        content_type=None,
        precondition=Precondition(any_of=(entry.etag,)),
    )
    assert changed.mtime > entry.mtime
    assert changed == replace(entry, headers={"m-new": "1"}, role_tags=("r2",), mtime=changed.mtime)
    assert (await tier.metadata.lookup(stor, "o")).entry == changed
    again = await tier.metadata.put_metadata(
        stor, "o", headers={}, role_tags=(), content_type="image/png", precondition=ALWAYS
    )
    assert again.content_type == "image/png"


async def test_put_metadata_refuses(tier: Fixture, stor: str) -> None:
    with pytest.raises(NotFound):
        await tier.metadata.put_metadata(stor, "o", headers={}, role_tags=(), content_type=None, precondition=ALWAYS)
    await put(tier.metadata, stor, thing("o"))
    with pytest.raises(PreconditionFailed):
        await tier.metadata.put_metadata(
            stor, "o", headers={}, role_tags=(), content_type=None, precondition=Precondition(any_of=("x",))
        )


async def test_put_metadata_of_a_directory_ignores_the_content_type(tier: Fixture, stor: str) -> None:
    await mkdir(tier.metadata, stor, folder("d"))
    changed = await tier.metadata.put_metadata(
        stor, "d", headers={"m-a": "b"}, role_tags=("r",), content_type="text/plain", precondition=ALWAYS
    )
    assert (changed.kind, changed.content_type, dict(changed.headers)) == (Kind.DIRECTORY, "", {"m-a": "b"})


async def test_deleting_what_is_not_an_object_is_refused(tier: Fixture, stor: str) -> None:
    with pytest.raises(NotFound):
        await tier.metadata.delete_object(stor, "no", precondition=ALWAYS)
    await mkdir(tier.metadata, stor, folder("d"))
    with pytest.raises(IsDirectory):
        await tier.metadata.delete_object(stor, "d", precondition=ALWAYS)
    with pytest.raises(IsDirectory):
        await put(tier.metadata, stor, thing("d"))


async def test_mkdir_is_idempotent_and_a_changed_repeat_stores_its_headers(tier: Fixture, stor: str) -> None:
    first = folder("d", colour="red")
    await mkdir(tier.metadata, stor, first)
    await mkdir(tier.metadata, stor, replace(first, mtime=NOON + dt.timedelta(hours=1)))
    assert (await tier.metadata.lookup(stor, "d")).entry == first
    await mkdir(tier.metadata, stor, folder("d", colour="blue"))
    found = (await tier.metadata.lookup(stor, "d")).entry
    assert found is not None
    assert found.headers == {"colour": "blue"}
    assert (await tier.metadata.list_directory(stor, Page())).total == 1


async def test_ten_identical_mkdirs_at_once_all_succeed(tier: Fixture, stor: str) -> None:
    await asyncio.gather(*(mkdir(tier.metadata, stor, folder("d")) for _ in range(10)))
    await put(tier.metadata, f"{stor}/d", thing("o"))
    assert (await tier.metadata.list_directory(stor, Page())).total == 1


async def test_a_directory_goes_only_when_it_is_empty(tier: Fixture, stor: str) -> None:
    await mkdir(tier.metadata, stor, folder("d"))
    await put(tier.metadata, f"{stor}/d", thing("o"))
    with pytest.raises(DirectoryNotEmpty):
        await tier.metadata.delete_directory(stor, "d")
    await tier.metadata.delete_object(f"{stor}/d", "o", precondition=ALWAYS)
    await tier.metadata.delete_directory(stor, "d")
    assert (await tier.metadata.lookup(stor, "d")).entry is None
    assert not (await tier.metadata.lookup(f"{stor}/d", "o")).directory_exists
    with pytest.raises(NotFound):
        await tier.metadata.delete_directory(stor, "d")
    with pytest.raises(DirectoryMissing):
        await put(tier.metadata, f"{stor}/d", thing("o"))
    with pytest.raises(NotFound):
        await tier.metadata.list_directory(f"{stor}/d", Page())


async def test_a_directory_that_was_removed_can_be_made_again_and_is_empty(tier: Fixture, stor: str) -> None:
    for _ in range(3):
        await mkdir(tier.metadata, stor, folder("d"))
        await put(tier.metadata, f"{stor}/d", thing("o"))
        listing = await tier.metadata.list_directory(f"{stor}/d", Page())
        assert (listing.total, len(listing.entries)) == (1, 1)
        await tier.metadata.delete_object(f"{stor}/d", "o", precondition=ALWAYS)
        await tier.metadata.delete_directory(stor, "d")


async def test_rmdir_and_put_at_once_never_leave_an_object_without_its_directory(tier: Fixture, stor: str) -> None:
    for turn in range(8):
        path = f"{stor}/d{turn}"
        await mkdir(tier.metadata, stor, folder(f"d{turn}"))
        outcomes = await asyncio.gather(
            put(tier.metadata, path, thing("a")),
            tier.metadata.delete_directory(stor, f"d{turn}"),
            put(tier.metadata, path, thing("b")),
            return_exceptions=True,
        )
        gone = outcomes[1] is None
        assert (await tier.metadata.lookup(path, "a")).directory_exists is not gone
        for outcome in (outcomes[0], outcomes[2]):
            assert isinstance(outcome, DirectoryMissing) if gone else outcome is None
        assert ((await tier.metadata.lookup(stor, f"d{turn}")).entry is None) is gone


async def test_mkdirs_and_rmdirs_of_one_name_at_once_end_in_a_directory_that_works_or_in_none(
    tier: Fixture, stor: str
) -> None:
    for turn in range(6):
        name = f"d{turn}"
        jobs = [mkdir(tier.metadata, stor, folder(name)) for _ in range(4)]
        jobs += [tier.metadata.delete_directory(stor, name) for _ in range(4)]
        outcomes = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(o is None for o in outcomes[:4])
        assert all(o is None or isinstance(o, NotFound) for o in outcomes[4:])
        entry = (await tier.metadata.lookup(stor, name)).entry
        assert (await tier.metadata.lookup(f"{stor}/{name}", "x")).directory_exists is (entry is not None)
        if entry is not None:
            await put(tier.metadata, f"{stor}/{name}", thing("o"))
            await tier.metadata.delete_object(f"{stor}/{name}", "o", precondition=ALWAYS)
            await tier.metadata.delete_directory(stor, name)


async def test_rmdir_of_an_object_or_of_nothing_finds_no_directory(tier: Fixture, stor: str) -> None:
    await put(tier.metadata, stor, thing("o"))
    for name in ("o", "no"):
        with pytest.raises(NotFound):
            await tier.metadata.delete_directory(stor, name)
    assert (await tier.metadata.lookup(stor, "o")).entry is not None


NAMES = ["A", "B", "a", "b", "c", "z", "ä", "\U0001f600", "\uff5e"]


async def _fill(m: Metadata, stor: str) -> list[str]:
    """Objects and directories whose names sort differently by bytes than by any language; returned in byte order."""
    for number, name in enumerate(NAMES):
        mtime = NOON + dt.timedelta(seconds=number // 2)
        if number % 3:
            await put(m, stor, replace(thing(name), mtime=mtime))
        else:
            await mkdir(m, stor, replace(folder(name), mtime=mtime))
    return sorted(NAMES, key=lambda n: n.encode())


async def names(m: Metadata, stor: str, page: Page) -> list[str]:
    listing = await m.list_directory(stor, page)
    assert listing.total == len(NAMES)
    return [e.name for e in listing.entries]


async def test_a_listing_is_ordered_by_the_bytes_of_names(tier: Fixture, stor: str) -> None:
    wanted = await _fill(tier.metadata, stor)
    assert await names(tier.metadata, stor, Page()) == wanted
    assert await names(tier.metadata, stor, Page(reverse=True)) == wanted[::-1]


async def test_pages_are_full_and_markers_inclusive(tier: Fixture, stor: str) -> None:
    wanted = await _fill(tier.metadata, stor)
    assert await names(tier.metadata, stor, Page(limit=3)) == wanted[:3]
    assert await names(tier.metadata, stor, Page(limit=3, marker=wanted[2])) == wanted[2:5]
    assert await names(tier.metadata, stor, Page(limit=3, marker=wanted[2] + "!")) == wanted[3:6]
    assert await names(tier.metadata, stor, Page(limit=3, marker=wanted[5], reverse=True)) == wanted[5:2:-1]
    assert await names(tier.metadata, stor, Page(marker="\U0010ffff")) == []
    objects = [n for n in wanted if NAMES.index(n) % 3]
    assert await names(tier.metadata, stor, Page(limit=4, kind=Kind.OBJECT)) == objects[:4]
    assert await names(tier.metadata, stor, Page(kind=Kind.OBJECT, marker=objects[2])) == objects[2:]
    assert await names(tier.metadata, stor, Page(kind=Kind.DIRECTORY)) == [n for n in wanted if n not in objects]


async def test_a_listing_by_mtime_is_newest_first_and_takes_a_time_as_marker(tier: Fixture, stor: str) -> None:
    await _fill(tier.metadata, stor)
    oldest_first = sorted(NAMES, key=lambda n: (NAMES.index(n) // 2, n.encode()))
    newest_first = sorted(NAMES, key=lambda n: (-(NAMES.index(n) // 2), n.encode()))
    assert await names(tier.metadata, stor, Page(by_mtime=True)) == newest_first
    assert await names(tier.metadata, stor, Page(by_mtime=True, reverse=True)) == oldest_first
    marker = (NOON + dt.timedelta(seconds=1)).isoformat()
    assert set(await names(tier.metadata, stor, Page(by_mtime=True, marker=marker))) == set(NAMES[:4])
    assert set(await names(tier.metadata, stor, Page(by_mtime=True, marker=marker, reverse=True))) == set(NAMES[2:])


async def test_a_removed_directory_leaves_the_count_right(tier: Fixture, stor: str) -> None:
    for number in range(5):
        await mkdir(tier.metadata, stor, folder(f"d{number}"))
    await tier.metadata.delete_directory(stor, "d1")
    listing = await tier.metadata.list_directory(stor, Page(limit=2))
    assert (listing.total, len(listing.entries)) == (4, 2)
    await mkdir(tier.metadata, f"{stor}/d0", folder("inner"))
    listing = await tier.metadata.list_directory(f"{stor}/d0", Page())
    assert (listing.total, [e.name for e in listing.entries]) == (1, ["inner"])


async def test_an_empty_directory_lists_as_empty(tier: Fixture, stor: str) -> None:
    await mkdir(tier.metadata, stor, folder("d"))
    listing = await tier.metadata.list_directory(f"{stor}/d", Page())
    assert (listing.total, list(listing.entries)) == (0, [])


async def test_a_root_directory_can_be_put_and_has_headers_then(tier: Fixture, account: uuid.UUID) -> None:
    await tier.metadata.put_directory(f"/{account}", folder("stor", colour="red"), parent_is_root=True)
    found = (await tier.metadata.lookup(f"/{account}", "stor")).entry
    assert found is not None
    assert found.headers == {"colour": "red"}
    assert (await tier.metadata.list_directory(f"/{account}/stor", Page())).total == 0


async def link(m: Metadata, directory: str, source: Entry, target_directory: str, name: str) -> None:
    groups = {g.id: g.epoch for g in await m.groups()}
    await m.link_object(
        directory, source, target_directory, replace(source, name=name), group_epoch=groups.get(source.group, 0),
        parent_is_root=target_directory.count("/") <= 2,
    )  # fmt: skip


async def found(m: Metadata, directory: str, name: str) -> Entry:
    entry = (await m.lookup(directory, name)).entry
    assert entry is not None
    return entry


async def test_a_link_names_the_bytes_and_both_names_say_that_they_are_shared(
    tier: Fixture, stor: str, account: uuid.UUID
) -> None:
    m, entry = tier.metadata, thing("a", account)
    await put(m, stor, entry)
    assert (await found(m, stor, "a")).reference is None
    other = f"/{uuid.uuid4()}/stor"
    await link(m, stor, entry, other, "b")
    source, linked = await found(m, stor, "a"), await found(m, other, "b")
    assert source.reference == entry.object_id
    assert linked.reference not in {None, source.reference}
    assert replace(linked, name="a", reference=None) == entry
    assert replace(source, reference=None) == entry


async def test_bytes_with_several_names_are_no_garbage_when_one_goes(
    tier: Fixture, stor: str, account: uuid.UUID
) -> None:
    m, entry = tier.metadata, thing("a", account)
    await put(m, stor, entry)
    await link(m, stor, entry, stor, "b")
    linked = await found(m, stor, "b")
    await m.delete_object(stor, "a", precondition=ALWAYS)
    await put(m, stor, thing("b", account))
    assert await tier.garbage(account) == []
    assert set(await tier.released(account)) == {
        (entry.object_id, entry.object_id),
        (entry.object_id, linked.reference),
    }


async def test_a_link_of_a_link_shares_the_same_bytes(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    m, entry = tier.metadata, thing("a", account)
    await put(m, stor, entry)
    await link(m, stor, entry, stor, "b")
    await link(m, stor, await found(m, stor, "b"), stor, "c")
    references = {(await found(m, stor, name)).reference for name in "abc"}
    assert len(references) == 3
    assert {(await found(m, stor, name)).object_id for name in "abc"} == {entry.object_id}


async def test_what_a_link_replaces_becomes_garbage_and_an_object_linked_to_itself_does_not(
    tier: Fixture, stor: str, account: uuid.UUID
) -> None:
    m, entry, replaced = tier.metadata, thing("a", account), thing("b", account)
    await put(m, stor, entry)
    await put(m, stor, replaced)
    await link(m, stor, entry, stor, "b")
    assert await tier.garbage(account) == [replaced.object_id]
    await link(m, stor, await found(m, stor, "a"), stor, "a")
    assert await tier.garbage(account) == [replaced.object_id]
    fresh = thing("c", account)
    await put(m, stor, fresh)
    await link(m, stor, fresh, stor, "c")
    assert await tier.garbage(account) == [replaced.object_id]
    assert (await found(m, stor, "c")).reference not in {None, fresh.object_id}


async def test_what_is_not_there_any_more_is_not_linked(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    m, entry = tier.metadata, thing("a", account)
    with pytest.raises(SourceChanged):
        await link(m, stor, entry, stor, "b")
    await put(m, stor, entry)
    await put(m, stor, thing("a", account))
    with pytest.raises(SourceChanged):
        await link(m, stor, entry, stor, "b")
    assert (await m.lookup(stor, "b")).entry is None


async def test_a_link_keeps_the_rules_of_its_name(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    m, entry = tier.metadata, thing("a", account)
    await put(m, stor, entry)
    await mkdir(m, stor, folder("d"))
    with pytest.raises(IsDirectory):
        await link(m, stor, entry, stor, "d")
    with pytest.raises(DirectoryMissing):
        await link(m, stor, entry, f"{stor}/no", "b")
    with pytest.raises(ParentNotDirectory):
        await link(m, stor, entry, f"{stor}/a", "b")


async def test_new_headers_leave_the_reference(tier: Fixture, stor: str, account: uuid.UUID) -> None:
    m, entry = tier.metadata, thing("a", account)
    await put(m, stor, entry)
    await link(m, stor, entry, stor, "b")
    before = (await found(m, stor, "b")).reference
    await m.put_metadata(stor, "b", headers={}, role_tags=(), content_type=None, precondition=ALWAYS)
    assert (await found(m, stor, "b")).reference == before
