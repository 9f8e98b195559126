"""Faults: what each does at the edge (SSH, nft, machines), what it says of itself, and the note of what stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from mobula.lab import faults as lab
from mobula.lab.network import LabError, NotThere
from ops import provision
from ops.drills import faults
from ops.drills.faults import BOOTING, Cut, FailDisks, Freeze, Kill, LosePool, Pause, Power, SparesIn, Standing, Stop
from ops.errors import OperatorError
from ops.region import Region
from ops.remote import RemoteError, Result
from tests.drills import region_in

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
        self.off: set[str] = set()
        self.frozen: set[str] = set()
        self.cuts: tuple[frozenset[tuple[int, int]], int] = (frozenset(), 0)
        self._lock = threading.Lock()

    def do(self, what: str, host: str, *more: object) -> None:
        with self._lock:
            self.did.append((what, host, *more))
        if host in self.broken:
            raise LabError(f"{what} {host}: no")

    def freeze(self, machine: SimpleNamespace, *, frozen: bool) -> None:
        self.do("freeze" if frozen else "thaw", machine.name)

    def run(self, address: str, argv: Sequence[str], *, check: bool) -> Result:
        host = next(name for name, known in ADDRESS.items() if known == address)
        with self._lock:
            self.did.append((host, *argv))
        if host in self.broken and check:
            raise RemoteError(f"reach {address} by SSH: no")
        said = next((text for word, text in self.answers.items() if word in " ".join(argv)), "")
        return Result(said, "", 0)


@pytest.fixture
def edge(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Edge:
    made = Edge()

    class Remote:
        def __init__(self, _region: Region, address: str) -> None:
            self.address = address

        def run(self, argv: Sequence[str], *, timeout_s: float, check: bool = True) -> Result:
            assert 0 < timeout_s <= 60
            return made.run(self.address, argv, check=check)

    def load(state_dir: Path, name: str) -> SimpleNamespace:
        if name not in ADDRESS:
            raise NotThere(f"find machine {name!r}")
        return SimpleNamespace(name=name, folder=state_dir / "machines" / name)

    monkeypatch.setattr(faults, "SshRemote", Remote)
    monkeypatch.setattr(faults.machines, "load", load)
    monkeypatch.setattr(faults.machines, "power_off", lambda m: made.do("power off", m.name))
    monkeypatch.setattr(faults.machines, "ensure", lambda m: made.do("ensure", m.name))
    monkeypatch.setattr(faults.machines, "remove", lambda m: made.do("remove", m.name))
    monkeypatch.setattr(faults.machines, "freeze", made.freeze)
    monkeypatch.setattr(faults.machines, "is_running", lambda m: m.name not in made.off)
    monkeypatch.setattr(faults.machines, "is_frozen", lambda m: m.name in made.frozen)
    monkeypatch.setattr(lab, "cut", lambda region, deaf: made.do("cut", region, deaf))
    monkeypatch.setattr(lab, "heal", lambda region, deaf: made.do("heal", region, deaf))
    monkeypatch.setattr(lab, "standing_cuts", lambda _region: made.cuts)
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
        (Kill((A,), "webapi"), f"killed: webapi on {A}"),
        (Kill((META,), "patroni", process="postgres"), f"killed: postgres on {META}"),
        (Pause((META,), "patroni"), f"stopped by a signal: patroni on {META}"),
        (Stop((A, B), "authcache"), f"stopped: authcache on {A}, {B}"),
        (FailDisks(STORAGE, ("d01", "d02")), f"failed: d01, d02 of {STORAGE}"),
        (LosePool(STORAGE), f"gone with its pool: {STORAGE}"),
        (SparesIn(STORAGE, 2), f"2 spares of {STORAGE} are in, nothing resilvers"),
    ],
)
def test_a_fault_says_what_it_is(fault: faults.Fault, text: str) -> None:
    assert fault.text() == text


UNIT = "mobula-{}.service"


@pytest.mark.parametrize(
    ("fault", "harm", "mend"),
    [
        (Power((A, B)), [("power off", A), ("power off", B)], [("ensure", A), ("ensure", B)]),
        (Freeze((A, B)), [("freeze", A), ("freeze", B)], [("thaw", A), ("thaw", B)]),
        (FailDisks(STORAGE, ("d01", "d02")), [("fail", STORAGE, "d01"), ("fail", STORAGE, "d02")], [("ensure", STORAGE)]),
        (LosePool(STORAGE), [("remove", STORAGE)], [("up", "lab", None)]),
        (
            Cut(((1, 2), (2, 1)), "a and b"),
            [("cut", "lab", frozenset({(1, 2), (2, 1)}))],
            [("heal", "lab", frozenset({(1, 2), (2, 1)}))],
        ),
        # One way: only that one, at its own end.
        (Cut(((3, 1),), "one way"), [("cut", "lab", frozenset({(3, 1)}))], [("heal", "lab", frozenset({(3, 1)}))]),
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
    edge: Edge, region: Region, fault: faults.Fault, harm: list[tuple[object, ...]], mend: list[tuple[object, ...]]
) -> None:
    def unit(step: tuple[object, ...]) -> tuple[object, ...]:
        *words, last = step
        if isinstance(last, str) and last.startswith("UNIT "):
            last = faults._unit(region, str(words[0]), last.removeprefix("UNIT "))
        return (*words, last)

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

    monkeypatch.setattr(faults, "ThreadPoolExecutor", Pool)
    fault = Power((A, B, C, STORAGE, META))
    fault.inject(region)
    fault.heal(region)
    Power((A,)).heal(region)
    assert workers == [5, BOOTING, 1]
    assert BOOTING == 2
    Power(()).inject(region)  # a drill of nobody does nothing


def so(fault: faults.Fault, region: Region) -> bool:
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


def test_a_cut_is_shown_if_it_stands_and_dropped_something(edge: Edge, region: Region) -> None:
    fault = Cut(((1, 2), (2, 1)), "a and b")
    whole = frozenset(fault.deaf)
    for cuts, shown in [((whole, 0), False), ((frozenset({(1, 2)}), 9), False), ((whole | {(1, 3)}, 9), True)]:
        edge.cuts = cuts
        assert so(fault, region) is shown


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
        (Power((GONE,)), []),
    ],
    ids=lambda value: value.text() if not isinstance(value, list) else "",
)
def test_nothing_is_healed_on_a_machine_that_is_gone_for_good_and_the_others_are(
    edge: Edge, region: Region, fault: faults.Fault, healed: list[tuple[object, ...]]
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

    monkeypatch.setattr(faults.os, "fsync", full)
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

    monkeypatch.setattr(faults.Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        Standing(region).note(Power((B,)))
    assert [fault["type"] for fault in json.loads(note_of(region).read_bytes())] == ["freeze"]
