"""Every drill, as every variant, on both profiles: a value that can be carried out, written down, healed and judged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ops.drills import catalog
from ops.drills.catalog import DRILLS, drill_of
from ops.drills.fault import Fault, unit_of
from ops.drills.faults import Cut, Degrade, Kill, Pause, Stop
from ops.drills.model import NEVER, PUB_CLIENTS, Act, Scene
from ops.drills.standing import Standing
from ops.drills.storage_faults import FailDisks, LosePool, RotDisk, RotFiles, SparesIn
from ops.errors import BadInput
from tests.drills import PROFILES, ZONES, hosts, region_in, scene

FOLDER = Path(catalog.__file__).parent
RUNS = [(name, variant) for name, drill in DRILLS.items() for variant in drill.variants]
IDS = [f"{name} {variant}" for name, variant in RUNS]
every_run = pytest.mark.parametrize(("name", "variant"), RUNS, ids=IDS)
every_profile = pytest.mark.parametrize("profile", PROFILES)


def acted(name: str, variant: str, profile: str) -> Iterator[tuple[Scene, Act]]:
    """With ZooKeeper's leader in each AZ."""
    for leader in ZONES:
        found = scene(profile, leader)
        yield found, DRILLS[name].act(found, variant)


def hosts_of(fault: Fault) -> tuple[str, ...]:
    """Those that it touches."""
    if isinstance(fault, Cut | Degrade):
        return ()
    return (fault.host,) if isinstance(fault, FailDisks | LosePool | RotDisk | RotFiles | SparesIn) else fault.hosts


def ways_of(fault: Cut | Degrade) -> tuple[tuple[int, int], ...]:
    """Directions of links that it touches."""
    return fault.deaf if isinstance(fault, Cut) else fault.ways


def test_the_profiles_are_as_large_as_they_are() -> None:
    assert {profile: len(hosts(profile)) for profile in PROFILES} == {"small": 15, "lab": 27}


@every_profile
@every_run
def test_every_fault_is_of_something_that_is_there(name: str, variant: str, profile: str) -> None:
    for found, act in acted(name, variant, profile):
        assert act.faults
        assert len(act.pauses_s) in (0, len(act.faults) - 1)
        for fault in act.faults:
            assert fault.text()
            touched = hosts_of(fault)
            assert len(set(touched)) == len(touched)
            assert set(touched) <= set(found.hosts)
            if isinstance(fault, Cut | Degrade):
                ways = ways_of(fault)
                assert ways
                ends = {end for pair in ways for end in pair}
                assert ends <= {found.zone(az) for az in found.clients}
                assert all(source != target for source, target in ways)
            else:
                assert touched
            if isinstance(fault, Kill | Pause | Stop):
                region = region_in(Path("/nowhere"), profile)
                assert all(unit_of(region, host, fault.service) for host in fault.hosts)


@every_profile
@every_run
def test_no_disk_fails_twice_and_none_that_is_not_there(name: str, variant: str, profile: str) -> None:
    for found, act in acted(name, variant, profile):
        failing = [(f.host, disk) for f in act.faults if isinstance(f, FailDisks) for disk in f.disks]
        failing += [(f.host, disk) for f in act.faults if isinstance(f, RotDisk) for disk in f.disks]
        assert len(set(failing)) == len(failing)
        assert all(1 <= int(disk.removeprefix("d")) <= found.hosts[host].disks for host, disk in failing)


@every_profile
def test_rot_is_on_a_disk_of_each_vdev_as_all_objects_may_lie_in_one(profile: str) -> None:
    for found, act in acted("rot", "disk", profile):
        (fault,) = act.faults
        assert isinstance(fault, RotDisk)
        assert [sum(disk in vdev for disk in fault.disks) for vdev in found.vdevs(fault.host)] == [1, 1, 1]


@every_profile
@every_run
def test_what_is_noted_is_read_as_it_was(name: str, variant: str, profile: str, tmp_path: Path) -> None:
    for number, (_, act) in enumerate(acted(name, variant, profile)):
        region = region_in(tmp_path / str(number), profile)
        for fault in act.faults:
            Standing(region).note(fault)
        assert tuple(Standing(region).faults()) == act.faults


@every_profile
@every_run
def test_what_is_expected_is_said_of_every_shard_and_of_clients_that_there_are(
    name: str, variant: str, profile: str
) -> None:
    for found, act in acted(name, variant, profile):
        expect = act.expect
        assert set(expect.reads) == set(expect.writes) == set(found.shards)
        assert all(bound is NEVER or bound > 0 for bound in (*expect.reads.values(), *expect.writes.values()))
        clients = set(found.clients)
        assert clients == {*ZONES, PUB_CLIENTS}
        assert expect.served
        assert set(expect.served) <= set(expect.reach) <= clients
        assert {shard for shard, _ in expect.forbidden} <= set(found.shards)
        # What must not succeed can't be promised.
        assert all((expect.writes if writes else expect.reads)[shard] is NEVER for shard, writes in expect.forbidden)


@every_profile
@every_run
def test_pools_to_repair_are_those_that_are_lost(name: str, variant: str, profile: str) -> None:
    for found, act in acted(name, variant, profile):
        lost = [fault.host for fault in act.faults if isinstance(fault, LosePool)]
        assert list(DRILLS[name].repairs(found, variant)) == lost


@every_profile
@every_run
def test_only_the_drills_own_objects_are_spoiled_and_some_of_them_are_read_by_nobody(
    name: str, variant: str, profile: str
) -> None:
    for found, act in acted(name, variant, profile):
        rotten = [fault for fault in act.faults if isinstance(fault, RotDisk | RotFiles)]
        for fault in rotten:
            objects = fault.objects if isinstance(fault, RotDisk) else (*fault.known, *fault.cold)
            assert objects == (*found.known, *found.cold)
            assert found.known
            assert found.cold
        assert DRILLS[name].cold == bool(rotten)


@every_profile
@every_run
def test_bulk_goes_only_where_a_link_is_narrow(name: str, variant: str, profile: str) -> None:
    for _, act in acted(name, variant, profile):
        narrow = {way for f in act.faults if isinstance(f, Degrade) and f.kbit_per_s for way in f.ways}
        assert set(act.bulk) == narrow
        assert len(set(act.bulk)) == len(act.bulk)


@pytest.mark.parametrize(
    ("variant", "loss", "narrow"), [("loss", True, False), ("narrow", False, True), ("both", True, True)]
)
def test_links_are_bad_between_all_azs_both_ways_and_never_towards_the_internet(
    variant: str, *, loss: bool, narrow: bool
) -> None:
    for _, act in acted("degrade", variant, "small"):
        (fault,) = act.faults
        assert isinstance(fault, Degrade)
        assert set(fault.ways) == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}
        assert (fault.loss_percent, fault.kbit_per_s) == (2 * loss, 10_000 * narrow)
        assert act.expect.takeovers_max == 1


def test_a_full_az_is_all_of_its_storage_hosts() -> None:
    filled = {variant: DRILLS["full"].act(scene("lab"), variant).faults[0] for variant in DRILLS["full"].variants}
    assert {variant: hosts_of(fault) for variant, fault in filled.items()} == {
        "pool": ("lab-a-storage-01",), "az": ("lab-a-storage-01", "lab-a-storage-02"),
    }  # fmt: skip


@pytest.mark.parametrize("name", DRILLS)
def test_a_drill_says_when_to_run_it_what_it_proves_and_what_one_sees(name: str) -> None:
    drill = DRILLS[name]
    first, *_ = drill.runbook.splitlines()
    assert first.endswith(".")
    for word in ("When: ", "Proves: ", "You will see: "):
        assert drill.runbook.count(f"\n{word}") == 1
    assert drill.hold_s >= 10
    assert drill.claims
    assert len(set(drill.claims)) == len(drill.claims)
    assert all(re.fullmatch(r"CL-\d{2,3}", claim) for claim in drill.claims)
    assert len(set(drill.variants)) == len(drill.variants)


def test_modules_drills_and_the_catalog_have_the_same_names() -> None:
    modules = {p.stem for p in FOLDER.glob("*.py") if re.search(r"^DRILL = ", p.read_text(), re.MULTILINE)}
    assert {name.replace("-", "_") for name in DRILLS} == modules
    assert all(drill_of(name) is drill and drill.name == name for name, drill in DRILLS.items())


@pytest.mark.parametrize("name", ["", "az_loss", "AZ-loss", "az-loss "])
def test_a_drill_that_is_not_there_is_refused_by_naming_those_that_are(name: str) -> None:
    with pytest.raises(BadInput, match=re.escape(f"run drill {name!r}: there are az-loss, partition, ")) as refused:
        drill_of(name)
    assert all(known in str(refused.value) for known in DRILLS)


@pytest.mark.parametrize("name", DRILLS)
def test_a_variant_that_is_not_there_is_refused_by_naming_those_that_are(name: str) -> None:
    drill = DRILLS[name]
    for wanted in ("", "z", f"{drill.variants[0]} "):
        with pytest.raises(BadInput) as refused:
            drill.variant(wanted)
        told = f"run drill {name!r} as {wanted!r}: it has the variants {', '.join(drill.variants)}"
        assert str(refused.value) == told
    assert drill.variant(None) == drill.variants[0]
    assert [drill.variant(variant) for variant in drill.variants] == list(drill.variants)
