"""Pools are lost and brought back: real storage servers, a real webapi, two real shards."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from mobula.metadata import repair_admin
from mobula.metadata.model import StorageServer
from mobula.metadata.repairing import FIRST, Progress, RepairRefused, Repairs
from mobula.workers.mend import Mending
from mobula.workers.repair import PoolRepair, Step
from mobula.workers.servers import Liveness
from tests.probe import shard
from tests.probe.sharded import MortalRegion
from tests.region.signed import Client

pytestmark = pytest.mark.probe
FAST = 1 << 40
STEPS_MAX = 2000
LINK = "application/json; type=link"
ROWS = """
SELECT directory, name, object_id::text, account::text, size, encode(md5, 'hex') AS md5, group_id, copies, etag, mtime::text
FROM metadata.entry WHERE kind = 'object' AND size > 0
"""


@dataclass
class Stored:
    """What a path should give."""

    body: bytes
    etag: str
    mtime: str


@dataclass
class World:
    """A region with objects of one account, and its workers."""

    region: MortalRegion
    ann: Client
    repairs: Repairs
    objects: dict[str, Stored] = field(default_factory=dict)

    def put(self, path: str, body: bytes, copies: int = 2) -> None:
        answer = self.ann.put(path, body, durability_level=str(copies))
        assert answer.status == 204, answer
        self.objects[path] = Stored(body, answer.headers["etag"], answer.headers["last-modified"])

    def link(self, source: str, path: str) -> None:
        answer = self.ann.request("PUT", path, headers={"Content-Type": LINK, "Location": source})
        assert answer.status == 204, answer
        self.objects[path] = self.objects[source]

    def fill(self, count: int = 60, copies_max: int = 4) -> None:
        """Directories on both shards, objects of one to four copies, some large, some with several names."""
        pick = random.Random(count)  # noqa: S311
        for number in range(8):
            self.ann.mkdir(f"/ann/stor/d{number}")
        for number in range(count):
            size = pick.choice([1, 500, 5000, 5000, 70_000, 400_000])
            copies = copies_max if number < 8 else pick.choice([1, 2, 2, 2, 3])
            self.put(f"/ann/stor/d{number % 8}/o{number}", pick.randbytes(size), copies)
        for number in range(0, count, 7):
            self.link(f"/ann/stor/d{number % 8}/o{number}", f"/ann/stor/d{(number + 3) % 8}/l{number}")

    def rows(self) -> dict[str, dict[str, object]]:
        """Entries by path, as clients call it."""
        uuid_ = str(self.region.accounts.by_login["ann"].uuid)
        return {f"{r['directory']}/{r['name']}".replace(uuid_, "ann"): r for r in self.region.sql(ROWS)}

    def on(self, host: str) -> set[str]:
        """Paths whose objects have a copy on a host."""
        groups = self.region.groups()
        return {
            path for path, r in self.rows().items()
            if host in {s.id for s in groups[r["group_id"]].servers[: r["copies"]]}  # type: ignore[index, misc]
        }  # fmt: skip

    def only_on(self, *hosts: str) -> set[str]:
        """Paths whose objects have no copy elsewhere."""
        groups = self.region.groups()
        return {
            path for path, r in self.rows().items()
            if {s.id for s in groups[r["group_id"]].servers[: r["copies"]]} <= set(hosts)  # type: ignore[index, misc]
        }  # fmt: skip

    def alive(self) -> list[StorageServer]:
        return [server for server, _, _ in self.region.running.values()]

    def declare(self, host: str) -> uuid.UUID:
        return self.region.call(self.repairs.declare(host, self.alive(), FAST))

    def worker(self, number: int) -> PoolRepair:
        """As another one that takes over would begin."""
        return PoolRepair(self.repairs, self.region.storage, number, liveness=Liveness(self.region.storage, age_s=0))

    def work(self, *, each_new: bool = False) -> list[str]:
        """Until no worker finds anything to do; what they said last. `each_new`: each step is another worker's."""
        workers = {number: self.worker(number) for number in (1, 2)}
        said = []
        for _ in range(3):  # the first shard waits for the second one's listing
            said = []
            for number, worker in workers.items():
                for _ in range(STEPS_MAX):
                    step: Step = self.region.call((self.worker(number) if each_new else worker).step())
                    if not step.busy:
                        break
                said.append(step.what)
                assert not step.busy, f"the worker of shard {number} does not come to an end: {step.what}"
        return said

    def progress(self, host: str) -> Progress:
        found = self.region.call(self.repairs.progress(host))
        assert found is not None
        return found

    def lost(self, host: str) -> set[str]:
        """Paths that a repair names as lost, each with as many copies as its entry says."""
        repair, found = self.progress(host).id, dict[str, int]()
        for number in (1, 2):
            after = FIRST
            while page := self.region.call(self.repairs.lost(repair, number, after, 7)):
                found |= {lost.path: lost.copies for lost in page}
                after = (page[-1].vnode, page[-1].directory, page[-1].name)
        uuid_ = str(self.region.accounts.by_login["ann"].uuid)
        named, rows = {path.replace(uuid_, "ann"): copies for path, copies in found.items()}, self.rows()
        assert named == {path: rows[path]["copies"] for path in named}
        return set(named)

    def check_whole(self, lost: set[str]) -> None:
        """Every object but the lost ones has all its copies where its group says, and in enough AZs; they are as they were written."""
        groups, rows = self.region.groups(), self.rows()
        assert set(rows) == set(self.objects)
        for path, row in rows.items():
            servers = groups[row["group_id"]].servers[: row["copies"]]  # type: ignore[index, misc]
            assert len({s.az for s in servers[:3]}) == min(3, len(servers)), path
            stored = self.objects[path]
            if path in lost:
                assert self.ann.request("HEAD", path).status == 410
                answer = self.ann.get(path)
                assert (answer.status, answer.json()["code"]) == (410, "ObjectLost")
                continue
            for server in servers:
                file = (
                    self.region.folder / server.id / f"{row['account']}/{row['object_id']}.{row['size']}.{row['md5']}"
                )
                assert file.read_bytes() == stored.body, (path, server.id)
            answer = self.ann.get(path)
            assert (answer.status, answer.body) == (200, stored.body), path
            assert (answer.headers["etag"], answer.headers["last-modified"]) == (stored.etag, stored.mtime)


@pytest.fixture(scope="module")
def shards() -> Iterator[shard.Shards]:
    with shard.shards(2) as running:
        yield running


@pytest.fixture
def world(shards: shard.Shards, tmp_path: Path) -> Iterator[Callable[[int], World]]:
    """Makes a world of so many storage servers; the shards are empty at first."""
    with contextlib.ExitStack() as stack:

        def make(storages: int) -> World:
            for number in (1, 2):
                asyncio.run(shards.sql(number, EMPTY))
            region = MortalRegion(tmp_path, storages, shards=shards)
            region.start()
            stack.callback(region.stop)
            region.add_account("ann")
            return World(region, region.client("ann"), Repairs(region.tier))

        yield make


EMPTY = """
DO $$ DECLARE t text; BEGIN
  FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'metadata' LOOP EXECUTE 'TRUNCATE metadata.' || t; END LOOP;
END $$
"""


def check_sum(progress: Progress) -> None:
    """Everything that referred to the pool is accounted for."""
    t = progress.tally
    assert progress.done
    assert t.left == 0
    assert t.done_bytes == t.bytes


@pytest.mark.parametrize("storages", [4, 6, 7])
def test_what_a_lost_pool_held_is_brought_back(world: Callable[[int], World], storages: int) -> None:
    w = world(storages)
    w.fill()
    on, only = w.on("storage-0"), w.only_on("storage-0")
    w.put("/ann/stor/none", b"")  # has no bytes, so nothing to bring back
    empty = w.objects.pop("/ann/stor/none")
    before = w.rows()
    gone = w.region.lose("storage-0")
    w.declare("storage-0")
    said = w.work()
    progress = w.progress("storage-0")
    if not progress.done:  # fourth copies have nowhere to go until the host is back
        assert 0 < progress.tally.left <= len([p for p in on if before[p]["copies"] == 4])
        assert any("storage-0 does not answer" in text for text in said)
        w.region.bring_back(gone)
        w.work()
        progress = w.progress("storage-0")
    else:
        assert storages > 4
    check_sum(progress)
    assert progress.tally.objects == len({before[path]["object_id"] for path in on})
    assert progress.tally.lost == len({before[path]["object_id"] for path in only})
    assert progress.tally.copied == progress.tally.objects - progress.tally.lost
    assert progress.tally.bytes == sum({str(before[p]["object_id"]): int(str(before[p]["size"])) for p in on}.values())
    assert w.lost("storage-0") == only
    assert w.rows() == before
    w.check_whole(only)
    assert w.ann.get("/ann/stor/none").headers["etag"] == empty.etag
    assert not any(s.id == "storage-0" for g in w.region.groups().values() for s in g.servers[:3])


def test_in_a_region_with_one_host_per_az_it_waits_for_the_empty_pool(world: Callable[[int], World]) -> None:
    w = world(3)
    w.fill(30, copies_max=3)
    on, only, before = w.on("storage-1"), w.only_on("storage-1"), w.rows()
    gone = w.region.lose("storage-1")
    w.declare("storage-1")
    assert all("storage-1 does not answer" in text for text in w.work())
    assert w.progress("storage-1").tally.left == w.progress("storage-1").tally.objects
    for path in on - only:
        assert w.ann.get(path).body == w.objects[path].body
    for path in only:
        assert w.ann.get(path).status == 503  # nobody can say yet that it is lost
    w.region.bring_back(gone)
    w.work()
    check_sum(w.progress("storage-1"))
    assert w.lost("storage-1") == only
    assert w.rows() == before
    w.check_whole(only)


def test_lost_objects_can_be_deleted_and_written_again(world: Callable[[int], World]) -> None:
    w = world(6)
    w.fill()
    while len(only := sorted(w.only_on("storage-3"))) < 3:
        w.put(f"/ann/stor/single{len(w.objects)}", os.urandom(100), 1)
    gone = w.region.lose("storage-3")
    w.declare("storage-3")
    w.region.bring_back(gone)
    w.work()
    assert w.ann.request("DELETE", only[0]).status == 204
    del w.objects[only[0]]
    w.put(only[1], b"again")
    w.check_whole(set(only[2:]))


def test_two_pools_lost_before_a_repair_lose_exactly_what_lay_on_both(world: Callable[[int], World]) -> None:
    w = world(6)
    w.fill(120)
    both, ones = w.only_on("storage-1", "storage-5"), (w.only_on("storage-1"), w.only_on("storage-5"))
    assert len(both - ones[0] - ones[1]) > 0
    gone = [w.region.lose(host) for host in ("storage-1", "storage-5")]
    w.declare("storage-1")
    w.work()  # one is away and not declared: what only that one could have is waited for
    assert w.lost("storage-1") == ones[0]
    w.declare("storage-5")
    w.work()
    for server in gone:
        w.region.bring_back(server)
    w.work()
    for host in ("storage-1", "storage-5"):
        check_sum(w.progress(host))
    assert w.lost("storage-1") | w.lost("storage-5") == both
    w.check_whole(both)


@pytest.mark.parametrize("seed", range(4))
def test_workers_that_are_killed_anywhere_lose_nothing(world: Callable[[int], World], seed: int) -> None:
    """Each step by another worker, many of them broken off in their midst."""
    pick = random.Random(seed)  # noqa: S311
    w = world(7)
    w.fill(80)
    on, only, before = w.on("storage-2"), w.only_on("storage-2"), w.rows()
    gone = w.region.lose("storage-2")

    async def broken_off(number: int) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pick.random() * 0.05):
                await w.worker(number).step()

    async def declared_in_part() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pick.random() * 0.03):
                await w.repairs.declare("storage-2", w.alive(), FAST)

    for _ in range(5):
        w.region.call(declared_in_part())
        w.region.call(broken_off(pick.choice((1, 2))))
    w.declare("storage-2")
    for _ in range(40):
        w.region.call(broken_off(pick.choice((1, 2))))
    w.region.bring_back(gone)
    w.work(each_new=True)
    progress = w.progress("storage-2")
    check_sum(progress)
    assert progress.tally.objects == len({before[path]["object_id"] for path in on})
    assert w.lost("storage-2") == only
    assert w.rows() == before
    w.check_whole(only)
    assert all(not any((w.region.folder / f"storage-{n}" / "tmp").iterdir()) for n in range(7))


def test_a_declaration_that_reached_one_shard_reaches_the_other_by_its_worker(world: Callable[[int], World]) -> None:
    w = world(6)
    w.fill(20)
    gone = w.region.lose("storage-0")
    w.region.call(w.repairs._declare_first("storage-0", w.alive(), FAST))
    assert [p.state for p in w.region.call(w.repairs.of_shard(2, open_only=False))] == []
    w.region.bring_back(gone)
    w.work()
    check_sum(w.progress("storage-0"))
    sql = "SELECT id, epoch, servers FROM metadata.placement_group ORDER BY id"
    rows = [asyncio.run(w.region.shards.sql(number, sql)) for number in (1, 2)]
    assert rows[0] == rows[1]


def test_what_clients_do_meanwhile_wins(world: Callable[[int], World]) -> None:
    """Writes, overwrites, deletes and links beside the repair: all that was acknowledged is true at the end, and no copy is missing."""
    w = world(7)
    w.fill(100)
    w.region.lose("storage-4")
    over, refused = threading.Event(), []
    paths = sorted(w.objects)

    def busy(seed: int) -> dict[str, Stored | None]:
        """What this client's own paths are at its end."""
        pick, client, mine = random.Random(seed), w.region.client("ann"), paths[seed::4]  # noqa: S311
        state: dict[str, Stored | None] = {path: w.objects[path] for path in mine}
        number = 0
        while not over.is_set():
            path, number = pick.choice(mine), number + 1
            if pick.random() < 0.2:
                answer = client.request("DELETE", path)
                assert answer.status in (204, 404)
                state[path] = None
            elif pick.random() < 0.2 and (source := state[pick.choice(mine)]) is not None:
                where = next(p for p in mine if state[p] is source)
                answer = client.request("PUT", path, headers={"Content-Type": LINK, "Location": where})
                state[path] = source if answer.status == 204 else state[path]
            elif pick.random() < 0.4:
                body = pick.randbytes(pick.choice([10, 5000, 300_000]))
                answer = client.put(path, body, durability_level=str(pick.choice([1, 2, 3])))
                if answer.status == 204:
                    state[path] = Stored(body, answer.headers["etag"], answer.headers["last-modified"])
            else:
                answer, wanted = client.get(path), state[path]
                if answer.status == 200:
                    assert wanted is not None
                    assert answer.body == wanted.body
            if answer.status == 503:
                refused.append(answer)
        return state

    with ThreadPoolExecutor(4) as pool:
        states = [pool.submit(busy, seed) for seed in range(4)]
        w.declare("storage-4")
        try:
            w.work()
        finally:
            over.set()
        ended = [state.result(30) for state in states]
    w.objects = {path: stored for state in ended for path, stored in state.items() if stored is not None}
    progress = w.progress("storage-4")
    lost = w.lost("storage-4")
    still_lost = {path for path in lost if path in w.objects and w.ann.request("HEAD", path).status == 410}
    assert progress.tally.left == 0 or progress.tally.left <= 8
    assert progress.tally.changed > 0
    w.check_whole(still_lost)
    assert not [a for a in refused if "were changed while" in a.json()["message"]]


def mend(w: World) -> list[str]:
    said = []
    for number in (1, 2):
        worker = Mending(
            w.repairs,
            w.region.tier,
            w.region.storage,
            number,
            liveness=Liveness(w.region.storage, age_s=0),
            ask_period_s=0,
        )
        said.append(w.region.call(worker.step()).what)
    return said


def copies_of(w: World, path: str) -> list[Path]:
    row = w.rows()[path]
    name = f"{row['account']}/{row['object_id']}.{row['size']}.{row['md5']}"
    return [file for n in range(3) if (file := w.region.folder / f"storage-{n}" / name).exists()]


@pytest.mark.parametrize("size", [100, 200_000])
def test_a_single_copy_that_is_missing_or_wrong_is_mended(world: Callable[[int], World], size: int) -> None:
    """What a GET meets: noted when it is missing, put aside and told by its server when it is wrong."""
    w = world(3)
    for how in ("missing", "wrong"):
        path, body = f"/ann/stor/{how}", os.urandom(size)
        w.put(path, body, 3)
        for file in copies_of(w, path)[:1]:  # that of the webapi's own AZ, which is asked first
            if how == "missing":
                file.unlink()
            else:
                file.write_bytes(b"?" * size)
        assert w.ann.get(path).body == body
        w.region.call(w.repairs.note(w.region.notes.take()))
        mend(w)
        for file in copies_of(w, path):
            assert hashlib.md5(file.read_bytes()).hexdigest() == file.name.split(".")[2]  # noqa: S324
    w.check_whole(set())
    assert mend(w) == ["no copy is known to be missing or wrong"] * 2


def test_a_copy_that_has_no_other_is_given_up_and_one_whose_other_is_away_is_not(world: Callable[[int], World]) -> None:
    w = world(3)
    for name in ("deleted", "waits"):
        w.put(f"/ann/stor/{name}", os.urandom(100), 2)
        for file in copies_of(w, f"/ann/stor/{name}")[:1]:
            file.write_bytes(b"?" * 100)
    row = w.rows()["/ann/stor/waits"]
    assert w.ann.get("/ann/stor/deleted").status == 200
    for file in copies_of(w, "/ann/stor/deleted"):
        file.unlink()
    assert w.ann.get("/ann/stor/deleted").status == 503
    w.region.call(w.repairs.note(w.region.notes.take()))
    mend(w)
    mend(w)
    left = w.region.sql("SELECT object_id::text FROM metadata.mend")
    assert {r["object_id"] for r in left} <= {row["object_id"]}


def test_what_can_t_be_declared_is_refused(world: Callable[[int], World]) -> None:
    w = world(3)
    w.fill(10, copies_max=3)
    with pytest.raises(RepairRefused, match="no placement group has a place on it"):
        w.declare("storage-9")


def test_a_second_declaration_goes_on_with_the_first_one(world: Callable[[int], World]) -> None:
    w = world(7)
    w.fill(20)
    w.region.lose("storage-0")
    first = w.declare("storage-0")
    groups = w.region.groups()
    assert w.declare("storage-0") == first
    assert w.region.groups() == groups
    servers = [*w.alive()]
    assert w.region.call(w.region.tier.region_init(servers, 2))[0] is False  # `up` meanwhile leaves the groups alone
    assert w.region.groups() == groups


def test_the_operators_verbs(world: Callable[[int], World]) -> None:
    """What is not lost is refused; what is lost is declared, followed, named, and shown again afterwards."""
    w = world(3)
    verbs = repair_admin.Verbs(w.region.tier, w.region.storage)

    def declare(host: str) -> dict[str, object]:
        return w.region.call(verbs.declare(repair_admin.RepairDeclare(host, FAST)))

    with pytest.raises(RepairRefused, match="nothing that the metadata knows of"):
        declare("storage-1")
    w.fill(30, copies_max=3)
    only = w.only_on("storage-1")
    with pytest.raises(RepairRefused, match=r"its pool is not lost: it answers, and has \d+ of \d+ objects"):
        declare("storage-1")
    with pytest.raises(RepairRefused, match="those with places are storage-0, storage-1, storage-2"):
        declare("storage-9")
    with pytest.raises(RepairRefused, match="never declared lost"):
        w.region.call(verbs.status(repair_admin.RepairStatus("storage-1")))
    gone = w.region.lose("storage-1")
    assert declare("storage-1")["declared"] is True
    assert declare("storage-1")["declared"] is False
    w.work()
    status = w.region.call(verbs.status(repair_admin.RepairStatus("storage-1")))
    assert (status["waits_for"], status["done"]) == (["storage-1"], False)
    w.region.bring_back(gone)
    w.work()
    status = w.region.call(verbs.status(repair_admin.RepairStatus("storage-1")))
    assert (status["waits_for"], status["done"], status["left"]) == ([], True, 0)
    pages = [w.region.call(verbs.lost(repair_admin.RepairLost("storage-1", number))) for number in (1, 2)]
    assert {page["next"] for page in pages} == {None}
    assert len([lost for page in pages for lost in page["lost"]]) == len(only)
    again = declare("storage-1")
    assert again["declared"] is False
    assert str(again["why"]).startswith("nothing more is lost")
    assert again["done"] is True


def test_an_empty_pool_that_already_takes_new_objects_is_lost_all_the_same(world: Callable[[int], World]) -> None:
    w = world(3)
    w.fill(40, copies_max=3)
    only = w.only_on("storage-2")
    w.region.bring_back(w.region.lose("storage-2"))
    w.region.wait_seen("storage-2")
    for number in range(5):
        w.put(f"/ann/stor/new{number}", os.urandom(50), 3)
    verbs = repair_admin.Verbs(w.region.tier, w.region.storage)
    assert w.region.call(verbs.declare(repair_admin.RepairDeclare("storage-2", FAST)))["declared"] is True
    w.work()
    progress = w.progress("storage-2")
    check_sum(progress)
    assert progress.tally.present >= 5
    assert w.lost("storage-2") == only
    w.check_whole(only)
