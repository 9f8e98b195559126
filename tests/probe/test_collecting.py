"""The workers on real shards and storage servers: what is dropped goes, what has a name stays, whoever is away or dies when."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
import pytest_asyncio

from mobula.core.clock import ManualClock
from mobula.metadata import two_shards
from mobula.metadata.collecting import LONG_AGO, Collecting, Reference, Undecided
from mobula.metadata.model import SourceChanged, Unavailable
from mobula.metadata.shard_map import vnode_of
from mobula.wire.zookeeper import Client
from mobula.workers import collector as collector_module
from mobula.workers.app import Worker
from mobula.workers.config import Pace, WorkerConfig
from tests.contract.webapi.local import KEY_TEXT
from tests.probe import garbage, shard
from tests.probe.garbage import AT_ONCE, Region, account_on, shard_of, until
from tests.probe.shard import HOUR

pytestmark = pytest.mark.probe

OLD = dt.timedelta(hours=7)
QUICK = Pace(grace_s=0.001, commit_deadline_s=1.5)
"""what is two seconds old may be an orphan"""


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest_asyncio.fixture
async def region(shards: shard.Shards, tmp_path: Path) -> AsyncIterator[Region]:
    async with garbage.region(shards, tmp_path) as made:
        yield made


# the collector


async def test_what_was_dropped_or_replaced_goes_after_the_grace_and_the_counters_balance(region: Region) -> None:
    kept, dropped = await region.put("kept"), [await region.put("a"), await region.put("b"), await region.put("b")]
    await region.delete("a")
    await region.collect(Pace(grace_s=3600))
    assert all(region.has(entry) for entry in dropped)
    before = await region.counts()
    assert (before.waiting_objects, before.collected_objects) == (2, 0)
    assert before.waiting_bytes == sum(entry.size_bytes for entry in dropped[:2])
    await region.collect()
    assert [region.has(entry) for entry in (kept, *dropped)] == [True, False, False, True]
    after = await region.counts()
    assert (after.waiting_objects, after.waiting_bytes, after.collected_objects) == (0, 0, 2)
    assert (after.dropped_objects, after.dropped_bytes) == (before.dropped_objects, before.dropped_bytes)


async def test_copies_that_are_gone_already_are_no_obstacle(region: Region) -> None:
    entry = await region.put("a")
    for host in region.hosts.values():
        for path in host.files.glob(f"*/{entry.object_id}*"):
            path.unlink()
    await region.delete("a")
    await region.collect()
    assert (await region.counts()).collected_objects == 1


@pytest.mark.parametrize("batch", [3, 30])
@pytest.mark.parametrize("how", ["away", "hung"])
async def test_a_server_that_is_down_keeps_its_rows_and_holds_up_nobody_else(
    region: Region, how: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector_module, "DELETE_S", 0.2)
    down = next(iter(region.hosts.values()))
    entries = [await region.put(f"{n}") for n in range(30)]
    for n in range(30):
        await region.delete(f"{n}")
    stays = {str(e.object_id) for e in entries if down.server.id in region.files()[str(e.object_id)]}
    assert 0 < len(stays) < 30
    setattr(down, how, True)
    clock = ManualClock()
    pace = Pace(grace_s=0.001, batch=batch)
    collectors = [region.collector(number, pace, clock) for number in region.numbers]
    for _ in range(40):
        for collector in collectors:
            await collector.turn()
    assert {name for name, where in region.files().items() if down.server.id in where} == stays
    assert (await region.counts()).waiting_objects == len(stays)
    said = "; ".join(collector.says for collector in collectors)
    assert f"{down.server.id} is away: " in said
    # Left alone while it is away: but for those that were asked at the same time.
    assert 0 < down.asked.count("DELETE") <= collector_module.DELETES_MAX
    setattr(down, how, False)
    clock.advance(120)
    for _ in range(40):
        for collector in collectors:
            await collector.turn()
    assert not region.files()
    assert (await region.counts()).waiting_objects == 0


async def test_a_row_whose_group_changes_on_the_way_waits_for_the_new_servers(region: Region) -> None:
    entry = await region.put("a")
    number = shard_of(region.stor)
    await region.delete("a")
    change = "UPDATE metadata.placement_group SET epoch = epoch + 1"

    class Changing(Collecting):
        async def collect(self, shard: int, *args: Any) -> tuple[int, int]:
            await region.sql(change)
            return await super().collect(shard, *args)

    collector = region.collector(number, collecting=Changing(region.metadata))
    await collector.turn()
    assert (await region.counts()).waiting_objects == 1
    # The bytes have come to another server meanwhile, as a repair would bring them.
    assert not region.has(entry)
    host = region.hosts[(await region.metadata._read_groups(1))[entry.group - 1].servers[0].id]
    (host.files / str(entry.account) / f"{entry.object_id}.{entry.size_bytes}.{entry.md5.hex()}").write_bytes(b"x")
    await region.collect()
    assert not region.has(entry)
    assert (await region.counts()).waiting_objects == 0


async def test_a_garbage_row_of_what_an_entry_names_is_not_believed_and_holds_up_nobody(region: Region) -> None:
    kept = await region.put("kept")
    # Somebody's mistake, on the shard that does not have the entry.
    other = 3 - shard_of(region.stor)
    await region.shards.sql(
        other, "INSERT INTO metadata.garbage (vnode, account, object_id, size, md5, group_id, copies, dropped_at) "
        "VALUES (0, $1, $2, $3, $4, $5, 2, now() - interval '1 day')",
        kept.account, kept.object_id, kept.size_bytes, kept.md5, kept.group,
    )  # fmt: skip
    region.account = account_on(other)
    dropped = await region.put("dropped")
    await region.delete("dropped")
    collector = region.collector(other, Pace(grace_s=0.001, batch=1))
    for _ in range(5):
        await collector.turn()
    assert (region.has(kept), region.has(dropped)) == (True, False)
    assert "run mobula audit" in collector.wrong
    assert collector.wrong in collector.says


async def test_garbage_in_a_group_that_nobody_knows_is_said(region: Region) -> None:
    entry = await region.put("a")
    await region.delete("a")
    await region.sql("UPDATE metadata.garbage SET group_id = 99")
    collector = region.collector(shard_of(region.stor))
    await collector.turn()
    assert region.has(entry)
    assert "99" in collector.wrong


async def test_a_shard_without_a_lease_collects_nothing_and_neither_do_the_others(region: Region) -> None:
    entry = await region.put("a")
    await region.delete("a")
    other = 3 - shard_of(region.stor)
    region.metadata._deadline_s = 0.5
    await region.shards.lease(other, -HOUR)
    try:
        with pytest.raises(Unavailable):
            await region.collector(shard_of(region.stor)).turn()
        assert region.has(entry)
    finally:
        await region.shards.lease(other, HOUR)
    await region.collect()
    assert not region.has(entry)


async def test_two_collectors_of_a_shard_at_once_do_no_harm_and_count_once(region: Region) -> None:
    kept = [await region.put(f"k{n}") for n in range(5)]
    for n in range(20):
        await region.put(f"{n}")
        await region.delete(f"{n}")
    collectors = [region.collector(shard_of(region.stor), Pace(grace_s=0.001, batch=5)) for _ in range(3)]
    for _ in range(8):
        await asyncio.gather(*(collector.turn() for collector in collectors), return_exceptions=False)
    counts = await region.counts()
    assert (counts.waiting_objects, counts.collected_objects) == (0, 20)
    assert set(region.files()) == {str(entry.object_id) for entry in kept}


# links


async def test_shared_bytes_stay_until_the_last_name_goes_whichever_that_is(region: Region) -> None:
    elsewhere = f"/{account_on(3 - shard_of(region.stor))}/stor"
    for first in ("source", "near", "far"):
        entry = await region.put("source")
        await region.link("source", "near")
        await region.link("source", "far", elsewhere)
        names = {"source": region.stor, "near": region.stor, "far": elsewhere}
        order = [first, *(name for name in names if name != first)]
        for name in order:
            await region.collect()
            assert await region.whole(entry)
            await region.metadata.delete_object(names[name], name, precondition=garbage.ALWAYS)
        await region.collect()
        assert not region.has(entry)
    counts = await region.counts()
    assert (counts.collected_objects, counts.collected_names, counts.waiting_names) == (3, 9, 0)
    assert await region.sql("SELECT FROM metadata.reference") == []


async def test_names_whose_home_is_away_wait_and_hold_up_nobody(region: Region) -> None:
    number = shard_of(region.stor)
    entries = []
    for n in range(12):
        entries.append(await region.put(f"{n}"))
        await region.link(f"{n}", f"l{n}")
        for name in (f"{n}", f"l{n}"):
            await region.delete(name)
    homes = {str(e.object_id): region.collecting.home(e.object_id) for e in entries if e.object_id}
    assert set(homes.values()) == {1, 2}
    clock = ManualClock()
    region.metadata._deadline_s = 0.5

    class HomeAway(Collecting):
        async def give_up(self, home: int, *args: Any) -> int:
            if home != number:
                raise Unavailable("away")
            return await super().give_up(home, *args)

    collector = region.collector(number, Pace(grace_s=0.001, batch=2), clock, HomeAway(region.metadata))
    for _ in range(40):
        await collector.turn()
    await region.collector(number).turn()
    waiting = sum(home != number for home in homes.values())
    assert (await region.counts()).waiting_names in {2 * waiting, 0}
    await region.collect()
    assert not region.files()


async def forgotten(region: Region) -> None:
    """All references are as old as the sweeper wants them."""
    await region.sql("UPDATE metadata.reference SET made_at = made_at - $1::interval", OLD)


async def sweep_references(region: Region) -> None:
    for number in region.numbers:
        while await region.sweeper(number).references():
            pass


async def left_references(region: Region) -> int:
    return len(await region.sql("SELECT FROM metadata.reference"))


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("dropped_first", [True, False])
async def test_a_link_that_broke_off_neither_costs_its_source_nor_keeps_its_bytes(
    region: Region, steps: int, dropped_first: bool
) -> None:
    """Steps 1: the references are there; 2: the source's entry has its own too."""
    entry = await region.put("source")
    await region.break_link("source", steps)
    await sweep_references(region)
    assert await left_references(region) == 2  # too young to tell
    if dropped_first:
        await region.delete("source")
    await forgotten(region)
    await region.collect()
    await sweep_references(region)
    await region.collect()
    if dropped_first:
        assert await left_references(region) == 0
    else:
        assert await region.whole(entry)
        assert await left_references(region) == steps - 1
        await region.link("source", "again")
        await region.delete("source")
        await forgotten(region)
        await sweep_references(region)
        await region.collect()
        again = await region.look("again")
        assert again is not None
        assert await region.whole(again)
        await region.delete("again")
        await region.collect()
        assert await left_references(region) == 0
    await sweep_files(region)
    assert not region.has(entry)


async def test_references_of_names_that_live_are_looked_at_once_and_stay(region: Region) -> None:
    await region.put("a")
    await region.link("a", "b")
    await forgotten(region)
    await sweep_references(region)
    assert {row["confirmed"] for row in await region.sql("SELECT confirmed FROM metadata.reference")} == {True}
    for number in region.numbers:
        assert await region.collecting.unconfirmed(number, older_s=1, after=LONG_AGO, limit=9) == []
    await region.delete("a")
    await region.delete("b")
    await region.collect()
    assert await left_references(region) == 0


async def test_a_name_that_was_dropped_and_waits_to_be_given_up_is_left_to_the_collector(region: Region) -> None:
    await region.put("a")
    await region.link("a", "b")
    await region.delete("a")
    await region.delete("b")
    await forgotten(region)
    await sweep_references(region)
    assert await left_references(region) == 2
    await region.collect()
    assert (await left_references(region), (await region.counts()).collected_objects) == (0, 1)


async def test_a_link_that_comes_back_to_an_old_reference_saves_it_from_the_sweeper(region: Region) -> None:
    entry = await region.put("a")
    assert entry.object_id is not None
    home = region.collecting.home(entry.object_id)
    vnode = vnode_of(str(entry.object_id))
    # As a link that died after its first step has left it.
    await region.shards.sql(
        home, "INSERT INTO metadata.reference (vnode, object_id, reference, directory, name, made_at) "
        "VALUES ($1, $2, $2, $3, 'a', now() - $4::interval)", vnode, entry.object_id, region.stor, OLD,
    )  # fmt: skip
    looked: dict[Reference, bool] = {}

    class Slow(Collecting):
        async def settle(self, shard: int, wanted: Any) -> int:
            looked.update(wanted)
            await region.link("a", "b")  # between look and deletion
            return await super().settle(shard, wanted)

    sweeper = region.sweeper(home)
    sweeper._collecting = Slow(region.metadata)
    await sweeper.references()
    assert list(looked.values()) == [False]
    assert await left_references(region) == 2
    await region.delete("b")
    await region.collect()
    assert await region.whole(entry)


# files that nothing names


async def sweep_files(region: Region) -> None:
    """A walk over all hosts, when all that is there is old enough."""
    await region.aged(QUICK)
    for host in region.hosts:
        await region.file_sweeper(host, QUICK).turn()


async def test_old_files_without_a_name_go_and_all_others_stay(region: Region) -> None:
    orphan = await region.store(b"nobody's")
    named, dropped = await region.put("named"), await region.put("dropped")
    shared, released = await region.put("shared"), await region.put("released")
    await region.link("shared", "link")
    await region.link("released", "gone")
    for name in ("dropped", "shared", "released", "gone"):
        await region.delete(name)
    young = region.file_sweeper(next(iter(region.hosts)), AT_ONCE)
    await young.turn()
    assert region.has(orphan)
    await sweep_files(region)
    assert not region.has(orphan)
    assert all(region.has(entry) for entry in (named, dropped, shared, released))
    assert len(region.files()) == 4
    await region.collect()
    assert {str(named.object_id), str(shared.object_id)} == set(region.files())


async def test_while_a_shard_says_nothing_no_file_is_an_orphan(region: Region) -> None:
    orphan = await region.store(b"nobody's")
    region.metadata._deadline_s = 0.5
    for number in region.numbers:
        await region.shards.lease(number, -HOUR)
        try:
            with pytest.raises(Unavailable):
                await sweep_files(region)
            assert region.has(orphan)
        finally:
            await region.shards.lease(number, HOUR)
    await sweep_files(region)
    assert not region.has(orphan)


async def test_while_an_old_transaction_goes_on_nothing_is_concluded_from_what_is_not_there(region: Region) -> None:
    stored = await region.store(b"its commit waits for a standby")
    assert stored.object_id is not None
    p = region.shards.postgres
    server = region.shards.servers[shard_of(region.stor) - 1]
    connection = await asyncpg.connect(
        host=server.address, port=server.port, user=p.user, database=p.database, ssl=p.context()
    )
    try:
        waiting = connection.transaction()
        await waiting.start()
        await connection.execute(
            "INSERT INTO metadata.entry (vnode, directory, name, kind, mtime, size, md5, object_id, account, group_id, copies) "
            "VALUES ($1, $2, 'a', 'object', now(), $3, $4, $5, $6, $7, 2)",
            vnode_of(region.stor), region.stor, stored.size_bytes, stored.md5, stored.object_id, stored.account, stored.group,
        )  # fmt: skip
        with pytest.raises(Undecided, match="may still be committed"):
            await sweep_files(region)
        reference = Reference(0, stored.object_id, uuid.uuid4(), region.stor, "a", dt.datetime.now(dt.UTC))
        with pytest.raises(Undecided):
            await region.collecting.holds(reference, patience_s=0.01)
        await waiting.commit()
    finally:
        await connection.close()
    await sweep_files(region)
    assert region.has(stored)


async def test_bytes_whose_name_moves_while_the_shards_are_asked_are_known(region: Region) -> None:
    """Asked where it is not yet, then moved there, then asked where it is no more: each time it is missed, were it not for the home."""
    here = shard_of(region.stor)
    elsewhere = f"/{account_on(3 - here)}/stor"
    homes: set[int] = set()
    while homes != {1, 2}:
        entry = await region.put("a")
        assert entry.object_id is not None

        class Moving(Collecting):
            moves = 0

            async def _known(self, shard: int, objects: Any, patience_s: float) -> set[uuid.UUID]:
                if shard != here:
                    return await super()._known(shard, objects, patience_s)
                # The other shard has answered by now: all this goes on before this one is asked.
                await asyncio.sleep(0.1)
                if not self.moves:
                    await region.link("a", "b", elsewhere)
                    await region.delete("a")
                    await region.collect()
                self.moves += 1
                return await super()._known(shard, objects, patience_s)

        moving = Moving(region.metadata)
        assert await moving.unknown([entry.object_id], patience_s=60) == set()
        home = region.collecting.home(entry.object_id)
        # A home that was asked with the first ones said no, too: it is the second round that finds the reference.
        assert moving.moves == (1 if home == here else 2)
        homes.add(home)
        await region.metadata.delete_object(elsewhere, "b", precondition=garbage.ALWAYS)
        await region.collect()
        assert await moving.unknown([entry.object_id], patience_s=60) == {entry.object_id}


async def test_more_orphans_than_there_may_be_end_the_walk_and_are_said(region: Region) -> None:
    for n in range(12):
        await region.store(f"{n}".encode())
    host = next(iter(region.hosts))
    sweeper = region.file_sweeper(host, msgspec.structs.replace(QUICK, orphans_max=2))

    def here() -> int:
        return sum(host in where for where in region.files().values())

    await region.aged(QUICK)
    count = here()
    for left in (count - 2, count - 4):
        await sweeper.turn()
        assert here() == left
        assert "more than 2 orphans" in sweeper.wrong
        assert sweeper.wrong in sweeper.says
    while here():
        await sweeper.turn()
    await sweeper.turn()
    assert not sweeper.wrong


async def test_half_done_directories_are_finished(region: Region) -> None:
    path = f"{region.stor}/d"
    row = await region.metadata._step(two_shards.Begin(), path, None, asyncio.get_running_loop().time() + 1e6)
    assert row.state is two_shards.State.CREATING
    sweeper = region.sweeper(shard_of(path))
    assert not await sweeper.directories()
    await region.sql("UPDATE metadata.directory SET changed_at = changed_at - interval '2 min'")
    assert await sweeper.directories()
    assert await region.sql("SELECT FROM metadata.directory") == []


# the service


async def test_two_workers_share_the_duties_and_one_goes_on_when_the_other_ends(region: Region, tmp_path: Path) -> None:
    key = tmp_path / "worker.key"
    key.write_text(KEY_TEXT)
    client = Client([region.shards.zookeeper.address])
    client.start()
    await client.wait_connected(10)
    for name, host in region.hosts.items():
        data = {"address": "127.0.0.1", "port": host.server.port, "ttl": 5}
        await client.create(f"/names/storage/{name}", msgspec.json.encode(data), ephemeral=True)
    workers = [
        Worker(
            WorkerConfig(
                region="test", host=f"api-{n}", az="a", address="127.0.0.1", status_port=0, zookeeper=(region.shards.zookeeper.address,),
                postgres=region.shards.postgres, capability_keys=(str(key),), grace_s=0.1, poll_s=0.1, commit_deadline_s=3.0,
                sweep_pause_s=0.2,
            )
        )
        for n in range(2)
    ]  # fmt: skip
    kinds = ("collector", "sweeper", "repair", "mending", "usage")
    wanted = {f"shard-{n} {kind}" for n in (1, 2) for kind in kinds} | {f"files-{h} files" for h in region.hosts}
    wanted.add("usage reports")

    def duties(*of: Worker) -> list[str]:
        return [name for worker in of for name in worker.status()["duties"]]  # type: ignore[attr-defined]

    try:
        for worker in workers:
            await worker.start()
        await until(lambda: set(duties(*workers)) == wanted)
        assert len(duties(*workers)) == len(wanted)
        assert all(worker.status()["healthy"] for worker in workers)
        kept, dropped, orphan = await region.put("kept"), await region.put("dropped"), await region.store(os.urandom(9))
        await region.delete("dropped")
        await until(lambda: not region.has(dropped))
        await workers[0].stop()
        assert not duties(workers[0])
        await until(lambda: set(duties(workers[1])) == wanted)
        replaced = await region.put("kept")
        await until(lambda: not region.has(kept) and not region.has(orphan))
        assert region.has(replaced)
        assert await region.whole(replaced)
    finally:
        await workers[1].stop()
        await client.stop()


async def test_a_link_of_what_was_replaced_meanwhile_leaves_nothing_for_ever(region: Region) -> None:
    old = await region.put("a")
    found = await region.look("a")
    await region.put("a")
    assert found is not None
    with pytest.raises(SourceChanged):
        await region.metadata.link_object(
            region.stor,
            found,
            region.stor,
            replace(found, name="b", reference=None),
            group_epoch=1,
            parent_is_root=True,
        )
    await forgotten(region)
    await sweep_references(region)
    await region.collect()
    assert await left_references(region) == 0
    assert not region.has(old)
    counts = await region.counts()
    assert (counts.waiting_objects, counts.collected_objects) == (0, 1)
