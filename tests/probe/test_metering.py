"""What shards count of usage, on real ones: exactly what entries say, whatever changes them, however it is summed up."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import random
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from mobula.core.hours import hour_of
from mobula.core.job import parse
from mobula.metadata.job_store import PostgresJobDoor, PostgresJobs
from mobula.metadata.jobs import Dispatch, Owner, Result, Work
from mobula.metadata.metering import Counted, Metering
from mobula.metadata.migrate import migrations
from mobula.metadata.model import Entry, Kind, MetadataError, Precondition, StorageServer
from mobula.metadata.store import PostgresMetadata
from mobula.wire.zookeeper import Client
from mobula.workers.folding import fold_all
from tests.probe import shard

pytestmark = pytest.mark.probe

NUMBERS = (1, 2)
NOW = dt.datetime(2026, 11, 28, 5, tzinfo=dt.UTC)
ALWAYS = Precondition()
SERVERS = [StorageServer(f"storage-{az}", az, "127.0.0.1", 1) for az in "abc"]
EMPTY = "TRUNCATE metadata.entry, metering.storage, metering.storage_delta, metering.requests, metering.compute, metering.compute_delta"
TRUTH = """
SELECT split_part(directory || '/' || name, '/', 2) AS account, split_part(directory || '/' || name, '/', 3) AS namespace,
  count(*) FILTER (WHERE kind = 'directory') AS directories, count(*) FILTER (WHERE kind = 'object') AS objects,
  sum(size)::bigint AS bytes, sum(size * copies)::bigint AS "storedBytes"
FROM metadata.entry GROUP BY 1, 2"""
UNMETERED = """
DROP FUNCTION jobs.commit_results(bigint, jsonb);
ALTER FUNCTION jobs.decide_results(bigint, jsonb) RENAME TO commit_results;
DROP SCHEMA metering CASCADE"""


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(len(NUMBERS)) as running:
        yield running


@pytest_asyncio.fixture
async def store(shards: shard.Shards) -> AsyncIterator[PostgresMetadata]:
    client = Client([shards.zookeeper.address])
    client.start()
    made = PostgresMetadata(client, shards.postgres)
    made.start()
    try:
        await client.wait_connected(10)
        await made.region_init(SERVERS, len(NUMBERS))
        for number in NUMBERS:
            await shards.sql_script(number, EMPTY)
        yield made
    finally:
        made.stop()
        await client.stop()


@pytest.fixture
def metering(store: PostgresMetadata) -> Metering:
    return Metering(store)


class User:
    """Does whatever changes entries, below two directories and two namespaces of one account."""

    def __init__(self, store: PostgresMetadata, chance: random.Random) -> None:
        self.account = uuid.uuid4()
        self._store = store
        self._chance = chance

    async def put(self, path: str, size: int, copies: int) -> None:
        (group, *_) = await self._store.groups()
        directory, _, name = f"/{self.account}/{path}".rpartition("/")
        entry = Entry(
            name, Kind.OBJECT, NOW, etag=str(uuid.uuid4()), size_bytes=size, md5=bytes(16), content_type="text/plain",
            object_id=uuid.uuid4(), account=self.account, group=group.id if size else 0, copies=copies,
        )  # fmt: skip
        await self._store.put_object(
            directory,
            entry,
            group_epoch=group.epoch if size else 0,
            precondition=ALWAYS,
            parent_is_root=path.count("/") == 1,
        )

    async def link(self, source: str, path: str) -> None:
        above, _, name = f"/{self.account}/{source}".rpartition("/")
        found = (await self._store.lookup(above, name)).entry
        if found is None or found.kind != Kind.OBJECT:
            return
        (group, *_) = await self._store.groups()
        directory, _, to = f"/{self.account}/{path}".rpartition("/")
        await self._store.link_object(
            above,
            found,
            directory,
            replace(found, name=to),
            group_epoch=group.epoch,
            parent_is_root=path.count("/") == 1,
        )

    async def step(self) -> None:
        """Something or other; what is refused changes nothing."""
        pick = self._chance
        names = [f"{root}/{name}" for root in ("stor", "public", "stor/d", "public/e") for name in "xyz"]
        path, other = pick.choice(names), pick.choice(names)
        directory, _, name = f"/{self.account}/{path}".rpartition("/")
        folder = pick.choice(["stor/d", "public/e"]).split("/")
        above = f"/{self.account}/{folder[0]}"
        does = [
            lambda: self.put(path, pick.choice([0, 10, 10, 5000]), pick.randint(1, 4)),
            lambda: self._store.delete_object(directory, name, precondition=ALWAYS),
            lambda: self._store.put_directory(above, Entry(folder[1], Kind.DIRECTORY, NOW), parent_is_root=True),
            lambda: self._store.delete_directory(above, folder[1]),
            lambda: self.link(other, path),
            lambda: self._store.put_metadata(
                directory, name, headers={"m-a": "b"}, role_tags=(), content_type=None, precondition=ALWAYS
            ),
        ]
        try:
            await pick.choices(does, weights=[8, 3, 2, 1, 2, 1])[0]()
        except MetadataError:
            return


Sums = dict[tuple[str, str], dict[str, int]]


async def truth(shards: shard.Shards) -> Sums:
    """What entries say, of all shards."""
    found: Sums = {}
    for number in NUMBERS:
        for row in await shards.sql(number, TRUTH):
            key = str(row.pop("account")), str(row.pop("namespace"))
            add(found, key, {name: int(str(value)) for name, value in row.items()})
    return found


def add(sums: Sums, key: tuple[str, str], more: dict[str, int]) -> None:
    into = sums.setdefault(key, defaultdict(int))
    for name, value in more.items():
        into[name] += value


async def used(metering: Metering, hour: int, kind: str = "storage", page: int = 2) -> dict[str, list[dict[str, Any]]]:
    """By account, of each shard that knows something of it: what it says once all is folded."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in NUMBERS:
        await fold_all(metering, number)
        after = ""
        while rows := await metering.page(number, hour, after, page):
            after = rows[-1].account
            for row in rows:
                if said := getattr(row, kind):
                    found[row.account].append(json.loads(said))
    return found


async def stored(metering: Metering, hour: int) -> Sums:
    found: Sums = {}
    for account, parts in (await used(metering, hour)).items():
        for part in parts:
            for namespace, sums in part.items():
                add(found, (account, namespace), sums)
    return found


def this_hour() -> int:
    return hour_of(dt.datetime.now(dt.UTC).timestamp())


async def test_what_is_stored_is_what_entries_say_whatever_changed_them_and_whoever_folds(
    shards: shard.Shards, store: PostgresMetadata, metering: Metering
) -> None:
    chance = random.Random(7)  # noqa: S311
    users = [User(store, chance) for _ in range(5)]
    folding = True

    async def fold() -> None:
        while folding:
            await asyncio.gather(*(metering.fold(number, 7) for number in NUMBERS))

    folders = [asyncio.create_task(fold()) for _ in range(2)]
    for _ in range(80):
        await asyncio.gather(*(user.step() for user in users for _ in range(2)))
    folding = False
    await asyncio.gather(*folders)
    wanted = await truth(shards)
    assert len(wanted) > len(users)
    assert any(sums["storedBytes"] > sums["bytes"] > 0 for sums in wanted.values())
    assert await stored(metering, this_hour()) == wanted


async def test_a_change_of_nothing_that_is_metered_costs_no_row(
    shards: shard.Shards, store: PostgresMetadata, metering: Metering
) -> None:
    user = User(store, random.Random(1))  # noqa: S311
    await user.put("stor/a", 10, 2)
    await user.put("stor/a", 10, 2)
    await store.put_metadata(
        f"/{user.account}/stor", "a", headers={}, role_tags=(), content_type=None, precondition=ALWAYS
    )
    assert sum([await metering.fold(number, 100) for number in NUMBERS]) == 1
    assert (await truth(shards))[str(user.account), "stor"]["storedBytes"] == 20


async def test_an_hour_is_what_was_there_at_its_end_until_it_is_closed(
    shards: shard.Shards, metering: Metering
) -> None:
    account, hour = str(uuid.uuid4()), await metering.first_hour()
    insert = "INSERT INTO metering.storage_delta VALUES ($1, 'stor', $2, 0, $3, $4, $5)"
    for at, objects in ((hour, 3), (hour + 1, -1), (hour + 3, 4)):
        await shards.sql(1, insert, account, at, objects, 10 * objects, 20 * objects)

    async def seen() -> list[int]:
        return [(await stored(metering, hour + n)).get((account, "stor"), {}).get("objects", 0) for n in range(-1, 5)]

    assert await seen() == [0, 3, 2, 2, 6, 6]
    while await metering.close_hours(1, hour + 1, 1):
        pass
    assert (await seen())[2:] == [2, 2, 6, 6]
    assert await metering.first_hour() == hour + 2
    while await metering.close_hours(1, hour + 3, 1000):
        pass
    assert (await stored(metering, hour + 3))[account, "stor"] == {
        "directories": 0, "objects": 6, "bytes": 60, "storedBytes": 120,
    }  # fmt: skip
    await shards.sql(1, "UPDATE metering.closed SET hour = $1", hour - 1)


async def test_what_was_there_before_metering_is_counted_once(
    shards: shard.Shards, store: PostgresMetadata, metering: Metering
) -> None:
    user = User(store, random.Random(1))  # noqa: S311
    await user.put("stor/a", 10, 2)
    await user.put("public/b", 7, 3)
    (ours,) = [m for m in migrations() if m.name == "metering"]
    for number in NUMBERS:
        await shards.sql_script(number, UNMETERED)
        await shards.sql_script(number, ours.sql)
        grant = "GRANT {0} ON ALL TABLES IN SCHEMA metering TO mobula; GRANT USAGE ON SCHEMA metering TO mobula"
        await shards.sql_script(number, grant.format("SELECT, INSERT, UPDATE, DELETE"))
    await user.put("stor/a", 11, 2)
    wanted = await truth(shards)
    assert wanted[str(user.account), "stor"]["storedBytes"] == 22
    assert await stored(metering, this_hour()) == wanted


async def test_requests_are_noted_once_however_often_and_late_they_are_said(metering: Metering) -> None:
    account, hour, processes = uuid.uuid4(), this_hour(), [uuid.uuid4(), uuid.uuid4()]
    number = metering.shard_of(account)
    few = Counted(account, hour, 1, {"GET": 1}, 0, 5)
    more = Counted(account, hour, 4, {"GET": 3, "PUT": 1}, 10, 15)
    for process, counts in ((0, few), (0, more), (0, more), (0, few), (1, few)):
        await metering.note_requests(number, processes[process], [counts])
    assert (await used(metering, hour, "requests"))[str(account)] == [
        {"type": {"GET": 4, "PUT": 1}, "bandwidth": {"in": 10, "out": 20}}
    ]
    assert str(account) not in await used(metering, hour + 1, "requests")


async def test_an_attempt_that_counts_is_metered_with_its_commit_and_only_once(
    store: PostgresMetadata, metering: Metering
) -> None:
    account, job = uuid.uuid4(), uuid.uuid4()
    door = PostgresJobDoor(store)
    number = door.shard_of(job)
    jobs = PostgresJobs(store, number)
    await door.create(job, Owner(account, "ann"), parse(b'{"phases": [{"exec": "wc", "memory": 256}]}'))
    await door.add(job, ["/ann/stor/a", "/ann/stor/b"])
    epoch = await jobs.lead()
    await jobs.begin(epoch, job)
    await jobs.dispatch(epoch, Dispatch(job, 0, 0, 2, [Work(0, "/ann/stor/a"), Work(0, "/ann/stor/b")]))
    first, second = [task.attempt for task in await jobs.open_tasks(job)]
    await jobs.hand_out(epoch, [first, second], "agent")
    results = [
        Result(first, seconds=1.5, memory_mb=256),
        Result(replace(second, number=7), seconds=99.0, memory_mb=256),
    ]
    for _ in range(2):
        await jobs.commit(epoch, results)
    assert (await used(metering, this_hour(), "compute"))[str(account)] == [
        {"tasks": 1, "milliseconds": 1500, "megabyteMilliseconds": 384_000}
    ]


async def test_the_system_account_is_made_once_and_logins_are_those_of_accounts(
    store: PostgresMetadata, metering: Metering
) -> None:
    from mobula.metadata.directory import SYSTEM_LOGIN, Directory  # noqa: PLC0415

    directory = Directory(store)
    system = await directory.system_account()
    assert await directory.system_account() == system
    (found,) = [account for account in (await directory.read()).accounts if account.uuid == system]
    assert (found.login, found.operator, dict(found.keys)) == (SYSTEM_LOGIN, True, {})
    assert await metering.logins([str(system), str(uuid.uuid4())]) == {str(system): SYSTEM_LOGIN}
