"""Faults: what each does at the edge (SSH, nft, machines), what it says of itself, and the note of what stands."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mobula.lab import faults as lab
from mobula.lab.faults import Drop, Kind
from mobula.lab.network import LabError, NotThere
from ops import provision
from ops.drills import fault as hands
from ops.drills import faults, standing, storage_faults
from ops.drills.client import known_body
from ops.drills.fault import Fault, unit_of
from ops.drills.faults import BOOTING, Cut, Degrade, Freeze, Kill, Pause, Power, Stop
from ops.drills.standing import Standing
from ops.drills.storage_faults import FailDisks, Full, LosePool, RotDisk, RotFiles, SparesIn
from ops.errors import OperatorError
from ops.region import Region
from ops.remote import RemoteError, Result
from tests.drills import region_in

WAYS = ((1, 2), (2, 1))
OBJECTS = ("/demo/stor/drills/x/d0/known000", "/demo/stor/drills/x/d0/known-cold000")
A, B, C = "lab-a-api-01", "lab-b-api-01", "lab-c-api-01"
STORAGE, META = "lab-a-storage-01", "lab-a-metadata-01"
ADDRESS = {A: "10.77.1.21", B: "10.77.2.21", C: "10.77.3.21", STORAGE: "10.77.1.41", META: "10.77.1.61"}


class Edge:
    """What the faults asked of machines, routers and hosts; and what those answer."""

    def __init__(self) -> None:
        self.did: list[tuple[object, ...]] = []
        self.broken: set[str] = set()
        """hosts on which everything fails"""
        self.answers: dict[str, str] = {}
        """of commands, by a word in them"""
        self.in_turn: dict[str, list[str]] = {}
        """likewise, one after the other, the last one for ever"""
        self.told: list[str] = []
        """on standard input"""
        self.off: set[str] = set()
        self.frozen: set[str] = set()
        self.drops: dict[Drop, int] = {}
        self.sectors: dict[str, int] = {"spoil": 1, "count": 0}
        """of a disk: how many are spoiled when asked, how many are wrong"""
        self._lock = threading.Lock()

    def do(self, what: str, host: str, *more: object) -> None:
        with self._lock:
            self.did.append((what, host, *more))
        if host in self.broken:
            raise LabError(f"{what} {host}: no")

    def freeze(self, machine: SimpleNamespace, *, frozen: bool) -> None:
        self.do("freeze" if frozen else "thaw", machine.name)

    def run(self, address: str, argv: Sequence[str], stdin: str | None, *, check: bool) -> Result:
        host = next(name for name, known in ADDRESS.items() if known == address)
        programs = {storage_faults.ROT: "ROT", storage_faults.FILL: "FILL"}
        argv = [programs.get(word, word) for word in argv]
        with self._lock:
            self.did.append((host, *argv))
            self.told += [stdin] if stdin else []
        if host in self.broken and check:
            raise RemoteError(f"reach {address} by SSH: no")
        for word, texts in self.in_turn.items():
            if word in " ".join(argv):
                return Result(texts.pop(0) if len(texts) > 1 else texts[0], "", 0)
        said = next((text for word, text in self.answers.items() if word in " ".join(argv)), "")
        return Result(said, "", 0)

    def of_disk(self, what: str, disk: str, sectors: Sequence[bytes]) -> int:
        with self._lock:
            self.did.append((what, disk, len(sectors)))
        return self.sectors[what]


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edge:
    made = Edge()

    class Remote:
        def __init__(self, _region: Region, address: str) -> None:
            self.address = address

        def run(self, argv: Sequence[str], *, stdin: str | None = None, timeout_s: float, check: bool = True) -> Result:
            assert 0 < timeout_s <= 60
            return made.run(self.address, argv, stdin, check=check)

    def load(state_dir: Path, name: str) -> SimpleNamespace:
        if name not in ADDRESS:
            raise NotThere(f"find machine {name!r}")
        return SimpleNamespace(name=name, folder=state_dir / "machines" / name)

    monkeypatch.setattr(hands, "SshRemote", Remote)
    monkeypatch.setattr(faults.machines, "load", load)
    monkeypatch.setattr(faults.machines, "power_off", lambda m: made.do("power off", m.name))
    monkeypatch.setattr(faults.machines, "ensure", lambda m: made.do("ensure", m.name))
    monkeypatch.setattr(faults.machines, "remove", lambda m: made.do("remove", m.name))
    monkeypatch.setattr(faults.machines, "freeze", made.freeze)
    monkeypatch.setattr(faults.machines, "is_running", lambda m: m.name not in made.off)
    monkeypatch.setattr(faults.machines, "is_frozen", lambda m: m.name in made.frozen)
    monkeypatch.setattr(lab, "drop", lambda region, drops: made.do("drop", region, drops))
    monkeypatch.setattr(lab, "heal", lambda region, drops: made.do("heal", region, drops))
    monkeypatch.setattr(lab, "standing_drops", lambda _region: made.drops)
    monkeypatch.setattr(lab, "spoil_sectors", lambda _dir, _host, disk, found: made.of_disk("spoil", disk, found))
    monkeypatch.setattr(lab, "count_sectors", lambda _dir, _host, disk, found: made.of_disk("count", disk, found))
    monkeypatch.setattr(storage_faults, "LOOK_AGAIN_S", 0.001)
    monkeypatch.setattr(lab, "fail_disk", lambda _dir, host, disk: made.do("fail", host, disk))
    monkeypatch.setattr(provision, "up", lambda region, profile, _progress: made.do("up", region.name, profile))
    return made


@pytest.fixture
def region(tmp_path: Path) -> Region:
    return region_in(tmp_path)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        (Power((A, B)), f"no power: {A}, {B}"),
        (Freeze((A,)), f"frozen: {A}"),
        (Cut(((1, 2),), "AZ b can't hear AZ a"), "AZ b can't hear AZ a"),
        (Degrade(WAYS, loss_percent=2), "on each of 2 ways between AZs 2 % of the packets are lost"),
        (
            Degrade(WAYS, 2, 10_000),
            "on each of 2 ways between AZs 2 % of the packets are lost, 10,000 kbit/s are carried",
        ),
        (RotFiles(STORAGE, OBJECTS), f"wrong bytes in the files that {STORAGE} has of 2 objects"),
        (RotDisk(STORAGE, ("d01",), OBJECTS), f"wrong bytes on d01 of {STORAGE} where some of 2 objects lie"),
        (Full((STORAGE,)), f"full: {STORAGE}"),
        (Kill((A,), "webapi"), f"killed: webapi on {A}"),
        (Kill((META,), "patroni", process="postgres"), f"killed: postgres on {META}"),
        (Pause((META,), "patroni"), f"stopped by a signal: patroni on {META}"),
        (Stop((A, B), "authcache"), f"stopped: authcache on {A}, {B}"),
        (FailDisks(STORAGE, ("d01", "d02")), f"failed: d01, d02 of {STORAGE}"),
        (LosePool(STORAGE), f"gone with its pool: {STORAGE}"),
        (SparesIn(STORAGE, 2), f"2 spares of {STORAGE} are in and filled"),
    ],
)
def test_a_fault_says_what_it_is(fault: Fault, text: str) -> None:
    assert fault.text() == text


@pytest.mark.parametrize(
    ("fault", "harm", "mend"),
    [
        (Power((A, B)), [("power off", A), ("power off", B)], [("ensure", A), ("ensure", B)]),
        (Freeze((A, B)), [("freeze", A), ("freeze", B)], [("thaw", A), ("thaw", B)]),
        (FailDisks(STORAGE, ("d01", "d02")), [("fail", STORAGE, "d01"), ("fail", STORAGE, "d02")], [("ensure", STORAGE)]),
        (LosePool(STORAGE), [("remove", STORAGE)], [("up", "lab", None)]),
        (
            Cut(WAYS, "a and b"),
            [("drop", "lab", lab.cuts(frozenset(WAYS)))],
            [("heal", "lab", lab.cuts(frozenset(WAYS)))],
        ),
        # One way: only that one, at its own end.
        (
            Cut(((3, 1),), "one way"),
            [("drop", "lab", frozenset({Drop(3, 1, Kind.CUT)}))],
            [("heal", "lab", frozenset({Drop(3, 1, Kind.CUT)}))],
        ),
        (
            Degrade(((3, 1),), 2, 10_000),
            [("drop", "lab", frozenset({Drop(3, 1, Kind.LOSS, 2), Drop(3, 1, Kind.NARROW, 10_000)}))],
            [("heal", "lab", frozenset({Drop(3, 1, Kind.LOSS, 2), Drop(3, 1, Kind.NARROW, 10_000)}))],
        ),
        (
            Degrade(((3, 1),), kbit_per_s=10_000),
            [("drop", "lab", frozenset({Drop(3, 1, Kind.NARROW, 10_000)}))],
            [("heal", "lab", frozenset({Drop(3, 1, Kind.NARROW, 10_000)}))],
        ),
        (
            Full((STORAGE,)),
            [(STORAGE, "python3", "-c", "FILL", "fill", "/tank/objects", "tank/objects")],
            [(STORAGE, "python3", "-c", "FILL", "empty", "/tank/objects", "tank/objects")],
        ),
        (
            Stop((A, B), "authcache"),
            [(h, "systemctl", "stop", "UNIT authcache") for h in (A, B)],
            [(h, "systemctl", "start", "UNIT authcache") for h in (A, B)],
        ),
        (
            Pause((META,), "patroni"),
            [(META, "systemctl", "kill", "--signal=STOP", "--kill-whom=main", "UNIT patroni")],
            [(META, "systemctl", "kill", "--signal=CONT", "--kill-whom=main", "UNIT patroni")],
        ),
        (
            Kill((META,), "patroni"),
            [(META, "touch", faults.KILLED), (META, "systemctl", "kill", "--signal=KILL", "--kill-whom=main", "UNIT patroni")],
            [],
        ),
        (
            Kill((META,), "patroni", process="postgres"),
            [(META, "touch", faults.KILLED), (META, "sh", "-c", "kill -KILL $(pgrep -o -x postgres)")],
            [],
        ),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, list) else "",
)  # fmt: skip
def test_what_a_fault_does_and_undoes(
    edge: Edge, region: Region, fault: Fault, harm: list[tuple[object, ...]], mend: list[tuple[object, ...]]
) -> None:
    def unit(step: tuple[object, ...]) -> tuple[object, ...]:
        *words, last = step
        if isinstance(last, str) and last.startswith("UNIT "):
            last = unit_of(region, str(words[0]), last.removeprefix("UNIT "))
        return (*words, last)

    edge.answers = {"FILL": '{"filled_percent": 98}'}
    fault.inject(region)
    assert sorted(edge.did, key=repr) == sorted(map(unit, harm), key=repr)
    edge.did.clear()
    fault.heal(region)
    assert sorted(edge.did, key=repr) == sorted(map(unit, mend), key=repr)


def test_one_host_that_fails_keeps_nobody_from_being_harmed_and_is_told(edge: Edge, region: Region) -> None:
    edge.broken = {A}
    for fault in (Power((A, B, C)), Freeze((A, B, C))):
        edge.did.clear()
        with pytest.raises(LabError, match=A):
            fault.inject(region)
        assert {host for _, host in edge.did} == {A, B, C}
        edge.did.clear()
        with pytest.raises(LabError, match=A):
            fault.heal(region)
        assert {host for _, host in edge.did} == {A, B, C}


def test_a_lost_pool_that_is_lost_already_is_no_error(edge: Edge, region: Region) -> None:
    LosePool("lab-z-storage-01").inject(region)
    assert edge.did == []


def test_machines_start_two_at_a_time_and_end_all_at_once(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = []

    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers: int) -> None:
            workers.append(max_workers)
            super().__init__(max_workers)

    monkeypatch.setattr(hands, "ThreadPoolExecutor", Pool)
    fault = Power((A, B, C, STORAGE, META))
    fault.inject(region)
    fault.heal(region)
    Power((A,)).heal(region)
    assert workers == [5, BOOTING, 1]
    assert BOOTING == 2
    Power(()).inject(region)  # a drill of nobody does nothing


def so(fault: Fault, region: Region) -> bool:
    (_, was_so), *more = fault.bit(region)
    assert not more
    return was_so


def test_a_fault_is_shown_only_if_it_was_there_on_all_hosts(edge: Edge, region: Region) -> None:
    power, freeze = Power((A, B)), Freeze((A, B))
    edge.off = edge.frozen = {A}
    assert power.bit(region) == [("1 of 2 machines were gone at the end", False)]
    assert not so(freeze, region)
    edge.off = edge.frozen = {A, B}
    assert so(power, region)
    assert so(freeze, region)


def test_a_cut_is_shown_if_it_stands_and_dropped_something_itself(edge: Edge, region: Region) -> None:
    fault, one, other = Cut(WAYS, "a and b"), Drop(1, 2, Kind.CUT), Drop(2, 1, Kind.CUT)
    somebody_elses = {Drop(1, 3, Kind.CUT): 9, Drop(1, 2, Kind.LOSS, 2): 9}
    for drops, shown in [
        ({one: 0, other: 0}, False), ({one: 9}, False), ({one: 0, other: 0, **somebody_elses}, False), ({one: 0, other: 9}, True),
    ]:  # fmt: skip
        edge.drops = drops
        assert so(fault, region) is shown
    assert fault.bit(region) == [("9 packets were dropped", True)]


def test_a_bad_link_is_shown_if_it_stands_and_each_thing_bad_about_it_dropped_something(
    edge: Edge, region: Region
) -> None:
    fault = Degrade(WAYS, 2, 10_000)
    lost = {Drop(1, 2, Kind.LOSS, 2): 5, Drop(2, 1, Kind.LOSS, 2): 4}
    edge.drops = {**lost, Drop(1, 2, Kind.NARROW, 10_000): 0, Drop(2, 1, Kind.NARROW, 10_000): 0}
    assert fault.bit(region) == [
        ("9 packets were lost at random", True),
        ("0 packets were too many for the links", False),
    ]
    edge.drops = {**lost, Drop(1, 2, Kind.NARROW, 10_000): 3}
    assert fault.bit(region)[1] == ("3 packets were too many for the links", False)
    assert so(Degrade(WAYS, loss_percent=2), region)
    assert not so(Degrade(WAYS, loss_percent=3), region)


def test_a_service_is_shown_to_be_stopped_by_its_state(edge: Edge, region: Region) -> None:
    for state, shown in [("inactive\n", True), ("failed\n", True), ("active\n", False)]:
        edge.answers = {"is-active": state}
        assert so(Stop((A, B), "authcache"), region) is shown
    for state, shown in [("T\n", True), ("S\n", False), ("", False)]:
        edge.answers = {"MainPID": state}
        assert so(Pause((META,), "patroni"), region) is shown


def test_a_process_is_shown_to_be_killed_by_its_age(edge: Edge, region: Region) -> None:
    for fault in (Kill((META,), "patroni"), Kill((META,), "patroni", process="postgres")):
        # The mark, now, and how old the process is that runs now.
        for said, shown in [
            ("marked 100\n130\n 29\n", True),
            ("marked 100\n130\n", True),
            ("marked 100\n130\n31\n", False),
            ("130\n9\n", False),
            ("", False),
        ]:
            edge.answers = {"etimes": said}
            assert so(fault, region) is shown, said


def test_disks_are_shown_to_be_dead_if_they_hold_nothing(edge: Edge, region: Region, tmp_path: Path) -> None:
    disks = tmp_path / "machines" / STORAGE / "disks"
    disks.mkdir(parents=True)
    (disks / "d01").write_bytes(b"")
    (disks / "d02").write_bytes(b"data")
    assert so(FailDisks(STORAGE, ("d01",)), region)
    assert FailDisks(STORAGE, ("d01", "d02")).bit(region) == [("1 of 2 disks held nothing at the end", False)]
    assert not so(LosePool(STORAGE), region)
    assert so(LosePool("lab-b-storage-01"), region)


# Copies that go wrong, pools that are full.


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """What the region's administration was asked to mend."""
    found: list[dict[str, object]] = []

    def call(_self: object, verb: str, payload: dict[str, object]) -> dict[str, object]:
        assert verb == "mend"
        found.append(payload)
        return {"noted": 1}

    monkeypatch.setattr(storage_faults.Administration, "call", call)
    return found


def copies(wrong: Sequence[str] = (), missing: Sequence[str] = (), right: int = 0, aside: int = 0) -> str:
    return json.dumps({"right": right, "wrong": wrong, "aside": aside, "missing": missing})


def called(*paths: str) -> str:
    bodies = [known_body(path) for path in paths]
    return "\n".join(f"{len(b)}.{hashlib.md5(b, usedforsecurity=False).hexdigest()}" for b in bodies)


KNOWN, COLD = OBJECTS[:1], OBJECTS[1:]
ROTTEN = RotFiles(STORAGE, KNOWN, COLD)


def test_only_files_that_are_called_as_the_drills_own_objects_are_spoiled(edge: Edge, region: Region) -> None:
    edge.answers = {"ROT spoil": copies(["a/1", "a/2"])}
    ROTTEN.inject(region)
    assert edge.did == [(STORAGE, "python3", "-c", "ROT", "spoil", "/tank/objects")]
    assert edge.told == [called(*OBJECTS)]
    edge.answers = {"ROT spoil": copies(aside=1)}  # read by somebody at once
    ROTTEN.inject(region)
    edge.answers = {"ROT spoil": copies()}
    with pytest.raises(OperatorError, match=f"spoil copies on {STORAGE}: it has none of the drill's objects"):
        ROTTEN.inject(region)


def test_what_clients_read_has_to_become_right_by_itself(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge.in_turn = {"ROT look": [copies(["a/1"]), copies(missing=["a/1"], aside=1), copies(right=1, aside=1)]}
    assert ROTTEN.unaided(region) == []
    assert [step[4] for step in edge.did] == ["look"] * 3
    assert set(edge.told) == {called(*KNOWN)}  # nobody reads the others
    monkeypatch.setattr(storage_faults, "UNAIDED_S", 0.01)
    for not_yet in (copies(["a/1"]), copies(missing=["a/1"], aside=1)):
        edge.in_turn["ROT look"] = [not_yet]
        assert ROTTEN.unaided(region) == [
            f"the copies on {STORAGE} that clients read did not become right by themselves: not done within 0 s"
        ]


def test_what_nobody_reads_is_mended_when_that_is_asked_for_and_what_was_put_aside_is_removed(
    edge: Edge, region: Region, asked: list[dict[str, object]]
) -> None:
    edge.in_turn = {
        "ROT look": [copies(["a/1"], ["a/2"], aside=1), copies([], ["a/1"], right=1, aside=2), copies(right=2, aside=2)],
        "ROT sweep": [copies(right=2)],
    }  # fmt: skip
    ROTTEN.heal(region)
    assert asked == [{"copies": [(STORAGE, "a/1", 0), (STORAGE, "a/2", 0)]}]
    assert [step[4] for step in edge.did] == ["look"] * 3 + ["sweep"]


def test_where_nothing_is_wrong_nobody_is_asked_to_mend_it(
    edge: Edge, region: Region, asked: list[dict[str, object]]
) -> None:
    edge.answers = {"ROT": copies(right=2)}
    ROTTEN.heal(region)
    assert asked == []


def test_what_is_not_mended_is_told_and_nothing_of_the_drill_stays_in_the_object_servers_way(
    edge: Edge, region: Region, asked: list[dict[str, object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_faults, "MENDED_S", 0.01)
    edge.answers = {"ROT": copies(missing=["a/1"], aside=1)}
    with pytest.raises(LabError, match=f"wait until 1 copies on {STORAGE} are mended: not done within 0 s"):
        ROTTEN.heal(region)
    assert len(asked) == 1
    assert edge.did[-1][4] == "sweep"


@pytest.mark.parametrize(("wrong", "aside", "shown"), [([], 0, False), (["a/1", "a/2"], 0, True), ([], 2, True)])
def test_wrong_copies_are_shown_where_they_are(
    edge: Edge, region: Region, *, wrong: list[str], aside: int, shown: bool
) -> None:
    edge.answers = {"ROT look": copies(wrong, right=9, aside=aside)}
    said = f"{aside} copies had wrong bytes and were put aside, {len(wrong)} have them still"
    assert ROTTEN.bit(region) == [(said, shown)]


POOL_STATUS = """
  pool: tank
 state: ONLINE
 scrub: {scrub}
config:

\tNAME             STATE     READ WRITE CKSUM
\ttank             ONLINE       0     0     0
\t  raidz2-0       ONLINE       0     0     0
\t    /disks/d01   ONLINE       0     0     {errors}
\t    /disks/d02   ONLINE       0     0     4
\tspares
\t  /disks/d03     AVAIL

errors: No known data errors
"""
SCRUBS, SCRUBBED = "scrub in progress for 0h0m, 9.26% done, 0h0m to go", "scrub completed after 0h0m with 0 errors"


def test_a_disk_is_spoiled_where_it_has_what_is_the_drills_and_then_all_of_it_is_read(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bytes] = []

    def spoil(_dir: Path, host: str, disk: str, sectors: Sequence[bytes]) -> int:
        assert (host, disk) == (STORAGE, "d01")
        edge.did.append(("spoil",))
        told.extend(sectors)
        return 1

    monkeypatch.setattr(lab, "spoil_sectors", spoil)
    RotDisk(STORAGE, ("d01",), OBJECTS).inject(region)
    assert edge.did == [
        (STORAGE, "zfs", "inherit", "mobula:drill", "tank/objects"), ("spoil",), (STORAGE, "zpool", "scrub", "tank"),
    ]  # fmt: skip
    assert [len(sector) for sector in told] == [512, 512]
    assert all(known_body(path).startswith(sector.rstrip(b"\0")) for path, sector in zip(OBJECTS, told, strict=True))


def test_a_disk_that_holds_nothing_of_the_drill_is_an_error(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage_faults, "ON_DISK_S", 0.0)
    monkeypatch.setattr(storage_faults, "LOOK_AGAIN_S", 0.0)
    edge.sectors["spoil"] = 0
    with pytest.raises(OperatorError, match=f"spoil d01 of {STORAGE}, where none of the drill's 2 objects lies"):
        RotDisk(STORAGE, ("d01",), OBJECTS).inject(region)


@pytest.mark.parametrize("wrong", [0, 3])
def test_a_spoiled_disk_is_healed_when_the_pool_was_read_and_its_errors_are_cleared(
    edge: Edge, region: Region, wrong: int
) -> None:
    status = [POOL_STATUS.format(scrub=scrub, errors=3) for scrub in (SCRUBS, SCRUBBED, SCRUBS, SCRUBBED)]
    edge.in_turn = {"zpool status": status if wrong else status[:2]}
    edge.sectors["count"] = wrong
    RotDisk(STORAGE, ("d01",), OBJECTS).heal(region)
    acts = [step[2:] for step in edge.did if step[1] == "zpool" and step[2] != "status"]
    assert acts == [("scrub", "tank")] * bool(wrong) + [("clear", "tank", "/disks/d01")]
    assert len([step for step in edge.did if step[2:] == ("status", "tank")]) == (4 if wrong else 2)
    left = RotDisk(STORAGE, ("d01",), OBJECTS).left(region)
    assert left == ([f"3 sectors of d01 of {STORAGE} are wrong after ZFS has read all"] if wrong else [])


@pytest.mark.parametrize(("errors", "wrong", "shown"), [(0, 0, False), (3, 0, True), (0, 2, True)])
def test_a_spoiled_disk_is_shown_by_what_zfs_found_on_it_and_what_it_has_not_mended(
    edge: Edge, region: Region, *, errors: int, wrong: int, shown: bool
) -> None:
    edge.answers = {"zpool status": POOL_STATUS.format(scrub=SCRUBBED, errors=errors)}
    edge.sectors["count"] = wrong
    said = f"ZFS found wrong bytes {errors} times on d01, {wrong} sectors have them still"
    assert RotDisk(STORAGE, ("d01",), OBJECTS).bit(region) == [(said, shown)]


def test_a_pool_that_says_nothing_is_a_sentence(edge: Edge, region: Region) -> None:
    with pytest.raises(OperatorError, match=f"look at the pool of {STORAGE}: read zpool status: "):
        RotDisk(STORAGE, ("d01",), OBJECTS).bit(region)


def test_a_full_pool_is_shown_by_what_the_object_server_sees_and_has_to_be_chosen_again(
    edge: Edge, region: Region
) -> None:
    for percent, shown in ((91, False), (92, True), (100, True)):
        edge.answers = {"FILL look": json.dumps({"filled_percent": percent, "younger": 0})}
        assert Full((STORAGE,)).bit(region) == [(f"{STORAGE} was {percent} % full at the end", shown)]
    assert Full((STORAGE,)).left(region) == [f"{STORAGE} has room again and has taken no copy since"]
    edge.answers = {"FILL look": json.dumps({"filled_percent": 3, "younger": 1})}
    assert Full((STORAGE,)).left(region) == []


# The note.


def note_of(region: Region) -> Path:
    return region.state_dir / "drill" / "standing.json"


def test_the_note_is_there_as_long_as_anything_stands(edge: Edge, region: Region) -> None:
    standing = Standing(region)
    assert standing.faults() == []
    standing.note(Power((A,)))
    standing.note(Freeze((B,)))
    assert Standing(region).faults() == [Power((A,)), Freeze((B,))]
    assert Standing(region).heal() == []
    assert edge.did == [("thaw", B), ("ensure", A)]
    assert not note_of(region).exists()
    assert Standing(region).heal() == []


def test_what_cannot_be_healed_stays_noted_in_its_order_and_the_rest_is_healed(edge: Edge, region: Region) -> None:
    made = [Freeze((A,)), Power((B,)), Freeze((C,)), Stop((META,), "patroni")]
    for fault in made:
        Standing(region).note(fault)
    edge.broken = {A, META}
    assert Standing(region).heal() == [
        f"heal 'stopped: patroni on {META}': reach {ADDRESS[META]} by SSH: no",
        f"heal 'frozen: {A}': thaw {A}: no",
    ]
    assert Standing(region).faults() == [made[0], made[3]]
    edge.broken = set()
    assert Standing(region).heal() == []
    assert not note_of(region).exists()


GONE = "lab-z-api-01"
"""a machine that does not exist any more"""


@pytest.mark.parametrize(
    ("fault", "healed"),
    [
        (Power((A, GONE, B)), [("ensure", A), ("ensure", B)]),
        (Freeze((A, GONE, B)), [("thaw", A), ("thaw", B)]),
        (Stop((GONE, A), "authcache"), [(A, "systemctl", "start", "mobula-authcache")]),
        (
            Pause((GONE, META), "patroni"),
            [(META, "systemctl", "kill", "--signal=CONT", "--kill-whom=main", "mobula-patroni")],
        ),
        (FailDisks(GONE, ("d01",)), []),
        (RotFiles(GONE, OBJECTS), []),
        (RotDisk(GONE, ("d01",), OBJECTS), []),
        (Full((GONE,)), []),
        (Power((GONE,)), []),
    ],
    ids=lambda value: value.text() if not isinstance(value, list) else "",
)
def test_nothing_is_healed_on_a_machine_that_is_gone_for_good_and_the_others_are(
    edge: Edge, region: Region, fault: Fault, healed: list[tuple[object, ...]]
) -> None:
    Standing(region).note(fault)
    assert Standing(region).heal() == []
    assert sorted(edge.did, key=repr) == healed
    assert not note_of(region).exists()


def test_a_machine_is_gone_for_good_when_its_folder_is(region: Region) -> None:
    """As the lab itself has it, with nothing in its place."""
    fault = Power((A, B))
    Standing(region).note(fault)
    (region.state_dir / "machines").mkdir()
    assert Standing(region).heal() == []
    assert not note_of(region).exists()


def test_of_a_machine_that_is_gone_and_one_that_fails_only_that_one_is_told_and_stays_noted(
    edge: Edge, region: Region
) -> None:
    edge.broken = {B}
    noted = [Freeze((GONE,)), Power((A, GONE, B))]
    for fault in noted:
        Standing(region).note(fault)
    assert Standing(region).heal() == [f"heal 'no power: {A}, {GONE}, {B}': ensure {B}: no"]
    assert Standing(region).faults() == noted[1:]


def test_a_service_that_the_region_has_no_more_keeps_nobody_from_being_healed(edge: Edge, region: Region) -> None:
    for fault in (Freeze((A,)), Stop((A,), "no-service")):
        Standing(region).note(fault)
    (trouble,) = Standing(region).heal()
    assert trouble.startswith(f"heal 'stopped: no-service on {A}': ")
    assert ("thaw", A) in edge.did
    assert Standing(region).faults() == [Stop((A,), "no-service")]


@pytest.mark.parametrize(
    "noted",
    [b"", b"{}", b"[1]", b'[{"type":"power"}]', b'[{"type":"flood","hosts":[]}]', b'[{"type":"power","hosts":["a"', b"\xff"],
)  # fmt: skip
def test_a_note_that_cannot_be_read_is_told_once_and_kept_aside(edge: Edge, region: Region, noted: bytes) -> None:
    path = note_of(region)
    path.parent.mkdir()
    path.write_bytes(noted)
    assert Standing(region).faults() == []
    (told,) = Standing(region).heal()
    assert told.startswith("read what a drill left: ")
    assert "./mobula lab heal" in told
    assert [p.read_bytes() for p in path.parent.iterdir()] == [noted]
    assert Standing(region).heal() == []
    Standing(region).note(Freeze((A,)))
    assert Standing(region).faults() == [Freeze((A,))]


def test_what_cannot_be_noted_is_an_error_and_what_was_noted_stays(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    Standing(region).note(Freeze((A,)))
    before = note_of(region).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing.os, "fsync", full)
    with pytest.raises(OperatorError, match=f"note 'no power: {B}' before it is done: .*No space left"):
        Standing(region).note(Power((B,)))
    assert note_of(region).read_bytes() == before
    # And what then can't be healed stays noted too.
    edge.broken = {A}
    assert [t.partition(":")[0] for t in Standing(region).heal()] == ["heal 'frozen", "note what stands"]
    assert note_of(region).read_bytes() == before


def test_a_note_is_whole_or_not_there(edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is killed while writing leaves the note as it was: it is written beside and put into its place."""
    Standing(region).note(Freeze((A,)))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(standing.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Standing(region).note(Power((B,)))
    assert [fault["type"] for fault in json.loads(note_of(region).read_bytes())] == ["freeze"]


def test_the_next_disks_fail_when_spares_are_filled_and_not_when_they_are_in(
    edge: Edge, region: Region, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ZFS fills a spare some seconds after it has come in, and tells of an earlier resilver meanwhile: eight disks once were too many."""
    in_use = POOL_STATUS.replace("AVAIL", "INUSE  currently in use")
    edge.in_turn = {
        "zpool status": [
            POOL_STATUS.format(scrub="resilver completed", errors=0), in_use.format(scrub="resilver completed", errors=0),
            in_use.format(scrub=SCRUBS, errors=0), in_use.format(scrub=SCRUBBED, errors=0),
        ],
    }  # fmt: skip
    SparesIn(STORAGE, 1).inject(region)
    assert [step[2] for step in edge.did if step[1] == "zpool"] == ["status", "status", "scrub", "status", "status"]
