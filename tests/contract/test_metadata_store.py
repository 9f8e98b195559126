"""What PostgreSQL's implementation promises beyond the common contract: no lease, no answer; and what half-done work becomes."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio

from mobula.core.paths import PATH_BYTES_MAX, InvalidPath, parse
from mobula.metadata import two_shards
from mobula.metadata.collecting import Collecting, Garbage, Released
from mobula.metadata.directory import Directory
from mobula.metadata.model import (
    DirectoryMissing,
    Entry,
    IsDirectory,
    Kind,
    NotFound,
    OutcomeUnknown,
    Page,
    Precondition,
    StorageServer,
    Unavailable,
)
from mobula.metadata.shard_map import even, vnode_of
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client
from tests.probe import shard
from tests.probe.shard import HOUR

pytestmark = pytest.mark.probe

NOON = dt.datetime(2026, 3, 1, 12, 0, tzinfo=dt.UTC)
DEADLINE_S = 1.5
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDXVSr/ADeoUgnAGm+FBJwYVBltSSwVc551JJ4j1abYk sub"


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest_asyncio.fixture
async def store(shards: shard.Shards) -> AsyncIterator[PostgresMetadata]:
    client = Client([shards.zookeeper.address])
    client.start()
    made = PostgresMetadata(client, shards.postgres, deadline_s=DEADLINE_S)
    made.start()
    try:
        await client.wait_connected(10)
        yield made
    finally:
        made.stop()
        await client.stop()


@pytest.fixture
def stor() -> str:
    return f"/{uuid.uuid4()}/stor"


def empty(name: str) -> Entry:
    return Entry(name, Kind.OBJECT, NOON, etag=str(uuid.uuid4()), content_type="text/plain")


def folder(name: str) -> Entry:
    return Entry(name, Kind.DIRECTORY, NOON)


async def put(store: PostgresMetadata, directory: str, name: str) -> None:
    root = directory.count("/") == 2
    await store.put_object(directory, empty(name), group_epoch=0, precondition=Precondition(), parent_is_root=root)


def number_of(directory: str) -> int:
    """The shard of a directory's children."""
    return even(2).shard_of(vnode_of(directory))


async def stop_after(store: PostgresMetadata, plan: two_shards.Plan, path: str, steps: int) -> None:
    """Carry out that many steps of a plan, as a process that dies then."""
    directory, _, name = path.rpartition("/")

    async def put_entry(*, incarnation: int, insert: bool) -> bool:
        return await store._put_entry(
            directory, folder(name), parent_is_root=True, incarnation=incarnation, insert=insert,
            deadline=time.monotonic() + 5,
        )  # fmt: skip

    answer: object = None
    for _ in range(steps):
        answer = await store._step(plan.send(answer), path, put_entry, time.monotonic() + 5)


async def age(shards: shard.Shards, path: str) -> None:
    """Let a directory's row be two minutes older."""
    await shards.sql(
        number_of(path),
        "UPDATE metadata.directory SET changed_at = changed_at - interval '2 min' WHERE path = $1",
        path,
    )


async def rows(shards: shard.Shards, path: str) -> list[dict[str, object]]:
    return await shards.sql(number_of(path), "SELECT state FROM metadata.directory WHERE path = $1", path)


async def synchronous(shards: shard.Shards, number: int, standby: str) -> None:
    """Name the standby that commits of a shard wait for, and wait until that counts."""
    await shards.sql(number, f"ALTER SYSTEM SET synchronous_standby_names = '{standby}'")
    await shards.sql(number, "SELECT pg_reload_conf()")
    async with asyncio.timeout(10):
        while (await shards.sql(number, "SHOW synchronous_standby_names"))[0]["synchronous_standby_names"] != standby:
            await asyncio.sleep(0.02)


async def test_without_a_lease_there_is_no_answer_within_the_deadline_and_nothing_happens(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    await put(store, stor, "o")
    for number in (1, 2):
        await shards.lease(number, -HOUR)
    try:
        for call in (
            store.lookup(stor, "o"),
            put(store, stor, "x"),
            store.list_directory(stor, Page()),
            store.delete_object(stor, "o", precondition=Precondition()),
            store.delete_directory(stor, "o"),
            store._read_groups(1),
        ):
            began_s = time.monotonic()
            with pytest.raises(Unavailable, match=r"no lease|not leased"):
                await call
            assert time.monotonic() - began_s < DEADLINE_S + 0.5
    finally:
        for number in (1, 2):
            await shards.lease(number, HOUR)
    assert [e.name for e in (await store.list_directory(stor, Page())).entries] == ["o"]


async def test_a_write_whose_replica_does_not_answer_is_unknown_and_stays_invisible(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    number = number_of(stor)
    await put(store, stor, "before")
    await synchronous(shards, number, "gone")
    try:
        with pytest.raises(OutcomeUnknown):
            await put(store, stor, "lost")
        assert (await store.lookup(stor, "lost")).entry is None
        assert (await store.lookup(stor, "before")).entry is not None
    finally:
        await synchronous(shards, number, "")


async def test_a_mkdir_that_died_is_finished_by_whoever_meets_it(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    path = f"{stor}/d"
    await stop_after(store, two_shards.make(), path, 1)
    assert not (await store.lookup(path, "o")).directory_exists
    with pytest.raises(DirectoryMissing):
        await put(store, path, "o")
    await stop_after(store, two_shards.make(), path, 2)
    assert await rows(shards, path) == [{"state": "creating"}]
    await put(store, path, "o")
    assert await rows(shards, path) == [{"state": "active"}]
    assert (await store.list_directory(path, Page())).total == 1


async def test_a_half_made_directory_is_listed_as_empty_and_can_be_removed(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    for name in ("d", "e"):
        await stop_after(store, two_shards.make(), f"{stor}/{name}", 2)
    assert (await store.list_directory(f"{stor}/d", Page())).total == 0
    await store.delete_directory(stor, "e")
    assert await rows(shards, f"{stor}/e") == []


@pytest.mark.parametrize("steps", [1, 2])
async def test_a_rmdir_that_died_is_finished_by_the_next_rmdir_or_mkdir(
    shards: shard.Shards, store: PostgresMetadata, stor: str, steps: int
) -> None:
    for name in ("d", "e"):
        await store.put_directory(stor, folder(name), parent_is_root=True)
        await stop_after(store, two_shards.remove(), f"{stor}/{name}", steps)
        assert not (await store.lookup(f"{stor}/{name}", "o")).directory_exists
        with pytest.raises(DirectoryMissing):
            await put(store, f"{stor}/{name}", "o")
    try:
        await store.delete_directory(stor, "d")
    except NotFound:
        assert steps == 2
    assert (await store.lookup(stor, "d")).entry is None
    assert await rows(shards, f"{stor}/d") == []
    await store.put_directory(stor, folder("e"), parent_is_root=True)
    await put(store, f"{stor}/e", "o")


async def test_the_sweeper_finishes_what_nobody_met(shards: shard.Shards, store: PostgresMetadata, stor: str) -> None:
    await stop_after(store, two_shards.make(), f"{stor}/nothing", 1)
    await stop_after(store, two_shards.make(), f"{stor}/made", 2)
    await store.put_directory(stor, folder("removed"), parent_is_root=True)
    await stop_after(store, two_shards.remove(), f"{stor}/removed", 1)
    await stop_after(store, two_shards.make(), f"{stor}/young", 1)
    assert await store.sweep() == 0
    for name in ("nothing", "made", "removed"):
        await age(shards, f"{stor}/{name}")
    assert await store.sweep() == 3
    assert [e.name for e in (await store.list_directory(stor, Page())).entries] == ["made"]
    assert await rows(shards, f"{stor}/made") == [{"state": "active"}]
    assert await rows(shards, f"{stor}/removed") == await rows(shards, f"{stor}/nothing") == []
    assert await rows(shards, f"{stor}/young") == [{"state": "creating"}]


async def test_a_mkdir_that_is_refused_leaves_nothing_for_the_sweeper(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    with pytest.raises(DirectoryMissing):
        await store.put_directory(f"{stor}/none", folder("d"), parent_is_root=False)
    assert await rows(shards, f"{stor}/none/d") == []


async def test_counts_stay_right_and_few_while_many_write_at_once(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    store._deadline_s = 20
    await asyncio.gather(*(put(store, stor, f"o{n}") for n in range(300)))
    await asyncio.gather(*(store.delete_object(stor, f"o{n}", precondition=Precondition()) for n in range(100)))
    assert (await store.list_directory(stor, Page(limit=1))).total == 200
    found = await shards.sql(
        number_of(stor), "SELECT count(*) AS n FROM metadata.directory_count WHERE path = $1", stor
    )
    assert int(str(found[0]["n"])) < 150


async def test_puts_that_go_together_succeed_or_fail_each_for_itself(store: PostgresMetadata, stor: str) -> None:
    await store.put_directory(stor, folder("d"), parent_is_root=True)
    too_long = "".join(uuid.uuid4().hex for _ in range(100))  # for PostgreSQL; the API's paths are shorter
    calls = {
        "new": put(store, stor, "new"),
        "again": put(store, stor, "new"),
        "over a directory": put(store, stor, "d"),
        "nowhere": put(store, f"{stor}/nowhere", "o"),
        "below": put(store, f"{stor}/d", "o"),
        "too long": put(store, stor, too_long),
    }
    results = await asyncio.gather(*calls.values(), return_exceptions=True)
    assert {what: type(result) for what, result in zip(calls, results, strict=True)} == {
        "new": type(None), "again": type(None), "over a directory": IsDirectory, "nowhere": DirectoryMissing,
        "below": type(None), "too long": asyncpg.ProgramLimitExceededError,
    }  # fmt: skip
    assert [e.name for e in (await store.list_directory(stor, Page())).entries] == ["d", "new"]
    assert (await store.list_directory(f"{stor}/d", Page())).total == 1


async def test_the_longest_path_of_the_api_has_a_row(store: PostgresMetadata) -> None:
    account, text = uuid.uuid4(), "".join(uuid.uuid4().hex for _ in range(100))  # nothing that could be compressed
    root, first, second = f"/{account}/stor", text[:1000], text[1000:2000]
    last = text[2000 : 2000 + PATH_BYTES_MAX - len(f"stor/{first}/{second}/")]
    with pytest.raises(InvalidPath, match="too long"):
        parse(f"{root}/{first}/{second}/{last}x".encode())
    assert parse(f"{root}/{first}/{second}/{last}".encode()).stored(account) == f"{root}/{first}/{second}/{last}"
    await store.put_directory(root, folder(first), parent_is_root=True)
    await store.put_directory(f"{root}/{first}", folder(second), parent_is_root=False)
    await put(store, f"{root}/{first}/{second}", last)
    await store.put_directory(f"{root}/{first}/{second}", folder(last), parent_is_root=False)
    assert (await store.list_directory(f"{root}/{first}/{second}/{last}", Page())).total == 0


async def test_the_store_follows_the_leader_key(shards: shard.Shards, store: PostgresMetadata, stor: str) -> None:
    number = number_of(stor)
    other = shards.servers[2 - number]
    await put(store, stor, "o")
    client = Client([shards.zookeeper.address])
    client.start()
    leader = f"/patroni/shard-{number}/leader"
    try:
        await client.wait_connected(5)
        member = json.dumps({"conn_url": f"postgres://{other.address}:{other.port}/postgres"})
        await client.create(f"/patroni/shard-{number}/members/other", member.encode())
        # The key being gone says nothing: the old leader is asked, its lease decides.
        await client.delete(leader)
        await asyncio.sleep(0.2)
        assert (await store.lookup(stor, "o")).entry is not None
        await client.create(leader, b"other")
        async with asyncio.timeout(5):
            while (await store.lookup(stor, "o")).entry is not None:
                await asyncio.sleep(0.02)
    finally:
        await client.set(leader, f"m{number}".encode())
        await client.delete(f"/patroni/shard-{number}/members/other")
        await client.stop()


async def test_the_services_role_can_not_touch_lease_or_schema(shards: shard.Shards) -> None:
    where = {"host": shards.servers[0].address, "port": shards.postgres.port, "user": "mobula", "database": "mobula"}
    connection = await asyncpg.connect(**where, ssl=shards.postgres.context())
    try:
        for statement in (
            "UPDATE fence.lease SET until = 'infinity'",
            "SELECT fence.grant_lease(now(), now(), 1, true)",
            "SELECT fence.revoke()",
            "CREATE TABLE metadata.mine (a int)",
            "CREATE TABLE public.mine (a int)",
            "CREATE TEMPORARY TABLE mine (a int)",
            "DROP TABLE metadata.entry",
            "TRUNCATE metadata.entry",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
        assert await connection.fetchval("SELECT fence.require()") == 1
    finally:
        await connection.close()
    with pytest.raises((asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError)):
        await asyncpg.connect(**where, ssl=False)


async def test_an_older_generation_than_seen_is_dropped(store: PostgresMetadata, stor: str) -> None:
    number = number_of(stor)
    await put(store, stor, "o")
    store.shard(number)._generation = 2
    with pytest.raises(Unavailable, match="generation 1, 2 was seen"):
        await store.lookup(stor, "o")


async def test_bytes_are_garbage_when_their_last_name_is_given_up_and_repeats_do_no_harm(
    shards: shard.Shards, store: PostgresMetadata, stor: str
) -> None:
    await store.region_init([StorageServer("a-1", "a", "10.0.0.1", 8060)], 2)
    (group,) = await store.groups()
    account, number = uuid.uuid4(), uuid.uuid4()
    entry = Entry(
        "a", Kind.OBJECT, NOON, etag="e", size_bytes=5, md5=bytes(16), object_id=number, account=account, group=group.id, copies=1
    )  # fmt: skip
    await store.put_object(stor, entry, group_epoch=group.epoch, precondition=Precondition(), parent_is_root=True)
    await store.link_object(
        stor, entry, stor, dataclasses.replace(entry, name="b"), group_epoch=group.epoch, parent_is_root=True
    )
    linked = (await store.lookup(stor, "b")).entry
    assert linked is not None
    assert linked.reference is not None
    sql = "SELECT object_id FROM metadata.garbage WHERE account = $1"
    lost = Garbage(0, account, number, 5, bytes(16), group.id, 1)
    collecting = Collecting(store)

    async def give_up(*references: uuid.UUID) -> int:
        return await collecting.give_up(collecting.home(number), [Released(r, lost) for r in references])

    assert await give_up(number) == 0
    assert await give_up(number, uuid.uuid4(), number) == 0
    assert await give_up(linked.reference) == 1
    assert await give_up(linked.reference) == 0
    assert [len(await shards.sql(n, sql, account)) for n in (1, 2)].count(1) == 1


async def test_of_two_that_give_up_the_last_two_names_one_makes_the_garbage(
    shards: shard.Shards, store: PostgresMetadata
) -> None:
    for _ in range(10):
        number, names = uuid.uuid4(), [uuid.uuid4(), uuid.uuid4()]
        lost = Garbage(0, uuid.uuid4(), number, 5, bytes(16), 1, 1)
        made = json.dumps([{"reference": str(r), "directory": "/d", "name": "a"} for r in names])
        shard_number, vnode = number_of(str(number)), vnode_of(str(number))
        await store.call(
            shard_number, "SELECT * FROM metadata.add_references($1, $2, $3)", vnode, str(number), made, writes=True
        )
        releases = (Collecting(store).give_up(shard_number, [Released(r, lost)]) for r in names)
        assert sorted(await asyncio.gather(*releases)) == [0, 1]


async def test_sub_users_come_with_their_account_and_with_keys_of_their_own(
    shards: shard.Shards, store: PostgresMetadata
) -> None:
    directory = Directory(store)
    login = f"ann{uuid.uuid4().hex[:8]}"
    await directory.create(login, "", operator=False)
    before = (await directory.read()).newest
    made, number = await directory.create_user(login, "sub")
    assert (made, await directory.create_user(login, "sub")) == (True, (False, number))
    added, fingerprint = await directory.add_user_key(login, "sub", PUBLIC_KEY)
    assert (added, await directory.add_user_key(login, "sub", PUBLIC_KEY)) == (True, (False, fingerprint))
    (account,) = (await directory.read(before)).accounts
    assert (account.login, account.keys, set(account.users)) == (login, {}, {"sub"})
    assert (account.users["sub"].uuid, set(account.users["sub"].keys)) == (number, {fingerprint})
    assert account.knows(fingerprint, "sub")
    assert not account.knows(fingerprint)
    with pytest.raises(NotFound, match="no such account"):
        await directory.create_user("nobody", "sub")
    with pytest.raises(NotFound, match="no such user"):
        await directory.add_user_key(login, "nobody", PUBLIC_KEY)
